"""From what a request holds to a question: files decoded, URLs fetched, vectors and weights checked."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xmr.engine.answer import Wanted
from xmr.engine.errors import XmrError
from xmr.engine.model import Embeddings
from xmr.engine.question import LIKE, MINUS, NAMES, VIDEO, parts_of
from xmr.engine.serve.decoding import pieces
from xmr.engine.serve.reading import Files, nearest, shown
from xmr.engine.serve.refusals import Refusal, mistake
from xmr.engine.serve.service import Service
from xmr.engine.serve.shapes import MAX_BATCH, OfItem, OfVector, QuestionBody, SearchBody
from xmr.engine.serve.uploads import Upload, of_data
from xmr.engine.serve.urls import is_url
from xmr.engine.serve.waiting import Asked, Decoded

MIN_LENGTH = 1e-6  # of a vector that has a direction


async def question_of(body: QuestionBody, files: Files, service: Service, wanted: Wanted | None = None) -> Asked:
    """The parts with all that stands for them but embeddings; Refusal where there is none."""
    contents: dict[str, list[str]] = {}
    asked = Asked([], wanted or Wanted())
    sources = [(name, source) for name in NAMES for source in [*body.sources(name), *files.get(name, ())]]
    if not sources:
        raise Refusal(422, "no_question", "no question found; ask with text, image, sound, speech, video or like")
    if len(sources) > MAX_BATCH:
        raise Refusal(422, "too_many", f"{len(sources)} parts found, at most {MAX_BATCH} are asked; ask with less")
    for number, (name, source) in enumerate(sources):
        key, told = f"\0{number}\0{id(asked)}", _told(name, len(contents.get(name, ())), sources)
        contents.setdefault(name, []).append(await _resolved(name, source, key, told, asked, service))
    try:
        asked.parts = parts_of(contents, _weights(body, contents))
    except XmrError as error:
        raise mistake(error) from None
    return asked


def _told(name: str, number: int, sources: Sequence[tuple[str, Any]]) -> str:
    """What a part is called where something is wrong with it: its name, with a number where there are several."""
    return f"{name} {number + 1}" if sum(other == name for other, _ in sources) > 1 else name


async def _resolved(name: str, source: Any, key: str, told: str, asked: Asked, service: Service) -> str:
    """What stands for a part in the question: a sentence, or the key of an item or of what was decoded."""
    kind = name.removeprefix(MINUS)
    if kind == "text":
        return str(source)
    if kind == LIKE or isinstance(source, OfItem):
        asked.items[key] = source.item if isinstance(source, OfItem) else int(source)
        return key
    if isinstance(source, OfVector):
        asked.vectors[key] = _unit(source.vector, told, service.dim)
        return key
    upload = source if isinstance(source, Upload) else await file_of(kind, source, told, service)
    asked.decoded[key] = await decoded(kind, upload, told, service)
    return key


async def file_of(kind: str, source: str, told: str, service: Service) -> Upload:
    """The file that a data: URI holds or a URL leads to; Refusal, which names the part as it is `told`."""
    try:
        if not is_url(source):
            return await asyncio.to_thread(of_data, kind, source, takes_urls=service.settings.allow_urls)
        if not service.settings.allow_urls:
            raise Refusal(400, "url_refused", "this server fetches no URLs; send the file itself")
        return await service.fetch(source, kind)
    except Refusal as refusal:
        raise refusal.of(told) from None


async def decoded(kind: str, upload: Upload, told: str, service: Service) -> Decoded:
    """Refusal for a file that cannot be read, which is `told` of by the name of its part."""
    modality = service.modality_of_video() if kind == VIDEO else kind
    try:
        service.model.check_modality(modality)
    except XmrError as error:
        raise service.mistake(error) from None
    preprocessing = service.model.preprocessing[modality]
    return Decoded(modality, await service.decoders.run_on(upload, told, pieces, modality, preprocessing))


def _weights(body: QuestionBody, contents: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    """One for each of what was given by a name; a number alone stands for all of them."""
    weights = {}
    for name, share in (body.weights or {}).items():
        n_given = len(contents.get(name, ()))
        if not n_given:
            near = nearest(name, contents)
            meant = f"; did you mean {near}" if near else ""
            said = (
                f"weights: {shown(name)} found, which is no part of this question{meant}; it has {', '.join(contents)}"
            )
            raise Refusal(422, "bad_shape", said)
        weights[name] = share if isinstance(share, list) else [share] * n_given
        if len(weights[name]) != n_given:
            said = f"weights: {len(weights[name])} found for {n_given} of {name}; give one number, or one for each"
            raise Refusal(422, "bad_shape", said)
    if weights.keys() == contents.keys() and not any(map(any, weights.values())):
        raise Refusal(422, "bad_shape", "weights: 0 found for every part; give one of them more")
    return weights


def _unit(numbers: Sequence[float], told: str, dim: int) -> Embeddings:
    if len(numbers) != dim:
        found = f"{told}: a vector of {len(numbers)} numbers found"
        raise Refusal(422, "bad_vector", f"{found}; give one of {dim}, an embedding of this model")
    vector = np.array(numbers, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if not MIN_LENGTH < length < 1e300:
        raise Refusal(422, "bad_vector", f"{told}: a vector without direction found; give an embedding of this model")
    return np.asarray(vector / length, dtype=np.float32)


def wanted_of(body: SearchBody) -> Wanted:
    to = (body.to,) if isinstance(body.to, str) else tuple(dict.fromkeys(body.to)) if body.to else None
    try:
        return Wanted(body.k, body.offset, to, body.where, body.min_score, body.group, body.fold)
    except XmrError as error:
        raise mistake(error) from None

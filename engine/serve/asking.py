"""From a request to a question: files decoded, URLs fetched, vectors checked."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from xmr.engine.answer import Wanted
from xmr.engine.errors import XmrError
from xmr.engine.media import modalities_of
from xmr.engine.model import Embeddings
from xmr.engine.question import LIKE, MINUS, NAMES, VIDEO, parts_of
from xmr.engine.serve.decoding import pieces
from xmr.engine.serve.refusals import Refusal, mistake
from xmr.engine.serve.shapes import MAX_BATCH, OfItem, OfVector, SearchBody
from xmr.engine.serve.uploads import Upload, of_data, of_file
from xmr.engine.serve.urls import fetch, is_url
from xmr.engine.serve.waiting import Asked, Decoded

if TYPE_CHECKING:
    from starlette.requests import Request

    from xmr.engine.serve.service import Service

MIN_LENGTH = 1e-6  # of a vector that has a direction
MAX_FIELDS = 64  # of a form
WORDS = frozenset({"text", "minus_text", "where"})  # fields of a form that are taken as they are written
FORM = "multipart/form-data"

Files = Mapping[str, Sequence[Upload]]  # by the names of parts


async def read(request: "Request") -> tuple[SearchBody, Files]:
    """What a question is made of, from JSON or a form with files."""
    given, files = await _read(request)
    return body_of(given), files


def body_of(given: object) -> SearchBody:
    """Refusal (422) for another shape."""
    try:
        return SearchBody.model_validate(given)
    except ValidationError as error:
        raise misshapen(error.errors(include_url=False, include_input=False)) from None


def misshapen(problems: Sequence[Any]) -> Refusal:
    """One sentence of the first problem; nothing of what was sent is repeated."""
    first = problems[0]
    where = ".".join(str(step) for step in first["loc"] if step != "body") or "the body"
    return Refusal(422, "bad_shape", f"{where}: {first['msg']}; see /openapi.json for what is expected")


async def question_of(body: SearchBody, files: Files, service: "Service") -> Asked:
    """The parts with all that stands for them but embeddings; Refusal where there is none."""
    contents: dict[str, list[str]] = {}
    asked = Asked([], _wanted(body))
    sources = [(name, source) for name in NAMES for source in [*body.sources(name), *files.get(name, ())]]
    if not sources:
        raise Refusal(422, "no_question", "no question found; ask with text, image, sound, speech, video or like")
    if len(sources) > MAX_BATCH:
        raise Refusal(422, "too_many", f"{len(sources)} parts found, at most {MAX_BATCH} are asked; ask with less")
    for number, (name, source) in enumerate(sources):
        content = await _resolved(name.removeprefix(MINUS), source, f"\0{number}\0{id(asked)}", asked, service)
        contents.setdefault(name, []).append(content)
    weights = {name: share if isinstance(share, list) else [share] for name, share in (body.weights or {}).items()}
    try:
        asked.parts = parts_of(contents, weights)
    except XmrError as error:
        raise mistake(error) from None
    return asked


async def _resolved(kind: str, source: Any, key: str, asked: Asked, service: "Service") -> str:
    """What stands for a part in the question: a sentence, an id, or the key of what was decoded."""
    if kind == "text":
        return str(source)
    if kind == LIKE or isinstance(source, OfItem):
        asked.items[key] = source.item if isinstance(source, OfItem) else int(source)
        return key
    if isinstance(source, OfVector):
        asked.vectors[key] = _unit(source.vector, service.dim)
        return key
    upload = source if isinstance(source, Upload) else await file_of(kind, source, service)
    asked.decoded[key] = await decoded(kind, upload, service)
    return key


async def file_of(kind: str, source: str, service: "Service") -> Upload:
    """The file that a data: URI holds or a URL leads to."""
    if not is_url(source):
        return of_data(kind, source)
    if not service.settings.allow_urls:
        raise Refusal(400, "url_refused", "this server fetches no URLs; send the file itself")
    return await asyncio.to_thread(fetch, source, kind, service.settings.max_body_bytes)


async def decoded(kind: str, upload: Upload, service: "Service") -> Decoded:
    modality = service.modality_of_video() if kind == VIDEO else kind
    try:
        service.model.check_modality(modality)
        found = await service.decoders.run_on(upload, pieces, modality, service.model.preprocessing[modality])
    except XmrError as error:
        raise service.mistake(error) from None
    return Decoded(modality, found)


def _unit(numbers: Sequence[float], dim: int) -> Embeddings:
    if len(numbers) != dim:
        found = f"a vector of {len(numbers)} numbers found"
        raise Refusal(422, "bad_vector", f"{found}, the model's have {dim}; send one of it")
    vector = np.array(numbers, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if not MIN_LENGTH < length < 1e300:
        raise Refusal(422, "bad_vector", "a vector without direction found; send an embedding of this model")
    return np.asarray(vector / length, dtype=np.float32)


def _wanted(body: SearchBody) -> Wanted:
    to = (body.to,) if isinstance(body.to, str) else tuple(dict.fromkeys(body.to)) if body.to else None
    try:
        return Wanted(body.k, body.offset, to, body.where, body.min_score, body.group, body.fold)
    except XmrError as error:
        raise mistake(error) from None


async def _read(request: "Request") -> tuple[object, dict[str, list[Upload]]]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        return await _form(request)
    return json_of(await request.body()), {}


def json_of(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(422, "bad_json", 'the body is no JSON object; write one, as {"text": "a dog"}') from None


async def _form(request: "Request") -> tuple[dict[str, Any], dict[str, list[Upload]]]:
    """Fields as JSON would hold them, and files by the names of parts."""
    try:
        form = await request.form(max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=4 * 1024 * 1024)
    except Exception as error:  # of starlette and of the parser, each with its own
        if isinstance(error, Refusal):
            raise
        raise Refusal(422, "bad_form", "the form cannot be read; send multipart/form-data, up to 64 fields") from None
    try:
        return await _fields(form)
    finally:
        await form.close()


async def _fields(form: FormData) -> tuple[dict[str, Any], dict[str, list[Upload]]]:
    given: dict[str, list[Any]] = {}
    files: dict[str, list[Upload]] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            given.setdefault(name, []).append(_field(name, value))
            continue
        kind = name.removeprefix(MINUS)
        if name not in NAMES or kind in ("text", LIKE):
            raise Refusal(422, "bad_form", "a file found in a field that takes none; name it image, sound or video")
        upload = of_file(kind, await value.read(), value.filename or "", value.content_type)
        files.setdefault(name, []).append(upload)
    return {name: _flat(values) for name, values in given.items()}, files


def _field(name: str, value: str) -> Any:
    """Numbers, lists and objects are written as JSON; words are not."""
    if name in WORDS and not (name != "where" and value.startswith("[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _flat(values: list[Any]) -> Any:
    """A field that is there once stands for itself."""
    if len(values) == 1:
        return values[0]
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def path_words(service: "Service") -> list[tuple[Path | str, str]]:
    """Folders of this machine, and what a client reads instead."""
    return [
        (service.index_folder, "the index"),
        (service.model_folder, "the model"),
        (service.decoders.folder, "upload"),
    ]


def fitting_video(modalities: Sequence[str]) -> str | None:
    """What of a video is asked with: its pictures, or its sound where the model sees nothing."""
    fitting = modalities_of(modalities, VIDEO)
    return "image" if "image" in fitting else next(iter(fitting), None)

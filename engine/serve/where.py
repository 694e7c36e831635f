"""/v1/items/{id}/where: where in a picture, and when in a sound, what was asked is found.

The item is first decoded in a process of its own, like all files; the map is made of the plain copy that comes back.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from xmr.engine.catalog import File, Found
from xmr.engine.errors import XmrError
from xmr.engine.localize import Heat, PictureHeat, as_record, localize_vector
from xmr.engine.media import MODALITIES, Piece
from xmr.engine.model import Embeddings
from xmr.engine.serve import decoding
from xmr.engine.serve.answering import Ready
from xmr.engine.serve.asking import question_of
from xmr.engine.serve.items import Id, bad_file, content_of_item, known
from xmr.engine.serve.patience import while_waited
from xmr.engine.serve.reading import Files, question_in, shaped
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.replies import OF_ITEMS, WHERE_EXAMPLE, WhenInSound, WhereInPicture
from xmr.engine.serve.service import Served, Service
from xmr.engine.serve.shapes import A_SENTENCE, AN_ITEM, LARGEST, MAX_TEXT, QUESTION_BODY, QuestionBody
from xmr.engine.serve.waiting import Asked

router = APIRouter(tags=["items"], responses=OF_ITEMS)
PLACES: dict[int | str, Any] = {
    200: {"model": WhereInPicture | WhenInSound, "content": {"application/json": {"example": WHERE_EXAMPLE}}}
}
Words = Annotated[str | None, Query(min_length=1, max_length=MAX_TEXT, description=A_SENTENCE, examples=["a dog"])]


@router.get("/v1/items/{item:int}/where", responses=PLACES)
async def where(
    item: Id,
    request: Request,
    service: Served,
    text: Words = None,
    query: Words = None,
    like: Annotated[int | None, Query(ge=1, le=LARGEST, description=AN_ITEM)] = None,
) -> dict[str, Any]:
    """Where in a picture, or when in a sound, words or another item are: a heat map, a point and a box, or seconds."""
    given: dict[str, str | int] = {}
    for name, value in (("text", text), ("text", query), ("like", like)):
        if value is not None:
            if given:
                raise Refusal(422, "bad_shape", "text, query and like name what to look for; give one of them")
            given[name] = value
    return await while_waited(request, found_in(item, shaped(given, QuestionBody), {}, service))


@router.post("/v1/items/{item:int}/where", responses=PLACES, openapi_extra=QUESTION_BODY)
async def where_of_question(item: Id, request: Request, service: Served) -> dict[str, Any]:
    """The same of any question that `/v1/search` takes, as a whole: files, vectors, several parts with weights.

    Of one sound or speech file also the second that names the place, where the model gives the shares of both.
    """
    body, files = await question_in(request, QuestionBody)
    return await while_waited(request, found_in(item, body, files, service))


async def found_in(item: int, body: QuestionBody, files: Files, service: Service) -> dict[str, Any]:
    """What is told of the place; Refusal where the item cannot be looked into."""
    asked = await question_of(body, files, service)
    found, file = await known(item, service)
    try:
        service.model.check_maps(found.modality)
        async with service.looking():
            heat, first_s = await looked_into(found, file, asked, service)
    except XmrError as error:
        raise service.mistake(error) from None
    values = heat.values.astype(float).round(4).tolist()
    if isinstance(heat, PictureHeat):
        return as_record(heat) | {"area": [round(side, 1) for side in heat.area], "values": values}
    return later(as_record(heat) | {"spans_s": heat.spans_s.round(3).tolist(), "values": values}, first_s)


async def looked_into(found: Found, file: File, asked: Asked, service: Service) -> tuple[Heat, float]:
    """The heat of a question in an item, and the second of the file at which that begins."""
    vector, alone = await vector_of(asked, service), file_alone(asked)
    with tempfile.TemporaryDirectory(prefix="xmr-") as folder:
        path = Path(folder) / "item"
        first_s = await written_plain(found, file, path, service)
        look = partial(localize_vector, service.model, vector, found.modality, path, alone)
        return await service.look(look), first_s


async def vector_of(asked: Asked, service: Service) -> Embeddings:
    """(dim,) unit, of the whole question; sentences and files are embedded in turn with everybody's."""
    for part in asked.parts:
        if part.kind == "text" and part.content not in asked.vectors:
            asked.vectors[part.content] = (await service.batcher.embed("text", [part.content]))[0]
    for content, file in asked.decoded.items():
        asked.vectors[content] = (await service.batcher.embed(file.modality, [file.windows]))[0]
    return await service.lookups.ask(lambda index: Ready(index, service.model).of(asked))


def file_alone(asked: Asked) -> tuple[str, list[Piece]] | None:
    """Modality and pieces of the file that is the whole question, if one is: its seconds can be told apart."""
    if len(asked.parts) > 1 or asked.parts[0].weight < 0 or not asked.decoded:
        return None
    [file] = asked.decoded.values()
    return file.modality, file.pieces


async def written_plain(found: Found, file: File, path: Path, service: Service) -> float:
    """The second of the file at which what was written to `path` begins."""
    modality = found.modality
    rate_hz = service.model.preprocessing[modality].rate_hz if MODALITIES[modality].medium == "audio" else 0
    content = await content_of_item(file)
    span_s = found.start_s, found.end_s
    try:
        return await service.decoders.run(decoding.write_plain, content, file.medium, modality, span_s, rate_hz, path)
    except XmrError as error:
        raise bad_file(error, file, service) from None


def later(told: dict[str, Any], by_s: float) -> dict[str, Any]:
    """Seconds of the part that was looked into as seconds of the file."""
    told["seconds"] = round(told["seconds"] + by_s, 3)
    told["span_s"] = [round(second + by_s, 3) for second in told["span_s"]]
    told["spans_s"] = [[round(second + by_s, 3) for second in span_s] for span_s in told["spans_s"]]
    return told

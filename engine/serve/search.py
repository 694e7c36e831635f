"""POST /v1/search: what in the index is nearest to a question."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from xmr.engine.answer import Answer
from xmr.engine.errors import XmrError
from xmr.engine.serve.asking import question_of
from xmr.engine.serve.patience import while_waited
from xmr.engine.serve.place import shown_path
from xmr.engine.serve.reading import Files, question_in
from xmr.engine.serve.replies import REFUSALS, Hit, SearchAnswer
from xmr.engine.serve.service import Service, served
from xmr.engine.serve.shapes import QUESTION_BODY, SearchBody
from xmr.engine.serve.waiting import Answered

router = APIRouter(tags=["search"])
Served = Annotated[Service, Depends(served)]

WRITTEN_AT_ONCE = 100  # hits; more are written in a thread, while others are answered


@router.post("/v1/search", response_model=SearchAnswer, responses=REFUSALS, openapi_extra=QUESTION_BODY)
async def search(request: Request, service: Served) -> Response:
    """Rank the index against words, pictures, sounds, videos, items and vectors: one, or several added up."""
    start_s = time.perf_counter()
    body, files = await question_in(request)
    answered = await while_waited(request, answered_to(body, files, service))
    if len(answered.answers) <= WRITTEN_AT_ONCE:
        written = _written(answered, body, start_s)
    else:
        written = await asyncio.to_thread(_written, answered, body, start_s)
    return Response(written, media_type="application/json")


def _written(answered: Answered, body: SearchBody, start_s: float) -> str:
    hits = [hit_of(one, answered, body) for one in answered.answers]
    took_ms = round(1000 * (time.perf_counter() - start_s), 2)
    whole = SearchAnswer(hits=hits, took_ms=took_ms, offset=body.offset, k=body.k, version=answered.version)
    return whole.model_dump_json()


async def answered_to(body: SearchBody, files: Files, service: Service) -> Answered:
    """Refusal where the question cannot be answered."""
    asked = await question_of(body, files, service)
    try:
        return await service.batcher.search(asked)
    except XmrError as error:
        raise service.mistake(error) from None


def hit_of(one: Answer, answered: Answered, body: SearchBody) -> Hit:
    found = one.hit
    file = answered.files[found.id]
    place = links(found.id, file.medium)
    return Hit(
        rank=one.rank,
        score=found.score,
        modality=found.modality,
        medium=file.medium,
        path=shown_path(file),
        start_s=found.start_s,
        end_s=found.end_s,
        text=found.text,
        id=found.id,
        line=found.line,
        metadata=found.metadata,
        folded=list(one.folded) if body.fold is not None else None,
        media=place["media"],
        thumbnail=place["thumbnail"],
        waveform=place["waveform"],
    )


def links(item: int, medium: str) -> dict[str, str | None]:
    """Where a client gets the file of an item, and what shows it."""
    place = f"/v1/items/{item}"
    return {
        "media": f"{place}/media",
        "thumbnail": f"{place}/thumbnail" if medium in ("image", "video") else None,
        "waveform": f"{place}/waveform" if medium in ("audio", "video") else None,
    }

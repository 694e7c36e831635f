"""POST /v1/search: what in the index is nearest to a question."""

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from xmr.engine.answer import Answer
from xmr.engine.catalog import File, Found
from xmr.engine.errors import XmrError
from xmr.engine.index import Hit as Ranked
from xmr.engine.serve.asking import question_of, wanted_of
from xmr.engine.serve.patience import while_waited
from xmr.engine.serve.place import shown_path
from xmr.engine.serve.reading import Files, question_in
from xmr.engine.serve.replies import REFUSALS, SearchAnswer, refusals
from xmr.engine.serve.service import Served, Service
from xmr.engine.serve.shapes import SEARCH_BODY, SearchBody
from xmr.engine.serve.waiting import Answered

router = APIRouter(tags=["search"])
WRITTEN_AT_ONCE = 100  # hits; more are written in a thread, while others are answered


@router.post("/v1/search", response_model=SearchAnswer, responses=REFUSALS | refusals(404), openapi_extra=SEARCH_BODY)
async def search(request: Request, service: Served) -> Response:
    """Rank the index against words, pictures, sounds, videos, items and vectors: one, or several added up."""
    start_s = time.perf_counter()
    body, files = await question_in(request, SearchBody)
    answered = await while_waited(request, answered_to(body, files, service))
    if len(answered.answers) <= WRITTEN_AT_ONCE:
        written = _written(answered, body, start_s)
    else:
        written = await asyncio.to_thread(_written, answered, body, start_s)
    return Response(written, media_type="application/json")


def _written(answered: Answered, body: SearchBody, start_s: float) -> bytes:
    """A SearchAnswer in JSON, not checked against its shape: that would cost a quarter of the answers a second."""
    hits = [hit_of(one, answered, body) for one in answered.answers]
    took_ms = round(1000 * (time.perf_counter() - start_s), 2)
    told = {"took_ms": took_ms, "offset": body.offset, "k": body.k, "version": answered.version}
    return to_json({"hits": hits, **told}, inf_nan_mode="null")


async def answered_to(body: SearchBody, files: Files, service: Service) -> Answered:
    """Refusal where the question cannot be answered."""
    asked = await question_of(body, files, service, wanted_of(body))
    try:
        return await service.batcher.search(asked)
    except XmrError as error:
        raise service.mistake(error) from None


def hit_of(one: Answer, answered: Answered, body: SearchBody) -> dict[str, Any]:
    folded = list(one.folded) if body.fold is not None else None
    return written_item(one.hit, answered.files[one.hit.id], rank=one.rank, score=one.hit.score, folded=folded)


def written_item(
    item: Found | Ranked,
    file: File,
    *,
    rank: int | None = None,
    score: float | None = None,
    folded: list[int] | None = None,
) -> dict[str, Any]:
    """A Hit: an item as a client reads it, with where it gets the file and what shows it; and how it was ranked."""
    place, has_file = f"/v1/items/{item.id}", file.root is not None
    return {
        "rank": rank,
        "score": score,
        "modality": item.modality,
        "medium": file.medium,
        "path": shown_path(file),
        "start_s": item.start_s,
        "end_s": item.end_s,
        "text": item.text,
        "id": item.id,
        "line": item.line,
        "metadata": dict(item.metadata),
        "folded": folded,
        "media": f"{place}/media" if has_file else None,
        "thumbnail": f"{place}/thumbnail" if has_file and file.medium in ("image", "video") else None,
        "waveform": f"{place}/waveform" if has_file and file.medium in ("audio", "video") else None,
    }

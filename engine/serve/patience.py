"""Clients that wait for an answer: what is done for one that goes away, or would wait too long, is given up."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from xmr.engine.serve.refusals import gone, too_slow
from xmr.engine.serve.service import service_of

SOON_S = 0.05  # that an answer may take before it is worth looking whether somebody waits

T = TypeVar("T")


async def while_waited(request: Request, work: Coroutine[Any, Any, T], *, is_limited: bool = True) -> T:
    """What `work` gives. The body of the request has been read; not `is_limited`: the client says how long it waits."""
    answer_s = service_of(request).settings.answer_s if is_limited else math.inf
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working}, timeout=min(SOON_S, answer_s))
        if not working.done():
            await _first(working, request, answer_s)
        return working.result()
    finally:
        working.cancel()
        del working  # what fails holds its frames, and these would hold what failed


async def _first(working: "asyncio.Future[Any]", request: Request, answer_s: float) -> None:
    """Until it is done; Refusal where the client goes first, or the time is over."""
    left = asyncio.ensure_future(_left(request))
    try:
        limit_s = None if math.isinf(answer_s) else answer_s
        await asyncio.wait({working, left}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return
        if left.done():
            left.result()  # or what the rest of the body was refused for
            raise gone()
        raise too_slow(answer_s)
    finally:
        left.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

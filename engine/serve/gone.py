"""Clients that go away before they have their answer: what is done for them is given up."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from xmr.engine.serve.refusals import Refusal

GONE = 499  # as nginx counts it; nobody reads it
SOON_S = 0.05  # that an answer may take before it is worth looking whether somebody waits

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. The body of the request has been read."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working}, timeout=SOON_S)
        if not working.done():
            await _first(working, request)
        return working.result()
    finally:
        working.cancel()
        del working  # what fails holds its frames, and these would hold what failed


async def _first(working: "asyncio.Future[Any]", request: Request) -> None:
    """Until it is done; Refusal where the client goes first."""
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(GONE, "gone", "the client went away; ask again and wait for the answer")
    finally:
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

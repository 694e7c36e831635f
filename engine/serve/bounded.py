"""Threads beside the event loop, for work of one kind: who comes when too many wait already is told so."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from xmr.engine.serve.refusals import busy

T = TypeVar("T")


class Bounded:
    """`run` from the event loop; `close` waits for what is under way.

    Who gives up waiting gives up its place, and what was to be done is let go of; what a thread does already it does to
    its end. `n_waiting` counts those that wait for an answer.
    """

    def __init__(self, name: str, *, n_threads: int = 1, max_waiting: int, said: str) -> None:
        """`said`: what who is refused is told."""
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix=f"xmr {name}")
        self._max_waiting, self._said, self.n_waiting = max_waiting, said, 0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives; Refusal where too many wait."""
        if self.n_waiting >= self._max_waiting:
            raise busy(self._said)
        self.n_waiting += 1
        asked = [work]
        try:
            # what is cancelled stands in the queue until a thread comes to it: by then it holds nothing any more
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: asked.pop()())
        finally:
            asked.clear()
            self.n_waiting -= 1

    async def close(self, last: Callable[[], None] = lambda: None) -> None:
        """`last` is done in a thread behind all that waits."""
        self._threads.submit(last)
        await asyncio.to_thread(self._threads.shutdown)

"""Threads beside the event loop, for work of one kind: who comes when too many wait already is told so."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from xmr.engine.serve.refusals import busy

T = TypeVar("T")


class Bounded:
    """`run` from the event loop; `close` waits for what is under way.

    Who gives up waiting gives up its place; what a thread does already it does to its end. `n_waiting`: those
    whose work waits, or is done.
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
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.n_waiting -= 1

    async def close(self, last: Callable[[], None] = lambda: None) -> None:
        """`last` is done in a thread behind all that waits."""
        self._threads.submit(last)
        await asyncio.to_thread(self._threads.shutdown)

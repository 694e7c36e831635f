"""What the catalog knows, asked in a thread of its own: so no picture waits until a question is answered."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from xmr.engine.errors import XmrError
from xmr.engine.index import Index
from xmr.engine.serve.current import Current
from xmr.engine.serve.refusals import busy, no_index

MAX_WAITING = 512

T = TypeVar("T")


class Lookups:
    """One thread that owns an open index. Every answer is of the newest version."""

    def __init__(self, folder: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="xmr looks up")
        self._current = Current(folder)
        self._n_waiting = 0

    async def ask(self, look: Callable[[Index], T]) -> T:
        """What `look` gives; Refusal where too many wait."""
        if self._n_waiting >= MAX_WAITING:
            raise busy("too many requests are waiting; ask again in a second")
        self._n_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, look)
        finally:
            self._n_waiting -= 1

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._current.close)
        self._thread.shutdown(wait=False)

    def _look(self, look: Callable[[Index], T]) -> T:
        try:
            index = self._current.index()
        except XmrError:
            raise no_index() from None
        with index.snapshot([]):
            return look(index)

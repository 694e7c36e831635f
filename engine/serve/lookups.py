"""What the catalog knows, asked in a thread of its own: so no picture waits until a question is answered."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from xmr.engine.index import Index
from xmr.engine.model import Model
from xmr.engine.serve.bounded import Bounded
from xmr.engine.serve.current import Current

MAX_WAITING = 512

T = TypeVar("T")


class Lookups:
    """One thread that owns an open index. Every answer is of the newest version."""

    def __init__(self, folder: Path, model: Callable[[], Model]) -> None:
        said = "too many requests are waiting; ask again in a second"
        self._thread = Bounded("looks up", max_waiting=MAX_WAITING, said=said)
        self._current, self._model = Current(folder), model

    async def ask(self, look: Callable[[Index], T]) -> T:
        """What `look` gives; Refusal where too many wait, UnreadableError where the index cannot be asked."""
        return await self._thread.run(partial(self._look, look))

    async def check(self) -> None:
        """UnreadableError where the index, or a segment of it, cannot be asked."""
        await self._thread.run(self._check)

    async def close(self) -> None:
        await self._thread.close(last=self._current.close)

    def _look(self, look: Callable[[Index], T]) -> T:
        index = self._current.fitting(self._model())
        with index.snapshot([]):
            return look(index)

    def _check(self) -> None:
        with self._current.fitting(self._model()).snapshot():
            pass

"""The one thread that owns the index and the model: questions that wait are answered together.

While a turn is answered the next one gathers; `waiting` says what a turn holds, `answering` what it is answered with.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from xmr.engine.model import Embeddings, Model
from xmr.engine.serve.answering import answers, embed_slice
from xmr.engine.serve.current import Current
from xmr.engine.serve.waiting import Answered, Asked, Page, Piece, Question, Turn, Waiting, Windows

Settled = list[tuple["asyncio.Future[Any]", Any]]  # with a result, or the exception


class Batcher:
    """`start`, then `search` and `embed` from the event loop, then `stop`, which answers what waits."""

    def __init__(
        self,
        index_folder: Path,
        open_model: Callable[[], Model],
        *,
        max_waiting: int,
        told: Callable[[int], None] = lambda n_batch: None,
    ) -> None:
        self._current, self._open_model = Current(index_folder), open_model
        self._told = told
        self._waiting = Waiting(max_waiting)
        self._thread = threading.Thread(target=self._work, name="xmr answers", daemon=True)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_over(self) -> bool:
        """Whether its thread has ended, which it does only when it is told to."""
        return not self._thread.is_alive()

    async def start(self) -> Model:
        """Opens index and model; XmrError where they do not fit each other."""
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Model] = self._loop.create_future()
        self._thread.start()
        return await self._opened

    async def search(self, asked: Asked) -> Answered:
        """Refusal where too many wait."""
        for content, file in asked.decoded.items():
            asked.vectors[content] = (await self.embed(file.modality, [file.windows]))[0]
        asked.decoded.clear()  # its arrays are large
        answered: Answered = await self._outcome(Question(asked, self._loop.create_future()))
        return answered

    async def embed(self, modality: str, inputs: "list[str] | list[Windows]") -> Embeddings:
        """(n, dim) unit rows of sentences, or of decoded files; Refusal where too many wait."""
        listed: list[list[Any]] = [[one] if isinstance(one, str) else one for one in inputs]
        pieces: list[Piece] = [piece for one in listed for piece in one]
        counts = [len(one) for one in listed]
        rows: Embeddings = await self._outcome(Page(modality, pieces, counts, self._loop.create_future()))
        return rows

    async def stop(self) -> None:
        self._waiting.end()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    async def _outcome(self, waiting: Question | Page) -> Any:
        self._waiting.put(waiting)
        try:
            return await waiting.future
        finally:
            del waiting  # what fails holds its frames; if these held the future, it would last until the cycle is found

    def _work(self) -> None:
        try:
            model = self._open_model()
            self._current.fitting(model)
        except BaseException as error:
            self._settle([(self._opened, error)])
            return
        self._settle([(self._opened, model)])
        while (turn := self._waiting.turn()) is not None:
            self._take(turn, model)
        self._current.close()

    def _take(self, turn: Turn, model: Model) -> None:
        for questions in (turn.quick, turn.costly):
            if questions:
                self._told(len(questions))
                self._settle(self._answered(questions, model))
        if turn.pages:
            settled = _embedded(turn.pages, model)
            self._settle(settled)
            over = {future for future, _ in settled}
            self._waiting.put_back(page for page in turn.pages if page.future not in over)

    def _answered(self, questions: Sequence[Question], model: Model) -> Settled:
        futures = [question.future for question in questions]
        try:
            index = self._current.fitting(model)
            outcomes = answers([question.asked for question in questions], index, model)
        except Exception as error:  # it is nobody's alone, and the next turn may do better
            return [(future, error) for future in futures]
        return list(zip(futures, outcomes, strict=True))

    def _settle(self, settled: Settled) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            self._loop.call_soon_threadsafe(_tell, settled)


def _tell(settled: Settled) -> None:
    """Those who wait; a client may have gone meanwhile."""
    for future, outcome in settled:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _embedded(pages: Sequence[Page], model: Model) -> Settled:
    """A slice of them; the outcome of those that are done, or fail."""
    try:
        embed_slice(pages, model)
        return [(page.future, model.means(np.stack(page.rows), page.counts)) for page in pages if not page.n_left]
    except Exception as error:
        if len(pages) == 1:
            return [(pages[0].future, error)]
    return [outcome for page in pages for outcome in _embedded([page], model)]

"""What waits for the one thread that owns the index and the model, and what it does in its next turn.

Three lanes, of which every turn takes: the quick questions, all together; one costly question, with those that search
the same; and a slice of the files and sentences that are only to be embedded. So nobody's thousand pictures hold up
another one's sentence for longer than a slice takes, and none of the lanes starves.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from xmr.engine import media
from xmr.engine.answer import Answer, Wanted
from xmr.engine.catalog import File
from xmr.engine.model import Embeddings
from xmr.engine.question import Part
from xmr.engine.serve.refusals import busy, ending

WINDOW_S = 0.003  # that a turn waits for as many questions as the last one had
MAX_BATCH = 64  # quick questions of a turn
MAX_HITS = 2000  # that they ask for, all of them together
MAX_PARTS = 64  # that they are made of, all of them together
QUICK_HITS, QUICK_PARTS = 200, 8  # of one question, up to which it is quick
MAX_PAGES = 8  # that share a slice
MAX_BYTES = 256_000_000  # of decoded files that wait

Windows = list[NDArray[np.generic]]  # what a file was decoded to
Piece = str | NDArray[np.generic]  # a sentence, or a window


@dataclass(frozen=True)
class Decoded:
    """A file that is asked with, as the encoder of a modality takes it."""

    modality: str
    pieces: list[media.Piece]

    @property
    def windows(self) -> Windows:
        return [piece.array for piece in self.pieces]


@dataclass
class Asked:
    """A question whose files are decoded. A part's `content` is a sentence, or a key of one of these."""

    parts: list[Part]
    wanted: Wanted
    decoded: dict[str, Decoded] = field(default_factory=dict)  # files, by content
    vectors: dict[str, Embeddings] = field(default_factory=dict)  # (dim,) unit, by content
    items: dict[str, int] = field(default_factory=dict)  # ids, by content

    @property
    def is_quick(self) -> bool:
        """Whether it is over before another one minds."""
        wanted = self.wanted
        is_plain = wanted.where is None and wanted.group is None and wanted.fold is None
        return is_plain and self.n_hits <= QUICK_HITS and len(self.parts) <= QUICK_PARTS

    @property
    def n_hits(self) -> int:
        return self.wanted.offset + self.wanted.k


@dataclass(frozen=True)
class Answered:
    """Hits of one version of the index, and their files."""

    answers: list[Answer]
    files: dict[int, File]  # by item
    version: str


@dataclass(eq=False)
class Question:
    """One that waits, and who waits for it."""

    asked: Asked
    future: "asyncio.Future[Answered]"


@dataclass(eq=False)
class Page:
    """Inputs of one client that are to be embedded, piece by piece."""

    modality: str
    pieces: Sequence[Piece]
    counts: list[int]  # pieces of each input
    future: "asyncio.Future[Embeddings]"
    rows: list[Embeddings] = field(default_factory=list)  # (dim,) unit, of the pieces that are done

    @property
    def n_left(self) -> int:
        return len(self.pieces) - len(self.rows)

    @property
    def n_bytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces if not isinstance(piece, str))


@dataclass(frozen=True)
class Turn:
    """What is done next: questions that are answered together, others, and pages of one modality."""

    quick: list[Question]
    costly: list[Question]
    pages: list[Page]


Waiter = TypeVar("Waiter", Question, Page)


class Waiting:
    """Filled from the event loop, emptied by the thread, turn by turn."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._quick: deque[Question] = deque()
        self._costly: deque[Question] = deque()
        self._pages: deque[Page] = deque()
        self._filled = threading.Condition()
        self._n_wanted = 1  # that the thread sleeps until
        self._n_last = 1  # quick questions of the last turn: so many may come again
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._quick) + len(self._costly) + len(self._pages)

    def put(self, one: Question | Page) -> None:
        """Refusal where too many wait."""
        with self._filled:
            self._check_room(one)
            if isinstance(one, Page):
                self._pages.append(one)
            else:
                (self._quick if one.asked.is_quick else self._costly).append(one)
            if len(self) >= self._n_wanted:
                self._filled.notify()

    def put_back(self, pages: Iterable[Page]) -> None:
        """Those that are not embedded whole, behind all others."""
        with self._filled:
            self._pages.extend(pages)

    def end(self) -> None:
        """Nothing more is taken; what waits has its turn."""
        with self._filled:
            self._is_ending = True
            self._filled.notify()

    def turn(self) -> Turn | None:
        """Waits for something to do; None when there will be nothing more."""
        with self._filled:
            while not len(self):
                if self._is_ending:
                    return None
                self._sleep(1)
            if not (self._costly or self._pages):
                self._let_gather()
            return Turn(self._some_quick(), self._some_costly(), self._some_pages())

    def _check_room(self, one: Question | Page) -> None:
        if self._is_ending:
            raise ending()
        if len(self) >= self._max_waiting:
            self._forget_the_gone()
        if len(self) >= self._max_waiting:
            raise busy()
        if isinstance(one, Page) and self._pages and one.n_bytes + self._n_bytes() > MAX_BYTES:
            raise busy("too many files wait to be embedded; ask again in a second")

    def _n_bytes(self) -> int:
        return sum(page.n_bytes for page in self._pages)

    def _forget_the_gone(self) -> None:
        """Whose clients wait no longer."""
        for lane in (self._quick, self._costly):
            _keep(lane, lambda question: not question.future.done())
        _keep(self._pages, lambda page: not page.future.done())

    def _sleep(self, n_wanted: int, timeout_s: float | None = None) -> None:
        self._n_wanted = n_wanted
        self._filled.wait(timeout_s)
        self._n_wanted = 1

    def _let_gather(self) -> None:
        """For a few milliseconds, while clients that were answered just now ask again."""
        until_s = time.monotonic() + WINDOW_S
        while len(self) < self._n_last and not self._is_ending and (left_s := until_s - time.monotonic()) > 0:
            self._sleep(self._n_last, left_s)

    def _some_quick(self) -> list[Question]:
        """The oldest, as many as are over soon."""
        taken: list[Question] = []
        n_hits = n_parts = 0
        while self._quick and len(taken) < MAX_BATCH:
            asked = self._quick[0].asked
            n_hits, n_parts = n_hits + asked.n_hits, n_parts + len(asked.parts)
            if taken and (n_hits > MAX_HITS or n_parts > MAX_PARTS):
                break
            question = self._quick.popleft()
            if not question.future.done():
                taken.append(question)
        self._n_last = max(1, len(taken))
        return taken

    def _some_costly(self) -> list[Question]:
        """The oldest, and those that want the same of the same items."""
        _keep(self._costly, lambda question: not question.future.done())
        if not self._costly:
            return []
        wanted = self._costly[0].asked.wanted
        alike = [question for question in self._costly if question.asked.wanted == wanted]
        taken = alike[: max(1, MAX_HITS // self._costly[0].asked.n_hits)]
        _keep(self._costly, lambda question: question not in taken)
        return taken

    def _some_pages(self) -> list[Page]:
        """The oldest, and those of the same modality."""
        _keep(self._pages, lambda page: not page.future.done())
        taken = [page for page in self._pages if page.modality == self._pages[0].modality][:MAX_PAGES]
        _keep(self._pages, lambda page: page not in taken)
        return taken


def _keep(lane: "deque[Waiter]", is_kept: "Callable[[Waiter], bool]") -> None:
    kept = [one for one in lane if is_kept(one)]
    lane.clear()
    lane.extend(kept)

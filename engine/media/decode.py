"""Reads files ahead on worker processes, so that a slow, huge or crashing file costs itself only.

Each worker has a pipe of its own. A result that nobody has asked for yet stays in it, and its worker waits: so no more
is held than was asked for, and how many workers run is a number that can be changed at any time. What is in a long file
comes in parts, so that it need not be held as a whole.
"""

import os
import resource
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, Content, Loaded, Piece, Reading, Stream
from xmr.engine.processors import cpus

if TYPE_CHECKING:  # a query decodes one file here and now, and starts without it
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

TIMEOUT_S = 30.0  # for one file, or one part of a long one
START_S = 120.0  # for a worker to begin
MEMORY_BYTES = 4_000_000_000  # address space of one worker
AHEAD = 32  # files per worker that may be decoded before their turn
HELD_BYTES = 256_000_000  # of results before their turn; then only the worker that has the next file is listened to
PART_BYTES = 2_000_000  # of pieces, from which a file comes in parts,
PART_S = 5.0  # or after which what there is of a file that takes long is one
PIECE_BYTES = 500  # that a piece takes beside its array
IN_PIPE = 4  # tasks a worker is given at once, so that it need not wait for the next one


@dataclass(frozen=True)
class Task:
    """Read this file as this modality."""

    source: Content | Path
    modality: str

    @property
    def content(self) -> Content:
        return Content.of(self.source)

    @property
    def path(self) -> Path:
        """Its name in messages."""
        return self.content.path


@dataclass(frozen=True)
class Decoded:
    """What came of a task: the pieces, some of many, or the reason why there are none or no more."""

    task: Task
    loaded: Loaded | None
    error: str | None = None
    cpu_s: float = 0.0  # that its worker needed
    is_last: bool = True  # of the parts of this task


def decode_ahead(
    tasks: Iterable[Task], preprocessing: Mapping[str, Any], *, workers: int = 0, reading: Reading | None = None
) -> Iterator[Decoded]:
    """Every task's result, in their order. `preprocessing` by modality; workers 0: one less than the CPUs."""
    decoding = Decoding(tasks, preprocessing, workers=workers or max(1, cpus() - 1), reading=reading)
    parts: list[Decoded] = []
    try:
        for part in decoding:
            parts.append(part)
            if part.is_last:
                yield _joined(parts)
                parts = []
    finally:
        decoding.close()


def decode(task: Task, preprocessing: Any, reading: Reading | None = None) -> Loaded:
    """Read one whole file here and now; raises XmrError."""
    pieces = list(draw(opened := start(task, preprocessing, reading), task))
    return Loaded(pieces, opened.notes)


def start(task: Task, preprocessing: Any, reading: Reading | None = None) -> Loaded | Stream:
    """Open a file here and now; of a long one the pieces are still to be drawn. Raises XmrError."""
    with told_as_mistakes(task):
        return MODALITIES[task.modality].stream(task.content, preprocessing, reading)


def draw(opened: Loaded | Stream, task: Task) -> Iterator[Piece]:
    """The pieces of a file that was opened; raises XmrError."""
    pieces = iter(opened.pieces)
    while True:
        with told_as_mistakes(task):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


@contextmanager
def told_as_mistakes(task: Task) -> Iterator[None]:
    """Whatever a decoder raises becomes XmrError."""
    try:
        yield
    except MemoryError:
        raise XmrError(_needs_memory(task)) from None
    except OSError as error:
        raise XmrError(f"{task.path}: cannot be read ({error.strerror or error}); check the path") from None
    except XmrError:
        raise
    except Exception as error:  # decoders meet damaged files with any exception at all
        raise XmrError(f"{task.path}: damaged ({type(error).__name__}: {error}); replace the file") from None


def _joined(parts: list[Decoded]) -> Decoded:
    """All parts of one task as one."""
    *_, last = parts
    if last.loaded is None:
        return last
    pieces = [piece for part in parts if part.loaded is not None for piece in part.loaded.pieces]
    return replace(last, loaded=Loaded(pieces, last.loaded.notes))


class Decoding:
    """An iterator over the results of tasks, in their order, of each its parts; `close` ends its processes.

    `workers` may be changed while it runs. `stop` may be called by another thread, and ends the iteration.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        preprocessing: Mapping[str, Any],
        *,
        workers: int,
        reading: Reading | None = None,
    ) -> None:
        self.workers = workers
        self._reading = reading
        self._preprocessing = dict(preprocessing)
        self._waiting = iter(tasks)
        self._n_drawn = 0  # tasks
        self._put_back: deque[tuple[int, Task]] = deque()  # given to a worker that ended, oldest first
        self._ready: dict[int, deque[Decoded]] = {}  # parts, by the task's number
        self._held_bytes = 0
        self._next = 0  # number of the result whose turn it is
        self._workers: list[_Worker] = []
        self._stopped, self._stop = os.pipe()

    def __iter__(self) -> Iterator[Decoded]:
        return self

    def __next__(self) -> Decoded:
        self._feed()
        while not self._ready.get(self._next):
            if self._next == self._n_drawn or not self._listen():
                raise StopIteration
            self._feed()
        decoded = self._ready[self._next].popleft()
        self._held_bytes -= _n_bytes(decoded.loaded)
        if decoded.is_last:
            del self._ready[self._next]
            self._next += 1
        return decoded

    def stop(self) -> None:
        """End the iteration soon, whatever it waits for."""
        os.write(self._stop, b"s")

    def close(self) -> None:
        """End the processes; the iterator must not be used afterwards."""
        for worker in self._workers:
            worker.end()
        if self._workers or self._stop >= 0:
            os.close(self._stopped)
            os.close(self._stop)
        self._workers, self._stopped, self._stop = [], -1, -1

    def _feed(self) -> None:
        """Give the workers that may run what they can take, the oldest task to the one that has the least."""
        # what was put back is nearest its turn, and goes out however much is ahead of it
        while self._put_back or self._n_ahead() < self.workers * AHEAD:
            worker = min(self._running(), key=lambda worker: len(worker.given), default=None)
            if worker is None or len(worker.given) >= IN_PIPE:
                if len(self._running()) >= self.workers:
                    return
                worker = None
            entry = self._put_back.popleft() if self._put_back else self._draw()
            if entry is None:
                return
            (worker or self._start_worker()).give(*entry)

    def _draw(self) -> tuple[int, Task] | None:
        """The next task that no worker has had, and its number."""
        task = next(self._waiting, None)
        if task is None:
            return None
        self._n_drawn += 1
        return self._n_drawn - 1, task

    def _n_ahead(self) -> int:
        return len(self._ready) + sum(len(worker.given) for worker in self._workers)

    def _running(self) -> "list[_Worker]":
        return self._workers[: self.workers]

    def _start_worker(self) -> "_Worker":
        with _holding_ctrl_c():
            worker = _Worker(self._preprocessing, self._reading)
        self._workers.append(worker)
        return worker

    def _listen(self) -> bool:
        """Take what has come, or end a worker that takes too long; False where `stop` was called."""
        from multiprocessing.connection import wait

        busy = [worker for worker in self._workers if worker.given]
        # after a crash the next file may still wait for a free worker: then all are heard
        heard = [worker for worker in busy if self._may_speak(worker)] or busy
        deadline_s = min(worker.deadline_s for worker in heard)
        wanted = [worker.pipe for worker in heard]
        spoken = wait([*wanted, self._stopped], timeout=max(0.0, deadline_s - time.monotonic()))
        if self._stopped in spoken:
            return False
        for worker in heard:
            if worker.pipe in spoken:
                self._take(worker)
            elif worker.deadline_s <= time.monotonic() and not worker.pipe.poll():
                self._give_up(worker)
        return True

    def _give_up(self, worker: "_Worker") -> None:
        if not worker.is_ready:
            raise XmrError(
                f"a process that decodes did not begin within {START_S:.0f} s, the machine has too much to do; wait, "
                "or run again with fewer --workers"
            )
        task = worker.given[0][1]
        self._lose(worker, _took_too_long(task))

    def _may_speak(self, worker: "_Worker") -> bool:
        return self._held_bytes < HELD_BYTES or any(number == self._next for number, _ in worker.given)

    def _take(self, worker: "_Worker") -> None:
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            code, task = worker.exit_code(), worker.given[0][1]
            if not worker.is_ready:
                raise XmrError(
                    f"a process that decodes ended before it began (exit code {code}); a script that embeds needs "
                    "the usual `if __name__ == '__main__':`"
                ) from None
            crashed = f"{task.path}: its decoder crashed (exit code {code}); replace the file"
            self._lose(worker, _took_too_long(task) if code == -signal.SIGALRM else crashed)
            return
        if said is None:
            worker.begin()
            return
        worker.set_clock()
        number, task = worker.given[0]
        decoded = Decoded(task, *said)
        if decoded.is_last:
            worker.given.popleft()
        self._hold(number, decoded)

    def _lose(self, worker: "_Worker", error: str) -> None:
        """End a worker together with the file that it was reading; the others wait for another worker."""
        number, task = worker.given.popleft()
        self._put_back.extend(worker.given)
        self._put_back = deque(sorted(self._put_back, key=lambda entry: entry[0]))
        self._workers.remove(worker)
        worker.end()
        self._hold(number, Decoded(task, None, error))

    def _hold(self, number: int, decoded: Decoded) -> None:
        self._ready.setdefault(number, deque()).append(decoded)
        self._held_bytes += _n_bytes(decoded.loaded)


@dataclass
class _Worker:
    """A process that decodes, seen from the one that started it."""

    preprocessing: dict[str, Any]
    reading: Reading | None = None
    given: deque[tuple[int, Task]] = field(default_factory=deque)  # not answered yet
    is_ready: bool = False
    deadline_s: float = 0.0  # of the oldest of the given tasks

    def __post_init__(self) -> None:
        import multiprocessing

        # spawn: a forked worker would inherit the locks of the parent's runtime threads
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        self.pipe: Connection[Any, Any] = pipe
        self._process: SpawnProcess = context.Process(
            target=_work, args=(theirs, self.preprocessing, self.reading, TIMEOUT_S), name="xmr decodes", daemon=True
        )
        self._process.start()
        theirs.close()  # so that the pipe ends with the process
        self.deadline_s = time.monotonic() + START_S

    def begin(self) -> None:
        self.is_ready = True
        self.set_clock()

    def give(self, number: int, task: Task) -> None:
        if self.is_ready and not self.given:
            self.set_clock()
        self.given.append((number, task))
        try:
            self.pipe.send(task)
        except OSError:
            return  # it has crashed, as reading from it will show

    def set_clock(self) -> None:
        self.deadline_s = time.monotonic() + TIMEOUT_S

    def exit_code(self) -> int | None:
        self._process.join(timeout=5)
        return self._process.exitcode

    def end(self) -> None:
        self.pipe.close()
        self._process.kill()  # a decoder that is stuck hears nothing milder
        self._process.join()


def _work(
    pipe: "Connection[Any, Any]", preprocessing: dict[str, Any], reading: Reading | None, timeout_s: float
) -> None:
    """What a worker does, until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even if its starter ignored the signal
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        pipe.send(None)
        while True:
            task = pipe.recv()
            _answer(pipe, task, preprocessing[task.modality], reading, timeout_s)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _answer(
    pipe: "Connection[Any, Any]", task: Task, preprocessing: Any, reading: Reading | None, timeout_s: float
) -> None:
    """Send what becomes of Decoded, without the task: once, or as often as the file has parts."""
    start_s = time.process_time()
    parts = _parts(task, preprocessing, reading)
    try:
        while True:
            with _ended_after(2 * timeout_s):
                part, is_last = next(parts)
            now_s = time.process_time()
            pipe.send((part, None, now_s - start_s, is_last))
            if is_last:
                return
            start_s = now_s
    except XmrError as error:
        pipe.send((None, str(error), time.process_time() - start_s))
    except MemoryError:  # the copy that goes through the pipe; nothing of it is sent yet
        pipe.send((None, _needs_memory(task), time.process_time() - start_s))


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """The system ends this process where what is done inside lasts longer, be it stuck in native code.

    Who started it gives it up earlier, unless nobody waits for a file just then, or that process was killed.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _parts(task: Task, preprocessing: Any, reading: Reading | None) -> Iterator[tuple[Loaded, bool]]:
    """Its pieces, so many at a time, and whether these are the last; the notes go with those."""
    opened = start(task, preprocessing, reading)
    pieces: list[Piece] = []
    n_bytes, since_s = 0, time.monotonic()
    for piece in draw(opened, task):
        if n_bytes >= PART_BYTES or (pieces and time.monotonic() - since_s > PART_S):
            yield Loaded(pieces), False
            pieces, n_bytes, since_s = [], 0, time.monotonic()
        pieces.append(piece)
        n_bytes += piece.array.nbytes + PIECE_BYTES
    yield Loaded(pieces, opened.notes), True


def _took_too_long(task: Task) -> str:
    return f"{task.path}: not decoded within {TIMEOUT_S:.0f} s; convert or remove it"


def _needs_memory(task: Task) -> str:
    return f"{task.path}: needs more memory than a worker may take; make it smaller"


def _n_bytes(loaded: Loaded | None) -> int:
    return sum(piece.array.nbytes + PIECE_BYTES for piece in loaded.pieces) if loaded is not None else 0


@contextmanager
def _holding_ctrl_c() -> Iterator[None]:
    """Ctrl-C waits, here and in the workers started inside, which would each print a traceback of their own."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it lets Ctrl-C through again when it starts, and a worker starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Reads files ahead on worker processes, so that a slow, huge or crashing file costs itself only."""

import multiprocessing
import os
import resource
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as DecodeTimeout
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, Loaded

TIMEOUT_S = 30.0  # for one file
MEMORY_BYTES = 4_000_000_000  # address space of one worker
AHEAD = 32  # files in flight per worker


@dataclass(frozen=True)
class Task:
    """Read this file as this modality."""

    path: Path
    modality: str


@dataclass(frozen=True)
class Decoded:
    """What came of a task: the pieces, or the reason why there are none."""

    task: Task
    loaded: Loaded | None
    error: str | None = None


def decode_ahead(tasks: Sequence[Task], preprocessing: Mapping[str, Any], *, workers: int = 0) -> Iterator[Decoded]:
    """Every task's result, in their order. `preprocessing` by modality; workers 0: one less than the CPUs."""
    if not tasks:
        return
    workers = workers or max(1, (os.cpu_count() or 2) - 1)
    # spawn: a forked worker would inherit the locks of the parent's runtime threads
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(workers, initializer=_start_worker, initargs=(dict(preprocessing),), context=context)
    waiting = iter(tasks)
    flying: deque[tuple[Task, Any]] = deque()
    try:
        while True:
            with _holding_ctrl_c():
                while len(flying) < workers * AHEAD and (task := next(waiting, None)) is not None:
                    flying.append((task, pool.schedule(_decode, args=(task,), timeout=TIMEOUT_S)))
            if not flying:
                break
            task, future = flying.popleft()
            yield _result(task, future)
        pool.close()  # type: ignore[no-untyped-call]
    except BaseException:
        pool.stop()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.join()


def decode(task: Task, preprocessing: Any) -> Loaded:
    """Read one file here and now; raises XmrError."""
    try:
        return MODALITIES[task.modality].load(task.path, preprocessing)
    except MemoryError:
        raise XmrError(f"{task.path}: needs more memory than a worker may take; make it smaller") from None
    except OSError as error:
        raise XmrError(f"{task.path}: cannot be read ({error.strerror or error}); check the path") from None
    except XmrError:
        raise
    except Exception as error:  # decoders meet damaged files with any exception at all
        raise XmrError(f"{task.path}: damaged ({type(error).__name__}: {error}); replace the file") from None


def _result(task: Task, future: Any) -> Decoded:
    try:
        return Decoded(task, future.result())
    except XmrError as error:
        return Decoded(task, None, str(error))
    except DecodeTimeout:
        return Decoded(task, None, f"{task.path}: not decoded within {TIMEOUT_S:.0f} s; convert or remove it")
    except ProcessExpired as error:
        return Decoded(task, None, f"{task.path}: its decoder crashed (exit code {error.exitcode}); replace the file")


@contextmanager
def _holding_ctrl_c() -> Iterator[None]:
    """Ctrl-C waits, here and in the workers started inside, which would each print a traceback of their own."""
    resource_tracker.ensure_running()  # it lets Ctrl-C through again when it starts, and a worker starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_preprocessing: dict[str, Any] = {}  # of this worker process


def _start_worker(preprocessing: dict[str, Any]) -> None:
    _preprocessing.update(preprocessing)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _decode(task: Task) -> Loaded:
    return decode(task, _preprocessing[task.modality])

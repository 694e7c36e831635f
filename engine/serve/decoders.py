"""Processes that decode what comes from outside: one that crashes, hangs or grows costs one request.

What runs in them are the functions of `decoding`; they are started when a file first comes.
"""

import asyncio
import multiprocessing
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, TypeVar

import pebble

from xmr.engine.errors import XmrError
from xmr.engine.serve.decoding import begin
from xmr.engine.serve.refusals import Refusal, busy
from xmr.engine.serve.uploads import Upload

TIMEOUT_S = 20.0  # for one file
MAX_WAITING = 64
N_PROCESSES = 2
MAX_TASKS = 2000  # of a process; what decoders of others leave behind goes with it

T = TypeVar("T")


class Decoders:
    """`close` ends the processes and removes what was uploaded."""

    def __init__(self) -> None:
        self._pool: pebble.ProcessPool | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="xmr-")
        self._n_waiting = self._n_files = 0

    async def run(self, work: "Callable[..., T]", *arguments: Any) -> T:
        """What `work`, a function of a module, gives; XmrError as it raises it."""
        if self._n_waiting >= MAX_WAITING:
            raise busy("too many files wait to be decoded; ask again in a second")
        self._n_waiting += 1
        try:
            # the future has no name here: what fails would hold it, and it what fails
            return await asyncio.wrap_future(self._opened().schedule(work, args=arguments, timeout=TIMEOUT_S))
        except FutureTimeoutError:
            raise Refusal(
                422, "too_slow", f"the file was not decoded within {TIMEOUT_S:g} s; make it shorter"
            ) from None
        except (pebble.ProcessExpired, MemoryError):
            raise Refusal(422, "bad_file", "the file's decoder crashed; convert the file and ask again") from None
        finally:
            self._n_waiting -= 1

    async def run_on(self, upload: Upload, told: str, work: "Callable[..., T]", *arguments: Any) -> T:
        """`work` of a path at which the uploaded file lies while it runs, and of the arguments.

        Refusal where it raises XmrError, which speaks of the file by what it is `told` as.
        """
        self._n_files += 1
        self.folder.mkdir(mode=0o700, exist_ok=True)  # what cleans up temporary folders may have taken it
        path = Path(self._folder.name) / f"upload-{self._n_files}{upload.suffix}"
        is_given_up = threading.Event()
        try:
            await asyncio.to_thread(_write, path, upload.content, is_given_up)
            return await self.run(work, path, *arguments)
        except XmrError as error:
            said = str(error).removeprefix(f"{path}: ").replace(str(path), told)
            raise Refusal(422, "bad_file", f"{told}: {said}") from None
        finally:
            is_given_up.set()
            path.unlink(missing_ok=True)

    @property
    def folder(self) -> Path:
        """Where uploads lie."""
        return Path(self._folder.name)

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]
            await asyncio.to_thread(self._pool.join)
        self._folder.cleanup()

    def _opened(self) -> pebble.ProcessPool:
        if self._pool is None:
            # spawn: a forked process would inherit the locks of the runtimes' threads
            context = multiprocessing.get_context("spawn")
            self._pool = pebble.ProcessPool(N_PROCESSES, max_tasks=MAX_TASKS, initializer=begin, context=context)
        return self._pool


def _write(path: Path, content: bytes, is_given_up: threading.Event) -> None:
    try:
        path.write_bytes(content)
    finally:
        if is_given_up.is_set():  # nobody else is left to remove it
            path.unlink(missing_ok=True)

"""Items added and deleted by clients: one change at a time, in a thread of its own, beside those who search.

An uploaded file is kept beside the index, under the checksum of its content: the same file twice is one. A crash
leaves at most such a file, which the next upload of it takes over.
"""

import asyncio
import errno
import hashlib
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from xmr.engine.corpus import scan
from xmr.engine.files import make_folder, write_whole
from xmr.engine.index import Index
from xmr.engine.index.lock import Locked
from xmr.engine.media import media_of
from xmr.engine.model import Model
from xmr.engine.serve.refusals import Refusal, busy, no_item
from xmr.engine.serve.uploads import Upload

UPLOADS = "uploads"  # beside the index
MAX_WAITING = 16
LOCK_S = 10.0  # to wait for another process that writes to the index
LOCK_AGAIN_S = 0.1
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class Changes:
    """The one that writes."""

    def __init__(self, index_folder: Path, model: Callable[[], Model]) -> None:
        self._index_folder, self._model = index_folder, model
        self.folder = index_folder.parent / f"{index_folder.name}-{UPLOADS}"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="xmr writes")
        self._n_waiting = 0

    async def add(self, upload: Upload) -> list[int]:
        """Ids of the items of a file; XmrError where nothing in it can be embedded."""
        return await self._change(lambda index: self._add(index, upload))

    async def delete(self, item: int) -> None:
        await self._change(lambda index: self._delete(index, item))

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)

    async def _change(self, change: Callable[[Index], T]) -> T:
        if self._n_waiting >= MAX_WAITING:
            raise busy("too many changes are waiting; ask again in a second")
        self._n_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._changed, change)
        finally:
            self._n_waiting -= 1

    def _changed(self, change: Callable[[Index], T]) -> T:
        """Refusal where another process writes for longer than a client waits, or the disk is full."""
        until_s = time.monotonic() + LOCK_S
        while True:
            try:
                return self._once(change)
            except Locked:
                if time.monotonic() > until_s:
                    raise busy("another process is writing to the index; ask again when it is done") from None
                time.sleep(LOCK_AGAIN_S)
            except (OSError, sqlite3.Error) as error:
                if not _is_full(error):
                    raise
                raise Refusal(507, "disk_full", "the server's disk is full; make room on it and ask again") from None

    def _once(self, change: Callable[[Index], T]) -> T:
        index = Index.open(self._index_folder)
        try:
            return change(index)
        finally:
            index.close()

    def _add(self, index: Index, upload: Upload) -> list[int]:
        path = self._kept(upload)
        model = self._model()
        try:
            summary = index.add(scan([path], media_of(model.modalities)), model, workers=1)
            if not (ids := index.items_of(str(path))):
                said = next(iter(summary.errors.values()), "nothing in it that the model can embed")
                raise Refusal(422, "bad_file", f"the file cannot be added: {said.replace(str(path), 'upload')}")
        except BaseException:
            if not index.items_of(str(path)):
                path.unlink(missing_ok=True)
            raise
        return ids

    def _kept(self, upload: Upload) -> Path:
        """The file on disk, whole; what an interrupted upload of it left goes."""
        make_folder(self.folder)
        path = (self.folder / f"{hashlib.sha256(upload.content).hexdigest()}{upload.suffix}").resolve()
        if not path.exists():
            for left_over in path.parent.glob(f".{path.name}.*"):
                left_over.unlink(missing_ok=True)
            write_whole(path, lambda file: file.write(upload.content))
        return path

    def _delete(self, index: Index, item: int) -> None:
        """With the last item of an uploaded file goes the file."""
        file = index.files_of([item]).get(item)
        if file is None:
            raise no_item(item)
        index.delete([item])
        path = Path(file.path)
        if path.parent == self.folder.resolve() and not index.items_of(file.path):
            path.unlink(missing_ok=True)


def _is_full(error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL

"""Items added and deleted by clients: one change at a time, in a thread of its own, beside those who search.

An uploaded file is kept beside the index, in a folder named by the checksum of its content: the same file twice is one,
under its first name. A crash leaves at most such a file, which the next upload of it takes over.
"""

import hashlib
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from xmr.engine.corpus import scan
from xmr.engine.files import make_folder, write_whole
from xmr.engine.index import Index
from xmr.engine.index.lock import Locked
from xmr.engine.media import media_of
from xmr.engine.model import Model
from xmr.engine.serve.bounded import Bounded
from xmr.engine.serve.refusals import FULL, Refusal, busy, disk_full, no_item
from xmr.engine.serve.uploads import Upload

UPLOADS = "uploads"  # beside the index
MAX_WAITING = 16
MAX_NAME_BYTES = 100
LOCK_S = 10.0  # to wait for another process that writes to the index
LOCK_AGAIN_S = 0.1

T = TypeVar("T")


class Changes:
    """The one that writes."""

    def __init__(self, index_folder: Path, model: Callable[[], Model]) -> None:
        self._index_folder, self._model = index_folder, model
        self.folder = index_folder.parent / f"{index_folder.name}-{UPLOADS}"
        said = "too many changes are waiting; ask again in a second"
        self._thread = Bounded("writes", max_waiting=MAX_WAITING, said=said)

    async def add(self, upload: Upload, name: str) -> list[int]:
        """Ids of the items of a file, which is kept under a name; XmrError where nothing in it can be embedded."""
        return await self._thread.run(partial(self._changed, partial(self._add, upload, name)))

    async def delete(self, item: int) -> None:
        await self._thread.run(partial(self._changed, partial(self._delete, item)))

    async def close(self) -> None:
        await self._thread.close()

    def _changed(self, change: Callable[[Index], T]) -> T:
        """Refusal where the disk is full."""
        try:
            index = Index.open(self._index_folder)
            try:
                return change(index)
            finally:
                index.close()
        except (OSError, sqlite3.Error) as error:
            if not _is_full(error):
                raise
            raise disk_full() from None

    def _add(self, upload: Upload, name: str, index: Index) -> list[int]:
        model = self._model()
        path = self._kept(upload, name)
        try:
            summary = _patiently(lambda: index.add(scan([path], media_of(model.modalities)), model, workers=1))
            if not (ids := index.items_of(str(path))):
                said = next(iter(summary.errors.values()), "nothing in it that the model can embed")
                raise Refusal(422, "bad_file", f"the file cannot be added: {said.replace(str(path), path.name)}")
        except BaseException:
            if not index.items_of(str(path)):
                self._remove(path)
            raise
        return ids

    def _kept(self, upload: Upload, name: str) -> Path:
        """The file on disk, whole; what an interrupted upload of it left goes."""
        folder = (self.folder / hashlib.sha256(upload.content).hexdigest()).resolve()
        try:
            make_folder(folder)
            for path in sorted(folder.iterdir()):
                if path.name.startswith("."):
                    path.unlink()
                elif path.suffix == upload.suffix:
                    return path
            path = folder / f"{plain_stem(name)}{upload.suffix}"
            write_whole(path, lambda file: file.write(upload.content))
        except OSError:
            with suppress(OSError):
                folder.rmdir()
            raise
        return path

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()

    def _delete(self, item: int, index: Index) -> None:
        """With the last item of an uploaded file goes the file."""
        file = index.files_of([item]).get(item)
        if file is None:
            raise no_item(item)
        _patiently(lambda: index.delete([item]))
        path = Path(file.path)
        if path.parent.parent == self.folder.resolve() and not index.items_of(file.path):
            self._remove(path)


def plain_stem(name: str) -> str:
    """The name of a file without its folders and its suffix, and without what a file system or a shell minds."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    kept = "".join(letter for letter in stem if letter.isalnum() or letter in "-_ ()+,.'").strip(" .")
    return kept.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(" .") or "upload"


def _patiently(write: Callable[[], T]) -> T:
    """Refusal where another process writes for longer than a client waits."""
    until_s = time.monotonic() + LOCK_S
    while True:
        try:
            return write()
        except Locked:
            if time.monotonic() > until_s:
                raise busy("another process is writing to the index; ask again when it is done") from None
            time.sleep(LOCK_AGAIN_S)


def _is_full(error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL

"""Items added and deleted by clients: one change at a time, in a thread of its own, beside those who search.

An uploaded file is kept beside the index, in a folder named by the checksum of its content: the same file twice is one,
under its first name. A crash leaves at most such a file, which the next upload of it takes over.
"""

import hashlib
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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
from xmr.engine.serve.current import check_fits
from xmr.engine.serve.refusals import FULL, Refusal, busy, disk_full, gone, no_item
from xmr.engine.serve.uploads import Upload

UPLOADS = "uploads"  # beside the index
MAX_WAITING = 16
MAX_NAME_BYTES = 100
LOCK_S = 10.0  # to wait for another process that writes to the index
LOCK_AGAIN_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True)
class Taken:
    """What an added file gave: ids of its items, and what was left out of them."""

    ids: list[int]
    notes: list[str]


@dataclass
class _Patience:
    """Of a client that asks for a change, from its request on: until when it waits, and whether it still does."""

    until_s: float
    is_over: bool = False

    def with_lock(self, write: Callable[[], T]) -> T:
        """What `write` gives once no other process writes; Refusal where that takes too long, or nobody waits."""
        while not self.is_over:
            try:
                return write()
            except Locked:
                if time.monotonic() > self.until_s:
                    raise busy("another process is writing to the index; ask again when it is done") from None
                time.sleep(LOCK_AGAIN_S)
        raise gone()


class Changes:
    """The one that writes."""

    def __init__(self, index_folder: Path, model: Callable[[], Model]) -> None:
        self._index_folder, self._model = index_folder, model
        self.folder = index_folder.parent / f"{index_folder.name}-{UPLOADS}"
        said = "too many changes are waiting; ask again in a second"
        self._thread = Bounded("writes", max_waiting=MAX_WAITING, said=said)

    async def add(self, upload: Upload, name: str) -> Taken:
        """What a file, which is kept under a name, gave; XmrError where nothing in it can be embedded."""
        return await self._made(partial(self._add, upload, name))

    async def delete(self, item: int, *, whole_file: bool = False) -> list[int]:
        """Ids of what is gone: the item, or all of its file."""
        return await self._made(partial(self._delete, item, whole_file))

    @property
    def n_waiting(self) -> int:
        """For a change, with the one that is being made."""
        return self._thread.n_waiting

    async def _made(self, change: Callable[[_Patience, Index], T]) -> T:
        patience = _Patience(time.monotonic() + LOCK_S)
        try:
            return await self._thread.run(partial(self._changed, partial(change, patience)))
        finally:
            patience.is_over = True

    async def close(self) -> None:
        await self._thread.close()

    def _changed(self, change: Callable[[Index], T]) -> T:
        """Refusal where the disk is full; UnreadableError where the index cannot be asked."""
        try:
            index = Index.open(self._index_folder)
            try:
                check_fits(index, self._model())
                return change(index)
            finally:
                index.close()
        except (OSError, sqlite3.Error) as error:
            if not _is_full(error):
                raise
            raise disk_full() from None

    def _add(self, upload: Upload, name: str, patience: _Patience, index: Index) -> Taken:
        model = self._model()
        path = self._kept(upload, name)
        try:
            corpus = scan([path], media_of(model.modalities))
            summary = patience.with_lock(lambda: index.add(corpus, model, workers=1, whole=True))
            notes = [_elsewhere(path, len(corpus.unreadable))] if corpus.unreadable else []
            if not (ids := index.items_of(str(path))):
                said = next(iter([*notes, *summary.errors.values()]), "nothing in it that the model can embed")
                raise Refusal(422, "bad_file", f"the file cannot be added: {said.replace(str(path), path.name)}")
        except BaseException:
            if not index.items_of(str(path)):
                self._remove(path)
            raise
        return Taken(ids, [note.replace(str(path), path.name) for note in [*notes, *summary.notes]])

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

    def _delete(self, item: int, whole_file: bool, patience: _Patience, index: Index) -> list[int]:
        """With the last item of an uploaded file goes the file."""

        def write() -> tuple[Path, list[int]]:
            file = index.files_of([item]).get(item)
            if file is None:
                raise no_item(item)
            ids = index.items_of(file.path) if whole_file else [item]
            index.delete(ids)
            return Path(file.path), ids

        path, ids = patience.with_lock(write)
        if path.parent.parent == self.folder.resolve() and not index.items_of(str(path)):
            self._remove(path)
        return ids


def plain_stem(name: str) -> str:
    """The name of a file without its folders and its suffix, and without what a file system or a shell minds."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    kept = "".join(letter for letter in stem if letter.isalnum() or letter in "-_ ()+,.'").strip(" .")
    return kept.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(" .") or "upload"


def _elsewhere(table: Path, n_files: int) -> str:
    """No file of this machine is taken because an upload names it."""
    named = "a file that is" if n_files == 1 else f"{n_files} files that are"
    return f"{table}: it names {named} not taken with it; add what it names too"


def _is_full(error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL

"""Items added and deleted by clients: one change at a time, in a thread of its own, beside those who search.

An uploaded file is kept beside the index, under the checksum of its content: the same file twice is one.
"""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from xmr.engine.corpus import scan
from xmr.engine.errors import XmrError
from xmr.engine.files import make_folder, write_whole
from xmr.engine.index import Index
from xmr.engine.media import media_of
from xmr.engine.model import Model
from xmr.engine.serve.refusals import busy, no_item
from xmr.engine.serve.uploads import Upload

UPLOADS = "uploads"  # beside the index
MAX_WAITING = 16

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
        index = Index.open(self._index_folder)
        try:
            return change(index)
        finally:
            index.close()

    def _add(self, index: Index, upload: Upload) -> list[int]:
        make_folder(self.folder)
        path = (self.folder / f"{hashlib.sha256(upload.content).hexdigest()}{upload.suffix}").resolve()
        is_new = not path.exists()
        if is_new:
            write_whole(path, lambda file: file.write(upload.content))
        model = self._model()
        try:
            summary = index.add(scan([path], media_of(model.modalities)), model, workers=1)
            ids = index.items_of(str(path))
            if not ids:
                raise XmrError(next(iter(summary.errors.values()), "nothing in this file that the model can embed"))
        except BaseException:
            if is_new:
                path.unlink(missing_ok=True)
            raise
        return ids

    def _delete(self, index: Index, item: int) -> None:
        """With the last item of an uploaded file goes the file."""
        file = index.files_of([item]).get(item)
        if file is None:
            raise no_item(item)
        index.delete([item])
        path = Path(file.path)
        if path.parent == self.folder.resolve() and not index.items_of(file.path):
            path.unlink(missing_ok=True)

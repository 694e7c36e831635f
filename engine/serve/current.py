"""The index that is at a folder now: opened again when another one has taken its place."""

from pathlib import Path

from xmr.engine.errors import XmrError
from xmr.engine.index import CATALOG_NAME, Index


class Current:
    """Of one thread. Changes inside an index are seen by the index itself; here is seen that it is another one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: Index | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the catalog

    @property
    def is_there(self) -> bool:
        return (self._folder / CATALOG_NAME).is_file()

    def index(self) -> Index:
        """Open; XmrError where there is none, or none any more."""
        file = self._found()
        if self._index is None or file != self._file:
            self.close()
            self._index, self._file = Index.open(self._folder), file
        return self._index

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = self._file = None

    def _found(self) -> tuple[int, int]:
        try:
            status = (self._folder / CATALOG_NAME).stat()
        except OSError:
            self.close()
            raise XmrError(
                f"{self._folder}: no index there any more; put it back, or make one with `xmr index`"
            ) from None
        return status.st_dev, status.st_ino

"""The index that is at a folder now: opened again when another one has taken its place."""

from pathlib import Path

from xmr.engine.errors import UnreadableError, XmrError
from xmr.engine.index import CATALOG_NAME, Index
from xmr.engine.model import Model


def check_fits(index: Index, model: Model) -> None:
    """UnreadableError where the index is one of another model, which is opened when the server starts."""
    try:
        index.check_model(model)
    except XmrError:
        made_with = f"{index.meta['model']} ({index.meta['fingerprint']})"
        said = f"made with model {made_with}, the server runs {model.name} ({model.fingerprint})"
        raise UnreadableError(f"{index.folder}: {said}; start the server again, with the model of the index") from None


class Current:
    """Of one thread. Changes inside an index are seen by the index itself; here is seen that it is another one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: Index | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the catalog

    def fitting(self, model: Model) -> Index:
        """Open; UnreadableError where there is none, none any more, or one of another model."""
        file = self._found()
        if self._index is None or file != self._file:
            self.close()
            self._index, self._file = Index.open(self._folder, below_roots=True), file
        check_fits(self._index, model)
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
            raise UnreadableError(
                f"{self._folder}: no index there any more; put it back, or make one with `xmr index`"
            ) from None
        return status.st_dev, status.st_ino

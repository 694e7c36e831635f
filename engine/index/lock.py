"""One writer: a lock that ends with its process, and the seal that tells whether the last one ended as it should."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from xmr.engine.errors import XmrError
from xmr.engine.files import sync_folder, write_whole

LOCK_NAME = "writer.lock"
SEAL_NAME = "catalog.seal"
BLOCK_BYTES = 1_000_000
KEPT_OPEN: dict[tuple[int, int], int] = {}  # by device and inode, as long as the process lives


class Locked(XmrError):  # noqa: N818, not a failure: waiting mends it
    """Another process holds the lock."""


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Held by the one writer; the lock of a dead process is free."""
    with (folder / LOCK_NAME).open("w") as lock:
        _lock(lock, fcntl.LOCK_EX, folder)
        yield


@contextmanager
def no_writer(folder: Path) -> Iterator[None]:
    """Nobody writes meanwhile. Needs no right to write, nor the lock's file, which a copy may lack."""
    path = folder / LOCK_NAME
    with path.open("rb") if path.exists() else nullcontext() as lock:
        if lock is not None:
            _lock(lock, fcntl.LOCK_SH, folder)
        yield


def _lock(file: IO[Any], kind: int, folder: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(
            f"{folder}: another process is writing to this index, or verifies it; wait until it is done"
        ) from None


class Seal:
    """The checksum of a catalog that nobody is writing to, in a file beside it.

    Broken before the first change, made again after the last one. Without it the catalog may be of a writer that was
    interrupted: what it holds is whole then too, but bytes that SQLite does not use are not checked.
    """

    def __init__(self, catalog: Path) -> None:
        self.catalog = catalog
        self.path = catalog.with_name(SEAL_NAME)

    def break_(self) -> None:
        for left_over in self.path.parent.glob(f".{SEAL_NAME}.*"):
            left_over.unlink()
        if self.path.exists():
            self.path.unlink()
            sync_folder(self.path.parent)

    def make(self) -> None:
        content = json.dumps({"bytes": self.catalog.stat().st_size, "sha256": _sha256_in_place(self.catalog)})
        lines = f"{content}\n{_checksum(content)}\n"
        write_whole(self.path, lambda file: file.write(lines.encode()))
        sync_folder(self.path.parent)

    def is_there(self) -> bool:
        return self.path.exists()

    def fault(self) -> tuple[Path, str] | None:
        """The file that is not as it was when the seal was made, the catalog or the seal itself, and what is wrong."""
        try:
            text = self.path.read_text()
            content, checksum, rest = text.split("\n")
            if checksum != _checksum(content) or rest:
                raise ValueError
        except (OSError, ValueError):
            return self.path, "does not hold the checksum that was written to it"
        if _sha256_in_place(self.catalog) != json.loads(content)["sha256"]:
            return self.catalog, "was changed since it was written"
        return None


def _sha256_in_place(catalog: Path) -> str:
    """Of a file that SQLite has open in this process, without ever closing it again.

    Where a process closes a file, the system drops all locks that it holds on it, also those of SQLite's connections:
    another process would then take its own connection for the last one, and remove the log under the writer.
    """
    status = catalog.stat()
    file = KEPT_OPEN.setdefault((status.st_dev, status.st_ino), -1)
    if file < 0:
        file = KEPT_OPEN[status.st_dev, status.st_ino] = os.open(catalog, os.O_RDONLY)
    digest, at = hashlib.sha256(), 0
    while block := os.pread(file, BLOCK_BYTES, at):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()

"""Where the bytes of a file are: on their own, or as a stretch of an archive that is read in place."""

import errno
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xmr.engine.errors import XmrError


@dataclass(frozen=True)
class Content:
    """The bytes of one file. Errors name it by `path`, which of a member is its archive's path and then its name."""

    path: Path
    archive: Path | None = None
    start: int = 0  # the first of its bytes in the archive
    size: int | None = None  # bytes of a member

    @classmethod
    def of(cls, given: "Content | Path") -> "Content":
        return given if isinstance(given, Content) else cls(given)

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def n_bytes(self) -> int:
        return self.path.stat().st_size if self.size is None else self.size

    def open(self) -> BinaryIO:
        """A file to read and seek in; of a member nothing before or after it can be reached."""
        file = self.archive or self.path
        # opening a pipe waits for who writes into it, and a device has no end
        if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116, of a folder and a missing file too
            raise XmrError(f"{file}: no file but a folder, pipe, socket or device; take it out")
        if self.archive is None:
            return self.path.open("rb")
        return io.BufferedReader(_Stretch(self.archive, self.start, self.n_bytes))

    def read(self) -> bytes:
        with self.open() as file:
            return file.read()

    def sha256(self) -> str:
        """Of its bytes, as 64 hex digits."""
        import hashlib

        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def __str__(self) -> str:
        return str(self.path)


class _Stretch(io.RawIOBase):
    """Some of the bytes of a file, as if they were all of it."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:  # as the system says it of a file
            raise OSError(errno.EINVAL, f"position {base + offset} found, 0 or more expected")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        n_read = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._at += n_read
        return n_read

    def close(self) -> None:
        self._file.close()
        super().close()

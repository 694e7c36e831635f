"""Archives of others, unpacked as if they meant harm: nothing outside the folder, no links, no bombs."""

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from xmr.engine.errors import XmrError

MAX_EXPANSION = 30  # an archive may hold this many times its own size: JSON packs to a tenth
SMALL_BYTES = 100_000_000  # a small archive may hold this much whatever its size
CHUNK_BYTES = 1 << 20
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    RuntimeError,
)  # last: a password
MEGABYTE = 1_000_000

Bar = Callable[[int, int], None]  # moved by (done, total), here megabytes of the archive


@dataclass
class Unpacked:
    """What came out of an archive."""

    n_files: int = 0
    size_bytes: int = 0
    left_out: list[str] = field(default_factory=list)  # links and devices, by name


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked."""
    return _is_tar(name) or name.endswith((".zip", ".gz"))


def unpack(archive: Path, folder: Path, bar: Bar = lambda done, total: None) -> Unpacked:
    """Write what a .zip, .tar(.gz) or .gz holds into a folder, over files of the same names.

    XmrError at a name that leads out of the folder, at more than MAX_EXPANSION times the archive's size (at least
    SMALL_BYTES), and where the archive is damaged; what was written before that stays.
    """
    into = _Into(folder, limit_bytes=max(MAX_EXPANSION * archive.stat().st_size, SMALL_BYTES), archive=archive)
    try:
        if _is_tar(archive.name):
            _unpack_tar(archive, into, bar)
        elif archive.name.endswith(".zip"):
            _unpack_zip(archive, into, bar)
        else:
            _unpack_gzip(archive, into, bar)
    except DAMAGED as error:
        raise XmrError(
            f"{archive}: not an archive that can be read ({error or type(error).__name__}); remove it, then fetch again"
        ) from None
    return into.unpacked


@dataclass
class _Into:
    """The folder that an archive goes to, and what may still go there."""

    folder: Path
    limit_bytes: int
    archive: Path
    unpacked: Unpacked = field(default_factory=Unpacked)

    def place(self, name: str) -> Path:
        """Where a member goes; XmrError where that is not below the folder."""
        parts = PurePosixPath(name).parts
        target = self.folder.joinpath(*(part for part in parts if part != "/"))
        leads_out = name.startswith("/") or ".." in parts or "\0" in name
        if leads_out or not target.resolve().is_relative_to(self.folder.resolve()):  # resolve: a link that was there
            raise XmrError(f"{self.archive}: holds {name!r}, which leads out of the folder; do not trust this archive")
        return target

    def write(self, name: str, content: IO[bytes] | gzip.GzipFile, tell: Callable[[], None]) -> None:
        """Copy one member, counting what really comes: an archive may lie about sizes."""
        target = self.place(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            while chunk := content.read(CHUNK_BYTES):
                self.unpacked.size_bytes += len(chunk)
                if self.unpacked.size_bytes > self.limit_bytes:
                    raise XmrError(
                        f"{self.archive}: holds more than {self.limit_bytes / 1e9:.1f} GB, {MAX_EXPANSION} times its "
                        "size; unpack it by hand if that is right"
                    )
                file.write(chunk)
                tell()
        self.unpacked.n_files += 1


def _unpack_tar(archive: Path, into: _Into, bar: Bar) -> None:
    with _watched(archive, bar) as (file, tell), tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            if member.isdir():
                into.place(member.name).mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                content = tar.extractfile(member)
                assert content is not None  # of a regular file
                into.write(member.name, content, tell)
            else:
                into.unpacked.left_out.append(member.name)


def _unpack_zip(archive: Path, into: _Into, bar: Bar) -> None:
    with _watched(archive, bar) as (file, tell), zipfile.ZipFile(file) as opened:
        for member in opened.infolist():
            into.place(member.filename)  # before anything is written: a zip lists its names first
        for member in opened.infolist():
            if member.is_dir():
                into.place(member.filename).mkdir(parents=True, exist_ok=True)
            elif stat.S_ISLNK(member.external_attr >> 16):  # the file mode of whoever packed it
                into.unpacked.left_out.append(member.filename)
            else:
                with opened.open(member) as content:
                    into.write(member.filename, content, tell)


def _unpack_gzip(archive: Path, into: _Into, bar: Bar) -> None:
    with _watched(archive, bar) as (file, tell), gzip.GzipFile(fileobj=file) as content:
        into.write(archive.name.removesuffix(".gz"), content, tell)


@contextmanager
def _watched(archive: Path, bar: Bar) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """The archive, and a function that moves the bar to where it is being read."""
    total = archive.stat().st_size // MEGABYTE
    with archive.open("rb") as file:
        yield file, lambda: bar(os.lseek(file.fileno(), 0, os.SEEK_CUR) // MEGABYTE, total)


def _is_tar(name: str) -> bool:
    return name.endswith((".tar", ".tar.gz", ".tgz"))

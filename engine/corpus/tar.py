"""The headers of a tar archive, one after the other, without its data: where each member's bytes are.

POSIX ustar with pax headers, and GNU's long names; see POSIX.1-2017 (pax) and the tar manual of GNU, "Basic Tar
Format". Unlike tarfile, which keeps an object a member, nothing is held but the member at hand.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xmr.engine.errors import XmrError

BLOCK = 512  # bytes
MAX_LONG = 1_000_000  # bytes of a pax header or a long name
MAX_MEMBERS = 10_000_000
REGULAR = {b"0", b"\0", b"7"}
FOLDER, SPARSE, PAX, PAX_OF_ALL, LONG_NAME, LONG_LINK = b"5", b"S", b"x", b"g", b"L", b"K"
PACKED = {  # first bytes of what is no plain tar
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK": "zip",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive, or what else stands there under a name."""

    name: str
    start: int  # of its data
    size: int  # bytes
    kind: str = "file"  # or folder, link, sparse file, device


class Tar:
    """An archive that is read in place; iterate over it, then read small members whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._file).st_size

    def close(self) -> None:
        os.close(self._file)

    def read(self, member: Member) -> bytes:
        return os.pread(self._file, member.size, member.start)

    def __iter__(self) -> Iterator[Member]:
        """The members in their order. XmrError where the archive is cut off or damaged; what came before stays."""
        at = n_members = 0
        said: dict[str, str] = {}  # of the next member
        said_of_all: dict[str, str] = {}
        while header := self._header(at, n_members):
            kind, size, data = header[156:157], _number(header[124:136]), at + BLOCK
            if kind in (PAX, PAX_OF_ALL, LONG_NAME, LONG_LINK):
                long = self._long(at, data, size)
                if kind == PAX_OF_ALL:
                    said_of_all.update(self._pax(at, long))
                elif kind != LONG_LINK:
                    said |= self._pax(at, long) if kind == PAX else {"path": _decoded(long.split(b"\0")[0])}
                at = data + _padded(size)
                continue
            told = said_of_all | said
            said = {}
            size = self._size(at, told.get("size"), size)
            n_members += 1
            if n_members > MAX_MEMBERS:
                raise XmrError(f"{self.path}: more than {MAX_MEMBERS:,} members found; split the archive")
            name = told.get("GNU.sparse.name") or told.get("path") or _name(header)
            if kind in REGULAR and data + size > self.size_bytes:
                raise XmrError(f"{self.path}: cut off in {name}; what comes before is used, copy the archive again")
            yield Member(name, data, size, _kind(kind, name, told))
            has_data = kind in REGULAR or kind == SPARSE or size_counts(kind)
            at = self._end(at, header, kind, data + (_padded(size) if has_data else 0))

    def _header(self, at: int, n_members: int) -> bytes:
        """The header at a place; empty at the end."""
        header = os.pread(self._file, BLOCK, at)
        if len(header) == BLOCK and not header.strip(b"\0"):
            return b""
        is_whole = len(header) == BLOCK
        packed = next((name for magic, name in PACKED.items() if header.startswith(magic)), None)
        if n_members == 0 and packed is not None and not (is_whole and _is_header(header)):
            raise XmrError(f"{self.path}: packed with {packed}, which cannot be read in place; unpack it first")
        if not is_whole:
            raise XmrError(f"{self.path}: ends without tar's end mark; if it was cut short, copy it again")
        if not _is_header(header):
            raise XmrError(f"{self.path}: no tar header at byte {at:,}; what comes before is used, replace the archive")
        return header

    def _long(self, at: int, data: int, size: int) -> bytes:
        if not 0 <= size <= MAX_LONG:
            raise XmrError(f"{self.path}: a header of {size:,} bytes at byte {at:,}; replace the archive")
        long = os.pread(self._file, size, data)
        if len(long) < size:
            raise XmrError(f"{self.path}: cut off at byte {at:,}; what comes before is used, copy the archive again")
        return long

    def _pax(self, at: int, records: bytes) -> dict[str, str]:
        """Records of the form `LENGTH KEY=VALUE\\n`."""
        said = {}
        place = 0
        while place < len(records):
            length, _, _ = records[place : place + 20].partition(b" ")
            end = place + int(length) if length.isdigit() else 0
            if end <= place + len(length) or end > len(records):
                raise XmrError(f"{self.path}: a damaged pax header at byte {at:,}; replace the archive")
            key, _, value = records[place + len(length) + 1 : end - 1].partition(b"=")
            said[_decoded(key)] = _decoded(value)
            place = end
        return said

    def _size(self, at: int, told: str | None, size: int) -> int:
        if told is not None:
            size = int(told) if told.isdecimal() and len(told) < 20 else -1
        if size < 0:
            raise XmrError(f"{self.path}: a member without a size at byte {at:,}; replace the archive")
        return size

    def _end(self, at: int, header: bytes, kind: bytes, end: int) -> int:
        """Where the next header is; of GNU's sparse files after the headers that go on."""
        if kind != SPARSE:
            return end
        is_extended, n_more = header[482:483] not in (b"\0", b""), 0
        while is_extended:
            n_more += 1
            more = os.pread(self._file, BLOCK, at + n_more * BLOCK)
            is_extended = more[504:505] not in (b"\0", b"")
        return end + n_more * BLOCK


def size_counts(kind: bytes) -> bool:
    """Whether data follows: of kinds that nobody knows too, of links, devices and folders never."""
    return kind not in (b"1", b"2", b"3", b"4", FOLDER, b"6")


def _kind(kind: bytes, name: str, told: dict[str, str]) -> str:
    if kind == SPARSE or any(key.startswith("GNU.sparse.") for key in told):
        return "sparse file"
    if kind == FOLDER or (kind in REGULAR and name.endswith("/")):
        return "folder"
    if kind in REGULAR:
        return "file"
    return "link" if kind in (b"1", b"2") else "device"


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and prefix:  # GNU's own format has times where POSIX has the prefix
        name = prefix + b"/" + name
    return _decoded(name)


def _number(digits: bytes) -> int:
    """Octal digits, or GNU's binary number where the first bit is set; -1 for neither."""
    if digits[0] == 0x80:
        return int.from_bytes(digits[1:], "big")
    octal = digits.strip(b"\0 ")
    if not octal:
        return 0
    return int(octal, 8) if not octal.strip(b"01234567") else -1


def _is_header(header: bytes) -> bool:
    """Whether its checksum is right: that of its bytes, or of its bytes with a sign, as some programs write it."""
    written = _number(header[148:156])
    unsigned = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if written == unsigned:
        return True
    rest = header[:148] + header[156:]
    return written == unsigned - 256 * sum(byte > 127 for byte in rest)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", errors="surrogateescape")

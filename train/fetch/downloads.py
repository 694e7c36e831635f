"""One file over HTTP, whole or not at all under its own name; what an interrupted download has stays for the next one.

What is there so far is NAME.part; beside it NAME.part.from says which version of the file it is the start of. The rest
is asked for only from a server that still has this version (RFC 9110: Range, If-Range); another one sends all of it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from xmr.engine.errors import XmrError
from xmr.engine.files import sync_folder, write_whole

TIMEOUT_S = 60.0  # without a byte
PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before each further try; a try that brings bytes starts them anew
CHUNK_BYTES = 1 << 20
MEGABYTE = 1_000_000
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # what a busy server answers
DROPS = (HTTPException, ConnectionResetError, ConnectionAbortedError, BrokenPipeError, TimeoutError)
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Bar = Callable[[int, int], None]  # moved by (done, total), here megabytes


@dataclass(frozen=True)
class _Version:
    """What tells one version of a file from another; empty where the server does not say."""

    url: str
    etag: str = ""
    last_modified: str = ""
    size_bytes: int | None = None

    @property
    def validator(self) -> str:
        """For If-Range, where a weak ETag does not count (RFC 9110, section 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class _DroppedError(Exception):
    """The connection ended before the file did."""


class _StartAgainError(Exception):
    """The server has no rest that fits what is there."""


def download(
    url: str,
    path: Path,
    *,
    size_bytes: int | None = None,
    checksum: str | None = None,
    spare_bytes: int = 0,
    bar: Bar = lambda done, total: None,
) -> str:
    """Get a file and return its sha256. `checksum` is "sha256:…" or "md5:…", as published; None: nothing to compare.

    `spare_bytes` is the room that has to be left on the disk afterwards. XmrError says what went wrong; only a file
    that differs from its checksum is removed.
    """
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(part) as file:
        _receive_all(url, file, part, size_bytes, spare_bytes, bar)
        os.fsync(file.fileno())
        sha256 = _verify(url, part, checksum)
        part.replace(path)
    _version_file(part).unlink(missing_ok=True)
    sync_folder(path.parent)
    return sha256


def digests(path: Path, algorithms: set[str]) -> dict[str, str]:
    """Hex digests of a file by several algorithms, read once."""
    running = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            for digest in running.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in running.items()}


def check_disk(folder: Path, needed_bytes: int) -> None:
    """XmrError where fewer bytes are free; the folder may still have to be made."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed_bytes > free:
        raise XmrError(f"{folder}: {_gb(needed_bytes)} needed, {_gb(free)} free on this disk; choose another folder")


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The file so far, for this process alone."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise XmrError(f"{part}: another process is downloading this file; wait for it") from None
        try:
            yield file
        finally:
            file.flush()
            if part.exists() and part.stat().st_size == 0:
                part.unlink()


def _receive_all(url: str, file: IO[bytes], part: Path, size_bytes: int | None, spare_bytes: int, bar: Bar) -> None:
    """Ask until the file is whole: go on after a dropped connection, wait a little longer each time."""
    pauses, best = list(PAUSES_S), file.tell()
    while True:
        try:
            _receive(url, file, part, size_bytes, spare_bytes, bar)
        except _StartAgainError:
            file.truncate(0)
            _version_file(part).unlink(missing_ok=True)
        except _DroppedError as drop:
            if file.tell() > best:
                pauses, best = list(PAUSES_S), file.tell()
            if not pauses:
                raise XmrError(
                    f"{url}: {drop}, {_gb(file.tell())} are there; run the same command again to go on"
                ) from None
            time.sleep(pauses.pop(0))
        else:
            return


def _receive(url: str, file: IO[bytes], part: Path, size_bytes: int | None, spare_bytes: int, bar: Bar) -> None:
    """One request: append what the file lacks, or write it anew."""
    known = _read_version(part)
    if known is None or known.url != url or not known.validator:
        file.truncate(0)
        known = None
    file.seek(0, 2)
    if known is not None and known.size_bytes == file.tell():
        return
    with _open(url, file.tell(), known) as response:
        start, total = _place(response, file.tell())
        if size_bytes is not None and total not in (None, size_bytes):
            raise XmrError(f"{url}: {total} bytes found, {size_bytes} expected; the file has changed at its source")
        check_disk(part.parent, (total or size_bytes or 0) - start + spare_bytes)
        if start == 0:
            file.truncate(0)
            file.seek(0, 2)
            says = response.headers
            _write_version(part, _Version(url, says.get("ETag", ""), says.get("Last-Modified", ""), total))
        _append(response, file, size_bytes if total is None else total, bar)


def _open(url: str, offset: int, known: _Version | None) -> HTTPResponse:
    """The server's answer to a request for the bytes from `offset` on."""
    headers = {"User-Agent": "xmr", "Accept-Encoding": "identity"}
    if offset and known is not None:
        headers |= {"Range": f"bytes={offset}-", "If-Range": known.validator}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        raise _of_status(url, error.code, error.headers, offset) from None
    except URLError as error:
        raise _of_reason(url, error.reason, offset) from None
    except (HTTPException, OSError) as error:
        raise _DroppedError(f"connection lost ({error or type(error).__name__})") from None
    return response


def _of_status(url: str, status: int, headers: Message, offset: int) -> Exception:
    """What to make of an answer that is an error."""
    if status == 416 and offset:
        return _StartAgainError()
    if status in TRY_AGAIN:
        return _DroppedError(f"the server answers {status}")
    if status in (404, 410):
        return XmrError(f"{url}: no such file on the server ({status}); look for its new address on the home page")
    return XmrError(f"{url}: the server refuses it ({status}); get the file with a browser from the home page")


def _of_reason(url: str, reason: Any, offset: int) -> Exception:
    """What to make of a server that is not reached: at the start nobody is there, later the network may come back."""
    if isinstance(reason, DROPS) or (offset and not isinstance(reason, ssl.SSLError)):
        return _DroppedError(f"connection lost ({reason})")
    why = "its name is not known here" if isinstance(reason, socket.gaierror) else reason
    return XmrError(f"{url}: the server cannot be reached ({why}); check the network")


def _place(response: HTTPResponse, offset: int) -> tuple[int, int | None]:
    """Where in the file the answer starts, and how long the whole file is if the server says so."""
    if response.status != 206:  # the server knows no ranges, or has another version
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != offset:
        if offset == 0:
            raise XmrError(f"{response.url}: the server sends a part that was not asked for; get the file by hand")
        raise _StartAgainError
    return offset, None if found[2] == "*" else int(found[2])


def _append(response: HTTPResponse, file: IO[bytes], total: int | None, bar: Bar) -> None:
    bar(file.tell() // MEGABYTE, (total or file.tell()) // MEGABYTE)
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (HTTPException, OSError) as error:
            raise _DroppedError(f"connection lost ({error or type(error).__name__})") from None
        if not chunk:
            break
        file.write(chunk)
        bar(file.tell() // MEGABYTE, (total or file.tell()) // MEGABYTE)
    if total is not None and file.tell() < total:
        raise _DroppedError("connection lost")
    if total is not None and file.tell() > total:
        raise XmrError(f"{response.url}: more than {total} bytes found; the file has changed at its source")
    file.flush()


def _verify(url: str, part: Path, checksum: str | None) -> str:
    """The sha256 of the whole file; XmrError, and no file, where it is not the published one."""
    algorithm, _, expected = (checksum or "sha256:").partition(":")
    found = digests(part, {"sha256", algorithm})
    if expected and found[algorithm] != expected.lower():
        part.unlink()
        _version_file(part).unlink(missing_ok=True)
        raise XmrError(
            f"{url}: {algorithm} {found[algorithm]} found, {expected} expected; the download is removed, "
            "run the same command again, and if it differs again the file has changed at its source"
        )
    return found["sha256"]


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.from")


def _write_version(part: Path, version: _Version) -> None:
    write_whole(_version_file(part), lambda file: file.write(json.dumps(asdict(version)).encode()))


def _read_version(part: Path) -> _Version | None:
    """What the file so far is the start of; None where that is not known."""
    try:
        return _Version(**json.loads(_version_file(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"

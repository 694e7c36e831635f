"""Where the bytes of an indexed file are, if they are inside the corpus that was indexed; and stretches of them.

A path is followed through all its links, and what it leads to must be under the root that the file was found under,
or be that root: so neither a link made later nor a name in the catalog leads elsewhere.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from starlette.responses import StreamingResponse

from xmr.engine.catalog import File
from xmr.engine.media import Content
from xmr.engine.serve.messages import Receive, Scope, Send
from xmr.engine.serve.refusals import Refusal

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Stretch:
    """Bytes `first` up to and with `last` of `size`."""

    first: int
    last: int
    size: int

    @property
    def n_bytes(self) -> int:
        return self.last - self.first + 1


def shown_path(file: File) -> str:
    """A file's path as a client sees it: relative to its root, or its name alone."""
    below = f"{file.root.rstrip('/')}/" if file.root is not None else None
    if below is not None and file.path.startswith(below):
        return file.path.removeprefix(below)
    return file.path.rpartition("/")[2]


def content_of(file: File) -> Content:
    """Refusal where its bytes are not there, or outside the corpus."""
    if file.root is None:
        raise _gone("this item has no file here: its embedding was made elsewhere")
    real = os.path.realpath(file.archive or file.path)
    if real != file.root and not real.startswith(f"{file.root.rstrip('/')}/"):
        raise Refusal(404, "outside", "the item's file now leads out of the corpus; nothing of it is shown")
    try:
        status = os.stat(real)  # noqa: PTH116
    except OSError:
        raise _gone("the item's file is not there any more; index its folder again") from None
    if not stat.S_ISREG(status.st_mode):
        raise _gone("the item's file is no file any more; index its folder again")
    if file.archive is None:
        return Content(Path(real))
    if status.st_mtime_ns != file.mtime or file.start + file.size > status.st_size:
        raise _gone("the item's archive has changed since it was indexed; index it again")
    return Content(Path(file.path), Path(real), file.start, file.size)


def state_of(content: Content) -> str:
    """Another one once the bytes may be others. Refusal where the file is not there any more."""
    try:
        status = os.stat(content.archive or content.path)  # noqa: PTH116
    except OSError:
        raise _gone("the item's file is not there any more; index its folder again") from None
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{content.start:x}-{content.n_bytes:x}"


def open_content(content: Content) -> BinaryIO:
    try:
        return content.open()
    except OSError:
        raise _gone("the item's file cannot be read; index its folder again") from None


def chunks(file: BinaryIO, stretch: Stretch) -> Iterator[bytes]:
    """The bytes, a part at a time."""
    file.seek(stretch.first)
    left = stretch.n_bytes
    while left > 0 and (part := file.read(min(CHUNK_BYTES, left))):
        left -= len(part)
        yield part


class FileAnswer(StreamingResponse):
    """A stretch of an open file, part by part; closed however it ends, also where the client goes in between."""

    def __init__(self, file: BinaryIO, stretch: Stretch, status: int, headers: dict[str, str], kind: str) -> None:
        super().__init__(chunks(file, stretch), status, headers, kind)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def stretch_of(wanted: str | None, size: int) -> Stretch | None:
    """What a Range header asks for, one range (RFC 9110, 14.2); None: all. Refusal (416) for one behind the end."""
    unit, _, spans = (wanted or "").partition("=")
    if unit.strip().lower() != "bytes" or "," in spans or "-" not in spans:
        return None
    begin, _, end = (part.strip() for part in spans.partition("-"))
    if not (begin or end) or not all(part == "" or (part.isascii() and part.isdigit()) for part in (begin, end)):
        return None
    if len(begin) > 18 or len(end) > 18:
        raise _behind_the_end(size)
    if not begin:
        first, last = max(0, size - int(end)), size - 1
    else:
        first, last = int(begin), min(int(end), size - 1) if end else size - 1
    if begin and end and int(end) < int(begin):
        return None
    if first >= size or last < first:
        raise _behind_the_end(size)
    return Stretch(first, last, size)


def _behind_the_end(size: int) -> Refusal:
    return Refusal(
        416, "range", f"the range lies behind the end; the file has {size} bytes", {"Content-Range": f"bytes */{size}"}
    )


def _gone(message: str) -> Refusal:
    return Refusal(404, "no_media", message)

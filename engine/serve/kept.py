"""What need not be made or sent again: what shows a file, while there is room, and what a client holds already.

An address names an item, whose bytes may be others once its file or the index is another: so a client asks again each
time, with the tag of what it holds, and is told whether that is so still.
"""

import zlib
from collections import OrderedDict
from collections.abc import Hashable

from starlette.requests import Request
from starlette.responses import Response

MAX_BYTES = 64_000_000
KEPT = {"Cache-Control": "private, no-cache"}


class Small:
    """Small pictures and waveforms; the least recently asked goes first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes, self._n_bytes = max_bytes, 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, key: Hashable) -> bytes | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: Hashable, content: bytes) -> None:
        if (before := self._kept.pop(key, None)) is not None:
            self._n_bytes -= len(before)
        self._kept[key] = content
        self._n_bytes += len(content)
        while self._n_bytes > self._max_bytes:
            _, gone = self._kept.popitem(last=False)
            self._n_bytes -= len(gone)


def revalidated(request: Request, content: bytes, kind: str) -> Response:
    """The bytes, with a tag of what they are; or 304 for a client that holds them."""
    tag = f'"{zlib.crc32(content):08x}-{len(content):x}"'
    is_same = is_held(request.headers.get("if-none-match"), tag)
    return Response(b"" if is_same else content, 304 if is_same else 200, {"ETag": tag, **KEPT}, kind)


def is_held(held: str | None, tag: str) -> bool:
    """Whether If-None-Match (RFC 9110, 13.1.2) names the bytes of a tag."""
    names = [name.strip().removeprefix("W/") for name in (held or "").split(",")]
    return tag in names or "*" in names

"""What a client has already: it asks again each time, with the tag of what it holds, and is told if that is so still.

An address names an item, whose bytes may be others once its file or the index is another: so nothing is taken from a
cache unasked.
"""

import zlib

from starlette.requests import Request
from starlette.responses import Response

KEPT = {"Cache-Control": "private, no-cache"}


def revalidated(request: Request, content: bytes, kind: str) -> Response:
    """The bytes, with a tag of what they are; or 304 for a client that holds them."""
    tag = f'"{zlib.crc32(content):08x}-{len(content):x}"'
    is_same = is_held(request.headers.get("if-none-match"), tag)
    return Response(b"" if is_same else content, 304 if is_same else 200, {"ETag": tag, **KEPT}, kind)


def is_held(held: str | None, tag: str) -> bool:
    """Whether If-None-Match (RFC 9110, 13.1.2) names the bytes of a tag."""
    names = [name.strip().removeprefix("W/") for name in (held or "").split(",")]
    return tag in names or "*" in names

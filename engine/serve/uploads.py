"""Files that come with a question: as an upload, or written into a data: URI."""

import base64
import binascii
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath

from xmr.engine.media import MODALITIES, SUFFIXES
from xmr.engine.question import VIDEO
from xmr.engine.serve.refusals import Refusal

DATA = re.compile(
    r"\s*data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<more>(?:;[\w.+-]+=(?:[\w.+-]+|\"[^\"]*\"))*)(?P<base64>;base64)?,",
    re.IGNORECASE,
)
IN_PERCENT = {"%2b": "+", "%2f": "/", "%3d": "", "%0a": "", "%0d": "", "%20": ""}  # what base64 may have so
OTHER_LETTERS = str.maketrans("-_", "+/", " \t\r\n=")  # of base64 as addresses and mails have it
EXAMPLES = {"image": "image/png", "audio": "audio/wav", VIDEO: "video/mp4"}
# what browsers record and drop, by the suffix of its container
TYPES = {
    "audio/webm": ".mka",
    "audio/mp4": ".m4a",
    "audio/x-m4a": ".m4a",
    "audio/aac": ".aac",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/wave": ".wav",
    "audio/ogg": ".ogg",
    "audio/opus": ".opus",
    "audio/flac": ".flac",
    "audio/x-flac": ".flac",
    "audio/aiff": ".aiff",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
    "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi",
    "video/mpeg": ".mpg",
    "video/ogg": ".mkv",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/heif": ".heif",
}
USUAL = {"image": ".png", "audio": ".wav", "video": ".mp4"}  # the readers look into the file, whatever its suffix


@dataclass(frozen=True)
class Upload:
    """The bytes of a file and the suffix that says how to read them."""

    content: bytes
    suffix: str


def of_file(kind: str, content: bytes, name: str, mime: str | None) -> Upload:
    """An uploaded file, asked with as `kind`: a modality or video."""
    suffix = PurePath(name).suffix.lower()
    known = suffix if any(suffix in of_medium for of_medium in SUFFIXES.values()) else ""
    return _checked(kind, content, known or TYPES.get(_essence(mime), ""))


def of_data(kind: str, uri: str, *, takes_urls: bool = False) -> Upload:
    """A data: URI (RFC 2397) with base64; Refusal for what is none."""
    head = DATA.match(uri[:300])
    if head is None or not head["base64"]:
        mime = EXAMPLES.get(_medium(kind), "text/plain")
        or_url = ", or give a URL of http or https" if takes_urls else ""
        raise Refusal(422, "bad_data", f"no data: URI found; write it as data:{mime};base64,...{or_url}")
    try:
        content = _decoded(uri[head.end() :])
    except (binascii.Error, ValueError):
        said = "behind data: stands no base64 that can be read; encode the file's bytes so"
        raise Refusal(422, "bad_data", said) from None
    return _checked(kind, content, TYPES.get(_essence(head["type"]), ""))


def _decoded(written: str) -> bytes:
    """The bytes in base64, also in that of addresses and mails; ValueError for what is neither."""
    with suppress(binascii.Error, ValueError):
        return base64.b64decode(written, validate=True)
    for percent, letter in IN_PERCENT.items():
        written = written.replace(percent, letter).replace(percent.upper(), letter)
    letters = written.translate(OTHER_LETTERS)
    return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)


def _checked(kind: str, content: bytes, suffix: str) -> Upload:
    if not content:
        raise Refusal(422, "bad_data", "an empty file found; send one with something in it")
    medium = _medium(kind)
    read = {VIDEO} if kind == VIDEO else set(MODALITIES[kind].read)
    fits = any(suffix in SUFFIXES[name] for name in read)
    return Upload(content, suffix if fits else USUAL.get(medium, ".txt"))


def _medium(kind: str) -> str:
    return VIDEO if kind == VIDEO else MODALITIES[kind].medium


def _essence(mime: str | None) -> str:
    return (mime or "").partition(";")[0].strip().lower()

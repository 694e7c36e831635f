"""/v1/items: one item, the bytes of its file, what shows it; adding and deleting."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath

from xmr.engine.catalog import File, Found
from xmr.engine.errors import XmrError
from xmr.engine.index import Index
from xmr.engine.media import Content, medium_of
from xmr.engine.serve import decoding
from xmr.engine.serve.kept import KEPT, is_held, revalidated
from xmr.engine.serve.patience import while_waited
from xmr.engine.serve.place import FileAnswer, Stretch, content_of, open_content, shown_path, state_of, stretch_of
from xmr.engine.serve.reading import file_in, shown
from xmr.engine.serve.refusals import Refusal, no_item
from xmr.engine.serve.replies import OF_ITEMS, Added, Deleted, ItemAnswer, Waveform
from xmr.engine.serve.search import written_item
from xmr.engine.serve.service import Served, Service
from xmr.engine.serve.shapes import FILE_BODY, LARGEST
from xmr.engine.serve.uploads import of_file

router = APIRouter(tags=["items"], responses=OF_ITEMS)
Id = Annotated[int, InPath(ge=1, le=LARGEST, description="the id of an item, as a search gives it", examples=[17])]

# fmt: off
TYPES = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".avif": "image/avif",
    ".tif": "image/tiff", ".tiff": "image/tiff", ".bmp": "image/bmp", ".gif": "image/gif", ".heic": "image/heic",
    ".heif": "image/heif", ".wav": "audio/wav", ".flac": "audio/flac", ".ogg": "audio/ogg", ".oga": "audio/ogg",
    ".opus": "audio/ogg", ".mp3": "audio/mpeg", ".aif": "audio/aiff", ".aiff": "audio/aiff", ".m4a": "audio/mp4",
    ".aac": "audio/aac", ".mka": "audio/x-matroska", ".wma": "audio/x-ms-wma", ".mp4": "video/mp4",
    ".m4v": "video/mp4", ".mov": "video/quicktime", ".mkv": "video/x-matroska", ".webm": "video/webm",
    ".avi": "video/x-msvideo", ".mpg": "video/mpeg", ".mpeg": "video/mpeg",
}
# fmt: on
MAX_LINES = 10_000  # of a text that is added: each is an item, and others wait for the last of them
PLAIN = "text/plain; charset=utf-8"  # nothing of a corpus is ever shown as a page

T = TypeVar("T")


@router.get("/v1/items/{item:int}", response_model=ItemAnswer)
async def one(item: Id, service: Served) -> dict[str, Any]:
    """What is known of an item."""
    found, file = await known(item, service)
    n_of_file = await service.lookups.ask(lambda index: len(index.items_of(file.path)))
    return written_item(found, file) | {"n_of_file": n_of_file}


@router.get("/v1/items/{item:int}/media", response_class=Response)
@router.head("/v1/items/{item:int}/media", response_class=Response, include_in_schema=False)
async def media(item: Id, request: Request, service: Served) -> Response:
    """The bytes of the item's file, or a range of them."""
    _, file = await known(item, service)
    content = await content_of_item(file)
    size = content.n_bytes
    suffix = Path(file.path).suffix.lower()
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": (tag := f'"{state_of(content)}"'),
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(Path(file.path).name, safe='')}",
        **KEPT,
    }
    if is_held(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    is_same = request.headers.get("if-range", tag) == tag
    stretch = stretch_of(request.headers.get("range"), size) if is_same else None
    if stretch is not None:
        headers["Content-Range"] = f"bytes {stretch.first}-{stretch.last}/{size}"
    whole = Stretch(0, size - 1, size)
    headers["Content-Length"] = str((stretch or whole).n_bytes)
    status, kind = 200 if stretch is None else 206, TYPES.get(suffix, PLAIN)
    if request.method == "HEAD":
        return Response(None, status, headers, kind)
    opened = await asyncio.to_thread(open_content, content)
    return FileAnswer(opened, stretch or whole, status, headers, kind)


@router.get("/v1/items/{item:int}/thumbnail", response_class=Response)
async def thumbnail(
    item: Id,
    request: Request,
    service: Served,
    size: Annotated[int, Query(ge=16, le=1024, description="a number of pixels from 16 to 1,024")] = 256,
) -> Response:
    """A small JPEG of a picture, or of the second of a video that the item is."""
    found, file = await known(item, service)
    if file.medium not in ("image", "video"):
        raise Refusal(404, "no_thumbnail", "a sound or a text has no small picture; ask for its media")
    work = _small(file, service, decoding.thumbnail, file.medium, found.start_s, size)
    picture = await while_waited(request, work)
    return revalidated(request, picture, "image/jpeg")


@router.get("/v1/items/{item:int}/waveform", responses={200: {"model": Waveform}})
async def waveform(
    item: Id,
    request: Request,
    service: Served,
    peaks: Annotated[int, Query(ge=8, le=4000, description="how many, from 8 to 4,000")] = 400,
) -> Response:
    """The lowest and highest sample of each of so many parts of a sound, from -1 to 1, and its seconds."""
    return revalidated(request, await while_waited(request, _peaks(item, service, peaks)), "application/json")


@router.get("/v1/items/{item:int}/waveform.png", response_class=Response)
async def waveform_png(
    item: Id,
    request: Request,
    service: Served,
    width: Annotated[int, Query(ge=8, le=4000, description="a number of pixels from 8 to 4,000")] = 400,
) -> Response:
    """The waveform of a sound as a picture."""
    found = json.loads(await while_waited(request, _peaks(item, service, width)))
    picture = await asyncio.to_thread(decoding.waveform_png, found["peaks"])
    return revalidated(request, picture, "image/png")


@router.post("/v1/items", status_code=201, response_model=Added, openapi_extra=FILE_BODY)
async def add(request: Request, service: Served) -> dict[str, Any]:
    """Embed a file and take it into the index; only where the server may write."""
    _check_writable(service)
    content, name, mime = await file_in(request)
    if content.count(b"\n") > MAX_LINES and _kind(name, mime) == "text":
        raise Refusal(422, "too_many", f"a file of more than {MAX_LINES:,} lines found; index it with `xmr index`")
    change = service.changes.add(of_file(_kind(name, mime), content, name, mime), name)
    return asdict(await _changed(request, service, change))


@router.delete("/v1/items/{item:int}", response_model=Deleted)
async def delete(
    item: Id,
    request: Request,
    service: Served,
    whole_file: Annotated[bool, Query(description="true or false, whether all items of its file go with it")] = False,
) -> dict[str, Any]:
    """Take an item out of the index; only where the server may write."""
    _check_writable(service)
    change = service.changes.delete(item, whole_file=whole_file)
    return {"deleted": item, "ids": await _changed(request, service, change)}


async def _changed(request: Request, service: Service, change: Coroutine[Any, Any, T]) -> T:
    """What it gives, however long it takes; one whose turn comes when its client has gone is not made."""
    try:
        return await while_waited(request, change, is_limited=False)
    except XmrError as error:
        raise service.mistake(error) from None


def _kind(name: str, mime: str | None) -> str:
    """As what a file that comes without a question is read."""
    essence = (mime or "").partition(";")[0].strip().lower()
    medium = medium_of(Path(name))
    if medium is None and (essence == PLAIN.partition(";")[0] or not essence.startswith("text/")):  # a page is no text
        medium = essence.partition("/")[0]
    kinds = {"image": "image", "audio": "sound", "video": "video", "text": "text"}
    if medium not in kinds:
        ending = shown(Path(name).suffix)
        found = f"a file that ends in {ending} found" if ending else "a file without an ending found"
        raise Refusal(422, "bad_file", f"{found}; send a picture, sound, video or text, with its usual ending")
    return kinds[medium]


def _check_writable(service: Service) -> None:
    if not service.settings.writable:
        raise Refusal(403, "read_only", "this server does not write; start it with --writable")


async def known(item: int, service: Service) -> tuple[Found, File]:
    def look(index: Index) -> tuple[Found | None, File | None]:
        return index.found([item]).get(item), index.files_of([item]).get(item)

    found, file = await service.lookups.ask(look)
    if found is None or file is None:
        raise no_item(item)
    return found, file


async def content_of_item(file: File) -> Content:
    """Refusal where its bytes are not there, or outside the corpus."""
    return await asyncio.to_thread(content_of, file)


async def _peaks(item: int, service: Service, n: int) -> bytes:
    """As JSON."""
    _, file = await known(item, service)
    if file.medium not in ("audio", "video"):
        raise Refusal(404, "no_waveform", "a picture or a text has no waveform; ask for its media")
    return await _small(file, service, decoding.peaks_json, n)


async def _small(file: File, service: Service, work: Callable[..., bytes], *arguments: Any) -> bytes:
    """What was made of the file as it is before, or is made now."""
    content = await content_of_item(file)
    key = (work.__name__, content.path, state_of(content), *arguments)
    if (kept := service.small.get(key)) is not None:
        return kept
    try:
        made = await service.decoders.run(work, content, *arguments)
    except XmrError as error:
        raise bad_file(error, file, service) from None
    service.small.keep(key, made)
    return made


def bad_file(error: XmrError, file: File, service: Service) -> Refusal:
    """Why an indexed file cannot be decoded, told by its path in the corpus."""
    return Refusal(422, "bad_file", service.mistake(error).message.replace(file.path, shown_path(file)))

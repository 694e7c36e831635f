"""/v1/items: one item, the bytes of its file, what shows it, where in it something is; adding and deleting."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response, UploadFile
from fastapi import Path as InPath
from starlette.responses import StreamingResponse

from xmr.engine.catalog import File, Found
from xmr.engine.errors import XmrError
from xmr.engine.index import Index
from xmr.engine.localize import Heat, PictureHeat, as_record, localize
from xmr.engine.media import Content
from xmr.engine.serve import decoding
from xmr.engine.serve.place import Stretch, chunks, content_of, open_content, shown_path, stretch_of
from xmr.engine.serve.refusals import Refusal, no_item
from xmr.engine.serve.replies import WHERE_EXAMPLE, Added, Deleted, Waveform, WhenInSound, WhereInPicture
from xmr.engine.serve.search import Served, links
from xmr.engine.serve.service import Service
from xmr.engine.serve.shapes import LARGEST, MAX_TEXT, REFUSALS, Hit
from xmr.engine.serve.uploads import of_file

router = APIRouter(tags=["items"], responses=REFUSALS)
Id = Annotated[int, InPath(ge=1, le=LARGEST, examples=[17])]

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
PLAIN = "text/plain; charset=utf-8"  # nothing of a corpus is ever shown as a page
PLACES: dict[int | str, Any] = {
    200: {"model": WhereInPicture | WhenInSound, "content": {"application/json": {"example": WHERE_EXAMPLE}}}
}
KEPT = {"Cache-Control": "private, max-age=3600"}


@router.get("/v1/items/{item:int}", response_model=Hit)
async def one(item: Id, service: Served) -> Hit:
    """What is known of an item."""
    found, file = await _known(item, service)
    path = shown_path(file)
    place = links(item, path)
    return Hit(
        folded=None,
        modality=found.modality,
        path=path,
        start_s=found.start_s,
        end_s=found.end_s,
        text=found.text,
        id=item,
        line=found.line,
        metadata=dict(found.metadata),
        media=place["media"],
        thumbnail=place["thumbnail"],
        waveform=place["waveform"],
    )


@router.get("/v1/items/{item:int}/media", response_class=Response)
async def media(item: Id, request: Request, service: Served) -> Response:
    """The bytes of the item's file, or a range of them."""
    _, file = await _known(item, service)
    content = await asyncio.to_thread(content_of, file)
    size = content.n_bytes
    suffix = Path(file.path).suffix.lower()
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": (tag := f'"{file.sha256[:32]}-{size}"'),
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(Path(file.path).name, safe='')}",
        **KEPT,
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    is_same = request.headers.get("if-range", tag) == tag
    stretch = stretch_of(request.headers.get("range"), size) if is_same else None
    if stretch is not None:
        headers["Content-Range"] = f"bytes {stretch.first}-{stretch.last}/{size}"
    whole = Stretch(0, size - 1, size)
    headers["Content-Length"] = str((stretch or whole).n_bytes)
    opened = await asyncio.to_thread(open_content, content)
    body = chunks(opened, stretch or whole)
    return StreamingResponse(body, 200 if stretch is None else 206, headers, TYPES.get(suffix, PLAIN))


@router.get("/v1/items/{item:int}/thumbnail", response_class=Response)
async def thumbnail(
    item: Id, service: Served, size: Annotated[int, Query(ge=16, le=1024, description="Pixels.")] = 256
) -> Response:
    """A small JPEG of a picture, or of the second of a video that the item is."""
    found, file = await _known(item, service)
    if file.medium not in ("image", "video"):
        raise Refusal(404, "no_thumbnail", f"a file of {file.medium} has no small picture; ask for its media")
    key = ("thumbnail", file.sha256, found.start_s, size)
    picture = await _small(key, file, service, decoding.thumbnail, found.start_s, size)
    return Response(picture, headers=KEPT, media_type="image/jpeg")


@router.get("/v1/items/{item:int}/waveform", responses={200: {"model": Waveform}})
async def waveform(
    item: Id, service: Served, peaks: Annotated[int, Query(ge=8, le=4000, description="How many.")] = 400
) -> Response:
    """The lowest and highest sample of each of so many parts of a sound, from -1 to 1, and its seconds."""
    return Response(await _peaks(item, service, peaks), headers=KEPT, media_type="application/json")


@router.get("/v1/items/{item:int}/waveform.png", response_class=Response)
async def waveform_png(
    item: Id, service: Served, width: Annotated[int, Query(ge=8, le=4000, description="Pixels.")] = 400
) -> Response:
    """The waveform of a sound as a picture."""
    found = json.loads(await _peaks(item, service, width))
    picture = await asyncio.to_thread(decoding.waveform_png, found["peaks"])
    return Response(picture, headers=KEPT, media_type="image/png")


@router.get("/v1/items/{item:int}/where", responses=PLACES)
async def where(
    item: Id,
    service: Served,
    text: Annotated[str | None, Query(max_length=MAX_TEXT, examples=["a dog"])] = None,
    query: Annotated[str | None, Query(max_length=MAX_TEXT, description="As text.")] = None,
    by: Annotated[int | None, Query(alias="item", ge=1, le=LARGEST, description="An item to look for.")] = None,
) -> dict[str, Any]:
    """Where in a picture, or when in a sound, something is: a heat map, a point and a box, or seconds."""
    words = text or query
    if (words is None) == (by is None):
        raise Refusal(
            422, "no_question", "what to look for is missing; give text, or the item to look for, one of them"
        )
    found, file = await _known(item, service)
    asked_modality, asked = "text", Content(Path(words or ""))
    if by is not None:
        other, other_file = await _known(by, service)
        asked_modality = other.modality
        if other.text is not None and other.modality == "text":
            words = other.text
        else:
            asked = await asyncio.to_thread(content_of, other_file)
    content = await asyncio.to_thread(content_of, file)
    given: str | Content = words if words is not None else asked
    try:
        heat = await service.looking(_looked_into, service, asked_modality, given, found.modality, content)
    except XmrError as error:
        raise service.mistake(error) from None
    return told(heat)


def told(heat: Heat) -> dict[str, Any]:
    """What is printed of it, and the map itself."""
    values = heat.values.round(4).tolist()
    if isinstance(heat, PictureHeat):
        return as_record(heat) | {"area": [round(side, 1) for side in heat.area], "values": values}
    return as_record(heat) | {"spans_s": heat.spans_s.round(3).tolist(), "values": values}


def _looked_into(service: Service, asked_modality: str, asked: str | Content, modality: str, content: Content) -> Heat:
    """Members of archives lie in files of their own while they are looked into."""
    with tempfile.TemporaryDirectory(prefix="xmr-") as folder:
        query: Any = asked if isinstance(asked, str) else _as_file(asked, Path(folder) / "query")
        return localize(service.model, asked_modality, query, modality, _as_file(content, Path(folder) / "item"))


def _as_file(content: Content, place: Path) -> Path:
    if content.archive is None:
        return content.path
    path = place.with_suffix(content.suffix)
    path.write_bytes(content.read())
    return path


@router.post("/v1/items", status_code=201, response_model=Added)
async def add(file: UploadFile, service: Served) -> dict[str, Any]:
    """Embed a file and take it into the index; only where the server may write."""
    _check_writable(service)
    name = file.filename or ""
    content = await file.read()
    if not content:
        raise Refusal(422, "bad_data", "an empty file found; send one with something in it")
    try:
        return {
            "ids": await service.changes.add(of_file(_kind(name, file.content_type), content, name, file.content_type))
        }
    except XmrError as error:
        raise service.mistake(error) from None


@router.delete("/v1/items/{item:int}", response_model=Deleted)
async def delete(item: Id, service: Served) -> dict[str, Any]:
    """Take an item out of the index; only where the server may write."""
    _check_writable(service)
    try:
        await service.changes.delete(item)
    except XmrError as error:
        raise service.mistake(error) from None
    return {"deleted": item}


def _kind(name: str, mime: str | None) -> str:
    """As what a file that comes without a question is read."""
    from xmr.engine.media import medium_of

    medium = medium_of(Path(name)) or (mime or "").partition("/")[0]
    kinds = {"image": "image", "audio": "sound", "video": "video", "text": "text"}
    if medium not in kinds:
        raise Refusal(422, "bad_file", "neither a picture, sound, video nor text by its name; give it its usual ending")
    return kinds[medium]


def _check_writable(service: Service) -> None:
    if not service.settings.writable:
        raise Refusal(403, "read_only", "this server does not write; start it with --writable")


async def _known(item: int, service: Service) -> tuple[Found, File]:
    def look(index: Index) -> tuple[Found | None, File | None]:
        return index.found([item]).get(item), index.files_of([item]).get(item)

    found, file = await service.lookups.ask(look)
    if found is None or file is None:
        raise no_item(item)
    return found, file


async def _peaks(item: int, service: Service, n: int) -> bytes:
    """As JSON."""
    _, file = await _known(item, service)
    if file.medium not in ("audio", "video"):
        raise Refusal(404, "no_waveform", f"a file of {file.medium} has no waveform; ask for its media")
    return await _small(("peaks", file.sha256, n), file, service, decoding.peaks_json, n)


async def _small(key: tuple[Any, ...], file: File, service: Service, work: Any, *arguments: Any) -> bytes:
    """What was made before, or is made now; the file has to be there either way."""
    content = await asyncio.to_thread(content_of, file)
    if (kept := service.small.get(key)) is not None:
        return kept
    try:
        made: bytes = await service.decoders.run(work, content, *arguments)
    except XmrError as error:
        raise Refusal(422, "bad_file", service.mistake(error).message.replace(file.path, shown_path(file))) from None
    service.small.keep(key, made)
    return made

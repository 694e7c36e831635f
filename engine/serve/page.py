"""The page at /, and the files it is made of: only those that are in the folder when the server starts."""

from pathlib import Path, PurePath

from fastapi import APIRouter, Request, Response

from xmr.engine import serve
from xmr.engine.serve.kept import revalidated
from xmr.engine.serve.refusals import Refusal

router = APIRouter(include_in_schema=False)
WEB = Path(serve.__file__).parents[1] / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}
FILES = {path.name: path.read_bytes() for path in WEB.glob("*") if path.suffix in TYPES}
INDEX = "index.html"


@router.get("/")
async def index(request: Request) -> Response:
    return _file(INDEX, request)


@router.get("/web/{name}")
async def file(name: str, request: Request) -> Response:
    return _file(name, request)


def _file(name: str, request: Request) -> Response:
    if name not in FILES:
        raise Refusal(404, "not_found", "nothing at this address; the page is at /")
    return revalidated(request, FILES[name], TYPES[PurePath(name).suffix])

"""The page at /, and the files it is made of: only those that are in the folder when the server starts."""

from pathlib import Path

from fastapi import APIRouter, Response

from xmr.engine import serve
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
FILES = {path.name: path for path in WEB.glob("*") if path.suffix in TYPES}
INDEX = "index.html"


@router.get("/")
async def index() -> Response:
    return _file(INDEX)


@router.get("/web/{name}")
async def file(name: str) -> Response:
    return _file(name)


def _file(name: str) -> Response:
    if name not in FILES:
        raise Refusal(404, "not_found", "nothing at this address; the page is at /")
    return Response(
        FILES[name].read_bytes(), media_type=TYPES[FILES[name].suffix], headers={"Cache-Control": "no-cache"}
    )

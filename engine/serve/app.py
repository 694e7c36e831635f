"""The application: routes, the guard around them, and what lives as long as they do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from xmr.engine.errors import XmrError
from xmr.engine.serve import about, embeddings, items, knn, page, search, where
from xmr.engine.serve.asking import misshapen
from xmr.engine.serve.guard import Guard
from xmr.engine.serve.openapi import described
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.service import Service
from xmr.engine.serve.settings import Settings

TITLE, VERSION = "xmr", "1"
SAID = {
    400: "the body cannot be read; send what /openapi.json says, in JSON of UTF-8",
    404: "nothing at this address; see /openapi.json for what there is",
    405: "this address takes another method",
}


def make_app(index_folder: Path, model_folder: Path, settings: Settings | None = None) -> FastAPI:
    """What uvicorn runs. Index and model are opened when it starts: XmrError where they cannot, or do not fit."""
    settings = settings or Settings()
    service = Service(Path(index_folder), Path(model_folder), settings)
    # its pages of documentation load scripts from elsewhere; what they show is in /openapi.json
    app = FastAPI(
        title=TITLE,
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        dependencies=[Depends(_check_parameters)],
    )
    app.state.service = service
    for part in (search, embeddings, items, where, knn, about, page):
        app.include_router(part.router)
    app.add_exception_handler(RequestValidationError, _of_shape)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Refusal, _of_refusal)
    app.add_exception_handler(XmrError, _of_mistake)
    app.add_middleware(Guard, settings=settings, measures=service.measures)
    app.openapi = lambda: described(app, settings)  # type: ignore[method-assign]
    _allow_options(app, settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    try:
        await service.start()
        yield
    finally:
        await service.stop()


async def _check_parameters(request: Request) -> None:
    """A misspelt parameter of the API is no wish that is silently not met; the page has parameters of its own."""
    route = request.scope["route"]
    if not route.include_in_schema or not isinstance(route, APIRoute):
        return
    known = {parameter.alias for parameter in route.dependant.query_params}
    if unknown := sorted(request.query_params.keys() - known):
        expected = f"known here: {', '.join(sorted(known))}" if known else "none is known here"
        raise Refusal(422, "bad_shape", f"{unknown[0][:40]!r} is no parameter of this address; {expected}")


def _allow_options(app: FastAPI, settings: Settings) -> None:
    """What browsers ask before a page of another origin may."""
    if not settings.cors:
        return

    @app.options("/{path:path}", include_in_schema=False)
    async def options(path: str) -> Response:
        return Response(status_code=204)


async def _of_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.record, error.status, error.headers)


async def _of_mistake(request: Request, error: Exception) -> Response:
    service: Service = request.app.state.service
    assert isinstance(error, XmrError)
    return await _of_refusal(request, service.mistake(error))


async def _of_shape(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _of_refusal(request, misshapen(error.errors()))


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = SAID.get(error.status_code, "the request cannot be answered")
    code = "not_found" if error.status_code == 404 else "bad_request"
    return JSONResponse(Refusal(error.status_code, code, said).record, error.status_code, error.headers)

"""The application: routes, the guard around them, and what lives as long as they do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from xmr.engine.errors import XmrError
from xmr.engine.serve import about, embeddings, items, knn, page, search, where
from xmr.engine.serve.guard import Guard
from xmr.engine.serve.openapi import described
from xmr.engine.serve.reading import misshapen
from xmr.engine.serve.refusals import FULL, Refusal, disk_full
from xmr.engine.serve.service import Service
from xmr.engine.serve.settings import Settings

TITLE, VERSION = "xmr", "1"
PARTS = (search, embeddings, items, where, knn, about, page)
NOT_FOUND = "nothing at this address; see /openapi.json for what there is"


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
        redirect_slashes=False,
        lifespan=_lifespan,
        dependencies=[Depends(_check_parameters)],
    )
    app.state.service = service
    for part in PARTS:
        app.include_router(part.router)
    app.add_exception_handler(RequestValidationError, _of_shape)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Refusal, _of_refusal)
    app.add_exception_handler(XmrError, _of_mistake)
    app.add_exception_handler(OSError, _of_disk)
    app.add_middleware(Guard, service=service)
    app.openapi = lambda: described(app, settings)  # type: ignore[method-assign]
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


async def _of_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.record, error.status, error.headers)


async def _of_mistake(request: Request, error: Exception) -> Response:
    service: Service = request.app.state.service
    assert isinstance(error, XmrError)
    return await _of_refusal(request, service.mistake(error))


async def _of_shape(request: Request, error: Exception) -> Response:
    """Of a parameter: bodies are read by the routes."""
    assert isinstance(error, RequestValidationError)
    dependant = request.scope["route"].dependant
    parameters = [*dependant.query_params, *dependant.path_params]
    described = {parameter.alias: parameter.field_info.description or "a value" for parameter in parameters}
    problems = [problem | {"loc": problem["loc"][1:]} for problem in error.errors()]
    return await _of_refusal(request, misshapen(problems, described))


async def _of_disk(request: Request, error: Exception) -> Response:
    """A disk that is full is no client's mistake, and told as what it is."""
    assert isinstance(error, OSError)
    if error.errno not in FULL:
        raise error
    return await _of_refusal(request, disk_full())


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return await _of_refusal(request, Refusal(404, "not_found", NOT_FOUND))
    if error.status_code == 405:
        return await _of_refusal(request, _other_method(request))
    return await _of_refusal(request, Refusal(error.status_code, "bad_request", "the request cannot be answered"))


def _other_method(request: Request) -> Refusal:
    """Routes of one address may be several, of a method each."""
    taken: set[str] = set()
    for route in (route for part in PARTS for route in part.router.routes):
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] != Match.NONE:
            taken |= route.methods or set()
    taken |= {"HEAD"} if "GET" in taken else set()
    allowed = ", ".join(sorted(taken))
    said = f"this address takes {allowed}, not {request.method}"
    return Refusal(405, "bad_request", said, {"Allow": allowed})

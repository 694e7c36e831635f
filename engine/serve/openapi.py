"""What /openapi.json tells: the routes as FastAPI knows them, and what it cannot know of them.

That is what the guard refuses before a route sees it, the token, and a question, which comes as JSON or as a form.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from xmr.engine.serve import replies
from xmr.engine.serve.guard import OPEN
from xmr.engine.serve.replies import WHY, ProblemAnswer
from xmr.engine.serve.settings import Settings
from xmr.engine.serve.shapes import EmbeddingsBody, KnnBody, MetadataBody, QuestionBody, SearchBody

SUMMARY = "Search pictures, sounds, videos and texts by each other."
BODIES = (SearchBody, QuestionBody, EmbeddingsBody, KnnBody, MetadataBody)  # which the routes read themselves
OF_NO_ROUTE: Any = [*((body, "validation") for body in BODIES), (ProblemAnswer, "serialization")]
SHAPES = "#/components/schemas/{model}"
GUARDED = (403, 421, 503)
WITH_BODY = (408, 413, 422, 507)
WITH_TOKEN = (401,)
SAID = {  # by status, an example of a refusal
    "400": ("bad_question", "the parts of the question cancel each other out; leave one away or weigh them otherwise"),
    "401": ("no_token", "no token, or a wrong one; send it as Authorization: Bearer TOKEN"),
    "403": ("read_only", "this server does not write; start it with --writable"),
    "404": ("no_item", "no item 17 in this index; take an id that a search gives"),
    "408": ("too_slow", "the request did not come within 20 s; send it faster"),
    "413": ("too_large", "a body of more than 16,000,000 bytes found; send less"),
    "416": ("range", "the range lies behind the end; the file has 17 bytes"),
    "421": ("wrong_host", "this server answers to localhost alone; start it with a token for others"),
    "422": ("bad_shape", "k: 0 found; give a whole number of hits from 1 to 10,000"),
    "503": ("busy", "too many questions are waiting; ask again in a second"),
    "507": ("disk_full", "the server's disk is full; make room on it and ask again"),
}

BYTES = {"schema": {"type": "string", "format": "binary"}}
NOT_MODIFIED = {"description": "The same as the client has, by If-None-Match"}
FILES: dict[str, dict[str, Any]] = {  # answers that are no JSON
    "/v1/items/{item}/media": {
        "200": {"description": "The file", "content": {"*/*": BYTES}},
        "206": {"description": "A range of it", "content": {"*/*": BYTES}},
        "304": NOT_MODIFIED,
        "416": {"description": "A range behind the end"},
    },
    "/v1/items/{item}/thumbnail": {
        "200": {"description": "A small picture", "content": {"image/jpeg": BYTES}},
        "304": NOT_MODIFIED,
    },
    "/v1/items/{item}/waveform": {"304": NOT_MODIFIED},
    "/v1/items/{item}/waveform.png": {
        "200": {"description": "The waveform", "content": {"image/png": BYTES}},
        "304": NOT_MODIFIED,
    },
    "/metrics": {"200": {"description": "Counts", "content": {"text/plain": {"schema": {"type": "string"}}}}},
}


def described(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, summary=SUMMARY, routes=app.routes)
        _, shapes = models_json_schema(OF_NO_ROUTE, ref_template=SHAPES)
        made["components"]["schemas"].update(shapes["$defs"])
        _write_examples(made["components"]["schemas"])
        for path, operation in _operations(made):
            operation["responses"].update(FILES.get(path, {}))
            if path not in OPEN:
                _add_refusals(operation, settings)
        if settings.token is not None:
            _ask_for_a_token(made)
        app.openapi_schema = made
    return app.openapi_schema


def _write_examples(schemas: dict[str, Any]) -> None:
    """FastAPI leaves out of examples what is null, which is there in answers."""
    for name, shape in vars(replies).items():
        if isinstance(shape, type) and issubclass(shape, BaseModel) and name in schemas:
            extra = shape.model_config.get("json_schema_extra")
            if isinstance(extra, dict):
                schemas[name].update(extra)


def _operations(made: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in made["paths"].items():
        for operation in methods.values():
            yield path, operation


def _add_refusals(operation: dict[str, Any], settings: Settings) -> None:
    """Those of the guard, and of all what they look like."""
    told = operation["responses"]
    refused = GUARDED + (WITH_BODY if "requestBody" in operation else ()) + (WITH_TOKEN if settings.token else ())
    for status in refused:
        told.setdefault(str(status), {"description": WHY[status]})
    for status in sorted(told):
        if status >= "400":
            code, message = SAID[status]
            example = {"error": {"message": message, "code": code}}
            shape = {"$ref": SHAPES.format(model=ProblemAnswer.__name__)}
            told[status]["content"] = {"application/json": {"schema": shape, "example": example}}


def _ask_for_a_token(made: dict[str, Any]) -> None:
    made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operation in _operations(made):
        operation["security"] = [] if path in OPEN else [{"token": []}]

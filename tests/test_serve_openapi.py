"""What /openapi.json says of the server is true: of every address, every status, every field."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="schemathesis asks what the OpenAPI allows: xmr[dev]")

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis.checks import positive_data_acceptance
from serving import TOKEN, app_of, listening

from xmr.engine.serve.app import make_app
from xmr.engine.serve.settings import Settings

JSON = "application/json"
MAX_QUERY = 2000  # characters; of some more there is no request, and the connection ends
AN_ITEM, A_DELETED = 3, 5
FEW, MANY = 6, 300  # examples of an operation
NOT_CHECKED = [positive_data_acceptance]  # a sentence may hold no word that the model knows, and a file no picture
QUIET = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)

Operation = dict[str, Any]


@pytest.fixture(scope="module")
def address(finished_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that may write, and asks for no token."""
    world = Path(shutil.copytree(finished_world, tmp_path_factory.mktemp("openapi") / "world"))
    with listening(app_of(world, writable=True)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def api(address: str) -> Any:
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


def told(chosen: Settings) -> dict[str, Any]:
    """The document, without a server."""
    return make_app(Path("index"), Path("model"), chosen).openapi()


def operations(chosen: Settings | None = None) -> list[tuple[str, str, Operation]]:
    document = told(chosen or Settings(token=TOKEN, writable=True))
    return [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]


NAMED = [pytest.param(path, method, id=f"{method} {path}") for path, method, _ in operations()]
MODES = [
    pytest.param(path, method, mode, id=f"{mode} {method} {path}")
    for path, method, operation in operations()
    for mode in ("positive", "negative")
    if mode == "positive" or operation.keys() & {"parameters", "requestBody"}  # nothing else could be wrong with it
]


@pytest.mark.parametrize("n_examples", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
@pytest.mark.parametrize(("path", "method", "mode"), MODES)
def test_an_operation_answers_as_it_says(api: Any, path: str, method: str, mode: str, n_examples: int) -> None:
    """Statuses, kinds and shapes of answers as they are told, never 5xx; what is told to be wrong is refused."""
    known = {"item": A_DELETED if method == "delete" else AN_ITEM} if mode == "positive" and "{item}" in path else None
    cases = api[path][method].as_strategy(schemathesis.GenerationMode(mode), path_parameters=known)
    parameters = api[path][method].definition.raw.get("parameters", [])
    queries = {one["name"] for one in parameters if one["in"] == "query"}

    @settings(QUIET, max_examples=n_examples)
    @given(case=cases)
    def check(case: Any) -> None:
        assume(set(case.query or {}) <= queries and len(str(case.query)) < MAX_QUERY)  # of others is another test
        case.call_and_validate(excluded_checks=NOT_CHECKED)

    check()


@pytest.mark.parametrize("chosen", [Settings(), Settings(token=TOKEN, writable=True)], ids=["plain", "with a token"])
def test_the_description_follows_the_specification(chosen: Settings) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="it knows the specification: xmr[dev]")
    validator.validate(told(chosen))


def test_only_a_server_with_a_token_tells_of_one() -> None:
    assert "securitySchemes" not in told(Settings())["components"]
    assert not any("401" in operation["responses"] for _, _, operation in operations(Settings()))
    for path, _, operation in operations():
        is_open = path == "/healthz"
        assert operation["security"] == ([] if is_open else [{"token": []}])
        assert ("401" in operation["responses"]) != is_open


@pytest.mark.parametrize(("path", "method"), NAMED)
def test_an_operation_is_told_whole(path: str, method: str) -> None:
    """A summary, an answer of a named shape with an example, refusals of one shape."""
    shapes = told(Settings())["components"]["schemas"]
    [operation] = [one for *name, one in operations() if name == [path, method]]
    assert operation["summary"]
    assert operation["description"].endswith(".")
    for status, answer in operation["responses"].items():
        assert status == "304" or answer["content"]
        for kind, content in answer.get("content", {}).items():
            if int(status) >= 400:
                assert (kind, content["schema"]) == (JSON, {"$ref": "#/components/schemas/ProblemAnswer"})
            if kind == JSON:
                named = content["schema"].get("items", content["schema"]).get("$ref", "").rpartition("/")[2]
                assert "example" in content or "example" in shapes[named], status


def test_the_examples_of_requests_are_answered(address: str) -> None:
    asked = {}
    for path, _, operation in operations():
        of_json = operation.get("requestBody", {}).get("content", {}).get(JSON, {})
        for name, example in of_json.get("examples", {}).items():
            place = address + path.replace("{item}", str(AN_ITEM))
            asked[path, name] = httpx.post(place, json=example["value"])
    assert {path for path, _ in asked} >= {"/v1/search", "/v1/embeddings", "/knn-service", "/metadata"}
    refused = {name: answered.text for name, answered in asked.items() if answered.status_code != 200}
    assert not [name for name in refused if "{item}" not in name[0]], refused  # this model keeps no maps


def test_examples_are_of_the_shapes_that_they_stand_beside() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema holds examples against their shapes")
    document = told(Settings(token=TOKEN, writable=True))
    n_examples = 0
    for name, shape in document["components"]["schemas"].items():
        if "example" in shape:
            n_examples += 1
            jsonschema.validate(shape["example"], document | {"$ref": f"#/components/schemas/{name}"})
    for _, _, operation in operations():
        for answer in operation["responses"].values():
            for content in answer.get("content", {}).values():
                if "example" in content:
                    n_examples += 1
                    jsonschema.validate(content["example"], document | content["schema"])
    assert n_examples > 50


def test_the_example_of_a_place_is_one() -> None:
    [content] = [
        operation["responses"]["200"]["content"][JSON]
        for path, method, operation in operations()
        if (path, method) == ("/v1/items/{item}/where", "get")
    ]
    place = content["example"]
    for (left, top, width, height), x, y in ((place[of], *place["point"]) for of in ("box", "area")):
        assert left <= x <= left + width
        assert top <= y <= top + height

"""How much a client may ask at once: each limit answers with one sentence, and the server goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import TestClient, client_of

from xmr.engine.serve import guard

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def opened(finished_world: Path) -> Iterator[TestClient]:
    with client_of(finished_world) as client:
        yield client


@pytest.fixture
def client(opened: TestClient) -> Iterator[TestClient]:
    """It answers afterwards as before."""
    yield opened
    assert opened.post("/v1/search", json={"text": "a dog", "k": 1}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search", {"text": "a", "k": 10_001}),
        ("/v1/search", {"text": "a", "k": 0}),
        ("/v1/search", {"text": "a", "k": -1}),
        ("/v1/search", {"text": "a", "k": 1e400}),
        ("/v1/search", {"text": "a", "k": 10**400}),
        ("/v1/search", {"text": "a", "k": 1.5}),
        ("/v1/search", {"text": "a", "k": "10"}),
        ("/v1/search", {"text": "a", "k": True}),
        ("/v1/search", {"text": "a", "offset": 10**9}),
        ("/v1/search", {"text": ["a"] * 257}),
        ("/v1/search", {"like": [1] * 257}),
        ("/v1/search", {"text": ["a"] * 200, "minus_text": ["a"] * 200}),
        ("/v1/search", {"text": "a" * 20_001}),
        ("/v1/search", {"text": "a", "weights": {"text": -1}}),
        ("/v1/search", {"image": {"vector": [float("nan")] * 16}}),
        ("/v1/search", {"image": {"vector": [float("inf")] * 16}}),
        ("/v1/search", {"image": {"vector": [0.0] * 16}}),
        ("/v1/search", {"image": {"vector": [1.0] * 100_000}}),
        ("/v1/search", {"image": {"vector": []}}),
        ("/v1/search", {"like": [2**64]}),
        ("/v1/search", {"text": "a", "min_score": float("nan")}),
        ("/v1/search", {"text": "a", "unknown": 1}),
        ("/v1/search", {}),
        ("/v1/search", []),
        ("/v1/embeddings", {"input": ["a"] * 257}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": "a", "dimensions": 10**30}),
        ("/knn-service", {"text": "a", "num_images": 10_001}),
        ("/metadata", {"ids": list(range(300))}),
    ],
    ids=lambda value: json.dumps(value)[:40] if not isinstance(value, str) else value,
)
def test_more_than_may_be_asked_is_refused(client: TestClient, path: str, body: object) -> None:
    answered = client.post(path, content=json.dumps(body), headers=JSON)
    assert answered.status_code == 422, answered.text
    assert set(answered.json()["error"]) == {"message", "code"}
    assert len(answered.text) < 1000  # what was sent does not come back


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"text":' * 50_000,
        b'{"text": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b'{"k": ' + b"9" * 100_000 + b"}",
        b'{"text": "\xff\xfe"}',
        b'{"text": "\\ud800"}',
        b"",
        b"null",
        b"{",
    ],
    ids=lambda content: repr(content[:24]),
)
def test_json_that_is_made_to_break_a_reader_is_refused(client: TestClient, content: bytes) -> None:
    for path in ("/v1/search", "/v1/embeddings", "/knn-service", "/metadata"):
        answered = client.post(path, content=content, headers=JSON)
        assert answered.status_code in (400, 422), (path, answered.text)
        assert "; " in answered.json()["error"]["message"]  # what to do
        assert len(answered.text) < 1000


def form(parts: list[bytes]) -> bytes:
    return b"".join(b"--b\r\n" + part for part in parts) + b"--b--\r\n"


def field(name: bytes, content: bytes, more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    "content",
    [
        form([field(b"text", b"a")] * 5000),
        form([field(b"image", b"x", b'; filename="a.jpg"')] * 500),
        form([field(b"text", b"a" * 5_000_000)]),
        form([field(b"x" * 200_000, b"a")]),
        form([b"X: " + b"y" * 200_000 + b"\r\n" + field(b"text", b"a")]),
        form([b"".join(b"X%d: y\r\n" % number for number in range(20_000)) + field(b"text", b"a")]),
        b"--b\r\n" * 100_000,
        b"no form at all",
        form([field(b"text", b"a")])[:-10],
        form([field(b"weights", b"[" * 100_000), field(b"text", b"a")]),
    ],
    ids=["fields", "files", "field", "name", "header", "headers", "borders", "none", "cut", "nested"],
)
def test_forms_that_are_made_to_break_a_reader_are_refused(client: TestClient, content: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answered = client.post("/v1/search", content=content, headers=headers)
    assert answered.status_code in (400, 413, 422), answered.text
    assert set(answered.json()["error"]) == {"message", "code"}
    assert len(answered.text) < 1000


@pytest.mark.parametrize(
    "path", ["/v1/items/1?" + "a=b&" * 10_000, "/?" + "token=" * 10_000, "/v1/items/" + "9" * 5000]
)
def test_long_addresses_do_no_harm(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (200, 404, 414, 422)


@pytest.mark.parametrize(
    "address", ["/v1/info?verbose=1", "/v1/items/1?colour=red", "/v1/items/1/thumbnail?siez=64", "/v1/search?k=5"]
)
def test_a_parameter_that_is_not_known_is_named(client: TestClient, address: str) -> None:
    answered = client.post(address, json={"text": "a dog"}) if "search" in address else client.get(address)
    name = address.partition("?")[2].partition("=")[0]
    assert answered.status_code == 422
    assert answered.json()["error"]["message"].startswith(f"'{name}' is no parameter")


def test_bodies_that_are_held_at_once_have_an_end(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_BODIES", 0.0001)
    body = json.dumps({"text": "a" * 5000}).encode()
    answered = client.post("/v1/search", content=body, headers=JSON)
    assert (answered.status_code, answered.json()["error"]["code"]) == (503, "busy")
    for _ in range(10):  # what was answered is held no longer
        assert client.post("/v1/search", json={"text": "a dog " * 150}).status_code == 200


def test_a_body_of_more_than_sixteen_megabytes_is_refused(client: TestClient) -> None:
    body = b'{"text": "' + b"a" * 16_000_001 + b'"}'
    assert client.post("/v1/search", content=body, headers=JSON).status_code == 413

"""What a request may hold, and the sentence where it holds something else: what was found, and what to give."""

import base64
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server's packages are not installed: xmr[serve]")
pytest.importorskip("httpx", reason="httpx asks the server in tests")

from fastapi.testclient import TestClient
from serving import client_of

from xmr.engine.serve.reading import MAX_VALUES

LONG_NAME = "texts" * 20_000


@pytest.fixture(scope="module")
def client(finished_world: Path) -> Iterator[TestClient]:
    with client_of(finished_world) as opened:
        yield opened


def refused(client: TestClient, path: str, body: object) -> tuple[int, str]:
    answered = client.post(path, content=json.dumps(body))
    return answered.status_code, answered.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": ["a"] * 257}, "text: a list of 257 found; give a sentence of"),
        ({"text": 5}, "text: 5 found; give a sentence of"),
        ({"to": "video", "text": "a"}, "to: 'video' found; give image, sound, speech or text, or a list"),
        ({"to": [], "text": "a"}, "to: a list of 0 found; give image, sound, speech or text, or a list"),
        ({"to": ["image", "smell"], "text": "a"}, "to.1: 'smell' found; give image"),
        ({"like": ["1"]}, "like.0: '1' found; give the id of an item"),
        ({"image": {"vector": "x"}}, "image.vector: 'x' found; give a data: URI"),
        ({"image": {"colour": 1}}, "image: an object found; give a data: URI"),
        ({"k": 0, "text": "a"}, "k: 0 found; give a whole number of hits from 1 to 10,000"),
        ({"limit": 2, "text": "a"}, "no field 'limit' here; did you mean k; there are fold"),
        ({"image": [{"item": 1}, {"vector": [1, 2]}]}, "image 2: a vector of 2 numbers found; give one of"),
        ({"text": "a", "weights": {"text": 0}}, "weights: 0 found for every part; give one of them more"),
        ({"txet": "a"}, "no field 'txet' here; did you mean text; there are fold"),
        ({"text": "a", "k": "x" * 100}, "k: a text of 100 characters found"),
        ({"text": "a", "weights": {"minus-text": 1}}, "weights: 'minus-text' found, which is no part of this question"),
        ({"text": ["a", "b"], "weights": {"text": [1]}}, "weights: 1 found for 2 of text; give one number, or one for"),
        ([1], "the body: a list of 1 found; give an object"),
        ({str(number): 1 for number in range(10_000)}, "no field '0' here"),
        ({"text": "a", "weights": {str(number): 1 for number in range(10_000)}}, "weights: an object found; give"),
        ({"image": {"vector": [0.5] * (MAX_VALUES + 2)}}, "more than 100,000 values found"),
    ],
)
def test_a_question_of_another_shape_is_told_what_was_found(client: TestClient, body: object, said: str) -> None:
    status, message = refused(client, "/v1/search", body)
    assert status == 422
    assert message.startswith(said)
    assert len(message) < 400


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/embeddings", {"input": "a", "modalty": "image"}, "no field 'modalty' here; did you mean modality"),
        ("/v1/embeddings", {"input": []}, "input: a list of 0 found; give a sentence"),
        ("/v1/embeddings", {}, "input is missing; give a sentence"),
        ("/v1/embeddings", {"input": "data:image/png;base64,AA"}, "input: a file found where sentences are embedded"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format: 'hex' found; give float"),
        ("/knn-service", {"text": "a", "modality": "video"}, "modality: 'video' found; give image"),
        (
            "/knn-service",
            {"image_url": "ftp://example.org/a.png"},
            "image_url: 'ftp://example.org/a.png' found; give a URL",
        ),
        ("/knn-service", {"embedding_input": [1, 2]}, "embedding_input: a vector of 2 numbers found"),
        ("/metadata", {"ids": ["a"]}, "ids.0: 'a' found; give a list"),
    ],
)
def test_other_routes_tell_it_in_the_same_way(client: TestClient, path: str, body: object, said: str) -> None:
    status, message = refused(client, path, body)
    assert status == 422
    assert message.startswith(said)


@pytest.mark.parametrize("path", ["/v1/search", "/v1/embeddings", "/knn-service", "/metadata", "/v1/items/1/where"])
@pytest.mark.parametrize("content", [b"", b"{", b'{"text": "\xff"}'])
def test_what_is_no_json_is_refused_everywhere_alike(client: TestClient, path: str, content: bytes) -> None:
    answered = client.post(path, content=content)
    assert (answered.status_code, answered.json()["error"]["code"]) == (422, "bad_json")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_json_is_read_whatever_it_is_called(client: TestClient, content_type: str | None) -> None:
    """clip-retrieval's client sets no Content-Type."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps({"text": "a dog", "modality": "image", "num_images": 1, "num_result_ids": 3, "use_mclip": False})
    assert len(client.post("/knn-service", content=body, headers=headers).json()) == 3
    embedded = client.post("/v1/embeddings", content=b'{"input": "a dog"}', headers=headers)
    assert embedded.status_code == 200


def test_a_condition_speaks_of_the_paths_that_hits_show(client: TestClient, finished_world: Path) -> None:
    hits = client.post("/v1/search", json={"text": "a dog", "k": 500}).json()["hits"]
    for path in sorted({hit["path"] for hit in hits})[:20]:
        question = {"text": "a dog", "k": 500, "where": f"path = '{path}'"}
        found = client.post("/v1/search", json=question).json()["hits"]
        assert {hit["path"] for hit in found} == {path}
    outside = {"text": "a dog", "where": f"path LIKE '{finished_world.parts[0]}%'"}
    assert client.post("/v1/search", json=outside).json()["hits"] == []


def test_modalities_are_listed_as_on_the_command_line(client: TestClient) -> None:
    listed = client.post("/v1/search", json={"text": "a dog", "to": ["image", "sound"]}).json()["hits"]
    assert client.post("/v1/search", json={"text": "a dog", "to": "image,sound"}).json()["hits"] == listed


def test_a_modality_of_which_nothing_is_indexed_has_no_hits(client: TestClient) -> None:
    """The answer to a program does not become a refusal as the last one is deleted."""
    answered = client.post("/v1/search", json={"text": "a dog", "to": ["speech"]})
    assert (answered.status_code, answered.json()["hits"]) == (200, [])


def test_one_weight_is_for_all_of_its_name(client: TestClient) -> None:
    one, each = (
        client.post("/v1/search", json={"text": ["a dog", "rain"], "minus_text": "a bell", "weights": weights}).json()
        for weights in ({"text": 0.5}, {"text": [0.5, 0.5]})
    )
    assert one["hits"] == each["hits"]


def test_a_file_that_cannot_be_read_is_named_by_its_part(client: TestClient, finished_world: Path) -> None:
    [picture, *_] = sorted((finished_world / "corpus").rglob("*.jpg"))
    broken = "data:image/png;base64,AAAA"
    good = f"data:image/jpeg;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    told = [
        refused(client, "/v1/search", {"image": broken}),
        refused(client, "/v1/search", {"image": [good, broken]}),
        refused(client, "/v1/embeddings", {"modality": "image", "input": [good, good, broken]}),
    ]
    assert [status for status, _ in told] == [422] * 3
    names = [message.partition(": no image that Pillow can read")[0] for _, message in told]
    assert names == ["image", "image 2", "input 3"]


@pytest.mark.parametrize("name", ["image", "minus_image"])
def test_an_empty_file_is_named_by_its_part(client: TestClient, finished_world: Path, name: str) -> None:
    [picture, *_] = sorted((finished_world / "corpus").rglob("*.jpg"))
    good = f"data:image/jpeg;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    status, message = refused(client, "/v1/search", {"text": "a dog", name: [good, "data:image/png;base64,"]})
    assert (status, message.partition(" found")[0]) == (422, f"{name} 2: an empty file")
    answered = client.post("/v1/search", files={name: ("a.png", b"")})
    assert answered.json()["error"]["message"].startswith(f"{name}: an empty file found")


@pytest.mark.parametrize("body", [{LONG_NAME: 1}, {"text": "a dog", "weights": {LONG_NAME: 1}}])
def test_a_name_as_long_as_a_book_is_compared_with_none(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, body: object
) -> None:
    compared: list[str] = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda name, *_: compared.append(name) or [])
    status, message = refused(client, "/v1/search", body)
    assert (status, "a text of 100,000 characters" in message) == (422, True), message
    assert not compared


@pytest.mark.parametrize(
    "written",
    [
        lambda content: "DATA:image/jpeg;BASE64," + base64.b64encode(content).decode(),
        lambda content: "data:image/jpeg;base64," + base64.encodebytes(content).decode(),  # in lines
        lambda content: "data:image/jpeg;base64," + base64.b64encode(content).decode().rstrip("="),
        lambda content: "data:image/jpeg;base64," + base64.urlsafe_b64encode(content).decode(),
        lambda content: (
            "data:image/jpeg;base64," + base64.b64encode(content).decode().replace("+", "%2B").replace("=", "%3d")
        ),
        lambda content: "data:image/jpeg;base64," + base64.encodebytes(content).decode().replace("\n", "%0D%0a"),
    ],
)
def test_data_addresses_are_read_as_they_are_written_elsewhere(
    client: TestClient, finished_world: Path, written: Any
) -> None:
    [picture, *_] = sorted((finished_world / "corpus").rglob("*.jpg"))
    expected = f"data:image/jpeg;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    hits = client.post("/v1/search", json={"image": expected}).json()["hits"]
    assert client.post("/v1/search", json={"image": written(picture.read_bytes())}).json()["hits"] == hits


def test_a_method_that_is_not_taken_is_told_with_those_that_are(client: TestClient) -> None:
    for path, allowed in (
        ("/v1/items/1", "DELETE, GET, HEAD"),
        ("/v1/items/1/media", "GET, HEAD"),
        ("/knn-service", "POST"),
    ):
        answered = client.put(path)
        assert (answered.status_code, answered.headers["allow"]) == (405, allowed)
        assert f"takes {allowed}, not PUT" in answered.json()["error"]["message"]


def test_links_are_of_https_behind_a_proxy_that_speaks_it(client: TestClient) -> None:
    body = b'{"text": "a dog", "num_images": 1}'
    [plain] = client.post("/knn-service", content=body).json()
    [secure] = client.post("/knn-service", content=body, headers={"X-Forwarded-Proto": "https"}).json()
    assert plain["url"].startswith("http://127.0.0.1/v1/items/")
    assert secure["url"] == plain["url"].replace("http:", "https:")


def test_where_takes_no_wishes_for_hits(client: TestClient) -> None:
    status, message = refused(client, "/v1/items/1/where", {"text": "a dog", "k": 3})
    assert (status, message.partition(",")[0]) == (422, "no field 'k' here; there are image")
    assert "min_score" not in message
    answered = client.get("/v1/items/1/where", params={"text": "a", "like": 1})
    assert "give one of them" in answered.json()["error"]["message"]

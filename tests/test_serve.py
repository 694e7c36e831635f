"""The server: questions of every kind, items and their files, and what clip-retrieval's clients ask."""

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving import TestClient, client_of

from xmr.engine.index import Index
from xmr.engine.model import Model


@pytest.fixture(scope="module")
def client(finished_world: Path) -> Iterator[TestClient]:
    with client_of(finished_world) as opened:
        yield opened


def hits_of(client: TestClient, question: dict[str, object]) -> list[dict[str, object]]:
    answered = client.post("/v1/search", json=question)
    assert answered.status_code == 200, answered.text
    hits: list[dict[str, object]] = answered.json()["hits"]
    return hits


def first_hit(client: TestClient, modality: str) -> dict[str, object]:
    return hits_of(client, {"text": "a dog", "to": [modality], "k": 1})[0]


def picture_of(world: Path) -> Path:
    return next((world / "corpus").rglob("*.jpg"))


def sound_of(world: Path) -> Path:
    return next(path for path in (world / "corpus").rglob("*") if path.suffix in (".wav", ".flac"))


def as_data(path: Path, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


def test_a_sentence_is_answered_as_the_index_answers_it(client: TestClient, finished_world: Path) -> None:
    index = Index.open(finished_world / ".xmr" / "index")
    vector = Model.open(finished_world / ".xmr" / "model").embed("text", ["a dog"])
    expected = [hit.id for hit in index.search(vector, 5, to="sound")]
    index.close()
    assert [hit["id"] for hit in hits_of(client, {"text": "a dog", "to": ["sound"], "k": 5})] == expected


def test_paths_are_relative_to_the_corpus(client: TestClient, finished_world: Path) -> None:
    for hit in hits_of(client, {"text": "a dog", "k": 50}):
        assert (finished_world / "corpus" / str(hit["path"])).is_file()


def test_an_item_finds_itself_first(client: TestClient) -> None:
    item = first_hit(client, "image")["id"]
    for question in ({"like": [item]}, {"image": {"item": item}}, {"image": [{"item": item}]}):
        assert hits_of(client, question | {"to": ["image"], "k": 1})[0]["id"] == item


def test_a_picture_comes_as_data_or_as_upload(client: TestClient, finished_world: Path) -> None:
    picture = picture_of(finished_world)
    by_data = hits_of(client, {"image": as_data(picture, "image/jpeg"), "to": ["image"], "k": 3})
    fields = {"to": '["image"]', "k": "3"}
    by_form = client.post("/v1/search", data=fields, files={"image": picture.open("rb")}).json()["hits"]
    assert [hit["id"] for hit in by_data] == [hit["id"] for hit in by_form]
    assert by_data[0]["path"] == str(picture.relative_to(finished_world / "corpus"))


def test_a_sound_is_asked_with(client: TestClient, finished_world: Path) -> None:
    sound = sound_of(finished_world)
    [hit] = hits_of(client, {"sound": [as_data(sound, "audio/wav")], "to": ["sound"], "k": 1})
    assert hit["path"] == str(sound.relative_to(finished_world / "corpus"))


def test_a_vector_needs_no_unit_length(client: TestClient) -> None:
    row = client.post("/v1/embeddings", json={"input": "a dog"}).json()["data"][0]["embedding"]
    by_vector = hits_of(client, {"text": "a dog", "k": 4})
    tripled = hits_of(client, {"image": {"vector": [3 * number for number in row]}, "k": 4})
    assert [hit["id"] for hit in by_vector] == [hit["id"] for hit in tripled]


def test_parts_are_weighed(client: TestClient) -> None:
    item = first_hit(client, "image")["id"]
    question = {"like": [item], "text": ["a siren"], "weights": {"text": 0.0}, "to": ["image"], "k": 3}
    assert hits_of(client, question) == hits_of(client, {"like": [item], "to": ["image"], "k": 3})


def test_pages_follow_each_other(client: TestClient) -> None:
    both = hits_of(client, {"text": "a dog", "k": 6})
    second = hits_of(client, {"text": "a dog", "k": 3, "offset": 3})
    assert second == both[3:]
    assert [hit["rank"] for hit in second] == [4, 5, 6]


def test_many_at_once_are_answered_as_one_by_one(client: TestClient) -> None:
    words = ["a dog", "a bell", "rain", "a siren"] * 6
    alone = {text: hits_of(client, {"text": text, "k": 5}) for text in set(words)}
    together: dict[int, list[dict[str, object]]] = {}

    def ask(number: int) -> None:
        together[number] = hits_of(client, {"text": words[number], "k": 5})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(words))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, text in enumerate(words):
        assert [hit["id"] for hit in together[number]] == [hit["id"] for hit in alone[text]]


def test_one_bad_question_leaves_its_batch_alone(client: TestClient) -> None:
    answers: dict[str, int] = {}

    def ask(text: str) -> None:
        answers[text] = client.post("/v1/search", json={"text": text}).status_code

    threads = [threading.Thread(target=ask, args=(text,)) for text in ("a dog", "qqzzxx", "rain")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {"a dog": 200, "qqzzxx": 400, "rain": 200}


def test_changes_of_the_index_are_seen_without_a_restart(world: Path) -> None:
    with client_of(world) as client:
        before = client.post("/v1/search", json={"text": "a dog", "k": 1}).json()
        index = Index.open(world / ".xmr" / "index")
        index.delete([before["hits"][0]["id"]])
        index.close()
        after = client.post("/v1/search", json={"text": "a dog", "k": 1}).json()
        assert after["hits"][0]["id"] != before["hits"][0]["id"]
        assert after["version"] != before["version"]


@pytest.mark.parametrize(
    ("question", "status", "code"),
    [
        ({}, 422, "no_question"),
        ({"text": "a dog", "k": 10_001}, 422, "bad_shape"),
        ({"text": "a dog", "k": 0}, 422, "bad_shape"),
        ({"text": ["a dog"] * 257}, 422, "bad_shape"),
        ({"text": ["a dog"] * 200, "minus_text": ["rain"] * 57}, 422, "too_many"),
        ({"text": "a dog", "colour": "red"}, 422, "bad_shape"),
        ({"text": "a dog", "to": ["smell"]}, 422, "bad_shape"),
        ({"text": "a dog", "where": "1; DROP TABLE items"}, 400, "bad_question"),
        ({"text": "a dog", "minus_text": "a dog"}, 400, "bad_question"),
        ({"like": [999_999]}, 404, "no_item"),
        ({"image": "data:image/png;base64,@@"}, 422, "bad_data"),
        ({"image": "data:image/png;base64,AAAA"}, 422, "bad_file"),
        ({"image": "/etc/passwd"}, 422, "bad_data"),
        ({"image": {"vector": [1.0]}}, 422, "bad_vector"),
        ({"text": "a dog", "weights": {"text": [1, 2]}}, 422, "bad_shape"),
    ],
)
def test_a_refusal_is_one_sentence(client: TestClient, question: dict[str, object], status: int, code: str) -> None:
    answered = client.post("/v1/search", json=question)
    assert (answered.status_code, answered.json()["error"]["code"]) == (status, code), answered.text
    assert "/tmp" not in answered.text
    assert "Traceback" not in answered.text


def test_what_is_no_json_is_refused(client: TestClient) -> None:
    assert client.post("/v1/search", content=b"{").status_code == 422
    assert client.post("/v1/search", content=b"[" * 100_000).status_code == 422


def test_an_item_is_told_with_its_links(client: TestClient) -> None:
    hit = first_hit(client, "image")
    told = client.get(f"/v1/items/{hit['id']}").json()
    assert {key: told[key] for key in ("id", "path", "modality")} == {
        key: hit[key] for key in ("id", "path", "modality")
    }
    assert client.get("/v1/items/999999").status_code == 404


def test_media_come_whole_and_in_ranges(client: TestClient, finished_world: Path) -> None:
    hit = first_hit(client, "sound")
    content = (finished_world / "corpus" / str(hit["path"])).read_bytes()
    whole = client.get(str(hit["media"]))
    assert whole.content == content
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = client.get(str(hit["media"]), headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert client.get(str(hit["media"]), headers={"Range": "bytes=-5"}).content == content[-5:]
    assert client.get(str(hit["media"]), headers={"Range": f"bytes={len(content)}-"}).status_code == 416
    assert client.get(str(hit["media"]), headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_thumbnails_are_small_and_waveforms_have_their_seconds(client: TestClient) -> None:
    import io

    from PIL import Image

    picture, sound = first_hit(client, "image"), first_hit(client, "sound")
    made = client.get(f"{picture['thumbnail']}?size=24")
    assert max(Image.open(io.BytesIO(made.content)).size) == 24
    wave = client.get(f"{sound['waveform']}?peaks=50").json()
    assert len(wave["peaks"]) == 50
    assert wave["duration_s"] > 0
    assert all(-1 <= low <= high <= 1 for low, high in wave["peaks"])
    drawn = client.get(f"/v1/items/{sound['id']}/waveform.png?width=80")
    assert Image.open(io.BytesIO(drawn.content)).width == 80
    assert client.get(f"/v1/items/{sound['id']}/thumbnail").status_code == 404


def test_where_tells_a_point_in_a_picture(client: TestClient) -> None:
    item = first_hit(client, "image")["id"]
    found = client.get(f"/v1/items/{item}/where", params={"text": "a dog"}).json()
    assert all(0 <= place < size for place, size in zip(found["point"], found["size"], strict=True))
    assert client.get(f"/v1/items/{item}/where").status_code == 422


def test_embeddings_have_the_shape_of_openai(client: TestClient, finished_world: Path) -> None:
    model = Model.open(finished_world / ".xmr" / "model")
    rows = model.embed("text", ["a dog", "rain"])
    answered = client.post("/v1/embeddings", json={"input": ["a dog", "rain"], "model": "xmr"}).json()
    assert [entry["index"] for entry in answered["data"]] == [0, 1]
    np.testing.assert_allclose([entry["embedding"] for entry in answered["data"]], rows, atol=1e-5)
    packed = client.post("/v1/embeddings", json={"input": "rain", "encoding_format": "base64"}).json()
    unpacked = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_allclose(unpacked, rows[1], atol=1e-5)
    picture = as_data(picture_of(finished_world), "image/jpeg")
    seen = client.post("/v1/embeddings", json={"input": picture, "modality": "image"})
    assert len(seen.json()["data"][0]["embedding"]) == model.dim
    assert client.post("/v1/embeddings", json={"input": ["a dog"] * 257}).status_code == 422


def test_clients_of_clip_retrieval_are_answered(client: TestClient, finished_world: Path) -> None:
    question = {"text": "a dog", "modality": "image", "num_images": 3, "indice_name": "xmr", "use_mclip": False}
    found = client.post("/knn-service", json=question).json()
    assert [entry["id"] for entry in found] == [
        hit["id"] for hit in hits_of(client, {"text": "a dog", "to": ["image"], "k": 3})
    ]
    assert {"id", "similarity", "url", "caption"} <= set(found[0])
    encoded = base64.b64encode(picture_of(finished_world).read_bytes()).decode()
    by_picture = client.post("/knn-service", json={"image": encoded, "modality": "image", "num_images": 1})
    assert by_picture.json()[0]["similarity"] == pytest.approx(1, abs=1e-3)
    told = client.post("/metadata", json={"ids": [found[0]["id"], 999_999], "indice_name": "xmr"}).json()
    assert [entry["id"] for entry in told] == [found[0]["id"]]
    assert client.get("/indices-list").json() == ["xmr"]


def test_the_server_tells_what_it_is(client: TestClient) -> None:
    told = client.get("/v1/info").json()
    assert told["counts"]["image"] > 0
    assert told["writable"] is False
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    assert 'xmr_requests_total{route="/v1/info",status="200"}' in client.get("/metrics").text


def test_openapi_has_examples_and_every_reference_leads_somewhere(client: TestClient) -> None:
    told = client.get("/openapi.json").json()
    text = json.dumps(told)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(told["components"]["schemas"])
    assert told["paths"]["/v1/search"]["post"]["requestBody"]["content"]["application/json"]["examples"]


def test_items_are_added_and_deleted_where_the_server_may_write(world: Path) -> None:
    picture = world / "new.jpg"
    shutil.copy(picture_of(world), picture)
    picture.write_bytes(picture.read_bytes() + b"another end")
    with client_of(world, writable=True) as client:
        added = client.post("/v1/items", files={"file": ("../../new.jpg", picture.open("rb"))})
        assert added.status_code == 201, added.text
        [item] = added.json()["ids"]
        path = str(client.get(f"/v1/items/{item}").json()["path"])
        assert "/" not in path
        assert client.get(f"/v1/items/{item}/media").content == picture.read_bytes()
        assert client.delete(f"/v1/items/{item}").status_code == 200
        assert client.get(f"/v1/items/{item}").status_code == 404
        assert client.post("/v1/items", files={"file": ("a.jpg", b"no picture")}).status_code == 422


def test_nothing_is_written_by_default(client: TestClient) -> None:
    item = first_hit(client, "image")["id"]
    assert client.delete(f"/v1/items/{item}").status_code == 403
    assert client.post("/v1/items", files={"file": ("a.jpg", b"x")}).status_code == 403

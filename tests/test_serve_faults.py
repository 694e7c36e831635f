"""What fails on the server's side: told as that, to clients and in the log, and over when it is mended."""

import asyncio
import contextlib
import errno
import logging
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server's packages are not installed: xmr[serve]")
pytest.importorskip("httpx", reason="httpx asks the server in tests")

from fastapi.testclient import TestClient
from serving import client_of

from xmr.engine.serve import answering
from xmr.engine.serve.changes import Changes, plain_stem
from xmr.engine.serve.decoders import Decoders
from xmr.engine.serve.service import Service
from xmr.engine.serve.uploads import Upload

ASKED = {"text": "a dog", "k": 1}


@pytest.fixture
def client(world: Path) -> Iterator[TestClient]:
    with client_of(world, writable=True) as opened:
        yield opened


def told(answered: Any) -> tuple[int, str]:
    return answered.status_code, answered.json().get("error", {}).get("code", "")


def test_an_index_that_is_gone_is_no_clients_mistake(
    client: TestClient, world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = world / ".xmr" / "index"
    assert client.get("/readyz").status_code == 200
    folder.rename(folder.with_name("away"))
    picture = next((world / "corpus").rglob("*.jpg"))
    with caplog.at_level(logging.ERROR, "xmr.serve"):
        answers = [
            client.post("/v1/search", json=ASKED),
            client.get("/readyz"),
            client.get("/v1/info"),
            client.get("/v1/items/1"),
            client.post("/v1/items", files={"file": ("new.jpg", picture.read_bytes() + b"1")}),
        ]
    assert [told(answered) for answered in answers] == [(503, "no_index")] * 5
    assert str(world) not in "".join(answered.text for answered in answers)
    assert str(folder) in caplog.records[0].message  # for the operator, whole
    assert client.get("/healthz").status_code == 200
    folder.with_name("away").rename(folder)
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/search", json=ASKED).status_code == 200


def test_an_index_of_another_model_is_told_by_both_names(client: TestClient, world: Path) -> None:
    index = world / ".xmr" / "index"
    other = Path(shutil.copytree(index, index.with_name("other")))
    with contextlib.closing(sqlite3.connect(other / "catalog.db")) as catalog, catalog:
        catalog.execute("UPDATE meta SET value = 'other-model' WHERE key = 'model'")
        catalog.execute("UPDATE meta SET value = '00000000' WHERE key = 'fingerprint'")
    index.rename(index.with_name("away"))
    other.rename(index)
    requests = [client.post("/v1/search", json=ASKED), client.get("/readyz"), client.get("/v1/items/1")]
    requests += [client.post("/v1/items", files={"file": ("a.txt", b"a dog")}), client.delete("/v1/items/1")]
    for answered in requests:
        assert told(answered) == (503, "no_index")
        assert "made with model other-model (00000000)" in answered.json()["error"]["message"]
        assert "start the server again" in answered.json()["error"]["message"]


def test_a_model_that_is_replaced_while_it_is_served_answers_on(client: TestClient, world: Path) -> None:
    for network in (world / ".xmr" / "model").rglob("*.onnx"):
        network.write_bytes(b"another one")
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/search", json=ASKED).status_code == 200
    assert client.post("/v1/items", files={"file": ("a.txt", b"a dog")}).status_code == 201
    [picture, *_] = sorted((world / "corpus").rglob("*.jpg"))
    assert client.post("/v1/items", files={"file": ("a.jpg", picture.read_bytes() + b"1")}).status_code == 201


def test_a_damaged_segment_is_no_clients_mistake(world: Path) -> None:
    [rows, *_] = sorted((world / ".xmr" / "index" / "segments").glob("*.f32.npy"))
    content = rows.read_bytes()
    rows.write_bytes(b"x" * 100)
    with client_of(world) as client:
        for answered in (client.post("/v1/search", json=ASKED), client.get("/readyz")):
            assert told(answered) == (503, "no_index")
            assert "pickle" not in answered.text
        rows.write_bytes(content)
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/search", json=ASKED).status_code == 200


def test_the_folder_of_uploads_may_be_cleaned_away(client: TestClient, world: Path) -> None:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    [picture, *_] = sorted((world / "corpus").rglob("*.jpg"))
    shutil.rmtree(service.decoders.folder)
    assert client.post("/v1/search", files={"image": picture.read_bytes()}).status_code == 200


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_one(client: TestClient, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    async def full(*_: object) -> None:
        raise OSError(number, "no room")

    monkeypatch.setattr(Decoders, "run_on", full)
    answered = client.post("/v1/search", files={"image": b"anything"})
    assert told(answered) == (507, "disk_full")


def test_an_upload_that_finds_no_room_leaves_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:3])
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Path, "write_bytes", some)
    assert told(client.post("/v1/search", files={"image": b"anything"})) == (507, "disk_full")
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    assert not list(service.decoders.folder.iterdir())


def test_an_upload_that_nobody_waits_for_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    write = Path.write_bytes

    def slow(path: Path, content: bytes) -> int:
        begun.set()
        assert may_end.wait(30)
        n_bytes = write(path, content)
        ended.set()
        return n_bytes

    async def given_up() -> None:
        decoders = Decoders()
        running = asyncio.ensure_future(decoders.run_on(Upload(b"anything", ".png"), "image", print))
        assert await asyncio.to_thread(begun.wait, 30)
        running.cancel()
        await asyncio.wait({running})
        may_end.set()
        assert await asyncio.to_thread(ended.wait, 30)
        await asyncio.get_running_loop().shutdown_default_executor()
        assert not list(decoders.folder.iterdir())
        await decoders.close()

    monkeypatch.setattr(Path, "write_bytes", slow)
    asyncio.run(given_up())


def test_the_processes_end_whatever_fails_before(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(_: object) -> None:
        raise OSError(errno.EIO, "of the server's end")

    monkeypatch.setattr(Changes, "close", failing)
    with pytest.raises(OSError, match="of the server's end"), client_of(world) as client:
        service: Service = client.app.state.service  # type: ignore[attr-defined]
    assert not service.decoders.folder.exists()


def test_another_failure_is_told_in_the_log_by_its_number(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(*_: object) -> None:
        raise OSError(errno.EIO, "a secret")

    monkeypatch.setattr(Decoders, "run_on", failing)
    answered = client.post("/v1/search", files={"image": b"anything"})
    assert told(answered) == (500, "failed")
    assert f"OSError {errno.EIO} in failing" in caplog.text
    assert "a secret" not in caplog.text + answered.text


def test_a_question_that_folds_too_much_ends_for_the_others(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "COSTLY_S", 0.0)
    assert told(client.post("/v1/search", json={"text": "a dog", "fold": 0.5})) == (503, "too_slow")
    assert client.post("/v1/search", json={"text": "a dog"}).status_code == 200


def test_decoding_counts_towards_the_time_of_an_answer(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(Decoders, "run_on", slow)
    with client_of(world, answer_s=0.2) as client:
        answered = client.post("/v1/search", files={"image": b"anything"})
        assert told(answered) == (503, "too_slow")
        assert "retry-after" not in answered.headers  # as it is it would be too slow again


def test_an_added_file_keeps_its_name(client: TestClient, world: Path) -> None:
    [picture, *_] = sorted((world / "corpus").rglob("*.jpg"))
    content = picture.read_bytes() + b"another one"
    added = client.post("/v1/items", files={"file": ("../../My dog (1).JPG", content, "image/jpeg")})
    [item] = added.json()["ids"]
    assert client.get(f"/v1/items/{item}").json()["path"] == "My dog (1).jpg"
    media = client.get(f"/v1/items/{item}/media")
    assert media.content == content
    assert media.headers["content-disposition"] == "inline; filename*=UTF-8''My%20dog%20%281%29.jpg"
    again = client.post("/v1/items", files={"file": ("other name.jpg", content)})
    assert again.json()["ids"] == [item]
    assert client.delete(f"/v1/items/{item}").status_code == 200
    assert list((world / ".xmr" / "index-uploads").iterdir()) == []


def test_the_same_bytes_by_another_suffix_are_another_file(client: TestClient, world: Path) -> None:
    added = [client.post("/v1/items", files={"file": (f"words{suffix}", b"a dog\n")}) for suffix in (".txt", ".md")]
    items = [answered.json()["ids"][0] for answered in added]
    for item, suffix in zip(items, (".txt", ".md"), strict=True):
        assert client.get(f"/v1/items/{item}/media").content == b"a dog\n", suffix
        assert client.delete(f"/v1/items/{item}").status_code == 200
    assert list((world / ".xmr" / "index-uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("dog.jpg", "dog"),
        ("/etc/passwd", "passwd"),
        ("C:\\files\\a dog.png", "a dog"),
        ("..", "upload"),
        (".jpg", "jpg"),
        ("", "upload"),
        ("<b>\x00\n\u202e|*?.png", "b"),
        ("ü" * 200 + ".png", "ü" * 50),
    ],
)
def test_a_name_on_disk_is_plain(name: str, stem: str) -> None:
    assert plain_stem(name) == stem


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"file": "words"}},
        {"files": [("file", ("a.jpg", b"1")), ("file", ("b.jpg", b"2"))]},
        {"files": {"file": ("a.jpg", b"1")}, "data": {"caption": "x"}},
        {"content": b"{}"},
    ],
)
def test_adding_takes_one_file_and_nothing_else(client: TestClient, sent: dict[str, Any]) -> None:
    answered = client.post("/v1/items", **sent)
    assert told(answered) == (422, "bad_form")
    assert "one file" in answered.json()["error"]["message"]


def test_a_text_of_very_many_lines_is_indexed_elsewhere(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmr.engine.serve.items.MAX_LINES", 3)
    answered = client.post("/v1/items", files={"file": ("a.txt", b"a dog\n" * 4)})
    assert told(answered) == (422, "too_many")
    assert client.post("/v1/items", files={"file": ("a.txt", b"a dog\n" * 3)}).status_code == 201

"""Items that clients add and delete: beside other writers, at once, on a full disk, after a crash."""

import asyncio
import errno
import fcntl
import functools
import gc
import http.client
import json
import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from conftest import run_xmr
from serving import LATE_S, TestClient, app_of, asked, client_of, listening, until

from xmr.engine.index import Index
from xmr.engine.index.lock import writer_lock
from xmr.engine.serve import changes
from xmr.engine.serve.bounded import Bounded


@pytest.fixture(scope="module")
def world(finished_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for this module, which adds to it and takes away."""
    return Path(shutil.copytree(finished_world, tmp_path_factory.mktemp("changed") / "world"))


@pytest.fixture(scope="module")
def client(world: Path) -> Iterator[TestClient]:
    with client_of(world, writable=True) as opened:
        yield opened


def picture(world: Path, number: int = 0) -> bytes:
    """One that is not indexed yet: what follows its end makes it another file."""
    found = next(path for path in sorted((world / "corpus").rglob("*.jpg")))
    return found.read_bytes() + number.to_bytes(4, "big")


def add(client: TestClient, content: bytes, name: str = "a.jpg") -> tuple[int, dict[str, object]]:
    answered = client.post("/v1/items", files={"file": (name, content, "image/jpeg")})
    return answered.status_code, answered.json()


def uploads(world: Path) -> list[str]:
    folder = world / ".xmr" / "index-uploads"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_that_two_clients_add_at_once_is_one(client: TestClient, world: Path) -> None:
    before = uploads(world)
    with ThreadPoolExecutor(4) as clients:
        answered = list(clients.map(lambda _: add(client, picture(world, 1)), range(4)))
    assert {status for status, _ in answered} == {201}
    [ids] = {tuple(told["ids"]) for _, told in answered}  # type: ignore[arg-type]
    assert len(ids) == 1
    assert len(uploads(world)) == len(before) + 1
    assert client.get(f"/v1/items/{ids[0]}/media").content == picture(world, 1)


def test_an_item_is_deleted_once_and_its_file_goes_with_it(client: TestClient, world: Path) -> None:
    before = uploads(world)
    _, told = add(client, picture(world, 2))
    [item] = told["ids"]  # type: ignore[misc]
    assert client.delete(f"/v1/items/{item}").status_code == 200
    assert uploads(world) == before
    again = client.delete(f"/v1/items/{item}")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "no_item")
    assert client.get(f"/v1/items/{item}").status_code == 404
    assert client.delete("/v1/items/999999999").status_code == 404


@pytest.mark.parametrize(
    "name", ["../../../evil.jpg", "/etc/evil.jpg", "a\x00b.jpg", "..", "C:\\evil.jpg", "e" * 5000 + ".jpg"]
)
def test_the_name_of_an_upload_leads_nowhere(client: TestClient, world: Path, name: str) -> None:
    status, told = add(client, picture(world, 3), name)
    assert status in (201, 400, 422), told
    folder = world / ".xmr" / "index-uploads"
    assert all(path.parent.parent == folder for path in world.parent.rglob("*evil*"))
    assert all(len(kept) == 64 for kept in uploads(world))


@pytest.mark.parametrize(
    ("content", "name"), [(b"no picture", "a.jpg"), (b"RIFF", "a.wav"), (b"x", "a.bin"), (b"", "a.jpg")]
)
def test_what_is_no_medium_is_refused_and_not_kept(client: TestClient, world: Path, content: bytes, name: str) -> None:
    before = uploads(world)
    answered = client.post("/v1/items", files={"file": (name, content)})
    assert answered.status_code == 422, answered.text
    assert str(world) not in answered.text
    assert uploads(world) == before


def test_a_page_is_no_text_and_a_table_of_files_no_file(client: TestClient, world: Path) -> None:
    before = uploads(world)
    for name, content, mime, said in (
        ("page", b"<html>a dog</html>", "text/html", "with its usual ending"),
        ("table.csv", b"path\n/etc/passwd.jpg\n", "text/csv", "table.csv: it names a file that is not taken with it"),
    ):
        answered = client.post("/v1/items", files={"file": (name, content, mime)})
        assert (answered.status_code, said in answered.text) == (422, True), answered.text
    assert uploads(world) == before
    table = b"path,caption\n/etc/passwd.jpg,a dog\n../b.jpg,a bell\n"
    told = client.post("/v1/items", files={"file": ("texts.csv", table)}).json()
    assert len(told["ids"]) == 2
    assert told["notes"] == ["texts.csv: it names 2 files that are not taken with it; add what it names too"]
    assert client.post("/v1/items", files={"file": ("plain", b"a dog", "text/plain; charset=utf-8")}).status_code == 201


def test_a_change_waits_for_another_writer_and_says_when_it_takes_long(
    client: TestClient, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write = changes.write_whole
    monkeypatch.setattr(changes, "write_whole", lambda path, how: written.append(path) or write(path, how))
    monkeypatch.setattr(changes, "LOCK_S", 0.3)
    with (world / ".xmr" / "index" / "writer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answered = client.post("/v1/items", files={"file": ("a.jpg", picture(world, 4))})
        assert (answered.status_code, answered.json()["error"]["code"]) == (503, "busy")
        assert int(answered.headers["retry-after"]) >= 1
        assert len(written) == 1  # however often it was tried
        assert not written[0].exists()
        monkeypatch.setattr(changes, "LOCK_S", 30.0)
        threading.Timer(0.5, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        assert add(client, picture(world, 4))[0] == 201


def test_changes_beside_a_running_command_leave_a_whole_index(client: TestClient, world: Path) -> None:
    folder = world / "corpus" / "more"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.jpg").write_bytes(picture(world, 100 + number))
    with ThreadPoolExecutor(1) as other:
        indexing = other.submit(run_xmr, "index", "corpus", cwd=world)
        added = [add(client, picture(world, 200 + number)) for number in range(5)]
        done = indexing.result()
    assert {status for status, _ in added} == {201}
    # the command does not wait: it says that another one writes
    assert done.returncode == 0 or "another process is writing" in done.stderr, done.stderr
    assert run_xmr("verify", cwd=world).returncode == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_nothing(
    client: TestClient, world: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    before = uploads(world)
    with monkeypatch.context() as faults:
        faults.setattr(os, "fsync", full)
        status, told = add(client, picture(world, 5))
    assert (status, told["error"]["code"]) == (507, "disk_full")  # type: ignore[index]
    assert uploads(world) == before
    assert run_xmr("verify", cwd=world).returncode == 0
    assert add(client, picture(world, 5))[0] == 201


def test_what_a_crash_left_is_taken_over(client: TestClient, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the file and the index, and while the file was written."""
    _, told = add(client, picture(world, 6))
    [item] = told["ids"]  # type: ignore[misc]
    [kept] = [
        path for path in (world / ".xmr" / "index-uploads").rglob("*.jpg") if path.read_bytes() == picture(world, 6)
    ]
    client.delete(f"/v1/items/{item}")
    kept.parent.mkdir()
    kept.write_bytes(picture(world, 6))
    status, told = add(client, picture(world, 6))
    assert status == 201
    client.delete(f"/v1/items/{told['ids'][0]}")  # type: ignore[index]
    kept.parent.mkdir()
    (kept.parent / f".{kept.name}.123").write_bytes(b"half")
    assert add(client, picture(world, 6))[0] == 201
    assert list(kept.parent.iterdir()) == [kept]


def caption(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def test_what_was_deleted_of_a_file_comes_with_it_again(client: TestClient, world: Path) -> None:
    content = caption("a dog barks", "a bell rings", "rain falls")
    _, told = add(client, content, "three.txt")
    first: list[int] = told["ids"]  # type: ignore[assignment]
    assert add(client, content, "three.txt") == (201, {"ids": first, "notes": []})
    assert client.delete(f"/v1/items/{first[1]}").json() == {"deleted": first[1], "ids": [first[1]]}
    _, told = add(client, content, "three.txt")
    lines = [client.get(f"/v1/items/{item}").json()["line"] for item in told["ids"]]  # type: ignore[attr-defined]
    assert lines == [1, 2, 3]
    assert client.get(f"/v1/items/{told['ids'][0]}").json()["n_of_file"] == 3  # type: ignore[index]
    assert add(client, content, "three.txt")[1]["ids"] == told["ids"]
    assert run_xmr("verify", cwd=world).returncode == 0


def test_a_file_is_deleted_with_all_of_its_items(client: TestClient, world: Path) -> None:
    before = uploads(world)
    _, told = add(client, caption("a dog", "a red bell", "the rain"), "whole.txt")
    ids: list[int] = told["ids"]  # type: ignore[assignment]
    gone = client.delete(f"/v1/items/{ids[2]}", params={"whole_file": "true"})
    assert gone.json() == {"deleted": ids[2], "ids": ids}
    assert {client.get(f"/v1/items/{item}").status_code for item in ids} == {404}
    assert uploads(world) == before
    assert client.delete(f"/v1/items/{ids[0]}", params={"whole_file": "perhaps"}).status_code == 422


def test_what_was_left_out_of_a_file_is_told(client: TestClient) -> None:
    status, told = add(client, b"a dog barks\nqqqqxxx zzzzyyy\n", "odd.txt")
    assert status == 201
    assert len(told["ids"]) == 1  # type: ignore[arg-type]
    [note] = told["notes"]  # type: ignore[misc]
    assert note.startswith("odd.txt: 1 "), note


def test_a_change_waits_no_longer_for_those_before_it(
    client: TestClient, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client waits for another process counts from its request, however many changes wait before its own."""
    tries: list[object] = []
    take = changes.Index.add
    monkeypatch.setattr(changes.Index, "add", lambda *given, **more: tries.append(given) or take(*given, **more))
    monkeypatch.setattr(changes, "LOCK_S", (n_tries := 20) * changes.LOCK_AGAIN_S)
    with (world / ".xmr" / "index" / "writer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ThreadPoolExecutor(6) as clients:
            answered = list(clients.map(lambda number: add(client, picture(world, 300 + number)), range(6)))
    assert {status for status, _ in answered} == {503}
    assert n_tries // 2 < len(tries) < 2 * n_tries  # six times as many, if each waited anew


def sent(port: int, content: bytes) -> http.client.HTTPConnection:
    """A request to add a text, whose answer nobody has read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LATE_S)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/v1/items", head + content + b"\r\n--x--\r\n", kind)
    return connection


def test_a_file_that_was_thinned_elsewhere_comes_whole(client: TestClient, world: Path) -> None:
    content = caption("a dog barks", "a bell rings", "a dog in the rain")
    (moved := world / "corpus" / "moved.txt").write_bytes(content)
    assert run_xmr("index", "corpus", cwd=world).returncode == 0
    body = {"text": "a bell rings", "to": ["text"], "where": "path LIKE '%moved.txt' AND line = 2"}
    [hit] = client.post("/v1/search", json=body).json()["hits"]
    assert client.delete(f"/v1/items/{hit['id']}").status_code == 200
    moved.unlink()
    assert len(add(client, content, "moved.txt")[1]["ids"]) == 3  # type: ignore[arg-type]


def test_an_item_that_goes_while_its_deletion_waits_is_not_there(client: TestClient, world: Path) -> None:
    _, told = add(client, caption("a dog", "a bell"), "going.txt")
    [first, second] = told["ids"]  # type: ignore[misc]
    changes_of = client.app.state.service.changes  # type: ignore[attr-defined]
    with closing(Index.open(world / ".xmr" / "index")) as index, ThreadPoolExecutor(2) as others:
        with writer_lock(index.folder):
            waiting = [
                others.submit(client.delete, f"/v1/items/{item}", params={"whole_file": item == second})
                for item in (first, second)
            ]
            until(lambda: changes_of.n_waiting == 2, "both wait")
            with index._catalog.transaction():
                index._catalog.delete([first])
        gone, rest = (answered.result() for answered in waiting)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "no_item")
    assert rest.json() == {"deleted": second, "ids": [second]}


def test_what_clients_that_left_had_sent_is_let_go_of() -> None:
    class Sent:
        """Stands for an upload of many bytes."""

    async def leave(one: Bounded) -> "weakref.ref[Sent]":
        content = Sent()
        waiting = asyncio.ensure_future(one.run(functools.partial(print, content)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        return weakref.ref(content)

    async def work() -> None:
        one, busy = Bounded("test", max_waiting=2, said=""), threading.Event()
        first = asyncio.ensure_future(one.run(busy.wait))
        await asyncio.sleep(0)
        left = [await leave(one) for _ in range(5)]  # more than may wait, one after the other
        gc.collect()
        assert [content() for content in left] == [None] * 5
        busy.set()
        await first
        await one.close()

    asyncio.run(work())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for another process gives up for no other reason than that its client has gone."""
    monkeypatch.setattr(changes, "LOCK_S", 100 * LATE_S)


@pytest.mark.usefixtures("patient")
def test_the_first_change_in_line_is_not_made_either_when_its_client_has_gone(world: Path) -> None:
    app = app_of(world, writable=True)
    with listening(app) as port, (world / ".xmr" / "index" / "writer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = uploads(world)
        leaving = sent(port, caption("a dog in the rain leaves"))
        until(lambda: len(uploads(world)) == len(before) + 1, "the change is under way")
        leaving.close()
        until(lambda: uploads(world) == before, "it is given up")
        fcntl.flock(lock, fcntl.LOCK_UN)
        body = {"text": "a dog", "to": ["text"], "k": 1000}
        texts = [hit["text"] for hit in json.loads(asked(port, "/v1/search", body)[1])["hits"]]
    assert "a dog in the rain leaves" not in texts


@pytest.mark.usefixtures("patient")
def test_a_change_whose_client_has_gone_is_not_made(world: Path) -> None:
    app = app_of(world, writable=True)
    with listening(app) as port, (world / ".xmr" / "index" / "writer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as other:
            first = other.submit(lambda: sent(port, caption("a dog stays")).getresponse().status)
            until(lambda: app.state.service.changes.n_waiting == 1, "the first change is under way")
            leaving = sent(port, caption("a dog leaves"))
            until(lambda: app.state.service.changes.n_waiting == 2, "the second one waits")
            leaving.close()
            until(lambda: app.state.service.changes.n_waiting == 1, "nobody waits for the second one")
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert first.result() == 201
        found = asked(port, "/v1/search", {"text": "a dog leaves", "to": ["text"], "k": 1000})[1]
    texts = [hit["text"] for hit in json.loads(found)["hits"]]
    assert "a dog stays" in texts
    assert "a dog leaves" not in texts

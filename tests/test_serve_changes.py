"""Items that clients add and delete: beside other writers, at once, on a full disk, after a crash."""

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import run_xmr
from serving import TestClient, client_of

from xmr.engine.serve import changes


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

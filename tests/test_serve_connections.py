"""Clients that do not read, leave in the middle, or send more than is taken: nothing stays behind of them."""

import http.client
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import must_run

pytest.importorskip("fastapi", reason="the server's packages are not installed: xmr[serve]")
pytest.importorskip("uvicorn", reason="the server's packages are not installed: xmr[serve]")

from serving import asked, port_of, process, until

from xmr.engine.serve import connection
from xmr.engine.serve.connection import FILES_OF_ONE, MAX_CONNECTIONS, max_connections

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not tell open files")


@pytest.fixture(scope="module")
def server(finished_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, int]]:
    """Its process and port, and an item whose file is larger than what the system takes before it is read."""
    world = Path(shutil.copytree(finished_world, tmp_path_factory.mktemp("connections") / "world"))
    soundfile.write(world / "corpus" / "long.wav", np.zeros(22_050 * 600, dtype=np.int16), 22_050)  # 26 MB
    must_run("index", "corpus", cwd=world)
    with process(world) as (started, line):
        port = port_of(line)
        body = {"text": "a dog", "to": "sound", "k": 1, "where": "path = 'long.wav'"}
        _, answered = asked(port, "/v1/search", body)
        yield started.pid, port, json.loads(answered)["hits"][0]["id"]


def open_media(process: int) -> int:
    """How often the long file is open in the server."""
    places = []
    for entry in Path(f"/proc/{process}/fd").iterdir():
        try:
            places.append(entry.readlink().name)
        except OSError:
            continue
    return places.count("long.wav")


def test_a_file_is_closed_when_its_client_leaves_in_the_middle(server: tuple[int, int, int]) -> None:
    pid, port, item = server
    head = f"GET /v1/items/{item}/media HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    for client in clients:
        client.sendall(head)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert open_media(pid) == 10
    for client in clients:
        client.close()
    until(lambda: open_media(pid) == 0, "the file is open still")
    assert asked(port, "/healthz")[0] == 200


def test_who_announces_too_much_hears_so_while_sending(server: tuple[int, int, int]) -> None:
    """http.client, and what is made of it, sends all before it listens."""
    _, port, _ = server
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("POST", "/v1/search", b" " * 17_000_000)
    answered = client.getresponse()
    assert (answered.status, b"too_large" in answered.read()) == (413, True)
    client.close()


def test_who_asks_before_sending_too_much_is_not_invited(server: tuple[int, int, int]) -> None:
    _, port, _ = server
    head = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    for n_bytes, expected in ((17_000_000, b"HTTP/1.1 413"), (20, b"HTTP/1.1 100")):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(head % n_bytes)
            assert client.recv(12) == expected


def test_connections_leave_the_process_files_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for n_files, expected in ((1_000_000, MAX_CONNECTIONS), (1024, 1024 // FILES_OF_ONE), (2, 1)):
        monkeypatch.setattr(connection.resource, "getrlimit", lambda _, n_files=n_files: (n_files, n_files))
        assert max_connections() == expected

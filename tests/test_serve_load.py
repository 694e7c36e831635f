"""The real server, as a process: slow clients, its end, its command line; and for half an hour."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import XMR, run_xmr

pytest.importorskip("fastapi", reason="the server's packages are not installed: xmr[serve]")
pytest.importorskip("uvicorn", reason="the server's packages are not installed: xmr[serve]")

START_S = 120.0
SOAK_S = 1800.0
WARM_S = 120.0  # until memory is taken as what it is


@contextlib.contextmanager
def served(world: Path, *arguments: str) -> "Iterator[tuple[subprocess.Popen[str], int]]":
    """The command at work, and its port."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [str(XMR), "serve", "--port", "0", *arguments]
    server = subprocess.Popen(command, cwd=world, env=environment, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = server.stderr.readline()
        assert "serving at http://127.0.0.1:" in line, line + server.stderr.read()
        yield server, int(line.split("127.0.0.1:")[1].split("/")[0])
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def asked(port: int, path: str, body: object = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        written = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, written, {"Content-Type": "application/json"})
        answered = connection.getresponse()
        return answered.status, answered.read()
    finally:
        connection.close()


@pytest.mark.parametrize("n_clients", [8, pytest.param(64, marks=pytest.mark.long)])
def test_slow_clients_keep_nobody_waiting(finished_world: Path, n_clients: int) -> None:
    with served(finished_world) as (_, port):
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(n_clients)]
        head = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        for number, client in enumerate(slow):
            client.sendall(head if number % 2 else head + b"Content-Type: application/json\r\n\r\n{")
        for _ in range(5):
            for client in slow:
                client.sendall(b" " if client.fileno() % 2 else b"")
            start_s = time.monotonic()
            assert asked(port, "/healthz")[0] == 200
            assert time.monotonic() - start_s < 1  # as promised
        assert asked(port, "/v1/search", {"text": "a dog"})[0] == 200
        for client in slow:
            client.close()


def test_the_server_ends_when_it_is_told_to(finished_world: Path) -> None:
    with served(finished_world) as (server, port):
        assert asked(port, "/readyz")[0] == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) in (0, -signal.SIGTERM)
        assert server.stderr is not None
        assert server.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "--token"),
        (["--token", "short"], 2, "longer"),
        (["--token", "long enough", "--token-file", "a"], 2, "one of them"),
        (["--token-file", "none"], 1, "first line"),
        (["--cors", "example.org"], 2, "https://example.org"),
        (["--index", "none"], 1, "xmr index"),
    ],
)
def test_a_server_that_cannot_be_says_why(finished_world: Path, arguments: list[str], code: int, said: str) -> None:
    done = run_xmr("serve", "--port", "0", *arguments, cwd=finished_world)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(finished_world: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_xmr("serve", "--port", port, cwd=finished_world)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr


def resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not tell what a process has open")
def test_half_an_hour_of_questions_and_appends_leaves_no_trace(world: Path) -> None:
    end_s = time.monotonic() + SOAK_S
    with served(world, "--writable") as (server, port):
        errors: list[object] = []

        def ask() -> None:
            number = 0
            while time.monotonic() < end_s:
                number += 1
                status, _ = asked(port, "/v1/search", {"text": ("a dog", "rain", "a bell")[number % 3], "k": 20})
                if status != 200:
                    errors.append(status)

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        time.sleep(WARM_S)
        before = resident_bytes(server.pid), len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        corpus, number = world / "corpus", 0
        while time.monotonic() < end_s - 10:
            number += 1
            (corpus / f"line-{number}.txt").write_text(f"a dog and a bell {number}\n")
            assert run_xmr("index", "corpus", cwd=world).returncode == 0
            time.sleep(20)
        for asker in askers:
            asker.join()
        after = resident_bytes(server.pid), len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    print(f"memory {before[0] / 1e6:.0f} -> {after[0] / 1e6:.0f} MB, open files {before[1]} -> {after[1]}")
    assert not errors
    assert after[0] < 1.05 * before[0]
    assert abs(after[1] - before[1]) <= 8  # the segments of the newest version

"""The real server, as a process: slow clients and those who leave, its end, its command line."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import XMR, run_xmr

pytest.importorskip("fastapi", reason="the server's packages are not installed: xmr[serve]")
pytest.importorskip("uvicorn", reason="the server's packages are not installed: xmr[serve]")

START_S = 120.0


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


def test_clients_that_leave_are_no_failure(finished_world: Path) -> None:
    body = json.dumps({"text": "a dog"}).encode()
    head = f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with served(finished_world) as (server, port):
        for sent in (head, head + body[:5], head + body) * 5:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(sent)
        assert asked(port, "/v1/search", {"text": "a dog"})[0] == 200
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
        assert server.stderr is not None
        assert server.stderr.read() == ""


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

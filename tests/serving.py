"""The server in tests: asked in this process, listening in a thread of it, or as the command at work."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import XMR

pytest.importorskip("fastapi", reason="the server's packages are not installed: xmr[serve]")
pytest.importorskip("uvicorn", reason="the server's packages are not installed: xmr[serve]")
pytest.importorskip("httpx", reason="httpx asks the server in tests")

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from xmr.engine.serve.app import make_app
from xmr.engine.serve.settings import Settings

LOCAL = "http://127.0.0.1"
TOKEN = "a-secret-that-nobody-guesses"
LATE_S = 30  # that an answer, or the end of a process, may take


def app_of(world: Path, **settings: Any) -> FastAPI:
    return make_app(world / ".xmr" / "index", world / ".xmr" / "model", Settings(**settings))


@contextlib.contextmanager
def client_of(world: Path, **settings: Any) -> Iterator[TestClient]:
    """Asks the application itself."""
    with TestClient(app_of(world, **settings), base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client


@contextlib.contextmanager
def listening(app: FastAPI, **options: Any) -> Iterator[int]:
    """The port of a server in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def process(
    world: Path, *arguments: str, command: str = "serve", **environ: str
) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """The command at work, and the line with its address."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": "/nowhere", "BROWSER": ""} | environ
    port = [] if command == "open" else ["--port", "0"]
    server = subprocess.Popen(
        [sys.executable, str(XMR), command, *port, *arguments],
        cwd=world, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stderr is not None
    try:
        line = server.stderr.readline()
        assert "serving at http://" in line, line + server.stderr.read()
        yield server, line
    finally:
        server.kill()
        server.communicate()


def until(holds: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + LATE_S
    while not holds():
        assert time.monotonic() < end_s, what
        time.sleep(0.05)


def port_of(line: str) -> int:
    return int(line.split("/ (")[0].rpartition(":")[2])


def asked(port: int, path: str, body: object = None, host: str = "127.0.0.1", **headers: str) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection(host, port, timeout=LATE_S)
    with contextlib.closing(connection):
        written = None if body is None else json.dumps(body)
        connection.request(
            "GET" if body is None else "POST", path, written, {"Content-Type": "application/json", **headers}
        )
        answered = connection.getresponse()
        return answered.status, answered.read()

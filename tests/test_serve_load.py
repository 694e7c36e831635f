"""The real server, as a process: slow clients and those who leave, its command line."""

import json
import signal
import socket
from pathlib import Path

import pytest
from conftest import run_xmr
from serving import LATE_S, asked, port_of, process


@pytest.mark.parametrize("n_clients", [8, pytest.param(64, marks=pytest.mark.long)])
def test_slow_clients_keep_nobody_waiting(finished_world: Path, n_clients: int) -> None:
    with process(finished_world) as (_, line):
        port = port_of(line)
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(n_clients)]
        head = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        for number, client in enumerate(slow):
            client.sendall(head if number % 2 else head + b"Content-Type: application/json\r\n\r\n{")
        for _ in range(5):
            for number, client in enumerate(slow):
                client.sendall(b" " * (number // 2 % 2))  # half of each kind
            assert asked(port, "/healthz")[0] == 200
        assert asked(port, "/v1/search", {"text": "a dog"})[0] == 200
        for client in slow:
            client.close()


def test_clients_that_leave_are_no_failure(finished_world: Path) -> None:
    body = json.dumps({"text": "a dog"}).encode()
    head = f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with process(finished_world) as (server, line):
        port = port_of(line)
        for sent in (head, head + body[:5], head + body) * 5:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(sent)
        assert asked(port, "/v1/search", {"text": "a dog"})[0] == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(LATE_S) == 0
        assert server.communicate() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "--token"),
        (["--token", "short"], 2, "longer"),
        (["--token", "long enough", "--token-file", "a"], 2, "one of them"),
        (["--token-file", "none"], 1, "none: No such file"),
        (["--token-file", "short.txt"], 1, "short.txt: a token of fewer than 8"),
        (["--cors", "example.org"], 2, "https://example.org"),
        (["--index", "none"], 1, "xmr index"),
    ],
)
def test_a_server_that_cannot_be_says_why(
    finished_world: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "short.txt").write_text("abc\n")
    folders = ["--index", finished_world / ".xmr" / "index", "--model", finished_world / ".xmr" / "model"]
    done = run_xmr("serve", "--port", "0", *folders, *arguments, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(finished_world: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_xmr("serve", "--port", port, cwd=finished_world)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr

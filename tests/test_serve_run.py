"""The server as a process: where it listens, how it ends, what it says; and connections that give nothing."""

import contextlib
import http.client
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run_xmr
from serving import LATE_S, TOKEN, app_of, asked, listening, port_of, process, until


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no address ::1")


@pytest.mark.parametrize(
    ("arguments", "shown", "hosts"),
    [
        (["--host", "localhost"], "http://localhost:", ["127.0.0.1"]),
        pytest.param(["--host", "::1"], "http://[::1]:", ["::1"], marks=needs_ipv6),
        pytest.param(["--host", "::", "--insecure"], "http://127.0.0.1:", ["::1", "127.0.0.1"], marks=needs_ipv6),
        (["--host", "0.0.0.0", "--token", TOKEN], "http://127.0.0.1:", ["127.0.0.1"]),
    ],
)
def test_the_server_listens_where_it_is_told_to(
    finished_world: Path, arguments: list[str], shown: str, hosts: list[str]
) -> None:
    with process(finished_world, *arguments) as (_, line):
        assert shown in line
        assert TOKEN not in line
        assert ("asks for the token" in line) == (TOKEN in arguments)
        for host in hosts:
            assert asked(port_of(line), "/healthz", host=host)[0] == 200
            key = {"Authorization": f"Bearer {TOKEN}"} if TOKEN in arguments else {}
            assert asked(port_of(line), "/readyz", host=host, **key)[0] == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "no-such-host.invalid", "--token", TOKEN], "no-such-host.invalid:0: "),
        (["--host", "a" * 70 + ".org", "--token", TOKEN], "choose another --port"),
        (["--host", "203.0.113.7", "--token", TOKEN], "203.0.113.7:0: "),
        (["--model", "none"], "none"),
        (["--device", "cuda:77"], "cuda"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(finished_world: Path, arguments: list[str], said: str) -> None:
    done = run_xmr("serve", "--port", "0", *arguments, cwd=finished_world)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def hold(world: Path, port: int) -> "tuple[threading.Thread, list[int]]":
    """A question that takes a while: a long list of sentences."""
    answers: list[int] = []
    body = {"modality": "text", "input": [f"a dog and {number} bells in the rain" for number in range(256)]}
    thread = threading.Thread(target=lambda: answers.append(asked(port, "/v1/embeddings", body)[0]))
    thread.start()
    return thread, answers


def half_sent(port: int) -> socket.socket:
    """A question that the server waits for the rest of."""
    client = socket.create_connection(("127.0.0.1", port), timeout=LATE_S)
    client.sendall(
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
    )
    time.sleep(0.3)
    return client


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_server_that_is_told_to_end_answers_what_was_asked(finished_world: Path, sent: int, code: int) -> None:
    with process(finished_world) as (server, line):
        client = half_sent(port_of(line))
        thread, answers = hold(finished_world, port_of(line))
        time.sleep(0.1)
        server.send_signal(sent)
        time.sleep(0.5)
        client.sendall(b'{"text":"a dog"}')
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        thread.join()
        assert answers == [200]
        assert server.wait(LATE_S) == code
        told = server.stderr.read() if server.stderr else ""
        assert told == ("xmr: interrupted\n" if code else "")
        client.close()


def test_a_second_interrupt_ends_it_at_once(finished_world: Path) -> None:
    with process(finished_world) as (server, line):
        client = half_sent(port_of(line))
        server.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.poll() is None  # it waits for the client
        start_s = time.monotonic()
        server.send_signal(signal.SIGINT)
        assert server.wait(LATE_S) == 130
        assert time.monotonic() - start_s < 8  # less than what it waits for the client
        assert "Traceback" not in (server.stderr.read() if server.stderr else "")
        client.close()


def test_open_serves_this_machine_alone_and_says_where(finished_world: Path) -> None:
    for arguments, said in (([], "no browser found here"), (["--no-browser"], "")):
        with process(finished_world, *arguments, command="open") as (server, line):
            assert "http://127.0.0.1:" in line
            assert asked(port_of(line), "/")[0] == 200
            server.send_signal(signal.SIGINT)
            assert server.wait(LATE_S) == 130
            told = server.stderr.read() if server.stderr else ""
            assert said in told
            assert ("no browser" in told) == bool(said)


def test_open_answers_a_browser_that_stays_in_the_foreground(finished_world: Path, tmp_path: Path) -> None:
    """And so keeps who started it waiting: it is handed the page meanwhile."""
    fetched = tmp_path / "fetched"
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport os, pathlib, sys, time, urllib.request\n"
        "server = os.getppid()\npage = urllib.request.urlopen(sys.argv[1], timeout=20).read()\n"
        f"pathlib.Path({str(fetched)!r}).write_bytes(page)\nwhile os.getppid() == server: time.sleep(0.1)\n"
    )
    browser.chmod(0o700)
    with process(finished_world, command="open", BROWSER=f"{browser} %s") as (server, line):
        until(fetched.exists, "the browser has the page")
        assert asked(port_of(line), "/healthz")[0] == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(LATE_S) == 130


@pytest.mark.parametrize("is_to_outlive", [False, True])
def test_a_server_whose_terminal_is_closed_ends_as_if_it_was_told_to(finished_world: Path, is_to_outlive: bool) -> None:
    """Unless who started it ignored that already, as nohup does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_to_outlive else signal.SIG_DFL)
    with process(finished_world) as (server, line):
        signal.signal(signal.SIGHUP, before)
        if is_to_outlive:
            server.send_signal(signal.SIGHUP)
            assert asked(port_of(line), "/healthz")[0] == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(LATE_S) == 0
            return
        server.send_signal(signal.SIGHUP)
        assert server.wait(LATE_S) == 0
        assert (server.stderr.read() if server.stderr else "") == ""


def test_who_still_sends_when_the_server_ends_is_told_so(finished_world: Path) -> None:
    with process(finished_world) as (server, line):
        client = half_sent(port_of(line))
        server.send_signal(signal.SIGTERM)
        client.settimeout(LATE_S)
        told = answers(client).decode()
        assert told.startswith("HTTP/1.1 503")
        assert "connection: close" in told.lower()
        assert "retry-after: 1" in told.lower()
        assert '"ending"' in told
        assert server.wait(LATE_S) == 0
        assert "Traceback" not in (server.stderr.read() if server.stderr else "")
        client.close()


def test_the_last_answer_on_a_connection_says_that_it_is_the_last(finished_world: Path) -> None:
    with process(finished_world) as (server, line):
        client = half_sent(port_of(line))
        server.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        client.sendall(b'{"text":"a dog"}')
        told = answers(client).decode()
        assert told.startswith("HTTP/1.1 200")
        assert "connection: close" in told.lower()
        assert server.wait(LATE_S) == 0
        client.close()


@pytest.mark.parametrize("command", ["serve", "open"])
def test_help_shows_how(command: str, tmp_path: Path) -> None:
    shown = run_xmr(command, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert f"Example: xmr {command}" in shown.stdout
    missing = run_xmr(command, *(["--port", "0"] if command == "serve" else ["--no-browser"]), cwd=tmp_path)
    assert missing.returncode == 1
    assert len(missing.stderr.splitlines()) == 1, missing.stderr


def test_nothing_that_clients_send_is_printed(world: Path) -> None:
    private = "a-very-private-word"
    with process(world, "--token", TOKEN, "--writable") as (server, line):
        port, key = port_of(line), {"Authorization": f"Bearer {TOKEN}"}
        for body in ({"text": private}, {"where": f"path = '{private}'", "text": "a"}, {private: private}, private):
            asked(port, "/v1/search", body, **key)
        asked(port, f"/{private}?token={private}", Authorization=f"Bearer {private}")
        asked(port, f"/?token={TOKEN}")
        asked(port, "/v1/embeddings", {"input": private, "modality": "sound"}, **key)
        broken = socket.create_connection(("127.0.0.1", port))
        broken.sendall(f"{private} {private}\r\n\r\n".encode())
        assert b" 400 " in broken.recv(4096)
        broken.close()
        server.send_signal(signal.SIGTERM)
        assert server.wait(LATE_S) == 0
        assert server.communicate() == ("", "")


def answers(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection, which it has to."""
    client.settimeout(LATE_S)
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture
def bounded(finished_world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server in this process, with short deadlines and few places."""
    import h11

    from xmr.engine.serve import connection

    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 8)
    monkeypatch.setattr(connection, "DEADLINES_S", {h11.IDLE: 1.0, h11.SEND_BODY: 2.0})
    with listening(app_of(finished_world), http=connection.Connection, ws="none") as port:
        yield port


def drip(client: socket.socket, letters: bytes, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not stop.wait(0.2):
            client.sendall(letters)


@pytest.mark.parametrize(
    ("begin", "drops", "answer"),
    [
        (b"", b"", b""),
        (b"", b"G", b"HTTP/1.1 408 "),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", b"x", b"HTTP/1.1 408 "),
        (b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999\r\n\r\n", b"x", b"HTTP/1.1 404 "),
    ],
)
def test_a_client_that_sends_a_byte_at_a_time_is_given_up(
    bounded: int, begin: bytes, drops: bytes, answer: bytes
) -> None:
    client, stop = socket.create_connection(("127.0.0.1", bounded)), threading.Event()
    client.sendall(begin)
    dripping = threading.Thread(target=drip, args=(client, drops or b"", stop))
    dripping.start()
    assert answers(client).startswith(answer)
    stop.set()
    dripping.join()
    client.close()


def test_a_client_that_reads_nothing_is_given_up(
    bounded: int, finished_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmr.engine.serve import connection, page

    monkeypatch.setattr(connection, "SEND_S", 0.5)
    monkeypatch.setitem(page.FILES, "large.js", b"a" * 30_000_000)  # more than the system takes before it is read
    with socket.create_connection(("127.0.0.1", bounded)) as client:
        client.sendall(b"GET /web/large.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(3)
        assert len(answers(client)) < 30_000_000  # the end does not come
    assert asked(bounded, "/healthz")[0] == 200


def test_a_connection_that_is_used_lives_longer_than_a_deadline(bounded: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", bounded)
    for _ in range(4):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        place: Any = connection.sock.getsockname()
        time.sleep(0.6)
    assert connection.sock.getsockname() == place
    connection.close()


def test_many_silent_connections_leave_room(bounded: int) -> None:
    silent = [socket.create_connection(("127.0.0.1", bounded)) for _ in range(30)]
    assert asked(bounded, "/healthz")[0] == 200
    assert answers(silent[0]) == b""  # the one that waited longest went
    for client in silent:
        client.close()


def test_what_is_no_request_is_refused_as_all_is(bounded: int) -> None:
    with socket.create_connection(("127.0.0.1", bounded)) as client:
        client.sendall(b"\x16\x03\x01 what TLS says\r\n\r\n")
        answered = answers(client)
    head, _, body = answered.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"content-security-policy" in head.lower()
    assert json.loads(body)["error"]["code"] == "bad_request"

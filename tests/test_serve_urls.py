"""Files that the server fetches from the web: whatever a name stands for, only what is on the internet is asked."""

import functools
import gzip
import http.server
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving import client_of

from xmr.engine.serve import service
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.urls import fetch, is_public, is_url

PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%lo"),
    *(
        "fc00::1",
        "fec0::1",
        "3fff::1",
        "2a00::5efe:7f00:1",
        "192.88.99.1",
        "192.0.0.8",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
    ),
    *("64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a00:1::", "2001::1", "100::1", "no address"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_on_the_internet_is_none_of_the_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.org/b",
        "gopher://a.org/",
        "jar:http://a.org/",
        "//a.org/b",
        "http:///b",
        "http://",
    ],
)
def test_other_schemes_are_no_urls_to_fetch(url: str) -> None:
    assert not is_url(url) or url in ("http:///b", "http://")
    with pytest.raises(Refusal):
        fetch(url, "image", 1000)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.org/a b",
        "http://a.org/\r\nX: y",
        "http://ä.org/",
        "http://a.org:99999/",
        "http://a.org:22/",
        "http://[::1",
        "http://u@a.org/",
    ],
)
def test_a_url_that_hides_something_is_refused_before_any_name_is_looked_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    with pytest.raises(Refusal, match=r"URL|port") as refused:
        fetch(url, "image", 1000)
    assert refused.value.code == "url_refused"


def named(*addresses: str) -> Callable[..., list[Any]]:
    """Names that stand for these, one more at each look-up; the last one stays."""
    left = list(addresses)

    def look_up(host: str, port: int, *_: object, **__: object) -> list[Any]:
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in address.split()]

    return look_up


@pytest.mark.parametrize(
    "addresses", ["127.0.0.1", "10.0.0.1", "93.184.216.34 127.0.0.1", "169.254.169.254", "::1", ""]
)
def test_a_name_that_stands_for_a_private_address_is_refused(addresses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", named(addresses))
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it was connected to"))
    with pytest.raises(Refusal, match="not on the internet"):
        fetch("http://intranet.example/a.png", "image", 1000)


def test_a_name_that_changes_its_address_leads_to_the_one_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def connect(place: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(place[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", named("93.184.216.34", "127.0.0.1"))
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Refusal, match="could not be fetched"):
        fetch("http://rebinding.example/a.png", "image", 1000)
    assert asked == ["93.184.216.34"]


@contextmanager
def web(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """A server of somebody else, on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(port: int, *, total_s: float = 5.0, max_bytes: int = 1000, host: str = "127.0.0.1") -> bytes:
    """With this machine's address allowed, and nothing else that is not public."""
    found = fetch(
        f"http://{host}:{port}/a.png",
        "image",
        max_bytes,
        is_allowed=lambda address: address == "127.0.0.1" or is_public(address),
        ports=(port, 80),
        total_s=total_s,
    )
    return found.content


def test_a_public_file_is_fetched() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"pixels")

    with web(answer) as port:
        assert fetched(port) == b"pixels"


@pytest.mark.parametrize("target", ["http://127.0.0.2/", "http://169.254.169.254/", "file:///etc/passwd", "/again"])
def test_redirects_are_checked_as_the_first_url(target: str) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.end_headers()

    with web(answer) as port, pytest.raises(Refusal):
        fetched(port)


def test_an_endless_body_is_refused() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b"x" * 1000)
        except OSError:
            return

    with web(answer) as port, pytest.raises(Refusal, match="more than 1,000 bytes"):
        fetched(port)


@pytest.mark.parametrize("is_in_headers", [False, True])
def test_a_slow_body_is_refused(is_in_headers: bool) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        start = b"HTTP/1.0 200 OK\r\n" + (b"X: " if is_in_headers else b"\r\n")
        try:
            request.wfile.write(start)
            for _ in range(100):
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.1)
        except OSError:
            return

    with web(answer) as port, pytest.raises(Refusal, match="in time"):
        fetched(port, total_s=0.5)


def answering(content: bytes, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content)

    return answer


def test_a_compressed_body_is_not_unpacked() -> None:
    packed = gzip.compress(b"0" * 1_000_000)
    with web(answering(packed, Content_Encoding="gzip")) as port:
        assert fetched(port, max_bytes=100_000) == packed


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    with web(answering(b"", Content_Length="1000000")) as port, pytest.raises(Refusal, match="more than 1,000 bytes"):
        fetched(port)


def test_a_body_that_breaks_off_is_no_file() -> None:
    with web(answering(b"half", Content_Length="8")) as port, pytest.raises(Refusal, match="broke off before its end"):
        fetched(port)


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            while True:
                request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                time.sleep(0.05)

    with web(answer) as port, pytest.raises(Refusal, match="could not be fetched in time"):
        fetched(port, total_s=0.5)


def test_an_answer_that_is_no_file_is_refused() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_error(404)

    with web(answer) as port, pytest.raises(Refusal, match="404"):
        fetched(port)


def asked_by_url(world: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, mime: str) -> Any:
    with web(answering(content, Content_Type=mime)) as port, client_of(world, allow_urls=True) as client:
        allowed = functools.partial(fetch, is_allowed=lambda address: address == "127.0.0.1", ports=(port,))
        monkeypatch.setattr(service, "fetch", allowed)
        return client.post("/v1/search", json={"image": f"http://127.0.0.1:{port}/a", "k": 1})


def test_a_picture_of_the_web_is_searched_by(finished_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 0, 0)).save(picture, "PNG")
    answered = asked_by_url(finished_world, monkeypatch, picture.getvalue(), "image/png")
    assert (answered.status_code, len(answered.json()["hits"])) == (200, 1)


def test_a_page_of_the_web_is_no_picture_and_not_shown(finished_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = asked_by_url(finished_world, monkeypatch, b"<html>a secret of the house</html>", "text/html")
    assert answered.status_code in (400, 422)
    assert "secret" not in answered.text


def test_allowed_urls_are_still_those_of_the_internet(finished_world: Path) -> None:
    with client_of(finished_world, allow_urls=True) as client:
        for url in (
            "http://127.0.0.1/",
            "http://localhost./",
            "http://[::ffff:7f00:1]/",
            "http://0/",
            "HTTP://LOCALHOST/",
        ):
            answered = client.post("/v1/search", json={"image": url})
            assert (answered.status_code, answered.json()["error"]["code"]) == (400, "url_refused"), url

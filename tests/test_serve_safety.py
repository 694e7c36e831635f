"""Who may ask the server what: tokens, origins, paths, URLs, limits; and what it never tells."""

import functools
import logging
import os
import shutil
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving import LOCAL, TOKEN, TestClient, client_of

from xmr.engine.catalog import File
from xmr.engine.errors import UsageError
from xmr.engine.index import Index
from xmr.engine.serve import batcher, tokens
from xmr.engine.serve.place import content_of
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.settings import Settings
from xmr.engine.serve.urls import fetch

PATHS = [
    *("/etc/passwd", "//etc/passwd", "/v1/items/../../etc/passwd", "/v1/items/..%2f..%2fetc%2fpasswd/media"),
    *("/web/../app.py", "/web/..%2fapp.py", "/web/..%2f..%2fcli%2f__init__.py", "/web/%2e%2e/serve/app.py"),
    *("/web//etc/passwd", "/web/%2fetc%2fpasswd", "/web/page.js%00.html", "/web/.%2e/index.html", "/web/"),
    *("/v1/items/-1/media", "/v1/items/0/media", "/v1/items/1e3/media", "/v1/items/1.0/media", "/v1/items/0x1/media"),
    *("/v1/items/9223372036854775807/media", "/v1/items/9223372036854775808/media", "/v1/items/9e99/media"),
    *("/v1/items/%2e%2e/media", "/v1/items/1%2f..%2f2/media", "/v1/items/1;/media", "/v1/items/1%00/media"),
    *("/v1/items/corpus%2fimages/media", "/v1/items/%2fetc%2fpasswd/media", "/v1/items/file:%2f%2fetc%2fa/media"),
    *("/v1/items/~root/media", "/v1/items/$HOME/media", "/v1/items/*/media", "/v1/items/' OR 1=1/media"),
    *("/web/..%5c..%5cserve%5capp.py", "/web/....//app.py", "/web/%252e%252e%252fapp.py", "/web/..%c0%afapp.py"),
    *("/static/../catalog.db", "/catalog.db", "/v1/items//media", "/proc/self/environ"),
]  # fmt: skip
URLS = [
    *("http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://0.0.0.0/", "http://10.0.0.1/", "http://172.16.3.4/"),
    *("http://192.168.1.1/", "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/", "http://[fc00::1]/"),
    *("http://[::ffff:127.0.0.1]/", "http://[::ffff:10.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/"),
    *("http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://100.64.0.1/"),
    *("http://224.0.0.1/", "http://255.255.255.255/", "http://user:pw@93.184.216.34/", "http://93.184.216.34:22/"),
    *("http://[::]/", "https://127.0.0.1/"),
]  # fmt: skip


@pytest.fixture(scope="module")
def client(finished_world: Path) -> Iterator[TestClient]:
    with client_of(finished_world) as opened:
        yield opened


@pytest.fixture(scope="module")
def guarded(finished_world: Path) -> Iterator[TestClient]:
    with client_of(finished_world, token=TOKEN) as opened:
        yield opened


def test_the_lists_are_as_long_as_promised() -> None:
    assert (len(set(PATHS)), len(set(URLS))) == (40, 25)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_corpus(client: TestClient, path: str) -> None:
    answered = client.get(path)
    assert answered.status_code in (404, 422), answered.text
    assert "error" in answered.json()


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_is_not_on_the_internet_is_refused(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        fetch(url, "image", 1000)
    assert refused.value.code == "url_refused"


def test_urls_are_refused_unless_they_are_allowed(client: TestClient) -> None:
    answered = client.post("/v1/search", json={"image": "https://example.org/dog.jpg"})
    assert (answered.status_code, answered.json()["error"]["code"]) == (400, "url_refused")


def file_at(path: Path, root: Path, **more: object) -> File:
    return File(str(path), str(root), "image", None, 0, 1, 0, "0" * 64, "{}")._replace(**more)  # type: ignore[arg-type]


def test_a_link_that_leads_out_of_the_corpus_is_not_followed(tmp_path: Path) -> None:
    root, secret = tmp_path / "corpus", tmp_path / "secret.jpg"
    root.mkdir()
    secret.write_bytes(b"secret")
    (root / "a.jpg").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.jpg")
    for name in ("a.jpg", "folder/secret.jpg", "../secret.jpg", "pipe.jpg", "none.jpg", "."):
        with pytest.raises(Refusal) as refused:
            content_of(file_at(root / name, root))
        assert refused.value.status == 404
    beside = tmp_path / "corpus-2"
    beside.mkdir()
    (beside / "b.jpg").write_bytes(b"b")
    with pytest.raises(Refusal):
        content_of(file_at(beside / "b.jpg", root))


def indexed(world: Path, picture: Path) -> int:
    """The item of a picture that was put into the corpus."""
    from xmr.engine.corpus import scan
    from xmr.engine.media import media_of
    from xmr.engine.model import Model

    model = Model.open(world / ".xmr" / "model")
    index = Index.open(world / ".xmr" / "index")
    index.add(scan([world / "corpus"], media_of(model.modalities)), model, workers=1)
    [item] = index.items_of(str(picture.resolve()))
    index.close()
    return item


def test_a_file_that_became_a_link_is_not_shown(world: Path) -> None:
    picture, outside = world / "corpus" / "inside.jpg", world / "outside.jpg"
    shutil.copy(next((world / "corpus").rglob("*.jpg")), picture)
    item = indexed(world, picture)
    with client_of(world) as client:
        assert client.get(f"/v1/items/{item}/thumbnail").status_code == 200
        shutil.move(picture, outside)
        picture.symlink_to(outside)
        for shown in ("media", "thumbnail"):
            answered = client.get(f"/v1/items/{item}/{shown}")
            assert (answered.status_code, answered.json()["error"]["code"]) == (404, "outside")


def test_members_of_archives_come_by_their_stretch_alone(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    (tmp_path / "one.txt").write_bytes(b"one" * 100)
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "one.txt", "one.txt")
    with tarfile.open(archive) as tar:
        start = tar.getmember("one.txt").offset_data
    stamp = archive.stat().st_mtime_ns
    member = file_at(archive / "one.txt", archive, archive=str(archive), start=start, size=300, mtime=stamp)
    assert content_of(member).read() == b"one" * 100
    with pytest.raises(Refusal):
        content_of(member._replace(size=10**9))
    with pytest.raises(Refusal, match="changed"):
        content_of(member._replace(mtime=stamp + 1))


def addresses(client: TestClient) -> list[tuple[str, str]]:
    """Of every route with each of its methods, and of some that are none."""
    routes = [route for route in client.app.routes if hasattr(route, "methods")]  # type: ignore[attr-defined]
    found = {(method, route.path) for route in routes for method in (*route.methods, "HEAD", "OPTIONS")}
    found |= {(method, path) for path, ways in client.app.openapi()["paths"].items() for method in map(str.upper, ways)}  # type: ignore[attr-defined]
    found |= {
        ("GET", "/nothing"),
        ("POST", "/web/page.js"),
        ("OPTIONS", "/v1/search"),
        ("HEAD", "/"),
        ("PUT", "/healthz/"),
    }
    return sorted((method, path.replace("{item:int}", "1").replace("{item}", "1")) for method, path in found)


def test_every_route_but_healthz_wants_the_token(guarded: TestClient) -> None:
    asked = addresses(guarded)
    assert {"/", "/openapi.json", "/metrics", "/readyz", "/v1/search", "/v1/items/1/media", "/knn-service"} <= {
        path for _, path in asked
    }
    for method, path in asked:
        answered = guarded.request(method, path)
        expected = (200, 405) if path == "/healthz" else (401,)
        assert answered.status_code in expected, (method, path)
        assert "content-security-policy" in answered.headers
        for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", f"Basic {TOKEN}", "Bearer \xff"):
            headers = {"Authorization": wrong.encode("latin-1")}
            assert guarded.request(method, path, headers=headers).status_code in expected, (method, path)  # type: ignore[arg-type]


def test_tokens_are_compared_in_a_time_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda *both: compared.append(both) or both[0] == both[1])
    asked = {"path": "/v1/info", "method": "GET", "query_string": b"", "headers": [], "client": None}
    held = tokens.Tokens(TOKEN)
    assert held.brought(asked, {"authorization": f"Bearer {TOKEN}"})
    assert not held.brought(asked, {"authorization": "Bearer x", "cookie": "xmr=y"})
    assert {given for given, _ in compared} >= {TOKEN.encode(), b"x", b"y"}


def test_the_token_opens_by_header_and_by_the_pages_cookie(guarded: TestClient) -> None:
    assert guarded.get("/v1/info", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get(f"/v1/info?token={TOKEN}").status_code == 401
    opened = guarded.get(f"/?token={TOKEN}")
    assert opened.status_code == 200
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert guarded.get("/v1/info", headers={"Cookie": cookie.partition(";")[0]}).status_code == 200
    guarded.cookies.clear()


def test_another_address_needs_a_token_or_a_word(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        with pytest.raises(UsageError, match="--token"):
            Settings(host=host)
        assert Settings(host=host, insecure=True).host == host
        assert Settings(host=host, token=TOKEN).host == host
    assert all(Settings(host=host).is_local for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"))


def test_pages_elsewhere_may_not_ask(client: TestClient) -> None:
    for origin in ("https://example.org", "null", "http://127.0.0.1:9", "http://"):
        answered = client.post("/v1/search", json={"text": "a dog"}, headers={"Origin": origin})
        assert answered.status_code == 403, origin
        assert "access-control-allow-origin" not in answered.headers
    assert client.post("/v1/search", json={"text": "a dog"}, headers={"Origin": LOCAL}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "evil.example:8000"):
        assert client.get("/v1/info", headers={"Host": host}).status_code == 421, host


def test_origins_that_were_named_may_ask(finished_world: Path) -> None:
    with client_of(finished_world, cors=("https://example.org",)) as client:
        asked = client.get("/v1/info", headers={"Origin": "https://example.org"})
        assert asked.headers["access-control-allow-origin"] == "https://example.org"
        assert "Retry-After" in asked.headers["access-control-expose-headers"]
        wish = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        allowed = client.options("/v1/search", headers=wish)
        assert (allowed.status_code, "POST" in allowed.headers["access-control-allow-methods"]) == (204, True)
        assert client.options("/v1/search", headers=wish | {"Origin": "https://example.com"}).status_code == 403
        assert client.options("/v1/search").headers["allow"] == "POST"
        assert client.get("/nothing").status_code == client.get("/v1/items/none").status_code == 404
        assert client.get("/v1/info", headers={"Origin": "https://example.com"}).status_code == 403


def test_every_answer_has_the_headers_that_keep_a_page_apart(client: TestClient) -> None:
    for path in ("/healthz", "/v1/info", "/nothing", "/"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self'")
        for part in ("object-src 'none'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"):
            assert part in policy
        assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["permissions-policy"].startswith("microphone=(self), camera=()")
        assert "cache-control" in headers
        assert "access-control-allow-origin" not in headers


def test_a_body_that_is_too_large_is_refused_announced_or_not(finished_world: Path) -> None:
    with client_of(finished_world, max_body_bytes=1000) as client:
        large = b'{"text": "' + b"a" * 2000 + b'"}'
        for path in ("/v1/search", "/v1/embeddings", "/knn-service", "/v1/items"):
            headers = {"Content-Type": "application/json"}
            assert client.post(path, content=large, headers=headers).status_code == 413, path
            parts = iter([large[:500], large[500:]])
            unannounced = client.post(path, content=parts, headers=headers).status_code
            # a server that does not write says so before it reads
            assert unannounced == (403 if path == "/v1/items" else 413), path


def test_a_full_queue_says_when_to_come_again(finished_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is being answered, and one waits."""
    begun, go, real = threading.Event(), threading.Event(), batcher.answers

    def held(*arguments: Any) -> Any:
        begun.set()
        assert go.wait(30)
        return real(*arguments)

    monkeypatch.setattr(batcher, "answers", held)
    with client_of(finished_world, max_waiting=1) as client, ThreadPoolExecutor(2) as clients:
        search = functools.partial(client.post, "/v1/search", json={"text": "a dog"})
        asked = [clients.submit(search)]
        assert begun.wait(30)
        asked.append(clients.submit(search))
        until_s = time.monotonic() + 30
        while not client.app.state.service.batcher.n_waiting:  # type: ignore[attr-defined]
            assert time.monotonic() < until_s
            time.sleep(0.01)
        refused = search()
        go.set()
        assert [one.result().status_code for one in asked] == [200, 200]
        assert search().status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
    assert int(refused.headers["retry-after"]) >= 1


def test_nothing_that_was_asked_stands_in_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmr.engine.serve import search

    def fail(*arguments: object) -> None:
        raise ValueError("a very private sentence")

    monkeypatch.setattr(search, "hit_of", fail)
    with caplog.at_level(logging.DEBUG, logger="xmr.serve"):
        answered = client.post("/v1/search", json={"text": "a dog"})
    assert (answered.status_code, answered.json()["error"]["code"]) == (500, "failed")
    told = [record.getMessage() for record in caplog.records if record.name == "xmr.serve"]
    assert any("ValueError in" in line for line in told)
    assert not any("private" in line or "a dog" in line for line in told)


def test_names_and_captions_come_as_data(world: Path) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    shutil.copy(next((world / "corpus").rglob("*.jpg")), world / "corpus" / name)
    item = indexed(world, world / "corpus" / name)
    with client_of(world) as client:
        told = client.get(f"/v1/items/{item}")
        assert told.headers["content-type"] == "application/json"
        assert told.json()["path"] == name
        assert "<" not in client.get(f"/v1/items/{item}/media").headers["content-disposition"]

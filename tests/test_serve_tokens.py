"""How a browser gets in where a token is needed: the page that asks for it, its cookie, how often it may be tried."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import serving
from serving import LOCAL, TOKEN, TestClient, client_of

from xmr.engine.serve.tokens import MAX_ADDRESSES, MAX_WRONG, WINDOW_S, Tokens

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Origin": LOCAL}


@pytest.fixture(scope="module")
def opened(finished_world: Path) -> Iterator[TestClient]:
    with client_of(finished_world, token=TOKEN) as client:
        yield client


@pytest.fixture
def guarded(opened: TestClient) -> Iterator[TestClient]:
    opened.cookies.clear()
    yield opened
    opened.cookies.clear()


def test_a_browser_without_the_token_is_asked_for_it(guarded: TestClient) -> None:
    answered = guarded.get("/?q=bell", headers=BROWSER)
    assert (answered.status_code, answered.headers["www-authenticate"]) == (401, "Bearer")
    assert answered.headers["content-type"] == "text/html; charset=utf-8"
    assert answered.headers["cache-control"] == "no-store"
    assert re.search(r'<form method="post">', answered.text)
    assert "<script" not in answered.text
    assert "default-src 'none'" in answered.headers["content-security-policy"]
    assert "set-cookie" not in answered.headers
    assert guarded.get("/").json()["error"]["code"] == "no_token"  # a program
    assert guarded.get("/v1/info", headers=BROWSER).json()["error"]["code"] == "no_token"


def test_the_form_opens_what_was_asked_for(guarded: TestClient) -> None:
    answered = guarded.post(
        "/?q=a+bell&token=x&to=image", content=f"token={TOKEN}", headers=FORM | BROWSER, follow_redirects=False
    )
    assert (answered.status_code, answered.headers["location"]) == (303, "./?q=a+bell&to=image")
    cookie = answered.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie
    assert guarded.get("/v1/info").status_code == 200
    assert guarded.get("/", headers=BROWSER).status_code == 200
    left = guarded.delete("/")
    assert (left.status_code, "Max-Age=0" in left.headers["set-cookie"]) == (204, True)
    assert guarded.get("/v1/info").status_code == 401


def test_the_cookie_stays_on_https_where_it_came_so(guarded: TestClient) -> None:
    headers = FORM | {"Origin": "https://127.0.0.1"}
    answered = guarded.post("/", content=f"token={TOKEN}", headers=headers, follow_redirects=False)
    assert "; Secure" in answered.headers["set-cookie"]


@pytest.mark.parametrize("sent", [b"token=wrong", b"token=", b"", b"\xff\xfe", b"token=" + b"a" * 100_000, b"&" * 1000])
def test_a_wrong_token_is_said_to_be_wrong(guarded: TestClient, sent: bytes) -> None:
    answered = guarded.post("/", content=sent, headers=FORM)
    assert answered.status_code == 401
    assert ("wrong" in answered.text) == (sent == b"token=wrong")
    assert "set-cookie" not in answered.headers


def test_a_page_elsewhere_cannot_post_the_form(guarded: TestClient) -> None:
    answered = guarded.post("/", content=f"token={TOKEN}", headers=FORM | {"Origin": "https://evil.example"})
    assert (answered.status_code, "set-cookie" in answered.headers) == (403, False)


def test_cookies_of_others_beside_it_do_no_harm(guarded: TestClient) -> None:
    cookie = guarded.get(f"/?token={TOKEN}").headers["set-cookie"].partition(";")[0]
    guarded.cookies.clear()
    for beside in ('{"a":[1,2]}=b', "x=\x01", "=;;=", 'open="half'):
        assert guarded.get("/v1/info", headers={"Cookie": f"{beside}; {cookie}; a=b"}).status_code == 200
    for other in ("xmr=another-server's", "xmr=; xmr=b"):  # of the same name: a port tells none apart
        assert guarded.get("/v1/info", headers={"Cookie": f"{other}; {cookie}"}).status_code == 200
    for wrong in ("xmr=", "xmr", f"xmr={TOKEN}", cookie[:-1]):
        assert guarded.get("/v1/info", headers={"Cookie": wrong}).status_code == 401


def scope(host: str) -> dict[str, object]:
    return {"client": (host, 1), "path": "/v1/info", "method": "GET", "query_string": b"", "headers": []}


def test_a_short_token_is_tried_a_few_times_only() -> None:
    now = [0.0]
    tokens = Tokens("a short one", lambda: now[0])
    cookie = tokens.cookie_for({}).partition(";")[0]
    for number in range(MAX_WRONG):
        assert not tokens.fits(f"wrong {number}", scope("192.0.2.1"))
    assert not tokens.fits("a short one", scope("192.0.2.1"))
    assert tokens.are_spent(scope("192.0.2.1"))
    assert tokens.brought(scope("192.0.2.1"), {"cookie": cookie})  # who is in stays in
    assert tokens.fits("a short one", scope("192.0.2.2"))
    now[0] = WINDOW_S
    assert tokens.fits("a short one", scope("192.0.2.1"))


def test_a_house_of_ipv6_counts_as_one_and_memory_is_bounded() -> None:
    tokens = Tokens("a short one")
    for number in range(MAX_WRONG):
        tokens.fits("wrong", scope(f"2001:db8::{number:x}"))
    assert tokens.are_spent(scope("2001:db8::ffff"))
    assert not tokens.are_spent(scope("2001:db8:0:1::1"))
    for number in range(2 * MAX_ADDRESSES):
        tokens.fits("wrong", scope(f"10.0.{number // 256}.{number % 256}"))
    assert len(tokens._guesses._wrong) == MAX_ADDRESSES


def test_a_long_token_is_never_held_back() -> None:
    tokens = Tokens(TOKEN)
    for _ in range(2 * MAX_WRONG):
        tokens.fits("wrong", scope("192.0.2.1"))
    assert tokens.fits(TOKEN, scope("192.0.2.1"))


def test_a_browser_signs_in_by_the_form(browser: object, finished_world: Path) -> None:
    with serving(finished_world, token=TOKEN) as found:
        page = browser.new_page(base_url=found)  # type: ignore[attr-defined]
        page.goto("/?q=bell&to=image")
        page.fill("#token", "wrong one")
        page.press("#token", "Enter")
        page.wait_for_selector("text=That token is wrong")
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector(".card")
        assert page.url == f"{found}/?q=bell&to=image"
        page.close()

"""The search page in a headless Chromium, against the server itself and an index of a tiny world."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_page import browser, until  # noqa: F401, a fixture

START_S = 60


@contextmanager
def serving(world: Path, token: str | None = None) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    pytest.importorskip("fastapi", reason='FastAPI is missing; `pip install "xmr[serve]"`')
    uvicorn = pytest.importorskip("uvicorn", reason='uvicorn is missing; `pip install "xmr[serve]"`')
    from xmr.engine.serve.app import make_app
    from xmr.engine.serve.settings import Settings

    app = make_app(world / ".xmr" / "index", world / ".xmr" / "model", Settings(token=token))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until_s = time.monotonic() + START_S
        while not server.started and thread.is_alive() and time.monotonic() < until_s:
            time.sleep(0.05)
        assert server.started
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(finished_world: Path) -> Iterator[str]:
    with serving(finished_world) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:  # noqa: F811
    context = browser.new_context(base_url=address)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.goto("/")
    opened.wait_for_selector("#about span")
    yield opened
    context.close()
    assert not errors


def search(page: Any, words: str) -> None:
    page.fill("#words", words)
    page.press("#words", "Enter")
    page.wait_for_selector(".card")


def test_words_find_pictures_and_sounds(page: Any) -> None:
    search(page, "a red bell")
    shown = page.locator(".card").evaluate_all("cards => cards.map((card) => card.ariaLabel)")
    assert len(shown) == 24
    assert any("image" in label for label in shown)
    until(page, "document.querySelector('.view img')?.naturalWidth > 0")


def test_a_sound_of_the_index_plays_and_shows_its_waveform(page: Any) -> None:
    page.goto("/?q=rain&to=sound")
    until(page, "document.querySelector('.wave input')?.max > 0")
    page.click(".sound .play >> nth=0")
    until(page, "document.querySelector('audio').currentTime > 0")


def test_a_file_of_the_index_is_searched_by(page: Any, finished_world: Path) -> None:
    [picture, *_] = sorted((finished_world / "corpus").rglob("*.jpg"))
    page.set_input_files("#file", picture)
    page.wait_for_selector(".card")
    assert page.locator(".card").first.get_attribute("aria-label").startswith("1: image, ")
    assert picture.name in page.locator(".card").first.get_attribute("aria-label")


def test_a_hit_is_looked_into_or_says_why_not(page: Any) -> None:
    page.goto("/?q=a+red+bell&to=image")
    page.wait_for_selector(".card")
    if page.locator("button:has-text('Where?')").count():
        page.click("button:has-text('Where?') >> nth=0")
        page.wait_for_selector("canvas.heat, .found.bad")


def test_a_bad_condition_is_told(page: Any) -> None:
    page.goto("/?q=bell&where=modality+%3D+'image'+AND+size+%3E+0")
    page.wait_for_selector(".card")
    assert page.locator("#filters-set").text_content() == "(1 set)"


def test_a_token_in_the_address_opens_all_of_the_page(browser: Any, finished_world: Path) -> None:  # noqa: F811
    with serving(finished_world, token="a-long-secret") as found:
        opened = browser.new_page(base_url=found)
        opened.goto("/?token=a-long-secret&q=bell&to=image")
        opened.wait_for_selector(".card")
        until(opened, "document.querySelector('.view img')?.naturalWidth > 0")
        assert opened.url == f"{found}/?q=bell&to=image"
        opened.reload()
        opened.wait_for_selector(".card")
        opened.close()

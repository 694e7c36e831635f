"""A page in a headless Chromium, on a small server that speaks its API, and what a reader does with it."""

import base64
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from standin import Standin, served, standin

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
SANDBOX = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root has to do without
WAIT_MS = 30_000
START_S = 60  # that a server may take
Page = Any  # playwright's, which may be missing


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing; `pip install playwright`")
    if CHROMIUM is None:
        pytest.skip("Chromium is missing; `apt-get install chromium`")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *SANDBOX])
        yield opened
        opened.close()


@pytest.fixture
def server() -> Iterator[Standin]:
    with served(standin()) as made:
        yield made


@pytest.fixture
def page(browser: Any, server: Standin) -> Iterator[Page]:
    """A page of a first-time reader, who may be heard."""
    with opened_page(browser, server.address, permissions=["microphone"]) as opened:
        opened.context.set_default_timeout(WAIT_MS)
        yield opened


@contextmanager
def opened_page(browser: Any, address: str, **options: Any) -> Iterator[Page]:
    """The page of a server, once it knows what is there; any error in its console fails the test."""
    context = browser.new_context(base_url=address, **options)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if is_error(message) else None)
    opened.goto("/")
    opened.wait_for_selector("#about span")
    yield opened
    context.close()
    assert not errors


def is_error(message: Any) -> bool:
    """What the browser says of an answer of 4xx and 5xx is told by the page too."""
    return message.type == "error" and "Failed to load resource" not in message.text


def search(page: Page, words: str) -> None:
    page.fill("#words", words)
    page.press("#words", "Enter")
    until(page, "document.getElementById('told').textContent.includes('hit')")


def until(page: Page, claim: str) -> None:
    """Wait until an expression holds; playwright does so by code from strings, which the policy forbids."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(claim):
        assert time.monotonic() < end, f"still not: {claim}"
        page.wait_for_timeout(30)


def titles(page: Page) -> list[str]:
    return list(page.locator(".card .title").all_text_contents())


def give(page: Page, how: str, *files: tuple[str, str, bytes], onto: str = "body") -> None:
    """Drop or paste files of (name, type, content)."""
    page.evaluate(
        """([files, how, onto]) => {
            const transfer = new DataTransfer();
            for (const [name, kind, content] of files) {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type: kind }));
            }
            const how_far = { bubbles: true, cancelable: true };
            document.querySelector(onto).dispatchEvent(how === "drop"
                ? new DragEvent("drop", { dataTransfer: transfer, ...how_far })
                : new ClipboardEvent("paste", { clipboardData: transfer, ...how_far }));
        }""",
        [[(name, kind, base64.b64encode(content).decode()) for name, kind, content in files], how, onto],
    )


@contextmanager
def serving(world: Path, prefix: str = "", **settings: Any) -> Iterator[str]:
    """The address of the server itself, in a thread of this process, over the index of a workspace.

    Before it stands what a proxy does that puts it under a prefix.
    """
    pytest.importorskip("fastapi", reason='FastAPI is missing; `pip install "xmr[serve]"`')
    uvicorn = pytest.importorskip("uvicorn", reason='uvicorn is missing; `pip install "xmr[serve]"`')
    from xmr.engine.serve.app import make_app
    from xmr.engine.serve.settings import Settings

    app = make_app(world / ".xmr" / "index", world / ".xmr" / "model", Settings(**settings))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(without(prefix, app), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until_s = time.monotonic() + START_S
        while not server.started and thread.is_alive() and time.monotonic() < until_s:
            time.sleep(0.05)
        assert server.started
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}{prefix}"
        finally:
            server.should_exit = True
            thread.join()


def without(prefix: str, app: Any) -> Any:
    """An application that is asked for what is under a prefix."""

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith(f"{prefix}/"), scope["path"]
            scope = {**scope, "path": scope["path"].removeprefix(prefix)}
        await app(scope, receive, send)

    return asked if prefix else app

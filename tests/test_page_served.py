"""The search page in a headless Chromium, against the server itself and an index of a tiny world."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import opened_page, serving, until
from conftest import must_run
from page_picture import SIZE, take
from standin import picture as drawn


@pytest.fixture(scope="module")
def address(finished_world: Path) -> Iterator[str]:
    with serving(finished_world) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened_page(browser, address) as opened:
        yield opened


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


def test_a_picture_and_words_are_one_question(page: Any, finished_world: Path) -> None:
    [picture, *_] = sorted((finished_world / "corpus").rglob("*.jpg"))
    page.set_input_files("#file", picture)
    page.wait_for_selector(".card")
    alone = page.text_content(".card .score >> nth=0")
    page.fill("#words", "a red bell")
    page.press("#words", "Enter")
    page.wait_for_selector("#told:has-text('“a red bell” and')")
    page.select_option(".part select[aria-label^=Weight]", "4")
    until(page, f"document.querySelector('.card .score').textContent !== '{alone}'")
    page.click("[aria-label^='Not like']")
    page.wait_for_selector("#told:has-text('and not')")


def test_a_hit_is_looked_into_or_says_why_not(page: Any) -> None:
    maps = page.evaluate("fetch('/v1/info').then((answer) => answer.json()).then((info) => info.maps)")
    page.goto("/?q=a+red+bell&to=image")
    page.wait_for_selector(".card")
    look = page.locator("button:has-text('Where?')")
    assert (look.count() > 0) == ("image" in maps)
    if "image" in maps:
        look.first.click()
        page.wait_for_selector("canvas.heat")


def test_a_hit_is_searched_by_and_opens(page: Any) -> None:
    page.goto("/?q=rain&to=image")
    page.click(".card .search-by >> nth=0")
    page.wait_for_selector(".part img")
    until(page, "Number(document.querySelector('.card .score').lastChild.textContent) > 0.99")
    media = page.evaluate("fetch(document.querySelector('.actions a.open').href).then((answer) => answer.status)")
    assert media == 200


def test_a_condition_narrows_and_a_bad_one_is_told_beside_it(page: Any) -> None:
    page.goto("/?q=bell&where=modality+%3D+'image'+AND+size+%3E+0")
    page.wait_for_selector(".card")
    assert page.locator("#filters-set").text_content() == "(1 set)"
    page.click("#filters")
    page.fill("#where", "colour = 'red'")
    page.press("#where", "Enter")
    page.wait_for_selector("#where-bad:has-text('colour')")
    assert page.get_attribute("#where", "aria-invalid") == "true"


def test_a_phone_shows_one_column(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    search(page, "a red bell")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_names_and_captions_of_an_index_never_become_markup(browser: Any, world: Path) -> None:
    name = "<img src=x onerror=window.owned=1>.jpg"
    [picture, *_] = sorted((world / "corpus").rglob("*.jpg"))
    (world / "corpus" / name).write_bytes(picture.read_bytes())
    (world / "corpus" / "evil.txt").write_text(
        "a red bell <script>window.owned=1</script><img src=x onerror=window.owned=1>\n"
    )
    must_run("index", "corpus", cwd=world)
    with serving(world) as found:
        opened = browser.new_page(base_url=found)
        opened.goto("/?q=red+bell&where=path+LIKE+'%25onerror%25'+OR+path+LIKE+'%25evil.txt'")
        opened.wait_for_selector(".card")
        until(opened, "document.querySelector('.view img')?.naturalWidth > 0")
        assert opened.locator(".card .title", has_text=name).count() == 1
        assert opened.locator(".card .said", has_text="<script>").count() == 1
        assert opened.evaluate("window.owned") is None
        opened.close()


def test_files_are_added_and_deleted(browser: Any, world: Path) -> None:
    with serving(world, writable=True) as found:
        opened = browser.new_page(base_url=found)
        opened.goto("/?to=image")
        opened.wait_for_selector("#add")
        files = [{"name": "grey.jpg", "mimeType": "image/jpeg", "buffer": drawn((99, 99, 99))}]
        opened.set_input_files("#adding", files)
        opened.wait_for_selector("#told:has-text('1 item added')")
        opened.set_input_files("#file", files)
        opened.wait_for_selector(".part")
        opened.wait_for_selector(".card:has-text('1.000')")
        first = opened.get_attribute(".card >> nth=0", "aria-label")
        opened.click(".card summary >> nth=0")
        opened.click(".card .bad >> nth=0")
        opened.click("#deleting button[value=item]")
        opened.wait_for_selector("#told:has-text('is deleted')")
        opened.reload()
        opened.wait_for_selector("#state:has-text('This search was by a picture')")
        assert first.startswith("1: image")
        opened.close()


def test_the_picture_of_the_page_shows_hits(page: Any, tmp_path: Path) -> None:
    from PIL import Image

    take(page, tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (SIZE["width"], SIZE["height"])
        assert (tmp_path / "page.png").stat().st_size > 30_000  # an empty page has 10,000


def test_a_token_in_the_address_opens_all_of_the_page(browser: Any, finished_world: Path) -> None:
    with serving(finished_world, token="a-long-secret") as found:
        opened = browser.new_page(base_url=found)
        opened.goto("/?token=a-long-secret&q=bell&to=image")
        opened.wait_for_selector(".card")
        until(opened, "document.querySelector('.view img')?.naturalWidth > 0")
        assert opened.url == f"{found}/?q=bell&to=image"
        opened.reload()
        opened.wait_for_selector(".card")
        opened.close()


def test_the_page_works_below_a_prefix_of_a_proxy(browser: Any, finished_world: Path) -> None:
    with serving(finished_world, "/media/search", token="a-long-secret") as found:
        opened = browser.new_page()
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(f"{found}/?q=bell&to=image")
        opened.fill("#token", "a-long-secret")
        opened.press("#token", "Enter")
        opened.wait_for_selector(".card")
        until(opened, "document.querySelector('.view img')?.naturalWidth > 0")
        assert opened.url == f"{found}/?q=bell&to=image"
        opened.click(".card .search-by >> nth=0")
        opened.wait_for_selector(".part img")
        opened.click(".home")
        until(opened, "!location.search")
        assert opened.url == f"{found}/"
        assert all(url.startswith(f"{found}/") for url in asked if not url.startswith(("data:", "blob:")))
        opened.close()

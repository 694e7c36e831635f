"""The search page in a headless Chromium, against a small server that speaks its API."""

import base64
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standin import ATTACK, WEB, Standin, picture, served, standin, tone

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
WAIT_MS = 30_000
Page = Any  # playwright's, which may be missing


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing; `pip install playwright`")
    if CHROMIUM is None:
        pytest.skip("Chromium is missing; `apt-get install chromium`")
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def server() -> Iterator[Standin]:
    with served(standin()) as made:
        yield made


@pytest.fixture
def page(browser: Any, server: Standin) -> Iterator[Page]:
    """A page of a first-time reader; any error in its console fails the test."""
    context = browser.new_context(base_url=server.address, permissions=["microphone"])
    context.set_default_timeout(WAIT_MS)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if _is_error(message) else None)
    opened.goto("/")
    opened.wait_for_selector("#about span")
    yield opened
    context.close()
    assert not errors


def _is_error(message: Any) -> bool:
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


def give(page: Page, name: str, kind: str, content: bytes, how: str) -> None:
    """Drop or paste a file on the page."""
    page.evaluate(
        """([name, kind, content, how]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: kind }));
            const how_far = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(how === "drop" ? new DragEvent("drop", { dataTransfer: transfer, ...how_far })
                : new ClipboardEvent("paste", { clipboardData: transfer, ...how_far }));
        }""",
        [name, kind, base64.b64encode(content).decode(), how],
    )


def test_words_are_searched_and_stand_in_the_address(page: Page, server: Standin) -> None:
    search(page, "red bell")
    assert server.asked[-1] == {"text": ["red bell"], "k": 25, "offset": 0}
    assert titles(page)[:2] == ["red.jpg", "tone.wav"]
    assert page.url.endswith("/?q=red+bell")
    assert page.locator("#told").text_content() == "6 hits for “red bell” in 3 ms."


def test_history_goes_back_and_forth(page: Page) -> None:
    search(page, "one")
    search(page, "two")
    page.go_back()
    until(page, "document.title.includes('one')")
    assert page.input_value("#words") == "one"
    page.go_back()
    page.wait_for_selector(".tour, .examples")
    page.go_forward()
    until(page, "document.title.includes('one')")


def test_a_shared_address_asks_the_same_question(page: Page, server: Standin) -> None:
    page.goto("/?q=rain&to=image&min=0.1&where=size+%3E+3&group=file&fold=0.98&like=-1&page=2")
    until(page, "document.getElementById('told').textContent.includes('hit')")
    expected = {"text": ["rain"], "to": ["image"], "min_score": 0.1, "where": "size > 3", "group": "file", "fold": 0.98}
    assert server.asked[-1] == expected | {"minus_like": [1], "k": 25, "offset": 24}
    page.wait_for_selector(".part:has-text('red.jpg')")
    assert page.text_content("#filters-set") == "(4 set)"


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_given_picture_is_searched_by(page: Page, server: Standin, how: str) -> None:
    content = picture()
    give(page, "given.jpg", "image/jpeg", content, how)
    page.wait_for_selector(".card")
    assert server.asked[-1]["image"] == [f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"]
    assert page.locator(".part .name").text_content() == "given.jpg"


def test_a_given_sound_may_be_speech_and_be_turned_away_from(page: Page, server: Standin) -> None:
    page.set_input_files("#file", {"name": "dog.wav", "mimeType": "audio/wav", "buffer": tone(0.1)})
    page.wait_for_selector(".card")
    assert list(server.asked[-1]) == ["k", "offset", "sound"]
    page.select_option(".part select", "speech")
    page.wait_for_selector(".part select:has(option[value=speech][selected])")
    page.click(".part [aria-label='Not like dog.wav']")
    page.wait_for_selector(".part.minus")
    page.wait_for_selector(".card")
    assert "minus_speech" in server.asked[-1]


def test_a_recording_is_sent_as_a_wav_file(page: Page, server: Standin) -> None:
    page.click("#record")
    until(page, "document.getElementById('record').textContent.startsWith('Stop 1')")
    page.click("#record")
    page.wait_for_selector(".card")
    content = base64.b64decode(server.asked[-1]["sound"][0].removeprefix("data:audio/wav;base64,"))
    assert (content[:4], content[8:16]) == (b"RIFF", b"WAVEfmt ")
    assert len(content) > 16_000


@pytest.mark.parametrize(
    ("name", "kind", "content", "said"),
    [
        ("notes.pdf", "application/pdf", b"x", "neither a picture, a sound nor a video"),
        ("empty.jpg", "image/jpeg", b"", "an empty file"),
        ("long.wav", "audio/wav", bytes(900_000), "0.9 MB found, at most 0.7 MB can be sent"),
    ],
)
def test_a_file_that_cannot_be_asked_with_is_refused(
    page: Page, server: Standin, name: str, kind: str, content: bytes, said: str
) -> None:
    give(page, name, kind, content, "drop")
    page.wait_for_selector("#alert:not([hidden])")
    assert said in page.text_content("#alert")
    assert not server.asked


def test_a_file_that_a_link_cannot_hold_is_asked_for(page: Page) -> None:
    page.goto("/?by=image&to=sound")
    page.wait_for_selector("#state:has-text('This search was by a picture')")
    page.goto("/?q=red&by=sound")
    page.wait_for_selector("#alert:has-text('This search was by a sound')")
    page.wait_for_selector(".card")


def test_the_skip_link_goes_to_the_hits_and_asks_nothing(page: Page, server: Standin) -> None:
    search(page, "red")
    page.focus("#skip")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.matches('.card')")
    assert len(server.asked) == 1


def test_a_hit_is_searched_by(page: Page, server: Standin) -> None:
    search(page, "red")
    page.click(".card .by")
    page.wait_for_selector(".part:has-text('red.jpg')")
    assert server.asked[-1] == {"like": [1], "k": 25, "offset": 0}
    assert page.url.endswith("/?like=1")


def test_keys_reach_everything(page: Page, server: Standin) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "words"
    search(page, "red")
    page.keyboard.press("ArrowDown")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused).startswith("1: image")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused).startswith("2: sound")
    page.keyboard.press(" ")
    until(page, "!document.querySelector('audio').paused")
    page.keyboard.press(" ")
    until(page, "document.querySelector('audio').paused")
    page.keyboard.press("Home")
    page.keyboard.press("w")
    page.wait_for_selector("canvas.heat")
    page.keyboard.press("Enter")
    page.wait_for_selector(".part:has-text('red.jpg')")
    until(page, "document.activeElement.matches('.card')")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "words"


def test_a_sound_starts_at_its_second(page: Page) -> None:
    search(page, "red")
    page.click("[aria-label='Play sounds/tone.wav']")
    until(page, "!document.querySelector('audio').paused && document.querySelector('audio').currentTime >= 1")
    assert page.evaluate("document.querySelector('audio').currentTime") < 2.5
    assert page.text_content(".sound .play") == "Pause"


def test_a_moment_of_a_video_starts_at_its_second(page: Page, server: Standin) -> None:
    if not server.media[4][1]:
        pytest.skip("PyAV or its VP8 encoder is missing; `pip install av`")
    search(page, "red")
    page.click("[aria-label='Play clip.webm from 0:02.0']")
    until(page, "document.querySelector('video')?.currentTime >= 2")


def test_where_in_a_picture_is_drawn_over_it(page: Page, server: Standin) -> None:
    search(page, "red")
    page.click("button:has-text('Where?')")
    page.wait_for_selector("canvas.heat")
    assert server.looked == ["/v1/items/1/where?text=red"]
    assert page.get_attribute("canvas.heat", "aria-label") == "Strongest at the top left"
    alpha = "(([x, y]) => document.querySelector('canvas.heat').getContext('2d').getImageData(x, y, 1, 1).data[3])"
    assert page.evaluate(f"{alpha}([500, 50])") > 100  # hot, of 640 pixels' width
    assert page.evaluate(f"{alpha}([40, 400])") == 0  # outside of what the map covers
    page.click("button:has-text('Where?')")
    assert page.locator("canvas.heat").count() == 0


def test_when_in_a_sound_is_drawn_behind_it(page: Page) -> None:
    search(page, "red")
    page.click("button:has-text('When?')")
    page.wait_for_selector(".found:has-text('from 0:01.0 to 0:02.0')")
    reddest = """() => {
        const canvas = document.querySelector('.wave canvas');
        const at = (share) => canvas.getContext('2d').getImageData(share * canvas.width, 2, 1, 1).data[3];
        return [at(0.37), at(0.1)];
    }"""
    inside, outside = page.evaluate(reddest)
    assert inside > 0
    assert outside == 0


def test_a_refused_look_says_why(page: Page) -> None:
    search(page, "no maps")
    page.click("button:has-text('Where?')")
    page.wait_for_selector(".found.bad:has-text('keeps no maps of image')")


def test_filters_narrow_and_are_cleared(page: Page, server: Standin) -> None:
    search(page, "red")
    page.check("#to input[value=image]")
    until(page, "document.querySelectorAll('.card').length === 3")
    page.click("#filters summary")
    page.fill("#min", "0.95")
    page.press("#min", "Enter")
    page.wait_for_selector("#state:has-text('Nothing found')")
    assert server.asked[-1] == {"text": ["red"], "to": ["image"], "min_score": 0.95, "k": 25, "offset": 0}
    page.check("#group")
    page.check("#fold")
    until(page, "location.search.includes('fold=0.98')")
    page.click("#state button:has-text('Clear the filters')")
    until(page, "document.querySelectorAll('.card').length === 3")
    assert page.url.endswith("/?q=red&to=image")


def test_a_bad_condition_is_marked_where_it_is(page: Page) -> None:
    page.goto("/?q=red&where=nonsense")
    page.wait_for_selector("#state [role=alert]:has-text('no column nonsense found')")
    assert page.get_attribute("#where", "aria-invalid") == "true"
    assert page.is_visible("#where")


def test_pages_are_turned(page: Page, server: Standin) -> None:
    search(page, "many")
    assert page.locator(".card").count() == 24
    page.click("#later")
    page.wait_for_selector("#page:has-text('Page 2')")
    page.wait_for_selector(".card[aria-label^='25:']")
    assert server.asked[-1]["offset"] == 24
    until(page, "document.activeElement.matches('.card')")


def test_a_busy_server_is_asked_again(page: Page, server: Standin) -> None:
    page.fill("#words", "busy")
    page.press("#words", "Enter")
    page.wait_for_selector("#state:has-text('It is asked again in 1 second.')")
    page.wait_for_selector(".card")
    assert len(server.asked) == 2


def test_a_server_that_is_gone_is_told(page: Page) -> None:
    page.route("**/v1/search", lambda route: route.abort())
    page.fill("#words", "red")
    page.press("#words", "Enter")
    page.wait_for_selector("#state:has-text('The server does not answer')")
    page.unroute("**/v1/search")
    page.click("button:has-text('Try again')")
    page.wait_for_selector(".card")


def test_a_slow_answer_is_waited_for_and_a_later_question_wins(page: Page) -> None:
    page.fill("#words", "slow")
    page.press("#words", "Enter")
    page.wait_for_selector(".skeleton")
    search(page, "red")
    page.wait_for_timeout(800)
    assert "“red”" in page.text_content("#told")


def test_a_token_is_asked_for_and_leaves_the_address(page: Page, server: Standin) -> None:
    server.token = "secret"
    page.goto("/?q=red")
    page.wait_for_selector("#state:has-text('no token found')")
    page.fill("#token", "secret")
    page.press("#token", "Enter")
    page.wait_for_selector(".card")
    assert page.url.endswith("/?q=red")


def test_the_tour_shows_on_first_use_only(page: Page, server: Standin) -> None:
    page.wait_for_selector(".tour")
    page.click(".tour .examples button >> nth=0")
    page.wait_for_selector(".card")
    page.goto("/")
    page.wait_for_selector(".examples")
    assert page.locator(".tour").count() == 0
    page.click("#help")
    page.click("#tour-again")
    page.wait_for_selector(".tour")


def test_an_empty_index_says_how_to_fill_it(page: Page, server: Standin) -> None:
    server.counts = {"image": 0}
    page.goto("/")
    page.wait_for_selector("#state:has-text('xmr index FOLDER')")


def test_names_and_captions_never_become_markup(page: Page) -> None:
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    search(page, ATTACK)
    page.click("summary:has-text('Details') >> nth=4")
    page.click(".card .search-by >> nth=4")
    page.wait_for_selector(".part")
    assert page.evaluate("window.owned") is None
    assert page.locator("main script, main img[onerror]").count() == 0
    assert ATTACK in page.locator(".card dl").nth(4).text_content()
    assert ATTACK in page.locator(".said").nth(1).text_content()
    assert "\u202e" not in page.locator("main").text_content()


def test_an_address_from_a_hit_stays_on_the_server(page: Page, server: Standin) -> None:
    server.items[0]["media"] = "javascript:window.owned=1"
    server.items[0]["thumbnail"] = "https://elsewhere.example/a.png"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    search(page, "red")
    assert page.locator("a[href^=javascript]").count() == 0
    assert not [url for url in asked if "elsewhere" in url]


def test_a_phone_shows_one_column_without_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    search(page, "red")
    page.click("#filters summary")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    lefts = page.evaluate("[...document.querySelectorAll('.card')].map((card) => card.getBoundingClientRect().left)")
    assert len(set(lefts)) == 1
    heights = page.evaluate(
        "[...document.querySelectorAll('main button, .box button')].filter((b) => b.offsetParent"
        " && !b.matches('.by')).map((button) => button.offsetHeight)"
    )
    assert min(heights) >= 44


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    search(page, "red")
    found = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const light = (name) => {
                let hex = style.getPropertyValue(name).trim().slice(1);
                if (hex.length === 3) hex = [...hex].map((digit) => digit + digit).join("");
                const linear = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
                    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
            };
            const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
            const text = ["--ink", "--dim", "--accent", "--bad"].flatMap((ink) =>
                ["--page", "--card", "--well"].map((under) => [ink, under, contrast(ink, under), 4.5]));
            const edges = ["--page", "--card"].map((under) => ["--edge", under, contrast("--edge", under), 3]);
            return [...text, ["--on-accent", "--accent", contrast("--on-accent", "--accent"), 4.5], ...edges];
        }"""
    )
    assert [row for row in found if row[2] < row[3]] == []


def test_every_control_has_a_name(page: Page) -> None:
    search(page, "red")
    page.click("#filters summary")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input:not([hidden]), select, a, canvas[role], img")]
            .filter((one) => !one.ariaLabel && !one.ariaHidden && !one.textContent.trim())
            .filter((one) => !one.labels?.length && one.alt === undefined).map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_axe_finds_nothing(page: Page) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is missing; `pip install axe-playwright-python`"
    )
    search(page, "red")
    page.click("#filters summary")
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def test_the_page_asks_nothing_of_anyone_else() -> None:
    for file in sorted(WEB.iterdir()):
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, file
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|style=", file.read_text()
        ), file


def test_modules_are_small() -> None:
    assert {file.name: n for file in WEB.iterdir() if (n := len(file.read_text().splitlines())) > 300} == {}


def test_the_page_is_part_of_the_package() -> None:
    assert (WEB / "index.html").is_file()
    assert {file.suffix for file in Path(WEB).iterdir()} == {".html", ".css", ".js", ".svg"}

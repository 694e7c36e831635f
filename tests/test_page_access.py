"""The search page by keyboard, on a phone, in the dark and read aloud; and of what it is made."""

import re

import pytest
from browsing import Page, search, until
from standin import WEB, Standin


def test_the_skip_link_goes_to_the_hits_and_asks_nothing(page: Page, server: Standin) -> None:
    search(page, "red")
    page.focus("#skip")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.matches('.card')")
    assert len(server.asked) == 1


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


def test_a_phone_shows_one_column_without_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    search(page, "red")
    page.click("#filters")
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
    page.click("#filters")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input:not([hidden]), select, a, canvas[role], img")]
            .filter((one) => !one.ariaLabel && !one.ariaHidden && !one.textContent.trim())
            .filter((one) => !one.labels?.length && one.alt === undefined).map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_axe_finds_nothing_in_any_state(page: Page, server: Standin) -> None:
    server.is_writable = True
    found = {"tour": violations(page)}
    page.goto("/?q=red&like=2")
    page.click("#filters")
    page.click("button:has-text('Where?')")
    page.wait_for_selector("canvas.heat")
    page.click("button:has-text('When?')")
    page.wait_for_selector(".found:has-text('Heard most')")
    page.click("summary:has-text('Details') >> nth=0")
    found["hits"] = violations(page)
    page.emulate_media(color_scheme="dark")
    found["dark"] = violations(page)
    page.set_viewport_size({"width": 360, "height": 740})
    found["phone"] = violations(page)
    page.click("[aria-label='Delete holiday/red.jpg from the index']")
    found["confirmation"] = violations(page)
    page.goto("/?q=red&where=nonsense")
    page.wait_for_selector("#state [role=alert]")
    found["error"] = violations(page)
    page.goto("/?q=nothing&min=0.2")
    page.wait_for_selector("#state:has-text('Nothing found')")
    found["nothing"] = violations(page)
    page.click("#help")
    found["help"] = violations(page)
    assert {state: told for state, told in found.items() if told} == {}


def violations(page: Page) -> list[tuple[str, list[str]]]:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is missing; `pip install axe-playwright-python`"
    )
    found = axe.Axe().run(page).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


def test_tab_goes_from_the_top_to_the_hits_in_the_order_seen(page: Page) -> None:
    page.goto("/?q=red&like=2")
    page.wait_for_selector(".card")
    page.evaluate("document.activeElement.blur()")
    walked = []
    while "card" not in walked:
        page.keyboard.press("Tab")
        focused = "[document.activeElement.id, document.activeElement.className, document.activeElement.ariaLabel]"
        walked.append(next(filter(None, page.evaluate(focused)), "a box"))
        assert len(walked) < 30
    part = [f"{does} tone.wav" for does in ("Weight of", "Not like", "Remove")]
    assert walked[:9] == ["skip", "home", *part, "words", "weight", "choose", "record"]
    assert walked[-1] == "card"


def test_focus_is_never_lost(page: Page) -> None:
    page.goto("/?like=1&like=2&page=2")
    page.wait_for_selector("#state:has-text('No more hits')")
    for control in (
        "[aria-label='Not like red.jpg']",
        "[aria-label='Remove red.jpg']",
        "[aria-label='Remove tone.wav']",
    ):
        page.wait_for_selector(control)
        page.focus(control)
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement !== document.body"), control
    assert page.evaluate("document.activeElement.id") == "words"


def test_twice_as_large_nothing_is_cut_off(page: Page) -> None:
    page.set_viewport_size({"width": 640, "height": 400})  # what 200 % leaves of 1280 by 800
    search(page, "red")
    page.click("#filters")
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    page.click("#filters")
    assert page.evaluate("getComputedStyle(document.querySelector('header')).position") == "static"


def test_nothing_moves_where_motion_is_unwanted(page: Page) -> None:
    moving = "Array.from(document.querySelectorAll('.skeleton'), (shape) => getComputedStyle(shape).animationName)"
    page.route("**/v1/search", lambda route: None)  # no answer comes
    for wish, name in (("no-preference", "breathe"), ("reduce", "none")):
        page.emulate_media(reduced_motion=wish)
        until(page, "Boolean(document.getElementById('about').textContent)")  # what was in the address is asked by then
        page.fill("#words", "red")
        page.press("#words", "Enter")
        until(page, f"{moving}.includes('{name}')")
        page.goto("/")


def test_cards_and_what_is_pressed_show_in_forced_colours(page: Page) -> None:
    page.emulate_media(forced_colors="active")
    search(page, "red")
    page.click("button:has-text('Where?')")
    page.wait_for_selector("[aria-pressed=true]:has-text('Where?')")
    outline = "getComputedStyle(document.querySelector('.actions [aria-pressed=true]')).outlineStyle"
    assert page.evaluate(outline) == "solid"
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderStyle") == "solid"


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
    assert {file.suffix for file in WEB.iterdir()} == {".html", ".css", ".js", ".svg"}

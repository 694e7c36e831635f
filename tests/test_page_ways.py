"""Ways on of the search page: what a reader can do who waits, is refused, finds nothing, goes back or looks closer."""

import re

import pytest
from browsing import Page, give, search, until
from standin import Standin, picture


def refuse(page: Page, status: int, code: str, message: str, retry_s: int | None = None) -> list[str]:
    """Every search is refused; the addresses that were asked."""
    asked: list[str] = []
    headers = {} if retry_s is None else {"retry-after": str(retry_s)}

    def answer(route: Page) -> None:
        asked.append(route.request.url)
        route.fulfill(status=status, headers=headers, json={"error": {"message": message, "code": code}})

    page.route("**/v1/search", answer)
    return asked


def press_search(page: Page, words: str) -> None:
    page.fill("#words", words)
    page.press("#words", "Enter")


def test_a_busy_server_shows_no_pages_and_is_asked_now_on_wish(page: Page, server: Standin) -> None:
    search(page, "many")
    assert page.is_visible("#pages")
    asked = refuse(page, 503, "busy", "200 questions wait already; ask again in a minute", 60)
    press_search(page, "red")
    page.wait_for_selector("#state button:has-text('Try now')")
    assert page.is_hidden("#pages")
    assert page.text_content("#told") == ""
    assert len(asked) == 1
    page.unroute("**/v1/search")
    page.click("#state button:has-text('Try now')")
    page.wait_for_selector(".card")


@pytest.mark.parametrize(("code", "title"), [("too_slow", "That took too long"), ("no_index", "could not be searched")])
def test_a_refusal_other_than_busy_is_not_asked_again(page: Page, code: str, title: str) -> None:
    asked = refuse(page, 503, code, "the answer took longer than 30 s; ask for less", 1)
    press_search(page, "red")
    page.wait_for_selector(f"#state:has-text('{title}')")
    page.wait_for_timeout(1200)  # longer than it would wait
    assert len(asked) == 1
    assert page.is_visible("#state button:has-text('Try again')")


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refusal_of_what_is_asked_has_ways_out(page: Page, status: int) -> None:
    refuse(page, status, "bad", "offset: 100 found; give less")
    page.goto("/?q=red&to=image&min=0.5&page=2")
    page.wait_for_selector("#state [role=alert]:has-text('offset: 100 found')")
    ways = page.locator("#state button").all_text_contents()
    wanted = ["To the first page", "Any score", "Clear the filters", "Find in all modalities", "Start again"]
    assert ways == wanted
    page.unroute("**/v1/search")
    page.click("#state button:has-text('Any score')")
    page.wait_for_selector(".card")
    assert "min=" not in page.url


def test_a_file_that_is_refused_can_be_taken_out(page: Page, server: Standin) -> None:
    refuse(page, 422, "bad_file", "image 2: no picture can be read; send a whole file")
    give(page, "drop", ("good.jpg", "image/jpeg", picture()), ("broken.jpg", "image/jpeg", picture()))
    page.wait_for_selector("#state button:has-text('Remove broken.jpg')")
    page.unroute("**/v1/search")
    page.click("#state button:has-text('Remove broken.jpg')")
    page.wait_for_selector(".card")
    assert len(server.asked[-1]["image"]) == 1
    assert page.locator(".part .name").all_text_contents() == ["good.jpg"]


def test_a_link_to_what_the_index_lacks_finds_the_rest(page: Page, server: Standin) -> None:
    page.goto("/?q=red&to=speech,smell,image")
    page.wait_for_selector(".card")
    assert server.asked[-1]["to"] == ["image"]
    server.counts["speech"] = 0
    page.goto("/?q=red&to=speech&min=7&page=999999999")
    page.wait_for_selector("#alert:has-text('holds nothing of speech')")
    page.wait_for_selector("#state:has-text('past the last hit')")
    assert "to" not in server.asked[-1]
    assert "min_score" not in server.asked[-1]
    assert server.asked[-1]["offset"] <= 100_000


def test_a_hit_opens_elsewhere_as_a_link_does(page: Page) -> None:
    search(page, "red")
    links = page.locator(".card >> nth=2").locator("a.by, a.title, a.search-by")
    assert [link.get_attribute("href") for link in links.all()] == ["?like=3"] * 3
    with page.context.expect_page() as opened:
        links.nth(2).click(modifiers=["Control"])
    opened.value.wait_for_selector(".part")
    assert opened.value.url.endswith("/?like=3")
    assert page.url.endswith("/?q=red")
    page.locator(".card >> nth=2").locator(".by").click()  # the sentence itself
    page.wait_for_selector(".part")


def test_back_goes_to_the_hit_that_was_left(page: Page) -> None:
    search(page, "many")
    page.locator(".card >> nth=12").focus()
    top = page.evaluate("scrollY")
    assert top > 300
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.card').length === 6")  # of what it is like
    page.go_back()
    until(page, "document.querySelectorAll('.card').length === 24 && document.activeElement.matches('.card')")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("13:")
    assert abs(page.evaluate("scrollY") - top) < 5


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/?q=red&page=9", r"This page lies past the last hit\."),
        ("/?q=red&min=0.95", r"The best scores 0\.\d+, and at least 0\.95 is asked for; set it lower:"),
        ("/?q=nothing&to=image", r"The question is narrowed; widen it:"),
        ("/?q=nothing", r"The index holds nothing to rank\."),
    ],
)
def test_what_finds_nothing_says_why(page: Page, address: str, said: str) -> None:
    page.goto(address)
    page.wait_for_selector("#state h2")
    until(page, f"/{said}/.test(document.getElementById('state').textContent)")
    assert not re.search("undefined|NaN", page.text_content("#state"))


def test_few_files_that_fill_the_page_are_offered_once_each(page: Page, server: Standin) -> None:
    search(page, "red")
    assert page.is_hidden("#once")
    search(page, "many")
    until(page, "document.querySelectorAll('.card').length === 24")
    page.click("#once")
    until(page, "location.search.includes('group=file') && document.getElementById('once').hidden")
    page.wait_for_selector(".card")
    assert server.asked[-1]["group"] == "file"


def test_the_item_that_is_searched_by_is_marked(page: Page) -> None:
    page.goto("/?like=1&like=-2")
    page.wait_for_selector(".card")
    marked = [title for title in page.locator(".from").all_text_contents() if "searched by" in title]
    assert marked == ["1 · searched by · image · and 2 near duplicates · holiday"]


def test_a_server_that_is_starting_is_asked_again(page: Page) -> None:
    asked = refuse(page, 503, "not_ready", "the model is still being opened; ask again in a second", 1)
    press_search(page, "red")
    page.wait_for_selector("#state:has-text('It is asked again in 1 second.')")
    until(page, "document.title.includes('red')")
    page.wait_for_timeout(1300)
    assert len(asked) > 1

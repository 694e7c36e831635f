"""What the search page asks, and what it shows where there are no hits, in a headless Chromium."""

import base64

import pytest
from browsing import Page, give, search, titles, until
from standin import ATTACK, Standin, picture, tone


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
    give(page, how, ("given.jpg", "image/jpeg", content))
    page.wait_for_selector(".card")
    assert server.asked[-1]["image"] == [f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"]
    assert page.locator(".part .name").text_content() == "given.jpg"


def test_a_given_sound_may_be_speech_and_be_turned_away_from(page: Page, server: Standin) -> None:
    page.set_input_files("#file", {"name": "dog.wav", "mimeType": "audio/wav", "buffer": tone(0.1)})
    page.wait_for_selector(".card")
    assert list(server.asked[-1]) == ["sound", "k", "offset"]
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
    give(page, "drop", (name, kind, content))
    page.wait_for_selector("#alert:not([hidden])")
    assert said in page.text_content("#alert")
    assert not server.asked


def test_a_file_that_a_link_cannot_hold_is_asked_for(page: Page) -> None:
    page.goto("/?by=image&to=sound")
    page.wait_for_selector("#state:has-text('This search was by a picture')")
    page.goto("/?q=red&by=sound")
    page.wait_for_selector("#alert:has-text('This search was by a sound')")
    page.wait_for_selector(".card")


def test_files_given_at_once_are_one_question_and_have_weights(page: Page, server: Standin) -> None:
    page.fill("#words", "a dog")
    give(page, "drop", ("red.jpg", "image/jpeg", picture()), ("dog.wav", "audio/wav", tone(0.1)))
    page.wait_for_selector(".card")
    assert [name for name in server.asked[-1] if name not in ("k", "offset")] == ["text", "image", "sound"]
    page.focus("[aria-label='Weight of dog.wav']")
    with page.expect_response("**/v1/search"):
        page.select_option("[aria-label='Weight of dog.wav']", "0.5")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Weight of dog.wav"
    assert server.asked[-1]["weights"] == {"text": [1], "image": [1], "sound": [0.5]}
    assert "A link to this search leaves out the files" in page.text_content("#told")


def test_weights_of_hits_stand_in_the_address(page: Page, server: Standin) -> None:
    page.goto("/?like=1x0.5&like=-2&like=nonsense&k=12")
    page.wait_for_selector(".card")
    asked = {"like": [1], "minus_like": [2], "weights": {"like": [0.5], "minus_like": [1]}}
    assert server.asked[-1] == asked | {"k": 13, "offset": 0}
    page.select_option("[aria-label^='Weight of red.jpg']", "2")
    until(page, "location.search.startsWith('?like=1x2&like=-2')")


def test_the_score_slides_and_the_page_grows(page: Page, server: Standin) -> None:
    search(page, "many")
    page.click("#filters")
    page.focus("#slide")
    page.keyboard.press("PageUp")
    until(page, "location.search.includes('min=0.1')")
    assert page.input_value("#min") == "0.1"
    page.select_option("#size", "12")
    until(page, "document.querySelectorAll('.card').length === 12")
    assert server.asked[-1] == {"text": ["many"], "min_score": 0.1, "k": 13, "offset": 0}
    page.focus("#slide")
    page.keyboard.press("Home")
    until(page, "!location.search.includes('min=')")


def test_a_reader_who_comes_back_is_told_that_the_index_changed(page: Page, server: Standin) -> None:
    search(page, "red")
    come_back = "document.dispatchEvent(new Event('visibilitychange'))"
    for _ in range(2):
        with page.expect_response("**/v1/info"):
            page.evaluate(come_back)
    assert page.is_hidden("#changed")
    server.version = "2"
    page.evaluate(come_back)
    page.click("#changed button")
    page.wait_for_selector("#changed", state="hidden")
    until(page, "document.getElementById('told').textContent.includes('hits')")
    assert [asked["text"] for asked in server.asked] == [["red"], ["red"]]


def test_filters_narrow_and_are_cleared(page: Page, server: Standin) -> None:
    search(page, "red")
    page.check("#to input[value=image]")
    until(page, "document.querySelectorAll('.card').length === 3")
    page.click("#filters")
    page.fill("#min", "0.95")
    page.press("#min", "Enter")
    page.wait_for_selector("#state:has-text('Nothing found')")
    question = {"text": ["red"], "to": ["image"]}
    assert question | {"min_score": 0.95, "k": 25, "offset": 0} in server.asked
    page.wait_for_selector("#state:has-text('and at least 0.95 is asked for; set it lower')")
    assert server.asked[-1] == question | {"k": 1, "offset": 0}
    page.check("#group")
    page.check("#fold")
    until(page, "location.search.includes('fold=0.98')")
    page.click("#state button:has-text('Clear the filters')")
    until(page, "document.querySelectorAll('.card').length === 3")
    assert page.url.endswith("/?q=red&to=image")


def test_a_bad_condition_is_marked_where_it_is(page: Page) -> None:
    page.goto("/?q=red&where=nonsense")
    page.wait_for_selector("#state [role=alert]:has-text('it is marked under Filters')")
    assert page.get_attribute("#where", "aria-invalid") == "true"
    assert "no column nonsense found" in page.text_content("#where-bad")
    page.fill("#where", "size > 3")
    page.press("#where", "Enter")
    page.wait_for_selector(".card")
    assert page.is_hidden("#where-bad")


def test_pages_are_turned(page: Page, server: Standin) -> None:
    search(page, "many")
    assert page.locator(".card").count() == 24
    page.click("#later")
    page.wait_for_selector("#page:has-text('Page 2')")
    page.wait_for_selector(".card[aria-label^='25:']")
    assert server.asked[-1]["offset"] == 24
    until(page, "document.activeElement.matches('.card')")


def test_a_busy_server_is_asked_again(page: Page, server: Standin) -> None:
    search(page, "busy")
    assert len(server.asked) == 2


def test_a_reader_waits_for_a_busy_server_with_its_words(page: Page) -> None:
    refusal = {
        "status": 503,
        "headers": {"retry-after": "60"},
        "json": {"error": {"message": "too many ask", "code": "busy"}},
    }
    page.route("**/v1/search", lambda route: route.fulfill(**refusal))
    page.fill("#words", "red")
    page.press("#words", "Enter")
    page.wait_for_selector("#state:has-text('too many ask')", state="attached")
    page.wait_for_timeout(400)  # longer than the page waits before it says that it searches
    assert page.is_visible("#state:has-text('It is asked again in 60 seconds.')")


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
    until(page, "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('search')).length === 2")
    assert "“red”" in page.text_content("#told")


def test_who_has_no_token_is_told_to_reload_the_page(page: Page, server: Standin) -> None:
    server.is_locked = True
    page.fill("#words", "red")
    page.press("#words", "Enter")
    page.wait_for_selector("#state:has-text('Reload the page and give the token')")
    server.is_locked = False
    page.click("#state button:has-text('Reload')")
    page.wait_for_selector(".card")
    assert page.url.endswith("/?q=red")


def test_a_token_leaves_the_address(page: Page) -> None:
    page.goto("/?token=secret&q=red")
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


def test_the_tour_begins_with_what_the_index_holds(page: Page, server: Standin) -> None:
    items = [{"id": 1, "modality": "image", "path": "red.jpg"}, {"id": 2, "modality": "sound", "path": "tone.wav"}]
    server.examples = {"items": items, "sentences": ["A red bell.", ATTACK]}
    page.goto("/")
    page.wait_for_selector(".example")
    assert page.locator(".examples button").all_text_contents() == ["A red bell.", ATTACK]
    page.click("[aria-label='Search by tone.wav']")
    page.wait_for_selector(".part:has-text('tone.wav')")
    assert server.asked[-1]["like"] == [2]


def refuse(page: Page, status: int, code: str, message: str) -> None:
    refusal = {"status": status, "headers": {"retry-after": "1"}, "json": {"error": {"message": message, "code": code}}}
    page.route("**/v1/search", lambda route: route.fulfill(**refusal))


def test_a_search_without_an_answer_can_be_stopped(page: Page) -> None:
    page.clock.install()
    page.route("**/v1/search", lambda route: None)  # which never answers
    page.fill("#words", "red")
    page.press("#words", "Enter")
    page.clock.run_for(11_000)
    page.click("#state button:has-text('Stop')")
    page.wait_for_selector("#state h2:has-text('Stopped')")
    page.unroute("**/v1/search")
    page.click("#state button:has-text('Search again')")
    page.wait_for_selector(".card")


@pytest.mark.parametrize(
    ("address", "message", "way", "becomes"),
    [
        ("/?q=red&page=9", "offset: 999999 found", "To the first page", "/?q=red"),
        ("/?q=red&where=size", "no such", "Clear the filters", "/?q=red"),
        ("/?q=red&to=image", "k: 0 found", "Find in all modalities", "/?q=red"),
        ("/?q=red&like=7", "like: no item 7 in this index", "Remove item 7", "/?q=red"),
        ("/?q=red", "text: refused", "Start again", "/"),
    ],
)
def test_a_refusal_has_ways_out(page: Page, address: str, message: str, way: str, becomes: str) -> None:
    refuse(page, 422, "bad_shape", message)
    page.goto(address)
    page.wait_for_selector(f"#state [role=alert]:has-text('{message}')")
    page.unroute("**/v1/search")
    page.click(f"#state button:has-text('{way}')")
    until(page, f"location.pathname + location.search === '{becomes}'")


def test_words_to_stay_away_from_are_no_question(page: Page, server: Standin) -> None:
    page.goto("/?not=rain")
    page.wait_for_selector("#alert:has-text('Add words or a file to search by')")
    assert not server.asked

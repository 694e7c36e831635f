"""What can be done with a hit on the search page, in a headless Chromium."""

import base64

import pytest
from browsing import Page, give, search, titles, until
from standin import ATTACK, Standin, picture, tone


def test_a_hit_is_searched_by(page: Page, server: Standin) -> None:
    search(page, "red")
    page.click(".card .by")
    page.wait_for_selector(".part:has-text('red.jpg')")
    assert server.asked[-1] == {"like": [1], "k": 25, "offset": 0}
    assert page.url.endswith("/?like=1")


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
    page.click("[aria-label='Play clip.webm from 0:02']")
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
    page.wait_for_selector(".found:has-text('0:01\u20130:02')")
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


def test_a_hit_without_a_file_says_so(page: Page, server: Standin) -> None:
    server.items[0] |= {"media": None, "thumbnail": None}
    search(page, "red")
    card = page.locator(".card").nth(0)
    assert "there is no file to show" in card.text_content()
    assert card.locator("img, a.open, button:has-text('Where?')").count() == 0
    card.locator("button:has-text('Large')").click()
    page.wait_for_selector("dialog .absent:has-text('there is no file to show')")


def test_a_given_file_is_looked_for_in_a_hit(page: Page, server: Standin) -> None:
    content = picture()
    give(page, "drop", ("given.jpg", "image/jpeg", content))
    page.click("button:has-text('When?')")
    page.wait_for_selector(".found:has-text('Heard most at 0:01.5')")
    assert server.looked_for == [{"image": [f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"]}]


def test_the_picture_of_a_moment_is_looked_into_and_gives_way_to_the_video(page: Page, server: Standin) -> None:
    search(page, "red")
    look = page.locator(".card:has-text('clip.webm') button:has-text('Where?')")
    look.click()
    page.wait_for_selector("canvas.heat")
    page.click("[aria-label='Play clip.webm from 0:02']")
    page.wait_for_selector("canvas.heat", state="detached")
    assert look.get_attribute("aria-pressed") == "false"


def test_the_sound_of_a_video_shows_when_beside_its_picture(page: Page, server: Standin) -> None:
    if not server.media[4][1]:
        pytest.skip("PyAV or its VP8 encoder is missing; `pip install av`")
    server.items[3] |= {"modality": "sound", "waveform": "/v1/items/4/waveform"}
    search(page, "red")
    card = page.locator(".card:has-text('clip.webm')")
    card.locator("button:has-text('When?')").click()
    card.locator(".found:has-text('Heard most at 0:01.5')").wait_for()
    card.locator("button:has-text('Play')").click()
    until(page, "document.querySelector('video').currentTime >= 1")


def test_a_file_is_added_to_the_index(page: Page, server: Standin) -> None:
    assert page.is_hidden("#add")
    server.is_writable = True
    page.goto("/")
    page.wait_for_selector("#to")
    good, broken = ("good.jpg", "image/jpeg", picture()), ("broken.jpg", "image/jpeg", b"broken")
    give(page, "drop", good, broken, onto="#add")
    page.wait_for_selector("#told:has-text('1 item added to the index.')")
    page.wait_for_selector("#alert:has-text('broken.jpg: no picture can be read')")
    page.wait_for_selector("#to label:has-text('image4')")
    assert page.text_content("#told") == "1 item added to the index."
    assert len(server.added) == 2
    assert not server.asked
    give(page, "drop", ("short.wav", "audio/wav", tone()), onto="#add")
    page.wait_for_selector("#alert:has-text('short.wav: cut short, 2.0 of 4.0 s are there.')")


def test_a_hit_is_deleted_when_the_reader_confirms(page: Page, server: Standin) -> None:
    server.is_writable = True
    page.goto("/?q=red")
    page.click("summary:has-text('Details') >> nth=0")
    for answer in ("", "item"):
        page.click("[aria-label='Delete holiday/red.jpg from the index']")
        assert len(server.items) == 6
        page.wait_for_selector("#deleting[open]")
        assert page.is_hidden("#deleting-file")  # it has no other items
        assert page.text_content("#deleting-item") == "Delete"
        page.click(f"#deleting button[value='{answer}']")
    page.wait_for_selector("#told:has-text('holiday/red.jpg is deleted')")
    assert [item["id"] for item in server.items] == [2, 3, 4, 5, 6]
    assert titles(page)[0] == "tone.wav"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("2: sound")


def test_a_moment_is_deleted_alone_or_with_all_of_its_file(page: Page, server: Standin) -> None:
    [moment] = [item for item in server.items if item["id"] == 4]
    server.items += [moment | {"id": 10, "start_s": 5.0, "end_s": 6.0}, moment | {"id": 11, "start_s": 8.0, "end_s": 9}]
    lines = moment | {"path": "cap.txt", "modality": "text", "start_s": None}
    server.items += [lines | {"id": 12, "line": 2}, lines | {"id": 13, "line": 3}]
    server.is_writable = True
    page.goto("/?q=red")
    for item, name, answer, gone in (
        (4, "the image from 0:02 to 0:03 of clip.webm", "item", "the image from 0:02 to 0:03 of clip.webm"),
        (12, "line 2 of cap.txt", "item", "line 2 of cap.txt"),
        (10, "the image from 0:05 to 0:06 of clip.webm", "file", "clip.webm"),
    ):
        page.click(f"[data-item='{item}'] summary:has-text('Details')")
        page.click(f"[data-item='{item}'] .bad")
        page.wait_for_selector("#deleting[open]")
        assert page.text_content("#deleting-what") == f"Delete {name} from the index?"
        assert page.text_content("#deleting-item") == "Delete this part"
        page.click(f"#deleting button[value='{answer}']")
        until(page, f"document.getElementById('told').textContent === '{gone} is deleted from the index.'")
        assert page.locator(f"[data-item='{item}']").count() == 0
    assert [item["id"] for item in server.items] == [1, 2, 3, 5, 6, 13]
    assert page.locator(".card").count() == 6
    assert page.evaluate("document.activeElement.dataset.item") == "13"


def test_a_hit_is_shown_large_and_the_next_by_keys(page: Page, server: Standin) -> None:
    search(page, "red")
    page.focus(".card >> nth=0")
    page.keyboard.press("l")
    page.wait_for_selector("dialog#large[open]")
    first = page.text_content("#large-title")
    page.keyboard.press("w")
    page.wait_for_selector("#large-view canvas.heat")
    page.keyboard.press("ArrowRight")
    until(page, f"document.getElementById('large-title').textContent !== {first!r}")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog#large", state="hidden")
    until(page, "[...document.querySelectorAll('.card')].indexOf(document.activeElement) === 1")


def test_where_is_asked_of_the_whole_question(page: Page, server: Standin) -> None:
    page.goto("/?q=red&like=2x0.5&not=rain&to=image")
    page.wait_for_selector(".card")
    page.click("button:has-text('Where?') >> nth=0")
    page.wait_for_selector("canvas.heat")
    weights = {"text": [1], "minus_text": [1], "like": [0.5]}
    assert server.looked_for[-1] == {"text": ["red"], "minus_text": ["rain"], "like": [2], "weights": weights}

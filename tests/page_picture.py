"""The picture of the search page in README.md, after `make demo`:

python tests/page_picture.py demo benchmarks/page.png
"""

import sys
from pathlib import Path
from typing import Any

from browsing import ARGUMENTS, CHROMIUM, SANDBOX, serving, until
from PIL import Image

COLOURS = 256  # half the bytes of all of them
SIZE = {"width": 1280, "height": 800}
QUESTION = "?q=a+dog+barking&to=image,sound&k=12"
DRAWN = "[...document.querySelectorAll('.view img')].every((picture) => picture.complete && picture.naturalWidth)"
HEARD = "[...document.querySelectorAll('.wave input')].slice(0, 2).every((wave) => Number(wave.max) > 0)"


def take(page: Any, path: Path) -> None:
    """Hits of a sentence; when it is heard in the first sound, if the model can tell."""
    page.set_viewport_size(SIZE)
    page.goto(QUESTION)
    page.wait_for_selector(".card")
    look = page.locator("button:has-text('When?')")
    if look.count():
        look.first.click()
        page.wait_for_selector(".found:not([hidden]):not(:has-text('Looking'))")
    until(page, f"{DRAWN} && {HEARD}")
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def main(world: Path, path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with serving(world) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *SANDBOX])
        take(browser.new_page(base_url=address), path)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))

"""A page in Firefox that does what either_browser.py asks for, and is looked at as `Look` says."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from firefox import Firefox, FirefoxPage, element
from stage import Look, draw_picture

FIX_CLOCK = """() => {
    const now = %d;
    window.Date = class extends Date {
        constructor(...when) {
            super(...(when.length > 0 ? when : [now]));
        }
        static now() {
            return now;
        }
    };
}"""

# Writes at once, as Playwright does: key by key a long text would take minutes.
FILL = """(field, text) => {
    field.focus();
    field.value = text;
    field.dispatchEvent(new Event('input', { bubbles: true }));
}"""


class FirefoxOnStage:
    """A page in Firefox that is looked at in this way, with a clock that stands still."""

    def __init__(self, page: FirefoxPage, look: Look, now: datetime) -> None:
        self._page = page
        self.keyboard = page
        page.set_dark(look.theme == "dark")
        page.set_language(look.language)
        page.set_preference("ui.prefersReducedMotion", 1)
        page.add_preload_script(FIX_CLOCK % (now.timestamp() * 1000))

    def goto(self, url: str) -> None:
        assert url == self._page.url
        self._page.goto()

    def add_init_script(self, script: str) -> None:
        self._page.add_preload_script(f"() => {{ {script} }}")

    def evaluate(self, expression: str, arg: Any = None) -> Any:
        if arg is None:
            return self._page.evaluate(expression)
        return self._page.call(expression, arg)

    def fill(self, selector: str, text: str) -> None:
        self._page.wait_for(selector)
        self._page.call(f"text => ({FILL})({element(selector)}, text)", text)

    def click(self, selector: str) -> None:
        self._page.click(selector)

    def focus(self, selector: str) -> None:
        self._page.evaluate(f"{element(selector)}.focus()")

    def press(self, selector: str, key: str) -> None:
        self.focus(selector)
        self._page.press(key)

    def set_viewport_size(self, size: Any) -> None:
        self._page.set_viewport(size["width"], size["height"])


@contextlib.contextmanager
def open_firefox_page(
    firefox: Firefox, url: str, look: Look, now: datetime
) -> Iterator[FirefoxOnStage]:
    """An empty page for this site, in a profile of its own. Raises if it has a complaint."""
    page = firefox.open(url, look.width, look.height, picture=draw_picture("0" * 64).encode())
    try:
        yield FirefoxOnStage(page, look, now)
    finally:
        complaints = page.leave()
    assert complaints == []

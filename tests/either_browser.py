"""What a page in either browser can do, for what is done in both: the states of the chat's page.

Chromium's pages are those of Playwright, and have all of this. Those of Firefox have it on a stage,
see firefox_stage.py.
"""

from typing import Any, Protocol


class Keyboard(Protocol):
    """Presses keys in what has the focus."""

    def press(self, key: str, /) -> None:
        """One key, such as `Enter`, or several together, such as `Shift+Enter`."""

    def type(self, text: str, /) -> None:
        """Key by key."""


class EitherPage(Protocol):
    """A page in Chromium or in Firefox. A selector is one of CSS, and matches one element."""

    @property
    def keyboard(self) -> Keyboard: ...

    def goto(self, url: str, /) -> Any: ...

    def add_init_script(self, script: str, /) -> Any:
        """Run a script before those of each page that it goes to."""

    def evaluate(self, expression: str, arg: Any = None, /) -> Any:
        """The value of an expression, or of a function of `arg`. A promise is awaited."""

    def fill(self, selector: str, text: str, /) -> None:
        """Replace what a field holds."""

    def click(self, selector: str, /) -> None: ...

    def focus(self, selector: str, /) -> None: ...

    def press(self, selector: str, key: str, /) -> None:
        """Press a key in an element, as `Keyboard.press` does."""

    def set_viewport_size(self, size: Any, /) -> None:
        """In px, as `width` and `height`."""

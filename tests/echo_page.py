"""The echo page, for tests: what a user does there, and the lines of its log."""

from typing import TYPE_CHECKING

from pages import expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

# What stands in a line of the log, but for its time: "↑ text hello 5 bytes".
READ_LINES = """
    [...document.querySelectorAll('#lines .row')].map((row) =>
        ['.arrow', '.kind', '.content', '.size']
            .map((part) => row.querySelector(part)?.textContent)
            .filter((text) => text !== undefined)
            .join(' '))
"""


def is_connected(page: "Page") -> None:
    """Wait until the page is connected, in whatever language it says so."""
    expect(page.locator("body[data-state=open]")).to_have_count(1)


def answers(page: "Page") -> "Locator":
    """The messages that the server has sent, as the log shows them."""
    return page.locator("#lines :is(.received.text, .received.binary) .content")


def line(page: "Page", direction: str, kind: str) -> "Locator":
    """The lines of this kind: sent, received or none of both."""
    return page.locator(f"#lines .{direction}.{kind}")


def lines(page: "Page") -> list[str]:
    """All lines of the log, each as one text without its time."""
    found = page.evaluate(READ_LINES)
    assert isinstance(found, list)
    return found


def has_lines(page: "Page", *expected: str) -> None:
    """Wait for so many lines behind the one that says that the page is connected; check them."""
    expect(page.locator("#lines .row")).to_have_count(1 + len(expected))
    assert lines(page)[1:] == list(expected)


def ask_to_close(page: "Page", who: str, code: str, reason: str = "") -> None:
    """Fill in the form to close, which is visible, and send it. `who` is page or server."""
    page.locator(f"#close label:has([value={who}])").click()
    page.fill("#close-code", code)
    page.fill("#close-reason", reason)
    page.click("#close button")

"""The echo page on a server whose times are always the same, and the states that it is drawn in.

A state is a function that brings a new page there. So two pictures of it are the same, although the
server is a real one on whatever port was free.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from echo_page import answers, ask_to_close, is_connected, line
from pages import expect
from programs import echo

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Runs in the server before anything else: a Ping and its Pong are always so far apart.
STEP_COUNTER = """
import itertools
import time

calls = itertools.count()
time.perf_counter = lambda: next(calls) * 0.0006
"""

# Runs in the page before anything else: each look at the clock is some tenths of a ms after the
# one before.
STEP_CLOCK = """
    let now = 0;
    let looks = 0;
    performance.now = () => { now += 0.3 + (looks++ * 7 % 5) / 10; return now; };
"""

# What the log calls the server's address, on whatever port it is.
SHOW_PORT = """port => {
    for (const words of document.querySelectorAll('#lines .words'))
        words.textContent = words.textContent.replace(port, 8080);
}"""


@dataclass(frozen=True)
class EchoStage:
    """An echo server for one page."""

    url: str

    def open(self, page: "Page") -> None:
        """Go to the page, and wait until it is connected."""
        page.add_init_script(STEP_CLOCK)
        page.goto(self.url)
        is_connected(page)
        page.evaluate(SHOW_PORT, self.url.rpartition(":")[2])


@contextlib.contextmanager
def echo_stage() -> Iterator[EchoStage]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(STEP_COUNTER)
        with echo(env=os.environ | {"PYTHONPATH": folder}) as server:
            yield EchoStage(server.url)


def echo_idle(page: "Page", stage: EchoStage) -> None:
    """Nothing was sent yet."""
    stage.open(page)


def echo_talk(page: "Page", stage: EchoStage) -> None:
    """Text, binary data and a ping were sent, one line is open, and the server has closed."""
    stage.open(page)
    say(page, "hello, world!你好", 1)
    page.locator("#kind label:has([value=binary])").click()
    say(page, "00 7f 80 ff", 2)
    page.locator("#kind label:has([value=text])").click()
    open_panel(page)
    page.click("#ping button")
    expect(line(page, "sent", "pong")).to_have_count(1)
    open_panel(page)
    ask_to_close(page, "server", "4001", "until tomorrow")
    expect(page.locator("#closed")).to_be_visible()
    close = line(page, "received", "close")
    close.locator("summary").click()
    expect(close.locator(".body")).to_be_visible()  # then the log has scrolled to it
    page.locator("#log").evaluate("log => { log.scrollTop = log.scrollHeight; }")


def echo_frame(page: "Page", stage: EchoStage) -> None:
    """A text was sent, its frame is drawn, and the masking key is chosen."""
    stage.open(page)
    say(page, "hello, world!你好", 1)
    sent = line(page, "sent", "text")
    sent.locator("summary").click()
    sent.locator(".show-frames").click()
    sent.locator(".bit[data-field=key]").first.click()
    expect(sent.locator("mark").first).to_contain_text("self._key")


def say(page: "Page", text: str, count: int) -> None:
    """Send it, and wait for so many answers in all."""
    page.fill("#message", text)
    page.press("#message", "Enter")
    expect(answers(page)).to_have_count(count)


def open_panel(page: "Page") -> None:
    """Show the things to try, where they are not shown already."""
    if page.locator("#show-panel").is_visible():
        page.click("#show-panel")
    expect(page.locator("#panel")).to_be_visible()

"""The chat's page in a tab that sleeps, or that its user leaves and comes back to, in Chromium."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from chatting import hear_until, leave, say
from pages import launch_chromium
from programs import Program, chat
from proxy import Forwarder
from sleeping import Tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

pytestmark = pytest.mark.browser

# Seconds that a tab sleeps. Meanwhile Chromium takes what comes until its buffer is full. Then it
# reads no Pings any more, and the server ends the connection after a minute. If the tab wakes up
# before that, Chromium itself ends it.
NAP = 600 if os.environ.get("RUN_LONG") else 2
SAID_EVERY = NAP / 20  # seconds, by others
LONG_TEXT = 10_000 * "x"  # twenty of them are more than the buffer holds


@pytest.fixture(scope="module")
def browser(playwright: "Playwright") -> Iterator["Browser"]:
    """It keeps pages that their user leaves, as Chromium does unless Playwright forbids it."""
    with launch_chromium(playwright, without=["--disable-back-forward-cache"]) as browser:
        yield browser


def tell_everyone(server: Program, text: str) -> None:
    """Let somebody come, say this, and go. Who stays for long must answer pings."""
    with server.join() as peer:
        say(peer, text)
        hear_until(peer, text)
        leave(peer)


@pytest.mark.timeout(NAP + 60)
def test_page_that_slept_shows_each_message_once_and_sends_what_was_unsent(
    browser: "Browser",
) -> None:
    with (
        chat() as server,
        Forwarder(server.server_port) as forwarder,
        contextlib.closing(Tab(browser)) as ada,
        contextlib.closing(Tab(browser)) as bob,
    ):
        ada.join(server.url, "Ada")
        bob.join(forwarder.url, "Bob")
        said = ["before the sleep"]
        tell_everyone(server, *said)
        for tab in (ada, bob):
            tab.sees(*said)
        forwarder.go_deaf()  # Bob's network is dead, and his browser does not know it
        bob.say("said by Bob in vain")
        for tab in (ada, bob):
            tab.freeze()
        end = time.monotonic() + NAP
        while time.monotonic() < end:
            said.append(f"message {len(said)} of the sleep {LONG_TEXT}")
            tell_everyone(server, said[-1])
            time.sleep(SAID_EVERY)
        forwarder.hang_up()
        ada.wake()
        ada.sees(*said)
        bob.wake()
        said.append("said by Bob in vain")
        for tab in (ada, bob):
            tab.sees(*said)
        ada.say("Good morning")
        for tab in (ada, bob):
            tab.sees(*said, "Good morning")


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "not kept"])
def test_chat_that_its_user_goes_back_to_has_lost_nothing(
    browser: "Browser", is_kept: bool
) -> None:
    with chat() as server, contextlib.closing(Tab(browser)) as ada, server.join() as peer:
        ada.join(server.url, "Ada")
        ada.evaluate("window.isFirst = true")
        if not is_kept:
            ada.evaluate("addEventListener('unload', () => {})")  # no browser keeps such a page
        ada.say("before leaving")
        hear_until(peer, "before leaving")
        ada.write("half a thought")
        ada.goto(f"{server.url}/favicon.svg")
        say(peer, "while away")
        hear_until(peer, "while away")
        ada.go_back(f"{server.url}/")
        assert ada.evaluate("window.isFirst ?? false") == is_kept
        ada.sees("before leaving", "while away")
        assert ada.evaluate("message.value") == "half a thought"
        ada.say("I am back")
        hear_until(peer, "I am back")
        ada.sees("before leaving", "while away", "I am back")

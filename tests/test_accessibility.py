"""axe-core finds nothing on the chat's page, in any of its states."""

import os
from typing import TYPE_CHECKING

import pytest

from accessibility import violations
from firefox import Firefox, OpenFirefox
from firefox_stage import open_firefox_page
from programs import Program
from stage import Look, open_page, stage
from states import BEGIN, NOW, STATES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

LONG = bool(os.environ.get("RUN_LONG"))
LOOKS = {
    "light and English": Look(theme="light", language="en-GB"),
    "dark, Chinese and narrow": Look(theme="dark", language="zh-CN", width=360, height=640),
}


# Each state in one of the looks, in turn; with --long each in each of them.
STATES_AND_LOOKS = [
    (state, look)
    for number, state in enumerate(STATES)
    for which, look in enumerate(LOOKS)
    if LONG or number % len(LOOKS) == which
]


@pytest.mark.parametrize(("state", "look"), STATES_AND_LOOKS)
def test_axe_finds_nothing_in_chromium(browser: "Browser", state: str, look: str) -> None:
    with stage(BEGIN) as chat, open_page(browser, LOOKS[look], NOW) as page:
        STATES[state](page, chat)
        assert violations(page) == []


# Firefox finds what it finds in Chromium, unless it draws something else: with --long all, too.
IN_FIREFOX = [
    (state, look)
    for state, look in STATES_AND_LOOKS
    if LONG or state in ("lively talk", "all emoji", "unread above", "settings", "failed")
]


@pytest.mark.parametrize(("state", "look"), IN_FIREFOX)
def test_axe_finds_nothing_in_firefox(firefox_browser: Firefox, state: str, look: str) -> None:
    with (
        stage(BEGIN) as chat,
        open_firefox_page(firefox_browser, chat.url, LOOKS[look], NOW) as page,
    ):
        STATES[state](page, chat)
        assert violations(page) == []


# What spoils a page, and what axe then says
SPOILS = [
    (
        "document.documentElement.removeAttribute('lang')",
        "html-has-lang: <html> element must have a lang attribute: html",
    ),
    (
        "document.querySelector('#join-button').style = 'color: #777; background: #888'",
        "color-contrast: Elements must meet minimum color contrast ratio thresholds: #join-button",
    ),
]


@pytest.mark.parametrize(("spoil", "found"), SPOILS)
def test_axe_finds_what_is_spoiled_in_chromium(
    page: "Page", server: Program, spoil: str, found: str
) -> None:
    page.goto(server.url)
    page.evaluate(spoil)
    assert violations(page) == [found]


@pytest.mark.parametrize(("spoil", "found"), SPOILS)
def test_axe_finds_what_is_spoiled_in_firefox(
    server: Program, open_firefox: OpenFirefox, spoil: str, found: str
) -> None:
    ada = open_firefox(server)
    ada.goto()
    ada.evaluate(spoil)
    assert violations(ada) == [found]

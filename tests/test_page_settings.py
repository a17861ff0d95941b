"""The settings of the chat's page: notifications, pictures, what is remembered and forgotten."""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from chatting import hear_until, say
from pages import FAKE_LOOK, Visit, Visitor, expect, join_as, wait_for_history
from peers import eventually
from programs import Program

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="80"/>'

# Everything that the page keeps in the browser
STORED = """
    [localStorage, sessionStorage].flatMap((storage) => Object.keys(storage)).sort()
"""

# A Notification whose user answers as `answer` says. The page asks in `asked`, shows in `shown`.
FAKE_NOTIFICATION = """
    window.asked = 0;
    window.shown = [];
    window.Notification = class {
        static permission = '%(permission)s';
        static async requestPermission() {
            asked += 1;
            return this.permission = '%(answer)s';
        }
        constructor(title, options) {
            if (%(throws)s) throw new TypeError('Illegal constructor');
            shown.push([title, options.body]);
        }
        close() {}
    };
"""


def prepare(
    visitor: Visitor, permission: str = "default", answer: str = "granted", throws: str = "false"
) -> "Page":
    script = FAKE_NOTIFICATION % {"permission": permission, "answer": answer, "throws": throws}
    visitor.page.add_init_script(script + FAKE_LOOK)
    visitor.page.reload()
    return visitor.page


@contextlib.contextmanager
def settings(page: "Page") -> Iterator[None]:
    """Open the settings, and close them afterwards."""
    page.click("#show-settings")
    yield
    page.click("#settings button:not([type])")


def turn_on(page: "Page") -> None:
    with settings(page):
        page.click("#notifications")


def bob_says(server: Program, text: str) -> None:
    with server.join() as bob:
        say(bob, text, username="Bob", email="bob@example.org")
        hear_until(bob, text)


def look_away(page: "Page") -> None:
    """Look at something else, once the history has loaded: nobody is notified of that."""
    wait_for_history(page)
    page.evaluate("look(false)")


# Notifications


def test_notifications_are_off_and_asked_for_only_by_their_switch(
    visit: Visit, server: Program
) -> None:
    ada = visit(server)
    page = prepare(ada)
    ada.join()
    with settings(page):
        expect(page.locator("#notifications")).not_to_be_checked()
        assert page.evaluate("asked") == 0
        page.click("#notifications")
        expect(page.locator("#notifications")).to_be_checked()
        assert page.evaluate("asked") == 1
    bob_says(server, "seen")
    expect(ada.texts.last).to_have_text("seen")
    look_away(page)
    bob_says(server, "look! :robot:")
    eventually(lambda: page.evaluate("shown.length"))
    page.evaluate("look(true)")
    bob_says(server, "seen, too")
    expect(ada.texts.last).to_have_text("seen, too")
    assert page.evaluate("shown") == [["Bob in Simple Chat", "look! 🤖"]]


def test_notifications_survive_a_reload_and_can_be_turned_off(
    visit: Visit, server: Program
) -> None:
    page = prepare(visit(server), permission="granted")
    with settings(page):
        page.click("#notifications")
    page.reload()
    with settings(page):
        expect(page.locator("#notifications")).to_be_checked()
        page.click("#notifications")
    page.reload()
    with settings(page):
        expect(page.locator("#notifications")).not_to_be_checked()


def test_settings_say_that_the_browser_forbids_notifications(visit: Visit, server: Program) -> None:
    page = prepare(visit(server), answer="denied")
    with settings(page):
        expect(page.locator("#notifications-denied")).to_be_hidden()
        page.click("#notifications")
        expect(page.locator("#notifications-denied")).to_be_visible()
        expect(page.locator("#notifications")).to_be_disabled()
        expect(page.locator("#notifications")).not_to_be_checked()


@pytest.mark.parametrize("missing", ["no Notification", "no secure context"])
def test_settings_say_that_the_browser_cannot_notify(
    visit: Visit, server: Program, missing: str
) -> None:
    ada = visit(server)
    ada.page.add_init_script(
        "delete window.Notification"
        if missing == "no Notification"
        else "Object.defineProperty(window, 'isSecureContext', { value: false })"
    )
    ada.page.reload()
    with settings(ada.page):
        expect(ada.page.locator("#notifications-impossible")).to_be_visible()
        expect(ada.page.locator("#notifications")).to_be_disabled()


def test_settings_say_so_once_the_browser_has_failed_to_notify(
    visit: Visit, server: Program
) -> None:
    """Chrome on Android has a constructor that always throws."""
    ada = visit(server)
    page = prepare(ada, throws="true")
    ada.forgive("The browser shows no notification")
    ada.join()
    turn_on(page)
    look_away(page)
    bob_says(server, "hello")
    expect(ada.texts.last).to_have_text("hello")
    with settings(page):
        expect(page.locator("#notifications-impossible")).to_be_visible()
        expect(page.locator("#notifications")).not_to_be_checked()


# A browser that stores nothing


def test_settings_hold_for_the_session_where_nothing_can_be_stored(
    visit: Visit, server: Program
) -> None:
    ada = visit(server, picture=PICTURE)
    ada.page.add_init_script(
        """for (const name of ['localStorage', 'sessionStorage'])
            Object.defineProperty(window, name, { get() { throw new Error('forbidden'); } });"""
    )
    page = prepare(ada)
    ada.join()
    with settings(page):
        page.click("#pictures")
        page.click("#notifications")
        expect(page.locator("#notifications")).to_be_checked()
        page.select_option("#language", "zh-Hans")
    look_away(page)
    bob_says(server, "without storage")
    eventually(lambda: page.evaluate("shown.length"))
    expect(page).to_have_title("(1) 简易聊天室")
    with settings(page):
        expect(page.locator("#notifications")).to_be_checked()
        expect(page.locator("#pictures")).not_to_be_checked()


# Pictures


def test_gravatar_is_never_asked_once_pictures_are_turned_off(
    visit: Visit, server: Program
) -> None:
    ada = visit(server, picture=PICTURE)
    with settings(ada.page):
        expect(ada.page.locator("#pictures")).to_be_checked()
        ada.page.click("#pictures")
    ada.join()
    with server.join() as bob:
        say(bob, "before", email="bob@example.org")
        expect(ada.texts.last).to_have_text("before")
        ada.page.reload()
        say(bob, "after", email="carol@example.org")
        expect(ada.texts.last).to_have_text("after")
    expect(ada.page.locator("#online .avatar").first).to_be_visible()
    assert ada.pictures_asked_for == []


# What is remembered


def test_form_remembers_who_joined_on_this_device(visit: Visit, server: Program) -> None:
    ada = visit(server)
    ada.join()
    tab = ada.context.new_page()
    tab.goto(server.url)
    expect(tab.locator("#email")).to_have_value("ada@example.org")
    expect(tab.locator("#username")).to_have_value("Ada")
    expect(tab.locator("#join-view")).to_be_visible()


def test_forget_me_removes_everything_of_this_chat_and_nothing_of_others(
    visit: Visit, server: Program
) -> None:
    ada = visit(server)
    page = ada.page
    page.evaluate("localStorage['/other/person'] = '{}'; sessionStorage['/other/draft'] = '\"\"'")
    others = ["/other/draft", "/other/person"]
    with settings(page):
        page.click("#pictures")
        page.select_option("#language", "zh-Hans")
        page.select_option("#language", "en")
    ada.join()
    ada.say("hello")
    expect(page.locator(".message.sent")).to_have_count(1)
    page.evaluate(
        "record => { localStorage['/unsent/1'] = record; }",
        json.dumps({"email": "", "username": "", "message": "", "key": "1", "said": 0}),
    )
    page.fill("#message", "a draft")
    assert len(page.evaluate(STORED)) > 6 + len(others)
    page.click("#show-settings")
    with page.expect_navigation():
        page.click("#forget")
    for _ in range(2):
        expect(page.locator("#join-view")).to_be_visible()
        expect(page.locator("#email")).to_have_value("")
        expect(page.locator("#username")).to_have_value("")
        expect(page.locator("#pictures")).to_be_checked()
        assert page.evaluate(STORED) == others
        page.reload()
    join_as(page, "bob@example.org", "Bob")
    expect(page.locator("#message")).to_have_value("")


# The dialog


def test_settings_open_and_close_by_keyboard_and_give_the_focus_back(
    visit: Visit, server: Program
) -> None:
    page = visit(server).page
    page.focus("#show-settings")
    for closing in ("Escape", "Enter"):
        page.keyboard.press("Enter")
        expect(page.locator("#settings")).to_be_visible()
        expect(page.locator("#language")).to_be_focused()
        if closing == "Enter":
            page.focus("#settings button:not([type])")
        page.keyboard.press(closing)
        expect(page.locator("#settings")).to_be_hidden()
        expect(page.locator("#show-settings")).to_be_focused()


def test_click_beside_the_settings_closes_them_and_one_on_their_edge_does_not(
    visit: Visit, server: Program
) -> None:
    page = visit(server).page
    page.click("#show-settings")
    box = page.locator("#settings").bounding_box()
    assert box
    page.mouse.click(box["x"] + 10, box["y"] + box["height"] / 2)
    expect(page.locator("#settings")).to_be_visible()
    page.mouse.click(box["x"] - 10, box["y"] + box["height"] / 2)
    expect(page.locator("#settings")).to_be_hidden()

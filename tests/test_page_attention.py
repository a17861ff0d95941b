"""The chat's page: what is unread for somebody who looked at something else, who is here, and all
of it by the keyboard alone.
"""

import json
from typing import TYPE_CHECKING, Any

import pytest

from chatting import hear_until, say, tell
from pages import (
    FAKE_LOOK,
    FAKE_SOCKETS,
    Visit,
    expect,
    join,
    receive,
    receive_texts,
    send,
    wait_for_history,
)
from peers import eventually
from programs import Program

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser

PEOPLE = [
    {"username": "Ada", "avatar": "0" * 64},
    {"username": "نور", "avatar": "8" * 64},
    {"username": "", "avatar": ""},
]


@pytest.fixture
def looking_page(page: "Page", server: Program) -> "Page":
    """A page with fake sockets, whose test says by `look` whether its user looks at it."""
    page.add_init_script(FAKE_SOCKETS + FAKE_LOOK)
    join(page, server.url)
    wait_for_history(page)
    return page


def shows(page: "Page", title: str, icon: str) -> None:
    expect(page).to_have_title(title)
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", icon)


# What is unread


def test_title_counts_unread_messages_and_the_icon_has_a_dot_until_one_looks(
    looking_page: "Page",
) -> None:
    receive(looking_page, "1-0", "seen")
    expect(looking_page.locator(".message")).to_have_count(1)
    shows(looking_page, "Simple Chat", "favicon.svg")
    looking_page.evaluate("look(false)")
    receive(looking_page, "2-0", "unread")
    shows(looking_page, "(1) Simple Chat", "favicon-unread.svg")
    receive(looking_page, "3-0", "unread, too")
    shows(looking_page, "(2) Simple Chat", "favicon-unread.svg")
    expect(looking_page.locator(".message", has=looking_page.locator(".unread"))).to_contain_text(
        "New since you looked"
    )
    looking_page.evaluate("look(true)")
    shows(looking_page, "Simple Chat", "favicon.svg")
    expect(looking_page.locator(".unread")).to_have_count(1)  # to be found by its reader
    looking_page.evaluate("look(false)")
    expect(looking_page.locator(".unread")).to_have_count(0)


def test_icon_with_and_without_a_dot_exists(page: "Page", server: Program) -> None:
    page.goto(server.url)
    for name in ("favicon.svg", "favicon-unread.svg"):
        assert page.evaluate("name => fetch(name).then(({ status }) => status)", name) == 200


def test_own_messages_do_not_count_as_unread(looking_page: "Page") -> None:
    looking_page.evaluate("look(false)")
    receive(looking_page, "1-0", "from another tab", email="ada@example.org", username="Ada")
    send(looking_page, "from this one")
    record = json.loads(looking_page.evaluate("sent.at(-1)")) | {"id": "2-0", "avatar": ""}
    receive_texts(looking_page, json.dumps(record))
    expect(looking_page.locator(".message.sent")).to_have_count(1)
    shows(looking_page, "Simple Chat", "favicon.svg")


def test_history_does_not_count_as_unread_but_what_was_missed_does(
    page: "Page", server: Program
) -> None:
    page.add_init_script(FAKE_SOCKETS + FAKE_LOOK + "looks = false;")
    join(page, server.url)
    receive(page, "1-0", "said before")
    expect(page.locator(".message")).to_have_count(1)
    wait_for_history(page)
    shows(page, "Simple Chat", "favicon.svg")
    page.evaluate("sockets.at(-1).lose()")
    eventually(lambda: page.evaluate("sockets.length") == 2)
    expect(page.locator("body[data-state=open]")).to_have_count(1)
    receive(page, "2-0", "said meanwhile")
    shows(page, "(1) Simple Chat", "favicon-unread.svg")


# Who is here


def tell_people(page: "Page", count: int = 3) -> None:
    receive_texts(page, json.dumps({"event": "online", "count": count, "people": PEOPLE}))


def color(locator: "Locator") -> Any:
    return locator.evaluate("element => getComputedStyle(element).color")


def test_people_are_listed_with_their_colours(fake_page: "Page") -> None:
    tell_people(fake_page, 5)
    expect(fake_page.locator("#online h2")).to_have_text("Online: 5")
    expect(fake_page.locator("#online li")).to_have_text(
        ["AAda", "ننور", "?(no name)", "and 2 more"]
    )
    receive(fake_page, "1-0", "hello", username="نور", avatar="8" * 64)
    names = fake_page.locator("#online .name")
    assert color(names.nth(1)) == color(fake_page.locator("#messages .name"))
    assert len({color(names.nth(index)) for index in range(3)}) == 3
    expect(fake_page.locator("#show-online")).to_be_hidden()


@pytest.fixture
def phone_page(fake_page: "Page") -> "Page":
    fake_page.set_viewport_size({"width": 390, "height": 640})
    tell_people(fake_page, 1234)
    return fake_page


def is_open(page: "Page", is_open: bool) -> None:
    panel = expect(page.locator("#online"))
    if is_open:
        panel.to_be_visible()
    else:
        panel.to_be_hidden()
    expect(page.locator("#show-online")).to_have_attribute("aria-expanded", str(is_open).lower())


@pytest.mark.parametrize("closing", ["Escape", "Enter"])
def test_list_of_people_opens_and_closes_by_keyboard_and_gives_the_focus_back(
    phone_page: "Page", closing: str
) -> None:
    button = phone_page.locator("#show-online")
    expect(button).to_have_text("1,234")
    expect(button).to_have_attribute("aria-label", "1,234 people online. Show who")
    is_open(phone_page, False)
    button.focus()
    phone_page.keyboard.press("Enter")
    is_open(phone_page, True)
    expect(phone_page.locator("#close-online")).to_be_focused()
    phone_page.keyboard.press(closing)
    is_open(phone_page, False)
    expect(button).to_be_focused()


def test_list_of_people_goes_when_one_turns_to_what_it_covers(phone_page: "Page") -> None:
    phone_page.click("#show-online")
    phone_page.click("#online h2")
    is_open(phone_page, True)
    phone_page.mouse.click(20, 300)
    is_open(phone_page, False)
    phone_page.click("#show-online")
    is_open(phone_page, True)
    phone_page.keyboard.press("Shift+Tab")
    expect(phone_page.locator("#send-button")).to_be_focused()
    is_open(phone_page, False)


def test_focus_is_kept_when_a_turned_screen_hides_the_focused_button(phone_page: "Page") -> None:
    phone_page.click("#show-online")
    phone_page.set_viewport_size({"width": 1280, "height": 640})
    expect(phone_page.locator("#messages")).to_be_focused()
    phone_page.set_viewport_size({"width": 390, "height": 640})
    is_open(phone_page, False)


# The keyboard alone

FOCUS = """() => {
    const element = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    const isSeen = element.matches(':focus-visible') && outlineStyle !== 'none';
    if (isSeen && parseFloat(outlineWidth) >= 2) return element.id;
    return `no outline: ${element.outerHTML}`;
}"""


class Keyboard:
    """Presses keys on a page, and checks each time that the focus can be seen."""

    def __init__(self, page: "Page") -> None:
        self.page = page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            assert "no outline" not in self.focused

    @property
    def focused(self) -> str:
        return str(self.page.evaluate(FOCUS))

    def go_to(self, target: str, key: str = "Tab") -> None:
        """Press Tab until this element has the focus."""
        for _ in range(12):
            if self.focused == target:
                return
            self.press(key)
        raise AssertionError(f"no way to {target}")


def test_everything_is_done_by_keyboard_alone(visit: Visit, server: Program) -> None:
    tell(server, 60)
    ada = visit(server, width=390)
    keys = Keyboard(ada.page)
    ada.page.keyboard.press("Tab")
    keys.go_to("email")
    ada.page.keyboard.type("ada@example.org")
    keys.press("Tab")
    ada.page.keyboard.type("Ada")
    ada.page.keyboard.press("Enter")
    expect(ada.page.locator("body[data-state=open]")).to_have_count(1)
    assert keys.focused == "message"

    with server.join() as peer:
        ada.page.keyboard.type("hello :robo")
        expect(ada.page.locator("#emoji-list")).to_be_visible()
        keys.press("Enter", "Enter")
        hear_until(peer, "hello 🤖")
    expect(ada.texts.last).to_have_text("hello 🤖")

    expect(ada.page.locator("#show-online")).to_be_visible()  # the server tells once a second
    keys.go_to("show-online", "Shift+Tab")
    keys.press("Enter")
    expect(ada.page.locator("#online")).to_be_visible()
    assert keys.focused == "close-online"
    keys.press("Escape")
    assert keys.focused == "show-online"

    keys.go_to("show-settings")
    keys.press("Enter", "Tab", "Space", "Escape")
    expect(ada.page.locator("#settings")).to_be_hidden()
    assert keys.focused == "show-settings"

    keys.go_to("messages")
    keys.press("Home")
    eventually(lambda: ada.scroll_position()["top"] == 0)
    keys.press("End")
    eventually(lambda: ada.scroll_position()["left"] < 1)
    keys.go_to("message")
    with server.join() as peer:
        say(peer, "bye")
        expect(ada.texts.last).to_have_text("bye")
    assert keys.focused == "message"

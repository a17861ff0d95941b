"""Writing on the chat's page: the list of emoji, the field, how much of a text the server takes."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from chatting import hear_until
from pages import (
    Visit,
    expect,
    join,
    receive_close,
    receive_texts,
    sees,
    send,
    sent_messages,
    sent_texts,
)
from programs import Program, chat

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser


def options(page: "Page") -> "Locator":
    return page.locator("#emoji-list:visible [role=option]")


def chosen(page: "Page") -> "Locator":
    """The option that is marked for the eye; the same one must be named to screen readers."""
    active = page.get_attribute("#message", "aria-activedescendant")
    marked = page.locator("#emoji-list [aria-selected=true]")
    expect(marked).to_have_count(1)
    expect(marked).to_have_id(str(active))
    return marked


def type_in(page: "Page", text: str) -> None:
    page.focus("#message")
    page.keyboard.type(text)


def is_closed(page: "Page") -> None:
    expect(page.locator("#emoji-list")).to_be_hidden()
    assert page.get_attribute("#message", "aria-activedescendant") is None
    expect(page.locator("#emoji-found")).to_have_text("")


# The list of emoji


def test_list_of_emoji_opens_while_a_short_name_is_typed(fake_page: "Page") -> None:
    type_in(fake_page, "on :r")
    is_closed(fake_page)
    fake_page.keyboard.type("o")
    expect(options(fake_page)).to_have_count(8)
    expect(fake_page.locator("#emoji-found")).to_have_text(
        "8 emoji. Choose with the arrow keys and Enter."
    )
    expect(chosen(fake_page)).to_have_text("🇷🇴 :ro:")
    fake_page.keyboard.type("bo")
    expect(options(fake_page)).to_have_text(["🤖 :robot:"])
    expect(fake_page.locator("#emoji-found")).to_have_text(
        "1 emoji. Choose with the arrow keys and Enter."
    )
    fake_page.keyboard.type("x")
    is_closed(fake_page)


def test_arrow_keys_go_around_in_the_list_of_emoji(fake_page: "Page") -> None:
    type_in(fake_page, ":ro")
    names = options(fake_page).all_text_contents()
    for key, index in [("Down", 1), ("Down", 2), ("Up", 1), ("Up", 0), ("Up", 7), ("Down", 0)]:
        fake_page.keyboard.press(f"Arrow{key}")
        expect(chosen(fake_page)).to_have_text(names[index])
    assert fake_page.evaluate("document.getElementById('message').selectionStart") == 3


@pytest.mark.parametrize("key", ["Enter", "Tab"])
def test_enter_and_tab_take_an_emoji_and_send_nothing(fake_page: "Page", key: str) -> None:
    type_in(fake_page, "a :robo")
    fake_page.keyboard.press(key)
    is_closed(fake_page)
    expect(fake_page.locator("#message")).to_have_value("a 🤖 ")
    expect(fake_page.locator("#message")).to_be_focused()
    assert sent_texts(fake_page) == []
    fake_page.keyboard.press("Enter")
    assert sent_texts(fake_page) == ["a 🤖"]


def test_mouse_takes_an_emoji_and_leaves_the_focus_in_the_field(fake_page: "Page") -> None:
    type_in(fake_page, ":ro")
    options(fake_page).filter(has_text=":rocket:").click()
    expect(fake_page.locator("#message")).to_have_value("🚀 ")
    expect(fake_page.locator("#message")).to_be_focused()
    is_closed(fake_page)


def test_escape_closes_the_list_and_enter_then_sends_what_was_typed(fake_page: "Page") -> None:
    type_in(fake_page, ":robo")
    fake_page.keyboard.press("Escape")
    is_closed(fake_page)
    fake_page.keyboard.press("Enter")
    assert sent_texts(fake_page) == [":robo"]


def test_shift_enter_begins_a_new_line_although_the_list_is_open(fake_page: "Page") -> None:
    type_in(fake_page, ":robo")
    fake_page.keyboard.press("Shift+Enter")
    expect(fake_page.locator("#message")).to_have_value(":robo\n")
    is_closed(fake_page)
    assert sent_texts(fake_page) == []


def test_colon_within_a_word_opens_no_list(fake_page: "Page") -> None:
    """And none is opened where a Chinese text goes on behind its own colon, or with a number."""
    texts = ("at 10:30", "see:robot", "http://robot", "::robot", "слово:robot", "十:100")
    for text in (*texts, "时间\uff1aok", "12\uff1a30", "\uff12:robot"):
        type_in(fake_page, text)
        is_closed(fake_page)
        fake_page.fill("#message", "")


def test_colon_after_no_word_opens_the_list(fake_page: "Page") -> None:
    """An input method for Chinese writes a wide colon."""
    for before in ("", "(", "line\n", "好！", "🎉"):
        for colon in (":", "\uff1a"):
            fake_page.fill("#message", f"{before}{colon}robo")
            expect(options(fake_page)).to_have_text(["🤖 :robot:"])
            fake_page.keyboard.press("Enter")
            expect(fake_page.locator("#message")).to_have_value(f"{before}🤖 ")


def test_colon_behind_a_script_without_blanks_opens_the_list(fake_page: "Page") -> None:
    for before in ("你好", "すごい", "スーパー", "안녕", "ดี", "ok 好"):
        fake_page.fill("#message", f"{before}:robo")
        expect(options(fake_page)).to_have_text(["🤖 :robot:"])
        fake_page.keyboard.press("Enter")
        expect(fake_page.locator("#message")).to_have_value(f"{before}🤖 ")


def test_emoji_replaces_its_short_name_at_the_cursor(fake_page: "Page") -> None:
    type_in(fake_page, "a  b")
    for _ in range(2):
        fake_page.keyboard.press("ArrowLeft")
    fake_page.keyboard.type(":robo")
    fake_page.keyboard.press("Enter")
    expect(fake_page.locator("#message")).to_have_value("a 🤖 b")
    fake_page.keyboard.type("!")
    expect(fake_page.locator("#message")).to_have_value("a 🤖! b")


def test_undo_brings_the_short_name_back_and_redo_the_emoji(fake_page: "Page") -> None:
    field = fake_page.locator("#message")
    type_in(fake_page, "a :robo")
    fake_page.keyboard.press("Enter")
    expect(field).to_have_value("a 🤖 ")
    fake_page.keyboard.press("Control+z")
    expect(field).to_have_value("a :robo")
    fake_page.keyboard.press("Escape")
    fake_page.keyboard.press("Control+Shift+z")
    expect(field).to_have_value("a 🤖 ")


def test_list_follows_the_cursor(fake_page: "Page") -> None:
    type_in(fake_page, ":robo")
    fake_page.keyboard.press("ArrowLeft")
    fake_page.keyboard.press("ArrowLeft")
    expect(options(fake_page)).to_have_count(8)
    fake_page.keyboard.press("Home")
    is_closed(fake_page)


def test_enter_takes_the_short_name_however_fast_the_cursor_was_moved(fake_page: "Page") -> None:
    """The browser tells that the cursor has moved only some time afterwards."""
    type_in(fake_page, ":robo")
    fake_page.evaluate(
        """() => {
            const field = document.getElementById('message');
            field.setSelectionRange(1, 1);
            field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', cancelable: true }));
        }"""
    )
    expect(fake_page.locator("#message")).to_have_value("🤖 ")


def test_list_closes_when_the_text_is_sent_by_the_button_or_the_focus_leaves(
    fake_page: "Page",
) -> None:
    type_in(fake_page, ":robo")
    fake_page.evaluate("document.getElementById('send').requestSubmit()")
    is_closed(fake_page)
    type_in(fake_page, ":robo")
    expect(options(fake_page)).to_have_count(1)
    fake_page.focus("#show-settings")
    is_closed(fake_page)


COMPOSE = """text => {
    const field = document.getElementById('message');
    field.focus();
    field.value = text;
    field.dispatchEvent(new InputEvent('input', { isComposing: true }));
}"""


def test_list_stays_closed_while_an_input_method_composes(fake_page: "Page") -> None:
    type_in(fake_page, ":ro")
    expect(options(fake_page)).to_have_count(8)
    fake_page.evaluate(COMPOSE, ":robo")
    is_closed(fake_page)
    fake_page.evaluate(
        "document.getElementById('message').dispatchEvent(new CompositionEvent('compositionend'))"
    )
    expect(options(fake_page)).to_have_count(1)


def test_list_opens_for_the_keyboard_of_a_phone_which_composes_every_word(
    visit: Visit, server: Program
) -> None:
    ada = visit(server, width=390, has_touch=True, is_mobile=True)
    ada.join()
    ada.page.evaluate(COMPOSE, ":robo")
    options(ada.page).tap()
    expect(ada.page.locator("#message")).to_have_value("🤖 ")


# The field


@pytest.mark.parametrize("height", [640, 320])
def test_field_grows_with_its_text_up_to_a_part_of_the_window(
    fake_page: "Page", height: int
) -> None:
    fake_page.set_viewport_size({"width": 390, "height": height})
    heights = []
    for lines in (1, 3, 100):
        fake_page.fill("#message", "\n".join(["word"] * lines))
        box = fake_page.locator("#message").bounding_box()
        assert box
        heights.append(box["height"])
    assert heights[0] < heights[1] < heights[2] <= min(192, 0.35 * height) + 1
    expect(fake_page.locator("#send-button")).to_be_in_viewport(ratio=1)
    fake_page.fill("#message", "")
    expect(fake_page.locator("#message")).to_have_css("height", f"{heights[0]:g}px")


# How long a text may be


LIMIT = 1000  # bytes of a message's JSON
FRAME = len('{"email":"ada@example.org","username":"Ada","message":"","key":""}') + 31


@pytest.fixture(scope="module")
def small_server() -> Iterator[Program]:
    with chat("--max-message", str(LIMIT)) as program:
        yield program


# How many bytes of the JSON each takes
SIZES = {"x": 1, '"': 2, "é": 2, "好": 3, "🎉": 4, "\x07": 6}


def test_page_sends_what_the_server_accepts_to_the_byte_and_no_more(
    page: "Page", small_server: Program
) -> None:
    join(page, small_server.url)
    for character, size in SIZES.items():
        count, rest = divmod(LIMIT - FRAME, size)
        longest = "x" * rest + character * count
        send(page, f"{longest}x")
        expect(page.locator("#send-error")).to_contain_text("This is too long to be sent")
        expect(page.locator("#message")).to_have_value(f"{longest}x")
        with small_server.join() as peer:
            page.press("#message", "End")
            page.press("#message", "Backspace")
            expect(page.locator("#send-error")).to_have_text("")
            page.press("#message", "Enter")
            hear_until(peer, longest)
        sent = page.locator("body[data-state=open] .message.sent .text")
        expect(sent.last).to_have_text(longest)
    expect(sent).to_have_count(len(SIZES))


COUNTED = [
    ("x" * 100, ""),
    ("x" * 700, ""),
    ("x" * 803, "About 100 characters left"),
    ("x" * 902, "About 1 character left"),
    ("x" * 903, "About 0 characters left"),
    ("x" * 904, "About 1 character too long"),
    ("x" * 2903, "About 2,000 characters too long"),
    ("好" * 291, "About 10 characters left"),
    ("🎉" * 226, "About 1 character too long"),
    ('"' * 450, "About 1 character left"),
]


def test_counter_says_near_the_limit_how_many_characters_are_left(
    page: "Page", small_server: Program
) -> None:
    assert LIMIT - FRAME == 903
    join(page, small_server.url)
    for text, said in COUNTED:
        page.fill("#message", text)
        expect(page.locator("#characters-left")).to_have_text(said)
        too_long = "true" if said.endswith("too long") else "false"
        expect(page.locator("#message")).to_have_attribute("aria-invalid", too_long)


# A server that slows


def test_page_says_that_it_is_slowed_until_all_is_sent(page: "Page") -> None:
    texts = [f"{number}" for number in range(5)]
    with chat("--rate", "1") as server:
        join(page, server.url)
        send(page, *texts)
        expect(page.locator("#slowed")).to_have_text(
            "You are faster than this server allows, which is 1 message a second. "
            "Nothing is lost; it takes a little longer."
        )
        sees(page, *texts)
        expect(page.locator("#slowed")).to_have_text("")


@pytest.mark.parametrize("code", [1006, 1008])
def test_page_does_not_say_that_it_is_slowed_when_nothing_is_being_sent(
    fake_page: "Page", code: int
) -> None:
    """The connection is lost; or the only message is refused, which ends it, too."""
    send(fake_page, "hello")
    receive_texts(fake_page, json.dumps({"event": "slowed", "rate": 2}))
    expect(fake_page.locator("#slowed")).to_contain_text("which is 2 messages a second")
    fake_page.evaluate("window.accepting = false")
    receive_close(fake_page, code)
    expect(fake_page.locator("#slowed")).to_have_text("")


def test_sent_is_said_below_the_last_of_all_messages_only(fake_page: "Page") -> None:
    send(fake_page, "one", "two")
    states = fake_page.locator(".message .state")
    expect(states).to_have_text(["Sending…", "Sending…"])
    for number, record in enumerate(sent_messages(fake_page)):
        copy = record | {"id": f"170000000000{number}-0", "avatar": ""}
        receive_texts(fake_page, json.dumps(copy))
    expect(states).to_have_text(["Sent", "Sent"])
    expect(states.first).to_be_hidden()
    expect(states.last).to_be_visible()

"""The chat's page in Chromium: what a user does and sees, and what the page must never do."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

from chatting import hear, hear_texts, say
from pages import GRAVATAR, Visit, Visitor, expect, receive_texts
from peers import Peer, eventually
from programs import Program, chat

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.browser

PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="80"/>'
WIDTHS = [360, 1280]  # px; of a small phone and of a desktop computer


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Program]:
    """A chat that outlives the visitors: their pages would report it as an error if it exited."""
    with chat(*getattr(request, "param", [])) as program:
        yield program


# Joining


def test_page_says_which_field_is_empty_and_does_not_join(server: Program, visit: Visit) -> None:
    ada = visit(server)
    for email, username, error in (
        ("", "", "You must enter an email"),
        ("ada@example.org", "", "You must choose a username"),
        ("", "Ada", "You must enter an email"),
        ("ada@example.org", " \t ", "You must choose a username"),
        ("   ", "Ada", "You must enter an email"),
    ):
        ada.page.get_by_label("Email").fill(email)
        ada.page.get_by_label("Username").fill(username)
        ada.page.get_by_role("button", name="Join").click()
        expect(ada.page.get_by_role("alert")).to_have_text(error)
        expect(ada.page.locator("#error")).to_have_text(error)
        expect(ada.page.locator("#join")).to_be_visible()
        expect(ada.page.locator("#chat")).to_be_hidden()
    ada.join()
    expect(ada.page.locator("#chat")).to_be_visible()
    expect(ada.page.locator("#join")).to_be_hidden()


def test_email_and_username_are_limited_to_what_the_server_accepts(
    server: Program, visit: Visit
) -> None:
    ada = visit(server)
    for field, limit in (("email", 254), ("username", 64)):
        ada.page.fill("#email", "ada@example.org")
        ada.page.fill("#username", "Ada")
        ada.page.fill(f"#{field}", "")
        ada.page.locator(f"#{field}").focus()
        ada.page.keyboard.insert_text("x" * (limit + 10))
        expect(ada.page.locator(f"#{field}")).to_have_value("x" * limit)
        # A script, such as that of a password manager, is not stopped by `maxlength`.
        ada.page.evaluate(
            "([id, value]) => { document.getElementById(id).value = value; }",
            [field, "🤖" * (limit + 1)],
        )
        ada.page.click("#join-button")
        expect(ada.page.get_by_role("alert").first).to_have_text(
            f"The {field} has more than {limit} characters"
        )
        expect(ada.page.locator(f"#{field}")).to_be_focused()
    ada.join("a" * 254, "x" * 64)


def test_enter_joins_and_moves_the_focus_to_the_message_field(
    server: Program, visit: Visit
) -> None:
    ada = visit(server)
    ada.page.fill("#email", "anything will do")
    ada.page.fill("#username", "Ada")
    ada.page.press("#username", "Enter")
    expect(ada.page.locator("#message")).to_be_focused()
    expect(ada.page.locator("#status")).to_have_text("Connected")


def test_client_of_plain_ws_receives_nothing_when_a_page_joins(
    server: Program, visit: Visit
) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        ada.say("the first that they receive")
        assert hear_texts(peer, 1) == ["the first that they receive"]


# Talking


@pytest.mark.parametrize("width", WIDTHS)
def test_two_pages_chat(server: Program, visit: Visit, width: int) -> None:
    ada, bob = visit(server, width=width), visit(server, width=width)
    ada.join("ada@example.org", "Ada")
    bob.join("bob@example.org", "Bob")
    ada.say("Good day, Bob")
    for visitor in (ada, bob):
        visitor.sees("Good day, Bob")
    bob.say("Good day, Ada")
    bob.say("你好")
    for visitor in (ada, bob):
        visitor.sees("Good day, Bob", "Good day, Ada", "你好")
        expect(visitor.messages.locator(".name")).to_have_text(["Ada", "Bob", "Bob"])
        for time in visitor.messages.locator("time.time").all():
            assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d", time.get_attribute("datetime") or "")
            assert time.inner_text()


def test_page_sends_the_three_fields_as_they_were_typed(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join("Ada@Example.org", "Ada <b>")
        ada.say("as typed: :robot: <i>&amp;</i>")
        message = hear(peer)
    assert message["email"] == "Ada@Example.org"
    assert message["username"] == "Ada <b>"
    assert message["message"] == "as typed: :robot: <i>&amp;</i>"


def test_shortcodes_become_emoji_and_nothing_else_does(server: Program, visit: Visit) -> None:
    shown = {
        ":robot:": "🤖",
        "a :robot: and :robot::smile:": "a 🤖 and 🤖😄",
        "at 10:30:robot:": "at 10:30🤖",
        ":no_such_emoji: :constructor: :__proto__:": ":no_such_emoji: :constructor: :__proto__:",
        ": robot :": ": robot :",
        "::": "::",
        "http://localhost:8000/": "http://localhost:8000/",
    }
    ada = visit(server)
    ada.join()
    for typed in shown:
        ada.say(typed)
    ada.sees(*shown.values())


MARKUP = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "<b onmouseover=alert(3)>bold</b> &lt;i&gt; &amp; &#128512;",
    "\"'><svg onload=alert(4)>",
    "<style>*{display:none}</style><iframe src=//x.example></iframe>",
    "javascript:alert(5) [link](javascript:alert(6))",
]
ELEMENTS_OF_MARKUP = "#messages :is(a, b, i, iframe, img, link, script, style, svg)"


def test_markup_stays_text_in_every_field(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        for markup in MARKUP:
            say(peer, markup, email=markup, username=markup)
        ada.sees(*MARKUP)
        expect(ada.messages.locator(".name")).to_have_text(MARKUP)
        ada.messages.last.hover()
        expect(ada.page.locator(ELEMENTS_OF_MARKUP)).to_have_count(0)


def test_markup_that_the_user_types_stays_text(server: Program, visit: Visit) -> None:
    ada = visit(server)
    ada.join(MARKUP[0], MARKUP[2])
    for markup in MARKUP:
        ada.say(markup)
    ada.sees(*MARKUP)
    expect(ada.messages.locator(".name")).to_have_text([MARKUP[2]] * len(MARKUP))
    expect(ada.page.locator(ELEMENTS_OF_MARKUP)).to_have_count(0)


def test_enter_sends_and_shift_enter_begins_a_new_line(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        field = ada.page.locator("#message")
        field.press_sequentially("one")
        field.press("Shift+Enter")
        field.press_sequentially("two")
        expect(field).to_have_value("one\ntwo")
        field.press("Enter")
        expect(field).to_have_value("")
        expect(field).to_be_focused()
        assert hear_texts(peer, 1) == ["one\ntwo"]
        ada.sees("one\ntwo")
        heights = [box["height"] for text in ada.texts.all() if (box := text.bounding_box())]
        field.press_sequentially("one line")
        ada.page.click("#send-button")
        assert hear_texts(peer, 1) == ["one line"]
        expect(ada.messages).to_have_count(2)
        box = ada.texts.nth(1).bounding_box()
        assert box is not None
        assert heights[0] > 1.5 * box["height"]


def test_enter_that_picks_a_word_in_an_input_method_sends_nothing(
    server: Program, visit: Visit
) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        ada.page.fill("#message", "你好")
        for properties in ("{ isComposing: true }", "{ keyCode: 229 }"):
            ada.page.evaluate(
                f"""() => {{
                    const enter = {{ key: 'Enter', bubbles: true, cancelable: true }};
                    const event = new KeyboardEvent('keydown', {{ ...enter, ...{properties} }});
                    document.getElementById('message').dispatchEvent(event);
                }}"""
            )
        expect(ada.page.locator("#message")).to_have_value("你好")
        ada.page.press("#message", "Enter")
        assert hear_texts(peer, 1) == ["你好"]


def test_blank_text_is_not_sent(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        for blank in ("", "   ", "\n\n"):
            ada.say(blank)
            ada.page.click("#send-button")
        ada.say("something")
        assert hear_texts(peer, 1) == ["something"]
        ada.sees("something")


def test_own_messages_are_shown_immediately_and_only_once(server: Program, visit: Visit) -> None:
    ada = visit(server)
    ada.join()
    texts = [f"number {i}" for i in range(30)]
    for text in texts:
        ada.say(text)
    expect(ada.page.locator("#messages li.message .text")).to_have_text(texts)
    ada.sees(*texts)


def test_many_messages_at_once_are_all_shown_in_order(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        for i in range(400):
            say(peer, f"number {i}")
        ada.sees(*(f"number {i}" for i in range(400)))


# Scrolling


def fill_list(peer: Peer, visitor: Visitor, count: int) -> None:
    """Send so many messages that the list does not fit on the screen."""
    for i in range(count):
        say(peer, f"filler {i}")
    expect(visitor.messages).to_have_count(count)


def is_at_end(visitor: Visitor) -> None:
    expect(visitor.messages.last).to_be_in_viewport(ratio=0.9)
    assert visitor.scroll_position()["left"] < 2


def test_list_scrolls_to_new_messages_if_its_reader_is_at_the_end(
    server: Program, visit: Visit
) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        fill_list(peer, ada, 60)
        is_at_end(ada)
        say(peer, "a long one " * 100)
        expect(ada.messages).to_have_count(61)
        assert ada.scroll_position()["left"] < 2
        expect(ada.page.locator("#new-messages")).to_be_hidden()


@pytest.mark.parametrize("width", WIDTHS)
def test_list_stays_where_its_reader_has_scrolled_to(
    server: Program, visit: Visit, width: int
) -> None:
    with server.join() as peer:
        ada = visit(server, width=width)
        ada.join()
        fill_list(peer, ada, 60)
        ada.messages.nth(5).scroll_into_view_if_needed()
        before = ada.scroll_position()["top"]
        say(peer, "news")
        expect(ada.page.locator("#new-messages")).to_be_visible()
        expect(ada.messages).to_have_count(61)
        assert ada.scroll_position()["top"] == before
        ada.page.click("#new-messages")
        is_at_end(ada)
        expect(ada.page.locator("#new-messages")).to_be_hidden()
        say(peer, "more news")
        expect(ada.messages).to_have_count(62)
        is_at_end(ada)


def test_list_scrolls_to_new_messages_again_once_its_reader_is_back_at_the_end(
    server: Program, visit: Visit
) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        fill_list(peer, ada, 60)
        ada.messages.first.scroll_into_view_if_needed()
        say(peer, "news")
        expect(ada.page.locator("#new-messages")).to_be_visible()
        ada.messages.last.scroll_into_view_if_needed()
        ada.page.hover("#messages")
        ada.page.mouse.wheel(0, 10_000)
        expect(ada.page.locator("#new-messages")).to_be_hidden()
        say(peer, "more news")
        expect(ada.messages).to_have_count(62)
        is_at_end(ada)


def test_list_scrolls_to_a_message_that_its_reader_sends(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        fill_list(peer, ada, 60)
        ada.messages.first.scroll_into_view_if_needed()
        ada.say("here I am")
        expect(ada.messages).to_have_count(61)
        is_at_end(ada)


# Pictures


def hash_of(email: str) -> str:
    return hashlib.sha256(email.strip().lower().encode()).hexdigest()


def test_initials_are_shown_where_there_is_no_picture(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        say(peer, "a", email=" Bob@Example.ORG", username="bob roberts")
        say(peer, "b", email="bob@example.org", username="bob roberts")
        say(peer, "c", email="eve@example.org", username="🤖")
        say(peer, "d", email="", username="")
        avatars = ada.messages.locator(".avatar")
        expect(avatars).to_have_text([re.compile(text) for text in ("^B", "^B", "🤖", ".")])
        colours = [
            avatar.evaluate("(each) => getComputedStyle(each).backgroundColor")
            for avatar in avatars.all()
        ]
        assert colours[0] == colours[1] != colours[2]
        for avatar in avatars.all():
            box = avatar.bounding_box()
            assert box is not None and box["width"] == box["height"] > 20
        expect(ada.page.locator("#messages img")).to_have_count(0)
        for email in ("bob@example.org", "eve@example.org"):
            asked = [url for url in ada.pictures_asked_for if hash_of(email) in url]
            assert len(asked) == 1


def test_picture_replaces_the_initials_and_moves_nothing(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        without, ada = visit(server), visit(server, picture=PICTURE)
        for visitor in (without, ada):
            visitor.join()
        for visitor in (without, ada):
            expect(
                visitor.page.locator("#online")
            ).to_be_visible()  # it takes some of the width, on both pages
        say(peer, "with a picture", email="bob@example.org", username="Bob")
        picture = ada.messages.locator(".avatar img")
        expect(picture).to_be_visible()
        assert (picture.get_attribute("src") or "").startswith(
            f"{GRAVATAR}avatar/{hash_of('bob@example.org')}"
        )
        expect(without.messages).to_have_count(1)
        for part in (".avatar", ".name", ".text"):
            box = ada.messages.locator(part).bounding_box()
            assert box == without.messages.locator(part).bounding_box()
        outer, inner = ada.messages.locator(".avatar").bounding_box(), picture.bounding_box()
        assert outer == inner


def test_requests_for_pictures_do_not_tell_where_the_chat_is(server: Program, visit: Visit) -> None:
    ada = visit(server)
    referrers: list[str | None] = []
    ada.page.on(
        "request",
        lambda request: (
            referrers.append(request.headers.get("referer"))
            if request.url.startswith(GRAVATAR)
            else None
        ),
    )
    ada.join()
    ada.say("hello")
    ada.sees("hello")
    expect(ada.messages.locator(".avatar[data-hash]")).to_have_count(1)
    assert referrers == [None]


def test_page_remembers_the_pictures_of_the_last_thousand_people_whom_it_showed(
    fake_page: "Page",
) -> None:
    asked_for: list[int] = []
    fake_page.context.unroute(f"{GRAVATAR}**")

    def answer(route: "Route") -> None:
        asked_for.append(int(route.request.url.rpartition("/")[2][:64]))
        route.fulfill(status=404)

    fake_page.context.route(f"{GRAVATAR}**", answer)

    def show(people: Iterable[int]) -> None:
        each = [{"username": str(number), "avatar": f"{number:064}"} for number in people]
        receive_texts(fake_page, json.dumps({"event": "online", "count": 1, "people": each}))
        expect(fake_page.locator("#online .name").last).to_have_text(each[-1]["username"])

    show(range(1000))
    eventually(lambda: fake_page.title() and len(asked_for) == 1000)
    show([0, 1])  # these are needed again, and 2 is not
    show([1000])
    show([0, 1])
    show([2])
    eventually(lambda: fake_page.title() and len(asked_for) == 1002)
    assert asked_for[1000:] == [1000, 2]


# Around the messages


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen(server: Program, visit: Visit, width: int) -> None:
    with server.join() as peer:
        ada = visit(server, width=width)
        fits_on_screen(ada, width, "#email", "#username", "#join-button")
        ada.join("ada@example.org", "Ada")
        say(peer, "w" * 500, username="n" * 64)
        say(peer, "https://example.org/" + "path/" * 100)
        expect(ada.messages).to_have_count(2)
        fits_on_screen(ada, width, "#message", "#send-button", "#connection")
        for part in (".avatar", ".name", ".text"):
            box = ada.messages.first.locator(part).bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


def fits_on_screen(visitor: Visitor, width: int, *selectors: str) -> None:
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visitor.page.evaluate("document.documentElement.scrollHeight") <= 640
    for selector in selectors:
        expect(visitor.page.locator(selector)).to_be_in_viewport(ratio=1)


def test_page_says_that_the_connection_is_lost_when_the_server_exits(
    server: Program, visit: Visit
) -> None:
    ada = visit(server)
    ada.join()
    server.signal()
    expect(ada.page.locator("#status")).to_contain_text("Connection lost")
    assert server.wait() == 0
    ada.forgive("ERR_CONNECTION_REFUSED")  # the browser writes this for each attempt to reconnect


@pytest.mark.parametrize("server", [["--hide-emails"]], indirect=True)
def test_page_of_a_server_that_hides_emails_shows_none(server: Program, visit: Visit) -> None:
    ada, bob = visit(server), visit(server)
    ada.join("ada@example.org", "Ada")
    bob.join("bob@example.org", "Bob")
    ada.say("guess")
    bob.sees("guess")
    assert "ada@example.org" not in bob.page.content()
    assert any(hash_of("ada@example.org") in url for url in bob.pictures_asked_for)

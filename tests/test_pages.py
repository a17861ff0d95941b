"""The pages in a real browser: what a user does, sees, and must never see."""

import hashlib
import re
from collections.abc import Iterator

import pytest

from pages import GRAVATAR, Visit, Visitor, expect
from peers import Peer
from programs import Program, answer_close, chat, echo, hear, hear_texts, say

pytestmark = pytest.mark.browser

PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="80"/>'
WIDTHS = [360, 1280]  # px; a small telephone and a desk


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Program]:
    """The chat; it outlives the visitors, whose pages would else complain that it has gone."""
    with chat(*getattr(request, "param", [])) as program:
        yield program


# Joining


def test_who_leaves_a_field_empty_is_told_which_and_does_not_join(
    server: Program, visit: Visit
) -> None:
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


def test_email_and_name_have_the_length_that_the_server_takes(
    server: Program, visit: Visit
) -> None:
    ada = visit(server)
    for field, most in (("email", 254), ("username", 64)):
        ada.page.fill("#email", "ada@example.org")
        ada.page.fill("#username", "Ada")
        ada.page.fill(f"#{field}", "")
        ada.page.locator(f"#{field}").focus()
        ada.page.keyboard.insert_text("x" * (most + 10))
        expect(ada.page.locator(f"#{field}")).to_have_value("x" * most)
        # A script, such as a password manager's, gets past `maxlength`.
        ada.page.evaluate(
            "([id, value]) => { document.getElementById(id).value = value; }",
            [field, "🤖" * (most + 1)],
        )
        ada.page.click("#join-button")
        expect(ada.page.get_by_role("alert").first).to_have_text(
            f"The {field} has more than {most} characters"
        )
        expect(ada.page.locator(f"#{field}")).to_be_focused()
    ada.join("a" * 254, "x" * 64)


def test_enter_joins_and_the_message_field_has_the_focus(server: Program, visit: Visit) -> None:
    ada = visit(server)
    ada.page.fill("#email", "anything will do")
    ada.page.fill("#username", "Ada")
    ada.page.press("#username", "Enter")
    expect(ada.page.locator("#message")).to_be_focused()
    expect(ada.page.locator("#status")).to_have_text("connected")


def test_clients_of_plain_ws_do_not_notice_a_page_that_joins(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        ada.say("the first they hear")
        assert hear_texts(peer, 1) == ["the first they hear"]


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


def test_short_names_become_emoji_and_nothing_else_does(server: Program, visit: Visit) -> None:
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
MADE_BY_MARKUP = "#chat :is(a, b, i, iframe, img, link, script, style, svg)"


def test_markup_stays_text_in_every_field(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        for markup in MARKUP:
            say(peer, markup, email=markup, username=markup)
        ada.sees(*MARKUP)
        expect(ada.messages.locator(".name")).to_have_text(MARKUP)
        ada.messages.last.hover()
        expect(ada.page.locator(MADE_BY_MARKUP)).to_have_count(0)


def test_markup_of_ones_own_stays_text(server: Program, visit: Visit) -> None:
    ada = visit(server)
    ada.join(MARKUP[0], MARKUP[2])
    for markup in MARKUP:
        ada.say(markup)
    ada.sees(*MARKUP)
    expect(ada.messages.locator(".name")).to_have_text([MARKUP[2]] * len(MARKUP))
    expect(ada.page.locator(MADE_BY_MARKUP)).to_have_count(0)


def test_enter_sends_and_shift_enter_begins_a_line(server: Program, visit: Visit) -> None:
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
        for how in ("{ isComposing: true }", "{ keyCode: 229 }"):
            ada.page.evaluate(
                f"""() => document.getElementById('message').dispatchEvent(new KeyboardEvent(
                    'keydown', {{ key: 'Enter', bubbles: true, cancelable: true, ...{how} }}))"""
            )
        expect(ada.page.locator("#message")).to_have_value("你好")
        ada.page.press("#message", "Enter")
        assert hear_texts(peer, 1) == ["你好"]


def test_nothing_is_sent_where_nothing_is_said(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        for blank in ("", "   ", "\n\n"):
            ada.say(blank)
            ada.page.click("#send-button")
        ada.say("something")
        assert hear_texts(peer, 1) == ["something"]
        ada.sees("something")


def test_what_is_said_shows_at_once_and_once(server: Program, visit: Visit) -> None:
    ada = visit(server)
    ada.join()
    texts = [f"number {i}" for i in range(30)]
    for text in texts:
        ada.say(text)
    expect(ada.page.locator("#messages li.message .text")).to_have_text(texts)
    ada.sees(*texts)


def test_many_messages_that_come_at_once_are_all_shown_in_order(
    server: Program, visit: Visit
) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        for i in range(400):
            say(peer, f"number {i}")
        ada.sees(*(f"number {i}" for i in range(400)))


# Scrolling


def fill(peer: Peer, visitor: Visitor, count: int) -> None:
    """Say so much that the list is longer than the screen."""
    for i in range(count):
        say(peer, f"filler {i}")
    expect(visitor.messages).to_have_count(count)


def at_end(visitor: Visitor) -> None:
    expect(visitor.messages.last).to_be_in_viewport(ratio=0.9)
    assert visitor.scrolled()["left"] < 2


def test_list_follows_a_reader_at_its_end(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        fill(peer, ada, 60)
        at_end(ada)
        say(peer, "a long one " * 100)
        expect(ada.messages).to_have_count(61)
        assert ada.scrolled()["left"] < 2
        expect(ada.page.locator("#follow")).to_be_hidden()


@pytest.mark.parametrize("width", WIDTHS)
def test_list_stays_where_its_reader_scrolled_to(server: Program, visit: Visit, width: int) -> None:
    with server.join() as peer:
        ada = visit(server, width=width)
        ada.join()
        fill(peer, ada, 60)
        ada.messages.nth(5).scroll_into_view_if_needed()
        before = ada.scrolled()["top"]
        say(peer, "news")
        expect(ada.page.locator("#follow")).to_be_visible()
        expect(ada.messages).to_have_count(61)
        assert ada.scrolled()["top"] == before
        ada.page.click("#follow")
        at_end(ada)
        expect(ada.page.locator("#follow")).to_be_hidden()
        say(peer, "more news")
        expect(ada.messages).to_have_count(62)
        at_end(ada)


def test_reader_who_scrolls_back_to_the_end_is_followed_again(
    server: Program, visit: Visit
) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        fill(peer, ada, 60)
        ada.messages.first.scroll_into_view_if_needed()
        say(peer, "news")
        expect(ada.page.locator("#follow")).to_be_visible()
        ada.messages.last.scroll_into_view_if_needed()
        ada.page.hover("#messages")
        ada.page.mouse.wheel(0, 10_000)
        expect(ada.page.locator("#follow")).to_be_hidden()
        say(peer, "more news")
        expect(ada.messages).to_have_count(62)
        at_end(ada)


def test_reader_elsewhere_who_speaks_sees_it(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        ada = visit(server)
        ada.join()
        fill(peer, ada, 60)
        ada.messages.first.scroll_into_view_if_needed()
        ada.say("here I am")
        expect(ada.messages).to_have_count(61)
        at_end(ada)


# Pictures


def hash_of(email: str) -> str:
    return hashlib.sha256(email.strip().lower().encode()).hexdigest()


def test_initials_stand_for_a_picture_that_cannot_be_had(server: Program, visit: Visit) -> None:
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
        expect(ada.page.locator("img")).to_have_count(0)
        for email in ("bob@example.org", "eve@example.org"):
            asked = [url for url in ada.pictures_asked_for if hash_of(email) in url]
            assert len(asked) == 1


def test_picture_replaces_the_initials_without_a_jump(server: Program, visit: Visit) -> None:
    with server.join() as peer:
        without, ada = visit(server), visit(server, picture=PICTURE)
        for visitor in (without, ada):
            visitor.join()
        for visitor in (without, ada):
            expect(visitor.page.locator("#online")).to_be_visible()  # it takes some of the width
        say(peer, "with a face", email="bob@example.org", username="Bob")
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


def test_pictures_are_asked_for_without_telling_where_the_chat_is(
    server: Program, visit: Visit
) -> None:
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


# The frame around it


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen(server: Program, visit: Visit, width: int) -> None:
    with server.join() as peer:
        ada = visit(server, width=width)
        fits(ada, width, "#email", "#username", "#join-button")
        ada.join("ada@example.org", "Ada")
        say(peer, "w" * 500, username="n" * 64)
        say(peer, "https://example.org/" + "path/" * 100)
        expect(ada.messages).to_have_count(2)
        fits(ada, width, "#message", "#send-button", "#status")
        for part in (".avatar", ".name", ".text"):
            box = ada.messages.first.locator(part).bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


def fits(visitor: Visitor, width: int, *selectors: str) -> None:
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visitor.page.evaluate("document.documentElement.scrollHeight") <= 640
    for selector in selectors:
        expect(visitor.page.locator(selector)).to_be_in_viewport(ratio=1)


def test_page_says_that_the_server_has_gone(server: Program, visit: Visit) -> None:
    ada = visit(server)
    ada.join()
    server.signal()
    expect(ada.page.locator("#status")).to_contain_text("connection lost")
    assert server.wait() == 0
    ada.forgive("ERR_CONNECTION_REFUSED")  # a browser says so of each attempt to reconnect


@pytest.mark.parametrize("server", [["--hide-emails"]], indirect=True)
def test_page_of_a_server_that_hides_emails_shows_none(server: Program, visit: Visit) -> None:
    ada, bob = visit(server), visit(server)
    ada.join("ada@example.org", "Ada")
    bob.join("bob@example.org", "Bob")
    ada.say("guess")
    bob.sees("guess")
    assert "ada@example.org" not in bob.page.content()
    assert any(hash_of("ada@example.org") in url for url in bob.pictures_asked_for)


# The echo page


@pytest.mark.parametrize("width", WIDTHS)
def test_echo_page_lists_the_answers(visit: Visit, width: int) -> None:
    with echo() as server:
        ada = visit(server, width=width)
        expect(ada.page.locator("#status")).to_have_text("connected")
        answers = ada.page.locator("#answers li")
        ada.page.get_by_role("button", name="Send").click()
        expect(answers).to_have_text(["[hello, world!你好]"])
        ada.page.fill("#message", "<b>bold</b> & :robot:")
        ada.page.press("#message", "Enter")
        expect(answers).to_have_text(["[hello, world!你好]", "[<b>bold</b> & :robot:]"])
        assert ada.page.locator("#answers b").count() == 0
        ada.page.fill("#message", "")
        ada.page.press("#message", "Enter")
        expect(answers).to_have_count(3)
        expect(answers.last).to_have_text("[]")
        assert ada.page.evaluate("document.documentElement.scrollWidth") <= width
        assert "Receive: hello, world!你好\nSend: [hello, world!你好]\n" in server.output


def test_echo_page_says_that_the_server_has_gone_and_finds_it_again(visit: Visit) -> None:
    with echo() as server:
        port = server.server_port
        ada = visit(server)
        expect(ada.page.locator("#status")).to_have_text("connected")
        server.signal()
        ada.forgive(
            "ERR_CONNECTION_REFUSED"
        )  # a browser may ask for the page's icon as late as now
        expect(ada.page.locator("#status")).to_contain_text("connection lost")
        assert server.wait() == 0
    with echo("--port", str(port)) as server:
        ada.page.get_by_role("button", name="Send").click()
        expect(ada.page.locator("#answers li")).to_have_text(["[hello, world!你好]"])
        expect(ada.page.locator("#status")).to_have_text("connected")


def test_plain_echo_page_shows_what_was_sent(visit: Visit) -> None:
    with echo("--plain") as server, server.join("/echo") as peer:
        ada = visit(server)
        ada.page.fill("#message", "as it is")
        ada.page.get_by_role("button", name="Send").click()
        expect(ada.page.locator("#answers li")).to_have_text(["as it is"])
        assert peer.is_silent(0.01)
        server.signal()
        assert answer_close(peer)[0] == 1001

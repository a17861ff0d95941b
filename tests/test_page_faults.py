"""The page when something in it, or in what the server sends, is at fault: it costs itself only."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pages import SOCKETS, come_in, come_in_raw, expect, join, sees, type_and_send
from programs import Program, chat

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    """For pages whose sockets are the test's own."""
    with chat() as program:
        yield program


@pytest.fixture
def complaints(page: "Page") -> list[str]:
    """What nobody caught; what is on the console was caught."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.add_init_script(SOCKETS)
    return found


def message(message_id: str, text: str) -> str:
    fields = {"email": "", "username": "Bob", "message": text, "id": message_id, "avatar": ""}
    return json.dumps(fields)


@pytest.mark.parametrize(
    "fault",
    [
        # The list of messages, and each of its parts, are put together by `append` ...
        """Element.prototype.append = ((append) => function (...parts) {
            if (parts.some((part) => part.textContent?.includes('poison'))) throw Error('poison');
            append.apply(this, parts);
        })(Element.prototype.append);""",
        # ... and a time by a formatter.
        """Intl.DateTimeFormat = class {
            format(date) {
                if (date.getTime() === 1_700_000_000_002) throw Error('poison');
                return 'now';
            }
        };""",
    ],
    ids=["its item", "its time"],
)
def test_message_that_can_not_be_drawn_is_shown_plainly_and_loses_no_other(
    page: "Page", server: Program, complaints: list[str], fault: str
) -> None:
    page.add_init_script(fault)
    join(page, server.url)
    texts = {1: "one", 2: "the poison", 3: "three"}
    come_in_raw(page, *(message(f"170000000000{n}-0", text) for n, text in texts.items()))
    expect(page.locator("#messages li")).to_have_count(3)
    expect(page.locator("#messages li.message:not(.plain) .text")).to_have_text(["one", "three"])
    expect(page.locator("#messages li").nth(1)).to_have_text("Bob: the poison")
    assert complaints == []


def test_own_message_that_can_not_be_drawn_is_sent_and_shown_plainly(
    page: "Page", server: Program, complaints: list[str]
) -> None:
    page.add_init_script(
        """Element.prototype.append = ((append) => function (...parts) {
            if (parts.some((part) => part.textContent?.includes('poison'))) throw Error('poison');
            append.apply(this, parts);
        })(Element.prototype.append);"""
    )
    join(page, server.url)
    type_and_send(page, "my poison", "no such thing")
    expect(page.locator("#messages .pending .text")).to_have_text(["no such thing"])
    keys = [json.loads(text)["key"] for text in page.evaluate("sent") if "poison" in text]
    assert len(keys) == 1
    come_in(page, "17-1", "my poison", key=keys[0])
    expect(page.locator("#messages .plain")).to_have_text(["Bob: my poison"])
    assert complaints == []


BAD_FRAMES = [
    "",
    "no JSON",
    "null",
    "17",
    '"text"',
    "[]",
    "{}",
    '{"event": 17}',
    '{"event": "of another version", "message": {}}',
    '{"event": "online"}',
    '{"event": "online", "count": "many", "usernames": "Ada"}',
    '{"event": "online", "count": 3, "usernames": [null, 17, {"a": "b"}]}',
    '{"event": "online", "count": null, "usernames": {"length": -1}}',
    '{"id": null, "username": "no message"}',
]
ODD_MESSAGES = {
    '{"message": "it alone"}': "it alone",
    '{"message": null, "id": "17-2"}': "",
    '{"message": 17, "username": 18, "email": false, "id": "17-3", "avatar": []}': "17",
    '{"message": "no id", "id": 17, "key": {}, "username": {}}': "no id",
    '{"message": "no such id", "id": "not a number"}': "no such id",
    '{"message": "a long id", "id": "17-18446744073709551615"}': "a long id",
    '{"message": ["a list"], "id": ["17-4"]}': '["a list"]',
}


def test_frame_that_makes_no_sense_loses_none_that_does(
    page: "Page", server: Program, complaints: list[str]
) -> None:
    join(page, server.url)
    for number, frame in enumerate(BAD_FRAMES):
        come_in_raw(page, frame, message(f"16-{number}", f"after {frame}"))
    sees(page, *(f"after {frame}" for frame in BAD_FRAMES))
    assert complaints == []


def test_message_with_odd_fields_is_shown_as_well_as_it_can_be(
    page: "Page", server: Program, complaints: list[str]
) -> None:
    join(page, server.url)
    come_in(page, "17-1", "first")
    come_in_raw(page, *ODD_MESSAGES)
    come_in(page, "17-9", "last")
    sees(page, "first", *ODD_MESSAGES.values(), "last")
    page.evaluate("sockets[0].lose()")
    expect(page.locator("#status")).to_have_text("connected")
    assert page.evaluate("sockets[1].url").endswith("?since=17-9")
    assert complaints == []


@pytest.mark.parametrize("number", ["17", "17.5", '["17-1"]'])
def test_id_that_is_no_string_costs_no_later_message(
    page: "Page", server: Program, complaints: list[str], number: str
) -> None:
    join(page, server.url)
    type_and_send(page, "mine")
    key = json.loads(page.evaluate("sent.at(-1)"))["key"]
    come_in_raw(page, f'{{"message": "a number", "username": "Bob", "id": {number}}}')
    come_in_raw(page, json.dumps({"message": "mine", "id": 18, "key": key}))
    come_in(page, "17-1", "first")
    type_and_send(page, "mine too")
    key = json.loads(page.evaluate("sent.at(-1)"))["key"]
    come_in_raw(page, f'{{"message": "once more", "username": "Bob", "id": {number}}}')
    come_in(page, "17-2", "mine too", key=key)
    sees(page, "a number", "mine", "first", "once more", "mine too")
    page.evaluate("sockets[0].lose()")
    expect(page.locator("#status")).to_have_text("connected")
    assert page.evaluate("sockets[1].url").endswith("?since=17-2")
    assert complaints == []


def test_page_never_asks_for_what_came_after_an_id_that_servers_refuse(
    page: "Page", server: Program, complaints: list[str]
) -> None:
    join(page, server.url)
    come_in(page, "17-1", "as usual")
    come_in(page, "99999999999999999999-0", "too long")
    come_in(page, "", "none")
    come_in(page, "17-1&since=0", "forged")
    sees(page, "as usual", "too long", "none", "forged")
    page.evaluate("sockets[0].lose()")
    expect(page.locator("#status")).to_have_text("connected")
    assert page.evaluate("sockets[1].url").endswith("?since=17-1")


@pytest.mark.parametrize(
    "selector",
    ["#countdown", "#online h2"],
)
def test_part_of_the_page_that_is_broken_takes_no_other_with_it(
    page: "Page", server: Program, complaints: list[str], selector: str
) -> None:
    page.goto(server.url)
    page.evaluate("selector => document.querySelector(selector).remove()", selector)
    page.fill("#email", "ada@example.org")
    page.fill("#username", "Ada")
    page.click("#join-button")
    page.wait_for_function("sent.length > 0")
    assert json.loads(page.evaluate("sent")[0])["event"] == "join"
    come_in_raw(page, '{"event": "online", "count": 1, "usernames": ["Ada"]}')
    come_in(page, "17-1", "here all the same")
    sees(page, "here all the same")
    assert complaints == []


def test_constructor_of_sockets_that_throws_is_asked_again(
    page: "Page", server: Program, complaints: list[str]
) -> None:
    page.add_init_script(
        """
        let refusals = 2;
        window.WebSocket = class extends WebSocket {
            constructor(url) {
                if (refusals-- > 0) throw new DOMException('not today', 'SecurityError');
                super(url);
            }
        };
        """
    )
    join(page, server.url)
    assert len(page.evaluate("sockets")) == 1
    assert complaints == []


@pytest.mark.parametrize("table", ["no JSON", "null", '{"robot": null}'])
def test_table_of_emoji_that_is_none_costs_the_emoji_only(
    page: "Page",
    context: "BrowserContext",
    server: Program,
    complaints: list[str],
    table: str,
) -> None:
    context.route("**/emoji.json", lambda route: route.fulfill(body=table))
    join(page, server.url)
    come_in(page, "17-1", "a :smile:")
    sees(page, "a :smile:")
    assert complaints == []

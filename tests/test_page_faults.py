"""The chat's page when something in it, or in what the server sends, is broken.

Whatever is broken affects nothing else.
"""

import json
from typing import TYPE_CHECKING

import pytest

from pages import FAKE_SOCKETS, expect, join, receive, receive_texts, sees, send
from programs import Program

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def uncaught(page: "Page") -> list[str]:
    """A page with fake sockets, and the errors that it did not catch.

    Errors on the console were caught.
    """
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(FAKE_SOCKETS)
    return errors


# Makes it impossible to put an item with the word "poison" together, or to add it to the list.
POISON_APPEND = """
    Element.prototype.append = ((append) => function (...parts) {
        if (parts.some((part) => part.textContent?.includes('poison'))) throw Error('poison');
        append.apply(this, parts);
    })(Element.prototype.append);
"""
# Makes it impossible to show the time of the message with the id 1700000000002-0.
POISON_TIME = """
    Intl.DateTimeFormat = class {
        format(date) {
            if (date.getTime() === 1_700_000_000_002) throw Error('poison');
            return 'now';
        }
    };
"""


def message(message_id: str, text: str) -> str:
    """A message from Bob in JSON, as the server sends it."""
    fields = {"email": "", "username": "Bob", "message": text, "id": message_id, "avatar": ""}
    return json.dumps(fields)


@pytest.mark.parametrize("fault", [POISON_APPEND, POISON_TIME], ids=["its item", "its time"])
def test_message_that_cannot_be_drawn_is_shown_as_plain_text_beside_all_others(
    page: "Page", server: Program, uncaught: list[str], fault: str
) -> None:
    page.add_init_script(fault)
    join(page, server.url)
    texts = {1: "one", 2: "the poison", 3: "three"}
    receive_texts(page, *(message(f"170000000000{n}-0", text) for n, text in texts.items()))
    expect(page.locator("#messages li")).to_have_count(3)
    expect(page.locator("#messages li.message:not(.plain) .text")).to_have_text(["one", "three"])
    expect(page.locator("#messages li").nth(1)).to_have_text("Bob: the poison")
    assert uncaught == []


def test_own_message_that_cannot_be_drawn_is_sent_and_shown_as_plain_text(
    page: "Page", server: Program, uncaught: list[str]
) -> None:
    page.add_init_script(POISON_APPEND)
    join(page, server.url)
    send(page, "my poison", "harmless")
    expect(page.locator("#messages .pending .text")).to_have_text(["harmless"])
    keys = [json.loads(text)["key"] for text in page.evaluate("sent") if "poison" in text]
    assert len(keys) == 1
    receive(page, "17-1", "my poison", key=keys[0])
    expect(page.locator("#messages .plain")).to_have_text(["Bob: my poison"])
    assert uncaught == []


MALFORMED_TEXTS = [
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
    '{"event": "online", "count": "many", "people": "Ada"}',
    '{"event": "online", "count": 3, "people": [null, 17, {"a": "b"}]}',
    '{"event": "online", "count": null, "people": {"length": -1}}',
    '{"id": null, "username": "no message"}',
    '{"event": "older"}',
    '{"event": "older", "before": 17, "messages": [null, 17, {}], "more": "perhaps"}',
    '{"event": "slowed", "rate": "much"}',
]
MESSAGES_OF_WRONG_TYPES = {
    '{"message": "it alone"}': "it alone",
    '{"message": null, "id": "17-2"}': "",
    '{"message": 17, "username": 18, "email": false, "id": "17-3", "avatar": []}': "17",
    '{"message": "no id", "id": 17, "key": {}, "username": {}}': "no id",
    '{"message": "no such id", "id": "not a number"}': "no such id",
    '{"message": "a long id", "id": "17-18446744073709551615"}': "a long id",
    '{"message": ["a list"], "id": ["17-4"]}': '["a list"]',
}


def test_malformed_texts_from_the_server_do_not_hide_the_messages_after_them(
    page: "Page", server: Program, uncaught: list[str]
) -> None:
    join(page, server.url)
    for number, text in enumerate(MALFORMED_TEXTS):
        receive_texts(page, text, message(f"16-{number}", f"after {text}"))
    sees(page, *(f"after {text}" for text in MALFORMED_TEXTS))
    assert uncaught == []


def test_message_with_fields_of_wrong_types_is_shown_as_text(
    page: "Page", server: Program, uncaught: list[str]
) -> None:
    join(page, server.url)
    receive(page, "17-1", "first")
    receive_texts(page, *MESSAGES_OF_WRONG_TYPES)
    receive(page, "17-9", "last")
    sees(page, "first", *MESSAGES_OF_WRONG_TYPES.values(), "last")
    page.evaluate("sockets[0].lose()")
    expect(page.locator("#status")).to_have_text("Connected")
    assert page.evaluate("sockets[1].url").endswith("?since=17-9")
    assert uncaught == []


@pytest.mark.parametrize("number", ["17", "17.5", '["17-1"]'])
def test_ids_that_are_not_strings_do_not_hide_later_messages(
    page: "Page", server: Program, uncaught: list[str], number: str
) -> None:
    join(page, server.url)
    send(page, "mine")
    key = json.loads(page.evaluate("sent.at(-1)"))["key"]
    receive_texts(page, f'{{"message": "a number", "username": "Bob", "id": {number}}}')
    receive_texts(page, json.dumps({"message": "mine", "id": 18, "key": key}))
    receive(page, "17-1", "first")
    send(page, "mine too")
    key = json.loads(page.evaluate("sent.at(-1)"))["key"]
    receive_texts(page, f'{{"message": "once more", "username": "Bob", "id": {number}}}')
    receive(page, "17-2", "mine too", key=key)
    sees(page, "a number", "mine", "first", "once more", "mine too")
    page.evaluate("sockets[0].lose()")
    expect(page.locator("#status")).to_have_text("Connected")
    assert page.evaluate("sockets[1].url").endswith("?since=17-2")
    assert uncaught == []


def test_page_resumes_after_the_last_id_that_a_server_accepts(
    page: "Page", server: Program, uncaught: list[str]
) -> None:
    join(page, server.url)
    receive(page, "17-1", "as usual")
    receive(page, "99999999999999999999-0", "too long")
    receive(page, "", "none")
    receive(page, "17-1&since=0", "forged")
    sees(page, "as usual", "too long", "none", "forged")
    page.evaluate("sockets[0].lose()")
    expect(page.locator("#status")).to_have_text("Connected")
    assert page.evaluate("sockets[1].url").endswith("?since=17-1")


@pytest.mark.parametrize(
    "selector",
    ["#countdown", "#online h2"],
)
def test_page_works_even_if_one_of_its_elements_is_missing(
    page: "Page", server: Program, uncaught: list[str], selector: str
) -> None:
    page.goto(server.url)
    page.evaluate("selector => document.querySelector(selector).remove()", selector)
    page.fill("#email", "ada@example.org")
    page.fill("#username", "Ada")
    page.click("#join-button")
    page.wait_for_function("sent.length > 0")
    assert json.loads(page.evaluate("sent")[0])["event"] == "join"
    receive_texts(page, '{"event": "online", "count": 1, "people": [{"username": "Ada"}]}')
    receive(page, "17-1", "shown all the same")
    sees(page, "shown all the same")
    assert uncaught == []


def test_page_connects_even_if_the_first_sockets_cannot_be_constructed(
    page: "Page", server: Program, uncaught: list[str]
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
    assert uncaught == []


@pytest.mark.parametrize("table", ["no JSON", "null", '{"robot": null}'])
def test_damaged_emoji_table_leaves_shortcodes_as_they_are(
    page: "Page",
    context: "BrowserContext",
    server: Program,
    uncaught: list[str],
    table: str,
) -> None:
    context.route("**/emoji.json", lambda route: route.fulfill(body=table))
    join(page, server.url)
    receive(page, "17-1", "a :smile:")
    sees(page, "a :smile:")
    assert uncaught == []

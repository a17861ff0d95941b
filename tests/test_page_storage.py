"""What the chat's page stores: messages that are not acknowledged, the draft, and who has joined.

Where the browser has no storage, or storage fails, everything else works.
"""

from typing import TYPE_CHECKING

import pytest

from chatting import hear_texts, say
from pages import (
    FAKE_SOCKETS,
    Visit,
    expect,
    hide_settings,
    join,
    make_stored_message_older,
    pending,
    receive,
    receive_close,
    send,
    stored_messages,
)
from peers import eventually
from programs import Program
from proxy import Forwarder

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Dialog, Page

pytestmark = pytest.mark.browser

HOUR = 3_600_000  # ms
MAX_MESSAGES = 100  # that may be unacknowledged


# Storage that fails


def define_storages(definition: str) -> str:
    """A script that gives both properties of `window` that hold storages another definition."""
    return f"""
        for (const name of ['sessionStorage', 'localStorage']) {{
            const storage = window[name];
            Object.defineProperty(window, name, {{ {definition} }});
        }}
    """


BROKEN_STORAGE = {
    "null": define_storages("get: () => null"),
    "undefined": define_storages("get: () => undefined"),
    "forbidden": define_storages("get() { throw new DOMException('no', 'SecurityError'); }"),
    "without quota": """
        Storage.prototype.setItem = () => { throw new DOMException('no', 'QuotaExceededError'); };
    """,
    "dead": """
        for (const name of ['getItem', 'setItem', 'removeItem', 'key'])
            Storage.prototype[name] = () => { throw new DOMException('no', 'InvalidStateError'); };
    """,
    "full": """
        for (const storage of [sessionStorage, localStorage]) {
            for (let size = 4_000_000; size >= 1; size = Math.floor(size / 2))
                try { storage.setItem(`filler ${size}`, 'x'.repeat(size)); } catch {}
        }
    """,
    "full of damaged values": """
        for (const storage of [sessionStorage, localStorage]) {
            for (const name of ['person', 'joined', 'draft', 'unsent/1', 'unsent/2', 'unsent/'])
                for (const value of ['', 'no JSON', 'null', '17', '[{}]', '{"key": {}}'])
                    storage.setItem(location.pathname + name, value);
        }
    """,
}


@pytest.mark.parametrize("storage", BROKEN_STORAGE)
def test_everything_works_without_storage(server: Program, visit: Visit, storage: str) -> None:
    ada = visit(server)
    ada.context.add_init_script(BROKEN_STORAGE[storage])
    with server.join() as peer:
        ada.page.goto(server.url)
        ada.join()
        ada.say(f"with storage {storage}")
        assert hear_texts(peer, 1) == [f"with storage {storage}"]
        expect(ada.texts.last).to_have_text(f"with storage {storage}")
        expect(ada.page.locator(".pending")).to_have_count(0)
        ada.page.reload()
        expect(
            ada.page.locator("#join-button, #send-button").locator("visible=true")
        ).to_have_count(1)


# A reload, or another page of the same person


def shows_once(page: "Page", *texts: str) -> None:
    """Check that each of these messages is shown once, in this order, and none is on its way."""
    expect(page.locator("#messages li.pending")).to_have_count(0)
    items = page.locator("#messages li.message .text")
    for text in texts:
        expect(items.get_by_text(text, exact=True)).to_have_count(1)
    shown = items.all_text_contents()
    assert [text for text in shown if text in texts] == list(texts)


@pytest.mark.parametrize(
    "server_receives",
    [False, True],
    ids=["the server has not received them", "the acknowledgements are lost"],
)
def test_unacknowledged_messages_are_sent_once_after_a_reload(
    server: Program, forwarder: Forwarder, page: "Page", server_receives: bool
) -> None:
    texts = [f"{server_receives} {number}" for number in range(3)]
    with server.join() as peer:
        join(page, forwarder.url)
        forwarder.go_deaf(to_servers_only=server_receives)
        send(page, *texts)
        expect(pending(page)).to_have_text(texts)
        if server_receives:
            assert hear_texts(peer, 3) == texts
        page.reload()
        if not server_receives:
            assert hear_texts(peer, 3) == texts
        shows_once(page, *texts)
        eventually(lambda: stored_messages(page) == [])
        send(page, f"after {server_receives}")
        assert hear_texts(peer, 1) == [f"after {server_receives}"]


def test_unacknowledged_messages_survive_their_tab_and_are_sent_by_the_same_person_only(
    server: Program, forwarder: Forwarder, page: "Page", context: "BrowserContext"
) -> None:
    with server.join() as peer:
        join(page, forwarder.url)
        forwarder.go_deaf()
        send(page, "of a closed tab")
        expect(pending(page)).to_have_text(["of a closed tab"])
        page.close()
        bob = context.new_page()
        bob.goto(forwarder.url)
        bob.fill("#email", "bob@example.org")
        bob.fill("#username", "Bob")
        bob.click("#join-button")
        send(bob, "I am not Ada")
        assert hear_texts(peer, 1) == ["I am not Ada"]
        ada = context.new_page()
        join(ada, forwarder.url)
        assert hear_texts(peer, 1) == ["of a closed tab"]
        shows_once(ada, "I am not Ada", "of a closed tab")
        eventually(lambda: stored_messages(ada) == [])


def test_message_that_two_tabs_of_one_person_send_is_shown_once(
    server: Program, forwarder: Forwarder, page: "Page", context: "BrowserContext"
) -> None:
    with server.join() as peer:
        join(page, forwarder.url)
        forwarder.go_deaf()
        send(page, "from both")
        expect(pending(page)).to_have_text(["from both"])
        other = context.new_page()
        join(other, forwarder.url)
        assert hear_texts(peer, 1) == ["from both"]
        forwarder.hang_up()
        for each in (other, page):
            shows_once(each, "from both")
        say(peer, "and nothing else")
        assert hear_texts(peer, 1) == ["and nothing else"]


def test_draft_survives_a_reload_until_it_is_sent(server: Program, page: "Page") -> None:
    join(page, server.url)
    page.fill("#message", "half a\nthou")
    page.reload()
    expect(page.locator("#status")).to_have_text("Connected")
    expect(page.locator("#message")).to_have_value("half a\nthou")
    page.press("#message", "Enter")
    expect(page.locator("#message")).to_have_value("")
    shows_once(page, "half a\nthou")
    page.reload()
    expect(page.locator("#status")).to_have_text("Connected")
    expect(page.locator("#message")).to_have_value("")


def test_reload_returns_to_the_chat_and_opening_the_address_shows_the_form(
    server: Program, page: "Page"
) -> None:
    page.goto(server.url)
    page.reload()
    expect(page.locator("#join")).to_be_visible()  # never joined
    join(page)
    page.reload()
    expect(page.locator("#status")).to_have_text("Connected")
    expect(page.locator("#join")).to_be_hidden()
    expect(page.locator("#message")).to_be_focused()
    page.goto(server.url)
    expect(page.locator("#join")).to_be_visible()
    expect(page.locator("#email")).to_have_value("ada@example.org")
    expect(page.locator("#username")).to_have_value("Ada")


# With fake sockets


def test_stored_message_is_deleted_when_it_is_acknowledged_or_discarded(fake_page: "Page") -> None:
    send(fake_page, "acknowledged", "too big, says the server", "waits")
    stored = stored_messages(fake_page)
    assert [record["message"] for record in stored] == [
        "acknowledged",
        "too big, says the server",
        "waits",
    ]
    receive(fake_page, "17-1", "acknowledged", key=stored[0]["key"])
    receive_close(fake_page, 1009, "too big")
    expect(fake_page.locator(".failed .state")).to_have_text("Not sent: too big")
    assert len(stored_messages(fake_page)) == 2  # the refused one stays until Ada discards it
    fake_page.get_by_role("button", name="Delete: too big, says the server").click()
    expect(fake_page.locator(".failed")).to_have_count(0)
    assert [record["message"] for record in stored_messages(fake_page)] == ["waits"]


def test_more_than_a_hundred_unacknowledged_messages_are_not_accepted(fake_page: "Page") -> None:
    fake_page.evaluate(
        """count => {
            for (let number = 0; number < count; number += 1) {
                document.getElementById('message').value = `number ${number}`;
                document.getElementById('send').requestSubmit();
            }
        }""",
        MAX_MESSAGES + 1,
    )
    expect(fake_page.get_by_role("alert").filter(visible=True)).to_contain_text(
        "Too much is waiting"
    )
    expect(fake_page.locator("#message")).to_have_value(f"number {MAX_MESSAGES}")
    assert len(stored_messages(fake_page)) == MAX_MESSAGES
    expect(pending(fake_page)).to_have_count(MAX_MESSAGES)
    receive(fake_page, "17-1", "number 0", key=stored_messages(fake_page)[0]["key"])
    fake_page.press("#message", "Enter")
    expect(fake_page.locator("#message")).to_have_value("")
    expect(fake_page.locator("#send-error")).to_have_text("")


def test_text_of_any_length_is_accepted_where_no_other_is_waiting(
    page: "Page", server: Program
) -> None:
    page.add_init_script(FAKE_SOCKETS)
    hide_settings(page)
    join(page, server.url)
    page.evaluate(
        "document.getElementById('messages').hidden = true"
    )  # it would take long to lay out
    page.evaluate("document.getElementById('message').value = 'some words '.repeat(100_000)")
    page.press("#message", "Enter")
    expect(page.locator("#message")).to_have_value("")
    send(page, "one more")
    expect(page.locator("#message")).to_have_value("one more")
    expect(page.locator("#send-error")).to_contain_text("Too much is waiting")


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "pending"])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
def test_page_asks_before_it_is_left_only_if_a_message_would_be_lost(
    page: "Page", server: Program, stored: bool, refused: bool
) -> None:
    questions: list[str] = []

    def answer(dialog: "Dialog") -> None:
        questions.append(dialog.type)
        dialog.accept()

    page.add_init_script(FAKE_SOCKETS)
    if not stored:
        page.add_init_script(BROKEN_STORAGE["without quota"])
    page.on("dialog", answer)
    join(page, server.url)
    send(page, "unsent")
    expect(pending(page)).to_have_text(["unsent"])
    if refused:
        receive_close(page, 1009)
        expect(page.locator(".failed .state")).to_have_text("Not sent: the message is too big")
    page.goto("about:blank")
    assert questions == ([] if stored else ["beforeunload"])


@pytest.mark.parametrize(
    ("age", "failed"),
    [(55 * HOUR // 60, 1), (2 * HOUR, 1), (8 * 24 * HOUR, 0)],
    ids=["nearly an hour", "two hours", "eight days"],
)
def test_stored_message_that_is_too_old_is_sent_only_if_its_author_asks_for_it(
    fake_page: "Page", age: int, failed: int
) -> None:
    send(fake_page, "lunch?")
    make_stored_message_older(fake_page, age)
    fake_page.reload()
    expect(fake_page.locator("#status")).to_have_text("Connected")
    assert len(stored_messages(fake_page)) == failed
    assert "lunch?" not in "".join(fake_page.evaluate("sent"))
    expect(fake_page.locator(".failed")).to_have_count(failed)
    if failed:
        fake_page.get_by_role("button", name="Try again").click()
        expect(pending(fake_page)).to_have_text(["lunch?"])
        assert "lunch?" in "".join(fake_page.evaluate("sent"))
        expect(fake_page.locator("#message")).to_be_focused()


def test_page_that_slept_sends_an_old_message_only_if_its_author_asks_for_it(
    page: "Page", server: Program
) -> None:
    """The server may have forgotten the message's key, and would show the message twice."""
    page.add_init_script(FAKE_SOCKETS)
    page.clock.install(time="2024-02-29T12:00:00")
    join(page, server.url)
    send(page, "lunch?")
    page.clock.run_for(1_000)
    page.evaluate("sent.length = 0")
    page.clock.set_system_time("2024-03-02T12:00:00")
    page.evaluate("sockets.at(-1).lose()")
    page.clock.run_for(2_000)
    expect(page.locator("#status")).to_have_text("Connected")
    expect(page.locator(".failed .state")).to_have_text(
        "Not sent: it waited for more than 50 minutes"
    )
    assert "lunch?" not in "".join(page.evaluate("sent"))
    send(page, "breakfast?")
    assert "breakfast?" in page.evaluate("sent.at(-1)")
    page.get_by_role("button", name="Try again").click()
    page.clock.run_for(1_000)
    expect(pending(page)).to_have_text(["breakfast?", "lunch?"])
    receive_close(page, 1001)
    page.clock.run_for(3_000)
    expect(pending(page)).to_have_text(["breakfast?", "lunch?"])
    assert "".join(page.evaluate("sent")).count("lunch?") == 2  # its author has asked for it


def test_reload_shows_the_form_after_the_server_has_closed_the_connection(
    fake_page: "Page",
) -> None:
    receive_close(fake_page, 1008, "no")
    expect(fake_page.locator("#status")).to_contain_text("The server closed the connection: no")
    fake_page.reload()
    expect(fake_page.locator("#join")).to_be_visible()

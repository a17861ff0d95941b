"""What the page keeps on the device: what is unsent, the draft, and who has joined.

Storage is a nicety: where there is none, everything works without.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pages import SOCKETS, Visit, come_in, expect, join, pending, type_and_send
from peers import eventually
from programs import Program, chat, hear_texts, say
from proxy import Forwarder

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Dialog, Page

pytestmark = pytest.mark.browser

HOUR = 3_600_000  # ms
MOST_UNSENT = 100  # messages


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with chat() as program:
        yield program


@pytest.fixture
def forwarder(server: Program) -> Iterator[Forwarder]:
    with Forwarder(server.server_port) as forwarder:
        yield forwarder


# Storage that fails


def for_both(definition: str) -> str:
    return f"""
        for (const name of ['sessionStorage', 'localStorage']) {{
            const storage = window[name];
            Object.defineProperty(window, name, {{ {definition} }});
        }}
    """


BROKEN_STORAGE = {
    "null": for_both("get: () => null"),
    "undefined": for_both("get: () => undefined"),
    "forbidden": for_both("get() { throw new DOMException('no', 'SecurityError'); }"),
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
    "full of what others left": """
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


# A page that is loaded again


def records(page: "Page") -> list[dict[str, Any]]:
    """What is kept on the device of messages that are not sent."""
    texts = page.evaluate(
        "Object.keys(localStorage).filter((n) => n.includes('unsent')).map((n) => localStorage[n])"
    )
    return [json.loads(text) for text in texts]


def shows_once(page: "Page", *texts: str) -> None:
    """As the last ones, in this order, each of them numbered by the server."""
    expect(page.locator("#messages li.pending")).to_have_count(0)
    items = page.locator("#messages li.message .text")
    for text in texts:
        expect(items.get_by_text(text, exact=True)).to_have_count(1)
    shown = items.all_text_contents()
    assert [text for text in shown if text in texts] == list(texts)


@pytest.mark.parametrize("server_hears", [False, True], ids=["unsaid", "its copy lost"])
def test_unsent_messages_are_sent_once_after_a_reload(
    server: Program, forwarder: Forwarder, page: "Page", server_hears: bool
) -> None:
    texts = [f"{server_hears} {number}" for number in range(3)]
    with server.join() as peer:
        join(page, forwarder.url)
        forwarder.go_deaf(to_servers_only=server_hears)
        type_and_send(page, *texts)
        expect(pending(page)).to_have_text(texts)
        if server_hears:
            assert hear_texts(peer, 3) == texts
        page.reload()
        if not server_hears:
            assert hear_texts(peer, 3) == texts
        shows_once(page, *texts)
        eventually(lambda: records(page) == [])
        type_and_send(page, f"after {server_hears}")
        assert hear_texts(peer, 1) == [f"after {server_hears}"]


def test_unsent_messages_survive_their_tab_and_no_other_person_sends_them(
    server: Program, forwarder: Forwarder, page: "Page", context: "BrowserContext"
) -> None:
    with server.join() as peer:
        join(page, forwarder.url)
        forwarder.go_deaf()
        type_and_send(page, "of a closed tab")
        expect(pending(page)).to_have_text(["of a closed tab"])
        page.close()
        bob = context.new_page()
        bob.goto(forwarder.url)
        bob.fill("#email", "bob@example.org")
        bob.fill("#username", "Bob")
        bob.click("#join-button")
        type_and_send(bob, "I am not Ada")
        assert hear_texts(peer, 1) == ["I am not Ada"]
        ada = context.new_page()
        join(ada, forwarder.url)
        assert hear_texts(peer, 1) == ["of a closed tab"]
        shows_once(ada, "I am not Ada", "of a closed tab")
        eventually(lambda: records(ada) == [])


def test_two_tabs_of_one_person_that_both_send_the_same_say_it_once(
    server: Program, forwarder: Forwarder, page: "Page", context: "BrowserContext"
) -> None:
    with server.join() as peer:
        join(page, forwarder.url)
        forwarder.go_deaf()
        type_and_send(page, "from both")
        expect(pending(page)).to_have_text(["from both"])
        other = context.new_page()
        join(other, forwarder.url)
        assert hear_texts(peer, 1) == ["from both"]
        forwarder.hang_up()
        for each in (other, page):
            shows_once(each, "from both")
        say(peer, "and nothing else")
        assert hear_texts(peer, 1) == ["and nothing else"]


def test_draft_survives_a_reload_and_is_gone_once_sent(server: Program, page: "Page") -> None:
    join(page, server.url)
    page.fill("#message", "half a\nthou")
    page.reload()
    expect(page.locator("#status")).to_have_text("connected")
    expect(page.locator("#message")).to_have_value("half a\nthou")
    page.press("#message", "Enter")
    expect(page.locator("#message")).to_have_value("")
    shows_once(page, "half a\nthou")
    page.reload()
    expect(page.locator("#status")).to_have_text("connected")
    expect(page.locator("#message")).to_have_value("")


def test_who_reloads_is_back_and_who_opens_the_address_may_be_somebody_else(
    server: Program, page: "Page"
) -> None:
    page.goto(server.url)
    page.reload()
    expect(page.locator("#join")).to_be_visible()  # never joined
    join(page)
    page.reload()
    expect(page.locator("#status")).to_have_text("connected")
    expect(page.locator("#join")).to_be_hidden()
    expect(page.locator("#message")).to_be_focused()
    page.goto(server.url)
    expect(page.locator("#join")).to_be_visible()
    expect(page.locator("#email")).to_have_value("ada@example.org")
    expect(page.locator("#username")).to_have_value("Ada")


# Sockets of the test's own


@pytest.fixture
def alone(page: "Page", server: Program) -> "Page":
    """A page that is connected to nobody: no message comes back unless the test sends it."""
    page.add_init_script(SOCKETS)
    join(page, server.url)
    return page


def test_record_goes_when_its_message_is_acknowledged_or_discarded(alone: "Page") -> None:
    type_and_send(alone, "acknowledged", "too big, says the server", "waits")
    kept = sorted(records(alone), key=lambda record: record["said"])
    assert [record["message"] for record in kept] == [
        "acknowledged",
        "too big, says the server",
        "waits",
    ]
    come_in(alone, "17-1", "acknowledged", key=kept[0]["key"])
    alone.evaluate(
        "sockets[0].happen(3, new CloseEvent('close', { code: 1009, reason: 'too big' }))"
    )
    expect(alone.locator(".failed .time")).to_have_text("not sent: too big")
    assert len(records(alone)) == 2  # a refused one is its author's until she discards it
    alone.get_by_role("button", name="Discard: too big, says the server").click()
    expect(alone.locator(".failed")).to_have_count(0)
    assert [record["message"] for record in records(alone)] == ["waits"]


def test_more_than_a_hundred_unsent_messages_are_not_taken(alone: "Page") -> None:
    alone.evaluate(
        """count => {
            for (let number = 0; number < count; number += 1) {
                document.getElementById('message').value = `number ${number}`;
                document.getElementById('send').requestSubmit();
            }
        }""",
        MOST_UNSENT + 1,
    )
    expect(alone.get_by_role("alert").filter(visible=True)).to_contain_text("Too much waits")
    expect(alone.locator("#message")).to_have_value(f"number {MOST_UNSENT}")
    assert len(records(alone)) == MOST_UNSENT
    expect(pending(alone)).to_have_count(MOST_UNSENT)
    come_in(alone, "17-1", "number 0", key=min(records(alone), key=lambda r: r["said"])["key"])
    alone.press("#message", "Enter")
    expect(alone.locator("#message")).to_have_value("")
    expect(alone.locator("#send-error")).to_have_text("")


def test_text_of_any_length_is_taken_where_nothing_else_waits(alone: "Page") -> None:
    alone.evaluate("document.getElementById('messages').hidden = true")  # its layout takes long
    alone.evaluate("document.getElementById('message').value = 'some words '.repeat(100_000)")
    alone.press("#message", "Enter")
    expect(alone.locator("#message")).to_have_value("")
    type_and_send(alone, "one more")
    expect(alone.locator("#message")).to_have_value("one more")
    expect(alone.locator("#send-error")).to_contain_text("Too much waits")


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "waits"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_page_asks_before_it_is_left_where_something_would_be_lost(
    page: "Page", server: Program, kept: bool, refused: bool
) -> None:
    questions: list[str] = []

    def answer(dialog: "Dialog") -> None:
        questions.append(dialog.type)
        dialog.accept()

    page.add_init_script(SOCKETS)
    if not kept:
        page.add_init_script(BROKEN_STORAGE["without quota"])
    page.on("dialog", answer)
    join(page, server.url)
    type_and_send(page, "unsent")
    expect(pending(page)).to_have_text(["unsent"])
    if refused:
        page.evaluate("sockets[0].happen(3, new CloseEvent('close', { code: 1009 }))")
        expect(page.locator(".failed .time")).to_have_text("not sent: too big")
    page.goto("about:blank")
    assert questions == ([] if kept else ["beforeunload"])


@pytest.mark.parametrize(
    ("age", "kept"),
    [(55 * HOUR // 60, 1), (2 * HOUR, 1), (8 * 24 * HOUR, 0)],
    ids=["nearly an hour", "two hours", "eight days"],
)
def test_message_that_waited_long_is_sent_only_if_its_author_still_wants_it(
    alone: "Page", age: int, kept: int
) -> None:
    type_and_send(alone, "lunch?")
    alone.evaluate(
        """age => {
            const name = Object.keys(localStorage).find((name) => name.includes('unsent'));
            const record = JSON.parse(localStorage[name]);
            localStorage[name] = JSON.stringify({ ...record, said: record.said - age });
        }""",
        age,
    )
    alone.reload()
    expect(alone.locator("#status")).to_have_text("connected")
    assert len(records(alone)) == kept
    assert "lunch?" not in "".join(alone.evaluate("sent"))
    expect(alone.locator(".failed")).to_have_count(kept)
    if kept:
        alone.get_by_role("button", name="Send again").click()
        expect(pending(alone)).to_have_text(["lunch?"])
        assert "lunch?" in "".join(alone.evaluate("sent"))
        expect(alone.locator("#message")).to_be_focused()


def test_message_of_a_page_that_slept_is_not_sent_again_unless_its_author_still_wants_it(
    page: "Page", server: Program
) -> None:
    """The server may have forgotten its key, and would show it twice."""
    page.add_init_script(SOCKETS)
    page.clock.install(time="2024-02-29T12:00:00")
    join(page, server.url)
    type_and_send(page, "lunch?")
    page.clock.run_for(1_000)
    page.evaluate("sent.length = 0")
    page.clock.set_system_time("2024-03-02T12:00:00")
    page.evaluate("sockets.at(-1).lose()")
    page.clock.run_for(2_000)
    expect(page.locator("#status")).to_have_text("connected")
    expect(page.locator(".failed .time")).to_have_text("not sent: it waited for long")
    assert "lunch?" not in "".join(page.evaluate("sent"))
    type_and_send(page, "breakfast?")
    assert "breakfast?" in page.evaluate("sent.at(-1)")
    page.get_by_role("button", name="Send again").click()
    page.clock.run_for(1_000)
    expect(pending(page)).to_have_text(["breakfast?", "lunch?"])
    page.evaluate("sockets.at(-1).happen(3, new CloseEvent('close', { code: 1001 }))")
    page.clock.run_for(3_000)
    expect(pending(page)).to_have_text(["breakfast?", "lunch?"])
    assert "".join(page.evaluate("sent")).count("lunch?") == 2  # it is wanted now


def test_page_that_the_server_closed_shows_the_form_when_it_is_reloaded(alone: "Page") -> None:
    alone.evaluate("sockets[0].happen(3, new CloseEvent('close', { code: 1008, reason: 'no' }))")
    expect(alone.locator("#status")).to_contain_text("closed by the server: no")
    alone.reload()
    expect(alone.locator("#join")).to_be_visible()

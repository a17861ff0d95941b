"""The pages on a connection that died without notice, and with a message that breaks connections.

A forwarder between page and server drops everything, or the sockets are fake. The test controls the
page's time.
"""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chatting import hear_texts, say
from finding import require_redis
from pages import (
    FAKE_SOCKETS,
    RECORD_SOCKETS,
    expect,
    hide_settings,
    join,
    pass_time,
    pending,
    receive,
    receive_close,
    send,
    stop_clock,
)
from peers import PATIENCE, Peer, eventually
from programs import Program, chat
from proxy import Forwarder
from redis_server import Redis

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

MINUTE = 60  # seconds within which a page notices by itself that its connection is dead
MAX_SECONDS_IF_LOOKED_AT = 6  # within which it does if somebody looks at the page


@pytest.fixture
def ada(page: "Page", forwarder: Forwarder) -> "Page":
    """A page that is connected through the forwarder, and whose time stands still."""
    page.add_init_script(RECORD_SOCKETS)
    page.clock.install(time=1_700_000_000)
    join(page, forwarder.url)
    stop_clock(page)
    return page


def after(page: "Page", seconds: float) -> "Page":
    """Let time pass, and return the page."""
    pass_time(page, seconds)
    return page


def count_sockets(page: "Page") -> int:
    """How many sockets the page has made."""
    count = page.evaluate("sockets.length")
    assert isinstance(count, int)
    return count


def drop_everything(forwarder: Forwarder, page: "Page") -> None:
    """Let the forwarder drop everything, and wait until nothing that it dropped can still arrive.

    The page has then received the answers to requests that it made later, on new connections, and
    no message while they were under way: a browser keeps no order between two connections.
    """
    forwarder.go_deaf()
    before = -1
    while before != (before := page.evaluate("messagesReceived")):
        for _ in range(5):
            page.evaluate("fetch('favicon.svg').then((response) => response.text())")


def seconds_until_new_socket(page: "Page") -> float:
    """Wait, by the page's clock, until the page has made a further socket."""
    before = count_sockets(page)
    waited = 0
    while count_sockets(page) == before:
        assert waited < 5 * MINUTE, "the page does not notice that its connection is dead"
        pass_time(page, 1)
        waited += 1
    return waited


def receives(page: "Page", peer: Peer, text: str) -> None:
    """Check that a message from the peer is shown."""
    say(peer, text)
    assert hear_texts(peer, 1) == [text]
    eventually(lambda: after(page, 0.1).get_by_text(text, exact=True).count() == 1)


def test_page_notices_within_a_minute_that_its_connection_is_dead_and_gets_what_it_missed(
    ada: "Page", forwarder: Forwarder, server: Program
) -> None:
    with server.join() as peer:
        receives(ada, peer, "received before")
        drop_everything(forwarder, ada)
        say(peer, "missed")
        assert hear_texts(peer, 1) == ["missed"]
        assert seconds_until_new_socket(ada) <= MINUTE
        expect(ada.locator("#status")).to_have_text("Connected")
        receives(ada, peer, "received again")
        expect(ada.locator("#messages .text").last).to_have_text("received again")
        expect(ada.get_by_text("missed", exact=True)).to_have_count(1)


@pytest.mark.parametrize(
    "event",
    [
        "dispatchEvent(new Event('online'))",
        "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
        "document.dispatchEvent(new Event('visibilitychange'))",
        "document.dispatchEvent(new Event('resume'))",
    ],
    ids=["the network is back", "page was left", "somebody looks at the page", "page was frozen"],
)
def test_page_notices_within_seconds_of_an_event_that_its_connection_is_dead(
    ada: "Page", forwarder: Forwarder, event: str
) -> None:
    drop_everything(forwarder, ada)
    pass_time(ada, 3)
    ada.evaluate(f"{event}; null")
    assert seconds_until_new_socket(ada) <= MAX_SECONDS_IF_LOOKED_AT + 2
    expect(ada.locator("#status")).to_have_text("Connected")


def test_message_on_a_dead_connection_is_sent_once_on_the_next_one(
    ada: "Page", forwarder: Forwarder, server: Program
) -> None:
    with server.join() as peer:
        drop_everything(forwarder, ada)
        send(ada, "into the void")
        pass_time(ada, 1)
        expect(pending(ada)).to_have_text(["into the void"])
        assert seconds_until_new_socket(ada) <= MINUTE
        assert hear_texts(peer, 1) == ["into the void"]
        eventually(lambda: pending(after(ada, 0.1)).count() == 0)
        expect(ada.get_by_text("into the void", exact=True)).to_have_count(1)
        say(peer, "and nothing else")
        assert hear_texts(peer, 1) == ["and nothing else"]


def test_page_whose_timers_do_not_run_notices_a_dead_connection_by_its_worker(
    page: "Page", forwarder: Forwarder
) -> None:
    """Browsers run the timers of a hidden page once a minute, or not at all.

    Here the page's timers never run, and its time jumps instead of passing.
    """
    page.add_init_script(RECORD_SOCKETS)
    page.add_init_script(
        """
        window.slept = 0;
        window.setInterval = () => 0;
        performance.now = ((now) => () => now.call(performance) + slept)(performance.now);
        WebSocket.prototype.send = ((send) => function (text) {
            send.call(this, text);
            if (text.includes('ping')) queueMicrotask(() => { slept += 15_000; });
        })(WebSocket.prototype.send);
        """
    )
    join(page, forwarder.url)
    drop_everything(forwarder, page)
    page.evaluate("window.setTimeout = () => 0; slept = 25_000")
    eventually(lambda: count_sockets(page) == 2, 3 * PATIENCE)
    expect(page.locator("#status")).to_have_text("Connected")


def test_quiet_connection_that_answers_pings_is_kept(ada: "Page", server: Program) -> None:
    ada.evaluate(
        """() => {
            window.pings = 0;
            window.pongs = 0;
            const [socket] = sockets;
            socket.addEventListener('message', (event) => {
                pongs += event.data.includes('pong');
            });
            socket.send = (text) => {
                pings += text.includes('ping');
                WebSocket.prototype.send.call(socket, text);
            };
        }"""
    )
    with server.join() as peer:
        while ada.evaluate("pings") < 3:
            pass_time(ada, 5)
            eventually(lambda: ada.evaluate("pings === pongs"))
        assert count_sockets(ada) == 1
        say(peer, "nobody else receives pings")
        assert hear_texts(peer, 1) == ["nobody else receives pings"]


def test_socket_that_closed_while_the_page_was_frozen_is_replaced_immediately(
    still_page: "Page",
) -> None:
    still_page.evaluate("sockets[0].readyState = 3")
    still_page.evaluate(
        "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })); null"
    )
    assert count_sockets(still_page) == 2
    expect(still_page.locator("#status")).to_have_text("Connected")


def test_socket_that_does_not_open_is_replaced(still_page: "Page") -> None:
    still_page.evaluate("accepting = null; sockets[0].lose()")
    pass_time(still_page, 2)
    assert count_sockets(still_page) == 2
    pass_time(still_page, 10)
    assert count_sockets(still_page) == 2
    assert seconds_until_new_socket(still_page) <= MINUTE
    pass_time(still_page, 1)
    still_page.evaluate("accepting = true; dispatchEvent(new Event('online')); null")
    assert seconds_until_new_socket(still_page) <= MAX_SECONDS_IF_LOOKED_AT + 2
    expect(still_page.locator("#status")).to_have_text("Connected")


def test_slow_connection_is_kept_while_a_long_message_goes_out(still_page: "Page") -> None:
    send(still_page, "a long message")
    for left in range(20, 0, -1):
        still_page.evaluate("left => { sockets[0].bufferedAmount = left * 1_000; }", left)
        pass_time(still_page, 5)
    assert count_sockets(still_page) == 1
    still_page.evaluate("sockets[0].deaf = true")  # nothing goes out any more, and no ping
    assert seconds_until_new_socket(still_page) <= MINUTE


def test_ping_that_goes_out_slowly_does_not_count_as_its_answer(still_page: "Page") -> None:
    """The system accepts a few bytes even where nobody is at the other end."""
    still_page.evaluate(
        """() => {
            sockets[0].send = function () {
                this.bufferedAmount += 17;
                setTimeout(() => { this.bufferedAmount -= 17; }, 3_000);
            };
        }"""
    )
    assert seconds_until_new_socket(still_page) <= MINUTE


# Messages that the server refuses, and a message that breaks each connection


def test_message_that_is_too_big_is_marked_as_failed_and_not_sent_again(page: "Page") -> None:
    hide_settings(page)
    with chat("--max-message", "1000") as server, server.join() as peer:
        join(page, server.url)
        send(page, "first", "too big " * 200, "last")
        assert hear_texts(peer, 2) == ["first", "last"]
        expect(page.locator("#messages .failed .state")).to_contain_text("Not sent: ")
        expect(page.locator("#messages .failed .text")).to_have_text("too big " * 199 + "too big")
        expect(page.locator("#messages .pending")).to_have_count(0)
        expect(page.locator("#status")).to_have_text("Connected")
        page.reload()
        send(page, "after a reload")
        assert hear_texts(peer, 1) == ["after a reload"]
        expect(page.locator("#messages .message:not(.failed) .text")).to_have_text(
            ["first", "last", "after a reload"]
        )


def test_refused_message_can_be_edited_or_discarded_even_after_a_reload(
    page: "Page",
) -> None:
    hide_settings(page)
    with chat("--max-message", "1000") as server, server.join() as peer:
        join(page, server.url)
        send(page, "too big " * 200)
        failed = page.locator("#messages .failed")
        expect(failed.locator(".state")).to_contain_text("Not sent: ")
        why = failed.locator(".state").text_content()
        page.reload()
        expect(failed.locator(".state")).to_have_text(why)
        expect(page.locator("#status")).to_have_text("Connected")
        page.fill("#message", "half a thought")
        page.get_by_role("button", name="Edit").click()
        expect(failed).to_have_count(0)
        expect(page.locator("#message")).to_be_focused()
        text = page.input_value("#message")
        assert text == "half a thought\n" + "too big " * 199 + "too big"
        page.press("#message", "Enter")
        expect(failed.locator(".state")).to_have_text(why)
        page.get_by_role("button", name="Delete").click()
        expect(failed).to_have_count(0)
        page.reload()
        send(page, "small enough")
        assert hear_texts(peer, 1) == ["small enough"]
        expect(page.locator("#messages .text")).to_have_text(["small enough"])


@pytest.mark.parametrize(
    ("innocent", "culprit"),
    [("e" * 300, '"' * 200), ("w" * 40, "\x01" * 10)],
    ids=["quotes", "control characters"],
)
def test_message_that_is_too_big_is_found_by_its_size_on_the_wire(
    page: "Page", innocent: str, culprit: str
) -> None:
    """The server limits the size in JSON: a quote takes two bytes, a control character six."""
    fields = {"email": "ada@example.org", "username": "Ada", "key": "x" * 27}
    sizes = [
        len(json.dumps(fields | {"message": text}, separators=(",", ":")))
        for text in (innocent, culprit)
    ]
    hide_settings(page)
    with chat("--max-message", str(sum(sizes) // 2)) as server:
        join(page, server.url)
        page.evaluate(
            """texts => {
                for (const text of texts) {
                    document.getElementById('message').value = `.${text}.`;
                    document.getElementById('send').requestSubmit();
                }
            }""",
            [culprit, innocent],
        )
        expect(page.locator("#messages .failed .text")).to_have_text(f".{culprit}.")
        expect(page.locator("#messages .message:not(.failed):not(.pending) .text")).to_have_text(
            f".{innocent}."
        )
        expect(page.locator("#status")).to_have_text("Connected")


# A server that closes over the text "harmful", behind a proxy that loses its Close frames. It sends
# every other message back.
BREAK_OVER_HARMFUL_MESSAGES = """
    let id = 17;
    WebSocket.prototype.send = function (text) {
        sent.push(text);
        const { event, message } = JSON.parse(text);
        if (event === 'join') return;
        const data = event ? '{"event":"pong"}' : text.replace('{', `{"id": "${id++}-0", `);
        Promise.resolve().then(() => {
            if (message === 'harmful') this.lose();
            else if (this.readyState === 1) this.emit(1, new MessageEvent('message', { data }));
        });
    };
"""


def test_message_that_breaks_each_connection_is_given_up_and_delays_no_other(
    page: "Page", server: Program
) -> None:
    page.add_init_script(FAKE_SOCKETS + BREAK_OVER_HARMFUL_MESSAGES)
    page.clock.install(time=1_700_000_000)
    join(page, server.url)
    send(page, "before", "harmful", "after", "after that")
    page.clock.run_for("05:00")
    shown = page.locator("#messages li .text")
    expect(shown).to_have_text(["before", "after", "after that", "harmful"])
    expect(page.locator("#messages .pending")).to_have_count(0)
    failed = page.locator("#messages .failed")
    expect(failed.locator(".text")).to_have_text("harmful")
    expect(failed.locator(".state")).to_contain_text(
        "Not sent: the connection broke each of the 5 times that it was sent"
    )
    expect(page.locator("#status")).to_have_text("Connected")
    said = [json.loads(text).get("message") for text in page.evaluate("sent")]
    assert said.count("harmful") == 5
    page.evaluate("sent.length = 0")
    page.clock.run_for("05:00")
    assert "harmful" not in "".join(page.evaluate("sent"))
    page.get_by_role("button", name="Try again").click()
    page.clock.run_for("00:01")
    assert "harmful" in "".join(page.evaluate("sent"))
    page.clock.run_for("05:00")
    expect(failed.locator(".text")).to_have_text("harmful")


def test_message_is_not_given_up_because_the_server_restarts(page: "Page", server: Program) -> None:
    page.add_init_script(FAKE_SOCKETS)
    page.clock.install(time=1_700_000_000)
    join(page, server.url)
    send(page, "patience")
    for _ in range(10):
        receive_close(page, 1001)
        page.evaluate("dispatchEvent(new Event('online')); null")
        expect(page.locator("#status")).to_have_text("Connected")
    page.clock.run_for(1_000)
    expect(pending(page)).to_have_text(["patience"])


def test_message_waits_for_its_acknowledgement_as_long_as_the_server_answers_pings(
    still_page: "Page",
) -> None:
    """For example while the server's Redis is down: it shows the message when Redis is back."""
    send(still_page, "patience")
    key = json.loads(still_page.evaluate("sent.at(-1)"))["key"]
    pass_time(still_page, 30 * MINUTE)
    assert count_sockets(still_page) == 1
    expect(pending(still_page)).to_have_text(["patience"])
    expect(still_page.locator(".pending .state")).to_have_text("Sending…")
    assert len([text for text in still_page.evaluate("sent") if "patience" in text]) == 1
    receive(still_page, "17-1", "patience", key=key)
    pass_time(still_page, 1)
    expect(still_page.locator("#messages .message:not(.pending) .text")).to_have_text(["patience"])


def test_message_is_not_given_up_because_the_page_replaces_dead_sockets(still_page: "Page") -> None:
    send(still_page, "patience")
    for _ in range(10):
        still_page.evaluate("sockets.at(-1).deaf = true")
        assert seconds_until_new_socket(still_page) <= MINUTE
        expect(still_page.locator("#status")).to_have_text("Connected")
    pass_time(still_page, 1)
    expect(pending(still_page)).to_have_text(["patience"])


def test_message_is_not_given_up_over_sockets_that_break_after_the_server_has_read_it(
    still_page: "Page",
) -> None:
    """It has answered a ping that was sent after the message, so it has read the message, too."""
    send(still_page, "patience")
    for _ in range(10):
        pass_time(still_page, MINUTE)
        still_page.evaluate("sockets.at(-1).lose()")
        pass_time(still_page, 2)
        expect(still_page.locator("#status")).to_have_text("Connected")
    expect(pending(still_page)).to_have_text(["patience"])
    assert count_sockets(still_page) == 11


@pytest.mark.redis
def test_message_sent_while_redis_is_down_waits_on_its_socket_and_is_shown_once(
    page: "Page", tmp_path: Path
) -> None:
    require_redis()
    redis = Redis(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(redis.kill)
        server = stack.enter_context(chat("--redis", redis.url))
        peer = stack.enter_context(server.join())
        page.add_init_script(RECORD_SOCKETS)
        page.clock.install(time=1_700_000_000)
        join(page, server.url)
        stop_clock(page)
        redis.kill()
        send(page, "patience")
        for _ in range(40):  # the pongs need real time
            pass_time(page, 5)
            page.evaluate("fetch('favicon.svg').then((response) => response.text())")
        assert count_sockets(page) == 1
        expect(pending(page)).to_have_text(["patience"])
        redis.start()
        assert hear_texts(peer, 1) == ["patience"]
        eventually(lambda: pending(after(page, 0.1)).count() == 0)
        expect(page.locator("#messages .text")).to_have_text(["patience"])

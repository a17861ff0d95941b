"""The page on a connection that died without a word, and over a message that breaks each socket.

The connections are real ones, through a forwarder that swallows everything; the minutes pass by a
clock that the test turns.
"""

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import find_redis_server, require
from pages import SOCKETS, come_in, come_in_raw, expect, join, pending, type_and_send
from peers import PATIENCE, Peer, eventually
from programs import Program, chat, echo, hear_texts, say
from proxy import Forwarder
from redis_server import Redis

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

MINUTE = 60  # seconds within which a page finds out by itself
COUNT_SOCKETS = """
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(url) { super(url); sockets.push(this); }
    };
"""
LOOKED_AT = 6  # seconds within which one that somebody looks at does


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with chat() as program:
        yield program


@pytest.fixture
def forwarder(server: Program) -> Iterator[Forwarder]:
    with Forwarder(server.server_port) as forwarder:
        yield forwarder


@pytest.fixture
def ada(page: "Page", forwarder: Forwarder) -> "Page":
    """A page that has joined through the forwarder, and whose time stands still."""
    page.add_init_script(COUNT_SOCKETS)
    page.clock.install(time=1_700_000_000)
    join(page, forwarder.url)
    page.clock.pause_at(page.evaluate("Date.now() + 1") / 1000 + 1)
    return page


def wait(page: "Page", seconds: float) -> None:
    page.clock.run_for(round(seconds * 1000))


def after(page: "Page", seconds: float) -> "Page":
    wait(page, seconds)
    return page


def opened(page: "Page") -> int:
    """How many sockets the page has made."""
    count = page.evaluate("sockets.length")
    assert isinstance(count, int)
    return count


def go_deaf(forwarder: Forwarder, page: "Page") -> None:
    """Nothing is under way any more when it returns: a later answer comes after all that was."""
    forwarder.go_deaf()
    page.evaluate("fetch('favicon.svg').then((response) => response.text())")


def seconds_until_it_tries_anew(page: "Page") -> float:
    """By the page's clock."""
    before = opened(page)
    waited = 0
    while opened(page) == before:
        assert waited < 5 * MINUTE, "it takes a dead connection for a living one"
        wait(page, 1)
        waited += 1
    return waited


def hears(page: "Page", peer: Peer, text: str) -> None:
    say(peer, text)
    assert hear_texts(peer, 1) == [text]
    eventually(lambda: after(page, 0.1).get_by_text(text, exact=True).count() == 1)


def test_page_finds_out_by_itself_that_its_connection_is_dead_and_hears_what_it_missed(
    ada: "Page", forwarder: Forwarder, server: Program
) -> None:
    with server.join() as peer:
        hears(ada, peer, "heard at once")
        go_deaf(forwarder, ada)
        say(peer, "missed")
        assert hear_texts(peer, 1) == ["missed"]
        assert seconds_until_it_tries_anew(ada) <= MINUTE
        expect(ada.locator("#status")).to_have_text("connected")
        hears(ada, peer, "heard again")
        expect(ada.locator("#messages .text").last).to_have_text("heard again")
        expect(ada.get_by_text("missed", exact=True)).to_have_count(1)


@pytest.mark.parametrize(
    "event",
    [
        "dispatchEvent(new Event('online'))",
        "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
        "document.dispatchEvent(new Event('visibilitychange'))",
        "document.dispatchEvent(new Event('resume'))",
    ],
    ids=["the network is back", "the page was left", "somebody looks", "the page was frozen"],
)
def test_page_that_somebody_looks_at_finds_out_within_seconds(
    ada: "Page", forwarder: Forwarder, event: str
) -> None:
    go_deaf(forwarder, ada)
    wait(ada, 3)
    ada.evaluate(f"{event}; null")
    assert seconds_until_it_tries_anew(ada) <= LOOKED_AT + 2
    expect(ada.locator("#status")).to_have_text("connected")


def test_message_to_a_dead_connection_is_sent_once_on_the_next(
    ada: "Page", forwarder: Forwarder, server: Program
) -> None:
    with server.join() as peer:
        go_deaf(forwarder, ada)
        type_and_send(ada, "into the void")
        wait(ada, 1)
        expect(pending(ada)).to_have_text(["into the void"])
        assert seconds_until_it_tries_anew(ada) <= MINUTE
        assert hear_texts(peer, 1) == ["into the void"]
        eventually(lambda: pending(after(ada, 0.1)).count() == 0)
        expect(ada.get_by_text("into the void", exact=True)).to_have_count(1)
        say(peer, "and nothing else")
        assert hear_texts(peer, 1) == ["and nothing else"]


def test_page_whose_timers_are_held_back_finds_out_by_its_worker(
    page: "Page", forwarder: Forwarder
) -> None:
    """Browsers run the timers of a page that nobody looks at once a minute, or not at all."""
    page.add_init_script(COUNT_SOCKETS)
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
    go_deaf(forwarder, page)
    page.evaluate("window.setTimeout = () => 0; slept = 25_000")
    eventually(lambda: opened(page) == 2, 3 * PATIENCE)
    expect(page.locator("#status")).to_have_text("connected")


def test_quiet_connection_that_answers_is_left_alone(ada: "Page", server: Program) -> None:
    ada.evaluate(
        """() => {
            window.asked = window.answered = 0;
            const [socket] = sockets;
            socket.addEventListener('message', (event) => {
                answered += event.data.includes('pong');
            });
            socket.send = (text) => {
                asked += text.includes('ping');
                WebSocket.prototype.send.call(socket, text);
            };
        }"""
    )
    with server.join() as peer:
        while ada.evaluate("asked") < 3:
            wait(ada, 5)
            eventually(lambda: ada.evaluate("asked === answered"))
        assert opened(ada) == 1
        say(peer, "pings are no messages")
        assert hear_texts(peer, 1) == ["pings are no messages"]


@pytest.fixture
def alone(page: "Page", server: Program) -> "Page":
    """A page whose sockets are the test's own, and whose time stands still."""
    page.add_init_script(SOCKETS)
    page.clock.install(time=1_700_000_000)
    join(page, server.url)
    page.clock.pause_at(page.evaluate("Date.now() + 1") / 1000 + 1)
    return page


def test_socket_that_closed_while_the_page_was_frozen_is_replaced_at_once(alone: "Page") -> None:
    alone.evaluate("sockets[0].readyState = 3")
    alone.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })); null")
    assert opened(alone) == 2
    expect(alone.locator("#status")).to_have_text("connected")


def test_socket_that_does_not_open_is_given_up(alone: "Page") -> None:
    alone.evaluate("accepting = null; sockets[0].lose()")
    wait(alone, 2)
    assert opened(alone) == 2
    wait(alone, 10)
    assert opened(alone) == 2
    assert seconds_until_it_tries_anew(alone) <= MINUTE
    wait(alone, 1)
    alone.evaluate("accepting = true; dispatchEvent(new Event('online')); null")
    assert seconds_until_it_tries_anew(alone) <= LOOKED_AT + 2
    expect(alone.locator("#status")).to_have_text("connected")


def test_slow_connection_that_takes_what_is_sent_is_no_dead_one(alone: "Page") -> None:
    type_and_send(alone, "a long message")
    for left in range(20, 0, -1):
        alone.evaluate("left => { sockets[0].bufferedAmount = left * 1_000; }", left)
        wait(alone, 5)
    assert opened(alone) == 1
    alone.evaluate("sockets[0].deaf = true")  # now it takes no more, and so no question
    assert seconds_until_it_tries_anew(alone) <= MINUTE


def test_question_that_goes_out_slowly_is_no_answer(alone: "Page") -> None:
    """The system takes a few bytes also where nobody is at the other end."""
    alone.evaluate(
        """() => {
            sockets[0].send = function () {
                this.bufferedAmount += 17;
                setTimeout(() => { this.bufferedAmount -= 17; }, 3_000);
            };
        }"""
    )
    assert seconds_until_it_tries_anew(alone) <= MINUTE


def test_echo_page_whose_user_sends_again_and_again_says_that_the_connection_is_dead(
    page: "Page",
) -> None:
    page.add_init_script(SOCKETS)
    page.clock.install()
    with echo() as server:
        page.goto(server.url)
        expect(page.locator("#status")).to_have_text("connected")
        for _ in range(3):
            page.click("#send-button")
            page.clock.run_for("00:04")
        expect(page.locator("#status")).to_contain_text("connection lost: no answer")
        page.click("#send-button")
        expect(page.locator("#status")).to_have_text("connected")
        assert opened(page) == 2


def test_echo_page_says_when_the_second_of_two_messages_is_not_answered(page: "Page") -> None:
    page.add_init_script(SOCKETS)
    page.clock.install()
    with echo() as server:
        page.goto(server.url)
        expect(page.locator("#status")).to_have_text("connected")
        page.click("#send-button")
        page.click("#send-button")
        come_in_raw(page, "[the first]")
        page.clock.run_for("00:11")
        expect(page.locator("#status")).to_contain_text("connection lost: no answer")
        page.click("#send-button")
        come_in_raw(page, "[the only one]")
        page.clock.run_for("00:11")
        expect(page.locator("#status")).to_have_text("connected")


def test_echo_page_whose_socket_does_not_open_says_so_and_tries_anew(page: "Page") -> None:
    page.add_init_script(SOCKETS)
    page.add_init_script("accepting = null")
    page.clock.install()
    with echo() as server:
        page.goto(server.url)
        expect(page.locator("#status")).to_have_text("connecting…")
        page.click("#send-button")
        page.clock.run_for("00:11")
        expect(page.locator("#status")).to_contain_text("connection lost: no answer")
        page.evaluate("sockets[0].lose()")  # it notices late, and its end is no news
        expect(page.locator("#status")).to_contain_text("connection lost: no answer")
        page.evaluate("accepting = true")
        page.click("#send-button")
        expect(page.locator("#status")).to_have_text("connected")


def test_echo_page_whose_connection_is_dead_says_so_and_opens_a_new_one(page: "Page") -> None:
    page.clock.install()
    with echo() as server, Forwarder(server.server_port) as forwarder:
        page.goto(forwarder.url)
        expect(page.locator("#status")).to_have_text("connected")
        go_deaf(forwarder, page)
        page.fill("#message", "lost")
        page.click("#send-button")
        page.clock.run_for("00:11")
        expect(page.locator("#status")).to_contain_text("connection lost: no answer")
        page.fill("#message", "answered")
        page.click("#send-button")
        expect(page.locator("#answers li")).to_have_text(["[answered]"])
        expect(page.locator("#status")).to_have_text("connected")
        page.clock.run_for("00:11")
        expect(page.locator("#status")).to_have_text("connected")
        page.goto("about:blank")


# A message that breaks each socket


def test_message_that_is_too_big_is_marked_and_not_sent_again(page: "Page") -> None:
    with chat("--max-message", "1000") as server, server.join() as peer:
        join(page, server.url)
        type_and_send(page, "first", "too big " * 200, "last")
        assert hear_texts(peer, 2) == ["first", "last"]
        expect(page.locator("#messages .failed .time")).to_contain_text("not sent: ")
        expect(page.locator("#messages .failed .text")).to_have_text("too big " * 199 + "too big")
        expect(page.locator("#messages .pending")).to_have_count(0)
        expect(page.locator("#status")).to_have_text("connected")
        page.reload()
        type_and_send(page, "after a reload")
        assert hear_texts(peer, 1) == ["after a reload"]
        expect(page.locator("#messages .message:not(.failed) .text")).to_have_text(
            ["first", "last", "after a reload"]
        )


def test_refused_message_is_taken_back_into_the_draft_or_discarded_also_after_a_reload(
    page: "Page",
) -> None:
    with chat("--max-message", "1000") as server, server.join() as peer:
        join(page, server.url)
        type_and_send(page, "too big " * 200)
        failed = page.locator("#messages .failed")
        expect(failed.locator(".time")).to_contain_text("not sent: ")
        why = failed.locator(".time").text_content()
        page.reload()
        expect(failed.locator(".time")).to_have_text(why)
        expect(page.locator("#status")).to_have_text("connected")
        page.fill("#message", "half a thought")
        page.get_by_role("button", name="Edit").click()
        expect(failed).to_have_count(0)
        expect(page.locator("#message")).to_be_focused()
        text = page.input_value("#message")
        assert text == "half a thought\n" + "too big " * 199 + "too big"
        page.press("#message", "Enter")
        expect(failed.locator(".time")).to_have_text(why)
        page.get_by_role("button", name="Discard").click()
        expect(failed).to_have_count(0)
        page.reload()
        type_and_send(page, "small enough")
        assert hear_texts(peer, 1) == ["small enough"]
        expect(page.locator("#messages .text")).to_have_text(["small enough"])


@pytest.mark.parametrize(
    ("innocent", "culprit"),
    [("e" * 300, '"' * 200), ("w" * 40, "\x01" * 10)],
    ids=["quotes", "control characters"],
)
def test_message_is_too_big_by_what_is_sent_and_not_by_what_is_shown(
    page: "Page", innocent: str, culprit: str
) -> None:
    """The server measures JSON, in which a quote takes two bytes and a control character six."""
    fields = {"email": "ada@example.org", "username": "Ada", "key": "x" * 27}
    sizes = [
        len(json.dumps(fields | {"message": text}, separators=(",", ":")))
        for text in (innocent, culprit)
    ]
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
        expect(page.locator("#status")).to_have_text("connected")


# As behind a proxy that loses the Close; what does no harm comes back.
BREAKS = """
    let id = 17;
    WebSocket.prototype.send = function (text) {
        sent.push(text);
        const { event, message, key } = JSON.parse(text);
        if (event === 'join') return;
        const data = event ? '{"event":"pong"}' : text.replace('{', `{"id": "${id++}-0", `);
        Promise.resolve().then(() => {
            if (message === 'harmful') this.lose();
            else if (this.readyState === 1) this.happen(1, new MessageEvent('message', { data }));
        });
    };
"""


def test_message_over_which_each_socket_breaks_is_given_up_and_holds_up_no_other(
    page: "Page", server: Program
) -> None:
    page.add_init_script(SOCKETS + BREAKS)
    page.clock.install(time=1_700_000_000)
    join(page, server.url)
    type_and_send(page, "before", "harmful", "after", "after that")
    page.clock.run_for("05:00")
    shown = page.locator("#messages li .text")
    expect(shown).to_have_text(["before", "after", "after that", "harmful"])
    expect(page.locator("#messages .pending")).to_have_count(0)
    failed = page.locator("#messages .failed")
    expect(failed.locator(".text")).to_have_text("harmful")
    expect(failed.locator(".time")).to_contain_text(
        "not sent: the connection broke each of 5 times"
    )
    expect(page.locator("#status")).to_have_text("connected")
    said = [json.loads(text).get("message") for text in page.evaluate("sent")]
    assert said.count("harmful") == 5
    page.evaluate("sent.length = 0")
    page.clock.run_for("05:00")
    assert "harmful" not in "".join(page.evaluate("sent"))
    page.get_by_role("button", name="Send again").click()
    page.clock.run_for("00:01")
    assert "harmful" in "".join(page.evaluate("sent"))
    page.clock.run_for("05:00")
    expect(failed.locator(".text")).to_have_text("harmful")


def test_restarting_server_is_no_reason_to_give_a_message_up(page: "Page", server: Program) -> None:
    page.add_init_script(SOCKETS)
    page.clock.install(time=1_700_000_000)
    join(page, server.url)
    type_and_send(page, "patience")
    for _ in range(10):
        page.evaluate("sockets.at(-1).happen(3, new CloseEvent('close', { code: 1001 }))")
        page.evaluate("dispatchEvent(new Event('online')); null")
        expect(page.locator("#status")).to_have_text("connected")
    page.clock.run_for(1_000)
    expect(pending(page)).to_have_text(["patience"])


def test_message_without_its_copy_waits_as_long_as_the_server_answers(alone: "Page") -> None:
    """As while a server's Redis is away: it shows the message when Redis is back."""
    type_and_send(alone, "patience")
    key = json.loads(alone.evaluate("sent.at(-1)"))["key"]
    wait(alone, 30 * MINUTE)
    assert opened(alone) == 1
    expect(pending(alone)).to_have_text(["patience"])
    expect(alone.locator(".pending .time")).to_have_text("sending…")
    assert len([text for text in alone.evaluate("sent") if "patience" in text]) == 1
    come_in(alone, "17-1", "patience", key=key)
    wait(alone, 1)
    expect(alone.locator("#messages .message:not(.pending) .text")).to_have_text(["patience"])


def test_message_is_not_to_blame_for_sockets_that_the_page_itself_ended(alone: "Page") -> None:
    type_and_send(alone, "patience")
    for _ in range(10):
        alone.evaluate("sockets.at(-1).deaf = true")
        assert seconds_until_it_tries_anew(alone) <= MINUTE
        expect(alone.locator("#status")).to_have_text("connected")
    wait(alone, 1)
    expect(pending(alone)).to_have_text(["patience"])


def test_message_is_not_to_blame_for_a_socket_on_which_the_server_has_read_it(
    alone: "Page",
) -> None:
    """A question that came after the message was answered, so the server got past it."""
    type_and_send(alone, "patience")
    for _ in range(10):
        wait(alone, MINUTE)
        alone.evaluate("sockets.at(-1).lose()")
        wait(alone, 2)
        expect(alone.locator("#status")).to_have_text("connected")
    expect(pending(alone)).to_have_text(["patience"])
    assert opened(alone) == 11


@pytest.mark.redis
def test_message_said_while_redis_is_away_waits_on_its_socket_and_is_shown_once(
    page: "Page", tmp_path: Path
) -> None:
    require(find_redis_server(), "redis-server", "apt install redis-server")
    require(importlib.util.find_spec("redis"), "the redis package", "pip install redis")
    redis = Redis(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(redis.kill)
        server = stack.enter_context(chat("--redis", redis.url))
        peer = stack.enter_context(server.join())
        page.add_init_script(COUNT_SOCKETS)
        page.clock.install(time=1_700_000_000)
        join(page, server.url)
        page.clock.pause_at(page.evaluate("Date.now() + 1") / 1000 + 1)
        redis.kill()
        type_and_send(page, "patience")
        for _ in range(40):  # the answers to its questions come in real time
            wait(page, 5)
            page.evaluate("fetch('favicon.svg').then((response) => response.text())")
        assert opened(page) == 1
        expect(pending(page)).to_have_text(["patience"])
        redis.start()
        assert hear_texts(peer, 1) == ["patience"]
        eventually(lambda: pending(after(page, 0.1)).count() == 0)
        expect(page.locator("#messages .text")).to_have_text(["patience"])

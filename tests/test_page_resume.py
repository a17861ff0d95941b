"""The chat's page when its connection breaks: it loses no message, and waits between attempts.

The server is killed and started again for the first part. For the waits, the sockets are fake, and
the test controls the time.
"""

import contextlib
import itertools
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chat.history import SqliteHistory
from chatting import hear, say
from histories import Said
from kills import Place
from pages import expect, join, pass_time, pending, receive, sees, send, stop_clock
from peers import eventually
from programs import Program, chat

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, WebSocketRoute

pytestmark = pytest.mark.browser

FIRST_WAIT, LAST_WAIT = 0.5, 30.0  # seconds; between them each wait is longer than the one before
STABLE_AFTER = 60  # seconds that a connection must last, for the waits to start small again


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A server with a history, to be killed and started again on the same port."""
    place = Place("--history", str(tmp_path / "history"))
    yield place
    place.discard()


def assert_history(server: Program, *texts: str) -> None:
    """Check that the history has these messages, in this order, and no others."""
    with server.join("/ws?since=0") as peer:
        say(peer, "end of the history")
        heard: list[str] = []
        while heard[-1:] != ["end of the history"]:
            message = hear(peer)
            heard += [message["message"]] if "event" not in message else []
    assert heard == [*texts, "end of the history"]


# The server is killed


def test_page_says_that_it_reconnects_and_connects_when_the_server_is_back(
    place: Place, page: "Page"
) -> None:
    join(page, place.program.url)
    for _ in range(2):
        place.kill()
        expect(page.locator("#status")).to_contain_text("Reconnecting")
        expect(page.locator("#countdown")).to_have_text(re.compile(r" in \d+ s"))
        place.start()
        expect(page.locator("#status")).to_have_text("Connected")
        expect(page.locator("#countdown")).to_have_text("")
    expect(page.locator("#online h2")).to_have_text("Online: 1")


def test_messages_written_while_the_server_is_down_are_sent_once_when_it_is_back(
    place: Place, page: "Page"
) -> None:
    join(page, place.program.url)
    send(page, "before")
    sees(page, "before")
    place.kill()
    expect(page.locator("#status")).to_contain_text("Reconnecting")
    send(page, "one", "two", "three")
    expect(pending(page)).to_have_text(["one", "two", "three"])
    place.start()
    sees(page, "before", "one", "two", "three")
    send(page, "after")
    sees(page, "before", "one", "two", "three", "after")
    assert_history(place.program, "before", "one", "two", "three", "after")


def test_messages_in_flight_when_the_server_is_killed_are_sent_once(
    place: Place, page: "Page"
) -> None:
    join(page, place.program.url)
    send(page, "before")
    sees(page, "before")
    place.program.signal(signal.SIGSTOP)
    os.waitpid(place.program.process.pid, os.WUNTRACED)  # until all of its threads have stopped
    send(page, "one", "two")
    expect(page.locator("#status")).to_have_text("Connected")
    expect(pending(page)).to_have_text(["one", "two"])
    place.kill()
    place.start()
    sees(page, "before", "one", "two")
    assert_history(place.program, "before", "one", "two")


def test_message_whose_acknowledgement_is_lost_is_shown_once_and_stored_once(
    place: Place, page: "Page"
) -> None:
    held_back: list[str] = []
    holding = False

    def relay(to_page: "WebSocketRoute") -> None:
        to_server = to_page.connect_to_server()

        def from_server(data: str | bytes) -> None:
            if holding:
                held_back.append(str(data))
            else:
                to_page.send(data)

        to_page.on_message(to_server.send)
        to_server.on_message(from_server)

    page.route_web_socket(re.compile("/ws"), relay)
    join(page, place.program.url)
    send(page, "before")
    sees(page, "before")
    holding = True
    send(page, "stored, but not acknowledged")
    # The relay runs only while the test calls Playwright, which page.title() does.
    eventually(lambda: page.title() and any("not acknowledged" in each for each in held_back))
    expect(pending(page)).to_have_text(["stored, but not acknowledged"])
    place.kill()
    holding = False
    place.start()
    sees(page, "before", "stored, but not acknowledged")
    send(page, "after")
    sees(page, "before", "stored, but not acknowledged", "after")
    assert_history(place.program, "before", "stored, but not acknowledged", "after")


def test_missed_messages_appear_once_and_before_the_message_that_was_waiting(
    place: Place, page: "Page", tmp_path: Path
) -> None:
    join(page, place.program.url)
    send(page, "before")
    sees(page, "before")
    place.kill()
    expect(page.locator("#status")).to_contain_text("Reconnecting")
    send(page, "waited")
    with chat("--history", str(tmp_path / "history")) as elsewhere, elsewhere.join() as bob:
        for number in range(5):
            say(bob, f"missed {number}")
            hear(bob)
    place.start()
    missed = [f"missed {number}" for number in range(5)]
    sees(page, "before", *missed, "waited")
    assert_history(place.program, "before", *missed, "waited")


def test_page_that_missed_more_than_500_messages_says_so(
    place: Place, page: "Page", tmp_path: Path
) -> None:
    join(page, place.program.url)
    send(page, "before")
    sees(page, "before")
    place.kill()
    expect(page.locator("#status")).to_contain_text("Reconnecting")
    send(page, "waited")
    with contextlib.closing(SqliteHistory(str(tmp_path / "history"))) as history:
        history.append([Said(f"missed {number}", username="Bob") for number in range(510)])
    place.start()
    sees(page, "before", *(f"missed {number}" for number in range(10, 510)), "waited")
    expect(page.locator("#messages li").nth(1)).to_have_class(re.compile("gap"))
    expect(page.locator("#messages li.gap")).to_have_count(1)


def test_two_pages_lose_and_repeat_no_message_while_the_server_is_killed(
    place: Place, page: "Page", context: "BrowserContext"
) -> None:
    other = context.new_page()
    for each in (page, other):
        join(each, place.program.url)
    said: list[str] = []
    for number in range(2):
        for name, each in (("one", page), ("other", other)):
            said += [f"{name} {number} up", f"{name} {number} down"]
            send(each, f"{name} {number} up")
        place.kill()
        for name, each in (("one", page), ("other", other)):
            send(each, f"{name} {number} down")
        place.start()
        for each in (page, other):
            expect(each.locator("#messages li.message:not(.pending)")).to_have_count(len(said))
            expect(each.locator("#messages li.message.pending")).to_have_count(0)
    texts = page.locator("#messages li.message .text").all_text_contents()
    assert texts == other.locator("#messages li.message .text").all_text_contents()
    assert sorted(texts) == sorted(said)
    for name in ("one", "other"):
        own = [text for text in texts if text.startswith(f"{name} ")]
        assert own == [text for text in said if text.startswith(f"{name} ")]
    assert_history(place.program, *texts)


# The waits between two attempts


def attempts(page: "Page") -> list[float]:
    """The times at which the page made its sockets, in seconds."""
    answer = page.evaluate("attempts")
    assert isinstance(answer, list)
    return answer


def waits_after_losing_the_connection(page: "Page", seconds: float) -> list[float]:
    """Break the connection and let no other open. Returns the waits before the attempts."""
    before = len(attempts(page))
    lost_at = page.evaluate("performance.now() / 1000")
    page.evaluate("accepting = false; sockets.at(-1).lose()")
    pass_time(page, seconds)
    return [later - one for one, later in itertools.pairwise([lost_at, *attempts(page)[before:]])]


@pytest.mark.requirement("7.2.3-1")
def test_waits_between_attempts_are_random_and_grow_from_half_a_second_to_thirty(
    still_page: "Page", server: Program
) -> None:
    firsts, lasts = [], []
    for _ in range(5):
        waits = waits_after_losing_the_connection(still_page, 300)
        assert len(waits) >= 10
        assert FIRST_WAIT <= waits[0] <= 2 * FIRST_WAIT + 0.01
        assert max(waits) <= LAST_WAIT + 0.01
        assert min(waits[5:]) >= LAST_WAIT / 2
        assert all(later >= one - 0.01 for one, later in itertools.pairwise(waits[:5]))
        assert all(later > 1.5 * one for one, later in zip(waits[:4], waits[2:6], strict=True))
        firsts.append(waits[0])
        lasts += waits[6:]
        join(still_page, server.url)
        stop_clock(still_page)
    for sample in (firsts, lasts):
        assert max(sample) - min(sample) > 0.01 * max(sample)  # the waits are random


def test_waits_start_small_again_only_after_a_minute_of_connection(still_page: "Page") -> None:
    waits_after_losing_the_connection(still_page, 100)
    for seconds, shortest, longest in (
        (STABLE_AFTER - 2, LAST_WAIT / 2, LAST_WAIT),
        (STABLE_AFTER + 1, FIRST_WAIT, 2 * FIRST_WAIT),
    ):
        still_page.evaluate("accepting = true; dispatchEvent(new Event('online')); null")
        expect(still_page.locator("#status")).to_have_text("Connected")
        pass_time(still_page, seconds)
        first = waits_after_losing_the_connection(still_page, LAST_WAIT + 1)[0]
        assert shortest <= first <= longest + 0.01


@pytest.mark.parametrize(
    "event",
    [
        "dispatchEvent(new Event('online'))",
        "document.dispatchEvent(new Event('visibilitychange'))",
    ],
    ids=["the network is back", "somebody looks at the page"],
)
def test_page_reconnects_immediately_when_an_event_gives_reason_to(
    still_page: "Page", event: str
) -> None:
    waits_after_losing_the_connection(still_page, 100)
    before = len(attempts(still_page))
    still_page.evaluate(f"accepting = true; {event}; null")
    expect(still_page.locator("#status")).to_have_text("Connected")
    assert len(attempts(still_page)) == before + 1
    still_page.evaluate(f"{event}; null")
    pass_time(still_page, 2 * LAST_WAIT)
    assert len(attempts(still_page)) == before + 1


def test_each_attempt_asks_for_the_messages_after_the_last_id(still_page: "Page") -> None:
    assert still_page.evaluate("sockets[0].url").endswith("/ws?since=0")
    receive(still_page, "17-4", "hello")
    waits_after_losing_the_connection(still_page, 5)
    urls = still_page.evaluate("sockets.map((socket) => socket.url)")
    assert len(urls) >= 3
    assert all(url.endswith("/ws?since=17-4") for url in urls[1:])


def test_message_that_arrives_twice_is_shown_once(still_page: "Page") -> None:
    for message_id, text in (("17-4", "one"), ("17-5", "two"), ("17-4", "one"), ("17-6", "three")):
        receive(still_page, message_id, text)
    pass_time(still_page, 1)
    sees(still_page, "one", "two", "three")


def test_acknowledgement_with_an_old_id_does_not_move_the_last_id_back(still_page: "Page") -> None:
    """The history may hold a message that is sent again far before what the page has seen."""
    send(still_page, "sent again")
    key = json.loads(still_page.evaluate("sent.at(-1)"))["key"]
    receive(still_page, "17-99999999999999999", "news")
    receive(still_page, "17-99999999999999998", "sent again", key=key)
    pass_time(still_page, 1)
    expect(pending(still_page)).to_have_count(0)
    receive(still_page, "17-99999999999999998", "sent again", key=key)
    pass_time(still_page, 1)
    sees(still_page, "sent again", "news")
    waits_after_losing_the_connection(still_page, 2)
    assert still_page.evaluate("sockets[1].url").endswith("/ws?since=17-99999999999999999")

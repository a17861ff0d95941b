"""The page in Chromium when its connection breaks: the server killed under it, and the waits.

The waits are looked at under a clock that the test turns, with sockets that the test breaks.
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
from histories import Said
from kills import Place
from pages import SOCKETS, come_in, expect, join, pending, sees, type_and_send
from peers import eventually
from programs import Program, chat, hear, say

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, WebSocketRoute

pytestmark = pytest.mark.browser

FIRST_WAIT, LAST_WAIT = 0.5, 30.0  # seconds; between them each wait is longer than the one before
STABLE = 60  # seconds for which a connection must have lived, for the waits to start small again


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A port with a server that keeps its history, to be killed and started again."""
    place = Place("--history", str(tmp_path / "history"))
    yield place
    place.discard()


def assert_history(server: Program, *texts: str) -> None:
    """These are in the history, in this order, and nothing else."""
    with server.join("/ws?since=0") as peer:
        say(peer, "end of the history")
        heard: list[str] = []
        while heard[-1:] != ["end of the history"]:
            message = hear(peer)
            heard += [message["message"]] if "event" not in message else []
    assert heard == [*texts, "end of the history"]


# The server killed under the page


def test_page_says_that_it_reconnects_and_connects_when_the_server_is_back(
    place: Place, page: "Page"
) -> None:
    join(page, place.program.url)
    for _ in range(2):
        place.kill()
        expect(page.locator("#status")).to_contain_text("reconnecting")
        expect(page.locator("#countdown")).to_have_text(re.compile(r" in \d+ s"))
        place.start()
        expect(page.locator("#status")).to_have_text("connected")
        expect(page.locator("#countdown")).to_have_text("")
    expect(page.locator("#online h2")).to_have_text("1 here")


def test_what_is_typed_while_the_server_is_away_waits_and_is_sent_once(
    place: Place, page: "Page"
) -> None:
    join(page, place.program.url)
    type_and_send(page, "before")
    sees(page, "before")
    place.kill()
    expect(page.locator("#status")).to_contain_text("reconnecting")
    type_and_send(page, "one", "two", "three")
    expect(pending(page)).to_have_text(["one", "two", "three"])
    place.start()
    sees(page, "before", "one", "two", "three")
    type_and_send(page, "after")
    sees(page, "before", "one", "two", "three", "after")
    assert_history(place.program, "before", "one", "two", "three", "after")


def test_what_was_under_way_when_the_server_was_killed_is_sent_once(
    place: Place, page: "Page"
) -> None:
    join(page, place.program.url)
    type_and_send(page, "before")
    sees(page, "before")
    place.program.signal(signal.SIGSTOP)
    os.waitpid(place.program.process.pid, os.WUNTRACED)  # until all of its threads stand still
    type_and_send(page, "one", "two")
    expect(page.locator("#status")).to_have_text("connected")
    expect(pending(page)).to_have_text(["one", "two"])
    place.kill()
    place.start()
    sees(page, "before", "one", "two")
    assert_history(place.program, "before", "one", "two")


def test_message_whose_copy_was_lost_is_shown_once_and_not_said_again(
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
    type_and_send(page, "before")
    sees(page, "before")
    holding = True
    type_and_send(page, "logged, but its copy is lost")
    # Only a question to the page lets the relay run.
    eventually(lambda: page.title() and any("its copy is lost" in each for each in held_back))
    expect(pending(page)).to_have_text(["logged, but its copy is lost"])
    place.kill()
    holding = False
    place.start()
    sees(page, "before", "logged, but its copy is lost")
    type_and_send(page, "after")
    sees(page, "before", "logged, but its copy is lost", "after")
    assert_history(place.program, "before", "logged, but its copy is lost", "after")


def test_what_was_missed_appears_once_before_what_waited(
    place: Place, page: "Page", tmp_path: Path
) -> None:
    join(page, place.program.url)
    type_and_send(page, "before")
    sees(page, "before")
    place.kill()
    expect(page.locator("#status")).to_contain_text("reconnecting")
    type_and_send(page, "waited")
    with chat("--history", str(tmp_path / "history")) as elsewhere, elsewhere.join() as bob:
        for number in range(5):
            say(bob, f"missed {number}")
            hear(bob)
    place.start()
    missed = [f"missed {number}" for number in range(5)]
    sees(page, "before", *missed, "waited")
    assert_history(place.program, "before", *missed, "waited")


def test_page_that_missed_more_than_500_says_so(place: Place, page: "Page", tmp_path: Path) -> None:
    join(page, place.program.url)
    type_and_send(page, "before")
    sees(page, "before")
    place.kill()
    expect(page.locator("#status")).to_contain_text("reconnecting")
    type_and_send(page, "waited")
    with contextlib.closing(SqliteHistory(str(tmp_path / "history"))) as history:
        history.append([Said(f"missed {number}", username="Bob") for number in range(510)])
    place.start()
    sees(page, "before", *(f"missed {number}" for number in range(10, 510)), "waited")
    expect(page.locator("#messages li").nth(1)).to_have_class(re.compile("gap"))
    expect(page.locator("#messages li.gap")).to_have_count(1)


def test_two_pages_lose_and_double_nothing_over_some_kills(
    place: Place, page: "Page", context: "BrowserContext"
) -> None:
    other = context.new_page()
    for each in (page, other):
        join(each, place.program.url)
    said: list[str] = []
    for number in range(2):
        for name, each in (("one", page), ("other", other)):
            said += [f"{name} {number} up", f"{name} {number} down"]
            type_and_send(each, f"{name} {number} up")
        place.kill()
        for name, each in (("one", page), ("other", other)):
            type_and_send(each, f"{name} {number} down")
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


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    """For pages whose sockets are the test's own."""
    with chat() as program:
        yield program


@pytest.fixture
def clocked(page: "Page", server: Program) -> "Page":
    """A page that is connected, by a socket that the test may lose, at a time that stands still."""
    page.add_init_script(SOCKETS)
    page.clock.install(time=1_700_000_000)
    join_and_stop_the_clock(page, server)
    return page


def join_and_stop_the_clock(page: "Page", server: Program) -> None:
    join(page, server.url)
    page.clock.pause_at(page.evaluate("Date.now() + 1") / 1000 + 1)


def wait(page: "Page", seconds: float) -> None:
    page.clock.run_for(round(seconds * 1000))


def attempts(page: "Page") -> list[float]:
    """The moments, in seconds."""
    answer = page.evaluate("attempts")
    assert isinstance(answer, list)
    return answer


def waits_after_loss(page: "Page", seconds: float) -> list[float]:
    """Lose the connection for good; what lay between that and the attempts that follow."""
    before = len(attempts(page))
    began = page.evaluate("performance.now() / 1000")
    page.evaluate("accepting = false; sockets.at(-1).lose()")
    wait(page, seconds)
    return [later - one for one, later in itertools.pairwise([began, *attempts(page)[before:]])]


@pytest.mark.requirement("7.2.3-1")
def test_waits_are_scattered_and_grow_from_half_a_second_to_thirty(
    clocked: "Page", server: Program
) -> None:
    firsts, lasts = [], []
    for _ in range(5):
        waits = waits_after_loss(clocked, 300)
        assert len(waits) >= 10
        assert FIRST_WAIT <= waits[0] <= 2 * FIRST_WAIT + 0.01
        assert max(waits) <= LAST_WAIT + 0.01
        assert min(waits[5:]) >= LAST_WAIT / 2
        assert all(later >= one - 0.01 for one, later in itertools.pairwise(waits[:5]))
        assert all(later > 1.5 * one for one, later in zip(waits[:4], waits[2:6], strict=True))
        firsts.append(waits[0])
        lasts += waits[6:]
        join_and_stop_the_clock(clocked, server)
    for scattered in (firsts, lasts):
        assert max(scattered) - min(scattered) > 0.01 * max(scattered)


def test_waits_start_small_again_only_after_a_stable_minute(clocked: "Page") -> None:
    waits_after_loss(clocked, 100)
    for lived, least, most in (
        (STABLE - 2, LAST_WAIT / 2, LAST_WAIT),
        (STABLE + 1, FIRST_WAIT, 2 * FIRST_WAIT),
    ):
        clocked.evaluate("accepting = true; dispatchEvent(new Event('online')); null")
        expect(clocked.locator("#status")).to_have_text("connected")
        wait(clocked, lived)
        first = waits_after_loss(clocked, LAST_WAIT + 1)[0]
        assert least <= first <= most + 0.01


@pytest.mark.parametrize(
    "reason",
    [
        "dispatchEvent(new Event('online'))",
        "document.dispatchEvent(new Event('visibilitychange'))",
    ],
    ids=["the network is back", "somebody looks"],
)
def test_page_reconnects_at_once_where_there_is_reason_to_hope(
    clocked: "Page", reason: str
) -> None:
    waits_after_loss(clocked, 100)
    before = len(attempts(clocked))
    clocked.evaluate(f"accepting = true; {reason}; null")
    expect(clocked.locator("#status")).to_have_text("connected")
    assert len(attempts(clocked)) == before + 1
    clocked.evaluate(f"{reason}; null")
    wait(clocked, 2 * LAST_WAIT)
    assert len(attempts(clocked)) == before + 1


def test_each_attempt_asks_for_what_came_after_the_last_id(clocked: "Page") -> None:
    assert clocked.evaluate("sockets[0].url").endswith("/ws?since=0")
    come_in(clocked, "17-4", "hello")
    waits_after_loss(clocked, 5)
    urls = clocked.evaluate("sockets.map((socket) => socket.url)")
    assert len(urls) >= 3
    assert all(url.endswith("/ws?since=17-4") for url in urls[1:])


def test_message_that_comes_twice_is_shown_once(clocked: "Page") -> None:
    for message_id, text in (("17-4", "one"), ("17-5", "two"), ("17-4", "one"), ("17-6", "three")):
        come_in(clocked, message_id, text)
    wait(clocked, 1)
    sees(clocked, "one", "two", "three")


def test_copy_from_long_ago_acknowledges_and_moves_nothing_back(clocked: "Page") -> None:
    """A message that is said again may be in the history far before what the page has seen."""
    type_and_send(clocked, "said again")
    key = json.loads(clocked.evaluate("sent.at(-1)"))["key"]
    come_in(clocked, "17-99999999999999999", "news")
    come_in(clocked, "17-99999999999999998", "said again", key=key)
    wait(clocked, 1)
    expect(pending(clocked)).to_have_count(0)
    come_in(clocked, "17-99999999999999998", "said again", key=key)
    wait(clocked, 1)
    sees(clocked, "news", "said again")
    waits_after_loss(clocked, 2)
    assert clocked.evaluate("sockets[1].url").endswith("/ws?since=17-99999999999999999")

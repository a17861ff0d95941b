"""Coming back: a chat process, and clients that resume with `since`, resend by key, and tell names.

The clients are bare sockets. What is missed, by whom, is decided by the order in which they hear
of things, never by the time that passes.
"""

import contextlib
import itertools
import json
import os
import resource
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

import kills
from chat.entry import order, pages
from chat.history import ChatLog
from chat.resume import Joined, Resumers
from conftest import require
from peers import PATIENCE, Peer, eventually, masked, request
from programs import Program, answer_close, chat, hear, hear_said, leave, name_of, run, say
from rfc6455 import WebSocket

RESUMED = 500  # messages at most that a client gets of those it missed


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    """For tests that do not mind what others have said."""
    with chat() as program:
        yield program


def resume(server: Program, since: str = "0") -> Peer:
    return server.join(f"/ws?since={since}")


def hear_all_said(peer: Peer, count: int) -> list[dict[str, Any]]:
    return [hear_said(peer) for _ in range(count)]


def hear_until(peer: Peer, text: str) -> list[dict[str, Any]]:
    """All that is said, up to this text."""
    heard = [hear_said(peer)]
    while heard[-1].get("message") != text:
        heard.append(hear_said(peer))
    return heard


def hear_online(peer: Peer, check: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first event of who is here that passes the check."""
    while True:
        heard: dict[str, Any] = hear(peer)
        if heard.get("event") == "online" and check(heard):
            return heard


def join(peer: Peer, username: str) -> None:
    fields = {"event": "join", "username": username, "email": f"{username}@example.org"}
    peer.send(masked(0x81, json.dumps(fields).encode()))


def tell(server: Program, count: int, size: int = 0, start: int = 0) -> list[dict[str, Any]]:
    """Messages by somebody who comes and goes, as they were heard."""
    heard: list[dict[str, Any]] = []
    with server.join() as ada:
        for number in range(count):
            say(ada, f"{start + number}".ljust(size, "."))
            if number % 10 == 9:  # one who does not listen is dropped
                heard += [hear(ada) for _ in range(10)]
        heard += [hear(ada) for _ in range(count - len(heard))]
        leave(ada)
    return heard


def ids(messages: list[dict[str, Any]]) -> list[str]:
    return [message["id"] for message in messages]


def assert_rising(message_ids: list[str]) -> None:
    pairs = [tuple(map(int, each.split("-"))) for each in message_ids]
    assert all(one < other for one, other in itertools.pairwise(pairs))


# Plain /ws


def test_plain_client_gets_no_history_and_no_events_beside_those_who_do() -> None:
    with chat() as server:
        tell(server, 3)
        with server.join() as plain, resume(server) as bob:
            hear_all_said(bob, 3)
            join(bob, "Bob")
            hear_online(bob, lambda event: event["usernames"] == ["Bob"] and event["count"] == 2)
            say(bob, "hello")
            assert hear(plain)["message"] == "hello"


def test_join_from_a_plain_client_is_a_message_as_in_the_original() -> None:
    with chat() as server, server.join() as ada:
        join(ada, "Ada")
        heard = hear(ada)
        assert (heard["email"], heard["username"], heard["message"]) == (
            "Ada@example.org",
            "Ada",
            "",
        )
        assert "event" not in heard


# Resuming


def test_client_that_comes_gets_what_was_said_in_the_same_words_and_then_what_is_said() -> None:
    with chat() as server, server.join() as ada:
        for text in ("one", "two 你好", "three"):
            say(ada, text, key=f"key of {text}")
        live = [ada.read_frame() for _ in range(3)]
        with resume(server) as bob:
            assert [bob.read_frame() for _ in range(3)] == live
            say(ada, "four")
            assert hear_said(bob)["message"] == "four"


def test_client_that_resumes_gets_what_came_after_its_id_and_then_what_is_said(
    server: Program,
) -> None:
    told = tell(server, 20)
    for place in (0, 1, 7, 18, 19):
        with resume(server, told[place]["id"]) as bob:
            assert hear_all_said(bob, len(told) - place - 1) == told[place + 1 :]
            told += tell(server, 2, start=100)
            assert hear_all_said(bob, 2) == told[-2:]


def test_client_that_resumes_gets_nothing_again(server: Program) -> None:
    since = tell(server, 1)[0]["id"]
    for text in ("one", "two", "three"):
        with resume(server, since) as bob:
            say(bob, text)
            copy = hear_said(bob)
        assert copy["message"] == text
        since = copy["id"]


def test_client_of_an_empty_chat_waits_for_the_first_message() -> None:
    with chat() as server, resume(server) as bob:
        say(bob, "first")
        assert hear_said(bob)["message"] == "first"


@pytest.mark.parametrize("since", ["0", "0-0", "00", "0%2D0"])
def test_who_comes_for_the_first_time_gets_all(since: str) -> None:
    with chat() as server:
        told = tell(server, 3)
        with resume(server, since) as bob:
            assert hear_all_said(bob, 3) == told


@pytest.mark.parametrize("since", ["1", "1-5", "1700000000000-0", "0-9999999999999999999"])
def test_id_of_before_a_chat_in_memory_began_gives_a_gap_and_then_all(since: str) -> None:
    with chat() as server:
        told = tell(server, 3)
        with resume(server, since) as bob:
            assert hear(bob) == {"event": "gap"}
            assert hear_all_said(bob, 3) == told
            assert_here(bob)


@pytest.mark.parametrize(
    "since", ["9999999999999", "9999999999999-9999", "9" * 19, "4102444800000-0"]
)
def test_id_from_the_future_gives_a_gap_and_then_what_is_said_from_now_on(since: str) -> None:
    with chat() as server:
        tell(server, 3)
        with resume(server, since) as bob:
            assert hear(bob) == {"event": "gap"}
            hear_online(bob, lambda event: event["count"] == 1)
            told = tell(server, 2)
            assert hear_all_said(bob, 2) == told


BAD = [
    "",
    "x",
    "-",
    "-1",
    "1-",
    "1-2-3",
    "1.5",
    "+1",
    "%20",
    "0%0a",
    "%00",
    "%ff",
    "NaN",
    "%D9%A3",
    "null",
]


@pytest.mark.parametrize("since", BAD)
def test_since_that_is_no_id_is_refused_with_400_at_the_handshake(
    server: Program, since: str
) -> None:
    status, text = server.answer(request(server, f"/ws?since={since}"))
    assert status == 400
    assert "is no message id" in text


def test_very_long_since_is_refused_briefly(server: Program) -> None:
    status, text = server.answer(request(server, f"/ws?since={'7' * 5000}"))
    assert status == 400
    assert len(text) < 2000


# The newest 500


def test_client_that_missed_more_than_500_gets_the_newest_and_is_told_first() -> None:
    with chat() as server:
        told = tell(server, RESUMED)
        assert_missed(server, "0", told)
        told += tell(server, 2)
        assert_missed(server, "0", told)
        assert_missed(server, told[0]["id"], told[1:])
        assert_missed(server, told[1]["id"], told[2:])
        assert_missed(server, told[2]["id"], told[3:])


def assert_missed(server: Program, since: str, missed: list[dict[str, Any]]) -> None:
    with resume(server, since) as bob:
        if len(missed) > RESUMED:
            assert hear_said(bob) == {"event": "gap"}
            missed = missed[-RESUMED:]
        assert hear_all_said(bob, len(missed)) == missed
        assert_here(bob)


def assert_here(peer: Peer) -> None:
    """The server still answers this client, and has nothing else for it but who is here."""
    peer.send(masked(0x89, b"here?"))
    while (frame := peer.read_frame())[0] == 0x81:
        assert json.loads(frame[1]).get("event") == "online"
    assert frame == (0x8A, b"here?")


def test_client_that_missed_what_was_trimmed_is_told() -> None:
    with chat("--keep", "10") as server:
        told = tell(server, 50)
        with resume(server, told[5]["id"]) as bob:
            assert hear(bob) == {"event": "gap"}
            assert hear_all_said(bob, 10) == told[-10:]
        with resume(server, told[45]["id"]) as bob:
            assert hear_all_said(bob, 4) == told[-4:]


def test_newest_10_are_kept_on_demand_across_a_restart(tmp_path: Path) -> None:
    options = ("--keep", "10", "--history", str(tmp_path / "history"))
    with chat(*options) as server:
        told = tell(server, 25)
    with chat(*options) as server, resume(server, told[12]["id"]) as bob:
        assert hear(bob) == {"event": "gap"}
        assert hear_all_said(bob, 10) == told[-10:]


# Joining races with talking


@pytest.fixture
def restless(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python's threads take turns as often as they can."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.setswitchinterval(1e-6)\n")
    return os.environ | {"PYTHONPATH": str(tmp_path)}


def test_clients_that_come_and_go_while_others_talk_hear_everything_once_and_in_order(
    restless: dict[str, str],
) -> None:
    """Fewer than 500 messages in all, so that nobody may be told of a gap."""
    talkers, each, joiners = 3, 150, 8

    def talk(number: int) -> None:
        with room.join() as peer:
            for count in range(each):
                say(peer, f"{number} {count}")
                while hear(peer)["message"] != f"{number} {count}":
                    pass
            leave_reading(peer)

    def come_and_go(number: int) -> list[str]:
        heard: list[str] = []
        while True:
            with resume(room, heard[-1] if heard else "0") as peer:
                for _ in range(7 + number):  # each at its own rhythm, then gone without a word
                    message = hear_said(peer)
                    heard.append(message["id"])
                    if message["message"] == "end":
                        return heard

    with (
        chat(env=restless) as room,
        resume(room) as witness,
        ThreadPoolExecutor(talkers + joiners) as pool,
    ):
        talking = [pool.submit(talk, number) for number in range(talkers)]
        coming = [pool.submit(come_and_go, number) for number in range(joiners)]
        all_ids = ids(hear_all_said(witness, talkers * each))
        say(witness, "end")
        all_ids += ids(hear_until(witness, "end"))
        assert len(all_ids) == talkers * each + 1
        assert_rising(all_ids)
        for joiner in coming:
            assert joiner.result() == all_ids
        for talker in talking:
            talker.result()


def leave_reading(peer: Peer) -> None:
    """The closing handshake, with messages still on their way."""
    peer.send(masked(0x88, b"\x03\xe8"))
    while peer.read_frame()[0] != 0x88:
        pass
    peer.read_to_eof()


@pytest.fixture
def long_history(tmp_path: Path) -> Path:
    """10 MB, more than the kernel takes for a client that does not read."""
    with contextlib.closing(ChatLog(str(tmp_path / "long history"))) as log:
        log.append([("", "", str(number).ljust(20_000, "."), None) for number in range(500)])
    return tmp_path / "long history"


def slowly_catching_up(server: Program) -> Peer:
    """A client that has begun to hear the past, and reads little."""
    peer = server.tcp(receive_buffer=4096)
    try:
        peer.send(request(server, "/ws?since=0"))
        assert peer.read_head().startswith("HTTP/1.1 101 ")
    except BaseException:
        peer.close()
        raise
    return peer


def test_client_that_catches_up_slowly_holds_nobody_up_and_gets_everything_in_order(
    long_history: Path,
) -> None:
    with chat("--history", str(long_history)) as server, slowly_catching_up(server) as slow:
        first = hear_said(slow)
        told = tell(server, 100, size=20_000)
        heard = [first, *hear_all_said(slow, 599)]
    assert [int(message["message"].rstrip(".")) for message in heard[:500]] == list(range(500))
    assert heard[500:] == told
    assert_rising(ids(heard))


def test_client_that_catches_up_too_slowly_is_told_of_the_gap_where_it_is(
    long_history: Path,
) -> None:
    options = ("--history", str(long_history), "--keep", "500")
    with chat(*options) as server, slowly_catching_up(server) as slow:
        heard = [hear_said(slow)]
        told = tell(server, 490, size=20_000, start=500)
        while heard[-1].get("id") != told[-1]["id"]:
            heard.append(hear_said(slow))
        assert_here(slow)
    assert {"event": "gap"} in heard
    expected = 0
    after_gap = False
    for each in heard:
        if each == {"event": "gap"}:
            after_gap = True
            continue
        number = int(each["message"].rstrip("."))
        assert (number > expected) if after_gap else (number == expected)
        expected = number + 1
        after_gap = False
    assert heard[-490:] == told


def test_client_that_leaves_while_it_catches_up_is_gone(long_history: Path) -> None:
    with chat("--history", str(long_history)) as server:
        with slowly_catching_up(server) as slow:
            name = name_of(slow)
        eventually(lambda: server.log_lines_about(name))
        with resume(server, "9999999999999") as bob:
            assert hear_online(bob, lambda event: True)["count"] == 1


def test_client_that_left_before_its_turn_came_is_not_let_in() -> None:
    class Gone:
        def post(self, _: object) -> None:
            """Its end has not been noticed yet."""

    clients: set[WebSocket] = set()
    resumers = Resumers(clients, threading.Lock())
    gone, here = cast(WebSocket, Gone()), cast(WebSocket, Gone())
    with contextlib.closing(ChatLog()) as log:
        for websocket in (gone, here):
            resumers.name(websocket, "")
        resumers.remove(gone)
        resumers.admit([Joined(gone, "0"), Joined(here, "0")], "0-0", log, lambda entries: [])
    assert clients == {here}


class Client:
    """As much of a WebSocket as is posted to; what it can't do raises."""

    peer = "a client"

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.heard: list[object] = []
        self.dropped = False

    def post(self, message: object) -> None:
        self._look_whether_broken("post")
        self.heard.append(message)

    def drop(self, reason: str) -> None:
        self._look_whether_broken("drop")
        self.dropped = True

    def _look_whether_broken(self, name: str) -> None:
        if name in self.broken:
            raise RuntimeError("unforeseen")


def test_client_that_can_not_be_let_in_keeps_nobody_else_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients: set[WebSocket] = set()
    resumers = Resumers(clients, threading.Lock())
    bad, good = cast(WebSocket, Client("post")), cast(WebSocket, Client())
    with contextlib.closing(ChatLog()) as log:
        log.append([("", "", "missed", None)])
        for websocket in (bad, good):
            resumers.name(websocket, "")
        joined = [Joined(bad, "0"), Joined(good, "0")]
        assert resumers.admit(joined, log.newest(), log, lambda entries: ["missed"]) == [bad]
    assert clients == {good}
    assert [bool(each.exc_info) for each in caplog.records] == [True]


def test_client_that_can_not_be_told_an_event_keeps_it_from_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients: set[WebSocket] = set()
    resumers = Resumers(clients, threading.Lock())
    people = [Client("post"), Client("post", "drop"), Client(), Client()]
    for each in people:
        resumers.name(cast(WebSocket, each), "")
        clients.add(cast(WebSocket, each))
    resumers.tell("{}")
    assert [len(each.heard) for each in people] == [0, 0, 1, 1]
    assert [each.dropped for each in people] == [True, False, False, False]
    assert len(caplog.records) == 3


def test_client_that_left_is_counted_no_more_and_named_no_more() -> None:
    clients: set[WebSocket] = set()
    resumers = Resumers(clients, threading.Lock())
    plain, other = cast(WebSocket, Client()), cast(WebSocket, Client())
    resumers.enter(plain)
    resumers.name(other, "Ada")
    clients.add(other)
    for websocket in (plain, other):
        resumers.remove(websocket)
        assert websocket not in clients
        assert websocket not in resumers


# Keys


def test_message_that_is_resent_is_shown_once_and_its_copy_comes_back_to_its_sender(
    server: Program,
) -> None:
    with server.join() as ada, server.join() as bob:
        say(ada, "once", key="k")
        copy = hear(ada)
        assert copy["key"] == "k"
        assert hear(bob) == copy
    with resume(server, copy["id"]) as ada, server.join() as bob:
        say(ada, "once", key="k")
        assert hear_said(ada) == copy
        say(ada, "next", key="l")
        assert hear_said(ada)["message"] == hear(bob)["message"] == "next"
        say(bob, "once more, by another", key="k")
        assert hear(bob) == copy
        say(bob, "last")
        assert hear_said(ada)["message"] == hear(bob)["message"] == "last"


def test_sender_that_lost_its_copy_finds_it_when_it_resumes_and_may_resend(
    server: Program,
) -> None:
    since = tell(server, 1)[0]["id"]
    with server.join() as bob:
        with resume(server, since) as ada:
            say(ada, "is it there?", key="lost copy")
            copy = hear(bob)
        with resume(server, since) as ada:
            say(ada, "is it there?", key="lost copy")
            assert [hear_said(ada) for _ in range(2)] == [copy] * 2
            say(ada, "next")
            assert hear_said(ada)["message"] == hear(bob)["message"] == "next"


def test_sender_whose_copy_lies_in_a_gap_gets_it_all_the_same() -> None:
    with chat() as server:
        with server.join() as ada:
            say(ada, "long ago", key="in the gap")
            copy = hear(ada)
        told = tell(server, RESUMED + 1)
        with resume(server, "0") as ada:
            assert hear_said(ada) == {"event": "gap"}
            assert hear_all_said(ada, RESUMED) == told[1:]
            say(ada, "long ago", key="in the gap")
            assert hear_said(ada) == copy
            assert_here(ada)


def test_key_that_comes_many_times_at_once_from_many_is_shown_once(server: Program) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.join()) for _ in range(5)]
        message = json.dumps({"message": "the one", "key": "many times"}).encode()
        for peer in peers:
            peer.send(masked(0x81, message) * 50)
        heard = [[hear(peer) for _ in range(50)] for peer in peers]
        copies = {json.dumps(message) for each in heard for message in each}
        assert len(copies) == 1
        total = 5 * 50 - 1 + 5  # one for each that said it again, and one for all who are here
        more = total - 5 * 50
        for peer in peers:
            say(peer, "next")
        rest = [hear_until_next(peer, len(peers)) for peer in peers]
        assert sum(map(len, rest)) == more
        assert all(message["message"] == "the one" for each in rest for message in each)


def hear_until_next(peer: Peer, times: int) -> list[dict[str, Any]]:
    """What is heard besides so many "next"."""
    others = []
    while times:
        heard = hear(peer)
        if heard["message"] == "next":
            times -= 1
        else:
            others.append(heard)
    return others


@pytest.mark.parametrize("target", ["/ws", "/ws?since=9999999999999"])
def test_key_of_more_than_64_characters_is_closed_with_1008(server: Program, target: str) -> None:
    with server.join(target) as ada:
        say(ada, "too long a key", key="k" * 65)
        while (frame := ada.read_frame())[0] == 0x81:
            pass
        assert frame[0] == 0x88
        assert frame[1][:2] == b"\x03\xf0"
        assert b"64" in frame[1]


# Who is here


def test_client_that_tells_its_name_is_named_to_those_who_resume() -> None:
    with chat() as server, resume(server) as ada, resume(server) as bob:
        join(ada, "Ada")
        join(bob, "Bob")
        for peer in (ada, bob):
            event = hear_online(peer, lambda event: len(event["usernames"]) == 2)
            assert event == {"event": "online", "count": 2, "usernames": ["Ada", "Bob"]}
        join(bob, "Robert 你好")
        event = hear_online(ada, lambda event: "Bob" not in event["usernames"])
        assert event == {"event": "online", "count": 2, "usernames": ["Ada", "Robert 你好"]}
        leave_reading(bob)
        event = hear_online(ada, lambda event: event["count"] == 1)
        assert event == {"event": "online", "count": 1, "usernames": ["Ada"]}


def test_client_that_vanishes_is_here_no_more() -> None:
    with chat() as server, resume(server) as ada:
        with resume(server) as bob:
            join(bob, "Bob")
            hear_online(ada, lambda event: event["usernames"] == ["Bob"])
        assert hear_online(ada, lambda event: not event["usernames"])["count"] == 1


def test_join_is_neither_logged_nor_shown() -> None:
    with chat() as server, server.join() as plain, resume(server) as ada:
        join(ada, "Ada")
        say(ada, "after")
        assert hear(plain)["message"] == hear_said(ada)["message"] == "after"
        with resume(server) as bob:
            assert hear_said(bob)["message"] == "after"


def test_everyone_is_counted_but_only_names_that_were_told_are_named() -> None:
    with chat() as server, server.join(), resume(server) as ada, resume(server) as bob:
        join(ada, "Ada")
        join(bob, "Ada")
        with resume(server):
            event = hear_online(ada, lambda event: event["count"] == 4)
        assert event["usernames"] == ["Ada"]


def test_plain_client_that_comes_and_goes_is_told_though_nobody_else_does() -> None:
    with chat() as server, resume(server) as ada:
        hear_online(ada, lambda event: event["count"] == 1)
        with server.join() as plain:
            hear_online(ada, lambda event: event["count"] == 2)
            leave(plain)
        hear_online(ada, lambda event: event["count"] == 1)


def test_at_most_50_names_are_told() -> None:
    with chat() as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(resume(server)) for _ in range(60)]
        for number, peer in enumerate(peers):
            join(peer, f"guest {number:02}")
        event = hear_online(
            peers[0], lambda event: event["count"] == 60 and "guest 49" in event["usernames"]
        )
        assert event["usernames"] == [f"guest {number:02}" for number in range(50)]


def test_name_as_long_as_it_may_be_is_told_whole(server: Program) -> None:
    with resume(server, "9999999999999") as ada:
        join(ada, "好" * 64)
        event = hear_online(ada, lambda event: event["usernames"])
        assert event["usernames"] == ["好" * 64]


@pytest.mark.parametrize("event", ["join", "ping", "message"])
def test_name_with_one_character_too_many_is_closed_with_1008(server: Program, event: str) -> None:
    with resume(server, "9999999999999") as ada:
        ada.send(masked(0x81, json.dumps({"event": event, "username": "n" * 65}).encode()))
        while (frame := ada.read_frame())[0] == 0x81:
            pass
        assert frame == (0x88, b"\x03\xf0username has more than 64 characters")


# Whether the server is there


def test_ping_is_answered_at_once_to_who_sent_it_and_to_nobody_else() -> None:
    with chat("--rate", "1") as server, server.join() as plain, resume(server) as bob:
        with resume(server) as ada:
            hear_online(ada, lambda event: event["count"] == 3)
            hear_online(bob, lambda event: event["count"] == 3)
            for _ in range(3):
                ada.send(masked(0x81, b'{"event": "ping"}'))
                assert ada.read_frame() == (0x81, b'{"event":"pong"}')
            assert_here(bob)
            say(plain, "hello")
            assert hear(plain)["message"] == hear_said(bob)["message"] == "hello"
            assert hear_said(ada)["message"] == "hello"


def test_events_for_the_server_slow_no_message_down() -> None:
    """At this rate whatever counts is followed by a pause of more than a minute."""
    with chat("--rate", "0.01") as server, resume(server) as ada:
        for _ in range(5):
            join(ada, "Ada")
            ada.send(masked(0x81, b'{"event": "ping"}'))
        say(ada, "the first")
        heard = [hear_said(ada) for _ in range(6)]
        assert heard[:5] == [{"event": "pong"}] * 5
        assert heard[5]["message"] == "the first"


def test_ping_from_a_plain_client_is_a_message_as_in_the_original(server: Program) -> None:
    with server.join() as ada:
        ada.send(masked(0x81, b'{"event": "ping"}'))
        assert hear(ada)["message"] == ""


def test_event_is_none_of_the_original_and_has_one_spelling(server: Program) -> None:
    since = tell(server, 1)[0]["id"]
    with resume(server, since) as ada:
        ada.send(masked(0x81, b'{"Event": "ping", "message": "a message"}'))
        assert hear_said(ada)["message"] == "a message"


def test_pings_of_a_client_that_is_slowed_lose_nothing() -> None:
    with chat("--rate", "20") as server, resume(server) as ada:
        for number in range(70):
            ada.send(masked(0x81, b'{"event": "ping"}'))
            say(ada, str(number))
        heard = [hear_said(ada) for _ in range(140)]
        said = [each["message"] for each in heard if "message" in each]
        assert said == list(map(str, range(70)))
        assert heard.count({"event": "pong"}) == 70


def test_name_that_is_no_text_is_closed_with_1008(server: Program) -> None:
    with resume(server, "9999999999999") as ada:
        ada.send(masked(0x81, b'{"event": "join", "username": 7}'))
        while (frame := ada.read_frame())[0] == 0x81:
            pass
        assert frame[1][:2] == b"\x03\xf0"


def test_however_many_come_and_go_the_others_are_told_at_most_once_a_second() -> None:
    events = 0
    with chat() as server, resume(server) as witness:
        begin = time.monotonic()
        comings = 0
        while comings < 150:
            with contextlib.ExitStack() as stack:
                for _ in range(10):
                    comings += 1
                    join(stack.enter_context(resume(server)), f"guest {comings}")
        with resume(server) as last:
            join(last, "the last")
            while True:
                events += 1
                event = hear_online(witness, lambda event: True)
                if event["usernames"] == ["the last"] and event["count"] == 2:
                    break
        assert events <= time.monotonic() - begin + 1


def test_all_who_come_back_to_a_chat_that_forgot_everything_are_told_who_is_here() -> None:
    with chat() as server:
        last = tell(server, 3)[-1]["id"]
    with chat() as server, resume(server, last) as ada:
        assert hear(ada) == {"event": "gap"}
        hear_online(ada, lambda event: event["count"] == 1)
        with resume(server, last) as bob:
            assert hear_online(bob, lambda event: True)["count"] == 2
            say(bob, "hello")
            assert hear_said(ada)["message"] == hear_said(bob)["message"] == "hello"


# The history in a file


def test_history_is_there_after_a_restart_and_its_ids_go_on_rising(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    for start in (0, 10):
        with chat("--history", str(tmp_path / "history")) as server:
            with resume(server) as bob:
                assert hear_all_said(bob, start) == told
                told += tell(server, 10, start=start)
                assert hear_all_said(bob, 10) == told[start:]
            with resume(server, told[4]["id"]) as bob:
                assert hear_all_said(bob, start + 5) == told[5:]
    assert_rising(ids(told))


def test_key_is_known_after_a_restart(tmp_path: Path) -> None:
    for start in ("first", "second"):
        with chat("--history", str(tmp_path / "history")) as server, server.join() as ada:
            say(ada, "once", key="k")
            say(ada, f"{start} end")
            assert {hear(ada)["message"], hear(ada)["message"]} == {f"{start} end", "once"}
            assert_here(ada)


def test_nothing_that_was_heard_is_gone_after_a_kill(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    for start in (0, 30):
        program = Program("chat_server.py", "--rate", "0", "--history", str(tmp_path / "history"))
        try:
            with resume(program) as bob:
                assert hear_all_said(bob, start) == told
                for number in range(30):
                    say(bob, str(number))
                told += hear_all_said(bob, 30)
        finally:
            program.discard()  # by SIGKILL
    with chat("--history", str(tmp_path / "history")) as server, resume(server) as bob:
        assert hear_all_said(bob, 60) == told
    assert_rising(ids(told))


def test_history_in_memory_leaves_no_file(tmp_path: Path) -> None:
    with chat(cwd=tmp_path) as server:
        tell(server, 3)
        assert list(tmp_path.iterdir()) == []


def test_history_may_be_a_relative_path(tmp_path: Path) -> None:
    with chat("--history", "our history", cwd=tmp_path) as server:
        told = tell(server, 3)
    assert (tmp_path / "our history").is_file()
    with (
        chat("--history", str(tmp_path / "our history")) as server,
        resume(server) as bob,
    ):
        assert hear_all_said(bob, 3) == told


def notes(path: Path) -> None:
    path.write_text("What I did on my holidays\n" * 100)


def other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE books (title)")


def half_a_log(path: Path) -> None:
    with contextlib.closing(ChatLog(str(path))) as log:
        log.append([("", "", "x" * 500, None)] * 1000)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


@pytest.mark.parametrize("make", [notes, other_database, half_a_log, Path.mkdir])
def test_file_that_is_no_log_ends_it_with_one_clear_line(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "history"
    make(path)
    content = path.read_bytes() if path.is_file() else None
    assert_refused(path)
    assert (path.read_bytes() if path.is_file() else None) == content


def test_file_in_a_directory_that_is_not_there_ends_it_with_one_clear_line(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere" / "history")


def test_file_in_use_by_another_chat_ends_it_with_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with chat("--history", str(path)) as server, server.join() as ada:
        assert_refused(path)
        say(ada, "still here")
        assert hear(ada)["message"] == "still here"


def assert_refused(path: Path) -> None:
    ended = run("chat_server.py", "--port", "0", "--history", str(path))
    assert ended.returncode == 1
    assert ended.stdout == b""
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == 1
    assert "cannot keep the log" in lines[0]
    assert str(path) in lines[0]


# A disk that is full


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Program]:
    """A chat that has said "0", "1", "2" and can write no further. See `make_room`."""
    require(hasattr(resource, "prlimit"), "prlimit", "only Linux has it")
    with chat("--history", str(tmp_path / "history")) as server:
        tell(server, 3)
        written = max(path.stat().st_size for path in tmp_path.iterdir())
        limit_files(server, written)
        yield server
        make_room(server)


def limit_files(server: Program, size: int) -> None:
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def make_room(server: Program) -> None:
    limit_files(server, resource.RLIM_INFINITY)


def test_sender_whose_message_cannot_be_logged_is_told_with_1011(full_disk: Program) -> None:
    with full_disk.join() as ada:
        name = name_of(ada)
        say(ada, "x" * 30_000)
        code, reason = answer_close(ada)
        assert code == 1011
        assert "logged" in reason
        (line,) = eventually(
            lambda: [line for line in full_disk.log.splitlines() if "log failed" in line]
        )
        assert name in line
        assert "disk" in line


def test_nothing_unlogged_is_shown_to_anyone_and_all_goes_on_when_there_is_room(
    full_disk: Program,
) -> None:
    with full_disk.join() as plain, resume(full_disk) as bob:
        told = hear_all_said(bob, 3)
        for number in range(3):
            with full_disk.join() as ada:
                say(ada, "x" * 30_000, key=f"k{number}")
                assert answer_close(ada)[0] == 1011
        with resume(full_disk) as eve:
            assert hear_all_said(eve, 3) == told
        make_room(full_disk)
        with full_disk.join() as ada:
            say(ada, "x" * 30_000, key="k1")
            copy = hear(ada)
            assert copy["key"] == "k1"
        assert hear(plain) == hear_said(bob) == copy
        with resume(full_disk) as eve:
            assert hear_all_said(eve, 4) == [*told, copy]


def test_full_disk_costs_nobody_the_connection_who_says_nothing(full_disk: Program) -> None:
    with full_disk.join() as plain, resume(full_disk) as bob:
        hear_all_said(bob, 3)
        with full_disk.join() as ada:
            say(ada, "x" * 30_000)
            assert answer_close(ada)[0] == 1011
        for peer in (plain, bob):
            assert_here(peer)


# The end


def test_all_that_was_acknowledged_before_the_end_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history"
    count = 5_000
    with chat("--history", str(path)) as server, server.join() as ada:
        frames = [
            masked(0x81, json.dumps({"message": "x", "key": str(number)}).encode())
            for number in range(count)
        ]

        def talk() -> None:
            with contextlib.suppress(OSError):  # it ends in the middle
                ada.send(b"".join(frames))

        talker = threading.Thread(target=talk)
        talker.start()
        heard = [hear(ada) for _ in range(10)]
        server.signal()
        while (frame := ada.read_frame())[0] == 0x81:
            heard.append(json.loads(frame[1]))
        ada.sock.shutdown(socket.SHUT_RDWR)
        talker.join(PATIENCE)
        assert server.wait() == 0
        assert "Traceback" not in server.log
    with contextlib.closing(ChatLog(str(path))) as log:
        entries = [entry for page in pages(log, "0") for entry in page.entries]
    logged = [(message_id, fields[3]) for message_id, fields in entries]
    acknowledged = [(message["id"], message["key"]) for message in heard]
    assert acknowledged == logged[: len(acknowledged)]
    assert [key for _, key in logged] == [str(number) for number in range(len(logged))]


# kill -9, again and again; `python3 tests/kills.py` does it at length


def test_nothing_is_lost_or_doubled_while_the_server_is_killed_again_and_again(
    tmp_path: Path,
) -> None:
    trial = kills.Trial(kills=3, messages=900, patience=50, seed=6455)
    with kills.OnFile(tmp_path) as scene:
        trial.run(scene)
    assert not trial.faults, trial.summary()
    assert trial.struck["server"] == 3
    assert order(trial.people[0].heard[0][0]) > (0, 0)

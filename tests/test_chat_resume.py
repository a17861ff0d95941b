"""Coming back: clients that resume with `since`, and send again by key.

The clients are bare sockets. What is missed, by whom, is decided by the order in which they hear
of things, never by the time that passes.
"""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chat.history import SqliteHistory
from chat.presence import Presence
from chat.resume import Resuming, admit
from chatting import (
    RESUMED,
    assert_here,
    hear,
    hear_all_said,
    hear_online,
    hear_said,
    hear_until,
    ids,
    leave_reading,
    names_in,
    read_close_past_messages,
    restless_environment,
    resume,
    say,
    tell,
    tell_name,
)
from guests import guests
from histories import Said, assert_rising
from peers import Peer, eventually, masked, request
from programs import Program, chat, name_of
from rfc6455 import WebSocket

# Plain /ws


def test_plain_client_gets_no_history_and_no_events_beside_those_who_do() -> None:
    with chat() as server:
        tell(server, 3)
        with server.join() as plain, resume(server) as bob:
            hear_all_said(bob, 3)
            tell_name(bob, "Bob")
            hear_online(bob, lambda event: names_in(event) == ["Bob"] and event["count"] == 2)
            say(bob, "hello")
            assert hear(plain)["message"] == "hello"


def test_join_from_a_plain_client_is_a_message_as_in_the_original() -> None:
    with chat() as server, server.join() as ada:
        tell_name(ada, "Ada")
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
def test_client_that_comes_for_the_first_time_gets_everything(since: str) -> None:
    with chat() as server:
        told = tell(server, 3)
        with resume(server, since) as bob:
            assert hear_all_said(bob, 3) == told


@pytest.mark.parametrize("since", ["1", "1-5", "1700000000000-0", "0-9999999999999999999"])
def test_id_from_before_a_chat_in_memory_began_gives_a_gap_and_then_everything(since: str) -> None:
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
def test_malformed_since_is_refused_with_400_at_the_handshake(server: Program, since: str) -> None:
    status, text = server.answer(request(server, f"/ws?since={since}"))
    assert status == 400
    assert "is not a message id, such as 1700000000000-0" in text


def test_answer_to_a_malformed_since_quotes_it(server: Program) -> None:
    _, text = server.answer(request(server, "/ws?since=x"))
    assert text.endswith("since='x' is not a message id, such as 1700000000000-0\n")


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


def test_client_that_missed_what_was_deleted_is_told() -> None:
    with chat("--keep", "10") as server:
        told = tell(server, 50)
        with resume(server, told[5]["id"]) as bob:
            assert hear(bob) == {"event": "gap"}
            assert hear_all_said(bob, 10) == told[-10:]
        with resume(server, told[45]["id"]) as bob:
            assert hear_all_said(bob, 4) == told[-4:]


def test_keep_10_keeps_the_newest_10_across_a_restart(tmp_path: Path) -> None:
    options = ("--keep", "10", "--history", str(tmp_path / "history"))
    with chat(*options) as server:
        told = tell(server, 25)
    with chat(*options) as server, resume(server, told[12]["id"]) as bob:
        assert hear(bob) == {"event": "gap"}
        assert hear_all_said(bob, 10) == told[-10:]


# Joining races with talking


def test_clients_that_come_and_go_while_others_talk_hear_everything_once_and_in_order(
    tmp_path: Path,
) -> None:
    """Fewer than 500 messages in all, so that nobody may be told of a gap."""
    talkers, each, resuming = 3, 150, 8

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
        chat(env=restless_environment(tmp_path)) as room,
        resume(room) as witness,
        ThreadPoolExecutor(talkers + resuming) as pool,
    ):
        talking = [pool.submit(talk, number) for number in range(talkers)]
        coming = [pool.submit(come_and_go, number) for number in range(resuming)]
        all_ids = ids(hear_all_said(witness, talkers * each))
        say(witness, "end")
        all_ids += ids(hear_until(witness, "end"))
        assert len(all_ids) == talkers * each + 1
        assert_rising(all_ids)
        for client in coming:
            assert client.result() == all_ids
        for talker in talking:
            talker.result()


@pytest.fixture
def long_history(tmp_path: Path) -> Path:
    """10 MB, more than the kernel takes for a client that does not read."""
    with contextlib.closing(SqliteHistory(str(tmp_path / "long history"))) as history:
        history.append([Said(str(number).ljust(20_000, ".")) for number in range(500)])
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


@pytest.mark.parametrize("last", [0, 1, 3, 4, 6, 8])
def test_client_that_is_admitted_gets_every_page_up_to_what_all_others_have(last: int) -> None:
    clients: set[WebSocket] = set()
    presence = Presence(clients, threading.Lock())
    with contextlib.closing(SqliteHistory()) as history, guests(1) as (ada,):
        # Three of these fill a page.
        appended = history.append([Said(str(number).ljust(50_000, ".")) for number in range(9)])
        message_ids = [each.message_id for each in appended]
        presence.expect(ada.websocket)
        resuming = Resuming(ada.websocket, message_ids[0])
        admit(resuming, message_ids[last], history, presence, hide_emails=False)
        ada.websocket.post('{"id":"end"}')
        heard = [hear(ada.peer)["id"]]
        while heard[-1] != "end":
            heard.append(hear(ada.peer)["id"])
        assert heard == [*message_ids[1 : last + 1], "end"]
        assert clients == {ada.websocket}


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


def test_sender_gets_its_copy_even_if_it_lies_in_a_gap() -> None:
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
        _, close = read_close_past_messages(ada)
        assert close.payload[:2] == b"\x03\xf0"
        assert b"64" in close.payload

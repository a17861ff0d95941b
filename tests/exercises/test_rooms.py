"""The second exercise of docs/how-it-works.md: rooms, each with its own people and its own past."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from chatting import (
    assert_here,
    hear,
    hear_online,
    hear_said,
    hear_texts,
    names_in,
    request_ws,
    say,
    tell_name,
)
from programs import Program

PROGRAM = "chat_server.py"
OPTIONS = ("--rate", "0")
SOLUTION = "rooms.py"


def test_message_reaches_everyone_in_its_room_and_its_sender(server: Program) -> None:
    with server.join("/ws?room=tea") as ada, server.join("/ws?room=tea") as bob:
        say(ada, "green or black?")
        assert [hear(each)["message"] for each in (ada, bob)] == ["green or black?"] * 2


def test_message_reaches_nobody_in_another_room(server: Program) -> None:
    with server.join("/ws?room=tea") as ada, server.join("/ws?room=coffee") as carl:
        say(ada, "green")
        assert hear(ada)["message"] == "green"
        assert_here(carl)
        say(carl, "espresso")
        assert hear(carl)["message"] == "espresso"
        assert_here(ada)


def test_client_of_the_original_is_in_a_room_without_a_name(server: Program) -> None:
    with server.join() as dora, server.join() as emil, server.join("/ws?room=tea") as ada:
        say(ada, "green")
        assert hear(ada)["message"] == "green"
        say(dora, "hello")
        assert [hear(each)["message"] for each in (dora, emil)] == ["hello"] * 2
        assert_here(ada)


def test_newcomer_gets_the_past_of_the_room_and_no_other(server: Program) -> None:
    with server.join("/ws?room=past") as ada, server.join("/ws?room=other") as carl:
        for number in range(3):
            say(ada, f"{number}")
            say(carl, "elsewhere")
            assert hear(ada)["message"] == f"{number}"
            assert hear(carl)["message"] == "elsewhere"
        with server.join("/ws?room=past&since=0") as newcomer:
            assert [hear_said(newcomer)["message"] for _ in range(3)] == ["0", "1", "2"]
            assert_here(newcomer)


def test_client_that_comes_back_to_its_room_gets_what_it_missed_there(server: Program) -> None:
    with server.join("/ws?room=back") as ada:
        say(ada, "seen")
        seen = hear(ada)["id"]
        say(ada, "missed")
        assert hear(ada)["message"] == "missed"
        with server.join(f"/ws?room=back&since={seen}") as bob:
            assert hear_said(bob)["message"] == "missed"
            say(ada, "and on")
            assert hear_said(bob)["message"] == "and on"


def test_online_names_only_those_in_the_same_room(server: Program) -> None:
    with (
        server.join("/ws?room=here&since=0") as ada,
        server.join("/ws?room=here&since=0") as bob,
        server.join("/ws?room=there&since=0") as carl,
    ):
        for peer, name in ((carl, "Carl"), (bob, "Bob"), (ada, "Ada")):
            tell_name(peer, name)
        event = hear_online(ada, lambda event: len(event["people"]) == 2 or event["count"] > 2)
        assert (event["count"], names_in(event)) == (2, ["Ada", "Bob"])


def test_many_who_open_a_room_at_once_are_all_in_it(server: Program) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        peers = list(pool.map(lambda _: server.join("/ws?room=opened-at-once"), range(8)))
        for peer in peers:
            stack.enter_context(peer)
        say(peers[0], "all here?")
        assert [hear_texts(peer, 1) for peer in peers] == [["all here?"]] * 8


@pytest.mark.parametrize("name", ["", "two%20words", "..%2Fsecret", "t%C3%A9", "x" * 33])
def test_bad_name_of_a_room_is_refused_with_400(server: Program, name: str) -> None:
    with server.tcp() as peer:
        peer.send(request_ws(server, f"/ws?room={name}"))
        assert peer.read_head().startswith("HTTP/1.1 400 ")
        assert b"room" in peer.read_to_eof()


@pytest.mark.parametrize("name", ["x" * 32, "Tea-Room_7"])
def test_letters_digits_dash_and_underscore_make_a_name(server: Program, name: str) -> None:
    with server.join(f"/ws?room={name}") as ada:
        say(ada, "hello")
        assert hear(ada)["message"] == "hello"

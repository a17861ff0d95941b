"""The first exercise of docs/how-it-works.md: who is typing is told to the others."""

import json

import pytest

from chatting import (
    assert_here,
    hear,
    hear_online,
    hear_said,
    introduce,
    names_in,
    resume,
    say,
    text_frame,
)
from peers import Peer
from programs import Program

PROGRAM = "chat_server.py"
OPTIONS = ("--rate", "0")
SOLUTION = "typing_notices.py"

TYPING = text_frame('{"event": "typing"}')
# The avatar is the SHA-256 of ada@example.org, as in her messages.
ADA_TYPES = {
    "event": "typing",
    "username": "Ada",
    "avatar": "cfe00dde46ef942601ffafb9e2825e802858b460e586b8305b344c1eb826357d",
}


def join_as(server: Program, username: str) -> Peer:
    """A client that can resume, and has told its name."""
    peer = resume(server)
    introduce(peer, username=username, email=f"{username.lower()}@example.org")
    hear_online(peer, lambda event: username in names_in(event))
    return peer


def test_others_are_told_with_the_name_and_avatar_of_who_types(server: Program) -> None:
    with join_as(server, "Ada") as ada, join_as(server, "Bob") as bob:
        ada.send(TYPING)
        assert hear_said(bob) == ADA_TYPES


def test_who_types_is_not_told_so_herself(server: Program) -> None:
    with join_as(server, "Ada") as ada, join_as(server, "Bob") as bob:
        ada.send(TYPING)
        assert hear_said(bob) == ADA_TYPES
        assert_here(ada)


def test_client_of_the_original_is_told_nothing(server: Program) -> None:
    with server.join() as carl, join_as(server, "Ada") as ada, join_as(server, "Bob") as bob:
        ada.send(TYPING)
        assert hear_said(bob) == ADA_TYPES
        say(ada, "done")
        assert hear(carl)["message"] == "done"


def test_what_a_client_of_the_original_sends_is_a_message_all_the_same(server: Program) -> None:
    with server.join() as carl:
        carl.send(text_frame('{"event": "typing", "message": "for all"}'))
        assert hear(carl)["message"] == "for all"


def test_it_is_not_in_the_history(server: Program) -> None:
    with join_as(server, "Ada") as ada, join_as(server, "Bob") as bob:
        say(ada, "before")
        newest = hear_said(bob)["id"]
        ada.send(TYPING)
        assert hear_said(bob) == ADA_TYPES
        with resume(server, newest) as newcomer:
            assert_here(newcomer)


def test_who_has_told_no_name_is_not_announced(server: Program) -> None:
    with resume(server) as nameless, join_as(server, "Bob") as bob:
        nameless.send(TYPING)
        say(nameless, "I am nobody")
        assert hear_said(bob)["message"] == "I am nobody"


@pytest.mark.parametrize("event", ["ping", "join", "older"])
def test_other_events_are_what_they_were(server: Program, event: str) -> None:
    with join_as(server, "Ada") as ada:
        ada.send(text_frame(json.dumps({"event": event, "before": "1-0", "username": "Ada"})))
        if event != "join":
            assert hear_said(ada)["event"] in ("pong", "older")
        assert_here(ada)

"""A message has to be done in time, from its first frame to its last, as far as we wait for it."""

import itertools
import logging
import threading
import time

import pytest

from pairs import CALM, Pair, connected_pair
from peers import PATIENCE, eventually
from protocols import both_roles
from tls import Certificate

IMPATIENT = CALM._replace(message_timeout=0.4, close_timeout=1.0)
TOO_LONG = "the message took over 0.4 s and a second for each 16384 bytes"
TOO_LONG_CLOSE = (0x88, b"\x03\xf0" + TOO_LONG.encode())  # 1008


def trickle(pair: Pair, first: bytes, piece: bytes) -> None:
    """Send this, and then the piece again and again until something comes from the endpoint."""
    pair.peer.send(first)
    started = time.monotonic()
    while pair.peer.is_silent(0.05):
        pair.peer.send(piece)
        assert time.monotonic() < started + PATIENCE


@both_roles
@pytest.mark.parametrize(
    "opcode", [0x02, 0x82, 0x89], ids=["in fragments", "in one frame", "a ping"]
)
def test_message_that_trickles_is_ended_with_a_close_that_says_why(
    role: str, opcode: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with connected_pair(role, timeouts=IMPATIENT) as pair:
        if opcode == 0x02:
            trickle(pair, pair.frame(0x02, b"x"), pair.frame(0x00, b"x"))
        else:
            trickle(pair, pair.frame(opcode, bytes(125))[:10], b"x")
        assert pair.read_frame() == TOO_LONG_CLOSE
        pair.raised()  # the Close is not answered, and TCP ends all the same
        assert pair.remaining_messages() == []
    assert f"failed with 1008 '{TOO_LONG}'" in caplog.text


@both_roles
def test_header_that_stops_coming_is_ended(role: str) -> None:
    with connected_pair(role, timeouts=IMPATIENT) as pair:
        pair.peer.send(pair.frame(0x82, bytes(200))[:1])
        assert pair.read_frame() == TOO_LONG_CLOSE
        pair.raised()


@both_roles
def test_message_that_stops_coming_is_ended_though_the_clock_had_planned_no_check(
    role: str,
) -> None:
    with connected_pair(role, timeouts=IMPATIENT) as pair:
        # While the handler waits for a message, the next check is the one before a ping.
        eventually(lambda: pair.websocket._stream._entry.when > time.monotonic() + 2 * PATIENCE)
        pair.say(0x01, b"x")
        assert pair.read_frame() == TOO_LONG_CLOSE
        pair.raised()


def test_message_that_stops_coming_over_tls_is_ended(certificate: Certificate) -> None:
    with connected_pair("server", timeouts=IMPATIENT, certificate=certificate) as pair:
        pair.say(0x01, b"x")
        assert pair.read_frame() == TOO_LONG_CLOSE
        pair.raised()


@both_roles
def test_peer_whose_message_took_too_long_may_answer_the_close(role: str) -> None:
    with connected_pair(role, timeouts=IMPATIENT._replace(close_timeout=PATIENCE)) as pair:
        pair.say(0x02, b"x")
        assert pair.read_frame() == TOO_LONG_CLOSE
        pair.say(0x88, b"\x03\xf0")
        pair.read_eof()
        assert pair.raised().code == 1008


@both_roles
def test_each_message_has_the_whole_time_and_none_runs_between_them(role: str) -> None:
    """Each is in time, and all together take longer than one may."""
    with connected_pair(role, timeouts=CALM._replace(message_timeout=1.0)) as pair:
        started = time.monotonic()
        for number in itertools.count():
            pair.say(0x01, b"a")
            assert pair.peer.is_silent(0.15)
            pair.say(0x89, b"")
            assert pair.read_frame() == (0x8A, b"")
            pair.say(0x80, str(number).encode())
            assert pair.take() == f"a{number}"
            if time.monotonic() > started + 1.5:
                break
        assert pair.peer.is_silent(1.2)
        pair.say_goodbye()


@both_roles
def test_time_in_which_the_handler_does_not_receive_does_not_count(role: str) -> None:
    """It receives for a while, then does something else for longer than the message may take."""
    gave_up = threading.Event()
    go_on = threading.Event()

    def pause(pair: Pair) -> None:
        pair.messages.put(pair.websocket.receive(0.1))
        gave_up.set()
        assert go_on.wait(PATIENCE)
        while True:
            pair.messages.put(pair.websocket.receive())

    with connected_pair(role, pause, timeouts=CALM._replace(message_timeout=1.0)) as pair:
        pair.say(0x01, b"half, ")
        assert gave_up.wait(PATIENCE)
        assert pair.take() is None
        assert pair.peer.is_silent(1.3)
        go_on.set()
        assert pair.peer.is_silent(0.2)
        pair.say(0x80, b"and half")
        assert pair.take() == "half, and half"
        pair.say_goodbye()


@both_roles
def test_time_that_a_handler_spends_in_many_short_waits_counts_together(role: str) -> None:
    def poll(pair: Pair) -> None:
        while True:
            message = pair.websocket.receive(0.05)
            if message is not None:
                pair.messages.put(message)

    with connected_pair(role, poll, timeouts=IMPATIENT) as pair:
        pair.say(0x02, b"x")
        assert pair.read_frame() == TOO_LONG_CLOSE
        pair.raised()


def test_message_of_which_more_has_come_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that a peer may take a second for are few here, so that the message need not be
    long.
    """
    monkeypatch.setattr("rfc6455.keepalive.SLOWEST_PEER", 100)
    with connected_pair("server", timeouts=CALM._replace(message_timeout=0.3)) as pair:
        pair.say(0x02, bytes(100_000))
        assert pair.peer.is_silent(1.0)
        pair.say(0x80)
        assert pair.take() == bytes(100_000)
        pair.say_goodbye()

"""Handlers that are busy or never receive, and peers that are silent or slow, over loopback.

While a handler does not receive, the clock reads for it: the peer's Pings and its Close are
answered, within a bound. A peer that is silent is pinged and then dropped, and one that is slow is
kept. When which peer is pinged is in `test_keepalive`, without a socket.
"""

import contextlib
import math
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable

import pytest

from pairs import BRISK, CALM, Pair, connected_pair, listen, stand_by
from peers import (
    PATIENCE,
    QUICK,
    Frame,
    Peer,
    RawServer,
    echo_messages,
    eventually,
    response,
    serving,
    tcp,
    unmasked,
)
from programs import chat
from protocols import both_roles
from rfc6455 import ConnectionClosed, State, WebSocket, connect
from rfc6455.clock import clock
from rfc6455.connection import READ_AHEAD
from rfc6455.stream import Stream

MIB = 1 << 20


# A handler that is busy


@both_roles
@pytest.mark.requirement("5.5.2-3")
def test_clock_reads_for_a_busy_handler_until_nothing_is_left_and_never_waits(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected_pair(role, stand_by, timeouts=CALM) as pair:
        clock.forget(pair.websocket._stream._entry)  # the test does what the clock would do
        arriving = [pair.frame(0x89, b"a"), pair.frame(0x89, b"b")]
        timeouts: list[float | None] = []

        def read(stream: Stream, size: int, timeout: float | None = None) -> bytes | None:
            timeouts.append(timeout)
            return arriving.pop(0) if arriving else None

        with monkeypatch.context() as patch:
            patch.setattr(Stream, "read", read)
            pair.websocket._check(time.monotonic())
        assert timeouts == [0, 0, 0]
        assert [pair.read_frame(), pair.read_frame()] == [(0x8A, b"a"), (0x8A, b"b")]


@both_roles
@pytest.mark.requirement("5.5.2-3")
@pytest.mark.parametrize("ping_timeout", [600.0, math.inf])
def test_busy_handlers_peer_has_its_pong_soon_however_patient_this_side_is(
    role: str, ping_timeout: float
) -> None:
    timeouts = CALM._replace(ping_interval=600.0, ping_timeout=ping_timeout)
    with connected_pair(role, stand_by, timeouts=timeouts) as pair:
        pair.say(0x81, b"waits")
        pair.say(0x89, b"p")
        assert pair.read_frame() == (0x8A, b"p")


def too_many(pair: Pair, first: int) -> bytes:
    """Control frames that the two reads which come first leave five KiB of, and a message."""
    frame = pair.frame(first)
    return frame * ((1024 + 65536 + 5 * 1024) // len(frame)) + pair.frame(0x81, b"behind them")


@both_roles
@pytest.mark.parametrize("first", [0x89, 0x8A])
def test_peer_that_sends_control_frames_without_end_is_slowed_and_loses_nothing(
    role: str, first: int
) -> None:
    with connected_pair(role, listen, timeouts=CALM) as pair:
        begin = time.monotonic()
        pair.peer.send(too_many(pair, first))
        assert pair.take() == "behind them"
        assert time.monotonic() - begin > 1.0  # seconds; 0.25 for each of the five KiB


@both_roles
def test_timeout_of_receive_holds_while_the_peer_is_slowed(role: str) -> None:
    with connected_pair(role, stand_by, timeouts=CALM) as pair:
        pair.peer.send(too_many(pair, 0x8A))
        assert pair.websocket.receive(0.3) is None
        assert pair.websocket.receive(0) is None
        assert pair.websocket.receive(PATIENCE) == "behind them"


@both_roles
@pytest.mark.requirement("5.5.2-3")
@pytest.mark.parametrize("waiting", [1, 2, 500])
def test_ping_behind_messages_that_wait_is_answered_while_the_handler_is_busy(
    role: str, waiting: int
) -> None:
    texts = [f"message {i}" for i in range(waiting)]
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        pair.peer.send(b"".join(pair.frame(0x81, text.encode()) for text in texts))
        pair.say(0x89, b"p")
        assert pair.read_frame() == (0x8A, b"p")
        pair.say(0x89, b"q")
        pair.say(0x81, b"last")
        assert pair.read_frame() == (0x8A, b"q")
        received = [pair.websocket.receive(PATIENCE) for _ in range(waiting + 1)]
    assert received == [*texts, "last"]


@both_roles
def test_ping_between_fragments_that_wait_is_answered_while_the_handler_is_busy(role: str) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        pair.say(0x01, b"in ")
        pair.say(0x89, b"p")
        assert pair.read_frame() == (0x8A, b"p")
        pair.say(0x00, b"three ")
        pair.say(0x89, b"q")
        pair.say(0x80, b"parts")
        assert pair.read_frame() == (0x8A, b"q")
        assert pair.websocket.receive(PATIENCE) == "in three parts"


@both_roles
@pytest.mark.requirement("5.5.1-6")
def test_close_behind_messages_that_wait_is_answered_once_they_were_received(role: str) -> None:
    def echo_slowly(pair: Pair) -> None:
        assert pair.leave.wait(60)
        for message in pair.websocket:
            pair.websocket.send(message)

    with connected_pair(role, echo_slowly, timeouts=BRISK) as pair:
        for text in (b"one", b"two"):
            pair.say(0x81, text)
        pair.say(0x88, b"\x03\xe8")
        pair.say(0x89, b"too late for a pong")
        assert pair.peer.is_silent(0.3)
        pair.leave.set()
        assert pair.read_frame() == (0x81, b"one")
        assert pair.read_frame() == (0x81, b"two")
        assert pair.read_close() == (1000, "")


@both_roles
@pytest.mark.requirement("5.5.1-6")
def test_handler_can_answer_the_last_message_before_the_clock_answers_the_close_behind_it(
    role: str,
) -> None:
    """The clock, in whose place the test checks, does so between the two, and once more later."""
    with connected_pair(role, stand_by) as pair:
        websocket = pair.websocket
        websocket._stream.watch(lambda now: math.inf)
        pair.peer.send(pair.frame(0x81, b"question") + pair.frame(0x88, b"\x0f\xa0"))
        assert websocket.receive(PATIENCE) == "question"
        websocket._check(time.monotonic())
        websocket.send("answer")
        assert pair.read_frame() == (0x81, b"answer")
        websocket._check(time.monotonic())
        assert pair.read_frame() == (0x88, b"\x0f\xa0")
        pair.spawn(websocket.close)
        pair.read_eof()


@both_roles
@pytest.mark.requirement("5.5.2-1")
def test_ping_behind_a_close_is_not_answered_though_the_handler_is_busy(role: str) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        pair.peer.send(pair.frame(0x88, b"\x03\xe8") + pair.frame(0x89, b"late") * 3)
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        if role == "client":
            assert pair.peer.is_silent(0.3)
        pair.read_eof()


@both_roles
@pytest.mark.requirement("5.5.2-3", "5.5.1-6")
def test_pings_and_close_are_answered_while_the_handler_only_sends(role: str) -> None:
    def tell(pair: Pair) -> None:
        while not pair.leave.wait(0.01):
            pair.websocket.send("tick")

    def next_control() -> Frame:
        while (frame := pair.read_frame()) == (0x81, b"tick"):
            pass
        return frame

    with connected_pair(role, tell, timeouts=BRISK) as pair:
        for payload in (b"1", b"2", b"3"):
            pair.say(0x89, payload)
            assert next_control() == (0x8A, payload)
        pair.say(0x88, b"\x0f\xa0")
        assert next_control() == (0x88, b"\x0f\xa0")
        pair.read_eof()
        assert pair.raised().code == 4000


@both_roles
@pytest.mark.parametrize("ending", ["FIN", "FIN after a Close"])
def test_what_was_said_before_the_end_is_received_though_the_handler_was_busy(
    role: str, ending: str
) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK._replace(close_timeout=0.3)) as pair:
        for text in (b"one", b"two", b"three"):
            pair.say(0x81, text)
        if ending == "FIN after a Close":
            pair.say(0x88, b"\x0f\xa0bye")
        pair.peer.close()
        eventually(lambda: pair.state() is State.CLOSED)  # TCP does not wait for the handler
        assert [pair.websocket.receive() for _ in range(3)] == ["one", "two", "three"]
        with pytest.raises(ConnectionClosed) as closed:
            pair.websocket.receive()
    expected = (4000, "bye") if ending == "FIN after a Close" else (1006, "the peer ended TCP")
    assert closed.value.code == expected[0]
    assert closed.value.reason.startswith(expected[1])


@both_roles
def test_busy_handler_can_still_answer_a_peer_that_has_ended_its_direction_of_tcp(
    role: str,
) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        websocket = pair.websocket
        pair.say(0x81, b"question")
        pair.peer.sock.shutdown(socket.SHUT_WR)
        eventually(lambda: websocket._protocol.has_eof)
        with websocket._reading:  # the clock has ended its check
            pass
        assert websocket.receive(PATIENCE) == "question"
        websocket.send("answer")
        assert pair.read_frame() == (0x81, b"answer")


def test_echo_of_what_was_read_ahead_is_in_order() -> None:
    def begin_late(websocket: WebSocket) -> None:
        time.sleep(0.3)  # meanwhile the clock reads ahead
        echo_messages(websocket)

    with serving(begin_late, timeouts=QUICK) as server:
        with connect(f"ws://127.0.0.1:{server.server_port}/") as websocket:
            texts = [str(i) for i in range(2000)]
            for text in texts:
                websocket.send(text)
            assert [websocket.receive(PATIENCE) for _ in texts] == texts


def test_client_answers_the_pings_of_a_server_that_talks_on_while_it_never_receives() -> None:
    answered = threading.Event()

    def talk(peer: Peer) -> None:
        peer.send(response(peer.read_head()))
        peer.send(b"".join(unmasked(0x81, b"talk") for _ in range(100)) + unmasked(0x89, b"p"))
        assert peer.read_frame() == (0x8A, b"p")
        answered.set()
        assert peer.read_frame() == (0x88, b"\x03\xe8")
        peer.send(unmasked(0x88, b"\x03\xe8"))

    with RawServer(talk) as server, connect(server.url, timeouts=BRISK):
        assert answered.wait(PATIENCE)


def test_fast_client_of_the_chat_that_is_slowed_keeps_its_connection() -> None:
    from websockets.sync.client import connect as connect_websockets

    lines = 500
    with chat("--rate", "60") as server:
        # This client closes with 1011 if a Ping of its own is not answered in time.
        with connect_websockets(
            f"{server.ws_url}/ws", ping_interval=0.5, ping_timeout=3, max_queue=None
        ) as websocket:
            for i in range(lines):
                websocket.send(f'{{"message": "{i}"}}')
            heard = [str(websocket.recv(PATIENCE)) for _ in range(lines)]
    assert [f'"message":"{i}"' in text for i, text in enumerate(heard)] == [True] * lines


# What the clock reads for it is bounded


@both_roles
def test_what_is_read_ahead_for_a_busy_handler_is_bounded(role: str) -> None:
    def flood() -> None:
        frames = pair.frame(0x82, bytes(1000)) * 60
        try:
            while not pair.leave.is_set():
                pair.peer.send(frames)
        except OSError:
            pass  # it had to wait, or the test is over

    with connected_pair(role, stand_by, timeouts=BRISK, window=65536) as pair:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            pair.peer.sock.settimeout(1.0)
            pair.spawn(flood).result()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert pair.state() is State.OPEN
        assert READ_AHEAD <= after - before < READ_AHEAD + MIB / 2
        pair.websocket.drop("enough")


@both_roles
@pytest.mark.parametrize("flood", ["pings", "behind a bad frame"])
def test_peer_that_floods_a_busy_handler_costs_no_other_connection_its_deadlines(
    role: str, flood: str
) -> None:
    def keep_flooding(pair: Pair) -> None:
        if flood == "pings":
            frames = pair.frame(0x89, b"p") * 10_000
        else:
            frames = pair.frame(0x83) + bytes(65536)
        with contextlib.suppress(OSError):
            while not pair.leave.is_set():
                pair.peer.send(frames)

    def keep_reading(pair: Pair) -> None:
        with contextlib.suppress(OSError):
            while pair.peer.sock.recv(1 << 20):
                pass

    def wait_in_vain(websocket: WebSocket) -> None:
        with contextlib.suppress(ConnectionClosed):
            websocket.receive()

    with (
        connected_pair(role, stand_by, timeouts=BRISK) as pair,
        serving(wait_in_vain, timeouts=QUICK) as other,
    ):
        pair.spawn(keep_reading, pair)
        pair.spawn(keep_flooding, pair)
        for _ in range(2):
            with tcp(other) as silent:
                assert silent.read_to_eof() == b""
        pair.websocket.drop("enough")


@both_roles
def test_clock_is_never_asked_to_check_again_at_once(role: str) -> None:
    """The checks are at 20 ms; while what a peer still sends is thrown away, at 150 ms."""
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        assert_checks_again_within(pair, 0.02)
        pair.websocket.close(wait=False)
        assert pair.read_frame()[0] == 0x88
        assert_checks_again_within(pair, 0.02)
        pair.peer.send(pair.frame(0x8B) + pair.frame(0x82, bytes(100))[:50])
        eventually(lambda: pair.state() is State.FAILED)
        assert_checks_again_within(pair, 0.15)
        pair.peer.close()
    with connected_pair("client", stand_by, timeouts=BRISK) as pair:
        pair.say(0x88, b"\x03\xe8")
        assert pair.read_frame()[0] == 0x88
        assert_checks_again_within(pair, 0.02)  # the server has to end TCP
        pair.read_eof()


def assert_checks_again_within(pair: Pair, seconds: float) -> None:
    def check() -> tuple[float, float] | None:
        now = time.monotonic()
        due = pair.websocket._check(now)
        return (now, due) if due < math.inf else None  # the clock itself was just checking

    now, due = eventually(check)
    assert now < due <= now + seconds


# A peer that is silent


@both_roles
@pytest.mark.parametrize("handler", [listen, stand_by])
@pytest.mark.requirement("7.1.5-3")
def test_silent_peer_is_pinged_and_then_dropped(role: str, handler: Callable[[Pair], None]) -> None:
    timeouts = CALM._replace(ping_interval=0.2, ping_timeout=0.3)
    before = time.monotonic()
    with connected_pair(role, handler, timeouts=timeouts) as pair:
        assert pair.read_frame() == (0x89, b"")
        assert pair.peer.read_to_eof() == b""
        assert time.monotonic() - before >= 0.5
        assert pair.state() is State.CLOSED
        with pytest.raises(ConnectionClosed) as closed:
            pair.websocket.receive()
        assert closed.value.code == 1006
        assert re.fullmatch(r"silent for \d s", closed.value.reason)


def test_dead_peer_of_a_handler_that_never_receives_is_found() -> None:
    timeouts = CALM._replace(ping_interval=0.1, ping_timeout=0.2)
    with connected_pair("server", stand_by, timeouts=timeouts) as pair:
        for text in (b"one", b"two"):
            pair.say(0x81, text)
        eventually(lambda: pair.state() is State.CLOSED)
        assert pair.websocket.receive() == "one"


@both_roles
@pytest.mark.parametrize("answer", [(0x8A, b""), (0x8A, b"3"), (0x81, b"a message will do")])
@pytest.mark.requirement("5.5.3-2", "7.3-2")
def test_peer_that_answers_only_the_latest_ping_stays(role: str, answer: tuple[int, bytes]) -> None:
    with connected_pair(role, timeouts=CALM._replace(ping_interval=0.2)) as pair:
        for payload in (b"1", b"2", b"3"):
            pair.websocket.ping(payload)
        assert [pair.read_frame() for _ in range(3)] == [(0x89, b"1"), (0x89, b"2"), (0x89, b"3")]
        for _ in range(3):  # the next Ping goes out only if the last one was answered
            assert pair.read_frame() == (0x89, b"")
            pair.say(*answer)
        assert pair.state() is State.OPEN


def test_client_that_never_receives_keeps_its_connection_to_our_server() -> None:
    ended = threading.Event()

    def tell_events(websocket: WebSocket) -> None:
        for i in range(20):
            websocket.send(f"event {i}")
        with pytest.raises(ConnectionClosed):
            while True:
                websocket.receive()
        ended.set()

    with serving(tell_events, timeouts=QUICK) as server:
        url = f"ws://127.0.0.1:{server.server_port}/"
        with connect(url, timeouts=QUICK) as websocket:
            assert not ended.wait(3 * (QUICK.ping_interval + QUICK.ping_timeout))
            assert websocket.state is State.OPEN
            assert [websocket.receive() for _ in range(20)] == [f"event {i}" for i in range(20)]


@both_roles
@pytest.mark.requirement("7.3-2")
def test_handler_that_only_sends_keeps_a_peer_that_answers_pings(role: str) -> None:
    def tell(pair: Pair) -> None:
        while not pair.leave.wait(0.01):
            pair.websocket.send("tick")

    with connected_pair(role, tell, timeouts=CALM._replace(ping_interval=0.2)) as pair:
        pings = 0
        while pings < 4:
            first, payload = pair.read_frame()
            if first == 0x89:
                pings += 1
                pair.say(0x8A, payload)
            else:
                assert (first, payload) == (0x81, b"tick")
        assert not pair.ended.is_set()


# A peer that only seems to be silent


@both_roles
def test_peer_that_is_held_back_is_not_taken_for_silent(role: str) -> None:
    timeouts = CALM._replace(ping_interval=0.1, ping_timeout=0.2)
    with connected_pair(role, stand_by, timeouts=timeouts) as pair:
        stop = threading.Event()

        def keep_sending() -> None:
            pair.peer.sock.settimeout(0.05)
            while not stop.is_set():
                try:
                    pair.peer.sock.send(b"\x00" * 1000)  # within one huge frame
                except TimeoutError:
                    pass

        pair.peer.send(pair.frame(0x82, bytes(MIB))[:20])
        sending = pair.spawn(keep_sending)
        assert not pair.ended.wait(1.5)  # many times what a silent peer is granted
        assert pair.state() is State.OPEN
        stop.set()
        sending.result()
        pair.websocket.drop("enough")


@both_roles
def test_slow_handler_keeps_a_peer_that_sent_much_at_once_and_answers_pings(role: str) -> None:
    def work_slowly(pair: Pair) -> None:
        for message in pair.websocket:
            pair.messages.put(message)
            pair.leave.wait(0.1)

    def answer_pings() -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                first, payload = pair.read_frame()
                assert first == 0x89
                pair.say(0x8A, payload)

    timeouts = CALM._replace(ping_interval=0.1, ping_timeout=1.5)
    with connected_pair(role, work_slowly, timeouts=timeouts) as pair:
        pair.peer.send(b"".join(pair.frame(0x82, bytes([i])) for i in range(25)))
        answering = pair.spawn(answer_pings)
        assert [pair.take() for _ in range(25)] == [bytes([i]) for i in range(25)]
        assert pair.state() is State.OPEN
        pair.leave.set()
        pair.peer.sock.shutdown(socket.SHUT_WR)
        answering.result()


def test_server_whose_client_reads_slowly_waits_for_the_pong_that_lies_behind_it() -> None:
    """The time for the Pong begins when the peer could have read what was sent before the Ping."""
    timeouts = CALM._replace(ping_interval=0.2, ping_timeout=0.2)
    size = 96 * 1024  # bytes; a peer is granted six seconds to read them
    with connected_pair("server", timeouts=timeouts) as pair:
        pair.websocket.send(bytes(size))
        pair.say(0x81, b"that it speaks does not say how far it has read")
        assert pair.take() == "that it speaks does not say how far it has read"
        assert not pair.ended.wait(2.0)
        while pair.read_frame() != (0x89, b""):
            pass
        pair.say(0x8A)
        assert pair.state() is State.OPEN

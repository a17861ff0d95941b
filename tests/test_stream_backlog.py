"""Peers that do not read, or read slowly: what waits for them is bounded in bytes and in time.

The peers that stall really do: they do not read, and their kernel buffers little.
"""

import contextlib
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable

import pytest

from pairs import (
    CALM,
    MORE_THAN_KERNELS_BUFFER,
    SMALL_WINDOW,
    Pair,
    connected_pair,
    reset,
    send_until_closed,
    stand_by,
)
from patching import patch_method
from peers import PATIENCE, Peer, close_payload, eventually
from protocols import both_roles
from rfc6455 import ConnectionClosed, State, WebSocket
from rfc6455.stream import MAX_BACKLOG
from tls import Certificate

MIB = 1 << 20


# A peer that does not read


@both_roles
@pytest.mark.requirement("6.1-1")
def test_post_never_waits_for_a_peer_that_does_not_read_and_drops_it_at_the_limit(
    role: str,
) -> None:
    with connected_pair(role, window=SMALL_WINDOW) as pair:
        tracemalloc.start()
        try:
            posting = pair.spawn(send_until_closed, pair.websocket.post, bytes(65536))
            count, code = posting.result()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert code == 1006
        assert count >= 16
        assert peak < MAX_BACKLOG + MIB
        assert pair.raised().code == 1006
        assert pair.state() is State.CLOSED


def test_peer_that_stands_still_is_dropped_though_little_waits_for_it() -> None:
    timeouts = CALM._replace(write_timeout=0.4)
    with connected_pair("server", window=SMALL_WINDOW, timeouts=timeouts) as pair:
        for _ in range(8):
            pair.websocket.post(bytes(65536))
        assert "took nothing" in pair.raised().reason
        assert pair.raised().code == 1006
        with pytest.raises(ConnectionClosed):
            pair.websocket.post(b"late")


@both_roles
def test_what_waits_beside_a_send_in_progress_is_bounded_too(role: str) -> None:
    with connected_pair(role, stand_by, window=SMALL_WINDOW) as pair:
        sending = pair.spawn(pair.websocket.send, bytes(16 * MIB))
        pair.peer.read(8 * MIB)
        posting = pair.spawn(send_until_closed, pair.websocket.post, bytes(65536))
        count, code = posting.result()
        assert code == 1006
        assert count * 65536 <= MAX_BACKLOG
        with pytest.raises(ConnectionClosed):
            sending.result()


@both_roles
def test_peer_that_pings_and_never_reads_is_dropped(role: str) -> None:
    def ping_on() -> None:
        pings = pair.frame(0x89, bytes(125)) * 500
        with contextlib.suppress(ConnectionError):
            while True:
                pair.peer.send(pings)

    with connected_pair(role, window=SMALL_WINDOW) as pair:
        pinging = pair.spawn(ping_on)
        assert pair.raised().code == 1006
        pinging.result()


@both_roles
def test_what_waits_for_a_peer_takes_little_memory_however_small_its_pieces_are(role: str) -> None:
    """An empty message is a frame of two bytes or six, and a piece of the backlog."""
    with connected_pair(role, stand_by, window=SMALL_WINDOW) as pair:
        tracemalloc.start()
        try:
            with pytest.raises(ConnectionClosed, match="read too slowly"):
                while True:
                    pair.websocket.post("")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB


@both_roles
def test_nothing_else_waits_while_a_send_does(role: str) -> None:
    def the_rest() -> State:
        pair.websocket.post("posted")
        pair.websocket.ping(b"p")
        pair.websocket.close(wait=False)
        return pair.websocket.state

    with connected_pair(role, stand_by, window=SMALL_WINDOW) as pair:
        sending = pair.spawn(pair.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        pair.peer.read(2)
        assert pair.spawn(the_rest).result() is State.CLOSE_SENT
        assert sending.running


def test_thread_that_drains_a_backlog_ends_with_it() -> None:
    with connected_pair("server", window=SMALL_WINDOW) as pair:
        before = set(threading.enumerate())
        for _ in range(8):
            pair.websocket.post(bytes(65536))
        for _ in range(8):
            assert pair.read_frame() == (0x82, bytes(65536))
        assert eventually(lambda: not set(threading.enumerate()) - before)
        pair.websocket.post(b"again")
        assert pair.read_frame() == (0x82, b"again")


# A send that waits


@both_roles
@pytest.mark.requirement("6.1-1")
def test_send_to_a_peer_that_does_not_read_raises_in_bounded_time(role: str) -> None:
    timeouts = CALM._replace(write_timeout=0.4)
    with connected_pair(role, window=SMALL_WINDOW, timeouts=timeouts) as pair:
        sending = pair.spawn(pair.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        with pytest.raises(ConnectionClosed, match="1006"):
            sending.result()
        assert pair.raised().code == 1006


@both_roles
@pytest.mark.requirement("6.1-1", "7.2.1-1")
@pytest.mark.parametrize("end", [Peer.close, reset])
def test_send_in_progress_raises_when_the_peer_goes(role: str, end: Callable[[Peer], None]) -> None:
    with connected_pair(role, window=SMALL_WINDOW) as pair:
        sending = pair.spawn(pair.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        pair.peer.read(2)
        end(pair.peer)
        with pytest.raises(ConnectionClosed, match="1006"):
            sending.result()


def close_at_once(websocket: WebSocket) -> None:
    websocket.close(wait=False)


def drop(websocket: WebSocket) -> None:
    websocket.drop("enough")


@both_roles
@pytest.mark.parametrize("leave", [close_at_once, drop])
def test_send_in_progress_raises_when_the_connection_is_closed_or_dropped(
    role: str, leave: Callable[[WebSocket], None]
) -> None:
    timeouts = CALM._replace(close_timeout=0.4)
    with connected_pair(role, window=SMALL_WINDOW, timeouts=timeouts) as pair:
        sending = pair.spawn(pair.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        pair.peer.read(2)
        leave(pair.websocket)
        with pytest.raises(ConnectionClosed):
            sending.result()


@pytest.mark.requirement("6.1-1")
def test_sending_over_tls_to_a_peer_that_leaves_raises_connection_closed(
    certificate: Certificate,
) -> None:
    interval = sys.getswitchinterval()
    codes = []

    def post_while_another_receives(pair: Pair) -> None:
        posting = pair.spawn(send_until_closed, pair.websocket.post, b"x")
        with contextlib.suppress(ConnectionClosed):
            pair.websocket.receive()
        pair.websocket.close()
        codes.append(posting.result()[1])

    sys.setswitchinterval(1e-5)  # so that threads take turns in the middle of things
    try:
        for _ in range(20):
            with connected_pair(
                "server", post_while_another_receives, certificate=certificate
            ) as pair:
                assert pair.tunnel
                pair.tunnel.sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    while pair.tunnel.sock.recv(65536):
                        pass
    finally:
        sys.setswitchinterval(interval)
    assert codes == [1006] * 20


# A peer that reads slowly


def test_peer_that_reads_slowly_is_not_dropped() -> None:
    stuck = 2.0
    timeouts = CALM._replace(write_timeout=stuck)
    with connected_pair("server", window=SMALL_WINDOW, timeouts=timeouts) as pair:
        for _ in range(12):
            pair.websocket.post(bytes(65536))
        size = 12 * (65536 + 10)
        began, got = time.monotonic(), 0
        while got < size:
            time.sleep(0.08)  # a slow reader
            data = pair.peer.sock.recv(65536)
            assert data, f"dropped after {got} bytes and {time.monotonic() - began:.1f} s"
            got += len(data)
        assert time.monotonic() - began > stuck
        pair.say(0x89, b"p")
        assert pair.read_frame() == (0x8A, b"p")


class SlowReader:
    """Reads so many bytes a second in a thread of its own, until it is told to hurry."""

    def __init__(self, pair: Pair, rate: int) -> None:
        self.got = 0
        self._sock = pair.peer.sock
        self._rate = rate
        self._hurry = threading.Event()
        self._task = pair.spawn(self._read)

    def _read(self) -> None:
        began = time.monotonic()
        while data := self._sock.recv(65536):
            self.got += len(data)
            self._hurry.wait(max(0.0, began + self.got / self._rate - time.monotonic()))

    def hurry(self) -> None:
        self._hurry.set()


@both_roles
def test_peer_that_reads_slowly_but_steadily_is_kept_however_much_the_kernel_holds(
    role: str,
) -> None:
    """A writer waits until a third of the kernel's buffer is free: longer than the timeout here."""
    timeouts = CALM._replace(write_timeout=0.5)
    size = 8 * MIB
    with connected_pair(role, timeouts=timeouts) as pair:
        reader = SlowReader(pair, rate=MIB)
        sending = pair.spawn(pair.websocket.send, bytes(size))
        assert not pair.ended.wait(3.0)
        reader.hurry()
        sending.result()
        eventually(lambda: reader.got >= size)
        pair.websocket.close(wait=False)
        # This wakes the reader. Closing the socket would not, and no FIN would be sent.
        pair.peer.sock.shutdown(socket.SHUT_RDWR)


def test_peer_that_reads_what_was_said_before_the_close_slowly_closes_cleanly() -> None:
    """The time for the closing handshake begins once the peer has read what came before it."""

    def talk_and_go(pair: Pair) -> None:
        pair.websocket.post(bytes(size))
        pair.websocket.close(4000, "that was all")

    timeouts = CALM._replace(close_timeout=1.0)
    size = MIB - 1000  # bytes; the Close still fits into the backlog behind them
    with connected_pair("server", talk_and_go, timeouts=timeouts) as pair:
        began = time.monotonic()
        got = len(pair.peer.buffer)  # what came with the handshake
        pair.peer.buffer = b""
        while got < size + 10:
            data = pair.peer.sock.recv(min(16384, size + 10 - got))
            assert data, f"the end after {got} bytes"
            got += len(data)
            if time.monotonic() < began + 3:
                time.sleep(0.05)  # a slow reader
        assert pair.read_frame() == (0x88, close_payload(4000, "that was all"))
        pair.say(0x88, close_payload(4000))
        pair.read_eof()
        assert pair.ended.wait(PATIENCE)
        assert pair.websocket.clean


# A peer that has gone, or has ended its side


@both_roles
def test_what_a_peer_said_before_it_vanished_is_received_though_sending_fails(role: str) -> None:
    """The endpoint reads nothing before its sending fails: the messages wait in the kernel."""
    texts = [f"number {i}" for i in range(50)]
    with connected_pair(role, stand_by, timeouts=CALM) as pair:
        pair.websocket.send("never read by the peer")
        pair.peer.send(b"".join(pair.frame(0x81, text.encode()) for text in texts))
        pair.peer.close()  # as something is unread, its kernel sends a reset
        with pytest.raises(ConnectionClosed):
            while True:
                pair.websocket.send("anybody there?")
        assert pair.state() is State.CLOSED
        assert [pair.websocket.receive() for _ in texts] == texts
        with pytest.raises(ConnectionClosed, match="1006"):
            pair.websocket.receive()


@both_roles
def test_peer_that_ends_its_side_of_tcp_after_its_close_still_gets_what_waits(role: str) -> None:
    size = MIB - 1000
    with connected_pair(role, window=16384, timeouts=CALM) as pair:
        pair.websocket.post(bytes(size))
        pair.say(0x88, b"\x0f\xa0")
        pair.peer.sock.shutdown(socket.SHUT_WR)
        assert pair.read_frame() == (0x82, bytes(size))
        assert pair.read_frame() == (0x88, b"\x0f\xa0")
        assert pair.peer.read_to_eof() == b""


# What is behind much that waits


@both_roles
@pytest.mark.parametrize("size", [MAX_BACKLOG - 100, 2 * MAX_BACKLOG])
@pytest.mark.requirement("5.5.1-1")
def test_control_frames_find_room_behind_as_much_as_may_wait(role: str, size: int) -> None:
    with connected_pair(role, stand_by, window=SMALL_WINDOW) as pair:
        pair.websocket.post(bytes(size))
        pair.websocket.close(4000, wait=False)
        assert pair.state() is State.CLOSE_SENT
        assert pair.read_frame() == (0x82, bytes(size))
        assert pair.read_frame() == (0x88, b"\x0f\xa0")
        pair.say(0x88, b"\x0f\xa0")
        pair.spawn(pair.websocket.close)
        pair.read_eof()


@both_roles
def test_no_message_finds_room_behind_one_that_is_larger_than_may_wait(role: str) -> None:
    with connected_pair(role, stand_by, window=SMALL_WINDOW) as pair:
        pair.websocket.post(bytes(2 * MAX_BACKLOG))
        with pytest.raises(ConnectionClosed, match="read too slowly"):
            pair.websocket.post("more")


@both_roles
def test_connection_whose_backlog_cannot_be_sent_for_an_unforeseen_reason_ends(
    role: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sent: int) -> None:
        raise ZeroDivisionError

    with connected_pair(role, window=SMALL_WINDOW) as pair:
        patch_method(monkeypatch, pair.websocket._stream, "_note_drained", fail)
        sending = pair.spawn(pair.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        with contextlib.suppress(ConnectionError):  # our side may end with a reset
            pair.peer.read_to_eof()
        with pytest.raises(ConnectionClosed, match="internal error"):
            sending.result()
        assert pair.raised().code == 1006
        assert eventually(lambda: pair.state() is State.CLOSED)
    assert any(record.exc_info for record in caplog.records)


@both_roles
@pytest.mark.parametrize("timeout", [1e11, float("inf")])
def test_receive_takes_a_timeout_of_any_length(role: str, timeout: float) -> None:
    with connected_pair(role, stand_by) as pair:
        receiving = pair.spawn(pair.websocket.receive, timeout)
        pair.say(0x81, b"here")
        assert receiving.result() == "here"

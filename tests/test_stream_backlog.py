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

from meeting import (
    CALM,
    MORE_THAN_KERNELS_BUFFER,
    SMALL_WINDOW,
    Meeting,
    meeting,
    reset,
    send_until_closed,
    stand_by,
)
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
    with meeting(role, window=SMALL_WINDOW) as met:
        tracemalloc.start()
        try:
            posting = met.spawn(send_until_closed, met.websocket.post, bytes(65536))
            count, code = posting.result()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert code == 1006
        assert count >= 16
        assert peak < MAX_BACKLOG + MIB
        assert met.outcome().code == 1006
        assert met.state() is State.CLOSED


def test_peer_that_stands_still_is_dropped_though_little_waits_for_it() -> None:
    timeouts = CALM._replace(write_timeout=0.4)
    with meeting("server", window=SMALL_WINDOW, timeouts=timeouts) as met:
        for _ in range(8):
            met.websocket.post(bytes(65536))
        assert "took nothing" in met.outcome().reason
        assert met.outcome().code == 1006
        with pytest.raises(ConnectionClosed):
            met.websocket.post(b"late")


@both_roles
def test_what_waits_beside_a_send_in_progress_is_bounded_too(role: str) -> None:
    with meeting(role, stand_by, window=SMALL_WINDOW) as met:
        sending = met.spawn(met.websocket.send, bytes(16 * MIB))
        met.peer.read(8 * MIB)
        posting = met.spawn(send_until_closed, met.websocket.post, bytes(65536))
        count, code = posting.result()
        assert code == 1006
        assert count * 65536 <= MAX_BACKLOG
        with pytest.raises(ConnectionClosed):
            sending.result()


@both_roles
def test_peer_that_pings_and_never_reads_is_dropped(role: str) -> None:
    def ping_on() -> None:
        pings = met.frame(0x89, bytes(125)) * 500
        with contextlib.suppress(ConnectionError):
            while True:
                met.peer.send(pings)

    with meeting(role, window=SMALL_WINDOW) as met:
        pinging = met.spawn(ping_on)
        assert met.outcome().code == 1006
        pinging.result()


@both_roles
def test_what_waits_for_a_peer_takes_little_memory_however_small_its_pieces_are(role: str) -> None:
    """An empty message is a frame of two bytes or six, and a piece of the backlog."""
    with meeting(role, stand_by, window=SMALL_WINDOW) as met:
        tracemalloc.start()
        try:
            with pytest.raises(ConnectionClosed, match="read too slowly"):
                while True:
                    met.websocket.post("")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB


@both_roles
def test_nothing_else_waits_while_a_send_does(role: str) -> None:
    def the_rest() -> State:
        met.websocket.post("posted")
        met.websocket.ping(b"p")
        met.websocket.close(wait=False)
        return met.websocket.state

    with meeting(role, stand_by, window=SMALL_WINDOW) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        met.peer.read(2)
        assert met.spawn(the_rest).result() is State.CLOSE_SENT
        assert sending.running


def test_thread_that_drains_a_backlog_ends_with_it() -> None:
    with meeting("server", window=SMALL_WINDOW) as met:
        before = set(threading.enumerate())
        for _ in range(8):
            met.websocket.post(bytes(65536))
        for _ in range(8):
            assert met.read_frame() == (0x82, bytes(65536))
        assert eventually(lambda: not set(threading.enumerate()) - before)
        met.websocket.post(b"again")
        assert met.read_frame() == (0x82, b"again")


# A send that waits


@both_roles
@pytest.mark.requirement("6.1-1")
def test_send_to_a_peer_that_does_not_read_raises_in_bounded_time(role: str) -> None:
    timeouts = CALM._replace(write_timeout=0.4)
    with meeting(role, window=SMALL_WINDOW, timeouts=timeouts) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        with pytest.raises(ConnectionClosed, match="1006"):
            sending.result()
        assert met.outcome().code == 1006


@both_roles
@pytest.mark.requirement("6.1-1", "7.2.1-1")
@pytest.mark.parametrize("end", [Peer.close, reset])
def test_send_in_progress_raises_when_the_peer_goes(role: str, end: Callable[[Peer], None]) -> None:
    with meeting(role, window=SMALL_WINDOW) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        met.peer.read(2)
        end(met.peer)
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
    with meeting(role, window=SMALL_WINDOW, timeouts=timeouts) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        met.peer.read(2)
        leave(met.websocket)
        with pytest.raises(ConnectionClosed):
            sending.result()


@pytest.mark.requirement("6.1-1")
def test_sending_over_tls_to_a_peer_that_leaves_raises_connection_closed(
    certificate: Certificate,
) -> None:
    interval = sys.getswitchinterval()
    codes = []

    def post_while_another_receives(met: Meeting) -> None:
        posting = met.spawn(send_until_closed, met.websocket.post, b"x")
        with contextlib.suppress(ConnectionClosed):
            met.websocket.receive()
        met.websocket.close()
        codes.append(posting.result()[1])

    sys.setswitchinterval(1e-5)  # so that threads take turns in the middle of things
    try:
        for _ in range(20):
            with meeting("server", post_while_another_receives, certificate=certificate) as met:
                assert met.tunnel
                met.tunnel.sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    while met.tunnel.sock.recv(65536):
                        pass
    finally:
        sys.setswitchinterval(interval)
    assert codes == [1006] * 20


# A peer that reads slowly


def test_peer_that_reads_slowly_is_not_dropped() -> None:
    stuck = 2.0
    timeouts = CALM._replace(write_timeout=stuck)
    with meeting("server", window=SMALL_WINDOW, timeouts=timeouts) as met:
        for _ in range(12):
            met.websocket.post(bytes(65536))
        size = 12 * (65536 + 10)
        began, got = time.monotonic(), 0
        while got < size:
            time.sleep(0.08)  # a slow reader
            data = met.peer.sock.recv(65536)
            assert data, f"dropped after {got} bytes and {time.monotonic() - began:.1f} s"
            got += len(data)
        assert time.monotonic() - began > stuck
        met.say(0x89, b"p")
        assert met.read_frame() == (0x8A, b"p")


class SlowReader:
    """Reads so many bytes a second in a thread of its own, until it is told to hurry."""

    def __init__(self, met: Meeting, rate: int) -> None:
        self.got = 0
        self._sock = met.peer.sock
        self._rate = rate
        self._hurry = threading.Event()
        self._task = met.spawn(self._read)

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
    with meeting(role, timeouts=timeouts) as met:
        reader = SlowReader(met, rate=MIB)
        sending = met.spawn(met.websocket.send, bytes(size))
        assert not met.ended.wait(3.0)
        reader.hurry()
        sending.result()
        eventually(lambda: reader.got >= size)
        met.websocket.close(wait=False)
        # This wakes the reader. Closing the socket would not, and no FIN would be sent.
        met.peer.sock.shutdown(socket.SHUT_RDWR)


def test_peer_that_reads_what_was_said_before_the_close_slowly_closes_cleanly() -> None:
    """The time for the closing handshake begins once the peer has read what came before it."""

    def talk_and_go(met: Meeting) -> None:
        met.websocket.post(bytes(size))
        met.websocket.close(4000, "that was all")

    timeouts = CALM._replace(close_timeout=1.0)
    size = MIB - 1000  # bytes; the Close still fits into the backlog behind them
    with meeting("server", talk_and_go, timeouts=timeouts) as met:
        began = time.monotonic()
        got = len(met.peer.buffer)  # what came with the handshake
        met.peer.buffer = b""
        while got < size + 10:
            data = met.peer.sock.recv(min(16384, size + 10 - got))
            assert data, f"the end after {got} bytes"
            got += len(data)
            if time.monotonic() < began + 3:
                time.sleep(0.05)  # a slow reader
        assert met.read_frame() == (0x88, close_payload(4000, "that was all"))
        met.say(0x88, close_payload(4000))
        met.read_eof()
        assert met.ended.wait(PATIENCE)
        assert met.websocket.clean


# A peer that has gone, or has ended its side


@both_roles
def test_what_a_peer_said_before_it_vanished_is_received_though_sending_fails(role: str) -> None:
    """The endpoint reads nothing before its sending fails: the messages wait in the kernel."""
    texts = [f"number {i}" for i in range(50)]
    with meeting(role, stand_by, timeouts=CALM) as met:
        met.websocket.send("never read by the peer")
        met.peer.send(b"".join(met.frame(0x81, text.encode()) for text in texts))
        met.peer.close()  # as something is unread, its kernel sends a reset
        with pytest.raises(ConnectionClosed):
            while True:
                met.websocket.send("anybody there?")
        assert met.state() is State.CLOSED
        assert [met.websocket.receive() for _ in texts] == texts
        with pytest.raises(ConnectionClosed, match="1006"):
            met.websocket.receive()


@both_roles
def test_peer_that_ends_its_side_of_tcp_after_its_close_still_gets_what_waits(role: str) -> None:
    size = MIB - 1000
    with meeting(role, window=16384, timeouts=CALM) as met:
        met.websocket.post(bytes(size))
        met.say(0x88, b"\x0f\xa0")
        met.peer.sock.shutdown(socket.SHUT_WR)
        assert met.read_frame() == (0x82, bytes(size))
        assert met.read_frame() == (0x88, b"\x0f\xa0")
        assert met.peer.read_to_eof() == b""

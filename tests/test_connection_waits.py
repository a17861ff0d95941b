"""Every wait of a connection has an end, and a peer can take no memory by announcing a message."""

import contextlib
import threading
import time
import tracemalloc

import pytest

from pairs import (
    BRISK,
    CALM,
    MORE_THAN_KERNELS_BUFFER,
    SMALL_WINDOW,
    Pair,
    connected_pair,
    listen,
    reset,
    stand_by,
)
from peers import PATIENCE, eventually
from protocols import both_roles
from rfc6455 import ConnectionClosed, State
from rfc6455.stream import Stream
from tls import Certificate

MIB = 1 << 20


# Calls that never wait


@both_roles
def test_ping_does_not_wait_for_a_peer_that_does_not_read(role: str) -> None:
    with connected_pair(role, stand_by, window=SMALL_WINDOW) as pair:
        sending = pair.spawn(pair.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        assert eventually(lambda: pair.websocket._stream.is_draining)
        pair.spawn(pair.websocket.ping, b"p").result()
        assert sending.running
        assert pair.read_frame() == (0x82, bytes(MORE_THAN_KERNELS_BUFFER))
        assert pair.read_frame() == (0x89, b"p")


@both_roles
def test_receive_without_a_timeout_left_returns_though_bytes_come_without_end(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected_pair(role, stand_by) as pair:
        pong = pair.frame(0x8A)
        reads: list[int] = []

        def read(stream: Stream, size: int, timeout: float | None = None) -> bytes | None:
            reads.append(size)
            return pong if len(reads) < 100 else None

        with monkeypatch.context() as patch:
            patch.setattr(Stream, "read", read)
            assert pair.websocket.receive(timeout=0) is None
        assert len(reads) == 1


@both_roles
def test_receive_waits_for_the_rest_of_a_message_while_its_timeout_lasts(role: str) -> None:
    with connected_pair(role, stand_by) as pair:
        receiving = pair.spawn(pair.websocket.receive, PATIENCE)
        pair.say(0x01, b"Hel")
        assert eventually(lambda: pair.websocket._protocol.message_size == 3)
        pair.say(0x80, b"lo")
        assert receiving.result() == "Hello"


@both_roles
def test_send_to_a_peer_that_has_reset_the_connection_says_why_it_fails(role: str) -> None:
    with connected_pair(role, stand_by) as pair:
        reset(pair.peer)
        assert eventually(lambda: fails(pair))
        with pytest.raises(ConnectionClosed) as raised:
            pair.websocket.send("a")
        assert raised.value.code == 1006
        assert raised.value.reason


def fails(pair: Pair) -> bool:
    try:
        pair.websocket.send("a")
    except ConnectionClosed:
        return True
    return False


# Closing


@both_roles
@pytest.mark.requirement("5.5.1-6")
def test_close_that_comes_during_a_send_is_answered_behind_the_message(role: str) -> None:
    def tell(pair: Pair) -> None:
        pair.websocket.send(bytes(MORE_THAN_KERNELS_BUFFER))
        pair.messages.put("sent")
        listen(pair)

    with connected_pair(role, tell, window=65536, timeouts=BRISK) as pair:
        pair.peer.buffer = pair.peer.read(2) + pair.peer.buffer
        pair.say(0x88, b"\x0f\xa0")
        assert eventually(lambda: pair.state() is State.CLOSE_EXCHANGED)
        assert pair.read_frame() == (0x82, bytes(MORE_THAN_KERNELS_BUFFER))
        assert pair.read_close() == (4000, "")
        assert pair.raised().code == 4000
        assert pair.remaining_messages() == ["sent"]


@both_roles
@pytest.mark.requirement("5.5.1-10", "7.1.5-3")
def test_close_ends_in_bounded_time_when_the_peer_never_answers(role: str) -> None:
    with connected_pair(role, timeouts=CALM._replace(close_timeout=0.4)) as pair:
        before = time.monotonic()
        closing = pair.spawn(pair.websocket.close)
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        assert pair.peer.read_to_eof() == b""
        closing.result()
        assert time.monotonic() - before >= 0.4
        assert pair.state() is State.CLOSED
        assert not pair.websocket.clean
        assert pair.websocket.close_code == 1006


@both_roles
@pytest.mark.requirement("5.5.1-10")
def test_close_ends_in_bounded_time_when_the_peer_does_not_even_read(role: str) -> None:
    with connected_pair(
        role, window=SMALL_WINDOW, timeouts=CALM._replace(close_timeout=0.4)
    ) as pair:
        sending = pair.spawn(pair.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        pair.peer.read(2)
        closing = pair.spawn(pair.websocket.close)
        closing.result()
        with pytest.raises(ConnectionClosed):
            sending.result()
        assert pair.state() is State.CLOSED


@both_roles
def test_close_ends_in_bounded_time_while_the_peer_floods_it(role: str) -> None:
    def flood() -> None:
        frames = pair.frame(0x82, bytes(60_000)) * 10
        with contextlib.suppress(ConnectionError):
            while not pair.leave.is_set():
                pair.peer.send(frames)

    with connected_pair(role, stand_by, timeouts=CALM._replace(close_timeout=0.4)) as pair:
        flooding = pair.spawn(flood)
        closing = pair.spawn(pair.websocket.close)
        try:
            closing.result()
        finally:
            pair.leave.set()
        flooding.result()
        assert pair.state() is State.CLOSED


@both_roles
@pytest.mark.requirement("5.5.1-10")
def test_close_ends_in_bounded_time_though_the_peer_pings_on_and_reads_the_pongs(
    role: str,
) -> None:
    def ping_on() -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                pair.say(0x89, b"p")
                pair.read_frame()

    with connected_pair(role, stand_by, timeouts=CALM._replace(close_timeout=0.5)) as pair:
        closing = pair.spawn(pair.websocket.close, 1008, "enough")
        assert pair.read_frame().first == 0x88
        pinging = pair.spawn(ping_on)
        closing.result()
        pinging.result()
        assert not pair.websocket.clean


@both_roles
@pytest.mark.requirement("7.1.7-1")
def test_failed_connection_ends_in_bounded_time_while_the_peer_floods_it(role: str) -> None:
    def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while not pair.leave.is_set():
                pair.peer.send(bytes(600_000))

    with connected_pair(role, timeouts=CALM._replace(close_timeout=0.4)) as pair:
        pair.say(0x83)
        flooding = pair.spawn(flood)
        assert pair.read_frame().payload[:2] == b"\x03\xea"
        assert eventually(lambda: pair.state() is State.CLOSED)
        pair.leave.set()
        flooding.result()
        assert pair.remaining_messages() == []


@both_roles
@pytest.mark.requirement("7.1.7-1")
def test_failed_connection_gives_a_slow_peer_time_to_read_up_to_the_close(role: str) -> None:
    timeouts = CALM._replace(close_timeout=0.5)
    with connected_pair(role, window=SMALL_WINDOW, timeouts=timeouts) as pair:
        pair.spawn(pair.websocket.send, bytes(2 * MIB))
        assert eventually(lambda: pair.websocket._stream.is_draining)
        pair.peer.send(pair.frame(0x83, b"reserved")[:-1])  # the peer is still sending it
        while len(pair.peer.buffer) < 2 * MIB:
            data = pair.peer.sock.recv(20_000)
            assert data, "the connection has ended before the Close"
            pair.peer.buffer += data
            time.sleep(0.02)  # this is the slow peer, and not a wait for something
        assert pair.read_frame() == (0x82, bytes(2 * MIB))
        assert pair.read_close() == (1002, "opcode 0x3 is reserved")


# Receiving


def test_receive_over_tls_times_out_though_a_record_comes_byte_by_byte(
    certificate: Certificate,
) -> None:
    stop = threading.Event()

    def trickle() -> None:
        assert pair.tunnel
        pair.tunnel.tls.write(pair.frame(0x81, b"slow"))
        record = pair.tunnel.take_held_back()
        for i in range(len(record)):
            pair.tunnel.sock.sendall(record[i : i + 1])
            if stop.wait(0.1):
                pair.tunnel.sock.sendall(record[i + 1 :])
                return

    with connected_pair("server", stand_by, certificate=certificate) as pair:
        trickling = pair.spawn(trickle)
        assert pair.spawn(pair.websocket.receive, 0.5).result() is None
        assert trickling.running
        stop.set()
        trickling.result()
        assert pair.websocket.receive(PATIENCE) == "slow"


# Limits (10.4)


@both_roles
@pytest.mark.requirement("10.4-1")
def test_announced_bytes_take_no_memory_before_they_arrive(role: str) -> None:
    with contextlib.ExitStack() as stack:
        meetings = [stack.enter_context(connected_pair(role, stand_by)) for _ in range(8)]
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for pair in meetings:  # the header of the largest message that is allowed, and little more
            announced = "82 ff" if role == "server" else "82 7f"
            pair.peer.send(bytes.fromhex(f"{announced} 00 00 00 00 00 10 00 00") + bytes(104))
            assert pair.websocket.receive(timeout=0.05) is None
        _, peak = tracemalloc.get_traced_memory()
        assert peak < MIB


@both_roles
def test_peer_that_sends_to_a_handler_that_does_not_receive_is_held_back(role: str) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        frame = pair.frame(0x82, bytes(65536))
        tracemalloc.start()
        pair.peer.sock.settimeout(0.3)
        try:
            with pytest.raises(TimeoutError):
                while True:
                    pair.peer.send(frame)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MIB
        assert pair.websocket.receive() == bytes(65536)
        assert pair.state() is State.OPEN

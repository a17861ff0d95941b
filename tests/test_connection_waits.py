"""Every wait of a connection has an end, and a peer can take no memory by announcing a message."""

import contextlib
import threading
import time
import tracemalloc

import pytest

from meeting import (
    BRISK,
    CALM,
    MORE_THAN_KERNELS_BUFFER,
    SMALL_WINDOW,
    Meeting,
    listen,
    meeting,
    stand_by,
)
from peers import PATIENCE, eventually
from protocols import both_roles
from rfc6455 import ConnectionClosed, State
from tls import Certificate

MIB = 1 << 20


# Closing


@both_roles
@pytest.mark.requirement("5.5.1-6")
def test_close_that_comes_during_a_send_is_answered_behind_the_message(role: str) -> None:
    def tell(met: Meeting) -> None:
        met.websocket.send(bytes(MORE_THAN_KERNELS_BUFFER))
        met.messages.put("sent")
        listen(met)

    with meeting(role, tell, window=65536, timeouts=BRISK) as met:
        met.peer.buffer = met.peer.read(2) + met.peer.buffer
        met.say(0x88, b"\x0f\xa0")
        assert eventually(lambda: met.state() is State.CLOSE_EXCHANGED)
        assert met.read_frame() == (0x82, bytes(MORE_THAN_KERNELS_BUFFER))
        assert met.read_close() == (4000, "")
        assert met.outcome().code == 4000
        assert met.rest() == ["sent"]


@both_roles
@pytest.mark.requirement("5.5.1-10", "7.1.5-3")
def test_close_ends_in_bounded_time_when_the_peer_never_answers(role: str) -> None:
    with meeting(role, timeouts=CALM._replace(close_timeout=0.4)) as met:
        before = time.monotonic()
        closing = met.spawn(met.websocket.close)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        assert met.peer.read_to_eof() == b""
        closing.result()
        assert time.monotonic() - before >= 0.4
        assert met.state() is State.CLOSED
        assert not met.websocket.clean
        assert met.websocket.close_code == 1006


@both_roles
@pytest.mark.requirement("5.5.1-10")
def test_close_ends_in_bounded_time_when_the_peer_does_not_even_read(role: str) -> None:
    with meeting(role, window=SMALL_WINDOW, timeouts=CALM._replace(close_timeout=0.4)) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        met.peer.read(2)
        closing = met.spawn(met.websocket.close)
        closing.result()
        with pytest.raises(ConnectionClosed):
            sending.result()
        assert met.state() is State.CLOSED


@both_roles
def test_close_ends_in_bounded_time_while_the_peer_floods_it(role: str) -> None:
    def flood() -> None:
        frames = met.frame(0x82, bytes(60_000)) * 10
        with contextlib.suppress(ConnectionError):
            while not met.leave.is_set():
                met.peer.send(frames)

    with meeting(role, stand_by, timeouts=CALM._replace(close_timeout=0.4)) as met:
        flooding = met.spawn(flood)
        closing = met.spawn(met.websocket.close)
        try:
            closing.result()
        finally:
            met.leave.set()
        flooding.result()
        assert met.state() is State.CLOSED


@both_roles
@pytest.mark.requirement("5.5.1-10")
def test_close_ends_in_bounded_time_though_the_peer_pings_on_and_reads_the_pongs(
    role: str,
) -> None:
    def ping_on() -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                met.say(0x89, b"p")
                met.read_frame()

    with meeting(role, stand_by, timeouts=CALM._replace(close_timeout=0.5)) as met:
        closing = met.spawn(met.websocket.close, 1008, "enough")
        assert met.read_frame().first == 0x88
        pinging = met.spawn(ping_on)
        closing.result()
        pinging.result()
        assert not met.websocket.clean


@both_roles
@pytest.mark.requirement("7.1.7-1")
def test_failed_connection_ends_in_bounded_time_while_the_peer_floods_it(role: str) -> None:
    def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while not met.leave.is_set():
                met.peer.send(bytes(600_000))

    with meeting(role, timeouts=CALM._replace(close_timeout=0.4)) as met:
        met.say(0x83)
        flooding = met.spawn(flood)
        assert met.read_frame().payload[:2] == b"\x03\xea"
        assert eventually(lambda: met.state() is State.CLOSED)
        met.leave.set()
        flooding.result()
        assert met.rest() == []


# Receiving


def test_receive_over_tls_times_out_though_a_record_comes_byte_by_byte(
    certificate: Certificate,
) -> None:
    stop = threading.Event()

    def trickle() -> None:
        assert met.tunnel
        met.tunnel.tls.write(met.frame(0x81, b"slow"))
        record = met.tunnel.take_held_back()
        for i in range(len(record)):
            met.tunnel.sock.sendall(record[i : i + 1])
            if stop.wait(0.1):
                met.tunnel.sock.sendall(record[i + 1 :])
                return

    with meeting("server", stand_by, certificate=certificate) as met:
        trickling = met.spawn(trickle)
        assert met.spawn(met.websocket.receive, 0.5).result() is None
        assert trickling.running
        stop.set()
        trickling.result()
        assert met.websocket.receive(PATIENCE) == "slow"


# Limits (10.4)


@both_roles
@pytest.mark.requirement("10.4-1")
def test_announced_bytes_take_no_memory_before_they_arrive(role: str) -> None:
    with contextlib.ExitStack() as stack:
        meetings = [stack.enter_context(meeting(role, stand_by)) for _ in range(8)]
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for met in meetings:  # the header of the largest message that is allowed, and little more
            announced = "82 ff" if role == "server" else "82 7f"
            met.peer.send(bytes.fromhex(f"{announced} 00 00 00 00 00 10 00 00") + bytes(104))
            assert met.websocket.receive(timeout=0.05) is None
        _, peak = tracemalloc.get_traced_memory()
        assert peak < MIB


@both_roles
def test_peer_that_sends_to_a_handler_that_does_not_receive_is_held_back(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        frame = met.frame(0x82, bytes(65536))
        tracemalloc.start()
        met.peer.sock.settimeout(0.3)
        try:
            with pytest.raises(TimeoutError):
                while True:
                    met.peer.send(frame)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MIB
        assert met.websocket.receive() == bytes(65536)
        assert met.state() is State.OPEN

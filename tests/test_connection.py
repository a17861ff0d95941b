"""A connection in use, over loopback: a protocol, a stream and the lock that joins them.

`test_protocol_*` hold the rules of RFC 6455 without a socket. Here each kind of rule is seen once
on the wire, and what needs I/O is tested: waits, time limits, handlers, any input. The further
files `test_connection_*` are about closing, busy handlers, many threads, waits and `broadcast`,
and `test_stream_backlog` is about peers that do not read.
"""

import contextlib
import logging
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meeting import BRISK, CALM, Meeting, Task, listen, meeting, stand_by
from peers import (
    PATIENCE,
    Peer,
    after_handshake,
    echo_messages,
    masked,
    serving,
    shake_hands,
    unmasked,
    xor,
)
from protocols import both_roles, some_bytes
from rfc6455 import ConnectionClosed, State, WebSocket, connect
from tls import Certificate

# Each kind of frame, each way


def send_every_kind(met: Meeting) -> None:
    """Make the endpoint send text, empty text, binary data, a Ping, a Pong and a Close."""
    met.websocket.send("Hello")
    met.websocket.send("")
    met.websocket.send(b"\x00\xff")
    met.websocket.ping(b"p")
    met.say(0x89, b"q")
    assert met.take() is None
    met.websocket.close(1000, "bye", wait=False)


def receive_in_vain(met: Meeting) -> None:
    """A life: answer the Ping that comes, tell by None that no message came, and listen."""
    met.messages.put(met.websocket.receive(0.2))
    listen(met)


@pytest.mark.requirement("5.1-3", "5.2-1", "6.1-2")
def test_server_sends_every_kind_of_frame_unmasked_and_without_reserved_bits() -> None:
    with meeting("server", receive_in_vain) as met:
        send_every_kind(met)
        sent = bytes.fromhex(
            "81 05 48656c6c6f  81 00  82 02 00ff  89 01 70  8a 01 71  88 05 03e8 627965"
        )
        assert met.peer.read(len(sent)) == sent
        met.say(0x88, b"\x03\xe8")
        met.read_eof()


@pytest.mark.requirement("5.1-1", "5.2-1", "6.1-2")
def test_client_masks_every_kind_of_frame_without_reserved_bits() -> None:
    with meeting("client", receive_in_vain) as met:
        assert_every_kind_comes_masked(met)


@pytest.mark.requirement("5.1-1")
def test_client_masks_every_kind_of_frame_over_tls_too(certificate: Certificate) -> None:
    with meeting("client", receive_in_vain, certificate=certificate) as met:
        assert_every_kind_comes_masked(met)


def assert_every_kind_comes_masked(met: Meeting) -> None:
    send_every_kind(met)
    for header, payload in [
        ("81 85", b"Hello"),
        ("81 80", b""),
        ("82 82", b"\x00\xff"),
        ("89 81", b"p"),
        ("8a 81", b"q"),
        ("88 85", b"\x03\xe8bye"),
    ]:
        assert met.peer.read(2) == bytes.fromhex(header)
        key = met.peer.read(4)
        assert xor(met.peer.read(len(payload)), key) == payload


@both_roles
@pytest.mark.requirement("5.4-1", "5.4-3", "5.5.2-1")
def test_endpoint_joins_fragments_and_answers_a_ping_between_them_at_once(role: str) -> None:
    with meeting(role) as met:
        met.say(0x01, b"Hel")
        met.say(0x89, b"p")
        assert met.read_frame() == (0x8A, b"p")
        assert met.messages.empty()
        met.say(0x80, b"lo")
        assert met.take() == "Hello"
        met.say(0x82, b"unfragmented")
        assert met.take() == b"unfragmented"


@both_roles
@pytest.mark.requirement("6.1-3")
def test_endpoint_puts_a_message_on_the_network_without_a_further_call(role: str) -> None:
    with meeting(role, stand_by) as met:
        met.websocket.send("a")
        assert met.read_frame() == (0x81, b"a")
        met.websocket.post(b"b")
        assert met.read_frame() == (0x82, b"b")


@both_roles
@pytest.mark.requirement("5.1-5")
def test_both_sides_send_a_mebibyte_at_the_same_time(role: str) -> None:
    ours, theirs = some_bytes(1 << 20), bytes(reversed(some_bytes(1 << 20)))
    with meeting(role, max_message=1 << 20) as met:
        met.spawn(met.websocket.send, ours)
        sending = met.spawn(met.say, 0x82, theirs)
        assert met.read_frame() == (0x82, ours)
        sending.result()
        assert met.take() == theirs


@pytest.mark.requirement("5.1-5")
def test_server_may_speak_first() -> None:
    def greet(met: Meeting) -> None:
        met.websocket.send("first")
        listen(met)

    with meeting("server", greet) as met:
        assert met.peer.read(7) == bytes.fromhex("81 05 66 69 72 73 74")
        met.say(0x81, b"then")
        assert met.take() == "then"


@both_roles
@pytest.mark.requirement("5.1-5")
def test_endpoint_reads_frames_that_came_in_one_piece_with_the_handshake(role: str) -> None:
    early = masked(0x81, b"a") + masked(0x81, b"b")
    if role == "client":
        early = bytes.fromhex("81 01 61 81 01 62")
    with meeting(role, early=early) as met:
        assert [met.take(), met.take()] == ["a", "b"]
        with meeting(role, early=early[:-1]) as cut:
            assert cut.take() == "a"
            cut.peer.send(early[-1:])
            assert cut.take() == "b"


@both_roles
@pytest.mark.requirement("7.4.1-2", "10.4-1")
def test_message_of_the_limit_is_delivered_and_of_one_byte_more_is_1009(role: str) -> None:
    with meeting(role, max_message=1000) as met:
        met.say(0x82, bytes(1000))
        assert met.take() == bytes(1000)
        met.say(0x82, bytes(1001))
        assert met.peer.read_close() == (1009, "the message is over 1000 bytes")
        assert met.rest() == []


@both_roles
@pytest.mark.requirement("5.5.2-4", "5.6-1")
@pytest.mark.parametrize(
    ("thing", "error"), [(5, TypeError), (None, TypeError), ("a\udfffb", UnicodeEncodeError)]
)
def test_sending_what_is_no_message_raises_and_sends_nothing(
    role: str, thing: Any, error: type[Exception]
) -> None:
    with meeting(role, stand_by) as met:
        for send in (met.websocket.send, met.websocket.post):
            with pytest.raises(error):
                send(thing)
        with pytest.raises(ValueError, match="125"):
            met.websocket.ping(bytes(126))
        met.websocket.send("next")
        assert met.read_frame() == (0x81, b"next")


@pytest.mark.requirement("10.3-1")
def test_client_sends_the_bytes_as_they_were_when_send_was_called() -> None:
    size = 10_000_000
    message = bytearray(size)
    with meeting("client", stand_by, window=65536) as met:
        sending = met.spawn(met.websocket.send, message)
        assert met.peer.read(10) == bytes.fromhex("82 ff 00 00 00 00 00 98 96 80")
        with contextlib.suppress(BufferError):
            message[:] = b"\xff" * size
        key = met.peer.read(4)
        assert met.peer.read(size) == key * (size // 4)
        sending.result()


# 5.5.2: pings, while the endpoint or its handler is busy


@both_roles
@pytest.mark.requirement("5.5.2-1")
def test_endpoint_answers_a_ping_while_it_sends_a_large_message(role: str) -> None:
    with meeting(role, window=65536) as met:
        sending = met.spawn(met.websocket.send, bytes(8 << 20))
        met.peer.buffer = met.peer.sock.recv(1)
        met.say(0x89, b"abc")
        assert met.read_frame() == (0x82, bytes(8 << 20))
        assert met.read_frame() == (0x8A, b"abc")
        sending.result()


@both_roles
@pytest.mark.requirement("5.5.2-3")
def test_endpoint_answers_a_ping_while_its_handler_is_busy(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        met.say(0x89, b"p")
        assert met.read_frame() == (0x8A, b"p")
        assert not met.ended.is_set()


@both_roles
def test_message_that_came_while_the_handler_was_busy_is_received(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        met.say(0x89, b"before")
        met.say(0x81, b"a")
        met.say(0x81, b"b")
        assert met.read_frame() == (0x8A, b"before")
        assert met.websocket.receive(PATIENCE) == "a"
        met.say(0x81, b"c")
        assert [met.websocket.receive(PATIENCE) for _ in range(2)] == ["b", "c"]


@pytest.mark.requirement("7.3-2")
def test_client_keeps_an_idle_connection_whose_server_answers_pings() -> None:
    with meeting("client", timeouts=CALM._replace(ping_interval=0.1)) as met:
        for _ in range(5):
            first, payload = met.read_frame()
            assert first == 0x89
            met.say(0x8A, payload)
        assert met.state() is State.OPEN
        met.say(0x81, b"still there")
        assert met.take() == "still there"


# Handlers


@both_roles
@pytest.mark.parametrize(
    "last", [(0x88, b"\x0f\xa0"), (0x83, b""), None], ids=["close", "failure", "cut"]
)
def test_iteration_ends_however_the_connection_ends(
    role: str, last: tuple[int, bytes] | None
) -> None:
    def iterate(met: Meeting) -> None:
        for message in met.websocket:
            met.messages.put(message)

    with meeting(role, iterate) as met:
        met.say(0x81, b"a")
        met.say(0x82, b"b")
        if last:
            met.say(*last)
            assert met.read_frame().first == 0x88
        met.peer.sock.shutdown(socket.SHUT_WR)
        assert met.rest() == ["a", b"b"]
        assert met.closed is None
        assert met.websocket.close_code == (4000 if last and last[0] == 0x88 else 1006)


@both_roles
@pytest.mark.requirement("7.4.1-3")
def test_handler_can_refuse_a_type_of_data_with_1003(role: str) -> None:
    def text_only(met: Meeting) -> None:
        for message in met.websocket:
            if isinstance(message, bytes):
                met.websocket.close(1003, "text only")
            met.messages.put(message)

    with meeting(role, text_only) as met:
        met.say(0x81, b"a")
        assert met.take() == "a"
        met.say(0x82, b"b")
        assert met.read_frame() == (0x88, b"\x03\xebtext only")
        met.say(0x88, b"\x03\xeb")
        met.read_eof()


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
@pytest.mark.requirement("7.4.1-4")
def test_server_closes_with_1011_when_its_handler_raises(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def fragile(websocket: WebSocket) -> None:
        for message in websocket:
            if message == "break":
                raise error("a fault of the handler")
            websocket.send(message)

    with (
        serving(fragile, timeouts=CALM) as server,
        shake_hands(server) as broken,
        shake_hands(server) as other,
    ):
        broken.send(masked(0x81, b"break"))
        first, payload = broken.read_frame()
        assert (first, payload[:2]) == (0x88, b"\x03\xf3")
        broken.send(masked(0x88, b"\x03\xf3"))
        assert broken.read_to_eof() == b""
        other.send(masked(0x81, b"a"))
        assert other.read_frame() == (0x81, b"a")
    assert "a fault of the handler" in caplog.text
    assert b"a fault" not in payload


@pytest.mark.requirement("7.4.1-1")
def test_server_that_shuts_down_closes_with_1001() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(echo_messages, timeouts=CALM))
        peers = [stack.enter_context(shake_hands(server)) for _ in range(3)]
        for peer in peers:  # the server knows a client that has got an answer
            peer.send(masked(0x81, b"a"))
            assert peer.read_frame() == (0x81, b"a")
        shutting = Task(server.close_connections)
        for peer in peers:
            first, payload = peer.read_frame()
            assert (first, payload[:2]) == (0x88, b"\x03\xe9")
            peer.send(masked(0x88, b"\x03\xe9"))
            assert peer.read_to_eof() == b""
            peer.close()
        shutting.result()


# Receiving with a time limit


@both_roles
def test_receive_with_a_timeout_returns_none_and_the_connection_goes_on(role: str) -> None:
    with meeting(role, stand_by) as met:
        assert met.websocket.receive(timeout=0) is None
        assert met.websocket.receive(timeout=0.05) is None
        met.say(0x81, b"a")
        assert met.websocket.receive(timeout=PATIENCE) == "a"
        met.websocket.send("b")
        assert met.read_frame() == (0x81, b"b")


@both_roles
@pytest.mark.parametrize("cut", [1, 2, 4, 7, 9])
def test_receive_that_times_out_in_mid_frame_loses_nothing(role: str, cut: int) -> None:
    with meeting(role, stand_by) as met:
        for first, payload in [(0x81, b"Hello \xe2\x82\xac"), (0x89, b"a payload")]:
            frame = met.frame(first, payload)
            met.peer.send(frame[:cut])
            assert met.websocket.receive(timeout=0.05) is None
            met.peer.send(frame[cut:])
            if first == 0x81:
                assert met.websocket.receive(timeout=PATIENCE) == "Hello \u20ac"
        met.say(0x81, b"next")
        assert met.websocket.receive(timeout=PATIENCE) == "next"
        assert met.read_frame() == (0x8A, b"a payload")


@both_roles
def test_receive_times_out_between_fragments_and_loses_nothing(role: str) -> None:
    with meeting(role, stand_by) as met:
        met.say(0x01, b"Hel")
        assert met.websocket.receive(timeout=0.05) is None
        met.say(0x80, b"lo")
        assert met.websocket.receive(timeout=PATIENCE) == "Hello"


@both_roles
def test_receive_times_out_while_the_peer_floods_it_with_pongs(role: str) -> None:
    def flood() -> None:
        frames = met.frame(0x8A, bytes(125)) * 1000
        while not met.leave.is_set():
            met.peer.send(frames)

    def receive_in_vain() -> None:
        for _ in range(5):
            assert met.websocket.receive(timeout=0.1) is None

    with meeting(role, stand_by) as met:
        flooding = met.spawn(flood)
        before = time.monotonic()
        receiving = met.spawn(receive_in_vain)
        try:
            receiving.result()
            assert time.monotonic() - before < PATIENCE / 2
        finally:
            met.leave.set()
        flooding.result()


@both_roles
def test_receive_raises_in_a_waiting_thread_when_the_connection_is_dropped(role: str) -> None:
    with meeting(role) as met:
        met.websocket.drop("enough")
        assert (met.outcome().code, met.outcome().reason) == (1006, "enough")
        assert met.peer.read_to_eof() == b""


# 10.7: any input


def odd_inputs(seed: int, frame: Callable[[int, bytes], bytes]) -> Iterator[bytes]:
    """Random bytes, frames with random headers, and good frames with random faults."""
    chance = random.Random(seed)
    good = [
        frame(0x81, b"Hello \xe2\x82\xac"),
        frame(0x82, bytes(range(200))),
        frame(0x01, b"Hel") + frame(0x89, b"p") + frame(0x80, b"lo"),
        frame(0x8A, b""),
        frame(0x88, b"\x03\xe8bye"),
    ]
    for _ in range(60):
        yield chance.randbytes(chance.randrange(1, 300))
        yield frame(chance.randrange(256), chance.randbytes(chance.randrange(200)))
        data = bytearray(b"".join(chance.choices(good, k=chance.randrange(1, 6))))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield bytes(data)
        cut = chance.randrange(len(data))
        yield bytes(data[:cut] + data[cut + chance.randrange(1, 9) :])


def assert_frames_and_at_most_a_close(data: bytes) -> None:
    """These bytes are whole frames, and a Close is only the last of them."""
    ours, theirs = socket.socketpair()
    with Peer(ours) as peer, theirs:
        peer.buffer = data
        theirs.close()
        while peer.buffer:
            first, _ = peer.read_frame()
            assert first in (0x81, 0x82, 0x89, 0x8A, 0x88)
            assert first != 0x88 or not peer.buffer


@pytest.mark.requirement("10.7-1")
@pytest.mark.parametrize("seed", [1, 2])
def test_server_survives_any_bytes_and_keeps_serving(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(echo_messages, timeouts=CALM) as server, shake_hands(server) as witness:
        for data in odd_inputs(seed, masked):
            with shake_hands(server) as peer:
                peer.send(data)
                peer.sock.shutdown(socket.SHUT_WR)
                assert_frames_and_at_most_a_close(peer.read_to_eof())
        witness.send(masked(0x81, b"still there?"))
        assert witness.read_frame() == (0x81, b"still there?")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.requirement("10.7-1")
@pytest.mark.parametrize("seed", [3, 4])
def test_client_survives_any_bytes(seed: int) -> None:
    inputs = list(odd_inputs(seed, unmasked))
    turns = iter(inputs)

    def script(peer: Peer) -> None:
        peer.send(next(turns))
        peer.sock.shutdown(socket.SHUT_WR)
        assert_frames_and_at_most_a_close(peer.read_to_eof())

    with after_handshake(script) as server:
        for _ in inputs:
            with connect(server.url, timeouts=CALM) as websocket:
                for message in websocket:
                    with contextlib.suppress(ConnectionClosed):
                        websocket.send(message)
            assert websocket.state is State.CLOSED

"""A connection in use, over loopback: a protocol, a stream and the lock that joins them.

`test_protocol_*` hold the rules of RFC 6455 without a socket. Here each kind of rule is seen once
on the wire, and what needs I/O is tested: waits, time limits, handlers, any input. The further
files `test_connection_*` are about closing, busy handlers, many threads, waits and `broadcast`,
and `test_stream_backlog` is about peers that do not read.
"""

import contextlib
import gc
import logging
import random
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pairs import BRISK, CALM, Pair, Task, connected_pair, listen, stand_by
from peers import (
    PATIENCE,
    Peer,
    after_handshake,
    echo_messages,
    eventually,
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


def send_every_kind(pair: Pair) -> None:
    """Make the endpoint send text, empty text, binary data, a Ping, a Pong and a Close."""
    pair.websocket.send("Hello")
    pair.websocket.send("")
    pair.websocket.send(b"\x00\xff")
    pair.websocket.ping(b"p")
    pair.say(0x89, b"q")
    assert pair.take() is None
    pair.websocket.close(1000, "bye", wait=False)


def receive_in_vain(pair: Pair) -> None:
    """A handler: answer the Ping that comes, tell by None that no message came, and listen."""
    pair.messages.put(pair.websocket.receive(0.2))
    listen(pair)


@pytest.mark.requirement("5.1-3", "5.2-1", "6.1-2")
def test_server_sends_every_kind_of_frame_unmasked_and_without_reserved_bits() -> None:
    with connected_pair("server", receive_in_vain) as pair:
        send_every_kind(pair)
        sent = bytes.fromhex(
            "81 05 48656c6c6f  81 00  82 02 00ff  89 01 70  8a 01 71  88 05 03e8 627965"
        )
        assert pair.peer.read(len(sent)) == sent
        pair.say(0x88, b"\x03\xe8")
        pair.read_eof()


@pytest.mark.requirement("5.1-1", "5.2-1", "6.1-2")
def test_client_masks_every_kind_of_frame_without_reserved_bits() -> None:
    with connected_pair("client", receive_in_vain) as pair:
        assert_every_kind_comes_masked(pair)


@pytest.mark.requirement("5.1-1")
def test_client_masks_every_kind_of_frame_over_tls_too(certificate: Certificate) -> None:
    with connected_pair("client", receive_in_vain, certificate=certificate) as pair:
        assert_every_kind_comes_masked(pair)


def assert_every_kind_comes_masked(pair: Pair) -> None:
    send_every_kind(pair)
    for header, payload in [
        ("81 85", b"Hello"),
        ("81 80", b""),
        ("82 82", b"\x00\xff"),
        ("89 81", b"p"),
        ("8a 81", b"q"),
        ("88 85", b"\x03\xe8bye"),
    ]:
        assert pair.peer.read(2) == bytes.fromhex(header)
        key = pair.peer.read(4)
        assert xor(pair.peer.read(len(payload)), key) == payload


@both_roles
@pytest.mark.requirement("5.4-1", "5.4-3", "5.5.2-1")
def test_endpoint_joins_fragments_and_answers_a_ping_between_them_at_once(role: str) -> None:
    with connected_pair(role) as pair:
        pair.say(0x01, b"Hel")
        pair.say(0x89, b"p")
        assert pair.read_frame() == (0x8A, b"p")
        assert pair.messages.empty()
        pair.say(0x80, b"lo")
        assert pair.take() == "Hello"
        pair.say(0x82, b"unfragmented")
        assert pair.take() == b"unfragmented"


@both_roles
@pytest.mark.requirement("6.1-3")
def test_endpoint_puts_a_message_on_the_network_without_a_further_call(role: str) -> None:
    with connected_pair(role, stand_by) as pair:
        pair.websocket.send("a")
        assert pair.read_frame() == (0x81, b"a")
        pair.websocket.post(b"b")
        assert pair.read_frame() == (0x82, b"b")


@both_roles
@pytest.mark.requirement("5.1-5")
def test_both_sides_send_a_mebibyte_at_the_same_time(role: str) -> None:
    ours, theirs = some_bytes(1 << 20), bytes(reversed(some_bytes(1 << 20)))
    with connected_pair(role, max_message=1 << 20) as pair:
        pair.spawn(pair.websocket.send, ours)
        sending = pair.spawn(pair.say, 0x82, theirs)
        assert pair.read_frame() == (0x82, ours)
        sending.result()
        assert pair.take() == theirs


@pytest.mark.requirement("5.1-5")
def test_server_may_speak_first() -> None:
    def greet(pair: Pair) -> None:
        pair.websocket.send("first")
        listen(pair)

    with connected_pair("server", greet) as pair:
        assert pair.peer.read(7) == bytes.fromhex("81 05 66 69 72 73 74")
        pair.say(0x81, b"then")
        assert pair.take() == "then"


@both_roles
@pytest.mark.requirement("5.1-5")
def test_endpoint_reads_frames_that_came_in_one_piece_with_the_handshake(role: str) -> None:
    early = masked(0x81, b"a") + masked(0x81, b"b")
    if role == "client":
        early = bytes.fromhex("81 01 61 81 01 62")
    with connected_pair(role, early=early) as pair:
        assert [pair.take(), pair.take()] == ["a", "b"]
        with connected_pair(role, early=early[:-1]) as cut:
            assert cut.take() == "a"
            cut.peer.send(early[-1:])
            assert cut.take() == "b"


@both_roles
@pytest.mark.requirement("7.4.1-2", "10.4-1")
def test_message_of_the_limit_is_delivered_and_of_one_byte_more_is_1009(role: str) -> None:
    with connected_pair(role, max_message=1000) as pair:
        pair.say(0x82, bytes(1000))
        assert pair.take() == bytes(1000)
        pair.say(0x82, bytes(1001))
        assert pair.peer.read_close() == (1009, "the message is over 1000 bytes")
        assert pair.remaining_messages() == []


@both_roles
@pytest.mark.requirement("5.5.2-4", "5.6-1")
@pytest.mark.parametrize(
    ("thing", "error"), [(5, TypeError), (None, TypeError), ("a\udfffb", UnicodeEncodeError)]
)
def test_sending_what_is_no_message_raises_and_sends_nothing(
    role: str, thing: Any, error: type[Exception]
) -> None:
    with connected_pair(role, stand_by) as pair:
        for send in (pair.websocket.send, pair.websocket.post):
            with pytest.raises(error):
                send(thing)
        with pytest.raises(ValueError, match="125"):
            pair.websocket.ping(bytes(126))
        pair.websocket.send("next")
        assert pair.read_frame() == (0x81, b"next")


@pytest.mark.requirement("10.3-1")
def test_client_sends_the_bytes_as_they_were_when_send_was_called() -> None:
    size = 10_000_000
    message = bytearray(size)
    with connected_pair("client", stand_by, window=65536) as pair:
        sending = pair.spawn(pair.websocket.send, message)
        assert pair.peer.read(10) == bytes.fromhex("82 ff 00 00 00 00 00 98 96 80")
        with contextlib.suppress(BufferError):
            message[:] = b"\xff" * size
        key = pair.peer.read(4)
        assert pair.peer.read(size) == key * (size // 4)
        sending.result()


# 5.5.2: pings, while the endpoint or its handler is busy


@both_roles
@pytest.mark.requirement("5.5.2-1")
def test_endpoint_answers_a_ping_while_it_sends_a_large_message(role: str) -> None:
    with connected_pair(role, window=65536) as pair:
        sending = pair.spawn(pair.websocket.send, bytes(8 << 20))
        pair.peer.buffer = pair.peer.sock.recv(1)
        pair.say(0x89, b"abc")
        assert pair.read_frame() == (0x82, bytes(8 << 20))
        assert pair.read_frame() == (0x8A, b"abc")
        sending.result()


@both_roles
@pytest.mark.requirement("5.5.2-3")
def test_endpoint_answers_a_ping_while_its_handler_is_busy(role: str) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        pair.say(0x89, b"p")
        assert pair.read_frame() == (0x8A, b"p")
        assert not pair.ended.is_set()


# 5.5.3: the pong handler


@both_roles
@pytest.mark.parametrize("handler", [listen, stand_by])
def test_pong_handler_gets_the_payload_of_each_pong_in_order(
    role: str, handler: Callable[[Pair], None]
) -> None:
    payloads: list[bytes] = []
    with connected_pair(role, handler, timeouts=BRISK) as pair:
        pair.websocket.set_pong_handler(payloads.append)
        for payload in (b"", b"asked for", b"x" * 125):
            pair.say(0x8A, payload)
        pair.say(0x89, b"end")
        assert pair.read_frame() == (0x8A, b"end")
        assert payloads == [b"", b"asked for", b"x" * 125]
        pair.websocket.set_pong_handler(None)
        pair.say(0x8A, b"too late")
        pair.say(0x89, b"end")
        assert pair.read_frame() == (0x8A, b"end")
        assert len(payloads) == 3


@both_roles
@pytest.mark.parametrize("handler", [listen, stand_by])
def test_pong_handler_may_post(role: str, handler: Callable[[Pair], None]) -> None:
    with connected_pair(role, handler, timeouts=BRISK) as pair:
        pair.websocket.set_pong_handler(pair.websocket.post)
        pair.say(0x8A, b"p")
        assert pair.read_frame() == (0x82, b"p")


@both_roles
@pytest.mark.parametrize("handler", [listen, stand_by])
def test_pong_handler_that_fails_is_logged_and_closes_with_1011(
    role: str, handler: Callable[[Pair], None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: bytes) -> None:
        raise ArithmeticError("a mistake of the program")

    with connected_pair(role, handler, timeouts=BRISK) as pair:
        pair.websocket.set_pong_handler(fail)
        pair.say(0x8A, b"p")
        assert pair.read_frame() == (0x88, b"\x03\xf3internal error")
        assert "the pong handler failed" in caplog.text
        assert "a mistake of the program" in caplog.text


@both_roles
def test_pong_handler_that_posts_on_a_closing_connection_is_no_failure(
    role: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        pair.websocket.set_pong_handler(pair.websocket.post)
        pair.websocket.close(4000, wait=False)
        assert pair.read_frame() == (0x88, b"\x0f\xa0")
        pair.say(0x8A, b"p")
        pair.say(0x89, b"end")  # 5.5.2: still answered
        assert pair.read_frame() == (0x8A, b"end")
    assert "failed" not in caplog.text


# Messages that came while the handler was busy


@both_roles
def test_message_that_came_while_the_handler_was_busy_is_received(role: str) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        pair.say(0x89, b"before")
        pair.say(0x81, b"a")
        pair.say(0x81, b"b")
        assert pair.read_frame() == (0x8A, b"before")
        assert pair.websocket.receive(PATIENCE) == "a"
        pair.say(0x81, b"c")
        assert [pair.websocket.receive(PATIENCE) for _ in range(2)] == ["b", "c"]


@pytest.mark.requirement("7.3-2")
def test_client_keeps_an_idle_connection_whose_server_answers_pings() -> None:
    with connected_pair("client", timeouts=CALM._replace(ping_interval=0.1)) as pair:
        for _ in range(5):
            first, payload = pair.read_frame()
            assert first == 0x89
            pair.say(0x8A, payload)
        assert pair.state() is State.OPEN
        pair.say(0x81, b"still there")
        assert pair.take() == "still there"


# Handlers


@both_roles
@pytest.mark.parametrize(
    "last", [(0x88, b"\x0f\xa0"), (0x83, b""), None], ids=["close", "failure", "cut"]
)
def test_iteration_ends_however_the_connection_ends(
    role: str, last: tuple[int, bytes] | None
) -> None:
    def iterate(pair: Pair) -> None:
        for message in pair.websocket:
            pair.messages.put(message)

    with connected_pair(role, iterate) as pair:
        pair.say(0x81, b"a")
        pair.say(0x82, b"b")
        if last:
            pair.say(*last)
            assert pair.read_frame().first == 0x88
        pair.peer.sock.shutdown(socket.SHUT_WR)
        assert pair.remaining_messages() == ["a", b"b"]
        assert pair.closed is None
        assert pair.websocket.close_code == (4000 if last and last[0] == 0x88 else 1006)


@both_roles
@pytest.mark.requirement("7.4.1-3")
def test_handler_can_refuse_a_type_of_data_with_1003(role: str) -> None:
    def text_only(pair: Pair) -> None:
        for message in pair.websocket:
            if isinstance(message, bytes):
                pair.websocket.close(1003, "text only")
            pair.messages.put(message)

    with connected_pair(role, text_only) as pair:
        pair.say(0x81, b"a")
        assert pair.take() == "a"
        pair.say(0x82, b"b")
        assert pair.read_frame() == (0x88, b"\x03\xebtext only")
        pair.say(0x88, b"\x03\xeb")
        pair.read_eof()


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
    with connected_pair(role, stand_by) as pair:
        assert pair.websocket.receive(timeout=0) is None
        assert pair.websocket.receive(timeout=0.05) is None
        pair.say(0x81, b"a")
        assert pair.websocket.receive(timeout=PATIENCE) == "a"
        pair.websocket.send("b")
        assert pair.read_frame() == (0x81, b"b")


@both_roles
@pytest.mark.parametrize("cut", [1, 2, 4, 7, 9])
def test_receive_that_times_out_in_mid_frame_loses_nothing(role: str, cut: int) -> None:
    with connected_pair(role, stand_by) as pair:
        for first, payload in [(0x81, b"Hello \xe2\x82\xac"), (0x89, b"a payload")]:
            frame = pair.frame(first, payload)
            pair.peer.send(frame[:cut])
            assert pair.websocket.receive(timeout=0.05) is None
            pair.peer.send(frame[cut:])
            if first == 0x81:
                assert pair.websocket.receive(timeout=PATIENCE) == "Hello \u20ac"
        pair.say(0x81, b"next")
        assert pair.websocket.receive(timeout=PATIENCE) == "next"
        assert pair.read_frame() == (0x8A, b"a payload")


@both_roles
def test_receive_times_out_between_fragments_and_loses_nothing(role: str) -> None:
    with connected_pair(role, stand_by) as pair:
        pair.say(0x01, b"Hel")
        assert pair.websocket.receive(timeout=0.05) is None
        pair.say(0x80, b"lo")
        assert pair.websocket.receive(timeout=PATIENCE) == "Hello"


@both_roles
def test_receive_times_out_while_the_peer_floods_it_with_pongs(role: str) -> None:
    def flood() -> None:
        frames = pair.frame(0x8A, bytes(125)) * 1000
        while not pair.leave.is_set():
            pair.peer.send(frames)

    def receive_in_vain() -> None:
        for _ in range(5):
            assert pair.websocket.receive(timeout=0.1) is None

    with connected_pair(role, stand_by) as pair:
        flooding = pair.spawn(flood)
        before = time.monotonic()
        receiving = pair.spawn(receive_in_vain)
        try:
            receiving.result()
            assert time.monotonic() - before < PATIENCE / 2
        finally:
            pair.leave.set()
        flooding.result()


@both_roles
def test_receive_raises_in_a_waiting_thread_when_the_connection_is_dropped(role: str) -> None:
    with connected_pair(role) as pair:
        pair.websocket.drop("enough")
        assert (pair.raised().code, pair.raised().reason) == (1006, "enough")
        assert pair.peer.read_to_eof() == b""


def test_memory_of_a_connection_is_free_when_it_has_ended() -> None:
    """It does not wait for the collector of cycles: nothing refers to itself in a circle."""
    seen = []

    def echo_and_note(websocket: WebSocket) -> None:
        seen.append(weakref.ref(websocket))
        echo_messages(websocket)

    gc.disable()
    try:
        with serving(echo_and_note) as server:
            with connect(f"ws://127.0.0.1:{server.server_port}/") as websocket:
                websocket.send("hello")
                assert websocket.receive(PATIENCE) == "hello"
                seen.append(weakref.ref(websocket))
            del websocket
            eventually(lambda: [each() for each in seen] == [None, None])
    finally:
        gc.enable()


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

"""Messages, control frames, the closing handshake (RFC 6455, 5-8, 10), over loopback.

What needs many threads, deadlines or a peer that does not read is in `test_stream`.
"""

import contextlib
import itertools
import logging
import random
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meeting import (
    BRISK,
    CALM,
    Meeting,
    Task,
    both_roles,
    listen,
    meeting,
    reset,
    stand_by,
)
from peers import (
    MASK,
    PATIENCE,
    Peer,
    RawServer,
    after_handshake,
    answer_to,
    close_payload,
    echo,
    eventually,
    masked,
    request,
    response,
    serving,
    shake_hands,
    tcp,
    unmasked,
    xor,
)
from rfc6455 import (
    ConnectionClosed,
    InvalidHandshake,
    State,
    WebSocket,
    connect,
)
from tls import Certificate


def assert_fails(role: str, frames: list[tuple[int, bytes]], code: int) -> None:
    """These frames of the peer fail the connection: this Close, EOF, and nothing delivered."""
    with meeting(role) as met:
        met.peer.send(b"".join(met.frame(first, payload) for first, payload in frames))
        assert met.peer.read_close()[0] == code
        assert met.rest() == []
        assert met.outcome().code == 1006
        assert not met.websocket.clean


def assert_bytes_fail(role: str, data: str, code: int) -> None:
    with meeting(role) as met:
        met.peer.send(bytes.fromhex(data))
        assert met.peer.read_close()[0] == code
        assert met.rest() == []


def some_bytes(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# 5.1, 5.2: what goes out


def send_every_kind(met: Meeting) -> None:
    """Makes the endpoint send text, empty text, binary, a ping, a pong and a Close."""
    met.websocket.send("Hello")
    met.websocket.send("")
    met.websocket.send(b"\x00\xff")
    met.websocket.ping(b"p")
    met.say(0x89, b"q")
    assert met.take() is None
    met.websocket.close(1000, "bye", wait=False)


def receive_in_vain(met: Meeting) -> None:
    """A life: answers one ping, reports it by None, and listens."""
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


@pytest.mark.requirement("5.3-2", "5.3-3")
def test_client_chooses_a_fresh_key_for_each_frame() -> None:
    with meeting("client", stand_by) as met:
        for i in range(500):
            random.seed(6455)
            met.websocket.send(str(i))
            met.websocket.ping()
        keys = [met.peer.read_frame_and_key()[2] for _ in range(1000)]
        numbers = [int.from_bytes(key or b"", "big") for key in keys]
        assert len(set(numbers)) > 990
        assert len({(b - a) % 2**32 for a, b in itertools.pairwise(numbers)}) > 990


@both_roles
@pytest.mark.requirement("6.1-3")
def test_endpoint_puts_a_message_on_the_network_without_a_further_call(role: str) -> None:
    with meeting(role, stand_by) as met:
        met.websocket.send("a")
        assert met.read_frame() == (0x81, b"a")
        met.websocket.post(b"b")
        assert met.read_frame() == (0x82, b"b")


@both_roles
@pytest.mark.requirement("5.2-4", "5.2-7", "6.1-2", "6.2-1")
@pytest.mark.parametrize(
    ("size", "bare", "with_mask"),
    [
        (0, "00", "80"),
        (1, "01", "81"),
        (125, "7d", "fd"),
        (126, "7e 00 7e", "fe 00 7e"),
        (127, "7e 00 7f", "fe 00 7f"),
        (65535, "7e ff ff", "fe ff ff"),
        (65536, "7f 00 00 00 00 00 01 00 00", "ff 00 00 00 00 00 01 00 00"),
        (65537, "7f 00 00 00 00 00 01 00 01", "ff 00 00 00 00 00 01 00 01"),
    ],
)
def test_endpoint_receives_and_sends_each_form_of_the_length(
    role: str, size: int, bare: str, with_mask: str
) -> None:
    text = "x" * size
    ours, theirs = (bare, with_mask) if role == "server" else (with_mask, bare)
    body = xor(text.encode(), MASK) if role == "server" else text.encode()
    message = bytes.fromhex(f"81 {theirs}") + (MASK if role == "server" else b"") + body
    with meeting(role) as met:
        for cut in (len(message), len(message) // 2, 1, 3):
            met.peer.send(message[:cut])
            met.peer.send(message[cut:])
            assert met.take() == text
        for byte in message[:300]:
            met.peer.send(bytes([byte]))
        met.peer.send(message[300:])
        assert met.take() == text
        met.websocket.send(text)
        header = bytes.fromhex(f"81 {ours}")
        assert met.peer.read(len(header)) == header
        key = met.peer.read(4) if role == "client" else bytes(4)
        assert xor(met.peer.read(size), key) == text.encode()


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


# 5.1, 5.2: what comes in


@pytest.mark.requirement("5.1-2", "7.1.7-1")
@pytest.mark.parametrize("frame", ["81 05 48 65 6c 6c 6f", "82 00", "89 00", "8a 00", "88 00"])
def test_server_fails_connection_on_unmasked_frame(frame: str) -> None:
    assert_bytes_fail("server", frame, 1002)


@pytest.mark.requirement("5.1-4", "7.1.7-1")
@pytest.mark.parametrize(
    "frame",
    ["81 85 37fa213d 7f9f4d5158", "82 80 00000000", "89 80 00000000", "88 80 00000000"],
)
def test_client_fails_connection_on_masked_frame(frame: str) -> None:
    assert_bytes_fail("client", frame, 1002)


@both_roles
@pytest.mark.requirement("5.2-2", "7.1.7-2")
@pytest.mark.parametrize("first", [0xC1, 0xA1, 0x91, 0xC9, 0xC0, 0xB1, 0xA8, 0x9A])
def test_endpoint_fails_connection_on_a_reserved_bit(role: str, first: int) -> None:
    assert_fails(role, [(first, b"")], 1002)


@both_roles
@pytest.mark.requirement("5.2-2")
@pytest.mark.parametrize("first", [0xC0, 0x90, 0xC9])
def test_endpoint_fails_connection_on_a_reserved_bit_within_a_message(
    role: str, first: int
) -> None:
    assert_fails(role, [(0x01, b"Hel"), (first, b"lo")], 1002)


@both_roles
@pytest.mark.requirement("5.2-3", "7.4.1-2")
@pytest.mark.parametrize("first", [*range(0x83, 0x88), *range(0x8B, 0x90)])
def test_endpoint_fails_connection_on_a_reserved_opcode(role: str, first: int) -> None:
    assert_fails(role, [(first, b"")], 1002)
    assert_fails(role, [(first, b"Hello")], 1002)
    assert_fails(role, [(0x01, b"Hel"), (first, b"x"), (0x80, b"lo")], 1002)


@pytest.mark.requirement("5.2-5")
@pytest.mark.parametrize(
    ("role", "data"),
    [
        ("server", "82 fe 00 05 00 00 00 00 61 62 63 64 65"),
        ("client", "82 7e 00 05 61 62 63 64 65"),
        ("server", "82 ff 00 00 00 00 00 00 00 c8 00 00 00 00" + "61" * 200),
        ("client", "82 7f 00 00 00 00 00 00 00 c8" + "61" * 200),
    ],
)
def test_endpoint_fails_connection_on_a_length_not_in_its_shortest_form(
    role: str, data: str
) -> None:
    assert_bytes_fail(role, data, 1002)


@pytest.mark.requirement("5.2-6")
@pytest.mark.parametrize(
    ("role", "data"),
    [
        ("server", "82 ff 80 00 00 00 00 00 00 05 37 fa 21 3d"),
        ("client", "82 7f 80 00 00 00 00 00 00 05"),
    ],
)
def test_endpoint_fails_connection_on_the_top_bit_of_a_length_without_the_payload(
    role: str, data: str
) -> None:
    assert_bytes_fail(role, data, 1002)


@both_roles
@pytest.mark.requirement("5.2-7")
def test_endpoint_reads_empty_frames_of_every_kind(role: str) -> None:
    with meeting(role) as met:
        for first in (0x81, 0x82, 0x89, 0x8A, 0x01, 0x00, 0x80):
            met.say(first)
        met.say(0x81, b"next")
        assert [met.take() for _ in range(4)] == ["", b"", "", "next"]
        assert met.read_frame() == (0x8A, b"")
        met.say_goodbye()


@pytest.mark.requirement("5.3-1")
@pytest.mark.parametrize("key", ["37fa213d", "00000000", "ffffffff"])
def test_server_unmasks_with_any_key_however_the_frame_is_cut(key: str) -> None:
    with meeting("server") as met:
        for size in range(10):
            frame = met.frame(0x82, some_bytes(size), bytes.fromhex(key))
            assert len(frame) == 6 + size
            for cut in range(1, len(frame)):
                met.peer.send(frame[:cut])
                met.peer.send(frame[cut:])
                assert met.take() == some_bytes(size)


@pytest.mark.requirement("5.3-1")
def test_server_unmasks_each_fragment_with_its_own_key() -> None:
    with meeting("server") as met:
        met.peer.send(met.frame(0x01, b"Hel", bytes.fromhex("37fa213d")))
        met.peer.send(met.frame(0x00, b"lo, ", bytes.fromhex("00000000")))
        met.peer.send(met.frame(0x80, b"world", bytes.fromhex("ff00ff00")))
        assert met.take() == "Hello, world"


@pytest.mark.requirement("5.3-1")
def test_client_sends_frames_that_decode_by_their_keys() -> None:
    with meeting("client", stand_by) as met:
        for size in [*range(10), 4095, 4096, 4097, 9999]:
            met.websocket.send(some_bytes(size))
            assert met.read_frame() == (0x82, some_bytes(size))


# 5.4: fragments


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
@pytest.mark.requirement("5.4-2")
def test_endpoint_joins_a_thousand_fragments_of_one_byte_and_empty_ones(role: str) -> None:
    payload = some_bytes(1000)
    with meeting(role) as met:
        frames = [met.frame(0x02)]
        for i in range(1000):
            frames.append(met.frame(0x00, payload[i : i + 1]))
            if i % 3 == 0:
                frames.append(met.frame(0x00))
        frames.append(met.frame(0x80))
        met.peer.send(b"".join(frames))
        assert met.take() == payload
        met.say_goodbye()
        assert met.rest() == []


@both_roles
@pytest.mark.requirement("5.4-4", "7.1.5-1")
def test_endpoint_answers_a_close_between_fragments_and_drops_the_message(role: str) -> None:
    with meeting(role) as met:
        met.say(0x01, b"Hel")
        met.say_goodbye()
        assert met.rest() == []
        assert met.outcome().code == 1000
        assert met.websocket.clean


@both_roles
@pytest.mark.requirement("5.4-6")
@pytest.mark.parametrize("second", [0x81, 0x01, 0x82, 0x02])
def test_endpoint_fails_connection_on_a_message_within_a_message(role: str, second: int) -> None:
    assert_fails(role, [(0x01, b"a"), (second, b"b")], 1002)


@both_roles
@pytest.mark.requirement("5.4-7")
@pytest.mark.parametrize("first", [0x80, 0x00])
def test_endpoint_fails_connection_on_a_continuation_of_nothing(role: str, first: int) -> None:
    assert_fails(role, [(first, b"x")], 1002)
    assert_fails(role, [(first, b"")], 1002)
    with meeting(role) as met:
        met.say(0x01, b"a")
        met.say(0x80, b"b")
        assert met.take() == "ab"
        met.say(first, b"x")
        assert met.peer.read_close()[0] == 1002
        assert met.rest() == []


@both_roles
@pytest.mark.requirement("6.2-1")
def test_endpoint_gives_each_message_the_type_of_its_first_frame(role: str) -> None:
    with meeting(role) as met:
        for first, payload in [
            (0x01, b"te"),
            (0x80, b"xt"),
            (0x02, b"bin"),
            (0x00, b"ar"),
            (0x80, b"y"),
            (0x01, b""),
            (0x80, b"again"),
            (0x82, b"whole"),
        ]:
            met.say(first, payload)
        assert [met.take() for _ in range(4)] == ["text", b"binary", "again", b"whole"]


@both_roles
@pytest.mark.requirement("5.4-5", "6.1-2")
def test_endpoint_sends_each_message_as_one_frame(role: str) -> None:
    with meeting(role, stand_by) as met:
        sending = met.spawn(met.websocket.send, "x" * 300_000)
        assert met.read_frame() == (0x81, b"x" * 300_000)
        sending.result()
        met.websocket.send(bytearray(b"\x00\xff"))
        met.websocket.send(memoryview(b"\xff\x00"))
        met.websocket.post("posted")
        assert met.read_frame() == (0x82, b"\x00\xff")
        assert met.read_frame() == (0x82, b"\xff\x00")
        assert met.read_frame() == (0x81, b"posted")


@both_roles
@pytest.mark.parametrize("thing", [5, None, 1.5, ["a"], [1, 2], {}], ids=repr)
def test_sending_what_is_neither_text_nor_bytes_raises_and_sends_nothing(
    role: str, thing: Any
) -> None:
    with meeting(role, stand_by) as met:
        for send in (met.websocket.send, met.websocket.post):
            with pytest.raises(TypeError):
                send(thing)
        met.websocket.send("next")
        assert met.read_frame() == (0x81, b"next")


# 5.5: control frames


@both_roles
@pytest.mark.requirement("5.5-1", "5.5.2-4")
def test_ping_of_125_bytes_goes_out_and_of_126_raises(role: str) -> None:
    with meeting(role, stand_by) as met:
        met.websocket.ping(b"\xff" * 125)
        with pytest.raises(ValueError, match="125"):
            met.websocket.ping(b"\xff" * 126)
        met.websocket.send("next")
        assert met.peer.read(2) == bytes.fromhex("89 7d" if role == "server" else "89 fd")
        key = met.peer.read(4) if role == "client" else bytes(4)
        assert xor(met.peer.read(125), key) == b"\xff" * 125
        assert met.read_frame() == (0x81, b"next")


@both_roles
@pytest.mark.requirement("5.5-2")
@pytest.mark.parametrize("first", [0x89, 0x8A, 0x88])
def test_endpoint_fails_connection_on_a_control_frame_over_125_bytes(role: str, first: int) -> None:
    assert_fails(role, [(first, b"\x03\xe8" + bytes(124))], 1002)
    assert_fails(role, [(0x01, b"a"), (first, bytes(70_000))], 1002)


@both_roles
@pytest.mark.requirement("5.5-3")
@pytest.mark.parametrize("first", [0x09, 0x0A, 0x08])
def test_endpoint_fails_connection_on_a_fragmented_control_frame(role: str, first: int) -> None:
    assert_fails(role, [(first, b"\x03\xe8")], 1002)
    assert_fails(role, [(first, b"\x03\xe8"), (0x80, b"")], 1002)


@both_roles
@pytest.mark.requirement("5.5.2-1", "5.5.2-4", "5.5.3-1")
@pytest.mark.parametrize(
    "payload", [b"", b"\x80", b"abc", bytes(range(0x7D)), b"\xff" * 125], ids=repr
)
def test_endpoint_answers_a_ping_with_the_same_bytes(role: str, payload: bytes) -> None:
    with meeting(role) as met:
        met.say(0x89, payload)
        assert met.read_frame() == (0x8A, payload)
        met.say(0x01, b"a")
        met.say(0x89, payload)
        assert met.read_frame() == (0x8A, payload)
        met.say(0x80, b"b")
        assert met.take() == "ab"
        met.say_goodbye()
        assert met.rest() == []


@both_roles
@pytest.mark.requirement("5.5.2-1")
def test_endpoint_answers_pings_in_order_also_in_single_bytes(role: str) -> None:
    with meeting(role) as met:
        pings = met.frame(0x89, b"1") + met.frame(0x89, b"2") + met.frame(0x89, b"3")
        met.peer.send(pings)
        for byte in pings:
            met.peer.send(bytes([byte]))
        payloads = [met.read_frame() for _ in range(6)]
        assert payloads == [(0x8A, b"1"), (0x8A, b"2"), (0x8A, b"3")] * 2


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
@pytest.mark.requirement("5.5.3-3")
def test_endpoint_takes_unsolicited_pongs_without_a_reply(role: str) -> None:
    with meeting(role) as met:
        met.say(0x8A)
        met.say(0x8A, b"unknown")
        met.say(0x8A, b"\xff" * 125)
        met.say(0x89, b"p")
        assert met.read_frame() == (0x8A, b"p")
        met.say_goodbye()
        assert met.rest() == []


@both_roles
@pytest.mark.requirement("5.5.2-3")
def test_endpoint_answers_a_ping_while_its_handler_is_busy(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        met.say(0x89, b"p")
        assert met.read_frame() == (0x8A, b"p")
        assert not met.ended.is_set()


@both_roles
@pytest.mark.requirement("5.5.1-6", "5.5.1-7")
def test_endpoint_answers_a_close_while_its_handler_is_busy(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        met.say(0x88, b"\x0f\xa0later")
        assert met.read_close() == (4000, "")
        assert not met.ended.is_set()
        assert met.state() is not State.OPEN
        with pytest.raises(ConnectionClosed) as closed:
            met.websocket.receive()
        assert (closed.value.code, closed.value.reason) == (4000, "later")


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


# 5.5.1, 7.1: the closing handshake


@both_roles
@pytest.mark.requirement("5.5.1-1", "5.5.1-9")
def test_close_sends_code_and_reason_as_asked(role: str) -> None:
    with meeting(role) as met:
        closing = met.spawn(met.websocket.close, 4001, "bye")
        if role == "server":
            assert met.peer.read(7) == bytes.fromhex("88 05 0f a1 62 79 65")
        else:
            assert met.peer.read(2) == bytes.fromhex("88 85")
            key = met.peer.read(4)
            assert xor(met.peer.read(5), key) == bytes.fromhex("0f a1 62 79 65")
        met.say(0x88, b"\x0f\xa1")
        met.read_eof()
        met.peer.close()
        closing.result()
        assert met.websocket.clean
        assert met.state() is State.CLOSED


@both_roles
@pytest.mark.requirement("5.5.1-2")
def test_endpoint_fails_connection_on_a_close_of_one_byte(role: str) -> None:
    assert_fails(role, [(0x88, b"\x03")], 1002)


@both_roles
@pytest.mark.requirement("5.5.1-3", "7.1.5-2", "7.1.6-1", "7.4.1-5")
def test_endpoint_answers_an_empty_close_and_reports_1005(role: str) -> None:
    with meeting(role) as met:
        met.say(0x88)
        assert met.read_close() in [(None, ""), (1000, "")]
        assert (met.outcome().code, met.outcome().reason) == (1005, "")
        assert (met.websocket.close_code, met.websocket.close_reason) == (1005, "")
        assert met.websocket.clean


@both_roles
@pytest.mark.requirement("5.5.1-4")
def test_close_reason_has_at_most_123_bytes(role: str) -> None:
    with meeting(role) as met:
        with pytest.raises(ValueError, match="123"):
            met.websocket.close(1000, "\u20ac" * 42)
        with pytest.raises(ValueError, match="surrogate"):
            met.websocket.close(1000, "\ud800")
        assert met.state() is State.OPEN
        met.websocket.close(1000, "\u20ac" * 41, wait=False)
        assert met.read_frame() == (0x88, b"\x03\xe8" + b"\xe2\x82\xac" * 41)


@both_roles
@pytest.mark.requirement("5.5.1-5", "6.1-1")
def test_sending_after_close_raises_and_sends_nothing(role: str) -> None:
    with meeting(role) as met:
        met.websocket.close(wait=False)
        for send in (met.websocket.send, met.websocket.post):
            with pytest.raises(ConnectionClosed):
                send("late")
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x88, b"\x03\xe8")
        met.read_eof()
        met.peer.close()
        assert met.ended.wait(PATIENCE)
        for send in (met.websocket.send, met.websocket.post):
            with pytest.raises(ConnectionClosed) as closed:
                send("later")
            assert closed.value.code == 1000


@both_roles
@pytest.mark.requirement("5.5.1-6", "5.5.1-7")
@pytest.mark.parametrize("code", [1000, 3000, 4999])
def test_endpoint_answers_a_close_with_the_same_code(role: str, code: int) -> None:
    with meeting(role) as met:
        met.say(0x88, close_payload(code, "a reason"))
        assert met.read_close()[0] == code
        assert (met.outcome().code, met.outcome().reason) == (code, "a reason")


@both_roles
@pytest.mark.requirement("5.5.1-8", "7.1.5-1")
def test_endpoint_still_receives_after_its_own_close(role: str) -> None:
    with meeting(role) as met:
        met.say(0x01, b"Hel")
        met.websocket.close(wait=False)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x80, b"lo")
        met.say(0x81, b"whole")
        met.say(0x88, b"\x0f\xa0")
        met.read_eof()
        assert met.outcome().code == 4000
        assert met.rest() == ["Hello", "whole"]
        assert met.websocket.clean


@both_roles
@pytest.mark.requirement("5.5.1-8")
def test_waiting_close_passes_over_messages_and_ends_cleanly(role: str) -> None:
    with meeting(role, stand_by) as met:
        met.say(0x01, b"Hel")
        closing = met.spawn(met.websocket.close)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x80, b"lo")
        met.say(0x82, some_bytes(100_000))
        assert closing.running
        met.say(0x88, b"\x0f\xa0")
        met.read_eof()
        met.peer.close()
        closing.result()
        assert met.websocket.clean
        assert met.websocket.close_code == 4000


@pytest.mark.requirement("5.5.1-9")
def test_server_ends_tcp_once_both_close_frames_have_passed() -> None:
    with meeting("server", stand_by, timeouts=BRISK) as met:
        met.say(0x88, b"\x03\xe8")
        assert met.peer.read_close() == (1000, "")
    with meeting("server", stand_by, timeouts=BRISK) as met:
        met.websocket.close(wait=False)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x88, b"\x03\xe8")
        assert met.peer.read_to_eof() == b""


@pytest.mark.requirement("5.5.1-10")
@pytest.mark.parametrize("starts", ["client", "server"])
def test_client_ends_tcp_when_the_server_does_not(starts: str) -> None:
    with meeting("client", timeouts=CALM._replace(close_timeout=0.4)) as met:
        if starts == "client":
            closing = met.spawn(met.websocket.close)
            assert met.read_frame() == (0x88, b"\x03\xe8")
            met.say(0x88, b"\x03\xe8")
        else:
            met.say(0x88, b"\x03\xe8")
            assert met.read_frame() == (0x88, b"\x03\xe8")
            closing = met.spawn(met.websocket.close)
        assert met.peer.read_to_eof() == b""
        closing.result()
        assert met.state() is State.CLOSED
        assert met.websocket.clean


@pytest.mark.requirement("5.5.1-11")
@pytest.mark.parametrize("starts", ["client", "server"])
def test_client_waits_for_the_server_to_end_tcp_first(starts: str) -> None:
    with meeting("client") as met:
        if starts == "client":
            met.websocket.close(wait=False)
            assert met.read_frame() == (0x88, b"\x03\xe8")
            met.say(0x88, b"\x03\xe8")
        else:
            met.say(0x88, b"\x03\xe8")
            assert met.read_frame() == (0x88, b"\x03\xe8")
        assert met.peer.is_silent(0.2)
        met.read_eof()
        assert met.outcome().code == 1000


@pytest.mark.requirement("5.5.1-12", "7.1.4-1")
def test_client_may_end_tcp_itself_once_both_close_frames_have_passed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with meeting("server") as met:
        met.say(0x88, b"\x0f\xa0done")
        assert met.read_frame() == (0x88, b"\x0f\xa0")
        reset(met.peer)
        assert (met.outcome().code, met.outcome().reason) == (4000, "done")
        assert met.websocket.clean
        assert eventually(lambda: met.state() is State.CLOSED)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@both_roles
@pytest.mark.requirement("5.5.1-13", "7.1.5-1")
def test_close_frames_that_cross_complete_the_handshake(role: str) -> None:
    with meeting(role) as met:
        met.websocket.close(4000, wait=False)
        assert met.read_frame() == (0x88, b"\x0f\xa0")
        met.say(0x88, b"\x0f\xa1I too")
        met.read_eof()
        assert (met.outcome().code, met.outcome().reason) == (4001, "I too")
        assert met.websocket.close_code == 4001
        assert met.websocket.clean


@both_roles
@pytest.mark.requirement("7.1.5-1", "7.1.6-1")
def test_first_of_two_received_closes_counts(role: str) -> None:
    with meeting(role) as met:
        met.peer.send(met.frame(0x88, b"\x0f\xa1one") + met.frame(0x88, b"\x0f\xa2two"))
        assert met.read_close() == (4001, "")
        assert (met.outcome().code, met.outcome().reason) == (4001, "one")


@both_roles
@pytest.mark.requirement("5.5.2-2")
def test_endpoint_answers_a_ping_after_its_own_close(role: str) -> None:
    for life in (listen, stand_by):
        with meeting(role, life, timeouts=BRISK) as met:
            met.websocket.close(wait=False)
            assert met.read_frame() == (0x88, b"\x03\xe8")
            met.say(0x89, b"x")
            assert met.read_frame() == (0x8A, b"x")
            met.say(0x88, b"\x03\xe8")
            met.read_eof()


@both_roles
@pytest.mark.requirement("7.1.1-1")
def test_close_ends_in_eof_with_64_kib_behind_it(role: str) -> None:
    with meeting(role) as met:
        met.peer.send(met.frame(0x88, b"\x03\xe8") + bytes(65536))
        assert met.read_close() == (1000, "")
        assert met.outcome().code == 1000


@both_roles
@pytest.mark.requirement("7.1.1-1")
def test_close_over_tls_ends_in_close_notify_with_64_kib_behind_it(
    role: str, certificate: Certificate
) -> None:
    with meeting(role, certificate=certificate) as met:
        met.peer.send(met.frame(0x88, b"\x03\xe8") + bytes(65536))
        assert met.read_close() == (1000, "")
        assert met.outcome().code == 1000


@both_roles
@pytest.mark.requirement("7.1.1-1", "7.1.7-3")
def test_failed_connection_ends_in_eof_with_64_kib_behind_the_bad_frame(role: str) -> None:
    with meeting(role) as met:
        met.peer.send(met.frame(0x83) + bytes(65536))
        assert met.peer.read_close()[0] == 1002
        assert met.rest() == []


@pytest.mark.requirement("7.1.1-1", "7.4.1-2")
@pytest.mark.parametrize(
    ("role", "header"),
    [
        ("server", "82 ff 00 00 00 00 00 80 00 00 00 00 00 00"),
        ("client", "82 7f 00 00 00 00 00 80 00 00"),
    ],
)
def test_peer_that_sends_all_of_a_refused_message_reads_the_close_and_eof(
    role: str, header: str
) -> None:
    with meeting(role) as met:
        met.peer.send(bytes.fromhex(header) + bytes(8 << 20))
        assert met.peer.read_close()[0] == 1009
        assert met.rest() == []


@pytest.mark.requirement("5.5.1-10")
@pytest.mark.parametrize("ending", [0x88, 0x83], ids=["close", "failure"])
def test_client_that_forgets_to_close_lets_go_of_tcp_all_the_same(ending: int) -> None:
    def script(peer: Peer) -> None:
        peer.send(unmasked(ending, b"\x03\xe8"))
        assert peer.read_frame()[0] == 0x88
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.read_to_eof() == b""

    with after_handshake(script) as server:
        websocket = connect(server.url, timeouts=BRISK)
        with pytest.raises(ConnectionClosed):
            websocket.receive()
        assert eventually(lambda: websocket.state is State.CLOSED)


@both_roles
@pytest.mark.requirement("7.1.1-2")
def test_bytes_behind_a_close_are_discarded(role: str) -> None:
    with meeting(role) as met:
        met.peer.send(
            met.frame(0x88, b"\x03\xe8") + met.frame(0x89, b"p") + met.frame(0x81, b"text")
        )
        assert met.read_close() == (1000, "")
        assert met.rest() == []


@both_roles
@pytest.mark.requirement("7.1.3-1")
def test_state_is_closing_from_the_first_close_sent_until_tcp_has_ended(role: str) -> None:
    with meeting(role) as met:
        assert met.state() is State.OPEN
        met.websocket.close(wait=False)
        assert met.state() is State.CLOSE_SENT
        assert met.read_frame() == (0x88, b"\x03\xe8")
        assert met.state() is State.CLOSE_SENT
        met.say(0x88, b"\x03\xe8")
        met.read_eof()
        met.peer.close()
        assert eventually(lambda: met.state() is State.CLOSED)


@both_roles
@pytest.mark.requirement("7.1.3-1")
def test_state_is_closing_from_the_first_close_received_until_tcp_has_ended(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        met.say(0x88, b"\x03\xe8")
        assert met.read_frame() == (0x88, b"\x03\xe8")
        assert eventually(lambda: met.state() is not State.OPEN)
        assert met.state() is State.CLOSE_EXCHANGED
        met.peer.close()
        met.leave.set()
        assert eventually(lambda: met.state() is State.CLOSED)


@both_roles
@pytest.mark.requirement("7.1.4-1", "7.1.5-3", "7.2.1-1")
@pytest.mark.parametrize("end", [Peer.close, reset])
@pytest.mark.parametrize("size", [0, 1, 2, 4], ids=["idle", "header", "length", "frame"])
def test_connection_cut_without_a_close_is_1006_and_not_clean(
    role: str, size: int, end: Callable[[Peer], None]
) -> None:
    with meeting(role) as met:
        met.peer.send(met.frame(0x81, b"Hello")[:size])
        end(met.peer)
        assert met.outcome().code == 1006
        assert met.websocket.close_code == 1006
        assert met.outcome().reason
        assert eventually(lambda: met.state() is State.CLOSED)
        assert not met.websocket.clean
        assert met.rest() == []
        with pytest.raises(ConnectionClosed):
            met.websocket.send("late")


@both_roles
@pytest.mark.requirement("7.1.4-1", "7.1.5-3")
def test_connection_cut_after_its_own_close_is_not_clean(role: str) -> None:
    with meeting(role) as met:
        closing = met.spawn(met.websocket.close)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.peer.close()
        closing.result()
        assert not met.websocket.clean
        assert met.websocket.close_code == 1006
        assert met.state() is State.CLOSED


@both_roles
@pytest.mark.requirement("7.1.6-1")
@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [("03e8 62c3a9", 1000, "b\u00e9"), ("03e8", 1000, ""), ("", 1005, "")],
)
def test_reported_reason_is_the_text_of_the_close(
    role: str, payload: str, code: int, reason: str
) -> None:
    with meeting(role) as met:
        met.say(0x88, bytes.fromhex(payload))
        met.read_close()
        assert (met.outcome().code, met.outcome().reason) == (code, reason)
        assert met.websocket.close_reason == reason


@both_roles
@pytest.mark.requirement("7.1.7-1", "7.1.7-2", "7.1.7-3")
def test_endpoint_processes_nothing_after_it_has_failed_the_connection(role: str) -> None:
    with meeting(role) as met:
        met.peer.send(
            met.frame(0xB1, b"bad")
            + met.frame(0x81, b"text")
            + met.frame(0x89, b"p")
            + met.frame(0x88, b"\x03\xe8")
        )
        assert met.peer.read_close()[0] == 1002
        assert met.rest() == []
        assert met.outcome().code == 1006


@both_roles
@pytest.mark.requirement("7.1.7-3")
def test_endpoint_does_not_process_what_comes_later_either(role: str) -> None:
    with meeting(role) as met:
        met.say(0x83)
        first, payload = met.read_frame()
        assert (first, payload[:2]) == (0x88, b"\x03\xea")
        met.say(0x81, b"text")
        met.say(0x89, b"p")
        met.say(0x88, b"\x0f\xa0")
        assert met.peer.read_to_eof() == b""
        met.peer.close()
        assert met.rest() == []
        assert met.outcome().code == 1006
        assert not met.websocket.clean


@both_roles
@pytest.mark.parametrize("life", [listen, stand_by])
@pytest.mark.requirement("7.1.7-3")
def test_failed_connection_keeps_its_end_until_the_peer_has_stopped_sending(
    role: str, life: Callable[[Meeting], None]
) -> None:
    with meeting(role, life, timeouts=BRISK, max_message=100) as met:
        data = met.frame(0x81, b"not UTF-8: \xff") + met.frame(0x82, bytes(100))
        met.peer.send(data[:-50])
        if life is stand_by:
            with pytest.raises(ConnectionClosed):
                met.websocket.receive()
        assert met.read_frame()[1][:2] == b"\x03\xef"
        for _ in range(6):
            met.peer.send(bytes(1000))
            assert met.peer.is_silent(0.1)
        assert met.peer.read_to_eof() == b""


@both_roles
@pytest.mark.requirement("7.1.7-1")
def test_failed_connection_ends_though_the_peer_keeps_its_socket_open(role: str) -> None:
    with meeting(role, timeouts=CALM._replace(close_timeout=0.4)) as met:
        met.say(0x83)
        assert met.peer.read_close()[0] == 1002
        assert eventually(lambda: met.state() is State.CLOSED)


@pytest.mark.requirement("7.1.7-4")
def test_server_logs_why_it_failed_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rfc6455"), meeting("server") as met:
        met.say(0x83)
        met.peer.read_close()
        name = "127.0.0.1:{1}".format(*met.peer.sock.getsockname())
        lines = [record.getMessage() for record in caplog.records]
        assert [line for line in lines if name in line and "1002" in line and "opcode" in line]


# 7.2: the ends of a handshake that failed


@pytest.mark.requirement("7.2.1-1")
@pytest.mark.parametrize("size", [0, 1, 40, 128])
def test_connect_raises_when_the_server_ends_tcp_in_mid_handshake(size: int) -> None:
    def script(peer: Peer) -> None:
        peer.send(response(peer.read_head())[:size])

    with RawServer(script) as server, pytest.raises(OSError, match="ended"):
        connect(server.url, timeouts=CALM)


@pytest.mark.requirement("7.2.1-1", "6.1-1")
def test_client_that_only_sends_learns_of_the_loss() -> None:
    def send_forever(met: Meeting) -> None:
        while not met.leave.wait(0.005):
            met.websocket.send("anybody there?")

    with meeting("client", send_forever) as met:
        reset(met.peer)
        assert met.outcome().code == 1006
        assert met.state() is State.CLOSED


@pytest.mark.requirement("7.2.1-2", "7.1.4-1", "8.1-3")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Accept: ", b"Accept: x"),
        (b"Upgrade: websocket", b"Upgrade: web"),
        (b" 101 ", b" 200 "),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xff\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: \xff\r\n\r\n"),
    ],
)
def test_client_that_refuses_the_handshake_ends_tcp_without_a_frame(old: bytes, new: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.send(response(peer.read_head()).replace(old, new))
        assert peer.read_to_eof() == b""

    with RawServer(script) as server, pytest.raises(InvalidHandshake):
        connect(server.url, timeouts=CALM)


@pytest.mark.requirement("7.2.2-1", "8.1-3")
@pytest.mark.parametrize(
    ("target", "changes"),
    [
        ("/", {"Sec_WebSocket_Key": "short"}),
        ("/", {"Sec_WebSocket_Protocol": "\xff"}),
        ("/", {"Sec_WebSocket_Extensions": "\xff"}),
        ("/\xff", {}),
        ("/?name=\xff", {}),
    ],
)
def test_server_that_refuses_the_handshake_answers_in_http_without_a_frame(
    target: str, changes: dict[str, str]
) -> None:
    with serving(echo, timeouts=CALM) as server:
        status, text = answer_to(server, request(server, target, **changes) + masked(0x81, b"a"))
        assert status == 400
        head, _, body = text.partition("\r\n\r\n")
        assert f"Content-Length: {len(body)}\r\n" in head
        assert body.isascii()


@pytest.mark.requirement("7.2.2-1")
@pytest.mark.parametrize("size", [0, 1, 60])
def test_server_ends_a_handshake_that_stalls_without_a_frame(size: int) -> None:
    with serving(echo, timeouts=CALM._replace(open_timeout=0.4)) as server, tcp(server) as peer:
        peer.send(request(server)[:size])
        answer = peer.read_to_eof()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert b"\x88" not in answer


# 7.3: normal closes


@pytest.mark.requirement("7.3-1", "5.1-5")
def test_client_takes_a_close_directly_behind_the_handshake() -> None:
    with meeting("client", early=bytes.fromhex("88 02 03 e8")) as met:
        assert met.read_close() == (1000, "")
        assert met.outcome().code == 1000
        assert met.websocket.clean


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


@both_roles
@pytest.mark.requirement("7.3-3")
def test_leaving_the_scope_of_a_connection_closes_with_1000(role: str) -> None:
    with meeting(role, lambda met: None) as met:
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x88, b"\x03\xe8")
        met.read_eof()
        met.peer.close()
        assert eventually(lambda: met.state() is State.CLOSED)
        assert met.websocket.clean


@both_roles
def test_closing_again_does_nothing(role: str) -> None:
    with meeting(role, stand_by) as met:
        first, second = (met.spawn(met.websocket.close, 4000 + i) for i in range(2))
        frame = met.read_frame()
        assert frame in [(0x88, b"\x0f\xa0"), (0x88, b"\x0f\xa1")]
        met.websocket.close(4002, wait=False)
        met.say(0x88, b"\x03\xe8")
        met.read_eof()
        met.peer.close()
        first.result()
        second.result()
        met.websocket.close(4003)
        assert met.websocket.close_code == 1000
        with pytest.raises(ConnectionClosed) as closed:
            met.websocket.receive()
        assert closed.value.code == 1000


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
            assert met.read_frame()[0] == 0x88
        met.peer.sock.shutdown(socket.SHUT_WR)
        assert met.rest() == ["a", b"b"]
        assert met.closed is None
        assert met.websocket.close_code == (4000 if last and last[0] == 0x88 else 1006)


# 7.4: close codes


@pytest.mark.requirement("7.4.1-1")
def test_server_that_shuts_down_closes_with_1001() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(echo, timeouts=CALM))
        peers = [stack.enter_context(shake_hands(server)) for _ in range(3)]
        for peer in peers:  # whoever gets an answer is known to the server
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


@pytest.mark.requirement("7.4.1-1")
def test_client_may_say_that_it_goes_away() -> None:
    with meeting("client") as met:
        met.websocket.close(1001, wait=False)
        assert met.read_frame() == (0x88, b"\x03\xe9")


@both_roles
@pytest.mark.requirement("7.4.1-2", "10.4-1")
def test_message_of_the_limit_is_delivered_and_of_one_byte_more_is_1009(role: str) -> None:
    with meeting(role, max_message=1000) as met:
        met.say(0x82, bytes(1000))
        assert met.take() == bytes(1000)
        met.say(0x01, b"x" * 999)
        met.say(0x80, b"y")
        assert met.take() == "x" * 999 + "y"
        met.say(0x82, bytes(1001))
        assert met.peer.read_close()[0] == 1009
        assert met.rest() == []
    with meeting(role, max_message=1000) as met:
        met.say(0x02, bytes(999))
        met.say(0x80, bytes(2))
        assert met.peer.read_close()[0] == 1009
        assert met.rest() == []


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


@pytest.mark.requirement("7.4.1-4")
def test_server_closes_with_1011_when_its_handler_raises(caplog: pytest.LogCaptureFixture) -> None:
    def fragile(websocket: WebSocket) -> None:
        for message in websocket:
            if message == "break":
                raise RuntimeError("a fault of the handler")
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


@both_roles
@pytest.mark.requirement("7.4.1-5", "7.4.2-2")
def test_close_with_a_code_that_may_not_travel_raises_and_sends_nothing(role: str) -> None:
    with meeting(role) as met:
        for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65535, 65536):
            with pytest.raises(ValueError, match=str(code)):
                met.websocket.close(code)
        assert met.state() is State.OPEN
        met.websocket.send("open")
        assert met.read_frame() == (0x81, b"open")


@both_roles
@pytest.mark.requirement("7.4.1-6", "7.4.2-2")
@pytest.mark.parametrize(
    "payload",
    [
        "0000", "03e7", "03ec", "03ed", "03ee", "03f7", "1388", "ffff",
        "03f8", "044c", "07d0", "0bb7", "03ee 62796521",
    ],
)  # fmt: skip
def test_received_code_that_may_not_travel_is_a_protocol_error(role: str, payload: str) -> None:
    assert_fails(role, [(0x88, bytes.fromhex(payload))], 1002)


@pytest.mark.requirement("7.4.1-8")
def test_server_does_not_close_with_1010() -> None:
    with meeting("server") as met:
        with pytest.raises(ValueError, match="1010"):
            met.websocket.close(1010)
        met.websocket.send("open")
        assert met.read_frame() == (0x81, b"open")
    with meeting("client") as met:
        met.websocket.close(1010, wait=False)
        assert met.read_frame() == (0x88, b"\x03\xf2")


@both_roles
@pytest.mark.requirement("7.4.1-9", "7.4.2-1", "7.4.2-3")
@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("03e8", 1000), ("03e9", 1001), ("03ea", 1002), ("03eb", 1003), ("03ef", 1007),
        ("03f0", 1008), ("03f1", 1009), ("03f2", 1010), ("03f3", 1011), ("03f4", 1012),
        ("03f5", 1013), ("03f6", 1014), ("0bb8", 3000), ("0f9f", 3999), ("0fa0", 4000),
        ("1387", 4999),
    ],
)  # fmt: skip
def test_received_code_that_may_travel_is_answered_and_reported(
    role: str, payload: str, code: int
) -> None:
    with meeting(role) as met:
        met.say(0x88, bytes.fromhex(payload) + b"why")
        assert met.read_close() == (code, "")
        assert (met.outcome().code, met.outcome().reason) == (code, "why")
        assert met.websocket.clean


@both_roles
@pytest.mark.requirement("7.4.2-1")
@pytest.mark.parametrize(
    ("code", "payload"), [(3000, "0bb8"), (3999, "0f9f"), (4000, "0fa0"), (4999, "1387")]
)
def test_codes_of_libraries_and_applications_are_free_to_send(
    role: str, code: int, payload: str
) -> None:
    with meeting(role) as met:
        met.websocket.close(code, "why", wait=False)
        assert met.read_frame() == (0x88, bytes.fromhex(payload) + b"why")


# 5.6, 8.1: text


@both_roles
@pytest.mark.requirement("5.6-1")
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d\ude00"], ids=ascii)
def test_sending_a_lone_surrogate_raises_and_sends_nothing(role: str, text: str) -> None:
    with meeting(role, stand_by) as met:
        for send in (met.websocket.send, met.websocket.post):
            with pytest.raises(ValueError, match="surrogate"):
                send(text)
        met.websocket.send("\U0001f600")
        assert met.read_frame() == (0x81, b"\xf0\x9f\x98\x80")


@both_roles
@pytest.mark.requirement("5.6-2")
def test_fragment_may_end_inside_a_character(role: str) -> None:
    with meeting(role) as met:
        met.say(0x01, b"\xe2\x82")
        met.say(0x80, b"\xac")
        assert met.take() == "\u20ac"
        met.say(0x01, b"\xe2")
        met.say(0x89, b"p")
        met.say(0x00, b"\x82")
        met.say(0x00)
        met.say(0x80, b"\xac")
        assert met.take() == "\u20ac"
        assert met.read_frame() == (0x8A, b"p")


@both_roles
@pytest.mark.requirement("5.6-3")
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("00", "\0"),
        ("ef bb bf 61", "\ufeffa"),
        ("ef bf bf", "\uffff"),
        ("ef b7 90", "\ufdd0"),
        ("ed 9f bf", "\ud7ff"),
        ("ee 80 80", "\ue000"),
        ("f4 8f bf bf", "\U0010ffff"),
    ],
)
def test_every_valid_text_is_delivered_unchanged(role: str, payload: str, text: str) -> None:
    with meeting(role) as met:
        data = bytes.fromhex(payload)
        met.say(0x81, data)
        assert met.take() == text
        met.say(0x01)
        for byte in data:
            met.say(0x00, bytes([byte]))
        met.say(0x80)
        assert met.take() == text
        met.websocket.send(text)
        assert met.read_frame() == (0x81, data)


@both_roles
@pytest.mark.requirement("5.6-4")
@pytest.mark.parametrize("payload", [bytes(range(256)), b"\xc0\x80"], ids=["all", "overlong"])
def test_binary_data_is_not_checked_as_text(role: str, payload: bytes) -> None:
    with meeting(role) as met:
        met.say(0x82, payload)
        met.say(0x02, payload[:1])
        met.say(0x80, payload[1:])
        assert [met.take(), met.take()] == [payload, payload]
        met.websocket.send(payload)
        assert met.read_frame() == (0x82, payload)


@both_roles
@pytest.mark.requirement("8.1-1", "7.4.1-2")
@pytest.mark.parametrize(
    "text",
    [
        "80", "c3 28", "c0 80", "e0 80 af", "ed a0 80", "f4 90 80 80", "f8 88 80 80 80", "ff",
        "fe", "e2 82", "61 f0 9f 98",
    ],
)  # fmt: skip
def test_endpoint_fails_connection_on_text_that_is_not_utf_8(role: str, text: str) -> None:
    data = bytes.fromhex(text)
    assert_fails(role, [(0x81, data)], 1007)
    assert_fails(role, [(0x81, b"valid until " + data)], 1007)
    single_bytes = [(0x00, bytes([byte])) for byte in data]
    assert_fails(role, [(0x01, b""), *single_bytes, (0x80, b"")], 1007)


@both_roles
@pytest.mark.requirement("8.1-1")
def test_endpoint_fails_connection_where_text_turns_bad_without_the_rest(role: str) -> None:
    assert_fails(role, [(0x01, b"fine so far"), (0x00, b"\xed\xa0")], 1007)
    with meeting(role) as met:
        met.peer.send(met.frame(0x81, b"fine so far \xff" + bytes(100))[:-100])
        assert met.peer.read_close()[0] == 1007
        assert met.rest() == []


@both_roles
@pytest.mark.requirement("8.1-2", "7.1.6-1")
@pytest.mark.parametrize("reason", ["ff fe", "ed a0 80", "61 e2 82"])
def test_endpoint_fails_connection_on_a_close_reason_that_is_not_utf_8(
    role: str, reason: str
) -> None:
    with meeting(role) as met:
        met.say(0x88, b"\x03\xe8" + bytes.fromhex(reason))
        assert met.peer.read_close()[0] == 1007
        assert "\ufffd" not in met.outcome().reason
        assert met.outcome().code == 1006


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


# 10.4: limits; 10.7: any input


@pytest.mark.requirement("10.4-1")
@pytest.mark.parametrize(
    ("role", "header"),
    [
        ("server", "82 ff 10 00 00 00 00 00 00 00 37 fa 21 3d"),
        ("server", "01 ff 10 00 00 00 00 00 00 00"),
        ("client", "82 7f 10 00 00 00 00 00 00 00"),
        ("client", "01 7f 10 00 00 00 00 00 00 00"),
    ],
)
def test_endpoint_refuses_2_to_the_60_bytes_at_the_header(role: str, header: str) -> None:
    with meeting(role) as met:
        tracemalloc.start()
        try:
            met.peer.send(bytes.fromhex(header))
            code, _ = met.peer.read_close()
            assert met.rest() == []
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert code == 1009
        assert peak < 1_000_000


@both_roles
@pytest.mark.requirement("10.4-2", "10.4-3")
@pytest.mark.parametrize("options", [{"max_message": 1 << 20}, {}], ids=["set", "default"])
def test_endpoint_ends_a_message_of_endless_fragments_at_one_mebibyte(
    role: str, options: dict[str, Any]
) -> None:
    with meeting(role, **options) as met:
        met.say(0x02)
        fragment = met.frame(0x00, bytes(4096))
        for _ in range(256):
            met.peer.send(fragment)
        met.say(0x89, b"all taken")
        assert met.read_frame() == (0x8A, b"all taken")
        met.say(0x00, b"x")
        assert met.peer.read_close()[0] == 1009
        assert met.rest() == []


def odd_inputs(seed: int, frame: Callable[[int, bytes], bytes]) -> Iterator[bytes]:
    """Random bytes, and good frames with random faults."""
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
    """Whole frames; a Close only as the last."""
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
    with serving(echo, timeouts=CALM) as server, shake_hands(server) as witness:
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


# 10.3: what was handed over can't change any more


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

"""How much memory a peer may take, and how lazily it is taken, without a socket (RFC 6455, 10.4).

What has arrived is parsed, joined and inflated only when the next message is asked for.
"""

import tracemalloc
from typing import Any

import pytest

from protocols import (
    Cut,
    Endpoint,
    both_roles,
    failure,
    hex_or_bytes,
    however_it_arrives,
    single_bytes,
)
from rfc6455 import Deflate, State
from rfc6455.protocol import Protocol

MIB = 1 << 20


# 10.4: limits


@both_roles
@however_it_arrives
@pytest.mark.requirement("7.4.1-2", "10.4-1", "10.4-2")
def test_message_of_the_limit_is_received_and_one_byte_more_fails_the_connection(
    role: str, arriving: Cut
) -> None:
    too_big = (1009, "the message is over 1000 bytes")
    endpoint = Endpoint(role, max_message=1000)
    of_the_limit = bytes.fromhex("82 7e 03e8") + bytes(1000)
    assert endpoint.receive(of_the_limit, arriving) == [bytes(1000)]
    in_two = bytes.fromhex("01 7e 03e7") + b"x" * 999 + bytes.fromhex("80 01 79")
    assert endpoint.receive(in_two + of_the_limit, arriving) == ["x" * 999 + "y", bytes(1000)]
    assert endpoint.receive("82 7e 03e9", arriving) == []
    endpoint.assert_failed(*too_big)
    for second in ("80 02", "00 02"):
        endpoint = Endpoint(role, max_message=1000)
        first = bytes.fromhex("02 7e 03e7") + bytes(999)
        assert endpoint.receive(first + bytes.fromhex(second), arriving) == []
        endpoint.assert_failed(*too_big)


@pytest.mark.requirement("10.4-1")
@pytest.mark.parametrize(
    ("role", "header"),
    [
        ("server", "82 ff 10 00 00 00 00 00 00 00 37 fa 21 3d"),
        ("server", "01 ff 10 00 00 00 00 00 00 00"),
        ("server", "82 ff 7f ff ff ff ff ff ff ff"),
        ("client", "82 7f 10 00 00 00 00 00 00 00"),
        ("client", "01 7f 10 00 00 00 00 00 00 00"),
    ],
)
def test_endpoint_refuses_2_to_the_60_bytes_at_the_header_without_taking_memory(
    role: str, header: str
) -> None:
    tracemalloc.start()
    try:
        assert failure(role, header) == (1009, "the message is over 1048576 bytes")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@both_roles
@pytest.mark.requirement("10.4-2", "10.4-3")
@pytest.mark.parametrize("options", [{"max_message": MIB}, {}], ids=["set", "default"])
def test_endpoint_ends_a_message_of_endless_fragments_at_one_mebibyte(
    role: str, options: dict[str, Any]
) -> None:
    endpoint = Endpoint(role, **options)
    assert endpoint.receive("02 00") == []
    fragment = bytes.fromhex("00 7e 1000") + bytes(4096)
    for _ in range(256):
        assert endpoint.receive(fragment) == []
    assert endpoint.protocol.state is State.OPEN
    assert endpoint.receive("00 01 78") == []
    endpoint.assert_failed(1009, "the message is over 1048576 bytes")


@both_roles
@pytest.mark.requirement("10.4-2")
@pytest.mark.parametrize(
    ("first", "payload", "message"),
    [
        ("02", b"x", b"x" * 65536),
        ("01", b"x", "x" * 65536),
        ("01", "\U0001f600".encode(), "\U0001f600" * 16384),
    ],
    ids=["binary", "text", "text of four bytes a character"],
)
def test_message_in_fragments_of_one_byte_takes_memory_for_the_message_alone(
    role: str, first: str, payload: bytes, message: str | bytes
) -> None:
    """The pieces in a list would take eight bytes for each, even if all were the same object."""
    size = 65536
    endpoint = Endpoint(role)
    fragment = b"".join(b"\x00\x01" + byte for byte in single_bytes(payload))
    fragments = endpoint.by_the_peer(fragment * (4096 // len(payload)))
    endpoint.feed(f"{first} 00")
    tracemalloc.start()
    try:
        for _ in range(size // 4096):
            endpoint.protocol.receive_data(fragments)
            assert endpoint.messages() == []
        endpoint.feed("80 00")
        received = endpoint.messages()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received == [message]
    assert peak < 7 * size


# How many fragments a message may have


@both_roles
@pytest.mark.parametrize(
    ("fragment", "most", "reason"),
    [
        ("00 00", 1000, "the message has more than 1000 empty fragments"),
        ("00 01 61", 131_072, "the message has more than 131072 fragments"),
    ],
    ids=["empty", "of one byte"],
)
def test_message_may_have_so_many_fragments_and_one_more_fails_the_connection(
    role: str, fragment: str, most: int, reason: str
) -> None:
    """The first of the fragments, and the last of the good message, are two of them."""
    first = "01" + fragment[2:]
    last = "80" + fragment[2:]
    many = bytes.fromhex(fragment) * (most - 2)
    endpoint = Endpoint(role)
    text = "a" * most if "61" in fragment else ""
    for _ in range(2):  # each message has as many
        assert endpoint.receive(bytes.fromhex(first) + many + bytes.fromhex(last)) == [text]
    assert endpoint.receive(bytes.fromhex(first) + many + bytes.fromhex(fragment)) == []
    assert endpoint.protocol.state is State.OPEN
    assert endpoint.receive(last) == []
    endpoint.assert_failed(1008, reason)


@both_roles
def test_empty_fragments_among_others_and_those_of_a_compressed_message_count(role: str) -> None:
    reason = "the message has more than 1000 empty fragments"
    for first, fragments in [("02 01 61", "00 01 61 00 00 89 00"), ("42 00", "00 00")]:
        endpoint = Endpoint(role, deflate=Deflate())
        assert endpoint.receive(first) == []
        assert endpoint.receive(bytes.fromhex(fragments) * 1100) == []
        assert endpoint.error == (1008, reason)


@both_roles
def test_messages_that_are_empty_and_not_fragmented_have_no_limit(role: str) -> None:
    assert Endpoint(role).receive("82 00" * 3000) == [b""] * 3000


@both_roles
def test_fragment_whose_header_comes_alone_is_not_taken_for_an_empty_one(role: str) -> None:
    endpoint = Endpoint(role)
    header = 6 if role == "server" else 2
    fragment = endpoint.by_the_peer("00 01 61")
    endpoint.feed("02 00")
    for _ in range(1100):
        for piece in (fragment[:header], fragment[header:]):
            endpoint.protocol.receive_data(piece)
            assert endpoint.messages() == []
    assert endpoint.receive("80 00") == [b"a" * 1100]


# Laziness: what stands behind a message waits until it is asked for


@both_roles
@pytest.mark.requirement("10.4-1")
@pytest.mark.parametrize("behind", ["83 00", "82 7f 1000000000000000", "88 02 03e8", "89 01 70"])
def test_nothing_behind_a_message_is_looked_at_before_the_next_is_asked_for(
    role: str, behind: str
) -> None:
    endpoint = Endpoint(role)
    endpoint.feed(f"81 01 61  82 01 62  {behind}")
    protocol = endpoint.protocol
    assert protocol.next_message() == "a"
    assert protocol.unread == len(endpoint.by_the_peer(f"82 01 62 {behind}"))
    assert protocol.next_message() == b"b"
    assert protocol.unread == len(endpoint.by_the_peer(behind))
    assert protocol.state is State.OPEN
    assert not protocol.has_data_to_send
    assert protocol.next_message() is None
    assert protocol.has_data_to_send


@both_roles
def test_message_is_inflated_only_when_it_is_asked_for(role: str) -> None:
    """The second message of the two does not inflate: its block has a type that does not exist."""
    endpoint = Endpoint(role, deflate=Deflate())
    endpoint.feed("c1 07 f248cdc9c90700  c1 01 07")
    assert endpoint.protocol.next_message() == "Hello"
    assert endpoint.protocol.state is State.OPEN
    assert endpoint.messages() == []
    endpoint.assert_failed(1007, "the data is not deflated")


@both_roles
def test_messages_that_inflate_to_the_limit_take_memory_one_after_the_other(role: str) -> None:
    """Each is a MiB of zeros, deflated to 1,034 bytes."""
    sender = Protocol(is_client=False, deflate=Deflate())
    zeros = sender.build_message(bytes(MIB))
    assert len(zeros) < 1100
    endpoint = Endpoint(role, deflate=Deflate())
    endpoint.feed(zeros * 20)
    tracemalloc.start()
    try:
        for _ in range(20):
            assert endpoint.protocol.next_message() == bytes(MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * MIB


@both_roles
def test_bytes_that_are_missing_of_a_frame_are_known_from_its_header_on(role: str) -> None:
    endpoint = Endpoint(role)
    frame = endpoint.by_the_peer(bytes.fromhex("82 7e 03e8") + bytes(1000))
    header = 8 if role == "server" else 4
    protocol = endpoint.protocol
    for fed, missing, cut_off in [
        (frame[: header - 1], 0, True),
        (frame[header - 1 : header], 1000, True),
        (frame[header : header + 400], 600, True),
        (frame[header + 400 : -1], 1, True),
    ]:
        protocol.receive_data(fed)
        assert protocol.next_message() is None
        assert (protocol.missing, protocol.is_within_frame) == (missing, cut_off)
    protocol.receive_data(frame[-1:])
    assert not protocol.is_within_frame
    assert protocol.next_message() == bytes(1000)
    assert (protocol.missing, protocol.unread, protocol.is_within_frame) == (0, 0, False)


@both_roles
def test_compressed_message_counts_as_what_it_inflates_to(role: str) -> None:
    sender = Protocol(is_client=False, deflate=Deflate())
    endpoint = Endpoint(role, max_message=1000, deflate=Deflate())
    assert endpoint.receive(sender.build_message("x" * 1000)) == ["x" * 1000]
    assert endpoint.receive(sender.build_message("x" * 1001)) == []
    endpoint.assert_failed(1009, "the inflated message is too big")


@both_roles
@however_it_arrives
def test_fragments_of_a_compressed_message_count_together(role: str, arriving: Cut) -> None:
    """The message is "Hello", whose first fragment inflates to nothing, or to some of it."""
    hello = hex_or_bytes("f248cdc9c90700")
    for cut in range(len(hello) + 1):
        frames = bytes([0x41, cut]) + hello[:cut] + bytes([0x80, 7 - cut]) + hello[cut:]
        endpoint = Endpoint(role, max_message=5, deflate=Deflate())
        assert endpoint.receive(frames, arriving) == ["Hello"]
        assert endpoint.receive("81 05 48656c6c6f", arriving) == ["Hello"]
        endpoint = Endpoint(role, max_message=4, deflate=Deflate())
        assert endpoint.receive(frames, arriving) == []
        assert endpoint.error == (1009, "the inflated message is too big")

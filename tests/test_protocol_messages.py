"""Messages out of the bytes that come in, without a socket (RFC 6455, 5.1-5.4, 5.6, 6.2, 8.1).

What a frame may be, `test_frames` holds in more detail; here it is what both roles make of it.
"""

import pytest

from peers import MASK, unmasked, xor
from protocols import (
    LENGTHS,
    Cut,
    Endpoint,
    as_client,
    assert_fails,
    both_roles,
    failure,
    however_it_arrives,
    single_bytes,
    some_bytes,
    whole,
)
from rfc6455 import State
from rfc6455.protocol import Protocol

# 5.1, 5.2: frames that come in


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.2-4", "5.2-7", "6.2-1")
@pytest.mark.parametrize(("size", "bare", "with_mask"), LENGTHS)
def test_endpoint_receives_each_form_of_the_length(
    role: str, size: int, bare: str, with_mask: str, arriving: Cut
) -> None:
    payload = b"x" * size
    endpoint = Endpoint(role)
    protocol = endpoint.protocol
    received = []
    for first in ("81", "82"):
        if role == "server":
            frame = bytes.fromhex(f"{first} {with_mask}") + MASK + xor(payload, MASK)
        else:
            frame = bytes.fromhex(f"{first} {bare}") + payload
        for piece in arriving(frame):
            protocol.receive_data(piece)
            received += endpoint.messages()
        assert protocol.unread == protocol.missing == 0
        assert not protocol.is_within_frame
    assert received == ["x" * size, payload]
    assert protocol.data_to_send() == b""


@both_roles
@pytest.mark.requirement("5.2-4", "6.2-1")
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 7, 8, 9, 10, 13, 14, 15, 200, 65539])
@pytest.mark.parametrize("size", [5, 200, 65536])
def test_endpoint_receives_a_message_cut_anywhere_in_its_header(
    role: str, size: int, cut: int
) -> None:
    def arriving(data: bytes) -> list[bytes]:
        return [data[:cut], data[cut:]]

    length = {5: "05", 200: "7e 00c8", 65536: "7f 0000000000010000"}[size]
    frame = bytes.fromhex(f"82 {length}") + some_bytes(size)
    endpoint = Endpoint(role)
    assert endpoint.receive(frame + frame, arriving) == [some_bytes(size)] * 2


@both_roles
def test_endpoint_knows_whether_a_message_is_under_way_and_how_much_of_it_has_come(
    role: str,
) -> None:
    endpoint = Endpoint(role)
    protocol = endpoint.protocol
    for frames, is_within, size in [
        ("", False, 0),
        ("01 03 48656c", True, 3),
        ("89 01 70", True, 3),
        ("00 00", True, 3),
        ("00 01 6c", True, 4),
        ("80 01 6f", False, 0),
        ("82 01 ff", False, 0),
        ("82", True, 0),
    ]:
        endpoint.receive(frames)
        assert (protocol.is_within_message, protocol.message_size) == (is_within, size)


@pytest.mark.requirement("5.1-2", "7.1.7-1")
@pytest.mark.parametrize(
    "frame", ["81 05 48 65 6c 6c 6f", "82 00", "82 7e", "89 00", "8a 00", "88 00", "00 00"]
)
def test_server_fails_connection_on_an_unmasked_frame(frame: str) -> None:
    assert failure("server", frame) == (1002, "the frame is not masked")


@pytest.mark.requirement("5.1-4", "7.1.7-1")
@pytest.mark.parametrize(
    "frame",
    ["81 85 37fa213d 7f9f4d5158", "82 80 00000000", "82 fe", "89 80 00000000", "88 80 00000000"],
)
def test_client_fails_connection_on_a_masked_frame(frame: str) -> None:
    assert failure("client", frame) == (1002, "the frame is masked")


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.2-2", "7.1.7-2")
@pytest.mark.parametrize(
    "frames",
    [
        "c1 00", "a1 00", "91 00", "c9 00", "c0 00", "b1 00", "a8 00", "9a 00",
        # within a message
        "01 03 48656c  c0 02 6c6f", "01 03 48656c  90 02 6c6f", "01 03 48656c  c9 02 6c6f",
    ],
)  # fmt: skip
def test_endpoint_fails_connection_on_a_reserved_bit(role: str, frames: str, arriving: Cut) -> None:
    assert_fails(role, frames, 1002, "a reserved bit is set", arriving)


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.2-3", "7.4.1-2")
@pytest.mark.parametrize("opcode", [*range(0x3, 0x8), *range(0xB, 0x10)])
def test_endpoint_fails_connection_on_a_reserved_opcode(
    role: str, opcode: int, arriving: Cut
) -> None:
    reason = f"opcode 0x{opcode:X} is reserved"
    assert_fails(role, bytes([0x80 | opcode, 0]), 1002, reason, arriving)
    assert_fails(role, bytes([0x80 | opcode, 5]) + b"Hello", 1002, reason, arriving)
    within = bytes.fromhex("01 03 48656c") + bytes([opcode, 1]) + bytes.fromhex("78 80 02 6c6f")
    assert_fails(role, within, 1002, reason, arriving)


@pytest.mark.requirement("5.2-5", "5.2-6")
@pytest.mark.parametrize(
    ("role", "header"),
    [
        ("server", "82 fe 00 7d"),
        ("client", "82 7e 00 7d"),
        ("server", "82 fe 00 05 00 00 00 00 61 62 63 64 65"),
        ("client", "82 7e 00 05 61 62 63 64 65"),
        ("server", "82 ff 00 00 00 00 00 00 00 c8 00 00 00 00" + "61" * 200),
        ("client", "82 7f 00 00 00 00 00 00 00 c8" + "61" * 200),
        ("server", "82 ff 00 00 00 00 00 00 ff ff"),
        ("client", "82 7f 00 00 00 00 00 00 ff ff"),
        # the top bit
        ("server", "82 ff 80 00 00 00 00 00 00 05 37 fa 21 3d"),
        ("client", "82 7f 80 00 00 00 00 00 00 05"),
    ],
)
def test_endpoint_fails_connection_on_a_length_that_is_badly_encoded_at_its_header(
    role: str, header: str
) -> None:
    assert failure(role, header) == (1002, "the length is badly encoded")


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.2-7")
def test_endpoint_receives_empty_frames_of_every_kind(role: str, arriving: Cut) -> None:
    endpoint = Endpoint(role)
    frames = "81 00  82 00  89 00  8a 00  01 00  00 00  80 00  81 04 6e657874"
    assert endpoint.receive(frames, arriving) == ["", b"", "", "next"]
    assert endpoint.sent() == bytes.fromhex("8a 00")
    assert endpoint.protocol.pongs == 1


@however_it_arrives
@pytest.mark.requirement("5.3-1")
@pytest.mark.parametrize("key", ["37fa213d", "00000000", "ffffffff"])
def test_server_unmasks_with_any_key(key: str, arriving: Cut) -> None:
    endpoint = Endpoint("server")
    for size in [*range(10), 4097]:
        frame = as_client(unmasked(0x82, some_bytes(size)), bytes.fromhex(key))
        for piece in arriving(frame):
            endpoint.protocol.receive_data(piece)
            if (message := endpoint.protocol.next_message()) is not None:
                assert message == some_bytes(size)
        assert endpoint.protocol.unread == endpoint.protocol.missing == 0


@however_it_arrives
@pytest.mark.requirement("5.3-1")
def test_server_unmasks_each_fragment_with_its_own_key(arriving: Cut) -> None:
    data = (
        as_client(b"\x01\x03Hel", bytes.fromhex("37fa213d"))
        + as_client(b"\x00\x04lo, ", bytes.fromhex("00000000"))
        + as_client(b"\x80\x05world", bytes.fromhex("ff00ff00"))
    )
    protocol = Protocol(is_client=False)
    received = []
    for piece in arriving(data):
        protocol.receive_data(piece)
        received.append(protocol.next_message())
    assert received[-1] == "Hello, world"
    assert set(received[:-1]) <= {None}


# 5.4, 6.2: fragments


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.4-1", "5.4-2", "5.4-3", "6.2-1")
@pytest.mark.parametrize(
    ("frames", "messages"),
    [
        ("01 03 48656c  80 02 6c6f", ["Hello"]),
        ("02 03 48656c  80 02 6c6f", [b"Hello"]),
        ("01 00  80 00", [""]),
        ("02 00  80 00", [b""]),
        ("01 03 48656c  00 00  80 02 6c6f  82 01 ff", ["Hello", b"\xff"]),
        # Each message has the type of its first frame.
        (
            "01 02 7465 80 02 7874  02 03 62696e 00 02 6172 80 01 79"
            "  01 00 80 05 616761696e  82 05 77686f6c65",
            ["text", b"binary", "again", b"whole"],
        ),
        # A Pong between fragments is none of the message.
        ("01 01 61  8a 01 78  80 01 62", ["ab"]),
    ],
)
def test_endpoint_joins_the_fragments_of_a_message(
    role: str, frames: str, messages: list[str | bytes], arriving: Cut
) -> None:
    endpoint = Endpoint(role)
    assert endpoint.receive(frames, arriving) == messages
    assert endpoint.protocol.state is State.OPEN
    assert endpoint.sent() == b""


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.4-2")
def test_endpoint_joins_a_thousand_fragments_of_one_byte_and_empty_ones(
    role: str, arriving: Cut
) -> None:
    payload = some_bytes(1000)
    frames = b"\x02\x00"
    for i in range(1000):
        frames += b"\x00\x01" + payload[i : i + 1]
        if i % 3 == 0:
            frames += b"\x00\x00"
    endpoint = Endpoint(role)
    assert endpoint.receive(frames, arriving) == []
    assert endpoint.receive("80 00", arriving) == [payload]


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.4-6")
@pytest.mark.parametrize("second", ["81 01 62", "01 01 62", "82 01 62", "02 01 62", "81 00"])
def test_endpoint_fails_connection_on_a_message_within_a_message(
    role: str, second: str, arriving: Cut
) -> None:
    assert_fails(
        role, f"01 01 61 {second}", 1002, "a new message before the last one was complete", arriving
    )


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.4-7")
@pytest.mark.parametrize("frame", ["80 01 78", "00 01 78", "80 00", "00 00"])
def test_endpoint_fails_connection_on_a_continuation_of_nothing(
    role: str, frame: str, arriving: Cut
) -> None:
    assert_fails(role, frame, 1002, "a continuation frame without a message to continue", arriving)
    endpoint = Endpoint(role)
    assert endpoint.receive("01 01 61  80 01 62", arriving) == ["ab"]
    assert endpoint.receive(frame, arriving) == []
    endpoint.assert_failed(1002, "a continuation frame without a message to continue")


# 5.6, 8.1: text


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.6-2")
def test_fragment_may_end_inside_a_character(role: str, arriving: Cut) -> None:
    endpoint = Endpoint(role)
    assert endpoint.receive("01 02 e282  80 01 ac", arriving) == ["\u20ac"]
    frames = "01 01 e2  89 01 70  00 01 82  00 00  80 01 ac"
    assert endpoint.receive(frames, arriving) == ["\u20ac"]
    assert endpoint.sent() == bytes.fromhex("8a 01 70")


@both_roles
@pytest.mark.requirement("5.6-3")
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("00", "\0"),
        ("7f", "\x7f"),
        ("c2 80", "\x80"),
        ("df bf", "\u07ff"),
        ("e0 a0 80", "\u0800"),
        ("ef bb bf 61", "\ufeffa"),
        ("ef bf bf", "\uffff"),
        ("ef b7 90", "\ufdd0"),
        ("ed 80 80", "\ud000"),
        ("ed 9f bf", "\ud7ff"),
        ("ee 80 80", "\ue000"),
        ("f0 90 80 80", "\U00010000"),
        ("f4 8f bf bf", "\U0010ffff"),
        # No kind of line end is translated.
        ("0d 0a", "\r\n"),
        ("61 0d 62 0a 63 0d 0a 0d 0d 0a", "a\rb\nc\r\n\r\r\n"),
        ("e2 80 a8", "\u2028"),
    ],
)
def test_every_valid_text_is_received_and_sent_unchanged(
    role: str, payload: str, text: str
) -> None:
    data = bytes.fromhex(payload)
    frame = bytes([0x81, len(data)]) + data
    fragments = b"\x01\x00" + b"".join(b"\x00\x01" + byte for byte in single_bytes(data))
    halved = b"\x01\x01" + data[:1] + bytes([0x80, len(data) - 1]) + data[1:]
    endpoint = Endpoint(role)
    for frames in (frame, fragments + b"\x80\x00", halved):
        for arriving in (whole, single_bytes):
            assert endpoint.receive(frames, arriving) == [text]
    assert endpoint.readable(endpoint.protocol.build_message(text)) == frame


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.6-4")
@pytest.mark.parametrize("payload", [bytes(range(256)), b"\xc0\x80"], ids=["all", "overlong"])
def test_binary_data_is_not_checked_as_text(role: str, payload: bytes, arriving: Cut) -> None:
    frame = unmasked(0x82, payload)
    rest = payload[1:]
    endpoint = Endpoint(role)
    assert endpoint.receive(frame, arriving) == [payload]
    fragments = b"\x02\x01" + payload[:1] + unmasked(0x80, rest)
    assert endpoint.receive(fragments, arriving) == [payload]
    assert endpoint.readable(endpoint.protocol.build_message(payload)) == frame


@both_roles
@however_it_arrives
@pytest.mark.requirement("8.1-1", "7.4.1-2")
@pytest.mark.parametrize(
    "text",
    [
        "80", "c3 28", "c0 80", "e0 80 af", "ed a0 80", "f4 90 80 80", "f8 88 80 80 80", "ff",
        "fe", "e2 82", "61 f0 9f 98",
    ],
)  # fmt: skip
def test_endpoint_fails_connection_on_text_that_is_not_utf_8(
    role: str, text: str, arriving: Cut
) -> None:
    data = bytes.fromhex(text)
    for payload in (data, b"valid until " + data):
        frame = bytes([0x81, len(payload)]) + payload
        assert_fails(role, frame, 1007, "the text is not UTF-8", arriving)
    fragments = b"\x01\x00" + b"".join(b"\x00\x01" + byte for byte in single_bytes(data))
    assert_fails(role, fragments + b"\x80\x00", 1007, "the text is not UTF-8", arriving)


@both_roles
@however_it_arrives
@pytest.mark.requirement("8.1-1")
@pytest.mark.parametrize(
    "frames",
    [
        # In a fragment, in a frame of 100 bytes, and with half of a surrogate pair, at whose second
        # byte Python's own decoder still waits for the third.
        "01 04 66696e65  00 01 ff",
        "81 64 66696e65 ff",
        "01 04 66696e65  00 02 eda0",
        "01 01 ed  00 01 a0",
        "01 01 ed  00 01 bf",
        "81 64 66696e65 eda0",
        "81 64 c3 28",
        "81 64 f4 90",
    ],
)
def test_endpoint_fails_connection_where_text_turns_bad_without_the_rest(
    role: str, frames: str, arriving: Cut
) -> None:
    assert_fails(role, frames, 1007, "the text is not UTF-8", arriving)


@both_roles
@pytest.mark.requirement("8.1-1")
@pytest.mark.parametrize("begun", ["c3", "e2 82", "ed", "ed 9f", "ee a0", "f0 9f 98", "f4 8f"])
def test_endpoint_waits_for_the_rest_of_a_character_that_may_still_be_good(
    role: str, begun: str
) -> None:
    endpoint = Endpoint(role)
    data = bytes.fromhex(begun)
    assert endpoint.receive(bytes([0x01, len(data)]) + data, single_bytes) == []
    assert endpoint.protocol.state is State.OPEN

"""Frames as bytes: parsing, building, masking, the payload of Close (RFC 6455, 5.2-5.5, 7.4).

What both roles make of frames is in `test_protocol_messages`, and what they do in answer to them in
`test_protocol_control` and `test_protocol_closing`.
"""

import itertools
import random
import tracemalloc
import zlib
from collections.abc import Iterable

import pytest

from peers import MASK, masked, unmasked, xor
from protocols import LENGTHS, Cut, halves, however_it_arrives, single_bytes, some_bytes
from rfc6455 import ProtocolError
from rfc6455.frames import CloseCode, FrameParser, build_close, build_frame, mask, parse_close

KEY = "37 fa 21 3d"  # in front of a masked payload
ZERO = "00 00 00 00"  # a key that changes nothing, so that a payload can be read as it stands

Frame = tuple[int, bool, bytes]  # opcode, FIN, payload


def parser(*, masked: bool = True, max_message: int = 1 << 20) -> FrameParser:
    return FrameParser(masked=masked, max_message=max_message)


def frames(by: FrameParser, pieces: Iterable[bytes]) -> list[Frame]:
    """The frames that the parser makes of these pieces, the chunks of each put together."""
    found: list[Frame] = []
    payload = b""
    for piece in pieces:
        by.feed(piece)
        while (chunk := by.parse()) is not None:
            payload = chunk.payload if chunk.first else payload + chunk.payload
            if chunk.last:
                found.append((chunk.opcode, chunk.fin, payload))
    return found


def refusal(data: bytes, *, masked: bool = True, max_message: int = 1 << 20) -> int:
    """The close code with which the parser refuses these bytes."""
    with pytest.raises(ProtocolError) as refused:
        frames(parser(masked=masked, max_message=max_message), [data])
    return refused.value.code


# 5.2: the length


@pytest.mark.requirement("5.2-4", "5.2-7")
@however_it_arrives
@pytest.mark.parametrize(("size", "bare", "masked"), LENGTHS)
def test_parser_reads_each_form_of_the_length_however_it_arrives(
    size: int, bare: str, masked: str, arriving: Cut
) -> None:
    payload = some_bytes(size)
    from_server = bytes.fromhex(f"82 {bare}") + payload
    from_client = bytes.fromhex(f"82 {masked} {KEY}") + xor(payload, MASK)
    assert frames(parser(masked=False), arriving(from_server)) == [(2, True, payload)]
    assert frames(parser(masked=True), arriving(from_client)) == [(2, True, payload)]


@pytest.mark.requirement("5.2-4", "5.2-1")
@pytest.mark.parametrize(("size", "bare", "masked"), LENGTHS)
def test_build_writes_the_length_in_the_fewest_bytes(size: int, bare: str, masked: str) -> None:
    payload = some_bytes(size)
    assert build_frame(2, payload, masked=False) == bytes.fromhex(f"82 {bare}") + payload
    header = bytes.fromhex(f"82 {masked}")
    frame = build_frame(2, payload, masked=True)
    assert frame[: len(header)] == header
    key = frame[len(header) : len(header) + 4]
    assert xor(frame[len(header) + 4 :], key) == payload


@pytest.mark.requirement("5.2-5")
@pytest.mark.parametrize(
    "length",
    [
        "7e 00 00",
        "7e 00 05",
        "7e 00 7d",
        "7f 00 00 00 00 00 00 00 c8",
        "7f 00 00 00 00 00 00 ff ff",
    ],
)
def test_parser_refuses_a_length_that_would_fit_a_shorter_form(length: str) -> None:
    assert refusal(bytes.fromhex(f"82 {length}"), masked=False) == 1002
    field = bytes.fromhex(length)
    assert refusal(b"\x82" + bytes([field[0] | 0x80]) + field[1:]) == 1002


@pytest.mark.requirement("5.2-6")
@pytest.mark.parametrize("length", ["80 00 00 00 00 00 00 05", "ff ff ff ff ff ff ff ff"])
def test_parser_refuses_a_length_with_the_top_bit_set_without_its_payload(length: str) -> None:
    assert refusal(bytes.fromhex(f"82 7f {length}"), masked=False) == 1002
    assert refusal(bytes.fromhex(f"82 ff {length}")) == 1002


@pytest.mark.requirement("5.2-4")
@pytest.mark.parametrize(("size", "bare", "masked"), LENGTHS)
def test_parser_reads_a_length_that_is_cut_off_behind_another_frame(
    size: int, bare: str, masked: str
) -> None:
    header = bytes.fromhex(f"81 02 68 69 82 {bare}")
    payload = some_bytes(size)
    for cut in range(4, len(header) + 1):
        pieces = [header[:cut], header[cut:] + payload]
        found = frames(parser(masked=False), pieces)
        assert found == [(1, True, b"hi"), (2, True, payload)]


# 5.2: the first byte


@pytest.mark.requirement("5.2-2")
@pytest.mark.parametrize("first", [0xC1, 0xA1, 0x91, 0xF1, 0xC0, 0x90, 0xC9, 0xA8, 0x9A, 0x41])
def test_parser_refuses_a_reserved_bit_at_the_header(first: int) -> None:
    assert refusal(bytes([first, 0x80])) == 1002
    assert refusal(bytes([first, 0x00]), masked=False) == 1002


@pytest.mark.requirement("5.2-2")
@pytest.mark.parametrize(
    ("first", "is_compressed"),
    [("81", False), ("82", False), ("01", False), ("c1", True), ("c2", True), ("42", True)],
)
def test_parser_tells_which_frames_are_compressed_where_that_was_agreed_on(
    first: str, is_compressed: bool
) -> None:
    by = FrameParser(masked=False, max_message=100, compressed=True)
    by.feed(bytes.fromhex(f"{first} 01 61"))
    chunk = by.parse()
    assert chunk is not None
    assert (chunk.rsv1, chunk.payload) == (is_compressed, b"a")


@pytest.mark.requirement("5.2-2")
@pytest.mark.parametrize("first", [0xC0, 0xC8, 0xC9, 0xCA, 0xA1, 0x91, 0xE1, 0xD2, 0xA0, 0x99])
def test_parser_refuses_every_other_reserved_bit_where_compression_was_agreed_on(
    first: int,
) -> None:
    by = FrameParser(masked=False, max_message=100, compressed=True)
    by.feed(bytes([first, 0x00]))
    with pytest.raises(ProtocolError, match="a reserved bit is set"):
        by.parse()


@pytest.mark.requirement("5.2-3")
@pytest.mark.parametrize("opcode", [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_parser_refuses_a_reserved_opcode_at_the_header(opcode: int) -> None:
    assert refusal(bytes([0x80 | opcode, 0x80])) == 1002
    assert refusal(bytes([0x80 | opcode, 0x05]), masked=False) == 1002
    assert refusal(bytes([opcode, 0x80])) == 1002


@pytest.mark.requirement("5.1-2")
@pytest.mark.parametrize("header", ["81 05", "82 7e", "89 00", "8a 00", "88 00", "00 00"])
def test_parser_refuses_an_unmasked_frame_of_a_client(header: str) -> None:
    assert refusal(bytes.fromhex(header)) == 1002


@pytest.mark.requirement("5.1-4")
@pytest.mark.parametrize("header", ["81 85", "82 fe", "89 80", "8a 80", "88 80", "00 80"])
def test_parser_refuses_a_masked_frame_of_a_server(header: str) -> None:
    assert refusal(bytes.fromhex(header), masked=False) == 1002


@pytest.mark.requirement("5.5-2")
@pytest.mark.parametrize("header", ["89 fe", "8a fe", "88 fe", "89 ff", "8a ff", "88 ff"])
def test_parser_refuses_a_control_frame_over_125_bytes(header: str) -> None:
    assert refusal(bytes.fromhex(header)) == 1002


@pytest.mark.requirement("5.5-2")
@pytest.mark.parametrize("first", ["89", "8a", "88"])
def test_parser_refuses_a_control_frame_over_125_bytes_behind_another_frame(first: str) -> None:
    data = bytes.fromhex(f"81 02 68 69 {first} 7e 00 7e") + bytes(126)
    assert refusal(data, masked=False) == 1002


@pytest.mark.requirement("5.5-3")
@pytest.mark.parametrize("header", ["09 81", "0a 81", "08 80"])
def test_parser_refuses_a_fragment_of_a_control_frame(header: str) -> None:
    assert refusal(bytes.fromhex(header)) == 1002


def test_parser_gives_the_frames_before_a_bad_one() -> None:
    by = parser()
    by.feed(bytes.fromhex(f"81 81 {ZERO} 61 89 80 {ZERO} 83 80 {ZERO}"))
    first, second = by.parse(), by.parse()
    assert first is not None and (first.opcode, first.payload) == (1, b"a")
    assert second is not None and (second.opcode, second.payload) == (9, b"")
    with pytest.raises(ProtocolError):
        by.parse()


# Frames that arrive in pieces, or many at once


def test_parser_gives_the_beginning_of_a_data_frame_before_its_end() -> None:
    by = parser()
    by.feed(bytes.fromhex(f"81 85 {KEY} 7f 9f"))
    chunk = by.parse()
    assert chunk is not None
    assert (chunk.first, chunk.last, chunk.fin, chunk.payload) == (True, False, True, b"He")
    assert by.parse() is None
    by.feed(bytes.fromhex("4d 51 58"))
    chunk = by.parse()
    assert chunk is not None
    assert (chunk.first, chunk.last, chunk.fin, chunk.payload) == (False, True, True, b"llo")


def test_parser_gives_a_control_frame_only_whole() -> None:
    by = parser(masked=False)
    for byte in b"\x89\x03ab":
        by.feed(bytes([byte]))
        assert by.parse() is None
    assert frames(by, [b"c"]) == [(9, True, b"abc")]


@pytest.mark.requirement("5.2-7")
def test_parser_reads_empty_frames_of_every_kind_and_their_keys() -> None:
    data = "".join(f"{first} 80 {KEY}" for first in ("81", "82", "01", "89", "00", "8a", "80"))
    kinds = [(1, True), (2, True), (1, False), (9, True), (0, False), (10, True), (0, True)]
    expected = [(opcode, fin, b"") for opcode, fin in kinds]
    assert frames(parser(), [bytes.fromhex(data)]) == expected
    assert frames(parser(), single_bytes(bytes.fromhex(data))) == expected


@pytest.mark.requirement("5.4-1", "5.4-2", "5.4-3")
def test_parser_reads_fragments_and_the_control_frame_between_them() -> None:
    data = bytes.fromhex("01 03 48656c 89 01 70 00 00 80 02 6c6f 82 01 ff")
    expected = [
        (1, False, b"Hel"),
        (9, True, b"p"),
        (0, False, b""),
        (0, True, b"lo"),
        (2, True, b"\xff"),
    ]
    for pieces in ([data], halves(data), single_bytes(data)):
        assert frames(parser(masked=False), pieces) == expected


# 5.3: masking


@pytest.mark.requirement("5.3-1")
def test_mask_is_the_example_of_the_rfc() -> None:
    assert mask(b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("7f9f4d5158")
    assert mask(bytes.fromhex("7f9f4d5158"), bytes.fromhex("37fa213d")) == b"Hello"


@pytest.mark.requirement("5.3-1")
@pytest.mark.parametrize("key", [bytes(4), MASK, b"\xff\xff\xff\xff", b"\x00\x00\x00\x01"])
@pytest.mark.parametrize(
    "size", [*range(10), 4095, 4096, 4097, 4098, 4099, 8191, 8192, 8193, 65535, 65536, 65537]
)
def test_mask_xors_byte_i_with_key_byte_i_mod_4(size: int, key: bytes) -> None:
    payload = some_bytes(size)
    assert mask(payload, key) == xor(payload, key)
    assert mask(mask(payload, key), key) == payload


@pytest.mark.requirement("5.3-1")
@pytest.mark.parametrize("key", [MASK, bytes(4)])
def test_parser_unmasks_a_frame_cut_anywhere(key: bytes) -> None:
    for size in range(10):
        payload = some_bytes(size)
        data = bytes([0x82, 0x80 | size]) + key + xor(payload, key)
        for cut in range(len(data) + 1):
            assert frames(parser(), [data[:cut], data[cut:]]) == [(2, True, payload)]


@pytest.mark.requirement("5.3-1")
def test_parser_unmasks_each_fragment_with_its_own_key_from_its_own_start() -> None:
    keys = [MASK, bytes(4), b"\xff\x00\xff\x00", b"\x01\x02\x03\x04"]
    pieces = [b"Hel", b"l", b"o, wor", b"ld"]
    data = b"".join(
        bytes([first, 0x80 | len(piece)]) + key + xor(piece, key)
        for first, piece, key in zip((0x01, 0x00, 0x00, 0x80), pieces, keys, strict=True)
    )
    for cut in range(len(data)):
        found = frames(parser(), [data[:cut], data[cut:]])
        assert [payload for _, _, payload in found] == pieces


@pytest.mark.requirement("5.3-1")
def test_parser_unmasks_a_large_frame_cut_out_of_step_with_its_key() -> None:
    payload = some_bytes(70001)
    data = bytes.fromhex("82 ff 00 00 00 00 00 01 11 71") + MASK + xor(payload, MASK)
    pieces = [data[at : at + 4099] for at in range(0, len(data), 4099)]
    assert frames(parser(), pieces) == [(2, True, payload)]


@pytest.mark.requirement("5.1-1", "5.3-2")
@pytest.mark.parametrize("opcode", [1, 2, 8, 9, 10])
def test_build_masks_every_kind_of_frame_with_a_key_of_its_own(opcode: int) -> None:
    keys = set()
    for payload in [b"", b"a"] * 100:
        frame = build_frame(opcode, payload, masked=True)
        assert frame[:2] == bytes([0x80 | opcode, 0x80 | len(payload)])
        assert xor(frame[6:], frame[2:6]) == payload
        keys.add(frame[2:6])
    assert len(keys) > 195


@pytest.mark.requirement("5.1-3")
def test_build_of_a_server_is_the_examples_of_the_rfc() -> None:
    assert build_frame(1, b"Hello", masked=False) == bytes.fromhex("81 05 48 65 6c 6c 6f")
    assert build_frame(9, b"Hello", masked=False) == bytes.fromhex("89 05 48 65 6c 6c 6f")
    assert build_frame(10, b"", masked=False) == bytes.fromhex("8a 00")


@pytest.mark.parametrize(("opcode", "first"), [(1, 0xC1), (2, 0xC2)])
def test_build_marks_a_compressed_message_with_rsv1(opcode: int, first: int) -> None:
    assert build_frame(opcode, b"a", masked=False, rsv1=True) == bytes([first, 0x01, 0x61])
    assert build_frame(opcode, b"a", masked=True, rsv1=True)[:2] == bytes([first, 0x81])


@pytest.mark.requirement("5.3-3")
def test_masking_keys_do_not_come_from_the_seedable_generator() -> None:
    runs = []
    for _ in range(2):
        random.seed(6455)
        keys = [build_frame(1, b"", masked=True)[2:6] for _ in range(500)]
        runs.append([int.from_bytes(key, "big") for key in keys])
    assert runs[0] != runs[1]
    assert not set(runs[0]) & set(runs[1][:5])
    for keys_of_run in runs:
        steps = {(b - a) % 2**32 for a, b in itertools.pairwise(keys_of_run)}
        assert len(steps) > 490
        for bit in range(32):  # each bit is set about half the time
            assert 150 < sum(key >> bit & 1 for key in keys_of_run) < 350


# 10.4: limits, at the header


@pytest.mark.requirement("10.4-1")
def test_parser_refuses_2_to_the_60_bytes_without_taking_memory() -> None:
    tracemalloc.start()
    try:
        code_of_client = refusal(bytes.fromhex("82 ff 10 00 00 00 00 00 00 00"))
        code_of_server = refusal(bytes.fromhex("82 7f 10 00 00 00 00 00 00 00"), masked=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (code_of_client, code_of_server) == (1009, 1009)
    assert peak < 100_000


@pytest.mark.requirement("10.4-1", "7.4.1-2")
def test_parser_takes_a_message_of_the_limit_and_refuses_one_byte_more() -> None:
    within = bytes.fromhex("82 64") + bytes(100)
    found = frames(parser(masked=False, max_message=100), [within, within])
    assert found == [(2, True, bytes(100)), (2, True, bytes(100))]
    assert refusal(bytes.fromhex("82 65"), masked=False, max_message=100) == 1009


@pytest.mark.requirement("10.4-2")
def test_parser_counts_the_fragments_of_a_message_together() -> None:
    by = parser(masked=False, max_message=100)
    start = bytes.fromhex("02 3c") + bytes(60)
    assert len(frames(by, [start, bytes.fromhex("89 7d") + bytes(125)])) == 2
    assert len(frames(by, [bytes.fromhex("80 28") + bytes(40)])) == 1
    assert len(frames(by, [start])) == 1
    by.feed(bytes.fromhex("80 29"))
    with pytest.raises(ProtocolError) as refused:
        by.parse()
    assert refused.value.code == 1009


# 5.5.1, 7.4: the payload of a Close frame


@pytest.mark.requirement("7.4.1-1", "7.4.1-2", "7.4.1-3", "7.4.1-4")
def test_close_codes_are_those_of_the_rfc() -> None:
    assert {code.name: int(code) for code in CloseCode} == {
        "NORMAL": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS": 1005,
        "ABNORMAL": 1006,
        "INVALID_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "TOO_BIG": 1009,
        "MISSING_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
    }


@pytest.mark.requirement("5.5.1-3", "7.1.5-2", "7.1.6-1")
def test_close_without_a_body_is_1005() -> None:
    assert parse_close(b"") == (1005, "")
    assert parse_close(bytes.fromhex("03e8")) == (1000, "")
    assert parse_close(bytes.fromhex("03e8 62c3a9")) == (1000, "b\u00e9")


@pytest.mark.requirement("5.5.1-2")
@pytest.mark.parametrize("payload", [b"\x00", b"\x03", b"\xff"])
def test_close_with_half_a_code_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_close(payload)
    assert refused.value.code == 1002


@pytest.mark.requirement("7.4.1-6", "7.4.2-2")
@pytest.mark.parametrize(
    "payload",
    [
        "0000", "0001", "03e7", "03ec", "03ed", "03ee", "03f7", "03f8", "044c", "07d0", "0bb7",
        "1388", "ffff",
    ],
)  # fmt: skip
def test_close_with_a_code_that_may_not_travel_is_a_protocol_error(payload: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_close(bytes.fromhex(payload))
    assert refused.value.code == 1002


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
def test_close_codes_that_may_travel_are_read_and_built(payload: str, code: int) -> None:
    assert parse_close(bytes.fromhex(payload)) == (code, "")
    assert build_close(code) == bytes.fromhex(payload)


@pytest.mark.requirement("7.4.1-5", "7.4.2-2")
@pytest.mark.parametrize(
    "code",
    [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535, 65536, 66536],
)
def test_close_codes_that_may_not_travel_are_not_built(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        build_close(code)


@pytest.mark.requirement("8.1-2")
@pytest.mark.parametrize("reason", ["ff fe", "c3", "ed a0 80", "61 e2 82", "c0 80"])
def test_close_reason_that_is_not_utf_8_is_refused(reason: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_close(bytes.fromhex(f"03e8 {reason}"))
    assert refused.value.code in (1007, 1002)


@pytest.mark.requirement("5.5.1-1", "5.5.1-4")
def test_close_reason_is_utf_8_of_at_most_123_bytes() -> None:
    assert build_close(4001, "bye") == bytes.fromhex("0fa1 627965")
    euros = build_close(1000, "\u20ac" * 41)
    assert len(euros) == 125
    assert euros[:5] == bytes.fromhex("03e8 e282ac")
    with pytest.raises(ValueError, match="123"):
        build_close(1000, "\u20ac" * 42)
    with pytest.raises(ValueError, match="123"):
        build_close(1000, "x" * 124)
    with pytest.raises(ValueError, match="surrogate"):
        build_close(1000, "\ud800")


def test_close_without_a_code_has_no_reason() -> None:
    assert build_close(None) == b""
    with pytest.raises(ValueError, match="a close reason needs a code"):
        build_close(None, "bye")


# Pings behind data that waits


WALKS = [
    # what was fed, as frames of a client; the payloads of the Pings; what is left to parse
    ([(0x89, b"a")], [b"a"], []),
    ([(0x81, b"text"), (0x89, b"a")], [b"a"], [(0x81, b"text")]),
    ([(0x89, b""), (0x89, b"b" * 125)], [b"", b"b" * 125], []),
    ([(0x8A, b"unasked")], [], []),
    (
        [(0x01, b"te"), (0x89, b"a"), (0x80, b"xt"), (0x89, b"b"), (0x82, b"\x00")],
        [b"a", b"b"],
        [(0x01, b"te"), (0x80, b"xt"), (0x82, b"\x00")],
    ),
    (
        [(0x82, bytes(126)), (0x89, b"a"), (0x82, bytes(65536)), (0x89, b"b")],
        [b"a", b"b"],
        [(0x82, bytes(126)), (0x82, bytes(65536))],
    ),
    # Nothing is taken from behind a Close.
    ([(0x89, b"a"), (0x88, b""), (0x89, b"b")], [b"a"], [(0x88, b""), (0x89, b"b")]),
]


def pings_taken(parser: FrameParser) -> list[bytes]:
    return [payload for opcode, payload in parser.take_pings_and_pongs() if opcode == 0x9]


def test_pongs_are_taken_too() -> None:
    parser = FrameParser(masked=True, max_message=1 << 20)
    parser.feed(masked(0x81, b"text") + masked(0x8A, b"p") + masked(0x89, b"q"))
    assert parser.take_pings_and_pongs() == [(0xA, b"p"), (0x9, b"q")]


@pytest.mark.parametrize(("fed", "pings", "left"), WALKS)
@pytest.mark.parametrize("cut", ["whole", "in bytes"])
@pytest.mark.requirement("5.5.2-3")
def test_pings_are_taken_from_behind_data_that_keeps_its_place(
    fed: list[tuple[int, bytes]], pings: list[bytes], left: list[tuple[int, bytes]], cut: str
) -> None:
    parser = FrameParser(masked=True, max_message=1 << 20)
    data = b"".join(masked(first, payload) for first, payload in fed)
    if cut == "in bytes" and len(data) > 1000:
        pieces = [data[:1], data[1:140], data[140:200], data[200:-1], data[-1:]]
    else:
        pieces = [data] if cut == "whole" else [data[i : i + 1] for i in range(len(data))]
    taken: list[bytes] = []
    for piece in pieces:
        parser.feed(piece)
        taken += pings_taken(parser)
    assert taken == pings
    assert parser.take_pings_and_pongs() == []
    found: list[tuple[int, bytes]] = []
    while chunk := parser.parse():
        found.append((chunk.opcode | chunk.fin << 7, chunk.payload))
    assert found == left
    assert parser.unread == 0


def test_pings_are_taken_in_the_middle_of_a_message_that_is_being_parsed() -> None:
    parser = FrameParser(masked=True, max_message=1 << 20)
    frame = masked(0x82, bytes(range(100)))
    parser.feed(frame[:50])
    begun = parser.parse()
    assert begun is not None and not begun.last
    parser.feed(frame[50:60])
    assert parser.take_pings_and_pongs() == []
    parser.feed(frame[60:] + masked(0x89, b"a") + masked(0x81, b"next"))
    assert pings_taken(parser) == [b"a"]
    end, following = parser.parse(), parser.parse()
    assert end is not None and end.last
    assert begun.payload + end.payload == bytes(range(100))
    assert following is not None and following.payload == b"next"


@pytest.mark.parametrize("first", [0x88, 0x89])
def test_no_ping_is_taken_from_behind_a_control_frame_that_is_being_parsed(first: int) -> None:
    parser = FrameParser(masked=True, max_message=1 << 20)
    frame = masked(first, b"\x03\xe8bye")
    parser.feed(frame[:8])
    assert parser.parse() is None
    parser.feed(frame[8:] + masked(0x89, b"next"))
    assert parser.take_pings_and_pongs() == []
    chunk = parser.parse()
    assert chunk is not None and chunk.payload == b"\x03\xe8bye"
    assert pings_taken(parser) == [b"next"]


@pytest.mark.parametrize(
    "bad",
    [
        "89 85 00 00 00 00 61 62 63 64",  # it is cut off
        "09 80 00 00 00 00",  # a control frame is never fragmented
        "c9 80 00 00 00 00",  # a reserved bit
        "89 fe 00 7e 00 00 00 00" + "00" * 126,  # over 125 bytes
        "89 00",  # not masked
        "8b 80 00 00 00 00",  # a reserved opcode
        "88 80 00 00 00 00",  # a Close
        "83 80 00 00 00 00",  # a reserved opcode of data
        "91 80 00 00 00 00",  # a reserved bit of data
        "c1 80 00 00 00 00",  # compressed, which was not agreed on
    ],
)
def test_what_is_no_good_ping_stays_for_the_parser_and_so_does_all_behind_it(bad: str) -> None:
    parser = FrameParser(masked=True, max_message=1 << 20)
    data = masked(0x81, b"first") + bytes.fromhex(bad)
    if not bad.startswith("89 85"):
        data += masked(0x89, b"behind")
    parser.feed(data)
    assert parser.take_pings_and_pongs() == []
    assert parser.unread == len(data)


@pytest.mark.parametrize(
    ("first", "pings"),
    [
        ("81", [b"p"]), ("82", [b"p"]), ("80", [b"p"]), ("c1", [b"p"]), ("c2", [b"p"]),
        ("01", [b"p"]), ("41", [b"p"]),
        ("c0", []), ("a1", []), ("91", []), ("a2", []), ("90", []), ("c3", []),
    ],
)  # fmt: skip
def test_pings_are_taken_from_behind_good_frames_where_compression_was_agreed_on(
    first: str, pings: list[bytes]
) -> None:
    parser = FrameParser(masked=False, max_message=1 << 20, compressed=True)
    parser.feed(bytes.fromhex(f"{first} 02 68 69 89 01 70"))
    assert pings_taken(parser) == pings


def test_server_frames_are_walked_without_a_key() -> None:
    parser = FrameParser(masked=False, max_message=1 << 20)
    parser.feed(bytes.fromhex("81 02 68 69 89 01 70 81 00"))
    assert pings_taken(parser) == [b"p"]
    assert parser.unread == 6


@pytest.mark.parametrize(
    ("data", "follows"),
    [("", False), ("81", False), ("89", True), ("88 80", True), ("00", False), ("8b", True)],
)
def test_first_byte_tells_whether_a_control_frame_follows(data: str, follows: bool) -> None:
    parser = FrameParser(masked=True, max_message=1 << 20)
    parser.feed(bytes.fromhex(data))
    assert parser.is_control_next() is follows


@pytest.mark.parametrize(("first", "follows"), [(0x88, True), (0x89, True), (0x81, False)])
def test_frame_whose_header_was_parsed_tells_whether_it_is_a_control_frame(
    first: int, follows: bool
) -> None:
    parser = FrameParser(masked=True, max_message=1 << 20)
    parser.feed(masked(first, b"\x03\xe8bye")[:8])
    parser.parse()
    assert parser.is_control_next() is follows


def test_parser_is_within_a_frame_from_its_first_byte_to_its_last() -> None:
    parser = FrameParser(masked=False, max_message=100)
    assert not parser.is_within_frame
    for byte in bytes.fromhex("82 02 68"):
        parser.feed(bytes([byte]))
        parser.parse()
        assert parser.is_within_frame
    parser.feed(b"i")
    parser.parse()
    assert not parser.is_within_frame


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        ("", True),
        ("81", False),
        ("81 02 68", False),
        ("81 02 68 69", True),
        ("81 02 68 69 82", False),
        ("81 02 68 69 82 00", True),
        ("82 7e 00", False),
        ("82 7e 00 7e" + "00" * 125, False),
        ("82 7e 00 7e" + "00" * 126, True),
        ("83 01 00", True),  # a reserved opcode
        ("c1 01 00", True),  # a reserved bit
        ("81 81 00 00 00", False),  # masked, which a server's frame is not
        ("81 81 00 00 00 00 00", True),
        ("82 7f ff ff ff ff ff ff ff ff 00", False),
    ],
)
def test_whether_a_frame_is_cut_off_is_known_also_of_bad_ones(data: str, ends: bool) -> None:
    parser = FrameParser(masked=False, max_message=100)
    parser.feed(bytes.fromhex(data))
    assert parser.ends_with_a_frame() is ends


def test_frame_that_is_being_parsed_is_cut_off_until_it_has_all_come() -> None:
    parser = FrameParser(masked=False, max_message=100)
    parser.feed(bytes.fromhex("82 03 00"))
    assert parser.parse() is not None
    assert not parser.ends_with_a_frame()
    parser.feed(bytes.fromhex("00 00"))
    assert parser.ends_with_a_frame()
    parser.feed(bytes.fromhex("82"))
    assert not parser.ends_with_a_frame()


def with_fixed_codes(data: bytes) -> bytes:
    """Bytes from 144 on in a block of deflate where each takes nine bits (RFC 1951, 3.2.6)."""
    codes = "".join(f"{0b110010000 + byte - 144:09b}" for byte in data)
    bits = "010" + codes + "0000000" + "000"  # the block, and the header of an empty one behind it
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


@pytest.mark.requirement("10.4-1")
def test_parser_leaves_room_for_a_message_of_the_limit_that_compression_made_longer() -> None:
    payload = with_fixed_codes(b"\xff" * 8192)
    assert len(payload) == 9218
    assert zlib.decompress(payload + b"\x00\x00\xff\xff\x03\x00", -15) == b"\xff" * 8192
    parser = FrameParser(masked=False, max_message=8192, compressed=True)
    parser.feed(unmasked(0xC1, payload))
    assert parser.parse() == (1, True, True, True, True, payload)
    parser.feed(bytes.fromhex("c1 7e 24 41"))  # 9,281 bytes: 8,192, an eighth of it, and 65
    with pytest.raises(ProtocolError, match="1009"):
        parser.parse()

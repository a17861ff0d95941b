"""Compressing and inflating messages (RFC 7692, 7.2), as functions of bytes."""

import random
import tracemalloc
import zlib

import pytest

from deflate_cases import AGAIN, HELLO, TAIL, bomb, deflated, far_apart, inflated
from rfc6455 import Deflate, ProtocolError
from rfc6455.deflate import Inflater, compress

requirement = pytest.mark.requirement


# Compressing


@requirement("D7.2.1-1")
def test_compressed_message_ends_without_the_tail_of_its_last_empty_block() -> None:
    assert compress(b"Hello", 15) == bytes.fromhex("f2 48 cd c9 c9 07 00")
    assert compress(b"Hello", 9) == bytes.fromhex("f2 48 cd c9 c9 07 00")
    assert compress(b"", 15) == bytes.fromhex("00")
    assert compress(b"Hello", 8) is None


@requirement("D7.2.1-7")
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
def test_compressed_message_never_refers_back_beyond_the_window(bits: int) -> None:
    message = far_apart((1 << bits) + 88)
    compressed = compress(message, bits)
    assert compressed is not None
    assert inflated(compressed, bits) == message
    if bits < 15:  # a larger window would make the check above fail
        with pytest.raises(zlib.error, match="too far back"):
            inflated(compress(message, bits + 1) or b"", bits)


# Inflating


LIMIT = 1 << 20  # bytes; far more than most of these messages have
STORED = bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00")  # "Hello" in a stored block
TWO_BLOCKS = bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")  # "H", then "ello"
DYNAMIC = bytes.fromhex("04 c1 01 01 00 00 00 80 90 ad f9 3f 22 0a 91 10 18")
FINAL = bytes.fromhex("f3 48 cd c9 c9 07 00 00")  # "Hello" in a block with BFINAL
FINAL_AND_MORE = bytes.fromhex("f3 48 cd c9 c9 07 00 0a cf 2f ca 49 01 00")  # and "World"
EMPTY_FINAL = bytes.fromhex("03 00")


def inflate(inflater: Inflater, *pieces: bytes, room: int = LIMIT) -> bytes:
    """One message, which arrives in these pieces."""
    message = b""
    for number, piece in enumerate(pieces, start=1):
        message += inflater.inflate(piece, number == len(pieces), room - len(message))
    return message


@requirement("D7.2.2-1", "D7.2.1-3")
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (HELLO, b"Hello"),
        (STORED, b"Hello"),
        (TWO_BLOCKS, b"Hello"),
        (HELLO + TAIL + b"\x00", b"Hello"),
        (DYNAMIC, b"aabbbabbababbbabbbbb"),
        (b"\x00", b""),
    ],
)
def test_message_of_blocks_of_any_type_is_inflated_wherever_it_is_cut(
    payload: bytes, message: bytes
) -> None:
    inflater = Inflater(15, no_context_takeover=False)
    for cut in range(len(payload) + 1):
        assert inflate(inflater, payload[:cut], payload[cut:]) == message
        assert inflate(inflater, payload[:cut], b"", payload[cut:], b"") == message
    assert inflate(inflater, *(bytes([byte]) for byte in payload)) == message


@requirement("D7.2.2-5")
@pytest.mark.parametrize("payload", ["ff ff ff", "07", "00 01 00 00 00 41", "f2 00 11 00 00"])
def test_data_that_is_not_deflated_is_refused(payload: str) -> None:
    inflater = Inflater(15, no_context_takeover=False)
    with pytest.raises(ProtocolError) as error:
        inflate(inflater, bytes.fromhex(payload))
    assert (error.value.code, error.value.reason) == (1007, "the data is not deflated")


@requirement("D7.2.2-2")
def test_message_may_refer_back_to_the_one_before_it() -> None:
    inflater = Inflater(15, no_context_takeover=False)
    for payload in (HELLO, AGAIN, AGAIN, b"\x00", AGAIN):
        assert inflate(inflater, payload) == (b"" if payload == b"\x00" else b"Hello")


@pytest.mark.parametrize("before", [HELLO, FINAL])
def test_message_may_not_refer_back_without_context_takeover(before: bytes) -> None:
    inflater = Inflater(15, no_context_takeover=True)
    for _ in range(3):
        assert inflate(inflater, before) == b"Hello"
    with pytest.raises(ProtocolError) as error:
        inflate(inflater, AGAIN)
    assert error.value.code == 1007


@pytest.mark.parametrize("payload", [EMPTY_FINAL + AGAIN, EMPTY_FINAL + b"\x00" + AGAIN])
def test_final_block_brings_back_no_window_that_was_given_up(payload: bytes) -> None:
    inflater = Inflater(15, no_context_takeover=True)
    assert inflate(inflater, HELLO) == b"Hello"
    with pytest.raises(ProtocolError) as error:
        inflate(inflater, payload)
    assert error.value.code == 1007


@requirement("D7.2.1-4")
def test_message_may_go_on_after_a_final_block_and_refer_back_beyond_it() -> None:
    inflater = Inflater(15, no_context_takeover=False)
    assert inflate(inflater, FINAL) == b"Hello"
    assert inflate(inflater, AGAIN) == b"Hello"
    assert inflate(inflater, FINAL_AND_MORE) == b"HelloWorld"
    assert inflate(inflater, AGAIN) == b"Horld"
    assert inflate(inflater, *(bytes([byte]) for byte in FINAL_AND_MORE)) == b"HelloWorld"
    assert inflate(inflater, AGAIN) == b"Horld"


@requirement("D7.2.1-4")
@pytest.mark.parametrize("bits", [8, 9, 14])
def test_message_may_refer_back_beyond_a_final_block_as_far_as_the_window_goes(bits: int) -> None:
    window = random.Random(6455).randbytes(1 << bits)
    size = len(window).to_bytes(2, "little")
    inverted_size = (len(window) ^ 0xFFFF).to_bytes(2, "little")
    compressor = zlib.compressobj(9, wbits=-15, zdict=window)
    reference = compressor.compress(window[:64]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(reference) < 20
    inflater = Inflater(bits, no_context_takeover=False)
    assert inflate(inflater, b"\x01" + size + inverted_size + window, b"\x00") == window
    assert inflate(inflater, reference.removesuffix(TAIL)) == window[:64]


@requirement("D7.2.1-4", "10.7-1")
def test_message_may_have_a_thousand_final_blocks_and_no_more() -> None:
    # Each costs a new inflater, so a megabyte of them would take seconds.
    inflater = Inflater(15, no_context_takeover=False)
    for _ in range(2):
        assert inflate(inflater, EMPTY_FINAL * 500, EMPTY_FINAL * 500 + b"\x00") == b""
    with pytest.raises(ProtocolError) as error:
        inflate(inflater, EMPTY_FINAL * 500, EMPTY_FINAL * 501 + b"\x00")
    assert error.value.code == 1002
    assert error.value.reason == "the message has too many final blocks"


@pytest.mark.parametrize("no_context_takeover", [False, True])
@pytest.mark.parametrize("empty", [[b""], [b"", b""], [b"\x00"], [b"", b"\x00"], [b"\x00", b""]])
def test_empty_message_may_have_no_byte_and_changes_nothing_for_the_next(
    empty: list[bytes], no_context_takeover: bool
) -> None:
    again = HELLO if no_context_takeover else AGAIN
    inflater = Inflater(15, no_context_takeover)
    for payload in (HELLO, again, again):
        assert inflate(inflater, *empty) == b""
        assert inflate(inflater, payload) == b"Hello"
        assert inflate(inflater, *empty) == b""
        assert inflate(inflater, *empty) == b""


def test_messages_that_zlib_flushes_are_inflated_though_some_are_empty() -> None:
    """A sender that flushes one compressor after each message, as many do."""
    compressor = zlib.compressobj(wbits=-15)
    inflater = Inflater(15, no_context_takeover=False)
    for message in (b"", b"", b"Hello", b"", b"", b"Hello", b"Hello", b""):
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert inflate(inflater, data.removesuffix(TAIL)) == message


@requirement("D7.2.2-4")
@pytest.mark.parametrize("bits", [9, 10, 14, 15])
def test_message_may_refer_back_as_far_as_the_window_goes(bits: int) -> None:
    message = far_apart((1 << bits) - 262)  # zlib's compressor refers back no further
    assert inflate(Inflater(bits, no_context_takeover=False), deflated(message, bits)) == message


@requirement("D7.2.2-4")
@pytest.mark.parametrize("is_client", [False, True])
def test_inflater_of_a_side_follows_the_parameters_of_the_other(is_client: bool) -> None:
    """One side has a window of 9 bits and gives up its context, the other neither."""
    own, others = Deflate(True, False, 9, 15), Deflate(False, True, 15, 9)
    if not is_client:
        own, others = others, own
    message = far_apart(32_100)
    inflater = Inflater.for_side(others, is_client=is_client)
    assert inflate(inflater, deflated(message, 15)) == message
    assert inflate(inflater, HELLO) + inflate(inflater, AGAIN) == b"HelloHello"
    inflater = Inflater.for_side(own, is_client=is_client)
    with pytest.raises(ProtocolError):
        inflate(inflater, *(bytes([byte]) for byte in deflated(message, 15)))
    inflater = Inflater.for_side(own, is_client=is_client)
    assert inflate(inflater, HELLO) == b"Hello"
    with pytest.raises(ProtocolError):
        inflate(inflater, AGAIN)


# Limits


@requirement("10.4-4")
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_message_may_inflate_to_the_limit_and_to_no_byte_more(size: int) -> None:
    message = bytes(size)
    payload = deflated(message, 15)
    for cut in (len(payload), len(payload) // 2):
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate(inflater, payload[:cut], payload[cut:], room=size) == message
        assert inflate(inflater, payload[:cut], payload[cut:], room=size) == message
    inflater = Inflater(15, no_context_takeover=False)
    with pytest.raises(ProtocolError) as error:
        inflate(inflater, deflated(message + b"\x00", 15), room=size)
    assert (error.value.code, error.value.reason) == (1009, "the inflated message is too big")


@requirement("10.4-4")
def test_bomb_is_refused_before_it_takes_memory() -> None:
    payload = bomb(100)
    assert len(payload) < 150_000
    assert peak_of_refusal(payload, room=LIMIT) < 6 << 20


@requirement("10.4-4")
def test_bomb_behind_a_final_block_is_refused_before_it_takes_memory() -> None:
    compressor = zlib.compressobj(9, wbits=-15)
    final = compressor.compress(bytes(4 << 20)) + compressor.flush(zlib.Z_FINISH)
    alone = peak_of_refusal(final + deflated(b"x", 15), room=4 << 20)
    assert peak_of_refusal(final + bomb(100), room=4 << 20) < alone + (1 << 20)


def peak_of_refusal(payload: bytes, room: int) -> int:
    """The most memory, in bytes, that was taken until a message was refused as too big."""
    inflater = Inflater(15, no_context_takeover=False)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as error:
            inflater.inflate(payload, True, room)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.value.code == 1009
    return peak

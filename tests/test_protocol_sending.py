"""Messages as the bytes that go out, without a socket (RFC 6455, 5.1-5.4, 5.6, 6.1)."""

import itertools
import random
from typing import Any

import pytest

from peers import unmasked, xor
from protocols import LENGTHS, Endpoint, both_roles, some_bytes
from rfc6455 import Deflate
from rfc6455.protocol import Protocol

# 5.1-5.4, 6.1: frames that go out


@both_roles
@pytest.mark.requirement("5.1-1", "5.1-3", "5.2-1", "5.2-4", "5.4-5", "6.1-2")
@pytest.mark.parametrize(("size", "bare", "with_mask"), LENGTHS)
def test_endpoint_sends_each_form_of_the_length_in_one_frame_and_a_client_masks_it(
    role: str, size: int, bare: str, with_mask: str
) -> None:
    protocol = Endpoint(role).protocol
    messages: list[tuple[str, str | bytes | bytearray | memoryview]] = [
        ("81", "x" * size),
        ("82", b"x" * size),
        ("82", bytearray(b"x" * size)),
        ("82", memoryview(b"x" * size)),
    ]
    for first, message in messages:
        frame = protocol.build_message(message)
        header = bytes.fromhex(f"{first} {bare if role == 'server' else with_mask}")
        assert frame[: len(header)] == header
        body = frame[len(header) :]
        if role == "client":
            body = xor(body[4:], body[:4])
        assert body == b"x" * size


@both_roles
@pytest.mark.requirement("5.1-1", "5.1-3", "5.2-1", "5.4-5", "6.1-2")
@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ("Hello", "81 05 48656c6c6f"),
        ("", "81 00"),
        (b"\x00\xff", "82 02 00ff"),
        (bytearray(b"\x00\xff"), "82 02 00ff"),
        (memoryview(b"\xff\x00"), "82 02 ff00"),
        # The bytes of a memoryview count, however long its items are and whatever it leaves out.
        (memoryview(bytes(8)).cast("I"), "82 08 0000000000000000"),
        (memoryview(b"abcd")[::2], "82 02 6163"),
        (b"", "82 00"),
        ("\U0001f600", "81 04 f09f9880"),
    ],
)
def test_message_goes_out_as_one_frame(
    role: str, message: str | bytes | bytearray | memoryview, frame: str
) -> None:
    endpoint = Endpoint(role)
    assert endpoint.readable(endpoint.protocol.build_message(message)) == bytes.fromhex(frame)


@pytest.mark.requirement("5.3-1")
def test_client_sends_frames_that_decode_by_their_keys() -> None:
    endpoint = Endpoint("client")
    for size in [*range(10), 4095, 4096, 4097, 9999]:
        frame = endpoint.readable(endpoint.protocol.build_message(some_bytes(size)))
        assert frame == unmasked(0x82, some_bytes(size))


@pytest.mark.requirement("5.3-2", "5.3-3")
def test_client_chooses_a_fresh_key_for_each_frame() -> None:
    protocol = Protocol(is_client=True)
    keys = []
    for i in range(500):
        random.seed(6455)
        keys.append(protocol.build_message(str(i))[2:6])
        keys.append(protocol.build_ping()[2:6])
    numbers = [int.from_bytes(key, "big") for key in keys]
    assert len(set(numbers)) > 990
    assert len({(b - a) % 2**32 for a, b in itertools.pairwise(numbers)}) > 990


@both_roles
@pytest.mark.parametrize("thing", [5, None, 1.5, ["a"], [1, 2], {}], ids=repr)
def test_what_is_neither_text_nor_bytes_is_not_built(role: str, thing: Any) -> None:
    with pytest.raises(TypeError):
        Endpoint(role).protocol.build_message(thing)


@both_roles
@pytest.mark.requirement("5.6-1")
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d\ude00"], ids=ascii)
def test_text_with_a_lone_surrogate_is_not_built(role: str, text: str) -> None:
    with pytest.raises(UnicodeEncodeError, match="surrogate"):
        Endpoint(role).protocol.build_message(text)


# Compression, as far as the protocol decides on it; `test_deflate` has the rest


@pytest.mark.parametrize(
    ("deflate", "role", "compressed"),
    [
        (None, "server", False),
        (Deflate(), "server", True),
        (Deflate(), "client", True),
        (Deflate(threshold=1001), "server", False),
        (Deflate(threshold=1000), "server", True),
        # zlib can't keep to a window of 2**8 bytes: then the message goes out as it is.
        (Deflate(server_max_window_bits=8), "server", False),
        (Deflate(server_max_window_bits=8), "client", True),
        (Deflate(client_max_window_bits=8), "server", True),
        (Deflate(client_max_window_bits=8), "client", False),
    ],
)
def test_message_is_compressed_where_that_was_agreed_and_it_is_long_enough(
    deflate: Deflate | None, role: str, compressed: bool
) -> None:
    endpoint = Endpoint(role, deflate=deflate)
    frame = endpoint.readable(endpoint.protocol.build_message("x" * 1000))
    assert frame[0] == (0xC1 if compressed else 0x81)
    assert (len(frame) < 100) is compressed
    assert Endpoint("client", deflate=Deflate()).receive(frame) == ["x" * 1000]


@both_roles
@pytest.mark.parametrize(
    ("deflated", "frame"),
    [
        (b"four", "c1 04 666f7572"),
        (b"5five", "81 05 48656c6c6f"),
        (b"6 is six", "81 05 48656c6c6f"),
        (None, "81 05 48656c6c6f"),
    ],
    ids=["smaller", "of the same size", "larger", "not deflated"],
)
def test_message_is_sent_compressed_only_where_that_is_smaller(
    role: str, deflated: bytes | None, frame: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfc6455.protocol.compress", lambda payload, bits: deflated)
    endpoint = Endpoint(role, deflate=Deflate(threshold=5))
    assert endpoint.readable(endpoint.protocol.build_message("Hello")) == bytes.fromhex(frame)
    endpoint = Endpoint(role, deflate=Deflate(threshold=6))
    plain = endpoint.readable(endpoint.protocol.build_message("Hello"))
    assert plain == bytes.fromhex("81 05 48656c6c6f")


@both_roles
@pytest.mark.parametrize("payload", [b"", b"\x00", bytes(range(256))], ids=["0", "1", "256"])
def test_message_that_compression_does_not_make_smaller_goes_out_as_it_is(
    role: str, payload: bytes
) -> None:
    endpoint = Endpoint(role, deflate=Deflate(threshold=0))
    frame = endpoint.readable(endpoint.protocol.build_message(payload))
    assert frame == unmasked(0x82, payload)

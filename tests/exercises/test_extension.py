"""The fourth exercise of docs/how-it-works.md: an extension of the protocol that adds checksums.

Its name is x-crc32. Once it is agreed on, a message whose first frame has RSV2 begins with four
bytes of extension data (RFC 6455, 5.2): the CRC-32 of all that follows in the message.
"""

import pytest

from peers import Peer, close_payload, masked, shake_hands, tcp
from peers import request as request_of
from programs import Program, await_handler

PROGRAM = "echo_server.py"
OPTIONS = ("--plain",)
SOLUTION = "checksums.py"

CRC = bytes.fromhex("f7d18982")  # of the five bytes of "Hello"
CRC_OF_NOTHING = bytes(4)


def join(server: Program) -> Peer:
    """A client that has agreed on the extension with the echo server."""
    peer = shake_hands(server, "/echo", Sec_WebSocket_Extensions="x-crc32")
    await_handler(peer)
    return peer


def accepted_extensions(server: Program, **changes: str | None) -> list[str]:
    """The lines about extensions in the answer to an opening handshake."""
    with tcp(server) as peer:
        peer.send(request_of(server, "/echo", **changes))
        lines = peer.read_head().split("\r\n")
    assert lines[0].startswith("HTTP/1.1 101 ")
    return [line for line in lines if line.lower().startswith("sec-websocket-extensions:")]


@pytest.mark.parametrize("offer", ["x-crc32", "x-unknown, x-crc32", "x-crc32, x-unknown; level=9"])
def test_extension_is_accepted_if_it_is_offered(server: Program, offer: str) -> None:
    accepted = accepted_extensions(server, Sec_WebSocket_Extensions=offer)
    assert accepted == ["Sec-WebSocket-Extensions: x-crc32"]


@pytest.mark.parametrize("offer", [None, "x-unknown", "x-crc32; level=9", "x-crc32x"])
def test_extension_is_not_accepted_if_it_is_not_offered(server: Program, offer: str | None) -> None:
    assert accepted_extensions(server, Sec_WebSocket_Extensions=offer) == []


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_message_with_its_checksum_comes_back_with_its_checksum(server: Program, size: int) -> None:
    frame = masked(0xA1, CRC + b"Hello")
    with join(server) as peer:
        for start in range(0, len(frame), size):  # however it is cut on its way
            peer.send(frame[start : start + size])
        assert peer.read_frame() == (0xA1, CRC + b"Hello")


def test_binary_message_has_a_checksum_as_well(server: Program) -> None:
    with join(server) as peer:
        peer.send(masked(0xA2, CRC + b"Hello"))
        assert peer.read_frame() == (0xA2, CRC + b"Hello")


def test_empty_message_has_the_checksum_of_nothing(server: Program) -> None:
    with join(server) as peer:
        peer.send(masked(0xA1, CRC_OF_NOTHING))
        assert peer.read_frame() == (0xA1, CRC_OF_NOTHING)


def test_client_may_leave_the_checksum_out(server: Program) -> None:
    with join(server) as peer:
        peer.send(masked(0x81, b"Hello"))
        assert peer.read_frame() == (0xA1, CRC + b"Hello")


def test_message_with_a_checksum_and_one_without_may_follow_each_other(server: Program) -> None:
    with join(server) as peer:
        for first, extension_data in ((0xA1, CRC), (0x81, b""), (0xA1, CRC)):
            peer.send(masked(first, extension_data + b"Hello"))
            assert peer.read_frame() == (0xA1, CRC + b"Hello")


@pytest.mark.parametrize("cut", range(10))
def test_fragmented_message_has_one_checksum_wherever_it_is_cut(server: Program, cut: int) -> None:
    payload = CRC + b"Hello"
    with join(server) as peer:
        peer.send(masked(0x21, payload[:cut]) + masked(0x80, payload[cut:]))
        assert peer.read_frame() == (0xA1, payload)


def test_ping_between_the_fragments_is_answered(server: Program) -> None:
    with join(server) as peer:
        peer.send(masked(0x21, CRC + b"Hel") + masked(0x89, b"?") + masked(0x80, b"lo"))
        assert peer.read_frame() == (0x8A, b"?")
        assert peer.read_frame() == (0xA1, CRC + b"Hello")


@pytest.mark.parametrize("payload", [CRC + b"hello", CRC[::-1] + b"Hello", CRC, CRC[:3], b""])
@pytest.mark.parametrize("opcode", [1, 2])
def test_wrong_checksum_fails_the_connection_with_1007(
    server: Program, payload: bytes, opcode: int
) -> None:
    with join(server) as peer:
        peer.send(masked(0xA0 | opcode, payload))
        assert peer.read_close()[0] == 1007


def test_text_that_is_not_utf_8_fails_although_its_checksum_is_right(server: Program) -> None:
    with join(server) as peer:
        peer.send(masked(0xA1, bytes.fromhex("ff000000 ff")))  # the CRC-32 of FF is FF000000
        assert peer.read_close()[0] == 1007


@pytest.mark.parametrize(
    "frames",
    [
        masked(0x21, CRC) + masked(0xA0, b"Hello"),  # RSV2 again, on a continuation
        masked(0xA9, CRC),  # RSV2 on a Ping
        masked(0xA8, CRC),  # and on a Close
        masked(0x91, CRC + b"Hello"),  # RSV3
        masked(0xB1, CRC + b"Hello"),  # RSV2 and RSV3
        masked(0xC1, CRC + b"Hello"),  # RSV1
    ],
)
def test_bits_that_were_not_agreed_on_fail_the_connection_with_1002(
    server: Program, frames: bytes
) -> None:
    with join(server) as peer:
        peer.send(frames)
        assert peer.read_close()[0] == 1002


def test_without_the_extension_rsv2_fails_the_connection_with_1002(server: Program) -> None:
    with server.join("/echo") as peer:
        peer.send(masked(0xA1, CRC + b"Hello"))
        assert peer.read_close()[0] == 1002


def test_without_the_extension_nothing_has_a_checksum(server: Program) -> None:
    with server.join("/echo") as peer:
        peer.send(masked(0x81, b"Hello"))
        assert peer.read_frame() == (0x81, b"Hello")


def test_control_frames_have_no_checksum(server: Program) -> None:
    with join(server) as peer:
        peer.send(masked(0x89, b"Hello"))
        assert peer.read_frame() == (0x8A, b"Hello")
        peer.send(masked(0x88, close_payload(1000)))
        assert peer.read_close() == (1000, "")

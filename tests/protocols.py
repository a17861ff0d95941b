"""`Endpoint` is one side of a connection without a socket: a `Protocol` that is fed in pieces.

The tables write every frame as a server sends it, unmasked, so that a row can be read as it stands.
Where our side is the server, what it is fed is masked here first; where it is the client, what it
sends is unmasked here by its own keys. As in `peers`, no code is shared with the layer under test.
"""

from collections.abc import Callable
from typing import Any

import pytest

from peers import MASK, xor
from rfc6455 import ProtocolError, State
from rfc6455.protocol import Protocol

both_roles = pytest.mark.parametrize("role", ["server", "client"])

Cut = Callable[[bytes], list[bytes]]  # how bytes arrive


def whole(data: bytes) -> list[bytes]:
    return [data]


def halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


however_it_arrives = pytest.mark.parametrize("arriving", [whole, halves, single_bytes])


def some_bytes(size: int) -> bytes:
    """So many bytes, which show when they are out of order: they repeat after 251."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# Payload size, and the length field of a frame from a server and from a client (5.2).
LENGTHS = [
    (0, "00", "80"),
    (1, "01", "81"),
    (125, "7d", "fd"),
    (126, "7e 00 7e", "fe 00 7e"),
    (127, "7e 00 7f", "fe 00 7f"),
    (65535, "7e ff ff", "fe ff ff"),
    (65536, "7f 00 00 00 00 00 01 00 00", "ff 00 00 00 00 00 01 00 00"),
    (65537, "7f 00 00 00 00 00 01 00 01", "ff 00 00 00 00 00 01 00 01"),
]


def hex_or_bytes(frames: str | bytes) -> bytes:
    return bytes.fromhex(frames) if isinstance(frames, str) else frames


def measure(frame: bytes) -> tuple[int, int]:
    """Bytes of the header without the masking key, and bytes of the payload (5.2)."""
    size = frame[1] & 0x7F
    if size < 126:
        return 2, size
    header = 4 if size == 126 else 10
    return header, int.from_bytes(frame[2:header], "big")


def as_client(frames: bytes, key: bytes = MASK) -> bytes:
    """A server's frames as a client would send them. The last may be cut off, or bad."""
    masked = bytearray()
    while len(frames) >= 2:
        header, size = measure(frames)
        masked += bytes([frames[0], frames[1] | 0x80]) + frames[2:header]
        masked += key + xor(frames[header : header + size], key)
        frames = frames[header + size :]
    return bytes(masked) + frames


def as_server(frames: bytes) -> bytes:
    """A client's frames, each of them whole, as a server would send them."""
    unmasked = bytearray()
    while frames:
        assert frames[1] & 0x80, f"a client's frame is not masked: {frames[:20]!r}"
        header, size = measure(frames)
        end = header + 4 + size
        assert len(frames) >= end, f"a frame is cut off: {frames[:20]!r}"
        unmasked += bytes([frames[0], frames[1] & 0x7F]) + frames[2:header]
        unmasked += xor(frames[header + 4 : end], frames[header : header + 4])
        frames = frames[end:]
    return bytes(unmasked)


class Endpoint:
    """Our side of a connection in one role. `options` are those of `Protocol`."""

    def __init__(self, role: str, **options: Any) -> None:
        self.role = role
        self.protocol = Protocol(is_client=role == "client", **options)

    def feed(self, frames: str | bytes) -> None:
        """Let these frames of the peer arrive, and do nothing with them yet."""
        self.protocol.receive_data(self.by_the_peer(frames))

    def receive(self, frames: str | bytes, arriving: Cut = whole) -> list[str | bytes]:
        """The messages that these frames of the peer complete, taken after each piece."""
        messages = []
        for piece in arriving(self.by_the_peer(frames)):
            self.protocol.receive_data(piece)
            messages += self.messages()
        return messages

    def by_the_peer(self, frames: str | bytes) -> bytes:
        """The bytes by which the peer sends these frames."""
        frames = hex_or_bytes(frames)
        return as_client(frames) if self.role == "server" else frames

    def messages(self) -> list[str | bytes]:
        """All messages that are complete."""
        messages = []
        while (message := self.protocol.next_message()) is not None:
            messages.append(message)
        return messages

    def sent(self) -> bytes:
        """The control frames that are to be sent now, as a server would send them."""
        return self.readable(self.protocol.data_to_send())

    def readable(self, frames: bytes) -> bytes:
        """Frames of ours, as a server would send them."""
        return as_server(frames) if self.role == "client" else frames

    @property
    def error(self) -> tuple[int, str] | None:
        """Code and reason with which our side has failed the connection, if it has."""
        error: ProtocolError | None = self.protocol.error
        return None if error is None else (error.code, error.reason)

    def assert_failed(self, code: int, reason: str) -> None:
        """Our side has failed the connection: this Close is all it sent; it receives no more."""
        payload = code.to_bytes(2, "big") + reason.encode()
        assert self.error == (code, reason)
        assert self.sent() == bytes([0x88, len(payload)]) + payload
        assert self.protocol.state is State.FAILED
        assert not self.protocol.is_receiving
        assert (self.protocol.close_code, self.protocol.close_reason) == (1006, reason)


def assert_fails(
    role: str, frames: str | bytes, code: int, reason: str, arriving: Cut = whole
) -> None:
    """These frames of the peer fail the connection with this Close; no message is received."""
    endpoint = Endpoint(role)
    assert endpoint.receive(frames, arriving) == []
    endpoint.assert_failed(code, reason)


def failure(role: str, data: str) -> tuple[int, str] | None:
    """Code and reason with which these very bytes, whole or one by one, fail the connection."""
    found = []
    for pieces in ([bytes.fromhex(data)], single_bytes(bytes.fromhex(data))):
        endpoint = Endpoint(role)
        for piece in pieces:
            endpoint.protocol.receive_data(piece)
            assert endpoint.messages() == []
        found.append(endpoint.error)
    assert found[0] == found[1]
    return found[0]

"""A solution of the fourth exercise: the echo server with an extension, x-crc32.

Where both sides have agreed on it, a message may have RSV2 set in its first frame, and then begins
with the CRC-32 of all that follows in it: four bytes of extension data (RFC 6455, 5.2). It shows
what an extension has to touch: the header's bits and the payload in the parser, the frame that is
built, the opening handshake, and the WebSocket that has to know what was agreed on.

The layer has no general place for that: it knows one extension, by name. So this replaces two of
its names, and two parts of a WebSocket. Left out: both extensions at once (`--deflate`); the
client's side; and `broadcast`, which makes one frame for all clients with the same compression.
While the handler is busy, the clock does not find a Ping behind a message that has a checksum: it
would not know the bit.
"""

import zlib
from email.message import Message

import echo_server
import rfc6455.server
from rfc6455 import CloseCode, Handshake, Opcode, ProtocolError, WebSocket, handshake
from rfc6455.frames import Chunk, FrameParser, build_frame
from rfc6455.protocol import MAX_MESSAGE, Protocol
from rfc6455.stream import Stream

NAME = "x-crc32"
RSV2 = 0x20
CHECKSUM_SIZE = 4  # bytes
_DATA_OPCODES = (Opcode.TEXT, Opcode.BINARY)


class ChecksumParser(FrameParser):
    """Cuts bytes into frames, and takes the extension data out of those that have it."""

    _has_checksum = False  # whether the current message has RSV2 set
    _extension_data = b""  # as much of it as has come
    _checksum = 0  # of the application data that has come

    def parse(self) -> Chunk | None:
        """The next chunk, with application data alone. Raises ProtocolError."""
        chunk = super().parse()
        if chunk is None or chunk.opcode >= Opcode.CLOSE or not self._has_checksum:
            return chunk
        rest = CHECKSUM_SIZE - len(self._extension_data)
        self._extension_data += chunk.payload[:rest]
        payload = chunk.payload[rest:]
        self._checksum = zlib.crc32(payload, self._checksum)
        if chunk.fin and chunk.last and self._extension_data != _encode(self._checksum):
            raise ProtocolError(CloseCode.INVALID_DATA, "the checksum is wrong")
        return chunk._replace(payload=payload)

    def _parse_header(self) -> bool:
        """Take the next frame's header; the parser beneath is not shown the bit RSV2."""
        data = self._data
        at = self._at
        first = data[at] if at < len(data) else 0
        begins_message = first & 0x0F in _DATA_OPCODES
        has_checksum = begins_message and bool(first & RSV2)
        if has_checksum:  # a copy of all that waits, which a parser that knows the bit would save
            self._data = data[:at] + bytes([first & ~RSV2]) + data[at + 1 :]
        is_whole = super()._parse_header()
        if not is_whole:
            self._data = data
        elif begins_message:
            self._has_checksum = has_checksum
            self._extension_data = b""
            self._checksum = 0
        return is_whole


class ChecksumProtocol(Protocol):
    """One side of a connection on which the extension was agreed."""

    def __init__(self, *, is_client: bool, max_message: int, stream: Stream) -> None:
        super().__init__(is_client=is_client, max_message=max_message, lock=stream.lock)
        self._frames = ChecksumParser(masked=not is_client, max_message=max_message + CHECKSUM_SIZE)

    def build_message(self, message: str | bytes | bytearray | memoryview) -> bytes:
        """One message as a frame, with its checksum."""
        is_text = isinstance(message, str)
        payload = message.encode() if isinstance(message, str) else bytes(memoryview(message))
        frame = build_frame(
            Opcode.TEXT if is_text else Opcode.BINARY,
            _encode(zlib.crc32(payload)) + payload,
            masked=self.is_client,
        )
        return bytes([frame[0] | RSV2]) + frame[1:]


def _encode(checksum: int) -> bytes:
    return checksum.to_bytes(CHECKSUM_SIZE, "big")


class ChecksumWebSocket(WebSocket):
    """A server's WebSocket, with checksums if its client has offered the extension."""

    def __init__(
        self,
        stream: Stream,
        opening: Handshake,
        *,
        is_client: bool,
        max_message: int = MAX_MESSAGE,
        received: bytes = b"",
    ) -> None:
        super().__init__(stream, opening, is_client=is_client, max_message=max_message)
        if is_offered(opening.headers):
            # Nothing has been read yet, and the clock looks at the protocol a second from now.
            self._protocol = ChecksumProtocol(
                is_client=is_client, max_message=max_message, stream=stream
            )
        self._protocol.receive_data(received)


def is_offered(headers: Message) -> bool:
    """Whether a request offers the extension, which has no parameters."""
    return handshake.Extension(NAME, []) in handshake.parse_extensions(headers)


def response_headers(
    headers: Message, subprotocol: str | None, extension: str | None
) -> list[tuple[str, str]]:
    """The headers of the 101 response, with the extension if the client offers it."""
    return ours(headers, subprotocol, NAME if is_offered(headers) else extension)


ours = handshake.response_headers

if __name__ == "__main__":
    # The program looks these names up when it needs them, and finds ours.
    vars(handshake).update(response_headers=response_headers)
    vars(rfc6455.server).update(WebSocket=ChecksumWebSocket)
    echo_server.main()

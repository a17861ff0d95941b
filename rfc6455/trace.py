"""What travels on a connection, as values: the lines of its handshake, and each frame (5.2).

A `Trace` is given the bytes of both directions as they are read and written, cut anywhere. It cuts
them into frames with the same `FrameParser` by which a connection reads, so that it shows what that
finds in them. It only looks: whatever it sees, the connection goes on as if there was no trace.

No socket and no thread here. `trace_words.py` has a line of text for each of the values. Left out:
HTTP that is no opening handshake of a WebSocket, such as the requests for the files of a page.
"""

import re
import sys
from collections.abc import Callable
from typing import NamedTuple

from .deflate import Deflate, Inflater
from .errors import ProtocolError
from .frames import Chunk, FrameParser, Opcode, mask
from .handshake import MAX_HEAD
from .protocol import Reading

# Bytes of a frame's payload that are kept to be shown, and bytes of what they inflate to.
KEPT = 256
_KEY_SIZE = 4  # bytes of a masking key (5.3)
_NO_LIMIT = sys.maxsize - 1  # bytes of a message: whatever we send ourselves is shown
_EXTENDED_SIZES = {126: 2, 127: 8}  # bytes of the extended payload length (5.2)
_UPGRADE = re.compile(rb"^upgrade[ \t]*:[^\r\n]*websocket", re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})")


class HandshakeLine(NamedTuple):
    """One line of an opening handshake, or of the text with which it is refused (4)."""

    peer: str
    sent: bool  # by this side; else received
    text: str  # without the line end, and as it came: for a terminal it has to be escaped


class Frame(NamedTuple):
    """One frame as it was on the wire (5.2). If it is cut off, so may be its header."""

    peer: str
    sent: bool  # by this side; else received
    header: bytes = b""  # all before the payload: 2 to 14 bytes, the masking key among them
    payload: bytes = b""  # the first KEPT bytes of it, unmasked
    missing: int = 0  # bytes of the payload that never came, if it is cut off
    is_text: bool = False  # whether it belongs to a text message
    # What inflating this payload adds to its message, if that is compressed (RFC 7692): the first
    # KEPT bytes, and how many there are.
    inflated: bytes | None = None
    inflated_length: int = 0
    error: str = ""  # the rule that it breaks, in words; then nothing that follows is looked at

    @property
    def fin(self) -> bool:
        """FIN: whether it is the last fragment of its message."""
        return self.header[0] >= 0x80

    @property
    def rsv(self) -> int:
        """RSV1, RSV2 and RSV3 as a number of three bits: 0b100 if only RSV1 is set."""
        return self.header[0] >> 4 & 0b111

    @property
    def opcode(self) -> int:
        """0 to 15; `Opcode` has the names of those that are defined."""
        return self.header[0] & 0x0F

    @property
    def is_masked(self) -> bool:
        """MASK: whether there is a masking key."""
        return self.header[1:2] >= b"\x80"

    @property
    def short_length(self) -> int:
        """The 7 bits of the payload length: 126 and 127 stand for a longer one behind them."""
        return self.header[1] & 0x7F if len(self.header) > 1 else 0

    @property
    def has_length(self) -> bool:
        """Whether the header has come as far as to the end of its length."""
        return len(self.header) >= 2 + _EXTENDED_SIZES.get(self.short_length, 0)

    @property
    def extended_length(self) -> bytes:
        """The 2 or 8 bytes of the extended payload length; b"" where there are none."""
        return self.header[2 : 2 + _EXTENDED_SIZES.get(self.short_length, 0)]

    @property
    def length(self) -> int:
        """Bytes of the payload, as the header says."""
        extended = self.extended_length
        return int.from_bytes(extended, "big") if extended else self.short_length

    @property
    def masking_key(self) -> bytes:
        """Four bytes (5.3); b"" if it is not masked, or broken before they were looked at."""
        key = self.header[2 + len(self.extended_length) :] if self.is_masked else b""
        return key if len(key) == _KEY_SIZE else b""

    @property
    def wire_payload(self) -> bytes:
        """The first KEPT bytes of the payload as they travelled, which is masked by the key."""
        return mask(self.payload, self.masking_key) if self.masking_key else self.payload


Traced = HandshakeLine | Frame
TraceHandler = Callable[[Traced], None]


class Trace:
    """Watches one connection, and calls its handlers with each line of the handshake and frame.

    `received` is called by the thread that reads, and `sent` by those that write, one at a time,
    before the bytes go out. They call the handlers, so that these must neither wait nor use the
    connection.

    peer: what the values name the peer.
    handler: called with all of them; None for none.
    """

    def __init__(self, peer: str, handler: TraceHandler | None = None) -> None:
        # Called with each frame, besides the other one. Any thread may set it.
        self.frame_handler: Callable[[Frame], None] | None = None
        self._handler = handler
        self._peer = peer
        self._handshake: _Handshake | None = _Handshake(self._emit_line)
        self._incoming: _Frames | None = None
        self._outgoing: _Frames | None = None

    def received(self, data: bytes) -> None:
        """Take bytes that have come from the peer."""
        if self._incoming:
            self._incoming.feed(data)
        elif self._handshake:
            self._handshake.feed(data, sent=False)

    def sent(self, data: bytes) -> None:
        """Take bytes that are about to be sent."""
        if self._outgoing:
            self._outgoing.feed(data)
        elif self._handshake:
            self._handshake.feed(data, sent=True)

    def begin_frames(
        self,
        *,
        is_client: bool,
        max_message: int,
        deflate: Deflate | None,
        reading: Reading | None = None,
    ) -> None:
        """From here on there are frames, as the two sides have agreed on them.

        max_message: bytes of one message that may come.
        reading: where to go on in what comes; without it, right behind the handshake.
        """
        rest = self._handshake.rest if self._handshake else b""
        self._handshake = None
        reading = reading or _begin_reading(deflate, max_message, is_client=is_client)
        going = _begin_reading(deflate, _NO_LIMIT, is_client=not is_client)  # as the peer reads it
        self._incoming = _Frames(reading, self._emit_frame, Frame(self._peer, False))
        self._outgoing = _Frames(going, self._emit_frame, Frame(self._peer, True))
        self._incoming.feed(rest)

    def end(self) -> None:
        """Show what is not complete, because nothing more is coming."""
        if self._handshake:
            self._handshake.end()
        for frames in (self._incoming, self._outgoing):
            if frames:
                frames.end()

    @property
    def has_handlers(self) -> bool:
        """Whether anybody is called."""
        return self._handler is not None or self.frame_handler is not None

    def _emit_line(self, sent: bool, text: str) -> None:
        if self._handler:
            self._handler(HandshakeLine(self._peer, sent, text))

    def _emit_frame(self, frame: Frame) -> None:
        if self._handler:
            self._handler(frame)
        frame_handler = self.frame_handler  # once: it may be set to None at any time
        if frame_handler:
            frame_handler(frame)


class _Handshake:
    """The lines of one opening handshake, in both directions (4)."""

    def __init__(self, emit: Callable[[bool, str], None]) -> None:
        self._emit = emit
        self._request_is_sent: bool | None = None  # by this side; None before its first byte
        self._is_shown: bool | None = None  # whether it asks for a WebSocket; None until known
        self._request = b""  # what was not shown of it
        self._response = b""
        self._status = b""  # of the newest response
        self._is_over = False  # whether frames follow

    @property
    def rest(self) -> bytes:
        """What the peer has sent behind its part of the handshake."""
        return self._response if self._request_is_sent else self._request

    def feed(self, data: bytes, *, sent: bool) -> None:
        if self._request_is_sent is None:
            self._request_is_sent = sent
        if sent != self._request_is_sent:
            self._show_request()  # however little of it has come
            if self._is_shown:
                self._response += data
                self._show_response(sent)
        elif not self._is_refused:
            self._request += data
            if b"\r\n\r\n" in self._request or len(self._request) > MAX_HEAD:
                self._show_request()

    def end(self) -> None:
        """Show what has come of a head or of a line, because no more of it does."""
        if self._request_is_sent is None:
            return
        self._show_request()
        if self._response and not self._is_over:
            self._emit(not self._request_is_sent, self._response.decode("latin-1"))
            self._response = b""

    @property
    def _is_refused(self) -> bool:
        """Whether no frames follow the request, and nothing that does is looked at."""
        return self._is_shown is False or self._status[:1] > b"1"

    def _show_request(self) -> None:
        """Show the request's head if it asks for a WebSocket, unless that was done."""
        if self._is_shown is not None:
            return
        head, _, rest = self._request.partition(b"\r\n\r\n")
        self._is_shown = bool(_UPGRADE.search(head))
        self._request = rest if self._is_shown else b""
        if self._is_shown:
            assert self._request_is_sent is not None
            for line in head.split(b"\r\n"):
                self._emit(self._request_is_sent, line.decode("latin-1"))
            self._emit(self._request_is_sent, "")

    def _show_response(self, sent: bool) -> None:
        """Show the complete lines of the head, and of the text behind it if this is a refusal."""
        while b"\n" in self._response and not self._is_over:
            line, _, self._response = self._response.partition(b"\n")
            line = line.removesuffix(b"\r")
            self._emit(sent, line.decode("latin-1"))
            status = _STATUS.match(line)
            if status:
                self._status = status[1]
            self._is_over = self._status == b"101" and not line


def _begin_reading(deflate: Deflate | None, max_message: int, *, is_client: bool) -> Reading:
    """What the client or the server of a new connection reads with."""
    is_compressed = deflate is not None
    parser = FrameParser(masked=not is_client, max_message=max_message, compressed=is_compressed)
    return Reading(parser, Inflater.for_side(deflate, is_client=is_client) if deflate else None)


class _Frames:
    """The frames of one direction."""

    def __init__(self, reading: Reading, emit: Callable[[Frame], None], frame: Frame) -> None:
        """`frame` is one without header and payload, from which all others are made."""
        self._parser = reading.parser
        self._inflater = reading.inflater
        self._emit = emit
        self._empty = frame
        # Of the frame that was begun last; b"" within one whose beginning was not seen.
        self._header = b""
        self._frame: Frame | None = None  # the one whose header has come, and whose end has not
        self._is_text = reading.is_text  # whether the current message is text
        self._is_compressed = reading.is_compressed  # whether the current message is
        self._is_broken = False

    def feed(self, data: bytes) -> None:
        if self._is_broken:
            return
        self._parser.feed(data)
        try:
            while True:
                self._header = self._parser.next_header() or self._header
                chunk = self._parser.parse()
                if chunk is None:
                    break
                self._add(chunk)
        except ProtocolError as error:
            if self._frame:  # what has not come yet may still come
                self._frame = self._frame._replace(missing=0)
            self._show_broken(error.reason)

    def _add(self, chunk: Chunk) -> None:
        if chunk.first and chunk.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = chunk.opcode == Opcode.TEXT
            self._is_compressed = chunk.rsv1
        is_data = chunk.opcode < Opcode.CLOSE
        if chunk.first and self._header:
            is_text = is_data and self._is_text
            self._frame = self._empty._replace(header=self._header, is_text=is_text)
        if self._frame:
            self._frame = _add_payload(self._frame, chunk.payload, self._parser.missing)
        if is_data and self._is_compressed:
            self._inflate(chunk)
        if chunk.last:
            self._show(self._frame)

    def _inflate(self, chunk: Chunk) -> None:
        """Add to the frame what inflating this chunk of it adds. Raises ProtocolError."""
        assert self._inflater
        completes = chunk.fin and chunk.last
        inflated = self._inflater.inflate(chunk.payload, completes, self._parser.max_message)
        frame = self._frame
        if frame:
            self._frame = frame._replace(
                inflated=((frame.inflated or b"") + inflated[:KEPT])[:KEPT],
                inflated_length=frame.inflated_length + len(inflated),
            )

    def _show(self, frame: Frame | None) -> None:
        self._frame = None
        if frame:
            self._emit(frame)

    def _show_broken(self, error: str) -> None:
        self._is_broken = True
        frame = self._frame
        if frame is None and self._header:
            frame = self._empty._replace(header=self._header)
        self._show(frame and frame._replace(error=error))

    def end(self) -> None:
        """Show a frame that is cut off."""
        if self._is_broken or not self._parser.is_within_frame:
            return
        if self._frame is None and self._header and self._parser.missing:
            self._frame = self._begun_control_frame()
        self._show_broken("it is cut off")

    def _begun_control_frame(self) -> Frame:
        """The frame whose header was parsed alone, because the parser waits for all of it."""
        frame = self._empty._replace(header=self._header)
        payload = self._parser.unread_bytes()
        missing = self._parser.missing - len(payload)
        if frame.is_masked:
            payload = mask(payload, frame.masking_key)
        return _add_payload(frame, payload, missing)


def _add_payload(frame: Frame, payload: bytes, missing: int) -> Frame:
    """The frame with more of its payload, of which so many bytes have not come yet."""
    return frame._replace(payload=(frame.payload + payload[:KEPT])[:KEPT], missing=missing)

"""One connection as a state machine without I/O (RFC 6455, 5.4-5.6, 6, 7, 8.1).

Bytes that have arrived go in; messages, and bytes to be sent, come out. `State` is the only
variable that says where a connection stands, and every rule of the closing handshake is applied
here: who has sent a Close, what may follow it, and when there is nothing more to receive.

It is lazy: what has arrived is parsed when the next message is asked for, so that memory stays
bounded by what was fed, however far it inflates, and an echo answers each message before it looks
at the Close behind it. Left out: sending a message in fragments. Each goes out as one frame.
"""

import codecs
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Generic, TypeVar

from .deflate import Deflate, Inflater, compress
from .errors import ConnectionClosed, ProtocolError
from .frames import (
    MAX_CONTROL,
    Chunk,
    CloseCode,
    FrameParser,
    Opcode,
    build_close,
    build_frame,
    parse_close,
)

MAX_MESSAGE = 1 << 20  # bytes of payload, all fragments of a message together (10.4)

_SMALL = 1024  # bytes or characters: so long is a piece of a message that is kept as it came
_CONTINUATION = int(Opcode.CONTINUATION)
_TEXT = int(Opcode.TEXT)
_BINARY = int(Opcode.BINARY)
_FIRST_CONTROL = int(Opcode.CLOSE)

Data = TypeVar("Data", str, bytes)


class State(Enum):
    """Where a connection stands, from the end of the opening handshake to the end of TCP (7.1).

    OPEN            --- our Close ----------------> CLOSE_SENT
    OPEN            --- Close, answered at once --> CLOSE_EXCHANGED
    CLOSE_SENT      --- Close --------------------> CLOSE_EXCHANGED
    OPEN            --- bad frame, end of TCP ----> FAILED
    CLOSE_SENT      --- bad frame, end of TCP ----> FAILED
    any of these    --- TCP has ended ------------> CLOSED
    """

    OPEN = "open"
    CLOSE_SENT = "our Close was sent"  # messages may still arrive; none is sent
    CLOSE_EXCHANGED = "both have sent a Close"  # nothing may follow but the end of TCP (7.1.1)
    FAILED = "failed"  # 7.1.7: whatever still arrives is not looked at
    CLOSED = "closed"


_OPEN = State.OPEN  # looked at for every message, for which a name of its own is faster
# The states in which the peer's frames are looked at. A tuple: `in` finds its members by identity.
_RECEIVING = (State.OPEN, State.CLOSE_SENT)


class Protocol:
    """One side of a connection: `is_client` says which.

    `max_message` is in bytes, after inflating. `deflate` is what was agreed on, if anything was.

    One thread at a time may receive: it calls `receive_data`, `receive_eof`, `next_message` and
    `handle_control_frames`. Other threads may send meanwhile, where `lock` is a lock: it is held
    here for each change of state and the bytes that belong to it, and by the caller around
    `send_frames`, `close` and `data_to_send`, and until what these return is on its way. So no
    thread can send anything behind a Close.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        max_message: int = MAX_MESSAGE,
        deflate: Deflate | None = None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.state = State.OPEN
        self.close_code: int = CloseCode.ABNORMAL  # the peer's, once its Close has come (7.1.5)
        self.close_reason = ""  # the peer's (7.1.6); after 1006, why the connection has ended
        self.sent_reason = ""  # ours, where this side has closed
        self.error: ProtocolError | None = None  # why this side has failed the connection
        self.pongs = 0  # how many Pongs have come
        self.is_client = is_client
        self._deflate = deflate
        self._window_bits = 0  # of what this side compresses, where it does
        if deflate:
            self._window_bits = (
                deflate.client_max_window_bits if is_client else deflate.server_max_window_bits
            )
        self._lock = lock or nullcontext()
        inflater = Inflater.for_side(deflate, is_client=is_client) if deflate else None
        self._frames = FrameParser(
            masked=not is_client, max_message=max_message, compressed=inflater is not None
        )
        self._assembler = Assembler(max_message, inflater)
        self._to_send = bytearray()
        self._end: str | None = None  # why no more bytes will arrive; None while they may

    # What has arrived (6.2)

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they have arrived from the peer, cut anywhere."""
        self._frames.feed(data)

    def receive_eof(self, reason: str) -> None:
        """Know, with the reason in words, that nothing will arrive any more.

        What has arrived before still counts: the state changes when all of it was looked at.
        """
        self._end = reason

    @property
    def has_eof(self) -> bool:
        """Whether it is known that nothing will arrive any more."""
        return self._end is not None

    @property
    def unread(self) -> int:
        """Bytes that have arrived and were not parsed yet."""
        return self._frames.unread

    @property
    def missing(self) -> int:
        """Bytes that are known to belong to the current frame and were not parsed yet."""
        return self._frames.missing

    @property
    def is_receiving(self) -> bool:
        """Whether a message may still come: there was no Close from the peer, and no failure."""
        return self.state in _RECEIVING

    def is_cut_off(self) -> bool:
        """Whether the bytes that have arrived end within a frame: the peer is still sending it."""
        return not self._frames.ends_with_a_frame()

    def next_message(self) -> str | bytes | None:
        """The next message that is complete: str for text, bytes for binary data (5.6).

        None where there is none; `is_receiving` tells whether there may be one when more bytes
        have arrived. Control frames on the way are handled, and so is what breaks a rule: after
        each call there may be `data_to_send`.
        """
        try:
            while self.state in _RECEIVING and (chunk := self._frames.parse()) is not None:
                if chunk.opcode >= _FIRST_CONTROL:
                    self._handle_control_frame(chunk.opcode, chunk.payload)
                elif (message := self._assembler.add(chunk)) is not None:
                    return message
        except ProtocolError as error:
            self._fail(error)
        self._end_where_cut_off()
        return None

    def handle_control_frames(self) -> None:
        """Handle the control frames at hand without taking a message, for a receiver that is busy.

        Pings are answered wherever they stand. A Close is handled only where no message stands
        before it: an application answers these first.
        """
        try:
            while self.state in _RECEIVING:
                for opcode, payload in self._frames.take_pings_and_pongs():
                    self._handle_control_frame(opcode, payload)
                chunk = self._frames.parse() if self._frames.is_control_next() else None
                if chunk is None:
                    break
                self._handle_control_frame(chunk.opcode, chunk.payload)
        except ProtocolError as error:
            self._fail(error)
        if not self._frames.unread:
            self._end_where_cut_off()

    def _handle_control_frame(self, opcode: int, payload: bytes) -> None:
        """Do what a control frame asks for (5.5). Raises ProtocolError for a bad Close."""
        if opcode == Opcode.PONG:
            self.pongs += 1  # 5.5.3: one that nobody has asked for is no error
        elif opcode == Opcode.PING:
            # 5.5.3: the answer has the same payload. 5.5.2 wants it also after our own Close.
            pong = build_frame(Opcode.PONG, payload, masked=self.is_client)
            with self._lock:
                self._to_send += pong
        else:
            self._handle_close(payload)

    def _handle_close(self, payload: bytes) -> None:
        """Take note of the peer's Close, and answer it unless ours has gone before (5.5.1)."""
        code, reason = parse_close(payload)
        with self._lock:
            self.close_code = code
            self.close_reason = reason
            if self.state is State.OPEN:
                # 5.5.1: the answer has the code that came; 7.1.5: 1005 stands for none.
                answer = build_close(None if code == CloseCode.NO_STATUS else code)
                self._add_close_frame(answer)
            self.state = State.CLOSE_EXCHANGED

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection (7.1.7): say why, unless our Close has gone before."""
        with self._lock:
            self.error = error
            self.close_reason = error.reason
            if self.state is State.OPEN:
                self._add_close_frame(build_close(error.code, error.reason))
            self.state = State.FAILED

    def _end_where_cut_off(self) -> None:
        """7.1.5: where TCP has ended without a Close the code is 1006."""
        if self._end is not None and self.state in _RECEIVING:
            with self._lock:
                self.close_reason = self._end
                self.state = State.FAILED

    # What is to be sent (6.1)

    def build_message(self, message: str | bytes | bytearray | memoryview) -> bytes:
        """One message as a frame (6.1): text from str, binary data from the others. Any thread.

        It is compressed if that was agreed on and makes it smaller (RFC 7692, 6.1). Raises
        UnicodeEncodeError for a lone surrogate, TypeError for what is neither text nor bytes.
        """
        if isinstance(message, str):
            opcode = _TEXT
            payload = message.encode()
        else:
            opcode = _BINARY
            # memoryview refuses what bytes() would take for a count: bytes(5) are five zeros.
            payload = message if isinstance(message, bytes) else bytes(memoryview(message))
        if self._deflate and len(payload) >= self._deflate.least:
            smaller = compress(payload, self._window_bits)
            if smaller is not None and len(smaller) < len(payload):
                return build_frame(opcode, smaller, masked=self.is_client, rsv1=True)
        return build_frame(opcode, payload, masked=self.is_client)

    def build_ping(self, payload: bytes = b"") -> bytes:
        """A Ping as a frame (5.5.2). Any thread. Raises ValueError for more than 125 bytes."""
        if len(payload) > MAX_CONTROL:
            raise ValueError(f"a ping has at most {MAX_CONTROL} bytes")
        return build_frame(Opcode.PING, payload, masked=self.is_client)

    def send_frames(self, frames: bytes) -> bytes:
        """The bytes to send now, so that these frames go out; what waits comes before them.

        Raises ConnectionClosed: 5.5.1 forbids any data behind our Close.
        """
        if self.state is not _OPEN:
            reason = self.close_reason or "the connection is closing"
            raise ConnectionClosed(self.close_code, reason)
        return self.data_to_send() + frames if self._to_send else frames

    def close(self, code: int | None = CloseCode.NORMAL, reason: str = "") -> None:
        """Start the closing handshake (7.1.2). Nothing happens where it was started already.

        Raises ValueError for a code that may not be sent (7.4), or a reason of over 123 bytes.
        """
        if code == CloseCode.MISSING_EXTENSION and not self.is_client:
            raise ValueError("1010 is for clients: a server can refuse the handshake")
        payload = build_close(code, reason)
        if self.state is State.OPEN:
            self.sent_reason = reason
            self._add_close_frame(payload)
            self.state = State.CLOSE_SENT

    def end(self) -> None:
        """Know that TCP has ended in both directions (7.1.4)."""
        with self._lock:
            self.state = State.CLOSED

    @property
    def has_data_to_send(self) -> bool:
        """Whether there are Pongs or a Close to be sent."""
        return bool(self._to_send)

    def data_to_send(self) -> bytes:
        """Take the control frames that are to be sent now; perhaps there are none."""
        data = bytes(self._to_send)
        self._to_send.clear()
        return data

    def _add_close_frame(self, payload: bytes) -> None:
        self._to_send += build_frame(Opcode.CLOSE, payload, masked=self.is_client)


class Assembler:
    """Joins the chunks of frames to messages, and checks their order and their text (5.4, 8.1).

    `max_message` is in bytes. `inflater` undoes the compression of the messages that have it.
    """

    def __init__(self, max_message: int, inflater: Inflater | None = None) -> None:
        self._max_message = max_message
        self._inflater = inflater
        self._message: _Text | _Binary | None = None  # the one that is under way
        self._compressed = False

    def add(self, chunk: Chunk) -> str | bytes | None:
        """The message that this chunk of a data frame completes, or None. Raises ProtocolError."""
        if chunk.first:
            if (chunk.opcode == _CONTINUATION) != (self._message is not None):
                found = "nothing to continue" if self._message is None else "a message within one"
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, found)
            if self._message is None:
                if chunk.fin and chunk.last and not chunk.rsv1:  # most messages come so
                    return _whole(chunk.opcode, chunk.payload)
                self._message = _Text() if chunk.opcode == _TEXT else _Binary()
                self._compressed = chunk.rsv1
        assert self._message is not None
        last = chunk.fin and chunk.last
        payload = chunk.payload
        if self._compressed and self._inflater:
            payload = self._inflater.inflate(payload, last, self._max_message - self._message.size)
        self._message.add(payload, last)
        if not last:
            return None
        message = self._message.value()
        self._message = None
        return message


def _whole(opcode: int, payload: bytes) -> str | bytes:
    """The message of a frame that is alone."""
    if opcode != _TEXT:
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise _not_utf8() from None


class _Pieces(Generic[Data]):
    """Pieces of a message, to be joined once, when it is complete.

    With a buffer that grows with each piece, an echo of a MiB takes one and a half times as long:
    the kernel provides its memory anew, page by page. But a list must not hold a million pieces of
    one byte each, so that small ones are joined at once.
    """

    def __init__(self, empty: Data) -> None:
        """`empty` is b"" or "", and says which of the two the pieces are."""
        self._empty: Data = empty
        self._pieces: list[Data] = []
        self._small: list[Data] = []  # that follow upon these, and become one of them together

    def add(self, piece: Data) -> None:
        if len(piece) < _SMALL:
            if piece:
                self._small.append(piece)
            if len(self._small) < _SMALL:
                return
            piece = self._empty
        if self._small:
            self._pieces.append(self._empty.join(self._small))
            self._small.clear()
        self._pieces.append(piece)

    def join(self) -> Data:
        return self._empty.join(self._pieces + self._small)


class _Binary:
    """A binary message that comes in pieces."""

    def __init__(self) -> None:
        self.size = 0  # bytes so far
        self._pieces = _Pieces(b"")

    def add(self, data: bytes, last: bool) -> None:
        self.size += len(data)
        self._pieces.add(data)

    def value(self) -> bytes:
        return self._pieces.join()


class _Text:
    """A text message that comes in pieces, each checked as it comes.

    8.1: text that is not UTF-8 is refused where it turns bad, not at its end.
    """

    def __init__(self) -> None:
        self.size = 0  # bytes so far
        self._pieces = _Pieces("")
        self._begun = b""  # of a character that ends in the next piece

    def add(self, data: bytes, last: bool) -> None:
        """Raises ProtocolError."""
        self.size += len(data)
        data = self._begun + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", last)
        except UnicodeDecodeError:
            raise _not_utf8() from None
        self._begun = data[used:]
        # Half of a surrogate pair has three bytes. Python's decoder waits for the third.
        if self._begun[:1] == b"\xed" and self._begun[1:] >= b"\xa0":
            raise _not_utf8()
        self._pieces.add(text)

    def value(self) -> str:
        return self._pieces.join()


def _not_utf8() -> ProtocolError:
    return ProtocolError(CloseCode.INVALID_DATA, "the text is not UTF-8")

"""One connection as a state machine without I/O (RFC 6455, 5.4-5.6, 6, 7, 8.1).

Bytes that have arrived go in; messages, and bytes to be sent, come out. `Protocol.state` decides
what may still be sent and received, and the rules for frames in the closing handshake are applied
here and nowhere else. How TCP is ended (7.1.1), and how long each side may take, is left to the
caller.

It is lazy: what has arrived is parsed when the next message is asked for. So memory is bounded by
what was fed and one message, however far it inflates. And a Close is answered only when the
messages before it were taken, as nothing could be sent to answer them after that (5.5.1 wants the
answer as soon as practical). Stricter than the RFC: a message has a largest size (10.4), and a
largest number of fragments. Left out: compressing a message that is sent in fragments.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

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
# Fragments of one message. Each costs time, and an empty one costs its sender next to nothing.
# Honest senders use few; the most that is known are those of Autobahn's tests, which send 4 MiB in
# fragments of 64 bytes: 65,536.
MAX_FRAGMENTS = 131_072
# Of these, fragments without payload. An honest sender has one at each end, or where it flushes.
MAX_EMPTY_FRAGMENTS = 1000

# A piece of a message that is shorter, in bytes or characters, is joined with others like it; so
# many of them at most are kept apart.
_SMALL_PIECE = 1024
_MAX_SMALL_PIECES = 1024
# As plain numbers: to compare members of an IntEnum takes longer, for each frame.
_CONTINUATION = int(Opcode.CONTINUATION)
_TEXT = int(Opcode.TEXT)
_BINARY = int(Opcode.BINARY)
_FIRST_CONTROL = int(Opcode.CLOSE)

Data = TypeVar("Data", str, bytes)
# A whole message, or one part of it: text, or one of the types that hold binary data.
Part = str | bytes | bytearray | memoryview


class State(Enum):
    """Where a connection stands, from the end of the opening handshake to the end of TCP (7.1).

    "Sent" means here: handed out by `data_to_send`, or about to be, before anything else is.

    OPEN            --- we close -----------------------> CLOSE_SENT
    OPEN            --- a Close comes, and is answered -> CLOSE_EXCHANGED
    CLOSE_SENT      --- a Close comes ------------------> CLOSE_EXCHANGED
    OPEN            --- a rule is broken, or EOF -------> FAILED
    CLOSE_SENT      --- a rule is broken, or EOF -------> FAILED
    any of these    --- TCP has ended on both sides ----> CLOSED
    """

    OPEN = "open"
    # Our Close was sent. Messages may still come. Data is not sent any more, but Pongs are (5.5.2).
    CLOSE_SENT = "our Close was sent"
    # Both have sent a Close. What still comes is not looked at (1.4, 5.5.1).
    CLOSE_EXCHANGED = "both have sent a Close"
    # Either we have failed the connection (7.1.7), and `error` says why; or the peer's bytes have
    # ended without a Close (7.1.5), and `error` is None. What still comes is not looked at.
    FAILED = "failed"
    # It was closed cleanly if the peer's Close has come (7.1.4): `close_code` is not 1006.
    CLOSED = "closed"


_OPEN = State.OPEN  # looked at for every message: a name of its own takes less time in Python 3.11
# The states in which the peer's frames are looked at. `in` compares the members of a tuple by
# identity; for a set it would call the hash function of Enum, which is slow.
_RECEIVING = (State.OPEN, State.CLOSE_SENT)


class Reading(NamedTuple):
    """How far one side has read what comes. The parser and the inflater are copies."""

    parser: FrameParser
    inflater: Inflater | None  # None where no compression was agreed on
    is_text: bool = False  # whether a message is under way that is text,
    is_compressed: bool = False  # and whether one is that is compressed


class Protocol:
    """One side of a connection: `is_client` says which.

    max_message: bytes of one message, all its fragments together, and after inflating (10.4).
    deflate: what was agreed on (RFC 7692), or None.
    lock: what is held around each change of the state and of the bytes to be sent. Without one,
        all calls have to come from one thread.

    With a lock, one thread at a time may receive while others send:

    - The receiving thread alone may call `receive_data`, `receive_eof`, `next_message`,
      `handle_control_frames`, `tcp_ended`, `unread`, `copy_reading`, `missing`, `is_within_frame`,
      `is_within_message` and `message_size`. It must not hold the lock: they take it where they
      need it.
    - Who calls `send_frames`, `close` or `data_to_send` holds the lock, until what these return is
      on its way, in this order. That must not wait for the network.
    - Everything else may be called and read by any thread, without the lock.

    So no thread can send a data frame behind our Close.
    """

    # As in `Stream`, for the sake of a broadcast.
    __slots__ = (
        "_assembler",
        "_deflate",
        "_eof_reason",
        "_frames",
        "_lock",
        "_to_send",
        "_window_bits",
        "close_code",
        "close_reason",
        "controls",
        "error",
        "is_client",
        "pong_handler",
        "pongs",
        "sent_reason",
        "state",
    )

    def __init__(
        self,
        *,
        is_client: bool,
        max_message: int = MAX_MESSAGE,
        deflate: Deflate | None = None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.is_client = is_client
        # These four are set in this order, `state` last: who sees a state sees what belongs to it.
        self.error: ProtocolError | None = None  # why this side has failed the connection
        self.close_reason = ""  # of the peer's Close (7.1.6); after 1006, why the connection ended
        self.close_code: int = CloseCode.ABNORMAL  # 1006 until the peer's Close has come (7.1.5)
        self.state = State.OPEN
        self.sent_reason = ""  # of our Close, where this side has closed first
        self.pongs = 0  # how many Pongs have come
        self.controls = 0  # how many control frames of any kind have come
        # Called with the payload of each, by the thread that receives, without the lock.
        self.pong_handler: Callable[[bytes], None] | None = None
        self._deflate = deflate
        # Of what this side compresses; 0 where it does not.
        self._window_bits = deflate.window_bits_of(is_client=is_client) if deflate else 0
        inflater = Inflater.for_side(deflate, is_client=is_client) if deflate else None
        self._frames = FrameParser(
            masked=not is_client, max_message=max_message, compressed=inflater is not None
        )
        self._assembler = Assembler(max_message, inflater)
        self._lock = nullcontext() if lock is None else lock
        self._to_send = bytearray()  # Pongs and a Close
        self._eof_reason: str | None = None  # why nothing more will arrive; None while it may

    @property
    def max_message(self) -> int:
        """Bytes of one message that may come, all its fragments together (10.4)."""
        return self._frames.max_message

    # What has arrived (6.2)

    def receive_data(self, data: bytes) -> None:
        """Take bytes that have arrived from the peer, in pieces of any size."""
        if self.state in _RECEIVING:  # 1.4: what follows a Close is discarded
            self._frames.feed(data)

    def receive_eof(self, reason: str) -> None:
        """Record, with the reason in words, that nothing more will arrive.

        What has arrived before still counts: the state changes when all of it was looked at.
        """
        self._eof_reason = reason

    @property
    def has_eof(self) -> bool:
        """Whether nothing more will arrive."""
        return self._eof_reason is not None

    @property
    def unread(self) -> int:
        """Bytes that have arrived and were not looked at yet: so much is held for the receiver."""
        return self._frames.unread

    def copy_reading(self) -> Reading:
        """How far the frames were read, for somebody who goes on from there to show them."""
        inflater = self._assembler.inflater
        return Reading(
            self._frames.copy(),
            inflater.copy() if inflater else None,
            self._assembler.is_within_text,
            self._assembler.is_within_compressed,
        )

    @property
    def missing(self) -> int:
        """Bytes of the current frame that `next_message` still needs: a hint how much to read."""
        return self._frames.missing

    @property
    def is_receiving(self) -> bool:
        """Whether a message may still come: there was no Close from the peer, and no failure."""
        return self.state in _RECEIVING

    @property
    def is_within_frame(self) -> bool:
        """Whether what has arrived ends within a frame, so that the peer is still sending it."""
        return not self._frames.ends_with_a_frame()

    @property
    def is_within_message(self) -> bool:
        """Whether a message or a control frame has begun to arrive, and its end is missing.

        It says so after `next_message` has returned None; before, there may be whole messages.
        """
        return self._assembler.is_within_message or self._frames.is_within_frame

    @property
    def message_size(self) -> int:
        """Bytes that have come of the message that is under way, after inflating."""
        return self._assembler.message_size

    def next_message(self) -> str | bytes | None:
        """The next message that has arrived whole: str for text, bytes for binary data (5.6).

        None, and not an empty message, if there is none; `is_receiving` then tells whether more
        bytes may bring one. Control frames before it are handled, and a broken rule fails the
        connection (7.1.7). After each call there may be `data_to_send`.
        """
        try:
            while self.state in _RECEIVING and (chunk := self._frames.parse()) is not None:
                if chunk.opcode >= _FIRST_CONTROL:  # 5.4: also between the fragments of a message
                    self._handle_control_frame(chunk.opcode, chunk.payload)
                elif (message := self._assembler.add(chunk)) is not None:
                    return message
        except ProtocolError as error:
            self._fail(error)
        if self._eof_reason is not None:
            self._fail_at_eof(self._eof_reason)
        return None

    def handle_control_frames(self, *, close: bool = True) -> None:
        """Handle control frames without taking a message, for a receiver that is busy.

        The Pings that have arrived whole are answered, up to the first Close or bad frame. A Close
        or EOF is handled if no data frame stands before it, and if `close` is true: a receiver that
        has just taken the last message may still answer it. After the call there may be
        `data_to_send`.
        """
        try:
            while self.state in _RECEIVING:
                for opcode, payload in self._frames.take_pings_and_pongs():
                    self._handle_control_frame(opcode, payload)
                # Now a control frame that comes next is a Close, has not arrived whole, or is bad.
                if not close or not self._frames.is_control_next():
                    break
                chunk = self._frames.parse()
                if chunk is None:
                    break
                self._handle_control_frame(chunk.opcode, chunk.payload)
        except ProtocolError as error:
            self._fail(error)
        # Where bytes are left there may be messages to take first.
        if close and self._eof_reason is not None and not self._frames.unread:
            self._fail_at_eof(self._eof_reason)

    def _handle_control_frame(self, opcode: int, payload: bytes) -> None:
        """Do what a control frame asks for (5.5). Raises ProtocolError for a bad Close."""
        self.controls += 1
        if opcode == Opcode.PONG:
            self.pongs += 1  # 5.5.3: one that nobody has asked for is no error
            handler = self.pong_handler
            if handler is not None:
                handler(payload)
        elif opcode == Opcode.PING:
            # 5.5.3: the answer has the same payload. 5.5.2: it is sent behind our own Close, too.
            pong = build_frame(Opcode.PONG, payload, masked=self.is_client)
            with self._lock:
                self._to_send += pong
        else:  # the parser refuses all other opcodes
            self._handle_close(payload)

    def _handle_close(self, payload: bytes) -> None:
        """Record the peer's Close, and answer it if we have not sent one (5.5.1)."""
        code, reason = parse_close(payload)
        with self._lock:
            if self.state is State.OPEN:
                # 5.5.1: the answer has the code that came. 1005 means that there was none, and must
                # not be sent (7.4.1).
                answer = build_close(None if code == CloseCode.NO_STATUS else code)
                self._add_close_frame(answer)
            self.close_reason = reason
            self.close_code = code
            self.state = State.CLOSE_EXCHANGED

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection (7.1.7): tell the peer why, if our Close was not sent before."""
        with self._lock:
            if self.state is State.OPEN:
                self._add_close_frame(build_close(error.code, error.reason))
            # Anew: the traceback of the one that was raised would keep the payload in memory.
            self.error = ProtocolError(error.code, error.reason)
            self.close_reason = error.reason
            self.state = State.FAILED

    def _fail_at_eof(self, reason: str) -> None:
        """Without a Close, the end of what arrives is a failure, and `close_code` stays 1006."""
        with self._lock:
            if self.state in _RECEIVING:
                self.close_reason = reason
                self.state = State.FAILED

    def tcp_ended(self) -> None:
        """Record that TCP has ended in both directions (7.1.4). What was not taken is lost."""
        with self._lock:
            self.state = State.CLOSED

    # What is to be sent (6.1)

    def build_message(self, message: Part) -> bytes:
        """One message as a frame (6.1): text from str, binary data from the others.

        If compression was agreed on, a message that is long enough is compressed if that makes it
        smaller (RFC 7692, 6.1). Raises UnicodeEncodeError for a lone surrogate, TypeError for what
        is neither text nor bytes.
        """
        if isinstance(message, str):
            opcode = _TEXT
            payload = message.encode()
        else:
            opcode = _BINARY
            # memoryview refuses what bytes() would take for a count: bytes(5) are five zeros.
            payload = message if isinstance(message, bytes) else bytes(memoryview(message))
        if self._deflate and len(payload) >= self._deflate.threshold:
            smaller = compress(payload, self._window_bits)
            if smaller is not None and len(smaller) < len(payload):
                return build_frame(opcode, smaller, masked=self.is_client, rsv1=True)
        return build_frame(opcode, payload, masked=self.is_client)

    def build_fragments(self, parts: Iterable[Part]) -> Iterator[bytes]:
        """One message in fragments, a frame for each part, made when it is asked for (5.4).

        The parts are all text or all binary data, and each text is encoded on its own. The last
        part of a sequence, such as a list, has the FIN bit. Of what any other iterable yields,
        nobody knows whether it is the last until more is asked for, which may take long; so an
        empty frame with FIN follows. Without any part there is no frame.

        When a part's turn comes this raises TypeError if it is of another kind than those before
        it, and UnicodeEncodeError if it has a lone surrogate.
        """
        if isinstance(parts, Mapping):
            raise TypeError("a mapping has no order of parts to send")
        if not isinstance(parts, Iterable):
            raise TypeError(
                "a message is a str, bytes or an iterable of those, and no " + type(parts).__name__
            )
        # A list may be changed while it is sent. Other sequences are asked for each part in turn.
        if isinstance(parts, MutableSequence):
            parts = tuple(parts)
        last = len(parts) - 1 if isinstance(parts, Sequence) else None
        opcode: int | None = None  # that of the message, once its first part has told
        for number, part in enumerate(parts):
            own_opcode = _TEXT if isinstance(part, str) else _BINARY
            payload = part.encode() if isinstance(part, str) else bytes(memoryview(part))
            if opcode not in (None, own_opcode):
                raise TypeError("the parts of a message must be all text or all binary data")
            frame_opcode = own_opcode if opcode is None else _CONTINUATION
            opcode = own_opcode
            yield build_frame(frame_opcode, payload, masked=self.is_client, fin=number == last)
        if last is None and opcode is not None:
            yield build_frame(_CONTINUATION, b"", masked=self.is_client)

    def build_ping(self, payload: bytes = b"") -> bytes:
        """A Ping as a frame (5.5.2). Raises ValueError for more than 125 bytes."""
        if len(payload) > MAX_CONTROL:
            raise ValueError(f"a ping has at most {MAX_CONTROL} bytes")
        return build_frame(Opcode.PING, payload, masked=self.is_client)

    def send_frames(self, frames: bytes) -> bytes:
        """The bytes to write now, so that these frames are sent: Pongs that wait come first.

        Raises ConnectionClosed unless the state is OPEN (6.1). So we ping nobody behind our Close,
        either, although the RFC allows it.
        """
        if self.state is not _OPEN:
            reason = self.close_reason or "the connection is closing"
            raise ConnectionClosed(self.close_code, reason)
        return self.data_to_send() + frames if self._to_send else frames

    def close(self, code: int | None = CloseCode.NORMAL, reason: str = "") -> None:
        """Start the closing handshake (7.1.2). In any state but OPEN this changes nothing.

        Raises ValueError, in any state, for a code that may not be sent (7.4), and for a reason of
        more than 123 bytes.
        """
        if code == CloseCode.MISSING_EXTENSION and not self.is_client:
            raise ValueError("1010 is for clients: a server can refuse the handshake")  # 7.4.1
        payload = build_close(code, reason)
        if self.state is State.OPEN:
            self._add_close_frame(payload)
            self.sent_reason = reason
            self.state = State.CLOSE_SENT

    @property
    def has_data_to_send(self) -> bool:
        """Whether there are Pongs or a Close to be sent."""
        return bool(self._to_send)

    def data_to_send(self) -> bytes:
        """Take the control frames that are to be written now; b"" if there are none."""
        data = bytes(self._to_send)
        self._to_send.clear()
        return data

    def _add_close_frame(self, payload: bytes) -> None:
        """Call it with the lock held, and change the state before releasing it."""
        self._to_send += build_frame(Opcode.CLOSE, payload, masked=self.is_client)


class Assembler:
    """Joins the chunks of frames to messages, and checks their order and their text (5.4, 8.1).

    max_message: bytes of one message after inflating. Where nothing is inflated, the parser of the
        frames has kept the limit.
    inflater: undoes the compression of the messages that have it; None where none was agreed on.

    After a ProtocolError it must not be used any more.
    """

    def __init__(self, max_message: int, inflater: Inflater | None = None) -> None:
        self.inflater = inflater
        self._max_message = max_message
        self._message: _Text | _Binary | None = None  # the one that is under way
        self._inflating: Inflater | None = None  # if that one is compressed
        self._fragments = 0  # how many of that one have begun
        self._empty_fragments = 0

    def add(self, chunk: Chunk) -> str | bytes | None:
        """The message that this chunk of a data frame completes, or None. Raises ProtocolError."""
        if chunk.first:
            self._check_order(chunk)
            if self._message is None:
                if chunk.fin and chunk.last and not chunk.rsv1:
                    return _decode(chunk)  # The fast path: this is the whole message.
                self._message = _Text() if chunk.opcode == _TEXT else _Binary()
                self._inflating = self.inflater if chunk.rsv1 else None
                self._fragments = 0
                self._empty_fragments = 0
            self._count_fragment(chunk)
        assert self._message is not None
        completes = chunk.fin and chunk.last
        payload = chunk.payload
        if self._inflating:
            room = self._max_message - self._message.size
            payload = self._inflating.inflate(payload, completes, room)
        self._message.add(payload, completes)
        if not completes:
            return None
        message = self._message.value()
        self._message = None
        return message

    @property
    def is_within_message(self) -> bool:
        """Whether a message has begun whose end has not come."""
        return self._message is not None

    @property
    def is_within_text(self) -> bool:
        """Whether that message is text."""
        return isinstance(self._message, _Text)

    @property
    def is_within_compressed(self) -> bool:
        """Whether that message is compressed."""
        return self._message is not None and self._inflating is not None

    @property
    def message_size(self) -> int:
        """Bytes that have come of that message, after inflating."""
        return self._message.size if self._message else 0

    def _check_order(self, chunk: Chunk) -> None:
        """5.4: the fragments of a message follow one another, without another message between."""
        if chunk.opcode == _CONTINUATION and self._message is None:
            reason = "a continuation frame without a message to continue"
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, reason)
        if chunk.opcode != _CONTINUATION and self._message is not None:
            reason = "a new message before the last one was complete"
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, reason)

    def _count_fragment(self, chunk: Chunk) -> None:
        """Bound the fragments of a message, of which 5.4 allows any number.

        This is stricter than the RFC: without payload, no limit to the message's size ends them.
        """
        self._fragments += 1
        if chunk.last and not chunk.payload:
            self._empty_fragments += 1
        if self._empty_fragments > MAX_EMPTY_FRAGMENTS:
            reason = f"the message has more than {MAX_EMPTY_FRAGMENTS} empty fragments"
            raise ProtocolError(CloseCode.POLICY_VIOLATION, reason)
        if self._fragments > MAX_FRAGMENTS:
            reason = f"the message has more than {MAX_FRAGMENTS} fragments"
            raise ProtocolError(CloseCode.POLICY_VIOLATION, reason)


def _decode(chunk: Chunk) -> str | bytes:
    """The message of a frame that came whole and is not fragmented."""
    if chunk.opcode != _TEXT:
        return chunk.payload
    try:
        return chunk.payload.decode()
    except UnicodeDecodeError:
        raise _not_utf8() from None


class _Pieces(Generic[Data]):
    """Pieces of a message, to be joined once, when it is complete.

    With a buffer that grows with each piece, an echo of a MiB takes one and a half times as long:
    the kernel provides its memory anew, page by page. But a list must not hold a million pieces of
    one byte each, so that short ones are joined in groups.
    """

    def __init__(self, empty: Data) -> None:
        """`empty` is b"" or "", and says which of the two the pieces are."""
        self._empty: Data = empty
        self._pieces: list[Data] = []
        self._small: list[Data] = []  # short pieces that follow upon those

    def add(self, piece: Data) -> None:
        if len(piece) >= _SMALL_PIECE:
            self._join_small()
            self._pieces.append(piece)
        elif piece:
            self._small.append(piece)
            if len(self._small) == _MAX_SMALL_PIECES:
                self._join_small()

    def _join_small(self) -> None:
        if self._small:
            self._pieces.append(self._empty.join(self._small))
            self._small.clear()

    def join(self) -> Data:
        return self._empty.join(self._pieces + self._small)


class _Binary:
    """A binary message that comes in pieces."""

    def __init__(self) -> None:
        self.size = 0  # bytes so far
        self._pieces = _Pieces(b"")

    def add(self, data: bytes, completes: bool) -> None:
        """Add a piece; `completes` is for text alone."""
        self.size += len(data)
        self._pieces.add(data)

    def value(self) -> bytes:
        return self._pieces.join()


class _Text:
    """A text message that comes in pieces, each checked as it comes.

    8.1 does not say when text that is not UTF-8 fails the connection. Here it does where the first
    bad byte is, without waiting for the end of the message.
    """

    def __init__(self) -> None:
        self.size = 0  # bytes so far
        self._pieces = _Pieces("")
        self._incomplete = b""  # the first bytes of a character, which the next piece completes

    def add(self, data: bytes, completes: bool) -> None:
        """Add a piece, which completes the message or does not. Raises ProtocolError."""
        self.size += len(data)
        data = self._incomplete + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", completes)
        except UnicodeDecodeError:
            raise _not_utf8() from None
        self._incomplete = data[used:]
        # ED A0 to ED BF begin a surrogate, which is never valid. Python waits for its third byte.
        if self._incomplete[:1] == b"\xed" and self._incomplete[1:] >= b"\xa0":
            raise _not_utf8()
        self._pieces.add(text)

    def value(self) -> str:
        return self._pieces.join()


def _not_utf8() -> ProtocolError:
    return ProtocolError(CloseCode.INVALID_DATA, "the text is not UTF-8")

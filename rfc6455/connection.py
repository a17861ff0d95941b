"""Messages out of frames, control frames, the closing handshake (RFC 6455, 5.4-5.5, 6, 7, 8.1).

`WebSocket` is the same object on both sides. It has no thread of its own: whoever calls `receive`
reads, and answers pings and a Close on the way. While a handler is busy with other things the
clock reads ahead, within a bound, so that a slow handler does not make its peer wait for a pong.
Left out: sending a message in fragments, which nobody here needs (each goes out as one frame).
"""

import codecs
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from email.message import Message
from enum import Enum
from typing import NamedTuple, Self

from .deflate import Deflate, Inflater, compress
from .errors import ConnectionClosed, ProtocolError
from .frames import (
    Chunk,
    CloseCode,
    FrameParser,
    Opcode,
    build_close,
    build_frame,
    parse_close,
)
from .keepalive import Keepalive, Verdict
from .stream import Stream, Timeouts

log = logging.getLogger("rfc6455")

MAX_MESSAGE = 1 << 20  # bytes of payload, all fragments together (10.4)
_READ_AT_LEAST = 1024  # bytes a read asks for; more only where more is known to be under way,
_READ_AT_MOST = 131072  # because an idle connection holds that much memory while it waits
# Bytes that are read for a handler that is busy, to find the pings behind them. Beyond that the
# peer has to wait, and its pings with it: memory is bounded first.
READ_AHEAD = 256 * 1024
_READS_IN_A_ROW = 4  # by the clock, for one connection: it has others to look after
# A failed connection's Close is followed by FIN once the peer has sent nothing for so long: a
# proxy that is told of the end while its client still sends throws the Close away.
_QUIET = 0.3  # seconds
_DISCARD_TIME = 20.0  # seconds that a peer may take to stop sending,
_MAX_DISCARDED = 64 << 20  # and bytes that it may send meanwhile
_TEXT, _BINARY, _CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
_NOT_UTF8 = (CloseCode.INVALID_DATA, "the text is not UTF-8")
_CLOSE, _PING = Opcode.CLOSE, Opcode.PING


class State(Enum):
    """Between the handshake and the end of TCP (4.1, 7.1.3, 7.1.4)."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Handshake(NamedTuple):
    """What the opening handshake agreed on and told."""

    path: str  # percent-encoded, as it was sent
    query: str  # what followed "?", percent-encoded
    headers: Message  # a server sees the request's, a client the response's; any case will do
    peer: str  # "host:port"
    subprotocol: str | None = None
    deflate: Deflate | None = None


class Assembler:
    """Joins chunks of frames to messages, and checks their order and their text (5.4, 5.6, 8.1)."""

    def __init__(self, max_message: int = MAX_MESSAGE, inflater: Inflater | None = None) -> None:
        self._max_message = max_message
        self._inflater = inflater
        self._opcode: int | None = None  # of the message that is under way
        self._compressed = False
        self._payload = bytearray()
        self._check_text: codecs.IncrementalDecoder | None = None

    def add(self, chunk: Chunk) -> str | bytes | None:
        """The message that this chunk of a data frame completes, or None. Raises ProtocolError."""
        if chunk.first:
            if (chunk.opcode == _CONTINUATION) != (self._opcode is not None):
                found = "nothing to continue" if self._opcode is None else "a message within one"
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, found)
            if self._opcode is None:
                if chunk.fin and chunk.last and not chunk.rsv1:  # the common case
                    return _decode(chunk.opcode, chunk.payload)
                self._opcode, self._compressed = chunk.opcode, chunk.rsv1
                if chunk.opcode == _TEXT:
                    self._check_text = codecs.getincrementaldecoder("utf-8")()
        done, payload = chunk.fin and chunk.last, chunk.payload
        if self._compressed and self._inflater:
            payload = self._inflater.inflate(payload, done, self._max_message - len(self._payload))
        if self._check_text:  # 8.1: bad text is refused where it turns bad, not at the end
            try:
                self._check_text.decode(payload, done)
            except UnicodeDecodeError:
                raise ProtocolError(*_NOT_UTF8) from None
            begun = self._check_text.getstate()[0]
            if begun[:1] == b"\xed" and begun[1:] >= b"\xa0":  # half a surrogate, but Python waits
                raise ProtocolError(*_NOT_UTF8)
        self._payload += payload
        if not done:
            return None
        assert self._opcode is not None
        message = _decode(self._opcode, bytes(self._payload))
        self._opcode, self._check_text = None, None
        self._payload.clear()
        return message


def _decode(opcode: int, payload: bytes) -> str | bytes:
    if opcode != _TEXT:
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise ProtocolError(*_NOT_UTF8) from None


def _message_frame(
    message: str | bytes | bytearray | memoryview,
    *,
    masked: bool = False,
    deflate: Deflate | None = None,
) -> bytes:
    opcode = _TEXT if isinstance(message, str) else _BINARY
    if isinstance(message, str):
        payload = message.encode()
    else:  # memoryview: bytes(5) would be five zeros
        payload = message if isinstance(message, bytes) else bytes(memoryview(message))
    if deflate and len(payload) >= deflate.least:
        bits = deflate.client_max_window_bits if masked else deflate.server_max_window_bits
        smaller = compress(payload, bits)
        if smaller is not None and len(smaller) < len(payload):
            return build_frame(opcode, smaller, masked=masked, rsv1=True)
    return build_frame(opcode, payload, masked=masked)


class WebSocket:
    """An open WebSocket. One thread at a time receives; any thread may call everything else."""

    def __init__(
        self,
        stream: Stream,
        opening: Handshake,
        *,
        is_client: bool,
        max_message: int = MAX_MESSAGE,
        received: bytes = b"",
    ) -> None:
        self.path, self.query, self.headers, self.peer, self.subprotocol, self.deflate = opening
        self.close_code: int = CloseCode.ABNORMAL  # the peer's, once its Close has come (7.1.5)
        self.close_reason = ""  # in the peer's words; or, after 1006, why the connection ended
        self.said_reason = ""  # in our words, where this side closed
        self.clean = False  # both Close frames have passed (7.1.4)
        self._stream = stream
        self._is_client = is_client
        inflater = Inflater.for_side(self.deflate, is_client=is_client) if self.deflate else None
        self._parser = FrameParser(
            masked=not is_client, max_message=max_message, compressed=inflater is not None
        )
        self._parser.feed(received)
        self._assembler = Assembler(max_message, inflater)
        self._read_size = _READ_AT_LEAST
        self._reading = threading.Lock()  # held by whoever reads
        self._ended = False  # the peer ended TCP; what it had said before may still be unread
        self._over = False  # nothing more will be parsed: Close, end, or failed
        self._closing = False  # our Close was sent
        self._closed = False  # TCP has ended
        self._discard_until = 0.0  # of a failed connection, while the peer may still be sending
        self._discarded = 0  # bytes
        self._keepalive = Keepalive(
            self.timeouts.ping_interval, self.timeouts.ping_timeout, time.monotonic()
        )
        # Seconds that a ping may have to wait while the handler is busy.
        self._busy_look = min(1.0, self.timeouts.ping_timeout / 20)
        stream.set_deadline(math.inf, "")  # the opening handshake's is met
        stream.on_look = self._look
        stream.look_within(self._busy_look)

    @property
    def timeouts(self) -> Timeouts:
        return self._stream.timeouts

    @property
    def state(self) -> State:
        if self._closed or self._stream.is_broken:
            return State.CLOSED
        return State.CLOSING if self._closing or self._over else State.OPEN

    # Receiving (6.2)

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """The next message: str for text, bytes for binary. None after `timeout` seconds without.

        Raises ConnectionClosed when there will be none any more. One thread at a time.
        """
        try:
            with self._reading:
                return self._next(timeout)
        finally:
            self._stream.look_within(self._busy_look)  # the caller may be busy from here on

    def _next(self, timeout: float | None) -> str | bytes | None:
        give_up = None if timeout is None else time.monotonic() + timeout
        left, late = timeout, False
        while (message := self._parse()) is None:
            if self._over:
                raise ConnectionClosed(self.close_code, self.close_reason)
            if late or not self._read(left):  # late also where bytes come without an end
                return None
            late = left == 0
            left = None if give_up is None else max(0.0, give_up - time.monotonic())
        return message

    def __iter__(self) -> Iterator[str | bytes]:
        """Messages until the connection ends, however it ends: `close_code` tells."""
        try:
            while (message := self.receive()) is not None:
                yield message
        except ConnectionClosed:
            return

    def _parse(self) -> str | bytes | None:
        """The next message of the bytes at hand, or None; on the way, control frames are obeyed."""
        try:
            while not self._over and (chunk := self._parser.parse()) is not None:
                if chunk.opcode >= _CLOSE:
                    self._obey(chunk.opcode, chunk.payload)
                else:
                    message = self._assembler.add(chunk)
                    if message is not None:
                        return message
        except ProtocolError as error:
            self._fail(error)
        if self._ended:
            self._over = True  # 7.1.5: without a Close this is 1006
        return None

    def _read(self, timeout: float | None, at_most: int = _READ_AT_MOST) -> bool:
        """Feed the parser with what arrives; False if nothing did in time."""
        size = min(max(self._read_size, min(self._parser.left, _READ_AT_MOST)), at_most)
        data = self._stream.read(size, timeout)
        if data is None:
            return False
        if data:
            self._read_size = 65536 if len(data) >= size else _READ_AT_LEAST
            self._parser.feed(data)
        else:
            self._ended = True  # 7.1.5: what was said before it still counts
            self.close_reason = self._stream.lost or "the peer ended TCP without a Close"
            self._set_closing_deadline()
        return True

    def _obey(self, opcode: int, payload: bytes) -> None:
        """Handle a control frame (5.5)."""
        if opcode == _PING:
            self._write_control(self._pong(payload), force=True)
        elif opcode == Opcode.PONG:
            self._keepalive.note_pong()
        elif opcode == _CLOSE:
            code, self.close_reason = parse_close(payload)
            self.close_code = code
            self._over = self.clean = True
            # 5.5.1: answered once, with the code that came. The stream takes no second Close.
            self._send_close(build_close(None if code == CloseCode.NO_STATUS else code))
            if not self._is_client:  # 7.1.1: the server ends TCP, at once
                self._stream.end()

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection (7.1.7): say why, and process nothing more.

        FIN follows at once, or where the peer is still sending, once it has stopped.
        """
        log.info("%s: failed with %d %s", self.peer, error.code, ascii(error.reason))
        self._over = True
        self.close_reason = error.reason
        self._send_close(build_close(error.code, error.reason))
        if not self._parser.ends_with_a_frame() or self._stream.has_unread():
            self._discard_until = time.monotonic() + _DISCARD_TIME
            self._set_closing_deadline(_DISCARD_TIME)
        else:
            self._stream.end()

    # Sending (6.1)

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send text (str) or binary data (the others), and wait until the kernel has taken it.

        Raises ConnectionClosed, and UnicodeEncodeError for a lone surrogate.
        """
        self._write(self._frame(message), wait=True)

    def post(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send as `send` does, but never wait: a peer for whom more than a MiB waits is dropped.

        Raises ConnectionClosed, and UnicodeEncodeError for a lone surrogate.
        """
        self._write(self._frame(message), wait=False)

    def ping(self, payload: bytes = b"") -> None:
        """Send a Ping of at most 125 bytes; never waits. Raises ValueError, ConnectionClosed."""
        if len(payload) > 125:
            raise ValueError("a ping has at most 125 bytes")
        self._write(build_frame(_PING, payload, masked=self._is_client), wait=False)

    def _frame(self, message: str | bytes | bytearray | memoryview) -> bytes:
        return _message_frame(message, masked=self._is_client, deflate=self.deflate)

    def _write(self, frames: bytes, *, wait: bool) -> None:
        try:
            self._stream.write(frames, wait=wait)
        except ConnectionError as error:
            raise ConnectionClosed(self.close_code, self.close_reason or str(error)) from None

    def _pong(self, payload: bytes) -> bytes:
        """The answer to a Ping (5.5.3): the same payload."""
        return build_frame(Opcode.PONG, payload, masked=self._is_client)

    def _write_control(self, frames: bytes, *, last: bool = False, force: bool = False) -> None:
        """Never waits. With `force` also after our Close: 5.5.2 wants pings answered there, too."""
        try:
            self._stream.write(frames, wait=False, last=last, force=force)
        except ConnectionError:
            pass  # the reader will learn it

    # Closing (7)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", *, wait: bool = True) -> None:
        """Start the closing handshake, and wait until it and TCP have ended, with a time limit.

        With `wait=False` return at once; whoever receives, or closes again, does the rest. Closing
        twice is no error. Raises ValueError for a code that may not be sent (7.4), or a reason of
        over 123 bytes.
        """
        if code == CloseCode.MISSING_EXTENSION and not self._is_client:
            raise ValueError("1010 is for clients: a server can refuse the handshake")
        payload = build_close(code, reason)
        if not (self._closing or self._over):
            self.said_reason = reason
            self._send_close(payload)
        if wait:
            with self._reading:
                self._finish()

    def drop(self, reason: str) -> None:
        """End the connection now, without a closing handshake; `receive` raises with `reason`."""
        self._stream.abort(reason)

    def _send_close(self, payload: bytes) -> None:
        self._closing = True
        self._set_closing_deadline()
        self._write_control(build_frame(_CLOSE, payload, masked=self._is_client), last=True)

    def _set_closing_deadline(self, more: float = 0.0) -> None:
        seconds = self.timeouts.close_timeout + more
        # Patient: a peer that is slow to read has what was said before the Close to read first.
        self._stream.set_deadline(seconds, "the closing handshake took too long", patient=True)

    def _finish(self) -> None:
        """Read to the peer's Close, then to the end of TCP: unread bytes would cause a reset."""
        if self._closed:
            return
        while not self._over:
            if self._parse() is None and not self._over:
                self._read(None)
        while not self._discard(_QUIET):
            pass
        if not (self._is_client and self.clean):
            self._stream.end()
        while self._stream.read(65536):  # 7.1.1: whatever comes after a Close is discarded
            pass
        self._stream.wait_drained()  # the peer has ended its side, and may read on
        self._release()

    def _discard(self, timeout: float) -> bool:
        """Read what a failed connection's peer still sends; whether that has come to an end.

        Waits `timeout` seconds at most for anything. Nothing of it is looked at (7.1.7), not even
        a Close. But a peer, or a proxy, that is told of the end while it sends may never read why
        (1.4 speaks of such resets).
        """
        if not self._discard_until:
            return True
        for _ in range(_READS_IN_A_ROW):
            data = self._stream.read(65536, timeout)
            now = time.monotonic()
            if data is None and now - self._stream.heard_at < _QUIET:
                return False
            if not data:
                break
            self._discarded += len(data)
            if self._discarded >= _MAX_DISCARDED or now >= self._discard_until:
                break
        else:
            return False
        self._discard_until = 0.0
        self._set_closing_deadline()
        return True

    def _release(self) -> None:
        self._stream.end()
        self._stream.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # What the clock does

    def _look(self, now: float) -> float:
        """Read for a handler that is busy, and find out whether the peer is there.

        Called by the clock; returns when to look again.
        """
        due = math.inf
        if self._reading.acquire(blocking=False):
            try:
                due = self._read_ahead(now)
            finally:
                self._reading.release()
        if self._closed or self._closing or self._over:
            return due
        return min(due, self._keep_alive(now))

    def _read_ahead(self, now: float) -> float:
        """Answer pings and a Close for a handler that is busy; when to look again."""
        if self._closed:
            return math.inf
        for _ in range(_READS_IN_A_ROW):
            if not self._over:
                self._answer_controls()
            if self._over:
                return self._read_to_the_end(now)
            room = READ_AHEAD - self._parser.unread
            if self._ended or room <= 0 or not self._read(0, room):
                break
        if self._ended and self._stream.lost is not None:
            self._stream.close()  # the handler still has messages to receive, but TCP is over
            return math.inf
        return now + self._busy_look

    def _read_to_the_end(self, now: float) -> float:
        """Nobody has called `close`, and perhaps nobody will: release TCP once it has ended."""
        if self._discard_until:
            if not self._discard(0):
                return now + _QUIET / 2
            self._stream.end()
        if self._stream.read(65536, 0) == b"" and not self._stream.is_draining:
            self._release()
            return math.inf
        return now + self._busy_look

    def _answer_controls(self) -> None:
        """Answer the pings at hand, and obey a Close that nothing unread stands before."""
        try:
            while not self._over:
                self._answer_pings()
                chunk = self._parser.parse() if self._parser.control_follows() else None
                if chunk is None:
                    break
                self._obey(chunk.opcode, chunk.payload)
        except ProtocolError as error:
            self._fail(error)
        if self._ended and not self._parser.unread:
            self._over = True

    def _answer_pings(self) -> None:
        pongs = []
        for opcode, payload in self._parser.take_pings_and_pongs():
            if opcode == _PING:
                pongs.append(self._pong(payload))
            else:
                self._keepalive.note_pong()
        if pongs:
            self._write_control(b"".join(pongs), force=True)

    def _keep_alive(self, now: float) -> float:
        """Ping a peer that is silent, and drop one that stays so; when to look again."""
        heard_at = self._stream.heard_at
        verdict, again = self._keepalive.look(
            now, heard_at, self._stream.written(), unread=self._stream.has_unread()
        )
        if verdict is Verdict.PING:
            self._write_control(build_frame(_PING, b"", masked=self._is_client))
        elif verdict is Verdict.GIVE_UP:
            self._stream.abort(f"silent for {now - heard_at:.0f} s")
        return again


def broadcast(websockets: Iterable[WebSocket], *messages: str | bytes) -> None:
    """Post the same messages to many clients of a server, in this order; never waits.

    One whose connection is closed is passed over, and one that reads too slowly is dropped, as
    `post` does: the others get theirs. Any thread may call. Raises UnicodeEncodeError for a lone
    surrogate, and then nothing is sent; ValueError for a client's side, which must mask each frame
    anew (5.1).
    """
    frames: dict[Deflate | None, bytes] = {}
    for websocket in websockets:
        if websocket._is_client:
            raise ValueError("a client can't broadcast: it masks each frame anew (5.1)")
        deflate = websocket.deflate
        if deflate not in frames:
            frames[deflate] = b"".join(_message_frame(each, deflate=deflate) for each in messages)
        try:
            websocket._write(frames[deflate], wait=False)
        except ConnectionClosed:
            pass  # whoever receives from it learns it
        except Exception:
            log.exception("%s: dropped, as nothing could be sent to it", websocket.peer)
            websocket.drop("internal error")

"""Our layer as a reader of streams, without a socket: parser and assembler, and a `WebSocket`.

Nothing else in the fuzz knows how the layer is built inside.
"""

import contextlib
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from email.message import Message
from typing import NamedTuple

from fuzzing.outcomes import (
    DEFLATE_TAIL,
    MAX_MESSAGE,
    NEVER,
    OPEN,
    End,
    Event,
    Input,
    Outcome,
    Reading,
    message_event,
)
from rfc6455 import ConnectionClosed, Deflate, Handshake, ProtocolError, Timeouts, WebSocket
from rfc6455.deflate import Inflater
from rfc6455.frames import Chunk, FrameParser, Opcode, parse_close
from rfc6455.protocol import Assembler
from rfc6455.stream import Stream


def read_stream(role: str, agreed: Deflate | None, pieces: Sequence[bytes]) -> Reading:
    """What our parser and assembler make of a stream that arrives in these pieces."""
    reader = LayerReader(role, agreed)
    for piece in pieces:
        reader.feed(piece)
    return reader.result()


class WatchedInflater(Inflater):
    """Tells whether a block with BFINAL has come, and a compressed message without any byte."""

    def __init__(self, window_bits: int, no_context_takeover: bool) -> None:
        super().__init__(window_bits, no_context_takeover)
        self.window_bits = window_bits
        self._no_context_takeover = no_context_takeover
        self._shadow = zlib.decompressobj(-window_bits)
        self.met_final_block = False
        self.met_no_byte = False
        self._size = 0  # bytes of the current message

    def inflate(self, data: bytes, done: bool, room: int) -> bytes:
        with contextlib.suppress(zlib.error):
            self._shadow.decompress(data + DEFLATE_TAIL * done, MAX_MESSAGE)
        self._size += len(data)
        if done:
            self.met_no_byte = self.met_no_byte or self._size == 0
            self._size = 0
        self.met_final_block = self.met_final_block or self._shadow.eof
        if done and self._no_context_takeover:
            self._shadow = zlib.decompressobj(-self.window_bits)
        return super().inflate(data, done, room)


def watched_inflater(role: str, agreed: Deflate) -> WatchedInflater:
    if role == "client":
        return WatchedInflater(agreed.server_max_window_bits, agreed.server_no_context_takeover)
    return WatchedInflater(agreed.client_max_window_bits, agreed.client_no_context_takeover)


class LayerReader:
    """Our parser and assembler, fed piece by piece."""

    def __init__(self, role: str, agreed: Deflate | None) -> None:
        self._inflater = watched_inflater(role, agreed or Deflate())
        self._parser = FrameParser(
            masked=role == "server", max_message=MAX_MESSAGE, compressed=agreed is not None
        )
        self._assembler = Assembler(MAX_MESSAGE, self._inflater if agreed else None)
        self._events: list[Event] = []
        self._end = OPEN
        self._reason = ""
        self._final_block_at = NEVER
        self._no_byte_at = NEVER
        self._control_inside_at = NEVER
        self._is_inside = False  # a message
        self._is_compressed = False

    def feed(self, piece: bytes) -> None:
        try:
            self._parser.feed(piece)
            while self._end == OPEN and (chunk := self._parser.parse()) is not None:
                self._take(chunk)
        except ProtocolError as error:
            self._end = End("failed", error.code)
            self._reason = error.reason
            self._note_oddities(len(self._events))

    def result(self) -> Reading:
        return Reading(
            Outcome(self._events, self._end),
            self._reason,
            self._final_block_at,
            self._no_byte_at,
            self._control_inside_at,
            self._is_inside,
            has_small_window=self._inflater.window_bits < 15,
        )

    def _take(self, chunk: Chunk) -> None:
        if chunk.opcode == Opcode.CLOSE:
            self._end = End("closed", *parse_close(chunk.payload))
        elif chunk.opcode in (Opcode.PING, Opcode.PONG):
            if self._is_inside and self._is_compressed:
                self._control_inside_at = min(self._control_inside_at, len(self._events))
            kind = "ping" if chunk.opcode == Opcode.PING else "pong"
            self._events.append(Event(kind, chunk.payload))
        else:
            self._take_data(chunk)

    def _take_data(self, chunk: Chunk) -> None:
        self._is_compressed = chunk.rsv1 or (self._is_inside and self._is_compressed)
        self._is_inside = not (chunk.fin and chunk.last)
        before = len(self._events)
        message = self._assembler.add(chunk)
        if message is not None:
            self._events.append(message_event(message))
        self._note_oddities(before)

    def _note_oddities(self, at: int) -> None:
        if self._inflater.met_final_block:
            self._final_block_at = min(self._final_block_at, at)
        if self._inflater.met_no_byte:
            self._no_byte_at = min(self._no_byte_at, at)


class Session(NamedTuple):
    """A `WebSocket` that has read a stream to its end."""

    websocket: WebSocket
    received: list[str | bytes]
    sent: bytes


def echo_stream(item: Input) -> Session:
    """A `WebSocket` that reads the stream, and sends each message back."""
    pipe = Pipe(item.pieces)
    websocket = open_websocket(item, pipe)
    received: list[str | bytes] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = receive(websocket)
            received.append(message)
            websocket.send(message)
    return end_session(websocket, pipe, received)


def read_while_closing(item: Input) -> Session:
    """A `WebSocket` that has begun to close before anything came, and reads the stream slowly.

    So slowly that the clock looks after the connection three times before each message.
    """
    pipe = Pipe(item.pieces)
    websocket = open_websocket(item, pipe)
    websocket.close(4000, wait=False)
    received: list[str | bytes] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            for _ in range(3):
                assert pipe.on_look
                pipe.on_look(time.monotonic())
            received.append(receive(websocket))
    return end_session(websocket, pipe, received)


def open_websocket(item: Input, pipe: "Pipe") -> WebSocket:
    handshake = Handshake("/", "", Message(), "peer", None, item.agreed)
    return WebSocket(pipe, handshake, is_client=item.role == "client", max_message=MAX_MESSAGE)


def receive(websocket: WebSocket) -> str | bytes:
    message = websocket.receive()
    assert message is not None, "receive() without a timeout returned None"
    return message


def end_session(websocket: WebSocket, pipe: "Pipe", received: list[str | bytes]) -> Session:
    websocket.close()
    assert pipe.ended
    assert pipe.closed
    return Session(websocket, received, pipe.sent)


class Pipe(Stream):
    """What a `WebSocket` needs of its stream, without a socket: pieces come in, `sent` went out.

    A piece comes whole, whatever size is asked for, so that all readers of ours see the same cuts.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.timeouts = Timeouts()
        self.lock = threading.Lock()
        self.lost = None
        self.failure = None
        self.heard_at = time.monotonic()
        self.sent = b""
        self.ended = False
        self.closed = False
        self.on_look: Callable[[float], float] | None = None
        self._pieces = [piece for piece in reversed(pieces) if piece]

    def read(self, size: int, timeout: float | None = None) -> bytes | None:
        assert not self.closed
        return self._pieces.pop() if self._pieces else b""

    def put(self, data: bytes, *, awaited: bool = False) -> int:
        assert self.lock.locked()
        assert not self.closed
        if self.ended:
            raise ConnectionError("the connection is closing")
        self.sent += data
        return len(self.sent)

    def wait_sent(self, position: int) -> None:
        assert not self.lock.locked()

    def watch(self, on_look: Callable[[float], float]) -> None:
        self.on_look = on_look

    def end(self) -> None:
        self.ended = True

    def abort(self, reason: str) -> None:
        raise AssertionError(f"aborted: {reason}")

    def close(self) -> None:
        self.closed = True

    def set_deadline(self, seconds: float, reason: str, *, patient: bool = False) -> None:
        pass

    def look_within(self, seconds: float) -> None:
        pass

    def has_unread(self) -> bool:
        return bool(self._pieces)

    def wait_drained(self) -> None:
        pass

    @property
    def is_draining(self) -> bool:
        return False

    @property
    def position(self) -> int:
        return len(self.sent)

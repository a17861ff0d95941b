"""Our layer as a reader of streams, without a socket: `FrameParser`, `Protocol`, `WebSocket`.

No other module of the fuzz knows how the layer is built inside.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from email.message import Message
from typing import NamedTuple

from fuzzing.outcomes import (
    MAX_MESSAGE,
    OPEN,
    End,
    Event,
    Input,
    Oddities,
    Outcome,
    Reading,
    message_event,
)
from fuzzing.walking import RawFrame, find_oddities, frames_in
from rfc6455 import (
    ConnectionClosed,
    Deflate,
    Handshake,
    ProtocolError,
    State,
    Timeouts,
    WebSocket,
)
from rfc6455.frames import FrameParser
from rfc6455.protocol import Protocol
from rfc6455.stream import Stream

# Frames


def parse_frames(item: Input) -> tuple[list[RawFrame], ProtocolError | None]:
    """The whole frames that our parser finds, and the error where it refuses to go on."""
    parser = FrameParser(
        masked=item.role == "server",
        max_message=MAX_MESSAGE,
        compressed=item.agreed is not None,
    )
    frames: list[RawFrame] = []
    payload = b""
    try:
        for piece in item.pieces:
            parser.feed(piece)
            while (chunk := parser.parse()) is not None:
                payload = chunk.payload if chunk.first else payload + chunk.payload
                if chunk.last:
                    first = 0x80 * chunk.fin | 0x40 * chunk.rsv1 | chunk.opcode
                    frames.append(RawFrame(first, item.role == "server", len(payload), payload))
    except ProtocolError as error:
        return frames, error
    return frames, None


# The protocol


def read_stream(role: str, agreed: Deflate | None, pieces: Sequence[bytes]) -> Reading:
    """A `Protocol` that is asked for all messages after each piece, as a waiting handler does."""
    reader = Reader(role, agreed)
    for piece in pieces:
        reader.feed(piece)
        while reader.next_message() is not None:
            pass
    oddities = find_oddities(role, agreed, reader.parsed())
    return reader.end()._replace(oddities=oddities)


def read_slowly(role: str, agreed: Deflate | None, pieces: Sequence[bytes]) -> Reading:
    """A `Protocol` that is asked for one message after each piece, as a busy handler does.

    Before that it handles the control frames at hand, as the clock has it do. The oddities are
    not looked for.
    """
    reader = Reader(role, agreed)
    for piece in pieces:
        reader.feed(piece)
        reader.handle_control_frames()
        reader.next_message()
    while True:
        reader.handle_control_frames()
        if reader.next_message() is None:
            break
    return reader.end()


class Reader(AbstractContextManager["Reader"]):
    """Asks a `Protocol` for messages, and notes them with the Pings and Pongs between them.

    It is also the protocol's lock. The protocol takes its lock to answer a Ping, so that each Ping
    is noted in its place.
    """

    def __init__(self, role: str, agreed: Deflate | None) -> None:
        self._role = role
        self._agreed = agreed
        self._protocol = Protocol(
            is_client=role == "client", max_message=MAX_MESSAGE, deflate=agreed, lock=self
        )
        self._data = b""  # what it was fed
        self._sent = b""
        self._pongs = 0
        self._events: list[Event] = []

    def __exit__(self, *_: object) -> None:
        self._note_control_frames()

    def feed(self, piece: bytes) -> None:
        """Give it a piece, unless it has stopped reading (5.5.1, 7.1.7)."""
        if self._protocol.is_receiving:
            self._protocol.receive_data(piece)
            self._data += piece

    def next_message(self) -> str | bytes | None:
        message = self._protocol.next_message()
        self._note_control_frames()
        if message is not None:
            self._events.append(message_event(message))
        return message

    def handle_control_frames(self) -> None:
        self._protocol.handle_control_frames()
        self._note_control_frames()

    def parsed(self) -> bytes:
        """What it was fed, up to where it has stopped reading."""
        return self._data[: len(self._data) - self._protocol.unread]

    def end(self) -> Reading:
        """Let TCP end; what the protocol has made of the stream."""
        end = self._end_tcp() if self._protocol.is_receiving else self._end_of_messages()
        error = self._protocol.error
        return Reading(
            Outcome(self._events, end),
            error.reason if error else "",
            self._sent,
            Oddities(),
            has_small_window(self._role, self._agreed),
        )

    def _end_of_messages(self) -> End:
        protocol = self._protocol
        if protocol.state is State.CLOSE_EXCHANGED:
            assert protocol.error is None
            return End("closed", protocol.close_code, protocol.close_reason)
        assert protocol.state is State.FAILED, protocol.state
        assert protocol.error is not None
        assert protocol.close_code == 1006, protocol.close_code
        return End("failed", protocol.error.code)

    def _end_tcp(self) -> End:
        """7.1.5: TCP that ends without a Close is 1006, and is not answered."""
        protocol = self._protocol
        protocol.receive_eof("the end of TCP")
        assert protocol.next_message() is None
        assert not protocol.has_data_to_send
        assert protocol.state is State.FAILED, protocol.state
        assert protocol.error is None
        assert (protocol.close_code, protocol.close_reason) == (1006, "the end of TCP")
        return OPEN

    def _note_control_frames(self) -> None:
        """Note the Pongs that have come since the last time, and the Ping that was answered now."""
        while self._pongs < self._protocol.pongs:
            self._pongs += 1
            self._events.append(Event("pong", b""))
        data = self._protocol.data_to_send()
        self._sent += data
        for frame in frames_in(data):
            if frame.first == 0x8A:
                self._events.append(Event("ping", frame.payload))


def has_small_window(role: str, agreed: Deflate | None) -> bool:
    if agreed is None:
        return False
    client, server = agreed.client_max_window_bits, agreed.server_max_window_bits
    return (client if role == "server" else server) < 15


# A whole endpoint


class Session(NamedTuple):
    """A `WebSocket` that has read a stream to its end."""

    websocket: WebSocket
    received: list[str | bytes]
    sent: bytes


def use_websocket(item: Input, *, looks: int = 0, is_closing: bool = False) -> Session:
    """A `WebSocket` reads the stream, and sends each message back.

    Before each message the clock looks after it as many times as `looks` says. With `is_closing`
    it has sent its Close before anything came, and then it only reads.
    """
    pipe = Pipe(item.pieces)
    websocket = open_websocket(item, pipe)
    if is_closing:
        websocket.close(4000, wait=False)
    received: list[str | bytes] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            for _ in range(looks):
                assert pipe.on_check
                pipe.on_check(time.monotonic())
            message = websocket.receive()
            assert message is not None, "receive() without a timeout has returned None"
            received.append(message)
            if not is_closing:
                websocket.send(message)
    websocket.close()
    assert pipe.ended
    assert pipe.closed
    return Session(websocket, received, pipe.sent)


def open_websocket(item: Input, pipe: "Pipe") -> WebSocket:
    handshake = Handshake("/", "", Message(), "peer", None, item.agreed)
    return WebSocket(pipe, handshake, is_client=item.role == "client", max_message=MAX_MESSAGE)


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
        self.handed = 0
        self.trace = None
        self.ended = False
        self.closed = False
        self.on_check: Callable[[float], float] | None = None
        self._pieces = [piece for piece in reversed(pieces) if piece]

    def read(self, size: int, timeout: float | None = None) -> bytes | None:
        assert not self.closed
        return self._pieces.pop() if self._pieces else b""

    def put(self, data: bytes, *, awaited: bool = False, control: bool = False) -> int:
        assert self.lock.locked()
        assert not self.closed
        if self.ended:
            raise ConnectionError("the connection is closing")
        self.sent += data
        self.handed = len(self.sent)
        return len(self.sent)

    def wait_sent(self, position: int) -> None:
        assert not self.lock.locked()

    def watch(self, on_check: Callable[[float], float]) -> None:
        self.on_check = on_check

    def end(self) -> None:
        self.ended = True

    def abort(self, reason: str) -> None:
        raise AssertionError(f"aborted: {reason}")

    def close(self) -> None:
        self.closed = True

    def set_deadline(self, seconds: float, reason: str, *, patient: bool = False) -> None:
        pass

    def set_deadline_under_lock(self, seconds: float, reason: str, *, patient: bool) -> None:
        assert self.lock.locked()

    def check_within(self, seconds: float) -> None:
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

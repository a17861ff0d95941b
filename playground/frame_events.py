"""Tells a client of the echo server's playground each frame of its own connection.

No browser shows a frame to a script. The server sees them all, so a client that connects to
`/playground?frames` is sent an event for each, in both directions and in the order of the wire:

    /frame {"number": 7, "from": "client", "message": 2, "fragment": 1, "header": "8185…", …}

`describe` has all the fields. `number` counts the frames of the connection, and `message` the
messages of this direction, each from 1. The frames that carry these events are neither told nor
counted. A client that reads too slowly misses some, and is told at this place how many:

    /dropped {"frames": 12}

Behind a Close nothing may be sent any more (RFC 6455, 5.5.1). So a Close of the client is never
told, nor the one that answers it. The Close of a command is told just before it is sent. For the
same reason a frame that breaks a rule is not told.

`FrameTeller` sends the events in a thread of its own: who reads and who writes a frame must not
wait for a client.
"""

import json
import threading
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs

from rfc6455 import Close, ConnectionClosed, Frame, Opcode, ProtocolError, WebSocket
from rfc6455.frames import build_close, build_frame, parse_close
from rfc6455.trace import Trace

# Frames that wait to be told; with half a KiB of payload in each they take a quarter of a MiB.
MAX_WAITING = 500
TELLING_TIME = 1.0  # seconds that a Close waits, at most, until the frames before it are told
_EVENTS = (b"/frame ", b"/dropped ")  # no data of the playground begins with one slash
_NO_LIMIT = 1 << 62  # bytes of a message
_TRY_AGAIN_LATER = 1013  # a close code, registered after the RFC


def make_event(name: str, fields: dict[str, Any]) -> str:
    """An event of the playground as the text message that carries it."""
    return f"{name} {json.dumps(fields, ensure_ascii=False)}"


def wants_frames(query: str) -> bool:
    """Whether the query of a URL asks for the frames of its connection."""
    return "frames" in parse_qs(query, keep_blank_values=True)


class ToldFrame(NamedTuple):
    """A frame, and its place on the connection. All numbers begin with 1."""

    frame: Frame
    number: int  # of the frame, in both directions together
    message: int | None  # of the message in its direction; None for a control frame
    fragment: int | None  # of the frame in its message


class Dropped(NamedTuple):
    """So many frames are not told here."""

    frames: int


class FrameTeller:
    """Tells a client of a server the frames of its connection, from `with` to its end.

    Its thread ends soon after that; where the client takes nothing, with the connection.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        # Held around every access to the attributes below, and never while something is sent.
        self._changed = threading.Condition()
        self._waiting: list[ToldFrame | Dropped] = []
        self._is_telling = False  # whether an event is being sent
        self._counts = _Counts()
        self._is_over = False  # whether the thread has to end, or has ended

    def __enter__(self) -> Self:
        """Begin. Raises Close where the process can have no more threads."""
        try:
            threading.Thread(target=self._run, name="frame-teller", daemon=True).start()
        except RuntimeError:
            raise Close(_TRY_AGAIN_LATER, "the server has no thread left for frames") from None
        self._websocket.set_frame_handler(self._add)
        return self

    def __exit__(self, *exception: object) -> None:
        self._websocket.set_frame_handler(None)
        self._end()

    def tell_close(self, close: Close) -> None:
        """Tell the Close that the server is about to send, and wait until that has gone out.

        A client that reads slowly is not waited for longer than TELLING_TIME. To be called by the
        thread that receives.
        """
        payload = build_close(close.code, close.reason)
        trace = Trace(self._websocket.peer)
        trace.frame_handler = self._add
        trace.begin_frames(is_client=False, max_message=_NO_LIMIT, deflate=None)
        trace.sent(build_frame(Opcode.CLOSE, payload, masked=False))
        with self._changed:
            self._changed.wait_for(self._has_told_all, TELLING_TIME)

    def _has_told_all(self) -> bool:
        return self._is_over or not (self._waiting or self._is_telling)

    def _add(self, frame: Frame) -> None:
        """Have a frame told. Never waits: those that read and write frames call this."""
        if _carries_event(frame):
            return
        with self._changed:
            told = self._counts.count(frame)
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(told)
            else:
                self._drop()
            self._changed.notify_all()

    def _drop(self) -> None:
        """Count a frame that finds no room. The count waits at the place where they are missing."""
        last = self._waiting[-1]
        if isinstance(last, Dropped):
            self._waiting[-1] = Dropped(last.frames + 1)
        else:
            self._waiting.append(Dropped(1))

    def _end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while (event := self._take()) is not None:
                self._websocket.send(_make_event_of(event))
        except ConnectionClosed:
            pass  # the thread that receives learns of it
        finally:
            self._end()

    def _take(self) -> ToldFrame | Dropped | None:
        """Wait for what is to be told next; None at the end."""
        with self._changed:
            self._is_telling = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_over or self._waiting)
            if self._is_over:
                return None
            self._is_telling = True
            return self._waiting.pop(0)


class _Counts:
    """Counts frames, messages, and the fragments of each message."""

    def __init__(self) -> None:
        self._frames = 0
        self._messages = {True: 0, False: 0}  # of each direction, by `Frame.sent`
        self._fragments = {True: 0, False: 0}  # of the newest of these

    def count(self, frame: Frame) -> ToldFrame:
        self._frames += 1
        if frame.opcode >= Opcode.CLOSE:  # 5.4: it belongs to no message
            return ToldFrame(frame, self._frames, None, None)
        if frame.opcode != Opcode.CONTINUATION:
            self._messages[frame.sent] += 1
            self._fragments[frame.sent] = 0
        self._fragments[frame.sent] += 1
        message = self._messages[frame.sent]
        return ToldFrame(frame, self._frames, message, self._fragments[frame.sent])


def _carries_event(frame: Frame) -> bool:
    """Whether this frame tells of others."""
    payload = frame.payload if frame.inflated is None else frame.inflated
    return frame.sent and frame.opcode == Opcode.TEXT and payload.startswith(_EVENTS)


def _make_event_of(told: ToldFrame | Dropped) -> str:
    if isinstance(told, Dropped):
        return make_event("/dropped", {"frames": told.frames})
    return make_event("/frame", describe(told))


def describe(told: ToldFrame) -> dict[str, Any]:
    """All fields of a frame, as the layer's parser found them (5.2); bytes are hexadecimal.

    Of the payload, and of what it inflates to, these are the first 256 bytes.
    """
    frame = told.frame
    inflated = frame.inflated
    return {
        "number": told.number,
        "from": "server" if frame.sent else "client",
        "message": told.message,
        "fragment": told.fragment,
        "header": frame.header.hex(),
        "fin": frame.fin,
        "rsv": frame.rsv,
        "opcode": frame.opcode,
        "masked": frame.is_masked,
        "short_length": frame.short_length,
        "extended_length": frame.extended_length.hex(),
        "length": frame.length,
        "masking_key": frame.masking_key.hex(),
        "wire_payload": frame.wire_payload.hex(),
        "payload": frame.payload.hex(),
        "is_text": frame.is_text,
        "inflated": None if inflated is None else inflated.hex(),
        "inflated_length": frame.inflated_length,
        "close": _describe_close(frame),
    }


def _describe_close(frame: Frame) -> dict[str, Any] | None:
    """Code and reason (5.5.1), both None where the payload is empty; None for other frames."""
    if frame.opcode != Opcode.CLOSE:
        return None
    if not frame.payload:
        return {"code": None, "reason": None}
    try:
        code, reason = parse_close(frame.payload)
    except ProtocolError:
        return None
    return {"code": code, "reason": reason}

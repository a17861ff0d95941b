"""Any bytes into both sides, and what strangers make of the same bytes (RFC 6455, 10.7).

An input is a stream of frames, whole or damaged and cut anywhere, or the head of an opening
handshake. Ours reads it without a socket, and again in pieces as a `WebSocket` that echoes; wsproto
and websockets read it too, and have to find the same messages and the same close code, or differ
for a reason that `DIFFERENCES` lists. What our side sends is read by a stranger. A part goes over
real sockets, where nothing may hang, leak, or be logged as an error.

    python3 tests/test_fuzz.py 1000000         so many inputs, on two cores
    python3 tests/test_fuzz.py 1 --first N     the input of number N once more
"""

import argparse
import codecs
import contextlib
import http.client
import io
import logging
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, too

import pytest
import websockets.protocol
import wsproto.connection
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as TheirFrame
from websockets.utils import apply_mask
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import Extension
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

from peers import (
    ACCEPT,
    KEY,
    Peer,
    RawServer,
    accept_value,
    close_payload,
    eventually,
    length,
    serving,
    shake_hands,
    tcp,
    unmasked,
    xor,
)
from rfc6455 import (
    ConnectionClosed,
    Deflate,
    Handshake,
    InvalidHandshake,
    ProtocolError,
    Timeouts,
    WebSocket,
    connect,
    handshake,
)
from rfc6455.deflate import Inflater, accept_offer, check_answer
from rfc6455.frames import FrameParser, parse_close
from rfc6455.protocol import Assembler
from rfc6455.stream import Stream

LONG = bool(os.environ.get("RUN_LONG"))
LIMIT = 4096  # bytes of a message; small, so that inputs come near it
HUNG_AFTER = 60.0  # seconds for one input, on a busy machine
BATCH = 2000  # inputs after which threads and descriptors are counted
BATCH_WITHIN = 1200.0  # seconds; it takes some three
ROLES = ("server", "client")
PMD = "permessage-deflate"
TAIL = b"\x00\x00\xff\xff"
AGREEMENTS = (
    None,
    None,
    Deflate(True, False, 15, 15),
    Deflate(True, True, 15, 15),
    Deflate(False, False, 15, 15),
    Deflate(False, True, 9, 10),
    Deflate(True, False, 10, 9, least=1),
)


Event = tuple[str, str | bytes]  # text, binary, ping or pong, and what it said


class Outcome(NamedTuple):
    """What a reader found in a stream: messages, pings and pongs, and how it ended."""

    events: list[Event]
    end: tuple[str, int, str]  # open, closed by the peer or failed; code; the peer's reason


OPEN = ("open", 0, "")


class Input(NamedTuple):
    """A peer's bytes, for our endpoint in this role."""

    role: str
    agreed: Deflate | None
    pieces: list[bytes]
    expected: Outcome | None = None  # None where the stream was damaged


# Inputs


def some_input(
    r: random.Random,
    agreements: Sequence[Deflate | None] = AGREEMENTS,
    roles: Sequence[str] = ROLES,
) -> Input:
    role, agreed = r.choice(roles), r.choice(agreements)
    if r.random() < 0.1:
        return Input(role, agreed, chop(r.randbytes(r.randrange(60)), r), None)
    messages = [some_message(r) for _ in range(r.choice((0, 1, 1, 2, 3, 6)))]
    frames, expected = frames_of(messages, role, agreed, r)
    if r.random() < 0.3:
        return Input(role, agreed, chop(b"".join(frames), r), expected)
    return Input(role, agreed, chop(damage(frames, r), r), None)


def some_message(r: random.Random) -> str | bytes:
    size = r.choice((0, 1, 2, 5, 9, 20, 40, 125, 126, 127, 300))
    if r.random() < 0.5:
        return "".join(r.choices("aaab \x00\xe9\u20ac\ufeff\uffff\U0001f642\U0010ffff", k=size))
    if r.random() < 0.5:
        return r.randbytes(size)
    return r.randbytes(3) * size


def frames_of(
    messages: Sequence[str | bytes], role: str, agreed: Deflate | None, r: random.Random
) -> tuple[list[bytes], Outcome]:
    """The peer's frames, with control frames between and perhaps a Close, and what they mean."""
    frames: list[bytes] = []
    events: list[Event] = []
    deflater = Deflater(role, agreed) if agreed else None

    def say(first: int, payload: bytes) -> None:
        frames.append(frame(role, first, payload, r))

    def perhaps_control() -> None:
        if r.random() < 0.2:
            first, kind = r.choice(((0x89, "ping"), (0x8A, "pong")))
            payload = r.randbytes(r.choice((0, 1, 5, 125)))
            say(first, payload)
            events.append((kind, payload))

    for message in messages:
        first = 1 if isinstance(message, str) else 2
        payload = raw(message)
        if deflater and r.random() < 0.7:
            first, payload = first | 0x40, deflater.compress(payload, r)
        fragments = chop(payload, r, most=5)
        for fragment in fragments[:-1]:
            say(first, fragment)
            perhaps_control()
            first = 0
        say(first | 0x80, fragments[-1])
        events.append(event(message))
        perhaps_control()
    if r.random() < 0.5:
        return frames, Outcome(events, OPEN)
    code, reason = 1005, ""  # an empty Close
    if r.random() < 0.7:
        code = r.choice((1000, 1001, 1003, 1007, 1011, 1013, 3000, 4999))
        reason = "".join(r.choices("bye\u20ac", k=r.choice((0, 3, 41))))
    say(0x88, b"" if code == 1005 else close_payload(code, reason))
    if r.random() < 0.3:  # nobody may look at this
        say(r.choice((0x81, 0x89, 0x88, 0xFF)), r.randbytes(3))
    return frames, Outcome(events, ("closed", code, reason))


def frame(role: str, first: int, payload: bytes, r: random.Random) -> bytes:
    if role == "client":
        return unmasked(first, payload)
    key = r.randbytes(4)
    return bytes([first]) + length(payload, 0x80) + key + apply_mask(payload, key)


class Deflater:
    """A peer's compressor, which uses what RFC 7692 lets it, the earlier messages too."""

    def __init__(self, role: str, agreed: Deflate) -> None:
        _, self._forgets, _, self._bits, _ = agreed
        if role == "client":
            self._forgets, _, self._bits, _, _ = agreed
        self._compressor: Any = None

    def compress(self, payload: bytes, r: random.Random) -> bytes:
        if self._compressor is None:
            level = r.choice((0, 1, 6, 9))
            strategy = r.choice((zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_FIXED))
            self._compressor = zlib.compressobj(level, zlib.DEFLATED, -self._bits, 8, strategy)
        data: bytes = b""
        if r.random() < 0.3:  # several blocks
            at = r.randint(0, len(payload))
            data = self._compressor.compress(payload[:at])
            data += self._compressor.flush(r.choice((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)))
            payload = payload[at:]
        data += self._compressor.compress(payload)
        if r.random() < 0.03:  # a block with BFINAL (7.2.3.4)
            data += self._compressor.flush(zlib.Z_FINISH) + b"\x00"
            self._compressor = None
            return data
        data += self._compressor.flush(zlib.Z_SYNC_FLUSH)
        if self._forgets:
            self._compressor = None
        return data.removesuffix(TAIL) or b"\x00"


def chop(data: bytes, r: random.Random, most: int = 30) -> list[bytes]:
    """The data in one or more pieces, perhaps in bytes, some of them empty."""
    cuts = sorted(r.randint(0, len(data)) for _ in range(r.choice((0, 0, 1, 2, most))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def damage(frames: list[bytes], r: random.Random) -> bytes:
    frames = list(frames) or [b"\x88\x00"]
    at = r.randrange(len(frames))
    match r.randrange(8):
        case 0:
            del frames[at]
        case 1:
            frames.insert(at, r.choice(frames))
        case 2:
            frames[at] = bytes([r.randrange(256)]) + frames[at][1:]
        case 3:
            frames[at] = frames[at][:1] + bytes([r.randrange(256)]) + frames[at][2:]
        case 4:
            frames[at] = frames[at][: r.randrange(len(frames[at]))]
        case 5:
            frames[at:] = [b"".join(frames[at:])[: r.randrange(20)]]
    data = bytearray(b"".join(frames))
    for _ in range(r.choice((0, 1, 1, 3))):
        if data:
            data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    if r.random() < 0.1:
        at = r.randint(0, len(data))
        data[at:at] = r.randbytes(r.randrange(6))
    return bytes(data)


# Ours


class Reading(NamedTuple):
    """How our parser and assembler understood a stream, and where strangers may lose their way."""

    outcome: Outcome
    reason: str  # in our words, where it failed
    final_at: int  # the number of events before a block with BFINAL
    empty_at: int  # and before a compressed message without any byte
    control_within_at: int  # and before a control frame within a compressed message
    within: bool  # whether it ended within a message
    small_window: bool

    def failed(self, *codes: int) -> bool:
        return self.outcome.end[0] == "failed" and self.outcome.end[1] in codes


NEVER = 1 << 30


class WatchedInflater(Inflater):
    """Tells whether a block with BFINAL came, and whether a message without any byte did."""

    def __init__(self, window_bits: int, no_context_takeover: bool) -> None:
        super().__init__(window_bits, no_context_takeover)
        self._bits, self._starts_anew = window_bits, no_context_takeover
        self._shadow = zlib.decompressobj(-window_bits)
        self.met_final = self.met_empty = False
        self._bytes = 0  # of this message

    def inflate(self, data: bytes, done: bool, room: int) -> bytes:
        with contextlib.suppress(zlib.error):
            self._shadow.decompress(data + TAIL * done, LIMIT)
        self._bytes += len(data)
        if done:
            self.met_empty = self.met_empty or self._bytes == 0
            self._bytes = 0
        self.met_final = self.met_final or self._shadow.eof
        if done and self._starts_anew:
            self._shadow = zlib.decompressobj(-self._bits)
        return super().inflate(data, done, room)


def by_the_layer(role: str, agreed: Deflate | None, pieces: Sequence[bytes]) -> Reading:
    """Our parser and assembler, fed piece by piece."""
    server_forgets, forgets, server_bits, bits, _ = agreed or Deflate()
    if role == "client":
        forgets, bits = server_forgets, server_bits
    inflater, small = WatchedInflater(bits, forgets), bits < 15
    parser = FrameParser(masked=role == "server", max_message=LIMIT, compressed=bool(agreed))
    assembler = Assembler(LIMIT, inflater if agreed else None)
    events: list[Event] = []
    final_at = empty_at = control_within_at = NEVER
    within = compressed = False
    end, reason = OPEN, ""
    try:
        for piece in pieces:
            parser.feed(piece)
            while end == OPEN and (chunk := parser.parse()) is not None:
                if chunk.opcode == 0x8:
                    end = ("closed", *parse_close(chunk.payload))
                elif chunk.opcode > 0x8:
                    if within and compressed:
                        control_within_at = min(control_within_at, len(events))
                    events.append(("ping" if chunk.opcode == 0x9 else "pong", chunk.payload))
                else:
                    compressed = chunk.rsv1 or (within and compressed)
                    within = not (chunk.fin and chunk.last)
                    if (message := assembler.add(chunk)) is not None:
                        events.append(event(message))
                    if inflater.met_final:
                        final_at = min(final_at, len(events) - (not within))
                    if inflater.met_empty:
                        empty_at = min(empty_at, len(events) - (not within))
    except ProtocolError as error:
        end, reason = ("failed", error.code, ""), error.reason
        if inflater.met_final:
            final_at = min(final_at, len(events))
    outcome = Outcome(events, end)
    return Reading(outcome, reason, final_at, empty_at, control_within_at, within, small)


def event(message: str | bytes) -> Event:
    return ("text" if isinstance(message, str) else "binary", message)


class Pipe(Stream):
    """What a `WebSocket` needs of its stream, without a socket: pieces come in, `sent` went out.

    A piece comes whole, whatever size is asked for, so that both readers of ours see the same cuts.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.timeouts = Timeouts()
        self.lock = threading.Lock()
        self.lost = None
        self.failure = None
        self.heard_at = time.monotonic()
        self.sent = b""
        self.ended = self.closed = False
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


def by_websocket(item: Input, closing: bool = False) -> tuple[WebSocket, Pipe, list[str | bytes]]:
    """Our endpoint, from the first byte to the end of TCP, and what it received.

    It echoes; or it has begun to close before anything came, and is so slow that the clock has to
    look after it between two messages.
    """
    pipe = Pipe(item.pieces)
    opening = Handshake("/", "", Message(), "peer", None, item.agreed)
    websocket = WebSocket(pipe, opening, is_client=item.role == "client", max_message=LIMIT)
    if closing:
        websocket.close(4000, wait=False)
    received: list[str | bytes] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            for _ in range(3 * closing):
                assert pipe.on_look
                pipe.on_look(time.monotonic())
            message = websocket.receive()
            assert message is not None
            received.append(message)
            if not closing:
                websocket.send(message)
    websocket.close()
    assert pipe.ended
    assert pipe.closed
    return websocket, pipe, received


# Strangers


def by_wsproto(role: str, agreed: Deflate | None, pieces: Sequence[bytes]) -> Outcome:
    extensions: list[Extension] = []
    if agreed:
        extension = WsprotoDeflate()
        extension.finalize("; ".join([PMD, *parameters(agreed)]))
        extensions.append(extension)
    side = wsproto.connection.SERVER if role == "server" else wsproto.connection.CLIENT
    connection = wsproto.connection.Connection(side, extensions)
    events: list[Event] = []
    text, binary = "", b""
    for piece in pieces:
        connection.receive_data(piece)
        for event in connection.events():
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    events.append(("text", text))
                    text = ""
            elif isinstance(event, BytesMessage):
                binary += event.data
                if event.message_finished:
                    events.append(("binary", binary))
                    binary = b""
            elif isinstance(event, Ping):
                events.append(("ping", bytes(event.payload)))
            elif isinstance(event, Pong):
                events.append(("pong", bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                closing = connection.state is wsproto.connection.ConnectionState.REMOTE_CLOSING
                kind = "closed" if closing else "failed"
                return Outcome(events, (kind, int(event.code), (closing and event.reason) or ""))
    return Outcome(events, OPEN)


def parameters(agreed: Deflate) -> list[str]:
    found = [f"server_max_window_bits={agreed.server_max_window_bits}"]
    found.append(f"client_max_window_bits={agreed.client_max_window_bits}")
    if agreed.server_no_context_takeover:
        found.append("server_no_context_takeover")
    if agreed.client_no_context_takeover:
        found.append("client_no_context_takeover")
    return found


def by_websockets(
    role: str, agreed: Deflate | None, pieces: Sequence[bytes], limit: int | None = LIMIT
) -> Outcome:
    side = websockets.protocol.SERVER if role == "server" else websockets.protocol.CLIENT
    protocol = websockets.protocol.Protocol(side, max_size=limit)
    if agreed:
        server = agreed.server_no_context_takeover, agreed.server_max_window_bits
        client = agreed.client_no_context_takeover, agreed.client_max_window_bits
        theirs, own = (client, server) if role == "server" else (server, client)
        protocol.extensions = [PerMessageDeflate(theirs[0], own[0], theirs[1], own[1])]
    events: list[Event] = []
    opcode, data, decoder = 0, b"", codecs.getincrementaldecoder("utf-8")()
    for piece in pieces:
        if protocol.parser_exc or protocol.close_rcvd:
            break
        protocol.receive_data(piece)
        for found in protocol.events_received():
            assert isinstance(found, TheirFrame)
            if found.opcode >= 0x8:
                if found.opcode != 0x8:
                    events.append(("ping" if found.opcode == 0x9 else "pong", bytes(found.data)))
                continue
            if found.opcode:
                opcode, data = found.opcode, b""
            data += found.data
            if opcode == 0x1:  # text is left to who uses the protocol
                try:
                    decoder.decode(found.data, found.fin)
                except UnicodeDecodeError:
                    return Outcome(events, ("failed", 1007, ""))
            if found.fin:
                events.append(("text", data.decode()) if opcode == 0x1 else ("binary", data))
    if protocol.parser_exc:
        assert protocol.close_sent
        return Outcome(events, ("failed", int(protocol.close_sent.code), ""))
    if close := protocol.close_rcvd:
        return Outcome(events, ("closed", int(close.code), close.reason))
    return Outcome(events, OPEN)


# Differences


class Difference(NamedTuple):
    """Where a stranger may find something else in the same bytes, and why."""

    who: str
    why: str
    holds: Callable[[Reading, Outcome], bool]


def starts_alike(ours: Reading, theirs: Outcome, count: int = NEVER) -> bool:
    """Whether what one has found begins with what the other has, `count` events at most."""
    count = min(count, len(ours.outcome.events), len(theirs.events))
    return ours.outcome.events[:count] == theirs.events[:count]


def messages_of(outcome: Outcome) -> list[str | bytes]:
    return [said for kind, said in outcome.events if kind in ("text", "binary")]


def same_but_for_the_end(ours: Reading, theirs: Outcome, code: int) -> bool:
    return ours.outcome.events == theirs.events and theirs.end == ("failed", code, "")


def look_too_far_back(ours: Reading, theirs: Outcome) -> bool:
    """zlib lets a distance be over the window's size as long as it stays in one call's output."""
    bad_data = ours.reason == "the data is not deflated" or theirs.end[1] in (1002, 1007)
    return ours.small_window and bad_data and starts_alike(ours, theirs)


DIFFERENCES = (
    Difference(
        "both",
        "wait for the rest of a frame that we refuse at its header, or where its data turns bad",
        lambda ours, theirs: (
            ours.outcome.end[0] == "failed"
            and theirs.end == OPEN
            and ours.outcome.events == theirs.events
        ),
    ),
    Difference(
        "both",
        "take what follows a deflate block with BFINAL for nothing",
        lambda ours, theirs: ours.final_at < NEVER and starts_alike(ours, theirs, ours.final_at),
    ),
    Difference(
        "both",
        "inflate the tail alone where a compressed message has no byte, and lose their way",
        lambda ours, theirs: ours.empty_at < NEVER and starts_alike(ours, theirs, ours.empty_at),
    ),
    Difference(
        "both",
        "wait, as Python's decoder does, for the third byte of a surrogate",
        lambda ours, theirs: (
            ours.reason == "the text is not UTF-8"
            and starts_alike(ours, theirs)
            and messages_of(ours.outcome) == messages_of(theirs)
        ),
    ),
    Difference(
        "wsproto",
        "takes a compressed message for a plain one from a control frame between its fragments on",
        lambda ours, theirs: (
            ours.control_within_at < NEVER and starts_alike(ours, theirs, ours.control_within_at)
        ),
    ),
    Difference(
        "wsproto",
        "has no limit to a message",
        lambda ours, theirs: ours.failed(1009) and starts_alike(ours, theirs),
    ),
    Difference(
        "wsproto",
        "inflates a frame before it looks whether one of its kind may come",
        lambda ours, theirs: (
            ours.reason in ("a message within one", "nothing to continue")
            and same_but_for_the_end(ours, theirs, 1007)
        ),
    ),
    Difference(
        "wsproto",
        "does not know close code 1014",
        lambda ours, theirs: (
            ours.outcome.end[:2] == ("closed", 1014) and same_but_for_the_end(ours, theirs, 1002)
        ),
    ),
    Difference(
        "websockets",
        "says 1002 where data is not deflated, and not 1007",
        lambda ours, theirs: (
            ours.reason == "the data is not deflated" and same_but_for_the_end(ours, theirs, 1002)
        ),
    ),
    Difference(
        "websockets",
        "takes a length that is not in its shortest form",
        lambda ours, theirs: (
            ours.reason in ("the length is badly encoded", "a control frame is over 125 bytes")
            and starts_alike(ours, theirs)
        ),
    ),
    Difference(
        "websockets",
        "fails a Close between the fragments of a message",
        lambda ours, theirs: (
            ours.outcome.end[0] == "closed"
            and ours.within
            and same_but_for_the_end(ours, theirs, 1002)
        ),
    ),
    Difference(
        "websockets",
        "decodes the reason of a Close before it looks at the code",
        lambda ours, theirs: (
            ours.reason.startswith("close code") and same_but_for_the_end(ours, theirs, 1007)
        ),
    ),
    Difference(
        "websockets",
        "looks at a frame's length before all else in its header",
        lambda ours, theirs: ours.failed(1002) and same_but_for_the_end(ours, theirs, 1009),
    ),
    Difference(
        "websockets",
        "counts control frames, and deflated data as it is, against the limit of a message",
        lambda ours, theirs: theirs.end == ("failed", 1009, "") and starts_alike(ours, theirs),
    ),
    Difference(
        "both",
        "cut deflated data in other places, and zlib looks back beyond a small window within one",
        look_too_far_back,
    ),
)


def difference(who: str, ours: Reading, theirs: Outcome) -> str | None:
    """Why the stranger differs, None if it does not; an unexplained difference is a failure."""
    if theirs == ours.outcome:
        return None
    for known in DIFFERENCES:
        if known.who in (who, "both") and known.holds(ours, theirs):
            return f"{known.who} {known.why}"
    raise AssertionError(f"ours: {ours}\n{who}: {theirs}")


# Checks


STRANGERS = {"wsproto": by_wsproto, "websockets": by_websockets}


def check(item: Input, strangers: Sequence[str] = tuple(STRANGERS)) -> list[str]:
    """Everything that has to hold for an input without a socket; the differences it met."""
    role, agreed, pieces, expected = item
    whole = by_the_layer(role, agreed, [b"".join(pieces)])
    if expected is not None:
        assert whole.outcome == expected
    ours = by_the_layer(role, agreed, pieces)
    if ours.outcome != whole.outcome and not look_too_far_back(ours, whole.outcome):
        assert wrong_twice(agreed, whole)
        assert wrong_twice(agreed, ours)
        assert ours.outcome.events == whole.outcome.events
    check_endpoint(item, ours)
    check_closing_endpoint(item, ours)
    found = [difference(who, ours, STRANGERS[who](role, agreed, pieces)) for who in strangers]
    return [words for words in found if words]


def check_endpoint(item: Input, ours: Reading) -> bytes:
    """Our endpoint has to do what these pieces ask for; what it sends."""
    websocket, pipe, received = by_websocket(item)
    assert received == messages_of(ours.outcome)
    assert all(len(message) <= LIMIT for message in received)
    kind, code, reason = ours.outcome.end
    assert websocket.clean == (kind == "closed")
    assert websocket.close_code == (code if kind == "closed" else 1006)
    wanted = {"failed": ours.reason, "closed": reason}
    assert websocket.close_reason == wanted.get(kind, "the peer ended TCP without a Close")
    assert answer_in(item, pipe.sent) == answer_to(ours)
    return pipe.sent


def answer_in(item: Input, sent: bytes) -> Outcome:
    """What an endpoint sent, as a stranger reads it."""
    return by_websockets(other(item.role), item.agreed, [sent], None)


def answer_to(ours: Reading) -> Outcome:
    """What an echoing endpoint sends; its Close says why it failed, or repeats the code."""
    events: list[Event] = []
    for kind, said in ours.outcome.events:
        if kind != "pong":
            events.append(("pong" if kind == "ping" else kind, said))
    kind, code, _ = ours.outcome.end
    return Outcome(events, OPEN if kind == "open" else ("closed", code, ours.reason))


def check_closing_endpoint(item: Input, ours: Reading) -> None:
    """Behind its own Close our endpoint receives all the same, and sends pongs and no more."""
    if item.role == "client":  # what it sends is masked; the code is the same
        return
    websocket, pipe, received = by_websocket(item, closing=True)
    expected = messages_of(ours.outcome)
    if ours.small_window and ours.reason == "the data is not deflated":
        # As in `look_too_far_back`: here more of the data may have come in one piece.
        assert received[: len(expected)] == expected
        if len(received) > len(expected):
            return
    assert received == expected
    assert websocket.clean == (ours.outcome.end[0] == "closed")
    pings = [raw(said) for kind, said in ours.outcome.events if kind == "ping"]
    sent = b"\x88\x02\x0f\xa0" + b"".join(unmasked(0x8A, ping) for ping in pings)
    if ours.outcome.end[0] == "failed":
        # The clock reads ahead: it may have answered pings behind what turned out to be wrong.
        further = [*pings, *pings_by_header(b"".join(item.pieces))[len(pings) :]]
        allowed = [sent]
        for ping in further[len(pings) :]:
            allowed.append(allowed[-1] + unmasked(0x8A, ping))
        assert pipe.sent in allowed
    else:
        assert pipe.sent == sent


def pings_by_header(data: bytes) -> list[bytes]:
    """The payloads of a client's Pings up to a Close or a bad control frame, all else unread."""
    pings = []
    at = 0
    while len(data) - at >= 2:
        first, size, header = data[at], data[at + 1] & 0x7F, 2
        if first & 8 and (first not in (0x89, 0x8A) or size > 125):
            break
        if not data[at + 1] & 0x80:
            break
        if size > 125:
            header += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : at + header], "big")
        key, payload = data[at + header :][:4], data[at + header + 4 :][:size]
        at += header + 4 + size
        if first == 0x89 and at <= len(data):
            pings.append(xor(payload, key))
    return pings


def raw(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def wrong_twice(agreed: Deflate | None, ours: Reading) -> bool:
    """Whether a message may be bad deflate data, bad text and too long: its cut decides which."""
    return agreed is not None and ours.failed(1007, 1009)


def other(role: str) -> str:
    return "client" if role == "server" else "server"


# Heads of opening handshakes


REQUEST = [
    b"GET / HTTP/1.1",
    b"Host: 127.0.0.1",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: " + KEY.encode(),
    b"Sec-WebSocket-Version: 13",
    b"Origin: http://127.0.0.1",
    b"Sec-WebSocket-Protocol: chat, superchat",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
]
RESPONSE = [
    b"HTTP/1.1 101 Switching Protocols",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Accept: " + ACCEPT.encode(),
    b"Sec-WebSocket-Protocol: chat",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10",
]
SCRAPS = [
    b"permessage-deflate", b"server_max_window_bits", b"client_max_window_bits", b"foo", b"10",
    b"server_no_context_takeover", b"client_no_context_takeover", b"08", b'"', b"\\", b";", b"; ",
    b",", b", ", b"=", b" ", b"\t", b"websocket", b"Upgrade", b"chat", b":", b"\r\n", b"\n", b"\r",
    b"\x00", b"\xe9", b"\xff\xfe", b"\xe2\x84\xaa", b"13", b"http://", b"//", b"%00", b"[::1]",
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"HTTP/0.9", b"HTTP/2.0", b"-1", b"9" * 20,
]  # fmt: skip


def some_head(lines: Sequence[bytes], r: random.Random) -> bytes:
    """A head, damaged here and there."""
    lines = list(lines)
    for _ in range(r.choice((0, 1, 1, 2, 3))):
        at = r.randrange(len(lines))
        line = lines[at]
        cut = r.randint(0, len(line))
        scraps = b"".join(r.choices(SCRAPS, k=r.choice((1, 1, 2, 8))))
        match r.randrange(7):
            case 0:
                lines[at : at + 1] = []
            case 1:
                lines.insert(r.randint(0, len(lines)), line)
            case 2:
                lines[at] = line[:cut] + scraps + line[cut:]
            case 3:
                lines[at] = line.partition(b":")[0] + b": " + scraps
            case 4:
                lines[at] = line[:cut] + r.randbytes(r.randrange(9)) + line[cut + r.randrange(9) :]
            case 5:
                lines[at] = line.swapcase()
            case 6:
                lines[at] = line[:cut] + line[cut:] * r.choice((2, 50))
        lines = lines or [b""]
    return head_of(lines)


def head_of(lines: Sequence[bytes]) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def check_heads(r: random.Random) -> None:
    """Both sides' functions take any head, or raise InvalidHandshake and nothing else."""
    head, end, _ = some_head(RESPONSE, r).partition(b"\r\n\r\n")
    with contextlib.suppress(InvalidHandshake):
        answer = handshake.parse_response(head + end)
        chosen = handshake.check_response(answer, KEY, ["chat"])
        check_answer(chosen.extensions, Deflate())
    _, _, fields = some_head(REQUEST, r).partition(b"\r\n")
    fields, end, _ = fields.partition(b"\r\n\r\n")
    with contextlib.suppress(InvalidHandshake):
        lines = [line + b"\n" for line in (fields + end).split(b"\n")[:-1]]
        for line in lines[:-1]:
            handshake.check_header_line(line)
        headers = http.client.parse_headers(io.BytesIO(b"".join(lines)))
        handshake.check_host(headers, handshake.LOOPBACK_HOSTS)
        handshake.check_request("GET", "HTTP/1.1", headers)
        handshake.check_origin(headers, ())
        handshake.choose_subprotocol(headers, ["superchat"])
        accept_offer(handshake.parse_extensions(headers), Deflate())


# Over real sockets


OVER_TCP = (None, Deflate(True, False), Deflate(True, True), Deflate(True, True, 10))


class ErrorLog(logging.Handler):
    """What the layer logs as an error: what nobody foresaw."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Ground:
    """An echoing server and a raw one, for many inputs; its end checks that nothing was left."""

    def __init__(self) -> None:
        self.errors = ErrorLog()
        logging.getLogger("rfc6455").addHandler(self.errors)
        self._stack = contextlib.ExitStack()
        self._stack.callback(logging.getLogger("rfc6455").removeHandler, self.errors)
        self.server = self._stack.enter_context(
            serving(echo_each, deflate=Deflate(), max_message=LIMIT, subprotocols=["chat"])
        )
        self._response = self._after = b""
        self._raw = self._stack.enter_context(RawServer(self._answer))

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def assert_no_error(self) -> None:
        assert [record.getMessage() for record in self.errors.records] == []

    def check_stream(self, item: Input) -> None:
        """Over TCP the same comes back as without, to the byte."""
        role, agreed, pieces, _ = item
        assert role == "server"
        ours = by_the_layer(role, agreed, pieces)
        without = check_endpoint(item, ours)
        with shake_hands(self.server, Sec_WebSocket_Extensions=offer_of(agreed)) as peer:
            for piece in pieces:
                peer.send(piece)
            if ours.outcome.end == OPEN:
                peer.sock.shutdown(socket.SHUT_WR)
            answer = peer.read_to_eof()
        if answer != without:
            assert wrong_twice(agreed, ours)
            assert answer_in(item, answer).events == answer_to(ours).events
            assert answer_in(item, answer).end[1] in (1007, 1009)
        self.assert_no_error()

    def check_bytes(self, data: bytes) -> None:
        """Whatever comes instead of a handshake, HTTP or nothing is the answer, and then EOF."""
        with tcp(self.server) as peer:
            peer.send(data)
            peer.sock.shutdown(socket.SHUT_WR)
            answer = peer.read_to_eof()
        assert answer == b"" or re.match(rb"HTTP/1\.1 (101|4[0-9]{2}|50[0-9]) ", answer), answer
        self.assert_no_error()

    def check_client(self, response: bytes, after: bytes) -> None:
        """Our client ends, in one of the ways that its documentation names."""
        self._response, self._after = response, after
        try:
            with connect(
                self._raw.url, deflate=Deflate(), subprotocols=["chat"], max_message=LIMIT
            ) as websocket:
                echo_each(websocket)
        except (InvalidHandshake, ConnectionClosed, ConnectionError):
            pass
        self.assert_no_error()

    def _answer(self, peer: Peer) -> None:
        key = next(
            line[19:]
            for line in peer.read_head().split("\r\n")
            if line.startswith("Sec-WebSocket-Key: ")
        )
        right = self._response.replace(ACCEPT.encode(), accept_value(key).encode())
        with contextlib.suppress(ConnectionError):  # a client that refuses need not read all
            peer.send(right + self._after)
            peer.sock.shutdown(socket.SHUT_WR)
            peer.read_to_eof()


def echo_each(websocket: WebSocket) -> None:
    for message in websocket:
        websocket.send(message)


def offer_of(agreed: Deflate | None) -> str | None:
    if agreed is None:
        return None
    offer = f"{PMD}; server_max_window_bits={agreed.server_max_window_bits}"
    return offer + ("; client_no_context_takeover" if agreed.client_no_context_takeover else "")


def check_over_tcp(ground: Ground, r: random.Random) -> str:
    kind = r.random()
    if kind < 0.6:
        ground.check_stream(some_input(r, OVER_TCP, ("server",)))
        return "streams to our server over TCP"
    if kind < 0.75:
        head = r.randbytes(r.randrange(80)) if r.random() < 0.2 else some_head(REQUEST, r)
        ground.check_bytes(head + b"".join(some_input(r, (None,), ("server",)).pieces))
        return "handshakes to our server over TCP"
    stream = b"".join(some_input(r, (None,), ("client",)).pieces)
    head = some_head(RESPONSE, r) if r.random() < 0.5 else head_of(RESPONSE[:4])
    ground.check_client(head if r.random() < 0.9 else r.randbytes(r.randrange(80)), stream)
    return "responses and streams to our client over TCP"


# Many at once


def check_number(number: int, ground: Ground) -> tuple[str, list[str]]:
    """The input of this number: its kind, and the differences it met."""
    r = random.Random(number)
    kind = r.random()
    if kind < 0.03:
        return check_over_tcp(ground, r), []
    if kind < 0.1:
        check_heads(r)
        return "heads of handshakes", []
    stranger = ("wsproto", "websockets")[number % 2]
    return "streams of frames", check(some_input(r), [stranger])


CheckOne = Callable[[int, Ground], tuple[str, list[str]]]


class Tally(NamedTuple):
    """What a run has met: inputs of each kind, differences, failures, and what was left behind."""

    kinds: Counter[str]
    differences: Counter[str]
    failures: list[str]
    leaks: list[str]


def check_numbers(numbers: Sequence[int], check_one: CheckOne = check_number) -> Tally:
    """These inputs, one after the other."""
    tally = Tally(Counter(), Counter(), [], [])
    threads, descriptors = living_threads(), open_descriptors()
    with Ground() as ground:
        for number in numbers:
            try:
                kind, differences = check_one(number, ground)
            except Exception as error:  # any is a finding, and the run goes on
                trace = "".join(traceback.format_exception(error))
                tally.failures.append(f"input {number}: {trace}")
                ground.errors.records.clear()
                continue
            tally.kinds[kind] += 1
            tally.differences.update(differences)
    try:
        eventually(lambda: living_threads() <= threads and open_descriptors() <= descriptors)
    except AssertionError:
        tally.leaks.extend(str(thread) for thread in living_threads() - threads)
        tally.leaks.append(f"{open_descriptors() - descriptors} descriptors more than before")
    return tally


def living_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name != "rfc6455-clock"}


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def work(numbers: Sequence[int]) -> Tally:
    """`check_numbers` in a process of its own, where an input that hangs is a failure, too."""

    def ring(*_: object) -> None:
        raise AssertionError(f"it hangs: not done within {HUNG_AFTER} s")

    def on_time(number: int, ground: Ground) -> tuple[str, list[str]]:
        signal.setitimer(signal.ITIMER_REAL, HUNG_AFTER)
        try:
            return check_number(number, ground)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    signal.signal(signal.SIGALRM, ring)
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always", ResourceWarning)
        tally = check_numbers(numbers, on_time)
    tally.leaks.extend(str(warning.message) for warning in unclosed)
    return tally


def run(numbers: range) -> int:
    """Check all these inputs on two cores, and print what came of it; the exit status."""
    started = time.monotonic()
    total, printed = Tally(Counter(), Counter(), [], []), 0
    batches = [numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH)]
    with multiprocessing.Pool(2) as pool:
        done = pool.imap_unordered(work, batches)
        for _ in batches:
            tally = done.next(timeout=BATCH_WITHIN)
            total.kinds.update(tally.kinds)
            total.differences.update(tally.differences)
            total.failures.extend(tally.failures)
            total.leaks.extend(tally.leaks)
            print(*total.failures[printed:20], *tally.leaks, sep="\n", end="", file=sys.stderr)
            printed = len(total.failures)
    count = sum(total.kinds.values()) + len(total.failures)
    print(f"{count:,} inputs, numbers {numbers[0]} to {numbers[-1]}", end="")
    print(f", in {time.monotonic() - started:.0f} s")
    for kind, times in total.kinds.most_common():
        print(f"{times:>11,} {kind}")
    print("Strangers differed, as is known of them:")
    for words, times in total.differences.most_common():
        print(f"{times:>11,} {words}")
    hung = sum("it hangs: " in each or "TimeoutError" in each for each in total.failures)
    print(
        f"{hung} hung, {len(total.failures) - hung} differed or raised what nobody foresaw,"
        f" {len(total.leaks)} threads, sockets or descriptors leaked"
    )
    return 1 if total.failures or total.leaks else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz both sides of the layer.")
    parser.add_argument("count", type=int, help="how many inputs")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (0)")
    options = parser.parse_args()
    if options.count < 1:
        parser.error("at least one input")
    return run(range(options.first, options.first + options.count))


# The tests


requirement = pytest.mark.requirement
few = settings(max_examples=5000 if LONG else 30)
seeds = st.integers(0, 1 << 64)  # of what hypothesis would be slow to make, draw by draw
randoms = st.randoms(use_true_random=False)
roles, agreements = st.sampled_from(ROLES), st.sampled_from(AGREEMENTS)
messages = st.lists(st.text(max_size=60) | st.binary(max_size=200), max_size=5)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Ground() as ground:
        yield ground


@requirement("10.7-1")
@few
@given(data=st.binary(max_size=200))
def test_server_answers_any_bytes_with_http_or_ends_the_connection(
    ground: Ground, data: bytes
) -> None:
    ground.check_bytes(data)


@requirement("10.7-1", "4.2.1-1")
@few
@given(r=randoms)
def test_server_answers_a_damaged_handshake_with_http_or_ends_the_connection(
    ground: Ground, r: random.Random
) -> None:
    ground.check_bytes(some_head(REQUEST, r))


@requirement("10.7-1")
@few
@given(data=st.binary(max_size=200), agreed=st.sampled_from(OVER_TCP))
def test_server_ends_a_connection_of_any_bytes_with_a_close_or_eof(
    ground: Ground, data: bytes, agreed: Deflate | None
) -> None:
    ground.check_stream(Input("server", agreed, [data]))


@requirement("10.7-1")
@few
@given(seed=seeds)
def test_server_makes_of_a_damaged_stream_over_tcp_what_it_makes_of_it_without(
    ground: Ground, seed: int
) -> None:
    ground.check_stream(some_input(random.Random(seed), OVER_TCP, ("server",)))


@requirement("10.7-1")
@few
@given(data=st.binary(max_size=200))
def test_client_ends_whatever_answers_its_handshake(ground: Ground, data: bytes) -> None:
    ground.check_client(data, b"")


@requirement("10.7-1")
@few
@given(r=randoms)
def test_client_ends_a_damaged_handshake_and_any_bytes_after_it(
    ground: Ground, r: random.Random
) -> None:
    stream = b"".join(some_input(r, (None,), ("client",)).pieces)
    ground.check_client(some_head(RESPONSE, r), stream)
    ground.check_client(head_of(RESPONSE[:4]), stream)


@requirement("10.7-1")
@few
@given(r=randoms)
def test_functions_of_the_handshake_raise_nothing_unforeseen(r: random.Random) -> None:
    check_heads(r)


@requirement("2.1-2", "5.4-1", "5.4-2", "5.4-3", "D6.2-1")
@few
@given(messages=messages, role=roles, agreed=agreements, seed=seeds)
def test_messages_cut_anyhow_arrive_as_they_do_at_strangers(
    messages: list[str | bytes], role: str, agreed: Deflate | None, seed: int
) -> None:
    r = random.Random(seed)
    frames, expected = frames_of(messages, role, agreed, r)
    check(Input(role, agreed, chop(b"".join(frames), r), expected))


@requirement("10.7-1")
@few
@given(r=randoms)
def test_damaged_streams_end_as_they_do_at_strangers_or_for_a_known_reason(
    r: random.Random,
) -> None:
    check(some_input(r))


@requirement("10.7-1")
@few
@given(data=st.binary(max_size=100), role=roles, agreed=agreements)
def test_any_bytes_end_as_they_do_at_strangers_or_for_a_known_reason(
    data: bytes, role: str, agreed: Deflate | None
) -> None:
    check(Input(role, agreed, [data]))


@requirement("D6.1-1", "D7.2.1-1")
@few
@given(messages=messages, role=roles, agreed=agreements, repeat=st.integers(1, 9))
def test_strangers_read_what_we_send(
    messages: list[str | bytes], role: str, agreed: Deflate | None, repeat: int
) -> None:
    messages = [each * repeat for each in messages]
    plain = b"".join(
        frame(role, 0x81 if isinstance(each, str) else 0x82, raw(each), random.Random(0))
        for each in messages
    )
    sent = check_endpoint(Input(role, agreed, [plain]), by_the_layer(role, agreed, [plain]))
    wanted = Outcome([event(message) for message in messages], OPEN)
    for stranger in STRANGERS.values():
        assert stranger(other(role), agreed, [sent]) == wanted


@requirement("10.7-1")
def test_numbered_inputs_neither_fail_nor_leak() -> None:
    count = 200_000 if LONG else 1000
    tally = check_numbers(range(count))
    assert not tally.failures, tally.failures[0]
    assert not tally.leaks
    assert sum(tally.kinds.values()) == count


def test_what_strangers_are_not_known_for_is_a_failure() -> None:
    ours = by_the_layer("client", None, [b"\x81\x02Hi"])
    assert ours.outcome == Outcome([("text", "Hi")], OPEN)
    for theirs in (
        Outcome([], OPEN),
        Outcome([("text", "Ho")], OPEN),
        Outcome([], ("failed", 1002, "")),
    ):
        for who in STRANGERS:
            with pytest.raises(AssertionError):
                difference(who, ours, theirs)


def test_script_counts_what_it_ran() -> None:
    script = [sys.executable, __file__, "100", "--first", "7"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("100 inputs, numbers 7 to 106, in ")
    assert "\n0 hung, 0 differed or raised what nobody foresaw, 0 threads" in done.stdout


if __name__ == "__main__":
    sys.exit(main())

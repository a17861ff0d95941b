"""wsproto and websockets as readers of streams, and where they are known to differ from us.

They have to find the same messages and the same close code as our layer, or differ for a reason
that `DIFFERENCES` lists.
"""

import codecs
from collections.abc import Callable, Sequence
from typing import NamedTuple

import websockets.protocol
import wsproto.connection
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.frames import Opcode as FrameOpcode
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.events import Event as WsprotoEvent
from wsproto.extensions import Extension
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

from fuzzing.faults import blaming
from fuzzing.outcomes import (
    MAX_MESSAGE,
    NEVER,
    NOT_DEFLATED,
    OPEN,
    End,
    Event,
    Outcome,
    Reading,
    as_bytes,
    messages_of,
)
from rfc6455 import Deflate

# wsproto


def read_by_wsproto(role: str, agreed: Deflate | None, pieces: Sequence[bytes]) -> Outcome:
    reader = WsprotoReader(role, agreed)
    for piece in pieces:
        reader.feed(piece)
        if reader.end != OPEN:
            break
    return Outcome(reader.events, reader.end)


class WsprotoReader:
    """A connection of wsproto, whose events it joins to messages."""

    def __init__(self, role: str, agreed: Deflate | None) -> None:
        extensions: list[Extension] = []
        if agreed:
            extension = WsprotoDeflate()
            extension.finalize("; ".join(["permessage-deflate", *parameters(agreed)]))
            extensions.append(extension)
        side = wsproto.connection.SERVER if role == "server" else wsproto.connection.CLIENT
        self._connection = wsproto.connection.Connection(side, extensions)
        self._text = ""  # of the message that is under way
        self._binary = b""
        self.events: list[Event] = []
        self.end = OPEN

    def feed(self, piece: bytes) -> None:
        self._connection.receive_data(piece)
        for event in self._connection.events():
            self._take(event)
            if self.end != OPEN:
                return

    def _take(self, event: WsprotoEvent) -> None:
        if isinstance(event, TextMessage):
            self._text += event.data
            if event.message_finished:
                self.events.append(Event("text", self._text))
                self._text = ""
        elif isinstance(event, BytesMessage):
            self._binary += event.data
            if event.message_finished:
                self.events.append(Event("binary", self._binary))
                self._binary = b""
        elif isinstance(event, Ping):
            self.events.append(Event("ping", bytes(event.payload)))
        elif isinstance(event, Pong):
            self.events.append(Event("pong", bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            if self._connection.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                self.end = End("closed", int(event.code), event.reason or "")
            else:
                self.end = End("failed", int(event.code))


def parameters(agreed: Deflate) -> list[str]:
    """What was agreed on, as the parameters of the extension's header."""
    found = [
        f"server_max_window_bits={agreed.server_max_window_bits}",
        f"client_max_window_bits={agreed.client_max_window_bits}",
    ]
    if agreed.server_no_context_takeover:
        found.append("server_no_context_takeover")
    if agreed.client_no_context_takeover:
        found.append("client_no_context_takeover")
    return found


# websockets


def read_by_websockets(
    role: str,
    agreed: Deflate | None,
    pieces: Sequence[bytes],
    max_message: int | None = MAX_MESSAGE,
) -> Outcome:
    reader = WebsocketsReader(role, agreed, max_message)
    for piece in pieces:
        reader.feed(piece)
        if reader.end != OPEN:
            break
    return Outcome(reader.events, reader.end)


class WebsocketsReader:
    """A protocol of websockets, which leaves joining frames and decoding text to its user."""

    def __init__(self, role: str, agreed: Deflate | None, max_message: int | None) -> None:
        side = websockets.protocol.SERVER if role == "server" else websockets.protocol.CLIENT
        self._protocol = websockets.protocol.Protocol(side, max_size=max_message)
        if agreed:
            self._protocol.extensions = [their_deflate(role, agreed)]
        self._opcode = FrameOpcode.CONT  # of the message that is under way
        self._data = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.events: list[Event] = []
        self.end = OPEN

    def feed(self, piece: bytes) -> None:
        self._protocol.receive_data(piece)
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            self._take(frame)
            if self.end != OPEN:
                return
        if self._protocol.parser_exc:
            assert self._protocol.close_sent
            self.end = End("failed", int(self._protocol.close_sent.code))
        elif close := self._protocol.close_rcvd:
            self.end = End("closed", int(close.code), close.reason)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is FrameOpcode.PING:
            self.events.append(Event("ping", bytes(frame.data)))
        elif frame.opcode is FrameOpcode.PONG:
            self.events.append(Event("pong", bytes(frame.data)))
        elif frame.opcode is not FrameOpcode.CLOSE:
            self._take_data(frame)

    def _take_data(self, frame: Frame) -> None:
        if frame.opcode is not FrameOpcode.CONT:
            self._opcode = frame.opcode
            self._data = b""
        self._data += frame.data
        if self._opcode is FrameOpcode.TEXT:
            try:
                self._decoder.decode(frame.data, frame.fin)
            except UnicodeDecodeError:
                self.end = End("failed", 1007)
                return
        if frame.fin and self._opcode is FrameOpcode.TEXT:
            self.events.append(Event("text", self._data.decode()))
        elif frame.fin:
            self.events.append(Event("binary", self._data))


def their_deflate(role: str, agreed: Deflate) -> PerMessageDeflate:
    server_bits = agreed.server_max_window_bits
    client_bits = agreed.client_max_window_bits
    server_forgets = agreed.server_no_context_takeover
    client_forgets = agreed.client_no_context_takeover
    if role == "server":
        return PerMessageDeflate(client_forgets, server_forgets, client_bits, server_bits)
    return PerMessageDeflate(server_forgets, client_forgets, server_bits, client_bits)


STRANGERS = {"wsproto": read_by_wsproto, "websockets": read_by_websockets}

# Differences


class Difference(NamedTuple):
    """Where a stranger may find something else than we do in the same bytes, and why."""

    who: str  # the stranger, or "both"
    why: str
    applies: Callable[[Reading, Outcome], bool]  # to what we found, and what the stranger found


def starts_alike(ours: Reading, theirs: Outcome, count: int = NEVER) -> bool:
    """Whether one has found what the other begins with; only the first `count` events count."""
    count = min(count, len(ours.outcome.events), len(theirs.events))
    return ours.outcome.events[:count] == theirs.events[:count]


def differs_from(place: int, ours: Reading, theirs: Outcome) -> bool:
    """Whether there is such a place, and all before it is the same."""
    return place < NEVER and starts_alike(ours, theirs, place)


def differs_only_in_code(ours: Reading, theirs: Outcome, code: int) -> bool:
    """Whether the stranger fails with this code, after the same events."""
    return ours.outcome.events == theirs.events and theirs.end == End("failed", code)


def looks_too_far_back(ours: Reading, theirs: Outcome) -> bool:
    """zlib takes a distance over the window's size as long as it stays in one call's output."""
    is_bad_data = ours.reason == NOT_DEFLATED or theirs.end.code in (1002, 1007)
    return ours.has_small_window and is_bad_data and starts_alike(ours, theirs)


def is_too_big_for_us(ours: Reading, theirs: Outcome) -> bool:
    """Whether the stranger goes on with a message that we refuse because it is over the limit.

    It takes the message, or fails before its end because of something else.
    """
    if ours.reason != "the inflated message is too big" or not starts_alike(ours, theirs):
        return False
    count = len(ours.outcome.events)
    if len(theirs.events) == count:
        return theirs.end.kind == "failed" and theirs.end.code != 1009
    return len(as_bytes(theirs.events[count].payload)) > MAX_MESSAGE


DIFFERENCES = (
    Difference(
        "both",
        "wait for the rest of a frame that we refuse at its header, or where its data turns bad",
        lambda ours, theirs: (
            ours.outcome.end.kind == "failed"
            and theirs.end == OPEN
            and ours.outcome.events == theirs.events
        ),
    ),
    Difference(
        "both",
        "ignore what follows a deflate block with BFINAL",
        lambda ours, theirs: (
            ours.oddities.final_block_at < NEVER
            and starts_alike(ours, theirs, ours.oddities.final_block_at)
        ),
    ),
    Difference(
        "both",
        "inflate only the tail where a compressed message has no byte, and lose their place",
        lambda ours, theirs: (
            ours.oddities.no_byte_at < NEVER
            and starts_alike(ours, theirs, ours.oddities.no_byte_at)
        ),
    ),
    Difference(
        "both",
        "wait for the third byte of a surrogate before they refuse it, as Python's decoder does",
        lambda ours, theirs: (
            ours.reason == "the text is not UTF-8"
            and starts_alike(ours, theirs)
            and messages_of(ours.outcome) == messages_of(theirs)
        ),
    ),
    Difference(
        "wsproto",
        "takes a compressed message as a plain one after a control frame between its fragments",
        lambda ours, theirs: (
            ours.oddities.control_inside_at < NEVER
            and starts_alike(ours, theirs, ours.oddities.control_inside_at)
        ),
    ),
    Difference(
        "wsproto",
        "does not limit the size of a message",
        lambda ours, theirs: ours.failed_with(1009) and starts_alike(ours, theirs),
    ),
    Difference(
        "wsproto",
        "inflates a frame before it checks whether a frame of its kind may come",
        lambda ours, theirs: (
            ours.reason
            in (
                "a new message before the last one was complete",
                "a continuation frame without a message to continue",
            )
            and differs_only_in_code(ours, theirs, 1007)
        ),
    ),
    Difference(
        "wsproto",
        "does not know close code 1014",
        lambda ours, theirs: (
            ours.outcome.end.kind == "closed"
            and ours.outcome.end.code == 1014
            and differs_only_in_code(ours, theirs, 1002)
        ),
    ),
    Difference(
        "websockets",
        "fails with 1002 instead of 1007 where data can't be inflated",
        lambda ours, theirs: (
            ours.reason == NOT_DEFLATED and differs_only_in_code(ours, theirs, 1002)
        ),
    ),
    Difference(
        "websockets",
        "accepts a length that is not in its shortest form",
        lambda ours, theirs: (
            ours.reason in ("the length is badly encoded", "a control frame is over 125 bytes")
            and starts_alike(ours, theirs)
        ),
    ),
    Difference(
        "websockets",
        "refuses a Close between the fragments of a message",
        lambda ours, theirs: (
            ours.outcome.end.kind == "closed"
            and ours.oddities.is_inside
            and differs_only_in_code(ours, theirs, 1002)
        ),
    ),
    Difference(
        "websockets",
        "decodes the reason of a Close before it checks the code",
        lambda ours, theirs: (
            ours.reason.startswith("close code") and differs_only_in_code(ours, theirs, 1007)
        ),
    ),
    Difference(
        "websockets",
        "checks the length of a frame before all else in its header",
        lambda ours, theirs: ours.failed_with(1002) and differs_only_in_code(ours, theirs, 1009),
    ),
    Difference(
        "websockets",
        "counts control frames, and data before it is inflated, against the limit of a message",
        lambda ours, theirs: theirs.end == End("failed", 1009) and starts_alike(ours, theirs),
    ),
    Difference(
        "websockets",
        "has no limit for the rest of a compressed message that has reached it to the byte",
        # It asks zlib whether input is left, and zlib may have read all and hold output back. Then
        # it tells zlib that 0 bytes may follow, which zlib takes as no limit.
        is_too_big_for_us,
    ),
    Difference(
        "both",
        "cut deflated data in other places, and zlib looks back beyond a small window within one",
        looks_too_far_back,
    ),
)


def find_difference(
    who: str, role: str, agreed: Deflate | None, pieces: Sequence[bytes], ours: Reading
) -> str | None:
    """Why this stranger differs from us in this stream, None if it does not."""
    with blaming(who):
        theirs = hide_pongs(STRANGERS[who](role, agreed, pieces))
    return explain_difference(who, ours, theirs)


def hide_pongs(outcome: Outcome) -> Outcome:
    """The same without the payloads of the Pongs, which our layer does not tell either."""
    events = [Event("pong", b"") if event.kind == "pong" else event for event in outcome.events]
    return outcome._replace(events=events)


def explain_difference(who: str, ours: Reading, theirs: Outcome) -> str | None:
    """Why the stranger differs, None if it does not. Raises AssertionError for no known reason."""
    if theirs == ours.outcome:
        return None
    for known in DIFFERENCES:
        if known.who in (who, "both") and known.applies(ours, theirs):
            return f"{known.who} {known.why}"
    raise AssertionError(f"{who} differs for no known reason\nours: {ours}\n{who}: {theirs}")

"""The values that the fuzz compares: an input, and what a reader found in it."""

from typing import NamedTuple

from rfc6455 import Deflate

MAX_MESSAGE = 4096  # bytes that our endpoint accepts as one message; small inputs come near it
NEVER = 1 << 30  # a number of events that no input has
DEFLATE_TAIL = b"\x00\x00\xff\xff"  # RFC 7692, 7.2.1: the end of a flushed block, which is not sent
NOT_DEFLATED = "the data is not deflated"  # our reason where zlib refuses what was sent


class Event(NamedTuple):
    """What a peer said."""

    kind: str  # "text", "binary", "ping" or "pong"
    payload: str | bytes  # a str for text; empty for a Pong, of which our layer tells no more


class End(NamedTuple):
    """How a stream ended for its reader."""

    kind: str  # "open": without a Close; "closed" by the peer's Close; or "failed" by the reader
    code: int = 0  # of the peer's Close, or the one that the reader fails the connection with
    reason: str = ""  # of the peer's Close


OPEN = End("open")


class Outcome(NamedTuple):
    """What a reader found in a stream of frames."""

    events: list[Event]
    end: End


class Input(NamedTuple):
    """What a peer sends once the opening handshake is done."""

    role: str  # of the endpoint that reads it: "server" or "client"
    agreed: Deflate | None
    pieces: list[bytes]  # as they arrive
    expected: Outcome | None = None  # None where the stream was damaged


class Oddities(NamedTuple):
    """The places in a stream where strangers may lose their way.

    A place is told as the number of events that came before it, NEVER where there is none.
    """

    final_block_at: int = NEVER  # the first deflate block with BFINAL
    no_byte_at: int = NEVER  # the first compressed message without any byte of payload
    control_inside_at: int = NEVER  # the first control frame inside a compressed message
    is_inside: bool = False  # the stream ends between fragments of a message


class Reading(NamedTuple):
    """How our layer has understood a stream, and what it has sent meanwhile."""

    outcome: Outcome
    reason: str  # in our words, where our layer has failed the connection
    sent: bytes
    oddities: Oddities
    has_small_window: bool  # for what it inflates

    def failed_with(self, *codes: int) -> bool:
        return self.outcome.end.kind == "failed" and self.outcome.end.code in codes


def message_event(message: str | bytes) -> Event:
    return Event("text" if isinstance(message, str) else "binary", message)


def messages_of(outcome: Outcome) -> list[str | bytes]:
    return [event.payload for event in outcome.events if event.kind in ("text", "binary")]


def control_payloads(kind: str, outcome: Outcome) -> list[bytes]:
    """The payloads of all pings, or of all pongs."""
    return [as_bytes(event.payload) for event in outcome.events if event.kind == kind]


def as_bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def other(role: str) -> str:
    return "client" if role == "server" else "server"

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
    payload: str | bytes  # a str for text


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


class Reading(NamedTuple):
    """How our layer understood a stream, and the places where strangers may lose their way.

    A place is told as the number of events that came before it, NEVER where there is none.
    """

    outcome: Outcome
    reason: str  # in our words, where our layer failed the connection
    final_block_at: int  # the first deflate block with BFINAL
    no_byte_at: int  # the first compressed message without any byte of payload
    control_inside_at: int  # the first control frame between fragments of a compressed message
    is_inside: bool  # whether the stream ended between fragments of a message
    has_small_window: bool

    def failed_with(self, *codes: int) -> bool:
        return self.outcome.end.kind == "failed" and self.outcome.end.code in codes


def message_event(message: str | bytes) -> Event:
    return Event("text" if isinstance(message, str) else "binary", message)


def messages_of(outcome: Outcome) -> list[str | bytes]:
    return [event.payload for event in outcome.events if event.kind in ("text", "binary")]


def as_bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def other(role: str) -> str:
    return "client" if role == "server" else "server"

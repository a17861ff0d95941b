"""permessage-deflate (RFC 7692): agreeing on it, compressing, and inflating within a bound.

What is sent never leans on earlier messages, on either side: a server then compresses a message
for many clients once, and keeps no compressor for each. Left out: several fragments per message.
"""

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from .errors import InvalidHandshake, ProtocolError
from .frames import CloseCode
from .handshake import Extension

NAME = "permessage-deflate"
_TAIL = b"\x00\x00\xff\xff"  # 7.2.1: what ends a flushed block, and is not sent
_WINDOW_BITS = re.compile(r"[89]|1[0-5]")
_MOST_FINAL_BLOCKS = 1000  # in a message; one needs a new inflater, and a sender one or two
_LEAST_WINDOW = 9  # bits; zlib can inflate with 8, but not compress


class Deflate(NamedTuple):
    """What one side wants, or what both have agreed on (7.1). A window has 2**bits bytes."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15  # 0 in a client's offer: the server may not ask for less
    least: int = 256  # bytes of a message from which on it is worth compressing; not negotiated


def accept_offer(offers: Sequence[Extension], ours: Deflate) -> tuple[Deflate, str] | None:
    """A server's choice: the first offer it can meet, and the answer to it; or none (5, 7.1)."""
    for name, parameters in offers:
        try:
            offer = _read(parameters, offer=True)
        except ValueError:
            continue  # 7: an offer that is not understood is declined
        bits = min(ours.server_max_window_bits, offer.get("server_max_window_bits", 15))
        asks_less = 0 < ours.client_max_window_bits < 15  # 7.1.2.2: only of a client that offers it
        if name != NAME or bits < _LEAST_WINDOW:
            continue
        if asks_less and "client_max_window_bits" not in offer:
            continue
        client_bits = 15
        answer = [NAME, "server_no_context_takeover"]
        forgets = ours.client_no_context_takeover or "client_no_context_takeover" in offer
        if forgets:
            answer.append("client_no_context_takeover")
        if bits < 15 or "server_max_window_bits" in offer:
            answer.append(f"server_max_window_bits={bits}")
        if asks_less:
            client_bits = min(ours.client_max_window_bits, offer["client_max_window_bits"])
            answer.append(f"client_max_window_bits={client_bits}")
        return Deflate(True, forgets, bits, client_bits, ours.least), "; ".join(answer)
    return None


def build_offer(ours: Deflate) -> str:
    """A client's Sec-WebSocket-Extensions (7.1)."""
    offer = [NAME]
    if ours.server_no_context_takeover:
        offer.append("server_no_context_takeover")
    if ours.client_no_context_takeover:
        offer.append("client_no_context_takeover")
    if ours.server_max_window_bits < 15:
        offer.append(f"server_max_window_bits={ours.server_max_window_bits}")
    if ours.client_max_window_bits:
        bits = ours.client_max_window_bits
        offer.append("client_max_window_bits" + (f"={bits}" if bits < 15 else ""))
    return "; ".join(offer)


def check_answer(answer: Sequence[Extension], ours: Deflate | None) -> Deflate | None:
    """What a server's answer agrees to; None without the extension. Raises InvalidHandshake."""
    if not answer:
        return None
    name, parameters = answer[0]
    if ours is None or name != NAME or len(answer) > 1:
        raise InvalidHandshake(101, "the server chose an extension that was not offered, or twice")
    try:
        agreed = _read(parameters, offer=False)
    except ValueError as error:
        raise InvalidHandshake(101, f"{NAME}: {error}") from None
    server_bits = agreed.get("server_max_window_bits", 15)
    client_bits = agreed.get("client_max_window_bits", 15)
    server_forgets = "server_no_context_takeover" in agreed
    if server_bits > ours.server_max_window_bits:
        raise InvalidHandshake(101, "server_max_window_bits is over what was offered")
    if ours.server_no_context_takeover and not server_forgets:
        raise InvalidHandshake(101, "server_no_context_takeover was asked for")
    if "client_max_window_bits" in agreed and not ours.client_max_window_bits:
        raise InvalidHandshake(101, "client_max_window_bits was not offered")
    client_forgets = "client_no_context_takeover" in agreed
    return Deflate(server_forgets, client_forgets, server_bits, client_bits, ours.least)


def _read(parameters: list[tuple[str, str | None]], *, offer: bool) -> dict[str, int]:
    """The parameters by name, a flag as 1. Raises ValueError, in words (7, 7.1)."""
    found: dict[str, int] = {}
    for name, value in parameters:
        if name in found:
            raise ValueError(f"{name} is there twice")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise ValueError(f"{name} has a value")
            found[name] = 1
        elif name == "client_max_window_bits" and value is None and offer:
            found[name] = 15  # 7.1.2.2: the client could keep to less, and leaves it open
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value is None or not _WINDOW_BITS.fullmatch(value):
                raise ValueError(f"{name} is not from 8 to 15")
            found[name] = int(value)
        else:
            raise ValueError(f"{name} is no parameter of it")
    return found


def compress(payload: bytes, window_bits: int) -> bytes | None:
    """The payload deflated on its own, without the tail (7.2.1); None: send it as it is.

    7.1.2.2: a server may ask for a window of 256 bytes, to which zlib can't keep. Then nothing is
    compressed, which each message may choose (7.2).
    """
    if window_bits < _LEAST_WINDOW:
        return None
    compressor = zlib.compressobj(wbits=-window_bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)


class Inflater:
    """Inflates the messages of one direction, in pieces as they come (7.2.2)."""

    def __init__(self, window_bits: int, no_context_takeover: bool) -> None:
        self._window_bits = window_bits
        self._forgets = no_context_takeover
        self._window = b""  # what was inflated last: zlib forgets it at a block with BFINAL
        self._begun = False  # this message has had a byte
        self._final_blocks = 0  # in this message
        self._inflater = zlib.decompressobj(-window_bits)

    @classmethod
    def for_side(cls, agreed: Deflate, *, is_client: bool) -> "Inflater":
        """Each side inflates what the other's parameters speak of."""
        if is_client:
            return cls(agreed.server_max_window_bits, agreed.server_no_context_takeover)
        return cls(agreed.client_max_window_bits, agreed.client_no_context_takeover)

    def inflate(self, data: bytes, done: bool, room: int) -> bytes:
        """What `data` adds to the message, of which it is the last piece if `done`.

        Raises ProtocolError: 1009 before more than `room` bytes are there, 1007 for bad data.
        """
        self._begun = self._begun or bool(data)
        if not self._begun:
            # An empty message takes one byte (7.2.3.6), but several libraries send none, as zlib
            # gives none out when it is flushed twice. It is taken as empty; the tail alone would
            # be the middle of a block, and spoil what follows.
            return b""
        if done:
            data += _TAIL
            self._begun = False
        clear = bytearray()
        try:
            while data:
                piece = self._inflater.decompress(data, room + 1 - len(clear))
                clear += piece
                if len(clear) > room:
                    raise ProtocolError(CloseCode.TOO_BIG, "the message inflates to too much")
                self._window = (self._window + piece)[-(1 << self._window_bits) :]
                data = self._inflater.unconsumed_tail
                if self._inflater.eof:  # 7.2.3.4: further blocks lean on what was before
                    self._final_blocks += 1
                    if self._final_blocks > _MOST_FINAL_BLOCKS:
                        raise ProtocolError(CloseCode.PROTOCOL_ERROR, "too many final blocks")
                    data = self._inflater.unused_data
                    self._inflater = zlib.decompressobj(-self._window_bits, zdict=self._window)
        except zlib.error:
            raise ProtocolError(CloseCode.INVALID_DATA, "the data is not deflated") from None
        self._final_blocks = 0 if done else self._final_blocks
        if done and self._forgets:
            self._window = b""
            self._inflater = zlib.decompressobj(-self._window_bits)
        return bytes(clear)

"""permessage-deflate (RFC 7692): negotiating it, and compressing and inflating messages.

The sections named here are those of RFC 7692. Both sides compress each message on its own, without
the context of earlier ones. So a server compresses a message to many clients once, and keeps no
compressor in memory for each of them. Left out: compressing a message into several fragments.
"""

import copy
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple, Self

from .errors import InvalidHandshake, ProtocolError
from .frames import CloseCode
from .handshake import Extension

NAME = "permessage-deflate"
_TAIL = b"\x00\x00\xff\xff"  # 7.2.1: the end of a flushed block, which the sender leaves out
_WINDOW_BITS = re.compile(r"[89]|1[0-5]")  # 7.1.2: 8 to 15, without a leading zero
_ALL_WINDOW_BITS = range(8, 16)  # the same as numbers
_MIN_COMPRESS_BITS = 9  # bits of the smallest window with which zlib compresses; it inflates with 8
_MAX_FINAL_BLOCKS = 1000  # in one message; each costs a new inflater, and honest senders use one


class Deflate(NamedTuple):
    """The parameters that one side wants, or on which both sides have agreed (7.1).

    A window of N bits has 2**N bytes: so far back a compressor may refer.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15  # 8 to 15
    # 8 to 15; with 0 a client does not offer the parameter, so that no server can limit it.
    client_max_window_bits: int = 15
    threshold: int = 256  # bytes; shorter messages are sent uncompressed. It is not negotiated.

    def checked(self) -> Self:
        """The same. Raises ValueError for a window or a threshold that does not exist."""
        if self.server_max_window_bits not in _ALL_WINDOW_BITS:
            bits = self.server_max_window_bits
            raise ValueError(f"server_max_window_bits must be from 8 to 15, not {bits!r}")
        if self.client_max_window_bits not in (0, *_ALL_WINDOW_BITS):
            bits = self.client_max_window_bits
            raise ValueError(f"client_max_window_bits must be 0 or from 8 to 15, not {bits!r}")
        if not self.threshold >= 0:
            raise ValueError(f"threshold must not be negative, but is {self.threshold!r}")
        return self

    def window_bits_of(self, *, is_client: bool) -> int:
        """Bits of the window with which one of the sides compresses (7.1.2)."""
        return self.client_max_window_bits if is_client else self.server_max_window_bits


class Acceptance(NamedTuple):
    """How a server accepts an offer."""

    agreed: Deflate
    answer: str  # the value of its Sec-WebSocket-Extensions


def accept_offer(offers: Sequence[Extension], ours: Deflate) -> Acceptance | None:
    """Accept the first of a client's offers that can be met; None to decline them all (5, 7.1)."""
    for offer in offers:
        if offer.name == NAME:
            accepted = _accept(offer, ours)
            if accepted:
                return accepted
    return None


def _accept(offer: Extension, ours: Deflate) -> Acceptance | None:
    try:
        offered = _read_parameters(offer, is_offer=True)
    except ValueError:
        return None  # 7: an offer with a bad parameter is declined
    server_bits = ours.server_max_window_bits
    server_bits = min(server_bits, offered.get("server_max_window_bits", server_bits))
    if server_bits < _MIN_COMPRESS_BITS:
        return None
    limits_client = 8 <= ours.client_max_window_bits < 15
    if limits_client and "client_max_window_bits" not in offered:
        return None  # 7.1.2.2: only a client that offers the parameter can be limited
    client_forgets = ours.client_no_context_takeover or "client_no_context_takeover" in offered
    client_bits = 15
    answer = [NAME, "server_no_context_takeover"]
    if client_forgets:
        answer.append("client_no_context_takeover")
    if server_bits < 15 or "server_max_window_bits" in offered:
        answer.append(f"server_max_window_bits={server_bits}")
    if limits_client:
        client_bits = min(ours.client_max_window_bits, offered["client_max_window_bits"])
        answer.append(f"client_max_window_bits={client_bits}")
    agreed = Deflate(True, client_forgets, server_bits, client_bits, ours.threshold)
    return Acceptance(agreed, "; ".join(answer))


def build_offer(ours: Deflate) -> str:
    """The value of a client's Sec-WebSocket-Extensions (7.1)."""
    offer = [NAME]
    if ours.server_no_context_takeover:
        offer.append("server_no_context_takeover")
    if ours.client_no_context_takeover:
        offer.append("client_no_context_takeover")
    if ours.server_max_window_bits < 15:
        offer.append(f"server_max_window_bits={ours.server_max_window_bits}")
    if ours.client_max_window_bits == 15:
        offer.append("client_max_window_bits")  # 7.1.2.2: the server may choose any limit
    elif ours.client_max_window_bits:
        offer.append(f"client_max_window_bits={ours.client_max_window_bits}")
    return "; ".join(offer)


def check_answer(answer: Sequence[Extension], ours: Deflate | None) -> Deflate | None:
    """The parameters to which a server's answer agrees; None if it accepted no extension.

    `ours` is what was offered, None if nothing was. Raises InvalidHandshake for an answer that the
    offer does not allow (5.1, 7).
    """
    if not answer:
        return None
    if ours is None or any(extension.name != NAME for extension in answer):
        raise InvalidHandshake(101, "the server accepted an extension that was not offered")
    if len(answer) > 1:
        raise InvalidHandshake(101, f"the server accepted {NAME} more than once")
    try:
        agreed = _read_parameters(answer[0], is_offer=False)
    except ValueError as error:
        raise InvalidHandshake(101, f"{NAME}: {error}") from None
    server_bits = agreed.get("server_max_window_bits", 15)
    # 7.1.2.2: the value in our offer binds us, even if the answer allows more or says nothing.
    client_bits = agreed.get("client_max_window_bits", 15)
    if ours.client_max_window_bits:
        client_bits = min(client_bits, ours.client_max_window_bits)
    server_forgets = "server_no_context_takeover" in agreed
    client_forgets = "client_no_context_takeover" in agreed
    if server_bits > ours.server_max_window_bits:  # 7.1.2.1: the answer may lower it, not raise it
        raise InvalidHandshake(101, "server_max_window_bits is larger than was offered")
    if ours.server_no_context_takeover and not server_forgets:
        raise InvalidHandshake(101, "the server did not agree to server_no_context_takeover")
    if "client_max_window_bits" in agreed and not ours.client_max_window_bits:
        raise InvalidHandshake(101, "client_max_window_bits was not offered")
    return Deflate(server_forgets, client_forgets, server_bits, client_bits, ours.threshold)


def _read_parameters(extension: Extension, *, is_offer: bool) -> dict[str, int]:
    """The parameters by name, with 1 for one that has no value (7.1).

    Raises ValueError, with a message for the user, for what 7 says to decline or to fail on.
    """
    found: dict[str, int] = {}
    for name, value in extension.parameters:
        if name in found:
            raise ValueError(f"{name} appears twice")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise ValueError(f"{name} takes no value")
            found[name] = 1
        elif name == "client_max_window_bits" and value is None and is_offer:
            found[name] = 15  # 7.1.2.2: the client can be limited, and suggests no limit itself
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value is None or not _WINDOW_BITS.fullmatch(value):
                raise ValueError(f"{name} is not a number from 8 to 15")
            found[name] = int(value)
        else:
            raise ValueError(f"{name} is not a known parameter")
    return found


def compress(payload: bytes, window_bits: int) -> bytes | None:
    """Compress a message on its own (7.2.1); None if it has to be sent uncompressed.

    A server may limit the window to 8 bits (7.1.2.2), with which zlib cannot compress. Then every
    message is sent uncompressed, which a sender may always do (6).
    """
    if window_bits < _MIN_COMPRESS_BITS:
        return None
    compressor = zlib.compressobj(wbits=-window_bits)  # negative: raw DEFLATE, without a header
    compressed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return compressed.removesuffix(_TAIL)


class Inflater:
    """Inflates the messages that come from the peer (7.2.2). One thread at a time may use it."""

    def __init__(self, window_bits: int, no_context_takeover: bool) -> None:
        self._window_bits = window_bits
        self._no_context_takeover = no_context_takeover
        # What was inflated last, as much as fits the window: zlib drops it after a final block.
        self._window = b""
        self._has_begun = False  # whether the current message has had a byte
        self._final_blocks = 0  # in the current message
        self._inflater = zlib.decompressobj(-window_bits)

    @classmethod
    def for_side(cls, agreed: Deflate, *, is_client: bool) -> "Inflater":
        """The inflater of one side, which follows the parameters that bind the other side."""
        window_bits = agreed.window_bits_of(is_client=not is_client)
        if is_client:
            return cls(window_bits, agreed.server_no_context_takeover)
        return cls(window_bits, agreed.client_no_context_takeover)

    def copy(self) -> Self:
        """Another one that goes on from the same place."""
        twin = copy.copy(self)
        twin._inflater = self._inflater.copy()
        return twin

    def inflate(self, data: bytes, done: bool, room: int) -> bytes:
        """Inflate the next piece of a message, the last one if `done`; what it adds to the message.

        Raises ProtocolError: with 1009 before the piece inflates to more than `room` bytes, with
        1007 for data that is not DEFLATE, and with 1002 for an absurd number of final blocks.
        """
        if data:
            self._has_begun = True
        if not self._has_begun:
            # Looser than 7.2.3.6, by which an empty message has one byte. Several libraries send
            # none, because zlib returns none when it is flushed twice. To append the tail to
            # nothing would inflate half a block, and break the messages that follow.
            return b""
        if done:
            data += _TAIL  # 7.2.2: the receiver puts back what the sender left out
        try:
            inflated = self._inflate_blocks(data, room)
        except zlib.error:
            raise ProtocolError(CloseCode.INVALID_DATA, "the data is not deflated") from None
        if done:
            self._end_message()
        return inflated

    def _inflate_blocks(self, data: bytes, room: int) -> bytes:
        inflated = bytearray()
        while data:
            # One byte more than there is room for shows that the message is too big.
            piece = self._inflater.decompress(data, room + 1 - len(inflated))
            inflated += piece
            if len(inflated) > room:
                raise ProtocolError(CloseCode.TOO_BIG, "the inflated message is too big")
            self._window = (self._window + piece)[-(1 << self._window_bits) :]
            data = self._inflater.unconsumed_tail
            if self._inflater.eof:
                data = self._inflater.unused_data
                self._continue_after_final_block()
        return bytes(inflated)

    def _continue_after_final_block(self) -> None:
        """7.2.3.4: a message may go on after a final block, and refer to what was before it."""
        self._final_blocks += 1
        if self._final_blocks > _MAX_FINAL_BLOCKS:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "the message has too many final blocks")
        self._inflater = zlib.decompressobj(-self._window_bits, zdict=self._window)

    def _end_message(self) -> None:
        self._has_begun = False
        self._final_blocks = 0
        if self._no_context_takeover:
            self._window = b""
            self._inflater = zlib.decompressobj(-self._window_bits)

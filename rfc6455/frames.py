"""Frames: read out of a stream of bytes, built, masked (RFC 6455, 5.1-5.3, 5.5, 7.4).

No socket and no thread here: `FrameParser` is fed whatever bytes have arrived, cut anywhere, and
gives back what can be known of them so far. Left out: joining fragments to messages, which is
done in `protocol.py`.
"""

import copy
import os
from enum import IntEnum
from typing import NamedTuple, Self

from .errors import ProtocolError, is_sendable


class Opcode(IntEnum):
    """What a frame is (5.2): from 0x8 on a control frame. 0x3-0x7 and 0xB-0xF are reserved."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """Why a connection was closed (7.4.1). NO_STATUS and ABNORMAL never travel in a frame."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    MISSING_EXTENSION = 1010
    INTERNAL_ERROR = 1011


MAX_CONTROL = 125  # bytes of payload in a control frame (5.5): its length fits the 7-bit field
# 5.2: a 7-bit length of 126 or 127 is followed by the real length: in so many bytes, and it must
# be at least so much.
_LONG_LENGTHS = {126: (2, 126), 127: (8, 65536)}
_KNOWN_OPCODES = frozenset(int(opcode) for opcode in Opcode)
_DATA_OPCODES = frozenset({1, 2})
_FIRST_CONTROL = int(Opcode.CLOSE)
_PIECE = 4096  # bytes; XOR of big integers is fastest in pure Python while they fit the cache


class Chunk(NamedTuple):
    """A frame, or as much of a data frame as has arrived; a control frame always comes whole."""

    opcode: int
    fin: bool  # the FIN bit of the frame: it is the last fragment of its message
    rsv1: bool  # the RSV1 bit of the frame: the message is compressed (RFC 7692, 6)
    first: bool  # the frame begins with this chunk
    last: bool  # the frame ends with this chunk
    payload: bytes  # unmasked


class FrameParser:
    """Cuts a stream of bytes into frames, and refuses a bad one as soon as its header is known.

    `masked` is what the peer has to do: clients mask, servers do not (5.1). `max_message` bounds
    the payload of all frames of one message together, in bytes. With `compressed` the first frame
    of a message may have RSV1 set (RFC 7692, 6). One thread at a time may use it.
    """

    def __init__(self, *, masked: bool, max_message: int, compressed: bool = False) -> None:
        self._masked = masked
        self._compressed = compressed
        self.max_message = max_message
        self._room = max_message  # bytes that the fragments of the current message may still have
        self._data = b""
        self._at = 0  # where the unread part of _data begins
        self._walked = 0  # how far `take_pings_and_pongs` has looked
        self._opcode = 0
        self._fin = False
        self._rsv1 = False
        self._key = b""
        self._in_frame = False
        self.missing = 0  # bytes of the current frame's payload that `parse` has not given out

    def feed(self, data: bytes) -> None:
        """Take bytes as they have arrived. What was not parsed before this is copied."""
        if self._at < len(self._data):
            data = self._data[self._at :] + data
        self._data = data
        self._walked = max(0, self._walked - self._at)
        self._at = 0

    def copy(self) -> Self:
        """Another parser that goes on from the same place, with the same bytes to parse."""
        return copy.copy(self)  # none of the attributes is changed in place

    def parse(self) -> Chunk | None:
        """The next chunk, or None until more bytes are fed. Raises ProtocolError."""
        first = not self._in_frame
        if first and not self._parse_header():
            return None
        control = self._opcode >= _FIRST_CONTROL
        at = self._at
        end = min(at + self.missing, len(self._data))
        missing = at + self.missing - end
        if missing and (control or not (first or end > at)):
            return None
        payload = self._data[at:end]
        if self._masked and payload:
            key = self._key
            if missing:  # 5.3: the next chunk goes on with the key where this one left it
                turn = len(payload) % 4
                self._key = key[turn:] + key[:turn]
            payload = mask(payload, key)
        self._at = end
        self.missing = missing
        self._in_frame = missing > 0
        return Chunk(self._opcode, self._fin, self._rsv1, first or control, not missing, payload)

    def next_header(self) -> bytes:
        """The header of the next frame with its masking key, as far as it has come.

        b"" within a frame. Nothing is checked, and nothing taken: this is for showing it.
        """
        if self._in_frame:
            return b""
        sizes = _measure(self._data, self._at)
        if sizes is None:
            return self._data[self._at :]
        header, _, _ = sizes
        return self._data[self._at : self._at + header]

    @property
    def unread(self) -> int:
        """Bytes that were fed and not parsed yet."""
        return len(self._data) - self._at

    def unread_bytes(self) -> bytes:
        """These bytes."""
        return self._data[self._at :]

    @property
    def is_within_frame(self) -> bool:
        """Whether a frame has begun that is not parsed to its end."""
        return self._in_frame or self._at < len(self._data)

    def is_control_next(self) -> bool:
        """Whether the next thing to parse is a control frame, as far as its first byte tells."""
        if self._in_frame:
            return self._opcode >= _FIRST_CONTROL
        return self._at < len(self._data) and self._data[self._at] & 0x0F >= _FIRST_CONTROL

    def take_pings_and_pongs(self) -> list[tuple[Opcode, bytes]]:
        """Take the whole Pings and Pongs out of what was fed, also from behind data frames.

        Returns the opcode and payload of each, in order. Everything else stays in its place, and
        no other payload is looked at: this walks from header to header, and stops at a Close, at
        a header that breaks a rule, or at a frame that has not arrived whole.
        """
        if self._in_frame and self._opcode >= _FIRST_CONTROL:
            return []  # the control frame whose header was parsed comes first
        data = self._data
        at = max(self._at + self.missing, self._walked)
        kept = []
        kept_from = 0
        taken = []
        while (sizes := _measure(data, at)) is not None and self._is_passable(at):
            header, length, _ = sizes
            end = at + header + length
            opcode = data[at] & 0x0F
            if opcode >= _FIRST_CONTROL:
                if end > len(data):
                    break
                payload = data[at + header : end]
                if self._masked:
                    payload = mask(payload, data[at + header - 4 : at + header])
                taken.append((Opcode(opcode), payload))
                kept.append(data[kept_from:at])
                kept_from = end
            at = end
        self._walked = at
        if kept:
            kept.append(data[kept_from:])
            self._data = b"".join(kept)
            self._walked -= len(data) - len(self._data)
        return taken

    def ends_with_a_frame(self) -> bool:
        """Whether the last frame that was fed has arrived whole, whatever else is wrong with it."""
        at = self._at + self.missing
        while (sizes := _measure(self._data, at)) is not None:
            header, length, _ = sizes
            at += header + length
        return at == len(self._data)

    def _is_passable(self, at: int) -> bool:
        """Whether the first two bytes of a frame are those of good data, a Ping or a Pong."""
        first, second = self._data[at : at + 2]
        if (second >= 0x80) != self._masked:
            return False
        opcode = first & 0x0F
        if opcode < _FIRST_CONTROL:
            may_be_compressed = self._compressed and opcode in _DATA_OPCODES
            rsv = first & (0x30 if may_be_compressed else 0x70)
            return opcode in _KNOWN_OPCODES and not rsv
        return first in (0x80 | Opcode.PING, 0x80 | Opcode.PONG) and second & 0x7F <= MAX_CONTROL

    def _parse_header(self) -> bool:
        """Take the next frame's header; False, and nothing is taken, while it is incomplete."""
        data = self._data
        at = self._at
        if len(data) - at < 2:
            return False
        # 1. FIN, RSV1-3 and opcode.
        fin = data[at] >= 0x80
        rsv = data[at] & 0x70
        opcode = data[at] & 0x0F
        starts_compressed = rsv == 0x40 and opcode in _DATA_OPCODES and self._compressed
        if rsv and not starts_compressed:  # 5.2: zero unless an extension gives them a meaning
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a reserved bit is set")
        if opcode not in _KNOWN_OPCODES:  # 5.2
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, f"opcode 0x{opcode:X} is reserved")
        # 2. The mask bit.
        if (data[at + 1] >= 0x80) != self._masked:  # 5.1: a client masks, a server does not
            wrong = "is not masked" if self._masked else "is masked"
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, f"the frame {wrong}")
        # 3. What holds for a control frame.
        control = opcode >= _FIRST_CONTROL
        if control and not fin:  # 5.5
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a control frame is fragmented")
        if control and data[at + 1] & 0x7F > MAX_CONTROL:  # 5.5
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a control frame is over 125 bytes")
        # 4. The payload's length.
        sizes = _measure(data, at)
        if sizes is None:
            return False
        header, length, least = sizes
        if not least <= length < 1 << 63:  # 5.2: the shortest form, the top bit zero
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "the length is badly encoded")
        room = self._room
        if starts_compressed:
            # Data that can't be compressed gets longer: by an eighth, where a compressor uses the
            # fixed codes of RFC 1951, 3.2.6. The limit itself is kept while inflating.
            room += 64 + (room >> 3)
        if not control and length > room:  # 10.4: refused before memory is taken for it
            too_big = f"the message is over {self.max_message} bytes"
            raise ProtocolError(CloseCode.TOO_BIG, too_big)
        # 5. The masking key.
        end = at + header
        if len(data) < end:
            return False
        self._key = data[end - 4 : end] if self._masked else b""
        # 6. The header is whole: from here on the frame is under way.
        if not control:
            self._room = self.max_message if fin else room - length
        self._opcode = opcode
        self._fin = fin
        self._rsv1 = starts_compressed
        self._at = end
        self.missing = length
        self._in_frame = True
        return True


def _measure(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Sizes of the frame that begins at this place; None until its length has arrived (5.2).

    Bytes of the header with its masking key, bytes of the payload, and how many bytes of payload
    this form of the length is meant for at least. It is a plain tuple because one is made for
    every frame.
    """
    if len(data) - at < 2:
        return None
    key = 4 if data[at + 1] >= 0x80 else 0
    length = data[at + 1] & 0x7F
    if length < 126:
        return 2 + key, length, 0
    size, least = _LONG_LENGTHS[length]
    if len(data) - at < 2 + size:
        return None
    length = int.from_bytes(data[at + 2 : at + 2 + size], "big")
    return 2 + size + key, length, least


def mask(data: bytes, key: bytes) -> bytes:
    """XOR byte i with key byte i mod 4 (5.3); masking twice gives the data back."""
    size = len(data)
    if size <= _PIECE:
        keys = (key * (size // 4 + 1))[:size]
        number = int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")
        return number.to_bytes(size, "little")
    keys_number = int.from_bytes(key * (_PIECE // 4), "little")
    pieces = [
        (int.from_bytes(data[i : i + _PIECE], "little") ^ keys_number).to_bytes(_PIECE, "little")
        for i in range(0, size - _PIECE + 1, _PIECE)
    ]
    pieces.append(mask(data[size - size % _PIECE :], key))
    return b"".join(pieces)


def build_frame(
    opcode: int, payload: bytes, *, masked: bool, fin: bool = True, rsv1: bool = False
) -> bytes:
    """One whole frame (5.2). `masked` on a client, with a new unpredictable key (5.3)."""
    first = (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode
    mask_bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        header = bytes((first, mask_bit | size))
    elif size < 65536:
        header = bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return header + payload
    key = os.urandom(4)
    return header + key + mask(payload, key)


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a received Close frame (5.5.1, 7.1.5, 7.1.6). Raises ProtocolError."""
    if not payload:
        return CloseCode.NO_STATUS, ""
    if len(payload) == 1:
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a Close frame has half a code")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, f"close code {code} is not allowed")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError(CloseCode.INVALID_DATA, "the close reason is not UTF-8") from None


def build_close(code: int | None, reason: str = "") -> bytes:
    """The payload of a Close frame; None means without a code. Raises ValueError (7.4)."""
    if code is None:
        if reason:
            raise ValueError("a close reason needs a code")
        return b""
    if not is_sendable(code):
        raise ValueError(f"close code {code} may not be sent")
    payload = code.to_bytes(2, "big") + reason.encode()
    if len(payload) > MAX_CONTROL:
        raise ValueError("a close reason has at most 123 bytes")
    return payload

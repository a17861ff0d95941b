"""Frames by their headers alone, and what strangers are known to stumble over in them.

This shares no code with the layer.
"""

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from fuzzing.outcomes import DEFLATE_TAIL, MAX_MESSAGE, NEVER, Oddities
from peers import xor
from rfc6455 import Deflate


class RawFrame(NamedTuple):
    """A frame as it was sent, whether or not it keeps to the rules."""

    first: int  # the byte with FIN, RSV1-3 and the opcode
    is_masked: bool
    size: int  # of the whole payload, in bytes
    payload: bytes  # unmasked, as much of it as has come

    @property
    def is_control(self) -> bool:
        return bool(self.first & 0x08)

    @property
    def is_whole(self) -> bool:
        return len(self.payload) == self.size


def frames_in(data: bytes) -> Iterator[RawFrame]:
    """The frames of a stream, up to a header that has not all come."""
    at = 0
    while len(data) - at >= 2:
        first = data[at]
        is_masked = data[at + 1] >= 0x80
        size = data[at + 1] & 0x7F
        at += 2
        if size > 125:
            length = 2 if size == 126 else 8
            size = int.from_bytes(data[at : at + length], "big")
            at += length
        key = bytes(4)
        if is_masked:
            key = data[at : at + 4]
            at += 4
        if at > len(data):
            return
        yield RawFrame(first, is_masked, size, xor(data[at : at + size], key))
        at += size


def pings_in(role: str, data: bytes) -> list[bytes]:
    """The payloads of the Pings to an endpoint in this role, up to a Close or a bad control frame.

    Data frames are passed over, however bad they are, if they are masked as they have to be.
    """
    pings = []
    for frame in frames_in(data):
        if frame.is_masked != (role == "server"):
            break
        if frame.is_control and (frame.first not in (0x89, 0x8A) or frame.size > 125):
            break
        if frame.first == 0x89 and frame.is_whole:
            pings.append(frame.payload)
    return pings


def find_oddities(role: str, agreed: Deflate | None, data: bytes) -> Oddities:
    """The oddities of a stream. `data` ends where our layer has stopped reading it."""
    walker = Walker(role, agreed or Deflate())
    for frame in frames_in(data):
        if not walker.take(frame):
            break
    return walker.result()


class Walker:
    """Follows a stream frame by frame, and notes where something odd comes first."""

    def __init__(self, role: str, agreed: Deflate) -> None:
        if role == "client":
            self._window_bits = agreed.server_max_window_bits
            self._no_context_takeover = agreed.server_no_context_takeover
        else:
            self._window_bits = agreed.client_max_window_bits
            self._no_context_takeover = agreed.client_no_context_takeover
        self._inflater: Any = zlib.decompressobj(-self._window_bits)
        self._is_inside = False  # a message
        self._is_compressed = False
        self._size = 0  # bytes of the message so far
        self._events = 0  # messages, Pings and Pongs so far
        self._first = {"final_block_at": NEVER, "no_byte_at": NEVER, "control_inside_at": NEVER}

    def result(self) -> Oddities:
        return Oddities(**self._first, is_inside=self._is_inside)

    def take(self, frame: RawFrame) -> bool:
        """Whether something may follow this frame."""
        if frame.is_control:
            return self._take_control(frame)
        return self._take_data(frame)

    def _take_control(self, frame: RawFrame) -> bool:
        if frame.first not in (0x89, 0x8A) or not frame.is_whole:
            return False
        if self._is_inside and self._is_compressed:
            self._note("control_inside_at")
        self._events += 1
        return True

    def _take_data(self, frame: RawFrame) -> bool:
        starts = frame.first & 0x0F != 0x00
        if starts == self._is_inside:
            return False
        if starts:
            self._is_compressed = bool(frame.first & 0x40)
            self._size = 0
        is_done = frame.first >= 0x80 and frame.is_whole
        if self._is_compressed:
            self._inflate(frame.payload, is_done)
        self._is_inside = not is_done
        self._events += is_done
        return frame.is_whole

    def _inflate(self, payload: bytes, is_done: bool) -> None:
        self._size += len(payload)
        if is_done and self._size == 0:
            self._note("no_byte_at")
        with contextlib.suppress(zlib.error):
            self._inflater.decompress(payload + (DEFLATE_TAIL if is_done else b""), MAX_MESSAGE)
        if self._inflater.eof:
            self._note("final_block_at")
        if is_done and self._no_context_takeover:
            self._inflater = zlib.decompressobj(-self._window_bits)

    def _note(self, oddity: str) -> None:
        self._first[oddity] = min(self._first[oddity], self._events)

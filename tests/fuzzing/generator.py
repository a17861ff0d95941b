"""Random inputs: streams of frames and heads of opening handshakes, whole or damaged.

Everything is drawn from a `random.Random`, so that the same seed makes the same input again.
"""

import random
import zlib
from collections.abc import Sequence
from typing import Any

from fuzzing.outcomes import (
    DEFLATE_TAIL,
    MAX_MESSAGE,
    OPEN,
    End,
    Event,
    Input,
    Outcome,
    as_bytes,
    message_event,
)
from peers import ACCEPT, KEY, close_payload, masked, unmasked
from rfc6455 import Deflate

ROLES = ("server", "client")
AGREEMENTS = (
    None,
    None,
    Deflate(True, False, 15, 15),
    Deflate(True, True, 15, 15),
    Deflate(False, False, 15, 15),
    Deflate(False, True, 9, 10),
    Deflate(True, False, 10, 9, threshold=1),
)
# Characters or bytes of a message, or threes of bytes. The large ones come near MAX_MESSAGE.
SIZES = (0, 1, 2, 5, 9, 20, 40, 125, 126, 127, 300)
LARGE_SIZES = (1365, 1366, 2000, 4096)
CHARACTERS = "aaab \x00\xe9\u20ac\ufeff\uffff\U0001f642\U0010ffff"  # one to four bytes in UTF-8
CLOSE_CODES = (1000, 1001, 1003, 1007, 1011, 1013, 3000, 4999)


# Streams of frames


def random_input(
    r: random.Random,
    agreements: Sequence[Deflate | None] = AGREEMENTS,
    roles: Sequence[str] = ROLES,
) -> Input:
    """Random bytes, a good stream or a damaged one, cut into pieces."""
    role = r.choice(roles)
    agreed = r.choice(agreements)
    if r.random() < 0.1:
        return Input(role, agreed, cut(r.randbytes(r.randrange(60)), r))
    messages = [random_message(r) for _ in range(r.choice((0, 1, 1, 2, 3, 6)))]
    frames, expected = good_frames(messages, role, agreed, r)
    if r.random() < 0.3:
        return Input(role, agreed, cut(b"".join(frames), r), expected)
    return Input(role, agreed, cut(damage(frames, r), r))


def random_message(r: random.Random) -> str | bytes:
    size = r.choice(LARGE_SIZES if r.random() < 0.03 else SIZES)
    if r.random() < 0.5:
        return "".join(r.choices(CHARACTERS, k=size))
    if r.random() < 0.5:
        return r.randbytes(size)
    return r.randbytes(3) * size


def good_frames(
    messages: Sequence[str | bytes], role: str, agreed: Deflate | None, r: random.Random
) -> tuple[list[bytes], Outcome | None]:
    """The messages in frames, with control frames between and perhaps a Close; what they mean.

    What they mean is None where a message is too big, so that our layer refuses it.
    """
    sender = Sender(role, agreed, r)
    for message in messages:
        sender.send_message(message)
    end = OPEN if r.random() < 0.5 else sender.send_close()
    return sender.frames, None if sender.is_too_big else Outcome(sender.events, end)


class Sender:
    """A peer that keeps to the rules: the frames it has sent, and the events that they mean."""

    def __init__(self, role: str, agreed: Deflate | None, r: random.Random) -> None:
        """`role` is the receiver's: a server is sent masked frames."""
        self.frames: list[bytes] = []
        self.events: list[Event] = []
        # Whether a message is over MAX_MESSAGE, before or after it is deflated: a poor compressor
        # makes random data longer, and our layer refuses by the length in the header (10.4).
        self.is_too_big = False
        self._role = role
        self._random = r
        self._deflater = Deflater(role, agreed) if agreed else None

    def send_message(self, message: str | bytes) -> None:
        r = self._random
        first = 0x01 if isinstance(message, str) else 0x02
        payload = as_bytes(message)
        size = len(payload)
        if self._deflater and r.random() < 0.7:
            first |= 0x40
            payload = self._deflater.compress(payload, r)
        self.is_too_big = self.is_too_big or max(size, len(payload)) > MAX_MESSAGE
        fragments = cut(payload, r, many=5)
        for fragment in fragments[:-1]:
            self._send(first, fragment)
            self._perhaps_send_control()
            first = 0x00
        self._send(first | 0x80, fragments[-1])
        self.events.append(message_event(message))
        self._perhaps_send_control()

    def send_close(self) -> End:
        r = self._random
        code = 1005  # without a code
        reason = ""
        if r.random() < 0.7:
            code = r.choice(CLOSE_CODES)
            reason = "".join(r.choices("bye\u20ac", k=r.choice((0, 3, 41))))
        self._send(0x88, b"" if code == 1005 else close_payload(code, reason))
        if r.random() < 0.3:  # 5.5.1: what follows a Close is not looked at
            self._send(r.choice((0x81, 0x89, 0x88, 0xFF)), r.randbytes(3))
        return End("closed", code, reason)

    def _perhaps_send_control(self) -> None:
        r = self._random
        if r.random() < 0.2:
            first, kind = r.choice(((0x89, "ping"), (0x8A, "pong")))
            payload = r.randbytes(r.choice((0, 1, 5, 125)))
            self._send(first, payload)
            self.events.append(Event(kind, payload if kind == "ping" else b""))

    def _send(self, first: int, payload: bytes) -> None:
        self.frames.append(frame_to(self._role, first, payload, self._random))


def frame_to(role: str, first: int, payload: bytes, r: random.Random) -> bytes:
    """A frame to an endpoint in this role, with this first byte."""
    if role == "client":
        return unmasked(first, payload)
    return masked(first, payload, r.randbytes(4))


class Deflater:
    """A peer's compressor. It uses all that RFC 7692 allows, such as blocks of earlier messages."""

    def __init__(self, role: str, agreed: Deflate) -> None:
        """`role` is the receiver's: a server is sent what the client's parameters allow."""
        if role == "client":
            self._no_context_takeover = agreed.server_no_context_takeover
            self._window_bits = agreed.server_max_window_bits
        else:
            self._no_context_takeover = agreed.client_no_context_takeover
            self._window_bits = agreed.client_max_window_bits
        self._compressor: Any = None

    def compress(self, payload: bytes, r: random.Random) -> bytes:
        if self._compressor is None:
            self._compressor = random_compressor(self._window_bits, r)
        data: bytes = b""
        if r.random() < 0.3:  # in several blocks
            at = r.randint(0, len(payload))
            data = self._compressor.compress(payload[:at])
            data += self._compressor.flush(r.choice((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)))
            payload = payload[at:]
        data += self._compressor.compress(payload)
        if r.random() < 0.03:  # RFC 7692, 7.2.3.4: a block with BFINAL
            data += self._compressor.flush(zlib.Z_FINISH) + b"\x00"
            self._compressor = None
            return data
        data += self._compressor.flush(zlib.Z_SYNC_FLUSH)
        if self._no_context_takeover:
            self._compressor = None
        return data.removesuffix(DEFLATE_TAIL) or b"\x00"


def random_compressor(window_bits: int, r: random.Random) -> Any:
    level = r.choice((0, 1, 6, 9))
    strategy = r.choice((zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_FIXED))
    return zlib.compressobj(level, zlib.DEFLATED, -window_bits, 8, strategy)


def cut(data: bytes, r: random.Random, many: int = 30) -> list[bytes]:
    """The data in one or more pieces, some of them empty; at most `many` + 1."""
    cuts = sorted(r.randint(0, len(data)) for _ in range(r.choice((0, 0, 1, 2, many))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def damage(frames: list[bytes], r: random.Random) -> bytes:
    """The frames with one of them spoilt, a few bits flipped, and perhaps some bytes inserted."""
    frames = list(frames) or [b"\x88\x00"]
    at = r.randrange(len(frames))
    match r.randrange(8):  # 6 and 7: the frames stay whole
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
PLAIN_RESPONSE = RESPONSE[:4]  # without a subprotocol and an extension
SCRAPS = [
    b"permessage-deflate", b"server_max_window_bits", b"client_max_window_bits", b"foo", b"10",
    b"server_no_context_takeover", b"client_no_context_takeover", b"08", b'"', b"\\", b";", b"; ",
    b",", b", ", b"=", b" ", b"\t", b"websocket", b"Upgrade", b"chat", b":", b"\r\n", b"\n", b"\r",
    b"\x00", b"\xe9", b"\xff\xfe", b"\xe2\x84\xaa", b"13", b"http://", b"//", b"%00", b"[::1]",
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"HTTP/0.9", b"HTTP/2.0", b"-1", b"9" * 20,
]  # fmt: skip


def random_head(lines: Sequence[bytes], r: random.Random) -> bytes:
    """A head of these lines, damaged here and there."""
    lines = list(lines)
    for _ in range(r.choice((0, 1, 1, 2, 3))):
        damage_line(lines, r)
        lines = lines or [b""]
    return head_of(lines)


def damage_line(lines: list[bytes], r: random.Random) -> None:
    at = r.randrange(len(lines))
    line = lines[at]
    middle = r.randint(0, len(line))
    scraps = b"".join(r.choices(SCRAPS, k=r.choice((1, 1, 2, 8))))
    match r.randrange(7):
        case 0:
            del lines[at]
        case 1:
            lines.insert(r.randint(0, len(lines)), line)
        case 2:
            lines[at] = line[:middle] + scraps + line[middle:]
        case 3:
            lines[at] = line.partition(b":")[0] + b": " + scraps
        case 4:
            random_bytes = r.randbytes(r.randrange(9))
            lines[at] = line[:middle] + random_bytes + line[middle + r.randrange(9) :]
        case 5:
            lines[at] = line.swapcase()
        case 6:
            lines[at] = line[:middle] + line[middle:] * r.choice((2, 50))


def head_of(lines: Sequence[bytes]) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"

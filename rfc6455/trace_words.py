"""A line of text for each thing that `trace` shows: every field of a frame, in words (5.2).

A peer's text is escaped, so that it can't act on the terminal. With `colour` the lines have the
escape sequences of ANSI terminals (ECMA-48, 8.3.117) for colours.
"""

import os
from typing import TextIO

from .errors import ProtocolError
from .frames import CloseCode, Opcode, parse_close
from .handshake import printable
from .trace import Frame, HandshakeLine, Traced

SHOWN_BYTES = 16  # of a payload
SHOWN_CHARACTERS = 60  # of a text
_LENGTH_BITS = {0: 7, 2: 16, 8: 64}  # by the bytes of the extended payload length
_RECEIVED = "36"  # cyan, of the colours that are legible on black and on white
_SENT = "32"  # green
_HEADER = "1"  # bold
_BROKEN = "31"  # red


def wants_colour(stream: TextIO | None) -> bool:
    """Whether lines for this stream should have colours: it is a terminal, and nothing forbids it.

    The environment variable NO_COLOR forbids it if it is set and not empty (no-color.org). The
    stream is None where the program was started without it, as sys.stderr then is.
    """
    return (
        stream is not None
        and stream.isatty()
        and os.environ.get("TERM") != "dumb"
        and not os.environ.get("NO_COLOR")
    )


def describe(traced: Traced, *, colour: bool = False) -> str:
    """One line, without a line end."""
    direction = _paint("sent    ", _SENT, colour) if traced.sent else ""
    direction = direction or _paint("received", _RECEIVED, colour)
    if isinstance(traced, HandshakeLine):
        words = printable(traced.text)
    else:
        words = describe_frame(traced, colour=colour)
    return f"{printable(traced.peer)} {direction} {words}".rstrip()


def describe_frame(frame: Frame, *, colour: bool) -> str:
    """The frame's header as bytes, and then all fields in the order of 5.2."""
    header = _paint(frame.header.hex(" "), _HEADER, colour)
    fields = [f"FIN {frame.fin:d}", f"RSV {frame.rsv:03b}", f"opcode {_name(frame.opcode)}"]
    if len(frame.header) > 1:
        fields.append(f"MASK {frame.is_masked:d}")
    if frame.has_length:
        bits = _LENGTH_BITS[len(frame.extended_length)]
        fields.append(f"length {frame.length} in {bits} bits")
    if frame.masking_key:
        fields.append(f"masking key {frame.masking_key.hex(' ')}")
        if frame.payload:
            fields.append(f"masked payload {_hex(frame.wire_payload, frame.length)}")
    if frame.payload:
        fields.append(f"payload {_hex(frame.payload, frame.length)}")
    fields += _describe_content(frame)
    if frame.missing:
        fields.append(f"{frame.missing} bytes are missing")
    if frame.error:
        fields.append(_paint(f"broken: {printable(frame.error)}", _BROKEN, colour))
    return f"{header}  {', '.join(fields)}"


def _describe_content(frame: Frame) -> list[str]:
    """What the payload means."""
    if frame.opcode == Opcode.CLOSE and not frame.error:
        return [_describe_close(frame.payload)]
    if frame.inflated is not None:
        length = frame.inflated_length
        inflated = f"inflated to {length} bytes"
        if length:
            inflated += f" {_hex(frame.inflated, length)}"
        if frame.is_text:
            inflated += f" {_quote(frame.inflated, length)}"
        return [inflated]
    if frame.is_text and frame.payload:
        return [f"text {_quote(frame.payload, frame.length)}"]
    return []


def _describe_close(payload: bytes) -> str:
    try:
        code, reason = parse_close(payload)
    except ProtocolError as error:
        return error.reason
    if code == CloseCode.NO_STATUS:
        return "no code"
    words = f"code {describe_close_code(code)}"
    return f'{words}, reason "{printable(reason)}"' if reason else words


def describe_close_code(code: int) -> str:
    """The number, and the name if it has one (7.4.1)."""
    return f"{code} {CloseCode(code).name}" if code in list(CloseCode) else str(code)


def _name(opcode: int) -> str:
    """The number, and the name if it has one."""
    name = Opcode(opcode).name if opcode in list(Opcode) else "reserved"
    return f"0x{opcode:X} {name}"


def _hex(data: bytes, length: int) -> str:
    """The first bytes of so many."""
    shown = data[:SHOWN_BYTES].hex(" ")
    left_out = length - min(len(data), SHOWN_BYTES)
    return f"{shown} … {left_out} more" if left_out else shown


def _quote(data: bytes, length: int) -> str:
    """The first characters of a text, of which `data` are the first of so many bytes."""
    text = data.decode(errors="replace")
    cut = text[:SHOWN_CHARACTERS]
    is_whole = len(data) == length and cut == text
    return f'"{printable(cut)}"' if is_whole else f'"{printable(cut)}…"'


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text

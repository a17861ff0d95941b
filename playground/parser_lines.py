"""The lines of the layer's parser that read each field of a frame (RFC 6455, 5.2), as a page.

The echo server's page draws frames. For each field it shows the code that has read it, in the
program that is running: `inspect` takes it from there. `parser_lines` returns the page.
"""

import functools
import inspect
import json
import logging
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from rfc6455 import PageText, WebSocketServer, deflate, frames

log = logging.getLogger("playground")

PARSER_LINES = "/parser-lines.json"  # the path of the page
_ROOT = Path(__file__).parent.parent


class Passage(NamedTuple):
    """Lines of a function, and among them those that read one field."""

    function: str  # its name in the module
    read_by: tuple[str, ...]  # each stands in one of the lines
    begin: str = ""  # stands in the first line; "" for the function's first
    end: str = ""  # stands in a later line, behind the last one; "" for the function's end
    module: Any = frames


_HEADER = "FrameParser._parse_header"  # its steps are numbered: "# 1. ", "# 2. ", …
_STEP_1 = Passage(_HEADER, (), "# 1. ", "# 2. ")
_MEASURE = Passage("_measure", (), "key = 4")
_PARSE = Passage("FrameParser.parse", (), "payload = self._data", "self._at = end")
_CLOSE = Passage("parse_close", (), "if not payload")

FIELDS = {
    "fin": [
        _STEP_1._replace(read_by=("fin = ",)),
        Passage(_HEADER, ("if control and not fin", "is fragmented"), "# 3. ", "# 4. "),
    ],
    "rsv": [_STEP_1._replace(read_by=("rsv = ", "starts_compressed = ", "if rsv", "reserved bit"))],
    "opcode": [_STEP_1._replace(read_by=("opcode = ", "if opcode", "is reserved"))],
    "mask": [Passage(_HEADER, ("if (data[at + 1]", "wrong =", "raise"), "# 2. ", "# 3. ")],
    "length": [
        _MEASURE._replace(read_by=("length = data[at + 1]", "if length < 126", "return 2 + key")),
        Passage(_HEADER, ("data[at + 1] & 0x7F", "over 125"), "# 3. ", "# 4. "),
    ],
    "extended_length": [
        _MEASURE._replace(read_by=("size, least =", "length = int.from_bytes")),
        Passage(_HEADER, ("if not least", "badly encoded"), "# 4. ", "room = self"),
    ],
    "masking_key": [
        Passage(_HEADER, ("self._key = ",), "# 5. ", "# 6. "),
        _MEASURE._replace(read_by=("key = 4",)),
    ],
    "payload": [_PARSE._replace(read_by=("payload = self._data",))],
    "unmasked": [
        _PARSE._replace(read_by=("key = self._key", "payload = mask")),
        Passage("mask", ("keys = ", "number = ", "return number"), end="keys_number"),
    ],
    "close_code": [
        _CLOSE._replace(read_by=("if not payload", "return CloseCode", "code = int", "if not is_s"))
    ],
    "close_reason": [_CLOSE._replace(read_by=("return code",))],
    "inflated": [
        Passage("Inflater.inflate", ("_TAIL", "self._inflate_"), "if done", "if done", deflate),
        Passage("Inflater._inflate_blocks", ("decompress(",), "while", "self._window", deflate),
    ],
}


def parser_lines() -> Callable[[WebSocketServer], PageText]:
    """The page, for `pages` of a WebSocketServer: for each field the passages that read it.

    They are read now, because the files may be changed while the program runs. Whoever has changed
    the parser before that can run it all the same: what is not found any more is left out.
    """
    found = {field: find_passages(field) for field in FIELDS}
    answer = PageText(json.dumps(found), "application/json")
    return lambda server: answer


def find_passages(field: str) -> list[dict[str, Any]]:
    """The passages that read a field; none, and a line in the log, if one is not found."""
    try:
        return [quote(each) for each in FIELDS[field]]
    except (ValueError, AttributeError, OSError) as error:
        log.warning("the page cannot show the code that reads the field %s: %s", field, error)
        return []


def quote(passage: Passage) -> dict[str, Any]:
    """A passage with its file, the number of its first line, its lines, and those that read.

    Raises ValueError where the function has changed, and a text of the passage is not found.
    """
    lines, first = source(passage.module, passage.function)
    begin = find(lines, passage.begin) if passage.begin else 0
    end = find(lines, passage.end, begin + 1) if passage.end else len(lines)
    quoted = lines[begin:end]
    reading = {find(quoted, text) for text in passage.read_by}
    return {
        "file": Path(passage.module.__file__).relative_to(_ROOT).as_posix(),
        "function": passage.function,
        "first": first + begin,
        "lines": quoted,
        "reading": sorted(first + begin + index for index in reading),
    }


@functools.cache
def source(module: Any, function: str) -> tuple[list[str], int]:
    """The lines of a function, without their line ends, and the number of the first in its file."""
    lines, first = inspect.getsourcelines(attrgetter(function)(module))
    return [line.rstrip("\n") for line in lines], first


def find(lines: list[str], text: str, begin: int = 0) -> int:
    """The index of the first line that has this text, from `begin` on."""
    for index in range(begin, len(lines)):
        if text in lines[index]:
            return index
    raise ValueError(f"no line has {text!r}")

"""The page that says which lines of the layer read each field of a frame (5.2)."""

import json
import urllib.request
from typing import Any

import pytest

from peers import PATIENCE, echo_messages, serving
from playground.parser_lines import FIELDS, PARSER_LINES, Passage, parser_lines, quote
from programs import ROOT, echo

# What the marked lines of each field are, as they stand in the files, without their comments.
READ_BY = {
    "fin": [
        "fin = data[at] >= 0x80",
        "if control and not fin:",
        'raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a control frame is fragmented")',
    ],
    "rsv": [
        "rsv = data[at] & 0x70",
        "starts_compressed = rsv == 0x40 and opcode in _DATA_OPCODES and self._compressed",
        "if rsv and not starts_compressed:",
        'raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a reserved bit is set")',
    ],
    "opcode": [
        "opcode = data[at] & 0x0F",
        "if opcode not in _KNOWN_OPCODES:",
        'raise ProtocolError(CloseCode.PROTOCOL_ERROR, f"opcode 0x{opcode:X} is reserved")',
    ],
    "mask": [
        "if (data[at + 1] >= 0x80) != self._masked:",
        'wrong = "is not masked" if self._masked else "is masked"',
        'raise ProtocolError(CloseCode.PROTOCOL_ERROR, f"the frame {wrong}")',
    ],
    "length": [
        "length = data[at + 1] & 0x7F",
        "if length < 126:",
        "return 2 + key, length, 0",
        "if control and data[at + 1] & 0x7F > MAX_CONTROL:",
        'raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a control frame is over 125 bytes")',
    ],
    "extended_length": [
        "size, least = _LONG_LENGTHS[length]",
        'length = int.from_bytes(data[at + 2 : at + 2 + size], "big")',
        "if not least <= length < 1 << 63:",
        'raise ProtocolError(CloseCode.PROTOCOL_ERROR, "the length is badly encoded")',
    ],
    "masking_key": [
        'self._key = data[end - 4 : end] if self._masked else b""',
        "key = 4 if data[at + 1] >= 0x80 else 0",
    ],
    "payload": ["payload = self._data[at:end]"],
    "unmasked": [
        "key = self._key",
        "payload = mask(payload, key)",
        "keys = (key * (size // 4 + 1))[:size]",
        'number = int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")',
        'return number.to_bytes(size, "little")',
    ],
    "close_code": [
        "if not payload:",
        'return CloseCode.NO_STATUS, ""',
        'code = int.from_bytes(payload[:2], "big")',
        "if not is_sendable(code):",
    ],
    "close_reason": ["return code, payload[2:].decode()"],
    "inflated": [
        "data += _TAIL",
        "inflated = self._inflate_blocks(data, room)",
        "piece = self._inflater.decompress(data, room + 1 - len(inflated))",
    ],
}


def line(passage: dict[str, Any], number: int) -> str:
    text = passage["lines"][number - passage["first"]]
    assert isinstance(text, str)
    return text.partition("  #")[0].strip()


def test_each_field_has_the_lines_that_read_it() -> None:
    assert list(FIELDS) == list(READ_BY)
    for field, passages in FIELDS.items():
        quoted = [quote(each) for each in passages]
        assert [line(each, n) for each in quoted for n in each["reading"]] == READ_BY[field]


def test_numbers_of_the_lines_are_those_of_the_files() -> None:
    for passage in (quote(each) for passages in FIELDS.values() for each in passages):
        lines = (ROOT / passage["file"]).read_text(encoding="utf-8").splitlines()
        begin = passage["first"] - 1
        assert lines[begin : begin + len(passage["lines"])] == passage["lines"]


def test_passage_is_short_enough_to_be_seen_at_once() -> None:
    for passages in FIELDS.values():
        assert all(len(quote(each)["lines"]) <= 15 for each in passages)


def test_passage_that_is_not_found_any_more_is_an_error() -> None:
    with pytest.raises(ValueError, match="no line has 'gone'"):
        quote(Passage("mask", ("gone",)))


def test_server_of_whoever_has_changed_the_parser_leaves_out_what_is_not_found(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(FIELDS, "fin", [Passage("mask", ("gone",))])
    monkeypatch.setitem(FIELDS, "rsv", [Passage("no_such_function", ())])
    with serving(echo_messages) as server:
        found = json.loads(parser_lines()(server).text)
    assert found["fin"] == found["rsv"] == []
    assert found["opcode"] == [quote(each) for each in FIELDS["opcode"]]
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        "the page cannot show the code that reads the field fin",
        "the page cannot show the code that reads the field rsv",
    ]


def test_echo_server_has_the_page() -> None:
    with echo() as server:
        with urllib.request.urlopen(server.url + PARSER_LINES, timeout=PATIENCE) as answer:
            assert answer.headers["Content-Type"].startswith("application/json")
            found = json.load(answer)
    assert found == {
        field: [quote(each) for each in passages] for field, passages in FIELDS.items()
    }

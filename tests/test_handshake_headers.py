"""Header lines, and the Sec-WebSocket-Extensions header, on either side (RFC 6455, 4.3, 9.1)."""

import subprocess
import sys

import pytest

from heads import extensions
from peers import PATIENCE
from programs import ROOT
from rfc6455 import InvalidHandshake, handshake

# Text that is shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9 \u4f60\u597d \U0001f642\tend", "caf\u00e9 \u4f60\u597d \U0001f642\tend"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\r\nlines", "two\\r\\nlines"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("\u2028 \u2029", "\\u2028 \\u2029"),
        ("half \ud83e", "half \\ud83e"),
    ],
)
def test_text_of_a_peer_is_shown_without_what_a_terminal_obeys(text: str, shown: str) -> None:
    assert handshake.printable(text) == shown


# Lines


@pytest.mark.requirement("4.2.1-1", "4.1-22")
@pytest.mark.parametrize(
    "line",
    [b"X: y\r\n", b"X:y\r\n", b"X:\r\n", b"X: \t y \r\n", b"X: \xe9: z\r\n", b"X-1_~: y\r\n"],
)
def test_well_formed_header_line_is_accepted(line: bytes) -> None:
    handshake.check_header_line(line)


@pytest.mark.requirement("4.2.1-1", "4.1-22")
@pytest.mark.parametrize(
    "line",
    [
        b"X: y\n",
        b"X: y\r",
        b"X: y",
        b"X: a\rb\r\n",
        b"X: a\nb\r\n",
        b"X: a\0b\r\n",
        b"X: y\r\r\n",
        b"X\r\n",
        b": y\r\n",
        b"X : y\r\n",
        b"X\t: y\r\n",
        b" X: y\r\n",
        b"\tfolded\r\n",
        b"X Y: z\r\n",
        b"\xe9: y\r\n",
        b"(X): y\r\n",
        b"X: y\r\nY: z\r\n",
    ],
)
def test_malformed_header_line_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_header_line(line)
    assert refusal.value.status == 400


# Extensions


@pytest.mark.requirement("9.1-3", "9.1-4", "9.1-5", "4.3-1")
@pytest.mark.parametrize(
    ("values", "parsed"),
    [
        ([], []),
        (["foo"], [("foo", [])]),
        (["foo, bar"], [("foo", []), ("bar", [])]),
        (["foo,,bar ,"], [("foo", []), ("bar", [])]),
        (["foo", "permessage-deflate"], [("foo", []), ("permessage-deflate", [])]),
        (["a, b", "c"], [("a", []), ("b", []), ("c", [])]),
        (["foo, foo"], [("foo", []), ("foo", [])]),
        (["foo; a"], [("foo", [("a", None)])]),
        (["x-foo; a=1; b"], [("x-foo", [("a", "1"), ("b", None)])]),
        (["foo;a=1;a=2"], [("foo", [("a", "1"), ("a", "2")])]),
        (["foo\t;  a = 1 ; b ,bar"], [("foo", [("a", "1"), ("b", None)]), ("bar", [])]),
        (['foo; a="10"'], [("foo", [("a", "10")])]),
        (['foo; a="\\1\\0"'], [("foo", [("a", "10")])]),
        (['foo; a="10"; b="x", bar'], [("foo", [("a", "10"), ("b", "x")]), ("bar", [])]),
    ],
)
def test_extensions_are_read_in_order(values: list[str], parsed: list[handshake.Extension]) -> None:
    assert extensions(*values) == parsed


MALFORMED_EXTENSIONS = [
    "",
    ",",
    ";x",
    "foo;",
    "foo; =1",
    "foo; a=",
    "foo bar",
    'foo; a="b',
    'foo; a=b"',
    'foo; a="1 0"',
    'foo; a="1,0"',
    'foo; a="1\\ 0"',
    'foo; a="1\\',
    'foo; a=""',
    'foo; "a"=b',
    '"foo"',
    "foo; a=b c",
    "foo; a b",
    "foo; a==b",
    "foo;; a",
    "foo=1",
    "foo/1",
    "caf\u00e9",
    "foo; a=\u00e9",
    "good, foo;",
    "foo;, good",
]


@pytest.mark.requirement("9.1-1", "9.1-2", "9.1-3")
@pytest.mark.parametrize("value", MALFORMED_EXTENSIONS)
def test_malformed_extensions_are_refused(value: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        extensions(value)
    assert refusal.value.status == 400


@pytest.mark.requirement("9.1-1", "9.1-4")
@pytest.mark.parametrize("values", [["foo", "bar;"], ["foo;", "bar"]])
def test_malformed_extensions_are_refused_in_any_of_several_lines(values: list[str]) -> None:
    with pytest.raises(InvalidHandshake):
        extensions(*values)


@pytest.mark.requirement("9.1-1", "9.1-2")
def test_long_malformed_extensions_are_refused_in_little_time() -> None:
    program = r"""
from email.message import Message
from rfc6455 import InvalidHandshake, handshake
from rfc6455.handshake import Authority, Origin, Response

for value in [
    "foo" + ";a " * 3000 + "!",
    "foo" + " ;a" * 3000 + '"',
    "foo" + " ; a = 1 " * 1500 + '"',
    'foo;a="' + "\\\\a" * 5000,
    "foo" + " " * 15000 + "!",
]:
    headers = Message()
    headers["Sec-WebSocket-Extensions"] = value
    try:
        handshake.parse_extensions(headers)
    except InvalidHandshake:
        print("refused")
"""
    run = [sys.executable, "-c", program]
    output = subprocess.check_output(run, cwd=ROOT, text=True, timeout=PATIENCE)
    assert output == "refused\n" * 5

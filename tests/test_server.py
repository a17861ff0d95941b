"""The server's opening handshake, its HTTP, TLS, limits and end, over loopback.

RFC 6455, 4.2-4.4, 9.1, 10.2, 10.6, 11.3. The peers are bare sockets.
"""

import contextlib
import logging
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import pytest

import rfc6455.server
from peers import (
    ACCEPT,
    PATIENCE,
    Peer,
    answer_to,
    close_payload,
    echo,
    eventually,
    has_ipv6,
    masked,
    request,
    serving,
    shake_hands,
    tcp,
)
from rfc6455 import (
    Deflate,
    InvalidHandshake,
    Refused,
    Timeouts,
    WebSocket,
    WebSocketServer,
    handshake,
)
from rfc6455.connection import Handshake
from tls import Certificate, Tunnel, through

PROJECT = Path(__file__).parent.parent

GOOD = (
    b"GET / HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # a masked text frame: RFC 6455, 5.7
HELLO_BACK = bytes.fromhex("810548656c6c6f")

# The first bytes that openssl s_client sends, up to its random numbers; with no LF among them.
CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(range(0x40, 0xC0)) * 3


@pytest.fixture(autouse=True)
def nothing_unforeseen_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No peer can make the layer log an error: that is for our own mistakes and the machine's."""
    yield
    eventually(lambda: not any("process_request" in each.name for each in threading.enumerate()))
    assert [
        record for record in caplog.get_records("call") if record.levelno >= logging.ERROR
    ] == []


class Answer(NamedTuple):
    status: int
    headers: Message
    body: str


def fetch(server: WebSocketServer, target: str, method: str = "GET", *more: str) -> Answer:
    """The answer to a plain HTTP request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *more]
    return parse(answer_to(server, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))[1])


def parse(text: str) -> Answer:
    """Read an answer strictly: lines end in CRLF and are a name, a colon, and a value."""
    head, end, body = text.partition("\r\n\r\n")
    status_line, *lines = head.split("\r\n")
    found = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) [ -~]*", status_line)
    assert found, text
    assert end, text
    assert all(re.fullmatch(r"[A-Za-z-]+: [!-~]([ -~]*[!-~])?", line) for line in lines), lines
    return Answer(int(found[1]), message_from_string("\n".join(lines) + "\n\n"), body)


def assert_refused(data: bytes, *statuses: int, **options: Any) -> Answer:
    """The server answers once, with one of these, ends, and never calls the handler."""
    opened: list[WebSocket] = []
    with serving(opened.append, **options) as server:
        status, text = answer_to(server, data + HELLO)
    assert status in statuses, text
    assert text.count("HTTP/1.1 ") == 1
    assert not opened
    return parse(text)


def answers_echo(peer: Peer) -> bool:
    peer.send(HELLO)
    return bool(peer.read(7) == HELLO_BACK)


def lets_in(server: WebSocketServer, target: str = "/") -> bool:
    with contextlib.suppress(OSError, EOFError), tcp(server) as peer:
        peer.send(request(server, target))
        return peer.read_head().startswith("HTTP/1.1 101 ")
    return False


def deadlines_end() -> bool:
    """Whether no connection is watched any more."""
    return all(thread.name != "rfc6455-clock" for thread in threading.enumerate())


# The opening handshake


@pytest.mark.requirement("4.2.2-6", "4.2.2-7", "4.2.2-8", "11.3.2-1", "11.3.3-1", "11.3.4-2")
def test_server_agrees_with_a_literal_101_and_nothing_behind_it() -> None:
    with serving(echo) as server, tcp(server) as peer:
        peer.send(request(server))
        assert peer.read_head() == (
            "HTTP/1.1 101 Switching Protocols\r\n"
            "Upgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            "\r\n"
        )
        assert peer.is_silent(0.1)
        assert answers_echo(peer)


@pytest.mark.requirement("2.1-2")
def test_server_reads_frames_in_any_segmentation() -> None:
    with serving(echo) as server, shake_hands(server) as peer:
        for byte in HELLO:
            peer.send(bytes([byte]))
        assert peer.read_frame() == (0x81, b"Hello")
        peer.send(b"".join(masked(0x81, f"{i}".encode()) for i in range(10)))
        assert [peer.read_frame() for _ in range(10)] == [(0x81, b"%d" % i) for i in range(10)]


@pytest.mark.requirement("2.1-2")
def test_server_reads_a_request_that_comes_byte_by_byte() -> None:
    with serving(echo) as server, tcp(server) as peer:
        for byte in GOOD:
            peer.send(bytes([byte]))
        assert peer.read_head().startswith("HTTP/1.1 101 ")
        assert answers_echo(peer)


def test_server_reads_frames_that_come_with_the_request() -> None:
    with serving(echo) as server, tcp(server) as peer:
        peer.send(GOOD + HELLO + HELLO[:3])
        assert peer.read_head().startswith("HTTP/1.1 101 ")
        assert peer.read(7) == HELLO_BACK
        peer.send(HELLO[3:])
        assert peer.read(7) == HELLO_BACK


@pytest.mark.requirement("4.2.1-5", "4.2.1-6", "4.1-23", "4.3-1")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket", b"Upgrade: WebSocket"),
        (b"Connection: Upgrade", b"Connection: uPGRADE"),
        (b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
        (b"Connection: Upgrade", b"Connection: , Upgrade"),
        (b"Upgrade: websocket", b"Upgrade: foo, websocket"),
        (b"Upgrade: websocket", b"UPGRADE:websocket"),
        (b"Sec-WebSocket-Key:", b"sEC-wEBSOCKET-kEY:"),
        (b"Sec-WebSocket-Version: 13", b"SEC-WEBSOCKET-VERSION:\t13 "),
        (b"Host: 127.0.0.1", b"hOST: LOCALHOST"),
    ],
)
def test_server_agrees_whatever_the_case_and_the_white_space(old: bytes, new: bytes) -> None:
    assert old in GOOD
    with serving(echo) as server, tcp(server) as peer:
        peer.send(GOOD.replace(old, new))
        assert f"Sec-WebSocket-Accept: {ACCEPT}\r\n" in peer.read_head()


@pytest.mark.requirement("4.2.1-10", "4.2.1-11")
def test_server_agrees_in_any_order_and_among_unrelated_headers() -> None:
    with serving(echo) as server, tcp(server) as peer:
        peer.send(
            b"GET / HTTP/1.1\r\n"
            b"Cookie: a=b; c=d\r\n"
            b"Sec-WebSocket-Version: 13\r\n"
            b"X-Foo:\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"
            b"Connection: Upgrade\r\n"
            b"Upgrade: websocket\r\n"
            b"X-Foo: \xe9\r\n"
            b"Host: 127.0.0.1\r\n"
            b"\r\n"
        )
        head = peer.read_head()
    assert head.startswith("HTTP/1.1 101 ")
    assert "Sec-WebSocket-Protocol" not in head
    assert "Sec-WebSocket-Extensions" not in head


@pytest.mark.requirement("4.2.2-9")
def test_server_accepts_the_text_of_the_key_as_it_came() -> None:
    with serving(echo) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b" dGhlIHNhbXBsZSBub25jZQ==", b" \t AQIDBAUGBwgJCgsMDQ4PEC==  "))
        assert "Sec-WebSocket-Accept: OfS0wDaT5NoxF2gqm7Zj2YtetzM=\r\n" in peer.read_head()


@pytest.mark.requirement("4.2.1-3")
@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/chat", "/chat ? "),
        ("/chat?", "/chat ? "),
        ("/chat?x=1", "/chat ? x=1"),
        ("/chat?x=%E9&y?z", "/chat ? x=%E9&y?z"),
        ("http://127.0.0.1/chat?x=1", "/chat ? x=1"),
        ("http://localhost:80/chat", "/chat ? "),
        ("https://[::1]:9/chat?x=1", "/chat ? x=1"),
        ("HTTP://127.0.0.1/chat?x=1", "/chat ? x=1"),
    ],
)
def test_server_reads_the_resource_name_from_either_form(target: str, seen: str) -> None:
    def tell(websocket: WebSocket) -> None:
        websocket.send(f"{websocket.path} ? {websocket.query}")

    with serving(tell, path="/chat") as server, shake_hands(server, target) as peer:
        assert peer.read_frame() == (0x81, seen.encode())


@pytest.mark.requirement("4.2.1-3")
@pytest.mark.parametrize(
    "target", ["http://127.0.0.1", "http://127.0.0.1?x=1", "http://127.0.0.1/"]
)
def test_server_reads_an_absolute_uri_without_a_path(target: str) -> None:
    with serving(echo) as server, shake_hands(server, target) as peer:
        assert answers_echo(peer)


BROKEN = {
    "no HTTP": b"HELO x\r\n\r\n",
    "HTTP/0.9": GOOD.replace(b" HTTP/1.1", b""),
    "no version number": GOOD.replace(b"HTTP/1.1", b"HTTP"),
    "version of letters": GOOD.replace(b"HTTP/1.1", b"HTTP/x.y"),
    "lower-case version": GOOD.replace(b"HTTP/1.1", b"http/1.1"),
    "two spaces": GOOD.replace(b"GET / ", b"GET  / "),
    "tab": GOOD.replace(b"GET / ", b"GET\t/ "),
    "space in front": b" " + GOOD,
    "space behind": GOOD.replace(b"HTTP/1.1\r\n", b"HTTP/1.1 \r\n"),
    "no target": GOOD.replace(b"GET / ", b"GET "),
    "target not ASCII": GOOD.replace(b"GET / ", b"GET /?\xc3\xa9 "),
    "NUL in the target": GOOD.replace(b"GET / ", b"GET /?\0 "),
    "DEL in the target": GOOD.replace(b"GET / ", b"GET /?\x7f "),
    "CR in the target": GOOD.replace(b"GET / ", b"GET /?\r "),
    "request line ends in LF": GOOD.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    "request line ends in CR CR LF": GOOD.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\r\n"),
    "header without colon": GOOD.replace(b"\r\n\r\n", b"\r\nno colon\r\n\r\n"),
    "header without name": GOOD.replace(b"\r\n\r\n", b"\r\n: x\r\n\r\n"),
    "space before the colon": GOOD.replace(b"Upgrade: ", b"Upgrade : "),
    "folded header": GOOD.replace(b"Upgrade: websocket", b"Upgrade:\r\n websocket"),
    "space before the first header": GOOD.replace(b"Host:", b" Host:"),
    "header ends in LF": GOOD.replace(b"127.0.0.1\r\n", b"127.0.0.1\n"),
    "header ends in CR": GOOD.replace(b"127.0.0.1\r\n", b"127.0.0.1\r"),
    "CR within a header": GOOD.replace(b"\r\n\r\n", b"\r\nX: a\rb\r\n\r\n"),
    "NUL within a header": GOOD.replace(b"\r\n\r\n", b"\r\nX: a\0b\r\n\r\n"),
    "empty line is LF": GOOD.replace(b"\r\n\r\n", b"\r\n\n"),
    "all lines end in LF": GOOD.replace(b"\r\n", b"\n"),
    "Host missing": GOOD.replace(b"Host: 127.0.0.1\r\n", b""),
    "Host twice": GOOD.replace(b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1\r\n" * 2),
    "Connection missing": GOOD.replace(b"Connection: Upgrade\r\n", b""),
    "Connection: close": GOOD.replace(b"Connection: Upgrade", b"Connection: close"),
    "key missing": GOOD.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
    "key empty": GOOD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b""),
    "key not base64": GOOD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"????"),
    "key of 15 bytes": GOOD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAAAA"),
    "key of 17 bytes": GOOD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAAAAAAA="),
    "version missing": GOOD.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "version 013": GOOD.replace(b"Version: 13", b"Version: 013"),
    "version 13.0": GOOD.replace(b"Version: 13", b"Version: 13.0"),
    "version +13": GOOD.replace(b"Version: 13", b"Version: +13"),
    "version x": GOOD.replace(b"Version: 13", b"Version: x"),
    "version 256": GOOD.replace(b"Version: 13", b"Version: 256"),
}


@pytest.mark.requirement(
    "4.2.1-1", "4.2.1-2", "4.2.1-4", "4.2.1-5", "4.2.1-7", "4.2.1-8", "4.2.1-9"
)
@pytest.mark.parametrize("broken", BROKEN)
def test_server_refuses_broken_request(broken: str) -> None:
    assert_refused(BROKEN[broken], 400)


@pytest.mark.requirement("4.2.1-1", "11.3.1-1", "11.3.5-1")
@pytest.mark.parametrize(
    "more",
    [
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Version: 8",
    ],
)
def test_server_refuses_key_or_version_twice(more: str) -> None:
    assert_refused(GOOD.replace(b"\r\n\r\n", f"\r\n{more}\r\n\r\n".encode()), 400)


@pytest.mark.requirement("4.2.1-1")
def test_server_drops_a_tls_client_on_the_plain_port() -> None:
    opened: list[WebSocket] = []
    timeouts = Timeouts(open_timeout=0.5)
    with serving(opened.append, timeouts=timeouts) as server, tcp(server) as peer:
        peer.send(CLIENT_HELLO + HELLO)
        data = peer.read_to_eof()
    assert data == b"" or data.startswith(b"HTTP/1.1 4")
    assert not opened


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0"])
def test_server_refuses_handshake_of_another_http(version: str) -> None:
    assert_refused(GOOD.replace(b"HTTP/1.1", version.encode()), 400, 505)


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_server_refuses_handshake_of_another_method(method: str) -> None:
    answer = assert_refused(GOOD.replace(b"GET", method.encode()), 405)
    assert "GET" in answer.headers["Allow"].split(", ")


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT", "get", "handle_one_request"])
def test_server_refuses_handshake_of_an_unknown_method(method: str) -> None:
    assert_refused(GOOD.replace(b"GET", method.encode()), 400, 405, 501)


@pytest.mark.requirement("2.1-1", "4.2.1-5")
@pytest.mark.parametrize(
    "upgrade", [None, b"Upgrade: h2c\r\n", b"Upgrade: websoc\xe2\x84\xaaet\r\n"]
)
def test_server_tells_a_plain_get_to_upgrade(upgrade: bytes | None) -> None:
    answer = assert_refused(GOOD.replace(b"Upgrade: websocket\r\n", upgrade or b""), 426)
    assert answer.headers.get_all("Upgrade") == ["websocket"]
    options = ", ".join(answer.headers.get_all("Connection", [])).lower().split(", ")
    assert "upgrade" in options  # RFC 9110, 7.8: whoever sends Upgrade says so here


@pytest.mark.requirement("4.4-1")
@pytest.mark.parametrize("version", [b"25", b"8", b"0", b"255"])
def test_server_tells_a_client_of_another_version_ours(version: bytes) -> None:
    answer = assert_refused(GOOD.replace(b"Version: 13", b"Version: " + version), 426)
    assert answer.headers.get_all("Sec-WebSocket-Version") == ["13"]


@pytest.mark.requirement("4.2.2-3")
@pytest.mark.parametrize("target", [b"/nosuch", b"/", b"/chat/", b"/chat2", b"/Chat", b"/chat%00"])
def test_server_knows_no_other_resource(target: bytes) -> None:
    answer = assert_refused(GOOD.replace(b"GET /", b"GET " + target), 404, path="/chat")
    assert int(answer.headers["Content-Length"]) == len(answer.body)


# Subprotocols and extensions


@pytest.mark.requirement("4.2.2-4", "4.2.2-5", "4.3-1", "11.3.4-1", "11.3.4-2")
@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        (["chat, superchat"], "superchat"),
        (["chat ,, superchat"], "superchat"),
        (["chat", "superchat"], "superchat"),
        (["x, superchat"], "x"),
        (["unknown"], None),
        ([], None),
    ],
)
def test_server_chooses_a_subprotocol_that_was_offered(
    lines: list[str], chosen: str | None
) -> None:
    def tell(websocket: WebSocket) -> None:
        websocket.send(str(websocket.subprotocol))

    offers = "".join(f"Sec-WebSocket-Protocol: {line}\r\n" for line in lines)
    with serving(tell, subprotocols=["superchat", "x"]) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"\r\n\r\n", f"\r\n{offers}\r\n".encode()))
        head = peer.read_head()
        assert peer.read_frame() == (0x81, str(chosen).encode())
    found = re.findall(r"\r\nsec-websocket-protocol: ?([^\r]*)", head.lower())
    assert found == ([chosen] if chosen else [])


@pytest.mark.requirement("4.2.1-12")
@pytest.mark.parametrize("offer", ["a b", "ch@t", "chat, chat", ""])
def test_server_refuses_an_offer_that_is_no_list_of_unique_tokens(offer: str) -> None:
    line = f"\r\nSec-WebSocket-Protocol: {offer}\r\n\r\n".encode()
    assert_refused(GOOD.replace(b"\r\n\r\n", line), 400, subprotocols=["chat"])


@pytest.mark.requirement("9.1-1", "9.1-3")
@pytest.mark.parametrize("deflate", [None, Deflate()])
@pytest.mark.parametrize(
    "offer", [";x", "foo;", "foo; =1", "foo; a=", "foo bar", 'foo; a="b', 'foo; a="1 0"', ""]
)
def test_server_refuses_malformed_extensions(offer: str, deflate: Deflate | None) -> None:
    line = f"\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n".encode()
    assert_refused(GOOD.replace(b"\r\n\r\n", line), 400, deflate=deflate)


@pytest.mark.requirement("4.2.2-6", "9.1-3", "9.1-4", "9.1-5", "11.3.2-1")
@pytest.mark.parametrize(
    ("lines", "accepted"),
    [
        ([], False),
        (["x-unknown"], False),
        (['foo; a="10"'], False),
        (["permessage-deflate"], True),
        (["x-foo; a=1; b, permessage-deflate"], True),
        (["foo", "permessage-deflate"], True),
        (["permessage-deflate", "foo"], True),
        (["permessage-deflate, permessage-deflate"], True),
    ],
)
def test_server_accepts_the_extension_it_knows_and_passes_over_others(
    lines: list[str], accepted: bool
) -> None:
    offers = "".join(f"Sec-WebSocket-Extensions: {line}\r\n" for line in lines)
    with serving(echo, deflate=Deflate()) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"\r\n\r\n", f"\r\n{offers}\r\n".encode()))
        head = peer.read_head()
    assert head.startswith("HTTP/1.1 101 ")
    found = re.findall(r"\r\nsec-websocket-extensions: ?([^\r;]*)([^\r,]*)\r", head.lower())
    assert [name for name, _ in found] == (["permessage-deflate"] if accepted else [])


@pytest.mark.requirement("4.2.2-6")
def test_server_accepts_no_extension_where_none_is_switched_on() -> None:
    with serving(echo) as server, tcp(server) as peer:
        line = b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        peer.send(GOOD.replace(b"\r\n\r\n", line))
        assert "Sec-WebSocket-Extensions" not in peer.read_head()


# Host and Origin: section 10.2


@pytest.mark.requirement("4.2.2-2", "10.2-1")
@pytest.mark.parametrize("origin", [b"http://good.example", b"HTTP://GOOD.example"])
def test_server_lets_in_a_page_of_an_allowed_origin(origin: bytes) -> None:
    with serving(echo, allowed_origins=["http://Good.example"]) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"\r\n\r\n", b"\r\nOrigin: " + origin + b"\r\n\r\n"))
        assert peer.read_head().startswith("HTTP/1.1 101 ")


@pytest.mark.requirement("10.2-1")
def test_server_lets_in_its_own_page() -> None:
    with serving(echo) as server:
        origin = f"http://127.0.0.1:{server.server_port}"
        with shake_hands(server, Origin=origin) as peer:
            assert answers_echo(peer)


@pytest.mark.requirement("4.2.2-2", "10.2-1")
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://good.example.evil.example",
        "http://good.example:81",
        "https://good.example",
        "http://127.0.0.1:1",
        "null",
    ],
)
def test_server_refuses_a_page_of_another_origin(origin: str) -> None:
    data = GOOD.replace(b"\r\n\r\n", f"\r\nOrigin: {origin}\r\n\r\n".encode())
    answer = assert_refused(data, 403, allowed_origins=["http://good.example"])
    assert answer.body == f"403 Forbidden: Origin '{origin}' is not allowed\n"


def test_server_lets_every_page_in_where_the_star_is_allowed() -> None:
    with serving(echo, allowed_origins=["*"]) as server:
        for origin in ("http://evil.example", "null"):
            shake_hands(server, Origin=origin).close()


@pytest.mark.parametrize(
    "options",
    [
        {"allowed_origins": ["chat.example"]},
        {"allowed_origins": ["null"]},
        {"allowed_hosts": ["http://chat.example"]},
        {"allowed_hosts": [""]},
    ],
)
def test_server_says_at_its_start_what_is_no_origin_or_host(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no origin|no host"):
        WebSocketServer(("127.0.0.1", 0), {}, **options)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"Origin": "http://Evil.example:80/"}, ("Origin", "http://evil.example")),
        ({"Host": "[2001:db8::1]:80"}, ("Host", "[2001:db8::1]")),
    ],
)
def test_program_says_how_to_allow_what_was_refused(
    changes: dict[str, str], refused: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rfc6455")
    asked: list[Refused] = []

    def advise(what: Refused) -> str:
        asked.append(what)
        return f"ask Ada for {what.value}"

    with serving(echo, advise=advise) as server:
        status, text = answer_to(server, request(server, **changes))
        assert answer_to(server, request(server, Host="a b"))[0] == 403
        assert answer_to(server, request(server, Origin="null"))[0] == 403
    assert status == 403
    assert text.endswith(f" is not allowed; ask Ada for {refused[1]}\n")
    assert asked == [refused]
    assert f"ask Ada for {refused[1]}" in caplog.messages[0]


def test_server_refuses_two_origins() -> None:
    data = GOOD.replace(b"\r\n\r\n", b"\r\nOrigin: http://a.example" * 2 + b"\r\n\r\n")
    assert_refused(data, 400, allowed_origins=["http://a.example"])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_server_on_loopback_refuses_another_host(host: str) -> None:
    answer = assert_refused(GOOD.replace(b"Host: 127.0.0.1", f"Host: {host}".encode()), 400, 403)
    if host:
        assert answer.status == 403
        assert answer.body == f"403 Forbidden: Host '{host}' is not allowed\n"


def test_server_on_loopback_refuses_files_to_another_host(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("secret")
    data = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    answer = assert_refused(data, 403, path="/ws", directory=tmp_path)
    assert "secret" not in answer.body


@pytest.mark.parametrize("host", [b"Chat.example", b"chat.example:8000", b"localhost", b"[::1]:1"])
def test_server_answers_to_an_allowed_host(host: bytes) -> None:
    with serving(echo, allowed_hosts=["chat.EXAMPLE"]) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"127.0.0.1", host))
        assert peer.read_head().startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize("name", ["Host", "Origin"])
def test_server_keeps_control_characters_out_of_its_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "rfc6455")
    with serving(echo) as server:
        answer_to(server, request(server, **{name: "http://evil\x1b[2J\x08\x85.example"}))
        answer_to(server, b"GET /\x1b[2J\x08\x9b HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert [text for text in caplog.messages if re.search("[\x00-\x1f\x7f-\x9f]", text)] == []


# What the program may ask of an opening


def test_server_lets_the_program_refuse_an_opening() -> None:
    def check(opening: Handshake) -> None:
        if opening.query != "key=1":
            raise InvalidHandshake(401, "who are you?", [("WWW-Authenticate", "Basic")])

    with serving(echo, path="/chat", check=check) as server:
        status, text = answer_to(server, request(server, "/chat?key=2"))
        assert (status, parse(text).headers["WWW-Authenticate"]) == (401, "Basic")
        assert "who are you?" in text
        assert lets_in(server, "/chat?key=1")


# HTTP: what a server must not be talked into


@pytest.mark.parametrize(
    "more",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: +0\r\n\r\n",
        b"Content-Length: x\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: identity\r\n\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("head", [GOOD, b"GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_server_refuses_a_body(head: bytes, more: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    assert_refused(head.removesuffix(b"\r\n") + more, 400, directory=tmp_path)


def test_server_sends_no_interim_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with serving(echo, directory=tmp_path) as server:
        answer = fetch(server, "/file", "GET", "Expect: 100-continue")
        assert answer.status in (200, 417)
        with shake_hands(server, Expect="100-continue") as peer:
            assert answers_echo(peer)


def test_server_answers_the_first_of_pipelined_requests_and_ends(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    get = b"GET /file HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
    with serving(echo, path="/ws", directory=tmp_path) as server:
        status, text = answer_to(server, get + get)
    assert status == 200
    assert text.count("HTTP/1.1 ") == text.count("a file") == 1
    assert "\r\nConnection: close\r\n" in text


def test_server_ends_a_refused_upload_without_a_reset() -> None:
    with serving(echo) as server, tcp(server) as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
        peer.send(bytes(200000))
        assert peer.read_to_eof().startswith(b"HTTP/1.1 405 ")


def test_server_drops_a_client_that_does_not_end_after_the_answer() -> None:
    def is_dropped(peer: Peer) -> bool:
        try:
            peer.send(b"x")
        except ConnectionError:
            return True
        return False

    with serving(echo, timeouts=Timeouts(close_timeout=0.3)) as server, tcp(server) as peer:
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        peer.read_to_eof()
        eventually(lambda: is_dropped(peer))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET",
        b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GOOD.replace(b"GET /", b"GET /nosuch"),
        GOOD.replace(b"GET /", b"GET /ws"),
        GOOD.replace(b"GET /", b"GET /ws") + HELLO[:4],
    ],
)
def test_server_survives_a_reset(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1_000_000))
    with serving(echo, path="/ws", directory=tmp_path) as server:
        with tcp(server) as peer:
            peer.send(data)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert lets_in(server, "/ws")


def test_server_keeps_a_websocket_beyond_the_time_of_its_opening() -> None:
    with serving(echo, timeouts=Timeouts(open_timeout=0.3)) as server, shake_hands(server) as peer:
        assert peer.is_silent(0.6)
        assert answers_echo(peer)


@pytest.mark.parametrize(("size", "status"), [(16384, 101), (16385, 431), (40000, 431)])
def test_server_refuses_a_head_over_16_kib(size: int, status: int) -> None:
    padding = b"\r\nX: " + b"a" * (size - len(GOOD) - 5) + b"\r\n\r\n"
    data = GOOD.replace(b"\r\n\r\n", padding)
    assert len(data) == size
    with serving(echo) as server, tcp(server) as peer:
        peer.send(data)
        assert peer.read_head().startswith(f"HTTP/1.1 {status} ")
        if status == 101:
            assert answers_echo(peer)
        else:
            peer.read_to_eof()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n\r\n",
        b"a" * 40000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10000,
    ],
    ids=["request line", "no line", "101 headers", "headers without end"],
)
def test_server_refuses_an_endless_head(data: bytes) -> None:
    with serving(echo) as server:
        assert answer_to(server, data)[0] in (400, 414, 431)


@pytest.mark.parametrize("start", [b"", b"GET", GOOD[:-2], GOOD[:40]])
def test_server_ends_a_head_that_stops_coming(start: bytes) -> None:
    with serving(echo, timeouts=Timeouts(open_timeout=0.4)) as server, tcp(server) as peer:
        peer.send(start)
        with shake_hands(server) as other:
            assert answers_echo(other)
        assert b" 101 " not in peer.read_to_eof()


def test_server_ends_a_head_that_comes_too_slowly() -> None:
    with serving(echo, timeouts=Timeouts(open_timeout=0.5)) as server, tcp(server) as peer:
        peer.send(b"GET / HTTP/1.1\r\nX: ")
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(ConnectionError):  # it may end between two bytes
            while peer.is_silent(0.05):
                peer.send(b"a")
                assert time.monotonic() < deadline
        assert b" 101 " not in peer.buffer


@pytest.mark.parametrize("start", [b"", b"GET", b"GET / HTTP/1.1\r\nHost"])
def test_server_survives_a_request_that_is_cut_off(start: bytes) -> None:
    with serving(echo) as server:
        with tcp(server) as peer:
            peer.send(start)
            peer.sock.shutdown(socket.SHUT_WR)
            assert b" 101 " not in peer.read_to_eof()
        with shake_hands(server) as peer:
            assert answers_echo(peer)


# Files


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """The directory to serve; beside it lies a secret."""
    directory = tmp_path / "public"
    (directory / "sub").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (directory / "index.html").write_text("<p>\u00e9", encoding="utf-8")
    (directory / "page.css").write_text("p {}")
    (directory / "page.js").write_text("1")
    (directory / "page.json").write_text("1")
    (directory / "page.svg").write_text("<svg/>")
    (directory / "sub" / "file.txt").write_text("in sub")
    return directory


@contextlib.contextmanager
def serving_files(directory: Path, **options: Any) -> Iterator[WebSocketServer]:
    with serving(echo, path="/ws", directory=directory, **options) as server:
        yield server


@pytest.mark.parametrize(
    ("target", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/?x=1", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.json", "application/json"),
        ("/page.svg", "image/svg+xml"),
        ("/%70age.svg", "image/svg+xml"),
        ("http://localhost/page.svg", "image/svg+xml"),
    ],
)
def test_server_serves_a_file_with_type_length_and_policy(
    public: Path, target: str, content_type: str
) -> None:
    with serving_files(public) as server:
        answer = fetch(server, target)
    assert answer.status == 200
    assert answer.headers.get_all("Content-Type") == [content_type]
    assert answer.headers.get_all("Content-Length") == [str(len(answer.body))]
    assert answer.headers.get_all("Content-Security-Policy") == ["default-src 'self'"]
    assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.get_all("Connection") == ["close"]


def test_server_serves_a_files_bytes_as_they_are(public: Path) -> None:
    with serving_files(public) as server:
        answer = fetch(server, "/")
    assert answer.body.encode("latin-1") == b"<p>\xc3\xa9"


def test_server_sends_headers_of_choice_with_every_file(public: Path) -> None:
    headers = {"Content-Security-Policy": "default-src 'none'", "X-Foo": "bar"}
    with serving_files(public, headers=headers) as server:
        for target, status in [("/", 200), ("/nosuch", 404)]:
            answer = fetch(server, target)
            assert answer.status == status
            assert answer.headers.get_all("Content-Security-Policy") == ["default-src 'none'"]
            assert answer.headers.get_all("X-Foo") == ["bar"]


def test_server_gives_a_slow_client_time_for_a_large_file(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfc6455.server._FILE_TIME", 0.3)  # seconds; more for each KiB of it
    size = 12_000_000  # more than the kernel takes from the server before the client reads
    (public / "large.bin").write_bytes(bytes(size))
    timeouts = Timeouts(close_timeout=1.0)
    with serving_files(public, timeouts=timeouts) as server, tcp(server) as peer:
        peer.send(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = peer.read_head()
        assert f"Content-Length: {size}\r\n" in head
        got = len(peer.buffer)
        peer.buffer = b""
        began = time.monotonic()
        while data := peer.sock.recv(65536):
            got += len(data)
            if time.monotonic() < began + 1.5:
                time.sleep(0.02)  # the stimulus
    assert got == size


def test_server_answers_head_without_a_body(public: Path) -> None:
    with serving_files(public) as server:
        for target, status in [("/", 200), ("/nosuch", 404), ("/ws", 405), ("/%00", 404)]:
            answer = fetch(server, target, "HEAD")
            assert (answer.status, answer.body) == (status, "")
            assert int(answer.headers["Content-Length"]) > 0


def test_server_tells_a_browser_that_its_copy_is_current(public: Path) -> None:
    with serving_files(public) as server:
        modified = fetch(server, "/").headers["Last-Modified"]
        answer = fetch(server, "/", "GET", f"If-Modified-Since: {modified}")
        assert (answer.status, answer.body) == (304, "")
        older = "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT"
        assert fetch(server, "/", "GET", older).status == 200
        assert fetch(server, "/", "GET", "If-Modified-Since: x").status == 200


def test_server_serves_a_client_of_http_1_0(public: Path) -> None:
    with serving_files(public) as server:
        _, text = answer_to(server, b"GET /page.css HTTP/1.0\r\nHost: localhost\r\n\r\n")
    answer = parse(text)
    assert (answer.status, answer.body) == (200, "p {}")


@pytest.mark.parametrize("allowed_hosts", [[], ["chat.example"]])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    ("health_check", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"HEAD / HTTP/1.0\r\nUser-Agent: x\r\n\r\n", 200),
        (b"OPTIONS / HTTP/1.0\r\n\r\n", 204),  # HAProxy's, where nothing else is told
        (b"OPTIONS / HTTP/1.0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 204),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 204),
        (b"GET /nosuch HTTP/1.0\r\n\r\n", 404),
    ],
)
def test_server_is_well_to_a_health_check_without_a_host(
    public: Path, health_check: bytes, status: int, host: str, allowed_hosts: list[str]
) -> None:
    with serving_files(public, host=host, allowed_hosts=allowed_hosts) as server:
        found, text = answer_to(server, health_check)
    assert found == status
    parse(text)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"OPTIONS / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n", 403),
        (b"OPTIONS / HTTP/1.0\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET / HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost:\r\n\r\n", 403),
        (GOOD.replace(b"HTTP/1.1\r\nHost: 127.0.0.1", b"HTTP/1.0").replace(b" / ", b" /ws "), 400),
    ],
)
def test_server_lets_nothing_but_http_1_0_leave_out_the_host(
    public: Path, data: bytes, status: int
) -> None:
    with serving_files(public) as server:
        assert answer_to(server, data)[0] == status


def test_server_says_what_methods_it_has(public: Path) -> None:
    with serving_files(public) as server:
        for method in ("OPTIONS", "POST"):
            answer = fetch(server, "/page.css", method)
            assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
            assert answer.headers["Server"] == "rfc6455"


def test_server_serves_a_client_that_would_rather_speak_http_2(public: Path) -> None:
    more = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]
    with serving_files(public) as server:
        answer = fetch(server, "/page.css", "GET", *more)
    assert (answer.status, answer.body) == (200, "p {}")


@pytest.mark.parametrize(
    "target",
    [
        "/nosuch",
        "/sub/",
        "/sub/nosuch",
        "/index.html/",
        "/page.css/x",
        "/%00",
        "/page.css%00",
        "/%ff",
        "/%ed%b2%80",
        "/" + "a" * 5000,
        "/" + "a/" * 3000,
        "*",
    ],
)
def test_server_has_no_such_file(public: Path, target: str) -> None:
    with serving_files(public) as server:
        answer = fetch(server, target)
    assert answer.status == 404
    assert "file.txt" not in answer.body


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E%2Fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/.%2e/secret.txt",
        "/....//secret.txt",
        "../secret.txt",
        "//../secret.txt",
        "http://localhost/../secret.txt",
        "{outside}/secret.txt",
        "/{outside}/secret.txt",
        "/%2f{outside}/secret.txt",
        "file://{outside}/secret.txt",
    ],
)
def test_server_serves_nothing_outside_its_directory(public: Path, target: str) -> None:
    with serving_files(public) as server:
        answer = fetch(server, target.format(outside=public.parent))
    assert answer.status == 404
    assert "secret" not in answer.body.replace("secret.txt", "")


def test_server_redirects_to_the_directory_below_it(public: Path) -> None:
    with serving_files(public) as server:
        answer = fetch(server, "/sub?x=1")
    assert (answer.status, answer.headers["Location"]) == (301, "/sub/?x=1")


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "//evil.example/%2e%2e",
        "//evil.example/%2e%2e/sub",
        "///evil.example/%2e%2e/sub",
        "/%2fevil.example/%2e%2e/sub",
        "/\\evil.example/%2e%2e/sub",
        "//evil.example/..%2fsub?x",
        "http://localhost//evil.example/%2e%2e/sub",
        "http:////evil.example/%2e%2e/sub",
        "http:/evil.example/%2e%2e/sub",
        "http://localhost/\\evil.example/%2e%2e/sub",
    ],
)
def test_server_never_redirects_to_another_host(public: Path, target: str) -> None:
    with serving_files(public) as server:
        answer = fetch(server, target)
    assert re.fullmatch(r"/(?![/\\]).*", answer.headers.get("Location", "/x"))


@pytest.mark.parametrize("target", ["/sub%0d%0aX-Evil:%20x", "/sub/%0d%0a"])
def test_server_lets_no_line_break_into_its_headers(public: Path, target: str) -> None:
    with serving_files(public) as server:
        assert "X-Evil" not in fetch(server, target).headers


def test_server_ends_a_client_that_does_not_fetch_its_file(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(50_000_000)
    timeouts = Timeouts(write_timeout=0.4)
    with serving_files(tmp_path, timeouts=timeouts) as server, tcp(server) as peer:
        peer.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.read_head().startswith("HTTP/1.1 200 ")
        eventually(deadlines_end)
        with contextlib.suppress(ConnectionError):
            assert len(peer.read_to_eof()) < 50_000_000


def test_server_says_what_a_missing_directory_is(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        WebSocketServer(("127.0.0.1", 0), {}, directory=tmp_path / "nosuch")


# Limits


def test_server_that_is_full_says_so_and_takes_the_next_when_one_left(public: Path) -> None:
    with (
        serving_files(public, max_connections=2) as server,
        shake_hands(server, "/ws") as first,
        shake_hands(server, "/ws"),
    ):
        status, text = answer_to(server, request(server, "/ws"))
        assert status == 503
        assert "full" in text
        assert fetch(server, "/").status == 200
        first.send(masked(0x88, close_payload(1000)))
        assert first.read_close() == (1000, "")
        first.close()
        eventually(lambda: lets_in(server, "/ws"))


def test_server_drops_connections_beyond_the_spare_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc6455.server, "SPARE_CONNECTIONS", 2)
    with serving(echo, max_connections=1) as server:
        with shake_hands(server), tcp(server), tcp(server), tcp(server) as fourth:
            assert fourth.read_to_eof() == b""
        eventually(lambda: lets_in(server))


def test_server_that_can_start_no_thread_takes_the_next_when_it_can(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rfc6455.server, "SPARE_CONNECTIONS", 0)
    start: Callable[[threading.Thread], None] = threading.Thread.start
    failures: list[threading.Thread] = []

    def fail_once(thread: threading.Thread) -> None:
        if not failures and "process_request_thread" in thread.name:
            failures.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_once)
    with serving(echo, max_connections=1) as server:
        with tcp(server) as peer:
            assert peer.read_to_eof() == b""
        assert failures
        eventually(lambda: lets_in(server))
    assert "can't start new thread" in caplog.text
    caplog.clear()


FEW_DESCRIPTORS = """
import logging, resource
from rfc6455 import WebSocketServer

def echo(websocket):
    for message in websocket:
        websocket.send(message)

logging.basicConfig(level=logging.INFO)
server = WebSocketServer(("127.0.0.1", 0), {"/": echo})
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
print(server.server_port, flush=True)
server.serve_until_signalled()
"""


def test_server_without_descriptors_waits_and_serves_again() -> None:
    pytest.importorskip("resource")
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        command = [sys.executable, "-c", FEW_DESCRIPTORS]
        process = stack.enter_context(
            subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=errors)
        )
        stack.callback(process.kill)
        assert process.stdout
        address = ("127.0.0.1", int(process.stdout.readline()))

        def log() -> bytes:
            return os.pread(errors.fileno(), 1 << 20, 0)

        with contextlib.ExitStack() as crowd:
            for _ in range(40):
                last = crowd.enter_context(Peer(socket.create_connection(address, PATIENCE)))
            eventually(lambda: log().count(b"cannot accept") >= 2)
            assert last.is_silent(0.2)
        with Peer(socket.create_connection(address, PATIENCE)) as peer:
            peer.send(GOOD)
            assert peer.read_head().startswith("HTTP/1.1 101 ")
            assert answers_echo(peer)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        warnings = log().count(b"cannot accept")
        assert warnings <= (time.monotonic() - started) / 0.1 + 1, "the accept loop spins"
        assert b"Traceback" not in log()


# The end


def test_server_closes_all_with_1001_when_it_shuts_down() -> None:
    with serving(echo) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(shake_hands(server)) for _ in range(3)]
        assert all(answers_echo(peer) for peer in peers)
        server.shutdown()
        closing = threading.Thread(target=server.close_connections)
        closing.start()
        goodbye = close_payload(1001, "the server is shutting down")
        assert [peer.read_frame() for peer in peers] == [(0x88, goodbye)] * 3
        for peer in peers:
            peer.send(masked(0x88, goodbye))
            assert peer.read_to_eof() == b""
            peer.close()
        closing.join(PATIENCE)
        assert not closing.is_alive()


def test_server_drops_who_does_not_agree_to_its_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc6455.server, "SHUTDOWN_GRACE", 0.2)
    with serving(echo) as server, shake_hands(server) as peer:
        assert answers_echo(peer)
        server.close_connections("enough")
        assert peer.read_frame() == (0x88, close_payload(1001, "enough"))
        assert peer.read_to_eof() == b""


def test_server_closes_who_comes_during_its_shutdown() -> None:
    opened: list[WebSocket] = []
    with serving(opened.append) as server:
        server.close_connections()
        with shake_hands(server) as peer:
            assert peer.read_frame()[1][:2] == b"\x03\xe9"
            peer.send(masked(0x88, close_payload(1001)))
            assert peer.read_to_eof() == b""
    assert not opened


def test_server_refuses_a_port_that_is_taken() -> None:
    with serving(echo) as server, pytest.raises(OSError):
        WebSocketServer(("127.0.0.1", server.server_port), {"/": echo})


def test_server_serves_on_an_ipv6_address() -> None:
    try:
        server = WebSocketServer(("::1", 0), {"/": echo})
    except OSError:
        pytest.skip("this machine has no ::1")
    with server:
        assert server.url == f"http://[::1]:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with Peer(socket.create_connection(("::1", server.server_port), PATIENCE)) as peer:
                peer.send(request(server, Host=f"[::1]:{server.server_port}"))
                assert peer.read_head().startswith("HTTP/1.1 101 ")
                assert answers_echo(peer)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://localhost:"), ("0.0.0.0", "http://localhost:")]
)
def test_server_says_where_a_browser_finds_it(host: str, url: str) -> None:
    with WebSocketServer((host, 0), {}) as server:
        assert server.url == f"{url}{server.server_port}"


def test_server_on_any_address_answers_at_the_url_that_it_prints(public: Path) -> None:
    hosts = ["127.0.0.2", "127.0.0.1", "localhost", "0.0.0.0", ""]
    for host in [*hosts, *(["::1", "::ffff:127.0.0.3"] if has_ipv6() else [])]:
        with serving_files(public, host=host) as server:
            url = urlsplit(server.url)
            assert url.hostname is not None
            for authority in (url.netloc, url.netloc.rpartition(":")[0]):
                with Peer(socket.create_connection((url.hostname, server.server_port))) as peer:
                    peer.send(f"GET /page.css HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
                    assert peer.read_head().startswith("HTTP/1.1 200 "), (host, authority)


@pytest.mark.parametrize(
    ("address", "named", "host", "allowed"),
    [
        ("127.0.0.2", [], "127.0.0.2:1", True),
        ("127.0.0.2", [], "localhost", True),
        ("127.0.0.2", [], "127.0.0.3", False),
        ("127.0.0.2", [], "evil.example", False),
        ("::ffff:127.0.0.2", [], "evil.example", False),
        ("0:0:0:0:0:0:0:1", [], "evil.example", False),
        ("0:0:0:0:0:0:0:1", [], "[0:0::1]:1", True),
        ("0.0.0.0", [], "anything.example", True),
        ("0.0.0.0", ["chat.example"], "other.example", False),
        ("0.0.0.0", ["chat.example"], "CHAT.example.:1", True),
        ("0.0.0.0", ["chat.example"], "localhost:1", True),
    ],
)
def test_server_answers_to_loopback_and_its_own_address_and_what_is_named(
    address: str, named: list[str], host: str, allowed: bool
) -> None:
    if ":" in address and not has_ipv6():
        pytest.skip("this machine has no ::1")
    with WebSocketServer((address, 0), {}, allowed_hosts=named) as server:
        headers = message_from_string(f"Host: {host}\n\n")
        if allowed:
            handshake.check_host(headers, server.allowed_hosts)
        else:
            with pytest.raises(InvalidHandshake):
                handshake.check_host(headers, server.allowed_hosts)


def test_server_told_to_listen_on_a_name_of_loopback_is_protected_as_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Debian gives a machine's own name the address 127.0.1.1, which binds as well as any."""
    bind = socket.socket.bind

    def bind_by_name(sock: socket.socket, address: tuple[str, int]) -> None:
        assert address == ("my-machine", 0)
        bind(sock, ("127.0.1.1", 0))

    monkeypatch.setattr(socket.socket, "bind", bind_by_name)
    with WebSocketServer(("my-machine", 0), {}) as server:
        for good in ("my-machine:1", "127.0.1.1", "localhost"):
            handshake.check_host(message_from_string(f"Host: {good}\n\n"), server.allowed_hosts)
        with pytest.raises(InvalidHandshake):
            evil = message_from_string("Host: evil.example\n\n")
            handshake.check_host(evil, server.allowed_hosts)


# TLS: section 10.6


def tunnel_to(
    server: WebSocketServer, certificate: Certificate, *, hold_back: bool = False
) -> Tunnel:
    sock = socket.create_connection(("127.0.0.1", server.server_port), PATIENCE)
    tunnel = Tunnel(sock, certificate.client(), "localhost")
    tunnel.shake_hands(hold_back=hold_back)
    return tunnel


@pytest.mark.requirement("4.2.2-1", "10.6-1")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_server_runs_handshake_messages_and_close_inside_tls(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    client = certificate.client()
    client.minimum_version = client.maximum_version = version
    with serving(echo, ssl_context=certificate.server()) as server:
        sock = socket.create_connection(("127.0.0.1", server.server_port), PATIENCE)
        tunnel = Tunnel(sock, client, "localhost")
        with through(tunnel) as peer:
            tunnel.shake_hands()
            peer.send(request(server))
            assert peer.read_head().startswith("HTTP/1.1 101 ")
            assert answers_echo(peer)
            peer.send(masked(0x82, bytes(100_000)))
            assert peer.read_frame() == (0x82, bytes(100_000))
            peer.send(masked(0x88, close_payload(1000)))
            assert peer.read_close() == (1000, "")  # EOF here is a close_notify
    assert b"HTTP" not in tunnel.wire
    assert HELLO_BACK not in tunnel.wire


@pytest.mark.requirement("4.2.2-1")
def test_server_reads_a_request_that_comes_with_the_end_of_the_tls_handshake(
    certificate: Certificate,
) -> None:
    with (
        serving(echo, ssl_context=certificate.server()) as server,
        through(tunnel_to(server, certificate, hold_back=True)) as peer,
    ):
        peer.send(request(server) + HELLO)
        assert peer.read_head().startswith("HTTP/1.1 101 ")
        assert peer.read(7) == HELLO_BACK


def test_server_answers_a_request_that_comes_with_both_ends_of_tls(
    public: Path, certificate: Certificate
) -> None:
    with (
        serving_files(public, ssl_context=certificate.server()) as server,
        through(tunnel_to(server, certificate, hold_back=True)) as peer,
    ):
        tunnel = cast(Tunnel, peer.sock)
        tunnel.tls.write(b"GET /page.css HTTP/1.1\r\nHost: localhost\r\n\r\n")
        tunnel.say_farewell()
        answer = parse(peer.read_to_eof().decode("latin-1"))
    assert (answer.status, answer.body) == (200, "p {}")


@pytest.mark.requirement("4.2.2-1")
def test_server_answers_nothing_in_clear_on_the_tls_port(certificate: Certificate) -> None:
    opened: list[WebSocket] = []
    with serving(opened.append, ssl_context=certificate.server()) as server, tcp(server) as peer:
        peer.send(GOOD + HELLO)
        data = peer.read_to_eof()
    eventually(deadlines_end)
    assert b"101" not in data
    assert b"HTTP" not in data
    assert not opened


@pytest.mark.requirement("4.2.2-1")
def test_server_ends_when_the_client_distrusts_its_certificate(certificate: Certificate) -> None:
    opened: list[WebSocket] = []
    with serving(opened.append, ssl_context=certificate.server()) as server, tcp(server) as peer:
        tunnel = Tunnel(peer.sock, ssl.create_default_context(), "localhost")
        with pytest.raises(ssl.SSLCertVerificationError):
            tunnel.shake_hands()
        peer.send(tunnel.take_held_back())
        assert b"101" not in peer.read_to_eof()
    assert not opened


def test_server_serves_others_while_a_tls_client_is_silent_and_ends_that(
    certificate: Certificate,
) -> None:
    timeouts = Timeouts(open_timeout=1.0)
    context = certificate.server()
    with serving(echo, timeouts=timeouts, ssl_context=context) as server, tcp(server) as silent:
        with through(tunnel_to(server, certificate)) as peer:
            peer.send(request(server))
            assert peer.read_head().startswith("HTTP/1.1 101 ")
            assert answers_echo(peer)
        assert silent.read_to_eof() == b""


def test_server_serves_files_over_tls_and_says_farewell(
    public: Path, certificate: Certificate
) -> None:
    (public / "large.bin").write_bytes(bytes(300_000))
    with serving_files(public, ssl_context=certificate.server()) as server:
        assert server.url == f"https://localhost:{server.server_port}"
        with through(tunnel_to(server, certificate)) as peer:
            peer.send(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = parse(peer.read_to_eof().decode("latin-1"))
    assert (answer.status, len(answer.body)) == (200, 300_000)


@pytest.mark.requirement("10.6-1")
def test_server_closes_tls_clients_with_1001_when_it_shuts_down(certificate: Certificate) -> None:
    with (
        serving(echo, ssl_context=certificate.server()) as server,
        through(tunnel_to(server, certificate)) as peer,
    ):
        peer.send(request(server))
        peer.read_head()
        assert answers_echo(peer)
        closing = threading.Thread(target=server.close_connections, args=("bye",))
        closing.start()
        assert peer.read_frame() == (0x88, close_payload(1001, "bye"))
        peer.send(masked(0x88, close_payload(1001)))
        assert peer.read_to_eof() == b""
        peer.close()
        closing.join(PATIENCE)


BAD_RECORD = bytes.fromhex("1703030020") + bytes(32)


@pytest.mark.requirement("4.2.2-1")
@pytest.mark.parametrize("when", ["in the handshake", "with its end", "later"])
def test_server_ends_a_client_that_breaks_tls(certificate: Certificate, when: str) -> None:
    context, timeouts = certificate.server(), Timeouts(open_timeout=0.8)
    with serving(echo, timeouts=timeouts, ssl_context=context) as server, tcp(server) as bare:
        if when == "in the handshake":
            bare.send(BAD_RECORD)
        elif when == "with its end":
            tunnel = Tunnel(bare.sock, certificate.client(), "localhost")
            tunnel.shake_hands(hold_back=True)
            bare.send(tunnel.take_held_back() + BAD_RECORD)
        else:
            tunnel = Tunnel(bare.sock, certificate.client(), "localhost")
            tunnel.shake_hands()
            peer = through(tunnel)
            peer.send(request(server))
            assert peer.read_head().startswith("HTTP/1.1 101 ")
            assert answers_echo(peer)
            bare.send(BAD_RECORD)
        bare.read_to_eof()
    eventually(deadlines_end)

"""What `connect` tells its caller about a server that refuses (RFC 6455, 4.1).

The servers are bare sockets.
"""

import contextlib
import socket

import pytest

import rfc6455.client
from peers import Peer, RawServer, response, unmasked
from raw_servers import answer_normal_close, read_rest, refusal_by
from rfc6455 import InvalidHandshake, connect


@pytest.mark.requirement("4.1-17")
@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, "Content-Length: 0"),
        (302, "Location: ws://127.0.0.1:1/"),
        (401, 'WWW-Authenticate: Basic realm="x"'),
        (404, "Content-Length: 0"),
        (503, "Retry-After: 1"),
    ],
)
def test_client_tells_the_status_of_another_answer(status: int, line: str) -> None:
    error = refusal_by(lambda head: f"HTTP/1.1 {status} x\r\n{line}\r\n\r\n".encode())
    assert error.status == status
    assert tuple(line.split(": ")) in list(error.headers)


def refusal_text(answer: bytes, ends: bool = True) -> str:
    """The text of the error where the server answers this, and then ends TCP or goes silent."""

    def script(peer: Peer) -> None:
        peer.read_head()
        with contextlib.suppress(OSError):  # the client has read enough, and has closed
            peer.send(answer)
            if ends:
                peer.sock.shutdown(socket.SHUT_WR)
            read_rest(peer)

    with RawServer(script) as server, pytest.raises(InvalidHandshake) as refusal:
        connect(server.url)
    return str(refusal.value)


@pytest.mark.requirement("4.1-17")
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 404 No such thing\r\nContent-Length: 3\r\n\r\nno!", "404 No such thing: no!"),
        (b"HTTP/1.0 404 Not Found\r\n\r\nit is not here", "404 Not Found: it is not here"),
        (b"HTTP/1.1 403 \r\nContent-Length: 0\r\n\r\n", "403 Forbidden"),
        (b"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", "503 Service Unavailable"),
        (b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", "599"),
        (  # as our own server answers, whose body begins with the status line
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 26\r\n\r\n403 Forbidden: not for you\n",
            "403 Forbidden: not for you",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://h/x\r\nContent-Length: 0\r\n\r\n",
            "301 Moved, to https://h/x",
        ),
        (
            b"HTTP/1.1 300 \r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",
            "300 Multiple Choices, to /a",
        ),
        (b"HTTP/1.1 399 \r\nLocation: /a\r\nContent-Length: 0\r\n\r\n", "399 to /a"),
        (b"HTTP/1.1 400 \r\nLocation: /a\r\nContent-Length: 0\r\n\r\n", "400 Bad Request"),
        (b"HTTP/1.1 201 \r\nLocation: /a\r\nContent-Length: 0\r\n\r\n", "201 Created"),
        (
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /\x9bevil\r\nContent-Length: 0\r\n\r\n",
            "307 Temporary Redirect, to /\ufffdevil",
        ),
        (
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n8;x=y\r\n, world!\r\n0\r\n\r\nand more",
            "400 Bad: hello, world!",
        ),
        (  # the chunks are cut off
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nff\r\n, wor",
            "400 Bad: hello, wor",
        ),
        (
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            "400 Bad: hello",
        ),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: many\r\n\r\nx", "400 Bad: x"),
        (b"HTTP/1.1 400 Bad\r\nContent-Type: image/png\r\n\r\n\x89PNG", "400 Bad"),
        (b"HTTP/1.1 400 Bad\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b", "400 Bad"),
        (
            b'HTTP/1.1 400 Bad\r\nContent-Type: application/problem+json\r\n\r\n{"a": 1}',
            '400 Bad: {"a": 1}',
        ),
        (
            b"HTTP/1.1 400 Bad\r\nContent-Type: Text/HTML; charset=utf-8\r\n\r\n"
            b"<p>\r\n caf\xc3\xa9\t </p>",
            "400 Bad: <p> caf\u00e9 </p>",
        ),
        (
            b"HTTP/1.1 400 \x1b[31mBad\x07\r\n\r\n\x1b]0;x\x07\xc2\x9b1m\xe2\x80\xaeabc\x7f \xff",
            "400 \\x1b[31mBad\\x07: \\x1b]0;x\\x07\\x9b1m\\u202eabc\\x7f \ufffd",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\nwhat is this?", "204 No Content"),
        (b"HTTP/1.1 404 Not Found\r\nX : y\r\nno colon\r\n\r\n", "404 Not Found"),
    ],
)
def test_client_repeats_what_a_server_that_refuses_says(answer: bytes, text: str) -> None:
    assert refusal_text(answer) == text


def test_client_repeats_the_beginning_of_a_long_refusal() -> None:
    text = refusal_text(b"HTTP/1.1 400 Bad\r\n\r\n" + b"0123456789" * 500_000)
    assert text == "400 Bad: " + "0123456789" * 19 + "012345678\u2026"
    text = refusal_text(b"HTTP/1.1 400 Bad\r\n\r\n" + b"\x1b" * 5000)
    assert len(text) == len("400 Bad: ") + 200 and "\x1b" not in text
    text = refusal_text(b"HTTP/1.1 400 " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n")
    assert text == "400 " + "x" * 199 + "\u2026"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\nhello",
        b"HTTP/1.1 400 Bad\r\n\r\nhello",
        b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello",
    ],
)
def test_client_does_not_wait_long_for_the_rest_of_a_refusal(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfc6455.client, "BODY_TIME", 0.1)
    assert refusal_text(answer, ends=False) == "400 Bad: hello"


def test_client_gives_the_parts_of_a_refusal_as_attributes() -> None:
    error = refusal_by(
        lambda head: (
            b"HTTP/1.1 401 Who are you\r\nWWW-Authenticate: Basic\r\nContent-Length: 5\r\n\r\nhello"
        )
    )
    assert (error.status, error.reason, error.body) == (401, "Who are you", "hello")
    assert ("WWW-Authenticate", "Basic") in list(error.headers)


INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nSec-WebSocket-Accept: x\r\n\r\n",
    b"HTTP/1.1 102 \r\n\r\n",
]


@pytest.mark.parametrize("interim", [*INTERIM, b"".join(INTERIM), INTERIM[0] * 10])
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_client_skips_interim_responses(interim: bytes, step: int) -> None:
    def script(peer: Peer) -> None:
        answer = interim + response(peer.read_head()) + unmasked(0x81, b"Hello")
        for i in range(0, len(answer), step):
            peer.send(answer[i : i + step])
        answer_normal_close(peer)

    with RawServer(script) as server, connect(server.url) as websocket:
        assert websocket.receive() == "Hello"


def test_client_skips_interim_responses_before_a_refusal() -> None:
    text = refusal_text(INTERIM[0] + b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    assert text == "403 Forbidden: no"


def test_client_gives_up_on_a_server_that_sends_only_interim_responses() -> None:
    assert "interim" in refusal_text(INTERIM[0] * 1000)
    # The size of their heads is limited, too.
    assert "16384 bytes" in refusal_text(b"HTTP/1.1 103 x\r\n" + b"X: y\r\n" * 10_000)


@pytest.mark.requirement("11.3.5-2", "4.1-17")
def test_client_tells_which_versions_the_server_speaks() -> None:
    error = refusal_by(
        lambda head: (
            b"HTTP/1.1 426 Upgrade Required\r\n"
            b"Sec-WebSocket-Version: 8, 7\r\n"
            b"Sec-WebSocket-Version: 0\r\n"
            b"\r\n"
        )
    )
    assert error.status == 426
    versions = [value for name, value in error.headers if name == "Sec-WebSocket-Version"]
    assert versions == ["8, 7", "0"]

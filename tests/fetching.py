"""Requests to our server over a bare socket, and a strict reading of its answers."""

import contextlib
import re
import threading
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from peers import Peer, answer_to, echo_messages, request, serving, tcp
from rfc6455 import (
    WebSocket,
    WebSocketServer,
)

# A good opening handshake, whole.
GOOD = (
    b"GET / HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)

# The masked text message "Hello" of RFC 6455, 5.7, and the unmasked one that an echo answers.
HELLO = bytes.fromhex("818537fa213d7f9f4d5158")
HELLO_BACK = bytes.fromhex("810548656c6c6f")


class Answer(NamedTuple):
    """An HTTP answer; the body has one character for each byte."""

    status: int
    headers: Message
    body: str


def fetch(server: WebSocketServer, target: str, method: str = "GET", *more: str) -> Answer:
    """The answer to a plain HTTP request, with `more` header lines."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *more]
    return parse(answer_to(server, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))[1])


def parse(text: str) -> Answer:
    """Read an answer strictly: each line of its head ends in CRLF and is a name and a value."""
    head, end, body = text.partition("\r\n\r\n")
    status_line, *lines = head.split("\r\n")
    found = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) [ -~]*", status_line)
    assert found, text
    assert end, text
    assert all(re.fullmatch(r"[A-Za-z-]+: [!-~]([ -~]*[!-~])?", line) for line in lines), lines
    return Answer(int(found[1]), message_from_string("\n".join(lines) + "\n\n"), body)


def assert_refused(data: bytes, *statuses: int, **options: Any) -> Answer:
    """Send a handshake and a message: the server must answer with one of these statuses, end the
    connection, and never call the handler.
    """
    opened: list[WebSocket] = []
    with serving(opened.append, **options) as server:
        status, text = answer_to(server, data + HELLO)
    assert status in statuses, text
    assert text.count("HTTP/1.1 ") == 1
    assert not opened
    return parse(text)


def answers_echo(peer: Peer) -> bool:
    """Whether the WebSocket behind this peer echoes a message."""
    peer.send(HELLO)
    return bool(peer.read(7) == HELLO_BACK)


def lets_in(server: WebSocketServer, target: str = "/") -> bool:
    """Whether the server answers a good handshake with a 101 now."""
    with contextlib.suppress(OSError, EOFError), tcp(server) as peer:
        peer.send(request(server, target))
        return peer.read_head().startswith("HTTP/1.1 101 ")
    return False


def deadlines_end() -> bool:
    """Whether the layer's clock has ended, as it does when no connection is left."""
    return all(thread.name != "rfc6455-clock" for thread in threading.enumerate())


@contextlib.contextmanager
def serving_files(*directories: Path, **options: Any) -> Iterator[WebSocketServer]:
    """Our server with the files of these directories, and an echo at /ws."""
    with serving(echo_messages, path="/ws", directory=directories, **options) as server:
        yield server

"""Clients that vanish at any point of a request, an answer or a closing handshake.

Each is a line in the server's log at most, and never a trace.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pairs import reset
from peers import PATIENCE, QUICK, Peer, echo_messages, eventually, masked, serving, tcp
from rfc6455 import WebSocket, WebSocketServer
from rfc6455.stream import Stream
from tls import Certificate, Tunnel, through, tunnel_to

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\n"
    b"Host: localhost\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
# Requests that get a file, a refusal, a 101, or no answer at all.
REQUESTS = {
    "nothing": b"",
    "half a request line": b"GET /ws HT",
    "a request line": b"GET /ws HTTP/1.1\r\n",
    "half a head": HANDSHAKE[:60],
    "a head without its last line": HANDSHAKE[:-2],
    "a scan": b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a scan of HTTP/0.9": b"GET /\r\n",
    "garbage": b"\x00\x01\x02\xff\r\n\r\n",
    "garbage without an end": b"\xff" * 20_000,
    "a TLS client": bytes.fromhex("1603010200010001fc0303") + b"\r\n" * 40,
    "another host": HANDSHAKE.replace(b"localhost", b"evil.example"),
    "another version": HANDSHAKE.replace(b": 13", b": 8"),
    "another path": HANDSHAKE.replace(b"/ws", b"/nosuch"),
    "a page of another site": HANDSHAKE.replace(b"\r\n\r\n", b"\r\nOrigin: http://h\r\n\r\n"),
    "an upload": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc",
    "a method that nobody knows": b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a bad header": b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    "a head request": b"HEAD /page HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a page": b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a large file": b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no such file": b"GET /nosuch HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a handshake": HANDSHAKE,
    "a handshake and a frame": HANDSHAKE + masked(0x81, b"Hello"),
    "a handshake and half a frame": HANDSHAKE + masked(0x81, b"Hello")[:3],
    "a handshake and a broken frame": HANDSHAKE + masked(0x83, b"Hello"),
    "a handshake and a Close": HANDSHAKE + masked(0x88, b"\x03\xe8"),
}


def fin(peer: Peer) -> None:
    peer.close()


ENDS = [fin, reset]

# The client's part before it vanishes must not run out of time on a busy machine.
TIMEOUTS = QUICK._replace(open_timeout=PATIENCE, write_timeout=PATIENCE)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "page").write_text("x" * 100)
    (tmp_path / "large").write_bytes(bytes(8_000_000))
    return tmp_path


@pytest.fixture(autouse=True)
def only_lines_are_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which the server logs a trace, a warning, or a line of a peer's."""
    caplog.set_level(logging.INFO)
    yield
    eventually(lambda: not any("process_request" in each.name for each in threading.enumerate()))
    records = caplog.get_records("call")
    assert [each.getMessage() for each in records if each.exc_info] == []
    assert [each.getMessage() for each in records if each.levelno > logging.INFO] == []
    assert all("\n" not in each.getMessage() for each in records)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The server sends nothing before this is set, so the peer is gone when it does."""
    gone = threading.Event()
    send = Stream.send

    def send_late(stream: Stream, data: bytes) -> None:
        assert gone.wait(PATIENCE)
        send(stream, data)

    monkeypatch.setattr(Stream, "send", send_late)
    return gone


def serving_all(
    directory: Path, **options: Any
) -> contextlib.AbstractContextManager[WebSocketServer]:
    """Our server with these files, and an echo at /ws."""
    return serving(echo_messages, "/ws", directory=directory, timeouts=TIMEOUTS, **options)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("request_name", REQUESTS)
def test_client_that_vanishes_before_it_is_answered_leaves_no_trace_in_the_log(
    request_name: str, end: Callable[[Peer], None], directory: Path, gone: threading.Event
) -> None:
    with serving_all(directory) as server:
        peer = tcp(server)
        peer.send(REQUESTS[request_name])
        end(peer)
        gone.set()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("read", [1, 20, 300_000])
@pytest.mark.parametrize("request_name", ["a scan", "a page", "a large file", "a handshake"])
def test_client_that_vanishes_while_it_is_answered_leaves_no_trace_in_the_log(
    request_name: str, read: int, end: Callable[[Peer], None], directory: Path
) -> None:
    with serving_all(directory) as server:
        peer = tcp(server)
        peer.send(REQUESTS[request_name])
        peer.read(read if request_name == "a large file" else min(read, 20))
        end(peer)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("step", range(4))
def test_client_that_vanishes_within_the_closing_handshake_leaves_no_trace_in_the_log(
    step: int, end: Callable[[Peer], None], directory: Path
) -> None:
    """It leaves after the 101, within a frame, before the answer to its Close, or after it."""
    with serving_all(directory) as server:
        peer = tcp(server)
        peer.send(HANDSHAKE)
        peer.read_head()
        if step == 1:
            peer.send(masked(0x81, b"Hello")[:8])
        if step >= 2:
            peer.send(masked(0x81, b"Hello") + masked(0x88, b"\x03\xe8"))
        if step == 3:
            peer.read(7)
        end(peer)


@pytest.mark.parametrize("end", ENDS)
def test_client_that_vanishes_when_the_server_closes_leaves_no_trace_in_the_log(
    end: Callable[[Peer], None], directory: Path, gone: threading.Event
) -> None:
    def close_at_once(websocket: WebSocket) -> None:
        websocket.close(1000, "enough")

    with serving(close_at_once, "/ws", timeouts=TIMEOUTS) as server:
        gone.set()
        peer = tcp(server)
        peer.send(HANDSHAKE)
        peer.read_head()
        end(peer)


# TLS


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("size", [0, 1, 5, 6, 100, -1, 10_000])
def test_client_that_vanishes_within_the_tls_handshake_leaves_no_trace_in_the_log(
    size: int, end: Callable[[Peer], None], directory: Path, certificate: Certificate
) -> None:
    hello = client_hello(certificate)
    with serving_all(directory, ssl_context=certificate.server()) as server:
        peer = tcp(server)
        peer.send(hello[:size])
        end(peer)


def client_hello(certificate: Certificate) -> bytes:
    """The first bytes of a TLS client that goes to localhost."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        tunnel = Tunnel(ours, certificate.client(), "localhost")
        with pytest.raises(BlockingIOError):
            tunnel.shake_hands()
        return theirs.recv(65536)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("request_name", REQUESTS)
def test_tls_client_that_vanishes_before_it_is_answered_leaves_no_trace_in_the_log(
    request_name: str,
    end: Callable[[Peer], None],
    directory: Path,
    certificate: Certificate,
    gone: threading.Event,
) -> None:
    with serving_all(directory, ssl_context=certificate.server()) as server:
        peer = through(tunnel_to(server, certificate))
        if REQUESTS[request_name]:
            peer.send(REQUESTS[request_name])
        end(peer)
        gone.set()

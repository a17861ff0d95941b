"""The server's limits: how long a request may be and take, and how many come at once.

The peers are bare sockets.
"""

import contextlib
import errno
import http.server
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rfc6455.server
from fetching import (
    GOOD,
    answers_echo,
    deadlines_end,
    fetch,
    lets_in,
    parse,
    serving_files,
)
from peers import (
    PATIENCE,
    Peer,
    answer_to,
    close_payload,
    echo_messages,
    eventually,
    masked,
    request,
    serving,
    shake_hands,
    tcp,
)
from programs import ROOT
from rfc6455 import InvalidHandshake, Timeouts, WebSocketServer
from tls import Certificate

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")

# The size of a request, and the time for it


@pytest.mark.parametrize(("size", "status"), [(16384, 101), (16385, 431), (40000, 431)])
def test_server_refuses_a_head_over_16_kib(size: int, status: int) -> None:
    padding = b"\r\nX: " + b"a" * (size - len(GOOD) - 5) + b"\r\n\r\n"
    data = GOOD.replace(b"\r\n\r\n", padding)
    assert len(data) == size
    with serving(echo_messages) as server, tcp(server) as peer:
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
    with serving(echo_messages) as server:
        assert answer_to(server, data)[0] in (400, 414, 431)


@pytest.mark.parametrize(("lines", "status"), [(90, 101), (91, 431)])
def test_server_takes_90_header_lines_and_says_so_where_there_are_more(
    lines: int, status: int
) -> None:
    """GOOD has 5 of them."""
    padding = b"\r\n" + b"X: y\r\n" * (lines - 5) + b"\r\n"
    with serving(echo_messages) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"\r\n\r\n", padding))
        assert peer.read_head().startswith(f"HTTP/1.1 {status} ")
        if status == 101:
            assert answers_echo(peer)
        else:
            assert peer.read_to_eof().endswith(b": the request has more than 90 header lines\n")


@pytest.mark.parametrize("start", [b"", b"GET", GOOD[:-2], GOOD[:40]])
def test_server_ends_a_head_that_stops_coming(start: bytes) -> None:
    with serving(echo_messages, timeouts=Timeouts(open_timeout=1.5)) as server, tcp(server) as peer:
        peer.send(start)
        with shake_hands(server) as other:
            assert answers_echo(other)
        assert b" 101 " not in peer.read_to_eof()


@pytest.mark.parametrize(
    ("start", "over_tls"),
    [
        (b"GET / HTTP/1.1\r\nX: ", False),
        # The first record of a TLS handshake, of 16,384 bytes.
        (b"\x16\x03\x01\x40\x00", True),
    ],
    ids=["head", "tls"],
)
def test_server_ends_an_opening_handshake_that_comes_too_slowly(
    start: bytes, over_tls: bool, certificate: Certificate
) -> None:
    context = certificate.server() if over_tls else None
    timeouts = Timeouts(open_timeout=0.5)
    with (
        serving(echo_messages, timeouts=timeouts, ssl_context=context) as server,
        tcp(server) as peer,
    ):
        peer.send(start)
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(ConnectionError):  # the server may drop it between two bytes
            while peer.is_silent(0.05):
                peer.send(b"a")
                assert time.monotonic() < deadline
        assert b" 101 " not in peer.buffer


@pytest.mark.parametrize("start", [b"", b"GET", b"GET / HTTP/1.1\r\nHost"])
def test_server_survives_a_request_that_is_cut_off(start: bytes) -> None:
    with serving(echo_messages) as server:
        with tcp(server) as peer:
            peer.send(start)
            peer.sock.shutdown(socket.SHUT_WR)
            assert b" 101 " not in peer.read_to_eof()
        with shake_hands(server) as peer:
            assert answers_echo(peer)


def test_server_drops_a_client_that_does_not_end_after_the_answer() -> None:
    def is_dropped(peer: Peer) -> bool:
        try:
            peer.send(b"x")
        except ConnectionError:
            return True
        return False

    with (
        serving(echo_messages, timeouts=Timeouts(close_timeout=0.3)) as server,
        tcp(server) as peer,
    ):
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        peer.read_to_eof()
        eventually(lambda: is_dropped(peer))


def test_server_keeps_a_websocket_open_after_the_time_for_its_handshake_is_over() -> None:
    with (
        serving(echo_messages, timeouts=Timeouts(open_timeout=1.0)) as server,
        shake_hands(server) as peer,
    ):
        assert peer.is_silent(1.3)
        assert answers_echo(peer)


# The number of connections


def test_server_that_is_full_answers_503_until_a_client_leaves(public: Path) -> None:
    with (
        serving_files(public, max_connections=2) as server,
        shake_hands(server, "/ws") as first,
        shake_hands(server, "/ws"),
    ):
        answer = parse(answer_to(server, request(server, "/ws"))[1])
        assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
        assert answer.body == "503 Service Unavailable: the server is full\n"
        assert fetch(server, "/").status == 200
        first.send(masked(0x88, close_payload(1000)))
        assert first.read_close() == (1000, "")
        first.close()
        eventually(lambda: lets_in(server, "/ws"))


def test_server_answers_503_to_connections_beyond_the_spare_ones_without_reading_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rfc6455.server, "SPARE_CONNECTIONS", 2)
    with serving(echo_messages, max_connections=1) as server:
        with shake_hands(server), tcp(server), tcp(server), tcp(server) as fourth:
            answer = parse(fourth.read_to_eof().decode())
            assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
            assert answer.body == "503 Service Unavailable: the server is full\n"
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
    with serving(echo_messages, max_connections=1) as server:
        with tcp(server) as peer:
            assert peer.read_to_eof().startswith(b"HTTP/1.1 503 ")
        assert failures
        eventually(lambda: lets_in(server))
    assert "refused, 503 can't start new thread" in caplog.text


def test_server_whose_clock_gets_no_thread_answers_503_and_takes_the_next_client(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    eventually(deadlines_end)
    start: Callable[[threading.Thread], None] = threading.Thread.start
    failures: list[threading.Thread] = []

    def fail_once(thread: threading.Thread) -> None:
        if not failures and thread.name == "rfc6455-clock":
            failures.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_once)
    with serving(echo_messages) as server:
        with tcp(server) as peer:
            assert peer.read_to_eof().startswith(b"HTTP/1.1 503 ")
        assert failures
        with shake_hands(server) as peer:
            assert answers_echo(peer)
    assert "no thread for its deadlines" in caplog.text


def test_server_over_tls_without_a_thread_ends_the_connection_in_silence(
    monkeypatch: pytest.MonkeyPatch, certificate: Certificate
) -> None:
    monkeypatch.setattr(rfc6455.server, "SPARE_CONNECTIONS", 0)
    with (
        serving(echo_messages, max_connections=1, ssl_context=certificate.server()) as server,
        tcp(server),
        tcp(server) as second,
    ):
        assert second.read_to_eof() == b""


# The number of connections from one address


def test_address_with_all_its_connections_is_answered_429_until_one_of_them_ends(
    public: Path,
) -> None:
    with (
        serving_files(public, max_per_address=2) as server,
        shake_hands(server, "/ws") as first,
        shake_hands(server, "/ws"),
    ):
        answer = parse(answer_to(server, request(server, "/ws"))[1])
        assert (answer.status, answer.headers["Retry-After"]) == (429, "10")
        assert answer.body == (
            "429 Too Many Requests: there are 2 connections from 127.0.0.1 already\n"
        )
        assert fetch(server, "/").status == 200
        first.close()
        eventually(lambda: lets_in(server, "/ws"))
    assert not server.places._taken


def test_place_is_taken_and_given_back_one_by_one() -> None:
    places = rfc6455.server._PlacesByAddress(2)
    with places.taken_by("192.0.2.1"):
        for _ in range(2):
            with places.taken_by("192.0.2.1"), places.taken_by("192.0.2.2"):
                with pytest.raises(InvalidHandshake, match="there are 2 connections"):
                    with places.taken_by("192.0.2.1"):
                        pass
    assert not places._taken


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all addresses of 127.0.0.0/8")
def test_other_addresses_have_connections_of_their_own() -> None:
    with serving(echo_messages, max_per_address=1) as server, shake_hands(server):
        address = ("127.0.0.1", server.server_port)
        sock = socket.create_connection(address, PATIENCE, ("127.0.0.2", 0))
        with Peer(sock) as other:
            other.send(request(server))
            assert other.read_head().startswith("HTTP/1.1 101 ")


def test_client_behind_a_trusted_proxy_is_counted_by_the_address_that_the_proxy_names() -> None:
    options: dict[str, Any] = {"max_per_address": 1, "trusted_proxies": ["127.0.0.1"]}
    with (
        serving(echo_messages, **options) as server,
        shake_hands(server, X_Forwarded_For="192.0.2.1"),
        shake_hands(server, X_Forwarded_For="192.0.2.2"),
        shake_hands(server, X_Forwarded_For="2001:db8::1"),
    ):
        for address, counted_as in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.9, 192.0.2.2", "192.0.2.2"),
            ("::ffff:192.0.2.2", "192.0.2.2"),
            ("2001:db8::2", "2001:db8::/64"),
        ]:
            status, text = answer_to(server, request(server, X_Forwarded_For=address))
            assert status == 429
            assert f"from {counted_as} already" in text


def test_refused_handshake_takes_no_place_of_its_address() -> None:
    with serving(echo_messages, max_per_address=1, max_connections=1) as server:
        for _ in range(3):
            assert answer_to(server, request(server, Sec_WebSocket_Version="12"))[0] == 426
        with shake_hands(server):
            assert answer_to(server, request(server))[0] == 429
        eventually(lambda: lets_in(server))


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unix:", "unix:"),
    ],
)
def test_address_is_counted_as_one_client(address: str, counted_as: str) -> None:
    assert rfc6455.server._network_of(address) == counted_as


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_for_each_address_below_one_is_a_mistake_of_the_program(limit: int) -> None:
    with pytest.raises(ValueError, match="max_per_address must be at least 1"):
        WebSocketServer(("127.0.0.1", 0), {}, max_per_address=limit)


# No file descriptor is left

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


@pytest.mark.parametrize(("number", "status"), [(errno.EMFILE, 503), (errno.EACCES, 404)])
def test_file_for_which_there_is_no_descriptor_is_not_said_to_be_missing(
    public: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(http.server, "open", refuse, raising=False)
    with serving_files(public) as server:
        answer = fetch(server, "/page.css")
    assert answer.status == status
    assert answer.headers["Retry-After"] == ("10" if status == 503 else None)


def test_server_without_descriptors_waits_and_serves_again() -> None:
    pytest.importorskip("resource")
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        command = [sys.executable, "-c", FEW_DESCRIPTORS]
        process = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
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

"""What the server does with HTTP requests, good and bad, that open no WebSocket.

The peers are bare sockets.
"""

import socket
import struct
from email.message import Message
from pathlib import Path

import pytest

from fetching import GOOD, HELLO, answers_echo, assert_refused, fetch, lets_in, parse, serving_files
from peers import answer_to, echo_messages, serving, shake_hands, tcp
from rfc6455 import Handshake

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


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


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/healthz", 200),
        ("http://localhost/healthz", 200),
        ("HTTPS://localhost/healthz?x", 200),
        ("http://localhost", 404),
        ("http://localhost?/healthz", 404),
        ("//healthz", 404),
        ("///healthz", 404),
        ("http://localhost//healthz", 404),
        ("http:////healthz", 404),
        ("/%68ealthz", 404),
        ("/%2fhealthz", 404),
        ("/./healthz", 404),
        ("/x/../healthz", 404),
        ("/healthz/", 404),
        ("/healthz%00", 404),
        ("/HEALTHZ", 404),
        ("healthz", 400),
        ("\\healthz", 400),
        ("/\\healthz", 400),
        ("/\\/healthz", 400),
        ("http://localhost\\healthz", 400),
        ("http://localhost/\\healthz", 400),
        ("http:/healthz", 400),
        ("ftp://localhost/healthz", 400),
        ("*", 400),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_path_has_one_spelling_so_that_a_proxy_can_guard_it(
    target: str, status: int, method: str
) -> None:
    """A proxy that refuses /healthz, or asks for a password there, lets other spellings pass."""
    pages = {"/healthz": lambda _: "ok\n"}
    with serving(echo_messages, path="/ws", pages=pages) as server:
        assert fetch(server, target, method).status == status


@pytest.mark.parametrize("target", ["//ws", "/\\ws", "ws", "\\ws", "/%77s", "/./ws"])
def test_websocket_has_one_path_so_that_a_proxy_can_guard_it(target: str) -> None:
    head = GOOD.replace(b"GET / ", f"GET {target} ".encode())
    assert_refused(head, 400, 404, path="/ws")


def test_server_takes_no_content_type_apart() -> None:
    """The standard library would, to find the parts of a mail, in time that grows as a square."""
    seen: list[Message] = []

    def look(agreement: Handshake) -> None:
        seen.append(agreement.headers)

    head = GOOD.removesuffix(b"\r\n") + b'Content-Type: multipart/mixed; a=";;;;;;;;\r\n\r\n'
    with serving(echo_messages, check=look) as server, tcp(server) as peer:
        peer.send(head)
        assert peer.read_head().startswith("HTTP/1.1 101 ")
    (headers,) = seen
    assert headers.get_all("Content-Type") == ['multipart/mixed; a=";;;;;;;;']
    assert not headers.is_multipart()
    assert headers.defects == []  # it would complain that the parts are missing


def test_server_sends_no_interim_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with serving(echo_messages, directory=tmp_path) as server:
        answer = fetch(server, "/file", "GET", "Expect: 100-continue")
        assert answer.status in (200, 417)
        with shake_hands(server, Expect="100-continue") as peer:
            assert answers_echo(peer)


def test_server_answers_the_first_of_pipelined_requests_and_ends(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    get = b"GET /file HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
    with serving(echo_messages, path="/ws", directory=tmp_path) as server:
        status, text = answer_to(server, get + get)
    assert status == 200
    assert text.count("HTTP/1.1 ") == text.count("a file") == 1
    assert "\r\nConnection: close\r\n" in text


def test_server_ends_a_refused_upload_without_a_reset() -> None:
    with serving(echo_messages) as server, tcp(server) as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
        peer.send(bytes(200000))
        assert peer.read_to_eof().startswith(b"HTTP/1.1 405 ")


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
    with serving(echo_messages, path="/ws", directory=tmp_path) as server:
        with tcp(server) as peer:
            peer.send(data)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert lets_in(server, "/ws")


# Clients that are no browsers


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
        (b"OPTIONS / HTTP/1.0\r\n\r\n", 204),  # what HAProxy sends unless it is told otherwise
        (b"OPTIONS / HTTP/1.0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 204),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 204),
        (b"GET /nosuch HTTP/1.0\r\n\r\n", 404),
    ],
)
def test_server_answers_a_health_check_that_names_no_host(
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
def test_server_demands_a_host_of_everything_but_http_1_0(
    public: Path, data: bytes, status: int
) -> None:
    with serving_files(public) as server:
        assert answer_to(server, data)[0] == status


def test_server_names_the_methods_that_it_allows(public: Path) -> None:
    with serving_files(public) as server:
        for method in ("OPTIONS", "POST"):
            answer = fetch(server, "/page.css", method)
            assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
            assert answer.headers["Server"] == "rfc6455"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"FOO / HTTP/1.1\r\nHost: localhost\r\n\r\n", "501 Not Implemented: Unsupported method"),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", "505 HTTP Version Not Supported: Invalid"),
    ],
)
def test_server_repeats_why_http_server_refuses_a_request(
    public: Path, data: bytes, body: str
) -> None:
    with serving_files(public) as server:
        assert parse(answer_to(server, data)[1]).body.startswith(body)


def test_server_serves_a_client_that_would_rather_speak_http_2(public: Path) -> None:
    more = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]
    with serving_files(public) as server:
        answer = fetch(server, "/page.css", "GET", *more)
    assert (answer.status, answer.body) == (200, "p {}")

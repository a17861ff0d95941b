"""The server over TLS (RFC 6455, 10.6).

The peers are bare sockets.
"""

import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import cast

import pytest

from fetching import GOOD, HELLO, HELLO_BACK, answers_echo, deadlines_end, parse, serving_files
from peers import (
    PATIENCE,
    answer_to,
    close_payload,
    echo_messages,
    eventually,
    masked,
    request,
    serving,
    tcp,
)
from rfc6455 import Timeouts, WebSocket
from tls import BAD_RECORD, Certificate, Tunnel, make_certificate, through, tunnel_to

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


@pytest.mark.requirement("4.2.2-1", "10.6-1")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_server_runs_handshake_messages_and_close_inside_tls(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    client = certificate.client()
    client.minimum_version = client.maximum_version = version
    with serving(echo_messages, ssl_context=certificate.server()) as server:
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
            assert peer.read_close() == (1000, "")  # the EOF after it is a close_notify
    assert b"HTTP" not in tunnel.wire
    assert HELLO_BACK not in tunnel.wire


@pytest.mark.requirement("4.2.2-1")
def test_server_reads_a_request_that_comes_with_the_end_of_the_tls_handshake(
    certificate: Certificate,
) -> None:
    with (
        serving(echo_messages, ssl_context=certificate.server()) as server,
        through(tunnel_to(server, certificate, hold_back=True)) as peer,
    ):
        peer.send(request(server) + HELLO)
        assert peer.read_head().startswith("HTTP/1.1 101 ")
        assert peer.read(7) == HELLO_BACK


def test_server_answers_a_request_between_the_end_of_the_tls_handshake_and_a_close_notify(
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


# HTTP in clear on the port for TLS


@pytest.mark.requirement("4.2.2-1")
def test_server_refuses_a_websocket_in_clear_on_the_tls_port_and_says_why(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    opened: list[WebSocket] = []
    with serving(opened.append, ssl_context=certificate.server()) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"127.0.0.1", b"chat.example:8000") + HELLO)
        answer = parse(peer.read_to_eof().decode("latin-1"))
    eventually(deadlines_end)
    reason = "this port speaks HTTPS: use wss://chat.example:8000"
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.body == f"400 Bad Request: {reason}\n"
    assert f"refused, 400 '{reason}'" in caplog.text
    assert not opened


@pytest.mark.parametrize(
    ("head", "host"),
    [
        (b"GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n", "chat.example"),
        (b"GET /page.css HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[::1]:80"),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "a"),
        (b"OPTIONS * HTTP/1.0\r\n\r\n", "localhost:PORT"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "localhost:PORT"),
    ],
)
def test_server_answers_http_in_clear_on_the_tls_port_with_the_url_to_use(
    public: Path, certificate: Certificate, head: bytes, host: str
) -> None:
    with serving_files(public, ssl_context=certificate.server()) as server:
        status, text = answer_to(server, head)
        url = "https://" + host.replace("PORT", str(server.server_port))
    assert status == 400
    assert text.endswith(f"\r\n\r\n400 Bad Request: this port speaks HTTPS: use {url}\n")
    assert text.count("HTTP/1.1 ") == 1


def test_server_answers_head_in_clear_on_the_tls_port_without_a_body(
    certificate: Certificate,
) -> None:
    with serving(echo_messages, ssl_context=certificate.server()) as server:
        status, text = answer_to(server, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status == 400
    assert text.endswith("\r\n\r\n")


def test_server_answers_http_that_comes_byte_by_byte_in_clear_on_the_tls_port(
    certificate: Certificate,
) -> None:
    with serving(echo_messages, ssl_context=certificate.server()) as server, tcp(server) as peer:
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n":
            peer.send(bytes([byte]))
        assert "use https://a\n" in peer.read_to_eof().decode()


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"G\r\n", b"PRI * HTTP/2.0\r\n\r\n"])
def test_server_refuses_in_words_what_is_neither_tls_nor_a_request(
    certificate: Certificate, data: bytes
) -> None:
    with serving(echo_messages, ssl_context=certificate.server()) as server:
        status, text = answer_to(server, data)
    assert status in (400, 505), text


@pytest.mark.parametrize("data", [b"", b"G", b"GET / HTTP/1.1\r\nHost:", b"\x16"])
def test_server_drops_who_says_too_little_on_the_tls_port(
    certificate: Certificate, data: bytes
) -> None:
    context = certificate.server()
    timeouts = Timeouts(open_timeout=0.3)
    with (
        serving(echo_messages, timeouts=timeouts, ssl_context=context) as server,
        tcp(server) as peer,
    ):
        peer.send(data)
        assert peer.read_to_eof() == b""


def test_server_without_tls_says_so_at_once_to_a_client_that_speaks_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with serving(echo_messages) as server, tcp(server) as peer:
        # The beginning of a ClientHello. No line end follows it for which to wait.
        peer.send(bytes.fromhex("16030100c8010000c40303") + bytes(194))
        answer = parse(peer.read_to_eof().decode("latin-1"))
    reason = "this port does not speak TLS: use an http: or ws: URL"
    assert (answer.status, answer.body) == (400, f"400 Bad Request: {reason}\n")
    assert f"refused, 400 '{reason}'" in caplog.text


# Another certificate while the server runs


def test_server_gives_a_new_certificate_to_new_clients_and_keeps_the_old_ones(
    certificate: Certificate, tmp_path: Path
) -> None:
    renewed = make_certificate(tmp_path)
    contexts = [renewed.server(), certificate.server()]
    with (
        serving(echo_messages, ssl_context=contexts.pop) as server,
        through(tunnel_to(server, certificate)) as old,
    ):
        old.send(request(server))
        old.read_head()
        server.renew_ssl_context()
        with through(tunnel_to(server, renewed)) as new:  # it trusts no other certificate
            new.send(request(server))
            new.read_head()
            assert answers_echo(new)
            assert answers_echo(old)
        with tcp(server) as bare, pytest.raises(ssl.SSLCertVerificationError):
            Tunnel(bare.sock, certificate.client(), "localhost").shake_hands()


def test_server_keeps_its_certificate_where_no_new_one_can_be_made(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = [certificate.server()]

    def make() -> ssl.SSLContext:
        if not contexts:
            raise FileNotFoundError(2, "No such file or directory")
        return contexts.pop()

    with serving(echo_messages, ssl_context=make) as server:
        server.renew_ssl_context()
        with through(tunnel_to(server, certificate)) as peer:
            peer.send(request(server))
            peer.read_head()
            assert answers_echo(peer)
    words = "the certificate is not renewed, and the old one stays: No such file or directory"
    assert words in caplog.text


# The end of the TLS handshake


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


def test_server_serves_others_while_a_tls_client_is_silent_and_drops_that_one(
    certificate: Certificate,
) -> None:
    timeouts = Timeouts(open_timeout=2.0)
    context = certificate.server()
    with (
        serving(echo_messages, timeouts=timeouts, ssl_context=context) as server,
        tcp(server) as silent,
    ):
        with through(tunnel_to(server, certificate)) as peer:
            peer.send(request(server))
            assert peer.read_head().startswith("HTTP/1.1 101 ")
            assert answers_echo(peer)
        assert silent.read_to_eof() == b""


def test_server_serves_files_over_tls_and_ends_with_a_close_notify(
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
        serving(echo_messages, ssl_context=certificate.server()) as server,
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


@pytest.mark.requirement("4.2.2-1")
@pytest.mark.parametrize("when", ["in the handshake", "with its end", "later"])
def test_server_ends_a_client_that_breaks_tls(certificate: Certificate, when: str) -> None:
    context = certificate.server()
    timeouts = Timeouts(open_timeout=3.0)
    with (
        serving(echo_messages, timeouts=timeouts, ssl_context=context) as server,
        tcp(server) as bare,
    ):
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

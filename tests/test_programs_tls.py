"""Both servers with --cert, SIGHUP, and the echo client at a server with TLS."""

import os
import signal
import socket
import ssl
from collections.abc import Iterator

import pytest

from chatting import hear_said, say
from peers import PATIENCE, Peer, eventually, masked, request, tcp
from programs import Program, await_handler, chat, echo, lines_with, run, running
from tls import Certificate, through, tunnel_to

SERVERS = pytest.mark.parametrize("script", ["chat_server.py", "echo_server.py"])
READ_AGAIN = "the certificate was read again; new connections use it"
NOT_RENEWED = "the certificate is not renewed, and the old one stays: "


@pytest.fixture(scope="module")
def echo_over_tls(certificate: Certificate) -> Iterator[Program]:
    with echo(*certificate.options) as program:
        yield program


def join(server: Program, trusted: Certificate, script: str) -> Peer:
    """A client that trusts this certificate alone, and whose handler runs."""
    peer = through(tunnel_to(server, trusted))
    peer.send(request(server, "/ws" if script == "chat_server.py" else "/echo"))
    assert peer.read_head().startswith("HTTP/1.1 101 ")
    await_handler(peer)
    return peer


# The certificate is read again


@SERVERS
def test_sighup_gives_new_clients_the_new_certificate_and_ends_no_connection(
    script: str, tls_files: Certificate, certificate: Certificate, renewed: Certificate
) -> None:
    with running(script, *tls_files.options) as server:
        assert server.url == f"https://localhost:{server.server_port}"
        with join(server, certificate, script) as old:
            tls_files.replace_by(renewed)
            with join(server, certificate, script):
                pass  # what is in the files does not count yet
            server.signal(signal.SIGHUP)
            assert eventually(lambda: lines_with(server, READ_AGAIN))
            with join(server, renewed, script) as new:
                await_handler(new)
                await_handler(old)


@SERVERS
def test_bad_new_certificate_is_logged_in_words_and_the_old_one_stays(
    script: str, tls_files: Certificate, certificate: Certificate, renewed: Certificate
) -> None:
    with running(script, *tls_files.options) as server, join(server, certificate, script) as old:
        tls_files.certificate.write_bytes(renewed.certificate.read_bytes())  # but not its key
        server.signal(signal.SIGHUP)
        words = (
            f"{NOT_RENEWED}the key in {tls_files.key} does not belong to the first certificate in"
        )
        assert eventually(lambda: lines_with(server, words))
        tls_files.key.unlink()
        server.signal(signal.SIGHUP)
        missing = f"{NOT_RENEWED}the file of the key cannot be read: {tls_files.key}: No such file"
        assert eventually(lambda: lines_with(server, missing))
        with join(server, certificate, script) as new:
            await_handler(new)
            await_handler(old)
        tls_files.replace_by(renewed)
        server.signal(signal.SIGHUP)
        assert eventually(lambda: lines_with(server, READ_AGAIN))
        with join(server, renewed, script):
            pass


@SERVERS
def test_sighup_ends_a_server_without_a_certificate(script: str) -> None:
    server = Program(script)
    try:
        server.signal(signal.SIGHUP)
        assert server.wait() == -signal.SIGHUP
    finally:
        server.discard()


def test_hundred_sighups_at_once_harm_nobody(
    tls_files: Certificate, certificate: Certificate
) -> None:
    with chat(*tls_files.options) as server, join(server, certificate, "chat_server.py") as peer:
        for number in range(100):
            server.signal(signal.SIGHUP)
            say(peer, str(number))
            assert hear_said(peer)["message"] == str(number)
        assert eventually(lambda: lines_with(server, READ_AGAIN))


# What is not TLS 1.2 or newer

HELLO = "16{version}002f 0100002b {version} {random} 00 0004c009002f 0100"


# The fatal alerts handshake_failure and protocol_version (RFC 8446, 6.2).
HANDSHAKE_FAILURE = b"\x02\x28"
PROTOCOL_VERSION = b"\x02\x46"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0300", HANDSHAKE_FAILURE), ("0301", PROTOCOL_VERSION), ("0302", PROTOCOL_VERSION)],
)
def test_server_refuses_what_is_older_than_tls_1_2(
    echo_over_tls: Program, version: str, expected: bytes
) -> None:
    hello = HELLO.format(version=version, random="52" * 32)
    with tcp(echo_over_tls) as peer:
        peer.send(bytes.fromhex(hello))
        alert = peer.read_to_eof()
    assert alert[:1] == b"\x15"
    assert alert[5:] == expected


def test_http_without_tls_is_told_the_url_to_use(echo_over_tls: Program) -> None:
    port = echo_over_tls.server_port
    data = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
    status, text = echo_over_tls.answer(data)
    assert status == 400
    assert text.endswith(f": this port speaks HTTPS: use https://localhost:{port}\n")


# The echo client


def echo_url(server: Program) -> str:
    return f"{server.ws_url}/echo"


def test_client_refuses_a_self_signed_certificate_and_says_what_to_do(
    echo_over_tls: Program,
) -> None:
    ended = run("echo_client.py", echo_url(echo_over_tls), "secret")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.decode() == (
        f"cannot connect to {echo_url(echo_over_tls)}: the server's certificate cannot be "
        "verified: self-signed certificate; to trust it, set the environment variable "
        "SSL_CERT_FILE to a file that has it; --insecure connects all the same, but then nothing "
        "proves who answers\n"
    )
    assert "secret" not in echo_over_tls.output


def test_client_trusts_the_certificate_that_ssl_cert_file_names(
    echo_over_tls: Program, certificate: Certificate
) -> None:
    env = os.environ | {"SSL_CERT_FILE": str(certificate.certificate)}
    ended = run("echo_client.py", echo_url(echo_over_tls), "hi", env=env)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == b"Send: hi\nReceive: [hi]\n"


def test_client_refuses_a_certificate_for_another_name_although_it_trusts_it(
    echo_over_tls: Program, certificate: Certificate
) -> None:
    env = os.environ | {"SSL_CERT_FILE": str(certificate.certificate)}
    url = f"wss://127.0.0.1:{echo_over_tls.server_port}/echo"
    ended = run("echo_client.py", url, env=env)
    assert ended.returncode == 1
    words = b"not valid for '127.0.0.1'; whoever runs the server can mend that, unless the URL"
    assert words in ended.stderr


def test_client_with_insecure_talks_to_anybody(echo_over_tls: Program) -> None:
    url = f"wss://127.0.0.1:{echo_over_tls.server_port}/echo"
    ended = run("echo_client.py", "--insecure", url, "hi")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == b"Send: hi\nReceive: [hi]\n"


def test_client_says_that_the_server_does_not_speak_tls() -> None:
    with echo() as server:
        url = f"wss://127.0.0.1:{server.server_port}/echo"
        ended = run("echo_client.py", url)
    assert ended.returncode == 1
    assert ended.stderr.decode() == (
        f"cannot connect to {url}: the server does not speak TLS at this port; a URL that begins "
        "with ws: may work\n"
    )


def test_client_at_a_tls_port_without_tls_is_told_the_url_to_use(echo_over_tls: Program) -> None:
    port = echo_over_tls.server_port
    ended = run("echo_client.py", f"ws://localhost:{port}/echo")
    assert ended.returncode == 1
    assert f"this port speaks HTTPS: use wss://localhost:{port}" in ended.stderr.decode()


def test_client_help_says_what_insecure_gives_up() -> None:
    text = " ".join(run("echo_client.py", "--help").stdout.decode().split())
    assert "anyone on the way to the server can read and change what you send" in text


# The end


def test_server_closes_clients_over_tls_with_1001_when_it_is_told_to_end(
    tls_files: Certificate, certificate: Certificate
) -> None:
    with chat(*tls_files.options) as server:
        peer = join(server, certificate, "chat_server.py")
        server.signal()
        while (frame := peer.read_frame()).first == 0x81:
            pass
        assert frame.payload[:2] == b"\x03\xe9"
        peer.send(masked(0x88, frame.payload))
        assert peer.read_to_eof() == b""
        peer.close()


def test_client_that_breaks_off_the_tls_handshake_is_one_line_in_the_log(
    certificate: Certificate,
) -> None:
    """On a server of its own: a line that repeats one of the last ten seconds comes later."""
    with echo(*certificate.options) as server:
        sock = socket.create_connection(server.address, PATIENCE)
        host, port = sock.getsockname()
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")
        (line,) = eventually(lambda: lines_with(server, f"{host}:{port}:"))
        assert "TLS: tlsv1 alert unknown ca" in line

"""`connect` over TLS (RFC 6455, 4.1, 10.6).

The servers are bare sockets.
"""

import contextlib
import re
import ssl
from collections.abc import Iterator

import pytest

from peers import PATIENCE, Peer, RawServer, response, unmasked
from raw_servers import answer_normal_close, read_rest
from rfc6455 import InvalidHandshake, connect
from tls import Certificate, Tunnel, records, through


@contextlib.contextmanager
def refusing_tls(certificate: Certificate) -> Iterator[RawServer]:
    """A TLS server whose handshake the client must break off before it sends its request."""

    def script(peer: Peer) -> None:
        tunnel = Tunnel(peer.sock, certificate.server())
        with pytest.raises(ssl.SSLError, match="ALERT"):
            tunnel.shake_hands()
        assert b"GET" not in tunnel.wire

    with RawServer(script) as server:
        yield server


@pytest.mark.requirement("4.1-6", "10.6-1")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_runs_handshake_messages_and_close_inside_tls(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    context = certificate.server()
    context.minimum_version = context.maximum_version = version

    def script(bare: Peer) -> None:
        tunnel = Tunnel(bare.sock, context)
        tunnel.shake_hands()
        peer = through(tunnel)
        peer.send(response(peer.read_head()) + unmasked(0x81, b"Hello"))
        assert peer.read_frame() == (0x82, bytes(100_000))
        peer.send(unmasked(0x82, bytes(100_000)))
        answer_normal_close(peer)
        tunnel.say_farewell()
        assert peer.read_to_eof() == b""  # the client's close_notify
        assert set(records(tunnel.wire)) <= {20, 21, 22, 23}
        assert b"GET " not in tunnel.wire

    with (
        RawServer(script) as server,
        connect(f"wss://localhost:{server.port}/", ssl_context=certificate.client()) as websocket,
    ):
        assert websocket.receive(PATIENCE) == "Hello"
        websocket.send(bytes(100_000))
        assert websocket.receive(PATIENCE) == bytes(100_000)


@pytest.mark.requirement("4.1-8")
def test_client_names_the_host_in_its_client_hello(certificate: Certificate) -> None:
    names: list[str | None] = []
    context = certificate.server()
    context.sni_callback = lambda _, name, __: names.append(name)

    def script(bare: Peer) -> None:
        tunnel = Tunnel(bare.sock, context)
        tunnel.shake_hands()
        peer = through(tunnel)
        peer.send(response(peer.read_head()))
        answer_normal_close(peer)

    with (
        RawServer(script) as server,
        connect(f"wss://localhost:{server.port}/", ssl_context=certificate.client()),
    ):
        pass
    assert names == ["localhost"]


def test_client_repeats_a_refusal_that_comes_in_several_tls_records(
    certificate: Certificate,
) -> None:
    """A TLS record may hold more than the client asks for at once."""
    text = b"see the manual, " * 100

    def refuse(peer: Peer) -> None:
        tunnel = Tunnel(peer.sock, certificate.server())
        tunnel.shake_hands()
        through(tunnel).read_head()
        tunnel.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 1600\r\n\r\n")
        tunnel.sendall(text)
        with contextlib.suppress(EOFError):
            tunnel.recv(1)

    with RawServer(refuse) as server, pytest.raises(InvalidHandshake) as refusal:
        connect(f"wss://localhost:{server.port}/", ssl_context=certificate.client())
    assert refusal.value.body.startswith("see the manual, see the manual")


@pytest.mark.requirement("4.1-7")
def test_client_refuses_a_certificate_that_no_authority_has_signed(
    certificate: Certificate,
) -> None:
    with refusing_tls(certificate) as server, pytest.raises(ssl.SSLCertVerificationError):
        connect(f"wss://localhost:{server.port}/")


@pytest.mark.requirement("4.1-7")
def test_client_refuses_a_certificate_for_another_name(certificate: Certificate) -> None:
    with refusing_tls(certificate) as server, pytest.raises(ssl.SSLCertVerificationError):
        connect(f"wss://127.0.0.1:{server.port}/", ssl_context=certificate.client())


SERVER_HELLO = "160301002a 02000026 {version} {random} 00 {cipher} 00"


@pytest.mark.requirement("10.6-2")
@pytest.mark.parametrize(
    ("version", "cipher"),
    [
        ("0300", "002f"),  # SSL 3.0
        ("0301", "002f"),  # TLS 1.0
        ("0302", "002f"),  # TLS 1.1
        ("0303", "0001"),  # TLS 1.2: no encryption, MD5
        ("0303", "003b"),  # no encryption, SHA-256
        ("0303", "0003"),  # RC4 with 40 bits, for export
        ("0303", "0005"),  # RC4
        ("0303", "0009"),  # DES
        ("0303", "0034"),  # no authentication
    ],
)
def test_client_refuses_weak_tls(version: str, cipher: str) -> None:
    hello = SERVER_HELLO.format(version=version, random="52" * 32, cipher=cipher)

    def script(peer: Peer) -> None:
        start = peer.read(5)
        assert start[:2] == b"\x16\x03"
        peer.read(int.from_bytes(start[3:], "big"))
        peer.send(bytes.fromhex(hello))
        alert = read_rest(peer)
        assert re.fullmatch(b"\x15\x03.\x00\x02\x02.", alert, re.DOTALL), "no fatal alert"

    with RawServer(script) as server, pytest.raises(ssl.SSLError):
        connect(f"wss://127.0.0.1:{server.port}/")


@pytest.mark.requirement("4.1-6", "4.1-7")
def test_client_sends_nothing_in_clear_to_a_server_without_tls() -> None:
    received: list[bytes] = []

    def script(peer: Peer) -> None:
        received.append(peer.read(1))
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        received.append(read_rest(peer))

    with RawServer(script) as server, pytest.raises(ssl.SSLError):
        connect(f"wss://127.0.0.1:{server.port}/")
    assert received[0] == b"\x16"
    assert b"GET " not in received[1]

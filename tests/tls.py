"""TLS for tests: a certificate for localhost, made by the openssl command, and a TLS endpoint
whose steps a test takes one by one.
"""

import base64
import contextlib
import hashlib
import socket
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple, cast

from finding import find_openssl, require
from peers import PATIENCE, Peer, Reachable

REQUEST = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = {name}
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost
"""
EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
# A TLS record of 32 bytes that no key has encrypted.
BAD_RECORD = bytes.fromhex("1703030020") + bytes(32)


class Certificate(NamedTuple):
    """The files of a self-signed certificate for the name localhost, and of its key."""

    certificate: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        """The options with which our servers use it."""
        return ("--cert", str(self.certificate), "--key", str(self.key))

    def replace_by(self, other: "Certificate") -> None:
        """Put the contents of another certificate and key into these files, as a renewal does."""
        for ours, theirs in zip(self, other, strict=True):
            new = ours.with_suffix(".new")
            new.write_bytes(theirs.read_bytes())
            new.replace(ours)

    def copy_to(self, directory: Path) -> "Certificate":
        """A copy that a test may replace."""
        copy = Certificate(directory / "certificate.pem", directory / "key.pem")
        copy.replace_by(self)
        return copy

    def public_key_hash(self) -> str:
        """The SHA-256 of its public key, in the form in which Chromium takes it."""
        pem = run_openssl("x509", "-in", str(self.certificate), "-pubkey", "-noout")
        key = base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))
        return base64.b64encode(hashlib.sha256(key).digest()).decode()

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        """A context that trusts this certificate alone, and checks the server's name."""
        return ssl.create_default_context(cafile=self.certificate)


def run_openssl(*arguments: str) -> bytes:
    """What openssl prints. Skips the test where there is no openssl."""
    openssl = require(find_openssl(), "openssl", "apt install openssl, or brew install openssl")
    command = [openssl, *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE).stdout


def make_certificate(
    directory: Path, name: str = "localhost", key: tuple[str, ...] = EC_KEY
) -> Certificate:
    """Make a certificate for localhost in this directory, whose subject has this name.

    Skips the test where there is no openssl.
    """
    made = Certificate(directory / "certificate.pem", directory / "key.pem")
    config = directory / "request.cnf"
    config.write_text(REQUEST.format(name=name))
    files = ("-out", str(made.certificate), "-keyout", str(made.key))
    run_openssl("req", "-x509", "-nodes", "-days", "2", "-config", str(config), *key, *files)
    return made


class Tunnel:
    """A TLS endpoint over a socket, used in place of the socket.

    `wire` holds the encrypted bytes that came. A read raises EOFError where TCP ends without the
    close_notify that TLS wants before it.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None = None
    ) -> None:
        self.sock = sock
        self.wire = b""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )

    def shake_hands(self, *, hold_back: bool = False) -> None:
        """Take the TLS handshake to its end.

        With `hold_back` this side's last message of it is sent together with its first data.
        """
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
        if not hold_back:
            self._flush()

    def take_held_back(self) -> bytes:
        """The encrypted bytes that would be sent next: the caller sends them instead."""
        return self._outgoing.read()

    def sendall(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def recv(self, size: int) -> bytes:
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    def say_farewell(self) -> None:
        """Send a close_notify, and do not wait for the other side's."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._flush()

    def settimeout(self, seconds: float) -> None:
        self.sock.settimeout(seconds)

    def close(self) -> None:
        self.sock.close()

    def _flush(self) -> None:
        self.sock.sendall(self.take_held_back())

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("TCP ended without a close_notify")
        self.wire += data
        self._incoming.write(data)


def records(wire: bytes) -> list[int]:
    """The content type of each TLS record in these bytes (RFC 8446, 5.1); all must be whole."""
    types = []
    while wire:
        size = 5 + int.from_bytes(wire[3:5], "big")
        assert wire[1] == 3, "this is not a TLS record"
        assert len(wire) >= size, "the TLS record is cut off"
        types.append(wire[0])
        wire = wire[size:]
    return types


def through(tunnel: Tunnel) -> Peer:
    """A peer that sends and receives through the tunnel."""
    return Peer(cast(socket.socket, tunnel))


def tunnel_to(server: Reachable, certificate: Certificate, *, hold_back: bool = False) -> Tunnel:
    """A client's tunnel to a TLS server, its handshake done; `hold_back` as in `shake_hands`."""
    sock = socket.create_connection(("127.0.0.1", server.server_port), PATIENCE)
    tunnel = Tunnel(sock, certificate.client(), "localhost")
    tunnel.shake_hands(hold_back=hold_back)
    return tunnel

"""TLS for tests: a certificate for localhost, made by the openssl command, and TLS by hand."""

import contextlib
import socket
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple, cast

from conftest import find_openssl, require
from peers import PATIENCE, Peer

REQUEST = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = localhost
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost
"""


class Certificate(NamedTuple):
    """A certificate that names localhost and nothing else, signed by itself."""

    certificate: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        """Trusts this certificate, and checks the name."""
        return ssl.create_default_context(cafile=self.certificate)


def make_certificate(directory: Path) -> Certificate:
    """Call it in a fixture: it skips the test where there is no openssl."""
    openssl = require(find_openssl(), "openssl", "apt install openssl, or brew install openssl")
    made = Certificate(directory / "certificate.pem", directory / "key.pem")
    config = directory / "request.cnf"
    config.write_text(REQUEST)
    command = [openssl, "req", "-x509", "-nodes", "-days", "2", "-config", str(config)]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-out", str(made.certificate), "-keyout", str(made.key)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    return made


class Tunnel:
    """TLS over a socket, by hand: `wire` records what came, and a flight can be held back.

    The end of TCP without a close_notify before it raises EOFError.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None = None
    ) -> None:
        self.sock = sock
        self.wire = b""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )

    def shake_hands(self, *, hold_back: bool = False) -> None:
        """With `hold_back` this side's last flight goes out together with its first data."""
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
        """What would go out next, for the caller to send as he likes."""
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
        """Send a close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):  # the other side's is not there yet
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
            raise EOFError("the end of TCP without a close_notify")
        self.wire += data
        self._incoming.write(data)


def records(wire: bytes) -> list[int]:
    """The content types of the TLS records that these bytes are, whole (RFC 8446, 5.1)."""
    types = []
    while wire:
        size = 5 + int.from_bytes(wire[3:5], "big")
        assert wire[1] == 3, "no TLS record"
        assert len(wire) >= size, "half a TLS record"
        types.append(wire[0])
        wire = wire[size:]
    return types


def through(tunnel: Tunnel) -> Peer:
    """A peer that speaks through the tunnel."""
    return Peer(cast(socket.socket, tunnel))

"""Peers for tests: endpoints on bare sockets, which send and expect literal bytes.

They share no code with the layer under test, so that the same fault can't be on both sides. Every
wait is bounded by PATIENCE.
"""

import base64
import contextlib
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from rfc6455 import Timeouts, WebSocket, WebSocketServer

PATIENCE = 10.0  # seconds; a test fails if what it waits for has not happened by then
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the Sec-WebSocket-Key in RFC 6455, 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the Sec-WebSocket-Accept for it
MASK = bytes.fromhex("37fa213d")  # the masking key in RFC 6455, 5.7

# For tests that wait until a time is over. What a test must get done in time needs more.
QUICK = Timeouts(
    open_timeout=1.0, ping_interval=0.4, ping_timeout=0.4, close_timeout=1.0, write_timeout=0.8
)


def masked(first: int, payload: bytes = b"", key: bytes = MASK) -> bytes:
    """A frame of a client. `first` is its first byte: FIN, the reserved bits, the opcode."""
    return bytes([first]) + payload_length(payload, 0x80) + key + xor(payload, key)


def unmasked(first: int, payload: bytes = b"") -> bytes:
    """A frame of a server. `first` is its first byte: FIN, the reserved bits, the opcode."""
    return bytes([first]) + payload_length(payload) + payload


def payload_length(payload: bytes, mask_bit: int = 0) -> bytes:
    """The payload length as a frame's header has it (5.2), with the mask bit, 0x80 or 0."""
    size = len(payload)
    if size < 126:
        return bytes([mask_bit | size])
    if size < 65536:
        return bytes([mask_bit | 126]) + size.to_bytes(2, "big")
    return bytes([mask_bit | 127]) + size.to_bytes(8, "big")


def xor(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask a payload (5.3). As one large number, because some tests send megabytes."""
    size = len(payload)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a Close frame (5.5.1)."""
    return code.to_bytes(2, "big") + reason.encode()


def has_ipv6() -> bool:
    """Whether a test may listen on ::1, which not every container has."""
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def free_port() -> int:
    """A free port of 127.0.0.1, for programs that cannot choose one and say which.

    It is below those that outgoing connections get, or one of them might take it while its server
    is away, or even connect to itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def eventually(check: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Call `check` until it returns something true, and return that."""
    deadline = time.monotonic() + patience
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.005)
    return answer


class Frame(NamedTuple):
    """A frame that came. `first` is its first byte: FIN, the reserved bits, the opcode."""

    first: int
    payload: bytes


class Peer:
    """One end of a TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        if len(self.buffer) < size:
            found = bytearray(self.buffer)
            try:
                while len(found) < size:
                    more = self.sock.recv(max(65536, size - len(found)))
                    if not more:
                        raise EOFError(f"TCP ended after {bytes(found[:200])!r}")
                    found += more
            finally:  # keep what has come, even if the rest does not come in time
                self.buffer = bytes(found)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_head(self) -> str:
        """A request's or response's head, its empty line included."""
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(f"TCP ended after {self.buffer!r}")
            self.buffer += data
        head, end, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return (head + end).decode("latin-1")

    def read_frame(self) -> Frame:
        """The next frame, unmasked."""
        first, payload, _ = self.read_frame_and_key()
        return Frame(first, payload)

    def read_frame_and_key(self) -> tuple[int, bytes, bytes | None]:
        """A frame's first byte, its payload, unmasked, and its masking key if it has one."""
        first, second = self.read(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self.read(2 if size == 126 else 8), "big")
        if not second & 0x80:
            return first, self.read(size), None
        key = self.read(4)
        return first, xor(self.read(size), key), key

    def read_close(self) -> tuple[int | None, str]:
        """The code and reason of the Close frame that must come next, and then EOF."""
        first, payload = self.read_frame()
        assert first == 0x88, f"not a Close, but 0x{first:x} {payload!r}"
        assert self.read_to_eof() == b""
        code = int.from_bytes(payload[:2], "big") if payload else None
        return code, payload[2:].decode()

    def read_to_eof(self) -> bytes:
        """All that still comes. Raises ConnectionError for a reset."""
        data, self.buffer = self.buffer, b""
        while more := self.sock.recv(65536):
            data += more
        return data

    def is_silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing, not even EOF, comes in this time."""
        if self.buffer:
            return False
        self.sock.settimeout(seconds)
        try:
            self.buffer = self.sock.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)
        return False

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Against our server


class Reachable(Protocol):
    """A server on 127.0.0.1, or a proxy before one."""

    server_port: int


@contextlib.contextmanager
def serving(
    handler: Callable[[WebSocket], None], path: str = "/", host: str = "127.0.0.1", **options: Any
) -> Iterator[WebSocketServer]:
    """Our server on a free port of this host, with one handler; `options` as it takes them."""
    server = WebSocketServer((host, 0), {path: handler}, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        server.close_connections()
        thread.join()


def echo_messages(websocket: WebSocket) -> None:
    for message in websocket:
        websocket.send(message)


def tcp(server: Reachable) -> Peer:
    """A TCP connection to the server, nothing sent yet."""
    return Peer(socket.create_connection(("127.0.0.1", server.server_port), PATIENCE))


def request(server: Reachable, target: str = "/", **changes: str | None) -> bytes:
    """A good opening handshake. `changes` replace headers, with `_` for `-`; None removes one."""
    headers: dict[str, str | None] = {
        "Host": f"127.0.0.1:{server.server_port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value is not None]
    return f"GET {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")


def shake_hands(server: Reachable, target: str = "/", **changes: str | None) -> Peer:
    """A client whose opening handshake was answered with a 101."""
    peer = tcp(server)
    peer.send(request(server, target, **changes))
    head = peer.read_head()
    assert head.startswith("HTTP/1.1 101 "), head
    return peer


def answer_to(server: Reachable, data: bytes) -> tuple[int, str]:
    """Send these bytes; the status and all the text that the server answers before it ends TCP."""
    with tcp(server) as peer:
        peer.send(data)
        text = peer.read_to_eof().decode("latin-1")
    return int(text.split(" ", 2)[1]), text


# Against our client


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key (4.2.2)."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return base64.b64encode(digest).decode()


class RawServer:
    """A server that runs `script` with each client, in a thread of its own.

    Use it in a `with` statement. The end of this waits for the scripts, and raises what the first
    of them raised.
    """

    def __init__(self, script: Callable[[Peer], None], host: str = "127.0.0.1") -> None:
        self.script = script
        self.errors: list[BaseException] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family)
        self.port: int = self.listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"
        self.accepted = 0
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was shut
            while True:
                sock, _ = self.listener.accept()
                self.accepted += 1
                thread = threading.Thread(target=self._run, args=(Peer(sock),))
                self.threads.append(thread)
                thread.start()

    def _run(self, peer: Peer) -> None:
        with peer:
            try:
                self.script(peer)
            except BaseException as error:
                self.errors.append(error)

    def __enter__(self) -> "RawServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(PATIENCE)
        if self.errors and kind is None:
            raise self.errors[0]


def response(head: str, *more: str) -> bytes:
    """A good 101 for the request with this head, with `more` header lines."""
    key = next(line[19:] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key: "))
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_value(key)}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def after_handshake(script: Callable[[Peer], None], *more: str) -> RawServer:
    """A server that accepts every handshake, and then runs `script`."""

    def whole(peer: Peer) -> None:
        peer.send(response(peer.read_head(), *more))
        script(peer)

    return RawServer(whole)

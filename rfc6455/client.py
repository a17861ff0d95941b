"""`connect`: a WebSocket from this side (RFC 6455, 3, 4.1).

Left out: proxies, redirects, authentication and reconnecting, which a caller knows better.
"""

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from . import handshake
from .connection import MAX_MESSAGE, Opening, WebSocket
from .deflate import Deflate, build_offer, check_answer
from .errors import InvalidHandshake
from .handshake import Address, Response
from .stream import TLS, Stream, Timeouts

MAX_INTERIM = 10  # 1xx responses before the one that counts; a server sends one, or two
BODY_SIZE = 1024  # bytes of a refusal's text, of which the error repeats the beginning
BODY_TIME = 1.0  # seconds to wait for that text: it comes with the head, or is not worth it

_connecting: weakref.WeakValueDictionary[tuple[str, int], threading.Lock]
_connecting = weakref.WeakValueDictionary()
_connecting_lock = threading.Lock()


def connect(
    url: str,
    *,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    headers: Iterable[tuple[str, str]] = (),
    max_message: int = MAX_MESSAGE,
    timeouts: Timeouts | None = None,
    ssl_context: ssl.SSLContext | None = None,
    deflate: Deflate | None = None,
) -> WebSocket:
    """Open a WebSocket to a ws: or wss: URL; close it, or use it in a `with` statement.

    Raises ValueError for a bad argument, OSError (TimeoutError among them) where the server can't
    be reached, InvalidHandshake where it refuses. May be called from any thread.
    """
    address = handshake.parse_url(url)
    key = handshake.new_key()
    offer = build_offer(deflate) if deflate else None
    request = handshake.build_request(address, key, origin, subprotocols, offer, headers)
    timeouts = timeouts or Timeouts()
    give_up = time.monotonic() + timeouts.opening
    error: OSError = OSError(f"no address for {address.host}")
    for found in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        with _turn(str(found[4][0]), address.port, give_up):
            try:
                stream = _dial(found, address, timeouts, ssl_context, give_up)
            except OSError as failure:
                error = failure
                continue
            with _opening(stream, give_up):
                response, received = _exchange(stream, request)
                chosen = handshake.check_response(response, key, subprotocols)
                agreed = check_answer(chosen.extensions, deflate)
        path, _, query = address.target.partition("?")
        opening = Opening(
            path, query, response.headers, address.authority, chosen.subprotocol, agreed
        )
        return WebSocket(
            stream, opening, is_client=True, max_message=max_message, received=received
        )
    raise error


@contextlib.contextmanager
def _turn(host: str, port: int, give_up: float) -> Iterator[None]:
    """4.1, 2: to one IP address and port only one connection at a time is being opened."""
    with _connecting_lock:
        turn = _connecting.setdefault((host, port), threading.Lock())
    if not turn.acquire(timeout=max(0.0, give_up - time.monotonic())):
        raise TimeoutError(f"another connection to {host} is still being opened")
    try:
        yield
    finally:
        turn.release()


def _dial(
    found: tuple[Any, ...],
    address: Address,
    timeouts: Timeouts,
    context: ssl.SSLContext | None,
    give_up: float,
) -> Stream:
    """Open TCP to one of the addresses that getaddrinfo found. Raises OSError."""
    tls = None
    if address.secure:
        tls = TLS(context or ssl.create_default_context(), address.host)
    sock = socket.socket(*found[:3])
    try:
        sock.settimeout(max(0.001, give_up - time.monotonic()))
        sock.connect(found[4])
    except OSError:
        sock.close()
        raise
    return Stream(sock, timeouts, tls)


@contextlib.contextmanager
def _opening(stream: Stream, give_up: float) -> Iterator[None]:
    """Bound the opening handshake; 7.2.1: where it fails, TCP is closed without a Close frame."""
    too_long = "the opening handshake took too long"
    stream.set_deadline(give_up - time.monotonic(), too_long)
    try:
        yield
    except BaseException as failure:
        late = stream.lost == too_long
        stream.close()
        if late and isinstance(failure, OSError):
            raise TimeoutError(too_long) from None
        raise


def _exchange(stream: Stream, request: bytes) -> tuple[Response, bytes]:
    """Send the request; the 101 response, and what came behind it. Raises InvalidHandshake."""
    stream.shake_hands()
    stream.write(request, wait=True)
    received = b""
    for _ in range(MAX_INTERIM + 1):
        head, received = _read_head(stream, received)
        response = handshake.parse_response(head)
        if response.status == 101:
            return response, received
        if response.status >= 200:
            raise handshake.refusal(response, _read_body(stream, head + received))
        # RFC 9110, 15.2: any number of 1xx responses may precede the one that counts
    raise InvalidHandshake(response.status, f"over {MAX_INTERIM} interim responses")


def _read_head(stream: Stream, data: bytes) -> tuple[bytes, bytes]:
    """A response's head, its empty line included, and what came behind it."""
    while b"\r\n\r\n" not in data:
        more = stream.read(4096)
        if not more:
            raise ConnectionError(stream.lost or "the server ended TCP in the opening handshake")
        data += more
        if len(data) > handshake.MAX_HEAD and b"\r\n\r\n" not in data:
            raise InvalidHandshake(400, f"the response head is over {handshake.MAX_HEAD} bytes")
    head, end, rest = data.partition(b"\r\n\r\n")
    return head + end, rest


def _read_body(stream: Stream, received: bytes) -> bytes:
    """The beginning of the text of a refusal, of which so much was received; perhaps nothing.

    http.client knows where a body ends, and undoes its chunks.
    """
    source = _Source(stream, received)
    response = http.client.HTTPResponse(cast(socket.socket, source), method="GET")
    body = b""
    # The server may say anything here. That it refuses is known, and is what the caller is told.
    with contextlib.closing(response), contextlib.suppress(http.client.HTTPException, ValueError):
        response.begin()
        while len(body) < BODY_SIZE and (piece := response.read1(BODY_SIZE)):
            body += piece
    return body


class _Source(io.RawIOBase):
    """What http.client reads a response from: what came already, then the stream for a while."""

    def __init__(self, stream: Stream, received: bytes) -> None:
        self._stream = stream
        self._received = received
        self._give_up = time.monotonic() + BODY_TIME

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._received[: len(buffer)]
        if data:
            self._received = self._received[len(data) :]
        else:
            left = max(0.0, self._give_up - time.monotonic())
            data = self._stream.read(len(buffer), left) or b""
        buffer[: len(data)] = data
        return len(data)

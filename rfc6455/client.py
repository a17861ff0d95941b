"""`connect`: a WebSocket from this side (RFC 6455, 3, 4.1).

Left out: proxies, redirects, authentication and reconnecting, which a caller knows better.
"""

import contextlib
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from typing import Any

from . import handshake
from .connection import MAX_MESSAGE, Opening, WebSocket
from .deflate import Deflate, build_offer, check_answer
from .errors import InvalidHandshake
from .handshake import Address
from .stream import TLS, Stream, Timeouts

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
                status, response, received = _exchange(stream, request)
                chosen = handshake.check_response(status, response, key, subprotocols)
                agreed = check_answer(chosen.extensions, deflate)
        path, _, query = address.target.partition("?")
        opening = Opening(path, query, response, address.authority, chosen.subprotocol, agreed)
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


def _exchange(stream: Stream, request: bytes) -> tuple[int, Message, bytes]:
    """Send the request; status and headers of the response, and what came behind them."""
    stream.shake_hands()
    stream.write(request, wait=True)
    data = b""
    while b"\r\n\r\n" not in data:
        more = stream.read(4096)
        if not more:
            raise ConnectionError(stream.lost or "the server ended TCP in the opening handshake")
        data += more
        if len(data) > handshake.MAX_HEAD and b"\r\n\r\n" not in data:
            raise InvalidHandshake(400, f"the response head is over {handshake.MAX_HEAD} bytes")
    head, end, received = data.partition(b"\r\n\r\n")
    return *handshake.parse_response(head + end), received

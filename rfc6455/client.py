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

from . import handshake
from .connection import MAX_MESSAGE, Opening, WebSocket
from .deflate import Deflate, build_offer, check_answer
from .errors import InvalidHandshake
from .handshake import Address
from .stream import TLS, Stream, Timeouts, clock

_connecting: weakref.WeakValueDictionary[tuple[str, int], threading.Lock]
_connecting = weakref.WeakValueDictionary()


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
            sock = socket.socket(*found[:3])
            try:
                sock.settimeout(max(0.001, give_up - time.monotonic()))
                sock.connect(found[4])
            except OSError as failure:
                sock.close()
                error = failure
                continue
            stream = _stream(sock, address, timeouts, ssl_context)
            stream.set_deadline(give_up - time.monotonic(), "the opening handshake took too long")
            clock.watch(stream)
            try:
                if stream.tls:
                    stream.tls.handshake(sock)
                response, received = _exchange(stream, request)
                extensions = handshake.check_response(*response, key, subprotocols)
                agreed = check_answer(extensions, deflate)
            except BaseException as failure:  # 7.2.1: it was never open, so no Close is sent
                stream.close()
                if isinstance(failure, OSError) and give_up <= time.monotonic():
                    raise TimeoutError("the opening handshake took too long") from None
                raise
            finally:
                clock.forget(stream)
        path, _, query = address.target.partition("?")
        chosen = response[1].get("Sec-WebSocket-Protocol")
        opening = Opening(path, query, response[1], address.authority, chosen, agreed)
        return WebSocket(
            stream, opening, is_client=True, max_message=max_message, received=received
        )
    raise error


@contextlib.contextmanager
def _turn(host: str, port: int, give_up: float) -> Iterator[None]:
    """4.1, 2: to one IP address and port only one connection at a time is being opened."""
    lock = _connecting.setdefault((host, port), threading.Lock())
    if not lock.acquire(timeout=max(0.0, give_up - time.monotonic())):
        raise TimeoutError(f"another connection to {host} is still being opened")
    try:
        yield
    finally:
        lock.release()


def _stream(
    sock: socket.socket, address: Address, timeouts: Timeouts, context: ssl.SSLContext | None
) -> Stream:
    if not address.secure:
        return Stream(sock, timeouts)
    context = context or ssl.create_default_context()
    return Stream(sock, timeouts, TLS(context, address.host))


def _exchange(stream: Stream, request: bytes) -> tuple[tuple[int, Message], bytes]:
    """Send the request; status and headers of the response, and what came behind them."""
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
    return handshake.parse_response(head + end), received

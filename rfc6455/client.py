"""`connect`: a WebSocket from this side (RFC 6455, 3, 4.1).

Left out: proxies, redirects, authentication and reconnecting, which a caller knows better; and a
limit to the time that the system takes to look up a name.
"""

import contextlib
import http.client
import io
import itertools
import os
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from . import handshake
from .connection import Handshake, WebSocket
from .deflate import Deflate, build_offer, check_answer
from .errors import InvalidHandshake
from .handshake import Address, Response
from .protocol import MAX_MESSAGE
from .stream import TLS, Stream, Timeouts

ATTEMPT_DELAY = 0.25  # seconds from one address to the next; what RFC 8305, 5 recommends
MAX_INTERIM = 10  # 1xx responses before the one that counts; a server sends one, or two
BODY_SIZE = 1024  # bytes of a refusal's text, of which the error repeats the beginning
BODY_TIME = 1.0  # seconds to wait for that text: it comes with the head, or is not worth it

_connecting: weakref.WeakValueDictionary[tuple[str, int], threading.Lock]
_connecting = weakref.WeakValueDictionary()
_connecting_lock = threading.Lock()


def _forget_turns() -> None:
    """In a child process: whoever held a turn, or the lock, is a thread of the parent."""
    global _connecting, _connecting_lock
    _connecting = weakref.WeakValueDictionary()
    _connecting_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_turns)


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
    give_up = time.monotonic() + timeouts.open_timeout
    tls = TLS(ssl_context or ssl.create_default_context(), address.host) if address.secure else None
    sock, turn = _dial(_find_addresses(address), give_up)
    try:
        stream = _stream_on(sock, timeouts, tls)
        with _opening(stream, give_up):
            response, received = _exchange(stream, request)
            chosen = handshake.check_response(response, key, subprotocols)
            agreed = check_answer(chosen.extensions, deflate)
    finally:
        turn.release()
    path, _, query = address.target.partition("?")
    opening = Handshake(
        path, query, response.headers, address.authority, chosen.subprotocol, agreed
    )
    return WebSocket(stream, opening, is_client=True, max_message=max_message, received=received)


# Connecting


class _Found(NamedTuple):
    """One of the addresses that a name means, as getaddrinfo gives it."""

    family: int
    kind: int
    protocol: int
    canonical_name: str
    address: tuple[Any, ...]


def _find_addresses(address: Address) -> list[_Found]:
    """The host's addresses, those of IPv6 and IPv4 in turn (RFC 8305, 4). Raises OSError."""
    results = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    found = [_Found(*result) for result in dict.fromkeys(results)]
    if not found:
        raise OSError(f"no address for {address.host}")
    preferred = [each for each in found if each.family == found[0].family]
    others = [each for each in found if each.family != found[0].family]
    pairs = itertools.zip_longest(preferred, others)
    return [each for pair in pairs for each in pair if each is not None]


def _dial(waiting: list[_Found], give_up: float) -> tuple[socket.socket, threading.Lock]:
    """Connect to the first address that answers; the socket, and the turn to be released later.

    One that swallows what is sent to it must not use up the time of the others: each is given a
    start of ATTEMPT_DELAY, then the next is tried beside it (RFC 8305, 5). Raises OSError.
    """
    error: OSError | None = None
    with selectors.DefaultSelector() as attempts:
        try:
            while waiting or attempts.get_map():
                left = give_up - time.monotonic()
                if left <= 0:
                    late = isinstance(error, TimeoutError)
                    raise error if error and late else TimeoutError("connecting took too long")
                try:
                    if waiting:
                        _start_one(attempts, waiting, left)
                    left = max(0.0, give_up - time.monotonic())
                    connected = _await_one(attempts, min(left, ATTEMPT_DELAY) if waiting else left)
                except OSError as failure:  # then the next is tried at once
                    error = failure
                else:
                    if connected:
                        return connected
        finally:
            for attempt in list(attempts.get_map().values()):
                _give_up(attempts, attempt)
    assert error
    raise error


def _start_one(attempts: selectors.BaseSelector, waiting: list[_Found], left: float) -> None:
    """Take the first of the waiting addresses whose turn it is, and begin to connect to it."""
    for found in waiting:
        turn = _turn(found)
        if turn.acquire(blocking=False):
            break
    else:
        if attempts.get_map():
            return  # a turn may come while those under way are waited for
        found = waiting[0]
        turn = _turn(found)
        if not turn.acquire(timeout=left):
            raise TimeoutError(f"another connection to {found.address[0]} is still being opened")
    waiting.remove(found)
    sock = None
    try:
        sock = socket.socket(found.family, found.kind, found.protocol)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # the selector tells how it went
            sock.connect(found.address)
        attempts.register(sock, selectors.EVENT_WRITE, turn)
    except BaseException:
        if sock:
            sock.close()
        turn.release()
        raise


def _await_one(
    attempts: selectors.BaseSelector, seconds: float
) -> tuple[socket.socket, threading.Lock] | None:
    """An attempt that succeeds in this time, if one does. Raises OSError for one that fails."""
    for attempt, _ in attempts.select(seconds):
        sock = cast(socket.socket, attempt.fileobj)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            _give_up(attempts, attempt)
            raise OSError(code, os.strerror(code))
        attempts.unregister(sock)
        return sock, attempt.data
    return None


def _give_up(attempts: selectors.BaseSelector, attempt: selectors.SelectorKey) -> None:
    attempts.unregister(attempt.fileobj)
    cast(socket.socket, attempt.fileobj).close()
    attempt.data.release()


def _turn(found: _Found) -> threading.Lock:
    """Held by whoever opens a connection to this IP address and port: one at a time (4.1, 2)."""
    with _connecting_lock:
        return _connecting.setdefault((str(found.address[0]), found.address[1]), threading.Lock())


# The opening handshake


def _stream_on(sock: socket.socket, timeouts: Timeouts, tls: TLS | None) -> Stream:
    try:
        return Stream(sock, timeouts, tls)
    except OSError:
        sock.close()
        raise


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
    stream.send(request)
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
        if not self._received:
            left = max(0.0, self._give_up - time.monotonic())
            self._received = self._stream.read(len(buffer), left) or b""  # perhaps more, over TLS
        data = self._received[: len(buffer)]
        self._received = self._received[len(data) :]
        buffer[: len(data)] = data
        return len(data)

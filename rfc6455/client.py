"""`connect`: open a WebSocket to a server (RFC 6455, 3, 4.1).

The rules of the opening handshake stand in `handshake`; here are the connection that it goes over,
opened one at a time to each address (4.1, step 2), and the time limit for all of it.
Left out are proxies, redirects, authentication and reconnecting, where only the caller knows what
is right; and a limit to the time that the system takes to look up a name.
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
from .trace import Trace, TraceHandler

ATTEMPT_DELAY = 0.25  # seconds from one address to the next, as RFC 8305, 5 recommends
# Seconds; the system takes no timeout of months, let alone math.inf. After it, the wait goes on.
_LONGEST_WAIT = 3600.0
MAX_INTERIM = 10  # 1xx responses before the final one; a server sends one or two
BODY_SIZE = 1024  # bytes to read of a refusal's body; the error shows the beginning of it
BODY_TIME = 1.0  # seconds to wait for that body, which usually comes together with the head

# For each IP address and port to which a connection is being opened, the lock that its opener
# holds. An entry goes away with the last who holds its lock or waits for it.
_address_locks: weakref.WeakValueDictionary[tuple[str, int], threading.Lock]
_address_locks = weakref.WeakValueDictionary()
_address_locks_lock = threading.Lock()  # around _address_locks


def _forget_address_locks() -> None:
    """Start anew in a child process: the threads that hold these locks are the parent's."""
    global _address_locks, _address_locks_lock
    _address_locks = weakref.WeakValueDictionary()
    _address_locks_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_address_locks)


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
    trace: TraceHandler | None = None,
) -> WebSocket:
    """Open a WebSocket to a ws: or wss: URL; close it, or use it in a `with` statement.

    origin: the Origin header, such as "https://chat.example"; browsers send one, and others need
        not (4.1).
    subprotocols: the names to offer, the preferred one first.
    headers: names and values to add to the request, such as a Cookie.
    max_message: bytes of one message to receive, all its fragments together (10.4).
    timeouts: how long each wait may last; `open_timeout` is for everything until this returns but
        looking up the name.
    ssl_context: for wss:; without it the system's certificate authorities are trusted.
    deflate: with it permessage-deflate is offered (RFC 7692).
    trace: called with each line of the opening handshake, and with each frame, both ways, by the
        threads that read and write them; it must not wait. `describe` makes a line of text of it.

    Raises ValueError for a bad argument, before anything is sent; OSError, or its subclass
    TimeoutError, where the server can't be reached; InvalidHandshake where the server refuses.
    May be called from any thread.
    """
    address = handshake.parse_url(url)
    key = handshake.new_key()
    offer = build_offer(deflate.checked()) if deflate else None
    request = handshake.build_request(address, key, origin, subprotocols, offer, headers)
    timeouts = (timeouts or Timeouts()).checked()
    deadline = time.monotonic() + timeouts.open_timeout
    tls = TLS(ssl_context or ssl.create_default_context(), address.host) if address.secure else None
    connection = _connect_to_any(_look_up(address), deadline)
    try:
        stream = _make_stream(connection.sock, timeouts, tls)
        if trace:
            stream.set_trace(Trace(address.authority, trace))
        with _closing_on_failure(stream, deadline):
            response, received = _exchange(stream, request)
            chosen = handshake.check_response(response, key, subprotocols)
            agreed = check_answer(chosen.extensions, deflate)
    finally:
        connection.address_lock.release()
    path, _, query = address.target.partition("?")
    opening = Handshake(
        path, query, response.headers, address.authority, chosen.subprotocol, agreed
    )
    return WebSocket(stream, opening, is_client=True, max_message=max_message, received=received)


# Connecting


class _AddressInfo(NamedTuple):
    """One of the addresses of a host, as `socket.getaddrinfo` returns it."""

    family: int
    kind: int
    protocol: int
    canonical_name: str
    address: tuple[Any, ...]


class _Connection(NamedTuple):
    """A TCP connection, and the lock of its address: to be released after the handshake."""

    sock: socket.socket
    address_lock: threading.Lock


def _look_up(address: Address) -> list[_AddressInfo]:
    """The host's addresses, IPv6 and IPv4 alternating (RFC 8305, 4). Raises OSError."""
    results = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    infos = [_AddressInfo(*result) for result in dict.fromkeys(results)]
    if not infos:
        raise OSError(f"the name {address.host} has no address")
    preferred = [each for each in infos if each.family == infos[0].family]
    others = [each for each in infos if each.family != infos[0].family]
    pairs = itertools.zip_longest(preferred, others)
    return [each for pair in pairs for each in pair if each is not None]


def _connect_to_any(untried: list[_AddressInfo], deadline: float) -> _Connection:
    """Connect to the address that answers first. Raises OSError where none does.

    An address that never answers must not use up the time of the others: each is given a start
    of ATTEMPT_DELAY, and then the next is tried beside it (RFC 8305, 5).
    """
    last_error: OSError | None = None
    with selectors.DefaultSelector() as attempts:
        try:
            while untried or attempts.get_map():
                if time.monotonic() >= deadline:
                    if isinstance(last_error, TimeoutError):
                        raise last_error
                    raise TimeoutError("connecting took too long")
                try:
                    connection = _try_next(attempts, untried, deadline)
                except OSError as error:  # then the next address is tried at once
                    last_error = error
                else:
                    if connection:
                        return connection
        finally:
            for attempt in list(attempts.get_map().values()):
                _abandon(attempts, attempt)
    assert last_error
    raise last_error


def _try_next(
    attempts: selectors.BaseSelector, untried: list[_AddressInfo], deadline: float
) -> _Connection | None:
    """Begin to connect to one address more, and wait until an attempt succeeds.

    Returns None when it is time for the next address. Raises OSError where an attempt fails.
    """
    if untried:
        _start_attempt(attempts, untried, deadline)
    seconds = min(max(0.0, deadline - time.monotonic()), _LONGEST_WAIT)
    if untried:
        seconds = min(seconds, ATTEMPT_DELAY)
    return _wait_for_attempts(attempts, seconds)


def _start_attempt(
    attempts: selectors.BaseSelector, untried: list[_AddressInfo], deadline: float
) -> None:
    """Take the first address whose lock is free, and begin to connect to it.

    Where none is free it waits for the first one's, unless attempts are under way: these are to
    be waited for. Raises OSError.
    """
    for info in untried:
        lock = _address_lock(info)
        if lock.acquire(blocking=False):
            break
    else:
        if attempts.get_map():
            return
        info = untried[0]
        lock = _address_lock(info)
        seconds = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
        if not lock.acquire(timeout=seconds):
            raise TimeoutError(f"another connection to {info.address[0]} is still being opened")
    untried.remove(info)
    sock = None
    try:
        sock = socket.socket(info.family, info.kind, info.protocol)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # the selector tells how it went
            sock.connect(info.address)
        attempts.register(sock, selectors.EVENT_WRITE, lock)
    except BaseException:
        if sock:
            sock.close()
        lock.release()
        raise


def _wait_for_attempts(attempts: selectors.BaseSelector, seconds: float) -> _Connection | None:
    """The first attempt that succeeds in this time, or None. Raises OSError for one that fails."""
    for attempt, _ in attempts.select(seconds):
        sock = cast(socket.socket, attempt.fileobj)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            _abandon(attempts, attempt)
            raise OSError(code, os.strerror(code))
        attempts.unregister(sock)
        return _Connection(sock, attempt.data)
    return None


def _abandon(attempts: selectors.BaseSelector, attempt: selectors.SelectorKey) -> None:
    attempts.unregister(attempt.fileobj)
    cast(socket.socket, attempt.fileobj).close()
    attempt.data.release()


def _address_lock(info: _AddressInfo) -> threading.Lock:
    """The lock for this IP address and port; whoever opens a connection to them holds it.

    4.1, step 2: further connections wait until that one is open or has failed, even if they know
    the server by another name.
    """
    ip_address = str(info.address[0])
    port = int(info.address[1])
    with _address_locks_lock:
        return _address_locks.setdefault((ip_address, port), threading.Lock())


# The opening handshake


def _make_stream(sock: socket.socket, timeouts: Timeouts, tls: TLS | None) -> Stream:
    try:
        return Stream(sock, timeouts, tls)
    except OSError:
        sock.close()
        raise


@contextlib.contextmanager
def _closing_on_failure(stream: Stream, deadline: float) -> Iterator[None]:
    """Bound the opening handshake in time, and close TCP where it fails.

    7.2.1: the client sends no Close frame then, as there is no WebSocket yet.
    """
    too_long = "the opening handshake took too long"
    stream.set_deadline(deadline - time.monotonic(), too_long)
    try:
        yield
    except BaseException as failure:
        is_late = stream.lost == too_long
        stream.close()
        if is_late and isinstance(failure, OSError):
            raise TimeoutError(too_long) from None
        raise


def _exchange(stream: Stream, request: bytes) -> tuple[Response, bytes]:
    """Send the request; the 101 response, and the bytes of frames that came behind it.

    Raises InvalidHandshake for any other response, and OSError.
    """
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
        # RFC 9110, 15.2: any number of 1xx responses may come before the final one. A limit is
        # stricter, so that a server can't go on with them until the time is over.
    raise InvalidHandshake(response.status, f"more than {MAX_INTERIM} interim responses")


def _read_head(stream: Stream, data: bytes) -> tuple[bytes, bytes]:
    """A response's head, its empty line included, and what came behind it.

    `data` is what was received already.
    """
    while b"\r\n\r\n" not in data:
        more = stream.read(4096)
        if not more:
            raise ConnectionError(stream.lost or "the server ended the opening handshake early")
        data += more
        if len(data) > handshake.MAX_HEAD and b"\r\n\r\n" not in data:
            limit = handshake.MAX_HEAD
            raise InvalidHandshake(400, f"the head of the response has more than {limit} bytes")
    head, end, rest = data.partition(b"\r\n\r\n")
    return head + end, rest


def _read_body(stream: Stream, received: bytes) -> bytes:
    """The beginning of a refusal's body, or b"" where none comes in time.

    `received` is what was received already, from the status line on. http.client knows where a
    body ends, and undoes a chunked coding.
    """
    source = _ResponseReader(stream, received)
    response = http.client.HTTPResponse(cast(socket.socket, source), method="GET")
    body = b""
    # Whatever is malformed here, the caller is told that the server refuses: that is known.
    with contextlib.closing(response), contextlib.suppress(http.client.HTTPException, ValueError):
        response.begin()
        while len(body) < BODY_SIZE:
            piece = response.read1(BODY_SIZE)
            if not piece:
                break
            body += piece
    return body


class _ResponseReader(io.RawIOBase):
    """What http.client reads a response from: what was received already, and then the stream.

    It ends BODY_TIME after it was made, as if the server had ended the connection.
    """

    def __init__(self, stream: Stream, received: bytes) -> None:
        self._stream = stream
        self._received = received
        self._deadline = time.monotonic() + BODY_TIME

    def makefile(self, *_: object) -> io.BufferedReader:
        """Called by http.client, for which this is a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._received:
            seconds = max(0.0, self._deadline - time.monotonic())
            # Over TLS this may be more than was asked for.
            self._received = self._stream.read(len(buffer), seconds) or b""
        data = self._received[: len(buffer)]
        self._received = self._received[len(data) :]
        buffer[: len(data)] = data
        return len(data)

"""`WebSocketServer`: static files and WebSockets on one port, with a thread for each connection.

It is the server's side of the opening handshake (RFC 6455, 4.2) over a real connection; the rules
themselves stand in `handshake`. The standard library's `http.server` reads the request and serves
the files. This module makes it safe to put on a network: it bounds every wait and the number of
connections, checks Host and Origin (10.2), reads the request strictly, refuses request bodies, and
closes each connection after one answer, so that two requests can never be confused.
Left out is what a reverse proxy does better: compression of files, caching, several host names.
"""

import collections
import contextlib
import errno
import http.client
import http.server
import io
import ipaddress
import logging
import os
import re
import signal
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from . import handshake
from .connection import Handshake, WebSocket
from .deflate import Deflate, accept_offer
from .errors import Close, ConnectionClosed, InvalidHandshake, Refused
from .frames import CloseCode
from .keepalive import SLOWEST_PEER
from .protocol import MAX_MESSAGE
from .stream import TLS, Stream, Timeouts, describe
from .trace import Trace, TraceHandler

log = logging.getLogger("rfc6455")

Handler = Callable[[WebSocket], None]
StrPath = str | os.PathLike[str]

# Connections beyond `max_connections`: some fetch pages, and the others are answered with a 503.
SPARE_CONNECTIONS = 128
# Header lines of a request: browsers send some 20, and proxies add as many. http.client takes 99.
MAX_HEADERS = 90
RETRY_AFTER = 10  # seconds, which a client that is refused for want of room is asked to wait
SHUTDOWN_GRACE = 3.0  # seconds for clients to answer the Close with 1001 before they are dropped
_DROP_TIME = 0.5  # seconds for the threads of dropped connections to end
_FILE_TIME = 60.0  # seconds for a client to fetch a file, and more for a large one
_FILE_TOO_SLOW = "the client took too long to fetch the file"
_ACCEPT_PAUSE = 0.1  # seconds to wait when the system has no resources for another connection
_PLAIN_TEXT = "text/plain; charset=utf-8"  # the Content-Type of our own texts
# The answer to who gets no thread: it is sent without having read the request.
_NO_ROOM = (
    f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER}\r\nConnection: close\r\n"
    f"Content-Type: {_PLAIN_TEXT}\r\n"
    "Content-Length: {length}\r\n\r\n{body}"
)
_FULL = "the server is full"
_BUSY = "the server has no thread for another client"
_RETRY_LATER = [("Retry-After", str(RETRY_AFTER))]
_METHODS = "GET, HEAD, OPTIONS"
_REQUEST_LINE = re.compile(r"[A-Z]+ [\x21-\x7e]+ HTTP/1\.[0-9]")
_ABSOLUTE = re.compile(r"^(?i:https?)://[^/?\\]*")  # what stands before the path in an absolute URI
_TLS_HANDSHAKE = 0x16  # the first byte that a client of TLS sends (RFC 8446, 5.1)
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def _check_directories(directory: StrPath | Sequence[StrPath] | None) -> list[str]:
    """The directories as texts; none where no files are served. Raises NotADirectoryError."""
    if directory is None:
        return []
    several = [directory] if isinstance(directory, str | os.PathLike) else directory
    for each in several:
        if not os.path.isdir(each):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", os.fspath(each))
    return [os.fspath(each) for each in several]


def _parse_origins(texts: Collection[str]) -> set[handshake.Origin] | None:
    """The origins to let in besides the server's own, or None for all. Raises ValueError."""
    if "*" in texts:
        return None
    return {handshake.Origin.parse(text) for text in texts}


def _find_allowed_hosts(
    requested: str, bound: str, allowed: Collection[handshake.Authority]
) -> set[handshake.Authority] | None:
    """The Host names that the server answers to, or None for all.

    A server for a network answers to all unless it is told names, because it can't know under
    which ones it is reached. `requested` is the address to listen on as the program gave it,
    perhaps a name, and `bound` is the address that this turned out to be: some systems give the
    machine's own name an address of loopback.
    """
    own = set()
    for address in (requested, bound):
        with contextlib.suppress(ValueError):  # an empty text stands for every address
            own.add(handshake.Authority.parse(address)._replace(port=None))
    if allowed or any(handshake.is_loopback(each.host) for each in own):
        return handshake.LOOPBACK_HOSTS | own | set(allowed)
    return None


class PageText(NamedTuple):
    """What a function of `pages` returns for a text of another type than plain text."""

    text: str  # it is sent in UTF-8
    content_type: str  # the header Content-Type, such as "application/json"


Page = Callable[["WebSocketServer"], str | PageText]


class _Signalled(Exception):
    """SIGINT or SIGTERM has come: it ends the loop that accepts connections."""


class WebSocketServer(http.server.ThreadingHTTPServer):
    """Serves files, and calls `routes[path](websocket)` in a thread for each WebSocket.

    When this handler returns, the server closes the connection with 1000; when it raises `Close`,
    with the code and reason of that; after any other exception, which it logs with its trace,
    with 1011.

    address: the address to listen on, as a name or an IP address, and the port; 0 picks a free one.
    routes: the handler for each path, such as "/ws"; a path has no query.
    directory: the files to serve on all other paths; with None there are none. Of several
        directories, the first that has a file serves it.
    headers: headers to add to every HTTP answer but the 101.
    allowed_origins: origins whose pages may connect, besides the server's own; "*" allows all.
    allowed_hosts: Host names to answer to. A server on a loopback address, and every server that
        is told names here, answers to these, to its own address and to those of loopback alone.
    advise: called with what was refused; its text is added to the answer and to the log line, to
        say how the user of the program can allow it.
    pages: a function for each path that is answered with a text, such as "/healthz"; it gets the
        server and returns the text, as a str or, if it is not plain text, as a `PageText`. The
        answer is 200, also when the server is full, and 503 once it shuts down. It is called in the
        connection's thread.
    trusted_proxies: IP addresses and networks of the reverse proxies whose X-Forwarded-For, -Host
        and -Proto headers are believed. From everyone else they are ignored.
    subprotocols: the names that the server speaks; the first that the client offers is chosen.
    max_connections: WebSockets at the same time; whoever comes then is answered with 503. The
        server has SPARE_CONNECTIONS more, for files and for these answers; each takes a file
        descriptor and a thread.
    max_per_address: WebSockets of one client address at the same time, or None for no such limit;
        further ones are answered with 429. The IPv6 addresses of one /64 network count as one,
        because a single client has that many.
    max_message: bytes of one message, all its fragments together (10.4).
    timeouts: how long each wait may last.
    ssl_context: with one the server speaks TLS, and nothing else (10.6). It may be a function that
        makes one, for certificates that are renewed; see `renew_ssl_context`.
    deflate: with one the server accepts permessage-deflate (RFC 7692).
    check: called with each good opening handshake, in the connection's thread, before the 101; it
        may raise InvalidHandshake, for a query or a cookie that is not good enough.
    trace: called with each line of the opening handshakes, and with each frame, both ways, by the
        threads that read and write them; it must not wait. `describe` makes a line of text of it.

    What threads read of these does not change once the server runs, but for `ssl_context`.

    Raises OSError where the address or the directory can't be used, ValueError for an origin, a
    host or a proxy's address that is none, or a limit that makes no sense, and what the function
    `ssl_context` raises.
    """

    request_queue_size = 1024  # the default of 5 refuses clients that come all at once
    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # on Windows this would let two servers share one port
    # Whether SIGINT or SIGTERM has come, and whether SIGHUP has; the main thread alone sets these.
    _signalled = False
    _hung_up = False

    def __init__(
        self,
        address: tuple[str, int],
        routes: Mapping[str, Handler],
        *,
        directory: StrPath | Sequence[StrPath] | None = None,
        headers: Mapping[str, str] | None = None,
        allowed_origins: Collection[str] = (),
        allowed_hosts: Collection[str] = (),
        advise: Callable[[Refused], str] | None = None,
        pages: Mapping[str, Page] | None = None,
        trusted_proxies: Collection[str] = (),
        subprotocols: Sequence[str] = (),
        max_connections: int = 10_000,
        max_per_address: int | None = None,
        max_message: int = MAX_MESSAGE,
        timeouts: Timeouts | None = None,
        ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
        deflate: Deflate | None = None,
        check: Callable[[Handshake], None] | None = None,
        trace: TraceHandler | None = None,
    ) -> None:
        self.routes = routes
        self.directories = _check_directories(directory)
        self.headers = {"Content-Security-Policy": "default-src 'self'"} | dict(headers or {})
        self.allowed_origins = _parse_origins(allowed_origins)
        self._named_hosts = {handshake.Authority.parse(each) for each in allowed_hosts}
        self.advise = advise
        self.pages = pages or {}
        self.trusted_proxies = [handshake.parse_network(each) for each in trusted_proxies]
        self.subprotocols = subprotocols
        self.max_message = max_message
        self.timeouts = (timeouts or Timeouts()).checked()
        self._set_ssl_context(ssl_context)
        self.deflate = deflate.checked() if deflate else None
        self.check = check
        self.trace = trace
        self._make_registry(max_connections, max_per_address)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _RequestHandler)

    def _set_ssl_context(
        self, ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None
    ) -> None:
        self._make_ssl_context = ssl_context if callable(ssl_context) else None
        self.ssl_context = ssl_context() if callable(ssl_context) else ssl_context

    def _make_registry(self, max_connections: int, max_per_address: int | None) -> None:
        """Make what the connections' threads change, and wait for."""
        self.websocket_slots = threading.BoundedSemaphore(max_connections)
        self._connection_slots = threading.BoundedSemaphore(max_connections + SPARE_CONNECTIONS)
        self.places = _PlacesByAddress(max_per_address)
        self._registry_changed = threading.Condition()  # around the two that follow
        self._websockets: set[WebSocket] = set()  # those whose handler runs, or that are closing
        self._shutting_down = False

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the server: an http: or https: URL without path."""
        host = str(self.server_address[0])
        if host in ("127.0.0.1", "0.0.0.0", "::"):
            host = "localhost"
        elif ":" in host:
            host = f"[{host}]"
        scheme = "https" if self.ssl_context else "http"
        return f"{scheme}://{host}:{self.server_port}"

    @property
    def connection_count(self) -> int:
        """How many WebSockets there are. May be called from any thread."""
        with self._registry_changed:
            return len(self._websockets)

    @property
    def is_stopping(self) -> bool:
        """Whether the server shuts down. May be called from any thread."""
        return self._signalled or self._shutting_down

    # Running and stopping

    def serve_until_signalled(self, ready: Callable[[], None] | None = None) -> None:
        """Serve until Ctrl+C or SIGTERM, and then stop listening. From the main thread only.

        `ready` is called once signals are handled and connections are accepted, for a program to
        say that it runs. The connections stay open: `close_connections` comes next. Where
        `ssl_context` is a function SIGHUP renews the context, and else it keeps its usual meaning.
        """

        def stop(*_: object) -> None:
            # `shutdown` would have to be called in another thread, and there may be none to get.
            self._signalled = True

        def note_hangup(*_: object) -> None:
            self._hung_up = True

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if self._make_ssl_context and hasattr(signal, "SIGHUP"):  # Windows has none
            signal.signal(signal.SIGHUP, note_hangup)
        if ready:
            ready()
        with contextlib.suppress(_Signalled):
            self.serve_forever(poll_interval=0.1)
        self.server_close()

    def renew_ssl_context(self) -> None:
        """Call the function `ssl_context` again: who connects from now on gets what it returns.

        Connections that are open go on. Where it fails that is logged, and the old context stays.
        OpenSSL allows no change to a context that other threads use, so the function has to make a
        new one. May be called from any thread.
        """
        assert self._make_ssl_context, "the server was given no function that makes a context"
        try:
            self.ssl_context = self._make_ssl_context()
        except OSError as error:  # ssl.SSLError is one
            reason = describe(error)
            log.warning("the certificate is not renewed, and the old one stays: %s", reason)
        except Exception:
            log.exception("the certificate is not renewed, and the old one stays")
        else:
            log.info("the certificate was read again; new connections use it")

    def close_connections(self, reason: str = "the server is shutting down") -> None:
        """Close every WebSocket with 1001 (7.4.1), now and whichever may still be opened.

        Waits for the closing handshakes SHUTDOWN_GRACE seconds at most, then drops who is left.
        May be called from any thread but a handler's.
        """
        with self._registry_changed:
            self._shutting_down = True
            open_websockets = list(self._websockets)
        for websocket in open_websockets:
            websocket.close(CloseCode.GOING_AWAY, reason, wait=False)
        for websocket in self._wait_for_the_last(SHUTDOWN_GRACE):
            websocket.drop(reason)
        self._wait_for_the_last(_DROP_TIME)

    def _wait_for_the_last(self, seconds: float) -> list[WebSocket]:
        """Wait until no WebSocket is left, or for this many seconds; those that are left."""
        with self._registry_changed:
            self._registry_changed.wait_for(lambda: not self._websockets, seconds)
            return list(self._websockets)

    def run_handler(self, handler: Handler, websocket: WebSocket) -> None:
        """Run a WebSocket in its thread, from the 101 to the end of TCP."""
        with self._registry_changed:
            self._websockets.add(websocket)
            is_late = self._shutting_down
        try:
            if is_late:
                code = int(CloseCode.GOING_AWAY)
                reason = ""
            else:
                code, reason = _call(handler, websocket)
            websocket.close(code, reason)
            reason = websocket.close_reason or websocket.sent_reason
            text = f"{websocket.close_code} {ascii(reason) if reason else ''}".rstrip()
            log.info("%s: closed, %s", websocket.peer, text)
        finally:
            # Nothing is logged after this: once the last is gone the program may exit, and a thread
            # that logs while Python ends would abort the process.
            with self._registry_changed:
                self._websockets.discard(websocket)
                self._registry_changed.notify_all()

    # What http.server calls, and a subclass may replace

    def service_actions(self) -> None:
        """Called by `serve_forever` after each connection, and ten times a second without any."""
        if self._signalled:
            raise _Signalled
        if self._hung_up:
            self._hung_up = False
            self.renew_ssl_context()

    def server_bind(self) -> None:
        requested = str(self.server_address[0])
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would ask DNS for our own name
        self.server_name = str(self.server_address[0])
        self.server_port = self.server_address[1]
        self.allowed_hosts = _find_allowed_hosts(requested, self.server_name, self._named_hosts)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                # The connection still waits, so `serve_forever` comes back here at once: without
                # a pause it would keep the processor busy until a descriptor is free.
                log.warning("cannot accept connections: %s", error.strerror)
                time.sleep(_ACCEPT_PAUSE)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if self._connection_slots.acquire(blocking=False):
            return True
        log.info("%s: refused, 503 %s", _peer_name(client_address), ascii(_FULL))
        self._turn_away(request, _FULL)
        return False  # socketserver then calls `shutdown_request`

    def process_request(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request(request, client_address)
        # No thread could be started, or there is no memory for it. The others go on.
        except (RuntimeError, MemoryError) as error:
            self._connection_slots.release()
            log.warning("%s: refused, 503 %s", _peer_name(client_address), error or "no memory")
            self._turn_away(request, _BUSY)
            self.shutdown_request(request)
        except BaseException:
            self._connection_slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connection_slots.release()

    def shutdown_request(self, request: Any) -> None:
        # socketserver's would first end TCP. After a request, `finish` has done that.
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):  # there is no thread to watch over its deadlines
            log.warning("%s: refused, 503 %s", _peer_name(client_address), error.strerror or error)
            self._turn_away(request, _BUSY)
        else:
            log.exception("%s: the request failed", _peer_name(client_address))

    def _turn_away(self, request: socket.socket, reason: str) -> None:
        """Answer with a 503, where that works without waiting: the accept loop may be the caller.

        Over TLS there is no answer, as there was no TLS handshake.
        """
        if self.ssl_context:
            return
        body = f"503 Service Unavailable: {reason}\n"
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(_NO_ROOM.format(length=len(body), body=body).encode())
            request.shutdown(socket.SHUT_WR)
            request.recv(65536)  # what is left unread would make the kernel send a reset


def _call(handler: Handler, websocket: WebSocket) -> tuple[int, str]:
    """Run a handler; the code and the reason with which to close the connection after it."""
    try:
        handler(websocket)
    except ConnectionClosed:
        pass  # the peer has closed it, which is how most handlers end
    except Close as close:
        return close.code, close.reason
    # SystemExit, too, which ends no more than this thread. Without a Close the clock would go on
    # reading for the handler, beside the thread that reads to the end of TCP.
    except BaseException:
        log.exception("%s: the handler failed", websocket.peer)
        return CloseCode.INTERNAL_ERROR, "internal error"
    return CloseCode.NORMAL, ""


@contextlib.contextmanager
def _taken(slots: threading.BoundedSemaphore) -> Iterator[None]:
    """A place for a WebSocket. Raises InvalidHandshake where there is none."""
    if not slots.acquire(blocking=False):
        raise InvalidHandshake(503, _FULL, _RETRY_LATER)
    try:
        yield
    finally:
        slots.release()


class _PlacesByAddress:
    """How many WebSockets each client address has. Any thread may call; nobody waits."""

    def __init__(self, limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"max_per_address must be at least 1, not {limit}")
        self._limit = limit
        self._lock = threading.Lock()  # around the table that follows
        self._taken: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def taken_by(self, address: str) -> Iterator[None]:
        """A place for a WebSocket of this address. Raises InvalidHandshake where it has all."""
        if self._limit is None:
            yield
            return
        client = _network_of(address)
        with self._lock:
            if self._taken[client] >= self._limit:
                reason = f"there are {self._limit} connections from {client} already"
                raise InvalidHandshake(429, reason, _RETRY_LATER)
            self._taken[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[client] -= 1
                if not self._taken[client]:
                    del self._taken[client]


def _network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or a /64 network of IPv6.

    A single client usually gets a whole /64 (RFC 6177), and can have an address of it for each
    connection. `handshake.read_forwarded` has made IPv4 addresses of those that IPv6 maps. Text
    that is no IP address stands for itself.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.ip_network((ip.packed, 64), strict=False))


class _RequestHandler(http.server.SimpleHTTPRequestHandler):
    """Answers one request, or turns its connection into a WebSocket; in a thread of its own.

    http.server makes one for each connection, and calls `setup`, `handle` and `finish`. `handle`
    reads the request and calls the method named after it, such as `do_GET`.
    """

    server: WebSocketServer
    protocol_version = "HTTP/1.1"  # browsers refuse a 101 in HTTP/1.0
    MessageClass = handshake.Headers
    request_version = "HTTP/1.1"  # for the answer to a request that names no version
    command = ""
    _cache_control = "no-cache"  # a file may be stored, but has to be asked for again
    is_in_clear = False  # HTTP came without TLS to a port for TLS
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        # Written out, because what http.server would ask, the system's own table, may differ.
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".svg": "image/svg+xml",
    }

    def __init__(self, request: Any, client_address: Any, server: WebSocketServer) -> None:
        # Without a directory http.server would ask for the working directory, which takes its time
        # and fails where that was removed.
        directory = server.directories[0] if server.directories else ""
        super().__init__(request, client_address, server, directory=directory)

    def setup(self) -> None:
        server = self.server
        tls = TLS(server.ssl_context) if server.ssl_context else None
        self.is_secure = tls is not None
        self.peer = _peer_name(self.client_address)
        self._forwarded = handshake.Forwarded(self.client_address[0])
        self.stream = Stream(self.request, server.timeouts, tls)
        if server.trace:
            self.stream.set_trace(Trace(self.peer, server.trace))
        self.stream.set_deadline(
            server.timeouts.open_timeout, "the opening handshake took too long"
        )
        self.rfile = self._reader = _RequestReader(self.stream)
        self.wfile = _ResponseWriter(self.stream)
        self.close_connection = True

    def handle(self) -> None:
        """Answer the request. The client may vanish at any point, even while it is refused."""
        try:
            try:
                self._shake_hands()
                self.handle_one_request()
            except InvalidHandshake as error:
                self._refuse(error.status, self._reason_of(error), error.headers)
            except OSError:
                raise
            except Exception:  # `check` or `advise` of the program
                log.exception("%s: the request could not be handled", self.peer)
                self._refuse(500, "internal error")
        except OSError as error:
            log.info("%s: %s", self.peer, self.stream.lost or describe(error))

    def _shake_hands(self) -> None:
        """Do the TLS handshake, unless the client sends HTTP in clear to a port for TLS.

        That is known by the first byte: a TLS record begins with its type, 0x16, and a request with
        a letter. 4.2.2, step 1 wants the connection to be closed then. Before that the client is
        told why, in clear, which is all that it understands.
        """
        if self.is_secure and self.stream.peek().isalpha():
            self.stream.drop_tls()
            self.is_in_clear = True
        self.stream.shake_hands()

    def _find_secure_url(self) -> str:
        """The URL without path under which the client reaches this server over TLS."""
        is_websocket = handshake.has_token(self.headers, "Upgrade", "websocket")
        try:
            host = str(handshake.Authority.parse(self.headers.get("Host", "")))
        except ValueError:
            host = self.server.url.partition("://")[2]
        return f"{'wss' if is_websocket else 'https'}://{host}"

    def find_client_address(self) -> str:
        """The IP address of the client: the one that a trusted proxy names, or else the peer's.

        Before the request's head was read it is always the peer's.
        """
        return self._forwarded.client

    def parse_request(self) -> bool:
        """Read the request's head; False if it was answered already. Raises InvalidHandshake."""
        if not super().parse_request():
            return False
        if self.is_in_clear:
            raise InvalidHandshake(400, f"this port speaks HTTPS: use {self._find_secure_url()}")
        self._forwarded = handshake.read_forwarded(
            self.headers, self.client_address[0], self.server.trusted_proxies
        )
        client = self.find_client_address()
        if self._forwarded.is_trusted and client != self._forwarded.proxy:
            self.peer = f"{client} via {self.peer}"  # only the proxy's address has a port
        return True

    def finish(self) -> None:
        # Patient, because a slow client may still be reading an answer that the kernel holds.
        self.stream.set_deadline(self.server.timeouts.close_timeout, "", patient=True)
        self.stream.end()
        # Read to the end: the kernel answers what is left unread with a reset, and that can
        # destroy the answer on its way.
        while self.stream.read(65536):
            pass
        self.stream.close()

    def do_GET(self) -> None:
        self._check_request()
        path, _, query = self.path.partition("?")
        if handler := self.server.routes.get(path):
            self._upgrade(handler, path, query)
        elif handshake.has_token(self.headers, "Upgrade", "websocket"):
            self._refuse(404, f"there is no WebSocket at {path}")
        elif page := self.server.pages.get(path):
            self._send_page(page)
        elif not self.server.directories:
            self._refuse(404, "there is no such file")
        else:
            self._send_file()

    do_HEAD = do_GET

    def do_OPTIONS(self) -> None:
        """Name the methods (RFC 9110, 9.3.7): HAProxy asks this to learn whether a server is up."""
        if handshake.has_token(self.headers, "Upgrade", "websocket"):
            return self._refuse_method()
        self._check_request()
        self.send_response(204)
        self.send_header("Allow", _METHODS)
        self.end_headers()

    def _refuse_method(self) -> None:
        reason = f"the method {self.command} is not allowed here"
        self._refuse(405, reason, [("Allow", _METHODS)])

    do_POST = do_PUT = do_DELETE = do_PATCH = _refuse_method

    def _check_request(self) -> None:
        """Refuse what http.server lets pass (4.2.1). Raises InvalidHandshake."""
        if not _REQUEST_LINE.fullmatch(self.requestline):
            raise InvalidHandshake(400, "the request line is malformed")
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or any(length != "0" for length in lengths):
            raise InvalidHandshake(400, "a request must not have a body here")
        # RFC 9112, 3.2: a request of HTTP/1.0 may have no Host, and health checks of proxies have
        # none. It is no risk: browsers send one, so that this can't be a page whose host name was
        # made to mean this machine.
        has_host = "Host" in self.headers or self._forwarded.host is not None
        if self.request_version != "HTTP/1.0" or has_host:
            handshake.check_host(self.headers, self.server.allowed_hosts, self._forwarded)
        self.path = self._find_path()

    def _find_path(self) -> str:
        """The path and the query that the request asks for. Raises InvalidHandshake.

        http.server drops slashes at the beginning. A proxy in front may keep them, and let
        `//healthz` pass where it guards `/healthz`. So here they are two different paths, too.
        """
        target = self.requestline.split(" ")[1]
        if target == "*" and self.command == "OPTIONS":  # RFC 9112, 3.2.4: the server as a whole
            return "/"
        # 4.2.1: the request target may be an absolute URI, of which only the path counts here.
        path = _ABSOLUTE.sub("", target)
        if path != target and path[:1] in ("", "?"):
            path = "/" + path
        if path[:1] != "/" or path[1:2] == "\\":
            raise InvalidHandshake(400, "the request target is malformed")
        # Where http.server redirects to a path of "//host", browsers go to that host.
        if path[1:2] == "/":
            raise InvalidHandshake(404, "there is nothing at a path that begins with two slashes")
        return path

    def _upgrade(self, handler: Handler, path: str, query: str) -> None:
        """Answer the opening handshake (4.2), and run the handler until the connection ends."""
        server = self.server
        handshake.check_request(self.command, self.request_version, self.headers)
        handshake.check_origin(
            self.headers,
            server.allowed_origins,
            secure=self.is_secure,
            forwarded=self._forwarded,
        )
        offers = handshake.parse_extensions(self.headers)
        accepted = accept_offer(offers, server.deflate) if server.deflate else None
        deflate, extension = accepted or (None, None)
        subprotocol = handshake.choose_subprotocol(self.headers, server.subprotocols)
        agreement = Handshake(path, query, self.headers, self.peer, subprotocol, deflate)
        if server.check:
            server.check(agreement)
        with server.places.taken_by(self.find_client_address()), _taken(server.websocket_slots):
            self._send_101(handshake.response_headers(self.headers, subprotocol, extension))
            websocket = WebSocket(
                self.stream,
                agreement,
                is_client=False,
                max_message=server.max_message,
                received=self._reader.buffer,
            )
            server.run_handler(handler, websocket)

    # Answers

    def _send_101(self, headers: Sequence[tuple[str, str]]) -> None:
        """Say that from here on both sides speak WebSocket (4.2.2, step 5)."""
        self.send_response_only(HTTPStatus.SWITCHING_PROTOCOLS)
        for name, value in headers:
            self.send_header(name, value)
        super().end_headers()  # ours would add what belongs to other answers

    def _send_page(self, page: Page) -> None:
        """Send a text of the program's, which nobody may store, as it can change at any moment."""
        answer = page(self.server)
        if isinstance(answer, str):
            answer = PageText(answer, _PLAIN_TEXT)
        if self.server.is_stopping:
            return self._refuse(503, "the server is shutting down")
        self._cache_control = "no-store"
        self.send_response(200)
        self._send_text(answer.text, answer.content_type)

    def _send_file(self) -> None:
        """Send a file of the directory, or for HEAD its headers alone."""
        self.stream.set_deadline(_FILE_TIME, _FILE_TOO_SLOW)
        try:
            if self.command == "HEAD":
                super().do_HEAD()
            else:
                super().do_GET()
        except ValueError:  # no file can have this name: it holds a NUL, or half a surrogate
            self._refuse(404, "there is no such file")

    def translate_path(self, path: str) -> str:
        """The file that the path of a URL names, in the first directory that has it."""
        for directory in self.server.directories:
            self.directory = directory
            file = super().translate_path(path)
            if os.path.exists(file):
                break
        return file

    def _reason_of(self, error: InvalidHandshake) -> str:
        """Why a handshake is refused, and how to allow it where the program knows that."""
        if error.refused and self.server.advise:
            return f"{error.reason}; {self.server.advise(error.refused)}"
        return error.reason

    def _refuse(self, status: int, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer with an error, its reason in words as the body."""
        log.info("%s: refused, %d %s", self.peer, status, ascii(reason))
        self.request_version = "HTTP/1.1"  # else an answer to HTTP/0.9 would have no status line
        phrase = http.client.responses.get(status, "Refused")  # a program may invent a status
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self._send_text(f"{status} {phrase}: {reason}\n")

    def _send_text(self, text: str, content_type: str = _PLAIN_TEXT) -> None:
        """End the headers, and send a text, or for HEAD its headers alone."""
        body = text.encode()
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES:
            # http.server could not open the file, and would say that there is none.
            return self._refuse(503, "the server cannot open another file", _RETRY_LATER)
        self._refuse(code, message or HTTPStatus(code).description)

    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", self._cache_control)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def handle_expect_100(self) -> bool:
        return True  # No interim answer: there is no body that the client could wait to send.

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send the file; http.server calls this once it has sent the headers."""
        size = os.fstat(source.fileno()).st_size
        self.stream.set_deadline(_FILE_TIME + size / SLOWEST_PEER, _FILE_TOO_SLOW)
        super().copyfile(source, outputfile)

    def list_directory(self, path: Any) -> None:
        self._refuse(404, "there is no such file")

    def version_string(self) -> str:
        return "rfc6455"  # http.server would tell everyone the version of Python

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's word)
        log.debug("%s: %s", self.peer, ascii(format % args))  # http.server would write to stderr

    def log_request(self, code: object = "-", size: object = "-") -> None:
        log.debug("%s: %s %s", self.peer, ascii(getattr(self, "requestline", "")), code)


class _RequestReader(io.BufferedIOBase):
    """What http.server reads a request's head from: strict, and bounded by MAX_HEAD.

    `buffer` is what has come and was not read as part of the head; at the end of the head these
    are the first bytes of WebSocket frames.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._head_size = 0  # bytes of the lines that were read
        self._lines = 0  # how many these are, the request line among them
        self.buffer = b""

    def readline(self, size: int | None = -1) -> bytes:
        """The next line of the head, or b"" where the client sent nothing at all.

        Raises InvalidHandshake for a malformed line, and ConnectionError for half a head.
        """
        while b"\n" not in self.buffer:
            if self._head_size + len(self.buffer) > handshake.MAX_HEAD:
                break
            data = self._stream.read(4096)
            if not data and self._head_size:
                raise ConnectionError("the client ended the connection within its request")
            if not data:
                return b""
            if not self._head_size and not self.buffer and data[0] == _TLS_HANDSHAKE:
                # At once: a line end may never come, and the browser would wait for an answer.
                raise InvalidHandshake(400, "this port does not speak TLS: use an http: or ws: URL")
            self.buffer += data
        text, newline, self.buffer = self.buffer.partition(b"\n")
        line = text + newline
        self._check(line)
        self._head_size += len(line)
        self._lines += 1
        return line

    def _check(self, line: bytes) -> None:
        if self._head_size + len(line) > handshake.MAX_HEAD:
            limit = handshake.MAX_HEAD
            raise InvalidHandshake(431, f"the head of the request has more than {limit} bytes")
        is_request_line = self._head_size == 0
        if is_request_line:
            if not re.fullmatch(rb"[^\r\n]*\r\n", line):
                raise InvalidHandshake(400, "the request line is malformed")
        elif line != b"\r\n":
            if self._lines > MAX_HEADERS:
                limit = MAX_HEADERS
                raise InvalidHandshake(431, f"the request has more than {limit} header lines")
            handshake.check_header_line(line)


class _ResponseWriter(io.BufferedIOBase):
    """What http.server writes its answers to."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, data: Any) -> int:
        self._stream.send(bytes(data))
        return len(data)


def _peer_name(address: Any) -> str:
    """How the log names a client: its IP address and port, as in 127.0.0.1:50000."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

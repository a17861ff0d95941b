"""`WebSocketServer`: static files and WebSockets on one port, one thread per connection.

The standard library's `http.server` reads the request and serves the files. Added to it: every
wait bounded, the number of connections capped, Host and Origin checked, heads read strictly,
bodies refused, and each connection closed after its one answer, so that nothing gets out of step.
Left out: everything that a reverse proxy does better (compression, caching, several names).
"""

import contextlib
import errno
import http.server
import io
import logging
import os
import re
import signal
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from . import handshake
from .connection import Handshake, WebSocket
from .deflate import Deflate, accept_offer
from .errors import Close, ConnectionClosed, InvalidHandshake, Refused
from .frames import CloseCode
from .keepalive import SLOWEST_PEER
from .protocol import MAX_MESSAGE
from .stream import TLS, Stream, Timeouts

log = logging.getLogger("rfc6455")

Handler = Callable[[WebSocket], None]

SPARE_CONNECTIONS = 128  # beyond `max_connections`, for pages, and for telling the rest 503
SHUTDOWN_GRACE = 3.0  # seconds for clients to answer 1001; the whole exit has five
_RESPONSE_TIME = 60.0  # seconds for a client to fetch one file; a large one is given more
_TOO_LONG = "the file took too long to fetch"
_METHODS = "GET, HEAD, OPTIONS"
_REQUEST_LINE = re.compile(r"[A-Z]+ [\x21-\x7e]+ HTTP/1\.[0-9]")
_NO_MORE_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def _check_directory(directory: str | os.PathLike[str] | None) -> str | None:
    if directory is not None and not os.path.isdir(directory):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", os.fspath(directory))
    return None if directory is None else os.fspath(directory)


def _parse_origins(texts: Collection[str]) -> set[handshake.Origin] | None:
    """The origins to let in besides the server's own; None: any. Raises ValueError."""
    if "*" in texts:
        return None
    return {handshake.Origin.parse(text) for text in texts}


def _hosts_to_answer(
    told: str, bound: str, named: Collection[handshake.Authority]
) -> set[handshake.Authority] | None:
    """The Host names to answer to; None: any, as a server for a network can't know its names.

    `told` is the address to listen on as the program gave it, perhaps a name, and `bound` the one
    that it turned out to be: on some machines their own name means an address of loopback.
    """
    own = set()
    for address in (told, bound):
        with contextlib.suppress(ValueError):  # "", which is every address
            own.add(handshake.Authority.parse(address)._replace(port=None))
    if named or any(handshake.is_loopback(each.host) for each in own):
        return handshake.LOOPBACK_HOSTS | own | set(named)
    return None


class _Signalled(Exception):
    """SIGINT or SIGTERM has come, and the loop that accepts connections ends."""


class WebSocketServer(http.server.ThreadingHTTPServer):
    """Serves `directory`, and calls `routes[path](websocket)` in a thread for each connection.

    When the handler returns, the connection is closed with 1000; when it raises Close, with what
    that says; after any other exception, which is logged with its trace, with 1011.

    On a loopback address only loopback Host names, that address and `allowed_hosts` are answered.
    Besides the server's own pages those of `allowed_origins` are let in, and all with "*".
    `advise` adds to a refusal, in the answer and in the log, how to allow what was refused.
    `max_message` is in bytes. `headers` go with every answer. `check` may raise InvalidHandshake
    before the 101, for a query or a cookie that will not do. Raises OSError where the address or
    directory will not do, and ValueError for what is no origin or host.
    """

    request_queue_size = 1024  # the default of 5 refuses a crowd that comes at once
    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # on Windows it lets two servers share one port
    _signalled = False  # whether SIGINT or SIGTERM has come

    def __init__(
        self,
        address: tuple[str, int],
        routes: Mapping[str, Handler],
        *,
        directory: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        allowed_origins: Collection[str] = (),
        allowed_hosts: Collection[str] = (),
        advise: Callable[[Refused], str] | None = None,
        subprotocols: Sequence[str] = (),
        max_connections: int = 10_000,
        max_message: int = MAX_MESSAGE,
        timeouts: Timeouts | None = None,
        ssl_context: ssl.SSLContext | None = None,
        deflate: Deflate | None = None,
        check: Callable[[Handshake], None] | None = None,
    ) -> None:
        self.routes = routes
        self.directory = _check_directory(directory)
        self.headers = {"Content-Security-Policy": "default-src 'self'"} | dict(headers or {})
        self.allowed_origins = _parse_origins(allowed_origins)
        self._named_hosts = {handshake.Authority.parse(each) for each in allowed_hosts}
        self.advise = advise
        self.subprotocols = subprotocols
        self.max_message = max_message
        self.timeouts = timeouts or Timeouts()
        self.ssl_context = ssl_context
        self.deflate, self.check = deflate, check
        self.slots = threading.BoundedSemaphore(max_connections)
        self._requests = threading.BoundedSemaphore(max_connections + SPARE_CONNECTIONS)
        self._connections: set[WebSocket] = set()
        self._changed = threading.Condition()
        self._shutting_down = False
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _RequestHandler)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the server."""
        host = str(self.server_address[0])
        if host in ("127.0.0.1", "0.0.0.0", "::"):
            host = "localhost"
        scheme = "https" if self.ssl_context else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.server_port}"

    # Running and stopping

    def serve_until_signalled(self, ready: Callable[[], None] | None = None) -> None:
        """Serve in the main thread until Ctrl+C or SIGTERM, then stop taking new clients.

        `ready` is called once signals are handled and connections are accepted: a program says
        there that it runs.
        """

        def stop(*_: object) -> None:
            self._signalled = True  # no thread for `shutdown`: there may be none to be had

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if ready:
            ready()
        with contextlib.suppress(_Signalled):
            self.serve_forever(poll_interval=0.1)
        self.server_close()

    def close_connections(self, reason: str = "the server is shutting down") -> None:
        """Close all with 1001, wait SHUTDOWN_GRACE seconds for that, then drop the rest."""
        with self._changed:
            self._shutting_down = True
            connections = list(self._connections)
        for websocket in connections:
            websocket.close(CloseCode.GOING_AWAY, reason, wait=False)
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, SHUTDOWN_GRACE)
            connections = list(self._connections)
        for websocket in connections:
            websocket.drop(reason)
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, 0.5)

    def run_handler(self, handler: Handler, websocket: WebSocket) -> None:
        """The life of one connection, in its thread, from the 101 response to the end of TCP."""
        with self._changed:
            self._connections.add(websocket)
            late = self._shutting_down
        try:
            code, reason = (CloseCode.GOING_AWAY, "") if late else _call(handler, websocket)
            websocket.close(code, reason)
            reason = websocket.close_reason or websocket.sent_reason
            text = f"{websocket.close_code} {ascii(reason) if reason else ''}".rstrip()
            log.info("%s: closed, %s", websocket.peer, text)
        finally:
            with self._changed:  # last: a thread that logs while Python ends would abort it
                self._connections.discard(websocket)
                self._changed.notify_all()

    # What http.server lets a subclass mend

    def service_actions(self) -> None:
        """Called by `serve_forever` between two connections, and ten times a second without any."""
        if self._signalled:
            raise _Signalled

    def server_bind(self) -> None:
        told = str(self.server_address[0])
        socketserver.TCPServer.server_bind(self)  # HTTPServer would ask DNS for our own name
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.allowed_hosts = _hosts_to_answer(told, self.server_name, self._named_hosts)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _NO_MORE_RESOURCES:  # the loop would come back here at once, for ever
                log.warning("cannot accept: %s", error.strerror)
                time.sleep(0.1)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self._requests.acquire(blocking=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:  # no thread could be started: the others go on
            self._requests.release()
            log.warning("%s: sent away: %s", _peer(client_address), error)
            self.shutdown_request(request)
        except BaseException:
            self._requests.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._requests.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("%s: the request failed", _peer(client_address))


def _call(handler: Handler, websocket: WebSocket) -> tuple[int, str]:
    """Run a handler; the code and reason with which the connection is to be closed after it."""
    try:
        handler(websocket)
    except ConnectionClosed:
        pass
    except Close as close:
        return close.code, close.reason
    except Exception:
        log.exception("%s: the handler failed", websocket.peer)
        return CloseCode.INTERNAL_ERROR, "internal error"
    return CloseCode.NORMAL, ""


class _RequestHandler(http.server.SimpleHTTPRequestHandler):
    """Answers one request, or turns it into a WebSocket."""

    server: WebSocketServer
    protocol_version = "HTTP/1.1"  # browsers refuse a 101 in HTTP/1.0
    request_version = "HTTP/1.1"  # of answers to what is no HTTP
    command = ""
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".html": "text/html; charset=utf-8",  # spelled out: a system's own tables differ
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".svg": "image/svg+xml",
    }

    def setup(self) -> None:
        server, self.peer = self.server, _peer(self.client_address)
        tls = TLS(server.ssl_context) if server.ssl_context else None
        self.directory = server.directory or ""
        self.stream = Stream(self.request, server.timeouts, tls)
        self.stream.set_deadline(
            server.timeouts.open_timeout, "the opening handshake took too long"
        )
        self.rfile = self._head = _Head(self.stream)
        self.wfile = _Wire(self.stream)
        self.close_connection = True

    def handle(self) -> None:
        """Answer. The peer may vanish at any point, also while it is being refused."""
        try:
            try:
                self.stream.shake_hands()
                self.handle_one_request()
            except InvalidHandshake as error:
                self._refuse(error.status, self._reason_of(error), error.headers)
        except OSError as error:
            log.info("%s: %s", self.peer, self.stream.lost or error)

    def finish(self) -> None:
        # Patient: a slow client may still be reading what the kernel holds of the answer.
        self.stream.set_deadline(self.server.timeouts.close_timeout, "", patient=True)
        self.stream.end()
        while self.stream.read(65536):  # else what the peer still sends would cause a reset
            pass
        self.stream.close()

    def do_GET(self) -> None:
        self._check_request()
        path, _, query = self.path.partition("?")
        if handler := self.server.routes.get(path):
            self._upgrade(handler, path, query)
        elif handshake.has_token(self.headers, "Upgrade", "websocket"):
            self._refuse(404, f"there is no WebSocket at {path}")
        elif self.server.directory is None:
            self._refuse(404, "no such file")
        else:
            self.stream.set_deadline(_RESPONSE_TIME, _TOO_LONG)
            with contextlib.suppress(ValueError):  # %00, or half a surrogate, in the name
                return super().do_HEAD() if self.command == "HEAD" else super().do_GET()
            self._refuse(404, "no such file")

    do_HEAD = do_GET

    def do_OPTIONS(self) -> None:
        """Say what is allowed (RFC 9110, 9.3.7): HAProxy asks so whether a server is well."""
        if handshake.has_token(self.headers, "Upgrade", "websocket"):
            return self._method_not_allowed()
        self._check_request()
        self.send_response(204)
        self.send_header("Allow", _METHODS)
        self.end_headers()

    def _method_not_allowed(self) -> None:
        self._refuse(405, f"{self.command} is not for here", [("Allow", _METHODS)])

    do_POST = do_PUT = do_DELETE = do_PATCH = _method_not_allowed

    def _check_request(self) -> None:
        """Refuse what http.server lets pass. Raises InvalidHandshake."""
        if not _REQUEST_LINE.fullmatch(self.requestline):
            raise InvalidHandshake(400, "the request line is malformed")
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or any(length != "0" for length in lengths):
            raise InvalidHandshake(400, "a GET request with a body")
        # RFC 9112, 3.2: HTTP/1.0 may leave out the Host, and health checks of proxies do. No
        # browser does, so that this can't be a page whose name was rebound.
        if self.request_version != "HTTP/1.0" or "Host" in self.headers:
            handshake.check_host(self.headers, self.server.allowed_hosts)
        path = re.sub(r"^(?i:https?)://[^/?]*", "", self.path)  # the absolute form (4.2.1)
        self.path = "/" + path.lstrip("/\\")  # "//host" would be another site in a redirect

    def _upgrade(self, handler: Handler, path: str, query: str) -> None:
        """Answer the opening handshake (4.2), and run the handler for as long as it lasts."""
        server, headers = self.server, self.headers
        handshake.check_request(self.command, self.request_version, headers)
        secure = server.ssl_context is not None
        handshake.check_origin(headers, server.allowed_origins, secure=secure)
        offers = handshake.parse_extensions(headers)
        deflate, extension = None, None
        if server.deflate and (accepted := accept_offer(offers, server.deflate)):
            deflate, extension = accepted
        subprotocol = handshake.choose_subprotocol(headers, server.subprotocols)
        agreement = Handshake(path, query, headers, self.peer, subprotocol, deflate)
        if server.check:
            server.check(agreement)
        if not server.slots.acquire(blocking=False):
            raise InvalidHandshake(503, "the server is full")
        try:
            self.send_response_only(HTTPStatus.SWITCHING_PROTOCOLS)
            for name, value in handshake.response_headers(headers, subprotocol, extension):
                self.send_header(name, value)
            super().end_headers()
            websocket = WebSocket(
                self.stream,
                agreement,
                is_client=False,
                max_message=server.max_message,
                received=self._head.rest,
            )
            server.run_handler(handler, websocket)
        finally:
            server.slots.release()

    # Answers

    def _reason_of(self, error: InvalidHandshake) -> str:
        if error.refused and self.server.advise:
            return f"{error.reason}; {self.server.advise(error.refused)}"
        return error.reason

    def _refuse(self, status: int, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        log.info("%s: refused, %d %s", self.peer, status, ascii(reason))
        self.request_version = "HTTP/1.1"  # else an answer to HTTP/0.9 has no status line
        body = f"{status} {HTTPStatus(status).phrase}: {reason}\n".encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._refuse(code, message or HTTPStatus(code).description)

    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def handle_expect_100(self) -> bool:
        return True  # there is no body to wait for

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send the file; called by http.server once it has sent the headers."""
        size = os.fstat(source.fileno()).st_size
        self.stream.set_deadline(_RESPONSE_TIME + size / SLOWEST_PEER, _TOO_LONG)
        super().copyfile(source, outputfile)

    def list_directory(self, path: Any) -> None:
        self._refuse(404, "no such file")

    def version_string(self) -> str:
        return "rfc6455"  # http.server would add Python's version, or at least a blank

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's word)
        log.debug("%s: %s", self.peer, ascii(format % args))  # and not to stderr

    def log_request(self, code: object = "-", size: object = "-") -> None:
        log.debug("%s: %s %s", self.peer, ascii(getattr(self, "requestline", "")), code)


class _Head(io.BufferedIOBase):
    """What http.server reads a request's head from: strict, bounded. `rest` is what came behind."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._taken = 0
        self.rest = b""

    def readline(self, size: int | None = -1) -> bytes:
        while b"\n" not in self.rest and self._taken + len(self.rest) <= handshake.MAX_HEAD:
            data = self._stream.read(4096)
            if not data and self._taken:
                raise ConnectionError("the request was cut off")
            if not data:
                return b""
            self.rest += data
        line, newline, self.rest = self.rest.partition(b"\n")
        line += newline
        if self._taken + len(line) > handshake.MAX_HEAD:
            raise InvalidHandshake(431, f"the head is over {handshake.MAX_HEAD} bytes")
        if not self._taken:
            if not re.fullmatch(rb"[^\r\n]*\r\n", line):
                raise InvalidHandshake(400, "the request line is malformed")
        elif line != b"\r\n":
            handshake.check_header_line(line)
        self._taken += len(line)
        return line


class _Wire(io.BufferedIOBase):
    """What http.server writes its answers to."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, data: Any) -> int:
        self._stream.send(bytes(data))
        return len(data)


def _peer(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

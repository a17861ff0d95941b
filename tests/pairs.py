"""`Pair`: our endpoint, in either role, connected with a bare socket that plays the other one."""

import contextlib
import itertools
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

from peers import MASK, PATIENCE, Frame, Peer, masked, request, response, serving, unmasked
from rfc6455 import ConnectionClosed, State, Timeouts, WebSocket, WebSocketServer, connect
from tls import Certificate, Tunnel

CALM = Timeouts(
    open_timeout=PATIENCE,
    ping_interval=60,
    ping_timeout=60,
    close_timeout=PATIENCE,
    write_timeout=60,
)
# The same, but where a handler does not read, the clock reads for it every 20 ms.
BRISK = CALM._replace(ping_timeout=0.4)

SMALL_WINDOW = 16384  # bytes that the kernel of a peer that stalls shall buffer
MORE_THAN_KERNELS_BUFFER = 16 << 20  # bytes; Linux lets a buffer grow to 4 or 6 MiB


class Task:
    """A call in a thread of its own, which no test waits for longer than PATIENCE."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._answer: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()
        self._call = function, arguments
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        function, arguments = self._call
        try:
            self._answer.put((function(*arguments), None))
        except BaseException as error:
            self._answer.put((None, error))

    @property
    def running(self) -> bool:
        return self.thread.is_alive()

    def result(self) -> Any:
        self.thread.join(PATIENCE)
        assert not self.running, "the call does not return"
        answer, error = self._answer.get()
        if error is not None:
            raise error
        return answer


class Pair:
    """Our endpoint in one role and a raw peer in the other, after the opening handshake.

    `handler` is what the endpoint does, in a thread of its own; `messages` is what it has received.
    """

    peer: Peer
    tunnel: Tunnel | None = None
    websocket: WebSocket

    def __init__(self, role: str, handler: Callable[["Pair"], None]) -> None:
        self.role = role
        self.handler = handler
        self.messages: queue.Queue[str | bytes | None] = queue.Queue()
        self.leave = threading.Event()
        self.opened = threading.Event()
        self.ended = threading.Event()
        self.closed: ConnectionClosed | None = None
        self.error: BaseException | None = None
        self.tasks: list[Task] = []

    def run(self, websocket: WebSocket) -> None:
        """Run the handler with the endpoint, and note how it ends."""
        self.websocket = websocket
        self.opened.set()
        try:
            self.handler(self)
        except ConnectionClosed as closed:
            self.closed = closed
        except BaseException as error:
            self.error = error
        self.ended.set()

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> Task:
        task = Task(function, *arguments)
        self.tasks.append(task)
        return task

    # The peer's side

    def frame(self, first: int, payload: bytes = b"", key: bytes = MASK) -> bytes:
        """A frame of the peer, who masks if our endpoint is the server."""
        return masked(first, payload, key) if self.role == "server" else unmasked(first, payload)

    def say(self, first: int, payload: bytes = b"") -> None:
        self.peer.send(self.frame(first, payload))

    def read_frame(self) -> Frame:
        """The endpoint's next frame."""
        first, payload, key = self.peer.read_frame_and_key()
        assert (key is None) == (self.role == "server")
        return Frame(first, payload)

    def read_close(self) -> tuple[int | None, str]:
        """Code and reason of the endpoint's Close, which EOF follows.

        A client waits until the server, here the peer, has ended TCP (7.1.1).
        """
        first, payload = self.read_frame()
        assert first == 0x88, f"no Close but 0x{first:x} {payload!r}"
        self.read_eof()
        return int.from_bytes(payload[:2], "big") if payload else None, payload[2:].decode()

    def read_eof(self) -> None:
        if self.role == "client" and self.tunnel:
            self.tunnel.say_farewell()
        elif self.role == "client":
            self.peer.sock.shutdown(socket.SHUT_WR)
        assert self.peer.read_to_eof() == b""

    def say_goodbye(self) -> None:
        """The peer closes, and the endpoint sends nothing but its answer."""
        self.say(0x88, b"\x03\xe8")
        assert self.read_close() == (1000, "")

    # The endpoint's side

    def state(self) -> State:
        return self.websocket.state

    def take(self) -> str | bytes | None:
        """The next message that the endpoint received."""
        return self.messages.get(timeout=PATIENCE)

    def remaining_messages(self) -> list[str | bytes | None]:
        """The messages that the endpoint has received up to its end and that were not taken."""
        assert self.ended.wait(PATIENCE)
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.messages.get_nowait())
        return found

    def raised(self) -> ConnectionClosed:
        """The ConnectionClosed with which the endpoint's handler ended."""
        assert self.ended.wait(PATIENCE)
        assert self.closed is not None
        return self.closed


def listen(pair: Pair) -> None:
    """A handler: receive until the connection ends."""
    while True:
        pair.messages.put(pair.websocket.receive())


def stand_by(pair: Pair) -> None:
    """A handler: neither receive nor send, which the test does itself."""
    assert pair.leave.wait(60)


@contextlib.contextmanager
def connected_pair(
    role: str,
    handler: Callable[[Pair], None] = listen,
    *,
    early: bytes = b"",
    window: int | None = None,
    certificate: Certificate | None = None,
    extensions: str | None = None,
    timeouts: Timeouts = CALM,
    **options: Any,
) -> Iterator[Pair]:
    """A pair that lasts as long as the `with` statement; `options` are those of server or client.

    `early` is what the peer sends in one piece with the handshake. `window` bounds what the kernel
    buffers on the way to the peer, in bytes. `extensions` is the peer's Sec-WebSocket-Extensions
    header: its offer to a server, or its answer to a client.
    """
    pair = Pair(role, handler)
    options["timeouts"] = timeouts
    if certificate:
        context = certificate.server() if role == "server" else certificate.client()
        options["ssl_context"] = context
    with contextlib.ExitStack() as stack:
        if role == "server":
            server = stack.enter_context(serving(pair.run, **options))
            if window:
                server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, window)
            sock = stack.enter_context(_call(server, window))
        else:
            sock = stack.enter_context(_await_call(pair, window, options))
        pair.peer = Peer(sock)
        if certificate and role == "server":
            pair.tunnel = Tunnel(sock, certificate.client(), "localhost")
        elif certificate:
            pair.tunnel = Tunnel(sock, certificate.server())
        if pair.tunnel:
            pair.tunnel.shake_hands()
            pair.peer.sock = cast(socket.socket, pair.tunnel)
        if role == "server":
            pair.peer.send(request(server, Sec_WebSocket_Extensions=extensions) + early)
            assert pair.peer.read_head().startswith("HTTP/1.1 101 ")
        else:
            lines = [f"Sec-WebSocket-Extensions: {extensions}"] if extensions else []
            pair.peer.send(response(pair.peer.read_head(), *lines) + early)
        stack.callback(pair.leave.set)
        assert pair.opened.wait(PATIENCE)
        if window and role == "client":  # `connect` has no option for it
            ours = pair.websocket._stream._sock
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, window)
        yield pair
    for task in pair.tasks:
        task.thread.join(PATIENCE)
        assert not task.running, "a call does not return"
    if pair.error:
        raise pair.error


def _call(server: WebSocketServer, window: int | None) -> socket.socket:
    sock = socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(("127.0.0.1", server.server_port))
    except BaseException:
        sock.close()
        raise
    return sock


def _await_call(pair: Pair, window: int | None, options: dict[str, Any]) -> socket.socket:
    """Have our client connect, and accept its connection."""

    def run(url: str) -> None:
        with connect(url, **options) as websocket:
            pair.run(websocket)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        if window:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        secure = "ssl_context" in options
        pair.spawn(run, f"wss://localhost:{port}/" if secure else f"ws://127.0.0.1:{port}/")
        return listener.accept()[0]


def send_until_closed(send: Callable[[bytes], None], message: bytes) -> tuple[int, int]:
    """Send the message again and again; how often that worked, and the code when it did not."""
    for count in itertools.count():
        try:
            send(message)
        except ConnectionClosed as closed:
            return count, closed.code
    raise AssertionError


def reset(peer: Peer) -> None:
    """End TCP with a reset, under TLS if the peer speaks it."""
    bare = peer.sock.sock if isinstance(peer.sock, Tunnel) else peer.sock
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()

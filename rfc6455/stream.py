"""The bytes below the frames: TCP or TLS, one reader, many writers, and a clock for every wait.

No RFC here, but three promises that all else leans on. A writer that must not wait never does:
what the kernel does not take goes to a bounded backlog, which a thread drains that lives only as
long as the backlog. The lock is never held while the network is waited for. Every wait has an end:
one clock thread holds all deadlines and wakes a blocked reader or writer by shutting the socket.
"""

import contextlib
import logging
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

log = logging.getLogger("rfc6455")

MAX_BACKLOG = 1 << 20  # bytes that may wait for a peer that reads too slowly
_PIECE = 65536  # bytes; after each the drainer notes that the peer still takes something
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", None)  # Windows has none: its backlog does all


class Timeouts(NamedTuple):
    """How long each wait may last, in seconds."""

    opening: float = 10.0  # the whole opening handshake, TLS included
    ping_after: float = 20.0  # of silence; below the 60 s after which proxies drop a connection
    pong_within: float = 20.0
    closing: float = 5.0  # from the first Close to the end of TCP
    stuck: float = 20.0  # for the peer to take anything of what waits for it

    @property
    def shortest(self) -> float:
        return min(self.opening, self.ping_after, self.pong_within, self.closing, self.stuck)


class Clock:
    """One thread that looks at every stream, again and again, whether a deadline has come.

    Looking at all is simpler than a heap of deadlines that each message would move, and ten
    thousand cost less than a thousandth of a core. The thread ends with the last stream.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._streams: set[Stream] = set()
        self._period = 1.0  # seconds between two looks; less where a timeout is short
        self._running = False

    def watch(self, stream: "Stream") -> None:
        with self._changed:
            self._streams.add(stream)
            if stream.timeouts.shortest / 8 < self._period:
                self._period = stream.timeouts.shortest / 8
                self._changed.notify()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="rfc6455-clock", daemon=True).start()

    def forget(self, stream: "Stream") -> None:
        with self._changed:
            self._streams.discard(stream)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(self._period)
                if not self._streams:
                    self._period, self._running = 1.0, False
                    return
                streams = list(self._streams)
            now = time.monotonic()
            for stream in streams:
                if now >= stream.due:
                    try:
                        stream.tick(now)
                    except Exception:
                        log.exception("a deadline could not be looked after")


clock = Clock()


class TLS:
    """TLS as a codec between a socket's bytes and ours.

    OpenSSL forbids that two threads use one connection at once, and here one reads while others
    write. Between two buffers in memory neither call can wait, so that a lock around each will do.
    """

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._lock = threading.Lock()
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self.ended = False  # the peer has sent its close_notify

    def handshake(self, sock: socket.socket) -> None:
        """Wait until both sides agree. Raises ssl.SSLError (an OSError), ConnectionError."""
        while True:
            agreed = False
            try:
                self._object.do_handshake()
                agreed = True
            except ssl.SSLWantReadError:
                pass
            finally:  # on failure this is the alert that tells the peer why
                with contextlib.suppress(OSError):
                    sock.sendall(self._outgoing.read())
            if agreed:
                return
            data = sock.recv(_PIECE)
            if not data:
                raise ConnectionError("the TLS handshake was cut off")
            self._incoming.write(data)

    def encrypt(self, data: bytes) -> bytes:
        with self._lock:
            if data:
                self._object.write(data)
            return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """What `data` completes, perhaps nothing. Raises ssl.SSLError."""
        with self._lock:
            self._incoming.write(data)
            clear = bytearray()
            while not self.ended:
                try:
                    piece = self._object.read(_PIECE)
                except ssl.SSLWantReadError:
                    break
                except ssl.SSLZeroReturnError:
                    piece = b""
                self.ended = not piece
                clear += piece
            return bytes(clear)

    def say_farewell(self) -> None:
        """Make close_notify the last thing that `encrypt` gives out."""
        with self._lock, contextlib.suppress(ssl.SSLError):
            self._object.unwrap()


class Stream:
    """A connected socket. One thread at a time may read; any thread may do anything else."""

    def __init__(self, sock: socket.socket, timeouts: Timeouts, tls: TLS | None = None) -> None:
        sock.settimeout(None)  # the clock ends every wait; a timeout would bind both directions
        with contextlib.suppress(OSError):  # no TCP socket, or the peer is gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self.tls, self._early = tls, b""
        self.timeouts = timeouts
        self.heard_at = time.monotonic()  # when the peer last sent anything
        self.lost: str | None = None  # why nothing can be read or written any more
        self._deadline, self._deadline_reason = math.inf, ""
        self._lock = threading.Lock()  # around every use of what follows
        self._backlog: list[tuple[memoryview | bytes, bool]] = []  # and whether it was posted
        self._drained = threading.Condition(self._lock)
        self._draining = False  # while it is set, only the drainer writes to the socket
        self._progress_at = 0.0  # when the peer last took something of the backlog
        self._queued = self._sent = 0  # bytes that ever entered and left the backlog
        self._posted = 0  # bytes of the backlog for which nobody waits
        self._no_more = self._ended = False  # the last write was announced as such; FIN, too
        self._fin_follows = False
        self.due = 0.0  # when the clock has to look next; whoever gives it reason sets it to 0
        self.on_tick: Callable[[float], float] | None = None  # of a WebSocket; tells the next due
        clock.watch(self)

    # Reading

    def read(self, size: int, timeout: float | None = None) -> bytes | None:
        """Bytes as they arrive, b"" at the end, None after `timeout` seconds without any."""
        if self._early and self.lost is None:  # it came with the end of the TLS handshake
            data, self._early = self._early, b""
            return data
        while self.lost is None and not (self.tls and self.tls.ended):
            if timeout is not None and not self._readable(timeout):
                return None
            try:
                data = self._sock.recv(size)
                if data and self.tls:
                    data = self._decrypt(data)
                    if not data:
                        continue
            except OSError as error:
                self.abort(error.strerror or str(error))
                break
            self.heard_at = time.monotonic()
            return b"" if self.lost else data
        return b""

    def shake_hands(self) -> None:
        """The TLS handshake, where there is one. Raises OSError (ssl.SSLError among them)."""
        if self.tls:
            self.tls.handshake(self._sock)
            self._early = self.tls.decrypt(b"")

    def _readable(self, timeout: float) -> bool:
        if not hasattr(select, "poll"):
            return bool(select.select([self._sock], [], [], timeout)[0])
        poll = select.poll()  # select takes no descriptor from 1,024 on
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(math.ceil(timeout * 1000)))

    def _decrypt(self, data: bytes) -> bytes:
        assert self.tls
        clear = self.tls.decrypt(data)
        with contextlib.suppress(ConnectionError):
            self.write(b"", wait=False, force=True)  # what TLS itself may have to answer
        return clear

    # Writing

    def write(self, data: bytes, *, wait: bool, last: bool = False, force: bool = False) -> None:
        """Send `data` as one piece, behind all that was written before.

        With `wait` it returns when the kernel has taken everything; without, at once, and a peer
        whose backlog would pass MAX_BACKLOG bytes is dropped; only a single piece may be larger.
        After a `last` write only a `force`d one is allowed. Raises ConnectionError.
        """
        with self._lock:
            if self.lost is not None or (self._no_more and not force):
                raise ConnectionError(self.lost or "the connection is closing")
            if last:
                self._no_more = True
            rest = self._send_now(data)
            if not rest:
                return
            if not wait:
                if self._posted and self._posted + len(rest) > MAX_BACKLOG:
                    self._lose(f"read too slowly, {MAX_BACKLOG} bytes wait for it")
                    raise ConnectionError(self.lost)
                self._posted += len(rest)
            self._queued += len(rest)
            self._backlog.append((rest, not wait))
            if not self._draining:
                self._start_drainer()
            if wait:
                until = self._queued
                self._drained.wait_for(lambda: self._sent >= until or self.lost is not None)
                if self._sent < until:
                    raise ConnectionError(self.lost)

    def _send_now(self, data: bytes) -> memoryview | bytes:
        """Hand the kernel what it takes without waiting; the rest, b"" if there is none."""
        try:
            if self.tls:
                data = self.tls.encrypt(data)
            if self._draining or _DONT_WAIT is None or not data:
                return memoryview(data)
            sent = self._sock.send(data, _DONT_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error.strerror or str(error))
            raise ConnectionError(self.lost) from error
        return b"" if sent == len(data) else memoryview(data)[sent:]

    def _start_drainer(self) -> None:
        try:
            threading.Thread(target=self._drain, name="rfc6455-drainer", daemon=True).start()
        except RuntimeError as error:  # too many threads
            self._lose(str(error))
            raise ConnectionError(self.lost) from error
        self._draining, self._progress_at, self.due = True, time.monotonic(), 0.0

    def _drain(self) -> None:
        """Send the backlog, waiting for the peer; the thread that lives as long as the backlog."""
        while True:
            with self._lock:
                if not self._backlog:
                    self._draining = False
                    if self._fin_follows:
                        self._shut(socket.SHUT_WR)
                    self._drained.notify_all()
                    return
                piece = self._backlog[0][0][:_PIECE]
            try:
                sent = self._sock.send(piece)  # no lock: while _draining nobody else sends
            except OSError as error:
                self.abort(error.strerror or str(error))
                continue
            with self._lock:
                if self.lost is None:
                    self._sent += sent
                    self._progress_at = time.monotonic()
                    data, posted = self._backlog[0]
                    self._posted -= sent if posted else 0
                    if sent < len(data):
                        self._backlog[0] = data[sent:], posted
                    else:
                        del self._backlog[0]
                        self._drained.notify_all()

    # The end

    def end(self) -> None:
        """Send FIN behind all that was written: the peer reads everything, then EOF, no reset."""
        with self._lock:
            if self._ended:
                return
            self._ended = self._no_more = True
            if self.tls:
                self.tls.say_farewell()
        if self.tls:
            with contextlib.suppress(ConnectionError):
                self.write(b"", wait=False, force=True)
        with self._lock:
            self._fin_follows = True
            if not self._draining:
                self._shut(socket.SHUT_WR)

    def abort(self, reason: str) -> None:
        """End both directions now; whoever waits for this stream wakes up. Never waits."""
        with self._lock:
            self._lose(reason)

    def close(self) -> None:
        """Release the socket. Call it from the reading side, when nothing more is to be read."""
        self.abort("the connection is closed")
        with self._lock:
            self._drained.wait_for(lambda: not self._draining)  # the drainer uses the socket
            self._sock.close()
        clock.forget(self)

    def set_deadline(self, seconds: float, reason: str) -> None:
        """Abort in `seconds` for this reason, unless another deadline is set before."""
        self._deadline_reason = reason
        self._deadline = time.monotonic() + seconds
        self.due = 0.0

    def tick(self, now: float) -> None:
        """Called by the clock when `due`; never waits."""
        self.due = math.inf  # first, so that what happens meanwhile can make it 0
        if now >= self._deadline:
            self.abort(self._deadline_reason)
        elif self._draining and now - self._progress_at >= self.timeouts.stuck:
            self.abort(f"took nothing for {self.timeouts.stuck:g} s")
        due = self.on_tick(now) if self.on_tick else math.inf
        self.due = min(self.due, due, self._deadline, now if self._draining else math.inf)

    def _lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        self._backlog.clear()
        self._drained.notify_all()
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # the peer was faster
            self._sock.shutdown(how)

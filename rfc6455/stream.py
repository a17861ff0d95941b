"""The bytes below the frames: TCP or TLS, one reader, many writers, and an end for every wait.

No RFC here, but three promises that all else leans on. A writer that must not wait never does:
what the kernel does not take goes to a bounded backlog, which a thread drains that lives only as
long as the backlog. The lock is never held while the network is waited for. Every wait has an end:
the clock looks at the deadlines and wakes a blocked reader or writer by shutting the socket.
"""

import contextlib
import errno
import math
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from .clock import clock
from .keepalive import SLOWEST_PEER

if sys.platform == "linux":
    import fcntl
    import termios

MAX_BACKLOG = 1 << 20  # bytes that may wait for a peer that reads too slowly
# Pieces that may wait: each takes hundreds of bytes beside its own, which for a pong are two.
_MAX_PIECES = 8192
_PIECE = 65536  # bytes that the drainer hands to the kernel at once
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", None)  # Windows has none: its backlog does all


class Timeouts(NamedTuple):
    """How long each wait may last, in seconds."""

    open_timeout: float = 10.0  # the whole opening handshake, TLS included
    ping_interval: float = 20.0  # of silence; below the 60 s after which proxies drop a connection
    ping_timeout: float = 20.0
    close_timeout: float = 5.0  # from the first Close to the end of TCP
    # For the peer to take anything of what waits for it. nginx holds some megabytes and takes no
    # more until a third of them has gone: with a client of 25 kB/s it stood still for 58 s.
    write_timeout: float = 60.0


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
        """Raises OSError where no thread can be started to watch over its deadlines."""
        sock.settimeout(None)  # the clock ends every wait; a timeout would bind both directions
        with contextlib.suppress(OSError):  # no TCP socket, or the peer is gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self.tls, self._early = tls, b""
        self.timeouts = timeouts
        self.heard_at = time.monotonic()  # when the peer last sent anything
        self.lost: str | None = None  # why nothing can be read or written any more
        self._lock = threading.Lock()  # around every change of what follows
        self._unwritable: str | None = None  # why nothing can be written any more; reading goes on
        self._deadline = math.inf
        self._deadline_reason = ""
        self._patience = 0.0  # seconds from the peer's last progress to the deadline, if it moves
        self._latest = math.inf  # to which a deadline moves at most
        self._backlog: list[tuple[memoryview | bytes, bool]] = []  # and whether it was posted
        self._drained = threading.Condition(self._lock)
        self._draining = False  # while it is set, only the drainer writes to the socket
        self._progress_at = 0.0  # when the peer was last seen to take something
        self._handed = 0  # bytes that the kernel has taken
        self._taken = 0  # bytes of these that the peer had taken at the last look
        self._queued = self._sent = 0  # bytes that ever entered and left the backlog
        self._posted = 0  # bytes of the backlog for which nobody waits
        self._no_more = self._ended = False  # the last write was announced as such; FIN, too
        self._fin_follows = False
        # Of a WebSocket: called at every look, and says when to look again.
        self.on_look: Callable[[float], float] | None = None
        try:
            self._entry = clock.watch(self)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"no thread for its deadlines: {error}") from error

    # Reading

    def read(self, size: int, timeout: float | None = None) -> bytes | None:
        """Bytes as they arrive, b"" at the end, None after `timeout` seconds without any.

        Over TLS they may be more than `size`.
        """
        if self._early and self.lost is None:  # it came with the end of the TLS handshake
            data, self._early = self._early, b""
            return data
        give_up = None if timeout is None else time.monotonic() + timeout
        while self.lost is None and not (self.tls and self.tls.ended):
            if give_up is not None:
                left = max(0.0, give_up - time.monotonic())
                if not self._readable(left):
                    return None
            try:
                data = self._sock.recv(size)
                if data:
                    self.heard_at = time.monotonic()
                if data and self.tls:
                    data = self._decrypt(data)
                    if not data:  # no record is complete yet
                        if timeout == 0:
                            return None
                        continue
            except OSError as error:
                self.abort(error.strerror or str(error))
                break
            return b"" if self.lost else data
        return b""

    def shake_hands(self) -> None:
        """The TLS handshake, where there is one. Raises OSError (ssl.SSLError among them)."""
        if self.tls:
            self.tls.handshake(self._sock)
            self._early = self.tls.decrypt(b"")

    def has_unread(self) -> bool:
        """Whether something of the peer's waits in the kernel. Never waits."""
        with self._lock:
            return self.lost is None and self._readable(0)

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
            broken = self.lost or self._unwritable
            if broken is not None or (self._no_more and not force):
                raise ConnectionError(broken or "the connection is closing")
            if last:
                self._no_more = True
            rest = self._send_now(data)
            if not rest:
                return
            if not wait:
                too_much = self._posted + len(rest) > MAX_BACKLOG
                if self._posted and (too_much or len(self._backlog) >= _MAX_PIECES):
                    self._lose(f"read too slowly, {self._posted} bytes wait for it")
                    raise ConnectionError(self.lost)
                self._posted += len(rest)
            self._queued += len(rest)
            self._backlog.append((rest, not wait))
            if not self._draining:
                self._start_drainer()
            if wait:
                until = self._queued
                self._drained.wait_for(lambda: self._sent >= until or self.is_broken)
                if self._sent < until:
                    raise ConnectionError(self.lost or self._unwritable)

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be written any more, because something failed."""
        return self.lost is not None or self._unwritable is not None

    def _send_now(self, data: bytes) -> memoryview | bytes:
        """Hand the kernel what it takes without waiting; the rest, b"" if there is none."""
        try:
            if self.tls:
                data = self.tls.encrypt(data)
            if self._draining or _DONT_WAIT is None or not data:
                return memoryview(data)
            sent = self._sock.send(data, _DONT_WAIT)
            self._handed += sent
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail_writing(error)
            raise ConnectionError(self._unwritable) from error
        return b"" if sent == len(data) else memoryview(data)[sent:]

    def _start_drainer(self) -> None:
        try:
            threading.Thread(target=self._drain, name="rfc6455-drainer", daemon=True).start()
        except RuntimeError as error:  # too many threads
            self._lose(str(error))
            raise ConnectionError(self.lost) from error
        self._draining = True
        self._progress_at = time.monotonic()
        self._peer_took_something()  # what it took before this does not count
        self.look_within(self.timeouts.write_timeout / 8)

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
                with self._lock:
                    self._fail_writing(error)
                continue
            with self._lock:
                if not self.is_broken:
                    self._handed += sent
                    self._sent += sent
                    data, posted = self._backlog[0]
                    self._posted -= sent if posted else 0
                    if sent < len(data):
                        self._backlog[0] = data[sent:], posted
                    else:
                        del self._backlog[0]
                        self._drained.notify_all()

    def _fail_writing(self, error: OSError) -> None:
        """The peer takes nothing any more. What it said before may still be unread."""
        if not self.is_broken:
            self._unwritable = error.strerror or str(error)
        self._backlog.clear()
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
        clock.forget(self._entry)

    # Deadlines

    def set_deadline(self, seconds: float, reason: str, *, patient: bool = False) -> None:
        """Abort in `seconds` for this reason, unless another deadline is set before.

        With `patient` the deadline moves while the peer still takes what was written so far, and
        reads no more slowly than SLOWEST_PEER.
        """
        deadline = time.monotonic() + seconds
        with self._lock:
            self._deadline = self._latest = deadline
            self._deadline_reason = reason
            self._patience = 0.0
            if patient and self.lost is None:
                self._patience = seconds
                self._peer_took_something()  # what it took before this does not count
                self._latest += (self._written() - self._taken) / SLOWEST_PEER
        clock.look_by(self._entry, deadline - (seconds * 3 / 4 if patient else 0))

    def written(self) -> int:
        """Bytes that were ever written, whether or not the kernel has taken them yet."""
        with self._lock:
            return self._written()

    def _written(self) -> int:
        return self._handed + self._queued - self._sent

    @property
    def is_draining(self) -> bool:
        """Whether something waits for the peer to take it."""
        return self._draining

    def wait_drained(self) -> None:
        """Wait until nothing waits for the peer, or the stream is lost: set a deadline before."""
        with self._lock:
            self._drained.wait_for(lambda: not self._draining)

    def look_within(self, seconds: float) -> None:
        """Have the clock look in `seconds` at the latest; cheap where it will look anyway."""
        # `heard_at` is in the past, and saves to ask for the time: at worst the clock is asked in
        # vain.
        if self._entry.when > self.heard_at + seconds:
            clock.look_by(self._entry, time.monotonic() + seconds)

    def look(self, now: float) -> float:
        """Called by the clock; never waits. When to look again, in `time.monotonic()`'s seconds."""
        with self._lock:
            due = self._look_at_waits(now)
        if self.on_look:
            due = min(due, self.on_look(now))
        return due

    def _look_at_waits(self, now: float) -> float:
        """End the stream if a deadline has passed; when the next one may."""
        if self.lost is not None:
            return math.inf
        if (self._draining or self._patience) and self._peer_took_something():
            self._progress_at = now
            if self._patience:
                self._deadline = min(now + self._patience, self._latest)
        if now >= self._deadline:
            self._lose(self._deadline_reason)
            return math.inf
        due = self._deadline
        if self._patience:
            due = min(due, now + self._patience / 4)
        if self._draining:
            stuck = self.timeouts.write_timeout
            if now - self._progress_at >= stuck:
                self._lose(f"took nothing for {stuck:g} s")
                return math.inf
            due = min(due, self._progress_at + stuck, now + stuck / 8)
        return due

    def _peer_took_something(self) -> bool:
        """Whether the peer has taken more than at the last look.

        The drainer can't tell: its `send` returns only once a third of the kernel's buffer is
        free, and that may hold megabytes.
        """
        taken = self._handed - _not_taken(self._sock)
        if taken <= self._taken:
            return False
        self._taken = taken
        return True

    def _lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        self._backlog.clear()
        self._drained.notify_all()
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # the peer was faster
            self._sock.shutdown(how)


def _not_taken(sock: socket.socket) -> int:
    """Bytes in the kernel that the peer has not acknowledged; 0 where the kernel does not tell.

    Other kernels wake a writer as soon as a little is free, so that `send` itself shows progress.
    """
    if sys.platform != "linux":
        return 0
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0  # no TCP socket
    return int(count)

"""The bytes below the frames: TCP or TLS, one reader, many writers, and an end for every wait.

No RFC here, but three promises that all else leans on. A writer that must not wait never does:
what the kernel does not take goes to a bounded backlog, which a thread drains that lives only as
long as the backlog. The lock is never held while the network is waited for. Every wait has an end:
the clock looks at the deadlines and wakes a blocked reader or writer by shutting the socket.
"""

import collections
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
DONT_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)  # Windows has none: its backlog does all


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


class _Piece(NamedTuple):
    """A part of the backlog."""

    data: memoryview | bytes
    awaited: bool  # somebody waits until it is sent


class Stream:
    """A connected socket. One thread at a time may read; any thread may do anything else.

    `lock` is held around `put`, and around whatever else has to happen together with it: a change
    of a connection's state and the frame that belongs to it, for one. No wait happens under it.
    """

    def __init__(self, sock: socket.socket, timeouts: Timeouts, tls: TLS | None = None) -> None:
        """Raises OSError where no thread can be started to watch over its deadlines."""
        sock.settimeout(None)  # the clock ends every wait; a timeout would bind both directions
        with contextlib.suppress(OSError):  # no TCP socket, or the peer is gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeouts = timeouts
        self.heard_at = time.monotonic()  # when the peer last sent anything
        self.lock = threading.Lock()  # around every change of what follows
        self.lost: str | None = None  # why nothing can be read or written any more
        self.failure: str | None = None  # why nothing can be written any more; reading may go on
        self._sock = sock
        self._tls = tls
        self._early = b""  # what came with the end of the TLS handshake
        # What `broadcast` uses in place of `put`, with `lock` held, to save a call for each client:
        # the socket, while bytes may go straight to it, and the count of those that did.
        self.direct: socket.socket | None = None
        self.handed = 0  # bytes that the kernel has ever taken
        self._taken = 0  # bytes of these that the peer had taken when it was last looked at
        self._taken_at = 0.0  # when the peer was last seen to take something
        self._backlog: collections.deque[_Piece] = collections.deque()
        self._waiting = 0  # bytes of the backlog
        self._unawaited = 0  # bytes of these that nobody waits for
        self._draining = False  # while it is set only the drainer writes to the socket
        self._progress = threading.Condition(self.lock)  # a piece is sent, or never will be
        self._ended = False  # FIN follows behind what was put
        self._deadline = math.inf
        self._deadline_reason = ""
        self._patience = 0.0  # seconds from the peer's last progress to the deadline, if it moves
        self._latest = math.inf  # to which the deadline moves at most
        self._on_look: Callable[[float], float] | None = None
        self._set_direct()
        try:
            self._entry = clock.watch(self)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"no thread for its deadlines: {error}") from error

    # Reading

    def read(self, size: int, timeout: float | None = None) -> bytes | None:
        """Bytes as they arrive, b"" at the end, None after `timeout` seconds without any.

        Over TLS they may be more than `size`.
        """
        if self._early and self.lost is None:
            data = self._early
            self._early = b""
            return data
        give_up = None if timeout is None else time.monotonic() + timeout
        while self.lost is None and not (self._tls and self._tls.ended):
            if give_up is not None:
                left = max(0.0, give_up - time.monotonic())
                if not self._readable(left):
                    return None
            try:
                data = self._sock.recv(size)
                if data:
                    self.heard_at = time.monotonic()
                if data and self._tls:
                    data = self._decrypt(self._tls, data)
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
        if self._tls:
            self._tls.handshake(self._sock)
            self._early = self._tls.decrypt(b"")

    def has_unread(self) -> bool:
        """Whether something of the peer's waits in the kernel. Never waits."""
        with self.lock:
            return self.lost is None and self._readable(0)

    def _readable(self, timeout: float) -> bool:
        if not hasattr(select, "poll"):
            return bool(select.select([self._sock], [], [], timeout)[0])
        poll = select.poll()  # select takes no descriptor from 1,024 on
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(math.ceil(timeout * 1000)))

    def _decrypt(self, tls: TLS, data: bytes) -> bytes:
        clear = tls.decrypt(data)
        with self.lock, contextlib.suppress(ConnectionError):
            self.put(b"")  # what TLS itself may have to answer
        return clear

    # Writing

    def put(self, data: bytes, *, awaited: bool = False) -> int:
        """Send `data` as one piece behind all that was put before; where it ends, in bytes.

        Never waits: what the kernel does not take now goes to the backlog. A peer whose backlog
        would pass MAX_BACKLOG bytes is dropped, but a single piece may be larger. Whoever calls
        `wait_sent` says so with `awaited`: that bounds what it puts, and it is not counted.

        Call it with `lock` held. Raises ConnectionError.
        """
        if self.failure is not None or self._ended:
            raise ConnectionError(self.failure or "the connection is closing")
        if self._tls:
            data = self._encrypt(self._tls, data)
        sent = 0
        if not self._draining and DONT_WAIT and data:
            try:
                sent = self._sock.send(data, DONT_WAIT)
            except BlockingIOError:
                pass
            except OSError as error:
                self._fail_writing(error)
                raise ConnectionError(self.failure) from error
            self.handed += sent
        if sent < len(data):
            self._queue(memoryview(data)[sent:] if sent else data, awaited)
        return self.handed + self._waiting

    def wait_sent(self, position: int) -> None:
        """Wait until the kernel has taken everything up to this position.

        Call it without `lock`. Raises ConnectionError where that can't happen any more.
        """
        if self.handed >= position:
            return
        with self._progress:
            self._progress.wait_for(lambda: self.handed >= position or self.failure is not None)
            if self.handed < position:
                raise ConnectionError(self.failure)

    def send(self, data: bytes) -> None:
        """Put it, and wait until the kernel has taken it. Raises ConnectionError."""
        with self.lock:
            position = self.put(data, awaited=True)
        self.wait_sent(position)

    @property
    def position(self) -> int:
        """Bytes that were ever put, whether or not the kernel has taken them yet."""
        with self.lock:
            return self.handed + self._waiting

    @property
    def is_draining(self) -> bool:
        """Whether something waits for the peer to take it."""
        return self._draining

    def wait_drained(self) -> None:
        """Wait until nothing waits for the peer, or the stream is lost: set a deadline before."""
        with self._progress:
            self._progress.wait_for(lambda: not self._draining)

    def _encrypt(self, tls: TLS, data: bytes) -> bytes:
        try:
            return tls.encrypt(data)
        except OSError as error:
            self._fail_writing(error)
            raise ConnectionError(self.failure) from error

    def _queue(self, data: memoryview | bytes, awaited: bool) -> None:
        """Put into the backlog what the kernel did not take, and see that it is drained."""
        if not awaited:
            too_much = self._unawaited + len(data) > MAX_BACKLOG
            if self._unawaited and (too_much or len(self._backlog) >= _MAX_PIECES):
                self._lose(f"read too slowly, {self._unawaited} bytes wait for it")
                raise ConnectionError(self.failure)
            self._unawaited += len(data)
        self._backlog.append(_Piece(data, awaited))
        self._waiting += len(data)
        if not self._draining:
            self._start_drainer()

    def _set_direct(self) -> None:
        plain = self._tls is None and DONT_WAIT != 0
        free = not self._draining and not self._ended and self.failure is None
        self.direct = self._sock if plain and free else None

    def _start_drainer(self) -> None:
        try:
            threading.Thread(target=self._drain, name="rfc6455-drainer", daemon=True).start()
        except RuntimeError as error:  # too many threads
            self._lose(str(error))
            raise ConnectionError(self.failure) from error
        self._draining = True
        self._set_direct()
        self._taken_at = time.monotonic()
        self._peer_took_something()  # what it took before this does not count
        self.look_within(self.timeouts.write_timeout / 8)

    def _drain(self) -> None:
        """Send the backlog, waiting for the peer; the thread that lives as long as the backlog."""
        while True:
            with self.lock:
                if not self._backlog:
                    self._draining = False
                    self._set_direct()
                    if self._ended:
                        self._shut(socket.SHUT_WR)
                    self._progress.notify_all()
                    return
                first = self._backlog[0].data[:_PIECE]
            try:
                sent = self._sock.send(first)  # no lock: while _draining nobody else sends
            except OSError as error:
                with self.lock:
                    self._fail_writing(error)
                continue
            with self.lock:
                if self.failure is None:
                    self._note_drained(sent)

    def _note_drained(self, sent: int) -> None:
        """Take what the kernel has taken, at most one piece, out of the backlog."""
        self.handed += sent
        self._waiting -= sent
        data, awaited = self._backlog[0]
        if not awaited:
            self._unawaited -= sent
        if sent < len(data):
            self._backlog[0] = _Piece(memoryview(data)[sent:], awaited)
        else:
            self._backlog.popleft()
            self._progress.notify_all()

    def _fail_writing(self, error: OSError) -> None:
        """The peer takes nothing any more. What it said before may still be unread."""
        if self.failure is None:
            self.failure = error.strerror or str(error)
        self._give_up_backlog()

    def _give_up_backlog(self) -> None:
        """Nothing more can be written: whoever waits for it is told."""
        self._set_direct()
        self._backlog.clear()
        self._progress.notify_all()

    # The end

    def end(self) -> None:
        """Send FIN behind all that was put: the peer reads everything, then EOF, and no reset."""
        with self.lock:
            if self._ended:
                return
            if self._tls:
                self._tls.say_farewell()
                with contextlib.suppress(ConnectionError):
                    self.put(b"")
            self._ended = True
            self._set_direct()
            if not self._draining:
                self._shut(socket.SHUT_WR)

    def abort(self, reason: str) -> None:
        """End both directions now; whoever waits for this stream wakes up. Never waits."""
        with self.lock:
            self._lose(reason)

    def close(self) -> None:
        """Release the socket. Call it from the reading side, when nothing more is to be read."""
        self.abort("the connection is closed")
        with self._progress:
            self._progress.wait_for(lambda: not self._draining)  # the drainer uses the socket
            self._sock.close()
        clock.forget(self._entry)

    # Deadlines

    def set_deadline(self, seconds: float, reason: str, *, patient: bool = False) -> None:
        """Abort in `seconds` for this reason, unless another deadline is set before.

        With `patient` the deadline moves while the peer still takes what was written so far, and
        reads no more slowly than SLOWEST_PEER.
        """
        deadline = time.monotonic() + seconds
        with self.lock:
            self._deadline = deadline
            self._latest = deadline
            self._deadline_reason = reason
            self._patience = 0.0
            if patient and self.lost is None:
                self._patience = seconds
                self._peer_took_something()  # what it took before this does not count
                self._latest += (self.handed + self._waiting - self._taken) / SLOWEST_PEER
        clock.look_by(self._entry, deadline - (seconds * 3 / 4 if patient else 0))

    def watch(self, on_look: Callable[[float], float]) -> None:
        """Have the clock call this, too, at each look: it says when to look again, and never waits.

        Both are `time.monotonic()`'s seconds.
        """
        self._on_look = on_look

    def look_within(self, seconds: float) -> None:
        """Have the clock look in `seconds` at the latest; cheap where it will look anyway."""
        # `heard_at` is in the past, and saves to ask for the time: at worst the clock is asked in
        # vain.
        if self._entry.when > self.heard_at + seconds:
            clock.look_by(self._entry, time.monotonic() + seconds)

    def look(self, now: float) -> float:
        """Called by the clock; never waits. When to look again, in `time.monotonic()`'s seconds."""
        with self.lock:
            due = self._look_at_waits(now)
        if self._on_look:
            due = min(due, self._on_look(now))
        return due

    def _look_at_waits(self, now: float) -> float:
        """End the stream if a deadline has passed; when the next one may."""
        if self.lost is not None:
            return math.inf
        if (self._draining or self._patience) and self._peer_took_something():
            self._taken_at = now
            if self._patience:
                self._deadline = min(now + self._patience, self._latest)
        if now >= self._deadline:
            self._lose(self._deadline_reason)
            return math.inf
        due = self._deadline
        if self._patience:
            due = min(due, now + self._patience / 4)
        if self._draining:
            patience = self.timeouts.write_timeout
            if now - self._taken_at >= patience:
                self._lose(f"took nothing for {patience:g} s")
                return math.inf
            due = min(due, self._taken_at + patience, now + patience / 8)
        return due

    def _peer_took_something(self) -> bool:
        """Whether the peer has taken more than at the last look.

        The drainer can't tell: its `send` returns only once a third of the kernel's buffer is
        free, and that may hold megabytes.
        """
        taken = self.handed - _not_taken(self._sock)
        if taken <= self._taken:
            return False
        self._taken = taken
        return True

    def _lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
            self.failure = self.failure or reason
        self._give_up_backlog()
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

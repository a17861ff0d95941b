"""The bytes below the frames: TCP or TLS, one reader, many writers, and an end for every wait.

This holds no section of the RFC, but three promises that everything above relies on:

1. `put` never waits. What the kernel does not take at once goes to a backlog of bounded size, and
   a thread that lives only as long as the backlog sends it.
2. The lock is never held while a thread waits for the network.
3. Every wait ends. The clock checks the deadlines, and shuts the socket down where one has
   passed: that wakes whoever reads from it or writes to it.
"""

import collections
import contextlib
import errno
import logging
import math
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Self

from .clock import clock
from .keepalive import SLOWEST_PEER
from .trace import Trace

if sys.platform == "linux":
    import fcntl
    import termios

log = logging.getLogger("rfc6455")

MAX_BACKLOG = 1 << 20  # bytes that may wait for a peer that reads too slowly,
_CONTROL_ROOM = 65536  # and bytes of control frames besides: a Close has to fit behind messages
# Pieces that may wait. Each takes hundreds of bytes besides its own, and a Pong has only two.
_MAX_PIECES = 8192
_PIECE = 65536  # bytes that the drainer hands to the kernel at once
_LONGEST_POLL = 3600.0  # seconds; the system takes no timeout of months, let alone math.inf
# The flag of `send` for "never wait". Windows has none; there everything goes to the backlog.
DONT_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)


class Timeouts(NamedTuple):
    """How long each wait may last, in seconds."""

    # The whole opening handshake, TLS included.
    open_timeout: float = 10.0
    # Silence of the peer, until it is pinged. Common proxies drop a connection that was silent for
    # 60 s, so that this is less.
    ping_interval: float = 20.0
    # From a Ping until anything is heard of the peer.
    ping_timeout: float = 20.0
    # From the first Close to the end of TCP, while the peer takes nothing of what was sent before.
    close_timeout: float = 5.0
    # Until the peer takes anything of what waits for it. nginx holds some megabytes for its client
    # and takes no more until a third of them has gone: with a client of 25 kB/s that took 58 s.
    write_timeout: float = 60.0
    # From the first frame of a message to its last, as far as this side waits for it, and a second
    # more for each 16 KiB of it that have come. Who streams one message for hours sets math.inf.
    message_timeout: float = 60.0

    def checked(self) -> Self:
        """The same. Raises ValueError for a time that is not positive; math.inf is no limit."""
        for name, seconds in self._asdict().items():
            if not seconds > 0:  # written so that NaN is refused, too
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}")
        return self


def describe(error: OSError) -> str:
    """Why a socket or its TLS failed, in the words of the system or of OpenSSL."""
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if reason:  # such as SSLV3_ALERT_CERTIFICATE_UNKNOWN
        return "TLS: " + str(reason).replace("_", " ").lower()
    return error.strerror or str(error)


class TLS:
    """TLS as a codec: the bytes of a socket on one side, those of the WebSocket on the other.

    OpenSSL forbids two threads to use one TLS connection at the same time, and here one reads while
    others write. So it works between two buffers in memory: no call can wait, and a lock around
    each call is enough. Any thread may call, after `handshake`.
    """

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        """A client names the host that the certificate has to be for; a server names none."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._lock = threading.Lock()
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self.ended = False  # nothing more comes: the peer has sent its close_notify, or TLS failed
        self.failure: str | None = None  # why it failed

    def handshake(self, sock: socket.socket) -> None:
        """Do the TLS handshake on this socket, and wait for its end.

        Raises ssl.SSLError (an OSError), ConnectionError.
        """
        while True:
            agreed = False
            try:
                self._object.do_handshake()
                agreed = True
            except ssl.SSLWantReadError:
                pass
            finally:  # after a failure this sends the alert that tells the peer why
                with contextlib.suppress(OSError):
                    sock.sendall(self._outgoing.read())
            if agreed:
                return
            data = sock.recv(_PIECE)
            if not data:
                raise ConnectionError("the TLS handshake was cut off")
            self._incoming.write(data)

    def encrypt(self, data: bytes) -> bytes:
        """What to write to the socket: this data, and what TLS itself has to say."""
        with self._lock:
            if data:
                self._object.write(data)
            return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """The bytes of the records that `data` completes, perhaps none.

        Raises ssl.SSLError for a bad record. What came before it in `data` is returned first, and
        the next call raises.
        """
        with self._lock:
            self._incoming.write(data)
            clear = bytearray()
            while not self.ended:
                piece = self._read_piece()
                if piece is None:
                    break
                self.ended = not piece
                clear += piece
            if self.failure and not clear:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, self.failure)
            return bytes(clear)

    def _read_piece(self) -> bytes | None:
        """Decrypted bytes, None while no further record is complete, or b"" at the end."""
        try:
            return self._object.read(_PIECE)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            self.failure = describe(error)
            return b""

    def say_farewell(self) -> None:
        """Make close_notify the last thing that `encrypt` gives out."""
        with self._lock, contextlib.suppress(ssl.SSLError):
            self._object.unwrap()


class _Piece(NamedTuple):
    """A part of the backlog."""

    data: memoryview | bytes
    awaited: bool  # a thread waits until it is sent


class Stream:
    """A connected socket. One thread at a time may read; any thread may do anything else.

    Whoever calls `put` holds `lock`, and may do under it what has to happen together with the
    `put`: a connection changes its state with the frame that belongs to the change. Nobody waits
    for the network while holding it.
    """

    # Little memory for each, so that a broadcast to a thousand clients finds more in the cache.
    __slots__ = (
        "_acknowledged",
        "_backlog",
        "_deadline",
        "_deadline_reason",
        "_drained",
        "_draining",
        "_early",
        "_ended",
        "_entry",
        "_latest_deadline",
        "_on_check",
        "_patience",
        "_progress_at",
        "_reserved",
        "_sock",
        "_tls",
        "_unawaited",
        "_waiting",
        "direct",
        "failure",
        "handed",
        "heard_at",
        "lock",
        "lost",
        "timeouts",
        "trace",
    )

    def __init__(self, sock: socket.socket, timeouts: Timeouts, tls: TLS | None = None) -> None:
        """Raises OSError where no thread can be started to watch over its deadlines."""
        # The clock ends every wait. A socket's own timeout would hold for both directions at once.
        sock.settimeout(None)
        with contextlib.suppress(OSError):  # it is no TCP socket, or the peer is gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeouts = timeouts
        self.heard_at = time.monotonic()  # when the peer last sent anything
        self.lock = threading.Lock()  # held around every change of what follows
        self.lost: str | None = None  # why nothing can be read or written any more
        self.failure: str | None = None  # why nothing can be written any more
        self._sock = sock
        self._tls = tls
        self._early = b""  # what came with the end of the TLS handshake
        # `broadcast` uses these two in place of `put`, to save a call for each of many clients: the
        # socket, while bytes may go straight to it, and the number of bytes the kernel has taken.
        self.direct: socket.socket | None = None
        self.handed = 0
        self._acknowledged = 0  # bytes of these that the peer had taken at the last check
        self._progress_at = 0.0  # when the peer was last seen to take something
        self._backlog: collections.deque[_Piece] = collections.deque()
        self._waiting = 0  # bytes of the backlog
        self._unawaited = 0  # bytes of these that no thread waits for
        self._draining = False  # while this is set, only the drainer writes to the socket
        self._drained = threading.Condition(self.lock)  # a piece was sent, or none will be
        self._ended = False  # FIN follows behind what was put
        self._reserved = False  # whether `broadcast` has to ask before it writes
        self.trace: Trace | None = None  # what is shown the bytes that come and go
        self._deadline = math.inf
        self._deadline_reason = ""
        # Seconds from the peer's last progress to the deadline, where progress moves it; else 0.
        self._patience = 0.0
        self._latest_deadline = math.inf  # how far progress can move it
        self._on_check: Callable[[float], float] | None = None
        self._set_direct()
        try:
            self._entry = clock.watch(self)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"no thread for its deadlines: {error}") from error

    # Reading

    def read(self, size: int, timeout: float | None = None) -> bytes | None:
        """Wait for bytes: at most `size`, but over TLS as many as a record brings.

        Returns b"" at the end, whether the peer has ended TCP or the stream is lost, and None after
        `timeout` seconds without any. One thread at a time.
        """
        if self._early and self.lost is None:
            data = self._early
            self._early = b""
            if self.trace is not None:
                self.show(self.trace.received, data)
            return data
        give_up = None if timeout is None else time.monotonic() + timeout
        while self.lost is None and not (self._tls and self._tls.ended):
            if give_up is not None and not self._readable_before(give_up):
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
                self.abort(describe(error))
                break
            if self.lost:
                return b""
            if self.trace is not None:
                self.show(self.trace.received, data)
            return data
        if self._tls and self._tls.failure:  # what came before the bad record was returned already
            self.abort(self._tls.failure)
        return b""

    def peek(self) -> bytes:
        """Wait for the peer's first byte, and leave it to be read; b"" if TCP ends before it.

        Only before `shake_hands`, in the thread that reads. Raises OSError.
        """
        return self._sock.recv(1, socket.MSG_PEEK)

    def drop_tls(self) -> None:
        """Read and write in clear, although the stream was made for TLS. As for `peek`."""
        self._tls = None

    def shake_hands(self) -> None:
        """Do the TLS handshake, where there is one. Raises OSError (ssl.SSLError is one)."""
        if self._tls:
            self._tls.handshake(self._sock)
            self._early = self._tls.decrypt(b"")

    def has_unread(self) -> bool:
        """Whether something that the peer has sent waits in the kernel. Never waits."""
        with self.lock:
            return self.lost is None and self._readable(0)

    def _readable_before(self, give_up: float) -> bool:
        left = max(0.0, give_up - time.monotonic())
        while left > _LONGEST_POLL:
            if self._readable(_LONGEST_POLL):
                return True
            left = give_up - time.monotonic()
        return self._readable(left)

    def _readable(self, timeout: float) -> bool:
        if not hasattr(select, "poll"):
            return bool(select.select([self._sock], [], [], timeout)[0])
        poll = select.poll()  # `select` refuses descriptors from 1,024 on
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(math.ceil(timeout * 1000)))

    def _decrypt(self, tls: TLS, data: bytes) -> bytes:
        try:
            return tls.decrypt(data)
        finally:  # TLS itself may have something to answer, such as the alert for a bad record
            with self.lock, contextlib.suppress(ConnectionError):
                self.put(b"", control=True)

    # Writing

    def put(self, data: bytes, *, awaited: bool = False, control: bool = False) -> int:
        """Send `data` behind everything that was put before. Never waits; hold `lock`.

        Returns the position of its end, which `wait_sent` can wait for: bytes since the beginning.
        What the kernel does not take now goes to the backlog. A peer whose backlog would get larger
        than MAX_BACKLOG bytes is dropped; one piece alone may be larger. A thread that will wait
        until the data is sent says so with `awaited`: its waiting bounds what it puts, so that this
        is not counted. With `control` the data are control frames, for which there is some room
        left when messages have filled the backlog.

        Raises ConnectionError where nothing can be written any more.
        """
        if self.failure is not None or self._ended:
            raise ConnectionError(self.failure or "the connection is closing")
        if self.trace is not None and data:  # TLS alone may have something to say
            self.show(self.trace.sent, data)
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
            self._queue(memoryview(data)[sent:] if sent else data, awaited, control)
        return self.handed + self._waiting

    def wait_sent(self, position: int) -> None:
        """Wait until the kernel has taken everything up to this position; do not hold `lock`.

        Raises ConnectionError where that will not happen any more.
        """
        if self.handed >= position:
            return
        with self._drained:
            self._drained.wait_for(lambda: self.handed >= position or self.failure is not None)
            if self.handed < position:
                raise ConnectionError(self.failure)

    def reserve(self, reserved: bool) -> None:
        """Keep `direct` None while this is true, and wake who waits for a change; hold `lock`."""
        self._reserved = reserved
        self._set_direct()
        self._drained.notify_all()

    def wait_for(self, is_over: Callable[[], bool]) -> None:
        """Wait until this is true, or nothing can be written any more.

        Call it with `lock` held; others may take it meanwhile. `reserve` makes it look again.
        """
        self._drained.wait_for(lambda: is_over() or self.failure is not None)

    def send(self, data: bytes) -> None:
        """Put this, and wait until the kernel has taken it. Raises ConnectionError."""
        with self.lock:
            position = self.put(data, awaited=True)
        self.wait_sent(position)

    @property
    def position(self) -> int:
        """How many bytes were ever put, whether or not the kernel has taken them yet."""
        with self.lock:
            return self.handed + self._waiting

    @property
    def is_draining(self) -> bool:
        """Whether there is a backlog."""
        return self._draining

    def wait_drained(self) -> None:
        """Wait until there is no backlog. Set a deadline before: it ends this wait, too."""
        with self._drained:
            self._drained.wait_for(lambda: not self._draining)

    def set_trace(self, trace: Trace | None) -> None:
        """Show a trace what comes and goes from now on, in clear; None ends that."""
        with self.lock:
            self.trace = trace
            self._set_direct()

    def show(self, look: Callable[..., None], *what: object) -> bool:
        """Call one of the trace's methods; whether it went well. The connection goes on anyway."""
        try:
            look(*what)
        except Exception:
            log.exception("the trace of a connection failed and has ended")
            self.trace = None
            return False
        return True

    def _encrypt(self, tls: TLS, data: bytes) -> bytes:
        try:
            return tls.encrypt(data)
        except OSError as error:
            self._fail_writing(error)
            raise ConnectionError(self.failure) from error

    def _queue(self, data: memoryview | bytes, awaited: bool, control: bool) -> None:
        """Add to the backlog what the kernel did not take, and see that a thread sends it."""
        if not awaited:
            limit = MAX_BACKLOG + (_CONTROL_ROOM if control else 0)
            too_much = self._counted() + len(data) > limit
            if self._unawaited and (too_much or len(self._backlog) >= _MAX_PIECES):
                self.lose(f"read too slowly, {self._unawaited} bytes wait for it")
                raise ConnectionError(self.failure)
            self._unawaited += len(data)
        self._backlog.append(_Piece(data, awaited))
        self._waiting += len(data)
        if not self._draining:
            self._start_drainer()

    def _counted(self) -> int:
        """Bytes of the backlog that count towards its limit: a single larger piece counts as that.

        So control frames find room behind it, but no message does.
        """
        first = self._backlog[0] if self._backlog else None
        if first is None or first.awaited or len(first.data) <= MAX_BACKLOG:
            return self._unawaited
        return self._unawaited - len(first.data) + MAX_BACKLOG

    def _set_direct(self) -> None:
        """Note whether bytes may go straight to the socket. Called after each change of that."""
        plain = self._tls is None and DONT_WAIT != 0
        free = not (self._draining or self._ended or self._reserved) and self.failure is None
        free = free and self.trace is None
        self.direct = self._sock if plain and free else None

    def _start_drainer(self) -> None:
        try:
            threading.Thread(target=self._drain, name="rfc6455-drainer", daemon=True).start()
        except RuntimeError as error:  # there are too many threads
            self.lose(str(error))
            raise ConnectionError(self.failure) from error
        self._draining = True
        self._set_direct()
        self._progress_at = time.monotonic()
        self._note_progress()  # what the peer took before this does not count
        self.check_within(self.timeouts.write_timeout / 8)

    def _drain(self) -> None:
        """The thread that lives as long as the backlog."""
        try:
            self._send_backlog()
        except Exception:
            log.exception("a connection is dropped, as what waits for its peer cannot be sent")
            with self.lock:
                self.lose("internal error")
                self._stop_draining()

    def _stop_draining(self) -> None:
        self._draining = False
        self._set_direct()
        self._drained.notify_all()

    def _send_backlog(self) -> None:
        """Send it at the peer's pace."""
        while True:
            with self.lock:
                if not self._backlog:
                    self._stop_draining()
                    if self._ended:
                        self._shut(socket.SHUT_WR)
                    return
                first = self._backlog[0].data[:_PIECE]
            try:
                # This waits, without the lock: while _draining is set nobody else sends.
                sent = self._sock.send(first)
            except OSError as error:
                with self.lock:
                    self._fail_writing(error)
                continue
            with self.lock:
                if self.failure is None:
                    self._note_drained(sent)

    def _note_drained(self, sent: int) -> None:
        """Take out of the backlog what the kernel has taken, which is one piece at most."""
        self.handed += sent
        self._waiting -= sent
        data, awaited = self._backlog[0]
        if not awaited:
            self._unawaited -= sent
        if sent < len(data):
            self._backlog[0] = _Piece(memoryview(data)[sent:], awaited)
        else:
            self._backlog.popleft()
            self._drained.notify_all()

    def _fail_writing(self, error: OSError) -> None:
        """Note that the peer takes nothing any more. What it has sent can still be read."""
        if self.failure is None:
            self.failure = describe(error)
        self._give_up_backlog()

    def _give_up_backlog(self) -> None:
        """Forget what can't be written any more, and wake those who wait for it."""
        self._set_direct()
        self._backlog.clear()
        self._drained.notify_all()

    # The end

    def end(self) -> None:
        """Send FIN behind all that was put: the peer reads everything, then EOF, and no reset."""
        with self.lock:
            if self._ended:
                return
            if self._tls:
                self._tls.say_farewell()
                with contextlib.suppress(ConnectionError):
                    self.put(b"", control=True)
            self._ended = True
            self._set_direct()
            if not self._draining:
                self._shut(socket.SHUT_WR)

    def abort(self, reason: str) -> None:
        """End both directions now, and wake whoever waits for this stream. Never waits."""
        with self.lock:
            self.lose(reason)

    def close(self) -> None:
        """Release the socket. The thread that reads calls this, when it will read no more."""
        with self._drained:
            self._note_lost("the connection is closed")
            if self._draining:
                self._shut(socket.SHUT_RDWR)  # this wakes the drainer, which uses the socket
                self._drained.wait_for(lambda: not self._draining)
            self._sock.close()
            if self.trace is not None:
                self.show(self.trace.end)
        clock.forget(self._entry)
        self._on_check = None  # it refers to the connection, which refers to this stream

    # Deadlines

    def set_deadline(self, seconds: float, reason: str, *, patient: bool = False) -> None:
        """Abort in `seconds` for this reason, unless another deadline takes the place of this one.

        With `patient` the deadline moves on while the peer takes what was put before this call, as
        long as it takes no less than SLOWEST_PEER bytes a second.
        """
        with self.lock:
            self.set_deadline_under_lock(seconds, reason, patient=patient)

    def set_deadline_under_lock(self, seconds: float, reason: str, *, patient: bool) -> None:
        """Do what `set_deadline` does, for a caller that holds `lock`."""
        now = time.monotonic()
        deadline = now + seconds
        self._deadline = deadline
        self._latest_deadline = deadline
        self._deadline_reason = reason
        self._patience = 0.0
        if patient and self.lost is None:
            self._patience = seconds
            self._note_progress()  # what the peer took before this does not count
            unread = self.handed + self._waiting - self._acknowledged
            self._latest_deadline += unread / SLOWEST_PEER
        clock.check_by(self._entry, now + (seconds / 4 if patient else seconds))

    def watch(self, on_check: Callable[[float], float]) -> None:
        """Have the clock call this, too, at each check, with the time; it returns the next check's.

        Both are in `time.monotonic()`'s seconds. It must not wait.
        """
        self._on_check = on_check

    def check_within(self, seconds: float) -> None:
        """Have the clock check within so many seconds; cheap where it is going to anyway."""
        # `heard_at` is in the past. Comparing with it, and not with the time, saves a call for each
        # message, and at worst the clock is asked for a check that it plans already.
        if self._entry.when > self.heard_at + seconds:
            clock.check_by(self._entry, time.monotonic() + seconds)

    def check(self, now: float) -> float:
        """See which deadlines have passed, and return the time of the next check. Never waits.

        Called by the clock, in its thread. Both times are `time.monotonic()`'s seconds.
        """
        with self.lock:
            due = self._check_waits(now)
        on_check = self._on_check  # once: `close` may forget it at any time
        return min(due, on_check(now)) if on_check else due

    def _check_waits(self, now: float) -> float:
        """End the stream if a deadline has passed; otherwise return the next one."""
        if self.lost is not None:
            return math.inf
        if (self._draining or self._patience) and self._note_progress():
            self._progress_at = now
            if self._patience:
                self._deadline = min(now + self._patience, self._latest_deadline)
        if now >= self._deadline:
            self.lose(self._deadline_reason)
            return math.inf
        due = self._deadline
        if self._patience:
            due = min(due, now + self._patience / 4)
        if self._draining:
            write_timeout = self.timeouts.write_timeout
            if now - self._progress_at >= write_timeout:
                self.lose(f"took nothing for {write_timeout:g} s")
                return math.inf
            due = min(due, self._progress_at + write_timeout, now + write_timeout / 8)
        return due

    def _note_progress(self) -> bool:
        """Note what the peer has taken; whether it is more than at the last check.

        The drainer can't tell: its `send` returns only when a third of the kernel's buffer is free,
        and that buffer may hold megabytes.
        """
        taken = self.handed - _not_taken(self._sock)
        if taken <= self._acknowledged:
            return False
        self._acknowledged = taken
        return True

    def lose(self, reason: str) -> None:
        """Do what `abort` does, for a caller that holds `lock`."""
        if self.lost is None:
            self._note_lost(reason)
            self._shut(socket.SHUT_RDWR)

    def _note_lost(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
            self.failure = self.failure or reason
            self._give_up_backlog()

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # the peer may have ended it first
            self._sock.shutdown(how)


def _not_taken(sock: socket.socket) -> int:
    """How many bytes in the kernel the peer has not acknowledged; 0 where it can't be known.

    Only Linux is asked. Other kernels wake a writer as soon as a little of their buffer is free, so
    that what they take shows the progress.
    """
    if sys.platform != "linux":
        return 0
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0  # it is no TCP socket
    return int(count)

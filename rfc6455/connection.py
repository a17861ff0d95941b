"""`WebSocket`: a protocol, a stream, and the lock that joins them (RFC 6455, 4-8).

It is the same object on both sides, as in Go. It has no thread of its own: the thread that calls
`receive` reads, and answers Pings and a Close on the way. While a handler is busy with something
else, the clock reads ahead for it, so that its peer need not wait for a Pong. How far is bounded.

`protocol.py` decides what may be sent and received. Here is the I/O: to read when bytes are wanted,
to write what is to be sent, and to end TCP so that the peer reads our Close and then EOF, not a
reset (7.1.1).
"""

import contextlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from typing import NamedTuple, Self, TypeGuard, cast

from .deflate import Deflate
from .errors import ConnectionClosed
from .frames import CloseCode
from .keepalive import SLOWEST_PEER, ControlPace, Keepalive, MessageTime, Verdict
from .protocol import MAX_MESSAGE, Part, Protocol, Reading, State
from .stream import DONT_WAIT, MAX_BACKLOG, Stream, Timeouts
from .trace import Frame, Trace

log = logging.getLogger("rfc6455")

# What one read asks for, in bytes. An idle connection holds so much memory while it waits, so that
# a read asks for more only where more is known to be on its way.
_READ_AT_LEAST = 1024
_READ_MORE = 65536  # after a read that was filled
_READ_AT_MOST = 131072  # in a frame that is known to be so long
# Bytes that the clock reads ahead for a handler that is busy, to find the Pings among them. When
# they are reached the peer has to wait, and its Pings with it: bounded memory comes first.
READ_AHEAD = 256 * 1024
_CLOCKS_TURN = 1.0  # seconds; the clock reads for far less than that before it lets others
_READS_IN_A_ROW = 4  # the clock reads so often from one connection before it looks after others
# After the Close of a failed connection, FIN follows when the peer has sent nothing for so many
# seconds. A proxy that is told of the end while its client still sends throws the Close away.
_QUIET = 0.3
_DISCARD_TIME = 20.0  # seconds for which the peer of a failed connection may go on to send
_MAX_DISCARDED = 64 << 20  # bytes that it may send meanwhile
_TOO_LONG = "the closing handshake took too long"
_OPEN = State.OPEN  # looked at for every message, for which a name of its own is faster


class Handshake(NamedTuple):
    """What the two sides have told each other, and agreed on, in the opening handshake (4)."""

    path: str  # as it was sent, percent-encoded
    query: str  # what followed the "?", percent-encoded
    headers: Message  # of the request for a server, of the response for a client
    peer: str  # "host:port"; behind a trusted proxy "client's address via host:port"
    subprotocol: str | None = None
    deflate: Deflate | None = None


class WebSocket:
    """An open WebSocket. One thread at a time receives; any thread may call everything else."""

    # As in `Stream`, for the sake of a broadcast.
    __slots__ = (
        "__weakref__",
        "_busy_interval",
        "_control_pace",
        "_fragmented",
        "_has_received",
        "_keepalive",
        "_lock",
        "_message_time",
        "_protocol",
        "_read_size",
        "_reading",
        "_stream",
        "_tcp_end",
        "deflate",
        "headers",
        "path",
        "peer",
        "query",
        "subprotocol",
    )

    def __init__(
        self,
        stream: Stream,
        handshake: Handshake,
        *,
        is_client: bool,
        max_message: int = MAX_MESSAGE,
        received: bytes = b"",
    ) -> None:
        """`received` are bytes that have arrived together with the opening handshake."""
        self.path = handshake.path
        self.query = handshake.query
        self.headers = handshake.headers
        self.peer = handshake.peer
        self.subprotocol = handshake.subprotocol
        self.deflate = handshake.deflate
        self._stream = stream
        # Held from a change of the protocol's state until the bytes that belong to it are put.
        self._lock = stream.lock
        self._protocol = Protocol(
            is_client=is_client,
            max_message=max_message,
            deflate=handshake.deflate,
            lock=stream.lock,
        )
        self._protocol.receive_data(received)
        # Our message of which some fragments were sent and others are not yet; set under the lock.
        self._fragmented: _FragmentedMessage | None = None
        self._reading = threading.Lock()  # held by the thread that reads; these four are its own
        self._read_size = _READ_AT_LEAST
        self._control_pace = ControlPace()
        self._has_received = False  # whether `receive` was called since the clock's last check
        self._tcp_end: _TcpEnd | None = None  # set when there is nothing more to receive
        self._keepalive = Keepalive(
            self.timeouts.ping_interval, self.timeouts.ping_timeout, time.monotonic()
        )
        self._message_time = MessageTime(self.timeouts.message_timeout)
        # Seconds that a Ping of the peer waits at most while the handler is busy.
        self._busy_interval = min(1.0, self.timeouts.ping_timeout / 20)
        self._begin()

    def _begin(self) -> None:
        """Have the clock check this connection from now on, and the trace, if any, show frames."""
        if self._stream.trace:
            self._begin_frames(self._stream.trace)
        self._stream.set_deadline(math.inf, "")  # that of the opening handshake was kept
        self._stream.watch(self._check)
        self._stream.check_within(self._busy_interval)

    @property
    def timeouts(self) -> Timeouts:
        """How long each wait may last, in seconds."""
        return self._stream.timeouts

    @property
    def state(self) -> State:
        """Where the connection stands; also CLOSED as soon as nothing can be sent any more."""
        return State.CLOSED if self._stream.failure is not None else self._protocol.state

    @property
    def close_code(self) -> int:
        """The code of the peer's Close; 1005 if it had none, 1006 if there is none (7.1.5)."""
        return self._protocol.close_code

    @property
    def close_reason(self) -> str:
        """The text of the peer's Close; after 1006, why the connection has ended (7.1.6)."""
        return self._protocol.close_reason

    @property
    def sent_reason(self) -> str:
        """The text of our own Close, if this side has closed first."""
        return self._protocol.sent_reason

    @property
    def clean(self) -> bool:
        """Whether both sides have sent a Close (7.1.4)."""
        return self._protocol.close_code != CloseCode.ABNORMAL

    # Receiving (6.2)

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Wait for the next message: str for text, bytes for binary data.

        None after `timeout` seconds without one. Raises ConnectionClosed when there will be no more
        messages. One thread at a time.
        """
        try:
            with self._reading:
                self._has_received = True
                message = self._parse()
                return self._wait_for_message(timeout) if message is None else message
        finally:
            self._stream.check_within(self._busy_interval)  # the caller may be busy from now on

    def _wait_for_message(self, timeout: float | None) -> str | bytes | None:
        """Read until there is a message. None after the timeout; raises ConnectionClosed."""
        give_up = None if timeout is None else time.monotonic() + timeout
        left = timeout
        message = None
        while message is None:
            if not self._protocol.is_receiving:
                raise ConnectionClosed(self.close_code, self.close_reason)
            if not self._read_on(left):
                return None
            message = self._parse()
            # A peer that sends bytes without end, but no message, must not keep the caller here.
            if left == 0:
                return message
            left = None if give_up is None else max(0.0, give_up - time.monotonic())
        return message

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages until the connection ends; `close_code` tells how it has ended."""
        try:
            while (message := self.receive()) is not None:
                yield message
        except ConnectionClosed:
            return

    def _parse(self) -> str | bytes | None:
        """The next message among the bytes that were read, or None.

        Control frames before it are handled.
        """
        message = self._protocol.next_message()
        if message is not None:
            self._message_time.begin_message()
        if self._protocol.has_data_to_send or self._protocol.state is not _OPEN:
            self._act_on_protocol()
        return message

    def _read_on(self, timeout: float | None) -> bool:
        """Do what `_read` does, and have the clock end a message that takes too long meanwhile."""
        message_time = self._message_time
        if not self._protocol.is_within_message:
            message_time.begin_message()
            return self._read(timeout)
        now = time.monotonic()
        message_time.begin_wait(now, self._protocol.message_size)
        self._stream.check_within(message_time.due - now)
        try:
            return self._read(timeout)
        finally:
            message_time.end_wait(time.monotonic())

    def _read(self, timeout: float | None, at_most: int = _READ_AT_MOST) -> bool:
        """Wait for bytes, and give them to the protocol; False if none have come in time."""
        pace = self._control_pace
        if pace.is_behind or pace.counted != self._protocol.controls:
            if not self._slow_down(timeout):
                return False
        expected = min(self._protocol.missing, _READ_AT_MOST)
        size = min(max(self._read_size, expected), at_most)
        data = self._stream.read(size, timeout)
        if data is None:
            return False
        if data:
            self._read_size = _READ_MORE if len(data) >= size else _READ_AT_LEAST
            self._protocol.receive_data(data)
        else:
            reason = self._stream.lost or "the peer ended TCP without a Close"
            self._protocol.receive_eof(reason)
            with self._lock:
                self._set_closing_deadline()
        return True

    def _slow_down(self, timeout: float | None) -> bool:
        """Wait where the peer has sent too many control frames; False where the time is over."""
        delay = self._control_pace.count(time.monotonic(), self._protocol.controls)
        if not delay:
            return True
        self._read_size = _READ_AT_LEAST  # many control frames fit in a large read
        is_in_time = timeout is None or delay < timeout
        time.sleep(delay if timeout is None else min(delay, timeout))
        return is_in_time

    # Sending (6.1)

    def send(self, message: Part | Iterable[Part]) -> None:
        """Send a message, a str as text and bytes, bytearray or memoryview as binary data (6.1).

        It is one frame; or if it comes as an iterable of parts, all text or all binary data, each
        part is sent as a fragment as soon as the iterable yields it (5.4). Until its last fragment
        messages of other threads wait behind it. An iterable without parts sends nothing. If it
        raises in the middle, that is raised here, and the connection closes with 1011, as the
        message could not be ended in any other way.

        Waits until the kernel has taken it. Raises ConnectionClosed; UnicodeEncodeError for a lone
        surrogate; TypeError for what is no message, and for parts of both kinds. Any thread.
        """
        if isinstance(message, (str, bytes)) or _is_binary(message):
            self._send_frames(self._protocol.build_message(message), wait=True)
        else:
            self._send_fragments(cast(Iterable[Part], message))

    def post(self, message: Part) -> None:
        """Send a message as one frame, as `send` does, but never wait.

        What the kernel does not take at once waits in a backlog, and a peer for which more than a
        MiB waits is dropped. Raises ConnectionClosed; UnicodeEncodeError for a lone surrogate. Any
        thread.
        """
        self._send_frames(self._protocol.build_message(message), wait=False)

    def ping(self, payload: bytes = b"") -> None:
        """Send a Ping with at most 125 bytes (5.5.2); never waits. Any thread.

        Raises ValueError for more bytes, ConnectionClosed.
        """
        # 5.4: a control frame may be sent between the fragments of a message.
        self._send_frames(self._protocol.build_ping(payload), wait=False, in_turn=False)

    def set_pong_handler(self, handler: Callable[[bytes], None] | None) -> None:
        """Have `handler` called with the payload of each Pong that comes (5.5.3); None ends that.

        The thread that reads calls it, one call at a time: the one that receives, or the clock's
        while nobody does. So it must not wait; it may `post`. If it raises, that is logged, and the
        connection closes with 1011. The payload is empty where the Pong answers a Ping of the
        keepalive, or one that was sent without a payload. Any thread may set the handler.
        """
        if handler is None:
            self._protocol.pong_handler = None
        else:
            self._protocol.pong_handler = lambda payload: self._call_pong_handler(handler, payload)

    def _call_pong_handler(self, handler: Callable[[bytes], None], payload: bytes) -> None:
        try:
            handler(payload)
        except ConnectionClosed:
            pass  # the thread that receives learns of it
        except Exception:
            log.exception("%s: the pong handler failed", self.peer)
            self.close(CloseCode.INTERNAL_ERROR, "internal error", wait=False)

    def set_frame_handler(self, handler: Callable[[Frame], None] | None) -> None:
        """Have `handler` called with each frame that comes or goes from now on; None ends that.

        It is called with a frame that comes by the thread that reads, when all of it has come; and
        with one that goes by the thread that sends it, before that, with a lock held. So it must
        neither wait nor call anything of this WebSocket. If it raises, that is logged, and the
        handler is called no more. At once it is called with the frames that have come and were not
        received yet. One that was received in part may be passed over.

        To be called by the thread that receives. Raises RuntimeError while another one does.
        """
        if not self._reading.acquire(timeout=_CLOCKS_TURN):
            raise RuntimeError("frames can be watched only by the thread that receives")
        try:
            new = Trace(self.peer)
            new.frame_handler = handler
            if handler and not self._stream.show(self._show_unread, new):
                return
            trace = self._stream.trace or new
            trace.frame_handler = handler
            self._stream.set_trace(trace if trace.has_handlers else None)
        finally:
            self._reading.release()

    def _show_unread(self, trace: Trace) -> None:
        """Begin with the frames that have come and were not received; by the thread that reads."""
        self._begin_frames(trace, self._protocol.copy_reading())

    def _begin_frames(self, trace: Trace, reading: Reading | None = None) -> None:
        """Tell the trace how the frames of this connection look."""
        trace.begin_frames(
            is_client=self._protocol.is_client,
            max_message=self._protocol.max_message,
            deflate=self.deflate,
            reading=reading,
        )

    def _send_frames(self, frames: bytes, *, wait: bool, in_turn: bool = True) -> None:
        """Send frames; with `in_turn` not between the fragments of a message."""
        try:
            with self._lock:
                if self._fragmented is not None and in_turn and not self._has_turn(frames, wait):
                    return
                data = self._protocol.send_frames(frames)
                position = self._stream.put(data, awaited=wait)
            if wait and self._stream.handed < position:
                self._stream.wait_sent(position)
        except ConnectionError as error:
            raise self._closed(error) from None

    def _closed(self, error: ConnectionError) -> ConnectionClosed:
        """What to raise where the stream can't send."""
        with self._lock:  # the code and the reason of one Close
            code = self.close_code
            reason = self.close_reason
        return ConnectionClosed(code, reason or str(error))

    # Sending in fragments (5.4)

    def _send_fragments(self, parts: Iterable[Part]) -> None:
        """Send each part as it comes. What other threads send meanwhile follows the last one."""
        fragments = self._protocol.build_fragments(parts)
        first = next(fragments, None)
        if first is None:
            return
        message = _FragmentedMessage()
        try:
            self._begin_fragments(message)
            for fragment in itertools.chain([first], fragments):
                self._send_frames(fragment, wait=True, in_turn=False)
        except BaseException:  # after ConnectionClosed there is nothing to close any more
            if self._fragmented is message:
                reason = "a message was not sent to its end"
                self.close(CloseCode.INTERNAL_ERROR, reason, wait=False)
            raise
        finally:
            self._end_fragments(message)

    def _begin_fragments(self, message: "_FragmentedMessage") -> None:
        """Wait for the turn of this message; where none comes any more, its first fragment fails.

        Raises RuntimeError in the middle of another message of this thread.
        """
        with self._lock:
            if self._fragmented is not None:
                self._has_turn(b"", wait=True)
            if self._fragmented is None:
                self._fragmented = message
                self._stream.reserve(True)

    def _end_fragments(self, message: "_FragmentedMessage") -> None:
        """Send what was posted meanwhile, unless the turn of this message never came."""
        with self._lock:
            if self._fragmented is not message:
                return
            self._fragmented = None
            self._stream.reserve(False)
            if message.followers:
                # The thread that receives learns of it if the connection is closed.
                with contextlib.suppress(ConnectionClosed, ConnectionError):
                    frames = bytes(message.followers)
                    self._stream.put(self._protocol.send_frames(frames))

    def _has_turn(self, frames: bytes, wait: bool) -> bool:
        """Whether these frames may be sent now, while a message is being sent in fragments.

        With `wait` that is so after this has waited for the end of that message. Otherwise it is
        not, and the frames follow that message on their own. Hold the lock. Raises ConnectionError.
        """
        message = self._fragmented
        assert message
        if self.state is not _OPEN:
            return True  # nobody's turn comes any more: the caller finds that out
        if wait:
            if message.thread == threading.get_ident():
                raise RuntimeError("a message cannot be sent between the parts of another")
            self._stream.wait_for(lambda: self._fragmented is None)
            return True
        waiting = len(message.followers)
        if waiting and waiting + len(frames) > MAX_BACKLOG:
            reason = f"{waiting} bytes wait behind a message that is sent in fragments"
            self._stream.lose(reason)
            raise ConnectionError(reason)
        message.followers += frames
        return False

    def _put_in_turn(self, frames: bytes) -> None:
        """Put a broadcast's frames, or leave them to follow a message that is sent in fragments."""
        if self._fragmented is None or self._has_turn(frames, wait=False):
            self._stream.put(frames)

    # Closing (7)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", *, wait: bool = True) -> None:
        """Start the closing handshake (7.1.2), and wait until it and TCP have ended.

        The peer has `timeouts.close_timeout` for its Close, and as long again for the end of TCP;
        it has longer while it still reads what was sent before. Messages that still come are thrown
        away. With `wait=False` this returns at once, and the thread that receives, or closes again,
        does the rest. To close twice is no error.

        Raises ValueError for a code that may not be sent (7.4), and for a reason of more than 123
        bytes. Any thread.
        """
        with self._lock:
            starts = self._protocol.state is State.OPEN
            self._protocol.close(code, reason)
            if starts:
                self._set_closing_deadline()
            self._put_control_frames()
        if wait:
            with self._reading:
                self._finish()

    def drop(self, reason: str) -> None:
        """End TCP now, without a closing handshake; `receive` raises with this reason.

        Any thread.
        """
        self._stream.abort(reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _finish(self) -> None:
        """Read up to the peer's Close, and from there to the end of TCP."""
        while self._protocol.is_receiving:
            if self._parse() is None and self._protocol.is_receiving:
                self._read(None)
        if self._tcp_end:
            while not self._tcp_end.step(wait=True):
                pass
            self._release()

    def _release(self) -> None:
        self._stream.end()
        self._stream.close()
        self._tcp_end = None
        self._protocol.tcp_ended()

    # What the protocol asks for

    def _put_control_frames(self) -> None:
        """Send the Pongs and the Close that the protocol has made. Never waits; hold the lock."""
        if self._protocol.has_data_to_send:
            with contextlib.suppress(ConnectionError):  # the thread that reads learns of it
                self._stream.put(self._protocol.data_to_send(), control=True)

    def _act_on_protocol(self) -> None:
        """Send what the protocol has to send, and begin to end TCP where there is nothing to come.

        Only the reader calls this, after bytes were parsed.
        """
        with self._lock:
            self._put_control_frames()
        state = self._protocol.state
        if state in (State.CLOSE_EXCHANGED, State.FAILED) and self._tcp_end is None:
            self._begin_tcp_end(state)

    def _begin_tcp_end(self, state: State) -> None:
        error = self._protocol.error
        if error:
            log.info("%s: failed with %d %s", self.peer, error.code, ascii(error.reason))
        discards = error is not None and self._peer_still_sends()
        with self._lock:
            self._set_closing_deadline(_DISCARD_TIME if discards else 0.0)
        # 7.1.1: the server ends TCP first, and at once; a client waits for that.
        waits_for_peer = self._protocol.is_client and state is State.CLOSE_EXCHANGED
        self._tcp_end = _TcpEnd(self._stream, discards=discards, waits_for_peer=waits_for_peer)

    def _peer_still_sends(self) -> bool:
        """Whether the peer is in the middle of a frame, or has sent more than was read."""
        return self._protocol.is_within_frame or self._stream.has_unread()

    def _set_closing_deadline(self, more: float = 0.0) -> None:
        """Give the closing handshake its time, and some more. Call it with the lock held.

        So the deadline is always that of the last change of the state. It is patient, because a
        slow peer first has to read what was sent before the Close.
        """
        seconds = self.timeouts.close_timeout + more
        self._stream.set_deadline_under_lock(seconds, _TOO_LONG, patient=True)

    # What the clock does

    def _check(self, now: float) -> float:
        """Read for a handler that is busy, and find out whether the peer is still there.

        The clock calls this, in its thread. It returns when to check again, and never waits.
        """
        due = math.inf
        if self._reading.acquire(blocking=False):
            try:
                due = self._read_ahead(now)
            finally:
                self._reading.release()
        if self._protocol.state is State.OPEN:
            due = min(due, self._keep_alive(now), self._check_message_time(now))
        return due

    def _read_ahead(self, now: float) -> float:
        """Answer Pings and a Close for a handler that is busy; returns when to check again."""
        protocol = self._protocol
        if protocol.state is State.CLOSED:
            return math.inf
        # A handler that has received a message since the last check may be about to answer it,
        # which it can't once a Close was answered: it has until the next check.
        is_busy = not self._has_received
        self._has_received = False
        for _ in range(_READS_IN_A_ROW):
            protocol.handle_control_frames(close=is_busy)
            self._act_on_protocol()
            if self._tcp_end:
                return self._read_to_the_end(self._tcp_end, now)
            room = READ_AHEAD - protocol.unread
            if protocol.has_eof or room <= 0 or not self._read(0, room):
                break
        if self._stream.lost is not None:
            self._stream.close()  # the handler may still have messages to receive
            return math.inf
        return now + self._busy_interval

    def _read_to_the_end(self, tcp_end: "_TcpEnd", now: float) -> float:
        """Release TCP when it has ended: nobody has called `close`, and perhaps nobody will."""
        if tcp_end.step(wait=False):
            self._release()
            return math.inf
        return now + (_QUIET / 2 if tcp_end.discards else self._busy_interval)

    def _keep_alive(self, now: float) -> float:
        """Ping a silent peer, and drop one that stays silent; returns when to check again."""
        heard_at = self._stream.heard_at
        verdict, again = self._keepalive.check(
            now,
            heard_at=heard_at,
            pongs=self._protocol.pongs,
            written=self._stream.position,
            unread=self._stream.has_unread(),
        )
        if verdict is Verdict.PING:
            with contextlib.suppress(ConnectionClosed):  # the thread that reads learns of it
                self.ping()
        elif verdict is Verdict.GIVE_UP:
            self._stream.abort(f"silent for {now - heard_at:.0f} s")
        return again

    def _check_message_time(self, now: float) -> float:
        """Close where the peer does not get done with a message; returns when to check again."""
        due = self._message_time.due
        if now < due:
            return due
        if self._stream.has_unread():  # the machine is busy, and this may be the rest of it
            return now + self._busy_interval
        code = CloseCode.POLICY_VIOLATION
        seconds = self.timeouts.message_timeout
        reason = f"the message took over {seconds:g} s and a second for each {SLOWEST_PEER} bytes"
        log.info("%s: failed with %d %s", self.peer, code, ascii(reason))
        self.close(code, reason, wait=False)
        return math.inf


class _FragmentedMessage:
    """A message that a thread is sending in fragments, and what others have posted meanwhile."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.followers = bytearray()  # whole messages as frames; they follow the last fragment


class _TcpEnd:
    """Brings TCP to its end, when there is nothing more to receive (7.1.1).

    What the peer still sends is read and thrown away. If it was left unread the kernel would send a
    reset, which can destroy our Close on its way. The reader calls `step` until it returns True.
    """

    def __init__(self, stream: Stream, *, discards: bool, waits_for_peer: bool) -> None:
        """With `discards` FIN is held back until the peer has stopped sending."""
        self.discards = discards
        self._stream = stream
        self._give_up = time.monotonic() + _DISCARD_TIME
        self._discarded = 0  # bytes
        if not (discards or waits_for_peer):
            stream.end()

    def step(self, *, wait: bool) -> bool:
        """Do what can be done now, or with `wait` wait for more; returns whether TCP has ended."""
        if self.discards and not self._discard(_QUIET if wait else 0.0):
            return False
        data = self._stream.read(65536, None if wait else 0.0)
        if data is None or data:
            return False
        if wait:
            self._stream.wait_drained()  # the peer has ended its direction, and may still read
        return not self._stream.is_draining

    def _discard(self, timeout: float) -> bool:
        """Read what the peer of a failed connection still sends; returns whether it has stopped.

        Each read waits `timeout` seconds at most. Nothing of what comes is looked at (7.1.7), not
        even a Close. It is read because a peer, or a proxy, that is told of the end of TCP while it
        sends may never read why (1.4 speaks of such resets).
        """
        for _ in range(_READS_IN_A_ROW):
            data = self._stream.read(65536, timeout)
            now = time.monotonic()
            if data is None and now - self._stream.heard_at < _QUIET:
                return False  # this may be a pause
            self._discarded += len(data or b"")
            enough = self._discarded >= _MAX_DISCARDED or now >= self._give_up
            if not data or enough:
                self.discards = False
                self._stream.end()
                close_timeout = self._stream.timeouts.close_timeout
                self._stream.set_deadline(close_timeout, _TOO_LONG, patient=True)
                return True
        return False


def _is_binary(message: Part | Iterable[Part]) -> TypeGuard[Part]:
    """Whether this is binary data, such as a bytearray, and not an iterable of parts."""
    try:
        memoryview(message)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def broadcast(websockets: Iterable[WebSocket], *messages: str | bytes) -> None:
    """Post the same messages, in this order, to many clients of a server. Never waits.

    Each message is made into a frame once, and once more for those that agreed on compression. A
    client whose connection is closed is passed over, and one that reads too slowly is dropped, as
    `post` does; the others get theirs. Any thread.

    Raises UnicodeEncodeError for a lone surrogate, and ValueError for a client's own side of a
    connection, which has to mask each frame anew (5.3). Then nothing was sent.
    """
    receivers = list(websockets)
    framed = _frame_for_all(receivers, messages)
    for websocket in receivers:
        protocol = websocket._protocol
        frames = framed[websocket.deflate]
        stream = websocket._stream
        try:
            with stream.lock:
                # This is `_send_frames` without the calls, because a chat spends its time here:
                # with 300 clients, to call `put` alone took a twelfth more for each.
                if protocol.state is not _OPEN:
                    continue
                sent = 0
                if stream.direct is not None:
                    try:
                        sent = stream.direct.send(frames, DONT_WAIT)
                    except OSError:
                        pass  # `put` finds out what is wrong
                    stream.handed += sent
                if sent < len(frames):
                    websocket._put_in_turn(frames[sent:])
        except ConnectionError:
            pass  # the thread that receives from it learns of it
        except Exception:
            log.exception("%s: dropped, as nothing could be sent to it", websocket.peer)
            websocket.drop("internal error")


def _frame_for_all(
    receivers: list[WebSocket], messages: tuple[str | bytes, ...]
) -> dict[Deflate | None, bytes]:
    """The frames of all messages, joined, for each compression that the receivers agreed on.

    All are made before the first is sent, so that a broadcast fails for all receivers or for none.
    """
    framed: dict[Deflate | None, bytes] = {}
    for websocket in receivers:
        protocol = websocket._protocol
        if protocol.is_client:
            raise ValueError("a client can't broadcast: it masks each frame anew (5.3)")
        if websocket.deflate not in framed:
            framed[websocket.deflate] = b"".join(map(protocol.build_message, messages))
    return framed

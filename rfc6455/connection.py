"""`WebSocket`: a protocol, a stream, and the lock that joins them (RFC 6455, 4-8).

It is the same object on both sides. It has no thread of its own: whoever calls `receive` reads,
and answers Pings and a Close on the way. While a handler is busy with other things the clock reads
ahead for it, within a bound, so that a slow handler does not make its peer wait for a Pong.

What may be sent when is the protocol's to say (`protocol.py`). What is done here is I/O: reading
when bytes are wanted, writing what is to be sent, and ending TCP in such a way that the peer reads
our Close and then EOF, and no reset (7.1.1).
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from email.message import Message
from typing import NamedTuple, Self

from .deflate import Deflate
from .errors import ConnectionClosed
from .frames import CloseCode
from .keepalive import Keepalive, Verdict
from .protocol import MAX_MESSAGE, Protocol, State
from .stream import DONT_WAIT, Stream, Timeouts

log = logging.getLogger("rfc6455")

# A read asks for little, and for more only where more is known to be under way: an idle connection
# holds that much memory while it waits.
_READ_AT_LEAST = 1024  # bytes
_READ_MORE = 65536  # bytes, after a read that was filled
_READ_AT_MOST = 131072  # bytes, where a frame is known to be so long
# Bytes that are read for a handler that is busy, to find the Pings behind them. Beyond that the
# peer has to wait, and its Pings with it: memory is bounded first.
READ_AHEAD = 256 * 1024
_READS_IN_A_ROW = 4  # by the clock, for one connection: it has others to look after
# A failed connection's Close is followed by FIN once the peer has sent nothing for so long: a
# proxy that is told of the end while its client still sends throws the Close away.
_QUIET = 0.3  # seconds
_DISCARD_TIME = 20.0  # seconds that a peer may take to stop sending,
_MAX_DISCARDED = 64 << 20  # and bytes that it may send meanwhile
_TOO_LONG = "the closing handshake took too long"
_OPEN = State.OPEN  # looked at for every message, for which a name of its own is faster


class Handshake(NamedTuple):
    """What the opening handshake agreed on and told."""

    path: str  # percent-encoded, as it was sent
    query: str  # what followed "?", percent-encoded
    headers: Message  # a server sees the request's, a client the response's; any case will do
    peer: str  # "host:port"
    subprotocol: str | None = None
    deflate: Deflate | None = None


class WebSocket:
    """An open WebSocket. One thread at a time receives; any thread may call everything else."""

    def __init__(
        self,
        stream: Stream,
        handshake: Handshake,
        *,
        is_client: bool,
        max_message: int = MAX_MESSAGE,
        received: bytes = b"",
    ) -> None:
        """`received` is what came with the handshake in one piece."""
        self.path = handshake.path
        self.query = handshake.query
        self.headers = handshake.headers
        self.peer = handshake.peer
        self.subprotocol = handshake.subprotocol
        self.deflate = handshake.deflate
        self._stream = stream
        # Around each change of the protocol's state, and until the bytes that belong to it are put.
        self._lock = stream.lock
        self._protocol = Protocol(
            is_client=is_client,
            max_message=max_message,
            deflate=handshake.deflate,
            lock=stream.lock,
        )
        self._protocol.receive_data(received)
        self._reading = threading.Lock()  # held by whoever reads; these two are the reader's:
        self._read_size = _READ_AT_LEAST
        self._tcp_end: _TcpEnd | None = None  # once there is nothing more to receive
        self._keepalive = Keepalive(
            self.timeouts.ping_interval, self.timeouts.ping_timeout, time.monotonic()
        )
        # Seconds that a Ping may have to wait while the handler is busy.
        self._busy_look = min(1.0, self.timeouts.ping_timeout / 20)
        stream.set_deadline(math.inf, "")  # the opening handshake has kept its own
        stream.watch(self._look)
        stream.look_within(self._busy_look)

    @property
    def timeouts(self) -> Timeouts:
        """How long each wait may last."""
        return self._stream.timeouts

    @property
    def state(self) -> State:
        """Where the connection stands. It is CLOSED, too, once the peer can't be written to."""
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
        """The text of our own Close, where this side has closed first."""
        return self._protocol.sent_reason

    @property
    def clean(self) -> bool:
        """Whether both sides have sent a Close (7.1.4)."""
        return self._protocol.close_code != CloseCode.ABNORMAL

    # Receiving (6.2)

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """The next message: str for text, bytes for binary. None after `timeout` seconds without.

        Raises ConnectionClosed when there will be none any more. One thread at a time.
        """
        try:
            with self._reading:
                return self._next(timeout)
        finally:
            self._stream.look_within(self._busy_look)  # the caller may be busy from here on

    def _next(self, timeout: float | None) -> str | bytes | None:
        give_up = None if timeout is None else time.monotonic() + timeout
        left = timeout
        late = False
        while (message := self._parse()) is None:
            if not self._protocol.is_receiving:
                raise ConnectionClosed(self.close_code, self.close_reason)
            if late or not self._read(left):  # late also where bytes come without an end
                return None
            late = left == 0
            left = None if give_up is None else max(0.0, give_up - time.monotonic())
        return message

    def __iter__(self) -> Iterator[str | bytes]:
        """Messages until the connection ends, however it ends: `close_code` tells."""
        try:
            while (message := self.receive()) is not None:
                yield message
        except ConnectionClosed:
            return

    def _parse(self) -> str | bytes | None:
        """The next message of the bytes at hand, or None; control frames before it are handled."""
        message = self._protocol.next_message()
        if self._protocol.has_data_to_send or self._protocol.state is not _OPEN:
            self._follow()
        return message

    def _read(self, timeout: float | None, at_most: int = _READ_AT_MOST) -> bool:
        """Feed the protocol with what arrives; False if nothing did in time."""
        size = min(max(self._read_size, min(self._protocol.missing, _READ_AT_MOST)), at_most)
        data = self._stream.read(size, timeout)
        if data is None:
            return False
        if data:
            self._read_size = _READ_MORE if len(data) >= size else _READ_AT_LEAST
            self._protocol.receive_data(data)
        else:
            reason = self._stream.lost or "the peer ended TCP without a Close"
            self._protocol.receive_eof(reason)
            self._set_closing_deadline()
        return True

    # Sending (6.1)

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send text (str) or binary data (the others), and wait until the kernel has taken it.

        Raises ConnectionClosed, and UnicodeEncodeError for a lone surrogate.
        """
        self._send_frames(self._protocol.build_message(message), wait=True)

    def post(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send as `send` does, but never wait: a peer for whom more than a MiB waits is dropped.

        Raises ConnectionClosed, and UnicodeEncodeError for a lone surrogate.
        """
        self._send_frames(self._protocol.build_message(message), wait=False)

    def ping(self, payload: bytes = b"") -> None:
        """Send a Ping of at most 125 bytes; never waits. Raises ValueError, ConnectionClosed."""
        self._send_frames(self._protocol.build_ping(payload), wait=False)

    def _send_frames(self, frames: bytes, *, wait: bool) -> None:
        try:
            with self._lock:
                data = self._protocol.send_frames(frames)
                position = self._stream.put(data, awaited=wait)
            if wait:
                self._stream.wait_sent(position)
        except ConnectionError as error:
            raise ConnectionClosed(self.close_code, self.close_reason or str(error)) from None

    # Closing (7)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", *, wait: bool = True) -> None:
        """Start the closing handshake, and wait until it and TCP have ended, with a time limit.

        With `wait=False` return at once; whoever receives, or closes again, does the rest. Closing
        twice is no error. Raises ValueError for a code that may not be sent (7.4), or a reason of
        over 123 bytes.
        """
        with self._lock:
            starts = self._protocol.state is State.OPEN
            self._protocol.close(code, reason)
            self._put_control_frames()
        if starts:
            self._set_closing_deadline()
        if wait:
            with self._reading:
                self._finish()

    def drop(self, reason: str) -> None:
        """End the connection now, without a closing handshake; `receive` raises with `reason`."""
        self._stream.abort(reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _finish(self) -> None:
        """Read to the peer's Close, then to the end of TCP."""
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
        self._protocol.end()

    # What the protocol asks for

    def _put_control_frames(self) -> None:
        """Send the Pongs and the Close that wait. Never waits; call it with the lock held."""
        if self._protocol.has_data_to_send:
            with contextlib.suppress(ConnectionError):  # whoever reads learns of it
                self._stream.put(self._protocol.data_to_send())

    def _follow(self) -> None:
        """Do what the protocol asks for after bytes were parsed. Only the reader calls it."""
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
        self._set_closing_deadline(_DISCARD_TIME if discards else 0.0)
        # 7.1.1: the server ends TCP at once, a client waits until it has.
        waits_for_peer = self._protocol.is_client and state is State.CLOSE_EXCHANGED
        self._tcp_end = _TcpEnd(self._stream, discards=discards, waits_for_peer=waits_for_peer)

    def _peer_still_sends(self) -> bool:
        return self._protocol.is_cut_off() or self._stream.has_unread()

    def _set_closing_deadline(self, more: float = 0.0) -> None:
        # Patient: a peer that is slow to read has what was said before the Close to read first.
        seconds = self.timeouts.close_timeout + more
        self._stream.set_deadline(seconds, _TOO_LONG, patient=True)

    # What the clock does

    def _look(self, now: float) -> float:
        """Read for a handler that is busy, and find out whether the peer is there.

        Called by the clock; returns when to look again.
        """
        due = math.inf
        if self._reading.acquire(blocking=False):
            try:
                due = self._read_ahead(now)
            finally:
                self._reading.release()
        if self._protocol.state is State.OPEN:
            due = min(due, self._keep_alive(now))
        return due

    def _read_ahead(self, now: float) -> float:
        """Answer Pings and a Close for a handler that is busy; when to look again."""
        protocol = self._protocol
        if protocol.state is State.CLOSED:
            return math.inf
        for _ in range(_READS_IN_A_ROW):
            protocol.handle_control_frames()
            self._follow()
            if self._tcp_end:
                return self._read_to_the_end(self._tcp_end, now)
            room = READ_AHEAD - protocol.unread
            if protocol.has_eof or room <= 0 or not self._read(0, room):
                break
        if protocol.has_eof and self._stream.lost is not None:
            self._stream.close()  # the handler still has messages to receive, but TCP is over
            return math.inf
        return now + self._busy_look

    def _read_to_the_end(self, tcp_end: "_TcpEnd", now: float) -> float:
        """Nobody has called `close`, and perhaps nobody will: release TCP once it has ended."""
        if tcp_end.step(wait=False):
            self._release()
            return math.inf
        return now + (_QUIET / 2 if tcp_end.discards else self._busy_look)

    def _keep_alive(self, now: float) -> float:
        """Ping a peer that is silent, and drop one that stays so; when to look again."""
        heard_at = self._stream.heard_at
        verdict, again = self._keepalive.look(
            now,
            heard_at=heard_at,
            pongs=self._protocol.pongs,
            written=self._stream.position,
            unread=self._stream.has_unread(),
        )
        if verdict is Verdict.PING:
            with contextlib.suppress(ConnectionClosed):  # whoever reads learns of it
                self.ping()
        elif verdict is Verdict.GIVE_UP:
            self._stream.abort(f"silent for {now - heard_at:.0f} s")
        return again


class _TcpEnd:
    """Brings TCP to its end, once nothing more is to be received (7.1.1).

    What the peer still sends is read, and thrown away: unread bytes would make the kernel send a
    reset, which can overtake our Close. One thread at a time; `step` is called until it is done.
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
        """Do what can be done now, or wait for what comes next; whether TCP has ended."""
        if self.discards and not self._discard(_QUIET if wait else 0.0):
            return False
        data = self._stream.read(65536, None if wait else 0.0)
        if data is None or data:
            return False
        if wait:
            self._stream.wait_drained()  # the peer has ended its side, and may read on
        return not self._stream.is_draining

    def _discard(self, timeout: float) -> bool:
        """Read what a failed connection's peer still sends; whether that has come to an end.

        Waits `timeout` seconds at most for anything. Nothing of it is looked at (7.1.7), not even
        a Close. But a peer, or a proxy, that is told of the end while it sends may never read why
        (1.4 speaks of such resets).
        """
        for _ in range(_READS_IN_A_ROW):
            data = self._stream.read(65536, timeout)
            now = time.monotonic()
            if data is None and now - self._stream.heard_at < _QUIET:
                return False
            if not data:
                break
            self._discarded += len(data)
            if self._discarded >= _MAX_DISCARDED or now >= self._give_up:
                break
        else:
            return False
        self.discards = False
        self._stream.end()
        self._stream.set_deadline(self._stream.timeouts.close_timeout, _TOO_LONG, patient=True)
        return True


def broadcast(websockets: Iterable[WebSocket], *messages: str | bytes) -> None:
    """Post the same messages to many clients of a server, in this order; never waits.

    One whose connection is closed is passed over, and one that reads too slowly is dropped, as
    `post` does: the others get theirs. Any thread may call. Raises UnicodeEncodeError for a lone
    surrogate, and then nothing is sent; ValueError for a client's side, which must mask each frame
    anew (5.1).
    """
    framed: dict[Deflate | None, bytes] = {}
    for websocket in websockets:
        protocol = websocket._protocol
        if protocol.is_client:
            raise ValueError("a client can't broadcast: it masks each frame anew (5.1)")
        deflate = websocket.deflate
        if deflate not in framed:
            framed[deflate] = b"".join(map(protocol.build_message, messages))
        frames = framed[deflate]
        stream = websocket._stream
        try:
            with stream.lock:
                # As `_send_frames` does, but without the calls: a chat spends its time here.
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
                    stream.put(frames[sent:])
        except ConnectionError:
            pass  # whoever receives from it learns of it
        except Exception:
            log.exception("%s: dropped, as nothing could be sent to it", websocket.peer)
            websocket.drop("internal error")

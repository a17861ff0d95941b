"""Keepalive (RFC 6455, 5.5.2): when a peer is pinged, and when it is given up.

A peer that has sent nothing for a while gets a Ping, and is given up if nothing is heard of it in
time after that. A slow peer makes this more than two numbers: it finds the Ping only when it has
read everything that was sent before, and megabytes of that may still be on their way, in the kernel
or in a proxy. So it is given more time for each byte that it may not have read. What it has read is
proven by a Pong, and by nothing else that it sends: the two directions of TCP do not wait for each
other.

`MessageTime` says when a peer is given up that does not get done with a message, and `ControlPace`
how fast a peer may send control frames.

There is no socket, no thread and no clock here: all are told the time, and what is known of the
connection.
"""

import math
from enum import Enum

SLOWEST_PEER = 16384  # bytes a second; a peer has to read at least so fast
# A peer that may have more than this many bytes unread is pinged even while it sends, to learn how
# far it has read.
_UNPROVEN = 64 * 1024

# Control frames a second that are read from one peer. Each costs its sender six bytes, and the
# reader as much time as kilobytes of a message. Honest peers send one in some seconds.
CONTROL_RATE = 1000.0
_CONTROL_BURST = 1.0  # seconds; so many more may come at once after a pause
_MAX_CONTROL_DELAY = 0.25  # seconds; a connection that is dropped meanwhile ends after that


class Verdict(Enum):
    """What is to be done after a check of a connection."""

    WAIT = "wait"
    PING = "ping"
    GIVE_UP = "give up"


class Keepalive:
    """The keepalive of one connection. All times are seconds of one clock, which starts anywhere.

    A peer is pinged after `ping_interval` seconds of silence, and given up when after another
    `ping_timeout` seconds nothing was heard of it.
    """

    def __init__(self, ping_interval: float, ping_timeout: float, now: float) -> None:
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._pinged_at = -math.inf  # when the Ping was sent whose answer is awaited
        self._ping_position = 0  # how many bytes had been written before it
        self._pong_due = math.inf  # when its answer has to have come
        self._last_ping_at = now  # when any Ping was sent
        self._pongs = 0  # how many Pongs had come at the last check
        self._proven = 0  # how many bytes the peer has read for certain
        self._found_silent = -math.inf  # the `heard_at` at which a check has found the peer silent

    def check(
        self, now: float, *, heard_at: float, pongs: int, written: int, unread: bool
    ) -> tuple[Verdict, float]:
        """What is to be done now, and when to check again. One thread at a time.

        heard_at: when the peer last sent anything.
        pongs: how many Pongs have ever come.
        written: how many bytes were ever written to the peer.
        unread: whether something that it has sent waits to be read. While this side does not read,
            silence proves nothing.
        """
        if pongs > self._pongs:  # the peer has read everything before the Ping
            self._pongs = pongs
            self._proven = max(self._proven, self._ping_position)
        if heard_at >= self._pinged_at:
            return self._check_heard(now, heard_at, written)
        if now < self._pong_due or unread:
            return self._check_unheard(now)
        # It takes two checks: a thread may have read something just now, and not noted it yet.
        if self._found_silent == heard_at:
            return Verdict.GIVE_UP, math.inf
        self._found_silent = heard_at
        return Verdict.WAIT, now + self._ping_timeout / 20

    def _check_heard(self, now: float, heard_at: float, written: int) -> tuple[Verdict, float]:
        """Something was heard of the peer since the last Ping: is it time for another?"""
        due = heard_at + self._ping_interval
        may_be_unread = written - self._proven
        if may_be_unread > _UNPROVEN:
            due = min(due, self._last_ping_at + self._ping_interval)
        if now < due:
            return Verdict.WAIT, due
        self._pinged_at = now
        self._last_ping_at = now
        self._ping_position = written
        self._pong_due = now + self._ping_timeout + may_be_unread / SLOWEST_PEER
        return Verdict.PING, min(self._pong_due, now + self._ping_interval)

    def _check_unheard(self, now: float) -> tuple[Verdict, float]:
        """The answer is late, but not too late: ping on, so that no proxy drops this side."""
        asked_at = max(self._pinged_at + self._ping_timeout, self._last_ping_at)
        ping_at = asked_at + self._ping_interval
        verdict = Verdict.WAIT
        if now >= ping_at:
            verdict = Verdict.PING
            self._last_ping_at = now
        again = now + self._ping_interval
        if now < self._pong_due:
            again = min(again, self._pong_due)
        return verdict, again


class MessageTime:
    """How long a peer takes for a message, from its first frame to its last.

    The peer has `message_timeout` seconds, and one more for each SLOWEST_PEER bytes that have come.
    Only the time counts in which this side waits for the rest: while it does not read, the peer may
    be unable to send. All times are seconds of one clock, which starts anywhere.
    """

    __slots__ = ("_limit", "_since", "_spent", "due")

    def __init__(self, message_timeout: float) -> None:
        self._limit = message_timeout
        self._since = 0.0  # when the wait that goes on has begun
        self._spent = 0.0  # seconds of earlier waits for this message
        # When the message has to be there; math.inf while nobody waits for the rest of one. Any
        # thread may read it.
        self.due = math.inf

    def begin_message(self) -> None:
        """The next wait is the first one for another message."""
        self._spent = 0.0

    def begin_wait(self, now: float, size: int) -> None:
        """This side waits for the rest of a message, of which so many bytes have come."""
        self._since = now
        self.due = now + self._limit + size / SLOWEST_PEER - self._spent

    def end_wait(self, now: float) -> None:
        """Something has come, or this side does not wait any more."""
        self._spent += now - self._since
        self.due = math.inf


class ControlPace:
    """How long to wait before more is read from a peer that sends control frames without end.

    It is slowed, and loses nothing. All times are seconds of one clock, which starts anywhere.
    """

    __slots__ = ("_due", "counted", "is_behind")

    def __init__(self) -> None:
        self.counted = 0  # how many control frames had come at the last call of `count`
        self.is_behind = False  # whether the peer had sent too many then
        self._due = -math.inf  # from when on the next control frame is within the rate

    def count(self, now: float, controls: int) -> float:
        """Note how many control frames have ever come; returns how many seconds to wait now."""
        new = controls - self.counted
        self.counted = controls
        self._due = max(self._due, now - _CONTROL_BURST) + new / CONTROL_RATE
        self.is_behind = self._due > now
        return min(self._due - now, _MAX_CONTROL_DELAY) if self.is_behind else 0.0

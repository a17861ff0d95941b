"""Keepalive (RFC 6455, 5.5.2): when a peer is pinged, and when it is given up.

A peer that sends nothing for a while is asked by a Ping; without an answer in time it is gone. What
makes this more than two numbers is a slow peer: it has to read all that was sent before the Ping
until it finds it, and much of that may be on its way, in the kernel or in a proxy. Its Pong tells
how far it has read, and for what it may not have read yet it is given time. That it speaks says
nothing of this: the two directions of TCP do not wait for each other.

No socket, no thread and no clock here: `look` is told the time and what the stream knows.
"""

import math
from enum import Enum

SLOWEST_PEER = 16384  # bytes a second, which a peer is expected to read at least
_UNPROVEN = 64 * 1024  # bytes written from which on a Ping asks how far the peer has read


class Verdict(Enum):
    """What a look at a connection asks for."""

    WAIT = "wait"
    PING = "ping"
    GIVE_UP = "give up"


class Keepalive:
    """One connection's. All times are in seconds of the same clock.

    A peer is pinged after `ping_interval` of silence, and given up when `ping_timeout` later still
    nothing was heard of it.
    """

    def __init__(self, ping_interval: float, ping_timeout: float, now: float) -> None:
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._pinged_at = -math.inf  # when the Ping went out that an answer is awaited for
        self._last_ping_at = now  # when any Ping went out
        self._pong_due = math.inf
        self._pongs = 0  # how many had come at the last look
        self._ping_position = 0  # what had been written before that Ping, in bytes
        self._read_to = 0  # up to here the peer has read for certain
        self._found_silent = -math.inf  # when the peer was last heard, as the last look found it

    def look(
        self, now: float, *, heard_at: float, pongs: int, written: int, unread: bool
    ) -> tuple[Verdict, float]:
        """What is to be done, and when to look again.

        `heard_at` is when the peer last sent anything, `pongs` how many Pongs have ever come, and
        `written` how many bytes were ever written to it. `unread` is whether something that it has
        sent waits to be read: then it is this side that does not read, and silence proves nothing.
        One thread at a time.
        """
        if pongs > self._pongs:  # the peer has read everything before the Ping
            self._pongs = pongs
            self._read_to = max(self._read_to, self._ping_position)
        if heard_at >= self._pinged_at:
            return self._look_at_the_living(now, heard_at, written)
        if now < self._pong_due or unread:
            return self._look_at_the_slow(now)
        # It takes two looks, as a thread may just have read something and not noted it yet.
        if self._found_silent == heard_at:
            return Verdict.GIVE_UP, math.inf
        self._found_silent = heard_at
        return Verdict.WAIT, now + self._ping_timeout / 20

    def _look_at_the_living(
        self, now: float, heard_at: float, written: int
    ) -> tuple[Verdict, float]:
        due = heard_at + self._ping_interval
        may_be_unread = written - self._read_to
        if may_be_unread > _UNPROVEN:
            due = min(due, self._last_ping_at + self._ping_interval)
        if now < due:
            return Verdict.WAIT, due
        self._pinged_at = self._last_ping_at = now
        self._ping_position = written
        self._pong_due = now + self._ping_timeout + may_be_unread / SLOWEST_PEER
        return Verdict.PING, min(self._pong_due, now + self._ping_interval)

    def _look_at_the_slow(self, now: float) -> tuple[Verdict, float]:
        """The answer is awaited. A proxy between must not take this side for dead meanwhile."""
        ping_at = (
            max(self._pinged_at + self._ping_timeout, self._last_ping_at) + self._ping_interval
        )
        verdict = Verdict.WAIT
        if now >= ping_at:
            verdict = Verdict.PING
            self._last_ping_at = now
        again = now + self._ping_interval
        return verdict, min(self._pong_due, again) if now < self._pong_due else again

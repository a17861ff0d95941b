"""How fast a client may send: one that sends more than `--rate` is slowed, and loses nothing."""

import contextlib
import math
import time
from collections.abc import Callable

from chat.message import encode_slowed
from rfc6455 import ConnectionClosed

# Events a second that a client may send besides its messages. The web page sends one in ten
# seconds.
EVENT_RATE = 10.0
BURST = 3.0  # seconds; a client that was silent may send as much as the rate allows in that time
SLOWED_INTERVAL = 10.0  # seconds, at least, between two `slowed` events for one client


class Pace:
    """The pace of one client. Only the thread that reads from it may call."""

    def __init__(self, rate: float, post: Callable[[str], None] | None = None) -> None:
        """`rate` is in messages a second; 0 is no limit.

        `post` sends an event to the client without waiting. It may raise ConnectionClosed. None is
        for a client that gets no events.
        """
        self._rate = rate
        self._post = post
        self._told = -math.inf  # when the client was last told that it is slowed
        self._due = 0.0  # the time from which the next message is within the rate

    def for_events(self) -> "Pace":
        """A pace for the events of the same client, which has no limit either if this has none."""
        return Pace(EVENT_RATE if self._rate else 0)

    def wait(self) -> None:
        """Call before each message. While this waits nothing is read, and TCP slows the client."""
        if not self._rate:
            return
        now = time.monotonic()
        sent = max(now, self._due)
        if sent > now:
            self._tell_slowed(now)
        time.sleep(sent - now)
        self._due = max(self._due, sent - BURST) + 1 / self._rate

    def _tell_slowed(self, now: float) -> None:
        """Tell the client that it is slowed, unless it was told a short time ago."""
        if self._post is None or now < self._told + SLOWED_INTERVAL:
            return
        self._told = now
        # What the client said before it went is sent to all clients, so that this goes on.
        with contextlib.suppress(ConnectionClosed):
            self._post(encode_slowed(self._rate))

"""How fast a client may send: one that sends more than `--rate` is slowed, and loses nothing."""

import time

BURST = 3.0  # seconds; a client that was silent may send as much as the rate allows in that time


class Pace:
    """The pace of one client. Only the thread that reads from it may call."""

    def __init__(self, rate: float) -> None:
        """`rate` is in messages a second; 0 is no limit."""
        self._rate = rate
        self._due = 0.0  # the time from which the next message is within the rate

    def wait(self) -> None:
        """Call before each message. While this waits nothing is read, and TCP slows the client."""
        if not self._rate:
            return
        now = time.monotonic()
        sent = max(now, self._due)
        time.sleep(sent - now)
        self._due = max(self._due, sent - BURST) + 1 / self._rate

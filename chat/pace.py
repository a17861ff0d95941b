"""How fast a client may talk: one that says more than `--rate` is slowed, and loses nothing."""

import time

BURST = 3.0  # seconds; a client that was silent may send as much as the rate allows in that time


class Pace:
    """The pace of one client. Only the thread that reads from it may call."""

    def __init__(self, rate: float) -> None:
        """`rate` is in messages a second; 0 is no limit."""
        self._rate = rate
        self._due = 0.0  # when everything said so far would have been said at this rate

    def wait(self) -> None:
        """Call after each message. While this waits nothing is read, and TCP slows the client."""
        if not self._rate:
            return
        now = time.monotonic()
        self._due = max(self._due, now - BURST) + 1 / self._rate
        time.sleep(max(0.0, self._due - now))

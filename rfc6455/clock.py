"""All deadlines of all connections, in one heap and one thread.

Whoever has deadlines has one entry in the heap: when it wants to be looked at next. When that time
has come the clock calls its `look`, which does what is due and says when to look again. A deadline
that is moved to a later time moves nothing here: the look comes too early, and says so. One that
is moved to an earlier time asks for an earlier look with `look_by`, whatever else happens at that
moment, and no failure of one of them touches the others.
"""

import heapq
import itertools
import logging
import math
import os
import threading
import time
from typing import Protocol

log = logging.getLogger("rfc6455")

_ROUND = 0.02  # seconds from one round of looks to the next: many that are due share a wake-up
_AFTER_FAILURE = 1.0  # seconds until a look that failed is tried again


class Watched(Protocol):
    """Something with deadlines."""

    def look(self, now: float) -> float:
        """Do what is due at `now`; the time of the next look, math.inf for none. Never waits.

        Both are `time.monotonic()`'s seconds. Called from the clock's thread. What it logs goes
        through `logging`: a handler there that waits for its reader would hold up every deadline.
        """


class Entry:
    """What `watch` gives out: `when` is the time of the next look, math.inf if none is planned."""

    __slots__ = ("watched", "when")

    def __init__(self, watched: Watched) -> None:
        self.watched: Watched | None = watched  # None once it is forgotten
        self.when = math.inf


class Clock:
    """Looks at everything that is watched when it is due. Any thread may call.

    The thread lives only as long as something is watched.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()  # around all of these:
        self._entries: set[Entry] = set()
        # An entry whose time was changed is in the heap twice; its own `when` says which counts.
        self._heap: list[tuple[float, int, Entry]] = []
        self._number = itertools.count()  # so that entries of the same time are never compared
        self._thread: threading.Thread | None = None

    def watch(self, watched: Watched) -> Entry:
        """Begin to watch; the first look comes when `look_by` asks for it.

        Raises RuntimeError where no thread can be started; then nothing is watched, and the next
        call tries again.
        """
        entry = Entry(watched)
        with self._changed:
            self._ensure_thread()
            self._entries.add(entry)
        return entry

    def forget(self, entry: Entry) -> None:
        """Watch no longer; more than once is no error. A look that has begun goes on."""
        with self._changed:
            entry.watched = None
            self._entries.discard(entry)
            if not self._entries:
                self._changed.notify()  # the thread ends

    def look_by(self, entry: Entry, when: float) -> None:
        """Look at `when` at the latest, in `time.monotonic()`'s seconds."""
        with self._changed:
            if entry.watched is not None and when < entry.when:
                self._put(entry, when)

    def _put(self, entry: Entry, when: float) -> None:
        entry.when = when
        first = not self._heap or when < self._heap[0][0]
        heapq.heappush(self._heap, (when, next(self._number), entry))
        if len(self._heap) > 2 * len(self._entries) + 64:  # most were changed, or are forgotten
            planned = [entry for entry in self._entries if entry.when < math.inf]
            self._heap = [(entry.when, next(self._number), entry) for entry in planned]
            heapq.heapify(self._heap)
        if first:
            self._changed.notify()

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="rfc6455-clock", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._entries:
                    self._heap.clear()
                    self._thread = None
                    return
                wait = self._heap[0][0] - time.monotonic() if self._heap else math.inf
                if wait > 0:
                    self._changed.wait(None if wait == math.inf else wait)
                    continue
                due = self._take_due(time.monotonic())
            for entry in due:
                self._look(entry)
            time.sleep(_ROUND)

    def _take_due(self, now: float) -> list[Entry]:
        due = []
        while self._heap and self._heap[0][0] <= now:
            when, _, entry = heapq.heappop(self._heap)
            if entry.watched is not None and entry.when == when:
                # First, so that whoever asks for a look from here on, even while this one goes
                # on, is heard.
                entry.when = math.inf
                due.append(entry)
        return due

    def _look(self, entry: Entry) -> None:
        watched = entry.watched
        if watched is None:
            return
        now = time.monotonic()
        try:
            again = watched.look(now)
        except Exception:
            log.exception("a deadline could not be looked after")
            again = now + _AFTER_FAILURE
        self.look_by(entry, again)


clock = Clock()
if hasattr(os, "register_at_fork"):
    # A child process has the parent's entries, but not its thread, and perhaps a lock that is
    # held for ever. The connections are the parent's: the child starts anew.
    os.register_at_fork(after_in_child=clock._reset)

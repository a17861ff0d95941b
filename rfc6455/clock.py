"""All deadlines of all connections, in one heap and one thread.

Each stream has one entry in the heap: the time at which it wants to be checked next. When that time
has come, the clock calls the stream's `check`, which does what is due and returns the time of the
next check. So moving a deadline to a later time costs nothing: the check comes too early, finds
nothing due, and returns the later time. Whoever moves a deadline to an earlier time asks for an
earlier check with `check_by`. Such a request is never lost, even if it is made during a check, and
a check that fails affects no other. Left out: precision, since a check may come 20 ms late.
"""

import heapq
import itertools
import logging
import math
import os
import threading
import time
from typing import NamedTuple, Protocol

log = logging.getLogger("rfc6455")

_ROUND = 0.02  # seconds between two rounds of checks, so that many checks share one wake-up
_LONGEST_WAIT = 3600.0  # seconds until the thread goes through its heap again, whatever is due
_LINGER = 1.0  # seconds without anything to watch, after which the thread ends
_RETRY_DELAY = 1.0  # seconds until a check that failed is tried again


class Watched(Protocol):
    """Something that has deadlines."""

    def check(self, now: float) -> float:
        """Do what is due at `now`; the time of the next check, or math.inf for none.

        Both times are seconds of `time.monotonic()`. It is called from the clock's thread, and
        must not wait: while it does, every other deadline waits, too. That goes for what it logs
        as well, where a log handler waits for its reader.
        """


class Entry:
    """What `watch` returns. `when` is the time of the next check, math.inf if none is planned."""

    __slots__ = ("watched", "when")

    def __init__(self, watched: Watched) -> None:
        self.watched: Watched | None = watched  # None once it is forgotten
        self.when = math.inf


class _Planned(NamedTuple):
    """An element of the heap. It counts only while `when` is still the entry's own time."""

    when: float
    number: int  # different in each element, so that entries are never compared
    entry: Entry


class Clock:
    """Looks at everything that is watched when it is due. Any thread may call its methods.

    Its thread runs only while something is watched, and a moment longer: otherwise, connections
    that come one after another would start a thread each.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()  # held around every access to what follows
        self._changed = threading.Condition(self._lock)
        self._entries: set[Entry] = set()
        self._heap: list[_Planned] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, watched: Watched) -> Entry:
        """Begin to watch. The first check comes when `check_by` asks for it.

        Raises RuntimeError if no thread can be started. Then nothing is watched, and a later call
        tries again.
        """
        entry = Entry(watched)
        with self._lock:
            self._ensure_thread()
            self._entries.add(entry)
        return entry

    def forget(self, entry: Entry) -> None:
        """Stop watching; a check that has begun goes on. A second call does nothing."""
        with self._lock:
            entry.watched = None
            self._entries.discard(entry)
            if not self._entries:
                self._changed.notify()  # the thread ends soon

    def check_by(self, entry: Entry, when: float) -> None:
        """Look at this time at the latest, in seconds of `time.monotonic()`."""
        with self._lock:
            if entry.watched is not None and when < entry.when:
                self._plan(entry, when)

    def _plan(self, entry: Entry, when: float) -> None:
        entry.when = when
        is_first = not self._heap or when < self._heap[0].when
        heapq.heappush(self._heap, _Planned(when, next(self._numbers), entry))
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._discard_outdated()
        if is_first:
            self._changed.notify()

    def _discard_outdated(self) -> None:
        """Rebuild the heap without elements whose entry has another time or is forgotten."""
        planned = [entry for entry in self._entries if entry.when < math.inf]
        self._heap = [_Planned(entry.when, next(self._numbers), entry) for entry in planned]
        heapq.heapify(self._heap)

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="rfc6455-clock", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._changed.wait_for(lambda: self._entries, _LINGER):
                    self._heap.clear()
                    self._thread = None
                    return
                wait = self._heap[0].when - time.monotonic() if self._heap else math.inf
                if wait > 0:
                    # The system takes no timeout of months, let alone math.inf.
                    self._changed.wait(min(wait, _LONGEST_WAIT))
                    continue
                due = self._take_due(time.monotonic())
            for entry in due:
                self._check(entry)
            time.sleep(_ROUND)

    def _take_due(self, now: float) -> list[Entry]:
        due = []
        while self._heap and self._heap[0].when <= now:
            planned = heapq.heappop(self._heap)
            entry = planned.entry
            if entry.watched is not None and entry.when == planned.when:
                # Before the check begins: from here on, every request of `check_by` plans another.
                entry.when = math.inf
                due.append(entry)
        return due

    def _check(self, entry: Entry) -> None:
        watched = entry.watched
        if watched is None:  # it was forgotten after it was found due
            return
        now = time.monotonic()
        try:
            again = watched.check(now)
        except Exception:
            log.exception("a connection's deadlines could not be checked, and will be again soon")
            again = now + _RETRY_DELAY
        self.check_by(entry, again)


clock = Clock()
if hasattr(os, "register_at_fork"):
    # A child process inherits the entries, which belong to the parent's connections, perhaps a
    # lock that is held, but not the thread. So the child starts with a new clock.
    os.register_at_fork(after_in_child=clock._reset)

"""`RepeatLimit`: a log line that repeats is written once in ten seconds, with how often it came.

A client that is refused may come again a thousand times a second, and a system that has nothing
left says so to every thread. The first line says what is wrong, and has to be seen at once; the
thousands that follow would hide everything else, and fill the disk.
"""

import atexit
import logging
import math
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

REPEAT_TIME = 10.0  # seconds in which lines with one cause are counted, after one was written
MAX_DETAILS = 10  # lines of one kind that are told apart; peers may make up details without end
MAX_CAUSES = 1000  # that are told apart at all; our programs have some dozens
_MAX_TEXT = 1000  # characters of a line that are kept until it is written with its count
# Ends of clients that have a line each in REPEAT_TIME. Further ones are counted like other lines:
# one client that comes and goes as fast as it can would write gigabytes a day.
MAX_ENDS = 200
_END = "%s: closed, %s"  # the line for the end of a client, as the layer writes it


class _Kind(NamedTuple):
    """Which call has made a record: lines of one kind differ in their details only."""

    logger: str
    level: int
    text: str  # before its arguments are filled in


@dataclass(slots=True)
class _Repeats:
    """The lines with one cause since one was written."""

    kind: _Kind
    since: float  # when that was, in `time.monotonic()`'s seconds
    count: int = 0  # lines that were not written
    last: str = ""  # the text of the last of these


class RepeatLimit(logging.Filter):
    """Lets the first line with a cause pass, and has further ones counted for REPEAT_TIME.

    Then the last of them is written with their number, and the next REPEAT_TIME begins. Two lines
    have the same cause if they differ in nothing but the peer's name at their beginning. Beyond
    MAX_DETAILS different lines of one kind, the others of that kind count as having one cause. The
    ends of clients are no repetition: up to MAX_ENDS of them have a line each.

    Any thread may log. Nobody waits here, and memory is bounded.
    """

    def __init__(self, emit: Callable[[logging.LogRecord], None]) -> None:
        """`emit` writes a record, without asking this filter again. It must not wait."""
        super().__init__()
        self._emit = emit
        # Held around every access to what follows; nothing is written under it. Its lock is
        # reentrant, because the garbage collector may run a finalizer at any point, and that may
        # log.
        self._changed = threading.Condition()
        self._causes: dict[Hashable, _Repeats] = {}  # those written last are at the end
        self._of_kind: Counter[_Kind] = Counter()  # how many of them there are of each kind
        self._counting = 0  # how many of them have lines that were not written
        self._ends = 0  # ends of clients since `_ends_since`
        self._ends_since = -math.inf
        self._closed = False
        atexit.register(self.close)

    def start(self) -> None:
        """Start the thread that writes the counts. Without it they wait for the next line."""
        try:
            threading.Thread(target=self._run, name="log-repeats", daemon=True).start()
        except RuntimeError:  # there are too many threads
            pass

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written now; otherwise it is counted."""
        try:
            details = _details(record)
        except Exception:  # noqa: BLE001 (a mistake in the log call, which the handler reports)
            return True
        now = time.monotonic()
        with self._changed:
            due = self._take_due(now - REPEAT_TIME, now)
            passes = (
                self._closed
                or (record.msg == _END and self._has_line_for_end(now))
                or self._admit(record, details, now)
            )
        self._write(due)
        return passes

    def close(self) -> None:
        """Write all counts now, and count no more. Closing twice is no error."""
        with self._changed:
            due = self._take_due(math.inf, time.monotonic())
            self._closed = True
            self._changed.notify_all()
        self._write(due)
        atexit.unregister(self.close)

    def _has_line_for_end(self, now: float) -> bool:
        """Whether the end of a client, which has come now, gets a line of its own."""
        if now >= self._ends_since + REPEAT_TIME:
            self._ends_since = now
            self._ends = 0
        self._ends += 1
        return self._ends <= MAX_ENDS

    def _admit(self, record: logging.LogRecord, details: Hashable, now: float) -> bool:
        kind = _Kind(record.name, record.levelno, str(record.msg))
        cause: Hashable = (kind, details)
        if cause not in self._causes:
            if self._of_kind[kind] >= MAX_DETAILS:
                cause = kind
            if cause not in self._causes and len(self._causes) >= MAX_CAUSES:
                cause = None  # one for all that there is no room for
        repeats = self._causes.get(cause)
        if repeats is None:
            self._causes[cause] = _Repeats(kind, now)
            self._of_kind[kind] += 1
            return True
        if not repeats.count:
            self._counting += 1
            self._changed.notify_all()
        repeats.count += 1
        repeats.last = record.getMessage()[:_MAX_TEXT]
        return False

    def _take_due(self, until: float, now: float) -> list[logging.LogRecord]:
        """The counts of causes whose last line was written by `until`; their time begins anew.

        A cause of which nothing has come meanwhile is forgotten.
        """
        due = []
        for _ in range(len(self._causes)):
            cause, repeats = next(iter(self._causes.items()))
            if repeats.since > until:
                break  # those behind it were written later
            del self._causes[cause]
            if repeats.count:
                self._counting -= 1
                due.append(_count_of(repeats, now))
                self._causes[cause] = _Repeats(repeats.kind, now)
            else:
                self._of_kind -= Counter([repeats.kind])  # this also forgets a kind at zero
        return due

    def _write(self, records: list[logging.LogRecord]) -> None:
        for record in records:
            self._emit(record)

    def _run(self) -> None:
        """Write each count when its time is over, also where no further line comes."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._counting or self._closed)
                if self._closed:
                    return
                now = time.monotonic()
                first = next(iter(self._causes.values()))
                wait = first.since + REPEAT_TIME - now
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                due = self._take_due(now - REPEAT_TIME, now)
            self._write(due)


def _count_of(repeats: _Repeats, now: float) -> logging.LogRecord:
    """The last line, with the number of those that were not written."""
    seconds = max(1, round(now - repeats.since))
    return logging.makeLogRecord(
        {
            "name": repeats.kind.logger,
            "levelno": repeats.kind.level,
            "levelname": logging.getLevelName(repeats.kind.level),
            "msg": "%s (%d like this in the last %d s)",
            "args": (repeats.last, repeats.count, seconds),
        }
    )


def _details(record: logging.LogRecord) -> Hashable:
    """What tells two records of one kind apart: the text, and where an exception was raised.

    Many of our lines begin with the name of a peer, which is left out. So is what an exception
    says, in which there may be anything.
    """
    text = str(record.msg)
    arguments = record.args
    if text.startswith("%s") and isinstance(arguments, tuple):
        text = text[2:]
        arguments = arguments[1:]
    if arguments:
        text = text % arguments
    kind, _, trace = record.exc_info or (None, None, None)
    return text[:_MAX_TEXT], kind, _place(trace)


def _place(trace: TracebackType | None) -> tuple[str, int] | None:
    """File and line where an exception was raised."""
    last = None
    for frame, line in traceback.walk_tb(trace):
        last = frame.f_code.co_filename, line
    return last

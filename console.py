"""How the programs speak to their terminal: printed lines and log lines for which nobody waits.

A pipe that nobody reads takes 64 KiB and then makes each writer wait, for ever; Python's own
streams make all others wait behind that one, and a process that ends meanwhile is aborted. So
lines go through `LineWriter`, whose one thread may wait, and what peers send goes through
`printable`, so that it can't act on the terminal or forge a line.
"""

import atexit
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TextIO

from rfc6455 import printable

__all__ = ["LineWriter", "announce", "log_to_stderr", "printable"]

log = logging.getLogger("console")

MAX_WAITING = 1 << 20  # characters; a reader that is only slow is seldom so far behind
GATHER = 0.005  # seconds for more lines to come: to wake a thread for each halved a busy echo
EXIT_WAIT = 0.5  # seconds for the reader to take the last lines; the whole exit has five


class LineWriter:
    """Writes lines to a stream. Any thread may call, and never waits for the stream's reader.

    Lines that do not fit in what may wait are dropped, and `tell_lost` makes the line that says
    how many. It writes to the stream's file descriptor: what else is written to the stream should
    be flushed. Without a stream, as where it was closed before the start, lines are dropped.
    """

    def __init__(self, stream: TextIO | None, tell_lost: Callable[[int], str]) -> None:
        self._stream = stream
        self._tell_lost = tell_lost
        self._changed = threading.Condition()  # its lock is reentrant: a finalizer may log, too
        self._lines: list[str] = []
        self._waiting = 0  # characters that were not written yet
        self._lost = 0  # lines that were dropped since the last one that fitted
        self._running = False
        self._closed = stream is None
        atexit.register(self.close)

    def write(self, line: str) -> None:
        """Write a line, whose end is added. Never waits, and raises nothing."""
        with self._changed:
            if self._closed:
                return
            if self._waiting and self._waiting + len(line) > MAX_WAITING:
                self._lost += 1
                return
            is_first = not self._lines
            self._say_lost()
            self._append(line)
            self._start()
            if is_first:  # else the thread was told before
                self._changed.notify_all()

    def start(self) -> None:
        """Start the thread at once: the first line may say that there are no more threads."""
        with self._changed:
            self._start()

    def close(self) -> None:
        """Wait a moment until all is written, and write nothing more. Closing twice is no error."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._lost, EXIT_WAIT)
            self._closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)

    def _start(self) -> None:
        if not self._running and not self._closed:
            try:
                threading.Thread(target=self._run, name="line-writer", daemon=True).start()
            except RuntimeError:  # There are too many threads. The next line tries again.
                return
            self._running = True

    def _append(self, line: str) -> None:
        self._lines.append(line + "\n")
        self._waiting += len(line) + 1

    def _say_lost(self) -> None:
        if self._lost:
            self._append(self._tell_lost(self._lost))
            self._lost = 0

    def _run(self) -> None:
        assert self._stream
        try:
            file = self._stream.fileno()
        except (OSError, ValueError):  # it has none, or is closed: nobody would read the lines
            with self._changed:
                self._closed = True
                self._waiting = self._lost = 0
            return
        while text := self._take():
            self._write_whole(file, text)
            with self._changed:
                self._waiting -= len(text)
                if not self._lines:
                    self._say_lost()
                self._changed.notify_all()

    def _take(self) -> str:
        """Wait for lines; all that there are, or nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
        time.sleep(GATHER)
        with self._changed:
            text = "".join(self._lines)
            self._lines.clear()
            return text

    def _write_whole(self, file: int, text: str) -> None:
        """The one place that may wait, in a thread for which nobody waits at the end."""
        assert self._stream
        data = text.encode(self._stream.encoding or "utf-8", "backslashreplace")
        try:
            while data:
                try:
                    data = data[os.write(file, data) :]
                except BlockingIOError:  # another program that shares it has made it so
                    select.select([], [file], [])
        except OSError:
            pass  # the reader is gone, and with it those who would miss the lines


class _LogHandler(logging.Handler):
    """Hands the lines of the log to a LineWriter."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._writer = LineWriter(stream, self._tell_lost)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (a line that can't be made must not end who logs it)
            line = traceback.format_exc().rstrip()
        self._writer.write(line)

    def _tell_lost(self, count: int) -> str:
        return self.format(logging.makeLogRecord({"msg": f"{count} log lines were lost"}))


class _LineFormatter(logging.Formatter):
    """One line for each record, whatever peers have sent; a trace has its own below."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(map(printable, lines))


def announce(text: str) -> None:
    """Print a line at once. If that fails the program runs all the same, and the log has the line.

    From the main thread only, before others print.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        log.info("%s (which could not be printed: %s)", text, error.strerror)
        # Python would try to print the line again at its exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def log_to_stderr() -> None:
    """Send the log to stderr from now on: each line with its time, and no thread waits for it."""
    handler = _LogHandler(sys.stderr)
    handler.setFormatter(_LineFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    threading.excepthook = _log_uncaught


def _log_uncaught(what: threading.ExceptHookArgs) -> None:
    """Python would write to stderr itself, and could make the thread wait there for ever."""
    if what.exc_type is SystemExit:  # as Python's own hook: that is a way to end a thread
        return
    name = what.thread.name if what.thread else "a thread"
    error = what.exc_value or what.exc_type()
    log.error("%s has ended", name, exc_info=error)

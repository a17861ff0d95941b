"""How the programs print lines and log lines, so that no thread waits for whoever reads them.

A pipe that nobody reads holds 64 KiB. After that, whoever writes to it waits for ever; Python's own
streams then make every other writer wait for that one, and abort a process that ends meanwhile.
So lines go through a `LineWriter`, which has one thread that may wait. What peers send goes through
`printable`, so that it can neither act on the terminal nor pass itself off as a line of its own.
Log lines that repeat are counted; see `log_repeats`.
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
from datetime import datetime
from typing import TextIO

from log_repeats import RepeatLimit
from rfc6455 import Frame, HandshakeLine, describe, printable, wants_colour

__all__ = ["LineWriter", "announce", "log_to_stderr", "printable", "trace_to_stderr"]

log = logging.getLogger("console")

MAX_WAITING = 1 << 20  # characters that may wait; a slow reader is seldom so far behind
# Seconds in which lines are gathered before they are written: a busy echo server that woke the
# thread for each line answered half as many messages.
GATHER_TIME = 0.005
EXIT_TIME = 0.5  # seconds for the reader to take the last lines when the program ends


class LineWriter:
    """Writes lines to a stream. Any thread may call it, and none waits for the stream's reader.

    When more than MAX_WAITING characters would wait, a line is dropped. As soon as there is room
    again, `describe_loss` is called with the number of dropped lines, and returns the line that
    says so. The writer uses the stream's file descriptor, so whatever else is written to the
    stream has to be flushed. `stream` is None where the program was started without one, as
    sys.stdout then is; the lines are dropped.
    """

    def __init__(self, stream: TextIO | None, describe_loss: Callable[[int], str]) -> None:
        self._stream = stream
        self._describe_loss = describe_loss
        # Held around every access to the attributes below. Its lock is reentrant, because the
        # garbage collector may run a finalizer at any point, and that may log.
        self._changed = threading.Condition()
        self._lines: list[str] = []  # those that the thread has not taken yet
        self._waiting = 0  # characters that are not written yet
        self._lost = 0  # lines that were dropped and not yet told of
        self._running = False  # whether the thread was started
        self._closed = stream is None
        atexit.register(self.close)

    def write(self, line: str) -> None:
        """Write a line, given without its line end. Never waits, and raises nothing."""
        with self._changed:
            if self._closed:
                return
            if self._waiting and self._waiting + len(line) > MAX_WAITING:
                self._lost += 1
                return
            is_first = not self._lines
            self._append_loss()
            self._append(line)
            self._start()
            if is_first:  # for a further one the thread is awake already
                self._changed.notify_all()

    def start(self) -> None:
        """Start the thread now. Without this the first line does it, and may be too late.

        A log needs this: its first line may say that no thread can be started.
        """
        with self._changed:
            self._start()

    def close(self) -> None:
        """Wait until all is written, but at most EXIT_TIME, and accept nothing more.

        Closing twice is no error.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._lost, EXIT_TIME)
            self._closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)

    def _start(self) -> None:
        if not self._running and not self._closed:
            try:
                threading.Thread(target=self._run, name="line-writer", daemon=True).start()
            except RuntimeError:  # there are too many threads; the next line tries again
                return
            self._running = True

    def _append(self, line: str) -> None:
        self._lines.append(line + "\n")
        self._waiting += len(line) + 1

    def _append_loss(self) -> None:
        if self._lost:
            self._append(self._describe_loss(self._lost))
            self._lost = 0

    def _run(self) -> None:
        assert self._stream
        try:
            file = self._stream.fileno()
        except (OSError, ValueError):  # it is closed, or no file: nobody reads the lines
            with self._changed:
                self._closed = True
                self._waiting = 0
                self._lost = 0
                self._changed.notify_all()
            return
        while text := self._take():
            self._write_whole(file, text)
            with self._changed:
                self._waiting -= len(text)
                if not self._lines:
                    self._append_loss()
                self._changed.notify_all()

    def _take(self) -> str:
        """Wait for lines, and return all that there are, joined; "" once the writer is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
        time.sleep(GATHER_TIME)
        with self._changed:
            text = "".join(self._lines)
            self._lines.clear()
            return text

    def _write_whole(self, file: int, text: str) -> None:
        """Write all of a text: the one place that may wait for the reader."""
        assert self._stream
        data = text.encode(self._stream.encoding or "utf-8", "backslashreplace")
        try:
            while data:
                try:
                    data = data[os.write(file, data) :]
                except BlockingIOError:  # a program that shares the pipe made it non-blocking
                    select.select([], [file], [])
        except OSError:
            pass  # the reader is gone, so nobody misses the lines


class _LogHandler(logging.Handler):
    """Hands the lines of the log to a LineWriter, except those that only repeat."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._writer = LineWriter(stream, self._describe_loss)
        self._writer.start()
        # Made after the writer, so that at the exit it writes its counts before that is closed.
        limit = RepeatLimit(self.emit)
        limit.start()
        self.addFilter(limit)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (a mistake in a log call must not end its thread)
            line = traceback.format_exc().rstrip()
        self._writer.write(line)

    def _describe_loss(self, count: int) -> str:
        return self.format(logging.makeLogRecord({"msg": f"{count} log lines were lost"}))


class _LineFormatter(logging.Formatter):
    """Makes one line of each record, whatever peers have sent; the lines of a trace follow it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(map(printable, lines))


def announce(text: str) -> None:
    """Print a line at once; where that fails, log it, and let the program go on.

    To be called from the main thread, before other threads print.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        log.info("%s (this line could not be printed: %s)", text, error.strerror)
        # What could not be printed is still in the stream's buffer. At its exit Python would try
        # again and report another failure, so the stream now leads nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def log_to_stderr() -> None:
    """Write the log to stderr from now on, each line with its time; no thread waits for that.

    Call it once, before other threads log.
    """
    handler = _LogHandler(sys.stderr)
    handler.setFormatter(_LineFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    threading.excepthook = _log_uncaught


def trace_to_stderr() -> Callable[[HandshakeLine | Frame], None]:
    """A function that writes a line, with its time, for all that travels on connections.

    Any thread may call it, and none waits for whoever reads the lines.
    """
    writer = LineWriter(sys.stderr, lambda count: f"{count} lines of the trace were lost")
    writer.start()
    colour = wants_colour(sys.stderr)

    def write(traced: HandshakeLine | Frame) -> None:
        now = datetime.now().astimezone().time().isoformat("milliseconds")
        writer.write(f"{now} {describe(traced, colour=colour)}")

    return write


def _log_uncaught(what: threading.ExceptHookArgs) -> None:
    """Log the exception that ended a thread.

    Python's own hook writes to stderr directly, and could make the thread wait there for ever.
    """
    if what.exc_type is SystemExit:  # a thread may end itself so; Python's hook is silent, too
        return
    name = what.thread.name if what.thread else "a thread"
    error = what.exc_value or what.exc_type()
    log.error("%s has ended", name, exc_info=error)

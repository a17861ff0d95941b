"""A conversation over a WebSocket from a terminal, or through a pipe: what `__main__` runs.

The main thread reads lines and sends them, and a second one receives and shows what comes. At a
terminal that is shown above the line which is being typed.
"""

import collections
import contextlib
import io
import itertools
import os
import shutil
import signal
import socket
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from types import FrameType
from typing import Literal, NamedTuple, NoReturn, TextIO

from .cli import INTERRUPTED
from .connection import WebSocket
from .errors import ConnectionClosed
from .frames import CloseCode
from .handshake import printable
from .protocol import State
from .trace_words import describe_close_code

try:
    import readline  # to have imported it gives `input` editing and a history
except ImportError:  # Windows has none
    readline = None  # type: ignore[assignment]

HELP = """\
A line is sent as text. One that begins with a slash is a command:
  /ping [TEXT]            send a Ping, and tell when its Pong has come
  /binary HEX             send binary data, such as /binary 00 ff 7f
  /close [CODE [REASON]]  close the connection, as in /close 4000 bye; without a code with 1000
  /help                   show this
  //TEXT                  send a text that begins with a slash: //ping sends /ping
The end of the input, which is Ctrl+D at a terminal, closes the connection, too."""
PROMPT = "> "
_SAVE_CURSOR = "\x1b7"
_RESTORE_CURSOR = "\x1b8"
_AS_USUAL = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)
_SHOWN_BYTES = 1000  # of a binary message
_WITHOUT_WIDTH = ("Mn", "Me", "Cf")  # Unicode's categories: marks on the character before, formats
_MAX_NOTES = 10_000  # lines that wait to be written to stderr
_HANDLING_TIME = 0.05  # seconds; by then the handler of a signal has run, where it is not held up


class Terminal:
    """Where lines come from, and where they are shown: a terminal, or pipes and files.

    Any thread may show; one reads. A stream is None where the program was started without it, as
    sys.stdin then is: there is nothing to read, and what is written is lost.
    """

    def __init__(self, stdin: TextIO | None, stdout: TextIO | None, stderr: TextIO | None) -> None:
        stdin = stdin or _open_nowhere("r")
        stdout = stdout or _open_nowhere("w")
        stderr = stderr or _open_nowhere("w")
        self.is_interactive = stdin.isatty() and stdout.isatty()
        self._stdin = stdin
        self._stdout = stdout
        self._stderr = stderr
        self._noting = threading.Condition()  # around the next five; nothing is written under it
        self._notes: collections.deque[str] = collections.deque()  # that wait to be written
        self._asked = 0  # how many notes there ever were,
        self._noted = 0  # how many of these were written,
        self._lost = 0  # and how many others found no room since the last was written
        self._is_closed = False
        self._lock = threading.Lock()  # around each write, and the next one
        self._is_typing = False  # whether the last line of the screen belongs to `input`
        for stream in (stdin, stdout, stderr):
            if isinstance(stream, io.TextIOWrapper):
                # Show "\u4f60" where 你 can't be shown. Bytes that are no text become surrogates,
                # which `WebSocket.send` refuses.
                errors = "surrogateescape" if stream is stdin else "backslashreplace"
                stream.reconfigure(errors=errors)
        threading.Thread(target=self._write_notes, name="note-writer", daemon=True).start()

    def read(self) -> str:
        """The next line, without its end. Raises EOFError."""
        if self.is_interactive:
            self._set_typing(True)
            try:
                return input(PROMPT)
            except BaseException:  # Ctrl+D, Ctrl+C, or the end: what follows is no part of the line
                self._set_typing(False)
                with contextlib.suppress(OSError):
                    self.show("")
                raise
            finally:
                self._set_typing(False)
        line = self._stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def show(self, text: str) -> None:
        """Print a line to stdout, behind the notes that there are already. Raises OSError."""
        self.wait_for_notes()
        self._print(text, self._stdout)

    def note(self, text: str) -> None:
        """Print a line that is not a message of the peer's to stderr, and wait until that is done.

        Text of the peer has to be escaped before.
        """
        self.note_soon(text, always=True)
        self.wait_for_notes()

    def note_soon(self, text: str, *, always: bool = False) -> None:
        """Have a line printed to stderr by another thread; never waits for who reads it.

        It is lost where too many lines wait, unless `always` is true; how many were is told.
        """
        with self._noting:
            if len(self._notes) >= _MAX_NOTES and not always:
                self._lost += 1
                return
            self._notes.append(text)
            self._asked += 1
            self._noting.notify_all()

    def wait_for_notes(self) -> None:
        """Wait until the lines that there are so far were printed to stderr."""
        with self._noting:
            asked = self._asked
            self._noting.wait_for(lambda: self._noted >= asked)

    def close(self) -> None:
        """Wait until all notes were printed. Nothing may be noted after this."""
        with self._noting:
            self._is_closed = True
            self._noting.notify_all()
        self.wait_for_notes()

    def _write_notes(self) -> None:
        """The thread that writes to stderr."""
        while True:
            with self._noting:
                self._noting.wait_for(lambda: self._notes or self._is_closed)
                if not self._notes:
                    return
                text = self._notes.popleft()
                if self._lost:
                    text += f"\n{self._lost} lines were lost, as the output was read too slowly"
                    self._lost = 0
            with contextlib.suppress(OSError):
                self._print(text, self._stderr)
            with self._noting:
                self._noted += 1
                self._noting.notify_all()

    def _set_typing(self, is_typing: bool) -> None:
        with self._lock:
            self._is_typing = is_typing

    def _print(self, text: str, stream: TextIO) -> None:
        with self._lock:
            is_above = self._is_typing and stream.isatty()
            if is_above:
                typed = PROMPT + (readline.get_line_buffer() if readline else "")
                stream.write(above(text, typed, *shutil.get_terminal_size()))
            else:
                stream.write(text + "\n")
            stream.flush()


def _open_nowhere(mode: Literal["r", "w"]) -> TextIO:
    # Never closed. So no socket gets the number of a standard stream, to which anybody may write.
    return open(os.devnull, mode, encoding="utf-8")


def above(text: str, typed: str, columns: int, lines: int) -> str:
    """What to write to show a text above the line that is being typed, the prompt included.

    The sequences are those of ECMA-48 (CUU, IL, CUD, ED), and DEC's for saving and restoring the
    place of the cursor. They take it to be at the end of what was typed, which may fill several
    rows of the screen.
    """
    rows = sum(_place_at_end(line, columns).row + 1 for line in text.split("\n"))
    end = _place_at_end(typed, columns)
    rows_above = end.row + (end.column == columns)  # behind the last column a new row begins
    if rows + rows_above >= lines:  # no room is left for the line, so that it is written anew
        return f"\r{_up(rows_above)}\x1b[J{text}\n{typed}"
    # The screen scrolls if it has to.
    make_room = "\n" * rows + f"{_up(rows + rows_above)}\x1b[{rows}L"
    return f"{_SAVE_CURSOR}{make_room}\r{text}{_RESTORE_CURSOR}\x1b[{rows}B"


def _up(rows: int) -> str:
    return f"\x1b[{rows}A" if rows else ""  # 0 would mean 1


class _Place(NamedTuple):
    """A place on a screen, from a row's first column on."""

    row: int
    column: int  # as many columns are taken before it


def _place_at_end(line: str, columns: int) -> _Place:
    """Where the cursor is behind a line: a wide character that does not fit begins a new row."""
    visible = line.split("\x1b[")
    plain = visible[0] + "".join(part.partition("m")[2] for part in visible[1:])
    row = 0
    column = 0
    for character in plain:
        width = _width(character)
        if column + width > columns:
            row += 1
            column = 0
        column += width
    return _Place(row, column)


def _width(character: str) -> int:
    """How many columns a character takes on a screen."""
    if unicodedata.category(character) in _WITHOUT_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def leave() -> NoReturn:
    """End the program as it is: something waits that nobody can end, such as a full pipe."""
    os._exit(INTERRUPTED)


class _Ended(Exception):
    """The connection has ended while the main thread waited for a line."""


class Conversation:
    """One connection, from its opening to its end."""

    def __init__(self, websocket: WebSocket, terminal: Terminal) -> None:
        self._websocket = websocket
        self._terminal = terminal
        self._pings: dict[bytes, float] = {}  # when each was sent, in time.perf_counter()'s seconds
        self._ping_numbers = itertools.count(1)
        self._is_waiting = False  # whether the main thread waits for a line
        self._has_ended = threading.Event()
        self._has_failed = False  # whether something could not be sent or shown
        self._can_print = True
        self._is_interrupted = False
        self._is_dropping = False  # whether to end TCP, because of a second Ctrl+C
        self._closes_first = False

    def run(self) -> int:
        """Talk until the connection has ended; the exit status. From the main thread only.

        It is 0 if the connection was closed as usual, and each line that was read was sent, and
        all that came was shown; INTERRUPTED after Ctrl+C; and else 1.
        """
        self._websocket.set_pong_handler(self._tell_pong)
        receiver = threading.Thread(target=self._receive, name="receiver", daemon=True)
        with self._watching_signals():
            receiver.start()
            try:
                self._read_and_obey()
            finally:
                self._begin_to_close()
                receiver.join()
        self._tell_end()
        return self._status()

    @contextlib.contextmanager
    def _watching_signals(self) -> Iterator[None]:
        """Have `_on_signal` called for Ctrl+C, and a thread told of each signal."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        previous = signal.signal(signal.SIGINT, self._on_signal)
        previous_fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        name = "interrupter"
        threading.Thread(target=self._follow_signals, args=(ours,), name=name, daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous_fd)
            signal.signal(signal.SIGINT, previous)
            theirs.close()  # this ends the thread

    def _follow_signals(self, signals: socket.socket) -> None:
        """The third thread: do what a signal's handler can't, as it interrupts the main thread.

        That may hold the lock of the connection. And readline, when it just deals with a key, does
        not let the handler run before the next signal.
        """
        with signals:
            while signals.recv(1):
                time.sleep(_HANDLING_TIME)
                if self._is_dropping:
                    self._websocket.drop("interrupted")
                else:
                    self._wake_main_thread()

    def _read_and_obey(self) -> None:
        """Do what each line says until the input or the connection ends, or Ctrl+C is typed."""
        try:
            while True:
                self._obey(self._wait_for_line())
        except (EOFError, ConnectionClosed, _Ended):
            pass
        except KeyboardInterrupt:
            self._is_interrupted = True

    def _wait_for_line(self) -> str:
        """The next line. Raises EOFError; _Ended, and KeyboardInterrupt after Ctrl+C."""
        try:
            # From here to the end of `finally` the signal's handler may raise.
            self._is_waiting = True
            if self._has_ended.is_set():  # its signal may have come before
                raise _Ended
            return self._terminal.read()
        finally:
            self._is_waiting = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Wake the main thread where it waits for a line; elsewhere `_follow_signals` drops."""
        if self._has_ended.is_set():
            if self._is_waiting:
                raise _Ended
        elif self._is_waiting:
            raise KeyboardInterrupt
        elif not self._is_dropping:  # Ctrl+C once more, or while something is sent
            self._is_interrupted = True
            self._is_dropping = True
        else:
            leave()

    # What is sent

    def _obey(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        commands = {"/ping": self._ping, "/binary": self._send_binary, "/close": self._close}
        try:
            if line.startswith("//"):
                self._websocket.send(line[1:])
            elif not line.startswith("/"):
                self._websocket.send(line)
            elif command in commands:
                commands[command](argument)
            elif command == "/help":
                self._terminal.note(HELP)
            else:
                raise ValueError(f"there is no command {command}; /help lists them")
        except UnicodeEncodeError:
            self._fail("this line is not UTF-8, so it was not sent; /binary sends bytes")
        except ValueError as error:
            self._fail(str(error))
        except ConnectionClosed:
            self._fail("the connection was closed before this line was sent")
            raise

    def _fail(self, reason: str) -> None:
        self._has_failed = True
        self._terminal.note(printable(reason))

    def _ping(self, argument: str) -> None:
        # A number, as an empty Ping looks like those of the keepalive.
        payload = argument.encode() or str(next(self._ping_numbers)).encode()
        self._pings[payload] = time.perf_counter()  # before the Pong can come
        self._websocket.ping(payload)

    def _send_binary(self, argument: str) -> None:
        try:
            data = bytes.fromhex(argument)
        except ValueError:
            raise ValueError("/binary takes bytes in hex, such as 00 ff 7f") from None
        self._websocket.send(data)

    def _close(self, argument: str) -> None:
        code, _, reason = argument.partition(" ")
        if code and not (code.isascii() and code.isdecimal()):
            raise ValueError("a close code is a number, as in /close 4000 bye")
        self._begin_to_close(int(code or CloseCode.NORMAL), reason)
        raise _Ended

    def _begin_to_close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Send a Close, unless there was one. What comes before the peer's is shown. (7.1.2)"""
        if self._websocket.state is State.OPEN:
            self._websocket.close(code, reason, wait=False)
            self._closes_first = True

    # What comes

    def _receive(self) -> None:
        """The second thread: show what comes, until the connection has ended."""
        try:
            for message in self._websocket:
                self._terminal.show(self._describe(message))
        except OSError as error:  # from `show`: nobody reads the output
            self._can_print = False
            self._fail(f"cannot print: {error.strerror}")
            self._websocket.drop("the output cannot be printed")
        finally:
            self._has_ended.set()
            self._wake_main_thread()

    def _wake_main_thread(self) -> None:
        """Send it signals until it waits for no line any more, if it does."""
        main_thread = threading.main_thread().ident
        assert main_thread
        while self._is_waiting:
            if sys.platform == "win32":  # there it hears of it at the end of the line that is typed
                signal.raise_signal(signal.SIGINT)
            else:
                signal.pthread_kill(main_thread, signal.SIGINT)
            time.sleep(_HANDLING_TIME)

    def _describe(self, message: str | bytes) -> str:
        if isinstance(message, str):
            text = printable(message)
        else:
            more = len(message) - _SHOWN_BYTES
            text = f"binary: {message[:_SHOWN_BYTES].hex(' ')}" + (f" … {more} more" * (more > 0))
        return f"< {text}" if self._terminal.is_interactive else text

    def _tell_pong(self, payload: bytes) -> None:
        sent_at = self._pings.pop(payload, None)
        if sent_at is not None:
            milliseconds = (time.perf_counter() - sent_at) * 1000
            text = printable(payload.decode(errors="replace"))
            self._terminal.note_soon(f"Pong {text} after {milliseconds:.1f} ms")

    def _tell_end(self) -> None:
        code = self._websocket.close_code
        reason = printable(self._websocket.close_reason)
        if not self._can_print:
            return  # which was told, and is why the connection has ended
        if not self._websocket.clean:
            self._terminal.note(f"The connection was lost: {reason}")
            return
        words = f"The connection is closed: {describe_close_code(code)} {reason}"
        self._terminal.note(words.rstrip())

    def _status(self) -> int:
        if self._is_interrupted:
            return INTERRUPTED
        # Who types sees what was not sent, and may have typed it again.
        is_incomplete = self._has_failed and not self._terminal.is_interactive
        is_usual = self._closes_first or self._websocket.close_code in _AS_USUAL
        return 0 if self._websocket.clean and is_usual and not is_incomplete else 1

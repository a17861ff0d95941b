"""`python3 -m rfc6455 URL`, in a pipe and at a terminal, with real servers."""

import contextlib
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pairs import connected_pair
from peers import PATIENCE, Peer, after_handshake, echo_messages, eventually, serving, unmasked
from programs import ROOT
from rfc6455 import Close, ConnectionClosed, Deflate, WebSocket, WebSocketServer, interactive
from rfc6455.interactive import PROMPT, Conversation, Terminal, above
from tls import Certificate

COMMAND = [sys.executable, "-m", "rfc6455"]
# readline may tell a terminal that it begins and ends to paste; a dumb one is told nothing.
ENVIRONMENT = os.environ | {"TERM": "dumb", "LC_ALL": "C.UTF-8"}


def run(*arguments: str, typed: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run it with this input in a pipe; its exit status and its output."""
    ended = subprocess.run(
        [*COMMAND, *arguments],
        input=typed,
        capture_output=True,
        cwd=ROOT,
        timeout=2 * PATIENCE,
        check=False,
    )
    return subprocess.CompletedProcess(
        ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode()
    )


def url_of(server: WebSocketServer) -> str:
    return f"ws://127.0.0.1:{server.server_port}/"


# In a pipe


def test_each_line_is_sent_and_each_answer_printed_up_to_the_close() -> None:
    with serving(echo_messages) as server:
        ended = run(url_of(server), typed="hi\n你好\n\nno line end".encode())
    assert ended.stdout == "hi\n你好\n\nno line end\n"
    assert ended.stderr == (
        f"Connected to {url_of(server)}.\nThe connection is closed: 1000 NORMAL\n"
    )
    assert ended.returncode == 0


def test_all_answers_are_printed_however_many_there_are() -> None:
    with serving(echo_messages) as server:
        lines = "".join(f"{number}\n" for number in range(5000))
        ended = run(url_of(server), typed=lines.encode())
    assert ended.stdout == lines
    assert ended.returncode == 0


def test_message_of_megabytes_goes_through_a_pipe() -> None:
    line = b"x" * (3 << 20) + b"\n"
    with serving(echo_messages, max_message=4 << 20) as server:
        ended = run(url_of(server), typed=line)
    assert ended.stdout == line.decode()
    assert ended.returncode == 0


def test_commands_send_what_lines_cannot() -> None:
    with serving(echo_messages) as server:
        typed = b"/binary 00 ff7f\n//ping is no command here\n/ping hello\n/close 4000 bye\nlate\n"
        ended = run(url_of(server), typed=typed)
    assert ended.stdout == "binary: 00 ff 7f\n/ping is no command here\n"
    assert re.search(r"^Pong hello after [0-9.]+ ms$", ended.stderr, re.MULTILINE)
    assert ended.stderr.endswith("The connection is closed: 4000\n")
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"/pong", "there is no command /pong; /help lists them"),
        (b"/binary 0", "/binary takes bytes in hex, such as 00 ff 7f"),
        (b"/binary xy", "/binary takes bytes in hex, such as 00 ff 7f"),
        (b"/close x", "a close code is a number, as in /close 4000 bye"),
        (b"/close 1005", "close code 1005 may not be sent"),
        (b"/close 1000 " + b"x" * 124, "a close reason has at most 123 bytes"),
        (b"/ping " + b"x" * 126, "a ping has at most 125 bytes"),
        (b"\xff", "this line is not UTF-8, so it was not sent; /binary sends bytes"),
        (b"/\x1b[2J", r"there is no command /\x1b[2J; /help lists them"),
    ],
)
def test_what_cannot_be_done_is_told_and_the_rest_goes_on(line: bytes, reason: str) -> None:
    with serving(echo_messages) as server:
        ended = run(url_of(server), typed=b"a\n" + line + b"\nb\n")
    assert ended.stdout == "a\nb\n"
    assert reason in ended.stderr.splitlines()
    assert ended.returncode == 1


def test_help_lists_the_commands_on_stderr() -> None:
    with serving(echo_messages) as server:
        ended = run(url_of(server), typed=b"/help\n")
    assert "/binary HEX " in ended.stderr
    assert ended.stdout == ""
    assert "/binary HEX " in run("--help").stdout


def test_text_cannot_act_on_the_terminal_and_stays_on_its_line() -> None:
    def talk(peer: Peer) -> None:
        peer.send(unmasked(0x81, b"two\nlines \x1b[2J") + unmasked(0x88, b"\x03\xe8\x1b[2J"))
        peer.read_to_eof()

    with after_handshake(talk) as server:
        ended = run(server.url)
    assert ended.stdout == "two\\nlines \\x1b[2J\n"
    assert ended.stderr.endswith("The connection is closed: 1000 NORMAL \\x1b[2J\n")


def refuse(_: WebSocket) -> None:
    raise Close(1008, "not today")


def vanish(peer: Peer) -> None:
    peer.send(unmasked(0x81, b"last"))


def test_end_by_the_server_ends_the_program_though_its_input_goes_on() -> None:
    with serving(refuse) as server:
        command = [*COMMAND, url_of(server)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
        ) as process:
            assert process.wait(PATIENCE) == 1  # nothing was written to its stdin, nor is it closed
            assert process.stderr
            assert process.stderr.read().endswith("The connection is closed: 1008 "
                                                  "POLICY_VIOLATION not today\n")  # fmt: skip


def test_connection_that_is_lost_is_told_after_what_came_before() -> None:
    with after_handshake(vanish) as server:
        ended = run(server.url, typed=b"")
    assert ended.stdout == "last\n"
    assert "The connection was lost: " in ended.stderr
    assert ended.returncode == 1


def test_options_are_what_the_server_sees() -> None:
    seen: list[WebSocket] = []

    def look(websocket: WebSocket) -> None:
        seen.append(websocket)
        echo_messages(websocket)

    with serving(
        look, subprotocols=["b", "a"], allowed_origins=["http://o.example"], deflate=Deflate()
    ) as server:
        options = "--origin http://o.example --subprotocol a --subprotocol b --deflate".split()
        headers = ["--header", "X-One: 1", "--header", "Cookie:a=b; c=d"]
        ended = run(*options, *headers, "--trace", url_of(server), typed=b"hi\n")
    assert ended.returncode == 0, ended.stderr
    (websocket,) = seen
    assert websocket.headers["Origin"] == "http://o.example"
    assert websocket.headers["X-One"] == "1"
    assert websocket.headers["Cookie"] == "a=b; c=d"
    assert (websocket.subprotocol, websocket.deflate is not None) == ("a", True)
    assert f"Connected to {url_of(server)}, subprotocol a, with compression.\n" in ended.stderr
    assert " sent     GET / HTTP/1.1\n" in ended.stderr
    assert " received 81 02  FIN 1, RSV 000, opcode 0x1 TEXT, MASK 0, length 2" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "URL"),
        (["ws://h/", "--header", "no colon"], 2, "'no colon' is no header"),
        (["http://h/"], 1, "cannot connect to http://h/: "),
        (["ws://127.0.0.1:1/"], 1, "cannot connect to ws://127.0.0.1:1/: "),
        (["ws://127.0.0.1:1/", "--header", "Host: x"], 1, "cannot connect to"),
        (["ws://127.0.0.1:1/", "--origin", "x\ny"], 1, "cannot connect to"),
    ],
)
def test_bad_use_is_told_in_a_line(arguments: list[str], status: int, words: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == status
    assert words in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_certificate_is_checked_unless_it_is_told_not_to(certificate: Certificate) -> None:
    with serving(echo_messages, ssl_context=certificate.server()) as server:
        url = f"wss://localhost:{server.server_port}/"
        refused = run(url)
        ended = run(url, "--insecure", typed=b"hi\n")
    assert refused.returncode == 1
    assert "--insecure connects all the same" in refused.stderr
    assert (ended.returncode, ended.stdout) == (0, "hi\n")


def test_output_that_nobody_reads_any_more_ends_it() -> None:
    with serving(echo_messages) as server:
        ours, theirs = os.pipe()
        os.close(ours)
        ended = subprocess.run(
            [*COMMAND, url_of(server)],
            input=b"hi\n",
            stdout=theirs,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=PATIENCE,
            check=False,
        )
        os.close(theirs)
    assert ended.stderr.endswith(
        b".\ncannot print: Broken pipe\n"
    )  # and no word of a lost connection
    assert ended.returncode == 1


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_program_that_is_started_without_standard_streams_works_without_them(
    closed: tuple[int, ...],
) -> None:
    """As a shell's `>&-` does it."""

    def close() -> None:
        for number in closed:
            os.close(number)

    heard: list[str | bytes] = []

    def listen(websocket: WebSocket) -> None:
        for message in websocket:
            heard.append(message)
            websocket.send(message)

    with serving(listen) as server:
        ended = subprocess.run(
            [*COMMAND, url_of(server), "--trace"],
            input=b"hi\n",
            capture_output=True,
            preexec_fn=close,
            cwd=ROOT,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert heard == ([] if 0 in closed else ["hi"])
    assert ended.stdout == (b"hi\n" if closed == (2,) else b"")
    assert b"Traceback" not in ended.stderr


def test_line_that_could_not_be_sent_any_more_is_told_and_counts_as_a_failure() -> None:
    told = io.StringIO()
    terminal = Terminal(io.StringIO(), io.StringIO(), told)
    with contextlib.closing(terminal), connected_pair("client") as pair:
        talk = Conversation(pair.websocket, terminal)
        pair.say_goodbye()
        assert pair.raised()
        assert talk._status() == 0
        with pytest.raises(ConnectionClosed):
            talk._obey("late")
    assert told.getvalue() == "the connection was closed before this line was sent\n"
    assert talk._status() == 1


def test_ctrl_c_while_a_frame_is_written_ends_the_connection(tmp_path: Path) -> None:
    """The signal comes while the main thread holds the connection's lock."""
    script = tmp_path / "interrupted.py"
    script.write_text("""
import signal, sys
from rfc6455 import __main__, interactive

class Terminal(interactive.Terminal):
    def note_soon(self, text, **options):
        if " sent     81 " in text:
            signal.raise_signal(signal.SIGINT)
        super().note_soon(text, **options)

__main__.Terminal = Terminal
sys.exit(__main__.main())
""")
    with serving(echo_messages) as server:
        ended = subprocess.run(
            [sys.executable, script, url_of(server), "--trace"],
            input=b"hi\n",
            capture_output=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 130, ended.stderr
    assert b"\nThe connection " in ended.stderr


def test_ctrl_c_ends_the_program_though_nobody_reads_its_output() -> None:
    is_closing = threading.Event()

    def greet(websocket: WebSocket) -> None:
        websocket.send("hello")
        for _ in websocket:
            pass
        is_closing.set()

    ours, theirs = full_pipe()
    with serving(greet) as server:
        process = subprocess.Popen(
            [*COMMAND, url_of(server)],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        assert is_closing.wait(PATIENCE)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)

        def interrupt() -> bool:
            process.send_signal(signal.SIGINT)
            return process.poll() is not None

        assert eventually(interrupt)
        _, told = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in told
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("both", [False, True])
def test_pings_are_answered_while_nobody_reads_the_output(both: bool) -> None:
    """Not even the trace, with `both`, as in a pager."""
    ours, theirs = full_pipe()

    def talk(peer: Peer) -> None:
        peer.send(unmasked(0x81, b"hello") + unmasked(0x89, b"1"))
        assert peer.read_frame() == (0x8A, b"1")
        peer.send(unmasked(0x89, b"2"))
        assert peer.read_frame() == (0x8A, b"2")

    with (
        after_handshake(talk) as server,
        subprocess.Popen(
            [*COMMAND, server.url, "--trace"],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs if both else subprocess.DEVNULL,
            cwd=ROOT,
        ) as process,
    ):
        for thread in server.threads:
            thread.join(PATIENCE)
        process.kill()
    os.close(ours)
    os.close(theirs)


def test_lines_that_find_no_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "_MAX_NOTES", 2)
    go_on = threading.Event()
    is_writing = threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            is_writing.set()
            assert go_on.wait(PATIENCE)
            return super().write(text)

    told = Slow()
    with contextlib.closing(Terminal(io.StringIO(), io.StringIO(), told)) as terminal:
        terminal.note_soon("a")
        assert is_writing.wait(PATIENCE)
        for text in "bcde":
            terminal.note_soon(text)
        go_on.set()
        terminal.note("f")
    lost = "2 lines were lost, as the output was read too slowly"
    assert told.getvalue() == f"a\nb\n{lost}\nc\nf\n"


def full_pipe() -> tuple[int, int]:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, bytes(4096))
    os.set_blocking(theirs, True)
    return ours, theirs


# At a terminal


class Screen:
    """A terminal on which the program runs, and somebody who types."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, words: str) -> None:
        """Wait until these words have been written since the last that were waited for."""
        give_up = time.monotonic() + 2 * PATIENCE
        while words not in self.text:
            left = give_up - time.monotonic()
            assert left > 0, f"no {words!r} in {self.text!r}"
            if select.select([self._ours], [], [], left)[0]:
                self.text += os.read(self._ours, 65536).decode()
        self.text = self.text.partition(words)[2]

    def wait(self) -> int:
        """Wait for the end of the program; its exit status."""
        return self.process.wait(2 * PATIENCE)

    def is_as_before(self) -> bool:
        """Whether the terminal echoes again what is typed, and so on."""
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextlib.contextmanager
def screen(*arguments: str) -> Iterator[Screen]:
    with contextlib.closing(Screen(*arguments)) as shown:
        yield shown


def test_typed_line_is_sent_and_its_answer_shown_above_the_next_one() -> None:
    is_next = threading.Event()

    def answer(websocket: WebSocket) -> None:
        for message in websocket:
            assert is_next.wait(PATIENCE)
            websocket.send(message)

    with serving(answer) as server, screen(url_of(server)) as shown:
        shown.wait_for("Ctrl+D to close.")
        shown.wait_for(PROMPT)
        shown.type("hello\n")
        shown.wait_for(PROMPT)
        is_next.set()
        shown.wait_for("\r< hello\x1b8")
        shown.type("/ping\n")
        shown.wait_for("Pong 1 after ")
        is_next.clear()
        shown.type("bye\n")
        shown.wait_for("bye")
        shown.wait_for(PROMPT)  # what is typed before it is not for readline
        shown.type("\x04")
        is_next.set()
        shown.wait_for("\r\nThe connection is closed: 1000 NORMAL")
        assert shown.wait() == 0
        assert shown.is_as_before()


def test_line_that_is_half_typed_stays_while_messages_come() -> None:
    def greet(websocket: WebSocket) -> None:
        assert websocket.receive() == "ready"
        websocket.send("greeting")
        echo_messages(websocket)

    with serving(greet) as server, screen(url_of(server)) as shown:
        shown.wait_for(PROMPT)
        shown.type("ready\nhalf a ")
        shown.wait_for("< greeting")
        shown.type("line\n")
        shown.wait_for("< half a line")


def test_ctrl_c_closes_the_connection_and_the_exit_status_says_so() -> None:
    closed: list[int] = []

    def listen(websocket: WebSocket) -> None:
        echo_messages(websocket)
        closed.append(websocket.close_code)

    with serving(listen) as server, screen(url_of(server)) as shown:
        shown.wait_for(PROMPT)
        shown.type("half a line")
        shown.wait_for("half a line")
        os.kill(shown.process.pid, signal.SIGINT)
        shown.wait_for("\r\nThe connection is closed: 1000 NORMAL")
        assert shown.wait() == 130
        assert shown.is_as_before()
    assert closed == [1000]


def test_end_by_the_server_ends_it_though_a_line_is_half_typed() -> None:
    def leave(websocket: WebSocket) -> None:
        websocket.receive()
        raise Close(4001, "enough")

    with serving(leave) as server, screen(url_of(server)) as shown:
        shown.wait_for(PROMPT)
        shown.type("go\nhalf a line")
        shown.wait_for("\r\nThe connection is closed: 4001 enough")
        assert shown.wait() == 1
        assert shown.is_as_before()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("abc", "\x1b7\n\x1b[1A\x1b[1L\rabc\x1b8\x1b[1B"),
        ("x" * 10, "\x1b7\n\x1b[1A\x1b[1L\r" + "x" * 10 + "\x1b8\x1b[1B"),
        ("x" * 11, "\x1b7\n\n\x1b[2A\x1b[2L\r" + "x" * 11 + "\x1b8\x1b[2B"),
        ("你好你好你好", "\x1b7\n\n\x1b[2A\x1b[2L\r你好你好你好\x1b8\x1b[2B"),
        ("\x1b[36m" + "x" * 10 + "\x1b[0m", None),
        ("a\nb", "\x1b7\n\n\x1b[2A\x1b[2L\ra\nb\x1b8\x1b[2B"),
        ("e\u0301" * 10, None),  # accents of their own, which take no column
        ("x" * 9 + "你", "\x1b7\n\n\x1b[2A\x1b[2L\r" + "x" * 9 + "你\x1b8\x1b[2B"),
        ("x" * 60, "\r\x1b[J" + "x" * 60 + "\n> "),
    ],
)
def test_room_is_made_for_as_many_rows_as_a_text_takes(text: str, written: Any) -> None:
    written = written or f"\x1b7\n\x1b[1A\x1b[1L\r{text}\x1b8\x1b[1B"
    assert above(text, PROMPT, columns=10, lines=5) == written


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("> " + "x" * 7, "\x1b7\n\x1b[1A\x1b[1L\rabc\x1b8\x1b[1B"),
        ("> " + "x" * 8, "\x1b7\n\x1b[2A\x1b[1L\rabc\x1b8\x1b[1B"),  # the cursor is in a new row
        ("> " + "x" * 17, "\x1b7\n\x1b[2A\x1b[1L\rabc\x1b8\x1b[1B"),
        ("> " + "x" * 18, "\x1b7\n\x1b[3A\x1b[1L\rabc\x1b8\x1b[1B"),
        ("> " + "你" * 5, "\x1b7\n\x1b[2A\x1b[1L\rabc\x1b8\x1b[1B"),
        ("> " + "x" * 45, "\r\x1b[4A\x1b[Jabc\n> " + "x" * 45),
    ],
)
def test_text_is_shown_above_all_rows_of_a_long_line(typed: str, written: str) -> None:
    assert above("abc", typed, columns=10, lines=5) == written

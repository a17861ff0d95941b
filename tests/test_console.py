"""Lines and log lines that the programs write: no thread waits for them, no peer can forge one."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import pytest

import console
from console import LineWriter, printable
from peers import PATIENCE, answer_to, close_payload, eventually, masked, shake_hands
from programs import EXIT_TIME, NOISE, ROOT, answer_close, echo, run

# printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("hello, world!你好", "hello, world!你好"),
        ("a\tb \\ 'c' \"d\"", "a\tb \\ 'c' \"d\""),
        ("\U0001f468\u200d\U0001f469 \u263a\ufe0f", "\U0001f468\u200d\U0001f469 \u263a\ufe0f"),
        ("\u3000\u00a0\u00ad\u05d0\u200f\u0627", "\u3000\u00a0\u00ad\u05d0\u200f\u0627"),
        ("a\nReceive: b\r\n", "a\\nReceive: b\\r\\n"),
        ("\x1b[2J\x1b]0;title\x07\x08\x00\x7f", "\\x1b[2J\\x1b]0;title\\x07\\x08\\x00\\x7f"),
        ("\x9b2J\x85\x80\x9f", "\\x9b2J\\x85\\x80\\x9f"),
        ("\x0b\x0c\x1c\x1d\x1e\u2028\u2029", "\\x0b\\x0c\\x1c\\x1d\\x1e\\u2028\\u2029"),
        ("\u202aa\u202eb\u202c\u2066c\u2069", "\\u202aa\\u202eb\\u202c\\u2066c\\u2069"),
        ("\ud83d", "\\ud83d"),
    ],
)  # fmt: skip
def test_printable_escapes_what_would_act_on_a_terminal_and_nothing_else(
    text: str, shown: str
) -> None:
    assert printable(text) == shown
    assert len(printable(text).splitlines()) <= 1


def test_printable_takes_no_more_memory_than_its_result() -> None:
    """A string for each character that is escaped would take 85 bytes for each."""
    text = "\x00" * 1_000_000
    tracemalloc.start()
    try:
        shown = printable(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(shown) == 4_000_000
    assert peak < 16_000_000


# LineWriter


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The file descriptor of a pipe's reading end, and a stream at its writing end."""
    reading, writing = os.pipe()
    try:
        with open(writing, "w", encoding="utf-8") as stream:
            yield reading, stream
    finally:
        os.close(reading)


@pytest.fixture
def writers() -> Iterator[Callable[[TextIO | None], LineWriter]]:
    """Makes writers, and closes them at the end of the test."""
    made: list[LineWriter] = []

    def make(stream: TextIO | None) -> LineWriter:
        made.append(LineWriter(stream, lambda count: f"{count} lost"))
        return made[-1]

    yield make
    for writer in made:
        writer.close()


def read_until(file: int, end: bytes) -> str:
    data = b""
    while not data.endswith(end):
        assert select.select([file], [], [], PATIENCE)[0], data[-200:]
        data += os.read(file, 65536)
    return data.decode()


Make = Callable[[TextIO | None], LineWriter]


def test_writer_writes_lines_whole_and_in_order(writers: Make) -> None:
    with pipe() as (reading, stream):
        writer = writers(stream)
        for number in range(1000):
            writer.write(f"line {number} 你好")
        text = read_until(reading, "line 999 你好\n".encode())
        writer.close()
    assert text == "".join(f"line {number} 你好\n" for number in range(1000))


def test_writer_counts_the_lines_that_nobody_reads_and_waits_for_none(writers: Make) -> None:
    with pipe() as (reading, stream):
        writer = writers(stream)
        count = 40_000
        for number in range(count):
            writer.write(f"{number:099}")
        text = read_until(reading, b" lost\n")
        *lines, last = text.splitlines()
        assert lines == [f"{number:099}" for number in range(len(lines))]
        assert len(lines) >= console.MAX_WAITING // 100 - 1
        assert last == f"{count - len(lines)} lost"
        writer.write("and on it goes")
        assert read_until(reading, b"goes\n") == "and on it goes\n"
        writer.close()


def test_writer_tells_of_lost_lines_before_the_next_line_that_fits(writers: Make) -> None:
    with pipe() as (reading, stream):
        writer = writers(stream)
        first = "x" * (console.MAX_WAITING - 10)
        writer.write(first)
        for _ in range(3):
            writer.write("y" * 100)
        writer.write("z")
        writer.write("y" * 100)
        text = read_until(reading, b"1 lost\n")
        assert text == f"{first}\n3 lost\nz\n1 lost\n"
        writer.close()


def test_writer_takes_one_line_that_is_longer_than_what_may_wait(writers: Make) -> None:
    with pipe() as (reading, stream):
        writer = writers(stream)
        line = "x" * (2 * console.MAX_WAITING)
        writer.write(line)
        assert read_until(reading, b"\n") == line + "\n"
        writer.close()


def test_writer_that_is_closed_waits_for_its_last_lines_but_not_for_ever(writers: Make) -> None:
    with pipe() as (reading, stream):
        writer = writers(stream)
        writer.write("last words")
        writer.close()
        assert select.select([reading], [], [], 0)[0]
        assert os.read(reading, 100) == b"last words\n"
        writer.write("too late")
        assert not select.select([reading], [], [], 0.05)[0]
        stuck = writers(stream)
        stuck.write("x" * 200_000)
        stuck.close()
        while len(os.read(reading, 65536)) == 65536:  # make room, so that the thread ends
            pass


def test_writer_without_a_reader_drops_its_lines_without_an_error(writers: Make) -> None:
    writers(None).write("to nobody")
    with pipe() as (reading, stream):
        writer = writers(stream)
        with open(os.devnull) as other:
            os.dup2(other.fileno(), reading)  # closes the only reading end of the pipe
        for _ in range(100):
            writer.write("to nobody" * 1000)
        writer.close()


def test_writer_waits_for_room_in_a_stream_that_does_not_block(writers: Make) -> None:
    with pipe() as (reading, stream):
        os.set_blocking(stream.fileno(), False)
        writer = writers(stream)
        writer.write("x" * 300_000)
        writer.write("end")
        assert read_until(reading, b"end\n") == "x" * 300_000 + "\nend\n"
        writer.close()


def test_writer_escapes_what_the_streams_encoding_does_not_have(writers: Make) -> None:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="ascii") as stream:
        writer = writers(stream)
        writer.write("你 \ud800")
        assert read_until(reading, b"\n") == "\\u4f60 \\ud800\n"
        writer.close()
    os.close(reading)


def test_writer_that_can_start_no_thread_writes_as_soon_as_it_can(
    writers: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pipe() as (reading, stream):
        writer = writers(stream)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            writer.write("one")
        writer.write("two")
        assert read_until(reading, b"two\n") == "one\ntwo\n"
        writer.close()


# The log


def test_log_lines_begin_with_the_time_and_none_is_made_by_a_peer(tmp_path: Any) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import logging, threading, console\n"
        "console.log_to_stderr()\n"
        "log = logging.getLogger('test')\n"
        "log.info('hello %s', 'wor\\x1bld\\n12:00:00 forged')\n"
        "log.info('%d', 'no number')\n"
        "def fail(): raise ValueError('a\\x1bb')\n"
        "try: fail()\n"
        "except ValueError: log.exception('it failed')\n"
        "thread = threading.Thread(target=fail, name='worker')\n"
        "thread.start(); thread.join()\n",
        encoding="utf-8",
    )
    ended = run("program.py", root=tmp_path)
    assert ended.returncode == 0
    text = ended.stderr.decode()
    first, *rest = text.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d hello wor\\x1bld\\n12:00:00 forged", first)
    assert "TypeError: %d format: a real number is required, not str" in rest
    assert re.search(r"^\d\d:\d\d:\d\d it failed\nTraceback .*\n(  .*\n)+ValueError: a\\x1bb$",
                     text, re.MULTILINE)  # fmt: skip
    assert re.search(r"^\d\d:\d\d:\d\d worker has ended\nTraceback", text, re.MULTILINE)
    assert "\x1b" not in text


# The programs, whose output nobody reads


class Stuck:
    """A server whose output goes to pipes that nobody reads, except the line with its URL."""

    def __init__(self, script: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / script), "--port", "0", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pipesize=4096,
        )
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        self.server_port = int(line.rpartition(":")[2])

    def end(self) -> tuple[int, str, str]:
        """The exit status after SIGTERM, which must come in time, and what the pipes held."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(EXIT_TIME + NOISE)
        out, err = self.process.communicate()
        return status, out.decode(), err.decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def stuck(script: str, *options: str) -> Iterator[Stuck]:
    program = Stuck(script, *options)
    try:
        yield program
    finally:
        program.kill()


@pytest.mark.parametrize(
    ("script", "path"), [("chat_server.py", "/ws"), ("echo_server.py", "/echo")]
)
def test_server_whose_log_nobody_reads_answers_and_ends_in_time(script: str, path: str) -> None:
    with stuck(script) as program:
        server: Any = program
        for _ in range(150):  # the end of each logs a line, and the pipe holds 4 KiB
            with shake_hands(server, path) as peer:
                peer.send(masked(0x88, close_payload(1000)))
                assert peer.read_close() == (1000, "")
        with shake_hands(server, path) as peer:
            program.process.send_signal(signal.SIGTERM)
            assert answer_close(peer)[0] == 1001
        status, _, log = program.end()
        assert status == 0
        assert "Fatal" not in log
        assert all(" closed, 1000" in line for line in log.splitlines()[:-1])


def test_echo_server_whose_lines_nobody_reads_answers_and_ends_in_time() -> None:
    with stuck("echo_server.py") as program:
        server: Any = program
        with shake_hands(server, "/echo") as peer:
            for number in range(200):
                text = b"x" * 100 + str(number).encode()
                peer.send(masked(0x81, text))
                assert peer.read_frame() == (0x81, b"[" + text + b"]")
            peer.send(masked(0x81, b"x" * (3 << 20)))  # more characters than may wait
            assert len(peer.read_frame().payload) == (3 << 20) + 2
            peer.send(masked(0x81, b"y"))
            assert peer.read_frame() == (0x81, b"[y]")
            program.process.send_signal(signal.SIGTERM)
            assert answer_close(peer)[0] == 1001
        status, out, log = program.end()
        assert status == 0, log
        assert "Fatal" not in log
        assert out.startswith("Receive: x")


def test_echo_server_whose_reader_has_gone_answers_and_ends_in_time() -> None:
    with stuck("echo_server.py") as program:
        server: Any = program
        assert program.process.stdout and program.process.stderr
        program.process.stdout.close()
        program.process.stderr.close()
        with shake_hands(server, "/echo") as peer:
            for text in (b"a", b"b", b"c"):
                peer.send(masked(0x81, text))
                assert peer.read_frame() == (0x81, b"[" + text + b"]")
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(EXIT_TIME + NOISE) == 0


def test_server_without_stderr_keeps_its_log_out_of_its_sockets(tmp_path: Any) -> None:
    """Its first socket gets the file descriptor 2, which stderr would have had."""
    command = f'exec "{sys.executable}" "{ROOT / "echo_server.py"}" --port 0 2>&-'
    process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        port = int(process.stdout.readline().decode().rpartition(":")[2])
        server: Any = type("Server", (), {"server_port": port})
        status, text = answer_to(server, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert status == 403
        assert text.startswith("HTTP/1.1 403 ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(EXIT_TIME + NOISE) == 0
    finally:
        process.kill()
        process.communicate()


def test_last_lines_of_the_log_reach_a_reader_that_reads() -> None:
    with echo() as program:
        peers = [program.join("/echo") for _ in range(20)]
        program.signal()
        for peer in peers:
            answer_close(peer)
        assert program.wait() == 0
        assert len(re.findall("closed, 1001 ", program.log)) == 20


# What peers send is shown


def test_echo_server_prints_control_characters_and_line_ends_as_escapes() -> None:
    with echo() as program, program.join("/echo") as peer:
        text = "a\x1b]0;title\x07\nReceive: forged\r\u2028b\x9b2J\u202ec"
        peer.send(masked(0x81, text.encode()))
        assert peer.read_frame() == (0x81, f"[{text}]".encode())
        shown = "a\\x1b]0;title\\x07\\nReceive: forged\\r\\u2028b\\x9b2J\\u202ec"
        expected = f"Receive: {shown}\nSend: [{shown}]\n"
        assert eventually(lambda: "Send" in program.output)
        assert program.output.partition("\n")[2] == expected


def test_server_logs_what_peers_send_as_escapes() -> None:
    with echo() as program:
        request = b"GET /\x1b[2J\x9b HTTP/1.1\r\nHost: a\x1b[2Jb\r\n\r\n"
        for data in (request, b"\x1b[2J\r\n\r\n"):
            program.answer(data)
        with program.join("/echo") as peer:
            peer.send(masked(0x88, b"\x03\xe8" + "a\x1b[2Jb\n\u202ec".encode()))
            peer.read_close()
        eventually(lambda: "closed, 1000" in program.log)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", program.log)
        assert len(program.log.splitlines()) == 3

"""A log line that repeats is written once in ten seconds, and says how often it came."""

import logging
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

import log_repeats
from log_repeats import RepeatLimit
from peers import PATIENCE, close_payload, eventually, masked, request
from programs import answer_close, chat, echo, lines_with


class Log:
    """A log behind a `RepeatLimit`, whose time the test sets; `lines` is what it wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        monkeypatch.setattr(log_repeats, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.limit = RepeatLimit(lambda record: self.lines.append(record.getMessage()))

    def say(self, text: Any, *arguments: Any, level: int = logging.WARNING, **more: Any) -> None:
        record = logging.LogRecord("test", level, "", 0, text, arguments, more.get("exc_info"))
        if self.limit.filter(record):
            self.lines.append(record.getMessage())

    def taken(self) -> list[str]:
        """What was written since the last call."""
        lines = self.lines
        self.lines = []
        return lines


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


def test_first_line_is_written_at_once_and_the_others_as_a_count_every_ten_seconds(
    log: Log,
) -> None:
    for second in range(25):
        log.now = float(second)
        for _ in range(10):
            log.say("cannot accept connections: %s", "Too many open files")
        expected = {
            0: ["cannot accept connections: Too many open files"],
            10: ["cannot accept connections: Too many open files (99 like this in the last 10 s)"],
            20: ["cannot accept connections: Too many open files (100 like this in the last 10 s)"],
        }
        assert log.taken() == expected.get(second, [])
    log.limit.close()
    assert log.taken() == [
        "cannot accept connections: Too many open files (50 like this in the last 4 s)"
    ]
    log.limit.close()
    assert log.taken() == []
    log.say("the end")
    log.say("the end")
    assert log.taken() == ["the end", "the end"]


def test_line_comes_at_once_again_after_ten_seconds_without_it(log: Log) -> None:
    log.say("it is so")
    log.now = 10.0
    log.say("it is so")
    assert log.taken() == ["it is so", "it is so"]


def test_lines_that_differ_in_the_name_of_the_peer_have_one_cause(log: Log) -> None:
    for port in range(1000):
        log.say("%s: dropped: %s", f"192.0.2.1:{port}", "no thread", level=logging.INFO)
    log.now = 10.0
    log.say("something else")
    assert log.taken() == [
        "192.0.2.1:0: dropped: no thread",
        "192.0.2.1:999: dropped: no thread (999 like this in the last 10 s)",
        "something else",
    ]


def test_lines_with_other_details_or_another_level_have_other_causes(log: Log) -> None:
    lines = [("%s: %d", "a", 1), ("%s: %d", "a", 2), ("%s. %d", "a", 1), ("a: 1",), ("100%",)]
    for line in lines:
        log.say(*line)
        log.say(*line, level=logging.ERROR)
        log.say(*line)
    assert log.taken() == ["a: 1"] * 2 + ["a: 2"] * 2 + ["a. 1"] * 2 + ["a: 1"] * 2 + ["100%"] * 2


def test_details_that_a_peer_makes_up_without_end_count_as_one_cause(log: Log) -> None:
    for number in range(10_000):
        log.say("%s: refused, 404 %s", "192.0.2.1:5", f"there is no /{number}")
    log.say("something else")
    assert log.taken() == [
        *[f"192.0.2.1:5: refused, 404 there is no /{number}" for number in range(11)],
        "something else",
    ]
    log.now = 10.0
    log.say("%s: refused, 404 %s", "192.0.2.1:5", "there is no /0")
    assert log.taken() == [
        "192.0.2.1:5: refused, 404 there is no /9999 (9989 like this in the last 10 s)",
        "192.0.2.1:5: refused, 404 there is no /0",
    ]


def test_ends_of_clients_have_a_line_each_unless_they_are_very_many(log: Log) -> None:
    for number in range(10_000):
        log.say("%s: closed, %s", f"192.0.2.1:{number}", "1000")
    assert log.taken() == [f"192.0.2.1:{number}: closed, 1000" for number in range(201)]
    log.now = 10.0
    log.say("%s: closed, %s", "192.0.2.2:5", "1001")
    assert log.taken() == [
        "192.0.2.1:9999: closed, 1000 (9799 like this in the last 10 s)",
        "192.0.2.2:5: closed, 1001",
    ]


def test_reasons_that_a_client_makes_up_without_end_are_counted_together(log: Log) -> None:
    for number in range(10_000):
        log.say("%s: closed, %s", "192.0.2.1:5", f"1000 'reason {number}'")
    assert len(log.taken()) == 211
    log.limit.close()
    assert log.taken() == [
        "192.0.2.1:5: closed, 1000 'reason 9999' (9789 like this in the last 1 s)"
    ]


def test_texts_without_end_take_bounded_memory(log: Log) -> None:
    for number in range(10_000):
        log.say(f"number {number}: {'x' * 2000}")
    assert len(log.taken()) == log_repeats.MAX_CAUSES + 1
    log.limit.close()
    (line,) = log.taken()
    assert line.startswith("number 9999: x") and line.endswith("x (8999 like this in the last 1 s)")
    assert len(line) < 1100


def test_exceptions_are_told_apart_by_where_they_were_raised(log: Log) -> None:
    def fail(number: int) -> None:
        if number % 2:
            raise ValueError(number)
        raise ValueError(number)

    for number in range(6):
        try:
            fail(number)
        except ValueError:
            log.say("%s: the handler failed", f"a:{number}", exc_info=sys.exc_info())
    assert log.taken() == ["a:0: the handler failed", "a:1: the handler failed"]
    log.limit.close()
    assert log.taken() == [
        "a:4: the handler failed (2 like this in the last 1 s)",
        "a:5: the handler failed (2 like this in the last 1 s)",
    ]


def test_mistake_in_a_log_call_is_left_to_the_handler(log: Log) -> None:
    record = logging.LogRecord("test", logging.INFO, "", 0, "%d", ("no number",), None)
    assert log.limit.filter(record)
    assert log.limit.filter(record)


def test_last_count_is_written_although_nothing_else_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_repeats, "REPEAT_TIME", 0.2)
    lines: list[str] = []
    counted = threading.Event()

    def emit(record: logging.LogRecord) -> None:
        lines.append(record.getMessage())
        counted.set()

    limit = RepeatLimit(emit)
    limit.start()
    for _ in range(3):
        limit.filter(logging.LogRecord("test", logging.WARNING, "", 0, "again", (), None))
    assert counted.wait(PATIENCE)
    limit.close()
    assert lines == ["again (2 like this in the last 1 s)"]


# The programs


def test_flood_of_refused_requests_leaves_one_line_and_their_number_at_the_end() -> None:
    with echo() as server:
        for _ in range(50):
            assert server.answer(request(server, "/echo", Origin="http://evil.example"))[0] == 403
        eventually(lambda: lines_with(server, " refused, 403 "))
        server.signal()
        assert server.wait() == 0
        first, last = lines_with(server, " refused, 403 ")
        assert first.endswith('--allow-origin http://evil.example allows it"')
        assert "(49 like this in the last " in last


def test_end_of_each_client_has_a_line_of_its_own() -> None:
    with chat() as server:
        for _ in range(20):
            with server.join("/ws") as peer:
                peer.send(masked(0x88, close_payload(1000)))
                peer.read_close()
        peers = [server.join("/ws") for _ in range(5)]
        server.signal()
        for peer in peers:
            answer_close(peer)
        assert server.wait() == 0
        assert len(lines_with(server, ": closed, 1000")) == 20
        assert len(lines_with(server, ": closed, 1001")) == 5

"""The clock: no deadline is missed because of a race, or because another check failed.

The last section is about the deadlines of a stream, which has its own check.
"""

import contextlib
import heapq
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from peers import PATIENCE, eventually
from programs import ROOT
from rfc6455 import Timeouts
from rfc6455.clock import Clock, Entry
from rfc6455.stream import Stream


class Watched:
    """Notes when it was checked. Each check plans the next one `plan` seconds later."""

    def __init__(self, plan: float = math.inf) -> None:
        self.plan = plan
        self.checks: list[float] = []
        self.checked = threading.Semaphore(0)

    def check(self, now: float) -> float:
        self.checks.append(now)
        self.checked.release()
        return now + self.plan

    def await_check(self) -> None:
        assert self.checked.acquire(timeout=PATIENCE), "the check did not come"


class Slow(Watched):
    """Its first check goes on until `end` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.end = threading.Event()

    def check(self, now: float) -> float:
        again = super().check(now)
        if len(self.checks) == 1:
            self.end.wait(PATIENCE)
        return again


class Failing(Watched):
    def check(self, now: float) -> float:
        super().check(now)
        raise ZeroDivisionError


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    for entry in list(clock._entries):
        clock.forget(entry)


def watch(clock: Clock, watched: Watched, seconds: float) -> Entry:
    entry = clock.watch(watched)
    clock.check_by(entry, time.monotonic() + seconds)
    return entry


def test_clock_checks_when_it_is_due_and_not_before(clock: Clock) -> None:
    watched = Watched()
    began = time.monotonic()
    watch(clock, watched, 0.1)
    watched.await_check()
    assert watched.checks[0] >= began + 0.1


def test_clock_sleeps_until_a_check_is_due(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    rounds = []
    sleep = time.sleep

    def count(seconds: float) -> None:
        if threading.current_thread() is clock._thread:
            rounds.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", count)
    watch(clock, watched, 0.5)
    watched.await_check()
    assert len(rounds) <= 1


def test_check_that_is_moved_to_an_earlier_time_comes_earlier(clock: Clock) -> None:
    watched = Watched()
    entry = watch(clock, watched, 3600)
    clock.check_by(entry, time.monotonic() + 0.05)
    watched.await_check()
    assert entry.when == math.inf


def test_check_that_was_moved_does_not_come_again_at_its_old_time(clock: Clock) -> None:
    watched = Watched()
    other = Watched()
    entry = watch(clock, watched, 0.1)
    clock.check_by(entry, time.monotonic())
    watch(clock, other, 0.2)
    other.await_check()
    assert len(watched.checks) == 1


def test_request_for_a_later_check_does_not_delay_an_earlier_one(clock: Clock) -> None:
    watched = Watched()
    entry = watch(clock, watched, 0.05)
    clock.check_by(entry, time.monotonic() + 3600)
    watched.await_check()


def test_each_check_decides_when_the_next_one_comes(clock: Clock) -> None:
    watched = Watched(plan=0.03)
    watch(clock, watched, 0)
    for _ in range(4):
        watched.await_check()
    pauses = [b - a for a, b in zip(watched.checks, watched.checks[1:], strict=False)]
    assert min(pauses) >= 0.03


def test_check_that_is_asked_for_during_a_check_comes(clock: Clock) -> None:
    slow = Slow()  # whose check returns that it wants no further one
    entry = watch(clock, slow, 0)
    slow.await_check()
    clock.check_by(entry, time.monotonic() + 0.05)
    slow.end.set()
    slow.await_check()


def test_check_that_is_asked_for_during_a_check_comes_before_the_one_that_it_plans(
    clock: Clock,
) -> None:
    slow = Slow()
    slow.plan = 3600
    entry = watch(clock, slow, 0)
    slow.await_check()
    clock.check_by(entry, time.monotonic() + 0.05)
    slow.end.set()
    slow.await_check()


def test_check_that_fails_is_logged_and_tried_again_a_second_later_while_others_go_on(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing()
    other = Watched(plan=0.02)
    watch(clock, failing, 0)
    watch(clock, other, 0)
    for _ in range(3):
        other.await_check()
    for _ in range(2):
        failing.await_check()
    assert failing.checks[1] >= failing.checks[0] + 1.0
    assert "ZeroDivisionError" in caplog.text


def test_clock_does_not_check_what_was_forgotten(clock: Clock) -> None:
    forgotten = Watched()
    other = Watched()
    clock.forget(watch(clock, forgotten, 0.05))
    watch(clock, other, 0.1)
    other.await_check()
    assert not forgotten.checks


def test_thread_ends_when_nothing_is_watched_and_a_new_one_starts_later(clock: Clock) -> None:
    for _ in range(3):
        watched = Watched()
        entry = watch(clock, watched, 0)
        watched.await_check()
        thread = clock._thread
        assert thread
        clock.forget(entry)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_thread_that_waits_for_a_later_check_ends_when_nothing_is_watched(
    clock: Clock,
) -> None:
    entry = watch(clock, Watched(), 3600)
    thread = clock._thread
    assert thread

    def waits() -> bool:
        frame = sys._current_frames().get(thread.ident or 0)
        return frame is not None and frame.f_code is threading.Condition.wait.__code__

    eventually(waits)
    clock.forget(entry)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_thread_that_could_not_start_is_tried_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as scarcity:
        scarcity.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            clock.watch(Watched())
    watched = Watched()
    watch(clock, watched, 0)
    watched.await_check()
    assert len(clock._entries) == 1


def test_heap_stays_small_however_often_a_check_is_moved(clock: Clock) -> None:
    watched = Watched()
    entry = watch(clock, watched, 7200)
    for i in range(10_000):
        clock.check_by(entry, time.monotonic() + 7000 - i / 10)
    assert len(clock._heap) < 200
    assert heapq.nsmallest(1, clock._heap)[0][0] == entry.when


def test_heap_holds_at_most_two_elements_for_each_that_is_watched_and_64_more(
    clock: Clock,
) -> None:
    entries = [watch(clock, Watched(), 7200) for _ in range(50)]
    for _ in range(50):
        clock.watch(Watched())  # which plans no check, and has no element
    sizes = []
    for i in range(1000):
        clock.check_by(entries[i % 50], time.monotonic() + 7000 - i)
        sizes.append(len(clock._heap))
    assert max(sizes) == 2 * 100 + 64
    assert min(sizes[500:]) == 50


@pytest.mark.parametrize("seconds", [1e11, math.inf])
def test_check_that_is_years_away_keeps_no_other_waiting(clock: Clock, seconds: float) -> None:
    """The system takes no timeout of years: it would end the thread."""
    watch(clock, Watched(), seconds)
    soon = Watched()
    watch(clock, soon, 0.05)
    eventually(lambda: soon.checks)
    assert clock._thread
    assert clock._thread.is_alive()


def test_check_is_due_at_its_very_time_and_not_before(clock: Clock) -> None:
    entry = watch(clock, Watched(), 7200)
    with clock._lock:
        when = entry.when
        assert clock._take_due(math.nextafter(when, 0)) == []
        assert clock._take_due(when) == [entry]
        assert clock._heap == []


def test_only_a_check_before_all_others_wakes_the_thread(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [clock.watch(Watched()) for _ in range(4)]
    woken = []
    monkeypatch.setattr(clock._changed, "notify", lambda: woken.append(clock._heap[0].entry))
    when = time.monotonic() + 7200
    for entry, seconds in zip(entries, (0, 0, 1, -1), strict=True):
        clock.check_by(entry, when + seconds)
    monkeypatch.undo()
    assert woken == [entries[0], entries[3]]


def test_request_that_changes_nothing_leaves_nothing_in_the_heap(clock: Clock) -> None:
    entry = clock.watch(Watched())
    clock.check_by(entry, math.inf)
    assert clock._heap == []
    when = time.monotonic() + 7200
    for _ in range(3):
        clock.check_by(entry, when)
    assert len(clock._heap) == 1


def test_heap_stays_small_however_much_is_forgotten(clock: Clock) -> None:
    watch(clock, Watched(), 7200)
    for _ in range(10_000):
        clock.forget(watch(clock, Watched(), 3600))
    assert len(clock._heap) < 200


def test_everything_is_checked_however_much_comes_and_goes_at_once(clock: Clock) -> None:
    everyone: list[Watched] = []

    def come_and_go() -> None:
        for i in range(300):
            watched = Watched()
            everyone.append(watched)
            entry = watch(clock, watched, 3600)
            clock.check_by(entry, time.monotonic() + (i % 7) / 1000)
            if i % 3 == 0:
                clock.forget(watch(clock, Watched(), 0.001))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # seconds; threads then take turns in the middle of everything
    try:
        threads = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for watched in everyone:
        watched.await_check()


# A stream's deadlines


@contextlib.contextmanager
def stream(timeouts: Timeouts | None = None) -> Iterator[Stream]:
    """A stream whose peer neither sends nor reads."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = Stream(ours, timeouts or Timeouts())
        try:
            yield made
        finally:
            made.close()


def test_deadline_set_while_the_stream_is_checked_is_kept() -> None:
    checking = threading.Event()
    go_on = threading.Event()

    def on_check(now: float) -> float:
        checking.set()
        go_on.wait(PATIENCE)
        return math.inf

    with stream() as waiting:
        waiting.watch(on_check)
        waiting.check_within(0)
        assert checking.wait(PATIENCE)
        waiting.set_deadline(0.05, "too long")
        go_on.set()
        eventually(lambda: waiting.lost)
        assert waiting.lost == "too long"


def test_deadline_of_a_stream_whose_check_fails_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    def on_check(now: float) -> float:
        raise ZeroDivisionError

    with stream() as failing, stream() as other:
        failing.watch(on_check)
        failing.check_within(0)
        eventually(lambda: caplog.records)
        failing.set_deadline(0.05, "too long")
        other.set_deadline(0.05, "too long")
        eventually(lambda: failing.lost)
        eventually(lambda: other.lost)
    assert caplog.records[0].levelno == logging.ERROR


def test_stream_whose_clock_cannot_start_raises_oserror_and_the_next_one_has_deadlines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    eventually(lambda: all(t.name != "rfc6455-clock" for t in threading.enumerate()))
    with monkeypatch.context() as scarcity:
        scarcity.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="can't start new thread"), stream():
            pass
    with stream() as waiting:
        waiting.set_deadline(0.05, "too long")
        eventually(lambda: waiting.lost)


FORKED = """
import os, socket, sys, time
from rfc6455 import Timeouts
from rfc6455.stream import Stream

def has_deadlines():
    ours, theirs = socket.socketpair()
    stream = Stream(ours, Timeouts())
    stream.set_deadline(0.1, "too long")
    return stream.read(1) == b"" and stream.lost == "too long"

ours, theirs = socket.socketpair()
stream = Stream(ours, Timeouts())  # the clock runs
stream.set_deadline(0.5, "only the parent has this deadline")
child = os.fork()
if child == 0:
    fine = has_deadlines()
    time.sleep(1)  # until after the parent's deadline, which the child must not have
    os._exit(0 if fine else 1)
stream.set_deadline(3600, "")
_, status = os.waitpid(child, 0)
assert has_deadlines()
theirs.send(b"x")
assert stream.read(1) == b"x"  # the child has not shut down the parent's socket
stream.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


ENDS = """
import socket
from rfc6455 import Timeouts
from rfc6455.stream import Stream

ours, theirs = socket.socketpair()
stream = Stream(ours, Timeouts())
with stream.lock:
    stream.put(bytes(10_000_000))  # for a peer that does not read
assert stream.is_draining
"""


def test_program_ends_though_connections_are_open_and_something_waits_for_a_peer() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDS],
        cwd=ROOT,
        timeout=2 * PATIENCE,
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on Windows")
def test_child_process_has_deadlines_of_its_own() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        cwd=ROOT,
        timeout=2 * PATIENCE,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr

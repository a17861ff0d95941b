"""How a client that says too much is slowed, and told: with a clock of the test, and in a chat."""

import time

import pytest

from chat.pace import Pace
from chatting import (
    ask_older,
    assert_here,
    hear_all_said,
    hear_said,
    hear_texts,
    resume,
    say,
)
from programs import chat
from rfc6455 import ConnectionClosed


class Clock:
    """Stands still but for what is slept, and for what a test adds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_as_much_as_fits_in_three_seconds_is_free_and_then_each_message_waits(clock: Clock) -> None:
    pace = Pace(2)
    for _ in range(9):
        pace.wait()
    assert clock.slept == [0, 0, 0, 0, 0, 0, 0, 0.5, 0.5]


def test_client_that_was_silent_may_burst_again_but_not_for_longer(
    clock: Clock,
) -> None:
    pace = Pace(1)
    for _ in range(6):
        pace.wait()
    clock.now += 3600
    clock.slept.clear()
    for _ in range(6):
        pace.wait()
    assert clock.slept == [0, 0, 0, 0, 1, 1]


def test_client_at_exactly_the_rate_never_waits(clock: Clock) -> None:
    pace = Pace(4)
    for _ in range(100):
        pace.wait()
        clock.now += 0.25
    assert set(clock.slept) == {0}


def test_message_after_the_burst_makes_only_the_next_one_wait(clock: Clock) -> None:
    pace = Pace(0.1)
    pace.wait()
    assert clock.slept == [0]
    clock.now += 2
    pace.wait()
    assert clock.slept == [0, 5]  # 10 s for each message, less the 3 s of the burst


def test_rate_of_zero_is_no_limit(clock: Clock) -> None:
    pace = Pace(0)
    for _ in range(1000):
        pace.wait()
    assert clock.slept == []


def test_client_is_told_before_the_wait_and_again_after_ten_seconds_at_the_earliest(
    clock: Clock,
) -> None:
    told: list[tuple[float, str]] = []
    pace = Pace(0.5, post=lambda event: told.append((clock.now - 1000, event)))
    for _ in range(14):
        pace.wait()
    event = '{"event":"slowed","rate":0.5}'
    # The first message that waits is sent after one second, and each other one after two more.
    assert told == [(0, event), (11, event), (21, event)]


def test_client_that_is_within_the_rate_is_told_nothing(clock: Clock) -> None:
    told: list[str] = []
    for rate in (0, 4):
        pace = Pace(rate, post=told.append)
        for _ in range(100):
            pace.wait()
            clock.now += 0.25
    assert told == []


def test_client_that_has_gone_is_not_told_and_its_messages_still_wait(clock: Clock) -> None:
    def fail(_: str) -> None:
        raise ConnectionClosed(1006, "gone")

    pace = Pace(1, post=fail)
    for _ in range(5):
        pace.wait()
    assert clock.slept == [0, 0, 0, 0, 1]


# Over the wire


def test_client_that_can_resume_is_told_at_once_that_its_next_message_waits() -> None:
    """At this rate that message is sent after seven seconds."""
    with chat("--rate", "0.1") as server, resume(server) as ada, resume(server) as bob:
        say(ada, "first")
        assert hear_said(ada)["message"] == hear_said(bob)["message"] == "first"
        say(ada, "second")
        assert hear_said(ada) == {"event": "slowed", "rate": 0.1}
        assert_here(bob)


def test_client_that_is_told_once_loses_nothing() -> None:
    with chat("--rate", "50") as server, resume(server) as ada:
        for number in range(200):
            say(ada, str(number))
        heard = hear_all_said(ada, 201)
        assert [each["message"] for each in heard if "message" in each] == list(
            map(str, range(200))
        )
        assert [each for each in heard if "event" in each] == [{"event": "slowed", "rate": 50}]


def test_plain_client_is_slowed_without_an_event() -> None:
    with chat("--rate", "50") as server, server.join() as ada:
        for number in range(200):
            say(ada, str(number))
        assert hear_texts(ada, 200) == list(map(str, range(200)))


def test_client_that_asks_for_too_much_is_told_that_it_is_slowed() -> None:
    with chat("--rate", "0.1") as server, resume(server) as ada:
        for _ in range(2):
            ask_older(ada, "7")
        assert hear_said(ada)["event"] == "older"
        assert hear_said(ada) == {"event": "slowed", "rate": 0.1}

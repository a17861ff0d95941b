"""How a client that says too much is slowed: each wait by its length, with a clock of the test."""

import time

import pytest

from chat.pace import Pace


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

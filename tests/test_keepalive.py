"""Keepalive as tables, without a socket and without a clock (RFC 6455, 5.5.2).

A Ping goes out after 20 s of silence, its answer has 10 s, and the connection was opened at 0. What
this means for a connection is in `test_connection_busy`.
"""

import math

import pytest

from rfc6455.keepalive import ControlPace, Keepalive, MessageTime, Verdict

PING, WAIT, GIVE_UP = Verdict.PING, Verdict.WAIT, Verdict.GIVE_UP
MEGABYTE = 64 * 16384  # bytes; a peer has a second to read each 16 KiB


class Looks:
    """One connection's keepalive, checked again and again."""

    def __init__(self) -> None:
        self._keepalive = Keepalive(ping_interval=20.0, ping_timeout=10.0, now=0.0)

    def check(
        self, now: float, heard: float, *, pongs: int = 0, written: int = 0, unread: bool = False
    ) -> tuple[Verdict, float]:
        return self._keepalive.check(
            now, heard_at=heard, pongs=pongs, written=written, unread=unread
        )


def test_peer_that_speaks_is_not_pinged() -> None:
    made = Looks()
    assert made.check(5.0, heard=4.0) == (WAIT, 24.0)
    assert made.check(24.0, heard=23.0, written=1000) == (WAIT, 43.0)


def test_silent_peer_is_pinged_and_given_up_at_the_second_check_after_its_time() -> None:
    made = Looks()
    assert made.check(19.0, heard=0.0) == (WAIT, 20.0)
    assert made.check(20.0, heard=0.0) == (PING, 30.0)
    assert made.check(29.0, heard=0.0, written=2) == (WAIT, 30.0)
    assert made.check(30.0, heard=0.0, written=2) == (WAIT, 30.5)
    assert made.check(30.5, heard=0.0, written=2) == (GIVE_UP, math.inf)


@pytest.mark.parametrize("heard", [20.0, 25.0, 30.4])
def test_peer_of_which_anything_was_heard_after_the_ping_is_kept(heard: float) -> None:
    made = Looks()
    assert made.check(20.0, heard=0.0) == (PING, 30.0)
    assert made.check(30.0, heard=0.0, written=2) == (WAIT, 30.5)
    assert made.check(30.5, heard=heard, written=2) == (WAIT, heard + 20.0)


def test_peer_is_given_a_second_for_each_16_kib_before_the_ping() -> None:
    made = Looks()
    assert made.check(20.0, heard=1.0, written=MEGABYTE) == (PING, 40.0)
    assert made.check(93.0, heard=1.0, written=MEGABYTE) == (PING, 94.0)
    assert made.check(94.0, heard=1.0, written=MEGABYTE) == (WAIT, 94.5)
    assert made.check(94.5, heard=1.0, written=MEGABYTE) == (GIVE_UP, math.inf)


def test_slow_peer_is_pinged_again_and_again_while_it_is_waited_for() -> None:
    made = Looks()
    pinged = [
        now
        for now in range(20, 200, 10)
        if made.check(float(now), heard=1.0, written=16 * MEGABYTE)[0] is PING
    ]
    assert pinged == [20, 50, 70, 90, 110, 130, 150, 170, 190]


def test_only_a_pong_proves_what_was_read() -> None:
    made = Looks()
    assert made.check(20.0, heard=0.0, written=MEGABYTE) == (PING, 40.0)
    # The peer speaks, and then is silent: that it has a megabyte to read still counts.
    assert made.check(41.0, heard=21.0, written=MEGABYTE) == (PING, 61.0)
    assert made.check(100.0, heard=21.0, written=MEGABYTE) == (PING, 115.0)
    assert made.check(100.5, heard=21.0, written=MEGABYTE) == (WAIT, 115.0)
    # Now there was a Pong.
    late = MEGABYTE + 16384
    assert made.check(130.0, heard=101.0, pongs=1, written=late) == (PING, 141.0)
    assert made.check(141.0, heard=101.0, pongs=1, written=late) == (WAIT, 141.5)
    assert made.check(142.0, heard=101.0, pongs=1, written=late) == (GIVE_UP, math.inf)


def test_pong_that_nobody_has_asked_for_proves_nothing() -> None:
    made = Looks()
    assert made.check(1.0, heard=1.0, pongs=1, written=65537) == (WAIT, 20.0)
    assert made.check(2.0, heard=2.0, pongs=2, written=65536) == (WAIT, 22.0)


def test_talkative_peer_is_asked_how_far_it_has_read_once_much_was_written() -> None:
    made = Looks()
    assert made.check(5.0, heard=4.0, written=65537) == (WAIT, 20.0)
    made = Looks()
    assert made.check(20.0, heard=19.0, written=65536) == (WAIT, 39.0)
    assert made.check(21.0, heard=20.5, written=5 * 16384) == (PING, 36.0)
    assert made.check(42.0, heard=41.0, pongs=1, written=5 * 16384 + 463) == (WAIT, 61.0)


def test_silence_proves_nothing_while_this_side_does_not_read() -> None:
    made = Looks()
    assert made.check(20.0, heard=0.0) == (PING, 30.0)
    assert made.check(30.0, heard=0.0, written=2, unread=True) == (WAIT, 50.0)
    pinged = [
        now
        for now in range(30, 120, 5)
        if made.check(float(now), heard=0.0, written=2, unread=True)[0] is PING
    ]
    assert pinged == [50, 70, 90, 110]
    # It reads again, and has heard nothing: that takes two checks, too.
    assert made.check(300.0, heard=0.0, written=2) == (WAIT, 300.5)
    assert made.check(300.5, heard=0.0, written=2) == (GIVE_UP, math.inf)


# The time for a message


def test_message_has_its_time_and_a_second_for_each_16384_bytes() -> None:
    made = MessageTime(60.0)
    assert made.due == math.inf
    made.begin_wait(100.0, 0)
    assert made.due == 160.0
    made.end_wait(110.0)
    assert made.due == math.inf
    made.begin_wait(110.0, 16384)
    assert made.due == 161.0
    made.end_wait(161.0)
    made.begin_wait(161.0, 64 * 16384)
    assert made.due == 224.0


def test_time_in_which_nobody_waits_for_the_message_does_not_count() -> None:
    made = MessageTime(60.0)
    made.begin_wait(100.0, 0)
    made.end_wait(150.0)
    made.begin_wait(1000.0, 0)
    assert made.due == 1010.0
    made.end_wait(1005.0)
    made.begin_message()
    made.begin_wait(1005.0, 0)
    assert made.due == 1065.0


def test_peer_may_send_a_thousand_control_frames_a_second_and_as_many_at_once() -> None:
    pace = ControlPace()
    for second in range(10):
        assert pace.count(float(second), 1000 * second) == 0
    assert pace.count(100.0, 10_000) == 0
    assert not pace.is_behind
    assert pace.count(100.0, 10_100) == pytest.approx(0.1)
    assert pace.is_behind
    assert pace.count(100.0625, 10_100) == pytest.approx(0.0375)
    assert pace.count(100.125, 10_100) == 0
    assert not pace.is_behind


def test_peer_that_has_sent_far_too_many_control_frames_is_waited_for_in_short_turns() -> None:
    pace = ControlPace()
    assert pace.count(100.0, 11_000) == 0.25
    for turn in range(1, 40):
        assert pace.count(100.0 + turn / 4, 11_000) == 0.25
    assert pace.count(110.0, 11_000) == 0

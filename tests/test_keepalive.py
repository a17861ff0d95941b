"""Keepalive as tables, without a socket and without a clock (RFC 6455, 5.5.2).

A Ping goes out after 20 s of silence, its answer has 10 s, and the connection was opened at 0. What
this means for a connection is in `test_connection_busy`.
"""

import math

import pytest

from rfc6455.keepalive import Keepalive, Verdict

PING, WAIT, GIVE_UP = Verdict.PING, Verdict.WAIT, Verdict.GIVE_UP


def keepalive() -> Keepalive:
    return Keepalive(ping_interval=20.0, ping_timeout=10.0, now=0.0)


def test_peer_that_speaks_is_not_pinged() -> None:
    made = keepalive()
    assert made.look(5.0, heard_at=4.0, pongs=0, written=0, unread=False) == (WAIT, 24.0)
    assert made.look(24.0, heard_at=23.0, pongs=0, written=1000, unread=False) == (WAIT, 43.0)


def test_silent_peer_is_pinged_and_given_up_at_the_second_look_after_its_time() -> None:
    made = keepalive()
    assert made.look(20.0, heard_at=0.0, pongs=0, written=0, unread=False) == (PING, 30.0)
    assert made.look(29.0, heard_at=0.0, pongs=0, written=2, unread=False) == (WAIT, 30.0)
    assert made.look(30.0, heard_at=0.0, pongs=0, written=2, unread=False) == (WAIT, 30.5)
    assert made.look(30.5, heard_at=0.0, pongs=0, written=2, unread=False) == (GIVE_UP, math.inf)


@pytest.mark.parametrize("heard_at", [20.0, 25.0, 30.4])
def test_peer_of_which_anything_was_heard_after_the_ping_is_kept(heard_at: float) -> None:
    made = keepalive()
    made.look(20.0, heard_at=0.0, pongs=0, written=0, unread=False)
    made.look(30.0, heard_at=0.0, pongs=0, written=2, unread=False)
    expected = (WAIT, heard_at + 20.0)
    assert made.look(30.5, heard_at=heard_at, pongs=0, written=2, unread=False) == expected


def test_peer_is_given_a_second_for_each_16_kib_before_the_ping() -> None:
    made = keepalive()
    megabyte = 64 * 16384
    assert made.look(20.0, heard_at=1.0, pongs=0, written=megabyte, unread=False) == (PING, 40.0)
    assert made.look(93.0, heard_at=1.0, pongs=0, written=megabyte, unread=False)[0] is not GIVE_UP
    assert made.look(94.0, heard_at=1.0, pongs=0, written=megabyte, unread=False) == (WAIT, 94.5)
    assert made.look(94.5, heard_at=1.0, pongs=0, written=megabyte, unread=False)[0] is GIVE_UP


def test_slow_peer_is_pinged_again_and_again_while_it_is_waited_for() -> None:
    made = keepalive()
    pinged = [
        now
        for now in range(20, 200, 10)
        if made.look(float(now), heard_at=1.0, pongs=0, written=1 << 24, unread=False)[0] is PING
    ]
    assert pinged == [20, 50, 70, 90, 110, 130, 150, 170, 190]


def test_only_a_pong_proves_what_was_read() -> None:
    made = keepalive()
    megabyte = 64 * 16384
    assert made.look(20.0, heard_at=0.0, pongs=0, written=megabyte, unread=False)[0] is PING
    # The peer speaks, and then is silent: that it has a megabyte to read still counts.
    assert made.look(41.0, heard_at=21.0, pongs=0, written=megabyte, unread=False)[0] is PING
    assert (
        made.look(100.0, heard_at=21.0, pongs=0, written=megabyte, unread=False)[0] is not GIVE_UP
    )
    assert made.look(130.0, heard_at=101.0, pongs=1, written=megabyte + 10, unread=False)[0] is PING
    assert made.look(141.0, heard_at=101.0, pongs=1, written=megabyte + 10, unread=False)[0] is WAIT
    assert (
        made.look(142.0, heard_at=101.0, pongs=1, written=megabyte + 10, unread=False)[0] is GIVE_UP
    )


def test_talkative_peer_is_asked_how_far_it_has_read_once_much_was_written() -> None:
    made = keepalive()
    assert made.look(20.0, heard_at=19.0, pongs=0, written=65536, unread=False) == (WAIT, 39.0)
    assert made.look(21.0, heard_at=20.5, pongs=0, written=65537, unread=False)[0] is PING
    assert made.look(42.0, heard_at=41.0, pongs=1, written=66000, unread=False) == (WAIT, 61.0)


def test_silence_proves_nothing_while_this_side_does_not_read() -> None:
    made = keepalive()
    made.look(20.0, heard_at=0.0, pongs=0, written=0, unread=False)
    for now in range(30, 300, 5):
        assert (
            made.look(float(now), heard_at=0.0, pongs=0, written=2, unread=True)[0] is not GIVE_UP
        )

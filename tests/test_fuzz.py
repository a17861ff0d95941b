"""Random bytes to both sides, and what strangers make of the same bytes (RFC 6455, 10.7).

An input is a stream of frames, whole or damaged and cut anywhere, or the head of an opening
handshake. Our layer reads a stream in several ways that have to agree. wsproto and websockets read
it, too: they have to find the same messages and the same close code, or differ for a reason that
is known. What our side sends is read by a stranger. Some inputs go over loopback TCP, where nothing
may hang, leak, or be logged as an error. The harness is the package `fuzzing`.

    python3 tests/test_fuzz.py 1000000         checks that many inputs, on two cores
    python3 tests/test_fuzz.py 1 --first N     checks the input of number N again
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script finds rfc6455 so

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzing.batches import check_batch
from fuzzing.checks import check_endpoint, check_heads, check_stream
from fuzzing.command import main
from fuzzing.generator import (
    AGREEMENTS,
    PLAIN_RESPONSE,
    REQUEST,
    RESPONSE,
    ROLES,
    cut,
    frame_to,
    good_frames,
    head_of,
    random_head,
    random_input,
)
from fuzzing.network import AGREEMENTS as AGREEMENTS_OVER_TCP
from fuzzing.network import Network
from fuzzing.ours import read_stream
from fuzzing.outcomes import OPEN, Input, Outcome, as_bytes, message_event, other
from fuzzing.strangers import STRANGERS
from rfc6455 import Deflate

LONG = bool(os.environ.get("RUN_LONG"))

requirement = pytest.mark.requirement
# No deadline: no test measures speed, and a busy machine is no fault of the code.
few = settings(max_examples=5000 if LONG else 30, deadline=None)
seeds = st.integers(0, 1 << 64)  # for inputs that hypothesis would be slow to make draw by draw
randoms = st.randoms(use_true_random=False)
roles = st.sampled_from(ROLES)
agreements = st.sampled_from(AGREEMENTS)
messages = st.lists(st.text(max_size=60) | st.binary(max_size=200), max_size=5)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network
    network.check_no_error()


@requirement("10.7-1")
@few
@given(data=st.binary(max_size=200))
def test_server_answers_any_bytes_with_http_or_ends_the_connection(
    network: Network, data: bytes
) -> None:
    network.check_bytes(data)


@requirement("10.7-1", "4.2.1-1")
@few
@given(r=randoms)
def test_server_answers_a_damaged_handshake_with_http_or_ends_the_connection(
    network: Network, r: random.Random
) -> None:
    network.check_bytes(random_head(REQUEST, r))


@requirement("10.7-1")
@few
@given(data=st.binary(max_size=200), agreed=st.sampled_from(AGREEMENTS_OVER_TCP))
def test_server_ends_a_connection_of_any_bytes_with_a_close_or_eof(
    network: Network, data: bytes, agreed: Deflate | None
) -> None:
    network.check_stream(Input("server", agreed, [data]))


@requirement("10.7-1")
@few
@given(seed=seeds)
def test_server_makes_of_a_damaged_stream_over_tcp_what_it_makes_of_it_without(
    network: Network, seed: int
) -> None:
    network.check_stream(random_input(random.Random(seed), AGREEMENTS_OVER_TCP, ("server",)))


@requirement("10.7-1")
@few
@given(data=st.binary(max_size=200))
def test_client_ends_whatever_answers_its_handshake(network: Network, data: bytes) -> None:
    network.check_client(data, b"")


@requirement("10.7-1")
@few
@given(r=randoms)
def test_client_ends_a_damaged_handshake_and_any_bytes_after_it(
    network: Network, r: random.Random
) -> None:
    stream = b"".join(random_input(r, (None,), ("client",)).pieces)
    network.check_client(random_head(RESPONSE, r), stream)
    network.check_client(head_of(PLAIN_RESPONSE), stream)


@requirement("10.7-1")
@few
@given(r=randoms)
def test_functions_of_the_handshake_raise_nothing_unforeseen(r: random.Random) -> None:
    check_heads(r)


@requirement("2.1-2", "5.4-1", "5.4-2", "5.4-3", "D6.2-1")
@few
@given(messages=messages, role=roles, agreed=agreements, seed=seeds)
def test_messages_cut_anyhow_arrive_as_they_do_at_strangers(
    messages: list[str | bytes], role: str, agreed: Deflate | None, seed: int
) -> None:
    r = random.Random(seed)
    frames, expected = good_frames(messages, role, agreed, r)
    check_stream(Input(role, agreed, cut(b"".join(frames), r), expected))


@requirement("10.7-1")
@few
@given(r=randoms)
def test_damaged_streams_end_as_they_do_at_strangers_or_for_a_known_reason(
    r: random.Random,
) -> None:
    check_stream(random_input(r))


@requirement("10.7-1")
@few
@given(data=st.binary(max_size=100), role=roles, agreed=agreements)
def test_any_bytes_end_as_they_do_at_strangers_or_for_a_known_reason(
    data: bytes, role: str, agreed: Deflate | None
) -> None:
    check_stream(Input(role, agreed, [data]))


@requirement("D6.1-1", "D7.2.1-1")
@few
@given(messages=messages, role=roles, agreed=agreements, repeat=st.integers(1, 9))
def test_strangers_read_what_we_send(
    messages: list[str | bytes], role: str, agreed: Deflate | None, repeat: int
) -> None:
    messages = [each * repeat for each in messages]
    plain = b"".join(
        frame_to(role, 0x81 if isinstance(each, str) else 0x82, as_bytes(each), random.Random(0))
        for each in messages
    )
    sent = check_endpoint(Input(role, agreed, [plain]), read_stream(role, agreed, [plain]))
    wanted = Outcome([message_event(message) for message in messages], OPEN)
    for stranger in STRANGERS.values():
        assert stranger(other(role), agreed, [sent]) == wanted


@requirement("10.7-1")
def test_numbered_inputs_neither_fail_nor_leak() -> None:
    count = 200_000 if LONG else 1000
    tally = check_batch(range(count))
    assert not tally.failure_reports, tally.failure_reports[0]
    assert not tally.unchecked_reports, tally.unchecked_reports[0]
    assert not tally.leaks
    assert tally.passed.total() == count


if __name__ == "__main__":
    sys.exit(main())

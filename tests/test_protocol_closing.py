"""The closing handshake, failing and the end, without a socket (RFC 6455, 5.5.1, 7).

First the whole state machine in one table, then the rules one by one.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

import pytest

from protocols import Cut, Endpoint, assert_fails, both_roles, hex_or_bytes, however_it_arrives
from rfc6455 import ConnectionClosed, State

OPEN = State.OPEN
CLOSE_SENT = State.CLOSE_SENT
CLOSE_EXCHANGED = State.CLOSE_EXCHANGED
FAILED = State.FAILED
CLOSED = State.CLOSED

# The state machine: every state, everything that may happen in it


def our_close(endpoint: Endpoint) -> None:
    endpoint.protocol.close(4000, "bye")


def close(endpoint: Endpoint) -> None:
    endpoint.feed("88 02 0fa1")


def bad_frame(endpoint: Endpoint) -> None:
    endpoint.feed("83 00")


def end_of_tcp(endpoint: Endpoint) -> None:
    """The peer has ended its direction of TCP, or it was lost."""
    endpoint.protocol.receive_eof("the end of TCP")


def ping(endpoint: Endpoint) -> None:
    endpoint.feed("89 01 70")


def pong(endpoint: Endpoint) -> None:
    endpoint.feed("8a 01 70")


def data(endpoint: Endpoint) -> None:
    endpoint.feed("81 02 6869")


def tcp_has_ended(endpoint: Endpoint) -> None:
    """TCP has ended in both directions."""
    endpoint.protocol.tcp_ended()


Event = Callable[[Endpoint], None]

# The ways into each state. What is sent on the way is not looked at here.
WAYS: dict[State, list[list[Event]]] = {
    OPEN: [[], [data, ping, pong]],
    CLOSE_SENT: [[our_close], [data, our_close, data, ping]],
    CLOSE_EXCHANGED: [[close], [our_close, close]],
    FAILED: [[bad_frame], [end_of_tcp], [our_close, bad_frame], [our_close, end_of_tcp]],
    CLOSED: [
        [tcp_has_ended],
        [our_close, tcp_has_ended],
        [close, tcp_has_ended],
        [bad_frame, tcp_has_ended],
    ],
}


class Row(NamedTuple):
    """In this state this happens."""

    before: State
    event: Event
    after: State
    sent: str | bytes = b""
    received: tuple[str, ...] = ()
    may_send: bool = False  # else sending raises ConnectionClosed


WHY = b"\x88\x18\x03\xeaopcode 0x3 is reserved"

STATE_MACHINE = [
    Row(OPEN, our_close, CLOSE_SENT, sent="88 05 0fa0 627965"),
    Row(OPEN, close, CLOSE_EXCHANGED, sent="88 02 0fa1"),
    Row(OPEN, bad_frame, FAILED, sent=WHY),
    Row(OPEN, end_of_tcp, FAILED),
    Row(OPEN, ping, OPEN, sent="8a 01 70", may_send=True),
    Row(OPEN, pong, OPEN, may_send=True),
    Row(OPEN, data, OPEN, received=("hi",), may_send=True),
    Row(OPEN, tcp_has_ended, CLOSED),
    #
    Row(CLOSE_SENT, our_close, CLOSE_SENT),
    Row(CLOSE_SENT, close, CLOSE_EXCHANGED),
    Row(CLOSE_SENT, bad_frame, FAILED),
    Row(CLOSE_SENT, end_of_tcp, FAILED),
    Row(CLOSE_SENT, ping, CLOSE_SENT, sent="8a 01 70"),
    Row(CLOSE_SENT, pong, CLOSE_SENT),
    Row(CLOSE_SENT, data, CLOSE_SENT, received=("hi",)),
    Row(CLOSE_SENT, tcp_has_ended, CLOSED),
    #
    Row(CLOSE_EXCHANGED, our_close, CLOSE_EXCHANGED),
    Row(CLOSE_EXCHANGED, close, CLOSE_EXCHANGED),
    Row(CLOSE_EXCHANGED, bad_frame, CLOSE_EXCHANGED),
    Row(CLOSE_EXCHANGED, end_of_tcp, CLOSE_EXCHANGED),
    Row(CLOSE_EXCHANGED, ping, CLOSE_EXCHANGED),
    Row(CLOSE_EXCHANGED, pong, CLOSE_EXCHANGED),
    Row(CLOSE_EXCHANGED, data, CLOSE_EXCHANGED),
    Row(CLOSE_EXCHANGED, tcp_has_ended, CLOSED),
    #
    Row(FAILED, our_close, FAILED),
    Row(FAILED, close, FAILED),
    Row(FAILED, bad_frame, FAILED),
    Row(FAILED, end_of_tcp, FAILED),
    Row(FAILED, ping, FAILED),
    Row(FAILED, pong, FAILED),
    Row(FAILED, data, FAILED),
    Row(FAILED, tcp_has_ended, CLOSED),
    #
    Row(CLOSED, our_close, CLOSED),
    Row(CLOSED, close, CLOSED),
    Row(CLOSED, bad_frame, CLOSED),
    Row(CLOSED, end_of_tcp, CLOSED),
    Row(CLOSED, ping, CLOSED),
    Row(CLOSED, pong, CLOSED),
    Row(CLOSED, data, CLOSED),
    Row(CLOSED, tcp_has_ended, CLOSED),
]


def name(row: Row, way: list[Event]) -> str:
    events = [event.__name__ for event in [*way, row.event]]
    return f"{row.before.name}: {', '.join(events)}"


CASES = [
    pytest.param(row, way, id=name(row, way)) for row in STATE_MACHINE for way in WAYS[row.before]
]


def test_table_has_every_event_in_every_state_once() -> None:
    events = [our_close, close, bad_frame, end_of_tcp, ping, pong, data, tcp_has_ended]
    assert [(row.before, row.event) for row in STATE_MACHINE] == [
        (state, event) for state in State for event in events
    ]


@both_roles
@pytest.mark.parametrize("busy", [False, True], ids=["receiving", "busy"])
@pytest.mark.parametrize(("row", "way"), CASES)
@pytest.mark.requirement("5.5.1-5", "5.5.1-6", "5.5.1-8", "5.5.2-2", "7.1.3-1", "7.1.7-3")
def test_each_event_in_each_state_has_the_outcome_of_the_table(
    row: Row, way: list[Event], busy: bool, role: str
) -> None:
    endpoint = Endpoint(role)
    protocol = endpoint.protocol
    for event in way:
        event(endpoint)
        endpoint.messages()
    assert protocol.state is row.before
    endpoint.sent()
    code_before = protocol.close_code

    row.event(endpoint)
    if busy:
        protocol.handle_control_frames()
    received = endpoint.messages()

    assert protocol.state is row.after
    assert endpoint.sent() == hex_or_bytes(row.sent)
    assert tuple(received) == row.received
    assert protocol.is_receiving is (row.after in (OPEN, CLOSE_SENT))
    came = row.before in (OPEN, CLOSE_SENT) and row.event is close
    assert protocol.close_code == (4001 if came else code_before)
    frame = protocol.build_message("x")
    if row.may_send:
        assert protocol.send_frames(frame) == frame
    else:
        with pytest.raises(ConnectionClosed) as closed:
            protocol.send_frames(frame)
        assert closed.value.code == protocol.close_code


# 5.5.1, 7.1.2: our Close


@both_roles
@pytest.mark.requirement("5.1-1", "5.1-3", "5.2-1", "5.5.1-1", "7.4.1-1", "7.4.2-1")
@pytest.mark.parametrize(
    ("code", "reason", "frame"),
    [
        (1000, "", "88 02 03e8"),
        (None, "", "88 00"),
        (1001, "", "88 02 03e9"),
        (1011, "bye", "88 05 03f3 627965"),
        (3000, "why", "88 05 0bb8 776879"),
        (3999, "why", "88 05 0f9f 776879"),
        (4000, "why", "88 05 0fa0 776879"),
        (4999, "why", "88 05 1387 776879"),
        (1000, "\u20ac" * 41, "88 7d 03e8" + "e282ac" * 41),
    ],
)
def test_close_goes_out_with_code_and_reason_as_asked(
    role: str, code: int | None, reason: str, frame: str
) -> None:
    endpoint = Endpoint(role)
    endpoint.protocol.close(code, reason)
    assert endpoint.protocol.has_data_to_send
    sent = endpoint.protocol.data_to_send()
    assert sent[1] >> 7 == (role == "client")  # the mask bit
    assert endpoint.readable(sent) == bytes.fromhex(frame)
    assert endpoint.protocol.sent_reason == reason
    assert not endpoint.protocol.has_data_to_send


@both_roles
def test_close_without_arguments_is_1000(role: str) -> None:
    endpoint = Endpoint(role)
    endpoint.protocol.close()
    assert endpoint.sent() == bytes.fromhex("88 02 03e8")


@both_roles
@pytest.mark.requirement("5.5.1-4", "7.4.1-5", "7.4.2-2")
@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        *(
            (code, "", str(code))
            for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65535, 65536)
        ),
        (1000, "\u20ac" * 42, "123"),
        (1000, "x" * 124, "123"),
        (1000, "\ud800", "surrogate"),
        (None, "why", "a close reason needs a code"),
    ],
)
def test_close_that_may_not_be_sent_raises_and_changes_nothing(
    role: str, code: int | None, reason: str, said: str
) -> None:
    endpoint = Endpoint(role)
    with pytest.raises(ValueError, match=said):
        endpoint.protocol.close(code, reason)
    assert endpoint.protocol.state is OPEN
    assert endpoint.protocol.sent_reason == ""
    assert not endpoint.protocol.has_data_to_send


@pytest.mark.requirement("7.4.1-8")
def test_only_a_client_may_close_with_1010() -> None:
    server = Endpoint("server")
    with pytest.raises(ValueError, match="1010"):
        server.protocol.close(1010)
    assert server.protocol.state is OPEN
    client = Endpoint("client")
    client.protocol.close(1010)
    assert client.sent() == bytes.fromhex("88 02 03f2")


@both_roles
@pytest.mark.requirement("5.5.1-5", "6.1-1")
def test_nothing_but_pongs_goes_out_behind_our_close(role: str) -> None:
    endpoint = Endpoint(role)
    protocol = endpoint.protocol
    message = protocol.build_message("late")
    protocol.close(4000, "first")
    for _ in range(2):
        with pytest.raises(ConnectionClosed, match="the connection is closing") as closed:
            protocol.send_frames(message)
        assert closed.value.code == 1006
    protocol.close(4001, "second")
    assert protocol.sent_reason == "first"
    assert endpoint.sent() == bytes.fromhex("88 07 0fa0 6669727374")
    endpoint.receive("88 05 0fa1 627965")
    with pytest.raises(ConnectionClosed, match="4001 bye") as closed:
        protocol.send_frames(message)
    assert closed.value.code == 4001
    assert endpoint.sent() == b""


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.5.1-8", "7.1.5-1")
def test_endpoint_still_receives_after_its_own_close(role: str, arriving: Cut) -> None:
    endpoint = Endpoint(role)
    assert endpoint.receive("01 03 48656c", arriving) == []
    endpoint.protocol.close()
    assert endpoint.protocol.is_receiving
    frames = "80 02 6c6f  81 05 77686f6c65  88 02 0fa0"
    assert endpoint.receive(frames, arriving) == ["Hello", "whole"]
    assert endpoint.protocol.close_code == 4000
    assert endpoint.protocol.state is CLOSE_EXCHANGED
    assert endpoint.sent() == bytes.fromhex("88 02 03e8")


# 5.5.1, 7.1.5, 7.1.6: the peer's Close


@both_roles
@however_it_arrives
@pytest.mark.requirement(
    "5.5.1-3", "5.5.1-6", "5.5.1-7", "7.1.5-1", "7.1.5-2", "7.1.6-1", "7.4.1-9", "7.4.2-1",
    "7.4.2-3",
)  # fmt: skip
@pytest.mark.parametrize(
    ("payload", "code", "reason", "answer"),
    [
        ("", 1005, "", "88 00"),
        ("03e8", 1000, "", "88 02 03e8"),
        ("03e8 62c3a9", 1000, "b\u00e9", "88 02 03e8"),
        ("03e9", 1001, "", "88 02 03e9"),
        ("03ea", 1002, "", "88 02 03ea"),
        ("03eb", 1003, "", "88 02 03eb"),
        ("03ef", 1007, "", "88 02 03ef"),
        ("03f0", 1008, "", "88 02 03f0"),
        ("03f1", 1009, "", "88 02 03f1"),
        ("03f2 776879", 1010, "why", "88 02 03f2"),
        ("03f3 776879", 1011, "why", "88 02 03f3"),
        ("03f4 776879", 1012, "why", "88 02 03f4"),
        ("03f5 776879", 1013, "why", "88 02 03f5"),
        ("03f6 776879", 1014, "why", "88 02 03f6"),
        ("0bb8 776879", 3000, "why", "88 02 0bb8"),
        ("0f9f 776879", 3999, "why", "88 02 0f9f"),
        ("0fa0 776879", 4000, "why", "88 02 0fa0"),
        ("1387 776879", 4999, "why", "88 02 1387"),
        ("03e8" + "78" * 123, 1000, "x" * 123, "88 02 03e8"),
    ],
)
def test_close_that_comes_is_answered_with_its_code_and_reported(
    role: str, payload: str, code: int, reason: str, answer: str, arriving: Cut
) -> None:
    body = bytes.fromhex(payload)
    endpoint = Endpoint(role)
    assert endpoint.receive(bytes([0x88, len(body)]) + body, arriving) == []
    protocol = endpoint.protocol
    assert (protocol.close_code, protocol.close_reason) == (code, reason)
    assert protocol.state is CLOSE_EXCHANGED
    assert protocol.error is None
    assert protocol.sent_reason == ""
    assert endpoint.sent() == bytes.fromhex(answer)


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.5.1-2", "7.4.1-6", "7.4.2-2")
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("03", "a Close frame has half a code"),
        *(
            (f"{code:04x}", f"close code {code} is not allowed")
            for code in (
                0, 999, 1004, 1005, 1006, 1015, 5000, 65535, 1016, 1100, 2000, 2999,
            )
        ),
        ("03ee 62796521", "close code 1006 is not allowed"),
    ],
)  # fmt: skip
def test_close_whose_code_may_not_travel_fails_the_connection(
    role: str, payload: str, reason: str, arriving: Cut
) -> None:
    body = bytes.fromhex(payload)
    assert_fails(role, bytes([0x88, len(body)]) + body, 1002, reason, arriving)


@both_roles
@however_it_arrives
@pytest.mark.requirement("8.1-2", "7.1.6-1")
@pytest.mark.parametrize("reason", ["ff fe", "ed a0 80", "61 e2 82"])
def test_close_whose_reason_is_not_utf_8_fails_the_connection(
    role: str, reason: str, arriving: Cut
) -> None:
    body = b"\x03\xe8" + bytes.fromhex(reason)
    frame = bytes([0x88, len(body)]) + body
    assert_fails(role, frame, 1007, "the close reason is not UTF-8", arriving)


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.4-4", "7.1.5-1")
def test_close_between_fragments_is_answered_and_the_message_dropped(
    role: str, arriving: Cut
) -> None:
    endpoint = Endpoint(role)
    assert endpoint.receive("01 03 48656c  88 02 03e8  80 02 6c6f", arriving) == []
    assert endpoint.sent() == bytes.fromhex("88 02 03e8")
    assert endpoint.protocol.close_code == 1000


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.5.1-13", "7.1.5-1")
def test_close_frames_that_cross_complete_the_handshake(role: str, arriving: Cut) -> None:
    endpoint = Endpoint(role)
    endpoint.protocol.close(4000)
    assert endpoint.sent() == bytes.fromhex("88 02 0fa0")
    endpoint.receive("88 07 0fa1 4920746f6f", arriving)
    assert endpoint.sent() == b""
    assert (endpoint.protocol.close_code, endpoint.protocol.close_reason) == (4001, "I too")
    assert endpoint.protocol.state is CLOSE_EXCHANGED


@both_roles
@however_it_arrives
@pytest.mark.requirement("7.1.1-2", "7.1.5-1", "7.1.6-1")
def test_nothing_behind_the_peers_close_is_looked_at(role: str, arriving: Cut) -> None:
    endpoint = Endpoint(role)
    behind = "88 05 0fa2 74776f  89 01 70  81 04 74657874  83 00"
    assert endpoint.receive(f"88 05 0fa1 6f6e65 {behind}", arriving) == []
    assert endpoint.sent() == bytes.fromhex("88 02 0fa1")
    assert (endpoint.protocol.close_code, endpoint.protocol.close_reason) == (4001, "one")
    assert endpoint.protocol.error is None


@both_roles
@pytest.mark.requirement("7.1.1-2")
@pytest.mark.parametrize("end", ["88 02 0fa1", "83 00"])
def test_what_arrives_after_the_end_is_not_kept(role: str, end: str) -> None:
    endpoint = Endpoint(role)
    assert endpoint.receive(end) == []
    unread = endpoint.protocol.unread
    endpoint.protocol.receive_data(bytes(100_000))
    assert endpoint.protocol.unread == unread


@both_roles
@pytest.mark.requirement("5.5.1-6", "7.1.5-1")
def test_close_behind_messages_is_handled_once_they_were_asked_for(role: str) -> None:
    endpoint = Endpoint(role)
    endpoint.feed("81 03 6f6e65  82 03 74776f  88 02 03e8")
    protocol = endpoint.protocol
    for expected in ("one", b"two"):
        assert protocol.next_message() == expected
        assert (protocol.state, protocol.close_code) == (OPEN, 1006)
        protocol.send_frames(protocol.build_message(expected))  # an echo
    assert not protocol.has_data_to_send
    assert protocol.next_message() is None
    assert endpoint.sent() == bytes.fromhex("88 02 03e8")


# 7.1.7: failing the connection


@both_roles
@however_it_arrives
@pytest.mark.requirement("7.1.7-1", "7.1.7-2", "7.1.7-3")
def test_nothing_is_looked_at_after_the_connection_has_failed(role: str, arriving: Cut) -> None:
    behind = "81 04 74657874  89 01 70  88 02 0fa0"
    endpoint = Endpoint(role)
    assert endpoint.receive(f"81 01 61  b1 03 626164  {behind}", arriving) == ["a"]
    endpoint.assert_failed(1002, "a reserved bit is set")
    assert endpoint.receive(behind, arriving) == []
    endpoint.protocol.handle_control_frames()
    assert endpoint.sent() == b""
    assert endpoint.protocol.close_code == 1006
    assert endpoint.protocol.pongs == 0
    endpoint.protocol.receive_eof("the end of TCP")
    assert endpoint.protocol.next_message() is None
    assert endpoint.protocol.close_reason == "a reserved bit is set"


@both_roles
@pytest.mark.requirement("7.1.7-1")
def test_failing_after_our_close_sends_no_second_close_and_is_told(role: str) -> None:
    endpoint = Endpoint(role)
    endpoint.protocol.close(4000, "bye")
    assert endpoint.receive("83 00") == []
    assert endpoint.sent() == bytes.fromhex("88 05 0fa0 627965")
    assert endpoint.error == (1002, "opcode 0x3 is reserved")
    assert endpoint.protocol.close_code == 1006
    assert endpoint.protocol.close_reason == "opcode 0x3 is reserved"


@pytest.mark.requirement("5.1-1")
def test_close_of_a_client_that_fails_the_connection_is_masked() -> None:
    endpoint = Endpoint("client")
    endpoint.receive("83 00")
    assert endpoint.protocol.data_to_send()[:2] == bytes.fromhex("88 98")


# 7.1.5: the end of TCP


@both_roles
@pytest.mark.requirement("7.1.5-3", "7.2.1-1")
@pytest.mark.parametrize("frames", ["", "81", "81 05", "81 05 48", "01 01 61"])
def test_end_of_tcp_without_a_close_is_1006_with_the_reason_that_was_told(
    role: str, frames: str
) -> None:
    for busy in (False, True):
        endpoint = Endpoint(role)
        endpoint.feed(f"81 05 6669727374  {frames}")
        protocol = endpoint.protocol
        protocol.receive_eof("the cable was cut")
        if busy:
            protocol.handle_control_frames()
        assert protocol.state is OPEN
        assert protocol.is_receiving
        assert endpoint.messages() == ["first"]
        assert (protocol.close_code, protocol.close_reason) == (1006, "the cable was cut")
        assert protocol.state is FAILED
        assert protocol.error is None
        assert endpoint.sent() == b""


@both_roles
@pytest.mark.requirement("7.1.5-1")
def test_close_that_arrived_before_the_end_of_tcp_counts(role: str) -> None:
    endpoint = Endpoint(role)
    endpoint.feed("81 01 61  88 05 0fa0 627965")
    endpoint.protocol.receive_eof("the cable was cut")
    assert endpoint.messages() == ["a"]
    protocol = endpoint.protocol
    assert (protocol.close_code, protocol.close_reason) == (4000, "bye")
    assert protocol.state is CLOSE_EXCHANGED
    assert endpoint.sent() == bytes.fromhex("88 02 0fa0")


# The lock: around each change of the state, together with the bytes that belong to it


class CountingLock:
    """Counts how often it is taken, and refuses to be taken while it is held."""

    def __init__(self) -> None:
        self.taken = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        assert self._lock.acquire(blocking=False), "it is held already"
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@both_roles
@pytest.mark.parametrize(
    ("event", "taken"),
    [(close, 1), (bad_frame, 1), (end_of_tcp, 1), (ping, 1), (pong, 0), (data, 0)],
)
def test_receiver_takes_the_lock_once_for_each_change_and_lets_it_go(
    role: str, event: Event, taken: int
) -> None:
    lock = CountingLock()
    endpoint = Endpoint(role, lock=lock)
    event(endpoint)
    endpoint.messages()
    assert lock.taken == taken
    endpoint.protocol.tcp_ended()
    assert lock.taken == taken + 1

"""Pings and Pongs, without a socket (RFC 6455, 5.5, 5.5.2, 5.5.3).

Also what is done for a receiver that is busy: `handle_control_frames` answers the Pings behind the
messages that wait, and leaves everything else in its place.
"""

import pytest

from protocols import (
    Cut,
    Endpoint,
    assert_fails,
    both_roles,
    hex_or_bytes,
    however_it_arrives,
    single_bytes,
    some_bytes,
    whole,
)
from rfc6455 import ConnectionClosed, Deflate, State

# 5.5: control frames that come in


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.5-2")
@pytest.mark.parametrize("first", [0x88, 0x89, 0x8A])
@pytest.mark.parametrize("before", ["", "01 01 61"], ids=["alone", "within a message"])
def test_endpoint_fails_connection_on_a_control_frame_over_125_bytes(
    role: str, first: int, before: str, arriving: Cut
) -> None:
    for length, size in [("7e 007e", 126), ("7f 0000000000011170", 70_000)]:
        payload = b"\x03\xe8" + bytes(size - 2 if arriving is not single_bytes else 2)
        frame = bytes([first]) + bytes.fromhex(length) + payload
        data = bytes.fromhex(before) + frame
        assert_fails(role, data, 1002, "a control frame is over 125 bytes", arriving)


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.5-3")
@pytest.mark.parametrize(
    "frames", ["09 00", "0a 00", "08 02 03e8", "09 02 03e8 80 00", "01 01 61  09 00  80 01 62"]
)
def test_endpoint_fails_connection_on_a_fragmented_control_frame(
    role: str, frames: str, arriving: Cut
) -> None:
    assert_fails(role, frames, 1002, "a control frame is fragmented", arriving)


# 5.5.2, 5.5.3: a Ping is answered by a Pong


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.5.2-1", "5.5.2-4", "5.5.3-1")
@pytest.mark.parametrize("payload", [b"", b"\x80", b"abc", bytes(range(125)), b"\xff" * 125])
def test_endpoint_answers_a_ping_with_the_same_bytes(
    role: str, payload: bytes, arriving: Cut
) -> None:
    ping = bytes([0x89, len(payload)]) + payload
    pong = bytes([0x8A, len(payload)]) + payload
    endpoint = Endpoint(role)
    assert endpoint.receive(ping, arriving) == []
    assert endpoint.sent() == pong
    # Between fragments, too, and before the message is whole.
    assert endpoint.receive(b"\x01\x01a" + ping, arriving) == []
    assert endpoint.sent() == pong
    assert endpoint.receive("80 01 62", arriving) == ["ab"]
    assert endpoint.sent() == b""
    assert endpoint.protocol.state is State.OPEN


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.5.2-1")
def test_endpoint_answers_pings_in_their_order(role: str, arriving: Cut) -> None:
    endpoint = Endpoint(role)
    assert endpoint.receive("89 01 31  89 01 32  82 00  89 01 33", arriving) == [b""]
    assert endpoint.sent() == bytes.fromhex("8a 01 31  8a 01 32  8a 01 33")


@both_roles
@pytest.mark.requirement("5.1-1", "5.5.3-1")
def test_pong_of_a_client_is_masked_and_that_of_a_server_is_not(role: str) -> None:
    endpoint = Endpoint(role)
    endpoint.receive("89 01 70")
    sent = endpoint.protocol.data_to_send()
    assert sent[:2] == bytes.fromhex("8a 01" if role == "server" else "8a 81")
    assert len(sent) == (3 if role == "server" else 7)


@both_roles
@however_it_arrives
@pytest.mark.requirement("5.5.3-3")
def test_endpoint_takes_pongs_that_nobody_asked_for_without_a_reply(
    role: str, arriving: Cut
) -> None:
    endpoint = Endpoint(role)
    frames = bytes.fromhex("8a 00  8a 07 756e6b6e6f776e  8a 7d") + b"\xff" * 125
    assert endpoint.receive(frames, arriving) == []
    assert endpoint.sent() == b""
    assert endpoint.protocol.pongs == 3
    assert endpoint.protocol.state is State.OPEN


@both_roles
@pytest.mark.requirement("5.5-1", "5.5.2-4")
def test_ping_of_125_bytes_is_built_and_of_126_is_not(role: str) -> None:
    endpoint = Endpoint(role)
    ping = endpoint.protocol.build_ping(b"\xff" * 125)
    assert ping[:2] == bytes.fromhex("89 7d" if role == "server" else "89 fd")
    assert endpoint.readable(ping) == b"\x89\x7d" + b"\xff" * 125
    assert endpoint.readable(endpoint.protocol.build_ping()) == bytes.fromhex("89 00")
    with pytest.raises(ValueError, match="125"):
        endpoint.protocol.build_ping(b"\xff" * 126)


@both_roles
@pytest.mark.requirement("5.5.2-1")
def test_pongs_that_wait_go_out_before_frames_that_are_sent_after_them(role: str) -> None:
    endpoint = Endpoint(role)
    protocol = endpoint.protocol
    message = protocol.build_message("a")
    assert protocol.send_frames(message) == message
    endpoint.receive("89 01 31  89 01 32")
    assert protocol.has_data_to_send
    sent = endpoint.readable(protocol.send_frames(message))
    assert sent == bytes.fromhex("8a 01 31  8a 01 32  81 01 61")
    assert not protocol.has_data_to_send
    assert protocol.data_to_send() == b""
    assert protocol.send_frames(message) == message


@both_roles
@pytest.mark.requirement("5.5.1-5", "5.5.2-2")
def test_pong_that_waits_goes_out_before_our_close_and_later_ones_behind_it(role: str) -> None:
    endpoint = Endpoint(role)
    endpoint.receive("89 01 31")
    endpoint.protocol.close()
    with pytest.raises(ConnectionClosed):
        endpoint.protocol.send_frames(endpoint.protocol.build_ping())
    endpoint.receive("89 01 32")
    assert endpoint.sent() == bytes.fromhex("8a 01 31  88 02 03e8  8a 01 32")


# For a receiver that is busy

BUSY = [
    # what has arrived; what is sent at once; the messages that are received afterwards; what is
    # sent then
    ("", "", [], ""),
    ("89 01 70", "8a 01 70", [], ""),
    ("81 01 61  89 01 70", "8a 01 70", ["a"], ""),
    ("81 01 61  82 01 62  89 01 70  81 00  89 01 71", "8a 01 70  8a 01 71", ["a", b"b", ""], ""),
    ("01 01 61  89 01 70  80 01 62  89 01 71", "8a 01 70  8a 01 71", ["ab"], ""),
    (
        "80 00  89 01 70",
        "8a 01 70",
        [],
        b"\x88\x34\x03\xeaa continuation frame without a message to continue",
    ),
    # 5.5.1: a Close is answered at once only where no message, or a part of one, is before it.
    ("88 02 03e8", "88 02 03e8", [], ""),
    ("88 00", "88 00", [], ""),
    ("89 01 70  88 02 03e8", "8a 01 70  88 02 03e8", [], ""),
    ("8a 00  88 02 03e8", "88 02 03e8", [], ""),
    ("81 01 61  88 02 03e8", "", ["a"], "88 02 03e8"),
    ("01 01 61  88 02 03e8", "", [], "88 02 03e8"),
    ("81 01 61  89 01 70  88 02 03e8  89 01 71", "8a 01 70", ["a"], "88 02 03e8"),
    ("88 02 03e8  89 01 70", "88 02 03e8", [], ""),
    # What is bad fails the connection at once only as a control frame that nothing is before.
    ("88 01 03", b"\x88\x1f\x03\xeaa Close frame has half a code", [], ""),
    ("09 00", b"\x88\x1f\x03\xeaa control frame is fragmented", [], ""),
    ("8b 00", b"\x88\x18\x03\xeaopcode 0xB is reserved", [], ""),
    ("81 01 61  8b 00", "", ["a"], b"\x88\x18\x03\xeaopcode 0xB is reserved"),
    ("83 00  89 01 70", "", [], b"\x88\x18\x03\xeaopcode 0x3 is reserved"),
    ("81 01 61  83 00  89 01 70", "", ["a"], b"\x88\x18\x03\xeaopcode 0x3 is reserved"),
]


@both_roles
@pytest.mark.parametrize(("frames", "at_once", "messages", "afterwards"), BUSY)
@pytest.mark.requirement("5.5.1-6", "5.5.2-1", "5.5.2-3")
def test_control_frames_are_handled_for_a_busy_receiver_as_far_as_order_allows(
    role: str,
    frames: str,
    at_once: str | bytes,
    messages: list[str | bytes],
    afterwards: str | bytes,
) -> None:
    for arriving in (whole, single_bytes):
        endpoint = Endpoint(role)
        for piece in arriving(endpoint.by_the_peer(frames)):
            endpoint.protocol.receive_data(piece)
            endpoint.protocol.handle_control_frames()
        assert endpoint.sent() == hex_or_bytes(at_once)
        assert endpoint.messages() == messages
        assert endpoint.sent() == hex_or_bytes(afterwards)


@both_roles
@pytest.mark.parametrize("behind", ["88 02 03e8", "8b 00", "88 01 03"])
@pytest.mark.requirement("5.5.1-6", "5.5.2-3")
def test_close_waits_for_a_receiver_that_has_just_taken_the_last_message(
    role: str, behind: str
) -> None:
    endpoint = Endpoint(role)
    protocol = endpoint.protocol
    endpoint.feed(f"81 01 61  89 01 70  {behind}")
    assert protocol.next_message() == "a"
    protocol.handle_control_frames(close=False)
    assert endpoint.sent() == bytes.fromhex("8a 01 70")
    assert protocol.state is State.OPEN
    answer = protocol.build_message("b")
    assert protocol.send_frames(answer) == answer
    protocol.handle_control_frames()
    assert protocol.state is not State.OPEN
    assert endpoint.sent()[0] == 0x88


@both_roles
@pytest.mark.requirement("5.5.2-3")
@pytest.mark.parametrize("waiting", [1, 2, 500])
def test_ping_behind_messages_that_wait_is_answered_and_they_are_received(
    role: str, waiting: int
) -> None:
    texts = [f"message {i}" for i in range(waiting)]
    endpoint = Endpoint(role)
    endpoint.feed(b"".join(b"\x81" + bytes([len(text)]) + text.encode() for text in texts))
    endpoint.feed("89 01 70")
    endpoint.protocol.handle_control_frames()
    assert endpoint.sent() == bytes.fromhex("8a 01 70")
    endpoint.feed("89 01 71  81 04 6c617374")
    endpoint.protocol.handle_control_frames()
    assert endpoint.sent() == bytes.fromhex("8a 01 71")
    assert endpoint.messages() == [*texts, "last"]


@both_roles
def test_pong_behind_a_message_that_waits_counts(role: str) -> None:
    endpoint = Endpoint(role)
    endpoint.feed("81 01 61  8a 00  8a 01 70")
    endpoint.protocol.handle_control_frames()
    assert endpoint.protocol.pongs == 2
    assert endpoint.sent() == b""
    assert endpoint.messages() == ["a"]
    assert endpoint.protocol.pongs == 2


@both_roles
def test_ping_within_a_message_that_was_begun_to_be_received_is_answered(role: str) -> None:
    frame = bytes.fromhex("02 7e 03e8") + some_bytes(1000)
    endpoint = Endpoint(role)
    data = endpoint.by_the_peer(frame)
    endpoint.protocol.receive_data(data[:500])
    assert endpoint.messages() == []
    endpoint.protocol.receive_data(data[500:700])
    endpoint.protocol.handle_control_frames()
    endpoint.protocol.receive_data(data[700:])
    endpoint.feed("89 01 70")
    endpoint.protocol.handle_control_frames()
    assert endpoint.sent() == bytes.fromhex("8a 01 70")
    assert endpoint.receive("80 01 ff") == [some_bytes(1000) + b"\xff"]


@both_roles
def test_messages_that_wait_are_not_inflated_for_the_pings_behind_them(role: str) -> None:
    """The message does not inflate: its block has a type that does not exist."""
    endpoint = Endpoint(role, deflate=Deflate())
    endpoint.feed("c1 01 07  89 01 70")
    endpoint.protocol.handle_control_frames()
    assert endpoint.sent() == bytes.fromhex("8a 01 70")
    assert endpoint.protocol.state is State.OPEN
    assert endpoint.messages() == []
    endpoint.assert_failed(1007, "the data is not deflated")


@both_roles
@pytest.mark.requirement("5.5.2-2")
def test_ping_is_answered_for_a_busy_receiver_after_our_own_close(role: str) -> None:
    endpoint = Endpoint(role)
    endpoint.protocol.close()
    endpoint.feed("81 01 61  89 01 70")
    endpoint.protocol.handle_control_frames()
    assert endpoint.sent() == bytes.fromhex("88 02 03e8  8a 01 70")
    assert endpoint.protocol.state is State.CLOSE_SENT


@both_roles
@pytest.mark.requirement("7.1.7-3")
def test_nothing_is_handled_for_a_busy_receiver_once_the_connection_is_over(role: str) -> None:
    for ending in ("88 02 03e8", "83 00"):
        endpoint = Endpoint(role)
        assert endpoint.receive(ending) == []
        endpoint.sent()
        state = endpoint.protocol.state
        endpoint.feed("89 01 70  88 02 0fa1")
        endpoint.protocol.handle_control_frames()
        assert endpoint.sent() == b""
        assert endpoint.protocol.state is state


@both_roles
@pytest.mark.requirement("7.1.5-3")
def test_end_of_tcp_counts_for_a_busy_receiver_once_nothing_is_left_to_receive(role: str) -> None:
    endpoint = Endpoint(role)
    protocol = endpoint.protocol
    endpoint.feed("81 01 61  89 01 70")
    assert not protocol.has_eof
    protocol.receive_eof("the cable was cut")
    assert protocol.has_eof
    protocol.handle_control_frames()
    assert endpoint.sent() == bytes.fromhex("8a 01 70")
    assert protocol.state is State.OPEN
    assert protocol.next_message() == "a"
    assert protocol.state is State.OPEN
    protocol.handle_control_frames()
    assert protocol.state is State.FAILED
    assert (protocol.close_code, protocol.close_reason) == (1006, "the cable was cut")

"""A connection with permessage-deflate as a state machine, without a socket (RFC 7692, 6, 7.2).

`EchoingEndpoint` is our side, in either role; a test plays the peer, whose frames are bytes.
"""

import random
import zlib
from collections import deque

import pytest

from deflate_cases import (
    AGAIN,
    DEFAULT,
    HELLO,
    PMD,
    TAIL,
    TEXT,
    deflated,
    far_apart,
    frame_of_hello,
    inflated,
    server_bits,
    whole,
)
from heads import extensions
from peers import Frame, unmasked
from protocols import Endpoint, both_roles, measure
from rfc6455 import Deflate
from rfc6455.deflate import accept_offer, check_answer
from rfc6455.protocol import MAX_MESSAGE, State

requirement = pytest.mark.requirement


class EchoingEndpoint(Endpoint):
    """Our side of a connection, which echoes every message, and puts it into `received`.

    `theirs` is the peer's Sec-WebSocket-Extensions: its offer to a server, or its answer.
    """

    def __init__(
        self,
        role: str,
        theirs: str | None = PMD,
        ours: Deflate | None = DEFAULT,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self.agreed = agree(role, theirs, ours)
        super().__init__(role, max_message=max_message, deflate=self.agreed)
        self.received: deque[str | bytes] = deque()
        self._unheard = b""  # what the endpoint has sent, as a server would send it

    def say(self, first: int, payload: bytes = b"") -> None:
        """Let a frame of the peer arrive, and the endpoint answer."""
        self.feed(unmasked(first, payload))
        self.answer()

    def answer(self) -> None:
        """Echo the messages that are complete, and answer control frames."""
        for message in self.messages():
            self.received.append(message)
            self.send(self.protocol.build_message(message))
        self.send_what_waits()

    def send(self, frames: bytes) -> None:
        self._unheard += self.readable(self.protocol.send_frames(frames))

    def send_what_waits(self) -> None:
        """Send the control frames with which the endpoint has answered."""
        self._unheard += self.sent()

    def hear(self) -> Frame:
        """The next frame that the endpoint has sent."""
        header, size = measure(self._unheard)
        frame = self._unheard[: header + size]
        assert len(frame) == header + size
        assert not frame[1] & 0x80, "a server's frame is masked"
        self._unheard = self._unheard[header + size :]
        return Frame(frame[0], frame[header:])

    def exchange(self, first: int, payload: bytes = b"") -> Frame:
        self.say(first, payload)
        return self.hear()

    def assert_closed_with(self, code: int) -> None:
        """The endpoint has sent a Close with this code as its last frame, and delivers nothing."""
        first, payload = self.hear()
        assert (first, payload[:2]) == (0x88, code.to_bytes(2, "big"))
        self.say(0x81, b"more")
        assert self._unheard == b""
        assert self.protocol.state is State.FAILED
        assert not self.received


def agree(role: str, theirs: str | None, ours: Deflate | None) -> Deflate | None:
    """What both sides agree on in the opening handshake."""
    offered_or_answered = extensions(theirs) if theirs else []
    if role == "client":
        return check_answer(offered_or_answered, ours)
    accepted = accept_offer(offered_or_answered, ours) if ours else None
    return accepted.agreed if accepted else None


# Receiving


@both_roles
@requirement("D6-1", "D6.1-4", "D6.1-5", "D7.2.2-1")
def test_endpoint_receives_compressed_and_plain_messages_in_turn(role: str) -> None:
    endpoint = EchoingEndpoint(role)
    assert endpoint.exchange(0x81, b"Hello") == (0x81, b"Hello")
    endpoint.protocol.receive_data(frame_of_hello(role))
    endpoint.answer()
    assert endpoint.hear() == (0x81, b"Hello")
    assert endpoint.exchange(0xC1, b"\x00") == (0x81, b"")
    assert endpoint.exchange(0x82, HELLO) == (0x82, HELLO)
    assert endpoint.exchange(0xC2, HELLO) == (0x82, b"Hello")
    assert endpoint.exchange(0xC1, HELLO) == (0x81, b"Hello")
    received = [endpoint.received.popleft() for _ in range(6)]
    assert received == ["Hello", "Hello", "", HELLO, b"Hello", "Hello"]


@both_roles
@requirement("D6.2-1")
def test_endpoint_joins_the_fragments_of_a_compressed_message_wherever_it_is_cut(
    role: str,
) -> None:
    endpoint = EchoingEndpoint(role)
    for cut in range(len(HELLO) + 1):
        endpoint.say(0x41, HELLO[:cut])
        assert endpoint.exchange(0x89, b"p") == (0x8A, b"p")
        endpoint.say(0x00)
        endpoint.say(0x80, HELLO[cut:])
        assert endpoint.hear() == (0x81, b"Hello")
    endpoint.say(0x42)
    for i in range(len(HELLO)):
        endpoint.say(0x00, HELLO[i : i + 1])
    assert endpoint.exchange(0x80) == (0x82, b"Hello")


@both_roles
@requirement("D6.1-3")
@pytest.mark.parametrize(
    "frames",
    [
        [(0xC9, b"p")],
        [(0xCA, b"")],
        [(0xC8, b"\x03\xe8")],
        [(0xC0, HELLO)],
        [(0x41, HELLO[:3]), (0xC0, HELLO[3:])],
        [(0x41, HELLO[:3]), (0x40, HELLO[3:4])],
        [(0x41, HELLO[:3]), (0xC9, b"p")],
        [(0x01, b"Hel"), (0xC0, HELLO)],
    ],
)
def test_endpoint_fails_the_connection_on_rsv1_after_the_first_frame_of_a_message(
    role: str, frames: list[tuple[int, bytes]]
) -> None:
    endpoint = EchoingEndpoint(role)
    for first, payload in frames:
        endpoint.say(first, payload)
    endpoint.assert_closed_with(1002)


@both_roles
@pytest.mark.parametrize("first", [0xE1, 0xD1, 0xF1, 0xA1, 0x91])
@requirement("5.2-2")
def test_endpoint_fails_the_connection_on_the_bits_that_compression_does_not_use(
    role: str, first: int
) -> None:
    endpoint = EchoingEndpoint(role)
    endpoint.say(first, HELLO)
    endpoint.assert_closed_with(1002)


@both_roles
@requirement("D6.1-5")
@pytest.mark.parametrize(
    "payload",
    [
        "00 02 00 fd ff ff fe 00",  # ff fe
        "00 03 00 fc ff ed a0 80 00",  # a surrogate
        "00 02 00 fd ff e2 82 00",  # two thirds of a character
    ],
)
def test_endpoint_fails_the_connection_on_text_that_is_not_utf8_once_inflated(
    role: str, payload: str
) -> None:
    data = bytes.fromhex(payload)
    endpoint = EchoingEndpoint(role)
    assert endpoint.exchange(0xC2, data).first == 0x82
    endpoint.received.popleft()
    endpoint.say(0x41, data[:-2])
    endpoint.say(0x80, data[-2:])
    endpoint.assert_closed_with(1007)


@both_roles
@requirement("D6.1-5")
def test_endpoint_receives_a_character_that_fragments_of_compressed_text_divide(role: str) -> None:
    endpoint = EchoingEndpoint(role)
    endpoint.say(0x41, bytes.fromhex("00 02 00 fd ff e2 82"))
    endpoint.say(0x80, bytes.fromhex("00 01 00 fe ff ac 00"))
    assert endpoint.received.popleft() == "\u20ac"


@both_roles
@requirement("D7.2.2-5")
def test_endpoint_fails_the_connection_on_data_that_is_not_deflated(role: str) -> None:
    endpoint = EchoingEndpoint(role)
    endpoint.say(0xC1, b"\xff\xff\xff")
    endpoint.assert_closed_with(1007)


@both_roles
@requirement("D7.2.2-2", "D7.2.2-3")
def test_endpoint_keeps_the_window_between_compressed_messages(role: str) -> None:
    endpoint = EchoingEndpoint(role)
    assert endpoint.exchange(0xC1, HELLO) == (0x81, b"Hello")
    assert endpoint.exchange(0xC1, AGAIN) == (0x81, b"Hello")
    assert endpoint.exchange(0x81, b"quite another") == (0x81, b"quite another")
    assert endpoint.exchange(0x82, bytes(300)).first == 0xC2
    assert endpoint.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@requirement("D7.2.2-2")
def test_server_keeps_the_window_when_the_offer_that_gave_it_up_was_declined() -> None:
    endpoint = EchoingEndpoint("server", f"{PMD}; client_no_context_takeover; foo, {PMD}")
    assert endpoint.exchange(0xC1, HELLO) == (0x81, b"Hello")
    assert endpoint.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@requirement("D7.2.2-2")
def test_client_keeps_the_window_when_only_the_client_gives_up_its_own() -> None:
    endpoint = EchoingEndpoint("client", f"{PMD}; client_no_context_takeover")
    assert endpoint.exchange(0xC1, HELLO) == (0x81, b"Hello")
    assert endpoint.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@both_roles
def test_endpoint_receives_messages_of_a_peer_without_context_takeover(role: str) -> None:
    endpoint = EchoingEndpoint(role, f"{PMD}; {other(role)}_no_context_takeover")
    for _ in range(3):
        assert endpoint.exchange(0xC1, HELLO) == (0x81, b"Hello")


def other(role: str) -> str:
    return {"server": "client", "client": "server"}[role]


@both_roles
@requirement("D7.2.2-4")
def test_endpoint_inflates_with_the_largest_window_when_none_was_agreed(role: str) -> None:
    message = far_apart(32_100)
    with pytest.raises(zlib.error, match="too far back"):
        inflated(deflated(message, 15), 14)
    endpoint = EchoingEndpoint(role)
    endpoint.say(0xC2, deflated(message, 15))
    assert endpoint.received.popleft() == message


@requirement("D7.2.2-4")
def test_server_inflates_with_the_largest_window_when_a_smaller_one_was_only_a_hint() -> None:
    message = far_apart(32_100)
    endpoint = EchoingEndpoint("server", f"{PMD}; client_max_window_bits=10")
    endpoint.say(0xC2, deflated(message, 15))
    assert endpoint.received.popleft() == message


@both_roles
@pytest.mark.parametrize("bits", [9, 10, 14])
def test_endpoint_inflates_with_the_window_that_was_agreed(role: str, bits: int) -> None:
    message = far_apart((1 << bits) - 262)  # zlib's compressor does not look back further
    ours = Deflate(client_max_window_bits=bits)
    theirs = f"{PMD}; client_max_window_bits" if role == "server" else server_bits(bits)
    endpoint = EchoingEndpoint(role, theirs, ours)
    endpoint.say(0xC2, deflated(message, bits))
    assert endpoint.received.popleft() == message


@both_roles
@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize(
    "frames",
    [
        [(0xC1, b"")],  # as Mojolicious and Haskell's websockets send it
        [(0x41, b""), (0x80, b"")],
        [(0x41, b""), (0x00, b""), (0x00, b""), (0x80, b"")],
        [(0xC1, b"\x00")],  # as the RFC has it (7.2.3.6)
        [(0x41, b""), (0x80, b"\x00")],
        [(0x41, b"\x00"), (0x80, b"")],
        [(0xC1, b"")] * 3,
    ],
)
def test_endpoint_receives_empty_messages_with_and_without_a_byte_and_what_follows(
    role: str, forgets: bool, frames: list[tuple[int, bytes]]
) -> None:
    agreed = f"{PMD}; {other(role)}_no_context_takeover" if forgets else PMD
    again = HELLO if forgets else AGAIN
    endpoint = EchoingEndpoint(role, agreed)
    for before, after in [(HELLO, again), (again, again), (again, HELLO)]:
        assert endpoint.exchange(0xC1, before) == (0x81, b"Hello")
        for first, payload in frames:
            endpoint.say(first, payload)
            if first & 0x80:
                assert endpoint.hear() == (0x81, b"")
        assert endpoint.exchange(0xC1, after) == (0x81, b"Hello")


@both_roles
def test_endpoint_receives_empty_fragments_between_those_of_a_message(role: str) -> None:
    endpoint = EchoingEndpoint(role)
    for payload in (HELLO, AGAIN):
        for first, piece in [(0x41, b""), (0, payload[:1]), (0, b""), (0, payload[1:])]:
            endpoint.say(first, piece)
        assert endpoint.exchange(0x80, b"") == (0x81, b"Hello")


@requirement("D5-1")
def test_client_that_asked_for_a_small_window_inflates_within_it() -> None:
    message = far_apart(1 << 9)
    endpoint = EchoingEndpoint("client", server_bits(10), Deflate(server_max_window_bits=10))
    endpoint.say(0xC2, deflated(message, 10))
    assert endpoint.received.popleft() == message


# Limits


@both_roles
@requirement("10.4-4")
def test_endpoint_counts_what_earlier_fragments_inflated_to(role: str) -> None:
    zeros = deflated(bytes(600), 15) + TAIL
    endpoint = EchoingEndpoint(role, max_message=1000)
    endpoint.say(0x42, zeros)
    endpoint.say(0x80, zeros)
    endpoint.assert_closed_with(1009)


@both_roles
@requirement("10.4-4")
@pytest.mark.parametrize("first", [0xC1, 0xC2])
def test_endpoint_receives_a_compressed_message_of_the_limit_and_refuses_one_byte_more(
    role: str, first: int
) -> None:
    endpoint = EchoingEndpoint(role, max_message=5000)
    for _ in range(2):
        endpoint.say(first, deflated(bytes(5000), 15))
        assert endpoint.hear().first == first
        assert len(endpoint.received.popleft()) == 5000
    endpoint.say(first, deflated(bytes(5001), 15))
    endpoint.assert_closed_with(1009)


@both_roles
def test_endpoint_receives_a_message_of_the_limit_that_is_longer_when_deflated(role: str) -> None:
    message = random.Random(7692).randbytes(5000)
    payload = deflated(message, 15)
    assert len(payload) > 5000
    endpoint = EchoingEndpoint(role, max_message=5000)
    assert endpoint.exchange(0xC2, payload) == (0x82, message)


# Sending


@both_roles
@requirement("D6.1-1", "D6.1-4", "D7.2.1-1", "D7.2.1-2", "D7.2.1-5")
@pytest.mark.parametrize("size", [256, 300, 5000, 65536, 1 << 20])
def test_endpoint_compresses_a_message_into_one_frame(role: str, size: int) -> None:
    text = (TEXT * (size // len(TEXT) + 1))[:size]
    endpoint = EchoingEndpoint(role)
    for plain, compressed in ((0x81, 0xC1), (0x82, 0xC2)):
        first, payload = endpoint.exchange(plain, text.encode())
        assert first == compressed
        assert len(payload) < size / 2
        assert not payload.endswith(TAIL)
        assert whole(payload) == text.encode()


@both_roles
@requirement("D6.1-1", "D7.2.1-1")
def test_endpoint_sends_uncompressed_what_compressing_does_not_make_smaller(role: str) -> None:
    noise = random.Random(7692).randbytes(5000)
    endpoint = EchoingEndpoint(role, ours=Deflate(threshold=0))
    assert endpoint.exchange(0x81) == (0x81, b"")
    assert endpoint.exchange(0x81) == (0x81, b"")
    assert endpoint.exchange(0x81, b"Hello") == (0x81, b"Hello")
    assert endpoint.exchange(0x82, noise) == (0x82, noise)
    first, payload = endpoint.exchange(0x81, b"a" * 20)
    assert (first, whole(payload)) == (0xC1, b"a" * 20)


@both_roles
@requirement("D6.1-1")
def test_endpoint_sends_small_messages_uncompressed(role: str) -> None:
    endpoint = EchoingEndpoint(role)
    assert endpoint.exchange(0x81, b"a" * 255) == (0x81, b"a" * 255)
    assert endpoint.exchange(0x81, b"a" * 256).first == 0xC1


@both_roles
@requirement("D6.1-2")
def test_endpoint_does_not_compress_control_frames(role: str) -> None:
    endpoint = EchoingEndpoint(role, ours=Deflate(threshold=0))
    assert endpoint.exchange(0x89, b"a" * 125) == (0x8A, b"a" * 125)
    endpoint.send(endpoint.protocol.build_ping(b"b" * 125))
    assert endpoint.hear() == (0x89, b"b" * 125)
    endpoint.protocol.close(4000, "c" * 123)
    endpoint.send_what_waits()
    assert endpoint.hear() == (0x88, b"\x0f\xa0" + b"c" * 123)


@both_roles
@requirement("D7.2.1-6", "D7.1.1.2-1")
@pytest.mark.parametrize("agreed", [False, True])
def test_endpoint_sends_each_message_as_if_it_were_the_first(role: str, agreed: bool) -> None:
    endpoint = EchoingEndpoint(role, PMD + (f"; {role}_no_context_takeover" if agreed else ""))
    first, payload = endpoint.exchange(0x81, TEXT.encode())
    assert (first, whole(payload)) == (0xC1, TEXT.encode())
    assert endpoint.exchange(0x81, TEXT.encode()) == (0xC1, payload)


@both_roles
@requirement("D7.2.1-7")
@pytest.mark.parametrize("bits", [9, 10, 12])
def test_endpoint_compresses_within_the_window_that_was_agreed_for_it(role: str, bits: int) -> None:
    message = far_apart((1 << bits) + 88)
    endpoint = EchoingEndpoint(role, f"{PMD}; {role}_max_window_bits={bits}")
    first, payload = endpoint.exchange(0x82, message)
    assert first == 0xC2
    assert inflated(payload, bits) == message


@requirement("D7.1.2.2-6", "D7.2.1-7")
@pytest.mark.parametrize("answer", ["", "; client_max_window_bits=12"])
def test_client_keeps_to_the_window_of_its_offer_though_the_answer_allows_more(answer: str) -> None:
    message = far_apart((1 << 10) + 88)
    endpoint = EchoingEndpoint("client", PMD + answer, Deflate(client_max_window_bits=10))
    first, payload = endpoint.exchange(0x82, message)
    assert first == 0xC2
    assert inflated(payload, 10) == message


@requirement("D7.2.1-7")
def test_client_sends_uncompressed_when_the_window_is_too_small_for_zlib() -> None:
    endpoint = EchoingEndpoint("client", f"{PMD}; client_max_window_bits=8")
    for size in (0, 256, 5000):
        assert endpoint.exchange(0x82, bytes(size)) == (0x82, bytes(size))
    assert endpoint.exchange(0xC1, HELLO) == (0x81, b"Hello")
    assert endpoint.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@requirement("D7.2.1-7")
def test_server_compresses_within_the_smaller_of_its_own_window_and_the_offered_one() -> None:
    message = far_apart(1 << 10)
    ours = Deflate(server_max_window_bits=9)
    endpoint = EchoingEndpoint("server", f"{PMD}; server_max_window_bits=12", ours)
    first, payload = endpoint.exchange(0x82, message)
    assert first == 0xC2
    assert inflated(payload, 9) == message


# Without agreement


@both_roles
@requirement("D5-6", "9.1-6")
@pytest.mark.parametrize(
    ("theirs", "ours"), [(None, Deflate()), (f"{PMD}; foo", Deflate()), (PMD, None)]
)
def test_endpoint_uses_no_compression_that_was_not_agreed(
    role: str, theirs: str | None, ours: Deflate | None
) -> None:
    if role == "client":
        theirs = None
    endpoint = EchoingEndpoint(role, theirs, ours)
    assert endpoint.agreed is None
    assert endpoint.exchange(0x81, TEXT.encode()) == (0x81, TEXT.encode())
    endpoint.received.popleft()
    endpoint.say(0xC1, HELLO)
    endpoint.assert_closed_with(1002)

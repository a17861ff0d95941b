"""What has to hold for an input, without a socket. A check that fails raises AssertionError."""

import contextlib
import http.client
import io
import random
from collections.abc import Sequence

from fuzzing.faults import blaming
from fuzzing.generator import REQUEST, RESPONSE, random_head
from fuzzing.ours import echo_stream, read_stream, read_while_closing
from fuzzing.outcomes import (
    MAX_MESSAGE,
    NOT_DEFLATED,
    OPEN,
    End,
    Event,
    Input,
    Outcome,
    Reading,
    as_bytes,
    messages_of,
    other,
)
from fuzzing.strangers import STRANGERS, find_difference, looks_too_far_back, read_by_websockets
from peers import KEY, unmasked, xor
from rfc6455 import Deflate, InvalidHandshake, handshake
from rfc6455.deflate import accept_offer, check_answer

# Streams of frames


def check_stream(item: Input, strangers: Sequence[str] = tuple(STRANGERS)) -> list[str]:
    """Our layer's readers agree with each other, and with these strangers.

    Returns the known reasons for which strangers differ.
    """
    ours = read_stream(item.role, item.agreed, item.pieces)
    check_pieces(item, ours)
    check_endpoint(item, ours)
    if item.role == "server":  # a client's frames are masked at random; the code is the same
        check_closing_endpoint(item, ours)
    found = [find_difference(who, item.role, item.agreed, item.pieces, ours) for who in strangers]
    return [why for why in found if why]


def assert_equal(what: str, found: object, expected: object) -> None:
    """An `assert` that tells both values, under pytest and in the command."""
    assert found == expected, f"{what}: {found!r}\nexpected: {expected!r}"


def check_pieces(item: Input, ours: Reading) -> None:
    """A stream means the same whether it comes in pieces or whole."""
    whole = read_stream(item.role, item.agreed, [b"".join(item.pieces)])
    if item.expected is not None:
        assert_equal("a good stream", whole.outcome, item.expected)
    if ours.outcome != whole.outcome and not looks_too_far_back(ours, whole.outcome):
        assert_equal("events of the pieces", ours.outcome.events, whole.outcome.events)
        both_may = may_be_wrong_twice(item.agreed, whole) and may_be_wrong_twice(item.agreed, ours)
        assert both_may, f"the pieces end with {ours.outcome.end}, the whole {whole.outcome.end}"


def may_be_wrong_twice(agreed: Deflate | None, ours: Reading) -> bool:
    """Whether a message may be bad deflate data, bad text and too long at once.

    Which of these is found first depends on where the data is cut.
    """
    return agreed is not None and ours.failed_with(1007, 1009)


def check_endpoint(item: Input, ours: Reading) -> bytes:
    """Our endpoint receives these messages, and ends the connection as it should.

    Returns what it sends.
    """
    session = echo_stream(item)
    websocket = session.websocket
    end = ours.outcome.end
    reasons = {
        "open": "the peer ended TCP without a Close",
        "closed": end.reason,
        "failed": ours.reason,
    }
    assert_equal("received", session.received, messages_of(ours.outcome))
    assert all(len(message) <= MAX_MESSAGE for message in session.received)
    assert_equal("clean", websocket.clean, end.kind == "closed")
    assert_equal("close_code", websocket.close_code, end.code if end.kind == "closed" else 1006)
    assert_equal("close_reason", websocket.close_reason, reasons[end.kind])
    assert_equal("sent", read_answer(item, session.sent), expected_answer(ours))
    return session.sent


def read_answer(item: Input, sent: bytes) -> Outcome:
    """What an endpoint of ours has sent, as a stranger reads it.

    A stranger that raises here may have been sent nonsense, so it is not blamed.
    """
    return read_by_websockets(other(item.role), item.agreed, [sent], None)


def expected_answer(ours: Reading) -> Outcome:
    """What an echoing endpoint sends: its Close repeats the peer's code, or says what failed."""
    events: list[Event] = []
    for event in ours.outcome.events:
        if event.kind == "ping":
            events.append(Event("pong", event.payload))
        elif event.kind != "pong":
            events.append(event)
    end = ours.outcome.end
    return Outcome(events, OPEN if end == OPEN else End("closed", end.code, ours.reason))


def check_closing_endpoint(item: Input, ours: Reading) -> None:
    """After its own Close our endpoint still receives messages, and sends pongs and no more."""
    session = read_while_closing(item)
    expected = messages_of(ours.outcome)
    if ours.has_small_window and ours.reason == NOT_DEFLATED:
        # As in `looks_too_far_back`: here more of the data may have come in one piece.
        assert_equal("received first", session.received[: len(expected)], expected)
        if len(session.received) > len(expected):
            return
    assert_equal("received", session.received, expected)
    assert_equal("clean", session.websocket.clean, ours.outcome.end.kind == "closed")
    pings = [as_bytes(event.payload) for event in ours.outcome.events if event.kind == "ping"]
    sent = b"\x88\x02\x0f\xa0" + b"".join(unmasked(0x8A, ping) for ping in pings)
    if ours.outcome.end.kind == "failed":
        # The clock reads ahead: it may have answered pings that came after what turned out wrong.
        allowed = [sent]
        for ping in pings_by_header(b"".join(item.pieces))[len(pings) :]:
            allowed.append(allowed[-1] + unmasked(0x8A, ping))
        assert session.sent in allowed, f"sent {session.sent!r}, not one of {allowed!r}"
    else:
        assert_equal("sent", session.sent, sent)


def pings_by_header(data: bytes) -> list[bytes]:
    """The payloads of a client's Pings up to a Close or a bad control frame.

    Only headers are looked at, so that bad data frames do not end it.
    """
    pings = []
    at = 0
    while len(data) - at >= 2:
        first = data[at]
        size = data[at + 1] & 0x7F
        header = 2
        if first & 0x08 and (first not in (0x89, 0x8A) or size > 125):
            break
        if not data[at + 1] & 0x80:
            break
        if size > 125:
            header += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : at + header], "big")
        key = data[at + header :][:4]
        payload = data[at + header + 4 :][:size]
        at += header + 4 + size
        if first == 0x89 and at <= len(data):
            pings.append(xor(payload, key))
    return pings


# Heads of opening handshakes


def check_heads(r: random.Random) -> None:
    """The functions of both sides accept a head or raise InvalidHandshake, and nothing else."""
    with blaming("the generator"):
        response = random_head(RESPONSE, r)
        request = random_head(REQUEST, r)
    with contextlib.suppress(InvalidHandshake):
        check_response(response)
    with contextlib.suppress(InvalidHandshake):
        check_request(request)


def check_response(data: bytes) -> None:
    head, end, _ = data.partition(b"\r\n\r\n")
    response = handshake.parse_response(head + end)
    chosen = handshake.check_response(response, KEY, ["chat"])
    check_answer(chosen.extensions, Deflate())


def check_request(data: bytes) -> None:
    """As our server does, which has http.client parse the header fields."""
    _, _, fields = data.partition(b"\r\n")
    fields, end, _ = fields.partition(b"\r\n\r\n")
    lines = [line + b"\n" for line in (fields + end).split(b"\n")[:-1]]
    for line in lines[:-1]:
        handshake.check_header_line(line)
    headers = http.client.parse_headers(io.BytesIO(b"".join(lines)))
    handshake.check_host(headers, handshake.LOOPBACK_HOSTS)
    handshake.check_request("GET", "HTTP/1.1", headers)
    handshake.check_origin(headers, ())
    handshake.choose_subprotocol(headers, ["superchat"])
    accept_offer(handshake.parse_extensions(headers), Deflate())

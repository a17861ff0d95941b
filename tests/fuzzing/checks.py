"""What has to hold for an input, without a socket. A check that fails raises AssertionError."""

import contextlib
import http.client
import io
import random
from collections.abc import Sequence

from fuzzing.faults import blaming
from fuzzing.generator import REQUEST, RESPONSE, random_head
from fuzzing.ours import parse_frames, read_slowly, read_stream, use_websocket
from fuzzing.outcomes import (
    MAX_MESSAGE,
    NOT_DEFLATED,
    OPEN,
    End,
    Event,
    Input,
    Outcome,
    Reading,
    control_payloads,
    messages_of,
    other,
)
from fuzzing.strangers import STRANGERS, find_difference, looks_too_far_back, read_by_websockets
from fuzzing.walking import frames_in, pings_in
from peers import KEY, unmasked
from rfc6455 import Deflate, InvalidHandshake, WebSocket, handshake
from rfc6455.deflate import accept_offer, check_answer

SHORT = 200  # bytes of a stream that is also read byte by byte

# Streams of frames


def check_stream(item: Input, strangers: Sequence[str] = tuple(STRANGERS)) -> list[str]:
    """Our layer's readers agree with each other, and with these strangers.

    Returns the known reasons for which strangers differ.
    """
    ours = read_stream(item.role, item.agreed, item.pieces)
    check_frames(item)
    check_protocol(item, ours)
    check_cuts(item, ours)
    check_busy_reader(item, ours)
    check_endpoint(item, ours)
    check_busy_endpoint(item, ours)
    if item.role == "server":  # a client's frames are masked at random; the code is the same
        check_closing_endpoint(item, ours)
    found = [find_difference(who, item.role, item.agreed, item.pieces, ours) for who in strangers]
    return [why for why in found if why]


def assert_equal(what: str, found: object, expected: object) -> None:
    """An `assert` that tells both values, under pytest and in the command."""
    assert found == expected, f"{what}: {found!r}\nexpected: {expected!r}"


def check_frames(item: Input) -> None:
    """Our parser finds the frames that are there, up to the one that it refuses."""
    frames, error = parse_frames(item)
    expected = [frame for frame in frames_in(b"".join(item.pieces)) if frame.is_whole]
    assert_equal("frames", frames, expected[: len(frames)])
    if error is None:
        assert_equal("the number of frames", len(frames), len(expected))


def check_protocol(item: Input, ours: Reading) -> None:
    """Our protocol answers each Ping and the Close, and sends no more."""
    events = [Event("pong", ping) for ping in control_payloads("ping", ours.outcome)]
    expected = Outcome(events, expected_close(ours))
    assert_equal("sent by the protocol", read_answer(item, ours.sent), expected)


def check_cuts(item: Input, ours: Reading) -> None:
    """A stream means the same in pieces, whole, and, if it is short, byte by byte."""
    data = b"".join(item.pieces)
    whole = read_stream(item.role, item.agreed, [data])
    if item.expected is not None:
        assert_equal("a good stream", whole.outcome, item.expected)
    check_same("the pieces and the whole", item.agreed, ours, whole)
    if len(data) <= SHORT:
        single = [data[at : at + 1] for at in range(len(data))]
        by_bytes = read_stream(item.role, item.agreed, single)
        check_same("the pieces and the bytes", item.agreed, ours, by_bytes)


def check_same(what: str, agreed: Deflate | None, one: Reading, another: Reading) -> None:
    """Two ways to cut a stream lead to the same outcome, but for what zlib makes of a cut."""
    if one.outcome == another.outcome or looks_too_far_back(one, another.outcome):
        return
    assert_equal(f"events of {what}", one.outcome.events, another.outcome.events)
    both_may = may_be_wrong_twice(agreed, one) and may_be_wrong_twice(agreed, another)
    assert both_may, f"{what}: {one.outcome.end} and {another.outcome.end}"


def may_be_wrong_twice(agreed: Deflate | None, ours: Reading) -> bool:
    """Whether a message may be bad deflate data, bad text and too long at once.

    Which of these is found first depends on where the data is cut.
    """
    return agreed is not None and ours.failed_with(1007, 1009)


def check_busy_reader(item: Input, ours: Reading) -> None:
    """Our protocol means the same when it answers Pings before the messages are asked for."""
    busy = read_slowly(item.role, item.agreed, item.pieces)
    if check_messages_of_busy(ours, busy.reason, messages_of(busy.outcome)):
        return
    if busy.outcome.end != ours.outcome.end:
        both_may = may_be_wrong_twice(item.agreed, busy) and may_be_wrong_twice(item.agreed, ours)
        assert both_may, f"a busy reader ends with {busy.outcome.end}, not {ours.outcome.end}"
    check_pings(item, ours, control_payloads("ping", busy.outcome))


def check_messages_of_busy(ours: Reading, reason: str, received: list[str | bytes]) -> bool:
    """A busy reader receives the same messages; whether the stream may have ended elsewhere.

    As in `looks_too_far_back`: more of the data comes in one piece where it is read ahead.
    """
    expected = messages_of(ours.outcome)
    if ours.has_small_window and NOT_DEFLATED in (reason, ours.reason):
        count = min(len(expected), len(received))
        assert_equal("received first", received[:count], expected[:count])
        return True
    assert_equal("received", received, expected)
    return False


def check_pings(item: Input, ours: Reading, answered: list[bytes]) -> None:
    """These Pings were answered; a busy reader may have found some behind what turned out bad."""
    pings = control_payloads("ping", ours.outcome)
    if ours.outcome.end.kind == "failed":
        pings += pings_in(item.role, b"".join(item.pieces))[len(pings) : len(answered)]
    assert_equal("answered", answered, pings)


def check_endpoint(item: Input, ours: Reading) -> bytes:
    """Our endpoint receives these messages, and ends the connection as it should.

    Returns what it sends.
    """
    session = use_websocket(item)
    assert_equal("received", session.received, messages_of(ours.outcome))
    assert all(len(message) <= MAX_MESSAGE for message in session.received)
    check_end(session.websocket, ours)
    assert_equal("sent", read_answer(item, session.sent), expected_answer(ours))
    return session.sent


def check_end(websocket: WebSocket, ours: Reading) -> None:
    end = ours.outcome.end
    reasons = {
        "open": "the peer ended TCP without a Close",
        "closed": end.reason,
        "failed": ours.reason,
    }
    assert_equal("clean", websocket.clean, end.kind == "closed")
    assert_equal("close_code", websocket.close_code, end.code if end.kind == "closed" else 1006)
    assert_equal("close_reason", websocket.close_reason, reasons[end.kind])


def read_answer(item: Input, sent: bytes) -> Outcome:
    """What an endpoint of ours has sent, as a stranger reads it.

    A stranger that raises here may have been sent nonsense, so it is not blamed.
    """
    return read_by_websockets(other(item.role), item.agreed, [sent], None)


def expected_answer(ours: Reading) -> Outcome:
    """What an echoing endpoint sends."""
    events: list[Event] = []
    for event in ours.outcome.events:
        if event.kind == "ping":
            events.append(Event("pong", event.payload))
        elif event.kind != "pong":
            events.append(event)
    return Outcome(events, expected_close(ours))


def expected_close(ours: Reading) -> End:
    """The Close that our side sends: it repeats the peer's code, or says what failed."""
    end = ours.outcome.end
    return OPEN if end == OPEN else End("closed", end.code, ours.reason)


def check_busy_endpoint(item: Input, ours: Reading) -> None:
    """An echoing endpoint sends the same, some Pongs earlier, when the clock reads ahead for it."""
    session = use_websocket(item, looks=1)
    websocket = session.websocket
    if check_messages_of_busy(ours, websocket.close_reason, session.received):
        return
    answer = read_answer(item, session.sent)
    assert_equal("echoed", messages_of(answer), session.received)
    check_pings(item, ours, control_payloads("pong", answer))
    if answer.end != expected_close(ours):
        assert may_be_wrong_twice(item.agreed, ours), f"{answer.end}, not {expected_close(ours)}"
        assert answer.end.code in (1007, 1009), answer.end
    else:
        check_end(websocket, ours)


def check_closing_endpoint(item: Input, ours: Reading) -> None:
    """After its own Close our endpoint still receives messages, and sends Pongs and no more."""
    session = use_websocket(item, looks=3, is_closing=True)
    websocket = session.websocket
    if check_messages_of_busy(ours, websocket.close_reason, session.received):
        return
    assert_equal("clean", websocket.clean, ours.outcome.end.kind == "closed")
    close = b"\x88\x02\x0f\xa0"
    assert_equal("sent first", session.sent[:4], close)
    frames = list(frames_in(session.sent[4:]))
    check_pings(item, ours, [frame.payload for frame in frames])
    pongs = b"".join(unmasked(0x8A, frame.payload) for frame in frames)
    assert_equal("sent", session.sent, close + pongs)


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

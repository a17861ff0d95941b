"""The playground's `/frame` events: each frame of the connection, as it was on the wire (5.2)."""

import json
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from pairs import BRISK
from peers import PATIENCE, Peer, close_payload, eventually, masked, serving, shake_hands, unmasked
from playground import frame_events
from playground.commands import playground
from programs import Program, echo
from rfc6455 import Deflate, WebSocket

FRAMES = "/playground?frames"
MASKED_HELLO = bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")  # of 5.7


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with echo() as program:
        yield program


@pytest.fixture
def peer(server: Program) -> Iterator[Peer]:
    with shake_hands(server, FRAMES) as peer:
        yield peer


def read_event(peer: Peer) -> tuple[str, dict[str, Any]] | None:
    """The next frame's event; None if it carries something else."""
    first, payload = peer.read_frame()
    name, _, fields = payload.decode(errors="replace").partition(" ")
    if first != 0x81 or name not in ("/frame", "/dropped"):
        return None
    return name, json.loads(fields)


def read_frames(peer: Peer, count: int) -> list[dict[str, Any]]:
    """The next frames that are told."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        event = read_event(peer)
        if event:
            assert event[0] == "/frame"
            found.append(event[1])
    return found


def wire(told: dict[str, Any]) -> bytes:
    """A frame as it travelled, or its beginning."""
    return bytes.fromhex(told["header"] + told["wire_payload"])


def test_all_fields_of_a_masked_frame_and_of_its_echo_are_told(peer: Peer) -> None:
    peer.send(MASKED_HELLO)
    came, went = read_frames(peer, 2)
    assert came == {
        "number": 1,
        "from": "client",
        "message": 1,
        "fragment": 1,
        "header": "818537fa213d",
        "fin": True,
        "rsv": 0,
        "opcode": 1,
        "masked": True,
        "short_length": 5,
        "extended_length": "",
        "length": 5,
        "masking_key": "37fa213d",
        "wire_payload": "7f9f4d5158",
        "payload": "48656c6c6f",
        "is_text": True,
        "inflated": None,
        "inflated_length": 0,
        "close": None,
    }
    assert went == came | {
        "number": 2,
        "from": "server",
        "header": "8105",
        "masked": False,
        "masking_key": "",
        "wire_payload": "48656c6c6f",
    }


@pytest.mark.parametrize(
    ("size", "short", "extended"),
    [
        (0, 0, ""),
        (125, 125, ""),
        (126, 126, "007e"),
        (65535, 126, "ffff"),
        (65536, 127, "0000000000010000"),
    ],
)
def test_length_is_told_as_it_was_coded_and_the_beginning_of_the_payload(
    peer: Peer, size: int, short: int, extended: str
) -> None:
    peer.send(masked(0x82, b"x" * size, key=b"\x00\x01\x02\x03"))
    came, went = read_frames(peer, 2)
    for told in (came, went):
        assert (told["short_length"], told["extended_length"]) == (short, extended)
        assert (told["length"], told["opcode"], told["is_text"]) == (size, 2, False)
        assert told["payload"] == "78" * min(size, 256)
    assert came["wire_payload"][:8] == "78797a7b"[: 2 * size]
    assert wire(went) == unmasked(0x82, b"x" * size)[: len(wire(went))]


def test_control_frames_and_fragments_of_both_directions_are_told_in_the_order_of_the_wire(
    peer: Peer,
) -> None:
    sent = [
        masked(0x01, b"Hel"),
        masked(0x89, b"between"),
        masked(0x80, b"lo"),
        masked(0x81, b"/fragments a /ping b"),
    ]
    for frame in sent:
        peer.send(frame)
    told = read_frames(peer, 9)
    assert [wire(each) for each in told if each["from"] == "client"] == sent
    assert [wire(each) for each in told if each["from"] == "server"] == [
        unmasked(0x8A, b"between"),
        unmasked(0x81, b"Hello"),
        unmasked(0x01, b"a"),
        unmasked(0x89, b"2"),
        unmasked(0x80, b"b"),
    ]
    assert [each["number"] for each in told] == list(range(1, 10))
    places = [(each["from"], each["message"], each["fragment"]) for each in told]
    assert sorted(places, key=str) == [
        ("client", 1, 1),
        ("client", 1, 2),
        ("client", 2, 1),
        ("client", None, None),
        ("server", 1, 1),
        ("server", 2, 1),
        ("server", 2, 2),
        ("server", None, None),
        ("server", None, None),
    ]


def test_pong_and_the_event_that_tells_of_it_are_told_too(peer: Peer) -> None:
    peer.send(masked(0x81, b"/ping hello"))
    assert [wire(each)[0] for each in read_frames(peer, 2)] == [0x81, 0x89]
    peer.send(masked(0x8A, b"hello"))
    pong, event = read_frames(peer, 2)
    assert wire(pong) == masked(0x8A, b"hello")
    assert bytes.fromhex(event["payload"]).startswith(b'/pong {"to": 1, ')
    assert (event["from"], event["message"]) == ("server", 1)


@pytest.mark.parametrize(
    ("command", "frame", "close"),
    [
        (b"/close 1000", b"\x88\x02\x03\xe8", {"code": 1000, "reason": ""}),
        (
            b"/close 4001 \xe4\xbd\xa0",
            b"\x88\x05\x0f\xa1\xe4\xbd\xa0",
            {"code": 4001, "reason": "你"},
        ),
    ],
)
def test_close_by_command_is_told_before_it_comes(
    peer: Peer, command: bytes, frame: bytes, close: dict[str, Any]
) -> None:
    peer.send(masked(0x81, command))
    told = read_frames(peer, 2)[1]
    assert (wire(told), told["from"], told["close"]) == (frame, "server", close)
    assert peer.read_frame() == (0x88, frame[2:])


def test_close_of_the_client_is_answered_and_not_told(peer: Peer) -> None:
    peer.send(masked(0x88, close_payload(4321, "enough")))
    assert peer.read_close() == (4321, "")


def test_text_of_a_client_that_looks_like_an_event_is_no_event(peer: Peer) -> None:
    peer.send(masked(0x81, b"/frame {}"))  # no command either
    peer.send(masked(0x81, b"//frame {}"))
    told = read_frames(peer, 4)
    payloads = [bytes.fromhex(each["payload"]) for each in told]
    assert payloads.count(b"//frame {}") == 2
    assert payloads.count(b"/frame {}") == 1
    assert [each for each in payloads if each.startswith(b"/refused ")]


def test_client_that_has_not_asked_is_told_no_frames(server: Program) -> None:
    for target in ("/playground", "/playground?x=frames"):
        with shake_hands(server, target) as peer:
            peer.send(MASKED_HELLO)
            assert peer.read_frame() == (0x81, b"Hello")
            assert peer.is_silent(0.05)


def test_compressed_frames_are_told_with_what_they_inflate_to() -> None:
    deflated = bytes.fromhex("f2 48 cd c9 c9 07 00")  # Hello, of RFC 7692, 7.2.3.1
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    with (
        serving(playground, deflate=Deflate()) as server,
        shake_hands(server, "/?frames", **offer) as peer,
    ):
        peer.send(masked(0xC1, deflated))
        peer.send(masked(0x81, b"x" * 2000))
        told: list[dict[str, Any]] = []
        while len(told) < 4:
            first, payload = peer.read_frame()
            if first == 0xC1:
                payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
            if payload.startswith(b"/frame "):
                told.append(json.loads(payload[7:]))
    (came,) = (each for each in told if each["header"].startswith("c187"))
    assert wire(came) == masked(0xC1, deflated)
    assert (came["rsv"], came["is_text"]) == (4, True)
    assert (came["inflated"], came["inflated_length"]) == ("48656c6c6f", 5)
    (went,) = (each for each in told if each["from"] == "server" and each["message"] == 2)
    assert (went["rsv"], went["inflated"], went["inflated_length"]) == (4, "78" * 256, 2000)
    assert went["length"] < 100


def test_client_that_reads_too_slowly_is_told_how_many_frames_it_has_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_events, "MAX_WAITING", 3)
    is_telling = threading.Event()
    go_on = threading.Event()
    send = WebSocket.send

    def send_later(websocket: WebSocket, message: Any) -> None:
        if threading.current_thread().name == "frame-teller":
            is_telling.set()
            assert go_on.wait(PATIENCE)
        send(websocket, message)

    monkeypatch.setattr(WebSocket, "send", send_later)
    with serving(playground, timeouts=BRISK) as server, shake_hands(server, "/?frames") as peer:
        peer.send(masked(0x82, b"0"))
        assert peer.read_frame() == (0x82, b"0")
        assert is_telling.wait(PATIENCE)
        for number in range(1, 11):
            peer.send(masked(0x82, b"%d" % number))
            assert peer.read_frame() == (0x82, b"%d" % number)
        go_on.set()
        events = [read_event(peer) for _ in range(5)]
        numbers = [event and event[1].get("number") for event in events]
        assert numbers == [1, 2, 3, 4, None]
        assert events[4] == ("/dropped", {"frames": 18})
        peer.send(masked(0x82, b"more"))
        assert [each["number"] for each in read_frames(peer, 2)] == [23, 24]


def test_close_does_not_wait_long_for_a_client_that_reads_no_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_events, "TELLING_TIME", 0.01)
    go_on = threading.Event()
    send = WebSocket.send

    def send_later(websocket: WebSocket, message: Any) -> None:
        assert go_on.wait(PATIENCE)
        send(websocket, message)

    monkeypatch.setattr(WebSocket, "send", send_later)
    with serving(playground) as server, shake_hands(server, "/?frames") as peer:
        peer.send(masked(0x81, b"/close 4000"))
        assert peer.read_frame() == (0x88, b"\x0f\xa0")
        go_on.set()


def test_thread_ends_with_its_connection() -> None:
    def is_there() -> bool:
        return any(each.name == "frame-teller" for each in threading.enumerate())

    with serving(playground) as server:
        for ending in (masked(0x88, b"\x03\xe8"), masked(0x81, b"/close 1000"), b"\x00", b""):
            with shake_hands(server, "/?frames") as peer:
                assert eventually(is_there)
                peer.send(ending)
            assert eventually(lambda: not is_there())


def test_client_is_refused_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "frame-teller":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with serving(playground) as server, shake_hands(server, "/?frames") as peer:
        assert peer.read_frame() == (
            0x88,
            close_payload(1013, "the server has no thread left for frames"),
        )

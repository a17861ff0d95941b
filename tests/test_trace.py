"""What a trace makes of the bytes of a connection, without a socket (RFC 6455, 4, 5.2)."""

import io
import tracemalloc
import zlib
from typing import Any, TextIO

import pytest

from peers import masked, unmasked
from protocols import halves, single_bytes, whole
from rfc6455 import Deflate, Frame, HandshakeLine, describe, wants_colour
from rfc6455.deflate import Inflater
from rfc6455.frames import FrameParser
from rfc6455.protocol import Reading
from rfc6455.trace import KEPT, Trace, Traced

KEY = "37 fa 21 3d"
REQUEST = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\n\r\n"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


class Watched:
    """A trace, and what it has shown. It is that of a server unless `is_client` is true."""

    def __init__(self, **agreed: Any) -> None:
        self.shown: list[Traced] = []
        self.trace = Trace("peer", self.shown.append)
        self._agreed = {"is_client": False, "max_message": 1000, "deflate": None} | agreed

    def begin(self) -> "Watched":
        self.trace.begin_frames(**self._agreed)
        return self

    @property
    def frames(self) -> list[Frame]:
        return [each for each in self.shown if isinstance(each, Frame)]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Each line of a handshake, with the direction."""
        return [
            ("sent" if each.sent else "received", each.text)
            for each in self.shown
            if isinstance(each, HandshakeLine)
        ]

    def words(self) -> list[str]:
        """What is said of each frame, without the peer and the direction."""
        return [
            describe(frame).removeprefix("peer ").split(" ", 1)[1].strip() for frame in self.frames
        ]


def received(data: str | bytes, **agreed: Any) -> Watched:
    watched = Watched(**agreed).begin()
    watched.trace.received(bytes.fromhex(data) if isinstance(data, str) else data)
    return watched


# Frames, whose fields are those of 5.2


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        # The examples of 5.7
        (
            f"81 85 {KEY} 7f 9f 4d 51 58",
            f"81 85 {KEY}  FIN 1, RSV 000, opcode 0x1 TEXT, MASK 1, length 5 in 7 bits, "
            f"masking key {KEY}, masked payload 7f 9f 4d 51 58, payload 48 65 6c 6c 6f, "
            'text "Hello"',
        ),
        (
            f"89 85 {KEY} 7f 9f 4d 51 58",
            f"89 85 {KEY}  FIN 1, RSV 000, opcode 0x9 PING, MASK 1, length 5 in 7 bits, "
            f"masking key {KEY}, masked payload 7f 9f 4d 51 58, payload 48 65 6c 6c 6f",
        ),
        (
            f"8a 80 {KEY}",
            f"8a 80 {KEY}  FIN 1, RSV 000, opcode 0xA PONG, MASK 1, length 0 in 7 bits, "
            f"masking key {KEY}",
        ),
        (
            f"82 fe 00 7e {KEY}" + "37 fa 21 3d" * 31 + "37 fa",
            f"82 fe 00 7e {KEY}  FIN 1, RSV 000, opcode 0x2 BINARY, MASK 1, length 126 in 16 bits, "
            f"masking key {KEY}, masked payload {' '.join([KEY] * 4)} … 110 more, "
            f"payload {' '.join(['00'] * 16)} … 110 more",
        ),
        (
            f"88 85 {KEY} 34 12 43 44 52",
            f"88 85 {KEY}  FIN 1, RSV 000, opcode 0x8 CLOSE, MASK 1, length 5 in 7 bits, "
            f"masking key {KEY}, masked payload 34 12 43 44 52, payload 03 e8 62 79 65, "
            'code 1000 NORMAL, reason "bye"',
        ),
        (
            f"88 82 {KEY} 38 5a",
            f"88 82 {KEY}  FIN 1, RSV 000, opcode 0x8 CLOSE, MASK 1, length 2 in 7 bits, "
            f"masking key {KEY}, masked payload 38 5a, payload 0f a0, code 4000",
        ),
        (
            f"88 80 {KEY}",
            f"88 80 {KEY}  FIN 1, RSV 000, opcode 0x8 CLOSE, MASK 1, length 0 in 7 bits, "
            f"masking key {KEY}, no code",
        ),
    ],
)
@pytest.mark.parametrize("arriving", [whole, halves, single_bytes])
def test_frame_is_told_field_by_field(frame: str, words: str, arriving: Any) -> None:
    watched = Watched().begin()
    for piece in arriving(bytes.fromhex(frame)):
        watched.trace.received(piece)
    assert watched.words() == [words]


def test_what_we_send_is_told_with_the_other_direction_and_without_a_mask() -> None:
    watched = Watched().begin()
    watched.trace.sent(bytes.fromhex("81 05 48656c6c6f 8a 00"))
    watched.trace.received(masked(0x89))
    assert [describe(frame).partition("  FIN")[0] for frame in watched.frames] == [
        "peer sent     81 05",
        "peer sent     8a 00",
        "peer received 89 80 37 fa 21 3d",
    ]
    assert watched.words()[0] == (
        "81 05  FIN 1, RSV 000, opcode 0x1 TEXT, MASK 0, length 5 in 7 bits, "
        'payload 48 65 6c 6c 6f, text "Hello"'
    )


def test_client_masks_what_it_sends_and_its_server_does_not() -> None:
    watched = Watched(is_client=True).begin()
    watched.trace.sent(masked(0x81, b"Hello"))
    watched.trace.received(unmasked(0x81, b"Hello"))
    assert [frame.masking_key.hex(" ") for frame in watched.frames] == [KEY, ""]
    assert [frame.wire_payload.hex() for frame in watched.frames] == ["7f9f4d5158", "48656c6c6f"]
    assert [frame.payload for frame in watched.frames] == [b"Hello", b"Hello"]


def test_length_of_64_bits_is_told_and_only_the_first_bytes_are_kept() -> None:
    watched = Watched(max_message=100_000, is_client=True).begin()
    for piece in halves(unmasked(0x81, b"x" * 65536)):
        watched.trace.received(piece)
    (frame,) = watched.frames
    assert frame.header.hex(" ") == "81 7f 00 00 00 00 00 01 00 00"
    assert frame.extended_length.hex(" ") == "00 00 00 00 00 01 00 00"
    assert (frame.length, len(frame.payload), frame.missing) == (65536, KEPT, 0)
    shown = watched.words()[0]
    assert "length 65536 in 64 bits, payload 78 78" in shown
    assert f'… 65520 more, text "{"x" * 60}…"' in shown


def test_fragments_are_told_one_by_one_and_controls_between_them() -> None:
    watched = received(
        masked(0x01, b"Hel") + masked(0x89, b"p") + masked(0x00, b"l") + masked(0x80, b"o")
    )
    assert [(frame.fin, frame.opcode, frame.is_text) for frame in watched.frames] == [
        (False, 0x1, True),
        (True, 0x9, False),
        (False, 0x0, True),
        (True, 0x0, True),
    ]
    assert "opcode 0x0 CONTINUATION, MASK 1" in watched.words()[3]
    assert watched.words()[3].endswith('payload 6f, text "o"')


def test_fragments_of_binary_data_have_no_text() -> None:
    watched = received(masked(0x02, b"Hel") + masked(0x80, b"lo"))
    assert [frame.is_text for frame in watched.frames] == [False, False]
    assert "text" not in "".join(watched.words())


def test_text_cannot_act_on_the_terminal_and_may_be_cut_within_a_character() -> None:
    watched = received(masked(0x01, b"\x1b[2Jevil\xe4\xbd") + masked(0x80, b"\xa0\n"))
    assert watched.words()[0].endswith('text "\\x1b[2Jevil�"')
    assert watched.words()[1].endswith('text "�\\n"')
    (closed,) = received(masked(0x88, b"\x03\xe8\x1b]0;title")).words()
    assert closed.endswith('code 1000 NORMAL, reason "\\x1b]0;title"')


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            "81 05",
            "81 05  FIN 1, RSV 000, opcode 0x1 TEXT, MASK 0, length 5 in 7 bits, "
            "broken: the frame is not masked",
        ),
        (
            "b1 80",
            "b1 80  FIN 1, RSV 011, opcode 0x1 TEXT, MASK 1, length 0 in 7 bits, "
            "broken: a reserved bit is set",
        ),
        (
            "83 80",
            "83 80  FIN 1, RSV 000, opcode 0x3 reserved, MASK 1, length 0 in 7 bits, "
            "broken: opcode 0x3 is reserved",
        ),
        (
            "09 80",
            "09 80  FIN 0, RSV 000, opcode 0x9 PING, MASK 1, length 0 in 7 bits, "
            "broken: a control frame is fragmented",
        ),
        (
            "82 fe 00 05",
            "82 fe 00 05  FIN 1, RSV 000, opcode 0x2 BINARY, MASK 1, length 5 in 16 "
            "bits, broken: the length is badly encoded",
        ),
        (
            "82 fe 03 e9",
            "82 fe 03 e9  FIN 1, RSV 000, opcode 0x2 BINARY, MASK 1, length 1001 in "
            "16 bits, broken: the message is over 1000 bytes",
        ),
    ],
)
def test_broken_frame_is_told_with_the_rule_and_nothing_after_it(data: str, words: str) -> None:
    watched = received(data)
    watched.trace.received(masked(0x81, b"late"))
    watched.trace.end()
    assert watched.words() == [words]


def test_nothing_is_said_of_the_code_of_a_close_whose_payload_was_not_looked_at() -> None:
    (words,) = received("88 05 03e8").words()
    assert words == (
        "88 05  FIN 1, RSV 000, opcode 0x8 CLOSE, MASK 0, length 5 in 7 bits, "
        "broken: the frame is not masked"
    )


def test_rest_of_a_frame_that_is_broken_at_its_beginning_is_not_called_missing() -> None:
    watched = Watched(is_client=True, deflate=Deflate()).begin()
    watched.trace.received(bytes.fromhex("c1 09 ff ff"))
    (frame,) = watched.frames
    assert (frame.missing, frame.error) == (0, "the data is not deflated")
    watched.trace.end()
    assert len(watched.frames) == 1


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x03", "a Close frame has half a code"),
        (b"\x03\xed", "close code 1005 is not allowed"),
        (b"\x03\xe8\xff", "the close reason is not UTF-8"),
    ],
)
def test_bad_close_is_told_as_what_is_wrong_with_it(payload: bytes, words: str) -> None:
    assert received(masked(0x88, payload)).words()[0].endswith(words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("81", "81  FIN 1, RSV 000, opcode 0x1 TEXT, broken: it is cut off"),
        ("82 fe 00", "82 fe 00  FIN 1, RSV 000, opcode 0x2 BINARY, MASK 1, broken: it is cut off"),
        (
            f"81 85 {KEY} 7f",
            f"81 85 {KEY}  FIN 1, RSV 000, opcode 0x1 TEXT, MASK 1, length 5 in 7 "
            f"bits, masking key {KEY}, masked payload 7f … 4 more, payload 48 … 4 more, "
            'text "H…", 4 bytes are missing, broken: it is cut off',
        ),
        (
            f"89 85 {KEY} 7f",
            f"89 85 {KEY}  FIN 1, RSV 000, opcode 0x9 PING, MASK 1, length 5 in 7 "
            f"bits, masking key {KEY}, masked payload 7f … 4 more, payload 48 … 4 more, "
            "4 bytes are missing, broken: it is cut off",
        ),
    ],
)
def test_frame_that_is_cut_off_is_told_at_the_end(data: str, words: str) -> None:
    watched = received(data)
    assert watched.shown == []
    watched.trace.end()
    assert watched.words()[0] == words
    watched.trace.end()
    assert len(watched.shown) == 1


def test_compressed_message_is_told_with_what_it_inflates_to() -> None:
    """The example of RFC 7692, 7.2.3.1, in two fragments as in 7.2.3.2 and then whole."""
    watched = Watched(is_client=True, deflate=Deflate()).begin()
    watched.trace.received(bytes.fromhex("41 03 f2 48 cd  80 04 c9 c9 07 00"))
    watched.trace.received(bytes.fromhex("c1 05 f2 00 11 00 00"))  # it refers to the one before
    assert [(frame.rsv, frame.inflated, frame.inflated_length) for frame in watched.frames] == [
        (0b100, b"He", 2),
        (0b000, b"llo", 3),
        (0b100, b"Hello", 5),
    ]
    assert watched.words()[2] == (
        "c1 05  FIN 1, RSV 100, opcode 0x1 TEXT, MASK 0, length 5 in 7 bits, "
        'payload f2 00 11 00 00, inflated to 5 bytes 48 65 6c 6c 6f "Hello"'
    )


def test_compressed_message_that_cannot_be_inflated_is_told_as_broken() -> None:
    watched = Watched(is_client=True, deflate=Deflate()).begin()
    watched.trace.received(bytes.fromhex("c1 02 ff ff"))
    assert watched.words()[0].endswith("broken: the data is not deflated")


def test_compressed_message_never_takes_more_memory_than_a_message_may_have() -> None:
    watched = Watched(is_client=True, max_message=4, deflate=Deflate()).begin()
    watched.trace.received(bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00"))  # "Hello"
    assert watched.words()[0].endswith("broken: the inflated message is too big")


@pytest.mark.parametrize("first", [0x81, 0x89])
@pytest.mark.parametrize("arriving", [whole, halves, single_bytes])
def test_frame_whose_beginning_was_not_seen_is_passed_over(first: int, arriving: Any) -> None:
    parser = FrameParser(masked=False, max_message=1000)
    parser.feed(unmasked(first, b"abcd")[:3])
    parser.parse()
    watched = Watched(is_client=True, reading=Reading(parser.copy(), None)).begin()
    for piece in arriving(b"bcd" + unmasked(0x81, b"e")):
        watched.trace.received(piece)
    assert [frame.payload for frame in watched.frames] == [b"e"]


@pytest.mark.parametrize("end", [b"", b"b", b"\xff\xff"])
def test_frame_whose_beginning_was_not_seen_is_not_told_when_it_breaks_either(end: bytes) -> None:
    inflater = Inflater.for_side(Deflate(), is_client=True)
    parser = FrameParser(masked=False, max_message=1000, compressed=True)
    parser.feed(unmasked(0xC1, bytes(3))[:2])
    parser.parse()
    reading = Reading(parser, inflater, is_text=True, is_compressed=True)
    watched = Watched(is_client=True, deflate=Deflate(), reading=reading).begin()
    watched.trace.received(end)
    watched.trace.end()
    assert watched.shown == []


def test_what_we_send_is_told_however_long_it_is_and_256_bytes_of_it_are_kept() -> None:
    watched = Watched(max_message=10, deflate=Deflate()).begin()
    compressor = zlib.compressobj(wbits=-15)
    deflated = compressor.compress(b"y" * 5000) + compressor.flush(zlib.Z_SYNC_FLUSH)
    watched.trace.sent(unmasked(0x82, b"x" * 5000) + unmasked(0xC2, deflated[:-4]))
    plain, compressed = watched.frames
    assert (plain.payload, plain.length, plain.error) == (b"x" * 256, 5000, "")
    assert (compressed.inflated, compressed.inflated_length) == (b"y" * 256, 5000)


def test_trace_knows_whether_anybody_is_called() -> None:
    trace = Trace("peer")
    assert not trace.has_handlers
    trace.frame_handler = print
    assert trace.has_handlers
    assert Trace("peer", print).has_handlers


# The opening handshake, line by line


@pytest.mark.parametrize("arriving", [whole, halves, single_bytes])
@pytest.mark.parametrize("is_client", [False, True])
def test_handshake_is_told_line_by_line_and_frames_follow(is_client: bool, arriving: Any) -> None:
    watched = Watched(is_client=is_client)
    ask = watched.trace.sent if is_client else watched.trace.received
    answer = watched.trace.received if is_client else watched.trace.sent
    frame = unmasked(0x81, b"a") if is_client else masked(0x81, b"a")
    early = frame if is_client else b""  # what a server may send together with its answer
    for piece in arriving(REQUEST):
        ask(piece)
    for piece in arriving(ACCEPTED + early):
        answer(piece)
    watched.begin()
    if not early:
        watched.trace.received(frame)
    asking, answering = ("sent", "received") if is_client else ("received", "sent")
    assert watched.lines == [
        (asking, "GET /ws HTTP/1.1"),
        (asking, "Host: h"),
        (asking, "Upgrade: WebSocket"),
        (asking, ""),
        (answering, "HTTP/1.1 101 Switching Protocols"),
        (answering, "Upgrade: websocket"),
        (answering, ""),
    ]
    assert [frame.payload for frame in watched.frames] == [b"a"]


def test_frames_that_a_client_sends_before_it_is_answered_are_told_after_the_answer() -> None:
    watched = Watched()
    watched.trace.received(REQUEST + masked(0x81, b"early"))
    watched.trace.sent(ACCEPTED)
    watched.begin()
    assert isinstance(watched.shown[-2], HandshakeLine)
    assert [frame.payload for frame in watched.frames] == [b"early"]


def test_refusal_is_told_with_its_text() -> None:
    watched = Watched()
    watched.trace.received(REQUEST)
    watched.trace.sent(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\n403: why\n")
    assert watched.lines[4:] == [
        ("sent", "HTTP/1.1 403 Forbidden"),
        ("sent", "Content-Length: 9"),
        ("sent", ""),
        ("sent", "403: why"),
    ]


def test_request_is_told_as_soon_as_its_head_has_come_or_is_too_long() -> None:
    watched = Watched()
    watched.trace.received(REQUEST)
    assert len(watched.lines) == 4
    watched = Watched()
    watched.trace.received(REQUEST[:-2] + b"X: " + b"x" * 16_384)
    assert len(watched.lines) == 5


def test_last_line_of_a_refusal_may_lack_its_line_end() -> None:
    watched = Watched(is_client=True)
    watched.trace.sent(REQUEST)
    watched.trace.received(b"HTTP/1.1 403 Forbidden\r\n\r\nwhy")
    watched.trace.end()
    watched.trace.end()
    assert watched.lines[4:] == [
        ("received", "HTTP/1.1 403 Forbidden"),
        ("received", ""),
        ("received", "why"),
    ]


def test_request_that_is_cut_off_is_told_as_far_as_it_came() -> None:
    watched = Watched()
    watched.trace.received(REQUEST[:-2])
    assert watched.lines == []
    watched.trace.end()
    assert watched.lines[2] == ("received", "Upgrade: WebSocket")


@pytest.mark.parametrize("target", [REQUEST, b"GET /style.css HTTP/1.1\r\nHost: h\r\n\r\n"])
def test_what_follows_a_refused_request_takes_no_memory(target: bytes) -> None:
    watched = Watched()
    watched.trace.received(target)
    watched.trace.sent(b"HTTP/1.1 404 Not Found\r\n\r\n")
    tracemalloc.start()
    for _ in range(100):
        watched.trace.received(bytes(100_000))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 500_000


def test_interim_response_does_not_end_the_handshake() -> None:
    watched = Watched(is_client=True)
    watched.trace.sent(REQUEST)
    watched.trace.received(b"HTTP/1.1 102 Processing\r\n\r\n" + ACCEPTED + unmasked(0x81, b"a"))
    assert len(watched.lines) == 9
    watched.begin()
    assert [frame.payload for frame in watched.frames] == [b"a"]


def test_requests_for_files_are_not_told() -> None:
    watched = Watched()
    watched.trace.received(
        b"GET /style.css HTTP/1.1\r\nHost: h\r\nX: not-upgrade: websocket\r\n\r\n"
    )
    watched.trace.sent(b"HTTP/1.1 200 OK\r\n\r\nbody\n")
    watched.trace.end()
    assert watched.shown == []


def test_request_that_is_refused_before_its_end_is_told_as_far_as_it_came() -> None:
    watched = Watched()
    watched.trace.received(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nbad line\n")
    watched.trace.sent(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert watched.lines[1] == ("received", "Upgrade: websocket")
    assert watched.lines[-2] == ("sent", "HTTP/1.1 400 Bad Request")


def test_line_of_a_handshake_is_escaped_for_the_terminal() -> None:
    line = HandshakeLine("[::1]:8000", False, "Cookie: \x1b[2J")
    assert describe(line) == "[::1]:8000 received Cookie: \\x1b[2J"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "wanted"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
        (None, {}, False),
    ],
)
def test_colours_are_for_terminals_unless_something_forbids_them(
    stream: TextIO | None,
    environment: dict[str, str],
    wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(stream) is wanted


def test_colours_are_added_and_nothing_else() -> None:
    (frame,) = received(masked(0x83)).frames
    coloured = describe(frame, colour=True)
    assert coloured != describe(frame)
    for code in ("36", "1", "31"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured.replace("\x1b[0m", "") == describe(frame)

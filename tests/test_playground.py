"""The echo server's `/playground`: what comes back as it came, what the server does when asked."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import simple_websocket

from pairs import BRISK
from peers import PATIENCE, Peer, close_payload, eventually, masked, serving, shake_hands
from playground.commands import MAX_PINGS, playground
from programs import Program, echo, lines_with
from rfc6455 import WebSocket


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with echo() as program:
        yield program


@pytest.fixture
def peer(server: Program) -> Iterator[Peer]:
    with server.join("/playground") as peer:
        yield peer


def ask(peer: Peer, text: str) -> None:
    peer.send(masked(0x81, text.encode()))


def hear_event(peer: Peer) -> tuple[str, dict[str, Any]]:
    first, payload = peer.read_frame()
    assert first == 0x81
    name, _, fields = payload.decode().partition(" ")
    return name, json.loads(fields)


# The echo


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("first", [0x81, 0x82])
def test_message_comes_back_as_it_came(peer: Peer, first: int, size: int) -> None:
    payload = b"x" * size
    peer.send(masked(first, payload))
    assert peer.read_frame() == (first, payload)


@pytest.mark.parametrize(
    "text",
    [
        "//",
        "//ping",
        "///",
        " /ping",
        '{"event": "pong"}',
        '//pong {"to": 1, "payload": "", "ms": 1}',
        "你好 🤖 \x00\n",
    ],
)
def test_text_that_is_no_command_comes_back_as_it_came(peer: Peer, text: str) -> None:
    ask(peer, text)
    assert peer.read_frame() == (0x81, text.encode())


@pytest.mark.parametrize("payload", [b"/ping", b"/", b"\xff\x00", b"/close 4000"])
def test_binary_data_is_never_a_command(peer: Peer, payload: bytes) -> None:
    peer.send(masked(0x82, payload))
    assert peer.read_frame() == (0x82, payload)


def test_playground_is_there_beside_a_plain_echo() -> None:
    with echo("--plain") as server:
        with server.join("/playground") as peer:
            ask(peer, "/help")
            assert hear_event(peer)[0] == "/help"
        with server.join("/echo") as peer:
            ask(peer, "/help")
            assert peer.read_frame() == (0x81, b"/help")


def test_playground_prints_nothing(server: Program) -> None:
    with server.join("/playground") as peer:
        ask(peer, "a secret")
        assert peer.read_frame() == (0x81, b"a secret")
    with server.join("/echo") as peer:
        ask(peer, "printed")
        assert peer.read_frame() == (0x81, b"[printed]")
    assert eventually(lambda: "Send: [printed]\n" in server.output)
    assert "a secret" not in server.output


# Pings


def test_server_pings_and_tells_when_the_pong_has_come(peer: Peer) -> None:
    ask(peer, "/ping hello 你好")
    assert peer.read_frame() == (0x89, "hello 你好".encode())
    assert peer.is_silent(0.05)
    peer.send(masked(0x8A, "hello 你好".encode()))
    name, fields = hear_event(peer)
    assert name == "/pong"
    assert 50 <= fields.pop("ms") < PATIENCE * 1000
    assert fields == {"to": 1, "payload": "hello 你好"}


def test_event_says_which_message_it_answers_though_echoes_overtake_it(peer: Peer) -> None:
    ask(peer, "one")
    ask(peer, "/ping")
    ask(peer, "three")
    ask(peer, "/ping x")
    ask(peer, "/nonsense")
    expected = [(0x81, b"one"), (0x89, b"2"), (0x81, b"three"), (0x89, b"x")]
    assert [peer.read_frame() for _ in range(4)] == expected
    name, fields = hear_event(peer)
    assert (name, fields["to"], fields["what"]) == ("/refused", 5, "command")
    peer.send(masked(0x8A, b"2") + masked(0x8A, b"x"))
    assert [hear_event(peer)[1]["to"] for _ in range(2)] == [2, 4]


def test_pong_that_answers_a_later_ping_answers_the_skipped_ones_too(peer: Peer) -> None:
    for _ in range(3):
        ask(peer, "/ping")
    assert [peer.read_frame() for _ in range(3)] == [(0x89, b"1"), (0x89, b"2"), (0x89, b"3")]
    peer.send(masked(0x8A, b"2"))
    assert hear_event(peer) == ("/pong", {"to": 1, "payload": "1", "ms": None})
    name, fields = hear_event(peer)
    assert (name, fields["to"], type(fields["ms"])) == ("/pong", 2, float)
    peer.send(masked(0x8A, b"3"))
    assert hear_event(peer)[1]["to"] == 3


@pytest.mark.parametrize("payload", [b"", b"hell", b"hello!", b"\xff"])
def test_pong_that_was_not_asked_for_has_no_answer(peer: Peer, payload: bytes) -> None:
    ask(peer, "/ping hello")
    assert peer.read_frame() == (0x89, b"hello")
    peer.send(masked(0x8A, payload))
    ask(peer, "what is next")
    assert peer.read_frame() == (0x81, b"what is next")
    peer.send(masked(0x8A, b"hello"))
    assert hear_event(peer)[1]["payload"] == "hello"
    peer.send(masked(0x8A, b"hello"))
    ask(peer, "again")
    assert peer.read_frame() == (0x81, b"again")


def test_payload_of_125_bytes_is_sent_and_one_of_126_is_refused(peer: Peer) -> None:
    ask(peer, "/ping " + "é" * 62 + "x")
    assert peer.read_frame() == (0x89, b"\xc3\xa9" * 62 + b"x")
    ask(peer, "/ping " + "é" * 63)
    refusal = {"to": 2, "what": "payload"}
    refusal["why"] = "a Ping has at most 125 bytes; this would be 126"
    assert hear_event(peer) == ("/refused", refusal)


def test_client_that_answers_no_pings_is_sent_no_more_than_a_hundred(peer: Peer) -> None:
    for number in range(1, MAX_PINGS + 1):
        ask(peer, "/ping")
        assert peer.read_frame() == (0x89, b"%d" % number)
    ask(peer, "/ping")
    name, fields = hear_event(peer)
    assert (name, fields["to"], fields["what"]) == ("/refused", MAX_PINGS + 1, "pings")
    peer.send(masked(0x8A, b"1"))
    assert hear_event(peer)[1]["to"] == 1
    ask(peer, "/ping")
    assert peer.read_frame() == (0x89, b"102")


def test_pong_is_told_while_the_servers_thread_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock reads it then, so that the client has its answer before the echo."""
    go_on = threading.Event()
    send = WebSocket.send

    def send_later(websocket: WebSocket, message: str | bytes) -> None:
        assert go_on.wait(PATIENCE)
        send(websocket, message)

    monkeypatch.setattr(WebSocket, "send", send_later)
    with serving(playground, timeouts=BRISK) as server, shake_hands(server) as peer:
        ask(peer, "/ping")
        assert peer.read_frame() == (0x89, b"1")
        peer.send(masked(0x82, b"data") + masked(0x8A, b"1"))
        assert hear_event(peer)[1]["to"] == 1
        go_on.set()
        assert peer.read_frame() == (0x82, b"data")


# Fragments


@pytest.mark.parametrize(
    ("parts", "frames"),
    [
        ("Hel lo", [(0x01, b"Hel"), (0x80, b"lo")]),
        ("a  b ", [(0x01, b"a"), (0x00, b""), (0x00, b"b"), (0x80, b"")]),
        ("one", [(0x81, b"one")]),
        (" ", [(0x01, b""), (0x80, b"")]),
        ("你 //好", [(0x01, b"\xe4\xbd\xa0"), (0x80, b"//\xe5\xa5\xbd")]),
        ("Hel /ping lo", [(0x01, b"Hel"), (0x89, b"1"), (0x80, b"lo")]),
        ("/ping a /ping", [(0x89, b"1"), (0x81, b"a"), (0x89, b"1")]),
    ],
)
def test_server_sends_a_message_in_the_fragments_that_it_is_told(
    peer: Peer, parts: str, frames: list[tuple[int, bytes]]
) -> None:
    ask(peer, f"/fragments {parts}")
    assert [peer.read_frame() for _ in frames] == frames
    ask(peer, "next")
    assert peer.read_frame() == (0x81, b"next")


def test_pings_between_fragments_are_answered_by_pongs_as_others_are(peer: Peer) -> None:
    ask(peer, "first")
    assert peer.read_frame() == (0x81, b"first")
    ask(peer, "/fragments a /ping b /ping c")
    assert [peer.read_frame()[0] for _ in range(5)] == [0x01, 0x89, 0x00, 0x89, 0x80]
    peer.send(masked(0x8A, b"2") * 2)
    events = [hear_event(peer) for _ in range(2)]
    assert [(name, fields["to"], fields["payload"]) for name, fields in events] == [
        ("/pong", 2, "2")
    ] * 2


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ("", "there is no part to send, as in /fragments Hel lo"),
        ("/ping /ping", "there is no part to send, as in /fragments Hel lo"),
        ("/frame {}", "/frame begins with one slash, and is not /ping"),
        ("a /", "/ begins with one slash, and is not /ping"),
        ("a /Ping", "/Ping begins with one slash, and is not /ping"),
        ("a " * 100, "at most 100 parts are sent; these are 101"),
    ],
)
def test_parts_that_cannot_be_sent_are_refused(peer: Peer, parts: str, why: str) -> None:
    ask(peer, f"/fragments {parts}")
    assert hear_event(peer) == ("/refused", {"to": 1, "what": "parts", "why": why})


def test_hundred_pings_at_most_wait_whichever_command_sends_them(peer: Peer) -> None:
    ask(peer, "/fragments a" + " /ping" * 99)
    assert [peer.read_frame()[0] for _ in range(100)] == [0x81] + [0x89] * 99
    ask(peer, "/fragments a /ping /ping")
    name, fields = hear_event(peer)
    assert (name, fields["to"], fields["what"]) == ("/refused", 2, "pings")
    ask(peer, "/fragments a /ping")
    assert [peer.read_frame() for _ in range(2)] == [(0x81, b"a"), (0x89, b"3")]


# Closing


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("/close 1000", b"\x03\xe8"),
        ("/close 1000 ", b"\x03\xe8"),
        ("/close 1001 going away", b"\x03\xe9going away"),
        ("/close 1011 你好", b"\x03\xf3\xe4\xbd\xa0\xe5\xa5\xbd"),
        ("/close 3000", b"\x0b\xb8"),
        ("/close 4999 " + "x" * 123, b"\x13\x87" + b"x" * 123),
    ],
)
def test_server_closes_with_the_code_and_reason_it_is_told(
    peer: Peer, text: str, payload: bytes
) -> None:
    ask(peer, text)
    assert peer.read_frame() == (0x88, payload)
    peer.send(masked(0x88, payload[:2]))
    assert peer.read_to_eof() == b""


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1010, 1015, 1016, 2999, 5000, 65535])
def test_code_that_may_not_be_sent_is_refused(peer: Peer, code: int) -> None:
    ask(peer, f"/close {code} why")
    why = f"a server may not send the close code {code}"
    if not 1000 <= code <= 9999:
        why = "a close code is a number of four digits, as in /close 4000 bye"
    assert hear_event(peer) == ("/refused", {"to": 1, "what": "code", "why": why})


@pytest.mark.parametrize(
    "code", ["", "bye", "1e3", "-1000", "+1000", "01000", "1000\n", "\u0661\u0660\u0660\u0660"]
)
def test_code_that_is_no_number_of_four_digits_is_refused(peer: Peer, code: str) -> None:
    ask(peer, f"/close {code} why")
    name, fields = hear_event(peer)
    assert (name, fields["to"], fields["what"]) == ("/refused", 1, "code")
    assert fields["why"] == "a close code is a number of four digits, as in /close 4000 bye"
    ask(peer, "still here")
    assert peer.read_frame() == (0x81, b"still here")


def test_reason_of_more_than_123_bytes_is_refused(peer: Peer) -> None:
    ask(peer, "/close 1000 " + "é" * 62)
    why = "a reason has at most 123 bytes; this one has 124"
    assert hear_event(peer) == ("/refused", {"to": 1, "what": "reason", "why": why})


def test_client_may_close_with_any_code_as_everywhere(peer: Peer) -> None:
    peer.send(masked(0x88, close_payload(4321, "enough")))
    assert peer.read_close() == (4321, "")


# Other commands


def test_help_lists_the_commands(peer: Peer) -> None:
    ask(peer, "/help")
    name, fields = hear_event(peer)
    assert (name, fields["to"]) == ("/help", 1)
    assert list(fields["commands"]) == [
        "/ping [PAYLOAD]",
        "/fragments PART PART …",
        "/close CODE [REASON]",
        "/help",
    ]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("/", "/"),
        ("/Ping", "/Ping"),
        ("/pingpong x", "/pingpong"),
        ("/ping\nx", "/ping\nx"),
        ("/" + "x" * 60_000, "/" + "x" * 39 + "…"),
    ],
)
def test_unknown_command_is_refused_in_words(peer: Peer, text: str, quoted: str) -> None:
    ask(peer, text)
    why = f"there is no command {quoted}; /help lists them"
    assert hear_event(peer) == ("/refused", {"to": 1, "what": "command", "why": why})


def test_no_message_ends_in_an_error_of_the_server(server: Program) -> None:
    with server.join("/playground") as peer:
        for text in ("/ping \x00", "/close 1000x", "/help x", "/\U0010ffff", "/close  1000"):
            ask(peer, text)
        ask(peer, "end")
        eventually(lambda: peer.read_frame() == (0x81, b"end"))
    assert lines_with(server, "Traceback") == []


def test_client_of_another_library_plays(server: Program) -> None:
    client = simple_websocket.Client.connect(f"{server.ws_url}/playground")
    for message in ("hello", b"\x00\xff", "//ping"):
        client.send(message)
        assert client.receive(PATIENCE) == message
    client.send("/ping hello")  # the library answers the Ping in a thread of its own
    name, _, fields = client.receive(PATIENCE).partition(" ")
    assert (name, json.loads(fields)["payload"]) == ("/pong", "hello")
    client.send("/close 4001 enough")
    with pytest.raises(simple_websocket.ConnectionClosed) as caught:
        client.receive(PATIENCE)
    assert (caught.value.reason, caught.value.message) == (4001, "enough")

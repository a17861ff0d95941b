"""A trace of connections in use: of both sides, over TLS, of a broadcast, begun later."""

import logging
import os
import pty
import socket
import subprocess
import sys
from typing import Any

import pytest

from pairs import Pair, connected_pair, listen
from peers import PATIENCE, echo_messages, eventually, masked, request, serving, shake_hands
from programs import ROOT, chat, echo
from protocols import both_roles
from rfc6455 import (
    Deflate,
    Frame,
    HandshakeLine,
    InvalidHandshake,
    WebSocket,
    broadcast,
    connect,
    describe,
)
from tls import Certificate


class Shown(list[HandshakeLine | Frame]):
    """What a trace has shown."""

    @property
    def words(self) -> list[str]:
        return [describe(each) for each in self]

    @property
    def frames(self) -> list[tuple[bool, int, bytes]]:
        """Of each frame whether it was sent, its opcode and its payload."""
        return [(each.sent, each.opcode, each.payload) for each in self if isinstance(each, Frame)]


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
@pytest.mark.parametrize("encrypted", [False, True])
def test_both_sides_show_the_same_bytes_each_from_its_side(
    encrypted: bool, deflate: Deflate | None, certificate: Certificate
) -> None:
    at_server = Shown()
    at_client = Shown()
    context = certificate.server() if encrypted else None
    with serving(
        echo_messages, trace=at_server.append, ssl_context=context, deflate=deflate
    ) as server:
        url = f"{'wss' if encrypted else 'ws'}://localhost:{server.server_port}/"
        with connect(
            url,
            trace=at_client.append,
            ssl_context=certificate.client() if encrypted else None,
            deflate=deflate,
        ) as client:
            for message in ("Hello", b"\x00\x01", "x" * 70_000):
                client.send(message)
                assert client.receive() == message
            client.ping(b"p")
            client.send(["a", "b"])
            assert client.receive() == "ab"
        assert eventually(lambda: len(at_server) == len(at_client))
    mirrored = [each._replace(sent=not each.sent, peer="") for each in at_client]
    assert sorted(map(repr, mirrored)) == sorted(repr(each._replace(peer="")) for each in at_server)
    assert [frame for frame in at_server if isinstance(frame, Frame)][-1].opcode == 0x8
    kinds = [opcode for sent, opcode, _ in at_server.frames if not sent]
    assert kinds == [0x1, 0x2, 0x1, 0x9, 0x1, 0x0, 0x8]
    assert at_client.words[0].endswith(" sent     GET / HTTP/1.1")


def test_refused_handshake_is_shown_with_its_reason() -> None:
    shown = Shown()
    with serving(echo_messages) as server:
        with pytest.raises(InvalidHandshake):
            connect(f"ws://127.0.0.1:{server.server_port}/nowhere", trace=shown.append)
    assert shown.words[-1].endswith(" received 404 Not Found: there is no WebSocket at /nowhere")


def watch(shown: Shown) -> Any:
    """A handler that shows all frames, and does nothing else."""

    def handler(pair: Pair) -> None:
        pair.websocket.set_frame_handler(shown.append)
        pair.messages.put("watching")
        pair.leave.wait(PATIENCE)

    return handler


def test_broadcast_is_shown_for_each_receiver() -> None:
    shown = Shown()
    with connected_pair("server", watch(shown)) as one, connected_pair("server") as other:
        assert one.take() == "watching"
        assert one.websocket._stream.direct is None
        broadcast([one.websocket, other.websocket], "a", "b")
        assert one.read_frame() == (0x81, b"a")
        assert one.read_frame() == (0x81, b"b")
        assert shown.frames == [(True, 0x1, b"a"), (True, 0x1, b"b")]
        one.websocket.set_frame_handler(None)
        assert one.websocket._stream.trace is None
        assert one.websocket._stream.direct is not None
        broadcast([one.websocket], "c")
        assert one.read_frame() == (0x81, b"c")
        assert len(shown) == 2
        one.leave.set()


def test_frames_cannot_be_watched_by_one_thread_while_another_receives() -> None:
    with connected_pair("server") as pair:
        assert eventually(pair.websocket._reading.locked)
        with pytest.raises(RuntimeError, match="only by the thread that receives"):
            pair.websocket.set_frame_handler(lambda _: None)
        pair.say(0x81, b"a")
        assert pair.take() == "a"


def watch_and_echo(shown: Shown) -> Any:
    def handler(pair: Pair) -> None:
        pair.websocket.set_frame_handler(shown.append)
        for message in pair.websocket:
            pair.websocket.send(message)

    return handler


@both_roles
def test_handler_of_frames_is_called_both_ways_in_the_order_of_the_wire(role: str) -> None:
    shown = Shown()
    with connected_pair(role, watch_and_echo(shown)) as pair:
        pair.peer.send(pair.frame(0x01, b"He") + pair.frame(0x89, b"p") + pair.frame(0x80, b"y"))
        assert pair.read_frame() == (0x8A, b"p")
        assert pair.read_frame() == (0x81, b"Hey")
        pair.say_goodbye()
        assert eventually(lambda: len(shown) == 7)
    assert shown.frames == [
        (False, 0x1, b"He"),
        (False, 0x9, b"p"),
        (False, 0x0, b"y"),
        (True, 0xA, b"p"),
        (True, 0x1, b"Hey"),
        (False, 0x8, b"\x03\xe8"),
        (True, 0x8, b"\x03\xe8"),
    ]


def test_frames_that_came_before_the_handler_was_set_are_shown_if_they_were_not_read() -> None:
    """The first message is read, the second has arrived with it, and half of the third."""
    shown = Shown()

    def handler(websocket: WebSocket) -> None:
        assert websocket.receive() == "a"
        websocket.set_frame_handler(shown.append)
        echo_messages(websocket)

    frames = masked(0x81, b"a") + masked(0x81, b"b") + masked(0x81, b"c")
    with serving(handler) as server:
        peer = shake_hands(server)
        peer.send(frames[:-1])
        assert peer.read_frame() == (0x81, b"b")
        peer.send(frames[-1:])
        assert peer.read_frame() == (0x81, b"c")
        assert shown.frames[0] == (False, 0x1, b"b")
        assert eventually(lambda: (False, 0x1, b"c") in shown.frames)
        peer.close()


@pytest.mark.parametrize("traced", [False, True])
def test_frames_that_wait_to_be_received_are_shown_whether_or_not_the_server_traces(
    traced: bool,
) -> None:
    """They come in one piece with the opening handshake, before any handler can be set."""
    shown = Shown()
    early = masked(0x81, b"a") + masked(0x89, b"p")
    options: dict[str, Any] = {"trace": Shown().append} if traced else {}
    with connected_pair("server", watch_and_echo(shown), early=early, **options) as pair:
        assert {pair.read_frame(), pair.read_frame()} == {(0x81, b"a"), (0x8A, b"p")}
        pair.say_goodbye()
    assert shown.frames[:2] == [(False, 0x1, b"a"), (False, 0x9, b"p")]


@both_roles
def test_frame_that_is_cut_off_is_shown_when_the_connection_has_ended(role: str) -> None:
    shown = Shown()
    with connected_pair(role, watch_and_echo(shown)) as pair:
        pair.peer.send(pair.frame(0x81, b"Hello")[:-1])
        pair.peer.sock.shutdown(socket.SHUT_WR)
        assert eventually(lambda: shown)
    assert shown.frames == [(False, 0x1, b"Hell")]
    assert shown.words[0].endswith("1 bytes are missing, broken: it is cut off")


def test_handler_that_is_set_late_is_told_what_depends_on_what_came_before() -> None:
    """The peer compresses with the context of earlier messages (RFC 7692, 7.1.1.2)."""
    shown = Shown()

    def handler(pair: Pair) -> None:
        pair.messages.put(pair.websocket.receive())
        pair.websocket.set_frame_handler(shown.append)
        listen(pair)

    whole = bytes.fromhex("f2 48 cd c9 c9 07 00")  # "Hello", of RFC 7692, 7.2.3.1
    shorter = bytes.fromhex("f2 00 11 00 00")  # the same with a reference to the one before
    extensions = "permessage-deflate"
    with connected_pair("server", handler, extensions=extensions, deflate=Deflate()) as pair:
        pair.say(0xC1, whole)
        assert pair.take() == "Hello"
        pair.say(0xC1, shorter)
        assert pair.take() == "Hello"
        pair.say_goodbye()
    assert isinstance(shown[0], Frame)
    assert (shown[0].inflated, shown[0].error) == (b"Hello", "")
    assert [frame[1] for frame in shown.frames] == [0x1, 0x8, 0x8]


@pytest.mark.parametrize("compressed", [False, True])
def test_handler_that_is_set_within_a_message_is_told_what_its_fragments_are(
    compressed: bool,
) -> None:
    """Half of the first fragment was read before, and is passed over, but not forgotten."""
    shown = Shown()

    def handler(pair: Pair) -> None:
        assert pair.websocket.receive(0) is None
        while not pair.websocket._protocol.is_within_message:
            assert pair.websocket.receive(0.01) is None
        pair.websocket.set_frame_handler(shown.append)
        pair.messages.put("watching")
        listen(pair)

    data = bytes.fromhex("f2 48 cd c9 c9 07 00") if compressed else b"Hello"
    options: dict[str, Any] = {"deflate": Deflate(), "extensions": "permessage-deflate"}
    if not compressed:
        options = {}
    with connected_pair("server", handler, **options) as pair:
        first = pair.frame(0x41 if compressed else 0x01, data[:3])
        pair.peer.send(first[:-1])
        assert pair.take() == "watching"
        pair.peer.send(first[-1:] + pair.frame(0x80, data[3:]))
        assert pair.take() == "Hello"
        pair.say_goodbye()
    fragment = shown[0]
    assert isinstance(fragment, Frame)
    assert (fragment.opcode, fragment.is_text, fragment.error) == (0x0, True, "")
    assert fragment.inflated == (b"llo" if compressed else None)


def test_handler_that_fails_at_once_is_logged_and_raises_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Frame) -> None:
        raise ZeroDivisionError("made by the test")

    def handler(pair: Pair) -> None:
        pair.websocket.set_frame_handler(fail)
        listen(pair)

    with caplog.at_level(logging.ERROR):
        with connected_pair("server", handler, early=masked(0x81, b"a")) as pair:
            assert pair.take() == "a"
            pair.say_goodbye()
    (record,) = caplog.records
    assert record.getMessage() == "the trace of a connection failed and has ended"
    caplog.clear()  # the fixture `no_errors` may look at it


def test_server_that_traces_and_a_handler_of_frames_both_see_them() -> None:
    at_server = Shown()
    shown = Shown()

    def handler(websocket: WebSocket) -> None:
        websocket.set_frame_handler(shown.append)
        websocket.receive()
        websocket.set_frame_handler(None)
        echo_messages(websocket)

    with serving(handler, trace=at_server.append) as server:
        peer = shake_hands(server)
        peer.send(masked(0x81, b"a"))
        peer.send(masked(0x81, b"b"))
        assert peer.read_frame() == (0x81, b"b")
        peer.close()
        assert eventually(lambda: len(at_server.frames) == 3)
    assert (False, 0x1, b"a") in shown.frames
    assert (True, 0x1, b"b") not in shown.frames


@both_roles
def test_handler_that_fails_is_logged_and_the_connection_goes_on(
    role: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Frame) -> None:
        raise ZeroDivisionError("made by the test")

    def handler(pair: Pair) -> None:
        pair.websocket.set_frame_handler(fail)
        for message in pair.websocket:
            pair.websocket.send(message)

    with caplog.at_level(logging.ERROR), connected_pair(role, handler) as pair:
        for text in (b"a", b"b"):
            pair.say(0x81, text)
            assert pair.read_frame() == (0x81, text)
        pair.say_goodbye()
    (record,) = caplog.records
    assert record.getMessage() == "the trace of a connection failed and has ended"
    caplog.clear()  # the fixture `no_errors` may look at it


# The programs


def test_echo_server_and_its_client_show_what_travels_with_trace() -> None:
    with echo("--trace") as server:
        url = f"ws://127.0.0.1:{server.server_port}/echo"
        command = [sys.executable, str(ROOT / "echo_client.py"), url, "hi", "--trace"]
        client = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert client.stdout == "Send: hi\nReceive: [hi]\n"
        lines = client.stderr.splitlines()
        assert lines[0] == f"127.0.0.1:{server.server_port} sent     GET /echo HTTP/1.1"
        assert lines[-1].endswith("length 2 in 7 bits, payload 03 e8, code 1000 NORMAL")
        assert "\x1b" not in client.stderr
        wanted = " sent     81 04  FIN 1, RSV 000, opcode 0x1 TEXT, MASK 0, length 4 in 7 bits, "
        assert eventually(lambda: wanted in server.log)
        assert " received GET /echo HTTP/1.1\n" in server.log


def test_chat_shows_what_travels_with_trace_and_leaves_out_the_files_of_its_page() -> None:
    with chat("--trace") as server:
        page = request(server, Upgrade=None, Connection=None)
        assert "<!doctype html>" in server.answer(page)[1]
        peer = shake_hands(server, "/ws")
        peer.send(masked(0x81, b'{"message": "hi"}'))
        assert b'"message":"hi"' in peer.read_frame().payload
        assert eventually(lambda: " sent     81 7e 00 " in server.log)
        assert " received GET /ws HTTP/1.1\n" in server.log
        assert "GET / HTTP/1.1" not in server.log
        peer.close()


def test_trace_has_colours_on_a_terminal_unless_no_color_is_set() -> None:
    with echo() as server:
        url = f"ws://127.0.0.1:{server.server_port}/echo"
        for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
            ours, theirs = pty.openpty()
            subprocess.run(
                [sys.executable, ROOT / "echo_client.py", url, "hi", "--trace"],
                stdout=subprocess.DEVNULL,
                stderr=theirs,
                env=os.environ | {"TERM": "xterm"} | environment,
                timeout=PATIENCE,
                check=True,
            )
            os.close(theirs)
            text = os.read(ours, 65536)
            os.close(ours)
            assert (b"\x1b[32msent    \x1b[0m GET /echo" in text) is coloured
            assert (b"sent     GET /echo" in text) is not coloured

"""`WebSocket.send` of parts, while other threads send, ping and close (RFC 6455, 5.4)."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import websockets.sync.client

from pairs import SMALL_WINDOW, Pair, connected_pair
from peers import PATIENCE, eventually, serving
from protocols import both_roles
from rfc6455 import ConnectionClosed, State, WebSocket, broadcast
from rfc6455.stream import MAX_BACKLOG


class Parts:
    """Parts that the test gives out one by one; the sender waits for each. None is the last."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()

    def give(self, part: Any) -> None:
        self._queue.put(part)

    def __iter__(self) -> Iterator[Any]:
        while (part := self._queue.get(timeout=PATIENCE)) is not None:
            if isinstance(part, BaseException):
                raise part
            yield part


@contextlib.contextmanager
def begun(role: str) -> Iterator[tuple[Pair, Parts]]:
    """A pair whose endpoint has sent the first fragment of a message, "Hel", and waits."""
    parts = Parts()
    with connected_pair(role) as pair:
        sending = pair.spawn(pair.websocket.send, parts)
        parts.give("Hel")
        assert pair.read_frame() == (0x01, b"Hel")
        yield pair, parts
        parts.give(None)
        with contextlib.suppress(Exception):  # a test that expects one has looked at it
            sending.result()


def waits(pair: Pair, thread: threading.Thread) -> bool:
    """Whether a thread that sends is still waiting for its turn."""
    return thread.is_alive() and pair.peer.is_silent(0.05)


@both_roles
@pytest.mark.requirement("5.4-5")
def test_each_part_is_on_the_wire_before_the_next_one_is_known(role: str) -> None:
    with begun(role) as (pair, parts):
        parts.give("lo")
        assert pair.read_frame() == (0x00, b"lo")
        parts.give(None)
        assert pair.read_frame() == (0x80, b"")
        pair.say_goodbye()


@both_roles
@pytest.mark.requirement("5.4-5", "5.4-3")
def test_pings_and_pongs_go_between_the_fragments(role: str) -> None:
    with begun(role) as (pair, parts):
        pair.websocket.ping(b"p")
        assert pair.read_frame() == (0x89, b"p")
        pair.say(0x89, b"q")
        assert pair.read_frame() == (0x8A, b"q")
        parts.give(None)
        assert pair.read_frame() == (0x80, b"")


@both_roles
@pytest.mark.requirement("5.4-5")
def test_messages_of_other_threads_follow_the_last_fragment_in_their_order(role: str) -> None:
    with begun(role) as (pair, parts):
        pair.websocket.post("first")
        pair.websocket.post("second")
        sending = pair.spawn(pair.websocket.send, "sent")
        assert waits(pair, sending.thread)
        parts.give("lo")
        assert pair.read_frame() == (0x00, b"lo")
        parts.give(None)
        assert pair.read_frame() == (0x80, b"")
        assert pair.read_frame() == (0x81, b"first")
        assert pair.read_frame() == (0x81, b"second")
        assert pair.read_frame() == (0x81, b"sent")
        sending.result()
        pair.say_goodbye()


@pytest.mark.requirement("5.4-5")
def test_broadcast_to_a_connection_follows_its_last_fragment() -> None:
    with begun("server") as (pair, parts), connected_pair("server") as other:
        broadcast([pair.websocket, other.websocket], "a", "b")
        assert other.read_frame() == (0x81, b"a")
        assert other.read_frame() == (0x81, b"b")
        parts.give(None)
        assert pair.read_frame() == (0x80, b"")
        assert pair.read_frame() == (0x81, b"a")
        assert pair.read_frame() == (0x81, b"b")
        broadcast([pair.websocket], "c")
        assert pair.read_frame() == (0x81, b"c")
        pair.say_goodbye()


@both_roles
@pytest.mark.requirement("5.4-5")
def test_second_message_in_fragments_begins_when_the_first_has_ended(role: str) -> None:
    with begun(role) as (pair, parts):
        sending = pair.spawn(pair.websocket.send, [b"\x01", b"\x02"])
        assert waits(pair, sending.thread)
        parts.give(None)
        assert pair.read_frame() == (0x80, b"")
        assert pair.read_frame() == (0x02, b"\x01")
        assert pair.read_frame() == (0x80, b"\x02")
        sending.result()


@both_roles
def test_message_without_parts_sends_nothing(role: str) -> None:
    with connected_pair(role) as pair:
        pair.websocket.send([])
        pair.websocket.send(iter(()))
        assert pair.peer.is_silent(0.05)
        pair.say_goodbye()


@both_roles
@pytest.mark.parametrize("bad", [b"other kind", 7, "\ud800", ZeroDivisionError("made by the test")])
def test_message_that_cannot_be_ended_closes_the_connection(role: str, bad: Any) -> None:
    parts = Parts()
    with connected_pair(role) as pair:
        sending = pair.spawn(pair.websocket.send, parts)
        parts.give("Hel")
        assert pair.read_frame() == (0x01, b"Hel")
        pair.websocket.post("never sent")
        parts.give(bad)
        expected = ZeroDivisionError if isinstance(bad, Exception) else (TypeError, UnicodeError)
        with pytest.raises(expected):
            sending.result()
        assert pair.read_frame() == (0x88, b"\x03\xf3a message was not sent to its end")


@both_roles
def test_bad_first_part_sends_nothing_and_the_connection_goes_on(role: str) -> None:
    with connected_pair(role) as pair:
        with pytest.raises(TypeError):
            pair.websocket.send([7])  # type: ignore[list-item]
        with pytest.raises(UnicodeEncodeError):
            pair.websocket.send(["\ud800", "b"])
        pair.websocket.send("a")
        assert pair.read_frame() == (0x81, b"a")
        pair.say_goodbye()


@both_roles
def test_parts_that_send_a_message_of_their_own_are_refused(role: str) -> None:
    def parts(websocket: WebSocket) -> Iterator[str]:
        yield "a"
        websocket.send("b")

    with connected_pair(role) as pair:
        with pytest.raises(RuntimeError, match="between the parts of another"):
            pair.websocket.send(parts(pair.websocket))
        assert pair.read_frame() == (0x01, b"a")
        assert pair.read_frame() == (0x88, b"\x03\xf3a message was not sent to its end")


@both_roles
def test_refused_message_within_another_does_that_one_no_harm(role: str) -> None:
    def parts(websocket: WebSocket) -> Iterator[str]:
        yield "a"
        with pytest.raises(RuntimeError, match="between the parts of another"):
            websocket.send(["b", "c"])
        websocket.post("d")
        yield "e"

    with connected_pair(role) as pair:
        pair.websocket.send(parts(pair.websocket))
        assert [pair.read_frame() for _ in range(4)] == [
            (0x01, b"a"),
            (0x00, b"e"),
            (0x80, b""),
            (0x81, b"d"),
        ]
        pair.say_goodbye()


@both_roles
def test_sender_of_parts_waits_for_a_peer_that_does_not_read(role: str) -> None:
    given: list[int] = []

    def parts() -> Iterator[bytes]:
        for number in range(16):
            given.append(number)
            yield bytes(1 << 20)

    with connected_pair(role, window=SMALL_WINDOW) as pair:
        sending = pair.spawn(pair.websocket.send, parts())
        assert eventually(lambda: pair.websocket._stream.is_draining)
        assert sending.running
        assert len(given) < 16
        for first in (0x02, *[0x00] * 15):
            assert pair.read_frame() == (first, bytes(1 << 20))
        assert pair.read_frame() == (0x80, b"")
        sending.result()
        pair.say_goodbye()


@both_roles
@pytest.mark.requirement("5.4-4")
def test_close_goes_between_the_fragments_and_ends_the_message(role: str) -> None:
    parts = Parts()
    with connected_pair(role) as pair:
        sending = pair.spawn(pair.websocket.send, parts)
        parts.give("Hel")
        assert pair.read_frame() == (0x01, b"Hel")
        waiting = pair.spawn(pair.websocket.send, "waits")
        assert waits(pair, waiting.thread)
        pair.websocket.close(1000, wait=False)
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        parts.give("lo")
        for each in (sending, waiting):
            with pytest.raises(ConnectionClosed):
                each.result()
        with pytest.raises(ConnectionClosed):
            pair.websocket.post("late")


@both_roles
def test_sender_that_waits_is_told_when_the_connection_is_lost(role: str) -> None:
    """The parts of the message before it never end."""
    with begun(role) as (pair, _):
        waiting = pair.spawn(pair.websocket.send, "waits")
        assert waits(pair, waiting.thread)
        pair.websocket.drop("made by the test")
        with pytest.raises(ConnectionClosed, match="made by the test"):
            waiting.result()
        with pytest.raises(ConnectionClosed, match="made by the test"):
            pair.websocket.post("late")


@pytest.mark.parametrize("how", ["post", "broadcast"])
def test_connection_is_dropped_where_too_much_waits_behind_a_message(how: str) -> None:
    with begun("server") as (pair, parts):
        message = bytes(MAX_BACKLOG + 100)
        pair.websocket.post(message)  # a single one may be of any size
        if how == "post":
            with pytest.raises(ConnectionClosed, match="wait behind a message"):
                pair.websocket.post(bytes(200))
        else:
            broadcast([pair.websocket], bytes(200))
        assert pair.state() is State.CLOSED
        parts.give("lo")
        assert eventually(lambda: pair.closed)
        assert pair.closed
        assert "wait behind a message that is sent in fragments" in pair.closed.reason


def test_stranger_receives_the_fragments_as_they_come() -> None:
    go_on = threading.Event()

    def count(websocket: WebSocket) -> None:
        def numbers() -> Iterator[str]:
            yield "one "
            go_on.wait(PATIENCE)
            yield "two"

        websocket.send(numbers())
        websocket.send([b"\x01", b"\x02\x03"])
        websocket.receive()

    with serving(count) as server:
        url = f"ws://127.0.0.1:{server.server_port}/"
        with websockets.sync.client.connect(url, proxy=None) as client:
            fragments = client.recv_streaming()
            assert next(fragments) == "one "
            go_on.set()
            assert "".join(map(str, fragments)) == "two"
            assert client.recv() == b"\x01\x02\x03"


@both_roles
def test_second_message_in_fragments_is_refused_while_the_first_meets_a_closed_connection(
    role: str,
) -> None:
    """Both senders are told so: neither takes the place of the other."""
    parts = Parts()
    with connected_pair(role) as pair:
        first = pair.spawn(pair.websocket.send, parts)
        parts.give("Hel")
        assert pair.read_frame() == (0x01, b"Hel")
        second = pair.spawn(pair.websocket.send, iter(["a", "b"]))
        assert waits(pair, second.thread)
        pair.websocket.drop("made by the test")
        with pytest.raises(ConnectionClosed, match="made by the test"):
            second.result()
        with pytest.raises(ConnectionClosed, match="made by the test"):
            pair.websocket.send(["c"])
        parts.give("lo")
        with pytest.raises(ConnectionClosed, match="made by the test"):
            first.result()


@both_roles
def test_nothing_is_kept_for_a_connection_that_was_lost(role: str) -> None:
    with begun(role) as (pair, _):
        pair.websocket.drop("made by the test")
        with pytest.raises(ConnectionClosed, match="made by the test"):
            pair.websocket.post("late")


@both_roles
def test_list_that_gets_shorter_while_it_is_sent_still_has_a_last_fragment(role: str) -> None:
    class Parts(list[str]):
        def __iter__(self) -> Iterator[str]:
            yield "a"
            self.clear()

    with connected_pair(role) as pair:
        pair.websocket.send(Parts(["a", "b"]))
        assert pair.read_frame() == (0x81, b"a")
        pair.websocket.send("c")
        assert pair.read_frame() == (0x81, b"c")
        pair.say_goodbye()


@pytest.mark.parametrize("message", [None, 7, object()])
def test_error_says_what_can_be_sent(message: Any) -> None:
    with connected_pair("server") as pair:
        with pytest.raises(TypeError, match="a message is a str, bytes or an iterable of those"):
            pair.websocket.send(message)
        pair.say_goodbye()

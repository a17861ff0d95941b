"""Many threads on one connection: its lock joins each change of state with the frame it means.

Where two threads meet, the test holds one of them up at the place that matters.
"""

import socket
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from pairs import BRISK, CALM, Pair, Task, connected_pair, send_until_closed, stand_by
from patching import patch_method
from peers import PATIENCE, close_payload, eventually
from protocols import both_roles
from rfc6455 import ConnectionClosed, State, broadcast
from tls import Certificate

SIZES = [0, 1, 125, 126, 5000, 16383, 16384, 65535, 65536, 70_000, 200_000, 300_000]
ROUNDS = 24


# Frames never interleave


def assert_frames_of_many_threads_stay_whole(pair: Pair) -> None:
    def payload(name: str, i: int) -> bytes:
        size = SIZES[(i * 7 + ord(name[1])) % len(SIZES)] if name.startswith("s") else i * 50
        return f"{name}:{i}:".encode() + bytes([65 + i]) * size

    def send_all(name: str) -> None:
        for i in range(ROUNDS):
            pair.websocket.send(payload(name, i))

    def post_all(name: str) -> None:
        for i in range(ROUNDS):
            pair.websocket.post(payload(name, i).decode())

    def ping_all(name: str) -> None:
        for i in range(ROUNDS):
            pair.websocket.ping(payload(name, i)[:125])

    wanted: dict[str, list[tuple[int, bytes]]] = {}
    found: dict[str, list[tuple[int, bytes]]] = {}
    for name in ("s1", "s2", "s3", "s4", "t1", "t2", "t3", "p1", "p2"):
        call, first = {"s": (send_all, 0x82), "t": (post_all, 0x81), "p": (ping_all, 0x89)}[name[0]]
        most = 125 if first == 0x89 else None
        wanted[name] = [(first, payload(name, i)[:most]) for i in range(ROUNDS)]
        found[name] = []
        pair.spawn(call, name)
    for _ in range(ROUNDS * len(wanted)):
        first, data = pair.read_frame()
        found[data[:2].decode()].append((first, data))
    assert found == wanted


@both_roles
@pytest.mark.requirement("5.4-5")
def test_frames_of_many_threads_never_interleave(role: str) -> None:
    with connected_pair(role, window=65536) as pair:
        assert_frames_of_many_threads_stay_whole(pair)
        pair.say_goodbye()


@both_roles
@pytest.mark.requirement("5.4-5")
def test_frames_of_many_threads_never_interleave_over_tls(
    role: str, certificate: Certificate
) -> None:
    with connected_pair(role, window=65536, certificate=certificate) as pair:
        assert_frames_of_many_threads_stay_whole(pair)
        pair.say_goodbye()


# A Close, and the change of state that it means


@both_roles
@pytest.mark.requirement("5.5.1-5", "6.1-1")
@pytest.mark.parametrize("size", [10, 200_000])
def test_no_data_frame_follows_the_close_while_other_threads_keep_sending(
    role: str, size: int
) -> None:
    def post_on() -> int:
        while not pair.leave.wait(0.001):
            try:
                pair.websocket.post("x")
            except ConnectionClosed as closed:
                return closed.code
        raise AssertionError("no end")

    with connected_pair(role) as pair:
        senders = [
            pair.spawn(send_until_closed, pair.websocket.send, bytes([i]) * size) for i in range(3)
        ]
        poster = pair.spawn(post_on)
        for _ in range(50):
            assert pair.read_frame().first in (0x81, 0x82)
        pair.websocket.close(4000, "enough", wait=False)
        while (frame := pair.read_frame()).first != 0x88:
            assert frame in [(0x81, b"x"), *((0x82, bytes([i]) * size) for i in range(3))]
        assert frame == (0x88, close_payload(4000, "enough"))
        for sender in senders:
            sender.result()
        poster.result()
        pair.say(0x88, b"\x0f\xa0")
        pair.read_eof()


class Hold:
    """A place in the code at which the first thread that comes by is held up, until it is let go.

    It is behind each call of one method of one object, once `when` is true.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owner: object,
        method: str,
        when: Callable[[], bool] = lambda: True,
    ) -> None:
        self._reached = threading.Event()
        self._go_on = threading.Event()
        function = getattr(owner, method)

        def call_and_be_held_up(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            if when() and not self._reached.is_set():
                self._reached.set()
                assert self._go_on.wait(PATIENCE)
            return result

        patch_method(monkeypatch, owner, method, call_and_be_held_up)

    def wait(self) -> None:
        """Wait until a thread is held up."""
        assert self._reached.wait(PATIENCE)

    def let_go(self) -> None:
        self._go_on.set()


class WatchedLock:
    """Takes the place of a connection's lock, and knows which threads wait for it."""

    def __init__(self, pair: Pair) -> None:
        websocket = pair.websocket
        self._lock = websocket._stream.lock
        self._waiting: set[int] = set()
        for owner, attribute in [
            (websocket, "_lock"),
            (websocket._protocol, "_lock"),
            (websocket._stream, "lock"),
        ]:
            assert getattr(owner, attribute) is self._lock
            setattr(owner, attribute, self)

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waiting.add(threading.get_ident())
            self._lock.acquire()
            self._waiting.discard(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait_for(self, task: Task) -> None:
        """Wait until this task's thread waits for the lock."""
        eventually(lambda: task.thread.ident in self._waiting)


def close_at_once(pair: Pair) -> Task:
    return pair.spawn(lambda: pair.websocket.close(wait=False))


@both_roles
@pytest.mark.requirement("5.5.1-5", "6.1-1")
def test_nobody_can_send_between_the_change_of_state_and_the_close_that_it_means(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected_pair(role, stand_by) as pair:
        lock = WatchedLock(pair)
        hold = Hold(monkeypatch, pair.websocket._protocol, "close")
        closing = close_at_once(pair)
        hold.wait()
        senders = [
            pair.spawn(pair.websocket.send, "sent"),
            pair.spawn(pair.websocket.post, b"posted"),
            pair.spawn(pair.websocket.ping),
        ]
        for sender in senders:
            lock.wait_for(sender)
        assert pair.peer.is_silent()
        hold.let_go()
        closing.result()
        for sender in senders:
            with pytest.raises(ConnectionClosed):
                sender.result()
        pair.say(0x88, b"\x03\xe8")
        pair.spawn(pair.websocket.close)
        assert pair.read_close() == (1000, "")


@pytest.mark.requirement("5.5.1-5")
def test_broadcast_during_a_close_sends_nothing_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected_pair("server", stand_by) as pair:
        lock = WatchedLock(pair)
        hold = Hold(monkeypatch, pair.websocket._protocol, "close")
        closing = close_at_once(pair)
        hold.wait()
        broadcasting = pair.spawn(broadcast, [pair.websocket], "late")
        lock.wait_for(broadcasting)
        assert pair.peer.is_silent()
        hold.let_go()
        closing.result()
        broadcasting.result()
        pair.say(0x88, b"\x03\xe8")
        pair.spawn(pair.websocket.close)
        assert pair.read_close() == (1000, "")


@both_roles
@pytest.mark.requirement("5.5.1-5")
def test_close_waits_for_a_frame_that_is_allowed_already_and_not_yet_put(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected_pair(role, stand_by) as pair:
        lock = WatchedLock(pair)
        hold = Hold(monkeypatch, pair.websocket._protocol, "send_frames")
        sending = pair.spawn(pair.websocket.send, "just in time")
        hold.wait()
        closing = close_at_once(pair)
        lock.wait_for(closing)
        assert pair.state() is State.OPEN
        hold.let_go()
        sending.result()
        closing.result()
        assert pair.read_frame() == (0x81, b"just in time")
        assert pair.read_frame() == (0x88, b"\x03\xe8")


class HeldSocket:
    """A socket whose first `send` is held up."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def send(self, data: bytes, flags: int) -> int:
        self.reached.set()
        assert self.go_on.wait(PATIENCE)
        return int(self.sock.send(data, flags))


@pytest.mark.requirement("5.5.1-5")
def test_close_waits_for_a_broadcast_that_has_found_the_connection_open() -> None:
    with connected_pair("server", stand_by) as pair:
        lock = WatchedLock(pair)
        stream = pair.websocket._stream
        held = HeldSocket(stream.direct)
        stream.direct = cast(socket.socket, held)
        broadcasting = pair.spawn(broadcast, [pair.websocket], "just in time")
        assert held.reached.wait(PATIENCE)
        closing = close_at_once(pair)
        lock.wait_for(closing)
        assert pair.state() is State.OPEN
        held.go_on.set()
        broadcasting.result()
        closing.result()
        assert pair.read_frame() == (0x81, b"just in time")
        assert pair.read_frame() == (0x88, b"\x03\xe8")


@both_roles
@pytest.mark.requirement("5.5.1-6")
def test_peer_reads_one_close_though_its_own_comes_while_another_thread_closes(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That thread is held up between the change of the state and the Close that belongs to it."""
    with connected_pair(role, timeouts=BRISK) as pair:
        hold = Hold(monkeypatch, pair.websocket._protocol, "close")
        closing = close_at_once(pair)
        hold.wait()
        pair.say(0x88, b"\x0f\xa0")
        assert pair.peer.is_silent()
        hold.let_go()
        closing.result()
        assert pair.read_close() == (1000, "")
        assert pair.raised().code == 4000


# What the peer sends while another thread closes: the end of TCP is the reader's
ENDINGS = [
    (0x88, b"\x0f\xa0", 4000, State.CLOSE_EXCHANGED),
    (0x83, b"", 1002, State.FAILED),
]


@both_roles
@pytest.mark.requirement("5.5.1-6", "7.1.1-1", "7.1.7-1")
@pytest.mark.parametrize(("first", "payload", "code", "state"), ENDINGS, ids=["close", "failure"])
def test_reader_whose_peer_ends_the_connection_as_another_thread_closes_sends_one_close(
    role: str,
    first: int,
    payload: bytes,
    code: int,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reader is held up before it puts its Close: the other thread puts it in its place."""
    with connected_pair(role) as pair:
        websocket = pair.websocket
        protocol = websocket._protocol
        hold = Hold(monkeypatch, protocol, "next_message", lambda: protocol.state is state)
        pair.say(first, payload)
        hold.wait()
        assert pair.peer.is_silent()
        websocket.close(4001, "too late", wait=False)
        answer, body = pair.read_frame()
        assert (answer, body[:2]) == (0x88, code.to_bytes(2, "big"))
        with pytest.raises(ConnectionClosed):
            websocket.send("late")
        assert protocol.state is state
        # TCP goes on: its end is left to the reader.
        assert websocket._tcp_end is None
        assert pair.peer.is_silent()
        hold.let_go()
        pair.read_eof()
        assert pair.raised().code == (4000 if code == 4000 else 1006)


@both_roles
@pytest.mark.requirement("5.5.1-6", "7.1.1-1", "7.1.7-1")
@pytest.mark.parametrize(("first", "payload", "code", "state"), ENDINGS, ids=["close", "failure"])
def test_tcp_is_ended_once_though_reader_and_closer_both_find_that_it_is_time(
    role: str,
    first: int,
    payload: bytes,
    code: int,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = []

    with connected_pair(role) as pair:
        websocket = pair.websocket
        protocol = websocket._protocol
        begin = websocket._begin_tcp_end

        def begin_and_count(state: State) -> None:
            begun.append(threading.get_ident())
            begin(state)

        patch_method(monkeypatch, websocket, "_begin_tcp_end", begin_and_count)
        hold = Hold(monkeypatch, protocol, "next_message", lambda: protocol.state is state)
        pair.say(first, payload)
        hold.wait()
        closers = [pair.spawn(websocket.close) for _ in range(2)]
        assert pair.read_frame().first == 0x88  # a closer has put it
        hold.let_go()
        pair.read_eof()
        pair.peer.close()
        for closer in closers:
            closer.result()
            assert closer.thread.ident not in begun
        assert len(begun) == 1
        assert pair.state() is State.CLOSED


@both_roles
@pytest.mark.requirement("5.5.2-1")
def test_pong_that_its_reader_has_not_put_yet_goes_out_before_another_threads_message(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected_pair(role) as pair:
        protocol = pair.websocket._protocol
        hold = Hold(monkeypatch, protocol, "next_message", lambda: protocol.has_data_to_send)
        pair.say(0x89, b"p")
        hold.wait()
        assert pair.peer.is_silent()
        pair.websocket.send("a")
        assert pair.read_frame() == (0x8A, b"p")
        assert pair.read_frame() == (0x81, b"a")
        hold.let_go()
        pair.say(0x81, b"b")
        assert pair.take() == "b"
        pair.say_goodbye()  # there is no second Pong


@both_roles
def test_peer_of_a_failed_connection_keeps_its_time_though_another_thread_began_to_close(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That thread is held up before it sets the deadline of its Close, which is sooner."""
    held = threading.Event()
    failed = threading.Event()

    with connected_pair(role, timeouts=CALM._replace(close_timeout=0.3)) as pair:
        websocket = pair.websocket
        set_deadline = websocket._set_closing_deadline

        def be_held_up_first(*more: float) -> None:
            if not held.is_set():
                held.set()
                failed.wait(0.5)  # with the lock held, nothing can fail meanwhile
            set_deadline(*more)

        patch_method(monkeypatch, websocket, "_set_closing_deadline", be_held_up_first)
        closing = close_at_once(pair)
        assert held.wait(PATIENCE)
        pair.peer.send(pair.frame(0x83, bytes(100))[:20])
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        assert eventually(lambda: websocket._protocol.state is State.FAILED)
        failed.set()
        closing.result()
        for _ in range(8):
            pair.peer.send(bytes(10))
            assert pair.peer.is_silent(0.1)
        pair.read_eof()

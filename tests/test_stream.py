"""Many writers, peers that do not read, and deadlines: invariants 1, 2, 6, 7 and 8 of the design.

The peers that stall really do: they do not read, and their kernel buffers little.
"""

import contextlib
import itertools
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from meeting import (
    BRISK,
    CALM,
    Meeting,
    Task,
    both_roles,
    listen,
    meeting,
    reset,
    stand_by,
)
from peers import PATIENCE, Peer, close_payload, eventually, serving, shake_hands
from rfc6455 import ConnectionClosed, State, WebSocket, broadcast
from rfc6455.stream import MAX_BACKLOG
from tls import Certificate

MIB = 1 << 20
SMALL_WINDOW = 16384
MORE_THAN_KERNELS_BUFFER = 16 * MIB  # Linux lets one side grow to 4 MiB; the other is held small


def send_until_closed(send: Callable[[bytes], None], message: bytes) -> tuple[int, int]:
    """How often the message could be sent, and the code of the end."""
    for count in itertools.count():
        try:
            send(message)
        except ConnectionClosed as closed:
            return count, closed.code
    raise AssertionError


# Invariant 1: a peer that does not read


@both_roles
@pytest.mark.requirement("6.1-1")
def test_post_never_waits_for_a_peer_that_does_not_read_and_drops_it_at_the_limit(
    role: str,
) -> None:
    with meeting(role, window=SMALL_WINDOW) as met:
        tracemalloc.start()
        try:
            posting = met.spawn(send_until_closed, met.websocket.post, bytes(65536))
            count, code = posting.result()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert code == 1006
        assert count >= 16
        assert peak < MAX_BACKLOG + MIB
        assert met.outcome().code == 1006
        assert met.state() is State.CLOSED


def test_peer_that_stands_still_is_dropped_though_little_waits_for_it() -> None:
    timeouts = CALM._replace(write_timeout=0.4)
    with meeting("server", window=SMALL_WINDOW, timeouts=timeouts) as met:
        for _ in range(8):
            met.websocket.post(bytes(65536))
        assert "took nothing" in met.outcome().reason
        assert met.outcome().code == 1006
        with pytest.raises(ConnectionClosed):
            met.websocket.post(b"late")


def test_peer_that_reads_slowly_is_not_dropped() -> None:
    stuck = 2.0
    timeouts = CALM._replace(write_timeout=stuck)
    with meeting("server", window=SMALL_WINDOW, timeouts=timeouts) as met:
        for _ in range(12):
            met.websocket.post(bytes(65536))
        size = 12 * (65536 + 10)
        began, got = time.monotonic(), 0
        while got < size:
            time.sleep(0.08)  # the stimulus
            data = met.peer.sock.recv(65536)
            assert data, f"dropped after {got} bytes and {time.monotonic() - began:.1f} s"
            got += len(data)
        assert time.monotonic() - began > stuck
        met.say(0x89, b"p")
        assert met.read_frame() == (0x8A, b"p")


class SlowReader:
    """Reads at a steady pace in a thread of its own, until it is told to hurry."""

    def __init__(self, met: Meeting, rate: int) -> None:
        self.got = 0
        self._sock = met.peer.sock
        self._rate = rate
        self._hurry = threading.Event()
        self._task = met.spawn(self._read)

    def _read(self) -> None:
        began = time.monotonic()
        while data := self._sock.recv(65536):
            self.got += len(data)
            self._hurry.wait(max(0.0, began + self.got / self._rate - time.monotonic()))

    def hurry(self) -> None:
        self._hurry.set()


@both_roles
@pytest.mark.requirement("5.5.1-10")
def test_close_ends_in_bounded_time_though_the_peer_pings_on_and_reads_the_pongs(
    role: str,
) -> None:
    def ping_on() -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                met.say(0x89, b"p")
                met.read_frame()

    with meeting(role, stand_by, timeouts=CALM._replace(close_timeout=0.5)) as met:
        closing = met.spawn(met.websocket.close, 1008, "enough")
        assert met.read_frame()[0] == 0x88
        pinging = met.spawn(ping_on)
        closing.result()
        pinging.result()
        assert not met.websocket.clean


@both_roles
@pytest.mark.requirement("5.5.1-6")
def test_peer_reads_one_close_though_its_own_comes_while_another_thread_closes(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That thread is held up between the change of the state and the Close that belongs to it."""
    held = threading.Event()
    go_on = threading.Event()

    with meeting(role, timeouts=BRISK) as met:
        protocol = met.websocket._protocol
        close = protocol.close

        def close_and_be_held_up(*code_and_reason: Any) -> None:
            close(*code_and_reason)
            held.set()
            assert go_on.wait(PATIENCE)

        monkeypatch.setattr(protocol, "close", close_and_be_held_up)
        slow = met.spawn(close_at_once, met.websocket)
        assert held.wait(PATIENCE)
        met.say(0x88, b"\x0f\xa0")
        assert met.peer.is_silent()
        go_on.set()
        slow.result()
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.read_eof()
        assert met.outcome().code == 4000


@both_roles
def test_what_a_peer_said_before_it_vanished_is_received_though_sending_fails(role: str) -> None:
    """Nothing is read before sending fails: it all waits in the kernel."""
    texts = [f"number {i}" for i in range(50)]
    with meeting(role, stand_by, timeouts=CALM) as met:
        met.websocket.send("never read by the peer")
        met.peer.send(b"".join(met.frame(0x81, text.encode()) for text in texts))
        met.peer.close()  # with something unread: that is a reset
        with pytest.raises(ConnectionClosed):
            while True:
                met.websocket.send("anybody there?")
        assert met.state() is State.CLOSED
        assert [met.websocket.receive() for _ in texts] == texts
        with pytest.raises(ConnectionClosed, match="1006"):
            met.websocket.receive()


@both_roles
def test_peer_that_ends_its_side_of_tcp_after_its_close_still_gets_what_waits(role: str) -> None:
    size = MIB - 1000
    with meeting(role, window=16384, timeouts=CALM) as met:
        met.websocket.post(bytes(size))
        met.say(0x88, b"\x0f\xa0")
        met.peer.sock.shutdown(socket.SHUT_WR)
        assert met.read_frame() == (0x82, bytes(size))
        assert met.read_frame() == (0x88, b"\x0f\xa0")
        assert met.peer.read_to_eof() == b""


def test_receive_over_tls_times_out_though_a_record_comes_byte_by_byte(
    certificate: Certificate,
) -> None:
    stop = threading.Event()

    def trickle() -> None:
        assert met.tunnel
        met.tunnel.tls.write(met.frame(0x81, b"slow"))
        record = met.tunnel.take_held_back()
        for i in range(len(record)):
            met.tunnel.sock.sendall(record[i : i + 1])
            if stop.wait(0.1):
                met.tunnel.sock.sendall(record[i + 1 :])
                return

    with meeting("server", stand_by, certificate=certificate) as met:
        trickling = met.spawn(trickle)
        assert met.spawn(met.websocket.receive, 0.5).result() is None
        assert trickling.running
        stop.set()
        trickling.result()
        assert met.websocket.receive(PATIENCE) == "slow"


@both_roles
def test_peer_that_reads_slowly_but_steadily_is_kept_however_much_the_kernel_holds(
    role: str,
) -> None:
    """A third of the kernel's buffer, which a writer waits for, is several times `stuck` here."""
    timeouts = CALM._replace(write_timeout=0.5)
    size = 8 * MIB
    with meeting(role, timeouts=timeouts) as met:
        reader = SlowReader(met, rate=MIB)
        sending = met.spawn(met.websocket.send, bytes(size))
        assert not met.ended.wait(3.0)
        reader.hurry()
        sending.result()
        eventually(lambda: reader.got >= size)
        met.websocket.close(wait=False)
        # This wakes the reader; closing the socket under it would not, nor would it send FIN.
        met.peer.sock.shutdown(socket.SHUT_RDWR)


def test_peer_that_reads_what_was_said_before_the_close_slowly_closes_cleanly() -> None:
    """The time for the closing handshake begins once the peer takes no more."""

    def talk_and_go(met: Meeting) -> None:
        met.websocket.post(bytes(size))
        met.websocket.close(4000, "that was all")

    timeouts = CALM._replace(close_timeout=1.0)
    size = MIB - 1000  # with the Close it fits the backlog
    with meeting("server", talk_and_go, timeouts=timeouts) as met:
        began = time.monotonic()
        got = len(met.peer.buffer)  # it came with the handshake
        met.peer.buffer = b""
        while got < size + 10:
            data = met.peer.sock.recv(min(16384, size + 10 - got))
            assert data, f"the end after {got} bytes"
            got += len(data)
            if time.monotonic() < began + 3:
                time.sleep(0.05)  # the stimulus
        assert met.read_frame() == (0x88, close_payload(4000, "that was all"))
        met.say(0x88, close_payload(4000))
        met.read_eof()
        assert met.ended.wait(PATIENCE)
        assert met.websocket.clean


@both_roles
@pytest.mark.requirement("6.1-1")
def test_send_to_a_peer_that_does_not_read_raises_in_bounded_time(role: str) -> None:
    timeouts = CALM._replace(write_timeout=0.4)
    with meeting(role, window=SMALL_WINDOW, timeouts=timeouts) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        with pytest.raises(ConnectionClosed, match="1006"):
            sending.result()
        assert met.outcome().code == 1006


@both_roles
@pytest.mark.requirement("6.1-1", "7.2.1-1")
@pytest.mark.parametrize("end", [Peer.close, reset])
def test_send_in_progress_raises_when_the_peer_goes(role: str, end: Callable[[Peer], None]) -> None:
    with meeting(role, window=SMALL_WINDOW) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        met.peer.read(2)
        end(met.peer)
        with pytest.raises(ConnectionClosed, match="1006"):
            sending.result()


def close_at_once(websocket: WebSocket) -> None:
    websocket.close(wait=False)


def drop(websocket: WebSocket) -> None:
    websocket.drop("enough")


@both_roles
@pytest.mark.parametrize("leave", [close_at_once, drop])
def test_send_in_progress_raises_when_the_connection_is_closed_or_dropped(
    role: str, leave: Callable[[WebSocket], None]
) -> None:
    timeouts = CALM._replace(close_timeout=0.4)
    with meeting(role, window=SMALL_WINDOW, timeouts=timeouts) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        met.peer.read(2)
        leave(met.websocket)
        with pytest.raises(ConnectionClosed):
            sending.result()


@pytest.mark.requirement("6.1-1")
def test_sending_over_tls_to_a_peer_that_leaves_raises_connection_closed(
    certificate: Certificate,
) -> None:
    interval = sys.getswitchinterval()
    codes = []

    def post_while_another_receives(met: Meeting) -> None:
        posting = met.spawn(send_until_closed, met.websocket.post, b"x")
        with contextlib.suppress(ConnectionClosed):
            met.websocket.receive()
        met.websocket.close()
        codes.append(posting.result()[1])

    sys.setswitchinterval(1e-5)  # threads take turns where it hurts
    try:
        for _ in range(20):
            with meeting("server", post_while_another_receives, certificate=certificate) as met:
                assert met.tunnel
                met.tunnel.sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    while met.tunnel.sock.recv(65536):
                        pass
    finally:
        sys.setswitchinterval(interval)
    assert codes == [1006] * 20


@both_roles
def test_nothing_else_waits_while_a_send_does(role: str) -> None:
    def the_rest() -> State:
        met.websocket.post("posted")
        met.websocket.ping(b"p")
        met.websocket.close(wait=False)
        return met.websocket.state

    with meeting(role, stand_by, window=SMALL_WINDOW) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        met.peer.read(2)
        assert met.spawn(the_rest).result() is State.CLOSE_SENT
        assert sending.running


@both_roles
def test_what_waits_beside_a_send_in_progress_is_bounded_too(role: str) -> None:
    with meeting(role, stand_by, window=SMALL_WINDOW) as met:
        sending = met.spawn(met.websocket.send, bytes(16 * MIB))
        met.peer.read(8 * MIB)
        posting = met.spawn(send_until_closed, met.websocket.post, bytes(65536))
        count, code = posting.result()
        assert code == 1006
        assert count * 65536 <= MAX_BACKLOG
        with pytest.raises(ConnectionClosed):
            sending.result()


@both_roles
def test_peer_that_pings_and_never_reads_is_dropped(role: str) -> None:
    def ping_on() -> None:
        pings = met.frame(0x89, bytes(125)) * 500
        with contextlib.suppress(ConnectionError):
            while True:
                met.peer.send(pings)

    with meeting(role, window=SMALL_WINDOW) as met:
        pinging = met.spawn(ping_on)
        assert met.outcome().code == 1006
        pinging.result()


@both_roles
def test_what_waits_for_a_peer_takes_little_memory_however_small_its_pieces_are(role: str) -> None:
    """An empty message is a frame of two bytes or six, and a piece of the backlog."""
    with meeting(role, stand_by, window=SMALL_WINDOW) as met:
        tracemalloc.start()
        try:
            with pytest.raises(ConnectionClosed, match="read too slowly"):
                while True:
                    met.websocket.post("")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB


def test_stuck_client_costs_the_others_nothing() -> None:
    websockets: list[WebSocket] = []
    over = threading.Event()

    def join(websocket: WebSocket) -> None:
        websockets.append(websocket)
        over.wait(60)

    def read(peer: Peer, heard: threading.Semaphore) -> list[tuple[int, bytes]]:
        frames = []
        for _ in range(250):
            frames.append(peer.read_frame())
            heard.release()
        return frames

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(join, timeouts=CALM))
        stack.callback(over.set)
        peers = [stack.enter_context(shake_hands(server)) for _ in range(4)]
        eventually(lambda: len(websockets) == 4)
        stuck, *others = peers
        heard = threading.Semaphore(0)
        readers = [Task(read, Peer(peer.sock), heard) for peer in others]
        for i in range(250):
            broadcast(websockets, i.to_bytes(2, "big") + bytes(65534))
            for _ in others:
                assert heard.acquire(timeout=PATIENCE)
        expected = [(0x82, i.to_bytes(2, "big") + bytes(65534)) for i in range(250)]
        for reader in readers:
            assert reader.result() == expected
        states = [websocket.state for websocket in websockets]
        assert sorted(state.name for state in states) == ["CLOSED", "OPEN", "OPEN", "OPEN"]
        assert stuck.sock.recv(2) == b"\x82\x7f"


def test_thread_that_drains_a_backlog_ends_with_it() -> None:
    with meeting("server", window=SMALL_WINDOW) as met:
        before = set(threading.enumerate())
        for _ in range(8):
            met.websocket.post(bytes(65536))
        for _ in range(8):
            assert met.read_frame() == (0x82, bytes(65536))
        assert eventually(lambda: not set(threading.enumerate()) - before)
        met.websocket.post(b"again")
        assert met.read_frame() == (0x82, b"again")


# Invariant 2: many threads on one connection


SIZES = [0, 1, 125, 126, 5000, 16383, 16384, 65535, 65536, 70_000, 200_000, 300_000]
ROUNDS = 24


def assert_frames_of_many_threads_stay_whole(met: Meeting) -> None:
    def payload(name: str, i: int) -> bytes:
        size = SIZES[(i * 7 + ord(name[1])) % len(SIZES)] if name.startswith("s") else i * 50
        return f"{name}:{i}:".encode() + bytes([65 + i]) * size

    def send_all(name: str) -> None:
        for i in range(ROUNDS):
            met.websocket.send(payload(name, i))

    def post_all(name: str) -> None:
        for i in range(ROUNDS):
            met.websocket.post(payload(name, i).decode())

    def ping_all(name: str) -> None:
        for i in range(ROUNDS):
            met.websocket.ping(payload(name, i)[:125])

    wanted: dict[str, list[tuple[int, bytes]]] = {}
    found: dict[str, list[tuple[int, bytes]]] = {}
    for name in ("s1", "s2", "s3", "s4", "t1", "t2", "t3", "p1", "p2"):
        call, first = {"s": (send_all, 0x82), "t": (post_all, 0x81), "p": (ping_all, 0x89)}[name[0]]
        most = 125 if first == 0x89 else None
        wanted[name] = [(first, payload(name, i)[:most]) for i in range(ROUNDS)]
        found[name] = []
        met.spawn(call, name)
    for _ in range(ROUNDS * len(wanted)):
        first, data = met.read_frame()
        found[data[:2].decode()].append((first, data))
    assert found == wanted


@both_roles
@pytest.mark.requirement("5.4-5")
def test_frames_of_many_threads_never_interleave(role: str) -> None:
    with meeting(role, window=65536) as met:
        assert_frames_of_many_threads_stay_whole(met)
        met.say_goodbye()


@both_roles
@pytest.mark.requirement("5.4-5")
def test_frames_of_many_threads_never_interleave_over_tls(
    role: str, certificate: Certificate
) -> None:
    with meeting(role, window=65536, certificate=certificate) as met:
        assert_frames_of_many_threads_stay_whole(met)
        met.say_goodbye()


@both_roles
@pytest.mark.requirement("5.5.1-5", "6.1-1")
@pytest.mark.parametrize("size", [10, 200_000])
def test_no_data_frame_follows_the_close_while_other_threads_keep_sending(
    role: str, size: int
) -> None:
    def post_on() -> int:
        while not met.leave.wait(0.001):
            try:
                met.websocket.post("x")
            except ConnectionClosed as closed:
                return closed.code
        raise AssertionError("no end")

    with meeting(role) as met:
        senders = [
            met.spawn(send_until_closed, met.websocket.send, bytes([i]) * size) for i in range(3)
        ]
        poster = met.spawn(post_on)
        for _ in range(50):
            assert met.read_frame()[0] in (0x81, 0x82)
        met.websocket.close(4000, "enough", wait=False)
        while (frame := met.read_frame())[0] != 0x88:
            assert frame in [(0x81, b"x"), *((0x82, bytes([i]) * size) for i in range(3))]
        assert frame == (0x88, close_payload(4000, "enough"))
        for sender in senders:
            sender.result()
        poster.result()
        met.say(0x88, b"\x0f\xa0")
        met.read_eof()


# Invariant 7: every wait has an end


@both_roles
@pytest.mark.parametrize("life", [listen, stand_by])
@pytest.mark.requirement("7.1.5-3")
def test_silent_peer_is_pinged_and_then_dropped(role: str, life: Callable[[Meeting], None]) -> None:
    timeouts = CALM._replace(ping_interval=0.2, ping_timeout=0.3)
    before = time.monotonic()
    with meeting(role, life, timeouts=timeouts) as met:
        assert met.read_frame() == (0x89, b"")
        assert met.peer.read_to_eof() == b""
        assert time.monotonic() - before >= 0.5
        assert met.state() is State.CLOSED
        with pytest.raises(ConnectionClosed) as closed:
            met.websocket.receive()
        assert closed.value.code == 1006
        assert "silent" in closed.value.reason


@both_roles
@pytest.mark.parametrize("answer", [(0x8A, b""), (0x8A, b"3"), (0x81, b"a message will do")])
@pytest.mark.requirement("5.5.3-2", "7.3-2")
def test_peer_that_answers_only_the_latest_ping_stays(role: str, answer: tuple[int, bytes]) -> None:
    with meeting(role, timeouts=CALM._replace(ping_interval=0.2)) as met:
        for payload in (b"1", b"2", b"3"):
            met.websocket.ping(payload)
        assert [met.read_frame() for _ in range(3)] == [(0x89, b"1"), (0x89, b"2"), (0x89, b"3")]
        for _ in range(3):  # the next ping is sent only if the last was found answered
            assert met.read_frame() == (0x89, b"")
            met.say(*answer)
        assert met.state() is State.OPEN


@both_roles
def test_slow_handler_keeps_a_peer_that_sent_much_at_once_and_answers_pings(role: str) -> None:
    def work_slowly(met: Meeting) -> None:
        for message in met.websocket:
            met.messages.put(message)
            met.leave.wait(0.1)

    def answer_pings() -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                first, payload = met.read_frame()
                assert first == 0x89
                met.say(0x8A, payload)

    timeouts = CALM._replace(ping_interval=0.1, ping_timeout=1.5)
    with meeting(role, work_slowly, timeouts=timeouts) as met:
        met.peer.send(b"".join(met.frame(0x82, bytes([i])) for i in range(25)))
        answering = met.spawn(answer_pings)
        assert [met.take() for _ in range(25)] == [bytes([i]) for i in range(25)]
        assert met.state() is State.OPEN
        met.leave.set()
        met.peer.sock.shutdown(socket.SHUT_WR)
        answering.result()


@both_roles
@pytest.mark.requirement("7.3-2")
def test_handler_that_only_sends_keeps_a_peer_that_answers_pings(role: str) -> None:
    def tell(met: Meeting) -> None:
        while not met.leave.wait(0.01):
            met.websocket.send("tick")

    with meeting(role, tell, timeouts=CALM._replace(ping_interval=0.2)) as met:
        pings = 0
        while pings < 4:
            first, payload = met.read_frame()
            if first == 0x89:
                pings += 1
                met.say(0x8A, payload)
            else:
                assert (first, payload) == (0x81, b"tick")
        assert not met.ended.is_set()


@both_roles
@pytest.mark.requirement("5.5.2-3", "5.5.1-6")
def test_pings_and_close_are_answered_while_the_handler_only_sends(role: str) -> None:
    def tell(met: Meeting) -> None:
        while not met.leave.wait(0.01):
            met.websocket.send("tick")

    def next_control() -> tuple[int, bytes]:
        while (frame := met.read_frame()) == (0x81, b"tick"):
            pass
        return frame

    with meeting(role, tell, timeouts=BRISK) as met:
        for payload in (b"1", b"2", b"3"):
            met.say(0x89, payload)
            assert next_control() == (0x8A, payload)
        met.say(0x88, b"\x0f\xa0")
        assert next_control() == (0x88, b"\x0f\xa0")
        met.read_eof()
        assert met.outcome().code == 4000


@both_roles
@pytest.mark.requirement("5.5.1-6")
def test_close_that_comes_during_a_send_is_answered_behind_the_message(role: str) -> None:
    def tell(met: Meeting) -> None:
        met.websocket.send(bytes(MORE_THAN_KERNELS_BUFFER))
        met.messages.put("sent")
        listen(met)

    with meeting(role, tell, window=65536, timeouts=BRISK) as met:
        met.peer.buffer = met.peer.read(2) + met.peer.buffer
        met.say(0x88, b"\x0f\xa0")
        assert eventually(lambda: met.state() is State.CLOSE_EXCHANGED)
        assert met.read_frame() == (0x82, bytes(MORE_THAN_KERNELS_BUFFER))
        assert met.read_close() == (4000, "")
        assert met.outcome().code == 4000
        assert met.rest() == ["sent"]


@both_roles
@pytest.mark.requirement("5.5.1-10", "7.1.5-3")
def test_close_ends_in_bounded_time_when_the_peer_never_answers(role: str) -> None:
    with meeting(role, timeouts=CALM._replace(close_timeout=0.4)) as met:
        before = time.monotonic()
        closing = met.spawn(met.websocket.close)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        assert met.peer.read_to_eof() == b""
        closing.result()
        assert time.monotonic() - before >= 0.4
        assert met.state() is State.CLOSED
        assert not met.websocket.clean
        assert met.websocket.close_code == 1006


@both_roles
@pytest.mark.requirement("5.5.1-10")
def test_close_ends_in_bounded_time_when_the_peer_does_not_even_read(role: str) -> None:
    with meeting(role, window=SMALL_WINDOW, timeouts=CALM._replace(close_timeout=0.4)) as met:
        sending = met.spawn(met.websocket.send, bytes(MORE_THAN_KERNELS_BUFFER))
        met.peer.read(2)
        closing = met.spawn(met.websocket.close)
        closing.result()
        with pytest.raises(ConnectionClosed):
            sending.result()
        assert met.state() is State.CLOSED


@both_roles
def test_close_ends_in_bounded_time_while_the_peer_floods_it(role: str) -> None:
    def flood() -> None:
        frames = met.frame(0x82, bytes(60_000)) * 10
        with contextlib.suppress(ConnectionError):
            while not met.leave.is_set():
                met.peer.send(frames)

    with meeting(role, stand_by, timeouts=CALM._replace(close_timeout=0.4)) as met:
        flooding = met.spawn(flood)
        closing = met.spawn(met.websocket.close)
        try:
            closing.result()
        finally:
            met.leave.set()
        flooding.result()
        assert met.state() is State.CLOSED


@both_roles
@pytest.mark.requirement("7.1.7-1")
def test_failed_connection_ends_in_bounded_time_while_the_peer_floods_it(role: str) -> None:
    def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while not met.leave.is_set():
                met.peer.send(bytes(600_000))

    with meeting(role, timeouts=CALM._replace(close_timeout=0.4)) as met:
        met.say(0x83)
        flooding = met.spawn(flood)
        assert met.read_frame()[1][:2] == b"\x03\xea"
        assert eventually(lambda: met.state() is State.CLOSED)
        met.leave.set()
        flooding.result()
        assert met.rest() == []


# Invariant 6: limits at the header


@both_roles
@pytest.mark.requirement("10.4-1")
def test_announced_bytes_take_no_memory_before_they_arrive(role: str) -> None:
    with contextlib.ExitStack() as stack:
        meetings = [stack.enter_context(meeting(role, stand_by)) for _ in range(8)]
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for met in meetings:  # of the largest message that is allowed, its header and a little
            announced = "82 ff" if role == "server" else "82 7f"
            met.peer.send(bytes.fromhex(f"{announced} 00 00 00 00 00 10 00 00") + bytes(104))
            assert met.websocket.receive(timeout=0.05) is None
        _, peak = tracemalloc.get_traced_memory()
        assert peak < MIB


@both_roles
def test_peer_that_sends_to_a_handler_that_does_not_receive_is_held_back(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        frame = met.frame(0x82, bytes(65536))
        tracemalloc.start()
        met.peer.sock.settimeout(0.3)
        try:
            with pytest.raises(TimeoutError):
                while True:
                    met.peer.send(frame)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MIB
        assert met.websocket.receive() == bytes(65536)
        assert met.state() is State.OPEN

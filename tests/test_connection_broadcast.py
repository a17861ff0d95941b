"""`broadcast`: the same messages to many clients, over loopback; it never waits."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pairs import CALM, SMALL_WINDOW, Task, connected_pair, stand_by
from patching import patch_method
from peers import PATIENCE, Frame, Peer, eventually, serving, shake_hands
from protocols import some_bytes
from rfc6455 import ConnectionClosed, Deflate, State, WebSocket, broadcast
from tls import Certificate

MIB = 1 << 20


@contextlib.contextmanager
def clients(count: int) -> Iterator[tuple[list[WebSocket], list[Peer]]]:
    """So many clients of a server, whose handlers wait: our side of each, and the peer's."""
    websockets: list[WebSocket] = []
    over = threading.Event()

    def join(websocket: WebSocket) -> None:
        websockets.append(websocket)
        over.wait(60)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(join, timeouts=CALM))
        stack.callback(over.set)
        peers: list[Peer] = []
        while len(peers) < count:  # one after the other: both lists are in the same order
            peers.append(stack.enter_context(shake_hands(server)))
            eventually(lambda: len(websockets) == len(peers))
        yield websockets, peers


def test_every_client_gets_the_messages_in_their_order() -> None:
    with clients(3) as (websockets, peers):
        broadcast(websockets, "a", b"\x00\xff", "")
        broadcast(iter(websockets), "b")
        expected = bytes.fromhex("81 01 61  82 02 00ff  81 00  81 01 62")
        for peer in peers:
            assert peer.read(len(expected)) == expected


def test_broadcast_of_no_message_or_to_nobody_sends_nothing() -> None:
    with clients(1) as (websockets, peers):
        broadcast([], "a")
        broadcast(websockets)
        broadcast(websockets, "next")
        assert peers[0].read_frame() == (0x81, b"next")


def test_client_over_tls_gets_the_messages_too(certificate: Certificate) -> None:
    with connected_pair("server", stand_by, certificate=certificate) as pair:
        broadcast([pair.websocket], "a", "b")
        assert [pair.read_frame(), pair.read_frame()] == [(0x81, b"a"), (0x81, b"b")]


def test_large_message_that_the_kernel_takes_in_part_comes_whole_and_in_its_place() -> None:
    size = MIB - 1000
    with connected_pair("server", stand_by, window=SMALL_WINDOW) as pair:
        pair.websocket.post("before")
        broadcast([pair.websocket], some_bytes(size))
        pair.websocket.post("behind")
        broadcast([pair.websocket], "last")
        assert pair.read_frame() == (0x81, b"before")
        assert pair.read_frame() == (0x82, some_bytes(size))
        assert pair.read_frame() == (0x81, b"behind")
        assert pair.read_frame() == (0x81, b"last")
        # Behind an empty backlog it goes straight to the socket again.
        eventually(lambda: pair.websocket._stream.direct is not None)
        broadcast([pair.websocket], "straight")
        assert pair.read_frame() == (0x81, b"straight")


def test_client_whose_connection_is_closing_or_closed_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with clients(4) as (websockets, peers):
        websockets[0].close(4000, wait=False)
        websockets[1].drop("enough")
        broadcast(websockets, "a")
        assert peers[0].read_frame() == (0x88, b"\x0f\xa0")
        assert peers[1].read_to_eof() == b""
        for peer in peers[2:]:
            assert peer.read_frame() == (0x81, b"a")
        peers[0].send(bytes.fromhex("88 80 00000000"))
        assert peers[0].read_to_eof() == b""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_client_that_has_vanished_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with clients(3) as (websockets, peers):
        peers[0].close()

        def is_lost() -> bool:
            broadcast(websockets, "a")
            return websockets[0].state is State.CLOSED

        eventually(is_lost)
        broadcast(websockets, "last")
        for peer in peers[1:]:
            while (frame := peer.read_frame()) != (0x81, b"last"):
                assert frame == (0x81, b"a")
        with pytest.raises(ConnectionClosed):
            websockets[0].send("late")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_client_that_fails_unforeseen_is_dropped_with_a_trace_and_the_others_get_theirs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise RuntimeError("a fault of ours")

    with clients(3) as (websockets, peers):
        stream = websockets[1]._stream
        with monkeypatch.context() as patched:
            patch_method(patched, stream, "put", fail)
            stream.direct = None  # so that `put` is used
            broadcast(websockets, "a")
        assert peers[0].read_frame() == peers[2].read_frame() == (0x81, b"a")
        assert peers[1].read_to_eof() == b""
        assert websockets[1].state is State.CLOSED
        broadcast(websockets, "b")
        assert peers[0].read_frame() == peers[2].read_frame() == (0x81, b"b")
        with pytest.raises(ConnectionClosed, match="internal error"):
            websockets[1].receive()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert "a fault of ours" in str(record.exc_info[1])
    assert websockets[1].peer in record.getMessage()


def test_broadcast_by_a_client_raises_and_sends_nothing() -> None:
    with connected_pair("client", stand_by) as pair:
        with pytest.raises(ValueError, match="client"):
            broadcast([pair.websocket], "a")
        pair.websocket.send("next")
        assert pair.read_frame() == (0x81, b"next")


@pytest.mark.requirement("5.6-1")
@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (("\ud800",), UnicodeEncodeError),
        (("good", "a\udfffb"), UnicodeEncodeError),
        ((5,), TypeError),
        ((b"good", None), TypeError),
    ],
)
def test_broadcast_of_what_is_no_message_raises_and_sends_nothing(
    messages: tuple[Any, ...], error: type[Exception]
) -> None:
    with clients(2) as (websockets, peers):
        with pytest.raises(error):
            broadcast(websockets, *messages)
        broadcast(websockets, "next")
        for peer in peers:
            assert peer.read_frame() == (0x81, b"next")


def test_broadcast_never_waits_for_a_client_that_does_not_read_and_drops_it() -> None:
    with connected_pair("server", stand_by, window=SMALL_WINDOW) as pair:

        def broadcast_on() -> int:
            count = 0
            while pair.websocket.state is State.OPEN:
                broadcast([pair.websocket], bytes(65536))
                count += 1
            return count

        count = pair.spawn(broadcast_on).result()
        assert MIB // 65536 <= count < 16 * MIB // 65536
        with pytest.raises(ConnectionClosed, match="read too slowly"):
            pair.websocket.receive()


def test_stuck_client_costs_the_others_nothing() -> None:
    websockets: list[WebSocket] = []
    over = threading.Event()

    def join(websocket: WebSocket) -> None:
        websockets.append(websocket)
        over.wait(60)

    def read(peer: Peer, heard: threading.Semaphore) -> list[Frame]:
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


def test_broadcast_that_cannot_be_compressed_reaches_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("a fault of ours")

    with clients(2) as (websockets, peers):
        patch_method(monkeypatch, websockets[1]._protocol, "build_message", fail)
        websockets[1].deflate = Deflate()
        with pytest.raises(RuntimeError):
            broadcast(websockets, "a")
        broadcast(websockets[:1], "b")
        assert peers[0].read_frame() == (0x81, b"b")

"""Connections with permessage-deflate over loopback, and a server's message to many clients.

test_deflate_protocol.py has the rules. Here they are held where a whole connection has to play
along.
"""

import contextlib
import queue
import threading
import tracemalloc
import zlib
from typing import Any

import pytest

from deflate_cases import (
    DEFAULT,
    HELLO,
    PMD,
    TEXT,
    bomb,
    far_apart,
    frame_of_hello,
    inflated,
    server_bits,
    whole,
)
from pairs import Pair, connected_pair
from peers import (
    PATIENCE,
    Frame,
    Peer,
    after_handshake,
    masked,
    serving,
    shake_hands,
    unmasked,
)
from protocols import both_roles
from rfc6455 import Deflate, WebSocket, broadcast, connect

requirement = pytest.mark.requirement


def echo(pair: Pair) -> None:
    """A handler: receive, and send back."""
    while True:
        message = pair.websocket.receive()
        assert message is not None
        pair.messages.put(message)
        pair.websocket.send(message)


def exchange(pair: Pair, first: int, payload: bytes = b"") -> Frame:
    pair.say(first, payload)
    return pair.read_frame()


def assert_failed(pair: Pair, code: int) -> None:
    """A Close with this code comes, then EOF, and nothing was delivered since."""
    assert pair.peer.read_close()[0] == code
    assert pair.messages.empty()


@both_roles
@requirement("D6-1", "D6.1-4", "D6.1-5", "D7.2.2-1")
def test_endpoint_receives_compressed_and_plain_messages_in_turn(role: str) -> None:
    with connected_pair(role, echo, extensions=PMD, deflate=DEFAULT) as pair:
        assert exchange(pair, 0x81, b"Hello") == (0x81, b"Hello")
        pair.peer.send(frame_of_hello(role))
        assert pair.read_frame() == (0x81, b"Hello")
        assert exchange(pair, 0xC1, b"\x00") == (0x81, b"")
        assert exchange(pair, 0x82, HELLO) == (0x82, HELLO)
        assert exchange(pair, 0xC2, HELLO) == (0x82, b"Hello")
        assert exchange(pair, 0xC1, HELLO) == (0x81, b"Hello")
        received = [pair.take() for _ in range(6)]
        assert received == ["Hello", "Hello", "", HELLO, b"Hello", "Hello"]


@both_roles
@requirement("D6.2-1")
def test_endpoint_inflates_what_arrives_byte_by_byte(role: str) -> None:
    with connected_pair(role, echo, extensions=PMD, deflate=DEFAULT) as pair:
        for byte in frame_of_hello(role) * 2:
            pair.peer.send(bytes([byte]))
        assert [pair.take(), pair.take()] == ["Hello", "Hello"]


@both_roles
@requirement("D7.2.2-5")
def test_endpoint_fails_the_connection_on_data_that_is_not_deflated(role: str) -> None:
    with connected_pair(role, echo, extensions=PMD, deflate=DEFAULT) as pair:
        pair.say(0xC1, b"\xff\xff\xff")
        assert_failed(pair, 1007)


@both_roles
@pytest.mark.parametrize("fragments", [1, 5])
@requirement("10.4-4")
def test_endpoint_refuses_a_bomb_before_it_takes_memory(role: str, fragments: int) -> None:
    payload = bomb(100)
    assert len(payload) < 150_000
    build = masked if role == "server" else unmasked
    size = len(payload) // fragments + 1
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    firsts = [0x42, *[0x00] * (fragments - 2), 0x80] if fragments > 1 else [0xC2]
    stream = b"".join(build(first, piece) for first, piece in zip(firsts, pieces, strict=True))
    with connected_pair(role, echo, extensions=PMD, deflate=DEFAULT, max_message=1 << 20) as pair:
        tracemalloc.start()
        try:
            pair.peer.send(stream)
            assert_failed(pair, 1009)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 6 << 20, "bytes; the message and what zlib puts it together from"


@both_roles
@requirement("D6.1-2")
def test_endpoint_does_not_compress_control_frames(role: str) -> None:
    with connected_pair(role, echo, extensions=PMD, deflate=Deflate(threshold=0)) as pair:
        assert exchange(pair, 0x89, b"a" * 125) == (0x8A, b"a" * 125)
        pair.websocket.ping(b"b" * 125)
        assert pair.read_frame() == (0x89, b"b" * 125)
        pair.websocket.close(4000, "c" * 123, wait=False)
        assert pair.read_frame() == (0x88, b"\x0f\xa0" + b"c" * 123)


@both_roles
@requirement("D7.2.1-7")
@pytest.mark.parametrize("bits", [9, 10, 12])
def test_endpoint_compresses_within_the_window_that_was_agreed_for_it(role: str, bits: int) -> None:
    message = far_apart((1 << bits) + 88)
    agreed = f"{PMD}; {role}_max_window_bits={bits}"
    with connected_pair(role, echo, extensions=agreed, deflate=DEFAULT) as pair:
        first, payload = exchange(pair, 0x82, message)
    assert first == 0xC2
    assert inflated(payload, bits) == message


@both_roles
@requirement("D5-6", "9.1-6")
@pytest.mark.parametrize(
    ("theirs", "ours"), [(None, Deflate()), (f"{PMD}; foo", Deflate()), (PMD, None)]
)
def test_endpoint_uses_no_compression_that_was_not_agreed(
    role: str, theirs: str | None, ours: Deflate | None
) -> None:
    if role == "client":
        theirs = None
    with connected_pair(role, echo, extensions=theirs, deflate=ours) as pair:
        assert pair.websocket.deflate is None
        assert exchange(pair, 0x81, TEXT.encode()) == (0x81, TEXT.encode())
        pair.take()
        pair.say(0xC1, HELLO)
        assert_failed(pair, 1002)


@requirement("7.4.1-7", "D5.1-1")
def test_client_that_needs_compression_closes_with_1010_and_its_name() -> None:
    def script(peer: Peer) -> None:
        first, payload, key = peer.read_frame_and_key()
        peer.send(unmasked(0x88, b"\x03\xf2"))
        assert (first, payload) == (0x88, bytes.fromhex("03 f2") + b"permessage-deflate")
        assert key is not None

    with after_handshake(script) as server:
        websocket = connect(server.url, deflate=Deflate())
        assert websocket.deflate is None
        websocket.close(1010, "permessage-deflate")
    assert websocket.close_code == 1010


def test_server_compresses_a_message_to_many_clients_once_for_each_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows = []
    make_compressor = zlib.compressobj

    def count(*, wbits: int) -> Any:
        windows.append(-wbits)
        return make_compressor(wbits=wbits)

    monkeypatch.setattr(zlib, "compressobj", count)
    websockets: queue.SimpleQueue[WebSocket] = queue.SimpleQueue()
    leave = threading.Event()

    def stay(websocket: WebSocket) -> None:
        websockets.put(websocket)
        leave.wait(PATIENCE)

    offers = [PMD] * 3 + [server_bits(10)] * 2 + [None]
    with serving(stay, deflate=Deflate()) as server, contextlib.ExitStack() as stack:
        stack.callback(leave.set)
        peers = [
            stack.enter_context(shake_hands(server, Sec_WebSocket_Extensions=offer))
            for offer in offers
        ]
        broadcast([websockets.get(timeout=PATIENCE) for _ in peers], TEXT, "short")
        for offer, peer in zip(offers, peers, strict=True):
            first, payload = peer.read_frame()
            text = whole(payload) if first == 0xC1 else payload
            assert (first, text) == (0xC1 if offer else 0x81, TEXT.encode())
            assert peer.read_frame() == (0x81, b"short")
    assert sorted(windows) == [10, 15]  # the clients came in any order

"""Connections with permessage-deflate over loopback, and a server's message to many clients.

`Talk` puts our endpoint, in either role, opposite a bare socket. test_deflate_protocol.py has the
rules; here they are held where a whole connection has to play along.
"""

import contextlib
import queue
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from deflate_cases import (
    DEFAULT,
    HELLO,
    PMD,
    TEXT,
    bomb,
    far_apart,
    inflated,
    server_bits,
    whole,
)
from peers import (
    PATIENCE,
    Peer,
    after_handshake,
    masked,
    response,
    serving,
    shake_hands,
    unmasked,
)
from rfc6455 import ConnectionClosed, Deflate, WebSocket, broadcast, connect

requirement = pytest.mark.requirement
both_roles = pytest.mark.parametrize("role", ["server", "client"])


class Talk:
    """Our endpoint, which echoes, in one role, and a raw peer in the other.

    What the endpoint received is in `received`.
    """

    peer: Peer
    websocket: WebSocket

    def __init__(self, role: str) -> None:
        self.role = role
        self.received: queue.SimpleQueue[str | bytes] = queue.SimpleQueue()
        self.opened = threading.Event()
        self.error: BaseException | None = None

    def live(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.opened.set()
        with contextlib.suppress(ConnectionClosed):  # a peer may leave without the echo
            for message in websocket:
                self.received.put(message)
                websocket.send(message)

    def say(self, first: int, payload: bytes = b"") -> None:
        """A frame of the peer, who masks if our endpoint is the server."""
        build = masked if self.role == "server" else unmasked
        self.peer.send(build(first, payload))

    def hear(self) -> tuple[int, bytes]:
        """The endpoint's next frame, its first byte and its payload."""
        first, payload = self.peer.read_frame()
        return first, payload

    def exchange(self, first: int, payload: bytes = b"") -> tuple[int, bytes]:
        self.say(first, payload)
        return self.hear()

    def assert_fails(self, code: int) -> None:
        """A Close with this code comes, then EOF, and nothing was delivered since."""
        assert self.peer.read_close()[0] == code
        assert self.received.empty()

    def take(self) -> str | bytes:
        return self.received.get(timeout=PATIENCE)


@contextlib.contextmanager
def talk(
    role: str, theirs: str | None = PMD, ours: Deflate | None = DEFAULT, **options: Any
) -> Iterator[Talk]:
    """`theirs` is the peer's Sec-WebSocket-Extensions: its offer to a server, or its answer."""
    talking = Talk(role)
    with contextlib.ExitStack() as stack:
        if role == "server":
            server = stack.enter_context(serving(talking.live, deflate=ours, **options))
            talking.peer = stack.enter_context(shake_hands(server, Sec_WebSocket_Extensions=theirs))
        else:
            talking.peer = stack.enter_context(our_client(talking, theirs, deflate=ours, **options))
        assert talking.opened.wait(PATIENCE)
        yield talking
    if talking.error:
        raise talking.error


@contextlib.contextmanager
def our_client(talking: Talk, answer: str | None, **options: Any) -> Iterator[Peer]:
    def live(url: str) -> None:
        try:
            with connect(url, **options) as websocket:
                talking.live(websocket)
        except BaseException as error:
            talking.error = error
            talking.opened.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        thread = threading.Thread(target=live, args=(url,))
        thread.start()
        sock, _ = listener.accept()
    try:
        with Peer(sock) as peer:
            lines = [f"Sec-WebSocket-Extensions: {answer}"] if answer else []
            peer.send(response(peer.read_head(), *lines))
            yield peer
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@both_roles
@requirement("D6-1", "D6.1-4", "D6.1-5", "D7.2.2-1")
def test_endpoint_receives_compressed_and_plain_messages_in_turn(role: str) -> None:
    with talk(role) as talking:
        assert talking.exchange(0x81, b"Hello") == (0x81, b"Hello")
        talking.peer.send(frame_of_hello(role))
        assert talking.hear() == (0x81, b"Hello")
        assert talking.exchange(0xC1, b"\x00") == (0x81, b"")
        assert talking.exchange(0x82, HELLO) == (0x82, HELLO)
        assert talking.exchange(0xC2, HELLO) == (0x82, b"Hello")
        assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")
        received = [talking.take() for _ in range(6)]
        assert received == ["Hello", "Hello", "", HELLO, b"Hello", "Hello"]


def frame_of_hello(role: str) -> bytes:
    if role == "client":
        return bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00")
    return bytes.fromhex("c1 87 00 00 00 00 f2 48 cd c9 c9 07 00")


@both_roles
@requirement("D6.2-1")
def test_endpoint_inflates_what_arrives_byte_by_byte(role: str) -> None:
    with talk(role) as talking:
        for byte in frame_of_hello(role) * 2:
            talking.peer.send(bytes([byte]))
        assert [talking.take(), talking.take()] == ["Hello", "Hello"]


@both_roles
@requirement("D7.2.2-5")
def test_endpoint_fails_the_connection_on_data_that_is_not_deflated(role: str) -> None:
    with talk(role) as talking:
        talking.say(0xC1, b"\xff\xff\xff")
        talking.assert_fails(1007)


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
    with talk(role, max_message=1 << 20) as talking:
        tracemalloc.start()
        try:
            talking.peer.send(stream)
            talking.assert_fails(1009)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 6 << 20, "bytes; the message and what zlib puts it together from"


@both_roles
@requirement("D6.1-2")
def test_endpoint_does_not_compress_control_frames(role: str) -> None:
    with talk(role, ours=Deflate(least=0)) as talking:
        assert talking.exchange(0x89, b"a" * 125) == (0x8A, b"a" * 125)
        talking.websocket.ping(b"b" * 125)
        assert talking.hear() == (0x89, b"b" * 125)
        talking.websocket.close(4000, "c" * 123, wait=False)
        assert talking.hear() == (0x88, b"\x0f\xa0" + b"c" * 123)


@both_roles
@requirement("D7.2.1-7")
@pytest.mark.parametrize("bits", [9, 10, 12])
def test_endpoint_compresses_within_the_window_that_was_agreed_for_it(role: str, bits: int) -> None:
    message = far_apart((1 << bits) + 88)
    with talk(role, f"{PMD}; {role}_max_window_bits={bits}") as talking:
        first, payload = talking.exchange(0x82, message)
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
    with talk(role, theirs, ours) as talking:
        assert talking.websocket.deflate is None
        assert talking.exchange(0x81, TEXT.encode()) == (0x81, TEXT.encode())
        talking.take()
        talking.say(0xC1, HELLO)
        talking.assert_fails(1002)


@requirement("7.4.1-7", "D5.1-1")
def test_client_that_needs_compression_closes_with_1010_and_its_name() -> None:
    def script(peer: Peer) -> None:
        frame = peer.read_frame_and_key()
        peer.send(unmasked(0x88, b"\x03\xf2"))
        assert frame[:2] == (0x88, bytes.fromhex("03 f2") + b"permessage-deflate")
        assert frame[2] is not None

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
    assert windows == [15, 10]

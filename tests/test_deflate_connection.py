"""Connections with permessage-deflate over loopback (RFC 7692, 6, 7.2).

`Talk` puts our endpoint, in either role, opposite a bare socket.
"""

import contextlib
import queue
import random
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from deflate_cases import (
    AGAIN,
    DEFAULT,
    HELLO,
    PMD,
    TAIL,
    TEXT,
    bomb,
    deflated,
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


# Receiving


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
def test_endpoint_joins_the_fragments_of_a_compressed_message_wherever_it_is_cut(
    role: str,
) -> None:
    with talk(role) as talking:
        for cut in range(len(HELLO) + 1):
            talking.say(0x41, HELLO[:cut])
            assert talking.exchange(0x89, b"p") == (0x8A, b"p")
            talking.say(0x00)
            talking.say(0x80, HELLO[cut:])
            assert talking.hear() == (0x81, b"Hello")
        talking.say(0x42)
        for i in range(len(HELLO)):
            talking.say(0x00, HELLO[i : i + 1])
        assert talking.exchange(0x80) == (0x82, b"Hello")


@both_roles
@requirement("D6.2-1")
def test_endpoint_inflates_what_arrives_byte_by_byte(role: str) -> None:
    with talk(role) as talking:
        for byte in frame_of_hello(role) * 2:
            talking.peer.send(bytes([byte]))
        assert [talking.take(), talking.take()] == ["Hello", "Hello"]


@both_roles
@requirement("D6.1-3")
@pytest.mark.parametrize(
    "frames",
    [
        [(0xC9, b"p")],
        [(0xCA, b"")],
        [(0xC8, b"\x03\xe8")],
        [(0xC0, HELLO)],
        [(0x41, HELLO[:3]), (0xC0, HELLO[3:])],
        [(0x41, HELLO[:3]), (0x40, HELLO[3:4])],
        [(0x41, HELLO[:3]), (0xC9, b"p")],
        [(0x01, b"Hel"), (0xC0, HELLO)],
    ],
)
def test_endpoint_fails_the_connection_on_rsv1_after_the_first_frame_of_a_message(
    role: str, frames: list[tuple[int, bytes]]
) -> None:
    with talk(role) as talking:
        for first, payload in frames:
            talking.say(first, payload)
        talking.assert_fails(1002)


@both_roles
@pytest.mark.parametrize("first", [0xE1, 0xD1, 0xF1, 0xA1, 0x91])
@requirement("5.2-2")
def test_endpoint_fails_the_connection_on_the_bits_that_compression_does_not_use(
    role: str, first: int
) -> None:
    with talk(role) as talking:
        talking.say(first, HELLO)
        talking.assert_fails(1002)


@both_roles
@requirement("D6.1-5")
@pytest.mark.parametrize(
    "payload",
    [
        "00 02 00 fd ff ff fe 00",  # ff fe
        "00 03 00 fc ff ed a0 80 00",  # a surrogate
        "00 02 00 fd ff e2 82 00",  # two thirds of a character
    ],
)
def test_endpoint_fails_the_connection_on_text_that_is_not_utf8_once_inflated(
    role: str, payload: str
) -> None:
    data = bytes.fromhex(payload)
    with talk(role) as talking:
        assert talking.exchange(0xC2, data)[0] == 0x82
        talking.take()
        talking.say(0x41, data[:-2])
        talking.say(0x80, data[-2:])
        talking.assert_fails(1007)


@both_roles
@requirement("D6.1-5")
def test_endpoint_receives_a_character_that_fragments_of_compressed_text_divide(role: str) -> None:
    with talk(role) as talking:
        talking.say(0x41, bytes.fromhex("00 02 00 fd ff e2 82"))
        talking.say(0x80, bytes.fromhex("00 01 00 fe ff ac 00"))
        assert talking.take() == "\u20ac"


@both_roles
@requirement("D7.2.2-5")
def test_endpoint_fails_the_connection_on_data_that_is_not_deflated(role: str) -> None:
    with talk(role) as talking:
        talking.say(0xC1, b"\xff\xff\xff")
        talking.assert_fails(1007)


@both_roles
@requirement("D7.2.2-2", "D7.2.2-3")
def test_endpoint_keeps_the_window_between_compressed_messages(role: str) -> None:
    with talk(role) as talking:
        assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")
        assert talking.exchange(0x81, b"quite another") == (0x81, b"quite another")
        assert talking.exchange(0x82, bytes(300))[0] == 0xC2
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@requirement("D7.2.2-2")
def test_server_keeps_the_window_when_the_offer_that_gave_it_up_was_declined() -> None:
    with talk("server", f"{PMD}; client_no_context_takeover; foo, {PMD}") as talking:
        assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@requirement("D7.2.2-2")
def test_client_keeps_the_window_when_only_the_client_gives_up_its_own() -> None:
    with talk("client", f"{PMD}; client_no_context_takeover") as talking:
        assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@both_roles
def test_endpoint_receives_messages_of_a_peer_without_context_takeover(role: str) -> None:
    with talk(role, f"{PMD}; {other(role)}_no_context_takeover") as talking:
        for _ in range(3):
            assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")


def other(role: str) -> str:
    return {"server": "client", "client": "server"}[role]


@both_roles
@requirement("D7.2.2-4")
def test_endpoint_inflates_with_the_largest_window_when_none_was_agreed(role: str) -> None:
    message = far_apart(32_100)
    with pytest.raises(zlib.error, match="too far back"):
        inflated(deflated(message, 15), 14)
    with talk(role) as talking:
        talking.say(0xC2, deflated(message, 15))
        assert talking.take() == message


@requirement("D7.2.2-4")
def test_server_inflates_with_the_largest_window_when_a_smaller_one_was_only_a_hint() -> None:
    message = far_apart(32_100)
    with talk("server", f"{PMD}; client_max_window_bits=10") as talking:
        talking.say(0xC2, deflated(message, 15))
        assert talking.take() == message


@both_roles
@pytest.mark.parametrize("bits", [9, 10, 14])
def test_endpoint_inflates_with_the_window_that_was_agreed(role: str, bits: int) -> None:
    message = far_apart((1 << bits) - 262)  # zlib's compressor does not look back further
    ours = Deflate(client_max_window_bits=bits)
    theirs = f"{PMD}; client_max_window_bits" if role == "server" else server_bits(bits)
    with talk(role, theirs, ours) as talking:
        talking.say(0xC2, deflated(message, bits))
        assert talking.take() == message


@both_roles
@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize(
    "frames",
    [
        [(0xC1, b"")],  # as Mojolicious and Haskell's websockets send it
        [(0x41, b""), (0x80, b"")],
        [(0x41, b""), (0x00, b""), (0x00, b""), (0x80, b"")],
        [(0xC1, b"\x00")],  # as the RFC has it (7.2.3.6)
        [(0x41, b""), (0x80, b"\x00")],
        [(0x41, b"\x00"), (0x80, b"")],
        [(0xC1, b"")] * 3,
    ],
)
def test_endpoint_receives_empty_messages_with_and_without_a_byte_and_what_follows(
    role: str, forgets: bool, frames: list[tuple[int, bytes]]
) -> None:
    agreed = f"{PMD}; {other(role)}_no_context_takeover" if forgets else PMD
    again = HELLO if forgets else AGAIN
    with talk(role, agreed) as talking:
        for before, after in [(HELLO, again), (again, again), (again, HELLO)]:
            assert talking.exchange(0xC1, before) == (0x81, b"Hello")
            for first, payload in frames:
                talking.say(first, payload)
                if first & 0x80:
                    assert talking.hear() == (0x81, b"")
            assert talking.exchange(0xC1, after) == (0x81, b"Hello")


@both_roles
def test_endpoint_receives_empty_fragments_between_those_of_a_message(role: str) -> None:
    with talk(role) as talking:
        for payload in (HELLO, AGAIN):
            for first, piece in [(0x41, b""), (0, payload[:1]), (0, b""), (0, payload[1:])]:
                talking.say(first, piece)
            assert talking.exchange(0x80, b"") == (0x81, b"Hello")


@requirement("D5-1")
def test_client_that_asked_for_a_small_window_inflates_within_it() -> None:
    message = far_apart(1 << 9)
    with talk("client", server_bits(10), Deflate(server_max_window_bits=10)) as talking:
        talking.say(0xC2, deflated(message, 10))
        assert talking.take() == message


# Limits


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
@requirement("10.4-4")
def test_endpoint_counts_what_earlier_fragments_inflated_to(role: str) -> None:
    zeros = deflated(bytes(600), 15) + TAIL
    with talk(role, max_message=1000) as talking:
        talking.say(0x42, zeros)
        talking.say(0x80, zeros)
        talking.assert_fails(1009)


@both_roles
@requirement("10.4-4")
@pytest.mark.parametrize("first", [0xC1, 0xC2])
def test_endpoint_receives_a_compressed_message_of_the_limit_and_refuses_one_byte_more(
    role: str, first: int
) -> None:
    with talk(role, max_message=5000) as talking:
        for _ in range(2):
            talking.say(first, deflated(bytes(5000), 15))
            assert talking.hear()[0] == first
            assert len(talking.take()) == 5000
        talking.say(first, deflated(bytes(5001), 15))
        talking.assert_fails(1009)


@both_roles
def test_endpoint_receives_a_message_of_the_limit_that_is_longer_when_deflated(role: str) -> None:
    message = random.Random(7692).randbytes(5000)
    payload = deflated(message, 15)
    assert len(payload) > 5000
    with talk(role, max_message=5000) as talking:
        assert talking.exchange(0xC2, payload) == (0x82, message)


# Sending


@both_roles
@requirement("D6.1-1", "D6.1-4", "D7.2.1-1", "D7.2.1-2", "D7.2.1-5")
@pytest.mark.parametrize("size", [256, 300, 5000, 65536, 1 << 20])
def test_endpoint_compresses_a_message_into_one_frame(role: str, size: int) -> None:
    text = (TEXT * (size // len(TEXT) + 1))[:size]
    with talk(role) as talking:
        for plain, compressed in ((0x81, 0xC1), (0x82, 0xC2)):
            first, payload = talking.exchange(plain, text.encode())
            assert first == compressed
            assert len(payload) < size / 2
            assert not payload.endswith(TAIL)
            assert whole(payload) == text.encode()


@both_roles
@requirement("D6.1-1", "D7.2.1-1")
def test_endpoint_sends_uncompressed_what_compressing_does_not_make_smaller(role: str) -> None:
    noise = random.Random(7692).randbytes(5000)
    with talk(role, ours=Deflate(least=0)) as talking:
        assert talking.exchange(0x81) == (0x81, b"")
        assert talking.exchange(0x81) == (0x81, b"")
        assert talking.exchange(0x81, b"Hello") == (0x81, b"Hello")
        assert talking.exchange(0x82, noise) == (0x82, noise)
        first, payload = talking.exchange(0x81, b"a" * 20)
        assert (first, whole(payload)) == (0xC1, b"a" * 20)


@both_roles
@requirement("D6.1-1")
def test_endpoint_sends_small_messages_uncompressed(role: str) -> None:
    with talk(role) as talking:
        assert talking.exchange(0x81, b"a" * 255) == (0x81, b"a" * 255)
        assert talking.exchange(0x81, b"a" * 256)[0] == 0xC1


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
@requirement("D7.2.1-6", "D7.1.1.2-1")
@pytest.mark.parametrize("agreed", [False, True])
def test_endpoint_sends_each_message_as_if_it_were_the_first(role: str, agreed: bool) -> None:
    with talk(role, PMD + (f"; {role}_no_context_takeover" if agreed else "")) as talking:
        first, payload = talking.exchange(0x81, TEXT.encode())
        assert (first, whole(payload)) == (0xC1, TEXT.encode())
        assert talking.exchange(0x81, TEXT.encode()) == (0xC1, payload)


@both_roles
@requirement("D7.2.1-7")
@pytest.mark.parametrize("bits", [9, 10, 12])
def test_endpoint_compresses_within_the_window_that_was_agreed_for_it(role: str, bits: int) -> None:
    message = far_apart((1 << bits) + 88)
    with talk(role, f"{PMD}; {role}_max_window_bits={bits}") as talking:
        first, payload = talking.exchange(0x82, message)
    assert first == 0xC2
    assert inflated(payload, bits) == message


@requirement("D7.1.2.2-6", "D7.2.1-7")
@pytest.mark.parametrize(("answer", "bits"), [("", 15), ("; client_max_window_bits=12", 12)])
def test_client_compresses_within_the_window_of_the_answer_and_not_of_its_own_hint(
    answer: str, bits: int
) -> None:
    message = far_apart((1 << bits) + 88)
    with talk("client", PMD + answer, Deflate(client_max_window_bits=10)) as talking:
        first, payload = talking.exchange(0x82, message)
    assert first == 0xC2
    assert inflated(payload, bits) == message


@requirement("D7.2.1-7")
def test_client_sends_uncompressed_when_the_window_is_too_small_for_zlib() -> None:
    with talk("client", f"{PMD}; client_max_window_bits=8") as talking:
        for size in (0, 256, 5000):
            assert talking.exchange(0x82, bytes(size)) == (0x82, bytes(size))
        assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@requirement("D7.2.1-7")
def test_server_compresses_within_the_smaller_of_its_own_window_and_the_offered_one() -> None:
    message = far_apart(1 << 10)
    ours = Deflate(server_max_window_bits=9)
    with talk("server", f"{PMD}; server_max_window_bits=12", ours) as talking:
        first, payload = talking.exchange(0x82, message)
    assert first == 0xC2
    assert inflated(payload, 9) == message


# Without agreement


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


# To many


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

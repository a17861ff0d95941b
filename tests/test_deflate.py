"""permessage-deflate (RFC 7692): agreeing on it, compressing, inflating within a bound.

First the negotiation as functions over header values, without a socket; then both over loopback:
`Talk` puts our endpoint, in either role, opposite a bare socket. What a peer compresses is written
out as bytes, mostly RFC 7692's own examples (7.2.3); what our side compresses is inflated by zlib.
"""

import contextlib
import functools
import queue
import random
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

import pytest

from peers import (
    PATIENCE,
    Peer,
    RawServer,
    after_handshake,
    masked,
    request,
    response,
    serving,
    shake_hands,
    tcp,
    unmasked,
)
from rfc6455 import (
    ConnectionClosed,
    Deflate,
    InvalidHandshake,
    WebSocket,
    WebSocketServer,
    broadcast,
    connect,
)
from rfc6455 import protocol as protocol_module
from rfc6455.deflate import accept_offer, build_offer, check_answer, compress
from rfc6455.handshake import Extension, parse_extensions

requirement = pytest.mark.requirement
both_roles = pytest.mark.parametrize("role", ["server", "client"])

PMD = "permessage-deflate"
DEFAULT = Deflate()
SERVER_10 = Deflate(server_max_window_bits=10)
SERVER_FORGETS = Deflate(server_no_context_takeover=True)
CLIENT_10 = Deflate(client_max_window_bits=10)
CLIENT_FORGETS = Deflate(client_no_context_takeover=True)
TAIL = bytes.fromhex("00 00 ff ff")
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")  # "Hello" (7.2.3.1)
AGAIN = bytes.fromhex("f2 00 11 00 00")  # "H" and four of the five bytes before it (7.2.3.2)
TEXT = "All work and no play makes Jack a dull boy. " * 20  # 880 bytes

BAD_BITS = ["", "=7", "=16", "=0", "=08", "=+9", "=-9", "=1.0", "=abc", "=010", "=1e1", '="08"']


def extensions(*lines: str) -> list[Extension]:
    headers = Message()
    for line in lines:
        headers["Sec-WebSocket-Extensions"] = line
    return parse_extensions(headers)


# What a server makes of an offer

# What the server wants, the offer, and the answer to it.
ACCEPTED = [
    (Deflate(), "", ""),
    (Deflate(), "; server_no_context_takeover", ""),
    (Deflate(), "; client_no_context_takeover", "; client_no_context_takeover"),
    (Deflate(), "; client_max_window_bits", ""),
    (Deflate(), "; client_max_window_bits=15", ""),
    (Deflate(), "; client_max_window_bits=10", ""),
    (Deflate(), "; client_max_window_bits=8", ""),
    (Deflate(), "; server_max_window_bits=15", "; server_max_window_bits=15"),
    (Deflate(), "; server_max_window_bits=10", "; server_max_window_bits=10"),
    (Deflate(), "; server_max_window_bits=9", "; server_max_window_bits=9"),
    (Deflate(), '; server_max_window_bits="10"', "; server_max_window_bits=10"),
    (Deflate(), '; server_max_window_bits="1\\0"', "; server_max_window_bits=10"),
    (SERVER_10, "", "; server_max_window_bits=10"),
    (SERVER_10, "; server_max_window_bits=12", "; server_max_window_bits=10"),
    (SERVER_10, "; server_max_window_bits=9", "; server_max_window_bits=9"),
    (CLIENT_FORGETS, "", "; client_no_context_takeover"),
    (CLIENT_10, "; client_max_window_bits", "; client_max_window_bits=10"),
    (CLIENT_10, "; client_max_window_bits=12", "; client_max_window_bits=10"),
    (CLIENT_10, '; client_max_window_bits="9"', "; client_max_window_bits=9"),
    (Deflate(client_max_window_bits=8), "; client_max_window_bits", "; client_max_window_bits=8"),
    (
        Deflate(server_max_window_bits=11, client_max_window_bits=10),
        "; client_max_window_bits; client_no_context_takeover; server_no_context_takeover",
        "; client_no_context_takeover; server_max_window_bits=11; client_max_window_bits=10",
    ),
]

DECLINED = [
    (Deflate(), "; foo=1"),
    (Deflate(), "; foo"),
    (Deflate(), "; server_no_context_takeover; server_no_context_takeover"),
    (Deflate(), "; client_max_window_bits; client_max_window_bits=10"),
    (Deflate(), "; server_max_window_bits=10; server_max_window_bits=10"),
    (Deflate(), "; server_max_window_bits=8"),
    (Deflate(server_max_window_bits=8), ""),
    (Deflate(), "; server_no_context_takeover=1"),
    (Deflate(), "; client_no_context_takeover=1"),
    (Deflate(), '; client_no_context_takeover="true"'),
    (CLIENT_10, ""),
    (CLIENT_10, "; client_no_context_takeover"),
    *((Deflate(), f"; server_max_window_bits{value}") for value in BAD_BITS),
    *((Deflate(), f"; client_max_window_bits{value}") for value in BAD_BITS[1:]),
]


def accept(offer: str, ours: Deflate = DEFAULT) -> str | None:
    """The answer to this offer, None where it is declined."""
    found = accept_offer(extensions(offer), ours)
    return found and found[1]


@requirement("D5.2-1", "D7.1.1.1-2", "D7.1.1.1-3", "D7.1.2.1-2", "D7.1.2.2-1", "D7.1.2.2-3")
@requirement("D7.1.2.2-5", "D7.1.2.2-7")
@pytest.mark.parametrize(("ours", "offered", "answered"), ACCEPTED)
def test_server_answers_an_offer_with_what_it_needs(
    ours: Deflate, offered: str, answered: str
) -> None:
    assert accept(PMD + offered, ours) == f"{PMD}; server_no_context_takeover{answered}"


@requirement("D7-1", "D7-2", "D7.1.1.1-1", "D7.1.2.1-1", "D7.1.2.2-1", "D7.1.2.2-3", "D7.1.2.2-7")
@pytest.mark.parametrize(("ours", "offered"), DECLINED)
def test_server_declines_an_offer_it_cannot_meet(ours: Deflate, offered: str) -> None:
    assert accept(PMD + offered, ours) is None


def test_server_declines_other_extensions_and_the_empty_list() -> None:
    assert accept_offer([], Deflate()) is None
    assert accept("x-webkit-deflate-frame, permessage-bzip2, permessage-deflate2") is None


@requirement("D5-2", "D5-3", "D5-4", "9.1-5")
@pytest.mark.parametrize(
    ("offers", "answered"),
    [
        (f"{PMD}; server_max_window_bits=99, {PMD}", ""),
        (f"{PMD}; server_max_window_bits=8, {PMD}; foo, {PMD}; client_max_window_bits", ""),
        (f"{PMD}; server_max_window_bits=10, {PMD}", "; server_max_window_bits=10"),
        (f"{PMD}, {PMD}; server_max_window_bits=10", ""),
        (f"{PMD}; client_no_context_takeover, {PMD}", "; client_no_context_takeover"),
        (f"{PMD}, {PMD}", ""),
        (f"x-foo; a=1; b, {PMD}, x-bar", ""),
        (f'x-foo; server_max_window_bits="10", {PMD}', ""),
    ],
)
def test_server_takes_the_first_of_several_offers_that_it_can_meet(
    offers: str, answered: str
) -> None:
    assert accept(offers) == f"{PMD}; server_no_context_takeover{answered}"


def test_server_reads_offers_split_over_several_header_lines_in_their_order() -> None:
    lines = extensions(f"{PMD}; server_max_window_bits=8", f"foo, {PMD}; server_max_window_bits=11")
    found = accept_offer(lines, Deflate())
    assert found is not None
    assert found[1] == f"{PMD}; server_no_context_takeover; server_max_window_bits=11"


@requirement("D5-6", "D7-1", "D7-2", "D7.1.1.1-1", "D7.1.2.1-1", "D7.1.2.2-1", "D7.1.2.2-3")
@requirement("D5.2-1", "D7.1.1.1-2", "D7.1.2.1-2", "D7.1.2.2-5", "D7.1.2.2-7")
def test_server_puts_on_the_wire_what_it_decided() -> None:
    by_wish: dict[Deflate, list[tuple[str, str | None]]] = {}
    for ours, offered, answered in ACCEPTED:
        wanted = f"{PMD}; server_no_context_takeover{answered}"
        by_wish.setdefault(ours, []).append((offered, wanted))
    for ours, offered in DECLINED:
        by_wish.setdefault(ours, []).append((offered, None))
    for ours, cases in by_wish.items():
        with serving(lambda _: None, deflate=ours) as server:
            for offered, wanted_answer in cases:
                assert extension_in_101(server, PMD + offered) == wanted_answer, (ours, offered)


def extension_in_101(server: WebSocketServer, offer: str) -> str | None:
    with tcp(server) as peer:
        peer.send(request(server, Sec_WebSocket_Extensions=offer))
        head = peer.read_head()
    assert head.startswith("HTTP/1.1 101 ")
    values = extension_values(head)
    assert len(values) <= 1
    return values[0] if values else None


def extension_values(head: str) -> list[str]:
    lines = [line.partition(":") for line in head.split("\r\n")]
    return [value.strip() for name, _, value in lines if name == "Sec-WebSocket-Extensions"]


# What a client offers, and what it makes of the answer


@requirement("D5-1", "D7.3-1", "9.1-7")
@pytest.mark.parametrize(
    ("ours", "offer"),
    [
        (Deflate(), f"{PMD}; client_max_window_bits"),
        (Deflate(client_max_window_bits=0), PMD),
        (Deflate(client_max_window_bits=11), f"{PMD}; client_max_window_bits=11"),
        (
            Deflate(server_max_window_bits=10),
            f"{PMD}; server_max_window_bits=10; client_max_window_bits",
        ),
        (
            Deflate(True, True, 12, 0),
            f"{PMD}; server_no_context_takeover; client_no_context_takeover"
            "; server_max_window_bits=12",
        ),
    ],
)
def test_client_offers_what_it_is_asked_to(ours: Deflate, offer: str) -> None:
    assert build_offer(ours) == offer
    assert offered_on_the_wire(deflate=ours) == [offer]


@requirement("D5-1", "9.1-7")
def test_client_offers_nothing_unless_it_is_asked_to() -> None:
    assert offered_on_the_wire() == []


@requirement("D7.3-1")
def test_by_default_both_sides_leave_the_windows_at_their_largest() -> None:
    assert accept(PMD) == f"{PMD}; server_no_context_takeover"
    assert accept(f"{PMD}; client_max_window_bits") == f"{PMD}; server_no_context_takeover"
    assert build_offer(Deflate()) == f"{PMD}; client_max_window_bits"


def offered_on_the_wire(**options: Any) -> list[str]:
    """The values of Sec-WebSocket-Extensions in our client's request."""
    heads = []

    def refuse(peer: Peer) -> None:
        heads.append(peer.read_head())
        peer.send(b"HTTP/1.1 404 Not Found\r\n\r\n")

    with RawServer(refuse) as server, pytest.raises(InvalidHandshake):
        connect(server.url, **options)
    return extension_values(heads[0])


# What the client offered, the answer, and what is agreed: both flags and both windows.
AGREED = [
    (Deflate(), "", (False, False, 15, 15)),
    (Deflate(), "; server_no_context_takeover", (True, False, 15, 15)),
    (Deflate(), "; client_no_context_takeover", (False, True, 15, 15)),
    (Deflate(), "; server_max_window_bits=15", (False, False, 15, 15)),
    (Deflate(), "; server_max_window_bits=8", (False, False, 8, 15)),
    (Deflate(), '; server_max_window_bits="10"', (False, False, 10, 15)),
    (Deflate(), "; client_max_window_bits=10", (False, False, 15, 10)),
    (Deflate(), '; client_max_window_bits="9"', (False, False, 15, 9)),
    (Deflate(), "; client_max_window_bits=8", (False, False, 15, 8)),
    (Deflate(client_max_window_bits=8), "; client_max_window_bits=8", (False, False, 15, 8)),
    (SERVER_10, "; server_max_window_bits=10", (False, False, 10, 15)),
    (SERVER_10, "; server_max_window_bits=9", (False, False, 9, 15)),
    (SERVER_FORGETS, "; server_no_context_takeover", (True, False, 15, 15)),
    (CLIENT_FORGETS, "", (False, False, 15, 15)),
    (CLIENT_FORGETS, "; client_no_context_takeover", (False, True, 15, 15)),
    (CLIENT_10, "", (False, False, 15, 15)),
    (CLIENT_10, "; client_max_window_bits=12", (False, False, 15, 12)),
    (CLIENT_10, "; client_max_window_bits=9", (False, False, 15, 9)),
    (Deflate(client_max_window_bits=0), "; server_max_window_bits=11", (False, False, 11, 15)),
]

REFUSED = [
    (Deflate(), f"{PMD}, {PMD}"),
    (Deflate(), f"{PMD}, foo"),
    (Deflate(), f"foo, {PMD}"),
    (Deflate(), "foo"),
    (None, PMD),
    (None, "foo"),
    (SERVER_10, PMD),
    (SERVER_10, f"{PMD}; server_max_window_bits=11"),
    (SERVER_10, f"{PMD}; server_no_context_takeover"),
    (SERVER_FORGETS, PMD),
    (SERVER_FORGETS, f"{PMD}; client_no_context_takeover"),
    (Deflate(), f"{PMD}; foo=1"),
    (Deflate(), f"{PMD}; server_max_window_bits=10; server_max_window_bits=10"),
    (Deflate(), f"{PMD}; client_no_context_takeover; client_no_context_takeover"),
    (Deflate(), f"{PMD}; server_no_context_takeover=1"),
    (Deflate(), f"{PMD}; client_no_context_takeover=1"),
    (Deflate(client_max_window_bits=0), f"{PMD}; client_max_window_bits=10"),
    (Deflate(client_max_window_bits=0), f"{PMD}; client_max_window_bits=15"),
    *((Deflate(), f"{PMD}; server_max_window_bits{value}") for value in BAD_BITS),
    *((Deflate(), f"{PMD}; client_max_window_bits{value}") for value in BAD_BITS),
]


@requirement("D5.2-1", "D7.1.1.1-4", "D7.1.1.2-1", "D7.1.1.2-2", "D7.1.2.1-3", "D7.1.2.2-6")
@pytest.mark.parametrize(("ours", "answered", "agreed"), AGREED)
def test_client_agrees_to_an_answer_that_meets_its_offer(
    ours: Deflate, answered: str, agreed: tuple[bool, bool, int, int]
) -> None:
    found = check_answer(extensions(PMD + answered), ours)
    assert found is not None
    assert found[:4] == agreed
    with RawServer(answering(PMD + answered)) as server:
        with connect(server.url, deflate=ours) as websocket:
            assert websocket.deflate is not None
            assert websocket.deflate[:4] == agreed


@requirement("D5-5", "D5-7", "D5.1-1", "D7-3", "D7-4", "D7.1.1.1-1", "D7.1.2.1-1", "D7.1.2.1-3")
@requirement("D7.1.2.2-2", "D7.1.2.2-4", "4.1-20")
@pytest.mark.parametrize(("ours", "answered"), REFUSED)
def test_client_refuses_an_answer_that_does_not_meet_its_offer(
    ours: Deflate | None, answered: str
) -> None:
    with pytest.raises(InvalidHandshake):
        check_answer(extensions(answered), ours)
    sent_after = []

    def answer(peer: Peer) -> None:
        peer.send(response(peer.read_head(), f"Sec-WebSocket-Extensions: {answered}"))
        sent_after.append(peer.read_to_eof())

    with RawServer(answer) as server, pytest.raises(InvalidHandshake) as raised:
        connect(server.url, deflate=ours)
    assert raised.value.status == 101
    assert sent_after == [b""]


@requirement("D5-5")
def test_client_refuses_an_extension_accepted_twice_in_two_header_lines() -> None:
    line = f"Sec-WebSocket-Extensions: {PMD}"
    with after_handshake(assert_eof, line, line) as server:
        with pytest.raises(InvalidHandshake):
            connect(server.url, deflate=Deflate())


@requirement("D5-6")
def test_client_goes_on_without_compression_where_the_answer_has_none() -> None:
    assert check_answer([], Deflate()) is None
    assert check_answer([], None) is None


def assert_eof(peer: Peer) -> None:
    assert peer.read_to_eof() == b""


def answering(extension: str) -> Callable[[Peer], None]:
    """A server that answers so and then lets the client close."""

    def script(peer: Peer) -> None:
        peer.send(response(peer.read_head(), f"Sec-WebSocket-Extensions: {extension}"))
        assert peer.read_frame() == (0x88, b"\x03\xe8")
        peer.send(unmasked(0x88, b"\x03\xe8"))

    return script


# Compressing, without a socket


@requirement("D7.2.1-1")
def test_compressing_leaves_out_the_end_of_the_last_empty_block() -> None:
    assert compress(b"Hello", 15) == bytes.fromhex("f2 48 cd c9 c9 07 00")
    assert compress(b"Hello", 9) == bytes.fromhex("f2 48 cd c9 c9 07 00")
    assert compress(b"", 15) == bytes.fromhex("00")
    assert compress(b"Hello", 8) is None


def inflated(payload: bytes, bits: int = 15) -> bytes:
    """One message on its own. A byte a call, so that zlib can't look back beyond the window."""
    inflater = zlib.decompressobj(-bits)
    clear, rest = b"", payload + TAIL
    while rest:
        clear += inflater.decompress(rest, 1)
        rest = inflater.unconsumed_tail
    while more := inflater.decompress(b"", 1):
        clear += more
    assert not inflater.eof, "a block with BFINAL"
    return clear


def far_apart(distance: int, alphabet: bytes = bytes(range(16))) -> bytes:
    """So many bytes, which can be compressed to about half, and then the same again."""
    block = bytes(random.Random(6455).choices(alphabet, k=distance))
    return block * 2


@requirement("D7.2.1-7")
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
def test_compressing_never_looks_back_beyond_the_window(bits: int) -> None:
    message = far_apart((1 << bits) + 88)
    compressed = compress(message, bits)
    assert compressed is not None
    assert inflated(compressed, bits) == message
    if bits < 15:  # else the check above would hold nothing
        with pytest.raises(zlib.error, match="too far back"):
            inflated(compress(message, bits + 1) or b"", bits)


# On the wire


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
def test_endpoint_joins_the_fragments_of_a_compressed_message_wherever_it_was_cut(
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
def test_endpoint_fails_a_connection_on_rsv1_beyond_the_first_frame_of_a_message(
    role: str, frames: list[tuple[int, bytes]]
) -> None:
    with talk(role) as talking:
        for first, payload in frames:
            talking.say(first, payload)
        talking.assert_fails(1002)


@both_roles
@pytest.mark.parametrize("first", [0xE1, 0xD1, 0xF1, 0xA1, 0x91])
@requirement("5.2-2")
def test_endpoint_fails_a_connection_on_the_bits_that_compression_does_not_use(
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
def test_endpoint_fails_a_connection_on_text_that_is_not_utf8_once_inflated(
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
@pytest.mark.parametrize("payload", ["ff ff ff", "07", "00 01 00 00 00 41", "f2 00 11 00 00"])
def test_endpoint_fails_a_connection_on_data_that_is_not_deflated(role: str, payload: str) -> None:
    with talk(role) as talking:
        talking.say(0xC1, bytes.fromhex(payload))
        talking.assert_fails(1007)


@both_roles
@requirement("D7.2.1-3")
def test_endpoint_receives_deflate_blocks_of_every_type(role: str) -> None:
    stored = bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00")
    two_blocks = bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")
    dynamic = bytes.fromhex("04 c1 01 01 00 00 00 80 90 ad f9 3f 22 0a 91 10 18")
    with talk(role) as talking:
        assert talking.exchange(0xC1, stored) == (0x81, b"Hello")
        assert talking.exchange(0xC1, two_blocks) == (0x81, b"Hello")
        talking.say(0x41, HELLO + TAIL)
        assert talking.exchange(0x80, b"\x00") == (0x81, b"Hello")
        assert talking.exchange(0xC1, dynamic) == (0x81, b"aabbbabbababbbabbbbb")


@both_roles
@requirement("D7.2.1-4")
def test_endpoint_receives_final_blocks_and_what_refers_back_beyond_them(role: str) -> None:
    final = bytes.fromhex("f3 48 cd c9 c9 07 00 00")
    final_and_more = bytes.fromhex("f3 48 cd c9 c9 07 00 0a cf 2f ca 49 01 00")
    with talk(role) as talking:
        assert talking.exchange(0xC1, final) == (0x81, b"Hello")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")
        assert talking.exchange(0xC1, final_and_more) == (0x81, b"HelloWorld")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Horld")
        for byte in final_and_more[:-1]:
            talking.say(0x41 if byte == 0xF3 else 0x00, bytes([byte]))
        assert talking.exchange(0x80, b"\x00") == (0x81, b"HelloWorld")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Horld")


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
def test_server_keeps_its_window_unless_it_agreed_that_the_client_forgets() -> None:
    with talk("server", f"{PMD}; client_no_context_takeover; foo, {PMD}") as talking:
        assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@requirement("D7.2.2-2")
def test_client_keeps_its_window_unless_the_answer_says_that_the_server_forgets() -> None:
    with talk("client", f"{PMD}; client_no_context_takeover") as talking:
        assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")


@both_roles
def test_endpoint_receives_messages_of_a_peer_that_agreed_to_forget(role: str) -> None:
    with talk(role, f"{PMD}; {other(role)}_no_context_takeover") as talking:
        for _ in range(3):
            assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")


def other(role: str) -> str:
    return {"server": "client", "client": "server"}[role]


@both_roles
@requirement("D7.2.2-4")
def test_endpoint_inflates_with_the_largest_window_where_none_was_agreed(role: str) -> None:
    message = far_apart(32_100)
    with pytest.raises(zlib.error, match="too far back"):
        inflated(deflated(message, 15), 14)
    with talk(role) as talking:
        talking.say(0xC2, deflated(message, 15))
        assert talking.take() == message


@requirement("D7.2.2-4")
def test_server_inflates_with_the_largest_window_where_a_smaller_one_was_but_hinted_at() -> None:
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


def server_bits(bits: int) -> str:
    return f"{PMD}; server_max_window_bits={bits}"


def deflated(message: bytes, bits: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=-bits)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


# Limits


@functools.cache
def bomb(mebibytes: int) -> bytes:
    """So many MiB of zeros, deflated to about a thousandth."""
    compressor = zlib.compressobj(9, wbits=-15)
    pieces = [compressor.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return (b"".join(pieces) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


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
def test_endpoint_receives_a_message_of_the_limit_that_deflating_made_longer(role: str) -> None:
    message = random.Random(7692).randbytes(5000)
    payload = deflated(message, 15)
    assert len(payload) > 5000
    with talk(role, max_message=5000) as talking:
        assert talking.exchange(0xC2, payload) == (0x82, message)


@both_roles
@requirement("D7.2.1-4", "10.7-1")
def test_endpoint_bears_a_thousand_final_blocks_in_a_message_and_no_more(role: str) -> None:
    final = bytes.fromhex("03 00")  # empty, and costs a new inflater: a megabyte of them, seconds
    with talk(role) as talking:
        for _ in range(2):
            talking.say(0x42, final * 500)
            assert talking.exchange(0x80, final * 500 + b"\x00") == (0x82, b"")
            talking.take()
        talking.say(0x42, final * 500)
        talking.say(0x80, final * 501 + b"\x00")
        talking.assert_fails(1002)


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


def whole(payload: bytes) -> bytes:
    inflater = zlib.decompressobj(-15)
    clear = inflater.decompress(payload + TAIL)
    assert not inflater.eof, "a block with BFINAL"
    return clear


@both_roles
@requirement("D6.1-1", "D7.2.1-1")
def test_endpoint_sends_plain_what_compressing_does_not_make_smaller(role: str) -> None:
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
def test_endpoint_sends_small_messages_plain(role: str) -> None:
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
def test_endpoint_keeps_to_the_window_that_was_agreed_for_it(role: str, bits: int) -> None:
    message = far_apart((1 << bits) + 88)
    with talk(role, f"{PMD}; {role}_max_window_bits={bits}") as talking:
        first, payload = talking.exchange(0x82, message)
    assert first == 0xC2
    assert inflated(payload, bits) == message


@requirement("D7.1.2.2-6", "D7.2.1-7")
@pytest.mark.parametrize(("answer", "bits"), [("", 15), ("; client_max_window_bits=12", 12)])
def test_client_keeps_to_the_answer_and_not_to_its_own_hint(answer: str, bits: int) -> None:
    message = far_apart((1 << bits) + 88)
    with talk("client", PMD + answer, Deflate(client_max_window_bits=10)) as talking:
        first, payload = talking.exchange(0x82, message)
    assert first == 0xC2
    assert inflated(payload, bits) == message


@requirement("D7.2.1-7")
def test_client_sends_plain_where_it_may_not_look_back_as_far_as_zlib_does() -> None:
    with talk("client", f"{PMD}; client_max_window_bits=8") as talking:
        for size in (0, 256, 5000):
            assert talking.exchange(0x82, bytes(size)) == (0x82, bytes(size))
        assert talking.exchange(0xC1, HELLO) == (0x81, b"Hello")
        assert talking.exchange(0xC1, AGAIN) == (0x81, b"Hello")


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
def test_endpoint_takes_no_bytes_for_an_empty_message_and_receives_what_follows(
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


@both_roles
def test_endpoint_receives_what_zlib_gives_out_for_messages_some_of_which_are_empty(
    role: str,
) -> None:
    """A peer that flushes one compressor after each message, as many do."""
    compressor = zlib.compressobj(wbits=-15)
    with talk(role) as talking:
        for text in (b"", b"", b"Hello", b"", b"", b"Hello", b"Hello", b""):
            data = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
            assert talking.exchange(0xC1, data.removesuffix(TAIL)) == (0x81, text)


@requirement("D5-1")
def test_client_that_asked_for_a_small_window_inflates_within_it() -> None:
    message = far_apart(1 << 9)
    with talk("client", server_bits(10), Deflate(server_max_window_bits=10)) as talking:
        talking.say(0xC2, deflated(message, 10))
        assert talking.take() == message


@requirement("D7.2.1-7")
def test_server_keeps_to_the_smaller_of_its_own_window_and_the_offered_one() -> None:
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


def test_server_compresses_a_message_to_many_once_for_each_agreement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compressed = []

    def counted(payload: bytes, window_bits: int) -> bytes | None:
        compressed.append(window_bits)
        return compress(payload, window_bits)

    monkeypatch.setattr(protocol_module, "compress", counted)
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
    assert compressed == [15, 10]

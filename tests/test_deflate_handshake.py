"""Agreeing on permessage-deflate over loopback: the header lines of a whole server and client."""

from collections.abc import Callable
from typing import Any

import pytest

from deflate_cases import ACCEPTED, AGREED, DECLINED, OFFERED, PMD, REFUSED
from peers import Peer, RawServer, after_handshake, request, response, serving, tcp, unmasked
from rfc6455 import Deflate, InvalidHandshake, WebSocketServer, connect

requirement = pytest.mark.requirement


@requirement("D5-6", "D7-1", "D7-2", "D7.1.1.1-1", "D7.1.2.1-1", "D7.1.2.2-1", "D7.1.2.2-3")
@requirement("D5.2-1", "D7.1.1.1-2", "D7.1.2.1-2", "D7.1.2.2-5", "D7.1.2.2-7")
def test_server_sends_the_answer_that_it_decided_on() -> None:
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


@requirement("D5-1", "D7.3-1", "9.1-7")
@pytest.mark.parametrize(("ours", "offer"), OFFERED)
def test_client_sends_the_offer_of_its_caller(ours: Deflate, offer: str) -> None:
    assert offered_by(deflate=ours) == [offer]


@requirement("D5-1", "9.1-7")
def test_client_offers_nothing_unless_it_is_asked_to() -> None:
    assert offered_by() == []


def offered_by(**options: Any) -> list[str]:
    """The values of Sec-WebSocket-Extensions in our client's request."""
    heads = []

    def refuse(peer: Peer) -> None:
        heads.append(peer.read_head())
        peer.send(b"HTTP/1.1 404 Not Found\r\n\r\n")

    with RawServer(refuse) as server, pytest.raises(InvalidHandshake):
        connect(server.url, **options)
    return extension_values(heads[0])


@requirement("D5.2-1", "D7.1.1.1-4", "D7.1.1.2-1", "D7.1.1.2-2", "D7.1.2.1-3", "D7.1.2.2-6")
@pytest.mark.parametrize(("ours", "answered", "agreed"), AGREED)
def test_client_opens_with_an_answer_that_meets_its_offer(
    ours: Deflate, answered: str, agreed: tuple[bool, bool, int, int]
) -> None:
    with RawServer(answering(PMD + answered)) as server:
        with connect(server.url, deflate=ours) as websocket:
            assert websocket.deflate is not None
            assert websocket.deflate[:4] == agreed


@requirement("D5-5", "D5-7", "D5.1-1", "D7-3", "D7-4", "D7.1.1.1-1", "D7.1.2.1-1", "D7.1.2.1-3")
@requirement("D7.1.2.2-2", "D7.1.2.2-4", "4.1-20")
@pytest.mark.parametrize(("ours", "answered"), REFUSED)
def test_client_ends_tcp_after_an_answer_that_does_not_meet_its_offer(
    ours: Deflate | None, answered: str
) -> None:
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


def assert_eof(peer: Peer) -> None:
    assert peer.read_to_eof() == b""


def answering(extension: str) -> Callable[[Peer], None]:
    """A server that answers so and then lets the client close."""

    def script(peer: Peer) -> None:
        peer.send(response(peer.read_head(), f"Sec-WebSocket-Extensions: {extension}"))
        assert peer.read_frame() == (0x88, b"\x03\xe8")
        peer.send(unmasked(0x88, b"\x03\xe8"))

    return script

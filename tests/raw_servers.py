"""Servers on bare sockets for our client, each with its own way to answer a handshake."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from peers import Peer, RawServer, close_payload, response, unmasked
from rfc6455 import InvalidHandshake, connect

ANSWERED_CLOSE = unmasked(0x88, close_payload(1000))


def answer_normal_close(peer: Peer) -> None:
    """The server's side of a closing handshake that the client starts with 1000."""
    assert peer.read_frame() == (0x88, b"\x03\xe8")
    peer.send(ANSWERED_CLOSE)


def read_rest(peer: Peer) -> bytes:
    """All that still comes. A reset ends it, too: the client may have left bytes unread."""
    data, peer.buffer = peer.buffer, b""
    with contextlib.suppress(ConnectionError):
        while more := peer.sock.recv(65536):
            data += more
    return data


def answering(answer: Callable[[str], bytes]) -> RawServer:
    """A server whose answer to the request the client must refuse, and end TCP without a word."""

    def script(peer: Peer) -> None:
        peer.send(answer(peer.read_head()))
        assert read_rest(peer) == b""

    return RawServer(script)


def agreeing(heads: list[str], *more: str) -> RawServer:
    """A server that accepts every handshake, and adds the request's head to `heads`."""

    def script(peer: Peer) -> None:
        heads.append(peer.read_head())
        peer.send(response(heads[-1], *more))
        answer_normal_close(peer)

    return RawServer(script)


def request_head(path: str = "", **options: Any) -> str:
    """The head of the request that `connect` sends with these options."""
    heads: list[str] = []
    with agreeing(heads) as server, connect(server.url.rstrip("/") + path, **options):
        pass
    return heads[0].replace(f":{server.port}", ":PORT")


def refusal_by(answer: Callable[[str], bytes], **options: Any) -> InvalidHandshake:
    """What `connect` raises when a server answers like this; `answer` gets the request's head."""
    with answering(answer) as server, pytest.raises(InvalidHandshake) as refusal:
        connect(server.url, **options)
    return refusal.value


def resolve_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> list[tuple[str, int]]:
    """Let every name have the addresses 127.0.0.1 with these ports.

    Returns a list to which each host and port is added that is looked up.
    """
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[Any]:
        asked.append((host, port))
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", other)) for other in ports]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked

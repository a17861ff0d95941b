"""How the server closes its WebSockets when it shuts down (RFC 6455, 7.4.1).

The peers are bare sockets.
"""

import contextlib
import threading

import pytest

import rfc6455.server
from fetching import (
    answers_echo,
)
from peers import PATIENCE, close_payload, echo_messages, masked, serving, shake_hands
from rfc6455 import (
    WebSocket,
)

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


def test_server_closes_all_with_1001_when_it_shuts_down() -> None:
    with serving(echo_messages) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(shake_hands(server)) for _ in range(3)]
        assert all(answers_echo(peer) for peer in peers)
        server.shutdown()
        closing = threading.Thread(target=server.close_connections)
        closing.start()
        goodbye = close_payload(1001, "the server is shutting down")
        assert [peer.read_frame() for peer in peers] == [(0x88, goodbye)] * 3
        for peer in peers:
            peer.send(masked(0x88, goodbye))
            assert peer.read_to_eof() == b""
            peer.close()
        closing.join(PATIENCE)
        assert not closing.is_alive()


def test_server_drops_a_client_that_does_not_answer_its_close_at_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rfc6455.server, "SHUTDOWN_GRACE", 0.2)
    with serving(echo_messages) as server, shake_hands(server) as peer:
        assert answers_echo(peer)
        server.close_connections("enough")
        assert peer.read_frame() == (0x88, close_payload(1001, "enough"))
        assert peer.read_to_eof() == b""


def test_server_closes_a_client_that_comes_during_its_shutdown() -> None:
    opened: list[WebSocket] = []
    with serving(opened.append) as server:
        server.close_connections()
        with shake_hands(server) as peer:
            assert peer.read_frame().payload[:2] == b"\x03\xe9"
            peer.send(masked(0x88, close_payload(1001)))
            assert peer.read_to_eof() == b""
    assert not opened

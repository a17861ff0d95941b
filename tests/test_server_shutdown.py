"""How the server closes its WebSockets, one by one and when it shuts down (RFC 6455, 7.4.1).

The peers are bare sockets.
"""

import contextlib
import logging
import os
import threading

import pytest

import rfc6455.server
from fetching import (
    answers_echo,
)
from peers import PATIENCE, close_payload, echo_messages, masked, serving, shake_hands
from rfc6455 import Close, WebSocket, WebSocketServer

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


def test_log_names_the_reason_of_the_side_that_has_closed_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "rfc6455")

    def refuse_all(websocket: WebSocket) -> None:
        if websocket.receive() == "refuse me":
            raise Close(4000, "no")

    with serving(refuse_all) as server:
        with shake_hands(server) as peer:
            peer.send(masked(0x88, close_payload(4001, "bye")))
            assert peer.read_to_eof()
        with shake_hands(server) as peer:
            peer.send(masked(0x81, b"refuse me"))
            assert peer.read_frame() == (0x88, close_payload(4000, "no"))
            peer.send(masked(0x88, close_payload(4000)))
            assert peer.read_to_eof() == b""
    closed = [text.partition(": ")[2] for text in caplog.messages]
    assert closed == ["closed, 4001 'bye'", "closed, 4000 'no'"]


@pytest.mark.skipif(os.name == "nt", reason="on Windows two servers could share the port then")
def test_server_can_start_again_at_once_on_the_port_of_one_that_has_closed_its_clients() -> None:
    with serving(echo_messages) as server, shake_hands(server) as peer:
        port = server.server_port
        closing = threading.Thread(target=server.close_connections)
        closing.start()
        first, goodbye = peer.read_frame()
        peer.send(masked(first, goodbye))
        assert peer.read_to_eof() == b""  # the server has ended TCP first, and its kernel remembers
        closing.join(PATIENCE)
    WebSocketServer(("127.0.0.1", port), {"/": echo_messages}).server_close()

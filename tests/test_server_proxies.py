"""A server behind reverse proxies that it trusts, and among clients that pass for one.

The peers are bare sockets. That of a test comes from 127.0.0.1, whether it is a proxy or not.
"""

import logging

import pytest

from fetching import answers_echo, fetch
from peers import answer_to, echo_messages, eventually, request, serving, shake_hands
from rfc6455 import WebSocket, WebSocketServer
from rfc6455.server import _RequestHandler

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")

LOOPBACK = ["127.0.0.0/8", "::1"]
FORWARDED = {
    "Host": "localhost",
    "X-Forwarded-For": "203.0.113.9, 192.0.2.1",
    "X-Forwarded-Host": "chat.example",
    "X-Forwarded-Proto": "https",
}


def test_server_lets_in_the_page_of_the_host_and_scheme_that_a_trusted_proxy_names() -> None:
    with serving(echo_messages, trusted_proxies=LOOPBACK, allowed_hosts=["chat.example"]) as server:
        changes = FORWARDED | {"Origin": "https://chat.example"}
        with shake_hands(server, **changes) as peer:
            assert answers_echo(peer)
        changes["Origin"] = "http://chat.example"
        assert answer_to(server, request(server, **changes))[0] == 403
        changes["Origin"] = "http://localhost"
        assert answer_to(server, request(server, **changes))[0] == 403


@pytest.mark.parametrize("trusted", [[], ["127.0.0.2", "10.0.0.0/8", "::1"]])
def test_server_ignores_what_another_address_forwards(trusted: list[str]) -> None:
    with serving(echo_messages, trusted_proxies=trusted, allowed_hosts=["chat.example"]) as server:
        changes = FORWARDED | {"Origin": "https://chat.example"}
        assert answer_to(server, request(server, **changes))[0] == 403
        changes["Origin"] = "http://localhost"
        shake_hands(server, **changes).close()


def test_server_on_loopback_refuses_a_host_that_a_trusted_proxy_names() -> None:
    with serving(echo_messages, trusted_proxies=LOOPBACK) as server:
        status, text = answer_to(server, request(server, **FORWARDED))
        assert status == 403
        assert text.endswith("403 Forbidden: X-Forwarded-Host 'chat.example' is not allowed\n")
        # So it is with HTTP/1.0, where a request without any Host is answered.
        data = b"GET / HTTP/1.0\r\nX-Forwarded-Host: chat.example\r\n\r\n"
        assert answer_to(server, data)[0] == 400


def test_log_and_handler_name_the_client_and_the_proxy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rfc6455")
    peers: list[str] = []

    def note(websocket: WebSocket) -> None:
        peers.append(websocket.peer)

    with serving(note, trusted_proxies=LOOPBACK) as server:
        with shake_hands(server, X_Forwarded_For="192.0.2.1") as peer:
            name = f"192.0.2.1 via 127.0.0.1:{peer.sock.getsockname()[1]}"
            peer.read_frame()
        eventually(lambda: f"{name}: closed" in caplog.text)
        assert peers == [name]
        fetch(server, "/", "POST", "X-Forwarded-For: 2001:db8::5")
        assert "2001:db8::5 via 127.0.0.1:" in caplog.text


@pytest.mark.parametrize("value", ["unknown", "127.0.0.1", "192.0.2.1,\x01", "\xff" * 1000])
def test_log_names_the_proxy_alone_where_it_names_no_client(value: str) -> None:
    peers: list[str] = []

    def note(websocket: WebSocket) -> None:
        peers.append(websocket.peer)

    with (
        serving(note, trusted_proxies=LOOPBACK) as server,
        shake_hands(server, X_Forwarded_For=value) as peer,
    ):
        peer.read_frame()
        assert peers == [f"127.0.0.1:{peer.sock.getsockname()[1]}"]


def test_request_handler_says_the_address_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: list[str] = []
    check = _RequestHandler._check_request

    def note(handler: _RequestHandler) -> None:
        addresses.append(handler.find_client_address())
        check(handler)

    monkeypatch.setattr(_RequestHandler, "_check_request", note)
    with serving(echo_messages, trusted_proxies=LOOPBACK) as server:
        fetch(server, "/", "GET", "X-Forwarded-For: 192.0.2.1")
        fetch(server, "/")
    with serving(echo_messages) as server:
        fetch(server, "/", "GET", "X-Forwarded-For: 192.0.2.1")
    assert addresses == ["192.0.2.1", "127.0.0.1", "127.0.0.1"]


def test_request_handler_knows_the_address_before_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses: list[str] = []
    handle = _RequestHandler.handle

    def note(handler: _RequestHandler) -> None:
        addresses.append(handler.find_client_address())
        handle(handler)

    monkeypatch.setattr(_RequestHandler, "handle", note)
    with serving(echo_messages, trusted_proxies=LOOPBACK) as server:
        fetch(server, "/", "GET", "X-Forwarded-For: 192.0.2.1")
    assert addresses == ["127.0.0.1"]


@pytest.mark.parametrize("proxy", ["localhost", "10.0.0.1/8", ""])
def test_server_refuses_to_start_with_a_proxy_that_is_no_address(proxy: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        WebSocketServer(("127.0.0.1", 0), {}, trusted_proxies=[proxy])

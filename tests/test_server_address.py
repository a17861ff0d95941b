"""Where the server listens, and the names that it answers to there.

The peers are bare sockets.
"""

import socket
import threading
from email import message_from_string
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fetching import answers_echo, serving_files
from peers import PATIENCE, Peer, echo_messages, has_ipv6, request, serving
from rfc6455 import InvalidHandshake, WebSocketServer, handshake

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


def test_server_refuses_a_port_that_is_taken() -> None:
    with serving(echo_messages) as server, pytest.raises(OSError):
        WebSocketServer(("127.0.0.1", server.server_port), {"/": echo_messages})


def test_server_serves_on_an_ipv6_address() -> None:
    try:
        server = WebSocketServer(("::1", 0), {"/": echo_messages})
    except OSError:
        pytest.skip("this machine has no ::1")
    with server:
        assert server.url == f"http://[::1]:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with Peer(socket.create_connection(("::1", server.server_port), PATIENCE)) as peer:
                peer.send(request(server, Host=f"[::1]:{server.server_port}"))
                assert peer.read_head().startswith("HTTP/1.1 101 ")
                assert answers_echo(peer)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://localhost:"), ("0.0.0.0", "http://localhost:")]
)
def test_server_says_where_a_browser_finds_it(host: str, url: str) -> None:
    with WebSocketServer((host, 0), {}) as server:
        assert server.url == f"{url}{server.server_port}"


def test_server_on_any_address_answers_at_the_url_that_it_prints(public: Path) -> None:
    hosts = ["127.0.0.2", "127.0.0.1", "localhost", "0.0.0.0", ""]
    for host in [*hosts, *(["::1", "::ffff:127.0.0.3"] if has_ipv6() else [])]:
        with serving_files(public, host=host) as server:
            url = urlsplit(server.url)
            assert url.hostname is not None
            for authority in (url.netloc, url.netloc.rpartition(":")[0]):
                with Peer(socket.create_connection((url.hostname, server.server_port))) as peer:
                    peer.send(f"GET /page.css HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
                    assert peer.read_head().startswith("HTTP/1.1 200 "), (host, authority)


@pytest.mark.parametrize(
    ("address", "named", "host", "allowed"),
    [
        ("127.0.0.2", [], "127.0.0.2:1", True),
        ("127.0.0.2", [], "localhost", True),
        ("127.0.0.2", [], "127.0.0.3", False),
        ("127.0.0.2", [], "evil.example", False),
        ("::ffff:127.0.0.2", [], "evil.example", False),
        ("0:0:0:0:0:0:0:1", [], "evil.example", False),
        ("0:0:0:0:0:0:0:1", [], "[0:0::1]:1", True),
        ("0.0.0.0", [], "anything.example", True),
        ("0.0.0.0", ["chat.example"], "other.example", False),
        ("0.0.0.0", ["chat.example"], "CHAT.example.:1", True),
        ("0.0.0.0", ["chat.example"], "localhost:1", True),
    ],
)
def test_server_answers_only_to_the_hosts_that_belong_to_its_address_or_are_allowed(
    address: str, named: list[str], host: str, allowed: bool
) -> None:
    if ":" in address and not has_ipv6():
        pytest.skip("this machine has no ::1")
    with WebSocketServer((address, 0), {}, allowed_hosts=named) as server:
        headers = message_from_string(f"Host: {host}\n\n")
        if allowed:
            handshake.check_host(headers, server.allowed_hosts)
        else:
            with pytest.raises(InvalidHandshake):
                handshake.check_host(headers, server.allowed_hosts)


def test_server_told_to_listen_on_a_name_of_loopback_is_protected_as_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Debian a machine's own name has the address 127.0.1.1, which is one of loopback."""
    bind = socket.socket.bind

    def bind_by_name(sock: socket.socket, address: tuple[str, int]) -> None:
        assert address == ("my-machine", 0)
        bind(sock, ("127.0.1.1", 0))

    monkeypatch.setattr(socket.socket, "bind", bind_by_name)
    with WebSocketServer(("my-machine", 0), {}) as server:
        for good in ("my-machine:1", "127.0.1.1", "localhost"):
            handshake.check_host(message_from_string(f"Host: {good}\n\n"), server.allowed_hosts)
        with pytest.raises(InvalidHandshake):
            evil = message_from_string("Host: evil.example\n\n")
            handshake.check_host(evil, server.allowed_hosts)

"""The URL, the arguments and the request of `connect` (RFC 6455, 3, 4.1, 9.1, 11).

The servers are bare sockets.
"""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from peers import PATIENCE, Peer, RawServer, response
from raw_servers import agreeing, answer_normal_close, request_head, resolve_to
from rfc6455 import Deflate, connect


@pytest.fixture
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that looks up a name or opens a connection."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("a name was looked up, or a connection opened")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)


# The URL


@pytest.mark.requirement("3-1")
@pytest.mark.parametrize(
    ("url", "port"), [("ws://h/", 80), ("wss://h/", 443), ("ws://h:81/", 81), ("wss://h:80/", 80)]
)
def test_client_connects_to_the_schemes_own_port_where_the_url_names_none(
    url: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve_to(monkeypatch)
    with pytest.raises(OSError):
        connect(url)
    assert asked == [("h", port)]


@pytest.mark.requirement("3-2")
@pytest.mark.parametrize(
    ("scheme", "start"),
    [("ws", b"GET / "), ("Ws", b"GET / "), ("WS", b"GET / "), ("wss", b"\x16"), ("WSS", b"\x16")],
)
def test_client_reads_the_scheme_in_any_case(scheme: str, start: bytes) -> None:
    def script(peer: Peer) -> None:
        assert peer.read(len(start)) == start

    with RawServer(script) as server, pytest.raises(OSError):
        connect(f"{scheme}://127.0.0.1:{server.port}/")


@pytest.mark.requirement("3-3", "3-5", "11.1.1-2")
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/"),
        ("?x=1", "/?x=1"),
        ("/a/b?x=1&y", "/a/b?x=1&y"),
        ("/a%23b?c=%23d", "/a%23b?c=%23d"),
        ("/\u00e9?q=\u20ac", "/%C3%A9?q=%E2%82%AC"),
    ],
)
def test_client_requests_path_and_query(path: str, target: str) -> None:
    assert request_head(path).startswith(f"GET {target} HTTP/1.1\r\n")


@pytest.mark.requirement("3-4")
def test_client_refuses_a_url_with_a_fragment() -> None:
    with agreeing([]) as server:
        with pytest.raises(ValueError):
            connect(f"{server.url}a#frag")
        with connect(server.url):
            pass
    assert server.accepted == 1


@pytest.mark.requirement("3-6", "4.1-11")
def test_client_connects_to_an_ipv6_address() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no ::1")
    port = listener.getsockname()[1]
    with listener, ThreadPoolExecutor() as pool:
        connecting = pool.submit(connect, f"ws://[::1]:{port}/")
        with Peer(listener.accept()[0]) as peer:
            head = peer.read_head()
            peer.send(response(head))
            closing = pool.submit(connecting.result(PATIENCE).close)
            answer_normal_close(peer)
        closing.result(PATIENCE)
    assert f"\r\nHost: [::1]:{port}\r\n" in head


@pytest.mark.requirement("4.1-1")
@pytest.mark.parametrize(
    "url", ["http://h/", "ws:///x", "ws://h:abc/", "ws://h:99999/", "//h/", "ws://[::1/", "ws:"]
)
@pytest.mark.usefixtures("nothing_is_opened")
def test_client_opens_nothing_for_a_bad_url(url: str) -> None:
    with pytest.raises(ValueError):
        connect(url)


@pytest.mark.requirement("11.1.1-1")
def test_client_looks_up_and_sends_a_host_in_punycode(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    with agreeing(heads) as server:
        asked = resolve_to(monkeypatch, server.port)
        with connect("ws://b\u00fccher.example/"):
            pass
    assert asked == [("xn--bcher-kva.example", 80)]
    assert "\r\nHost: xn--bcher-kva.example\r\n" in heads[0]


# The request


@pytest.mark.requirement(
    "4.1-9", "4.1-10", "4.1-11", "4.1-12", "9.1-7", "11.3.1-1", "11.3.5-1", "4.1-14"
)
def test_client_sends_a_literal_request() -> None:
    head = re.sub("Key: [A-Za-z0-9+/]{21}[AQgw]==\r", "Key: KEY\r", request_head("/chat"))
    assert head == (
        "GET /chat HTTP/1.1\r\n"
        "Host: 127.0.0.1:PORT\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        "Sec-WebSocket-Key: KEY\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "\r\n"
    )


@pytest.mark.requirement("4.1-13")
def test_client_makes_a_new_key_for_each_connection() -> None:
    heads: list[str] = []
    with agreeing(heads) as server:
        for _ in range(20):
            with connect(server.url):
                pass
    keys = {re.findall("Sec-WebSocket-Key: (.*)\r", head)[0] for head in heads}
    assert len(keys) == 20


@pytest.mark.requirement("4.1-14", "4.1-15")
def test_client_sends_origin_subprotocols_and_further_headers_once() -> None:
    head = request_head(
        origin="http://www.example.com",
        subprotocols=["chat", "superchat"],
        headers=[("Cookie", "a=b"), ("X", "y")],
    )
    for line in [
        "Origin: http://www.example.com",
        "Sec-WebSocket-Protocol: chat, superchat",
        "Cookie: a=b",
        "X: y",
    ]:
        assert head.count(f"\r\n{line}\r\n") == 1
        assert head.count(line.partition(":")[0] + ":") == 1


@pytest.mark.requirement("9.1-7")
def test_client_offers_permessage_deflate_with_its_own_parameters_alone() -> None:
    offer = Deflate(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=10,
        client_max_window_bits=11,
    )
    [line] = re.findall("Sec-WebSocket-Extensions: (.*)\r", request_head(deflate=offer))
    name, *parameters = line.split("; ")
    assert name == "permessage-deflate"
    assert set(parameters) == {
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits=10",
        "client_max_window_bits=11",
    }


@pytest.mark.requirement("4.1-9", "4.1-15")
@pytest.mark.parametrize(
    "options",
    [
        {"origin": "http://a.example\r\nX: y"},
        {"headers": [("X", "a\r\nY: b")]},
        {"headers": [("X: a\r\nY", "b")]},
        {"headers": [("X", "a\n")]},
        {"headers": [("Host", "a")]},
        {"subprotocols": ["a\r\nX: y"]},
        {"subprotocols": [""]},
        {"subprotocols": ["a b"]},
        {"subprotocols": ["a,b"]},
        {"subprotocols": ["a/b"]},
        {"subprotocols": ["a", "a"]},
    ],
    ids=str,
)
@pytest.mark.usefixtures("nothing_is_opened")
def test_client_opens_nothing_for_bad_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        connect("ws://h/", **options)


@pytest.mark.requirement("4.1-9")
@pytest.mark.parametrize("url", ["ws://h/a\r\nX: y", "ws://h/a b", "ws://h\r\n/", "ws://h/?\n"])
@pytest.mark.usefixtures("nothing_is_opened")
def test_client_opens_nothing_for_a_url_of_several_lines(url: str) -> None:
    with pytest.raises(ValueError):
        connect(url)

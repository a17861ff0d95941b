"""`connect` against servers on bare sockets (RFC 6455, 3, 4.1, 9.1, 10.6, 11)."""

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import rfc6455.client
from peers import (
    PATIENCE,
    Peer,
    RawServer,
    after_handshake,
    close_payload,
    response,
    unmasked,
)
from programs import ROOT
from rfc6455 import Deflate, InvalidHandshake, Timeouts, connect
from tls import Certificate, Tunnel, records, through

ANSWERED_CLOSE = unmasked(0x88, close_payload(1000))


def answer_close(peer: Peer) -> None:
    """The server's side of a closing handshake that the client starts."""
    assert peer.read_frame() == (0x88, b"\x03\xe8")
    peer.send(ANSWERED_CLOSE)


def rest(peer: Peer) -> bytes:
    """All that still comes; a reset is an end too, where the client has refused the answer."""
    with contextlib.suppress(ConnectionError):
        return peer.read_to_eof()
    return peer.buffer


def never_answer(peer: Peer) -> None:
    rest(peer)


def answering(answer: Callable[[str], bytes]) -> RawServer:
    """A server whose answer to the request's head is refused: it gets nothing more, and the end."""

    def script(peer: Peer) -> None:
        peer.send(answer(peer.read_head()))
        assert rest(peer) == b""

    return RawServer(script)


def listening(heads: list[str], *more: str) -> RawServer:
    """A server that agrees to everything, and keeps the requests' heads."""

    def script(peer: Peer) -> None:
        heads.append(peer.read_head())
        peer.send(response(heads[-1], *more))
        answer_close(peer)

    return RawServer(script)


def head_of(path: str = "", **options: Any) -> str:
    """The head of the request that this makes."""
    heads: list[str] = []
    with listening(heads) as server, connect(server.url.rstrip("/") + path, **options):
        pass
    return heads[0].replace(f":{server.port}", ":PORT")


def refusal_by(answer: Callable[[str], bytes], **options: Any) -> InvalidHandshake:
    with answering(answer) as server, pytest.raises(InvalidHandshake) as refusal:
        connect(server.url, **options)
    return refusal.value


@pytest.fixture
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test with this fails when an address is looked up or a socket opened."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("something was opened")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> list[tuple[str, int]]:
    """Every name now means these ports of 127.0.0.1; what was asked for."""
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[Any]:
        asked.append((host, port))
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", other)) for other in ports]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


# The URL: section 3


@pytest.mark.requirement("3-1")
@pytest.mark.parametrize(
    ("url", "port"), [("ws://h/", 80), ("wss://h/", 443), ("ws://h:81/", 81), ("wss://h:80/", 80)]
)
def test_client_goes_to_the_schemes_port_where_the_url_names_none(
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
def test_client_asks_for_path_and_query(path: str, target: str) -> None:
    assert head_of(path).startswith(f"GET {target} HTTP/1.1\r\n")


@pytest.mark.requirement("3-4")
def test_client_connects_to_no_url_with_a_fragment() -> None:
    with listening([]) as server:
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
            answer_close(peer)
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
    with listening(heads) as server:
        asked = resolve_to(monkeypatch, server.port)
        with connect("ws://b\u00fccher.example/"):
            pass
    assert asked == [("xn--bcher-kva.example", 80)]
    assert "\r\nHost: xn--bcher-kva.example\r\n" in heads[0]


# The request: section 4.1


@pytest.mark.requirement(
    "4.1-9", "4.1-10", "4.1-11", "4.1-12", "9.1-7", "11.3.1-1", "11.3.5-1", "4.1-14"
)
def test_client_sends_a_literal_request() -> None:
    head = re.sub("Key: [A-Za-z0-9+/]{21}[AQgw]==\r", "Key: KEY\r", head_of("/chat"))
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
def test_client_draws_a_new_key_for_each_connection() -> None:
    heads: list[str] = []
    with listening(heads) as server:
        for _ in range(20):
            with connect(server.url):
                pass
    keys = {re.findall("Sec-WebSocket-Key: (.*)\r", head)[0] for head in heads}
    assert len(keys) == 20


@pytest.mark.requirement("4.1-14", "4.1-15")
def test_client_sends_origin_subprotocols_and_further_headers_once() -> None:
    head = head_of(
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
    [line] = re.findall("Sec-WebSocket-Extensions: (.*)\r", head_of(deflate=offer))
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


# Connecting


@pytest.mark.requirement("4.1-2")
@pytest.mark.parametrize("first_gets", ["its 101", "a refusal", "nothing and the end"])
def test_client_opens_one_connection_at_a_time_to_one_address(first_gets: str) -> None:
    first_has_come, go_on, second_has_come = (threading.Event() for _ in range(3))

    def script(peer: Peer) -> None:
        if first_has_come.is_set():
            peer.send(response(peer.read_head()))
            second_has_come.set()
        else:
            head = peer.read_head()
            first_has_come.set()
            assert go_on.wait(PATIENCE)
            if first_gets == "nothing and the end":
                return
            if first_gets == "a refusal":
                peer.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                rest(peer)
                return
            peer.send(response(head))
        answer_close(peer)

    def open_and_close(host: str) -> None:
        connect(f"ws://{host}:{server.port}/").close()

    with RawServer(script) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(open_and_close, "127.0.0.1")
        assert first_has_come.wait(PATIENCE)
        second = pool.submit(open_and_close, "localhost")
        came_too_early = second_has_come.wait(0.3)
        go_on.set()
        second.result(PATIENCE)
        if first_gets == "its 101":
            first.result(PATIENCE)
        else:
            assert isinstance(first.exception(PATIENCE), (InvalidHandshake, OSError))
    assert not came_too_early


@pytest.mark.requirement("4.1-2")
def test_client_opens_connections_to_two_ports_at_once() -> None:
    both_have_come = threading.Barrier(2)

    def script(peer: Peer) -> None:
        head = peer.read_head()
        both_have_come.wait(PATIENCE)
        peer.send(response(head))
        answer_close(peer)

    with RawServer(script) as one, RawServer(script) as other, ThreadPoolExecutor() as pool:
        for connecting in [pool.submit(connect, server.url) for server in (one, other)]:
            connecting.result(PATIENCE).close()


@pytest.mark.requirement("4.1-2")
def test_client_gives_up_waiting_for_its_turn_in_time() -> None:
    has_come, go_on = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        head = peer.read_head()
        has_come.set()
        assert go_on.wait(PATIENCE)
        peer.send(response(head))
        answer_close(peer)

    with RawServer(script) as server, ThreadPoolExecutor() as pool:
        connecting = pool.submit(connect, server.url)
        assert has_come.wait(PATIENCE)
        with pytest.raises(TimeoutError):
            connect(server.url, timeouts=Timeouts(open_timeout=0.2))
        go_on.set()
        connecting.result(PATIENCE).close()
    assert server.accepted == 1


FORKED = """
import os, sys
from rfc6455 import Timeouts, client, connect

port = int(sys.argv[1])
held = client._address_lock(client._AddressInfo(2, 1, 6, "", ("127.0.0.1", port)))
held.acquire()  # as a thread that is connecting when another one forks
client._address_locks_lock.acquire()
child = os.fork()
if child == 0:
    try:
        connect(f"ws://127.0.0.1:{port}/", timeouts=Timeouts(open_timeout=5.0))
    except ConnectionRefusedError:
        os._exit(0)
    os._exit(1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on Windows")
def test_child_process_does_not_wait_for_a_turn_that_its_parent_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(port)]
    ended = subprocess.run(command, cwd=ROOT, timeout=PATIENCE, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.requirement("4.1-5")
def test_client_fails_where_nobody_listens() -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            connect(f"ws://127.0.0.1:{bound.getsockname()[1]}/")


@pytest.mark.requirement("4.1-5")
def test_client_fails_where_the_name_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch)
    with pytest.raises(OSError, match="h"):
        connect("ws://h/")


@pytest.mark.requirement("4.1-5")
def test_client_tries_the_next_address_where_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound, listening([]) as server:
        bound.bind(("127.0.0.1", 0))
        resolve_to(monkeypatch, bound.getsockname()[1], server.port)
        with connect("ws://h/"):
            pass
    assert server.accepted == 1


@contextlib.contextmanager
def swallowing() -> Iterator[int]:
    """A port that answers nobody: what Linux does when those it has taken are not accepted."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(10):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.05)
            try:
                sock.connect(listener.getsockname())
            except TimeoutError:
                yield listener.getsockname()[1]
                return
        pytest.skip("this system takes connections without an end")


@pytest.mark.requirement("4.1-5")
@pytest.mark.parametrize("count", [1, 3])
def test_client_tries_the_next_address_beside_one_that_answers_nothing(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_slowly(peer: Peer) -> None:
        head = peer.read_head()
        assert peer.is_silent(0.8)  # there is time for this, too
        peer.send(response(head))
        answer_close(peer)

    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(swallowing()) for _ in range(count)]
        server = stack.enter_context(RawServer(answer_slowly))
        resolve_to(monkeypatch, *ports, server.port)
        for _ in range(2):  # the first leaves nothing behind that the second would wait for
            with connect("ws://h/", timeouts=Timeouts(open_timeout=3.0)):
                pass
    assert server.accepted == 2


def test_client_fails_in_time_where_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc6455.client, "ATTEMPT_DELAY", 0.05)
    with swallowing() as one, swallowing() as other:
        resolve_to(monkeypatch, one, other)
        with pytest.raises(TimeoutError, match="took too long"):
            connect("ws://h/", timeouts=Timeouts(open_timeout=0.3))


def test_client_goes_on_at_once_where_an_address_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc6455.client, "ATTEMPT_DELAY", 2 * PATIENCE)
    with socket.socket() as bound, listening([]) as server:
        bound.bind(("127.0.0.1", 0))
        resolve_to(monkeypatch, bound.getsockname()[1], server.port)
        with connect("ws://h/"):
            pass


def test_client_stays_with_the_first_address_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening([]) as server, listening([]) as other:
        resolve_to(monkeypatch, server.port, other.port)
        with connect("ws://h/"):
            pass
    assert (server.accepted, other.accepted) == (1, 0)


def test_client_tries_addresses_of_ipv6_and_ipv4_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def resolve(*_: object, **__: object) -> list[Any]:
        six = [(socket.AF_INET6, 1, 6, "", (f"2001:db8::{i}", 80, 0, 0)) for i in (1, 2, 3)]
        four = [(socket.AF_INET, 1, 6, "", (f"192.0.2.{i}", 80)) for i in (1, 1, 2)]
        return six + four

    def refuse(_: socket.socket, address: tuple[Any, ...]) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ConnectionRefusedError):
        connect("ws://h/")
    assert tried == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]


@pytest.mark.requirement("4.1-2")
def test_client_that_waits_for_its_turn_at_one_address_tries_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_come, go_on = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        head = peer.read_head()
        has_come.set()
        assert go_on.wait(PATIENCE)
        peer.send(response(head))
        answer_close(peer)

    with RawServer(script) as busy, listening([]) as free, ThreadPoolExecutor() as pool:
        first = pool.submit(connect, busy.url)
        assert has_come.wait(PATIENCE)
        resolve_to(monkeypatch, busy.port, free.port)
        with connect("ws://h/"):
            pass
        go_on.set()
        first.result(PATIENCE).close()
    assert (busy.accepted, free.accepted) == (1, 1)


@pytest.mark.requirement("4.1-5")
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_client_fails_in_time_where_nothing_is_answered(scheme: str) -> None:
    with RawServer(never_answer) as server, pytest.raises(TimeoutError):
        connect(f"{scheme}://127.0.0.1:{server.port}/", timeouts=Timeouts(open_timeout=0.3))


@pytest.mark.requirement("4.1-5")
def test_client_fails_in_time_where_the_answer_comes_too_slowly() -> None:
    def script(peer: Peer) -> None:
        head = peer.read_head()
        with contextlib.suppress(ConnectionError):
            for byte in response(head):
                peer.send(bytes([byte]))
                if not peer.is_silent(0.05):
                    return

    with RawServer(script) as server, pytest.raises(TimeoutError):
        connect(server.url, timeouts=Timeouts(open_timeout=0.4))


@pytest.mark.parametrize("size", [0, 10, -4, -1])
def test_client_fails_where_the_answer_is_cut_off(size: int) -> None:
    def script(peer: Peer) -> None:
        answer = response(peer.read_head())
        peer.send(answer[:size])

    with RawServer(script) as server, pytest.raises(ConnectionError):
        connect(server.url)


@pytest.mark.requirement("4.1-16")
def test_client_sends_nothing_more_before_the_answer() -> None:
    def script(peer: Peer) -> None:
        head = peer.read_head()
        assert peer.is_silent(0.3)
        peer.send(response(head))
        assert peer.read_frame() == (0x81, b"Hello")
        answer_close(peer)

    with RawServer(script) as server, connect(server.url) as websocket:
        websocket.send("Hello")


def test_client_keeps_a_websocket_beyond_the_time_of_its_opening() -> None:
    timeouts = Timeouts(open_timeout=0.3)
    with listening([]) as server, connect(server.url, timeouts=timeouts) as websocket:
        assert websocket.receive(0.6) is None


# The answer: section 4.1


@pytest.mark.requirement("2.1-2")
def test_client_reads_the_answer_and_frames_in_any_segmentation() -> None:
    def script(peer: Peer) -> None:
        for byte in response(peer.read_head()) + bytes.fromhex("810548656c6c6f"):
            peer.send(bytes([byte]))
        peer.send(b"".join(unmasked(0x81, b"%d" % i) for i in range(10)))
        answer_close(peer)

    with RawServer(script) as server, connect(server.url) as websocket:
        received = [websocket.receive(PATIENCE) for _ in range(11)]
    assert received == ["Hello", *"0123456789"]


@pytest.mark.requirement("4.2.2-10")
def test_client_receives_a_frame_that_came_with_the_answer() -> None:
    def script(peer: Peer) -> None:
        peer.send(response(peer.read_head()) + bytes.fromhex("810548656c6c6f"))
        answer_close(peer)

    with RawServer(script) as server, connect(server.url) as websocket:
        assert websocket.receive(PATIENCE) == "Hello"


@pytest.mark.requirement("4.1-18", "4.1-19", "4.1-23", "4.2.2-11", "4.3-1")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"101 Switching Protocols", b"101 "),
        (b"101 Switching Protocols", b"101 Web Socket Protocol Handshake"),
        (b"Upgrade: websocket", b"uPGRADE:WebSocket"),
        (b"Connection: Upgrade", b"CONNECTION: keep-alive, UPGRADE"),
        (b"Connection: Upgrade", b"Connection: x ,Upgrade"),
        (b"Sec-WebSocket-Accept: ", b"sEC-wEBSOCKET-aCCEPT: \t "),
        (b"\r\n\r\n", b" \t\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nDate: x\r\nServer: y\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"),
    ],
)
def test_client_opens_whatever_the_case_the_reason_and_further_headers(
    old: bytes, new: bytes
) -> None:
    def script(peer: Peer) -> None:
        answer = response(peer.read_head())
        assert old in answer
        peer.send(answer.replace(old, new))
        answer_close(peer)

    with RawServer(script) as server, connect(server.url):
        pass


@pytest.mark.requirement("2.1-1", "4.1-18", "4.1-19", "4.1-22", "11.3.3-1")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket\r\n", b""),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Upgrade: websocket", b"Upgrade: websoc\xe2\x84\xaaet"),
        (b"Connection: Upgrade\r\n", b""),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Sec-WebSocket-Accept: ", b"X: "),
        (b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
        (b"HTTP/1.1 101", b"garbage"),
        (b"HTTP/1.1 101", b"HTTP/1.0 101"),
        (b"\r\n\r\n", b"\r\nno colon\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nX: a\rb\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nX: a\nb\r\n\r\n"),
        (b"\r\n\r\n", b"\r\n folded\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nX: " + b"a" * 30000 + b"\r\n\r\n"),
        (b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
    ],
)
def test_client_refuses_a_broken_agreement_and_sends_nothing(old: bytes, new: bytes) -> None:
    def broken(head: str) -> bytes:
        assert old in response(head)
        return response(head).replace(old, new)

    refusal_by(broken)


@pytest.mark.requirement("4.1-19")
def test_client_refuses_the_accept_value_in_lower_case() -> None:
    def broken(head: str) -> bytes:
        start, name, value = response(head).partition(b"Sec-WebSocket-Accept:")
        return start + name + value.lower()

    assert refusal_by(broken).status == 101


@pytest.mark.requirement("4.1-22")
@pytest.mark.parametrize(
    "answer",
    [
        b"\r\n\r\n",
        b"\x00\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        b"x" * 30000,
        b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 4000,
    ],
)
def test_client_refuses_what_is_no_http(answer: bytes) -> None:
    refusal_by(lambda head: answer)


@pytest.mark.requirement("4.1-17")
@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, "Content-Length: 0"),
        (302, "Location: ws://127.0.0.1:1/"),
        (401, 'WWW-Authenticate: Basic realm="x"'),
        (404, "Content-Length: 0"),
        (503, "Retry-After: 1"),
    ],
)
def test_client_tells_the_status_of_another_answer(status: int, line: str) -> None:
    error = refusal_by(lambda head: f"HTTP/1.1 {status} x\r\n{line}\r\n\r\n".encode())
    assert error.status == status
    assert tuple(line.split(": ")) in list(error.headers)


def refusal_text(answer: bytes, ends: bool = True) -> str:
    """What the error says when the server answers this, and then ends TCP, or goes silent."""

    def script(peer: Peer) -> None:
        peer.read_head()
        with contextlib.suppress(OSError):  # the client has read enough, and is gone
            peer.send(answer)
            if ends:
                peer.sock.shutdown(socket.SHUT_WR)
            rest(peer)

    with RawServer(script) as server, pytest.raises(InvalidHandshake) as refusal:
        connect(server.url)
    return str(refusal.value)


@pytest.mark.requirement("4.1-17")
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 404 No such thing\r\nContent-Length: 3\r\n\r\nno!", "404 No such thing: no!"),
        (b"HTTP/1.0 404 Not Found\r\n\r\nit is not here", "404 Not Found: it is not here"),
        (b"HTTP/1.1 403 \r\nContent-Length: 0\r\n\r\n", "403 Forbidden"),
        (b"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", "503 Service Unavailable"),
        (b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", "599"),
        (  # our own server's, which begins its text with the same
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 26\r\n\r\n403 Forbidden: not for you\n",
            "403 Forbidden: not for you",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://h/x\r\nContent-Length: 0\r\n\r\n",
            "301 Moved, to https://h/x",
        ),
        (
            b"HTTP/1.1 300 \r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",
            "300 Multiple Choices, to /a",
        ),
        (b"HTTP/1.1 399 \r\nLocation: /a\r\nContent-Length: 0\r\n\r\n", "399 to /a"),
        (b"HTTP/1.1 400 \r\nLocation: /a\r\nContent-Length: 0\r\n\r\n", "400 Bad Request"),
        (b"HTTP/1.1 201 \r\nLocation: /a\r\nContent-Length: 0\r\n\r\n", "201 Created"),
        (
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /\x9bevil\r\nContent-Length: 0\r\n\r\n",
            "307 Temporary Redirect, to /\ufffdevil",
        ),
        (
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n8;x=y\r\n, world!\r\n0\r\n\r\nand more",
            "400 Bad: hello, world!",
        ),
        (  # the chunks are broken off: what there is of them
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nff\r\n, wor",
            "400 Bad: hello, wor",
        ),
        (
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            "400 Bad: hello",
        ),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: many\r\n\r\nx", "400 Bad: x"),
        (b"HTTP/1.1 400 Bad\r\nContent-Type: image/png\r\n\r\n\x89PNG", "400 Bad"),
        (b"HTTP/1.1 400 Bad\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b", "400 Bad"),
        (
            b'HTTP/1.1 400 Bad\r\nContent-Type: application/problem+json\r\n\r\n{"a": 1}',
            '400 Bad: {"a": 1}',
        ),
        (
            b"HTTP/1.1 400 Bad\r\nContent-Type: Text/HTML; charset=utf-8\r\n\r\n"
            b"<p>\r\n caf\xc3\xa9\t </p>",
            "400 Bad: <p> caf\u00e9 </p>",
        ),
        (
            b"HTTP/1.1 400 \x1b[31mBad\x07\r\n\r\n\x1b]0;x\x07\xc2\x9b1m\xe2\x80\xaeabc\x7f \xff",
            "400 \\x1b[31mBad\\x07: \\x1b]0;x\\x07\\x9b1m\\u202eabc\\x7f \ufffd",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\nwhat is this?", "204 No Content"),
        (b"HTTP/1.1 404 Not Found\r\nX : y\r\nno colon\r\n\r\n", "404 Not Found"),
    ],
)
def test_client_says_what_the_server_that_refused_said(answer: bytes, text: str) -> None:
    assert refusal_text(answer) == text


def test_client_repeats_the_beginning_of_a_long_refusal() -> None:
    text = refusal_text(b"HTTP/1.1 400 Bad\r\n\r\n" + b"0123456789" * 500_000)
    assert text == "400 Bad: " + "0123456789" * 19 + "012345678\u2026"
    text = refusal_text(b"HTTP/1.1 400 Bad\r\n\r\n" + b"\x1b" * 5000)
    assert len(text) == len("400 Bad: ") + 200 and "\x1b" not in text
    text = refusal_text(b"HTTP/1.1 400 " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n")
    assert text == "400 " + "x" * 199 + "\u2026"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\nhello",
        b"HTTP/1.1 400 Bad\r\n\r\nhello",
        b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello",
    ],
)
def test_client_does_not_wait_long_for_the_rest_of_a_refusal(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfc6455.client, "BODY_TIME", 0.1)
    assert refusal_text(answer, ends=False) == "400 Bad: hello"


def test_client_tells_a_refusal_by_its_fields() -> None:
    error = refusal_by(
        lambda head: (
            b"HTTP/1.1 401 Who are you\r\nWWW-Authenticate: Basic\r\nContent-Length: 5\r\n\r\nhello"
        )
    )
    assert (error.status, error.reason, error.body) == (401, "Who are you", "hello")
    assert ("WWW-Authenticate", "Basic") in list(error.headers)


INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nSec-WebSocket-Accept: x\r\n\r\n",
    b"HTTP/1.1 102 \r\n\r\n",
]


@pytest.mark.parametrize("interim", [*INTERIM, b"".join(INTERIM), INTERIM[0] * 10])
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_client_skips_interim_responses(interim: bytes, step: int) -> None:
    def script(peer: Peer) -> None:
        answer = interim + response(peer.read_head()) + unmasked(0x81, b"Hello")
        for i in range(0, len(answer), step):
            peer.send(answer[i : i + step])
        answer_close(peer)

    with RawServer(script) as server, connect(server.url) as websocket:
        assert websocket.receive() == "Hello"


def test_client_skips_interim_responses_before_a_refusal() -> None:
    text = refusal_text(INTERIM[0] + b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    assert text == "403 Forbidden: no"


def test_client_does_not_skip_interim_responses_without_end() -> None:
    assert "interim" in refusal_text(INTERIM[0] * 1000)
    # and their size counts as any head's
    assert "16384 bytes" in refusal_text(b"HTTP/1.1 103 x\r\n" + b"X: y\r\n" * 10_000)


def test_client_refuses_an_agreement_in_http_1_0() -> None:
    error = refusal_by(lambda head: response(head).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (error.status, error.reason) == (101, "the server agreed in HTTP/1.0")


@pytest.mark.requirement("11.3.5-2", "4.1-17")
def test_client_tells_the_versions_that_a_server_would_take() -> None:
    error = refusal_by(
        lambda head: (
            b"HTTP/1.1 426 Upgrade Required\r\n"
            b"Sec-WebSocket-Version: 8, 7\r\n"
            b"Sec-WebSocket-Version: 0\r\n"
            b"\r\n"
        )
    )
    assert error.status == 426
    versions = [value for name, value in error.headers if name == "Sec-WebSocket-Version"]
    assert versions == ["8, 7", "0"]


@pytest.mark.requirement("4.1-24", "4.1-25")
@pytest.mark.parametrize(
    ("asked", "more", "agreed"),
    [
        (["chat", "superchat"], ["Sec-WebSocket-Protocol: superchat"], "superchat"),
        (["chat", "superchat"], ["sec-websocket-protocol:chat "], "chat"),
        (["chat"], [], None),
        ([], [], None),
    ],
)
def test_client_reports_the_subprotocol_of_the_answer(
    asked: list[str], more: list[str], agreed: str | None
) -> None:
    with listening([], *more) as server, connect(server.url, subprotocols=asked) as websocket:
        assert websocket.subprotocol == agreed


@pytest.mark.requirement("4.1-21", "4.1-22", "11.3.4-2")
@pytest.mark.parametrize(
    ("asked", "more"),
    [
        (["chat"], ["Sec-WebSocket-Protocol: other"]),
        (["chat"], ["Sec-WebSocket-Protocol: CHAT"]),
        ([], ["Sec-WebSocket-Protocol: other"]),
        (["chat"], ["Sec-WebSocket-Protocol: "]),
        ([], ["Sec-WebSocket-Protocol: "]),
        (["chat", "superchat"], ["Sec-WebSocket-Protocol: chat, superchat"]),
        (["chat"], ["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat"]),
        (["a", "b"], ["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b"]),
    ],
)
def test_client_refuses_a_subprotocol_it_did_not_ask_for(asked: list[str], more: list[str]) -> None:
    refusal_by(lambda head: response(head, *more), subprotocols=asked)


@pytest.mark.requirement("4.1-20")
@pytest.mark.parametrize("deflate", [None, Deflate()])
@pytest.mark.parametrize(
    "more",
    [
        ["x-foo"],
        ["permessage-deflate, x-foo"],
        ["permessage-deflate", "x-foo"],
        ["permessage-deflate, permessage-deflate"],
        ["PERMESSAGE-DEFLATE2"],
    ],
)
def test_client_refuses_an_extension_it_did_not_offer(
    more: list[str], deflate: Deflate | None
) -> None:
    lines = [f"Sec-WebSocket-Extensions: {value}" for value in more]
    assert refusal_by(lambda head: response(head, *lines), deflate=deflate).status == 101


@pytest.mark.requirement("4.1-20")
def test_client_refuses_permessage_deflate_where_nothing_was_offered() -> None:
    line = "Sec-WebSocket-Extensions: permessage-deflate"
    assert refusal_by(lambda head: response(head, line)).status == 101


@pytest.mark.requirement("9.1-2", "9.1-3")
@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "permessage-deflate;",
        "permessage-deflate; =1",
        "permessage-deflate; a=",
        'permessage-deflate; server_max_window_bits="10',
        'permessage-deflate; server_max_window_bits="1 0"',
        "permessage-deflate server_no_context_takeover",
    ],
)
def test_client_refuses_malformed_extensions(value: str) -> None:
    line = f"Sec-WebSocket-Extensions: {value}"
    refusal_by(lambda head: response(head, line), deflate=Deflate())


@pytest.mark.requirement("9.1-3", "4.1-24")
def test_client_takes_a_quoted_parameter_as_unquoted() -> None:
    line = 'Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits="10"'
    with listening([], line) as server, connect(server.url, deflate=Deflate()) as websocket:
        assert websocket.deflate is not None
        assert websocket.deflate.server_max_window_bits == 10


@pytest.mark.requirement("9.1-6", "4.1-24")
def test_client_does_not_use_an_extension_that_was_not_accepted() -> None:
    def script(peer: Peer) -> None:
        assert peer.read_frame() == (0x81, b"a" * 1000)
        answer_close(peer)

    with after_handshake(script) as server, connect(server.url, deflate=Deflate()) as websocket:
        assert websocket.deflate is None
        websocket.send("a" * 1000)


def test_client_tells_what_the_handshake_told() -> None:
    with (
        listening([], "Set-Cookie: a=b") as server,
        connect(f"{server.url}caf\u00e9?x=1") as websocket,
    ):
        assert (websocket.path, websocket.query) == ("/caf%C3%A9", "x=1")
        assert websocket.headers["set-cookie"] == "a=b"
        assert websocket.peer == f"127.0.0.1:{server.port}"


# TLS: section 10.6


@contextlib.contextmanager
def refusing_tls(certificate: Certificate) -> Iterator[RawServer]:
    """A TLS server whose handshake the client must break off, so that it decrypts nothing."""

    def script(peer: Peer) -> None:
        tunnel = Tunnel(peer.sock, certificate.server())
        with pytest.raises(ssl.SSLError, match="ALERT"):
            tunnel.shake_hands()
        assert b"GET" not in tunnel.wire

    with RawServer(script) as server:
        yield server


@pytest.mark.requirement("4.1-6", "10.6-1")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_runs_handshake_messages_and_close_inside_tls(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    context = certificate.server()
    context.minimum_version = context.maximum_version = version

    def script(bare: Peer) -> None:
        tunnel = Tunnel(bare.sock, context)
        tunnel.shake_hands()
        peer = through(tunnel)
        peer.send(response(peer.read_head()) + unmasked(0x81, b"Hello"))
        assert peer.read_frame() == (0x82, bytes(100_000))
        peer.send(unmasked(0x82, bytes(100_000)))
        answer_close(peer)
        tunnel.say_farewell()
        assert peer.read_to_eof() == b""  # the client's close_notify
        assert set(records(tunnel.wire)) <= {20, 21, 22, 23}
        assert b"GET " not in tunnel.wire

    with (
        RawServer(script) as server,
        connect(f"wss://localhost:{server.port}/", ssl_context=certificate.client()) as websocket,
    ):
        assert websocket.receive(PATIENCE) == "Hello"
        websocket.send(bytes(100_000))
        assert websocket.receive(PATIENCE) == bytes(100_000)


@pytest.mark.requirement("4.1-8")
def test_client_names_the_host_in_its_client_hello(certificate: Certificate) -> None:
    names: list[str | None] = []
    context = certificate.server()
    context.sni_callback = lambda _, name, __: names.append(name)

    def script(bare: Peer) -> None:
        tunnel = Tunnel(bare.sock, context)
        tunnel.shake_hands()
        peer = through(tunnel)
        peer.send(response(peer.read_head()))
        answer_close(peer)

    with (
        RawServer(script) as server,
        connect(f"wss://localhost:{server.port}/", ssl_context=certificate.client()),
    ):
        pass
    assert names == ["localhost"]


def test_client_tells_the_text_of_a_refusal_over_tls_in_records_as_they_come(
    certificate: Certificate,
) -> None:
    """A record gives out more than was asked for."""
    text = b"see the manual, " * 100

    def refuse(peer: Peer) -> None:
        tunnel = Tunnel(peer.sock, certificate.server())
        tunnel.shake_hands()
        through(tunnel).read_head()
        tunnel.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 1600\r\n\r\n")
        tunnel.sendall(text)
        with contextlib.suppress(EOFError):
            tunnel.recv(1)

    with RawServer(refuse) as server, pytest.raises(InvalidHandshake) as refusal:
        connect(f"wss://localhost:{server.port}/", ssl_context=certificate.client())
    assert refusal.value.body.startswith("see the manual, see the manual")


@pytest.mark.requirement("4.1-7")
def test_client_refuses_a_certificate_that_nobody_vouches_for(certificate: Certificate) -> None:
    with refusing_tls(certificate) as server, pytest.raises(ssl.SSLCertVerificationError):
        connect(f"wss://localhost:{server.port}/")


@pytest.mark.requirement("4.1-7")
def test_client_refuses_a_certificate_of_another_name(certificate: Certificate) -> None:
    with refusing_tls(certificate) as server, pytest.raises(ssl.SSLCertVerificationError):
        connect(f"wss://127.0.0.1:{server.port}/", ssl_context=certificate.client())


SERVER_HELLO = "160301002a 02000026 {version} {random} 00 {cipher} 00"


@pytest.mark.requirement("10.6-2")
@pytest.mark.parametrize(
    ("version", "cipher"),
    [
        ("0300", "002f"),  # SSL 3.0
        ("0301", "002f"),  # TLS 1.0
        ("0302", "002f"),  # TLS 1.1
        ("0303", "0001"),  # TLS 1.2: no encryption, MD5
        ("0303", "003b"),  # no encryption, SHA-256
        ("0303", "0003"),  # RC4 with 40 bits, for export
        ("0303", "0005"),  # RC4
        ("0303", "0009"),  # DES
        ("0303", "0034"),  # no authentication
    ],
)
def test_client_refuses_weak_tls(version: str, cipher: str) -> None:
    hello = SERVER_HELLO.format(version=version, random="52" * 32, cipher=cipher)

    def script(peer: Peer) -> None:
        start = peer.read(5)
        assert start[:2] == b"\x16\x03"
        peer.read(int.from_bytes(start[3:], "big"))
        peer.send(bytes.fromhex(hello))
        alert = rest(peer)
        assert re.fullmatch(b"\x15\x03.\x00\x02\x02.", alert, re.DOTALL), "no fatal alert"

    with RawServer(script) as server, pytest.raises(ssl.SSLError):
        connect(f"wss://127.0.0.1:{server.port}/")


@pytest.mark.requirement("4.1-6", "4.1-7")
def test_client_sends_nothing_in_clear_to_a_server_without_tls() -> None:
    received: list[bytes] = []

    def script(peer: Peer) -> None:
        received.append(peer.read(1))
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        received.append(rest(peer))

    with RawServer(script) as server, pytest.raises(ssl.SSLError):
        connect(f"wss://127.0.0.1:{server.port}/")
    assert received[0] == b"\x16"
    assert b"GET " not in received[1]

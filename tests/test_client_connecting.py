"""How `connect` finds an address that answers, one connection at a time (RFC 6455, 4.1).

The servers are bare sockets.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import rfc6455.client
from peers import PATIENCE, Peer, RawServer, response
from programs import ROOT
from raw_servers import agreeing, answer_normal_close, read_rest, resolve_to
from rfc6455 import InvalidHandshake, Timeouts, connect


@pytest.mark.requirement("4.1-2")
@pytest.mark.parametrize("first_gets", ["its 101", "a refusal", "nothing and the end"])
def test_client_opens_one_connection_at_a_time_to_one_address(first_gets: str) -> None:
    first_has_come = threading.Event()
    second_has_come = threading.Event()
    go_on = threading.Event()

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
                read_rest(peer)
                return
            peer.send(response(head))
        answer_normal_close(peer)

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
        answer_normal_close(peer)

    with RawServer(script) as one, RawServer(script) as other, ThreadPoolExecutor() as pool:
        for connecting in [pool.submit(connect, server.url) for server in (one, other)]:
            connecting.result(PATIENCE).close()


@pytest.mark.requirement("4.1-2")
def test_client_waits_no_longer_than_its_timeout_for_another_handshake() -> None:
    has_come = threading.Event()
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        head = peer.read_head()
        has_come.set()
        assert go_on.wait(PATIENCE)
        peer.send(response(head))
        answer_normal_close(peer)

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
held.acquire()  # both locks are held, as by a thread that connects while another one forks
client._address_locks_lock.acquire()
child = os.fork()
if child == 0:
    try:
        connect(f"ws://127.0.0.1:{port}/", timeouts=Timeouts(open_timeout=10.0))
    except ConnectionRefusedError:
        os._exit(0)
    os._exit(1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on Windows")
def test_child_process_does_not_wait_for_a_lock_that_its_parent_holds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(port)]
    ended = subprocess.run(
        command, cwd=ROOT, timeout=2 * PATIENCE, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.requirement("4.1-5")
def test_client_fails_where_nobody_listens() -> None:
    with socket.socket() as bound:  # it does not listen
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            connect(f"ws://127.0.0.1:{bound.getsockname()[1]}/")


@pytest.mark.requirement("4.1-5")
def test_client_fails_where_the_name_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch)
    with pytest.raises(OSError, match="h"):
        connect("ws://h/")


@pytest.mark.requirement("4.1-5")
def test_client_tries_the_next_address_where_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound, agreeing([]) as server:
        bound.bind(("127.0.0.1", 0))
        resolve_to(monkeypatch, bound.getsockname()[1], server.port)
        with connect("ws://h/"):
            pass
    assert server.accepted == 1


@contextlib.contextmanager
def swallowing() -> Iterator[int]:
    """A port where a connection never opens.

    Linux leaves a client without an answer once the queue of those to be accepted is full.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(10):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.2)
            try:
                sock.connect(listener.getsockname())
            except TimeoutError:
                yield listener.getsockname()[1]
                return
        pytest.skip("this system answers although its queue of connections is full")


@pytest.mark.requirement("4.1-5")
@pytest.mark.parametrize("count", [1, 3])
def test_client_tries_the_next_address_beside_one_that_answers_nothing(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_slowly(peer: Peer) -> None:
        head = peer.read_head()
        assert peer.is_silent(0.8)  # the time for the handshake is not used up
        peer.send(response(head))
        answer_normal_close(peer)

    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(swallowing()) for _ in range(count)]
        server = stack.enter_context(RawServer(answer_slowly))
        resolve_to(monkeypatch, *ports, server.port)
        for _ in range(2):  # the first leaves no lock behind for which the second would wait
            with connect("ws://h/", timeouts=Timeouts(open_timeout=PATIENCE)):
                pass
    assert server.accepted == 2


def test_client_fails_in_time_where_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc6455.client, "ATTEMPT_DELAY", 0.05)
    with swallowing() as one, swallowing() as other:
        resolve_to(monkeypatch, one, other)
        with pytest.raises(TimeoutError, match="took too long"):
            connect("ws://h/", timeouts=Timeouts(open_timeout=0.3))


def test_client_tries_the_next_address_at_once_where_one_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rfc6455.client, "ATTEMPT_DELAY", 2 * PATIENCE)
    with socket.socket() as bound, agreeing([]) as server:
        bound.bind(("127.0.0.1", 0))
        resolve_to(monkeypatch, bound.getsockname()[1], server.port)
        with connect("ws://h/"):
            pass


def test_client_stays_with_the_first_address_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with agreeing([]) as server, agreeing([]) as other:
        resolve_to(monkeypatch, server.port, other.port)
        with connect("ws://h/"):
            pass
    assert (server.accepted, other.accepted) == (1, 0)


def test_client_alternates_between_addresses_of_ipv6_and_ipv4(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
def test_client_tries_another_address_while_it_must_wait_for_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_come = threading.Event()
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        head = peer.read_head()
        has_come.set()
        assert go_on.wait(PATIENCE)
        peer.send(response(head))
        answer_normal_close(peer)

    with RawServer(script) as busy, agreeing([]) as free, ThreadPoolExecutor() as pool:
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
    def never_answer(peer: Peer) -> None:
        read_rest(peer)

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
        answer_normal_close(peer)

    with RawServer(script) as server, connect(server.url) as websocket:
        websocket.send("Hello")


def test_client_keeps_a_websocket_open_after_the_time_for_its_handshake_is_over() -> None:
    timeouts = Timeouts(open_timeout=1.0)
    with agreeing([]) as server, connect(server.url, timeouts=timeouts) as websocket:
        assert websocket.receive(1.3) is None

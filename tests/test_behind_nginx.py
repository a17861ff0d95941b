"""Clients behind nginx: those that read slowly, and those that still send when they are closed."""

import json
import time
from collections.abc import Iterator

import pytest

from chatting import hear, say
from pairs import CALM
from peers import MASK, Peer, echo_messages, eventually, masked, serving, shake_hands, unmasked
from programs import Program
from proxy import Proxy, nginx
from rfc6455 import ConnectionClosed, WebSocket

pytestmark = pytest.mark.nginx

MIB = 1 << 20


@pytest.fixture(scope="module")
def proxy(server: Program) -> Iterator[Proxy]:
    with nginx(server.url) as running:
        yield running


def test_chat_works_behind_a_proxy(server: Program, proxy: Proxy) -> None:
    with shake_hands(proxy, "/ws") as ada, server.join() as bob:
        say(ada, "through nginx")
        assert hear(bob)["message"] == "through nginx"
        assert hear(ada)["message"] == "through nginx"


@pytest.mark.parametrize("size", [300_000, MIB, 4 * MIB])
@pytest.mark.parametrize("attempt", range(4))
@pytest.mark.requirement("7.1.7-3")
def test_client_that_still_sends_what_is_too_big_reads_1009(
    proxy: Proxy, size: int, attempt: int
) -> None:
    """nginx drops a Close that comes together with the end of TCP while its client still sends."""
    message = json.dumps({"message": "x" * size}).encode()
    frame = masked_quickly(message)
    with shake_hands(proxy, "/ws") as peer:
        peer.send(frame)
        assert peer.read_frame() == (0x88, b"\x03\xf1the message is over 65536 bytes")
        peer.send(masked(0x88, b"\x03\xf1"))
        assert peer.read_to_eof() == b""


@pytest.mark.parametrize("bad", ["not JSON", '{"message": 1}'])
def test_client_that_still_sends_when_it_is_refused_reads_1008(proxy: Proxy, bad: str) -> None:
    rest = masked_quickly(json.dumps({"message": "x" * 60_000}).encode()) * 20
    with shake_hands(proxy, "/ws") as peer:
        peer.send(masked(0x81, bad.encode()) + rest)
        first, payload = peer.read_frame()
        assert (first, payload[:2]) == (0x88, b"\x03\xf0")
        peer.send(masked(0x88, payload[:2]))
        assert peer.read_to_eof() == b""


@pytest.mark.parametrize("bad", [b"\x83\x80" + MASK, masked(0x81, b"\xff")])
def test_client_that_still_sends_when_its_connection_fails_reads_why(
    proxy: Proxy, bad: bytes
) -> None:
    rest = masked_quickly(bytes(60_000)) * 50
    with shake_hands(proxy, "/ws") as peer:
        peer.send(bad + rest)
        first, payload = peer.read_frame()
        assert first == 0x88
        assert payload[:2] == (b"\x03\xef" if bad[0] == 0x81 else b"\x03\xea")


def masked_quickly(payload: bytes) -> bytes:
    """A text frame whose masking key is zeros, so that megabytes need no masking."""
    return masked(0x81, b"")[:1] + b"\xff" + len(payload).to_bytes(8, "big") + bytes(4) + payload


@pytest.mark.slow
def test_client_that_reads_slowly_but_steadily_gets_everything() -> None:
    """It reads 8 MiB of history at 50 kB/s; here it all goes twenty times as fast.

    nginx takes nothing more until it has passed on a third of its buffer, which takes 1.3 s here.
    """
    timeouts = CALM._replace(
        ping_interval=1.0, ping_timeout=1.0, close_timeout=0.25, write_timeout=3.0
    )
    size = 8 * MIB
    outcomes: list[str] = []

    def tell_history(websocket: WebSocket) -> None:
        try:
            for _ in range(size // 65536):
                websocket.send(bytes(65536))
            outcomes.append(str(websocket.receive()))
        except ConnectionClosed as closed:
            outcomes.append(str(closed))

    with (
        serving(tell_history, timeouts=timeouts) as server,
        nginx(f"http://127.0.0.1:{server.server_port}", more="proxy_read_timeout 3s;") as proxy,
        shake_hands(proxy) as peer,
    ):
        read_slowly(peer, size + 10 * (size // 65536), rate=MIB)
        peer.send(masked(0x81, b"all of it"))
        eventually(lambda: outcomes)
    assert outcomes == ["all of it"]


def read_slowly(peer: Peer, size: int, rate: int) -> None:
    """Read messages of `size` bytes in all at `rate` bytes a second, and answer the pings."""
    began = time.monotonic()
    got = 0
    while got < size:
        first, payload = peer.read_frame()
        if first == 0x89:
            peer.send(masked(0x8A, payload))
        else:
            got += len(unmasked(first, payload))
        pause = began + got / rate - time.monotonic()
        if pause > 0:
            time.sleep(pause)  # this is the slow client, and not a wait for something


def test_idle_connection_through_nginx_outlives_its_timeout() -> None:
    """nginx ends a connection that is silent for proxy_read_timeout; our pings come before."""
    timeouts = CALM._replace(ping_interval=0.5, ping_timeout=0.5)
    with (
        serving(echo_messages, timeouts=timeouts) as server,
        nginx(f"http://127.0.0.1:{server.server_port}", more="proxy_read_timeout 2s;") as proxy,
        shake_hands(proxy) as peer,
    ):
        for _ in range(5):
            assert peer.read_frame() == (0x89, b"")
            peer.send(masked(0x8A))
        peer.send(masked(0x81, b"still here"))
        assert peer.read_frame() == (0x81, b"still here")

"""The chat behind nginx, Caddy and HAProxy, each configured as docs/deployment.md says."""

import os
import re
import shlex
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chatting import hear, hear_said, leave, say
from deployment import KINDS, DocumentedProxy, blocks, documented, replace
from kills import Place
from pages import Visit, expect, join, send
from pairs import CALM
from peers import (
    PATIENCE,
    Peer,
    echo_messages,
    eventually,
    masked,
    request,
    serving,
    shake_hands,
)
from programs import Program, await_handler, chat, lines_with
from rfc6455 import WebSocketServer
from tls import Certificate

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.proxies]

LONG = bool(os.environ.get("RUN_LONG"))
FORGED = "203.0.113.9"  # the address for which a client tries to pass


def documented_options() -> list[str]:
    """The options with which the page starts the chat, without those that a test chooses."""
    command = shlex.split(blocks("sh")[0])
    assert command[:4] == ["python3", "chat_server.py", "--history", "chat.db"]
    return command[4:]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with chat(*documented_options()) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(kind: str, server: Program) -> Iterator[DocumentedProxy]:
    with documented(kind, server.server_port) as proxy:
        yield proxy


def healthz(server: WebSocketServer) -> str:
    return f"ok {server.connection_count} clients\n"


PAGES = {"/healthz": healthz}  # HAProxy sends nobody to a server without it


def answer_through(proxy: DocumentedProxy, data: bytes) -> tuple[str, str]:
    """The head and the body of the answer to a request; the proxy may keep the connection open."""
    with proxy.tcp() as peer:
        peer.send(data)
        head = peer.read_head()
        size = int(re.findall(r"(?i)\r\ncontent-length: ([0-9]+)\r\n", head)[0])
        return head, peer.read(size).decode()


def test_page_its_scripts_and_healthz_come_through(proxy: DocumentedProxy) -> None:
    for path, content in (
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
    ):
        lines = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{proxy.server_port}\r\n\r\n"
        head, body = answer_through(proxy, lines.encode())
        assert head.startswith("HTTP/1.1 200 ")
        assert f"content-type: {content}\r\n" in head.lower()
    assert re.fullmatch("ok [0-9]+ clients\n", body)


def test_chat_and_resuming_work_through_the_proxy(server: Program, proxy: DocumentedProxy) -> None:
    with shake_hands(proxy, "/ws") as ada, server.join() as bob:
        await_handler(ada)
        for text in ("first", "second"):
            say(ada, text)
            assert hear(bob)["message"] == text
        first = hear(ada)
        assert first["message"] == "first"
        leave(bob)
    with shake_hands(proxy, f"/ws?since={first['id']}") as ada:
        assert hear_said(ada)["message"] == "second"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_only_the_page_of_the_proxys_own_address_and_scheme_is_let_in(
    proxy: DocumentedProxy, scheme: str
) -> None:
    origin = f"{scheme}://127.0.0.1:{proxy.server_port}"
    if scheme == "http":
        shake_hands(proxy, "/ws", Origin=origin).close()
        return
    head, body = answer_through(proxy, request(proxy, "/ws", Origin=origin))
    assert head.startswith("HTTP/1.1 403 ")
    assert "X-Forwarded-Proto is 'http'" in body


def test_page_of_another_site_is_refused(proxy: DocumentedProxy) -> None:
    """It can't pass for the proxy's site either, by the headers that only a proxy may send."""
    changes = {
        "Origin": "http://evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
    }
    head, body = answer_through(proxy, request(proxy, "/ws", **changes))
    assert head.startswith("HTTP/1.1 403 ")
    assert f"X-Forwarded-Host is '127.0.0.1:{proxy.server_port}'" in body


def from_another_address(proxy: DocumentedProxy) -> Peer:
    """A client at 127.0.0.2, which is no trusted proxy where only 127.0.0.1 is."""
    address = ("127.0.0.1", proxy.server_port)
    try:
        return Peer(socket.create_connection(address, PATIENCE, source_address=("127.0.0.2", 0)))
    except OSError:
        pytest.skip("this system has no address 127.0.0.2")


@pytest.mark.parametrize("forged", [None, FORGED, "127.0.0.1", f"{FORGED}, 127.0.0.1", "nonsense"])
def test_log_names_the_client_and_not_what_it_has_made_up(kind: str, forged: str | None) -> None:
    with (
        chat("--trust-proxy", "127.0.0.1") as server,
        documented(kind, server.server_port) as proxy,
        from_another_address(proxy) as peer,
    ):
        peer.send(request(proxy, "/ws", **{"X-Forwarded-For": forged}))
        assert peer.read_head().startswith("HTTP/1.1 101 ")
        leave(peer)
        eventually(lambda: lines_with(server, "closed, 1000"))
        assert lines_with(server, "127.0.0.2 via 127.0.0.1:")
        assert not lines_with(server, FORGED)


# Silence


def stay_silent(peer: Peer, seconds: float) -> int:
    """Send nothing for so long but answers to pings; how many pings came."""
    pings = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert peer.read_frame() == (0x89, b"")
        peer.send(masked(0x8A))
        pings += 1
    return pings


def test_silent_connection_outlives_the_proxys_timeout(kind: str) -> None:
    """The proxy's 60 s and the server's 20 s, both shortened to a thirtieth."""
    timeouts = CALM._replace(ping_interval=2 / 3, ping_timeout=2 / 3)
    changes = {} if kind == "caddy" else {"60s": "2s"}  # Caddy ends no connection for its silence
    with (
        serving(echo_messages, timeouts=timeouts, pages=PAGES) as server,
        documented(kind, server.server_port, changes) as proxy,
        shake_hands(proxy) as peer,
    ):
        assert stay_silent(peer, 3) >= 4
        peer.send(masked(0x81, b"still here"))
        assert peer.read_frame() == (0x81, b"still here")


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_proxy_ends_a_connection_without_pings_after_its_timeout(kind: str) -> None:
    """So it is the pings that keep a silent connection open."""
    with (
        serving(echo_messages, timeouts=CALM, pages=PAGES) as server,
        documented(kind, server.server_port, {"60s": "1s"}) as proxy,
        shake_hands(proxy) as peer,
    ):
        assert peer.read_to_eof() == b""


@pytest.mark.skipif(not LONG, reason="waits for more than a minute; RUN_LONG=1 runs it")
def test_chat_is_silent_for_longer_than_60_seconds_and_goes_on(
    proxy: DocumentedProxy,
) -> None:
    """Nobody says anything, and the proxy and the chat keep their own times."""
    with shake_hands(proxy, "/ws") as ada:
        await_handler(ada)
        ada.sock.settimeout(20 + PATIENCE)  # the chat sends its pings 20 s apart
        assert stay_silent(ada, 70) >= 3
        say(ada, "still here")
        assert hear(ada)["message"] == "still here"


# The proxy is restarted


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A server with a history, to be killed and started again on the same port."""
    place = Place("--history", str(tmp_path / "history"))
    yield place
    place.discard()


def test_client_that_resumes_after_a_restart_of_the_proxy_misses_nothing(
    kind: str, server: Program
) -> None:
    with documented(kind, server.server_port) as proxy, server.join() as bob:
        with shake_hands(proxy, "/ws") as ada:
            await_handler(ada)
            say(bob, "before")
            last = hear(ada)
            assert last["message"] == "before"
            proxy.stop()
            ada.read_to_eof()
        say(bob, "meanwhile")
        assert [hear(bob)["message"] for _ in range(2)] == ["before", "meanwhile"]
        proxy.start()
        with shake_hands(proxy, f"/ws?since={last['id']}") as ada:
            assert hear_said(ada)["message"] == "meanwhile"
            leave(bob)


@pytest.mark.browser
def test_page_comes_back_after_a_restart_of_the_proxy_and_loses_nothing(
    kind: str, visit: Visit
) -> None:
    with chat() as server, documented(kind, server.server_port) as proxy, server.join() as bob:
        ada = visit(proxy)
        ada.forgive("ERR_CONNECTION_REFUSED")  # the browser writes this for each attempt
        ada.join()
        ada.say("before")
        ada.sees("before")
        proxy.stop()
        expect(ada.page.locator("#status")).not_to_have_text("Connected")
        ada.say("while it is away")
        say(bob, "missed")
        proxy.start()
        expect(ada.page.locator("#status")).to_have_text("Connected")
        ada.sees("before", "missed", "while it is away")
        expect(ada.page.locator(".pending")).to_have_count(0)
        assert [hear(bob)["message"] for _ in range(3)] == ["before", "missed", "while it is away"]


@pytest.mark.browser
def test_page_comes_back_after_a_restart_of_the_chat_behind_the_proxy(
    kind: str, visit: Visit, place: Place
) -> None:
    with documented(kind, place.port) as proxy:
        ada = visit(proxy)
        ada.forgive("50")  # the browser writes that the handshake was answered with 502 or 503
        if kind == "caddy":  # which now and then sends a second Close for a server that has gone
            ada.forgive("Close received after close")
        ada.join()
        ada.say("before")
        ada.sees("before")
        place.kill()
        place.start()
        ada.say("after")
        ada.sees("before", "after")


# What only some of them do


def test_haproxy_asks_healthz_whether_the_server_is_up() -> None:
    asked: list[bool] = []

    def note(_: WebSocketServer) -> str:
        asked.append(True)
        return "ok\n"

    with (
        serving(echo_messages, pages={"/healthz": note}) as server,
        documented("haproxy", server.server_port, {" check": " check inter 100ms"}),
    ):
        eventually(lambda: len(asked) > 2)


def tls_changes(kind: str, certificate: Certificate, folder: Path) -> dict[str, str]:
    """How the page's TLS lines replace those for plain HTTP, with the files of a certificate."""
    if kind == "nginx":
        lines = replace(blocks("nginx")[1], "listen 443", "listen 127.0.0.1:PORT")
        lines = replace(lines, "/etc/ssl/chat.example.pem", str(certificate.certificate))
        return {"    listen 80;": replace(lines, "/etc/ssl/chat.example.key", str(certificate.key))}
    if kind == "haproxy":
        both = folder / "both.pem"
        both.write_text(certificate.certificate.read_text() + certificate.key.read_text())
        lines = replace(blocks("haproxy")[1], ":443", "127.0.0.1:PORT")
        return {"    bind :80": replace(lines, "/etc/haproxy/chat.example.pem", str(both))}
    # The certificate that Caddy would get for a name on the internet is given here.
    site = "https://localhost:PORT {\n\tbind 127.0.0.1\n"
    tls = f"\ttls {certificate.certificate} {certificate.key}\n"
    return {"chat.example {\n": site + tls}


def test_page_of_https_is_let_in_by_a_proxy_that_ends_tls_and_one_of_http_is_not(
    kind: str, server: Program, certificate: Certificate, tmp_path: Path
) -> None:
    changes = tls_changes(kind, certificate, tmp_path)
    with documented(kind, server.server_port, changes) as running:
        host = f"localhost:{running.server_port}"
        for scheme, status in (("https", 101), ("http", 403)):
            with Peer(tls_socket(running, certificate)) as peer:
                peer.send(request(running, "/ws", Host=host, Origin=f"{scheme}://{host}"))
                assert peer.read_head().startswith(f"HTTP/1.1 {status} ")


def tls_socket(proxy: DocumentedProxy, certificate: Certificate) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", proxy.server_port), PATIENCE)
    return certificate.client().wrap_socket(sock, server_hostname="localhost")


# A password in front, by nginx


def password_changes(folder: Path) -> dict[str, str]:
    users = folder / "users"
    users.write_text("ada:{PLAIN}lovelace\n")
    users.chmod(0o644)
    lines = replace(blocks("nginx")[2], "/etc/nginx/chat.users", str(users))
    first = "        proxy_pass"
    return {first: lines + first}


def test_nginx_asks_for_a_password_and_passes_who_has_it_on(
    server: Program, tmp_path: Path
) -> None:
    with documented("nginx", server.server_port, password_changes(tmp_path)) as proxy:
        for target in ("/", "/ws"):
            head, _ = answer_through(proxy, request(proxy, target))
            assert head.startswith("HTTP/1.1 401 ")
            assert 'WWW-Authenticate: Basic realm="chat"\r\n' in head
        wrong = "Basic YWRhOndyb25n"  # ada:wrong
        head, _ = answer_through(proxy, request(proxy, "/ws", Authorization=wrong))
        assert head.startswith("HTTP/1.1 401 ")
        right = "Basic YWRhOmxvdmVsYWNl"  # ada:lovelace
        with shake_hands(proxy, "/ws", Authorization=right) as ada:
            say(ada, "with a password")
            assert hear(ada)["message"] == "with a password"


@pytest.mark.browser
def test_browser_sends_the_password_with_the_handshake_of_the_websocket(
    page: "Page", tmp_path: Path
) -> None:
    with (
        chat() as server,
        documented("nginx", server.server_port, password_changes(tmp_path)) as proxy,
        server.join() as bob,
    ):
        # As if the user had typed it into the browser's dialog, which no test can reach.
        page.goto(proxy.url.replace("//", "//ada:lovelace@"))
        join(page, proxy.url)
        send(page, "with a password")
        assert hear(bob)["message"] == "with a password"
        proxy.stop()
        expect(page.locator("#status")).not_to_have_text("Connected")
        proxy.start()
        expect(page.locator("#status")).to_have_text("Connected")

"""Both servers as a reverse proxy and its operator see them: /healthz, --trust-proxy, refusals."""

import re
import shlex
from typing import Any, cast

import pytest

from fetching import parse
from peers import answer_to, eventually, request
from programs import Program, name_of, running

SERVERS = pytest.mark.parametrize(
    ("script", "path"), [("chat_server.py", "/ws"), ("echo_server.py", "/echo")]
)
PAGE = "https://chat.example"


def refusal(server: Program, path: str, **changes: str) -> str:
    """The text with which the server refuses this handshake; the log has it, too."""
    status, text = answer_to(server, request(server, path, **changes))
    assert status == 403
    body = parse(text).body
    reason = body.removeprefix("403 Forbidden: ").rstrip("\n")
    eventually(lambda: f"refused, 403 {reason!a}" in server.log)
    return reason


@SERVERS
def test_healthz_answers_ok_and_the_number_of_clients(script: str, path: str) -> None:
    with running(script) as server:
        status, text = server.answer(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (status, parse(text).body) == (200, "ok 0 clients\n")
        with server.join(path), server.join(path):
            text = server.answer(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")[1]
            answer = parse(text)
            assert answer.body == "ok 2 clients\n"
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert answer.headers["Cache-Control"] == "no-store"
        assert "healthz" not in server.log


def test_healthz_of_a_full_chat_answers() -> None:
    with running("chat_server.py", "--max-clients", "1") as server, server.join():
        assert server.answer(request(cast(Any, server), "/ws"))[0] == 503
        text = server.answer(b"GET /healthz HTTP/1.0\r\n\r\n")[1]
        assert parse(text).body == "ok 1 clients\n"


@SERVERS
def test_healthz_of_a_server_that_shuts_down_is_503(script: str, path: str) -> None:
    # The watcher comes first: once the client is let in, the watcher was accepted, too.
    with running(script) as server, server.tcp() as watcher, server.join(path) as client:
        watcher.send(b"GET /healthz HTTP/1.0\r\n")
        server.signal()
        assert client.read_frame().first == 0x88  # and it is not answered, so the server waits
        watcher.send(b"\r\n")
        answer = parse(watcher.read_to_eof().decode("latin-1"))
        assert answer.status == 503
        assert answer.body == "503 Service Unavailable: the server is shutting down\n"


@SERVERS
@pytest.mark.parametrize("address", [[], ["127.0.0.1"], ["127.0.0.0/8"], ["10.0.0.0/8", "::1"]])
def test_servers_believe_the_proxies_that_their_options_name(
    script: str, path: str, address: list[str]
) -> None:
    is_trusted = address != ["10.0.0.0/8", "::1"]
    options = [word for each in address for word in ("--trust-proxy", each)] or ["--trust-proxy"]
    changes = {
        "Host": "localhost",
        "Origin": PAGE,
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Host": "chat.example",
        "X-Forwarded-Proto": "https",
    }
    with running(script, "--allow-host", "chat.example", *options) as server:
        if not is_trusted:
            assert refusal(server, path, **changes)
            return
        with server.join(path, **changes) as peer:
            name = name_of(peer)
        eventually(lambda: f"192.0.2.1 via {name}: closed" in server.log)


# What a 403 says. Each case is a mistake in a proxy's configuration, or in the server's options.


@SERVERS
def test_proxy_that_sends_a_host_of_its_own_is_told_which_one_to_send(
    script: str, path: str
) -> None:
    with running(script) as server:
        assert refusal(server, path, Host="localhost:8000", Origin=PAGE) == (
            "Origin 'https://chat.example' is not allowed, as Host is 'localhost:8000'; if this is "
            "the site of a proxy in front, the proxy has to send 'Host: chat.example'; "
            "--allow-origin https://chat.example allows it"
        )
        reason = refusal(server, path, Host="localhost", Origin="http://localhost:8443")
        assert "the proxy has to send 'Host: localhost:8443'" in reason


@SERVERS
def test_proxy_that_passes_its_host_on_leads_to_the_option_that_allows_it(
    script: str, path: str
) -> None:
    with running(script) as server:
        expected = "Host 'chat.example' is not allowed; --allow-host chat.example allows it"
        assert refusal(server, path, Host="chat.example", Origin=PAGE) == expected


@SERVERS
@pytest.mark.parametrize("origin", [None, PAGE])
def test_proxy_that_is_not_trusted_leads_to_the_option_that_trusts_it(
    script: str, path: str, origin: str | None
) -> None:
    changes = {"Host": "backend", "X-Forwarded-Host": "chat.example", "X-Forwarded-Proto": "https"}
    if origin:
        changes |= {"Host": "localhost", "Origin": origin}
    with running(script) as server:
        reason = refusal(server, path, **changes)
    assert (
        "; the X-Forwarded headers were ignored, and if 127.0.0.1 is your proxy, "
        "--trust-proxy 127.0.0.1 makes them count; --allow-"
    ) in reason
    # Obeying these hints, one after the other, mends it.
    trust = shlex.split(re.findall(r"--trust-proxy \S+", reason)[0])
    with running(script, *trust) as server:
        reason = refusal(server, path, **changes)
    assert reason == (
        "X-Forwarded-Host 'chat.example' is not allowed; --allow-host chat.example allows it"
    )
    with running(script, *trust, "--allow-host", "chat.example") as server:
        server.join(path, **changes).close()


@SERVERS
def test_trusted_proxy_that_forwards_another_scheme_is_told_what_to_forward(
    script: str, path: str
) -> None:
    changes = {
        "Host": "localhost",
        "Origin": PAGE,
        "X-Forwarded-Host": "chat.example",
        "X-Forwarded-Proto": "http",
    }
    with running(script, "--trust-proxy", "--allow-host", "chat.example") as server:
        assert refusal(server, path, **changes) == (
            "Origin 'https://chat.example' is not allowed, as X-Forwarded-Host is 'chat.example' "
            "and X-Forwarded-Proto is 'http'; if this is the proxy's own site, the proxy has to "
            "send 'X-Forwarded-Host: chat.example' and 'X-Forwarded-Proto: https'; "
            "--allow-origin https://chat.example allows it"
        )

"""Which pages and which host names the server lets in (RFC 6455, 10.2).

The peers are bare sockets.
"""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from fetching import (
    GOOD,
    answers_echo,
    assert_refused,
)
from peers import answer_to, echo_messages, request, serving, shake_hands, tcp
from rfc6455 import (
    Refused,
    WebSocketServer,
)

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


@pytest.mark.requirement("4.2.2-2", "10.2-1")
@pytest.mark.parametrize("origin", [b"http://good.example", b"HTTP://GOOD.example"])
def test_server_lets_in_a_page_of_an_allowed_origin(origin: bytes) -> None:
    with (
        serving(echo_messages, allowed_origins=["http://Good.example"]) as server,
        tcp(server) as peer,
    ):
        peer.send(GOOD.replace(b"\r\n\r\n", b"\r\nOrigin: " + origin + b"\r\n\r\n"))
        assert peer.read_head().startswith("HTTP/1.1 101 ")


@pytest.mark.requirement("10.2-1")
def test_server_lets_in_its_own_page() -> None:
    with serving(echo_messages) as server:
        origin = f"http://127.0.0.1:{server.server_port}"
        with shake_hands(server, Origin=origin) as peer:
            assert answers_echo(peer)


@pytest.mark.requirement("4.2.2-2", "10.2-1")
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://good.example.evil.example",
        "http://good.example:81",
        "https://good.example",
        "http://127.0.0.1:1",
        "null",
    ],
)
def test_server_refuses_a_page_of_another_origin(origin: str) -> None:
    data = GOOD.replace(b"\r\n\r\n", f"\r\nOrigin: {origin}\r\n\r\n".encode())
    answer = assert_refused(data, 403, allowed_origins=["http://good.example"])
    assert answer.body.startswith(f"403 Forbidden: Origin '{origin}' is not allowed")


def test_server_lets_in_every_page_where_the_star_is_allowed() -> None:
    with serving(echo_messages, allowed_origins=["*"]) as server:
        for origin in ("http://evil.example", "null"):
            shake_hands(server, Origin=origin).close()


@pytest.mark.parametrize(
    "options",
    [
        {"allowed_origins": ["chat.example"]},
        {"allowed_origins": ["null"]},
        {"allowed_hosts": ["http://chat.example"]},
        {"allowed_hosts": [""]},
    ],
)
def test_server_refuses_to_start_with_an_origin_or_a_host_that_is_none(
    options: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match=r"is not an origin|is not a host"):
        WebSocketServer(("127.0.0.1", 0), {}, **options)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"Origin": "http://Evil.example:80/"}, Refused("Origin", "http://evil.example")),
        ({"Host": "[2001:db8::1]:80"}, Refused("Host", "[2001:db8::1]")),
    ],
)
def test_program_says_how_to_allow_what_was_refused(
    changes: dict[str, str], refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rfc6455")
    asked: list[Refused] = []

    def advise(what: Refused) -> str:
        asked.append(what)
        return f"ask Ada for {what.value}"

    with serving(echo_messages, advise=advise) as server:
        status, text = answer_to(server, request(server, **changes))
        assert answer_to(server, request(server, Host="a b"))[0] == 403
        assert answer_to(server, request(server, Origin="null"))[0] == 403
    assert status == 403
    assert " is not allowed" in text
    assert text.endswith(f"; ask Ada for {refused.value}\n")
    assert asked == [refused]
    assert f"ask Ada for {refused.value}" in caplog.messages[0]


def test_server_refuses_two_origins() -> None:
    data = GOOD.replace(b"\r\n\r\n", b"\r\nOrigin: http://a.example" * 2 + b"\r\n\r\n")
    assert_refused(data, 400, allowed_origins=["http://a.example"])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_server_on_loopback_refuses_another_host(host: str) -> None:
    answer = assert_refused(GOOD.replace(b"Host: 127.0.0.1", f"Host: {host}".encode()), 400, 403)
    if host:
        assert answer.status == 403
        assert answer.body == f"403 Forbidden: Host '{host}' is not allowed\n"


def test_server_on_loopback_refuses_files_to_another_host(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("secret")
    data = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    answer = assert_refused(data, 403, path="/ws", directory=tmp_path)
    assert "secret" not in answer.body


@pytest.mark.parametrize("host", [b"Chat.example", b"chat.example:8000", b"localhost", b"[::1]:1"])
def test_server_answers_to_an_allowed_host(host: bytes) -> None:
    with serving(echo_messages, allowed_hosts=["chat.EXAMPLE"]) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"127.0.0.1", host))
        assert peer.read_head().startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize("name", ["Host", "Origin"])
def test_server_keeps_control_characters_out_of_its_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "rfc6455")
    with serving(echo_messages) as server:
        answer_to(server, request(server, **{name: "http://evil\x1b[2J\x08\x85.example"}))
        answer_to(server, b"GET /\x1b[2J\x08\x9b HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert [text for text in caplog.messages if re.search("[\x00-\x1f\x7f-\x9f]", text)] == []

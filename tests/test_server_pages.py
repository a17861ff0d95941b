"""Pages whose text a function of the program returns, such as one for health checks.

The peers are bare sockets.
"""

from pathlib import Path

import pytest

from fetching import GOOD, fetch, parse, serving_files
from peers import answer_to, echo_messages, eventually, serving, shake_hands, tcp
from rfc6455 import PageText, WebSocketServer

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


def count(server: WebSocketServer) -> str:
    return f"{server.connection_count} here, é\n"


PAGES = {"/health": count}


def test_page_is_made_anew_for_each_request_and_never_stored() -> None:
    with serving(echo_messages, path="/ws", pages=PAGES) as server:
        answer = fetch(server, "/health")
        assert (answer.status, answer.body) == (200, "0 here, \xc3\xa9\n")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Content-Length"] == "11"
        assert answer.headers.get_all("Cache-Control") == ["no-store"]
        with shake_hands(server, "/ws"), shake_hands(server, "/ws"):
            # A client gets its 101 shortly before it is counted.
            eventually(lambda: fetch(server, "/health?any").body.startswith("2 here"))


def test_page_says_the_type_of_its_text() -> None:
    def settings(_: WebSocketServer) -> PageText:
        return PageText('{"a": "é"}', "application/json")

    with serving(echo_messages, pages=PAGES | {"/settings.json": settings}) as server:
        answer = fetch(server, "/settings.json")
        assert (answer.status, answer.body) == (200, '{"a": "\xc3\xa9"}')
        assert answer.headers.get_all("Content-Type") == ["application/json"]
        assert answer.headers.get_all("Content-Length") == ["11"]
        assert answer.headers.get_all("Cache-Control") == ["no-store"]
        assert fetch(server, "/health").headers["Content-Type"] == "text/plain; charset=utf-8"


def test_head_of_a_page_has_no_body() -> None:
    with serving(echo_messages, pages=PAGES) as server:
        answer = fetch(server, "/health", "HEAD")
        assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "11", "")
        assert fetch(server, "/health", "POST").status == 405
        assert fetch(server, "/healthy").status == 404


def test_page_answers_http_1_0_without_a_host_and_no_other_host() -> None:
    with serving(echo_messages, pages=PAGES) as server:
        assert answer_to(server, b"GET /health HTTP/1.0\r\n\r\n")[0] == 200
        data = b"GET /health HTTP/1.0\r\nHost: evil.example\r\n\r\n"
        assert answer_to(server, data)[0] == 403


def test_page_comes_before_a_file_of_its_name_and_after_a_websocket(public: Path) -> None:
    (public / "health").write_text("a file")
    with serving_files(public, pages=PAGES | {"/ws": count}) as server:
        assert fetch(server, "/health").body.startswith("0 here")
        assert fetch(server, "/ws").status == 426
        data = GOOD.replace(b"GET /", b"GET /health")
        answer = parse(answer_to(server, data)[1])
        assert answer.status == 404
        assert "no WebSocket" in answer.body


def test_page_is_answered_while_the_server_is_full() -> None:
    with (
        serving(echo_messages, path="/ws", pages=PAGES, max_connections=1) as server,
        shake_hands(server, "/ws"),
    ):
        assert answer_to(server, GOOD.replace(b"GET /", b"GET /ws"))[0] == 503
        eventually(lambda: fetch(server, "/health").body.startswith("1 here"))
        assert fetch(server, "/health").status == 200


def test_page_of_a_server_that_shuts_down_is_503() -> None:
    with serving(echo_messages, pages=PAGES) as server, tcp(server) as peer:
        peer.send(b"GET /health HTTP/1.0\r\n")
        server.close_connections()
        peer.send(b"\r\n")
        answer = parse(peer.read_to_eof().decode("latin-1"))
        assert answer.status == 503
        assert answer.body == "503 Service Unavailable: the server is shutting down\n"


def test_page_that_fails_is_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: WebSocketServer) -> str:
        raise LookupError("no such thing")

    with serving(echo_messages, pages={"/health": fail}) as server:
        assert fetch(server, "/health").status == 500
        assert fetch(server, "/").status == 426
    assert "no such thing" in caplog.text
    caplog.clear()

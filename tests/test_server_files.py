"""The files that the server serves, and those that it must not.

The peers are bare sockets.
"""

import contextlib
import re
import time
from pathlib import Path

import pytest

from fetching import (
    deadlines_end,
    fetch,
    serving_files,
)
from peers import (
    eventually,
    tcp,
)
from rfc6455 import (
    Timeouts,
    WebSocketServer,
)

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


@pytest.mark.parametrize(
    ("target", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/?x=1", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.json", "application/json"),
        ("/page.svg", "image/svg+xml"),
        ("/%70age.svg", "image/svg+xml"),
        ("http://localhost/page.svg", "image/svg+xml"),
    ],
)
def test_server_serves_a_file_with_type_length_and_policy(
    public: Path, target: str, content_type: str
) -> None:
    with serving_files(public) as server:
        answer = fetch(server, target)
    assert answer.status == 200
    assert answer.headers.get_all("Content-Type") == [content_type]
    assert answer.headers.get_all("Content-Length") == [str(len(answer.body))]
    assert answer.headers.get_all("Content-Security-Policy") == ["default-src 'self'"]
    assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.get_all("Connection") == ["close"]


def test_server_serves_a_files_bytes_as_they_are(public: Path) -> None:
    with serving_files(public) as server:
        answer = fetch(server, "/")
    assert answer.body.encode("latin-1") == b"<p>\xc3\xa9"


def test_server_sends_the_headers_that_the_program_chose_with_every_answer(public: Path) -> None:
    headers = {"Content-Security-Policy": "default-src 'none'", "X-Foo": "bar"}
    with serving_files(public, headers=headers) as server:
        for target, status in [("/", 200), ("/nosuch", 404)]:
            answer = fetch(server, target)
            assert answer.status == status
            assert answer.headers.get_all("Content-Security-Policy") == ["default-src 'none'"]
            assert answer.headers.get_all("X-Foo") == ["bar"]


def test_server_gives_a_slow_client_time_for_a_large_file(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfc6455.server._FILE_TIME", 0.8)  # seconds; a large file has more
    size = 12_000_000  # more than the kernel holds for a client that does not read
    (public / "large.bin").write_bytes(bytes(size))
    timeouts = Timeouts(close_timeout=1.0)
    with serving_files(public, timeouts=timeouts) as server, tcp(server) as peer:
        peer.send(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = peer.read_head()
        assert f"Content-Length: {size}\r\n" in head
        got = len(peer.buffer)
        peer.buffer = b""
        began = time.monotonic()
        while data := peer.sock.recv(65536):
            got += len(data)
            if time.monotonic() < began + 2.0:
                time.sleep(0.02)  # this is the slow client, and not a wait for something
    assert got == size


def test_server_answers_head_without_a_body(public: Path) -> None:
    with serving_files(public) as server:
        for target, status in [("/", 200), ("/nosuch", 404), ("/ws", 405), ("/%00", 404)]:
            answer = fetch(server, target, "HEAD")
            assert (answer.status, answer.body) == (status, "")
            assert int(answer.headers["Content-Length"]) > 0


def test_server_tells_a_browser_that_its_copy_is_current(public: Path) -> None:
    with serving_files(public) as server:
        modified = fetch(server, "/").headers["Last-Modified"]
        answer = fetch(server, "/", "GET", f"If-Modified-Since: {modified}")
        assert (answer.status, answer.body) == (304, "")
        older = "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT"
        assert fetch(server, "/", "GET", older).status == 200
        assert fetch(server, "/", "GET", "If-Modified-Since: x").status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/nosuch",
        "/sub/",
        "/sub/nosuch",
        "/index.html/",
        "/page.css/x",
        "/%00",
        "/page.css%00",
        "/%ff",
        "/%ed%b2%80",
        "/" + "a" * 5000,
        "/" + "a/" * 3000,
    ],
)
def test_server_answers_404_for_a_file_that_does_not_exist(public: Path, target: str) -> None:
    with serving_files(public) as server:
        answer = fetch(server, target)
    assert answer.status == 404
    assert "file.txt" not in answer.body


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E%2Fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/.%2e/secret.txt",
        "/....//secret.txt",
        "../secret.txt",
        "//../secret.txt",
        "http://localhost/../secret.txt",
        "{outside}/secret.txt",
        "/{outside}/secret.txt",
        "/%2f{outside}/secret.txt",
        "file://{outside}/secret.txt",
    ],
)
def test_server_serves_nothing_outside_its_directory(public: Path, target: str) -> None:
    with serving_files(public) as server:
        answer = fetch(server, target.format(outside=public.parent))
    assert answer.status in (400, 404)
    assert "secret" not in answer.body.replace("secret.txt", "")


def test_server_redirects_to_the_directory_below_it(public: Path) -> None:
    with serving_files(public) as server:
        answer = fetch(server, "/sub?x=1")
    assert (answer.status, answer.headers["Location"]) == (301, "/sub/?x=1")


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "//evil.example/%2e%2e",
        "//evil.example/%2e%2e/sub",
        "///evil.example/%2e%2e/sub",
        "/%2fevil.example/%2e%2e/sub",
        "/\\evil.example/%2e%2e/sub",
        "//evil.example/..%2fsub?x",
        "http://localhost//evil.example/%2e%2e/sub",
        "http:////evil.example/%2e%2e/sub",
        "http:/evil.example/%2e%2e/sub",
        "http://localhost/\\evil.example/%2e%2e/sub",
    ],
)
def test_server_never_redirects_to_another_host(public: Path, target: str) -> None:
    with serving_files(public) as server:
        answer = fetch(server, target)
    assert re.fullmatch(r"/(?![/\\]).*", answer.headers.get("Location", "/x"))


@pytest.mark.parametrize("target", ["/sub%0d%0aX-Evil:%20x", "/sub/%0d%0a"])
def test_server_lets_no_line_break_into_its_headers(public: Path, target: str) -> None:
    with serving_files(public) as server:
        assert "X-Evil" not in fetch(server, target).headers


def test_server_ends_a_client_that_does_not_fetch_its_file(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(50_000_000)
    timeouts = Timeouts(write_timeout=1.0)
    with serving_files(tmp_path, timeouts=timeouts) as server, tcp(server) as peer:
        peer.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.read_head().startswith("HTTP/1.1 200 ")
        eventually(deadlines_end)
        with contextlib.suppress(ConnectionError):
            assert len(peer.read_to_eof()) < 50_000_000


def test_file_comes_from_the_first_directory_that_has_it(tmp_path: Path) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    for directory, names in ((own, ("index.html", "both.css")), (shared, ("both.css", "a.css"))):
        directory.mkdir()
        for name in names:
            (directory / name).write_text(f"{name} of {directory.name}")
    (shared / "only").mkdir()
    (tmp_path / "secret.css").write_text("secret")
    with serving_files(own, shared) as server:
        answers = {
            target: fetch(server, target).body
            for target in ("/", "/both.css", "/a.css", "/../secret.css", "/none.css", "/only/")
        }
    assert answers["/"] == "index.html of own"
    assert answers["/both.css"] == "both.css of own"
    assert answers["/a.css"] == "a.css of shared"
    for target in ("/../secret.css", "/none.css", "/only/"):
        assert answers[target].startswith("404 "), target


def test_server_refuses_to_start_without_one_of_its_directories(tmp_path: Path) -> None:
    missing = tmp_path / "nosuch"
    for directory in (missing, str(missing), (tmp_path, missing)):
        with pytest.raises(NotADirectoryError):
            WebSocketServer(("127.0.0.1", 0), {}, directory=directory)

"""The echo pair as processes: what they print and answer, byte for byte, and how they fail."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from chatting import leave
from peers import (
    PATIENCE,
    Peer,
    RawServer,
    after_handshake,
    eventually,
    has_ipv6,
    masked,
    request,
    unmasked,
)
from programs import ROOT, Program, answer_close, echo, name_of, run, running

PRINTED = "Send: hello, world!你好\nReceive: [hello, world!你好]\n"
SIZES = [0, 1, 125, 126, 511, 512, 513, 65535, 65536, 300_000]


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with echo() as program:
        yield program


@pytest.fixture(scope="module")
def plain() -> Iterator[Program]:
    with echo("--plain") as program:
        yield program


def environment(**changes: str) -> dict[str, str]:
    """Our environment, in which only `changes` sets a language or an encoding."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.match("LC_|LANG|PYTHONIOENCODING|PYTHONUTF8|PYTHONCOERCECLOCALE", name)
    }
    return kept | changes


# The client


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}, {"LANG": "POSIX"}, {"LC_ALL": "C.UTF-8"}])
def test_client_prints_the_lines_of_the_original(server: Program, locale: dict[str, str]) -> None:
    ended = run("echo_client.py", f"{server.ws_url}/echo", env=environment(**locale))
    assert ended.stdout.decode() == PRINTED
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_client_and_server_have_the_same_default_address() -> None:
    usage = run("echo_client.py", "--help").stdout + run("echo_server.py", "--help").stdout
    assert b"URL" in usage and b"8080" in usage
    source = (ROOT / "echo_client.py").read_text(encoding="utf-8")
    assert '"ws://127.0.0.1:8080/echo"' in source and '"hello, world!你好"' in source


@pytest.mark.parametrize(
    "message", ["", "a", "[x]", "a\tb \\n", "👩‍🚀 🤖 <b>&amp;</b>", "x" * 50_000]
)
def test_client_sends_the_message_it_is_given(server: Program, message: str) -> None:
    ended = run("echo_client.py", f"{server.ws_url}/echo", message)
    assert ended.stdout.decode() == f"Send: {message}\nReceive: [{message}]\n"
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_client_prints_control_characters_as_escapes(server: Program) -> None:
    ended = run("echo_client.py", f"{server.ws_url}/echo", "two\nlines \x1b[2J\x9b")
    shown = "two\\nlines \\x1b[2J\\x9b"
    assert ended.stdout.decode() == f"Send: {shown}\nReceive: [{shown}]\n"
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_client_sends_one_masked_text_frame_and_closes_with_1000() -> None:
    def script(peer: Peer) -> None:
        first, payload, key = peer.read_frame_and_key()
        assert (first, payload) == (0x81, b"hello, world!\xe4\xbd\xa0\xe5\xa5\xbd")
        assert key is not None
        peer.send(unmasked(0x81, b"[hello, world!\xe4\xbd\xa0\xe5\xa5\xbd]"))
        assert peer.read_frame() == (0x88, b"\x03\xe8")
        peer.send(unmasked(0x88, b"\x03\xe8"))

    with after_handshake(script) as raw:
        ended = run("echo_client.py", raw.url)
    assert ended.stdout.decode() == PRINTED
    assert ended.returncode == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST", "[::1]"])
def test_client_sends_the_servers_own_origin(host: str) -> None:
    def script(peer: Peer) -> None:
        heads.append(peer.read_head())

    heads: list[str] = []
    address = "::1" if host == "[::1]" else "127.0.0.1"
    if address == "::1" and not has_ipv6():
        pytest.skip("this machine has no ::1")
    with RawServer(script, address) as raw:
        run("echo_client.py", f"ws://{host}:{raw.port}/echo?a")
    assert f"\r\nOrigin: http://{host.lower()}:{raw.port}\r\n" in heads[0]


def test_client_prints_a_binary_answer_as_text() -> None:
    def script(peer: Peer) -> None:
        peer.read_frame()
        peer.send(unmasked(0x82, b"caf\xc3\xa9 \xff"))
        peer.send(unmasked(0x88, peer.read_frame().payload))

    with after_handshake(script) as raw:
        ended = run("echo_client.py", raw.url, "x")
    assert ended.stdout.decode() == "Send: x\nReceive: café \ufffd\n"
    assert ended.returncode == 0


def test_client_whose_terminal_cannot_show_the_answer_prints_what_it_can(server: Program) -> None:
    env = environment(PYTHONIOENCODING="latin-1")
    ended = run("echo_client.py", f"{server.ws_url}/echo", env=env)
    assert ended.returncode == 0
    assert ended.stderr == b""
    lines = ended.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(b"Send: hello, world!")
    assert lines[1].startswith(b"Receive: [hello, world!") and lines[1].endswith(b"]")


def test_client_whose_terminal_cannot_show_the_default_message_prints_its_help() -> None:
    ended = run("echo_client.py", "--help", env=environment(PYTHONIOENCODING="ascii"))
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"hello, world!\\u4f60\\u597d" in ended.stdout


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/echo",
        "127.0.0.1:8080/echo",
        "ws://",
        "ws://:80/",
        "ws://127.0.0.1:many/",
        "ws://127.0.0.1:65536/",
        "ws://127.0.0.1:0/",
        "ws://127.0.0.1/#fragment",
        "ws://[::1/",
        "ws://a..b/",
        f"ws://{'a' * 64}.example/",
        "ws://127.0.0.1/with space",
        "",
    ],
)
def test_client_says_in_one_line_that_the_url_is_bad(url: str) -> None:
    check_failure(run("echo_client.py", url), "")


def check_failure(ended: "subprocess.CompletedProcess[bytes]", words: str) -> None:
    """It ended with 1, and with one line on stderr in which the pattern `words` is found."""
    assert ended.returncode == 1
    error = ended.stderr.decode()
    assert error.endswith("\n") and len(error.splitlines()) == 1, error
    assert re.search(words, error), error
    assert "Receive" not in ended.stdout.decode()


def test_client_says_in_one_line_that_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ended = run("echo_client.py", f"ws://127.0.0.1:{port}/echo")
    check_failure(ended, f"127.0.0.1:{port}.*refused")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", "301"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "200 OK: <html>$"),
        (b"HTTP/1.1 400 \x1b[2J\r\n\r\nno\nentry\x9b", r"400 \\x1b\[2J: no entry"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "Upgrade"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP"),
        (b"", "ended|reset|closed"),
        (b"HTTP/1.1 101 Switch", "ended|reset|closed"),
    ],
)
def test_client_says_in_one_line_that_it_is_refused(answer: bytes, words: str) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(answer)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.read_to_eof()

    with RawServer(script) as raw:
        ended = run("echo_client.py", raw.url)
    check_failure(ended, words)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (unmasked(0x88, b"\x03\xe8"), "1000"),
        (unmasked(0x88, b"\x03\xf0no entry"), "1008 no entry"),
        (unmasked(0x88, b"\x03\xf0no\x1b[2J\nentry"), r"1008 no\\x1b\[2J\\nentry$"),
        (unmasked(0x88), "1005"),
        (b"", "1006"),
        (b"\x81\x05he", "1006"),
    ],
)
def test_client_says_in_one_line_that_the_server_closed(frames: bytes, words: str) -> None:
    def script(peer: Peer) -> None:
        peer.read_frame()
        peer.send(frames)
        if frames[:1] == b"\x88":
            assert peer.read_frame().first == 0x88
        peer.sock.shutdown(socket.SHUT_WR)
        peer.read_to_eof()

    with after_handshake(script) as raw:
        ended = run("echo_client.py", raw.url)
    check_failure(ended, words)
    assert ended.stdout.decode() == "Send: hello, world!你好\n"


def test_client_says_in_one_line_that_the_server_broke_the_protocol() -> None:
    def script(peer: Peer) -> None:
        peer.read_frame()
        peer.send(b"\x83\x00")
        first, payload = peer.read_frame()
        assert (first, payload[:2]) == (0x88, b"\x03\xea")
        peer.read_to_eof()

    with after_handshake(script) as raw:
        ended = run("echo_client.py", raw.url)
    check_failure(ended, "opcode")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full of Linux")
def test_client_that_cannot_print_says_so_and_does_not_blame_the_server(server: Program) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, str(ROOT / "echo_client.py"), f"{server.ws_url}/echo"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode != 0
    assert ended.stderr.startswith(b"cannot print: No space left on device\n")
    assert b"Traceback" not in ended.stderr


def test_client_says_in_one_line_that_its_message_is_not_text(server: Program) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "echo_client.py"), f"{server.ws_url}/echo", b"\xff"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == b"cannot send what is not text: '\\udcff'\n"


def test_client_that_is_interrupted_shows_no_traceback() -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_frame()
        asked.set()
        with contextlib.suppress(EOFError, OSError):
            peer.send(unmasked(0x88, peer.read_frame().payload))

    with after_handshake(script) as raw:
        # A shell's background job ignores this signal, and the client would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            client = subprocess.Popen(
                [sys.executable, str(ROOT / "echo_client.py"), raw.url],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            assert asked.wait(PATIENCE)
            error = interrupt(client)
        finally:
            client.kill()
            client.communicate()
    assert b"Traceback" not in error
    assert client.returncode not in (0, None)


def interrupt(process: "subprocess.Popen[bytes]") -> bytes:
    """Press Ctrl+C until the process ends; what it wrote to stderr.

    Python looks for signals before it begins to wait for the network. One that comes between the
    two is noticed only when the wait ends, or when a second one interrupts it.
    """
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=PATIENCE / 4)[1]
    raise AssertionError("it goes on")


@pytest.mark.slow
def test_client_does_not_wait_for_ever_for_a_server_that_says_nothing() -> None:
    def script(peer: Peer) -> None:
        peer.sock.settimeout(None)
        with contextlib.suppress(ConnectionError):
            peer.read_to_eof()

    with RawServer(script) as raw:
        ended = run("echo_client.py", raw.url)
    check_failure(ended, "too long|timed out")


# The server


def test_server_prints_what_it_receives_and_sends() -> None:
    with echo() as server, server.join("/echo") as peer:
        peer.send(masked(0x81, "hello, world!你好".encode()))
        assert peer.read_frame() == (0x81, "[hello, world!你好]".encode())
        assert eventually(lambda: "Send" in server.output)
        lines = server.output.partition("\n")[2]
        assert lines == "Receive: hello, world!你好\nSend: [hello, world!你好]\n"


def test_server_prints_the_beginning_of_a_long_message_and_answers_all_of_it() -> None:
    """Each NUL is printed as four characters: of a whole message of megabytes, it would be many."""
    text = b"\x00" * 1_000_000
    with echo() as server, server.join("/echo") as peer:
        peer.send(masked(0x81, text))
        assert peer.read_frame() == (0x81, b"[" + text + b"]")
        assert eventually(lambda: "Send" in server.output)
        received, sent = server.output.splitlines()[1:]
        shown = "\\x00" * 10_000
        assert received == f"Receive: {shown}… (990000 more characters)"
        assert sent == f"Send: [{shown}… (990000 more characters)]"


def test_server_answers_until_the_client_closes(server: Program) -> None:
    with server.join("/echo") as peer:
        for i in range(100):
            peer.send(masked(0x81, b"number %d" % i))
            assert peer.read_frame() == (0x81, b"[number %d]" % i)
        peer.send(masked(0x81, b"last") + masked(0x88, b"\x0f\xa1done"))
        assert peer.read_frame() == (0x81, b"[last]")
        assert peer.read_close() == (4001, "")


@pytest.mark.parametrize("size", SIZES)
def test_server_answers_messages_of_every_size_whole(server: Program, size: int) -> None:
    text = b"0123456789abcdef" * (size // 16) + b"x" * (size % 16)
    with server.join("/echo") as peer:
        peer.send(masked(0x81, text))
        assert peer.read_frame() == (0x81, b"[" + text + b"]")
        leave(peer)


def test_server_answers_a_fragmented_message_in_one_frame(server: Program) -> None:
    with server.join("/echo") as peer:
        halves = masked(0x01, b"hel") + masked(0x89, b"p") + masked(0x80, b"lo")
        for i in range(len(halves)):
            peer.send(halves[i : i + 1])
        assert peer.read_frame() == (0x8A, b"p")
        assert peer.read_frame() == (0x81, b"[hello]")


def test_server_answers_binary_data_with_text_as_the_original_does(server: Program) -> None:
    with server.join("/echo") as peer:
        peer.send(masked(0x82, "你好".encode()))
        assert peer.read_frame() == (0x81, "[你好]".encode())
        peer.send(masked(0x82, b"\xff\x00"))
        assert peer.read_frame() == (0x81, b"[\xef\xbf\xbd\x00]")


def test_server_keeps_clients_apart(server: Program) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.join("/echo")) for _ in range(10)]
        for i, peer in enumerate(peers):
            peer.send(masked(0x81, b"from %d" % i))
        for i, peer in reversed(list(enumerate(peers))):
            assert peer.read_frame() == (0x81, b"[from %d]" % i)
            assert peer.is_silent(0.01)


@pytest.mark.parametrize("opcode", [0x81, 0x82])
@pytest.mark.parametrize("size", SIZES)
def test_plain_server_sends_back_exactly_what_came(plain: Program, opcode: int, size: int) -> None:
    payload = bytes(range(1, 127)) * (size // 126) + b"x" * (size % 126)
    with plain.join("/echo") as peer:
        peer.send(masked(opcode, payload))
        assert peer.read_frame() == (opcode, payload)
        leave(peer)


def test_plain_server_prints_its_url_and_nothing_else() -> None:
    with echo("--plain") as plain, plain.join("/echo") as peer:
        peer.send(masked(0x81, b"secret"))
        assert peer.read_frame() == (0x81, b"secret")
        peer.send(masked(0x82, b"\xff\xfe"))
        assert peer.read_frame() == (0x82, b"\xff\xfe")
        leave(peer)
        assert len(plain.output.splitlines()) == 1


def test_server_whose_terminal_cannot_show_a_message_answers_it() -> None:
    with echo(env=environment(PYTHONIOENCODING="ascii")) as server, server.join("/echo") as peer:
        peer.send(masked(0x81, "你好".encode()))
        assert peer.read_frame() == (0x81, "[你好]".encode())


def test_server_closes_with_1007_after_text_that_is_not_utf8(server: Program) -> None:
    with server.join("/echo") as peer:
        peer.send(masked(0x81, b"\xff"))
        code, reason = peer.read_close()
        assert code == 1007
        assert reason


def test_server_closes_with_1009_after_a_message_that_is_too_big() -> None:
    with echo("--max-message", "10") as server, server.join("/echo") as peer:
        peer.send(masked(0x81, b"x" * 10))
        assert peer.read_frame() == (0x81, b"[xxxxxxxxxx]")
        peer.send(masked(0x81, b"x" * 11))
        assert peer.read_close()[0] == 1009


def test_server_serves_its_page_and_nothing_else(server: Program) -> None:
    def get(target: str) -> tuple[int, str]:
        host = f"127.0.0.1:{server.server_port}"
        return server.answer(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    status, text = get("/")
    assert status == 200
    assert "<title>Echo</title>" in text
    assert re.search("^Content-Security-Policy: .*default-src", text, re.MULTILINE)
    for target in ("/echo_server.py", "/../app.js", "/%2e%2e/app.js", "/ws", "/app.js"):
        assert get(target)[0] == 404
    assert get("/echo")[0] == 426


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [[], ["--plain"]])
def test_signal_closes_everyone_with_1001_and_ends_it_with_0(
    number: int, options: list[str]
) -> None:
    with echo(*options) as server, server.join("/echo") as peer:
        server.signal(number)
        assert answer_close(peer)[0] == 1001
        assert server.wait() == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    "options",
    [["--nonsense"], ["--port", "many"], ["--port", "65536"], ["--max-message", "0"],
     ["--max-message", "-1"], ["--host", "192.0.2.1"], ["--host", "a..b"]],
)  # fmt: skip
def test_bad_option_ends_the_server_with_one_clear_line(options: list[str]) -> None:
    ended = run("echo_server.py", *options)
    assert ended.returncode in (1, 2)
    assert ended.stdout == b""
    lines = [line for line in ended.stderr.decode().splitlines() if line[:1] not in " u"]
    assert len(lines) == 1, ended.stderr
    assert options[0] in lines[0] or options[-1] in lines[0]


@pytest.mark.parametrize("script", ["echo_server.py", "chat_server.py"])
@pytest.mark.parametrize("option", ["--host", "--allow-origin", "--allow-host", "--trust-proxy"])
def test_empty_option_ends_the_server_with_one_line(script: str, option: str) -> None:
    ended = run(script, "--port", "0", option, "")
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert f"argument {option}: " in ended.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize(
    "options",
    [
        ["--allow-origin", "foo"],
        ["--allow-host", "http://h"],
        ["--allow-host", "*"],
        ["--trust-proxy", "localhost"],
        ["--trust-proxy", "10.0.0.1/8"],
    ],
)
@pytest.mark.parametrize("script", ["echo_server.py", "chat_server.py"])
def test_servers_say_in_one_line_that_an_origin_a_host_or_a_proxy_is_not_valid(
    script: str, options: list[str]
) -> None:
    ended = run(script, *options)
    last = ended.stderr.decode().splitlines()[-1]
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert f"argument {options[0]}: '{options[1]}' is not a" in last


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": "https://Evil.example:443/"},
        {"Origin": "http://evil.example:8080"},
        {"Host": "evil.example:8080"},
        {"Host": "[2001:db8::7]:8080"},
        {"Origin": "http://[2001:db8::7]:8080"},
        {"Host": "2001:db8::7"},
        {"Host": "127.0.0.9:8080"},
    ],
)
@pytest.mark.parametrize("script", ["echo_server.py", "chat_server.py"])
def test_servers_let_in_what_they_refused_when_they_are_started_as_they_advised(
    script: str, changes: dict[str, str]
) -> None:
    path = "/echo" if script == "echo_server.py" else "/ws"
    with running(script) as strict:
        status, text = strict.answer(request(cast(Any, strict), path, **changes))
        assert status == 403
        advice = re.search(r"; (--allow-.*) allows it\n$", text)
        assert advice, text
        eventually(lambda: f"{advice[1]} allows it" in strict.log)
    with running(script, *shlex.split(advice[1])) as lax, lax.join(path, **changes):
        pass


def test_server_on_another_address_of_loopback_prints_a_url_that_works() -> None:
    with echo("--host", "127.0.0.2") as server:
        assert server.url == f"http://127.0.0.2:{server.server_port}"
        with urllib.request.urlopen(server.url, timeout=PATIENCE) as page:
            assert page.status == 200


def test_port_in_use_ends_the_server_with_one_clear_line(server: Program) -> None:
    ended = run("echo_server.py", "--port", str(server.server_port))
    assert ended.returncode == 1
    assert ended.stderr.decode() == (
        f"cannot serve 127.0.0.1:{server.server_port}: Address already in use; "
        f"--port takes another port, such as {server.server_port + 1}\n"
    )


def test_client_that_leaves_without_a_close_is_one_line_in_the_log(server: Program) -> None:
    log_before = len(server.log)
    peer = server.join("/echo")
    name = name_of(peer)
    peer.close()
    (line,) = eventually(lambda: server.log_lines_about(name, log_before))
    assert "1006" in line

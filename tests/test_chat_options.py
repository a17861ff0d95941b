"""The command line of the chat and what each option does, and HTTP on the same port."""

import json
import re
import shutil
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from chat.options import Options, read_options
from chatting import (
    hear,
    hear_texts,
    leave,
    read_close_past_messages,
    request_ws,
    say,
    text_frame,
)
from command_line import whole_number
from fetching import parse
from peers import eventually, masked
from programs import ROOT, Program, chat, echo, run

ID = re.compile(r"[0-9]{13}-[0-9]+")
AVATAR_OF_ADA = "cfe00dde46ef942601ffafb9e2825e802858b460e586b8305b344c1eb826357d"
AVATAR_OF_NOBODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# HTTP on the same port


def get(server: Program, target: str, **changes: str | None) -> tuple[int, str]:
    no_upgrade = ("Upgrade", "Connection", "Sec_WebSocket_Key", "Sec_WebSocket_Version")
    return server.answer(request_ws(server, target, **(dict.fromkeys(no_upgrade) | changes)))


@pytest.mark.parametrize("target", ["/", "/index.html", "/app.js", "/style.css", "/emoji.json"])
def test_page_is_served_under_a_strict_policy(server: Program, target: str) -> None:
    status, text = get(server, target)
    assert status == 200
    head, _, body = text.partition("\r\n\r\n")
    assert body
    policy = re.search(r"^Content-Security-Policy: (.*?)\r?$", head, re.MULTILINE)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


@pytest.mark.parametrize(
    "target",
    [
        "/chat_server.py",
        "/chat/history.py",
        "/../chat_server.py",
        "/%2e%2e/chat_server.py",
        "/..%2fchat_server.py",
        "//etc/passwd",
        "/ws/",
        "/WS",
        "/echo/../../chat/history.py",
        "/none",
    ],
)
def test_nothing_beside_the_page_is_served(server: Program, target: str) -> None:
    status, text = get(server, target)
    assert status == 404
    assert "import" not in text and "root:" not in text


def test_each_server_serves_its_own_page_and_not_the_other_ones(server: Program) -> None:
    folders = {"chat": server, "echo": server}
    with echo() as echo_server:
        folders["echo"] = echo_server
        for name, own in folders.items():
            (other,) = (each for each in folders.values() if each is not own)
            for path in (ROOT / "public" / name).iterdir():
                assert get(own, f"/{path.name}")[0] == 200
                assert get(other, f"/{name}/{path.name}")[0] == 404
            assert get(other, f"/{name}/")[0] == 404


def test_plain_get_of_ws_is_told_to_upgrade(server: Program) -> None:
    status, text = get(server, "/ws")
    assert status == 426
    assert "\r\nUpgrade: websocket\r\n" in text


def test_other_websocket_version_is_told_ours(server: Program) -> None:
    status, text = server.answer(request_ws(server, Sec_WebSocket_Version="8"))
    assert status == 426
    assert "\r\nSec-WebSocket-Version: 13\r\n" in text


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Connection": None}, 400),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "AAAA"}, 400),
        ({"Sec_WebSocket_Version": None}, 400),
        ({"Host": None}, 400),
    ],
)
def test_bad_handshake_gets_its_http_answer(
    server: Program, changes: dict[str, str | None], status: int
) -> None:
    assert server.answer(request_ws(server, "/ws", **changes))[0] == status


def test_post_is_not_allowed(server: Program) -> None:
    data = request_ws(server, "/").replace(b"GET", b"POST", 1)
    assert server.answer(data)[0] == 405


def test_websocket_at_another_path_is_404(server: Program) -> None:
    assert server.answer(request_ws(server, "/chat"))[0] == 404


# Command line


def test_page_of_another_site_is_refused_with_its_origin_unless_it_is_allowed() -> None:
    with chat() as server:  # of its own, as a log says the same only once in ten seconds
        status, text = server.answer(request_ws(server, Origin="https://evil.example"))
        assert status == 403
        assert "https://evil.example" in text and "--allow-origin" in text
        assert "--allow-origin" in eventually(lambda: server.log.partition("evil.example")[2])
    with chat("--allow-origin", "https://evil.example") as lax:
        with lax.join(Origin="https://evil.example") as peer:
            say(peer, "allowed")
            assert hear_texts(peer, 1) == ["allowed"]
        assert lax.answer(request_ws(lax, Origin="https://evil.example:8443"))[0] == 403
        assert lax.answer(request_ws(lax, Origin="http://evil.example"))[0] == 403


def test_own_page_and_clients_without_origin_are_let_in(server: Program) -> None:
    port = server.server_port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        with server.join(Host=host, Origin=f"http://{host}"):
            pass
    with server.join(Host=f"localhost:{port}"):
        pass
    assert server.answer(request_ws(server, Origin=f"http://localhost:{port}"))[0] == 403
    assert server.answer(request_ws(server, Origin="null"))[0] == 403


@pytest.mark.parametrize("target", ["/", "/ws"])
def test_other_host_name_is_refused_with_its_name_unless_it_is_allowed(
    server: Program, target: str
) -> None:
    status, text = server.answer(request_ws(server, target, Host="rebound.example:8000"))
    assert status == 403
    assert "rebound.example" in text and "--allow-host rebound.example" in text
    with chat("--allow-host", "chat.example") as lax:
        assert lax.answer(request_ws(lax, target, Host="rebound.example"))[0] == 403
        with lax.join(Host="chat.example"), lax.join(Host="Chat.Example:8000"):
            pass
        with lax.join():
            pass


def test_hidden_emails_are_empty_for_all_and_the_avatar_stays() -> None:
    with chat("--hide-emails") as server, server.join() as ada, server.join() as bob:
        say(ada, "guess")
        for peer in (ada, bob):
            message = hear(peer)
            assert list(message) == ["email", "username", "message", "id", "avatar"]
            assert message["email"] == ""
            assert message["avatar"] == AVATAR_OF_ADA


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], '{"hide_emails": false, "max_message": 65536}'),
        (["--hide-emails", "--max-message", "500"], '{"hide_emails": true, "max_message": 500}'),
    ],
)
def test_page_can_ask_for_the_settings_before_somebody_joins(options: list[str], text: str) -> None:
    with chat(*options) as server:
        request = f"GET /settings.json HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n"
        answer = parse(server.answer(request.encode())[1])
    assert (answer.status, answer.body) == (200, text)
    assert answer.headers.get_all("Content-Type") == ["application/json"]
    assert answer.headers.get_all("Cache-Control") == ["no-store"]
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")


def test_max_message_is_the_payload_that_still_fits() -> None:
    with chat("--max-message", "100") as server:
        with server.join() as ada:
            ada.send(text_frame(json.dumps({"message": "x" * 85})))
            assert hear_texts(ada, 1) == ["x" * 85]
        with server.join() as ada:
            ada.send(text_frame(json.dumps({"message": "x" * 86})))
            first, payload = ada.read_frame()
            assert (first, payload[:2]) == (0x88, b"\x03\xf1")
            assert ada.read_to_eof() == b""


def test_client_beyond_max_clients_gets_503_and_a_place_when_one_leaves() -> None:
    with chat("--max-clients", "2") as server:
        with server.join() as ada, server.join() as bob:
            status, text = server.answer(request_ws(server))
            assert status == 503
            assert "full" in text
            assert get(server, "/")[0] == 200
            say(ada, "still here")
            assert hear_texts(bob, 1) == ["still here"]
            leave(bob)
            assert eventually(lambda: place_is_free(server))
        eventually(lambda: place_is_free(server))


@pytest.mark.parametrize(("program", "path"), [(chat, "/ws"), (echo, "/echo")])
def test_client_beyond_max_per_address_gets_429_and_the_others_stay(
    program: Callable[..., AbstractContextManager[Program]], path: str
) -> None:
    with program("--max-per-address", "2") as server:
        with server.join(path) as ada, server.join(path):
            status, text = server.answer(request_ws(server, path))
            assert status == 429
            assert text.endswith(": there are 2 connections from 127.0.0.1 already\n")
            assert server.answer(request_ws(server, "/", Upgrade=None))[0] == 200
            ada.send(masked(0x89, b"x"))
            assert ada.read_frame() == (0x8A, b"x")


def place_is_free(server: Program) -> bool:
    with server.tcp() as peer:
        peer.send(request_ws(server))
        return peer.read_head().startswith("HTTP/1.1 101 ")


def test_fast_client_is_slowed_and_loses_nothing() -> None:
    with chat("--rate", "5") as server, server.join() as fast, server.join() as other:
        texts = [f"number {i}" for i in range(26)]
        started = time.monotonic()
        fast.send(b"".join(text_frame(json.dumps({"message": text})) for text in texts))
        assert hear_texts(other, 26) == texts
        # 15 are the free burst of three seconds; of the others only five a second may pass
        assert time.monotonic() - started >= 1.9
        assert hear_texts(fast, 26) == texts


def test_everything_that_a_fast_client_said_before_it_left_is_shown() -> None:
    with chat("--rate", "20") as server, server.join() as fast, server.join() as other:
        texts = [f"number {i}" for i in range(80)]
        frames = [text_frame(json.dumps({"message": text})) for text in texts]
        fast.send(b"".join(frames) + masked(0x88, b"\x03\xe8"))
        assert hear_texts(other, 80) == texts
        # Its Close is answered as soon as its last message is in the queue. So it may itself miss
        # those that are sent after that, but none between others.
        heard, close = read_close_past_messages(fast)
        assert close == (0x88, b"\x03\xe8")
        assert [each["message"] for each in heard] == texts[: len(heard)]


def test_fast_client_slows_nobody_else() -> None:
    with chat("--rate", "1") as server, server.join() as fast, server.join() as other:
        fast.send(b"".join(text_frame(json.dumps({"message": str(i)})) for i in range(30)))
        assert hear_texts(other, 3) == ["0", "1", "2"]
        say(other, "mine")
        heard = [hear(other)["message"]]
        while heard[-1] != "mine":
            heard.append(hear(other)["message"])
        assert "29" not in heard


def test_first_message_is_free_at_any_rate() -> None:
    with chat("--rate", "0.1") as server, server.join() as ada:
        say(ada, "first")
        assert hear_texts(ada, 1) == ["first"]


@pytest.mark.parametrize(
    "options",
    [
        ["--nonsense"],
        ["a word"],
        ["--port", "many"],
        ["--port", "65536"],
        ["--port", "-1"],
        ["--rate", "-1"],
        ["--rate", "fast"],
        ["--rate", "nan"],
        ["--rate", "1e-10"],
        ["--rate", "0.09"],
        ["--rate", "1e10"],
        ["--max-message", "0"],
        ["--max-message", "1.5"],
        ["--max-clients", "0"],
        ["--max-clients", "-2"],
        ["--host", "192.0.2.1"],
        ["--host", "a..b"],
        ["--host", "::1::"],
        ["--allow-origin"],
        ["--trust-proxy", "proxy.example"],
        ["--history", ""],
        ["--redis", ""],
        ["--keep", "-1"],
        ["--max-message", "16777217"],
        ["--keep-bytes", "-1"],
        ["--keep-bytes", "9" * 20],
        ["--max-clients", "9" * 20],
        ["--max-per-address", "0"],
        ["--max-per-address", "many"],
    ],
)
def test_bad_option_ends_it_with_one_clear_line(options: list[str]) -> None:
    ended = run("chat_server.py", *options)
    check_complaint(ended.returncode, ended.stdout, ended.stderr)
    last_line = ended.stderr.decode().splitlines()[-1]
    assert options[0] in last_line or options[-1] in last_line


def test_error_for_a_rate_out_of_range_names_the_range() -> None:
    last_line = run("chat_server.py", "--rate", "1e-10").stderr.decode().splitlines()[-1]
    words = "--rate must be 0, for no limit, or from 0.1 to 1000000000"
    assert last_line == f"chat_server.py: error: {words}"


@pytest.mark.parametrize(
    ("script", "option", "most"),
    [
        ("chat_server.py", "--max-message", 16777216),
        ("chat_server.py", "--max-clients", 9007199254740992),
        ("chat_server.py", "--max-per-address", 9007199254740992),
        ("echo_server.py", "--max-message", 9007199254740992),
    ],
)
def test_error_for_a_count_out_of_range_names_the_range(
    script: str, option: str, most: int
) -> None:
    last_line = run(script, option, str(most + 1)).stderr.decode().splitlines()[-1]
    words = f"it must be a whole number from 1 to {most}, not '{most + 1}'"
    assert last_line == f"{script}: error: argument {option}: {words}"


@pytest.mark.parametrize("option", ["--keep", "--keep-bytes"])
@pytest.mark.parametrize("value", ["-1", "9007199254740993"])
def test_error_for_what_is_to_be_kept_says_that_0_is_no_limit(option: str, value: str) -> None:
    last_line = run("chat_server.py", option, value).stderr.decode().splitlines()[-1]
    words = f"a whole number from 1 to 9007199254740992, or 0 for no limit, not '{value}'"
    assert last_line == f"chat_server.py: error: argument {option}: it must be {words}"


@pytest.mark.parametrize("text", ["0", "-1", "11", "1.5", "1e1", "many", "", "0x5"])
def test_whole_number_refuses_what_is_none_or_out_of_range(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"from 1 to 10, not '{text}'"):
        whole_number(10)(text)


@pytest.mark.parametrize("text", ["-1", "11", "1.5", "many", ""])
def test_whole_number_or_0_refuses_what_is_neither(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"from 1 to 10, or 0 for no limit, not '{text}'"):
        whole_number(10, zero_is_no_limit=True)(text)


def check_complaint(status: int, stdout: bytes, stderr: bytes) -> None:
    """One line, which argparse introduces with its usage."""
    lines = [line for line in stderr.splitlines() if not line.startswith((b"usage:", b" "))]
    assert len(lines) == 1, stderr
    assert b"Traceback" not in stderr
    assert status in (1, 2)
    assert stdout == b""


def test_port_in_use_ends_it_with_one_clear_line(server: Program) -> None:
    port = str(server.server_port)
    ended = run("chat_server.py", "--port", port)
    check_complaint(ended.returncode, ended.stdout, ended.stderr)
    assert ended.returncode == 1
    assert port.encode() in ended.stderr and b"in use" in ended.stderr


def test_missing_page_ends_it_with_one_clear_line(tmp_path: Path) -> None:
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)
    for package in ("chat", "rfc6455"):
        shutil.copytree(ROOT / package, tmp_path / package)
    ended = run("chat_server.py", "--port", "0", root=tmp_path)
    check_complaint(ended.returncode, ended.stdout, ended.stderr)
    assert ended.returncode == 1
    assert b"public" in ended.stderr


def test_help_names_every_option() -> None:
    ended = run("chat_server.py", "--help")
    assert (ended.returncode, ended.stderr) == (0, b"")
    for (
        option
    ) in "host port rate max-message max-clients allow-origin allow-host trust-proxy".split():
        assert f"--{option} ".encode() in ended.stdout
    assert b"--hide-emails" in ended.stdout
    words = " ".join(ended.stdout.decode().split())
    for default in ("20", "65536", "10000", "100000", "100000000", "127.0.0.1", "8000"):
        assert f"(default: {default})" in words
    assert "--max-clients N how many clients can be in the chat at once" in words


@pytest.mark.parametrize("script", ["chat_server.py", "echo_server.py"])
def test_help_tells_the_default_of_every_option(script: str) -> None:
    text = " ".join(run(script, "--help").stdout.decode().partition("options:")[2].split())
    parts = re.split(r" (?=--[a-z-]+ (?:[A-Z]+ )?[a-z])", text)
    assert len(parts) > 5
    for part in parts[2:]:  # the first two are those of --help
        assert "(default: " in part


def test_help_tells_the_range_of_every_number() -> None:
    words = " ".join(run("chat_server.py", "--help").stdout.decode().split())
    # --max-per-address, --max-clients, --keep, --keep-bytes
    assert words.count("from 1 to 9007199254740992") == 4
    assert "from 1 to 16777216 (default: 65536)" in words
    assert "from 0.1 to 1000000000, or 0 for no limit (default: 20)" in words
    assert "from 1 to 65535; 0 picks one that is free (default: 8000)" in words


# The options as a value


def test_options_without_a_command_line_are_the_defaults_of_the_class() -> None:
    assert read_options([]) == Options(allow_origin=[], allow_host=[], trust_proxy=[])


def test_each_flag_is_a_field_of_the_options() -> None:
    arguments = (
        "--host 127.0.0.2 --port 1 --allow-origin https://a.example --allow-origin * "
        "--allow-host b.example --trust-proxy 10.1.2.3 --trust-proxy 10.2.0.0/16 "
        "--history file --keep 2 --keep-bytes 3 --rate 4.5 "
        "--max-message 5 --max-clients 6 --max-per-address 7 --hide-emails --all-cores --deflate"
    )
    assert read_options(arguments.split()) == Options(
        host="127.0.0.2",
        port=1,
        allow_origin=["https://a.example", "*"],
        allow_host=["b.example"],
        trust_proxy=["10.1.2.3/32", "10.2.0.0/16"],
        history="file",
        keep=2,
        keep_bytes=3,
        redis=None,
        rate=4.5,
        max_message=5,
        max_clients=6,
        max_per_address=7,
        hide_emails=True,
        all_cores=True,
        deflate=True,
    )
    assert read_options(["--redis", "redis://r.example"]).redis == "redis://r.example"


def test_history_and_redis_cannot_be_used_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_options(["--history", "file", "--redis", "redis://r.example"])
    assert ended.value.code == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert "--history and --redis cannot be used together" in last_line


@pytest.mark.parametrize(
    "arguments",
    [
        "--rate 0.1",
        "--rate 1e9",
        "--rate 0",
        "--max-message 1",
        "--max-message 16777216",
        "--max-clients 1",
        "--max-clients 9007199254740992",
        "--max-per-address 1",
        "--max-per-address 9007199254740992",
        "--keep 1",
        "--keep 9007199254740992",
        "--keep 0",
        "--keep-bytes 1",
        "--keep-bytes 9007199254740992",
        "--keep-bytes 0",
    ],
)
def test_option_at_the_edge_of_its_range_is_taken(arguments: str) -> None:
    read_options(arguments.split())

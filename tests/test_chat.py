"""The chat as a process, its clients bare sockets: the wire, bad input, limits, and the end."""

import argparse
import contextlib
import itertools
import json
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import chat_server
from chat.entry import PAGE_CHARACTERS, LogFailed, Page, size_of
from chat.history import ChatLog
from chat.resume import Joined
from peers import PATIENCE, Peer, eventually, masked, request
from programs import (
    EXIT_TIME,
    NOISE,
    ROOT,
    Program,
    answer_close,
    await_handler,
    chat,
    echo,
    hear,
    hear_texts,
    leave,
    name_of,
    run,
    say,
)
from rfc6455 import Close
from rfc6455.stream import MAX_BACKLOG

ID = re.compile(r"[0-9]{13}-[0-9]+")
AVATAR_OF_ADA = "cfe00dde46ef942601ffafb9e2825e802858b460e586b8305b344c1eb826357d"
AVATAR_OF_NOBODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    """For tests that leave nothing said that they have not heard."""
    with chat() as program:
        yield program


def text_frame(text: str) -> bytes:
    return masked(0x81, text.encode())


# The wire


def test_client_hears_its_own_message_in_the_bytes_of_the_original_and_then_id_and_avatar(
    server: Program,
) -> None:
    with server.join() as ada:
        ada.send(text_frame('{"email":"ada@example.org","username":"Ada","message":"Good day"}'))
        first, payload = ada.read_frame()
    assert first == 0x81
    start, numbered, rest = payload.decode().partition(',"id":"')
    assert numbered
    assert start == '{"email":"ada@example.org","username":"Ada","message":"Good day"'
    number, _, rest = rest.partition('"')
    assert ID.fullmatch(number)
    assert rest == f',"avatar":"{AVATAR_OF_ADA}"}}'


def test_everyone_hears_a_message_in_the_same_bytes(server: Program) -> None:
    with server.join() as ada, server.join() as bob, server.join("/ws") as eve:
        say(ada, "to all")
        frames = [peer.read_frame() for peer in (ada, bob, eve)]
    assert frames[0] == frames[1] == frames[2]


@pytest.mark.parametrize("key", ["a", "k" * 64, "键" * 64, "0", "<b>"])
def test_key_comes_back_last_and_unchanged(key: str) -> None:
    with chat() as server, server.join() as ada:
        say(ada, "with a key", key=key)
        message = hear(ada)
    assert list(message) == ["email", "username", "message", "id", "avatar", "key"]
    assert message["key"] == key


def test_message_whose_key_was_logged_comes_once_more_to_who_says_it_again_and_to_nobody_else(
    server: Program,
) -> None:
    with server.join() as ada, server.join() as bob:
        say(ada, "once", key="twice-sent")
        copy = ada.read_frame()
        for _ in range(2):
            say(ada, "or something else", key="twice-sent")
            assert ada.read_frame() == copy
        say(bob, "by another", key="twice-sent")
        say(ada, "after")
        assert hear_texts(ada, 1) == ["after"]
        assert bob.read_frame() == copy
        assert sorted(hear_texts(bob, 2)) == ["after", "once"]


def test_key_that_comes_many_times_in_one_piece_is_answered_as_often(server: Program) -> None:
    with server.join() as ada:
        ada.send(text_frame('{"message": "the one", "key": "in one piece"}') * 20)
        copies = [hear(ada) for _ in range(20)]
        assert all(copy == copies[0] for copy in copies)
        say(ada, "next")
        assert hear_texts(ada, 1) == ["next"]


def test_empty_key_is_none(server: Program) -> None:
    with server.join() as ada:
        for text in ("first", "second"):
            say(ada, text, key="")
            message = hear(ada)
            assert message["message"] == text
            assert "key" not in message


def test_ids_rise_strictly_and_tell_the_time(server: Program) -> None:
    with server.join() as ada:
        before = time.time_ns() // 1_000_000
        for i in range(300):
            say(ada, str(i))
        ids = [hear(ada)["id"] for _ in range(300)]
        after = time.time_ns() // 1_000_000
    assert all(ID.fullmatch(number) for number in ids)
    pairs = [tuple(int(part) for part in number.split("-")) for number in ids]
    assert all(a < b for a, b in itertools.pairwise(pairs))
    assert before <= pairs[0][0] <= pairs[-1][0] <= after


def test_each_message_is_one_json_object_in_one_frame_however_many_come_at_once(
    server: Program,
) -> None:
    texts = [f"number {i} " + "x" * (i % 200) for i in range(500)]
    with server.join() as ada:
        ada.send(b"".join(text_frame(json.dumps({"message": text})) for text in texts))
        assert hear_texts(ada, 500) == texts


def test_client_of_plain_ws_gets_no_history_and_no_events() -> None:
    with chat() as server, server.join() as ada:
        say(ada, "before")
        hear(ada)
        with server.join() as bob, server.join() as eve:
            leave(eve)
            assert bob.is_silent()
            say(ada, "after")
            assert hear_texts(bob, 1) == ["after"]
            assert hear_texts(ada, 1) == ["after"]
            assert ada.is_silent()


EMPTY = {"email": "", "username": "", "message": ""}


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ("{}", EMPTY),
        (' {\n"message" : "spaced out" }\t', EMPTY | {"message": "spaced out"}),
        ('{"username": "Ada"}', EMPTY | {"username": "Ada"}),
        ('{"email": null, "username": null, "message": null, "key": null}', EMPTY),
        ('{"message": "m", "extra": 1, "id": "9-9", "avatar": [{}], "event": "x"}',
         EMPTY | {"message": "m"}),
        ('{"message": "last", "username": "first", "email": "middle"}',
         {"email": "middle", "username": "first", "message": "last"}),
        ('{"Message": "m", "USERNAME": "u", "eMail": "e"}',
         {"email": "e", "username": "u", "message": "m"}),
        ('{"message": "a", "MESSAGE": "b"}', EMPTY | {"message": "b"}),
        ('{"MESSAGE": "a", "message": "b"}', EMPTY | {"message": "b"}),
        ('{"message": "a", "message": "b"}', EMPTY | {"message": "b"}),
        ('{"message": "a", "message": null, "Message": null}', EMPTY | {"message": "a"}),
        ('{"me\u017f\u017fage": "long s"}', EMPTY | {"message": "long s"}),
        ('{"me\\u017fsage": "escaped"}', EMPTY | {"message": "escaped"}),
        ('{"me\u00dfage": "sharp s", "message ": "blank", "\u0130": "dot"}', EMPTY),
        ('{"message": "m", "x": %s}' % ("7" * 5000), EMPTY | {"message": "m"}),
        ('{"message": "m", "x": -1e999, "y": [[{"message": 5}]]}', EMPTY | {"message": "m"}),
    ],
)  # fmt: skip
def test_missing_fields_are_empty_and_unknown_ones_dropped(
    server: Program, sent: str, fields: dict[str, str]
) -> None:
    with server.join() as ada:
        ada.send(text_frame(sent))
        message = hear(ada)
    assert list(message) == ["email", "username", "message", "id", "avatar"]
    assert {name: message[name] for name in fields} == fields
    assert "key" not in message
    assert ID.fullmatch(message["id"])
    if not fields["email"]:
        assert message["avatar"] == AVATAR_OF_NOBODY


@pytest.mark.parametrize("name", ["Key", "KEY", "\u212aey", "kEy"])
def test_key_is_no_field_of_the_original_and_has_one_spelling(server: Program, name: str) -> None:
    with server.join() as ada:
        say(ada, "no key", **{name: "spelled differently"})
        assert "key" not in hear(ada)


@pytest.mark.parametrize(("name", "limit"), [("email", 254), ("username", 64)])
@pytest.mark.parametrize("character", ["x", "好", "🤖"])
def test_field_as_long_as_it_may_be_comes_back_whole(
    server: Program, name: str, limit: int, character: str
) -> None:
    with server.join() as ada:
        say(ada, "long", **{name: character * limit})
        assert hear(ada)[name] == character * limit


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("email", "email has more than 254 characters"),
        ("username", "username has more than 64 characters"),
        ("Username", "username has more than 64 characters"),
    ],
)
def test_field_with_one_character_too_many_is_named_in_the_reason(
    server: Program, name: str, reason: str
) -> None:
    with server.join() as ada:
        say(ada, "too long", **{name: "好" * (255 if name == "email" else 65)})
        assert answer_close(ada) == (1008, reason)


@pytest.mark.parametrize(
    "text",
    [
        "hello, world!你好",
        "żółw, Ærøskøbing, ﷽, עברית, \u202eright to left",
        "🤖👩‍👩‍👧‍👦🏴\U000e0067\U000e007f",
        "<script>alert('&amp;')</script> & \"quoted\" \\ /",
        "\u2028\u2029 \ufeff \u0000 \u0001 \u007f \uffff \U0010ffff",
        "tabs\tand\nlines\r\n",
        ":robot: %00 %s {0} $x `id` ' OR 1=1; --",
        "   ",
    ],
)
def test_text_comes_back_unchanged_in_every_field(server: Program, text: str) -> None:
    with server.join() as ada:
        sent = {"email": text, "username": text, "message": text}
        ada.send(text_frame(json.dumps(sent)))
        message = hear(ada)
        assert {name: message[name] for name in sent} == sent
        ada.send(text_frame(json.dumps(sent, ensure_ascii=False)))
        message = hear(ada)
        assert {name: message[name] for name in sent} == sent


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"\ud83e", "\ufffd"),
        (r"\udd16", "\ufffd"),
        (r"\udd16\ud83e", "\ufffd\ufffd"),
        (r"a\ud83eb", "a\ufffdb"),
        (r"\ud83e\ud83e\udd16", "\ufffd🤖"),
        (r"\ud83e\udd16", "🤖"),
        (r"\ud83e\u0041\udd16", "\ufffdA\ufffd"),
    ],
)
def test_half_a_surrogate_pair_becomes_a_replacement_character_as_in_go(
    server: Program, escaped: str, text: str
) -> None:
    with server.join() as ada:
        body = ",".join(f'"{name}":"{escaped}"' for name in ("email", "username", "message"))
        ada.send(text_frame(f"{{{body}}}"))
        message = hear(ada)
    assert [message["email"], message["username"], message["message"]] == [text] * 3


@pytest.mark.parametrize(
    "email", ["ada@example.org", "Ada@Example.ORG", "  ADA@example.org\t", "\nada@example.org\n"]
)
def test_avatar_is_the_sha256_of_the_trimmed_lower_cased_email(server: Program, email: str) -> None:
    with server.join() as ada:
        say(ada, "", email=email)
        message = hear(ada)
    assert message["email"] == email
    assert message["avatar"] == AVATAR_OF_ADA


def test_message_in_fragments_with_a_ping_between_is_one_message(server: Program) -> None:
    with server.join() as ada:
        ada.send(masked(0x01, b'{"message":') + masked(0x89, b"!") + masked(0x80, b'"whole"}'))
        assert ada.read_frame() == (0x8A, b"!")
        assert hear_texts(ada, 1) == ["whole"]


def test_senders_own_order_is_everyones_order() -> None:
    with chat() as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.join()) for _ in range(4)]

        def talk(name: str, peer: Peer) -> None:
            for i in range(100):
                say(peer, str(i), username=name)

        threads = [
            threading.Thread(target=talk, args=(str(i), peer)) for i, peer in enumerate(peers)
        ]
        for thread in threads:
            thread.start()
        heard = [[hear(peer) for _ in range(400)] for peer in peers]
        for thread in threads:
            thread.join()
    assert heard[1] == heard[0] and heard[2] == heard[0] and heard[3] == heard[0]
    for name in ("0", "1", "2", "3"):
        of_one = [message["message"] for message in heard[0] if message["username"] == name]
        assert of_one == [str(i) for i in range(100)]


# Bad input


BAD_MESSAGES = {
    "nothing": "",
    "blank": "  ",
    "no JSON": "hello",
    "cut off": '{"message": "hello"',
    "two objects": '{"message": "a"} {"message": "b"}',
    "single quotes": "{'message': 'a'}",
    "a comma too many": '{"message": "a",}',
    "a line break in a string": '{"message": "a\nb"}',
    "not a number": '{"message": "a", "x": NaN}',
    "infinity": '{"message": "a", "x": -Infinity}',
    "a byte order mark": '\ufeff{"message": "a"}',
    "null": "null",
    "true": "true",
    "a number": "1",
    "a string": '"hello"',
    "a list": '[{"message": "a"}]',
    "nested deep": "[" * 60000,
    "nested deep within": '{"x":' * 10000 + "1" + "}" * 10000,
    "a number for a message": '{"message": 1}',
    "a number for a message in any case": '{"MESSAGE": 1}',
    "a number for a message that is a text then": '{"message": 1, "message": "a"}',
    "a number with a zero before it": '{"message": "a", "x": 01}',
    "a list for a message": '{"message": ["a"]}',
    "an object for a username": '{"username": {"a": 1}}',
    "a boolean for an email": '{"email": false}',
    "a number for a key": '{"message": "a", "key": 1}',
    "a long key": json.dumps({"message": "a", "key": "k" * 65}),
}


@pytest.mark.parametrize("bad", BAD_MESSAGES)
def test_bad_message_is_closed_with_1008_and_a_reason_in_words(server: Program, bad: str) -> None:
    check_refusal(server, text_frame(BAD_MESSAGES[bad]), 1008)


@pytest.mark.parametrize("payload", [b"", b'{"message": "a"}', b"\x00\xff"])
def test_binary_message_is_closed_with_1003(server: Program, payload: bytes) -> None:
    check_refusal(server, masked(0x82, payload), 1003)


@pytest.mark.parametrize("payload", [b"\xff", b"\xc3", b'{"message":"\xed\xa0\x80"}', b"\xc0\x80"])
def test_text_that_is_not_utf8_is_closed_with_1007(server: Program, payload: bytes) -> None:
    check_refusal(server, masked(0x81, payload), 1007)


@pytest.mark.parametrize(
    "frames",
    [
        bytes.fromhex("810568656c6c6f"),  # no mask
        masked(0xC1, b"{}"),
        masked(0x83, b"{}"),
        masked(0x80, b"{}"),
        masked(0x01, b"{") + masked(0x81, b"{}"),
        masked(0x09, b""),
        masked(0x88, b"\x03"),
        masked(0x88, b"\x03\xed"),
    ],
)
def test_bad_frame_is_closed_with_1002(server: Program, frames: bytes) -> None:
    check_refusal(server, frames, 1002)


@pytest.mark.parametrize(
    "start",
    [
        bytes.fromhex("81 ff 0000000000010001"),
        bytes.fromhex("81 ff 7fffffffffffffff"),
        masked(0x01, b"{" + b" " * 65535) + bytes.fromhex("80 81"),
        masked(0x01, b" " * 40000) + masked(0x00, b" " * 20000) + bytes.fromhex("00 fe 8000"),
    ],
)
def test_message_that_is_too_big_is_closed_with_1009_at_its_header(
    server: Program, start: bytes
) -> None:
    check_refusal(server, start, 1009)


def check_refusal(server: Program, data: bytes, code: int) -> None:
    """What is bad ends its sender's connection, whatever he says behind it, and nobody else's."""
    log_before = len(server.log)
    with server.join() as bad, server.join() as other:
        say(bad, "good")
        assert hear_texts(other, 1) == ["good"]
        assert hear_texts(bad, 1) == ["good"]
        bad.send(data)
        with contextlib.suppress(OSError):
            bad.send(text_frame('{"message": "too late"}'))
        first, payload = bad.read_frame()
        assert (first, int.from_bytes(payload[:2], "big")) == (0x88, code)
        reason = payload[2:].decode()
        assert re.search(r"[a-z]{2,} [a-z]", reason), f"no words: {reason!r}"
        with contextlib.suppress(OSError):
            bad.send(masked(0x88, payload))
        assert bad.read_to_eof() == b""
        name = name_of(bad)
        bad.close()
        say(other, "still here")
        assert hear_texts(other, 1) == ["still here"]
        assert other.is_silent(0.02)
        lines = eventually(lambda: server.log_lines_about(name, log_before))
        assert reason in lines[0]


def test_refused_client_that_sends_on_reads_its_close_and_then_the_end(server: Program) -> None:
    with server.join() as bad:
        bad.send(text_frame("no JSON"))
        flood = masked(0x81, b" " * 60000)
        sender = threading.Thread(target=send_until_it_fails, args=(bad, flood, 100))
        sender.start()
        try:
            first, payload = bad.read_frame()
            assert (first, payload[:2]) == (0x88, b"\x03\xf0")
        finally:
            sender.join()
        bad.send(masked(0x88, payload))
        assert bad.read_to_eof() == b""


def send_until_it_fails(peer: Peer, data: bytes, times: int) -> None:
    with contextlib.suppress(OSError):
        for _ in range(times):
            peer.send(data)


def test_key_with_one_character_too_many_is_named_in_the_reason(server: Program) -> None:
    with server.join() as ada:
        say(ada, "a", key="k" * 65)
        assert answer_close(ada) == (1008, "the key has more than 64 characters")


# HTTP on the same port


def get(server: Program, target: str, **changes: str | None) -> tuple[int, str]:
    no_upgrade = ("Upgrade", "Connection", "Sec_WebSocket_Key", "Sec_WebSocket_Version")
    return server.answer(opening(server, target, **(dict.fromkeys(no_upgrade) | changes)))


def opening(server: Any, target: str = "/ws", **changes: str | None) -> bytes:
    """The request of an opening handshake."""
    return request(server, target, **changes)


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
        "/../chat_server.py",
        "/%2e%2e/chat_server.py",
        "/..%2fchat_server.py",
        "//etc/passwd",
        "/ws/",
        "/WS",
        "/echo/../../chat_log.py",
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
    status, text = server.answer(opening(server, Sec_WebSocket_Version="8"))
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
    assert server.answer(opening(server, "/ws", **changes))[0] == status


def test_post_is_not_allowed(server: Program) -> None:
    data = opening(server, "/").replace(b"GET", b"POST", 1)
    assert server.answer(data)[0] == 405


def test_websocket_at_another_path_is_404(server: Program) -> None:
    assert server.answer(opening(server, "/chat"))[0] == 404


# Command line


def test_page_of_another_site_is_refused_by_name_unless_allowed(server: Program) -> None:
    data = opening(server, Origin="https://evil.example")
    status, text = server.answer(data)
    assert status == 403
    assert "https://evil.example" in text and "--allow-origin" in text
    assert "--allow-origin" in eventually(lambda: server.log.partition("evil.example")[2])
    with chat("--allow-origin", "https://evil.example") as lax:
        with lax.join(Origin="https://evil.example") as peer:
            say(peer, "allowed")
            assert hear_texts(peer, 1) == ["allowed"]
        assert lax.answer(opening(lax, Origin="https://evil.example:8443"))[0] == 403
        assert lax.answer(opening(lax, Origin="http://evil.example"))[0] == 403


def test_own_page_and_clients_without_origin_are_let_in(server: Program) -> None:
    port = server.server_port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        with server.join(Host=host, Origin=f"http://{host}"):
            pass
    with server.join(Host=f"localhost:{port}"):
        pass
    assert server.answer(opening(server, Origin=f"http://localhost:{port}"))[0] == 403
    assert server.answer(opening(server, Origin="null"))[0] == 403


@pytest.mark.parametrize("target", ["/", "/ws"])
def test_host_name_of_elsewhere_is_refused_by_name_unless_allowed(
    server: Program, target: str
) -> None:
    status, text = server.answer(opening(server, target, Host="rebound.example:8000"))
    assert status == 403
    assert "rebound.example" in text and "--allow-host rebound.example" in text
    with chat("--allow-host", "chat.example") as lax:
        assert lax.answer(opening(lax, target, Host="rebound.example"))[0] == 403
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
            status, text = server.answer(opening(server))
            assert status == 503
            assert "full" in text
            assert get(server, "/")[0] == 200
            say(ada, "still here")
            assert hear_texts(bob, 1) == ["still here"]
            leave(bob)
            assert eventually(lambda: place_is_free(server))
        eventually(lambda: place_is_free(server))


def place_is_free(server: Program) -> bool:
    with server.tcp() as peer:
        peer.send(opening(server))
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


def test_fast_client_that_leaves_at_once_has_still_said_all() -> None:
    with chat("--rate", "20") as server, server.join() as fast, server.join() as other:
        texts = [f"number {i}" for i in range(80)]
        frames = [text_frame(json.dumps({"message": text})) for text in texts]
        fast.send(b"".join(frames) + masked(0x88, b"\x03\xe8"))
        assert hear_texts(other, 80) == texts
        assert hear_texts(fast, 80) == texts
        assert fast.read_close() == (1000, "")


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
    with chat("--rate", "0.01") as server, server.join() as ada:
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
        ["--rate", "0.009"],
        ["--rate", "1e10"],
        ["--max-message", "0"],
        ["--max-message", "1.5"],
        ["--max-clients", "0"],
        ["--max-clients", "-2"],
        ["--host", "192.0.2.1"],
        ["--host", "a..b"],
        ["--host", "::1::"],
        ["--allow-origin"],
        ["--history", ""],
        ["--redis", ""],
        ["--keep", "0"],
        ["--max-message", "16777217"],
        ["--keep-bytes", "0"],
        ["--keep-bytes", "9" * 20],
        ["--max-clients", "9" * 20],
    ],
)
def test_bad_option_ends_it_with_one_clear_line(options: list[str]) -> None:
    ended = run("chat_server.py", *options)
    check_complaint(ended.returncode, ended.stdout, ended.stderr)
    last_line = ended.stderr.decode().splitlines()[-1]
    assert options[0] in last_line or options[-1] in last_line


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--rate", "1e-10", "--rate is 0, for no limit, or from 0.01 to 1000000000"),
        ("--max-message", "0", "--max-message is a whole number from 1 to 16777216"),
        ("--max-clients", "0", "--max-clients is a whole number from 1 to 9007199254740992"),
        ("--keep", "-1", "--keep is a whole number from 1 to 9007199254740992"),
        ("--keep-bytes", "9" * 20, "--keep-bytes is a whole number from 1 to 9007199254740992"),
    ],
)
def test_option_out_of_range_is_told_what_it_may_be(option: str, value: str, words: str) -> None:
    ended = run("chat_server.py", option, value)
    assert ended.stderr.decode().splitlines()[-1] == f"chat_server.py: error: {words}"


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
    for option in "host port rate max-message max-clients allow-origin allow-host".split():
        assert f"--{option} ".encode() in ended.stdout
    assert b"--hide-emails" in ended.stdout
    words = " ".join(ended.stdout.decode().split())
    for default in ("(20)", "(65536)", "(10000)", "(100000)", "(100000000)"):
        assert default in words
    assert "--max-clients N how many can be in the chat at once" in words


# Peers that do not behave


def upgrade(server: Program, peer: Peer) -> None:
    peer.send(opening(server))
    assert peer.read_head().startswith("HTTP/1.1 101 ")
    await_handler(peer)


def test_stuck_client_is_dropped_and_costs_nobody_a_message() -> None:
    with chat() as server, server.tcp(receive_buffer=4096) as stuck, server.join() as ada:
        upgrade(server, stuck)
        name = name_of(stuck)
        with server.join() as bob:
            heard = 0
            while not server.log_lines_about(name):
                assert heard < 2000, "it is not dropped"
                say(ada, f"{heard:8}" * 1000)
                for peer in (ada, bob):
                    assert hear(peer)["message"] == f"{heard:8}" * 1000
                heard += 1
        lines = server.log_lines_about(name)
        assert len(lines) == 1
        assert "too slow" in lines[0]
        assert heard * 8000 > 1 << 20
        with contextlib.suppress(ConnectionError):
            stuck.read_to_eof()


def test_slow_client_that_reads_at_last_gets_everything_in_order() -> None:
    with chat() as server, server.tcp(receive_buffer=4096) as slow, server.join() as ada:
        upgrade(server, slow)
        texts = [f"{i:8}" * 1000 for i in range(100)]
        for text in texts:
            say(ada, text)
        assert hear_texts(ada, 100) == texts
        assert hear_texts(slow, 100) == texts


class Talker:
    """As much of a WebSocket as handle_connections wants of a client that says all this at once."""

    query, peer = "", "a talker"

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def close(self, code: int, reason: str) -> None:
        pass


@pytest.mark.parametrize("texts", [[], ["no JSON"]])
def test_client_that_has_left_is_forgotten(
    texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_server, "options", argparse.Namespace(rate=0))
    with contextlib.suppress(Close):
        chat_server.handle_connections(cast(Any, Talker(texts)))
    assert not chat_server.clients


class Client:
    """As much of a WebSocket as handle_messages wants, of a client that says nothing."""

    peer = "a client"

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []
        self.closed: list[tuple[int, str]] = []

    def post(self, message: str) -> None:
        self.heard.append((message,))

    def close(self, code: int, reason: str, *, wait: bool) -> None:
        self.closed.append((code, reason))


class NoLog:
    """A log that nothing can be written to."""

    def append(self, _: object) -> None:
        raise LogFailed("a bad block")

    def since(self, _: object) -> Page:
        return Page([], gap=False, more=False)


def said(text: str, websocket: Client, key: str | None = None) -> chat_server.Said:
    return chat_server.Said(chat_server.Message(message=text, key=key), cast(Any, websocket))


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatLog]:
    """The log of a chat that runs in this process, as far as a test calls it."""
    monkeypatch.setattr(chat_server, "options", argparse.Namespace(rate=0, hide_emails=False))
    monkeypatch.setattr(chat_server, "position", "0-0")
    monkeypatch.setattr(chat_server, "broadcast", queue.Queue(maxsize=1000))
    with contextlib.closing(ChatLog()) as log:
        monkeypatch.setattr(chat_server, "chat_log", log, raising=False)
        yield log


def test_who_was_refused_is_not_logged_later_though_it_was_said_already(
    room: ChatLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = Client(), Client()
    monkeypatch.setattr(chat_server, "chat_log", NoLog())
    chat_server.handle([said("first", ada)])
    monkeypatch.setattr(chat_server, "chat_log", room)
    chat_server.handle([said("behind it", ada), said("by another", bob)])
    assert ada.closed == [(1011, "the message could not be logged")]
    assert bob.closed == []
    assert [entry[1][2] for entry in room.since("0").entries] == ["by another"]


def test_failure_for_one_sends_nobody_away_whose_message_was_logged_or_who_got_in(
    room: ChatLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob, eve, late = (Client() for _ in range(4))
    room.append([chat_server.Message(message="known", key="k")])
    joined = Joined(cast(Any, eve), "0")
    left = Joined(cast(Any, late), "no id")
    for each in (eve, late):
        chat_server.resumers.name(cast(Any, each), "")

    def fail(message_id: str) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(room, "entry", fail)
    try:
        chat_server.handle([said("known", ada, key="k"), left, said("new", bob), joined])
        assert chat_server.clients == {cast(Any, eve)}
    finally:
        for each in (eve, late):
            chat_server.resumers.remove(cast(Any, each))
    assert ada.closed == late.closed == [(1011, "internal error")]
    assert bob.closed == eve.closed == []


def test_client_that_can_not_even_be_sent_away_does_not_end_handle_messages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Client):
        def close(self, code: int, reason: str, *, wait: bool) -> None:
            raise RuntimeError("unforeseen")

    chat_server.refuse(cast(Any, Broken()), "internal error")
    (record,) = caplog.records
    assert record.exc_info


def test_end_waits_a_second_in_all_for_what_is_queued(
    room: ChatLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue takes nothing for most of it."""
    now = 100.0
    waits: list[float] = []

    class SlowQueue:
        def put(self, item: object, timeout: float) -> None:
            nonlocal now
            waits.append(timeout)
            now += 0.75

    class Drained:
        def wait(self, timeout: float) -> None:
            waits.append(timeout)

    monkeypatch.setattr(chat_server, "broadcast", SlowQueue())
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(threading, "Event", Drained)
    chat_server.drain()
    assert waits == [1.0, 0.25]


@pytest.mark.parametrize("character", ["x", "好", "\u0001"])
@pytest.mark.parametrize("length", [1, 60_000])
def test_what_is_written_at_once_never_overruns_a_client_that_reads(
    room: ChatLog, length: int, character: str
) -> None:
    """What is above the backlog's limit would drop everyone, the fastest reader too."""
    size = max(1, length // len(json.dumps(character, ensure_ascii=False)[1:-1].encode()))
    ada = Client()
    for number in range(1000):
        chat_server.broadcast.put(said(character * size, ada, key=f"{number}".rjust(64, "k")))
    chat_server.clients.add(cast(Any, ada))
    try:
        while not chat_server.broadcast.empty():
            items = chat_server.take_what_waits(None)
            sizes = [size_of(("", cast(Any, item).message)) for item in items]
            assert sum(sizes) < PAGE_CHARACTERS + sizes[0]
            chat_server.handle(items)
    finally:
        chat_server.clients.clear()
    sizes = [sum(len(text.encode()) + 10 for text in texts) for texts in ada.heard]
    assert sum(sizes) > 1000 * length
    assert max(sizes) < MAX_BACKLOG


def test_clients_that_do_not_read_do_not_hold_up_one_that_joins() -> None:
    with chat() as server, contextlib.ExitStack() as stack:
        for _ in range(20):
            stuck = stack.enter_context(server.tcp(receive_buffer=4096))
            upgrade(server, stuck)
        ada = stack.enter_context(server.join())
        for i in range(60):
            say(ada, f"{i:8}" * 1000)
            hear(ada)
        bob = stack.enter_context(server.join())
        say(bob, "new here")
        assert hear_texts(bob, 1) == hear_texts(ada, 1) == ["new here"]


def vanish(peer: Peer) -> None:
    """Reset the connection, as a machine does that was switched off and on."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize(
    "last_words", [b"", masked(0x81, b'{"message": "bye"}')[:9], masked(0x01, b"{"), b"\x88"]
)
def test_vanished_client_is_one_line_in_the_log(server: Program, last_words: bytes) -> None:
    log_before = len(server.log)
    gone = server.join()
    name = name_of(gone)
    with server.join() as ada:
        gone.send(last_words)
        vanish(gone)
        eventually(lambda: server.log_lines_about(name, log_before))
        say(ada, "anyone there?")
        assert hear_texts(ada, 1) == ["anyone there?"]
    (line,) = server.log_lines_about(name, log_before)
    assert "1006" in line


def test_client_that_vanishes_under_a_flood_is_one_line_in_the_log() -> None:
    with chat() as server, server.join() as ada:
        names = []
        for i in range(10):
            gone = server.join()
            names.append(name_of(gone))
            for j in range(20):
                say(ada, f"{i * 20 + j:8}" * 500)
            vanish(gone)
        assert hear_texts(ada, 200) == [f"{i:8}" * 500 for i in range(200)]
        eventually(lambda: all(server.log_lines_about(name) for name in names))
        assert [len(server.log_lines_about(name)) for name in names] == [1] * 10
        assert "Traceback" not in server.log


@pytest.mark.parametrize("part", [b"", b"G", b"GET /ws HTTP/1.1\r\nHost: loc", None])
def test_client_that_vanishes_in_its_handshake_leaves_no_traceback(
    server: Program, part: bytes | None
) -> None:
    gone = server.tcp()
    gone.send(opening(server) if part is None else part)
    vanish(gone)
    with server.join() as ada:
        say(ada, "still here")
        assert hear_texts(ada, 1) == ["still here"]
    assert "Traceback" not in server.log


def test_log_names_who_left_and_how(server: Program) -> None:
    log_before = len(server.log)
    with server.join() as ada:
        name = name_of(ada)
        ada.send(masked(0x88, b"\x0f\xa0so long"))
        assert ada.read_close() == (4000, "")
    (line,) = eventually(lambda: server.log_lines_about(name, log_before))
    assert "4000" in line and "so long" in line


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[2J", "\r", "a\u2028b"])
def test_log_line_stays_one_line_whatever_a_client_says(server: Program, reason: str) -> None:
    log_before = len(server.log)
    with server.join() as ada:
        name = name_of(ada)
        ada.send(masked(0x88, b"\x0f\xa0" + reason.encode()))
        assert ada.read_close()[0] == 4000
    eventually(lambda: server.log_lines_about(name, log_before))
    with server.tcp() as bob:
        bob.send(opening(server, Origin=f"http://{reason.strip()[:1]}\x1b[2J"))
        bob.read_to_eof()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u2028]", server.log)
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in server.log.split("\n")[:-1])


def test_clients_that_come_and_go_disturb_nobody_who_talks() -> None:
    senders, each = 4, 150
    with chat() as server, contextlib.ExitStack() as stack:
        watcher = stack.enter_context(server.join())
        stop = threading.Event()
        came = [0] * 4
        errors: list[BaseException] = []

        def come_and_go(number: int) -> None:
            while not stop.is_set():
                with server.join() as guest:
                    if number % 2:
                        say(guest, "hello", username="guest")
                        while hear(guest)["username"] != "guest":
                            pass
                        vanish(guest)
                came[number] += 1

        def talk(number: int) -> None:
            with server.join() as peer:
                for i in range(each):
                    say(peer, str(i), username=f"sender {number}")
                    while hear(peer)["username"] != f"sender {number}":
                        pass

        def whole(work: Any, number: int) -> None:
            try:
                work(number)
            except BaseException as error:
                errors.append(error)

        guests = [threading.Thread(target=whole, args=(come_and_go, i)) for i in range(4)]
        talkers = [threading.Thread(target=whole, args=(talk, i)) for i in range(senders)]
        for thread in guests + talkers:
            thread.start()
        heard: dict[str, list[str]] = {f"sender {i}": [] for i in range(senders)}
        last = ""
        try:
            while any(len(texts) < each for texts in heard.values()) and not errors:
                message = hear(watcher)
                if message["username"] != "guest":
                    heard[message["username"]].append(message["message"])
                assert id_pair(last) < id_pair(message["id"])
                last = message["id"]
            eventually(lambda: all(came) or errors)
        finally:
            stop.set()
            for thread in guests + talkers:
                thread.join(PATIENCE)
        assert not errors, errors
        assert all(texts == [str(i) for i in range(each)] for texts in heard.values())
        assert all(came)
        assert "Traceback" not in server.log


def id_pair(message_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in message_id.split("-")) if message_id else (0,)


# The end


STOP_SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@STOP_SIGNALS
def test_signal_closes_everyone_with_1001_and_ends_it_with_0(number: int) -> None:
    with chat() as server, server.join() as ada, server.join() as bob:
        server.signal(number)
        for peer in (ada, bob):
            code, reason = answer_close(peer)
            assert code == 1001
            assert reason
        assert server.wait() == 0
        assert "Traceback" not in server.log


@STOP_SIGNALS
def test_what_was_said_before_the_signal_is_delivered(number: int) -> None:
    with chat() as server, server.join() as ada, server.join() as bob:
        texts = [f"number {i} " + "x" * 300 for i in range(900)]
        frames = b"".join(text_frame(json.dumps({"message": text})) for text in texts)
        ada.send(frames + masked(0x89, b"were you told?"))
        heard = []
        while (frame := ada.read_frame()) != (0x8A, b"were you told?"):
            heard.append(json.loads(frame[1])["message"])
        server.signal(number)
        heard += hear_texts(ada, 900 - len(heard))
        assert heard == texts
        assert hear_texts(bob, 900) == texts
        assert answer_close(ada)[0] == answer_close(bob)[0] == 1001
        assert server.wait() == 0


def test_signal_ends_it_in_time_beside_clients_that_do_nothing() -> None:
    with chat() as server, contextlib.ExitStack() as stack:
        stuck = stack.enter_context(server.tcp(receive_buffer=4096))
        upgrade(server, stuck)
        idle = stack.enter_context(server.tcp())
        halfway = stack.enter_context(server.tcp())
        halfway.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        deaf = stack.enter_context(server.join())
        ada = stack.enter_context(server.join())
        for i in range(60):
            say(ada, f"{i:8}" * 1000)
            hear(ada)
        server.signal()
        assert answer_close(ada)[0] == 1001
        assert server.wait() == 0
        assert hear_texts(deaf, 60) == [f"{i:8}" * 1000 for i in range(60)]
        assert deaf.read_frame()[1][:2] == b"\x03\xe9"
        for peer in (stuck, idle, halfway):
            with contextlib.suppress(ConnectionError):
                peer.read_to_eof()


def test_signal_ends_it_in_time_while_a_client_is_slowed() -> None:
    with chat("--rate", "0.5") as server, server.join() as fast, server.join() as other:
        fast.send(b"".join(text_frame(json.dumps({"message": str(i)})) for i in range(100)))
        hear(other)
        server.signal()
        while (frame := other.read_frame())[0] == 0x81:
            pass
        assert frame[0] == 0x88 and frame[1][:2] == b"\x03\xe9"
        other.send(masked(0x88, frame[1]))
        assert other.read_to_eof() == b""
        assert server.wait() == 0


def test_signal_ends_it_in_time_while_all_talk() -> None:
    ends: list[tuple[int, bytes]] = []
    talking = threading.Barrier(5)

    def talk(peer: Peer, name: str) -> None:
        """Say fifty things at once, hear them, and so on until something else is to be heard."""
        words = text_frame(json.dumps({"username": name, "message": "x" * 500}))
        for again in itertools.count():
            if again == 2:
                talking.wait(PATIENCE)
            peer.send(words * 50)
            own = 0
            while own < 50:
                first, payload = peer.read_frame()
                if first != 0x81:
                    ends.append((first, payload[:2]))
                    peer.send(masked(0x88, payload))
                    assert peer.read_to_eof() == b""
                    return peer.close()
                own += json.loads(payload)["username"] == name

    with chat() as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.join()) for _ in range(4)]
        threads = [
            threading.Thread(target=talk, args=(peer, str(i))) for i, peer in enumerate(peers)
        ]
        for thread in threads:
            thread.start()
        try:
            talking.wait(PATIENCE)
            server.signal()
            assert server.wait() == 0
        finally:
            for thread in threads:
                thread.join(PATIENCE)
        assert ends == [(0x88, b"\x03\xe9")] * 4
        assert "Traceback" not in server.log


def test_impatient_user_who_presses_again_sees_no_traceback() -> None:
    with chat() as server, server.join(), server.join() as ada:
        server.signal(signal.SIGINT)
        assert answer_close(ada)[0] == 1001
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            server.signal(number)
        assert server.wait() == 0
        assert "Traceback" not in server.log


@STOP_SIGNALS
def test_signal_as_soon_as_it_says_that_it_runs_ends_it_with_0(number: int) -> None:
    for _ in range(3):
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "chat_server.py"), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert server.stdout is not None
            assert b"http://" in server.stdout.readline()
            server.send_signal(number)
            _, log = server.communicate(timeout=EXIT_TIME + NOISE)
        finally:
            server.kill()
            server.communicate()
        assert (server.returncode, log) == (0, b"")


def test_no_new_client_comes_in_after_the_signal() -> None:
    with chat() as server, server.join() as deaf:
        server.signal()
        assert deaf.read_frame()[1][:2] == b"\x03\xe9"
        with pytest.raises((OSError, EOFError)), server.tcp() as late:
            late.send(opening(server))
            late.read_head()
        assert server.wait() == 0


def test_server_starts_again_on_its_port_at_once() -> None:
    with chat() as first, first.join() as ada:
        port = first.server_port
        first.signal()
        assert answer_close(ada)[0] == 1001
        assert first.wait() == 0
    with chat("--port", str(port)) as second, second.join() as ada:
        assert second.server_port == port
        say(ada, "again")
        assert hear_texts(ada, 1) == ["again"]

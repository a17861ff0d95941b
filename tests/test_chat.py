"""The chat as a process, its clients bare sockets: what goes over the wire, and bad input."""

import contextlib
import itertools
import json
import re
import threading
import time

import pytest

from chatting import hear, hear_texts, leave, say, text_frame
from peers import Peer, eventually, masked
from programs import Program, answer_close, chat, name_of

ID = re.compile(r"[0-9]{13}-[0-9]+")
AVATAR_OF_ADA = "cfe00dde46ef942601ffafb9e2825e802858b460e586b8305b344c1eb826357d"
AVATAR_OF_NOBODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# The wire


def test_client_gets_its_own_message_in_the_bytes_of_the_original_followed_by_id_and_avatar(
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


def test_message_with_a_known_key_is_sent_once_more_to_its_sender_and_to_nobody_else(
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


def test_empty_key_counts_as_no_key(server: Program) -> None:
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
def test_name_of_the_key_has_one_spelling_because_the_original_does_not_have_it(
    server: Program, name: str
) -> None:
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


def test_order_in_which_a_client_says_something_is_the_order_in_which_all_hear_it() -> None:
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

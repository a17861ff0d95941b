"""The JSON of messages and events, as tables: no socket, no chat."""

import json

import pytest

from chat.entry import Entry, OlderPage, make_entry
from chat.message import (
    GAP,
    PONG,
    decode,
    encode,
    encode_all,
    encode_older,
    encode_older_failed,
    encode_slowed,
)
from rfc6455 import Close

AVATAR_OF_ADA = "cfe00dde46ef942601ffafb9e2825e802858b460e586b8305b344c1eb826357d"
AVATAR_OF_NOBODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{}", {}),
        (' {\n"message" : "m" }\t', {"message": "m"}),
        ('{"email": null, "username": null, "message": null, "key": null, "event": null}', {}),
        ('{"message": "m", "extra": 1, "id": "9-9", "avatar": [{}]}', {"message": "m"}),
        ('{"Message": "m", "USERNAME": "u", "eMail": "e"}',
         {"message": "m", "username": "u", "email": "e"}),
        ('{"message": "a", "MESSAGE": "b"}', {"message": "b"}),
        ('{"message": "a", "message": null}', {"message": "a"}),
        ('{"me\u017f\u017fage": "long s"}', {"message": "long s"}),
        ('{"me\u00dfage": "sharp s", "message ": "blank"}', {}),
        ('{"message": "m", "x": %s}' % ("7" * 5000), {"message": "m"}),
        ('{"key": "k", "Key": "other spelling", "\u212aey": "kelvin"}', {"key": "k"}),
        ('{"key": ""}', {}),
        ('{"key": "k", "key": ""}', {}),
        ('{"event": "ping", "Event": "other spelling"}', {"event": "ping"}),
        ('{"event": 5, "message": "m"}', {"message": "m"}),
        ('{"event": "older", "before": "7-7", "Before": "other spelling"}',
         {"event": "older", "before": "7-7"}),
        ('{"before": 5, "message": "m"}', {"message": "m"}),
        ('{"before": "7-7", "before": [{}], "before": null}', {"before": "7-7"}),
        (r'{"message": "\ud83e\udd16"}', {"message": "🤖"}),
        (r'{"message": "a\ud83eb"}', {"message": "a\ufffdb"}),
        (r'{"message": "\udd16\ud83e"}', {"message": "\ufffd\ufffd"}),
        ('{"message": "好\\u0000"}', {"message": "好\0"}),
    ],
)  # fmt: skip
def test_message_is_read_as_go_reads_it(text: str, fields: dict[str, str]) -> None:
    assert decode(text) == fields


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"{}", 1003, "the chat accepts text messages only"),
        ("", 1008, "the message is not JSON"),
        ("{", 1008, "the message is not JSON"),
        ("{} {}", 1008, "the message is not JSON"),
        ("[" * 100_000, 1008, "the message is not JSON"),
        ('{"x": NaN}', 1008, "the message is not JSON"),
        ('{"x": -Infinity}', 1008, "the message is not JSON"),
        ("null", 1008, "the message is not a JSON object"),
        ('[["message", "m"]]', 1008, "the message is not a JSON object"),
        ('{"MESSAGE": 1}', 1008, "message is not a string"),
        ('{"message": 1, "message": "m"}', 1008, "message is not a string"),
        ('{"email": false}', 1008, "email is not a string"),
        ('{"username": {}}', 1008, "username is not a string"),
        ('{"key": 1}', 1008, "key is not a string"),
        (json.dumps({"email": "e" * 255}), 1008, "email has more than 254 characters"),
        (json.dumps({"username": "u" * 65}), 1008, "username has more than 64 characters"),
        (json.dumps({"key": "k" * 65}), 1008, "the key has more than 64 characters"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_malformed_message_is_refused_with_a_reason_in_words(
    data: str | bytes, code: int, reason: str
) -> None:
    with pytest.raises(Close) as raised:
        decode(data)
    assert (raised.value.code, raised.value.reason) == (code, reason)


def test_fields_may_be_as_long_as_their_limit() -> None:
    fields = {"email": "好" * 254, "username": "🤖" * 64, "key": "k" * 64}
    assert decode(json.dumps(fields)) == fields


@pytest.mark.parametrize(
    ("entry", "hide_emails", "text"),
    [
        (
            Entry("1-2", "ada@example.org", "Ada", "Good day", None),
            False,
            '{"email":"ada@example.org","username":"Ada","message":"Good day","id":"1-2",'
            f'"avatar":"{AVATAR_OF_ADA}"}}',
        ),
        (
            Entry("1-2", " Ada@Example.ORG\n", "Ada", "你好 \u2028 \\ <b>", "k"),
            True,
            '{"email":"","username":"Ada","message":"你好 \u2028 \\\\ <b>","id":"1-2",'
            f'"avatar":"{AVATAR_OF_ADA}","key":"k"}}',
        ),
        (
            Entry("0-1", "", "", "", None),
            False,
            f'{{"email":"","username":"","message":"","id":"0-1","avatar":"{AVATAR_OF_NOBODY}"}}',
        ),
    ],
    ids=["Ada", "hidden, with a key", "empty"],
)
def test_message_is_written_with_the_fields_of_the_original_first(
    entry: Entry, hide_emails: bool, text: str
) -> None:
    assert encode(entry, hide_emails=hide_emails) == text
    assert encode_all([entry, entry], hide_emails=hide_emails) == [text, text]


def test_message_that_cannot_be_written_is_logged_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = Entry("1-1", "", "", "good", None)
    bad = Entry("1-2", None, "", "bad", None)  # type: ignore[arg-type]
    texts = encode_all([good, bad, good], hide_emails=False)
    assert [json.loads(text)["message"] for text in texts] == ["good", "good"]
    (record,) = caplog.records
    assert "1-2" in record.message
    assert record.exc_info


def test_events_are_compact_json() -> None:
    assert (GAP, PONG) == ('{"event":"gap"}', '{"event":"pong"}')
    assert encode_slowed(20.0) == '{"event":"slowed","rate":20}'
    assert encode_slowed(0.1) == '{"event":"slowed","rate":0.1}'
    assert encode_slowed(1e9) == '{"event":"slowed","rate":1000000000}'


def test_answer_with_older_messages_has_them_as_they_are_broadcast() -> None:
    entries = [
        Entry("1-1", "ada@example.org", "Ada", 'one "1"', "k"),
        Entry("1-2", "", "", "好", None),
    ]
    assert encode_older("7", OlderPage(entries, more=True), hide_emails=False) == (
        '{"event":"older","before":"7","messages":['
        '{"email":"ada@example.org","username":"Ada","message":"one \\"1\\"","id":"1-1",'
        f'"avatar":"{AVATAR_OF_ADA}","key":"k"}},'
        '{"email":"","username":"","message":"好","id":"1-2",'
        f'"avatar":"{AVATAR_OF_NOBODY}"}}],"more":true}}'
    )
    assert '"email":"",' in encode_older("7", OlderPage(entries[:1], more=True), hide_emails=True)
    nothing = '{"event":"older","before":"7","messages":[],"more":false}'
    assert encode_older("7", OlderPage([], more=False), hide_emails=True) == nothing
    assert encode_older_failed("7") == '{"event":"older","before":"7","failed":true}'


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (("e", "u", "m", "k"), ("e", "u", "m", "k")),
        ((None, 7, b"m", None), ("", "", "", None)),
        (("e" * 255, "u" * 65, "m", "k" * 64), ("e" * 254, "u" * 64, "m", "k" * 64)),
        (("", "", "m" * ((1 << 24) + 1), "k" * 65), ("", "", "m" * (1 << 24), None)),
        (("", "", "", ""), ("", "", "", None)),
    ],
    ids=["as it is", "no text", "cut", "too long a key", "empty"],
)
def test_what_other_programs_have_stored_is_cut_or_left_out(
    stored: tuple[object, ...], shown: tuple[object, ...]
) -> None:
    assert make_entry("1-1", *stored) == ("1-1", *shown)

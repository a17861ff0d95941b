"""The client's side of the opening handshake (RFC 6455, 4.1): its request, and the response."""

import base64
import subprocess
import sys

import pytest

from heads import response_headers
from peers import ACCEPT, KEY, PATIENCE
from programs import ROOT
from rfc6455 import InvalidHandshake, handshake
from rfc6455.handshake import Response

# The request


def build(url: str = "ws://server.example.com/chat", **options: object) -> bytes:
    return handshake.build_request(handshake.parse_url(url), KEY, **options)  # type: ignore[arg-type]


@pytest.mark.requirement("4.1-9", "4.1-10", "4.1-11", "4.1-12", "9.1-7", "11.3.1-1", "11.3.5-1")
def test_request_is_http_with_each_required_header_once() -> None:
    assert build() == (
        b"GET /chat HTTP/1.1\r\n"
        b"Host: server.example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
    )


@pytest.mark.requirement("4.1-14", "4.1-15")
def test_request_has_the_origin_subprotocols_and_further_headers_of_the_caller() -> None:
    request = build(
        origin="http://www.example.com",
        subprotocols=["chat", "superchat"],
        headers=[("Cookie", "a=b"), ("Authorization", "Bearer x")],
    )
    lines = request.decode().split("\r\n")
    assert lines[6:] == [
        "Origin: http://www.example.com",
        "Sec-WebSocket-Protocol: chat, superchat",
        "Cookie: a=b",
        "Authorization: Bearer x",
        "",
        "",
    ]


@pytest.mark.requirement("4.1-14")
def test_origin_that_is_not_ascii_is_refused() -> None:
    with pytest.raises(ValueError):
        build(origin="http://b\u00fccher.example")


@pytest.mark.requirement("4.1-15")
@pytest.mark.parametrize(
    "subprotocols",
    [
        [""],
        ["a b"],
        ["a,b"],
        ["a/b"],
        ["a", "a"],
        ["a", "b", "a"],
        *([f"a{separator}"] for separator in '()<>@,;:\\"/[]?={} \t'),
        ["\x20"],
        ["\x7f"],
        ["caf\u00e9"],
        ["a\r\nX: y"],
        ["a\n"],
    ],
)
def test_offered_subprotocols_that_are_not_unique_tokens_are_refused(
    subprotocols: list[str],
) -> None:
    with pytest.raises(ValueError):
        build(subprotocols=subprotocols)


@pytest.mark.requirement("4.1-15")
def test_offered_subprotocol_may_have_every_character_of_a_token() -> None:
    request = build(subprotocols=["!#$%&'*+-.^_`|~09AZaz", "v2.example.com"])
    assert b"Sec-WebSocket-Protocol: !#$%&'*+-.^_`|~09AZaz, v2.example.com\r\n" in request


@pytest.mark.requirement("4.1-9")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nY: b"),
        ("X", "a\nY: b"),
        ("X", "a\rY: b"),
        ("X", "a\r\n"),
        ("X", "a\0"),
        ("X\r\nY", "a"),
        ("X: y\r\nY", "a"),
        ("X Y", "a"),
        ("X ", "a"),
        (" X", "a"),
        ("", "a"),
        ("caf\u00e9", "a"),
        ("X", "\u20ac"),
    ],
)
def test_further_header_that_would_not_be_one_line_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError):
        build(headers=[(name, value)])


@pytest.mark.requirement("4.1-9")
def test_origin_that_would_be_two_lines_is_refused() -> None:
    with pytest.raises(ValueError):
        build(origin="http://a.example\r\nX: y")


@pytest.mark.requirement("4.1-11", "4.1-12", "11.3.1-1", "11.3.5-1")
@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "UPGRADE",
        "connection",
        "Origin",
        "Content-Length",
        "Sec-WebSocket-Key",
        "sec-websocket-version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Anything",
    ],
)
def test_header_of_the_handshake_itself_is_refused_as_a_further_one(name: str) -> None:
    with pytest.raises(ValueError):
        build(headers=[(name, "x")])


@pytest.mark.requirement("4.1-13")
def test_keys_are_16_bytes_and_never_repeat_even_after_a_restart() -> None:
    keys = [handshake.new_key() for _ in range(600)]
    program = "from rfc6455 import handshake\nfor _ in range(200): print(handshake.new_key())"
    for _ in range(2):
        run = [sys.executable, "-c", program]
        keys += subprocess.check_output(run, cwd=ROOT, text=True, timeout=PATIENCE).split()
    assert len(keys) == len(set(keys)) == 1000
    assert {len(key) for key in keys} == {24}
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


# The response


@pytest.mark.requirement("4.2.2-11")
@pytest.mark.parametrize(
    "status_line",
    [
        b"HTTP/1.1 101 \r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n",
        b"HTTP/1.1 101 \xe9\r\n",
    ],
)
def test_response_may_have_any_reason_phrase_and_further_headers(status_line: bytes) -> None:
    response = handshake.parse_response(
        status_line
        + b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
        + b"Set-Cookie: a=b\r\n"
        + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        + b"Server: x\r\n"
        + b"Connection: Upgrade\r\n"
        + b"Upgrade: websocket\r\n"
        + b"Set-Cookie: c=d\r\n"
        + b"\r\n"
    )
    handshake.check_response(response, KEY, [])
    assert response.headers.get_all("Set-Cookie") == ["a=b", "c=d"]


@pytest.mark.requirement("4.1-22")
@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 1O1 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 0101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1  101 Switching Protocols\r\n\r\n",
        b"http/1.1 101 Switching Protocols\r\n\r\n",
        b" HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\n\r\n\r\n",
        b"HTTP/1.1 101 Switching\rProtocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX : y\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX: y\r\n folded\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX: a\nY: b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX: a\rY: b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX: a\0b\r\n\r\n",
    ],
)
def test_response_that_is_not_http_is_refused(head: bytes) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.parse_response(head)
    assert refusal.value.status == 400


def test_response_that_is_not_http_is_quoted_up_to_a_hundred_bytes() -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.parse_response(b"\x1b" + b"x" * 100 + b"\r\n\r\n")
    quoted = "b'\\x1b" + "x" * 99 + "'"
    assert refusal.value.reason == f"not an HTTP/1.1 response: {quoted}"


@pytest.mark.requirement("4.1-22")
def test_response_that_switches_protocols_in_http_1_0_is_refused() -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.parse_response(b"HTTP/1.0 101 Switching Protocols\r\n\r\n")
    assert refusal.value.status == 101


@pytest.mark.requirement("4.1-22")
def test_response_with_too_many_headers_is_refused() -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 1000 + b"\r\n"
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.parse_response(head)
    assert refusal.value.status == 400


@pytest.mark.requirement("4.1-18", "4.1-23", "4.3-1")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, UPGRADE"},
        {"Connection": "x ,Upgrade"},
        {"Connection": ",,Upgrade,"},
        {"Sec_WebSocket_Accept": f"  {ACCEPT}\t"},
    ],
    ids=str,
)
def test_response_that_accepts_the_handshake_is_accepted(changes: dict[str, str | None]) -> None:
    handshake.check_response(Response(101, "", response_headers(**changes)), KEY, [])


BROKEN_RESPONSES: list[dict[str, str | None]] = [
    {"Upgrade": None},
    {"Upgrade": ""},
    {"Upgrade": "h2c"},
    {"Upgrade": "websocket, foo"},
    {"Upgrade": "websoc\xe2\x84\xaaet"},
    {"Connection": None},
    {"Connection": ""},
    {"Connection": "close"},
    {"Connection": "Upgrades"},
    {"Sec_WebSocket_Accept": None},
    {"Sec_WebSocket_Accept": ""},
    {"Sec_WebSocket_Accept": "s3ppLmbitXaq9kYGzzhZRbK+xOo="},  # another key's
    {"Sec_WebSocket_Accept": "s3pplmbitxaq9kygzzhzrbk+xoo="},  # the right one in lower case
    {"Sec_WebSocket_Accept": f'"{ACCEPT}"'},
    {"Sec_WebSocket_Accept": f"{ACCEPT}, {ACCEPT}"},
    {"Sec_WebSocket_Protocol": ""},
    {"Sec_WebSocket_Protocol": "other"},
    {"Sec_WebSocket_Protocol": "CHAT"},
    {"Sec_WebSocket_Protocol": "chat, superchat"},
]


@pytest.mark.requirement("2.1-1", "4.1-18", "4.1-19", "4.1-21", "4.1-22")
@pytest.mark.parametrize("changes", BROKEN_RESPONSES, ids=str)
def test_response_that_breaks_a_rule_of_the_handshake_is_refused(
    changes: dict[str, str | None],
) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_response(
            Response(101, "", response_headers(**changes)), KEY, ["chat", "superchat"]
        )
    assert refusal.value.status == 101  # the status that came, as InvalidHandshake promises


@pytest.mark.requirement("4.1-22", "11.3.3-1", "11.3.4-2")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Accept", ACCEPT),
        ("Sec-WebSocket-Accept", "OfS0wDaT5NoxF2gqm7Zj2YtetzM="),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Sec-WebSocket-Protocol", "superchat"),
    ],
)
def test_response_with_a_header_twice_is_refused(name: str, value: str) -> None:
    headers = response_headers(Sec_WebSocket_Protocol="chat")
    headers[name] = value
    with pytest.raises(InvalidHandshake):
        handshake.check_response(Response(101, "", headers), KEY, ["chat", "superchat"])


@pytest.mark.requirement("4.1-21")
def test_response_with_a_subprotocol_is_refused_when_none_was_offered() -> None:
    with pytest.raises(InvalidHandshake):
        handshake.check_response(
            Response(101, "", response_headers(Sec_WebSocket_Protocol="chat")), KEY, []
        )


@pytest.mark.requirement("4.1-17", "11.3.5-2")
@pytest.mark.parametrize(
    "status", [100, 102, 200, 204, 301, 302, 400, 401, 403, 404, 426, 500, 503]
)
def test_response_of_another_status_is_refused_with_that_status(status: int) -> None:
    headers = response_headers(Sec_WebSocket_Version="8, 7")
    headers["Sec-WebSocket-Version"] = "0"
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_response(Response(status, "", headers), KEY, [])
    assert refusal.value.status == status
    assert ("Sec-WebSocket-Version", "8, 7") in list(refusal.value.headers)
    assert ("Sec-WebSocket-Version", "0") in list(refusal.value.headers)


# A response that refuses


@pytest.mark.requirement("4.1-17")
@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", b"", "404 Not Found"),
        (b"HTTP/1.0 404 No such thing\r\n\r\n", b"no!", "404 No such thing: no!"),
        (b"HTTP/1.1 403 \r\n\r\n", b"", "403 Forbidden"),
        (b"HTTP/1.1 503\r\n\r\n", b"", "503 Service Unavailable"),
        (b"HTTP/1.1 599 \r\n\r\n", b"", "599"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", b"403 Forbidden: go\n", "403 Forbidden: go"),
        (b"HTTP/1.1 404 Not Found\r\nX : y\r\nno colon\r\n\r\n", b"", "404 Not Found"),
        (b"HTTP/1.1 400 \x1b[31mBad\r\n\r\n", b"\x07\xff", "400 \\x1b[31mBad: \\x07\ufffd"),
    ],
)
def test_refusal_repeats_what_the_server_said(head: bytes, body: bytes, text: str) -> None:
    assert str(handshake.refusal(handshake.parse_response(head), body)) == text


@pytest.mark.requirement("4.1-17")
@pytest.mark.parametrize(
    ("status_line", "text"),
    [
        ("301 Moved", "301 Moved, to /a"),
        ("300 ", "300 Multiple Choices, to /a"),
        ("399 ", "399 to /a"),
        ("299 ", "299"),
        ("400 ", "400 Bad Request"),
        ("401 ", "401 Unauthorized"),
    ],
)
def test_refusal_names_the_location_of_a_redirect_alone(status_line: str, text: str) -> None:
    head = f"HTTP/1.1 {status_line}\r\nLocation: /a\r\n\r\n".encode()
    assert str(handshake.refusal(handshake.parse_response(head), b"")) == text


@pytest.mark.parametrize(
    ("header", "is_shown"),
    [
        ("X: y", True),
        ("Content-Type: text/plain", True),
        ("Content-Type: Text/HTML; charset=utf-8", True),
        ("Content-Type: application/problem+json", True),
        ("Content-Type: application/xml", True),
        ("Content-Type: image/png", False),
        ("Content-Type: application/octet-stream", False),
        ("Content-Type: application/octet-stream; json", False),
        ("Content-Encoding: Identity", True),
        ("Content-Encoding: gzip", False),
    ],
)
def test_refusal_repeats_a_body_only_if_it_is_text(header: str, is_shown: bool) -> None:
    head = f"HTTP/1.1 400 Bad\r\n{header}\r\n\r\n".encode()
    error = handshake.refusal(handshake.parse_response(head), b" a\r\n b ")
    assert error.body == ("a b" if is_shown else "")


@pytest.mark.parametrize(
    ("said", "repeated"),
    [
        (b"x" * 200, "x" * 200),
        (b"x" * 201, "x" * 199 + "\u2026"),
        (b"\xc3\xa9" * 201, "\xe9" * 199 + "\u2026"),
    ],
)
def test_refusal_repeats_at_most_two_hundred_characters(said: bytes, repeated: str) -> None:
    response = handshake.parse_response(b"HTTP/1.1 400 " + said + b"\r\n\r\n")
    error = handshake.refusal(response, said)
    assert (error.reason, error.body) == (repeated, repeated)


def test_client_takes_no_content_type_apart() -> None:
    """The standard library would, to find the parts of a mail, in time that grows as a square."""
    head = b'HTTP/1.1 403 Forbidden\r\nContent-Type: multipart/mixed; a=";;;;;;;;\r\n\r\n'
    headers = handshake.parse_response(head).headers
    assert headers["Content-Type"] == 'multipart/mixed; a=";;;;;;;;'
    assert headers.defects == []

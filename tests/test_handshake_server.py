"""The server's side of the opening handshake (RFC 6455, 4.2): the request, and its response."""

from email.message import Message

import pytest

from heads import headers_of, request_headers
from peers import ACCEPT, KEY
from rfc6455 import InvalidHandshake, handshake

# The request (4.2.1)


def refusal_of(headers: Message, method: str = "GET", version: str = "HTTP/1.1") -> int:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_request(method, version, headers)
    return refusal.value.status


@pytest.mark.requirement("4.2.1-10")
def test_request_with_the_required_headers_alone_is_accepted() -> None:
    handshake.check_request("GET", "HTTP/1.1", request_headers())


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.2", "HTTP/1.10", "HTTP/2.0"])
def test_request_of_http_1_1_or_later_is_accepted(version: str) -> None:
    handshake.check_request("GET", version, request_headers())


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9"])
def test_request_of_an_older_http_is_refused(version: str) -> None:
    assert refusal_of(request_headers(), version=version) == 400


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "get", "CONNECT"])
def test_request_of_another_method_is_refused(method: str) -> None:
    assert refusal_of(request_headers(), method=method) == 405


@pytest.mark.requirement("4.2.1-5", "4.2.1-6", "4.3-1", "2.1-1")
@pytest.mark.parametrize(
    "upgrade",
    ["websocket", "WebSocket", "WEBSOCKET", "foo, websocket", ",websocket ,", "\twebsocket"],
)
@pytest.mark.parametrize(
    "connection", ["Upgrade", "uPGRADE", "keep-alive, Upgrade", ", Upgrade", "x\t,\tupgrade,,y"]
)
def test_request_is_accepted_with_its_upgrade_in_any_case_and_among_other_tokens(
    upgrade: str, connection: str
) -> None:
    headers = request_headers(Upgrade=upgrade, Connection=connection)
    handshake.check_request("GET", "HTTP/1.1", headers)


@pytest.mark.requirement("4.2.1-5", "2.1-1")
@pytest.mark.parametrize(
    "upgrade",
    [
        None,
        "",
        "h2c",
        "websocket2",
        "web socket",
        "websocket/13",
        "websoc\xe2\x84\xaaet",
        "\xa0websocket",
    ],
)
def test_request_without_an_upgrade_to_websocket_is_told_to_upgrade(upgrade: str | None) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_request("GET", "HTTP/1.1", request_headers(Upgrade=upgrade))
    assert refusal.value.status == 426
    assert ("Upgrade", "websocket") in refusal.value.headers


@pytest.mark.requirement("4.2.1-5", "2.1-1")
@pytest.mark.parametrize(
    "connection",
    [None, "", "close", "keep-alive", "Upgrade2", "Up grade", "\xa0Upgrade", "Upgrade; x"],
)
def test_request_whose_connection_header_lacks_upgrade_is_refused(connection: str | None) -> None:
    assert refusal_of(request_headers(Connection=connection)) == 400


@pytest.mark.requirement("4.2.1-6", "4.3-1")
def test_request_may_spread_its_lists_over_several_headers() -> None:
    headers = request_headers()
    del headers["Upgrade"], headers["Connection"]
    for name, value in [
        ("Upgrade", "foo"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive"),
        ("Connection", "Upgrade"),
    ]:
        headers[name] = value
    handshake.check_request("GET", "HTTP/1.1", headers)


@pytest.mark.requirement("4.1-23")
def test_request_names_its_headers_in_any_case() -> None:
    headers = headers_of(
        "hOST: server.example.com",
        "UPGRADE: websocket",
        "connection: Upgrade",
        f"sEC-wEBSOCKET-kEY: {KEY}",
        "SEC-WEBSOCKET-VERSION: 13",
    )
    handshake.check_request("GET", "HTTP/1.1", headers)


@pytest.mark.requirement("4.2.1-7", "4.2.1-8")
@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "????",
        "====",
        "caf\u00e9",
        "dGhlIHNhbXBsZSBub25jZQ",  # without padding
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQ==AAAA",
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25j-_==",  # the other alphabet
        f"{KEY}, {KEY}",
        "AAAAAAAAAAAAAAAAAAAA",  # 15 bytes
        "AAAAAAAAAAAAAAAAAAAAAAA=",  # 17 bytes
        "AAAAAAAAAAAAAAAAAAAAAAAA",  # 18 bytes
    ],
)
def test_request_whose_key_is_not_16_bytes_is_refused(key: str | None) -> None:
    assert refusal_of(request_headers(Sec_WebSocket_Key=key)) == 400


@pytest.mark.requirement("11.3.1-1", "11.3.5-1")
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Sec-WebSocket-Key", [KEY, KEY]),
        ("Sec-WebSocket-Key", [KEY, "AQIDBAUGBwgJCgsMDQ4PEA=="]),
        ("Sec-WebSocket-Version", ["13", "13"]),
        ("Sec-WebSocket-Version", ["13", "8"]),
        ("Sec-WebSocket-Version", ["8", "13"]),
    ],
)
def test_request_with_key_or_version_twice_is_refused(name: str, values: list[str]) -> None:
    headers = request_headers()
    del headers[name]
    for value in values:
        headers[name] = value
    assert refusal_of(headers) == 400


@pytest.mark.requirement("4.2.1-9")
@pytest.mark.parametrize(
    "version",
    [
        None,
        "",
        "013",
        "13.0",
        "+13",
        "-13",
        "x",
        "0x0d",
        "1 3",
        "13, 8",
        "256",
        "1000",
        "\xb913",
        "00",
    ],
)
def test_request_whose_version_is_not_a_number_up_to_255_is_refused(version: str | None) -> None:
    assert refusal_of(request_headers(Sec_WebSocket_Version=version)) == 400


@pytest.mark.requirement("4.4-1")
@pytest.mark.parametrize(
    "version", ["0", "7", "8", "12", "14", "25", "99", "100", "199", "249", "255"]
)
def test_request_of_another_version_is_told_the_supported_one(version: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_request("GET", "HTTP/1.1", request_headers(Sec_WebSocket_Version=version))
    assert refusal.value.status == 426
    assert list(refusal.value.headers) == [("Sec-WebSocket-Version", "13")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Upgrade": None}, "this address accepts WebSocket connections only"),
        ({"Connection": "close"}, "the Connection header does not contain Upgrade"),
        ({"Sec_WebSocket_Key": None}, "the Sec-WebSocket-Key header is missing"),
        ({"Sec_WebSocket_Key": "AQ=="}, "Sec-WebSocket-Key is not 16 bytes in base64"),
        ({"Sec_WebSocket_Version": "x"}, "Sec-WebSocket-Version is not a number from 0 to 255"),
        ({"Sec_WebSocket_Version": "8"}, "WebSocket version 8 is not supported"),
    ],
)
def test_refusal_says_what_is_wrong(changes: dict[str, str | None], reason: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_request("GET", "HTTP/1.1", request_headers(**changes))
    assert refusal.value.reason == reason


# The response (4.2.2)


@pytest.mark.requirement("4.2.2-8")
def test_accept_value_is_the_one_in_the_example_of_the_rfc() -> None:
    assert handshake.accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.requirement("4.2.2-9")
def test_accept_value_is_made_from_the_text_of_the_key_without_white_space_around_it() -> None:
    headers = request_headers(Sec_WebSocket_Key="  AQIDBAUGBwgJCgsMDQ4PEC==\t ")
    handshake.check_request("GET", "HTTP/1.1", headers)
    response = dict(handshake.response_headers(headers, None, None))
    assert response["Sec-WebSocket-Accept"] == "OfS0wDaT5NoxF2gqm7Zj2YtetzM="


@pytest.mark.requirement("4.2.2-5", "4.2.2-6", "4.2.2-7", "4.2.2-8")
def test_response_has_three_headers_when_nothing_else_is_agreed() -> None:
    assert handshake.response_headers(request_headers(), None, None) == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", ACCEPT),
    ]


@pytest.mark.requirement("4.2.2-4", "4.2.2-5", "4.3-1", "11.3.4-1")
@pytest.mark.parametrize(
    ("offered", "supported", "chosen"),
    [
        ([], ["chat"], None),
        (["chat"], [], None),
        (["unknown"], ["chat"], None),
        (["Chat"], ["chat"], None),
        (["chat, superchat"], ["superchat", "x"], "superchat"),
        (["chat, superchat"], ["superchat", "chat"], "chat"),
        (["chat ,, superchat"], ["superchat"], "superchat"),
        ([", chat\t,"], ["chat"], "chat"),
        (["chat", "superchat"], ["superchat"], "superchat"),
        (["!#$%&'*+-.^_`|~09AZaz"], ["!#$%&'*+-.^_`|~09AZaz"], "!#$%&'*+-.^_`|~09AZaz"),
    ],
)
def test_subprotocol_is_the_first_offered_one_that_is_supported(
    offered: list[str], supported: list[str], chosen: str | None
) -> None:
    headers = headers_of(*(f"Sec-WebSocket-Protocol: {value}" for value in offered))
    assert handshake.choose_subprotocol(headers, supported) == chosen


@pytest.mark.requirement("4.2.1-12")
@pytest.mark.parametrize(
    "offered",
    [
        ["a b"],
        ["ch@t"],
        ["chat, chat"],
        ["chat", "chat"],
        ["chat, a/b"],
        ['"chat"'],
        ["chat; q=1"],
        ["caf\u00e9"],
        [""],
        [" , "],
    ],
)
def test_subprotocols_that_are_not_a_list_of_unique_tokens_are_refused(offered: list[str]) -> None:
    headers = headers_of(*(f"Sec-WebSocket-Protocol: {value}" for value in offered))
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.choose_subprotocol(headers, ["chat"])
    assert refusal.value.status == 400

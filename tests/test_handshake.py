"""The opening handshake as functions over headers (RFC 6455, 3, 4, 9.1, 10.2, 11): no socket."""

import base64
import http.client
import io
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest

from peers import ACCEPT, KEY, PATIENCE
from rfc6455 import InvalidHandshake, handshake
from rfc6455.handshake import Authority, Origin, Response

PROJECT = Path(__file__).parent.parent


def message(*lines: str) -> Message:
    """Headers as http.server reads them."""
    text = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return http.client.parse_headers(io.BytesIO(text.encode("latin-1")))


def request_headers(**changes: str | None) -> Message:
    """A good opening handshake's; `changes` replace headers (`_` for `-`), None leaves one out."""
    headers: dict[str, str | None] = {
        "Host": "server.example.com",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    return message(*(f"{name}: {value}" for name, value in headers.items() if value is not None))


def response_headers(**changes: str | None) -> Message:
    """A good 101's to KEY, changed in the same way."""
    headers: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": ACCEPT,
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    return message(*(f"{name}: {value}" for name, value in headers.items() if value is not None))


def refusal_of(headers: Message, method: str = "GET", version: str = "HTTP/1.1") -> int:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_request(method, version, headers)
    return refusal.value.status


# The URL: section 3


@pytest.mark.requirement("3-1")
@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("ws://h/", 80),
        ("wss://h/", 443),
        ("ws://h:/", 80),
        ("wss://h:", 443),
        ("ws://h:443/", 443),
        ("wss://h:80/", 80),
        ("ws://h:1/", 1),
        ("ws://h:65535/", 65535),
    ],
)
def test_port_is_the_schemes_own_where_the_url_names_none(url: str, port: int) -> None:
    assert handshake.parse_url(url).port == port


@pytest.mark.requirement("3-2")
@pytest.mark.parametrize(
    ("url", "secure"),
    [("ws://h/", False), ("Ws://h/", False), ("wss://h/", True), ("WSS://h/", True)],
)
def test_scheme_is_read_in_any_case(url: str, secure: bool) -> None:
    assert handshake.parse_url(url).secure is secure


@pytest.mark.requirement("3-3", "3-5", "11.1.1-2")
@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://h", "/"),
        ("ws://h/", "/"),
        ("ws://h?x=1", "/?x=1"),
        ("ws://h/?", "/"),
        ("ws://h/a/b?x=1&y", "/a/b?x=1&y"),
        ("ws://h/a?b?c/d", "/a?b?c/d"),
        ("ws://h/a;p=1/b:@!$&'()*+,=~", "/a;p=1/b:@!$&'()*+,=~"),
        ("ws://h//a", "//a"),
        ("ws://h/a%23b?c=%23d", "/a%23b?c=%23d"),
        ("ws://h/%e2%82%ac%2F%2525", "/%e2%82%ac%2F%2525"),
        ("ws://h/é?q=€", "/%C3%A9?q=%E2%82%AC"),
        ("ws://h/😀", "/%F0%9F%98%80"),
        ('ws://h/"<>|', "/%22%3C%3E%7C"),
    ],
)
def test_target_is_path_and_query_percent_encoded_once(url: str, target: str) -> None:
    assert handshake.parse_url(url).target == target


@pytest.mark.requirement("3-4")
@pytest.mark.parametrize("url", ["ws://h/a#frag", "ws://h#frag", "ws://h/#", "ws://h/?q#"])
def test_url_with_a_fragment_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="fragment"):
        handshake.parse_url(url)


@pytest.mark.requirement("3-6", "4.1-11")
@pytest.mark.parametrize(
    ("url", "host", "authority"),
    [
        ("ws://h/", "h", "h"),
        ("ws://h:80/", "h", "h"),
        ("ws://h:8080/", "h", "h:8080"),
        ("ws://h:443/", "h", "h:443"),
        ("wss://h:443/", "h", "h"),
        ("wss://h:80/", "h", "h:80"),
        ("ws://server.example.com/", "server.example.com", "server.example.com"),
        ("ws://192.0.2.7:9000/", "192.0.2.7", "192.0.2.7:9000"),
        ("ws://[::1]/", "::1", "[::1]"),
        ("ws://[2001:db8::7]:9000/", "2001:db8::7", "[2001:db8::7]:9000"),
    ],
)
def test_host_is_a_name_or_an_address(url: str, host: str, authority: str) -> None:
    address = handshake.parse_url(url)
    assert (address.host, address.authority) == (host, authority)


@pytest.mark.requirement("11.1.1-1")
def test_host_that_is_not_ascii_becomes_punycode() -> None:
    address = handshake.parse_url("ws://b\u00fccher.example:81/")
    assert address.host == "xn--bcher-kva.example"
    assert address.authority == "xn--bcher-kva.example:81"


@pytest.mark.requirement("4.1-1")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "/chat",
        "//h/",
        "h:80",
        "http://h/",
        "https://h/",
        "wsx://h/",
        "ws:h",
        "ws:/h",
        "ws://",
        "ws:///x",
        "ws://:80/",
        "ws://h:abc/",
        "ws://h:-1/",
        "ws://h:+80/",
        "ws://h:8_0/",
        "ws://h:\u0661/",
        "ws://h:65536/",
        "ws://h:99999/",
        "ws://[::1/",
        "ws://user@h/",
        "ws://user:password@h/",
    ],
)
def test_url_that_is_no_websocket_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        handshake.parse_url(url)


@pytest.mark.requirement("4.1-9")
@pytest.mark.parametrize("character", ["\r\n", "\r", "\n", "\t", " ", "\0", "\x1f", "\x7f"])
@pytest.mark.parametrize(
    "url", ["ws://h{}x/", "ws://h/a{}b", "ws://h/?a{}b", "{}ws://h/", "ws://h/{}"]
)
def test_url_with_a_space_or_control_character_is_refused(url: str, character: str) -> None:
    with pytest.raises(ValueError):
        handshake.parse_url(url.format(character))


# The client's request (4.1)


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
def test_request_has_origin_subprotocols_and_further_headers_where_asked() -> None:
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
def test_request_never_has_an_origin_outside_ascii() -> None:
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
def test_request_refuses_subprotocols_that_are_not_unique_tokens(subprotocols: list[str]) -> None:
    with pytest.raises(ValueError):
        build(subprotocols=subprotocols)


@pytest.mark.requirement("4.1-15")
def test_request_takes_every_character_of_a_token() -> None:
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
def test_request_refuses_what_would_not_be_one_header_line(name: str, value: str) -> None:
    with pytest.raises(ValueError):
        build(headers=[(name, value)])


@pytest.mark.requirement("4.1-9")
def test_request_refuses_an_origin_that_would_be_two_lines() -> None:
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
def test_request_refuses_a_second_of_the_handshakes_own_headers(name: str) -> None:
    with pytest.raises(ValueError):
        build(headers=[(name, "x")])


@pytest.mark.requirement("4.1-13")
def test_keys_are_16_bytes_and_differ_also_after_a_restart() -> None:
    keys = [handshake.new_key() for _ in range(600)]
    program = "from rfc6455 import handshake\nfor _ in range(200): print(handshake.new_key())"
    for _ in range(2):
        run = [sys.executable, "-c", program]
        keys += subprocess.check_output(run, cwd=PROJECT, text=True, timeout=PATIENCE).split()
    assert len(keys) == len(set(keys)) == 1000
    assert {len(key) for key in keys} == {24}
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


# The server reads a request (4.2.1)


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
def test_request_may_upgrade_in_any_case_and_among_others(upgrade: str, connection: str) -> None:
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
    headers = message(
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
def test_request_whose_version_is_no_number_to_255_is_refused(version: str | None) -> None:
    assert refusal_of(request_headers(Sec_WebSocket_Version=version)) == 400


@pytest.mark.requirement("4.4-1")
@pytest.mark.parametrize(
    "version", ["0", "7", "8", "12", "14", "25", "99", "100", "199", "249", "255"]
)
def test_request_of_another_version_is_told_ours(version: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_request("GET", "HTTP/1.1", request_headers(Sec_WebSocket_Version=version))
    assert refusal.value.status == 426
    assert list(refusal.value.headers) == [("Sec-WebSocket-Version", "13")]


# Host and Origin: section 10.2


LOOPBACK = handshake.LOOPBACK_HOSTS


def hosts(*texts: str) -> set[Authority]:
    return {Authority.parse(text) for text in texts}


def origins(*texts: str) -> set[Origin]:
    return {Origin.parse(text) for text in texts}


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("chat.example", "chat.example", None),
        ("Chat.EXAMPLE:8000", "chat.example", 8000),
        ("chat.example.", "chat.example", None),
        ("chat.example.:8000", "chat.example", 8000),
        ("chat.example:", "chat.example", None),
        ("my_host-1:080", "my_host-1", 80),
        ("bücher.example", "xn--bcher-kva.example", None),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("[::1]", "::1", None),
        ("[::1]:8080", "::1", 8080),
        ("[0:0:0:0:0:0:0:1]", "::1", None),
        ("[0000:0000:0000:0000:0000:0000:0000:0001]:8080", "::1", 8080),
        ("[2001:DB8::A]", "2001:db8::a", None),
        ("[fe80::1%25eth0]:80", "fe80::1", 80),
        ("[::ffff:127.0.0.1]", "127.0.0.1", None),
        ("[::ffff:7f00:1]:1", "127.0.0.1", 1),
        # without the brackets that it should have
        ("::1", "::1", None),
        ("::1:8080", "::1", 8080),
        ("fe80::1%eth0", "fe80::1", None),
        ("0:0:0:0:0:0:0:1:8080", "::1", 8080),
        ("0:0:0:0:0:0:0:1", "::1", None),
        ("2001:db8::1:2:8080", "2001:db8::1:2", 8080),
        ("2001:db8::abcd", "2001:db8::abcd", None),
        ("::ffff:127.0.0.2", "127.0.0.2", None),
        # no addresses: names, which are compared as they are
        ("127.1", "127.1", None),
        ("0x7f.1", "0x7f.1", None),
        ("127.0.0.01", "127.0.0.01", None),
    ],
)
def test_host_is_read_as_the_name_or_address_it_means(
    text: str, host: str, port: int | None
) -> None:
    assert Authority.parse(text) == Authority(host, port)
    assert Authority.parse(str(Authority.parse(text))) == Authority(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":8000",
        ".",
        "a..b",
        ".a",
        "chat.example:65536",
        "chat.example:000080",
        "chat.example:-1",
        "chat.example:+1",
        "chat.example:8a",
        "chat.example:\u0663",
        "chat.example:80:80",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]:x",
        "[:1]",
        "[127.0.0.1]",
        "[chat.example]",
        "::1::",
        "1:2:3",
        "http://chat.example",
        "chat.example/",
        "user@chat.example",
        "a b",
        "a,b",
        "a\x1bb",
        "a%2eb",
        "\xff" * 300,
    ],
)
def test_what_is_no_host_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no host name or address|is over 65535"):
        Authority.parse(text)


@pytest.mark.requirement("4.2.1-4")
@pytest.mark.parametrize("allowed", [None, hosts("localhost")])
def test_request_without_host_is_refused_whatever_hosts_are_allowed(
    allowed: set[Authority] | None,
) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(request_headers(Host=None), allowed)
    assert refusal.value.status == 400


def test_request_with_two_hosts_is_refused() -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(message("Host: localhost", "Host: localhost"), LOOPBACK)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost:8000",
        "localhost:",
        "localhost.",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8000",
        "[0:0:0:0:0:0:0:1]:8000",
        "::1",
        "::1:8000",
        "[::ffff:127.0.0.1]:8000",
    ],
)
def test_loopback_hosts_are_allowed_with_any_port(host: str) -> None:
    handshake.check_host(message(f"Host: {host}"), LOOPBACK)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:8000",
        "localhost:8000.evil.example",
        "localhost:80:80",
        "127.0.0.1.evil.example",
        "xlocalhost",
        "evil.localhost",
        "localhost..",
        "127.0.0.1@evil.example",
        "evil.example#localhost",
        "[evil.example]",
        "[::1].evil.example",
        "::1.evil.example",
        "[::1%.evil.example",
        "127.0.0.1%evil.example",
        "127.0.0.2",
        "[::2]",
        "::2:8000",
        "192.168.0.1",
        "",
        ":8000",
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(message(f"Host: {host}"), LOOPBACK)
    assert refusal.value.status == 403


@pytest.mark.parametrize(
    ("host", "could_be_allowed"),
    [
        ("Chat.example:8000", "chat.example"),
        ("[2001:DB8:0:0::1]:8000", "[2001:db8::1]"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("127.0.0.2:80", "127.0.0.2"),
    ],
)
def test_refused_host_is_told_apart_so_that_a_program_can_say_how_to_allow_it(
    host: str, could_be_allowed: str
) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(message(f"Host: {host}"), LOOPBACK)
    assert refusal.value.refused == ("Host", could_be_allowed)
    handshake.check_host(message(f"Host: {host}"), hosts(could_be_allowed))


@pytest.mark.parametrize("host", ["", "localhost:80:80", "a b"])
def test_refused_host_that_nobody_could_allow_is_only_refused(host: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(message(f"Host: {host}"), LOOPBACK)
    assert refusal.value.refused is None


def test_host_may_be_allowed_with_its_port_only() -> None:
    handshake.check_host(message("Host: chat.example:8000"), hosts("chat.example:8000"))
    for other in ("chat.example:8001", "chat.example"):
        with pytest.raises(InvalidHandshake):
            handshake.check_host(message(f"Host: {other}"), hosts("chat.example:8000"))


@pytest.mark.parametrize("allowed", ["chat.example:80", "chat.example:443"])
def test_host_without_a_port_has_that_of_its_scheme(allowed: str) -> None:
    handshake.check_host(message("Host: chat.example"), hosts(allowed))


@pytest.mark.requirement("4.2.1-10", "10.2-1")
def test_request_without_origin_is_not_taken_for_a_browsers() -> None:
    handshake.check_origin(request_headers(), ())


@pytest.mark.requirement("10.2-1")
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("chat.example", "http://chat.example"),
        ("chat.example", "https://chat.example"),
        ("chat.example:8000", "http://chat.example:8000"),
        ("CHAT.example:8000", "HTTP://chat.EXAMPLE:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/"),  # as golang.org/x/net/websocket sends it
        ("localhost:80", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:443", "https://localhost"),
        ("localhost", "https://localhost:443/"),
        ("localhost:", "http://localhost:"),
        ("chat.example:8443", "https://chat.example:8443"),
        ("chat.example:80", "https://chat.example:80"),
        ("::1:8080", "http://[::1]:8080"),
        ("[0:0::1]:8080", "http://[::1]:8080"),
        ("chat.example.", "http://chat.example"),
        ("localhost:8000", "ws://localhost:8000"),
        ("localhost", "wss://localhost"),
        ("localhost:80", "ws://localhost"),
        ("localhost:443", "wss://localhost"),
    ],
)
def test_page_of_the_same_site_is_let_in(host: str, origin: str) -> None:
    handshake.check_origin(request_headers(Host=host, Origin=origin), ())


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("chat.example", "http://chat.example:443"),
        ("chat.example", "https://chat.example:80"),
        ("chat.example:80", "https://chat.example"),
        ("chat.example:443", "http://chat.example"),
        ("chat.example:8000", "http://chat.example"),
        ("chat.example", "http://chat.example:8000"),
        ("chat.example", "http://other.chat.example"),
        ("chat.example:x", "http://chat.example"),
        ("127.0.0.1", "http://127.1"),
    ],
)
def test_page_of_another_port_is_of_another_site(host: str, origin: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Host=host, Origin=origin), ())
    assert refusal.value.status == 403


def test_page_without_tls_is_of_another_site_where_the_server_itself_has_tls() -> None:
    headers = request_headers(Host="chat.example", Origin="http://chat.example")
    with pytest.raises(InvalidHandshake):
        handshake.check_origin(headers, (), secure=True)
    for origin in ("https://chat.example", "https://chat.example:443"):
        headers = request_headers(Host="chat.example", Origin=origin)
        handshake.check_origin(headers, (), secure=True)


@pytest.mark.requirement("4.2.2-2", "10.2-1")
@pytest.mark.parametrize(
    "origin",
    [
        "http://good.example",
        "HTTP://GOOD.example",
        "http://good.example/",
        "http://good.example:80",
    ],
)
@pytest.mark.parametrize("allowed", ["http://good.example", "http://Good.example:80/"])
def test_page_of_an_allowed_site_is_let_in(origin: str, allowed: str) -> None:
    handshake.check_origin(request_headers(Origin=origin), origins(allowed))


@pytest.mark.requirement("4.2.2-2", "10.2-1")
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://good.example.evil.example",
        "http://good.example:81",
        "https://good.example",
        "http://sub.good.example",
        "http://evil.example/http://good.example",
        "http://good.example/path",
        "http://good.example//",
        "http://good.example?",
        "http://good.example#",
        "http://good.example\\",
        "http://good.example@evil.example",
        "http://good.example:80@evil.example",
        "http://evil.example@good.example",
        "http://good.example, http://good.example",
        "http://good.example http://good.example",
        "http:/good.example",
        "http:good.example",
        "//good.example",
        "http://server.example.com.evil.example",
        "http://server.example.com:81",
        "server.example.com",
        "null",
        "",
        "*",
        "file://",
        "file:///",
    ],
)
def test_page_of_another_site_is_refused(origin: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Origin=origin), origins("http://good.example"))
    assert refusal.value.status == 403


@pytest.mark.parametrize("origin", ["capacitor://localhost", "ionic://localhost/"])
def test_page_of_an_app_that_calls_itself_by_our_name_is_refused(origin: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Host="localhost", Origin=origin), set())
    assert refusal.value.status == 403


@pytest.mark.parametrize(
    ("origin", "could_be_allowed"),
    [
        ("http://Evil.example:81", "http://evil.example:81"),
        ("http://evil.example:80/", "http://evil.example"),
        ("https://[2001:DB8::0]:443", "https://[2001:db8::]"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
    ],
)
def test_refused_origin_is_told_apart_so_that_a_program_can_say_how_to_allow_it(
    origin: str, could_be_allowed: str
) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Origin=origin), ())
    assert refusal.value.refused == ("Origin", could_be_allowed)
    assert f"'{could_be_allowed}'" in refusal.value.reason
    handshake.check_origin(request_headers(Origin=origin), origins(could_be_allowed))


def test_refused_origin_that_nobody_could_allow_is_only_refused() -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Origin="null"), ())
    assert refusal.value.refused is None
    assert "'null'" in refusal.value.reason


@pytest.mark.parametrize(
    "text",
    ["foo", "chat.example", "null", "", "http://", "file://", "http://h/x", "http://u@h", "http://*",
     "http://h:65536", "http://h:x", "http://[::1", "http://[h]", "http:// h", " http://h", "1://h"],
)  # fmt: skip
def test_what_is_no_origin_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no origin|is no host name or address|is over 65535"):
        Origin.parse(text)


def test_origin_is_written_as_browsers_write_it() -> None:
    assert str(Origin.parse("HTTPS://Bücher.example:443/")) == "https://xn--bcher-kva.example"
    assert str(Origin.parse("http://[0::1]:8080")) == "http://[::1]:8080"
    assert str(Origin.parse("http://h:443")) == "http://h:443"


@pytest.mark.requirement("4.1-14")
@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("ws://127.0.0.1:8080/echo", "http://127.0.0.1:8080"),
        ("ws://Chat.example/", "http://chat.example"),
        ("WSS://chat.example:443/?a#b".partition("#")[0], "https://chat.example"),
        ("wss://chat.example:80", "https://chat.example:80"),
        ("ws://[::1]:80/", "http://[::1]"),
    ],
)
def test_url_has_an_origin_of_its_own(url: str, origin: str) -> None:
    assert handshake.parse_url(url).origin == origin


@pytest.mark.parametrize("origin", ["null", "http://", "file://"])
def test_origin_without_a_host_is_not_the_same_site_as_an_empty_host(origin: str) -> None:
    with pytest.raises(InvalidHandshake):
        handshake.check_origin(request_headers(Host="", Origin=origin), ())


def test_request_with_two_origins_is_refused() -> None:
    headers = request_headers(Origin="http://good.example")
    headers["Origin"] = "http://evil.example"
    for allowed in (origins("http://good.example", "http://evil.example"), None):
        with pytest.raises(InvalidHandshake):
            handshake.check_origin(headers, allowed)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "file://"])
def test_every_origin_is_let_in_where_any_is_allowed(origin: str) -> None:
    handshake.check_origin(request_headers(Origin=origin), None)


# The server's answer (4.2.2)


@pytest.mark.requirement("4.2.2-8")
def test_accept_value_is_that_of_the_rfc() -> None:
    assert handshake.accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.requirement("4.2.2-9")
def test_accept_value_is_of_the_key_as_it_was_written() -> None:
    headers = request_headers(Sec_WebSocket_Key="  AQIDBAUGBwgJCgsMDQ4PEC==\t ")
    handshake.check_request("GET", "HTTP/1.1", headers)
    response = dict(handshake.response_headers(headers, None, None))
    assert response["Sec-WebSocket-Accept"] == "OfS0wDaT5NoxF2gqm7Zj2YtetzM="


@pytest.mark.requirement("4.2.2-5", "4.2.2-6", "4.2.2-7", "4.2.2-8")
def test_response_has_three_headers_where_nothing_else_is_agreed() -> None:
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
def test_subprotocol_is_the_clients_first_that_is_supported(
    offered: list[str], supported: list[str], chosen: str | None
) -> None:
    headers = message(*(f"Sec-WebSocket-Protocol: {value}" for value in offered))
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
def test_offer_that_is_no_list_of_unique_tokens_is_refused(offered: list[str]) -> None:
    headers = message(*(f"Sec-WebSocket-Protocol: {value}" for value in offered))
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.choose_subprotocol(headers, ["chat"])
    assert refusal.value.status == 400


# Header lines


@pytest.mark.requirement("4.2.1-1", "4.1-22")
@pytest.mark.parametrize(
    "line",
    [b"X: y\r\n", b"X:y\r\n", b"X:\r\n", b"X: \t y \r\n", b"X: \xe9: z\r\n", b"X-1_~: y\r\n"],
)
def test_header_line_may_be(line: bytes) -> None:
    handshake.check_header_line(line)


@pytest.mark.requirement("4.2.1-1", "4.1-22")
@pytest.mark.parametrize(
    "line",
    [
        b"X: y\n",
        b"X: y\r",
        b"X: y",
        b"X: a\rb\r\n",
        b"X: a\nb\r\n",
        b"X: a\0b\r\n",
        b"X: y\r\r\n",
        b"X\r\n",
        b": y\r\n",
        b"X : y\r\n",
        b"X\t: y\r\n",
        b" X: y\r\n",
        b"\tfolded\r\n",
        b"X Y: z\r\n",
        b"\xe9: y\r\n",
        b"(X): y\r\n",
        b"X: y\r\nY: z\r\n",
    ],
)
def test_header_line_may_not_be(line: bytes) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_header_line(line)
    assert refusal.value.status == 400


# The client reads the response (4.1)


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
        b"HTTP/1.0 101 Switching Protocols\r\n\r\n",
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
    with pytest.raises(InvalidHandshake):
        handshake.parse_response(head)


@pytest.mark.requirement("4.1-22")
def test_response_of_too_many_headers_is_refused() -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 1000 + b"\r\n"
    with pytest.raises(InvalidHandshake):
        handshake.parse_response(head)


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
def test_response_that_agrees_opens(changes: dict[str, str | None]) -> None:
    handshake.check_response(Response(101, "", response_headers(**changes)), KEY, [])


BROKEN_AGREEMENTS: list[dict[str, str | None]] = [
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
@pytest.mark.parametrize("changes", BROKEN_AGREEMENTS, ids=str)
def test_response_that_breaks_its_agreement_is_refused(changes: dict[str, str | None]) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_response(
            Response(101, "", response_headers(**changes)), KEY, ["chat", "superchat"]
        )
    assert refusal.value.status == 101  # as received: so InvalidHandshake says


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
def test_response_with_a_subprotocol_is_refused_where_none_was_asked_for() -> None:
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


# Extensions: section 9.1


def extensions(*values: str) -> list[handshake.Extension]:
    return handshake.parse_extensions(
        message(*(f"Sec-WebSocket-Extensions: {value}" for value in values))
    )


@pytest.mark.requirement("9.1-3", "9.1-4", "9.1-5", "4.3-1")
@pytest.mark.parametrize(
    ("values", "parsed"),
    [
        ([], []),
        (["foo"], [("foo", [])]),
        (["foo, bar"], [("foo", []), ("bar", [])]),
        (["foo,,bar ,"], [("foo", []), ("bar", [])]),
        (["foo", "permessage-deflate"], [("foo", []), ("permessage-deflate", [])]),
        (["a, b", "c"], [("a", []), ("b", []), ("c", [])]),
        (["foo, foo"], [("foo", []), ("foo", [])]),
        (["foo; a"], [("foo", [("a", None)])]),
        (["x-foo; a=1; b"], [("x-foo", [("a", "1"), ("b", None)])]),
        (["foo;a=1;a=2"], [("foo", [("a", "1"), ("a", "2")])]),
        (["foo\t;  a = 1 ; b ,bar"], [("foo", [("a", "1"), ("b", None)]), ("bar", [])]),
        (['foo; a="10"'], [("foo", [("a", "10")])]),
        (['foo; a="\\1\\0"'], [("foo", [("a", "10")])]),
        (['foo; a="10"; b="x", bar'], [("foo", [("a", "10"), ("b", "x")]), ("bar", [])]),
    ],
)
def test_extensions_are_read_in_order(values: list[str], parsed: list[handshake.Extension]) -> None:
    assert extensions(*values) == parsed


MALFORMED_EXTENSIONS = [
    "",
    ",",
    ";x",
    "foo;",
    "foo; =1",
    "foo; a=",
    "foo bar",
    'foo; a="b',
    'foo; a=b"',
    'foo; a="1 0"',
    'foo; a="1,0"',
    'foo; a="1\\ 0"',
    'foo; a="1\\',
    'foo; a=""',
    'foo; "a"=b',
    '"foo"',
    "foo; a=b c",
    "foo; a b",
    "foo; a==b",
    "foo;; a",
    "foo=1",
    "foo/1",
    "caf\u00e9",
    "foo; a=\u00e9",
    "good, foo;",
    "foo;, good",
]


@pytest.mark.requirement("9.1-1", "9.1-2", "9.1-3")
@pytest.mark.parametrize("value", MALFORMED_EXTENSIONS)
def test_malformed_extensions_are_refused(value: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        extensions(value)
    assert refusal.value.status == 400


@pytest.mark.requirement("9.1-1", "9.1-4")
@pytest.mark.parametrize("values", [["foo", "bar;"], ["foo;", "bar"]])
def test_malformed_extensions_are_refused_in_any_of_several_lines(values: list[str]) -> None:
    with pytest.raises(InvalidHandshake):
        extensions(*values)


@pytest.mark.requirement("9.1-1", "9.1-2")
def test_long_malformed_extensions_do_not_hold_up_the_process() -> None:
    program = r"""
from email.message import Message
from rfc6455 import InvalidHandshake, handshake
from rfc6455.handshake import Authority, Origin, Response

for value in [
    "foo" + ";a " * 3000 + "!",
    "foo" + " ;a" * 3000 + '"',
    "foo" + " ; a = 1 " * 1500 + '"',
    'foo;a="' + "\\\\a" * 5000,
    "foo" + " " * 15000 + "!",
]:
    headers = Message()
    headers["Sec-WebSocket-Extensions"] = value
    try:
        handshake.parse_extensions(headers)
    except InvalidHandshake:
        print("refused")
"""
    run = [sys.executable, "-c", program]
    output = subprocess.check_output(run, cwd=PROJECT, text=True, timeout=PATIENCE)
    assert output == "refused\n" * 5

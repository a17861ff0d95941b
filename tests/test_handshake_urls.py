"""URLs of WebSockets (RFC 6455, 3): what `parse_url` reads from one, and what it refuses."""

import pytest

from rfc6455 import handshake


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
def test_port_is_the_default_of_the_scheme_when_the_url_has_none(url: str, port: int) -> None:
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
def test_url_that_is_not_a_websocket_url_is_refused(url: str) -> None:
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
def test_url_has_the_origin_of_a_page_at_its_address(url: str, origin: str) -> None:
    assert handshake.parse_url(url).origin == origin

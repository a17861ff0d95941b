"""The Host header: how it is read, and which hosts a server answers to."""

import pytest

from heads import headers_of, request_headers
from rfc6455 import InvalidHandshake, Refused, handshake
from rfc6455.handshake import Authority

LOOPBACK = handshake.LOOPBACK_HOSTS


def hosts(*texts: str) -> set[Authority]:
    return {Authority.parse(text) for text in texts}


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
        # IPv6 without the brackets that it should have
        ("::1", "::1", None),
        ("::1:8080", "::1", 8080),
        ("fe80::1%eth0", "fe80::1", None),
        ("0:0:0:0:0:0:0:1:8080", "::1", 8080),
        ("0:0:0:0:0:0:0:1", "::1", None),
        ("2001:db8::1:2:8080", "2001:db8::1:2", 8080),
        ("2001:db8::abcd", "2001:db8::abcd", None),
        ("::ffff:127.0.0.2", "127.0.0.2", None),
        # not addresses but names
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
        "127.0.0.1%:x",
        "127.0.0.1%x:80",
        "[127.0.0.1%:x]",
        "\xff" * 300,
        "\xff." * 127 + "\xffa",  # 256 characters
        "x" * 1000 + "/",
    ],
)
def test_text_that_is_not_a_host_is_refused_with_a_message(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a host name or address|is over 65535"):
        Authority.parse(text)


def test_text_that_is_not_a_host_is_quoted_up_to_a_hundred_characters() -> None:
    with pytest.raises(ValueError) as error:
        Authority.parse("/" * 101)
    assert str(error.value) == f"'{'/' * 100}' is not a host name or address"


def test_host_name_of_255_characters_may_be_outside_ascii() -> None:
    assert Authority.parse("\xff." * 127 + "\xff").host == "xn--wda." * 127 + "xn--wda"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("128.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::2", False),
        ("localhos", False),
        ("xlocalhost", False),
        ("chat.example", False),
    ],
)
def test_host_is_loopback_when_only_its_own_machine_reaches_it(host: str, expected: bool) -> None:
    assert handshake.is_loopback(host) is expected


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
        handshake.check_host(headers_of("Host: localhost", "Host: localhost"), LOOPBACK)
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
    handshake.check_host(headers_of(f"Host: {host}"), LOOPBACK)


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
def test_hosts_that_are_not_allowed_are_refused(host: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(headers_of(f"Host: {host}"), LOOPBACK)
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
def test_refusal_names_the_host_that_would_have_to_be_allowed(
    host: str, could_be_allowed: str
) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(headers_of(f"Host: {host}"), LOOPBACK)
    assert refusal.value.refused == Refused("Host", could_be_allowed)
    handshake.check_host(headers_of(f"Host: {host}"), hosts(could_be_allowed))


@pytest.mark.parametrize("host", ["", "localhost:80:80", "a b", "/" * 100, "/" * 101])
def test_refusal_names_no_host_when_none_could_be_allowed(host: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(headers_of(f"Host: {host}"), LOOPBACK)
    assert refusal.value.refused is None
    assert refusal.value.reason == f"Host '{host[:100]}' is not allowed"


def test_host_that_is_allowed_with_a_port_is_refused_with_another_or_none() -> None:
    handshake.check_host(headers_of("Host: chat.example:8000"), hosts("chat.example:8000"))
    for other in ("chat.example:8001", "chat.example"):
        with pytest.raises(InvalidHandshake):
            handshake.check_host(headers_of(f"Host: {other}"), hosts("chat.example:8000"))


@pytest.mark.parametrize("allowed", ["chat.example:80", "chat.example:443"])
def test_host_without_a_port_is_allowed_by_the_default_port_of_either_scheme(allowed: str) -> None:
    handshake.check_host(headers_of("Host: chat.example"), hosts(allowed))

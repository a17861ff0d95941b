"""What a server believes of the headers that a reverse proxy adds to a request."""

import pytest

from heads import headers_of, request_headers
from rfc6455 import InvalidHandshake, Refused, handshake
from rfc6455.handshake import Forwarded, parse_network, read_forwarded

PROXY = "10.0.0.1"
TRUSTED = [parse_network("10.0.0.0/24"), parse_network("2001:db8:1::/48")]


def read(*lines: str, address: str = PROXY) -> Forwarded:
    return read_forwarded(headers_of(*lines), address, TRUSTED)


# The client's address


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:DB8:0::1"], "2001:db8::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["fe80::1%eth0"], "fe80::1"),
        (["  192.0.2.1\t"], "192.0.2.1"),
        # with a port, and with brackets
        (["192.0.2.1:50000"], "192.0.2.1"),
        (["[2001:db8::1]:50000"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        # An address without brackets has no port, whatever its last group looks like.
        (["2001:db8::1:5000"], "2001:db8::1:5000"),
        # What the client has sent itself stands before what the proxy has added.
        (["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        (["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        (["nonsense,192.0.2.1"], "192.0.2.1"),
        ([",192.0.2.1"], "192.0.2.1"),
        # Other trusted proxies are passed over.
        (["203.0.113.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.2:80", "[2001:db8:1::2]:80"], "192.0.2.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["192.0.2.1, 10.0.1.2"], "10.0.1.2"),
        # Nothing is believed from the first malformed element on.
        (["192.0.2.1, unknown"], PROXY),
        (["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (["192.0.2.1,"], PROXY),
        ([""], PROXY),
        (["unix:"], PROXY),
        (["192.0.2.256"], PROXY),
        (["192.0.2"], PROXY),
        (["192.0.2.1:"], PROXY),
        (["192.0.2.1:123456"], PROXY),
        (["[192.0.2.1"], PROXY),
        (["[]"], PROXY),
        (["localhost"], PROXY),
        (["192.0.2.1/32"], PROXY),
        (["192.0.2.1 203.0.113.9"], PROXY),
        (['"192.0.2.1"'], PROXY),
        (["1.1.1.\u00b9"], PROXY),
        (["%eth0"], PROXY),
        (["x" * 16000], PROXY),
    ],
)
def test_client_is_the_last_address_that_is_not_a_trusted_proxys(
    values: list[str], client: str
) -> None:
    forwarded = read(*(f"X-Forwarded-For: {value}" for value in values))
    assert forwarded == Forwarded(client, proxy=PROXY, is_trusted=True)


@pytest.mark.parametrize(
    "address", ["10.0.1.1", "192.0.2.7", "2001:db8:2::1", "::1", "127.0.0.1", "unix:"]
)
def test_headers_of_an_address_that_is_not_trusted_are_ignored(address: str) -> None:
    forwarded = read(
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Host: chat.example",
        "X-Forwarded-Proto: https",
        address=address,
    )
    assert forwarded == Forwarded(address, proxy=address)


@pytest.mark.parametrize("address", ["10.0.0.77", "2001:db8:1::7", "::ffff:10.0.0.1"])
def test_headers_of_a_trusted_address_are_believed(address: str) -> None:
    assert read("X-Forwarded-For: 192.0.2.1", address=address).client == "192.0.2.1"


def test_address_that_a_client_makes_up_is_not_believed() -> None:
    """It names a trusted proxy before its own address, which the proxy adds."""
    forwarded = read("X-Forwarded-For: 203.0.113.9, 10.0.0.2", "X-Forwarded-For: 192.0.2.1")
    assert forwarded.client == "192.0.2.1"


def test_request_without_such_headers_comes_from_the_address_that_has_connected() -> None:
    assert read("Forwarded: for=192.0.2.1") == Forwarded(PROXY)
    assert read(address="::ffff:192.0.2.1") == Forwarded("192.0.2.1")


# Scheme and host


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        (["https"], "https"),
        (["http"], "http"),
        (["HTTPS "], "https"),
        (["wss"], "https"),
        (["ws"], "http"),
        (["http, https"], "https"),
        (["https", "http"], "http"),
        (["httpss"], None),
        (["https,"], None),
        ([""], None),
        ([], None),
    ],
)
def test_scheme_is_what_the_last_proxy_says(values: list[str], scheme: str | None) -> None:
    forwarded = read(*(f"X-Forwarded-Proto: {value}" for value in values), "X-Forwarded-Host: h")
    assert forwarded.scheme == scheme


@pytest.mark.parametrize(
    ("values", "host"),
    [
        (["chat.example"], "chat.example"),
        (["chat.example:8443"], "chat.example:8443"),
        (["evil.example, chat.example"], "chat.example"),
        (["evil.example", "chat.example"], "chat.example"),
        (["a b"], "a b"),
        ([""], ""),
        ([], None),
    ],
)
def test_host_is_what_the_last_proxy_says(values: list[str], host: str | None) -> None:
    forwarded = read(*(f"X-Forwarded-Host: {value}" for value in values), "X-Forwarded-Proto: http")
    assert forwarded.host == host


@pytest.mark.parametrize(
    ("host", "scheme", "origin", "is_let_in"),
    [
        ("chat.example", "https", "https://chat.example", True),
        ("chat.example:443", "https", "https://chat.example", True),
        ("chat.example", "https", "http://chat.example", False),
        ("chat.example", "https", "https://chat.example:8443", False),
        ("chat.example:8443", "https", "https://chat.example:8443", True),
        ("chat.example:8443", "https", "http://chat.example:8443", False),
        ("chat.example", "http", "http://chat.example", True),
        ("chat.example", "http", "https://chat.example", False),
        ("chat.example", "https", "https://server.example.com", False),
        ("chat.example", None, "https://chat.example", True),
        ("chat.example", None, "http://chat.example", True),
        (None, "https", "https://server.example.com", True),
        (None, "https", "http://server.example.com", False),
        # A host that is none is not replaced by the one of Host, which may be the proxy's choice.
        ("a b", "https", "https://server.example.com", False),
        ("", "https", "https://server.example.com", False),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
def test_own_page_is_that_of_the_scheme_and_host_that_the_proxy_names(
    host: str | None, scheme: str | None, origin: str, is_let_in: bool, secure: bool
) -> None:
    if secure and scheme is None and origin.startswith("http:"):
        is_let_in = False  # no page without TLS is this server's own, as it speaks TLS itself
    forwarded = Forwarded("192.0.2.1", scheme, host, PROXY, is_trusted=True)
    headers = request_headers(Origin=origin)
    if is_let_in:
        handshake.check_origin(headers, (), secure=secure, forwarded=forwarded)
        return
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(headers, (), secure=secure, forwarded=forwarded)
    assert refusal.value.refused == Refused("Origin", origin, PROXY, is_trusted=True)


def test_host_that_the_proxy_names_is_the_one_that_has_to_be_allowed() -> None:
    headers = headers_of("Host: localhost")
    allowed = {handshake.Authority("chat.example")}
    forwarded = Forwarded("192.0.2.1", None, "chat.example:8443", PROXY, is_trusted=True)
    handshake.check_host(headers, allowed, forwarded)
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(headers, handshake.LOOPBACK_HOSTS, forwarded)
    assert refusal.value.reason == "X-Forwarded-Host 'chat.example:8443' is not allowed"
    assert refusal.value.refused == Refused("Host", "chat.example", PROXY, is_trusted=True)


@pytest.mark.parametrize("host", ["", "a b", "http://localhost"])
def test_host_that_the_proxy_names_and_that_is_none_is_refused(host: str) -> None:
    forwarded = Forwarded("192.0.2.1", None, host, PROXY, is_trusted=True)
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_host(headers_of("Host: localhost"), handshake.LOOPBACK_HOSTS, forwarded)
    assert refusal.value.status == 403


def test_request_has_one_host_also_behind_a_proxy() -> None:
    forwarded = Forwarded("192.0.2.1", None, "localhost", PROXY, is_trusted=True)
    for headers in (headers_of(), headers_of("Host: localhost", "Host: localhost")):
        with pytest.raises(InvalidHandshake) as refusal:
            handshake.check_host(headers, handshake.LOOPBACK_HOSTS, forwarded)
        assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("forwarded", "reason"),
    [
        (Forwarded("192.0.2.1"), "Host is 'server.example.com'"),
        (Forwarded(PROXY, None, "a\x1bb", PROXY, True), r"X-Forwarded-Host is 'a\x1bb'"),
        (
            Forwarded(PROXY, "http", None, PROXY, True),
            "Host is 'server.example.com' and X-Forwarded-Proto is 'http'",
        ),
    ],
)
def test_refusal_names_the_headers_with_which_the_origin_was_compared(
    forwarded: Forwarded, reason: str
) -> None:
    headers = request_headers(Origin="https://chat.example")
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(headers, (), forwarded=forwarded)
    assert refusal.value.reason == f"Origin 'https://chat.example' is not allowed, as {reason}"


# The addresses of proxies


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.5", "10.0.0.5/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::1", "::1/128"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:10.0.0.5", "10.0.0.5/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ],
)
def test_proxy_is_an_address_or_a_network(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    "text", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "*", "[::1]"]
)
def test_text_that_is_neither_an_address_nor_a_network_is_refused_with_a_message(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address such as 10\.0\.0\.5 or a network"):
        parse_network(text)

"""The Origin header: how it is read, and whose pages a server lets in (RFC 6455, 10.2)."""

import pytest

from heads import request_headers
from rfc6455 import InvalidHandshake, Refused, handshake
from rfc6455.handshake import Origin


def origins(*texts: str) -> set[Origin]:
    return {Origin.parse(text) for text in texts}


@pytest.mark.requirement("4.2.1-10", "10.2-1")
def test_request_without_an_origin_is_accepted() -> None:
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
def test_page_of_the_servers_own_host_and_port_is_accepted(host: str, origin: str) -> None:
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
def test_page_of_another_port_or_host_is_refused(host: str, origin: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Host=host, Origin=origin), ())
    assert refusal.value.status == 403


def test_page_without_tls_is_refused_by_a_server_that_itself_speaks_tls() -> None:
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
def test_page_of_an_allowed_origin_is_accepted(origin: str, allowed: str) -> None:
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
def test_page_of_an_origin_that_is_not_allowed_is_refused(origin: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Origin=origin), origins("http://good.example"))
    assert refusal.value.status == 403


@pytest.mark.parametrize("origin", ["capacitor://localhost", "ionic://localhost/"])
def test_page_of_an_app_is_refused_even_if_its_host_is_the_servers(origin: str) -> None:
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
def test_refusal_names_the_origin_that_would_have_to_be_allowed(
    origin: str, could_be_allowed: str
) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Origin=origin), ())
    assert refusal.value.refused == Refused("Origin", could_be_allowed)
    assert f"'{could_be_allowed}'" in refusal.value.reason
    handshake.check_origin(request_headers(Origin=origin), origins(could_be_allowed))


@pytest.mark.parametrize("origin", ["null", "/" * 100, "/" * 101])
def test_refusal_names_no_origin_when_none_could_be_allowed(origin: str) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        handshake.check_origin(request_headers(Origin=origin), ())
    assert refusal.value.refused is None
    assert refusal.value.reason == f"Origin '{origin[:100]}' is not allowed"


@pytest.mark.parametrize(
    "text",
    ["foo", "chat.example", "null", "", "http://", "file://", "http://h/x", "http://u@h", "http://*",
     "http://h:65536", "http://h:x", "http://[::1", "http://[h]", "http:// h", " http://h", "1://h"],
)  # fmt: skip
def test_text_that_is_not_an_origin_is_refused_with_a_message(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not an origin|is not a host name or address|is over 65535"
    ):
        Origin.parse(text)


def test_origin_is_written_as_browsers_write_it() -> None:
    assert str(Origin.parse("HTTPS://Bücher.example:443/")) == "https://xn--bcher-kva.example"
    assert str(Origin.parse("http://[0::1]:8080")) == "http://[::1]:8080"
    assert str(Origin.parse("http://h:443")) == "http://h:443"


@pytest.mark.parametrize("origin", ["null", "http://", "file://"])
def test_origin_without_a_host_does_not_equal_an_empty_host(origin: str) -> None:
    with pytest.raises(InvalidHandshake):
        handshake.check_origin(request_headers(Host="", Origin=origin), ())


def test_request_with_two_origins_is_refused() -> None:
    headers = request_headers(Origin="http://good.example")
    headers["Origin"] = "http://evil.example"
    for allowed in (origins("http://good.example", "http://evil.example"), None):
        with pytest.raises(InvalidHandshake):
            handshake.check_origin(headers, allowed)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "file://"])
def test_every_origin_is_accepted_when_all_are_allowed(origin: str) -> None:
    handshake.check_origin(request_headers(Origin=origin), None)

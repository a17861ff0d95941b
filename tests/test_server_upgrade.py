"""The server's side of the opening handshake (RFC 6455, 4.2-4.4, 9.1, 11.3).

The peers are bare sockets.
"""

import re

import pytest

from fetching import GOOD, HELLO, HELLO_BACK, answers_echo, assert_refused, lets_in, parse
from peers import ACCEPT, answer_to, echo_messages, masked, request, serving, shake_hands, tcp
from rfc6455 import Deflate, Handshake, InvalidHandshake, Timeouts, WebSocket

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")

# What a TLS client sends first, as openssl s_client does, with no LF in it.
CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(range(0x40, 0xC0)) * 3


# The request


@pytest.mark.requirement("4.2.2-6", "4.2.2-7", "4.2.2-8", "11.3.2-1", "11.3.3-1", "11.3.4-2")
def test_server_answers_a_good_handshake_with_a_literal_101_and_nothing_else() -> None:
    with serving(echo_messages) as server, tcp(server) as peer:
        peer.send(request(server))
        assert peer.read_head() == (
            "HTTP/1.1 101 Switching Protocols\r\n"
            "Upgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            "\r\n"
        )
        assert peer.is_silent(0.1)
        assert answers_echo(peer)


@pytest.mark.requirement("2.1-2")
def test_server_reads_frames_in_any_segmentation() -> None:
    with serving(echo_messages) as server, shake_hands(server) as peer:
        for byte in HELLO:
            peer.send(bytes([byte]))
        assert peer.read_frame() == (0x81, b"Hello")
        peer.send(b"".join(masked(0x81, f"{i}".encode()) for i in range(10)))
        assert [peer.read_frame() for _ in range(10)] == [(0x81, b"%d" % i) for i in range(10)]


@pytest.mark.requirement("2.1-2")
def test_server_reads_a_request_that_comes_byte_by_byte() -> None:
    with serving(echo_messages) as server, tcp(server) as peer:
        for byte in GOOD:
            peer.send(bytes([byte]))
        assert peer.read_head().startswith("HTTP/1.1 101 ")
        assert answers_echo(peer)


def test_server_reads_frames_that_come_with_the_request() -> None:
    with serving(echo_messages) as server, tcp(server) as peer:
        peer.send(GOOD + HELLO + HELLO[:3])
        assert peer.read_head().startswith("HTTP/1.1 101 ")
        assert peer.read(7) == HELLO_BACK
        peer.send(HELLO[3:])
        assert peer.read(7) == HELLO_BACK


@pytest.mark.requirement("4.2.1-5", "4.2.1-6", "4.1-23", "4.3-1")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket", b"Upgrade: WebSocket"),
        (b"Connection: Upgrade", b"Connection: uPGRADE"),
        (b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
        (b"Connection: Upgrade", b"Connection: , Upgrade"),
        (b"Upgrade: websocket", b"Upgrade: foo, websocket"),
        (b"Upgrade: websocket", b"UPGRADE:websocket"),
        (b"Sec-WebSocket-Key:", b"sEC-wEBSOCKET-kEY:"),
        (b"Sec-WebSocket-Version: 13", b"SEC-WEBSOCKET-VERSION:\t13 "),
        (b"Host: 127.0.0.1", b"hOST: LOCALHOST"),
    ],
)
def test_server_accepts_a_handshake_in_any_case_and_with_any_white_space(
    old: bytes, new: bytes
) -> None:
    assert old in GOOD
    with serving(echo_messages) as server, tcp(server) as peer:
        peer.send(GOOD.replace(old, new))
        assert f"Sec-WebSocket-Accept: {ACCEPT}\r\n" in peer.read_head()


@pytest.mark.requirement("4.2.1-10", "4.2.1-11")
def test_server_accepts_headers_in_any_order_and_among_unrelated_ones() -> None:
    with serving(echo_messages) as server, tcp(server) as peer:
        peer.send(
            b"GET / HTTP/1.1\r\n"
            b"Cookie: a=b; c=d\r\n"
            b"Sec-WebSocket-Version: 13\r\n"
            b"X-Foo:\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"
            b"Connection: Upgrade\r\n"
            b"Upgrade: websocket\r\n"
            b"X-Foo: \xe9\r\n"
            b"Host: 127.0.0.1\r\n"
            b"\r\n"
        )
        head = peer.read_head()
    assert head.startswith("HTTP/1.1 101 ")
    assert "Sec-WebSocket-Protocol" not in head
    assert "Sec-WebSocket-Extensions" not in head


@pytest.mark.requirement("4.2.2-9")
def test_server_hashes_the_text_of_the_key_as_it_came() -> None:
    with serving(echo_messages) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b" dGhlIHNhbXBsZSBub25jZQ==", b" \t AQIDBAUGBwgJCgsMDQ4PEC==  "))
        assert "Sec-WebSocket-Accept: OfS0wDaT5NoxF2gqm7Zj2YtetzM=\r\n" in peer.read_head()


@pytest.mark.requirement("4.2.1-3")
@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/chat", "/chat ? "),
        ("/chat?", "/chat ? "),
        ("/chat?x=1", "/chat ? x=1"),
        ("/chat?x=%E9&y?z", "/chat ? x=%E9&y?z"),
        ("http://127.0.0.1/chat?x=1", "/chat ? x=1"),
        ("http://localhost:80/chat", "/chat ? "),
        ("https://[::1]:9/chat?x=1", "/chat ? x=1"),
        ("HTTP://127.0.0.1/chat?x=1", "/chat ? x=1"),
    ],
)
def test_server_reads_the_resource_name_from_either_form(target: str, seen: str) -> None:
    def tell(websocket: WebSocket) -> None:
        websocket.send(f"{websocket.path} ? {websocket.query}")

    with serving(tell, path="/chat") as server, shake_hands(server, target) as peer:
        assert peer.read_frame() == (0x81, seen.encode())


@pytest.mark.requirement("4.2.1-3")
@pytest.mark.parametrize(
    "target", ["http://127.0.0.1", "http://127.0.0.1?x=1", "http://127.0.0.1/"]
)
def test_server_reads_an_absolute_uri_without_a_path(target: str) -> None:
    with serving(echo_messages) as server, shake_hands(server, target) as peer:
        assert answers_echo(peer)


BROKEN = {
    "no HTTP": b"HELO x\r\n\r\n",
    "HTTP/0.9": GOOD.replace(b" HTTP/1.1", b""),
    "no version number": GOOD.replace(b"HTTP/1.1", b"HTTP"),
    "version of letters": GOOD.replace(b"HTTP/1.1", b"HTTP/x.y"),
    "lower-case version": GOOD.replace(b"HTTP/1.1", b"http/1.1"),
    "two spaces": GOOD.replace(b"GET / ", b"GET  / "),
    "tab": GOOD.replace(b"GET / ", b"GET\t/ "),
    "space in front": b" " + GOOD,
    "space behind": GOOD.replace(b"HTTP/1.1\r\n", b"HTTP/1.1 \r\n"),
    "no target": GOOD.replace(b"GET / ", b"GET "),
    "target not ASCII": GOOD.replace(b"GET / ", b"GET /?\xc3\xa9 "),
    "NUL in the target": GOOD.replace(b"GET / ", b"GET /?\0 "),
    "DEL in the target": GOOD.replace(b"GET / ", b"GET /?\x7f "),
    "CR in the target": GOOD.replace(b"GET / ", b"GET /?\r "),
    "request line ends in LF": GOOD.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    "request line ends in CR CR LF": GOOD.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\r\n"),
    "header without colon": GOOD.replace(b"\r\n\r\n", b"\r\nno colon\r\n\r\n"),
    "header without name": GOOD.replace(b"\r\n\r\n", b"\r\n: x\r\n\r\n"),
    "space before the colon": GOOD.replace(b"Upgrade: ", b"Upgrade : "),
    "folded header": GOOD.replace(b"Upgrade: websocket", b"Upgrade:\r\n websocket"),
    "space before the first header": GOOD.replace(b"Host:", b" Host:"),
    "header ends in LF": GOOD.replace(b"127.0.0.1\r\n", b"127.0.0.1\n"),
    "header ends in CR": GOOD.replace(b"127.0.0.1\r\n", b"127.0.0.1\r"),
    "CR within a header": GOOD.replace(b"\r\n\r\n", b"\r\nX: a\rb\r\n\r\n"),
    "NUL within a header": GOOD.replace(b"\r\n\r\n", b"\r\nX: a\0b\r\n\r\n"),
    "empty line is LF": GOOD.replace(b"\r\n\r\n", b"\r\n\n"),
    "all lines end in LF": GOOD.replace(b"\r\n", b"\n"),
    "Host missing": GOOD.replace(b"Host: 127.0.0.1\r\n", b""),
    "Host twice": GOOD.replace(b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1\r\n" * 2),
    "Connection missing": GOOD.replace(b"Connection: Upgrade\r\n", b""),
    "Connection: close": GOOD.replace(b"Connection: Upgrade", b"Connection: close"),
    "key missing": GOOD.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
    "key empty": GOOD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b""),
    "key not base64": GOOD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"????"),
    "key of 15 bytes": GOOD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAAAA"),
    "key of 17 bytes": GOOD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAAAAAAA="),
    "version missing": GOOD.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "version 013": GOOD.replace(b"Version: 13", b"Version: 013"),
    "version 13.0": GOOD.replace(b"Version: 13", b"Version: 13.0"),
    "version +13": GOOD.replace(b"Version: 13", b"Version: +13"),
    "version x": GOOD.replace(b"Version: 13", b"Version: x"),
    "version 256": GOOD.replace(b"Version: 13", b"Version: 256"),
}


@pytest.mark.requirement(
    "4.2.1-1", "4.2.1-2", "4.2.1-4", "4.2.1-5", "4.2.1-7", "4.2.1-8", "4.2.1-9"
)
@pytest.mark.parametrize("broken", BROKEN)
def test_server_refuses_a_broken_request(broken: str) -> None:
    assert_refused(BROKEN[broken], 400)


@pytest.mark.requirement("4.2.1-1", "11.3.1-1", "11.3.5-1")
@pytest.mark.parametrize(
    "more",
    [
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Version: 8",
    ],
)
def test_server_refuses_a_second_key_or_version(more: str) -> None:
    assert_refused(GOOD.replace(b"\r\n\r\n", f"\r\n{more}\r\n\r\n".encode()), 400)


@pytest.mark.requirement("4.2.1-1")
def test_server_drops_a_tls_client_on_the_plain_port() -> None:
    opened: list[WebSocket] = []
    timeouts = Timeouts(open_timeout=0.5)
    with serving(opened.append, timeouts=timeouts) as server, tcp(server) as peer:
        peer.send(CLIENT_HELLO + HELLO)
        data = peer.read_to_eof()
    assert data == b"" or data.startswith(b"HTTP/1.1 4")
    assert not opened


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0"])
def test_server_refuses_a_handshake_in_another_version_of_http(version: str) -> None:
    assert_refused(GOOD.replace(b"HTTP/1.1", version.encode()), 400, 505)


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_server_refuses_a_handshake_with_another_method(method: str) -> None:
    answer = assert_refused(GOOD.replace(b"GET", method.encode()), 405)
    assert "GET" in answer.headers["Allow"].split(", ")


@pytest.mark.requirement("4.2.1-2")
@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT", "get", "handle_one_request"])
def test_server_refuses_a_handshake_with_an_unknown_method(method: str) -> None:
    assert_refused(GOOD.replace(b"GET", method.encode()), 400, 405, 501)


@pytest.mark.requirement("2.1-1", "4.2.1-5")
@pytest.mark.parametrize(
    "upgrade", [None, b"Upgrade: h2c\r\n", b"Upgrade: websoc\xe2\x84\xaaet\r\n"]
)
def test_server_tells_a_plain_get_to_upgrade(upgrade: bytes | None) -> None:
    answer = assert_refused(GOOD.replace(b"Upgrade: websocket\r\n", upgrade or b""), 426)
    assert answer.headers.get_all("Upgrade") == ["websocket"]
    options = ", ".join(answer.headers.get_all("Connection", [])).lower().split(", ")
    assert "upgrade" in options  # RFC 9110, 7.8: a message with Upgrade names it here, too


@pytest.mark.requirement("4.4-1")
@pytest.mark.parametrize("version", [b"25", b"8", b"0", b"255"])
def test_server_tells_a_client_of_another_version_which_one_it_speaks(version: bytes) -> None:
    answer = assert_refused(GOOD.replace(b"Version: 13", b"Version: " + version), 426)
    assert answer.headers.get_all("Sec-WebSocket-Version") == ["13"]


@pytest.mark.requirement("4.2.2-3")
@pytest.mark.parametrize("target", [b"/nosuch", b"/", b"/chat/", b"/chat2", b"/Chat", b"/chat%00"])
def test_server_answers_404_for_a_path_without_a_handler(target: bytes) -> None:
    answer = assert_refused(GOOD.replace(b"GET /", b"GET " + target), 404, path="/chat")
    assert int(answer.headers["Content-Length"]) == len(answer.body)


# Subprotocols and extensions


@pytest.mark.requirement("4.2.2-4", "4.2.2-5", "4.3-1", "11.3.4-1", "11.3.4-2")
@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        (["chat, superchat"], "superchat"),
        (["chat ,, superchat"], "superchat"),
        (["chat", "superchat"], "superchat"),
        (["x, superchat"], "x"),
        (["unknown"], None),
        ([], None),
    ],
)
def test_server_chooses_a_subprotocol_that_was_offered(
    lines: list[str], chosen: str | None
) -> None:
    def tell(websocket: WebSocket) -> None:
        websocket.send(str(websocket.subprotocol))

    offers = "".join(f"Sec-WebSocket-Protocol: {line}\r\n" for line in lines)
    with serving(tell, subprotocols=["superchat", "x"]) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"\r\n\r\n", f"\r\n{offers}\r\n".encode()))
        head = peer.read_head()
        assert peer.read_frame() == (0x81, str(chosen).encode())
    found = re.findall(r"\r\nsec-websocket-protocol: ?([^\r]*)", head.lower())
    assert found == ([chosen] if chosen else [])


@pytest.mark.requirement("4.2.1-12")
@pytest.mark.parametrize("offer", ["a b", "ch@t", "chat, chat", ""])
def test_server_refuses_subprotocols_that_are_not_a_list_of_different_tokens(offer: str) -> None:
    line = f"\r\nSec-WebSocket-Protocol: {offer}\r\n\r\n".encode()
    assert_refused(GOOD.replace(b"\r\n\r\n", line), 400, subprotocols=["chat"])


@pytest.mark.requirement("9.1-1", "9.1-3")
@pytest.mark.parametrize("deflate", [None, Deflate()])
@pytest.mark.parametrize(
    "offer", [";x", "foo;", "foo; =1", "foo; a=", "foo bar", 'foo; a="b', 'foo; a="1 0"', ""]
)
def test_server_refuses_malformed_extensions(offer: str, deflate: Deflate | None) -> None:
    line = f"\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n".encode()
    assert_refused(GOOD.replace(b"\r\n\r\n", line), 400, deflate=deflate)


@pytest.mark.requirement("4.2.2-6", "9.1-3", "9.1-4", "9.1-5", "11.3.2-1")
@pytest.mark.parametrize(
    ("lines", "accepted"),
    [
        ([], False),
        (["x-unknown"], False),
        (['foo; a="10"'], False),
        (["permessage-deflate"], True),
        (["x-foo; a=1; b, permessage-deflate"], True),
        (["foo", "permessage-deflate"], True),
        (["permessage-deflate", "foo"], True),
        (["permessage-deflate, permessage-deflate"], True),
    ],
)
def test_server_accepts_the_extension_it_knows_and_ignores_others(
    lines: list[str], accepted: bool
) -> None:
    offers = "".join(f"Sec-WebSocket-Extensions: {line}\r\n" for line in lines)
    with serving(echo_messages, deflate=Deflate()) as server, tcp(server) as peer:
        peer.send(GOOD.replace(b"\r\n\r\n", f"\r\n{offers}\r\n".encode()))
        head = peer.read_head()
    assert head.startswith("HTTP/1.1 101 ")
    found = re.findall(r"\r\nsec-websocket-extensions: ?([^\r;]*)([^\r,]*)\r", head.lower())
    assert [name for name, _ in found] == (["permessage-deflate"] if accepted else [])


@pytest.mark.requirement("4.2.2-6")
def test_server_accepts_no_extension_where_none_is_switched_on() -> None:
    with serving(echo_messages) as server, tcp(server) as peer:
        line = b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        peer.send(GOOD.replace(b"\r\n\r\n", line))
        assert "Sec-WebSocket-Extensions" not in peer.read_head()


# What the program may refuse


def test_server_lets_the_program_refuse_a_handshake() -> None:
    def check(opening: Handshake) -> None:
        if opening.query != "key=1":
            raise InvalidHandshake(401, "who are you?", [("WWW-Authenticate", "Basic")])

    with serving(echo_messages, path="/chat", check=check) as server:
        status, text = answer_to(server, request(server, "/chat?key=2"))
        assert (status, parse(text).headers["WWW-Authenticate"]) == (401, "Basic")
        assert "who are you?" in text
        assert lets_in(server, "/chat?key=1")

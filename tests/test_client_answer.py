"""The response to `connect`: what is accepted as a 101 (RFC 6455, 4.1, 4.2.2, 9.1, 11.3).

The servers are bare sockets.
"""

import pytest

from peers import PATIENCE, Peer, RawServer, after_handshake, response, unmasked
from raw_servers import agreeing, answer_normal_close, refusal_by
from rfc6455 import Deflate, connect

# The response


@pytest.mark.requirement("2.1-2")
def test_client_reads_the_answer_and_frames_in_any_segmentation() -> None:
    def script(peer: Peer) -> None:
        for byte in response(peer.read_head()) + bytes.fromhex("810548656c6c6f"):
            peer.send(bytes([byte]))
        peer.send(b"".join(unmasked(0x81, b"%d" % i) for i in range(10)))
        answer_normal_close(peer)

    with RawServer(script) as server, connect(server.url) as websocket:
        received = [websocket.receive(PATIENCE) for _ in range(11)]
    assert received == ["Hello", *"0123456789"]


@pytest.mark.requirement("4.2.2-10")
def test_client_receives_a_frame_that_came_with_the_answer() -> None:
    def script(peer: Peer) -> None:
        peer.send(response(peer.read_head()) + bytes.fromhex("810548656c6c6f"))
        answer_normal_close(peer)

    with RawServer(script) as server, connect(server.url) as websocket:
        assert websocket.receive(PATIENCE) == "Hello"


@pytest.mark.requirement("4.1-18", "4.1-19", "4.1-23", "4.2.2-11", "4.3-1")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"101 Switching Protocols", b"101 "),
        (b"101 Switching Protocols", b"101 Web Socket Protocol Handshake"),
        (b"Upgrade: websocket", b"uPGRADE:WebSocket"),
        (b"Connection: Upgrade", b"CONNECTION: keep-alive, UPGRADE"),
        (b"Connection: Upgrade", b"Connection: x ,Upgrade"),
        (b"Sec-WebSocket-Accept: ", b"sEC-wEBSOCKET-aCCEPT: \t "),
        (b"\r\n\r\n", b" \t\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nDate: x\r\nServer: y\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"),
    ],
)
def test_client_accepts_any_case_any_reason_phrase_and_further_headers(
    old: bytes, new: bytes
) -> None:
    def script(peer: Peer) -> None:
        answer = response(peer.read_head())
        assert old in answer
        peer.send(answer.replace(old, new))
        answer_normal_close(peer)

    with RawServer(script) as server, connect(server.url):
        pass


@pytest.mark.requirement("2.1-1", "4.1-18", "4.1-19", "4.1-22", "11.3.3-1")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket\r\n", b""),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Upgrade: websocket", b"Upgrade: websoc\xe2\x84\xaaet"),
        (b"Connection: Upgrade\r\n", b""),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Sec-WebSocket-Accept: ", b"X: "),
        (b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
        (b"HTTP/1.1 101", b"garbage"),
        (b"HTTP/1.1 101", b"HTTP/1.0 101"),
        (b"\r\n\r\n", b"\r\nno colon\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nX: a\rb\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nX: a\nb\r\n\r\n"),
        (b"\r\n\r\n", b"\r\n folded\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nX: " + b"a" * 30000 + b"\r\n\r\n"),
        (b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
    ],
)
def test_client_refuses_a_broken_101_and_sends_nothing(old: bytes, new: bytes) -> None:
    def broken(head: str) -> bytes:
        assert old in response(head)
        return response(head).replace(old, new)

    refusal_by(broken)


@pytest.mark.requirement("4.1-19")
def test_client_refuses_the_accept_value_in_lower_case() -> None:
    def broken(head: str) -> bytes:
        start, name, value = response(head).partition(b"Sec-WebSocket-Accept:")
        return start + name + value.lower()

    assert refusal_by(broken).status == 101


@pytest.mark.requirement("4.1-22")
@pytest.mark.parametrize(
    "answer",
    [
        b"\r\n\r\n",
        b"\x00\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        b"x" * 30000,
        b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 4000,
    ],
)
def test_client_refuses_a_response_that_is_not_http(answer: bytes) -> None:
    refusal_by(lambda head: answer)


def test_client_refuses_a_101_in_http_1_0() -> None:
    error = refusal_by(lambda head: response(head).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (error.status, error.reason) == (101, "the server agreed in HTTP/1.0")


# Subprotocols and extensions


@pytest.mark.requirement("4.1-24", "4.1-25")
@pytest.mark.parametrize(
    ("asked", "more", "agreed"),
    [
        (["chat", "superchat"], ["Sec-WebSocket-Protocol: superchat"], "superchat"),
        (["chat", "superchat"], ["sec-websocket-protocol:chat "], "chat"),
        (["chat"], [], None),
        ([], [], None),
    ],
)
def test_client_reports_the_subprotocol_of_the_answer(
    asked: list[str], more: list[str], agreed: str | None
) -> None:
    with agreeing([], *more) as server, connect(server.url, subprotocols=asked) as websocket:
        assert websocket.subprotocol == agreed


@pytest.mark.requirement("4.1-21", "4.1-22", "11.3.4-2")
@pytest.mark.parametrize(
    ("asked", "more"),
    [
        (["chat"], ["Sec-WebSocket-Protocol: other"]),
        (["chat"], ["Sec-WebSocket-Protocol: CHAT"]),
        ([], ["Sec-WebSocket-Protocol: other"]),
        (["chat"], ["Sec-WebSocket-Protocol: "]),
        ([], ["Sec-WebSocket-Protocol: "]),
        (["chat", "superchat"], ["Sec-WebSocket-Protocol: chat, superchat"]),
        (["chat"], ["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat"]),
        (["a", "b"], ["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b"]),
    ],
)
def test_client_refuses_a_subprotocol_it_did_not_ask_for(asked: list[str], more: list[str]) -> None:
    refusal_by(lambda head: response(head, *more), subprotocols=asked)


@pytest.mark.requirement("4.1-20")
@pytest.mark.parametrize("deflate", [None, Deflate()])
@pytest.mark.parametrize(
    "more",
    [
        ["x-foo"],
        ["permessage-deflate, x-foo"],
        ["permessage-deflate", "x-foo"],
        ["permessage-deflate, permessage-deflate"],
        ["PERMESSAGE-DEFLATE2"],
    ],
)
def test_client_refuses_an_extension_it_did_not_offer(
    more: list[str], deflate: Deflate | None
) -> None:
    lines = [f"Sec-WebSocket-Extensions: {value}" for value in more]
    assert refusal_by(lambda head: response(head, *lines), deflate=deflate).status == 101


@pytest.mark.requirement("4.1-20")
def test_client_refuses_permessage_deflate_where_nothing_was_offered() -> None:
    line = "Sec-WebSocket-Extensions: permessage-deflate"
    assert refusal_by(lambda head: response(head, line)).status == 101


@pytest.mark.requirement("9.1-2", "9.1-3")
@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "permessage-deflate;",
        "permessage-deflate; =1",
        "permessage-deflate; a=",
        'permessage-deflate; server_max_window_bits="10',
        'permessage-deflate; server_max_window_bits="1 0"',
        "permessage-deflate server_no_context_takeover",
    ],
)
def test_client_refuses_malformed_extensions(value: str) -> None:
    line = f"Sec-WebSocket-Extensions: {value}"
    refusal_by(lambda head: response(head, line), deflate=Deflate())


@pytest.mark.requirement("9.1-3", "4.1-24")
def test_client_reads_a_quoted_parameter_as_an_unquoted_one() -> None:
    line = 'Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits="10"'
    with agreeing([], line) as server, connect(server.url, deflate=Deflate()) as websocket:
        assert websocket.deflate is not None
        assert websocket.deflate.server_max_window_bits == 10


@pytest.mark.requirement("9.1-6", "4.1-24")
def test_client_does_not_use_an_extension_that_was_not_accepted() -> None:
    def script(peer: Peer) -> None:
        assert peer.read_frame() == (0x81, b"a" * 1000)
        answer_normal_close(peer)

    with after_handshake(script) as server, connect(server.url, deflate=Deflate()) as websocket:
        assert websocket.deflate is None
        websocket.send("a" * 1000)


def test_client_tells_what_the_handshake_contained() -> None:
    with (
        agreeing([], "Set-Cookie: a=b") as server,
        connect(f"{server.url}caf\u00e9?x=1") as websocket,
    ):
        assert (websocket.path, websocket.query) == ("/caf%C3%A9", "x=1")
        assert websocket.headers["set-cookie"] == "a=b"
        assert websocket.peer == f"127.0.0.1:{server.port}"

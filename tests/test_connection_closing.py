"""The end of a connection, over loopback (RFC 6455, 5.5.1, 7): two Closes, then the end of TCP.

How each frame is answered is in `test_protocol_closing`, without a socket.
"""

import logging
import socket
from collections.abc import Callable

import pytest

from pairs import BRISK, CALM, Pair, connected_pair, listen, reset, stand_by
from peers import (
    PATIENCE,
    Peer,
    RawServer,
    after_handshake,
    answer_to,
    close_payload,
    echo_messages,
    eventually,
    masked,
    request,
    response,
    serving,
    tcp,
    unmasked,
    xor,
)
from protocols import both_roles, some_bytes
from rfc6455 import ConnectionClosed, InvalidHandshake, State, connect
from tls import Certificate

# The closing handshake (5.5.1, 7.1.2)


@both_roles
@pytest.mark.requirement("5.5.1-1", "5.5.1-9")
def test_close_sends_code_and_reason_as_asked(role: str) -> None:
    with connected_pair(role) as pair:
        closing = pair.spawn(pair.websocket.close, 4001, "bye")
        if role == "server":
            assert pair.peer.read(7) == bytes.fromhex("88 05 0f a1 62 79 65")
        else:
            assert pair.peer.read(2) == bytes.fromhex("88 85")
            key = pair.peer.read(4)
            assert xor(pair.peer.read(5), key) == bytes.fromhex("0f a1 62 79 65")
        pair.say(0x88, b"\x0f\xa1")
        pair.read_eof()
        pair.peer.close()
        closing.result()
        assert pair.websocket.clean
        assert pair.state() is State.CLOSED


@both_roles
@pytest.mark.requirement("5.5.1-3", "5.5.1-6", "5.5.1-7", "7.1.5-2")
@pytest.mark.parametrize(
    ("payload", "answer", "code", "reason"),
    [(close_payload(4999, "a reason"), (4999, ""), 4999, "a reason"), (b"", (None, ""), 1005, "")],
)
def test_endpoint_answers_a_close_with_the_same_code_and_reports_it(
    role: str, payload: bytes, answer: tuple[int | None, str], code: int, reason: str
) -> None:
    with connected_pair(role) as pair:
        pair.say(0x88, payload)
        assert pair.read_close() == answer
        assert (pair.raised().code, pair.raised().reason) == (code, reason)
        assert (pair.websocket.close_code, pair.websocket.close_reason) == (code, reason)
        assert pair.websocket.clean
        assert pair.remaining_messages() == []


@both_roles
@pytest.mark.requirement("5.5.1-8", "7.1.5-1")
def test_endpoint_still_receives_after_its_own_close(role: str) -> None:
    with connected_pair(role) as pair:
        pair.say(0x01, b"Hel")
        pair.websocket.close(wait=False)
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        pair.say(0x80, b"lo")
        pair.say(0x81, b"whole")
        pair.say(0x88, b"\x0f\xa0")
        pair.read_eof()
        assert pair.raised().code == 4000
        assert pair.remaining_messages() == ["Hello", "whole"]
        assert pair.websocket.clean


@both_roles
@pytest.mark.requirement("5.5.1-6", "5.5.1-7")
def test_endpoint_answers_a_close_while_its_handler_is_busy(role: str) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        pair.say(0x88, b"\x0f\xa0later")
        assert pair.read_close() == (4000, "")
        assert not pair.ended.is_set()
        assert pair.state() is not State.OPEN
        with pytest.raises(ConnectionClosed) as closed:
            pair.websocket.receive()
        assert (closed.value.code, closed.value.reason) == (4000, "later")


@both_roles
@pytest.mark.requirement("5.5.2-2")
def test_endpoint_answers_a_ping_after_its_own_close(role: str) -> None:
    for handler in (listen, stand_by):
        with connected_pair(role, handler, timeouts=BRISK) as pair:
            pair.websocket.close(wait=False)
            assert pair.read_frame() == (0x88, b"\x03\xe8")
            pair.say(0x89, b"x")
            assert pair.read_frame() == (0x8A, b"x")
            pair.say(0x88, b"\x03\xe8")
            pair.read_eof()


@both_roles
@pytest.mark.requirement("5.5.1-5", "6.1-1")
def test_sending_after_close_raises_and_sends_nothing(role: str) -> None:
    with connected_pair(role) as pair:
        pair.websocket.close(wait=False)
        for send in (pair.websocket.send, pair.websocket.post):
            with pytest.raises(ConnectionClosed):
                send("late")
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        pair.say(0x88, b"\x03\xe8")
        pair.read_eof()
        pair.peer.close()
        assert pair.ended.wait(PATIENCE)
        for send in (pair.websocket.send, pair.websocket.post):
            with pytest.raises(ConnectionClosed) as closed:
                send("later")
            assert closed.value.code == 1000


@both_roles
@pytest.mark.requirement("5.5.1-8")
def test_waiting_close_passes_over_messages_and_ends_cleanly(role: str) -> None:
    with connected_pair(role, stand_by) as pair:
        pair.say(0x01, b"Hel")
        closing = pair.spawn(pair.websocket.close)
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        pair.say(0x80, b"lo")
        pair.say(0x82, some_bytes(100_000))
        assert closing.running
        pair.say(0x88, b"\x0f\xa0")
        pair.read_eof()
        pair.peer.close()
        closing.result()
        assert pair.websocket.clean
        assert pair.websocket.close_code == 4000


@both_roles
def test_closing_again_does_nothing(role: str) -> None:
    with connected_pair(role, stand_by) as pair:
        first, second = (pair.spawn(pair.websocket.close, 4000 + i) for i in range(2))
        frame = pair.read_frame()
        assert frame in [(0x88, b"\x0f\xa0"), (0x88, b"\x0f\xa1")]
        pair.websocket.close(4002, wait=False)
        pair.say(0x88, b"\x03\xe8")
        pair.read_eof()
        pair.peer.close()
        first.result()
        second.result()
        pair.websocket.close(4003)
        assert pair.websocket.close_code == 1000
        with pytest.raises(ConnectionClosed) as closed:
            pair.websocket.receive()
        assert closed.value.code == 1000


@pytest.mark.requirement("7.3-1", "5.1-5")
def test_client_takes_a_close_directly_behind_the_handshake() -> None:
    with connected_pair("client", early=bytes.fromhex("88 02 03 e8")) as pair:
        assert pair.read_close() == (1000, "")
        assert pair.raised().code == 1000
        assert pair.websocket.clean


@both_roles
@pytest.mark.requirement("7.3-3")
def test_leaving_the_scope_of_a_connection_closes_with_1000(role: str) -> None:
    with connected_pair(role, lambda pair: None) as pair:
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        pair.say(0x88, b"\x03\xe8")
        pair.read_eof()
        pair.peer.close()
        assert eventually(lambda: pair.state() is State.CLOSED)
        assert pair.websocket.clean


# Who ends TCP, and when (7.1.1)


@pytest.mark.requirement("5.5.1-9")
def test_server_ends_tcp_once_both_close_frames_have_passed() -> None:
    with connected_pair("server", stand_by, timeouts=BRISK) as pair:
        pair.say(0x88, b"\x03\xe8")
        assert pair.peer.read_close() == (1000, "")
    with connected_pair("server", stand_by, timeouts=BRISK) as pair:
        pair.websocket.close(wait=False)
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        pair.say(0x88, b"\x03\xe8")
        assert pair.peer.read_to_eof() == b""


@pytest.mark.requirement("5.5.1-10")
@pytest.mark.parametrize("starts", ["client", "server"])
def test_client_ends_tcp_when_the_server_does_not(starts: str) -> None:
    with connected_pair("client", timeouts=CALM._replace(close_timeout=0.4)) as pair:
        if starts == "client":
            closing = pair.spawn(pair.websocket.close)
            assert pair.read_frame() == (0x88, b"\x03\xe8")
            pair.say(0x88, b"\x03\xe8")
        else:
            pair.say(0x88, b"\x03\xe8")
            assert pair.read_frame() == (0x88, b"\x03\xe8")
            closing = pair.spawn(pair.websocket.close)
        assert pair.peer.read_to_eof() == b""
        closing.result()
        assert pair.state() is State.CLOSED
        assert pair.websocket.clean


@pytest.mark.requirement("5.5.1-11")
@pytest.mark.parametrize("starts", ["client", "server"])
def test_client_waits_for_the_server_to_end_tcp_first(starts: str) -> None:
    with connected_pair("client") as pair:
        if starts == "client":
            pair.websocket.close(wait=False)
            assert pair.read_frame() == (0x88, b"\x03\xe8")
            pair.say(0x88, b"\x03\xe8")
        else:
            pair.say(0x88, b"\x03\xe8")
            assert pair.read_frame() == (0x88, b"\x03\xe8")
        assert pair.peer.is_silent(0.2)
        pair.read_eof()
        assert pair.raised().code == 1000


@pytest.mark.requirement("5.5.1-12", "7.1.4-1")
def test_client_may_end_tcp_itself_once_both_close_frames_have_passed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with connected_pair("server") as pair:
        pair.say(0x88, b"\x0f\xa0done")
        assert pair.read_frame() == (0x88, b"\x0f\xa0")
        reset(pair.peer)
        assert (pair.raised().code, pair.raised().reason) == (4000, "done")
        assert pair.websocket.clean
        assert eventually(lambda: pair.state() is State.CLOSED)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.requirement("5.5.1-10")
@pytest.mark.parametrize("ending", [0x88, 0x83], ids=["close", "failure"])
def test_client_that_forgets_to_close_lets_go_of_tcp_all_the_same(ending: int) -> None:
    def script(peer: Peer) -> None:
        peer.send(unmasked(ending, b"\x03\xe8"))
        assert peer.read_frame().first == 0x88
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.read_to_eof() == b""

    with after_handshake(script) as server:
        websocket = connect(server.url, timeouts=BRISK)
        with pytest.raises(ConnectionClosed):
            websocket.receive()
        assert eventually(lambda: websocket.state is State.CLOSED)


@both_roles
@pytest.mark.requirement("7.1.3-1")
def test_state_is_closing_from_the_first_close_sent_until_tcp_has_ended(role: str) -> None:
    with connected_pair(role) as pair:
        assert pair.state() is State.OPEN
        pair.websocket.close(wait=False)
        assert pair.state() is State.CLOSE_SENT
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        assert pair.state() is State.CLOSE_SENT
        pair.say(0x88, b"\x03\xe8")
        pair.read_eof()
        pair.peer.close()
        assert eventually(lambda: pair.state() is State.CLOSED)


@both_roles
@pytest.mark.requirement("7.1.3-1")
def test_state_is_closing_from_the_first_close_received_until_tcp_has_ended(role: str) -> None:
    with connected_pair(role, stand_by, timeouts=BRISK) as pair:
        pair.say(0x88, b"\x03\xe8")
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        assert eventually(lambda: pair.state() is not State.OPEN)
        assert pair.state() is State.CLOSE_EXCHANGED
        pair.peer.close()
        pair.leave.set()
        assert eventually(lambda: pair.state() is State.CLOSED)


# The peer reads the Close and then EOF, and no reset (7.1.1)


@both_roles
@pytest.mark.requirement("7.1.1-1")
def test_peer_that_sent_64_kib_behind_its_close_reads_ours_and_then_eof(role: str) -> None:
    with connected_pair(role) as pair:
        pair.peer.send(pair.frame(0x88, b"\x03\xe8") + bytes(65536))
        assert pair.read_close() == (1000, "")
        assert pair.raised().code == 1000


@both_roles
@pytest.mark.requirement("7.1.1-1")
def test_peer_that_sent_64_kib_behind_its_close_over_tls_reads_ours_and_then_close_notify(
    role: str, certificate: Certificate
) -> None:
    with connected_pair(role, certificate=certificate) as pair:
        pair.peer.send(pair.frame(0x88, b"\x03\xe8") + bytes(65536))
        assert pair.read_close() == (1000, "")
        assert pair.raised().code == 1000


@both_roles
@pytest.mark.requirement("7.1.1-1", "7.1.7-3")
def test_peer_that_sent_64_kib_behind_a_bad_frame_reads_our_close_and_then_eof(role: str) -> None:
    with connected_pair(role) as pair:
        pair.peer.send(pair.frame(0x83) + bytes(65536))
        assert pair.peer.read_close()[0] == 1002
        assert pair.remaining_messages() == []


@pytest.mark.requirement("7.1.1-1", "7.4.1-2")
@pytest.mark.parametrize(
    ("role", "header"),
    [
        ("server", "82 ff 00 00 00 00 00 80 00 00 00 00 00 00"),
        ("client", "82 7f 00 00 00 00 00 80 00 00"),
    ],
)
def test_peer_that_sends_all_of_a_refused_message_reads_the_close_and_eof(
    role: str, header: str
) -> None:
    with connected_pair(role) as pair:
        pair.peer.send(bytes.fromhex(header) + bytes(8 << 20))
        assert pair.peer.read_close()[0] == 1009
        assert pair.remaining_messages() == []


# Failing the connection (7.1.7)


@both_roles
@pytest.mark.requirement("7.1.7-1", "8.1-1")
def test_endpoint_that_fails_the_connection_says_why_and_ends_tcp(role: str) -> None:
    with connected_pair(role) as pair:
        pair.say(0x81, b"not UTF-8: \xff")
        assert pair.peer.read_close() == (1007, "the text is not UTF-8")
        assert pair.remaining_messages() == []
        assert (pair.raised().code, pair.raised().reason) == (1006, "the text is not UTF-8")
        assert not pair.websocket.clean


@both_roles
@pytest.mark.requirement("7.1.7-3")
def test_endpoint_that_has_failed_the_connection_processes_nothing_more(
    role: str,
) -> None:
    with connected_pair(role) as pair:
        pair.say(0x83)
        first, payload = pair.read_frame()
        assert (first, payload[:2]) == (0x88, b"\x03\xea")
        pair.say(0x81, b"text")
        pair.say(0x89, b"p")
        pair.say(0x88, b"\x0f\xa0")
        assert pair.peer.read_to_eof() == b""
        pair.peer.close()
        assert pair.remaining_messages() == []
        assert pair.raised().code == 1006
        assert not pair.websocket.clean


@both_roles
@pytest.mark.parametrize("handler", [listen, stand_by])
@pytest.mark.requirement("7.1.7-3")
def test_failed_connection_keeps_its_end_until_the_peer_has_stopped_sending(
    role: str, handler: Callable[[Pair], None]
) -> None:
    with connected_pair(role, handler, timeouts=BRISK, max_message=100) as pair:
        data = pair.frame(0x81, b"not UTF-8: \xff") + pair.frame(0x82, bytes(100))
        pair.peer.send(data[:-50])
        if handler is stand_by:
            with pytest.raises(ConnectionClosed):
                pair.websocket.receive()
        assert pair.read_frame().payload[:2] == b"\x03\xef"
        for _ in range(6):
            pair.peer.send(bytes(1000))
            assert pair.peer.is_silent(0.1)
        assert pair.peer.read_to_eof() == b""


@both_roles
@pytest.mark.requirement("7.1.7-1")
def test_failed_connection_ends_though_the_peer_keeps_its_socket_open(role: str) -> None:
    with connected_pair(role, timeouts=CALM._replace(close_timeout=0.4)) as pair:
        pair.say(0x83)
        assert pair.peer.read_close()[0] == 1002
        assert eventually(lambda: pair.state() is State.CLOSED)


@pytest.mark.requirement("7.1.7-4")
def test_server_logs_why_it_failed_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rfc6455"), connected_pair("server") as pair:
        pair.say(0x83)
        pair.peer.read_close()
        name = "127.0.0.1:{1}".format(*pair.peer.sock.getsockname())
        lines = [record.getMessage() for record in caplog.records]
        assert [line for line in lines if name in line and "1002" in line and "opcode" in line]


# Connections that are cut (7.1.5)


@both_roles
@pytest.mark.requirement("7.1.4-1", "7.1.5-3", "7.2.1-1")
@pytest.mark.parametrize("end", [Peer.close, reset])
@pytest.mark.parametrize("size", [0, 1, 2, 4], ids=["idle", "header", "length", "frame"])
def test_connection_cut_without_a_close_is_1006_and_not_clean(
    role: str, size: int, end: Callable[[Peer], None]
) -> None:
    with connected_pair(role) as pair:
        pair.peer.send(pair.frame(0x81, b"Hello")[:size])
        end(pair.peer)
        assert pair.raised().code == 1006
        assert pair.websocket.close_code == 1006
        assert pair.raised().reason
        assert eventually(lambda: pair.state() is State.CLOSED)
        assert not pair.websocket.clean
        assert pair.remaining_messages() == []
        with pytest.raises(ConnectionClosed):
            pair.websocket.send("late")


@both_roles
@pytest.mark.requirement("7.1.4-1", "7.1.5-3")
def test_connection_cut_after_its_own_close_is_not_clean(role: str) -> None:
    with connected_pair(role) as pair:
        closing = pair.spawn(pair.websocket.close)
        assert pair.read_frame() == (0x88, b"\x03\xe8")
        pair.peer.close()
        closing.result()
        assert not pair.websocket.clean
        assert pair.websocket.close_code == 1006
        assert pair.state() is State.CLOSED


@pytest.mark.requirement("7.2.1-1", "6.1-1")
def test_client_that_only_sends_learns_of_the_loss() -> None:
    def send_forever(pair: Pair) -> None:
        while not pair.leave.wait(0.005):
            pair.websocket.send("anybody there?")

    with connected_pair("client", send_forever) as pair:
        reset(pair.peer)
        assert pair.raised().code == 1006
        assert pair.state() is State.CLOSED


# Handshakes that failed (7.2)


@pytest.mark.requirement("7.2.1-1")
@pytest.mark.parametrize("size", [0, 1, 40, 128])
def test_connect_raises_when_the_server_ends_tcp_in_mid_handshake(size: int) -> None:
    def script(peer: Peer) -> None:
        peer.send(response(peer.read_head())[:size])

    with RawServer(script) as server, pytest.raises(OSError, match="ended"):
        connect(server.url, timeouts=CALM)


@pytest.mark.requirement("7.2.1-2", "7.1.4-1", "8.1-3")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Accept: ", b"Accept: x"),
        (b"Upgrade: websocket", b"Upgrade: web"),
        (b" 101 ", b" 200 "),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xff\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: \xff\r\n\r\n"),
    ],
)
def test_client_that_refuses_the_handshake_ends_tcp_without_a_frame(old: bytes, new: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.send(response(peer.read_head()).replace(old, new))
        assert peer.read_to_eof() == b""

    with RawServer(script) as server, pytest.raises(InvalidHandshake):
        connect(server.url, timeouts=CALM)


@pytest.mark.requirement("7.2.2-1", "8.1-3")
@pytest.mark.parametrize(
    ("target", "changes"),
    [
        ("/", {"Sec_WebSocket_Key": "short"}),
        ("/", {"Sec_WebSocket_Protocol": "\xff"}),
        ("/", {"Sec_WebSocket_Extensions": "\xff"}),
        ("/\xff", {}),
        ("/?name=\xff", {}),
    ],
)
def test_server_that_refuses_the_handshake_answers_in_http_without_a_frame(
    target: str, changes: dict[str, str]
) -> None:
    with serving(echo_messages, timeouts=CALM) as server:
        status, text = answer_to(server, request(server, target, **changes) + masked(0x81, b"a"))
        assert status == 400
        head, _, body = text.partition("\r\n\r\n")
        assert f"Content-Length: {len(body)}\r\n" in head
        assert body.isascii()


@pytest.mark.requirement("7.2.2-1")
@pytest.mark.parametrize("size", [0, 1, 60])
def test_server_ends_a_handshake_that_stalls_without_a_frame(size: int) -> None:
    with (
        serving(echo_messages, timeouts=CALM._replace(open_timeout=0.4)) as server,
        tcp(server) as peer,
    ):
        peer.send(request(server)[:size])
        answer = peer.read_to_eof()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert b"\x88" not in answer

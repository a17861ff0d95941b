"""The end of a connection, over loopback (RFC 6455, 5.5.1, 7): two Closes, then the end of TCP.

How each frame is answered is in `test_protocol_closing`, without a socket.
"""

import logging
import socket
from collections.abc import Callable

import pytest

from meeting import BRISK, CALM, Meeting, listen, meeting, reset, stand_by
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
    with meeting(role) as met:
        closing = met.spawn(met.websocket.close, 4001, "bye")
        if role == "server":
            assert met.peer.read(7) == bytes.fromhex("88 05 0f a1 62 79 65")
        else:
            assert met.peer.read(2) == bytes.fromhex("88 85")
            key = met.peer.read(4)
            assert xor(met.peer.read(5), key) == bytes.fromhex("0f a1 62 79 65")
        met.say(0x88, b"\x0f\xa1")
        met.read_eof()
        met.peer.close()
        closing.result()
        assert met.websocket.clean
        assert met.state() is State.CLOSED


@both_roles
@pytest.mark.requirement("5.5.1-3", "5.5.1-6", "5.5.1-7", "7.1.5-2")
@pytest.mark.parametrize(
    ("payload", "answer", "code", "reason"),
    [(close_payload(4999, "a reason"), (4999, ""), 4999, "a reason"), (b"", (None, ""), 1005, "")],
)
def test_endpoint_answers_a_close_with_the_same_code_and_reports_it(
    role: str, payload: bytes, answer: tuple[int | None, str], code: int, reason: str
) -> None:
    with meeting(role) as met:
        met.say(0x88, payload)
        assert met.read_close() == answer
        assert (met.outcome().code, met.outcome().reason) == (code, reason)
        assert (met.websocket.close_code, met.websocket.close_reason) == (code, reason)
        assert met.websocket.clean
        assert met.rest() == []


@both_roles
@pytest.mark.requirement("5.5.1-8", "7.1.5-1")
def test_endpoint_still_receives_after_its_own_close(role: str) -> None:
    with meeting(role) as met:
        met.say(0x01, b"Hel")
        met.websocket.close(wait=False)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x80, b"lo")
        met.say(0x81, b"whole")
        met.say(0x88, b"\x0f\xa0")
        met.read_eof()
        assert met.outcome().code == 4000
        assert met.rest() == ["Hello", "whole"]
        assert met.websocket.clean


@both_roles
@pytest.mark.requirement("5.5.1-6", "5.5.1-7")
def test_endpoint_answers_a_close_while_its_handler_is_busy(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        met.say(0x88, b"\x0f\xa0later")
        assert met.read_close() == (4000, "")
        assert not met.ended.is_set()
        assert met.state() is not State.OPEN
        with pytest.raises(ConnectionClosed) as closed:
            met.websocket.receive()
        assert (closed.value.code, closed.value.reason) == (4000, "later")


@both_roles
@pytest.mark.requirement("5.5.2-2")
def test_endpoint_answers_a_ping_after_its_own_close(role: str) -> None:
    for life in (listen, stand_by):
        with meeting(role, life, timeouts=BRISK) as met:
            met.websocket.close(wait=False)
            assert met.read_frame() == (0x88, b"\x03\xe8")
            met.say(0x89, b"x")
            assert met.read_frame() == (0x8A, b"x")
            met.say(0x88, b"\x03\xe8")
            met.read_eof()


@both_roles
@pytest.mark.requirement("5.5.1-5", "6.1-1")
def test_sending_after_close_raises_and_sends_nothing(role: str) -> None:
    with meeting(role) as met:
        met.websocket.close(wait=False)
        for send in (met.websocket.send, met.websocket.post):
            with pytest.raises(ConnectionClosed):
                send("late")
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x88, b"\x03\xe8")
        met.read_eof()
        met.peer.close()
        assert met.ended.wait(PATIENCE)
        for send in (met.websocket.send, met.websocket.post):
            with pytest.raises(ConnectionClosed) as closed:
                send("later")
            assert closed.value.code == 1000


@both_roles
@pytest.mark.requirement("5.5.1-8")
def test_waiting_close_passes_over_messages_and_ends_cleanly(role: str) -> None:
    with meeting(role, stand_by) as met:
        met.say(0x01, b"Hel")
        closing = met.spawn(met.websocket.close)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x80, b"lo")
        met.say(0x82, some_bytes(100_000))
        assert closing.running
        met.say(0x88, b"\x0f\xa0")
        met.read_eof()
        met.peer.close()
        closing.result()
        assert met.websocket.clean
        assert met.websocket.close_code == 4000


@both_roles
def test_closing_again_does_nothing(role: str) -> None:
    with meeting(role, stand_by) as met:
        first, second = (met.spawn(met.websocket.close, 4000 + i) for i in range(2))
        frame = met.read_frame()
        assert frame in [(0x88, b"\x0f\xa0"), (0x88, b"\x0f\xa1")]
        met.websocket.close(4002, wait=False)
        met.say(0x88, b"\x03\xe8")
        met.read_eof()
        met.peer.close()
        first.result()
        second.result()
        met.websocket.close(4003)
        assert met.websocket.close_code == 1000
        with pytest.raises(ConnectionClosed) as closed:
            met.websocket.receive()
        assert closed.value.code == 1000


@pytest.mark.requirement("7.3-1", "5.1-5")
def test_client_takes_a_close_directly_behind_the_handshake() -> None:
    with meeting("client", early=bytes.fromhex("88 02 03 e8")) as met:
        assert met.read_close() == (1000, "")
        assert met.outcome().code == 1000
        assert met.websocket.clean


@both_roles
@pytest.mark.requirement("7.3-3")
def test_leaving_the_scope_of_a_connection_closes_with_1000(role: str) -> None:
    with meeting(role, lambda met: None) as met:
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x88, b"\x03\xe8")
        met.read_eof()
        met.peer.close()
        assert eventually(lambda: met.state() is State.CLOSED)
        assert met.websocket.clean


# Who ends TCP, and when (7.1.1)


@pytest.mark.requirement("5.5.1-9")
def test_server_ends_tcp_once_both_close_frames_have_passed() -> None:
    with meeting("server", stand_by, timeouts=BRISK) as met:
        met.say(0x88, b"\x03\xe8")
        assert met.peer.read_close() == (1000, "")
    with meeting("server", stand_by, timeouts=BRISK) as met:
        met.websocket.close(wait=False)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.say(0x88, b"\x03\xe8")
        assert met.peer.read_to_eof() == b""


@pytest.mark.requirement("5.5.1-10")
@pytest.mark.parametrize("starts", ["client", "server"])
def test_client_ends_tcp_when_the_server_does_not(starts: str) -> None:
    with meeting("client", timeouts=CALM._replace(close_timeout=0.4)) as met:
        if starts == "client":
            closing = met.spawn(met.websocket.close)
            assert met.read_frame() == (0x88, b"\x03\xe8")
            met.say(0x88, b"\x03\xe8")
        else:
            met.say(0x88, b"\x03\xe8")
            assert met.read_frame() == (0x88, b"\x03\xe8")
            closing = met.spawn(met.websocket.close)
        assert met.peer.read_to_eof() == b""
        closing.result()
        assert met.state() is State.CLOSED
        assert met.websocket.clean


@pytest.mark.requirement("5.5.1-11")
@pytest.mark.parametrize("starts", ["client", "server"])
def test_client_waits_for_the_server_to_end_tcp_first(starts: str) -> None:
    with meeting("client") as met:
        if starts == "client":
            met.websocket.close(wait=False)
            assert met.read_frame() == (0x88, b"\x03\xe8")
            met.say(0x88, b"\x03\xe8")
        else:
            met.say(0x88, b"\x03\xe8")
            assert met.read_frame() == (0x88, b"\x03\xe8")
        assert met.peer.is_silent(0.2)
        met.read_eof()
        assert met.outcome().code == 1000


@pytest.mark.requirement("5.5.1-12", "7.1.4-1")
def test_client_may_end_tcp_itself_once_both_close_frames_have_passed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with meeting("server") as met:
        met.say(0x88, b"\x0f\xa0done")
        assert met.read_frame() == (0x88, b"\x0f\xa0")
        reset(met.peer)
        assert (met.outcome().code, met.outcome().reason) == (4000, "done")
        assert met.websocket.clean
        assert eventually(lambda: met.state() is State.CLOSED)
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
    with meeting(role) as met:
        assert met.state() is State.OPEN
        met.websocket.close(wait=False)
        assert met.state() is State.CLOSE_SENT
        assert met.read_frame() == (0x88, b"\x03\xe8")
        assert met.state() is State.CLOSE_SENT
        met.say(0x88, b"\x03\xe8")
        met.read_eof()
        met.peer.close()
        assert eventually(lambda: met.state() is State.CLOSED)


@both_roles
@pytest.mark.requirement("7.1.3-1")
def test_state_is_closing_from_the_first_close_received_until_tcp_has_ended(role: str) -> None:
    with meeting(role, stand_by, timeouts=BRISK) as met:
        met.say(0x88, b"\x03\xe8")
        assert met.read_frame() == (0x88, b"\x03\xe8")
        assert eventually(lambda: met.state() is not State.OPEN)
        assert met.state() is State.CLOSE_EXCHANGED
        met.peer.close()
        met.leave.set()
        assert eventually(lambda: met.state() is State.CLOSED)


# The peer reads the Close and then EOF, and no reset (7.1.1)


@both_roles
@pytest.mark.requirement("7.1.1-1")
def test_peer_that_sent_64_kib_behind_its_close_reads_ours_and_then_eof(role: str) -> None:
    with meeting(role) as met:
        met.peer.send(met.frame(0x88, b"\x03\xe8") + bytes(65536))
        assert met.read_close() == (1000, "")
        assert met.outcome().code == 1000


@both_roles
@pytest.mark.requirement("7.1.1-1")
def test_peer_that_sent_64_kib_behind_its_close_over_tls_reads_ours_and_then_close_notify(
    role: str, certificate: Certificate
) -> None:
    with meeting(role, certificate=certificate) as met:
        met.peer.send(met.frame(0x88, b"\x03\xe8") + bytes(65536))
        assert met.read_close() == (1000, "")
        assert met.outcome().code == 1000


@both_roles
@pytest.mark.requirement("7.1.1-1", "7.1.7-3")
def test_peer_that_sent_64_kib_behind_a_bad_frame_reads_our_close_and_then_eof(role: str) -> None:
    with meeting(role) as met:
        met.peer.send(met.frame(0x83) + bytes(65536))
        assert met.peer.read_close()[0] == 1002
        assert met.rest() == []


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
    with meeting(role) as met:
        met.peer.send(bytes.fromhex(header) + bytes(8 << 20))
        assert met.peer.read_close()[0] == 1009
        assert met.rest() == []


# Failing the connection (7.1.7)


@both_roles
@pytest.mark.requirement("7.1.7-1", "8.1-1")
def test_endpoint_that_fails_the_connection_says_why_and_ends_tcp(role: str) -> None:
    with meeting(role) as met:
        met.say(0x81, b"not UTF-8: \xff")
        assert met.peer.read_close() == (1007, "the text is not UTF-8")
        assert met.rest() == []
        assert (met.outcome().code, met.outcome().reason) == (1006, "the text is not UTF-8")
        assert not met.websocket.clean


@both_roles
@pytest.mark.requirement("7.1.7-3")
def test_endpoint_that_has_failed_the_connection_processes_nothing_more(
    role: str,
) -> None:
    with meeting(role) as met:
        met.say(0x83)
        first, payload = met.read_frame()
        assert (first, payload[:2]) == (0x88, b"\x03\xea")
        met.say(0x81, b"text")
        met.say(0x89, b"p")
        met.say(0x88, b"\x0f\xa0")
        assert met.peer.read_to_eof() == b""
        met.peer.close()
        assert met.rest() == []
        assert met.outcome().code == 1006
        assert not met.websocket.clean


@both_roles
@pytest.mark.parametrize("life", [listen, stand_by])
@pytest.mark.requirement("7.1.7-3")
def test_failed_connection_keeps_its_end_until_the_peer_has_stopped_sending(
    role: str, life: Callable[[Meeting], None]
) -> None:
    with meeting(role, life, timeouts=BRISK, max_message=100) as met:
        data = met.frame(0x81, b"not UTF-8: \xff") + met.frame(0x82, bytes(100))
        met.peer.send(data[:-50])
        if life is stand_by:
            with pytest.raises(ConnectionClosed):
                met.websocket.receive()
        assert met.read_frame().payload[:2] == b"\x03\xef"
        for _ in range(6):
            met.peer.send(bytes(1000))
            assert met.peer.is_silent(0.1)
        assert met.peer.read_to_eof() == b""


@both_roles
@pytest.mark.requirement("7.1.7-1")
def test_failed_connection_ends_though_the_peer_keeps_its_socket_open(role: str) -> None:
    with meeting(role, timeouts=CALM._replace(close_timeout=0.4)) as met:
        met.say(0x83)
        assert met.peer.read_close()[0] == 1002
        assert eventually(lambda: met.state() is State.CLOSED)


@pytest.mark.requirement("7.1.7-4")
def test_server_logs_why_it_failed_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rfc6455"), meeting("server") as met:
        met.say(0x83)
        met.peer.read_close()
        name = "127.0.0.1:{1}".format(*met.peer.sock.getsockname())
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
    with meeting(role) as met:
        met.peer.send(met.frame(0x81, b"Hello")[:size])
        end(met.peer)
        assert met.outcome().code == 1006
        assert met.websocket.close_code == 1006
        assert met.outcome().reason
        assert eventually(lambda: met.state() is State.CLOSED)
        assert not met.websocket.clean
        assert met.rest() == []
        with pytest.raises(ConnectionClosed):
            met.websocket.send("late")


@both_roles
@pytest.mark.requirement("7.1.4-1", "7.1.5-3")
def test_connection_cut_after_its_own_close_is_not_clean(role: str) -> None:
    with meeting(role) as met:
        closing = met.spawn(met.websocket.close)
        assert met.read_frame() == (0x88, b"\x03\xe8")
        met.peer.close()
        closing.result()
        assert not met.websocket.clean
        assert met.websocket.close_code == 1006
        assert met.state() is State.CLOSED


@pytest.mark.requirement("7.2.1-1", "6.1-1")
def test_client_that_only_sends_learns_of_the_loss() -> None:
    def send_forever(met: Meeting) -> None:
        while not met.leave.wait(0.005):
            met.websocket.send("anybody there?")

    with meeting("client", send_forever) as met:
        reset(met.peer)
        assert met.outcome().code == 1006
        assert met.state() is State.CLOSED


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

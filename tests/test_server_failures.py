"""What a program's own functions fail with, a server answers and logs."""

import pytest

from peers import echo_messages, request, serving, tcp
from rfc6455 import Handshake, InvalidHandshake


def test_server_answers_500_where_the_programs_check_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def check(handshake: Handshake) -> None:
        raise KeyError("a fault of the program")

    with serving(echo_messages, check=check) as server, tcp(server) as peer:
        peer.send(request(server))
        assert peer.read_head().startswith("HTTP/1.1 500 Internal Server Error\r\n")
        assert peer.read_to_eof().endswith(b": internal error\n")
    assert any(record.exc_info for record in caplog.records)


def test_server_answers_with_a_status_that_the_program_has_invented() -> None:
    def check(handshake: Handshake) -> None:
        raise InvalidHandshake(499, "not today")

    with serving(echo_messages, check=check) as server, tcp(server) as peer:
        peer.send(request(server))
        assert peer.read_head().startswith("HTTP/1.1 499 ")
        assert peer.read_to_eof() == b"499 Refused: not today\n"

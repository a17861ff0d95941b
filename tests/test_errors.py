"""The exceptions: which close codes may be sent, how `Close` cuts a reason, and what each says."""

import pytest

from peers import masked, serving, shake_hands
from rfc6455 import Close, ConnectionClosed, InvalidHandshake, ProtocolError, WebSocket
from rfc6455.errors import is_sendable


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (-1, False),
        (0, False),
        (999, False),
        (1000, True),
        (1003, True),
        (1004, False),
        (1005, False),
        (1006, False),
        (1007, True),
        (1011, True),
        (1012, True),
        (1014, True),
        (1015, False),
        (1016, False),
        (2999, False),
        (3000, True),
        (4999, True),
        (5000, False),
        (65536, False),
    ],
)
@pytest.mark.requirement("7.4.1-5", "7.4.2-1", "7.4.2-2")
def test_close_code_may_be_sent_if_it_is_defined_or_free_to_use(code: int, expected: bool) -> None:
    assert is_sendable(code) is expected


# A handler's Close

CLOSES = [
    (1000, "", b"\x03\xe8"),
    (1008, "too long a name", b"\x03\xf0too long a name"),
    (4999, "你好", b"\x13\x87\xe4\xbd\xa0\xe5\xa5\xbd"),
    (1003, "x" * 123, b"\x03\xeb" + b"x" * 123),
    (1003, "x" * 124, b"\x03\xeb" + b"x" * 123),
    (1008, "x" + "好" * 41, b"\x03\xf0x" + b"\xe5\xa5\xbd" * 40),
    (1008, "half \ud83e", b"\x03\xf0half ?"),
]


@pytest.mark.parametrize(("code", "reason", "payload"), CLOSES)
@pytest.mark.requirement("7.4.1-5")
def test_reason_of_a_close_is_cut_between_characters_so_that_it_fits_a_frame(
    code: int, reason: str, payload: bytes
) -> None:
    close = Close(code, reason)
    assert close.code.to_bytes(2, "big") + close.reason.encode() == payload
    assert str(close) == f"{close.code} {close.reason}".strip()


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1010, 1015, 2999, 5000, 65536, -1])
@pytest.mark.requirement("7.4.1-5")
def test_close_with_a_code_that_a_server_may_not_send_is_a_value_error(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        Close(code)


@pytest.mark.parametrize(("code", "reason", "payload"), CLOSES)
@pytest.mark.requirement("7.4.1-5")
def test_handler_that_raises_close_closes_with_its_code_and_reason_and_without_a_trace(
    code: int, reason: str, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(websocket: WebSocket) -> None:
        for _ in websocket:
            raise Close(code, reason)

    with serving(refuse) as server, shake_hands(server) as peer:
        peer.send(masked(0x81, b"a") + masked(0x81, b"b"))
        assert peer.read_frame() == (0x88, payload)
        peer.send(masked(0x88, payload))
        assert peer.read_to_eof() == b""
    assert "Traceback" not in caplog.text


# What the exceptions say


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ProtocolError(1002, "a reserved bit is set"), "1002 a reserved bit is set"),
        (ConnectionClosed(1000, ""), "1000"),
        (ConnectionClosed(1001, "good night"), "1001 good night"),
        (InvalidHandshake(404, "Not Found"), "404 Not Found"),
        (InvalidHandshake(599, ""), "599"),
        (InvalidHandshake(404, "Not Found", body="no such page"), "404 Not Found: no such page"),
        (InvalidHandshake(404, "Not Found", body="404 Not Found: no"), "404 Not Found: no"),
    ],
)
def test_exception_says_its_code_and_reason(error: Exception, text: str) -> None:
    assert str(error) == text

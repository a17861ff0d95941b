"""`Close`, the exception with which a handler closes: the frame that it becomes, and its limits."""

import pytest

from peers import masked, serving, shake_hands
from rfc6455 import Close, WebSocket


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, "", b"\x03\xe8"),
        (1008, "too long a name", b"\x03\xf0too long a name"),
        (4999, "你好", b"\x13\x87\xe4\xbd\xa0\xe5\xa5\xbd"),
        (1003, "x" * 123, b"\x03\xeb" + b"x" * 123),
        (1003, "x" * 124, b"\x03\xeb" + b"x" * 123),
        (1008, "x" + "好" * 41, b"\x03\xf0x" + b"\xe5\xa5\xbd" * 40),
        (1008, "half \ud83e", b"\x03\xf0half ?"),
    ],
)
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


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1010, 1015, 2999, 5000, 65536, -1])
@pytest.mark.requirement("7.4.1-5")
def test_code_that_a_server_may_not_send_is_refused_where_it_is_written(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        Close(code)

"""Options of the layer that make no sense are refused where a server or a client takes them."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from peers import PATIENCE, echo_messages, masked, serving, shake_hands
from rfc6455 import Deflate, Timeouts, WebSocketServer, connect


def make_server(**options: Any) -> None:
    WebSocketServer(("127.0.0.1", 0), {}, **options).server_close()


def make_client(**options: Any) -> None:
    """Nothing listens there, but the options are looked at first."""
    connect("ws://127.0.0.1:1/", **options)


both_sides = pytest.mark.parametrize("make", [make_server, make_client])


@both_sides
@pytest.mark.parametrize("name", Timeouts._fields)
@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, -math.inf])
def test_time_that_is_not_positive_is_refused(
    make: Callable[..., None], name: str, seconds: float
) -> None:
    timeouts = Timeouts(**{name: seconds})
    with pytest.raises(ValueError, match=f"^{name} must be a positive number of seconds, not "):
        make(timeouts=timeouts)


@both_sides
@pytest.mark.parametrize(
    ("deflate", "words"),
    [
        (Deflate(server_max_window_bits=3), "server_max_window_bits must be from 8 to 15, not 3"),
        (Deflate(server_max_window_bits=0), "server_max_window_bits must be from 8 to 15, not 0"),
        (Deflate(server_max_window_bits=16), "server_max_window_bits must be from 8 to 15, not 16"),
        (
            Deflate(client_max_window_bits=7),
            "client_max_window_bits must be 0 or from 8 to 15, not 7",
        ),
        (
            Deflate(client_max_window_bits=-15),
            "client_max_window_bits must be 0 or from 8 to 15, not -15",
        ),
        (Deflate(threshold=-1), "threshold must not be negative, but is -1"),
    ],
)
def test_parameter_of_deflate_that_does_not_exist_is_refused(
    make: Callable[..., None], deflate: Deflate, words: str
) -> None:
    with pytest.raises(ValueError) as raised:
        make(deflate=deflate)
    assert str(raised.value) == words


@pytest.mark.parametrize("deflate", [Deflate(False, False, 8, 0, 0), Deflate(True, True, 15, 8)])
def test_values_at_the_edges_are_taken(deflate: Deflate) -> None:
    forever = Timeouts(*[math.inf] * len(Timeouts._fields))
    make_server(timeouts=forever, deflate=deflate)
    make_server(timeouts=Timeouts(*[0.001] * len(Timeouts._fields)), deflate=deflate)


@pytest.mark.parametrize("name", Timeouts._fields)
def test_time_without_end_is_no_limit(name: str) -> None:
    timeouts = Timeouts(**{name: math.inf})
    with serving(echo_messages, timeouts=timeouts) as server:
        with connect(f"ws://127.0.0.1:{server.server_port}/", timeouts=timeouts) as websocket:
            websocket.send("hello")
            assert websocket.receive(PATIENCE) == "hello"
        assert websocket.close_code == 1000
        with shake_hands(server) as peer:
            peer.send(masked(0x01, b"half"))
            assert peer.is_silent(0.2)
            peer.send(masked(0x80, b""))
            assert peer.read_frame() == (0x81, b"half")

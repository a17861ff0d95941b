"""Inputs over loopback TCP: our server against a bare peer, and our client against a bare server.

The peers are the harness's own. Where one of them finds its connection gone, it tells whether our
side was free to drop it.
"""

import contextlib
import logging
import random
import re
import socket
from collections.abc import Sequence
from typing import Self

from fuzzing.checks import (
    assert_equal,
    check_endpoint,
    expected_answer,
    may_be_wrong_twice,
    read_answer,
)
from fuzzing.faults import HarnessFault, blaming, blaming_shortage
from fuzzing.generator import (
    PLAIN_RESPONSE,
    REQUEST,
    RESPONSE,
    head_of,
    random_head,
    random_input,
)
from fuzzing.ours import read_stream
from fuzzing.outcomes import MAX_MESSAGE, OPEN, Input
from peers import ACCEPT, Peer, RawServer, accept_value, serving, shake_hands, tcp
from rfc6455 import ConnectionClosed, Deflate, InvalidHandshake, WebSocket, connect

# What our server agrees to, when it is offered as `offer_of` says.
AGREEMENTS = (None, Deflate(True, False), Deflate(True, True), Deflate(True, True, 10))


class ErrorLog(logging.Handler):
    """Keeps what the layer logs as an error: an exception that nobody foresaw."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Network:
    """An echoing server of ours for many inputs, and a client of ours for each that needs one.

    Use it in a `with` statement. Raises HarnessFault where the system has no socket for it.
    """

    def __init__(self) -> None:
        self.errors = ErrorLog()
        log = logging.getLogger("rfc6455")
        with contextlib.ExitStack() as stack, blaming_shortage():
            log.addHandler(self.errors)
            stack.callback(log.removeHandler, self.errors)
            self.server = stack.enter_context(
                serving(
                    echo_each, deflate=Deflate(), max_message=MAX_MESSAGE, subprotocols=["chat"]
                )
            )
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def check_no_error(self) -> None:
        """Raises AssertionError with all that the layer has logged as an error since the last."""
        texts = [logging.Formatter().format(record) for record in self.errors.records]
        self.errors.records.clear()
        assert not texts, "the layer logged an error: " + "\n".join(texts)

    def check_stream(self, item: Input) -> None:
        """Over TCP our server sends the same as without a socket, to the byte."""
        assert item.role == "server"
        ours = read_stream(item.role, item.agreed, item.pieces)
        without_socket = check_endpoint(item, ours)
        with blaming_shortage():
            peer = shake_hands(self.server, Sec_WebSocket_Extensions=offer_of(item.agreed))
        with peer:
            answer = converse(peer, item.pieces, then_end=ours.outcome.end == OPEN)
        if answer != without_socket:  # TCP may have cut the stream elsewhere
            assert may_be_wrong_twice(item.agreed, ours), f"{answer!r}, not {without_socket!r}"
            read = read_answer(item, answer)
            assert_equal("events in the answer", read.events, expected_answer(ours).events)
            assert read.end.code in (1007, 1009), read.end
        self.check_no_error()

    def check_bytes(self, data: bytes) -> None:
        """Whatever comes instead of a handshake, our server answers with HTTP or nothing."""
        with blaming_shortage():
            peer = tcp(self.server)
        with peer:
            answer = converse(peer, [data], then_end=True)
        assert answer == b"" or re.match(rb"HTTP/1\.1 (101|4[0-9]{2}|50[0-9]) ", answer), answer
        self.check_no_error()

    def check_client(self, response: bytes, after: bytes) -> None:
        """Our client ends in one of the ways that its documentation names."""
        answerer = Answerer(response, after)
        agreed = False
        with blaming_shortage(), RawServer(answerer.answer) as server:
            try:
                agreed = use_client(server.url)
            except TimeoutError:
                if server.accepted:
                    raise
            if not server.accepted:
                raise HarnessFault("the harness's server accepted no connection")
        if agreed and answerer.lost:
            raise AssertionError("our client reset the connection") from answerer.lost
        self.check_no_error()


def echo_each(websocket: WebSocket) -> None:
    for message in websocket:
        websocket.send(message)


def offer_of(agreed: Deflate | None) -> str | None:
    """The offer to which our server answers with this agreement."""
    if agreed is None:
        return None
    offer = f"permessage-deflate; server_max_window_bits={agreed.server_max_window_bits}"
    return offer + ("; client_no_context_takeover" if agreed.client_no_context_takeover else "")


def converse(peer: Peer, pieces: Sequence[bytes], *, then_end: bool) -> bytes:
    """Send these pieces to our server, and read its answer to the end of TCP.

    With `then_end` this side ends TCP after the last piece. Our server has to read what comes and
    may not reset the connection, whichever call of the peer's notices it.
    """
    try:
        for piece in pieces:
            peer.send(piece)
        if then_end:
            peer.sock.shutdown(socket.SHUT_WR)
        return peer.read_to_eof()
    except TimeoutError:
        raise
    except OSError as error:
        raise AssertionError("our server reset the connection") from error


def use_client(url: str) -> bool:
    """Our client connects and echoes; whether it agreed to the handshake."""
    agreed = False
    try:
        with connect(
            url, deflate=Deflate(), subprotocols=["chat"], max_message=MAX_MESSAGE
        ) as websocket:
            agreed = True
            echo_each(websocket)
    except (InvalidHandshake, ConnectionClosed, ConnectionError):
        pass
    return agreed


class Answerer:
    """A bare server's side: it answers any request with the same bytes, and ends TCP."""

    def __init__(self, response: bytes, after: bytes) -> None:
        """The accept value of RFC 6455, 1.3, is replaced by what the client's key asks for."""
        self._response = response
        self._after = after
        self.lost: OSError | None = None  # how the connection went away, if the client dropped it

    def answer(self, peer: Peer) -> None:
        """Raises TimeoutError where the client does not end, EOFError where it sends no request."""
        key = key_in(peer.read_head())
        response = self._response.replace(ACCEPT.encode(), accept_value(key).encode())
        try:
            peer.send(response + self._after)
            peer.sock.shutdown(socket.SHUT_WR)
            peer.read_to_eof()
        except TimeoutError:
            raise
        except OSError as error:  # a client that refuses the handshake need not read everything
            self.lost = error


def key_in(head: str) -> str:
    keys = re.findall(r"^Sec-WebSocket-Key: (.*)\r$", head, re.MULTILINE)
    assert len(keys) == 1, head
    return str(keys[0])


def check_over_tcp(network: Network, r: random.Random) -> str:
    """Check a random input over TCP; the kind of it."""
    kind = r.random()
    if kind < 0.6:
        with blaming("the generator"):
            item = random_input(r, AGREEMENTS, ("server",))
        network.check_stream(item)
        return "streams to our server over TCP"
    if kind < 0.75:
        with blaming("the generator"):
            request = random_request(r)
        network.check_bytes(request)
        return "handshakes to our server over TCP"
    with blaming("the generator"):
        stream = b"".join(random_input(r, (None,), ("client",)).pieces)
        response = random_response(r)
    network.check_client(response, stream)
    return "responses and streams to our client over TCP"


def random_request(r: random.Random) -> bytes:
    """Random bytes or a damaged head, and a stream of frames after it."""
    head = r.randbytes(r.randrange(80)) if r.random() < 0.2 else random_head(REQUEST, r)
    return head + b"".join(random_input(r, (None,), ("server",)).pieces)


def random_response(r: random.Random) -> bytes:
    """A damaged head or a good one, or random bytes."""
    head = random_head(RESPONSE, r) if r.random() < 0.5 else head_of(PLAIN_RESPONSE)
    return head if r.random() < 0.9 else r.randbytes(r.randrange(80))

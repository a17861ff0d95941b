"""Clients of a chat that runs in the test's own process: real connections over loopback.

A guest has two ends: the WebSocket that the chat holds, and the bare socket on the other side. Its
handler only waits, so the test calls the chat's functions itself, in the order that it wants.
"""

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import chat_server
from chat.history import SqliteHistory
from chat.options import Options
from peers import PATIENCE, Peer, serving, shake_hands
from rfc6455 import WebSocket


class Guest(NamedTuple):
    """Both ends of one connection."""

    websocket: WebSocket
    peer: Peer


@contextlib.contextmanager
def guests(count: int) -> Iterator[list[Guest]]:
    arrived: queue.Queue[WebSocket] = queue.Queue()
    leave = threading.Event()

    def stay(websocket: WebSocket) -> None:
        arrived.put(websocket)
        leave.wait(6 * PATIENCE)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(stay, "/ws"))
        found = []
        for _ in range(count):
            peer = stack.enter_context(shake_hands(server, "/ws"))
            found.append(Guest(arrived.get(timeout=PATIENCE), peer))
        stack.callback(leave.set)
        yield found


@contextlib.contextmanager
def broken_sending(*websockets: WebSocket) -> Iterator[None]:
    """Whatever is sent to these clients fails in a way that nobody foresaw."""
    broken = {each.peer for each in websockets}
    send = socket.socket.send

    def fail_for_them(sock: socket.socket, data: bytes, flags: int = 0) -> int:
        host, port = sock.getpeername()
        if f"{host}:{port}" in broken:
            raise RuntimeError("unforeseen")
        return send(sock, data, flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "send", fail_for_them)
        yield


@contextlib.contextmanager
def chat_in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteHistory]:
    """The state of `chat_server`, for tests that call its functions. Gives the history."""
    monkeypatch.setattr(chat_server, "options", Options(rate=0), raising=False)
    monkeypatch.setattr(chat_server, "broadcast", queue.Queue(maxsize=1000))
    with contextlib.closing(SqliteHistory()) as history:
        monkeypatch.setattr(chat_server, "history", history, raising=False)
        try:
            yield history
        finally:
            chat_server.clients.clear()

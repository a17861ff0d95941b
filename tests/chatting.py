"""What tests of the chat do as its clients, on bare sockets."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers import Frame, Peer, Reachable, masked, request
from programs import Program, await_handler

RESUMED = 500  # messages that a client gets at most of those it missed


def say(peer: Peer, message: str, **fields: Any) -> None:
    """Send one chat message in a frame of its own."""
    text = json.dumps({"email": "ada@example.org", "username": "Ada", "message": message} | fields)
    peer.send(masked(0x81, text.encode()))


def hear(peer: Peer) -> dict[str, str]:
    """The chat message that must come next."""
    first, payload = peer.read_frame()
    assert first == 0x81, f"not text, but 0x{first:x} {payload!r}"
    message = json.loads(payload)
    assert isinstance(message, dict)
    return message


def hear_said(peer: Peer) -> dict[str, Any]:
    """The message or the event that must come next; events of who is here are skipped."""
    while (heard := hear(peer)).get("event") == "online":
        pass
    return heard


def hear_texts(peer: Peer, count: int) -> list[str]:
    """The texts of the chat messages that must come next."""
    return [hear(peer)["message"] for _ in range(count)]


def leave(peer: Peer) -> None:
    """Close with 1000, and wait for the answer and EOF."""
    peer.send(masked(0x88, b"\x03\xe8"))
    assert peer.read_close() == (1000, "")
    peer.close()


def resume(server: Program, since: str = "0") -> Peer:
    """A client that wants everything after this id."""
    return server.join(f"/ws?since={since}")


def request_ws(server: Reachable, target: str = "/ws", **changes: str | None) -> bytes:
    """The request of an opening handshake; `changes` as in `peers.request`."""
    return request(server, target, **changes)


def upgrade(server: Program, peer: Peer) -> None:
    """Open a WebSocket on a TCP connection, and wait until its handler runs."""
    peer.send(request_ws(server))
    assert peer.read_head().startswith("HTTP/1.1 101 ")
    await_handler(peer)


def text_frame(text: str) -> bytes:
    return masked(0x81, text.encode())


def tell_name(peer: Peer, username: str) -> None:
    """Say who a client is, with an email made of the name."""
    introduce(peer, username=username, email=f"{username}@example.org")


def introduce(peer: Peer, **fields: str) -> None:
    """Send the event with which a client says who it is."""
    peer.send(text_frame(json.dumps({"event": "join", **fields})))


def ask_older(peer: Peer, before: str) -> None:
    """Ask for the messages directly before this id."""
    peer.send(text_frame(json.dumps({"event": "older", "before": before})))


def hear_all_said(peer: Peer, count: int) -> list[dict[str, Any]]:
    return [hear_said(peer) for _ in range(count)]


def hear_until(peer: Peer, text: str) -> list[dict[str, Any]]:
    """All that is said, up to this text."""
    heard = [hear_said(peer)]
    while heard[-1].get("message") != text:
        heard.append(hear_said(peer))
    return heard


def hear_online(peer: Peer, check: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first event of who is here that passes the check."""
    while True:
        heard: dict[str, Any] = hear(peer)
        if heard.get("event") == "online" and check(heard):
            return heard


def names_in(event: dict[str, Any]) -> list[str]:
    """The names in an event of who is here."""
    return [person["username"] for person in event["people"]]


def tell(server: Program, count: int, size: int = 0, start: int = 0) -> list[dict[str, Any]]:
    """Numbered messages by somebody who comes and goes, as they were heard."""
    heard: list[dict[str, Any]] = []
    with server.join() as ada:
        for number in range(count):
            say(ada, f"{start + number}".ljust(size, "."))
            if number % 10 == 9:  # one who does not listen is dropped
                heard += [hear(ada) for _ in range(10)]
        heard += [hear(ada) for _ in range(count - len(heard))]
        leave(ada)
    return heard


def tell_texts(server: Program, *texts: str) -> list[dict[str, Any]]:
    """The same with these texts."""
    with server.join() as ada:
        for text in texts:
            say(ada, text)
        heard = [hear(ada) for _ in texts]
    assert [message["message"] for message in heard] == list(texts)
    return heard


def ids(messages: list[dict[str, Any]]) -> list[str]:
    return [message["id"] for message in messages]


def assert_here(peer: Peer) -> None:
    """The server still answers this client, and has nothing else for it but who is here."""
    peer.send(masked(0x89, b"here?"))
    while (frame := peer.read_frame()).first == 0x81:
        assert json.loads(frame.payload).get("event") == "online"
    assert frame == (0x8A, b"here?")


def read_close_past_messages(peer: Peer) -> tuple[list[dict[str, Any]], Frame]:
    """The messages and events that still come, and the Close that must follow them."""
    messages = []
    while (frame := peer.read_frame()).first == 0x81:
        messages.append(json.loads(frame.payload))
    assert frame.first == 0x88, f"not a Close, but 0x{frame.first:x} {frame.payload!r}"
    return messages, frame


def leave_reading(peer: Peer) -> None:
    """The closing handshake, with messages still on their way."""
    peer.send(masked(0x88, b"\x03\xe8"))
    while peer.read_frame().first != 0x88:
        pass
    peer.read_to_eof()


def restless_environment(folder: Path) -> dict[str, str]:
    """Environment variables with which Python's threads take turns as often as they can."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.setswitchinterval(1e-6)\n")
    return os.environ | {"PYTHONPATH": str(folder)}

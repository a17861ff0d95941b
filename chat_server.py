#!/usr/bin/env python3
"""A chat at http://localhost:8000: the port of a Go program that many learn WebSockets from.

In the original's order: `clients`, `broadcast`, `Message`, `main`, `handle_connections`,
`handle_messages`. What a channel and a goroutine are there, a queue and a thread are here; the
protocol, which Go takes from gorilla/websocket, is in `rfc6455/`.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import queue
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from chat_log import ChatLog
from rfc6455 import CloseCode, ConnectionClosed, Deflate, Prepared, WebSocket, WebSocketServer

PUBLIC = Path(__file__).parent / "public"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' https://www.gravatar.com; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MAX_KEY = 64  # characters
BURST = 3.0  # seconds' worth of messages that a client may send at once
BATCH = 256 * 1024  # bytes; more at once would overrun the backlog of clients that are not slow
DRAIN_TIME = 1.0  # seconds at shutdown for what is queued; the whole exit has five

clients: set[WebSocket] = set()
clients_lock = threading.Lock()  # differs from Go: there a data race, which kills it under load
# Bounded: a full queue makes the sender's thread wait, and TCP then makes its client wait.
broadcast: "queue.Queue[Message]" = queue.Queue(maxsize=1000)
chat_log = ChatLog()
options = argparse.Namespace(rate=20.0, hide_emails=False)


class Message(NamedTuple):
    """What a client sends; fields that are missing are empty, and unknown ones dropped."""

    email: str = ""
    username: str = ""
    message: str = ""
    key: str | None = None  # differs from Go: one that was logged is not logged again

    @classmethod
    def from_json(cls, text: str) -> "Message":
        """Raises ValueError, in words."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("the message is not JSON") from None
        if not isinstance(fields, dict):
            raise ValueError("the message is not a JSON object")
        # As in Go, null leaves a field empty.
        known = {name: fields[name] for name in cls._fields if fields.get(name) is not None}
        for name, value in known.items():
            if not isinstance(value, str):
                raise ValueError(f"{name} is not a string")
        # As in Go, half of a surrogate pair (which JSON can say, but UTF-8 can't) becomes U+FFFD.
        surrogates_replaced = {
            name: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            for name, value in known.items()
        }
        message = cls(**surrogates_replaced)
        if len(message.key or "") > MAX_KEY:
            raise ValueError(f"the key has more than {MAX_KEY} characters")
        return message

    def to_json(self, message_id: str) -> str:
        avatar = hashlib.sha256(self.email.strip().lower().encode()).hexdigest()
        email = "" if options.hide_emails else self.email
        fields = {"email": email, "username": self.username, "message": self.message}
        fields |= {"id": message_id, "avatar": avatar}
        if self.key is not None:
            fields["key"] = self.key
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat over WebSockets.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=20, help="messages a second per client; 0: any (%(default)g)"
    )
    parser.add_argument("--max-message", type=int, default=65536, help="bytes (%(default)s)")
    parser.add_argument("--max-clients", type=int, default=10000, help="(%(default)s)")
    parser.add_argument("--allow-origin", action="append", default=[], help="a page's, to let in")
    parser.add_argument("--allow-host", action="append", default=[], help="a name to answer to")
    parser.add_argument("--hide-emails", action="store_true", help="send them to nobody")
    parser.add_argument(
        "--deflate",
        action="store_true",
        help="compress for clients that offer it; a browser then compresses every little message, "
        "which costs a small chat more than it saves",
    )
    parser.parse_args(namespace=options)
    if options.rate < 0 or options.max_message < 1 or options.max_clients < 1:
        parser.error("--rate, --max-message and --max-clients are positive numbers")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    try:
        server = WebSocketServer(
            (options.host, options.port),
            {"/ws": handle_connections},
            directory=PUBLIC,
            headers={"Content-Security-Policy": PAGE_POLICY},
            allowed_origins=options.allow_origin,
            allowed_hosts=options.allow_host,
            max_connections=options.max_clients,
            max_message=options.max_message,
            deflate=Deflate() if options.deflate else None,
        )
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot serve {options.host}:{options.port}: {error}")
    threading.Thread(target=handle_messages, daemon=True).start()
    print(f"The chat runs at {server.url}", flush=True)
    server.serve_until_signalled()
    deadline = time.monotonic() + DRAIN_TIME
    while broadcast.unfinished_tasks and time.monotonic() < deadline:
        time.sleep(0.01)
    server.close_connections()


def handle_connections(websocket: WebSocket) -> None:
    """One client, in its thread: what it sends goes to `broadcast`."""
    with clients_lock:
        clients.add(websocket)
    try:
        next_free = 0.0  # differs from Go: a client that sends faster than --rate is slowed
        for text in websocket:
            if isinstance(text, bytes):
                return websocket.close(CloseCode.UNSUPPORTED_DATA, "the chat is text")
            try:
                message = Message.from_json(text)
            except ValueError as error:
                return websocket.close(CloseCode.POLICY_VIOLATION, str(error))
            if options.rate:
                now = time.monotonic()
                next_free = max(next_free, now - BURST) + 1 / options.rate
                time.sleep(max(0.0, next_free - now))
            broadcast.put(message)
    finally:
        with clients_lock:
            clients.discard(websocket)


def handle_messages() -> None:
    """Everything that was said, in one thread: numbered, and sent to every client."""
    while True:
        messages = take_what_waits()
        logged = chat_log.append(messages)
        prepared = Prepared(Message(*fields).to_json(number) for number, fields in logged)
        with clients_lock:
            receivers = list(clients)
        for client in receivers:
            # differs from Go: it never waits for a client; one that is too slow is dropped
            with contextlib.suppress(ConnectionClosed):
                client.post(prepared)
        for _ in messages:
            broadcast.task_done()


def take_what_waits() -> list[Message]:
    """Wait for a message; then take what else is there, so that a busy chat writes in large pieces."""
    messages = [broadcast.get()]
    size = len(messages[0].message)
    with contextlib.suppress(queue.Empty):
        while size < BATCH:
            messages.append(broadcast.get_nowait())
            size += len(messages[-1].message)
    return messages


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A chat at http://localhost:8000: the port of a Go program that many learn WebSockets from.

In its order: `clients`, `broadcast`, `Message`, `main`, `handle_connections`, `handle_messages`.
What a channel and a goroutine are there, a queue and a thread are here; `rfc6455/` is the protocol.
"""

import argparse
import contextlib
import logging
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from chat_entry import Entry, Log, LogFailed
from chat_json import avatar_of, decode_object, encode_json, without_surrogates
from chat_options import open_log, read_options
from chat_resume import Joined, Resumers, catch_up, check_since, since_of
from rfc6455 import CloseCode, ConnectionClosed, Deflate, Prepared, WebSocket, WebSocketServer

PUBLIC = Path(__file__).parent / "public" / "chat"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' https://www.gravatar.com; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MAX_KEY = 64  # characters
BURST = 3.0  # seconds' worth of messages that a client may send at once
BATCH = 128 * 1024  # characters that are sent at once; more would overrun clients that are not slow
DRAIN_TIME = 1.0  # seconds at shutdown for what is queued; the whole exit has five

clients: set[WebSocket] = set()
clients_lock = threading.Lock()  # differs from Go, which has a data race here
resumers = Resumers(clients, clients_lock)
# Bounded: a full queue makes the sender's thread wait, and TCP then makes its client wait.
broadcast: "queue.Queue[Item]" = queue.Queue(maxsize=1000)
options = argparse.Namespace()
chat_log: Log
log = logging.getLogger("chat")


class Message(NamedTuple):
    """What a client sends; fields that are missing are empty, and unknown ones dropped."""

    email: str = ""
    username: str = ""
    message: str = ""
    key: str | None = None  # differs from Go: one that was logged is not logged again

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Message":
        """Raises ValueError, in words."""
        known: dict[str, str] = {}
        for name in cls._fields:
            value = fields.get(name)
            if isinstance(value, str):
                known[name] = without_surrogates(value)
            elif value is not None:  # as in Go, null leaves a field empty
                raise ValueError(f"{name} is not a string")
        message = cls(**known)
        if len(message.key or "") > MAX_KEY:
            raise ValueError(f"the key has more than {MAX_KEY} characters")
        return message if message.key else message._replace(key=None)


def show(entry: Entry) -> str:
    """The JSON that everyone gets: the original's three fields first."""
    message_id, (email, username, message, key) = entry
    fields = {"email": "" if options.hide_emails else email, "username": username}
    fields |= {"message": message, "id": message_id, "avatar": avatar_of(email)}
    return encode_json(fields | {"key": key} if key else fields)


class Said(NamedTuple):
    """On its way from handle_connections to handle_messages."""

    message: Message
    websocket: WebSocket


NOT_LOGGED = (Said, Joined, threading.Event)
Item = Said | Joined | Entry | threading.Event


def main() -> None:
    global chat_log
    read_options(options)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    try:
        chat_log = open_log(options, broadcast.put)
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
            check=check_since,
            one_core=not (options.deflate or options.all_cores),
        )
    except LogFailed as error:
        sys.exit(f"cannot keep the log: {error}")
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot serve {options.host}:{options.port}: {error}")
    threading.Thread(target=handle_messages, daemon=True).start()
    threading.Thread(target=resumers.tell_presence, daemon=True).start()
    server.serve_until_signalled(f"The chat runs at {server.url}")
    drained = threading.Event()
    with contextlib.suppress(queue.Full):  # Redis may be away
        broadcast.put(drained, timeout=DRAIN_TIME)
        drained.wait(DRAIN_TIME)
    server.close_connections()


def handle_connections(websocket: WebSocket) -> None:
    """One client, in its thread: what it sends goes to `broadcast`."""
    since = since_of(websocket.query)
    try:
        if since is None:
            with clients_lock:
                clients.add(websocket)
        else:  # differs from Go: it gets what it missed, and then joins the others
            resumers.name(websocket, "")
            broadcast.put(Joined(websocket, catch_up(websocket, since, chat_log, show)))
        pace = 0.0  # differs from Go: a client that sends faster than --rate is slowed
        for text in websocket:
            hear(websocket, text)
            if options.rate:
                now = time.monotonic()
                pace = max(pace, now - BURST) + 1 / options.rate
                time.sleep(max(0.0, pace - now))
    except TypeError as error:
        websocket.close(CloseCode.UNSUPPORTED_DATA, str(error))
    except ValueError as error:
        websocket.close(CloseCode.POLICY_VIOLATION, str(error))
    except LogFailed as error:
        refuse(websocket, error)
    finally:
        with clients_lock:
            clients.discard(websocket)
        resumers.remove(websocket)


def hear(websocket: WebSocket, text: str | bytes) -> None:
    """Take one message from a client. Raises TypeError or ValueError, in words."""
    if isinstance(text, bytes):
        raise TypeError("the chat is text")
    message = Message.from_fields(fields := decode_object(text))
    if websocket in resumers and fields.get("event") == "join":
        resumers.name(websocket, message.username)
    elif websocket in resumers and fields.get("event") == "ping":
        websocket.send('{"event":"pong"}')
    else:
        broadcast.put(Said(message, websocket))


def handle_messages() -> None:
    """Everything that is said, in one thread: logged, and then sent to every client."""
    position = chat_log.start
    while True:
        items = take_what_waits()
        said = [item for item in items if isinstance(item, Said)]
        joined = [item for item in items if isinstance(item, Joined)]
        # With Redis, append gives nothing back: what any server logged comes through `broadcast`.
        logged: list[Entry] = [item for item in items if not isinstance(item, NOT_LOGGED)]
        try:
            logged += chat_log.append([each.message for each in said])
        except LogFailed as error:
            for each in said:
                refuse(each.websocket, error)
        if logged:
            deliver(logged)
            position = logged[-1][0]
        resumers.admit(joined, position, chat_log, show)
        for item in items:
            if isinstance(item, threading.Event):  # main waits for what was queued before it
                item.set()


def take_what_waits() -> list[Item]:
    """Wait for an item; then take all that is there, so that a busy chat writes large pieces."""
    items = [broadcast.get()]
    size = 0
    with broadcast.mutex:  # once for all: get_nowait would take it for each
        while broadcast.queue and size < BATCH:
            items.append(broadcast.queue.popleft())
            size += sum(map(len, fields_of(items[-1])))
        broadcast.not_full.notify_all()
    return items


def fields_of(item: Item) -> tuple[str, ...]:
    if isinstance(item, Said):
        return item.message[:3]
    return () if isinstance(item, NOT_LOGGED) else item[1][:3]


def deliver(logged: list[Entry]) -> None:
    """Post to every client; differs from Go: it waits for none, and one too slow is dropped."""
    prepared = Prepared(map(show, logged))
    with clients_lock:
        receivers = list(clients)
    for client in receivers:
        try:
            client.post(prepared)
        except ConnectionClosed:
            pass  # its own thread removes it


def refuse(websocket: WebSocket, error: LogFailed) -> None:
    log.error("%s is sent away, as the log failed: %s; is the disk full?", websocket.peer, error)
    websocket.close(CloseCode.INTERNAL_ERROR, "the message could not be logged", wait=False)


if __name__ == "__main__":
    main()

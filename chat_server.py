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
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import rfc6455
from chat.entry import (
    MAX_EMAIL,
    MAX_KEY,
    MAX_USERNAME,
    PAGE_CHARACTERS,
    Entry,
    Log,
    LogFailed,
    pages,
    size_of,
)
from chat.message import (
    Pairs,
    avatar_of,
    decode_object,
    encode_json,
    fold,
    without_surrogates,
)
from chat.options import open_log, read_options
from chat.resume import (
    GAP,
    Joined,
    Resumers,
    catch_up,
    check_since,
    since_of,
)
from command_line import advise, hold_to_one_core
from console import announce, log_to_stderr
from rfc6455 import (
    Close,
    CloseCode,
    ConnectionClosed,
    Deflate,
    WebSocket,
    WebSocketServer,
)

PUBLIC = Path(__file__).parent / "public" / "chat"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' https://www.gravatar.com; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LIMITS = {"email": MAX_EMAIL, "username": MAX_USERNAME, "key": MAX_KEY}  # characters
PONG = encode_json({"event": "pong"})
BURST = 3.0  # seconds' worth of messages that a client may send at once
RETRY = 1.0  # seconds after which a log that could not be read is read again
DRAIN_TIME = 1.0  # seconds in all, at shutdown, for what is queued; the whole exit has five

clients: set[WebSocket] = set()
clients_lock = threading.Lock()  # differs from Go, which has a data race here
resumers = Resumers(clients, clients_lock)
# Whose message was not logged: what it said behind that is not logged either, or its order would be
# lost. Weak: who is in no queue and has no handler any more is forgotten.
refused: "weakref.WeakSet[WebSocket]" = weakref.WeakSet()
# Bounded: a full queue makes the sender's thread wait, and TCP then makes its client wait.
broadcast: "queue.Queue[Item]" = queue.Queue(maxsize=1000)
options = argparse.Namespace()
chat_log: Log
position = "0-0"  # everything up to this id was shown; handle_messages alone moves it
log = logging.getLogger("chat")


class Message(NamedTuple):
    """What a client sends; fields that are missing are empty, and unknown ones dropped."""

    email: str = ""
    username: str = ""
    message: str = ""
    key: str | None = None  # differs from Go: one that was logged is not logged again

    @classmethod
    def from_pairs(cls, pairs: Pairs) -> "Message":
        """Names in any case, and the last of several, as in Go. Raises Close, in words."""
        known: dict[str, str] = {}
        for pair_name, value in pairs:
            name = field_of(pair_name)
            if name is None or value is None:  # as in Go, null changes nothing
                continue
            if not isinstance(value, str):
                raise Close(CloseCode.POLICY_VIOLATION, f"{name} is not a string")
            known[name] = without_surrogates(value)
        for name, limit in LIMITS.items():  # differs from Go, which has no limits
            if len(known.get(name, "")) > limit:
                what = "the key" if name == "key" else name
                reason = f"{what} has more than {limit} characters"
                raise Close(CloseCode.POLICY_VIOLATION, reason)
        message = cls(**known)
        return message if message.key else message._replace(key=None)


def field_of(name: str) -> str | None:
    """The field that a name in JSON stands for, if any. `key` is not Go's, and has one spelling."""
    if name in Message._fields:
        return name
    folded = fold(name)
    return folded if folded in Message._fields and folded != "key" else None


def show(entry: Entry) -> str:
    """The JSON that everyone gets: the original's three fields first."""
    message_id, (email, username, message, key) = entry
    fields = {"email": "" if options.hide_emails else email, "username": username}
    fields |= {"message": message, "id": message_id, "avatar": avatar_of(email)}
    return encode_json(fields | {"key": key} if key else fields)


def show_each(entries: Iterable[Entry]) -> list[str]:
    """The same for many. One of which no JSON can be made is left out, and holds up nobody."""
    texts = []
    for entry in entries:
        try:
            texts.append(show(entry))
        except Exception:
            log.exception("the message %s can't be shown", entry[0])
    return texts


class Said(NamedTuple):
    """On its way from handle_connections to handle_messages."""

    message: Message
    websocket: WebSocket


Item = Said | Joined | threading.Event  # an event is set when all before it was handled


def main() -> None:
    global chat_log, position
    read_options(options)
    log_to_stderr()
    if not (options.deflate or options.all_cores):
        hold_to_one_core()
    try:
        chat_log = open_log(options, look_for_news)
        position = chat_log.start
        server = WebSocketServer(
            (options.host, options.port),
            {"/ws": handle_connections},
            directory=PUBLIC,
            headers={"Content-Security-Policy": PAGE_POLICY},
            allowed_origins=options.allow_origin,
            allowed_hosts=options.allow_host,
            advise=advise,
            max_connections=options.max_clients,
            max_message=options.max_message,
            deflate=Deflate() if options.deflate else None,
            check=check_since,
        )
    except LogFailed as error:
        sys.exit(f"cannot keep the log: {error}")
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot serve {options.host}:{options.port}: {error}")
    threading.Thread(target=handle_messages, daemon=True).start()
    threading.Thread(target=resumers.tell_presence, daemon=True).start()
    server.serve_until_signalled(lambda: announce(f"The chat runs at {server.url}"))
    drain()
    server.close_connections()


def drain() -> None:
    """Wait until what is queued was handled, or DRAIN_TIME is over: Redis may be away."""
    deadline = time.monotonic() + DRAIN_TIME
    drained = threading.Event()
    with contextlib.suppress(queue.Full):
        broadcast.put(drained, timeout=DRAIN_TIME)
        drained.wait(max(0.0, deadline - time.monotonic()))


def handle_connections(websocket: WebSocket) -> None:
    """One client, in its thread: what it sends goes to `broadcast`. Raises Close."""
    since = since_of(websocket.query)
    try:
        if since is None:
            resumers.enter(websocket)
        else:  # differs from Go: it gets what it missed, and then joins the others
            resumers.name(websocket, "")
            past = chat_log.for_joiner()
            broadcast.put(Joined(websocket, catch_up(websocket, since, past, show_each)))
        pace = 0.0  # differs from Go: a client that says more than --rate is slowed
        for text in websocket:
            if websocket in refused:
                break  # its Close is under way
            if hear(websocket, text) and options.rate:
                now = time.monotonic()
                pace = max(pace, now - BURST) + 1 / options.rate
                time.sleep(max(0.0, pace - now))
    except LogFailed as error:
        log.error("%s is sent away, as the log can't be read: %s", websocket.peer, error)
        raise Close(CloseCode.INTERNAL_ERROR, "the history could not be read") from None
    finally:
        resumers.remove(websocket)


def hear(websocket: WebSocket, text: str | bytes) -> bool:
    """Take one message from a client; whether it is for everyone, and not an event for the server.

    Raises Close, in words, and ConnectionClosed.
    """
    if isinstance(text, bytes):
        raise Close(CloseCode.UNSUPPORTED_DATA, "the chat is text")
    pairs = decode_object(text)
    message = Message.from_pairs(pairs)
    event = dict(pairs).get("event") if websocket in resumers else None
    if event == "ping":
        websocket.post(PONG)
    elif event == "join":
        resumers.name(websocket, message.username)
    else:
        broadcast.put(Said(message, websocket))
        return True
    return False


def look_for_news() -> None:
    """Make handle_messages look for what other servers have logged; returns when it has."""
    looked = threading.Event()
    broadcast.put(looked)
    looked.wait()


def handle_messages() -> None:
    """Everything that is said, in one thread: logged, and then shown to every client.

    Whatever fails, it goes on: what is in the log and was not shown is read again.
    """
    failed = False
    while True:
        items: list[Item] = []
        try:
            items = take_what_waits(RETRY if failed else None)
            handle(items)
            failed = False
        except LogFailed as error:
            if items or not failed:  # else it was said already
                log.error("the log can't be read, nothing is shown until it can: %s", error)
            failed = True
        except Exception:
            log.exception("what was said could not be handled")
            failed = True
        for item in items:
            if isinstance(item, threading.Event):
                item.set()


def handle(items: list[Item]) -> None:
    """Log and show what was said, let in who has come, and tell who said something again.

    Where it fails only those are sent away whose wish is open: what is logged will be shown.
    """
    said = [item for item in items if isinstance(item, Said) and item.websocket not in refused]
    joined = [item for item in items if isinstance(item, Joined)]
    waiting = [each.websocket for each in said] + [each.websocket for each in joined]
    try:
        again = log_what_was_said(said)
        waiting = [each.websocket for each in joined] + [each.websocket for each, _ in again]
        show_news()
    except Exception:
        for websocket in waiting:
            refuse(websocket, "internal error")
        raise
    for websocket in resumers.admit(joined, position, chat_log, show_each):
        refuse(websocket, "internal error")
    for each, message_id in again:
        acknowledge(each, message_id)


def log_what_was_said(said: list[Said]) -> list[tuple[Said, str]]:
    """Log it; what was logged before, under a known key, and the ids that it has."""
    try:
        logged = chat_log.append([each.message for each in said])
    except LogFailed as error:
        for each in said:
            log.error("%s is sent away, as the log failed: %s", each.websocket.peer, error)
            refuse(each.websocket, "the message could not be logged")
        return []
    return [
        (each, message_id) for each, (message_id, known) in zip(said, logged, strict=True) if known
    ]


def take_what_waits(timeout: float | None) -> list[Item]:
    """Wait for an item; then take all that is there, so that a busy chat writes large pieces."""
    try:
        items = [broadcast.get(timeout=timeout)]
    except queue.Empty:
        return []
    size = characters_of(items[0])
    with broadcast.mutex:  # once for all: get_nowait would take it for each
        while broadcast.queue and size < PAGE_CHARACTERS:
            items.append(broadcast.queue.popleft())
            size += characters_of(items[-1])
        broadcast.not_full.notify_all()
    return items


def characters_of(item: Item) -> int:
    return size_of(("", item.message)) if isinstance(item, Said) else 0


def show_news() -> None:
    """Show everyone what is in the log and was not shown yet, whoever has logged it."""
    global position
    for page in pages(chat_log, position):
        if page.gap:
            resumers.tell(GAP)
        if page.entries:
            deliver(page.entries)
            position = page.entries[-1][0]


def deliver(entries: list[Entry]) -> None:
    """Post to every client; differs from Go: it waits for none, and one too slow is dropped."""
    texts = show_each(entries)
    with clients_lock:
        receivers = list(clients)
    rfc6455.broadcast(receivers, *texts)


def acknowledge(said: Said, message_id: str) -> None:
    """Send the copy of what was logged before to who said it again, and to nobody else."""
    try:
        # Where the copy was trimmed already, what it says now stands for what it said then.
        entry = chat_log.entry(message_id) or (message_id, said.message)
        said.websocket.post(show(entry))
    except ConnectionClosed:
        pass  # it may come back, and say it again
    except Exception as error:
        trace = not isinstance(error, LogFailed)
        log.error("%s gets no copy: %s", said.websocket.peer, error, exc_info=trace)
        refuse(said.websocket, "internal error")


def refuse(websocket: WebSocket, reason: str) -> None:
    """Send a client away whose wish could not be fulfilled; it may come and say it again.

    What it has said behind that is not heard. Raises nothing, as handle_messages has to go on.
    """
    refused.add(websocket)
    try:
        websocket.close(CloseCode.INTERNAL_ERROR, reason, wait=False)
    except Exception:
        log.exception("%s could not be sent away", websocket.peer)


if __name__ == "__main__":
    main()

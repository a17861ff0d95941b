#!/usr/bin/env python3
"""A chat at http://localhost:8000: gorilla/websocket's *Simple Chat*, ported from Go.

It keeps the order of that program: `clients`, `broadcast`, `Message`, `main`, `handle_connections`,
`handle_messages`. A channel in Go is a queue here, and a goroutine is a thread; `upgrader` has
become arguments of `make_server`. `Go:` in a comment quotes the line of the original. `differs
from Go:` says what this program does in another way, or in addition; the code for that is in
`chat/`. `rfc6455/` is the WebSocket library.
"""

import queue
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import rfc6455
from chat.batch import Item, MessagesThread, batches, finish, put
from chat.entry import History, HistoryError, pages
from chat.events import Events
from chat.message import GAP, decode, encode_all
from chat.open_history import open_history, start_presence
from chat.options import Options, read_options
from chat.pace import Pace
from chat.presence import Presence
from chat.refusal import is_refused
from chat.resume import catch_up, check_since, since_of
from chat.settings import settings_of
from command_line import cannot_serve, hold_to_one_core, make_server, start_thread
from console import announce, log_to_stderr
from rfc6455 import WebSocket

PUBLIC = Path(__file__).parent / "public" / "chat"
# differs from Go: the web page may load and run only what this server sends, and the pictures of
# Gravatar.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' https://www.gravatar.com; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

clients: set[WebSocket] = set()  # Go: var clients = make(map[*websocket.Conn]bool)
# differs from Go: its goroutines change the map without a lock, which can crash the program.
clients_lock = threading.Lock()
# differs from Go: `presence` adds to `clients` and removes from it, and tells clients who is here.
presence = Presence(clients, clients_lock)

# Go: var broadcast = make(chan Message)
# differs from Go: senders do not have to wait before 1,000 items are in it, and the items are not
# only messages; see `Item` in `chat/batch.py`.
broadcast: "queue.Queue[Item[Message]]" = queue.Queue(maxsize=1000)

# differs from Go: a message is first appended to the history, then read from there and sent. So
# several servers can share one history, and a resuming client gets what it missed.
history: History  # set by `main`
options: Options  # set by `main`


@dataclass(slots=True, kw_only=True)
class Message:
    """What a client sends. As in Go, `email`, `username` and `message` are empty if left out."""

    email: str = ""  # Go: Email string `json:"email"`
    username: str = ""  # Go: Username string `json:"username"`
    message: str = ""  # Go: Message string `json:"message"`
    # differs from Go: a client may give its message a key. If it does not know whether the message
    # has arrived, it resends it with the same key, and the message is appended only once.
    key: str | None = None
    # differs from Go: "join" tells the server the client's name, "ping" asks whether the server
    # still answers, and "older" asks for what was said before the id `before`. All three are for
    # the server alone.
    event: str | None = None
    before: str | None = None
    # differs from Go: the client that sent it, to be refused if the message cannot be saved. It is
    # set by `handle_connections`; nothing that a client sends can set it.
    sender: WebSocket


def main() -> None:
    global history, options
    options = read_options()
    log_to_stderr()
    if not (options.deflate or options.all_cores):
        # It is faster so: Python runs one thread at a time, and compression is the exception.
        hold_to_one_core()
    try:
        # The history calls `wake` when another server has appended messages.
        history = open_history(options, wake=lambda: broadcast.put("news"))
        start_presence(options, presence, start_thread)  # differs from Go: tells who is here
        server = make_server(
            options,
            directory=PUBLIC,  # Go: http.Handle("/", http.FileServer(http.Dir("../public")))
            routes={"/ws": handle_connections},  # Go: http.HandleFunc("/ws", handleConnections)
            headers={"Content-Security-Policy": PAGE_POLICY},
            pages={"/settings.json": settings_of(options)},  # differs from Go: for the web page
            max_clients=options.max_clients,
            other_files=options.other_files,  # which are open besides the clients' connections
            check=check_since,  # differs from Go: a client that resumes says from where
        )
    except HistoryError as error:
        sys.exit(f"cannot open the history: {error}")
    except (OSError, OverflowError) as error:  # OverflowError: the port is over 65535
        # Go: log.Fatal("ListenAndServe: ", err); the server that was made has its port already
        sys.exit(cannot_serve(options, error))
    messages_thread = start_thread(MessagesThread(handle_messages))  # Go: go handleMessages()
    # Go: http.ListenAndServe(":8000", nil), which ends here at Ctrl+C
    server.serve_until_signalled(lambda: announce(f"The chat runs at {server.url}"))
    presence.close()  # differs from Go: with Redis, the other servers count its clients no more
    finish(broadcast, messages_thread)  # differs from Go: sends the messages that still wait
    server.close_connections()
    if not messages_thread.is_alive():  # otherwise it still uses the history
        history.close()
    sys.exit(1 if messages_thread.failed else 0)


def handle_connections(ws: WebSocket) -> None:
    """Read the messages of one client, and put them into `broadcast`; each client has a thread.

    Before this is called the server does what upgrader.Upgrade does in Go, and afterwards what
    ws.Close() does. As in Go, an error such as bad JSON ends the loop. differs from Go: the server
    then tells the client the reason.
    """
    # differs from Go: a client that can resume says behind which message; others have None here.
    since = since_of(ws.query)
    # differs from Go: a client that sends too much is slowed, and one that can resume is told so.
    pace = Pace(options.rate, post=None if since is None else ws.post)
    events = Events(presence, history, pace, hide_emails=options.hide_emails)
    try:
        if since is None:
            presence.enter(ws)  # Go: clients[ws] = true
        else:
            # differs from Go: a resuming client first gets what follows the message with the id
            # `since`. Then handle_messages adds it to `clients`, by `admit_resuming`.
            presence.expect(ws)
            put(broadcast, catch_up(ws, since, history, hide_emails=options.hide_emails))
        for text in ws:  # Go: for { err := ws.ReadJSON(&msg); ...
            msg = Message(**decode(text), sender=ws)
            # differs from Go: a client that is being closed is ignored, and some messages are for
            # the server alone.
            if is_refused(ws) or events.handle(msg):
                continue
            pace.wait()  # differs from Go: one that sends too much sleeps here
            put(broadcast, msg)  # Go: broadcast <- msg
    finally:
        presence.leave(ws)  # Go: delete(clients, ws)


def handle_messages() -> None:
    """Send each message to all clients, in a thread that ends when None comes from `broadcast`.

    differs from Go: the original sends each message as it comes. Here all messages that wait are
    appended to the history, and then everything that is new in the history is read and sent.
    """
    last_sent = history.start  # the id of the last message that was sent to all clients
    for batch in batches(broadcast):  # Go: for { msg := <-broadcast
        try:
            batch.append_to(history)
            for page in pages(history, last_sent):
                if page.gap:  # messages were deleted before they were read here
                    presence.tell(GAP)
                # A message that cannot be sent is left out, and its sender refused.
                texts = encode_all(
                    page.entries, batch.refuse_sender, hide_emails=options.hide_emails
                )
                with clients_lock:
                    everyone = list(clients)  # a copy, so that nothing is sent under the lock
                # Go: for client := range clients { client.WriteJSON(msg); ... delete(clients, ...)
                # differs from Go: the library's `broadcast` passes over a client whose connection
                # is closed. The client's own thread removes it, in `handle_connections`.
                rfc6455.broadcast(everyone, *texts)
                last_sent = page.end(last_sent)
            # Those who have caught up get the rest, and join `clients`. Who has resent a message
            # gets the copy that was kept.
            batch.admit_resuming(history, last_sent, presence, hide_emails=options.hide_emails)
            batch.confirm_resent(history, hide_emails=options.hide_emails)
        except Exception as error:  # noqa: BLE001 (`fail` logs it, and the next batch tries again)
            batch.fail(error)


if __name__ == "__main__":
    main()

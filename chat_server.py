#!/usr/bin/env python3
"""A chat at http://localhost:8000: gorilla/websocket's *Simple Chat*, ported from Go.

It keeps the order of that program: `clients`, `broadcast`, `Message`, `main`, `handle_connections`,
`handle_messages`. A channel in Go is a queue here, and a goroutine is a thread; `upgrader` has
become arguments of `WebSocketServer`. A comment that begins with `Go:` quotes what the line stands
for. A comment that begins with `differs from Go:` says what this program does in another way, or in
addition. The code for that is in `chat/`, and `rfc6455/` is the WebSocket library.
"""

import queue
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import rfc6455
from chat.batch import Item, MessagesThread, batches, finish, put
from chat.entry import History, HistoryError, pages
from chat.message import GAP, decode, encode_all
from chat.open_history import open_history
from chat.options import Options, read_options
from chat.pace import Pace
from chat.presence import Presence
from chat.refusal import is_refused
from chat.resume import catch_up, check_since, since_of
from command_line import advise, hold_to_one_core
from console import announce, log_to_stderr
from rfc6455 import Deflate, WebSocket, WebSocketServer

PUBLIC = Path(__file__).parent / "public" / "chat"
# differs from Go: the page may load and run only what this server sends, and Gravatar's pictures.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' https://www.gravatar.com; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

clients: set[WebSocket] = set()  # Go: var clients = make(map[*websocket.Conn]bool)
# differs from Go: there many goroutines change the map without a lock, which can crash the program.
clients_lock = threading.Lock()
# differs from Go: `presence` adds to `clients` and removes from it, and tells clients who is here.
presence = Presence(clients, clients_lock)

# Go: var broadcast = make(chan Message)
# differs from Go: it holds up to 1,000 messages before their senders have to wait, and it carries
# more than messages; `Item` in `chat/batch.py` says what.
broadcast: "queue.Queue[Item[Message]]" = queue.Queue(maxsize=1000)

# differs from Go: a message is first stored in the history, then read from there and sent. Several
# servers can share one history, and a client that comes back gets what it missed. `main` sets both.
history: History
options: Options


@dataclass(slots=True, kw_only=True)
class Message:
    """What a client says. `email`, `username` and `message` are empty if left out, as in Go."""

    email: str = ""  # Go: Email string `json:"email"`
    username: str = ""  # Go: Username string `json:"username"`
    message: str = ""  # Go: Message string `json:"message"`
    # differs from Go: a client may make up a key. If it repeats a message, which it may not know to
    # have arrived, the message is stored only once.
    key: str | None = None
    # differs from Go: "join" tells the server this client's name, and "ping" asks whether it is
    # there. Both are for the server alone.
    event: str | None = None
    sender: WebSocket  # differs from Go: the client to tell if the message cannot be stored


def main() -> None:
    global history, options
    options = read_options()
    log_to_stderr()
    if not (options.deflate or options.all_cores):
        hold_to_one_core()  # faster, as Python runs one thread at a time; but it compresses on many
    try:
        # The history calls `wake` when another server has stored messages.
        history = open_history(options, wake=lambda: broadcast.put("news"))
        server = WebSocketServer(
            (options.host, options.port),
            directory=PUBLIC,  # Go: http.Handle("/", http.FileServer(http.Dir("../public")))
            routes={"/ws": handle_connections},  # Go: http.HandleFunc("/ws", handleConnections)
            headers={"Content-Security-Policy": PAGE_POLICY},
            allowed_origins=options.allow_origin,
            allowed_hosts=options.allow_host,
            advise=advise,
            max_connections=options.max_clients,
            max_message=options.max_message,
            deflate=Deflate() if options.deflate else None,
            check=check_since,
        )
    except HistoryError as error:
        sys.exit(f"cannot open the history: {error}")
    except (OSError, OverflowError) as error:  # OverflowError: the port is over 65535
        sys.exit(f"cannot serve {options.host}:{options.port}: {error}")  # Go: log.Fatal(...)
    messages_thread = MessagesThread(handle_messages)
    messages_thread.start()  # Go: go handleMessages()
    threading.Thread(target=presence.tell_changes, daemon=True).start()
    # Go: http.ListenAndServe(":8000", nil)
    server.serve_until_signalled(lambda: announce(f"The chat runs at {server.url}"))
    finish(broadcast, messages_thread)  # differs from Go: what was said is sent before the end
    server.close_connections()
    if not messages_thread.is_alive():  # otherwise it still uses the history
        history.close()
    if messages_thread.failed:
        sys.exit(1)


def handle_connections(ws: WebSocket) -> None:
    """Read what one client says, and put it into `broadcast`. Each client has a thread for this.

    The server does what upgrader.Upgrade does in Go before this is called, and ws.Close() after it.
    An error, such as bad JSON, ends the loop as in Go; the server then tells the client the reason.
    """
    pace = Pace(options.rate)
    since = since_of(ws.query)
    try:
        if since is None:
            presence.enter(ws)  # Go: clients[ws] = true
        else:
            # differs from Go: a client that comes back first gets what followed the message with
            # the id `since`. Then handle_messages adds it to `clients`.
            presence.expect(ws)
            returning = catch_up(ws, since, history, hide_emails=options.hide_emails)
            put(broadcast, returning)
        for text in ws:  # Go: for { err := ws.ReadJSON(&msg); ...
            msg = Message(**decode(text), sender=ws)
            # differs from Go: some messages are for the server alone. Those of a client that is
            # being sent away are for nobody.
            if is_refused(ws) or presence.handle_event(ws, msg.event, msg.username):
                continue
            pace.wait()  # differs from Go: a client that sends too much is slowed
            put(broadcast, msg)  # Go: broadcast <- msg
    finally:
        presence.leave(ws)  # Go: delete(clients, ws)


def handle_messages() -> None:
    """Send what is said to every client: one thread, which ends when None comes from `broadcast`.

    differs from Go, which sends each message straight on: here all messages that wait are stored in
    the history, and then everything that is new in the history is read and sent.
    """
    last_sent = history.start  # the id of the last message that was sent to all clients
    for batch in batches(broadcast):  # Go: for { msg := <-broadcast
        try:
            batch.append_to(history)
            for page in pages(history, last_sent):
                if page.gap:  # messages were deleted before they could be sent
                    presence.tell(GAP)
                texts = encode_all(
                    page.entries, batch.refuse_sender, hide_emails=options.hide_emails
                )
                with clients_lock:
                    everyone = list(clients)
                # Go: for client := range clients { client.WriteJSON(msg)
                # A client that cannot be reached is passed over: its own thread removes it.
                rfc6455.broadcast(everyone, *texts)
                last_sent = page.end(last_sent)
            batch.admit_resuming(history, last_sent, presence, hide_emails=options.hide_emails)
            batch.confirm_repeated(history, hide_emails=options.hide_emails)
        except Exception as error:  # noqa: BLE001 (`fail` logs it, and the next batch tries again)
            batch.fail(error)


if __name__ == "__main__":
    main()

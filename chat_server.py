#!/usr/bin/env python3
"""A chat at http://localhost:8000, ported from a Go program that many learn WebSockets from.

It keeps that program's order: `clients`, `broadcast`, `Message`, `main`, `handle_connections`,
`handle_messages`. A channel in Go is a queue here, and a goroutine is a thread. A comment at the
end of a line is the Go code that it stands for. Where this program does more, a comment says
`differs from Go:`, and the code for it is in `chat/`. The protocol itself is in `rfc6455/`.
"""

import queue
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import rfc6455
from chat.batch import News, batches, close
from chat.entry import History, HistoryError, pages
from chat.history import open_history
from chat.message import GAP, decode, encode_all
from chat.options import Options, read_options
from chat.pace import Pace
from chat.presence import Presence
from chat.refusal import is_heard
from chat.resume import Joining, catch_up, check_since, since_of
from command_line import advise, hold_to_one_core
from console import announce, log_to_stderr
from rfc6455 import Deflate, WebSocket, WebSocketServer

PUBLIC = Path(__file__).parent / "public" / "chat"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' https://www.gravatar.com; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

clients: set[WebSocket] = set()  # var clients = make(map[*websocket.Conn]bool)
# differs from Go: there two goroutines use the map without a lock, which may end the program.
clients_lock = threading.Lock()
presence = Presence(clients, clients_lock)  # differs from Go: clients are told who is here

# var broadcast = make(chan Message)
# differs from Go: beside messages it carries clients that come back (Joining), "news" when another
# server has added messages, and None at the end. When it is full, a sender has to wait.
broadcast: "queue.Queue[Message | Joining | News | None]" = queue.Queue(maxsize=1000)

# differs from Go: what is said is kept in a history, and clients are sent what is there. So all of
# them get the same messages in the same order, those who come back later too.
history: History
options: Options


@dataclass(slots=True, kw_only=True)
class Message:
    """What a client says. A field that it leaves out is empty, as in Go."""

    email: str = ""  # Email string `json:"email"`
    username: str = ""  # Username string `json:"username"`
    message: str = ""  # Message string `json:"message"`
    key: str | None = None  # differs from Go: a message with a known key is not sent twice
    event: str | None = None  # differs from Go: "ping" and "join" are for the server alone
    sender: WebSocket  # differs from Go: it is told if the message cannot be kept


def main() -> None:
    global history, options
    options = read_options()
    log_to_stderr()
    if not (options.deflate or options.all_cores):
        hold_to_one_core()
    try:
        history = open_history(options, wake=lambda: broadcast.put("news"))
        server = WebSocketServer(
            (options.host, options.port),
            {"/ws": handle_connections},  # http.HandleFunc("/ws", handleConnections)
            directory=PUBLIC,  # http.Handle("/", http.FileServer(...))
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
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot serve {options.host}:{options.port}: {error}")
    broadcaster = threading.Thread(target=handle_messages, daemon=True)
    broadcaster.start()  # go handleMessages()
    threading.Thread(target=presence.tell_changes, daemon=True).start()
    # http.ListenAndServe(":8000", nil)
    server.serve_until_signalled(lambda: announce(f"The chat runs at {server.url}"))
    close(broadcast, broadcaster)  # differs from Go: what was said is still sent to everyone
    server.close_connections()


def handle_connections(websocket: WebSocket) -> None:
    """Read what one client says, in a thread of its own, and put it into `broadcast`.

    The server has done upgrader.Upgrade before, and does ws.Close() afterwards.
    """
    pace = Pace(options.rate)
    since = since_of(websocket.query)
    try:
        if since is None:
            presence.enter(websocket)  # clients[ws] = true
        else:  # differs from Go: it gets what it missed, and then handle_messages adds it
            presence.expect(websocket)
            broadcast.put(catch_up(websocket, since, history, hide_emails=options.hide_emails))
        for text in websocket:  # for {
            if not is_heard(websocket):  # differs from Go: the server is closing this connection
                continue
            msg = Message(**decode(text), sender=websocket)  # ws.ReadJSON(&msg)
            if presence.handle_event(websocket, msg.event, msg.username):
                continue  # differs from Go: it was for the server alone
            broadcast.put(msg)  # broadcast <- msg
            pace.wait()  # differs from Go: a client that says too much is slowed
    finally:
        presence.leave(websocket)  # delete(clients, ws)


def handle_messages() -> None:
    """Send what is said to every client: in one thread, until None comes from `broadcast`."""
    position = history.start  # the id up to which everything was sent to every client
    for batch in batches(broadcast):  # for { msg := <-broadcast
        try:
            batch.append_to(history)  # differs from Go: nothing is sent that is not kept
            for page in pages(history, position):  # differs from Go: and it is read from there
                if page.gap:
                    presence.tell(GAP)
                texts = encode_all(page.entries, hide_emails=options.hide_emails)
                with clients_lock:
                    everyone = list(clients)
                rfc6455.broadcast(everyone, *texts)  # for client := range clients { WriteJSON(msg)
                position = page.end(position)
            # differs from Go: clients that come back join the others, and copies are sent.
            batch.answer(history, position, presence, hide_emails=options.hide_emails)
        except Exception as error:  # noqa: BLE001 (the batch logs it)
            batch.fail(error)


if __name__ == "__main__":
    main()

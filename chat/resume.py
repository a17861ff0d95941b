"""What the Go original has not: coming back after a lost connection, and who is here.

A client that connects to `/ws?since=ID` gets in three steps what it missed, each message once and
in order: `catch_up` sends the past at the client's own pace, in its thread; `admit`, in the thread
of `handle_messages`, posts what was said meanwhile; from then on it is one of `clients`. Between
two steps nothing can slip in, as `handle_messages` alone decides what comes after what. What it
can't get any more is told by the event `gap`, at the place where it was.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from chat.entry import Entry, Log, LogFailed, order, pages
from chat.message import encode_json
from rfc6455 import ConnectionClosed, Handshake, InvalidHandshake, WebSocket, broadcast

RESUMED = 500  # messages at most that a client gets of those it missed
NAMES_TOLD = 50  # at most, of those who are here
PRESENCE_INTERVAL = 1.0  # seconds at least from one `online` event to the next
GAP = encode_json({"event": "gap"})

Show = Callable[[Iterable[Entry]], list[str]]  # makes JSON of messages

log = logging.getLogger("chat")


def check_since(handshake: Handshake) -> None:
    """Refuse, before the 101, a `since` that is no id."""
    try:
        if (since := since_of(handshake.query)) is not None:
            order(since)
    except ValueError as error:
        raise InvalidHandshake(400, str(error)) from None


def since_of(query: str) -> str | None:
    return parse_qs(query, keep_blank_values=True).get("since", [None])[-1]


def catch_up(websocket: WebSocket, since: str, history: Log, show: Show) -> str:
    """Send what was said after `since`, and return the id of the last of it.

    However slowly the client reads, no more than a page is held for it. Raises ConnectionClosed,
    LogFailed.
    """
    newest = history.newest()
    # Of another log, or of a clock set back: no reason to hold back what comes.
    gap = order(since) > order(newest)
    if gap:
        since = newest
    position = history.before_newest(since, RESUMED)
    gap = gap or order(position) != order(since)
    for page in pages(history, position):
        if gap or page.gap:
            websocket.send(GAP)
            gap = False
        for text in show(page.entries):
            websocket.send(text)
        if page.entries:
            position = page.entries[-1][0]
    return position


class Joined(NamedTuple):
    """A client that has got everything up to an id, and wants what follows."""

    websocket: WebSocket
    since: str


class Resumers:
    """Who is here, who of them can resume, and their names. Any thread may call, but for `admit`.

    All that changes who is here goes through this, so that those who can resume are told.
    """

    def __init__(self, clients: set[WebSocket], clients_lock: threading.Lock) -> None:
        self._clients = clients
        self._lock = clients_lock
        self._names: dict[WebSocket, str] = {}
        self._changed = threading.Event()

    def __contains__(self, websocket: WebSocket) -> bool:
        return websocket in self._names

    def enter(self, websocket: WebSocket) -> None:
        """Make a plain client, which can't resume, one of `clients`."""
        with self._lock:
            self._clients.add(websocket)
        self._changed.set()

    def name(self, websocket: WebSocket, username: str) -> None:
        """Enter a client that can resume, or change its name."""
        with self._lock:
            self._names[websocket] = username
        self._changed.set()

    def remove(self, websocket: WebSocket) -> None:
        """Forget a client of either kind; nobody can admit it from now on."""
        with self._lock:
            self._names.pop(websocket, None)
            self._clients.discard(websocket)
        self._changed.set()

    def admit(
        self, joined: list[Joined], position: str, history: Log, show: Show
    ) -> list[WebSocket]:
        """Bring clients up to `position`, which all others have got, and make them `clients`.

        Those that could not be let in come back; one of them costs the others nothing.
        """
        failed: list[WebSocket] = []
        for client in joined:
            try:
                post_missed(client, position, history, show)
            except ConnectionClosed:
                continue  # its own thread learns it, too
            except Exception as error:
                # A log that fails says why in words; of all else the trace is needed.
                trace = not isinstance(error, LogFailed)
                text = "%s can't be let in: %s"
                log.error(text, client.websocket.peer, error, exc_info=trace)
                failed.append(client.websocket)
                continue
            with self._lock:
                if client.websocket in self._names:  # else it has left meanwhile
                    self._clients.add(client.websocket)
            self._changed.set()
        return failed

    def tell(self, event: str) -> None:
        """Post an event, as JSON, to those of `clients` that can resume."""
        with self._lock:
            receivers = [client for client in self._clients if client in self._names]
        broadcast(receivers, event)

    def tell_presence(self) -> None:
        """Tell who is here, at most once a second, however many come and go; never returns."""
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                self.tell(encode_json(self._online()))
            except Exception:  # the next time may be better
                log.exception("who is here could not be told")
            time.sleep(PRESENCE_INTERVAL)

    def _online(self) -> dict[str, Any]:
        with self._lock:
            names = sorted({name for name in self._names.values() if name})
            count = len(self._clients)
        return {"event": "online", "count": count, "usernames": names[:NAMES_TOLD]}


def post_missed(joined: Joined, position: str, history: Log, show: Show) -> None:
    """Post what was said after the id that a client has, up to `position`.

    A client that missed more than its backlog may hold is dropped, and comes back. Raises
    ConnectionClosed, LogFailed.
    """
    for page in pages(history, joined.since):
        missed = [entry for entry in page.entries if order(entry[0]) <= order(position)]
        if page.gap:
            joined.websocket.post(GAP)
        if missed:
            broadcast([joined.websocket], *show(missed))
        if len(missed) < len(page.entries):
            return  # the rest it gets with all others

"""What the Go original has not: coming back after a lost connection, and who is here.

A client that connects to `/ws?since=ID` gets in three steps what it missed, each message once and
in order: `catch_up` sends the past at the client's own pace, in its thread; `admit`, in the thread
of `handle_messages`, posts what was said meanwhile; from then on it is one of `clients`. Between
two steps nothing can slip in, as `handle_messages` alone decides what comes after what.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qs

from chat_entry import Entry, Log, LogFailed, order
from chat_json import encode_json
from rfc6455 import ConnectionClosed, InvalidHandshake, Opening, Prepared, WebSocket

RESUMED = 500  # messages at most that a client gets of those it missed
MAX_NAME = 64  # characters of a name that are told
NAMES_TOLD = 50  # at most, of those who are here
PRESENCE_INTERVAL = 1.0  # seconds at least from one `online` event to the next


def check_since(opening: Opening) -> None:
    """Refuse, before the 101, a `since` that is no id."""
    try:
        if (since := since_of(opening.query)) is not None:
            order(since)
    except ValueError as error:
        raise InvalidHandshake(400, str(error)) from None


def since_of(query: str) -> str | None:
    return parse_qs(query, keep_blank_values=True).get("since", [None])[-1]


def catch_up(websocket: WebSocket, since: str, log: Log, show: Callable[[Entry], str]) -> str:
    """Send what was said after `since`, and return the id of the last of it.

    Raises ConnectionClosed, LogFailed.
    """
    if order(since) > order(newest := log.newest()):
        since = newest  # of another log, or a clock set back: no reason to hold back what comes
    missed, more = log.since(since, RESUMED)
    if more:
        websocket.send(encode_json({"event": "gap"}))
    while missed:
        for entry in missed:
            websocket.send(show(entry))
        since = missed[-1][0]
        missed, _ = log.since(since)
    return since


class Joined(NamedTuple):
    """A client that has got everything up to an id, and wants what follows."""

    websocket: WebSocket
    since: str


class Resumers:
    """The clients that can resume, and their names. Any thread may call, but for `admit`."""

    def __init__(self, clients: set[WebSocket], clients_lock: threading.Lock) -> None:
        self._clients = clients
        self._lock = clients_lock
        self._names: dict[WebSocket, str] = {}
        self._joining: list[Joined] = []
        self._changed = threading.Event()

    def __contains__(self, websocket: WebSocket) -> bool:
        return websocket in self._names

    def name(self, websocket: WebSocket, username: str) -> None:
        """Enter a client, or change its name."""
        with self._lock:
            self._names[websocket] = username
        self._changed.set()

    def remove(self, websocket: WebSocket) -> None:
        with self._lock:
            self._names.pop(websocket, None)
        self._changed.set()

    def admit(
        self, joined: list[Joined], position: str, log: Log, show: Callable[[Entry], str]
    ) -> None:
        """Bring clients up to `position`, which all others have got, and make them `clients`.

        One that is ahead, because it came from a server that Redis told sooner, waits its turn.
        """
        self._joining += joined
        joining, self._joining = self._joining, []
        for websocket, since in joining:
            if order(since) > order(position):
                self._joining.append(Joined(websocket, since))
                continue
            try:
                missed, _ = log.since(since)
                missed = [entry for entry in missed if order(entry[0]) <= order(position)]
                websocket.post(Prepared(map(show, missed)))
            except (ConnectionClosed, LogFailed) as error:
                websocket.drop(str(error))
                continue
            with self._lock:
                if websocket in self._names:  # else it has left meanwhile
                    self._clients.add(websocket)
            self._changed.set()

    def tell_presence(self) -> None:
        """Tell who is here, at most once a second, however many come and go; never returns."""
        while True:
            self._changed.wait()
            self._changed.clear()
            with self._lock:
                receivers = [client for client in self._clients if client in self._names]
                names = sorted({name[:MAX_NAME] for name in self._names.values() if name})
                count = len(self._clients)
            event = {"event": "online", "count": count, "usernames": names[:NAMES_TOLD]}
            prepared = Prepared([encode_json(event)])
            for client in receivers:
                with contextlib.suppress(ConnectionClosed):
                    client.post(prepared)
            time.sleep(PRESENCE_INTERVAL)

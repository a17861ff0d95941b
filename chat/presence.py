"""Who is here: those who can resume are told, with the event `online`, how many and who.

A client that connects to `/ws?since=ID` can resume, and gets events. It tells its name with the
event `join`, and asks with the event `ping` whether the server is there. A client of plain `/ws`
gets messages only, as from the Go original; it is counted, but has no name here.
"""

import logging
import threading
import time

from chat.message import PONG, encode_event
from rfc6455 import WebSocket, broadcast

NAMES_TOLD = 50  # names in one event at most
PRESENCE_INTERVAL = 1.0  # seconds at least between two `online` events

log = logging.getLogger("chat")


class Presence:
    """Adds to `clients` and removes from it, and tells those who can resume of each change.

    Any thread may call. `clients_lock` also guards the names, and nothing is sent while it is held.
    """

    def __init__(self, clients: set[WebSocket], clients_lock: threading.Lock) -> None:
        self._clients = clients
        self._lock = clients_lock
        self._names: dict[WebSocket, str] = {}  # of all who can resume; "" until they tell it
        self._changed = threading.Event()

    def enter(self, websocket: WebSocket) -> None:
        """Add a plain client to `clients`."""
        with self._lock:
            self._clients.add(websocket)
        self._changed.set()

    def expect(self, websocket: WebSocket) -> None:
        """Note that a client can resume. It becomes one of `clients` when it has caught up."""
        self._name(websocket, "")

    def admit(self, websocket: WebSocket) -> None:
        """Add a client that can resume to `clients`, unless it has left in the meantime."""
        with self._lock:
            if websocket in self._names:
                self._clients.add(websocket)
        self._changed.set()

    def leave(self, websocket: WebSocket) -> None:
        """Remove a client of either kind. After that `admit` does not add it any more."""
        with self._lock:
            self._names.pop(websocket, None)
            self._clients.discard(websocket)
        self._changed.set()

    def handle_event(self, websocket: WebSocket, event: str | None, username: str) -> bool:
        """Do what a client asks the server for; False if its message is for everyone.

        From a plain client every message is for everyone, as in the original. Raises
        ConnectionClosed.
        """
        with self._lock:
            can_resume = websocket in self._names
        if can_resume and event == "ping":
            websocket.post(PONG)
            return True
        if can_resume and event == "join":
            self._name(websocket, username)
            return True
        return False

    def _name(self, websocket: WebSocket, username: str) -> None:
        with self._lock:
            self._names[websocket] = username
        self._changed.set()

    def tell(self, event: str) -> None:
        """Post an event, as JSON, to those of `clients` that can resume."""
        with self._lock:
            receivers = [client for client in self._clients if client in self._names]
        broadcast(receivers, event)

    def tell_changes(self) -> None:
        """Tell who is here whenever that has changed, at most once a second; never returns."""
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                self.tell(self._online())
            except Exception:  # the next attempt may be better
                log.exception("the event `online` could not be sent")
                self._changed.set()
            time.sleep(PRESENCE_INTERVAL)

    def _online(self) -> str:
        with self._lock:
            count = len(self._clients)
            names = list(self._names.values())
        usernames = sorted({name for name in names if name})[:NAMES_TOLD]
        return encode_event({"event": "online", "count": count, "usernames": usernames})

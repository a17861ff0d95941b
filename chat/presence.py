"""Who is here: how many clients, and the names and avatars of those that have told theirs.

If several servers form one chat, the clients of all of them are here: `redis_presence` exchanges
who is where.

A client that connects to `/ws?since=ID` can resume, and gets events. The event `online` tells it
who is here. A client of plain `/ws` gets messages only, as from the Go original; it is counted, but
not named.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from chat.message import encode_event
from rfc6455 import WebSocket, broadcast

# The most people in one `online` event. Fifty with short names take some 5 KB.
NAMES_TOLD = 50
PRESENCE_INTERVAL = 1.0  # seconds, at least, between two `online` events
# Bytes a second of these events to all clients together. While people come and go all the time, a
# thousand clients are told every five seconds. More would be most of what the server sends.
PRESENCE_RATE = 1_048_576
PRESENCE_PATIENCE = 30.0  # seconds, at most, until all are told, however many they are

log = logging.getLogger("chat")


class Person(NamedTuple):
    """Who a client is, as far as the others are told: its email address is not."""

    username: str
    avatar: str  # the SHA-256 of the email in hex, as in its messages; "" if it told no email


class Here(NamedTuple):
    """Who is here, on this server or on others."""

    clients: int  # how many
    people: tuple[Person, ...]  # sorted, each once, and at most NAMES_TOLD


NAMELESS = Person("", "")  # a client that has not told its name yet
NOBODY = Here(0, ())


class Presence:
    """Adds clients to `clients` and removes them, and sends `online` events when that changes.

    Any thread may call. `clients_lock` also guards the people, the newcomers and who is on other
    servers, and nothing is sent while it is held. What was told last is of the thread that runs
    `tell_changes`.
    """

    def __init__(self, clients: set[WebSocket], clients_lock: threading.Lock) -> None:
        self._clients = clients
        self._lock = clients_lock
        self._people: dict[WebSocket, Person] = {}  # all clients that can resume
        # Those of `clients` that can resume and were not told anything yet.
        self._newcomers: set[WebSocket] = set()
        self._elsewhere = NOBODY
        self._told = ""  # the event that all know; empty if they know different ones
        self._due = 0.0  # when all may be told again, by time.monotonic
        self._changed = threading.Event()  # set when `online` events have to be sent
        self._stop_sharing: Callable[[], None] = lambda: None

    def enter(self, websocket: WebSocket) -> None:
        """Add a plain client to `clients`."""
        with self._lock:
            self._clients.add(websocket)
        self._changed.set()

    def expect(self, websocket: WebSocket) -> None:
        """Note that a client can resume. `admit` adds it to `clients` when it has caught up."""
        self.introduce(websocket, NAMELESS)

    def admit(self, websocket: WebSocket) -> None:
        """Add a client that can resume to `clients`, unless it has left since `expect`."""
        with self._lock:
            if websocket in self._people:
                self._clients.add(websocket)
                self._newcomers.add(websocket)
        self._changed.set()

    def leave(self, websocket: WebSocket) -> None:
        """Remove any client. After that `admit` does not add it any more."""
        with self._lock:
            self._people.pop(websocket, None)
            self._newcomers.discard(websocket)
            self._clients.discard(websocket)
        self._changed.set()

    def can_resume(self, websocket: WebSocket) -> bool:
        """Whether this client gets events: it was expected, and has not left."""
        with self._lock:
            return websocket in self._people

    def introduce(self, websocket: WebSocket, person: Person) -> None:
        """Note who a client is that can resume."""
        with self._lock:
            self._people[websocket] = person
        self._changed.set()

    def tell(self, event: str) -> None:
        """Send an event, given as JSON, to those of `clients` that can resume. Never waits."""
        with self._lock:
            receivers = self._informed()
        broadcast(receivers, event)

    def _informed(self) -> list[WebSocket]:
        """Those of `clients` that can resume. The lock is held."""
        return [client for client in self._clients if client in self._people]

    def tell_changes(self) -> None:
        """Send `online` events whenever they have changed, once a second at most. Never returns."""
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                self._tell_online()
            except Exception:  # the next attempt may be better, and is for all
                log.exception("the event `online` could not be sent")
                self._due = 0.0
                self._changed.set()
            time.sleep(PRESENCE_INTERVAL)

    def _tell_online(self) -> None:
        """Tell all clients who is here, or, as long as that is too early, only the newcomers.

        A crowd is told seldom: so much data goes out while people come and go.
        """
        event = self._online()
        with self._lock:
            everyone = self._informed()
            newcomers = list(self._newcomers)
            self._newcomers.clear()
        known = self._told
        self._told = ""
        if event == known:
            broadcast(newcomers, event)
            self._told = event
        elif time.monotonic() < self._due:
            broadcast(newcomers, event)
            self._changed.set()  # the others are told later
        else:
            broadcast(everyone, event)
            self._told = event
            self._due = time.monotonic() + pause_after(len(event.encode()) * len(everyone))

    def _online(self) -> str:
        with self._lock:
            count = len(self._clients) + self._elsewhere.clients
            people = [*self._people.values(), *self._elsewhere.people]
        told = [person._asdict() for person in people_to_tell(people)]
        return encode_event({"event": "online", "count": count, "people": told})

    # Other servers

    def here(self) -> Here:
        """Who is here on this server."""
        with self._lock:
            clients = len(self._clients)
            people = list(self._people.values())
        return Here(clients, people_to_tell(people))

    def note_elsewhere(self, elsewhere: Here) -> None:
        """Note who is here on all other servers together."""
        with self._lock:
            if elsewhere == self._elsewhere:
                return
            self._elsewhere = elsewhere
        self._changed.set()

    def share(self, stop: Callable[[], None]) -> None:
        """Note that other servers are told who is here; `close` calls `stop`, which ends that."""
        self._stop_sharing = stop

    def close(self) -> None:
        """Take the clients of this server away from the other servers, as it ends."""
        self._stop_sharing()


def pause_after(size: int) -> float:
    """How long everybody waits for the next event, in seconds, after so many bytes of this one."""
    return min(size / PRESENCE_RATE, PRESENCE_PATIENCE)


def people_to_tell(people: Iterable[Person]) -> tuple[Person, ...]:
    """These people by name and avatar, each once, and the first NAMES_TOLD at most.

    Those without a name are left out. If they come from several servers, as many of each suffice to
    find the first ones of all.
    """
    named = {person for person in people if person.username}
    return tuple(sorted(named)[:NAMES_TOLD])

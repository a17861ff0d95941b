"""A solution of the second exercise: the chat server with rooms, as `/ws?room=NAME`.

What makes a room is what the original keeps in its variables: `clients`, `broadcast`, `history`,
`presence`, and a thread for `handle_messages`. So here a room is one more copy of the module
`chat_server`, with its own variables, and not a line of the chat has to be repeated. In your own
tree you would rather make a class of these variables and of the two functions that use them.

With `--history FILE` the messages of a room are in FILE.NAME. Left out: rooms on Redis, which would
need streams and keys with other names; and closing a room that everyone has left.
"""

import importlib.util
import queue
import re
import sys
import threading
from dataclasses import replace
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs

import chat_server
from chat.batch import MessagesThread, finish
from chat.entry import HistoryError
from chat.options import read_options
from chat.resume import check_since
from rfc6455 import Close, CloseCode, Handshake, InvalidHandshake, WebSocket

MAX_ROOMS = 100  # each takes two threads, and memory for its messages
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")  # it is also part of the name of a file

handle_in_the_original_room = chat_server.handle_connections

_rooms: dict[str, Any] = {}  # by name; each is a module, whose variables no checker knows
_lock = threading.Lock()  # around the rooms; held while one is opened


def room_of(query: str) -> str | None:
    """The name of the room in a query, or None for the original's."""
    return parse_qs(query, keep_blank_values=True).get("room", [None])[-1]


def check_room(handshake: Handshake) -> None:
    """Refuse an opening handshake with a bad name of a room, or a bad `since`, with 400."""
    name = room_of(handshake.query)
    if name is not None and not _NAME.fullmatch(name):
        allowed = "1 to 32 letters, digits, - and _"
        raise InvalidHandshake(400, f"the name of a room has {allowed}, unlike {name[:40]!r}")
    check_since(handshake)


def handle_connections(ws: WebSocket) -> None:
    """Handle a client in the room that it asks for; the first to ask opens it."""
    name = room_of(ws.query)
    handle = handle_in_the_original_room if name is None else _find(name).handle_connections
    handle(ws)


def _find(name: str) -> Any:
    """The room with this name. Raises Close if it cannot be opened."""
    with _lock:
        if name not in _rooms:
            if len(_rooms) >= MAX_ROOMS:
                raise Close(CloseCode.POLICY_VIOLATION, f"there are {MAX_ROOMS} rooms already")
            try:
                _rooms[name] = _open(name)
            except HistoryError as error:
                reason = f"the room cannot be opened: {error}"
                raise Close(CloseCode.INTERNAL_ERROR, reason) from error
        return _rooms[name]


def _open(name: str) -> Any:
    """Do for a room what `main` does for the original's. Raises HistoryError."""
    room: Any = _copy_of_chat_server(name)
    options = chat_server.options
    if options.history:
        options = replace(options, history=f"{options.history}.{name}")
    room.options = options
    room.history = room.open_history(options, wake=lambda: room.broadcast.put("news"))
    room.start_presence(options, room.presence, room.start_thread)
    room.messages_thread = room.start_thread(MessagesThread(room.handle_messages))
    return room


def _copy_of_chat_server(name: str) -> ModuleType:
    """The module once more, under another name."""
    spec = importlib.util.spec_from_file_location(f"room {name}", chat_server.__file__)
    assert spec
    assert spec.loader
    room = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(room)
    return room


def finish_all(broadcast: "queue.Queue[Any]", messages_thread: threading.Thread) -> None:
    """End `handle_messages` of every room, and of the original's, as the server ends."""
    with _lock:
        rooms = list(_rooms.values())
    for room in rooms:
        finish(room.broadcast, room.messages_thread)
        if not room.messages_thread.is_alive():  # otherwise it still uses the history
            room.history.close()
    finish(broadcast, messages_thread)


if __name__ == "__main__":
    if read_options().redis:
        sys.exit("rooms are kept in memory or in files, so --redis cannot be used")
    # The program looks these names up when it needs them, and finds ours.
    vars(chat_server).update(
        check_since=check_room, handle_connections=handle_connections, finish=finish_all
    )
    chat_server.main()

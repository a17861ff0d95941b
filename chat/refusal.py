"""Sending a client away whose wish could not be fulfilled.

It may come back and say its message again, under the same key. What it has said behind that message
is not heard: it would be shown in another order than it was said.
"""

import logging
import threading
import weakref

from rfc6455 import CloseCode, WebSocket

log = logging.getLogger("chat")

# Weak, so that a connection is forgotten when its thread and the queue have let go of it.
_refused: "weakref.WeakSet[WebSocket]" = weakref.WeakSet()
_lock = threading.Lock()  # around each use of that set
_ended = threading.Event()


def refuse(websocket: WebSocket, reason: str) -> None:
    """Close with 1011 and this reason, and hear nothing more from this client.

    Never waits, and raises nothing: `handle_messages` has to go on.
    """
    with _lock:
        _refused.add(websocket)
    try:
        websocket.close(CloseCode.INTERNAL_ERROR, reason, wait=False)
    except Exception:
        log.exception("%s could not be sent away", websocket.peer)


def refuse_everyone() -> None:
    """Hear nothing more from anybody: `handle_messages` has ended, and the server ends."""
    _ended.set()


def is_refused(websocket: WebSocket) -> bool:
    """Whether what this client says does not count any more."""
    if _ended.is_set():
        return True
    with _lock:
        return websocket in _refused

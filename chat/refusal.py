"""Refusing a client whose message could not be saved, or that could not be sent what it waits for.

Its connection is closed with 1011, and messages that it has sent meanwhile are ignored. The client
may connect again, and resend what it has not seen, with the same keys. If the later messages were
not ignored, they could be shown before the one that failed.
"""

import logging
import threading
import weakref

from rfc6455 import CloseCode, WebSocket

log = logging.getLogger("chat")

# Weak references, so that a connection is removed when nothing else refers to it any more.
_refused: "weakref.WeakSet[WebSocket]" = weakref.WeakSet()
_lock = threading.Lock()  # held around each use of that set
_ended = threading.Event()  # set when all clients are ignored


def refuse(websocket: WebSocket, reason: str) -> None:
    """Close the connection with 1011 and this reason, and ignore what else the client sends.

    Never waits, and raises nothing, because `handle_messages` has to go on. Any thread.
    """
    with _lock:
        _refused.add(websocket)
    try:
        websocket.close(CloseCode.INTERNAL_ERROR, reason, wait=False)
    except Exception:
        log.exception("%s could not be refused", websocket.peer)


def refuse_everyone() -> None:
    """Ignore what any client sends from now on, because nobody will handle it. Any thread."""
    _ended.set()


def is_refused(websocket: WebSocket) -> bool:
    """Whether messages of this client are ignored. Any thread."""
    if _ended.is_set():
        return True
    with _lock:
        return websocket in _refused

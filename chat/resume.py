"""Resuming after a lost connection: a client gets each message that it has missed exactly once.

A client that connects to `/ws?since=ID` gets what follows that id in three steps:

1. `catch_up` sends it what is in the history, in the client's own thread.
2. `admit` posts what was appended in the meantime, in the thread of `handle_messages`.
3. From then on it is one of `clients`, and gets what all others get.

No message is lost or sent twice between these steps, because the thread of `handle_messages` does
the last two, and knows which message it has sent to all clients last. In place of messages that
were deleted the client gets the event `gap`.
"""

import logging
from typing import NamedTuple
from urllib.parse import parse_qs

from chat.entry import History, HistoryError, order, pages
from chat.message import GAP, encode_all
from chat.presence import Presence
from rfc6455 import Close, CloseCode, Handshake, InvalidHandshake, WebSocket, broadcast

MAX_RESUMED = 500  # the most messages that a client gets of those it missed
RESUME_PATIENCE = 10.0  # seconds to wait for Redis; a client that waits takes a place from others

log = logging.getLogger("chat")


class Resuming(NamedTuple):
    """A client that has got everything up to `position`, and is to get what follows."""

    websocket: WebSocket
    position: str  # an id


def check_since(handshake: Handshake) -> None:
    """Refuse an opening handshake whose `since` is not a message id, with 400."""
    since = since_of(handshake.query)
    if since is None:
        return
    try:
        order(since)
    except ValueError as error:
        raise InvalidHandshake(400, f"since={error}") from None


def since_of(query: str) -> str | None:
    """The id after which a client resumes, or None for a client of plain `/ws`."""
    return parse_qs(query, keep_blank_values=True).get("since", [None])[-1]


def catch_up(websocket: WebSocket, since: str, history: History, *, hide_emails: bool) -> Resuming:
    """Send a client what follows the id `since`, and return the client with its new position.

    It waits for the client, and holds only one page of the history in memory. Raises
    ConnectionClosed, and Close if the history cannot be read. To be called in the client's own
    thread.
    """
    try:
        hurried = history.hurried(RESUME_PATIENCE)
        position = _send_past(websocket, since, hurried, hide_emails=hide_emails)
    except HistoryError as error:
        log.error("%s is refused: the history could not be read: %s", websocket.peer, error)
        reason = "the history could not be read"
        raise Close(CloseCode.INTERNAL_ERROR, reason) from None
    return Resuming(websocket, position)


def _send_past(websocket: WebSocket, since: str, history: History, *, hide_emails: bool) -> str:
    """Send what follows the id `since`; returns the id of the last message that was sent."""
    newest = history.newest()
    position = since
    gap = order(since) > order(newest)
    if gap:
        # The id is from another history, or the clock was set back. New messages may have lower
        # ids than this one, and the client is to get them all the same.
        position = newest
    before_newest = history.before_newest(position, MAX_RESUMED)
    gap = gap or order(before_newest) != order(position)
    position = before_newest
    for page in pages(history, position):
        if gap or page.gap:
            websocket.send(GAP)
            gap = False
        for text in encode_all(page.entries, hide_emails=hide_emails):
            websocket.send(text)
        position = page.end(position)
    return position


def admit(
    resuming: Resuming, position: str, history: History, presence: Presence, *, hide_emails: bool
) -> None:
    """Post a client what follows its own position, up to `position`, and add it to `clients`.

    `position` is the id of the last message that was sent to all clients. Raises ConnectionClosed,
    HistoryError. Only the thread of `handle_messages` may call.
    """
    # The client's own position is the higher one where Redis has lost messages in the meantime.
    if order(resuming.position) != order(position):
        post_missed(resuming, position, history, hide_emails=hide_emails)
    presence.admit(resuming.websocket)


def post_missed(resuming: Resuming, position: str, history: History, *, hide_emails: bool) -> None:
    """Post what follows the client's own position, up to `position`.

    A client that has missed more than its connection may hold back is dropped, and resumes again.
    """
    for page in pages(history, resuming.position):
        missed = [each for each in page.entries if order(each.message_id) <= order(position)]
        if page.gap:
            resuming.websocket.post(GAP)
        if missed:
            broadcast([resuming.websocket], *encode_all(missed, hide_emails=hide_emails))
        if len(missed) < len(page.entries):
            return  # the other entries were not sent to all clients yet either

"""Coming back after a lost connection, without missing anything and without getting it twice.

A client that connects to `/ws?since=ID` gets what follows that id in three steps:

1. `catch_up` sends it the past, in the client's own thread and at the client's own pace.
2. `admit` posts what was said in the meantime, in the thread of `handle_messages`.
3. From then on it is one of `clients`, and gets what all others get.

Nothing can slip through between two steps, because `handle_messages` alone decides what comes after
what. Messages that the client cannot get any more are announced by the event `gap`, at the place
where they are missing.
"""

import logging
from typing import NamedTuple
from urllib.parse import parse_qs

from chat.entry import History, HistoryError, order, pages
from chat.message import GAP, encode_all
from chat.presence import Presence
from rfc6455 import Close, CloseCode, Handshake, InvalidHandshake, WebSocket, broadcast

MAX_RESUMED = 500  # messages that a client gets at most of those it missed

log = logging.getLogger("chat")


class Resuming(NamedTuple):
    """A client that has everything up to `position`, and wants to get what follows."""

    websocket: WebSocket
    position: str  # an id


def check_since(handshake: Handshake) -> None:
    """Refuse, before the connection opens, a `since` that is not a message id."""
    since = since_of(handshake.query)
    if since is None:
        return
    try:
        order(since)
    except ValueError as error:
        raise InvalidHandshake(400, str(error)) from None


def since_of(query: str) -> str | None:
    """The id that a client wants to resume at, or None for a client of plain `/ws`."""
    return parse_qs(query, keep_blank_values=True).get("since", [None])[-1]


def catch_up(websocket: WebSocket, since: str, history: History, *, hide_emails: bool) -> Resuming:
    """Send a client what follows `since`; returns how far it got.

    However slowly the client reads, only a page is held in memory for it. Raises ConnectionClosed,
    and Close if the history cannot be read.
    """
    try:
        position = _send_past(websocket, since, history.for_resuming(), hide_emails=hide_emails)
    except HistoryError as error:
        log.error("%s is sent away: the history cannot be read: %s", websocket.peer, error)
        reason = "the history could not be read"
        raise Close(CloseCode.INTERNAL_ERROR, reason) from None
    return Resuming(websocket, position)


def _send_past(websocket: WebSocket, since: str, history: History, *, hide_emails: bool) -> str:
    newest = history.newest()
    position = since
    gap = order(since) > order(newest)
    if gap:  # The id is from another history, or the clock was set back. New messages do not wait.
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
    """Post a client what follows its own position, up to that of all others, and let it in.

    Only `handle_messages` may call. Raises ConnectionClosed, HistoryError.
    """
    if order(resuming.position) < order(position):
        post_missed(resuming, position, history, hide_emails=hide_emails)
    presence.admit(resuming.websocket)


def post_missed(resuming: Resuming, position: str, history: History, *, hide_emails: bool) -> None:
    """A client that missed more than may wait for it is dropped, and comes back."""
    for page in pages(history, resuming.position):
        missed = [each for each in page.entries if order(each.message_id) <= order(position)]
        if page.gap:
            resuming.websocket.post(GAP)
        if missed:
            broadcast([resuming.websocket], *encode_all(missed, hide_emails=hide_emails))
        if len(missed) < len(page.entries):
            return  # what is left all others have not got, either

"""The events of a client: messages that are for the server alone.

A client that connects to `/ws?since=ID` can resume, and may send events. With `join` it tells the
server its name and email, with `ping` it asks whether the server still answers, and with `older` it
asks for the messages before an id. A client of plain `/ws` has no events, as in the Go original:
whatever it sends is for all clients.
"""

import logging
from typing import Protocol

from chat.entry import History, HistoryError, order
from chat.message import PONG, avatar_of, encode_older, encode_older_failed
from chat.pace import Pace
from chat.presence import Person, Presence
from rfc6455 import Close, CloseCode, WebSocket

# Seconds to wait for Redis. Meanwhile nothing else of the client is read, and the web page gives a
# `ping` five seconds before it takes the connection for dead.
OLDER_PATIENCE = 3.0

log = logging.getLogger("chat")


class Sent(Protocol):
    """What a client has sent: `chat_server.Message`."""

    @property
    def email(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def event(self) -> str | None: ...
    @property
    def before(self) -> str | None: ...
    @property
    def sender(self) -> WebSocket: ...


class Events:
    """Handles the events of one client. Only the thread that reads from the client may call."""

    def __init__(
        self, presence: Presence, history: History, pace: Pace, *, hide_emails: bool
    ) -> None:
        self._presence = presence
        self._history = history
        self._pace = pace
        # So that a client which has said much still gets an answer to its ping.
        self._events_pace = pace.for_events()
        self._hide_emails = hide_emails

    def handle(self, sent: Sent) -> bool:
        """Handle an event; returns False if this is a message for all clients.

        Raises ConnectionClosed, and Close if something is wrong with the event.
        """
        if sent.event is None or not self._presence.can_resume(sent.sender):
            return False
        if sent.event == "ping":
            sent.sender.post(PONG)
            self._events_pace.wait()
        elif sent.event == "join":
            self._presence.introduce(sent.sender, _person(sent))
            self._events_pace.wait()
        elif sent.event == "older":
            self._send_older(sent.sender, _check_before(sent.before))
        else:
            return False
        return True

    def _send_older(self, websocket: WebSocket, before: str) -> None:
        """Send the client the messages directly before an id, or that they cannot be read.

        It counts for the client's pace like a message. It is sent with `send`, which waits for the
        client: one that asks for more than it reads is slowed, and no more than one answer waits
        for it.
        """
        self._pace.wait()
        try:
            page = self._history.hurried(OLDER_PATIENCE).before(before)
        except HistoryError as error:
            log.error(
                "%s gets no older messages: the history could not be read: %s",
                websocket.peer,
                error,
            )
            answer = encode_older_failed(before)
        else:
            answer = encode_older(before, page, hide_emails=self._hide_emails)
        websocket.send(answer)


def _person(sent: Sent) -> Person:
    """Who has sent an event `join`, without the email, which is for nobody else."""
    has_email = bool(sent.email.strip())
    return Person(sent.username, avatar_of(sent.email) if has_email else "")


def _check_before(before: str | None) -> str:
    """The id in an event `older`. Raises Close if there is none."""
    if before is None:
        raise Close(CloseCode.POLICY_VIOLATION, "before is missing, or not a string")
    try:
        order(before)
    except ValueError:  # its text may be too long for a Close
        reason = "before is not a message id, such as 1700000000000-0"
        raise Close(CloseCode.POLICY_VIOLATION, reason) from None
    return before

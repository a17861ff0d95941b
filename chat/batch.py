"""All messages that wait are taken at once: a busy chat writes few large pieces, not many small.

In the Go original a message that was received from the channel is as good as delivered. Here it is
kept in the history first, and several things may fail on the way. `Batch` knows who waits for what:
when something fails, only those are sent away whose wish was not fulfilled. What is in the history
already needs nobody to say it again: it is shown to everyone as soon as it can be read.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from chat.entry import PAGE_CHARACTERS, Content, Entry, History, HistoryError, size_of
from chat.message import encode
from chat.presence import Presence
from chat.refusal import is_refused, refuse, refuse_everyone
from chat.resume import Joining, admit
from rfc6455 import ConnectionClosed, WebSocket

RETRY = 1.0  # seconds after which a history that could not be read is read again
END_TIME = 1.0  # seconds at the end for what waits; the whole exit may take five

log = logging.getLogger("chat")


class Said(Content, Protocol):
    """A message on its way to the history: `chat_server.Message`."""

    @property
    def sender(self) -> WebSocket: ...


News = Literal["news"]  # other servers have appended to the history
S = TypeVar("S", bound=Said)
# What goes through the queue `broadcast`: a message; a client that comes back, and has caught up;
# "news", when another server has stored messages in the history; and None at the end.
Item: TypeAlias = S | Joining | News | None


class _Resent(NamedTuple):
    """A message whose key the history had already."""

    said: Said
    message_id: str  # of the message in the history


class Batch:
    """What `handle_messages` took from the queue at once, and the clients that wait for it."""

    def __init__(self, items: Sequence[Item[Said]], *, is_retry: bool) -> None:
        self.failed = False
        self._is_retry = is_retry
        self._is_empty = not items
        self._joining = [item for item in items if isinstance(item, Joining)]
        said = [item for item in items if item is not None and not isinstance(item, str | Joining)]
        self._said = [each for each in said if not is_refused(each.sender)]
        self._resent: list[_Resent] = []
        # The clients that are sent away if something fails now.
        self._waiting = [each.sender for each in self._said]
        self._waiting += [each.websocket for each in self._joining]

    def append_to(self, history: History) -> None:
        """Append what was said to the history. If that cannot be written, send the senders away.

        Raises only what nobody foresaw.
        """
        try:
            appended = history.append(self._said)
        except HistoryError as error:
            for each in self._said:
                text = "%s is sent away: its message could not be saved: %s"
                log.error(text, each.sender.peer, error)
                refuse(each.sender, "the message could not be saved")
        else:
            self._resent = [
                _Resent(said, outcome.message_id)
                for said, outcome in zip(self._said, appended, strict=True)
                if outcome.is_known
            ]
        # What was appended is shown sooner or later, whatever fails now. So its senders do not wait
        # any more, except for those who are to get a copy.
        self._waiting = [each.said.sender for each in self._resent]
        self._waiting += [each.websocket for each in self._joining]

    def admit_returning(
        self, history: History, position: str, presence: Presence, *, hide_emails: bool
    ) -> None:
        """Make the clients that come back some of `clients`, which have all up to `position`.

        A failure for one client costs the others nothing. Raises nothing.
        """
        self._waiting = []
        for joining in self._joining:
            let_in = partial(admit, joining, position, history, presence, hide_emails=hide_emails)
            _try_for(joining.websocket, let_in, "%s cannot be let in: %s")

    def confirm_repeated(self, history: History, *, hide_emails: bool) -> None:
        """Send each client that has repeated a message the stored one, and nobody else.

        A failure for one client costs the others nothing. Raises nothing.
        """
        for resent in self._resent:
            send_copy = partial(_acknowledge, resent, history, hide_emails=hide_emails)
            _try_for(resent.said.sender, send_copy, "%s gets no copy of its message: %s")

    def fail(self, error: Exception) -> None:
        """Send the waiting clients away, and have `batches` try again soon. Raises nothing."""
        self.failed = True
        if not isinstance(error, HistoryError):
            log.error("a batch of messages could not be handled", exc_info=error)
        elif not (self._is_retry and self._is_empty):  # otherwise it was logged a second ago
            log.error("the history cannot be read; nothing is shown until it can: %s", error)
        for websocket in self._waiting:
            refuse(websocket, "internal error")


def _try_for(websocket: WebSocket, do: Callable[[], None], failure: str) -> None:
    """Do something for one client. If that fails, it is logged, and the client sent away."""
    try:
        do()
    except ConnectionClosed:
        pass  # The client's own thread learns it, too. The client may come back.
    except Exception as error:
        # A HistoryError says in words why. For everything else the trace is needed.
        trace = not isinstance(error, HistoryError)
        log.error(failure, websocket.peer, error, exc_info=trace)
        refuse(websocket, "internal error")


def _acknowledge(resent: _Resent, history: History, *, hide_emails: bool) -> None:
    """Send the message in the history to the client that has said it again, and to nobody else."""
    said = resent.said
    entry = history.entry(resent.message_id)
    if entry is None:  # It was deleted. What the client says now stands for it.
        entry = Entry(resent.message_id, said.email, said.username, said.message, said.key)
    said.sender.post(encode(entry, hide_emails=hide_emails))


def batches(broadcast: "queue.Queue[Item[S]]") -> Iterator[Batch]:
    """Batches of what waits in the queue, until None was taken and nothing waits any more.

    After a batch that has failed the next one, which may be empty, comes RETRY later at the latest.
    """
    failed = False
    closed = False
    while not (closed and broadcast.empty()):
        items = take(broadcast, RETRY if failed else None)
        closed = closed or None in items
        batch = Batch(items, is_retry=failed)
        yield batch
        failed = batch.failed


def take(broadcast: "queue.Queue[Item[S]]", timeout: float | None) -> list[Item[S]]:
    """Wait for an item; then take all that wait, up to about a page. Empty after the timeout."""
    try:
        items = [broadcast.get(timeout=timeout)]
    except queue.Empty:
        return []
    size = _characters(items[0])
    while size < PAGE_CHARACTERS:
        try:
            items.append(broadcast.get_nowait())
        except queue.Empty:
            break
        size += _characters(items[-1])
    return items


def _characters(item: Item[Said]) -> int:
    return 0 if item is None or isinstance(item, str | Joining) else size_of(item)


def finish(broadcast: "queue.Queue[Item[S]]", handle_messages: threading.Thread) -> None:
    """Put None, which is as close(broadcast) for a channel in Go, and wait for its reader.

    What waits is still shown, unless that takes more than END_TIME: Redis may be away.
    """
    deadline = time.monotonic() + END_TIME
    with contextlib.suppress(queue.Full):
        broadcast.put(None, timeout=END_TIME)
        handle_messages.join(max(0.0, deadline - time.monotonic()))
    refuse_everyone()

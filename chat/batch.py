"""All messages that wait are taken at once: a busy chat writes few large pieces, not many small.

In the Go original a message that was received from the channel is as good as delivered. Here it is
kept in the history first, and several things may fail on the way. `Batch` knows who waits for what:
when something fails, only those are sent away whose wish was not fulfilled. What is in the history
already needs nobody to say it again: it is shown to everyone as soon as it can be read.
"""

import contextlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from chat.entry import PAGE_CHARACTERS, Content, Entry, History, HistoryError, size_of
from chat.message import encode
from chat.presence import Presence
from chat.refusal import is_refused, refuse, refuse_everyone
from chat.resume import Resuming, admit
from rfc6455 import ConnectionClosed, State, WebSocket

RETRY = 1.0  # seconds after which a history that could not be read is read again
PUT_TIMEOUT = 1.0  # seconds after which a client that waits for the queue is looked after
END_TIME = 0.5  # seconds at the end to send what waits; the whole exit may take five

log = logging.getLogger("chat")


class Said(Content, Protocol):
    """A message on its way to the history: `chat_server.Message`."""

    @property
    def sender(self) -> WebSocket: ...


News = Literal["news"]  # other servers have appended to the history
S = TypeVar("S", bound=Said)
# What goes through the queue `broadcast`: a message; a client that comes back, and has caught up;
# "news", when another server has stored messages in the history; and None at the end.
Item: TypeAlias = S | Resuming | News | None


class _Resent(NamedTuple):
    """A message whose key the history had already."""

    said: Said
    message_id: str  # of the message in the history


class Batch:
    """What `handle_messages` took from the queue at once, and the clients that wait for it."""

    def __init__(self, *, is_retry: bool) -> None:
        self.failed = False
        self.is_last = False  # None was taken
        self._is_retry = is_retry
        self._is_empty = True
        self._resuming: list[Resuming] = []
        self._said: list[Said] = []
        self._resent: list[_Resent] = []
        self._senders: dict[str, WebSocket] = {}  # of the messages that were appended, by their ids
        self._waiting: list[WebSocket] = []  # the clients to refuse if something fails now

    def add(self, item: Item[Said]) -> None:
        """Add what was taken from the queue."""
        self._is_empty = False
        if item is None:
            self.is_last = True
        elif isinstance(item, Resuming):
            self._resuming.append(item)
            self._waiting.append(item.websocket)
        elif not isinstance(item, str) and not is_refused(item.sender):
            self._said.append(item)
            self._waiting.append(item.sender)

    def append_to(self, history: History) -> None:
        """Append what was said to the history. If that cannot be written, send the senders away.

        Raises only what nobody foresaw.
        """
        try:
            appended = history.append(self._said)
        except HistoryError as error:
            for sender in dict.fromkeys(each.sender for each in self._said):
                log.error("%s is refused: its message could not be saved: %s", sender.peer, error)
                refuse(sender, "the message could not be saved")
        else:
            self._resent = [
                _Resent(said, outcome.message_id)
                for said, outcome in zip(self._said, appended, strict=True)
                if outcome.is_known
            ]
            self._senders = {
                outcome.message_id: said.sender
                for said, outcome in zip(self._said, appended, strict=True)
                if not outcome.is_known
            }
        # What was appended is shown sooner or later, whatever fails now. So its senders do not wait
        # any more, except for those who are to get a copy.
        self._waiting = [each.said.sender for each in self._resent]
        self._waiting += [each.websocket for each in self._resuming]

    def refuse_sender(self, entry: Entry) -> None:
        """Refuse the client that waits for this message, which cannot be sent, if it is here."""
        sender = self._senders.get(entry.message_id)
        if sender:
            refuse(sender, "internal error")

    def admit_resuming(
        self, history: History, position: str, presence: Presence, *, hide_emails: bool
    ) -> None:
        """Make the clients that come back some of `clients`, which have all up to `position`.

        A failure for one client costs the others nothing. Raises nothing.
        """
        self._waiting = []
        for resuming in self._resuming:
            let_in = partial(admit, resuming, position, history, presence, hide_emails=hide_emails)
            _try_for(resuming.websocket, let_in, "%s cannot be let in: %s")

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
        batch = Batch(is_retry=failed)
        try:
            for item in take(broadcast, RETRY if failed else None):
                batch.add(item)
        except Exception as error:  # noqa: BLE001 (`fail` logs it)
            batch.fail(error)
            time.sleep(RETRY)  # so that a failure each time does not keep the processor busy
        else:
            yield batch
        closed = closed or batch.is_last
        failed = batch.failed


def take(broadcast: "queue.Queue[Item[S]]", timeout: float | None) -> Iterator[Item[S]]:
    """Wait for an item, and yield it and all others that wait, up to about a page of the history.

    Yields nothing if no item comes before the timeout, in seconds.
    """
    size = 0
    with contextlib.suppress(queue.Empty):
        item = broadcast.get(timeout=timeout)
        while True:
            yield item  # Only then can something fail: a client whose item was taken is known.
            size += _characters(item)
            if size >= PAGE_CHARACTERS:
                return
            item = broadcast.get_nowait()


def _characters(item: Item[Said]) -> int:
    return 0 if item is None or isinstance(item, str | Resuming) else size_of(item)


def put(broadcast: "queue.Queue[Item[S]]", item: S | Resuming) -> None:
    """Put a client's item into the queue. While the queue is full this waits, and so TCP slows the
    client.

    It gives up, and raises ConnectionClosed, when the client has gone: if Redis is away, the queue
    may stay full for long, and the client's thread and place are needed for others.
    """
    websocket = item.websocket if isinstance(item, Resuming) else item.sender
    while True:
        try:
            broadcast.put(item, timeout=PUT_TIMEOUT)
            return
        except queue.Full:
            # While this thread is busy the clock reads from the client, and notices its end.
            if websocket.state is State.CLOSED:
                raise ConnectionClosed(websocket.close_code, websocket.close_reason) from None


class MessagesThread(threading.Thread):
    """The thread of `handle_messages`. Without it nothing is shown, so the server ends with it."""

    failed = False  # whether an exception has ended it

    def __init__(self, handle_messages: Callable[[], None]) -> None:
        super().__init__(target=handle_messages, name="handle_messages", daemon=True)

    def run(self) -> None:
        try:
            super().run()
        except BaseException:
            log.exception("handle_messages has failed; the server ends")
            self.failed = True
            signal.raise_signal(signal.SIGTERM)


def finish(broadcast: "queue.Queue[Item[S]]", handle_messages: threading.Thread) -> None:
    """Put None, which is as close(broadcast) for a channel in Go, and wait for its reader.

    What waits is still sent, unless that takes more than END_TIME: Redis may be away.
    """
    deadline = time.monotonic() + END_TIME
    with contextlib.suppress(queue.Full):
        broadcast.put(None, timeout=END_TIME)
        handle_messages.join(max(0.0, deadline - time.monotonic()))
    refuse_everyone()

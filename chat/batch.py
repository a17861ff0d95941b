"""Handling all messages that wait at once, and refusing the right clients when something fails.

One batch costs one transaction in the history and one system call for each client, however many
messages are in it. In the Go original nothing can fail between the channel and the clients. Here a
message is appended to the history first, which can fail. `Batch` knows which clients wait for what,
so that only those lose their connection that would otherwise wait in vain. A message that is in the
history is not lost by a failure: it is sent as soon as it can be read.
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

RETRY = 1.0  # seconds after which a failed batch is followed by another attempt
# Seconds after which a thread that waits for the full queue checks whether its client has gone. A
# queue that was full for so long is stuck; a busy one has room again sooner.
PUT_TIMEOUT = 1.0
END_TIME = 0.5  # seconds to send what waits when the server ends; the whole end may take five

log = logging.getLogger("chat")


class Said(Content, Protocol):
    """A message on its way to the history: `chat_server.Message`."""

    @property
    def sender(self) -> WebSocket: ...


News = Literal["news"]  # another server has appended messages to the history
S = TypeVar("S", bound=Said)
# What goes through the queue `broadcast`: messages; resuming clients that have caught up; "news",
# for which the history has to be read; and None, which ends `handle_messages`.
Item: TypeAlias = S | Resuming | News | None


class _Resent(NamedTuple):
    """A message whose key the history had already."""

    said: Said
    message_id: str  # of the message in the history


class Batch:
    """What `handle_messages` took from the queue at once, and the clients that wait for it."""

    def __init__(self, *, is_retry: bool) -> None:
        self.failed = False
        self.is_last = False  # whether None was taken, which ends `handle_messages`
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
        """Append the messages to the history. If that fails, refuse their senders.

        A HistoryError is handled here; any other exception is raised.
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
        # What was appended will be sent, whatever fails now. So its senders are not refused any
        # more, except for those that wait for a copy.
        self._waiting = [each.said.sender for each in self._resent]
        self._waiting += [each.websocket for each in self._resuming]

    def refuse_sender(self, entry: Entry) -> None:
        """Refuse the sender of a message that cannot be sent, if this batch has appended it.

        Otherwise it would wait for its message for ever.
        """
        sender = self._senders.get(entry.message_id)
        if sender:
            refuse(sender, "internal error")

    def admit_resuming(
        self, history: History, position: str, presence: Presence, *, hide_emails: bool
    ) -> None:
        """Send resuming clients what they have missed up to `position`, and add them to `clients`.

        `position` is the id of the last message that was sent to all clients. If this fails for one
        client, that one is refused, and the others are admitted. Raises nothing.
        """
        self._waiting = []
        for resuming in self._resuming:
            do = partial(admit, resuming, position, history, presence, hide_emails=hide_emails)
            _try_for(resuming.websocket, do, "%s is refused: it could not be admitted: %s")

    def confirm_resent(self, history: History, *, hide_emails: bool) -> None:
        """Send each client that has resent a message a copy of it, as the history has it.

        If this fails for one client, that one is refused, and the others get theirs. Raises
        nothing.
        """
        for resent in self._resent:
            send_copy = partial(_acknowledge, resent, history, hide_emails=hide_emails)
            _try_for(
                resent.said.sender, send_copy, "%s is refused: it could not be sent a copy: %s"
            )

    def fail(self, error: Exception) -> None:
        """Log the error, refuse the clients that still wait, and have `batches` try again soon.

        Raises nothing.
        """
        self.failed = True
        if not isinstance(error, HistoryError):
            log.error("a batch of messages could not be handled", exc_info=error)
        elif not (self._is_retry and self._is_empty):  # otherwise it was logged a second ago
            log.error("the history cannot be read, so no messages are sent until it can: %s", error)
        for websocket in self._waiting:
            refuse(websocket, "internal error")


def _try_for(websocket: WebSocket, do: Callable[[], None], failure: str) -> None:
    """Do something for one client. If that fails, log it, and refuse the client."""
    try:
        do()
    except ConnectionClosed:
        pass  # The client's own thread gets the same error, and removes the client.
    except Exception as error:
        # The text of a HistoryError says what is wrong. For any other error the trace is needed.
        trace = not isinstance(error, HistoryError)
        log.error(failure, websocket.peer, error, exc_info=trace)
        refuse(websocket, "internal error")


def _acknowledge(resent: _Resent, history: History, *, hide_emails: bool) -> None:
    """Send a client that has resent a message the copy of it that the history has."""
    said = resent.said
    entry = history.entry(resent.message_id)
    if entry is None:  # It was deleted, so the client gets what it has resent.
        entry = Entry(resent.message_id, said.email, said.username, said.message, said.key)
    said.sender.post(encode(entry, hide_emails=hide_emails))


def batches(broadcast: "queue.Queue[Item[S]]") -> Iterator[Batch]:
    """Yield batches of what waits in the queue, until None was taken and nothing waits any more.

    A batch that has failed is followed by the next one, which may be empty, after RETRY at most.
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
    """Wait for an item, and yield it and all others that wait, up to about PAGE_CHARACTERS.

    Yields nothing if no item comes before the timeout, in seconds.
    """
    size = 0
    with contextlib.suppress(queue.Empty):
        item = broadcast.get(timeout=timeout)
        while True:
            yield item  # first, so that the batch knows its client if something fails from here on
            size += _characters(item)
            if size >= PAGE_CHARACTERS:
                return
            item = broadcast.get_nowait()


def _characters(item: Item[Said]) -> int:
    return 0 if item is None or isinstance(item, str | Resuming) else size_of(item)


def put(broadcast: "queue.Queue[Item[S]]", item: S | Resuming) -> None:
    """Put a client's message, or the client as resuming, into the queue; wait while it is full.

    Meanwhile nothing is read from the client, and TCP slows it. While Redis is away the queue may
    stay full for long, so this raises ConnectionClosed if the client has gone: a thread that went
    on waiting would take a place in the chat from others.
    """
    websocket = item.websocket if isinstance(item, Resuming) else item.sender
    while True:
        try:
            broadcast.put(item, timeout=PUT_TIMEOUT)
            return
        except queue.Full:
            # The connection notices that its client has gone even while this thread is here: the
            # clock's thread then reads from it.
            if websocket.state is State.CLOSED:
                raise ConnectionClosed(websocket.close_code, websocket.close_reason) from None


class MessagesThread(threading.Thread):
    """The thread of `handle_messages`. If an exception ends it, the server ends, too.

    Otherwise the chat would seem to work, but nobody would get messages any more.
    """

    failed = False  # whether an exception has ended it; read this after the end of the server

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
    """End `handle_messages` after it has sent what waits, and then ignore all clients.

    It waits END_TIME at most, because Redis may be away. The None that it puts does what
    close(broadcast) does for a channel in Go.
    """
    deadline = time.monotonic() + END_TIME
    with contextlib.suppress(queue.Full):
        broadcast.put(None, timeout=END_TIME)
        handle_messages.join(max(0.0, deadline - time.monotonic()))
    refuse_everyone()

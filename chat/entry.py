"""A message that is kept, its id, and what a history of such messages can do.

`history` and `redis_history` are the two histories. Everything that both need stands here.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

KEEP = 100_000  # messages that a history keeps; the oldest go first
KEEP_BYTES = 100_000_000  # of memory or disk that it fills with them; the oldest go first
# Where a page of messages ends, in characters. A page is sent in one piece: a larger piece could
# overrun the 1 MiB that may wait for a client, and drop clients that are not slow.
PAGE_CHARACTERS = 128 * 1024
_OVERHEAD = 200  # characters of JSON around a message's own text, roughly

MAX_EMAIL = 254  # characters; no longer address can receive mail (RFC 5321, 4.5.3.1)
MAX_USERNAME = 64  # characters; a longer name would not fit on a line of the page
MAX_KEY = 64  # characters
MAX_MESSAGE = 1 << 24  # characters; --max-message allows no more

_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_MAX_PART = (1 << 64) - 1  # of an id: Redis stores the time and the sequence in 64 bits each


class HistoryError(Exception):
    """The history cannot be opened, read or written; the text says why."""


class Content(Protocol):
    """The fields of a message. `chat_server.Message` has them, and so does `Entry`."""

    @property
    def email(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def key(self) -> str | None: ...


class Entry(NamedTuple):
    """A message in the history. Its id is `<milliseconds since 1970>-<sequence>`."""

    message_id: str
    email: str
    username: str
    message: str
    key: str | None


class Appended(NamedTuple):
    """What became of a message that was to be appended."""

    message_id: str
    is_known: bool  # The history had a message with this key already, and this is its id.


class Page(NamedTuple):
    """Messages that follow an id, oldest first, and no more than can be sent in one piece."""

    entries: list[Entry]
    gap: bool  # Some messages before these were deleted.
    more: bool  # Another page may follow.

    def end(self, position: str) -> str:
        """The id of its last message, or `position`, which the page follows, if it has none."""
        return self.entries[-1].message_id if self.entries else position


class History(Protocol):
    """The numbered history of what was said. Any thread may call; all may raise HistoryError."""

    start: str  # the newest id when the history was opened; what follows it has to be shown

    def append(self, messages: Sequence[Content]) -> list[Appended]:
        """Append the messages whose key is not known; the answers are in the messages' order.

        After a HistoryError some may have been appended all the same.
        """

    def entry(self, message_id: str) -> Entry | None:
        """The message with this id, or None if it was deleted."""

    def since(self, message_id: str) -> Page:
        """The first page of what follows this id. Raises ValueError for a malformed id."""

    def before_newest(self, message_id: str, count: int) -> str:
        """The id that the newest `count` messages follow, or the given id if fewer follow it."""

    def newest(self) -> str:
        """The id of the newest message, `0-0` in an empty history."""

    def close(self) -> None:
        """Release what it holds. Nothing may be asked of it afterwards."""

    def for_resuming(self) -> "History":
        """The same history for a client that joins: reading gives up after a while."""


def pages(history: History, message_id: str) -> Iterator[Page]:
    """Everything that follows an id, page by page. One page at a time is held in memory."""
    more = True
    while more:
        page = history.since(message_id)
        yield page
        more = page.more
        message_id = page.end(message_id)


def order(message_id: str) -> tuple[int, int]:
    """The id as numbers, to compare ids by. `7` is `7-0`. Raises ValueError for a malformed id."""
    match = _ID.fullmatch(message_id)
    if match:
        milliseconds = int(match[1])
        sequence = int(match[2] or 0)
        if max(milliseconds, sequence) <= _MAX_PART:
            return milliseconds, sequence
    raise ValueError(f"{message_id[:40]!r} is not a message id")


def size_of(content: Content) -> int:
    """The characters that a message takes in JSON, roughly."""
    text = len(content.email) + len(content.username) + len(content.message)
    return _OVERHEAD + text + len(content.key or "")


def make_entry(
    message_id: str, email: object, username: object, message: object, key: object
) -> Entry:
    """An entry from what is stored under an id, which other programs may have written.

    What is not text becomes empty. What is too long is cut, so that it cannot fill every screen.
    """
    return Entry(
        message_id,
        _text(email)[:MAX_EMAIL],
        _text(username)[:MAX_USERNAME],
        _text(message)[:MAX_MESSAGE],
        _text(key) if 0 < len(_text(key)) <= MAX_KEY else None,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

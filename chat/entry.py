"""A message in the history, its id, and what a history can do.

`history` and `redis_history` are the two histories. What both need is here.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

# The defaults of --keep and --keep-bytes. When there is more, the oldest messages are deleted.
KEEP = 100_000  # messages
KEEP_BYTES = 100_000_000  # bytes of memory or disk
# The size from which on a page of the history is full, in characters. A page is sent in one piece,
# and a larger piece could exceed the 1 MiB that may wait for a client, so that clients that are not
# slow would be dropped.
PAGE_CHARACTERS = 128 * 1024
MAX_OLDER = 100  # messages before an id that a client gets at once; a few screens of the web page
_OVERHEAD = 200  # characters of a message's JSON beside its texts, roughly

MAX_EMAIL = 254  # characters; a longer address cannot receive mail (RFC 5321, 4.5.3.1)
MAX_USERNAME = 64  # characters; a longer name would not fit on a line of the web page
MAX_KEY = 64  # characters
MAX_MESSAGE = 1 << 24  # bytes, and so also characters; --max-message allows no more

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
    """What `append` has done with a message."""

    message_id: str
    is_known: bool  # Nothing was appended: `message_id` is that of a message with the same key.


class Page(NamedTuple):
    """A piece of the history: messages that follow an id, oldest first, to be sent in one piece."""

    entries: list[Entry]
    gap: bool  # Some messages before these were deleted.
    more: bool  # Another page may follow.
    # The id that these messages follow, where that is another one than was asked for: Redis has
    # lost the message with that id, and perhaps all messages.
    back_to: str | None = None

    def end(self, position: str) -> str:
        """The id of its last message, or if it is empty `position`, the id that it follows."""
        if self.entries:
            return self.entries[-1].message_id
        return position if self.back_to is None else self.back_to


class OlderPage(NamedTuple):
    """The messages directly before an id, oldest first, to be sent in one piece."""

    entries: list[Entry]
    more: bool  # There are messages before these.


class History(Protocol):
    """All messages in their order. Any thread may call; all methods may raise HistoryError."""

    start: str  # the newest id when the history was opened; what follows it was sent to nobody yet

    def append(self, messages: Sequence[Content]) -> list[Appended]:
        """Append the messages whose key is not known; returns what was done with each, in order.

        After a HistoryError the messages may have been appended all the same.
        """

    def entry(self, message_id: str) -> Entry | None:
        """The message with this id, or None if it was deleted."""

    def since(self, message_id: str) -> Page:
        """The first page of what follows this id. Raises ValueError for a malformed id."""

    def before(self, message_id: str) -> OlderPage:
        """The messages directly before this id. Raises ValueError for a malformed id.

        There are at most MAX_OLDER, or fewer if these fill a page, but at least one if there is
        one.
        """

    def before_newest(self, message_id: str, count: int) -> str:
        """The id that the newest `count` messages follow, or the given id if fewer follow it."""

    def newest(self) -> str:
        """The id of the newest message, `0-0` in an empty history."""

    def close(self) -> None:
        """Release what it holds. After that nothing else may be called."""

    def hurried(self, patience: float) -> "History":
        """The same history for a client that waits.

        While the history is away, reading raises HistoryError after about so many seconds.
        """


def pages(history: History, message_id: str) -> Iterator[Page]:
    """Yield everything that follows an id, page by page, with one page in memory at a time."""
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
    raise ValueError(f"{message_id[:40]!r} is not a message id, such as 1700000000000-0")


def size_of(content: Content) -> int:
    """The size of a message as JSON, roughly, in characters."""
    text = len(content.email) + len(content.username) + len(content.message)
    return _OVERHEAD + text + len(content.key or "")


def make_entry(
    message_id: str, email: object, username: object, message: object, key: object
) -> Entry:
    """Make an entry of fields that another program may have written.

    A field that is not text becomes empty, and one that is longer than a client's may be is cut
    off, so that one message cannot fill every screen.
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

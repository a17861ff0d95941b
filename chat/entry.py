"""What the chat's logs have in common: entries, their ids, and how a log is used."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

KEPT = 100_000  # messages that a log keeps; the oldest go first
KEPT_BYTES = 100_000_000  # of memory or disk that it fills with them; the oldest go first
# Where a page of messages ends. It is sent at once: more would overrun clients that are not slow.
PAGE_CHARACTERS = 128 * 1024
# What a reader can use: the longest address that mail can be sent to (RFC 5321), and a name that
# fits a line.
MAX_EMAIL = 254  # characters
MAX_USERNAME = 64  # characters
MAX_KEY = 64  # characters
MAX_MESSAGE = 1 << 24  # characters; --max-message allows no more
_MAX_PART = (1 << 64) - 1  # of an id: Redis has 64 bits for the time and for the sequence
_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")

Fields = tuple[str, str, str, str | None]  # email, username, message, key
Entry = tuple[str, Fields]  # an id, `<milliseconds since 1970>-<sequence>`, and what has it


class LogFailed(Exception):
    """The log can't be opened, read or written; the text says why."""


class Logged(NamedTuple):
    """Where a message is that was to be logged."""

    message_id: str
    known: bool  # by its key: it was logged before, and not again


class Page(NamedTuple):
    """Messages that follow upon an id, oldest first."""

    entries: list[Entry]
    gap: bool  # some that came before these can't be had any more
    more: bool  # others may follow


class Log(Protocol):
    """ChatLog or RedisLog. All may raise LogFailed; any thread may call."""

    start: str  # the newest id when the log was opened; what comes later is to be shown

    def append(self, messages: Sequence[Fields]) -> list[Logged]:
        """Log those whose key is not known; tell of each where it is, in the same order.

        After LogFailed some may be logged all the same.
        """

    def entry(self, message_id: str) -> Entry | None:
        """What is under this id; None where it was trimmed."""

    def since(self, position: str) -> Page:
        """The first page of what follows upon this id. Raises ValueError for what is no id."""

    def before_newest(self, position: str, count: int) -> str:
        """The id behind which only the newest `count` follow; this one, if there are fewer."""

    def newest(self) -> str:
        """The id of the newest message, `0-0` where there is none."""

    def for_joiner(self) -> "Log":
        """The same log for who must not wait for ever: its reads give up with LogFailed."""


def pages(history: Log, position: str) -> Iterator[Page]:
    """Everything that follows upon an id. No more than one page is held in memory."""
    more = True
    while more:
        page = history.since(position)
        yield page
        more = page.more
        if page.entries:
            position = page.entries[-1][0]


def order(message_id: str) -> tuple[int, int]:
    """Rises as ids do; `0` is an id, too. Raises ValueError for what is none."""
    match = _ID.fullmatch(message_id)
    parts = (int(match[1]), int(match[2] or 0)) if match else (-1, -1)
    if not 0 <= min(parts) <= max(parts) <= _MAX_PART:
        raise ValueError(f"{message_id[:40]!r} is no message id")
    return parts


def size_of(entry: Entry) -> int:
    """Characters that a message takes on its way, about: its text, and the JSON around it."""
    email, username, message, key = entry[1]
    return 200 + len(email) + len(username) + len(message) + len(key or "")


def entry_of(message_id: str, *fields: object) -> Entry:
    """An entry out of what a log has under an id, which others may have written.

    What is no text is left out, what is too long is cut: one line must not fill everyone's screen.
    """
    email, username, message, key = (each if isinstance(each, str) else "" for each in fields)
    shown_key = key if 0 < len(key) <= MAX_KEY else None
    return message_id, (
        email[:MAX_EMAIL],
        username[:MAX_USERNAME],
        message[:MAX_MESSAGE],
        shown_key,
    )

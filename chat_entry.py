"""What the chat's logs have in common: entries, their ids, and how a log is used."""

import re
from collections.abc import Sequence
from typing import Protocol

MOST = 1 << 30  # messages: no limit
KEPT = 100_000  # messages that a log keeps; the oldest go first
SEQUENCE_BITS = 20  # of an id's number; the milliseconds since 1970 stand above them
_ID = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?", re.ASCII)

Fields = tuple[str, str, str, str | None]  # email, username, message, key
Entry = tuple[str, Fields]  # an id, `<milliseconds since 1970>-<sequence>`, and what has it


class LogFailed(Exception):
    """The log can't be opened, read or written; the text says why."""


class Log(Protocol):
    """ChatLog or RedisLog. All may raise LogFailed; any thread may call."""

    start: str  # the newest id when the log was opened; what comes later is delivered

    def append(self, messages: Sequence[Fields]) -> list[Entry]: ...
    def since(self, message_id: str, limit: int = MOST) -> tuple[list[Entry], bool]: ...
    def newest(self) -> str: ...


def order(message_id: str) -> int:
    """A number that rises as ids do; `0` is an id, too. Raises ValueError for what is none."""
    match = _ID.fullmatch(message_id)
    if match is None:
        raise ValueError(f"{message_id[:40]!r} is no message id")
    sequence = min(int(match[2] or 0), (1 << SEQUENCE_BITS) - 1)  # Redis has longer ones
    return min(int(match[1]) << SEQUENCE_BITS | sequence, (1 << 63) - 1)  # as SQLite has no more

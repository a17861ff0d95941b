"""What tests of both histories need: messages to append, and what was appended, read again."""

import contextlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from chat.entry import KEEP, KEEP_BYTES, Entry, History, order, pages
from chat.history import SqliteHistory

ID = re.compile(r"[0-9]+-[0-9]+")


class Said(NamedTuple):
    """A message that is to be appended."""

    message: str = ""
    key: str | None = None
    email: str = ""
    username: str = ""


def said(text: str, key: str | None = None) -> Said:
    """A message by Ada."""
    return Said(text, key, "ada@example.org", "Ada")


def numbered(count: int, start: int = 0) -> list[Said]:
    return [said(str(number)) for number in range(start, start + count)]


def content(entries: Sequence[Entry]) -> list[Said]:
    """The entries without their ids, as they would be appended."""
    return [Said(each.message, each.key, each.email, each.username) for each in entries]


def opened(
    path: Path | None = None, keep: int = KEEP, keep_bytes: int = KEEP_BYTES
) -> "contextlib.closing[SqliteHistory]":
    return contextlib.closing(SqliteHistory(None if path is None else str(path), keep, keep_bytes))


def append(history: History, messages: Sequence[Said]) -> list[Entry]:
    """Append them; those that were not known before, as they can be read then."""
    newest = history.newest()
    history.append(messages)
    return since(history, newest).entries


class Missed(NamedTuple):
    """Everything that follows an id, and whether some of it was deleted."""

    entries: list[Entry]
    gap: bool


def since(history: History, message_id: str) -> Missed:
    """What one who has everything up to this id has missed."""
    read = list(pages(history, message_id))
    assert not any(page.gap for page in read[1:])
    return Missed([entry for page in read for entry in page.entries], read[0].gap)


def entry_ids(entries: Sequence[Entry]) -> list[str]:
    return [each.message_id for each in entries]


def texts(entries: Sequence[Entry]) -> list[str]:
    return [each.message for each in entries]


def pair(message_id: str) -> tuple[int, int]:
    """An id as numbers, by other code than the chat's."""
    assert ID.fullmatch(message_id), message_id
    milliseconds, _, sequence = message_id.partition("-")
    return int(milliseconds), int(sequence)


def assert_rising(message_ids: Sequence[str]) -> None:
    pairs = [pair(each) for each in message_ids]
    assert all(one < other for one, other in itertools.pairwise(pairs))
    numbers = [order(each) for each in message_ids]
    assert all(one < other for one, other in itertools.pairwise(numbers))

"""The numbered log of what was said, in SQLite from the standard library: append, since."""

import re
import sqlite3
import threading
import time
from collections.abc import Sequence

MOST = 1 << 30  # no limit
KEPT = 100_000  # messages; the oldest go first
_APPLICATION_ID = 0x72666343  # tells our file from another program's database
_SEQUENCE_BITS = 20  # a number is the milliseconds since 1970, then this many bits of sequence
_ID = re.compile(r"(\d{1,13})(?:-(\d{1,20}))?", re.ASCII)

Fields = tuple[str, str, str, str | None]  # email, username, message, key
Entry = tuple[str, Fields]  # an id, and what has it


class LogFailed(Exception):
    """The log can't be opened, read or written; the text says why."""


class ChatLog:
    """Keeps the newest `kept` messages in a file, or in memory. Any thread may call.

    Ids are `<milliseconds since 1970>-<sequence>`, the form of a Redis Stream's; they rise
    strictly, also across restarts and where the clock is set back. What was appended survives the
    end of the process, however it comes; a power cut may take the last moments with it, as nothing
    waits for the disk (`synchronous=FULL` would).
    """

    def __init__(self, path: str = ":memory:", kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._kept = kept
        try:
            self._open(path)
        except sqlite3.Error as error:
            raise LogFailed(f"{path}: {error}") from error

    def _open(self, path: str) -> None:
        # Autocommit, so that BEGIN and COMMIT are where the code says so.
        database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        (application_id,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application_id != _APPLICATION_ID and tables:
            raise LogFailed(f"{path}: the database of another program")
        database.execute("PRAGMA locking_mode=EXCLUSIVE")  # two servers would give one id twice
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        database.execute(
            "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, email TEXT NOT NULL,"
            " username TEXT NOT NULL, message TEXT NOT NULL, key TEXT UNIQUE)"
        )
        query = "SELECT ifnull(max(number), 0), count(*) FROM messages"
        self._last, self._count = database.execute(query).fetchone()
        self._database = database

    def append(self, messages: Sequence[Fields]) -> list[Entry]:
        """Log all in one transaction; those whose key is not in the log yet come back, with ids.

        Raises LogFailed, and then none of them is logged.
        """
        with self._lock:
            known = self._known({message[3] for message in messages if message[3] is not None})
            number = max(self._last, (time.time_ns() // 1_000_000 << _SEQUENCE_BITS) - 1)
            rows = []
            for message in messages:
                if message[3] is None or message[3] not in known:
                    known.add(message[3])
                    number += 1
                    rows.append((number, *message))
            self._write(rows)
            self._last = number
        return [(_id(row[0]), row[1:]) for row in rows]

    def since(self, message_id: str, limit: int = MOST) -> tuple[list[Entry], bool]:
        """The newest `limit` messages after an id, oldest first, and whether there were more.

        Raises ValueError for what is no id, LogFailed.
        """
        query = "SELECT * FROM messages WHERE number > ? ORDER BY number DESC LIMIT ?"
        values = (order(message_id), limit + 1)
        try:
            with self._lock:
                rows = self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LogFailed(str(error)) from error
        return [(_id(row[0]), row[1:]) for row in reversed(rows[:limit])], len(rows) > limit

    def newest(self) -> str:
        """The id of the newest message, `0-0` where there is none."""
        return _id(self._last)

    def _known(self, keys: set[str]) -> set[str | None]:
        try:
            marks = ",".join("?" * len(keys))
            query = f"SELECT key FROM messages WHERE key IN ({marks})"
            return {key for (key,) in self._database.execute(query, tuple(keys))}
        except sqlite3.Error as error:
            raise LogFailed(str(error)) from error

    def _write(self, rows: list[tuple[int, str, str, str, str | None]]) -> None:
        database = self._database
        count = self._count + len(rows)
        try:
            database.execute("BEGIN")
            database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
            if count > self._kept + self._kept // 100:  # not each time: to find the place costs
                newest = "SELECT number FROM messages ORDER BY number DESC LIMIT 1 OFFSET ?"
                trim = f"DELETE FROM messages WHERE number <= ({newest})"
                count -= database.execute(trim, (self._kept,)).rowcount
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise LogFailed(str(error)) from error
        self._count = count


def order(message_id: str) -> int:
    """A number that rises as ids do; `0` is an id, too. Raises ValueError for what is none."""
    match = _ID.fullmatch(message_id)
    if match is None:
        raise ValueError(f"{message_id[:40]!r} is no message id")
    sequence = min(int(match[2] or 0), (1 << _SEQUENCE_BITS) - 1)  # Redis has longer ones
    return int(match[1]) << _SEQUENCE_BITS | sequence


def _id(number: int) -> str:
    return f"{number >> _SEQUENCE_BITS}-{number & (1 << _SEQUENCE_BITS) - 1}"

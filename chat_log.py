"""The numbered log of what was said, in SQLite from the standard library: append, since."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from chat_entry import KEPT, MOST, SEQUENCE_BITS, Entry, Fields, LogFailed, order

_APPLICATION_ID = 0x72666343  # tells our file from another program's database


class ChatLog:
    """Keeps the newest `kept` messages in a file, or in memory. Any thread may call.

    Ids are `<milliseconds since 1970>-<sequence>`, the form of a Redis Stream's; they rise
    strictly, also across restarts and where the clock is set back. What was appended survives the
    end of the process; a power cut may take the last moments with it: nothing waits for the disk.
    """

    def __init__(self, path: str = ":memory:", kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._kept = kept
        with _failures(f"{path}: "):
            # Autocommit, so that BEGIN and COMMIT are where the code says so.
            self._database = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def _prepare(self) -> None:
        (application_id,) = self._database.execute("PRAGMA application_id").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application_id != _APPLICATION_ID and tables:
            raise sqlite3.DatabaseError("the database of another program")
        self._database.executescript(  # exclusive: two servers would give one id twice
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            f"PRAGMA application_id={_APPLICATION_ID};"
            "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, email TEXT NOT NULL,"
            " username TEXT NOT NULL, message TEXT NOT NULL, key TEXT UNIQUE)"
        )
        query = "SELECT ifnull(min(number), 1), ifnull(max(number), 0), count(*) FROM messages"
        first, self._last, self._count = self._database.execute(query).fetchone()
        self.start = _id(self._last)
        self._trimmed = first - 1 if self._count >= self._kept else 0  # up to this number

    def close(self) -> None:
        self._database.close()

    def append(self, messages: Sequence[Fields]) -> list[Entry]:
        """Log all in one transaction; those whose key is not in the log yet come back, with ids.

        Raises LogFailed, and then none of them is logged.
        """
        with self._lock, _failures():
            keys = [message[3] for message in messages if message[3] is not None]
            known = self._known(keys) if keys else set()
            number = max(self._last, (time.time_ns() // 1_000_000 << SEQUENCE_BITS) - 1)
            rows = []
            for message in messages:
                if message[3] is None or message[3] not in known:
                    known.add(message[3])
                    number += 1
                    rows.append((number, *message))
            if rows:
                self._write(rows)
                self._last = number
        return [(_id(row[0]), row[1:]) for row in rows]

    def since(self, message_id: str, limit: int = MOST) -> tuple[list[Entry], bool]:
        """The newest `limit` messages after an id, oldest first, and whether there were more."""
        number = order(message_id)
        query = "SELECT * FROM messages WHERE number > ? ORDER BY number DESC LIMIT ?"
        with self._lock, _failures():
            rows = self._database.execute(query, (number, limit + 1)).fetchall()
            more = len(rows) > limit or number < self._trimmed
        return [(_id(row[0]), row[1:]) for row in reversed(rows[:limit])], more

    def newest(self) -> str:
        """The id of the newest message, `0-0` where there is none."""
        return _id(self._last)

    def _known(self, keys: list[str]) -> set[str | None]:
        query = f"SELECT key FROM messages WHERE key IN ({','.join('?' * len(keys))})"
        return {key for (key,) in self._database.execute(query, keys)}

    def _write(self, rows: list[tuple[int, str, str, str, str | None]]) -> None:
        execute, count, trimmed = self._database.execute, self._count + len(rows), self._trimmed
        execute("BEGIN")
        try:
            self._database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
            if count > self._kept + self._kept // 100:  # not each time: to find the place costs
                query = "SELECT number FROM messages ORDER BY number DESC LIMIT 1 OFFSET ?"
                (trimmed,) = execute(query, (self._kept,)).fetchone()
                count -= execute("DELETE FROM messages WHERE number <= ?", (trimmed,)).rowcount
            execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                execute("ROLLBACK")
            raise
        self._count, self._trimmed = count, trimmed


@contextmanager
def _failures(where: str = "") -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LogFailed(f"{where}{error}") from error


def _id(number: int) -> str:
    return f"{number >> SEQUENCE_BITS}-{number & (1 << SEQUENCE_BITS) - 1}"

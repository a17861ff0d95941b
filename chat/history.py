"""The numbered log of what was said, in SQLite from the standard library: append, since.

While the chat runs anyone may read the file, with `sqlite3 FILE .backup` for one. Left out: a
second server on the same file, as two would give one id twice; `FILE-lock` keeps it away.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from chat.entry import (
    KEPT,
    KEPT_BYTES,
    PAGE_CHARACTERS,
    Entry,
    Fields,
    LogFailed,
    Logged,
    Page,
    entry_of,
    order,
    size_of,
)

SEQUENCE_BITS = 20  # of an id's number; the milliseconds since 1970 stand above them
_MAX_NUMBER = (1 << 63) - 1  # SQLite has no more
_APPLICATION_ID = 0x72666343  # tells our file from another program's database
_MAX_VARIABLES = 500  # in one statement; SQLite before 3.32 takes 999
_BUSY_TIME = 2.0  # seconds to wait for another program that is writing to the file
_MAX_WAL = 16_000_000  # bytes of FILE-wal that stay when a reader has let it grow longer

Row = tuple[int, str, str, str, str | None]  # number, and the fields of a message


class ChatLog:
    """Keeps the newest messages in a file, or in memory. Any thread may call.

    At most `kept` messages stay, and a hundredth more, in about `kept_bytes` of the file or of
    memory. Ids are `<milliseconds since 1970>-<sequence>`, the form of a Redis Stream's; they rise
    strictly, also across restarts and where the clock is set back. What was appended survives the
    end of the process; a power cut may take the last moments with it: nothing waits for the disk.
    A key is known for as long as its message is kept.
    """

    def __init__(
        self, path: str | None = None, kept: int = KEPT, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._lock = threading.Lock()
        self._file_lock: sqlite3.Connection | None = None
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._unmeasured = 0  # characters that were written since the bytes were looked at
        # The last batch, and the number before it: who is here can be shown it without reading it
        # again, even if it was more than what is kept.
        self._fresh: tuple[int, list[Entry]] = (-1, [])
        # The real path, so that two names of one file have one lock, and that `:memory:` is a name.
        file = ":memory:" if path is None else os.path.realpath(path)
        with _failures("" if path is None else f"{path}: "):
            self._database = _connect(file, _BUSY_TIME)
            try:
                self._check()
                if path is not None:
                    self._file_lock = _lock_file(f"{file}-lock")
                self._prepare()
            except BaseException:
                self.close()
                raise

    def _check(self) -> None:
        """Refuse the database of another program before anything is written."""
        (application_id,) = self._database.execute("PRAGMA application_id").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application_id != _APPLICATION_ID and tables:
            raise sqlite3.DatabaseError("the database of another program")

    def _prepare(self) -> None:
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            f"PRAGMA journal_size_limit={_MAX_WAL}; PRAGMA application_id={_APPLICATION_ID};"
            "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, email TEXT NOT NULL,"
            " username TEXT NOT NULL, message TEXT NOT NULL, key TEXT UNIQUE);"
            "CREATE TABLE IF NOT EXISTS trimmed (number INTEGER NOT NULL)"
        )
        query = "SELECT ifnull(min(number), 1), ifnull(max(number), 0), count(*) FROM messages"
        first, self._last, self._count = self._database.execute(query).fetchone()
        if self._last >> SEQUENCE_BITS >= _MAX_NUMBER >> SEQUENCE_BITS:
            raise sqlite3.DatabaseError("no id can follow upon its newest")
        self.start = _id(self._last)
        (trimmed,) = self._database.execute("SELECT max(number) FROM trimmed").fetchone()
        if trimmed is None:  # a new file, or one of before `trimmed` was
            trimmed = first - 1 if self._count >= self._kept else 0
            self._database.execute("INSERT INTO trimmed VALUES (?)", (trimmed,))
        self._trimmed: int = trimmed  # up to this number
        # What was said before memory was empty is gone, whoever remembers an id of it.
        now = time.time_ns() // 1_000_000 << SEQUENCE_BITS
        self._forgotten = now if self._file_lock is None else 0
        (self._page_size,) = self._database.execute("PRAGMA page_size").fetchone()

    def close(self) -> None:
        self._database.close()
        if self._file_lock:  # last, so that the next server finds everything done
            self._file_lock.close()

    # Writing

    def append(self, messages: Sequence[Fields]) -> list[Logged]:
        """Log those whose key is not known, in one transaction; tell of each where it is.

        Raises LogFailed, and then none of them is logged.
        """
        logged: list[Logged] = []
        rows: list[Row] = []
        fresh: list[Entry] = []
        with self._lock, _failures():
            known = self._known([message[3] for message in messages if message[3] is not None])
            number = max(self._last, (time.time_ns() // 1_000_000 << SEQUENCE_BITS) - 1)
            for message in messages:
                key = message[3]
                if key is not None and key in known:
                    logged.append(Logged(_id(known[key]), known=True))
                    continue
                number += 1
                rows.append((number, *message))
                fresh.append((_id(number), message))
                logged.append(Logged(fresh[-1][0], known=False))
                if key is not None:
                    known[key] = number
            if rows:
                self._write(rows)
                self._fresh = (self._last, fresh)
                self._last = number
        return logged

    def _known(self, keys: list[str]) -> dict[str, int]:
        """Those of the keys that are in the log, and the numbers of their messages."""
        known: dict[str, int] = {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            some = keys[start : start + _MAX_VARIABLES]
            query = f"SELECT key, number FROM messages WHERE key IN ({','.join('?' * len(some))})"
            known.update(self._database.execute(query, some))
        return known

    def _write(self, rows: list[Row]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
            count = self._count + len(rows)
            trimmed = self._trimmed
            # Not each time, as to look and to find the place costs.
            unmeasured = self._unmeasured + sum(len(row[1]) + len(row[3]) + 100 for row in rows)
            too_large = False
            if unmeasured > self._kept_bytes // 100:
                too_large = self._bytes() > self._kept_bytes
                unmeasured = 0
            if too_large or count > self._kept + self._kept // 100:
                count, trimmed = self._trim()
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        self._count = count
        self._trimmed = trimmed
        self._unmeasured = unmeasured

    def _bytes(self) -> int:
        """What the messages fill. Pages that trimming has freed are used again."""
        (pages,) = self._database.execute("PRAGMA page_count").fetchone()
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        return int((pages - free) * self._page_size)

    def _trim(self) -> tuple[int, int]:
        """Delete the oldest beyond what is kept. How many are left, and what number was the last.

        Bytes are freed by the hundredth of all messages, but the newest message always stays.
        """
        execute = self._database.execute
        (count,) = execute("SELECT count(*) FROM messages").fetchone()
        trimmed = self._trimmed
        surplus = count - self._kept
        while True:
            if surplus <= 0 and self._bytes() > self._kept_bytes:
                surplus = count // 100 + 1
            surplus = min(surplus, count - 1)
            if surplus <= 0:
                break
            query = "SELECT number FROM messages ORDER BY number LIMIT 1 OFFSET ?"
            (trimmed,) = execute(query, (surplus - 1,)).fetchone()
            execute("DELETE FROM messages WHERE number <= ?", (trimmed,))
            count -= surplus
            surplus = 0
        execute("DELETE FROM trimmed")
        execute("INSERT INTO trimmed VALUES (?)", (trimmed,))
        return count, trimmed

    # Reading

    def since(self, position: str) -> Page:
        """The first page of what follows upon this id. Raises ValueError, LogFailed."""
        number = _number(position)
        with self._lock, _failures():
            before, fresh = self._fresh
            if number == before:
                return Page(fresh, gap=False, more=False)
            entries = self._read("number > ? ORDER BY number", number)
            more = bool(entries) and entries[-1][0] != _id(self._last)
            gap = number < self._trimmed or 0 < number < self._forgotten
            return Page(entries, gap, more)

    def _read(self, condition: str, number: int) -> list[Entry]:
        """Messages until a page is full."""
        query = f"SELECT * FROM messages WHERE {condition}"
        entries: list[Entry] = []
        characters = 0
        try:
            with closing(self._database.execute(query, (number,))) as rows:
                for row in rows:
                    entries.append(entry_of(_id(row[0]), *row[1:]))
                    characters += size_of(entries[-1])
                    if characters >= PAGE_CHARACTERS:
                        break
        except sqlite3.OperationalError as error:
            is_decoding = str(error).startswith("Could not decode")  # has no class, and no code
            if not is_decoding or self._database.text_factory is _text:
                raise
            self._database.text_factory = _text  # others have written what is no UTF-8
            return self._read(condition, number)
        return entries

    def entry(self, message_id: str) -> Entry | None:
        """What is under this id; None where it was trimmed."""
        with self._lock, _failures():
            entries = self._read("number = ?", _number(message_id))
        return entries[0] if entries else None

    def before_newest(self, position: str, count: int) -> str:
        """The id behind which only the newest `count` follow; this one, if there are fewer."""
        query = "SELECT number FROM messages WHERE number > ? ORDER BY number DESC LIMIT 1 OFFSET ?"
        with self._lock, _failures():
            row = self._database.execute(query, (_number(position), count)).fetchone()
        return _id(row[0]) if row else position

    def newest(self) -> str:
        """The id of the newest message, `0-0` where there is none."""
        return _id(self._last)

    def for_joiner(self) -> "ChatLog":
        """This one: it makes nobody wait for long."""
        return self


def _connect(file: str, timeout: float) -> sqlite3.Connection:
    """Autocommit, so that BEGIN and COMMIT are where the code says so."""
    return sqlite3.connect(file, timeout=timeout, isolation_level=None, check_same_thread=False)


def _lock_file(file: str) -> sqlite3.Connection:
    """Lock an empty database beside ours for as long as the process lives; it stays behind.

    SQLite's own way of locking works wherever its files do, and a killed process holds no lock.
    """
    lock = _connect(file, 0)
    try:
        lock.execute("PRAGMA journal_mode=MEMORY")  # nothing is ever written
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise sqlite3.OperationalError("it is locked, another chat server runs on it") from None
        raise
    return lock


@contextmanager
def _failures(where: str = "") -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LogFailed(f"{where}{error}") from error


def _text(data: bytes) -> str:
    """Slower than SQLite's own way, which knows no mercy."""
    return data.decode(errors="replace")


def _id(number: int) -> str:
    return f"{number >> SEQUENCE_BITS}-{number & (1 << SEQUENCE_BITS) - 1}"


def _number(message_id: str) -> int:
    """An id as our file has it; one with more than fits in keeps its place between others."""
    milliseconds, sequence = order(message_id)
    sequence = min(sequence, (1 << SEQUENCE_BITS) - 1)
    return min(milliseconds << SEQUENCE_BITS | sequence, _MAX_NUMBER)

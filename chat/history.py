"""The history in SQLite, in a file or in memory.

While the chat runs any program may read the file, for example `sqlite3 FILE .backup`. But a second
server cannot use it, because both would give the same ids to different messages; `FILE-lock` is the
lock that prevents this. For many servers there is `redis_history`.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from chat.entry import (
    KEEP,
    KEEP_BYTES,
    MAX_OLDER,
    PAGE_CHARACTERS,
    Appended,
    Content,
    Entry,
    HistoryError,
    OlderPage,
    Page,
    make_entry,
    order,
    size_of,
)

log = logging.getLogger("chat")

# In the file an id is one number: the milliseconds since 1970, and in these low bits the sequence.
SEQUENCE_BITS = 20
_MAX_NUMBER = (1 << 63) - 1  # the largest integer that SQLite stores
_APPLICATION_ID = 0x72666343  # in the header of the file; says that it belongs to this program
_MAX_VARIABLES = 500  # the most in one statement; SQLite before 3.32 allows 999
_BUSY_TIMEOUT = 2.0  # seconds to wait for another program that is writing to the file
_MAX_WAL = 16_000_000  # bytes of FILE-wal that stay after a long reader has let it grow
_ROW_OVERHEAD = 100  # bytes of a row beside its texts, roughly
_LEAST_FREE = 8_000_000  # bytes; where less of a file is free, shrinking it is not worth the time


class SqliteHistory:
    """The newest messages, in a file or in memory. Any thread may call.

    The oldest are deleted when there are more than `keep` messages, by more than a hundredth, or
    when they take more than about `keep_bytes` bytes. Ids rise strictly, also across restarts and
    when the clock is set back. What was appended in a file survives a crash of the process. A power
    cut may lose the newest messages, because nothing waits for the disk. A key is known until its
    message is deleted.

    SQLite puts new messages where deleted ones were, so a file is never much larger than what it
    once had to keep. When it is opened, and is more than half empty, it is shrunk.
    """

    def __init__(
        self, path: str | None = None, keep: int = KEEP, keep_bytes: int = KEEP_BYTES
    ) -> None:
        self._lock = threading.Lock()  # guards the connection and everything below
        self._file_lock: sqlite3.Connection | None = None
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._unmeasured = 0  # bytes written since the size was last measured, roughly
        # The last batch, and the number that it follows. `since` returns it to who asks for what
        # follows that number. So it is not read again, and is complete even if `keep` is less.
        self._newest_batch: list[Entry] = []
        self._before_newest_batch = -1
        # The real path, so that a file with two names has one lock. It is absolute, so that a file
        # that is called `:memory:` is not taken for SQLite's word for no file.
        file = ":memory:" if path is None else os.path.realpath(path)
        with _sqlite_errors("" if path is None else f"{path}: "):
            self._database = _connect(file, _BUSY_TIMEOUT)
            try:
                self._check()
                if path is not None:
                    self._file_lock = _lock_file(f"{file}-lock")
                self._prepare()
            except BaseException:
                self.close()
                raise
        if path is not None:
            self._shrink(path)

    def _check(self) -> None:
        """Refuse the database of another program before anything is written to it."""
        (application_id,) = self._database.execute("PRAGMA application_id").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application_id != _APPLICATION_ID and tables:
            raise sqlite3.DatabaseError("this is the database of another program")

    def _prepare(self) -> None:
        """Make the tables if they are missing, and read the newest id and what was deleted."""
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            f"PRAGMA journal_size_limit={_MAX_WAL}; PRAGMA application_id={_APPLICATION_ID};"
            "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, email TEXT NOT NULL,"
            " username TEXT NOT NULL, message TEXT NOT NULL, key TEXT UNIQUE);"
            "CREATE TABLE IF NOT EXISTS trimmed (number INTEGER NOT NULL);"
            "CREATE TABLE IF NOT EXISTS began (number INTEGER NOT NULL)"
        )
        query = "SELECT ifnull(min(number), 1), ifnull(max(number), 0), count(*) FROM messages"
        oldest, self._newest, self._count = self._database.execute(query).fetchone()
        if self._newest >> SEQUENCE_BITS >= _MAX_NUMBER >> SEQUENCE_BITS:
            raise sqlite3.DatabaseError("no id can follow its newest one")
        self.start = _to_id(self._newest)
        (deleted,) = self._database.execute("SELECT max(number) FROM trimmed").fetchone()
        if deleted is None:  # the file is new, or older than this table
            deleted = oldest - 1 if self._count >= self._keep else 0
            self._database.execute("INSERT INTO trimmed VALUES (?)", (deleted,))
        self._deleted: int = deleted  # everything up to this number was deleted
        # When the history began: in memory now, and in a file when that was made. A client that
        # asks for an earlier id may have missed messages of another history.
        (began,) = self._database.execute("SELECT max(number) FROM began").fetchone()
        if began is None:  # the file is new, or older than this table
            began = 0 if self._count else _now()
            self._database.execute("INSERT INTO began VALUES (?)", (began,))
        self._began: int = began
        (self._page_size,) = self._database.execute("PRAGMA page_size").fetchone()

    def close(self) -> None:
        """Close the file, and release its lock. Any later call raises HistoryError."""
        with self._lock:
            self._database.close()
            if self._file_lock:  # last, so that the next server finds everything done
                self._file_lock.close()

    def _shrink(self, path: str) -> None:
        """Delete what is not to be kept any more, and give the disk back what a file has too much.

        Only the start does this, because nobody can say anything meanwhile. SQLite first writes the
        new contents into its journal, FILE-wal: if the process is killed or the disk is full, the
        file has the old contents. Then it is used as it is.
        """
        try:
            with _sqlite_errors():
                if self._has_too_many(self._count) or self._bytes() > self._keep_bytes:
                    self._delete_at_start(path)
                used = self._bytes()
                free = self._all_bytes() - used
                if free >= _LEAST_FREE and free > used:
                    log.info(
                        "the history %s is being shrunk: of its %d bytes its messages take %d",
                        path, used + free, used,
                    )  # fmt: skip
                    self._write_anew()
        except HistoryError as error:
            log.warning("the history %s could not be shrunk: %s", path, error)

    def _delete_at_start(self, path: str) -> None:
        before = self._count
        with self._transaction():
            count, deleted = self._delete_oldest()
        self._count = count
        self._deleted = deleted
        log.info("the oldest %d messages of the history %s were deleted", before - count, path)

    def _write_anew(self) -> None:
        """Write the file without its free pages. Raises sqlite3.Error, and leaves it as it was."""
        try:
            self._database.execute("VACUUM")
        finally:  # the journal is as large as the messages, even if there was no room for them
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # Writing

    def append(self, messages: Sequence[Content]) -> list[Appended]:
        """Append the messages whose key is not known, in one transaction.

        Returns what was done with each, in order. After a HistoryError nothing was appended.
        """
        appended: list[Appended] = []
        entries: list[Entry] = []
        with self._lock, _sqlite_errors():
            known = self._find_keys([each.key for each in messages if each.key is not None])
            first = max(self._newest + 1, self._began, _now())
            for each in messages:
                if each.key is not None and each.key in known:
                    appended.append(Appended(known[each.key], is_known=True))
                    continue
                message_id = _to_id(first + len(entries))
                entries.append(Entry(message_id, each.email, each.username, each.message, each.key))
                appended.append(Appended(message_id, is_known=False))
                if each.key is not None:
                    known[each.key] = message_id
            if entries:
                self._write(first, entries)
                self._newest_batch = entries
                self._before_newest_batch = self._newest
                self._newest = first + len(entries) - 1
        return appended

    def _find_keys(self, keys: list[str]) -> dict[str, str]:
        """Look the keys up; returns those that the history has, with the ids of their messages."""
        known: dict[str, str] = {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            some = keys[start : start + _MAX_VARIABLES]
            query = f"SELECT key, number FROM messages WHERE key IN ({','.join('?' * len(some))})"
            for key, number in self._database.execute(query, some):
                known[key] = _to_id(number)
        return known

    def _write(self, first: int, entries: list[Entry]) -> None:
        """Write the entries, numbered from `first` on, and delete the oldest if there are too many.

        All happens in one transaction.
        """
        rows = [
            (number, each.email, each.username, each.message, each.key)
            for number, each in enumerate(entries, first)
        ]
        size = sum(len(each.email) + len(each.message) + _ROW_OVERHEAD for each in entries)
        with self._transaction():
            self._database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
            count = self._count + len(rows)
            deleted = self._deleted
            # Measuring and deleting take time, so they are done only after a further hundredth of
            # the bytes or messages was written.
            unmeasured = self._unmeasured + size
            too_large = False
            if unmeasured > self._keep_bytes // 100:
                too_large = self._bytes() > self._keep_bytes
                unmeasured = 0
            if too_large or self._has_too_many(count):
                count, deleted = self._delete_oldest()
        self._count = count
        self._deleted = deleted
        self._unmeasured = unmeasured

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """What is written inside is in the file whole, or after an exception not at all."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _has_too_many(self, count: int) -> bool:
        return count > self._keep + self._keep // 100

    def _bytes(self) -> int:
        """The bytes that messages take: all pages of the file, except for those that are free."""
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        return self._all_bytes() - int(free * self._page_size)

    def _all_bytes(self) -> int:
        """The size of the file."""
        (pages,) = self._database.execute("PRAGMA page_count").fetchone()
        return int(pages * self._page_size)

    def _delete_oldest(self) -> tuple[int, int]:
        """Delete the oldest messages; returns how many are left, and the last number deleted.

        While they take too many bytes, a hundredth of the messages is deleted at a time. The newest
        message always stays.
        """
        execute = self._database.execute
        (count,) = execute("SELECT count(*) FROM messages").fetchone()
        deleted = self._deleted
        surplus = count - self._keep
        while True:
            if surplus <= 0 and self._bytes() > self._keep_bytes:
                surplus = count // 100 + 1
            surplus = min(surplus, count - 1)
            if surplus <= 0:
                break
            query = "SELECT number FROM messages ORDER BY number LIMIT 1 OFFSET ?"
            (deleted,) = execute(query, (surplus - 1,)).fetchone()
            execute("DELETE FROM messages WHERE number <= ?", (deleted,))
            count -= surplus
            surplus = 0
        execute("DELETE FROM trimmed")
        execute("INSERT INTO trimmed VALUES (?)", (deleted,))
        return count, deleted

    # Reading

    def since(self, message_id: str) -> Page:
        """The first page of what follows this id. Raises ValueError, HistoryError."""
        number = _to_number(message_id)
        with self._lock, _sqlite_errors():
            if number == self._before_newest_batch:
                return Page(self._newest_batch, gap=False, more=False)
            entries = self._read("number > ? ORDER BY number", number)
            more = bool(entries) and entries[-1].message_id != _to_id(self._newest)
            gap = number < self._deleted or 0 < number < self._began
            return Page(entries, gap, more)

    def before(self, message_id: str) -> OlderPage:
        """The messages directly before this id. Raises ValueError, HistoryError."""
        last = _to_number(message_id)
        # An id with too large a sequence has become that of the last message before it.
        if order(_to_id(last)) == order(message_id):
            last -= 1
        with self._lock, _sqlite_errors():
            entries = self._read(f"number <= ? ORDER BY number DESC LIMIT {MAX_OLDER}", last)
            entries.reverse()
            more = bool(entries) and self._has_before(entries[0].message_id)
        return OlderPage(entries, more)

    def _has_before(self, message_id: str) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM messages WHERE number < ?)"
        (found,) = self._database.execute(query, (_to_number(message_id),)).fetchone()
        return bool(found)

    def _read(self, condition: str, number: int) -> list[Entry]:
        """The messages that meet the condition, until a page is full."""
        query = f"SELECT number, email, username, message, key FROM messages WHERE {condition}"
        entries: list[Entry] = []
        characters = 0
        try:
            with closing(self._database.execute(query, (number,))) as rows:
                for number_read, email, username, message, key in rows:
                    entry = make_entry(_to_id(number_read), email, username, message, key)
                    entries.append(entry)
                    characters += size_of(entry)
                    if characters >= PAGE_CHARACTERS:
                        break
        except sqlite3.OperationalError as error:
            # SQLite has neither a class nor a code for this error, but only a text.
            is_decoding = str(error).startswith("Could not decode")
            if not is_decoding or self._database.text_factory is _decode_leniently:
                raise
            # Another program has written text that is not UTF-8. Read everything leniently from
            # now on.
            self._database.text_factory = _decode_leniently
            return self._read(condition, number)
        return entries

    def entry(self, message_id: str) -> Entry | None:
        """The message with this id, or None if it was deleted."""
        with self._lock, _sqlite_errors():
            entries = self._read("number = ?", _to_number(message_id))
        return entries[0] if entries else None

    def before_newest(self, message_id: str, count: int) -> str:
        """The id that the newest `count` messages follow, or the given id if fewer follow it."""
        query = "SELECT number FROM messages WHERE number > ? ORDER BY number DESC LIMIT 1 OFFSET ?"
        with self._lock, _sqlite_errors():
            row = self._database.execute(query, (_to_number(message_id), count)).fetchone()
        if row is None:
            return message_id
        (number,) = row
        return _to_id(number)

    def newest(self) -> str:
        """The id of the newest message, `0-0` in an empty history."""
        with self._lock:
            return _to_id(self._newest)

    def hurried(self, patience: float) -> "SqliteHistory":
        """This history itself, because reading it never takes long."""
        return self


def _connect(file: str, timeout: float) -> sqlite3.Connection:
    """Open a connection on which a transaction begins and ends only by BEGIN and COMMIT."""
    return sqlite3.connect(file, timeout=timeout, isolation_level=None, check_same_thread=False)


def _lock_file(file: str) -> sqlite3.Connection:
    """Lock an empty database beside ours until the connection is closed; the file stays.

    SQLite's own lock is used because it works wherever SQLite does, and because it ends with the
    process, even if that is killed.
    """
    lock = _connect(file, 0)
    try:
        lock.execute("PRAGMA journal_mode=MEMORY")  # nothing is ever written
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise sqlite3.OperationalError("it is locked: another chat server uses it") from None
        raise
    return lock


@contextmanager
def _sqlite_errors(where: str = "") -> Iterator[None]:
    """Turn SQLite's errors into HistoryError."""
    try:
        yield
    except sqlite3.Error as error:
        raise HistoryError(f"{where}{error}") from error


def _decode_leniently(data: bytes) -> str:
    """Decode text with U+FFFD for each wrong byte.

    SQLite's own decoder is faster, but fails for the whole row.
    """
    return data.decode(errors="replace")


def _now() -> int:
    """The lowest number of the present millisecond."""
    return time.time_ns() // 1_000_000 << SEQUENCE_BITS


def _to_id(number: int) -> str:
    return f"{number >> SEQUENCE_BITS}-{number & (1 << SEQUENCE_BITS) - 1}"


def _to_number(message_id: str) -> int:
    """The number of an id. Raises ValueError for a malformed id.

    A time or a sequence that is too large for the file is replaced by the largest possible one, so
    that the id keeps its place among those in the file.
    """
    milliseconds, sequence = order(message_id)
    sequence = min(sequence, (1 << SEQUENCE_BITS) - 1)
    return min(milliseconds << SEQUENCE_BITS | sequence, _MAX_NUMBER)

"""The history in SQLite as a file: bad files, locks, other programs, threads, `kill -9`."""

import contextlib
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat.entry import (
    KEEP,
    Entry,
    HistoryError,
)
from chat.history import SqliteHistory
from histories import append, assert_rising, entry_ids, numbered, opened, said, since, texts
from peers import PATIENCE
from programs import ROOT

IN_USE = "locked: another chat server uses it"

# Files


def test_history_is_opened_with_statements_that_an_old_sqlite_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before SQLite 3.33 the table of tables has one name."""
    statements: list[str] = []
    connect = sqlite3.connect

    def listen(*arguments: object, **options: object) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        database.set_trace_callback(statements.append)
        return database

    monkeypatch.setattr(sqlite3, "connect", listen)
    with opened(tmp_path / "history"):
        assert statements
        assert not [each for each in statements if "sqlite_schema" in each]


def test_history_in_memory_that_fails_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: SqliteHistory) -> None:
        raise sqlite3.OperationalError("out of memory")

    monkeypatch.setattr(SqliteHistory, "_prepare", fail)
    with pytest.raises(HistoryError, match=r"^out of memory$"):
        SqliteHistory()


def test_history_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a name with spaces, ümlaut and %20?mode=ro#x"
    entries: list[Entry] = []
    for start in range(0, 9, 3):
        with opened(path) as history:
            assert since(history, "0").entries == entries
            entries += append(history, numbered(3, start))
    assert path.is_file()


def test_closed_history_is_one_file_beside_an_empty_one_for_its_lock(tmp_path: Path) -> None:
    with opened(tmp_path / "history") as history:
        append(history, numbered(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history", "history-lock"]
    assert (tmp_path / "history-lock").stat().st_size == 0


def test_empty_file_becomes_a_history(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch()
    with opened(path) as history:
        append(history, numbered(1))
    with opened(path) as history:
        assert texts(since(history, "0").entries) == ["0"]


NO_DATABASES = [
    b"What I did on my holidays\n" * 100,
    b"xy",
    bytes(8192),
    b"SQLite format 3\0" + b"\xff" * 8192,
    random.Random(6455).randbytes(8192),
]


@pytest.mark.parametrize("content", NO_DATABASES, ids=lambda content: ascii(content[:20]))
def test_file_that_is_no_database_is_refused_by_name_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=re.escape(str(path))):
        SqliteHistory(str(path))
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("table", ["messages (number INTEGER PRIMARY KEY, key TEXT)", "books (t)"])
def test_database_of_another_program_is_refused_in_words_and_left_alone(
    tmp_path: Path, mode: str, table: str
) -> None:
    path = tmp_path / "books.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute(f"CREATE TABLE {table}")
        database.commit()
    content = path.read_bytes()
    with pytest.raises(HistoryError, match=f"{re.escape(str(path))}.*another program"):
        SqliteHistory(str(path))
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["books.db"]


def test_history_cut_off_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path) as history:
        append(history, [said("x" * 500)] * 1000)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
    with pytest.raises(HistoryError, match=re.escape(str(path))):
        SqliteHistory(str(path))


def test_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=re.escape(str(tmp_path))):
        SqliteHistory(str(tmp_path))


def test_file_in_a_directory_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "history"
    with pytest.raises(HistoryError, match=re.escape(str(path))):
        SqliteHistory(str(path))
    assert not path.parent.exists()


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Without the superuser's right to write everywhere, where the tests have it."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """One that any user may read; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("written", [True, False], ids=["a history", "an empty file"])
def test_file_that_may_only_be_read_is_refused_by_name(
    public_directory: Path, written: bool
) -> None:
    path = public_directory / "history"
    path.touch()
    if written:
        with opened(path) as history:
            append(history, numbered(3))
    path.chmod(0o444)
    content = path.read_bytes()
    with ordinary_user(), pytest.raises(HistoryError) as raised:
        SqliteHistory(str(path))
    assert re.search(f"{re.escape(str(path))}: .*(readonly|unable to open)", str(raised.value))
    assert path.read_bytes() == content


def test_directory_that_may_only_be_read_is_refused_by_name(public_directory: Path) -> None:
    public_directory.chmod(0o555)
    path = public_directory / "history"
    with ordinary_user(), pytest.raises(HistoryError) as raised:
        SqliteHistory(str(path))
    public_directory.chmod(0o755)
    assert str(path) in str(raised.value)


def test_history_in_use_is_refused_by_name_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path) as history:
        for _ in range(2):
            with pytest.raises(HistoryError, match=f"{re.escape(str(path))}: it is {IN_USE}"):
                SqliteHistory(str(path))
            append(history, numbered(1))
    with opened(path) as history:
        assert texts(since(history, "0").entries) == ["0", "0"]


def test_history_in_use_is_refused_by_its_other_names_too(tmp_path: Path) -> None:
    path = tmp_path / "history"
    (tmp_path / "link").symlink_to(path)
    with opened(path):
        for name in (tmp_path / "link", tmp_path / "." / ".." / tmp_path.name / "history"):
            with pytest.raises(HistoryError, match=IN_USE):
                SqliteHistory(str(name))


def test_history_in_use_by_another_process_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with appending(path) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(HistoryError, match=IN_USE):
            SqliteHistory(str(path))
    with opened(path) as history:
        history.append(numbered(1))


def test_lock_that_cannot_be_taken_for_another_reason_is_told_with_that_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "history-lock").write_bytes(b"no database" * 100)
    with pytest.raises(HistoryError, match="file is not a database"):
        SqliteHistory(str(tmp_path / "history"))


def test_name_that_sqlite_takes_for_memory_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(SqliteHistory(":memory:")) as history:
        history.append(numbered(1))
    assert (tmp_path / ":memory:").is_file()


# Other programs that read


def test_history_in_use_can_be_read_and_copied(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path) as history:
        history.append(numbered(3))
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as reader:
            query = "SELECT message FROM messages ORDER BY number"
            assert [text for (text,) in reader.execute(query)] == ["0", "1", "2"]
            history.append(numbered(1, 3))
            assert len(reader.execute(query).fetchall()) == 4
            with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy:
                reader.backup(copy)
        history.append(numbered(1, 4))
        with pytest.raises(
            HistoryError, match="locked"
        ):  # closing a reader must not release our lock
            SqliteHistory(str(path))
    with opened(tmp_path / "copy") as history:
        assert texts(since(history, "0").entries) == ["0", "1", "2", "3"]


def test_reader_that_takes_its_time_holds_up_nothing_and_the_files_shrink_behind_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history"
    limit = 2_000_000
    wal = tmp_path / "history-wal"
    with opened(path, keep_bytes=limit) as history:
        history.append(numbered(3))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            query = "SELECT message FROM messages ORDER BY number"
            first = reader.execute(query).fetchall()
            for start in range(300):
                history.append([said(f"{start}".ljust(60_000))] * 2)
            assert reader.execute(query).fetchall() == first
            grown = wal.stat().st_size
            reader.execute("COMMIT")
        for start in range(100):
            history.append([said(f"{start}".ljust(60_000))] * 2)
        assert grown > 20_000_000  # the reader still needs the old state
        assert wal.stat().st_size <= 16_000_000
        assert path.stat().st_size < limit + 1_000_000


def test_append_waits_for_another_program_that_is_writing(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path) as history, contextlib.closing(_other_writer(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=history.append, args=(numbered(1),))
        thread.start()
        other.execute("COMMIT")
        thread.join(PATIENCE)
        assert texts(since(history, "0").entries) == ["0"]


def _other_writer(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


# Threads


def test_any_thread_may_append_and_read() -> None:
    seen: list[Entry] = []

    def talk(name: str) -> None:
        for number in range(60):
            history.append([said(f"{name} {number} {place}") for place in range(3)])

    with opened() as history:
        threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or entry_ids(seen)[-1:] != [
            history.newest()
        ]:
            found, gap = since(history, seen[-1].message_id if seen else "0")
            assert not gap
            seen += found
        for thread in threads:
            thread.join(PATIENCE)
        assert seen == since(history, "0").entries
        assert len(seen) == 4 * 60 * 3
        assert_rising(entry_ids(seen))


# kill -9


APPENDING = """
import sys
sys.path.insert(0, "tests")
from chat.entry import pages
from chat.history import SqliteHistory
from histories import Said
history = SqliteHistory(sys.argv[1], int(sys.argv[2]))
start = 0
for page in pages(history, "0"):
    for entry in page.entries:
        start = int(entry.message) + 1
print(start, flush=True)
while True:
    batch = range(start, start + 3)
    history.append([Said(str(number), f"key {number}", "e", "u" * 300) for number in batch])
    start += 3
    print(start, flush=True)
"""


@contextlib.contextmanager
def appending(path: Path, kept: int = KEEP) -> Iterator["subprocess.Popen[str]"]:
    """A process that appends 0, 1, 2... in batches of three, and prints how many are appended."""
    command = [sys.executable, "-c", APPENDING, str(path), str(kept)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


@pytest.mark.parametrize("kept", [KEEP, 50])
def test_history_whose_process_was_killed_has_all_that_was_appended_and_whole_batches(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "history"
    reported = 0
    for lines in (2, 17, 100, 400, 3):
        with appending(path, kept) as process:
            assert process.stdout
            start = int(process.stdout.readline())
            assert reported <= start
            for _ in range(lines):
                reported = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:
                reported = int(line)
        with opened(path, kept) as history:
            entries = since(history, "0").entries
        numbers = [int(text) for text in texts(entries)]
        assert numbers[-1] + 1 >= reported >= start + 3 * lines
        assert numbers[-1] % 3 == 2
        first = 0 if kept > numbers[-1] else numbers[-1] + 1 - kept
        assert numbers == list(range(first, numbers[-1] + 1))
        assert [each.key for each in entries] == [f"key {number}" for number in numbers]
        assert_rising(entry_ids(entries))

"""The file of a history that is much larger than what it keeps: it is shrunk when it is opened."""

import contextlib
import logging
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chat.entry import KEEP
from chat.history import SqliteHistory
from chat.open_history import open_history
from chat.options import Options
from histories import (
    append,
    assert_rising,
    entry_ids,
    numbered,
    opened,
    said,
    since,
    texts,
)
from peers import PATIENCE
from programs import ROOT

resource = pytest.importorskip("resource", reason="only Unix has limits of a process")

KEPT = 200
OPEN = """
import resource, sys
from chat.history import SqliteHistory
from console import log_to_stderr
path, kept, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
log_to_stderr()
SqliteHistory(path, kept).close()
"""


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a history of 2,000 messages of 10 kB. Tests shrink a copy of it."""
    path = tmp_path_factory.mktemp("large") / "history"
    with opened(path) as history:
        for start in range(0, 2000, 100):
            numbers = range(start, start + 100)
            history.append([said(f"{number}".ljust(10_000), f"key {number}") for number in numbers])
    assert path.stat().st_size > 20_000_000
    return path


@pytest.fixture
def large(large_file: Path, tmp_path: Path) -> Path:
    return copy_of(large_file, tmp_path)


def copy_of(large_file: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(large_file, folder / "history"))


def opening(path: Path, limit: int = 0) -> "subprocess.Popen[str]":
    """A process that opens the history, to keep the newest, and closes it.

    It can write `limit` bytes to each file, or without it any number.
    """
    command = [sys.executable, "-c", OPEN, str(path), str(KEPT), str(limit)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def assert_keeps_the_newest(path: Path) -> None:
    """Whether it was shrunk or not, it has the newest messages, whole and in order."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with opened(path, KEPT) as history:
        entries = since(history, "0").entries
        newest = range(2000 - KEPT, 2000)
        assert [int(each.message) for each in entries] == list(newest)
        assert [each.key for each in entries] == [f"key {number}" for number in newest]
        assert all(len(each.message) == 10_000 for each in entries)
        assert_rising(entry_ids(entries))


def test_file_of_which_little_is_kept_now_is_shrunk_to_that_when_it_is_opened(
    large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(large) as history:
        all_ids = entry_ids(since(history, "0").entries)
    with caplog.at_level(logging.INFO), opened(large, KEPT) as history:
        assert large.stat().st_size < 3_000_000
        assert sum(path.stat().st_size for path in large.parent.iterdir()) < 4_000_000
        assert since(history, all_ids[1000]).gap
        assert since(history, "0").gap
        assert not since(history, all_ids[-KEPT]).gap
        (known,) = history.append([said("again", "key 1999")])
        assert (known.message_id, known.is_known) == (all_ids[-1], True)
        new = append(history, [said("new")])
        assert_rising([all_ids[-1], new[0].message_id])
    deleted, shrunk = caplog.messages
    assert deleted == f"the oldest 1800 messages of the history {large} were deleted"
    assert shrunk.startswith(f"the history {large} is being shrunk: of its 2")
    with opened(large, KEPT) as history:
        assert texts(since(history, new[0].message_id).entries) == []
        assert history.newest() == new[0].message_id


def test_file_that_has_too_many_bytes_is_shrunk_too(large: Path) -> None:
    with opened(large, keep_bytes=1_000_000) as history:
        assert large.stat().st_size <= 1_000_000
        held = [int(text) for text in texts(since(history, "0").entries)]
        assert 50 < len(held) < 100
        assert held == list(range(2000 - len(held), 2000))


def test_file_that_is_more_than_half_full_is_left_as_it_is(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(history: SqliteHistory) -> None:
        raise AssertionError("the file is written anew")

    monkeypatch.setattr(SqliteHistory, "_write_anew", fail)
    for kept in (2000, 1900, 1100):
        with opened(large, kept) as history:
            assert len(since(history, "0").entries) == kept


def test_small_file_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history"
    with opened(path) as history:
        history.append(numbered(5000))

    def fail(history: SqliteHistory) -> None:
        raise AssertionError("the file is written anew")

    monkeypatch.setattr(SqliteHistory, "_write_anew", fail)
    with opened(path, 1) as history:
        assert texts(since(history, "0").entries) == ["4999"]


def test_program_that_reads_meanwhile_keeps_what_it_reads_and_the_file_shrinks_after_it(
    large: Path,
) -> None:
    with contextlib.closing(sqlite3.connect(large)) as reader:
        reader.execute("PRAGMA busy_timeout=0")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM messages").fetchone() == (2000,)
        with opened(large, KEPT) as history:
            assert len(since(history, "0").entries) == KEPT
            query = "SELECT count(*), sum(length(message)) FROM messages"
            assert reader.execute(query).fetchone() == (2000, 20_000_000)
            reader.execute("COMMIT")
            append(history, [said("new")])
    assert large.stat().st_size < 3_000_000


def test_chat_without_limits_deletes_nothing() -> None:
    with contextlib.closing(open_history(Options(keep=0, keep_bytes=0), print)) as history:
        for start in range(0, KEEP + 2000, 1000):
            history.append(numbered(1000, start))
        first, *_ = history.since("0").entries
        assert first.message == "0"
        assert not history.since("0").gap


# At any moment


@pytest.mark.parametrize("size", [1, 100_000, 1_000_000, 2_000_000])
def test_history_whose_process_was_killed_while_it_was_shrunk_has_everything(
    large: Path, size: int
) -> None:
    """The journal has got this many bytes, of some 2,100,000 that it gets in all."""
    journal = large.with_name("history-wal")
    with opening(large) as process:
        while not (journal.exists() and journal.stat().st_size >= size):
            assert process.poll() is None, "it has ended already"
        process.kill()
        process.communicate()
    assert_keeps_the_newest(large)
    assert large.stat().st_size < 3_000_000


def test_history_whose_process_was_killed_while_the_file_was_written_has_everything(
    large: Path,
) -> None:
    before = large.stat().st_mtime_ns
    with opening(large) as process:
        while large.stat().st_mtime_ns == before:
            assert process.poll() is None, "it has ended already"
        process.kill()
        process.communicate()
    assert_keeps_the_newest(large)


def test_history_whose_journal_was_cut_off_anywhere_has_everything(
    large_file: Path, tmp_path: Path
) -> None:
    """As a power cut may leave it: of the journal only the first so many bytes were written."""
    large = copy_of(large_file, tmp_path / "written")
    journal = large.with_name("history-wal")
    with contextlib.closing(sqlite3.connect(large, isolation_level=None)) as database:
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute(
            "DELETE FROM messages WHERE number <="
            " (SELECT number FROM messages ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (KEPT,),
        )
        database.execute("VACUUM")
        old = large.read_bytes()
        new = journal.read_bytes()
    assert len(old) > 20_000_000
    for cut in (0, 1, 31, 32, 4000, len(new) // 2, len(new) - 4120, len(new) - 1, len(new)):
        folder = tmp_path / f"{cut}"
        folder.mkdir()
        (folder / "history").write_bytes(old)
        (folder / "history-wal").write_bytes(new[:cut])
        assert_keeps_the_newest(folder / "history")
        shutil.rmtree(folder)


@pytest.mark.parametrize("limit", [50_000, 500_000, 1_500_000])
def test_history_that_finds_no_room_to_be_shrunk_in_is_used_as_it_is(
    large: Path, limit: int
) -> None:
    started = time.monotonic()
    with opening(large, limit) as process:
        _, log = process.communicate()
    assert time.monotonic() - started < PATIENCE
    assert process.returncode == 0, log
    assert "Traceback" not in log
    assert f"the history {large} could not be shrunk: " in log
    assert sorted(path.name for path in large.parent.iterdir()) == ["history", "history-lock"]
    with opened(large) as history:
        assert texts(since(history, "0").entries)[-1].strip() == "1999"
    assert_keeps_the_newest(large)


# Another history under the same name


def test_client_of_a_history_that_was_replaced_by_a_new_one_has_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path) as history:
        (old,) = append(history, [said("before")])
    path.unlink()
    for _ in range(2):
        with opened(path) as history:
            append(history, [said("after")])
            assert since(history, old.message_id).gap
            assert not since(history, "0").gap
            (new, *_) = since(history, "0").entries
            assert not since(history, new.message_id).gap


def test_ids_of_a_new_file_are_those_of_its_own_time_though_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history"
    with opened(path) as history:
        earlier = time.time_ns() - 3_600_000_000_000
        monkeypatch.setattr(time, "time_ns", lambda: earlier)
        (first,) = append(history, [said("first")])
        append(history, [said("second")])
        assert texts(since(history, first.message_id).entries) == ["second"]
        assert not since(history, first.message_id).gap

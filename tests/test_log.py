"""The numbered log in SQLite: ids, keys, since, trimming, bad files, a full disk, `kill -9`."""

import contextlib
import itertools
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import chat_entry
import chat_log
from chat_entry import KEPT, Entry, Fields, LogFailed, order
from chat_log import ChatLog
from peers import PATIENCE
from programs import ROOT

ID = re.compile(r"[0-9]+-[0-9]+")
NOW = 1_700_000_000_000  # milliseconds since 1970


def opened(path: str | Path = ":memory:", kept: int = KEPT) -> "contextlib.closing[ChatLog]":
    return contextlib.closing(ChatLog(str(path), kept))


def said(text: str, key: str | None = None) -> Fields:
    return ("ada@example.org", "Ada", text, key)


def numbered(count: int, start: int = 0) -> list[Fields]:
    return [said(str(number)) for number in range(start, start + count)]


def ids(entries: list[Entry]) -> list[str]:
    return [message_id for message_id, _ in entries]


def texts(entries: list[Entry]) -> list[str]:
    return [fields[2] for _, fields in entries]


def pair(message_id: str) -> tuple[int, int]:
    assert ID.fullmatch(message_id), message_id
    milliseconds, _, sequence = message_id.partition("-")
    return int(milliseconds), int(sequence)


def assert_rising(message_ids: list[str]) -> None:
    pairs = [pair(each) for each in message_ids]
    assert all(one < other for one, other in itertools.pairwise(pairs))
    numbers = [order(each) for each in message_ids]
    assert all(one < other for one, other in itertools.pairwise(numbers))


class Clock:
    """What `time.time_ns` says, until it is set anew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.milliseconds = NOW
        monkeypatch.setattr(time, "time_ns", lambda: self.milliseconds * 1_000_000 + 999)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that logs open, in order; for what only their database can be told."""
    found: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def record(*arguments: object, **options: object) -> sqlite3.Connection:
        found.append(connect(*arguments, **options))  # type: ignore[call-overload]
        return found[-1]

    monkeypatch.setattr(sqlite3, "connect", record)
    return found


# Ids


def test_id_is_the_time_in_milliseconds_and_a_sequence(clock: Clock) -> None:
    with opened() as log:
        assert ids(log.append(numbered(3))) == [f"{NOW}-0", f"{NOW}-1", f"{NOW}-2"]
        clock.milliseconds += 1
        assert ids(log.append(numbered(2))) == [f"{NOW + 1}-0", f"{NOW + 1}-1"]


def test_ids_rise_however_many_come_in_one_millisecond(clock: Clock) -> None:
    with opened() as log:
        given: list[str] = []
        for size in (1, 1, 1000, 2, 1000, 1):
            given += ids(log.append(numbered(size)))
        assert len(given) == 2005
        assert_rising(given)
        assert {pair(each)[0] for each in given} == {NOW}
        assert ids(log.since("0")[0]) == given


def test_ids_rise_where_a_millisecond_has_more_than_its_sequence_holds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_log, "SEQUENCE_BITS", 2)
    monkeypatch.setattr(chat_entry, "SEQUENCE_BITS", 2)
    with opened() as log:
        given = ids(log.append(numbered(6)))
        assert given == [f"{NOW}-{i}" for i in range(4)] + [f"{NOW + 1}-0", f"{NOW + 1}-1"]
        clock.milliseconds += 1
        given += ids(log.append(numbered(6)))
        assert_rising(given)


def test_ids_rise_where_the_clock_is_set_back(clock: Clock) -> None:
    with opened() as log:
        given = ids(log.append(numbered(2)))
        for milliseconds in (NOW - 1, NOW - 3_600_000, 0, NOW - 5, NOW, NOW + 1):
            clock.milliseconds = milliseconds
            given += ids(log.append(numbered(2)))
        assert_rising(given)
        assert given[-2] == f"{NOW + 1}-0"
        assert ids(log.since("0")[0]) == given


@pytest.mark.parametrize("change", [-3_600_000, -1, 0, 1])
def test_ids_rise_across_a_restart(clock: Clock, tmp_path: Path, change: int) -> None:
    with opened(tmp_path / "log") as log:
        before = ids(log.append(numbered(5)))
    clock.milliseconds += change
    with opened(tmp_path / "log") as log:
        assert log.newest() == before[-1]
        after = ids(log.append(numbered(5)))
        assert_rising(before + after)
        assert ids(log.since("0")[0]) == before + after


def test_ids_rise_where_all_but_one_message_was_trimmed(clock: Clock, tmp_path: Path) -> None:
    with opened(tmp_path / "log", kept=1) as log:
        before = ids(log.append(numbered(5)))
    with opened(tmp_path / "log", kept=1) as log:
        assert_rising(before + ids(log.append(numbered(1))))


def test_newest_is_the_id_of_the_last_message() -> None:
    with opened() as log:
        assert log.newest() == "0-0"
        assert log.append([]) == []
        assert log.newest() == "0-0"
        for size in (1, 3):
            assert log.newest() != (last := ids(log.append(numbered(size)))[-1])
            assert log.newest() == last


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("0", "0-1"),
        ("0-0", "1"),
        ("9-0", "10-0"),
        ("5-9", "5-10"),
        ("5-1000000", "6"),
        ("1699999999999-1048575", "1700000000000-0"),
        ("1700000000000-5", "9999999999999"),
    ],
)
def test_order_compares_numbers_and_not_text(less: str, more: str) -> None:
    assert order(less) < order(more)


def test_id_without_a_sequence_is_the_first_of_its_millisecond() -> None:
    assert order("1700000000000") == order("1700000000000-0")


def test_sequence_longer_than_ours_keeps_its_place_between_its_neighbours() -> None:
    assert order("5-1048575") <= order("5-9999999999999999999") < order("6-0")


BAD_IDS = [
    *("", "-", "-1", "1-", "1-2-3", "1--2", "a", "1-a", "0x1", "1e3", "1.0", "+1", "1_0", "$"),
    *(" 1", "1 ", "1\n", "1-2\n", "\0", "1\0", "٣", "\uff11", "1-٣", "²", "None"),
    *("9" * 20, "1-" + "9" * 20, "9" * 5000),
]


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
def test_what_is_no_id_is_a_value_error(bad: str) -> None:
    with pytest.raises(ValueError, match="no message id") as raised:
        order(bad)
    assert len(str(raised.value)) < 300
    with opened() as log, pytest.raises(ValueError, match="no message id"):
        log.since(bad)


# Keys


def test_message_whose_key_is_known_is_not_logged_again() -> None:
    with opened() as log:
        log.append([said("one", "k1"), said("two", "k2")])
        logged = log.append([said("again", "k2"), said("three", "k3"), said("again", "k1")])
        assert texts(logged) == ["three"]
        assert logged[0][1] == ("ada@example.org", "Ada", "three", "k3")
        assert log.append([said("again", "k3")]) == []
        assert texts(log.since("0")[0]) == ["one", "two", "three"]


def test_key_that_comes_twice_in_a_batch_is_logged_once() -> None:
    with opened() as log:
        batch = [said("first", "k"), said("other"), said("second", "k"), said("third", "k")]
        assert texts(log.append(batch)) == ["first", "other"]
        assert texts(log.since("0")[0]) == ["first", "other"]


def test_key_is_known_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as log:
        log.append([said("one", "k")])
    with opened(tmp_path / "log") as log:
        assert log.append([said("again", "k")]) == []
        assert texts(log.since("0")[0]) == ["one"]


def test_messages_without_a_key_are_all_logged_however_alike() -> None:
    with opened() as log:
        assert texts(log.append([said("same")] * 3)) == ["same"] * 3
        assert texts(log.append([said("same")])) == ["same"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("k", "K"), ("k", "k "), ("1", "01"), ("1", "1.0"), ("é", "e\u0301"), ("a", "a\0")],
)
def test_keys_that_differ_a_little_are_two(one: str, other: str) -> None:
    with opened() as log:
        assert texts(log.append([said("one", one), said("other", other)])) == ["one", "other"]
        assert log.append([said("again", one), said("again", other)]) == []


def test_keys_of_a_large_batch_are_all_looked_up() -> None:
    batch = [said(str(number), f"k{number}") for number in range(5000)]
    with opened() as log:
        log.append(batch[::2])
        assert texts(log.append(batch)) == [str(number) for number in range(1, 5000, 2)]
        assert log.append(batch) == []


# What is kept of a message


TEXTS = ["", " ", "a\0b", "'; DROP TABLE messages; --", "🎉\u200d\u2028", "\ufffd", "x" * 65536]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_text_comes_back_unchanged_in_every_field(tmp_path: Path, text: str) -> None:
    fields = (text, text, text, text)
    with opened(tmp_path / "log") as log:
        logged = log.append([fields])
        assert [each for _, each in logged] == [fields]
        assert log.since("0")[0] == logged
    with opened(tmp_path / "log") as log:
        assert log.since("0")[0] == logged


# Since


def test_since_gives_what_came_after_an_id() -> None:
    with opened() as log:
        entries = log.append(numbered(4)) + log.append(numbered(4, 4))
        for place, (message_id, _) in enumerate(entries):
            assert log.since(message_id) == (entries[place + 1 :], False)
        assert log.since("0") == (entries, False)
        assert log.since("0-0") == (entries, False)


def test_since_takes_an_id_that_no_message_has(clock: Clock) -> None:
    with opened() as log:
        early = log.append(numbered(2))
        clock.milliseconds += 10
        late = log.append(numbered(2))
        for between in (f"{NOW}-7", f"{NOW + 1}", f"{NOW + 9}-5", f"{NOW}-9999999999999999999"):
            assert log.since(between) == (late, False)
        assert log.since(f"{NOW - 1}-99")[0] == early + late


def test_since_in_an_empty_log_is_nothing() -> None:
    with opened() as log:
        assert log.since("0") == ([], False)
        assert log.since("0", 1) == ([], False)


@pytest.mark.parametrize("future", ["8796093022207", "8796093022208", "9999999999999-5"])
def test_id_from_the_far_future_has_nothing_after_it(future: str) -> None:
    with opened() as log:
        log.append(numbered(2))
        assert log.since(future) == ([], False)


@pytest.mark.parametrize(
    ("limit", "expected", "more"),
    [
        (1, ["9"], True),
        (4, ["6", "7", "8", "9"], True),
        (9, [str(number) for number in range(1, 10)], True),
        (10, [str(number) for number in range(10)], False),
        (11, [str(number) for number in range(10)], False),
    ],
)
def test_limit_gives_the_newest_and_whether_there_were_more(
    limit: int, expected: list[str], more: bool
) -> None:
    with opened() as log:
        log.append(numbered(10))
        entries, there_were_more = log.since("0", limit)
        assert (texts(entries), there_were_more) == (expected, more)


# Trimming


@pytest.mark.parametrize("kept", [1, 2, 10, 99])
def test_small_log_keeps_exactly_the_newest(tmp_path: Path, kept: int) -> None:
    with opened(tmp_path / "log", kept) as log:
        for number in range(120):
            log.append(numbered(1, number))
            expected = [str(each) for each in range(max(0, number + 1 - kept), number + 1)]
            assert texts(log.since("0")[0]) == expected


def test_large_log_keeps_the_newest_and_at_most_a_hundredth_more() -> None:
    with opened(kept=1000) as log:
        log.append(numbered(994))
        for start in range(994, 1500, 7):
            log.append(numbered(7, start))
            held = texts(log.since("0")[0])
            assert min(start + 7, 1000) <= len(held) <= 1010
            assert held == [str(each) for each in range(start + 7 - len(held), start + 7)]


def test_batch_larger_than_what_is_kept_is_told_whole_and_kept_in_part() -> None:
    with opened(kept=10) as log:
        log.append(numbered(5))
        assert texts(log.append(numbered(30, 5))) == [str(number) for number in range(5, 35)]
        assert texts(log.since("0")[0]) == [str(number) for number in range(25, 35)]


def test_log_opened_with_a_smaller_number_is_trimmed_to_it(tmp_path: Path) -> None:
    with opened(tmp_path / "log", kept=100) as log:
        log.append(numbered(100))
    with opened(tmp_path / "log", kept=20) as log:
        log.append(numbered(1, 100))
        assert texts(log.since("0")[0]) == [str(number) for number in range(81, 101)]


def test_who_missed_what_was_trimmed_is_told_that_there_was_more(tmp_path: Path) -> None:
    with opened(tmp_path / "log", kept=10) as log:
        given = ids(log.append(numbered(15)) + log.append(numbered(5, 15)))
        for place, message_id in enumerate(given):
            entries, more = log.since(message_id)
            assert ids(entries) == given[max(place + 1, 10) :]
            assert more == (place < 9)
        assert log.since("0")[1]
    with opened(tmp_path / "log", kept=10) as log:
        assert log.since(given[2]) == (log.since("0")[0], True)
        assert log.since(given[10])[1] is False
        log.append(numbered(3, 20))
        assert log.since(given[11]) == (log.since("0")[0], True)
        assert log.since(given[13])[1] is False


def test_file_of_a_trimmed_log_stops_growing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path, kept=100) as log:
        log.append([said("x" * 1000)] * 1000)
    with opened(path, kept=100) as log:
        for _ in range(100):
            log.append([said("x" * 1000)] * 100)
    assert path.stat().st_size < 4_000_000


# One transaction


def test_append_is_one_transaction(databases: list[sqlite3.Connection]) -> None:
    with opened(kept=10) as log:
        statements: list[str] = []
        databases[0].set_trace_callback(statements.append)
        log.append(numbered(500))
        words = [statement.split()[0] for statement in statements]
        assert words.count("BEGIN") == words.count("COMMIT") == 1
        writing = [place for place, word in enumerate(words) if word in ("INSERT", "DELETE")]
        assert len(writing) >= 501
        assert words.index("BEGIN") < min(writing)
        assert max(writing) < words.index("COMMIT")


def test_batch_of_which_one_message_fails_leaves_nothing(tmp_path: Path) -> None:
    bad = ("ada@example.org", None, "no name", None)
    with opened(tmp_path / "log") as log:
        log.append(numbered(2))
        newest = log.newest()
        with pytest.raises(LogFailed):
            log.append([said("2", "k"), bad, said("3")])  # type: ignore[list-item]
        assert log.newest() == newest
        assert texts(log.since("0")[0]) == ["0", "1"]
        assert texts(log.append([said("2", "k")])) == ["2"]
    with opened(tmp_path / "log") as log:
        assert texts(log.since("0")[0]) == ["0", "1", "2"]


@pytest.mark.parametrize(
    "sizes",
    [[1], [1, 1, 1, 200000], [50] * 4000, [200000, 1]],
    ids=["one small", "the last large", "many", "the first large"],
)
def test_full_disk_is_told_in_words_and_leaves_nothing_of_the_batch(
    tmp_path: Path, databases: list[sqlite3.Connection], sizes: list[int]
) -> None:
    batch = [said("x" * size, f"key {place}") for place, size in enumerate(sizes)]
    with opened(tmp_path / "log") as log:
        database = databases[0]
        while True:
            with contextlib.suppress(LogFailed):
                (pages,) = database.execute("PRAGMA page_count").fetchone()
                database.execute(f"PRAGMA max_page_count={pages}")
                log.append([said("y" * 500)])
                continue
            break
        held = log.since("0")
        for _ in range(3):
            with pytest.raises(LogFailed, match="full"):
                log.append([said("y" * 4000), *batch])
            assert log.since("0") == held
            assert log.newest() == held[0][-1][0]
        database.execute("PRAGMA max_page_count=1000000")
        logged = log.append(batch)
        assert [fields for _, fields in logged] == batch
        assert_rising(ids(held[0] + logged))
        assert log.since("0")[0] == held[0] + logged
    with opened(tmp_path / "log") as log:
        assert log.since("0")[0] == held[0] + logged


# Files


def test_log_in_memory_is_nobody_elses() -> None:
    with opened() as one, opened() as other:
        one.append(numbered(2))
        assert other.since("0") == ([], False)


def test_log_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a name with spaces, ümlaut and %20?mode=ro#x"
    entries: list[Entry] = []
    for start in range(0, 9, 3):
        with opened(path) as log:
            assert log.since("0")[0] == entries
            entries += log.append(numbered(3, start))
    assert path.is_file()


def test_closed_log_is_one_file(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as log:
        log.append(numbered(3))
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_empty_file_becomes_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    with opened(path) as log:
        log.append(numbered(1))
    with opened(path) as log:
        assert texts(log.since("0")[0]) == ["0"]


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
    with pytest.raises(LogFailed, match=re.escape(str(path))):
        ChatLog(str(path))
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
    with pytest.raises(LogFailed, match=f"{re.escape(str(path))}.*another program"):
        ChatLog(str(path))
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["books.db"]


def test_log_cut_off_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as log:
        log.append([said("x" * 500)] * 1000)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
    with pytest.raises(LogFailed, match=re.escape(str(path))):
        ChatLog(str(path))


def test_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LogFailed, match=re.escape(str(tmp_path))):
        ChatLog(str(tmp_path))


def test_file_in_a_directory_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "log"
    with pytest.raises(LogFailed, match=re.escape(str(path))):
        ChatLog(str(path))
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


@pytest.mark.parametrize("written", [True, False], ids=["a log", "an empty file"])
def test_file_that_may_only_be_read_is_refused_by_name(
    public_directory: Path, written: bool
) -> None:
    path = public_directory / "log"
    path.touch()
    if written:
        with opened(path) as log:
            log.append(numbered(3))
    path.chmod(0o444)
    content = path.read_bytes()
    with ordinary_user(), pytest.raises(LogFailed) as raised:
        ChatLog(str(path))
    assert re.search(f"{re.escape(str(path))}: .*(readonly|unable to open)", str(raised.value))
    assert path.read_bytes() == content


def test_directory_that_may_only_be_read_is_refused_by_name(public_directory: Path) -> None:
    public_directory.chmod(0o555)
    path = public_directory / "log"
    with ordinary_user(), pytest.raises(LogFailed) as raised:
        ChatLog(str(path))
    public_directory.chmod(0o755)
    assert str(path) in str(raised.value)


def test_log_in_use_is_refused_by_name_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as log:
        for _ in range(2):
            with pytest.raises(LogFailed, match=f"{re.escape(str(path))}.*locked"):
                ChatLog(str(path))
            log.append(numbered(1))
    with opened(path) as log:
        assert texts(log.since("0")[0]) == ["0", "0"]


def test_log_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with appending(path) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(LogFailed, match="locked"):
            ChatLog(str(path))


# Threads


def test_any_thread_may_append_and_read() -> None:
    seen: list[Entry] = []

    def append(name: str) -> None:
        for number in range(60):
            log.append([said(f"{name} {number} {place}") for place in range(3)])

    with opened() as log:
        threads = [threading.Thread(target=append, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or ids(seen)[-1:] != [log.newest()]:
            found, more = log.since(seen[-1][0] if seen else "0")
            assert not more
            seen += found
        for thread in threads:
            thread.join(PATIENCE)
        assert seen == log.since("0")[0]
        assert len(seen) == 4 * 60 * 3
        assert_rising(ids(seen))


# kill -9


APPENDING = """
import sys
from chat_log import ChatLog
log = ChatLog(sys.argv[1], int(sys.argv[2]))
start = 0
for _, fields in log.since("0")[0]:
    start = int(fields[2]) + 1
print(start, flush=True)
while True:
    batch = range(start, start + 3)
    log.append([("e", "u" * 300, str(number), f"key {number}") for number in batch])
    start += 3
    print(start, flush=True)
"""


@contextlib.contextmanager
def appending(path: Path, kept: int = KEPT) -> Iterator["subprocess.Popen[str]"]:
    """A process that appends 0, 1, 2... in batches of three, and prints how many are logged."""
    command = [sys.executable, "-c", APPENDING, str(path), str(kept)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


@pytest.mark.parametrize("kept", [KEPT, 50])
def test_log_whose_process_was_killed_has_all_that_was_appended_and_whole_batches(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "log"
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
        with opened(path, kept) as log:
            entries, _ = log.since("0")
        numbers = [int(text) for text in texts(entries)]
        assert numbers[-1] + 1 >= reported >= start + 3 * lines
        assert numbers[-1] % 3 == 2
        first = 0 if kept > numbers[-1] else numbers[-1] + 1 - kept
        assert numbers == list(range(first, numbers[-1] + 1))
        assert [fields[3] for _, fields in entries] == [f"key {number}" for number in numbers]
        assert_rising(ids(entries))

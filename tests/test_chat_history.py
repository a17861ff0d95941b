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

import chat.history as chat_log
from chat.entry import (
    KEPT,
    KEPT_BYTES,
    PAGE_CHARACTERS,
    Entry,
    Fields,
    LogFailed,
    Logged,
    order,
    pages,
    size_of,
)
from chat.history import ChatLog
from peers import PATIENCE
from programs import ROOT

ID = re.compile(r"[0-9]+-[0-9]+")
NOW = 1_700_000_000_000  # milliseconds since 1970


def opened(
    path: Path | None = None, kept: int = KEPT, kept_bytes: int = KEPT_BYTES
) -> "contextlib.closing[ChatLog]":
    return contextlib.closing(ChatLog(None if path is None else str(path), kept, kept_bytes))


def append(log: ChatLog, messages: list[Fields]) -> list[Entry]:
    """Log them; those that were not known before, as they can be read then."""
    newest = log.newest()
    log.append(messages)
    return since(log, newest)[0]


def since(log: ChatLog, position: str) -> tuple[list[Entry], bool]:
    """Everything that follows upon an id, and whether some of it can't be had any more."""
    read = list(pages(log, position))
    assert not any(page.gap for page in read[1:])
    return [entry for page in read for entry in page.entries], read[0].gap


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
        assert ids(append(log, numbered(3))) == [f"{NOW}-0", f"{NOW}-1", f"{NOW}-2"]
        clock.milliseconds += 1
        assert ids(append(log, numbered(2))) == [f"{NOW + 1}-0", f"{NOW + 1}-1"]


def test_ids_rise_however_many_come_in_one_millisecond(clock: Clock) -> None:
    with opened() as log:
        given: list[str] = []
        for size in (1, 1, 1000, 2, 1000, 1):
            given += ids(append(log, numbered(size)))
        assert len(given) == 2005
        assert_rising(given)
        assert {pair(each)[0] for each in given} == {NOW}
        assert ids(since(log, "0")[0]) == given


def test_ids_rise_where_a_millisecond_has_more_than_its_sequence_holds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_log, "SEQUENCE_BITS", 2)
    with opened() as log:
        given = ids(append(log, numbered(6)))
        assert given == [f"{NOW}-{i}" for i in range(4)] + [f"{NOW + 1}-0", f"{NOW + 1}-1"]
        clock.milliseconds += 1
        given += ids(append(log, numbered(6)))
        assert_rising(given)


def test_ids_rise_where_the_clock_is_set_back(clock: Clock) -> None:
    with opened() as log:
        given = ids(append(log, numbered(2)))
        for milliseconds in (NOW - 1, NOW - 3_600_000, 0, NOW - 5, NOW, NOW + 1):
            clock.milliseconds = milliseconds
            given += ids(append(log, numbered(2)))
        assert_rising(given)
        assert given[-2] == f"{NOW + 1}-0"
        assert ids(since(log, "0")[0]) == given


@pytest.mark.parametrize("change", [-3_600_000, -1, 0, 1])
def test_ids_rise_across_a_restart(clock: Clock, tmp_path: Path, change: int) -> None:
    with opened(tmp_path / "log") as log:
        before = ids(append(log, numbered(5)))
    clock.milliseconds += change
    with opened(tmp_path / "log") as log:
        assert log.newest() == before[-1]
        after = ids(append(log, numbered(5)))
        assert_rising(before + after)
        assert ids(since(log, "0")[0]) == before + after


def test_ids_rise_where_all_but_one_message_was_trimmed(clock: Clock, tmp_path: Path) -> None:
    with opened(tmp_path / "log", kept=1) as log:
        before = ids(append(log, numbered(5)))
    with opened(tmp_path / "log", kept=1) as log:
        assert_rising(before + ids(append(log, numbered(1))))


def test_newest_is_the_id_of_the_last_message() -> None:
    with opened() as log:
        assert log.newest() == "0-0"
        assert append(log, []) == []
        assert log.newest() == "0-0"
        for size in (1, 3):
            assert log.newest() != (last := ids(append(log, numbered(size)))[-1])
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
        since(log, bad)


# Keys


def test_message_whose_key_is_known_is_not_logged_again_and_its_place_is_told() -> None:
    with opened() as log:
        one, two = log.append([said("one", "k1"), said("two", "k2")])
        logged = log.append([said("again", "k2"), said("three", "k3"), said("again", "k1")])
        assert logged[0] == Logged(two.message_id, known=True)
        assert logged[2] == Logged(one.message_id, known=True)
        assert log.entry(one.message_id) == (one.message_id, said("one", "k1"))
        assert not logged[1].known
        assert log.append([said("again", "k3")]) == [Logged(logged[1].message_id, known=True)]
        assert texts(since(log, "0")[0]) == ["one", "two", "three"]


def test_key_that_comes_twice_in_a_batch_is_logged_once() -> None:
    with opened() as log:
        batch = [said("first", "k"), said("other"), said("second", "k"), said("third", "k")]
        logged = log.append(batch)
        assert [each.known for each in logged] == [False, False, True, True]
        assert logged[2].message_id == logged[3].message_id == logged[0].message_id
        assert texts(since(log, "0")[0]) == ["first", "other"]


def test_key_is_known_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as log:
        append(log, [said("one", "k")])
    with opened(tmp_path / "log") as log:
        assert append(log, [said("again", "k")]) == []
        assert texts(since(log, "0")[0]) == ["one"]


def test_messages_without_a_key_are_all_logged_however_alike() -> None:
    with opened() as log:
        assert texts(append(log, [said("same")] * 3)) == ["same"] * 3
        assert texts(append(log, [said("same")])) == ["same"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("k", "K"), ("k", "k "), ("1", "01"), ("1", "1.0"), ("é", "e\u0301"), ("a", "a\0")],
)
def test_keys_that_differ_a_little_are_two(one: str, other: str) -> None:
    with opened() as log:
        assert texts(append(log, [said("one", one), said("other", other)])) == ["one", "other"]
        assert append(log, [said("again", one), said("again", other)]) == []


def test_keys_of_a_large_batch_are_all_looked_up() -> None:
    batch = [said(str(number), f"k{number}") for number in range(5000)]
    with opened() as log:
        append(log, batch[::2])
        assert texts(append(log, batch)) == [str(number) for number in range(1, 5000, 2)]
        assert append(log, batch) == []


def test_keys_of_a_large_batch_are_looked_up_by_an_old_sqlite_too(
    databases: list[sqlite3.Connection],
) -> None:
    """Before SQLite 3.32 a statement takes 999 variables."""
    batch = [said(str(number), f"k{number}") for number in range(1001)]
    with opened() as log:
        databases[0].setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        append(log, batch[::2])
        logged = log.append(batch)
        assert [each.known for each in logged] == [number % 2 == 0 for number in range(1001)]


# What is kept of a message


TEXTS = ["", " ", "a\0b", "'; DROP TABLE messages; --", "🎉\u200d\u2028", "\ufffd", "x" * 64]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_text_comes_back_unchanged_in_every_field(tmp_path: Path, text: str) -> None:
    fields = (text, text, text * 1000, text or None)
    with opened(tmp_path / "log") as log:
        logged = append(log, [fields])
        assert [each for _, each in logged] == [fields]
    with opened(tmp_path / "log") as log:
        assert since(log, "0")[0] == logged


def test_what_others_have_put_into_the_file_is_cut_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as log:
        log.append(numbered(1))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        rows = [
            ("e" * 5000, "u" * 5000, "m" * 17_000_000, "k" * 65),
            (b"\xff\x00", b"", 5, 7),
            ("", "", "", ""),
        ]
        database.executemany(
            "INSERT INTO messages SELECT max(number) + 1, ?, ?, ?, ? FROM messages", rows
        )
        database.execute(
            "INSERT INTO messages SELECT max(number) + 1, '', '', cast(x'41ff42' as text), 'k'"
            " FROM messages"
        )
    with opened(path) as log:
        entries = [fields for _, fields in since(log, "0")[0]]
    assert entries == [
        said("0"),
        ("e" * 254, "u" * 64, "m" * 16_777_216, None),
        ("", "", "5", "7"),
        ("", "", "", None),
        ("", "", "A\ufffdB", "k"),
    ]


# Since


def test_since_gives_what_came_after_an_id() -> None:
    with opened() as log:
        entries = append(log, numbered(4)) + append(log, numbered(4, 4))
        for place, (message_id, _) in enumerate(entries):
            assert since(log, message_id) == (entries[place + 1 :], False)
        assert since(log, "0") == (entries, False)
        assert since(log, "0-0") == (entries, False)


def test_since_takes_an_id_that_no_message_has(clock: Clock) -> None:
    with opened() as log:
        early = append(log, numbered(2))
        clock.milliseconds += 10
        late = append(log, numbered(2))
        for between in (f"{NOW}-7", f"{NOW + 1}", f"{NOW + 9}-5", f"{NOW}-9999999999999999999"):
            assert since(log, between) == (late, False)
        assert since(log, f"{NOW - 1}-99")[0] == early + late


def test_since_in_an_empty_log_is_nothing() -> None:
    with opened() as log:
        assert since(log, "0") == ([], False)


@pytest.mark.parametrize("future", ["8796093022207", "8796093022208", "9999999999999-5"])
def test_id_from_the_far_future_has_nothing_after_it(future: str) -> None:
    with opened() as log:
        append(log, numbered(2))
        assert since(log, future) == ([], False)


@pytest.mark.parametrize("count", [1, 4, 9, 10, 11, 1000])
def test_id_before_the_newest_has_only_so_many_behind_it(count: int) -> None:
    with opened() as log:
        given = ids(append(log, numbered(10)))
        before = log.before_newest("0", count)
        assert texts(since(log, before)[0]) == [str(number) for number in range(10)][-count:]
        assert (before == "0") == (count >= 10)
        assert log.before_newest(given[7], count) == (given[8] if count == 1 else given[7])


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_page_ends_with_the_message_that_fills_it_and_the_next_follows_upon_it(size: int) -> None:
    count = PAGE_CHARACTERS // (size + 200) * 2 + 3
    with opened() as log:
        log.append([said(str(number).ljust(size)) for number in range(count - 1)])
        log.append([said(str(count - 1).ljust(size))])
        read = list(pages(log, "0"))
        assert len(read) > 1
        assert [page.more for page in read] == [True] * (len(read) - 1) + [False]
        for page in read[:-1]:
            assert sum(map(size_of, page.entries[:-1])) < PAGE_CHARACTERS
            assert sum(map(size_of, page.entries)) >= PAGE_CHARACTERS
        whole = [int(text) for page in read for text in texts(page.entries)]
        assert whole == list(range(count))


def test_reader_whom_trimming_overtakes_between_two_pages_is_told_at_that_place() -> None:
    with opened(kept=20) as log:
        for number in range(20):
            log.append([said(f"{number}".ljust(20_000))])
        reading = pages(log, "0")
        first = next(reading)
        assert [int(text) for text in texts(first.entries)] == list(range(7))
        assert not first.gap
        for number in range(20, 38):
            log.append([said(f"{number}".ljust(20_000))])
        second = next(reading)
        assert second.gap
        assert int(texts(second.entries)[0]) == 18
        assert not any(page.gap for page in reading)


def test_entry_is_found_under_its_id_until_it_is_trimmed() -> None:
    with opened(kept=2) as log:
        first = append(log, [said("first", "k")])[0]
        assert log.entry(first[0]) == first
        assert log.entry("0") is None
        log.append(numbered(2))
        assert log.entry(first[0]) is None


# Trimming


@pytest.mark.parametrize("kept", [1, 2, 10, 99])
def test_small_log_keeps_exactly_the_newest(tmp_path: Path, kept: int) -> None:
    with opened(tmp_path / "log", kept) as log:
        for number in range(120):
            append(log, numbered(1, number))
            expected = [str(each) for each in range(max(0, number + 1 - kept), number + 1)]
            assert texts(since(log, "0")[0]) == expected


def test_large_log_keeps_the_newest_and_at_most_a_hundredth_more() -> None:
    with opened(kept=1000) as log:
        append(log, numbered(994))
        for start in range(994, 1500, 7):
            append(log, numbered(7, start))
            held = texts(since(log, "0")[0])
            assert min(start + 7, 1000) <= len(held) <= 1010
            assert held == [str(each) for each in range(start + 7 - len(held), start + 7)]


def test_batch_larger_than_what_is_kept_is_told_whole_and_kept_in_part() -> None:
    with opened(kept=10) as log:
        append(log, numbered(5))
        logged = log.append(numbered(30, 5))
        assert [each.known for each in logged] == [False] * 30
        assert_rising([each.message_id for each in logged])
        assert texts(since(log, "0")[0]) == [str(number) for number in range(25, 35)]


def test_who_has_all_before_a_batch_gets_it_whole_though_only_a_part_is_kept() -> None:
    with opened(kept=10) as log:
        last = append(log, numbered(5))[-1][0]
        log.append(numbered(30, 5))
        entries, gap = since(log, last)
        assert texts(entries) == [str(number) for number in range(5, 35)]
        assert not gap
        log.append(numbered(1, 35))
        entries, gap = since(log, last)
        assert texts(entries) == [str(number) for number in range(26, 36)]
        assert gap


def test_log_opened_with_a_smaller_number_is_trimmed_to_it(tmp_path: Path) -> None:
    with opened(tmp_path / "log", kept=100) as log:
        append(log, numbered(100))
    with opened(tmp_path / "log", kept=20) as log:
        append(log, numbered(1, 100))
        assert texts(since(log, "0")[0]) == [str(number) for number in range(81, 101)]


def test_who_missed_what_was_trimmed_is_told_that_there_was_more(tmp_path: Path) -> None:
    with opened(tmp_path / "log", kept=10) as log:
        logged = log.append(numbered(15)) + log.append(numbered(5, 15))
        given = [each.message_id for each in logged]
        for place, message_id in enumerate(given):
            entries, more = since(log, message_id)
            assert ids(entries) == given[max(place + 1, 10) :]
            assert more == (place < 9)
        assert since(log, "0")[1]
    with opened(tmp_path / "log", kept=10) as log:
        assert since(log, given[2]) == (since(log, "0")[0], True)
        assert since(log, given[10])[1] is False
        append(log, numbered(3, 20))
        assert since(log, given[11]) == (since(log, "0")[0], True)
        assert since(log, given[13])[1] is False


def test_who_missed_what_was_trimmed_is_told_though_more_is_kept_now(tmp_path: Path) -> None:
    with opened(tmp_path / "log", kept=10) as log:
        given = [each.message_id for each in log.append(numbered(30))]
    with opened(tmp_path / "log", kept=1000) as log:
        assert since(log, given[3])[1]
        assert not since(log, given[19])[1]
        log.append(numbered(5))
        assert since(log, given[3])[1]


@pytest.mark.parametrize("kept", [3, 4])
def test_file_of_before_trimming_was_noted_is_taken_over(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "log"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA application_id=1919312707")
        database.execute(
            "CREATE TABLE messages (number INTEGER PRIMARY KEY, email TEXT NOT NULL,"
            " username TEXT NOT NULL, message TEXT NOT NULL, key TEXT UNIQUE)"
        )
        rows = [(NOW << 20 | number, "", "", str(number), f"k{number}") for number in range(3)]
        database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
    for _ in range(2):
        with opened(path, kept) as log:
            assert texts(since(log, "0")[0]) == ["0", "1", "2"]
            assert since(log, "0")[1] == (kept == 3)  # as full as it may be: it was trimmed
            assert log.append([said("again", "k1")]) == [Logged(f"{NOW}-1", known=True)]


def test_file_upon_whose_newest_id_none_can_follow_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as log:
        log.append(numbered(1))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE messages SET number = 9223372036854775807")
    with pytest.raises(LogFailed, match=f"{re.escape(str(path))}: no id can follow"):
        ChatLog(str(path))


@pytest.mark.parametrize("size", [10, 1000, 60_000])
@pytest.mark.parametrize("in_file", [True, False], ids=["in a file", "in memory"])
def test_messages_stay_within_the_bytes_that_they_may_fill(
    tmp_path: Path, databases: list[sqlite3.Connection], size: int, in_file: bool
) -> None:
    path = tmp_path / "log"
    limit = 3_000_000
    batch = min(100, 100_000 // size)
    with opened(path if in_file else None, kept_bytes=limit) as log:
        for start in range(0, 4 * limit // max(size, 60), batch):
            log.append([said(f"{number} ".ljust(size)) for number in range(start, start + batch)])
        (page_count,) = databases[0].execute("PRAGMA page_count").fetchone()
        assert page_count * 4096 < limit + 2 * batch * size + 100_000
        held = [int(text) for text in texts(since(log, "0")[0])]
        assert since(log, "0")[1]
    assert held == list(range(held[0], start + batch))
    assert sum(max(size, len(str(number))) for number in held) > limit / 10
    if in_file:
        assert path.stat().st_size < limit + 2 * batch * size + 100_000


def test_message_larger_than_all_that_may_be_filled_is_kept_alone() -> None:
    with opened(kept_bytes=1) as log:
        log.append(numbered(5))
        log.append([said("x" * 100_000)])
        assert texts(since(log, "0")[0]) == ["x" * 100_000]


def test_log_that_others_have_deleted_from_is_trimmed_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path, kept=200) as log:
        log.append(numbered(200))
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM messages WHERE number % 2")
        for start in range(200, 500, 10):
            log.append(numbered(10, start))
        held = texts(since(log, "0")[0])
        assert held == [str(number) for number in range(500 - len(held), 500)]
        assert 200 <= len(held) <= 202


def test_file_of_a_trimmed_log_stops_growing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path, kept=100) as log:
        append(log, [said("x" * 1000)] * 1000)
    with opened(path, kept=100) as log:
        for _ in range(100):
            append(log, [said("x" * 1000)] * 100)
    assert path.stat().st_size < 4_000_000


# One transaction


def test_append_is_one_transaction(databases: list[sqlite3.Connection]) -> None:
    with opened(kept=10) as log:
        statements: list[str] = []
        databases[0].set_trace_callback(statements.append)
        append(log, numbered(500))
        words = [statement.split()[0] for statement in statements]
        assert words.count("BEGIN") == words.count("COMMIT") == 1
        writing = [place for place, word in enumerate(words) if word in ("INSERT", "DELETE")]
        assert len(writing) >= 501
        assert words.index("BEGIN") < min(writing)
        assert max(writing) < words.index("COMMIT")


def test_batch_of_which_one_message_fails_leaves_nothing(tmp_path: Path) -> None:
    bad = ("ada@example.org", None, "no name", None)
    with opened(tmp_path / "log") as log:
        append(log, numbered(2))
        newest = log.newest()
        with pytest.raises(LogFailed):
            append(log, [said("2", "k"), bad, said("3")])  # type: ignore[list-item]
        assert log.newest() == newest
        assert texts(since(log, "0")[0]) == ["0", "1"]
        assert texts(append(log, [said("2", "k")])) == ["2"]
    with opened(tmp_path / "log") as log:
        assert texts(since(log, "0")[0]) == ["0", "1", "2"]


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
                append(log, [said("y" * 500)])
                continue
            break
        held = since(log, "0")
        for _ in range(3):
            with pytest.raises(LogFailed, match="full"):
                append(log, [said("y" * 4000), *batch])
            assert since(log, "0") == held
            assert log.newest() == held[0][-1][0]
        database.execute("PRAGMA max_page_count=1000000")
        logged = append(log, batch)
        assert [fields for _, fields in logged] == batch
        assert_rising(ids(held[0] + logged))
        assert since(log, "0")[0] == held[0] + logged
    with opened(tmp_path / "log") as log:
        assert since(log, "0")[0] == held[0] + logged


# Files


def test_log_in_memory_is_nobody_elses() -> None:
    with opened() as one, opened() as other:
        append(one, numbered(2))
        assert since(other, "0") == ([], False)


def test_log_is_opened_in_words_that_an_old_sqlite_knows(
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
    with opened(tmp_path / "log"):
        assert statements
        assert not [each for each in statements if "sqlite_schema" in each]


def test_log_in_memory_that_fails_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ChatLog) -> None:
        raise sqlite3.OperationalError("out of memory")

    monkeypatch.setattr(ChatLog, "_prepare", fail)
    with pytest.raises(LogFailed, match=r"^out of memory$"):
        ChatLog()


def test_log_in_memory_tells_of_what_was_said_before_it_began(clock: Clock) -> None:
    with opened() as before:
        (told,) = append(before, numbered(1))
    clock.milliseconds += 1000
    with opened() as log:
        assert since(log, told[0]) == ([], True)
        entries = append(log, numbered(3))
        assert since(log, told[0]) == (entries, True)
        assert since(log, "0") == (entries, False)
        assert since(log, entries[0][0]) == (entries[1:], False)


def test_reading_that_fails_is_not_taken_for_text_of_another_encoding(
    databases: list[sqlite3.Connection],
) -> None:
    with opened() as log:
        entries = append(log, numbered(2)) + append(log, numbered(2))
        databases[0].set_progress_handler(lambda: 1, 1)
        with pytest.raises(LogFailed, match="interrupted"):
            log.since("0")
        databases[0].set_progress_handler(None, 1)
        assert databases[0].text_factory is str
        assert since(log, "0")[0] == entries


def test_log_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a name with spaces, ümlaut and %20?mode=ro#x"
    entries: list[Entry] = []
    for start in range(0, 9, 3):
        with opened(path) as log:
            assert since(log, "0")[0] == entries
            entries += append(log, numbered(3, start))
    assert path.is_file()


def test_closed_log_is_one_file_beside_an_empty_one_for_its_lock(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as log:
        append(log, numbered(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log-lock"]
    assert (tmp_path / "log-lock").stat().st_size == 0


def test_empty_file_becomes_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    with opened(path) as log:
        append(log, numbered(1))
    with opened(path) as log:
        assert texts(since(log, "0")[0]) == ["0"]


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
        append(log, [said("x" * 500)] * 1000)
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
            append(log, numbered(3))
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
            append(log, numbered(1))
    with opened(path) as log:
        assert texts(since(log, "0")[0]) == ["0", "0"]


def test_log_in_use_is_refused_by_its_other_names_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    (tmp_path / "link").symlink_to(path)
    with opened(path):
        for name in (tmp_path / "link", tmp_path / "." / ".." / tmp_path.name / "log"):
            with pytest.raises(LogFailed, match="locked"):
                ChatLog(str(name))


def test_log_in_use_by_another_process_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with appending(path) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(LogFailed, match="locked"):
            ChatLog(str(path))
    with opened(path) as log:
        log.append(numbered(1))


def test_name_that_sqlite_takes_for_memory_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(ChatLog(":memory:")) as log:
        log.append(numbered(1))
    assert (tmp_path / ":memory:").is_file()


# Other programs that read


def test_log_in_use_can_be_read_and_copied(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as log:
        log.append(numbered(3))
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as reader:
            query = "SELECT message FROM messages ORDER BY number"
            assert [text for (text,) in reader.execute(query)] == ["0", "1", "2"]
            log.append(numbered(1, 3))
            assert len(reader.execute(query).fetchall()) == 4
            with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy:
                reader.backup(copy)
        log.append(numbered(1, 4))
        with pytest.raises(LogFailed, match="locked"):  # a reader that ended took no lock along
            ChatLog(str(path))
    with opened(tmp_path / "copy") as log:
        assert texts(since(log, "0")[0]) == ["0", "1", "2", "3"]


def test_reader_that_takes_its_time_holds_up_nothing_and_the_files_shrink_behind_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    limit = 2_000_000
    wal = tmp_path / "log-wal"
    with opened(path, kept_bytes=limit) as log:
        log.append(numbered(3))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            query = "SELECT message FROM messages ORDER BY number"
            first = reader.execute(query).fetchall()
            for start in range(300):
                log.append([said(f"{start}".ljust(60_000))] * 2)
            assert reader.execute(query).fetchall() == first
            grown = wal.stat().st_size
            reader.execute("COMMIT")
        for start in range(100):
            log.append([said(f"{start}".ljust(60_000))] * 2)
        assert grown > 20_000_000  # as long as the reader looks at what was
        assert wal.stat().st_size <= 16_000_000
        assert path.stat().st_size < limit + 1_000_000


def test_writer_of_another_program_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as log, contextlib.closing(_other_writer(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=log.append, args=(numbered(1),))
        thread.start()
        other.execute("COMMIT")
        thread.join(PATIENCE)
        assert texts(since(log, "0")[0]) == ["0"]


def _other_writer(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


# Threads


def test_any_thread_may_append_and_read() -> None:
    seen: list[Entry] = []

    def talk(name: str) -> None:
        for number in range(60):
            log.append([said(f"{name} {number} {place}") for place in range(3)])

    with opened() as log:
        threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or ids(seen)[-1:] != [log.newest()]:
            found, more = since(log, seen[-1][0] if seen else "0")
            assert not more
            seen += found
        for thread in threads:
            thread.join(PATIENCE)
        assert seen == since(log, "0")[0]
        assert len(seen) == 4 * 60 * 3
        assert_rising(ids(seen))


# kill -9


APPENDING = """
import sys
from chat.entry import pages
from chat.history import ChatLog
log = ChatLog(sys.argv[1], int(sys.argv[2]))
start = 0
for page in pages(log, "0"):
    for _, fields in page.entries:
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
            entries, _ = since(log, "0")
        numbers = [int(text) for text in texts(entries)]
        assert numbers[-1] + 1 >= reported >= start + 3 * lines
        assert numbers[-1] % 3 == 2
        first = 0 if kept > numbers[-1] else numbers[-1] + 1 - kept
        assert numbers == list(range(first, numbers[-1] + 1))
        assert [fields[3] for _, fields in entries] == [f"key {number}" for number in numbers]
        assert_rising(ids(entries))

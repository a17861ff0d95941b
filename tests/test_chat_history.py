"""The history in SQLite: ids, keys, what is kept, reading, deleting, transactions."""

import contextlib
import re
import sqlite3
import time
from pathlib import Path

import pytest

import chat.history as history_module
from chat.entry import (
    PAGE_CHARACTERS,
    Appended,
    Entry,
    HistoryError,
    order,
    pages,
    size_of,
)
from chat.history import SqliteHistory
from histories import (
    Said,
    append,
    assert_rising,
    content,
    entry_ids,
    numbered,
    opened,
    pair,
    said,
    since,
    texts,
)

NOW = 1_700_000_000_000  # milliseconds since 1970


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
    """The connections that histories open, in order: for what only the database can be asked."""
    found: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def record(*arguments: object, **options: object) -> sqlite3.Connection:
        found.append(connect(*arguments, **options))  # type: ignore[call-overload]
        return found[-1]

    monkeypatch.setattr(sqlite3, "connect", record)
    return found


# Ids


def test_id_is_the_time_in_milliseconds_and_a_sequence(clock: Clock) -> None:
    with opened() as history:
        assert entry_ids(append(history, numbered(3))) == [f"{NOW}-0", f"{NOW}-1", f"{NOW}-2"]
        clock.milliseconds += 1
        assert entry_ids(append(history, numbered(2))) == [f"{NOW + 1}-0", f"{NOW + 1}-1"]


def test_ids_rise_however_many_come_in_one_millisecond(clock: Clock) -> None:
    with opened() as history:
        given: list[str] = []
        for size in (1, 1, 1000, 2, 1000, 1):
            given += entry_ids(append(history, numbered(size)))
        assert len(given) == 2005
        assert_rising(given)
        assert {pair(each)[0] for each in given} == {NOW}
        assert entry_ids(since(history, "0").entries) == given


def test_ids_rise_when_a_millisecond_has_more_messages_than_its_sequence_can_count(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "SEQUENCE_BITS", 2)
    with opened() as history:
        given = entry_ids(append(history, numbered(6)))
        assert given == [f"{NOW}-{i}" for i in range(4)] + [f"{NOW + 1}-0", f"{NOW + 1}-1"]
        clock.milliseconds += 1
        given += entry_ids(append(history, numbered(6)))
        assert_rising(given)


def test_ids_rise_where_the_clock_is_set_back(clock: Clock) -> None:
    with opened() as history:
        given = entry_ids(append(history, numbered(2)))
        for milliseconds in (NOW - 1, NOW - 3_600_000, 0, NOW - 5, NOW, NOW + 1):
            clock.milliseconds = milliseconds
            given += entry_ids(append(history, numbered(2)))
        assert_rising(given)
        assert given[-2] == f"{NOW + 1}-0"
        assert entry_ids(since(history, "0").entries) == given


@pytest.mark.parametrize("change", [-3_600_000, -1, 0, 1])
def test_ids_rise_across_a_restart(clock: Clock, tmp_path: Path, change: int) -> None:
    with opened(tmp_path / "history") as history:
        before = entry_ids(append(history, numbered(5)))
    clock.milliseconds += change
    with opened(tmp_path / "history") as history:
        assert history.newest() == before[-1]
        after = entry_ids(append(history, numbered(5)))
        assert_rising(before + after)
        assert entry_ids(since(history, "0").entries) == before + after


def test_ids_rise_where_all_but_one_message_was_deleted(clock: Clock, tmp_path: Path) -> None:
    with opened(tmp_path / "history", keep=1) as history:
        before = entry_ids(append(history, numbered(5)))
    with opened(tmp_path / "history", keep=1) as history:
        assert_rising(before + entry_ids(append(history, numbered(1))))


def test_newest_is_the_id_of_the_last_message() -> None:
    with opened() as history:
        assert history.newest() == "0-0"
        assert append(history, []) == []
        assert history.newest() == "0-0"
        for size in (1, 3):
            assert history.newest() != (last := entry_ids(append(history, numbered(size)))[-1])
            assert history.newest() == last


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


@pytest.mark.parametrize("sequence", [1048575, 1048576, 9999999999999999999])
def test_since_takes_a_sequence_longer_than_ours_for_the_last_of_its_millisecond(
    sequence: int, clock: Clock, tmp_path: Path
) -> None:
    with opened(tmp_path / "history") as history:
        for _ in range(2):
            append(history, numbered(1))
            clock.milliseconds += 1
        first, second = entry_ids(since(history, "0").entries)
        assert entry_ids(since(history, f"{NOW}-{sequence}").entries) == [second]
        assert entry_ids(since(history, f"{NOW - 1}-{sequence}").entries) == [first, second]
        with contextlib.closing(sqlite3.connect(tmp_path / "history")) as database, database:
            last = NOW << 20 | 1048575
            database.execute("UPDATE messages SET number = ? WHERE number = ?", (last, NOW << 20))
        assert entry_ids(since(history, f"{NOW}-{sequence}").entries) == [second]


BAD_IDS = [
    *("", "-", "-1", "1-", "1-2-3", "1--2", "a", "1-a", "0x1", "1e3", "1.0", "+1", "1_0", "$"),
    *(" 1", "1 ", "1\n", "1-2\n", "\0", "1\0", "٣", "\uff11", "1-٣", "²", "None"),
    *("9" * 20, "1-" + "9" * 20, "9" * 5000),
]


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
def test_malformed_id_is_a_value_error(bad: str) -> None:
    with pytest.raises(ValueError, match="not a message id") as raised:
        order(bad)
    assert len(str(raised.value)) < 300
    with opened() as history, pytest.raises(ValueError, match="not a message id"):
        since(history, bad)


# Keys


def test_message_with_a_known_key_is_not_appended_again_and_its_id_is_returned() -> None:
    with opened() as history:
        one, two = history.append([said("one", "k1"), said("two", "k2")])
        appended = history.append([said("again", "k2"), said("three", "k3"), said("again", "k1")])
        assert appended[0] == Appended(two.message_id, is_known=True)
        assert appended[2] == Appended(one.message_id, is_known=True)
        assert history.entry(one.message_id) == Entry(
            one.message_id, "ada@example.org", "Ada", "one", "k1"
        )
        assert not appended[1].is_known
        assert history.append([said("again", "k3")]) == [
            Appended(appended[1].message_id, is_known=True)
        ]
        assert texts(since(history, "0").entries) == ["one", "two", "three"]


def test_key_that_comes_twice_in_a_batch_is_appended_once() -> None:
    with opened() as history:
        batch = [said("first", "k"), said("other"), said("second", "k"), said("third", "k")]
        appended = history.append(batch)
        assert [each.is_known for each in appended] == [False, False, True, True]
        assert appended[2].message_id == appended[3].message_id == appended[0].message_id
        assert texts(since(history, "0").entries) == ["first", "other"]


def test_key_is_known_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path / "history") as history:
        append(history, [said("one", "k")])
    with opened(tmp_path / "history") as history:
        assert append(history, [said("again", "k")]) == []
        assert texts(since(history, "0").entries) == ["one"]


def test_messages_without_a_key_are_all_appended_however_alike() -> None:
    with opened() as history:
        assert texts(append(history, [said("same")] * 3)) == ["same"] * 3
        assert texts(append(history, [said("same")])) == ["same"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("k", "K"), ("k", "k "), ("1", "01"), ("1", "1.0"), ("é", "e\u0301"), ("a", "a\0")],
)
def test_keys_that_differ_a_little_are_different_keys(one: str, other: str) -> None:
    with opened() as history:
        assert texts(append(history, [said("one", one), said("other", other)])) == ["one", "other"]
        assert append(history, [said("again", one), said("again", other)]) == []


def test_keys_of_a_large_batch_are_all_looked_up() -> None:
    batch = [said(str(number), f"k{number}") for number in range(5000)]
    with opened() as history:
        append(history, batch[::2])
        assert texts(append(history, batch)) == [str(number) for number in range(1, 5000, 2)]
        assert append(history, batch) == []


def test_keys_of_a_large_batch_are_looked_up_by_an_old_sqlite_too(
    databases: list[sqlite3.Connection],
) -> None:
    """Before SQLite 3.32 a statement takes 999 variables."""
    batch = [said(str(number), f"k{number}") for number in range(1001)]
    with opened() as history:
        databases[0].setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        append(history, batch[::2])
        appended = history.append(batch)
        assert [each.is_known for each in appended] == [number % 2 == 0 for number in range(1001)]


# What is kept of a message


TEXTS = ["", " ", "a\0b", "'; DROP TABLE messages; --", "🎉\u200d\u2028", "\ufffd", "x" * 64]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_text_comes_back_unchanged_in_every_field(tmp_path: Path, text: str) -> None:
    message = Said(text * 1000, text or None, email=text, username=text)
    with opened(tmp_path / "history") as history:
        appended = append(history, [message])
        assert content(appended) == [message]
    with opened(tmp_path / "history") as history:
        assert since(history, "0").entries == appended


def test_fields_that_other_programs_have_written_are_cut_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path) as history:
        history.append(numbered(1))
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
    with opened(path) as history:
        entries = since(history, "0").entries
    assert content(entries) == [
        said("0"),
        Said("m" * 16_777_216, None, email="e" * 254, username="u" * 64),
        Said("5", "7"),
        Said("", None),
        Said("A\ufffdB", "k"),
    ]


# Since


def test_since_gives_what_came_after_an_id() -> None:
    with opened() as history:
        entries = append(history, numbered(4)) + append(history, numbered(4, 4))
        for place, message_id in enumerate(entry_ids(entries)):
            assert since(history, message_id) == (entries[place + 1 :], False)
        assert since(history, "0") == (entries, False)
        assert since(history, "0-0") == (entries, False)


def test_since_takes_an_id_that_no_message_has(clock: Clock) -> None:
    with opened() as history:
        early = append(history, numbered(2))
        clock.milliseconds += 10
        late = append(history, numbered(2))
        for between in (f"{NOW}-7", f"{NOW + 1}", f"{NOW + 9}-5", f"{NOW}-9999999999999999999"):
            assert since(history, between) == (late, False)
        assert since(history, f"{NOW - 1}-99").entries == early + late


def test_since_in_an_empty_history_is_nothing() -> None:
    with opened() as history:
        assert since(history, "0") == ([], False)


@pytest.mark.parametrize("future", ["8796093022207", "8796093022208", "9999999999999-5"])
def test_id_from_the_far_future_has_nothing_after_it(future: str) -> None:
    with opened() as history:
        append(history, numbered(2))
        assert since(history, future) == ([], False)


@pytest.mark.parametrize("count", [1, 4, 9, 10, 11, 1000])
def test_before_newest_returns_the_id_that_so_many_messages_follow(count: int) -> None:
    with opened() as history:
        given = entry_ids(append(history, numbered(10)))
        before = history.before_newest("0", count)
        assert (
            texts(since(history, before).entries) == [str(number) for number in range(10)][-count:]
        )
        assert (before == "0") == (count >= 10)
        assert history.before_newest(given[7], count) == (given[8] if count == 1 else given[7])


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_page_ends_with_the_message_that_fills_it_and_the_next_page_follows(size: int) -> None:
    count = PAGE_CHARACTERS // (size + 200) * 2 + 3
    with opened() as history:
        history.append([said(str(number).ljust(size)) for number in range(count - 1)])
        history.append([said(str(count - 1).ljust(size))])
        read = list(pages(history, "0"))
        assert len(read) > 1
        assert [page.more for page in read] == [True] * (len(read) - 1) + [False]
        for page in read[:-1]:
            assert sum(map(size_of, page.entries[:-1])) < PAGE_CHARACTERS
            assert sum(map(size_of, page.entries)) >= PAGE_CHARACTERS
        whole = [int(text) for page in read for text in texts(page.entries)]
        assert whole == list(range(count))


def test_reader_that_trimming_overtakes_between_two_pages_gets_a_gap_at_that_place() -> None:
    with opened(keep=20) as history:
        for number in range(20):
            history.append([said(f"{number}".ljust(20_000))])
        reading = pages(history, "0")
        first = next(reading)
        assert [int(text) for text in texts(first.entries)] == list(range(7))
        assert not first.gap
        for number in range(20, 38):
            history.append([said(f"{number}".ljust(20_000))])
        second = next(reading)
        assert second.gap
        assert int(texts(second.entries)[0]) == 18
        assert not any(page.gap for page in reading)


def test_entry_is_found_under_its_id_until_it_is_deleted() -> None:
    with opened(keep=2) as history:
        first = append(history, [said("first", "k")])[0]
        assert history.entry(first.message_id) == first
        assert history.entry("0") is None
        history.append(numbered(2))
        assert history.entry(first.message_id) is None


# Trimming


@pytest.mark.parametrize("kept", [1, 2, 10, 99])
def test_small_history_keeps_exactly_the_newest(tmp_path: Path, kept: int) -> None:
    with opened(tmp_path / "history", kept) as history:
        for number in range(120):
            append(history, numbered(1, number))
            expected = [str(each) for each in range(max(0, number + 1 - kept), number + 1)]
            assert texts(since(history, "0").entries) == expected


def test_large_history_keeps_the_newest_and_at_most_a_hundredth_more() -> None:
    with opened(keep=1000) as history:
        append(history, numbered(994))
        for start in range(994, 1500, 7):
            append(history, numbered(7, start))
            held = texts(since(history, "0").entries)
            assert min(start + 7, 1000) <= len(held) <= 1010
            assert held == [str(each) for each in range(start + 7 - len(held), start + 7)]


def test_oldest_are_deleted_as_soon_as_there_is_more_than_a_hundredth_too_much() -> None:
    with opened(keep=200) as history:
        append(history, numbered(202))
        assert len(since(history, "0").entries) == 202
        append(history, numbered(1, 202))
        assert texts(since(history, "0").entries) == [str(each) for each in range(3, 203)]


def test_batch_larger_than_what_is_kept_gets_all_its_ids_and_is_kept_in_part() -> None:
    with opened(keep=10) as history:
        append(history, numbered(5))
        appended = history.append(numbered(30, 5))
        assert [each.is_known for each in appended] == [False] * 30
        assert_rising([each.message_id for each in appended])
        assert texts(since(history, "0").entries) == [str(number) for number in range(25, 35)]


def test_reader_that_has_everything_before_a_batch_gets_it_whole_even_if_only_a_part_is_kept() -> (
    None
):
    with opened(keep=10) as history:
        last = append(history, numbered(5))[-1].message_id
        history.append(numbered(30, 5))
        entries, gap = since(history, last)
        assert texts(entries) == [str(number) for number in range(5, 35)]
        assert not gap
        history.append(numbered(1, 35))
        entries, gap = since(history, last)
        assert texts(entries) == [str(number) for number in range(26, 36)]
        assert gap


def test_history_opened_with_a_smaller_number_is_trimmed_to_it(tmp_path: Path) -> None:
    with opened(tmp_path / "history", keep=100) as history:
        append(history, numbered(100))
    with opened(tmp_path / "history", keep=20) as history:
        append(history, numbered(1, 100))
        assert texts(since(history, "0").entries) == [str(number) for number in range(81, 101)]


def test_reader_that_missed_deleted_messages_gets_a_gap(tmp_path: Path) -> None:
    with opened(tmp_path / "history", keep=10) as history:
        appended = history.append(numbered(15)) + history.append(numbered(5, 15))
        given = [each.message_id for each in appended]
        for place, message_id in enumerate(given):
            entries, gap = since(history, message_id)
            assert entry_ids(entries) == given[max(place + 1, 10) :]
            assert gap == (place < 9)
        assert since(history, "0").gap
    with opened(tmp_path / "history", keep=10) as history:
        assert since(history, given[2]) == (since(history, "0").entries, True)
        assert since(history, given[10]).gap is False
        append(history, numbered(3, 20))
        assert since(history, given[11]) == (since(history, "0").entries, True)
        assert since(history, given[13]).gap is False


def test_reader_that_missed_deleted_messages_gets_a_gap_even_if_more_is_kept_now(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "history", keep=10) as history:
        given = [each.message_id for each in history.append(numbered(30))]
    with opened(tmp_path / "history", keep=1000) as history:
        assert since(history, given[3]).gap
        assert not since(history, given[19]).gap
        history.append(numbered(5))
        assert since(history, given[3]).gap


@pytest.mark.parametrize("kept", [3, 4])
def test_file_from_before_the_trimmed_table_existed_can_be_opened(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "history"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA application_id=1919312707")
        database.execute(
            "CREATE TABLE messages (number INTEGER PRIMARY KEY, email TEXT NOT NULL,"
            " username TEXT NOT NULL, message TEXT NOT NULL, key TEXT UNIQUE)"
        )
        rows = [(NOW << 20 | 5 + each, "", "", str(each), f"k{each}") for each in range(3)]
        database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
    for _ in range(2):
        with opened(path, kept) as history:
            assert not since(history, f"{NOW}-5").gap
            assert not since(history, f"{NOW}-4").gap  # nothing lies between this id and the oldest
            assert since(history, f"{NOW}-3").gap == (kept == 3)
            assert texts(since(history, "0").entries) == ["0", "1", "2"]
            assert since(history, "0").gap == (kept == 3)  # as full as it may be: some were deleted
            assert history.append([said("again", "k1")]) == [Appended(f"{NOW}-6", is_known=True)]


def test_file_whose_newest_id_is_the_last_possible_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path) as history:
        history.append(numbered(1))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE messages SET number = 9223372036854775807")
    with pytest.raises(HistoryError, match=f"{re.escape(str(path))}: no id can follow"):
        SqliteHistory(str(path))


@pytest.mark.parametrize("size", [10, 1000, 60_000])
@pytest.mark.parametrize("in_file", [True, False], ids=["in a file", "in memory"])
def test_messages_stay_within_the_bytes_that_they_may_fill(
    tmp_path: Path, databases: list[sqlite3.Connection], size: int, in_file: bool
) -> None:
    path = tmp_path / "history"
    limit = 3_000_000
    batch = min(100, 100_000 // size)
    with opened(path if in_file else None, keep_bytes=limit) as history:
        for start in range(0, 4 * limit // max(size, 60), batch):
            history.append(
                [said(f"{number} ".ljust(size)) for number in range(start, start + batch)]
            )
        (page_count,) = databases[0].execute("PRAGMA page_count").fetchone()
        assert page_count * 4096 < limit + 2 * batch * size + 100_000
        held = [int(text) for text in texts(since(history, "0").entries)]
        assert since(history, "0").gap
    assert held == list(range(held[0], start + batch))
    assert sum(max(size, len(str(number))) for number in held) > limit / 10
    if in_file:
        assert path.stat().st_size < limit + 2 * batch * size + 100_000


def test_message_larger_than_all_that_may_be_filled_is_kept_alone() -> None:
    with opened(keep_bytes=1) as history:
        history.append(numbered(5))
        history.append([said("x" * 100_000)])
        assert texts(since(history, "0").entries) == ["x" * 100_000]


def test_history_that_others_have_deleted_from_is_trimmed_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path, keep=200) as history:
        history.append(numbered(200))
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM messages WHERE number % 2")
        for start in range(200, 500, 10):
            history.append(numbered(10, start))
        held = texts(since(history, "0").entries)
        assert held == [str(number) for number in range(500 - len(held), 500)]
        assert 200 <= len(held) <= 202


def test_file_of_a_trimmed_history_stops_growing(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with opened(path, keep=100) as history:
        append(history, [said("x" * 1000)] * 1000)
    with opened(path, keep=100) as history:
        for _ in range(100):
            append(history, [said("x" * 1000)] * 100)
    assert path.stat().st_size < 4_000_000


# One transaction


def test_append_is_one_transaction(databases: list[sqlite3.Connection]) -> None:
    with opened(keep=10) as history:
        statements: list[str] = []
        databases[0].set_trace_callback(statements.append)
        append(history, numbered(500))
        words = [statement.split()[0] for statement in statements]
        assert words.count("BEGIN") == words.count("COMMIT") == 1
        writing = [place for place, word in enumerate(words) if word in ("INSERT", "DELETE")]
        assert len(writing) >= 501
        assert words.index("BEGIN") < min(writing)
        assert max(writing) < words.index("COMMIT")


def test_batch_of_which_one_message_fails_leaves_nothing(tmp_path: Path) -> None:
    bad = said("no name")._replace(username=None)  # type: ignore[arg-type]
    with opened(tmp_path / "history") as history:
        append(history, numbered(2))
        newest = history.newest()
        with pytest.raises(HistoryError):
            append(history, [said("2", "k"), bad, said("3")])
        assert history.newest() == newest
        assert texts(since(history, "0").entries) == ["0", "1"]
        assert texts(append(history, [said("2", "k")])) == ["2"]
    with opened(tmp_path / "history") as history:
        assert texts(since(history, "0").entries) == ["0", "1", "2"]


@pytest.mark.parametrize(
    "sizes",
    [[1], [1, 1, 1, 200000], [50] * 4000, [200000, 1]],
    ids=["one small", "the last large", "many", "the first large"],
)
def test_full_disk_is_told_in_words_and_leaves_nothing_of_the_batch(
    tmp_path: Path, databases: list[sqlite3.Connection], sizes: list[int]
) -> None:
    batch = [said("x" * size, f"key {place}") for place, size in enumerate(sizes)]
    with opened(tmp_path / "history") as history:
        database = databases[0]
        while True:
            with contextlib.suppress(HistoryError):
                (pages,) = database.execute("PRAGMA page_count").fetchone()
                database.execute(f"PRAGMA max_page_count={pages}")
                append(history, [said("y" * 500)])
                continue
            break
        held = since(history, "0")
        for _ in range(3):
            with pytest.raises(HistoryError, match="full"):
                append(history, [said("y" * 4000), *batch])
            assert since(history, "0") == held
            assert history.newest() == held.entries[-1].message_id
        database.execute("PRAGMA max_page_count=1000000")
        appended = append(history, batch)
        assert content(appended) == batch
        assert_rising(entry_ids(held.entries + appended))
        assert since(history, "0").entries == held.entries + appended
    with opened(tmp_path / "history") as history:
        assert since(history, "0").entries == held.entries + appended


# In memory


def test_two_histories_in_memory_share_nothing() -> None:
    with opened() as one, opened() as other:
        append(one, numbered(2))
        assert since(other, "0") == ([], False)


def test_history_in_memory_has_a_gap_before_its_beginning(clock: Clock) -> None:
    with opened() as before:
        (told,) = append(before, numbered(1))
    clock.milliseconds += 1000
    with opened() as history:
        assert since(history, told.message_id) == ([], True)
        entries = append(history, numbered(3))
        assert since(history, told.message_id) == (entries, True)
        assert since(history, "0") == (entries, False)
        assert since(history, entries[0].message_id) == (entries[1:], False)


def test_failure_to_read_is_not_mistaken_for_text_in_another_encoding(
    databases: list[sqlite3.Connection],
) -> None:
    with opened() as history:
        entries = append(history, numbered(2)) + append(history, numbered(2))
        databases[0].set_progress_handler(lambda: 1, 1)
        with pytest.raises(HistoryError, match="interrupted"):
            history.since("0")
        databases[0].set_progress_handler(None, 1)
        assert databases[0].text_factory is str
        assert since(history, "0").entries == entries

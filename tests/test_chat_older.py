"""Older messages: what stands directly before an id, in each history and over the wire."""

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import chat.history as history_module
from chat.entry import Entry, History, HistoryError, OlderPage
from chat.events import Events
from chat.pace import Pace
from chat.presence import Presence
from chat_server import Message
from chatting import (
    ask_older,
    assert_here,
    hear,
    hear_said,
    ids,
    leave,
    read_close_past_messages,
    resume,
    say,
    tell,
    tell_texts,
    text_frame,
)
from finding import require_redis
from guests import guests
from histories import append, entry_ids, numbered, opened, said, since, texts
from peers import PATIENCE
from programs import Program, chat
from redis_server import Redis, connected, put

LATEST = "9999999999999-0"  # no message has as late an id


@pytest.fixture(params=["memory", "file", pytest.param("redis", marks=pytest.mark.redis)])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[History]:
    """Each kind of history in turn, empty."""
    if request.param == "redis":
        require_redis()
        from chat.redis_history import RedisHistory

        yield RedisHistory(request.getfixturevalue("redis").url)
        return
    with opened(tmp_path / "chat.db" if request.param == "file" else None) as history:
        yield history


def read_back(history: History, message_id: str) -> list[OlderPage]:
    """All pages before an id, the one nearest to it first."""
    found = [history.before(message_id)]
    while found[-1].more:
        found.append(history.before(found[-1].entries[0].message_id))
    return found


def joined(pages: list[OlderPage]) -> list[Entry]:
    """The entries of pages that were read back, oldest first."""
    return [entry for page in reversed(pages) for entry in page.entries]


# In each history


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (9, [9]),
        (10, [10]),
        (11, [11]),
        (99, [99]),
        (100, [100]),
        (101, [100, 1]),
        (250, [100, 100, 50]),
        (300, [100, 100, 100]),
    ],
)
def test_pages_of_a_hundred_give_each_message_once_and_no_empty_page_at_the_end(
    history: History, count: int, sizes: list[int]
) -> None:
    everything = append(history, numbered(count))
    read = read_back(history, LATEST)
    assert [len(page.entries) for page in read] == sizes
    assert joined(read) == everything


def test_message_with_the_id_itself_is_not_before_it(history: History) -> None:
    given = entry_ids(append(history, numbered(3)))
    assert history.before(given[2]) == ([*since(history, "0").entries[:2]], False)
    assert texts(history.before(given[1]).entries) == ["0"]
    assert history.before(given[0]) == ([], False)


@pytest.mark.parametrize("early", ["0", "0-0", "1", "7-18446744073709551615"])
def test_nothing_is_before_the_first_message(history: History, early: str) -> None:
    append(history, numbered(3))
    assert history.before(early) == ([], False)


@pytest.mark.parametrize("late", ["9999999999999", "18446744073709551615-18446744073709551615"])
def test_everything_is_before_an_id_from_the_future(history: History, late: str) -> None:
    append(history, numbered(3))
    assert texts(history.before(late).entries) == ["0", "1", "2"]


def test_id_without_a_sequence_is_the_first_of_its_millisecond(history: History) -> None:
    (entry,) = append(history, numbered(1))
    milliseconds = entry.message_id.partition("-")[0]
    assert history.before(milliseconds) == ([], False)
    assert history.before(str(int(milliseconds) + 1)) == ([entry], False)


@pytest.mark.parametrize("malformed", ["", "x", "-1", "1-", "1-2-3", " 1", "1e3", "1" * 21])
def test_malformed_id_is_a_value_error(history: History, malformed: str) -> None:
    with pytest.raises(ValueError, match="is not a message id"):
        history.before(malformed)


def test_page_ends_with_the_message_that_fills_it(history: History) -> None:
    everything = append(history, [said(str(number).ljust(60_000, ".")) for number in range(7)])
    read = read_back(history, LATEST)
    assert [len(page.entries) for page in read] == [3, 3, 1]
    assert joined(read) == everything


def test_huge_message_does_not_block_the_way(history: History) -> None:
    sizes = [10, 900_000, 10, 900_000, 900_000]
    everything = append(history, [said("x" * size) for size in sizes])
    read = read_back(history, LATEST)
    assert [len(page.entries) for page in read] == [1, 1, 2, 1]
    assert joined(read) == everything


def test_fields_come_back_as_they_were_appended(history: History) -> None:
    (entry,) = append(history, [said("你好 🤖 \0 \u2028", "a key")])
    assert history.before(LATEST) == ([entry], False)
    assert (entry.email, entry.username, entry.key) == ("ada@example.org", "Ada", "a key")


# In one of them


def test_nothing_is_left_before_what_was_not_deleted() -> None:
    with opened(keep=50) as history:
        append(history, numbered(80))
        page = history.before(LATEST)
        assert texts(page.entries) == [str(number) for number in range(30, 80)]
        assert not page.more


def test_sequence_longer_than_ours_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "SEQUENCE_BITS", 2)
    with opened() as history:
        given = entry_ids(append(history, numbered(9)))
        last = next(each for each in given if each.endswith("-3"))
        behind = last.removesuffix("-3") + "-4"
        assert entry_ids(history.before(last).entries) == given[: given.index(last)]
        assert entry_ids(history.before(behind).entries) == given[: given.index(last) + 1]


def test_closed_history_is_a_history_error() -> None:
    with opened() as history:
        append(history, numbered(1))
    with pytest.raises(HistoryError):
        history.before(LATEST)


@pytest.mark.redis
def test_entry_of_another_program_is_a_message_among_the_others(redis: Redis) -> None:
    require_redis()
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    put(redis, "by another program", "5-7")
    put(redis, "and one more", "18446744073709551615-18446744073709551615")
    assert texts(history.before("18446744073709551615-18446744073709551615").entries) == [
        "by another program"
    ]
    assert history.before("5-7") == ([], False)
    assert texts(history.before("5-8").entries) == ["by another program"]


@pytest.mark.redis
def test_redis_reads_a_few_messages_at_a_time_and_little_more_than_the_page(redis: Redis) -> None:
    require_redis()
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    history.append(numbered(1000))
    with contextlib.closing(connected(redis)) as client:
        client.config_resetstat()
        assert len(history.before(LATEST).entries) == 100
        # Each reads ten messages, of which the first was read before.
        assert client.info("commandstats")["cmdstat_xrevrange"]["calls"] == 12
        client.config_resetstat()
        history.append([said("x" * 200_000) for _ in range(20)])
        assert len(history.before(LATEST).entries) == 1
        assert client.info("commandstats")["cmdstat_xrevrange"]["calls"] == 1


# Over the wire


@pytest.mark.parametrize("hide", [[], ["--hide-emails"]], ids=["emails", "hidden emails"])
def test_older_messages_are_those_that_were_broadcast_and_only_who_asks_gets_them(
    hide: list[str],
) -> None:
    with chat(*hide) as server, server.join() as plain, resume(server) as bob:
        for text in ("one", "two 你好", "three"):
            say(plain, text, key=f"key of {text}")
        live = [hear(plain) for _ in range(3)]
        assert live[0]["email"] == ("" if hide else "ada@example.org")
        with resume(server, live[2]["id"]) as ada:
            ask_older(ada, live[2]["id"])
            answer = hear_said(ada)
            assert list(answer) == ["event", "before", "messages", "more"]
            assert answer == {
                "event": "older",
                "before": live[2]["id"],
                "messages": live[:2],
                "more": False,
            }
            assert_here(ada)
        assert [hear_said(bob) for _ in live] == live
        assert_here(bob)
        say(plain, "next")
        assert hear(plain)["message"] == "next"


def test_answer_says_whether_there_is_more_and_repeats_the_id_as_it_was_written() -> None:
    with chat() as server:
        told = tell(server, 130)
        with resume(server, told[-1]["id"]) as ada:
            ask_older(ada, "9999999999999")
            answer = hear_said(ada)
            assert (answer["before"], answer["more"]) == ("9999999999999", True)
            assert answer["messages"] == told[30:]
            ask_older(ada, answer["messages"][0]["id"])
            answer = hear_said(ada)
            assert (answer["messages"], answer["more"]) == (told[:30], False)
            ask_older(ada, told[0]["id"])
            answer = hear_said(ada)
            assert (answer["messages"], answer["more"]) == ([], False)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ('{"event": "older"}', "before is missing, or not a string"),
        ('{"event": "older", "before": null}', "before is missing, or not a string"),
        ('{"event": "older", "before": 7}', "before is missing, or not a string"),
        ('{"event": "older", "Before": "7"}', "before is missing, or not a string"),
        ('{"event": "older", "before": ""}',
         "before is not a message id, such as 1700000000000-0"),
        ('{"event": "older", "before": "7-7-7"}',
         "before is not a message id, such as 1700000000000-0"),
        (json.dumps({"event": "older", "before": "🤖" * 4000}),
         "before is not a message id, such as 1700000000000-0"),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_event_without_an_id_is_closed_with_1008(server: Program, event: str, reason: str) -> None:
    with resume(server, LATEST) as ada:
        ada.send(text_frame(event))
        _, close = read_close_past_messages(ada)
        assert close == (0x88, b"\x03\xf0" + reason.encode())


@pytest.mark.parametrize("before", ['"9-9"', "7", "[{}]", "null"])
def test_event_from_a_plain_client_is_a_message_as_in_the_original(
    server: Program, before: str
) -> None:
    with server.join() as ada:
        ada.send(text_frame(f'{{"event": "older", "before": {before}, "message": "m"}}'))
        heard = hear(ada)
        assert heard["message"] == "m"
        assert not {"event", "before"} & set(heard)


def test_event_in_another_spelling_is_a_message(server: Program) -> None:
    with resume(server, tell(server, 1)[0]["id"]) as ada:
        ada.send(text_frame('{"Event": "older", "before": "7", "message": "m"}'))
        assert hear_said(ada)["message"] == "m"


def test_each_request_counts_for_the_rate_and_no_other_event_does() -> None:
    class CountingPace(Pace):
        waits = 0

        def wait(self) -> None:
            self.waits += 1

    pace = CountingPace(20)
    presence = Presence(set(), threading.Lock())
    with guests(1) as (ada,), opened() as history:
        presence.expect(ada.websocket)
        events = Events(presence, history, pace, hide_emails=False)
        for event in ("ping", "join", "older", "older"):
            assert events.handle(Message(event=event, before="7", sender=ada.websocket))
        assert not events.handle(Message(message="m", sender=ada.websocket))
        assert pace.waits == 2
        assert hear(ada.peer) == {"event": "pong"}
        for _ in range(2):
            assert hear(ada.peer)["event"] == "older"


def test_answer_is_waited_for_until_its_client_has_taken_it() -> None:
    """It is larger than what the kernel takes, so that nothing else of this client is handled."""
    presence = Presence(set(), threading.Lock())
    with guests(1) as (ada,), opened() as history, ThreadPoolExecutor(1) as pool:
        presence.expect(ada.websocket)
        append(history, [said("x" * 16_000_000)])
        events = Events(presence, history, Pace(0), hide_emails=False)
        event = Message(event="older", before=LATEST, sender=ada.websocket)
        handling = pool.submit(events.handle, event)
        with pytest.raises(TimeoutError):
            handling.result(0.2)
        assert len(hear_said(ada.peer)["messages"][0]["message"]) == 16_000_000
        assert handling.result(PATIENCE)


def test_client_that_asks_and_does_not_read_is_slowed_and_holds_up_nobody() -> None:
    """Its answers are 13 MB together: far more than the kernel takes, or may wait in a backlog."""
    with chat() as server:
        told = tell_texts(server, *[str(number).ljust(60_000, ".") for number in range(4)])
        with resume(server, told[-1]["id"]) as slow, server.join() as other:
            ask_older(slow, LATEST)
            first = hear_said(slow)
            assert (ids(first["messages"]), first["more"]) == (ids(told[1:]), True)
            for _ in range(75):
                ask_older(slow, LATEST)
            for number in range(10):
                say(other, str(number))
                assert hear(other)["message"] == str(number)
            leave(other)
            answers: list[Any] = []
            live: list[str] = []
            while len(answers) < 75:
                heard = hear_said(slow)
                if "event" in heard:
                    answers.append(heard)
                else:
                    live.append(heard["message"])
            assert live == list(map(str, range(10)))
            assert_here(slow)


def test_clients_who_say_much_hear_everything_once_while_another_reads_back(
    server: Program,
) -> None:
    newest = tell(server, 1)[0]["id"]
    with resume(server, newest) as talker, resume(server, newest) as reader:
        for number in range(200):
            say(talker, str(number))
            ask_older(reader, LATEST)
        heard: list[str] = []
        answers: list[list[str]] = []
        while len(heard) < 200 or len(answers) < 200:
            event = hear_said(reader)
            if "event" in event:
                answers.append([each["message"] for each in event["messages"]])
            else:
                heard.append(event["message"])
        assert heard == list(map(str, range(200)))
        assert [hear_said(talker)["message"] for _ in range(200)] == heard

"""A stream on Redis that somebody deletes, or that comes back as it was before, while chat servers
use it: nobody hears silence, nobody is told twice, and what is missing is told by a `gap`.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat.entry import pages
from chat.presence import Presence
from chat.resume import Resuming, admit
from chatting import assert_here, hear_said, resume, say, tell_texts
from guests import guests
from histories import Said, append, since, texts
from peers import PATIENCE, eventually
from programs import chat
from redis_server import Redis, came_back_as_often_as_it_went, put

pytestmark = pytest.mark.redis

GAP = {"event": "gap"}
DELETIONS = [("DEL", "chat"), ("UNLINK", "chat"), ("FLUSHALL",), ("RENAME", "chat", "old")]


@pytest.mark.parametrize("deletion", DELETIONS, ids=lambda words: words[0])
def test_clients_of_all_servers_go_on_when_the_stream_is_deleted_and_are_told_of_it(
    redis: Redis, deletion: tuple[str, ...]
) -> None:
    with (
        chat("--redis", redis.url) as one,
        chat("--redis", redis.url) as other,
        resume(one) as ada,
        resume(other) as bob,
        one.join() as plain,
    ):
        tell_texts(one, "before")
        for peer in (ada, bob, plain):
            assert hear_said(peer)["message"] == "before"
        redis.ask(*deletion)
        tell_texts(other, "after")
        assert hear_said(ada) == hear_said(bob) == GAP
        for peer in (ada, bob, plain):
            assert hear_said(peer)["message"] == "after"
        say(plain, "and on")
        for peer in (ada, bob, plain):
            assert hear_said(peer)["message"] == "and on"


@pytest.mark.parametrize("deletion", DELETIONS, ids=lambda words: words[0])
def test_client_that_resumes_from_before_the_deletion_is_told_of_the_gap(
    redis: Redis, deletion: tuple[str, ...]
) -> None:
    with chat("--redis", redis.url) as server:
        old = tell_texts(server, "first", "last")
        redis.ask(*deletion)
        new = tell_texts(server, "anew")
        for message in old:
            with resume(server, message["id"]) as eve:
                assert [hear_said(eve), hear_said(eve)] == [GAP, new[0]]
        tell_texts(server, "more")
        with resume(server, new[0]["id"]) as bob:
            assert hear_said(bob)["message"] == "more"
        with resume(server, "0") as newcomer:
            assert [hear_said(newcomer)["message"] for _ in range(2)] == ["anew", "more"]


def test_server_that_was_started_after_the_deletion_tells_of_the_gap_too(redis: Redis) -> None:
    with chat("--redis", redis.url) as server:
        last = tell_texts(server, "before")[0]["id"]
    redis.ask("DEL", "chat")
    with chat("--redis", redis.url) as server:
        new = tell_texts(server, "after")
        with resume(server, last) as eve:
            assert [hear_said(eve), hear_said(eve)] == [GAP, new[0]]


def test_everybody_is_told_of_the_gap_once_and_soon_though_nobody_says_anything(
    redis: Redis,
) -> None:
    with chat("--redis", redis.url) as server, resume(server) as ada:
        last = tell_texts(server, "before")[0]["id"]
        assert hear_said(ada)["message"] == "before"
        redis.ask("DEL", "chat")
        with resume(server, last) as eve:
            assert hear_said(ada) == hear_said(eve) == GAP
            say(ada, "after")
            assert hear_said(ada) == hear_said(eve)
            assert_here(ada)
            assert_here(eve)


def test_new_stream_with_lower_ids_is_heard_behind_a_gap(redis: Redis) -> None:
    with chat("--redis", redis.url) as server, resume(server) as ada:
        put(redis, "high", "9999999999999999-0")
        assert hear_said(ada)["message"] == "high"
        redis.ask("DEL", "chat")
        put(redis, "low")
        assert [hear_said(ada), hear_said(ada)["message"]] == [GAP, "low"]
        assert_here(ada)


@contextlib.contextmanager
def saving_redis(folder: Path) -> Iterator[Redis]:
    """A redis-server that keeps over a crash only what it has saved, as is Redis' default."""
    redis = Redis(folder / "redis", "--appendonly", "no")
    try:
        yield redis
    finally:
        redis.kill()


def test_redis_that_comes_back_without_its_newest_messages_tells_nothing_twice(
    tmp_path: Path,
) -> None:
    with (
        saving_redis(tmp_path) as redis,
        chat("--redis", redis.url) as server,
        resume(server) as ada,
    ):
        tell_texts(server, *map(str, range(5)))
        assert [hear_said(ada)["message"] for _ in range(5)] == list(map(str, range(5)))
        redis.ask("SAVE")
        lost = tell_texts(server, "lost")[0]
        assert hear_said(ada) == lost
        redis.kill()
        redis.start()
        eventually(lambda: came_back_as_often_as_it_went(server))
        say(ada, "after")
        assert hear_said(ada)["message"] == "after"
        assert_here(ada)


# The history, asked without a chat


def lose(redis: Redis, *lost: str, newest: str) -> None:
    """Take these messages off the stream as if they had never been on it."""
    redis.ask("XDEL", "chat", *lost)
    assert redis.ask("XSETID", "chat", newest) == "+OK"


def test_reader_of_what_redis_has_lost_gets_what_is_new_though_its_ids_are_lower(
    redis: Redis,
) -> None:
    from chat.redis_history import RedisHistory

    for text in ("5-0", "6-0", "7-0"):
        put(redis, text, text)
    history = RedisHistory(redis.url)
    assert texts(since(history, "0").entries) == ["5-0", "6-0", "7-0"]
    lose(redis, "6-0", "7-0", newest="5-0")
    assert since(history, "7-0") == ([], False)
    put(redis, "new", "6-5")
    missed = since(history, "7-0")
    assert (texts(missed.entries), missed.gap) == (["new"], False)
    assert since(history, "7-0") == ([], False)


def test_server_that_has_just_started_knows_what_was_there_before(redis: Redis) -> None:
    from chat.redis_history import RedisHistory

    for text in ("5-0", "6-0", "7-0"):
        put(redis, text, text)
    history = RedisHistory(redis.url)
    lose(redis, "6-0", "7-0", newest="5-0")
    assert since(history, history.start) == ([], False)


def test_what_a_resuming_client_alone_has_read_is_not_taken_for_sent_to_everybody(
    redis: Redis,
) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    put(redis, "read by all", "7-0")
    since(history, "0")
    redis.ask("DEL", "chat")
    put(redis, "read by one", "5-0")
    since(history.hurried(PATIENCE), "0")
    missed = since(history, "7-0")
    assert (texts(missed.entries), missed.gap) == (["read by one"], True)


def test_no_more_is_remembered_than_redis_may_lose_between_two_saves(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chat import redis_history

    monkeypatch.setattr(redis_history, "MOST_SEEN", 3)
    history = redis_history.RedisHistory(redis.url)
    entries = append(history, [Said(str(number)) for number in range(10)])
    assert list(history._seen) == [each.message_id for each in entries[-3:]]


@pytest.mark.parametrize("count", [1, 9, 10, 11, 499, 500, 501, 620])
def test_of_a_new_stream_with_lower_ids_the_newest_500_are_sent_behind_a_gap(
    redis: Redis, count: int
) -> None:
    from chat.redis_history import RedisHistory

    put(redis, "high", "9999999999999999-0")
    history = RedisHistory(redis.url)
    redis.ask("DEL", "chat")
    script = f"for i = 1, {count} do redis.call('XADD', 'chat', i .. '-0', 'message', i) end"
    redis.ask("EVAL", script, "0")
    missed = since(history, "9999999999999999-0")
    assert texts(missed.entries) == list(map(str, range(max(1, count - 499), count + 1)))
    assert missed.gap


def test_emptied_stream_is_a_gap_once_and_then_an_empty_history(redis: Redis) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    (entry,) = append(history, [Said("before")])
    redis.ask("DEL", "chat")
    (page,) = pages(history, entry.message_id)
    assert (page.entries, page.gap) == ([], True)
    position = page.end(entry.message_id)
    assert since(history, position) == ([], False)
    append(history, [Said("after")])
    missed = since(history, position)
    assert (texts(missed.entries), missed.gap) == (["after"], False)


def test_client_that_is_admitted_after_the_deletion_is_told_of_the_gap(redis: Redis) -> None:
    """It has caught up before the deletion, and `handle_messages` meets it afterwards."""
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    (old,) = append(history, [Said("before")])
    redis.ask("DEL", "chat")
    presence = Presence(set(), threading.Lock())
    with guests(2) as (ada, bob):
        for guest in (ada, bob):
            presence.expect(guest.websocket)
        resuming = Resuming(ada.websocket, old.message_id)
        admit(resuming, "0-0", history, presence, hide_emails=False)
        assert hear_said(ada.peer) == GAP
        new = put(redis, "low", "5-0")
        resuming = Resuming(bob.websocket, old.message_id)
        admit(resuming, new, history, presence, hide_emails=False)
        assert [hear_said(bob.peer), hear_said(bob.peer)["message"]] == [GAP, "low"]

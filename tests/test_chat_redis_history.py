"""The history on a Redis stream, asked without a chat: pages, batches, errors, the follower."""

import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chat.entry import PAGE_CHARACTERS, HistoryError, pages, size_of
from histories import Said, texts
from peers import PATIENCE, eventually
from redis_server import AWAY, BACK, Redis, connected, put

pytestmark = pytest.mark.redis


def test_redis_that_comes_back_with_an_error_that_does_not_pass_is_logged_as_back(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    import redis as package

    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    errors = [package.ResponseError("WRONGTYPE"), package.ConnectionError("refused")]

    def fail(client: Any) -> None:
        raise errors.pop()

    with pytest.raises(HistoryError, match="WRONGTYPE"):
        history._ask(fail)
    away, back = caplog.messages
    assert AWAY in away and BACK in back


def test_old_connections_end_with_every_version_of_redis_py(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before redis-py 7 a pool has no way to disconnect those alone that nobody uses."""
    import redis as package

    from chat.redis_history import RedisHistory

    disconnect = package.BlockingConnectionPool.disconnect

    def disconnect_all(self: Any) -> None:
        disconnect(self)

    monkeypatch.setattr(package.BlockingConnectionPool, "disconnect", disconnect_all)
    history = RedisHistory(redis.url)
    redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    with ThreadPoolExecutor(1) as pool:
        appending = pool.submit(history.append, [Said("x")])
        eventually(lambda: AWAY in caplog.text)
        redis.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        assert not appending.result()[0].is_known
    with contextlib.closing(connected(redis)) as client:
        eventually(lambda: len(client.client_list()) == 2)
    assert BACK in caplog.text


SCRIPT_OF_6 = "Error running script (call to f_1): @user_script:9: @user_script: 9: "


@pytest.mark.parametrize(
    ("refusal", "passing"),
    [
        ("READONLY You can't write against a read only replica.", True),
        (f"{SCRIPT_OF_6}-READONLY You can't write against a read only replica.", True),
        ("NOREPLICAS Not enough good replicas to write.", True),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL.", True),
        ("Protocol error: unauthenticated multibulk length", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        (f"{SCRIPT_OF_6}-OOM command not allowed when used memory > 'maxmemory'.", False),
        ("MISCONF Redis is configured to save RDB snapshots, but it's unable to", False),
        ("NOPERM this user has no permissions to run the 'eval' command", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
    ],
)
def test_error_that_passes_by_itself_is_told_apart_from_one_that_the_sender_must_know(
    refusal: str, passing: bool
) -> None:
    import redis as package

    from chat.redis_link import passes

    assert passes(package.ResponseError(refusal)) == passing


@pytest.mark.parametrize("counted", [True, False], ids=["Redis 7", "Redis 6"])
def test_reader_that_trimming_overtakes_between_two_pages_gets_a_gap_at_that_place(
    redis: Redis, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url, keep_bytes=1, max_message=65536)
    info = history._info
    if not counted:
        hidden = ("entries-added", "max-deleted-entry-id", "recorded-first-entry-id")
        monkeypatch.setattr(
            history, "_info", lambda: {k: v for k, v in info().items() if k not in hidden}
        )
    history.append([Said(str(number)) for number in range(1000)])
    reading = pages(history, "0")
    first = next(reading)
    assert not first.gap
    assert first.more
    history.append([Said("x" * 60_000) for number in range(60)])
    second = next(reading)
    assert second.gap
    assert not any(page.gap for page in reading)
    assert next(pages(history, "0")).gap


def test_batches_stay_until_they_are_read_even_if_less_is_to_be_kept(
    redis: Redis,
) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url, keep_bytes=1, max_message=1_000_000)
    for letter in "ab":
        history.append([Said(letter * 900_000)])
    read = list(pages(history, "0"))
    assert not any(page.gap for page in read)
    assert [entry.message[0] for page in read for entry in page.entries] == ["a", "b"]


@pytest.mark.parametrize("since", ["0", "1"])
def test_page_ends_with_the_message_that_fills_it_and_the_next_page_follows(
    redis: Redis, since: str
) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    put(redis, "the one that a reader has", "1-0")
    history.append([Said(str(number).ljust(60_000)) for number in range(10)])
    read = list(pages(history, since))
    assert not any(page.gap for page in read)
    assert [page.more for page in read] == [True] * (len(read) - 1) + [False]
    assert max(sum(map(size_of, page.entries)) for page in read) < PAGE_CHARACTERS + 61_000
    texts = [entry.message.rstrip() for page in read for entry in page.entries]
    assert texts == ["the one that a reader has"] * (since == "0") + list(map(str, range(10)))


@pytest.mark.parametrize("count", [1, 9, 10, 11, 500, 654, 655, 656, 1500])
def test_pages_give_each_of_many_small_messages_once_and_no_empty_page_at_the_end(
    redis: Redis, count: int
) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    ids = [each.message_id for each in history.append([Said()] * (count + 1))]
    for since, expected in (("0", ids), (ids[0], ids[1:])):
        read = list(pages(history, since))
        assert [entry.message_id for page in read for entry in page.entries] == expected
        assert all(page.entries for page in read)
        assert len(read) <= 1 + count // 500
    for behind in (1, 9, 10, 11, 500):
        rest = ids[-behind:] if behind <= count else ids
        position = history.before_newest("0", behind)
        assert [
            entry.message_id for page in pages(history, position) for entry in page.entries
        ] == rest


def test_key_is_known_for_an_hour_at_least_and_two_at_most(redis: Redis) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    (first,) = history.append([Said("x", "k")])
    assert 7100 < seconds_left(redis, "chat:keys") <= 7200
    redis.ask("EXPIRE", "chat:keys", "3600")  # as after an hour
    history.append([Said("y", "l")])
    assert 3500 < seconds_left(redis, "chat:keys:older") <= 3600
    assert 7100 < seconds_left(redis, "chat:keys") <= 7200
    assert history.append([Said("x", "k")]) == [(first.message_id, True)]
    # The answer to a batch may be asked for again when Redis was away for longer.
    assert seconds_left(redis, history._answered) > 80_000


def test_only_so_many_keys_are_known(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    import chat.redis_history as redis_history

    monkeypatch.setattr(redis_history, "MOST_KEYS", 10)
    history = redis_history.RedisHistory(redis.url)
    given = [history.append([Said("x", f"key {number}")])[0] for number in range(35)]
    assert redis.ask("HLEN", "chat:keys") == ":5"
    assert redis.ask("HLEN", "chat:keys:older") == ":10"
    for number in (20, 29, 30, 34):
        assert history.append([Said("x", f"key {number}")]) == [(given[number].message_id, True)]
    assert not history.append([Said("x", "key 19")])[0].is_known
    assert redis.ask("XLEN", "chat") == ":36"


def seconds_left(redis: Redis, name: str) -> int:
    """Until a key expires."""
    return int(redis.ask("TTL", name).removeprefix(":"))


def test_batch_whose_answer_got_lost_is_appended_once_and_its_keys_are_new(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    ask = history._run_append
    lost = [ConnectionError]

    def lose_first(*arguments: Any) -> str:
        answer = ask(*arguments)
        if lost:
            import redis as package

            lost.clear()
            raise package.ConnectionError("the answer got lost")
        return answer

    monkeypatch.setattr(history, "_run_append", lose_first)
    appended = history.append([Said("keyless"), Said("keyed", "k")])
    assert [each.is_known for each in appended] == [False, False]
    assert redis.ask("XLEN", "chat") == ":2"
    again = history.append([Said("keyed", "k")])
    assert [tuple(each) for each in again] == [(appended[1].message_id, True)]


def test_follower_goes_on_whatever_it_meets(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import chat.redis_history as redis_history

    class Enough(BaseException):
        """Ends the follower, which nothing else does."""

    monkeypatch.setattr(redis_history, "_SLOW_RETRY", 0.01)
    history = redis_history.RedisHistory(redis.url)
    await_news = history._await_news
    troubles = iter(
        [ValueError("unforeseen"), HistoryError("WRONGTYPE"), UnicodeError("unforeseen")]
    )
    looks = itertools.count()

    def fail_first(heard: str) -> str:
        for trouble in troubles:
            raise trouble
        return await_news(heard)

    def look() -> None:
        if next(looks):
            raise Enough
        put(redis, "second")
        history.since("0")

    monkeypatch.setattr(history, "_await_news", fail_first)
    put(redis, "first")
    with pytest.raises(Enough):
        history.follow(look)
    assert len(caplog.records) == 3
    text = "messages of other servers cannot be read, trying again in 0.01 s"
    assert all(text in each.message for each in caplog.records)


def test_follower_does_not_wake_again_before_somebody_has_read(redis: Redis) -> None:
    from chat.redis_history import RedisHistory

    history = RedisHistory(redis.url)
    happened: list[str] = []
    woken = threading.Event()

    class Enough(BaseException):
        """Ends the follower, which nothing else does."""

    def wake() -> None:
        happened.append("woken")
        woken.set()
        if len(happened) > 1:
            raise Enough

    def follow() -> None:
        with contextlib.suppress(Enough):
            history.follow(wake)

    follower = threading.Thread(target=follow)
    follower.start()
    for number in range(20):
        put(redis, str(number))
        assert woken.wait(PATIENCE)
    happened.append("reads")
    assert texts(history.since("0").entries) == list(map(str, range(20)))
    put(redis, "one more")
    follower.join(PATIENCE)
    assert happened == ["woken", "reads", "woken"]

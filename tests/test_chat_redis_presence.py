"""Who is here on all servers that share a Redis, also when a server or Redis is killed."""

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from chat.presence import NAMES_TOLD, NOBODY, Here, Presence
from chatting import hear, hear_online, leave_reading, resume, say, tell_name
from pages import Visit, expect
from peers import PATIENCE, Peer, eventually
from programs import Program, chat, lines_with, with_constants
from redis_server import Redis, connected

if TYPE_CHECKING:
    from chat.redis_presence import RedisPresence

pytestmark = pytest.mark.redis

LONG = bool(os.environ.get("RUN_LONG"))
ALONE = "only this server's clients are counted"
TOGETHER = "the clients of all servers are counted again"


def hear_count(peer: Peer, count: int) -> Any:
    """The names in the first event that counts so many."""
    return hear_online(peer, lambda event: event["count"] == count)["usernames"]


def hear_names(peer: Peer, *names: str) -> Any:
    """The count in the first event with exactly these names."""
    return hear_online(peer, lambda event: event["usernames"] == list(names))["count"]


# Who is here is exchanged and told in a tenth of the time.
SOON = {"chat.redis_presence.INTERVAL": 0.1, "chat.presence.PRESENCE_INTERVAL": 0.1}


def prompt(redis: Redis) -> contextlib.AbstractContextManager[Program]:
    """A chat that soon tells who is here."""
    return chat("--redis", redis.url, python=with_constants(SOON))


@contextlib.contextmanager
def short_lived(redis: Redis, lifetime: float = 2, told_every: float = 0.1) -> Iterator[Program]:
    """A chat that soon tells who is here, and whose people vanish soon after it has been killed."""
    constants = SOON | {
        "chat.redis_presence.LIFETIME": lifetime,
        "chat.presence.PRESENCE_INTERVAL": told_every,
    }
    program = Program("chat_server.py", "--redis", redis.url, python=with_constants(constants))
    try:
        yield program
    finally:
        program.discard()


class Both(NamedTuple):
    """Two servers on one Redis, and a client of each."""

    one: Program
    other: Program
    ada: Peer
    bob: Peer


@contextlib.contextmanager
def both(serve: Callable[[], contextlib.AbstractContextManager[Program]]) -> Iterator[Both]:
    """Two servers made by `serve`. No client has told its name."""
    with serve() as one, serve() as other, resume(one) as ada, resume(other) as bob:
        yield Both(one, other, ada, bob)


def test_clients_of_two_servers_are_counted_and_named_together(redis: Redis) -> None:
    with both(lambda: prompt(redis)) as (_one, other, ada, bob):
        tell_name(ada, "Ada")
        tell_name(bob, "Bob")
        for peer in (ada, bob):
            assert hear_names(peer, "Ada", "Bob") == 2
        with other.join():
            assert hear_count(ada, 3) == ["Ada", "Bob"]
        assert hear_count(ada, 2) == ["Ada", "Bob"]
        tell_name(bob, "Robert")
        assert hear_names(ada, "Ada", "Robert") == 2
        leave_reading(bob)
        assert hear_names(ada, "Ada") == 1


def test_server_that_ends_takes_its_people_away_at_once(redis: Redis) -> None:
    with prompt(redis) as one, resume(one) as ada:
        with prompt(redis) as other, resume(other) as bob:
            tell_name(bob, "Bob")
            assert hear_names(ada, "Bob") == 2
            other.signal()
            assert other.wait() == 0
            assert redis.ask("ZCARD", "chat:servers") == ":1"
        assert hear_names(ada) == 1


def test_people_of_a_killed_server_vanish(redis: Redis) -> None:
    with both(lambda: short_lived(redis)) as (_one, other, ada, bob):
        tell_name(ada, "Ada")
        tell_name(bob, "Bob")
        assert hear_names(ada, "Ada", "Bob") == 2
        other.process.kill()
        assert hear_names(ada, "Ada") == 1


@pytest.mark.skipif(not LONG, reason="takes 20 seconds; RUN_LONG is not set")
def test_people_of_a_killed_server_vanish_within_30_seconds(redis: Redis) -> None:
    with chat("--redis", redis.url) as one, resume(one) as ada:
        other = Program("chat_server.py", "--redis", redis.url)
        with resume(other) as bob:
            tell_name(bob, "Bob")
            assert hear_names(ada, "Bob") == 2
            begin = time.monotonic()
            other.discard()
            ada.sock.settimeout(3 * PATIENCE)
            while b'"usernames":[]' not in ada.read_frame().payload:
                pass  # events of who is here, and the server's pings
        seconds = time.monotonic() - begin
        print(f"the people of the killed server vanished after {seconds:.1f} s")
        assert seconds < 30  # what the documentation promises


def test_while_redis_is_away_each_server_counts_its_own_people_and_says_so_once(
    redis: Redis,
) -> None:
    with both(lambda: short_lived(redis, lifetime=1)) as (one, other, ada, bob):
        tell_name(bob, "Bob")
        assert hear_names(ada, "Bob") == 2
        redis.stop()
        assert hear_names(ada) == 1
        with one.join():  # also told while Redis is away
            assert hear_count(ada, 2) == []
        assert hear_count(ada, 1) == []
        redis.start()
        assert hear_names(ada, "Bob") == 2
        for server in (one, other):
            eventually(functools.partial(lines_with, server, TOGETHER))
            assert len(lines_with(server, ALONE)) == len(lines_with(server, TOGETHER)) == 1


def test_other_servers_stay_counted_while_redis_is_away_for_a_moment(redis: Redis) -> None:
    with both(lambda: prompt(redis)) as (one, _other, ada, bob):
        tell_name(bob, "Bob")
        assert hear_names(ada, "Bob") == 2
        redis.stop()
        tell_name(ada, "Ada")
        assert hear_names(ada, "Ada", "Bob") == 2
        redis.start()
        assert hear_names(bob, "Ada", "Bob") == 2
        assert not lines_with(one, ALONE)


def test_wrong_type_under_the_keys_of_presence_costs_only_the_others(
    redis: Redis,
) -> None:
    with short_lived(redis, lifetime=1) as server, resume(server) as ada:
        redis.ask("SET", "chat:servers", "something else")
        eventually(lambda: lines_with(server, ALONE))
        assert "WRONGTYPE" in lines_with(server, ALONE)[0]
        tell_name(ada, "Ada")
        assert hear_names(ada, "Ada") == 1
        redis.ask("DEL", "chat:servers")
        eventually(lambda: lines_with(server, TOGETHER))


def test_people_of_all_servers_are_counted_while_redis_has_no_memory_left(
    redis: Redis,
) -> None:
    with both(lambda: short_lived(redis, lifetime=1, told_every=1)) as (one, other, ada, bob):
        tell_name(bob, "Bob")
        assert hear_names(ada, "Bob") == 2
        redis.ask("CONFIG", "SET", "maxmemory", "1kb")
        for number in range(3):  # a second passes between two events of who is here
            tell_name(bob, f"Bob {number}")
            assert hear_names(ada, f"Bob {number}") == 2
        assert not lines_with(one, ALONE)
        other.process.kill()
        assert hear_names(ada) == 1


@pytest.mark.browser
def test_page_shows_the_people_of_all_servers_and_only_the_right_ones_after_a_kill(
    visit: Visit, redis: Redis
) -> None:
    with short_lived(redis) as one, short_lived(redis) as other:
        ada = visit(one)
        ada.join()
        online = ada.page.locator("#online")
        with resume(other) as bob:
            tell_name(bob, "Bob")
            expect(online.locator("li")).to_have_text(["Ada", "Bob"])
            expect(online.locator("h2")).to_have_text("Online: 2")
            other.process.kill()
            expect(online.locator("li")).to_have_text(["Ada"])
            expect(online.locator("h2")).to_have_text("Online: 1")


# In this process


def sharing(redis: Redis, people: Here, told: list[Here]) -> "RedisPresence":
    from chat.redis_presence import RedisPresence

    return RedisPresence(redis.url, lambda: people, told.append)


def test_others_are_noted_only_when_something_has_changed(redis: Redis) -> None:
    told: list[Here] = []
    one = sharing(redis, Here(2, ("Ada",)), told)
    other = sharing(redis, Here(3, ("Bob",)), [])
    for _ in range(3):
        one._exchange()
    assert told == [NOBODY]
    other._exchange()
    for _ in range(3):
        one._exchange()
    assert told == [NOBODY, Here(3, ("Bob",))]


def test_names_of_many_servers_are_bounded_as_those_of_one(redis: Redis) -> None:
    told: list[Here] = []
    one = sharing(redis, NOBODY, told)
    for number in range(6):
        names = [f"guest {10 * number + count:02}" for count in range(10)]
        sharing(redis, Here(10, tuple(names)), [])._exchange()
    one._exchange()
    assert told == [Here(60, tuple(f"guest {number:02}" for number in range(NAMES_TOLD)))]


@pytest.mark.parametrize(
    "people",
    [
        "no JSON",
        "[]",
        "7",
        '{"count": 1}',
        '{"count": null, "usernames": []}',
        '{"count": 1e999, "usernames": []}',
        '{"count": NaN, "usernames": []}',
        '{"count": 1, "usernames": 7}',
        "[" * 100_000,
    ],
)
def test_what_another_program_has_written_counts_as_nobody(redis: Redis, people: str) -> None:
    told: list[Here] = []
    with contextlib.closing(connected(redis)) as client:
        client.zadd("chat:servers", {"stranger": 1e12})
        client.hset("chat:here", "stranger", people)
    sharing(redis, NOBODY, told)._exchange()
    assert told == [NOBODY]


def test_names_and_counts_of_another_program_are_bounded(redis: Redis) -> None:
    told: list[Here] = []
    with contextlib.closing(connected(redis)) as client:
        client.zadd("chat:servers", {"a": 1e12, "b": 1e12})
        client.hset("chat:here", "a", json.dumps({"count": -5, "usernames": ["n" * 1000]}))
        client.hset("chat:here", "b", json.dumps({"count": 10**30, "usernames": []}))
    sharing(redis, NOBODY, told)._exchange()
    assert told == [Here(1 << 32, ("n" * 64,))]


def test_name_of_another_program_that_cannot_be_sent_keeps_no_other_name_back(
    redis: Redis,
) -> None:
    """Half a surrogate pair can be escaped in JSON, but UTF-8 has no bytes for it."""
    with contextlib.closing(connected(redis)) as client:
        client.zadd("chat:servers", {"stranger": 1e12})
        client.hset("chat:here", "stranger", '{"count": 1, "usernames": ["\\ud800", "Eve"]}')
    with chat("--redis", redis.url) as server, resume(server) as ada:
        tell_name(ada, "Ada")
        assert hear_names(ada, "?", "Ada", "Eve") == 2


def test_presence_is_told_at_once_of_what_redis_does_not_answer(redis: Redis) -> None:
    """Redis stands still: the thread that asks it waits, and nobody else."""
    presence = Presence(set(), threading.Lock())
    asked = threading.Event()

    def here() -> Here:
        asked.set()
        return presence.here()

    from chat.redis_presence import CLOSE_TIME, RedisPresence

    redis.ask("CLIENT", "PAUSE", str(2 * PATIENCE * 1000))
    waiting = RedisPresence(redis.url, here, presence.note_elsewhere)
    waiting.thread.start()
    presence.share(waiting.close)
    assert asked.wait(PATIENCE)
    assert json.loads(presence._online())["count"] == 0
    begin = time.monotonic()
    presence.close()
    assert time.monotonic() - begin < CLOSE_TIME + 2
    redis.kill()  # and with it the thread's wait


def test_chat_goes_on_with_presence_when_redis_lost_everything(redis: Redis) -> None:
    with both(lambda: prompt(redis)) as (_one, _other, ada, bob):
        tell_name(ada, "Ada")
        tell_name(bob, "Bob")
        assert hear_names(ada, "Ada", "Bob") == 2
        redis.ask("FLUSHALL")
        tell_name(bob, "Robert")
        assert hear_names(ada, "Ada", "Robert") == 2
        say(ada, "after")
        while hear(bob).get("message") != "after":
            pass

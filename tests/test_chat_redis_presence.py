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

from chat.presence import NAMES_TOLD, NOBODY, Here, Person, Presence
from chatting import hear, hear_online, leave_reading, names_in, resume, say, tell_name
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


def hear_count(peer: Peer, count: int) -> list[str]:
    """The names in the first event that counts so many."""
    return names_in(hear_online(peer, lambda event: event["count"] == count))


def hear_names(peer: Peer, *names: str) -> Any:
    """The count in the first event with exactly these names."""
    return hear_online(peer, lambda event: names_in(event) == list(names))["count"]


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
            while b'"people":[]' not in ada.read_frame().payload:
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
        names = online.locator("li .name")
        with resume(other) as bob:
            tell_name(bob, "Bob")
            expect(names).to_have_text(["Ada", "Bob"])
            expect(online.locator("h2")).to_have_text("Online: 2")
            other.process.kill()
            expect(names).to_have_text(["Ada"])
            expect(online.locator("h2")).to_have_text("Online: 1")


# In this process

ADA = Person("Ada", "a" * 64)
BOB = Person("Bob", "b" * 64)
NAMESAKE = Person("Bob", "")


def sharing(redis: Redis, people: Here, told: list[Here]) -> "RedisPresence":
    from chat.redis_presence import RedisPresence

    return RedisPresence(redis.url, lambda: people, told.append)


def guests_from(first: int, count: int) -> tuple[Person, ...]:
    return tuple(Person(f"guest {first + number:02}", "a" * 64) for number in range(count))


def write_strangers(redis: Redis, *texts: str) -> None:
    """Write what servers of another version, or other programs, tell of their people."""
    with contextlib.closing(connected(redis)) as client:
        for number, text in enumerate(texts):
            client.zadd("chat:servers", {f"stranger {number}": 1e12})
            client.hset("chat:here", f"stranger {number}", text)


def test_others_are_noted_only_when_something_has_changed(redis: Redis) -> None:
    told: list[Here] = []
    one = sharing(redis, Here(2, (ADA,)), told)
    other = sharing(redis, Here(3, (BOB,)), [])
    for _ in range(3):
        one._exchange()
    assert told == [NOBODY]
    other._exchange()
    for _ in range(3):
        one._exchange()
    assert told == [NOBODY, Here(3, (BOB,))]


def test_names_of_many_servers_are_bounded_as_those_of_one(redis: Redis) -> None:
    told: list[Here] = []
    one = sharing(redis, NOBODY, told)
    for number in range(6):
        here = Here(10, guests_from(10 * number, 10))
        sharing(redis, here, [])._exchange()
    one._exchange()
    assert told == [Here(60, guests_from(0, NAMES_TOLD))]


def test_people_of_a_new_server_are_written_so_that_an_older_one_can_read_them(
    redis: Redis,
) -> None:
    told: list[Here] = []
    one = sharing(redis, Here(4, (ADA, NAMESAKE, BOB)), [])
    one._exchange()
    with contextlib.closing(connected(redis)) as client:
        written = client.hget("chat:here", one._id)
    assert written == (
        f'{{"count":4,"usernames":["Ada","Bob","Bob"],"avatars":["{"a" * 64}","","{"b" * 64}"]}}'
    )
    sharing(redis, NOBODY, told)._exchange()
    assert told == [Here(4, (ADA, NAMESAKE, BOB))]


def test_people_of_an_older_server_are_named_without_avatars(redis: Redis) -> None:
    told: list[Here] = []
    write_strangers(redis, '{"count":3,"usernames":["Ada","Bob"]}')
    sharing(redis, NOBODY, told)._exchange()
    assert told == [Here(3, (Person("Ada", ""), Person("Bob", "")))]


def test_same_person_on_two_servers_is_named_once(redis: Redis) -> None:
    told: list[Here] = []
    sharing(redis, Here(1, (BOB,)), [])._exchange()
    sharing(redis, Here(2, (ADA, BOB)), [])._exchange()
    sharing(redis, NOBODY, told)._exchange()
    assert told == [Here(3, (ADA, BOB))]


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
        '{"count": 1, "usernames": {"Ada": 1}}',
        '{"count": 1, "usernames": ["Ada"], "avatars": 7}',
        '{"count": 1, "usernames": ["Ada"], "avatars": null}',
        '{"count": 1, "usernames": ["Ada"], "avatars": {"Ada": 1}}',
        "[" * 100_000,
    ],
)
def test_what_another_program_has_written_counts_as_nobody(redis: Redis, people: str) -> None:
    told: list[Here] = []
    write_strangers(redis, people)
    sharing(redis, NOBODY, told)._exchange()
    assert told == [NOBODY]


def test_names_and_counts_of_another_program_are_bounded(redis: Redis) -> None:
    told: list[Here] = []
    write_strangers(
        redis,
        json.dumps({"count": -5, "usernames": ["n" * 1000]}),
        json.dumps({"count": 10**30, "usernames": []}),
    )
    sharing(redis, NOBODY, told)._exchange()
    assert told == [Here(1 << 32, (Person("n" * 64, ""),))]


@pytest.mark.parametrize(
    "avatars",
    [
        [],
        [None],
        [7],
        [["a" * 64]],
        ["ada@example.org"],
        ["A" * 64],
        ["a" * 63],
        ["a" * 65],
        ["a" * 64 + "\n"],
        "a" * 64,
        ["", "a" * 64],
    ],
)
def test_what_another_program_has_written_in_place_of_an_avatar_is_not_told(
    redis: Redis, avatars: object
) -> None:
    told: list[Here] = []
    people = {"count": 1, "usernames": ["Ada"], "avatars": avatars}
    write_strangers(redis, json.dumps(people))
    sharing(redis, NOBODY, told)._exchange()
    assert told == [Here(1, (Person("Ada", ""),))]


def test_half_a_surrogate_pair_in_a_name_of_another_program_is_replaced(redis: Redis) -> None:
    """As it is, it could not be sent, and nobody would be told any more who is here."""
    told: list[Here] = []
    write_strangers(redis, r'{"count": 1, "usernames": ["\ud83d"]}')
    sharing(redis, NOBODY, told)._exchange()
    assert told == [Here(1, (Person("\ufffd", ""),))]


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

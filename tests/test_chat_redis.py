"""One chat on several servers that share a Redis, which may be missing, end, come back, or refuse.

Servers and Redis are processes; the clients are bare sockets.
"""

import contextlib
import itertools
import json
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kills
from chatting import (
    assert_here,
    hear,
    hear_said,
    hear_until,
    ids,
    restless_environment,
    resume,
    say,
    tell_texts,
)
from histories import assert_rising
from peers import Peer, RawServer, eventually, free_port, masked
from programs import Program, answer_close, chat, lines_with, name_of, run, with_constants
from redis_server import AWAY, BACK, Redis, connected

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """For the two servers below."""
    process = Redis(tmp_path_factory.mktemp("redis"))
    yield process
    process.kill()


@pytest.fixture(scope="module")
def pair(shared: Redis) -> Iterator[tuple[Program, Program]]:
    """Two servers on one Redis, for tests that do not mind what others have said."""
    with chat("--redis", shared.url) as one, chat("--redis", shared.url) as other:
        yield one, other


def await_lines(server: Program, text: str, count: int = 1) -> None:
    eventually(lambda: len(lines_with(server, text)) >= count)


# One chat on two servers


def test_clients_of_two_servers_hear_each_other_in_the_same_bytes(
    pair: tuple[Program, Program],
) -> None:
    with pair[0].join() as ada, pair[1].join() as bob:
        for speaker, text in ((ada, "hello"), (bob, "你好"), (ada, 'a\0b 🎉 \u2028 \\ "')):
            say(speaker, text, key=f"key of {text}")
            frame = ada.read_frame()
            assert frame == bob.read_frame()
            heard = json.loads(frame.payload)
            assert list(heard) == ["email", "username", "message", "id", "avatar", "key"]
            assert (heard["message"], heard["key"]) == (text, f"key of {text}")


def test_all_talk_on_both_servers_is_in_one_order_with_rising_ids(
    pair: tuple[Program, Program],
) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.join()) for server in pair for _ in range(3)]
        for count in range(50):
            for number, peer in enumerate(peers):
                say(peer, f"{number} {count}")
        heard = [[hear(peer) for _ in range(50 * len(peers))] for peer in peers]
        assert all(each == heard[0] for each in heard)
        assert_rising(ids(heard[0]))
        for number in range(len(peers)):
            texts = [each["message"] for each in heard[0] if each["message"][0] == str(number)]
            assert texts == [f"{number} {count}" for count in range(50)]


def test_client_resumes_at_the_other_server_where_it_was(pair: tuple[Program, Program]) -> None:
    one, other = pair
    told: list[dict[str, Any]] = []
    with one.join() as ada, other.join() as bob:
        for text, speaker in zip("abcd", (ada, ada, bob, ada), strict=True):
            say(speaker, text)
            told.append(hear(ada))
            assert hear(bob) == told[-1]
    for place in range(3):
        with resume(one, told[place]["id"]) as ada, resume(other, told[place]["id"]) as bob:
            for peer in (ada, bob):
                assert [hear_said(peer) for _ in range(3 - place)] == told[place + 1 :]
                assert_here(peer)


def test_key_that_one_server_has_saved_is_known_to_the_other(pair: tuple[Program, Program]) -> None:
    with pair[0].join() as ada, pair[1].join() as bob:
        say(ada, "once", key="across servers")
        copy = hear(ada)
        assert hear(bob) == copy
        for _ in range(2):
            say(bob, "once", key="across servers")
            assert hear(bob) == copy
        say(bob, "next")
        assert hear(ada)["message"] == hear(bob)["message"] == "next"


def test_key_that_comes_at_once_at_both_servers_is_shown_once(
    pair: tuple[Program, Program],
) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.join()) for server in pair for _ in range(2)]
        message = json.dumps({"message": "the one", "key": "at once"}).encode()
        for peer in peers:
            peer.send(masked(0x81, message) * 20)
        for peer in peers:
            say(peer, "next")
        copies: list[dict[str, Any]] = []
        nexts = Counter[Peer]()
        for peer in itertools.cycle(peers):
            if len(copies) == 4 * 20 - 1 + 4 and nexts.total() == 4 * 4:
                break  # each client that has said it again gets one more than all get
            while nexts[peer] < 4 or not peer.is_silent(0.01):
                heard = hear(peer)
                if heard["message"] == "next":
                    nexts[peer] += 1
                else:
                    copies.append(heard)
        assert all(copy == copies[0] for copy in copies)
        assert copies[0]["message"] == "the one"


def test_clients_that_come_and_go_between_servers_hear_everything_once_and_in_order(
    redis: Redis, tmp_path: Path
) -> None:
    """Fewer than 500 messages in all, so that nobody may be told of a gap."""
    each = 60

    def talk(server: Program, name: str) -> None:
        with server.join() as peer:
            for count in range(each):
                say(peer, f"{name} {count}")
                while hear(peer)["message"] != f"{name} {count}":
                    pass

    def come_and_go(number: int) -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        for server in itertools.cycle((one, other)):
            with resume(server, heard[-1]["id"] if heard else "0") as peer:
                for _ in range(7 + 3 * number):  # each at its own rhythm, then gone without a word
                    heard.append(hear_said(peer))
                    if heard[-1]["message"] == "end":
                        return heard
        raise AssertionError("unreachable")

    restless = restless_environment(tmp_path)
    with (
        chat("--redis", redis.url, env=restless) as one,
        chat("--redis", redis.url, env=restless) as other,
        resume(one) as witness,
        ThreadPoolExecutor(10) as pool,
    ):
        talking = [
            pool.submit(talk, server, f"{server.server_port} {number}")
            for server in (one, other)
            for number in range(2)
        ]
        coming = [pool.submit(come_and_go, number) for number in range(6)]
        everything = [hear_said(witness) for _ in range(4 * each)]
        say(witness, "end")
        everything += hear_until(witness, "end")
        assert_rising(ids(everything))
        for client in coming:
            assert client.result() == everything
        for talker in talking:
            talker.result()


# The stream


def test_stream_is_there_when_all_servers_have_ended(redis: Redis) -> None:
    with chat("--redis", redis.url) as server:
        told = tell_texts(server, "one", "two")
    redis.stop()
    redis.start()
    with chat("--redis", redis.url) as server, resume(server) as bob:
        assert [hear_said(bob) for _ in range(2)] == told
        told += tell_texts(server, "three")
        assert hear_said(bob) == told[-1]
    assert_rising(ids(told))


def test_no_key_but_the_stream_and_its_state_stays_for_ever(redis: Redis) -> None:
    with chat("--redis", redis.url) as one, chat("--redis", redis.url), resume(one) as ada:
        for number in range(3):
            say(ada, str(number), key=f"key {number}")
        hear_until(ada, "2")
        with contextlib.closing(connected(redis)) as client:
            eventually(lambda: client.zcard("chat:servers") == 2)
            keys = set(client.keys())
            assert {name for name in keys if client.ttl(name) == -1} == {"chat", "chat:state"}
            assert {"chat:servers", "chat:here", "chat:keys"} <= keys
            for name in ("chat:servers", "chat:here"):
                assert 0 < client.ttl(name) <= 20


def test_client_that_missed_more_than_500_gets_the_newest_and_is_told_first(redis: Redis) -> None:
    for number in range(520):
        redis.ask("XADD", "chat", "*", "email", "", "username", "", "message", str(number))
    with chat("--redis", redis.url) as server, resume(server) as bob:
        assert hear_said(bob) == {"event": "gap"}
        assert [hear_said(bob)["message"] for _ in range(500)] == list(map(str, range(20, 520)))


def test_burst_of_more_than_is_kept_is_heard_whole(redis: Redis) -> None:
    with chat("--redis", redis.url, "--keep", "10") as server:
        tell_texts(server, *map(str, range(600)))


def test_stream_is_trimmed_where_it_is_long_and_who_missed_more_than_500_is_told(
    redis: Redis,
) -> None:
    script = "for i = 1, 10300 do redis.call('XADD', 'chat', '*', 'message', i) end"
    with chat("--redis", redis.url, "--keep", "10") as server, resume(server) as early:
        first = tell_texts(server, "first")[0]
        assert hear_said(early) == first
        redis.ask("EVAL", script, "0")
        texts = [message["message"] for message in hear_until(early, "10300")]
        assert texts == list(map(str, range(1, 10_301)))
        with server.join() as ada:
            say(ada, "last")
            hear_until(ada, "last")
        assert 10_000 <= int(redis.ask("XLEN", "chat").removeprefix(":")) < 10_300
        assert hear_said(early)["message"] == "last"
        with resume(server, first["id"]) as late:
            assert hear_said(late) == {"event": "gap"}
            texts = [message["message"] for message in hear_until(late, "last")]
            assert texts == [*map(str, range(9802, 10_301)), "last"]


def test_entries_that_other_programs_put_on_the_stream_are_shown(redis: Redis) -> None:
    with chat("--redis", redis.url) as server, server.join() as ada:
        redis.ask("XADD", "chat", "*", "message", "from a bot")
        heard = hear(ada)
        assert (heard["email"], heard["username"], heard["message"]) == ("", "", "from a bot")
        redis.ask("XADD", "chat", "*", "colour", "blue")
        assert hear(ada)["message"] == ""
        redis.ask("EVAL", "return redis.call('XADD', 'chat', '*', 'message', '\\255x')", "0")
        assert hear(ada)["message"] == "\ufffdx"
        say(ada, "still here")
        assert hear(ada)["message"] == "still here"
        with resume(server) as bob:
            texts = [message["message"] for message in hear_until(bob, "still here")]
            assert texts == ["from a bot", "", "\ufffdx", "still here"]


@pytest.mark.parametrize("since", ["9" * 19, f"1-{'9' * 19}", "0-1", "0", "00-00"])
def test_unusual_but_valid_id_costs_nobody_the_connection(
    pair: tuple[Program, Program], since: str
) -> None:
    with resume(pair[0], since) as ada, pair[1].join() as bob:
        say(ada, f"after {since}")
        assert hear_until(ada, f"after {since}")[-1] == hear_until(bob, f"after {since}")[-1]


# Redis that can't be used from the start


def assert_refused(url: str, *words: str, python: tuple[str, ...] = ()) -> None:
    ended = run("chat_server.py", "--port", "0", "--redis", url, python=python)
    assert ended.returncode == 1
    assert ended.stdout == b""
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == 1
    for word in ("cannot open the history", *words):
        assert word in lines[0]


def test_redis_that_is_down_ends_it_with_one_clear_line() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    assert_refused(url, url, "refused")


def test_server_that_is_not_redis_ends_it_with_one_clear_line() -> None:
    def answer_as_http(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with RawServer(answer_as_http) as other:
        url = f"redis://127.0.0.1:{other.port}/0"
        assert_refused(url, url)


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:6379", "redis://127.0.0.1:port/0"])
def test_url_that_redis_does_not_know_ends_it_with_one_clear_line(url: str) -> None:
    assert_refused(url, url)


def test_redis_that_wants_a_password_ends_it_with_one_clear_line(redis: Redis) -> None:
    redis.ask("CONFIG", "SET", "requirepass", "secret")
    assert_refused(redis.url, redis.url, "uthenticat")


def test_key_that_is_not_a_stream_ends_it_with_one_clear_line(redis: Redis) -> None:
    redis.ask("SET", "chat", "something else")
    assert_refused(redis.url, redis.url, "WRONGTYPE")
    assert redis.ask("EXISTS", "chat") == ":1"


def test_missing_package_is_named_with_how_to_install_it() -> None:
    assert_refused("redis://127.0.0.1/0", "pip install redis", python=("-S",))


def test_chat_needs_no_package_without_redis() -> None:
    with chat(python=("-S",)) as server:
        tell_texts(server, "nothing installed")


# Redis that goes and comes back


def test_while_redis_is_away_senders_wait_and_nobody_is_refused(redis: Redis) -> None:
    with (
        chat("--redis", redis.url) as one,
        chat("--redis", redis.url) as other,
        one.join() as ada,
        resume(other) as bob,
        other.join() as eve,
    ):
        say(ada, "before")
        assert hear(ada) == hear_said(bob) == hear(eve)
        redis.stop()
        await_lines(one, AWAY)
        await_lines(other, AWAY)
        say(ada, "meanwhile", key="k")
        say(bob, "here, too")
        for peer in (ada, bob, eve):
            assert_here(peer)
        redis.start()
        heard = [[hear_said(peer) for _ in range(2)] for peer in (ada, bob, eve)]
        assert heard[0] == heard[1] == heard[2]
        assert {message["message"] for message in heard[0]} == {"meanwhile", "here, too"}
        say(eve, "after")
        assert hear(ada)["message"] == hear_said(bob)["message"] == hear(eve)["message"] == "after"
        for server in (one, other):
            await_lines(server, BACK)
            assert len(lines_with(server, AWAY)) == len(lines_with(server, BACK)) == 1
            assert "senders wait" in lines_with(server, AWAY)[0]


def test_client_that_joins_while_redis_is_away_gets_what_it_missed_when_redis_is_back(
    redis: Redis,
) -> None:
    with chat("--redis", redis.url) as server:
        told = tell_texts(server, "one", "two")
        redis.stop()
        await_lines(server, AWAY)
        with resume(server, told[0]["id"]) as bob, server.join() as ada:
            say(ada, "three")
            assert_here(bob)
            redis.start()
            assert hear_said(bob) == told[1]
            assert hear_said(bob)["message"] == hear(ada)["message"] == "three"


def test_redis_that_goes_away_again_and_again_is_logged_each_time_and_nothing_is_lost(
    redis: Redis,
) -> None:
    each_time = with_constants({"log_repeats.REPEAT_TIME": 0.2})
    with chat("--redis", redis.url, python=each_time) as server, server.join() as ada:
        for number in range(3):
            redis.kill()
            await_lines(server, AWAY, number + 1)
            say(ada, str(number))
            redis.start()
            assert hear(ada)["message"] == str(number)
            await_lines(server, BACK, number + 1)
        with resume(server) as bob:
            assert [hear_said(bob)["message"] for _ in range(3)] == ["0", "1", "2"]


def test_redis_that_stands_still_gets_each_message_once(redis: Redis) -> None:
    """Its answer comes too late, so it is asked again, for what it has done meanwhile."""
    with chat("--redis", redis.url) as server, server.join() as ada:
        tell_texts(server, "before")
        assert hear(ada)["message"] == "before"
        redis.process.send_signal(signal.SIGSTOP)
        say(ada, "during")
        await_lines(server, AWAY)
        redis.process.send_signal(signal.SIGCONT)
        assert hear(ada)["message"] == "during"
        say(ada, "after")
        assert hear(ada)["message"] == "after"
        assert redis.ask("XLEN", "chat") == ":3"


def test_redis_that_lost_everything_starts_a_new_chat(redis: Redis) -> None:
    with chat("--redis", redis.url) as server, server.join() as ada, resume(server) as bob:
        last = tell_texts(server, "before")[0]["id"]
        assert hear(ada)["message"] == hear_said(bob)["message"] == "before"
        redis.ask("FLUSHALL")
        with resume(server, last) as eve:
            assert hear_said(bob) == hear_said(eve) == {"event": "gap"}
            say(ada, "after")
            for peer in (ada, bob, eve):
                assert hear_said(peer)["message"] == "after"


def test_server_ends_in_time_while_redis_is_away(redis: Redis) -> None:
    with chat("--redis", redis.url) as server, resume(server) as bob:
        tell_texts(server, "before")
        redis.stop()
        await_lines(server, AWAY)
        say(bob, "nobody takes it")
        with server.join("/ws?since=0"):
            server.signal()
            assert server.wait() == 0
        assert "Traceback" not in server.log


# Redis that refuses


def assert_sender_is_refused(server: Program, text: str, **fields: str) -> None:
    with server.join() as ada:
        name = name_of(ada)
        say(ada, text, **fields)
        code, reason = answer_close(ada)
    assert code == 1011
    assert "saved" in reason
    eventually(
        lambda: any(name in line for line in lines_with(server, "its message could not be saved"))
    )
    assert (
        len([line for line in lines_with(server, "its message could not be saved") if name in line])
        == 1
    )


def test_sender_is_told_with_1011_when_redis_has_no_memory_left(redis: Redis) -> None:
    with chat("--redis", redis.url) as server, server.join() as bob, resume(server) as eve:
        redis.ask("CONFIG", "SET", "maxmemory", "1mb")
        assert_sender_is_refused(server, "no room", key="k")
        assert "maxmemory" in lines_with(server, "its message could not be saved")[0]
        assert_here(bob)
        assert_here(eve)
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        with server.join() as ada:
            say(ada, "room again", key="k")
            assert hear(ada)["message"] == "room again"
        assert hear(bob)["message"] == hear_said(eve)["message"] == "room again"


def test_sender_is_told_with_1011_while_the_key_is_not_a_stream(
    redis: Redis,
) -> None:
    with chat("--redis", redis.url) as server, server.join() as bob:
        tell_texts(server, "before")
        redis.ask("SET", "chat", "something else")
        assert_sender_is_refused(server, "refused", key="k")
        redis.ask("DEL", "chat")
        assert hear(bob)["message"] == "before"
        with server.join() as ada:
            say(ada, "again", key="k")
            assert hear(ada)["message"] == hear(bob)["message"] == "again"


# kill -9 of servers and of Redis; `python3 tests/kills.py --redis` does it at length


def test_nothing_is_lost_or_doubled_while_servers_and_redis_are_killed(tmp_path: Path) -> None:
    trial = kills.Trial(kills=3, messages=900, patience=50, seed=6455)
    with kills.OnRedis(tmp_path) as scene:
        trial.run(scene)
    assert not trial.faults, trial.summary()
    assert trial.struck == {"server": 3, "Redis": 1}

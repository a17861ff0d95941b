"""Redis in unusual states: old, failed over, refusing, with odd URLs, shared with other programs.

Servers and Redis are processes; the clients are bare sockets.
"""

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chat.entry import order
from chatting import ask_older, hear, hear_said, resume, say
from peers import PATIENCE, Peer, RawServer, eventually, request
from programs import Program, answer_close, chat, lines_with, run, with_constants
from proxy import pump
from redis_server import AWAY, Redis, came_back_as_often_as_it_went, connected, put

pytestmark = pytest.mark.redis


@pytest.fixture
def other_redis(tmp_path: Path) -> Iterator[Redis]:
    process = Redis(tmp_path / "other redis")
    yield process
    process.kill()


class RedisForwarder:
    """A TCP port that forwards to `target`, which may change; open connections stay as they are.

    `answer` may answer a request of a client itself.
    """

    def __init__(self, target: Redis, answer: Callable[[list[str]], bytes | None]) -> None:
        self.target = target
        self._answer = answer
        self._server = RawServer(self._forward)
        self.url = f"redis://127.0.0.1:{self._server.port}/0"

    def _forward(self, peer: Peer) -> None:
        with socket.create_connection(("127.0.0.1", self.target.port), PATIENCE) as upstream:
            back = threading.Thread(target=self._pass_back, args=(upstream, peer.sock))
            back.start()
            with contextlib.suppress(EOFError, OSError):
                while True:
                    words, raw = read_request(peer)
                    own = self._answer(words)
                    if own is None:
                        upstream.sendall(raw)
                    else:
                        peer.send(own)
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            back.join()

    def _pass_back(self, upstream: socket.socket, client: socket.socket) -> None:
        pump(upstream, client)
        with contextlib.suppress(OSError):  # the client has ended already
            client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "RedisForwarder":
        self._server.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._server.__exit__(*exception)


def read_request(peer: Peer) -> tuple[list[str], bytes]:
    """A command as RESP has it: an array of strings; and its bytes."""
    peer.sock.settimeout(None)

    def line() -> bytes:
        data = b""
        while not data.endswith(b"\r\n"):
            data += peer.read(1)
        return data

    raw = line()
    words = []
    for _ in range(int(raw[1:])):
        size = line()
        word = peer.read(int(size[1:]) + 2)
        raw += size + word
        words.append(word[:-2].decode())
    return words, raw


def pass_all(words: list[str]) -> None:
    """Answers nothing itself."""


# Redis before 6.2


def answer_as_6_0(words: list[str]) -> bytes | None:
    """What Redis 6.0 refuses, in its words; the commands of 5.0 and 6.0 go through."""
    name = words[0].upper()
    if name in ("XRANGE", "XREVRANGE") and any(word.startswith("(") for word in words):
        return b"-ERR Invalid stream ID specified as stream command argument\r\n"
    known = "EVAL EVALSHA SCRIPT XRANGE XREVRANGE XREAD XINFO EXISTS HGET SELECT PING AUTH MEMORY"
    if name not in known.split():
        return b"-ERR unknown command\r\n"
    return None


def test_chat_on_a_redis_before_6_2_is_heard_and_resumed(redis: Redis) -> None:
    with RedisForwarder(redis, answer_as_6_0) as old, chat("--redis", old.url) as server:
        with resume(server) as ada, server.join() as bob:
            say(ada, "one", key="k")
            one = hear(bob)
            assert hear_said(ada) == one
            say(bob, "two")
            assert hear_said(ada)["message"] == hear(bob)["message"] == "two"
            say(bob, "once more", key="k")
            assert hear(bob) == one
        with resume(server, one["id"]) as eve:
            assert hear_said(eve)["message"] == "two"
        assert not any(AWAY in line for line in server.log.splitlines())


def test_redis_from_before_streams_ends_it_with_one_clear_line(redis: Redis) -> None:
    def answer_as_4(words: list[str]) -> bytes | None:
        return b"-ERR unknown command `X`\r\n" if words[0][0] in "Xx" else None

    with RedisForwarder(redis, answer_as_4) as old:
        assert "unknown command" in refusal(old.url)


def refusal(url: str) -> str:
    """The one line with which the chat ends at its start."""
    ended = run("chat_server.py", "--port", "0", "--redis", url)
    assert (ended.returncode, ended.stdout) == (1, b"")
    (line,) = ended.stderr.decode().splitlines()
    assert "cannot open the history" in line
    return line


# Another server behind the same address


def test_after_a_failover_the_chat_goes_on_with_the_server_in_charge(
    redis: Redis, other_redis: Redis
) -> None:
    with (
        RedisForwarder(redis, pass_all) as address,
        chat("--redis", address.url) as one,
        chat("--redis", address.url) as two,
        one.join() as ada,
        resume(two) as bob,
    ):
        other_redis.ask("REPLICAOF", "127.0.0.1", str(redis.port))
        say(ada, "before")
        assert hear(ada) == hear_said(bob)
        eventually(lambda: other_redis.ask("XLEN", "chat") == ":1")
        address.target = other_redis
        other_redis.ask("REPLICAOF", "NO", "ONE")
        redis.ask("REPLICAOF", "127.0.0.1", str(other_redis.port))
        for number, (peer, other) in enumerate([(ada, bob), (bob, ada), (ada, bob)]):
            say(peer, f"after {number}", key=f"k{number}")
            assert hear_said(other)["message"] == f"after {number}"
            assert hear_said(peer)["message"] == f"after {number}"
        assert other_redis.ask("XLEN", "chat") == ":4"
        for server in (one, two):
            eventually(functools.partial(came_back_as_often_as_it_went, server))
            assert len(lines_with(server, AWAY)) <= 1
        # One of them met the demoted server: it asked it for news, or would have written to it.
        met = re.compile("READONLY|read only replica|UNBLOCKED")
        eventually(lambda: met.search(one.log + two.log))


def test_start_on_a_server_that_is_not_in_charge_is_refused(
    redis: Redis, other_redis: Redis
) -> None:
    redis.ask("REPLICAOF", "127.0.0.1", str(other_redis.port))
    assert "read only replica" in refusal(redis.url)


# Who comes while Redis is away


@pytest.fixture
def hasty(redis: Redis) -> Iterator[Program]:
    """A chat for two, in which those who wait for the past lose their patience soon."""
    hasty = with_constants({"chat.events.OLDER_PATIENCE": 0.5, "chat.resume.RESUME_PATIENCE": 0.5})
    with chat("--redis", redis.url, "--max-clients", "2", python=hasty) as program:
        yield program


def test_client_that_joins_while_redis_is_away_for_long_is_told_and_others_stay(
    redis: Redis, hasty: Program
) -> None:
    with resume(hasty) as ada:
        say(ada, "before")
        copy = hear_said(ada)
        redis.stop()
        eventually(lambda: lines_with(hasty, AWAY))
        with resume(hasty, copy["id"]) as bob:
            assert answer_close(bob) == (1011, "the history could not be read")
        say(ada, "meanwhile")
        redis.start()
        assert hear_said(ada)["message"] == "meanwhile"
        eventually(lambda: came_back_as_often_as_it_went(hasty))
        with resume(hasty, copy["id"]) as bob:
            assert hear_said(bob)["message"] == "meanwhile"


def test_client_that_asks_for_older_messages_while_redis_is_away_is_told_and_stays(
    redis: Redis, hasty: Program
) -> None:
    with resume(hasty) as ada:
        say(ada, "before")
        copy = hear_said(ada)
        redis.stop()
        ask_older(ada, "9999999999999-0")
        assert hear_said(ada) == {"event": "older", "before": "9999999999999-0", "failed": True}
        reason = "gets no older messages: the history could not be read: Redis does not answer"
        eventually(lambda: lines_with(hasty, reason))
        redis.start()
        ask_older(ada, "9999999999999-0")
        assert hear_said(ada) == {
            "event": "older",
            "before": "9999999999999-0",
            "messages": [copy],
            "more": False,
        }
        say(ada, "after")
        assert hear_said(ada)["message"] == "after"


def test_client_that_joins_and_leaves_while_redis_is_away_takes_no_place(
    redis: Redis, hasty: Program
) -> None:
    redis.stop()
    eventually(lambda: lines_with(hasty, AWAY))
    for _ in range(2):
        resume(hasty).close()

    def place_is_free() -> bool:
        with hasty.tcp() as peer:
            peer.send(request(hasty, "/ws"))
            return peer.read_head().startswith("HTTP/1.1 101 ")

    eventually(place_is_free)
    redis.start()


# What passes by itself, and what does not


def make_busy(redis: Redis) -> Callable[[], None]:
    redis.ask("CONFIG", "SET", "busy-reply-threshold", "10")
    looping = threading.Thread(target=redis.ask, args=("EVAL", "while true do end", "0"))
    looping.start()
    eventually(lambda: redis.ask("PING").startswith("-BUSY"))

    def end() -> None:
        redis.ask("SCRIPT", "KILL")
        looping.join(PATIENCE)

    return end


def take_replicas(redis: Redis) -> Callable[[], None]:
    redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    return lambda: (redis.ask("CONFIG", "SET", "min-replicas-to-write", "0"), None)[1]


def change_password(redis: Redis) -> Callable[[], None]:
    with contextlib.closing(connected(redis)) as client:
        client.config_set("requirepass", "changed")
        client.auth("changed")
        client.client_kill_filter(_type="normal", skipme=True)

    def change_back() -> None:
        with contextlib.closing(connected(redis, password="changed")) as client:
            client.config_set("requirepass", "")

    return change_back


@pytest.mark.parametrize("trouble", [make_busy, take_replicas, change_password])
def test_while_redis_refuses_for_a_time_senders_wait_and_lose_nothing(
    redis: Redis, trouble: Callable[[Redis], Callable[[], None]]
) -> None:
    with chat("--redis", redis.url) as server, server.join() as ada, resume(server) as bob:
        say(ada, "before")
        assert hear(ada) == hear_said(bob)
        end = trouble(redis)
        try:
            say(ada, "meanwhile")
            eventually(lambda: lines_with(server, AWAY))
        finally:
            end()
        assert hear(ada)["message"] == hear_said(bob)["message"] == "meanwhile"
        eventually(lambda: came_back_as_often_as_it_went(server))
        assert redis.ask("XLEN", "chat") == ":2"


def test_sender_is_told_with_1011_when_redis_cannot_write_to_its_disk(
    redis: Redis, tmp_path: Path
) -> None:
    with chat("--redis", redis.url) as server:
        redis.ask("CONFIG", "SET", "save", "3600 1")
        shutil.rmtree(tmp_path / "redis")
        redis.ask("BGSAVE")
        eventually(lambda: redis.ask("SET", "x", "y").startswith("-MISCONF"))
        with server.join() as ada:
            say(ada, "no disk")
            assert answer_close(ada) == (1011, "the message could not be saved")
        (line,) = eventually(lambda: lines_with(server, "its message could not be saved"))
        assert "MISCONF" in line


def test_error_that_has_nothing_to_do_with_a_disk_does_not_mention_one(
    redis: Redis,
) -> None:
    with chat("--redis", redis.url) as server, server.join() as ada:
        redis.ask("SET", "chat", "no stream")
        say(ada, "refused")
        assert answer_close(ada)[0] == 1011
        (line,) = eventually(lambda: lines_with(server, "its message could not be saved"))
        assert "WRONGTYPE" in line
        assert "disk" not in server.log


# What the URL asks for


@pytest.mark.parametrize(
    "options",
    [
        "decode_responses=False",
        "decode_responses=",
        "protocol=3",
        "protocol=3&legacy_responses=no",
        "encoding=utf-16&encoding_errors=strict",
        "socket_timeout=0.1",
        "max_connections=1",
        "client_name=chat&health_check_interval=1",
        "retry_on_timeout=yes&retry_on_error=x",
        "db=0",
    ],
)
def test_other_servers_are_heard_whatever_options_the_url_has(redis: Redis, options: str) -> None:
    with chat("--redis", f"{redis.url}?{options}") as server, resume(server) as ada:
        say(ada, "你好")
        own = hear_said(ada)
        assert own["message"] == "你好"
        for text in ("from elsewhere", "and again"):
            put(redis, text)
            assert hear_said(ada)["message"] == text
        with resume(server, own["id"]) as bob:
            assert [hear_said(bob)["message"] for _ in range(2)] == ["from elsewhere", "and again"]
        assert not lines_with(server, AWAY)


def test_url_option_that_redis_does_not_know_ends_it_with_one_clear_line(redis: Redis) -> None:
    assert "nonsense" in refusal(f"{redis.url}?nonsense=1")


def test_hundreds_of_clients_that_join_at_once_do_not_make_redis_seem_away(redis: Redis) -> None:
    with chat("--redis", redis.url) as server, contextlib.ExitStack() as stack:
        for number in range(200):
            put(redis, str(number))
        peers = []
        for _ in range(150):
            peer = stack.enter_context(server.tcp())
            peer.send(
                b"GET /ws?since=0 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            peers.append(peer)
        for peer in peers:
            assert peer.read_head().startswith("HTTP/1.1 101 ")
            assert [hear_said(peer)["message"] for _ in range(200)] == list(map(str, range(200)))
        assert not lines_with(server, AWAY)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@127.0.0.1:1/0",
        "redis://somebody:secret@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=secret",
        "redis://127.0.0.1:1/0?password=se@cret",
        "redis://:sec/ret@127.0.0.1:1/0",
        "redis://:1/secret@127.0.0.1:1/0",
        "redis://:sec?ret@127.0.0.1:1/0",
        "redis://:sec#ret@127.0.0.1:1/0",
        "redis://:sec@ret@127.0.0.1:1/0",
        "redis://:secret@127.0.0.1:port/0",
        "http://somebody:secret@127.0.0.1:1/0",
    ],
)
def test_password_stands_in_no_error(url: str) -> None:
    line = refusal(url)
    for part in ("secret", "somebody", "sec", "cret"):
        assert part not in line


def test_wrong_password_stands_in_no_error(redis: Redis) -> None:
    redis.ask("CONFIG", "SET", "requirepass", "right")
    line = refusal(redis.url.replace("//", "//:wrong@"))
    assert "wrong" not in line
    assert f"redis://***@127.0.0.1:{redis.port}/0" in line


# Ids that others have put on the stream


def test_ids_of_any_size_disturb_neither_clients_that_are_here_nor_those_that_resume(
    redis: Redis,
) -> None:
    longest = 18446744073709551615
    given = ["5-1048575", "5-1048576", f"5-{longest}", f"9999999999999999-{longest}"]
    with chat("--redis", redis.url) as server, resume(server) as ada:
        for message_id in given:
            put(redis, message_id, message_id)
            assert hear_said(ada)["message"] == message_id
        say(ada, "own")
        own = hear_said(ada)
        assert order(own["id"]) > order(given[-1])
        for place, message_id in enumerate(given):
            with resume(server, message_id) as bob:
                rest = [hear_said(bob)["message"] for _ in range(len(given) - place)]
                assert rest == [*given[place + 1 :], "own"]
        put(redis, "the last of all", f"{longest}-{longest}")
        assert hear_said(ada)["message"] == "the last of all"
        with resume(server, f"{longest}-{longest}") as bob, server.join() as eve:
            say(eve, "no id is left")
            assert answer_close(eve) == (1011, "the message could not be saved")
            redis.ask("DEL", "chat")
            say(bob, "a new beginning")
            assert hear_said(bob) == hear_said(ada) == {"event": "gap"}
            assert hear_said(bob)["message"] == "a new beginning"
            assert hear_said(ada)["message"] == "a new beginning"
            put(redis, "heard of others")
            assert hear_said(bob)["message"] == hear_said(ada)["message"] == "heard of others"


def test_message_that_somebody_deleted_causes_no_gap_and_is_not_shown_again(redis: Redis) -> None:
    with chat("--redis", redis.url) as server, resume(server) as ada:
        one = put(redis, "one")
        two = put(redis, "two")
        assert [hear_said(ada)["message"] for _ in range(2)] == ["one", "two"]
        redis.ask("XDEL", "chat", two)
        say(ada, "three")
        assert hear_said(ada)["message"] == "three"
        with resume(server, one) as bob, resume(server, two) as eve:
            assert hear_said(bob)["message"] == hear_said(eve)["message"] == "three"


# What can't be had any more


def test_server_that_trimming_overtakes_announces_the_gap_at_its_place(redis: Redis) -> None:
    with chat("--redis", redis.url) as server, resume(server) as ada, server.join() as plain:
        say(ada, "before")
        assert hear_said(ada) == hear(plain)
        server.signal(signal.SIGSTOP)
        for number in range(10):
            put(redis, str(number))
        redis.ask("XTRIM", "chat", "MAXLEN", "3")
        server.signal(signal.SIGCONT)
        assert hear_said(ada) == {"event": "gap"}
        for peer in (ada, plain):
            assert [hear_said(peer)["message"] for _ in range(3)] == ["7", "8", "9"]


def test_server_that_a_fast_writer_overtakes_tells_its_clients_of_the_gap(redis: Redis) -> None:
    few = ("--redis", redis.url, "--keep-bytes", "1")
    with (
        chat(*few) as slow,
        chat(*few) as fast,
        resume(slow) as ada,
        slow.join() as plain,
        fast.join() as writer,
    ):
        say(writer, "before")
        assert hear(writer) == hear_said(ada) == hear(plain)
        slow.signal(signal.SIGSTOP)
        for number in range(100):
            say(writer, f"{number}".ljust(60_000))
            hear(writer)
        slow.signal(signal.SIGCONT)
        assert hear_said(ada) == {"event": "gap"}
        first = int(hear_said(ada)["message"])
        assert 0 < first < 100
        rest = [hear_said(ada)["message"].rstrip() for _ in range(first + 1, 100)]
        assert rest == list(map(str, range(first + 1, 100)))
        assert int(hear(plain)["message"]) == first


# What takes long


@pytest.mark.skipif(not os.environ.get("RUN_LONG"), reason="takes long; RUN_LONG is not set")
def test_redis_that_takes_a_second_for_each_answer_slows_the_chat_and_loses_nothing(
    redis: Redis,
) -> None:
    slow = threading.Event()
    never = threading.Event()

    def answer_late(words: list[str]) -> None:
        if slow.is_set():
            never.wait(1.0)

    with (
        RedisForwarder(redis, answer_late) as address,
        chat("--redis", address.url) as one,
        chat("--redis", address.url) as other,
        one.join() as ada,
        resume(other) as bob,
    ):
        slow.set()
        for number in range(20):
            say(ada if number % 2 else bob, str(number), key=str(number))
        heard = [hear_said(bob) for _ in range(20)]
        assert [hear(ada) for _ in range(20)] == heard
        assert {message["message"] for message in heard} == set(map(str, range(20)))
        for server in (one, other):
            assert not lines_with(server, AWAY)
        slow.clear()


def test_redis_that_answers_no_sooner_than_it_is_given_up_gets_each_message_once(
    redis: Redis,
) -> None:
    with chat("--redis", redis.url) as server, server.join() as ada:
        redis.ask("CLIENT", "PAUSE", "7000", "ALL")
        say(ada, "during", key="k")
        eventually(lambda: lines_with(server, AWAY))
        assert hear(ada)["message"] == "during"
        say(ada, "after")
        assert hear(ada)["message"] == "after"
        assert redis.ask("XLEN", "chat") == ":2"


# What other programs have put under the chat's keys


@pytest.mark.parametrize("name", ["chat:state", "chat:keys", "chat:keys:older"])
def test_sender_is_told_with_1011_of_a_wrong_type_and_the_chat_goes_on_when_it_is_gone(
    redis: Redis, name: str
) -> None:
    with chat("--redis", redis.url) as server, server.join() as bob:
        redis.ask("SET", name, "something else")
        with server.join() as ada:
            say(ada, "refused", key="k")
            assert answer_close(ada) == (1011, "the message could not be saved")
        eventually(lambda: lines_with(server, "WRONGTYPE"))
        redis.ask("DEL", name)
        say(bob, "again")
        heard = hear(bob)
        if heard["message"] == "refused":  # an error of a script does not undo what it has done
            heard = hear(bob)
        assert heard["message"] == "again"


def test_stream_stays_within_the_bytes_that_it_may_fill(redis: Redis) -> None:
    limit = 2_500_000
    with chat("--redis", redis.url, "--keep-bytes", str(limit)) as server, server.join() as ada:
        for number in range(100):
            say(ada, f"{number}".ljust(60_000))
            hear(ada)
        assert memory(redis) < limit + 200_000
        with resume(server) as bob:
            assert hear_said(bob) == {"event": "gap"}
            first = int(hear_said(bob)["message"])
            assert 50 < first < 75


def test_id_without_a_sequence_that_exactly_500_messages_follow_causes_no_gap(redis: Redis) -> None:
    with chat("--redis", redis.url) as server:
        put(redis, "the one that he has", "1000-0")
        for number in range(500):
            put(redis, str(number))
        with resume(server, "1000") as bob, resume(server, "999") as eve:
            assert [hear_said(bob)["message"] for _ in range(500)] == list(map(str, range(500)))
            assert hear_said(eve) == {"event": "gap"}
            assert [hear_said(eve)["message"] for _ in range(500)] == list(map(str, range(500)))


def test_redis_user_without_the_right_to_ask_for_memory_is_logged_and_can_chat(
    redis: Redis,
) -> None:
    redis.ask("ACL", "SETUSER", "guest", "on", ">pass", "~*", "&*", "+@all", "-memory")
    url = redis.url.replace("//", "//guest:pass@")
    with chat("--redis", url, "--keep-bytes", "1") as server, server.join() as ada:
        (line,) = eventually(lambda: lines_with(server, "--keep-bytes has no effect"))
        assert "memory" in line
        for number in range(10):
            say(ada, f"{number}".ljust(60_000))
            assert hear(ada)["message"] == f"{number}".ljust(60_000)


def memory(redis: Redis) -> int:
    with contextlib.closing(connected(redis)) as client:
        return int(client.memory_usage("chat", samples=0))


def test_sender_whose_message_was_deleted_gets_a_copy_of_the_message_it_resent(
    redis: Redis,
) -> None:
    with chat("--redis", redis.url) as server, resume(server) as ada:
        say(ada, "once", key="k")
        copy = hear_said(ada)
        redis.ask("XTRIM", "chat", "MAXLEN", "0")
        say(ada, "once", key="k")
        assert hear_said(ada) == copy


@pytest.mark.parametrize("value", ["no id", "two\nlines", "7", "", "1-0 ", "-1-0"])
@pytest.mark.parametrize("name", ["chat:keys", "chat:keys:older"])
def test_message_is_new_if_another_program_has_put_something_else_under_its_key(
    redis: Redis, name: str, value: str
) -> None:
    redis.ask("HSET", name, "k", value)
    with chat("--redis", redis.url) as server, server.join() as ada, server.join() as bob:
        for _ in range(2):  # the second time it is known
            say(ada, "once", key="k")
            copy = hear(ada)
            assert copy["message"] == "once"
            assert int(copy["id"].partition("-")[0]) > 1_600_000_000_000
        say(ada, "next")
        assert [hear(bob)["message"] for _ in range(2)] == ["once", "next"]

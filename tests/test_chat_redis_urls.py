"""The ways to Redis that a URL can name: Sentinels, TLS, a password, a Unix socket."""

import functools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat.entry import HistoryError
from chatting import hear, hear_online, hear_said, resume, say, tell_name
from peers import PATIENCE, eventually, free_port
from programs import chat, lines_with, run
from redis_server import AWAY, Redis, Sentinel, came_back_as_often_as_it_went
from tls import Certificate, make_certificate

pytestmark = pytest.mark.redis


def assert_chat_works(url: str) -> None:
    """On two servers, with all that they do on Redis."""
    with (
        chat("--redis", url) as one,
        chat("--redis", url) as other,
        one.join() as ada,
        resume(other) as bob,
    ):
        say(ada, "hello", key="k")
        said = hear(ada)
        assert hear_said(bob) == said
        tell_name(bob, "Bob")
        hear_online(bob, lambda event: event["count"] == 2)
        with resume(one, "0") as eve:
            assert hear_said(eve) == said
        for server in (one, other):
            assert not lines_with(server, AWAY)


def refusal(url: str) -> str:
    """The one line with which the chat ends at its start."""
    ended = run("chat_server.py", "--port", "0", "--redis", url)
    assert (ended.returncode, ended.stdout) == (1, b"")
    (line,) = ended.stderr.decode().splitlines()
    return line


# TLS, a password, a socket of this machine


@pytest.fixture
def certificate_of_redis(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


@pytest.fixture
def encrypted(tmp_path: Path, certificate_of_redis: Certificate) -> Iterator[str]:
    """The address of a Redis that speaks TLS, without the scheme."""
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", str(certificate_of_redis.certificate)]
    options += ["--tls-key-file", str(certificate_of_redis.key)]
    process = Redis(tmp_path / "redis", *options)
    yield f"localhost:{port}/0"
    process.kill()


def test_chat_works_over_tls(encrypted: str, certificate_of_redis: Certificate) -> None:
    trusted = certificate_of_redis.certificate
    assert_chat_works(f"rediss://{encrypted}?ssl_ca_certs={trusted}")


def test_certificate_that_nobody_trusts_ends_it_with_one_clear_line(encrypted: str) -> None:
    line = refusal(f"rediss://{encrypted}")
    assert "certificate verify failed" in line
    assert encrypted in line


def test_certificate_of_another_name_ends_it_with_one_clear_line(
    encrypted: str, certificate_of_redis: Certificate
) -> None:
    address = encrypted.replace("localhost", "127.0.0.1")
    line = refusal(f"rediss://{address}?ssl_ca_certs={certificate_of_redis.certificate}")
    assert "certificate verify failed" in line


def test_file_of_certificates_that_is_missing_ends_it_with_one_clear_line(encrypted: str) -> None:
    assert "o such file" in refusal(f"rediss://{encrypted}?ssl_ca_certs=/nowhere.pem")


# As in docs/scale.md.
RIGHTS = "~chat ~chat:* +@read +@write +@connection +eval +time +memory|usage".split()


def test_chat_works_with_a_password_and_with_a_user(redis: Redis) -> None:
    redis.ask("ACL", "SETUSER", "chatter", "on", ">p/ss", *RIGHTS)
    redis.ask("CONFIG", "SET", "requirepass", "se/cret")
    assert_chat_works(redis.url.replace("//", "//:se%2Fcret@"))
    assert_chat_works(redis.url.replace("//", "//chatter:p%2Fss@"))
    with chat("--redis", redis.url.replace("//", "//chatter:p%2Fss@")) as server:
        assert server.log == ""


def test_chat_works_over_a_unix_socket(tmp_path: Path) -> None:
    address = tmp_path / "socket"
    process = Redis(tmp_path / "redis", "--unixsocket", str(address))
    try:
        assert_chat_works(f"unix://{address}?db=0")
    finally:
        process.kill()


# Sentinels


@pytest.fixture
def replica(tmp_path: Path, redis: Redis) -> Iterator[Redis]:
    process = Redis(tmp_path / "replica", "--replicaof", "127.0.0.1", str(redis.port))
    yield process
    process.kill()


@pytest.fixture
def sentinel(tmp_path: Path, redis: Redis, replica: Redis) -> Iterator[Sentinel]:
    process = Sentinel(tmp_path / "sentinel", redis)
    try:
        eventually(process.knows_replica, 3 * PATIENCE)
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize("strike", [signal.SIGKILL, signal.SIGSTOP])
def test_chat_goes_on_with_the_replica_that_sentinel_promotes(
    redis: Redis, replica: Redis, sentinel: Sentinel, strike: signal.Signals
) -> None:
    nobody = free_port()
    url = f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{sentinel.port}/mymaster/0"
    with (
        chat("--redis", url) as one,
        chat("--redis", url) as other,
        one.join() as ada,
        resume(other) as bob,
    ):
        say(ada, "before")
        before = hear(ada)
        assert hear_said(bob) == before
        eventually(lambda: replica.ask("XLEN", "chat") == ":1")
        redis.process.send_signal(strike)
        say(ada, "meanwhile", key="k")
        for peer in (ada, bob):
            peer.sock.settimeout(4 * PATIENCE)
        assert hear(ada)["message"] == hear_said(bob)["message"] == "meanwhile"
        assert sentinel.master_port() == replica.port
        say(bob, "after")
        assert hear(ada)["message"] == hear_said(bob)["message"] == "after"
        assert replica.ask("XLEN", "chat") == ":3"
        with resume(one, before["id"]) as eve:
            assert [hear_said(eve)["message"] for _ in range(2)] == ["meanwhile", "after"]
        for server in (one, other):
            eventually(functools.partial(came_back_as_often_as_it_went, server))


def test_database_and_password_of_a_sentinel_url_are_those_of_the_master(
    redis: Redis, sentinel: Sentinel
) -> None:
    redis.ask("CONFIG", "SET", "requirepass", "secret")
    address = f"127.0.0.1:{sentinel.port}/mymaster"
    with chat("--redis", f"redis+sentinel://:secret@{address}/3") as server, server.join() as ada:
        say(ada, "hello")
        hear(ada)
    from chat.redis_link import Link

    link = Link(f"redis+sentinel://:secret@{address}/3")
    assert link.ask_once(lambda client: client.xlen("chat")) == 1
    other = Link(f"redis+sentinel://:secret@{address}")
    assert other.ask_once(lambda client: client.xlen("chat")) == 0


def test_sentinel_that_does_not_know_the_master_ends_it_with_one_clear_line(
    sentinel: Sentinel,
) -> None:
    line = refusal(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
    assert "No master found for 'other'" in line


def test_password_of_a_sentinel_stands_in_no_error() -> None:
    url = f"redis+sentinel://:secret@127.0.0.1:{free_port()}/mymaster?sentinel_password=hidden"
    line = refusal(url)
    assert "secret" not in line
    assert "hidden" not in line
    assert "No master found for 'mymaster'" in line


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://localhost:26379", "the name of the master is missing"),
        ("redis+sentinel://localhost:26379/", "the name of the master is missing"),
        ("redis+sentinel:///mymaster", "the host of a Sentinel is missing"),
        ("redis+sentinel://localhost:port/mymaster", "port"),
        ("redis+sentinel://one,,two/mymaster", "the host of a Sentinel is missing"),
        ("rediss+sentinel://localhost/mymaster", "scheme"),
    ],
)
def test_malformed_sentinel_url_is_refused_with_a_reason(url: str, reason: str) -> None:
    from chat.redis_link import Link

    with pytest.raises(HistoryError, match=reason):
        Link(url)


def test_hosts_of_a_sentinel_url_may_be_names_and_addresses_with_and_without_a_port() -> None:
    from chat.redis_link import _parse

    _, sentinels = _parse("redis+sentinel://u:p@one,two:1,[::1]:2,127.0.0.1/name/5?a=b")
    assert sentinels is not None
    assert sentinels.hosts == [("one", 26379), ("two", 1), ("::1", 2), ("127.0.0.1", 26379)]
    assert sentinels.master == "name"

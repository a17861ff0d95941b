"""The way to Redis: its URL, its connections, and asking again while it is away.

The URL is one that redis-py knows: `redis://`, `rediss://` for TLS, or `unix://` for a socket on
the same machine. With `redis+sentinel://` the addresses are those of Sentinels, which know the
master: `redis+sentinel://:password@one:26379,two:26379/mymaster/0`, where `mymaster` is the name
that the Sentinels give it, and 0 is the database. TLS through Sentinels is not supported.

`redis_history` and `redis_presence` use this.
"""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from chat.entry import HistoryError

log = logging.getLogger("chat")

_RETRY_INTERVAL = 0.2  # seconds between two attempts to reach Redis
_ANSWER_TIMEOUT = 5.0  # seconds
_SENTINEL_TIMEOUT = 1.0  # seconds for each Sentinel; the next one is asked after that
_SENTINEL_PORT = 26379
_SENTINEL_URL = "redis+sentinel://"
# Options of the connections to Redis on which the chat depends. They replace those in the URL.
_OPTIONS = {
    "decode_responses": True,
    "encoding": "utf-8",
    "encoding_errors": "replace",  # other programs may write to the stream, too
    "protocol": 2,
    "socket_timeout": _ANSWER_TIMEOUT,
    "socket_connect_timeout": _ANSWER_TIMEOUT,
    "max_connections": 64,  # a thread that needs another one waits until one is free
    "timeout": 60.0,  # seconds for that wait; each user of a connection is done in _ANSWER_TIMEOUT
    "retry": Retry(NoBackoff(), 0),  # `Link.ask` retries, for as long as it takes
    "retry_on_error": [],
    "retry_on_timeout": False,
}
# Errors that pass by themselves, for example after a failover. Callers wait until then, and nothing
# is lost. All others (OOM, MISCONF, NOPERM, WRONGTYPE) are raised as HistoryError. redis-py has a
# class for some of the errors that pass. The others are recognized by the word with which Redis
# begins them, which is anywhere in the text if the error comes from a script.
_PASSING_ERRORS = (
    redis.ConnectionError,  # LOADING, a refused password, and a master that Sentinel does not know
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.exceptions.ClusterDownError,  # MASTERDOWN, too
    redis.exceptions.TryAgainError,
)
_PASSING_WORDS = re.compile(
    r"(?:^|[- :])(?:READONLY|UNBLOCKED|LOADING|MASTERDOWN|CLUSTERDOWN|NOREPLICAS"
    r"|TRYAGAIN|BUSY) "
    r"|Protocol error: unauthenticated "  # the answer to a long command instead of NOAUTH
)

Client = Any  # redis.Redis; its own types are of no use, because they are also those of asyncio


class _Sentinels(NamedTuple):
    """The Sentinels that know where the master is."""

    hosts: list[tuple[str, int]]
    master: str  # the name that they give the master
    options: dict[str, Any]  # of the connections to them

    def find(self) -> dict[str, Any]:
        """The master's address, as options of a connection. Raises redis.ConnectionError."""
        sentinel: Any = Sentinel(self.hosts, sentinel_kwargs=self.options)  # type: ignore[no-untyped-call]
        try:
            host, port = sentinel.discover_master(self.master)
        finally:
            for each in sentinel.sentinels:
                each.close()
        return {"host": host, "port": port}


class Link:
    """The connections to Redis; repeats a request while Redis is away. Any thread may call."""

    def __init__(self, url: str) -> None:
        """Raises HistoryError if the URL is malformed, or if no Sentinel knows the master."""
        self._public_url = _public(url)
        self._away = threading.Lock()  # held by the thread that has logged that Redis is away
        self._replacing = threading.Lock()  # around putting another client in the place of `client`
        try:
            self._options, self._sentinels = _parse(url)
            self._address = self._find()
            self.client = self._connect()
        # redis-py raises one of the last three errors for a malformed URL.
        except (redis.RedisError, OSError, ValueError, TypeError, LookupError) as error:
            # `from None`: a trace would show the password.
            raise HistoryError(f"{self._public_url}: {error}") from None

    def _find(self) -> dict[str, Any]:
        """The address as the Sentinels know it now; empty if the URL has the address."""
        return self._sentinels.find() if self._sentinels else {}

    def _connect(self) -> Client:
        options = self._options | self._address
        pool = redis.BlockingConnectionPool(**options)  # type: ignore[no-untyped-call]
        return redis.Redis(connection_pool=pool)

    def ask_once(self, question: Callable[[Client], Any]) -> Any:
        """Ask, and log nothing. Raises HistoryError, with the URL, for any error."""
        client = self.client
        try:
            return question(client)
        except (redis.RedisError, OSError, ValueError, TypeError, LookupError) as error:
            if isinstance(error, redis.RedisError) and passes(error):
                self._leave(client, error)
            raise HistoryError(f"{self._public_url}: {error}") from None

    def ask(self, question: Callable[[Client], Any], patience: float | None = None) -> Any:
        """Ask until Redis answers. Log when Redis goes away, and when it is back.

        With a `patience`, in seconds, log nothing, and raise HistoryError after that time. Raises
        HistoryError also for an error that does not pass.
        """
        deadline = None if patience is None else time.monotonic() + patience
        complained = False
        try:
            while True:
                client = self.client
                try:
                    return question(client)
                except redis.RedisError as error:
                    if not passes(error):
                        raise HistoryError(f"Redis: {error}") from error
                    if deadline is None and not complained:
                        complained = self._complain(error)
                    self._leave(client, error)
                    if deadline is not None and time.monotonic() + _RETRY_INTERVAL > deadline:
                        raise HistoryError(f"Redis does not answer: {error}") from error
                    time.sleep(_RETRY_INTERVAL)
        finally:
            if complained:  # Redis has answered, if only with an error that does not pass
                log.warning("Redis is back")
                self._away.release()

    def _complain(self, error: Exception) -> bool:
        """Log that Redis is away, unless another thread has logged it; returns whether it did."""
        if not self._away.acquire(blocking=False):
            return False
        # The text, not the error: the log record would keep the error, and with it the connections.
        log.warning("Redis is away, senders wait until it is back: %s", str(error))
        return True

    def _leave(self, client: Client, error: Exception) -> None:
        """Replace the connections, because the address may lead to another server by now.

        The old connections are closed when no thread uses them any more. After a timeout they stay,
        unless the Sentinels name another server.
        """
        address = self._address
        with contextlib.suppress(redis.RedisError):  # no Sentinel answers: the old address stays
            address = self._find()
        with self._replacing:
            has_moved = address != self._address
            if client is self.client and (has_moved or not isinstance(error, redis.TimeoutError)):
                self._address = address
                self.client = self._connect()
                _close_idle(client)

    def close(self) -> None:
        """Close the connections that no thread uses. The others end with the process."""
        _close_idle(self.client)


def _close_idle(client: Client) -> None:
    """Close those of its connections that no thread uses.

    They would be closed when the memory of the client is freed, but that may be late.
    """
    with contextlib.suppress(TypeError):  # older versions of redis-py can close only all
        client.connection_pool.disconnect(inuse_connections=False)


def passes(error: redis.RedisError) -> bool:
    """Whether an error passes by itself, so that the request can be repeated until then."""
    return isinstance(error, _PASSING_ERRORS) or bool(_PASSING_WORDS.search(str(error)))


# The URL


def _parse(url: str) -> tuple[dict[str, Any], _Sentinels | None]:
    """The options of the connections that a URL asks for, and the Sentinels if it has any.

    Raises ValueError, TypeError, LookupError for a malformed URL.
    """
    _check_password(url)
    if not url.startswith(_SENTINEL_URL):
        return dict(parse_url(url)) | _OPTIONS, None  # type: ignore[no-untyped-call]
    authority, path, query = _split(url.removeprefix(_SENTINEL_URL))
    credentials, at, hosts = authority.rpartition("@")
    master, _, database = path.strip("/").partition("/")
    if not master:
        raise ValueError(
            "the name of the master is missing, as in redis+sentinel://host:26379/mymaster/0"
        )
    plain = f"redis://{credentials}{at}localhost/{database}{query}"
    options = dict(parse_url(plain))  # type: ignore[no-untyped-call]
    of_sentinels = {
        "username": options.pop("sentinel_username", None),
        "password": options.pop("sentinel_password", None),
        "socket_timeout": _SENTINEL_TIMEOUT,
        "socket_connect_timeout": _SENTINEL_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    found = [_host_and_port(host) for host in hosts.split(",")]
    return options | _OPTIONS, _Sentinels(found, master, of_sentinels)


def _host_and_port(text: str) -> tuple[str, int]:
    """Raises ValueError for a malformed port, or if there is no host."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"the host of a Sentinel is missing in {text!r}")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _split(rest: str) -> tuple[str, str, str]:
    """The authority, the path and the query with its question mark, of a URL without its scheme."""
    authority = re.split("[/?#]", rest)[0]
    path, mark, query = rest[len(authority) :].partition("?")
    return authority, path, mark + query


def _check_password(url: str) -> None:
    """Raises ValueError if it is ambiguous where the password ends."""
    if "@" in _after_authority(url):
        raise ValueError(
            "percent-encode each / ? and # in the name of the user and in the password"
        )


def _after_authority(url: str) -> str:
    """The path, query and fragment of a URL."""
    _, path, query = _split(url.partition("://")[2])
    return path + query


def _public(url: str) -> str:
    """The URL as it may be logged: without the user's name, the password and the options."""
    scheme, separator, rest = url.partition("://")
    if "@" in _after_authority(url):
        return f"{scheme}{separator}***"  # it is ambiguous where the password ends
    address = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}{separator}{'***@' if '@' in rest else ''}{address}"

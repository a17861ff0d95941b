"""The numbered log on a Redis stream, so that chat servers on many machines share one chat.

Ids are the stream's. What one server appends all of them hear of, by `follow`, and read. Where
Redis is away, whoever calls waits until it is back: a sender's thread, and through TCP its client;
nobody's connection ends. Only who joins is told after a while, and comes again. It takes Redis 5
or later, and redis-py 5 or later, as nothing newer is used. Left out: Redis Cluster, whose keys
would have to share a slot.
"""

import copy
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from chat.entry import (
    KEPT,
    KEPT_BYTES,
    MAX_MESSAGE,
    PAGE_CHARACTERS,
    Entry,
    Fields,
    LogFailed,
    Logged,
    Page,
    entry_of,
    order,
)

log = logging.getLogger("chat")

STREAM = "chat"
STATE = "chat:state"  # `trimmed`: the stream has lost its beginning; `unmeasured`: see _APPEND
# What is trimmed before a server has read it is lost for it. So several batches stay, whatever was
# asked for: they may come from several servers.
LEAST_KEPT = 10_000  # messages; a batch has less than a tenth of them
LEAST_BATCHES = 4  # as large as they can be, in bytes
KEY_KEPT = 3600  # seconds for which a message's key is known; resending takes seconds
ANSWER_KEPT = 86400  # seconds for which a batch's answer is known; Redis may be away for hours
JOINER_PATIENCE = 10.0  # seconds; meanwhile one who joins takes up a thread and a place
_RETRY = 0.2  # seconds between two attempts to reach Redis
_WAIT = 5.0  # seconds for Redis to answer
_BLOCK = 1000  # milliseconds that Redis waits for news, so that it is heard from now and then
_SLOW_RETRY = 5.0  # seconds until the follower tries again after what does not pass by itself
# What this module depends on, whatever the URL asks for.
_OPTIONS = {
    "decode_responses": True,
    "encoding": "utf-8",
    "encoding_errors": "replace",  # others may write to the stream, too
    "protocol": 2,
    "socket_timeout": _WAIT,
    "socket_connect_timeout": _WAIT,
    "max_connections": 64,  # a thread that needs another waits for one of them
    "timeout": 60.0,  # seconds for that wait; each that has one has it for _WAIT at most
    "retry": Retry(NoBackoff(), 0),  # ours waits for as long as it takes
    "retry_on_error": [],
    "retry_on_timeout": False,
}
# Errors that pass by themselves, as after a failover: whoever waits loses nothing. The others (OOM,
# MISCONF, NOPERM, WRONGTYPE) are told to the sender. redis-py makes a class for some, without the
# word, and finds it only at the start, where a script's error has it somewhere within.
_PASSING_ERRORS = (
    redis.ConnectionError,  # LOADING and a refused password, too
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.exceptions.ClusterDownError,  # MASTERDOWN, too
    redis.exceptions.TryAgainError,
)
_PASSING_WORDS = re.compile(
    r"(?:^|[- :])(?:READONLY|UNBLOCKED|LOADING|MASTERDOWN|CLUSTERDOWN|NOREPLICAS"
    r"|TRYAGAIN|BUSY) "
    r"|Protocol error: unauthenticated "  # to a long command, where a short one gets NOAUTH
)
# One call for a batch. An answer that got lost is asked for again under the same token, and then
# is the first one, so that nothing is logged twice; the next batch's call forgets it. The memory
# that the stream takes is looked at each time another hundredth of it was written; the keys, which
# take some 200 bytes each until they are forgotten, count as written. Where the user may not ask
# for the memory, nothing is too large: an error would come after what was written already.
_APPEND = r"""
local stream, state, answered, forgotten = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local key_kept, answer_kept = ARGV[1], ARGV[2]
local kept, kept_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local answer = redis.call('GET', answered)
if answer then return answer end
local lines, size = {}, 0
for i = 5, #ARGV, 4 do
  local key = stream .. ':key:client:' .. ARGV[i+3]
  local id = ARGV[i+3] ~= '' and redis.call('GET', key)
  if id then
    lines[#lines+1] = 'known ' .. id
  else
    id = redis.call('XADD', stream, '*', 'email', ARGV[i], 'username', ARGV[i+1],
                    'message', ARGV[i+2], 'key', ARGV[i+3])
    if ARGV[i+3] ~= '' then
      redis.call('SET', key, id, 'EX', key_kept)
      size = size + 200
    end
    lines[#lines+1] = 'new ' .. id
    size = size + #ARGV[i] + #ARGV[i+1] + #ARGV[i+2] + #ARGV[i+3] + 50
  end
end
local length, trimmed = redis.call('XLEN', stream), 0
if length > kept + kept / 100 then
  trimmed = redis.call('XTRIM', stream, 'MAXLEN', '~', kept)
end
if redis.call('HINCRBY', state, 'unmeasured', size) > kept_bytes / 100 then
  redis.call('HSET', state, 'unmeasured', 0)
  length = redis.call('XLEN', stream)
  local function too_large()
    local used = redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', 0)
    return type(used) == 'number' and used > kept_bytes
  end
  while length > 1 and too_large() do
    length = length - math.ceil(length / 100)
    trimmed = trimmed + redis.call('XTRIM', stream, 'MAXLEN', length)
  end
end
if trimmed > 0 then redis.call('HSET', state, 'trimmed', 1) end
answer = table.concat(lines, '\n')
redis.call('SET', answered, answer, 'EX', answer_kept)
redis.call('DEL', forgotten)
return answer
"""
# What follows upon an id until a page is full, whether the id itself is there, and whether more
# follows. It reads a few at a time, so that little more than the page is held in memory, and
# begins each time with the last it has, as Redis before 6.2 has no ranges without their beginning.
_SINCE = """
local begin, full, few = ARGV[1], tonumber(ARGV[2]), 10
local entries, size, exact, last = {}, 0, 0, begin
while true do
  local found = redis.call('XRANGE', KEYS[1], last, '+', 'COUNT', few)
  for _, entry in ipairs(found) do
    if entry[1] == begin then
      exact = 1
    elseif entry[1] ~= last then
      if size >= full then return {exact, 1, entries} end
      entries[#entries+1] = entry
      size = size + 200
      for _, part in ipairs(entry[2]) do size = size + #part end
    end
  end
  if #found < few then return {exact, 0, entries} end
  last = found[#found][1]
end
"""
# The id behind which only the newest follow, without sending what is in them, or holding them all.
_BEFORE_NEWEST = """
local begin, left, few = ARGV[1], tonumber(ARGV[2]), 10
local last = '+'
while true do
  local found = redis.call('XREVRANGE', KEYS[1], last, begin, 'COUNT', few)
  for _, entry in ipairs(found) do
    if entry[1] ~= last then
      if left == 0 then return entry[1] end
      left = left - 1
    end
  end
  if #found < few then return '' end
  last = found[#found][1]
end
"""

Client = Any  # redis.Redis, whose own types say of each answer that it may be awaited


class RedisLog:
    """Does for many servers what ChatLog does for one. Any thread may call.

    A key is known for an hour; so long its message's id is kept, though the message may be trimmed.
    `max_message`, in bytes, is what the servers let a client say at once.
    """

    def __init__(
        self,
        url: str,
        kept: int = KEPT,
        kept_bytes: int = KEPT_BYTES,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        """Raises LogFailed where Redis can't be reached, is none, or may not be written to."""
        largest_batch = 4 * PAGE_CHARACTERS + max_message  # a character has at most four bytes
        least_bytes = LEAST_BATCHES * largest_batch
        self._limits = [KEY_KEPT, ANSWER_KEPT, max(kept, LEAST_KEPT), max(kept_bytes, least_bytes)]
        self._answered = f"{STREAM}:answered:none"  # of the last batch whose answer came
        self._appending = threading.Lock()
        self._patience: float | None = None  # seconds; None: until Redis answers
        try:
            self._link = _Link(parse_url(_checked(url)) | _OPTIONS)  # type: ignore[no-untyped-call]
            client = self._link.client
            newest = client.xrevrange(STREAM, count=1)
            self._run_append(client, f"{STREAM}:answered:{secrets.token_hex(8)}", [])
            _look_whether_memory_is_told(client)
        # What is no such URL, a port for one, comes as one of the last three.
        except (redis.RedisError, OSError, ValueError, TypeError, LookupError) as error:
            raise LogFailed(f"{_public(url)}: {error}") from None  # a trace would show the password
        self.start = str(newest[0][0]) if newest else "0-0"

    def for_joiner(self) -> "RedisLog":
        """The same log, whose reads give up with LogFailed where Redis is away for longer."""
        hurried = copy.copy(self)
        hurried._patience = JOINER_PATIENCE
        return hurried

    def _ask(self, question: Callable[[Client], Any]) -> Any:
        return self._link.ask(question, self._patience)

    # Writing

    def append(self, messages: Sequence[Fields]) -> list[Logged]:
        """Put those on the stream whose key is not known; tell of each where it is."""
        if not messages:
            return []
        arguments = [part or "" for message in messages for part in message]
        with self._appending:
            token = f"{STREAM}:answered:{secrets.token_hex(8)}"
            answer = self._ask(lambda client: self._run_append(client, token, arguments))
            self._answered = token
        lines = [line.partition(" ") for line in str(answer).split("\n")]
        return [Logged(_known_id(found), state == "known") for state, _, found in lines]

    def _run_append(self, client: Client, token: str, arguments: list[str]) -> str:
        keys = [STREAM, STATE, token, self._answered]
        return str(client.eval(_APPEND, len(keys), *keys, *self._limits, *arguments))

    # Reading

    def since(self, position: str) -> Page:
        """The first page of what follows upon this id. Raises ValueError, LogFailed.

        Where the id itself is there still, nothing is missing between.
        """
        place = order(position)
        begin = "{}-{}".format(*place)
        exact, more, found = self._ask(
            lambda client: client.eval(_SINCE, 1, STREAM, begin, PAGE_CHARACTERS)
        )
        entries = [_entry(message_id, _named(fields)) for message_id, fields in found]
        if entries and not exact:
            return Page(entries, self._is_missing_before(begin), bool(more))
        if not entries and not exact and place > self._last_given():
            return self.since("0-0")  # the stream was deleted, and began anew
        return Page(entries, gap=False, more=bool(more))

    def _is_missing_before(self, position: str) -> bool:
        """Whether what comes after an id, which is not on the stream, may have been trimmed.

        It may be that just the message with this id was the last to go: then too much is told.
        """
        if self._ask(lambda client: client.xrevrange(STREAM, position, "-", 1)):
            return False
        info = self._info()
        if "entries-added" in info:  # since Redis 7, which counts for us
            return bool(info["entries-added"] > info["length"])
        return bool(self._ask(lambda client: client.hget(STATE, "trimmed")))

    def _last_given(self) -> tuple[int, int]:
        return order(str(self._info().get("last-generated-id", "0-0")))

    def _info(self) -> dict[str, Any]:
        """What Redis knows of the stream; nothing where there is none."""
        if not self._ask(lambda client: client.exists(STREAM)):
            return {}
        return dict(self._ask(lambda client: client.xinfo_stream(STREAM)))

    def entry(self, message_id: str) -> Entry | None:
        """What is under this id; None where it was trimmed."""
        found = self._ask(lambda client: client.xrange(STREAM, message_id, message_id, 1))
        return _entry(*found[0]) if found else None

    def before_newest(self, position: str, count: int) -> str:
        """The id behind which only the newest `count` follow; this one, if there are fewer."""
        begin = "{}-{}".format(*order(position))
        found = self._ask(lambda client: client.eval(_BEFORE_NEWEST, 1, STREAM, begin, count))
        return str(found or position)

    def newest(self) -> str:
        """The id of the newest message, `0-0` where there is none."""
        found = self._ask(lambda client: client.xrevrange(STREAM, count=1))
        return str(found[0][0]) if found else "0-0"

    def follow(self, look_for_news: Callable[[], None]) -> None:
        """Have the news looked for whenever any server has appended some; never returns."""
        heard = self.start
        while True:
            try:
                heard = self._await_news(heard)
                look_for_news()
            except LogFailed as error:
                log.error("nothing is heard of other servers: %s", error)
                time.sleep(_SLOW_RETRY)
            except Exception:
                log.exception("nothing is heard of other servers")
                time.sleep(_SLOW_RETRY)

    def _await_news(self, heard: str) -> str:
        """Wait until there is something behind an id; the id of the newest."""
        while True:
            found = self._ask(lambda client: client.xread({STREAM: heard}, 1, _BLOCK))
            newest = self.newest()
            if found or order(newest) < order(heard):  # the stream may have begun anew
                return newest


class _Link:
    """The connections to Redis, and the patience with which it is asked. Any thread may call."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._away = threading.Lock()  # held from the log line to the next
        self.client = self._connect()

    def _connect(self) -> Client:
        pool = redis.BlockingConnectionPool(**self._options)  # type: ignore[no-untyped-call]
        return redis.Redis(connection_pool=pool)

    def ask(self, question: Callable[[Client], Any], patience: float | None = None) -> Any:
        """Ask until Redis answers; a log line when it goes, and one when it comes.

        With a patience, in seconds, raises LogFailed when Redis is away for so long, and leaves the
        lines to those who stay.
        """
        deadline = None if patience is None else time.monotonic() + patience
        complained = False
        try:
            while True:
                client = self.client
                try:
                    answer = question(client)
                except redis.RedisError as error:
                    if not passes(error):
                        raise LogFailed(f"Redis: {error}") from error
                    if deadline is None and not complained:
                        complained = self._complain(error)
                    self._leave(client, error)
                    if deadline is not None and time.monotonic() + _RETRY > deadline:
                        raise LogFailed(f"Redis does not answer: {error}") from error
                    time.sleep(_RETRY)
                else:
                    if complained:
                        log.warning("Redis is back")
                    return answer
        finally:
            if complained:
                self._away.release()

    def _complain(self, error: Exception) -> bool:
        """Of all threads that find Redis away, one says so; whether it was this one."""
        if not self._away.acquire(blocking=False):
            return False
        # As text: an error that a log record keeps would keep the old connections, too.
        log.warning("Redis is away, senders wait until it is back: %s", str(error))
        return True

    def _leave(self, client: Client, error: Exception) -> None:
        """Connect anew: behind the same address another server may be in charge by now.

        The old connections end when the last thread has let go of them.
        """
        if client is self.client and not isinstance(error, redis.TimeoutError):
            self.client = self._connect()


def _look_whether_memory_is_told(client: Client) -> None:
    """Say at once where the user may not ask for what bounds the bytes."""
    try:
        client.memory_usage(STREAM, samples=0)
    except redis.ResponseError as error:
        log.warning(
            "the bytes of the stream in Redis are not bounded, only its messages: %s", error
        )


def passes(error: redis.RedisError) -> bool:
    """Whether an error passes by itself, so that whoever waits loses nothing."""
    return isinstance(error, _PASSING_ERRORS) or bool(_PASSING_WORDS.search(str(error)))


def _entry(message_id: Any, fields: Any) -> Entry:
    """An entry as others may have written it; what is no message is shown as an empty one."""
    if not isinstance(fields, dict):
        log.error("what Redis has under %.50r is no message: %.100r", message_id, fields)
        fields = {}
    names = ("email", "username", "message", "key")
    return entry_of(str(message_id), *(fields.get(name, "") for name in names))


def _named(fields: list[Any]) -> dict[Any, Any]:
    """Fields as a script gives them: a name, its value, the next name."""
    return dict(zip(fields[::2], fields[1::2], strict=False))


def _known_id(text: str) -> str:
    """What is under a key of ours; `0-0` for what another program has put there."""
    try:
        order(text)
    except ValueError:
        return "0-0"
    return text


def _checked(url: str) -> str:
    """Refuse a URL of which nobody can say where its password ends. Raises ValueError."""
    if "@" in _after_authority(url):
        raise ValueError("percent-encode the / ? and # of the user's name and the password")
    return url


def _after_authority(url: str) -> str:
    rest = url.partition("://")[2]
    return rest[len(re.split("[/?#]", rest)[0]) :]


def _public(url: str) -> str:
    """The URL as it may be logged: without the user's name, the password, and options."""
    scheme, separator, rest = url.partition("://")
    if "@" in _after_authority(url):
        return f"{scheme}{separator}***"  # where the password ends is not known
    address = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}{separator}{'***@' if '@' in rest else ''}{address}"

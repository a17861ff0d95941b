"""The history on a Redis stream, so that chat servers on many machines share one chat.

Ids are those of the stream. What one server appends all of them find: `follow` wakes them.

While Redis is away, whoever asks it waits until it is back. A sender's thread waits, TCP makes its
client wait, and no connection ends. Only a client that joins is told so after a while, and comes
back. Redis 5 and redis-py 5 are enough, as nothing newer is used. Redis Cluster is not supported:
the keys would have to share a slot.
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
    KEEP,
    KEEP_BYTES,
    MAX_MESSAGE,
    PAGE_CHARACTERS,
    Appended,
    Content,
    Entry,
    HistoryError,
    Page,
    make_entry,
    order,
)

log = logging.getLogger("chat")

STREAM = "chat"
# A hash. `trimmed` is set once the stream has lost its beginning; `unmeasured` counts the bytes
# that were written since the stream's memory was last measured.
STATE = "chat:state"
# A message that is trimmed before a server has read it is lost for that server. So several batches
# always stay, whatever --keep and --keep-bytes say: each may come from another server.
LEAST_KEEP = 10_000  # messages; a batch has less than a tenth of them
LEAST_BATCHES = 4  # of the largest size, in bytes
KEY_LIFETIME = 3600  # seconds for which a message's key is known; resending takes seconds
ANSWER_LIFETIME = (
    86400  # seconds for which the answer to a batch is kept; Redis may be away for hours
)
RESUME_PATIENCE = 10.0  # seconds; a client that waits to join holds a thread and a place
_RETRY_INTERVAL = 0.2  # seconds between two attempts to reach Redis
_ANSWER_TIMEOUT = 5.0  # seconds
_BLOCK = 1000  # milliseconds that Redis waits for news before it answers that there are none
_SLOW_RETRY = 5.0  # seconds until the follower tries again after an error that does not pass
# What this module depends on, whatever the URL asks for.
_OPTIONS = {
    "decode_responses": True,
    "encoding": "utf-8",
    "encoding_errors": "replace",  # other programs may write to the stream, too
    "protocol": 2,
    "socket_timeout": _ANSWER_TIMEOUT,
    "socket_connect_timeout": _ANSWER_TIMEOUT,
    "max_connections": 64,  # a thread that needs another one waits until one is free
    "timeout": 60.0,  # seconds for that wait; each user of a connection is done in _ANSWER_TIMEOUT
    "retry": Retry(NoBackoff(), 0),  # `_Link.ask` retries, for as long as it takes
    "retry_on_error": [],
    "retry_on_timeout": False,
}
# Errors that pass by themselves, for example after a failover: callers wait, and nothing is lost.
# All others (OOM, MISCONF, NOPERM, WRONGTYPE) are told to the sender. For some of the passing ones
# redis-py has a class. Others are known by a word of Redis, which in a script's error may stand
# anywhere in the text.
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
    r"|Protocol error: unauthenticated "  # the answer to a long command instead of NOAUTH
)
# Appends a batch in one call. If its answer gets lost, the call is repeated with the same token and
# returns the first answer, so that nothing is appended twice; the next batch's call deletes it.
# The memory of the stream is measured each time that another hundredth of it was written. Keys
# count as written: they take some 200 bytes each until they expire. Where the user may not ask for
# the memory nothing is trimmed for it: an error would come after the messages were written.
_APPEND = r"""
local stream, state, answered, forgotten = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local key_lifetime, answer_lifetime = ARGV[1], ARGV[2]
local keep, keep_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
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
      redis.call('SET', key, id, 'EX', key_lifetime)
      size = size + 200
    end
    lines[#lines+1] = 'new ' .. id
    size = size + #ARGV[i] + #ARGV[i+1] + #ARGV[i+2] + #ARGV[i+3] + 50
  end
end
local length, trimmed = redis.call('XLEN', stream), 0
if length > keep + keep / 100 then
  trimmed = redis.call('XTRIM', stream, 'MAXLEN', '~', keep)
end
if redis.call('HINCRBY', state, 'unmeasured', size) > keep_bytes / 100 then
  redis.call('HSET', state, 'unmeasured', 0)
  length = redis.call('XLEN', stream)
  local function too_large()
    local used = redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', 0)
    return type(used) == 'number' and used > keep_bytes
  end
  while length > 1 and too_large() do
    length = length - math.ceil(length / 100)
    trimmed = trimmed + redis.call('XTRIM', stream, 'MAXLEN', length)
  end
end
if trimmed > 0 then redis.call('HSET', state, 'trimmed', 1) end
answer = table.concat(lines, '\n')
redis.call('SET', answered, answer, 'EX', answer_lifetime)
redis.call('DEL', forgotten)
return answer
"""
# What follows an id until a page is full, whether the id itself is on the stream, and whether more
# follows. It reads a few messages at a time, so that little more than the page is in memory. Each
# read begins with the last message of the one before, because Redis before 6.2 cannot leave out
# the beginning of a range.
_SINCE = """
local begin, full, few = ARGV[1], tonumber(ARGV[2]), 10
local entries, size, exact, last = {}, 0, 0, begin
while true do
  local found = redis.call('XRANGE', KEYS[1], last, '+', 'COUNT', few)
  for _, entry in ipairs(found) do
    local id, fields = entry[1], entry[2]
    if id == begin then
      exact = 1
    elseif id ~= last then
      if size >= full then return {exact, 1, entries} end
      entries[#entries+1] = entry
      size = size + 200
      for _, part in ipairs(fields) do size = size + #part end
    end
  end
  if #found < few then return {exact, 0, entries} end
  last = found[#found][1]
end
"""
# The id that the newest messages follow. Their texts stay in Redis, a few at a time in memory.
_BEFORE_NEWEST = """
local begin, left, few = ARGV[1], tonumber(ARGV[2]), 10
local last = '+'
while true do
  local found = redis.call('XREVRANGE', KEYS[1], last, begin, 'COUNT', few)
  for _, entry in ipairs(found) do
    local id = entry[1]
    if id ~= last then
      if left == 0 then return id end
      left = left - 1
    end
  end
  if #found < few then return '' end
  last = found[#found][1]
end
"""

Client = Any  # redis.Redis, whose own types say of each answer that it may be awaited


class RedisHistory:
    """The history that many servers share. Any thread may call.

    A key is known for an hour. The id that belongs to it is kept for that time, even if the message
    is trimmed. `max_message`, in bytes, is the largest message that the servers accept.
    """

    def __init__(
        self,
        url: str,
        keep: int = KEEP,
        keep_bytes: int = KEEP_BYTES,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        """Raises HistoryError where no Redis answers, or where it may not be written to."""
        largest_batch = 4 * PAGE_CHARACTERS + max_message  # a character has at most four bytes
        least_bytes = LEAST_BATCHES * largest_batch
        self._limits = [
            KEY_LIFETIME,
            ANSWER_LIFETIME,
            max(keep, LEAST_KEEP),
            max(keep_bytes, least_bytes),
        ]
        self._answered = f"{STREAM}:answered:none"  # the token of the last batch whose answer came
        self._appending = threading.Lock()  # one batch at a time, or `_answered` would be wrong
        self._looked = threading.Event()  # set when the history was read; paces `follow`
        self._patience: float | None = None  # seconds to wait for Redis; None is without end
        try:
            self._link = _Link(parse_url(_checked(url)) | _OPTIONS)  # type: ignore[no-untyped-call]
            client = self._link.client
            newest = client.xrevrange(STREAM, count=1)
            self._run_append(client, _new_token(), [])
            _warn_if_memory_is_hidden(client)
        # redis-py raises one of the last three for a URL that it cannot use, a bad port for one.
        except (redis.RedisError, OSError, ValueError, TypeError, LookupError) as error:
            # `from None`: a trace would show the password.
            raise HistoryError(f"{_public(url)}: {error}") from None
        self.start = _first_id(newest)

    def close(self) -> None:
        """Do nothing. A thread may be waiting for Redis; the connections end with the process."""

    def for_resuming(self) -> "RedisHistory":
        """The same history, but it raises HistoryError if Redis is away for RESUME_PATIENCE."""
        hurried = copy.copy(self)
        hurried._patience = RESUME_PATIENCE
        return hurried

    def _ask(self, question: Callable[[Client], Any]) -> Any:
        return self._link.ask(question, self._patience)

    # Writing

    def append(self, messages: Sequence[Content]) -> list[Appended]:
        """Append the messages whose key is not known; the answers are in the messages' order."""
        if not messages:
            return []
        arguments: list[str] = []
        for each in messages:
            arguments += [each.email, each.username, each.message, each.key or ""]
        with self._appending:
            token = _new_token()
            answer = self._ask(lambda client: self._run_append(client, token, arguments))
            self._answered = token
        lines = [line.partition(" ") for line in str(answer).split("\n")]
        return [Appended(_id_of_key(found), state == "known") for state, _, found in lines]

    def _run_append(self, client: Client, token: str, arguments: list[str]) -> str:
        keys = [STREAM, STATE, token, self._answered]
        return str(client.eval(_APPEND, len(keys), *keys, *self._limits, *arguments))

    # Reading

    def since(self, message_id: str) -> Page:
        """The first page of what follows this id. Raises ValueError, HistoryError.

        Where the message with this id is still on the stream, nothing can be missing behind it.
        """
        whole_id = _whole_id(message_id)
        self._looked.set()
        exact, more, found = self._ask(
            lambda client: client.eval(_SINCE, 1, STREAM, whole_id, PAGE_CHARACTERS)
        )
        entries = [_entry(found_id, _named(fields)) for found_id, fields in found]
        if entries and not exact:
            return Page(entries, self._is_missing_before(whole_id), bool(more))
        if not entries and not exact and order(message_id) > self._last_given():
            return self.since("0-0")  # the stream was deleted, and a new one began
        return Page(entries, gap=False, more=bool(more))

    def _is_missing_before(self, message_id: str) -> bool:
        """Whether messages after this id, which is not on the stream, may have been trimmed.

        If the message with this id was the last one to be trimmed, the answer is yes, wrongly.
        """
        if self._ask(lambda client: client.xrevrange(STREAM, message_id, "-", 1)):
            return False
        info = self._info()
        if "entries-added" in info:  # Redis counts them since version 7
            return bool(info["entries-added"] > info["length"])
        return bool(self._ask(lambda client: client.hget(STATE, "trimmed")))

    def _last_given(self) -> tuple[int, int]:
        """The last id that the stream has given to a message, in order."""
        return order(str(self._info().get("last-generated-id", "0-0")))

    def _info(self) -> dict[str, Any]:
        """What Redis tells of the stream; nothing if there is none."""
        if not self._ask(lambda client: client.exists(STREAM)):
            return {}
        return dict(self._ask(lambda client: client.xinfo_stream(STREAM)))

    def entry(self, message_id: str) -> Entry | None:
        """The message with this id, or None if it was deleted."""
        found = self._ask(lambda client: client.xrange(STREAM, message_id, message_id, 1))
        return _entry(*found[0]) if found else None

    def before_newest(self, message_id: str, count: int) -> str:
        """The id that the newest `count` messages follow, or the given id if fewer follow it."""
        whole_id = _whole_id(message_id)
        found = self._ask(lambda client: client.eval(_BEFORE_NEWEST, 1, STREAM, whole_id, count))
        return str(found or message_id)

    def newest(self) -> str:
        """The id of the newest message, `0-0` in an empty history."""
        found = self._ask(lambda client: client.xrevrange(STREAM, count=1))
        return _first_id(found)

    def follow(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever any server has appended something; never returns.

        After that it waits until somebody has read the history: a server that is behind is not
        woken again and again.
        """
        heard = self.start
        while True:
            try:
                heard = self._await_news(heard)
                self._looked.clear()
                wake()
                self._looked.wait()
            except HistoryError as error:
                log.error("nothing is heard of other servers: %s", error)
                time.sleep(_SLOW_RETRY)
            except Exception:
                log.exception("nothing is heard of other servers")
                time.sleep(_SLOW_RETRY)

    def _await_news(self, heard: str) -> str:
        """Wait until something follows this id; returns the id of the newest message."""
        while True:
            found = self._ask(lambda client: client.xread({STREAM: heard}, 1, _BLOCK))
            newest = self.newest()
            if found or order(newest) < order(heard):  # lower: a new stream may have begun
                return newest


class _Link:
    """The connections to Redis, and the patience with which it is asked. Any thread may call."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._away = threading.Lock()  # held by the thread that has logged that Redis is away
        self.client = self._connect()

    def _connect(self) -> Client:
        pool = redis.BlockingConnectionPool(**self._options)  # type: ignore[no-untyped-call]
        return redis.Redis(connection_pool=pool)

    def ask(self, question: Callable[[Client], Any], patience: float | None = None) -> Any:
        """Ask until Redis answers. The log gets a line when Redis goes, and one when it is back.

        With a `patience` in seconds it raises HistoryError after that time, and logs nothing.
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
        """Log that Redis is away, unless another thread has done so; whether this one did."""
        if not self._away.acquire(blocking=False):
            return False
        # As text: a log record that keeps the error would keep the old connections, too.
        log.warning("Redis is away, senders wait until it is back: %s", str(error))
        return True

    def _leave(self, client: Client, error: Exception) -> None:
        """Connect anew: behind the same address another server may be in charge by now.

        The old connections end when the last thread has let go of them.
        """
        if client is self.client and not isinstance(error, redis.TimeoutError):
            self.client = self._connect()


def _warn_if_memory_is_hidden(client: Client) -> None:
    """Say at the start if this user may not ask for the memory that --keep-bytes limits."""
    try:
        client.memory_usage(STREAM, samples=0)
    except redis.ResponseError as error:
        log.warning(
            "the bytes of the stream in Redis are not bounded, only its messages: %s", error
        )


def passes(error: redis.RedisError) -> bool:
    """Whether an error passes by itself, so that a caller who waits loses nothing."""
    return isinstance(error, _PASSING_ERRORS) or bool(_PASSING_WORDS.search(str(error)))


def _new_token() -> str:
    return f"{STREAM}:answered:{secrets.token_hex(8)}"


def _whole_id(message_id: str) -> str:
    """The id with its sequence, as Redis writes it. Raises ValueError for a malformed id."""
    milliseconds, sequence = order(message_id)
    return f"{milliseconds}-{sequence}"


def _first_id(found: list[Any]) -> str:
    """The id of the first entry that Redis has found, `0-0` if it has found none."""
    for message_id, _ in found:
        return str(message_id)
    return "0-0"


def _entry(message_id: Any, fields: Any) -> Entry:
    """An entry that another program may have written; what is not a message becomes empty."""
    if not isinstance(fields, dict):
        log.error("what Redis has under %.50r is not a message: %.100r", message_id, fields)
        fields = {}
    return make_entry(
        str(message_id),
        email=fields.get("email"),
        username=fields.get("username"),
        message=fields.get("message"),
        key=fields.get("key"),
    )


def _named(fields: list[Any]) -> dict[Any, Any]:
    """The fields of a script's answer, in which each name is followed by its value."""
    return dict(zip(fields[::2], fields[1::2], strict=False))


def _id_of_key(text: str) -> str:
    """The id that is stored under a key; `0-0` if another program has stored something else."""
    try:
        order(text)
    except ValueError:
        return "0-0"
    return text


def _checked(url: str) -> str:
    """The URL. Raises ValueError where nobody can say where its password ends."""
    if "@" in _after_authority(url):
        raise ValueError(
            "percent-encode each / ? and # in the name of the user and in the password"
        )
    return url


def _after_authority(url: str) -> str:
    """The path, query and fragment of a URL."""
    rest = url.partition("://")[2]
    authority = re.split("[/?#]", rest)[0]
    return rest[len(authority) :]


def _public(url: str) -> str:
    """The URL as it may be logged: without the user's name, the password, and options."""
    scheme, separator, rest = url.partition("://")
    if "@" in _after_authority(url):
        return f"{scheme}{separator}***"  # nobody can say where the password ends
    address = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}{separator}{'***@' if '@' in rest else ''}{address}"

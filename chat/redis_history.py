"""The history on a Redis stream, so that chat servers on many machines share one chat.

The id of a message is its id on the stream. `follow` notices what other servers have appended.

While Redis is away, each call waits until it is back. Meanwhile the threads of senders wait, TCP
slows their clients, and no connection is closed. Only a client that waits for what
was said before is told after a while that it cannot be read, and may try again. Redis 5 and
redis-py 5 are enough, as nothing newer is used. Redis Cluster is not supported: the keys would have
to share a slot.
"""

import copy
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis

from chat.entry import (
    KEEP,
    KEEP_BYTES,
    MAX_MESSAGE,
    MAX_OLDER,
    PAGE_CHARACTERS,
    Appended,
    Content,
    Entry,
    HistoryError,
    OlderPage,
    Page,
    make_entry,
    order,
)
from chat.redis_link import Client, Link

log = logging.getLogger("chat")

STREAM = "chat"
# A hash. Its field `trimmed` is set when messages were deleted from the stream for the first time;
# `unmeasured` counts the bytes that were written since the stream's memory was last measured.
STATE = "chat:state"
# A server misses a message that is deleted before it has read it. So the newest batches, which may
# come from several servers, are never deleted, whatever --keep and --keep-bytes say.
LEAST_KEEP = 10_000  # messages, which is more than ten batches
LEAST_BATCHES = 4  # batches of the largest possible size
# Two hashes: the id of each message by its key. When the first is full or old, it becomes the
# second, and what was in the second is deleted. So a key is known for an hour at least, or until
# MOST_KEYS others have come. All keys take 120 MB at most, as each takes some 120 bytes.
KEYS = "chat:keys"
OLDER_KEYS = "chat:keys:older"
KEY_LIFETIME = 3600  # seconds; clients resend within seconds, the page for 50 minutes
MOST_KEYS = 500_000  # of one hash; an hour long this is enough for 139 messages a second
ANSWER_LIFETIME = (
    86400  # seconds for which the answer to a batch is kept; Redis may be away for hours
)
# A Redis that comes back as it was earlier has lost the newest messages. What everybody has got
# already is not sent again, as long as no more than this were lost.
MOST_SEEN = 10_000  # ids, some 2 MB; Redis' default is to save after so many changes in a minute
MOST_ANEW = 500  # messages of a new stream that are sent to everybody who had the old one
_BLOCK = 1000  # milliseconds that Redis waits for a new message before it answers that none came
_SLOW_RETRY = 5.0  # seconds until `follow` tries again after an error that does not pass
_CANNOT_FOLLOW = "messages of other servers cannot be read, trying again in %g s"
# Appends a batch in one call. What is no id under a key was put there by another program, and the
# message counts as new. If the answer does not arrive, the call is repeated with the same
# token, and returns the first answer, so that nothing is appended twice. The call for the next
# batch deletes that answer. The memory of the stream is measured after each further hundredth of
# --keep-bytes that was written. Errors of MEMORY USAGE are ignored, because the messages are
# already written when it is called.
_APPEND = r"""
local stream, state, answered, forgotten = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keys, older_keys = KEYS[5], KEYS[6]
local key_lifetime, most_keys = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer_lifetime = ARGV[3]
local keep, keep_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local answer = redis.call('GET', answered)
if answer then return answer end
local left = redis.call('TTL', keys)
if (left >= 0 and left <= key_lifetime) or redis.call('HLEN', keys) >= most_keys then
  redis.call('UNLINK', older_keys)
  redis.call('RENAME', keys, older_keys)
  redis.call('EXPIRE', older_keys, key_lifetime)
end
local function known_id(key)
  for _, hash in ipairs({keys, older_keys}) do
    local id = redis.call('HGET', hash, key)
    if id and string.find(id, '^%d+%-%d+$') then return id end
  end
end
local lines, size = {}, 0
for i = 6, #ARGV, 4 do
  local key = ARGV[i+3]
  local id = key ~= '' and known_id(key)
  if id then
    lines[#lines+1] = 'known ' .. id
  else
    id = redis.call('XADD', stream, '*', 'email', ARGV[i], 'username', ARGV[i+1],
                    'message', ARGV[i+2], 'key', key)
    if key ~= '' then redis.call('HSET', keys, key, id) end
    lines[#lines+1] = 'new ' .. id
    size = size + #ARGV[i] + #ARGV[i+1] + #ARGV[i+2] + #key + 50
  end
end
if redis.call('TTL', keys) == -1 then redis.call('EXPIRE', keys, 2 * key_lifetime) end
local length, deleted = redis.call('XLEN', stream), 0
if length > keep + keep / 100 then
  deleted = redis.call('XTRIM', stream, 'MAXLEN', '~', keep)
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
    deleted = deleted + redis.call('XTRIM', stream, 'MAXLEN', length)
  end
end
if deleted > 0 then redis.call('HSET', state, 'trimmed', 1) end
answer = table.concat(lines, '\n')
redis.call('SET', answered, answer, 'EX', answer_lifetime)
redis.call('DEL', forgotten)
return answer
"""
# Returns whether an id is on the stream, whether more than a page follows it, and that page. The
# script reads a few messages at a time, so that Redis holds little more than the page in memory.
# Each read begins with the last message of the read before, because Redis before 6.2 has no ranges
# that exclude their beginning.
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
# Returns whether there are messages before the page that ends directly before an id, and that page,
# newest first. Like the script above it reads a few messages at a time.
_BEFORE = """
local before, most, full, few = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 10
local entries, size, last = {}, 0, before
while true do
  local found = redis.call('XREVRANGE', KEYS[1], last, '-', 'COUNT', few)
  for _, entry in ipairs(found) do
    local id, fields = entry[1], entry[2]
    if id ~= last then
      if #entries >= most or size >= full then return {1, entries} end
      entries[#entries+1] = entry
      size = size + 200
      for _, part in ipairs(fields) do size = size + #part end
    end
  end
  if #found < few then return {0, entries} end
  last = found[#found][1]
end
"""
# Returns the id that the newest messages follow. As a script, so that their texts stay in Redis.
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
# Returns the ids of the newest messages, the newest first.
_NEWEST_IDS = """
local most, ids, last, few = tonumber(ARGV[1]), {}, '+', 10
while #ids < most do
  local found = redis.call('XREVRANGE', KEYS[1], last, '-', 'COUNT', few)
  for _, entry in ipairs(found) do
    if entry[1] ~= last then ids[#ids+1] = entry[1] end
  end
  if #found < few then return ids end
  last = found[#found][1]
end
return ids
"""


class _Found(NamedTuple):
    """What the stream has behind an id, until a page is full."""

    entries: list[Entry]
    exact: bool  # The message with this id is on the stream, too.
    more: bool


class RedisHistory:
    """The history that many servers share. Any thread may call.

    A key is known for KEY_LIFETIME, even if its message is deleted, or until MOST_KEYS others have
    come. `max_message`, in bytes, is the
    largest message that the servers accept.
    """

    def __init__(
        self,
        url: str,
        keep: int = KEEP,
        keep_bytes: int = KEEP_BYTES,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        """Raises HistoryError if Redis does not answer, or cannot be written to."""
        largest_batch = 4 * PAGE_CHARACTERS + max_message  # a character has at most four bytes
        least_bytes = LEAST_BATCHES * largest_batch
        self._limits = [
            KEY_LIFETIME,
            MOST_KEYS,
            ANSWER_LIFETIME,
            max(keep, LEAST_KEEP),
            max(keep_bytes, least_bytes),
        ]
        # The token of the last batch whose answer has arrived.
        self._answered = f"{STREAM}:answered:none"
        self._appending = threading.Lock()  # held while a batch is appended; guards `_answered`
        self._looked = threading.Event()  # set when the history was read; `follow` waits for it
        self._patience: float | None = None  # seconds to wait for Redis; None is without limit
        self._link = Link(url)
        newest = self._link.ask_once(self._try_out)
        self.start = newest[0] if newest else "0-0"
        # The ids of the newest messages that were sent to everybody: those that were here at the
        # start, and those that `handle_messages` has read since.
        self._seen = OrderedDict.fromkeys(reversed(newest))

    def _try_out(self, client: Client) -> list[str]:
        """Find out whether all that is needed works; returns the newest ids, the newest first."""
        client.xrevrange(STREAM, count=1)  # its errors are clearer than those of a script
        newest: list[str] = client.eval(_NEWEST_IDS, 1, STREAM, MOST_ANEW)
        self._run_append(client, _new_token(), [])
        _warn_if_memory_is_hidden(client)
        return newest

    def close(self) -> None:
        """Close the connections, but those that a thread still uses: they end with the process."""
        self._link.close()

    def hurried(self, patience: float) -> "RedisHistory":
        """The same history, but while Redis is away reading it raises HistoryError after a while.

        That is after `patience`, in seconds, and up to an answer's timeout later if Redis takes
        connections, but does not answer.
        """
        hurried = copy.copy(self)
        hurried._patience = patience
        return hurried

    def _ask(self, question: Callable[[Client], Any]) -> Any:
        return self._link.ask(question, self._patience)

    # Writing

    def append(self, messages: Sequence[Content]) -> list[Appended]:
        """Append the messages whose key is not known; returns what was done with each, in order.

        After a HistoryError the messages may have been appended all the same.
        """
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
        keys = [STREAM, STATE, token, self._answered, KEYS, OLDER_KEYS]
        return str(client.eval(_APPEND, len(keys), *keys, *self._limits, *arguments))

    # Reading

    def since(self, message_id: str) -> Page:
        """The first page of what follows this id. Raises ValueError, HistoryError.

        If the message with this id is still on the stream, nothing that follows it was deleted.
        """
        whole_id = _whole_id(message_id)
        self._looked.set()
        found = self._find(whole_id)
        if found.exact:
            page = Page(found.entries, gap=False, more=found.more)
        elif found.entries:
            page = Page(found.entries, self._is_missing_before(whole_id), found.more)
        elif order(whole_id) > self._last_given():
            page = self._since_earlier()
        else:
            page = Page([], gap=False, more=False)
        self._note_seen(page.entries)
        return page

    def _find(self, whole_id: str) -> _Found:
        """Read what follows this id."""
        exact, more, found = self._ask(
            lambda client: client.eval(_SINCE, 1, STREAM, whole_id, PAGE_CHARACTERS)
        )
        entries = [_entry(found_id, _named(fields)) for found_id, fields in found]
        return _Found(entries, bool(exact), bool(more))

    def _is_missing_before(self, message_id: str) -> bool:
        """Whether messages after this id, which is not on the stream, may have been deleted.

        If exactly the messages up to this id were deleted, the answer is yes, although none is
        missing.
        """
        if self._ask(lambda client: client.xrevrange(STREAM, message_id, "-", 1)):
            return False
        if order(message_id) > (0, 0):
            return True  # the stream was trimmed, or it was deleted and began anew
        info = self._info()
        if "entries-added" in info:  # Redis counts them since version 7
            return bool(info["entries-added"] > info["length"])
        return bool(self._ask(lambda client: client.hget(STATE, "trimmed")))

    def _since_earlier(self) -> Page:
        """The page for a reader who has newer messages than Redis ever gave to this stream.

        Either Redis has come back as it was earlier, without its newest messages. The reader has
        got those, and all before them. Or the stream was deleted, and perhaps a new one began. Then
        messages may be missing, and the reader gets what is on the new one.
        """
        ids = self._ask(lambda client: client.eval(_NEWEST_IDS, 1, STREAM, MOST_ANEW))
        back_to = next((each for each in ids if each in self._seen), None)
        is_new = back_to is None
        if back_to is None:
            back_to = self.before_newest("0-0", MOST_ANEW)
        found = self._find(back_to)
        return Page(found.entries, is_new, found.more, back_to)

    def _note_seen(self, entries: Sequence[Entry]) -> None:
        """Note what `handle_messages` has read; what resuming clients read does not count."""
        if self._patience is not None:
            return
        for each in entries:
            self._seen[each.message_id] = None
        while len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)

    def _last_given(self) -> tuple[int, int]:
        """The id of the newest message that was ever on the stream, as numbers."""
        return order(str(self._info().get("last-generated-id", "0-0")))

    def _info(self) -> dict[str, Any]:
        """What XINFO STREAM returns; empty if there is no stream."""
        if not self._ask(lambda client: client.exists(STREAM)):
            return {}
        return dict(self._ask(lambda client: client.xinfo_stream(STREAM)))

    def entry(self, message_id: str) -> Entry | None:
        """The message with this id, or None if it was deleted."""
        found = self._ask(lambda client: client.xrange(STREAM, message_id, message_id, 1))
        return _entry(*found[0]) if found else None

    def before(self, message_id: str) -> OlderPage:
        """The messages directly before this id. Raises ValueError, HistoryError."""
        whole_id = _whole_id(message_id)
        more, found = self._ask(
            lambda client: client.eval(_BEFORE, 1, STREAM, whole_id, MAX_OLDER, PAGE_CHARACTERS)
        )
        entries = [_entry(found_id, _named(fields)) for found_id, fields in reversed(found)]
        return OlderPage(entries, bool(more))

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

        After each call it waits until the history was read, so that `wake` is not called again for
        messages that were not read yet.
        """
        heard = self.start
        while True:
            try:
                heard = self._await_news(heard)
                self._looked.clear()
                wake()
                self._looked.wait()
            except HistoryError as error:
                log.error(_CANNOT_FOLLOW + ": %s", _SLOW_RETRY, error)
                time.sleep(_SLOW_RETRY)
            except Exception:
                log.exception(_CANNOT_FOLLOW, _SLOW_RETRY)
                time.sleep(_SLOW_RETRY)

    def _await_news(self, heard: str) -> str:
        """Wait until there are messages after this id; returns the id of the newest one."""
        while True:
            found = self._ask(lambda client: client.xread({STREAM: heard}, 1, _BLOCK))
            newest = self.newest()
            # The newest id is lower if the stream was deleted and a new one has begun.
            if found or order(newest) < order(heard):
                return newest


def _warn_if_memory_is_hidden(client: Client) -> None:
    """Log a warning if the user of Redis has no right to the command that --keep-bytes needs."""
    try:
        client.memory_usage(STREAM, samples=0)
    except redis.ResponseError as error:
        log.warning(
            "--keep-bytes has no effect: this Redis user may not run MEMORY USAGE (%s)", error
        )


def _new_token() -> str:
    return f"{STREAM}:answered:{secrets.token_hex(8)}"


def _whole_id(message_id: str) -> str:
    """The id with both numbers, as Redis writes it. Raises ValueError for a malformed id."""
    milliseconds, sequence = order(message_id)
    return f"{milliseconds}-{sequence}"


def _first_id(found: list[Any]) -> str:
    """The id of the first entry that Redis has found, `0-0` if it has found none."""
    for message_id, _ in found:
        return str(message_id)
    return "0-0"


def _entry(message_id: Any, fields: Any) -> Entry:
    """Make an entry of what is on the stream, which another program may have written.

    What is not a message becomes an empty one.
    """
    if not isinstance(fields, dict):
        log.error("the entry %.50r in Redis is not a message: %.100r", message_id, fields)
        fields = {}
    return make_entry(
        str(message_id),
        email=fields.get("email"),
        username=fields.get("username"),
        message=fields.get("message"),
        key=fields.get("key"),
    )


def _named(fields: list[Any]) -> dict[Any, Any]:
    """The fields of a message by their names, from a list of names each followed by its value."""
    return dict(zip(fields[::2], fields[1::2], strict=False))


def _id_of_key(text: str) -> str:
    """The id that is stored for a key; `0-0` if another program has stored something else."""
    try:
        order(text)
    except ValueError:
        return "0-0"
    return text

"""The numbered log on a Redis stream, so that chat servers on many machines share one chat.

Ids are the stream's. What one server appends comes back to all of them, itself too, by `follow`.
Where Redis is away, whoever calls waits until it is back: a sender's thread, and through TCP its
client; nobody's connection ends. Left out: Redis Cluster, whose keys would have to share a slot.
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chat_entry import KEPT, MOST, Entry, Fields, LogFailed

log = logging.getLogger("chat")

STREAM = "chat"
LEAST_KEPT = 10_000  # messages; what is trimmed before a slow server has read it is lost for it
KEY_KEPT = 86400  # seconds for which a message's key is known; resending takes seconds
_RETRY, _WAIT = 0.2, 5.0  # seconds between two attempts to reach Redis, and for it to answer
# One call for a batch, and nothing in it twice: an answer that got lost is asked for again.
_APPEND = """
for i = 2, #ARGV, 5 do
  local key = KEYS[1] .. ':key:' .. ARGV[i]
  if redis.call('EXISTS', key) == 0 then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', KEPT, '*', 'email', ARGV[i+1],
               'username', ARGV[i+2], 'message', ARGV[i+3], 'key', ARGV[i+4])
    redis.call('SET', key, '', 'EX', ARGV[1])
  end
end
"""


class RedisLog:
    """Does for many servers what ChatLog does for one. Any thread may call."""

    def __init__(self, url: str, kept: int = KEPT) -> None:
        """Raises LogFailed where Redis can't be reached, or is none."""
        kept = max(kept, LEAST_KEPT)
        try:
            self._redis = redis.Redis.from_url(
                url,
                decode_responses=True,
                encoding_errors="replace",  # others may write to the stream, too
                socket_timeout=_WAIT,
                socket_connect_timeout=_WAIT,
                retry=Retry(NoBackoff(), 0),  # ours waits for as long as it takes
            )
            self._append = self._redis.register_script(_APPEND.replace("KEPT", str(kept)))
            newest: Any = self._redis.xrevrange(STREAM, count=1)
        except (redis.RedisError, ValueError) as error:
            raise LogFailed(f"{url}: {error}") from error
        self.start = self._followed = newest[0][0] if newest else "0-0"
        self._away = threading.Lock()  # held from the log line to the next

    def append(self, messages: Sequence[Fields]) -> list[Entry]:
        """Put the messages on the stream, unless their key is known; they come back by `follow`."""
        if messages:
            arguments: list[str | int] = [KEY_KEPT]
            for email, username, message, key in messages:
                token = uuid.uuid4().hex if key is None else f"client:{key}"
                arguments += [token, email, username, message, key or ""]
            self._patiently(self._append, [STREAM], arguments)
        return []

    def since(self, message_id: str, limit: int = MOST) -> tuple[list[Entry], bool]:
        """The newest `limit` messages after an id, oldest first, and whether there were more."""
        asked = (STREAM, "+", f"({message_id}", limit + 1)
        found = self._patiently(self._redis.xrevrange, *asked)
        return [_entry(*each) for each in reversed(found[:limit])], len(found) > limit

    def newest(self) -> str:
        """The id of the newest message, `0-0` where there is none."""
        found = self._patiently(self._redis.xrevrange, STREAM, "+", "-", 1)
        return str(found[0][0]) if found else "0-0"

    def follow(self, deliver: Callable[[Entry], None]) -> None:
        """Hand over everything that any server appends, in order; never returns."""
        while True:
            try:
                found = self._patiently(self._redis.xread, {STREAM: self._followed}, 1000, 1000)
            except LogFailed as error:
                log.error("nothing is heard of other servers: %s", error)
                time.sleep(_WAIT)
                continue
            for each in found[0][1] if found else ():
                deliver(_entry(*each))
                self._followed = each[0]

    def _patiently(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """Ask until Redis answers; a log line when it goes, and one when it comes."""
        while True:
            try:
                answer = ask(*arguments)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if self._away.acquire(blocking=False):  # of all threads that meet it, one says so
                    log.warning("Redis is away, senders wait until it is back: %s", error)
                time.sleep(_RETRY)
            except redis.RedisError as error:
                raise LogFailed(f"Redis: {error}") from error
            else:
                if self._away.locked():
                    with contextlib.suppress(RuntimeError):  # another thread was faster
                        self._away.release()
                        log.warning("Redis is back")
                return answer


def _entry(message_id: str, fields: dict[str, str]) -> Entry:
    email, username, message = (fields.get(name, "") for name in ("email", "username", "message"))
    return message_id, (email, username, message, fields.get("key") or None)

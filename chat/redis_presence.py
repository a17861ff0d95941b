"""Who is here on all servers that share a Redis: each tells its own people, and reads the others'.

Each server has a random id. Every INTERVAL it runs one script, which writes the people of this
server if they have changed, removes servers that have been silent for LIFETIME, and returns the
others if anything has changed. So the people of a server that was killed vanish by themselves, and
a server that ends in order takes its own away at once. The time is that of Redis, so the clocks of
the servers do not matter.

A thread of its own does this, so that nobody else ever waits for it. While Redis is away, this
server goes on counting its own people. Those of the others count for LIFETIME, as they would for
Redis, and then no more.

A client that a killed server leaves behind and that comes to another one counts twice until the
killed server's people vanish.
"""

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from chat.entry import MAX_USERNAME, HistoryError
from chat.message import encode_event
from chat.presence import NAMES_TOLD, NOBODY, Here, names_to_tell
from chat.redis_link import Client, Link

log = logging.getLogger("chat")

SERVERS = "chat:servers"  # a sorted set: the ids of the servers, and when each one ends
# A hash: what each server tells of its people, as JSON, by the server's id. Its field `version` is
# different after each change.
HERE = "chat:here"
INTERVAL = 1.0  # seconds between two exchanges
LIFETIME = 20.0  # seconds after which the people of a silent server are not counted any more
CLOSE_TIME = 0.5  # seconds in which a server that ends takes its people away; Redis may be away
_SLOW_RETRY = 10.0  # seconds after an error that nobody foresaw
_MOST_COUNTED = 1 << 32  # of one server; other programs may write to Redis, too
# An empty text in place of the people means that the server ends. The time at which a server ends
# is only written when a quarter of its lifetime is over, so that a quiet chat seldom writes.
#
# Redis without memory refuses a script only at its first write, and ZREMRANGEBYSCORE it never
# refuses. So this goes on even then. What it adds is little, and vanishes.
_EXCHANGE = """
local servers, here = KEYS[1], KEYS[2]
local me, people, seen, lifetime = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local changed, refreshed = false, false
local gone = redis.call('ZRANGEBYSCORE', servers, '-inf', now)
redis.call('ZREMRANGEBYSCORE', servers, '-inf', now)
for _, id in ipairs(gone) do
  redis.call('HDEL', here, id)
  changed = true
end
local ends = redis.call('ZSCORE', servers, me)
if people == '' then
  redis.call('ZREM', servers, me)
  redis.call('HDEL', here, me)
  changed = true
else
  if redis.call('HGET', here, me) ~= people then
    redis.call('HSET', here, me, people)
    changed = true
  end
  if not ends then changed = true end
  if not ends or tonumber(ends) < now + lifetime * 3 / 4 then
    redis.call('ZADD', servers, now + lifetime, me)
    refreshed = true
  end
end
if changed then
  redis.call('HSET', here, 'version', me .. ' ' .. time[1] .. ' ' .. time[2])
end
if changed or refreshed then
  redis.call('EXPIRE', servers, math.ceil(lifetime))
  redis.call('EXPIRE', here, math.ceil(lifetime))
end
local version = redis.call('HGET', here, 'version') or ''
if version == seen then return {version} end
local others = {}
for _, id in ipairs(redis.call('ZRANGE', servers, 0, -1)) do
  if id ~= me then others[#others+1] = redis.call('HGET', here, id) or '' end
end
return {version, others}
"""


class RedisPresence:
    """Exchanges who is here with the other servers, in its `thread`, which `close` ends."""

    def __init__(
        self, url: str, here: Callable[[], Here], note_elsewhere: Callable[[Here], None]
    ) -> None:
        """`here` returns who is here on this server, and `note_elsewhere` gets the others.

        Raises HistoryError for a malformed URL.
        """
        self._link = Link(url)
        self._here = here
        self._note_elsewhere = note_elsewhere
        self._id = secrets.token_hex(8)
        self._version = ""  # of the last answer
        self._heard_at = float("-inf")  # when Redis has answered last, by time.monotonic
        self._has_complained = False
        self._closed = threading.Event()
        self.thread = threading.Thread(target=self._run, name="redis-presence", daemon=True)

    def close(self) -> None:
        """Take the people of this server away from the others. Waits CLOSE_TIME at most."""
        self._closed.set()
        self.thread.join(CLOSE_TIME)

    def _run(self) -> None:
        pause = 0.0
        while not self._closed.wait(pause):
            pause = INTERVAL
            try:
                self._exchange()
            except Exception:
                log.exception("who is here on other servers could not be read")
                pause = _SLOW_RETRY
        try:
            self._ask("")
        except HistoryError as error:
            log.warning("the other servers count the clients of this one for a while: %s", error)

    def _exchange(self) -> None:
        """Tell who is here, and note who is elsewhere. If Redis is away, try no second time."""
        try:
            version, *changes = self._ask(_encode(self._here()))
        except HistoryError as error:
            self._do_without(error)
            return
        self._heard_at = time.monotonic()
        if self._has_complained:
            self._has_complained = False
            log.warning("the clients of all servers are counted again")
        self._version = version
        for others in changes:
            self._note_elsewhere(_sum([_decode(people) for people in others]))

    def _ask(self, people: str) -> Any:
        def question(client: Client) -> Any:
            keys = [SERVERS, HERE]
            arguments = [self._id, people, self._version, LIFETIME]
            return client.eval(_EXCHANGE, len(keys), *keys, *arguments)

        return self._link.ask_once(question)

    def _do_without(self, error: HistoryError) -> None:
        """Count the others no more, and log it once, if Redis has been away for LIFETIME."""
        if self._has_complained or time.monotonic() < self._heard_at + LIFETIME:
            return
        self._has_complained = True
        self._version = ""
        self._note_elsewhere(NOBODY)
        log.warning(
            "only this server's clients are counted: Redis does not tell of others: %s", error
        )


def _encode(here: Here) -> str:
    return encode_event({"count": here.clients, "usernames": here.usernames})


def _decode(text: object) -> Here:
    """Who is here on another server. What is not of a chat server counts as nobody."""
    try:
        people = json.loads(str(text))
        count = min(max(0, int(people["count"])), _MOST_COUNTED)
        usernames = tuple(_text(name)[:MAX_USERNAME] for name in people["usernames"][:NAMES_TOLD])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return NOBODY
    return Here(count, usernames)


def _text(name: object) -> str:
    """A name as text that can be sent: JSON can escape half a surrogate pair, and UTF-8 has none.

    One such name would keep every client from learning who is here.
    """
    return str(name).encode(errors="replace").decode()


def _sum(all_people: list[Here]) -> Here:
    """The people of several servers together."""
    names = [name for people in all_people for name in people.usernames]
    return Here(sum(people.clients for people in all_people), names_to_tell(names))

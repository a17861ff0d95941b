"""Beginning what the command line asks for: the history, and telling who is here."""

import threading
from collections.abc import Callable

from chat.entry import History, HistoryError
from chat.history import SqliteHistory
from chat.options import Options
from chat.presence import Presence


def open_history(options: Options, wake: Callable[[], None]) -> History:
    """Open the history: in a file, on Redis, or else in memory.

    With Redis, `wake` is called when any server has appended something, in a thread of its own.
    Raises HistoryError.
    """
    if not options.redis:
        return SqliteHistory(options.history, options.most_messages, options.most_bytes)
    try:
        from chat.redis_history import RedisHistory  # here, because the others need no redis-py
    except ImportError:
        raise HistoryError("--redis needs a package: pip install redis") from None
    history = RedisHistory(
        options.redis, options.most_messages, options.most_bytes, options.max_message
    )
    try:
        threading.Thread(target=history.follow, args=(wake,), daemon=True).start()
    except RuntimeError as error:  # a limit of the system or of a container is reached
        raise HistoryError(f"no thread to follow Redis: {error}") from None
    return history


def start_presence(
    options: Options, presence: Presence, start: Callable[[threading.Thread], object]
) -> None:
    """Begin to tell clients who is here: on all servers that share a Redis, or without it on this.

    `start` starts a thread. With Redis, `presence.close` tells the other servers that nobody is
    here any more. Raises HistoryError for a malformed URL. To be called after `open_history`.
    """
    start(threading.Thread(target=presence.tell_changes, daemon=True))
    if not options.redis:
        return
    from chat.redis_presence import RedisPresence  # here, because the others need no redis-py

    sharing = RedisPresence(options.redis, presence.here, presence.note_elsewhere)
    start(sharing.thread)
    presence.share(sharing.close)

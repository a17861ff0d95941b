"""The command line of `chat_server.py`, and the log that it asks for."""

import argparse
import threading
from collections.abc import Callable

from chat_entry import KEPT, KEPT_BYTES, MAX_MESSAGE, Log, LogFailed
from chat_log import ChatLog
from command_line import add_server_options

MAX_COUNT = 1 << 53  # what every other program, Redis and SQLite too, takes for a whole number


def read_options(options: argparse.Namespace) -> None:
    """Parse the command line into `options`; exits with status 2 and a line where it is wrong."""
    parser = argparse.ArgumentParser(description="A chat over WebSockets.")
    add_server_options(parser, port=8000)
    _add_history(parser)
    parser.add_argument(
        "--rate", type=float, default=20, help="messages a second per client; 0: any (%(default)g)"
    )
    parser.add_argument("--max-message", type=int, default=65536, help="bytes (%(default)s)")
    parser.add_argument("--max-clients", type=int, default=10000, help="(%(default)s)")
    parser.add_argument("--hide-emails", action="store_true", help="send them to nobody")
    parser.add_argument("--all-cores", action="store_true", help="do not keep to one, which pays")
    parser.add_argument(
        "--deflate",
        action="store_true",
        help="compress for clients that offer it; a browser then compresses every little message, "
        "which costs a small chat more than it saves",
    )
    parser.parse_args(namespace=options)
    _check(parser, options)


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--history", metavar="FILE", help="keep what was said in this file")
    parser.add_argument(
        "--keep",
        type=int,
        default=KEPT,
        metavar="N",
        help="keep the newest N messages (%(default)s)",
    )
    parser.add_argument(
        "--keep-bytes",
        type=int,
        default=KEPT_BYTES,
        metavar="N",
        help="of them, those that fit into N bytes of memory or of the file (%(default)s)",
    )
    parser.add_argument("--redis", metavar="URL", help="share the chat of a redis://host:6379/0")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    counts = (options.max_message, options.max_clients, options.keep, options.keep_bytes)
    if not 0 <= options.rate < 1e9 or not 1 <= min(counts) <= max(counts) <= MAX_COUNT:
        parser.error(
            "--rate, --max-message, --max-clients, --keep and --keep-bytes are positive numbers"
        )
    if options.max_message > MAX_MESSAGE:
        parser.error(f"--max-message is at most {MAX_MESSAGE}")
    if options.history == "":
        parser.error("--history wants the name of a file")
    if options.redis == "":
        parser.error("--redis wants a URL, redis://localhost:6379/0 for one")
    if options.history and options.redis:
        parser.error("--history and --redis are two places for one log")


def open_log(options: argparse.Namespace, look_for_news: Callable[[], None]) -> Log:
    """The log that was asked for; called is who looks what came through Redis. Raises LogFailed."""
    if not options.redis:
        return ChatLog(options.history, options.keep, options.keep_bytes)
    try:
        from chat_redis import RedisLog
    except ImportError:
        raise LogFailed("--redis needs a package: pip install redis") from None
    redis_log = RedisLog(options.redis, options.keep, options.keep_bytes)
    threading.Thread(target=redis_log.follow, args=(look_for_news,), daemon=True).start()
    return redis_log

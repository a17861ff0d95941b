"""The command line of `chat_server.py`, and the log that it asks for."""

import argparse
import threading
from collections.abc import Callable

from chat_entry import KEPT, Entry, Log, LogFailed
from chat_log import ChatLog
from command_line import add_server_options


def read_options(options: argparse.Namespace) -> None:
    """Parse the command line into `options`; exits with status 2 and a line where it is wrong."""
    parser = argparse.ArgumentParser(description="A chat over WebSockets.")
    add_server_options(parser, port=8000)
    parser.add_argument("--history", metavar="FILE", help="keep what was said in this file")
    parser.add_argument(
        "--keep", type=int, default=KEPT, metavar="N", help="of it the newest N (%(default)s)"
    )
    parser.add_argument("--redis", metavar="URL", help="share the chat of a redis://host:6379/0")
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
    counts = (options.max_message, options.max_clients, options.keep)
    if not 0 <= options.rate < 1e9 or min(counts) < 1:
        parser.error("--rate, --max-message, --max-clients and --keep are positive numbers")
    if options.history and options.redis:
        parser.error("--history and --redis are two places for one log")


def open_log(options: argparse.Namespace, deliver: Callable[[Entry], None]) -> Log:
    """The log that was asked for; `deliver` gets what comes through Redis. Raises LogFailed."""
    if not options.redis:
        return ChatLog(options.history or ":memory:", options.keep)
    try:
        from chat_redis import RedisLog
    except ImportError:
        raise LogFailed("--redis needs a package: pip install redis") from None
    redis_log = RedisLog(options.redis, options.keep)
    threading.Thread(target=redis_log.follow, args=(deliver,), daemon=True).start()
    return redis_log

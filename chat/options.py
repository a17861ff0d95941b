"""The command line of `chat_server.py`, and the log that it asks for."""

import argparse
import threading
from collections.abc import Callable

from chat.entry import KEPT, KEPT_BYTES, MAX_MESSAGE, Log, LogFailed
from chat.history import ChatLog
from command_line import add_server_options

LEAST_RATE = 0.01  # messages a second: a client that says too much waits for minutes, not for years
MOST_RATE = 1e9
MAX_COUNT = 1 << 53  # what every other program, Redis and SQLite too, takes for a whole number


def read_options(options: argparse.Namespace) -> None:
    """Parse the command line into `options`; exits with status 2 and a line where it is wrong."""
    parser = argparse.ArgumentParser(description="A chat over WebSockets.")
    add_server_options(parser, port=8000)
    _add_history(parser)
    _add_limits(parser)
    parser.add_argument(
        "--hide-emails",
        action="store_true",
        help="do not show the email that somebody types to the others; the picture that belongs "
        "to it is still shown (emails are shown)",
    )
    parser.add_argument(
        "--all-cores",
        action="store_true",
        help="let the server use all processor cores; it is usually slower then, as Python runs "
        "one thread at a time (it keeps to one core)",
    )
    parser.add_argument(
        "--deflate",
        action="store_true",
        help="compress for clients that offer it; a browser then compresses every little message, "
        "which costs a small chat more than it saves",
    )
    parser.parse_args(namespace=options)
    _check(parser, options)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate",
        type=float,
        default=20,
        metavar="N",
        help="messages a second that one client may say; a faster one is slowed down and loses "
        "nothing, and three seconds' worth may come at once; 0 is no limit (%(default)g)",
    )
    parser.add_argument(
        "--max-message",
        type=int,
        default=65536,
        metavar="BYTES",
        help="the largest message that a client may send; a larger one ends its connection "
        "(%(default)s)",
    )
    parser.add_argument(
        "--max-clients",
        type=int,
        default=10000,
        metavar="N",
        help="how many can be in the chat at once; whoever comes when it is full is told so and "
        "may try again (%(default)s)",
    )


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--history",
        metavar="FILE",
        help="keep what was said in this file, so that it is there after a restart; the file is "
        "made where there is none (what was said is kept in memory, until the server ends)",
    )
    parser.add_argument(
        "--keep",
        type=int,
        default=KEPT,
        metavar="N",
        help="keep the newest N messages and delete older ones; on Redis at least 10000 stay "
        "(%(default)s)",
    )
    parser.add_argument(
        "--keep-bytes",
        type=int,
        default=KEPT_BYTES,
        metavar="BYTES",
        help="delete the oldest messages, too, when all of them take more than this in memory, "
        "in the file or on Redis, where some megabytes stay at least (%(default)s)",
    )
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="keep what was said on a Redis server, such as redis://localhost:6379/0; all chat "
        "servers with the same URL are one chat (none)",
    )


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    # NaN is in no range.
    if not (options.rate == 0 or LEAST_RATE <= options.rate <= MOST_RATE):
        parser.error(f"--rate is 0, for no limit, or from {LEAST_RATE:g} to {MOST_RATE:.0f}")
    _check_count(parser, "--max-message", options.max_message, MAX_MESSAGE)
    _check_count(parser, "--max-clients", options.max_clients)
    _check_count(parser, "--keep", options.keep)
    _check_count(parser, "--keep-bytes", options.keep_bytes)
    if options.history == "":
        parser.error("--history wants the name of a file")
    if options.redis == "":
        parser.error("--redis wants a URL, redis://localhost:6379/0 for one")
    if options.history and options.redis:
        parser.error("--history and --redis are two places for one log")


def _check_count(
    parser: argparse.ArgumentParser, name: str, value: int, most: int = MAX_COUNT
) -> None:
    if not 1 <= value <= most:
        parser.error(f"{name} is a whole number from 1 to {most}")


def open_log(options: argparse.Namespace, look_for_news: Callable[[], None]) -> Log:
    """The log that was asked for; called is who looks what came through Redis. Raises LogFailed."""
    if not options.redis:
        return ChatLog(options.history, options.keep, options.keep_bytes)
    try:
        from chat.redis_history import RedisLog
    except ImportError:
        raise LogFailed("--redis needs a package: pip install redis") from None
    redis_log = RedisLog(options.redis, options.keep, options.keep_bytes, options.max_message)
    threading.Thread(target=redis_log.follow, args=(look_for_news,), daemon=True).start()
    return redis_log

"""The command line of `chat_server.py` as a typed value; `--help` shows it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from chat.entry import KEEP, KEEP_BYTES, MAX_MESSAGE
from command_line import add_server_options

MIN_RATE = 0.1  # messages a second; a client that sends too much is not heard for 10 s at most
MAX_RATE = 1e9  # messages a second
MAX_COUNT = 1 << 53  # the largest whole number that every other program takes for one


@dataclass(frozen=True)
class Options:
    """What the command line asks for; each field is the flag of its name, with its default."""

    host: str = "127.0.0.1"
    port: int = 8000
    allow_origin: Sequence[str] = ()
    allow_host: Sequence[str] = ()
    history: str | None = None  # a file; None is memory
    keep: int = KEEP  # messages
    keep_bytes: int = KEEP_BYTES
    redis: str | None = None  # a URL
    rate: float = 20  # messages a second for each client; 0 is no limit
    max_message: int = 65536  # bytes
    max_clients: int = 10_000
    hide_emails: bool = False
    all_cores: bool = False
    deflate: bool = False


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """Parse these arguments, or those of the process.

    If they are wrong, prints a line that says why and exits with status 2.
    """
    parser = argparse.ArgumentParser(
        description="A chat for everyone who opens its page in a browser.",
        epilog="Without options the page is at http://localhost:8000, for this computer only.",
    )
    add_server_options(parser, port=Options.port)
    _add_history(parser)
    _add_limits(parser)
    _add_switches(parser)
    options = Options(**vars(parser.parse_args(arguments)))
    _check(parser, options)
    return options


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--history",
        metavar="FILE",
        help="keep what was said in this file, so that it is still there after a restart; the "
        "file is made if it does not exist (default: keep it in memory until the server ends)",
    )
    parser.add_argument(
        "--keep",
        type=int,
        default=Options.keep,
        metavar="N",
        help="keep the newest N messages and delete older ones; on Redis at least 10000 are kept "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--keep-bytes",
        type=int,
        default=Options.keep_bytes,
        metavar="BYTES",
        help="also delete the oldest messages when all messages together take more than this in "
        "memory, in the file or on Redis; on Redis some megabytes are always kept "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="keep what was said on a Redis server, such as redis://localhost:6379/0; all chat "
        "servers with the same URL form one chat (default: no Redis)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate",
        type=float,
        default=Options.rate,
        metavar="N",
        help="let each client send N messages a second; a faster client is slowed down and loses "
        "nothing, and as many as fit in three seconds may come at once; 0 means no limit "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--max-message",
        type=int,
        default=Options.max_message,
        metavar="BYTES",
        help="the largest message that a client may send; a larger one ends its connection "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--max-clients",
        type=int,
        default=Options.max_clients,
        metavar="N",
        help="how many clients can be in the chat at once; when it is full, others are told so "
        "and may try again (default: %(default)s)",
    )


def _add_switches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hide-emails",
        action="store_true",
        help="do not show the email addresses that people type to the others; the pictures that "
        "belong to them are still shown (default: emails are shown)",
    )
    parser.add_argument(
        "--all-cores",
        action="store_true",
        help="let the server use all processor cores; this usually makes it slower, because "
        "Python runs one thread at a time (default: use one core)",
    )
    parser.add_argument(
        "--deflate",
        action="store_true",
        help="compress messages for clients that offer it; browsers then compress every short "
        "message too, which costs a small chat more than it saves (default: no compression)",
    )


def _check(parser: argparse.ArgumentParser, options: Options) -> None:
    """Exit with a line that says what is wrong, if anything is."""
    # NaN is in no range.
    if not (options.rate == 0 or MIN_RATE <= options.rate <= MAX_RATE):
        parser.error(f"--rate must be 0, for no limit, or from {MIN_RATE:g} to {MAX_RATE:.0f}")
    _check_count(parser, "--max-message", options.max_message, MAX_MESSAGE)
    _check_count(parser, "--max-clients", options.max_clients)
    _check_count(parser, "--keep", options.keep)
    _check_count(parser, "--keep-bytes", options.keep_bytes)
    if options.history == "":
        parser.error("--history needs the name of a file")
    if options.redis == "":
        parser.error("--redis needs a URL, for example redis://localhost:6379/0")
    if options.history and options.redis:
        parser.error("--history and --redis cannot be used together: there is one history")


def _check_count(
    parser: argparse.ArgumentParser, name: str, value: int, most: int = MAX_COUNT
) -> None:
    if not 1 <= value <= most:
        parser.error(f"{name} must be a whole number from 1 to {most}")

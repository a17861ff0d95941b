"""The command line of `chat_server.py`, with its help, its ranges and its defaults."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from chat.entry import KEEP, KEEP_BYTES, MAX_MESSAGE
from command_line import (
    MAX_CLIENTS,
    MAX_COUNT,
    OTHER_FILES,
    REDIS_FILES,
    add_server_options,
    check_server_options,
    whole_number,
)

MIN_RATE = 0.1  # messages a second; each message of a client then waits for ten seconds at most
MAX_RATE = 1e9  # messages a second


@dataclass(frozen=True)
class Options:
    """The values of the options. Each field has the name and the default of its option."""

    host: str = "127.0.0.1"
    port: int = 8000
    allow_origin: Sequence[str] = ()
    allow_host: Sequence[str] = ()
    trust_proxy: Sequence[str] = ()  # IP addresses and networks
    cert: str | None = None  # a file name; None means without TLS
    key: str | None = None  # a file name; None means that it is in the file `cert`
    max_per_address: int | None = None  # connections; None is no limit
    history: str | None = None  # a file name; None keeps the history in memory
    keep: int = KEEP  # messages; 0 is no limit
    keep_bytes: int = KEEP_BYTES  # bytes; 0 is no limit
    redis: str | None = None  # a URL; None means without Redis
    rate: float = 20  # messages a second for each client; 0 is no limit
    max_message: int = 65536  # bytes
    max_clients: int = MAX_CLIENTS
    hide_emails: bool = False
    all_cores: bool = False
    deflate: bool = False
    trace: bool = False

    @property
    def most_messages(self) -> int:
        """`keep`, or a number that nobody reaches."""
        return self.keep or MAX_COUNT

    @property
    def most_bytes(self) -> int:
        """`keep_bytes`, or a number that nobody reaches."""
        return self.keep_bytes or MAX_COUNT

    @property
    def other_files(self) -> int:
        """How many files the chat may have open besides the connections of its clients."""
        return OTHER_FILES + (REDIS_FILES if self.redis else 0)


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """Parse these arguments, or those of the process.

    If one is wrong, this prints a line that says why, and exits with status 2.
    """
    parser = argparse.ArgumentParser(
        description="A chat for everyone who opens its web page in a browser.",
        epilog="Without options the web page is at http://localhost:8000, for this computer only.",
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
        help="keep the messages in this file, so that they are still there after a restart; the "
        "file is made if it does not exist (default: keep them in memory until the server ends)",
    )
    parser.add_argument(
        "--keep",
        type=whole_number(zero_is_no_limit=True),
        default=Options.keep,
        metavar="N",
        help="keep the newest N messages, and delete older ones; N is from 1 to "
        f"{MAX_COUNT}, or 0 for no limit, and on Redis at least 10000 messages are kept "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--keep-bytes",
        type=whole_number(zero_is_no_limit=True),
        default=Options.keep_bytes,
        metavar="BYTES",
        help="also delete the oldest messages when all together take more than this in memory, in "
        f"the file or on Redis; from 1 to {MAX_COUNT}, or 0 for no limit, but on Redis at least "
        "four batches of messages are kept, some 2400000 bytes with the default --max-message; if "
        "both limits are 0, nothing is ever deleted, and the disk may fill (default: %(default)s)",
    )
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="keep the messages on a Redis server, such as redis://localhost:6379/0; all chat "
        "servers with the same URL form one chat; rediss:// is for TLS, unix:// for a socket of "
        "this machine, and redis+sentinel://HOST:PORT,HOST:PORT/MASTER/0 for a master that "
        "Sentinels know (default: no Redis)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate",
        type=float,
        default=Options.rate,
        metavar="N",
        help="let each client send N messages a second; a faster client is slowed down and loses "
        "nothing, and after a pause it may send those of three seconds at once; N is from "
        f"{MIN_RATE:g} to {MAX_RATE:.0f}, or 0 for no limit (default: %(default)g)",
    )
    parser.add_argument(
        "--max-message",
        type=whole_number(MAX_MESSAGE),
        default=Options.max_message,
        metavar="BYTES",
        help="the largest message that a client may send; a larger one ends its connection; from "
        f"1 to {MAX_MESSAGE} (default: %(default)s)",
    )
    parser.add_argument(
        "--max-clients",
        type=whole_number(),
        default=Options.max_clients,
        metavar="N",
        help="how many clients can be in the chat at once; when it is full, others are told so "
        f"and may try again; N is from 1 to {MAX_COUNT} (default: %(default)s)",
    )


def _add_switches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hide-emails",
        action="store_true",
        help="do not send the email addresses that people type to anybody; the SHA-256 of each "
        "address is still sent, for its picture, so that anybody can test a guess "
        "(default: addresses are sent)",
    )
    parser.add_argument(
        "--all-cores",
        action="store_true",
        help="let the server use all processor cores; this usually makes it slower, because "
        "Python runs one thread at a time (default: use one core, or all with --deflate)",
    )
    parser.add_argument(
        "--deflate",
        action="store_true",
        help="compress messages for clients that offer it; worth it only for long messages over "
        "slow networks (default: no compression)",
    )


def _check(parser: argparse.ArgumentParser, options: Options) -> None:
    """If an option is wrong, exit with a line that says why."""
    check_server_options(parser, options)
    # Written so that NaN, which compares as false with every number, is refused.
    if not (options.rate == 0 or MIN_RATE <= options.rate <= MAX_RATE):
        parser.error(f"--rate must be 0, for no limit, or from {MIN_RATE:g} to {MAX_RATE:.0f}")
    if options.history == "":
        parser.error("--history needs the name of a file")
    if options.redis == "":
        parser.error("--redis needs a URL, for example redis://localhost:6379/0")
    if options.history and options.redis:
        parser.error("--history and --redis cannot be used together: there is one history")

"""What the servers have in common as programs: options, advice, and how they use the processor."""

import argparse
import contextlib
import os
import shlex
import sys

from rfc6455 import Refused
from rfc6455.handshake import Authority, Origin


def add_server_options(parser: argparse.ArgumentParser, port: int) -> None:
    """Add --host, --port (with this default), --allow-origin and --allow-host to a parser."""
    parser.add_argument(
        "--host",
        type=_address,
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 is every one that this machine has (%(default)s)",
    )
    parser.add_argument("--port", type=int, default=port, help="0 picks a free one (%(default)s)")
    parser.add_argument(
        "--allow-origin",
        type=_origin,
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let in the pages of another site, such as https://chat.example; * is every site; "
        "may be given several times",
    )
    parser.add_argument(
        "--allow-host",
        type=_host,
        action="append",
        default=[],
        metavar="HOST",
        help="answer to this name, such as chat.example; a server on a loopback address, and "
        "every server with this option, answers to no other names or addresses than these, "
        "localhost, and the address it listens on; may be given several times",
    )


def advise(refused: Refused) -> str:
    """How to allow what the server has refused, for those who read its answer or its log."""
    # Quoted where a shell would take it apart: the brackets of an IPv6 address are a pattern.
    return f"--allow-{refused.header.lower()} {shlex.quote(refused.value)} allows it"


def hold_to_one_core() -> None:
    """Keep the process to one processor core, where that makes it faster.

    Under the interpreter's lock one thread runs at a time, and with several busy connections the
    lock is handed from core to core at each system call: a hundred echo clients got half of what
    one core gives them. It is not for programs that work long without the lock, as in compression,
    and a free-threaded interpreter has no such lock. On Linux only; elsewhere nothing happens.
    """
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()  # Python 3.13 can be without
    if has_lock and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        core = cores[os.getpid() % len(cores)]  # several servers take different ones
        with contextlib.suppress(OSError):  # a container may forbid it; then it is only slower
            os.sched_setaffinity(0, {core})


def _address(text: str) -> str:
    if not text:  # Python would take it for every address of the machine
        raise argparse.ArgumentTypeError("it is empty; 0.0.0.0 is every address")
    return text


def _origin(text: str) -> str:
    """Look at it before the server starts. argparse shows the text of this error and no other."""
    try:
        return text if text == "*" else str(Origin.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _host(text: str) -> str:
    try:
        return str(Authority.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

"""What both servers have in common: options, the server made of them, cores, and open files."""

import argparse
import contextlib
import errno
import logging
import math
import os
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from certificate import certificate_reader
from console import trace_to_stderr
from rfc6455 import Deflate, Handshake, Refused, WebSocketServer
from rfc6455.cli import add_trace
from rfc6455.handshake import Authority, Origin, parse_network
from rfc6455.server import SPARE_CONNECTIONS, Handler, Page

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

log = logging.getLogger("command_line")

Thread = TypeVar("Thread", bound=threading.Thread)

SHARED = Path(__file__).parent / "public" / "shared"  # what both pages have in common
MAX_COUNT = 1 << 53  # 2**53; larger integers lose precision where numbers are floats
MAX_CLIENTS = 10_000  # at the same time; with a thread for each, more are not fine any more
# Files that a server has open besides its connections: the three standard streams, the socket that
# listens, a history in SQLite has three, and each page that is being sent is one.
OTHER_FILES = 32
REDIS_FILES = 66  # if there is a Redis: 64 connections at most, one for presence, one to a Sentinel
# The soft limit to set where the hard one is "unlimited" but the system refuses what is needed:
# macOS takes no more than its OPEN_MAX.
_OPEN_MAX = 10240
LOOPBACK = ("127.0.0.0/8", "::1")  # what --trust-proxy without an address stands for


class ServerOptions(Protocol):
    """The options of both servers, as far as `make_server` passes them on."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def allow_origin(self) -> Sequence[str]: ...

    @property
    def allow_host(self) -> Sequence[str]: ...

    @property
    def trust_proxy(self) -> Sequence[str]: ...

    @property
    def cert(self) -> str | None: ...

    @property
    def key(self) -> str | None: ...

    @property
    def max_per_address(self) -> int | None: ...

    @property
    def max_message(self) -> int: ...

    @property
    def deflate(self) -> bool: ...

    @property
    def trace(self) -> bool: ...


def make_server(
    options: ServerOptions,
    routes: Mapping[str, Handler],
    *,
    directory: Path,
    max_clients: int,
    other_files: int = OTHER_FILES,
    headers: Mapping[str, str] | None = None,
    pages: Mapping[str, Page] | None = None,
    check: Callable[[Handshake], None] | None = None,
) -> WebSocketServer:
    """Make a server that obeys the options which both servers have.

    directory: the program's own page; what both pages have in common is served beside it.
    max_clients: WebSockets at the same time; fewer where the process may not open so many files.
    other_files: how many files the program has open besides its connections.
    pages: as for WebSocketServer; /healthz is added.

    The others are arguments of WebSocketServer, and what that raises is raised here: OSError for
    an address or a certificate that cannot be used, OverflowError for a port over 65535. From the
    main thread.
    """
    return WebSocketServer(
        (options.host, options.port),
        routes,
        directory=(directory, SHARED),
        headers=headers,
        allowed_origins=options.allow_origin,
        allowed_hosts=options.allow_host,
        advise=advise,
        pages={"/healthz": healthz} | dict(pages or {}),
        trusted_proxies=options.trust_proxy,
        max_connections=fit_to_open_files(max_clients, other_files),
        max_per_address=options.max_per_address,
        max_message=options.max_message,
        ssl_context=certificate_reader(options.cert, options.key),
        deflate=Deflate() if options.deflate else None,
        check=check,
        trace=trace_to_stderr() if options.trace else None,
    )


def cannot_serve(options: ServerOptions, error: Exception) -> str:
    """Why `make_server` has failed, and what to do about a port that is taken."""
    reason = str(error)
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        reason = f"{error.strerror}; --port takes another port, such as {options.port + 1}"
    return f"cannot serve {options.host}:{options.port}: {reason}"


def add_server_options(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the options that both servers have; `port` is the default of --port."""
    _add_address(parser, port)
    _add_sites(parser)
    _add_proxies(parser)
    _add_tls(parser)
    parser.add_argument(
        "--max-per-address",
        type=whole_number(),
        metavar="N",
        help="how many connections there can be from one IP address at once; further ones are told "
        f"so and may try again; N is from 1 to {MAX_COUNT}. People behind one router share its "
        "address, and the IPv6 addresses of one /64 network count as one; behind a reverse proxy, "
        "everybody does without --trust-proxy (default: no limit)",
    )
    add_trace(parser)


def _add_address(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument(
        "--host",
        type=_address,
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address to listen on; 0.0.0.0 stands for all addresses of this machine, so that "
        "others can connect, too (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=port,
        help="the port to listen on, from 1 to 65535; 0 picks one that is free "
        "(default: %(default)s)",
    )


def _add_sites(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-origin",
        type=_origin,
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of another site connect, such as https://chat.example; * stands for "
        "every site; can be given several times (default: only the server's own web page)",
    )
    parser.add_argument(
        "--allow-host",
        type=_host,
        action="append",
        default=[],
        metavar="HOST",
        help="answer requests to this host name, such as chat.example; can be given several "
        "times. A server on a loopback address, and every server with this option, answers only "
        "to these names, to localhost, and to the address that it listens on (default: no further "
        "names on a loopback address, and any name elsewhere)",
    )


def _add_tls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cert",
        type=_file_name,
        metavar="FILE",
        help="encrypt connections (https: and wss:) with the certificate in this file, which has "
        "PEM format and also holds the certificates of those who issued it, if any; SIGHUP reads "
        "it again without ending a connection (default: no encryption)",
    )
    parser.add_argument(
        "--key",
        type=_file_name,
        metavar="FILE",
        help="the file with the private key of the certificate, not encrypted with a password "
        "(default: the key is in the file of --cert)",
    )


def check_server_options(parser: argparse.ArgumentParser, options: ServerOptions) -> None:
    """If one of the options of `add_server_options` is wrong, exit with a line that says why."""
    if options.key and not options.cert:
        parser.error("--key needs --cert, the file with the certificate that the key belongs to")


def _add_proxies(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-proxy",
        type=_proxies,
        action="extend",
        nargs="?",
        const=LOOPBACK,
        default=[],
        metavar="ADDRESS",
        help="believe the headers X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Proto in "
        "requests from this IP address or network, such as 10.0.0.5 or 10.0.0.0/8, where a reverse "
        "proxy runs; without ADDRESS, on this machine; can be given several times (default: "
        "nobody's are believed, because any client can send them)",
    )


def advise(refused: Refused) -> str:
    """A hint for whoever reads the server's answer or log: how to allow the request.

    Whoever runs the server behind a proxy learns what the proxy has to send.
    """
    # The value is quoted where a shell would change it: to a shell, the brackets of an IPv6 address
    # are a pattern for file names.
    allows = f"--allow-{refused.header.lower()} {shlex.quote(refused.value)} allows it"
    hints = [_describe_headers(refused)] if refused.header == "Origin" else []
    if refused.proxy and not refused.is_trusted:
        hints.append(
            f"the X-Forwarded headers were ignored, and if {refused.proxy} is your proxy, "
            f"--trust-proxy {refused.proxy} makes them count"
        )
    return "; ".join([*hints, allows])


def _describe_headers(refused: Refused) -> str:
    """What a proxy in front of the server has to send with the request of a page of its own."""
    scheme, _, host = refused.value.partition("://")
    if refused.is_trusted:
        return (
            "if this is the proxy's own site, the proxy has to send "
            f"'X-Forwarded-Host: {host}' and 'X-Forwarded-Proto: {scheme}'"
        )
    return f"if this is the site of a proxy in front, the proxy has to send 'Host: {host}'"


def healthz(server: WebSocketServer) -> str:
    """The page /healthz, for whoever watches the server: that it answers, and to how many."""
    return f"ok {server.connection_count} clients\n"


def hold_to_one_core() -> None:
    """Keep the process to one processor core, where that makes it faster.

    Under CPython's global lock one thread runs at a time. With many busy connections on several
    cores the lock moves from core to core at each system call, and this costs more than the cores
    give: a hundred echo clients got half as many answers as on one core. It is not for programs
    that work long without the lock, as they do when they compress. A free-threaded interpreter has
    no such lock, and systems other than Linux have no such call: there nothing happens.
    """
    has_global_lock = getattr(sys, "_is_gil_enabled", lambda: True)()  # new in Python 3.13
    if has_global_lock and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        core = cores[os.getpid() % len(cores)]  # so that several servers use different ones
        with contextlib.suppress(OSError):  # A container may forbid it. Then it is only slower.
            os.sched_setaffinity(0, {core})


def fit_to_open_files(clients: int, other_files: int = OTHER_FILES) -> int:
    """Let the process open as many files as it may; returns how many of the clients there can be.

    Each connection is an open file. A shell usually sets a soft limit of 1,024 files, or 256 on
    macOS, and a hard one up to which every program may raise it: Go's programs do so, too. Where
    even that is not enough for so many clients and `other_files`, this logs a line that says what
    mends it. From the main thread, before the server runs.
    """
    others = SPARE_CONNECTIONS + other_files
    needed = clients + others
    limit = _raise_open_files(needed)
    if limit >= needed:
        return clients
    fitting = max(1, int(limit) - others)
    log.warning(
        "there can be %d clients, not %d, because this process may open only %d files: run "
        "`ulimit -n %d` as root before the start, or set LimitNOFILE=%d in a systemd unit",
        fitting,
        clients,
        limit,
        needed,
        needed,
    )
    return fitting


def _raise_open_files(needed: int) -> float:
    """Raise the soft limit of open files to the hard one; returns the limit, perhaps math.inf."""
    if resource is None:
        return math.inf
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return math.inf
    # To be on the safe side, what is needed is asked for and not "unlimited".
    wanted = needed if hard == resource.RLIM_INFINITY else hard
    for limit in (wanted, min(wanted, _OPEN_MAX)):
        if limit > soft:
            with contextlib.suppress(ValueError, OSError):  # the system refuses so many
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                return limit
    return soft


def start_thread(thread: Thread) -> Thread:
    """Start a thread that the program needs, and return it. If there is none, exit and say so."""
    try:
        thread.start()
    except RuntimeError as error:  # a limit of the system or of a container is reached
        sys.exit(f"cannot start: {error}")
    return thread


# Functions for argparse's `type=`, which check the text of an option. argparse shows the text of an
# ArgumentTypeError to the user; for any other exception it shows only that the value is invalid.


def _address(text: str) -> str:
    if not text:  # Python would listen on every address of the machine
        raise argparse.ArgumentTypeError("the address is empty; 0.0.0.0 stands for every address")
    return text


def _file_name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name of the file is empty")
    return text


def whole_number(most: int = MAX_COUNT, *, zero_is_no_limit: bool = False) -> Callable[[str], int]:
    """A function for `type=` that takes whole numbers from 1 to `most`, and 0 if it is no limit."""
    least = 1
    allowed = f"from 1 to {most}"
    if zero_is_no_limit:
        least = 0
        allowed += ", or 0 for no limit"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            message = f"it must be a whole number {allowed}, not {text!r}"
            raise argparse.ArgumentTypeError(message)
        return number

    return parse


def _origin(text: str) -> str:
    try:
        return text if text == "*" else str(Origin.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _proxies(text: str) -> list[str]:
    try:
        return [str(parse_network(text))]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _host(text: str) -> str:
    try:
        return str(Authority.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

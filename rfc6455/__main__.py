"""`python3 -m rfc6455 URL`: a client to type in. Each line is sent, and what comes is shown.

It works in pipes, too: each line of the input is a message, and each message a line of the output.
The end of the input closes the connection, and what comes before the server's Close is printed.
"""

import argparse
import contextlib
import sys

from .cli import INTERRUPTED, add_insecure, add_trace, explain, make_ssl_context
from .client import connect
from .connection import WebSocket
from .deflate import Deflate
from .errors import InvalidHandshake
from .handshake import printable
from .interactive import HELP, Conversation, Terminal, leave
from .trace import Traced
from .trace_words import describe, wants_colour

MAX_MESSAGE = 32 << 20  # bytes of one message; as much as the echo server takes


def main() -> int:
    """Run the program; its exit status."""
    options = read_options()
    try:
        with contextlib.closing(Terminal(sys.stdin, sys.stdout, sys.stderr)) as terminal:
            return talk(options, terminal)
    except KeyboardInterrupt:  # it waited for somebody to read stderr
        leave()


def talk(options: argparse.Namespace, terminal: Terminal) -> int:
    """Connect, and have a conversation; the exit status."""
    try:
        websocket = open_websocket(options, terminal)
    except (ValueError, OSError, InvalidHandshake) as error:
        terminal.note(explain(options.url, error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    terminal.note(printable(f"Connected to {options.url}{agreement(websocket)}."))
    if terminal.is_interactive:
        terminal.note("Type a line to send it, /help for what else there is, Ctrl+D to close.")
    return Conversation(websocket, terminal).run()


def open_websocket(options: argparse.Namespace, terminal: Terminal) -> WebSocket:
    """Connect as the options say. Raises what `connect` raises."""
    colour = wants_colour(sys.stderr)

    def trace(traced: Traced) -> None:
        terminal.note_soon(describe(traced, colour=colour))

    return connect(
        options.url,
        origin=options.origin,
        subprotocols=options.subprotocol,
        headers=options.header,
        ssl_context=make_ssl_context(insecure=options.insecure),
        deflate=Deflate() if options.deflate else None,
        max_message=MAX_MESSAGE,
        trace=trace if options.trace else None,
    )


def agreement(websocket: WebSocket) -> str:
    """What the two sides have agreed on, in words."""
    agreed = []
    if websocket.subprotocol:
        agreed.append(f"subprotocol {websocket.subprotocol}")
    if websocket.deflate:
        agreed.append("with compression")
    return "".join(f", {each}" for each in agreed)


def read_options() -> argparse.Namespace:
    """Parse the command line. If it is wrong, print a line that says why, and exit with 2."""
    parser = argparse.ArgumentParser(
        prog="python3 -m rfc6455",
        description="Talk to a WebSocket server: type lines to send them, and see what comes. In a "
        "pipe each line of the input is a message, and each message a line of the output.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", metavar="URL", help="where to connect: it begins with ws: or wss:")
    parser.add_argument(
        "--origin",
        help="the Origin header to send, such as https://chat.example (default: none)",
    )
    parser.add_argument(
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="a header to add to the request; can be given several times",
    )
    parser.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer; can be given several times, the preferred one first",
    )
    parser.add_argument(
        "--deflate", action="store_true", help="offer to compress messages (default: do not)"
    )
    add_insecure(parser)
    add_trace(parser)
    return parser.parse_args()


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is no header, which looks like NAME:VALUE")
    return name.strip(), value.strip()


if __name__ == "__main__":
    sys.exit(main())

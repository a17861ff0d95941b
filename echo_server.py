#!/usr/bin/env python3
"""An echo at ws://localhost:8080/echo: a port of the server in x/net/websocket's echo example.

`echo` is the original's handler. It receives a message, prints it, and sends it back in brackets.
differs from Go: there is a web page, to play with the protocol. It talks to `playground/`.
"""

import argparse
import sys
from pathlib import Path

from command_line import (
    MAX_CLIENTS,
    MAX_COUNT,
    add_server_options,
    cannot_serve,
    check_server_options,
    hold_to_one_core,
    make_server,
    whole_number,
)
from console import LineWriter, announce, log_to_stderr, printable
from playground.commands import playground
from playground.parser_lines import PARSER_LINES, parser_lines
from rfc6455 import WebSocket

PUBLIC = Path(__file__).parent / "public" / "echo"
# differs from Go: printing never delays an answer, even if nobody reads the output.
output = LineWriter(sys.stdout, lambda count: f"{count} lines were lost")
# differs from Go: of a longer message only so many characters are printed. Otherwise a message of
# megabytes, which compression makes from a few kilobytes, would keep the server busy for seconds.
MAX_PRINTED = 10_000


def echo(websocket: WebSocket) -> None:
    """Print each message, and send it back in brackets.

    differs from Go: the original answers the first message only, and receives only its first 512
    bytes.
    """
    for message in websocket:
        # As in the original, the answer to binary data is text, too.
        text = message if isinstance(message, str) else message.decode(errors="replace")
        shown = excerpt(text)
        output.write(f"Receive: {shown}")
        websocket.send(f"[{text}]")
        output.write(f"Send: [{shown}]")


def excerpt(text: str) -> str:
    """A message as it is printed: on one line, and only its beginning if it is long."""
    left_out = len(text) - MAX_PRINTED
    if left_out <= 0:
        return printable(text)
    return f"{printable(text[:MAX_PRINTED])}… ({left_out} more characters)"


def echo_plain(websocket: WebSocket) -> None:
    """The handler for --plain: text comes back as text, and binary data as binary data."""
    for message in websocket:
        websocket.send(message)


def main() -> None:
    options = read_options()
    log_to_stderr()
    if not options.deflate:
        hold_to_one_core()
    try:
        # differs from Go: a client without an Origin header is accepted, and a web page of another
        # site is refused. The original demands the header, and accepts any origin.
        server = make_server(
            options,
            {"/echo": echo_plain if options.plain else echo, "/playground": playground},
            directory=PUBLIC,
            max_clients=MAX_CLIENTS,
            pages={PARSER_LINES: parser_lines()},
        )
    except (OSError, OverflowError) as error:  # OverflowError: the port is over 65535
        sys.exit(cannot_serve(options, error))
    server.serve_until_signalled(lambda: announce(f"The echo server runs at {server.url}"))
    server.close_connections()


def read_options() -> argparse.Namespace:
    """Parse the command line. If it is wrong, print a line that says why, and exit with 2."""
    parser = argparse.ArgumentParser(
        description="A WebSocket echo server. It sends each message back in brackets."
    )
    add_server_options(parser, port=8080)
    parser.add_argument(
        "--max-message",
        type=whole_number(),
        default=32 << 20,
        metavar="BYTES",
        help="the largest message that a client may send; a larger one ends its connection; from "
        f"1 to {MAX_COUNT} (default: %(default)s)",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="send each message back exactly as it came, and print none of them (default: send "
        "each back in brackets, and print it)",
    )
    parser.add_argument(
        "--deflate",
        action="store_true",
        help="compress messages for clients that offer it; this uses much processor time, and "
        "helps only on slow networks (default: no compression)",
    )
    options = parser.parse_args()
    check_server_options(parser, options)
    return options


if __name__ == "__main__":
    main()

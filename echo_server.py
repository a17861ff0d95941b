#!/usr/bin/env python3
"""An echo at ws://localhost:8080/echo: the port of the x/net/websocket example's server.

It answers each message in brackets until the client closes; the original only the first.
"""

import argparse
import sys
from pathlib import Path

from command_line import add_server_options, advise, hold_to_one_core
from console import LineWriter, announce, log_to_stderr, printable
from rfc6455 import Deflate, WebSocket, WebSocketServer

PUBLIC = Path(__file__).parent / "public" / "echo"
# differs from Go: a client is answered, whether or not somebody reads what is printed.
output = LineWriter(sys.stdout, lambda count: f"{count} lines were lost")


def main() -> None:
    parser = argparse.ArgumentParser(description="A WebSocket echo server.")
    add_server_options(parser, port=8080)
    parser.add_argument("--max-message", type=int, default=32 << 20, help="bytes (%(default)s)")
    parser.add_argument("--plain", action="store_true", help="send back exactly what came")
    parser.add_argument("--deflate", action="store_true", help="compress; pays on slow lines only")
    options = parser.parse_args()
    if options.max_message < 1:
        parser.error("--max-message is a positive number")
    log_to_stderr()
    if not options.deflate:
        hold_to_one_core()
    try:
        server = WebSocketServer(
            (options.host, options.port),
            {"/echo": echo_plain if options.plain else echo},
            directory=PUBLIC,
            allowed_origins=options.allow_origin,
            allowed_hosts=options.allow_host,
            advise=advise,
            max_message=options.max_message,
            deflate=Deflate() if options.deflate else None,
        )
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot serve {options.host}:{options.port}: {error}")
    server.serve_until_signalled(lambda: announce(f"The echo runs at {server.url}"))
    server.close_connections()


def echo(websocket: WebSocket) -> None:
    for message in websocket:
        text = message if isinstance(message, str) else message.decode(errors="replace")
        output.write(f"Receive: {printable(text)}")
        websocket.send(f"[{text}]")
        output.write(f"Send: [{printable(text)}]")


def echo_plain(websocket: WebSocket) -> None:
    for message in websocket:
        websocket.send(message)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Sends a message to an echo server: a port of the client in x/net/websocket's echo example.

In the original's order: connect, send, print what was sent, receive, print what was received.
"""

import argparse
import sys
from io import TextIOWrapper

from console import printable
from rfc6455 import ConnectionClosed, InvalidHandshake, WebSocket, connect
from rfc6455.cli import (
    INTERRUPTED,
    add_insecure,
    add_trace,
    explain,
    make_ssl_context,
    print_trace,
)
from rfc6455.handshake import parse_url


def main() -> None:
    if isinstance(sys.stdout, TextIOWrapper):
        # Print "\u4f60" where the terminal can't show 你, rather than fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = read_options()
    try:
        # As in the original, it sends the origin of the server's own web page: x/net's server
        # demands an origin. differs from Go: the origin is derived from the URL, not a constant.
        origin = parse_url(options.url).origin
        context = make_ssl_context(insecure=options.insecure)
        trace = print_trace if options.trace else None
        websocket = connect(options.url, origin=origin, ssl_context=context, trace=trace)
    except (ValueError, OSError, InvalidHandshake) as error:
        sys.exit(explain(options.url, error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    try:
        with websocket:
            talk(websocket, options.message)
    except ConnectionClosed as error:
        sys.exit(printable(f"the server closed the connection: {error}"))
    except UnicodeEncodeError:  # bytes of an argument that are not UTF-8 became lone surrogates
        sys.exit(f"cannot send what is not text: {options.message!a}")
    except OSError as error:  # from `print`, as an open WebSocket raises only ConnectionClosed
        sys.exit(f"cannot print: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def talk(websocket: WebSocket, message: str) -> None:
    """Send the message, and print what was sent and what came back."""
    websocket.send(message)
    print(f"Send: {printable(message)}")
    answer = websocket.receive()  # differs from Go: the original reads only the first 512 bytes
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    print(f"Receive: {printable(text)}", flush=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Send one message to a WebSocket echo server, and print its answer."
    )
    parser.add_argument(
        "url",
        nargs="?",
        default="ws://127.0.0.1:8080/echo",
        metavar="URL",
        help="the address of the echo server, which begins with ws: or wss: (default: %(default)s)",
    )
    parser.add_argument(
        "message",
        nargs="?",
        default="hello, world!你好",
        metavar="MESSAGE",
        help="the text to send (default: %(default)s)",
    )
    add_insecure(parser)
    add_trace(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()

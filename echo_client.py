#!/usr/bin/env python3
"""Says something to an echo server and prints the answer: the x/net/websocket example's client."""

import argparse
import sys
from io import TextIOWrapper

from console import printable
from rfc6455 import ConnectionClosed, InvalidHandshake, WebSocket, connect
from rfc6455.handshake import parse_url

INTERRUPTED = 130  # the exit status by which shells say: ended by signal 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Send one message, print the answer.")
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8080/echo", metavar="URL")
    parser.add_argument("message", nargs="?", default="hello, world!你好", metavar="MESSAGE")
    options = parser.parse_args()
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal that can't show 你 is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # As in the original: it says that it comes from a page of the server, which demands one.
        own_origin = parse_url(options.url).origin
        websocket = connect(options.url, origin=own_origin)
    except (ValueError, OSError, InvalidHandshake) as error:
        sys.exit(printable(f"cannot connect to {options.url}: {error}"))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    try:
        with websocket:
            talk(websocket, options.message)
    except ConnectionClosed as error:
        sys.exit(printable(f"the server closed the connection: {error}"))
    except UnicodeEncodeError:
        sys.exit(f"cannot send what is no text: {options.message!a}")
    except OSError as error:
        sys.exit(f"cannot print: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def talk(websocket: WebSocket, message: str) -> None:
    """Say it, and print what was said and what came back."""
    websocket.send(message)
    print(f"Send: {printable(message)}")
    answer = websocket.receive()
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    print(f"Receive: {printable(text)}", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Says something to an echo server and prints the answer: the x/net/websocket example's client."""

import argparse
import sys
from io import TextIOWrapper

from console import printable
from rfc6455 import ConnectionClosed, InvalidHandshake, connect
from rfc6455.handshake import parse_url


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
        with connect(options.url, origin=own_origin) as websocket:
            websocket.send(options.message)
            print(f"Send: {printable(options.message)}")
            answer = websocket.receive()
            text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
            print(f"Receive: {printable(text)}")
    except (ValueError, OSError, InvalidHandshake) as error:
        sys.exit(printable(f"cannot connect to {options.url}: {error}"))
    except ConnectionClosed as error:
        sys.exit(printable(f"the server closed the connection: {error}"))
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it: ended by signal 2


if __name__ == "__main__":
    main()

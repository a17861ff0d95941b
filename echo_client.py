#!/usr/bin/env python3
"""Sends a message to an echo server: a port of the client in x/net/websocket's echo example.

In the original's order: connect, send, print what was sent, receive, print what was received.
"""

import argparse
import ssl
import sys
from io import TextIOWrapper

from command_line import add_trace
from console import printable
from rfc6455 import (
    ConnectionClosed,
    Frame,
    HandshakeLine,
    InvalidHandshake,
    WebSocket,
    connect,
    describe,
    wants_colour,
)
from rfc6455.handshake import parse_url

INTERRUPTED = 130  # the exit status that shells give to a program ended by Ctrl+C: 128 + SIGINT
# How OpenSSL calls an answer that is not TLS.
NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}
# OpenSSL's codes for a certificate that is fine but for who has issued it: the certificate itself,
# somebody unknown at the end of a chain, or somebody who is not in the chain (X509_V_ERR_...).
UNKNOWN_ISSUER = {18, 19, 20, 21}


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
    except ssl.SSLError as error:
        sys.exit(printable(f"cannot connect to {options.url}: {explain(error)}"))
    except (ValueError, OSError, InvalidHandshake) as error:
        sys.exit(printable(f"cannot connect to {options.url}: {error}"))
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


def make_ssl_context(*, insecure: bool) -> ssl.SSLContext:
    """How to check the certificate of a wss: server: as browsers do, or not at all."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def explain(error: ssl.SSLError) -> str:
    """Why there is no TLS connection, and what to do about that."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in UNKNOWN_ISSUER:
            advice = "to trust it, set the environment variable SSL_CERT_FILE to a file that has it"
        else:
            advice = "whoever runs the server can mend that, unless the URL is wrong"
        return (
            "the server's certificate cannot be verified: "
            f"{error.verify_message.rstrip('.')}; {advice}; --insecure connects all the same, but "
            "then nothing proves who answers"
        )
    reason = getattr(error, "reason", None) or str(error)
    if reason in NO_TLS:
        return "the server does not speak TLS at this port; a URL that begins with ws: may work"
    return f"TLS failed: {reason.replace('_', ' ').lower()}"


def print_trace(traced: HandshakeLine | Frame) -> None:
    """Print a line for --trace."""
    print(describe(traced, colour=wants_colour(sys.stderr)), file=sys.stderr, flush=True)


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
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="connect to a wss: server whose certificate cannot be verified, such as one that you "
        "have made yourself for a test; nothing then proves who answers, and anyone on the way to "
        "the server can read and change what you send (default: check the certificate)",
    )
    add_trace(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()

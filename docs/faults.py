"""Does to a server what the Go originals cannot stand, and says how it took that.

docs/from-go-to-python.md says what each case is about. URL is that of a chat such as
ws://localhost:8000/ws, or for the last cases that of an echo server, such as
ws://localhost:8080/echo: an original, ours, or your own.

    python3 docs/faults.py CASE URL

Exit status: 0 the server did well, 1 it did not, 2 there is no such case or no such server.
"""

import argparse
import contextlib
import http.client
import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rfc6455 import ConnectionClosed, InvalidHandshake, WebSocket, connect, printable
from rfc6455.handshake import new_key, parse_url

PATIENCE = 5.0  # seconds without an answer, after which a server counts as stuck
CROWD = 400  # clients that come together, and go together
ROUNDS = 30  # how often they do
BIG = "x" * 60_000  # a text that our chat takes; its limit is 64 KiB
MANY = 150  # big messages: 9 MB, more than the system keeps for a client that does not read
BUFFER = 4096  # bytes that the system keeps at the end of such a client
NO_CLOSE = 1006  # what stands for the end of TCP without a Close (7.1.5)
MARKUP = '<img src="x" onerror="alert(1)">'


class Fault(Exception):
    """The server did not do well; the message says how."""


# The chat


def crowd(url: str) -> None:
    """Clients come all at once and go all at once, again and again."""
    for _ in range(ROUNDS):
        # Once the server is gone nobody can connect, which `check_alive` will say.
        with contextlib.suppress(OSError), contextlib.ExitStack() as together:
            guests = [together.enter_context(knock(url)) for _ in range(CROWD)]
            for guest in guests:
                guest.recv(1024)  # the answer to the handshake
    check_alive(url)


def request(url: str) -> None:
    """Somebody opens the WebSocket's address as if it were a page."""
    address = parse_url(url)
    page = http.client.HTTPConnection(address.host, address.port, timeout=PATIENCE)
    with contextlib.closing(page):
        page.request("GET", address.target)
        try:
            print(page.getresponse().read().decode().strip())
        except OSError as error:
            print(f"no answer: {error}")
    check_alive(url)


def origin(url: str) -> None:
    """A page of another site connects in the name of whoever looks at it."""
    try:
        connect(url, origin="https://evil.example").close()
    except InvalidHandshake as refusal:
        print(f"refused: {refusal}")
    else:
        raise Fault("the page of another site is let in")


def stuck(url: str) -> None:
    """A client connects and never reads, while another one says much."""
    with knock(url, receive_buffer=BUFFER), join(url) as speaker:
        for number in range(MANY):
            speaker.send(json.dumps({"message": BIG}))
            if speaker.receive(timeout=PATIENCE) is None:
                raise Fault(f"after {number} messages nobody hears anything any more")
    print(f"all {MANY} messages were heard")


def emails(url: str) -> None:
    """One client says something with its email, and another one listens."""
    with join(url) as listener, join(url) as speaker:
        speaker.send('{"email": "ada@example.org", "username": "Ada", "message": "hello"}')
        heard = json.loads(hear(listener))
    if heard["email"]:
        raise Fault(f"everyone learns the address {heard['email']}")
    print("the address stays with the server")


def markup(url: str) -> None:
    """Somebody's name is markup with a script. Look at the chat's page before and after it."""
    with join(url) as speaker:
        speaker.send(json.dumps({"username": MARKUP, "message": "look at my name"}))
        print(hear(speaker).strip())


def nonsense(url: str) -> None:
    """A client says something that is not JSON."""
    with join(url) as speaker:
        speaker.send("hello")
        try:
            hear(speaker)
        except ConnectionClosed as closed:
            if closed.code == NO_CLOSE:
                raise Fault("the server hangs up, and does not say why") from None
            print(f"the server closes with {closed.code}: {closed.reason}")


# The echo server


def nameless(url: str) -> None:
    """A program connects without the header Origin, which only browsers have to send."""
    try:
        connect(url).close()
    except InvalidHandshake as refusal:
        raise Fault(f"refused: {refusal}") from None
    print("it is let in")


def long(url: str) -> None:
    """A message of 600 letters is sent."""
    with join(url) as websocket:
        websocket.send("x" * 600)
        letters = hear(websocket).count("x")
    if letters < 600:
        raise Fault(f"only {letters} letters come back")
    print("all 600 letters come back")


def twice(url: str) -> None:
    """A second message is sent on the same connection."""
    with join(url) as websocket:
        for number in ("one", "two"):
            websocket.send(number)
            print(hear(websocket))


def leave(url: str) -> None:
    """A client connects and goes without a word."""
    join(url).close()
    check_alive(url)


# What the cases have in common


def join(url: str) -> WebSocket:
    """Connect as the server's own page does: with its origin."""
    return connect(url, origin=parse_url(url).origin)


def knock(url: str, receive_buffer: int | None = None) -> socket.socket:
    """Ask for a WebSocket on a bare socket, which neither waits for the answer nor reads anything.

    receive_buffer: how many bytes the system may keep of what the server sends; its choice if None.
    """
    address = parse_url(url)
    request = (
        f"GET {address.target} HTTP/1.1\r\nHost: {address.authority}\r\n"
        f"Origin: {address.origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {new_key()}\r\n\r\n"
    )
    guest = socket.socket()
    if receive_buffer:  # set before connecting, which fixes the size of TCP's window
        guest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    guest.settimeout(PATIENCE)
    try:
        guest.connect((address.host, address.port))
        guest.sendall(request.encode())
    except BaseException:
        guest.close()
        raise
    return guest


def hear(websocket: WebSocket) -> str:
    """The next message. Raises Fault if none comes, and ConnectionClosed if the server ends."""
    message = websocket.receive(timeout=PATIENCE)
    if message is None:
        raise Fault("no answer comes")
    return message if isinstance(message, str) else message.decode()


def check_alive(url: str) -> None:
    """Raise Fault if the server lets nobody in any more."""
    try:
        join(url).close()
    except (OSError, InvalidHandshake) as error:
        raise Fault(f"the server is gone: {error}") from None
    print("the server is still there")


CHAT = (crowd, request, origin, stuck, emails, markup, nonsense)
ECHO = (nameless, long, twice, leave)
CASES: dict[str, Callable[[str], None]] = {case.__name__: case for case in (*CHAT, *ECHO)}


def main(arguments: Sequence[str] | None = None) -> int:
    lines = [f"  {name:<10} {case.__doc__}" for name, case in CASES.items()]
    parser = argparse.ArgumentParser(
        description="Do to a server what the Go originals cannot stand, and say how it took that.",
        epilog="\n".join(["cases:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("case", choices=CASES, metavar="CASE", help="one of those below")
    parser.add_argument("url", metavar="URL", help="such as ws://localhost:8000/ws")
    options = parser.parse_args(arguments)
    try:
        address = parse_url(options.url)
        # Not even a handshake, as one of the originals does not stand a client that says nothing.
        socket.create_connection((address.host, address.port), PATIENCE).close()
    except (ValueError, OSError) as error:
        parser.error(printable(f"cannot connect to {options.url}: {error}"))
    try:
        CASES[options.case](options.url)
    except (Fault, ConnectionClosed, OSError) as fault:
        print(printable(str(fault)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

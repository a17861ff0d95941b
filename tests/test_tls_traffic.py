"""Reading and writing at once over TLS, much of it, while the certificate is read again.

A corrupt record, or one out of order, ends a TLS connection; so that each message is checked, and
each connection has to end with a closing handshake. `python3 tests --long` sends a million.
"""

import json
import os
import signal
import ssl
import threading
from collections.abc import Iterator

from pairs import Task
from peers import eventually
from programs import Program, chat, echo, lines_with
from rfc6455 import WebSocket, connect
from tls import Certificate

LONG = bool(os.environ.get("RUN_LONG"))
MESSAGES = 1_000_000 if LONG else 40_000  # that the clients of a test receive, all together
CLIENTS = 4
END = 3000.0 if LONG else 20.0  # seconds until a test gives up
WINDOW = 200  # messages that a client of the chat has said and not heard yet
TLS_1_2 = ssl.TLSVersion.TLSv1_2
TLS_1_3 = ssl.TLSVersion.TLSv1_3


def open_websocket(
    server: Program, path: str, trusted: Certificate, version: ssl.TLSVersion = TLS_1_3
) -> WebSocket:
    """A client that trusts this certificate alone, and speaks this version of TLS alone."""
    context = trusted.client()
    context.minimum_version = context.maximum_version = version
    return connect(server.ws_url + path, ssl_context=context)


def open_all(server: Program, path: str, trusted: Certificate) -> list[WebSocket]:
    versions = [TLS_1_2, TLS_1_3] * (CLIENTS // 2)
    return [open_websocket(server, path, trusted, version) for version in versions]


def renew(server: Program, tls_files: Certificate, renewed: Certificate) -> None:
    """Have the server read a new certificate, and wait until it has."""
    tls_files.replace_by(renewed)
    server.signal(signal.SIGHUP)
    assert eventually(lambda: lines_with(server, "the certificate was read again"))


class Halfway:
    """Counts what all clients have received, and wakes the test at the half of it.

    Clients keep the last tenth back until the certificate is `renewed`, so that it is renewed amid
    the messages also where these are fast.
    """

    def __init__(self, total: int) -> None:
        self._half = total // 2
        self._received = 0
        self._lock = threading.Lock()
        self.reached = threading.Event()
        self.renewed = threading.Event()

    def count(self) -> None:
        with self._lock:
            self._received += 1
            if self._received == self._half:
                self.reached.set()


def finish(tasks: list[Task]) -> None:
    """Wait for all tasks, and raise what the first of them raised."""
    for task in tasks:
        task.thread.join(END)
        task.result()


def assert_log_is_clean(server: Program, clients: int) -> None:
    """All that the log tells is that each client has left, and the new certificate."""
    assert eventually(lambda: len(lines_with(server, ": closed, 1000")) == clients)
    assert len(server.log.splitlines()) == clients + 1


# The echo: each client writes in one thread what it reads back in another


def numbered_messages(count: int) -> Iterator[bytes]:
    """Messages of many sizes, all different."""
    for number in range(count):
        yield b"%d " % number + b"x" * (number * 37 % 300)


def send_all(websocket: WebSocket, count: int, halfway: Halfway) -> None:
    for number, message in enumerate(numbered_messages(count)):
        if number == count * 9 // 10:
            assert halfway.renewed.wait(END)
        websocket.send(message)


def receive_all(websocket: WebSocket, count: int, halfway: Halfway) -> None:
    for message in numbered_messages(count):
        assert websocket.receive(END) == message
        halfway.count()


def test_echo_keeps_every_message_while_clients_read_and_write_at_once(
    tls_files: Certificate, certificate: Certificate, renewed: Certificate
) -> None:
    count = MESSAGES // CLIENTS
    halfway = Halfway(MESSAGES)
    with echo("--plain", *tls_files.options) as server:
        websockets = open_all(server, "/echo", certificate)
        tasks = [Task(send_all, each, count, halfway) for each in websockets]
        tasks += [Task(receive_all, each, count, halfway) for each in websockets]
        assert halfway.reached.wait(END)
        renew(server, tls_files, renewed)
        halfway.renewed.set()
        with open_websocket(server, "/echo", renewed) as newcomer:
            newcomer.send("hello")
            assert newcomer.receive(END) == "hello"
        finish(tasks)
        for websocket in websockets:
            websocket.close()
            assert websocket.close_code == 1000
        assert_log_is_clean(server, CLIENTS + 1)


# The chat: each client is written to by the thread that broadcasts, while its own thread reads


class Talker:
    """A client of the chat that says numbered messages, and hears those of all."""

    def __init__(self, websocket: WebSocket, name: str, halfway: Halfway) -> None:
        self.websocket = websocket
        self.name = name
        self._halfway = halfway
        self._may_say = threading.Semaphore(WINDOW)  # one that says more may be dropped

    def enter(self) -> None:
        """Wait until what is said is sent to this client, too."""
        self._say("ready")
        while json.loads(self.websocket.receive(END) or "").get("username") != self.name:
            pass

    def say_all(self, count: int) -> None:
        for number in range(count):
            if number == count * 9 // 10:
                assert self._halfway.renewed.wait(END)
            assert self._may_say.acquire(timeout=END)
            self._say(str(number))

    def _say(self, text: str) -> None:
        self.websocket.send(json.dumps({"username": self.name, "message": text}))

    def hear_all(self, count: int) -> None:
        """Hear this many of each client, each one's in the order in which it said them."""
        heard: dict[str, int] = {}
        while sum(heard.values()) < count * CLIENTS:
            message = json.loads(self.websocket.receive(END) or "")
            if "event" in message or message["message"] == "ready":
                continue
            name = message["username"]
            assert message["message"] == str(heard.get(name, 0))
            heard[name] = heard.get(name, 0) + 1
            self._halfway.count()
            if name == self.name:
                self._may_say.release()
        assert set(heard.values()) == {count}


def test_chat_keeps_every_message_while_its_threads_read_and_write_at_once(
    tls_files: Certificate, certificate: Certificate, renewed: Certificate
) -> None:
    count = MESSAGES // CLIENTS // CLIENTS
    halfway = Halfway(MESSAGES)
    with chat(*tls_files.options) as server:
        websockets = open_all(server, "/ws", certificate)
        names = [f"talker {number}" for number in range(CLIENTS)]
        pairs = zip(websockets, names, strict=True)
        talkers = [Talker(websocket, name, halfway) for websocket, name in pairs]
        for talker in talkers:
            talker.enter()
        tasks = [Task(talker.hear_all, count) for talker in talkers]
        tasks += [Task(talker.say_all, count) for talker in talkers]
        assert halfway.reached.wait(END)
        renew(server, tls_files, renewed)
        halfway.renewed.set()
        open_websocket(server, "/ws", renewed).close()
        finish(tasks)
        for websocket in websockets:
            websocket.close()
            assert websocket.close_code == 1000
        assert_log_is_clean(server, CLIENTS + 1)

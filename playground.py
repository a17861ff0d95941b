"""The echo server's `/playground`: an echo that also does what a browser's script cannot do.

A script in a browser can neither send a Ping nor see one (RFC 6455, 5.5.2), and it may close with
few of the codes of 7.4 only. So the page of the echo server asks the server for it, by commands.

One rule holds in both directions: a text message that begins with exactly one slash is meant for
the program at the other end. Everything else is data, and comes back exactly as it came: text as
text, and binary data as binary data. Text that begins with two slashes is data, too; nothing is
taken away from it. So an echo never looks like something that the server itself has to say,
whatever a client sends.

Commands, from the client:

- `/ping` or `/ping PAYLOAD`: send a Ping. Without a payload it carries the number of the command.
- `/close CODE` or `/close CODE REASON`: begin the closing handshake.
- `/help`: list the commands.

Events, from the server. After the name there is one blank and a JSON object:

- `/pong {"to": 3, "payload": "hello", "ms": 0.8}`: the Pong has come so many milliseconds after the
  Ping. `ms` is null if the client has answered a later Ping instead, which 5.5.3 allows.
- `/help {"to": 4, "commands": {"/ping [PAYLOAD]": "what it does", ...}}`
- `/refused {"to": 5, "what": "code", "why": "…"}`: nothing was done. `what` is one of command,
  payload, pings, code and reason; `why` says it in words.

Each message of the client has one answer: its echo, an event, or for `/close` the Close. `to` is
the number of the message that an event answers; the client's first message on a connection is 1.
The answers come in the order of the messages, but for `/pong`, which comes as soon as the Pong has:
perhaps behind the echoes of later messages.

Left out: a time limit for the Pong. A client that answers no Pings is ended by the keepalive.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rfc6455 import Close, WebSocket

MAX_PINGS = 100  # that wait for their Pong; far more than anybody follows with their eyes
MAX_PAYLOAD = 125  # bytes, of a Ping (5.5)
MAX_REASON = 123  # bytes, of a Close: with the code they are 125 (5.5)
MAX_QUOTED = 40  # characters of a command that the answer quotes

COMMANDS = {
    "/ping [PAYLOAD]": "the server sends a Ping, and tells when the Pong has come",
    "/close CODE [REASON]": "the server closes the connection with this code",
    "/help": "the server lists the commands",
}


def playground(websocket: WebSocket) -> None:
    """Send each message back as it came, and obey those that are commands."""
    Playground(websocket).run()


class Refusal(Exception):
    """A command cannot be obeyed: `what` is wrong with it, and `why` in words."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what
        self.why = why


class SentPing(NamedTuple):
    """A Ping that waits for its Pong."""

    number: int  # of the message that asked for it
    payload: bytes
    sent_at: float  # seconds of time.perf_counter()


class Playground:
    """One connection. The thread that receives owns it, but for the Pings: see `Pings`."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._number = 0  # of the message that is being answered
        self._pings = Pings()
        self._commands: dict[str, Callable[[str], None]] = {
            "/ping": self._ping,
            "/close": self._close,
            "/help": self._help,
        }

    def run(self) -> None:
        """Answer all messages until the connection ends. Raises Close if the client asks for it."""
        self._websocket.set_pong_handler(self._tell_pong)
        try:
            for message in self._websocket:
                self._number += 1
                self._answer(message)
        finally:
            self._websocket.set_pong_handler(None)  # which frees the memory of this object

    def _answer(self, message: str | bytes) -> None:
        if isinstance(message, bytes) or not is_command(message):
            self._websocket.send(message)
            return
        name, _, argument = message.partition(" ")
        try:
            command = self._commands.get(name)
            if command is None:
                quoted = name if len(name) <= MAX_QUOTED else f"{name[:MAX_QUOTED]}…"
                raise Refusal("command", f"there is no command {quoted}; /help lists them")
            command(argument)
        except Refusal as refusal:
            self._tell("/refused", to=self._number, what=refusal.what, why=refusal.why)

    def _ping(self, text: str) -> None:
        # A number, as a Ping without a payload looks like those of the keepalive.
        payload = text.encode() or str(self._number).encode()
        if len(payload) > MAX_PAYLOAD:
            raise Refusal(
                "payload", f"a Ping has at most {MAX_PAYLOAD} bytes; this would be {len(payload)}"
            )
        # Before it is sent: the Pong may come before `ping` returns.
        self._pings.add(SentPing(self._number, payload, time.perf_counter()))
        self._websocket.ping(payload)

    def _close(self, text: str) -> None:
        code, _, reason = text.partition(" ")
        size = len(reason.encode())
        if size > MAX_REASON:
            raise Refusal("reason", f"a reason has at most {MAX_REASON} bytes; this one has {size}")
        if not (code.isascii() and code.isdecimal() and len(code) == 4):
            raise Refusal("code", "a close code is a number of four digits, as in /close 4000 bye")
        try:
            close = Close(int(code), reason)
        except ValueError as error:
            raise Refusal("code", str(error)) from None
        raise close

    def _help(self, _: str) -> None:
        self._tell("/help", to=self._number, commands=COMMANDS)

    def _tell(self, event: str, **fields: Any) -> None:
        self._websocket.send(make_event(event, fields))

    def _tell_pong(self, payload: bytes) -> None:
        """Tell the client that its Pong has come. Never waits: the thread that reads calls this."""
        now = time.perf_counter()
        answered = self._pings.take(payload)
        for ping in answered:
            is_last = ping is answered[-1]
            fields = {
                "to": ping.number,
                "payload": ping.payload.decode(),
                "ms": round((now - ping.sent_at) * 1000, 3) if is_last else None,
            }
            self._websocket.post(make_event("/pong", fields))


class Pings:
    """The Pings that wait for their Pong, the oldest first. Any thread.

    The thread that receives adds them, and the clock may find a Pong while that thread is busy.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[SentPing] = []

    def add(self, ping: SentPing) -> None:
        """Raises Refusal where too many wait."""
        with self._lock:
            if len(self._waiting) >= MAX_PINGS:
                raise Refusal("pings", f"{MAX_PINGS} Pings wait for their Pong already")
            self._waiting.append(ping)

    def take(self, payload: bytes) -> list[SentPing]:
        """The Pings that a Pong with this payload answers: the last of them is the one it is for.

        A client may skip Pings that came before the one that it answers (5.5.3). None is answered
        by a Pong that nobody has asked for, or that belongs to the keepalive.
        """
        with self._lock:
            payloads = [ping.payload for ping in self._waiting]
            if payload not in payloads:
                return []
            count = payloads.index(payload) + 1
            answered = self._waiting[:count]
            self._waiting = self._waiting[count:]
            return answered


def is_command(text: str) -> bool:
    """Whether a text is meant for the program at the other end, and is not data."""
    return text.startswith("/") and not text.startswith("//")


def make_event(name: str, fields: dict[str, Any]) -> str:
    """An event as the text message that carries it."""
    return f"{name} {json.dumps(fields, ensure_ascii=False)}"

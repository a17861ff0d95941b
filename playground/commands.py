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
- `/fragments PART PART …`: send a text message in fragments (5.4), each part in a frame of its own.
  One blank stands between two parts, so that two blanks have an empty part between them. A part
  that begins with exactly one slash is meant for the server: in the place of `/ping` it sends a
  Ping that carries the number of the command. The message comes instead of an echo, and is data.
- `/close CODE` or `/close CODE REASON`: begin the closing handshake.
- `/help`: list the commands.

Events, from the server. After the name there is one blank and a JSON object:

- `/pong {"to": 3, "payload": "hello", "ms": 0.8}`: the Pong has come so many milliseconds after the
  Ping. `ms` is null if the client has answered a later Ping instead, which 5.5.3 allows.
- `/help {"to": 4, "commands": {"/ping [PAYLOAD]": "what it does", ...}}`
- `/refused {"to": 5, "what": "code", "why": "…"}`: nothing was done. `what` is one of command,
  payload, parts, pings, code and reason; `why` says it in words.
- `/frame` and `/dropped`, for a client that has connected to `/playground?frames`: they tell each
  frame of the connection, see `frame_events`. They answer nothing.

Each message of the client has one answer: its echo, an event, for `/fragments` the message that it
asks for, or for `/close` the Close. For each `/ping` among the parts there is a `/pong`, too. `to`
is the number of the message that an event answers; the client's first message on a connection is 1.
The answers come in the order of the messages, but for `/pong`, which comes as soon as the Pong has:
perhaps behind the echoes of later messages.

Left out: a time limit for the Pong. A client that answers no Pings is ended by the keepalive.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from playground.frame_events import FrameTeller, make_event, wants_frames
from rfc6455 import Close, WebSocket

MAX_PINGS = 100  # that wait for their Pong; far more than anybody follows with their eyes
MAX_PAYLOAD = 125  # bytes, of a Ping (5.5)
MAX_PARTS = 100  # of a message in fragments, and Pings between them
MAX_REASON = 123  # bytes, of a Close: with the code they are 125 (5.5)
MAX_QUOTED = 40  # characters of a command that the answer quotes

COMMANDS = {
    "/ping [PAYLOAD]": "the server sends a Ping, and tells when the Pong has come",
    "/fragments PART PART …": "the server sends a message in fragments; as a part, /ping "
    "sends a Ping",
    "/close CODE [REASON]": "the server closes the connection with this code",
    "/help": "the server lists the commands",
}


def playground(websocket: WebSocket) -> None:
    """Send each message back as it came, and obey those that are commands."""
    if not wants_frames(websocket.query):
        Playground(websocket).run()
        return
    with FrameTeller(websocket) as teller:
        Playground(websocket, teller).run()


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

    def __init__(self, websocket: WebSocket, teller: FrameTeller | None = None) -> None:
        """`teller` tells the client each frame; None for one that has not asked for frames."""
        self._websocket = websocket
        self._teller = teller
        self._number = 0  # of the message that is being answered
        self._pings = Pings()
        self._commands: dict[str, Callable[[str], None]] = {
            "/ping": self._ping,
            "/fragments": self._fragments,
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
                raise Refusal("command", f"there is no command {quote(name)}; /help lists them")
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
        self._pings.refuse_above(MAX_PINGS - 1)
        self._send_ping(payload)

    def _send_ping(self, payload: bytes) -> None:
        # Before it is sent: the Pong may come before `ping` returns.
        self._pings.add(SentPing(self._number, payload, time.perf_counter()))
        self._websocket.ping(payload)

    def _fragments(self, text: str) -> None:
        parts = text.split(" ")
        if len(parts) > MAX_PARTS:
            raise Refusal("parts", f"at most {MAX_PARTS} parts are sent; these are {len(parts)}")
        for part in parts:
            if is_command(part) and part != "/ping":
                raise Refusal("parts", f"{quote(part)} begins with one slash, and is not /ping")
        pings = parts.count("/ping")
        if not text or pings == len(parts):
            raise Refusal("parts", "there is no part to send, as in /fragments Hel lo")
        self._pings.refuse_above(MAX_PINGS - pings)
        payload = str(self._number).encode()
        self._websocket.send(Parts(parts, lambda: self._send_ping(payload)))

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
        if self._teller:
            self._teller.tell_close(close)
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


class Parts(Sequence[str]):
    """The parts of a message in fragments. Whoever iterates sends the Pings between them, too.

    It is a sequence because the last part of one has the FIN bit (see `WebSocket.send`).
    """

    def __init__(self, words: list[str], send_ping: Callable[[], None]) -> None:
        """`words` are the parts, and `/ping` where a Ping is to be sent."""
        self._words = words
        self._send_ping = send_ping
        self._parts = [word for word in words if word != "/ping"]

    def __iter__(self) -> Iterator[str]:
        for word in self._words:
            if word == "/ping":
                self._send_ping()
            else:
                yield word

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: Any) -> Any:
        return self._parts[index]


class Pings:
    """The Pings that wait for their Pong, the oldest first. Any thread.

    The thread that receives adds them, and the clock may find a Pong while that thread is busy.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[SentPing] = []

    def refuse_above(self, count: int) -> None:
        """Raise Refusal if more than so many wait, because then there is no room for more."""
        with self._lock:
            waiting = len(self._waiting)
        if waiting > count:
            raise Refusal("pings", f"{waiting} Pings wait for their Pong already")

    def add(self, ping: SentPing) -> None:
        with self._lock:
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


def quote(word: str) -> str:
    """A word of a client's message, and only its beginning if it is long."""
    return word if len(word) <= MAX_QUOTED else f"{word[:MAX_QUOTED]}…"

"""WebDriver BiDi: commands to a browser over a WebSocket, and the events that it tells of.

https://w3c.github.io/webdriver-bidi/ describes both. Left out is all but the transport. The
WebSocket is that of the websockets package: if our own client carried the commands, a fault of ours
would look like one of the browser's.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

from peers import PATIENCE

ANSWER_TIME = 2 * PATIENCE  # seconds that the browser has for one command

Listener = Callable[[str, dict[str, Any]], None]


class BiDiError(Exception):
    """The browser refused a command, or a script in it threw an exception."""


class BiDi:
    """A session with a browser. For one thread.

    An event is passed to all `listeners`, as its name and its parameters, while a command waits for
    its answer or `handle_events` runs. A listener may `post` commands, but not `call` them.
    """

    def __init__(self, websocket: ClientConnection) -> None:
        self.listeners: list[Listener] = []
        self._websocket = websocket
        self._last_id = 0
        self._posted: dict[int, str] = {}  # the methods of the commands whose answer nobody awaits

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result. Raises BiDiError if the browser refuses it."""
        number = self._send(method, parameters)
        deadline = time.monotonic() + ANSWER_TIME
        while True:
            try:
                message = self._receive(deadline - time.monotonic())
            except TimeoutError as error:
                error.add_note(f"the browser has not answered {method}")
                raise
            if message.get("id") == number:
                return result_of(message, method)
            self._handle(message)

    def post(self, method: str, **parameters: Any) -> None:
        """Send a command without waiting for its result."""
        self._posted[self._send(method, parameters)] = method

    def handle_events(self) -> None:
        """Pass on the events that have come."""
        while True:
            try:
                message = self._receive(0)
            except TimeoutError:
                return
            self._handle(message)

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": parameters}
        self._websocket.send(json.dumps(command))
        return self._last_id

    def _receive(self, timeout: float) -> dict[str, Any]:
        message = json.loads(self._websocket.recv(max(0, timeout)))
        assert isinstance(message, dict)
        return message

    def _handle(self, message: dict[str, Any]) -> None:
        if message["type"] == "event":
            for listener in list(self.listeners):
                listener(message["method"], message["params"])
            return
        method = self._posted.pop(message["id"])
        # What was to be answered may be gone, as the page that asked for it is.
        if message.get("error") != "no such request":
            result_of(message, method)


@contextlib.contextmanager
def session(url: str) -> Iterator[BiDi]:
    """A new session with the browser that listens at this address."""
    with connect(
        f"{url}/session",
        compression=None,
        max_size=None,  # a screenshot may be large
        open_timeout=PATIENCE,
        ping_interval=None,
    ) as websocket:
        bidi = BiDi(websocket)
        bidi.call("session.new", capabilities={})
        yield bidi


def result_of(message: dict[str, Any], method: str) -> dict[str, Any]:
    if message["type"] == "error":
        raise BiDiError(f"{method}: {message['error']}: {message['message']}")
    result: dict[str, Any] = message["result"]
    return result

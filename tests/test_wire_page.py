"""docs/wire.md tells the truth: each of its conversations is held with the real server."""

import contextlib
import json
import re
from typing import Any

import pytest

from chatting import assert_here, read_close_past_messages, text_frame
from fetching import parse
from peers import Peer
from programs import ROOT, Program, chat

PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
CONVERSATIONS = [
    pytest.param(text, id=section.partition("\n")[0])
    for section in re.split("^#+ ", PAGE, flags=re.MULTILINE)
    for text in re.findall(r"```wire\n(.*?)```", section, re.DOTALL)
]
PROGRAM = "python3 chat_server.py"
ID = re.compile(r"1[67][0-9]{11}-0")  # as the page writes ids


class Conversation:
    """The clients of a conversation, and which id of the server's stands for which of the page."""

    def __init__(self, server: Program, stack: contextlib.ExitStack) -> None:
        """The connections are closed with `stack`."""
        self._server = server
        self._stack = stack
        self._peers: dict[str, Peer] = {}  # those that are not closed, by name
        self._given: dict[str, str] = {}

    def do(self, line: str) -> None:
        """Do what a line says, or check that it happens."""
        who, verb, rest = line.split(" ", 2)
        if who == "GET":
            self._get(verb, rest.removeprefix("answers "))
        elif verb == "connects":
            target = self._with_real_ids(rest.removeprefix("to "))
            self._peers[who] = self._stack.enter_context(self._server.join(target))
        elif verb == "sends":
            self._peers[who].send(text_frame(self._with_real_ids(rest)))
        elif verb == "receives":
            self._receive(self._peers[who], rest)
        else:
            assert rest.startswith("closed with ")
            self._see_closed(self._peers.pop(who), rest.removeprefix("closed with "))

    def end(self) -> None:
        """Check that nobody has got more than the page says."""
        for peer in self._peers.values():
            assert_here(peer)

    def _with_real_ids(self, text: str) -> str:
        return ID.sub(lambda found: self._given.get(found[0], found[0]), text)

    def _get(self, target: str, text: str) -> None:
        request = f"GET {target} HTTP/1.1\r\nHost: localhost:{self._server.server_port}\r\n\r\n"
        assert parse(self._server.answer(request.encode())[1]).body == text

    def _receive(self, peer: Peer, text: str) -> None:
        expected = json.loads(text)
        while True:
            first, payload = peer.read_frame()
            assert first == 0x81
            heard: dict[str, Any] = json.loads(payload)
            # Who is here is told whenever it has changed, between any two others.
            if heard.get("event") != "online" or heard == expected:
                break
        if "id" in expected:
            self._given.setdefault(expected["id"], heard["id"])
        assert payload.decode() == self._with_real_ids(text)

    def _see_closed(self, peer: Peer, text: str) -> None:
        code, _, reason = text.partition(" ")
        _, close = read_close_past_messages(peer)
        assert close == (0x88, int(code).to_bytes(2, "big") + reason.encode())


@pytest.mark.parametrize("text", CONVERSATIONS)
def test_conversation_on_the_page_is_what_the_server_and_its_clients_say(text: str) -> None:
    lines = text.replace("\n  ", "").splitlines()  # a line that is broken goes on with two blanks
    options = lines.pop(0).removeprefix(PROGRAM).split() if lines[0].startswith(PROGRAM) else []
    with chat(*options) as server, contextlib.ExitStack() as peers:
        conversation = Conversation(server, peers)
        for line in lines:
            conversation.do(line)
        conversation.end()


def test_every_event_is_in_a_conversation() -> None:
    blocks = re.findall(r"```wire\n(.*?)```", PAGE, re.DOTALL)
    events = set(re.findall(r'"event": ?"([a-z]+)"', "".join(blocks)))
    assert events == {"gap", "join", "older", "online", "ping", "pong", "slowed"}

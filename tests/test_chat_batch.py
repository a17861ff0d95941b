"""What `handle_messages` takes at once, and who is sent away when something fails on the way."""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

import chat.batch
import chat_server
import rfc6455
from chat.batch import News, finish, take
from chat.entry import PAGE_CHARACTERS, Content, HistoryError, size_of
from chat.history import SqliteHistory
from chat.refusal import refuse
from chat.resume import Joining
from chat_server import Message, handle_messages
from guests import chat_in_this_process, guests
from histories import Said, texts
from patching import patch_method
from peers import eventually, masked, serving, shake_hands
from rfc6455 import State, WebSocket
from rfc6455.stream import MAX_BACKLOG

Item = Message | Joining | News | None


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteHistory]:
    """The history of a chat in this process."""
    with chat_in_this_process(monkeypatch) as history:
        yield history


def handle(*items: Item) -> None:
    """Have `handle_messages` do with these what it does, until its queue is closed."""
    for item in items:
        chat_server.broadcast.put(item)
    chat_server.broadcast.put(None)
    handle_messages()


def fail_to_append(messages: Sequence[Content]) -> None:
    raise HistoryError("a bad block")


# Taking


@pytest.mark.parametrize("character", ["x", "好", "\u0001"])
@pytest.mark.parametrize("length", [1, 60_000])
def test_one_piece_is_never_too_large_for_a_client_that_reads(
    history: SqliteHistory, length: int, character: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is above the backlog's limit would drop everyone, the fastest reader too."""
    size = max(1, length // len(json.dumps(character, ensure_ascii=False)[1:-1].encode()))
    pieces: list[int] = []

    def record(websockets: object, *messages: str) -> None:
        pieces.append(sum(len(text.encode()) + 10 for text in messages))  # 10: a frame's header

    def take_and_check(broadcast: "queue.Queue[Item]", timeout: float | None) -> list[Item]:
        items = take(broadcast, timeout)
        sizes = [size_of(item) for item in items if isinstance(item, Message)]
        assert sum(sizes) < PAGE_CHARACTERS + max(sizes, default=0)
        return items

    monkeypatch.setattr(rfc6455, "broadcast", record)
    monkeypatch.setattr(chat.batch, "take", take_and_check)
    monkeypatch.setattr(chat_server, "broadcast", queue.Queue())
    with guests(1) as (ada,):
        messages = [
            Message(sender=ada.websocket, message=character * size, key=f"{number}".rjust(64, "k"))
            for number in range(1000)
        ]
        handle(*messages)
    assert sum(pieces) > 1000 * length
    assert max(pieces) < MAX_BACKLOG


def test_take_returns_nothing_when_nothing_comes_before_the_timeout() -> None:
    assert take(queue.Queue[Item](), timeout=0.01) == []


def test_handle_messages_takes_what_waits_behind_none_before_it_ends(
    history: SqliteHistory,
) -> None:
    with guests(1) as (ada,):
        chat_server.broadcast.put(None)
        handle(*(Message(sender=ada.websocket, message=str(number)) for number in range(5)))
    assert texts(history.since("0").entries) == ["0", "1", "2", "3", "4"]


def test_messages_from_other_servers_are_shown_when_nobody_here_says_anything(
    history: SqliteHistory,
) -> None:
    with guests(1) as (ada,):
        history.start = "0-0"
        history.append([Said("said elsewhere")])
        chat_server.clients.add(ada.websocket)
        handle("news")
        assert json.loads(ada.peer.read_frame().payload)["message"] == "said elsewhere"


# Failures


def test_message_that_waits_behind_a_failed_one_of_the_same_client_is_not_kept(
    history: SqliteHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guests(2) as (ada, bob):
        with monkeypatch.context() as broken:
            broken.setattr(history, "append", fail_to_append)
            handle(Message(sender=ada.websocket, message="first"))
        handle(
            Message(sender=ada.websocket, message="behind it"),
            Message(sender=bob.websocket, message="by another"),
        )
        assert ada.peer.read_frame() == (0x88, b"\x03\xf3the message could not be saved")
        assert bob.websocket.state is State.OPEN
        assert texts(history.since("0").entries) == ["by another"]


def test_failure_for_one_client_does_not_send_away_those_whose_wish_was_fulfilled(
    history: SqliteHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(message_id: str) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(history, "entry", fail)
    history.append([Said("known", "k")])
    with guests(4) as (ada, bob, eve, late):
        for each in (eve, late):
            chat_server.presence.expect(each.websocket)
        try:
            handle(
                Message(sender=ada.websocket, message="known", key="k"),
                Joining(late.websocket, "no id"),
                Message(sender=bob.websocket, message="new"),
                Joining(eve.websocket, "0"),
            )
            assert chat_server.clients == {eve.websocket}
        finally:
            for each in (eve, late):
                chat_server.presence.leave(each.websocket)
        for each in (ada, late):
            assert each.peer.read_frame() == (0x88, b"\x03\xf3internal error")
        heard = [json.loads(eve.peer.read_frame().payload)["message"] for _ in range(2)]
        assert heard == ["known", "new"]
        assert bob.websocket.state is eve.websocket.state is State.OPEN


def test_client_that_cannot_be_let_in_does_not_keep_others_out(
    history: SqliteHistory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    history.append([Said("missed")])
    with guests(2) as (bad, good):

        def fail_for_one(websockets: list[WebSocket], *messages: str) -> None:
            if bad.websocket in websockets:
                raise RuntimeError("unforeseen")
            rfc6455.broadcast(websockets, *messages)

        monkeypatch.setattr("chat.resume.broadcast", fail_for_one)
        for each in (bad, good):
            chat_server.presence.expect(each.websocket)
        try:
            handle(Joining(bad.websocket, "0"), Joining(good.websocket, "0"))
            assert chat_server.clients == {good.websocket}
        finally:
            for each in (bad, good):
                chat_server.presence.leave(each.websocket)
        assert bad.peer.read_frame() == (0x88, b"\x03\xf3internal error")
        assert json.loads(good.peer.read_frame()[1])["message"] == "missed"
        (record,) = [each for each in caplog.records if "cannot be let in" in each.message]
        assert record.exc_info


def test_client_that_cannot_even_be_sent_away_does_not_end_handle_messages(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(code: int, reason: str, *, wait: bool) -> None:
        raise RuntimeError("unforeseen")

    with guests(1) as (ada,):
        with monkeypatch.context() as broken:
            patch_method(broken, ada.websocket, "close", fail)
            refuse(ada.websocket, "internal error")
        (record,) = caplog.records
        assert record.exc_info


# The end


def test_end_of_the_chat_waits_one_second_in_all_for_messages_in_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue takes nothing for most of it."""
    now = 100.0
    waits: list[float] = []
    refused: list[bool] = []

    class SlowQueue:
        def put(self, item: object, timeout: float) -> None:
            nonlocal now
            waits.append(timeout)
            now += 0.75

    class Broadcaster:
        def join(self, timeout: float) -> None:
            waits.append(timeout)
            assert not refused

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(chat.batch, "refuse_everyone", lambda: refused.append(True))
    finish(cast(Any, SlowQueue()), cast(Any, Broadcaster()))
    assert waits == [1.0, 0.25]
    assert refused


def test_end_of_the_chat_comes_even_if_nobody_empties_a_full_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused: list[bool] = []
    monkeypatch.setattr(chat.batch, "refuse_everyone", lambda: refused.append(True))
    monkeypatch.setattr(chat.batch, "END_TIME", 0.01)
    full: queue.Queue[Item] = queue.Queue(maxsize=1)
    full.put("news")
    finish(full, threading.Thread())
    assert refused


# Leaving


@pytest.mark.parametrize("last_frame", [b"\x88\x80" + bytes(4), masked(0x81, b"no JSON")])
def test_client_that_has_left_is_forgotten(history: SqliteHistory, last_frame: bytes) -> None:
    with serving(chat_server.handle_connections, "/ws") as server:
        with shake_hands(server, "/ws") as peer:
            eventually(lambda: chat_server.clients)
            peer.send(last_frame)
            first, payload = peer.read_frame()
            assert first == 0x88
            if payload:
                peer.send(masked(0x88, payload))
            with contextlib.suppress(ConnectionError):
                assert peer.read_to_eof() == b""
            eventually(lambda: not chat_server.clients)

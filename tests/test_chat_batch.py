"""What `handle_messages` takes at once, and who is refused when something fails on the way."""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

import chat.batch
import chat.refusal
import chat_server
import console
import rfc6455.server
from chat.batch import END_TIME, MessagesThread, News, finish, take
from chat.entry import PAGE_CHARACTERS, Content, HistoryError, size_of
from chat.history import SqliteHistory
from chat.refusal import refuse
from chat.resume import Resuming
from chat_server import Message, handle_messages
from guests import chat_in_this_process, guests
from histories import Said, texts
from patching import patch_method
from peers import PATIENCE, eventually, masked, serving, shake_hands
from rfc6455 import State, WebSocket
from rfc6455.stream import MAX_BACKLOG

Item = Message | Resuming | News | None


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
    broadcast = rfc6455.broadcast
    read: list[str] = []

    with guests(1) as (ada,):
        pieces: list[int] = []

        def read_whole(websockets: list[WebSocket], *messages: str) -> None:
            """Send the piece, read it all as a client, and note its size."""
            broadcast(websockets, *messages)
            piece = 0
            for _ in messages:
                _, payload = ada.peer.read_frame()
                piece += len(payload) + 10  # 10: a frame's header
                read.append(json.loads(payload)["message"])
            pieces.append(piece)

        monkeypatch.setattr(rfc6455, "broadcast", read_whole)
        monkeypatch.setattr(chat_server, "broadcast", queue.Queue())
        chat_server.clients.add(ada.websocket)
        said = character * size
        handle(
            *(
                Message(sender=ada.websocket, message=said, key=f"{number}".rjust(64, "k"))
                for number in range(1000)
            )
        )
        assert ada.websocket.state is State.OPEN
    assert read == [said] * 1000
    assert max(pieces) < MAX_BACKLOG


@pytest.mark.parametrize("length", [1, 60_000, PAGE_CHARACTERS])
def test_take_ends_with_the_message_that_fills_a_page(length: int) -> None:
    with guests(1) as (ada,):
        message = Message(sender=ada.websocket, message="x" * length)
        waiting: queue.Queue[Item] = queue.Queue()
        for _ in range(1000):
            waiting.put(message)
        taken = 0
        while not waiting.empty():
            count = len(list(take(waiting, timeout=None)))
            assert (count - 1) * size_of(message) < PAGE_CHARACTERS
            taken += count
            assert count * size_of(message) >= PAGE_CHARACTERS or taken == 1000
    assert taken == 1000


def test_take_yields_nothing_when_nothing_comes_before_the_timeout() -> None:
    assert list(take(queue.Queue[Item](), timeout=0.01)) == []


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


def test_client_whose_many_messages_cannot_be_saved_is_logged_once(
    history: SqliteHistory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(history, "append", fail_to_append)
    with guests(2) as (ada, bob):
        sayers = [ada, bob, ada, ada]
        handle(*(Message(sender=each.websocket, message="x") for each in sayers))
        logged = [each for each in caplog.messages if "could not be saved: a bad block" in each]
        assert len(logged) == 2
        assert ada.websocket.peer in logged[0] and bob.websocket.peer in logged[1]


def test_failure_for_one_client_does_not_refuse_those_that_have_what_they_wait_for(
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
                Resuming(late.websocket, "no id"),
                Message(sender=bob.websocket, message="new"),
                Resuming(eve.websocket, "0"),
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


def test_client_that_cannot_be_admitted_does_not_keep_others_out(
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
            handle(Resuming(bad.websocket, "0"), Resuming(good.websocket, "0"))
            assert chat_server.clients == {good.websocket}
        finally:
            for each in (bad, good):
                chat_server.presence.leave(each.websocket)
        assert bad.peer.read_frame() == (0x88, b"\x03\xf3internal error")
        assert json.loads(good.peer.read_frame().payload)["message"] == "missed"
        (record,) = [each for each in caplog.records if "could not be admitted" in each.message]
        assert record.exc_info


def test_client_that_cannot_even_be_refused_does_not_end_handle_messages(
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


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """Whether everybody was refused; afterwards nobody is, as this process has more tests."""
    yield chat.refusal._ended
    chat.refusal._ended.clear()


def test_end_of_the_chat_waits_for_the_thread_of_the_messages_at_most_end_time(
    ended: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue takes None only after most of that time, and nobody sees it."""
    monkeypatch.setattr(chat.batch, "END_TIME", 2.0)
    full: queue.Queue[Item] = queue.Queue(maxsize=1)
    full.put("news")
    free = threading.Timer(1.6, full.get)
    release = threading.Event()
    stuck = threading.Thread(target=release.wait, args=(6 * PATIENCE,))
    free.start()
    stuck.start()
    try:
        begin = time.monotonic()
        finish(full, stuck)
        elapsed = time.monotonic() - begin
        assert 2.0 <= elapsed < 3.0
        assert ended.is_set() and stuck.is_alive()
        assert full.get_nowait() is None
    finally:
        release.set()
        stuck.join()
        free.join()


def test_end_of_the_chat_sends_what_waits_before_everybody_is_refused(
    history: SqliteHistory, ended: threading.Event
) -> None:
    with guests(1) as (ada,):
        for number in range(5):
            chat_server.broadcast.put(Message(sender=ada.websocket, message=str(number)))
        thread = MessagesThread(handle_messages)
        thread.start()
        finish(chat_server.broadcast, thread)
        assert ended.is_set() and not thread.is_alive() and not thread.failed
    assert texts(history.since("0").entries) == ["0", "1", "2", "3", "4"]


def test_end_of_the_chat_comes_even_if_nobody_empties_a_full_queue(
    ended: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat.batch, "END_TIME", 0.01)
    full: queue.Queue[Item] = queue.Queue(maxsize=1)
    full.put("news")
    finish(full, threading.current_thread())  # which cannot be joined, and is not
    assert ended.is_set()
    assert full.get_nowait() == "news"


def test_all_waits_at_the_end_of_the_server_sum_to_less_than_five_seconds() -> None:
    waits = [
        0.1,  # until `serve_forever` looks at its flag
        END_TIME,
        rfc6455.server.SHUTDOWN_GRACE,
        rfc6455.server._DROP_TIME,
        console.EXIT_TIME,
    ]
    assert sum(waits) <= 4.7


# A full queue


@pytest.mark.parametrize("last_frame", [b"", masked(0x88, b"\x03\xe8")])
def test_client_that_leaves_while_the_queue_is_full_does_not_hold_its_thread(
    history: SqliteHistory, monkeypatch: pytest.MonkeyPatch, last_frame: bytes
) -> None:
    full: queue.Queue[Item] = queue.Queue(maxsize=1)
    full.put("news")
    monkeypatch.setattr(chat_server, "broadcast", full)
    with serving(chat_server.handle_connections, "/ws") as server:
        with shake_hands(server, "/ws") as peer:
            eventually(lambda: chat_server.clients)
            peer.send(masked(0x81, b"{}") + last_frame)
        eventually(lambda: not chat_server.clients)
    assert full.get_nowait() == "news" and full.empty()


def test_client_that_stays_while_the_queue_is_full_loses_nothing(
    history: SqliteHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: queue.Queue[None] = queue.Queue()

    class Watched(queue.Queue[Item]):
        def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
            tries.put(None)
            super().put(item, block, timeout)

    full = Watched(maxsize=1)
    full.put("news")
    monkeypatch.setattr(chat_server, "broadcast", full)
    monkeypatch.setattr(chat.batch, "PUT_TIMEOUT", 0.01)
    with (
        serving(chat_server.handle_connections, "/ws") as server,
        shake_hands(server, "/ws") as peer,
    ):
        eventually(lambda: chat_server.clients)
        peer.send(masked(0x81, b'{"message": "patient"}'))
        for _ in range(4):
            tries.get(timeout=PATIENCE)
        assert full.get() == "news"
        said = full.get(timeout=PATIENCE)
        assert isinstance(said, Message) and said.message == "patient"


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

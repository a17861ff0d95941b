"""Faults that nobody foresaw, in a chat that runs: each is logged, the clients that are concerned
are told, and the chat goes on.

The fault is put into the real program by a few lines that run before its `main`; what a client
says triggers it.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatting import (
    ask_older,
    hear,
    hear_online,
    hear_said,
    names_in,
    read_close_past_messages,
    resume,
    say,
    tell_name,
)
from peers import Peer, eventually, masked
from programs import ROOT, Program, answer_close, name_of

START = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import chat.batch
import chat.message
import chat.presence
import chat.resume
import chat_server
from chat.entry import HistoryError
from chat.history import SqliteHistory

broken = []  # exceptions to be raised, each once

def fail_first(owner, name):
    whole = getattr(owner, name)
    def failing(*arguments, **options):
        if broken:
            raise broken.pop()
        return whole(*arguments, **options)
    setattr(owner, name, failing)

def on_hearing(text, do):
    whole = chat_server.decode
    def decode(message):
        if text in str(message):
            do()
        return whole(message)
    chat_server.decode = decode
"""
END = "\nchat_server.main()\n"
BREAK_ON_HEARING = 'on_hearing("break it", lambda: broken.append(RuntimeError("unforeseen")))'

Start = Callable[[str], Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the chat with a fault in it. Not `chat()`: that wants a log without traces."""
    with contextlib.ExitStack() as stack:

        def start(fault: str) -> Program:
            (tmp_path / "faulty.py").write_text(START + fault + END, encoding="utf-8")
            program = Program("faulty.py", "--rate", "0", root=tmp_path)
            stack.callback(program.discard)
            return program

        yield start


def closed_with(peer: Peer) -> tuple[int, str]:
    """How the server closes this connection; who is here is left out."""
    messages, close = read_close_past_messages(peer)
    assert all(message.get("event") == "online" for message in messages)
    peer.send(masked(*close))
    assert peer.read_to_eof() == b""
    return int.from_bytes(close.payload[:2], "big"), close.payload[2:].decode()


def assert_goes_on(server: Program, *peers: Peer) -> None:
    """Who was here is here, and hears what is said; who comes hears it, too."""
    with server.join() as eve:
        say(eve, "the chat goes on")
        for peer in (eve, *peers):
            assert hear_said(peer)["message"] == "the chat goes on"
    with resume(server) as late:
        while hear_said(late)["message"] != "the chat goes on":
            pass


def await_admission(peer: Peer) -> None:
    """Wait until one that resumes gets events: before, it may not be admitted yet."""
    while hear(peer).get("event") != "online":
        pass


def assert_noted(server: Program, text: str) -> None:
    """It is in the log with its trace: once, however often it has happened."""
    eventually(lambda: "Traceback" in server.log)
    assert server.log.count("Traceback") == 1
    assert text in server.log


def test_message_that_cannot_be_kept_costs_only_its_sender_the_connection(
    start: Start,
) -> None:
    server = start(f"{BREAK_ON_HEARING}\nfail_first(SqliteHistory, 'append')")
    with server.join() as ada, server.join() as bob, resume(server) as eve:
        await_admission(eve)
        say(ada, "break it", key="k")
        assert answer_close(ada) == (1011, "internal error")
        assert_noted(server, "RuntimeError: unforeseen")
        with server.join() as again:
            say(again, "it was not kept", key="k")
            for peer in (again, bob, eve):
                assert hear_said(peer)["message"] == "it was not kept"
        assert_goes_on(server, bob, eve)


def test_message_that_is_taken_while_the_queue_fails_costs_only_its_sender_the_connection(
    start: Start,
) -> None:
    server = start(f"{BREAK_ON_HEARING}\nfail_first(chat.batch, 'size_of')")
    with server.join() as ada, server.join() as bob, resume(server) as eve:
        await_admission(eve)
        say(ada, "break it")
        assert answer_close(ada) == (1011, "internal error")
        assert_noted(server, "RuntimeError: unforeseen")
        assert_goes_on(server, bob, eve)


def test_chat_goes_on_after_the_queue_could_not_be_read_once(start: Start) -> None:
    server = start(f"{BREAK_ON_HEARING}\nfail_first(chat.batch, 'take')")
    with server.join() as ada, server.join() as bob:
        say(ada, "break it")
        for peer in (ada, bob):
            assert hear(peer)["message"] == "break it"
        assert_noted(server, "RuntimeError: unforeseen")
        assert_goes_on(server, ada, bob)


def test_server_ends_with_status_1_and_a_trace_when_handle_messages_fails(start: Start) -> None:
    server = start(
        f"{BREAK_ON_HEARING}\nfail_first(SqliteHistory, 'append')\n"
        "def fail(batch, error):\n"
        "    raise error\n"
        "chat.batch.Batch.fail = fail"
    )
    with server.join() as ada, resume(server) as bob:
        await_admission(bob)
        say(ada, "break it")
        for peer in (ada, bob):
            assert closed_with(peer) == (1001, "the server is shutting down")
    assert server.wait() == 1
    assert_noted(server, "RuntimeError: unforeseen")
    assert "handle_messages has failed" in server.log


def test_client_whose_message_was_not_kept_is_not_heard_any_more_so_that_order_is_kept(
    start: Start,
) -> None:
    server = start(
        "on_hearing('break it', lambda: broken.append(HistoryError('a bad block')))\n"
        "fail_first(SqliteHistory, 'append')"
    )
    with server.join() as ada, server.join() as bob, resume(server) as eve:
        await_admission(eve)
        say(ada, "break it")
        close = ada.read_frame()
        assert close == (0x88, b"\x03\xf3the message could not be saved")
        for text in ("what was said behind it", "and more"):
            say(ada, text)
        ada.send(masked(*close))
        assert ada.read_to_eof() == b""
        assert_goes_on(server, bob, eve)


@pytest.mark.parametrize("error", ["RuntimeError('unforeseen')", "HistoryError('a bad block')"])
def test_message_that_is_kept_but_cannot_be_read_is_shown_as_soon_as_it_can(
    start: Start, error: str
) -> None:
    broken = f"broken.extend([{error}, {error}])"
    server = start(f"on_hearing('break it', lambda: {broken})\nfail_first(SqliteHistory, 'since')")
    with server.join() as ada, server.join() as bob, resume(server) as eve:
        await_admission(eve)
        say(ada, "break it", key="k")
        copy = hear(bob)
        assert (copy["message"], copy["key"]) == ("break it", "k")
        assert hear(ada) == hear_said(eve) == copy
        if "HistoryError" in error:
            assert "Traceback" not in server.log
            assert server.log.count("cannot be read") == 1
        else:
            assert_noted(server, "RuntimeError: unforeseen")
        with server.join() as again:
            say(again, "once more", key="k")
            assert hear(again) == copy
        assert_goes_on(server, ada, bob, eve)


@pytest.mark.parametrize("error", ["RuntimeError('unforeseen')", "HistoryError('a bad block')"])
def test_copy_that_cannot_be_read_costs_only_the_client_that_needs_it_the_connection(
    start: Start, error: str
) -> None:
    server = start(
        f"on_hearing('again', lambda: broken.append({error}))\nfail_first(SqliteHistory, 'entry')"
    )
    with server.join() as ada, server.join() as bob, resume(server) as eve:
        await_admission(eve)
        say(ada, "once", key="k")
        for peer in (ada, bob, eve):
            assert hear_said(peer)["message"] == "once"
        say(ada, "again", key="k")
        assert answer_close(ada) == (1011, "internal error")
        eventually(lambda: "could not be sent a copy" in server.log)
        assert server.log.count("Traceback") == ("RuntimeError" in error)
        assert_goes_on(server, bob, eve)


def test_client_that_cannot_be_admitted_is_refused(start: Start) -> None:
    server = start(
        "broken.append(RuntimeError('unforeseen'))\nfail_first(chat.presence.Presence, 'admit')"
    )
    with resume(server) as ada:
        assert closed_with(ada) == (1011, "internal error")
        assert_noted(server, "RuntimeError: unforeseen")
    with resume(server) as ada:
        assert_goes_on(server, ada)


@pytest.mark.parametrize(
    ("error", "reason", "traces"),
    [
        ("RuntimeError('unforeseen')", "internal error", 1),
        ("ValueError('unforeseen')", "internal error", 1),
        ("HistoryError('a bad block')", "the history could not be read", 0),
    ],
)
def test_client_that_joins_while_the_history_cannot_be_read_is_told_and_may_come_again(
    start: Start, error: str, reason: str, traces: int
) -> None:
    server = start(f"broken.append({error})\nfail_first(SqliteHistory, 'before_newest')")
    with resume(server) as ada:
        assert closed_with(ada) == (1011, reason)
        words = error.partition("'")[2].partition("'")[0]
        eventually(lambda: words in server.log)
        assert server.log.count("Traceback") == traces
    with resume(server) as ada:
        assert_goes_on(server, ada)


def test_client_that_asks_for_older_messages_which_cannot_be_read_is_told_and_stays(
    start: Start,
) -> None:
    failure = "broken.append(HistoryError('a bad block'))"
    server = start(f"{failure}\nfail_first(SqliteHistory, 'before')")
    with resume(server) as ada:
        ask_older(ada, "9-9")
        assert hear_said(ada) == {"event": "older", "before": "9-9", "failed": True}
        reason = "gets no older messages: the history could not be read: a bad block"
        eventually(lambda: server.log.count(reason) == 1)
        assert "Traceback" not in server.log
        ask_older(ada, "9-9")
        answer = {"event": "older", "before": "9-9", "messages": [], "more": False}
        assert hear_said(ada) == answer
        assert_goes_on(server, ada)


def test_client_for_whose_older_messages_something_unforeseen_fails_is_told_with_1011(
    start: Start,
) -> None:
    server = start("broken.append(ValueError('unforeseen'))\nfail_first(SqliteHistory, 'before')")
    with resume(server) as ada:
        ask_older(ada, "9-9")
        assert closed_with(ada) == (1011, "internal error")
        assert_noted(server, "unforeseen")
    with resume(server) as ada:
        assert_goes_on(server, ada)


@pytest.mark.parametrize("error", ["TypeError", "ValueError", "KeyError", "OSError"])
def test_mistake_of_the_server_is_never_blamed_on_the_client(start: Start, error: str) -> None:
    server = start(
        f"on_hearing('break it', lambda: broken.append({error}('unforeseen')))\n"
        "fail_first(chat_server, 'Message')"
    )
    with server.join() as ada, server.join() as bob:
        name = name_of(ada)
        say(ada, "break it")
        assert answer_close(ada) == (1011, "internal error")
        assert_noted(server, f"{error}: ")
        assert any("the handler failed" in line for line in server.log_lines_about(name))
        assert_goes_on(server, bob)


def test_message_that_cannot_be_encoded_is_left_out_and_costs_only_its_sender_the_connection(
    start: Start,
) -> None:
    server = start(
        "encode = chat.message.encode\n"
        "def fail(entry, **options):\n"
        "    if entry.message == 'bad':\n"
        "        raise RuntimeError('unforeseen')\n"
        "    return encode(entry, **options)\n"
        "chat.message.encode = fail"
    )
    with server.join() as ada, resume(server) as bob:
        await_admission(bob)
        say(ada, "before")
        with server.join() as sender:
            say(sender, "bad")
            messages, close = read_close_past_messages(sender)
            assert all(each["message"] == "before" for each in messages)
            assert close == (0x88, b"\x03\xf3internal error")
        say(ada, "after")
        for peer in (ada, bob):
            assert [hear_said(peer)["message"] for _ in range(2)] == ["before", "after"]
        with resume(server) as eve:
            assert [hear_said(eve)["message"] for _ in range(2)] == ["before", "after"]
        eventually(lambda: "cannot be encoded" in server.log)


def test_client_that_cannot_be_sent_to_is_dropped_and_the_others_hear_everything(
    start: Start,
) -> None:
    """Which of them it is, is not known before."""
    server = start(
        "import socket\n"
        "send = socket.socket.send\n"
        "def fail(sock, data, *flags):\n"
        "    if b'to all' in bytes(data) and broken:\n"
        "        raise broken.pop()\n"
        "    return send(sock, data, *flags)\n"
        "socket.socket.send = fail\n"
        "broken.append(RuntimeError('unforeseen'))"
    )
    with server.join() as ada, server.join() as bob, server.join() as eve:
        say(ada, "to all")
        heard = []
        for peer in (ada, bob, eve):
            with contextlib.suppress(EOFError, ConnectionError):
                assert hear(peer)["message"] == "to all"
                heard.append(peer)
        assert len(heard) == 2
        assert_noted(server, "RuntimeError: unforeseen")
        assert_goes_on(server, *heard)


def test_online_event_is_sent_again_after_a_failure_without_a_further_change(start: Start) -> None:
    server = start(
        f"{BREAK_ON_HEARING}\nfail_first(chat.presence.Presence, '_online')\n"
        "chat.presence.PRESENCE_INTERVAL = 0.1"
    )
    with resume(server) as ada:
        await_admission(ada)
        tell_name(ada, "break it")
        assert hear_online(ada, lambda event: names_in(event) == ["break it"])["count"] == 1
        assert_noted(server, "the event `online` could not be sent")

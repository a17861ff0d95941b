"""Clients of the chat that are stuck, slow, or gone, and how the chat ends beside them."""

import contextlib
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from chatting import (
    hear,
    hear_texts,
    read_close_past_messages,
    request_ws,
    say,
    text_frame,
    upgrade,
)
from histories import pair
from pairs import reset
from peers import PATIENCE, Peer, eventually, masked
from programs import EXIT_TIME, NOISE, ROOT, Program, answer_close, chat, name_of

# Peers that do not behave


def test_stuck_client_is_dropped_and_costs_nobody_a_message() -> None:
    with chat() as server, server.tcp(receive_buffer=4096) as stuck, server.join() as ada:
        upgrade(server, stuck)
        name = name_of(stuck)
        with server.join() as bob:
            heard = 0
            while not server.log_lines_about(name):
                assert heard < 2000, "it is not dropped"
                say(ada, f"{heard:8}" * 1000)
                for peer in (ada, bob):
                    assert hear(peer)["message"] == f"{heard:8}" * 1000
                heard += 1
        lines = server.log_lines_about(name)
        assert len(lines) == 1
        assert "too slow" in lines[0]
        assert heard * 8000 > 1 << 20
        with contextlib.suppress(ConnectionError):
            stuck.read_to_eof()


def test_slow_client_that_reads_at_last_gets_everything_in_order() -> None:
    with chat() as server, server.tcp(receive_buffer=4096) as slow, server.join() as ada:
        upgrade(server, slow)
        texts = [f"{i:8}" * 1000 for i in range(100)]
        for text in texts:
            say(ada, text)
        assert hear_texts(ada, 100) == texts
        assert hear_texts(slow, 100) == texts


def test_clients_that_do_not_read_do_not_hold_up_one_that_joins() -> None:
    with chat() as server, contextlib.ExitStack() as stack:
        for _ in range(20):
            stuck = stack.enter_context(server.tcp(receive_buffer=4096))
            upgrade(server, stuck)
        ada = stack.enter_context(server.join())
        for i in range(60):
            say(ada, f"{i:8}" * 1000)
            hear(ada)
        bob = stack.enter_context(server.join())
        say(bob, "new here")
        assert hear_texts(bob, 1) == hear_texts(ada, 1) == ["new here"]


@pytest.mark.parametrize(
    "last_words", [b"", masked(0x81, b'{"message": "bye"}')[:9], masked(0x01, b"{"), b"\x88"]
)
def test_vanished_client_is_one_line_in_the_log(server: Program, last_words: bytes) -> None:
    log_before = len(server.log)
    gone = server.join()
    name = name_of(gone)
    with server.join() as ada:
        gone.send(last_words)
        reset(gone)
        eventually(lambda: server.log_lines_about(name, log_before))
        say(ada, "anyone there?")
        assert hear_texts(ada, 1) == ["anyone there?"]
    (line,) = server.log_lines_about(name, log_before)
    assert "1006" in line


def test_client_that_vanishes_under_a_flood_is_one_line_in_the_log() -> None:
    with chat() as server, server.join() as ada:
        names = []
        for i in range(10):
            gone = server.join()
            names.append(name_of(gone))
            for j in range(20):
                say(ada, f"{i * 20 + j:8}" * 500)
            reset(gone)
        assert hear_texts(ada, 200) == [f"{i:8}" * 500 for i in range(200)]
        eventually(lambda: all(server.log_lines_about(name) for name in names))
        assert [len(server.log_lines_about(name)) for name in names] == [1] * 10
        assert "Traceback" not in server.log


@pytest.mark.parametrize("part", [b"", b"G", b"GET /ws HTTP/1.1\r\nHost: loc", None])
def test_client_that_vanishes_in_its_handshake_leaves_no_traceback(
    server: Program, part: bytes | None
) -> None:
    gone = server.tcp()
    gone.send(request_ws(server) if part is None else part)
    reset(gone)
    with server.join() as ada:
        say(ada, "still here")
        assert hear_texts(ada, 1) == ["still here"]
    assert "Traceback" not in server.log


def test_log_names_who_left_and_how(server: Program) -> None:
    log_before = len(server.log)
    with server.join() as ada:
        name = name_of(ada)
        ada.send(masked(0x88, b"\x0f\xa0so long"))
        assert ada.read_close() == (4000, "")
    (line,) = eventually(lambda: server.log_lines_about(name, log_before))
    assert "4000" in line and "so long" in line


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[2J", "\r", "a\u2028b"])
def test_log_line_stays_one_line_whatever_a_client_says(server: Program, reason: str) -> None:
    log_before = len(server.log)
    with server.join() as ada:
        name = name_of(ada)
        ada.send(masked(0x88, b"\x0f\xa0" + reason.encode()))
        assert ada.read_close()[0] == 4000
    eventually(lambda: server.log_lines_about(name, log_before))
    with server.tcp() as bob:
        bob.send(request_ws(server, Origin=f"http://{reason.strip()[:1]}\x1b[2J"))
        bob.read_to_eof()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u2028]", server.log)
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in server.log.split("\n")[:-1])


def test_clients_that_come_and_go_disturb_nobody_who_talks() -> None:
    senders, each = 4, 150
    with chat() as server, contextlib.ExitStack() as stack:
        watcher = stack.enter_context(server.join())
        stop = threading.Event()
        came = [0] * 4
        errors: list[BaseException] = []

        def come_and_go(number: int) -> None:
            while not stop.is_set():
                with server.join() as guest:
                    if number % 2:
                        say(guest, "hello", username="guest")
                        while hear(guest)["username"] != "guest":
                            pass
                        reset(guest)
                came[number] += 1

        def talk(number: int) -> None:
            with server.join() as peer:
                for i in range(each):
                    say(peer, str(i), username=f"sender {number}")
                    while hear(peer)["username"] != f"sender {number}":
                        pass

        def whole(work: Any, number: int) -> None:
            try:
                work(number)
            except BaseException as error:
                errors.append(error)

        guests = [threading.Thread(target=whole, args=(come_and_go, i)) for i in range(4)]
        talkers = [threading.Thread(target=whole, args=(talk, i)) for i in range(senders)]
        for thread in guests + talkers:
            thread.start()
        heard: dict[str, list[str]] = {f"sender {i}": [] for i in range(senders)}
        last = (0, 0)
        try:
            while any(len(texts) < each for texts in heard.values()) and not errors:
                message = hear(watcher)
                if message["username"] != "guest":
                    heard[message["username"]].append(message["message"])
                assert last < pair(message["id"])
                last = pair(message["id"])
            eventually(lambda: all(came) or errors)
        finally:
            stop.set()
            for thread in guests + talkers:
                thread.join(PATIENCE)
        assert not errors, errors
        assert all(texts == [str(i) for i in range(each)] for texts in heard.values())
        assert all(came)
        assert "Traceback" not in server.log


# The end


STOP_SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@STOP_SIGNALS
def test_signal_closes_everyone_with_1001_and_ends_it_with_0(number: int) -> None:
    with chat() as server, server.join() as ada, server.join() as bob:
        server.signal(number)
        for peer in (ada, bob):
            code, reason = answer_close(peer)
            assert code == 1001
            assert reason
        assert server.wait() == 0
        assert "Traceback" not in server.log


@STOP_SIGNALS
def test_what_was_said_before_the_signal_is_delivered(number: int) -> None:
    with chat() as server, server.join() as ada, server.join() as bob:
        texts = [f"number {i} " + "x" * 300 for i in range(900)]
        frames = b"".join(text_frame(json.dumps({"message": text})) for text in texts)
        ada.send(frames + masked(0x89, b"were you told?"))
        heard = []
        while (frame := ada.read_frame()) != (0x8A, b"were you told?"):
            heard.append(json.loads(frame.payload)["message"])
        server.signal(number)
        heard += hear_texts(ada, 900 - len(heard))
        assert heard == texts
        assert hear_texts(bob, 900) == texts
        assert answer_close(ada)[0] == answer_close(bob)[0] == 1001
        assert server.wait() == 0


def test_signal_ends_it_in_time_beside_clients_that_do_nothing() -> None:
    with chat() as server, contextlib.ExitStack() as stack:
        stuck = stack.enter_context(server.tcp(receive_buffer=4096))
        upgrade(server, stuck)
        idle = stack.enter_context(server.tcp())
        halfway = stack.enter_context(server.tcp())
        halfway.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        deaf = stack.enter_context(server.join())
        ada = stack.enter_context(server.join())
        for i in range(60):
            say(ada, f"{i:8}" * 1000)
            hear(ada)
        server.signal()
        assert answer_close(ada)[0] == 1001
        assert server.wait() == 0
        assert hear_texts(deaf, 60) == [f"{i:8}" * 1000 for i in range(60)]
        assert deaf.read_frame().payload[:2] == b"\x03\xe9"
        for peer in (stuck, idle, halfway):
            with contextlib.suppress(ConnectionError):
                peer.read_to_eof()


def test_signal_ends_it_in_time_while_a_client_is_slowed() -> None:
    with chat("--rate", "0.5") as server, server.join() as fast, server.join() as other:
        fast.send(b"".join(text_frame(json.dumps({"message": str(i)})) for i in range(100)))
        hear(other)
        server.signal()
        _, close = read_close_past_messages(other)
        assert close.payload[:2] == b"\x03\xe9"
        other.send(masked(0x88, close.payload))
        assert other.read_to_eof() == b""
        assert server.wait() == 0


def test_signal_ends_it_in_time_while_all_talk() -> None:
    ends: list[tuple[int, bytes]] = []
    talking = threading.Barrier(5)

    def talk(peer: Peer, name: str) -> None:
        """Say fifty things at once, hear them, and so on until something else is to be heard."""
        words = text_frame(json.dumps({"username": name, "message": "x" * 500}))
        for again in itertools.count():
            if again == 2:
                talking.wait(PATIENCE)
            peer.send(words * 50)
            own = 0
            while own < 50:
                first, payload = peer.read_frame()
                if first != 0x81:
                    ends.append((first, payload[:2]))
                    peer.send(masked(0x88, payload))
                    assert peer.read_to_eof() == b""
                    return peer.close()
                own += json.loads(payload)["username"] == name

    with chat() as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.join()) for _ in range(4)]
        threads = [
            threading.Thread(target=talk, args=(peer, str(i))) for i, peer in enumerate(peers)
        ]
        for thread in threads:
            thread.start()
        try:
            talking.wait(PATIENCE)
            server.signal()
            assert server.wait() == 0
        finally:
            for thread in threads:
                thread.join(PATIENCE)
        assert ends == [(0x88, b"\x03\xe9")] * 4
        assert "Traceback" not in server.log


def test_impatient_user_who_presses_again_sees_no_traceback() -> None:
    with chat() as server, server.join(), server.join() as ada:
        server.signal(signal.SIGINT)
        assert answer_close(ada)[0] == 1001
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            server.signal(number)
        assert server.wait() == 0
        assert "Traceback" not in server.log


@STOP_SIGNALS
def test_signal_as_soon_as_it_says_that_it_runs_ends_it_with_0(number: int) -> None:
    for _ in range(3):
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "chat_server.py"), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert server.stdout is not None
            assert b"http://" in server.stdout.readline()
            server.send_signal(number)
            _, log = server.communicate(timeout=EXIT_TIME + NOISE)
        finally:
            server.kill()
            server.communicate()
        assert (server.returncode, log) == (0, b"")


def test_no_new_client_comes_in_after_the_signal() -> None:
    with chat() as server, server.join() as deaf:
        server.signal()
        assert deaf.read_frame().payload[:2] == b"\x03\xe9"
        with pytest.raises((OSError, EOFError)), server.tcp() as late:
            late.send(request_ws(server))
            late.read_head()
        assert server.wait() == 0


def test_server_starts_again_on_its_port_at_once() -> None:
    with chat() as first, first.join() as ada:
        port = first.server_port
        first.signal()
        assert answer_close(ada)[0] == 1001
        assert first.wait() == 0
    with chat("--port", str(port)) as second, second.join() as ada:
        assert second.server_port == port
        say(ada, "again")
        assert hear_texts(ada, 1) == ["again"]

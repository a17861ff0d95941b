"""A chat whose history is in a file: restarts, files that will not do, a full disk, `kill -9`."""

import contextlib
import json
import os
import resource
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kills
from chat.entry import order
from chat.history import SqliteHistory
from chatting import (
    assert_here,
    hear,
    hear_all_said,
    hear_said,
    ids,
    resume,
    say,
    tell,
)
from finding import require
from histories import Said, assert_rising, since
from peers import PATIENCE, eventually, masked
from programs import Program, answer_close, chat, name_of, run

# The history in a file


def test_history_is_there_after_a_restart_and_its_ids_go_on_rising(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    for start in (0, 10):
        with chat("--history", str(tmp_path / "history")) as server:
            with resume(server) as bob:
                assert hear_all_said(bob, start) == told
                told += tell(server, 10, start=start)
                assert hear_all_said(bob, 10) == told[start:]
            with resume(server, told[4]["id"]) as bob:
                assert hear_all_said(bob, start + 5) == told[5:]
    assert_rising(ids(told))


def test_key_is_known_after_a_restart(tmp_path: Path) -> None:
    for start in ("first", "second"):
        with chat("--history", str(tmp_path / "history")) as server, server.join() as ada:
            say(ada, "once", key="k")
            say(ada, f"{start} end")
            assert {hear(ada)["message"], hear(ada)["message"]} == {f"{start} end", "once"}
            assert_here(ada)


def test_nothing_that_was_heard_is_gone_after_a_kill(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    for start in (0, 30):
        program = Program("chat_server.py", "--rate", "0", "--history", str(tmp_path / "history"))
        try:
            with resume(program) as bob:
                assert hear_all_said(bob, start) == told
                for number in range(30):
                    say(bob, str(number))
                told += hear_all_said(bob, 30)
        finally:
            program.discard()  # by SIGKILL
    with chat("--history", str(tmp_path / "history")) as server, resume(server) as bob:
        assert hear_all_said(bob, 60) == told
    assert_rising(ids(told))


def test_history_in_memory_leaves_no_file(tmp_path: Path) -> None:
    with chat(cwd=tmp_path) as server:
        tell(server, 3)
        assert list(tmp_path.iterdir()) == []


def test_history_may_be_a_relative_path(tmp_path: Path) -> None:
    with chat("--history", "our history", cwd=tmp_path) as server:
        told = tell(server, 3)
    assert (tmp_path / "our history").is_file()
    with (
        chat("--history", str(tmp_path / "our history")) as server,
        resume(server) as bob,
    ):
        assert hear_all_said(bob, 3) == told


def notes(path: Path) -> None:
    path.write_text("What I did on my holidays\n" * 100)


def other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE books (title)")


def half_a_history(path: Path) -> None:
    with contextlib.closing(SqliteHistory(str(path))) as history:
        history.append([Said("x" * 500)] * 1000)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


@pytest.mark.parametrize("make", [notes, other_database, half_a_history, Path.mkdir])
def test_file_that_is_not_a_history_ends_it_with_one_clear_line(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "history"
    make(path)
    content = path.read_bytes() if path.is_file() else None
    assert_refused(path)
    assert (path.read_bytes() if path.is_file() else None) == content


def test_file_in_a_directory_that_is_not_there_ends_it_with_one_clear_line(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere" / "history")


def test_file_in_use_by_another_chat_ends_it_with_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with chat("--history", str(path)) as server, server.join() as ada:
        assert_refused(path)
        say(ada, "still here")
        assert hear(ada)["message"] == "still here"


def assert_refused(path: Path) -> None:
    ended = run("chat_server.py", "--port", "0", "--history", str(path))
    assert ended.returncode == 1
    assert ended.stdout == b""
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == 1
    assert "cannot open the history" in lines[0]
    assert str(path) in lines[0]


# A disk that is full


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Program]:
    """A chat that has said "0", "1", "2" and can write no further. See `make_room`."""
    require(hasattr(resource, "prlimit"), "prlimit", "only Linux has it")
    with chat("--history", str(tmp_path / "history")) as server:
        tell(server, 3)
        written = max(path.stat().st_size for path in tmp_path.iterdir())
        limit_files(server, written)
        yield server
        make_room(server)


def limit_files(server: Program, size: int) -> None:
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def make_room(server: Program) -> None:
    limit_files(server, resource.RLIM_INFINITY)


def test_sender_whose_message_cannot_be_saved_is_told_with_1011(full_disk: Program) -> None:
    with full_disk.join() as ada:
        name = name_of(ada)
        say(ada, "x" * 30_000)
        code, reason = answer_close(ada)
        assert code == 1011
        assert "saved" in reason
        (line,) = eventually(
            lambda: [
                line
                for line in full_disk.log.splitlines()
                if "its message could not be saved" in line
            ]
        )
        assert name in line
        assert "disk" in line


def test_nothing_unsaved_is_shown_to_anyone_and_all_goes_on_when_there_is_room(
    full_disk: Program,
) -> None:
    with full_disk.join() as plain, resume(full_disk) as bob:
        told = hear_all_said(bob, 3)
        for number in range(3):
            with full_disk.join() as ada:
                say(ada, "x" * 30_000, key=f"k{number}")
                assert answer_close(ada)[0] == 1011
        with resume(full_disk) as eve:
            assert hear_all_said(eve, 3) == told
        make_room(full_disk)
        with full_disk.join() as ada:
            say(ada, "x" * 30_000, key="k1")
            copy = hear(ada)
            assert copy["key"] == "k1"
        assert hear(plain) == hear_said(bob) == copy
        with resume(full_disk) as eve:
            assert hear_all_said(eve, 4) == [*told, copy]


def test_full_disk_costs_only_senders_the_connection(full_disk: Program) -> None:
    with full_disk.join() as plain, resume(full_disk) as bob:
        hear_all_said(bob, 3)
        with full_disk.join() as ada:
            say(ada, "x" * 30_000)
            assert answer_close(ada)[0] == 1011
        for peer in (plain, bob):
            assert_here(peer)


# The end


def test_all_that_was_acknowledged_before_the_end_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history"
    count = 5_000
    with chat("--history", str(path)) as server, server.join() as ada:
        frames = [
            masked(0x81, json.dumps({"message": "x", "key": str(number)}).encode())
            for number in range(count)
        ]

        def talk() -> None:
            with contextlib.suppress(OSError):  # it ends in the middle
                ada.send(b"".join(frames))

        talker = threading.Thread(target=talk)
        talker.start()
        heard = [hear(ada) for _ in range(10)]
        server.signal()
        while (frame := ada.read_frame()).first == 0x81:
            heard.append(json.loads(frame.payload))
        ada.sock.shutdown(socket.SHUT_RDWR)
        talker.join(PATIENCE)
        assert server.wait() == 0
        assert "Traceback" not in server.log
    with contextlib.closing(SqliteHistory(str(path))) as history:
        entries = since(history, "0").entries
    acknowledged = [(message["id"], message["key"]) for message in heard]
    saved = [(entry.message_id, entry.key) for entry in entries]
    assert acknowledged == saved[: len(acknowledged)]
    assert [entry.key for entry in entries] == [str(number) for number in range(len(saved))]


# kill -9, again and again; `python3 tests/kills.py` does it at length


def test_nothing_is_lost_or_doubled_while_the_server_is_killed_again_and_again(
    tmp_path: Path,
) -> None:
    trial = kills.Trial(kills=3, messages=900, patience=50, seed=6455)
    with kills.OnFile(tmp_path) as scene:
        trial.run(scene)
    assert not trial.faults, trial.summary()
    assert trial.struck["server"] == 3
    assert order(trial.people[0].heard[0].message_id) > (0, 0)

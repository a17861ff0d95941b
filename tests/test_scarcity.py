"""Servers that the system refuses something: a further thread, a core of their own, or stdout."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from chatting import hear_texts, say
from peers import Peer, eventually, request
from programs import EXIT_TIME, NOISE, ROOT, Program, answer_close, chat, echo

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's prlimit and /proc")


def take_threads_away(program: Program) -> None:
    """Limit its memory, so that after a few more threads there is no room for another stack."""
    import resource

    with open(f"/proc/{program.process.pid}/status") as status:
        (size,) = re.findall(r"VmSize:\s+([0-9]+) kB", status.read())
    limit = int(size) * 1024 + 4 * 1024 * 1024
    _, hard = resource.prlimit(program.process.pid, resource.RLIMIT_AS)
    resource.prlimit(program.process.pid, resource.RLIMIT_AS, (limit, hard))


@contextlib.contextmanager
def refused_client(program: Program) -> Iterator[list[Peer]]:
    """Clients come until there is no thread for one, which gets EOF; those who were let in."""
    with contextlib.ExitStack() as stack:
        let_in: list[Peer] = []
        for _ in range(200):
            peer = stack.enter_context(program.tcp())
            with contextlib.suppress(
                ConnectionError
            ):  # it may be dropped before it has sent its request
                peer.send(request(program, "/ws"))
            try:
                head = peer.read_head()
            except (EOFError, ConnectionError):
                yield let_in
                return
            assert head.startswith("HTTP/1.1 101 ")
            let_in.append(peer)
        raise AssertionError("there was a thread for everyone")


@linux_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_chat_that_gets_no_further_thread_serves_the_others_and_shuts_down_cleanly(
    number: int,
) -> None:
    with chat("--all-cores") as server, server.join() as ada:
        take_threads_away(server)
        with refused_client(server) as others:
            say(ada, "still here")
            assert hear_texts(ada, 1) == ["still here"]
            for peer in others:
                assert hear_texts(peer, 1) == ["still here"]
            eventually(lambda: "new thread" in server.log)
            assert "Traceback" not in server.log
            server.signal(number)
            for peer in (ada, *others):
                assert answer_close(peer) == (1001, "the server is shutting down")
            assert server.wait() == 0


@linux_only
@pytest.mark.parametrize("program", [chat, echo])
def test_server_that_may_not_choose_its_core_serves_all_the_same(
    program: Callable[..., AbstractContextManager[Program]], tmp_path: Path
) -> None:
    """Some containers forbid the system call."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "def refuse(*_):\n"
        "    raise PermissionError(1, 'Operation not permitted')\n"
        "os.sched_setaffinity = refuse\n"
    )
    with program(env=os.environ | {"PYTHONPATH": str(tmp_path)}) as server:
        assert server.answer(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full of Linux")
@pytest.mark.parametrize("script", ["chat_server.py", "echo_server.py"])
@pytest.mark.parametrize("reader", ["is gone", "has a full disk"])
def test_server_that_cannot_print_serves_all_the_same(script: str, reader: str) -> None:
    with contextlib.ExitStack() as stack:
        if reader == "is gone":
            ours, theirs = os.pipe()
            os.close(ours)
            output: Any = stack.enter_context(open(theirs, "wb"))
        else:
            output = stack.enter_context(open("/dev/full", "wb"))
        errors = stack.enter_context(tempfile.TemporaryFile("w+"))
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )

        def said() -> str:
            return os.pread(errors.fileno(), 65536, 0).decode()

        try:
            eventually(lambda: "runs at http://" in said())
            process.send_signal(signal.SIGTERM)
            assert process.wait(EXIT_TIME + NOISE) == 0
            assert "Traceback" not in said() and "Exception" not in said()
        finally:
            process.kill()
            process.wait()

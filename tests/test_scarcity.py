"""Servers that the system refuses something: a thread, an open file, a core, or stdout."""

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

import command_line
from chatting import hear_texts, say
from command_line import fit_to_open_files
from peers import Peer, eventually, masked, request
from programs import (
    EXIT_TIME,
    NOISE,
    ROOT,
    Program,
    answer_close,
    chat,
    echo,
    lines_with,
    run,
    running,
)

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
    """Clients come until there is no thread for one, which gets a 503; those who were let in."""
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
            except (EOFError, ConnectionError):  # the reset behind the 503 came first
                head = "HTTP/1.1 503 "
            if head.startswith("HTTP/1.1 503 "):
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


# Open files

both_servers = pytest.mark.parametrize(("program", "path"), [(chat, "/ws"), (echo, "/echo")])
Start = Callable[..., AbstractContextManager[Program]]


@pytest.fixture
def open_files() -> Iterator[None]:
    """Let the test itself have 1,000 open files, which is more than macOS allows at first."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 1000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_let_in(server: Program, path: str) -> bool:
    """Whether a client that comes now is let in, and not told with a 503 when to come again."""
    with server.tcp() as peer:
        peer.send(request(server, path))
        head = peer.read_head()
    if head.startswith("HTTP/1.1 101 "):
        return True
    assert head.startswith("HTTP/1.1 503 ") and "\r\nRetry-After: 10\r\n" in head
    return False


@both_servers
@pytest.mark.usefixtures("open_files")
def test_server_raises_a_soft_limit_of_open_files(program: Start, path: str) -> None:
    with program(shell="ulimit -Sn 256") as server, contextlib.ExitStack() as crowd:
        peers = [crowd.enter_context(server.join(path)) for _ in range(300)]
        for peer in (peers[0], peers[-1]):
            peer.send(masked(0x89, b"x"))
            assert peer.read_frame() == (0x8A, b"x")
        assert "there can be" not in server.log


@both_servers
@pytest.mark.usefixtures("open_files")
def test_server_at_a_hard_limit_of_open_files_says_so_and_answers_503_beyond_it(
    program: Start, path: str
) -> None:
    """Of 256 files, 128 are for spare connections, and 32 for everything else."""
    with program(shell="ulimit -n 256") as server, contextlib.ExitStack() as crowd:
        (line,) = eventually(lambda: lines_with(server, "there can be"))
        assert line[9:] == (
            "there can be 96 clients, not 10000, because this process may open only 256 files: "
            "run `ulimit -n 10160` as root before the start, or set LimitNOFILE=10160 in a "
            "systemd unit"
        )
        peers = [crowd.enter_context(server.join(path)) for _ in range(96)]
        assert not any(is_let_in(server, path) for _ in range(3))
        # Now 60 at once, which stay.
        for _ in range(60):
            waiting = crowd.enter_context(server.tcp())
            waiting.send(request(server, path))
            assert waiting.read_head().startswith("HTTP/1.1 503 ")
        for peer in peers:
            peer.send(masked(0x89, b"x"))
            assert peer.read_frame() == (0x8A, b"x")
        peers[0].close()
        eventually(lambda: is_let_in(server, path))
        assert "cannot accept" not in server.log


@linux_only
def test_server_that_runs_out_of_open_files_says_so_once_and_serves_again() -> None:
    import resource

    with echo() as server:
        in_use = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (in_use + 5, hard))
        with contextlib.ExitStack() as crowd:
            for _ in range(10):
                last = crowd.enter_context(server.tcp())
            eventually(lambda: lines_with(server, "cannot accept connections"))
            assert last.is_silent(1.0)  # ten attempts
        with server.join("/echo") as peer:
            peer.send(masked(0x89, b"x"))
            assert peer.read_frame() == (0x8A, b"x")
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        server.signal()
        assert server.wait() == 0
        first, last_line = lines_with(server, "cannot accept connections")
        assert first.endswith(": Too many open files")
        assert re.search(r": Too many open files \([0-9]+ like this in the last ", last_line)


def test_clients_fit_into_the_open_files_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    set_to: list[tuple[int, int]] = []
    unlimited = resource.RLIM_INFINITY

    def refuse_more_than_10240(_: int, limits: tuple[int, int]) -> None:
        if limits[0] > 10240:
            raise ValueError("current limit exceeds maximum limit")
        set_to.append(limits)

    monkeypatch.setattr(resource, "setrlimit", refuse_more_than_10240)
    for limits, clients, fitting, new_limits in [
        ((256, 10240), 1000, 1000, [(10240, 10240)]),
        ((256, unlimited), 1000, 1000, [(1160, unlimited)]),
        ((256, unlimited), 20000, 10080, [(10240, unlimited)]),
        ((10240, 10240), 20000, 10080, []),
        ((100, 100), 1000, 1, []),
        ((unlimited, unlimited), 10**15, 10**15, []),
    ]:
        set_to.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        assert fit_to_open_files(clients) == fitting
        assert set_to == new_limits
    monkeypatch.setattr(command_line, "resource", None)
    assert fit_to_open_files(10**15) == 10**15


# Other things


@linux_only
@pytest.mark.parametrize("script", ["chat_server.py", "echo_server.py"])
def test_server_that_gets_no_thread_at_its_start_says_so_or_serves(
    script: str, tmp_path: Path
) -> None:
    """The echo server needs none until a client comes."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\n"
        "def refuse(thread):\n"
        '    raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = refuse\n"
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    if script == "chat_server.py":
        ended = run(script, "--port", "0", env=env)
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert ended.stderr == b"cannot start: can't start new thread\n"
    else:
        with running(script, env=env) as server:
            assert server.answer(request(server, "/echo"))[0] == 503


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

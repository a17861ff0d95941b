"""The programs as a user runs them, each in a process of its own and on a free port."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from peers import PATIENCE, Peer, answer_to, eventually, masked, shake_hands, unmasked

ROOT = Path(__file__).parent.parent
EXIT_TIME = 5.0  # seconds from the signal to the end of the process; what the programs promise
NOISE = 3.0  # seconds that a busy machine may need beyond that


class Use(NamedTuple):
    """What a process uses."""

    threads: int
    files: int
    memory: int  # KiB, resident

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.files} files, {self.memory:,} KiB"


class Program:
    """A running server. Its output goes to files, so that it never waits for a reader."""

    def __init__(
        self,
        script: str,
        *options: str,
        python: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        root: Path = ROOT,
        shell: str = "",
    ) -> None:
        """`shell` is what the shell that starts it does before, such as `ulimit -n 256`."""
        command = [sys.executable, "-W", "default::ResourceWarning", *python, str(root / script)]
        if shell:
            command = ["/bin/sh", "-c", f'{shell} && exec "$@"', "sh", *command]
        self._out = tempfile.TemporaryFile()
        self._err = tempfile.TemporaryFile()
        self.server_port = 0
        self.process = subprocess.Popen(
            [*command, "--port", "0", *options],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env=env,
            cwd=cwd,
        )
        try:
            self.url = str(eventually(self._find_url, 2 * PATIENCE))
        except BaseException as error:
            error.add_note(f"stdout: {self.output}\nstderr: {self.log}")
            self.discard()
            raise
        self.server_port = int(self.url.rpartition(":")[2])

    def _find_url(self) -> str | None:
        found = re.search(r"runs at (https?://\S+:[0-9]+)\n", self.output)
        assert found or self.process.poll() is None, "it ended before it served"
        return found[1] if found else None

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return read_output(self._out)

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return read_output(self._err)

    @property
    def use(self) -> Use:
        """What its process uses now, read from Linux' /proc."""
        process = Path(f"/proc/{self.process.pid}")
        lines = (process / "status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        files = len(os.listdir(process / "fd"))
        return Use(int(fields["Threads"]), files, int(fields["VmRSS"].split()[0]))

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_port)

    @property
    def ws_url(self) -> str:
        if self.url.startswith("https:"):  # the certificate of the tests is for this name
            return f"wss://localhost:{self.server_port}"
        return f"ws://127.0.0.1:{self.server_port}"

    def join(self, target: str = "/ws", **changes: str | None) -> Peer:
        """A client whose handler runs in the server; `changes` as in `peers.request`."""
        peer = shake_hands(self, target, **changes)
        await_handler(peer)
        return peer

    def answer(self, data: bytes) -> tuple[int, str]:
        """Send these bytes; the status and all the text that it answers before it ends TCP."""
        return answer_to(self, data)

    def tcp(self, receive_buffer: int | None = None) -> Peer:
        """A TCP connection, nothing sent yet."""
        sock = socket.socket()
        try:
            if receive_buffer:  # set before connecting, which fixes the size of TCP's window
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(PATIENCE)
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return Peer(sock)

    def log_lines_about(self, peer: str, since: int = 0) -> list[str]:
        """The lines about this client.

        `since` is the length of the log before it came, as an earlier one may have had its port.
        """
        return [line for line in self.log[since:].splitlines() if f"{peer}:" in line]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end, at most `NOISE` beyond the promised `EXIT_TIME`; the exit status."""
        return self.process.wait(EXIT_TIME + NOISE)

    def stop(self) -> None:
        """End it as a user does, and check its exit status and its log."""
        try:
            self.signal()
            status = self.wait()
            log = self.log
        finally:
            self.discard()
        assert status == 0, log
        assert "Traceback" not in log and "Warning" not in log, log

    def discard(self) -> None:
        """End it, whatever it does."""
        kill(self.process)
        self._out.close()
        self._err.close()


def read_output(file: IO[bytes]) -> str:
    """What a process has written so far to this file, which it goes on to write to."""
    number = file.fileno()
    return os.pread(number, os.fstat(number).st_size, 0).decode(errors="replace")


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it, whatever it does, unless it has ended."""
    if process.poll() is None:
        process.kill()
    process.wait()


@contextlib.contextmanager
def running(script: str, *options: str, **how: Any) -> Iterator[Program]:
    """Run a program until the end of the `with` statement; `how` as `Program` takes it."""
    program = Program(script, *options, **how)
    try:
        yield program
    except BaseException as error:
        error.add_note(f"the log of {script}:\n{program.log}")
        program.discard()
        raise
    program.stop()


def with_constants(constants: Mapping[str, float]) -> tuple[str, ...]:
    """`python` for a `Program` in which constants of modules have other values.

    They are named in full, as `chat.presence.PRESENCE_INTERVAL`. So a test need not wait for a
    time that is right for users, where it is not this time that it is about.
    """
    return ("-c", f"{_SET_CONSTANTS}\nrun({dict(constants)!r})")


_SET_CONSTANTS = """
import importlib, os, runpy, sys

def run(constants):
    del sys.argv[0]
    sys.path[0] = os.path.dirname(sys.argv[0])
    for name, value in constants.items():
        module, _, constant = name.rpartition(".")
        getattr(importlib.import_module(module), constant)  # raises if there is none
        setattr(sys.modules[module], constant, value)
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def chat(*options: str, **how: Any) -> contextlib.AbstractContextManager[Program]:
    """The chat server, with --rate 0 unless the options say otherwise."""
    rate = () if "--rate" in options else ("--rate", "0")
    return running("chat_server.py", *rate, *options, **how)


def echo(*options: str, **how: Any) -> contextlib.AbstractContextManager[Program]:
    return running("echo_server.py", *options, **how)


def run(
    script: str,
    *arguments: str,
    python: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    root: Path = ROOT,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that ends by itself; its exit status and its output."""
    return subprocess.run(
        [sys.executable, *python, str(root / script), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=2 * PATIENCE,
        env=env,
        cwd=cwd,
        check=False,
    )


def lines_with(server: Program, text: str) -> list[str]:
    """The lines of the server's log that contain this text."""
    return [line for line in server.log.splitlines() if text in line]


# What a client does, on a bare socket


def await_handler(peer: Peer) -> None:
    """Wait until the server reads from this client: then its handler runs.

    What the server has sent meanwhile stays to be read.
    """
    peer.send(masked(0x89, b"are you there?"))
    frames = b""
    while (frame := peer.read_frame()) != (0x8A, b"are you there?"):
        frames += unmasked(*frame)
    peer.buffer = frames + peer.buffer


def answer_close(peer: Peer) -> tuple[int, str]:
    """Answer the Close that must come next, and wait for EOF; the code and reason of the Close."""
    first, payload = peer.read_frame()
    assert first == 0x88, f"not a Close, but 0x{first:x} {payload!r}"
    peer.send(masked(0x88, payload))
    assert peer.read_to_eof() == b""
    peer.close()  # the server waits for this
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()


def name_of(peer: Peer) -> str:
    """The name of this client in the server's log: its IP address and port."""
    host, port = peer.sock.getsockname()[:2]
    return f"{host}:{port}"

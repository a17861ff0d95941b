"""The servers under test and the load generator, each a child process with a deadline.

A process is ended by its own id, and by nothing else. What hangs is said to hang, and killed.
"""

from __future__ import annotations

import json
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import environment
from environment import LOAD, PEERS, PYTHON, build_go, require_file, require_module

START_SECONDS = 20.0
STOP_SECONDS = 5.0
ANSWER_SECONDS = 100.0  # beyond a command's own time; the generator's longest own limit is 60 s

OURS = "ours"
FLOOR = "floor"
URL = re.compile(r"(?:https?|ws)://\S+?:(\d+)")

Answer = dict[str, Any]


class Fault(Exception):
    """A server did not start, or died, or the load generator fell silent."""


@dataclass(frozen=True)
class Peer:
    """One program in the comparison; `chat` and `echo` return its command, or raise."""

    name: str
    title: str
    chat: Callable[[], list[str]] | None
    echo: Callable[[], list[str]] | None
    binary: bool = True
    opaque: bool = False  # it sends frames whose contents are made up; see load.c

    def command(self, kind: str) -> list[str]:
        command = self.chat if kind == "chat" else self.echo
        if command is None:
            raise environment.Unavailable(f"{self.title} has no {kind}")
        return command()


def our_program(name: str, *arguments: str) -> Callable[[], list[str]]:
    return lambda: [str(PYTHON), str(require_file(name)), *arguments]


def python_peer(name: str, kind: str, module: str = "", hint: str = "") -> Callable[[], list[str]]:
    def command() -> list[str]:
        if module:
            require_module(module, hint)
        return [str(PYTHON), str(PEERS / f"{name}.py"), kind]

    return command


def go_peer(name: str) -> Callable[[], list[str]]:
    return lambda: [str(build_go(name))]


def python_peers(
    name: str, title: str, program: str, module: str = "", hint: str = "", **options: bool
) -> Peer:
    chat = python_peer(program, "chat", module, hint)
    echo = python_peer(program, "echo", module, hint)
    return Peer(name, title, chat, echo, **options)


PEER_LIST = (
    Peer(
        OURS,
        "this project",
        our_program("chat_server.py", "--port", "0", "--rate", "0"),
        our_program("echo_server.py", "--port", "0", "--plain"),
    ),
    python_peers(FLOOR, "bare sockets (the floor)", "floor", opaque=True),
    Peer("go-original", "Go, Simple Chat's shape", go_peer("go_original"), None),
    Peer("go-hub", "Go, hub", go_peer("go_hub"), None),
    Peer("gorilla", "Go, gorilla", None, go_peer("go_echo")),
    python_peers(
        "socketify",
        "µWebSockets (socketify)",
        "socketify_server",
        "socketify",
        "socketify needs libuv (Debian: libuv1)",
    ),
    python_peers("websockets-asyncio", "websockets, asyncio", "websockets_asyncio", "websockets"),
    python_peers("websockets-threads", "websockets, threads", "websockets_threads", "websockets"),
    python_peers("aiohttp", "aiohttp", "aiohttp_server", "aiohttp"),
    python_peers(
        "simple-websocket",
        "simple-websocket, Flask-Sock",
        "simple_websocket_flask",
        "flask_sock",
    ),
    python_peers(
        "websocket-server",
        "websocket-server",
        "websocket_server_package",
        "websocket_server",
        binary=False,
    ),
)
PEERS_BY_NAME = {peer.name: peer for peer in PEER_LIST}


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, then make it; by its id only. Its end is always waited for."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


class Session:
    """A server, and the load generator that is connected to it.

    The server runs in an empty folder of its own, which is deleted with what it wrote there.
    """

    def __init__(self, peer: Peer, kind: str) -> None:
        self.peer = peer
        self.kind = kind
        self.generator: subprocess.Popen[bytes] | None = None
        self.unread = b""

    def __enter__(self) -> Session:
        command = self.peer.command(self.kind)
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=environment.BUILD))
        self.log_file = self.folder / "log"
        with self.log_file.open("wb") as log:
            self.server = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.start_generator(self.wait_for_port())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.generator is not None:
            assert self.generator.stdin is not None and self.generator.stdout is not None
            self.generator.stdin.close()
            stop(self.generator)
            self.generator.stdout.close()
        stop(self.server)
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_for_port(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = URL.search(self.log())
            if found:
                return int(found[1])
            if self.server.poll() is not None:
                break
            time.sleep(0.02)
        raise Fault(f"did not start: {self.last_words() or 'it printed no URL'}")

    def start_generator(self, port: int) -> None:
        path = "/ws" if self.kind == "chat" else "/echo"
        opaque = ["opaque"] if self.peer.opaque else []
        self.generator = subprocess.Popen(
            [str(LOAD), str(port), path, str(self.server.pid), *opaque],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, command: str, seconds: float = 0.0) -> Answer:
        """One command to the load generator; `seconds` is the time that it takes by design."""
        generator = self.generator
        assert generator is not None and generator.stdin is not None
        try:
            generator.stdin.write(command.encode() + b"\n")
            generator.stdin.flush()
        except BrokenPipeError:
            raise Fault("the load generator died") from None
        answer: Answer = json.loads(self.read_line(seconds + ANSWER_SECONDS))
        if "fault" in answer and self.server_died():
            said = self.last_words() or f"ended with status {self.server.returncode}"
            answer["fault"] = f"died: {said}"
        return answer

    def read_line(self, seconds: float) -> bytes:
        assert self.generator is not None and self.generator.stdout is not None
        pipe = self.generator.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self.unread:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Fault(f"hung: no answer for {seconds:.0f} s")
            piece = self.generator.stdout.read1(65536)  # type: ignore[attr-defined]
            if not piece:
                raise Fault("the load generator died")
            self.unread += piece
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def server_died(self) -> bool:
        """Its connections may close a moment before it is gone."""
        try:
            self.server.wait(0.5)
        except subprocess.TimeoutExpired:
            return False
        return True

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def last_words(self) -> str:
        """The line that says why it died: Go's first `fatal error`, or Python's last line."""
        lines = [line.strip() for line in self.log().splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith(("fatal error", "panic"))]
        said = (fatal or [line for line in lines if not URL.search(line)][-1:] or [""])[0]
        return said.replace(str(environment.PROJECT), "").replace(str(self.folder), "")[:160]

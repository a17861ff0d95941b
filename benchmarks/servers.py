"""The servers under test: this project, its peers, and how one is started and stopped."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from environment import BUILD, PEERS, PROJECT, VENV_PYTHON, Interpreter, build_go, require_module

START_SECONDS = 20.0
STOP_SECONDS = 5.0
DEATH_SECONDS = 0.5  # its connections may close a moment before a server is gone

OURS = "ours"
FLOOR = "floor"
TEXT_ONLY = "websocket-server"  # receives no binary messages
URL = re.compile(r"(?:https?|ws)://\S+?:(\d+)")

Command = list[str]


class Fault(Exception):
    """A server did not start."""


def nothing() -> None:
    """A peer that is always here needs no preparation."""


@dataclass(frozen=True)
class Peer:
    """One program in the comparison, with the commands of its two servers, where it has them."""

    name: str
    title: str
    chat: Command | None
    echo: Command | None
    prepare: Callable[[], None] = nothing  # raises Unavailable

    def command(self, path: str) -> Command | None:
        return self.chat if path == "/ws" else self.echo


def project_at(tree: Path, interpreter: Interpreter, name: str = OURS) -> Peer:
    """This project as it is in `tree`."""

    def command(*words: str) -> Command:
        return [interpreter.path, str(tree / words[0]), "--port", "0", *words[1:]]

    chat = command("chat_server.py", "--rate", "0")
    return Peer(name, "this project", chat, command("echo_server.py", "--plain"))


def python_peer(name: str, title: str, program: str, module: str) -> Peer:
    script = str(PEERS / f"{program}.py")
    chat = [str(VENV_PYTHON), script, "chat"]
    echo = [str(VENV_PYTHON), script, "echo"]
    return Peer(name, title, chat, echo, partial(require_module, module))


def go_peer(name: str, title: str, program: str, is_chat: bool = True) -> Peer:
    command = [str(BUILD / program)]
    prepare = partial(build_go, program)
    return Peer(name, title, command if is_chat else None, None if is_chat else command, prepare)


def all_peers(interpreter: Interpreter) -> list[Peer]:
    floor = [interpreter.path, str(PEERS / "floor.py")]
    return [
        project_at(PROJECT, interpreter),
        Peer(FLOOR, "bare sockets (the floor)", floor, None),
        go_peer("go-original", "Go, Simple Chat's shape", "go_original"),
        go_peer("go-hub", "Go, hub", "go_hub"),
        go_peer("gorilla", "Go, gorilla echo", "go_echo", is_chat=False),
        python_peer("socketify", "µWebSockets (socketify)", "socketify_server", "socketify"),
        python_peer(
            "websockets-asyncio", "websockets, asyncio", "websockets_asyncio", "websockets"
        ),
        python_peer(
            "websockets-threads", "websockets, threads", "websockets_threads", "websockets"
        ),
        python_peer("aiohttp", "aiohttp", "aiohttp_server", "aiohttp"),
        python_peer("simple-websocket", "simple-websocket", "simple_websocket_flask", "flask_sock"),
        python_peer(TEXT_ONLY, "websocket-server", "websocket_server_package", "websocket_server"),
    ]


class Server:
    """A running server; everything it prints is in `log_file`."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self.log_file = log_file

    def wait_for_port(self) -> int:
        """The port in the URL that it prints when it is ready."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = URL.search(self.log_file.read_text(errors="replace"))
            if found:
                return int(found[1])
            time.sleep(0.02)
        raise Fault(f"did not start: {self.last_words() or 'it printed no URL'}")

    def died(self) -> bool:
        try:
            self.process.wait(DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        """The line that says why it died: Go's `fatal error`, or else its last line."""
        text = self.log_file.read_text(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith(("fatal error", "panic"))]
        rest = [line for line in lines if not URL.search(line)]
        said = (fatal[:1] or rest[-1:] or [""])[0]
        return said.replace(str(PROJECT), "").replace(str(self.log_file.parent), "")[:160]


@contextmanager
def running(command: Command) -> Iterator[Server]:
    """Starts a server in an empty folder, which is deleted with everything it wrote there."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=BUILD))
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield Server(process, log_file)
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the process; one that does not end when it is asked to is killed."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()

"""Ways to check a command that a document shows: running it as it stands there, or what can be had.

Each way is a value of a table in test_documents_commands.py, and its `check` does it.
"""

import contextlib
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployment import replace
from finding import find_go, find_openssl, require
from originals import BUILD_TIME
from peers import PATIENCE, eventually
from programs import EXIT_TIME, NOISE, ROOT, read_output

# What stays behind when a reader copies the repository.
NOT_COPIED = (".git", ".venv*", ".*_cache", "__pycache__", ".hypothesis", ".build")


class Place:
    """A folder that looks like a fresh copy of the repository, in which commands are run.

    `python3` is the interpreter of the tests there. Files that commands make stay in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "copy"
        self.folder.mkdir()
        self.stubs = folder / "bin"  # on PATH before everything else
        self.stubs.mkdir()
        self._done: set[str] = set()
        for path in ROOT.iterdir():
            if not any(path.match(pattern) for pattern in NOT_COPIED):
                (self.folder / path.name).symlink_to(path)
        self.put_stub("python3", f'exec {shlex.quote(sys.executable)} "$@"')
        self.env = os.environ | {"PATH": f"{self.stubs}:{os.environ['PATH']}"}
        if not os.access(Path.home(), os.W_OK):
            self.env["GOCACHE"] = str(folder / "go-cache")

    def put_stub(self, name: str, script: str) -> None:
        """Have a command of this name do something else."""
        stub = self.stubs / name
        stub.write_text(f"#!/bin/sh\n{script}\n")
        stub.chmod(0o755)

    def run(self, command: str) -> str:
        """Run a command that ends by itself, and check that it succeeds; what it prints."""
        if command.startswith("openssl "):
            require(find_openssl(), "openssl", "apt install openssl")
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2 * PATIENCE,
        )
        output = ended.stdout.decode()
        assert ended.returncode == 0, output
        return output

    def run_once(self, command: str) -> None:
        """Run a command whose files others need, unless that was done."""
        if command not in self._done:
            self.run(command)
            self._done.add(command)

    @contextlib.contextmanager
    def serving(self, command: str, patience: float = 2 * PATIENCE) -> Iterator[str]:
        """Run a command that serves, until the end of the `with`; the URL that it prints."""
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that what the shell has started ends, too
            )
            try:
                yield eventually(lambda: _find_url(process, read_output(out)), patience)
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(EXIT_TIME + NOISE)
            except BaseException as error:
                error.add_note(read_output(out))
                raise
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert "Traceback" not in read_output(out), read_output(out)


def _find_url(process: "subprocess.Popen[bytes]", output: str) -> str | None:
    found = re.search(r"(https?://\S+:[1-9][0-9]*)", output)
    assert found or process.poll() is None, f"it ended before it served: {output}"
    return found[1] if found else None


def changed(command: str, changes: Mapping[str, str]) -> str:
    """The command with what cannot be used here, such as a port that may be taken, replaced."""
    for old, new in changes.items():
        command = replace(command, old, new)
    return command


@dataclass(frozen=True)
class Serves:
    """One of our servers. It is started, asked for its page, and stopped.

    changes: texts of the command to replace. A free port and a loopback address are seen to.
    needs: commands that make files which this one needs.
    """

    changes: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def check(self, command: str, place: Place) -> None:
        for other in self.needs:
            place.run_once(other)
        with place.serving(self.command(command)) as url:
            trusting = ssl._create_unverified_context()
            with urllib.request.urlopen(url, context=trusting, timeout=PATIENCE) as page:
                assert b"<!doctype html>" in page.read()

    def command(self, command: str) -> str:
        command = changed(command, self.changes).replace("0.0.0.0", "127.0.0.1")
        return f"{command} --port 0"


@dataclass(frozen=True)
class Ends:
    """A command that ends by itself, and succeeds.

    prints: what is in its output.
    against: the command of a server that has to run meanwhile; {port} in `changes` is its port.
    """

    prints: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    against: str = ""
    needs: tuple[str, ...] = ()

    def check(self, command: str, place: Place) -> None:
        for other in self.needs:
            place.run_once(other)
        if not self.against:
            assert self.prints in place.run(changed(command, self.changes))
            return
        with place.serving(f"{self.against} --port 0") as url:
            port = url.rpartition(":")[2]
            changes = {old: new.format(port=port) for old, new in self.changes.items()}
            assert self.prints in place.run(changed(command, changes))


@dataclass(frozen=True)
class Goes:
    """A Go program, run from its source until it prints its address."""

    def check(self, command: str, place: Place) -> None:
        how = "apt install golang-go golang-golang-x-net-dev golang-github-gorilla-websocket-dev"
        require(find_go(), "Go with golang.org/x/net and gorilla/websocket", how)
        with place.serving(command, BUILD_TIME):
            pass


@dataclass(frozen=True)
class TooLong:
    """A command that runs for minutes. Its `--help` has to work, and to name its options."""

    def check(self, command: str, place: Place) -> None:
        program = " ".join(command.split()[:2])
        text = place.run(f"{program} --help")
        assert {word for word in command.split() if word.startswith("--")} <= set(text.split())


@dataclass(frozen=True)
class HeldBy:
    """Another test holds this: `test_file.py`, or `test_file.py: test_name`."""

    by: str

    def check(self, command: str, place: Place) -> None:
        file, _, name = self.by.partition(": ")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text if name else "def test_" in text


@dataclass(frozen=True)
class NotHere:
    """A command that no test can run, because of `why`; `checks` checks what it names."""

    why: str
    checks: Callable[[str, Place], None] | None = None

    def check(self, command: str, place: Place) -> None:
        if self.checks:
            self.checks(command, place)


Way = Serves | Ends | Goes | TooLong | HeldBy | NotHere

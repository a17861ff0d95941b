"""The tutorial's programs in Go: built from tests/go with the packages of Debian, and run."""

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from finding import GO_SOURCES, find_go, require
from peers import PATIENCE, eventually
from programs import kill, read_output

SOURCES = Path(__file__).parent / "go"
BUILD_TIME = 150.0  # seconds for one program; the first build compiles the packages, too


def build(folder: Path, *sources: Path) -> Path:
    """Build these programs, or all of tests/go, into this folder, each under the name of its
    source; the folder.
    """
    how = "apt install golang-go golang-golang-x-net-dev golang-github-gorilla-websocket-dev"
    go = require(find_go(), "Go with golang.org/x/net and gorilla/websocket", how)
    env = os.environ | {"GO111MODULE": "off", "GOPATH": str(GO_SOURCES), "GOFLAGS": ""}
    if not os.access(Path.home(), os.W_OK):
        env["GOCACHE"] = str(folder / "cache")
    for source in sources or sorted(SOURCES.glob("*.go")):
        command = [go, "build", "-o", str(folder / source.stem), str(source)]
        built = subprocess.run(command, env=env, capture_output=True, timeout=BUILD_TIME)
        assert built.returncode == 0, built.stderr.decode()
    return folder


class Original:
    """A running program. Its output goes to a file, so that it never waits for a reader."""

    def __init__(self, program: Path, *arguments: str) -> None:
        self._out = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )

    @property
    def output(self) -> str:
        return read_output(self._out)

    def wait_for(self, pattern: str) -> str:
        """Wait until a pattern is found in the output; the text of the pattern's group."""
        try:
            found = eventually(lambda: re.search(pattern, self.output))
        except AssertionError as error:
            error.add_note(self.output)
            raise
        return str(found[1])

    def say(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def end_of_input(self) -> int:
        """Close its stdin; its exit status."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(PATIENCE)

    def discard(self) -> None:
        """End it, whatever it does."""
        kill(self.process)
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin
            self.process.stdin.close()
        self._out.close()


@contextlib.contextmanager
def running_original(program: Path, *arguments: str) -> Iterator[Original]:
    original = Original(program, *arguments)
    try:
        yield original
    finally:
        original.discard()

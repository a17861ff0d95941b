"""The configurations in docs/deployment.md, run as they stand there, with other addresses.

So what the page tells its readers to write is what the tests have tried.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from finding import find_caddy, find_haproxy, find_nginx, require
from peers import PATIENCE, eventually, free_port
from programs import ROOT, read_output
from proxy import NGINX_AROUND, Proxy, accepts_connections

PAGE = ROOT / "docs" / "deployment.md"
UPSTREAM = "127.0.0.1:8000"  # where the page's configurations expect the chat
KINDS = ("nginx", "caddy", "haproxy")

# Lines around Caddy's configuration: it listens nowhere else, and keeps nothing on this machine.
CADDY_AROUND = """
{{
    admin off
    auto_https disable_redirects
}}
{site}
"""


def blocks(language: str) -> list[str]:
    """The texts of the page's code blocks in this language, in their order."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def replace(text: str, old: str, new: str) -> str:
    """Replace what has to be in the text."""
    assert old in text, f"{old!r} is not in\n{text}"
    return text.replace(old, new)


class DocumentedProxy(Proxy):
    """A proxy with the page's configuration, which can be stopped and started again.

    kind: one of KINDS.
    server_port: the port of the server behind it.
    changes: further texts of the configuration to replace, such as a timeout.
    """

    def __init__(self, kind: str, server_port: int, changes: Mapping[str, str]) -> None:
        super().__init__(free_port())
        self._kind = kind
        self._program = find_program(kind)
        self._folder = tempfile.TemporaryDirectory()
        self._errors = tempfile.TemporaryFile()
        self._process: subprocess.Popen[bytes] | None = None
        text = replace(blocks(kind)[0], UPSTREAM, f"127.0.0.1:{server_port}")
        for old, new in changes.items():
            text = replace(text, old, new.replace("PORT", str(self.server_port)))
        self._file = Path(self._folder.name, "configuration")
        self._file.write_text(self._complete(text), encoding="utf-8")

    def _complete(self, text: str) -> str:
        """The block with our port, and with what makes it a whole configuration."""
        here = f"127.0.0.1:{self.server_port}"
        if self._kind == "nginx":
            text = text.replace("listen 80;", f"listen {here};")
            return NGINX_AROUND.format(folder=self._folder.name, servers=text)
        if self._kind == "caddy":
            text = text.replace("chat.example {", f"http://{here} {{\n\tbind 127.0.0.1")
            return CADDY_AROUND.format(site=text)
        return text.replace("bind :80", f"bind {here}")

    def _command(self) -> list[str]:
        file = str(self._file)
        if self._kind == "nginx":
            return [self._program, "-p", self._folder.name, "-e", "stderr", "-c", file]
        if self._kind == "caddy":
            return [self._program, "run", "--adapter", "caddyfile", "--config", file]
        return [self._program, "-db", "-f", file]

    def start(self) -> None:
        """Start it, and wait until it listens."""
        homes = ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")  # Caddy keeps certificates there
        self._process = process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=os.environ | dict.fromkeys(homes, self._folder.name),
        )
        eventually(lambda: process.poll() is not None or accepts_connections(self.server_port))
        assert process.poll() is None, read_output(self._errors)

    def stop(self) -> None:
        """End it, as its service does when it is restarted."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def discard(self) -> None:
        self.stop()
        self._errors.close()
        self._folder.cleanup()


def find_program(kind: str) -> str:
    """The program of this kind. Skips the test where there is none."""
    if kind == "nginx":
        return require(find_nginx(), "nginx", "apt install nginx-light")
    if kind == "caddy":
        return require(find_caddy(), "Caddy", "apt install caddy")
    return require(find_haproxy(), "HAProxy", "apt install haproxy")


@contextlib.contextmanager
def documented(
    kind: str, server_port: int, changes: Mapping[str, str] | None = None
) -> Iterator[DocumentedProxy]:
    """Run the page's configuration for this proxy in front of a server on this port."""
    proxy = DocumentedProxy(kind, server_port, changes or {})
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.discard()

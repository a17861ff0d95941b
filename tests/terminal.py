"""A program on a terminal, and its screen as a page: for a picture of what `--trace` shows."""

import contextlib
import html
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pages import expect, join_as, send
from peers import eventually
from programs import ROOT, kill

if TYPE_CHECKING:
    from playwright.sync_api import Page

# The colours of ANSI's escape sequences, as a dark terminal has them.
COLOURS = {
    "1": "font-weight:bold",
    "31": "color:#ff7b72",
    "32": "color:#7ee787",
    "36": "color:#79c0ff",
}
WIDTH = 1000  # px of the picture
STYLE = """
    body { margin: 0; background: #161b22; }
    pre { margin: 0; padding: 16px 20px; color: #d5dbe3; font: 13px/1.5 monospace; }
    div { padding-left: 2ch; text-indent: -2ch; white-space: pre-wrap; overflow-wrap: anywhere; }
"""


class TerminalProgram:
    """A server that runs with --trace on a terminal; `text` is all that was written to that."""

    def __init__(self, script: str, *options: str) -> None:
        ours, theirs = pty.openpty()
        self.text = ""
        self._ours = ours
        command = [sys.executable, str(ROOT / script), "--port", "0", "--trace", *options]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the program has ended
            while data := os.read(self._ours, 65536):
                self.text += data.decode(errors="replace")

    @property
    def url(self) -> str:
        found = eventually(lambda: re.search(r"runs at (http://\S+:\d+)", self.text))
        return str(found[1])

    def close(self) -> None:
        kill(self.process)
        self._reader.join()
        os.close(self._ours)


@contextlib.contextmanager
def traced_chat() -> Iterator[TerminalProgram]:
    with contextlib.closing(TerminalProgram("chat_server.py")) as program:
        yield program


def trace_of_a_browser(page: "Page", program: TerminalProgram) -> None:
    """The terminal after a browser has joined and said something.

    Masking keys, ids and times are those of this time.
    """
    page.goto(program.url)
    join_as(page, "ann@example.org", "Ann")
    send(page, "Hello, 你好")
    expect(page.locator("#messages li.message:not(.pending)")).to_have_count(1)
    said = 'message":"Hello'
    eventually(lambda: program.text.count(said) >= 2)  # once received and once sent
    lines = as_html(program.text)
    page.goto("about:blank")  # away from the policy of the page, which would forbid the style
    page.set_content(f"<style>{STYLE}</style><pre>{lines}</pre>")
    height = page.evaluate("document.querySelector('pre').offsetHeight")
    page.set_viewport_size({"width": WIDTH, "height": height})


def as_html(text: str) -> str:
    """The lines of a terminal, with their colours."""
    lines = []
    for line in text.replace("\r", "").strip().split("\n"):
        coloured = html.escape(line)
        for code, style in COLOURS.items():
            coloured = coloured.replace(f"\x1b[{code}m", f'<span style="{style}">')
        lines.append(f"<div>{coloured.replace(chr(27) + '[0m', '</span>') or '&nbsp;'}</div>")
    return "".join(lines)

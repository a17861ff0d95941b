"""A chat in which all is as a script has it: who says what, the time, the pictures.

A page looks the same on it whenever and wherever it is opened. The server is a real one, but its
clock shows what the script says. The browser's clock stands still.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from chatting import hear_until, leave_reading, say, tell_name
from pages import GRAVATAR
from peers import PATIENCE, Peer
from programs import Program, chat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

# Runs in the server before anything else. The file holds nanoseconds since 1970.
SET_CLOCK = """
import pathlib
import time

clock = pathlib.Path({clock!r})
time.time_ns = lambda: int(clock.read_text())
time.time = lambda: time.time_ns() / 1e9
"""


@dataclass(frozen=True)
class Person:
    username: str

    @property
    def email(self) -> str:
        return f"{self.username}@example.org"


@dataclass(frozen=True)
class Line:
    """What somebody says, and when."""

    person: Person
    at: datetime
    text: str


class Stage:
    """A chat server for one page. Whoever has said something stays until `leave`."""

    def __init__(self, server: Program, clock: Path) -> None:
        self.url = server.url
        self._server = server
        self._clock = clock
        self._peers: dict[Person, Peer] = {}

    def perform(self, *lines: Line) -> None:
        """Let people say these lines, each at its time."""
        for line in lines:
            set_clock(self._clock, line.at)
            peer = self.enter(line.person)
            say(peer, line.text, email=line.person.email, username=line.person.username)
            hear_until(peer, line.text)

    def enter(self, person: Person) -> Peer:
        """Let somebody join, unless they are here."""
        if person not in self._peers:
            self._peers[person] = self._server.join("/ws?since=0")
            tell_name(self._peers[person], person.username)
        return self._peers[person]

    def leave(self, person: Person) -> None:
        """Let somebody go."""
        with self._peers.pop(person) as peer:
            leave_reading(peer)

    def close(self) -> None:
        """Let all go."""
        for peer in self._peers.values():
            peer.close()


@contextlib.contextmanager
def stage(begin: datetime) -> Iterator[Stage]:
    """A chat that has begun at this time; all that is said on the stage is later."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder, "clock")
        set_clock(clock, begin)
        Path(folder, "sitecustomize.py").write_text(SET_CLOCK.format(clock=str(clock)))
        with chat(env=os.environ | {"PYTHONPATH": folder}) as server:
            stage = Stage(server, clock)
            try:
                yield stage
            finally:
                stage.close()


def set_clock(clock: Path, time: datetime) -> None:
    new = clock.with_suffix(".new")
    new.write_text(str(int(time.timestamp()) * 1_000_000_000))
    new.replace(clock)  # at once, because the server may be reading


@dataclass(frozen=True)
class Look:
    """What somebody's browser is like."""

    width: int = 1280  # px
    height: int = 800  # px
    theme: Literal["light", "dark"] = "light"
    language: str = "en-GB"


@contextlib.contextmanager
def open_page(browser: "Browser", look: Look, now: datetime, scale: float = 1) -> Iterator["Page"]:
    """An empty page in a browser's profile of its own; `scale` is pixels for each px."""
    context = browser.new_context(
        viewport={"width": look.width, "height": look.height},
        device_scale_factor=scale,
        color_scheme=look.theme,
        reduced_motion="reduce",
        locale=look.language,
        timezone_id="UTC",
    )
    try:
        context.set_default_timeout(2 * PATIENCE * 1000)  # ms
        context.route(f"{GRAVATAR}**", answer_for_gravatar)
        page = context.new_page()
        page.clock.set_fixed_time(now)
        yield page
    finally:
        context.close()


def answer_for_gravatar(route: "Route") -> None:
    """Answer with a picture for three in four of all emails, as if the others had none."""
    avatar = urlsplit(route.request.url).path.rpartition("/")[2]
    if avatar[-1] in "048c":
        route.fulfill(status=404)
    else:
        route.fulfill(body=draw_picture(avatar), content_type="image/svg+xml")


def draw_picture(avatar: str) -> str:
    """A pattern in one colour, left and right alike, as an SVG; the hash's digits decide on it."""
    hue = int(avatar[:4], 16) % 360
    squares = [
        f"M{x} {y}h1v1h-1z"
        for y in range(5)
        for x in range(5)
        if int(avatar[5 + 3 * y + min(x, 4 - x)], 16) % 2
    ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 7 7" width="80" height="80">'
        f'<path fill="hsl({hue} 45% 90%)" d="M-1-1h7v7h-7z"/>'
        f'<path fill="hsl({hue} 50% 40%)" d="{"".join(squares)}"/></svg>'
    )

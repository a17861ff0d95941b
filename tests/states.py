"""The states in which the chat's page is looked at: for screenshots and by axe-core.

A state is a function that brings a new page there, on a stage that began at BEGIN. The page's clock
shows NOW. A new state needs a function and a line in STATES.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from pages import FAKE_SOCKETS, expect, join_as, receive, send
from peers import eventually
from stage import Line, Person, Stage

if TYPE_CHECKING:
    from playwright.sync_api import Page

State: TypeAlias = Callable[["Page", Stage], None]

BEGIN = datetime.fromisoformat("2026-05-15T12:00:00Z")
NOW = datetime.fromisoformat("2026-05-16T09:42:00Z")

ADA = Person("Ada")  # who looks at the page
MILAN = Person("Milan")
NOOR = Person("نور")
XIAOYU = Person("小雨")


def at(minutes_ago: float, person: Person, text: str) -> Line:
    return Line(person, NOW - timedelta(minutes=minutes_ago), text)


EVENING = 14 * 60  # minutes ago
TALK = (
    at(EVENING + 22, MILAN, "Who is coming to the lake tomorrow?"),
    at(EVENING + 20, XIAOYU, "我来！我带西瓜 🍉"),
    at(EVENING + 20, XIAOYU, "(I'm in, and I bring a watermelon)"),
    at(EVENING + 11, ADA, "Me too. But somebody has to bring a boat, mine sank :sweat_smile:"),
    at(EVENING + 10, MILAN, ":rofl:"),
    at(34, NOOR, "صباح الخير! هل هناك مكان في السيارة؟"),
    at(33, NOOR, "Good morning! Is there a seat left in the car?"),
    at(31, MILAN, "Two of them. I leave at 10:30 from the station."),
    at(30.5, MILAN, "Here is the way: https://example.org/lake/boathouse."),
    at(30, MILAN, "Park behind the boathouse; the front is for swimmers."),
    at(
        12,
        ADA,
        "It should stay dry until the evening. I packed\n- a blanket\n- cards\n- cake :cake:",
    ),
    at(4, XIAOYU, "下午四点以后有风，太好了"),
    at(3, XIAOYU, "Wind after four, so bring the kite! 🪁"),
    at(1, NOOR, "🎉🎉"),
)


def joining(page: "Page", stage: Stage) -> None:
    page.goto(stage.url)


def joining_without_a_name(page: "Page", stage: Stage) -> None:
    page.goto(stage.url)
    page.fill("#email", ADA.email)
    page.click("#join-button")


def empty_chat(page: "Page", stage: Stage) -> None:
    page.goto(stage.url)
    join_as(page, ADA.email, ADA.username)


def lively_talk(page: "Page", stage: Stage) -> None:
    """Four people are here, and have talked yesterday and today."""
    seen: list[set[str]] = []

    def note_who_is_here(frame: str | bytes) -> None:
        seen.append({*json.loads(frame).get("usernames", [])})

    page.on("websocket", lambda socket: socket.on("framereceived", note_who_is_here))
    stage.perform(*TALK)
    stage.leave(ADA)  # who comes back by the page
    empty_chat(page, stage)
    expect(page.locator("#messages")).to_contain_text(TALK[-1].text)
    # The server tells once a second who is here. Playwright passes frames on while it waits.
    everybody = {each.username for each in (ADA, MILAN, NOOR, XIAOYU)}
    eventually(lambda: page.evaluate("true") and everybody in seen)


def sending(page: "Page", stage: Stage) -> None:
    """A message is on its way: the server has not acknowledged it."""
    page.add_init_script(FAKE_SOCKETS)
    empty_chat(page, stage)
    receive(page, f"{NOW.timestamp() * 1000:.0f}-0", "Are you there?")
    send(page, "On my way")
    expect(page.locator("#messages")).to_contain_text("On my way")


def offline(page: "Page", stage: Stage) -> None:
    """The connection is lost, and a message waits for the next."""
    sending(page, stage)
    page.evaluate("window.accepting = false; sockets.at(-1).lose()")
    expect(page.locator("body[data-state=waiting]")).to_have_count(1)


STATES: dict[str, State] = {
    "joining": joining,
    "joining without a name": joining_without_a_name,
    "empty chat": empty_chat,
    "lively talk": lively_talk,
    "sending": sending,
    "offline": offline,
}

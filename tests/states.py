"""The states in which the chat's page is looked at: for screenshots and by axe-core.

A state is a function that brings a new page there, on a stage that began at BEGIN. The page's clock
shows NOW. A new state needs a function and a line in STATES.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from pages import FAKE_SOCKETS, expect, join_as, receive, send
from stage import Line, Person, Stage

if TYPE_CHECKING:
    from playwright.sync_api import Page

State: TypeAlias = Callable[["Page", Stage], None]

BEGIN = datetime.fromisoformat("2026-05-15T12:00:00Z")
NOW = datetime.fromisoformat("2026-05-16T18:42:00Z")

ADA = Person("Ada")  # who looks at the page
MILAN = Person("Milan")
NOOR = Person("نور")
XIAOYU = Person("小雨")


def at(minutes_ago: float, person: Person, text: str) -> Line:
    return Line(person, NOW - timedelta(minutes=minutes_ago), text)


DAY = 24 * 60  # minutes
TALK = (
    at(DAY + 62, MILAN, "Who is coming to the lake tomorrow?"),
    at(DAY + 60, XIAOYU, "我来！我带西瓜 🍉"),
    at(DAY + 60, XIAOYU, "(I'm in, and I bring a watermelon)"),
    at(DAY + 51, ADA, "Me too. Somebody else has to bring the boat, mine sank :sweat_smile:"),
    at(DAY + 50, MILAN, ":rofl:"),
    at(34, NOOR, "صباح الخير! هل هناك مكان في السيارة؟"),
    at(33, NOOR, "Good morning! Is there a seat left in the car?"),
    at(31, MILAN, "Two of them. I leave at 10:30 from the station."),
    at(30.5, MILAN, "Here is the way: https://www.openstreetmap.org/way/23733659."),
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
    stage.perform(*TALK)
    empty_chat(page, stage)
    expect(page.locator("#messages")).to_contain_text(TALK[-1].text)


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
    expect(page.locator("#status")).not_to_have_text("Connected")


STATES: dict[str, State] = {
    "joining": joining,
    "joining without a name": joining_without_a_name,
    "empty chat": empty_chat,
    "lively talk": lively_talk,
    "sending": sending,
    "offline": offline,
}

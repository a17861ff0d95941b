"""The states in which the chat's page is looked at: for screenshots and by axe-core.

A state is a function that brings a new page there, in either browser, on a stage that began at
BEGIN. The page's clock shows NOW. A new state needs a function and a line in STATES.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeAlias

from either_browser import EitherPage
from pages import FAKE_SOCKETS, receive, receive_close, receive_texts, send
from peers import PATIENCE, eventually
from stage import Line, Person, Stage

State: TypeAlias = Callable[[EitherPage, Stage], None]

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


# Whether a connection can be had is as `isOffline` says. The connections are kept in `sockets`.
SOCKETS_THAT_LOSE = """
    window.isOffline = false;
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(url) {
            if (isOffline) {
                const dead = { readyState: 3, close() {} };
                setTimeout(() => dead.onclose(new CloseEvent('close', { code: 1006 })));
                return dead;
            }
            super(url);
            sockets.push(this);
        }
    };
"""
GO_OFFLINE = """(
    isOffline = true,
    sockets.at(-1).close(),
    sockets.at(-1).onclose(new CloseEvent('close', { code: 1006 }))
)"""


def joining(page: EitherPage, stage: Stage) -> None:
    page.goto(stage.url)


def joining_without_a_name(page: EitherPage, stage: Stage) -> None:
    page.goto(stage.url)
    page.fill("#email", ADA.email)
    page.click("#join-button")


def empty_chat(page: EitherPage, stage: Stage) -> None:
    page.goto(stage.url)
    page.fill("#email", ADA.email)
    page.fill("#username", ADA.username)
    page.click("#join-button")
    has(page, "body[data-state=open]")


def lively_talk(page: EitherPage, stage: Stage) -> None:
    """Four people are here, and have talked yesterday and today."""
    stage.perform(*TALK)
    stage.leave(ADA)  # who comes back by the page
    empty_chat(page, stage)
    shows(page, "#messages", TALK[-1].text)
    for each in (ADA, MILAN, NOOR, XIAOYU):  # the server tells them once a second
        shows(page, "#online ul", each.username)


def sending(page: EitherPage, stage: Stage) -> None:
    """A message is on its way: the server has not acknowledged it."""
    page.add_init_script(FAKE_SOCKETS)
    empty_chat(page, stage)
    receive(page, f"{NOW.timestamp() * 1000:.0f}-0", "Are you there?")
    send(page, "On my way")
    shows(page, "#messages", "On my way")


def offline(page: EitherPage, stage: Stage) -> None:
    """The connection is lost, and a message waits for the next."""
    sending(page, stage)
    page.evaluate("(window.accepting = false, sockets.at(-1).lose())")
    has(page, "body[data-state=waiting]")


def offline_talk(page: EitherPage, stage: Stage) -> None:
    """The connection is lost within a talk, and messages wait for the next."""
    page.add_init_script(SOCKETS_THAT_LOSE)
    lively_talk(page, stage)
    page.evaluate(GO_OFFLINE)
    has(page, "body[data-state=waiting]")
    send(page, "I can take two more in my car", "and the dog :dog:")
    has(page, ".pending", 2)


def emoji_list(page: EitherPage, stage: Stage) -> None:
    """An emoji is chosen by its short name."""
    lively_talk(page, stage)
    page.focus("#message")
    page.keyboard.type("I take the :ro")
    page.keyboard.press("ArrowDown")
    has(page, "#emoji-list [role=option]", 8)


def all_emoji(page: EitherPage, stage: Stage) -> None:
    """The panel of all emoji is open, and one of them is chosen."""
    lively_talk(page, stage)
    page.click("#show-emoji")
    has(page, "#all-emoji .group", 9)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    has(page, "#all-emoji [aria-selected=true]")


def settings(page: EitherPage, stage: Stage) -> None:
    empty_chat(page, stage)
    page.click("#show-settings")
    has(page, "#settings[open]")


def people(page: EitherPage, stage: Stage) -> None:
    """Who is here: on a wide window beside the messages, on a phone opened by a button."""
    lively_talk(page, stage)
    if page.evaluate("document.querySelector('#show-online').checkVisibility()"):
        page.click("#show-online")
    wait_until(page, "document.querySelector('#online').checkVisibility()")


def unread(page: EitherPage, stage: Stage) -> None:
    """Somebody comes back to messages that were said while they looked at something else."""
    page.add_init_script("window.looks = true; document.hasFocus = () => looks;")
    lively_talk(page, stage)
    look(page, False)
    stage.perform(
        at(0.6, MILAN, "By the way: the ferry to the island goes at noon, and at three."),
        at(0.5, MILAN, "Who wants to come along?"),
        at(0.4, XIAOYU, "我想去！🏝️"),
        at(0.3, NOOR, "Me too :sailboat:"),
    )
    shows(page, "#messages", "Me too")
    look(page, True)


def look(page: EitherPage, is_looking: bool) -> None:
    event = "focus" if is_looking else "blur"
    page.evaluate(f"(looks = {json.dumps(is_looking)}, dispatchEvent(new Event('{event}')))")


def unread_above(page: EitherPage, stage: Stage) -> None:
    """Who reads what was said before is offered a way to what is new."""
    lively_talk(page, stage)
    page.set_viewport_size({"width": page.evaluate("innerWidth"), "height": 480})
    page.focus("#messages")
    page.keyboard.press("Home")
    wait_until(page, "document.querySelector('#messages').scrollTop === 0")
    stage.perform(at(0.5, MILAN, "Who wants to come along?"), at(0.4, XIAOYU, "我想去！"))
    has(page, "#new-messages:not([hidden])")


def too_long(page: EitherPage, stage: Stage) -> None:
    """A text that is too long was to be sent."""
    empty_chat(page, stage)
    send(page, "A story without an end. " * 3000)
    has(page, "#send-error:not(:empty)")


def slowed(page: EitherPage, stage: Stage) -> None:
    sending(page, stage)
    receive_texts(page, '{"event": "slowed", "rate": 20}')
    has(page, "#slowed:not(:empty)")


def failed(page: EitherPage, stage: Stage) -> None:
    """The server has refused one message."""
    sending(page, stage)
    receive_close(page, 1008)
    has(page, "body[data-state=open] .failed .actions")


def wait_until(page: EitherPage, condition: str) -> None:
    """Wait until a JavaScript expression is true."""
    eventually(lambda: page.evaluate(f"Boolean({condition})"), 2 * PATIENCE)


def has(page: EitherPage, selector: str, count: int = 1) -> None:
    """Wait until so many elements match."""
    wait_until(page, f"document.querySelectorAll({json.dumps(selector)}).length === {count}")


def shows(page: EitherPage, selector: str, text: str) -> None:
    """Wait until an element contains a text, and perhaps others."""
    element = f"document.querySelector({json.dumps(selector)})"
    wait_until(page, f"{element}?.textContent.includes({json.dumps(text)})")


STATES: dict[str, State] = {
    "joining": joining,
    "joining without a name": joining_without_a_name,
    "empty chat": empty_chat,
    "lively talk": lively_talk,
    "sending": sending,
    "offline": offline,
    "offline talk": offline_talk,
    "emoji list": emoji_list,
    "all emoji": all_emoji,
    "settings": settings,
    "people": people,
    "unread": unread,
    "unread above": unread_above,
    "too long": too_long,
    "slowed": slowed,
    "failed": failed,
}

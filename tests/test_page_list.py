"""The chat's page with many messages: groups, what is new, the reader's place, older messages.

What is drawn is a part of what the page has, and what it has is a part of what the server has.
Whatever comes or goes, every message stands in its place once, and its reader keeps theirs.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from chat.history import SqliteHistory
from chatting import hear_until, say, tell
from histories import Said
from pages import (
    FAKE_SOCKETS,
    Visit,
    expect,
    join,
    join_as,
    pass_time,
    receive,
    receive_texts,
    send,
    wait_for_history,
)
from peers import eventually
from programs import Program, chat
from proxy import Forwarder

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser

LONG = bool(os.environ.get("RUN_LONG"))

NOON = 1_699_963_200_000  # ms since 1970; in any time zone, much of a day is left before and after
MINUTE = 60_000  # ms
DRAWN = 600  # messages; more are not in the page, but for the user's own that have no number yet
KNOWN = 10_000  # messages that the page has in memory at most
KEPT = 1_000  # messages at the end that it does not forget
RECENT = 500  # messages that a server sends to one who comes
TIMEOUT = 15  # seconds that the page waits for older messages
TRY_AGAIN = "The earlier messages cannot be loaded now. Try again"
BEGINNING = "The server has no earlier messages."
DELETED = "The server has deleted the messages that were here."

# In a page, what stands before the first blank of each message in the list
NUMBERS = "all => all.map((text) => text.textContent.split(' ')[0])"

# Scrolls through the whole list, `step` px at a time, and returns the numbers of the messages that
# came into sight, in the order of their places; the same message once.
WALK = """async (direction) => {
    const list = document.getElementById('messages');
    const frame = () => new Promise(requestAnimationFrame);
    const inSight = () => {
        const { top, bottom } = list.getBoundingClientRect();
        return [...list.querySelectorAll('.text')].filter((text) => {
            const place = text.getBoundingClientRect();
            return place.top < bottom && place.bottom > top;
        }).map((text) => Number(text.textContent.split(' ')[0]));
    };
    const seen = new Set(inSight());
    let still = 0;
    let most = 0;
    while (still < 3) {
        const before = list.scrollTop;
        list.scrollTop += direction * (list.clientHeight - 100);
        const hasMoved = list.scrollTop !== before;
        await frame();
        await frame();
        for (const number of inSight()) seen.add(number);
        most = Math.max(most, list.children.length);
        still = hasMoved ? 0 : still + 1;
    }
    return { seen: [...seen], most };
}"""

# The text at the top of what is in sight, below a hole, and where it is
TOPMOST = """() => {
    const list = document.getElementById('messages');
    const { top } = list.getBoundingClientRect();
    const text = [...list.querySelectorAll('.text')].find(
        (each) => each.getBoundingClientRect().bottom > top + 1);
    const place = text.getBoundingClientRect();
    return { text: text.textContent, bottom: place.bottom - top };
}"""
PLACE_OF = """text => {
    const list = document.getElementById('messages');
    const found = [...list.querySelectorAll('.text')].filter((each) => each.textContent === text);
    const { top } = list.getBoundingClientRect();
    return found.map((each) => each.getBoundingClientRect().bottom - top);
}"""


def texts(page: "Page") -> "Locator":
    return page.locator("#messages .text")


def numbers(page: "Page") -> list[int]:
    """The numbers of the messages that are drawn, in their order."""
    return [int(each) for each in texts(page).evaluate_all(NUMBERS)]


def scroll_to(page: "Page", top: float) -> None:
    page.locator("#messages").evaluate("(list, top) => { list.scrollTop = top; }", top)
    next_frame(page)


def next_frame(page: "Page") -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def line(number: int, text: str = "", **fields: Any) -> str:
    """A message of Bob, as the server sends it; its id rises with its number."""
    message = {"email": "", "username": "Bob", "message": text or str(number), "avatar": ""}
    return json.dumps(message | {"id": f"{NOON + number}-0"} | fields)


# Groups


def test_messages_of_one_person_within_five_minutes_are_one_group(fake_page: "Page") -> None:
    days_later = NOON + 3 * 24 * 60 * MINUTE
    said: list[tuple[int, str, dict[str, str]]] = [
        (NOON, "first", {}),
        (NOON + 5 * MINUTE - 1, "soon", {}),
        (NOON + 10 * MINUTE - 2, "soon again", {}),
        (NOON + 15 * MINUTE - 2, "later", {}),
        (NOON + 15 * MINUTE, "another Bob", {"avatar": "ab" * 32}),
        (NOON + 15 * MINUTE, "hello", {"username": "Eve"}),
        (NOON + 15 * MINUTE, "again", {}),
        (days_later, "another day", {}),
    ]
    for number, (time, text, fields) in enumerate(said):
        receive(fake_page, f"{time}-{number}", text, **fields)
    continued = fake_page.locator(".continued")
    expect(texts(fake_page)).to_have_count(8)
    expect(continued.locator(".text")).to_have_text(["soon", "soon again"])
    expect(continued.locator(".avatar").first).to_be_hidden()
    visible_names = fake_page.locator(".name").evaluate_all(
        "all => all.filter((name) => name.clientWidth > 1).map((name) => name.textContent)"
    )
    assert visible_names == ["Bob", "Bob", "Bob", "Eve", "Bob", "Bob"]
    # A screen reader gets the name and the time of each.
    snapshot = fake_page.locator("#messages").aria_snapshot()
    assert snapshot.count("text: Bob") == 7
    assert snapshot.count("text: Eve") == 1
    assert snapshot.count("time: 1") == 8  # such as 12:04 PM, and no day


def test_time_within_a_group_is_seen_by_who_points_at_it_or_has_the_list_in_the_focus(
    fake_page: "Page",
) -> None:
    for number in range(2):
        receive(fake_page, f"{NOON + number}-0", "x")
    time = fake_page.locator(".continued .time")
    expect(time).to_have_css("opacity", "0")
    fake_page.locator(".continued .text").hover()
    expect(time).to_have_css("opacity", "1")
    fake_page.locator("#message").hover()
    expect(time).to_have_css("opacity", "0")
    fake_page.keyboard.press("Shift+Tab")
    expect(fake_page.locator("#messages")).to_be_focused()
    expect(time).to_have_css("opacity", "1")


@pytest.mark.parametrize("options", [[], ["--hide-emails"]], ids=["shown", "hidden"])
def test_own_messages_stand_apart_also_after_a_reload(visit: Visit, options: list[str]) -> None:
    with chat(*options) as server:
        ada, bob = visit(server), visit(server)
        for visitor in (ada, bob):
            visitor.forgive("WebSocket connection")  # the server ends before them
        ada.join()
        bob.join("bob@example.org", "Bob")
        ada.say("from Ada")
        bob.sees("from Ada")
        bob.say("from Bob")
        for _ in range(2):
            ada.sees("from Ada", "from Bob")
            expect(ada.page.locator(".own .text")).to_have_text(["from Ada"])
            left = ada.texts.evaluate_all("all => all.map((t) => t.getBoundingClientRect().left)")
            assert left[0] > left[1] + 100
            ada.page.reload()
        bob.page.reload()
        expect(bob.page.locator(".own .text")).to_have_text(["from Bob"])


def test_own_messages_stand_apart_on_a_new_device_although_emails_are_hidden(visit: Visit) -> None:
    with chat("--hide-emails") as server:
        with server.join() as other_device:
            say(other_device, "from Ada", email=" Ada@Example.org")
            say(other_device, "from a namesake", email="ada@example.com")
            hear_until(other_device, "from a namesake")
        ada = visit(server)
        ada.forgive("WebSocket connection")  # the server ends before her
        ada.join("ada@example.org", "Ada")
        ada.sees("from Ada", "from a namesake")
        expect(ada.page.locator(".own .text")).to_have_text(["from Ada"])


def test_page_makes_the_hash_of_an_email_as_the_server_does(fake_page: "Page") -> None:
    texts = [("aé好🤖@" * 40)[:length] for length in (*range(0, 130, 5), 55, 56, 63, 64, 119, 120)]
    made = fake_page.evaluate(
        """async (texts) => {
            const { sha256 } = await import('./sha256.js');
            return texts.map(sha256);
        }""",
        texts,
    )
    assert made == [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def acknowledge(page: "Page", message_id: str, avatar: str = "ab" * 32) -> None:
    """Let the server send its copy of what the page has sent last."""
    sent = json.loads(page.evaluate("sent.findLast((text) => text.includes('message'))"))
    receive_texts(page, json.dumps(sent | {"id": message_id, "avatar": avatar}))


def test_own_message_stays_where_it_is_when_its_copy_arrives(page: "Page", server: Program) -> None:
    """Whether it begins a day, continues a group, or follows another that is on its way."""
    page.add_init_script(FAKE_SOCKETS)
    page.clock.install(time=NOON / 1000)
    join(page, server.url)
    receive(page, f"{NOON - 3 * 24 * 60 * MINUTE}-0", "days ago")
    for number, text in enumerate(["begins a day", "continues", "continues again"]):
        send(page, text)
        page.clock.run_for(2_000)
        before = page.evaluate(PLACE_OF, text)
        acknowledge(page, f"{NOON + 10 + number}-0")
        page.clock.run_for(2_000)
        expect(page.locator(".pending")).to_have_count(0)
        assert page.evaluate(PLACE_OF, text) == before
    expect(page.locator(".day")).to_have_count(2)
    expect(page.locator(".continued .text")).to_have_text(["continues", "continues again"])


# What is new

LOOK = """isLooking => {
    Object.defineProperty(document, 'hidden', { get: () => !isLooking, configurable: true });
    document.hasFocus = () => isLooking;
    document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_line_stands_before_the_first_message_that_came_while_nobody_looked(
    fake_page: "Page",
) -> None:
    below_line = fake_page.locator("li:has(.unread) .text")
    receive(fake_page, f"{NOON}-0", "seen")
    expect(texts(fake_page)).to_have_text(["seen"])
    wait_for_history(fake_page)
    fake_page.evaluate(LOOK, False)
    for number, text in enumerate(["one", "two"], 1):
        receive(fake_page, f"{NOON}-{number}", text)
    expect(below_line).to_have_text(["one"])
    expect(fake_page.locator(".unread")).to_have_text("New since you looked")
    expect(fake_page.locator("li:has(.unread) .name")).to_be_visible()  # it begins a group
    fake_page.evaluate(LOOK, True)
    receive(fake_page, f"{NOON}-3", "three")
    expect(texts(fake_page)).to_have_count(4)
    expect(below_line).to_have_text(["one"])
    fake_page.evaluate(LOOK, False)
    expect(below_line).to_have_count(0)
    expect(fake_page.locator(".continued .text")).to_have_text(["one", "two", "three"])
    receive(fake_page, f"{NOON}-4", "four")
    expect(below_line).to_have_text(["four"])


def test_button_counts_what_came_since_its_reader_left_the_end(fake_page: "Page") -> None:
    receive_texts(fake_page, *(line(number) for number in range(100)))
    expect(texts(fake_page)).to_have_count(100)
    button = fake_page.locator("#new-messages")
    scroll_to(fake_page, 1_000)
    expect(button).to_have_text("To the newest messages")
    receive_texts(fake_page, line(100))
    expect(button).to_have_text("1 new message")
    receive_texts(fake_page, *(line(number) for number in range(101, 1_234)))
    expect(button).to_have_text("1,134 new messages")
    button.click()
    expect(button).to_be_hidden()
    expect(texts(fake_page).last).to_have_text("1233")
    expect(texts(fake_page).last).to_be_in_viewport()
    scroll_to(fake_page, 1_000)
    expect(button).to_have_text("To the newest messages")


# The place of the reader

TALK = """() => {
    let number = 1_000;
    window.talk = setInterval(() => {
        number += 1;
        const data = JSON.stringify({ message: `${number}`, username: 'Bob', id: `17-${number}` });
        sockets.at(-1).emit(1, new MessageEvent('message', { data }));
    }, 5);
}"""


def test_reader_can_leave_the_end_while_messages_pour_in(fake_page: "Page") -> None:
    """A wheel moves a list by little in each frame, and in each frame another message comes."""
    receive_texts(fake_page, *(line(number, id=f"17-{number}") for number in range(100)))
    expect(texts(fake_page)).to_have_count(100)
    fake_page.locator("#messages").hover()
    fake_page.evaluate(TALK)
    expect(texts(fake_page).last).to_contain_text("10")
    for _ in range(20):
        fake_page.mouse.wheel(0, -4)
        next_frame(fake_page)
    expect(fake_page.locator("#new-messages")).to_be_visible()
    place = fake_page.evaluate(TOPMOST)
    next_frame(fake_page)
    next_frame(fake_page)
    assert fake_page.evaluate(TOPMOST) == place
    fake_page.evaluate("clearInterval(talk)")


def test_reader_keeps_the_place_when_the_list_gets_narrower_or_wider(fake_page: "Page") -> None:
    receive_texts(fake_page, *(line(n, f"{n} " + "word " * 60) for n in range(100)))
    expect(texts(fake_page)).to_have_count(100)
    scroll_to(fake_page, 2_000)
    place = fake_page.evaluate(TOPMOST)
    for width in (360, 800, 1280):
        fake_page.set_viewport_size({"width": width, "height": 640})
        next_frame(fake_page)
        [bottom] = fake_page.evaluate(PLACE_OF, place["text"])
        assert bottom == pytest.approx(place["bottom"], abs=2)


def test_keys_lead_to_both_ends_of_ten_thousand_messages(fake_page: "Page") -> None:
    """And scrolling shows each of them, though few are drawn: on a screen that is so high, or shows
    all so small, that more than a hundred are in sight.
    """
    for start in range(0, KNOWN, 2_000):
        receive_texts(fake_page, *(line(number) for number in range(start, start + 2_000)))
        expect(texts(fake_page).last).to_have_text(str(start + 1_999))
        assert texts(fake_page).count() == DRAWN
    fake_page.set_viewport_size({"width": 1280, "height": 4_400})
    next_frame(fake_page)
    up = fake_page.evaluate(WALK, -1)
    assert sorted(up["seen"]) == list(range(KNOWN))
    assert up["most"] <= DRAWN
    down = fake_page.evaluate(WALK, 1)
    assert sorted(down["seen"]) == list(range(KNOWN))
    assert down["most"] <= DRAWN
    fake_page.locator("#messages").focus()
    fake_page.keyboard.press("Home")
    expect(texts(fake_page).first).to_have_text("0")
    expect(texts(fake_page).first).to_be_in_viewport()
    fake_page.keyboard.press("End")
    expect(texts(fake_page).last).to_have_text(str(KNOWN - 1))
    expect(fake_page.locator("#new-messages")).to_be_hidden()


def test_page_forgets_what_is_far_from_its_reader_and_asks_for_it_again(
    fake_page: "Page",
) -> None:
    receive_texts(fake_page, *(line(number) for number in range(KNOWN + 1)))
    expect(texts(fake_page).last).to_have_text(str(KNOWN))
    fake_page.locator("#messages").focus()
    fake_page.keyboard.press("Home")
    first = KNOWN + 1 - KEPT
    expect(texts(fake_page).first).to_have_text(str(first))
    assert await_request(fake_page) == f"{NOON + first}-0"
    answer(fake_page, *range(first - 100, first))
    expect(texts(fake_page).first).to_have_text(str(first - 100))
    assert numbers(fake_page)[:200] == list(range(first - 100, first + 100))


# Older messages, of a real server


@pytest.fixture(scope="module")
def long_talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A chat with two thousand messages of three people, short ones and long ones."""
    path = tmp_path_factory.mktemp("talk") / "history"
    history = SqliteHistory(str(path))
    history.append(
        [
            Said(f"{n} " + "word " * (n * 7 % 60), None, "", f"Person {n // 3 % 3}")
            for n in range(2_000)
        ]
    )
    history.close()
    with chat("--history", str(path), "--rate", "0") as server:
        yield server


def by_wheel(page: "Page") -> None:
    page.mouse.wheel(0, -6_000)


def by_page_up(page: "Page") -> None:
    for _ in range(10):
        page.keyboard.press("PageUp")


def by_home(page: "Page") -> None:
    page.keyboard.press("Home")


# The way by wheel takes the longest, and leads through the same code.
WAYS_UP = [by_wheel, by_page_up, by_home] if LONG else [by_page_up, by_home]


@pytest.mark.parametrize("scroll", WAYS_UP)
def test_scrolling_up_leads_to_the_first_message_of_the_server(
    long_talk: Program, page: "Page", scroll: Callable[["Page"], None]
) -> None:
    page.goto(long_talk.url)
    join_as(page, "ada@example.org", "Ada")
    expect(texts(page).last).to_contain_text("1999")
    page.locator("#messages").focus()
    page.locator("#messages").hover()
    beginning = page.get_by_text(BEGINNING)

    def is_there() -> bool:
        scroll(page)
        next_frame(page)
        drawn = numbers(page)
        assert drawn == list(range(drawn[0], drawn[-1] + 1))  # each once, and in order
        return beginning.is_visible() and page.evaluate("messages.scrollTop") == 0

    eventually(is_there, 60)
    page.set_viewport_size({"width": 1280, "height": 2_400})
    next_frame(page)
    scroll_to(page, 0)
    assert sorted(page.evaluate(WALK, 1)["seen"]) == list(range(2_000))
    page.keyboard.press("Home")
    expect(beginning).to_be_in_viewport()
    page.get_by_role("button", name="To the newest messages").click()
    expect(texts(page).last).to_contain_text("1999")
    expect(texts(page).last).to_be_in_viewport()
    expect(page.locator("#messages")).to_be_focused()


def test_reader_keeps_the_place_when_older_messages_come_before_it(
    long_talk: Program, page: "Page"
) -> None:
    page.goto(long_talk.url)
    join_as(page, "ada@example.org", "Ada")
    expect(texts(page).last).to_contain_text("1999")
    first = 2_000 - RECENT
    expect(page.locator("#messages")).not_to_have_attribute("aria-busy", "true")
    page.locator("#messages").focus()
    for _ in range(3):
        page.keyboard.press("Home")
        place = page.evaluate(TOPMOST)  # before the answer can be there, or after
        first = int(place["text"].split(" ")[0]) - 1
        expect(texts(page).filter(has_text=f"{first} ").first).to_be_attached()
        next_frame(page)
        [bottom] = page.evaluate(PLACE_OF, place["text"])
        assert bottom == pytest.approx(place["bottom"], abs=2)


def test_gap_after_missing_many_messages_is_filled_when_its_reader_comes_near(
    page: "Page",
) -> None:
    with chat("--rate", "0") as server, Forwarder(server.server_port) as forwarder:
        heard = tell(server, 10)
        join(page, forwarder.url)
        expect(texts(page)).to_have_text([each["message"] for each in heard])
        page.context.set_offline(True)
        forwarder.hang_up()
        expect(page.locator("#status")).to_contain_text("Reconnecting")
        tell(server, 700, start=10)
        page.context.set_offline(False)
        expect(texts(page).last).to_have_text("709")
        expect(page.locator(".gap")).to_have_count(1)
        eventually(
            lambda: 0 in page.evaluate(WALK, -1)["seen"] and not page.locator(".gap").count()
        )
        assert sorted(page.evaluate(WALK, 1)["seen"]) == list(range(710))


# Older messages, of a server that does as the test says


def requests(page: "Page") -> list[str]:
    """The ids before which the page has asked for older messages."""
    sent = [json.loads(text) for text in page.evaluate("sent")]
    return [each["before"] for each in sent if each.get("event") == "older"]


def await_request(page: "Page", count: int = 1) -> str:
    """The id in the request of this number. There is none beyond it."""
    eventually(lambda: len(requests(page)) >= count)
    assert len(requests(page)) == count
    return requests(page)[-1]


def answer(page: "Page", *given: int, **fields: Any) -> None:
    """Answer the newest request with the messages of these numbers."""
    messages = [json.loads(line(number)) for number in given]
    older = {"event": "older", "before": requests(page)[-1], "messages": messages, "more": True}
    receive_texts(page, json.dumps(older | fields))


GAP = json.dumps({"event": "gap"})
BELOW = range(500, 510)  # the numbers of the messages below the gap


@pytest.fixture
def gap_page(fake_page: "Page") -> "Page":
    """A page that has missed what came before message 500, and has asked for it."""
    receive_texts(fake_page, GAP, *map(line, BELOW))
    assert await_request(fake_page) == f"{NOON + 500}-0"
    return fake_page


def test_hole_is_filled_once_however_often_the_server_answers(gap_page: "Page") -> None:
    for _ in range(2):
        answer(gap_page, 498, 499, before=f"{NOON + 500}-0")
    expect(texts(gap_page)).to_have_text(["498", "499", *map(str, BELOW)])
    assert await_request(gap_page, 2) == f"{NOON + 498}-0"
    answer(gap_page, 497, more=False)
    expect(gap_page.get_by_text(BEGINNING)).to_be_visible()
    assert numbers(gap_page) == [497, 498, 499, *BELOW]
    await_request(gap_page, 2)


def test_hole_that_a_server_cannot_fill_is_filled_when_its_reader_tries_again(
    gap_page: "Page",
) -> None:
    expect(gap_page.locator(".gap")).to_have_text("Loading earlier messages…")
    answer(gap_page, failed=True)
    button = gap_page.get_by_role("button", name=TRY_AGAIN)
    button.focus()
    gap_page.keyboard.press("Enter")
    expect(gap_page.locator("#messages")).to_be_focused()
    await_request(gap_page, 2)
    answer(gap_page, 499, more=False)
    expect(texts(gap_page)).to_have_text(["499", *map(str, BELOW)])


def test_hole_of_a_server_that_never_answers_can_be_tried_again(still_page: "Page") -> None:
    receive_texts(still_page, GAP, *map(line, BELOW))
    pass_time(still_page, 1)
    await_request(still_page)
    pass_time(still_page, TIMEOUT - 2)
    expect(still_page.locator(".gap")).to_have_text("Loading earlier messages…")
    pass_time(still_page, 3)
    answer(still_page, 499)  # too late
    pass_time(still_page, 1)
    assert numbers(still_page) == [*BELOW]
    still_page.get_by_role("button", name=TRY_AGAIN).click()
    pass_time(still_page, 1)
    await_request(still_page, 2)
    for _ in range(2):
        answer(still_page, 499, more=False)
    pass_time(still_page, 1)
    assert numbers(still_page) == [499, *BELOW]


def test_hole_is_filled_when_the_connection_is_back(gap_page: "Page") -> None:
    gap_page.evaluate("window.accepting = false")
    gap_page.evaluate("sockets.at(-1).lose()")
    button = gap_page.get_by_role("button", name=TRY_AGAIN)
    expect(button).to_be_visible()
    button.click()  # it cannot, and says so again
    expect(gap_page.locator("#messages")).to_be_focused()
    expect(button).to_be_visible()
    gap_page.evaluate("window.accepting = true")
    expect(gap_page.locator("#status")).to_have_text("Connected")
    await_request(gap_page, 2)
    answer(gap_page, 499, more=False)
    expect(texts(gap_page)).to_have_text(["499", *map(str, BELOW)])


def test_server_that_promises_more_and_gives_nothing_is_not_asked_for_ever(
    gap_page: "Page",
) -> None:
    answer(gap_page)
    expect(gap_page.get_by_role("button", name=TRY_AGAIN)).to_be_visible()
    await_request(gap_page, 1)


def test_what_lies_outside_of_the_hole_is_not_drawn_again(gap_page: "Page") -> None:
    answer(gap_page, 499, 500, 501, more=False)
    expect(texts(gap_page)).to_have_text(["499", *map(str, BELOW)])


def test_hole_says_that_the_messages_in_it_were_deleted(fake_page: "Page") -> None:
    receive_texts(fake_page, line(100), GAP, *map(line, BELOW))
    await_request(fake_page)
    answer(fake_page, 498, 499, more=False)
    expect(fake_page.locator(".gap")).to_have_text(DELETED)
    assert numbers(fake_page) == [100, 498, 499, *BELOW]


def test_hole_that_nothing_follows_is_filled_and_shown_once(fake_page: "Page") -> None:
    """A server that has lost its history tells of a gap each time that the page comes back."""
    receive_texts(fake_page, line(100), GAP)
    await_request(fake_page)
    answer(fake_page, more=False)
    expect(fake_page.locator(".gap")).to_have_text(DELETED)
    receive_texts(fake_page, GAP)
    await_request(fake_page, 2)
    receive_texts(fake_page, line(103))
    answer(fake_page, 101, 102, 103, more=False)
    expect(texts(fake_page)).to_have_text(["100", "101", "102", "103"])
    expect(fake_page.locator(".gap")).to_have_text(DELETED)


# The user's own messages among older ones


def test_copy_of_an_own_message_stands_in_its_place_within_a_gap(fake_page: "Page") -> None:
    """Its first copy was lost with the connection, and more was said since than a server sends."""
    receive_texts(fake_page, line(100))
    send(fake_page, "400")
    receive_texts(fake_page, GAP, *map(line, BELOW))
    await_request(fake_page)
    acknowledge(fake_page, f"{NOON + 400}-0")
    expect(texts(fake_page)).to_have_text(["100", "400", *map(str, BELOW)])
    expect(fake_page.locator(".gap")).to_have_count(2)
    answer(fake_page, 399, 400, 401, 499)
    assert await_request(fake_page, 2) == f"{NOON + 400}-0"
    answer(fake_page, 99, 100, 398, 399)
    expected = [100, 398, 399, 400, 401, 499, *BELOW]
    expect(texts(fake_page)).to_have_text(list(map(str, expected)))
    expect(fake_page.locator(".gap")).to_have_count(0)
    await_request(fake_page, 2)


def test_own_message_that_stands_among_older_ones_is_not_on_its_way_any_more(
    gap_page: "Page",
) -> None:
    send(gap_page, "499")
    sent = json.loads(gap_page.evaluate("sent.at(-1)"))
    expect(gap_page.locator(".pending")).to_have_count(1)
    copy = sent | {"id": f"{NOON + 499}-0", "avatar": "ab" * 32}
    answer(gap_page, messages=[copy], more=False)
    expect(gap_page.locator(".pending")).to_have_count(0)
    receive_texts(gap_page, json.dumps(copy))  # the server answers what was sent again
    receive_texts(gap_page, line(600))
    expect(texts(gap_page)).to_have_text(["499", *map(str, BELOW), "600"])
    expect(gap_page.locator(".own .text")).to_have_text(["499"])

"""How the chat's page draws a message: in its own place whatever it contains, with its time, and
with what its author can do if it was not sent.
"""

import json
import re
from typing import TYPE_CHECKING

import pytest

from pages import (
    FAKE_SOCKETS,
    expect,
    join,
    make_stored_message_older,
    pending,
    receive,
    receive_close,
    receive_texts,
    send,
    stored_messages,
)
from programs import Program

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

HOUR = 3_600_000  # ms
MAX_ONE_LINE_HEIGHT = 70  # px; a message of one line is lower than this

STACKED = "".join(letter + "\u0301" * 40 + "\u0323" * 40 for letter in "agelo")
TEXTS = {
    "stacked marks": STACKED,
    "wide letters": "\ufdfd" * 40 + "\U00012031" * 40,
    "one word": "w" * 5_000,
    "no spaces": "\u00a0" * 3_000 + "x",
    "tabs": "\t" * 500 + "x",
    "changed direction": "\u202e" * 50 + "sdrawkcab" + "\u2066" * 200 + "\u2067\u202d\u202b" * 50,
    "letters without width": "\u200b\u200d\u2060\ufeff" * 1_000 + "x",
    "joined emoji": "👩‍👩‍👧‍👦" * 200 + "🏴" + "\U000e0067" * 500,
    "right to left": "ﷺ مرحبا " * 100,
    "vertical": "\ua9c5\u0f3a\u0fd9᭛꧅𒐫⸻" * 30,
    "controls": "".join(map(chr, range(1, 32))) + "\u0085\u2028\u2029\x7f",
}
NAMES = TEXTS | {"lines": "\n" * 500 + "x", "five thousand": "n" * 5_000, "spaces": " " * 500}


# The place of a message

COVER_EVERY_SECOND_MESSAGE = """() => {
    for (const item of document.querySelectorAll('.message:nth-child(even)')) {
        const { left, top, width, height } = item.getBoundingClientRect();
        const cover = document.createElement('div');
        cover.style.cssText = `position: fixed; background: gray; left: ${left}px; top: ${top}px;
            width: ${width}px; height: ${height}px`;
        document.body.append(cover);
    }
}"""
HIDE_EVERY_SECOND_MESSAGE = """() => {
    for (const part of document.querySelectorAll('.message:nth-child(even) *'))
        part.style.visibility = 'hidden';
}"""


@pytest.mark.parametrize("width", [360, 1280])
def test_message_draws_nothing_outside_of_its_own_place(fake_page: "Page", width: int) -> None:
    """Covers every second message, hides what it contains, and compares the screen.

    If a message drew anything outside of its cover, hiding the message would change the screen.
    """
    fake_page.set_viewport_size({"width": width, "height": 6_000})
    receive(fake_page, "17-0", "plain")
    for number, text in enumerate(TEXTS.values()):
        receive(fake_page, f"17-{2 * number + 1}", text[:600], username=text, email=text)
        receive(fake_page, f"17-{2 * number + 2}", "plain")
    expect(fake_page.locator(".message")).to_have_count(2 * len(TEXTS) + 1)
    fake_page.evaluate("document.fonts.ready")
    # The round corners in this form are not always drawn with the same pixels.
    fake_page.evaluate("document.getElementById('send').style.visibility = 'hidden'")
    fake_page.evaluate(COVER_EVERY_SECOND_MESSAGE)
    drawn = fake_page.screenshot()
    fake_page.evaluate(HIDE_EVERY_SECOND_MESSAGE)
    assert fake_page.screenshot() == drawn


@pytest.mark.parametrize("width", [360, 1280])
def test_no_message_makes_anything_scroll_sideways(fake_page: "Page", width: int) -> None:
    fake_page.set_viewport_size({"width": width, "height": 640})
    texts = NAMES | {"lines": "\n" * 5_000 + "x"}
    for number, text in enumerate(texts.values()):
        receive(fake_page, f"17-{number}", text, username=text)
    expect(fake_page.locator(".message")).to_have_count(len(texts))
    sideways = fake_page.evaluate(
        """() => {
            const all = [...document.querySelectorAll('html, body, #messages, #messages *')];
            for (const each of all) each.scrollLeft = 100;
            return all.filter((each) => each.scrollLeft !== 0).map((each) => each.className);
        }"""
    )
    assert sideways == []
    assert fake_page.evaluate("document.documentElement.scrollHeight") <= 640


def test_username_takes_one_line_however_long_it_is(fake_page: "Page") -> None:
    for number, name in enumerate(NAMES.values()):
        receive(fake_page, f"17-{number}", "one line", username=name)
    expect(fake_page.locator(".message")).to_have_count(len(NAMES))
    heights = fake_page.locator(".message:not(:has(.day))").evaluate_all(
        "all => all.map((each) => each.clientHeight)"
    )
    assert max(heights) < MAX_ONE_LINE_HEIGHT
    longest = fake_page.locator(".name").evaluate_all(
        "names => Math.max(...names.map(({ textContent }) => textContent.length))"
    )
    assert longest < 300  # a screen reader reads all of it


def test_list_of_who_is_online_never_scrolls_sideways(fake_page: "Page") -> None:
    people = [{"username": name[:64], "avatar": ""} for name in NAMES.values()]
    fake_page.evaluate(
        """people => {
            const data = JSON.stringify({ event: 'online', count: people.length, people });
            sockets[0].emit(1, new MessageEvent('message', { data }));
        }""",
        people,
    )
    online = fake_page.locator("#online")
    expect(online.locator("li")).to_have_count(len(people))
    assert online.evaluate("each => { each.scrollLeft = 100; return each.scrollLeft; }") == 0


# The time of a message

ABSURD_IDS = [
    "8640000000000001-0",  # JavaScript has no date beyond 8640000000000000
    "9999999999999999999-0",
    "99999999999999999999999999999999-0",
    "9007199254740993-0",
    "253402300800000-0",  # the year 10000, which the attribute `datetime` cannot express
    "no number",
    "-1-0",
    "",
]


def test_message_with_an_absurd_time_is_shown_without_one(fake_page: "Page") -> None:
    for number, message_id in enumerate(ABSURD_IDS):
        receive(fake_page, message_id, f"id {message_id}")
        receive(fake_page, f"{1_700_000_000_000 + number}-0", "with a time")
    texts = [text for each in ABSURD_IDS for text in (f"id {each}".strip(), "with a time")]
    expect(fake_page.locator(".message:not(.plain) .text")).to_have_text(texts)
    times = fake_page.locator(".time").evaluate_all("all => all.map((time) => time.textContent)")
    assert all(times[1::2]) and not any(times[0::2])
    expect(fake_page.locator(".time[datetime]")).to_have_count(len(ABSURD_IDS))


def join_in_2024(page: "Page", server: Program) -> None:
    """Join ten minutes before the end of the 29th of February, by the page's clock."""
    page.add_init_script(FAKE_SOCKETS)
    page.clock.install(time="2024-02-29T23:50:00")
    join(page, server.url)


def receive_now(page: "Page", text: str) -> None:
    receive(page, f"{page.evaluate('Date.now()')}-0", text)
    page.clock.run_for(5_000)


def test_days_are_told_apart_and_named_as_people_do(page: "Page", server: Program) -> None:
    join_in_2024(page, server)
    receive_now(page, "late")
    receive_now(page, "later")
    days = page.locator(".day")
    expect(days).to_have_text(["Today"])
    page.clock.run_for("11:00")
    expect(days).to_have_text(["Yesterday"])
    receive_now(page, "early")
    expect(days).to_have_text(["Yesterday", "Today"])
    expect(page.locator("li:has(.day) .text")).to_have_text(["late", "early"])
    page.clock.run_for("24:00:00")
    expect(days).to_have_text(["Thursday, February 29, 2024", "Yesterday"])


def test_page_that_slept_over_midnight_names_the_days_once_somebody_looks_at_it(
    page: "Page", server: Program
) -> None:
    join_in_2024(page, server)
    receive_now(page, "late")
    page.clock.set_system_time("2024-03-02T08:00:00")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.run_for(200)
    expect(page.locator(".day")).to_have_text(["Thursday, February 29, 2024"])


def test_time_of_a_message_says_its_day_when_one_points_at_it(
    page: "Page", server: Program
) -> None:
    join_in_2024(page, server)
    receive_now(page, "late")
    time = page.locator("time.time")
    expect(time).to_have_text(re.compile(r"^11:50\WPM$"))
    expect(time).to_have_attribute("title", re.compile("Thursday, February 29, 2024 at 11:50"))


# What a screen reader reads


def test_only_messages_that_are_new_are_read_aloud(page: "Page", server: Program) -> None:
    """Not the history, not what is drawn again when the reader scrolls, and not the user's own."""
    join_in_2024(page, server)
    log = page.get_by_role("log")
    receive(page, "17-0", "history")
    page.clock.run_for(5_000)
    expect(page.locator("#messages .text")).to_have_text(["history"])
    expect(log).to_have_text("")
    receive(page, "18-0", "news")
    send(page, "mine")
    receive(page, "18-1", "mine", key=keys(page)["mine"])
    page.clock.run_for(1_000)
    expect(page.locator("#messages .text")).to_have_text(["history", "news", "mine"])
    expect(log.locator("p")).to_have_text(["Bob: news"])
    page.clock.run_for(10_000)
    expect(log).to_have_text("")
    expect(page.locator("#messages")).not_to_have_attribute("aria-live", re.compile("."))


# Failed messages, and the focus of somebody who works by keyboard


def refuse(page: "Page", reason: str = "not today") -> None:
    """Let the server refuse the oldest pending message, and wait until the page has reconnected."""
    failed = page.locator("#messages .failed")
    count = failed.count()
    receive_close(page, 1008, reason)
    expect(failed).to_have_count(count + 1)
    expect(page.locator("#status")).to_have_text("Connected")


def keys(page: "Page") -> dict[str, str]:
    """The keys of the messages that the page has sent, by their texts."""
    sent = [json.loads(text) for text in page.evaluate("sent")]
    return {each["message"]: each["key"] for each in sent if "message" in each}


@pytest.fixture
def stale_page(fake_page: "Page") -> "Page":
    """A page with the failed message "lunch?": too old to be sent unless Ada asks for it."""
    send(fake_page, "lunch?")
    make_stored_message_older(fake_page, 2 * HOUR)
    fake_page.reload()
    expect(fake_page.locator("#status")).to_have_text("Connected")
    expect(fake_page.locator("#messages .failed .text")).to_have_text(["lunch?"])
    return fake_page


def test_failed_message_stays_in_sight_however_many_others_arrive(fake_page: "Page") -> None:
    send(fake_page, "refused")
    refuse(fake_page)
    lines = (f'{{"message": "{n}", "username": "Bob", "id": "18-{n}"}}' for n in range(1_100))
    receive_texts(fake_page, *lines)
    send(fake_page, "mine")
    expect(pending(fake_page)).to_have_text(["mine"])
    last = fake_page.locator("#messages li:nth-last-child(-n + 3) .text")
    expect(last).to_have_text(["1099", "mine", "refused"])
    expect(fake_page.locator("#messages li")).to_have_count(602)
    expect(fake_page.get_by_role("button", name="Delete: refused")).to_be_in_viewport()
    receive(fake_page, "19-1", "mine", key=keys(fake_page)["mine"])
    expect(pending(fake_page)).to_have_count(0)
    expect(last).to_have_text(["1099", "mine", "refused"])


def test_long_failed_message_leaves_room_for_others(fake_page: "Page") -> None:
    send(fake_page, "a long story " * 2_000)
    refuse(fake_page)
    receive(fake_page, "17-1", "news")
    expect(fake_page.get_by_text("news", exact=True)).to_be_in_viewport()
    expect(fake_page.get_by_role("button", name="Delete")).to_be_in_viewport()


def test_message_that_fails_leaves_the_others_in_their_order(fake_page: "Page") -> None:
    send(fake_page, "refused", "one", "two")
    refuse(fake_page)
    shown = fake_page.locator("#messages .text")
    expect(shown).to_have_text(["one", "two", "refused"])
    receive(fake_page, "17-1", "Bob's")
    expect(shown).to_have_text(["Bob's", "one", "two", "refused"])
    for number, text in enumerate(["one", "two"], 2):
        receive(fake_page, f"17-{number}", text, key=keys(fake_page)[text])
    expect(shown).to_have_text(["Bob's", "one", "two", "refused"])
    # The page had taken the wrong message for the refused one: its acknowledgement was only late.
    receive(fake_page, "17-4", "refused", key=keys(fake_page)["refused"])
    expect(fake_page.locator("#messages .failed")).to_have_count(0)
    expect(fake_page.locator("#messages button")).to_have_count(0)
    expect(shown).to_have_text(["Bob's", "one", "two", "refused"])


@pytest.mark.parametrize("label", ["Try again", "Delete"])
def test_failed_message_can_be_tried_again_or_deleted_by_keyboard(
    stale_page: "Page", label: str
) -> None:
    button = stale_page.get_by_role("button", name=f"{label}: lunch?")
    button.focus()
    stale_page.keyboard.press("Enter")
    expect(stale_page.locator("#message")).to_be_focused()
    expect(stale_page.locator("#messages .failed")).to_have_count(0)
    expect(pending(stale_page)).to_have_count(1 if label == "Try again" else 0)
    assert ("lunch?" in keys(stale_page)) == (label == "Try again")
    stale_page.reload()
    expect(stale_page.locator("#status")).to_have_text("Connected")
    expect(stale_page.locator("#messages li")).to_have_count(1 if label == "Try again" else 0)


@pytest.mark.parametrize("label", ["Edit", "Delete"])
def test_focus_moves_to_the_messages_when_a_late_acknowledgement_removes_the_focused_button(
    fake_page: "Page", label: str
) -> None:
    send(fake_page, "late")
    refuse(fake_page)
    fake_page.get_by_role("button", name=label).focus()
    receive(fake_page, "17-1", "late", key=keys(fake_page)["late"])
    expect(fake_page.locator("#messages button")).to_have_count(0)
    expect(fake_page.locator("#messages")).to_be_focused()


def test_focus_moves_to_the_messages_when_a_late_acknowledgement_removes_try_again(
    stale_page: "Page",
) -> None:
    stale_page.get_by_role("button", name="Try again").focus()
    receive(stale_page, "17-1", "lunch?", key=stored_messages(stale_page)[0]["key"])
    expect(stale_page.locator("#messages button")).to_have_count(0)
    expect(stale_page.locator("#messages")).to_be_focused()


def test_focus_moves_to_the_messages_when_the_button_for_new_ones_is_hidden(
    fake_page: "Page",
) -> None:
    for number in range(40):
        receive(fake_page, f"17-{number}", f"message {number}")
    messages = fake_page.locator("#messages")
    expect(messages.locator("li")).to_have_count(40)
    new_messages = fake_page.get_by_role("button", name="1 new message")
    for way in ("Enter", "scrolling"):
        messages.evaluate("list => { list.scrollTop = 0; }")
        fake_page.evaluate("new Promise(requestAnimationFrame)")
        receive(fake_page, f"18-{way}", way)
        expect(new_messages).to_be_visible()
        new_messages.focus()
        if way == "Enter":
            fake_page.keyboard.press("Enter")
        else:
            messages.evaluate("list => { list.scrollTop = list.scrollHeight; }")
        expect(new_messages).to_be_hidden()
        expect(messages).to_be_focused()


def test_focus_moves_to_the_messages_when_the_server_closes_the_connection(
    fake_page: "Page",
) -> None:
    expect(fake_page.locator("#message")).to_be_focused()
    receive_close(fake_page, 1008, "no")
    expect(fake_page.locator("#message")).to_be_disabled()
    expect(fake_page.locator("#messages")).to_be_focused()

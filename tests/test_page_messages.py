"""How the page draws a message: in its own place, whatever it is made of, and with its time."""

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pages import SOCKETS, come_in, come_in_raw, expect, join, pending, type_and_send
from programs import Program, chat

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

LINE = 60  # px; more than a message of one line is high

STACKED = "".join(letter + "\u0301" * 40 + "\u0323" * 40 for letter in "agelo")
TEXTS = {
    "stacked marks": STACKED,
    "wide letters": "\ufdfd" * 40 + "\U00012031" * 40,
    "one word": "w" * 5_000,
    "no spaces": "\u00a0" * 3_000 + "x",
    "tabs": "\t" * 500 + "x",
    "overridden": "\u202e" * 50 + "sdrawkcab" + "\u2066" * 200 + "\u2067\u202d\u202b" * 50,
    "without width": "\u200b\u200d\u2060\ufeff" * 1_000 + "x",
    "joined emoji": "👩‍👩‍👧‍👦" * 200 + "🏴" + "\U000e0067" * 500,
    "right to left": "ﷺ مرحبا " * 100,
    "vertical": "\ua9c5\u0f3a\u0fd9᭛꧅𒐫⸻" * 30,
    "controls": "".join(map(chr, range(1, 32))) + "\u0085\u2028\u2029\x7f",
}
NAMES = TEXTS | {"lines": "\n" * 500 + "x", "five thousand": "n" * 5_000, "spaces": " " * 500}


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    """For pages whose sockets are the test's own."""
    with chat() as program:
        yield program


@pytest.fixture
def ada(page: "Page", server: Program) -> "Page":
    page.add_init_script(SOCKETS)
    join(page, server.url)
    return page


# Its place

COVER_ODD_ONES = """() => {
    for (const item of document.querySelectorAll('.message:nth-child(even)')) {
        const { left, top, width, height } = item.getBoundingClientRect();
        const cover = document.createElement('div');
        cover.style.cssText = `position: fixed; background: gray; left: ${left}px; top: ${top}px;
            width: ${width}px; height: ${height}px`;
        document.body.append(cover);
    }
}"""
HIDE_ODD_ONES = """() => {
    for (const part of document.querySelectorAll('.message:nth-child(even) *'))
        part.style.visibility = 'hidden';
}"""


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_drawn_outside_of_its_message(ada: "Page", width: int) -> None:
    """What is under the covers may be anything; what is beside them may not depend on it."""
    ada.set_viewport_size({"width": width, "height": 6_000})
    come_in(ada, "17-0", "plain")
    for number, text in enumerate(TEXTS.values()):
        come_in(ada, f"17-{2 * number + 1}", text[:600], username=text, email=text)
        come_in(ada, f"17-{2 * number + 2}", "plain")
    expect(ada.locator(".message")).to_have_count(2 * len(TEXTS) + 1)
    ada.evaluate("document.fonts.ready")
    # Its round corners are not always drawn alike to the last bit.
    ada.evaluate("document.getElementById('send').style.visibility = 'hidden'")
    ada.evaluate(COVER_ODD_ONES)
    drawn = ada.screenshot()
    ada.evaluate(HIDE_ODD_ONES)
    assert ada.screenshot() == drawn


@pytest.mark.parametrize("width", [360, 1280])
def test_no_message_makes_anything_scroll_sideways(ada: "Page", width: int) -> None:
    ada.set_viewport_size({"width": width, "height": 640})
    texts = NAMES | {"lines": "\n" * 5_000 + "x"}
    for number, text in enumerate(texts.values()):
        come_in(ada, f"17-{number}", text, username=text)
    expect(ada.locator(".message")).to_have_count(len(texts))
    sideways = ada.evaluate(
        """() => {
            const all = [...document.querySelectorAll('html, body, #messages, #messages *')];
            for (const each of all) each.scrollLeft = 100;
            return all.filter((each) => each.scrollLeft !== 0).map((each) => each.className);
        }"""
    )
    assert sideways == []
    assert ada.evaluate("document.documentElement.scrollHeight") <= 640


def test_name_has_one_line_however_long_it_is(ada: "Page") -> None:
    for number, name in enumerate(NAMES.values()):
        come_in(ada, f"17-{number}", "one line", username=name)
    expect(ada.locator(".message")).to_have_count(len(NAMES))
    heights = ada.locator(".message").evaluate_all("all => all.map((each) => each.clientHeight)")
    assert max(heights) < LINE
    longest = ada.locator(".name").evaluate_all(
        "names => Math.max(...names.map(({ textContent }) => textContent.length))"
    )
    assert longest < 300  # for who hears it and does not see it


def test_here_is_one_line_for_a_name_however_it_is_made(ada: "Page") -> None:
    names = [name[:64] for name in NAMES.values()]
    ada.evaluate(
        """usernames => {
            const data = JSON.stringify({ event: 'online', count: usernames.length, usernames });
            sockets[0].happen(1, new MessageEvent('message', { data }));
        }""",
        names,
    )
    online = ada.locator("#online")
    expect(online.locator("li")).to_have_count(len(names))
    assert online.evaluate("each => { each.scrollLeft = 100; return each.scrollLeft; }") == 0


# Its time

ABSURD_IDS = [
    "8640000000000001-0",  # JavaScript has no date beyond 8640000000000000
    "9999999999999999999-0",
    "99999999999999999999999999999999-0",
    "9007199254740993-0",
    "253402300800000-0",  # the year 10000, which `datetime` can't say
    "no number",
    "-1-0",
    "",
]


def test_message_of_an_absurd_time_is_shown_without(ada: "Page") -> None:
    for number, message_id in enumerate(ABSURD_IDS):
        come_in(ada, message_id, f"at the time {message_id}")
        come_in(ada, f"{1_700_000_000_000 + number}-0", "at a time")
    texts = [text for each in ABSURD_IDS for text in (f"at the time {each}".strip(), "at a time")]
    expect(ada.locator(".message:not(.plain) .text")).to_have_text(texts)
    times = ada.locator("time").evaluate_all("all => all.map((time) => time.textContent)")
    assert all(times[1::2]) and not any(times[0::2])
    expect(ada.locator("time[datetime]")).to_have_count(len(ABSURD_IDS))


def test_message_of_yesterday_gets_its_date_at_midnight(page: "Page", server: Program) -> None:
    page.add_init_script(SOCKETS)
    page.clock.install(time="2024-02-29T23:50:00")
    join(page, server.url)
    said = page.evaluate("Date.now()")
    come_in(page, f"{said}-0", "late")
    page.clock.run_for(5_000)
    time = page.locator("time").first
    bare = re.compile(r"^\d?\d:\d\d\W*[AaPp]?[Mm]?$")
    expect(time).to_have_text(bare)
    page.clock.run_for("11:00")
    expect(time).to_contain_text("Feb 29, 2024")
    come_in(page, f"{page.evaluate('Date.now()')}-0", "early")
    page.clock.run_for(5_000)
    expect(page.locator("time").nth(1)).to_have_text(bare)
    expect(time).to_contain_text("Feb 29, 2024")


def test_page_that_slept_over_midnight_shows_dates_once_somebody_looks(
    page: "Page", server: Program
) -> None:
    page.add_init_script(SOCKETS)
    page.clock.install(time="2024-02-29T23:50:00")
    join(page, server.url)
    come_in(page, f"{page.evaluate('Date.now()')}-0", "late")
    page.clock.run_for(1_000)
    page.clock.set_system_time("2024-03-02T08:00:00")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.run_for(200)
    expect(page.locator("time").first).to_contain_text("Feb 29, 2024")


def test_dates_that_change_at_midnight_are_not_read_aloud(page: "Page", server: Program) -> None:
    """A thousand of them would be, as the log is live."""
    page.add_init_script(SOCKETS)
    page.clock.install(time="2024-02-29T23:50:00")
    join(page, server.url)
    come_in(page, f"{page.evaluate('Date.now()')}-0", "late")
    page.clock.run_for(5_000)
    log = page.locator("#log")
    expect(log).to_have_attribute("aria-live", "polite")
    log.evaluate(
        """log => {
            window.live = [];
            new MutationObserver(() => live.push(log.getAttribute('aria-live'))).observe(
                document.getElementById('messages'), { childList: true, subtree: true });
        }"""
    )
    page.clock.run_for("11:00")
    expect(page.locator("time").first).to_contain_text("Feb 29, 2024")
    assert page.evaluate("live") == ["off"]
    page.clock.run_for(5_000)
    expect(log).to_have_attribute("aria-live", "polite")


# What was not sent, and the focus of who works by keyboard


def refuse(page: "Page", reason: str = "not today") -> None:
    """The server refuses the oldest message that waits, and the page connects again."""
    failed = page.locator("#messages .failed")
    count = failed.count()
    page.evaluate(
        "reason => sockets.at(-1).happen(3, new CloseEvent('close', { code: 1008, reason }))",
        reason,
    )
    expect(failed).to_have_count(count + 1)
    expect(page.locator("#status")).to_have_text("connected")


def keys(page: "Page") -> dict[str, str]:
    """Of what the page sent, by its text."""
    sent = [json.loads(text) for text in page.evaluate("sent")]
    return {each["message"]: each["key"] for each in sent if "message" in each}


GIVE_UP = """
    const name = Object.keys(localStorage).find((name) => name.includes('unsent'));
    const record = JSON.parse(localStorage[name]);
    localStorage[name] = JSON.stringify({ ...record, said: record.said - 7_200_000 });
"""


@pytest.fixture
def given_up(ada: "Page") -> "Page":
    """A page with the message "lunch?", which waited for long and may be sent again."""
    type_and_send(ada, "lunch?")
    ada.evaluate(f"() => {{ {GIVE_UP} }}")
    ada.reload()
    expect(ada.locator("#status")).to_have_text("connected")
    expect(ada.locator("#messages .failed .text")).to_have_text(["lunch?"])
    return ada


def test_what_was_not_sent_stays_in_sight_whatever_else_comes(ada: "Page") -> None:
    type_and_send(ada, "refused")
    refuse(ada)
    lines = (f'{{"message": "{n}", "username": "Bob", "id": "18-{n}"}}' for n in range(1_100))
    come_in_raw(ada, *lines)
    type_and_send(ada, "mine")
    expect(pending(ada)).to_have_text(["mine"])
    last = ada.locator("#messages li:nth-last-child(-n + 3) .text")
    expect(last).to_have_text(["1099", "mine", "refused"])
    expect(ada.locator("#messages li")).to_have_count(1_000)
    expect(ada.get_by_role("button", name="Discard: refused")).to_be_in_viewport()
    come_in(ada, "19-1", "mine", key=keys(ada)["mine"])
    expect(pending(ada)).to_have_count(0)
    expect(last).to_have_text(["1099", "mine", "refused"])


def test_long_message_that_was_not_sent_leaves_room_for_others(ada: "Page") -> None:
    type_and_send(ada, "a long story " * 2_000)
    refuse(ada)
    come_in(ada, "17-1", "news")
    expect(ada.get_by_text("news", exact=True)).to_be_in_viewport()
    expect(ada.get_by_role("button", name="Discard")).to_be_in_viewport()


def test_message_that_fails_among_others_leaves_them_in_their_order(ada: "Page") -> None:
    type_and_send(ada, "refused", "one", "two")
    refuse(ada)
    shown = ada.locator("#messages .text")
    expect(shown).to_have_text(["one", "two", "refused"])
    come_in(ada, "17-1", "Bob's")
    expect(shown).to_have_text(["Bob's", "one", "two", "refused"])
    for number, text in enumerate(["one", "two"], 2):
        come_in(ada, f"17-{number}", text, key=keys(ada)[text])
    expect(shown).to_have_text(["Bob's", "one", "two", "refused"])
    come_in(ada, "17-4", "refused", key=keys(ada)["refused"])  # it was innocent, and only late
    expect(ada.locator("#messages .failed")).to_have_count(0)
    expect(ada.locator("#messages button")).to_have_count(0)
    expect(shown).to_have_text(["Bob's", "one", "two", "refused"])


@pytest.mark.parametrize("label", ["Send again", "Discard"])
def test_message_that_was_not_sent_is_sent_again_or_discarded_by_keyboard(
    given_up: "Page", label: str
) -> None:
    button = given_up.get_by_role("button", name=f"{label}: lunch?")
    button.focus()
    given_up.keyboard.press("Enter")
    expect(given_up.locator("#message")).to_be_focused()
    expect(given_up.locator("#messages .failed")).to_have_count(0)
    expect(pending(given_up)).to_have_count(1 if label == "Send again" else 0)
    assert ("lunch?" in keys(given_up)) == (label == "Send again")
    given_up.reload()
    expect(given_up.locator("#status")).to_have_text("connected")
    expect(given_up.locator("#messages li")).to_have_count(1 if label == "Send again" else 0)


@pytest.mark.parametrize("label", ["Edit", "Discard"])
def test_focus_stays_in_the_messages_when_a_late_copy_takes_the_button(
    ada: "Page", label: str
) -> None:
    type_and_send(ada, "late")
    refuse(ada)
    ada.get_by_role("button", name=label).focus()
    come_in(ada, "17-1", "late", key=keys(ada)["late"])
    expect(ada.locator("#messages button")).to_have_count(0)
    expect(ada.locator("#messages")).to_be_focused()


def test_focus_stays_in_the_messages_when_a_late_copy_takes_the_button_that_sends_again(
    given_up: "Page",
) -> None:
    given_up.get_by_role("button", name="Send again").focus()
    record = given_up.evaluate(
        "localStorage[Object.keys(localStorage).find((name) => name.includes('unsent'))]"
    )
    come_in(given_up, "17-1", "lunch?", key=json.loads(record)["key"])
    expect(given_up.locator("#messages button")).to_have_count(0)
    expect(given_up.locator("#messages")).to_be_focused()


def test_focus_goes_to_the_messages_when_the_button_that_leads_there_hides(ada: "Page") -> None:
    for number in range(40):
        come_in(ada, f"17-{number}", f"message {number}")
    messages = ada.locator("#messages")
    expect(messages.locator("li")).to_have_count(40)
    follow = ada.get_by_role("button", name="New messages")
    for way in ("Enter", "scrolling"):
        messages.evaluate("list => { list.scrollTop = 0; }")
        ada.evaluate("new Promise(requestAnimationFrame)")
        come_in(ada, f"18-{way}", way)
        expect(follow).to_be_visible()
        follow.focus()
        if way == "Enter":
            ada.keyboard.press("Enter")
        else:
            messages.evaluate("list => { list.scrollTop = list.scrollHeight; }")
        expect(follow).to_be_hidden()
        expect(messages).to_be_focused()


def test_focus_stays_in_the_page_when_the_server_closes_it(ada: "Page") -> None:
    expect(ada.locator("#message")).to_be_focused()
    ada.evaluate("sockets[0].happen(3, new CloseEvent('close', { code: 1008, reason: 'no' }))")
    expect(ada.locator("#message")).to_be_disabled()
    expect(ada.locator("#messages")).to_be_focused()

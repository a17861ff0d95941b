"""How the page draws a message: in its own place, whatever it is made of, and with its time."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pages import SOCKETS, come_in, expect, join
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

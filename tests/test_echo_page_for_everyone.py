"""The echo page in both languages and themes, on any screen, by keys alone, and by axe-core."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import pytest

from accessibility import violations
from echo_page import answers, ask_to_close, is_connected, line, lines
from firefox import OpenFirefox
from pages import Visit, expect
from programs import Program, echo
from stage import Look, open_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

NOW = datetime.fromisoformat("2026-05-16T09:42:00Z")
LOOKS = [
    Look(1280, 800, "light", "en-GB"),
    Look(1280, 800, "dark", "zh-CN"),
    Look(360, 640, "dark", "en-GB"),
    Look(320, 640, "light", "zh-CN"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with echo() as program:
        yield program


@pytest.fixture(params=LOOKS, ids=lambda look: f"{look.width} {look.theme} {look.language}")
def looked_at(
    request: pytest.FixtureRequest, browser: "Browser", server: Program
) -> Iterator["Page"]:
    with open_page(browser, request.param, NOW) as page:
        page.goto(server.url)
        is_connected(page)
        yield page


def open_panel(page: "Page") -> None:
    if page.locator("#show-panel").is_visible():
        page.click("#show-panel")
    expect(page.locator("#panel")).to_be_visible()


def play(page: "Page") -> None:
    """Have a line of each kind in the log, long and wrong things, and the connection closed."""
    page.fill("#message", "w" * 500)
    page.press("#message", "Enter")
    for button in page.locator("#examples button").all():
        open_panel(page)
        button.click()
    open_panel(page)
    page.click("#ping button")
    expect(answers(page)).to_have_count(9)
    open_panel(page)
    ask_to_close(page, "server", "1011", "r" * 100)
    expect(page.locator("#closed")).to_be_visible()
    for row in page.locator("#lines summary").all():
        row.click()
    page.locator("#lines .show-frames:visible").first.click()
    expect(page.locator("#lines .reads mark").first).to_be_visible()
    page.locator("#kind label:has([value=binary])").click()
    page.fill("#message", "zz")
    page.press("#message", "Enter")
    expect(page.locator("#send-error")).not_to_be_empty()


def is_not_wider_than_the_screen(page: "Page") -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    for part in ("#log", "#panel", "#send"):
        assert page.evaluate(f"document.querySelector('{part}').scrollWidth <= innerWidth")
    assert page.evaluate("log.scrollWidth <= log.clientWidth")


# What there is to operate and is not 24 pixels large
FIND_SMALL_TARGETS = """
    [...document.querySelectorAll('button, select, input, textarea, summary, .segments label')]
        .filter((each) => each.checkVisibility() && !each.matches('.segments input'))
        .map((each) => [each.id || each.className, each.getBoundingClientRect()])
        .filter(([, { width, height }]) => width < 24 || height < 24)
        .map(([name]) => name)
"""


def test_nothing_is_wider_than_the_screen_or_too_small_and_axe_finds_nothing(
    looked_at: "Page",
) -> None:
    is_not_wider_than_the_screen(looked_at)
    assert violations(looked_at) == []
    play(looked_at)
    is_not_wider_than_the_screen(looked_at)
    assert violations(looked_at) == []
    for part in ("#message", "#send-button", "#language", "#reconnect"):
        expect(looked_at.locator(part)).to_be_in_viewport(ratio=1)
    open_panel(looked_at)
    is_not_wider_than_the_screen(looked_at)
    assert looked_at.evaluate(FIND_SMALL_TARGETS) == []
    assert violations(looked_at) == []


# What is to be operated without an edge, so that without its colours nobody sees where it is
FIND_EDGELESS = """
    [...document.querySelectorAll('button, select, input, textarea, .segments, pre')]
        .filter((each) => each.checkVisibility() && !each.matches('.segments input'))
        .filter((each) => parseFloat(getComputedStyle(each).borderTopWidth) < 1)
        .map((each) => each.id || each.className || each.textContent)
"""
LOOKS_OF_SEGMENTS = """
    [...document.querySelectorAll('.segments')].map((segments) =>
        [...segments.children].map((label) => getComputedStyle(label).backgroundColor))
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_in_forced_colours_shows_edges_choices_and_the_focus(
    browser: "Browser", server: Program, theme: Literal["light", "dark"]
) -> None:
    with open_page(browser, Look(theme=theme), NOW) as page:
        page.emulate_media(forced_colors="active")
        page.goto(server.url)
        is_connected(page)
        play(page)
        assert page.evaluate(FIND_EDGELESS) == []
        for chosen, other in page.evaluate(LOOKS_OF_SEGMENTS):
            assert chosen != other
        row = page.locator("#lines .row").last
        row.focus()
        row.hover()
        assert row.evaluate("row => getComputedStyle(row).outlineWidth") == "2px"


def test_field_keeps_its_place_while_what_is_in_it_is_wrong(visit: Visit, server: Program) -> None:
    page = visit(server).page
    page.locator("#kind label:has([value=binary])").click()
    page.fill("#message", "00")
    place = page.locator("#message").bounding_box()
    page.fill("#message", "0")
    expect(page.locator("#size")).to_be_empty()
    assert page.locator("#message").bounding_box() == place


def test_page_comes_in_the_browsers_language_and_has_a_switch_that_it_remembers(
    browser: "Browser", server: Program
) -> None:
    with open_page(browser, Look(language="zh-TW"), NOW) as page:
        page.goto(server.url)
        expect(page.locator("#status")).to_have_text("已连接")
        expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
        page.press("#message", "Enter")
        expect(answers(page)).to_have_count(1)
        assert lines(page)[1] == "↑ 文本 hello, world!你好 19 字节"
        line(page, "received", "text").locator("summary").click()
        expect(page.locator("#lines .body .note").first).to_contain_text("服务器的回答")
        page.select_option("#language", label="English")
        expect(page.locator("#status")).to_have_text("Connected")
        assert lines(page)[1] == "↑ text hello, world!你好 19 bytes"
        expect(page.locator("#lines .body .note").first).to_contain_text("The answer of the server")
        expect(page.locator("h1")).to_have_text("Echo")
        page.reload()
        expect(page.locator("#status")).to_have_text("Connected")
        expect(page.locator("#language")).to_have_value("en")


def test_page_works_where_storage_is_forbidden(visit: Visit, server: Program) -> None:
    ada = visit(server)
    ada.page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })"
    )
    ada.page.reload()
    is_connected(ada.page)
    ada.page.select_option("#language", label="中文")
    expect(ada.page.locator("#status")).to_have_text("已连接")
    ada.page.press("#message", "Enter")
    expect(answers(ada.page)).to_have_count(1)


def test_page_works_in_firefox_and_axe_finds_nothing_there(
    server: Program, open_firefox: OpenFirefox
) -> None:
    ada = open_firefox(server)
    ada.goto()
    ada.wait_for_text("#status", "Connected")
    ada.click("#send-button")
    ada.wait_for_text("#lines", "hello, world!你好")
    ada.click("#ping button")
    ada.wait_for_text("#lines", "/pong")
    ada.click("#lines .sent.text summary")
    ada.click("#lines .show-frames")
    ada.wait_for_text("#lines .reads", "fin = data[at] >= 0x80")
    ada.click("#close button")
    ada.wait_for_text("#status", "Closed: 1000, normal closure")
    assert violations(ada) == []


def tab_to(page: "Page", selector: str) -> None:
    """Press Tab until the focus is there, and see it at each step."""
    for _ in range(60):
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
        page.keyboard.press("Tab")
        outline = """() => {
            const focused = document.activeElement;
            const shown = focused.closest('.segments label') ?? focused;
            return focused === document.body || getComputedStyle(shown).outlineStyle;
        }"""
        assert page.evaluate(outline) in (True, "solid", "auto")
    raise AssertionError(f"{selector} is not reached by Tab")


@pytest.mark.parametrize("width", [360, 1280])
def test_everything_is_done_by_keys_alone(visit: Visit, server: Program, width: int) -> None:
    page = visit(server, width=width).page
    is_connected(page)
    keys = page.keyboard
    # Binary data
    tab_to(page, "#kind input")
    keys.press("ArrowRight")
    tab_to(page, "#message")
    keys.press("Control+a")
    keys.type("00 ff")
    keys.press("Enter")
    expect(answers(page)).to_have_text(["00 ff"])
    # A ping
    if width < 1000:
        tab_to(page, "#show-panel")
        keys.press("Enter")
        expect(page.locator("#close-panel")).to_be_focused()
    tab_to(page, "#ping-payload")
    keys.type("hello")
    keys.press("Enter")
    expect(line(page, "received", "ping")).to_have_count(1)
    if width < 1000:
        expect(page.locator("#panel")).to_be_hidden()
        expect(page.locator("#show-panel")).to_be_focused()
        keys.press("Enter")
        keys.press("Escape")
        expect(page.locator("#panel")).to_be_hidden()
        expect(page.locator("#show-panel")).to_be_focused()
        keys.press("Enter")
    # A close by the server
    tab_to(page, "#close [name=who]")
    keys.press("ArrowRight")
    tab_to(page, "#close-code")
    keys.press("Control+a")
    keys.type("4001")
    keys.press("Enter")
    expect(page.locator("#status")).to_have_text("Closed: 4001, private code")
    # A line is opened, and the connection, too
    tab_to(page, "#lines li.end summary")
    keys.press("Enter")
    expect(line(page, "none", "end").locator(".body")).to_contain_text("The server began.")
    tab_to(page, "#reconnect")
    keys.press("Enter")
    is_connected(page)
    expect(page.locator("#message")).to_be_focused()


def test_panel_that_covers_the_log_goes_when_one_turns_to_it_or_turns_the_screen(
    visit: Visit, server: Program
) -> None:
    page = visit(server, width=600).page
    is_connected(page)
    open_panel(page)
    page.mouse.click(20, 300)  # on the log, beside the panel
    expect(page.locator("#panel")).to_be_hidden()
    open_panel(page)
    expect(page.locator("#close-panel")).to_be_focused()
    page.set_viewport_size({"width": 1280, "height": 640})
    expect(page.locator("#close-panel")).to_be_hidden()
    expect(page.locator("#panel")).to_be_visible()
    expect(page.locator("#log")).to_be_focused()


def test_page_says_in_its_title_and_landmarks_what_it_is(visit: Visit, server: Program) -> None:
    page = visit(server).page
    is_connected(page)
    assert page.title() == "Echo"
    assert re.match("ws://localhost:", page.evaluate("location.href").replace("http", "ws"))
    for role, name in (("log", "Log"), ("complementary", "Things to try")):
        expect(page.get_by_role(role, name=name)).to_be_visible()  # type: ignore[arg-type]

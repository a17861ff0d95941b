"""The panel of all emoji on the chat's page: by keys, by mouse, by touch, and without its files."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pages import FAKE_SOCKETS, Visit, Visitor, expect, join, receive_close, sent_texts
from programs import Program
from stage import Look, open_page
from states import NOW

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

OPTIONS = "#all-emoji [role=option]"
CHOSEN = "#all-emoji [aria-selected=true]"


def open_panel(page: "Page") -> None:
    page.click("#show-emoji")
    expect(page.locator(OPTIONS).first).to_be_visible()


def is_closed(page: "Page", focus: str) -> None:
    expect(page.locator("#emoji-panel")).to_be_hidden()
    expect(page.locator("#show-emoji")).to_have_attribute("aria-expanded", "false")
    expect(page.locator(focus)).to_be_focused()


def test_nothing_of_the_panel_is_loaded_or_made_before_it_is_opened(
    visit: Visit, server: Program
) -> None:
    ada = visit(server)
    asked_for: list[str] = []
    ada.page.on("request", lambda request: asked_for.append(request.url))
    ada.page.reload()
    ada.join()
    assert ada.page.locator("#all-emoji *").count() == 0
    assert not any("emoji_groups" in url for url in asked_for)
    for _ in range(2):
        open_panel(ada.page)
        ada.page.keyboard.press("Escape")
    assert sum("emoji_groups" in url for url in asked_for) == 1


def test_emoji_is_found_and_taken_by_keys_and_goes_to_the_cursor(fake_page: "Page") -> None:
    keys = fake_page.keyboard
    fake_page.focus("#message")
    keys.type("a  b")
    keys.press("ArrowLeft")
    keys.press("ArrowLeft")
    keys.press("Tab")
    expect(fake_page.locator("#show-emoji")).to_be_focused()
    keys.press("Enter")
    expect(fake_page.locator("#all-emoji [role=group]")).to_have_count(9)
    expect(fake_page.locator("#emoji-search")).to_be_focused()
    keys.type("robo")
    expect(fake_page.locator(OPTIONS)).to_have_text(["🤖"])
    expect(fake_page.locator("#emoji-count")).to_have_text("1 emoji")
    expect(fake_page.locator("#emoji-name")).to_have_text("🤖 :robot: :robot_face:")
    keys.press("Enter")
    is_closed(fake_page, "#message")
    expect(fake_page.locator("#message")).to_have_value("a 🤖 b")
    keys.type("!")
    expect(fake_page.locator("#message")).to_have_value("a 🤖! b")
    assert sent_texts(fake_page) == []
    for _ in range(2):
        keys.press("Control+z")  # browsers undo both at once, or one after the other
    expect(fake_page.locator("#message")).to_have_value("a  b")


def test_arrow_keys_go_through_the_panel(fake_page: "Page") -> None:
    open_panel(fake_page)
    keys = fake_page.keyboard
    columns = fake_page.evaluate(
        "getComputedStyle(document.querySelector('#all-emoji .group'))"
        ".gridTemplateColumns.split(' ').length"
    )
    all_emoji = fake_page.locator(OPTIONS).all_text_contents()
    assert len(all_emoji) == len(set(all_emoji)) > 1900
    at = 0
    for key, expected in [
        ("ArrowDown", 0),
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("ArrowLeft", columns),
        ("ArrowLeft", columns - 1),
        ("ArrowUp", columns - 1),
        ("ArrowDown", 2 * columns - 1),
        ("ArrowUp", columns - 1),
    ]:
        keys.press(key)
        at = expected
        expect(fake_page.locator(CHOSEN)).to_have_text(all_emoji[at])
        expect(fake_page.locator(CHOSEN)).to_have_id("chosen-emoji")
    expect(fake_page.locator("#emoji-search")).to_have_attribute(
        "aria-activedescendant", "chosen-emoji"
    )
    # Down through all groups to the last row, and not beyond it
    for _ in range(300):
        keys.press("ArrowDown")
    last = fake_page.locator(CHOSEN)
    expect(last).to_be_in_viewport()
    assert last.text_content() in all_emoji[-columns:]
    # In a text that is searched for, left and right move its cursor
    keys.type("cta")
    keys.press("ArrowLeft")
    keys.press("Backspace")
    expect(fake_page.locator("#emoji-search")).to_have_value("ca")


def test_mouse_takes_an_emoji(fake_page: "Page") -> None:
    open_panel(fake_page)
    robot = fake_page.get_by_role("option", name="robot", exact=True)
    robot.hover()
    expect(fake_page.locator("#emoji-name")).to_have_text("🤖 :robot: :robot_face:")
    robot.click()
    is_closed(fake_page, "#message")
    expect(fake_page.locator("#message")).to_have_value("🤖")


def test_panel_closes_by_escape_by_its_buttons_and_beside_it(fake_page: "Page") -> None:
    ways: list[tuple[Callable[[], None], str]] = [
        (lambda: fake_page.keyboard.press("Escape"), "#show-emoji"),
        (lambda: fake_page.click("#close-emoji"), "#show-emoji"),
        (lambda: fake_page.click("#show-emoji"), "#show-emoji"),
        (lambda: fake_page.click("#message"), "#message"),
        (lambda: fake_page.mouse.click(5, 300), "#messages"),
    ]
    for close, focus in ways:
        open_panel(fake_page)
        close()
        is_closed(fake_page, focus)
    expect(fake_page.locator("#message")).to_have_value("")


def test_panel_closes_and_the_focus_is_kept_when_nothing_can_be_sent_any_more(
    fake_page: "Page",
) -> None:
    open_panel(fake_page)
    receive_close(fake_page, 1008)
    is_closed(fake_page, "#messages")
    expect(fake_page.locator("#show-emoji")).to_be_disabled()


def test_emoji_is_taken_by_touch_and_no_keyboard_comes_before(
    browser: "Browser", server: Program
) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.add_init_script(FAKE_SOCKETS)
    join(page, server.url)
    page.tap("#show-emoji")
    expect(page.locator("#all-emoji [role=group]")).to_have_count(9)
    expect(page.locator("#all-emoji")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sizes = page.locator(f"{OPTIONS}, #emoji-panel button, #show-emoji").evaluate_all(
        "all => all.slice(0, 50).map((each) => each.getBoundingClientRect())"
        ".map(({ width, height }) => Math.min(width, height))"
    )
    assert min(sizes) >= 24
    page.get_by_role("option", name="grin", exact=True).tap()
    expect(page.locator("#message")).to_have_value("😁")
    context.close()


def test_panel_speaks_chinese(browser: "Browser", server: Program) -> None:
    with open_page(browser, Look(language="zh-CN"), NOW) as page:
        page.add_init_script(FAKE_SOCKETS)
        join(page, server.url)
        page.get_by_role("button", name="全部表情").click()
        expect(page.locator("#all-emoji .title").first).to_have_text("表情与情感")


def test_all_emoji_are_in_one_group_where_the_groups_are_missing_or_wrong(
    visit: Visit, server: Program
) -> None:
    for body in ("[]", "no JSON", '{"smileys": ["no emoji"]}', '{"smileys": 7}', "null"):
        ada = visit(server)
        ada.forgive("The page has no groups of emoji")
        answer_with(ada, body)
        ada.join()
        open_panel(ada.page)
        expect(ada.page.locator("#all-emoji .title")).to_have_text(["All"])
        assert ada.page.locator(OPTIONS).count() > 1900


def answer_with(visitor: Visitor, body: str) -> None:
    visitor.page.route("**/emoji_groups.json", lambda route: route.fulfill(body=body))

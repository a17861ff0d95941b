"""The chat's page in English and Chinese, and that no text of it is forgotten."""

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from pages import Visit, Visitor, expect, receive, receive_close, send
from peers import eventually
from programs import Program, chat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


# What the page says to anybody: content, and attributes that are shown or read aloud. What people
# have said and their names are no texts of the page.
VISIBLE_TEXTS = """() => {
    const texts = [document.title];
    const ignored = 'script, style, noscript, .avatar, .text, .name:not([data-text]), #log, option';
    const isIgnored = (element) => element.closest(ignored) || element.closest('#languages');
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode())
        if (!isIgnored(walker.currentNode.parentElement)) texts.push(walker.currentNode.data);
    for (const element of document.querySelectorAll('*'))
        for (const name of ['aria-label', 'placeholder', 'title', 'alt'])
            if (!element.matches('.name')) texts.push(element.getAttribute(name) ?? '');
    return texts.map((text) => text.trim()).filter(Boolean);
}"""
LATIN_WORD = re.compile(r"[A-Za-z]{2,}")
NAMES = {"Gravatar", "Enter", "Shift", "SHA", "IP", "hello"}  # the same in Chinese


def visit_in(visit: Visit, server: Program, *languages: str) -> Visitor:
    """A visitor whose browser prefers these languages, the first of all the most."""
    visitor = visit(server, locale=languages[0])
    visitor.page.add_init_script(
        f"Object.defineProperty(navigator, 'languages', {{ value: {json.dumps(languages)} }})"
    )
    visitor.page.goto(server.url)
    return visitor


@pytest.mark.parametrize(
    ("languages", "title", "lang"),
    [
        (["zh-CN"], "简易聊天室", "zh-Hans"),
        (["zh-TW"], "简易聊天室", "zh-Hans"),
        (["en-GB"], "Simple Chat", "en"),
        (["fr"], "Simple Chat", "en"),
        (["fr", "zh-CN", "en"], "简易聊天室", "zh-Hans"),
        (["fr", "en", "zh-CN"], "Simple Chat", "en"),
    ],
)
def test_page_speaks_the_first_language_of_the_browser_that_it_knows(
    visit: Visit, server: Program, languages: list[str], title: str, lang: str
) -> None:
    page = visit_in(visit, server, *languages).page
    expect(page).to_have_title(title)
    expect(page.locator("h1")).to_have_text(title)
    expect(page.locator("html")).to_have_attribute("lang", lang)


def show_everything(page: "Page") -> None:
    """Bring as many texts as possible on the page, whose sockets are fake."""
    now = int(time.time() * 1000)
    online = {"event": "online", "count": 5, "people": [{"username": "", "avatar": ""}]}
    for event in ({"event": "gap"}, online, {"event": "slowed", "rate": 1}):
        page.evaluate(
            "data => { sockets.at(-1).emit(1, new MessageEvent('message', { data })); }",
            json.dumps(event),
        )
    receive(page, f"{now - 86_400_000}-0", "hello", username="")
    receive(page, f"{now}-0", "hello")
    send(page, "hello")
    receive_close(page, 1008)
    expect(page.locator("body[data-state=open] .failed")).to_have_count(1)  # it has reconnected
    send(page, "hello")
    page.fill("#message", ":robo")
    page.click("#show-settings")


def english_words(page: "Page") -> set[str]:
    found = {word for text in page.evaluate(VISIBLE_TEXTS) for word in LATIN_WORD.findall(text)}
    return found - NAMES


def test_switch_changes_every_text_at_once(fake_page: "Page") -> None:
    show_everything(fake_page)
    english = fake_page.evaluate(VISIBLE_TEXTS)
    assert {"Yesterday", "Not sent: this is not allowed", "Sending…", "Online: 5"} <= {*english}
    fake_page.select_option("#language", "zh-Hans")
    eventually(lambda: english_words(fake_page) == set())
    fake_page.select_option("#language", "en")
    eventually(lambda: fake_page.evaluate(VISIBLE_TEXTS) == english)


def test_language_is_chosen_before_joining_and_kept(visit: Visit, server: Program) -> None:
    ada = visit(server)
    chinese = ada.page.locator("#languages button", has_text="中文")
    expect(chinese).to_have_attribute("aria-pressed", "false")
    ada.page.click("#join-button")  # so that there is an error to translate
    chinese.click()
    expect(chinese).to_have_attribute("aria-pressed", "true")
    expect(ada.page.locator("#error")).to_have_text("请填写邮箱")
    assert english_words(ada.page) == set()
    ada.page.reload()
    expect(ada.page.locator("#join-button")).to_have_text("加入")
    expect(ada.page.locator("#language")).to_have_value("zh-Hans")
    assert english_words(ada.page) == set()


def test_numbers_and_plural_forms_are_those_of_the_language(page: "Page", server: Program) -> None:
    page.goto(server.url)
    said = page.evaluate(
        """() => import('./language.js').then(({ setLanguage, translate }) => {
            const say = (n) => translate('unseen', { n });
            return ['en', 'zh-Hans'].map((language) => {
                setLanguage(language);
                return [0, 1, 1234567].map(say);
            });
        })"""
    )
    assert said == [
        ["0 new messages", "1 new message", "1,234,567 new messages"],
        ["0 条新消息", "1 条新消息", "1,234,567 条新消息"],
    ]


@pytest.mark.parametrize(
    ("locale", "shown"),
    [("en-US", "4:30 PM"), ("en-GB", "16:30"), ("zh-CN", "16:30"), ("fr", "4:30 PM")],
)
def test_times_are_written_as_in_the_region_of_the_browser(
    browser: "Browser", server: Program, locale: str, shown: str
) -> None:
    context = browser.new_context(locale=locale, timezone_id="UTC")
    page = context.new_page()
    page.goto(server.url)
    said = page.evaluate(
        """() => import('./language.js').then(({ formatTime }) =>
            formatTime(new Date(Date.UTC(2026, 4, 16, 16, 30))))"""
    )
    context.close()
    assert " ".join(said.split()) == shown  # the space may be a narrow one


def test_form_says_who_can_see_the_email(visit: Visit, server: Program) -> None:
    note = "#email-note"
    expect(visit(server).page.locator(note)).to_contain_text("Everyone in the chat can see it.")
    with chat("--hide-emails") as hiding:
        guest = visit(hiding)
        guest.forgive("favicon.svg")  # the browser may still be loading it when the server ends
        expect(guest.page.locator(note)).to_contain_text("Nobody in the chat can see it.")
    unknown = visit(server)
    unknown.page.route("**/settings.json", lambda route: route.fulfill(body="not JSON"))
    unknown.forgive("The server does not tell its settings")
    unknown.page.reload()
    expect(unknown.page.locator(note)).to_contain_text("unless this server hides it")

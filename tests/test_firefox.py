"""The chat's page in Firefox: what a user does and sees there, and what the page survives."""

import pytest

from chatting import hear, hear_texts, say
from firefox import NO_STORAGE, Firefox, OpenFirefox
from pages import FAKE_SOCKETS
from peers import eventually
from programs import Program

pytestmark = pytest.mark.browser

HASH = "036e9f8782bf26deb92e3d2f8d26966da67f357fa2f909a0eab71b997e37cbb9"  # of firefox@example.org
TRY_STORAGE = """() => {
    try { return localStorage === null ? 'is null' : 'works'; } catch { return 'throws'; }
}"""
PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="80"/>'


@pytest.mark.parametrize("width", [360, 1280])  # px; of a small phone and of a desktop computer
def test_two_pages_chat_and_nothing_is_wider_than_the_window(
    server: Program, open_firefox: OpenFirefox, width: int
) -> None:
    ada, bob = open_firefox(server, width=width), open_firefox(server, width=width)
    for page, name in ((ada, "Ada"), (bob, "Bob")):
        page.goto()
        assert page.evaluate("innerWidth") == width
        page.join(f"{name}@example.org", name)
    ada.say(f"Good day, Bob, at {width} px")
    bob.wait_for_text("#messages", f"Good day, Bob, at {width} px")
    bob.say(f"你好, Ada 🤖 {width}")
    for page in (ada, bob):
        page.wait_for_text("#messages", f"Good day, Bob, at {width} px")
        page.wait_for_text("#messages", f"你好, Ada 🤖 {width}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_enter_sends_and_shift_enter_is_a_new_line(
    server: Program, open_firefox: OpenFirefox
) -> None:
    ada = open_firefox(server)
    ada.goto()
    ada.join()
    with server.join() as peer:
        ada.click("#message")
        ada.type("two")
        ada.press("Shift+Enter")
        ada.type("lines")
        ada.press("Enter")
        assert hear(peer)["message"] == "two\nlines"


def test_undo_brings_a_short_name_back_that_became_an_emoji(
    server: Program, open_firefox: OpenFirefox
) -> None:
    ada = open_firefox(server)
    ada.goto()
    ada.join()
    ada.click("#message")
    ada.type("a :robo")
    ada.wait_for_text("#emoji-list", ":robot:")
    ada.press("Enter")
    ada.wait_until("message.value === 'a 🤖 '")
    ada.press("Control+z")
    ada.wait_until("message.value === 'a :robo'")


def test_reloaded_page_shows_what_was_said_and_goes_on(
    server: Program, open_firefox: OpenFirefox
) -> None:
    ada = open_firefox(server)
    ada.goto()
    ada.join()
    with server.join() as peer:
        ada.say("before the reload")
        assert hear_texts(peer, 1) == ["before the reload"]
        ada.reload()
        ada.wait_for_text("#messages", "before the reload")
        say(peer, "after the reload")
        ada.wait_for_text("#messages", "after the reload")
        ada.say("as before")
        assert hear_texts(peer, 2) == ["after the reload", "as before"]


def test_chat_that_the_user_goes_back_to_receives_and_sends(
    server: Program, open_firefox: OpenFirefox
) -> None:
    ada = open_firefox(server)
    ada.goto()
    ada.join()
    with server.join() as peer:
        ada.say("before leaving")
        assert hear_texts(peer, 1) == ["before leaving"]
        ada.goto("/favicon.svg")
        say(peer, "while away")
        ada.go_back()
        for text in ("before leaving", "while away"):
            ada.wait_for_text("#messages", text)
        say(peer, "to who came back")
        ada.wait_for_text("#messages", "to who came back")
        ada.say("I am back")
        assert hear_texts(peer, 3) == ["while away", "to who came back", "I am back"]


def test_form_that_firefox_kept_while_the_user_was_elsewhere_still_joins(
    server: Program, open_firefox: OpenFirefox
) -> None:
    ada = open_firefox(server)
    ada.goto()
    ada.fill("#email", "kept@example.org")
    ada.evaluate("window.kept = true")
    ada.goto("/favicon.svg")
    ada.go_back()
    ada.wait_until("window.kept")  # the same document, from the back-forward cache
    assert ada.evaluate("document.getElementById('email').value") == "kept@example.org"
    ada.join()
    with server.join() as peer:
        say(peer, "to who came back")
        ada.wait_for_text("#messages", "to who came back")


def test_chat_that_firefox_kept_without_a_connection_connects_and_sends_what_was_unsent(
    server: Program, open_firefox: OpenFirefox
) -> None:
    """Firefox keeps no page that has a connection."""
    ada = open_firefox(server)
    ada.add_preload_script(f"() => {{ {FAKE_SOCKETS} }}")
    ada.goto()
    ada.join()
    ada.evaluate("void (window.kept = true, accepting = false, sockets.at(-1).lose())")
    ada.wait_until("document.body.dataset.state === 'waiting'")
    ada.say("written while offline")
    ada.goto("/favicon.svg")
    ada.go_back()
    ada.wait_until("window.kept")
    ada.evaluate("accepting = true")
    ada.wait_until("document.body.dataset.state === 'open'")
    assert ada.evaluate("sent.filter((text) => text.includes('written while offline')).length") == 1


@pytest.mark.parametrize("access", NO_STORAGE)
def test_everything_but_remembering_works_without_storage(
    server: Program, open_firefox: OpenFirefox, access: str
) -> None:
    ada = open_firefox(server)
    ada.forbid_storage(access)
    ada.goto()
    assert ada.call(TRY_STORAGE) == access
    ada.join()
    with server.join() as peer:
        ada.say("nothing is stored")
        assert hear_texts(peer, 1) == ["nothing is stored"]
        say(peer, "and nothing lost")
        for text in ("nothing is stored", "and nothing lost"):
            ada.wait_for_text("#messages", text)


def test_page_asks_gravatar_for_hashes_only_and_shows_what_it_answers(
    server: Program, open_firefox: OpenFirefox
) -> None:
    ada = open_firefox(server, picture=PICTURE)
    ada.goto()
    ada.join("firefox@example.org", "Ada")
    ada.say("with a picture")
    ada.wait_until(
        f"[...document.images].some((i) => i.src.includes('{HASH}') && i.naturalWidth === 80)"
    )
    assert any(HASH in url for url in ada.pictures_asked_for)
    assert not any("firefox" in url for url in ada.pictures_asked_for)


def test_page_can_do_without_gravatar(server: Program, open_firefox: OpenFirefox) -> None:
    ada = open_firefox(server, picture=None)
    ada.goto()
    ada.join()
    ada.say("without a picture")
    ada.wait_for_text("#messages", "without a picture")
    assert eventually(lambda: ada.pictures_asked_for)
    ada.wait_until("[...document.images].every((image) => image.naturalWidth)")


def test_page_is_drawn_in_the_dark_and_in_chinese_where_the_browser_is(
    server: Program, open_firefox: OpenFirefox
) -> None:
    ada = open_firefox(server)
    ada.goto()
    light = ada.screenshot()
    ada.set_dark()
    ada.set_language("zh-CN")
    ada.goto()
    assert ada.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert ada.evaluate("navigator.language") == "zh-CN"
    assert ada.screenshot() != light


MISDEEDS = {
    "console.error('too bad')": "error: too bad",
    "console.warn('take care')": "warn: take care",
    "setTimeout(() => { throw new Error('thrown'); })": "error: Error: thrown",
    "Promise.reject(new Error('rejected'))": "error: Error: rejected",
    "fetch('https://example.org/').catch(() => 0)": "connect-src https://example.org/",
    "document.body.append(Object.assign(new Image(), { src: '/none' }))": "broken picture",
    "setTimeout(() => alert('look'))": "a dialog: look",
}


def test_harness_notices_what_a_page_should_not_do(
    server: Program, firefox_browser: Firefox
) -> None:
    page = firefox_browser.open(server.url)
    try:
        page.goto()
        for script in MISDEEDS:
            page.call(f"() => {{ {script}; }}")
        # Firefox does first what was to be done first.
        page.call("() => new Promise((resolve) => setTimeout(resolve))")
    finally:
        complaints = page.leave()
    for complaint in MISDEEDS.values():
        assert any(complaint in each for each in complaints), complaints

"""Both pages in Chromium, for tests: the browser, visitors, what they do and see, fake sockets.

Gravatar is never asked: the browser answers in its place, as each test says.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from either_browser import EitherPage
from finding import find_chromium, require
from peers import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import (
        Browser,
        ConsoleMessage,
        Locator,
        Page,
        Playwright,
        Request,
        Route,
    )

GRAVATAR = "https://www.gravatar.com/"
COLLECT_VIOLATIONS = """
    window.violations = [];
    addEventListener('securitypolicyviolation', (event) =>
        violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""

# The addresses of the pictures that could not be shown
BROKEN_PICTURES = """
    [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src)
"""

# Replaces the page's WebSocket by sockets that have no network and do what the test tells them.
# `accepting`: a new socket opens at once if true, fails at once if false, and does neither if null.
# `attempts` are the times at which sockets were made, in seconds; `sent` is what the page sent on
# any of them. A socket answers pings, unless the test sets its `deaf`.
FAKE_SOCKETS = """
    window.accepting = true;
    window.attempts = [];
    window.sockets = [];
    window.sent = [];
    window.WebSocket = class extends EventTarget {
        static CONNECTING = 0;
        static OPEN = 1;
        static CLOSING = 2;
        static CLOSED = 3;
        readyState = 0;
        bufferedAmount = 0;
        constructor(url) {
            super();
            this.url = url;
            attempts.push(performance.now() / 1000);
            sockets.push(this);
            const open = () => this.emit(1, new Event('open'));
            if (accepting !== null) Promise.resolve().then(accepting ? open : () => this.lose());
        }
        lose() {
            this.emit(3, new CloseEvent('close', { code: 1006 }));
        }
        emit(readyState, event) {
            this.readyState = readyState;
            this['on' + event.type]?.(event);
            this.dispatchEvent(event);
        }
        send(text) {
            sent.push(text);
            if (text !== '{"event":"ping"}' || this.deaf) return;
            const data = '{"event":"pong"}';
            Promise.resolve().then(() => this.emit(1, new MessageEvent('message', { data })));
        }
        close() {}
    };
"""

# The sockets are real; the page keeps them in `sockets`, so that a test can count and reach them.
RECORD_SOCKETS = """
    window.sockets = [];
    window.messagesReceived = 0;
    window.WebSocket = class extends WebSocket {
        constructor(url) {
            super(url);
            sockets.push(this);
            this.addEventListener('message', () => { messagesReceived += 1; });
        }
    };
"""

# The page believes what the test says by `look`: whether its user looks at it, as at first.
FAKE_LOOK = """
    window.looks = true;
    document.hasFocus = () => looks;
    window.look = (isLooking) => {
        looks = isLooking;
        dispatchEvent(new Event(isLooking ? 'focus' : 'blur'));
    };
"""

# The first two make a hidden page for each window, with the suggestions of its address bar. To load
# it takes more of the processor than to load ours. Chromium obeys only the last list that it is
# given, which is this and not Playwright's, so the rest repeats what matters of that: ask nothing
# of the network, do not try https first, and do not show the page before while the next one loads.
DISABLED_FEATURES = (
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "AimEnabled",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PreconnectToSearch",
    "MediaRouter",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "PaintHolding",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "ThirdPartyStoragePartitioning",
)

CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",  # it may have no network
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={','.join(DISABLED_FEATURES)}",
)


@contextlib.contextmanager
def chromium(*options: str) -> Iterator["Browser"]:
    """The system's Chromium for a program that is no test, as `launch_chromium` starts it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, launch_chromium(playwright, *options) as browser:
        yield browser


@contextlib.contextmanager
def launch_chromium(
    playwright: "Playwright", *options: str, without: Sequence[str] = ()
) -> Iterator["Browser"]:
    """The system's Chromium, driven by Playwright, with these options beside the usual ones.

    `without` are those that Playwright would give it, and that it does not get.

    Skips the test where there is none.
    """
    path = require(find_chromium(), "Chromium", "apt install chromium")
    browser = playwright.chromium.launch(
        executable_path=path,
        headless=True,
        args=[*CHROMIUM_OPTIONS, *options],
        ignore_default_args=without,
        timeout=3 * PATIENCE * 1000,  # ms
    )
    try:
        yield browser
    finally:
        browser.close()


class Visitor:
    """A person with a browser profile of their own.

    Whatever the page should not do is collected: it asks for something from another site, violates
    its security policy, writes an error or a warning to the console, opens a dialog.
    """

    def __init__(
        self,
        browser: "Browser",
        url: str,
        path: str,
        width: int,
        picture: bytes | None,
        **device: Any,
    ) -> None:
        """`device` as Playwright's `new_context` takes it."""
        self.url = url
        self.picture = picture
        self.pictures_asked_for: list[str] = []
        self.complaints: list[str] = []
        self.forgiven: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": 640}, **device)
        self.context.set_default_timeout(PATIENCE * 1000)  # ms
        self.context.route(f"{GRAVATAR}**", self._answer_for_gravatar)
        self.context.add_init_script(COLLECT_VIOLATIONS)
        self.page = self.context.new_page()
        self.page.on("request", self._check_request)
        self.page.on("console", self._check_console_message)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("dialog", self._complain_of_dialog)
        self.page.goto(url + path)

    def _answer_for_gravatar(self, route: "Route") -> None:
        self.pictures_asked_for.append(route.request.url)
        if self.picture is None:
            route.abort()
        else:
            route.fulfill(body=self.picture, content_type="image/svg+xml")

    def _check_request(self, request: "Request") -> None:
        if not request.url.startswith((self.url, GRAVATAR)):
            self.complaints.append(f"asked for {request.url}")

    def _check_console_message(self, message: "ConsoleMessage") -> None:
        url = message.location.get("url", "")
        if message.type in ("error", "warning") and not url.startswith(GRAVATAR):
            self.complaints.append(f"{message.type} at {url}: {message.text}")

    def _complain_of_dialog(self, dialog: Any) -> None:
        self.complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def forgive(self, words: str) -> None:
        """Expect complaints that contain these words."""
        self.forgiven.append(words)

    def leave(self) -> list[str]:
        """Close the browser profile. Returns all complaints, and the pictures that are broken."""
        violations = self.page.evaluate("window.violations ?? []")
        broken = self.page.evaluate(BROKEN_PICTURES)
        self.context.close()
        complaints = [
            complaint
            for complaint in self.complaints
            if not any(words in complaint for words in self.forgiven)
        ]
        return [*complaints, *violations, *(f"broken picture {each}" for each in broken)]

    def join(self, email: str = "ada@example.org", username: str = "Ada") -> None:
        join_as(self.page, email, username)

    def say(self, text: str) -> None:
        send(self.page, text)

    @property
    def messages(self) -> "Locator":
        """The messages that are not on their way any more."""
        return self.page.locator("#messages li.message:not(.pending)")

    @property
    def texts(self) -> "Locator":
        return self.messages.locator(".text")

    def sees(self, *texts: str) -> None:
        """Check that these messages are shown, in this order, and no others."""
        expect(self.texts).to_have_text(list(texts))

    def scroll_position(self) -> dict[str, float]:
        """How far the list is from its top and from its end, as `top` and `left`; in px."""
        answer = self.page.evaluate(
            """() => {
                const list = document.getElementById('messages');
                const left = list.scrollHeight - list.clientHeight - list.scrollTop;
                return { top: list.scrollTop, left };
            }"""
        )
        assert isinstance(answer, dict)
        return answer


Visit = Callable[..., Visitor]


def expect(shown: "Locator | Page") -> Any:
    """Playwright's `expect`, with a timeout for busy machines."""
    from playwright.sync_api import expect as playwright_expect

    playwright_expect.set_options(timeout=2 * PATIENCE * 1000)  # ms
    return playwright_expect(shown)


# For tests that need no visitor's checks: what a user does and sees on a page


def join(page: "Page", url: str = "") -> None:
    """Join as Ada at this address, or on the page as it is, and wait for the connection."""
    if url:
        page.goto(url)
    join_as(page, "ada@example.org", "Ada")


def join_as(page: "Page", email: str, username: str) -> None:
    """Fill in the form of the page as it is, join, and wait for the connection."""
    page.fill("#email", email)
    page.fill("#username", username)
    page.click("#join-button")
    expect(page.locator("body[data-state=open]")).to_have_count(1)  # in any language


def send(page: EitherPage, *texts: str) -> None:
    """Type each text and press Enter."""
    for text in texts:
        page.fill("#message", text)
        page.press("#message", "Enter")


def pending(page: "Page") -> "Locator":
    """The texts of the messages that are on their way."""
    return page.locator("#messages li.message.pending .text")


def sees(page: "Page", *texts: str) -> None:
    """Check that these messages are shown, in this order, no others, and none is on its way."""
    expect(page.locator("#messages li.message .text")).to_have_text(list(texts))
    expect(page.locator("#messages li.message.pending")).to_have_count(0)


def wait_for_history(page: "Page") -> None:
    """Wait until what comes counts as new. Before that it was said before the user was here."""
    expect(page.locator("#messages[aria-busy]")).to_have_count(0)


def hide_settings(page: "Page") -> None:
    """Keep from the page, before it is opened, how large a message of this server may be."""
    page.route("**/settings.json", lambda route: route.fulfill(body="{}"))


# For pages with FAKE_SOCKETS: what the server sends


def receive(page: EitherPage, message_id: str, text: str, **changes: Any) -> None:
    """Let the page receive a message from Bob, with some fields changed."""
    fields = {"email": "", "username": "Bob", "message": text, "id": message_id, "avatar": ""}
    receive_texts(page, json.dumps(fields | changes))


def receive_texts(page: EitherPage, *texts: str) -> None:
    """Let the page receive any texts, all of them before it draws the next frame."""
    page.evaluate(
        """texts => {
            for (const data of texts)
                sockets.at(-1).emit(1, new MessageEvent('message', { data }));
        }""",
        texts,
    )


def sent_messages(page: "Page") -> list[dict[str, Any]]:
    """The chat messages that the page has sent, without its events."""
    records = [json.loads(text) for text in page.evaluate("sent")]
    return [record for record in records if "message" in record]


def sent_texts(page: "Page") -> list[str]:
    return [record["message"] for record in sent_messages(page)]


def receive_close(page: EitherPage, code: int, reason: str = "") -> None:
    """Let the page's newest socket be closed by the server."""
    page.evaluate(
        "close => { sockets.at(-1).emit(3, new CloseEvent('close', close)); }",
        {"code": code, "reason": reason},
    )


# For pages whose time the test controls


def stop_clock(page: "Page") -> None:
    """Let the page's time stand still. The test has called `page.clock.install` before."""
    page.clock.pause_at(page.evaluate("Date.now() + 1") / 1000 + 1)


def pass_time(page: "Page", seconds: float) -> None:
    page.clock.run_for(round(seconds * 1000))


# What the page keeps on the device of messages that the server has not acknowledged


def stored_messages(page: "Page") -> list[dict[str, Any]]:
    """The records, the oldest message first."""
    texts = page.evaluate(
        """() => Object.keys(localStorage)
            .filter((name) => name.includes('unsent'))
            .map((name) => localStorage[name])"""
    )
    return sorted(map(json.loads, texts), key=lambda record: float(record["said"]))


def make_stored_message_older(page: "Page", age: int) -> None:
    """Change the only record as if its message had been written earlier, by `age` in ms."""
    page.evaluate(
        """age => {
            const name = Object.keys(localStorage).find((name) => name.includes('unsent'));
            const record = JSON.parse(localStorage[name]);
            localStorage[name] = JSON.stringify({ ...record, said: record.said - age });
        }""",
        age,
    )

"""The pages in Chromium, for tests: their visitors, and sockets that a test may break.

Gravatar is never asked: each visitor's browser is told how it answers.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peers import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Route

GRAVATAR = "https://www.gravatar.com/"
COLLECT_VIOLATIONS = """
    window.violations = [];
    addEventListener('securitypolicyviolation', (event) =>
        violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""

# Sockets that open, or fail, at once, as `accepting` says; where that is null, they do neither.
# `attempts` are when they were made, and `sent` is what the page sent on any of them.
SOCKETS = """
    window.accepting = true;
    window.attempts = [];
    window.sockets = [];
    window.sent = [];
    window.WebSocket = class extends EventTarget {
        static CONNECTING = 0; static OPEN = 1; static CLOSING = 2; static CLOSED = 3;
        readyState = 0;
        bufferedAmount = 0;
        constructor(url) {
            super();
            this.url = url;
            attempts.push(performance.now() / 1000);
            sockets.push(this);
            const open = () => this.happen(1, new Event('open'));
            if (accepting !== null) Promise.resolve().then(accepting ? open : () => this.lose());
        }
        lose() { this.happen(3, new CloseEvent('close', { code: 1006 })); }
        happen(state, event) {
            this.readyState = state;
            this['on' + event.type]?.(event);
            this.dispatchEvent(event);
        }
        send(text) {
            sent.push(text);
            if (text !== '{"event":"ping"}' || this.deaf) return;
            const data = '{"event":"pong"}';
            Promise.resolve().then(() => this.happen(1, new MessageEvent('message', { data })));
        }
        close() {}
    };
"""


class Visitor:
    """A person at a browser of her own."""

    def __init__(
        self, browser: "Browser", url: str, path: str, width: int, picture: bytes | None
    ) -> None:
        self.url = url
        self.picture = picture
        self.pictures_asked_for: list[str] = []
        self.complaints: list[str] = []
        self.forgiven: str | None = None
        self.context = browser.new_context(viewport={"width": width, "height": 640})
        self.context.set_default_timeout(PATIENCE * 1000)  # ms
        self.context.route(f"{GRAVATAR}**", self._answer_for_gravatar)
        self.context.add_init_script(COLLECT_VIOLATIONS)
        self.page = self.context.new_page()
        self.page.on("request", self._look_at_request)
        self.page.on("console", self._look_at_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("dialog", self._look_at_dialog)
        self.page.goto(url + path)

    def _answer_for_gravatar(self, route: "Route") -> None:
        self.pictures_asked_for.append(route.request.url)
        if self.picture is None:
            route.abort()
        else:
            route.fulfill(body=self.picture, content_type="image/svg+xml")

    def _look_at_request(self, request: "Request") -> None:
        if not request.url.startswith((self.url, GRAVATAR)):
            self.complaints.append(f"asked for {request.url}")

    def _look_at_console(self, message: "ConsoleMessage") -> None:
        url = message.location.get("url", "")
        if message.type in ("error", "warning") and not url.startswith(GRAVATAR):
            self.complaints.append(f"{message.type} at {url}: {message.text}")

    def _look_at_dialog(self, dialog: Any) -> None:
        self.complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def forgive(self, words: str) -> None:
        self.forgiven = words

    def leave(self) -> list[str]:
        """What there was to complain of."""
        violations = self.page.evaluate("window.violations ?? []")
        broken = self.page.evaluate(
            "[...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src)"
        )
        self.context.close()
        complaints = [
            complaint
            for complaint in self.complaints
            if self.forgiven is None or self.forgiven not in complaint
        ]
        return [*complaints, *violations, *(f"broken picture {each}" for each in broken)]

    def join(self, email: str = "ada@example.org", username: str = "Ada") -> None:
        self.page.fill("#email", email)
        self.page.fill("#username", username)
        self.page.click("#join-button")
        expect(self.page.locator("#status")).to_have_text("connected")

    def say(self, text: str) -> None:
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    @property
    def messages(self) -> "Locator":
        """Those that the server has numbered."""
        return self.page.locator("#messages li.message:not(.pending)")

    @property
    def texts(self) -> "Locator":
        return self.messages.locator(".text")

    def sees(self, *texts: str) -> None:
        expect(self.texts).to_have_text(list(texts))

    def scrolled(self) -> dict[str, float]:
        """How far the list is scrolled, and how far from its end that is; in px."""
        answer = self.page.evaluate(
            """() => {
                const list = document.getElementById('messages');
                const left = list.scrollHeight - list.clientHeight - list.scrollTop;
                return { top: list.scrollTop, left };
            }"""
        )
        assert isinstance(answer, dict)
        return answer


def expect(locator: "Locator") -> Any:
    from playwright.sync_api import expect as playwright_expect

    playwright_expect.set_options(timeout=2 * PATIENCE * 1000)  # ms
    return playwright_expect(locator)


Visit = Callable[..., Visitor]


# A page, for tests that look at nothing but what they test


def join(page: "Page", url: str = "") -> None:
    """Join at this address, or on the page as it is."""
    if url:
        page.goto(url)
    page.fill("#email", "ada@example.org")
    page.fill("#username", "Ada")
    page.click("#join-button")
    expect(page.locator("#status")).to_have_text("connected")


def type_and_send(page: "Page", *texts: str) -> None:
    for text in texts:
        page.fill("#message", text)
        page.press("#message", "Enter")


def pending(page: "Page") -> "Locator":
    return page.locator("#messages li.message.pending .text")


def sees(page: "Page", *texts: str) -> None:
    """These, in this order, and nothing else, each of them numbered by the server."""
    expect(page.locator("#messages li.message .text")).to_have_text(list(texts))
    expect(page.locator("#messages li.message.pending")).to_have_count(0)


def come_in(page: "Page", message_id: str, text: str, **changes: Any) -> None:
    """A message from the server, where the page has the SOCKETS of a test."""
    fields = {"email": "", "username": "Bob", "message": text, "id": message_id, "avatar": ""}
    come_in_raw(page, json.dumps(fields | changes))


def come_in_raw(page: "Page", *frames: str) -> None:
    """Whatever a server may send, all of it between two frames of the page."""
    page.evaluate(
        """frames => {
            for (const data of frames)
                sockets.at(-1).happen(1, new MessageEvent('message', { data }));
        }""",
        frames,
    )

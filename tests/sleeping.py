"""Pages in Chromium that can sleep and be kept, as tabs can whose user is elsewhere.

Playwright makes each of its pages believe that somebody looks at it, and no such page is ever
frozen. So these are beside Playwright: they are told what to do in the Chrome DevTools Protocol,
https://chromedevtools.github.io/devtools-protocol/, through its connection.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peers import PATIENCE, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TEXTS = "[...document.querySelectorAll('#messages .text')].map((text) => text.textContent)"


class CommandFailed(Exception):
    """The browser refused a command, or a script in the page threw an exception."""


class Tab:
    """A tab in a browser's profile of its own. It asks Gravatar for nothing."""

    def __init__(self, browser: "Browser") -> None:
        self._session = browser.new_browser_cdp_session()
        self._answers: dict[int, dict[str, Any]] = {}  # by the number of their command
        self._last_number = 0
        self._session.on("Target.receivedMessageFromTarget", self._receive)
        send = self._session.send
        self._profile = send("Target.createBrowserContext")["browserContextId"]
        where = {"url": "about:blank", "browserContextId": self._profile}
        self._target = send("Target.createTarget", where)["targetId"]
        how = {"targetId": self._target, "flatten": False}
        self._id = send("Target.attachToTarget", how)["sessionId"]
        self._call("Page.enable")
        self._call("Network.enable")
        self._call("Network.setBlockedURLs", urls=["https://*"])

    def _receive(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            self._answers[message["id"]] = message

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the tab, and wait for its result."""
        self._last_number += 1
        number = self._last_number
        command = {"id": number, "method": method, "params": parameters}
        envelope = {"sessionId": self._id, "message": json.dumps(command)}
        self._session.send("Target.sendMessageToTarget", envelope)
        eventually(lambda: self._has_answer(number), 2 * PATIENCE)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise CommandFailed(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _has_answer(self, number: int) -> bool:
        self._session.send("Browser.getVersion")  # Playwright passes events on while it waits
        return number in self._answers

    def close(self) -> None:
        self._session.send("Target.disposeBrowserContext", {"browserContextId": self._profile})
        self._session.detach()

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        how = {"returnByValue": True, "awaitPromise": True}
        answer = self._call("Runtime.evaluate", expression=expression, **how)
        if "exceptionDetails" in answer:
            raise CommandFailed(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        self._wait(lambda: self.evaluate(f"Boolean({condition})"), condition)

    def _wait(self, check: Callable[[], Any], what: str) -> None:
        try:
            eventually(check, 2 * PATIENCE)
        except AssertionError as error:
            error.add_note(f"waited for {what}\nthe page says: {self._text}")
            raise

    @property
    def _text(self) -> str:
        return str(self.evaluate("document.body.innerText"))

    # What its user does

    def goto(self, url: str) -> None:
        """Go to an address, and wait until what is there has loaded."""
        self._call("Page.navigate", url=url)
        self._wait_for_page(url)

    def go_back(self, url: str) -> None:
        """Go back to the page before, which has this address."""
        self.evaluate("void history.back()")
        self._wait_for_page(url)

    def _wait_for_page(self, url: str) -> None:
        self.wait_until(
            f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})"
        )

    def join(self, url: str, username: str) -> None:
        """Open the chat's page, and join."""
        self.goto(url)
        self.wait_until("document.querySelector('#languages button')")
        self.evaluate(f"email.value = {json.dumps(username + '@example.org')}")
        self.evaluate(f"username.value = {json.dumps(username)}")
        self.evaluate("document.getElementById('join-button').click()")
        self.wait_until("document.body.dataset.state === 'open'")

    def write(self, text: str) -> None:
        """Replace what the field holds."""
        self.evaluate(f"message.value = {json.dumps(text)}")
        self.evaluate("void message.dispatchEvent(new Event('input'))")

    def say(self, text: str) -> None:
        self.write(text)
        self.evaluate("document.getElementById('send-button').click()")

    def sees(self, *texts: str) -> None:
        """Wait until these messages are shown, in this order, no others, and all are sent."""
        expected = json.dumps(json.dumps(texts, ensure_ascii=False, separators=(",", ":")))
        nothing_pending = "!document.querySelector('#messages .pending')"
        self.wait_until(f"JSON.stringify({TEXTS}) === {expected} && {nothing_pending}")

    # What its browser does

    def freeze(self) -> None:
        """Let no script of the page run, as a browser does that saves power, until `wake`."""
        self.evaluate("void document.addEventListener('freeze', () => { wasFrozen = true; })")
        self._call("Page.setWebLifecycleState", state="frozen")

    def wake(self) -> None:
        """Show the tab to its user again."""
        self._call("Page.setWebLifecycleState", state="active")
        self._session.send("Target.activateTarget", {"targetId": self._target})
        assert self.evaluate("window.wasFrozen")

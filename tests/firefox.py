"""The chat's page in Firefox, for tests: the browser, and pages in it.

Firefox is driven by WebDriver BiDi, which it speaks itself: no other program stands between. It can
reach this machine only, because all else goes to a proxy that does not exist.
"""

import base64
import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from bidi import BiDi, BiDiError, session
from finding import find_firefox, require
from pages import BROKEN_PICTURES, COLLECT_VIOLATIONS, GRAVATAR
from peers import PATIENCE, eventually
from programs import kill, read_output

Preference: TypeAlias = bool | int | str

GRAVATAR_PATTERN = {"type": "pattern", "protocol": "https", "hostname": "www.gravatar.com"}

PREFERENCES: dict[str, Preference] = {
    "network.proxy.type": 1,  # the proxies below; Firefox asks none for loopback
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
}
OPTIONS = (
    "--headless",
    "--no-remote",
    "--remote-debugging-port=0",
    "--remote-allow-system-access",  # for `set_preference`
)
EVENTS = ("log.entryAdded", "network.beforeRequestSent", "browsingContext.userPromptOpened")

# By what happens when a site uses its storage: it throws an exception, or there is none.
NO_STORAGE: dict[str, tuple[str, Preference]] = {
    "throws": ("network.cookie.cookieBehavior", 2),
    "is null": ("dom.storage.enabled", False),
}

# The characters by which WebDriver names the keys that type nothing.
KEYS = {
    "Alt": "\ue00a",
    "ArrowDown": "\ue015",
    "ArrowLeft": "\ue012",
    "ArrowRight": "\ue014",
    "ArrowUp": "\ue013",
    "Backspace": "\ue003",
    "Control": "\ue009",
    "Delete": "\ue017",
    "End": "\ue010",
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Home": "\ue011",
    "PageDown": "\ue00f",
    "PageUp": "\ue00e",
    "Shift": "\ue008",
    "Space": " ",
    "Tab": "\ue004",
}

SET_PREFERENCE = """(name, value) => {
    if (value === null) Services.prefs.clearUserPref(name);
    else if (typeof value === 'boolean') Services.prefs.setBoolPref(name, value);
    else if (typeof value === 'number') Services.prefs.setIntPref(name, value);
    else Services.prefs.setStringPref(name, value);
}"""


class Process:
    """A Firefox without a window, and its folders. Skips the test where there is no Firefox."""

    def __init__(self) -> None:
        path = require(find_firefox(), "Firefox", "apt install firefox-esr")
        # Firefox may still write to its folders while these are deleted.
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = tempfile.TemporaryFile()
        profile = Path(self._home.name, "profile")
        profile.mkdir()
        (profile / "user.js").write_text(
            "".join(
                f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                for name, value in PREFERENCES.items()
            )
        )
        self._process = subprocess.Popen(
            [path, *OPTIONS, "--profile", str(profile)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | {"HOME": self._home.name},
        )

    def find_url(self) -> str | None:
        """Where it listens, if it does."""
        found = re.search(r"WebDriver BiDi listening on (ws://\S+)\n", self.output)
        assert found or self._process.poll() is None, "Firefox ended before it listened"
        return found[1] if found else None

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return read_output(self._log)

    def wait(self) -> None:
        self._process.wait(PATIENCE)

    def discard(self) -> None:
        """End it, whatever it does."""
        kill(self._process)
        self._log.close()
        self._home.cleanup()


class Firefox:
    """A session with a running Firefox; what its pages have in common."""

    def __init__(self, bidi: BiDi) -> None:
        self.bidi = bidi
        bidi.call("session.subscribe", events=EVENTS)
        tree = bidi.call("browsingContext.getTree", **{"moz:scope": "chrome"})
        self._window: str = tree["contexts"][0]["context"]  # of Firefox itself, not of a site

    def open(
        self, url: str, width: int = 1280, height: int = 640, picture: bytes | None = None
    ) -> "FirefoxPage":
        """An empty page with a profile of its own, for a site; `picture` is Gravatar's answer."""
        return FirefoxPage(self, url, width, height, picture)

    def set_preference(self, name: str, value: Preference | None) -> None:
        """Set what `about:config` shows, for all pages; None sets it back."""
        self.call(self._window, SET_PREFERENCE, name, value)

    def call(self, context: str, function: str, *arguments: Any) -> Any:
        """Call a JavaScript function in a browsing context, and wait for what it returns.

        The arguments and the answer are what JSON can say. Raises BiDiError for an exception.
        """
        answer = self.bidi.call(
            "script.callFunction",
            functionDeclaration="async (texts) =>"
            f" JSON.stringify(await ({function})(...JSON.parse(texts)))",
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            target={"context": context},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise BiDiError(answer["exceptionDetails"]["text"])
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)


@contextlib.contextmanager
def firefox() -> Iterator[Firefox]:
    """Run Firefox until the end of the `with` statement."""
    process = Process()
    try:
        url = eventually(process.find_url, 3 * PATIENCE)
        with session(url) as bidi:
            yield Firefox(bidi)
            bidi.call("browser.close")
        process.wait()
    except BaseException as error:
        error.add_note(f"the output of Firefox:\n{process.output}")
        raise
    finally:
        process.discard()


class FirefoxPage:
    """A person's page, with a browser profile of its own.

    Whatever the page should not do is collected in `complaints`: it asks for something from another
    site, violates its security policy, writes an error or a warning to the console, opens a dialog.

    All that waits fails after PATIENCE. A selector is one of CSS, and stands for the first element
    that it matches.
    """

    def __init__(
        self, firefox: Firefox, url: str, width: int, height: int, picture: bytes | None
    ) -> None:
        self.firefox = firefox
        self.url = url
        self.picture = picture
        self.complaints: list[str] = []
        self.forgiven: list[str] = []
        self._bidi = firefox.bidi
        self._pictures_asked_for: list[str] = []
        self._preferences: list[str] = []  # those that are set back in the end
        self._profile = self._bidi.call("browser.createUserContext")["userContext"]
        self.context: str = self._bidi.call(
            "browsingContext.create", type="tab", userContext=self._profile
        )["context"]
        self._bidi.listeners.append(self._handle)
        self._intercept: str = self._bidi.call(
            "network.addIntercept",
            phases=["beforeRequestSent"],
            contexts=[self.context],
            urlPatterns=[GRAVATAR_PATTERN],
        )["intercept"]
        self.add_preload_script(f"() => {{ {COLLECT_VIOLATIONS} }}")
        self.set_viewport(width, height)

    # What the browser tells

    def _handle(self, event: str, parameters: dict[str, Any]) -> None:
        # An event of a worker names no context: it may be of any page.
        context = parameters.get("source", parameters).get("context")
        if context not in (None, self.context):
            return
        if event == "log.entryAdded" and parameters["level"] in ("error", "warn"):
            self.complaints.append(f"{parameters['level']}: {parameters['text']}")
        elif event == "network.beforeRequestSent":
            self._check_request(parameters)
        elif event == "browsingContext.userPromptOpened":
            self.complaints.append(f"a dialog: {parameters['message']}")

    def _check_request(self, parameters: dict[str, Any]) -> None:
        url = parameters["request"]["url"]
        if url.startswith(GRAVATAR):
            self._pictures_asked_for.append(url)
        elif not url.startswith((self.url, self.url.replace("http", "ws", 1), "data:", "about:")):
            self.complaints.append(f"asked for {url}")
        if self._intercept in parameters.get("intercepts", []):
            self._answer_for_gravatar(parameters["request"]["request"])

    def _answer_for_gravatar(self, request: str) -> None:
        if self.picture is None:
            self._bidi.post("network.failRequest", request=request)
            return
        content_type = {"type": "string", "value": "image/svg+xml"}
        self._bidi.post(
            "network.provideResponse",
            request=request,
            statusCode=200,
            reasonPhrase="OK",
            headers=[{"name": "Content-Type", "value": content_type}],
            body={"type": "base64", "value": base64.b64encode(self.picture).decode()},
        )

    @property
    def pictures_asked_for(self) -> list[str]:
        """The addresses at Gravatar that the page has asked for so far."""
        self._bidi.handle_events()
        return self._pictures_asked_for

    def forgive(self, words: str) -> None:
        """Expect complaints that contain these words."""
        self.forgiven.append(words)

    def leave(self) -> list[str]:
        """Close the page and forget its profile. Returns all complaints and the broken pictures."""
        try:
            violations = self.evaluate("window.violations ?? []")
            broken = self.evaluate(BROKEN_PICTURES)
        finally:
            self._bidi.listeners.remove(self._handle)
            self._bidi.call("network.removeIntercept", intercept=self._intercept)
            self._bidi.call("browser.removeUserContext", userContext=self._profile)
            for name in self._preferences:
                self.firefox.set_preference(name, None)
        complaints = [
            complaint
            for complaint in self.complaints
            if not any(words in complaint for words in self.forgiven)
        ]
        return [*complaints, *violations, *(f"broken picture {each}" for each in broken)]

    # How the person has set the browser up

    def set_preference(self, name: str, value: Preference) -> None:
        """Set what `about:config` shows, until this page leaves; all pages have it meanwhile."""
        self.firefox.set_preference(name, value)
        self._preferences.append(name)

    def set_dark(self, dark: bool = True) -> None:
        """Let the system have a dark theme or a light one, for all pages."""
        self.set_preference("layout.css.prefers-color-scheme.content-override", 0 if dark else 1)

    def set_language(self, language: str) -> None:
        """Such as `zh-CN`: what `navigator.language` and `Intl` say from the next page on."""
        self._bidi.call("emulation.setLocaleOverride", locale=language, contexts=[self.context])

    def forbid_storage(self, access: str = "throws") -> None:
        """Forbid all sites to store anything. `access` is a key of NO_STORAGE."""
        self.set_preference(*NO_STORAGE[access])

    def set_viewport(self, width: int, height: int) -> None:
        """In px of CSS."""
        viewport = {"width": width, "height": height}
        self._bidi.call("browsingContext.setViewport", context=self.context, viewport=viewport)

    def add_preload_script(self, function: str) -> None:
        """Call a JavaScript function before the scripts of each page that this one goes to."""
        self._bidi.call(
            "script.addPreloadScript", functionDeclaration=function, contexts=[self.context]
        )

    # Where the person goes

    def goto(self, path: str = "") -> None:
        """Go to the site's page with this path, and wait until it has loaded."""
        self._bidi.call(
            "browsingContext.navigate",
            context=self.context,
            url=self.url + path,
            wait="complete",
        )

    def reload(self) -> None:
        self._bidi.call("browsingContext.reload", context=self.context, wait="complete")

    def go_back(self) -> None:
        """Go back to the page before, without waiting for it."""
        self._bidi.call("browsingContext.traverseHistory", context=self.context, delta=-1)

    # What the person does

    def click(self, selector: str) -> None:
        """Wait until the element is visible and enabled, and click on its middle."""
        self.wait_for(selector)
        self.wait_until(f"{element(selector)}?.matches(':not(:disabled)')")
        self.evaluate(f"{element(selector)}.scrollIntoView({{ block: 'nearest' }})")
        nodes = self._bidi.call(
            "browsingContext.locateNodes",
            context=self.context,
            locator={"type": "css", "value": selector},
            maxNodeCount=1,
        )["nodes"]
        origin = {"type": "element", "element": {"sharedId": nodes[0]["sharedId"]}}
        actions = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._perform({"type": "pointer", "id": "mouse", "actions": actions})

    def press(self, keys: str) -> None:
        """Press a key, or several together, such as `Enter`, `a` and `Shift+Enter`."""
        values = [KEYS.get(key, key) for key in keys.split("+")]
        actions = [{"type": "keyDown", "value": value} for value in values]
        actions += [{"type": "keyUp", "value": value} for value in reversed(values)]
        self._perform({"type": "key", "id": "keyboard", "actions": actions})

    def type(self, text: str) -> None:
        """Type into what has the focus, key by key; a line feed is Enter."""
        actions = []
        for character in text.replace("\n", KEYS["Enter"]):
            actions.append({"type": "keyDown", "value": character})
            actions.append({"type": "keyUp", "value": character})
        if actions:
            self._perform({"type": "key", "id": "keyboard", "actions": actions})

    def fill(self, selector: str, text: str) -> None:
        """Replace what a field holds, by typing."""
        self.click(selector)
        self.evaluate(f"{element(selector)}.select()")
        self.press("Delete")
        self.type(text)

    def _perform(self, source: dict[str, Any]) -> None:
        self._bidi.call("input.performActions", context=self.context, actions=[source])

    # What the person sees

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited. The page's policy does not
        bind it. Raises BiDiError for an exception.
        """
        return self.call(f"() => ({expression})")

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a JavaScript function in the page, as `Firefox.call` does."""
        return self.firefox.call(self.context, function, *arguments)

    def wait_until(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true. Returns its value."""
        try:
            return eventually(lambda: self.evaluate(expression))
        except AssertionError as error:
            error.add_note(f"waited for {expression}\nthe page says: {self.text_of('body')}")
            raise

    def wait_for(self, selector: str) -> None:
        """Wait until an element is visible."""
        self.wait_until(f"{element(selector)}?.checkVisibility({{ visibilityProperty: true }})")

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until an element shows a text, and perhaps others."""
        self.wait_until(f"{element(selector)}?.innerText.includes({json.dumps(text)})")

    def text_of(self, selector: str) -> str:
        """The text that an element shows. Raises BiDiError if there is no such element."""
        return str(self.evaluate(f"{element(selector)}.innerText"))

    def screenshot(self) -> bytes:
        """What the window shows, as a PNG."""
        answer = self._bidi.call("browsingContext.captureScreenshot", context=self.context)
        return base64.b64decode(answer["data"])

    # On the chat's page

    def join(self, email: str = "ada@example.org", username: str = "Ada") -> None:
        self.fill("#email", email)
        self.fill("#username", username)
        self.click("#join-button")
        self.wait_for("#message")

    def say(self, text: str) -> None:
        self.fill("#message", text)
        self.press("Enter")


OpenFirefox = Callable[..., FirefoxPage]


def element(selector: str) -> str:
    """A JavaScript expression for the first element that matches, or null."""
    return f"document.querySelector({json.dumps(selector)})"

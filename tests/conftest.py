"""What every test stands on: how a missing program is skipped, where programs are found, and
the rule that no test leaves a thread behind.

A test file takes the helpers by `from conftest import require, find_chromium`.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from pages import Visit, Visitor
    from programs import Program
    from proxy import Proxy
    from tls import Certificate

# No test measures speed, and a busy machine is no fault of the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

T = TypeVar("T")

THREADS_END_WITHIN = 5.0  # seconds; above any closing wait that the tests set

# Threads that outlive a test by design, by the prefix of their names.
LASTING_THREADS = ("rfc6455-clock",)  # one for all connections; ends soon after the last of them


def require(found: T | None, what: str, how_to_install: str) -> T:
    """Gives back what was found. Nothing found (None, False) is a skip with the reason on a
    user's machine, and a failure where the environment variable CI is set.

    Call it in a test or a fixture; pytest refuses a skip while a module is imported.
    """
    if found:
        return found
    reason = f"{what} not found; to install it: {how_to_install}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is no skip)", pytrace=False)
    pytest.skip(reason)


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    on_path = next((path for name in names if (path := shutil.which(name))), None)
    elsewhere = (
        Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
        Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    )
    return on_path or next((str(path) for path in elsewhere if path.is_file()), None)


def find_redis_server() -> str | None:
    return shutil.which("redis-server")


def find_openssl() -> str | None:
    return shutil.which("openssl")


def find_nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


GO_SOURCES = Path("/usr/share/gocode")  # where Debian keeps the sources of Go packages


def find_go() -> str | None:
    """A Go compiler, where the sources of the originals' WebSocket packages are there, too."""
    packages = ("golang.org/x/net/websocket", "github.com/gorilla/websocket")
    if all((GO_SOURCES / "src" / package).is_dir() for package in packages):
        return shutil.which("go")
    return None


def find_python27() -> str | None:
    """A Python 2.7 that really runs: pyenv puts a `python2.7` on PATH that may only complain."""
    pyenv_root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which("python2.7")]
    candidates += map(str, sorted(pyenv_root.glob("versions/2.7*/bin/python")))
    for python in filter(None, candidates):
        command = [python, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
        if subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0:
            return python
    return None


@pytest.fixture(autouse=True)
def leaves_no_thread_behind() -> Iterator[None]:
    """Fails a test whose threads, daemons too, have not ended a while after it.

    Fixtures of a wider scope are made before this one, so theirs do not count.
    """
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREADS_END_WITHIN
    while left := new_threads(before):
        if time.monotonic() > deadline:
            pytest.fail("threads left behind:\n" + "\n".join(map(describe, left)), pytrace=False)
        time.sleep(0.01)


def new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.name.startswith(LASTING_THREADS)
    ]


def describe(thread: threading.Thread) -> str:
    """The thread, and the line of code that it stands at."""
    frame = sys._current_frames().get(thread.ident or 0)
    where = traceback.format_stack(frame)[-1].rstrip() if frame else "  (ending)"
    return f"{thread!r}\n{where}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> "Certificate":
    """A certificate for localhost that nobody but the tests trusts."""
    from tls import make_certificate  # imports this module

    return make_certificate(tmp_path_factory.mktemp("tls"))


# Chromium. What is imported here imports this module.


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from programs import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: "Browser") -> Iterator["Visit"]:
    """Makes visitors; in the end none may have had anything to complain of."""
    from pages import Visitor

    visitors: list[Visitor] = []

    def make(
        program: "Program | Proxy",
        *,
        path: str = "",
        width: int = 1280,
        picture: bytes | None = None,
    ) -> "Visitor":
        visitors.append(Visitor(browser, program.url, path, width, picture))
        return visitors[-1]

    yield make
    complaints = [visitor.leave() for visitor in visitors]
    assert not any(complaints), complaints


@pytest.fixture
def context(browser: "Browser") -> Iterator["BrowserContext"]:
    """A browser's profile, for a test that looks at nothing but what it tests."""
    from pages import GRAVATAR
    from peers import PATIENCE

    context = browser.new_context()
    context.set_default_timeout(2 * PATIENCE * 1000)  # ms
    context.route(f"{GRAVATAR}**", lambda route: route.abort())
    yield context
    context.close()


@pytest.fixture
def page(context: "BrowserContext") -> "Page":
    return context.new_page()

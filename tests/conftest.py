"""What pytest gives to every test: the rule that no test leaves a thread behind, and the fixtures
that several files use.
"""

import itertools
import logging
import operator
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from finding import require_redis
from firefox import Firefox, FirefoxPage, OpenFirefox, firefox
from pages import FAKE_SOCKETS, GRAVATAR, Visit, Visitor, join, launch_chromium, stop_clock
from peers import PATIENCE, eventually
from programs import Program, chat
from proxy import Forwarder, Proxy
from redis_server import Redis
from tls import Certificate, make_certificate

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Playwright


collect_ignore = ["exercises"]  # tests of programs that a reader writes; `test_exercises` runs them
THREADS_END_WITHIN = PATIENCE  # seconds; no closing handshake in the tests takes longer

# What the names of threads begin with that may outlive a test: the layer's clock serves all
# connections, and ends soon after the last of them.
LASTING_THREADS = ("rfc6455-clock",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files with tests of pages evenly among the others.

    Pages keep the processors busy, where other tests mostly wait. As each worker begins with a part
    of this list, at any time some of them are at the one kind and some at the other.
    """
    files = [list(tests) for _, tests in itertools.groupby(items, lambda item: item.path)]
    of_pages = [tests for tests in files if tests[0].get_closest_marker("browser")]
    others = [tests for tests in files if tests not in of_pages]
    places = [*places_of(of_pages), *places_of(others)]
    places.sort(key=operator.itemgetter(0))
    items[:] = [test for _, tests in places for test in tests]


def places_of(files: list[list[pytest.Item]]) -> Iterator[tuple[float, list[pytest.Item]]]:
    """Where the middle of each file is among all their tests: 0 is the first, 1 the last."""
    count = sum(map(len, files))
    before = 0
    for tests in files:
        yield (before + len(tests) / 2) / count, tests
        before += len(tests)


@pytest.fixture(autouse=True)
def leaves_no_thread_behind() -> Iterator[None]:
    """Fail a test whose threads, daemons included, have not ended a while after it.

    The threads of module and session fixtures do not count, as these are made before this one.
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
    """The thread, and the line of code at which it waits."""
    frame = sys._current_frames().get(thread.ident or 0)
    where = traceback.format_stack(frame)[-1].rstrip() if frame else "  (ending)"
    return f"{thread!r}\n{where}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost that only the tests trust."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_files(certificate: Certificate, tmp_path: Path) -> Certificate:
    """Files that hold `certificate` until a test replaces it."""
    return certificate.copy_to(tmp_path)


@pytest.fixture
def renewed(tmp_path: Path) -> Certificate:
    """Another certificate for localhost, to replace the first."""
    directory = tmp_path / "renewed"
    directory.mkdir()
    return make_certificate(directory)


@pytest.fixture
def nothing_unforeseen_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which the server logs an error.

    No peer can make it do so, whatever it sends: errors are for our own mistakes, and for those of
    the machine.
    """
    yield
    eventually(lambda: not any("process_request" in each.name for each in threading.enumerate()))
    errors = [each for each in caplog.get_records("call") if each.levelno >= logging.ERROR]
    assert errors == []


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A directory to serve. The one above it holds a file that nobody may read."""
    directory = tmp_path / "public"
    (directory / "sub").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (directory / "index.html").write_text("<p>\u00e9", encoding="utf-8")
    (directory / "page.css").write_text("p {}")
    (directory / "page.js").write_text("1")
    (directory / "page.json").write_text("1")
    (directory / "page.svg").write_text("<svg/>")
    (directory / "sub" / "file.txt").write_text("in sub")
    return directory


# Redis


@pytest.fixture(autouse=True, scope="module")
def has_redis(request: pytest.FixtureRequest) -> None:
    """Skip a file of tests that need Redis where it is missing."""
    if request.node.get_closest_marker("redis"):
        require_redis()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A redis-server for one test, which may kill it and start it again."""
    process = Redis(tmp_path / "redis")
    yield process
    process.kill()


# Chromium


@pytest.fixture(scope="session")
def playwright() -> Iterator["Playwright"]:
    """What drives browsers; there can be only one in a process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright: "Playwright") -> Iterator["Browser"]:
    """One Chromium for all tests of a worker. Each test has a profile of its own in it."""
    with launch_chromium(playwright) as browser:
        yield browser


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Visit]:
    """Makes visitors. Fails the test if one of them saw an error that it did not expect."""
    visitors: list[Visitor] = []

    def make(
        program: Program | Proxy,
        *,
        path: str = "",
        width: int = 1280,
        picture: bytes | None = None,
        **device: Any,
    ) -> Visitor:
        visitors.append(Visitor(browser, program.url, path, width, picture, **device))
        return visitors[-1]

    yield make
    complaints = [visitor.leave() for visitor in visitors]
    assert not any(complaints), complaints


@pytest.fixture
def context(browser: "Browser") -> Iterator["BrowserContext"]:
    """A browser's profile of its own, for a test that needs no visitor's checks."""
    context = browser.new_context()
    context.set_default_timeout(2 * PATIENCE * 1000)  # ms
    context.route(f"{GRAVATAR}**", lambda route: route.abort())
    yield context
    context.close()


@pytest.fixture
def page(context: "BrowserContext") -> "Page":
    return context.new_page()


# Firefox


@pytest.fixture(scope="session")
def firefox_browser() -> Iterator[Firefox]:
    """One for all tests of a worker. A page has a profile of its own in it."""
    with firefox() as browser:
        yield browser


@pytest.fixture
def open_firefox(firefox_browser: Firefox) -> Iterator[OpenFirefox]:
    """Makes pages that have not gone anywhere. Fails the test if one of them has a complaint that
    the test does not forgive.
    """
    pages: list[FirefoxPage] = []

    def make(program: Program | Proxy | Forwarder, **how: Any) -> FirefoxPage:
        pages.append(firefox_browser.open(program.url, **how))
        return pages[-1]

    yield make
    complaints = [page.leave() for page in pages]
    assert not any(complaints), complaints


# A chat and its page, for the files of tests that share one server


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    """One chat for each file of tests.

    A test leaves nothing said that it has not heard, or does not mind what others have said.
    """
    with chat() as program:
        yield program


@pytest.fixture
def forwarder(server: Program) -> Iterator[Forwarder]:
    """Stands between the server and the clients that connect to its `url`."""
    with Forwarder(server.server_port) as forwarder:
        yield forwarder


@pytest.fixture
def fake_page(page: "Page", server: Program) -> "Page":
    """A page on which Ada has joined, with fake sockets: nothing comes unless the test sends it."""
    page.add_init_script(FAKE_SOCKETS)
    join(page, server.url)
    return page


@pytest.fixture
def still_page(page: "Page", server: Program) -> "Page":
    """A page that is connected by a fake socket, and whose time stands still."""
    page.add_init_script(FAKE_SOCKETS)
    page.clock.install(time=1_700_000_000)
    join(page, server.url)
    stop_clock(page)
    return page

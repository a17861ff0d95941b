"""Both pages in Chromium over TLS, with self-signed certificates of which it knows the keys."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from echo_page import answers
from pages import RECORD_SOCKETS, Visit, expect, launch_chromium
from peers import eventually
from programs import Program, chat, echo, lines_with
from tls import Certificate, make_certificate

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def renewed(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("renewed"), name="renewed")


@pytest.fixture(scope="module")
def browser(
    playwright: "Playwright", certificate: Certificate, renewed: Certificate
) -> Iterator["Browser"]:
    """It takes these two certificates, as after a user has looked at them, and no other."""
    hashes = f"{certificate.public_key_hash()},{renewed.public_key_hash()}"
    option = f"--ignore-certificate-errors-spki-list={hashes}"
    with launch_chromium(playwright, option) as browser:
        yield browser


@pytest.fixture
def files(certificate: Certificate, tmp_path: Path) -> Certificate:
    return certificate.copy_to(tmp_path)


@pytest.fixture
def server(files: Certificate) -> Iterator[Program]:
    with chat(*files.options) as program:
        yield program


def test_people_chat_over_https_and_wss(server: Program, visit: Visit) -> None:
    ada = visit(server)
    ada.join()
    bob = visit(server)
    with bob.page.expect_websocket() as socket:
        bob.join("bob@example.org", "Bob")
    assert socket.value.url.startswith(f"wss://localhost:{server.server_port}/ws")
    ada.say("hello :robot:")
    bob.sees("hello 🤖")
    bob.say("hello Ada")
    ada.sees("hello 🤖", "hello Ada")


def test_echo_page_works_over_wss(files: Certificate, visit: Visit) -> None:
    with echo(*files.options) as server:
        ada = visit(server)
        expect(ada.page.locator("#status")).to_have_text("Connected")
        ada.page.get_by_role("button", name="Send").click()
        expect(answers(ada.page)).to_have_text(["hello, world!你好"])


def test_page_stays_connected_when_the_certificate_is_renewed(
    server: Program, files: Certificate, renewed: Certificate, visit: Visit
) -> None:
    ada = visit(server)
    ada.page.add_init_script(RECORD_SOCKETS)
    ada.page.reload()
    ada.join()
    files.replace_by(renewed)
    server.signal(signal.SIGHUP)
    assert eventually(lambda: lines_with(server, "the certificate was read again"))
    bob = visit(server)
    answer = bob.page.reload()
    assert answer
    details = answer.security_details()
    assert details and details["subjectName"] == "renewed"
    bob.join("bob@example.org", "Bob")
    bob.say("with the new one")
    ada.sees("with the new one")
    ada.say("with the old one")
    bob.sees("with the new one", "with the old one")
    assert ada.page.evaluate("sockets.length") == 1

"""Both pages behind an nginx that serves them below a path of its own."""

from collections.abc import Iterator

import pytest

from chatting import hear_texts
from echo_page import answers
from pages import Visit, expect
from programs import Program, echo
from proxy import Proxy, nginx

pytestmark = [pytest.mark.browser, pytest.mark.nginx]


@pytest.fixture(scope="module")
def proxy(server: Program) -> Iterator[Proxy]:
    with nginx(f"{server.url}/", location="/chat/") as proxy:
        yield proxy


@pytest.mark.parametrize("path", ["/chat/", "/chat", "/chat/index.html", "/chat/?room=a/b#c/d"])
def test_chat_page_connects_below_the_path_that_a_proxy_gives_it(
    server: Program, proxy: Proxy, visit: Visit, path: str
) -> None:
    with server.join() as peer:
        ada = visit(proxy, path=path)
        ada.join()
        ada.say("from behind :robot:")
        assert hear_texts(peer, 1) == ["from behind :robot:"]
        expect(ada.texts.last).to_have_text("from behind 🤖")
        expect(ada.page.locator(".pending")).to_have_count(0)


def test_two_chats_behind_one_proxy_do_not_share_what_they_store(
    server: Program, visit: Visit
) -> None:
    more = f"""}}
        location /other/ {{
            proxy_pass {server.url}/;
            proxy_set_header Host $http_host;"""
    with nginx(f"{server.url}/", location="/one/", more=more) as proxy:
        ada = visit(proxy, path="/one/")
        ada.join("ada@example.org", "Ada")
        ada.page.fill("#message", "a draft for one")
        ada.page.goto(f"{proxy.url}/other/")
        expect(ada.page.locator("#email")).to_have_value("")
        expect(ada.page.locator("#message")).to_have_value("")
        ada.page.goto(f"{proxy.url}/one/")
        expect(ada.page.locator("#email")).to_have_value("ada@example.org")
        ada.join()
        expect(ada.page.locator("#message")).to_have_value("a draft for one")


def test_echo_page_connects_below_the_path_that_a_proxy_gives_it(visit: Visit) -> None:
    with echo() as server, nginx(f"{server.url}/", location="/tools/echo/") as proxy:
        for path in ("/tools/echo/", "/tools/echo/index.html?a=/b/#c"):
            ada = visit(proxy, path=path)
            expect(ada.page.locator("#status")).to_have_text("Connected")
            ada.page.get_by_role("button", name="Send").click()
            expect(answers(ada.page)).to_have_text(["hello, world!你好"])

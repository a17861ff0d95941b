"""The echo page in Chromium: what a learner does and sees there."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from echo_page import answers, ask_to_close, has_lines, is_connected, line, lines
from pages import FAKE_SOCKETS, Visit, Visitor, expect, receive_texts
from programs import Program, answer_close, echo
from proxy import Forwarder

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

HELLO = "hello, world!你好"


@pytest.fixture(scope="module")
def server() -> Iterator[Program]:
    with echo() as program:
        yield program


@pytest.fixture
def ada(server: Program, visit: Visit) -> Visitor:
    visitor = visit(server)
    is_connected(visitor.page)
    return visitor


@pytest.fixture
def echo_fake(page: "Page", server: Program) -> "Page":
    """The page with fake sockets, and a clock that the test moves."""
    page.add_init_script(FAKE_SOCKETS)
    page.clock.install()
    page.goto(server.url)
    expect(page.locator("#status")).to_have_text("Connected")
    return page


def send_hex(page: "Page", digits: str) -> None:
    page.locator("#kind label:has([value=binary])").click()
    page.fill("#message", digits)
    page.press("#message", "Enter")


# Messages


def test_page_shows_what_was_sent_and_what_came_back_and_how_long_it_took(ada: Visitor) -> None:
    expect(line(ada.page, "none", "open")).to_contain_text("/playground")
    ada.page.get_by_role("button", name="Send").click()
    has_lines(ada.page, f"↑ text {HELLO} 19 bytes", f"↓ text {HELLO} 19 bytes")
    times = ada.page.locator("#lines .ms")
    expect(times).to_have_text([re.compile(r"^[\d,.]+ ms$")] * 2)  # of opening, and of the answer


def test_text_comes_back_as_text_and_is_never_markup(ada: Visitor) -> None:
    for text in ("<b>bold</b> &amp; :robot:", "", "two\nlines", "//ping", '{"event":"pong"}'):
        ada.page.fill("#message", text)
        ada.page.press("#message", "Enter")
        last = answers(ada.page).last
        expect(last).to_have_text(text or "(empty)")
    expect(answers(ada.page)).to_have_count(5)
    assert ada.page.locator("#lines b").count() == 0


def test_text_that_looks_like_an_event_comes_back_as_an_echo(ada: Visitor) -> None:
    text = '//pong {"to": 1, "payload": "x", "ms": 1}'
    ada.page.fill("#message", text)
    ada.page.press("#message", "Enter")
    has_lines(ada.page, f"↑ text {text} 41 bytes", f"↓ text {text} 41 bytes")


def test_hexadecimal_digits_are_sent_as_binary_data(ada: Visitor) -> None:
    expected: list[str] = []
    for written, shown in (
        ("00 7f 80 ff", "00 7f 80 ff 4 bytes"),
        ("0x00,0X7F", "00 7f 2 bytes"),
        ("DEADbeef", "de ad be ef 4 bytes"),
        (" 0a:0b-0c_0d;0e\n", "0a 0b 0c 0d 0e 5 bytes"),
        ("", "(empty) 0 bytes"),
        ("2f 70 69 6e 67", "2f 70 69 6e 67 5 bytes"),  # /ping, but not as text
    ):
        send_hex(ada.page, written)
        expected += [f"↑ binary {shown}", f"↓ binary {shown}"]
        has_lines(ada.page, *expected)


def test_page_says_what_is_wrong_with_hexadecimal_digits(ada: Visitor) -> None:
    for written, error in (
        ("zz", "“z” is not a hexadecimal digit. These are 0–9 and a–f."),
        ("00 1g", "“g” is not a hexadecimal digit. These are 0–9 and a–f."),
        ("🤖", "“🤖” is not a hexadecimal digit. These are 0–9 and a–f."),
        ("00 1", "Each byte has two digits, but “1” has an odd number of them."),
        ("0x", "Each byte has two digits, but “0x” has an odd number of them."),
        ("1" * 21, "Each byte has two digits, but “11111111111…” has an odd number of them."),
    ):
        send_hex(ada.page, written)
        expect(ada.page.locator("#send-error")).to_have_text(error)
        expect(ada.page.locator("#message")).to_have_attribute("aria-invalid", "true")
        expect(ada.page.locator("#message")).to_be_focused()
        ada.page.fill("#message", "01")
        expect(ada.page.locator("#send-error")).to_have_text("")
    ada.page.press("#message", "Enter")
    has_lines(ada.page, "↑ binary 01 1 byte", "↓ binary 01 1 byte")


def test_what_was_written_as_text_stays_when_it_is_to_be_binary_and_back(ada: Visitor) -> None:
    text, binary = (ada.page.locator(f"#kind label:has([value={k}])") for k in ("text", "binary"))
    field = ada.page.locator("#message")
    field.fill("aé你")
    expect(ada.page.locator("#size")).to_have_text("6 bytes")
    binary.click()
    expect(field).to_have_value("61 c3 a9 e4 bd a0")
    expect(ada.page.locator("#size")).to_have_text("6 bytes")
    text.click()
    expect(field).to_have_value("aé你")
    binary.click()
    field.fill("ff")  # not UTF-8
    text.click()
    expect(field).to_have_value("ff")


def test_enter_sends_shift_enter_begins_a_line_and_an_input_methods_enter_does_neither(
    ada: Visitor,
) -> None:
    field = ada.page.locator("#message")
    field.fill("one")
    field.press("Shift+Enter")
    field.press_sequentially("two")
    expect(field).to_have_value("one\ntwo")
    for detail in ({"isComposing": True}, {"keyCode": 229}):
        event = {"key": "Enter", "bubbles": True, "cancelable": True, **detail}
        field.dispatch_event("keydown", event)
    expect(line(ada.page, "sent", "text")).to_have_count(0)
    field.press("Enter")
    has_lines(ada.page, "↑ text one\ntwo 7 bytes", "↓ text one\ntwo 7 bytes")


def test_examples_are_sent(ada: Visitor) -> None:
    examples = ada.page.locator("#examples button")
    for button in examples.all():
        button.click()
    expect(answers(ada.page)).to_have_count(7)
    sizes = ada.page.locator("#lines .sent .size")
    expected = ["10 bytes", "0 bytes", "126 bytes", "65,536 bytes", "4 bytes", "6 bytes", "5 bytes"]
    expect(sizes).to_have_text(expected)
    expect(answers(ada.page).last).to_contain_text("/ping [PAYLOAD]")


def test_page_below_the_original_echo_shows_its_brackets_and_offers_no_commands(
    ada: Visitor, server: Program
) -> None:
    ada.page.select_option("#route", "echo")
    expect(line(ada.page, "none", "open").last).to_contain_text("/echo")
    is_connected(ada.page)
    for text in ("/ping", '//pong {"to": 1}'):
        ada.page.fill("#message", text)
        ada.page.press("#message", "Enter")
    expect(answers(ada.page)).to_have_text(["[/ping]", '[//pong {"to": 1}]'])
    expect(ada.page.locator("#ping")).to_be_hidden()
    expect(ada.page.locator("#close [value=server]")).to_be_disabled()
    assert 'Receive: /ping\nSend: [/ping]\nReceive: //pong {"to": 1}\n' in server.output


def test_route_can_be_changed_while_the_server_was_to_close(ada: Visitor) -> None:
    ada.page.locator("#close label:has([value=server])").click()
    ada.page.select_option("#route", "echo")
    is_connected(ada.page)
    expect(ada.page.locator("#close [value=page]")).to_be_checked()
    ada.page.click("#close button")
    expect(ada.page.locator("#status")).to_have_text("Closed: 1000, normal closure")


def test_page_of_a_plain_echo_server_shows_on_both_routes_exactly_what_was_sent(
    visit: Visit,
) -> None:
    with echo("--plain") as server, server.join("/echo") as peer:
        ada = visit(server)
        is_connected(ada.page)
        for route in ("playground", "echo"):
            ada.page.select_option("#route", route)
            is_connected(ada.page)
            ada.page.fill("#message", '/pong {"to": 1}' if route == "echo" else "as it is")
            ada.page.get_by_role("button", name="Send").click()
            expect(answers(ada.page)).to_have_count(1 if route == "playground" else 2)
        expect(answers(ada.page)).to_have_text(["as it is", '/pong {"to": 1}'])
        expect(line(ada.page, "received", "ping")).to_have_count(0)
        assert peer.is_silent(0.01)
        server.signal()
        assert answer_close(peer)[0] == 1001


# Lines that are opened


def test_line_is_opened_to_see_all_of_a_message(ada: Visitor) -> None:
    text = "你" * 300 + "the end"
    ada.page.fill("#message", text)
    ada.page.press("#message", "Enter")
    expect(answers(ada.page)).to_have_text("你" * 200 + "…")
    answer = line(ada.page, "received", "text")
    expect(answer.locator(".body")).to_have_count(0)
    answer.locator("summary").click()
    texts = answer.locator("pre")
    expect(texts).to_have_text([text, "e4 bd a0 " * 300 + "74 68 65 20 65 6e 64"])
    expect(answer.locator(".note").first).to_contain_text("The answer of the server.")
    expect(answer.locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    answer.locator("summary").click()
    expect(texts.first).to_be_hidden()


def test_binary_message_is_shown_as_text_only_where_it_is_utf_8(ada: Visitor) -> None:
    send_hex(ada.page, "c3 a9")
    send_hex(ada.page, "c3 28")
    expect(answers(ada.page)).to_have_count(2)
    for answer, expected in zip(
        line(ada.page, "received", "binary").all(), (["é", "c3 a9"], ["c3 28"]), strict=True
    ):
        answer.locator("summary").click()
        expect(answer.locator("pre")).to_have_text(expected)


def test_of_a_huge_message_the_beginning_is_kept(ada: Visitor) -> None:
    ada.page.evaluate("document.getElementById('message').value = 'x'.repeat(100_000)")
    ada.page.press("#message", "Enter")
    answer = line(ada.page, "received", "text")
    expect(answer.locator(".size")).to_have_text("100,000 bytes")
    answer.locator("summary").click()
    texts = [len(each) for each in answer.locator("pre").all_text_contents()]
    assert texts == [65_537, 3 * 1024]  # each with an ellipsis, and digits with blanks between them


def test_only_new_lines_are_read_aloud(ada: Visitor) -> None:
    log = ada.page.get_by_role("log", name="Log")
    expect(log).to_have_attribute("aria-relevant", "additions")
    ada.page.press("#message", "Enter")
    expect(answers(ada.page)).to_have_count(1)
    answer = line(ada.page, "received", "text")
    expect(answer.locator("summary")).to_have_text(
        re.compile(rf"Received text {HELLO} 19 bytes [\d,.]+ ms$")
    )
    answer.locator("summary").click()
    expect(answer.locator(".body")).to_have_attribute("aria-live", "off")


def test_whoever_reads_further_up_stays_there_and_is_led_back(echo_fake: "Page") -> None:
    receive_texts(echo_fake, *(f"number {i}" for i in range(100)))
    expect(answers(echo_fake).last).to_be_in_viewport()
    answers(echo_fake).nth(20).scroll_into_view_if_needed()
    to_newest = echo_fake.get_by_role("button", name="To the newest line")
    expect(to_newest).to_be_hidden()
    place = "document.getElementById('log').scrollTop"
    before = echo_fake.evaluate(place)
    receive_texts(echo_fake, "news")
    expect(to_newest).to_be_visible()
    assert echo_fake.evaluate(place) == before
    to_newest.click()
    expect(answers(echo_fake).last).to_be_in_viewport()
    expect(to_newest).to_be_hidden()
    expect(echo_fake.locator("#log")).to_be_focused()


def test_oldest_lines_leave_and_take_no_focus_with_them(echo_fake: "Page") -> None:
    echo_fake.locator("#lines summary").first.focus()
    receive_texts(echo_fake, *(f"number {i}" for i in range(600)))
    assert len(lines(echo_fake)) == 500
    assert lines(echo_fake)[-1] == "↓ text number 599 10 bytes"
    expect(echo_fake.locator("#log")).to_be_focused()


def test_log_can_be_cleared(ada: Visitor) -> None:
    ada.page.get_by_role("button", name="Clear the log").click()
    assert lines(ada.page) == []
    ada.page.press("#message", "Enter")
    expect(answers(ada.page)).to_have_text(HELLO)


# Pings


def test_ping_of_the_server_and_the_browsers_pong_are_shown(ada: Visitor) -> None:
    ada.page.fill("#ping-payload", " 你好")
    ada.page.get_by_role("button", name="Ask for a ping").click()
    expect(line(ada.page, "received", "text")).to_have_count(1)
    found = lines(ada.page)[1:]
    assert found[:3] == [
        "↑ text /ping  你好 13 bytes",
        "↓ ping  你好 7 bytes",
        "↑ pong  你好 7 bytes",
    ]
    assert re.match(r'↓ text /pong {"to": 1, "payload": " 你好", "ms": [\d.]+} ', found[3])
    pong = line(ada.page, "sent", "pong")
    expect(pong.locator(".ms")).to_have_text(re.compile(r"^[\d.]+ ms$"))
    pong.locator("summary").click()
    expect(pong.locator(".note").first).to_contain_text("The browser answered by itself")


def test_echo_that_overtakes_a_pong_and_a_pong_that_comes_late_keep_their_own_times(
    echo_fake: "Page",
) -> None:
    for text in ("/ping", "data"):
        echo_fake.fill("#message", text)
        echo_fake.press("#message", "Enter")
        echo_fake.clock.run_for(1_000)
    receive_texts(echo_fake, "data")
    echo_fake.clock.run_for(1_000)
    receive_texts(echo_fake, '/pong {"to": 1, "payload": "1", "ms": 2.25}')
    times = [
        each.rstrip() for each in echo_fake.locator("#lines .received .ms").all_text_contents()
    ]
    assert [float(each.removesuffix(" ms").replace(",", "")) // 500 for each in times] == [2, 6]
    expect(line(echo_fake, "sent", "pong").locator(".ms")).to_have_text("2.3 ms")


def test_payload_of_a_ping_has_at_most_125_bytes(ada: Visitor) -> None:
    ada.page.fill("#ping-payload", "é" * 63)
    ada.page.press("#ping-payload", "Enter")
    error = ada.page.locator("#ping-error")
    expect(error).to_have_text("A ping has at most 125 bytes; this has 126.")
    expect(ada.page.locator("#ping-payload")).to_be_focused()
    ada.page.fill("#ping-payload", "é" * 62)
    ada.page.press("#ping-payload", "Enter")
    expect(error).to_have_text("")
    expect(line(ada.page, "received", "ping").locator(".size")).to_have_text("124 bytes")


def test_page_says_why_the_server_does_not_obey(ada: Visitor) -> None:
    for text, words in (
        ("/nonsense", "it does not know this command"),
        ("/close 1005", "a server may send 1000–1003"),
        ("/ping " + "x" * 126, "a ping has at most 125 bytes"),
        ("/close 1000 " + "x" * 124, "a reason has at most 123 bytes"),
    ):
        seen = line(ada.page, "received", "text").count()
        ada.page.fill("#message", text)
        ada.page.press("#message", "Enter")
        expect(line(ada.page, "received", "text")).to_have_count(seen + 1)
        answer = line(ada.page, "received", "text").last
        expect(answer.locator(".content")).to_contain_text("/refused")
        answer.locator("summary").click()
        expect(answer.locator(".note").first).to_contain_text(f"The server does not obey: {words}")


# The end of a connection


@pytest.mark.parametrize(
    ("code", "reason", "frame", "end"),
    [
        ("1000", "", "1000  2 bytes", "1000, normal closure"),
        ("3000", "", "3000  2 bytes", "3000, registered code"),
        ("4999", "再见", "4999 再见 8 bytes", "4999, private code"),
        ("", "", "(without a code) 0 bytes", "1005, no code"),
    ],
)
def test_page_closes_with_a_code_and_reason_of_ones_choice(
    ada: Visitor, code: str, reason: str, frame: str, end: str
) -> None:
    ask_to_close(ada.page, "page", code, reason)
    answer = "(without a code) 0 bytes" if code == "" else f"{code}  2 bytes"
    has_lines(ada.page, f"↑ close {frame}", f"↓ close {answer}", f"· end Closed: {end}")
    expect(ada.page.locator("#status")).to_have_text(f"Closed: {end}")
    expect(ada.page.locator("#closed-text")).to_contain_text("A clean end. This page began.")


def test_page_says_why_it_cannot_close_like_that(ada: Visitor) -> None:
    forbidden = "A browser does not let a page close with {}, only with 1000 and 3000–4999."
    for code, reason, error in (
        ("1001", "", forbidden.format(1001)),
        ("1006", "", forbidden.format(1006)),
        ("5000", "", forbidden.format(5000)),
        ("abc", "", "A code is a number, such as 1000."),
        ("", "bye", "A reason needs a code before it."),
        ("1000", "é" * 62, "A reason has at most 123 bytes; this has 124."),
    ):
        ask_to_close(ada.page, "page", code, reason)
        expect(ada.page.locator("#close-error")).to_contain_text(error)
        is_connected(ada.page)
    ask_to_close(ada.page, "page", "1000")
    expect(ada.page.locator("#close-error")).to_have_text("")
    expect(ada.page.locator("#status")).to_have_text("Closed: 1000, normal closure")


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("1001", "1001, going away"),
        ("1011", "1011, internal error"),
        ("1013", "1013, try again later"),
        ("4000", "4000, private code"),
    ],
)
def test_server_closes_with_a_code_that_the_page_may_not_use(
    ada: Visitor, code: str, end: str
) -> None:
    ask_to_close(ada.page, "server", code, "as you wish")
    has_lines(
        ada.page,
        f"↑ text /close {code} as you wish 23 bytes",
        f"↓ close {code} as you wish 13 bytes",
        f"↑ close {code}  2 bytes",
        f"· end Closed: {end}",
    )
    expect(ada.page.locator("#closed-text")).to_contain_text("A clean end. The server began.")
    ended = line(ada.page, "none", "end")
    ended.locator("summary").click()
    notes = ended.locator("p.note")
    expect(notes.nth(1)).to_contain_text("both sides have sent a Close")
    expect(notes.nth(2)).to_have_text("The server began.")


def test_form_says_what_a_code_means_while_it_is_written(ada: Visitor) -> None:
    for code, meaning in (
        ("1002", "protocol error. The other side broke a rule"),
        ("2000", "reserved. "),
        ("3333", "registered code. "),
        ("4000", "private code. "),
        ("99", "not a close code. "),
        ("", "no code. "),
    ):
        ada.page.fill("#close-code", code)
        expect(ada.page.locator("#close-meaning")).to_contain_text(meaning)


def test_page_without_a_connection_says_that_there_is_none_to_close(ada: Visitor) -> None:
    ask_to_close(ada.page, "page", "1000")
    expect(ada.page.locator("#closed")).to_be_visible()
    for who in ("page", "server"):
        ask_to_close(ada.page, who, "1000")
        error = ada.page.locator("#close-error")
        expect(error).to_have_text("There is no open connection.")


def test_button_connects_again_and_leaves_the_focus_in_the_field(ada: Visitor) -> None:
    ask_to_close(ada.page, "page", "1000")
    ada.page.get_by_role("button", name="Connect again").click()
    is_connected(ada.page)
    expect(ada.page.locator("#closed")).to_be_hidden()
    expect(ada.page.locator("#message")).to_be_focused()
    ada.page.keyboard.press("Enter")
    expect(answers(ada.page)).to_have_text(HELLO)


def test_page_says_that_the_server_has_gone_and_connects_for_the_next_message(
    visit: Visit,
) -> None:
    with echo() as server:
        port = server.server_port
        ada = visit(server)
        is_connected(ada.page)
        server.signal()
        # The browser may ask for the icon of the page as late as now.
        ada.forgive("ERR_CONNECTION_REFUSED")
        expect(ada.page.locator("#status")).to_have_text("Closed: 1001, going away")
        assert server.wait() == 0
    ada.page.press("#message", "Enter")
    expect(ada.page.locator("#closed-text")).to_contain_text("Not a clean end. Nobody closed it")
    ada.page.locator("#lines summary").last.click()
    expect(ada.page.locator("#lines .body").last).to_contain_text(
        "1 message waited for the connection, and was not sent."
    )
    with echo("--port", str(port)) as server:
        ada.page.press("#message", "Enter")
        expect(answers(ada.page)).to_have_text(HELLO)
        expect(ada.page.locator("#status")).to_have_text("Connected")


def test_page_says_that_a_connection_broke_without_a_close(page: "Page", server: Program) -> None:
    with Forwarder(server.server_port) as forwarder:
        page.goto(forwarder.url)
        is_connected(page)
        forwarder.hang_up()
        expect(page.locator("#status")).to_have_text("Closed: 1006, abnormal closure")
        expect(line(page, "received", "close")).to_have_count(0)
        closed = page.locator("#closed-text")
        expect(closed).to_contain_text("Not a clean end. Nobody closed it")
        page.goto("about:blank")


# A connection that died without notice

NO_ANSWER = "Connection lost: the server did not answer"


def test_page_notices_a_dead_connection_although_its_user_keeps_sending(echo_fake: "Page") -> None:
    for _ in range(3):
        echo_fake.click("#send-button")
        echo_fake.clock.run_for("00:04")
    expect(echo_fake.locator("#status")).to_have_text(NO_ANSWER)
    expect(line(echo_fake, "none", "overdue")).to_have_count(1)
    echo_fake.click("#send-button")
    expect(echo_fake.locator("#status")).to_have_text("Connected")
    assert echo_fake.evaluate("sockets.length") == 2


def test_page_notices_that_the_second_of_two_messages_is_not_answered(echo_fake: "Page") -> None:
    echo_fake.click("#send-button")
    echo_fake.click("#send-button")
    receive_texts(echo_fake, "the first")
    echo_fake.clock.run_for("00:11")
    expect(echo_fake.locator("#status")).to_have_text(NO_ANSWER)
    echo_fake.click("#send-button")
    receive_texts(echo_fake, "the only one")
    echo_fake.clock.run_for("00:11")
    expect(echo_fake.locator("#status")).to_have_text("Connected")


def test_page_notices_that_a_pong_or_a_close_is_never_told(echo_fake: "Page") -> None:
    for text in ("/ping", "/close 4000"):
        echo_fake.fill("#message", text)
        echo_fake.press("#message", "Enter")
        echo_fake.clock.run_for("00:11")
        expect(echo_fake.locator("#status")).to_have_text(NO_ANSWER)


def test_page_replaces_a_socket_that_does_not_open(page: "Page", server: Program) -> None:
    page.add_init_script(FAKE_SOCKETS)
    page.add_init_script("accepting = null")
    page.clock.install()
    page.goto(server.url)
    expect(page.locator("#status")).to_have_text("Connecting…")
    page.click("#send-button")
    page.clock.run_for("00:11")
    lost = "Connection lost: it did not open in time"
    expect(page.locator("#status")).to_have_text(lost)
    page.evaluate("sockets[0].lose()")  # that it closes at last changes nothing
    expect(page.locator("#status")).to_have_text(lost)
    page.evaluate("accepting = true")
    page.click("#send-button")
    expect(page.locator("#status")).to_have_text("Connected")
    assert page.evaluate("sent") == [HELLO]


def test_page_does_not_wait_for_a_close_that_never_comes(echo_fake: "Page") -> None:
    ask_to_close(echo_fake, "page", "4000")
    expect(echo_fake.locator("#status")).to_have_text("Closing…")
    receive_texts(echo_fake, "sent before the Close came")
    echo_fake.clock.run_for("00:11")
    lost = "Connection lost: the server did not answer the Close"
    expect(echo_fake.locator("#status")).to_have_text(lost)
    echo_fake.get_by_role("button", name="Connect again").click()
    expect(echo_fake.locator("#status")).to_have_text("Connected")


def test_large_message_that_is_still_on_its_way_is_waited_for(echo_fake: "Page") -> None:
    echo_fake.evaluate(
        """() => {
            sockets[0].send = function () {
                this.bufferedAmount = 1000;
                window.draining = setInterval(() => { this.bufferedAmount -= 10; }, 1_000);
            };
        }"""
    )
    echo_fake.click("#send-button")
    echo_fake.clock.run_for("01:00")
    expect(echo_fake.locator("#status")).to_have_text("Connected")
    echo_fake.evaluate("clearInterval(draining)")
    echo_fake.clock.run_for("00:25")
    expect(echo_fake.locator("#status")).to_have_text(NO_ANSWER)


def test_page_replaces_a_dead_connection(page: "Page", server: Program) -> None:
    page.clock.install()
    with Forwarder(server.server_port) as forwarder:
        page.goto(forwarder.url)
        expect(page.locator("#status")).to_have_text("Connected")
        forwarder.go_deaf()
        page.fill("#message", "lost")
        page.click("#send-button")
        page.clock.run_for("00:11")
        expect(page.locator("#status")).to_have_text(NO_ANSWER)
        page.fill("#message", "answered")
        page.click("#send-button")
        expect(answers(page)).to_have_text(["answered"])
        page.clock.run_for("00:11")
        expect(page.locator("#status")).to_have_text("Connected")
        page.goto("about:blank")

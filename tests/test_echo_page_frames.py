"""The frames that the echo page draws, against the bytes that travelled (RFC 6455, 5.2)."""

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from echo_page import answers, ask_to_close, is_connected, line
from pages import FAKE_SOCKETS, Visit, expect, receive_texts
from peers import xor
from programs import ROOT, echo
from proxy import Forwarder

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser

DRAWN_BYTES = 24  # of a payload
READ_FRAME = """view => {
    const texts = (root, selector) =>
        [...root.querySelectorAll(selector)].map((each) => each.textContent.trim());
    return {
        bits: texts(view, '.digit').join(''),
        left_out: texts(view, '.left-out').join(''),
        values: Object.fromEntries([...view.querySelectorAll('.fields tbody tr')].map(
            (row) => ['button', '.value'].map((part) => row.querySelector(part).textContent))),
        places: texts(view, '.fields .place'),
        meanings: texts(view, '.fields td.note'),
        bytes: Object.fromEntries([...view.querySelectorAll('.bytes tr')].map(
            (row) => [row.querySelector('th').textContent, texts(row, 'td').join(' ')])),
    };
}"""


class Raw(NamedTuple):
    """A frame as it travelled."""

    header: bytes  # with its masking key
    payload: bytes  # masked, if it is

    @property
    def key(self) -> bytes:
        return self.header[-4:] if self.header[1] & 0x80 else b""

    @property
    def unmasked(self) -> bytes:
        return xor(self.payload, self.key) if self.key else self.payload

    @property
    def bits(self) -> str:
        return "".join(f"{byte:08b}" for byte in self.header + self.payload[:DRAWN_BYTES])

    def values(self) -> dict[str, str]:
        """The fields of 5.2, and their values as the page writes them."""
        first, second = self.header[:2]
        values = {
            "FIN": f"{first >> 7}",
            "RSV1": f"{first >> 6 & 1}",
            "RSV2": f"{first >> 5 & 1}",
            "RSV3": f"{first >> 4 & 1}",
            "Opcode": f"{first & 15:04b} = 0x{first & 15:x}",
            "MASK": f"{second >> 7}",
            "Payload length": f"{second & 127:07b} = {second & 127}",
        }
        extended = self.header[2 : {126: 4, 127: 10}.get(second & 127, 2)]
        if extended:
            values["Extended payload length"] = f"{extended.hex(' ')} = {len(self.payload)}"
        if self.key:
            values["Masking key"] = self.key.hex(" ")
        if first & 15 == 8:
            return values | self._values_of_close()
        if self.payload:
            values["Payload data"] = beginning(self.payload)
        if self.payload and self.key:
            values["Payload, unmasked"] = beginning(self.unmasked)
        return values

    def _values_of_close(self) -> dict[str, str]:
        code = self.payload[:2]
        values = {"Close code": f"{code.hex(' ')} = {int.from_bytes(code, 'big')}"}
        return values | {"Close reason": beginning(self.payload[2:])}


def beginning(data: bytes) -> str:
    return data[:8].hex(" ") + (" …" if len(data) > 8 else "")


def cut(data: bytes) -> list[Raw]:
    """The frames of one direction, behind the opening handshake."""
    _, _, data = data.partition(b"\r\n\r\n")
    frames = []
    while data:
        short = data[1] & 127
        extended = {126: 2, 127: 8}.get(short, 0)
        size = int.from_bytes(data[2 : 2 + extended], "big") if extended else short
        begin = 2 + extended + (4 if data[1] & 128 else 0)
        frames.append(Raw(data[:begin], data[begin : begin + size]))
        data = data[begin + size :]
    return frames


def recorded(wire: Forwarder) -> tuple[list[Raw], list[Raw]]:
    """The frames of the one WebSocket: the client's, and the server's but for those that tell."""
    ((client, server),) = (each for each in wire.recorded if b"Sec-WebSocket-Key" in each[0])
    told = [each for each in cut(bytes(server)) if not each.payload.startswith(b"/frame ")]
    return cut(bytes(client)), told


def only(frames: list[Raw], payload: bytes) -> Raw:
    """The one frame with this payload."""
    (found,) = (each for each in frames if each.unmasked == payload)
    return found


def open_frame(of: "Locator") -> "Locator":
    """Open a line, and show its frame."""
    of.locator("summary").click()
    of.locator(".show-frames").click()
    return of.locator(".frame")


def read(view: "Locator") -> dict[str, Any]:
    found = view.evaluate(READ_FRAME)
    assert isinstance(found, dict)
    return found


def say(page: "Page", text: str, answered: int) -> None:
    """Send a text, and wait until there are so many answers."""
    page.fill("#message", text)
    page.press("#message", "Enter")
    expect(answers(page)).to_have_count(answered)


def test_frames_of_each_kind_are_drawn_as_they_travelled(visit: Visit) -> None:
    with echo() as server, Forwarder(server.server_port) as wire:
        page = visit(wire).page
        is_connected(page)
        say(page, "aé你", 1)
        for number, example in enumerate(("Four bytes", "126 bytes", "65,536 bytes", "Nothing"), 2):
            page.get_by_role("button", name=example, exact=True).click()
            expect(answers(page)).to_have_count(number)
        say(page, "/ping hello", 6)
        page.fill("#parts", "Hel lo")
        page.get_by_role("button", name="Ask for fragments").click()
        expect(answers(page)).to_have_count(7)
        ask_to_close(page, "server", "4001", "bye")
        expect(page.locator("#closed")).to_be_visible()
        client, told = recorded(wire)
        sent, received = line(page, "sent", "text"), line(page, "received", "text")
        for of, raw in (
            (sent.nth(0), client[0]),
            (line(page, "sent", "binary"), client[1]),
            (sent.nth(1), client[2]),
            (sent.filter(has_text="/ping"), only(client, b"/ping hello")),
            (received.nth(0), told[0]),
            (line(page, "received", "binary"), told[1]),
            (received.nth(1), told[2]),
            (received.nth(2), told[3]),
            (received.nth(3), told[4]),
            (line(page, "received", "ping"), only(told, b"hello")),
            (line(page, "sent", "pong"), only(client, b"hello")),
            (line(page, "received", "close"), told[-1]),
        ):
            drawn = read(open_frame(of))
            assert (drawn["bits"], drawn["values"]) == (raw.bits, raw.values())
            left_out = len(raw.payload) - DRAWN_BYTES
            expected = f"… and {left_out:,} more bytes of payload" if left_out > 0 else ""
            assert drawn["left_out"] == expected
        headers = [
            b"\x81\x06",
            b"\x82\x04",
            b"\x81\x7e\x00\x7e",
            b"\x81\x7f" + (1 << 16).to_bytes(8),
        ]
        assert [each.header for each in told[:4]] == headers
        assert [each.header[0] for each in client[:3]] == [0x81, 0x82, 0x81]
        first = read(line(page, "sent", "text").first.locator(".frame"))
        assert first["bytes"] == {
            "On the wire": client[0].payload.hex(" "),
            "XOR key": (client[0].key * 2)[:6].hex(" "),
            "Payload": "61 c3 a9 e4 bd a0",
            "Characters": "a é 你",
        }
        assert "XORed with byte i mod 4 of the key" in first["meanings"][7]
        check_fragments(page, [each for each in told if each.header[0] in (0x01, 0x80)])


def check_fragments(page: "Page", raws: list[Raw]) -> None:
    """The line of a message in fragments has them all, and leads from one to the next."""
    assert [each.payload for each in raws] == [b"Hel", b"lo"]
    of = line(page, "received", "text").last
    expect(of).to_contain_text("Hello")
    view = open_frame(of)
    expect(of.locator(".position")).to_have_text("Frame 1 of 2")
    for raw in raws:
        drawn = read(view)
        assert (drawn["bits"], drawn["values"]) == (raw.bits, raw.values())
        if raw is raws[0]:
            assert drawn["meanings"][0] == "Not set: more fragments of the message follow."
            of.get_by_role("button", name="Next").click()
            expect(of.locator(".position")).to_have_text("Frame 2 of 2")
    assert drawn["meanings"][0] == "Set: this is the last fragment of its message."


def test_compressed_frame_is_drawn_its_fields_are_chosen_by_keys_and_the_code_is_shown(
    visit: Visit,
) -> None:
    with echo("--deflate") as server, Forwarder(server.server_port) as wire:
        page = visit(wire).page
        is_connected(page)
        say(page, "hello hello hello", 1)
        client, _ = recorded(wire)
        view = open_frame(line(page, "sent", "text").first)
        drawn = read(view)
        inflated = "68 65 6c 6c 6f 20 68 65 …"
        assert drawn["bits"] == client[0].bits
        assert drawn["values"] == client[0].values() | {"Payload, inflated": inflated}
        assert drawn["values"]["RSV1"] == "1"
        assert drawn["bytes"]["Characters"] == " ".join("hello␣hello␣hello")
        # The figure is for the eyes; the table's buttons lead through the fields.
        expect(view.locator(".bits")).to_have_attribute("aria-hidden", "true")
        view.get_by_role("button", name="FIN").focus()
        for key, field in (("ArrowDown", "rsv1"), ("Tab", "rsv2"), ("ArrowUp", "rsv1")):
            page.keyboard.press(key)
            expect(view).to_have_attribute("data-chosen", field)
            expect(view.locator(".bit.chosen .digit")).to_have_count(1)
            expect(view.locator("[aria-pressed=true]")).to_have_text(field.upper())
        expect(view.locator("mark").first).to_contain_text("rsv = data[at] & 0x70")
        view.locator(".bit[data-field=key]").last.hover()
        expect(view.locator(".bit.chosen")).to_have_count(32)
        mark = view.locator("mark").first
        expect(mark).to_contain_text("self._key = data[end - 4 : end]")
        number, _, code = (mark.text_content() or "").partition("self.")
        source = (ROOT / "rfc6455" / "frames.py").read_text(encoding="utf-8").splitlines()
        assert source[int(number) - 1].strip() == f"self.{code.strip()}"
        expect(view.locator(".reads .title").first).to_contain_text("rfc6455/frames.py, lines ")
        check_closes(page)


def check_closes(page: "Page") -> None:
    """Of the Close frames that nobody tells, the page draws what it knows."""
    ask_to_close(page, "page", "3000", "é")
    expect(page.locator("#closed")).to_be_visible()
    sent = read(open_frame(line(page, "sent", "close")))
    assert sent["bits"] == "1000" + "1000" + "1" + "0000100" + "?" * 64
    assert sent["values"]["Close code"] == "0b b8 = 3000"
    assert sent["bytes"]["Payload"] == "0b b8 c3 a9"
    assert sent["bytes"]["Characters"] == "3000 é"
    answer = read(open_frame(line(page, "received", "close")))
    assert answer["bits"] == "1000" + "1000" + "0" + "0000010" + "0000101110111000"


def told(**changes: Any) -> str:
    """An event that tells of a Ping of the keepalive, with some fields changed."""
    frame = {
        "number": 1,
        "from": "server",
        "message": None,
        "fragment": None,
        "header": "8900",
        "fin": True,
        "rsv": 0,
        "opcode": 9,
        "masked": False,
        "short_length": 0,
        "extended_length": "",
        "length": 0,
        "masking_key": "",
        "wire_payload": "",
        "payload": "",
        "is_text": False,
        "inflated": None,
        "inflated_length": 0,
        "close": None,
    }
    return f"/frame {json.dumps(frame | changes)}"


def test_frame_may_be_told_before_its_line_is_there_or_after_it_was_opened(
    page: "Page", visit: Visit
) -> None:
    with echo() as server:
        page.add_init_script(FAKE_SOCKETS)
        page.goto(server.url)
        is_connected(page)
        one = {"opcode": 1, "fragment": 1, "length": 1, "short_length": 1, "is_text": True}
        # No browser sets RSV2, but each bit has its place.
        receive_texts(page, told(message=1, rsv=2, wire_payload="61", payload="61", **one))
        receive_texts(page, "a", "b")
        first, second = line(page, "received", "text").all()
        drawn = read(open_frame(first))
        assert drawn["values"]["Payload data"] == "61"
        assert drawn["bits"] == "1010" + "0001" + "0" + "0000001" + "01100001"
        second.locator("summary").click()
        expect(second.locator(".frames")).to_be_hidden()
        receive_texts(page, told(message=2, wire_payload="62", payload="62", **one))
        second.locator(".show-frames").click()
        assert read(second.locator(".frame"))["values"]["Payload data"] == "62"
        # The keepalive's frames have no lines.
        receive_texts(page, *(told() for _ in range(30)), '/dropped {"frames": 3}')
        expect(page.locator("#lines .row")).to_have_count(4)
        expect(line(page, "none", "dropped")).to_contain_text("3 frames were not told")
        connection = line(page, "none", "open")
        view = open_frame(connection)
        assert read(view)["bits"] == "1000100100000000"
        connection.get_by_role("button", name="Next").click()
        expect(connection.locator(".position")).to_have_text("Frame 12 of 30")

"""What the chat's page makes of a text: addresses become links, a message of a few emoji becomes
large, and a name gets a colour that can be read. Everything else stays as it was written.
"""

import json
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pages import expect, receive, receive_texts, send

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

RLO = "\u202e"  # turns the direction of the text around
LONG_ADDRESS = "https://long.example/" + "a" * 1_979

# Each text, and the links in it: what is shown, and where it leads
LINKS: dict[str, list[tuple[str, str]]] = {
    # In the middle of a sentence
    "https://a.example": [("https://a.example", "https://a.example/")],
    "http://a.example/b?c=d&e=%20#f": [
        ("http://a.example/b?c=d&e=%20#f", "http://a.example/b?c=d&e=%20#f")
    ],
    "HTTPS://A.example/B": [("HTTPS://A.example/B", "https://a.example/B")],
    "see https://a.example.": [("https://a.example", "https://a.example/")],
    "https://a.example/b, https://c.example!": [
        ("https://a.example/b", "https://a.example/b"),
        ("https://c.example", "https://c.example/"),
    ],
    "https://a.example/b,https://c.example/d": [
        ("https://a.example/b", "https://a.example/b"),
        ("https://c.example/d", "https://c.example/d"),
    ],
    "is it https://a.example/b?": [("https://a.example/b", "https://a.example/b")],
    "*https://a.example/b_*": [("https://a.example/b", "https://a.example/b")],
    "one\nhttps://a.example/b…\ntwo": [("https://a.example/b", "https://a.example/b")],
    "https://web.example/https://a.example/": [
        ("https://web.example/https://a.example/", "https://web.example/https://a.example/")
    ],
    # Brackets and quotation marks
    "(https://a.example/b)": [("https://a.example/b", "https://a.example/b")],
    "https://a.example/b_(c)": [("https://a.example/b_(c)", "https://a.example/b_(c)")],
    "(see https://a.example/b_(c)).": [("https://a.example/b_(c)", "https://a.example/b_(c)")],
    "[https://a.example/b[1]]": [("https://a.example/b[1]", "https://a.example/b[1]")],
    "https://[::1]:8000/b": [("https://[::1]:8000/b", "https://[::1]:8000/b")],
    "{https://a.example/}": [("https://a.example/", "https://a.example/")],
    "<https://a.example/b>": [("https://a.example/b", "https://a.example/b")],
    '"https://a.example/b"': [("https://a.example/b", "https://a.example/b")],
    "'https://a.example/b'": [("https://a.example/b", "https://a.example/b")],
    "“https://a.example/b”": [("https://a.example/b", "https://a.example/b")],
    "`https://a.example/b`": [("https://a.example/b", "https://a.example/b")],
    "https://a.example/o'clock": [("https://a.example/o'clock", "https://a.example/o'clock")],
    # Chinese has no spaces, and punctuation of its own
    "看https://a.example/b。后面": [("https://a.example/b", "https://a.example/b")],
    "\uff08https://a.example/b\uff09": [("https://a.example/b", "https://a.example/b")],
    "去https://a.example吧": [("https://a.example", "https://a.example/")],
    "去http://127.0.0.1:8000吧": [("http://127.0.0.1:8000", "http://127.0.0.1:8000/")],
    "去http://localhost吧/好": [("http://localhost", "http://localhost/")],
    "https://a.example/wiki/C语言": [
        ("https://a.example/wiki/C语言", "https://a.example/wiki/C%E8%AF%AD%E8%A8%80")
    ],
    # Hosts in other scripts
    "https://例子.中国/": [("https://例子.中国/", "https://xn--fsqu00a.xn--fiqs8s/")],
    "https://bücher.example/": [("https://bücher.example/", "https://xn--bcher-kva.example/")],
    "https://пример.рф": [("https://пример.рф", "https://xn--e1afmkfd.xn--p1ai/")],
    # Who reads fast takes what is before the @ for the host, so this is no link.
    "https://bank.example:443@evil.example/": [],
    "https://bank.example@evil.example/": [],
    # Other schemes, and what only looks like an address
    "mailto:ada@a.example?subject=hi.": [
        ("mailto:ada@a.example?subject=hi", "mailto:ada@a.example?subject=hi")
    ],
    "mailto:nobody": [],
    "javascript:alert(1)": [],
    "javascript://a.example/%0aalert(1)": [],
    "data:text/html,<script>alert(1)</script>": [],
    "ftp://a.example/": [],
    "file:///etc/passwd": [],
    "a.example www.a.example": [],
    "https:// http:/a https://..": [],
    "shttps://a.example": [],
    # Characters that turn the text around end an address, and are none themselves.
    f"https://a.example/{RLO}gpj.exe": [("https://a.example/", "https://a.example/")],
    f"{RLO}https://a.example/b": [("https://a.example/b", "https://a.example/b")],
    # Markup
    "https://a.example/<b>x</b>": [("https://a.example/", "https://a.example/")],
    "https://a.example/&lt;b&gt;&amp": [
        ("https://a.example/&lt;b&gt;&amp", "https://a.example/&lt;b&gt;&amp")
    ],
    # Length
    LONG_ADDRESS: [(LONG_ADDRESS, LONG_ADDRESS)],
    LONG_ADDRESS + "a": [],
    # Short names are for what people write, not for addresses.
    "https://a.example/:robot:/b": [("https://a.example/:robot:/b", "https://a.example/:robot:/b")],
}


def drawn_links(page: "Page") -> list[list[tuple[str, str]]]:
    """The links of each message, as in LINKS."""
    found: list[list[list[str]]] = page.locator("#messages .text").evaluate_all(
        """all => all.map((text) =>
            [...text.querySelectorAll('a')].map((a) => [a.textContent, a.href]))"""
    )
    return [[(text, address) for text, address in links] for links in found]


def test_addresses_become_links_and_nothing_else_does(fake_page: "Page") -> None:
    for number, text in enumerate(LINKS):
        receive(fake_page, f"17-{number}", text)
    expect(fake_page.locator("#messages .text")).to_have_count(len(LINKS))
    drawn = dict(zip(LINKS, drawn_links(fake_page), strict=True))
    assert {text: each for text, each in drawn.items() if each != LINKS[text]} == {}
    texts = fake_page.locator("#messages .text").evaluate_all(
        "all => all.map((text) => text.textContent)"
    )
    assert texts == list(LINKS)  # every character is still there, and no markup was made


def test_link_opens_beside_the_chat_tells_nothing_and_shows_where_it_leads(
    fake_page: "Page",
) -> None:
    receive(fake_page, "17-1", "see https://bücher.example/x.")
    link = fake_page.locator("#messages a")
    expect(link).to_have_attribute("target", "_blank")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(link).to_have_attribute("title", "https://xn--bcher-kva.example/x")


def test_short_names_around_an_address_become_emoji(fake_page: "Page") -> None:
    receive(fake_page, "17-1", ":robot: https://a.example/:robot:/b :robot:")
    expect(fake_page.locator("#messages .text")).to_have_text("🤖 https://a.example/:robot:/b 🤖")


# What would take minutes if each character at the end were looked for in the whole text.
SLOW_ENDS = [")", "](", "a吧.", "a吧x@", ".", "https://", ",https://a", "👩\u200d", "🇩", "1\ufe0f"]


def test_longest_possible_texts_are_drawn_without_delay(fake_page: "Page") -> None:
    for number, end in enumerate(SLOW_ENDS):
        receive(fake_page, f"17-{2 * number}", "https://a" + end * (60_000 // len(end)))
        receive(fake_page, f"17-{2 * number + 1}", end * (60_000 // len(end)) + "x")
    expect(fake_page.locator("#messages .text")).to_have_count(2 * len(SLOW_ENDS))


# Large emoji

LARGE = {
    "one": "😀",
    "eight": "😀" * 8,
    "with spaces and lines": " 😀 😀\n😀 ",
    "a flag": "🇩🇪",
    "two flags": "🇩🇪🇨🇳",
    "the flag of England": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "the rainbow flag": "🏳️\u200d🌈",
    "a skin tone": "👍🏽",
    "a family": "👩\u200d👩\u200d👧\u200d👦",
    "a couple with skin tones": "👩🏽\u200d❤️\u200d👨🏿",
    "red hair": "👩\u200d🦰",
    "a runner": "🏃🏻\u200d♀️",
    "a key": "1️⃣",
    "a heart": "❤️",
    "a sign that is marked as an emoji": "©️",
    "a short name": ":robot:",
    "short names": ":robot::robot: 😀",
}
NOT_LARGE = {
    "nine": "😀" * 9,
    "digits": "123",
    "signs": "#*",
    "with a word": "😀 yes",
    "with a full stop": "😀.",
    "half a flag": "🇩",
    "a joiner alone": "\u200d",
    "a trademark": "™",
    "copyright": "©",
    "nothing": " ",
    "no short name": ":no_such_thing:",
    "a skin tone and a word": "x🏽",
    "a link": "https://a.example/😀",
}


def test_message_of_a_few_emoji_alone_is_large(fake_page: "Page") -> None:
    texts = [*LARGE.items(), *NOT_LARGE.items()]
    for number, (_, text) in enumerate(texts):
        receive(fake_page, f"17-{number}", text)
    drawn = fake_page.locator("#messages .text")
    expect(drawn).to_have_count(len(texts))
    sizes = drawn.evaluate_all(
        "all => all.map((each) => parseFloat(getComputedStyle(each).fontSize))"
    )
    large = [name for (name, _), size in zip(texts, sizes, strict=True) if size > 30]
    assert large == list(LARGE)


def test_own_message_of_emoji_alone_is_large_while_it_is_on_its_way(fake_page: "Page") -> None:
    send(fake_page, ":robot:")
    expect(fake_page.locator("#messages .pending .only-emoji")).to_have_text("🤖")


# Colours

# The contrast of each text that has a person's colour, or stands on one, to what is behind it, as
# WCAG 2.2 defines it. A canvas tells which colours the browser really draws.
CONTRASTS = """() => {
    const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const luminances = new Map();
    const luminance = (color) => {
        if (luminances.has(color)) return luminances.get(color);
        context.fillStyle = '#f0f';
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((byte) => {
            const part = byte / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        luminances.set(color, 0.2126 * r + 0.7152 * g + 0.0722 * b);
        return luminances.get(color);
    };
    const behind = (element) => {
        const { backgroundColor } = getComputedStyle(element);
        const isClear = backgroundColor === 'rgba(0, 0, 0, 0)';
        return isClear ? behind(element.parentElement) : backgroundColor;
    };
    const contrasts = [...document.querySelectorAll('.coloured')].map((element) => {
        const { color } = getComputedStyle(element);
        const [low, high] = [luminance(color), luminance(behind(element))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    });
    return { count: contrasts.length, least: Math.min(...contrasts), colours: luminances.size };
}"""


SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def avatar_of(hue: int) -> str:
    """A hash that gives a person this hue."""
    return f"{hue:06x}" + "0" * 58


def test_names_and_initials_of_every_hue_contrast_with_what_is_behind_them(
    fake_page: "Page",
) -> None:
    people: list[dict[str, Any]] = [
        {"username": f"Bob {hue}", "avatar": avatar_of(hue)} for hue in range(360)
    ]
    for number, person in enumerate(people):
        receive(fake_page, f"17-{number}", "x", **person)
    receive_texts(fake_page, json.dumps({"event": "online", "count": 360, "people": people}))
    expect(fake_page.locator("#messages .name")).to_have_count(360)
    expect(fake_page.locator("#online .name")).to_have_count(360)
    for width in (1280, 360):  # the list of people has another background on a small screen
        fake_page.set_viewport_size({"width": width, "height": 640})
        if width == 360:
            fake_page.locator("#show-online").click()
        for scheme in SCHEMES:
            fake_page.emulate_media(color_scheme=scheme)
            found = fake_page.evaluate(CONTRASTS)
            assert found["count"] == 4 * 360
            assert found["colours"] > 600  # these are not all one colour
            assert found["least"] >= 4.5, f"{scheme}, {width} px"


# Where the letters of the newest message begin and end, and its author's name, in px
EDGES = """() => {
    const message = [...document.querySelectorAll('#messages .message')].at(-1);
    const range = document.createRange();
    range.selectNodeContents(message.querySelector('.text'));
    const { left, right } = range.getBoundingClientRect();
    const name = message.querySelector('.name').getBoundingClientRect();
    return { left, right, name: name.left, list: message.getBoundingClientRect().right };
}"""


def edges_of_newest(page: "Page", count: int) -> dict[str, float]:
    """The same, once so many messages are drawn."""
    expect(page.locator("#messages .text")).to_have_count(count)
    edges = page.evaluate(EDGES)
    assert isinstance(edges, dict)
    return edges


def test_text_from_right_to_left_stands_below_its_authors_name(fake_page: "Page") -> None:
    for number, (name, text) in enumerate([("Noor", "صباح الخير!"), ("نور", "שלום")]):
        receive(fake_page, f"{number + 1}-0", text, username=name)
        edges = edges_of_newest(fake_page, number + 1)
        assert abs(edges["left"] - edges["name"]) < 4
    # Of two lines the shorter one ends where the longer one does. A long text fills the width.
    receive(fake_page, "3-0", "صباح الخير\nنعم", username="Adam")
    edges = edges_of_newest(fake_page, 3)
    assert abs(edges["left"] - edges["name"]) < 4
    receive(fake_page, "4-0", "صباح الخير " * 100, username="Noor")
    edges = edges_of_newest(fake_page, 4)
    assert edges["right"] > edges["list"] - 40

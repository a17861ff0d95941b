"""The README's picture: deliveries a second to 1,000 clients, as SVG written by hand."""

from __future__ import annotations

import html
import math

from report import Data, cell
from scenarios import SCENARIOS_BY_NAME
from servers import FLOOR, OURS

PANELS = ("fan-out-one", "fan-out-load")
LABEL_WIDTH = 220  # pixels, as all of these
BAR_WIDTH = 460  # of the longest bar
NUMBER_WIDTH = 80
LINE_HEIGHT = 24
WIDTH = LABEL_WIDTH + BAR_WIDTH + NUMBER_WIDTH
SHORTEST = 10_000.0  # deliveries a second, where the logarithmic scale begins
COLOURS = {OURS: "#d1442f", FLOOR: "#d0d7de"}
OTHER_COLOUR = "#9db4c8"
TEXT = '<text x="{x}" y="{y}" text-anchor="{anchor}"{style}>{text}</text>'


def fan_out(data: Data) -> str | None:
    """None if these scenarios were not measured."""
    panels = {}
    for name in PANELS:
        cells = {peer: cell(data, SCENARIOS_BY_NAME[name], peer) for peer in data["titles"]}
        medians = {peer: found.median for peer, found in cells.items() if found}
        panels[name] = sorted(medians.items(), key=lambda item: -item[1])
    if not all(panels.values()):
        return None
    longest = max(rate for bars in panels.values() for _, rate in bars)
    shapes: list[str] = []
    y = LINE_HEIGHT
    for name, bars in panels.items():
        title = SCENARIOS_BY_NAME[name].title + ", deliveries a second (logarithmic)"
        shapes.append(text(0, y, "start", title, ' font-weight="bold"'))
        for peer, rate in bars:
            y += LINE_HEIGHT
            shapes += bar(y, data["titles"][peer], rate, longest, COLOURS.get(peer, OTHER_COLOUR))
        y += 2 * LINE_HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - LINE_HEIGHT}"'
    style = 'font-family="DejaVu Sans, Verdana, Arial, sans-serif" font-size="13" fill="#24292f"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f"{head} {style}>", background, *shapes, "</svg>\n"])


def bar(y: int, title: str, rate: float, longest: float, colour: str) -> list[str]:
    share = math.log(max(rate, SHORTEST) / SHORTEST) / math.log(longest / SHORTEST)
    length = max(2, round(BAR_WIDTH * share))
    return [
        text(LABEL_WIDTH - 8, y, "end", title),
        f'<rect x="{LABEL_WIDTH}" y="{y - 14}" width="{length}" height="18" fill="{colour}"/>',
        text(LABEL_WIDTH + length + 6, y, "start", f"{rate:,.0f}"),
    ]


def text(x: int, y: int, anchor: str, words: str, style: str = "") -> str:
    return TEXT.format(x=x, y=y, anchor=anchor, style=style, text=html.escape(words))

"""The plots, from results.json alone: `python plots.py RESULTS_JSON FOLDER`.

Runs in the benchmark's own environment, which has matplotlib. The same data give the same
bytes, so that a plot changes in git only when its figures do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from report import METRICS, Metric, Row, rows
from servers import FLOOR, OURS, PEERS_BY_NAME

Data = dict[str, Any]

INK = "#24292f"
FAINT = "#d0d7de"
OURS_COLOUR = "#d1442f"
FLOOR_COLOUR = "#8c959f"
COLOURS = {  # by the Okabe-Ito palette's idea: told apart by most colour-blind readers
    OURS: OURS_COLOUR,
    FLOOR: FLOOR_COLOUR,
    "go-original": "#0072b2",
    "go-hub": "#56b4e9",
    "gorilla": "#0072b2",
    "socketify": "#009e73",
    "websockets-asyncio": "#e69f00",
    "websockets-threads": "#b8860b",
    "aiohttp": "#cc79a7",
    "simple-websocket": "#7f5aa8",
    "websocket-server": "#5f6b7a",
}
MARKERS = "osD^vP*Xph<"
STYLE: dict[str, Any] = {
    "svg.hashsalt": "benchmarks",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
}


def metric(scenario: str, phase: str, key: str = "per_second") -> Metric:
    return next(m for m in METRICS if (m.scenario, m.phase, m.key) == (scenario, phase, key))


def short(quantity: float, _position: object = None) -> str:
    """Three digits: 9.81 M, 143 k, 87."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if quantity >= limit:
            return f"{quantity / limit:.3g}{unit}"
    return f"{quantity:.3g}"


def titles(found: list[Row]) -> list[str]:
    return [PEERS_BY_NAME[row.peer].title for row in found]


def bars(axes: Axes, found: list[Row]) -> None:
    """Horizontal, best on top, the figure written at each bar's end."""
    places = range(len(found))
    for place, row in zip(places, found, strict=True):
        colour = {OURS: OURS_COLOUR, FLOOR: "white"}.get(row.peer, "#9db4c8")
        edge = FLOOR_COLOUR if row.peer == FLOOR else colour
        style = "--" if row.peer == FLOOR else "-"
        axes.barh(place, row.median, color=colour, edgecolor=edge, linestyle=style, height=0.68)
        if row.peer == FLOOR:
            axes.axvline(row.median, color=FLOOR_COLOUR, linestyle="--", linewidth=1)
        axes.annotate(
            short(row.median),
            (row.median, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )
    axes.set_yticks(places, [PEERS_BY_NAME[row.peer].title for row in found])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def fan_out_plot(data: Data) -> Figure | None:
    """Deliveries a second at 1,000 clients; the floor is an outline, not a competitor."""
    panels = (("load-1", "under load"), ("one", "one message in flight"))
    found = {phase: rows(data, metric("fanout-1000", phase)) for phase, _ in panels}
    if not all(found.values()):
        return None
    figure, both = plt.subplots(2, 1, figsize=(8, 7.2), layout="constrained", sharex=True)
    everything = [row.median for each in found.values() for row in each]
    for axes, (phase, title) in zip(both, panels, strict=True):
        bars(axes, found[phase])
        axes.set_xscale("log")
        axes.set_xlim(min(everything) / 2, max(everything) * 3)  # room for the last label
        axes.xaxis.set_major_locator(LogLocator(10))
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x")
        axes.set_title(f"1,000 clients, {title}")
    both[-1].set_xlabel("deliveries a second (logarithmic)")
    return figure


def echo_panel(axes: Axes, found: list[Row], order: list[str]) -> None:
    """A stem from 1, which is this project, to each program's rate by ours."""
    ours = next(row.median for row in found if row.peer == OURS)
    axes.axvline(1.0, color=OURS_COLOUR, linewidth=1.6)
    for row in found:
        if row.peer == OURS:
            continue
        place, by_ours = order.index(row.peer), row.median / ours
        colour = FLOOR_COLOUR if row.peer == FLOOR else "#3d6a94"
        axes.plot([1, by_ours], [place, place], color=colour, linewidth=2.2)
        hollow = "white" if row.peer == FLOOR else colour
        axes.plot(by_ours, place, "o", color=colour, markerfacecolor=hollow, markersize=6)
        axes.annotate(
            f"{by_ours:.2g}" if by_ours < 10 else f"{by_ours:.0f}",
            (by_ours, place),
            xytext=(8 if by_ours >= 1 else -8, 0),
            textcoords="offset points",
            ha="left" if by_ours >= 1 else "right",
            va="center",
            fontsize=9,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


def echo_plot(data: Data) -> Figure | None:
    """Each program's echoes by ours: left of the line it is slower than this project."""
    found = [(m, rows(data, m)) for m in METRICS if m.scenario == "echo"]
    found = [(m, each) for m, each in found if any(row.peer == OURS for row in each)]
    if not found:
        return None
    seen = {row.peer for _, each in found for row in each} - {OURS}
    order = [name for name in PEERS_BY_NAME if name in seen]
    figure, grid = plt.subplots(2, 3, figsize=(11, 6.2), layout="constrained", sharey=True)
    places = list(grid.flat)
    for axes, (m, each) in zip(places, found, strict=False):
        echo_panel(axes, each, order)
        low, high = (edge(row.median for row in each) for edge in (min, max))
        ours = next(row.median for row in each if row.peer == OURS)
        axes.set_xlim(min(low / ours, 0.5) / 2.5, max(high / ours, 2.0) * 2.5)
        axes.set_title(m.title.replace(", ", ",\n", 1).removesuffix(" each"), fontsize=10)
        axes.set_xlabel("messages a second, this project = 1")
    for axes in places[len(found) :]:
        axes.set_visible(False)
    grid[0, 0].set_yticks(range(len(order)), [PEERS_BY_NAME[name].title for name in order])
    grid[0, 0].set_ylim(len(order) - 0.5, -0.5)
    return figure


def growth_points(data: Data, peer: str, phase: str) -> list[tuple[int, float]]:
    points = []
    for clients in (10, 100, 1000):
        for row in rows(data, metric(f"fanout-{clients}", phase)):
            if row.peer == peer:
                points.append((clients, row.median))
    if phase == "one":
        for clients in (3000, 9000):
            for row in rows(data, metric("idle", f"one-{clients}", "message_p50")):
                if row.peer == peer:
                    points.append((clients, clients / row.median * 1e3))
    return points


def growth_plot(data: Data) -> Figure | None:
    """How each program's deliveries change with the number of clients."""
    panels = (("load-1", "under load"), ("one", "one message in flight"))
    figure, both = plt.subplots(1, 2, figsize=(10, 5.2), layout="constrained", sharey=True)
    drawn = 0
    for axes, (phase, title) in zip(both, panels, strict=True):
        for (peer, colour), marker in zip(COLOURS.items(), MARKERS, strict=True):
            points = growth_points(data, peer, phase)
            if len(points) < 2:
                continue
            drawn += 1
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=2.4 if peer == OURS else 1.3,
                linestyle="--" if peer == FLOOR else "-",
                zorder=3 if peer == OURS else 2,
                label=PEERS_BY_NAME[peer].title,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(short))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(which="major")
        axes.set_title(title.capitalize())
        axes.set_xlabel("clients")
    both[0].set_ylabel("deliveries a second")
    if drawn == 0:
        plt.close(figure)
        return None
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def main() -> None:
    data: Data = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    for name, setting in STYLE.items():
        matplotlib.rcParams[name] = setting  # type: ignore[index]
    makers = {"fan-out": fan_out_plot, "echo": echo_plot, "growth": growth_plot}
    for name, make in makers.items():
        figure = make(data)
        if figure is not None:
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
            plt.close(figure)
            print(f"{name}.svg")


if __name__ == "__main__":
    main()

"""RESULTS.md out of the results: medians over the rounds, and this project against each peer."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from scenarios import (
    CHAT_BYTES,
    IDLE_CLIENTS,
    PIPELINED,
    SCENARIOS,
    SCENARIOS_BY_NAME,
    UNDER_LOAD,
    Scenario,
)
from servers import OURS

Data = dict[str, Any]

GENERATOR_BUSY = 0.95  # of a core; above it, the generator may be what is measured


@dataclass(frozen=True)
class Cell:
    """What one server reached in one scenario over the rounds."""

    values: list[float]
    generator_cores: float
    broke: bool

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, digits: int) -> str:
        """The median, how far the rounds are from it, and the marks that RESULTS.md explains."""
        marks = " †" if self.generator_cores > GENERATOR_BUSY else ""
        marks += " ‡" if self.broke else ""
        spread = ""
        if len(self.values) > 1 and self.median > 0:
            farthest = max(abs(value - self.median) for value in self.values)
            spread = f" ±{100 * farthest / self.median:.0f}%"
        return f"{self.median:,.{digits}f}{spread}{marks}"


def cell(data: Data, scenario: Scenario, peer: str) -> Cell | None:
    """None where that server was not measured, or reached nothing."""
    results = data["results"].get(scenario.name, {}).get(peer, [])
    results = [result for result in results if result["value"] is not None]
    if not results:
        return None
    return Cell(
        [result["value"] for result in results],
        statistics.median(result["generator_cores"] for result in results),
        any(not ended_whole(result) for result in results),
    )


def ended_whole(result: Data) -> bool:
    """A server that died only while clients joined was started anew and then measured."""
    return all("while clients joined" in fault for fault in result["faults"])


def measured(data: Data) -> list[Scenario]:
    return [scenario for scenario in SCENARIOS if scenario.name in data["results"]]


def ahead(data: Data, scenario: Scenario, peer: str) -> str:
    """How many times better this project is than that peer."""
    ours = cell(data, scenario, OURS)
    theirs = cell(data, scenario, peer)
    if ours is None or theirs is None or ours.median == 0 or theirs.median == 0:
        return ""
    ratio = ours.median / theirs.median
    better = ratio if scenario.higher_is_better else 1 / ratio
    return f"{better:.2f}" if better < 10 else f"{better:.0f}"


def table(head: list[str], lines: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|---|" + "--:|" * (len(head) - 1),
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
    ]


def at_a_glance(data: Data) -> list[str]:
    peers = [peer for peer in data["titles"] if peer != OURS]
    return table(
        ["this project against", *(data["titles"][peer] for peer in peers)],
        [
            [scenario.title, *(ahead(data, scenario, peer) for peer in peers)]
            for scenario in measured(data)
        ],
    )


def medians(data: Data) -> list[str]:
    lines = []
    for scenario in measured(data):
        cells = [cell(data, scenario, peer) for peer in data["titles"]]
        digits = 0 if scenario.higher_is_better else 1
        texts = [found.text(digits) if found else "" for found in cells]
        lines.append([f"{scenario.title} ({scenario.unit})", *texts])
    return table(["", *data["titles"].values()], lines)


def what_happened(data: Data) -> list[str]:
    """What broke, each once with how often it was seen."""
    seen: dict[str, int] = {}
    for name, peers in data["results"].items():
        for peer, results in peers.items():
            for fault in (fault for result in results for fault in result["faults"]):
                line = f"- {data['titles'][peer]}, {SCENARIOS_BY_NAME[name].title}: {fault}"
                seen[line] = seen.get(line, 0) + 1
    lines = [line + (f", {times} times" if times > 1 else "") for line, times in seen.items()]
    lines += [f"- Left out: {title}: {reason}" for title, reason in data["left_out"].items()]
    return [*lines, ""] if lines else ["Nothing broke.", ""]


HOW_TO_READ = f"""\
Each scenario runs its servers in turn, round after round, on the same machine; a result is the
median of the rounds, with ± the farthest round. Read the ratios: the absolute numbers belong to
one machine on one day. All servers that are written in Python run on the same interpreter.

- All run in their default configuration, but without compression, Nagle's delay and a log line for
  each message; `chat_server.py` with `--rate 0`, `echo_server.py` with `--plain`.
- A chat message is {CHAT_BYTES} bytes of JSON, which each chat decodes and encodes anew. Ours adds
  an id and a hash, so it delivers twice the bytes that the others do.
- *One message in flight*: the next message is sent when all clients have the last one. *Under
  load*: {UNDER_LOAD} messages have not yet reached every client. *Pipelined*: the connection has
  {PIPELINED:,} messages in flight.
- *The floor* is no competitor: it makes the chat's system calls on bare sockets and does nothing
  else.
- *Idle*: resident memory gained since the start, divided by {IDLE_CLIENTS:,} connections.
- † The load generator needed a whole core, so the server may be faster. ‡ The server broke while
  it was measured; the number is its rate until then.
"""


def markdown(data: Data) -> str:
    machine = [f"- {name}: {value}" for name, value in data["machine"].items()]
    lines = [
        "# Results",
        "",
        "How many times better this project is than each of the others: above 1 it is ahead.",
        "",
        *at_a_glance(data),
        "![Deliveries a second to 1,000 clients, by server](fan-out.svg)",
        "",
        "## What was measured, and on what",
        "",
        f"- Made by `python3 benchmarks`, {data['rounds']} rounds.",
        *machine,
        "",
        "## How to read it",
        "",
        HOW_TO_READ,
        "## Medians",
        "",
        *medians(data),
        "## What broke",
        "",
        *what_happened(data),
    ]
    return "\n".join(lines).rstrip() + "\n"


def summary(data: Data) -> str:
    """For the terminal: a line for each scenario and server."""
    lines = []
    for scenario in measured(data):
        lines.append(f"{scenario.title} ({scenario.unit})")
        for peer, title in data["titles"].items():
            found = cell(data, scenario, peer)
            if found:
                digits = 0 if scenario.higher_is_better else 1
                ratio = ahead(data, scenario, peer) if peer != OURS else ""
                better = f"  this project is {ratio} times as good" if ratio else ""
                lines.append(f"    {title:30} {found.text(digits):>22}{better}")
    return "\n".join([*lines, *what_happened(data)]).rstrip()

"""Tables out of the data: medians over the rounds, and ratios to this project."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from scenarios import LOG_NOTE, SCENARIOS, SCENARIOS_BY_NAME, STUCK_RATE
from servers import OURS, PEER_LIST, PEERS_BY_NAME

Data = dict[str, Any]

GENERATOR_BUSY = 0.95  # of a core; above it, the generator may be what is measured


@dataclass(frozen=True)
class Metric:
    """One table: `key` of the answers to `phase`, times `scale`."""

    scenario: str
    phase: str
    key: str
    title: str
    unit: str
    scale: float = 1.0
    higher_is_better: bool = True
    digits: int = 0


@dataclass(frozen=True)
class Row:
    """A peer's line: its values over the rounds, its costs in cores, what happened to it."""

    peer: str
    values: list[float]
    server_cores: float
    generator_cores: float
    notes: list[str]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def fan_out_metrics(clients: int) -> list[Metric]:
    name, number = f"fanout-{clients}", f"{clients:,}"
    metrics = [
        Metric(name, "load-1", "per_second", f"{number} clients, under load", "deliveries/s"),
        Metric(name, "one", "per_second", f"{number} clients, one in flight", "deliveries/s"),
        Metric(
            name,
            "one",
            "p99",
            f"{number} clients, one in flight: 99th percentile of a delivery's time",
            "ms",
            1e3,
            False,
            2,
        ),
    ]
    if clients >= 50:
        title = f"{number} clients, under load from fifty senders"
        metrics.append(Metric(name, "load-50", "per_second", title, "deliveries/s"))
    return metrics


def echo_metrics() -> list[Metric]:
    def echo(phase: str, title: str, key: str = "per_second") -> Metric:
        return Metric("echo", phase, key, title, "messages/s")

    return [
        echo("ping-pong", "32 bytes, one connection, one in flight"),
        echo("pipelined", "32 bytes, one connection, pipelined"),
        echo("hundred", "32 bytes, 100 connections, one in flight each"),
        echo("64k", "64 KB, binary, one connection"),
        echo("1m", "1 MB, binary, one connection"),
    ]


def idle_metrics(clients: int) -> list[Metric]:
    def of(phase: str, key: str, title: str, unit: str, scale: float, digits: int) -> Metric:
        title = f"{clients:,} clients: {title}"
        return Metric("idle", f"{phase}-{clients}", key, title, unit, scale, False, digits)

    return [
        of("idle", "kib_each", "memory of each connection", "KiB", 1, 1),
        of("idle", "server_cores", "idle CPU of the server", "% of a core", 100, 2),
        of("one", "message_p50", "a message has reached all", "ms", 1e3, 1),
    ]


METRICS = [
    *fan_out_metrics(1000),
    *fan_out_metrics(100),
    *fan_out_metrics(10),
    *echo_metrics(),
    Metric("handshakes", "handshakes", "per_second", "Several at a time", "connections/s"),
    *idle_metrics(3000),
    *idle_metrics(9000),
]


def rows(data: Data, metric: Metric) -> list[Row]:
    """Best first. A peer without a single figure is in its scenario's notes alone."""
    scenario = data["scenarios"].get(metric.scenario, {"peers": {}})
    found = []
    for peer, results in scenario["peers"].items():
        answers = [
            result["phases"][metric.phase]
            for result in results
            if metric.phase in result["phases"] and usable(result["phases"][metric.phase], metric)
        ]
        if not answers:
            continue
        values = [value(answer, metric) for answer in answers]
        notes = [answer["fault"] for answer in answers if "fault" in answer]
        found.append(
            Row(peer, values, cores(answers, "server_cpu"), cores(answers, "own_cpu"), notes)
        )
    return sorted(found, key=lambda row: row.median, reverse=metric.higher_is_better)


def usable(answer: Data, metric: Metric) -> bool:
    """A rate until a death is a figure, and said to be one; a delivery time then is none. What a
    server achieved by delivering something else than was sent is none either."""
    if metric.key == "per_second" and not answer.get("deliveries"):
        return False
    if "fault" not in answer:
        return True
    ended = answer["fault"].startswith(("died", "stalled", "fell behind", "the server closed"))
    return bool(ended and metric.key == "per_second")


def value(answer: Data, metric: Metric) -> float:
    if metric.key == "server_cores":
        return metric.scale * float(answer["server_cpu"]) / float(answer["seconds"])
    return metric.scale * float(answer[metric.key])


def cores(answers: list[Data], key: str) -> float:
    return statistics.median(a[key] / a["seconds"] if a["seconds"] else 0.0 for a in answers)


def ratio(ours: Row | None, row: Row) -> float | None:
    """Ours by theirs; none where there is nothing to divide."""
    if ours is None or row.median <= 0:
        return None
    return ours.median / row.median


def number(quantity: float, digits: int) -> str:
    return f"{quantity:,.{digits}f}"


def ratio_text(quantity: float | None) -> str:
    if quantity is None:
        return "–"
    return f"{quantity:.2f} ×" if quantity < 20 else f"{quantity:.0f} ×"


def table(data: Data, metric: Metric) -> list[str]:
    lines_of = rows(data, metric)
    if not lines_of:
        return []
    ours = next((row for row in lines_of if row.peer == OURS), None)
    better = "more" if metric.higher_is_better else "less"
    lines = [
        f"**{metric.title}** ({metric.unit}, {better} is better)",
        "",
        "| | median | min – max | ours by theirs | CPU: server | CPU: generator |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in lines_of:
        title = PEERS_BY_NAME[row.peer].title
        title = f"**{title}**" if row.peer == OURS else title
        mark = " †" if row.generator_cores > GENERATOR_BUSY else ""
        broke = " ‡" if row.notes else ""
        low, high = (number(edge(row.values), metric.digits) for edge in (min, max))
        lines.append(
            f"| {title}{broke} | {number(row.median, metric.digits)} | {low} – {high} "
            f"| {'' if row.peer == OURS else ratio_text(ratio(ours, row))} "
            f"| {row.server_cores:.2f} | {row.generator_cores:.2f}{mark} |"
        )
    return [*lines, ""]


def at_a_glance(data: Data) -> list[str]:
    """Every table's ratio, turned so that above 1 this project is ahead."""
    peers = [peer for peer in PEER_LIST if peer.name != OURS]
    lines = [
        "| | " + " | ".join(peer.title for peer in peers) + " |",
        "|---|" + "--:|" * len(peers),
    ]
    for metric in METRICS:
        found = {row.peer: row for row in rows(data, metric)}
        ratios = {name: ratio(found.get(OURS), row) for name, row in found.items()}
        cells = [ahead(ratios.get(peer.name), metric.higher_is_better) for peer in peers]
        if not any(cells):
            continue
        title = SCENARIOS_BY_NAME[metric.scenario].title
        short = metric.title if "clients" in metric.title else f"{title}: {metric.title}"
        lines.append(f"| {short} | " + " | ".join(cells) + " |")
    return [
        "## At a glance",
        "",
        "How many times better this project is than each: above 1 it is ahead. The floor is no "
        "competitor: 1 would mean that nothing is lost to anything but the system calls.",
        "",
        *lines,
        "",
    ]


def ahead(quantity: float | None, higher_is_better: bool) -> str:
    if quantity is None or quantity <= 0:
        return ""
    better = quantity if higher_is_better else 1 / quantity
    return f"{better:.2f}" if better < 20 else f"{better:.0f}"


def stuck_table(data: Data) -> list[str]:
    """Each round's times with it are held against the same round's without it."""
    lines = [
        "Delivery times to the other 1,000, in ms.",
        "",
        "| | median without | with | 99th percentile without | with | with by without "
        "| MiB gained |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for peer, results in data["scenarios"]["stuck"]["peers"].items():
        phases = [result["phases"] for result in results]
        times = [
            middle(phases, phase, key) for key in ("p50", "p99") for phase in ("without", "with")
        ]
        pairs = [p["with"]["p99"] / p["without"]["p99"] for p in phases if has_times(p)]
        gained = [
            p["push"]["rss_growth_kib"] / 1024 for p in phases if "stuck" in p.get("push", {})
        ]
        title = PEERS_BY_NAME[peer].title
        cells = [
            f"**{title}**" if peer == OURS else title,
            *times,
            f"{statistics.median(pairs):.2f}" if pairs else "–",
            f"{statistics.median(gained):.1f}" if gained else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def has_times(phases: Data) -> bool:
    return all("fault" not in phases.get(name, {"fault": ""}) for name in ("without", "with"))


def middle(phases: list[Data], phase: str, key: str) -> str:
    """A phase that broke has no times: a median of the rest would hide it."""
    answers = [each[phase] for each in phases if phase in each]
    if not answers or any("fault" in answer for answer in answers):
        return "–"
    return f"{statistics.median(1e3 * answer[key] for answer in answers):.2f}"


def what_happened(data: Data, name: str) -> list[str]:
    """Deaths, stalls and the like, each said once with how often it was seen."""
    lines = []
    for peer, results in data["scenarios"][name]["peers"].items():
        seen: dict[str, int] = {}
        for result in results:
            for note in result["notes"]:
                if not note.startswith(LOG_NOTE) or not any(n.startswith(LOG_NOTE) for n in seen):
                    seen[note] = seen.get(note, 0) + 1
        for note, times in seen.items():
            often = f", {times} times" if times > 1 else ""
            lines.append(f"- {PEERS_BY_NAME[peer].title}: {note}{often}.")
    return ["What happened:", "", *lines, ""] if lines else []


def head(data: Data) -> list[str]:
    machine = data["machine"]
    lines = [
        "# Results",
        "",
        "Made by `python3 benchmarks`; what it does is in that folder's files. Each scenario runs "
        "its programs in turn, round after round, on the same machine; a figure is the median of "
        "the rounds. Read the ratios: the absolute figures belong to one machine on one day.",
        "",
        "| | |",
        "|---|---|",
        f"| Date | {machine['date']} |",
        f"| CPU | {machine['cpu']}, {machine['cores']} cores |",
        f"| Memory | {machine['memory_gib']} GiB |",
        f"| Kernel | Linux {machine['kernel']} |",
        f"| Python | {machine['python']} |",
        f"| Packages | {machine['packages']} |",
    ]
    if machine["go"]:
        lines.append(f"| Go | {machine['go']}, gorilla/websocket {machine['gorilla'] or '–'} |")
    lines += [f"| Load average before | {machine['load_before']} |", ""]
    for peer, reason in data["left_out"].items():
        lines.append(f"- Left out: {PEERS_BY_NAME[peer].title}: {reason}.")
    return [*lines, ""] if data["left_out"] else lines


HOW_TO_READ = f"""\
All run in their default configuration, but: no compression, no Nagle delay, no log line for a
message; `chat_server.py` with `--rate 0`, `echo_server.py` with `--plain`. A chat message is
100 bytes of JSON, which each chat decodes and encodes anew; ours adds an id and a hash to it, so
it delivers twice the bytes that the others do. The floor is a program on bare sockets that makes
the same system calls with frames of our length and does nothing else.

*CPU* is in cores, over the time measured: the server's, and the load generator's own. Where the
generator needed a whole core (†), it may be what was measured, and the figure is a lower bound.
‡ marks what broke while it was measured: the figure is until then.

*One in flight*: the next message is sent when all clients have the last one. *Under load*: a
window of messages is outstanding, a second's worth of the server's own pace, between 32 and 512.
Each client's frames are all looked at, and one client's contents; a message lost, doubled or out
of order is a fault.

*Idle*: CPU is that of 5 s at 3,000 clients, of 21 s at 9,000, long enough to hold a ping to each
from those that ping. Memory is the resident memory gained since the start, by connections.

*One stuck client*: it never reads, and its socket buffers are small. Delivery times are those of
the other 1,000, at {STUCK_RATE} messages a second, counted from the schedule.
"""


def markdown(data: Data, plots: list[str]) -> str:
    lines = head(data)
    lines += [f"![{name.removesuffix('.svg')}]({name})\n" for name in plots]
    lines += ["", *at_a_glance(data), "## How to read it", "", HOW_TO_READ]
    for scenario in SCENARIOS:
        if scenario.name not in data["scenarios"]:
            continue
        entry = data["scenarios"][scenario.name]
        rounds = f"{entry['rounds']} round{'s' if entry['rounds'] > 1 else ''}"
        lines += [f"## {scenario.title}", "", f"{rounds}, {entry['date']}", ""]
        for metric in METRICS:
            if metric.scenario == scenario.name:
                lines += table(data, metric)
        if scenario.name == "stuck":
            lines += stuck_table(data)
        lines += what_happened(data, scenario.name)
    return "\n".join(lines).rstrip() + "\n"


def summary(data: Data) -> str:
    """For the terminal: a line for each table and peer."""
    lines = []
    for metric in METRICS:
        found = {row.peer: row for row in rows(data, metric)}
        ours = found.get(OURS)
        if found:
            lines.append(f"{metric.scenario}: {metric.title}, {metric.unit}")
        for peer in PEER_LIST:
            if peer.name in found:
                row = found[peer.name]
                line = f"    {peer.title:30} {number(row.median, metric.digits):>14}"
                by = "" if peer.name == OURS else f"  ours by theirs {ratio_text(ratio(ours, row))}"
                lines.append(line + by)
    if "stuck" in data["scenarios"]:
        lines += ["stuck:", *stuck_table(data)]
    return "\n".join(lines)

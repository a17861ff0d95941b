"""`python3 benchmarks`: this project and its peers side by side, on this machine.

Writes RESULTS.md, results.json and the plots beside this file. A run of a part (`--quick`,
`--scenario`, `--peer`) writes to `partial/` instead, which git ignores, so that it never stands
where a whole run's figures stood; with `--update`, the scenarios it ran replace those in the
results that are there.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import environment
import report
from scenarios import QUICK, SCENARIOS, SCENARIOS_BY_NAME, Result, Scenario, Timing
from servers import OURS, PEER_LIST, PEERS_BY_NAME, Peer

BUSY = 0.5  # load average at the start; above it, something else is running

Data = dict[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="of each scenario (default 3, quick: 1)")
    parser.add_argument(
        "--scenario", action="append", choices=list(SCENARIOS_BY_NAME), default=[], metavar="NAME"
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=list(PEERS_BY_NAME),
        default=[],
        metavar="NAME",
        help="only this one, beside ours",
    )
    parser.add_argument("--quick", action="store_true", help="a look, under three minutes")
    parser.add_argument("--update", action="store_true", help="put a part into the whole results")
    parser.add_argument("--plot-only", action="store_true", help="write anew from results.json")
    parser.add_argument("--list", action="store_true", help="name the scenarios and peers")
    return parser.parse_args()


def show_list() -> None:
    print("scenarios:")
    for scenario in SCENARIOS:
        print(f"  {scenario.name:20} {scenario.title}")
    print("peers:")
    for peer in PEER_LIST:
        print(f"  {peer.name:20} {peer.title}")


class Progress:
    """One line for each peer in each round, with the time that is likely left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.begun = time.monotonic()

    def before(self, scenario: Scenario, turn: int, rounds: int, peer: Peer) -> None:
        spent = time.monotonic() - self.begun
        left = spent / self.done * (self.steps - self.done) if self.done else 0.0
        clock = f"{spent / 60:4.1f} min, ~{left / 60:4.1f} left" if self.done else "beginning"
        print(
            f"[{clock:22}] {scenario.name:12} {turn + 1}/{rounds}  {peer.title:28} ",
            end="",
            flush=True,
        )

    def after(self, result: Result) -> None:
        self.done += 1
        figures = [
            f"{name} {answer['per_second']:,.0f}/s"
            for name, answer in result["phases"].items()
            if answer.get("deliveries")
        ]
        print("  ".join([*figures, *result["notes"]]), flush=True)


def peers_of(scenario: Scenario, names: list[str], left_out: dict[str, str]) -> list[Peer]:
    """Those that have this kind of server and are here; who is not is told why once."""
    found = []
    for peer in PEER_LIST:
        has = peer.chat if scenario.kind == "chat" else peer.echo
        wanted = not names or peer.name in (*names, OURS)
        if has is None or not wanted or peer.name in scenario.leaves_out:
            continue
        try:
            peer.command(scenario.kind)
        except environment.Unavailable as reason:
            if peer.name not in left_out:
                print(f"Left out: {peer.title}: {reason}", flush=True)
            left_out[peer.name] = str(reason)
            continue
        found.append(peer)
    return found


def measure(chosen: list[Scenario], names: list[str], rounds: int, timing: Timing) -> Data:
    left_out: dict[str, str] = {}
    plan = [
        (scenario, peers_of(scenario, names, left_out), 1 if scenario.only_once else rounds)
        for scenario in chosen
    ]
    machine = environment.describe_machine()
    if float(str(machine["load_before"])) > BUSY:
        print(f"Something else is running (load {machine['load_before']}): expect noise.")
    progress = Progress(sum(len(peers) * turns for _, peers, turns in plan))
    scenarios: dict[str, Any] = {}
    for scenario, peers, turns in plan:
        results: dict[str, list[Result]] = {peer.name: [] for peer in peers}
        for turn in range(turns):
            for peer in peers:  # A B C A B C: what disturbs the machine disturbs all alike
                progress.before(scenario, turn, turns, peer)
                result = scenario.run(peer, timing)
                results[peer.name].append(result)
                progress.after(result)
        scenarios[scenario.name] = {"date": machine["date"], "rounds": turns, "peers": results}
    return {"machine": machine, "left_out": left_out, "scenarios": scenarios}


def write(data: Data, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    results = folder / "results.json"
    results.write_text(json.dumps(data, indent=1) + "\n")
    plotted = subprocess.run(
        [str(environment.PYTHON), str(environment.HERE / "plots.py"), str(results), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    plots = plotted.stdout.split() if plotted.returncode == 0 else []
    (folder / "RESULTS.md").write_text(report.markdown(data, plots))
    print(f"Wrote {folder.relative_to(environment.PROJECT)}: RESULTS.md, results.json", *plots)


def update(data: Data, results: Path) -> Data:
    """A scenario is compared within itself alone, so whole ones can be exchanged."""
    whole: Data = json.loads(results.read_text())
    whole["scenarios"].update(data["scenarios"])
    for name in ("machine", "left_out"):
        whole[name] = data[name]
    return whole


def main() -> None:
    options = arguments()
    if options.list:
        show_list()
        return
    results = environment.HERE / "results.json"
    environment.prepare()
    if options.plot_only:
        write(json.loads(results.read_text()), environment.HERE)
        return
    chosen = [s for s in SCENARIOS if not options.scenario or s.name in options.scenario]
    if options.quick and not options.scenario:
        chosen = [s for s in chosen if s.name not in ("fanout-10", "idle", "stuck")]
    rounds = options.rounds or (1 if options.quick else 3)
    data = measure(chosen, options.peer, rounds, QUICK if options.quick else Timing())
    part = bool(options.quick or options.scenario or options.peer)
    if part and options.update:
        data, part = update(data, results), False
    write(data, environment.HERE / "partial" if part else environment.HERE)
    print(report.summary(data))


def end(number: int, _frame: object) -> None:
    """A termination leaves through the same doors as an error: the servers are stopped."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        main()
    except environment.Unavailable as reason:
        sys.exit(f"benchmarks: {reason}")
    except KeyboardInterrupt:
        sys.exit("benchmarks: interrupted")

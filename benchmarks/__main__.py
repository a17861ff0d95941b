"""Measure this project and its peers side by side on this machine.

A whole run takes about half an hour. It writes RESULTS.md and fan-out.svg beside this file, and
results.json, from which --report can write the other two again. A run of a part (--quick,
--scenario, --peer) only prints its results.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any

import environment
import plot
import report
from scenarios import QUICK, SCENARIOS, SCENARIOS_BY_NAME, Timing, measure
from servers import OURS, Peer, all_peers

BUSY = 0.5  # load average at the start; above it, something else is running
RESULTS = environment.HERE / "results.json"

Data = dict[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 benchmarks", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, help="how often each scenario is run (default: 3; with --quick, 1)"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS_BY_NAME),
        metavar="NAME",
        help="run only this scenario; may be given several times",
    )
    parser.add_argument(
        "--peer",
        action="append",
        metavar="NAME",
        help="compare this project with this peer only; may be given several times",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="the interpreter for all servers in Python (default: one that was built with "
        "optimizations, where the machine has one)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short runs that only show that everything works"
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; write RESULTS.md from results.json"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and peers")
    return parser.parse_args()


def show_list(peers: list[Peer]) -> None:
    print("scenarios:")
    for scenario in SCENARIOS:
        print(f"  {scenario.name:20} {scenario.title}")
    print("peers:")
    for peer in peers:
        print(f"  {peer.name:20} {peer.title}")


def choose(peers: list[Peer], names: list[str] | None) -> list[Peer]:
    """This project and the peers of these names, or all of them."""
    unknown = set(names or []) - {peer.name for peer in peers}
    if unknown:
        raise environment.Unavailable(f"no peer has the name {', '.join(unknown)}; see --list")
    return [peer for peer in peers if not names or peer.name in (*names, OURS)]


def leave_out(peers: list[Peer]) -> dict[str, str]:
    """Takes those out of the list that cannot run here; returns the reasons by title."""
    reasons = {}
    for peer in list(peers):
        try:
            peer.prepare()
        except environment.Unavailable as reason:
            print(f"Left out: {peer.title}: {reason}", flush=True)
            reasons[peer.title] = str(reason)
            peers.remove(peer)
    return reasons


def measure_all(peers: list[Peer], names: list[str], rounds: int, timing: Timing) -> Data:
    """For each scenario and peer the results of all rounds."""
    everything: Data = {}
    for name in names:
        scenario = SCENARIOS_BY_NAME[name]
        results: Data = {peer.name: [] for peer in peers if scenario.fits(peer)}
        everything[name] = results
        for turn in range(rounds):
            # The peers take turns: what disturbs the machine disturbs all of them alike.
            for peer in peers:
                if peer.name not in results:
                    continue
                print(f"{name}, round {turn + 1} of {rounds}: {peer.title} ", end="", flush=True)
                result = measure(scenario, peer, timing)
                results[peer.name].append(asdict(result))
                value = "-" if result.value is None else f"{result.value:,.0f} {scenario.unit}"
                print("; ".join([value, *result.faults]), flush=True)
    return everything


def write(data: Data) -> None:
    (environment.HERE / "RESULTS.md").write_text(report.markdown(data))
    picture = plot.fan_out(data)
    if picture:
        (environment.HERE / "fan-out.svg").write_text(picture)
    print("Wrote benchmarks/RESULTS.md and benchmarks/fan-out.svg.")


def main() -> None:
    options = arguments()
    if options.report:
        write(json.loads(RESULTS.read_text()))
        return
    interpreter = environment.prepare(options.python)
    peers = choose(all_peers(interpreter), options.peer)
    if options.list:
        show_list(peers)
        return
    print(f"The servers in Python run on {interpreter.path}: {interpreter}.")
    if os.getloadavg()[0] > BUSY:
        print(f"Something else is running (load {os.getloadavg()[0]:.2f}): expect noise.")
    environment.make_venv(interpreter)
    machine = environment.describe_machine(interpreter)
    left_out = leave_out(peers)
    rounds = options.rounds or (1 if options.quick else 3)
    names = options.scenario or list(SCENARIOS_BY_NAME)
    data = {
        "machine": machine,
        "titles": {peer.name: peer.title for peer in peers},
        "left_out": left_out,
        "rounds": rounds,
        "results": measure_all(peers, names, rounds, QUICK if options.quick else Timing()),
    }
    print(report.summary(data))
    if not (options.quick or options.scenario or options.peer):
        RESULTS.write_text(json.dumps(data, indent=1) + "\n")
        write(data)


def end(number: int, _frame: object) -> None:
    """SIGTERM unwinds the stack as an error does, so that the servers are stopped."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        main()
    except environment.Unavailable as reason:
        sys.exit(f"benchmarks: {reason}")
    except KeyboardInterrupt:
        sys.exit("benchmarks: interrupted")

"""Compare this tree with an older commit of the project, in one run on one machine.

Two runs on different days do not show whether a change costs speed; a ratio does. The two sides
take turns, old and new, with the same load generator and the same interpreter. For each scenario
this prints the median of the rounds' ratios (new divided by old), then the ratio of each round,
whose spread says how far to trust the median, then the median of each side. Nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import environment
from scenarios import QUICK, SCENARIOS_BY_NAME, Scenario, Timing, measure
from servers import Peer, project_at


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/against.py", description=__doc__)
    parser.add_argument("commit", help="the older state: a commit, tag or branch")
    parser.add_argument(
        "--rounds", type=int, default=5, help="how many pairs are measured (default: 5)"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS_BY_NAME),
        metavar="NAME",
        help="run only this scenario; may be given several times (default: all of "
        f"{', '.join(SCENARIOS_BY_NAME)})",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="the interpreter for both sides (default: one that was built with optimizations, "
        "where the machine has one)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short runs that only show that everything works"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    interpreter = environment.prepare(options.python)
    print(f"Both sides run on {interpreter.path}: {interpreter}.")
    with tempfile.TemporaryDirectory() as folder:
        check_out(options.commit, Path(folder))
        old = project_at(Path(folder), interpreter, "old")
        new = project_at(environment.PROJECT, interpreter, "new")
        for name in options.scenario or SCENARIOS_BY_NAME:
            scenario = SCENARIOS_BY_NAME[name]
            timing = QUICK if options.quick else Timing()
            pairs = measure_pairs(scenario, old, new, options.rounds, timing)
            print(f"{name:16} {compared(pairs, scenario)}", flush=True)


def check_out(commit: str, folder: Path) -> None:
    """Puts the files of that commit into the folder, without touching this tree."""
    command = ["git", "-C", str(environment.PROJECT), "archive", commit]
    archive = subprocess.run(command, stdout=subprocess.PIPE)
    if archive.returncode != 0:
        raise environment.Unavailable(f"git cannot give the files of {commit}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def measure_pairs(
    scenario: Scenario, old: Peer, new: Peer, rounds: int, timing: Timing
) -> list[tuple[float, float]]:
    """Old and new value of each round in which neither side broke; what broke is printed."""
    pairs = []
    for turn in range(rounds):
        # Every second round is the other way round, so that neither side always comes first.
        order = [old, new] if turn % 2 == 0 else [new, old]
        results = {side.name: measure(scenario, side, timing) for side in order}
        for name, result in results.items():
            for fault in result.faults:
                print(f"{scenario.name}, round {turn + 1}, {name}: {fault}")
        before = results["old"].value
        after = results["new"].value
        if before and after and not any(result.faults for result in results.values()):
            pairs.append((before, after))
    return pairs


def compared(pairs: list[tuple[float, float]], scenario: Scenario) -> str:
    if not pairs:
        return "no round in which both sides could be measured"
    ratios = [after / before for before, after in pairs]
    old = statistics.median(before for before, _ in pairs)
    new = statistics.median(after for _, after in pairs)
    rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    better = "more" if scenario.higher_is_better else "less"
    digits = 0 if scenario.higher_is_better else 1
    values = f"{old:,.{digits}f} -> {new:,.{digits}f} {scenario.unit}, {better} is better"
    return f"{statistics.median(ratios):.2f}  ({rounds})  {values}"


if __name__ == "__main__":
    try:
        main()
    except environment.Unavailable as reason:
        sys.exit(f"benchmarks/against.py: {reason}")
    except KeyboardInterrupt:
        sys.exit("benchmarks/against.py: interrupted")

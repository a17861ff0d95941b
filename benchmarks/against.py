"""`python3 benchmarks/against.py COMMIT`: this tree and an older one of the project, in one run.

Whether a change costs speed is seen by no two runs on different days, but by a ratio: the two
take turns, A B A B, with the same load generator and the same interpreter, which should be one
that was built with optimizations. Printed for each measurement is the ratio of the medians, new by
old, and the ratios of the rounds, whose spread says how far to trust it. Nothing is written.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import environment
from scenarios import SCENARIOS_BY_NAME, Timing
from servers import Peer

DEFAULT_SCENARIOS = ("fanout-100", "fanout-1000", "echo", "handshakes")
Rates = dict[str, list[float]]  # for each measurement the rate in each round, a second


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/against.py", description=__doc__)
    parser.add_argument("commit", help="the older state: a commit, tag or branch")
    parser.add_argument("--rounds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS_BY_NAME),
        default=[],
        metavar="NAME",
        help=f"may be given several times (default: {', '.join(DEFAULT_SCENARIOS)})",
    )
    options = parser.parse_args()
    environment.BUILD.mkdir(exist_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    environment.build_load_generator()
    with tempfile.TemporaryDirectory() as folder:
        check_out(options.commit, Path(folder))
        sides = {"old": peer_of(Path(folder)), "new": peer_of(environment.PROJECT)}
        for name in options.scenario or DEFAULT_SCENARIOS:
            rates = measure(name, sides, options.rounds)
            print(name)
            for phase in rates["new"]:
                print("  " + compared(phase, rates["old"].get(phase, []), rates["new"][phase]))


def check_out(commit: str, folder: Path) -> None:
    """The files of that commit, without touching this tree."""
    archive = subprocess.run(
        ["git", "-C", str(environment.PROJECT), "archive", commit],
        check=True,
        stdout=subprocess.PIPE,
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def peer_of(tree: Path) -> Peer:
    def command(script: str, *arguments: str) -> list[str]:
        return [sys.executable, str(tree / script), "--port", "0", *arguments]

    return Peer(
        str(tree),
        "this project",
        lambda: command("chat_server.py", "--rate", "0"),
        lambda: command("echo_server.py", "--plain"),
    )


def measure(name: str, sides: dict[str, Peer], rounds: int) -> dict[str, Rates]:
    rates: dict[str, Rates] = {side: {} for side in sides}
    for turn in range(rounds):
        # Every second round the other way round, so that neither always comes first.
        order = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for side in order:
            result = SCENARIOS_BY_NAME[name].run(sides[side], Timing())
            for note in result["notes"]:
                print(f"  {side}: {note}")
            for phase, answer in result["phases"].items():
                if "per_second" in answer:
                    rates[side].setdefault(phase, []).append(answer["per_second"])
    return rates


def compared(phase: str, old: list[float], new: list[float]) -> str:
    if not old or not new:
        return f"{phase}: not measured on both sides"
    ratio = statistics.median(new) / statistics.median(old)
    turns = ", ".join(f"{b / a:.2f}" for a, b in zip(old, new, strict=False))
    rates = f"{statistics.median(old):,.0f} -> {statistics.median(new):,.0f} a second"
    return f"{phase:12} {ratio:.2f}  ({turns})  {rates}"


if __name__ == "__main__":
    try:
        main()
    except (environment.Unavailable, subprocess.CalledProcessError) as reason:
        sys.exit(f"benchmarks/against.py: {reason}")
    except KeyboardInterrupt:
        sys.exit("benchmarks/against.py: interrupted")

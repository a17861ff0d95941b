"""What a run of the fuzz has met: counted, and the first of what went wrong in full."""

import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fuzzing.faults import HarnessFault

COMMAND = "python3 tests/test_fuzz.py"
MAX_REPORTS = 20  # of each kind; the rest is only counted


@dataclass
class Tally:
    """What a run, or a part of it, has met."""

    passed: Counter[str] = field(default_factory=Counter)  # inputs of each kind
    differences: Counter[str] = field(default_factory=Counter)  # of strangers, by the known reason
    hung: int = 0  # inputs
    failed: int = 0  # inputs that did not hang
    failure_reports: list[str] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)  # inputs, by the harness's fault
    unchecked_reports: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)  # what a batch left behind

    @property
    def inputs(self) -> int:
        return self.passed.total() + self.hung + self.failed + self.unchecked.total()

    def add(self, other: "Tally") -> None:
        self.passed.update(other.passed)
        self.differences.update(other.differences)
        self.hung += other.hung
        self.failed += other.failed
        add_reports(self.failure_reports, other.failure_reports)
        self.unchecked.update(other.unchecked)
        add_reports(self.unchecked_reports, other.unchecked_reports)
        self.leaks.extend(other.leaks)

    def add_failure(self, number: int, why: str, *, hung: bool = False) -> None:
        """Our layer did something wrong with the input of this number."""
        if hung:
            self.hung += 1
        else:
            self.failed += 1
        report = f"Input {number} failed; to check it again: {COMMAND} 1 --first {number}\n{why}\n"
        add_reports(self.failure_reports, [report])

    def add_unchecked(self, numbers: Sequence[int], fault: HarnessFault) -> None:
        """The harness failed, so what our layer does with these inputs is not known."""
        self.unchecked[str(fault)] += len(numbers)
        again = f"{COMMAND} {len(numbers)} --first {numbers[0]}"
        report = f"{name(numbers)}: the harness failed; to check again: {again}\n{trace(fault)}\n"
        add_reports(self.unchecked_reports, [report])


def add_reports(reports: list[str], more: Sequence[str]) -> None:
    reports.extend(more[: MAX_REPORTS - len(reports)])


def name(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"Input {numbers[0]}"
    return f"Inputs {numbers[0]} to {numbers[-1]}"


def trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))

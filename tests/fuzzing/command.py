"""The command `python3 tests/test_fuzz.py`: any number of inputs, in several processes.

A run goes on to its end whatever an input does. What our layer does wrong is reported with the
input's number, and a fault of the harness is counted apart. A process that crashes or hangs is
replaced.

Exit status: 0 nothing is wrong, 1 our layer did something wrong, 2 the arguments are wrong, 3 the
harness failed so often that the run proves too little.
"""

import argparse
import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from fuzzing.batches import Check, Passed, check_batch, check_number
from fuzzing.faults import Hung
from fuzzing.network import Network
from fuzzing.tally import Tally, name

PROCESSES = 2
BATCH = 2000  # inputs of one process
BATCH_WITHIN = 1200.0  # seconds; a batch takes some ten
INPUT_WITHIN = 60.0  # seconds, on a busy machine
EXIT_WITHIN = 10.0  # seconds from a process's result to its end
MAX_UNCHECKED = 0.001  # of all inputs


def main() -> int:
    parser = argparse.ArgumentParser(description="Send random input to both sides of the layer.")
    parser.add_argument("count", type=int, help="how many inputs to check")
    parser.add_argument(
        "--first", type=int, default=0, help="the number of the first input (default: 0)"
    )
    options = parser.parse_args()
    if options.count < 1:
        parser.error("count must be at least 1")
    return run(range(options.first, options.first + options.count))


def run(numbers: range, check: Check = check_number) -> int:
    """Check all these inputs, and print what came of it; the exit status."""
    started = time.monotonic()
    total = Tally()
    for tally in check_in_processes(numbers, check):
        reports = len(total.failure_reports)
        unchecked_reports = len(total.unchecked_reports)
        total.add(tally)
        for report in (
            *total.failure_reports[reports:],
            *total.unchecked_reports[unchecked_reports:],
            *tally.leaks,
        ):
            print(report, file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    print(f"{total.inputs:,} inputs, numbers {numbers[0]} to {numbers[-1]}, in {seconds:.0f} s")
    print_counts(total)
    return exit_status(total)


def exit_status(total: Tally) -> int:
    if total.hung or total.failed or total.leaks:
        return 1
    return 3 if total.unchecked.total() > MAX_UNCHECKED * total.inputs else 0


def print_counts(total: Tally) -> None:
    for kind, count in total.passed.most_common():
        print(f"{count:>11,} {kind}")
    print("Strangers differed, as is known of them:")
    for why, count in total.differences.most_common():
        print(f"{count:>11,} {why}")
    if total.unchecked:
        print("Not checked, because the harness failed:")
        for fault, count in total.unchecked.most_common():
            print(f"{count:>11,} {fault}")
    print(
        f"{total.hung} hung, {total.failed} differed or raised what nobody foresaw,"
        f" {len(total.leaks)} threads, sockets or descriptors leaked,"
        f" {total.unchecked.total()} not checked"
    )


def check_in_processes(numbers: range, check: Check) -> Iterator[Tally]:
    """Check these inputs in several processes; what each batch has met, as it is done."""
    waiting = deque(numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH))
    workers: list[Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < PROCESSES:
                workers.append(Worker(waiting.popleft(), check))
            for worker in wait_for_some(workers):
                workers.remove(worker)
                tally, unchecked = worker.end()
                waiting.extend(unchecked)
                yield tally
    finally:
        for worker in workers:
            worker.kill()


class Worker:
    """A process that checks a batch. Its `result` becomes readable when it is done or has died."""

    def __init__(self, numbers: range, check: Check) -> None:
        self.give_up_at = time.monotonic() + BATCH_WITHIN
        self._numbers = numbers
        self._current: Any = multiprocessing.Value("q", numbers[0], lock=False)
        self.result, sender = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.Process(
            target=work, args=(numbers, check, self._current, sender)
        )
        self._process.start()
        sender.close()  # so that `result` is at its end when the process has died

    def end(self) -> tuple[Tally, list[range]]:
        """What it has found, and which inputs are still to be checked.

        Of a process that has died only the input is known at which it did. All others of its
        batch are checked once more.
        """
        is_late = not self.result.poll()
        if not is_late:
            with contextlib.suppress(EOFError):
                tally: Tally = self.result.recv()
                self._process.join(EXIT_WITHIN)
                self.kill()
                return tally, []
        self._process.join(0 if is_late else EXIT_WITHIN)
        status = self._process.exitcode
        self.kill()
        tally = Tally()
        number = self._current.value
        late = f"its process was not done with {name(self._numbers)} in {BATCH_WITHIN:g} s"
        why = late if is_late else f"its process died with exit status {status}"
        tally.add_failure(number, why, hung=is_late)
        before = range(self._numbers.start, number)
        after = range(number + 1, self._numbers.stop)
        return tally, [part for part in (before, after) if part]

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.result.close()


def wait_for_some(workers: Sequence[Worker]) -> list[Worker]:
    """The workers that are done, have died, or are late: at least one."""
    first = min(worker.give_up_at for worker in workers)
    seconds = max(0.0, first - time.monotonic())
    results = [worker.result for worker in workers]
    ready = multiprocessing.connection.wait(results, seconds)
    now = time.monotonic()
    return [worker for worker in workers if worker.result in ready or worker.give_up_at <= now]


def work(numbers: range, check: Check, current: Any, result: Connection) -> None:
    """What a worker's process does. An input that takes too long has hung."""

    def ring(*_: object) -> None:
        raise Hung(f"not done within {INPUT_WITHIN:g} s")

    def check_in_time(number: int, network: Network) -> Passed:
        current.value = number
        signal.setitimer(signal.ITIMER_REAL, INPUT_WITHIN)
        try:
            return check(number, network)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    signal.signal(signal.SIGALRM, ring)
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always", ResourceWarning)
        tally = check_batch(numbers, check_in_time)
    tally.leaks.extend(f"{name(numbers)}: {warning.message}" for warning in unclosed)
    result.send(tally)

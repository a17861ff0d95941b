"""Numbered inputs, checked one after the other in this process.

The number of an input is the seed of all that is random in it, so that it can be made again.
Nothing that an input does ends a batch.
"""

import os
import random
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fuzzing.checks import check_heads, check_stream
from fuzzing.faults import HarnessFault, blaming, is_hung
from fuzzing.generator import random_input
from fuzzing.network import Network, check_over_tcp
from fuzzing.tally import Tally, name, trace
from peers import eventually

LEFT_AFTER = 10.0  # seconds after which what is still there was left behind


class Passed(NamedTuple):
    """An input in which our layer did nothing wrong."""

    kind: str
    differences: list[str]  # known reasons for which strangers differed


Check = Callable[[int, Network], Passed]


def check_number(number: int, network: Network) -> Passed:
    """Make the input of this number, and check it."""
    r = random.Random(number)
    kind = r.random()
    if kind < 0.03:
        return Passed(check_over_tcp(network, r), [])
    if kind < 0.1:
        check_heads(r)
        return Passed("heads of handshakes", [])
    with blaming("the generator"):
        item = random_input(r)
    stranger = ("wsproto", "websockets")[number % 2]
    return Passed("streams of frames", check_stream(item, [stranger]))


def check_batch(numbers: Sequence[int], check: Check = check_number) -> Tally:
    """Check these inputs, and then whether threads or descriptors were left behind."""
    tally = Tally()
    threads = living_threads()
    descriptors = open_descriptors()
    try:
        with Network() as network:
            for number in numbers:
                check_into(tally, number, network, check)
        network.check_no_error()  # the last connections may have logged something late
    except HarnessFault as fault:  # there was no network, so nothing was checked
        tally.add_unchecked(numbers, fault)
    except Exception as error:  # any is a finding
        tally.leaks.append(f"{name(numbers)}, when the network was closed: {trace(error)}")
    tally.leaks.extend(f"{name(numbers)}: {leak}" for leak in find_leaks(threads, descriptors))
    return tally


def check_into(tally: Tally, number: int, network: Network, check: Check) -> None:
    """Check this input, and count what came of it."""
    try:
        passed = check(number, network)
    except HarnessFault as fault:
        tally.add_unchecked([number], fault)
    except Exception as error:  # any is a finding
        tally.add_failure(number, trace(error), hung=is_hung(error))
        network.errors.records.clear()
    else:
        tally.passed[passed.kind] += 1
        tally.differences.update(passed.differences)


def find_leaks(threads: set[threading.Thread], descriptors: int) -> list[str]:
    """What there is more of than before, and stays so for a while."""
    try:
        eventually(
            lambda: living_threads() <= threads and open_descriptors() <= descriptors, LEFT_AFTER
        )
    except AssertionError:
        leaks = [str(thread) for thread in living_threads() - threads]
        leaks.append(f"{open_descriptors() - descriptors} descriptors more than before")
        return leaks
    return []


def living_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name != "rfc6455-clock"}


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))

"""What is measured: each scenario runs one peer once and returns what the generator answered.

A result is `{"phases": {name: answer}, "notes": [...]}`. A phase that broke has a "fault" in its
answer and is the session's last; what was measured before it stands.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import FLOOR, OURS, Answer, Fault, Peer, Session

JOIN_TRIES = 4
JOIN_AT_ONCE = HANDSHAKES_AT_ONCE = 4  # below 5, the shortest listen backlog among the peers
PIPELINED = 1000  # messages in flight
STUCK_CLIENTS = 1000
STUCK_RATE = 50  # messages a second; times 1,000 clients it is below what most peers can do
# More than the kernel takes for the stuck client, which is therefore stuck from the start, and
# less than any sensible limit to its backlog, so that it is there while times are taken.
LOG_NOTE = "its log: "
PUSHES = 2  # phases under load in which a server may drop it
FILL_MESSAGES, FILL_BYTES = 64, 2000
IDLE_CLIENTS = (3000, 9000)
SPARE_FILES = 200  # descriptors that a server or the generator needs beside its connections

Result = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """Seconds; `--quick` is for trying the thing out, not for figures."""

    warm: float = 0.3
    measure: float = 2.0
    load_warm: float = 0.8
    load_measure: float = 2.5
    short_measure: float = 1.2
    idle: float = 21.0  # longer than the usual 20 s between pings, which belong to being idle


QUICK = Timing(0.2, 0.5, 0.4, 0.6, 0.4, 1.0)


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    kind: str  # which of a peer's servers
    run: Callable[[Peer, Timing], Result]
    only_once: bool = False  # it takes long, and hardly varies
    leaves_out: tuple[str, ...] = ()


class Broken(Exception):
    """A phase had a fault: the session ends here."""


class DiedJoining(Exception):
    """The server died while clients joined: it may do better in another try."""


class Run:
    """Lets clients in and collects a session's phases."""

    def __init__(self, session: Session, at_once: int) -> None:
        self.session = session
        self.at_once = at_once
        self.phases: dict[str, Answer] = {}

    def join(self, clients: int) -> Answer:
        """Until there are so many."""
        answer = self.session.ask(f"connect {clients} {self.at_once}")
        if "fault" not in answer and self.session.kind == "chat":
            answer |= self.session.ask("settle")
        if "fault" in answer:
            if self.session.server_died():
                raise DiedJoining(f"{answer['fault']} (while clients joined)")
            said = self.session.last_words()
            raise Fault(f"{clients:,} clients: {answer['fault']}" + (f": {said}" if said else ""))
        return answer

    def phase(self, name: str, command: str, seconds: float) -> Answer:
        answer = self.session.ask(command, seconds)
        self.phases[name] = answer
        if "fault" in answer:
            raise Broken
        return answer


def run_session(peer: Peer, kind: str, measure: Callable[[Run], None]) -> Result:
    """Start, measure, let the clients leave.

    A server that dies while they join is started anew, the last time with one joining after
    another: what was asked for is its speed with that many. It is counted and said.
    """
    notes: list[str] = []
    phases: dict[str, Answer] = {}
    for turn in range(JOIN_TRIES):
        last = turn == JOIN_TRIES - 1
        try:
            with Session(peer, kind) as session:
                run = Run(session, 1 if last else JOIN_AT_ONCE)
                phases = run.phases
                measure(run)
                session.ask("quit")
                if session.server_died():
                    notes.append(f"died: {session.last_words()} (while clients left)")
        except DiedJoining as death:
            notes.append(str(death))
            continue
        except Broken:
            notes += [answer["fault"] for answer in phases.values() if "fault" in answer]
        except Fault as fault:
            notes.append(str(fault))
        break
    return {"phases": phases, "notes": notes}


# ---- fan-out ----


def fan_out(clients: int) -> Callable[[Peer, Timing], Result]:
    def measure_with(timing: Timing, run: Run) -> None:
        seconds = timing.measure if clients >= 1000 else timing.short_measure
        loaded = timing.load_measure if clients >= 1000 else timing.short_measure
        run.join(clients)
        run.phase("one", f"one {timing.warm} {seconds}", seconds)
        run.phase("load-1", f"load 1 {timing.load_warm} {loaded}", loaded)
        if clients >= 50:
            run.phase("load-50", f"load 50 {timing.load_warm} {loaded}", loaded)

    return lambda peer, timing: run_session(peer, "chat", lambda run: measure_with(timing, run))


# ---- echo and handshakes ----


def echo(peer: Peer, timing: Timing) -> Result:
    def measure(run: Run) -> None:
        warm, seconds = timing.warm, timing.short_measure
        run.join(1)
        run.phase("ping-pong", f"echo 32 1 {warm} {seconds}", seconds)
        run.phase("pipelined", f"echo 32 {PIPELINED} {warm} {seconds}", seconds)
        if peer.binary:
            run.phase("64k", f"echo {64 << 10} 1 {warm} {seconds}", seconds)
            run.phase("1m", f"echo {1 << 20} 1 {warm} {seconds}", seconds)
        run.join(100)
        run.phase("hundred", f"echo 32 1 {warm} {seconds}", seconds)

    return run_session(peer, "echo", measure)


def handshakes(peer: Peer, timing: Timing) -> Result:
    def measure(run: Run) -> None:
        command = f"handshakes {HANDSHAKES_AT_ONCE} {timing.warm} {timing.short_measure}"
        run.phase("handshakes", command, timing.short_measure)

    return run_session(peer, "echo", measure)


# ---- many idle clients ----


def idle(peer: Peer, timing: Timing) -> Result:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def measure(run: Run) -> None:
        before = None
        for wanted in IDLE_CLIENTS:
            clients = min(wanted, files - SPARE_FILES)
            joined = run.join(clients)
            before = before or joined["rss_before_kib"]
            seconds = timing.idle if wanted == IDLE_CLIENTS[-1] else timing.idle / 4
            answer = run.phase(f"idle-{wanted}", f"idle {seconds}", seconds)
            answer["clients"] = clients
            answer["kib_each"] = (answer["rss_kib"] - before) / clients
            seconds = timing.short_measure
            run.phase(f"one-{wanted}", f"one {timing.warm} {seconds}", seconds)
            require_threads(answer["threads"] / clients * IDLE_CLIENTS[-1])

    return run_session(peer, "chat", measure)


def require_threads(number: float) -> None:
    """One that needs most of the machine's thread numbers would keep other programs from any."""
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    if number > 0.7 * most:
        raise Fault(f"would need {number:,.0f} threads for {IDLE_CLIENTS[-1]:,} clients")


# ---- one stuck client ----


def stuck(peer: Peer, timing: Timing) -> Result:
    notes: list[str] = []

    def state(run: Run, when: str) -> Answer:
        answer = run.session.ask("stuck?")
        if answer["stuck"] == "dropped" and not notes:
            notes.append(f"dropped the stuck client {when}")
        return answer

    def measure(run: Run) -> None:
        seconds, warm = timing.load_measure, timing.warm
        fixed = f"rate {STUCK_RATE} {warm} {seconds}"
        run.join(STUCK_CLIENTS)
        run.phase("without", fixed, seconds)
        said_before = run.session.log()
        before = run.session.ask("stuck?")["rss_kib"]
        run.session.ask("stuck")
        time.sleep(0.5)  # it may be answered before it is counted in
        run.phase("fill", f"fill {FILL_MESSAGES} {FILL_BYTES}", 0)
        state(run, "while its buffers filled")
        run.phase("with", fixed, seconds)
        state(run, "at the fixed rate")
        for _ in range(PUSHES):
            pushed = run.phase("push", f"load 1 0 {seconds}", seconds)
            after = state(run, "under load")
            if after["stuck"] == "dropped":
                break
        pushed["stuck"] = after["stuck"]
        pushed["rss_growth_kib"] = after["rss_kib"] - before
        if peer.name == OURS:
            said = run.session.log().removeprefix(said_before).strip().splitlines()
            notes.extend(LOG_NOTE + line for line in said[:1])
        if after["stuck"] != "dropped":
            notes.append("still held the stuck client in the end")

    result = run_session(peer, "chat", measure)
    result["notes"] = notes + result["notes"]
    return result


SCENARIOS = (
    Scenario("fanout-10", "Fan-out to 10 clients", "chat", fan_out(10)),
    Scenario("fanout-100", "Fan-out to 100 clients", "chat", fan_out(100)),
    Scenario("fanout-1000", "Fan-out to 1,000 clients", "chat", fan_out(1000)),
    Scenario("echo", "Echo", "echo", echo),
    Scenario("handshakes", "Opening and closing handshakes", "echo", handshakes),
    Scenario(
        "idle", "Thousands of idle clients", "chat", idle, only_once=True, leaves_out=(FLOOR,)
    ),
    Scenario("stuck", "One stuck client among 1,000", "chat", stuck, leaves_out=(FLOOR,)),
)
SCENARIOS_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

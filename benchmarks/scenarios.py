"""What is measured, and how one server is measured once."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from environment import LOAD
from servers import FLOOR, TEXT_ONLY, Fault, Peer, Server, running

JOIN_TRIES = 4  # a server that dies while the clients join is started anew so often
GENERATOR_SECONDS = 100.0  # beyond the measured time; the generator's own limit for joining is 60

# Messages that have not yet reached every client: enough that a server never waits for work and
# can send several at once, and few enough that the Go hub's buffers take them.
UNDER_LOAD = 512
PIPELINED = 1000
HANDSHAKES_AT_ONCE = 4  # below 5, the shortest listen backlog of the servers
IDLE_CLIENTS = 3000
CHAT_BYTES = 100  # the JSON of a chat message

Answer = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """Seconds; `warm` are not counted."""

    warm: float = 1.0
    measured: float = 3.0


QUICK = Timing(0.2, 0.5)  # to see that everything runs; the results mean little


@dataclass(frozen=True)
class Scenario:
    """One number for each server; `load` is the load generator's name for what it does."""

    name: str
    title: str
    unit: str
    load: str
    clients: int
    message_bytes: int = CHAT_BYTES
    window: int = 1
    higher_is_better: bool = True

    @property
    def path(self) -> str:
        return "/ws" if self.load in ("fan-out", "idle") else "/echo"

    @property
    def result_key(self) -> str:
        return "kib_each" if self.load == "idle" else "per_second"

    def fits(self, peer: Peer) -> bool:
        """Whether that peer has the server, and can do what is asked of it."""
        if self.load == "idle" and peer.name == FLOOR:
            return False  # it holds nothing for a connection
        if self.message_bytes >= 1000 and peer.name == TEXT_ONLY:
            return False  # the load generator sends long messages as binary ones
        return peer.command(self.path) is not None


def fan_out(name: str, clients: int, window: int) -> Scenario:
    how = "one message in flight" if window == 1 else "under load"
    title = f"Fan-out to {clients:,} clients, {how}"
    return Scenario(name, title, "deliveries/s", "fan-out", clients, window=window)


def echo(name: str, title: str, clients: int, message_bytes: int, window: int = 1) -> Scenario:
    return Scenario(name, f"Echo, {title}", "messages/s", "echo", clients, message_bytes, window)


SCENARIOS = (
    fan_out("fan-out-one", 1000, 1),
    fan_out("fan-out-load", 1000, UNDER_LOAD),
    fan_out("fan-out-100-one", 100, 1),
    fan_out("fan-out-100-load", 100, UNDER_LOAD),
    echo("ping-pong", "32 bytes, one connection, one message in flight", 1, 32),
    echo("pipelined", "32 bytes, one connection, pipelined", 1, 32, PIPELINED),
    echo("echo-100", "32 bytes, 100 connections, one message in flight each", 100, 32),
    echo("echo-1mb", "1 MB, one connection", 1, 1 << 20),
    Scenario(
        "handshakes",
        "Opening and closing handshakes, four at a time",
        "connections/s",
        "handshakes",
        HANDSHAKES_AT_ONCE,
    ),
    Scenario(
        "idle",
        f"Memory of each of {IDLE_CLIENTS:,} idle connections",
        "KiB",
        "idle",
        IDLE_CLIENTS,
        higher_is_better=False,
    ),
)
SCENARIOS_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(frozen=True)
class Result:
    """`value` is in the scenario's unit; with a fault it is the rate until then, or None."""

    value: float | None
    generator_cores: float
    faults: list[str]


def measure(scenario: Scenario, peer: Peer, timing: Timing) -> Result:
    """Starts the server, loads it, stops it. Faults are in the result and not raised."""
    faults: list[str] = []
    for _ in range(JOIN_TRIES):
        answer = measure_once(scenario, peer, timing)
        fault = answer.get("fault", "")
        joined = answer.get("joined", False)
        died_joining = fault.startswith("died") and not joined
        if fault:
            faults.append(f"{fault} (while clients joined)" if died_joining else fault)
        if not died_joining:
            break
    value = answer[scenario.result_key] if joined else None
    if fault and (value == 0 or scenario.load == "idle"):
        value = None
    return Result(value, answer.get("generator_cores", 0.0), faults)


def measure_once(scenario: Scenario, peer: Peer, timing: Timing) -> Answer:
    command = peer.command(scenario.path)
    assert command is not None
    try:
        with running(command) as server:
            answer = run_generator(scenario, server, timing)
            if "fault" in answer and server.died():
                answer["fault"] = f"died: {server.last_words()}"
            return answer
    except Fault as fault:
        return {"fault": str(fault)}


def run_generator(scenario: Scenario, server: Server, timing: Timing) -> Answer:
    words = [
        LOAD,
        server.wait_for_port(),
        server.process.pid,
        scenario.load,
        scenario.clients,
        scenario.message_bytes,
        scenario.window,
        timing.warm,
        timing.measured,
    ]
    limit = GENERATOR_SECONDS + timing.warm + timing.measured
    try:
        done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"fault": f"hung: no result after {limit:.0f} s"}
    if not done.stdout:
        return {"fault": f"the load generator ended with status {done.returncode}"}
    answer: Answer = json.loads(done.stdout)
    return answer

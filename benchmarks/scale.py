"""Measure how far several chat servers on one Redis carry, on this machine.

    python3 benchmarks/scale.py [--clients 1000] [--seconds 4]

One client sends, the others listen, spread over all servers. Each line of the result is one run:
how many messages a second were appended and delivered, and how many cores the servers and Redis
used for that. Needs redis-server, and an interpreter with redis-py. docs/scale.md has the results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from environment import BUILD, LOAD, PROJECT, build_load_generator
from scenarios import CHAT_BYTES, UNDER_LOAD
from servers import Server, running

sys.path.insert(0, str(PROJECT))  # not installed

from chat.entry import Entry, pages
from chat.redis_history import RedisHistory
from chat.resume import MAX_RESUMED

WARM = 3.0  # seconds from the start of the sender, which also has to connect
SETTLE = 2.0  # seconds beyond what is measured, in which the sender still sends
IDLE_SECONDS = 10.0
RESUMPTIONS = 200
START_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")  # a second, in which the kernel counts the time of a process


@dataclass(frozen=True)
class Run:
    """How many servers, with Redis or alone, with how many clients and messages in flight."""

    servers: int
    clients: int
    window: int
    with_redis: bool = True


@dataclass(frozen=True)
class Reading:
    """What was counted up to one moment."""

    time: float
    messages: int
    servers_cpu: float  # seconds
    redis_cpu: float  # seconds


def free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def redis_server() -> Iterator[tuple[Any, int]]:
    """Run a Redis that keeps nothing on disk. Gives a client and the process id."""
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is missing: apt install redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no", "--logfile", str(Path(folder, "log"))]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        client = redis.Redis(port=port, decode_responses=True)
        try:
            wait_for_redis(client)
            yield client, process.pid
        finally:
            client.close()
            process.terminate()
            process.wait()


def wait_for_redis(client: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def chat_command(core: int, url: str | None) -> list[str]:
    """Each server gets a core of its own, as far as there are enough."""
    command = ["taskset", "-c", str(core), sys.executable, str(PROJECT / "chat_server.py")]
    command += ["--port", "0", "--rate", "0"]
    return command + (["--redis", url] if url else [])


def start_load(server: Server, scenario: str, clients: int, window: int, seconds: float) -> Any:
    numbers = [clients, CHAT_BYTES, window, 0.5, seconds]
    command = [str(LOAD), str(server.wait_for_port()), str(server.process.pid), scenario]
    return subprocess.Popen([*command, *map(str, numbers)], stdout=subprocess.PIPE, text=True)


def read(servers: Sequence[Server], client: Any, redis_pid: int) -> Reading:
    messages = 0
    if client.exists("chat"):
        messages = client.xinfo_stream("chat")["entries-added"]
    servers_cpu = sum(cpu_seconds(server.process.pid) for server in servers)
    return Reading(time.monotonic(), messages, servers_cpu, cpu_seconds(redis_pid))


def measure(run: Run, seconds: float) -> str:
    """One run; a row of the table in docs/scale.md."""
    with contextlib.ExitStack() as stack:
        client, redis_pid = stack.enter_context(redis_server())
        port = client.get_connection_kwargs()["port"]
        url = f"redis://127.0.0.1:{port}/0" if run.with_redis else None
        cores = sorted(os.sched_getaffinity(0))
        servers = [
            stack.enter_context(running(chat_command(cores[number % len(cores)], url)))
            for number in range(run.servers)
        ]
        each = run.clients // run.servers
        whole = WARM + seconds + SETTLE
        loads = [start_load(server, "listen", each, run.window, whole) for server in servers[1:]]
        time.sleep(1.0 if loads else 0.0)  # those who listen connect first
        loads.insert(0, start_load(servers[0], "fan-out", each, run.window, whole))
        time.sleep(WARM)
        first = read(servers, client, redis_pid)
        time.sleep(seconds)
        last = read(servers, client, redis_pid)
        answers = [json.loads(load.communicate(timeout=60)[0]) for load in loads]
        faults = [answer["fault"] for answer in answers if "fault" in answer]
    return row(run, first, last, answers) + "".join(f" FAULT: {fault}" for fault in faults)


def row(run: Run, first: Reading, last: Reading, answers: Sequence[Any]) -> str:
    passed = last.time - first.time
    # What the sender's own clients get is the rate; those who listen get as much, or fall behind.
    messages = answers[0]["per_second"] / (run.clients // run.servers)
    deliveries = sum(answer["per_second"] for answer in answers)
    appended = last.messages - first.messages
    redis_cpu = last.redis_cpu - first.redis_cpu
    cells = [
        f"{run.servers}{'' if run.with_redis else ', no Redis'}",
        f"{run.clients}",
        f"{run.window}",
        f"{messages:,.0f}",
        f"{deliveries:,.0f}",
        f"{(last.servers_cpu - first.servers_cpu) / passed:.2f}",
        f"{redis_cpu / passed:.2f}",
        f"{1e6 * redis_cpu / appended:.0f}" if appended else "",
    ]
    return f"| {' | '.join(cells)} |"


def measure_idle(count: int) -> str:
    """What servers without a client cost Redis."""
    with contextlib.ExitStack() as stack:
        client, redis_pid = stack.enter_context(redis_server())
        url = f"redis://127.0.0.1:{client.get_connection_kwargs()['port']}/0"
        for number in range(count):
            stack.enter_context(running(chat_command(number % 2, url))).wait_for_port()
        begin = cpu_seconds(redis_pid)
        client.config_resetstat()
        time.sleep(IDLE_SECONDS)
        used = cpu_seconds(redis_pid) - begin
        calls = client.info("commandstats")
    lines = [f"{count} idle servers: Redis uses {used / IDLE_SECONDS:.4f} of a core"]
    for name, each in calls.items():
        if name in ("cmdstat_eval", "cmdstat_xread", "cmdstat_xrevrange"):
            command = name.removeprefix("cmdstat_")
            a_second = each["calls"] / IDLE_SECONDS
            lines.append(f"  {command}: {a_second:.1f} a second, {each['usec_per_call']} µs each")
    return "\n".join(lines)


def measure_resuming() -> str:
    """What a client costs Redis that comes back, or joins, and gets as much as it may."""
    with redis_server() as (client, redis_pid):
        history = RedisHistory(f"redis://127.0.0.1:{client.get_connection_kwargs()['port']}/0")
        text = "m" * CHAT_BYTES
        for _ in range(MAX_RESUMED):
            history.append([Entry("", "somebody@example.org", "somebody", text, None)])
        begin = cpu_seconds(redis_pid)
        for _ in range(RESUMPTIONS):
            history.newest()
            list(pages(history, history.before_newest("0-0", MAX_RESUMED)))
        used = cpu_seconds(redis_pid) - begin
    each = 1e3 * used / RESUMPTIONS
    return f"a client that gets {MAX_RESUMED} missed messages: {each:.1f} ms of Redis"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run (%(default)s)")
    options = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    build_load_generator()
    print(
        "| servers | clients | in flight | messages/s | deliveries/s | cores of the servers"
        " | cores of Redis | µs of Redis a message |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for window in (1, UNDER_LOAD):
        print(measure(Run(1, options.clients, window, with_redis=False), options.seconds))
        for clients in (options.clients, options.clients // 10):
            for servers in (1, 2, 4):
                print(measure(Run(servers, clients, window), options.seconds), flush=True)
    for count in (1, 4):
        print(measure_idle(count))
    print(measure_resuming())


if __name__ == "__main__":
    main()

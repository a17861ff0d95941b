"""What the benchmarks need of the machine: an interpreter, the peers' packages, compiled programs.

Everything made here lies in `.venv` and `.build` beside this file and is kept between runs.
Nothing is installed outside of them. A peer that cannot be had is left out with a reason; only the
load generator must be built.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
PEERS = HERE / "peers"
BUILD = HERE / ".build"
VENV = HERE / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOAD = BUILD / "load"
GO_LIBRARY = Path("/usr/share/gocode")  # where Debian's Go packages are
GORILLA = "golang-github-gorilla-websocket-dev"  # the Debian package of gorilla/websocket
OLDEST_PYTHON = (3, 11)
BUILD_SECONDS = 300.0
PROBE_SECONDS = 20.0

# Prints the version, and how the interpreter was built as far as sysconfig tells. Debian's package
# is built with profile-guided optimization by rules of its own: it passes no flag to `configure`,
# and it removes the compiler's flag from sysconfig, where all other builds with GCC have it.
PROBE = """
import platform, sysconfig
arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
generate = sysconfig.get_config_var("PGO_PROF_GEN_FLAG")
use = sysconfig.get_config_var("PGO_PROF_USE_FLAG")
print(platform.python_version())
print(platform.python_implementation())
print("yes" if "--enable-optimizations" in arguments or (generate and not use) else "no")
"""


class Unavailable(Exception):
    """Something is missing; the text says what, and what to install."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can run the servers."""

    path: str
    version: str
    implementation: str
    optimized: bool

    def __str__(self) -> str:
        how = "with" if self.optimized else "WITHOUT"
        return f"{self.implementation} {self.version}, built {how} optimizations"


def prepare(python: str | None) -> Interpreter:
    """Build the load generator and let child processes open many files; returns the interpreter
    that runs the servers: `python`, or an optimized one where the machine has one."""
    if sys.platform != "linux":
        raise Unavailable("the load generator needs Linux (epoll and /proc)")
    BUILD.mkdir(exist_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    build_load_generator()
    interpreter = probe(python) if python else choose_interpreter()
    if interpreter is None:
        raise Unavailable(f"{python} does not run, or is older than Python 3.11")
    return interpreter


def choose_interpreter() -> Interpreter | None:
    """The first optimized one of the system's, PATH's and this one; else this one."""
    for path in ("/usr/bin/python3", shutil.which("python3"), sys.executable):
        found = probe(path) if path else None
        if found and found.optimized:
            return found
    return probe(sys.executable)


def probe(path: str) -> Interpreter | None:
    """None if it does not run or is too old."""
    try:
        done = subprocess.run(
            [path, "-c", PROBE], capture_output=True, text=True, check=True, timeout=PROBE_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version, implementation, optimized = done.stdout.split()
    major, minor, _ = version.split(".", 2)
    if (int(major), int(minor)) < OLDEST_PYTHON:
        return None
    return Interpreter(path, version, implementation, optimized == "yes")


def make_venv(interpreter: Interpreter) -> None:
    """An environment of that interpreter with the peers' packages; kept until either changes."""
    requirements = HERE / "requirements.txt"
    made_from = f"{interpreter.path} {interpreter.version}\n{requirements.read_text()}"
    stamp = VENV / "made-from"
    if stamp.exists() and stamp.read_text() == made_from:
        return
    print("Installing the peers into benchmarks/.venv ...", flush=True)
    if subprocess.run([interpreter.path, "-m", "venv", "--clear", str(VENV)]).returncode != 0:
        print("Could not make it (Debian: python3-venv); the peers in Python are left out.")
        return
    pip = [str(VENV_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    complete = True
    for line in requirements.read_text().splitlines():
        # One by one: a package that cannot be had must not cost all the others.
        if line and not line.startswith("#") and subprocess.run([*pip, line]).returncode != 0:
            print(f"Could not install {line}; a peer that needs it is left out.", flush=True)
            complete = False
    if complete:
        stamp.write_text(made_from)


def build_load_generator() -> None:
    source = HERE / "load.c"
    if LOAD.exists() and LOAD.stat().st_mtime > source.stat().st_mtime:
        return
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable("the load generator is a C program: install a C compiler (Debian: gcc)")
    command = [compiler, "-O3", "-Wall", "-Wextra", "-o", str(LOAD), str(source)]
    subprocess.run(command, check=True, timeout=BUILD_SECONDS)


def build_go(name: str) -> None:
    """Compile one of the Go peers against Debian's packages, without the network."""
    source = PEERS / f"{name}.go"
    program = BUILD / name
    if shutil.which("go") is None:
        raise Unavailable("Go is not installed (Debian: golang-go)")
    if not (GO_LIBRARY / "src/github.com/gorilla/websocket").is_dir():
        raise Unavailable(f"gorilla/websocket is not installed (Debian: {GORILLA})")
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return
    settings = {"GO111MODULE": "off", "GOPATH": str(GO_LIBRARY), "GOPROXY": "off", "GOFLAGS": ""}
    built = subprocess.run(
        ["go", "build", "-o", str(program), str(source)],
        env={**os.environ, "GOCACHE": str(BUILD / "go-cache"), **settings},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    if built.returncode != 0:
        raise Unavailable(f"go build failed: {built.stderr.strip().splitlines()[-1:]}")


def require_module(module: str) -> None:
    """Import it in the environment: an installed package may still lack a system library."""
    if not VENV_PYTHON.exists():
        raise Unavailable("there is no virtual environment (Debian: python3-venv)")
    command = [str(VENV_PYTHON), "-c", f"import {module}"]
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode != 0:
        last = (tried.stderr.strip().splitlines() or ["unknown reason"])[-1]
        raise Unavailable(last.replace(str(HERE), "benchmarks"))


def first_line(*command: str) -> str:
    """What a command prints first; nothing if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else ""


def describe_machine(interpreter: Interpreter) -> dict[str, str]:
    """What a reader must know to judge the results; without names or paths of this machine."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    pins = (HERE / "requirements.txt").read_text().splitlines()[1:]
    gorilla = first_line("dpkg-query", "-W", "-f", "${Version}", GORILLA)
    go = first_line("go", "version").removeprefix("go version ")
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Commit": first_line("git", "-C", str(PROJECT), "describe", "--always", "--dirty"),
        "Python": str(interpreter),
        "CPU": f"{models[0] if models else platform.machine()}, {cores} cores",
        "Memory": f"{memory / 2**30:.0f} GiB",
        "Kernel": f"Linux {platform.release()}",
        "Load average before": f"{os.getloadavg()[0]:.2f}",
        "Packages": ", ".join(pin.replace("==", " ") for pin in pins),
        "Go": f"{go}, gorilla/websocket {gorilla}" if go else "not installed",
    }

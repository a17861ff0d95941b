"""What the benchmark needs of the machine: its own packages, compiled programs, a description.

Everything made here lies in `.venv` and `.build` beside this file and is kept between runs.
Nothing is installed outside them, and what cannot be had is left out by name, not fatal; only
the load generator must be built.
"""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shutil
import subprocess
import sys
import venv
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
PEERS = HERE / "peers"
BUILD = HERE / ".build"
VENV = HERE / ".venv"
PYTHON = VENV / "bin" / "python"
LOAD = BUILD / "load"
GO_LIBRARY = Path("/usr/share/gocode")  # where Debian's Go packages are
PACKAGES = ("aiohttp", "flask-sock", "simple-websocket", "socketify", "websocket-server")
BUILD_SECONDS = 300.0


class Unavailable(Exception):
    """Something is not here; the text says what, and what to install."""


def prepare() -> None:
    """Make the environment and the load generator, and let children open many files."""
    if sys.platform != "linux":
        raise Unavailable("the load generator needs Linux (epoll and /proc)")
    BUILD.mkdir(exist_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    make_venv()
    build_load_generator()


def make_venv() -> None:
    requirements = HERE / "requirements.txt"
    made_from = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    stamp = VENV / "made-from"
    if stamp.exists() and stamp.read_text() == made_from:
        return
    print("Installing the peers into benchmarks/.venv ...", flush=True)
    venv.create(VENV, with_pip=True, clear=True)
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*command, "-r", str(requirements)]).returncode != 0:
        # One that cannot be had must not cost all the others.
        wanted = [line for line in requirements.read_text().splitlines() if line[:1] not in "#"]
        for requirement in wanted:
            if subprocess.run([*command, requirement]).returncode != 0:
                print(f"Could not install {requirement}; what needs it is left out.", flush=True)
        return  # no stamp: the next run tries again
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


def build_go(name: str) -> Path:
    """Compile one of the Go peers from Debian's packages, with no network."""
    source, program = PEERS / f"{name}.go", BUILD / name
    if shutil.which("go") is None:
        raise Unavailable("Go is not installed (Debian: golang-go)")
    if not (GO_LIBRARY / "src/github.com/gorilla/websocket").is_dir():
        raise Unavailable("install Debian's golang-github-gorilla-websocket-dev")
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
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
    return program


def require_module(module: str, hint: str) -> None:
    """Import it in the environment: an installed package may still lack a library."""
    tried = subprocess.run([str(PYTHON), "-c", f"import {module}"], capture_output=True, text=True)
    if tried.returncode != 0:
        last = (tried.stderr.strip().splitlines() or ["unknown reason"])[-1]
        reason = last.replace(str(HERE), "benchmarks")
        raise Unavailable(f"{hint} ({reason})" if hint else reason)


def require_file(name: str) -> Path:
    path = PROJECT / name
    if not path.exists():
        raise Unavailable(f"{name} is not there")
    return path


def first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else ""


def describe_machine() -> dict[str, object]:
    """What a reader must know to judge the figures; no names or paths of this machine."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    question = (
        "import importlib.metadata as m\n"
        f"print(*(f'{{p}} {{m.version(p)}}' for p in {('websockets', *PACKAGES)!r}), sep=', ')"
    )
    gorilla = first_line(
        "dpkg-query", "-W", "-f", "${Version}", "golang-github-gorilla-websocket-dev"
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "go": first_line("go", "version").removeprefix("go version "),
        "gorilla": gorilla,
        "packages": first_line(str(PYTHON), "-c", question),
        "commit": first_line("git", "-C", str(PROJECT), "describe", "--always", "--dirty"),
        "load_before": round(os.getloadavg()[0], 2),
    }

"""Autobahn's test suite against both sides: `python3 tests/autobahn [--fast]`.

Its fuzzing client talks to `echo_server.py --plain --deflate`, and our client talks to its fuzzing
server. Each case that is not strictly OK is printed in a line, and the exit status is 1 if there
is one. The suite runs on Python 2.7 only: an environment for it is made in .venv-autobahn, and
kept.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-autobahn"
SUITE = "autobahntestsuite==0.8.2"
sys.path.insert(0, str(ROOT))

from rfc6455 import ConnectionClosed, Deflate, WebSocket, connect  # noqa: E402  # not installed

INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}  # where the suite calls any behaviour right
# 9.* measures speed, 12.* and 13.* compress: they take minutes, and a few of their cases show most.
FAST = [*(f"{section}.*" for section in (1, 2, 3, 4, 5, 6, 7, 10))]
FAST += ["9.1.1", "9.2.1", "9.3.1", "12.1.1", "12.2.1", "13.3.1", "13.7.1"]
PATIENCE = 3600  # seconds for the whole suite in one role, which takes some minutes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fast", action="store_true", help="run only a few of the long cases in 9, 12 and 13"
    )
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="write a summary of the run to this file"
    )
    options = parser.parse_args()
    python27 = find_python27()
    if python27 is None:
        print("Autobahn needs Python 2.7, for example from pyenv: pyenv install 2.7.18")
        return 2
    wstest = make_environment(python27)
    cases = FAST if options.fast else ["*"]
    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        for role, run in (("server", run_server), ("client", run_client)):
            started = time.monotonic()
            reports[role] = run(wstest, cases, Path(folder) / role)
            print(f"{role}: {describe(reports[role])}, {time.monotonic() - started:.0f} s")
    bad = [line for role, report in reports.items() for line in faults(role, report)]
    print(*bad, sep="\n")
    if options.summary:
        options.summary.write_text(summary(reports, bad))
    return 1 if bad else 0


def find_python27() -> str | None:
    """A Python 2.7 that runs: the `python2.7` that pyenv puts on PATH may only print an error."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which("python2.7"), *map(str, root.glob("versions/2.7*/bin/python2.7"))]
    for candidate in filter(None, candidates):
        ran = subprocess.run([candidate, "-c", ""], capture_output=True, check=False)
        if ran.returncode == 0:
            return candidate
    return None


def make_environment(python27: str) -> Path:
    """Install the suite where it is not there yet; the path of its program."""
    wstest = ENVIRONMENT / "bin" / "wstest"
    if not wstest.exists():
        print(f"installing {SUITE} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:  # virtualenv itself is not kept
            quiet = ["-q", "--disable-pip-version-check"]
            pip = [python27, "-m", "pip", "install", *quiet]
            subprocess.run([*pip, "--target", folder, "virtualenv==20.15.1"], check=True)
            command = [python27, "-m", "virtualenv", "-q", str(ENVIRONMENT)]
            subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": folder})
        pip = [str(ENVIRONMENT / "bin" / "pip"), "install", *quiet]
        subprocess.run([*pip, SUITE], check=True)
    return wstest


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the end of the `with` statement."""
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def run_server(wstest: Path, cases: list[str], folder: Path) -> dict[str, Any]:
    """Test our server with the fuzzing client; its report, a dictionary for each case."""
    folder.mkdir()
    command = [sys.executable, str(ROOT / "echo_server.py"), "--plain", "--deflate", "--port", "0"]
    quiet = subprocess.DEVNULL
    with running(command, stdout=subprocess.PIPE, stderr=quiet) as server:
        assert server.stdout
        url = re.sub("^http", "ws", server.stdout.readline().split()[-1]) + "/echo"
        url = url.replace("localhost", "127.0.0.1")
        spec: dict[str, Any] = {
            "outdir": str(folder / "report"),
            "servers": [{"agent": "server", "url": url}],
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        run_fuzzer([str(wstest), "-m", "fuzzingclient"], spec, folder)
    return read_report(folder, "server")


def run_fuzzer(command: list[str], spec: dict[str, Any], folder: Path) -> None:
    (folder / "spec.json").write_text(json.dumps(spec))
    with (folder / "log").open("w") as log:
        subprocess.run(
            [*command, "-s", str(folder / "spec.json")],
            stdout=log,
            stderr=log,
            cwd=folder,
            check=True,
            timeout=PATIENCE,
        )


def run_client(wstest: Path, cases: list[str], folder: Path) -> dict[str, Any]:
    """Test our client with the fuzzing server; its report, a dictionary for each case."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"ws://127.0.0.1:{port}"
    spec: dict[str, Any] = {"outdir": str(folder / "report"), "url": url, "cases": cases}
    spec |= {"exclude-cases": [], "exclude-agent-cases": {}}
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [str(wstest), "-m", "fuzzingserver", "-s", str(folder / "spec.json"), "-u", "0"]
    with (folder / "log").open("w") as log, running(command, stdout=log, stderr=log, cwd=folder):
        with connect_patiently(f"{url}/getCaseCount") as websocket:
            count = int(str(websocket.receive()))
        for number in range(1, count + 1):
            run_case(f"{url}/runCase?case={number}&agent=client")
        with connect(f"{url}/updateReports?agent=client") as websocket:
            for _ in websocket:
                pass
    return read_report(folder, "client")


def connect_patiently(url: str) -> WebSocket:
    """Connect to a server that may still be starting."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return connect(url)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def run_case(url: str) -> None:
    """Run one case: the server sends what it wants, and our client echoes it."""
    with connect(url, deflate=Deflate(), max_message=32 << 20) as websocket:
        with contextlib.suppress(ConnectionClosed):
            for message in websocket:
                websocket.send(message)


def read_report(folder: Path, agent: str) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "report" / "index.json").read_text())
    return index[agent]  # type: ignore[no-any-return]


def describe(report: dict[str, Any]) -> str:
    counts = Counter(case["behavior"] for case in report.values())
    return f"{len(report)} cases, " + ", ".join(f"{n} {what}" for what, n in counts.items())


def faults(role: str, report: dict[str, Any]) -> list[str]:
    """A line for each case that is not strictly OK."""
    lines = []
    for name, case in sorted(report.items(), key=lambda item: [int(n) for n in item[0].split(".")]):
        allowed = {"OK", "INFORMATIONAL"} if name in INFORMATIONAL else {"OK"}
        if not {case["behavior"], case["behaviorClose"]} <= allowed:
            close = f"close {case['behaviorClose']} with {case['remoteCloseCode']}"
            lines.append(f"{role} {name}: {case['behavior']}, {close}")
    if not report:
        lines.append(f"{role}: no case was run")
    return lines


def summary(reports: dict[str, dict[str, Any]], bad: list[str]) -> str:
    lines = ["# Autobahn", "", "Made by `python3 tests/autobahn --summary docs/autobahn.md`.", ""]
    versions = f"{SUITE.replace('==', ' ')}, Python {sys.version.split()[0]}"
    lines += [f"{time.strftime('%Y-%m-%d')}, {versions}.", ""]
    lines += ["| side | outcome |", "|---|---|"]
    lines += [f"| {role} | {describe(report)} |" for role, report in reports.items()]
    informational = ", ".join(sorted(INFORMATIONAL))
    lines += ["", f"Informational by the suite's own definition: {informational}.", ""]
    lines += [f"- {line}" for line in bad] or ["Every case is strictly OK."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

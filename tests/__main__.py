"""Checks everything: `python3 tests`, on Linux and macOS.

Makes .venv in the project's root, installs what requirements-dev.txt pins, and runs ruff, mypy
and pytest; and, on the oldest and the newest supported Python if pyenv has them, and on
free-threaded ones that pyenv or PATH has, the tests that need no other program. As the tests
mostly wait, all that has no deadline runs beside them, with what they leave of the processors. At
the end it says what was skipped, and why.

    python3 tests                      everything
    python3 tests -k handshake         only pytest, with these arguments (-n 0: in one process)
    python3 tests --long               tests that look at RUN_LONG run longer, and on each Python
    python3 tests --only-this-python   no further Pythons

Exit status: 0 all passed, 1 something failed, 2 the environment could not be made, 130 interrupted.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path

# Python 3.6 to 3.10 must get as far as this line, so the file's syntax is that of 3.6.
if sys.version_info < (3, 11) or os.name != "posix":
    sys.exit("python3 tests: needs Python 3.11 or newer, on Linux, macOS or Windows' WSL")

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements-dev.txt"
SUPPORTED = ("3.11", "3.12", "3.13")
BETWEEN = SUPPORTED[1:-1]  # what works on the oldest and the newest works on these: with --long
FREE_THREADED = ("3.13t", "3.14t")  # without the global lock; tested where the machine has one
WORKERS = "6"  # tests mostly wait; with more, two cores would miss the shorter deadlines
LAYER_WORKERS = "10"  # on further Pythons, where no browser and no other program runs
IN_ONE_PROCESS = "0"
NICENESS = 10  # of what runs aside: it gets a tenth of what a test gets that wants the processor
# Markers of the tests that do not run on further Pythons.
ONLY_HERE = ("browser", "redis", "nginx", "proxies", "go", "autobahn", "slow")


def files_of(*modules: str) -> set[str]:
    """The tests of these modules: in test_MODULE.py, or where they are many, test_MODULE_*.py."""
    patterns = [pattern for each in modules for pattern in (f"test_{each}.py", f"test_{each}_*.py")]
    return {f"tests/{file.name}" for each in patterns for file in (ROOT / "tests").glob(each)}


# What runs there: the tests of the layer and of the history, which need no other program, and those
# of the interpreter's lock. First those with sockets, threads and processes, which have deadlines.
WITH_DEADLINES = files_of(
    "clock", "stream", "connection", "server", "client", "vanishing", "interpreter",
    "deflate_connection", "chat_history_files",
)  # fmt: skip
WITHOUT_DEADLINES = files_of(
    "errors", "frames", "handshake", "deflate", "protocol", "keepalive", "chat_message",
    "chat_history",
) - WITH_DEADLINES  # fmt: skip
# What these tests need of REQUIREMENTS. Some of the rest has compiled parts that do not install on
# every interpreter: hypothesis does not on 3.13t.
LAYER_NEEDS = ("pytest", "pytest-timeout", "pytest-xdist", "websockets")
TEARDOWN_TIME = 30.0  # seconds; above the 15 that pytest-xdist takes to stop a busy worker


class SetupError(Exception):
    """The environment could not be made; the message says what to do about it."""


class Report:
    """What was checked, with what outcome, and what was left out."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.checks: list[tuple[str, bool, float]] = []
        self.skips: collections.Counter[str] = collections.Counter()
        self.further: list[str] = []  # the further Pythons, each in its environment

    def check(self, title: str, *command: object, **variables: str) -> None:
        print(f"\n== {title}", flush=True)
        started = time.monotonic()
        passed = run(*command, **variables) == 0
        self.checks.append((title, passed, time.monotonic() - started))

    def save(self, file: Path) -> None:
        """For the `add` of another process."""
        file.write_text(json.dumps([self.checks, self.skips, self.further]))

    def add(self, file: Path) -> None:
        checks, skips, further = json.loads(file.read_text())
        self.checks += [(title, passed, took) for title, passed, took in checks]
        self.skips.update(skips)
        self.further += further

    def finish(self) -> int:
        print("\n== Summary")
        for title, passed, took in self.checks:
            print(f"{'passed ' if passed else 'FAILED '} {title} ({took:.1f} s)")
        for reason, count in sorted(self.skips.items()):
            print(f"skipped {reason}" + (f" ({count} times)" if count > 1 else ""))
        all_passed = all(passed for _, passed, _ in self.checks)
        seconds = round(time.monotonic() - self.started)
        print("Everything passed" if all_passed else "FAILED", f"in {seconds} s", flush=True)
        return 0 if all_passed else 1


def main() -> int:
    usage = "python3 tests [--long] [--only-this-python] [pytest's arguments]"
    parser = argparse.ArgumentParser(usage=usage, allow_abbrev=False)  # --l may be pytest's
    parser.add_argument("--long", action="store_true", help="longer runs: sets RUN_LONG=1")
    parser.add_argument("--only-this-python", action="store_true", help="no further Pythons")
    parser.add_argument("--aside", type=Path, help=argparse.SUPPRESS)  # see `aside`
    options, pytest_arguments = parser.parse_known_args()
    # The tests start Python a thousand times. As the environments are made without bytecode, each
    # of these would compile all that it imports if it might not write any.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if options.long:
        os.environ |= {"RUN_LONG": "1", "PYTEST_TIMEOUT": "3600"}  # seconds for each test
    # SIGINT, too: a shell's background job ignores it, and pytest would inherit that.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)

    report = Report()
    try:
        python = environment(".venv", sys.executable)
        if options.aside:
            check_aside(report, python, further=not options.only_this_python)
            report.save(options.aside)
            return 0
        if pytest_arguments:
            check_with_pytest(report, python, WORKERS, *pytest_arguments)
        else:
            check_everything(report, python, only_this_python=options.only_this_python)
    except SetupError as error:
        print(f"python3 tests: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\npython3 tests: interrupted", file=sys.stderr)
        return 130
    return report.finish()


def check_everything(report: Report, python: str, *, only_this_python: bool) -> None:
    report.check("ruff check", python, "-m", "ruff", "check")
    report.check("ruff format --check", python, "-m", "ruff", "format", "--check")
    with aside(report, *["--only-this-python"] * only_this_python):
        check_with_pytest(report, python, WORKERS)
    for further in report.further:
        check_layer(report, further, LAYER_WORKERS, WITH_DEADLINES)


@contextlib.contextmanager
def aside(report: Report, *options: str) -> Iterator[None]:
    """Run `check_aside` in a process of its own, and wait for its end.

    What it prints is shown then, so that it is not mixed with what the other tests print.
    """
    with tempfile.TemporaryDirectory() as folder, Path(folder, "output").open("w+") as output:
        outcome = Path(folder, "outcome.json")
        command = [sys.executable, __file__, "--aside", str(outcome), *options]
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
            process.wait()
        finally:
            process.send_signal(signal.SIGINT)  # no error if it has ended
            process.wait()
        output.seek(0)
        print(output.read(), end="", flush=True)
        if process.returncode != 0:
            raise SetupError("some checks could not be made; the reason is above")
        report.add(outcome)


def check_aside(report: Report, python: str, *, further: bool) -> None:
    """Check what has no deadline, and make the further environments."""
    os.nice(NICENESS)
    check_types(report, python)
    if further:
        make_further_environments(report)
    patience = {"PYTEST_TIMEOUT": os.environ.get("PYTEST_TIMEOUT", "600")}  # seconds
    for each in report.further:
        check_layer(report, each, IN_ONE_PROCESS, WITHOUT_DEADLINES, **patience)


def check_layer(
    report: Report, python: str, workers: str, files: set[str], **variables: str
) -> None:
    """Run tests on a further Python, in which no other program is needed."""
    markers = " and ".join(f"not {marker}" for marker in ONLY_HERE)
    if version_of(python).endswith("t"):
        # Otherwise importing a module that was not made for it would turn the lock on again.
        variables["PYTHON_GIL"] = "0"
    check_with_pytest(report, python, workers, "-m", markers, *sorted(files), **variables)


def environment(name: str, base: str, packages: Sequence[str] = ()) -> str:
    """The Python of a virtual environment with these packages, or all, as REQUIREMENTS pins them.

    The environment is made anew where REQUIREMENTS or the packages have changed, and where its
    Python is gone or of another version than `base`.
    """
    directory = ROOT / name
    python = str(directory / "bin" / "python")
    version = version_of(base)
    stamp = directory / "made-from"  # written last, so that an unfinished environment has none
    pins = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    made_from = " ".join((version, pins, *packages)) + "\n"
    if stamp.is_file() and stamp.read_text() == made_from and version_of(python) == version:
        return python

    if directory.is_symlink():  # `venv --clear` would empty what others use, and then fail
        raise SetupError(
            f"{directory} leads to an environment that was not made from these pins; run"
            f" `python3 tests` beside {directory.resolve()}, or remove the link"
        )
    print(f"== Making {name} with Python {version}", flush=True)
    if not version_of(base, "ensurepip", "venv"):
        raise SetupError(f"{base} has no venv; on Debian and Ubuntu: apt install python3-venv")
    if run(base, "-m", "venv", "--clear", directory) != 0:
        raise SetupError(f"could not make {directory}; the reason is above")
    # Most of it is never imported; compiling it all would take half as long again.
    wanted = ("--constraint", REQUIREMENTS, *packages) if packages else ("-r", REQUIREMENTS)
    if run(python, "-m", "pip", "install", "-qq", "--no-compile", *wanted) != 0:
        raise SetupError(
            "pip could not install requirements-dev.txt; the reason is above. It needs PyPI, or"
            " an index or a folder of wheels named by PIP_INDEX_URL or PIP_FIND_LINKS"
        )
    stamp.write_text(made_from)
    return python


def make_further_environments(report: Report) -> None:
    """One for each other version to test that pyenv has, and for each free-threaded one."""
    this = "{}.{}".format(*sys.version_info)
    pythons = {}
    for version in (*sorted({*SUPPORTED} - {this}), *FREE_THREADED):
        base = find_python(version)
        if version in BETWEEN and "RUN_LONG" not in os.environ:
            report.skips[f"on Python {version}: everything; it is tested with --long"] += 1
        elif base:
            pythons[version] = environment(f".venv-{version}", base, LAYER_NEEDS)
            report.skips[f"on Python {version}: all but the layer and the history"] += 1
        elif version in SUPPORTED:
            report.skips[f"on Python {version}: everything; pyenv has no such Python"] += 1
    if not {*pythons} & {*FREE_THREADED}:
        wanted = " or ".join(FREE_THREADED)
        report.skips[f"on free-threaded Python: everything; pyenv and PATH have no {wanted}"] += 1
    report.further += pythons.values()


def find_python(version: str) -> str | None:
    """The newest release that pyenv has of a version, such as 3.12.1 of 3.12 and 3.13.1t of 3.13t.

    A free-threaded one may also be there under its version alone, or be on PATH.
    """
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    minor = version.rstrip("t")
    command = f"python{version}"
    releases = {}
    for path in versions.glob(f"{minor}.*"):
        release = re.fullmatch(version.replace(minor, r"(\d+)"), path.suffix[1:])
        if release:
            releases[int(release[1])] = path / "bin" / command
    if releases:
        return str(releases[max(releases)])
    if version in FREE_THREADED:
        for python in (versions / version / "bin" / command, shutil.which(command)):
            # A command on PATH may be pyenv's, which only complains where that version is gone.
            if python and version_of(python):
                return str(python)
    return None


def version_of(python: str | Path, *modules: str) -> str:
    """That Python's version, as 3.13.1, or 3.13.1t of a free-threaded one.

    "" where it does not run, or lacks one of the modules.
    """
    imports = "".join(f"import {module}; " for module in ("platform", "sys", *modules))
    command = [python, "-c", imports + "print(platform.python_version() + sys.abiflags)"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def check_types(report: Report, python: str) -> None:
    programs = sorted(path.name for path in ROOT.glob("*.py"))
    report.check(
        "mypy of the programs", python, "-m", "mypy", "rfc6455", "chat", "playground", *programs
    )
    # One by one, because two of them have a __main__; with the folder on the path, as they run.
    for folder, path in (("tests", "tests"), ("benchmarks", "benchmarks"), ("docs", "docs:tests")):
        if any((ROOT / folder).glob("*.py")):
            report.check(f"mypy of {folder}", python, "-m", "mypy", folder, MYPYPATH=path)


def check_with_pytest(
    report: Report, python: str, workers: str, *arguments: str, **variables: str
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        junit = Path(directory, "junit.xml")
        options = ["-n", workers, "--dist", "worksteal", f"--junit-xml={junit}"]
        where = f"on Python {version_of(python)}"
        command = [python, "-m", "pytest", *options, *arguments]
        report.check(f"pytest {where}", *command, **variables)
        if not junit.is_file():  # pytest did not start
            return
        for skipped in xml.etree.ElementTree.parse(junit).iter("skipped"):
            reason = skipped.get("message")
            if reason == "collection skipped":  # a whole file; why is in the text
                reason = skipped.text
            report.skips[f"{where}: {reason}"] += 1


def run(*command: object, **variables: str) -> int:
    """Run a command in a process group of its own, and end all of that group with it.

    Tests start servers and browsers, which must not outlive them. In a group of its own the
    command gets no Ctrl+C from the terminal, so it is passed on here.
    """
    words = [str(word) for word in command]
    process = subprocess.Popen(words, cwd=ROOT, env=os.environ | variables, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)  # pytest tears its fixtures down
            process.wait(TEARDOWN_TIME)
        raise
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # none left; so on macOS
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())

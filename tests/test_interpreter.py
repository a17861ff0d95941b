"""The interpreter's global lock, which a free-threaded Python has not.

Importing one compiled module that does not say it can do without the lock turns it on again for
the whole process, and then a run of these tests on such a Python shows nothing.
"""

import os
import subprocess
import sys
import sysconfig

import pytest

from peers import PATIENCE
from programs import ROOT

# Whether this Python was built to run without the lock, whatever turned it on since.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
HAS_LOCK = 'getattr(sys, "_is_gil_enabled", lambda: True)()'  # Python 3.13 is the first to tell


def printed_by(program: str) -> str:
    """What Python prints when a user runs this program, who has not said to keep the lock off."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=variables,
        timeout=2 * PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_free_threaded_python_runs_these_tests_without_its_lock() -> None:
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert has_lock is not FREE_THREADED


def test_importing_the_layer_and_the_programs_does_not_turn_the_lock_on_again() -> None:
    program = f"import sys, chat_server, echo_client, echo_server; print({HAS_LOCK})"
    assert printed_by(program) == str(not FREE_THREADED)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has it")
def test_a_program_holds_itself_to_one_core_only_where_python_has_its_lock() -> None:
    cores = len(os.sched_getaffinity(0))
    program = (
        "import os; from command_line import hold_to_one_core; hold_to_one_core();"
        "print(len(os.sched_getaffinity(0)))"
    )
    assert printed_by(program) == str(cores if FREE_THREADED else 1)

"""The fast cut of Autobahn's suite, against both sides: every case OK, none non-strict."""

import subprocess
import sys
from pathlib import Path

import pytest

from finding import find_python27, require

SUITE = Path(__file__).with_name("autobahn")


@pytest.mark.autobahn
@pytest.mark.timeout(600)  # the first run installs the suite
def test_both_sides_pass_the_fast_cut_of_autobahn_strictly() -> None:
    require(find_python27(), "Python 2.7", "pyenv install 2.7.18")
    run = subprocess.run(
        [sys.executable, SUITE, "--fast"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("251 OK") == 2

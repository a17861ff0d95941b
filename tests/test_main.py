"""The command that runs all of these tests: `python3 tests`."""

import shutil
import subprocess
import sys
from pathlib import Path

from programs import ROOT


def test_linked_environment_made_from_other_pins_is_left_as_it_is(tmp_path: Path) -> None:
    """Several checkouts may share one. Making it anew would take it from the others."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "made-from").write_text("other pins\n")
    checkout = tmp_path / "checkout"
    (checkout / "tests").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "__main__.py", checkout / "tests")
    shutil.copy(ROOT / "requirements-dev.txt", checkout)
    (checkout / ".venv").symlink_to(shared)
    command = [sys.executable, str(checkout / "tests"), "-k", "nothing"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "leads to an environment that was not made from these pins" in run.stderr
    assert (shared / "made-from").read_text() == "other pins\n"

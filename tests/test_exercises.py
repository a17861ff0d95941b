"""The exercises of docs/how-it-works.md: their tests fail without a solution, and pass with it."""

import os
import re
import subprocess
import sys

import pytest

from peers import PATIENCE
from programs import ROOT

FOLDER = ROOT / "tests" / "exercises"
EXERCISES = sorted(path.stem for path in FOLDER.glob("test_*.py"))


def run_tests(exercise: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of an exercise up to the first that fails, in a process of their own."""
    environment = {name: text for name, text in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *options,
         f"tests/exercises/{exercise}.py"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )  # fmt: skip


def test_document_has_an_exercise_for_each_test_and_names_it() -> None:
    text = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    named = re.findall(r"pytest tests/exercises/(test_\w+)\.py", text)
    assert sorted(set(named)) == EXERCISES
    solutions = re.findall(r"\]\(\.\./tests/exercises/solutions/(\w+\.py)\)", text)
    assert sorted(set(solutions)) == sorted(path.name for path in FOLDER.glob("solutions/*.py"))


@pytest.mark.parametrize("exercise", EXERCISES)
def test_solution_passes_the_test_of_its_exercise(exercise: str) -> None:
    ended = run_tests(exercise, "--solved")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("exercise", EXERCISES)
def test_program_without_a_solution_fails_the_test_of_the_exercise(exercise: str) -> None:
    ended = run_tests(exercise)
    if ended.returncode == 0 and "CI" not in os.environ:
        pytest.skip("this program has the exercise solved already")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "1 failed" in ended.stdout

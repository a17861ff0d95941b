"""What the exercises of docs/how-it-works.md need: the program, yours or with the solution.

    .venv/bin/python -m pytest tests/exercises/test_typing.py           tests your program
    .venv/bin/python -m pytest tests/exercises/test_typing.py --solved  tests the solution

These tests are not among those that run without being named. `tests/test_exercises.py` is: it holds
that each of them fails before its exercise is solved, and passes with the solution.
"""

import os
from collections.abc import Iterator

import pytest

from programs import ROOT, Program, running, with_constants

SOLUTIONS = "tests/exercises/solutions"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--solved",
        action="store_true",
        help="test the solutions in tests/exercises/solutions instead of your own program",
    )


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Program]:
    """The server that the exercise is about; all tests of one exercise share it.

    The module of the tests says which: PROGRAM, its OPTIONS, and in SOLUTION the program that is
    the same with the exercise solved.
    """
    exercise = request.module
    script = exercise.PROGRAM
    if request.config.getoption("--solved"):
        script = f"{SOLUTIONS}/{exercise.SOLUTION}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # a solution imports our modules
    quick = with_constants({"chat.presence.PRESENCE_INTERVAL": 0.05})  # seconds, instead of 1
    with running(script, *exercise.OPTIONS, python=quick, env=environment) as program:
        yield program

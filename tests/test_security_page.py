"""SECURITY.md names tests that exist."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| **")]


@functools.cache
def functions() -> set[str]:
    """The names of all functions in the test modules."""
    return {
        node.name
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row.split("|")[1].strip()[:40])
def test_each_threat_has_a_test_that_exists(row: str) -> None:
    named = re.findall("`([^`]+)`", row.split("|")[3])
    assert named or "Autobahn" in row
    for name in named:
        is_there = (ROOT / name).exists() if "/" in name else name in functions()
        assert is_there, f"{name} is no test"

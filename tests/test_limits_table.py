"""The table of limits in docs/deployment.md is true: each constant exists, and has that value."""

import importlib
import inspect
import re
from typing import NamedTuple

import pytest

from chat.options import Options
from programs import ROOT, run
from rfc6455 import Timeouts, WebSocketServer

CONSTANT = re.compile(r"`([a-z0-9_/]+)\.py: (\w+)`")
# Rows whose default is in other words or units than the constant.
IN_OTHER_WORDS = {"broadcast", "REPEAT_TIME"}


class Row(NamedTuple):
    """A line of the table."""

    limit: str
    default: str
    unit: str
    set_by: str
    outcome: str


def read_rows() -> list[Row]:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = text.partition("\n## Limits\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    rows = [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]
    return [row for row in rows[1:] if not row.limit.startswith("**")]


ROWS = read_rows()


def number_of(row: Row) -> float:
    return float(row.default.replace(",", ""))


def rows_of(pattern: str) -> list[tuple[Row, re.Match[str]]]:
    return [(row, found) for row in ROWS for found in re.finditer(pattern, row.set_by)]


@pytest.mark.parametrize(("row", "found"), rows_of(CONSTANT.pattern))
def test_constant_in_the_table_exists_and_has_this_value(row: Row, found: re.Match[str]) -> None:
    module = importlib.import_module(found[1].replace("/", "."))
    value = getattr(module, found[2])
    if found[2] not in IN_OTHER_WORDS:
        assert float(value) == number_of(row)


@pytest.mark.parametrize(("row", "found"), rows_of(r"`Timeouts\.(\w+)`"))
def test_timeout_in_the_table_has_this_default(row: Row, found: re.Match[str]) -> None:
    assert getattr(Timeouts(), found[1]) == number_of(row)


def test_every_timeout_is_in_the_table() -> None:
    found = {match[1] for _, match in rows_of(r"`Timeouts\.(\w+)`")}
    assert found == set(Timeouts._fields)


@pytest.mark.parametrize(("row", "found"), rows_of(r"`--([a-z-]+)`(\*?)"))
def test_flag_in_the_table_has_this_default(row: Row, found: re.Match[str]) -> None:
    if found[2] and found[1] == "max-message":
        words = " ".join(run("echo_server.py", "--help").stdout.decode().split())
        assert f"from 1 to 9007199254740992 (default: {row.default.replace(',', '')})" in words
        return
    default = getattr(Options(), found[1].replace("-", "_"))
    assert row.default == "none" if default is None else default == number_of(row)


@pytest.mark.parametrize(("row", "found"), rows_of(r"`(\w+)` of `WebSocketServer`"))
def test_argument_of_the_server_in_the_table_has_this_default(
    row: Row, found: re.Match[str]
) -> None:
    if found[1] == "request_queue_size":
        default = WebSocketServer.request_queue_size
    else:
        default = inspect.signature(WebSocketServer).parameters[found[1]].default
    assert row.default == "none" if default is None else default == number_of(row)

"""Makes docs/rfc6455.md: each rule of the RFCs with the functions that obey it and its tests.

It reads the list of rules from tests/requirements.tsv, the functions that obey them from
tests/obeyed_by.tsv, and the tests from the `requirement` markers in tests/test_*.py, which it
parses without running them.

    python3 docs/make_rfc6455.py            writes the page
    python3 docs/make_rfc6455.py --check    exits with status 1 if the page is out of date
"""

from __future__ import annotations

import ast
import csv
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "rfc6455.md"

# The rules that are not supported, on purpose, and why. A test allows at most six.
NOT_SUPPORTED = {
    "4.1-3": "The client knows no proxies, so it always learns the address that it connects to.",
    "4.1-4": "The client knows no proxies. Whoever needs one forwards a local port through it.",
    "4.2.2-12": "Only one extension exists here, so two can never be agreed on.",
    "9.1-8": "Only one extension exists here, so there is no order to apply several in.",
}

# The titles of the RFCs' sections. A section with a D in front is one of RFC 7692.
TITLES = {
    "2.1": "Terminology and Other Conventions",
    "3": "WebSocket URIs",
    "4.1": "Opening Handshake: Client Requirements",
    "4.2.1": "Reading the Client's Opening Handshake",
    "4.2.2": "Sending the Server's Opening Handshake",
    "4.3": "Collected ABNF for New Header Fields Used in Handshake",
    "4.4": "Supporting Multiple Versions of WebSocket Protocol",
    "5.1": "Data Framing: Overview",
    "5.2": "Base Framing Protocol",
    "5.3": "Client-to-Server Masking",
    "5.4": "Fragmentation",
    "5.5": "Control Frames",
    "5.5.1": "Close",
    "5.5.2": "Ping",
    "5.5.3": "Pong",
    "5.6": "Data Frames",
    "6.1": "Sending Data",
    "6.2": "Receiving Data",
    "7.1.1": "Close the WebSocket Connection",
    "7.1.3": "The WebSocket Closing Handshake is Started",
    "7.1.4": "The WebSocket Connection is Closed",
    "7.1.5": "The WebSocket Connection Close Code",
    "7.1.6": "The WebSocket Connection Close Reason",
    "7.1.7": "Fail the WebSocket Connection",
    "7.2.1": "Client-Initiated Closure",
    "7.2.2": "Server-Initiated Closure",
    "7.2.3": "Recovering from Abnormal Closure",
    "7.3": "Normal Closure of Connections",
    "7.4.1": "Defined Status Codes",
    "7.4.2": "Reserved Status Code Ranges",
    "8.1": "Handling Errors in UTF-8-Encoded Data",
    "9.1": "Negotiating Extensions",
    "10.2": "Origin Considerations",
    "10.3": "Attacks On Infrastructure (Masking)",
    "10.4": "Implementation-Specific Limits",
    "10.6": "Connection Confidentiality and Integrity",
    "10.7": "Handling of Invalid Data",
    "11.1.1": 'Registration of "ws" Scheme',
    "11.3.1": "Sec-WebSocket-Key",
    "11.3.2": "Sec-WebSocket-Extensions",
    "11.3.3": "Sec-WebSocket-Accept",
    "11.3.4": "Sec-WebSocket-Protocol",
    "11.3.5": "Sec-WebSocket-Version",
    "D5": "Extension Negotiation",
    "D5.1": "General Negotiation Flow",
    "D5.2": "Negotiation Examples",
    "D6": "Framing",
    "D6.1": "Compression",
    "D6.2": "Decompression",
    "D7": 'The "permessage-deflate" Extension',
    "D7.1.1.1": 'The "server_no_context_takeover" Extension Parameter',
    "D7.1.1.2": 'The "client_no_context_takeover" Extension Parameter',
    "D7.1.2.1": 'The "server_max_window_bits" Extension Parameter',
    "D7.1.2.2": 'The "client_max_window_bits" Extension Parameter',
    "D7.2.1": "Message Payload Transformation: Compression",
    "D7.2.2": "Message Payload Transformation: Decompression",
    "D7.3": "Implementation Notes",
}

SIDES = {"both": "both sides", "client": "clients", "server": "servers"}


class Requirement(NamedTuple):
    """A row of tests/requirements.tsv, without the columns that the page does not show."""

    id: str
    section: str  # of RFC 6455, or with a D in front of RFC 7692
    level: str  # such as MUST NOT
    binds: str  # a key of SIDES
    text: str


class Test(NamedTuple):
    """A test function, or a method as `Class.method`, and its file below tests/."""

    file: str
    name: str


# Reading the lists and the code


def read_requirements() -> list[Requirement]:
    """Return the rules in the order of the list."""
    rows = read_table("requirements.tsv")
    return [
        Requirement(row["id"], row["section"], row["level"], row["binds"], row["requirement"])
        for row in rows
    ]


def read_obeyed_by() -> dict[str, list[str]]:
    """Return the functions that obey each rule, by the rule's id.

    A function is written as `rfc6455.frames:mask` or `public/chat/app.js:join`.
    """
    return {row["id"]: row["functions"].split() for row in read_table("obeyed_by.tsv")}


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of a file below tests/, each as a dictionary from column to text."""
    with open(ROOT / "tests" / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))


def read_markers() -> dict[str, list[Test]]:
    """Return the tests that are marked with each rule, by the rule's id."""
    marked: dict[str, list[Test]] = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for name, ids in marked_tests(path.read_text(encoding="utf-8")):
            for each in ids:
                marked.setdefault(each, []).append(Test(path.name, name))
    return marked


def marked_tests(source: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each test function of a module, with the ids in its own, its class's and its module's
    markers.

    A marker may be in a decorator, in a `pytest.param` within one, or in a variable of the module
    that a decorator uses. Raises ValueError for a marker whose ids are not string literals.
    """
    tree = ast.parse(source)
    variables: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            variables[node.targets[0].id] = ids_in(node.value, {})
    of_module = variables.pop("pytestmark", [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield node.name, unique(of_module + ids_in_decorators(node, variables))
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            of_class = of_module + ids_in_decorators(node, variables)
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name.startswith("test"):
                    ids = unique(of_class + ids_in_decorators(method, variables))
                    yield f"{node.name}.{method.name}", ids


def ids_in_decorators(
    node: ast.FunctionDef | ast.ClassDef, variables: dict[str, list[str]]
) -> list[str]:
    return [each for decorator in node.decorator_list for each in ids_in(decorator, variables)]


def ids_in(expression: ast.expr, variables: dict[str, list[str]]) -> list[str]:
    """Return the ids in the markers of an expression, and in those of the variables it uses."""
    ids: list[str] = []
    for node in ast.walk(expression):
        if isinstance(node, ast.Name):
            ids += variables.get(node.id, [])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("requirement"):
            for argument in node.args:
                if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                    raise ValueError(f"line {node.lineno}: write the ids out: {ast.unparse(node)}")
                ids.append(argument.value)
    return ids


def unique(ids: Iterable[str]) -> list[str]:
    """Return the ids in the same order, each once."""
    return list(dict.fromkeys(ids))


def file_of(function: str) -> Path:
    """Return the file of a function of tests/obeyed_by.tsv, relative to the project's root."""
    module, _, _ = function.partition(":")
    return Path(module) if module.endswith(".js") else Path(*module.split(".")).with_suffix(".py")


def exists(function: str) -> bool:
    """Return whether there is such a function, method or class."""
    path, name = ROOT / file_of(function), function.partition(":")[2]
    if not path.is_file():
        return False
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".js":
        defined = rf"^ *(export |async |function )*{re.escape(name)}\([^)]*\) \{{$"
        return re.search(defined, source, re.MULTILINE) is not None
    found: list[ast.stmt] = ast.parse(source).body
    for part in name.split("."):
        scopes = [
            node
            for node in found
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
        ]
        found = [node for scope in scopes for node in scope.body]
    return bool(scopes)


# Writing the page


def make_page() -> str:
    requirements = read_requirements()
    obeyed_by = read_obeyed_by()
    marked = read_markers()
    tests = {test for row in requirements for test in marked.get(row.id, [])}
    lines = [*introduction(len(requirements), len(tests)), "## Not supported", ""]
    for row in requirements:
        if row.id in NOT_SUPPORTED:
            lines += [rule(row), f"  {NOT_SUPPORTED[row.id]}"]
    section = None
    for row in requirements:
        if row.section != section:
            section = row.section
            lines += section_heading(section)
        lines.append(rule(row))
        if row.id in NOT_SUPPORTED:
            lines.append("  Not supported, see above.")
        else:
            lines.append(f"  Obeyed by {links_to_functions(obeyed_by.get(row.id, []))}.  ")
            lines.append(f"  Held by {links_to_tests(marked.get(row.id, []))}.")
    return "\n".join(lines) + "\n"


def introduction(rules: int, tests: int) -> list[str]:
    held = rules - len(NOT_SUPPORTED)
    return [
        "# From the RFC to the test",
        "",
        "<!-- Made by `python3 docs/make_rfc6455.py`; changes here would be lost. -->",
        "",
        f"{rules} rules of [RFC 6455]({rfc_url('2')}) and of [RFC 7692]({rfc_url('D5')}) on"
        " permessage-deflate, in our own words. Each is followed by the functions that obey it and"
        " by the tests that fail if they do not."
        f" {held} rules are held by {tests} tests; {len(NOT_SUPPORTED)} are not supported, on"
        " purpose. MAY-tolerate: the RFC allows the peer to do something, so we have to accept it.",
        "",
    ]


def section_heading(section: str) -> list[str]:
    number = section.removeprefix("D")
    book = "RFC 7692, " if section.startswith("D") else ""
    return ["", f"## {book}{number} {TITLES[section]}", "", f"<{rfc_url(section)}>", ""]


def rfc_url(section: str) -> str:
    number = "7692" if section.startswith("D") else "6455"
    return f"https://www.rfc-editor.org/rfc/rfc{number}#section-{section.removeprefix('D')}"


def rule(row: Requirement) -> str:
    text = re.sub(r"([\\`*_<>\[\]|])", r"\\\1", row.text)
    return f"- **{row.id}** {row.level}, {SIDES[row.binds]}: {text}  "


def links_to_functions(functions: list[str]) -> str:
    links = []
    for each in functions:
        module, _, name = each.partition(":")
        short = f"{module.removeprefix('rfc6455.').removeprefix('public/chat/')}: {name}"
        links.append(f"[`{short}`](../{file_of(each).as_posix()})")
    return ", ".join(links) or "nothing yet"


def links_to_tests(tests: list[Test]) -> str:
    """Return the names of the tests, followed by a link to their file for the tests of each."""
    names: dict[str, list[str]] = {}
    for test in tests:
        names.setdefault(test.file, []).append(f"`{test.name}`")
    links = [f"{', '.join(found)} in [{file}](../tests/{file})" for file, found in names.items()]
    return "; ".join(links) or "nothing yet"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: make_rfc6455.py [--check]", file=sys.stderr)
        return 2
    page = make_page()
    if arguments:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
            return 0
        print("docs/rfc6455.md is out of date: python3 docs/make_rfc6455.py", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

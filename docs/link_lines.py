"""Puts the numbers right in links that point at a line, in all documents of the repository.

Such a link names a function, class, method or variable, and points at the line of a Python or
JavaScript file where that is defined: [`Message`](../chat_server.py#L53). When the file changes,
the number is wrong; this finds the line by the name.

    python3 docs/link_lines.py            writes the documents in which a number was wrong
    python3 docs/link_lines.py --check    writes nothing; exits with status 1 if a number is wrong
"""

import argparse
import ast
import functools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("*.md", "docs/*.md", "benchmarks/*.md")

# [text](path/to/file.py#L53), where the text may have other words around the name in backticks.
LINE_LINK = re.compile(r"\[(?P<text>[^\]\[]+)\]\((?P<path>[^)#\s]+)#L(?P<line>\d+)\)")
CODE_SPAN = re.compile(r"`([^`]+)`")

# What a line of JavaScript defines. The methods and fields of a class are indented by two blanks,
# as everything in public/ is; what is indented by more is inside of a function.
JAVASCRIPT_NAME = re.compile(
    r"""(?:export\ )?(?:async\ )?(?:function|class|const|let)\ (?P<name>\w+)
    |\ \ (?:static\ )?(?:async\ )?(?:get\ |set\ )?(?P<member>\#?\w+)(?:\(.*\{$|\ =\ |;$)""",
    re.VERBOSE,
)


class LinkError(Exception):
    """A link names nothing that its file defines; the message says which."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Put the numbers right in links to lines.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and exit with 1 if a number is wrong"
    )
    options = parser.parse_args(arguments)
    status = 0
    for document in find_documents():
        text = document.read_text(encoding="utf-8")
        mended, faults = with_right_lines(document, text)
        for fault in faults:
            print(f"{document.relative_to(ROOT)}: {fault}", file=sys.stderr)
            status = 1
        if mended != text and options.check:
            print(f"{document.relative_to(ROOT)}: a link points at another line than it names")
            status = 1
        elif mended != text:
            document.write_text(mended, encoding="utf-8")
            print(f"{document.relative_to(ROOT)}: written")
    return status


def find_documents() -> list[Path]:
    return sorted(path for pattern in DOCUMENTS for path in ROOT.glob(pattern))


def with_right_lines(document: Path, text: str) -> tuple[str, list[str]]:
    """The text of a document in which each link points at the line of what it names.

    And what is wrong with the links that name nothing, which stay as they are.
    """
    faults = []

    def mend(link: re.Match[str]) -> str:
        try:
            line = line_of(document, link)
        except LinkError as error:
            faults.append(str(error))
            return link[0]
        return f"[{link['text']}]({link['path']}#L{line})"

    return LINE_LINK.sub(mend, text), faults


def line_of(document: Path, link: re.Match[str]) -> int:
    """The number of the line at which a link of a document should point. Raises LinkError."""
    file = (document.parent / link["path"]).resolve()
    span = CODE_SPAN.search(link["text"])
    name = (span[1] if span else link["text"]).removesuffix("()")
    if not file.is_file():
        raise LinkError(f"there is no file {link['path']}")
    if file.suffix not in (".py", ".js"):
        raise LinkError(f"{link[0]} points at a line of a file that is not Python or JavaScript")
    # The name may have that of the module or the package before it, as in `rfc6455.broadcast`.
    short = re.sub(rf"^(?:{re.escape(file.parent.name)}|{re.escape(file.stem)})\.", "", name)
    lines = definitions(file)
    if name not in lines and short not in lines:
        raise LinkError(f"{link['path']} defines no {name}")
    return lines[name] if name in lines else lines[short]


@functools.cache
def definitions(file: Path) -> dict[str, int]:
    """The lines of what a file defines, by name.

    A method or an attribute of a class is there as `Class.name`, and as `name` if nothing else in
    the file has that name. Of several definitions under one name the first one counts, as of a
    variable that is given a value more than once.
    """
    text = file.read_text(encoding="utf-8")
    found = python_names(text) if file.suffix == ".py" else javascript_names(text)
    lines: dict[str, int] = {}
    members: dict[str, set[str]] = {}
    for name, line in found:
        lines.setdefault(name, line)
        if "." in name:
            members.setdefault(name.rpartition(".")[2], set()).add(name)
    for member, full_names in members.items():
        if len(full_names) == 1:
            lines.setdefault(member, lines[full_names.pop()])
    return lines


def python_names(text: str) -> Iterator[tuple[str, int]]:
    """What a Python module and its classes define, with the number of the line of each."""
    return names_in(ast.parse(text).body, "")


def names_in(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, int]]:
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield prefix + statement.name, statement.lineno
            yield from names_in(statement.body, f"{prefix}{statement.name}.")
            yield from attributes_of(statement, f"{prefix}{statement.name}.")
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + statement.name, statement.lineno
        else:
            for target in targets_of(statement):
                if isinstance(target, ast.Name):
                    yield prefix + target.id, statement.lineno


def attributes_of(class_: ast.ClassDef, prefix: str) -> Iterator[tuple[str, int]]:
    """The attributes that the methods of a class give to `self`, in the order of their lines."""
    found = []
    for statement in ast.walk(class_):
        for target in targets_of(statement):
            match target:
                case ast.Attribute(value=ast.Name(id="self"), attr=name):
                    found.append((prefix + name, target.lineno))
    yield from sorted(found, key=lambda each: each[1])


def targets_of(statement: ast.AST) -> list[ast.expr]:
    """What a statement gives a value to."""
    if isinstance(statement, ast.Assign):
        return statement.targets
    return [statement.target] if isinstance(statement, ast.AnnAssign) else []


def javascript_names(text: str) -> Iterator[tuple[str, int]]:
    """What a JavaScript module and its classes define, with the number of the line of each."""
    in_class = ""
    for number, line in enumerate(text.splitlines(), 1):
        found = JAVASCRIPT_NAME.match(line)
        if line.startswith("}"):
            in_class = ""
        elif found and found["name"]:
            in_class = found["name"] if "class " in line else ""
            yield found["name"], number
        elif found and in_class:
            yield f"{in_class}.{found['member']}", number


if __name__ == "__main__":
    sys.exit(main())

"""The documents of the repository, taken apart: links, headings, code blocks, code spans, commands.

They are found by pattern, so that a new one, or one in another language, is tested like the others.
Only the Markdown that these documents are written in is understood: `#` headings, fenced blocks,
and blocks that are indented by four blanks.
"""

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from programs import ROOT

PATTERNS = ("*.md", "docs/*.md", "benchmarks/*.md")
INDENT = "    "
FENCE = re.compile(r" *(`{3,}|~{3,})(\w*)")
HEADING = re.compile(r"#{1,6} +(.+?)(?: +#+)?$")
LIST_ITEM = re.compile(r" *(?:[-*+]|\d+[.)]) ")
CELL_END = re.compile(r"(?<!\\)\|")
NUMBER = re.compile(r" *(?!1[.)])\d+[.)] ")
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(
    r"""\]\((?P<inline>[^)\s]*)(?:\ "[^"]*")?\)  # the end of [text](target)
    |^\[[^\]]+\]:\ +(?P<reference>\S+)
    |<(?P<automatic>[a-z]+:[^>\s]*)>
    |(?:href|src)="(?P<html>[^"]*)\"""",
    re.MULTILINE | re.VERBOSE,
)
ANCHOR = re.compile(r'<\w+ [^>]*\b(?:id|name)="([^"]+)"')

PARAGRAPH = "paragraph"
ITEM = "item of a list"
QUOTATION = "quotation"
LONG = (PARAGRAPH, ITEM, QUOTATION)  # what may have more than one line


@dataclass(frozen=True)
class Block:
    """A code block: its language, "" if it is indented or names none, and its text."""

    language: str
    text: str
    line: int  # where its text begins, counted from 1


@dataclass(frozen=True)
class Part:
    """What a reader sees as one thing, such as a heading, a paragraph or a row of a table."""

    kind: str  # in words, such as "paragraph" or "heading of level 2"
    text: str
    line: int  # where it begins, counted from 1


@dataclass
class Document:
    """A document's parts. `prose` is its text without code blocks."""

    path: Path
    blocks: list[Block] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    prose: str = ""
    parts: list[Part] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def commands(self) -> list[str]:
        """The shell commands in its code blocks, each on one line and without its comment.

        A script that begins with `#!` is one command, as it stands.
        """
        blocks = [block for block in self.blocks if is_shell(block)]
        return [command for block in blocks for command in split_commands(block.text)]

    @property
    def spans(self) -> list[str]:
        """The text of each code span, on one line."""
        return spans_in(self.prose)

    @property
    def links(self) -> list[str]:
        """The target of each link and picture."""
        return links_in(self.prose)

    @property
    def anchors(self) -> set[str]:
        """What can stand behind `#` in a link to this document."""
        return {*anchors_of(self.headings), *ANCHOR.findall(self.prose)}


def links_in(prose: str) -> list[str]:
    text = SPAN.sub(lambda span: "`" * len(span[0]), prose)
    return [html.unescape(next(filter(None, each.groups()), "")) for each in LINK.finditer(text)]


def spans_in(prose: str) -> list[str]:
    return [" ".join(found[2].split()) for found in SPAN.finditer(prose)]


def is_shell(block: Block) -> bool:
    """Whether a code block has commands: it says so, or is indented and does not begin with a
    digit, as bytes do.
    """
    return block.language == "sh" or (block.language == "" and not block.text[:1].isdigit())


def split_commands(text: str) -> list[str]:
    if text.startswith("#!"):
        return [text]
    lines = re.sub(r"\\\n", " ", text).splitlines()
    bare = [" ".join(re.sub(r"(?:^|\s+)#\s.*$", "", line).split()) for line in lines]
    return list(filter(None, bare))


def read_documents() -> list[Document]:
    paths = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
    return [parse(path, path.read_text(encoding="utf-8")) for path in paths]


def parse(path: Path, text: str) -> Document:
    """Take a document apart."""
    document = Document(path)
    lines = text.splitlines()
    prose = []
    number = 0
    while number < len(lines):
        if fence := FENCE.match(lines[number]):
            end = _end_of_fence(lines, number, fence[1])
            body = "\n".join(lines[number + 1 : end])
            _add_block(document, Block(fence[2], body, number + 2))
            number = end + 1
        elif lines[number].startswith(INDENT) and _can_begin_code(lines, number):
            end = _end_of_indented(lines, number)
            body = "\n".join(line.removeprefix(INDENT) for line in lines[number:end])
            _add_block(document, Block("", body.rstrip(), number + 1))
            number = end
        else:
            if heading := HEADING.match(lines[number]):
                document.headings.append(heading[1])
            prose.append(lines[number])
            _add_line(document.parts, lines[number], number + 1)
            number += 1
    document.prose = "\n".join(prose)
    document.parts = [part for part in document.parts if part.kind]
    return document


def _add_block(document: Document, block: Block) -> None:
    document.blocks.append(block)
    kind = f"code block in {block.language}" if block.language else "code block"
    document.parts.append(Part(kind, block.text, block.line))


def _add_line(parts: list[Part], line: str, number: int) -> None:
    """Add a line of prose to the part that it continues, or begin another part with it."""
    kind = _kind_of(line)
    last = parts[-1] if parts else Part("", "", 0)
    if last.kind == PARAGRAPH and NUMBER.match(line):
        kind = PARAGRAPH  # A paragraph ends where a list begins at 1, and not at another number.
    if kind == last.kind == QUOTATION or (kind == PARAGRAPH and last.kind in LONG):
        parts[-1] = Part(last.kind, f"{last.text}\n{line}", last.line)
    else:
        parts.append(Part(kind, line, number))


def _kind_of(line: str) -> str:
    """What begins with a line, if it continues nothing; "" if it is blank or a comment."""
    bare = line.strip()
    if not bare or (bare.startswith("<!--") and bare.endswith("-->")):
        return ""
    if HEADING.match(line):
        return f"heading of level {len(line) - len(line.lstrip('#'))}"
    if bare.startswith("|"):
        return f"row of {len(re.split(CELL_END, bare)) - 2} cells"
    if LIST_ITEM.match(line):
        return ITEM
    return QUOTATION if bare.startswith(">") else PARAGRAPH


def _end_of_fence(lines: list[str], begin: int, fence: str) -> int:
    for number in range(begin + 1, len(lines)):
        if lines[number].strip().startswith(fence):
            return number
    raise AssertionError(f"the code block of line {begin + 1} has no end")


def _can_begin_code(lines: list[str], number: int) -> bool:
    """Whether an indented line is code, and not the next paragraph of a list's item."""
    if number and lines[number - 1].strip():
        return False
    above = [line for line in lines[:number] if line.strip()]
    return not above or not (LIST_ITEM.match(above[-1]) or above[-1].startswith("  "))


def _end_of_indented(lines: list[str], begin: int) -> int:
    end = begin
    for number in range(begin, len(lines)):
        if lines[number].startswith(INDENT):
            end = number + 1
        elif lines[number].strip():
            break
    return end


def anchors_of(headings: list[str]) -> Iterator[str]:
    """The anchors that GitHub makes of headings, in their order.

    Letters of any language stay, in lower case, and blanks become hyphens; all other signs go. A
    heading that has come before gets a number.
    """
    seen: Counter[str] = Counter()
    for heading in headings:
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # of a link only its text counts
        text = re.sub(r"[^\w\- ]", "", text.lower().strip())
        anchor = text.replace(" ", "-")
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
        seen[anchor] += 1

"""A document and its Chinese version: which there are, and where the two differ.

`page.zh.md` is the Chinese version of `page.md`. What must be the same in both, `differences` says.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from documents import SPAN, Document, Part, anchors_of, links_in, parse, spans_in

# A figure such as 3.11, 65,536 or 1. It may be written with signs around it, as in 10% or #L3.
FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
LINK_TARGET = re.compile(r"(?<=\])\([^)]*\)|<[a-z]+:[^>]*>|(?:href|src)=\"[^\"]*\"")
PLACEHOLDER = re.compile(r"<[^<>]+>")  # as in `http://<address>:8000`; may be in either language
COMMENT = re.compile(r"(?:^|(?<=\s))# .*$", re.MULTILINE)
WITH_COMMENTS = ("code block", "code block in sh", "code block in python", "code block in pycon")
# Numbers that an English sentence spells, and a Chinese one usually writes in figures.
WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
SPELLED = {str(number): word for number, word in enumerate(WORDS)}


class Pair(NamedTuple):
    """A document and its version in Chinese."""

    english: Document
    chinese: Document


def chinese_of(path: Path) -> Path:
    """Where the Chinese version of a document is, if there is one."""
    return path.with_suffix(f".zh{path.suffix}")


def english_of(path: Path) -> Path:
    return path.with_name(path.name.replace(".zh.", "."))


def is_chinese(path: Path) -> bool:
    return ".zh." in path.name


def read(path: Path) -> Document:
    return parse(path, path.read_text(encoding="utf-8"))


def switches(pair: Pair) -> Pair:
    """What stands below the title of each: the way to the other."""
    there, back = pair.chinese.path.name, pair.english.path.name
    return Pair(
        parse(pair.english.path, f"English | [中文]({there})"),
        parse(pair.chinese.path, f"[English]({back}) | 中文"),
    )


def differences(pair: Pair) -> Iterator[str]:
    """Where one of the two was changed and the other was not: sentences for whoever changed it."""
    for document, switch in zip(pair, switches(pair), strict=True):
        if [part.text for part in document.parts[1:2]] != [switch.prose]:
            yield f"{document.name}: below its title has to stand: {switch.prose}"
    english, chinese = pair.english.parts, pair.chinese.parts
    for ours, theirs in zip(english, chinese, strict=False):
        if ours.kind != theirs.kind:
            yield f"{where(pair, ours, theirs)} {ours.kind} in the one, {theirs.kind} in the other"
            return  # What follows cannot be compared.
    if len(english) != len(chinese):
        longer = pair.english if len(english) > len(chinese) else pair.chinese
        first = longer.parts[min(len(english), len(chinese))]
        yield f"{longer.name}, line {first.line}: the other document has ended before this"
    for ours, theirs in zip(english[2:], chinese[2:], strict=False):
        for fault in faults_of(pair, ours, theirs):
            yield f"{where(pair, ours, theirs)} {fault}"


def where(pair: Pair, ours: Part, theirs: Part) -> str:
    """Where a part is in both documents."""
    return f"{pair.english.name}, line {ours.line}, and {pair.chinese.name}, line {theirs.line}:"


def faults_of(pair: Pair, english: Part, chinese: Part) -> Iterator[str]:
    """In what a part differs from its translation."""
    if english.kind.startswith("code"):
        if code_of(english) != code_of(chinese):
            yield "the code is not the same (only comments may be translated)"
        return
    wanted = Counter(translated(pair, link) for link in links_in(english.text))
    found = Counter(without_language(link) for link in links_in(chinese.text))
    if wanted != found:
        yield f"the links lead to {named(wanted - found)}, in Chinese to {named(found - wanted)}"
    if words_of(english) != words_of(chinese):
        missing = words_of(english) - words_of(chinese)
        more = words_of(chinese) - words_of(english)
        yield f"in backticks there is {named(missing)}, in Chinese {named(more)}"
    missing = figures_of(english) - figures_of(chinese)
    more = figures_of(chinese) - figures_of(english) - spelled_in(english)
    if missing or more:
        yield f"the figures are {named(missing)}, in Chinese {named(more)}"


def named(things: Counter[str] | set[str]) -> str:
    return ", ".join(sorted(things)) or "nothing"


def code_of(part: Part) -> list[str]:
    text = COMMENT.sub("", part.text) if part.kind in WITH_COMMENTS else part.text
    return [line.rstrip() for line in text.splitlines()]


def words_of(part: Part) -> set[str]:
    """What stands in backticks. A Chinese sentence may have it at another place, or only once."""
    return {PLACEHOLDER.sub("<>", span) for span in spans_in(part.text)}


def figures_of(part: Part) -> set[str]:
    """The figures that a reader sees in a part, without those of links and in backticks."""
    return set(FIGURE.findall(LINK_TARGET.sub("", SPAN.sub("", part.text))))


def spelled_in(part: Part) -> set[str]:
    words = set(re.findall(r"[a-z]+", part.text.lower()))
    return {figure for figure, word in SPELLED.items() if word in words}


def translated(pair: Pair, link: str) -> str:
    """Where a link of the English document has to lead in the Chinese one.

    If its target has a Chinese version it leads there, and an anchor to the same heading. What
    points at the other language points back in Chinese.
    """
    path, _, anchor = link.partition("#")
    if not path:
        return f"#{same_anchor(pair, anchor)}"
    target = (pair.english.path.parent / path).resolve()
    if is_chinese(target) and target.suffix == ".md":
        return str(english_of(Path(path)))
    if ":" in link or target.suffix != ".md" or not chinese_of(target).is_file():
        return link
    there = Pair(read(target), read(chinese_of(target)))
    return f"{chinese_of(Path(path))}{f'#{same_anchor(there, anchor)}' if anchor else ''}"


def same_anchor(pair: Pair, anchor: str) -> str:
    """The anchor of the same heading in Chinese."""
    ours, theirs = (list(anchors_of(document.headings)) for document in pair)
    return dict(zip(ours, theirs, strict=False)).get(anchor, anchor)


def without_language(link: str) -> str:
    """A picture may have a version with Chinese words, and stands for the other then."""
    if link.endswith((".zh.svg", ".zh.png")):
        return str(english_of(Path(link)))
    return link


# How Chinese is written

HAN = "[\u4e00-\u9fff]"
MARK = "[\u3001\u3002\uff01-\uff0f\uff1a-\uff1f]"  # full-width punctuation
WIDE = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
HABITS = {
    "put a space between Chinese and Latin": re.compile(f"{HAN}[A-Za-z0-9]|[A-Za-z0-9]{HAN}"),
    "use full-width punctuation": re.compile(f"{HAN} ?[,;:!?()]|[,;:!?()]{HAN}"),
    "put a space behind a URL, or it goes on": re.compile(f"https?://[^ ]*?{WIDE}"),
    "put no space beside full-width punctuation": re.compile(f"{MARK} [^ |]|[^ |-] {MARK}"),
}
# GitHub shows the end of a line as a space, which Chinese does not have between its characters.
BROKEN_LINE = re.compile(f"{WIDE}\n *{WIDE}")
BOLD = re.compile(r"(^|.)\*\*(.+?)\*\*(?=(.?))", re.DOTALL)


def bad_habits(document: Document) -> Iterator[str]:
    """Where a Chinese document is not written as Chinese is."""
    prose = [part for part in document.parts[2:] if not part.kind.startswith("code")]
    for part in prose:
        place = f"{document.name}, line {part.line}:"
        seen = re.sub(r"[*\]]|!?\[", "", LINK_TARGET.sub("", SPAN.sub("x", part.text)))
        for rule, pattern in HABITS.items():
            if found := pattern.search(seen):
                yield f"{place} {rule}: {found[0]}"
        if BROKEN_LINE.search(part.text):
            yield f"{place} write a paragraph on one line"
        for before, text, after in BOLD.findall(part.text):
            if not (is_bold(before, text[0]) and is_bold(after, text[-1])):
                yield f"{place} put punctuation behind the asterisks, or they are shown: {text}"


def is_bold(outside: str, inside: str) -> bool:
    """Whether Markdown takes the asterisks between these characters for those of bold text."""
    return is_word(inside) or not is_word(outside)


def is_word(character: str) -> bool:
    return character != "" and unicodedata.category(character)[0] in "LN"

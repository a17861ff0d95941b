"""Links in all documents: each leads to a file, a heading or a line that is there."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

from docs import link_lines
from documents import Document, anchors_of, parse, read_documents
from programs import ROOT

DOCUMENTS = read_documents()
HERE = {document.path: document for document in DOCUMENTS}
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
CODE = """def first():
    pass


class Second:
    third = 3

    def fourth(self):
        self.fifth: int = 5
        self.fifth = 6
"""
JAVASCRIPT = """const ONE = 1;
export async function two() {
  const inside = 2;
  if (inside) {
  }
}
export class Three {
  #four = 4;
  #five;

  async six() {
    this.#seven();
  }

  get #seven() {
    return 7;
  }
}
"""


def is_external(link: str) -> bool:
    return bool(urlsplit(link).scheme)


def fault_of(document: Document, link: str) -> str:
    """What is wrong with a link to a file or a heading, or "" if it is right."""
    path, _, anchor = unquote(link).partition("#")
    target = (document.path.parent / path).resolve() if path else document.path
    if not target.is_relative_to(ROOT):
        return "leads out of the repository"
    if not target.exists():
        return "leads to no file"
    if str(target.relative_to(ROOT)) != spelling_of(target):
        return "spells the file otherwise, which only some systems let pass"
    if target.suffix == ".md" and anchor and anchor not in anchors_in(target):
        return "leads to no heading of that document"
    return ""


def spelling_of(file: Path) -> str:
    """The path of a file below the root, as its folders spell it."""
    parts = []
    while file != ROOT:
        names = [each.name for each in file.parent.iterdir()]
        parts.append(file.name if file.name in names else "")
        file = file.parent
    return "/".join(reversed(parts))


def anchors_in(file: Path) -> set[str]:
    document = HERE.get(file) or parse(file, file.read_text(encoding="utf-8"))
    return document.anchors


def test_documents_are_found() -> None:
    names = {document.name for document in DOCUMENTS}
    assert {"README.md", "CHANGELOG.md", "SECURITY.md", "docs/threads.md"} <= names


@every_document
def test_every_link_within_the_repository_leads_to_a_file_or_a_heading(document: Document) -> None:
    inner = [link for link in document.links if not is_external(link)]
    faults = {link: fault for link in inner if (fault := fault_of(document, link))}
    assert faults == {}


@every_document
def test_every_link_to_another_site_is_an_https_url(document: Document) -> None:
    for link in filter(is_external, document.links):
        parts = urlsplit(link)
        assert parts.scheme == "https", link
        assert parts.hostname and "." in parts.hostname, link
        assert link.isascii() and link.isprintable() and " " not in link, link


def test_every_link_to_a_line_points_at_what_it_names() -> None:
    assert link_lines.main(["--check"]) == 0, "`python3 docs/link_lines.py` puts numbers right"


class Outcome(NamedTuple):
    """What `python3 docs/link_lines.py` did in a tree with one document."""

    status: int
    said: str
    text: str  # of the document, afterwards


@pytest.fixture
def run_link_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs it with these options in a tree whose document has this text."""
    make_code(tmp_path)
    monkeypatch.setattr(link_lines, "ROOT", tmp_path)

    def run_it(text: str, *options: str) -> Outcome:
        page = tmp_path / "docs" / "page.zh.md"
        page.write_text(text, encoding="utf-8")
        status = link_lines.main(options)
        said = capsys.readouterr()
        return Outcome(status, said.out + said.err, page.read_text(encoding="utf-8"))

    return run_it


def make_code(root: Path) -> None:
    (root / "docs").mkdir()
    (root / "code.py").write_text(CODE)
    (root / "code.js").write_text(JAVASCRIPT)
    (root / "page.html").write_text("<p>")


@pytest.mark.parametrize(
    ("file", "name", "line"),
    [
        ("code.py", "`first`", 1),
        ("code.py", "`first()`", 1),
        ("code.py", "`Second`", 5),
        ("code.py", "`Second.third`", 6),
        ("code.py", "`third`", 6),
        ("code.py", "the method `Second.fourth` of it", 8),
        ("code.py", "方法 `fourth`", 8),
        ("code.py", "`Second.fifth`", 9),
        ("code.py", "`code.first`", 1),
        ("code.js", "`ONE`", 1),
        ("code.js", "`two`", 2),
        ("code.js", "`Three`", 7),
        ("code.js", "`#four`", 8),
        ("code.js", "`#five`", 9),
        ("code.js", "`Three.six`", 11),
        ("code.js", "`#seven`", 15),
    ],
)
def test_link_to_a_line_gets_the_number_of_what_it_names(
    run_link_lines: Callable[..., Outcome], file: str, name: str, line: int
) -> None:
    outcome = run_link_lines(f"a [{name}](../{file}#L99) b\n")
    right = f"a [{name}](../{file}#L{line}) b\n"
    assert outcome == Outcome(0, "docs/page.zh.md: written\n", right)


def test_checking_links_to_lines_reports_a_wrong_number_and_writes_nothing(
    run_link_lines: Callable[..., Outcome],
) -> None:
    wrong = "[`first`](../code.py#L1), [`Second`](../code.py#L4)\n"
    said = "docs/page.zh.md: a link points at another line than it names\n"
    assert run_link_lines(wrong, "--check") == Outcome(1, said, wrong)


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("[`sixth`](../code.py#L1)", "../code.py defines no sixth"),
        ("[`inside`](../code.js#L3)", "../code.js defines no inside"),
        ("[`if`](../code.js#L4)", "../code.js defines no if"),
        ("[`first`](../gone.py#L1)", "there is no file ../gone.py"),
        (
            "[`p`](../page.html#L1)",
            "[`p`](../page.html#L1) points at a line of a file that is not Python or JavaScript",
        ),
    ],
)
def test_link_to_a_line_that_names_nothing_is_reported(
    run_link_lines: Callable[..., Outcome], link: str, fault: str
) -> None:
    assert run_link_lines(link) == Outcome(1, f"docs/page.zh.md: {fault}\n", link)


def test_anchors_are_those_that_github_makes() -> None:
    headings = ["What is *not*, and `why`", "如何开始！", "A [link](x.md)", "Two", "Two", "a_b - c"]
    assert list(anchors_of(headings)) == [
        "what-is-not-and-why",
        "如何开始",
        "a-link",
        "two",
        "two-1",
        "a_b---c",
    ]


def test_document_is_taken_apart() -> None:
    text = """# One `two`
A `span
over lines` and [a link](x.md), `[no link](y.md)`.

- an item

    its next paragraph

    no code either

After it:

    python3 code \\
        --flag

    more

```sh
# no heading
ls [z](z.md)
```
<img src="i.png"> <https://example.org/> [![i](j.png)](k.md#l)
"""
    document = parse(ROOT / "README.md", text)
    assert document.headings == ["One `two`"]
    assert document.spans == ["two", "span over lines", "[no link](y.md)"]
    assert document.links == ["x.md", "i.png", "https://example.org/", "j.png", "k.md#l"]
    assert [(each.language, each.text, each.line) for each in document.blocks] == [
        ("", "python3 code \\\n    --flag\n\nmore", 13),
        ("sh", "# no heading\nls [z](z.md)", 19),
    ]
    assert document.commands == ["python3 code --flag", "more", "ls [z](z.md)"]

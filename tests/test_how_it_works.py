"""docs/how-it-works.md tells the truth: its bytes, its numbers, and its two drawings.

Its examples are held by `test_documents_snippets`.
"""

import ast
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from docs import make_drawings
from peers import PATIENCE, eventually
from programs import ROOT, Program, chat
from rfc6455 import ProtocolError, State
from rfc6455.frames import FrameParser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TEXT = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
THREADS_PAGE = (ROOT / "docs" / "threads.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"

# Rows of tables: a number and its command; the bytes of a header, what is wrong, the close code.
NUMBER_ROW = re.compile(r"^\| ([0-9,]+) \| [^|]+ \| `(python3 -c .+)` \|$", re.MULTILINE)
HEADER_ROW = re.compile(r"^\| `([0-9a-f. ]+)` \| ([^|]+) \| ([0-9]{4}) \|$", re.MULTILINE)


def test_command_beside_each_number_prints_it() -> None:
    rows = NUMBER_ROW.findall(TEXT)
    assert len(rows) >= 16
    scripts = [shlex.split(command)[2] for _, command in rows]
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(scripts)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.stderr == ""
    printed = [float(line) for line in ended.stdout.splitlines()]
    assert printed == [float(number.replace(",", "")) for number, _ in rows]


@pytest.mark.parametrize(("header", "wrong", "code"), HEADER_ROW.findall(TEXT))
def test_bad_header_in_the_table_is_refused_with_its_code(
    header: str, wrong: str, code: str
) -> None:
    parser = FrameParser(masked=True, max_message=65536)
    parser.feed(bytes.fromhex(header.replace("..", "80")))
    with pytest.raises(ProtocolError) as refused:
        parser.parse()
    assert refused.value.code == int(code), wrong


def test_frame_in_the_text_is_the_one_in_the_examples() -> None:
    (indented,) = re.findall(r"^    (81 90 .+)$", TEXT, re.MULTILINE)
    (example,) = re.findall(r'fromhex\("(8190 .+?)"\)', TEXT)
    assert bytes.fromhex(indented) == bytes.fromhex(example)


def test_trace_in_the_text_is_what_the_server_prints() -> None:
    (block,) = re.findall(r"^```trace\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    expected = [" ".join(line.split()) for line in block.replace("\n  ", " ").splitlines()]
    (frame,) = re.findall(r"^    (81 90 .+)$", TEXT, re.MULTILINE)
    with chat("--trace") as server, server.join() as ann:
        ann.send(bytes.fromhex(frame))
        (_, message_id, *_) = re.split('"id":"([0-9]+)', ann.read_frame().payload.decode())
        sent = expected[1].replace("1700000000000", message_id)
        eventually(lambda: f"{sent}\n" in printed_by(server))
        assert f"{expected[0]}\n" in printed_by(server)


def printed_by(server: Program) -> str:
    """All that it has written, without the columns."""
    lines = (server.output + server.log).splitlines(keepends=True)
    return "".join(re.sub("  +", " ", line) for line in lines)


# The drawings


def draw(name: str) -> ElementTree.Element:
    return ElementTree.fromstring((make_drawings.FOLDER / name).read_text(encoding="utf-8"))


def names_of(drawing: ElementTree.Element, kind: str) -> set[str]:
    """The names of all that is drawn of one kind: "thread", "lock" or "thing"."""
    found = drawing.iter(f"{SVG}g")
    return {each.attrib["data-name"] for each in found
            if each.get("class") == kind and "data-name" in each.attrib}  # fmt: skip


def first_column(heading: str) -> str:
    """The first cells of the table below a heading of threads.md."""
    section = THREADS_PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| "))


def test_drawings_are_those_that_the_script_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert make_drawings.main(["--check"]) == 0, capsys.readouterr().err


def test_check_says_which_drawing_is_old(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(make_drawings.DRAWINGS, "states.svg", lambda: "another")
    assert make_drawings.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/drawings/states.svg is old: " + (
        "python3 docs/make_drawings.py\n"
    )


def test_drawing_of_the_states_has_each_state_and_each_transition_of_the_code() -> None:
    drawing = draw("states.svg")
    states = [each.get("data-state") for each in drawing.iter() if each.get("data-state")]
    assert states == [state.name for state in State]
    assert State.__doc__
    promised = {
        (line.partition("---")[0].strip(), line.rpartition(">")[2].strip())
        for line in State.__doc__.splitlines()
        if "---" in line
    }
    arrows = {(each.get("data-from"), each.get("data-to")) for each in drawing.iter()}
    assert arrows - {(None, None)} == promised
    assert len(promised) == 6


@pytest.mark.parametrize("transition", make_drawings.read_transitions())
def test_transition_has_its_reason_in_the_drawing(transition: make_drawings.Transition) -> None:
    words = [each.text or "" for each in draw("states.svg").iter(f"{SVG}text")]
    assert transition.reason in " ".join(words)


def test_threads_and_locks_of_the_drawing_are_in_the_list_of_all() -> None:
    drawing = draw("threads.svg")
    threads = names_of(drawing, "thread")
    locks = names_of(drawing, "lock")
    assert len(threads) >= 7
    assert len(locks) >= 7
    assert {name for name in threads if name not in first_column("Who runs")} == set()
    assert {name for name in locks if name not in first_column("Which locks there are")} == set()


def attributes_of_classes() -> set[str]:
    """Everything in the code that is set as `self.name`, as `Class.name`, and all variables."""
    found = set()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("chat/*.py"), *ROOT.glob("rfc6455/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for owner in ast.walk(tree):
            if isinstance(owner, ast.ClassDef):
                found |= {
                    f"{owner.name}.{node.attr}"
                    for node in ast.walk(owner)
                    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                }
        found |= {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
    return found


def test_locks_and_what_is_shared_in_the_drawing_exist_in_the_code() -> None:
    drawing = draw("threads.svg")
    code = names_of(drawing, "lock") | (names_of(drawing, "thing") & {"broadcast", "clients"})
    assert {"Stream.lock", "clients_lock", "broadcast"} <= code
    assert code - attributes_of_classes() == set()


def test_order_of_the_locks_at_the_foot_of_the_drawing_is_that_in_the_list_of_all() -> None:
    locks = [each for each in draw("threads.svg").iter(f"{SVG}g") if each.get("class") == "lock"]
    foot = [each.attrib["data-name"] for each in locks if "data-name" in each.attrib][-4:]
    assert foot == ["WebSocket._reading", "Stream.lock", "TLS._lock", "Clock._lock"]
    sentence = THREADS_PAGE.partition("taken in this order: ")[2].partition(". ")[0]
    places = [sentence.index(f"{name.removeprefix('WebSocket.')}`") for name in foot]
    assert places == sorted(places)


def shown(name: str) -> list[str]:
    """The texts of a drawing, each piece of one sentence on its own."""
    return [each.text or "" for each in draw(name).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", ["states", "threads"])
def test_chinese_drawing_has_the_same_shapes_and_says_everything_in_chinese(name: str) -> None:
    in_english, in_chinese = draw(f"{name}.svg"), draw(f"{name}.zh.svg")
    assert [name_and_place(each) for each in in_english.iter()] == [
        name_and_place(each) for each in in_chinese.iter()
    ]
    for english, chinese in zip(shown(f"{name}.svg"), shown(f"{name}.zh.svg"), strict=True):
        is_sentence = " " in english or english in make_drawings.CHINESE
        assert bool(re.search("[\u4e00-\u9fff]", chinese)) is is_sentence, (
            f"add {english!r} to CHINESE in docs/make_drawings.py"
        )


def name_and_place(element: ElementTree.Element) -> tuple[str, str | None, str | None, str | None]:
    """What an element of a drawing is in either language."""
    return element.tag, element.get("d"), element.get("x"), element.get("y")


def test_every_chinese_text_is_used() -> None:
    said = set[str]()

    class Listening(make_drawings.Language):
        def say(self, english: str) -> str:
            said.add(english)
            return english

    language = Listening("en", {})
    make_drawings.draw_states(language)
    make_drawings.draw_threads(language)
    assert [text for text in make_drawings.CHINESE if text not in said] == []


@pytest.mark.parametrize("name", make_drawings.DRAWINGS)
def test_drawing_can_be_read_by_everyone(name: str) -> None:
    drawing = draw(name)
    assert drawing.get("viewBox", "").startswith("0 0 700 ")
    assert drawing.get("role") == "img"
    for tag in ("title", "desc"):
        element = drawing.find(f"{SVG}{tag}")
        assert element is not None
        assert element.text
        assert element.get("id", "") in drawing.get("aria-labelledby", "").split()
    style = drawing.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme: dark" in style
    assert min(int(size) for size in re.findall(r"([0-9]+)px", style)) >= 13


@pytest.mark.browser
@pytest.mark.parametrize("name", make_drawings.DRAWINGS)
def test_no_text_is_wider_than_the_box_around_it(browser: "Browser", name: str) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 800})
    try:
        page.goto((make_drawings.FOLDER / name).as_uri())
        too_wide = page.evaluate(
            """() => [...document.querySelectorAll('g > rect ~ text')].filter((text) => {
                const outer = text.parentNode.querySelector('rect').getBoundingClientRect();
                const inner = text.getBoundingClientRect();
                return inner.left < outer.left || inner.right > outer.right;
            }).map((text) => text.textContent)"""
        )
    finally:
        page.close()
    assert too_wide == []

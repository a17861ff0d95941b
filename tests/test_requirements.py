"""The list of what the RFCs ask for, the tests that hold it, and the page that shows both."""

from pathlib import Path

import pytest

from docs import make_rfc6455 as page

NOT_SUPPORTED_AT_MOST = 6
KNOWN = [row.id for row in page.read_requirements()]
HELD = page.read_markers()
OBEYED_BY = page.read_obeyed_by()


def test_list_has_each_requirement_once_below_its_section() -> None:
    assert len(KNOWN) == len(set(KNOWN)) == 221
    for row in page.read_requirements():
        assert row.id.rpartition("-")[0] == row.section
        assert row.section in page.TITLES
        assert row.binds in page.SIDES
        assert row.level in ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY-tolerate")
        assert row.text.endswith(".")


def test_every_requirement_is_held_by_a_test_or_not_supported_on_purpose() -> None:
    assert [each for each in KNOWN if each not in HELD and each not in page.NOT_SUPPORTED] == []


def test_markers_name_requirements_of_the_list() -> None:
    assert {each: tests for each, tests in HELD.items() if each not in KNOWN} == {}


def test_what_is_not_supported_is_short_has_reasons_and_no_test() -> None:
    assert len(page.NOT_SUPPORTED) <= NOT_SUPPORTED_AT_MOST
    for each, reason in page.NOT_SUPPORTED.items():
        assert each in KNOWN
        assert each not in HELD
        assert reason.endswith(".")


def test_every_supported_requirement_has_a_function_that_obeys_it() -> None:
    assert list(OBEYED_BY) == [each for each in KNOWN if each not in page.NOT_SUPPORTED]
    assert all(OBEYED_BY.values())


@pytest.mark.parametrize(
    "function", sorted({each for functions in OBEYED_BY.values() for each in functions})
)
def test_function_that_obeys_a_requirement_exists(function: str) -> None:
    assert page.exists(function)


@pytest.mark.parametrize(
    "function",
    [
        "rfc6455.frames:no_such",
        "rfc6455.frames:FrameParser.no_such",
        "rfc6455.no_such:mask",
        "rfc6455.frames:Opcode.CLOSE",
        "public/chat/app.js:no_such",
    ],
)
def test_function_that_was_renamed_is_noticed(function: str) -> None:
    assert not page.exists(function)


def test_markers_are_found_wherever_pytest_finds_them() -> None:
    source = """
import pytest
requirement = pytest.mark.requirement
both = requirement("a", "b")
CASES = [1, pytest.param(2, marks=[requirement("c")])]
pytestmark = pytest.mark.requirement("d")

@both
def test_one(): ...

@pytest.mark.slow
@pytest.mark.requirement("a", "e")
@requirement("f")
@pytest.mark.parametrize("number", CASES)
def test_two(number): ...

@requirement("g")
def helper(): ...

@requirement("h")
class TestThree:
    @requirement("i")
    def test_four(self): ...

def test_five(): ...
"""
    assert dict(page.marked_tests(source)) == {
        "test_one": ["d", "a", "b"],
        "test_two": ["d", "a", "e", "f", "c"],
        "TestThree.test_four": ["d", "h", "i"],
        "test_five": ["d"],
    }


def test_marker_whose_ids_are_not_written_out_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 1: write the ids out"):
        list(page.marked_tests("@requirement(*IDS)\ndef test_one(): ..."))


def test_page_has_every_requirement_with_its_functions_and_tests() -> None:
    text = page.make_page()
    for each in KNOWN:
        assert f"\n- **{each}** " in text
    assert text.count("  Not supported, see above.") == len(page.NOT_SUPPORTED)
    assert "[`frames: mask`](../rfc6455/frames.py)" in text
    assert "[test_deflate.py](../tests/test_deflate.py)" in text


def test_page_is_up_to_date() -> None:
    assert page.main(["--check"]) == 0, "run python3 docs/make_rfc6455.py"


def test_page_out_of_date_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "rfc6455.md")
    assert page.main(["--check"]) == 1
    assert page.main([]) == 0
    assert page.main(["--check"]) == 0
    page.PAGE.write_text(page.PAGE.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert page.main(["--check"]) == 1
    assert "out of date: python3 docs/make_rfc6455.py" in capsys.readouterr().err
    assert page.main(["--chekc"]) == 2

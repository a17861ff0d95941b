"""Documents in two languages have the same headings, links, code, tables, pictures and figures."""

import pytest

from documents import Document, parse, read_documents
from programs import ROOT
from translations import Pair, bad_habits, chinese_of, differences, english_of, is_chinese, read

CHINESE = [document for document in read_documents() if is_chinese(document.path)]
PAIRS = [Pair(read(english_of(chinese.path)), chinese) for chinese in CHINESE]
BOTH = (
    "docs/from-go-to-python.md",
    "docs/how-it-works.md",
    "README.md",
)  # what has to be there in Chinese
WHAT_TO_DO = (
    "The two documents say the same in two languages. Change in the one what you have changed in "
    "the other: the same parts in the same order, with the same links, code and figures."
)


@pytest.mark.parametrize("name", BOTH)
def test_document_has_a_chinese_version(name: str) -> None:
    assert chinese_of(ROOT / name) in [chinese.path for chinese in CHINESE]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda each: each.english.name)
def test_chinese_version_has_the_parts_of_the_english_one(pair: Pair) -> None:
    assert list(differences(pair)) == [], WHAT_TO_DO


@pytest.mark.parametrize("chinese", CHINESE, ids=lambda each: each.name)
def test_chinese_document_is_written_as_chinese_is(chinese: Document) -> None:
    assert list(bad_habits(chinese)) == []


# Whether a difference is found

ENGLISH = """# Title

English | [中文](page.zh.md)

Take 1,000 of [these](#all-of-it), as `chat` does. See
[the guide](docs/from-go-to-python.md#the-echo-pair), three times.

## All of it

![A picture](states.svg)

| a | `b` |
|---|---|
| c | 1.5 |

- one
- two

      more

```sh
ls  # all of it
```
"""
TRANSLATION = """# 标题

[English](page.md) | 中文

像 `chat` 那样，取 [这些](#全部)中的 1,000 个。参见
[指南](docs/from-go-to-python.zh.md#回声程序) 3 次。

## 全部

![图](states.zh.svg)

| 甲 | `b` |
|---|---|
| 丙 | 1.5 |

- 一
- 二

      更多

```sh
ls  # 全部
```
"""


def test_line_of_a_paragraph_may_begin_with_a_number() -> None:
    text = "A server answers\n101. Then it sends.\n\n2. second\n3. third\n"
    parts = parse(ROOT / "page.md", text).parts
    assert [(part.kind, part.line) for part in parts] == [
        ("paragraph", 1),
        ("item of a list", 4),
        ("item of a list", 5),
    ]


def faults(chinese: str) -> list[str]:
    """What `differences` says of a translation of ENGLISH."""
    path = ROOT / "page.md"
    return [*differences(Pair(parse(path, ENGLISH), parse(chinese_of(path), chinese)))]


def test_translation_with_the_same_parts_has_no_faults() -> None:
    assert faults(TRANSLATION) == []


@pytest.mark.parametrize(
    ("there", "instead", "fault"),
    [
        (
            "[English](page.md) | 中文\n\n",
            "",
            "page.zh.md: below its title has to stand: [English]",
        ),
        ("## 全部", "### 全部", "line 8, and page.zh.md, line 8: heading of level 2 in the one,"),
        ("| 丙 | 1.5 |\n", "", "line 14, and page.zh.md, line 15: row of 2 cells in the one"),
        (
            "| 甲 | `b` |",
            "| 甲 | `b` | |",
            "row of 2 cells in the one, row of 3 cells in the other",
        ),
        ("- 二\n\n      更多\n", "", "item of a list in the one, code block in sh in the other"),
        ("```sh\nls  # 全部\n```\n", "", "page.md, line 22: the other document has ended before"),
        ("ls  #", "ls -l  #", "the code is not the same"),
        ("(#全部)", "(#all-of-it)", "the links lead to #全部, in Chinese to #all-of-it"),
        ("go-to-python.zh.md#回声程序", "go-to-python.md#the-echo-pair", "the links lead to docs/"),
        ("(states.zh.svg)", "(threads.svg)", "lead to states.svg, in Chinese to threads.svg"),
        ("`chat`", "`talk`", "in backticks there is chat, in Chinese talk"),
        ("1,000", "10,000", "the figures are 1,000, in Chinese 10,000"),
        ("3 次", "4 次", "the figures are nothing, in Chinese 4"),
        ("| 1.5 |", "| 2.5 |", "the figures are 1.5, in Chinese 2.5"),
    ],
)
def test_difference_between_the_languages_is_found(there: str, instead: str, fault: str) -> None:
    assert there in TRANSLATION
    assert fault in faults(TRANSLATION.replace(there, instead))[0]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("用 Python 写的，`send` 也是。", ""),
        ("用Python 写的", "put a space between Chinese and Latin: 用P"),
        ("有3 个", "put a space between Chinese and Latin: 有3"),
        ("`send`也是", "put a space between Chinese and Latin: x也"),
        ("[页面](page.md)和[另一个](page.md)", ""),
        ("有,也没有", "use full-width punctuation: 有,"),
        ("有(也没有)", "use full-width punctuation: 有("),
        ("有， `send`", "put no space beside full-width punctuation: ， x"),
        ("有 `send` ，没有", "put no space beside full-width punctuation: x ，"),
        ("打开 http://localhost:8000 就行", ""),
        (
            "打开 http://localhost:8000。",
            "put a space behind a URL, or it goes on: http://localhost:8000。",
        ),
        ("前一行\n后一行", "write a paragraph on one line"),
        ("前一行用 Python\nGo 也行", ""),
        ("**锁**：有一把，**`Lock`** 也是", ""),
        ("**锁：**有一把", "put punctuation behind the asterisks, or they are shown: 锁："),
        ("有 a**`Lock`** 一把", "put punctuation behind the asterisks, or they are shown: `Lock`"),
    ],
)
def test_bad_habit_is_found(text: str, rule: str) -> None:
    document = parse(ROOT / "page.zh.md", f"# 标题\n\n中文\n\n{text}\n")
    said = list(bad_habits(document))
    assert said == ([f"page.zh.md, line 5: {rule}"] if rule else [])

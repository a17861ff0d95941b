"""The texts of both pages: each language has all of them, and the pages use all of them."""

import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from programs import ROOT, Program, chat, echo

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

READ_TEXTS = "import(new URL('texts.js', document.baseURI).href).then((module) => ({ ...module }))"
CATEGORIES = "language => new Intl.PluralRules(language).resolvedOptions().pluralCategories"
SERVERS = {"chat": chat, "echo": echo}


class Texts(NamedTuple):
    """The table of texts of a page, as the browser reads it."""

    page: str
    tables: dict[str, dict[str, Any]]  # by language: a text, or an object of plural forms
    names: dict[str, str]  # of the languages
    categories: dict[str, list[str]]  # by language: the plural forms that it has

    @property
    def english(self) -> dict[str, Any]:
        return self.tables["en"]


@pytest.fixture(scope="module", params=SERVERS)
def texts(request: pytest.FixtureRequest, browser: "Browser") -> Texts:
    running: AbstractContextManager[Program] = SERVERS[request.param]()
    with running as server:
        page = browser.new_page()
        page.goto(server.url)
        found = page.evaluate(READ_TEXTS)
        tables = found["TEXTS"]
        categories = {language: page.evaluate(CATEGORIES, language) for language in tables}
        page.close()
    return Texts(request.param, tables, found["NAMES"], categories)


def forms(text: Any) -> list[str]:
    return list(text.values()) if isinstance(text, dict) else [text]


def parameters(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def sources(page: str) -> str:
    """The page and all of its modules but the texts, without comments."""
    files = [
        path
        for folder in (page, "shared")
        for path in sorted((ROOT / "public" / folder).iterdir())
        if path.suffix in (".html", ".js") and path.name != "texts.js"
    ]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r"^ *//.*$", "", source, flags=re.MULTILINE)


def test_every_language_has_all_texts_and_a_name(texts: Texts) -> None:
    assert {"en", "zh-Hans"} <= set(texts.tables) == set(texts.names)
    for table in texts.tables.values():
        assert list(table) == list(texts.english)  # in the same order, so that they can be compared


def test_every_language_has_the_same_parameters_in_each_text(texts: Texts) -> None:
    for table in texts.tables.values():
        for key, text in table.items():
            expected = parameters(forms(texts.english[key])[-1])
            assert [(key, parameters(form)) for form in forms(text)] == [
                (key, expected) for _ in forms(text)
            ]


def test_text_has_the_plural_forms_of_its_language_where_a_number_decides(texts: Texts) -> None:
    for language, table in texts.tables.items():
        for key, text in table.items():
            assert isinstance(text, dict) == isinstance(texts.english[key], dict), key
            if isinstance(text, dict):
                assert set(text) == set(texts.categories[language]), key
                assert "n" in parameters(text["other"]), key


def test_no_text_is_empty_or_forgotten_in_english(texts: Texts) -> None:
    for language, table in texts.tables.items():
        for key, text in table.items():
            assert all(form.strip() for form in forms(text)), key
            if language == "zh-Hans" and re.search("[a-z]{4}", str(texts.english[key]).lower()):
                left_alone = re.fullmatch(r"[\W\d]*(ping|pong|/help|//help)?\W*", str(text))
                assert left_alone or re.search("[\u4e00-\u9fff]|^\\W*\\{", str(text)), key


def test_every_text_that_the_page_names_exists(texts: Texts) -> None:
    source = sources(texts.page)
    named = re.findall(r'data-(?:text|aria-label|placeholder|title)="(\w+)"', source)
    named += re.findall(r"\bkey: '(\w+)'", source)
    named += re.findall(r"\bset(?:Text|Attribute)\([^'`;\n]+, '(\w+)'[,)]", source)
    assert len(named) > 10
    assert [key for key in named if key not in texts.english] == []


def test_every_text_is_used(texts: Texts) -> None:
    source = sources(texts.page)
    words = set(re.findall(r"['\"](\w+)['\"]", source))
    # Such as `kind_${kind}`: what stands between braces can be anything.
    made = [
        re.compile(re.sub(r"\$\{[^}]*\}", r"\\w+", template))
        for template in re.findall(r"`(\w*\$\{[^}`]*\}\w*)`", source)
        if re.sub(r"\$\{[^}]*\}", "", template)
    ]
    for key in texts.english:
        assert key in words or any(each.fullmatch(key) for each in made), key

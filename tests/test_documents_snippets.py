"""Every code block of a document that is no command is executed, or held by another test."""

import doctest
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from deployment import replace
from documents import Document, is_shell, parse, read_documents
from peers import eventually
from programs import EXIT_TIME, NOISE, ROOT, kill, read_output

DOCUMENTS = read_documents()

# Who holds the blocks in each language. To use another one in a document, add who does.
HELD_BY = {
    "sh": "test_documents_commands.py",
    "python": "test_documents_snippets.py",
    "pycon": "test_documents_snippets.py",
    "wire": "test_wire_page.py",
    "trace": "test_how_it_works.py",
    "nginx": "test_deployment_proxies.py",
    "caddy": "test_deployment_proxies.py",
    "haproxy": "test_deployment_proxies.py",
    "ini": "test_deployment_service.py",
    "text": "",  # nobody: it is what was seen once, or words
}
# How many of them the other tests hold.
HOW_MANY = {"wire": 10, "trace": 1, "nginx": 3, "caddy": 1, "haproxy": 2, "ini": 1}
HELD_IN = ("docs/deployment.md", "docs/wire.md", "docs/how-it-works.md")
# The blocks of Python in README, by how they begin.
SERVER = "from rfc6455 import WebSocket, WebSocketServer\n"
CLIENT = "from rfc6455 import connect\n"


def python_blocks(document: Document) -> list[str]:
    return [block.text + "\n" for block in document.blocks if block.language == "python"]


WITH_PYTHON = [document for document in DOCUMENTS if python_blocks(document)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_every_code_block_is_in_a_language_that_a_test_holds(document: Document) -> None:
    for block in document.blocks:
        language = block.language or ("sh" if is_shell(block) else "text")
        assert language in HELD_BY, f"{document.name}, line {block.line}: add who holds it"


def test_readme_has_snippets() -> None:
    assert "README.md" in {document.name for document in WITH_PYTHON}


@pytest.mark.parametrize(("language", "count"), HOW_MANY.items())
def test_other_tests_hold_every_block_in_this_language(language: str, count: int) -> None:
    """So that a further one is not forgotten there. In a translation there are the same."""
    held = [text for name in HELD_IN for text in texts_in(name, language)]
    assert len(held) == count, f"does {HELD_BY[language]} hold all of them?"
    for document in DOCUMENTS:
        assert set(texts_in(document.name, language)) <= set(held), document.name


def texts_in(name: str, language: str) -> list[str]:
    blocks = [block for each in DOCUMENTS if each.name == name for block in each.blocks]
    return [block.text for block in blocks if block.language == language]


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda each: each.name)
def test_server_and_client_of_a_document_talk_to_each_other(
    document: Document, tmp_path: Path
) -> None:
    server, client = python_blocks(document)  # for another snippet, add how it is executed
    assert server.startswith(SERVER) and client.startswith(CLIENT)
    with tempfile.TemporaryFile() as out:
        (tmp_path / "server.py").write_text(replace(server, "9000", "0"), encoding="utf-8")
        process = start(tmp_path / "server.py", stdout=out, stderr=out)
        try:
            found = eventually(lambda: re.search(r"http://\S+:(\d+)\n", read_output(out)))
            (tmp_path / "client.py").write_text(replace(client, "9000", found[1]), encoding="utf-8")
            answer, _ = start(tmp_path / "client.py", stdout=subprocess.PIPE).communicate()
            assert answer == b"HI\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(EXIT_TIME + NOISE) == 0
        finally:
            kill(process)
        # The server has printed its URL, and who came with which query.
        assert re.fullmatch(r"http:.*\n127\.0\.0\.1:\d+ \n", read_output(out)), read_output(out)


def start(script: Path, **streams: Any) -> "subprocess.Popen[bytes]":
    """Run a snippet. Unclosed sockets and the like are errors that it prints."""
    command = [sys.executable, "-u", "-W", "error", str(script)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, **streams)


# Sessions of the interpreter


def failures(document: Document) -> str:
    """What is otherwise than the sessions of a document show; they share their names."""
    names: dict[str, Any] = {}
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    for block in document.blocks:
        if block.language == "pycon":
            title = f"{document.name}, line {block.line}"
            test = doctest.DocTestParser().get_doctest(block.text + "\n", names, title, None, 0)
            runner.run(test, out=report.append, clear_globs=False)
            names = test.globs
    return "".join(report)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_sessions_of_a_document_print_what_it_shows(document: Document) -> None:
    assert failures(document) == ""


@pytest.mark.parametrize(("last", "is_right"), [("3", True), ("4", False)])
def test_sessions_are_executed_one_after_the_other(last: str, is_right: bool) -> None:
    text = f"```pycon\n>>> a = 1\n```\nand\n\n```pycon\n>>> a + 2\n{last}\n```\n"
    document = parse(ROOT / "README.md", text)
    assert (failures(document) == "") is is_right

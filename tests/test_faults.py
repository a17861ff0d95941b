"""docs/faults.py against the Go originals and against our servers: both do as the page says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import faults
from documents import Document, parse
from originals import BUILD_TIME, build, running_original
from programs import ROOT, Program, chat, echo

PATH = ROOT / "docs" / "from-go-to-python.md"
PAGE = PATH.read_text(encoding="utf-8")
COMMAND = re.compile(r"python3 docs/faults\.py (\w+) ws://localhost:\d+(/\w+)")
CHAT = {case.__name__ for case in faults.CHAT}
ECHO = {case.__name__ for case in faults.ECHO}
# What the cases say of our servers. {port} stands for the port.
OURS = {
    "crowd": "the server is still there\n",
    "request": "426 Upgrade Required: this address accepts WebSocket connections only\n"
    "the server is still there\n",
    "origin": "Origin 'https://evil.example' is not allowed, as Host is 'localhost:{port}'",
    "stuck": "all 150 messages were heard\n",
    "emails": "everyone learns the address ada@example.org\n",
    "markup": '"username":"<img src=\\"x\\" onerror=\\"alert(1)\\">"',
    "nonsense": "the server closes with 1008: the message is not JSON\n",
    "nameless": "it is let in\n",
    "long": "all 600 letters come back\n",
    "twice": "[one]\n[two]\n",
    "leave": "the server is still there\n",
}
# What they say of the originals, as patterns; `fatal` ones end the server.
GONE = r"the server is gone: .*\n"
ORIGINALS = {
    "crowd": GONE + r"|the server is still there\n",  # by luck
    "request": r"no answer: .*\n" + GONE,
    "origin": r"the page of another site is let in\n",
    "stuck": r"after \d+ messages nobody hears anything any more\n",
    "emails": r"everyone learns the address ada@example\.org\n",
    "markup": r'.*"username":"\\u003cimg src=\\"x\\" onerror=\\"alert\(1\)\\"\\u003e".*\n',
    "nonsense": r"the server hangs up, and does not say why\n",
    "nameless": r"refused: 403 Forbidden\n",
    "long": r"only 512 letters come back\n",
    "twice": r"\[one\]\n1006 the peer ended TCP without a Close\n",
    "leave": GONE,
}


@pytest.fixture
def page() -> Document:
    return parse(PATH, PAGE)


@pytest.fixture(autouse=True)
def fewer_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests are quick; the page's numbers are for those who want to see it happen."""
    monkeypatch.setattr(faults, "CROWD", 40)
    monkeypatch.setattr(faults, "ROUNDS", 3)


def do_to(server: Program | str, case: str) -> int:
    url = server if isinstance(server, str) else server.ws_url.replace("127.0.0.1", "localhost")
    return faults.main([case, f"{url}{'/ws' if case in CHAT else '/echo'}"])


def quotes() -> list[str]:
    """The block quotes of the page, each as its lines."""
    blocks = re.findall(r"(?:^> .*\n)+", PAGE, re.MULTILINE)
    return [re.sub(r"^> | \\$", "", block, flags=re.MULTILINE) for block in blocks]


# Our servers


@pytest.fixture(scope="module")
def our_chat() -> Iterator[Program]:
    with chat() as server:
        yield server


@pytest.fixture(scope="module")
def our_echo() -> Iterator[Program]:
    with echo() as server:
        yield server


@pytest.mark.parametrize("case", faults.CASES)
def test_our_server_does_in_each_case_as_the_page_says(
    our_chat: Program, our_echo: Program, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    server = our_chat if case in CHAT else our_echo
    status = do_to(server, case)
    said = capsys.readouterr().out
    assert OURS[case].format(port=server.server_port) in said
    assert status == (1 if case == "emails" else 0)


def test_our_chat_keeps_emails_back_if_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    with chat("--hide-emails") as server:
        assert do_to(server, "emails") == 0
    assert capsys.readouterr().out == "the address stays with the server\n"


# The originals


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = (ROOT / "benchmarks/peers/go_original.go", ROOT / "tests/go/echo_server.go")
    return build(tmp_path_factory.mktemp("go"), *sources)


@pytest.mark.go
@pytest.mark.timeout(3 * BUILD_TIME)
@pytest.mark.parametrize("case", faults.CASES)
def test_original_does_in_each_case_as_the_page_says(
    originals: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(faults, "PATIENCE", 2.0)
    program = "go_original" if case in CHAT else "echo_server"
    with running_original(originals / program) as server:
        url = server.wait_for(r"http(://\S+)\n").join(("ws", ""))
        status = do_to(url, case)
        said = capsys.readouterr().out
        assert re.fullmatch(ORIGINALS[case], said)
        is_well = said.endswith("still there\n") or case == "markup"
        assert status == (0 if is_well else 1)
        if "is gone" in said:
            assert server.process.wait() in (1, 2)
            assert re.search(
                "concurrent map writes|not using the websocket protocol|EOF", server.output
            )


# The page


def test_page_shows_the_command_of_every_case(page: Document) -> None:
    lines = "\n".join(block.text for block in page.blocks)
    shown = {(found[1], found[2]) for found in COMMAND.finditer(lines)}
    assert shown == {*((case, "/ws") for case in CHAT), *((case, "/echo") for case in ECHO)}


def test_page_quotes_what_the_cases_say() -> None:
    patterns = [*ORIGINALS.values(), r"fatal error: concurrent map writes\n"]
    for quote in quotes():
        assert any(re.fullmatch(pattern, quote) for pattern in patterns), quote


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nothing", "ws://localhost:8000/ws"], "invalid choice: 'nothing'"),
        (["crowd", "http://localhost:8000/ws"], "is not a ws: or wss: URL"),
        (["crowd", "ws://localhost:1/ws"], "cannot connect to ws://localhost:1/ws: "),
    ],
)
def test_case_or_server_that_is_not_there_is_reported(
    capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        faults.main(arguments)
    assert ended.value.code == 2
    assert error in capsys.readouterr().err

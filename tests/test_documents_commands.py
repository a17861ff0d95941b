"""Every command that a document shows does what it is shown for.

COMMANDS says of each how it is checked. To show another one in a document, add it there. A document
in another language shows the same commands, and needs no lines of its own.
"""

import functools
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

import pytest

from docs import faults
from documents import Document, read_documents
from originals import BUILD_TIME
from peers import PATIENCE
from programs import ROOT
from shown import Ends, Goes, HeldBy, NotHere, Place, Serves, TooLong, Way

DOCUMENTS = read_documents()
SHOWN = {command: None for document in DOCUMENTS for command in document.commands}
PROGRAM = re.compile(
    r"^(?:[A-Z_]+=\S+ )*(?:python3 (?P<path>-m \w+|[\w/.]+)|(?P<name>\w+\.py)(?= -))(?P<rest>.*)"
)
FILE = re.compile(r"[\w./-]+\.(?:py|js|md|go|tsv|css|html|service)")
FOLDERS = (
    "",
    "chat",
    "playground",
    "rfc6455",
    "tests",
    "benchmarks",
    "docs",
    "public/chat",
    "public/echo",
    "public/shared",
)
FILES = [path for folder in FOLDERS for path in (ROOT / folder).iterdir() if path.is_file()]
OUR_PROGRAMS = ("chat_server.py", "echo_server.py", "echo_client.py", "tests", "tests/soak.py")
# Options that stand alone in a sentence and are of no program of ours, with the file that has them.
OTHER_OPTIONS = {"--solved": "tests/exercises/conftest.py"}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def runs_the_renewal_script(script: str, place: Place) -> None:
    """With `install` and `systemctl` that only say how they were called."""
    said = "".join(f"{word} " for word in ("$(basename $0)", "$*"))
    for name in ("install", "systemctl"):
        place.put_stub(name, f'echo "{said.strip()}"')
    file = place.folder / "renewal-hook"
    file.write_text(script)
    output = place.run(f"RENEWED_LINEAGE=/live/chat.example sh {file}")
    assert output.splitlines() == [
        "install -o chat -m 600 /live/chat.example/fullchain.pem /etc/chat/fullchain.pem",
        "install -o chat -m 600 /live/chat.example/privkey.pem /etc/chat/privkey.pem",
        "systemctl kill --signal=HUP chat.service",
    ]


def names_our_files(command: str, place: Place) -> None:
    """What it takes from /opt/chat is in the repository."""
    named = [word for word in command.split() if word.startswith("/opt/chat/")]
    assert named
    for word in named:
        assert (place.folder / word.removeprefix("/opt/chat/")).is_file()


def names_our_unit(command: str, place: Place) -> None:
    unit = command.removesuffix(" -f").split()[-1]
    assert (place.folder / "deploy" / f"{unit}.service").is_file()


def passes_options_that_the_chat_takes(command: str, place: Place) -> None:
    """Those behind the name of the image."""
    words = shlex.split(command)
    behind_image = words[len(words) - words[::-1].index("chat") :]
    Serves().check(shlex.join(["python3", "chat_server.py", *behind_image]), place)


OPENSSL = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 "
    "-subj /CN=chat -addext 'subjectAltName=DNS:localhost,DNS:chat.lan,IP:192.168.1.20' "
    "-out certificate.pem -keyout key.pem"
)
LIVE = "/etc/letsencrypt/live/chat.example"
SENT = "Send: hello, world!你好\nReceive: [hello, world!你好]\n"
AS_SERVICE = NotHere("it needs systemd as the machine's first process", names_our_unit)

COMMANDS: dict[str, Way] = {
    # README
    "python3 chat_server.py": Serves(),
    "python3 echo_server.py": Serves(),
    "python3 echo_client.py": Ends(
        SENT,
        {"echo_client.py": "echo_client.py ws://127.0.0.1:{port}/echo"},
        against="python3 echo_server.py",
    ),
    "python3 -m rfc6455 ws://localhost:8080/echo": Ends(
        "", {":8080": ":{port}"}, against="python3 echo_server.py"
    ),
    "echo hi | python3 -m rfc6455 ws://localhost:8080/echo": Ends(
        "[hi]\n", {":8080": ":{port}"}, against="python3 echo_server.py"
    ),
    "python3 tests": TooLong(),
    "python3 docs/link_lines.py": HeldBy("test_documents_links.py"),
    "python3 docs/make_images.py": HeldBy("test_images.py"),
    # docs/deployment.md
    "python3 chat_server.py --history chat.db --trust-proxy --allow-host chat.example": Serves(),
    "python3 chat_server.py --host 0.0.0.0 --port 8443 "
    "--cert certificate.pem --key key.pem": Serves(needs=(OPENSSL,)),
    OPENSSL: Ends(),
    "SSL_CERT_FILE=certificate.pem python3 echo_client.py wss://localhost:8443/echo": Ends(
        SENT,
        {":8443": ":{port}"},
        against="python3 echo_server.py --cert certificate.pem --key key.pem",
        needs=(OPENSSL,),
    ),
    f"python3 chat_server.py --host 0.0.0.0 --port 8443 --cert {LIVE}/fullchain.pem "
    f"--key {LIVE}/privkey.pem": Serves(
        {f"{LIVE}/fullchain.pem": "certificate.pem", f"{LIVE}/privkey.pem": "key.pem"},
        needs=(OPENSSL,),
    ),
    "cp /opt/chat/deploy/chat.service /etc/systemd/system/": NotHere(
        "it writes where root alone may", names_our_files
    ),
    "systemctl daemon-reload": NotHere("it needs systemd as the machine's first process"),
    "systemctl enable --now chat": AS_SERVICE,
    "journalctl -u chat -f": AS_SERVICE,
    "docker build -t chat .": HeldBy("test_deployment_service.py"),
    "docker run -d --name chat -p 127.0.0.1:8000:8000 -v chat:/data --ulimit nofile=16384 chat "
    "--trust-proxy 172.17.0.1 --allow-host chat.example": NotHere(
        "it needs Docker, and an image from the network", passes_options_that_the_chat_takes
    ),
    # docs/scale.md
    "ACL SETUSER chat on >PASSWORD ~chat ~chat:* +@read +@write +@connection +eval +time "
    "+memory|usage": HeldBy("test_chat_redis_urls.py"),
    # docs/from-go-to-python.md
    "GO111MODULE=off GOPATH=/usr/share/gocode go run benchmarks/peers/go_original.go": Goes(),
    "GO111MODULE=off GOPATH=/usr/share/gocode go run tests/go/echo_server.go": Goes(),
}
COMMANDS |= {
    # docs/how-it-works.md
    "python3 chat_server.py --trace": Serves(),
    **{
        f".venv/bin/python -m pytest tests/exercises/test_{name}.py": HeldBy(
            "test_exercises.py: test_solution_passes_the_test_of_its_exercise"
        )
        for name in ("typing", "rooms", "pictures", "extension")
    },
}
COMMANDS |= {
    f"python3 docs/faults.py {case.__name__} ws://localhost:{path}": HeldBy("test_faults.py")
    for path, cases in (("8000/ws", faults.CHAT), ("8080/echo", faults.ECHO))
    for case in cases
}
# A script as a whole.
RENEWAL = next((command for command in SHOWN if command.startswith("#!")), "")
COMMANDS[RENEWAL] = NotHere("certbot runs it, as root", runs_the_renewal_script)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("shown"))


def marked(command: str) -> object:
    is_go = isinstance(COMMANDS[command], Goes)
    marks = [pytest.mark.go, pytest.mark.timeout(2 * BUILD_TIME)] if is_go else []
    return pytest.param(command, marks=marks, id=command[:60].replace("\n", " "))


@pytest.mark.parametrize("command", [marked(command) for command in COMMANDS])
def test_command_that_a_document_shows_can_be_run(command: str, place: Place) -> None:
    COMMANDS[command].check(command, place)


def test_every_command_that_a_document_shows_is_in_the_table() -> None:
    unknown = [(document.name, command) for document in DOCUMENTS for command in document.commands]
    unknown = [each for each in unknown if each[1] not in COMMANDS]
    assert unknown == [], "add them to COMMANDS"


def test_every_command_in_the_table_is_shown_by_a_document() -> None:
    assert [command for command in COMMANDS if command not in SHOWN] == []


# Commands within sentences, such as `python3 chat_server.py --help`


@functools.cache
def flags_of(program: str) -> frozenset[str]:
    """The options that the `--help` of a program names."""
    command = [sys.executable, *program.split(), "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=2 * PATIENCE)
    assert ended.returncode == 0, ended.stderr.decode()
    return frozenset(FLAG.findall(ended.stdout.decode()))


class Named(NamedTuple):
    """A program of ours that a document names, and the options that it names with it."""

    document: str
    program: str
    flags: frozenset[str]


def named_programs() -> list[Named]:
    texts = [(each.name, text) for each in DOCUMENTS for text in (*each.commands, *each.spans)]
    found = [(name, PROGRAM.match(text)) for name, text in texts]
    return [
        Named(name, match["path"] or match["name"], frozenset(FLAG.findall(match["rest"])))
        for name, match in found
        if match
    ]


def test_every_program_that_a_document_names_is_there_and_has_the_options_named_with_it() -> None:
    named = named_programs()
    assert len(named) > 10
    for each in named:
        assert each.program.startswith("-m ") or (ROOT / each.program).exists(), each
        if each.flags:
            assert each.flags <= flags_of(each.program), each


def test_every_option_that_a_document_names_alone_is_one_of_a_program_of_ours() -> None:
    ours = frozenset[str]().union(*map(flags_of, OUR_PROGRAMS))
    for document in DOCUMENTS:
        alone = [span for span in document.spans if span.startswith("--")]
        unknown = {flag for span in alone for flag in FLAG.findall(span)} - ours
        assert unknown <= set(OTHER_OPTIONS), document.name
    for option, file in OTHER_OPTIONS.items():
        assert f'"{option}"' in (ROOT / file).read_text(encoding="utf-8")


def test_every_python_command_of_one_line_that_a_document_names_runs() -> None:
    spans = [span for document in DOCUMENTS for span in document.spans]
    lines = {shlex.split(span)[2]: None for span in spans if span.startswith("python3 -c ")}
    command = [sys.executable, "-c", "\n".join(lines)]  # in one process, as they are many
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=2 * PATIENCE)
    assert ended.returncode == 0, ended.stderr.decode()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_every_file_that_a_document_names_is_there(document: Document) -> None:
    names = {path.name for path in FILES}
    for span in document.spans:
        if FILE.fullmatch(span):
            nearby = (ROOT / span, document.path.parent / span)
            is_there = any(each.exists() for each in nearby) if "/" in span else span in names
            assert is_there, span

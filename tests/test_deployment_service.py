"""The chat as a service: the unit of systemd, and what the Dockerfile puts into the image."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from chat.options import Options
from chatting import hear, hear_said, ids, resume, say
from deployment import blocks, replace
from finding import find_systemd_analyze, require
from peers import PATIENCE, Peer, masked
from programs import ROOT, chat, run
from rfc6455.server import SPARE_CONNECTIONS

UNIT = ROOT / "deploy" / "chat.service"
DOCKERFILE = ROOT / "Dockerfile"
MOST_EXPOSURE = 15  # tenths of a point of `systemd-analyze security`; a bare service has 96


def settings(text: str) -> dict[str, list[str]]:
    """The settings of a unit: all values of each name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def unit() -> str:
    return UNIT.read_text(encoding="utf-8")


def options_of(command: str, history: Path) -> list[str]:
    """The options in a command line of the unit, with a history of the test's."""
    words = shlex.split(command)
    assert words[:2] == ["/usr/bin/python3", "/opt/chat/chat_server.py"]
    return [replace_history(word, history) for word in words[2:]]


def replace_history(word: str, history: Path) -> str:
    return word.replace("${STATE_DIRECTORY}/chat.db", str(history))


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze. Skips the test where there is none."""
    program = require(find_systemd_analyze(), "systemd-analyze", "apt install systemd")
    command = [program, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=3 * PATIENCE
    )


@pytest.mark.parametrize("addition", ["", blocks("ini")[0]], ids=["behind a proxy", "with TLS"])
def test_systemd_finds_no_fault_in_the_unit(addition: str, tmp_path: Path) -> None:
    copy = tmp_path / "chat.service"
    copy.write_text(unit() + addition)
    verified = analyze("verify", "--man=no", str(copy))
    complaints = [line for line in verified.stderr.splitlines() if "chat.service" in line]
    assert (verified.returncode, complaints) == (0, [])


def test_unit_is_hardened() -> None:
    rated = analyze(
        "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(UNIT)
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr


def test_unit_has_a_file_and_a_thread_for_each_client() -> None:
    needed = Options.max_clients + SPARE_CONNECTIONS + 100  # some more for the history and the log
    for name in ("LimitNOFILE", "TasksMax"):
        (value,) = settings(unit())[name]
        assert int(value) >= needed


def test_service_that_can_be_reloaded_has_a_certificate_to_read_again() -> None:
    """Without one, SIGHUP ends the server."""
    with_tls = settings(blocks("ini")[0])
    assert with_tls["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert "--cert" in with_tls["ExecStart"][-1]
    (command,) = settings(unit())["ExecStart"]
    assert "--cert" not in command
    assert "ExecReload" not in settings(unit())


def test_service_is_not_started_again_after_a_wrong_option() -> None:
    (status,) = settings(unit())["RestartPreventExitStatus"]
    assert run("chat_server.py", "--rate", "-1").returncode == int(status)


def test_client_that_resumes_over_a_restart_of_the_service_misses_nothing(tmp_path: Path) -> None:
    """A restart is SIGTERM and a new start. Others speak until the very moment of it."""
    (command,) = settings(unit())["ExecStart"]
    options = options_of(command, tmp_path / "chat.db")
    texts = [str(number) for number in range(300)]
    with chat(*options) as server, server.join() as ada, resume(server) as bob:
        for text in texts:
            say(ada, text, key=f"key {text}")
        seen = [hear_said(bob) for _ in range(50)]
        server.signal()
        heard = read_until_close(ada)
        read_until_close(bob)
        assert server.wait() == 0
    with chat(*options) as server, resume(server, seen[-1]["id"]) as bob:
        with server.join() as ada:
            # As the page does, she sends again what was not acknowledged.
            for text in texts[len(heard) :]:
                say(ada, text, key=f"key {text}")
            missed = [hear_said(bob) for _ in texts[len(seen) :]]
        assert [message["message"] for message in seen + missed] == texts
        assert len(set(ids(seen + missed))) == len(texts)


def read_until_close(peer: Peer) -> list[str]:
    """The texts that still come before the Close with 1001, which is answered."""
    texts = []
    while (frame := peer.read_frame()).first == 0x81:
        message = json.loads(frame.payload)
        if "event" not in message:
            texts.append(message["message"])
    assert frame == (0x88, b"\x03\xe9the server is shutting down")
    peer.send(masked(0x88, b"\x03\xe9"))
    assert peer.read_to_eof() == b""
    peer.close()
    return texts


# The Dockerfile


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, and what follows each."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def make_image(folder: Path) -> list[str]:
    """Copy what the Dockerfile copies into this folder; the command of the image."""
    command: list[str] = []
    for name, value in instructions():
        if name == "COPY":
            *sources, target = value.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target)
                else:
                    shutil.copy(ROOT / source, folder / target)
        elif name == "ENTRYPOINT":
            command = json.loads(value)
    return command


def test_image_has_all_that_the_chat_needs(tmp_path: Path) -> None:
    """The image itself is not built: what it would hold is copied to a folder, and run there."""
    image = tmp_path / "image"
    image.mkdir()
    python, script, *options = make_image(image)
    assert (python, script) == ("python3", "chat_server.py")
    options = [word.replace("/data/", f"{tmp_path}/") for word in options]
    options = [word.replace("0.0.0.0", "127.0.0.1") for word in options]
    with chat(*options, root=image, cwd=image) as server, server.join() as ada:
        say(ada, "in a container")
        assert hear(ada)["message"] == "in a container"
        assert server.answer(b"GET /index.html HTTP/1.0\r\n\r\n")[0] == 200
    assert (tmp_path / "chat.db").exists()


def test_health_check_of_the_image_fails_once_the_chat_is_gone() -> None:
    (check,) = (value for name, value in instructions() if name == "HEALTHCHECK")
    python, option, code = json.loads(check.removeprefix("CMD "))
    assert (python, option) == ("python3", "-c")
    with chat() as server:
        code = replace(code, "localhost:8000", f"localhost:{server.server_port}")
        assert run_code(code) == 0
    assert run_code(code) == 1


def run_code(code: str) -> int:
    """The exit status of a Python program."""
    command = ["python3", "-c", code]
    return subprocess.run(
        command, capture_output=True, check=False, timeout=3 * PATIENCE
    ).returncode

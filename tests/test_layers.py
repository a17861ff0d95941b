"""What may import what, how long a function may be, and that the programs stand alone."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rfc6455
from programs import ROOT, run, running

LAYERS = (
    "errors",
    "frames",
    "handshake",
    "deflate",
    "protocol",
    "trace",
    "trace_words",
    "cli",
    "keepalive",
    "clock",
    "stream",  # the bytes below the frames
    "connection",
    "server",
    "client",
    "interactive",
    "__main__",
)
PROGRAM = ("cli", "interactive", "__main__")  # what `python3 -m rfc6455` runs; a user of the layer
MAY_TOUCH_THE_NETWORK = {"cli", "clock", "stream", "connection", "server", "client"} | {
    "interactive",
    "__main__",
}
NETWORK = {"socket", "socketserver", "select", "selectors", "threading", "ssl", "http.server"}
CHAT = (
    "entry",
    "message",
    "options",
    "settings",
    "history",
    "redis_link",  # Redis' connections
    "redis_history",
    "pace",
    "presence",
    "redis_presence",
    "events",
    "open_history",
    "refusal",
    "resume",
    "batch",
)
PLAYGROUND = ("frame_events", "commands", "parser_lines")
USE_REDIS = ("redis_link", "redis_history", "redis_presence")
FUNCTION_LINES = 40  # its docstring not counted


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    package = path.parent.name if path.parent != ROOT else ""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, (package if node.level else "", node.module)))
            # `from http import server` and `from . import frames` name modules as well
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer_files() -> dict[str, Path]:
    return {path.stem: path for path in sorted((ROOT / "rfc6455").glob("*.py"))}


def own_modules() -> set[str]:
    return {"rfc6455", "chat", "playground"} | {path.stem for path in ROOT.glob("*.py")}


def chat_files() -> dict[str, Path]:
    return {path.stem: path for path in sorted((ROOT / "chat").glob("*.py"))}


def playground_files() -> dict[str, Path]:
    return {path.stem: path for path in sorted((ROOT / "playground").glob("*.py"))}


def our_files() -> list[Path]:
    """Everything that runs as a server or client: the layer, both packages, and the programs."""
    packages = (layer_files(), chat_files(), playground_files())
    return [*(path for package in packages for path in package.values()), *ROOT.glob("*.py")]


def with_submodule(name: str, known: set[str]) -> set[str]:
    """The known modules that importing this name brings in: itself or what it is a name of."""
    parts = name.split(".")
    return known & {".".join(parts[: i + 1]) for i in range(len(parts))}


def test_every_module_of_the_layer_has_its_place() -> None:
    assert set(layer_files()) == {"__init__", *LAYERS}


@pytest.mark.parametrize("name", LAYERS)
def test_module_imports_only_from_below(name: str) -> None:
    path = layer_files()[name]
    modules = {f"rfc6455.{other}" for other in LAYERS}
    found = {each for imported in imports(path) for each in with_submodule(imported, modules)}
    below = {f"rfc6455.{other}" for other in LAYERS[: LAYERS.index(name)]}
    if name in ("client", "interactive", "__main__"):
        below -= {"rfc6455.server"}
    assert found <= below
    assert not any(imported in own_modules() - {"rfc6455"} for imported in imports(path))


def test_every_module_of_the_chat_has_its_place() -> None:
    assert set(chat_files()) == {"__init__", *CHAT}


@pytest.mark.parametrize("name", CHAT)
def test_module_of_the_chat_imports_only_from_below_and_the_public_names_of_the_layer(
    name: str,
) -> None:
    modules = {f"chat.{other}" for other in CHAT}
    below = {f"chat.{other}" for other in CHAT[: CHAT.index(name)]}
    ours = {"command_line"} if name == "options" else set()
    for imported in imports(chat_files()[name]):
        found = with_submodule(imported, modules)
        assert found <= below
        root, _, rest = imported.partition(".")
        assert root not in own_modules() - {"chat", "rfc6455"} - ours
        assert root != "rfc6455" or not rest or rest in rfc6455.__all__


def test_every_module_of_the_playground_has_its_place() -> None:
    assert set(playground_files()) == {"__init__", *PLAYGROUND}


@pytest.mark.parametrize("name", PLAYGROUND)
def test_module_of_the_playground_imports_only_from_below_and_the_layer(name: str) -> None:
    modules = {f"playground.{other}" for other in PLAYGROUND}
    below = {f"playground.{other}" for other in PLAYGROUND[: PLAYGROUND.index(name)]}
    for imported in imports(playground_files()[name]):
        assert with_submodule(imported, modules) <= below
        assert imported.partition(".")[0] not in own_modules() - {"playground", "rfc6455"}


@pytest.mark.parametrize("name", sorted({*LAYERS, "__init__"} - MAY_TOUCH_THE_NETWORK))
def test_module_without_network_does_without_sockets_and_threads(name: str) -> None:
    path = layer_files()[name]
    assert not {each for i in imports(path) for each in with_submodule(i, NETWORK)}


def test_everything_but_redis_runs_on_the_standard_library() -> None:
    optional = {f"{name}.py": {"redis"} for name in USE_REDIS}
    for path in our_files():
        roots = {name.partition(".")[0] for name in imports(path)}
        allowed = set(sys.stdlib_module_names) | own_modules() | optional.get(path.name, set())
        assert roots <= allowed, f"{path.name} imports {roots - allowed}"


def test_only_those_who_need_redis_import_it() -> None:
    for path in our_files():
        if path.stem not in USE_REDIS:
            at_the_start = {
                name
                for node in tree(path).body
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in (getattr(node, "module", None), *(a.name for a in node.names))
            }
            assert not at_the_start & {"redis", *(f"chat.{name}" for name in USE_REDIS)}, path.name


def test_functions_are_short_or_have_their_steps_numbered() -> None:
    long = []
    for path in our_files():
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = function_lines(node)
                text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                if size > FUNCTION_LINES and not ("# 1. " in text and "# 2. " in text):
                    long.append(f"{path.name}: {node.name} has {size} lines")
    assert not long, "\n".join(long)


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    size = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        assert first.end_lineno is not None
        size -= first.end_lineno - first.lineno + 1
    return size


def test_every_module_says_what_it_is_for() -> None:
    for path in our_files():
        assert ast.get_docstring(tree(path)), path.name


@pytest.mark.parametrize("name", [each for each in LAYERS if each not in PROGRAM])
def test_layer_names_no_flag_of_a_program(name: str) -> None:
    """It says what was refused; how to allow it, the program knows that uses the layer."""
    texts = [
        node.value
        for node in ast.walk(tree(layer_files()[name]))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in texts if re.search(r"(?<!-)--[a-z]", text)] == []


def test_no_module_imports_a_test_module() -> None:
    """What several tests use stands in a module of its own."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        roots = {name.rpartition(".")[2] for name in imports(path)}
        assert not {name for name in roots if name.startswith("test_")}, path.name


def test_public_names_have_docstrings() -> None:
    missing = []
    for path in layer_files().values():
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                if ast.get_docstring(node) is None and len(node.body) > 3:
                    missing.append(f"{path.name}: {node.name}")
    assert not missing, missing


# Nothing but Python: -S hides what is installed, and the environment is as good as empty.

NOTHING = {"PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize("script", ["chat_server.py", "echo_server.py"])
def test_server_starts_with_nothing_but_python(script: str, tmp_path: Path) -> None:
    with running(script, python=["-S"], env=NOTHING, cwd=tmp_path) as server:
        with server.join("/ws" if script == "chat_server.py" else "/echo"):
            pass
        request = f"GET / HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode()
        assert server.answer(request)[0] == 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["chat_server.py", "echo_server.py"])
def test_server_outlives_the_directory_that_it_was_started_in(script: str, tmp_path: Path) -> None:
    with running(script, cwd=tmp_path) as server:
        tmp_path.rmdir()
        with server.join("/ws" if script == "chat_server.py" else "/echo"):
            pass


def test_echo_client_runs_with_nothing_but_python(tmp_path: Path) -> None:
    with running("echo_server.py", python=["-S"], env=NOTHING, cwd=tmp_path) as server:
        url = f"{server.ws_url}/echo"
        ended = run("echo_client.py", url, python=["-S"], env=NOTHING, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, b"")
    expected = "Send: hello, world!你好\nReceive: [hello, world!你好]\n"
    assert ended.stdout == expected.encode()


def test_package_can_be_imported_whole_with_nothing_but_python(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from rfc6455 import *"
    script = tmp_path / "all.py"
    script.write_text(code, encoding="utf-8")
    ended = run("all.py", python=["-S", "-W", "error"], env=NOTHING, root=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, b"")

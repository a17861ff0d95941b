"""How tests find other programs, or are skipped where one is missing."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


def require(found: T | None, what: str, how_to_install: str) -> T:
    """Return what was found. Where nothing was (None, False), skip the test and say why; or fail
    it where the environment variable CI is set, because there everything has to be installed.

    Call it in a test or a fixture: pytest takes no skip while a module is imported.
    """
    if found:
        return found
    reason = f"{what} not found; to install it: {how_to_install}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is no skip)", pytrace=False)
    pytest.skip(reason)


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    on_path = next((path for name in names if (path := shutil.which(name))), None)
    elsewhere = (
        Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
        Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    )
    return on_path or next((str(path) for path in elsewhere if path.is_file()), None)


def find_firefox() -> str | None:
    on_path = shutil.which("firefox-esr") or shutil.which("firefox")
    elsewhere = Path("/Applications/Firefox.app/Contents/MacOS/firefox")
    return on_path or (str(elsewhere) if elsewhere.is_file() else None)


def find_redis_server() -> str | None:
    return shutil.which("redis-server")


def require_redis() -> None:
    """Skip a test that needs Redis where it, or its package for Python, is missing."""
    require(find_redis_server(), "redis-server", "apt install redis-server")
    require(importlib.util.find_spec("redis"), "the redis package", "pip install redis")


def find_openssl() -> str | None:
    return shutil.which("openssl")


def find_nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def find_caddy() -> str | None:
    return shutil.which("caddy")


def find_haproxy() -> str | None:
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


def find_systemd_analyze() -> str | None:
    return shutil.which("systemd-analyze")


GO_SOURCES = Path("/usr/share/gocode")  # where Debian keeps the sources of Go packages


def find_go() -> str | None:
    """A Go compiler, if the WebSocket packages that the originals import are installed, too."""
    packages = ("golang.org/x/net/websocket", "github.com/gorilla/websocket")
    if all((GO_SOURCES / "src" / package).is_dir() for package in packages):
        return shutil.which("go")
    return None


def find_python27() -> str | None:
    """A Python 2.7 that runs: the `python2.7` that pyenv puts on PATH may only print an error."""
    pyenv_root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which("python2.7")]
    candidates += map(str, sorted(pyenv_root.glob("versions/2.7*/bin/python")))
    for python in filter(None, candidates):
        command = [python, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
        if subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0:
            return python
    return None

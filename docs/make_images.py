"""Makes docs/images/*.png: screenshots of both pages, drawn by Chromium.

    python3 docs/make_images.py            all of them
    python3 docs/make_images.py talk-dark  only those with these names

It runs with the packages of .venv, which `python3 tests` makes. The people, what they say, their
pictures and the time are as tests/states.py and tests/stage.py have them, and the echo page's times
as tests/echo_stage.py has them. So two runs on the same machine make the same files, but for the
trace and the frames, which have new masking keys each time. For a further image, add a state there,
and a line to IMAGES here.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv" / "bin" / "python"
if __name__ == "__main__" and Path(sys.executable) != VENV:
    if not VENV.exists():
        sys.exit("make_images.py: there is no .venv; `python3 tests` makes it")
    os.execv(VENV, [str(VENV), *sys.argv])
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from echo_stage import echo_frame, echo_idle, echo_stage, echo_talk
from finding import find_chromium
from pages import chromium
from stage import Look, open_page, stage
from states import (
    BEGIN,
    NOW,
    all_emoji,
    emoji_list,
    joining,
    lively_talk,
    offline_talk,
    unread,
    wait_until,
)
from terminal import trace_of_a_browser, traced_chat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = ROOT / "docs" / "images"
SCALE = 2  # pixels for each px, so that text is sharp on good screens, too

# Without it, letters stand half a px higher in some runs than in others.
CHROMIUM_OPTION = "--disable-font-subpixel-positioning"

# Families of fonts that the page's texts need, with Debian's packages of them. Without them the
# characters of Chinese and the emoji would be boxes.
FONTS = {"Noto Sans CJK SC": "fonts-noto-cjk", "Noto Color Emoji": "fonts-noto-color-emoji"}


class Image(NamedTuple):
    """A screenshot: in which state the page is, how it is looked at, and what serves it."""

    state: Callable[["Page", Any], None]  # of a page, and of what `server` yields
    look: Look
    server: Callable[[], AbstractContextManager[Any]] = lambda: stage(BEGIN)


PHONE = Look(width=390, height=780)
CHINESE_PHONE = replace(PHONE, language="zh-CN", theme="dark")

IMAGES = {
    "joining": Image(joining, Look(width=900, height=640)),
    "talk": Image(lively_talk, Look()),
    "talk.zh": Image(lively_talk, Look(language="zh-CN")),
    "talk-dark": Image(lively_talk, Look(theme="dark")),
    "talk-phone": Image(lively_talk, PHONE),
    "talk-chinese": Image(lively_talk, CHINESE_PHONE),
    "emoji": Image(emoji_list, Look()),
    "all-emoji": Image(all_emoji, Look()),
    "all-emoji-phone": Image(all_emoji, CHINESE_PHONE),
    "unread": Image(unread, Look()),
    "offline": Image(offline_talk, Look()),
    "trace": Image(trace_of_a_browser, Look(width=1000), traced_chat),
    "echo": Image(echo_idle, Look(), echo_stage),
    "echo-talk": Image(echo_talk, Look(height=880), echo_stage),
    "echo-chinese": Image(echo_talk, CHINESE_PHONE, echo_stage),
    "frame": Image(echo_frame, Look(height=1040), echo_stage),
    "frame-chinese": Image(echo_frame, replace(CHINESE_PHONE, height=1000), echo_stage),
}


def main(names: Sequence[str]) -> None:
    """Draw the images with these names, or all."""
    names = names or list(IMAGES)
    unknown = [name for name in names if name not in IMAGES]
    if unknown:
        sys.exit(f"make_images.py: no image is called {unknown[0]}; there are {', '.join(IMAGES)}")
    check_machine()
    FOLDER.mkdir(exist_ok=True)
    with chromium(CHROMIUM_OPTION) as browser:
        for name in names:
            draw(browser, IMAGES[name], FOLDER / f"{name}.png")
            print(f"Wrote docs/images/{name}.png", flush=True)


def check_machine() -> None:
    """Exit with what to install, if something is missing."""
    missing = [] if find_chromium() else ["chromium"]
    try:
        families = subprocess.run(["fc-list", ":", "family"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        sys.exit("make_images.py: fc-list not found; to install it: apt install fontconfig")
    missing += [package for family, package in FONTS.items() if family not in families]
    if missing:
        sys.exit(f"make_images.py: needs more programs or fonts: apt install {' '.join(missing)}")


def draw(browser: "Browser", image: Image, file: Path) -> None:
    """Bring a page into the image's state, and write what its window then shows."""
    with image.server() as server, open_page(browser, image.look, NOW, SCALE) as page:
        image.state(page, server)
        page.mouse.move(0, 0)  # away from the messages, of which one would show its time
        wait_for_pictures(page)
        file.write_bytes(page.screenshot(animations="disabled", caret="hide"))


def wait_for_pictures(page: "Page") -> None:
    """Wait until all pictures and fonts are there, or known to be missing, and all is drawn."""
    wait_until(page, "[...document.images].every((image) => image.complete)")
    page.evaluate("document.fonts.ready.then(() => null)")
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Makes public/chat/emoji.json: the emoji behind short names such as :robot:.

The names are EmojiOne's, JoyPixels' today, as data from the npm package emojibase-data
(https://www.npmjs.com/package/emojibase-data, MIT, Copyright (c) 2017-2019 Miles Johnson).
public/chat/emoji.LICENSE.txt says so beside the file.

    python3 docs/make_emoji.py           fetches the package with npm
    python3 docs/make_emoji.py FOLDER    takes a package that is already unpacked

Left out: skin tones, which are half of all names and are hardly ever typed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "emojibase-data@17.0.0"
OUTPUT = Path(__file__).resolve().parent.parent / "public" / "chat" / "emoji.json"
SKIN_TONES = range(0x1F3FB, 0x1F400)


def main() -> None:
    """Write public/chat/emoji.json from the package given, or from a fresh one."""
    if len(sys.argv) > 2:
        sys.exit("usage: make_emoji.py [FOLDER]")
    if len(sys.argv) == 2:
        names = read_names(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            names = read_names(fetch(Path(folder)))
    # One name a line, so that a new version of the package makes a readable diff.
    text = json.dumps(names, ensure_ascii=False, indent=0, sort_keys=True)
    OUTPUT.write_text(text + "\n", encoding="utf-8", newline="\n")
    print(f"{len(names)} names in {OUTPUT}")


def fetch(folder: Path) -> Path:
    """Download and unpack the package below `folder`; return where it lies."""
    command = ["npm", "pack", "--silent", PACKAGE]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def read_names(package: Path) -> dict[str, str]:
    """Return name to emoji, from the package's short names and its list of emoji."""
    shortcodes = json.loads((package / "en/shortcodes/joypixels.json").read_text("utf-8"))
    emoji = json.loads((package / "en/data.json").read_text("utf-8"))
    # The code sequences of the short names lack U+FE0F; the list of emoji has it wherever Unicode
    # knows a text form too. Without it U+2600 is drawn as text by rule, and U+2615, by rule emoji,
    # by browsers whose text font happens to have it.
    as_emoji = {one["hexcode"]: one["emoji"] for one in emoji}
    names: dict[str, str] = {}
    for sequence, aliases in shortcodes.items():
        if any(int(code, 16) in SKIN_TONES for code in sequence.split("-")):
            continue
        for name in [aliases] if isinstance(aliases, str) else aliases:
            names[name] = as_emoji[sequence]
    return names


if __name__ == "__main__":
    main()

"""Makes public/chat/emoji.json, the table of shortcodes such as :robot: and their emoji.

The shortcodes are those of EmojiOne, now JoyPixels. The data comes from the npm package
emojibase-data (https://www.npmjs.com/package/emojibase-data), which is Copyright (c) 2017-2019
Miles Johnson and has the MIT licence; public/chat/emoji.LICENSE.txt says so beside the table.

    python3 docs/make_emoji.py           downloads the package with npm
    python3 docs/make_emoji.py FOLDER    reads a package that is already unpacked

Left out are the skin tones: they are half of all shortcodes, and people hardly ever type them.
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
SKIN_TONES = range(0x1F3FB, 0x1F400)  # code points


def main() -> None:
    """Write public/chat/emoji.json from the package in the given folder, or a downloaded one."""
    if len(sys.argv) > 2:
        sys.exit("usage: make_emoji.py [FOLDER]")
    if len(sys.argv) == 2:
        table = read_table(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            table = read_table(download(Path(folder)))
    # Each shortcode has its own line, so that a new version of the package makes a readable diff.
    text = json.dumps(table, ensure_ascii=False, indent=0, sort_keys=True)
    OUTPUT.write_text(text + "\n", encoding="utf-8", newline="\n")
    print(f"Wrote {len(table)} shortcodes to {OUTPUT}")


def download(folder: Path) -> Path:
    """Download the package and unpack it in the folder. Returns the package's own folder."""
    command = ["npm", "pack", "--silent", PACKAGE]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def read_table(package: Path) -> dict[str, str]:
    """Read the package's files. Returns a dictionary from shortcode, without colons, to emoji."""
    shortcodes_of = json.loads((package / "en/shortcodes/joypixels.json").read_text("utf-8"))
    emoji = json.loads((package / "en/data.json").read_text("utf-8"))
    # The shortcodes' file names each emoji by its code points without U+FE0F, which asks for the
    # form of an emoji instead of that of a text. The emoji's file has the character with U+FE0F
    # wherever Unicode knows both forms. Without it, browsers would draw U+2600 as text, as Unicode
    # asks, and U+2615 too if their text font happens to have it.
    emoji_of = {each["hexcode"]: each["emoji"] for each in emoji}
    table: dict[str, str] = {}
    for hexcode, shortcodes in shortcodes_of.items():
        if any(int(code, 16) in SKIN_TONES for code in hexcode.split("-")):
            continue
        for shortcode in [shortcodes] if isinstance(shortcodes, str) else shortcodes:
            table[shortcode] = emoji_of[hexcode]
    return table


if __name__ == "__main__":
    main()

"""Makes public/chat/emoji.json, the table of shortcodes such as :robot: and their emoji, and beside
it emoji_groups.json, the same emoji by what they show.

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
FOLDER = Path(__file__).resolve().parent.parent / "public" / "chat"
SKIN_TONES = range(0x1F3FB, 0x1F400)  # code points

# The package's numbers of Unicode's groups, and what the page calls them. Parts of emoji, such as
# red hair, stand with the people, and single letters of flags with the symbols.
GROUPS = {
    0: "smileys",
    1: "people",
    2: "people",
    3: "nature",
    4: "food",
    5: "travel",
    6: "activities",
    7: "objects",
    8: "symbols",
    9: "flags",
    None: "symbols",
}


def main() -> None:
    """Write both files from the package in the given folder, or a downloaded one."""
    if len(sys.argv) > 2:
        sys.exit("usage: make_emoji.py [FOLDER]")
    if len(sys.argv) == 2:
        write_files(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_files(download(Path(folder)))


def write_files(package: Path) -> None:
    """Write both files from the package in this folder."""
    table = read_table(package)
    write("emoji.json", table, sort_keys=True)
    write("emoji_groups.json", read_groups(package, set(table.values())))
    print(f"Wrote {len(table)} shortcodes to {FOLDER}")


def write(name: str, content: object, sort_keys: bool = False) -> None:
    """Write a file with a line for each item, so that a new version makes a readable diff."""
    text = json.dumps(content, ensure_ascii=False, indent=0, sort_keys=sort_keys)
    (FOLDER / name).write_text(text + "\n", encoding="utf-8", newline="\n")


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


def read_groups(package: Path, known: set[str]) -> dict[str, list[str]]:
    """Read the package's files. Returns the known emoji by group, in Unicode's order."""
    data = json.loads((package / "en/data.json").read_text("utf-8"))
    groups: dict[str, list[str]] = {name: [] for name in GROUPS.values()}
    for each in sorted(data, key=lambda each: each.get("order", sys.maxsize)):
        if each["emoji"] in known:
            groups[GROUPS[each.get("group")]].append(each["emoji"])
    return groups


if __name__ == "__main__":
    main()

"""The screenshots of both pages, and docs/make_images.py, which makes them."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docs import make_images
from pages import launch_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Playwright

pytestmark = pytest.mark.browser


def test_folder_has_the_images_of_the_table_and_no_others() -> None:
    assert {path.stem for path in make_images.FOLDER.iterdir()} == {*make_images.IMAGES}


def test_image_is_drawn_twice_and_both_are_the_same(
    playwright: "Playwright", tmp_path: Path
) -> None:
    with launch_chromium(playwright, make_images.CHROMIUM_OPTION) as browser:
        for name in ("talk-phone", "echo-chinese"):
            for file in ("first", "second"):
                image = make_images.IMAGES[name]
                make_images.draw(browser, image, tmp_path / f"{file}.png")
            first = (tmp_path / "first.png").read_bytes()
            assert first[:8] == b"\x89PNG\r\n\x1a\n"
            assert first[16:24] == b"\x00\x00\x03\x0c\x00\x00\x06\x18"  # 780 and 1560 pixels
            assert first == (tmp_path / "second.png").read_bytes()


def test_missing_font_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_images, "find_chromium", lambda: "/usr/bin/chromium")
    monkeypatch.setattr(make_images, "FONTS", {"No Such Sans": "fonts-no-such"})
    with pytest.raises(SystemExit, match="apt install fonts-no-such"):
        make_images.main(["joining"])


def test_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SystemExit, match="no image is called jonning; there are joining, talk"):
        make_images.main(["jonning"])

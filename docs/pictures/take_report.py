"""Takes the picture of a report from a local stack that runs: ``make sweep``, then

    cirro local exec -- python docs/pictures/take_report.py

A wide screen in the light and a phone in the dark, side by side, from the page that ``cirro report`` writes. It needs a
Chromium (``apt-get install chromium``, or ``--chromium PATH``) and opens nothing but that page.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from browser import chromium, newest_dispatch, options
from playwright.sync_api import Browser

DESK = (1100, 1500)
PHONE = (390, 844)
"""Sizes of the two views in CSS pixels."""

SHOWN_PHONE = 1500
"""Height of the phone's part of the picture: it is as tall as the other."""

GAP = 24

SIDE_BY_SIDE = """
<body style="margin: 0; padding: {gap}px; display: flex; gap: {gap}px; align-items: flex-start; background: #cfd6de">
<img src="file://{desk}" width="{desk_width}"><img src="file://{phone}" width="{phone_width}">
</body>
"""


def view(browser: Browser, page_file: Path, size: tuple[int, int], scheme: str, height: int, path: Path) -> None:
    """The page as it is seen at a size, down to a height."""
    page = browser.new_page(
        viewport={"width": size[0], "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        device_scale_factor=2,
    )
    page.goto(page_file.as_uri())
    page.screenshot(path=path)
    page.close()


def main() -> None:
    given = options("Take the picture of a report.")
    picture = given.output / "cirro-report.png"
    with tempfile.TemporaryDirectory() as folder, chromium(given.chromium) as browser:
        report, desk, phone = (Path(folder) / name for name in ("report.html", "desk.png", "phone.png"))
        cirro = Path(sys.executable).with_name("cirro")
        subprocess.run([cirro, "report", given.dispatch or newest_dispatch("sweep"), "--output", report], check=True)
        view(browser, report, DESK, "light", DESK[1], desk)
        view(browser, report, PHONE, "dark", SHOWN_PHONE, phone)
        both = Path(folder) / "both.html"
        both.write_text(SIDE_BY_SIDE.format(gap=GAP, desk=desk, phone=phone, desk_width=DESK[0], phone_width=PHONE[0]))
        page = browser.new_page(viewport={"width": DESK[0] + PHONE[0] + 3 * GAP, "height": 100})
        page.goto(both.as_uri())
        page.screenshot(path=picture, full_page=True)
    print(picture)


if __name__ == "__main__":
    main()

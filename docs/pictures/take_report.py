"""Takes the picture of a report from a local stack that runs: ``make sweep``, then

    cirro local exec -- python docs/pictures/take_report.py

A wide screen in the light and a phone in the dark, side by side, from the page that ``cirro report`` writes. It needs a
Chromium (``apt-get install chromium``, or ``--chromium PATH``) and opens nothing but that page.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import covalent as ct
from playwright.sync_api import Browser, sync_playwright
from take import FLAGS, newest_dispatch

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
    parser = argparse.ArgumentParser(description="Take the picture of a report.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder for the picture")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of a Chromium")
    parser.add_argument("--dispatch", help="id of a dispatch; unset: the newest completed sweep")
    options = parser.parse_args()
    if options.chromium is None:
        sys.exit("there is no chromium on the path: install it, or name one with --chromium")

    address = f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}"
    dispatch_id = options.dispatch or newest_dispatch(address, "sweep")
    options.output.mkdir(parents=True, exist_ok=True)
    picture = options.output / "cirro-report.png"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report, desk, phone = (Path(folder) / name for name in ("report.html", "desk.png", "phone.png"))
        cirro = Path(sys.executable).with_name("cirro")
        subprocess.run([cirro, "report", dispatch_id, "--output", report], check=True)
        browser = playwright.chromium.launch(executable_path=options.chromium, args=list(FLAGS))
        view(browser, report, DESK, "light", DESK[1], desk)
        view(browser, report, PHONE, "dark", SHOWN_PHONE, phone)
        both = Path(folder) / "both.html"
        both.write_text(SIDE_BY_SIDE.format(gap=GAP, desk=desk, phone=phone, desk_width=DESK[0], phone_width=PHONE[0]))
        width = DESK[0] + PHONE[0] + 3 * GAP
        page = browser.new_page(viewport={"width": width, "height": 100})
        page.goto(both.as_uri())
        page.screenshot(path=picture, full_page=True)
        browser.close()
    print(picture)


if __name__ == "__main__":
    main()

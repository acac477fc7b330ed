"""Takes the pictures of the documentation from a local stack that runs: ``make sweep``, then

    cirro local exec -- python docs/pictures/take.py

It needs a Chromium (``apt-get install chromium``, or ``--chromium PATH``) and opens no other site than the local stack.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import urllib.request
from pathlib import Path

import covalent as ct
from playwright.sync_api import Page, Route, sync_playwright

WIDTH, HEIGHT = 1400, 800
LOAD_MS = 60_000

WITHOUT_FOLDER = """
for (const label of document.querySelectorAll("p, span, h6"))
    if (label.textContent.trim() === "Directory") {
        const value = label.nextElementSibling;
        label.remove();
        if (value) value.remove();
    }
"""
"""Takes the server's data folder off the page: it says something of this machine only."""

FLAGS = (
    "--no-sandbox",  # there is nobody to protect the machine from: only our own pages are opened
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def newest_dispatch(address: str, lattice: str) -> str:
    """Id of the newest completed dispatch of a lattice.

    Raises:
        SystemExit: There is none.
    """
    url = f"{address}/api/v1/dispatches/list?count=50&sort_by=started_at&sort_direction=DESC"
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  (the local server)
        dispatches = json.load(answer)["items"]
    for dispatch in dispatches:
        if dispatch["lattice_name"] == lattice and dispatch["status"] == "COMPLETED":
            return str(dispatch["dispatch_id"])
    sys.exit(f"{address} has no completed dispatch of the lattice {lattice!r}. Run `make sweep` first.")


def graph_page(page: Page, address: str, dispatch_id: str, path: Path) -> None:
    """The page of a finished dispatch, with its whole graph in view."""
    page.goto(f"{address}/{dispatch_id}", wait_until="load", timeout=LOAD_MS)
    page.locator(".react-flow__node").first.wait_for(timeout=LOAD_MS)
    page.locator(".react-flow__edge").first.wait_for(state="attached", timeout=LOAD_MS)
    page.evaluate(WITHOUT_FOLDER)
    page.wait_for_timeout(2500)  # the graph is laid out and zoomed in steps that leave no trace in the page
    page.screenshot(path=path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the documentation.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder for the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of a Chromium")
    parser.add_argument("--dispatch", help="id of a dispatch; unset: the newest completed sweep")
    options = parser.parse_args()
    if options.chromium is None:
        sys.exit("there is no chromium on the path: install it, or name one with --chromium")

    address = f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}"
    dispatch_id = options.dispatch or newest_dispatch(address, "sweep")
    options.output.mkdir(parents=True, exist_ok=True)

    def local_only(route: Route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()  # the web application asks Google for its fonts; it has others to fall back to

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
        page.route("**/*", local_only)
        graph_page(page, address, dispatch_id, options.output / "sweep-ui.png")
        browser.close()
    print(options.output / "sweep-ui.png")


if __name__ == "__main__":
    main()

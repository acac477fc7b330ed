"""What the pictures of pages share: a Chromium that opens nothing but the local stack, and what is asked of that."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import covalent as ct
from playwright.sync_api import Browser, Page, Route, sync_playwright

LOAD_MS = 60_000

SETTLE_MS = 2500
"""The graph is laid out and zoomed, and panels slide in, in steps that leave no trace in the page."""

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


def options(about: str, *, of_dispatch: bool = True) -> argparse.Namespace:
    """The options of a script that takes a picture of a page."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder for the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of a Chromium")
    if of_dispatch:
        parser.add_argument("--dispatch", help="id of a dispatch; unset: the newest completed sweep")
    found = parser.parse_args()
    if found.chromium is None:
        sys.exit("there is no chromium on the path: install it, or name one with --chromium")
    found.output.mkdir(parents=True, exist_ok=True)
    return found


def address() -> str:
    """Where the local stack's Covalent server is."""
    return f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}"


def asked(path: str) -> Any:
    """What the server's API answers."""
    with urllib.request.urlopen(f"{address()}/api/v1/{path}", timeout=30) as answer:  # noqa: S310  (the local server)
        return json.load(answer)


def newest_dispatch(lattice: str) -> str:
    """Id of the newest completed dispatch of a lattice.

    Raises:
        SystemExit: There is none.
    """
    for dispatch in asked("dispatches/list?count=50&sort_by=started_at&sort_direction=DESC")["items"]:
        if dispatch["lattice_name"] == lattice and dispatch["status"] == "COMPLETED":
            return str(dispatch["dispatch_id"])
    sys.exit(f"{address()} has no completed dispatch of the lattice {lattice!r}. Run `make sweep` first.")


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """A browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


def dispatch_page(browser: Browser, dispatch_id: str, width: int, height: int) -> Page:
    """The Covalent UI with a dispatch's whole graph in view."""
    page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=2)

    def local_only(route: Route) -> None:
        if route.request.url.startswith((address(), "data:", "blob:")):
            route.continue_()
        else:
            route.abort()  # the web application asks Google for its fonts; it has others to fall back to

    page.route("**/*", local_only)
    page.goto(f"{address()}/{dispatch_id}", wait_until="load", timeout=LOAD_MS)
    page.locator(".react-flow__node").first.wait_for(timeout=LOAD_MS)
    page.wait_for_timeout(SETTLE_MS)
    return page

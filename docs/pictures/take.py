"""Takes the picture of a finished sweep in the Covalent UI from a local stack that runs: ``make sweep``, then

    cirro local exec -- python docs/pictures/take.py

It needs a Chromium (``apt-get install chromium``, or ``--chromium PATH``) and opens no other site than the local stack.
"""

from __future__ import annotations

from browser import LOAD_MS, WITHOUT_FOLDER, chromium, dispatch_page, newest_dispatch, options

WIDTH, HEIGHT = 1400, 800


def main() -> None:
    given = options("Take the picture of a sweep in the Covalent UI.")
    picture = given.output / "sweep-ui.png"
    with chromium(given.chromium) as browser:
        page = dispatch_page(browser, given.dispatch or newest_dispatch("sweep"), WIDTH, HEIGHT)
        page.locator(".react-flow__edge").first.wait_for(state="attached", timeout=LOAD_MS)
        page.evaluate(WITHOUT_FOLDER)
        page.screenshot(path=picture)
    print(picture)


if __name__ == "__main__":
    main()

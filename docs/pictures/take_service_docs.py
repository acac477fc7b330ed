"""Takes the picture of the recommender's page `/docs` in docs/serving.md: a question is asked on it, and answered.

    python docs/pictures/take_service_docs.py

The service is a process of this machine, with a model whose weights are drawn; the page shows the address of a load
balancer. The script needs a Chromium (``apt-get install chromium``, or ``--chromium PATH``).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import LOAD_MS, SETTLE_MS, chromium, options
from playwright.sync_api import Browser, Locator, Page
from take_serving import ADDRESS

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.serving_model import made, write
from tests.service.conftest import running

WIDTH, HEIGHT = 1200, 1900

ELSEWHERE = """
([here, there]) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(here, there);
}
"""
"""Puts another address into all texts of the page."""


def main() -> None:
    given = options("Take the picture of the service's own page.", of_dispatch=False)
    picture = given.output / "service-docs.png"
    model = made(users=30, items=40, k=5, ratings=300)
    model = model._replace(titles=[f"Film {number}" for number in range(1, len(model.titles) + 1)])
    with tempfile.TemporaryDirectory() as name:
        folder = write(model, Path(name) / "20261130T080319Z-5dc9fc00")
        with running(str(folder)) as service, chromium(given.chromium) as browser:
            service.ready()
            page = open_page(browser, f"{service.url}/docs")
            answer = ask(page)
            page.evaluate(ELSEWHERE, [service.url.removeprefix("http://"), ADDRESS])
            page.mouse.move(WIDTH / 2, 10)
            place = answer.bounding_box()
            assert place is not None
            page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": WIDTH, "height": place["y"] + place["height"]})
    print(picture)


def open_page(browser: Browser, url: str) -> Page:
    """The page, which loads nothing from elsewhere."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
    page.set_default_timeout(LOAD_MS)
    page.goto(url)
    page.wait_for_timeout(SETTLE_MS)
    return page


def ask(page: Page) -> Locator:
    """Ask for three films for user 4, as a person does; gives the answer, with its headers."""
    endpoint = page.locator(".opblock", has=page.locator("[data-path='/users/{user_id}/recommendations']"))
    endpoint.locator(".opblock-summary").click()
    endpoint.get_by_role("button", name="Try it out").click()
    endpoint.get_by_placeholder("user_id").fill("4")
    endpoint.locator("[data-param-name='n'] input").fill("3")
    endpoint.get_by_role("button", name="Execute").click()
    answer = endpoint.locator(".live-responses-table")
    answer.locator(".highlight-code").first.wait_for()
    return answer


if __name__ == "__main__":
    main()

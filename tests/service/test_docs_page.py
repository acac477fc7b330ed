"""``/docs`` in a real browser: it needs no other server, and a request that is sent from it is answered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, sync_playwright

from benchmarks.serving_model import MadeModel
from tests.service.conftest import PATIENCE_S, Process
from tests.service.test_model import loop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = PATIENCE_S * 1000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here to look at the page with")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


def test_a_person_tries_the_service_out(browser: Browser, service: Process, model: MadeModel) -> None:
    """Opens an endpoint, fills in a user, executes, and reads the items."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(f"{service.url}/docs")
    endpoint = page.locator(".opblock", has=page.locator("[data-path='/users/{user_id}/recommendations']"))
    endpoint.locator(".opblock-summary").click()
    endpoint.get_by_role("button", name="Try it out").click()
    endpoint.get_by_placeholder("user_id").fill("4")
    endpoint.get_by_role("button", name="Execute").click()
    answer = endpoint.locator(".live-responses-table .highlight-code").first
    answer.wait_for()
    text = answer.inner_text()
    for row, _ in loop(model, 3, 10):
        assert model.titles[row] in text
    assert failed == []
    # Pictures within the page's own style sheet are `data:` URLs.
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith("data:")}
    assert hosts == {f"127.0.0.1:{service.port}"}
    page.close()

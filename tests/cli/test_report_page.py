"""The page of a report in a real browser: it fits every screen, in the light and in the dark, and asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from covalent_cirro.history.report import page
from tests.unit.test_report import attempt, gpu, listed, report_of, run, used

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZES = {"large": (1600, 1000), "desk": (1280, 900), "tablet": (820, 1180), "phone": (390, 844), "small": (320, 568)}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here to look at the page with")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all that a page can have: many electrons, long names, logs and errors, lost attempts, GPUs, notes."""
    long = "preprocess_and_tokenize_the_whole_corpus_" * 3
    runs = [run(node_id=node, job_id=f"job-{node}", name=long if node == 1 else "train") for node in range(60)]
    runs.append(run(node_id=60, attempts=(attempt(1, 102.0, 103.0, lost=True), attempt(2))))
    runs.append(used(node_id=61, name="on_gpu", gpus=(gpu(70.0, 9000),), need=runs[0].need._replace(gpus=1)))  # type: ignore[union-attr]
    path = tmp_path_factory.mktemp("page") / "report.html"
    made = report_of(*runs, notes=["AWS said AccessDeniedException: " + "x" * 200])
    electrons = (
        listed("x" * 300, electron=long),
        listed("a word\n" * 12, state="FAILED", why="/a/path" * 60, node_id=1),
    )
    path.write_text(page.page(made._replace(electrons=electrons)), "utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_every_screen(browser: Browser, file: Path, size: str, scheme: Any) -> None:
    """Nothing is wider than the screen, nothing is asked for, and no rule of the page's own policy is broken."""
    width, height = SIZES[size]
    seen = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    asked: list[str] = []
    said: list[str] = []
    seen.on("request", lambda request: asked.append(request.url))
    seen.on("console", lambda message: said.append(message.text))
    seen.on("pageerror", lambda error: said.append(str(error)))
    seen.goto(file.as_uri())
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert seen.evaluate(wider) <= 0
    assert asked == [file.as_uri()]
    assert said == []
    if width > 640:  # narrower, the cells have their headers
        heights = seen.locator("th").evaluate_all("all => all.map(each => each.getClientRects()[0].height)")
        assert len(set(heights)) == 1, "a header takes a line"
        code = seen.locator(".options").evaluate_all("all => all.map(each => each.getClientRects().length)")
        assert set(code) == {1}, "so do options that are to be copied"
    background, text = seen.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    dark = scheme == "dark"
    assert (_luminance(background) < 0.2) == dark
    assert (_luminance(text) > 0.6) == dark
    seen.close()


def test_each_run_has_a_row_that_is_seen(browser: Browser, file: Path) -> None:
    """A row of the timeline for each, as wide as the place beside its name; the time axis stands above it."""
    seen = browser.new_page(viewport={"width": 1280, "height": 900})
    seen.goto(file.as_uri())
    rows = seen.locator("#timeline .row svg")
    assert rows.count() == 62
    first, axis = rows.first.bounding_box(), seen.locator("#timeline .axis div").bounding_box()
    assert first is not None
    assert axis is not None
    assert (first["x"], first["width"]) == (axis["x"], axis["width"])
    assert first["width"] > 600
    assert seen.locator("#lost").count() == 1
    seen.close()


def _luminance(color: str) -> float:
    red, green, blue = (int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255

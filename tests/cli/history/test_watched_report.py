"""``cirro report --watch``: one page, in a real browser, from AWS Batch and S3 alone, while electrons run and end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from click.testing import Result
from playwright.sync_api import Browser, Page, sync_playwright

from covalent_cirro.aws.sessions import Access
from covalent_cirro.history.account import open_account
from covalent_cirro.history.report import compute
from covalent_cirro.history.report.sources import DispatchSources
from tests.access import ask
from tests.cli.history.conftest import Lab, poll
from tests.cli.history.test_jobs import CIRRO

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHOWN_MS = 60_000
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\S{20,}/")


def train(gate: str) -> str:
    """An electron that prints, and ends when a file appears."""
    print("<b>epoch 1</b>", flush=True)
    print("a_long_word_" * 30, flush=True)
    while not os.path.exists(gate):
        time.sleep(0.05)
    print("epoch 2", flush=True)
    return "done"


def boom() -> None:
    """An electron that raises."""
    print("the last words")
    raise ValueError("<script>no such luck</script>")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium. Playwright runs an event loop in this thread: no electron can be sent meanwhile."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def watched(lab: Lab, tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[bytes], str]]]:
    """Starts ``cirro report --watch`` of a dispatch; gives the process and the address of its page."""
    started: list[subprocess.Popen[bytes]] = []
    output = tmp_path / "output"

    def start(dispatch: str) -> tuple[subprocess.Popen[bytes], str]:
        with output.open("w") as file:
            words = [*CIRRO, "report", dispatch, "--watch"]
            started.append(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path))
        found = poll(lambda: started[0].poll() is not None or ADDRESS.search(output.read_text()), "the address is said")
        assert isinstance(found, re.Match), output.read_text()
        return started[0], found[0]

    yield start
    for process in started:
        process.kill()
        process.wait()


def opened(browser: Browser, url: str, problems: list[str], **options: Any) -> Page:
    """The page in a window of its own; what the browser complains of is added to ``problems``."""
    page = browser.new_page(**options)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: problems.append(request.url) if request.url != url else None)
    page.goto(url)
    return page


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here to look at the page with")
def test_a_running_electron_ends_before_ones_eyes(lab: Lab, watched: Callable[[str], Any], tmp_path: Path) -> None:
    """Its state and log change without a reload; what a person closed, and the place, stay. Ctrl-C ends the command."""
    gate = tmp_path / "gate"
    failed = lab.send(boom, node_id=1)
    lab.done(failed)
    running = lab.send(train, str(gate), dispatch_id=failed.dispatch_id, node_id=2)
    lab.reach(running, "RUNNING")
    process, url = watched(failed.dispatch_id[:8])
    problems: list[str] = []
    with chromium() as browser:
        desk = opened(browser, url, problems, viewport={"width": 1280, "height": 500})
        phone = opened(browser, url, problems, viewport={"width": 320, "height": 568}, color_scheme="dark")
        for page in (desk, phone):
            page.locator("#electrons .RUNNING").wait_for(timeout=SHOWN_MS)
            page.get_by_text("<b>epoch 1</b>").wait_for(timeout=SHOWN_MS)
            assert page.evaluate(WIDER) <= 0
        assert desk.locator("#electrons .bad").inner_text().endswith("<script>no such luck</script>")
        desk.evaluate("window.isTheSame = true")
        desk.locator("#electrons details").last.locator("summary").click()  # it was open: it is closed now
        desk.evaluate("window.scrollTo(0, 200)")
        gate.touch()
        for page in (desk, phone):
            page.locator("#electrons .SUCCEEDED").wait_for(timeout=SHOWN_MS)
            page.get_by_text("All its jobs have ended.").wait_for(timeout=SHOWN_MS)
            assert page.evaluate(WIDER) <= 0
        assert desk.evaluate("window.isTheSame")
        assert desk.evaluate("window.scrollY") > 0
        assert sum(each.get_attribute("open") is None for each in desk.locator("#electrons details").all()) == 1
        phone.get_by_text("epoch 2").wait_for(timeout=SHOWN_MS)
        assert problems == []
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, (tmp_path / "output").read_text()
        desk.locator("#lost-contact").wait_for(state="visible", timeout=SHOWN_MS)
    said = (tmp_path / "output").read_text()
    assert "all its jobs have ended, 1 failed" in said
    assert "Traceback" not in said
    assert list(tmp_path.glob("*.html")) == []


def test_a_further_look_takes_few_calls(lab: Lab, tmp_path: Path) -> None:
    """Of jobs that have ended, nothing is read again: there is one call for the jobs that run, and one for each log."""
    gate = tmp_path / "gate"
    first = lab.send(boom, node_id=1)
    lab.done(first)
    for node_id in (2, 3):
        lab.done(lab.send(boom, dispatch_id=first.dispatch_id, node_id=node_id))
    running = lab.send(train, str(gate), dispatch_id=first.dispatch_id, node_id=4)
    lab.reach(running, "RUNNING")
    account, emulator = lab.account, lab.account.emulator
    access = Access("emulated", account.credentials, emulator.region, emulator.endpoint_url)
    with open_account(access, "cirro") as opened_account:
        sources = DispatchSources(opened_account, first.dispatch_id)
        sources.look()
        poll(lambda: "epoch 1" in compute(sources.look()).electrons[0].log_end, "the log is read")
        ask(emulator.endpoint_url, emulator.key, "calls", method="DELETE")
        report = compute(sources.look())
        calls = ask(emulator.endpoint_url, emulator.key, "calls")
    assert (report.electrons[0].row.node_id, report.electrons[0].row.state) == (4, "RUNNING")
    assert "epoch 1" in report.electrons[0].log_end
    assert report.total.usd > 0
    counts = {name: call["count"] for name, call in calls.items()}
    listed = counts.pop("s3:ListObjectsV2", 0)  # for parts of the log, where CloudWatch has no new line
    assert listed in (0, 2)
    assert counts == {"batch:ListJobs": 4, "batch:DescribeJobs": 1, "logs:GetLogEvents": 1}


@pytest.mark.parametrize("words", [("--json",), ("--output", "file")])
def test_watching_writes_no_file_and_no_document(
    words: tuple[str, ...], cirro: Callable[..., Result], terminal: Path
) -> None:
    """Exit code 2."""
    assert cirro("report", "abc", "--watch", *words).exit_code == 2

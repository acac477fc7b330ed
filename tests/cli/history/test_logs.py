"""``cirro logs``: what an electron printed, while it runs and long after, wherever that lies."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro.aws.sessions import Access
from covalent_cirro.history import find, names, output
from covalent_cirro.history.account import Account, open_account
from covalent_cirro.history.following import SILENCE_S, follow
from tests import last_words
from tests.cli.history.conftest import Lab, poll
from tests.last_words import take_the_runner_along

cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(last_words)

Cirro = Callable[..., Result]


def speak() -> None:
    """Prints on both streams."""
    print("to stdout")
    print()
    print("to stderr: größer", file=sys.stderr)


def boom() -> None:
    """Prints and raises."""
    print("the last words")
    raise ValueError("no such luck")


def babble() -> None:
    """Prints more than an outcome holds."""
    for number in range(20_000):
        print(f"line {number}")


def go_on(gate: str) -> str:
    """Prints a line whenever a file appears, until ``<gate>.end`` does."""
    print("begun", flush=True)
    for number in range(1, 100_000):
        while not os.path.exists(f"{gate}.{number}"):
            if os.path.exists(f"{gate}.end"):
                print("the end", flush=True)
                return "done"
            time.sleep(0.02)
        print(f"line {number}", flush=True)
    return "never"


def progress(gate: str, quick: int) -> None:
    """Prints lines, and then a progress bar: so many steps at once, and more, slowly, until a file appears."""
    print("begun", flush=True)
    print("a warning", file=sys.stderr, flush=True)
    for step in range(1_000_000):
        print(f"\rstep {step:06d}", end="", file=sys.stderr, flush=step >= quick)
        if step >= quick:
            Path(f"{gate}.quick").touch()
            time.sleep(0.05)
        if os.path.exists(f"{gate}.end"):
            print(f"\rdone after {step:06d}", file=sys.stderr, flush=True)
            return


def silent() -> None:
    """Prints nothing."""


def test_both_streams_of_an_electron_that_ended(lab: Lab, cirro: Cirro) -> None:
    """Each on its own, to the byte."""
    sent = lab.send(speak)
    lab.done(sent)
    result = cirro("logs", sent.name)
    assert result.exit_code == 0
    assert result.stdout == "to stdout\n\n"
    assert result.stderr == "to stderr: größer\n"


def test_an_electron_that_failed_is_no_failure_of_the_command(lab: Lab, cirro: Cirro) -> None:
    """Exit code 0, and the reason apart from the log."""
    sent = lab.send(boom)
    lab.done(sent)
    result = cirro("logs", sent.name)
    assert result.exit_code == 0
    assert result.stdout == "the last words\n"
    assert "FAILED: " in result.stderr
    assert "no such luck" in result.stderr


def test_a_long_log_comes_whole(lab: Lab, cirro: Cirro) -> None:
    """From its parts, also when AWS Batch has forgotten the job."""
    sent = lab.send(babble)
    lab.done(sent)
    lab.forget(sent)
    lines = cirro("logs", sent.name).stdout.splitlines()
    assert lines == [f"line {number}" for number in range(20_000)]


def test_a_job_that_left_no_outcome(lab: Lab, cirro: Cirro) -> None:
    """CloudWatch has its log."""
    sent = lab.send(take_the_runner_along, "these are the last words")
    lab.done(sent)
    result = cirro("logs", sent.name)
    assert result.exit_code == 0
    assert "these are the last words\n" in result.stdout
    assert "FAILED" in result.stderr


def test_all_attempts_are_shown_each_under_its_heading(lab: Lab, cirro: Cirro, tmp_path: Path) -> None:
    """A host that was lost: what its attempt printed is in CloudWatch, what came after in the outcome."""
    sent = lab.send(go_on, str(tmp_path / "gate"))
    lab.reach(sent, "RUNNING")
    poll(lambda: "begun\n" in cirro("logs", sent.name).stdout, "it has printed")
    lab.faults.add("lose_host", count=1)
    poll(lambda: len(lab.job(sent.job_id)["attempts"]) == 1, "its host is lost")
    (tmp_path / "gate.end").touch()
    lab.done(sent)
    result = cirro("logs", sent.name)
    assert result.stdout == "begun\nbegun\nthe end\n"
    assert "--- attempt 1, which ended: Host EC2 (instance i-" in result.stderr
    assert "--- attempt 2 ---" in result.stderr


def test_a_job_that_waits_has_printed_nothing_yet(lab: Lab, cirro: Cirro) -> None:
    """It says so, apart from the log."""
    lab.faults.add("stuck")
    sent = lab.send(speak)
    lab.reach(sent, "RUNNABLE")
    result = cirro("logs", sent.name)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "RUNNABLE: nothing is printed yet" in result.stderr


def test_nothing_printed_is_said(lab: Lab, cirro: Cirro) -> None:
    """An empty answer would leave one in doubt."""
    sent = lab.send(silent)
    lab.done(sent)
    result = cirro("logs", sent.name)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing was printed\n")


class Following:
    """``cirro logs -f`` of an electron, in a thread: what it has shown until now, and how long it waited."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.shown: list[output.Piece] = []
        self.said: list[str] = []
        self.pauses: list[float] = []
        self._thread = threading.Thread(target=self._run, args=(name,), daemon=True)
        self._thread.start()

    def _run(self, name: str) -> None:
        with open_account(Access(None, None, None, None), "cirro") as account:
            electron = find.electron(account, names.parse(name))
            for piece in self._pieces(account, electron):
                self.shown.append(piece)

    def _pieces(self, account: Account, electron: find.Electron) -> Iterator[output.Piece]:
        def sleep(seconds: float) -> None:
            self.pauses.append(seconds)
            time.sleep(0.1)

        # The clock runs as fast as the pauses say.
        return follow(account, electron, sleep=sleep, clock=lambda: sum(self.pauses), say=self.said.append)

    @property
    def text(self) -> str:
        """All text."""
        return "".join(piece.text for piece in self.shown)

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_a_running_electron_is_followed_to_its_end(lab: Lab, terminal: Path, tmp_path: Path) -> None:
    """Lines appear as they come, and none twice; its states are told."""
    gate = tmp_path / "gate"
    lab.faults.add("stuck")
    sent = lab.send(go_on, str(gate))
    following = Following(lab, sent.name)
    poll(lambda: following.said, "its state is told")
    lab.faults.clear()
    poll(lambda: following.text == "begun\n", "the first line")
    for number in (1, 2):
        Path(f"{gate}.{number}").touch()
        poll(lambda number=number: f"line {number}\n" in following.text, "the next line")  # type: ignore[misc]
    Path(f"{gate}.end").touch()
    following.join()
    assert following.text == "begun\nline 1\nline 2\nthe end\n"
    assert following.said[-2:] == ["RUNNING", "SUCCEEDED"] or following.said[-1].startswith("SUCCEEDED")
    assert following.said[0].startswith("RUNNABLE")


def test_following_is_no_call_a_second(lab: Lab, terminal: Path, tmp_path: Path) -> None:
    """The longer an electron says nothing, the rarer it is looked at: at last every 10 s, with three or four calls."""
    gate = tmp_path / "gate"
    sent = lab.send(go_on, str(gate))
    lab.reach(sent, "RUNNING")
    following = Following(lab, sent.name)
    # The job's line and its state are news, and may come late.
    poll(lambda: following.text == "begun\n", "the first line")
    poll(lambda: following.pauses[-1:] == [SILENCE_S], "it has said nothing for a while")
    counted = lab.account.emulator.calls
    counted.reset()
    before = len(following.pauses)
    poll(lambda: len(following.pauses) > before + 10, "more looks")
    looks, counts = len(following.pauses) - before, counted.counts("client")
    assert set(following.pauses[before:]) == {SILENCE_S}
    assert set(counts) == {"logs:GetLogEvents", "s3:ListObjectsV2", "batch:DescribeJobs"}
    assert counts["s3:ListObjectsV2"]["count"] <= 2 * looks + 4
    assert all(counts[name]["count"] <= looks + 2 for name in ("logs:GetLogEvents", "batch:DescribeJobs"))
    Path(f"{gate}.end").touch()
    following.join()


def test_a_second_attempt_is_followed_too(lab: Lab, terminal: Path, tmp_path: Path) -> None:
    """After the host of the first was lost."""
    gate = tmp_path / "gate"
    sent = lab.send(go_on, str(gate))
    lab.reach(sent, "RUNNING")
    following = Following(lab, sent.name)
    poll(lambda: following.text == "begun\n", "the first line")
    lab.faults.add("lose_host", count=1)
    poll(lambda: following.text == "begun\nbegun\n", "the second attempt's first line")
    Path(f"{gate}.end").touch()
    following.join()
    assert following.text == "begun\nbegun\nthe end\n"
    assert [piece.attempt for piece in following.shown if piece.about] == [2]


def test_without_cloudwatch_the_stored_parts_are_followed(
    lab: Lab, terminal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that may not read the log group, or a group that is gone, see what the runner stores."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("CIRRO_RUNNER_SECONDS", "log_interval=0.2")
    sent = lab.send(go_on, str(gate))
    lab.reach(sent, "RUNNING")
    group = lab.account.settings["batch_job_log_group_name"]
    logs = lab.account.client("logs")
    logs.delete_log_group(logGroupName=group)
    try:
        following = Following(lab, sent.name)
        poll(lambda: following.text == "begun\n", "the first part")
        Path(f"{gate}.1").touch()
        Path(f"{gate}.end").touch()
        following.join()
    finally:
        logs.create_log_group(logGroupName=group)
    assert following.text == "begun\nline 1\nthe end\n"
    assert {piece.stream for piece in following.shown} == {"stdout"}


@pytest.mark.parametrize("quick", [0, 60_000], ids=["from its begin", "when CloudWatch has pieces of it"])
def test_a_progress_bar_is_shown_while_it_grows(
    lab: Lab, terminal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cirro: Cirro, quick: int
) -> None:
    """CloudWatch has its line when that has ended; the stored parts have it before. Nothing of it is shown twice."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("CIRRO_RUNNER_SECONDS", "log_interval=0.2")
    sent = lab.send(progress, str(gate), quick)
    poll(Path(f"{gate}.quick").exists, "it has begun")
    poll(lambda: f"step {quick + 1:06d}" in cirro("logs", sent.name).stdout, "the parts have it")
    following = Following(lab, sent.name)
    poll(lambda: following.text.count("\rstep ") > 20, "the bar grows")
    grown = following.text.count("\r")
    poll(lambda: following.text.count("\r") > grown, "the bar grows on")
    Path(f"{gate}.end").touch()
    following.join()
    head, _, bar = following.text.partition("\r")
    assert sorted(head.splitlines()) == ["a warning", "begun"]
    *steps, done, end = re.split("[\r\n]", bar)
    assert steps == [f"step {step:06d}" for step in range(len(steps))]
    assert done == f"done after {len(steps) - 1:06d}"
    assert end == ""


def test_follow_of_what_has_ended_shows_it_and_ends(lab: Lab, cirro: Cirro) -> None:
    """There is nothing to wait for."""
    sent = lab.send(speak)
    lab.done(sent)
    assert cirro("logs", sent.name, "-f").stdout == "to stdout\n\n"


def test_the_end_of_what_was_followed_is_explained(lab: Lab, cirro: Cirro) -> None:
    """By what the job left, which was not there when following began; exit code 0."""
    sent = lab.send(boom)
    result = cirro("logs", sent.name, "-f")
    assert result.exit_code == 0
    assert "the last words\n" in result.stdout
    assert "ValueError: no such luck" in result.stderr


def test_json_is_an_object_a_line(lab: Lab, cirro: Cirro) -> None:
    """With attempt and stream, and nothing else on stdout."""
    sent = lab.send(speak)
    lab.done(sent)
    found = [json.loads(line) for line in cirro("logs", sent.name, "--json").stdout.splitlines()]
    assert [(each["attempt"], each["stream"], each["text"]) for each in found] == [
        (1, "stdout", "to stdout\n\n"),
        (1, "stderr", "to stderr: größer\n"),
    ]


@pytest.mark.parametrize("name", ["abcdef", "abcdef:", ":3", "abcdef:x", "abcdef:-1"])
def test_wrong_usage(cirro: Cirro, name: str) -> None:
    """An electron is DISPATCH:NODE; exit code 2."""
    assert cirro("logs", "--", name).exit_code == 2


def test_an_unknown_node_is_told_with_those_that_there_are(lab: Lab, cirro: Cirro) -> None:
    """Exit code 1."""
    sent = lab.send(silent, node_id=4)
    result = cirro("logs", f"{sent.dispatch_id}:5")
    assert result.exit_code == 1
    assert "no electron with node 5" in result.stderr
    assert "4 (silent)" in result.stderr


def test_a_call_without_job_says_so(lab: Lab, cirro: Cirro) -> None:
    """There is no log, and why."""
    dispatch_id = lab.upload(silent, node_id=1)
    result = cirro("logs", f"{dispatch_id}:1", "-f")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "AWS Batch knows no job of it" in result.stderr

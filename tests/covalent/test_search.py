"""`search.optimize` and ``cirro search`` against a real Covalent server and jobs that run."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

EXAMPLE = Path(__file__).parents[2] / "examples" / "search.py"
MISSING = [name for name in ("torch", "sklearn", "botorch", "matplotlib") if importlib.util.find_spec(name) is None]

SCRIPT = """
import json, sys, time
from pathlib import Path
import covalent as ct
import optuna
from covalent_cirro import CirroBatchExecutor, search, trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
folder, trials = Path(sys.argv[1]), int(sys.argv[2])

@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=1))
def train(x, kind, data, folder):
    import os, time
    from pathlib import Path
    from covalent_cirro import checkpoint, trial
    assert data == {"offset": 1}
    with open(Path(folder) / "computed", "a") as file:
        file.write(f"{x!r}\\n")
    value = -(x - 3) ** 2 + data["offset"] - (kind == "bad")
    if kind == "broken":
        raise ValueError("no such kind")
    if kind == "bad":
        trial.report(0, -100.0)
        while not checkpoint.host_is_going():
            time.sleep(0.05)
        (Path(folder) / "was told to go").touch()
        time.sleep(60)
    while (Path(folder) / "hold").exists():
        time.sleep(0.05)
    trial.report(0, value / 2)
    trial.report(1, value)
    return value

study = optuna.create_study(
    direction="maximize",
    study_name="parabola",
    storage=f"sqlite:///{folder}/study.db",
    load_if_exists=True,
    sampler=optuna.samplers.RandomSampler(seed=3),
    pruner=optuna.pruners.ThresholdPruner(lower=-50),
)
kinds = sys.argv[3].split(",")
search.optimize(
    study,
    train,
    space={
        "x": optuna.distributions.FloatDistribution(0, 6),
        "kind": optuna.distributions.CategoricalDistribution(kinds),
    },
    fixed={"data": {"offset": 1}, "folder": str(folder)},
    trials=trials,
    at_once=3,
    pictures=folder / "pictures",
)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A search as a user writes it."""
    path = tmp_path / "search.py"
    path.write_text(SCRIPT)
    return path


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="parabola", storage=f"sqlite:///{folder}/study.db")


def until(condition: Callable[[], Any], timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.1)
    return found


def test_a_search_from_begin_to_end(stack: Any, script: Path, tmp_path: Path) -> None:
    """Completed, failed and pruned trials, each a dispatch with a name; the best is told, and pictures are drawn."""
    study_of_choices = optuna.create_study(
        study_name="parabola", storage=f"sqlite:///{tmp_path}/study.db", direction="maximize"
    )
    for x, kind in ((3.0, "good"), (2.0, "broken"), (1.0, "bad"), (5.0, "good")):
        study_of_choices.enqueue_trial({"x": x, "kind": kind})
    done = stack.script(script, tmp_path, "4", "good,broken,bad")
    assert done.returncode == 0, done.stderr
    found = study_of(tmp_path).trials
    assert [each.state for each in found] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.PRUNED,
        TrialState.COMPLETE,
    ]
    assert found[0].value == 1.0
    assert found[0].intermediate_values == {0: 0.5, 1: 1.0}
    assert found[2].value == -100.0
    assert (tmp_path / "was told to go").exists()
    assert "ValueError: no such kind" in found[1].user_attrs["cirro:why"]
    assert all(each.user_attrs["cirro:cost"] > 0 for each in found)
    assert "best  1 with x=3.0, kind='good'" in done.stderr
    assert "trial 1 failed (x 2, kind broken): " in done.stderr
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "history.png",
        "learning_curves.png",
        "regret.png",
    ]
    jobs = json.loads(stack.cirro("jobs", "--all", "--json"))["jobs"]
    assert {row["lattice"] for row in jobs if row["lattice"].startswith("parabola.")} == {
        f"parabola.{number:05d}" for number in range(4)
    }
    shown = stack.cirro("search", "parabola", "--storage", f"sqlite:///{tmp_path}/study.db")
    assert "2 complete, 1 pruned, 1 failed; best 1 (trial 0)" in shown


def test_a_search_that_was_killed_goes_on(stack: Any, script: Path, tmp_path: Path) -> None:
    """The next process takes the trials that run; nothing is computed twice."""
    hold = tmp_path / "hold"
    hold.touch()
    command = [sys.executable, str(script), str(tmp_path), "5", "good"]
    process = subprocess.Popen(command, env=stack.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        computed = tmp_path / "computed"
        until(lambda: computed.exists() and len(computed.read_text().splitlines()) == 3)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    hold.unlink()
    done = stack.script(script, tmp_path, "5", "good")
    assert done.returncode == 0, done.stderr
    found = study_of(tmp_path).trials
    assert [each.state for each in found] == [TrialState.COMPLETE] * 5
    assert len(computed.read_text().splitlines()) == 5


def heed_ctrl_c() -> None:
    """Undo what a process inherits that a shell has put into the background: it ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_asks_what_becomes_of_the_trials(stack: Any, script: Path, tmp_path: Path) -> None:
    """On a terminal. Those that are stopped are told as failed, and their jobs end."""
    (tmp_path / "hold").touch()
    command = [sys.executable, str(script), str(tmp_path), "5", "good"]
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        env=stack.environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=heed_ctrl_c,
    )
    os.close(terminal)
    shown = bytearray()

    def reads() -> bytearray:
        while select.select([master], [], [], 0)[0]:
            shown.extend(os.read(master, 65536))
        return shown

    try:
        computed = tmp_path / "computed"
        until(lambda: reads() is shown and computed.exists() and len(computed.read_text().splitlines()) == 3)
        process.send_signal(signal.SIGINT)
        until(lambda: b"What becomes of the trials in flight?" in reads())
        os.write(master, b"stop\n")
        with contextlib.suppress(OSError):  # what Linux says where the other side of a terminal is closed
            until(lambda: reads() is shown and process.poll() is not None)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    found = study_of(tmp_path).trials
    assert [each.state for each in found] == [TrialState.FAIL] * 3
    assert ["cancelled" in each.user_attrs["cirro:why"] for each in found] == [True] * 3, found
    jobs = json.loads(stack.cirro("jobs", "--all", "--json"))["jobs"]
    of_search = {each.user_attrs["cirro:dispatch"] for each in found}
    assert {job["state"] for job in jobs if job["dispatch_id"] in of_search} <= {"FAILED", "CANCELLED"}


def test_a_search_is_watched_from_another_terminal(stack: Any, script: Path, tmp_path: Path) -> None:
    """Its table is brought up to date until Ctrl-C; then pictures are drawn, if they were asked for."""
    done = stack.script(script, tmp_path, "2", "good")
    assert done.returncode == 0, done.stderr
    storage = f"sqlite:///{tmp_path}/study.db"
    drawn = tmp_path / "drawn"
    command = ["search", "parabola", "--storage", storage, "--watch", "--pictures", str(drawn)]
    watching = subprocess.Popen(
        [sys.executable, "-c", "from covalent_cirro.cli import main; main()", *command],
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=heed_ctrl_c,
    )
    assert watching.stdout is not None
    try:
        seen = watching.stdout.readline()
        while b"2 complete" not in seen:
            line = watching.stdout.readline()
            assert line, seen
            seen += line
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=120)
    finally:
        watching.kill()
    assert watching.returncode == 0
    assert (drawn / "history.png").exists()


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_the_example_finds_a_good_model(stack: Any, tmp_path: Path) -> None:
    """As `make search` runs it, with fewer trials: better than chance, most ended early, and a model and pictures."""
    done = stack.script(EXAMPLE, "--output", tmp_path, "--trials", "6", "--at-once", "4", timeout_s=400)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{tmp_path}/study.db")
    assert [each.state.is_finished() for each in study.trials] == [True] * 6
    assert study.best_value > 0.8
    assert any(each.state == TrialState.PRUNED for each in study.trials)
    assert all(each.intermediate_values for each in study.trials)
    assert (tmp_path / "model.pt").stat().st_size > 10_000
    assert (tmp_path / "learning_curves.png").exists()
    assert "% on the validation digits" in done.stdout

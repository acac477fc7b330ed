"""What an electron reports while it runs (`covalent_cirro.trial`), seen through the real runner."""

from __future__ import annotations

import os
import sys
from typing import Any

import cloudpickle

from covalent_cirro.contract import reports
from covalent_cirro.contract.protocol import ExitCode
from covalent_cirro.contract.reports import Point
from tests.runner.conftest import until

cloudpickle.register_pickle_by_value(sys.modules[__name__])

QUICK = {"CIRRO_RUNNER_SECONDS": "report_interval=0.05"}


def reported(runs: Any) -> list[tuple[str, int, list[Point]]]:
    """What a listing tells, by lattice and node."""
    keys = [runs.prefix + path for path in runs.stored()]
    return [(curve.lattice, curve.node_id, list(curve.points)) for curve in reports.curves(keys, runs.prefix)]


def test_a_short_electrons_values_are_there_when_it_has_ended(runs: Any) -> None:
    """All of them in one object; they cost one request more, and no other electron pays for it."""

    def train() -> str:
        from covalent_cirro import trial

        for epoch in range(3):
            trial.report(epoch, epoch / 4)
        return "trained"

    ran = runs(runs.task(train, node_id=5), lattice="my sweep")
    assert runs.value(ran) == "trained"
    assert reported(runs) == [("my_sweep", 5, [Point(0, 0.0), Point(1, 0.25), Point(2, 0.5)])]
    assert len(runs.proxy.of("PUT")) == 2


def test_values_are_seen_while_it_runs(runs: Any) -> None:
    """The electron goes on only when somebody has seen its first value."""
    gate = runs.tmp_path / "gate"

    def train(gate: str) -> int:
        import os
        import time

        from covalent_cirro import trial

        trial.report(0, 0.5)
        while not os.path.exists(gate):
            time.sleep(0.01)
        trial.report(1, 0.75)
        return os.getpid()

    runs.make_call(runs.task(train, str(gate)), lattice="sweep")
    process = runs.start(QUICK)
    assert until(lambda: reported(runs)) == [("sweep", 0, [Point(0, 0.5)])]
    gate.touch()
    ran = runs.finish(process)
    assert ran.code == ExitCode.OK, ran.stderr
    assert reported(runs) == [("sweep", 0, [Point(0, 0.5), Point(1, 0.75)])]


def test_what_it_reported_before_it_failed_is_there(runs: Any) -> None:
    """Also by another process of the electron, and where the electron's own process was killed."""

    def train() -> None:
        import os
        import signal
        import subprocess
        import sys

        from covalent_cirro import trial

        trial.report(0, 0.5)
        code = "from covalent_cirro import trial; trial.report(1, 0.25)"
        subprocess.run([sys.executable, "-c", code], check=True)
        os.kill(os.getpid(), signal.SIGKILL)

    ran = runs(runs.task(train), env={"PYTHONPATH": os.pathsep.join([runs.env["PYTHONPATH"], *sys.path])})
    assert ran.failure.message
    assert reported(runs) == [("-", 0, [Point(0, 0.5), Point(1, 0.25)])]


def test_a_further_attempt_goes_on_with_the_curve(runs: Any) -> None:
    """Its values stand where both have a step."""

    def train(first: int, value: float) -> None:
        from covalent_cirro import trial

        for epoch in range(first, first + 2):
            trial.report(epoch, value)

    runs(runs.task(train, 0, 1.0))
    runs.s3.delete_object(Bucket="runner-tests", Key=runs.location.outcome_key)
    runs(runs.task(train, 1, 2.0), env={"AWS_BATCH_JOB_ATTEMPT": "2"})
    assert [point.value for point in reported(runs)[0][2]] == [1.0, 2.0, 2.0]


def test_an_s3_that_refuses_them_costs_the_electron_nothing(runs: Any) -> None:
    """The log says it once; the result is there."""

    def train() -> str:
        import time

        from covalent_cirro import trial

        for epoch in range(4):
            trial.report(epoch, 1.0)
            time.sleep(0.6)
        return "trained"

    denied = 403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>"
    runs.proxy.intercept = lambda request: denied if "/reports/" in request.path else None
    ran = runs(runs.task(train), env=QUICK)
    assert runs.value(ran) == "trained"
    assert ran.stderr.count("values that the electron reported are lost") == 1
    assert "AccessDenied" in ran.stderr


def test_many_values_are_few_objects(runs: Any) -> None:
    """Ten thousand in a moment: some are left out, the last one is not."""

    def train() -> float:
        import time

        from covalent_cirro import trial

        began = time.perf_counter()
        for step in range(10_000):
            trial.report(step, step / 2)
        return time.perf_counter() - began

    ran = runs(runs.task(train))
    assert runs.value(ran) < 10
    ((_, _, points),) = reported(runs)
    assert points[-1] == Point(9999, 4999.5)
    assert 20 < len(points) < 100
    assert len(runs.proxy.of("PUT")) <= 3

"""What the real runner does when EC2 gives notice that it takes the host: it stays until the host goes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import ExitCode
from tests.metadata_service import MetadataService

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def notice() -> Iterator[MetadataService]:
    """A metadata service with the notice that EC2 takes the host in an hour."""
    service = MetadataService()
    service.goes_at = time.time() + 3600
    yield service
    service.close()


def environ(service: MetadataService) -> dict[str, str]:
    """What the runner is told of the metadata service."""
    return {**service.environ, "AWS_EC2_METADATA_DISABLED": "false"}


def leave() -> None:
    """An electron that ends when it is told that its host goes."""
    import sys
    import time

    from covalent_cirro import checkpoint

    (checkpoint.folder() / "place").write_text("here")
    while not checkpoint.host_is_going():
        time.sleep(0.02)
    sys.exit("the host is going")


def test_the_runner_stays_on_a_host_that_goes_until_sigterm(
    runs: Any, eventually: Any, notice: MetadataService
) -> None:
    """Outcome and checkpoint are stored at once; the exit, after which AWS Batch starts another attempt, is not."""
    runs.make_call(runs.task(leave))
    process = runs.start(environ(notice))
    eventually(lambda: any(key.endswith("outcome.json") for key in runs.stored()))
    assert any("/checkpoint/0/index.json" in key for key in runs.stored())
    said = b""
    while b"waiting for the host to go" not in said:
        line = process.stderr.readline()
        assert line, "the runner ended"
        said += line
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    ran = runs.finish(process)
    assert ran.code == ExitCode.HOST_GOING
    assert ran.failure.kind == Kind.TERMINATED


def test_the_runner_does_not_wait_for_ever_for_a_host_that_was_not_taken(runs: Any, notice: MetadataService) -> None:
    """Its time is long past: the attempt ends, and AWS Batch starts the next one."""
    notice.goes_at = time.time() - 100
    ran = runs(runs.task(leave), env=environ(notice))
    assert ran.code == ExitCode.HOST_GOING


def test_an_electron_that_is_done_before_its_host_goes_ends_at_once(runs: Any, notice: MetadataService) -> None:
    """Nothing is to be done again: there is nothing to wait for."""

    def finish() -> str:
        import time

        from covalent_cirro import checkpoint

        while not checkpoint.host_is_going():
            time.sleep(0.02)
        return "done"

    ran = runs(runs.task(finish), env=environ(notice))
    assert (ran.code, runs.value(ran)) == (ExitCode.OK, "done")


def test_an_electron_that_fails_before_its_host_goes_ends_at_once(runs: Any, notice: MetadataService) -> None:
    """AWS Batch does not run it again."""

    def fail() -> None:
        import time

        from covalent_cirro import checkpoint

        while not checkpoint.host_is_going():
            time.sleep(0.02)
        raise ValueError("wrong")

    ran = runs(runs.task(fail), env=environ(notice))
    assert (ran.code, ran.failure.kind) == (ExitCode.RAISED, Kind.RAISED)


def test_sigterm_to_an_electron_whose_host_goes_ends_the_runner(
    runs: Any, eventually: Any, notice: MetadataService, tmp_path: Any
) -> None:
    """The host has begun to shut down: nothing is left to wait for."""
    there = tmp_path / "there"

    def stay() -> None:
        import time

        from covalent_cirro import checkpoint

        checkpoint.folder()
        while not checkpoint.host_is_going():
            time.sleep(0.02)
        there.touch()
        time.sleep(600)

    runs.make_call(runs.task(stay))
    process = runs.start({**environ(notice), "CIRRO_RUNNER_SECONDS": "grace=0.2"})
    eventually(there.exists)
    os.kill(process.pid, signal.SIGTERM)
    ran = runs.finish(process)
    assert ran.code == ExitCode.HOST_GOING
    assert "waiting for the host" not in ran.stderr

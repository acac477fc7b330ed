"""``cirro report`` on an emulated account: a dispatch that really ran, one of its instances lost on the way."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro import CirroBatchExecutor, deployment
from covalent_cirro.local.emulator import Emulator, Timing
from tests.access import variables

cloudpickle.register_pickle_by_value(sys.modules[__name__])

VCPU, MEMORY_GB = 1, 2.0


class Account(NamedTuple):
    """An account and a dispatch in it: node 1 loses its instance once, node 2 fails, the others return."""

    emulator: Emulator
    dispatch_id: str


def square(number: int, wait_s: float = 0.0) -> int:
    """An electron that takes a little."""
    time.sleep(wait_s)
    return number * number


def refuse() -> None:
    """An electron that fails."""
    raise ValueError("not today")


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """The account and its dispatch, which this process's environment and config name."""
    folder = tmp_path_factory.mktemp("report")
    with (
        pytest.MonkeyPatch.context() as patch,
        Emulator(state_dir=folder / "state", timing=Timing(boot_s=0.0)) as emulator,
    ):
        patch.setenv("COVALENT_CONFIG_DIR", str(folder / "covalent"))
        patch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
        for name, value in variables(emulator.key).items():
            patch.setenv(name, value)
        settings = deployment.deploy(emulator.client("cloudformation"), "cirro").settings
        patch.setattr("covalent_cirro.covalent_server.config.executor_section", lambda: settings)
        emulator.faults.add("lose_host", job="flaky", count=1, seconds=0.5)

        def executor() -> CirroBatchExecutor:
            return CirroBatchExecutor(
                **settings,
                endpoint_url=emulator.endpoint_url,
                container_image_uri="cirro-runner",
                vcpu=VCPU,
                memory=MEMORY_GB,
                retry_attempts=3,
                cache_dir=str(folder / "cache"),
                poll_freq=1,
            )

        dispatch_id = str(uuid.uuid4())

        def flaky(number: int) -> int:
            time.sleep(1.5)
            return number

        async def run() -> list[Any]:
            return await asyncio.gather(
                executor().run(square, [7], {}, {"dispatch_id": dispatch_id, "node_id": 0}),
                executor().run(flaky, [3], {}, {"dispatch_id": dispatch_id, "node_id": 1}),
                executor().run(refuse, [], {}, {"dispatch_id": dispatch_id, "node_id": 2}),
                return_exceptions=True,
            )

        results = asyncio.run(run())
        assert results[:2] == [49, 3], results
        yield Account(emulator, dispatch_id)


def read(cirro: Callable[..., Result], *arguments: str) -> dict[str, Any]:
    """``cirro report --json``."""
    result = cirro("report", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_page_has_all_of_it_and_needs_nothing_else(
    account: Account, cirro: Callable[..., Result], tmp_path: Path
) -> None:
    """A file with every electron and no reference to anything outside; the terminal says the sum and where it is."""
    path = tmp_path / "report.html"
    result = cirro("report", account.dispatch_id[:8], "--output", path)
    assert result.exit_code == 0, result.output
    html = path.read_text("utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in result.output.replace("\n", "")
    assert "cost" in result.output
    assert re.search(r"^flaky +1 +2 .*\$.* [12] [\w.]+ spot", result.output, re.MULTILINE)
    for name in ("square", "flaky", "refuse", account.dispatch_id, "Attempts lost with their instance"):
        assert name in html
    assert not re.search(r"(src|href)\s*=|<script|@import|url\(|http://|https://", html)


def test_an_attempt_that_was_lost_is_told_and_costs(account: Account, cirro: Callable[..., Result]) -> None:
    """The instance went away once: two attempts, both paid for, on Spot, with a price of their day."""
    document = read(cirro, account.dispatch_id)
    (flaky,) = [each for each in document["electrons"] if each["node_id"] == 1]
    lost, last = flaky["attempts"]
    assert (lost["lost"], last["lost"]) == (True, False)
    assert lost["reason"].startswith("Host EC2")
    assert lost["usd"] > 0
    assert document["cost"]["lost"] == 1
    assert document["cost"]["lost_usd"] == pytest.approx(lost["usd"])
    for attempt in (lost, last):
        assert attempt["instance"]["market"] == "spot"
        assert attempt["price"]["source"].startswith("EC2 Spot price history")
        assert attempt["price"]["date"] == time.strftime("%Y-%m-%d", time.gmtime(attempt["began_at"]))
    assert (lost["instance"]["assumed"], last["instance"]["assumed"]) == (True, False)
    kinds = [piece["kind"] for piece in flaky["timeline"]]
    assert kinds.index("lost") < kinds.index("run")


def test_times_use_and_cost_are_those_of_the_run(account: Account, cirro: Callable[..., Result]) -> None:
    """What was asked for, what was used, how long it ran; a memory that was far too much is told to be smaller."""
    document = read(cirro, account.dispatch_id)
    (flaky,) = [each for each in document["electrons"] if each["node_id"] == 1]
    assert flaky["arguments"] == {"number": "3"}
    assert flaky["asked"] == {"vcpus": VCPU, "memory_mib": 2048, "gpus": 0}
    ran = sum(each["ended_at"] - each["began_at"] for each in flaky["timeline"] if each["kind"] == "run")
    assert 1.5 <= ran < 10
    (size,) = [each for each in document["sizes"] if each["name"] == "flaky"]
    assert 0 < size["used_memory_mib"] < size["next"]["memory_mib"] < 2048
    assert document["failed"] == 1
    total = sum(attempt["usd"] for each in document["electrons"] for attempt in each["attempts"])
    assert document["cost"]["usd"] == pytest.approx(total)


def test_without_prices_from_aws_the_shipped_table_stands_in(account: Account, cirro: Callable[..., Result]) -> None:
    """Nothing fails; the report says so, with AWS's words and the table's date."""
    account.emulator.faults.add("throttle", service="pricing")
    account.emulator.faults.add("error", service="ec2", operation="DescribeSpotPriceHistory")
    try:
        document = read(cirro, account.dispatch_id)
    finally:
        account.emulator.faults.clear()
    sources = {attempt["price"]["source"] for each in document["electrons"] for attempt in each["attempts"]}
    assert sources == {"table of this package, the on-demand price as the most that Spot can cost"}
    assert document["cost"]["exact"] is False
    assert any("DescribeSpotPriceHistory" in note for note in document["notes"])


def test_a_dispatch_that_batch_has_forgotten_is_told_from_its_outcomes(
    account: Account, cirro: Callable[..., Result]
) -> None:
    """Times and use are still there; what was asked for is not, and nothing is made up for it."""
    batch = account.emulator.batch()
    with batch.lock:
        kept = dict(batch.scheduler.jobs)
        batch.scheduler.jobs.clear()
    try:
        document = read(cirro, account.dispatch_id)
    finally:
        batch.scheduler.jobs.update(kept)
    assert {each["name"] for each in document["electrons"]} >= {"square", "flaky"}
    assert all(each["asked"] is None for each in document["electrons"])
    assert document["cost"]["unknown"] == document["cost"]["attempts"]
    assert any("at least 7 days" in note for note in document["notes"])
    assert any(piece["kind"] == "run" for each in document["electrons"] for piece in each["timeline"])


def test_credentials_that_may_not_see_jobs_get_what_s3_has(account: Account, cirro: Callable[..., Result]) -> None:
    """Names, times and use of all electrons, and AWS's refusal as a note."""
    account.emulator.faults.add("error", service="batch", operation="ListJobs", status=403)
    try:
        document = read(cirro, account.dispatch_id)
    finally:
        account.emulator.faults.clear()
    assert sorted(each["name"] for each in document["electrons"]) == ["flaky", "refuse", "square"]
    assert all(each["usage"]["wall_s"] > 0 for each in document["electrons"])
    (note,) = document["notes"]
    assert note.startswith("Jobs could not be seen, outcomes alone tell of them: ")


def test_an_unknown_dispatch_and_a_file_that_cannot_be_written(
    account: Account, cirro: Callable[..., Result], tmp_path: Path
) -> None:
    """Exit code 1 and a reason; 2 for an electron where a dispatch is meant."""
    unknown = cirro("report", "ffffffff-none")
    assert unknown.exit_code == 1
    assert "ffffffff-none" in unknown.output
    written = cirro("report", account.dispatch_id, "--output", tmp_path / "none" / "report.html")
    assert written.exit_code == 1
    assert "No such file" in written.output
    assert cirro("report", f"{account.dispatch_id}:1").exit_code == 2


def test_an_estimate_names_the_least_and_the_most(account: Account, cirro: Callable[..., Result]) -> None:
    """Of the instance types that the queue would start, at the Spot prices of now; nothing is submitted."""
    result = cirro("estimate", "--minutes", 90, "--electrons", 24, "--vcpu", 2, "--memory", 4, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    found = document["estimate"]
    assert document["asked"] == {"vcpus": 2, "memory_mib": 4096, "gpus": 0}
    assert 0 < found["least_usd"] < found["most_usd"]
    assert (found["least"]["market"], found["electrons"], found["run_s"]) == ("spot", 24, 5400.0)
    shown = cirro("estimate", "--minutes", 90, "--electrons", 24, "--vcpu", 2, "--memory", 4)
    assert "24 of 1 h 30 min, each 2 vCPU, 4096 MiB" in shown.output
    assert found["least"]["instance_type"] in shown.output
    (gpu,) = [json.loads(cirro("estimate", "--minutes", 1, "--num-gpus", 1, "--json").stdout)["estimate"]]
    assert gpu["least"]["instance_type"].startswith("g")


def test_an_estimate_of_what_fits_nowhere_fails(account: Account, cirro: Callable[..., Result]) -> None:
    """Exit code 1, with what was asked for."""
    result = cirro("estimate", "--minutes", 5, "--vcpu", 1000)
    assert result.exit_code == 1
    assert "1000 vCPU" in result.output
    fargate = cirro("estimate", "--minutes", 5, "--platform", "FARGATE")
    assert fargate.exit_code == 1
    assert "FargateMaxVcpus" in fargate.output

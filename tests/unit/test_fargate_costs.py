"""What jobs on Fargate cost: by the vCPU and the GB, for a minute at least."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.aws import fargate_prices, serving_prices
from covalent_cirro.aws.prices import ON_DEMAND, SPOT
from covalent_cirro.history.records import parse_record
from covalent_cirro.history.report import costs
from covalent_cirro.history.report.runs import NO_CAPACITY, BilledAttempt, Machine, QueueMachines, Run, run_of_job
from covalent_cirro.jobs.fargate_machines import FargateMachine, parse
from covalent_cirro.jobs.machines import Need
from covalent_cirro.settings import resolve
from covalent_cirro.settings.fargate_sizes import MEMORY_MIB, Size

SMALL = FargateMachine(Size(0.25, 512), "x86_64")
ARM = FargateMachine(Size(4, 17 * 1024), "arm64")


@pytest.mark.parametrize(("machine", "name"), [(SMALL, "Fargate 0.25 vCPU 0.5 GB"), (ARM, "Fargate ARM 4 vCPU 17 GB")])
def test_a_machine_has_a_name_for_people_and_programs(machine: FargateMachine, name: str) -> None:
    """Which says its size and architecture."""
    assert machine.name == name
    assert parse(name) == machine


@given(st.sampled_from([(vcpus, mib) for vcpus, each in MEMORY_MIB.items() for mib in each]), st.booleans())
def test_each_machines_name_is_read_back(size: tuple[float, int], arm: bool) -> None:
    """All sizes that Fargate has."""
    machine = FargateMachine(Size(*size), "arm64" if arm else "x86_64")
    assert parse(machine.name) == machine
    assert parse("m6i.large") is None


def test_the_price_of_an_hour() -> None:
    """That of the table for services, which pay the same; of Spot the least, and not exact."""
    table = serving_prices.shipped()
    found = fargate_prices.price(ARM, table.region, ON_DEMAND)
    assert found.usd_per_hour == pytest.approx(4 * 0.03238 + 17 * 0.00356)
    assert (found.market, found.date, found.exact) == (ON_DEMAND, table.date, True)
    spot = fargate_prices.price(ARM, table.region, SPOT)
    assert spot.usd_per_hour == pytest.approx(0.3 * found.usd_per_hour)
    assert (spot.market, spot.exact) == (SPOT, False)
    assert "70%" in spot.source
    assert not fargate_prices.price(ARM, "eu-west-1", ON_DEMAND).exact
    assert not fargate_prices.price(ARM, table.region, "").exact


@pytest.mark.parametrize(("seconds", "billed"), [(10.0, 60.0), (90.0, 90.0)])
def test_a_job_pays_for_its_whole_machine_and_for_a_minute_at_least(seconds: float, billed: float) -> None:
    """There is nobody to share it with."""
    attempt = BilledAttempt(1, 100.0, 100.0 + seconds, False, "", Machine(ARM.name, "us-east-1a", ON_DEMAND))
    run = Run(1, "f", "j", "c", "SUCCEEDED", "q", Need(4, 17 * 1024, 0), None, None, (attempt,), None, {})
    price = fargate_prices.price(ARM, "us-east-1", ON_DEMAND)
    [line] = costs.lines([run], {}, lambda machine, began_at, ended_at: price, now=1000.0)
    assert (line.share, line.seconds, line.exact) == (1.0, seconds, True)
    assert line.usd == pytest.approx(price.usd_per_hour * billed / 3600)


def test_an_estimate_is_between_spot_and_on_demand() -> None:
    """The cheapest and the most expensive compute environment of the queue."""
    prices = [fargate_prices.price(SMALL, "us-east-1", market) for market in (SPOT, ON_DEMAND)]
    found = costs.estimate_on_fargate(SMALL, 5.0, prices, electrons=60)
    assert found is not None
    assert (found.least.price.market, found.most.price.market) == (SPOT, ON_DEMAND)
    assert found.most_usd == pytest.approx(0.25 * 0.04048 + 0.5 * 0.004445)
    assert found.least.kind.name == SMALL.name
    assert costs.estimate_on_fargate(SMALL, 5.0, []) is None


def described(**container: object) -> dict[str, object]:
    """What DescribeJobs says of an electron's job on Fargate that has ended."""
    needs = [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "17408"}]
    task = "arn:aws:ecs:us-east-1:1:task/AWSBatch-Fargate-1/abc"
    return {
        "jobId": "j",
        "jobName": "n",
        "status": "SUCCEEDED",
        "jobQueue": "arn:aws:batch:us-east-1:1:job-queue/cirro-fargate",
        "platformCapabilities": ["FARGATE"],
        "tags": {"covalent:node": "1", "covalent:dispatch": "d"},
        "parameters": {"raised": "2 vCPU and 17 GB -> 4 vCPU and 17 GB, the next size that Fargate has"},
        "container": {
            "resourceRequirements": needs,
            "runtimePlatform": {"cpuArchitecture": "ARM64"},
            "taskArn": task,
            **container,
        },
        "attempts": [
            {
                "container": {"taskArn": task, "exitCode": 137},
                "startedAt": 1000,
                "stoppedAt": 2000,
                "statusReason": "Your Spot Task was interrupted.",
            },
            {"container": {"taskArn": task, "exitCode": 0}, "startedAt": 3000, "stoppedAt": 4000},
        ],
    }


def test_a_job_on_fargate_is_told_by_what_aws_batch_says() -> None:
    """Its machine is known without an instance, its market by the cluster of its task."""
    record = parse_record(described())
    assert record is not None
    assert (record.detail.platform, record.detail.architecture, record.host) == ("FARGATE", "arm64", "")
    assert record.detail.raised.startswith("2 vCPU and 17 GB -> 4 vCPU")
    capacity = QueueMachines({"AWSBatch-Fargate-1": SPOT}, "", ())
    lost, last = run_of_job(record, None, None, capacity).attempts
    assert lost.machine == last.machine == Machine(ARM.name, "", SPOT)
    assert (lost.lost, last.lost) == (True, False)
    assert run_of_job(record, None, None, NO_CAPACITY).attempts[0].machine.market == ""


def test_an_estimate_says_what_it_leaves_out() -> None:
    """No idle instances on Fargate, and no unused part of one where a node has the whole."""
    common = {"s3_bucket_name": "bucket", "batch_queue": "queue", "batch_execution_role_name": "role"}
    alone, fargate, several = (
        costs.not_in_estimate(resolve({**common, **options}, {}))
        for options in ({}, {"platform": "FARGATE"}, {"num_nodes": 2})
    )
    assert alone == costs.NOT_IN_IT
    assert [each for each in fargate if "instance" in each] == [
        "disks of instances, S3, ECR, CloudWatch Logs and data transfer"
    ]
    assert fargate[0] == "time in which the image is pulled"
    assert set(alone) - set(several) == {"what of an instance no job uses"}

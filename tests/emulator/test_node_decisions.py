"""Multi-node parallel jobs by the scheduler alone: hosts for all nodes at once, and the main node decides."""

from __future__ import annotations

from typing import Any

import pytest

from covalent_cirro.local.emulator.batch import node_properties
from covalent_cirro.local.emulator.batch.actions import Launch, Stop
from covalent_cirro.local.emulator.batch.fleet import MAX_VCPUS_TOO_SMALL, NO_TYPE_FITS
from covalent_cirro.local.emulator.batch.model import Job, Timing
from covalent_cirro.local.emulator.batch.validation import ServiceError
from tests.emulator.simulation import Simulation

CONTAINER = {
    "image": "image",
    "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}],
}


def _states(job: Job) -> list[str]:
    return [node.status for node in job.nodes]


def _properties(*targets: str, nodes: int = 4, main: int = 0, **more: Any) -> dict[str, Any]:
    groups = [{"targetNodes": target, "container": {**CONTAINER, "command": [target]}, **more} for target in targets]
    return {"numNodes": nodes, "mainNode": main, "nodeRangeProperties": groups}


# --- hosts ----------------------------------------------------------------------------------------------------------


def test_a_job_starts_when_all_its_instances_have_booted() -> None:
    """One for each node, asked for at once."""
    simulation = Simulation(Timing(boot_s=60))
    job = simulation.nodes(2, vcpus=1)
    assert (job.status, _states(job), len(simulation.fleet.hosts)) == ("RUNNABLE", ["RUNNABLE"] * 2, 2)
    simulation.go(60)
    assert (job.status, _states(job)) == ("RUNNING", ["RUNNING"] * 2)
    assert len({node.attempt.host.instance_id for node in job.nodes if node.attempt}) == 2


def test_nothing_else_runs_on_a_node() -> None:
    """Nodes are single-tenant, and a node takes only an instance without a job."""
    simulation = Simulation(Timing(boot_s=0), max_vcpus=32, types=("m6i.2xlarge",))
    before = simulation.job(vcpus=1)
    job = simulation.nodes(2, vcpus=1)
    after = [simulation.job(vcpus=1) for _ in range(2)]
    hosts = [each.attempt.host for each in (before, *job.nodes, *after) if each.attempt]
    assert [host is hosts[0] for host in hosts] == [True, False, False, True, True]
    for each in (*job.nodes, *after):
        simulation.end(each, 0)
    assert not any(host.exclusive for host in simulation.fleet.hosts.values())


def test_nodes_take_idle_instances_first() -> None:
    """Those of one type that are there already."""
    simulation = Simulation(Timing(boot_s=0), max_vcpus=8)
    simulation.end(simulation.job(), 0)
    job = simulation.nodes(3)
    assert (job.status, len(simulation.fleet.hosts)) == ("RUNNING", 3)


def test_a_job_waits_until_there_is_room_for_all_nodes() -> None:
    """It does not hold a part of its instances meanwhile, and jobs behind it wait."""
    simulation = Simulation(Timing(boot_s=0, idle_s=60), max_vcpus=4)
    first = simulation.job()
    job, behind = simulation.nodes(2), simulation.job()
    assert (job.status, job.status_reason, behind.status) == ("RUNNABLE", None, "RUNNABLE")
    assert len(simulation.fleet.hosts) == 1
    simulation.end(first, 0)
    assert job.status == "RUNNING"


def test_a_job_starts_when_idle_instances_of_another_size_have_gone() -> None:
    """They count against the maximum until then."""
    simulation = Simulation(Timing(boot_s=0, idle_s=60), max_vcpus=4, types=("m6i.large", "m6i.xlarge"))
    simulation.end(simulation.job(vcpus=4), 0)
    job = simulation.nodes(2)
    assert job.status == "RUNNABLE"
    simulation.go(60)
    assert simulation.scheduler.next_due == simulation.now
    simulation.go()
    assert job.status == "RUNNING"


@pytest.mark.parametrize(
    ("settings", "count", "reason"),
    [
        ({"max_vcpus": 4}, 4, MAX_VCPUS_TOO_SMALL),
        ({"types": ("m6i.large",), "vcpus": 3}, 2, NO_TYPE_FITS),
        ({"kind": "SPOT"}, 2, NO_TYPE_FITS),
        ({"kind": "FARGATE"}, 2, NO_TYPE_FITS),
        ({"quota_vcpus": 2}, 2, None),
    ],
)
def test_a_job_whose_nodes_never_fit_stays_runnable(settings: dict[str, Any], count: int, reason: str | None) -> None:
    """With AWS's reason, where it has one; on Spot and Fargate such jobs do not run at all."""
    vcpus, kind = settings.pop("vcpus", 2), settings.pop("kind", "EC2")
    simulation = Simulation(Timing(boot_s=0), **settings)
    simulation.environment.resources["type"] = kind
    job = simulation.nodes(count, vcpus=vcpus)
    assert (job.status, job.status_reason, simulation.fleet.hosts) == ("RUNNABLE", reason, {})


def test_a_lost_instance_that_boots_for_a_node_frees_the_others() -> None:
    """The job asks for all of them again."""
    simulation = Simulation(Timing(boot_s=60))
    job = simulation.nodes(2)
    lost = next(iter(simulation.fleet.hosts.values()))
    simulation.scheduler.lose(lost, simulation.now)
    simulation.go()
    assert job.status == "RUNNABLE"
    simulation.go(60)
    assert (job.status, _states(job)) == ("RUNNING", ["RUNNING"] * 2)


def test_a_cancelled_job_gives_back_all_instances() -> None:
    """Its nodes end with it."""
    simulation = Simulation(Timing(boot_s=60))
    job = simulation.nodes(2)
    simulation.scheduler.cancel(job, "no", simulation.now)
    assert [(each.status, each.status_reason) for each in (job, *job.nodes)] == [("FAILED", "no")] * 3
    assert not any(host.jobs for host in simulation.fleet.hosts.values())


# --- the main node decides ------------------------------------------------------------------------------------------


def test_the_main_node_starts_first() -> None:
    """The others start once it runs (User Guide, Job lifecycle for MNP jobs)."""
    simulation = Simulation(Timing(boot_s=0))
    simulation.starts = False
    job = simulation.nodes(2, main=1)
    assert (job.status, _states(job)) == ("STARTING", ["RUNNABLE", "STARTING"])
    main = job.main_node
    assert main is job.nodes[1]
    assert main.attempt is not None
    simulation.scheduler.started(main, main.attempt, simulation.now)
    assert [each.job for each in simulation.go() if isinstance(each, Launch)] == [job.nodes[0]]
    assert (job.status, _states(job)) == ("RUNNING", ["STARTING", "RUNNING"])


def test_the_job_ends_with_its_main_node_and_the_others_are_stopped() -> None:
    """They have the states of their own exit codes."""
    simulation = Simulation(Timing(boot_s=0), max_vcpus=6)
    job = simulation.nodes(3)
    simulation.end(job.nodes[1], 0)
    assert job.status == "RUNNING"
    main = job.main_node
    assert main.attempt is not None
    main.attempt.exit_code, main.attempt.status_reason = 0, "done"
    simulation.scheduler.stopped(main, main.attempt, simulation.now)
    assert [each.job for each in simulation.go() if isinstance(each, Stop)] == [job.nodes[2]]
    assert (job.status, job.status_reason, job.attempts) == ("SUCCEEDED", "done", main.attempts)
    simulation.end(job.nodes[2], 143)
    assert (job.status, _states(job)) == ("SUCCEEDED", ["SUCCEEDED", "SUCCEEDED", "FAILED"])


def test_another_node_that_fails_changes_nothing() -> None:
    """Neither the other nodes, nor the job: AWS Batch takes no action."""
    simulation = Simulation(Timing(boot_s=0))
    job = simulation.nodes(2, retry={"attempts": 3})
    simulation.end(job.nodes[1], 1)
    assert (job.status, _states(job)) == ("RUNNING", ["RUNNING", "FAILED"])
    simulation.end(job.main_node, 0)
    assert job.status == "SUCCEEDED"


def test_a_lost_instance_of_another_node_changes_nothing() -> None:
    """Only that node is FAILED."""
    simulation = Simulation(Timing(boot_s=0))
    job = simulation.nodes(2, retry={"attempts": 3})
    assert job.nodes[1].attempt is not None
    simulation.scheduler.lose(job.nodes[1].attempt.host, simulation.now)
    simulation.go()
    assert (job.status, _states(job)) == ("RUNNING", ["RUNNING", "FAILED"])
    assert str(job.nodes[1].status_reason).startswith("Host EC2 (instance i-")


def test_all_nodes_are_run_again_when_the_main_node_was_lost() -> None:
    """Once the nodes that are left have stopped; each has an attempt of its own for each of the job's."""
    simulation = Simulation(Timing(boot_s=0))
    retry = {"attempts": 2, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}]}
    job = simulation.nodes(2, retry=retry)
    assert job.main_node.attempt is not None
    simulation.scheduler.lose(job.main_node.attempt.host, simulation.now)
    assert [each.job for each in simulation.go() if isinstance(each, Stop)] == [job.nodes[1]]
    assert (job.status, _states(job)) == ("RUNNING", ["FAILED", "RUNNING"])
    simulation.end(job.nodes[1], 137)
    assert (job.status, _states(job)) == ("RUNNING", ["RUNNING", "RUNNING"])
    assert [node.attempt.number for node in job.nodes if node.attempt] == [2, 2]
    simulation.end(job.main_node, 0)
    simulation.end(job.nodes[1], 0)
    assert (job.status, _states(job), len(job.attempts)) == ("SUCCEEDED", ["SUCCEEDED"] * 2, 2)


def test_a_main_node_that_does_not_start_leaves_the_others_unstarted() -> None:
    """Their instances are free again."""
    simulation = Simulation(Timing(boot_s=0))
    simulation.starts = False
    job = simulation.nodes(2)
    simulation.end(job.main_node, 1)
    assert (job.status, _states(job), job.nodes[1].attempts) == ("FAILED", ["FAILED"] * 2, [])
    assert not any(host.jobs for host in simulation.fleet.hosts.values())


def test_a_lost_instance_of_a_node_that_has_not_started_ends_that_node() -> None:
    """The job's main node goes on."""
    simulation = Simulation(Timing(boot_s=0))
    simulation.starts = False
    job = simulation.nodes(2)
    assert job.nodes[1].place is not None
    simulation.scheduler.lose(job.nodes[1].place[0], simulation.now)
    assert (job.status, _states(job)) == ("STARTING", ["STARTING", "FAILED"])


def test_a_terminated_job_stops_all_nodes() -> None:
    """And is not run again, also if it was about to be."""
    simulation = Simulation(Timing(boot_s=0))
    first, second = simulation.nodes(2, vcpus=1), simulation.nodes(2, vcpus=1, retry={"attempts": 2})
    simulation.scheduler.terminate(first, "enough", simulation.now)
    assert [each.job for each in simulation.go() if isinstance(each, Stop)] == first.nodes
    for node in reversed(first.nodes):
        simulation.end(node, 143)
    assert (first.status, first.status_reason) == ("FAILED", "enough")
    simulation.end(second.main_node, 1)
    assert second.status == "RUNNING"
    simulation.scheduler.terminate(second, "enough", simulation.now)
    simulation.end(second.nodes[1], 143)
    assert (second.status, second.status_reason, len(second.attempts)) == ("FAILED", "enough", 1)


def test_a_time_limit_is_that_of_the_whole_job() -> None:
    """From the start of the main node; all nodes are stopped."""
    simulation = Simulation(Timing(boot_s=0))
    job = simulation.nodes(2, timeout_s=60)
    simulation.go(59)
    assert [each.job for each in simulation.go(1) if isinstance(each, Stop)] == job.nodes
    for node in job.nodes:
        simulation.end(node, 143)
    assert (job.status, job.status_reason) == ("FAILED", "Job attempt duration exceeded timeout")


def test_a_failed_dependency_fails_a_job_with_its_nodes() -> None:
    """Without a start; a job can wait for one with nodes as for any other."""
    simulation = Simulation(Timing(boot_s=0))
    first = simulation.nodes(2)
    second = simulation.nodes(2, depends_on=[{"jobId": first.id}])
    assert (second.status, _states(second)) == ("PENDING", ["PENDING"] * 2)
    simulation.end(first.main_node, 1)
    assert (second.status, _states(second)) == ("FAILED", ["FAILED"] * 2)
    assert second.nodes[0].status_reason == "Dependent Job failed"


def test_a_job_is_forgotten_with_its_nodes() -> None:
    """After seven days."""
    simulation = Simulation(Timing(boot_s=0))
    job = simulation.nodes(2)
    simulation.end(job.nodes[1], 0)
    simulation.end(job.main_node, 0)
    simulation.go(7 * 24 * 3600)
    assert simulation.scheduler.jobs == {}


# --- nodeProperties -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        (_properties(), "1 to 5 node ranges"),
        (_properties(*(f"{i}" for i in range(6)), nodes=6), "1 to 5 node ranges"),
        (_properties("0:", nodes=0), "between 1 and 1000"),
        (_properties("0:", nodes=1001), "between 1 and 1000"),
        (_properties("0:", main=4), "fewer than numNodes"),
        (_properties("0:2"), "node 3 is in no range"),
        (_properties("1:"), "node 0 is in no range"),
        (_properties("0:4"), "not within 0:3"),
        (_properties("0:", "9:"), "not within 0:3"),
        (_properties("a:b"), "not valid"),
        (_properties("0:", instanceTypes=["m6i", "m5"]), "limited to one element"),
        (_properties("0:", container={}), "no container"),
        (_properties("0:", container={**CONTAINER, "image": ""}), "image"),
        (_properties("0:", container={"image": "image"}), "must specify VCPU"),
        (_properties("0:", ecsProperties={"taskProperties": []} | {"x": 1}), "not emulated"),
    ],
)
def test_node_properties_are_refused(properties: dict[str, Any], text: str) -> None:
    """Each rule of RegisterJobDefinition for a multi-node parallel job."""
    with pytest.raises(ServiceError, match=text):
        node_properties.check(properties)


def test_all_ranges_have_one_instance_type() -> None:
    """User Guide, Node groups."""
    properties = _properties("0:", "3")
    properties["nodeRangeProperties"][0]["instanceTypes"] = ["m6i.large"]
    with pytest.raises(ServiceError, match="the same instance type"):
        node_properties.check(properties)


@pytest.mark.parametrize("targets", [("0:",), (":",), (":3",), ("0:3",), ("0", "1:"), ("0:1", "2:3")])
def test_ranges_may_be_open(targets: tuple[str, ...]) -> None:
    """An end that is left out is the first, or the last node."""
    node_properties.check(_properties(*targets))


def test_a_nested_range_overrides_the_one_around_it() -> None:
    """In whatever order they are given."""
    for targets in (("0:", "1:2"), ("1:2", "0:")):
        groups = node_properties.groups(_properties(*targets))
        assert [each["container"]["command"] for each in groups] == [["0:"], ["1:2"], ["1:2"], ["0:"]]


def test_overrides_change_the_number_of_nodes_and_a_range() -> None:
    """A range is named as in the definition."""
    made = node_properties.with_overrides(
        _properties("0", "1:"),
        {"numNodes": 3, "nodePropertyOverrides": [{"targetNodes": "1:", "containerOverrides": {"command": ["new"]}}]},
        lambda container, overrides: {**container, **overrides},
    )
    assert made["numNodes"] == 3
    assert [each["container"]["command"] for each in node_properties.groups(made)] == [["0"], ["new"], ["new"]]


@pytest.mark.parametrize(
    ("targets", "overrides", "text"),
    [
        (("0:3",), {"numNodes": 3}, "without a range_end"),
        (("0:",), {"numNodes": 0}, "between 1 and 1000"),
        (("0", "1:"), {"numNodes": 1}, "not within 0:0"),
        (("0:",), {"nodePropertyOverrides": [{"targetNodes": "0"}]}, "Non matching targets - 0$"),
    ],
)
def test_overrides_that_do_not_go_with_the_definition_are_refused(
    targets: tuple[str, ...], overrides: dict[str, Any], text: str
) -> None:
    """Each rule of SubmitJob's nodeOverrides."""
    with pytest.raises(ServiceError, match=text):
        node_properties.with_overrides(_properties(*targets), overrides, lambda container, changes: container)

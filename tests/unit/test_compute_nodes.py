"""Multi-node jobs: their definitions, what DescribeJobs says of them, and what cannot be distributed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from covalent_cirro.contract import documents
from covalent_cirro.contract.protocol import Call, ComputeNode, Outcome, Usage
from covalent_cirro.electron import distributed, host_jobs
from covalent_cirro.electron.engine.job_definition import build_definition
from covalent_cirro.electron.progress import explain_wait
from covalent_cirro.electron.reuse.work import work_of
from covalent_cirro.errors import SettingsError
from covalent_cirro.history import electron_nodes
from covalent_cirro.history.report import offers
from covalent_cirro.jobs import compute_nodes, panel, queues, states
from covalent_cirro.jobs.states import JobDetail
from covalent_cirro.settings import Settings, resolve

ROLES = {"region": "eu-central-1", "job_role_arn": "arn:job", "execution_role_arn": ""}
NODES = {"numNodes": 4, "mainNode": 0}


def settings(**options: Any) -> Settings:
    """Settings with a few options."""
    return resolve({"s3_bucket_name": "bucket", "batch_queue": "queue", **options}, {})


def node(number: int, state: str, **container: Any) -> JobDetail:
    """A node as DescribeJobs shows it."""
    details = {"nodeIndex": number, "isMainNode": number == 0}
    return states.parse_job({"jobId": f"job#{number}", "status": state, "container": container, "nodeDetails": details})


def job(state: str = "RUNNING") -> JobDetail:
    """A job of four nodes as DescribeJobs shows it: without a container."""
    needs = [{"type": "MEMORY", "value": "2048"}, {"type": "VCPU", "value": "3"}]
    container = {"image": "image", "resourceRequirements": needs}
    ranges = [{"targetNodes": "0:", "container": container}]
    return states.parse_job(
        {"jobId": "job", "status": state, "nodeProperties": {**NODES, "nodeRangeProperties": ranges}}
    )


# --- definitions --------------------------------------------------------------------------------------------------


def test_definition_of_several_nodes_has_no_container_properties() -> None:
    """All nodes have the same container, that of a job with one node; node 0 is the main one."""
    alone = build_definition(settings(memory=2), **ROLES)
    several = build_definition(settings(memory=2, num_nodes=4), **ROLES)

    assert several["type"] == "multinode"
    each = {"targetNodes": "0:", "container": alone["containerProperties"]}
    assert several["nodeProperties"] == {**NODES, "nodeRangeProperties": [each]}
    assert not {"containerProperties", "platformCapabilities"} & several.keys()


def test_one_node_is_an_ordinary_job() -> None:
    """Also with several processes: what differs is in the call alone."""
    ordinary = build_definition(settings(), **ROLES)
    assert build_definition(settings(num_nodes=1, processes_per_node=4), **ROLES) == ordinary


def test_each_node_holds_consumable_resources() -> None:
    """They are a property of the node range (API model, NodeRangeProperty)."""
    made = build_definition(settings(num_nodes=2, consumable_resources={"licence": 1}), **ROLES)

    assert "consumableResourceProperties" not in made
    (each,) = made["nodeProperties"]["nodeRangeProperties"]
    assert each["consumableResourceProperties"]["consumableResourceList"] == [
        {"consumableResource": "licence", "quantity": 1}
    ]


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ({}, 0),
        ({"num_gpus": 4}, 0),
        ({"num_nodes": 1}, 0),
        ({"num_nodes": 2}, 1),
        ({"num_nodes": 2, "num_gpus": 4}, 4),
        ({"num_nodes": 2, "processes_per_node": 3, "num_gpus": 4}, 3),
        ({"processes_per_node": 2}, 2),
        ({"processes_per_node": 1}, 1),
    ],
)
def test_processes_of_a_node(options: dict[str, Any], processes: int) -> None:
    """One for each GPU unless the option says otherwise; an ordinary electron has no rank."""
    assert distributed.processes_of(settings(**options)) == processes


def test_no_on_demand_queue_for_several_nodes() -> None:
    """Their own queue has no Spot, so that there is no further try elsewhere."""
    own = settings(num_nodes=2, batch_multi_node_queue="nodes", batch_on_demand_queue="on-demand")
    assert (own.queue, own.on_demand_queue) == ("nodes", None)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"num_nodes": 2}, "AWS Batch has no array of multi-node jobs"),
        ({"num_nodes": 2, "processes_per_node": 4}, "AWS Batch has no array of multi-node jobs"),
        ({"processes_per_node": 2}, "a map calls its function once for each item"),
    ],
)
def test_maps_and_packed_electrons_are_refused(options: dict[str, Any], why: str) -> None:
    """With the reason, which is AWS's for several machines, and what to do instead."""
    with pytest.raises(SettingsError, match=f"node 3 is mapped, and {next(iter(options))}=2.*: {why}.*array_parallel"):
        distributed.refuse(settings(**options), 3, is_map=True)
    with pytest.raises(SettingsError, match="has 2 electrons"):
        distributed.refuse(settings(**options), 3, electrons=2)
    distributed.refuse(settings(**options), 3)
    distributed.refuse(settings(), 3, electrons=2, is_map=True)


def test_job_of_covalents_own_nodes_has_one_machine() -> None:
    """An index into the result of a distributed electron, say, which has that electron's executor."""
    assert host_jobs.chosen({}, [{"memory": 4, "num_nodes": 2, "processes_per_node": 2}]) == {"memory": 4}


def test_number_of_processes_is_part_of_the_work() -> None:
    """Equal work has equal numbers; an ordinary electron's work is what it was."""
    call = Call("id", "dispatch", "3.11.7", "3", "0.240", ())
    call = call._replace(tasks=documents.parse_call(_call()).tasks)
    keys = {work_of(call._replace(num_nodes=n, processes=p), {}, None).key for n, p in ((1, 0), (1, 2), (2, 1), (2, 2))}
    assert len(keys) == 4


def _call() -> bytes:
    from covalent_cirro.contract.protocol import Task
    from covalent_cirro.contract.references import Inline

    task = Task(0, "train", Inline(b"\x80\x05N."), None, (), {})
    return documents.dump_call(Call("id", "dispatch", "3.11.7", "3", "0.240", (task,)))


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ({"status": "FAILED", "container": {"reason": "CannotPullContainerError: x"}}, "CannotPullContainerError: x"),
        (
            {"status": "FAILED", "statusReason": "Host EC2 (instance i-1) terminated."},
            "Host EC2 (instance i-1) terminated.",
        ),
        (
            {
                "status": "FAILED",
                "attempts": [{"statusReason": "Host EC2 (instance i-1) terminated.", "container": {}}],
            },
            "Host EC2 (instance i-1) terminated.",
        ),
        ({"status": "FAILED", "container": {"exitCode": 1, "reason": "x"}, "statusReason": "Essential container"}, ""),
        ({"status": "RUNNING"}, ""),
        ({"status": "SUCCEEDED", "statusReason": "Essential container in task exited"}, ""),
    ],
)
def test_why_a_node_did_not_start_or_was_lost_is_awss_reason(described: dict[str, Any], reason: str) -> None:
    """A node that ended with an exit code has the error of the electron."""
    assert electron_nodes.reason_of(states.parse_job({"jobId": "job#1", **described})) == reason


# --- what a job waits for -----------------------------------------------------------------------------------------


def test_a_job_waits_for_all_its_nodes() -> None:
    """As the server explains it, and as commands do."""
    told: list[Any] = []
    engine: Any = SimpleNamespace(waits=SimpleNamespace(see=lambda *given: told.append(given[0])))
    explain_wait(engine, job("RUNNABLE"), 0.0)
    assert (told[0].nodes, told[0].need.vcpus) == (4, 3)
    explain_wait(engine, JobDetail("other", state="RUNNABLE"), 0.0)
    assert told[1].nodes == 1


# --- estimates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "markets"), [(1, ["spot"]), (2, ["on-demand"])])
def test_an_estimate_is_on_what_runs_several_nodes(
    nodes: int, markets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the queue has Spot first, which runs an ordinary job; without on-demand instances there is no offer."""
    behind = [queues.parse_environment(described(kind)) for kind in ("SPOT", "EC2")]
    monkeypatch.setattr(offers, "environments", lambda account, names: {"q": behind})
    monkeypatch.setattr(offers, "_priced", lambda prices, market, kinds: [market])
    account: Any = SimpleNamespace(
        settings=settings(num_nodes=nodes, batch_queue="q"), clients=None, region="us-east-1", access=None
    )
    assert offers.offers(account)[0] == markets
    behind.pop()
    assert offers.offers(account)[0] == (markets if nodes == 1 else [])


def described(kind: str) -> dict[str, Any]:
    """A compute environment as DescribeComputeEnvironments has it."""
    resources = {"type": kind, "maxvCpus": 16, "instanceTypes": ["m6i"], "subnets": []}
    return {
        "computeEnvironmentName": kind,
        "computeEnvironmentArn": f"arn:{kind}",
        "state": "ENABLED",
        "computeResources": resources,
    }


# --- states -------------------------------------------------------------------------------------------------------


def test_job_has_the_container_of_its_nodes() -> None:
    """What it asked for is in the node ranges; a node is no job of several nodes."""
    assert (job().num_nodes, job().memory_mib, job().image) == (4, 2048, "image")
    assert (job().vcpus, job().all_vcpus) == (3, 12)

    assert node(1, "RUNNING").num_nodes == 0


def test_a_node_is_known_by_its_id() -> None:
    """The id of the whole job stands for its main node."""
    assert [compute_nodes.number_of_node(each) for each in ("job", "job#0", "job#12")] == [0, 0, 12]


def test_nodes_are_described_once_the_job_has_machines() -> None:
    """A job that waits has none; of a very large one, the first 100."""
    assert compute_nodes.ids_to_describe([job("RUNNABLE"), JobDetail("other", state="RUNNING")]) == []
    assert compute_nodes.ids_to_describe([job()]) == ["job#0", "job#1", "job#2", "job#3"]
    assert len(compute_nodes.ids_to_describe([job()._replace(num_nodes=500)])) == compute_nodes.MAX_SEEN


def test_end_and_log_are_those_of_the_main_node() -> None:
    """And the nodes are counted by state, for the panel of the UI."""
    nodes = [node(0, "FAILED", exitCode=1, logStreamName="main"), node(1, "RUNNING", exitCode=7, logStreamName="other")]
    found = compute_nodes.with_nodes(job("FAILED"), {each.job_id: each for each in nodes})

    assert (found.exit_code, found.log_stream) == (1, "main")
    assert found.node_states == (("RUNNING", 1), ("FAILED", 1))
    assert compute_nodes.nodes_line(found) == "4: 1 RUNNING, 1 FAILED"
    assert panel.lines(found, 0.0, partition="", region="")["nodes"] == "4: 1 RUNNING, 1 FAILED"
    assert states.load_detail(states.dump_detail(found)) == found


def test_node_that_ran_out_of_memory_is_the_reason() -> None:
    """The main node ends because of it, with an exit code that says nothing of memory."""
    reasons = ("Essential container in task exited", "OutOfMemoryError: Container killed due to memory usage")
    nodes = [node(number, "FAILED", exitCode=1, reason=reason) for number, reason in enumerate(reasons)]
    found = compute_nodes.with_nodes(job("FAILED"), {each.job_id: each for each in nodes})
    assert found.reason == reasons[1]


def test_other_jobs_have_no_nodes() -> None:
    """They stay as they are."""
    detail = JobDetail("id", state="RUNNING")
    assert compute_nodes.with_nodes(detail, {}) == detail
    assert compute_nodes.nodes_line(detail) == ""


# --- the outcome --------------------------------------------------------------------------------------------------


def test_outcome_has_the_nodes() -> None:
    """Within the limits; an ordinary outcome does not mention any."""
    outcome = Outcome("id", 1, "job", (), Usage(), "3.11.7", "3", {}, {})
    assert b'"nodes"' not in documents.dump_outcome(outcome)
    nodes = (ComputeNode(0, "done", 1.5, 1024, "p4d.24xlarge", "i-1"), ComputeNode(1, "lost", float("inf"), -1))
    read = documents.parse_outcome(documents.dump_outcome(outcome._replace(nodes=nodes)))
    assert read.nodes == (nodes[0], ComputeNode(1, "lost"))

"""Multi-node parallel jobs on the emulated AWS: registered, submitted, run as processes, described and listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

SHOW = (
    "echo $AWS_BATCH_JOB_ID $AWS_BATCH_JOB_NODE_INDEX/$AWS_BATCH_JOB_NUM_NODES main=$AWS_BATCH_JOB_MAIN_NODE_INDEX "
    "at=${AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS:-here} attempt=$AWS_BATCH_JOB_ATTEMPT"
)
MAIN = 'test "$AWS_BATCH_JOB_NODE_INDEX" = 0'
WAIT = 'while ! test -e "$1"; do sleep 0.05; done'
"""Of the main node: other nodes are stopped when it ends."""
SLEEP = "exec sleep 60"


def _definition(aws: Any, script: str, nodes: int = 2, flag: Path | None = None, **options: Any) -> str:
    """A new definition; ``$1`` of the script is the parameter ``flag``."""
    container = {
        "image": "image",
        "command": ["sh", "-c", script, "sh", "Ref::flag"],
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "256"}],
    }
    ranges = [{"targetNodes": "0:", "container": container}]
    made = aws.batch.register_job_definition(
        jobDefinitionName=aws.name("nodes"),
        type="multinode",
        parameters={"flag": str(flag)},
        nodeProperties={"numNodes": nodes, "mainNode": 0, "nodeRangeProperties": ranges},
        **options,
    )
    return f"{made['jobDefinitionName']}:{made['revision']}"


def test_a_job_runs_its_command_on_each_node(aws: Any, tmp_path: Path) -> None:
    """Each node has an id, an index, AWS's variables, a log stream and an instance of its own."""
    definition = _definition(aws, f'{SHOW}; if {MAIN}; then {WAIT}; else touch "$1"; fi', flag=tmp_path / "flag")
    queue = aws.queue()
    job_id = aws.submit(queue=queue, definition=definition)
    job = aws.done(job_id)
    aws.done(f"{job_id}#1")
    assert (job["status"], job["nodeProperties"]["numNodes"], "container" in job) == ("SUCCEEDED", 2, False)
    nodes = [aws.job(f"{job_id}#{i}") for i in range(2)]
    assert [node["nodeDetails"] for node in nodes] == [
        {"nodeIndex": 0, "isMainNode": True},
        {"nodeIndex": 1, "isMainNode": False},
    ]
    assert [aws.log(node) for node in nodes] == [
        [f"{job_id}#0 0/2 main=0 at=here attempt=1"],
        [f"{job_id}#1 1/2 main=0 at=127.0.0.1 attempt=1"],
    ]
    assert len({node["container"]["containerInstanceArn"] for node in nodes}) == 2
    assert {node["container"]["instanceType"] for node in nodes} == {"m6i.large"}
    assert job["attempts"] == nodes[0]["attempts"]
    (listed,) = aws.batch.list_jobs(multiNodeJobId=job_id, jobStatus="SUCCEEDED", maxResults=1)["jobSummaryList"]
    assert (listed["jobId"], listed["nodeProperties"]) == (
        f"{job_id}#0",
        {"isMainNode": True, "numNodes": 2, "nodeIndex": 0},
    )
    (of_queue,) = aws.batch.list_jobs(jobQueue=queue, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert (of_queue["jobId"], of_queue["nodeProperties"]) == (job_id, {"numNodes": 2})


def test_other_nodes_are_stopped_when_the_main_node_ends(aws: Any, tmp_path: Path) -> None:
    """With SIGTERM, which they can handle; the job is over before they are."""
    script = f'if {MAIN}; then {WAIT}; else trap "exit 7" TERM; touch "$1"; while true; do sleep 0.05; done; fi'
    job_id = aws.submit(definition=_definition(aws, script, flag=tmp_path / "flag"))
    assert aws.done(job_id)["status"] == "SUCCEEDED"
    stopped = aws.done(f"{job_id}#1")
    assert (stopped["status"], stopped["container"]["exitCode"]) == ("FAILED", 7)


def test_the_whole_job_runs_again_when_the_host_of_its_main_node_is_lost(aws: Any, faults: Any, tmp_path: Path) -> None:
    """A fault finds a node by the job's name, # and its index."""
    flag = tmp_path / "flag"
    queue, name = aws.queue(), aws.name("job")
    script = f"test -e $1 && exit 0; {SLEEP}"
    job_id = aws.submit(
        queue=queue, definition=_definition(aws, script, flag=flag), jobName=name, retryStrategy={"attempts": 2}
    )
    aws.reach(f"{job_id}#1", "RUNNING")
    flag.touch()
    faults.add("lose_host", job=f"{name}#0", count=1)
    job = aws.done(job_id)
    assert [each["container"].get("exitCode") for each in job["attempts"]] == [None, 0]
    assert job["attempts"][0]["statusReason"].startswith("Host EC2 (instance i-")
    assert len(aws.job(f"{job_id}#1")["attempts"]) >= 1


def test_a_lost_node_that_is_not_the_main_one_leaves_the_job_running(aws: Any, faults: Any) -> None:
    """AWS Batch does nothing: what runs on the nodes has to find out. The job can be terminated; a node cannot."""
    name = aws.name("job")
    faults.add("lose_host", job=f"{name}#1", count=1)
    job_id = aws.submit(definition=_definition(aws, SLEEP), jobName=name)
    lost = aws.done(f"{job_id}#1")
    assert (lost["status"], aws.job(job_id)["status"]) == ("FAILED", "RUNNING")
    with pytest.raises(ClientError, match="node of a multi-node parallel job"):
        aws.batch.terminate_job(jobId=f"{job_id}#0", reason="enough")
    refused = aws.batch.terminate_jobs(jobs=[f"{job_id}#0"], reason="enough")
    assert [each["job"] for each in refused["errors"]] == [f"{job_id}#0"]
    aws.batch.terminate_job(jobId=job_id, reason="enough")
    job = aws.done(job_id)
    assert (job["status"], job["statusReason"], job["isTerminated"]) == ("FAILED", "enough", True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"containerOverrides": {"command": ["true"]}}, "Container overrides should not be set"),
        ({"arrayProperties": {"size": 2}}, "Array properties should not be set"),
        ({"nodeOverrides": {"numNodes": 0}}, "between 1 and 1000"),
    ],
)
def test_submit_job_is_refused(aws: Any, options: dict[str, Any], text: str) -> None:
    """What does not go with several nodes."""
    with pytest.raises(ClientError, match=text):
        aws.submit(definition=_definition(aws, "true"), **options)


def test_node_overrides_are_refused_for_other_jobs(aws: Any) -> None:
    """They go with a definition of type multinode."""
    with pytest.raises(ClientError, match="Node overrides should not be set"):
        aws.submit("true", nodeOverrides={"numNodes": 2})


def test_a_job_is_submitted_with_more_nodes_and_another_command(aws: Any) -> None:
    """Both of the whole job; on a queue that has no room it waits."""
    queue = aws.queue(aws.environment(maxvCpus=2))
    overrides = {"targetNodes": "0:", "containerOverrides": {"command": ["false"]}}
    job_id = aws.submit(
        queue=queue,
        definition=_definition(aws, "true"),
        nodeOverrides={"numNodes": 3, "nodePropertyOverrides": [overrides]},
    )
    job, node = aws.job(job_id), aws.job(f"{job_id}#2")
    assert (job["status"], node["status"], node["container"]["command"]) == ("RUNNABLE", "RUNNABLE", ["false"])
    assert job["statusReason"].startswith("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE")
    aws.batch.cancel_job(jobId=job_id, reason="enough")
    assert aws.done(f"{job_id}#2")["statusReason"] == "enough"


def test_a_multi_node_definition_is_not_for_fargate(aws: Any) -> None:
    """API model, RegisterJobDefinitionRequest.type."""
    with pytest.raises(ClientError, match="not supported on Fargate"):
        _definition(aws, "true", platformCapabilities=["FARGATE"])

"""A job from SubmitJob to its end: states, environment, working folder, what DescribeJobs and ListJobs say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.conftest import alive


def test_a_job_that_exits_zero_succeeds(aws: Any) -> None:
    """Its container says exit code 0, its one attempt is listed, its times are in order, in milliseconds."""
    job = aws.done(aws.submit("sh", "-c", "exit 0"))
    assert job["status"] == "SUCCEEDED"
    assert job["container"]["exitCode"] == 0
    assert len(job["attempts"]) == 1
    assert job["attempts"][0]["container"]["logStreamName"] == job["container"]["logStreamName"]
    assert job["createdAt"] <= job["startedAt"] <= job["stoppedAt"]
    assert abs(job["createdAt"] - time.time() * 1000) < 60_000


def test_a_job_that_exits_non_zero_fails_with_its_code(aws: Any) -> None:
    """The reason is ECS's, and the container has none of its own."""
    job = aws.done(aws.submit("sh", "-c", "exit 3"))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Essential container in task exited")
    assert job["attempts"][0]["container"]["exitCode"] == 3
    assert "reason" not in job["container"]


def test_a_killed_process_has_128_plus_the_signal(aws: Any) -> None:
    """As a container's runtime reports it."""
    job = aws.done(aws.submit("sh", "-c", "kill -SEGV $$"))
    assert job["container"]["exitCode"] == 139


def test_a_program_that_is_not_there_fails_to_start(aws: Any) -> None:
    """No exit code, and a reason that names the program."""
    job = aws.done(aws.submit("no-such-program"))
    assert job["statusReason"] == "Task failed to start"
    assert job["container"]["reason"].startswith("CannotStartContainerError: ")
    assert "no-such-program" in job["container"]["reason"]
    assert "exitCode" not in job["container"]


def test_a_warm_environment_starts_a_job_in_under_100_ms(aws: Any) -> None:
    """Nothing polls between SubmitJob and RUNNING. The best of a few, because the machine may be busy."""
    queue, definition = aws.queue(), aws.definition("true")
    aws.done(aws.submit(queue=queue, definition=definition))
    waits = []
    for _ in range(5):
        job = aws.done(aws.submit(queue=queue, definition=definition))
        waits.append(job["startedAt"] - job["createdAt"])
    assert min(waits) < 100


def test_a_running_job_lists_no_attempt_yet(aws: Any) -> None:
    """Attempts are those that ended; the container already has its log stream and task."""
    job_id = aws.submit("sleep", "30")
    job = aws.reach(job_id, "RUNNING")
    assert job["attempts"] == []
    assert job["container"]["taskArn"].startswith("arn:aws:ecs:us-east-1:")
    assert "logStreamName" in job["container"]
    aws.batch.terminate_job(jobId=job_id, reason="enough")


def test_the_environment_is_batchs_and_the_jobs_only(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS Batch's variables are there; those of the emulator's own process are not."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "COVALENT_DATABASE", "CIRRO_SECRET", "PYTHONPATH", "SOMETHING"):
        monkeypatch.setenv(name, "from-outside")
    queue = aws.queue()
    definition = aws.definition("env", environment=[{"name": "MINE", "value": "1"}, {"name": "OURS", "value": "a"}])
    job = aws.done(
        aws.submit(
            queue=queue,
            definition=definition,
            containerOverrides={"environment": [{"name": "OURS", "value": "b"}]},
        )
    )
    variables = dict(line.split("=", 1) for line in aws.log(job))
    assert "from-outside" not in variables.values()
    assert variables["MINE"] == "1"
    assert variables["OURS"] == "b"
    assert variables["AWS_BATCH_JOB_ID"] == job["jobId"]
    assert variables["AWS_BATCH_JOB_ATTEMPT"] == "1"
    assert variables["AWS_BATCH_JQ_NAME"] == queue
    assert variables["AWS_BATCH_CE_NAME"].startswith("ce-")
    assert "AWS_BATCH_JOB_ARRAY_INDEX" not in variables
    assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "us-east-1"
    assert variables["AWS_ENDPOINT_URL"] == aws.emulator.endpoint_url
    assert variables["PWD"] == variables["HOME"]


def test_each_job_has_a_working_folder_of_its_own_that_goes_with_it(aws: Any, poll: Any) -> None:
    """What a job writes to its folder is gone when it ended, as a container's root is."""
    queue, definition = aws.queue(), aws.definition("sh", "-c", "ls; touch left-behind; pwd")
    for _ in range(2):
        job = aws.done(aws.submit(queue=queue, definition=definition))
        assert len(aws.log(job)) == 1
    jobs = aws.emulator.state_dir / "jobs"
    poll(lambda: not [each for each in jobs.iterdir() if (each / "left-behind").exists()])


def test_what_a_job_leaves_running_dies_with_it(aws: Any, poll: Any, tmp_path: Path) -> None:
    """A container's processes end with its first one, background children in other sessions included."""
    told, seen = tmp_path / "child", tmp_path / "seen"
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        f"with open({str(told)!r}, 'w') as file: file.write(f'{{child.pid}}.')\n"
        f"while not os.path.exists({str(seen)!r}): time.sleep(0.02)\n"
    )
    job_id = aws.submit("python", "-c", script)
    attempts = aws.emulator.batch().context.runtime._attempts
    poll(lambda: told.exists() and told.read_text().endswith("."), "the child")
    pid = int(told.read_text().rstrip("."))
    poll(lambda: any(pid in each.descendants for each in list(attempts.values())), "the child to be seen")
    seen.touch()
    aws.done(job_id)
    poll(lambda: not alive(pid), f"the end of {pid}")


def test_parameters_take_the_place_of_references_in_the_command(aws: Any) -> None:
    """Defaults of the definition, then SubmitJob's; a reference to nothing stays as it is."""
    definition = aws.definition("echo", "Ref::a", "x-Ref::b", "Ref::c", options={"parameters": {"a": "1", "b": "2"}})
    job = aws.done(aws.submit(definition=definition, parameters={"b": "3"}))
    assert aws.log(job) == ["1 x-3 Ref::c"]
    assert job["parameters"] == {"a": "1", "b": "3"}


def test_overrides_replace_command_and_resources(aws: Any) -> None:
    """Resources by their type; the definition's others stay."""
    job = aws.done(
        aws.submit(
            "false",
            containerOverrides={"command": ["true"], "resourceRequirements": [{"type": "VCPU", "value": "2"}]},
        )
    )
    assert job["status"] == "SUCCEEDED"
    requirements = {each["type"]: each["value"] for each in job["container"]["resourceRequirements"]}
    assert requirements == {"VCPU": "2", "MEMORY": "512"}


def test_too_much_memory_kills_a_job(aws: Any) -> None:
    """Exit code 137 and the agent's very words."""
    script = "import time; block = bytearray(300_000_000); block[::4096] = b'x' * len(block[::4096]); time.sleep(30)"
    job = aws.done(aws.submit(definition=aws.definition("python", "-c", script, memory=64)))
    assert job["container"]["exitCode"] == 137
    assert job["container"]["reason"] == "OutOfMemoryError: Container killed due to memory usage"
    assert job["statusReason"] == "Essential container in task exited"


def test_the_memory_of_all_its_processes_counts(aws: Any) -> None:
    """A child that takes too much is killed, as the kernel kills the largest process of a container; ECS tells it."""
    child = "import time; block = bytearray(300_000_000); block[::4096] = b'x' * len(block[::4096]); time.sleep(30)"
    script = f"import subprocess, sys; sys.exit(-subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    job = aws.done(aws.submit(definition=aws.definition("python", "-c", script, memory=100)))
    assert job["container"]["exitCode"] == 9
    assert job["container"]["reason"] == "OutOfMemoryError: Container killed due to memory usage"


def test_a_definition_is_found_by_name_revision_and_arn(aws: Any) -> None:
    """A name, or an ARN without a revision, means the latest that is ACTIVE."""
    first = aws.definition("echo", "one")
    name = first.split(":")[0]
    second = aws.batch.register_job_definition(
        jobDefinitionName=name,
        type="container",
        containerProperties={
            "image": "image",
            "command": ["echo", "two"],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}],
        },
    )
    assert second["revision"] == 2
    queue = aws.queue()
    arn = second["jobDefinitionArn"]
    for given, said in ((name, "two"), (first, "one"), (arn, "two"), (arn.rsplit(":", 1)[0], "two")):
        job = aws.done(aws.submit(queue=queue, definition=given))
        assert aws.log(job) == [said]
    aws.batch.deregister_job_definition(jobDefinition=arn)
    assert aws.job(aws.submit(queue=queue, definition=name))["jobDefinition"].endswith(":1")
    with pytest.raises(ClientError, match="INACTIVE"):
        aws.submit(queue=queue, definition=f"{name}:2")


def test_unknown_jobs_are_left_out(aws: Any) -> None:
    """DescribeJobs has no error for them."""
    job_id = aws.submit("true")
    found = aws.batch.describe_jobs(jobs=["no-such-job", job_id])["jobs"]
    assert [job["jobId"] for job in found] == [job_id]


@pytest.mark.parametrize("count", [0, 101])
def test_describe_jobs_takes_1_to_100_ids(aws: Any, count: int) -> None:
    """Fewer or more is an error."""
    with pytest.raises(ClientError, match="1 to 100"):
        aws.batch.describe_jobs(jobs=[f"job-{i}" for i in range(count)])


def test_list_jobs_shows_running_ones_unless_asked(aws: Any) -> None:
    """The default is RUNNING; another state, or a name, shows others; newest first, in pages."""
    queue, definition = aws.queue(), aws.definition("true")
    for i in range(5):
        aws.done(aws.submit(queue=queue, definition=definition, jobName=f"Listed-{i}"))
    running = aws.submit("sleep", "30", queue=queue, jobName="Other")
    aws.reach(running, "RUNNING")
    assert [job["jobName"] for job in aws.batch.list_jobs(jobQueue=queue)["jobSummaryList"]] == ["Other"]

    pages = aws.batch.get_paginator("list_jobs").paginate(
        jobQueue=queue, jobStatus="SUCCEEDED", PaginationConfig={"PageSize": 2}
    )
    names = [[job["jobName"] for job in page["jobSummaryList"]] for page in pages]
    assert names == [["Listed-4", "Listed-3"], ["Listed-2", "Listed-1"], ["Listed-0"]]

    by_name = aws.batch.list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["LISTED*"]}])
    assert len(by_name["jobSummaryList"]) == 5
    summary = by_name["jobSummaryList"][0]
    assert summary["container"] == {"exitCode": 0}
    assert "isTerminated" not in summary
    by_definition = aws.batch.list_jobs(
        jobQueue=queue, filters=[{"name": "JOB_DEFINITION", "values": [definition.split(":")[0]]}]
    )
    assert len(by_definition["jobSummaryList"]) == 5
    before = str(summary["createdAt"])
    older = aws.batch.list_jobs(jobQueue=queue, filters=[{"name": "BEFORE_CREATED_AT", "values": [before]}])
    assert [job["jobName"] for job in older["jobSummaryList"]] == [f"Listed-{i}" for i in (3, 2, 1, 0)]
    aws.batch.terminate_job(jobId=running, reason="enough")


def test_the_snapshot_shows_who_waits(aws: Any) -> None:
    """RUNNABLE jobs in the order in which they will start."""
    queue = aws.queue(aws.environment(maxvCpus=2, instanceTypes=["m6i.large"]))
    definition = aws.definition("sleep", "30", vcpus=2)
    jobs = [aws.submit(queue=queue, definition=definition) for _ in range(3)]
    aws.reach(jobs[0], "RUNNING")
    front = aws.batch.get_job_queue_snapshot(jobQueue=queue)["frontOfQueue"]["jobs"]
    assert [entry["jobArn"].rsplit("/")[-1] for entry in front] == jobs[1:]
    for job_id in jobs:
        aws.batch.terminate_job(jobId=job_id, reason="enough")


def test_tags_are_kept_and_changed(aws: Any) -> None:
    """On a job, by its ARN; other resources have them too."""
    job = aws.job(aws.submit("true", tags={"a": "1"}))
    aws.batch.tag_resource(resourceArn=job["jobArn"], tags={"b": "2"})
    aws.batch.untag_resource(resourceArn=job["jobArn"], tagKeys=["a"])
    assert aws.batch.list_tags_for_resource(resourceArn=job["jobArn"])["tags"] == {"b": "2"}
    aws.batch.tag_resource(resourceArn=job["jobDefinition"], tags={"c": "3"})
    assert aws.batch.list_tags_for_resource(resourceArn=job["jobDefinition"])["tags"] == {"c": "3"}


def test_jobs_of_another_region_are_not_here(aws: Any) -> None:
    """Each region has an AWS Batch of its own."""
    elsewhere = aws.emulator.client("batch", region_name="eu-west-1")
    queue = aws.queue()
    assert elsewhere.describe_job_queues(jobQueues=[queue])["jobQueues"] == []

"""``cirro local`` with a real emulator: up, status, exec, down."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import Result

from covalent_cirro.deployment.plans import PARTS, stack_name
from covalent_cirro.local.emulator import keys
from covalent_cirro.local.local_stack import DEPLOYMENT, JOB_STATES, LocalStack
from tests.access import ask

Cirro = Callable[..., Result]
Program = Callable[..., subprocess.CompletedProcess[str]]

PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def client(playground: LocalStack, service: str):  # type: ignore[no-untyped-def]
    """A boto3 client of the emulated AWS."""
    return playground.client(service)


def test_status_says_what_runs(emulated: LocalStack, cirro: Cirro) -> None:
    """The table has the endpoint and the stack; exit code 0."""
    result = cirro("local", "status", "--state-dir", emulated.state_dir)
    assert result.exit_code == 0
    assert str(emulated.status().endpoint_url) in result.output
    assert DEPLOYMENT in result.output


def test_status_for_programs(emulated: LocalStack, cirro: Cirro) -> None:
    """``--json`` gives the executor's settings and a count for each of the seven states."""
    document = json.loads(cirro("local", "status", "--json", "--state-dir", emulated.state_dir).output)
    assert list(document["jobs"]) == list(JOB_STATES)
    assert document["settings"]["endpoint_url"] == document["endpoint_url"]
    assert document["settings"]["s3_bucket_name"]
    assert document["server_url"] is None


def test_up_again_changes_nothing(emulated: LocalStack, cirro: Cirro) -> None:
    """A second ``up`` keeps the process, and says that it runs already."""
    before = emulated.read()
    result = cirro("local", "up", "--state-dir", emulated.state_dir)
    assert result.exit_code == 0
    assert "runs already" in result.output
    assert emulated.read() == before


def test_a_deployment_is_made_with_cloudformation(emulated: LocalStack) -> None:
    """What ``up`` made are the stacks of a deployment, whose queues take jobs."""
    stacks = client(emulated, "cloudformation").describe_stacks()["Stacks"]
    assert {(each["StackName"], each["StackStatus"]) for each in stacks} == {
        (stack_name(DEPLOYMENT, part), "CREATE_COMPLETE") for part in PARTS
    }
    queues = client(emulated, "batch").describe_job_queues()["jobQueues"]
    assert {"ENABLED"} == {queue["state"] for queue in queues}


def test_exec_points_at_the_local_stack(emulated: LocalStack, program: Program) -> None:
    """The command sees the emulator as its AWS, and nothing of the caller's account, profile or Covalent."""
    result = program(
        *("local", "exec", "--state-dir", emulated.state_dir, "--", "python", "-c", PRINT_ENVIRONMENT),
        AWS_PROFILE="production",
        AWS_SESSION_TOKEN="secret",
        COVALENT_DATABASE="/somewhere/else.sqlite",
        CIRRO_TEST_KEPT="yes",
    )
    assert result.returncode == 0, result.stderr
    environment = json.loads(result.stdout)
    assert environment["AWS_ENDPOINT_URL"] == emulated.status().endpoint_url
    assert keys.read(Path(environment["AWS_SHARED_CREDENTIALS_FILE"])) == emulated.key
    assert environment["CIRRO_TEST_KEPT"] == "yes"
    assert environment.keys().isdisjoint(
        {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN", "COVALENT_DATABASE"}
    )


def test_exec_hands_on_arguments_and_exit_code(emulated: LocalStack, program: Program) -> None:
    """Options of the command stay its own, and its exit code is that of ``exec``."""
    script = "import sys; print(sys.argv[1:]); sys.exit(42)"
    result = program(
        *("local", "exec", "--state-dir", emulated.state_dir, "--", "python", "-c", script, "--json", "-h", "--", "x")
    )
    assert result.returncode == 42
    assert result.stdout == "['--json', '-h', '--', 'x']\n"


def test_exec_of_a_program_that_does_not_exist(emulated: LocalStack, cirro: Cirro) -> None:
    """Exit code 127, as a shell has it."""
    result = cirro("local", "exec", "--state-dir", emulated.state_dir, "--", "no-such-program")
    assert result.exit_code == 127
    assert "no-such-program" in result.stderr


def test_two_folders_never_meet(emulated: LocalStack, tmp_path: Path, cirro: Cirro) -> None:
    """A second folder has an emulator of its own, and ending it leaves the first one alone."""
    other = LocalStack(tmp_path / "other")
    try:
        assert cirro("local", "up", "--state-dir", other.state_dir).exit_code == 0
        assert other.status().endpoint_url != emulated.status().endpoint_url
        client(other, "s3").create_bucket(Bucket="only-in-the-other")
        buckets = [bucket["Name"] for bucket in client(emulated, "s3").list_buckets()["Buckets"]]
        assert "only-in-the-other" not in buckets
        assert cirro("local", "down", "--state-dir", other.state_dir).exit_code == 0
    finally:
        other.down()
    assert not other.state_dir.exists()
    assert emulated.status().endpoint_url is not None


def test_down_ends_the_jobs_too(tmp_path: Path, cirro: Cirro) -> None:
    """After ``down`` neither the emulator nor the process of a job that ran is left, and the folder is gone."""
    playground = LocalStack(tmp_path / "state")
    try:
        playground.up(vcpus=2)
        pid_file = tmp_path / "pid"
        batch = client(playground, "batch")
        definition = batch.register_job_definition(
            jobDefinitionName="sleeper",
            type="container",
            containerProperties={
                "image": "public.ecr.aws/docker/library/python:3.11",
                "command": ["sh", "-c", f"trap '' TERM; echo $$ > {pid_file}; while true; do sleep 0.2; done"],
                "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}],
            },
        )
        batch.submit_job(
            jobName="sleeper",
            jobQueue=playground.status().settings["batch_queue"],
            jobDefinition=definition["jobDefinitionArn"],
        )
        pid = wait_for(lambda: int(pid_file.read_text()) if pid_file.exists() and pid_file.read_text() else None)
        emulator = playground.read().emulator
        assert emulator is not None
        assert playground.status().jobs["RUNNING"] == 1
        assert cirro("local", "down", "--state-dir", playground.state_dir).exit_code == 0
        assert [gone for gone in (pid, emulator.pid) if _runs(gone)] == []
        assert not playground.state_dir.exists()
    finally:
        playground.down()


def test_up_after_the_emulator_was_killed(tmp_path: Path) -> None:
    """``status`` sees that it is gone, and ``up`` starts another with a fresh stack."""
    playground = LocalStack(tmp_path / "state")
    try:
        playground.up(vcpus=2)
        emulator = playground.read().emulator
        assert emulator is not None
        psutil.Process(emulator.pid).kill()
        wait_for(lambda: playground.status().endpoint_url is None)
        status = playground.up(vcpus=2)
        assert status.deployment == DEPLOYMENT
        assert status.endpoint_url is not None
        assert ask(status.endpoint_url, playground.key, "health") == {"status": "ok"}
    finally:
        playground.down()


def wait_for(probe, limit_s: float = 90):  # type: ignore[no-untyped-def]
    """What ``probe`` gives once that is true."""
    deadline = time.monotonic() + limit_s
    while not (found := probe()):
        if time.monotonic() > deadline:
            pytest.fail(f"not seen within {limit_s} s")
        time.sleep(0.05)
    return found


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

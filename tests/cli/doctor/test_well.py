"""``cirro doctor`` where all is well: what it looks at, what it shows, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import Result

from covalent_cirro.deployment.doctor.checks import CHECKS
from covalent_cirro.jobs.findings import FAILURE, OK, SKIPPED, WARNING
from covalent_cirro.serving import service_checks
from tests.cli.doctor.conftest import SERVER_CHECKS, World


def test_a_fresh_deployment_is_well(world: World) -> None:
    """Every check is ok, but for the Covalent server, which does not run: what hangs on it is skipped."""
    findings = world.look()
    levels = {finding.id: finding.level for finding in findings if finding.level != OK}
    assert levels == {"server": WARNING, **dict.fromkeys(SERVER_CHECKS - {"server"}, SKIPPED)}, findings
    assert {finding.id for finding in findings} == {check.id for check in CHECKS}


def test_doctor_shows_a_line_for_each_check(world: World, cirro: Callable[..., Result]) -> None:
    """Level, id and what was seen; several things that are alike share a line. Exit code 0: a warning is no failure."""
    result = cirro("doctor")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert any(line.startswith("ok ") and " clock: " in line for line in lines)
    assert "queue: 4 are well: cirro-cpu, cirro-gpu, cirro-cpu-on-demand, cirro-gpu-on-demand" in result.output
    assert "warning  server" in result.output
    assert "0 failure" not in lines[-1]
    assert "1 warning" in lines[-1]


def test_json_is_for_programs(world: World, cirro: Callable[..., Result]) -> None:
    """One document with stable ids, and exit code 1 where one of them failed."""
    with world.configured(batch_queue="other-queue"):
        result = cirro("doctor", "--json")
    assert result.exit_code == 1
    document = json.loads(result.output)
    (failed,) = [each for each in document["findings"] if each["level"] == FAILURE]
    assert (failed["id"], failed["subject"]) == ("queue", "other-queue")
    assert "cirro-cpu" in failed["seen"]
    assert "batch_queue" in failed["remedy"]
    assert document["counts"]["failure"] == 1
    assert {each["id"] for each in document["findings"]} == {check.id for check in (*CHECKS, *service_checks.CHECKS)}


def test_nothing_is_left_behind(world: World) -> None:
    """Reads only, but for one object that is written and deleted."""
    world.emulator.calls.reset()
    world.look()
    calls = set(world.emulator.calls.counts())
    writes = {
        call for call in calls if not call.partition(":")[2].startswith(("Get", "List", "Describe", "Batch", "Head"))
    }
    assert writes == {"s3:PutObject", "s3:DeleteObject", "iam:SimulatePrincipalPolicy"}
    objects = world.client("s3").list_objects_v2(Bucket=world.settings["s3_bucket_name"])
    assert objects["KeyCount"] == 0


def test_who_may_only_submit_sees_no_failure(world: World) -> None:
    """What such a user may not read is a warning that names the permission; what it may is looked at."""
    iam = world.client("iam")
    version = iam.get_policy(PolicyArn=world.outputs["SubmitterPolicy"])["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=world.outputs["SubmitterPolicy"], VersionId=version)["PolicyVersion"]
    with world.user(*document["Document"]["Statement"]):
        findings = {finding.id: finding for finding in world.look()}
    assert not [finding for finding in findings.values() if finding.level == FAILURE]
    assert "cloudformation:DescribeStacks" in findings["stacks"].seen
    assert "iam:GetRole" in findings["job_role"].seen
    assert "servicequotas:GetServiceQuota" in findings["quota"].seen
    assert {findings[id].level for id in ("queue", "environment", "bucket", "bucket_write")} == {OK}


def test_a_session_has_its_roles_permissions(world: World) -> None:
    """Whoever took on a role, by SSO for one, is asked for by the role's own ARN, path and all."""
    iam = world.client("iam")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    trusting = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
    made = iam.create_role(Path="/team/", RoleName="person", AssumeRolePolicyDocument=json.dumps(trusting))
    iam.put_role_policy(RoleName="person", PolicyName="all", PolicyDocument=json.dumps(everything))
    session = world.client("sts").assume_role(RoleArn=made["Role"]["Arn"], RoleSessionName="ann")["Credentials"]
    with world.environ(
        AWS_ACCESS_KEY_ID=session["AccessKeyId"],
        AWS_SECRET_ACCESS_KEY=session["SecretAccessKey"],
        AWS_SESSION_TOKEN=session["SessionToken"],
    ):
        (found,) = [finding for finding in world.look("permissions") if finding.id == "permissions"]
        assert (found.level, "assumed-role/person/ann" in found.subject) == (OK, True)
        iam.delete_role_policy(RoleName="person", PolicyName="all")
        iam.put_role_policy(
            RoleName="person",
            PolicyName="some",
            PolicyDocument=json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [{"Effect": "Allow", "NotAction": "iam:PassRole", "Resource": "*"}],
                }
            ),
        )
        (found,) = [finding for finding in world.look("permissions") if finding.id == "permissions"]
    assert found.level == FAILURE
    assert "attach-role-policy --role-name person" in found.remedy


def test_gpus_asked_for_are_looked_for_on_the_gpu_queue(world: World, cirro: Callable[..., Result]) -> None:
    """``--gpus`` moves the question to the queue that such an electron would use."""
    result = cirro("doctor", "--json", "--gpus", "4", "--vcpu", "8", "--memory", "100")
    fits = [each for each in json.loads(result.output)["findings"] if each["id"] == "fit"]
    assert {each["subject"] for each in fits} == {"cirro-gpu", "cirro-gpu-on-demand"}
    assert {each["level"] for each in fits} == {OK}
    assert "4 GPUs" in fits[0]["seen"]

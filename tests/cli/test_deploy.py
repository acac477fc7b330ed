"""``cirro deploy`` and ``cirro destroy`` against an emulated AWS: what is shown, asked, done, recorded and left."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from click.testing import Result

from covalent_cirro.covalent_server import config
from covalent_cirro.deployment import holdings
from covalent_cirro.deployment.plans import PARTS
from covalent_cirro.local.emulator import Emulator
from covalent_cirro.settings import BY_NAME
from tests.access import variables

DEADLINE_S = 60.0

Cirro = Callable[..., Result]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulated AWS for all tests here; each leaves nothing in it."""
    with Emulator(state_dir=tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def aws(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The emulated AWS as the AWS of this process, with a Covalent config of its own."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "COVALENT_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": emulator.endpoint_url,
        **variables(emulator.key),
        "AWS_DEFAULT_REGION": emulator.region,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "COVALENT_CONFIG_DIR": str(tmp_path / "covalent"),
    }.items():
        monkeypatch.setenv(name, value)
    yield emulator
    left = [each["StackName"] for each in emulator.client("cloudformation").describe_stacks()["Stacks"]]
    assert left == [], "a test left a deployment"


@pytest.fixture
def deployed(aws: Emulator, cirro: Cirro) -> Iterator[Result]:
    """A deployment, and what was said while it was made."""
    done = cirro("deploy", "--yes", "--parameter", "CpuSpotMaxVcpus=8")
    assert done.exit_code == 0, done.output
    yield done
    assert cirro("destroy", "--yes").exit_code == 0


def statuses(aws: Emulator) -> dict[str, str]:
    """The stacks that are there."""
    found = aws.client("cloudformation").describe_stacks()["Stacks"]
    return {each["StackName"]: each["StackStatus"] for each in found}


# --- deploy -------------------------------------------------------------------------------------------------------


def test_a_first_deployment_is_shown_made_and_recorded(deployed: Result, aws: Emulator) -> None:
    """What will be made, event by event what is, and the outputs in Covalent's config."""
    text = deployed.output
    shown, happened = text.index("cirro-compute: is made (read from its template)"), text.index("CREATE_IN_PROGRESS")
    assert shown < happened
    assert re.search(r"=   CpuSpotMaxVcpus +parameter +256 -> 8", text)
    assert re.search(r"\+   CpuQueue +AWS::Batch::JobQueue", text[:happened])
    assert re.search(r"compute +CREATE_COMPLETE +CpuQueue \(AWS::Batch::JobQueue\)", text[happened:])
    assert "cirro image push" in text
    assert "cirro doctor" in text
    assert statuses(aws) == {f"cirro-{part}": "CREATE_COMPLETE" for part in PARTS}
    section = config.executor_section()
    assert section["batch_queue"] == "cirro-cpu"
    assert aws.client("s3").head_bucket(Bucket=section["s3_bucket_name"])


def test_without_changes_nothing_is_asked(deployed: Result, cirro: Cirro) -> None:
    """Neither ``--yes`` nor a terminal is needed, and no old event is shown."""
    again = cirro("deploy")
    assert again.exit_code == 0
    assert "nothing changed" in again.output
    assert "CREATE_COMPLETE" not in again.output


def test_an_update_in_place(deployed: Result, cirro: Cirro, aws: Emulator) -> None:
    """Only what changes is shown, and the compute environment stays the same one."""

    def spot() -> dict[str, Any]:
        [found] = [
            each
            for each in aws.client("batch").describe_compute_environments()["computeEnvironments"]
            if "CpuSpot" in each["computeEnvironmentName"]
        ]
        return dict(found)

    before = spot()
    done = cirro("deploy", "--yes", "--parameter", "CpuSpotMaxVcpus=16")
    assert done.exit_code == 0
    assert re.search(r"=   CpuSpotMaxVcpus +parameter +8 -> 16", done.output)
    assert re.search(r"~   CpuSpotEnvironment +AWS::Batch::ComputeEnvironment +in place: ComputeResources", done.output)
    assert "cirro-network: " not in done.output
    assert spot()["computeEnvironmentArn"] == before["computeEnvironmentArn"]
    assert [each["computeResources"]["maxvCpus"] for each in (before, spot())] == [8, 16]


def test_a_failure_names_its_cause_and_what_to_do(deployed: Result, cirro: Cirro) -> None:
    """One event, in AWS's words; the event itself is shown too, as all are."""
    failed = cirro("deploy", "--yes", "--parameter", "CpuInstanceTypes=zz9")
    assert failed.exit_code == 1
    assert "error: stack 'cirro-compute' could not be updated: CpuSpotEnvironment" in failed.stderr
    assert "zz9" in failed.stderr
    assert "The stack is as it was before: correct the cause and deploy again." in failed.stderr
    assert re.search(r"compute +UPDATE_FAILED +CpuSpotEnvironment .*zz9", failed.stdout)


def test_a_failed_call_is_told_and_leaves_no_change_set(aws: Emulator, cirro: Cirro) -> None:
    """AWS's own error; the change sets made before it are deleted, and the stacks that they made."""
    aws.faults.add("error", service="cloudformation", operation="ExecuteChangeSet", code="InternalFailure")
    try:
        failed = cirro("deploy", "--yes")
    finally:
        aws.faults.clear()
    assert failed.exit_code == 1
    assert "cloudformation:ExecuteChangeSet" in failed.stderr
    assert "InternalFailure" in failed.stderr
    assert statuses(aws) == {}


def test_a_budget_that_cannot_be_made_is_told_last_with_exit_code_1(aws: Emulator, cirro: Cirro) -> None:
    """All else is made and recorded: it is ready."""
    aws.account_settings.update({"new": {"billing_access": False}})
    given = ("--parameter", "MonthlyBudgetUsd=50", "--parameter", "BudgetEmail=ada@example.org")
    try:
        told = cirro("deploy", "--yes", *given)
        document = json.loads(cirro("deploy", "--yes", "--json").stdout)
    finally:
        aws.account_settings.update({"new": {"billing_access": True}})
    assert told.exit_code == 1
    assert "the deployment 'cirro' is ready" in told.stdout
    assert "error: the budget is not as it should be: " in told.stderr
    assert "IAM user and role access to Billing information" in told.stderr
    assert config.executor_section()["batch_queue"] == "cirro-cpu"
    assert [words for words in document["problems"] if "budgets:ModifyBudget" in words]
    found = statuses(aws)
    assert found.pop("cirro-budget") == "ROLLBACK_COMPLETE"
    assert found == {f"cirro-{part}": "CREATE_COMPLETE" for part in PARTS}
    assert "cirro-budget" in cirro("doctor").output
    assert cirro("destroy", "--yes").exit_code == 0


def test_roles_that_the_account_lacks_are_shown(aws: Emulator, cirro: Cirro) -> None:
    """They are no part of what goes with the deployment."""
    iam = aws.client("iam")
    for role in [each["RoleName"] for each in iam.list_roles()["Roles"] if "aws-service-role" in each["Path"]]:
        iam.delete_role(RoleName=role)
    made = cirro("deploy", "--yes")
    assert re.search(r"\+   AWSServiceRoleForBatch +service-linked role", made.output)
    assert cirro("destroy", "--yes").exit_code == 0
    assert "service-linked" not in cirro("deploy", "--yes").output
    assert cirro("destroy", "--yes").exit_code == 0


@pytest.mark.parametrize("given", [(), ("--json",)])
def test_without_a_terminal_changes_need_yes(aws: Emulator, cirro: Cirro, given: tuple[str, ...]) -> None:
    """A script that hangs at a question helps nobody; nothing is left of what was planned."""
    refused = cirro("deploy", *given)
    assert refused.exit_code == 2
    assert "give --yes. Nothing was changed." in refused.stderr
    assert ("cirro-compute: is made" in refused.stdout) == (not given)
    assert statuses(aws) == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("CpuMaxVcpus=8", r"no parameter 'CpuMaxVcpus'(.|\n)*CpuSpotMaxVcpus=256"),
        ("Zones=4", "Zones=4 is impossible: 2 or 3, or the names"),
        ("Zones", "'Zones' is not NAME=VALUE"),
        ("MonthlyBudgetUsd=100", "only together"),
    ],
)
def test_impossible_parameters_are_wrong_usage(aws: Emulator, cirro: Cirro, given: str, words: str) -> None:
    """With what would be possible, and before anything is made."""
    refused = cirro("deploy", "--yes", "--parameter", given)
    assert refused.exit_code == 2
    assert re.search(words, refused.stderr)
    assert statuses(aws) == {}


def test_json_is_one_document(aws: Emulator, cirro: Cirro) -> None:
    """With outputs, settings, and what became of the config; the same for the way back."""
    done = json.loads(cirro("deploy", "--yes", "--json").stdout)
    assert done["changed"] is True
    assert done["settings"]["batch_queue"] == done["outputs"]["BatchQueue"] == "cirro-cpu"
    assert {"stack": "cirro-network", "action": "Add", "logical_id": "Vpc"}.items() <= done["changes"][0].items()
    assert done["config"]["written"]["batch_queue"] == "cirro-cpu"
    again = json.loads(cirro("deploy", "--json").stdout)
    assert (again["changed"], again["changes"], again["config"]["written"]) == (False, [], {})
    gone = json.loads(cirro("destroy", "--yes", "--json").stdout)
    assert gone["left"] == []
    assert gone["deleted"]["stacks"] == [f"cirro-{part}" for part in reversed(PARTS)]
    assert "batch_queue" in gone["forgotten_settings"]


def test_what_the_user_set_is_kept_and_told(deployed: Result, cirro: Cirro) -> None:
    """With both values; what the deployment said before is replaced silently."""
    path = config.config_path()
    document = tomlkit.parse(path.read_text())
    document["executors"]["cirro"]["batch_queue"] = "mine"  # type: ignore[index]
    path.write_text(tomlkit.dumps(document))
    again = cirro("deploy")
    assert "batch_queue" in again.stderr
    assert "stays 'mine'" in again.stderr
    assert "'cirro-cpu'" in again.stderr
    assert config.executor_section()["batch_queue"] == "mine"


def test_the_last_deployment_is_meant_where_none_is_named(aws: Emulator, cirro: Cirro) -> None:
    """Its name and region are in the config."""
    assert cirro("deploy", "--yes", "--stack-name", "other").exit_code == 0
    assert set(statuses(aws)) == {f"other-{part}" for part in PARTS}
    assert "the deployment 'other'" in cirro("deploy").output
    assert "nothing of the deployment 'other' is left" in cirro("destroy", "--yes").output


@pytest.fixture
def running_job(deployed: Result, aws: Emulator) -> None:
    """A job that runs on the CPU queue."""
    batch = aws.client("batch")
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "256"}]
    made = batch.register_job_definition(
        jobDefinitionName="by-hand",
        type="container",
        containerProperties={"image": "image", "command": ["sleep", "600"], "resourceRequirements": needs},
    )
    job = batch.submit_job(jobName="runs", jobQueue="cirro-cpu", jobDefinition=made["jobDefinitionArn"])["jobId"]
    end = time.monotonic() + DEADLINE_S
    while batch.describe_jobs(jobs=[job])["jobs"][0]["status"] != "RUNNING":
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.usefixtures("running_job")
def test_jobs_that_run_are_not_disturbed_unasked(cirro: Cirro) -> None:
    """``--yes`` is about the changes: a script is refused, and told what it can say."""
    refused = cirro("deploy", "--yes", "--parameter", "CpuInstanceTypes=m7i")
    assert refused.exit_code == 1
    assert "1 job runs (1 RUNNING) on instances that this change replaces" in refused.stderr
    assert "--running-jobs end" in refused.stderr
    assert cirro("deploy", "--yes", "--parameter", "CpuSpotMaxVcpus=16").exit_code == 0


@pytest.mark.usefixtures("running_job")
def test_at_a_terminal_it_is_asked_what_becomes_of_jobs_that_run() -> None:
    """Enter is the answer that changes nothing."""
    asked = Terminal("deploy", "--parameter", "CpuInstanceTypes=m7i")
    asked.answer("What about them? (refuse, wait, end) [refuse]", "")
    assert asked.end() == 1
    assert "they get 60 minutes, then AWS Batch terminates them" in asked.text


# --- destroy ------------------------------------------------------------------------------------------------------


def test_destroy_tells_what_goes_and_proves_it(aws: Emulator, cirro: Cirro) -> None:
    """Stacks, objects and their size; then the config, and that nothing is left."""
    cirro("deploy", "--yes")
    bucket = config.executor_section()["s3_bucket_name"]
    aws.client("s3").put_object(Bucket=bucket, Key="cirro/blobs/0", Body=bytes(2048))
    gone = cirro("destroy", "--yes")
    assert gone.exit_code == 0, gone.output
    assert re.search(rf"bucket +{bucket}: 1 objects, 2.0 KiB", gone.output)
    assert "cirro-compute, cirro-roles, cirro-storage, cirro-network" in gone.output
    assert re.search(r"storage +DELETE_COMPLETE +Bucket \(AWS::S3::Bucket\)", gone.output)
    assert "nothing of the deployment 'cirro' is left" in gone.output
    # Unset, and not taken out: a Covalent server that runs would write back what it had read.
    unset = {name: BY_NAME[name].default for name in config.executor_section()}
    assert config.executor_section() == {name: "" if value is None else value for name, value in unset.items()}
    assert statuses(aws) == {}
    again = cirro("destroy", "--yes")
    assert (again.exit_code, "There is no deployment 'cirro'" in again.output) == (0, True)


def test_shared_files_are_priced_before_they_are_made_and_outlive_the_deployment(aws: Emulator, cirro: Cirro) -> None:
    """`destroy` names what stays, and the command that deletes it; doctor looks at it."""
    made = cirro("deploy", "--yes", "--parameter", "SharedFileSystem=true")
    assert "0.30 USD for a GB and month" in made.output
    named = config.executor_section()["shared_files"].partition("/")[0]
    looked_at = json.loads(cirro("doctor", "--json").stdout)["findings"]
    [check] = [each for each in looked_at if each["id"] == "shared_files"]
    assert (check["subject"], check["level"]) == (named, "ok")
    given_up = cirro("deploy", "--yes", "--parameter", "SharedFileSystem=false")
    assert f"the file system {named} is given up: it stays" in given_up.output
    assert "jobs that run lose it" in given_up.output
    assert config.executor_section()["shared_files"] == ""
    aws.client("efs").delete_file_system(FileSystemId=named)
    cirro("deploy", "--yes", "--parameter", "SharedFileSystem=true")
    named = config.executor_section()["shared_files"].partition("/")[0]
    gone = cirro("destroy", "--yes")
    assert gone.exit_code == 0, gone.output
    assert f"aws efs delete-file-system --file-system-id {named}" in gone.output
    aws.client("efs").delete_file_system(FileSystemId=named)


def test_fair_shares_are_queues_of_their_own(deployed: Result, cirro: Cirro) -> None:
    """A deployment that changes its mind is told that jobs end; electrons get the new queues, and a share."""
    changed = cirro("deploy", "--yes", "--parameter", "FairShare=true")
    assert changed.exit_code == 0, changed.output
    assert "its jobs are terminated" in changed.output
    section = config.executor_section()
    assert (section["batch_queue"], section["share_identifier"]) == ("cirro-cpu-fair", "common")
    back = cirro("deploy", "--yes", "--parameter", "FairShare=false")
    assert back.exit_code == 0, back.output
    section = config.executor_section()
    assert section["batch_queue"] == "cirro-cpu"
    assert section["share_identifier"] == ""


def test_data_is_kept_where_it_is_asked_for(deployed: Result, aws: Emulator, cirro: Cirro) -> None:
    """Its stack stays and is told; the next deployment has the same bucket."""
    bucket = config.executor_section()["s3_bucket_name"]
    gone = cirro("destroy", "--yes", "--keep-data")
    assert gone.exit_code == 0, gone.output
    assert "is left but its data" in gone.output
    assert bucket in gone.output
    assert statuses(aws) == {"cirro-storage": "CREATE_COMPLETE"}
    assert cirro("deploy", "--yes").exit_code == 0
    assert config.executor_section()["s3_bucket_name"] == bucket


def test_file_systems_that_earlier_changes_left_are_told_with_the_command_for_them(aws: Emulator, cirro: Cirro) -> None:
    """No stack has them any more; they stay, which is no failure, and nothing waits for their end."""
    efs = aws.client("efs")
    tags = [{"Key": "covalent-cirro", "Value": "cirro"}]
    ours = efs.create_file_system(CreationToken="ours", Tags=tags)["FileSystemId"]
    other = efs.create_file_system(CreationToken="other", Tags=[{**tags[0], "Value": "other"}])["FileSystemId"]
    gone = cirro("destroy", "--yes", "--stack-name", "cirro")
    assert gone.exit_code == 0
    assert "but its file system" in gone.output
    assert f"aws efs delete-file-system --file-system-id {ours} --region" in gone.output
    assert other not in gone.output
    for each in (ours, other):
        efs.delete_file_system(FileSystemId=each)


def test_what_is_left_is_named_with_exit_code_1(aws: Emulator, cirro: Cirro, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the config still knows the deployment, so that it can be finished."""
    monkeypatch.setattr(holdings, "PROOF_PATIENCE_S", 0.0)
    cirro("deploy", "--yes")
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="left-over")
    s3.put_bucket_tagging(Bucket="left-over", Tagging={"TagSet": [{"Key": "covalent-cirro", "Value": "cirro"}]})
    failed = cirro("destroy", "--yes")
    assert failed.exit_code == 1
    assert "arn:aws:s3:::left-over" in failed.stderr
    assert "aws s3 rb s3://left-over --force" in failed.stderr
    assert config.last_deploy() is not None
    s3.delete_bucket(Bucket="left-over")
    assert cirro("destroy", "--yes").exit_code == 0
    assert config.last_deploy() is None


def test_destroy_without_a_terminal_needs_yes(deployed: Result, aws: Emulator, cirro: Cirro) -> None:
    """Nothing is touched."""
    refused = cirro("destroy")
    assert refused.exit_code == 2
    assert "give --yes. Nothing was deleted." in refused.stderr
    assert len(statuses(aws)) == 4


# --- at a terminal ------------------------------------------------------------------------------------------------


class Terminal:
    """``cirro`` at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._own, its = pty.openpty()
        script = "from covalent_cirro.cli import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=its,
            stdout=its,
            stderr=its,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
            start_new_session=True,
        )
        os.close(its)
        self.text = ""

    def answer(self, question: str, words: str) -> None:
        """Wait for a question, and type words and Enter."""
        end = time.monotonic() + DEADLINE_S
        while question not in self.text:
            assert time.monotonic() < end, self.text
            self._read()
        os.write(self._own, f"{words}\n".encode())

    def end(self) -> int:
        """The exit code, once all was said."""
        end = time.monotonic() + DEADLINE_S
        while self._read():
            assert time.monotonic() < end, self.text
        os.close(self._own)
        return self._process.wait(timeout=DEADLINE_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._own], [], [], 1.0)
        if not ready:
            return True
        try:
            data = os.read(self._own, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


def test_a_yes_is_typed_to_deploy_and_the_name_to_lose_data(aws: Emulator) -> None:
    """A no, and anything but the name, changes nothing."""
    no = Terminal("deploy")
    no.answer(f"Make these changes in account 123456789012 at {aws.endpoint_url}?", "n")
    assert no.end() == 1
    assert "you said no" in no.text
    assert statuses(aws) == {}

    yes = Terminal("deploy")
    yes.answer(f"Make these changes in account 123456789012 at {aws.endpoint_url}?", "y")
    assert yes.end() == 0
    assert "is ready" in yes.text

    bucket = config.executor_section()["s3_bucket_name"]
    aws.client("s3").put_object(Bucket=bucket, Key="cirro/blobs/0", Body=b"data")
    wrong = Terminal("destroy")
    wrong.answer("Type the deployment's name (cirro)", "yes")
    assert wrong.end() == 1
    assert len(statuses(aws)) == 4

    right = Terminal("destroy")
    right.answer("Type the deployment's name (cirro)", "cirro")
    assert right.end() == 0
    assert statuses(aws) == {}

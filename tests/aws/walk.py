"""The walk of docs/deploy.md, step by step: deploy, image, doctor, jobs, update, destroy, and nothing is left.

Runs `cirro` and the examples as processes of their own, with whatever AWS their environment means. It must not know
whether that is a real account or the emulator.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from covalent_cirro.local import covalent_process
from tests import servers

ROOT = Path(__file__).parents[2]
CIRRO = (sys.executable, "-c", "from covalent_cirro.cli import main; main()")
COMMAND_S = 2400.0
"""The longest of a real account: compute environments take minutes, and the first job waits for its machine."""
GONE_S = 300.0
"""A deleted thing may be listed by AWS for some minutes."""


@dataclass(frozen=True)
class Account:
    """An AWS account as a person with a terminal has it, and a Covalent of that person's own.

    Attributes:
        name: Of the deployment.
        environment: Of all processes: credentials, region, and ``AWS_ENDPOINT_URL`` where AWS is elsewhere.
        folder: Covalent's config, data and logs.
        client: Makes boto3 clients of the account, to look at what `cirro` says.
    """

    name: str
    environment: Mapping[str, str]
    folder: Path
    client: Callable[[str], Any]

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """A process as a person would start it."""
        return subprocess.run(
            [str(part) for part in command],
            env={**self.environment, **covalent_process.client_environment(self.folder)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def cirro(self, *arguments: str, exit_code: int = 0) -> Any:
        """What `cirro` says of this deployment, as a document."""
        done = self.run(*CIRRO, *arguments, "--stack-name", self.name, "--json")
        assert done.returncode == exit_code, f"cirro {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def covalent(self) -> Iterator[str]:
        """A Covalent server, as `covalent start` makes one; gives its URL."""
        with servers.covalent(self.folder, {}, self.environment) as url:
            yield url


def walk(
    account: Account,
    parameters: Mapping[str, object],
    *,
    put_image: Callable[[Account], None],
    jobs: int = 24,
    gpus: int = 0,
) -> None:
    """Take all of it, from nothing to nothing.

    Args:
        account: Where; nothing is deployed under its name.
        parameters: Of the deployment.
        put_image: Brings an image with the runner into the deployment's repository, and into Covalent's config.
        jobs: How many jobs the first dispatch has.
        gpus: GPUs of one more job; 0 for no such job.

    Raises:
        AssertionError: A step did not do what the documentation says.
    """
    given = [part for name, value in parameters.items() for part in ("--parameter", f"{name}={value}")]
    with account.covalent():
        account.cirro("status", exit_code=3)
        made = account.cirro("deploy", "--yes", *given)
        assert made["changed"]
        assert not made["config"]["kept"]
        put_image(account)
        diagnosis(account)
        sweep(account, "--jobs", str(jobs), "--gpus", str(gpus))
        update(account)
        sweep(account, "--jobs", "2")
    end(account, made["outputs"])


def diagnosis(account: Account) -> None:
    """All is well: nothing that `cirro doctor` looks at is a failure."""
    found = account.cirro("doctor")["findings"]
    unwell = [each for each in found if each["level"] not in ("ok", "warning", "skipped")]
    assert not unwell, json.dumps(unwell, indent=2)
    assert len({each["id"] for each in found if each["level"] == "ok"}) > 10


def sweep(account: Account, *arguments: str) -> None:
    """The smallest dispatch, as jobs of the account."""
    done = account.run(sys.executable, ROOT / "examples" / "pi.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pi is about 3.14" in done.stdout
    if arguments[-1] != "0" and "--gpus" in arguments:
        assert "a job had a GPU" in done.stdout


def update(account: Account) -> None:
    """A parameter is changed in place: the compute environments stay the same. A second time changes nothing."""
    before = account.cirro("status")
    done = account.cirro("deploy", "--yes", "--parameter", "CpuSpotMaxVcpus=8")
    assert done["changed"]
    assert {each["stack"] for each in done["changes"]} == {f"{account.name}-compute"}
    assert {each["replacement"] for each in done["changes"]} <= {"", "False", "Conditional"}
    after = account.cirro("status")
    was, now = (
        {each["name"]: each["max_vcpus"] for each in seen["compute_environments"] if each["kind"] == "SPOT"}
        for seen in (before, after)
    )
    assert was.keys() == now.keys()
    assert sorted(now[name] for name in now if now[name] != was[name]) == [8]
    assert not account.cirro("deploy", "--yes")["changed"]


def end(account: Account, outputs: Mapping[str, str]) -> None:
    """Destroy it. Neither `cirro` nor AWS, asked for each thing by its name, knows of anything that is left."""
    assert account.cirro("destroy", "--yes")["left"] == []
    account.cirro("status", exit_code=3)
    assert left(account, outputs) == []


def clean_up(account: Account) -> None:
    """Leave nothing that costs, however far a walk came."""
    assert account.cirro("destroy", "--yes")["left"] == []


def left(account: Account, outputs: Mapping[str, str]) -> list[str]:
    """What of a deployment is still there, by the names that its outputs have. Waits a while for it to go."""
    queues = [outputs[name] for name in ("BatchQueue", "BatchOnDemandQueue", "BatchGpuQueue") if name in outputs]
    calls: dict[str, Callable[[], Any]] = {
        "bucket": lambda: account.client("s3").head_bucket(Bucket=outputs["S3BucketName"]),
        "repository": lambda: account.client("ecr").describe_repositories(
            repositoryNames=[outputs["ImageRepository"].partition("/")[2]]
        ),
        "job role": lambda: account.client("iam").get_role(RoleName=outputs["BatchJobRoleName"]),
        "execution role": lambda: account.client("iam").get_role(RoleName=outputs["BatchExecutionRoleName"]),
        "policy": lambda: account.client("iam").get_policy(PolicyArn=outputs["SubmitterPolicy"]),
        "log group": lambda: _listed(
            account.client("logs").describe_log_groups(logGroupNamePrefix=outputs["BatchJobLogGroupName"])["logGroups"]
        ),
        "VPC": lambda: account.client("ec2").describe_vpcs(VpcIds=[outputs["VpcId"]]),
        "queues": lambda: _listed(
            each
            for each in account.client("batch").describe_job_queues(jobQueues=queues)["jobQueues"]
            if each["status"] != "DELETED"
        ),
    }
    deadline = time.monotonic() + GONE_S
    while True:
        there = [name for name, call in calls.items() if _is_there(call)]
        if not there or time.monotonic() > deadline:
            return there
        time.sleep(1)


def _listed(found: Any) -> None:
    if not list(found):
        raise LookupError


def _is_there(call: Callable[[], Any]) -> bool:
    try:
        call()
    except LookupError:
        return False
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        if code == "404" or "NotFound" in code or "NoSuch" in code:
            return False
        raise
    return True

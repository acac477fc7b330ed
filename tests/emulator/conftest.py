"""An emulator for each module of tests, and a few words to use it with: queues, definitions, jobs, waiting."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from botocore.config import Config

from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.local.emulator.batch import shapes

SCALE = 0.02
"""A time limit of 60 s is 1.2 s here, the grace of 30 s is 0.6 s."""
DEADLINE_S = 90.0
"""Many times what anything here takes: a slow, busy machine must not fail a test."""

_numbers = itertools.count(1)


def poll(condition: Callable[[], Any], what: str = "the condition", deadline_s: float = DEADLINE_S) -> Any:
    """The condition's first true value; fails after the deadline."""
    begun = time.monotonic()
    while (waited_s := time.monotonic() - begun) < deadline_s:
        value = condition()
        if value:
            return value
        # Each look is a call or more: what is waited for longer is looked at less often.
        time.sleep(min(0.2, max(0.01, waited_s / 5)))
    raise AssertionError(f"{what} did not come true within {deadline_s:g} s")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Aws:
    """Clients of an emulator, and short forms of what tests do most."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        once = Config(retries={"mode": "standard", "total_max_attempts": 1})
        self._clients: dict[str, Any] = {}
        self.batch = emulator.client("batch", config=once)
        # Without it, boto3 signs URLs in a way that AWS has given up for new buckets.
        self.s3 = emulator.client("s3", config=once.merge(Config(signature_version="s3v4")))
        self.logs = emulator.client("logs")
        self.iam = emulator.client("iam")
        # boto3 drops what the model does not know: look at the answer itself.
        self.batch.meta.events.register("after-call.batch", self._check)

    def client(self, service: str) -> Any:
        """A client, made once."""
        if service not in self._clients:
            self._clients[service] = self.emulator.client(service)
        return self._clients[service]

    @staticmethod
    def _check(http_response: Any, model: Any, **_: Any) -> None:
        if http_response.status_code == 200:
            answer = json.loads(http_response.content)
            for job in answer.get("jobs", []):
                job.setdefault("startedAt", 0)  # declared as required, and absent until a job runs
            found = shapes.mistake(model.output_shape, answer)
            assert found is None, f"{model.name}: {found}"

    def name(self, kind: str = "x") -> str:
        """A name that no other test uses."""
        return f"{kind}-{next(_numbers)}"

    def environment(self, **resources: Any) -> str:
        """A new compute environment; keywords go into computeResources."""
        name = self.name("ce")
        given = {
            "type": "EC2",
            "minvCpus": 0,
            "maxvCpus": 16,
            "instanceTypes": ["m6i"],
            "instanceRole": "arn:aws:iam::123456789012:instance-profile/machine",
            "subnets": ["subnet-1"],
            "securityGroupIds": ["sg-1"],
        }
        self.batch.create_compute_environment(
            computeEnvironmentName=name, type="MANAGED", computeResources={**given, **resources}
        )
        return name

    def queue(self, *environments: str, **options: Any) -> str:
        """A new queue over compute environments, or over a new one."""
        name = self.name("queue")
        order = [
            {"order": i, "computeEnvironment": each} for i, each in enumerate(environments or (self.environment(),))
        ]
        self.batch.create_job_queue(
            **{"jobQueueName": name, "priority": 1, "computeEnvironmentOrder": order, **options}
        )
        return name

    def definition(
        self, *command: str, vcpus: int = 1, memory: int = 512, gpus: int = 0, options: Any = None, **container: Any
    ) -> str:
        """A new job definition as ``name:revision``; ``options`` are of the definition, others of its container."""
        requirements = [{"type": "VCPU", "value": str(vcpus)}, {"type": "MEMORY", "value": str(memory)}]
        if gpus:
            requirements.append({"type": "GPU", "value": str(gpus)})
        made = self.batch.register_job_definition(
            jobDefinitionName=self.name("definition"),
            type="container",
            containerProperties={
                "image": "image",
                "command": list(command),
                "resourceRequirements": requirements,
                **container,
            },
            **(options or {}),
        )
        return f"{made['jobDefinitionName']}:{made['revision']}"

    def submit(self, *command: str, queue: str | None = None, definition: str | None = None, **options: Any) -> str:
        """A new job's id."""
        return str(
            self.batch.submit_job(
                **{
                    "jobName": self.name("job"),
                    "jobQueue": queue or self.queue(),
                    "jobDefinition": definition or self.definition(*command),
                    **options,
                }
            )["jobId"]
        )

    def job(self, job_id: str) -> dict[str, Any]:
        """What DescribeJobs says of it."""
        (found,) = self.batch.describe_jobs(jobs=[job_id])["jobs"]
        return dict(found)

    def reach(self, job_id: str, *states: str) -> dict[str, Any]:
        """The job once it is in one of the states."""
        found = poll(lambda: (job := self.job(job_id))["status"] in states and job, f"{job_id} in {states}")
        return dict(found)

    def done(self, job_id: str) -> dict[str, Any]:
        """The job once it is terminal."""
        return self.reach(job_id, "SUCCEEDED", "FAILED")

    def role(self) -> str:
        """A new role for tasks."""
        trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}}]}
        made = self.iam.create_role(RoleName=self.name("role"), AssumeRolePolicyDocument=json.dumps(trust))
        return str(made["Role"]["Arn"])

    def bucket(self) -> str:
        """A new bucket."""
        name = self.name("bucket")
        self.s3.create_bucket(Bucket=name)
        return name

    def log(self, job: dict[str, Any], group: str = "/aws/batch/job") -> list[str]:
        """The lines that the job's last attempt logged."""
        stream = job["container"]["logStreamName"]
        events = self.logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        return [event["message"] for event in events]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An emulator with short times."""
    with Emulator(state_dir=tmp_path_factory.mktemp("state"), timing=Timing(scale=SCALE)) as emulator:
        yield Aws(emulator)


@pytest.fixture
def faults(aws: Aws) -> Iterator[Any]:
    """The emulator's faults, cleared afterwards."""
    yield aws.emulator.faults
    aws.emulator.faults.clear()


@pytest.fixture(name="poll")
def _poll() -> Callable[..., Any]:
    return poll


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """A client of the engine of this machine."""
    import docker.errors

    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    yield client
    client.close()

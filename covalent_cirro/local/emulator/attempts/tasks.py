"""What a job gets from ECS: AWS's variables, and credentials of its role by the endpoint that ECS has for them.

Only this module knows which access keys belong to jobs. It must not know how a job runs.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from covalent_cirro.local.emulator.batch.model import NODE_ADDRESS, Attempt, Job, Json

DURATION_S = 6 * 3600
"""How long a task's credentials are valid. The ECS agent renews them before; here each new task gets new ones."""

_ROLES = "iam/security-credentials"


@dataclass(frozen=True)
class Task:
    """An ECS task: one attempt of a job, the role that it has, and the role of its instance."""

    job: Job
    attempt: Attempt
    role_arn: str | None
    instance_role_arn: str | None


class Tasks:
    """Tasks that run, by their endpoint ids: their credentials and metadata, and which access keys are theirs.

    Args:
        assume: ``assume(role_arn, session_name, duration_s)`` gives credentials in ECS's form.
    """

    def __init__(self, assume: Callable[[str, str, int], Json]) -> None:
        self._assume = assume
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._jobs: dict[str, tuple[Job, str]] = {}
        self._issued: dict[tuple[str, str], Json] = {}

    def add(self, task: Task) -> None:
        """Add a task that starts."""
        with self._lock:
            self._tasks[task.attempt.endpoint_id] = task

    def remove(self, endpoint_id: str) -> None:
        """Remove a task that ended; its access keys stay known as a job's."""
        with self._lock:
            self._tasks.pop(endpoint_id, None)
            for key in [key for key in self._issued if key[0] == endpoint_id]:
                del self._issued[key]

    def credentials(self, endpoint_id: str) -> Json | None:
        """Credentials of the task's role, or `None` for a task that is unknown or has no role."""
        with self._lock:
            task = self._tasks.get(endpoint_id)
        if task is None or task.role_arn is None:
            return None
        return self._issue(endpoint_id, task, task.role_arn, session=task.attempt.task_id)

    def _issue(self, endpoint_id: str, task: Task, role_arn: str, session: str) -> Json:
        with self._lock:
            issued = self._issued.get((endpoint_id, role_arn))
        if issued is not None:
            return issued
        issued = self._assume(role_arn, session, DURATION_S)
        with self._lock:
            issued = self._issued.setdefault((endpoint_id, role_arn), issued)
            self._jobs[issued["AccessKeyId"]] = task.job, issued["SecretAccessKey"]
        return issued

    def metadata(self, endpoint_id: str) -> Json | None:
        """The container's part of ECS's task metadata, version 4, or `None` for an unknown task."""
        with self._lock:
            task = self._tasks.get(endpoint_id)
        if task is None:
            return None
        job, attempt = task.job, task.attempt
        return {
            "DockerId": f"{attempt.task_id}-0",
            "Name": "default",
            "Image": job.container["image"],
            "Limits": {"CPU": int(job.needs.vcpus * 1024), "Memory": job.needs.memory_mib},
            "DesiredStatus": "RUNNING",
            "KnownStatus": "RUNNING",
            "Type": "NORMAL",
            "LogDriver": "awslogs",
            "ContainerARN": attempt.task_arn.replace(":task/", ":container/"),
            "Labels": {"com.amazonaws.ecs.task-arn": attempt.task_arn},
        }

    def task_metadata(self, endpoint_id: str, region: str) -> Json | None:
        """The task's part of it, as far as it is read: where it runs; `None` for an unknown task."""
        with self._lock:
            task = self._tasks.get(endpoint_id)
        if task is None:
            return None
        return {
            "TaskARN": task.attempt.task_arn,
            "LaunchType": "FARGATE" if task.attempt.host.single_use else "EC2",
            "AvailabilityZone": f"{region}a",
        }

    def instance(self, endpoint_id: str, path: str, region: str) -> str | None:
        """An entry of the instance metadata service of the task's host, or `None`."""
        with self._lock:
            task = self._tasks.get(endpoint_id)
        if task is None:
            return None
        host = task.attempt.host
        if host.single_use:
            return None
        if path.rstrip("/").startswith(_ROLES):
            return self._of_instance_role(endpoint_id, task, path.rstrip("/").removeprefix(_ROLES).lstrip("/"))
        if path == "spot/instance-action" and host.interrupted_at is not None:
            # EC2 User Guide, Spot Instance interruption notices.
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(host.interrupted_at))
            return json.dumps({"action": "terminate", "time": at})
        return {
            "instance-id": host.instance_id,
            "instance-type": host.instance_type,
            "placement/region": region,
            "placement/availability-zone": f"{region}a",
            "instance-life-cycle": "spot" if host.environment.resources["type"] == "SPOT" else "on-demand",
        }.get(path)

    def _of_instance_role(self, endpoint_id: str, task: Task, asked: str) -> str | None:
        """The name of the instance's role, or, where that is asked for, the role's credentials.

        A job shares the network of its instance, and so reaches these (EC2 User Guide, Retrieve security credentials
        from instance metadata).
        """
        arn = task.instance_role_arn
        name = (arn or "").rsplit("/", 1)[-1]
        if arn is None or asked not in ("", name):
            return None
        if not asked:
            return name
        issued = self._issue(endpoint_id, task, arn, session=task.attempt.host.instance_id)
        given = {key: issued[key] for key in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return json.dumps({"Code": "Success", "LastUpdated": now, "Type": "AWS-HMAC", **given})

    def job_of(self, access_key: str | None) -> Job | None:
        """The job that an access key was given to; `None` for any other key."""
        found = self._jobs.get(access_key or "")
        return None if found is None else found[0]

    def secret_of(self, access_key: str) -> str | None:
        """The secret of an access key that was given to a job; `None` for any other key."""
        found = self._jobs.get(access_key)
        return None if found is None else found[1]


def command(job: Job) -> list[str]:
    """The job's command, with ``Ref::name`` replaced by the parameter; an unknown name is not replaced."""

    def value(match: re.Match[str]) -> str:
        return job.parameters.get(match[1], match[0])

    return [re.sub(r"Ref::([A-Za-z0-9_-]+)", value, part) for part in job.container.get("command", [])]


def environment(job: Job, attempt: Attempt, endpoint_url: str, region: str) -> dict[str, str]:
    """The variables that AWS Batch, ECS and the job's definition and overrides set.

    Source: User Guide, Job environment variables, Multi-node parallel jobs (there the id of a node is the job's with
    ``#`` and its index: aws/aws-parallelcluster, generate_hostfile.sh); ECS Developer Guide, task IAM roles, task
    metadata, GPUs.
    """
    variables = {entry["name"]: entry.get("value", "") for entry in job.container.get("environment", [])}
    variables.update(
        AWS_BATCH_JOB_ID=job.id,
        AWS_BATCH_JOB_ATTEMPT=str(attempt.number),
        AWS_BATCH_JQ_NAME=job.queue.name,
        AWS_BATCH_CE_NAME=attempt.host.environment.name,
        AWS_REGION=region,
        AWS_DEFAULT_REGION=region,
        AWS_ENDPOINT_URL=endpoint_url,
        AWS_EXECUTION_ENV="AWS_ECS_FARGATE" if attempt.host.single_use else "AWS_ECS_EC2",
        ECS_CONTAINER_METADATA_URI_V4=f"{endpoint_url}/_cirro/metadata/{attempt.endpoint_id}",
    )
    if not attempt.host.single_use:  # Fargate has no instance metadata service
        variables["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"{endpoint_url}/_cirro/instance/{attempt.endpoint_id}"
    if job.array_index is not None:
        variables["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.array_index)
    if job.node_index is not None and job.parent is not None:
        main = job.parent.main_node
        variables.update(
            AWS_BATCH_JOB_NODE_INDEX=str(job.node_index),
            AWS_BATCH_JOB_NUM_NODES=str(len(job.parent.nodes)),
            AWS_BATCH_JOB_MAIN_NODE_INDEX=str(main.node_index),
        )
        if main is not job:
            variables["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"] = NODE_ADDRESS
    if job.container.get("jobRoleArn"):
        variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{endpoint_url}/_cirro/credentials/{attempt.endpoint_id}"
    if attempt.gpus:
        variables["NVIDIA_VISIBLE_DEVICES"] = ",".join(attempt.gpus)
    return variables

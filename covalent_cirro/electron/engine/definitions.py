"""Job definitions: built from settings, named by their content, looked up before they are registered.

The name is the digest of what the definition says, so that equal needs share one, in all servers of an account.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from covalent_cirro.aws.single_flight import SingleFlight
from covalent_cirro.contract.protocol import RUNNER_COMMAND
from covalent_cirro.jobs.tags import MADE_BY
from covalent_cirro.settings import Settings

Allowed = Callable[[], Awaitable[None]]

DIGEST_CHARS = 16
"""Hex characters of SHA-256 in a name: 64 bits tell the few thousand definitions of an account apart."""

LOG_STREAM_PREFIX = "cirro"
"""awslogs-stream-prefix: streams are called ``cirro/default/<ECS task id>``."""


def build_definition(settings: Settings, *, region: str, job_role_arn: str, execution_role_arn: str) -> dict[str, Any]:
    """The body of RegisterJobDefinition. Nothing of a dispatch is in it: all that are alike share it.

    Args:
        region: Where the container's SDK and its logs go.
        job_role_arn: Role of the container.
        execution_role_arn: Role of the ECS agent; empty for none.
    """
    resources = [
        {"type": "VCPU", "value": str(settings.vcpu)},
        {"type": "MEMORY", "value": str(settings.memory_mib)},
    ]
    if settings.num_gpus:
        resources.append({"type": "GPU", "value": str(settings.num_gpus)})
    container: dict[str, Any] = {
        "image": settings.container_image_uri,
        "command": list(RUNNER_COMMAND),
        "jobRoleArn": job_role_arn,
        "resourceRequirements": resources,
        # AWS promises the region for Fargate only. PYTHONUNBUFFERED: CloudWatch shows lines as they come.
        "environment": [
            {"name": "AWS_DEFAULT_REGION", "value": region},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
        ],
        # An init process reaps what electrons leave behind and passes SIGTERM on (LinuxParameters).
        "linuxParameters": {"sharedMemorySize": settings.shared_memory_mib, "initProcessEnabled": True},
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": settings.batch_job_log_group_name,
                "awslogs-region": region,
                "awslogs-stream-prefix": LOG_STREAM_PREFIX,
            },
        },
    }
    if execution_role_arn:
        container["executionRoleArn"] = execution_role_arn
    body: dict[str, Any] = {
        "type": "container",
        "platformCapabilities": ["EC2"],
        "containerProperties": container,
        "propagateTags": True,
        "tags": dict(MADE_BY),
    }
    return {"jobDefinitionName": f"{settings.batch_job_definition_name}-{digest(body)}", **body}


def digest(body: Mapping[str, Any]) -> str:
    """The same for equal bodies, whatever the order of their keys."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST_CHARS]


async def everything() -> None:
    """Nothing is refused."""


class Definitions:
    """Finds or registers definitions; each name once, however many ask at the same time."""

    def __init__(
        self,
        find: Callable[[str], Awaitable[str | None]],
        register: Callable[[Mapping[str, Any]], Awaitable[str]],
    ) -> None:
        self._find = find
        self._register = register
        self._found = SingleFlight[str, str | None](keep=True)
        self._registered = SingleFlight[str, str](keep=True)

    async def ensure(self, body: Mapping[str, Any], allowed: Allowed = everything) -> str:
        """``name:revision`` of an ACTIVE definition with this body.

        Args:
            body: Of RegisterJobDefinition.
            allowed: Awaited before one is registered; what it raises is raised.
        """
        name = body["jobDefinitionName"]
        found = await self._found.run(name, lambda: self._find(name))
        if found is not None:
            return found
        await allowed()
        return await self._registered.run(name, lambda: self._register(body))

    def forget(self, revision: str) -> None:
        """Look again next time: AWS said that this revision is not there any more."""
        name = revision.rsplit(":", 1)[0]
        self._found.forget(name)
        self._registered.forget(name)

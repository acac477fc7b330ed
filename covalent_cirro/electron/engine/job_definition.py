"""The body of a job definition: made from settings, and named by the digest of its content. Pure.

All electrons with equal settings share one definition, on all servers of an account.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from covalent_cirro.contract.protocol import RUNNER_COMMAND
from covalent_cirro.electron.engine import fargate, job_properties, job_variables, multi_node, shared_files
from covalent_cirro.jobs.tags import MADE_BY
from covalent_cirro.settings import Settings

DIGEST_CHARS = 16
"""Hex characters of SHA-256 in a name: 64 bits are enough for the few thousand definitions of an account."""

LOG_STREAM_PREFIX = "cirro"
"""awslogs-stream-prefix: streams are called ``cirro/default/<ECS task id>``."""


def build_definition(
    settings: Settings, *, region: str, job_role_arn: str, execution_role_arn: str, public_ip: bool = False
) -> dict[str, Any]:
    """The body of RegisterJobDefinition. Nothing in it depends on the dispatch.

    Args:
        settings: Settings of the executor.
        region: AWS region of the container's SDK and of its logs.
        job_role_arn: Role of the container.
        execution_role_arn: Role of the ECS agent; empty for none.
        public_ip: On Fargate, whether the job has a public address.

    Raises:
        SettingsError: ``job_properties`` cannot work.
    """
    container = container_properties(
        settings, region=region, job_role_arn=job_role_arn, execution_role_arn=execution_role_arn
    )
    if settings.on_fargate:
        container = fargate.properties(container, settings.architecture, public_ip=public_ip)
    container = job_properties.merged(container, settings)
    body: dict[str, Any] = {"propagateTags": settings.propagate_tags, "tags": dict(MADE_BY)}
    if settings.nodes > 1:
        body |= {"type": "multinode", "nodeProperties": multi_node.node_properties(container, settings)}
    else:
        body |= {"type": "container", "platformCapabilities": [settings.platform], "containerProperties": container}
        if settings.consumable_resources:
            body["consumableResourceProperties"] = multi_node.consumables(settings)
    return {"jobDefinitionName": f"{settings.batch_job_definition_name}-{digest(body)}", **body}


def refuse(settings: Settings, known: Collection[str]) -> None:
    """Refuse ``job_properties`` that cannot work, whatever the options are that are not known yet.

    Args:
        settings: Settings of the executor.
        known: Names of the options whose values are known; others have their default.

    Raises:
        SettingsError: They cannot work.
    """
    container = container_properties(settings, region="", job_role_arn="", execution_role_arn="")
    if settings.on_fargate:
        container = fargate.properties(container, settings.architecture, public_ip=False)
    job_properties.merged(container, settings, known)


def container_properties(
    settings: Settings, *, region: str, job_role_arn: str, execution_role_arn: str
) -> dict[str, Any]:
    """What each container of the job is made from; see `build_definition`."""
    resources = [
        {"type": "VCPU", "value": f"{settings.size.vcpus:g}"},
        {"type": "MEMORY", "value": str(settings.memory_mib)},
    ]
    if settings.num_gpus:
        resources.append({"type": "GPU", "value": str(settings.num_gpus)})
    container: dict[str, Any] = {
        "image": settings.container_image_uri,
        "command": list(RUNNER_COMMAND),
        "jobRoleArn": job_role_arn,
        "resourceRequirements": resources,
        # AWS sets the region on Fargate only. PYTHONUNBUFFERED: CloudWatch shows each line at once.
        "environment": [
            {"name": "AWS_DEFAULT_REGION", "value": region},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            *job_variables.environment_entries(settings),
        ],
        # An init process reaps processes that electrons leave behind, and forwards SIGTERM (LinuxParameters).
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
    if secrets := job_variables.secret_entries(settings):
        container["secrets"] = secrets
    if settings.shared_files:
        shared_files.mount(container, settings.shared_files)
    return container


def digest(body: Mapping[str, Any]) -> str:
    """A digest that is equal for equal bodies, in whatever order their keys are."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST_CHARS]

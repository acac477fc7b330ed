"""What a job has besides what every electron's job has: share, tags, consumable resources, properties. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from covalent_cirro.contract import texts
from covalent_cirro.jobs.tags import DISPATCH_TAG, ELECTRON_TAG, LATTICE_TAG, NODE_TAG

TEXT_CHARS = 200
"""Characters of each text."""

_OWN_TAGS = frozenset({DISPATCH_TAG, LATTICE_TAG, ELECTRON_TAG, NODE_TAG})

_USUAL = frozenset(
    {
        *("image", "command", "jobRoleArn", "executionRoleArn", "resourceRequirements", "vcpus", "memory"),
        *("environment", "secrets", "logConfiguration"),
        *("networkConfiguration", "runtimePlatform", "fargatePlatformConfiguration"),
        *("exitCode", "reason", "containerInstanceArn", "taskArn", "logStreamName", "networkInterfaces"),
    }
)
"""Properties that other lines show, or that say how the job went (API model, ContainerDetail)."""
_USUAL_LINUX = frozenset({"sharedMemorySize", "initProcessEnabled"})


def extras(described: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and texts of what one entry of DescribeJobs' ``jobs`` has besides; nothing for most jobs."""
    return tuple((name, texts.cut(texts.valid(text), TEXT_CHARS)) for name, text in _extras(described))


def _extras(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if share := described.get("shareIdentifier"):
        priority = described.get("schedulingPriority")
        yield "share", f"{share}{f', priority {priority}' if priority else ''}"
    held = (described.get("consumableResourceProperties") or {}).get("consumableResourceList") or ()
    if held:
        yield "holds", ", ".join(f"{each.get('quantity')} of {each.get('consumableResource')}" for each in held)
    tags = {key: value for key, value in (described.get("tags") or {}).items() if key not in _OWN_TAGS}
    if tags:
        yield "tags", ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))
    container = described.get("container") or {}
    linux = {key: value for key, value in (container.get("linuxParameters") or {}).items() if key not in _USUAL_LINUX}
    besides = {key: value for key, value in container.items() if key not in _USUAL and value}
    properties = {key: value for key, value in {**besides, "linuxParameters": linux}.items() if value}
    if properties:
        yield "properties", ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(properties.items()))

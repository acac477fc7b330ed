"""What a job has besides what every electron's job has: share, tags, consumable resources, shared files, properties.

Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from covalent_cirro.contract import texts
from covalent_cirro.jobs.tags import DISPATCH_TAG, ELECTRON_TAG, LATTICE_TAG, NODE_TAG

TEXT_CHARS = 200
"""Characters of each text."""

SHARED_VOLUME = "shared"
"""Name of the volume of the option `shared_files`."""

SHARED_FOLDER = "/shared"
"""Where jobs have it."""

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


def container_of(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container of one entry of DescribeJobs' ``jobs``; of a multi-node job, that of its first nodes."""
    container: Mapping[str, Any] = described.get("container") or _ranges(described)[0].get("container") or {}
    return container


def held(described: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Consumable resources that a job holds while it runs, and how many of each; of a multi-node job, all its nodes."""
    found = Counter(dict(_listed(described)))
    if not described.get("nodeDetails"):  # a node may have the properties of all nodes
        most = int((described.get("nodeProperties") or {}).get("numNodes") or 0)
        for each in _ranges(described):
            nodes = _nodes_in(str(each.get("targetNodes") or ""), most)
            found.update({name: count * nodes for name, count in _listed(each)})
    return tuple(found.items())


def _ranges(described: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (described.get("nodeProperties") or {}).get("nodeRangeProperties") or ({},)


def _listed(holder: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for each in (holder.get("consumableResourceProperties") or {}).get("consumableResourceList") or ():
        yield str(each.get("consumableResource") or ""), int(each.get("quantity") or 0)


def _nodes_in(target: str, most: int) -> int:
    """How many nodes a range has: ``0:3``, ``2:`` or ``:5`` (API model, NodeRangeProperty.targetNodes)."""
    first, _, last = target.partition(":")
    return max(0, (int(last) + 1 if last.isdigit() else most) - (int(first) if first.isdigit() else 0))


def extras(described: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and texts of what one entry of DescribeJobs' ``jobs`` has besides; nothing for most jobs."""
    return tuple((name, texts.cut(texts.valid(text), TEXT_CHARS)) for name, text in _extras(described))


def _extras(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if share := described.get("shareIdentifier"):
        priority = described.get("schedulingPriority")
        yield "share", f"{share}{f', priority {priority}' if priority else ''}"
    if resources := held(described):
        yield "holds", ", ".join(f"{count} of {name}" for name, count in resources)
    tags = {key: value for key, value in (described.get("tags") or {}).items() if key not in _OWN_TAGS}
    if tags:
        yield "tags", ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))
    container = dict(container_of(described))
    if shared := _take_shared_files(container):
        yield "shared files", f"{shared} at {SHARED_FOLDER}"
    linux = {key: value for key, value in (container.get("linuxParameters") or {}).items() if key not in _USUAL_LINUX}
    besides = {key: value for key, value in container.items() if key not in _USUAL and value}
    properties = {key: value for key, value in {**besides, "linuxParameters": linux}.items() if value}
    if properties:
        yield "properties", ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(properties.items()))


def _take_shared_files(container: dict[str, Any]) -> str:
    """The value of the option `shared_files`, whose volume and mount point are taken out; empty without it."""
    for volume in container.get("volumes") or []:
        efs = volume.get("efsVolumeConfiguration") or {}
        point = (efs.get("authorizationConfig") or {}).get("accessPointId")
        if volume.get("name") == SHARED_VOLUME and point:
            container["volumes"] = [each for each in container["volumes"] if each is not volume]
            container["mountPoints"] = [
                each for each in container.get("mountPoints") or [] if each.get("containerPath") != SHARED_FOLDER
            ]
            return f"{efs.get('fileSystemId')}/{point}"
    return ""

"""``nodeProperties`` of multi-node parallel jobs: checks with AWS's limits, overrides, each node's container. Pure.

Where AWS's exact text is not known, the text here says which field, which value and which range.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from covalent_cirro.local.emulator.batch import validation
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError

MAX_NODES = 1000
"""User Guide, Node groups."""
MAX_GROUPS = 5
"""User Guide, Node groups."""

_RANGE = re.compile(r"(\d*)(:)?(\d*)")

Override = Callable[[Json, Json], Json]
"""``override(container, overrides)`` gives ``containerProperties`` with ``containerOverrides`` applied."""


def check(properties: Json) -> None:
    """The ``nodeProperties`` of a RegisterJobDefinition request.

    Raises:
        ServiceError: AWS would not take it, or the emulator cannot run it.
    """
    groups = properties["nodeRangeProperties"]
    if not 1 <= len(groups) <= MAX_GROUPS:
        raise ServiceError(f"nodeRangeProperties must have 1 to {MAX_GROUPS} node ranges, got {len(groups)}")
    for group in groups:
        for field in ("ecsProperties", "eksProperties"):
            if group.get(field):
                raise ServiceError(f"{field} of a node range is not emulated; use container")
        if not group.get("container"):
            raise ServiceError(f"The node range {group['targetNodes']} has no container")
        validation.container(group["container"])
        if len(group.get("instanceTypes") or ()) > 1:
            raise ServiceError("instanceTypes of a node range is limited to one element")
    if len({tuple(group.get("instanceTypes") or ()) for group in groups}) > 1:
        raise ServiceError("All node ranges of a multi-node parallel job must use the same instance type")
    _check_counts(properties)


def _check_counts(properties: Json) -> None:
    count, main = properties["numNodes"], properties["mainNode"]
    if not 1 <= count <= MAX_NODES:
        raise ServiceError(f"numNodes must be between 1 and {MAX_NODES}, got {count}")
    if not 0 <= main < count:
        raise ServiceError(f"mainNode must be 0 or more and fewer than numNodes, which is {count}, got {main}")
    for group in properties["nodeRangeProperties"]:
        first, last = bounds(group["targetNodes"])
        if first > (count - 1 if last is None else last) or (last is not None and last >= count):
            raise ServiceError(f"The node range {group['targetNodes']} is not within 0:{count - 1}")
    for index in range(count):
        _group_of(properties, index)


def bounds(target: str) -> tuple[int, int | None]:
    """First and last index of a ``targetNodes``; the last is `None` where it is open.

    Raises:
        ServiceError: It is no range.
    """
    match = _RANGE.fullmatch(target)
    if match is None or not target:
        raise ServiceError(f"targetNodes {target!r} is not valid: use a range of node indexes, such as 0:3, 4: or :3")
    first = int(match[1] or 0)
    if match[2] is None:
        return first, first
    return first, int(match[3]) if match[3] else None


def _group_of(properties: Json, index: int) -> Json:
    """The range of a node: the narrowest, since a nested one overrides the one around it (API model, targetNodes)."""

    def width(group: Json) -> int:
        first, last = bounds(group["targetNodes"])
        end: int = properties["numNodes"] - 1 if last is None else last
        return end - first if first <= index <= end else MAX_NODES

    group: Json = min(properties["nodeRangeProperties"], key=width)
    if width(group) == MAX_NODES:
        raise ServiceError(f"nodeRangeProperties must account for all nodes: node {index} is in no range")
    return group


def with_overrides(properties: Json, overrides: Json, override: Override) -> Json:
    """The ``nodeProperties`` of a job: those of its definition with its ``nodeOverrides``.

    Raises:
        ServiceError: The overrides do not go with the definition. The texts about numNodes and targets are AWS's
            (aws/aws-cdk#29415, aws/aws-parallelcluster#964).
    """
    groups = {bounds(group["targetNodes"]): group for group in properties["nodeRangeProperties"]}
    count = overrides.get("numNodes", properties["numNodes"])
    if "numNodes" in overrides and all(last is not None for _, last in groups):
        raise ServiceError(
            "NumNodes override can only be applied if the job definition has at least 1 target node without a "
            "range_end i.e (:) or (range_start:)."
        )
    changes = {bounds(each["targetNodes"]): each for each in overrides.get("nodePropertyOverrides") or []}
    unknown = [each["targetNodes"] for target, each in changes.items() if target not in groups]
    if unknown:
        raise ServiceError(
            f"NodeOverride targets should match job definition. Non matching targets - {','.join(unknown)}"
        )
    made = []
    for target, group in groups.items():
        change = changes.get(target, {})
        for field in ("ecsPropertiesOverride", "eksPropertiesOverride"):
            if change.get(field):
                raise ServiceError(f"{field} of a node range is not emulated; use containerOverrides")
        validation.container_overrides(change.get("containerOverrides") or {})
        changed = {"container": override(group["container"], change.get("containerOverrides") or {})}
        if change.get("instanceTypes"):
            changed["instanceTypes"] = change["instanceTypes"]
        if change.get("consumableResourcePropertiesOverride"):
            changed["consumableResourceProperties"] = change["consumableResourcePropertiesOverride"]
        made.append({**group, **changed})
    result = {**properties, "numNodes": count, "nodeRangeProperties": made}
    check(result)
    return result


def groups(properties: Json | None) -> list[Json]:
    """The entry of ``nodeRangeProperties`` of each node, by index; none for a job without nodes."""
    return [] if properties is None else [_group_of(properties, index) for index in range(properties["numNodes"])]

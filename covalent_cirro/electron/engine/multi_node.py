"""The part of a job definition that makes a multi-node parallel job of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from covalent_cirro.jobs.compute_nodes import MAIN_NODE
from covalent_cirro.settings import Settings


def node_properties(container: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """``nodeProperties`` of equal nodes.

    Args:
        container: What each node's container is made from.
        settings: Settings of the executor; consumable resources are held by each node (API model, NodeRangeProperty).
    """
    each: dict[str, Any] = {"targetNodes": "0:", "container": dict(container)}
    if settings.consumable_resources:
        each["consumableResourceProperties"] = consumables(settings)
    return {"numNodes": settings.nodes, "mainNode": MAIN_NODE, "nodeRangeProperties": [each]}


def consumables(settings: Settings) -> dict[str, Any]:
    """``consumableResourceProperties`` of a job or of a node."""
    held = sorted(settings.consumable_resources.items())
    return {"consumableResourceList": [{"consumableResource": name, "quantity": quantity} for name, quantity in held]}

"""Electrons whose function runs in several processes, on one machine or more: what their calls say of it.

Pure. `runner/team.py` and `runner/ranks.py` run them.
"""

from __future__ import annotations

from covalent_cirro.errors import SettingsError
from covalent_cirro.settings import Settings


def processes_of(settings: Settings) -> int:
    """Processes that call the function on each node, each with a rank; 0: it is called once, without a rank."""
    return settings.processes if settings.nodes > 1 or settings.processes_per_node is not None else 0


def refuse(settings: Settings, node_id: int, *, electrons: int = 1, is_map: bool = False) -> None:
    """Refuse what cannot be distributed.

    Args:
        settings: Settings of the executor.
        node_id: The first electron of the task group.
        electrons: Electrons of the task group.
        is_map: The electron is mapped.

    Raises:
        SettingsError: It is a map, or packed with other electrons.
    """
    if not processes_of(settings):
        return
    name, value = ("num_nodes", settings.nodes) if settings.nodes > 1 else ("processes_per_node", settings.processes)
    if is_map:
        if settings.nodes > 1:
            why = "AWS Batch has no array of multi-node jobs"
        else:
            why = "a map calls its function once for each item, in one process, which has no rank"
        raise SettingsError(
            f"The electron of node {node_id} is mapped, and {name}={value} is set on its executor: {why}. For several "
            "items at a time on one machine, set array_parallel; for several processes for each item, call an electron "
            "that is not mapped in a loop. Nothing was submitted."
        )
    if electrons > 1:
        raise SettingsError(
            f"The task group of node {node_id} has {electrons} electrons, and {name}={value} is set on its executor: a "
            "job of several processes runs one electron. Turn off task packing "
            "(ct.set_config('sdk.task_packing', 'false')). Nothing was submitted."
        )

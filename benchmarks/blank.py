"""An executor that does nothing: what Covalent itself needs for an electron is what is left. Short name ``blank``.

`lab.py` puts this file into ``sdk.executor_dir`` of the benchmark's Covalent server, which imports it from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from covalent._shared_files.schemas.asset import AssetUpdate
from covalent._shared_files.util_classes import RESULT_STATUS
from covalent.executor.base import AsyncBaseExecutor
from covalent.executor.schemas import TaskUpdate

EXECUTOR_PLUGIN_NAME = "BlankExecutor"

_EXECUTOR_PLUGIN_DEFAULTS = {"output": ""}


class BlankExecutor(AsyncBaseExecutor):
    """Completes electrons without running them.

    Args:
        output: File that becomes their output; empty for none.
    """

    SUPPORTS_MANAGED_EXECUTION = True

    def __init__(self, output: str = "") -> None:
        super().__init__()
        self.output = output

    async def run(self, function: Any, args: Any, kwargs: Any, task_metadata: Any) -> Any:
        """Not the managed way; Covalent does not take it."""
        raise NotImplementedError

    async def send(self, task_specs: Any, resources: Any, task_group_metadata: Any) -> dict[str, Any]:
        """Send nothing."""
        return {}

    async def poll(self, task_group_metadata: Any, data: Any) -> dict[str, Any]:
        """Wait for nothing."""
        return {}

    async def receive(self, task_group_metadata: dict[str, Any], data: Any) -> list[TaskUpdate]:
        """Complete all electrons of the group."""
        assets = {}
        if self.output:
            assets["output"] = _asset(Path(self.output))
        return [
            TaskUpdate(
                dispatch_id=task_group_metadata["dispatch_id"],
                node_id=node_id,
                status=RESULT_STATUS.COMPLETED,
                assets=assets,
            )
            for node_id in task_group_metadata["node_ids"]
        ]


def _asset(file: Path) -> AssetUpdate:
    return AssetUpdate(remote_uri=file.as_uri(), size=file.stat().st_size)

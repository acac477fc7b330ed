"""Builds the requests that the supervisor sends to the child (form: `child.py`): a task with local or inline bytes.

Pure: it takes the paths of fetched files and returns a JSON object.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from covalent_cirro.contract.protocol import Call, Task
from covalent_cirro.contract.references import Blob, Inline, Input, Joined, JoinedParts, NodeOutput


def blobs_of(call: Call) -> list[Blob]:
    """All blobs that a call refers to."""
    refs: list[Input | None] = [package.archive for package in call.packages]
    for task in call.tasks:
        refs += [task.function, task.hooks, *task.args, *task.kwargs.values()]
    refs += [body for joined in joined_of(call) for body in joined.bodies]
    return [ref for ref in refs if isinstance(ref, Blob)]


def joined_of(call: Call) -> list[Joined | JoinedParts]:
    """All inputs of a call that are results of mapped electrons."""
    inputs = (ref for task in call.tasks for ref in (*task.args, *task.kwargs.values()))
    return [ref for ref in inputs if isinstance(ref, (Joined, JoinedParts))]


def build(
    call: Call,
    task: Task,
    paths: Mapping[Input, str],
    outputs: Mapping[int, str],
    folder: str,
    *,
    checkpoint: str,
    attempt: int,
    first: bool,
) -> dict[str, Any]:
    """The request to run a task.

    Args:
        call: Its call.
        task: The task.
        paths: Paths of the decoded blobs, and of the lists that were joined of some.
        outputs: Paths of the pickled results of earlier tasks, by node id.
        folder: Folder for results.
        checkpoint: The folder that the electron shares with the runner (`protocol.CHECKPOINT_VARIABLE`).
        attempt: Number of the attempt, from 1, counted over all tries.
        first: Whether it is the first request of the call, which has the local packages.
    """

    def ref(where: Input) -> dict[str, Any]:
        if isinstance(where, Inline):
            return {"inline": base64.b64encode(where.data).decode("ascii")}
        return {"path": outputs[where.node_id] if isinstance(where, NodeOutput) else paths[where]}

    packages = call.packages if first else ()
    return {
        "dispatch_id": call.dispatch_id,
        "covalent": call.covalent,
        "folder": folder,
        "checkpoint": checkpoint,
        "attempt": attempt,
        "packages": [{"name": package.name, "archive": ref(package.archive)} for package in packages],
        "task": {
            "node_id": task.node_id,
            "name": task.name,
            "function": ref(task.function),
            "hooks": None if task.hooks is None else ref(task.hooks),
            "args": [ref(where) for where in task.args],
            "kwargs": {key: ref(where) for key, where in task.kwargs.items()},
        },
    }

"""Leaves in S3 how one of Covalent's own nodes failed on the server's host, where `cirro show` and `cirro logs` look.

A call and an outcome as of any electron, but of no job. Covalent itself has the same in its files.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

from covalent_cirro.contract.documents import dump_call, dump_outcome
from covalent_cirro.contract.protocol import (
    LOG_TAIL_BYTES,
    Call,
    Failure,
    Inline,
    Kind,
    Log,
    NodeResult,
    Outcome,
    Task,
    Usage,
    location,
)
from covalent_cirro.covalent_server import assets
from covalent_cirro.electron.call_writer import new_call_id
from covalent_cirro.electron.send import engine_for
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)


async def keep(settings: Settings, dispatch_id: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write what became of nodes that failed. Best effort: whoever has no S3 at hand is told by Covalent.

    Args:
        settings: Of the nodes' executor.
        dispatch_id: Their dispatch.
        entries: From `host_nodes.run`.
    """
    failed = [entry for entry in entries if not entry["completed"]]
    if not failed:
        return
    try:
        made = await asyncio.to_thread(_documents, dispatch_id, failed)
        async with engine_for(settings) as engine:
            for node_id, (call, outcome) in made.items():
                place = location(settings.s3_bucket_name, settings.key_prefix, dispatch_id, node_id, call.call_id)
                await engine.store.put_document(place.bucket, place.call_key, dump_call(call))
                await engine.store.put_document(place.bucket, place.outcome_key, dump_outcome(outcome), once=True)
    except Exception as error:  # the node has failed all the same
        log.warning("`cirro show` will not know how nodes of dispatch %s failed: %s", dispatch_id, error)


def _documents(dispatch_id: str, entries: Sequence[Mapping[str, Any]]) -> dict[int, tuple[Call, Outcome]]:
    group = assets.load_group(dispatch_id, [entry["node_id"] for entry in entries], ())
    made = {}
    for entry in entries:
        paths = group.nodes[entry["node_id"]].paths
        made[entry["node_id"]] = documents(dispatch_id, entry, _log(paths["stdout"]), _log(paths["stderr"]))
    return made


def documents(dispatch_id: str, entry: Mapping[str, Any], stdout: Log, stderr: Log) -> tuple[Call, Outcome]:
    """The call and the outcome of a node that failed."""
    call_id, node_id, now = new_call_id(), entry["node_id"], time.time()
    python, cloudpickle = platform.python_version(), importlib.metadata.version("cloudpickle")
    failure = Failure(Kind.RAISED, entry["why"], entry["traceback"])
    task = Task(node_id, entry["name"], Inline(b""), None, (), {})
    call = Call(call_id, dispatch_id, python, cloudpickle, assets.check_version(), (task,))
    outcome = Outcome(
        call_id=call_id,
        attempt=1,
        job_id="",
        results=(NodeResult(node_id, None, failure, stdout, stderr),),
        usage=Usage(),
        python=python,
        cloudpickle=cloudpickle,
        host={"hostname": platform.node()},
        times={"stored": now},
    )
    return call, outcome


def _log(path: str) -> Log:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        return Log(size, (), file.read().decode("utf-8", "replace"))

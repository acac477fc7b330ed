"""Stores in S3 how one of Covalent's own nodes failed on the server's host, for `cirro show` and `cirro logs`.

Writes a call and an outcome as an electron has them, but without a job. Covalent has the same error in its files.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import platform
import time
from collections.abc import Sequence

from covalent_cirro.contract.documents import dump_call, dump_outcome
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.limits import LOG_TAIL_BYTES
from covalent_cirro.contract.places import location
from covalent_cirro.contract.protocol import Call, Log, NodeResult, Outcome, Task, Usage
from covalent_cirro.contract.references import Inline
from covalent_cirro.covalent_server import assets
from covalent_cirro.electron.call_writer import new_call_id
from covalent_cirro.electron.handover import HostNodeEnd
from covalent_cirro.electron.send import engine_for
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)


async def keep(settings: Settings, dispatch_id: str, ends: Sequence[HostNodeEnd]) -> None:
    """Store the nodes that failed. Never raises: where S3 cannot be written, Covalent still shows the error.

    Args:
        settings: Of the nodes' executor.
        dispatch_id: Their dispatch.
        ends: How the nodes ended.
    """
    failed = [end for end in ends if not end.completed]
    if not failed:
        return
    try:
        made = await asyncio.to_thread(_documents, dispatch_id, failed)
        async with engine_for(settings) as engine:
            for node_id, (call, outcome) in made.items():
                place = location(settings.s3_bucket_name, settings.key_prefix, dispatch_id, node_id, call.call_id)
                await engine.store.put_document(place.bucket, place.call_key, dump_call(call))
                await engine.store.put_document(place.bucket, place.outcome_key, dump_outcome(outcome), once=True)
    except Exception as error:  # Covalent's files have the error
        log.warning("`cirro show` will not know how nodes of dispatch %s failed: %s", dispatch_id, error)


def _documents(dispatch_id: str, ends: Sequence[HostNodeEnd]) -> dict[int, tuple[Call, Outcome]]:
    group = assets.load_group(dispatch_id, [end.node_id for end in ends], ())
    made = {}
    for end in ends:
        paths = group.nodes[end.node_id].paths
        made[end.node_id] = documents(dispatch_id, end, _log(paths["stdout"]), _log(paths["stderr"]))
    return made


def documents(dispatch_id: str, end: HostNodeEnd, stdout: Log, stderr: Log) -> tuple[Call, Outcome]:
    """The call and the outcome of a node that failed."""
    call_id, node_id, now = new_call_id(), end.node_id, time.time()
    python, cloudpickle = platform.python_version(), importlib.metadata.version("cloudpickle")
    failure = Failure(Kind.RAISED, end.why, end.traceback)
    task = Task(node_id, end.name, Inline(b""), None, (), {})
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

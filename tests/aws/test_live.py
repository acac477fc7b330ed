"""The same on a real account: opt-in, for those who have one. It costs a few cents and a few minutes of waiting.

    export CIRRO_LIVE=1 CIRRO_LIVE_SETTINGS='{"region": "eu-west-1", "s3_bucket_name": "...", "batch_queue": "...",
        "batch_job_role_name": "...", "batch_execution_role_name": "...", "batch_job_log_group_name": "...",
        "container_image_uri": "..."}'
    make test ARGS="tests/aws -m live"

The settings are those of a stack made from ``infra/cirro.yaml``; credentials come from AWS's usual chain.
"""

from __future__ import annotations

import json
import os
import random
import sys
import uuid
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.environ.get("CIRRO_LIVE") != "1", reason="needs an AWS account: set CIRRO_LIVE=1"),
]

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def executor(**options: Any) -> CirroBatchExecutor:
    """A small job of the account."""
    return CirroBatchExecutor(**{**json.loads(os.environ["CIRRO_LIVE_SETTINGS"]), "vcpu": 1, "memory": 1, **options})


def metadata() -> dict[str, Any]:
    """An electron's place in a dispatch of its own."""
    return {"dispatch_id": str(uuid.uuid4()), "node_id": 0}


async def test_a_function_runs_on_a_real_instance() -> None:
    """The first job of a new account waits some minutes for a machine."""
    assert await executor().run(lambda x: x + 1, [41], {}, metadata()) == 42


async def test_large_values_pass_whole() -> None:
    """Multipart uploads, TLS, and the role's own credentials."""
    noise = random.Random(1).randbytes(30_000_000)
    assert await executor(memory=2).run(lambda data: data[::-1], [noise], {}, metadata()) == noise[::-1]


async def test_an_exception_comes_back_with_its_log() -> None:
    """Traceback, job and log stream."""

    def boom() -> None:
        raise ValueError("no such luck")

    with pytest.raises(TaskRuntimeError, match=r"(?s)no such luck.*AWS Batch job .*log "):
        await executor().run(boom, [], {}, metadata())


async def test_a_job_that_needs_too_much_memory_is_told_so() -> None:
    """AWS's own evidence of an out-of-memory kill, and the figure to set."""
    with pytest.raises(TaskRuntimeError, match=r"(?i)memory"):
        await executor(memory=0.5).run(lambda: len(bytearray(2 * 1024**3)), [], {}, metadata())


@pytest.mark.skipif("CIRRO_LIVE_GPU" not in os.environ, reason="needs a GPU queue: set CIRRO_LIVE_GPU=1")
async def test_a_gpu_is_there() -> None:
    """With PyTorch in the image."""

    def name() -> str:
        import torch

        return str(torch.cuda.get_device_name(0))

    assert await executor(num_gpus=1, memory=8).run(name, [], {}, metadata())

"""What only a real account can show of single jobs: multipart uploads over TLS, AWS's own evidence, memory limits.

On a deployment of their own, which goes when they end.
"""

from __future__ import annotations

import json
import random
import sys
import uuid

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro.errors import SettingsError
from tests.aws.conftest import GPUS, Make, deploy, executors, metadata
from tests.aws.walk import Account

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def executor(account: Account, parameters: dict[str, object]) -> Make:
    """Makes executors of small jobs in the account."""
    return executors(account, deploy(account, parameters))


async def test_a_function_runs_on_a_real_instance(executor: Make) -> None:
    """The first job of a new deployment waits some minutes for a machine."""
    assert await executor().run(lambda x: x + 1, [41], {}, metadata()) == 42


async def test_large_values_pass_whole(executor: Make) -> None:
    """Multipart uploads, TLS, and the role's own credentials."""
    noise = random.Random(1).randbytes(30_000_000)
    assert await executor(memory=2).run(lambda data: data[::-1], [noise], {}, metadata()) == noise[::-1]


async def test_an_exception_comes_back_with_its_log(executor: Make) -> None:
    """Traceback, job and log stream."""

    def boom() -> None:
        raise ValueError("no such luck")

    with pytest.raises(TaskRuntimeError, match=r"(?s)no such luck.*AWS Batch job .*log "):
        await executor().run(boom, [], {}, metadata())


async def test_a_job_that_needs_too_much_memory_is_told_so(executor: Make) -> None:
    """AWS's own evidence of an out-of-memory kill, and the figure to set."""
    with pytest.raises(TaskRuntimeError, match=r"(?i)memory"):
        await executor(memory=0.5).run(lambda: len(bytearray(2 * 1024**3)), [], {}, metadata())


@pytest.mark.skipif(not GPUS, reason="needs a quota for GPUs: set CIRRO_LIVE_GPU=1")
async def test_a_gpu_is_there(executor: Make) -> None:
    """By NVIDIA's own tool, which the machine brings."""

    def names() -> str:
        import subprocess

        return subprocess.run(["nvidia-smi", "-L"], check=True, capture_output=True, text=True).stdout

    assert "GPU 0" in await executor(num_gpus=1, memory=8).run(names, [], {}, metadata())


async def test_variables_and_secrets_reach_the_electron_alone(
    executor: Make, account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """ECS reads them with the execution role; a log that prints one has stars; a missing one is told before."""
    manager, ssm = account.client("secretsmanager"), account.client("ssm")
    name, value, password = f"cirro-live-{uuid.uuid4()}", f"value-{uuid.uuid4()}", f"password-{uuid.uuid4()}"
    arn = str(manager.create_secret(Name=name, SecretString=json.dumps({"key": value}))["ARN"])
    ssm.put_parameter(Name=f"/{name}", Value=password, Type="SecureString")
    parameter = f"{arn.replace(':secretsmanager:', ':ssm:').partition(':secret:')[0]}:parameter/{name}"

    def electron() -> list[str]:
        import os

        print("the key is", os.environ["KEY"], os.environ["PASSWORD"])
        return [os.environ["OMP_NUM_THREADS"], os.environ["KEY"][::-1], os.environ["PASSWORD"][::-1]]

    try:
        account.cirro("deploy", "--yes", "--parameter", f"SecretArns={arn},{parameter}")
        made = executor(environment={"OMP_NUM_THREADS": "3"}, secrets={"KEY": f"{arn}:key", "PASSWORD": f"ssm:/{name}"})
        assert await made.run(electron, [], {}, metadata()) == ["3", value[::-1], password[::-1]]
        assert "the key is *** ***" in capsys.readouterr().out
        with pytest.raises(SettingsError, match="nothing was submitted"):
            await executor(secrets={"KEY": f"ssm:/{name}-missing"}).run(electron, [], {}, metadata())
    finally:
        manager.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)
        ssm.delete_parameter(Name=f"/{name}")
        account.cirro("deploy", "--yes", "--parameter", "SecretArns=")

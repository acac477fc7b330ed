"""Lithops: functions in workers, which take several items each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.peer import Case, Place
from peers.works import WORKS, shared_value

TITLE = "Lithops 3.8.0"
PACKAGES = ("lithops[aws]==3.8.0",)
SERVER = False
WORKERS = 10
"""``env_max_cpus`` is 10 by default, and a job of EC2 has at least one."""
CASES = {
    "tasks": Case("tasks", "`call_async`, 20 times", 20),
    "map20": Case("map20", "`map`, array of 10", WORKERS),
    "map400": Case("map400", "`map` of 200 items, twice, arrays of 10", 2 * WORKERS),
    "shared-items": Case("shared", "`map`, the value in each item, `data_limit` off", WORKERS, {"items": True}),
    "shared": Case("shared", "`map`, the value in the function's closure", WORKERS),
}
SET_UP = """\
Backend `aws_batch` with storage `aws_s3`, `env_type` EC2, the deployment's roles, subnets, security groups and bucket;
a `runtime` name of its own, since it builds the default one with Docker. It makes its compute environment, queue and
definition itself, and a job that describes its Python: all that before the call, by a first `call_async`. Jobs run its
`entry_point.py`, which is its image's entrypoint. The call is `map` (or `call_async`) to `get_result`. All else is at
its defaults, also at most 10 workers, so that a map is an array of 10 jobs at most. A
map of 400 items fails: its SubmitJob has 12 kB of overrides, which grow with the items, and ECS takes 8,192 characters;
so the 400 are two maps."""
RUNTIME = "peers:1"
IMAGE = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/lithops_v380_eers/{RUNTIME}"
"""The name that Lithops makes of account, region, version, user and runtime."""


def entrypoint(case: Case, place: Place, python: Path) -> list[str]:
    """Lithops' own."""
    (found,) = (python.parents[1] / "lib").glob("python*/site-packages/lithops/serverless/backends/aws_batch")
    return [str(python), str(found / "entry_point.py")]


def prepare(case: Case, place: Place) -> Callable[[], Any]:
    """Make an executor, and have it make what it needs."""
    import lithops

    executor = lithops.FunctionExecutor(config=_config(place.settings), log_level=None)
    executor.get_result(executor.call_async(_square(), 0))
    count = WORKS[case.work].items
    if case.work == "tasks":
        return lambda: executor.get_result([executor.call_async(_square(), index) for index in range(count)])
    if case.work == "map400":
        half = count // 2
        return lambda: [
            result
            for map_ in [executor.map(_square(), range(first, first + half)) for first in (0, half)]
            for result in executor.get_result(map_)
        ]
    if case.work != "shared":
        return lambda: executor.get_result(executor.map(_square(), range(count)))
    data = shared_value(place.inputs)

    def checked(data: bytes, index: int) -> int:
        import zlib

        return zlib.crc32(data) + index

    if case.options:
        return lambda: executor.get_result(executor.map(checked, [(data, index) for index in range(count)]))
    return lambda: executor.get_result(executor.map(lambda index: checked(data, index), range(count)))


def _square() -> Callable[[int], int]:
    def square(index: int) -> int:
        return index * index

    return square


def _config(settings: Any) -> dict[str, Any]:
    return {
        "lithops": {
            "backend": "aws_batch",
            "storage": "aws_s3",
            "data_limit": False,
            "telemetry": False,
        },
        "aws": {"region": settings["region"]},
        "aws_s3": {"storage_bucket": settings["s3_bucket_name"]},
        "aws_batch": {
            "account_id": "123456789012",
            "user_id": "peers",
            "runtime": RUNTIME,
            "runtime_memory": 2048,
            "runtime_cpu": 1,
            "env_type": "EC2",
            "execution_role": settings["execution_role_arn"],
            "job_role": settings["job_role_arn"],
            "instance_role": settings["instance_role"],
            "subnets": settings["subnets"],
            "security_groups": settings["security_groups"],
        },
    }

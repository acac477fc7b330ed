"""redun: tasks on its executor for AWS Batch, which gathers like tasks into arrays."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.peer import Case, Place
from peers.works import WORKS, shared_value

TITLE = "redun 0.44.1"
PACKAGES = ("redun==0.44.1",)
SERVER = False
CASES = {
    "tasks": Case("tasks", "20 tasks (it makes an array of them)", 20),
    "map400": Case("map400", "400 tasks (it makes an array of them)", 400),
    "shared": Case("shared", "10 tasks (it makes an array of them)", 10),
}
SET_UP = """\
An executor of type `aws_batch` with the deployment's queue, bucket and role; 1 vCPU and 2 GB a job, all intervals at
their defaults; its SQLite database. The call is `Scheduler.run` of a task that calls the others. The code is packed
and uploaded by redun; jobs run its own command `redun ... oneshot`."""
TASKS = "redun_tasks"


def entrypoint(case: Case, place: Place, python: Path) -> list[str]:
    """The command of the jobs says all."""
    return []


def prepare(case: Case, place: Place) -> Callable[[], Any]:
    """Configure redun, in a folder that has the tasks' module and nothing else: redun uploads it."""
    source = Path(__file__).with_name(f"{TASKS}.py")
    shutil.copy(source, place.folder / source.name)
    sys.path.insert(0, str(place.folder))
    tasks = importlib.import_module(TASKS)
    from redun import Scheduler
    from redun.config import Config

    settings = place.settings
    config = Config(
        {
            "backend": {"db_uri": f"sqlite:///{place.folder / 'redun.db'}"},
            "executors.default": {"type": "local"},
            "executors.batch": {
                "type": "aws_batch",
                "image": place.image,
                "queue": settings["batch_queue"],
                "s3_scratch": f"s3://{settings['s3_bucket_name']}/redun/",
                "role": settings["job_role_arn"],
                "aws_region": settings["region"],
                "vcpus": "1",
                "memory": "2",
            },
        }
    )
    scheduler = Scheduler(config=config)
    scheduler.load()
    count = WORKS[case.work].items
    if case.work != "shared":
        return lambda: scheduler.run(tasks.squares(count))
    data = shared_value(place.inputs)
    return lambda: scheduler.run(tasks.all_checked(data, count))

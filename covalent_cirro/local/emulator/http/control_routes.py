"""The emulator's own routes under ``/_cirro/``: calls, faults, limits, status; credentials and metadata of tasks.

| route | what it does |
| --- | --- |
| ``GET /_cirro/health`` | 200 once the emulator answers |
| ``GET /_cirro/status`` | queues, jobs by state, hosts, of every region in use |
| ``GET /_cirro/calls[?caller=job|client]`` | ``{"s3:PutObject": {"count", "bytes_in", "bytes_out"}}`` |
| ``DELETE /_cirro/calls`` | sets all counts to zero |
| ``GET, PUT, DELETE /_cirro/faults`` | lists, adds (one or ``{"faults": [...]}``, fields of `faults.Fault`), clears |
| ``GET, PUT /_cirro/limits`` | calls a second by Batch operation |
| ``GET, PUT /_cirro/images`` | ``{image: {"entrypoint", "command", "environment"}}``, for processes |
| ``GET, PUT /_cirro/account`` | vCPU quotas, cost tags, instance types that are absent (`account.Account`) |
| ``DELETE /_cirro/hosts/<instance id>[?notice_s=n]`` | terminates it now, or n seconds after a Spot notice |
| ``GET /_cirro/credentials/<endpoint_id>`` | credentials of a task's role, as the ECS agent gives them |
| ``GET /_cirro/metadata/<endpoint_id>`` | the task's container, as in ECS's task metadata version 4 |
| ``/_cirro/instance/<endpoint_id>/latest/...`` | the instance metadata service of the task's host |

The last three are for tasks, which know their ``endpoint_id`` (`model.Attempt`); the others need the emulator's key.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs

from covalent_cirro.local.emulator.account import Account
from covalent_cirro.local.emulator.attempts.runtime import ImageConfig
from covalent_cirro.local.emulator.attempts.tasks import Tasks
from covalent_cirro.local.emulator.batch import lookup
from covalent_cirro.local.emulator.batch.batch_api import Limits
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.faults import Faults
from covalent_cirro.local.emulator.http.answers import Answer, json_answer
from covalent_cirro.local.emulator.http.call_counts import CALLERS, CallCounts
from covalent_cirro.local.emulator.serving.task_threads import TaskThreads

TASKS = ("/_cirro/credentials/", "/_cirro/metadata/", "/_cirro/instance/")


def is_tasks(path: str) -> bool:
    """Whether a route is one of those for tasks."""
    return path.startswith(TASKS)


def status(batches: dict[str, Batch]) -> Json:
    """Queues, jobs by state and hosts, by region."""
    result: Json = {}
    for region, batch in batches.items():
        with batch.lock:
            result[region] = {
                "jobs": lookup.counts(batch),
                "queues": [
                    {
                        "name": queue.name,
                        "arn": queue.arn,
                        "state": queue.state,
                        "runnable": len(queue.runnable),
                        "head": queue.runnable[0].status_reason if queue.runnable else None,
                    }
                    for queue in batch.scheduler.queues.values()
                ],
                "compute_environments": [
                    {"name": each.name, "arn": each.arn, "state": each.state, "max_vcpus": each.max_vcpus}
                    for each in batch.fleet.environments.values()
                ],
                "hosts": [
                    {
                        "instance_id": host.instance_id,
                        "instance_type": host.instance_type,
                        "compute_environment": host.environment.name,
                        "ready": host.ready_at <= batch.now(),
                        "vcpus": host.vcpus,
                        "used_vcpus": host.used_vcpus,
                        "memory_mib": host.memory_mib,
                        "used_memory_mib": host.used_memory_mib,
                        "gpus": len(host.gpu_ids),
                        "free_gpus": len(host.free_gpus),
                        "jobs": sorted(host.jobs),
                    }
                    for host in batch.fleet.hosts.values()
                ],
            }
    return result


@dataclass
class ControlRoutes:
    """Answers requests to the emulator's own routes."""

    region: str
    batches: Callable[[], dict[str, Batch]]
    faults: Faults
    calls: CallCounts
    limits: Limits
    tasks: Tasks
    image_configs: dict[str, ImageConfig]
    account_settings: Account
    service_tasks: Callable[[], list[TaskThreads]]

    def __call__(self, method: str, path: str, query: str, body: bytes) -> Answer:
        """One request."""
        what, _, rest = path.removeprefix("/_cirro/").partition("/")
        answer = getattr(self, f"_{what}", None) if what.isalpha() else None
        if answer is None:
            return json_answer({"message": f"there is no {path}"}, 404)
        try:
            result: Answer = answer(method, rest, query, json.loads(body) if body.strip() else {})
        except (ValueError, TypeError, KeyError) as error:
            return json_answer({"message": str(error)}, 400)
        return result

    def _health(self, method: str, rest: str, query: str, body: Any) -> Answer:
        return json_answer({"status": "ok"})

    def _status(self, method: str, rest: str, query: str, body: Any) -> Answer:
        return json_answer(status(self.batches()))

    def _calls(self, method: str, rest: str, query: str, body: Any) -> Answer:
        if method == "DELETE":
            self.calls.reset()
            return json_answer({})
        caller = parse_qs(query).get("caller", [None])[0]
        if caller not in (None, *CALLERS):
            raise ValueError(f"caller is {caller!r}; known are {', '.join(CALLERS)}")
        return json_answer(self.calls.counts(caller))

    def _faults(self, method: str, rest: str, query: str, body: Any) -> Answer:
        if method == "DELETE":
            self.faults.clear(int(rest) if rest else None)
            return json_answer({})
        if method == "GET":
            return json_answer({"faults": self.faults.all()})
        asked = body.get("faults", [body])
        ids = [
            self.faults.add(each["kind"], **{key: value for key, value in each.items() if key != "kind"})
            for each in asked
        ]
        return json_answer({"ids": ids})

    def _limits(self, method: str, rest: str, query: str, body: Any) -> Answer:
        if method == "PUT":
            self.limits.set({str(key): float(value) for key, value in body.items()})
        return json_answer(self.limits.rates)

    def _images(self, method: str, rest: str, query: str, body: Any) -> Answer:
        if method == "PUT":
            self.image_configs.update({str(image): _image_config(**each) for image, each in body.items()})
        return json_answer({image: asdict(each) for image, each in self.image_configs.items()})

    def _account(self, method: str, rest: str, query: str, body: Any) -> Answer:
        return json_answer(self.account_settings.update(body if method == "PUT" else {}))

    def _hosts(self, method: str, rest: str, query: str, body: Any) -> Answer:
        for batch in self.batches().values():
            if rest in batch.fleet.hosts:
                if method == "DELETE":
                    notice_s = parse_qs(query).get("notice_s", [None])[0]
                    batch.lose_host(rest, None if notice_s is None else float(notice_s))
                return json_answer({})
        return json_answer({"message": f"there is no instance {rest}"}, 404)

    def _credentials(self, method: str, rest: str, query: str, body: Any) -> Answer:
        found = self.tasks.credentials(rest)
        for each in self.service_tasks():
            found = found or each.credentials(rest)
        return json_answer({"message": "no such task, or it has no role"}, 404) if found is None else json_answer(found)

    def _metadata(self, method: str, rest: str, query: str, body: Any) -> Answer:
        endpoint_id, _, part = rest.partition("/")
        if part == "task" and (task := self.tasks.task_metadata(endpoint_id, self.region)) is not None:
            return json_answer(task)
        found = self.tasks.metadata(endpoint_id)
        for each in self.service_tasks():
            found = found or each.metadata(endpoint_id)
        return json_answer({"message": "no such task"}, 404) if found is None else json_answer(found)

    def _instance(self, method: str, rest: str, query: str, body: Any) -> Answer:
        endpoint_id, _, path = rest.partition("/")
        if path == "latest/api/token":
            return Answer(200, [("Content-Type", "text/plain")], b"emulated")
        found = self.tasks.instance(endpoint_id, path.removeprefix("latest/meta-data/"), self.region)
        if found is None:
            return Answer(404, [("Content-Type", "text/plain")], b"Not Found")
        return Answer(200, [("Content-Type", "text/plain")], found.encode())


def _image_config(
    entrypoint: list[str] | None = None, command: list[str] | None = None, environment: dict[str, str] | None = None
) -> ImageConfig:
    return ImageConfig(
        tuple(map(str, entrypoint or ())),
        tuple(map(str, command or ())),
        {str(name): str(value) for name, value in (environment or {}).items()},
    )

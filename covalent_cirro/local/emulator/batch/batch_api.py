"""AWS Batch over HTTP: routes, requests checked by the service model, errors as AWS writes them, throttling.

It must not know how jobs run; what an operation does is `jobs`' and `resources`'.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from covalent_cirro.local.emulator.batch import consumable_operations, job_operations, resource_operations, shapes
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.http.answers import Answer

DEFAULT_LIMITS = {"SubmitJob": 50.0}
"""Calls a second (User Guide, Service quotas); for other operations AWS publishes none."""
UNWRAPPED = ("TooManyRequestsException", "ServerException")

Call = Callable[[Batch, Json, int], Json]


def _plain(function: Callable[[Batch, Json], Json]) -> Call:
    return lambda batch, request, size: function(batch, request)


OPERATIONS: dict[str, Call] = {
    "SubmitJob": job_operations.submit_job,
    "RegisterJobDefinition": resource_operations.register_job_definition,
    "DescribeJobs": _plain(job_operations.describe_jobs),
    "ListJobs": _plain(job_operations.list_jobs),
    "CancelJob": _plain(job_operations.cancel_job),
    "CancelJobs": _plain(job_operations.cancel_jobs),
    "TerminateJob": _plain(job_operations.terminate_job),
    "TerminateJobs": _plain(job_operations.terminate_jobs),
    "GetJobQueueSnapshot": _plain(job_operations.get_job_queue_snapshot),
    "DeregisterJobDefinition": _plain(resource_operations.deregister_job_definition),
    "DescribeJobDefinitions": _plain(resource_operations.describe_job_definitions),
    "CreateComputeEnvironment": _plain(resource_operations.create_compute_environment),
    "UpdateComputeEnvironment": _plain(resource_operations.update_compute_environment),
    "DeleteComputeEnvironment": _plain(resource_operations.delete_compute_environment),
    "DescribeComputeEnvironments": _plain(resource_operations.describe_compute_environments),
    "CreateJobQueue": _plain(resource_operations.create_job_queue),
    "UpdateJobQueue": _plain(resource_operations.update_job_queue),
    "DeleteJobQueue": _plain(resource_operations.delete_job_queue),
    "DescribeJobQueues": _plain(resource_operations.describe_job_queues),
    "CreateSchedulingPolicy": _plain(resource_operations.create_scheduling_policy),
    "UpdateSchedulingPolicy": _plain(resource_operations.update_scheduling_policy),
    "DeleteSchedulingPolicy": _plain(resource_operations.delete_scheduling_policy),
    "DescribeSchedulingPolicies": _plain(resource_operations.describe_scheduling_policies),
    "ListSchedulingPolicies": _plain(resource_operations.list_scheduling_policies),
    "CreateConsumableResource": _plain(consumable_operations.create),
    "DescribeConsumableResource": _plain(consumable_operations.describe),
    "UpdateConsumableResource": _plain(consumable_operations.update),
    "DeleteConsumableResource": _plain(consumable_operations.delete),
    "ListConsumableResources": _plain(consumable_operations.list_all),
    "ListJobsByConsumableResource": _plain(consumable_operations.list_jobs),
    "TagResource": _plain(resource_operations.tag_resource),
    "UntagResource": _plain(resource_operations.untag_resource),
    "ListTagsForResource": _plain(resource_operations.list_tags_for_resource),
}


class Limits:
    """Token buckets: an operation may be called so often a second, and as many times at once."""

    def __init__(self, rates: dict[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rates = dict(rates)
        self._buckets: dict[str, tuple[float, float]] = {}

    @property
    def rates(self) -> dict[str, float]:
        """Calls a second by operation."""
        return dict(self._rates)

    def set(self, rates: dict[str, float]) -> None:
        """Replace all limits."""
        with self._lock:
            self._rates = dict(rates)
            self._buckets.clear()

    def allow(self, operation: str) -> bool:
        """Whether one more call is allowed now; counts it if so."""
        with self._lock:
            rate = self._rates.get(operation)
            if rate is None:
                return True
            now = self._clock()
            tokens, at = self._buckets.get(operation, (max(rate, 1.0), now))
            tokens = min(max(rate, 1.0), tokens + (now - at) * rate)
            allowed = tokens >= 1.0
            self._buckets[operation] = (tokens - 1.0 if allowed else tokens, now)
            return allowed


def route(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    """The operation behind a method and a path, with the path's parameters."""
    if not path.startswith("/v1/"):
        return None
    for each in shapes.routes():
        if each.method == method:
            match = each.path.fullmatch(path)
            if match is not None:
                return each.operation, match.groupdict()
    return None


def operation(method: str, path: str) -> str | None:
    """The name of the operation behind a method and a path."""
    found = route(method, path)
    return None if found is None else found[0]


def throttled() -> Answer:
    """What AWS says to too many calls."""
    return failure(ServiceError("Too Many Requests", code="TooManyRequestsException", status=429))


def failure(refused: ServiceError) -> Answer:
    """An error as AWS writes it: REST-JSON, with its code in a header."""
    request_id = str(uuid.uuid4())
    text = refused.text
    if refused.code not in UNWRAPPED:
        text = f"Error executing request, Exception : {text}, RequestId: {request_id}"
    headers = [
        ("Content-Type", "application/json"),
        ("x-amzn-errortype", refused.code),
        ("x-amzn-RequestId", request_id),
    ]
    return Answer(refused.status, headers, json.dumps({"message": text}).encode())


def call(batch: Batch, limits: Limits, method: str, path: str, query: str, body: bytes) -> Answer:
    """Answer one request."""
    found = route(method, path)
    if found is None:
        return failure(ServiceError(f"{method} {path} is not an operation of AWS Batch", status=404))
    name, parameters = found
    if not limits.allow(name):
        return throttled()
    try:
        result = _call(batch, name, parameters, query, body)
    except ServiceError as refused:
        return failure(refused)
    headers = [("Content-Type", "application/json"), ("x-amzn-RequestId", str(uuid.uuid4()))]
    return Answer(200, headers, json.dumps(result).encode())


def _call(batch: Batch, name: str, parameters: dict[str, str], query: str, body: bytes) -> Json:
    if name not in OPERATIONS:
        raise ServiceError(f"{name} is not emulated")
    try:
        request: Any = json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise ServiceError(f"Unable to parse the request: {error}") from None
    if not isinstance(request, dict):
        raise ServiceError("The request must be an object")
    request.update(parameters)
    if name == "UntagResource":
        request["tagKeys"] = parse_qs(query).get("tagKeys", [])
    mistake = shapes.mistake(shapes.operation(name).input_shape, request)
    if mistake is not None:
        raise ServiceError(mistake)
    given = {key: value for key, value in request.items() if value is not None}
    return OPERATIONS[name](batch, given, len(body))

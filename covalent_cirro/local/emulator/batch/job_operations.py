"""The operations on jobs: submit, describe, list, cancel, terminate, snapshot. `shapes` has checked their requests."""

from __future__ import annotations

import math
from collections.abc import Callable

from covalent_cirro.local.emulator.batch import (
    consumable_operations,
    describe,
    fargate_rules,
    lookup,
    node_properties,
    validation,
)
from covalent_cirro.local.emulator.batch.describe import present
from covalent_cirro.local.emulator.batch.model import STATES, Job, JobDefinition, JobQueue, Json, needs_of
from covalent_cirro.local.emulator.batch.service import Batch, new_id
from covalent_cirro.local.emulator.batch.validation import ServiceError

LIST_JOBS = 1000
"""Results of ListJobs by state (API model, ListJobsRequest.maxResults)."""
LIST_JOBS_FILTERED = 100
"""Results of ListJobs with a filter."""
SNAPSHOT_JOBS = 100
"""API model, GetJobQueueSnapshot: the first 100 RUNNABLE jobs."""


def submit_job(batch: Batch, request: Json, size: int) -> Json:
    """SubmitJob."""
    validation.submit_job(request, size)
    with batch.lock:
        queue = lookup.queue(batch, request["jobQueue"])
        if queue.state != "ENABLED" or queue.status != "VALID":
            raise ServiceError(f"JobQueue {queue.name} is {queue.state} and {queue.status}: it does not accept jobs")
        definition = lookup.definition(batch, request["jobDefinition"])
        _check_share(queue, request)
        _check_platform(batch, queue, definition)
        nodes, overrides = _node_properties(definition, request), request.get("containerOverrides") or {}
        container: Json = {}
        if nodes is None:
            container = overridden(definition.container, overrides)
            platforms = definition.body.get("platformCapabilities") or ["EC2"]
            validation.resources(container, fargate=platforms[0] == "FARGATE")
        job_id = new_id()
        array_size = (request.get("arrayProperties") or {}).get("size")
        _check_dependencies(batch, request.get("dependsOn") or [], array_size)
        timeout = request.get("timeout") or definition.body.get("timeout") or {}
        retry = request.get("retryStrategy") or definition.body.get("retryStrategy") or {}
        propagate = request.get("propagateTags", definition.body.get("propagateTags"))
        job = Job(
            id=job_id,
            arn=batch.arn("job", job_id),
            name=request["jobName"],
            queue=queue,
            definition=definition,
            container=container,
            created_at=batch.now(),
            parameters={**definition.body.get("parameters", {}), **(request.get("parameters") or {})},
            tags=dict(request.get("tags") or {}),
            propagate_tags=propagate,
            retry={"attempts": retry.get("attempts", 1), "evaluateOnExit": retry.get("evaluateOnExit", [])},
            timeout_s=timeout.get("attemptDurationSeconds"),
            depends_on=list(request.get("dependsOn") or []),
            share=request.get("shareIdentifier"),
            scheduling_priority=request.get("schedulingPriorityOverride", definition.body.get("schedulingPriority")),
            overrides_size=max(map(validation.overrides_size, _all_overrides(request))),
            needs=needs_of(container),
            node_properties=nodes,
            consumables=consumable_operations.total(
                batch,
                request.get("consumableResourcePropertiesOverride")
                or definition.body.get("consumableResourceProperties"),
                *(each.get("consumableResourceProperties") for each in node_properties.groups(nodes)),
            ),
        )
        batch.submit(job, array_size, [each["container"] for each in node_properties.groups(nodes)])
    return {"jobArn": job.arn, "jobName": job.name, "jobId": job.id}


def _node_properties(definition: JobDefinition, request: Json) -> Json | None:
    """The ``nodeProperties`` of a job; `None` for one with a single node. What AWS says of a mixture is not known."""
    given = definition.node_properties
    if given is None:
        if request.get("nodeOverrides"):
            raise ServiceError("Node overrides should not be set for jobs that are not multi-node parallel jobs.")
        return None
    if request.get("containerOverrides"):
        raise ServiceError("Container overrides should not be set for multi-node parallel jobs: use nodeOverrides.")
    if request.get("arrayProperties"):
        raise ServiceError("Array properties should not be set for multi-node parallel jobs.")
    return node_properties.with_overrides(given, request.get("nodeOverrides") or {}, overridden)


def _all_overrides(request: Json) -> list[Json]:
    """The container overrides of a request: of the job, and of its ranges of nodes."""
    of_nodes = (request.get("nodeOverrides") or {}).get("nodePropertyOverrides") or []
    return [request.get("containerOverrides") or {}, *(each.get("containerOverrides") or {} for each in of_nodes)]


def overridden(container: Json, overrides: Json) -> Json:
    """``containerProperties`` with ``containerOverrides`` applied: by name for variables, by type for resources.

    The deprecated ``vcpus`` and ``memory`` do not override ``resourceRequirements`` (API model, ContainerOverrides).
    """
    result = dict(container)
    if overrides.get("command"):
        result["command"] = list(overrides["command"])
    variables = {entry["name"]: entry for entry in container.get("environment", [])}
    variables.update((entry["name"], entry) for entry in overrides.get("environment") or [])
    result["environment"] = list(variables.values())
    resources = {entry["type"]: entry for entry in container.get("resourceRequirements", [])}
    resources.update((entry["type"], entry) for entry in overrides.get("resourceRequirements") or [])
    result["resourceRequirements"] = list(resources.values())
    for kind, deprecated in (("VCPU", "vcpus"), ("MEMORY", "memory")):
        if kind in resources:
            result.pop(deprecated, None)
        elif overrides.get(deprecated):
            result[deprecated] = overrides[deprecated]
    return result


def _check_platform(batch: Batch, queue: JobQueue, definition: JobDefinition) -> None:
    platform = (definition.body.get("platformCapabilities") or ["EC2"])[0]
    behind = [batch.fleet.environments[arn] for arn in queue.order if arn in batch.fleet.environments]
    mistake = fargate_rules.queue_mistake(platform, on_fargate=any(each.fargate for each in behind))
    if behind and mistake:
        raise ServiceError(mistake)


def _check_share(queue: JobQueue, request: Json) -> None:
    share = request.get("shareIdentifier")
    if queue.policy_arn is not None and share is None:
        raise ServiceError(f"JobQueue {queue.name} has a scheduling policy: shareIdentifier is required")
    if queue.policy_arn is None and share is not None:
        raise ServiceError(f"JobQueue {queue.name} has no scheduling policy: shareIdentifier must not be given")


def _check_dependencies(batch: Batch, entries: list[Json], array_size: int | None) -> None:
    for entry in entries:
        needed_id = entry.get("jobId")
        if not needed_id:
            continue
        needed = batch.scheduler.jobs.get(needed_id)
        if needed is None:
            raise ServiceError(f"Dependency job {needed_id} does not exist")
        if entry.get("type") == "N_TO_N" and needed.array_size != array_size:
            raise ServiceError(
                f"An N_TO_N dependency needs arrays of one size: {needed_id} has {needed.array_size}, this {array_size}"
            )


def describe_jobs(batch: Batch, request: Json) -> Json:
    """DescribeJobs: unknown ids are left out."""
    ids = request["jobs"]
    if not 1 <= len(ids) <= validation.MAX_DESCRIBED:
        raise ServiceError(f"jobs must have 1 to {validation.MAX_DESCRIBED} job IDs, got {len(ids)}")
    with batch.lock:
        found = (batch.shown(_job_id(each)) for each in dict.fromkeys(ids))
        return {"jobs": [describe.job(job) for job in found if job is not None]}


def _job_id(id_or_arn: str) -> str:
    return id_or_arn.split(":job/", 1)[1] if id_or_arn.startswith("arn:") and ":job/" in id_or_arn else id_or_arn


def list_jobs(batch: Batch, request: Json) -> Json:
    """ListJobs: of a queue, newest first, of an array, or of a job with nodes.

    RUNNING only, unless another state or a filter is given.
    """
    given = [key for key in ("jobQueue", "arrayJobId", "multiNodeJobId") if request.get(key)]
    if len(given) != 1:
        raise ServiceError("Exactly one of jobQueue, arrayJobId and multiNodeJobId must be given")
    status = request.get("jobStatus") or "RUNNING"
    if status not in STATES:
        raise ServiceError(f"jobStatus {status} is not valid: use one of {', '.join(STATES)}")
    filters = request.get("filters") or []
    if len(filters) > 1:
        raise ServiceError("Only one filter can be used at a time")
    with batch.lock:
        if given == ["jobQueue"]:
            queue = lookup.queue(batch, request["jobQueue"])
            jobs = [job for job in batch.scheduler.jobs.values() if job.queue is queue and job.parent is None]
            jobs.reverse()
        else:
            parent = batch.scheduler.jobs.get(request[given[0]])
            of_parent = {"arrayJobId": "children", "multiNodeJobId": "nodes"}[given[0]]
            jobs, filters = getattr(parent, of_parent, []), []
        jobs = [job for job in jobs if batch.shown(job.id) is not None]
        if filters:
            keep, any_status = _filter(filters[0])
            jobs = [job for job in jobs if keep(job) and (any_status or job.status == status)]
        else:
            jobs = [job for job in jobs if job.status == status]
        limit = LIST_JOBS_FILTERED if filters else LIST_JOBS
        shown, token = lookup.page(
            jobs, lambda job: job.id, min(request.get("maxResults") or limit, limit), request.get("nextToken")
        )
        return present(jobSummaryList=[describe.job_summary(job) for job in shown], nextToken=token)


def _filter(entry: Json) -> tuple[Callable[[Job], bool], bool]:
    """A filter's test, and whether it makes ListJobs ignore the state."""
    name, values = entry.get("name"), entry.get("values") or []
    if len(values) != 1:
        raise ServiceError(f"Filter {name} must have exactly one value")
    value = values[0]

    def like(text: str, pattern: str) -> bool:
        return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern

    if name == "JOB_NAME":
        return lambda job: like(job.name.lower(), value.lower()), True
    if name == "JOB_DEFINITION":
        return lambda job: _of_definition(job.definition, value, like), True
    if name in ("BEFORE_CREATED_AT", "AFTER_CREATED_AT"):
        if not value.isdigit():
            raise ServiceError(f"Filter {name} must be a time in milliseconds, got {value!r}")
        before = name == "BEFORE_CREATED_AT"
        return lambda job: (math.floor(job.created_at * 1000) < int(value)) == before, True
    if name == "SHARE_IDENTIFIER":
        return lambda job: job.share == value, False
    raise ServiceError(
        f"Filter {name} is not valid: use JOB_NAME, JOB_DEFINITION, BEFORE_CREATED_AT, AFTER_CREATED_AT or "
        "SHARE_IDENTIFIER"
    )


def _of_definition(of: JobDefinition, value: str, like: Callable[[str, str], bool]) -> bool:
    return of.arn == value if value.startswith("arn:") else like(of.name, value)


def cancel_job(batch: Batch, request: Json) -> Json:
    """CancelJob: the answer is 200 in every state of the job, and for an unknown job."""
    validation.reason(request["reason"])
    with batch.lock:
        job = batch.scheduler.jobs.get(_job_id(request["jobId"]))
        _refuse_node(job)
        if job is not None:
            batch.cancel(job, request["reason"])
    return {}


def _refuse_node(job: Job | None) -> None:
    """Refuse to stop one node alone: AWS does not document what it does then, so nothing may rely on it."""
    if job is not None and job.node_index is not None:
        raise ServiceError(f"Job {job.id} is a node of a multi-node parallel job: cancel or terminate the job")


def terminate_job(batch: Batch, request: Json) -> Json:
    """TerminateJob: the answer is 200 in every state of the job, and for an unknown job."""
    validation.reason(request["reason"])
    with batch.lock:
        job = batch.scheduler.jobs.get(_job_id(request["jobId"]))
        _refuse_node(job)
        if job is not None:
            batch.terminate(job, request["reason"])
    return {}


def cancel_jobs(batch: Batch, request: Json) -> Json:
    """CancelJobs."""
    return _bulk(batch, request, cancel_job)


def terminate_jobs(batch: Batch, request: Json) -> Json:
    """TerminateJobs."""
    return _bulk(batch, request, terminate_job)


def _bulk(batch: Batch, request: Json, one: Callable[[Batch, Json], Json]) -> Json:
    ids = request["jobs"]
    if not 1 <= len(ids) <= validation.MAX_BULK:
        raise ServiceError(f"jobs must have 1 to {validation.MAX_BULK} job IDs, got {len(ids)}")
    validation.reason(request["reason"])
    successful, errors = [], []
    for job_id in ids:
        job = batch.scheduler.jobs.get(_job_id(job_id))
        fault = None if job is None else batch.context.faults.take_job("bulk_error", job.name)
        if fault is not None:
            code = fault.code or "ThrottlingException"
            errors.append({"job": job_id, "code": code, "message": fault.reason or "Rate exceeded"})
            continue
        try:
            one(batch, {"jobId": job_id, "reason": request["reason"]})
        except ServiceError as refused:
            errors.append({"job": job_id, "code": refused.code, "message": refused.text})
        else:
            successful.append(job_id)
    return {"successful": successful, "errors": errors}


def get_job_queue_snapshot(batch: Batch, request: Json) -> Json:
    """GetJobQueueSnapshot: the RUNNABLE jobs in the order in which they will start."""
    with batch.lock:
        queue = lookup.queue(batch, request["jobQueue"])
        jobs = [
            {"jobArn": job.arn, "earliestTimeAtPosition": math.floor((job.runnable_at or 0) * 1000)}
            for job in queue.runnable[:SNAPSHOT_JOBS]
        ]
        return {"frontOfQueue": {"jobs": jobs, "lastUpdatedAt": math.floor(batch.now() * 1000)}}

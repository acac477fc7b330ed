"""Checks of requests to AWS Batch, with AWS's limits. Pure. It must not know which resources exist.

Where AWS's exact text is not known, the text here says which field, which value and which range.
"""

from __future__ import annotations

import json
import re

from covalent_cirro.local.emulator.batch import fargate_rules
from covalent_cirro.local.emulator.batch.fleet import expand
from covalent_cirro.local.emulator.batch.model import Json

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""API model, SubmitJobRequest.jobName."""
RESOURCE_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""API model, RegisterJobDefinitionRequest.jobDefinitionName and others."""
SUBMIT_BYTES = 30 * 1024
"""User Guide, Service quotas: SubmitJob payload."""
DEFINITION_BYTES = 24 * 1024
"""User Guide, Service quotas: RegisterJobDefinition size."""
MAX_ATTEMPTS = 10
"""API model, RetryStrategy.attempts."""
MAX_EVALUATE_ON_EXIT = 5
"""API model, RetryStrategy.evaluateOnExit."""
MIN_TIMEOUT_S = 60
"""API model, JobTimeout.attemptDurationSeconds."""
ARRAY_SIZES = range(2, 10_001)
"""API model, SubmitJobRequest.arrayProperties."""
MAX_DEPENDENCIES = 20
"""API model, SubmitJobRequest.dependsOn."""
MAX_TAGS = 50
"""User Guide, Tag restrictions."""
MAX_REASON = 1024
"""API model, CancelJobRequest.reason."""
MAX_DESCRIBED = 100
"""API Reference, DescribeJobs: "A list of up to 100 job IDs"."""
MAX_BULK = 50
"""API model, CancelJobs and TerminateJobs."""
MAX_ENVIRONMENTS = 3
"""API model, CreateJobQueueRequest.computeEnvironmentOrder."""
MIN_MEMORY_MIB = 4
"""API model, ResourceRequirement, MEMORY."""

_TAG = re.compile(r"[\w\s+\-=.:/@]*")
_REASON_PATTERN = re.compile(r"[A-Za-z0-9.:\s]*\*?")
_EXIT_PATTERN = re.compile(r"[0-9]*\*?")


class ServiceError(Exception):
    """A service refuses a request, as AWS would.

    Attributes:
        text: The reason, without the text that AWS puts around it.
        code: ``ClientException``, unless another is given.
        status: HTTP status.
    """

    def __init__(self, text: str, *, code: str = "ClientException", status: int = 400) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.status = status


def submit_job(request: Json, size: int) -> None:
    """A SubmitJob request of ``size`` bytes.

    Raises:
        ServiceError: AWS would not take it.
    """
    if size > SUBMIT_BYTES:
        raise ServiceError(f"Job size must be less than {SUBMIT_BYTES // 1024} KiB, got {-(-size // 1024)} KiB")
    name = request["jobName"]
    if JOB_NAME.fullmatch(name) is None:
        raise ServiceError("Job name should match valid pattern")
    retry_strategy(request.get("retryStrategy"))
    timeout(request.get("timeout"))
    tags(request.get("tags"))
    array = request.get("arrayProperties")
    size = ARRAY_SIZES[0] if array is None else array.get("size")
    if size not in ARRAY_SIZES:
        raise ServiceError(f"Array size must be between {ARRAY_SIZES[0]} and {ARRAY_SIZES[-1]}, got {size}")
    dependencies = request.get("dependsOn") or []
    if len(dependencies) > MAX_DEPENDENCIES:
        raise ServiceError(f"Too many dependencies specified on the job. Maximum is {MAX_DEPENDENCIES}.")
    for entry in dependencies:
        kind, needed = entry.get("type"), entry.get("jobId")
        if kind not in (None, "N_TO_N", "SEQUENTIAL"):
            raise ServiceError(f"Dependency type {kind} is not valid: use N_TO_N or SEQUENTIAL")
        if kind == "SEQUENTIAL" and needed is None and array is None:
            raise ServiceError("A SEQUENTIAL dependency without a job ID is only valid for array jobs")
        if kind == "N_TO_N" and array is None:
            raise ServiceError("An N_TO_N dependency is only valid for array jobs")
        if kind != "SEQUENTIAL" and not needed:
            raise ServiceError("A dependency must name a job ID")
    priority = request.get("schedulingPriorityOverride")
    if priority is not None and not 0 <= priority <= 9999:
        raise ServiceError("schedulingPriorityOverride must be between 0 and 9999")
    share = request.get("shareIdentifier")
    if share is not None and re.fullmatch(r"[A-Za-z0-9]{1,255}", share) is None:
        raise ServiceError("shareIdentifier must be 1 to 255 alphanumeric characters")
    container_overrides(request.get("containerOverrides") or {})
    for field in ("eksPropertiesOverride", "ecsPropertiesOverride"):
        if request.get(field):
            raise ServiceError(f"{field} is not emulated; use containerOverrides")


def container_overrides(overrides: Json) -> None:
    """``containerOverrides`` of a job or of a range of nodes."""
    environment(overrides.get("environment"))
    if any(part == "" for part in overrides.get("command") or []):
        raise ServiceError("The command of a container override must not have an empty string")


def register_job_definition(request: Json, size: int) -> None:
    """A RegisterJobDefinition request of ``size`` bytes.

    Raises:
        ServiceError: AWS would not take it, or the emulator cannot run it.
    """
    if size > DEFINITION_BYTES:
        raise ServiceError(
            f"Job definition size must be less than {DEFINITION_BYTES // 1024} KiB, got {-(-size // 1024)} KiB"
        )
    resource_name("jobDefinitionName", request["jobDefinitionName"])
    if request["type"] not in ("container", "multinode"):
        raise ServiceError(f"Job definition type {request['type']} is not valid")
    for field in ("eksProperties", "ecsProperties"):
        if request.get(field):
            raise ServiceError(f"{field} is not emulated; use containerProperties")
    single = request["type"] == "container"
    wanted, unwanted = ("containerProperties", "nodeProperties")[:: 1 if single else -1]
    if not request.get(wanted) or request.get(unwanted):
        raise ServiceError(f"{wanted} must be provided for a job definition of type {request['type']}, no {unwanted}")
    platforms = request.get("platformCapabilities") or ["EC2"]
    if len(platforms) != 1 or platforms[0] not in ("EC2", "FARGATE"):
        raise ServiceError(f"platformCapabilities must be one of EC2, FARGATE, got {platforms}")
    retry_strategy(request.get("retryStrategy"))
    timeout(request.get("timeout"))
    tags(request.get("tags"))
    fargate = platforms[0] == "FARGATE"
    if single:
        container(request["containerProperties"], fargate=fargate)
    elif fargate:
        raise ServiceError("Multi-node parallel jobs are not supported on Fargate")


def container(container: Json, *, fargate: bool = False) -> None:
    """``containerProperties`` of a definition, or the ``container`` of a range of nodes."""
    if not container.get("image"):
        raise ServiceError("Container image must not be null or empty")
    environment(container.get("environment"))
    if mistake := fargate_rules.mistake(container, fargate=fargate):
        raise ServiceError(mistake)
    resources(container, fargate=fargate)
    if container.get("secrets") and not container.get("executionRoleArn"):  # the words are ECS's
        raise ServiceError(
            "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'."
        )
    shared = (container.get("linuxParameters") or {}).get("sharedMemorySize")
    if shared is not None and shared < 1:
        raise ServiceError(f"sharedMemorySize must be at least 1 MiB, got {shared}")


def resources(container: Json, *, fargate: bool = False) -> None:
    """The ``resourceRequirements`` of a container, or of a container with its overrides."""
    values: dict[str, str] = {}
    for entry in container.get("resourceRequirements") or []:
        if entry["type"] in values:
            raise ServiceError(f"resourceRequirements has {entry['type']} more than once")
        values[entry["type"]] = entry["value"]
    for kind, deprecated in (("VCPU", "vcpus"), ("MEMORY", "memory")):
        if kind in values and container.get(deprecated):
            raise ServiceError(
                "This value was submitted in a deprecated key and may conflict with the value provided by the job "
                "definition's resource requirements."
            )
        if kind not in values and container.get(deprecated):
            values[kind] = str(container[deprecated])
        if kind not in values:
            raise ServiceError(f"resourceRequirements must specify {kind}")
    unknown = sorted(set(values) - {"VCPU", "MEMORY", "GPU"})
    if unknown:
        raise ServiceError(f"Resource type {unknown[0]} is not valid: use VCPU, MEMORY or GPU")
    if fargate:
        if mistake := fargate_rules.size_mistake(values):
            raise ServiceError(mistake)
        return
    for kind, least in (("VCPU", 1), ("MEMORY", MIN_MEMORY_MIB), ("GPU", 1)):
        value = values.get(kind, str(least))
        if not value.isdigit() or int(value) < least:
            raise ServiceError(f"Value of {kind} must be a whole number of at least {least}, got {value!r}")


def retry_strategy(retry: Json | None) -> None:
    """A ``retryStrategy``."""
    if retry is None:
        return
    attempts = retry.get("attempts")
    if attempts is not None and not 1 <= attempts <= MAX_ATTEMPTS:
        raise ServiceError(f"Retry attempts must be between 1 and {MAX_ATTEMPTS}, got {attempts}")
    entries = retry.get("evaluateOnExit") or []
    if entries and attempts is None:
        raise ServiceError("evaluateOnExit requires attempts")
    if len(entries) > MAX_EVALUATE_ON_EXIT:
        raise ServiceError(f"evaluateOnExit must have at most {MAX_EVALUATE_ON_EXIT} entries, got {len(entries)}")
    for entry in entries:
        if str(entry["action"]).upper() not in ("RETRY", "EXIT"):
            raise ServiceError(f"evaluateOnExit action {entry['action']} is not valid: use RETRY or EXIT")
        for field, allowed in (
            ("onStatusReason", _REASON_PATTERN),
            ("onReason", _REASON_PATTERN),
            ("onExitCode", _EXIT_PATTERN),
        ):
            pattern = entry.get(field)
            if pattern is not None and (len(pattern) > 512 or allowed.fullmatch(pattern) is None):
                raise ServiceError(f"evaluateOnExit {field} {pattern!r} has characters that are not allowed")


def timeout(value: Json | None) -> None:
    """A ``timeout``."""
    seconds = None if value is None else value.get("attemptDurationSeconds")
    if seconds is not None and seconds < MIN_TIMEOUT_S:
        raise ServiceError(f"Timeout attemptDurationSeconds must be at least {MIN_TIMEOUT_S} seconds, got {seconds}")


def tags(values: dict[str, str] | None) -> None:
    """Tags of a resource."""
    if values is None:
        return
    if len(values) > MAX_TAGS:
        raise ServiceError(f"A resource can have at most {MAX_TAGS} tags, got {len(values)}")
    for key, value in values.items():
        if not 1 <= len(key) <= 128 or key.lower().startswith("aws:") or _TAG.fullmatch(key) is None:
            raise ServiceError(f"Tag key {key!r} is not valid")
        if len(value) > 256 or _TAG.fullmatch(value) is None:
            raise ServiceError(f"The value of tag {key!r} is not valid")


def environment(entries: list[Json] | None) -> None:
    """Environment variables of a container."""
    for entry in entries or []:
        if str(entry.get("name", "")).startswith("AWS_BATCH"):
            raise ServiceError(f"Environment variable {entry['name']} must not start with AWS_BATCH: it is reserved")


def resource_name(field: str, name: str) -> None:
    """The name of a definition, a queue, a compute environment or a policy."""
    if RESOURCE_NAME.fullmatch(name) is None:
        raise ServiceError(f"{field} {name!r} must be 1 to 128 letters, digits, hyphens and underscores")


def reason(text: str) -> None:
    """The reason of a cancel or a terminate."""
    if not text or len(text) > MAX_REASON:
        raise ServiceError(f"reason must have 1 to {MAX_REASON} characters")


def create_compute_environment(request: Json) -> None:
    """A CreateComputeEnvironment request."""
    resource_name("computeEnvironmentName", request["computeEnvironmentName"])
    state(request.get("state"))
    tags(request.get("tags"))
    if request["type"] != "MANAGED" or not request.get("computeResources"):
        raise ServiceError("Only MANAGED compute environments with computeResources are emulated")
    compute_resources(request["computeResources"])


def compute_resources(of: Json) -> None:
    """The ``computeResources`` of a compute environment, new or as they would be after an update."""
    kind = of["type"]
    if kind not in ("EC2", "SPOT", "FARGATE", "FARGATE_SPOT"):
        raise ServiceError(f"computeResources.type {kind} is not valid or not emulated")
    if of["maxvCpus"] < 1 or of["maxvCpus"] < of.get("minvCpus", 0):
        raise ServiceError("maxvCpus must be at least 1, and at least minvCpus")
    if not of.get("subnets"):
        raise ServiceError("computeResources.subnets must not be empty")
    if kind.startswith("FARGATE"):
        if of.get("instanceTypes") or of.get("instanceRole") or of.get("minvCpus"):
            raise ServiceError("instanceTypes, instanceRole and minvCpus are not valid for Fargate")
        if not of.get("securityGroupIds"):
            raise ServiceError("computeResources.securityGroupIds is required for Fargate")
        return
    if not of.get("instanceRole"):
        raise ServiceError("computeResources.instanceRole is required")
    if not of.get("securityGroupIds") and not of.get("launchTemplate"):
        raise ServiceError("computeResources needs securityGroupIds, or a launchTemplate that has them")
    if kind == "SPOT" and of.get("allocationStrategy") in (None, "BEST_FIT") and not of.get("spotIamFleetRole"):
        raise ServiceError("spotIamFleetRole is required for the allocation strategy BEST_FIT")
    try:
        expand(tuple(of.get("instanceTypes") or ()))
    except KeyError as error:
        raise ServiceError(f"Instance type {error.args[0]} is not valid") from None
    if len(architectures(of)) > 1:
        raise ServiceError("instanceTypes must be of one architecture: a compute environment cannot mix them")
    if not of.get("instanceTypes"):
        raise ServiceError("computeResources.instanceTypes must not be empty")


def architectures(of: Json) -> set[str]:
    """The architectures of the instance types in ``computeResources``; none on Fargate, which has both."""
    return {kind.architecture for kind in expand(tuple(of.get("instanceTypes") or ()))}


def job_queue(request: Json) -> None:
    """A CreateJobQueue request, or a queue as it would be after an update."""
    resource_name("jobQueueName", request["jobQueueName"])
    state(request.get("state"))
    tags(request.get("tags"))
    if not 0 <= request["priority"] <= 1000:
        raise ServiceError(f"priority must be between 0 and 1000, got {request['priority']}")
    order = request.get("computeEnvironmentOrder") or []
    if not 1 <= len(order) <= MAX_ENVIRONMENTS:
        raise ServiceError(f"computeEnvironmentOrder must have 1 to {MAX_ENVIRONMENTS} entries, got {len(order)}")
    if len({entry["order"] for entry in order}) != len(order):
        raise ServiceError("computeEnvironmentOrder has an order more than once")
    for action in request.get("jobStateTimeLimitActions") or []:
        if action["state"] != "RUNNABLE" or action["action"] not in ("CANCEL", "TERMINATE"):
            raise ServiceError("jobStateTimeLimitActions must have state RUNNABLE and action CANCEL")
        if not 600 <= action["maxTimeSeconds"] <= 86400:
            raise ServiceError(f"maxTimeSeconds must be between 600 and 86400, got {action['maxTimeSeconds']}")


def state(value: str | None) -> None:
    """The state of a queue or a compute environment."""
    if value not in (None, "ENABLED", "DISABLED"):
        raise ServiceError(f"state {value} is not valid: use ENABLED or DISABLED")


def overrides_size(container_overrides: Json) -> int:
    """Characters that overrides take of `scheduler.OVERRIDES_LIMIT`; Batch's own variables are not counted."""
    return len(json.dumps(container_overrides, separators=(",", ":"), ensure_ascii=False))

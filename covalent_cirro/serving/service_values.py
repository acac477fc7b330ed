"""The parameters of a service's stack (``infra/serving.yaml``), and what is wrong with them. Pure.

Everything is checked that AWS would refuse, or that would fail, only after something is paid for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.deployment import templates
from covalent_cirro.deployment.change_sets import Change
from covalent_cirro.deployment.doctor.verdicts.network import Subnet
from covalent_cirro.deployment.plans import NAME_PARAMETER, PartPlan, services_prefix
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.deployment.template_functions import as_text
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs.image_rules import ARCHITECTURES
from covalent_cirro.serving.service_costs import ServiceSize

TEMPLATE = "serving"
"""The template of a service's stack."""

MAX_STACK_NAME = 128
"""Characters (CloudFormation API Reference, CreateChangeSet, StackName)."""

SERVICE_NAME = "ServiceName"
IMAGE, MODEL = "Image", "Model"
PREVIOUS = {IMAGE: "PreviousImage", MODEL: "PreviousModel"}
"""By parameter that says what is served, the one that says what was served before."""

LINKED = ("VpcId", "SubnetIds", "SecurityGroupIds", "S3BucketName", "S3Prefix")
"""Parameters that are outputs of the deployment's stacks."""

REPOSITORY = "ImageRepositoryArn"

OWN_OPTIONS = {
    NAME_PARAMETER: "--stack-name",
    SERVICE_NAME: "the argument NAME",
    IMAGE: "--image",
    MODEL: "--model",
    **dict.fromkeys(PREVIOUS.values(), "`cirro serve update`, which keeps what was served before"),
    **dict.fromkeys((*LINKED, REPOSITORY), "the deployment's stacks, whose output it is"),
}
"""Parameters that are not given by name, and what sets them."""

READY_PATH = "/ready"
"""Health path of what serves a model: it answers 200 once the model is loaded."""

RECOMMENDER_COMMAND = "python,-m,recommender_service"
"""What serves a model where no image is named: ``examples/recommender/service`` (`docker/serve.Dockerfile`)."""

MODEL_IMAGE_TAG = "serve"
"""Tag in the deployment's repository of the image that serves a model where no image is named."""

LOCAL_MODEL_IMAGE = "recommender"
"""The same on the emulated AWS, whose tasks are processes that run from a folder of this name."""

ENDPOINTS = ("ecr.api", "ecr.dkr", "logs", "s3")
"""VPC endpoints that tasks without a route to the internet need (ECS Developer Guide, VPC endpoints for Fargate)."""

_GIB = 1024
_MEMORY_MIB = {
    256: (512, _GIB, 2 * _GIB),
    512: range(_GIB, 4 * _GIB + 1, _GIB),
    1024: range(2 * _GIB, 8 * _GIB + 1, _GIB),
    2048: range(4 * _GIB, 16 * _GIB + 1, _GIB),
    4096: range(8 * _GIB, 30 * _GIB + 1, _GIB),
    8192: range(16 * _GIB, 60 * _GIB + 1, 4 * _GIB),
    16384: range(32 * _GIB, 120 * _GIB + 1, 8 * _GIB),
}
"""Memory of a task in MiB by its CPU units (ECS Developer Guide, Fargate task CPU and memory)."""


class ServedImage(NamedTuple):
    """What ECR says of an image.

    Attributes:
        uri: URI of the image, with its digest where ECR has it.
        repository_arn: ARN of its repository; empty where it is in no repository of the account.
        architectures: What it is built for; none where that is not known.
        problem: Why tasks cannot pull it; empty where they can.
    """

    uri: str
    repository_arn: str
    architectures: tuple[str, ...] = ()
    problem: str = ""


class ServiceFacts(NamedTuple):
    """What a service's parameters are checked against.

    Attributes:
        region: Region of the deployment.
        emulated: Whether AWS is emulated.
        subnets: Subnets of the deployment that exist.
        image: The image; `None` for the one that is served already, which is not looked up again.
        certificate_problem: What is wrong with the certificate; empty where nothing is, or none is given.
    """

    region: str
    emulated: bool
    subnets: tuple[Subnet, ...]
    image: ServedImage | None = None
    certificate_problem: str = ""


# --- names ------------------------------------------------------------------------------------------------------------


def stack_name(deployment: str, service: str) -> str:
    """Name of a service's stack."""
    return services_prefix(deployment) + service


def service_name(deployment: str, stack: str) -> str | None:
    """Name of the service of a stack; `None` for a stack that is none of a service of this deployment."""
    name = stack.removeprefix(services_prefix(deployment))
    return name if name != stack and re.fullmatch(r"[a-z][a-z0-9-]*", name) else None


def name_for_model(model: str) -> str:
    """The name of a service for which the user gives none: that of its model, as far as a service can have it."""
    name = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return name[:32] if name[:1].isalpha() else f"model-{name}"[:32]


# --- values -----------------------------------------------------------------------------------------------------------


def check_given(given: Mapping[str, str]) -> None:
    """Check the parameters that the user gave by name.

    Raises:
        SettingsError: One does not exist, is set in another way, or has an impossible value.
    """
    declared = templates.parameters(templates.load(TEMPLATE))
    wrong = []
    for name, value in given.items():
        if name in OWN_OPTIONS:
            wrong.append(f"{name} is not given as a parameter, but by {OWN_OPTIONS[name]}")
        elif name not in declared:
            free = ", ".join(each for each in declared if each not in OWN_OPTIONS)
            wrong.append(f"there is no parameter {name!r}; there are {free}")
        elif not templates.is_possible(declared[name], value):
            wrong.append(f"{name}={value} is impossible: {templates.possible(declared[name])}")
    if wrong:
        raise SettingsError(". ".join(wrong))


def values(
    deployment: str,
    service: str,
    chosen: Mapping[str, str],
    outputs: Mapping[str, str],
    stack: Stack | None,
    facts: ServiceFacts,
) -> dict[str, str]:
    """The values of all parameters: chosen, of the deployment, kept, or the default.

    What was served before is remembered where image or model change.

    Args:
        deployment: Name of the deployment.
        service: Name of the service.
        chosen: Parameters with the values that the user chose.
        outputs: Outputs of the deployment's stacks.
        stack: The service's stack as it is; `None` where it is made anew.
        facts: From `service_facts.look`.
    """
    before = {} if stack is None else stack.parameters
    public = bool(facts.subnets) and all((each.way_out or "").startswith("igw-") for each in facts.subnets)
    found = {}
    for name, declaration in templates.parameters(templates.load(TEMPLATE)).items():
        if name in LINKED:
            value = outputs.get(name)
        elif name in chosen:
            value = chosen[name]
        elif name in before:
            value = before[name]
        elif name == REPOSITORY:
            value = outputs.get(name)
        elif name == "AssignPublicIp":
            value = "ENABLED" if public else "DISABLED"
        else:
            value = declaration.get("Default")
        if value is not None:
            found[name] = as_text(value)
    found |= {NAME_PARAMETER: deployment, SERVICE_NAME: service}
    if facts.image is not None:
        found[IMAGE] = facts.image.uri
        found[REPOSITORY] = facts.image.repository_arn or found.get(REPOSITORY, "")
    if stack is not None and any(found.get(name) != before.get(name, "") for name in PREVIOUS):
        found |= {previous: before.get(name, "") for name, previous in PREVIOUS.items()}
    return found


def size(wanted: Mapping[str, str], zones: int) -> ServiceSize:
    """What a service with these parameters pays for by the hour."""
    return ServiceSize(
        cpu_units=int(wanted["TaskCpu"]),
        memory_mib=int(wanted["TaskMemory"]),
        arm=wanted["CpuArchitecture"] == "arm64",
        public=wanted["AssignPublicIp"] == "ENABLED",
        zones=zones,
    )


def zones(subnets: Iterable[Subnet]) -> set[str]:
    """The zones of subnets."""
    return {each.zone for each in subnets}


# --- what is wrong ----------------------------------------------------------------------------------------------------


def problems(wanted: Mapping[str, str], facts: ServiceFacts) -> list[str]:
    """Why a service with these parameters would be refused or could not work, a sentence each, with what to do.

    Args:
        wanted: From `values`.
        facts: From `service_facts.look`.
    """
    name = stack_name(wanted[NAME_PARAMETER], wanted[SERVICE_NAME])
    found = [f"the stack's name {name!r} is longer than {MAX_STACK_NAME} characters: choose a shorter name"]
    found = found if len(name) > MAX_STACK_NAME else []
    found += _impossible(wanted)
    found += _of_image(wanted, facts)
    found += [facts.certificate_problem] if facts.certificate_problem else []
    found += _of_network(wanted, facts)
    found += _of_size(wanted)
    return found


def _impossible(wanted: Mapping[str, str]) -> list[str]:
    template = templates.load(TEMPLATE)
    declared = templates.parameters(template)
    missing = [name for name in declared if name not in wanted or (name in LINKED and not wanted[name])]
    if missing:
        return [
            f"the deployment does not say {', '.join(missing)}: its stacks are not complete. `cirro deploy` completes "
            "them"
        ]
    found = [
        f"{name}={value} is impossible: {templates.possible(declared[name])}"
        for name, value in wanted.items()
        if not templates.is_possible(declared[name], value)
    ]
    return found + [words.rstrip(".") for words in templates.broken_rules(template, wanted)]


def _of_image(wanted: Mapping[str, str], facts: ServiceFacts) -> list[str]:
    if facts.image is None:
        return []
    if facts.image.problem:
        return [facts.image.problem]
    needed = ARCHITECTURES.get(wanted["CpuArchitecture"], "")
    there = facts.image.architectures
    if not there or needed in there:
        return []
    other = next((name for name, each in ARCHITECTURES.items() if each in there), None)
    instead = f", or serve it on what it is for (--parameter CpuArchitecture={other})" if other else ""
    return [
        f"the image {facts.image.uri} is for {' and '.join(there)}, and tasks run on {needed}: they would end with "
        f"`exec format error`. Build it with `docker build --platform linux/{needed}` and push it{instead}"
    ]


def _of_network(wanted: Mapping[str, str], facts: ServiceFacts) -> list[str]:
    ids = [each for each in wanted.get("SubnetIds", "").split(",") if each]
    absent = sorted(set(ids) - {each.id for each in facts.subnets})
    if absent:
        gone = ", ".join(absent)
        return [f"the deployment's subnets {gone} do not exist any more: `cirro deploy` repairs the network"]
    there = zones(facts.subnets)
    if len(there) < 2:
        return [
            f"the deployment's subnets are in {len(there)} zone ({', '.join(there) or 'none'}), and a load balancer "
            "needs two: deploy the network with subnets in two zones or more (`cirro deploy --parameter Zones=2`, or "
            "ExistingSubnetIds)"
        ]
    public = wanted.get("AssignPublicIp") == "ENABLED"
    cut_off = [f"{each.id} {why}" for each in facts.subnets if (why := why_cut_off(each, public=public))]
    if not cut_off:
        return []
    return [
        f"the service could not work in this network: {'; '.join(cut_off)}. Give the subnets a route, or VPC endpoints "
        f"of {', '.join(ENDPOINTS)} (infra/README.md, `serving.yaml`)"
    ]


def why_cut_off(subnet: Subnet, *, public: bool) -> str | None:
    """Why tasks in a subnet cannot reach ECR, S3 and CloudWatch Logs, or nobody their load balancer; else `None`.

    Args:
        subnet: The subnet.
        public: Whether tasks have public addresses.
    """
    way_out = subnet.way_out or ""
    if public:
        if way_out.startswith("igw-"):
            return None
        return "has no route to an internet gateway, and AssignPublicIp is ENABLED"
    if way_out == "blackhole":
        return "has a route out to a gateway that is gone"
    absent = [name for name in ENDPOINTS if name not in subnet.endpoints]
    if not absent or (way_out and not way_out.startswith("igw-")):
        return None
    return (
        f"has no way out without public addresses (AssignPublicIp is DISABLED), nor an endpoint of {', '.join(absent)}"
    )


def _of_size(wanted: Mapping[str, str]) -> list[str]:
    try:
        cpu, memory = int(wanted["TaskCpu"]), int(wanted["TaskMemory"])
        least, most = int(wanted["MinTasks"]), int(wanted["MaxTasks"])
    except (KeyError, ValueError):
        return []  # `_impossible` says so
    found = []
    allowed: Sequence[int] = _MEMORY_MIB.get(cpu, ())
    if allowed and memory not in allowed:
        found.append(
            f"Fargate has no task of TaskCpu={cpu} and TaskMemory={memory}: with so many CPU units, memory is "
            f"{', '.join(map(str, allowed)) if len(allowed) <= 4 else _steps(allowed)} MiB"
        )
    if least > most:
        found.append(f"MinTasks={least} is more than MaxTasks={most}: give a MaxTasks of at least {least}")
    return found


def _steps(allowed: Sequence[int]) -> str:
    return f"{allowed[0]} to {allowed[-1]} in steps of {allowed[1] - allowed[0]}"


# --- changes ----------------------------------------------------------------------------------------------------------


def plan(wanted: Mapping[str, str], stack: Stack | None, changes: Iterable[Change], *, anew: bool) -> PartPlan:
    """What is to be done to a service's stack.

    Args:
        wanted: From `values`.
        stack: The stack as it is, if it can be updated.
        changes: From its change set.
        anew: Its creation failed, and it is deleted first.
    """
    declared = templates.parameters(templates.load(TEMPLATE))
    changed = []
    unshown = (NAME_PARAMETER, SERVICE_NAME, *((*LINKED, REPOSITORY) if stack is None else ()))
    for name, declaration in declared.items():
        default = declaration.get("Default")
        before = None if default is None else as_text(default)
        if stack is not None:
            before = stack.parameters.get(name, before)
        if before != wanted[name] and name not in unshown:
            changed.append((name, before, wanted[name]))
    action = "recreate" if anew else "create" if stack is None else "update"
    name = stack_name(wanted[NAME_PARAMETER], wanted[SERVICE_NAME])
    return PartPlan(TEMPLATE, name, action, tuple(changes), parameters=tuple(changed))

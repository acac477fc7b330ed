"""The stacks of a deployment, their order, their parameters, and the changes to be made. Pure.

It decides from templates, parameters and CloudFormation's answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from covalent_cirro.deployment import templates
from covalent_cirro.deployment.change_sets import Change
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.deployment.template_functions import as_text
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs.machines import architecture_of
from covalent_cirro.jobs.tags import DEPLOYMENT_TAG

BUDGET = "budget"
"""The stack that exists only where a budget is wanted. Budgets are a part of billing: a user who may create everything
else may not be allowed to create one, so that a deployment is complete without it."""

STACKS = ("network", "storage", "roles", BUDGET, "compute")
"""The stacks of a deployment, in the order of their creation: the output of a stack is the parameter of the same name
of a later stack. They are deleted in the reverse order."""

PARTS = tuple(part for part in STACKS if part != BUDGET)
"""The stacks that every deployment has."""

BUDGET_LIMIT, BUDGET_EMAIL = "MonthlyBudgetUsd", "BudgetEmail"
"""The parameters of the budget."""

DEFAULT_NAME = "cirro"

NAME_PARAMETER = "DeploymentName"
"""The parameter of all templates that says which deployment a stack is part of."""

ZONES = "Zones"
"""The parameter of the network stack that says in which zones it has subnets."""

JOB_MINUTES = "JobExecutionTimeoutMinutes"
"""The parameter of the compute stack that says how long jobs may go on while their instances are replaced."""

ARCHITECTURE = "CpuArchitecture"
"""The parameter of the compute stack that says what the machines for jobs without a GPU are."""

DEFAULT_TYPES = "default"
"""The value of CpuInstanceTypes that stands for AWS's choice of current families of that architecture."""

TAG = DEPLOYMENT_TAG
"""Tag of every stack and its resources, with the deployment's name as its value. For the bill."""

HOLDS_DATA = {
    "AWS::S3::Bucket": "bucket",
    "AWS::ECR::Repository": "image repository",
    "AWS::Logs::LogGroup": "log group",
}
QUEUE = "AWS::Batch::JobQueue"
FILE_SYSTEM = "AWS::EFS::FileSystem"

FILES_COST = (
    "The file system costs nothing by the hour, and in us-east-1 0.30 USD for a GB and month, 0.016 once nobody "
    "touched it for SharedFilesIdleDays; 0.03 to read a GB and 0.06 to write one. `cirro destroy` leaves it, and "
    "what is in it."
)
"""List prices of EFS with elastic throughput, as of November 2026; docs/deploy.md has those of the rest."""


class Parameter(NamedTuple):
    """A parameter that the user can give.

    Attributes:
        name: Name of the parameter, in all templates that have it.
        default: Default value; `None` where a value must be given.
        possible: Possible values, in words; empty where any value is possible.
        description: Description in the template.
        parts: Templates that have it.
    """

    name: str
    default: str | None
    possible: str
    description: str
    parts: tuple[str, ...]


class PartPlan(NamedTuple):
    """What is to be done to one stack.

    Attributes:
        part: One of `STACKS`.
        stack_name: Name of the stack.
        action: ``"create"``; ``"recreate"`` after a failed creation is deleted; ``"update"``; ``"later"`` where a
            change set can be created only after the stacks before it; ``"remove"``; ``"none"``.
        changes: Changes of its resources.
        foreseen: Whether the changes were read from the template, before CloudFormation is asked.
        parameters: Parameters of the user's whose value changes: name, value before (`None` if there is none), value.
    """

    part: str
    stack_name: str
    action: str
    changes: tuple[Change, ...] = ()
    foreseen: bool = False
    parameters: tuple[tuple[str, str | None, str], ...] = ()


class Plan(NamedTuple):
    """What is to be done to a deployment.

    Attributes:
        name: Name of the deployment.
        account: Its AWS account.
        region: Its region.
        parts: Plans of its stacks, in the order of their creation.
        linked_roles: Service-linked roles that the account lacks, and that are created first.
    """

    name: str
    account: str
    region: str
    parts: tuple[PartPlan, ...]
    linked_roles: tuple[str, ...] = ()

    @property
    def changes_anything(self) -> bool:
        """Whether there is anything to do."""
        return any(part.action != "none" for part in self.parts)

    @property
    def costs(self) -> list[str]:
        """What will cost something although no job runs, and was not there before; a sentence each."""
        added = {change.resource_type for part in self.parts for change in part.changes if change.action == "Add"}
        return [FILES_COST] if FILE_SYSTEM in added else []

    @property
    def warnings(self) -> list[str]:
        """What would be lost or interrupted, a sentence each."""
        return [words for part in self.parts for change in part.changes if (words := _warning(change))]


def stack_name(name: str, part: str) -> str:
    """The name of one of a deployment's stacks."""
    return f"{name}-{part}"


def services_prefix(name: str) -> str:
    """How names of the stacks of a deployment's services begin (`serving`): they use its network, and go before it."""
    return stack_name(name, "serving-")


# --- parameters ---------------------------------------------------------------------------------------------------


def made_before(part: str) -> dict[str, str]:
    """By output of the stacks before a part, the part that has it."""
    return {
        output: earlier
        for earlier in STACKS[: STACKS.index(part)]
        for output in templates.load(earlier).get("Outputs") or {}
    }


def linked(part: str) -> dict[str, str]:
    """By parameter of a part that is an output of a stack before it, the part that has the output."""
    outputs = made_before(part)
    return {name: outputs[name] for name in templates.parameters(templates.load(part)) if name in outputs}


def parameters() -> dict[str, Parameter]:
    """The parameters that the user can give, in the order of the templates."""
    found: dict[str, Parameter] = {}
    for part in STACKS:
        links = linked(part)
        for name, declaration in templates.parameters(templates.load(part)).items():
            if name == NAME_PARAMETER or name in links:
                continue
            default = declaration.get("Default")
            found[name] = Parameter(
                name,
                None if default is None else as_text(default),
                templates.possible(declaration),
                str(declaration.get("Description", "")),
                (*(found[name].parts if name in found else ()), part),
            )
    return found


def check(name: str, wanted: Mapping[str, object]) -> dict[str, str]:
    """Check the user's parameters, and return them as text; `None` counts as not given.

    Args:
        name: Name of the deployment.
        wanted: Parameters that the user gave.

    Raises:
        SettingsError: A parameter does not exist, or a value or the name is impossible. The message lists everything
            that is wrong, and what is possible.
    """
    known = parameters()
    given = {key: as_text(value) for key, value in wanted.items() if value is not None}
    wrong = []
    naming = templates.parameters(templates.load(PARTS[0]))[NAME_PARAMETER]
    if not templates.is_possible(naming, name):
        wrong.append(f"a deployment cannot be called {name!r}: {templates.possible(naming)}")
    for key, value in given.items():
        if key == NAME_PARAMETER:
            wrong.append(f"{key} is not given as a parameter, but with --stack-name")
        elif key not in known:
            maker = next((links[key] for part in STACKS if key in (links := linked(part))), None)
            wrong.append(
                f"there is no parameter {key!r}"
                if maker is None
                else f"{key} cannot be given: it is an output of the {maker} stack"
            )
        else:
            wrong += _impossible(key, value, known[key].parts)
    if any(key not in known and key != NAME_PARAMETER for key in given):
        lines = [
            f"  {each.name}={each.default}" + (f"  ({each.possible})" if each.possible else "")
            for each in known.values()
        ]
        wrong.append("Parameters and their defaults:\n" + "\n".join(lines))
    if wrong:
        raise SettingsError(". ".join(wrong))
    return given


def _impossible(name: str, value: str, parts: Iterable[str]) -> list[str]:
    for part in parts:
        declaration = templates.parameters(templates.load(part))[name]
        if not templates.is_possible(declaration, value):
            return [f"{name}={value} is impossible: {templates.possible(declaration)}"]
    return []


def values_of(
    part: str, name: str, given: Mapping[str, str], stack: Stack | None, outputs: Mapping[str, str]
) -> dict[str, str]:
    """The values of a part's parameters, as far as they are known: given, linked, kept, or the default.

    Args:
        part: One of `STACKS`.
        name: Name of the deployment.
        given: Parameters that the user gave.
        stack: The stack as it is, if it exists.
        outputs: Known outputs of the stacks before it.
    """
    links, known = linked(part), {}
    for key, declaration in templates.parameters(templates.load(part)).items():
        if key == NAME_PARAMETER:
            known[key] = name
        elif key in links:
            if key in outputs:
                known[key] = outputs[key]
        elif key in given:
            known[key] = given[key]
        elif stack is not None and key in stack.parameters:
            known[key] = stack.parameters[key]
        elif "Default" in declaration:
            known[key] = as_text(declaration["Default"])
    return known


def has_gpus(values: Mapping[str, str]) -> bool:
    """Whether the compute stack is to have instances with GPUs."""
    return any(values.get(name, "0") != "0" for name in ("GpuSpotMaxVcpus", "GpuOnDemandMaxVcpus"))


def instance_types(values: Mapping[str, str]) -> list[str]:
    """The instance types of the compute stack: for CPU and, if it has queues for them, for GPU and several nodes."""
    names = ["CpuInstanceTypes", *(["GpuInstanceTypes"] if has_gpus(values) else [])]
    names += ["MultiNodeInstanceTypes"] if values.get("MultiNodeMaxVcpus", "0") != "0" else []
    listed = [each.strip() for name in names for each in values[name].split(",")]
    return [f"default_{values[ARCHITECTURE]}" if each == DEFAULT_TYPES else each for each in listed]


def _of_another_architecture(values: Mapping[str, str]) -> list[str]:
    """What is wrong about instance types: AWS Batch mixes no architectures in a queue, and images are for one of them.

    Machines for jobs on several machines are x86_64, whatever those of other jobs are (`Settings.architecture`). Other
    GPU families than those of x86_64 are not among the values of their parameter.
    """
    wanted, found = values.get(ARCHITECTURE, ""), []
    if others := _not_of(wanted, values.get("CpuInstanceTypes", DEFAULT_TYPES)):
        found.append(
            f"CpuInstanceTypes has {others}, and CpuArchitecture is {wanted}: give instance types of that "
            "architecture, or CpuInstanceTypes=default"
        )
    if others := _not_of("x86_64", values.get("MultiNodeInstanceTypes", DEFAULT_TYPES)):
        found.append(
            f"MultiNodeInstanceTypes has {others}, and jobs on several machines run on x86_64, whatever "
            "CpuArchitecture is: give instance types of that architecture, or MultiNodeInstanceTypes=default_x86_64"
        )
    return found


def _not_of(architecture: str, names: str) -> str:
    listed = [each.strip() for each in names.split(",")]
    return ", ".join(each for each in listed if each != DEFAULT_TYPES and architecture_of(each) != architecture)


def check_change(part: str, values: Mapping[str, str], stack: Stack | None) -> None:
    """Refuse what an existing stack cannot become.

    Raises:
        SettingsError: The architecture would change. AWS Batch has one architecture in a queue (User Guide, Compute
            environments), and jobs that wait there have images for the old one.
    """
    if stack is None or not stack.is_ready or ARCHITECTURE not in values:
        return
    before = stack.parameters.get(
        ARCHITECTURE, as_text(templates.parameters(templates.load(part))[ARCHITECTURE]["Default"])
    )
    if values[ARCHITECTURE] != before:
        raise SettingsError(
            f"the machines of this deployment are {before}, and cannot become {values[ARCHITECTURE]}: AWS Batch mixes "
            "no architectures in a queue, and jobs that wait there have images for the old one. Make another "
            f"deployment beside it: `cirro deploy --stack-name NAME --parameter {ARCHITECTURE}={values[ARCHITECTURE]}`"
        )


def wants_budget(values: Mapping[str, str]) -> bool:
    """Whether the values of parameters ask for a budget."""
    return values.get(BUDGET_LIMIT, "0") != "0"


def check_values(part: str, values: Mapping[str, str]) -> None:
    """Check the values of a part's parameters, and their combination.

    Raises:
        SettingsError: A kept value is no longer possible, or a rule of the template is broken.
    """
    template = templates.load(part)
    free = set(templates.parameters(template)) - set(linked(part)) - {NAME_PARAMETER}
    wrong = [each for key in values if key in free for each in _impossible(key, values[key], [part])]
    wrong += [words.rstrip(".") for words in templates.broken_rules(template, values)]
    if ARCHITECTURE in values and not wrong:
        wrong += _of_another_architecture(values)
    if wrong:
        raise SettingsError(". ".join(wrong))


def sent_and_kept(
    part: str, values: Mapping[str, str], given: Mapping[str, str], stack: Stack | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The parameters of a change set: those sent with a value, and names of those that keep the stack's value.

    Other parameters get the template's default. For a stack that has to be created again, all are sent.
    """
    declared, links = templates.parameters(templates.load(part)), linked(part)
    if stack is not None and not stack.is_ready:
        return {key: values[key] for key in declared if key in values}, ()
    sent = {key: values[key] for key in declared if key in given or key in links or key == NAME_PARAMETER}
    return sent, tuple(key for key in declared if key not in sent and stack is not None and key in stack.parameters)


# --- changes ------------------------------------------------------------------------------------------------------


def foresee(part: str, values: Mapping[str, str]) -> tuple[Change, ...]:
    """Resources that a new stack will have, read from its template; "Conditional" if that depends on other stacks."""
    return tuple(
        Change("Add", each.logical_id, each.resource_type, replacement="" if each.certain else "Conditional")
        for each in templates.foresee(templates.load(part), values)
    )


def changed_parameters(
    part: str, values: Mapping[str, str], stack: Stack | None
) -> tuple[tuple[str, str | None, str], ...]:
    """The user's parameters whose value differs from the stack's, or in a new stack from the default."""
    links, changed = linked(part), []
    for key, declaration in templates.parameters(templates.load(part)).items():
        if key == NAME_PARAMETER or key in links or key not in values:
            continue
        default = declaration.get("Default")
        before = None if default is None else as_text(default)
        if stack is not None:
            before = stack.parameters.get(key, before)
        if before != values[key]:
            changed.append((key, before, values[key]))
    return tuple(changed)


def not_shown(shown: PartPlan, now: Iterable[Change]) -> tuple[Change, ...]:
    """The changes among ``now`` that were not shown to the user."""
    known = {(change.action, change.logical_id, change.replacement) for change in shown.changes}
    return tuple(change for change in now if (change.action, change.logical_id, change.replacement) not in known)


def _warning(change: Change) -> str:
    if change.resource_type == FILE_SYSTEM and change.action == "Remove":
        named = change.physical_id or change.logical_id
        stays = "it stays, with what is in it, and costs what is stored; jobs that run lose it"
        return f"the file system {named} is given up: {stays}"
    verb = {
        "Remove": "is removed",
        "True": "is replaced by a new one",
        "Conditional": "may be replaced by a new one",
    }.get(change.action if change.action == "Remove" else change.replacement)
    if change.action == "Add" or verb is None or change.resource_type not in (*HOLDS_DATA, QUEUE):
        return ""
    what = HOLDS_DATA.get(change.resource_type, "job queue")
    lost = (
        "its jobs are terminated" if change.resource_type == QUEUE else "what is in it is lost, or stays behind unused"
    )
    return f"the {what} {change.physical_id or change.logical_id} {verb}: {lost}"

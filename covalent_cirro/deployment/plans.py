"""What a deployment is and what is to be done to it: its stacks, their order, their parameters, the changes to show.

Pure: it decides from templates, parameters and what CloudFormation said. It must not ask AWS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from covalent_cirro.deployment import templates
from covalent_cirro.deployment.change_sets import Change
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.deployment.template_functions import as_text
from covalent_cirro.errors import SettingsError

BUDGET = "budget"
"""The stack that is there only where a budget is wanted. What it makes is a part of billing, which may be refused to
who may make all the rest: the deployment stands without it."""

STACKS = ("network", "storage", "roles", BUDGET, "compute")
"""The stacks of a deployment, in the order in which they are made: an output of one is the parameter of the same name
of a later one. They are deleted in the reverse order."""

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

TAG = "covalent-cirro"
"""Tag of every stack, and of all it makes that AWS tags, with the deployment's name as its value. For the bill."""

HOLDS_DATA = {
    "AWS::S3::Bucket": "bucket",
    "AWS::ECR::Repository": "image repository",
    "AWS::Logs::LogGroup": "log group",
}
QUEUE = "AWS::Batch::JobQueue"


class Parameter(NamedTuple):
    """A parameter that the user can give.

    Attributes:
        name: Its name, the same in all templates that have it.
        default: Its default; `None` where it has to be given.
        possible: What values it takes, in words; empty where any will do.
        description: What it is for.
        parts: The templates that have it.
    """

    name: str
    default: str | None
    possible: str
    description: str
    parts: tuple[str, ...]


class PartPlan(NamedTuple):
    """What is to be done to one stack.

    Attributes:
        part: One of `PARTS`.
        stack_name: Name of the stack.
        action: ``"create"``; ``"recreate"`` after the rest of a failed creation is removed; ``"update"``; ``"later"``
            where a change set can be made only when the stacks before it are there; ``"remove"``; ``"none"``.
        changes: What becomes of its resources.
        foreseen: The changes were read from the template: CloudFormation was not asked yet.
        parameters: Parameters that the user can give and whose value changes, with the value before (`None`: none).
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
        name: Its name.
        account: Its AWS account.
        region: Its region.
        parts: Its stacks, in the order in which they are made.
        linked_roles: Service-linked roles that the account lacks, and that are made first.
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
    def warnings(self) -> list[str]:
        """What would be lost or interrupted, a sentence each."""
        return [words for part in self.parts for change in part.changes if (words := _warning(change))]


def stack_name(name: str, part: str) -> str:
    """The name of one of a deployment's stacks."""
    return f"{name}-{part}"


# --- parameters ---------------------------------------------------------------------------------------------------


def made_before(part: str) -> dict[str, str]:
    """Outputs of the stacks before a part: the part that makes each."""
    return {
        output: earlier
        for earlier in STACKS[: STACKS.index(part)]
        for output in templates.load(earlier).get("Outputs") or {}
    }


def linked(part: str) -> dict[str, str]:
    """Parameters of a part that are outputs of stacks before it: the part that makes each."""
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
    """The parameters as text; `None` counts as not given.

    Args:
        name: The deployment's.
        wanted: What the user gave.

    Raises:
        SettingsError: A parameter that does not exist, or a value or name that is impossible. It names all that are
            wrong, and what is possible.
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
        part: One of `PARTS`.
        name: The deployment's.
        given: What the user gave.
        stack: The stack as it is, if it is there.
        outputs: Of the stacks before it, as far as they are there.
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
    """The instance types that the compute stack is to have, for CPU and, where there is a queue for it, for GPU."""
    names = ["CpuInstanceTypes", *(["GpuInstanceTypes"] if has_gpus(values) else [])]
    return [each.strip() for name in names for each in values[name].split(",")]


def wants_budget(values: Mapping[str, str]) -> bool:
    """Whether the values of parameters ask for a budget."""
    return values.get(BUDGET_LIMIT, "0") != "0"


def check_values(part: str, values: Mapping[str, str]) -> None:
    """The values of a part's parameters, together.

    Raises:
        SettingsError: A value that is kept is no longer possible, or a rule of the template is broken.
    """
    template = templates.load(part)
    free = set(templates.parameters(template)) - set(linked(part)) - {NAME_PARAMETER}
    wrong = [each for key in values if key in free for each in _impossible(key, values[key], [part])]
    wrong += [words.rstrip(".") for words in templates.broken_rules(template, values)]
    if wrong:
        raise SettingsError(". ".join(wrong))


def sent_and_kept(
    part: str, values: Mapping[str, str], given: Mapping[str, str], stack: Stack | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The parameters of a change set: those sent with a value, and those that keep the stack's.

    Others get the template's default. A stack that has to be made anew can keep nothing, so all is sent.
    """
    declared, links = templates.parameters(templates.load(part)), linked(part)
    if stack is not None and not stack.is_ready:
        return {key: values[key] for key in declared if key in values}, ()
    sent = {key: values[key] for key in declared if key in given or key in links or key == NAME_PARAMETER}
    return sent, tuple(key for key in declared if key not in sent and stack is not None and key in stack.parameters)


# --- changes ------------------------------------------------------------------------------------------------------


def foresee(part: str, values: Mapping[str, str]) -> tuple[Change, ...]:
    """What a new stack will make, read from its template; "Conditional" where that depends on stacks before it."""
    return tuple(
        Change("Add", each.logical_id, each.resource_type, replacement="" if each.certain else "Conditional")
        for each in templates.foresee(templates.load(part), values)
    )


def changed_parameters(
    part: str, values: Mapping[str, str], stack: Stack | None
) -> tuple[tuple[str, str | None, str], ...]:
    """The user's parameters whose value is another than the stack's, or than the default of a new one."""
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
    """The changes of a change set made later that nobody was shown."""
    known = {(change.action, change.logical_id, change.replacement) for change in shown.changes}
    return tuple(change for change in now if (change.action, change.logical_id, change.replacement) not in known)


def _warning(change: Change) -> str:
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

"""Options that contradict each other: what is refused of settings whose options are each possible. Pure.

All rules hold for the settings of a job. Where an executor is made, the Covalent server's config is not known: a rule
holds there if no other value of an option that nobody set could make the combination possible.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import NamedTuple

from covalent_cirro.errors import SettingsError
from covalent_cirro.settings.constants import MIB_PER_GB
from covalent_cirro.settings.declared import Settings
from covalent_cirro.settings.fargate_sizes import FRACTIONS, MOST_MEMORY_MIB, MOST_VCPUS, Size, fitting
from covalent_cirro.settings.variables import RANK_VARIABLES


def refuse(settings: Settings, known: Collection[str] | None = None) -> None:
    """Refuse a combination that cannot work.

    Args:
        settings: All options.
        known: Names of those whose values are known; others have their default. `None`: all are.

    Raises:
        SettingsError: The first rule that is broken, with both values and what to do.
    """
    for rule in _RULES:
        if known is not None and not set(rule.needs) <= set(known):
            continue
        if text := rule.text(settings):
            raise SettingsError(text)


class _Rule(NamedTuple):
    """A rule.

    Attributes:
        text: Why settings are not possible; `None` if they are.
        needs: Options that nobody set and whose default could break the rule where another value keeps it.
    """

    text: Callable[[Settings], str | None]
    needs: tuple[str, ...] = ()


def _shared_memory(settings: Settings) -> str | None:
    if settings.on_fargate or settings.shared_memory_mib <= settings.memory_mib:
        return None
    return (
        f"shared_memory_gb={settings.shared_memory_gb!r} is more than memory={settings.memory!r}: pages of shared "
        "memory count as memory of the job. Ask for more memory, or for less shared memory."
    )


def _largest_memory(settings: Settings) -> str | None:
    if settings.memory_max is None or settings.memory_max >= settings.memory:
        return None
    return (
        f"memory_max={settings.memory_max!r} is less than memory={settings.memory!r}, which the first try has. "
        "Raise memory_max, or ask for less memory."
    )


def _fargate(settings: Settings) -> str | None:
    if not settings.on_fargate:
        return None
    # Batch User Guide, AWS Fargate: neither GPUs nor multi-node parallel jobs. API Reference, LinuxParameters: no
    # sharedMemorySize; what a job has in /dev/shm is not said.
    for name, value, is_set in (
        ("num_gpus", settings.num_gpus, settings.num_gpus > 0),
        ("num_nodes", settings.num_nodes, settings.nodes > 1),
        ("shared_memory_gb", settings.shared_memory_gb, settings.shared_memory_gb is not None),
    ):
        if is_set:
            return f'{name}={value!r} is not possible with platform="FARGATE". Use platform="EC2".'
    if not settings.batch_execution_role_name:
        return (
            'batch_execution_role_name="" is not possible with platform="FARGATE": without that role Fargate can pull '
            "no image and write no log. `cirro deploy` makes one and sets it."
        )
    return _fargate_size(settings)


def _fargate_size(settings: Settings) -> str | None:
    if fitting(settings.asked) is None:
        return (
            f"vcpu={settings.vcpu:g} and memory={settings.memory:g} are more than a job on Fargate can have, which is "
            f'{Size(MOST_VCPUS, MOST_MEMORY_MIB)}. Ask for less, or use platform="EC2".'
        )
    most_gb = MOST_MEMORY_MIB / MIB_PER_GB
    if settings.memory_max is not None and settings.memory_max > most_gb:
        return (
            f"memory_max={settings.memory_max:g} is more than the {most_gb:g} GB that a job on Fargate can have. Lower "
            'it, or use platform="EC2".'
        )
    return None


def _part_of_a_vcpu(settings: Settings) -> str | None:
    if settings.on_fargate or settings.vcpu not in FRACTIONS:
        return None
    return (
        f"vcpu={settings.vcpu:g} is possible only on Fargate: on instances a job has whole vCPUs. Use "
        'platform="FARGATE", or vcpu=1.'
    )


MOST_BYTES = 20 * 1024
"""Bytes in a job definition of environment, secrets and job_properties together: AWS Batch takes 24 KiB in all (User
Guide, Service quotas), and the rest needs room."""


def _size(settings: Settings) -> str | None:
    sizes = {
        "environment": len(json.dumps(json.dumps(dict(settings.environment)))),  # it is a text in the definition's JSON
        "secrets": len(json.dumps(dict(settings.secrets))) + 50 * len(settings.secrets),
        "job_properties": len(json.dumps(dict(settings.job_properties), default=repr)),  # the form is checked later
    }
    if sum(sizes.values()) <= MOST_BYTES:
        return None
    told = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    return (
        f"environment, secrets and job_properties have {sum(sizes.values()):,} bytes in the job definition ({told}), "
        f"and {MOST_BYTES:,} are the most. Pass what is large as an argument or a file; put several secrets into one, "
        "as JSON."
    )


def _secret_variables(settings: Settings) -> str | None:
    both = sorted(settings.environment.keys() & settings.secrets.keys())
    if both:
        names = ", ".join(map(repr, both))
        return f"environment and secrets both have {names}: a variable has one value. Remove one of them."
    if settings.secrets and not settings.batch_execution_role_name:
        return (
            f"secrets={dict(settings.secrets)!r} is not possible with batch_execution_role_name='': ECS reads secrets "
            "with the execution role. Set it to a role that may read them; `cirro deploy --parameter SecretArns=...` "
            "gives that to the role of a deployment."
        )
    return None


def _priority(settings: Settings) -> str | None:
    if settings.scheduling_priority is None or settings.share_identifier:
        return None
    return (
        f"scheduling_priority={settings.scheduling_priority!r} has no effect without share_identifier: AWS Batch "
        "orders by it the jobs of one share, in a queue with a scheduling policy. Set share_identifier too."
    )


def _variables_of_ranks(settings: Settings) -> str | None:
    if settings.nodes == 1 and settings.processes_per_node is None:
        return None
    for option in ("environment", "secrets"):
        if names := sorted(getattr(settings, option).keys() & RANK_VARIABLES):
            name = "num_nodes" if settings.nodes > 1 else "processes_per_node"
            return (
                f"{option} has {', '.join(map(repr, names))}, and {name}={getattr(settings, name)}: the runner sets "
                "these variables in each process, as torchrun does. Leave them out, or use other names."
            )
    return None


_RULES = (
    _Rule(_shared_memory, needs=("memory",)),
    _Rule(_largest_memory, needs=("memory",)),
    _Rule(_fargate),
    _Rule(_part_of_a_vcpu, needs=("platform",)),
    _Rule(_priority, needs=("share_identifier",)),
    _Rule(_secret_variables),
    _Rule(_variables_of_ranks),
    _Rule(_size),
)

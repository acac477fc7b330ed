"""Findings about a deployment's stacks, and about their settings in Covalent's config. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.settings import BY_NAME, SECTION

STACK_READY = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"})


class StackState(NamedTuple):
    """The state of a stack; ``status`` is empty where the stack does not exist."""

    part: str
    name: str
    status: str
    reason: str
    changed: str


def stacks(states: Sequence[StackState], where: Where) -> Finding:
    """Whether all stacks exist and are complete."""
    absent = [state.name for state in states if not state.status]
    if len(absent) == len(states):
        return Finding(
            "stacks",
            "",
            FAILURE,
            f"nothing is deployed as {where.stack_name!r} in {where.region}",
            f"`{where.cirro('deploy')}`, or name the deployment and region that you mean.",
        )
    if absent:
        return Finding("stacks", "", FAILURE, f"missing: {', '.join(absent)}", f"`{where.cirro('deploy')}`")
    moving = [f"{state.name} is {state.status}" for state in states if state.status.endswith("_IN_PROGRESS")]
    broken = [
        f"{state.name} is {state.status}" + (f" ({state.reason})" if state.reason else "")
        for state in states
        if state.status not in STACK_READY and not state.status.endswith("_IN_PROGRESS")
    ]
    if broken:
        return Finding(
            "stacks",
            "",
            FAILURE,
            "; ".join(broken),
            f"Correct the cause, then `{where.cirro('deploy')}`; `cirro destroy` first where the status has FAILED.",
        )
    if moving:
        return Finding("stacks", "", WARNING, "; ".join(moving), "Wait until it is done, then look again.")
    return Finding("stacks", "", OK, ", ".join(f"{state.name} {state.status}" for state in states))


def drift(section: Mapping[str, Any], wanted: Mapping[str, str], where: Where) -> Finding:
    """Whether Covalent's config has the deployment's settings.

    Args:
        section: Section ``[executors.cirro]`` of the config.
        wanted: Settings in the deployment's outputs.
        where: The deployment.
    """
    absent = [name for name in wanted if section.get(name) in (None, "", BY_NAME[name].default)]
    absent = [name for name in absent if section.get(name) != wanted[name]]
    other = [name for name in wanted if name not in absent and section.get(name) != wanted[name]]
    if absent:
        return Finding(
            "config",
            "",
            FAILURE,
            f"[{SECTION}] of Covalent's config lacks what the deployment gives: {', '.join(absent)}",
            f"`{where.cirro('deploy')}` writes it; nothing else changes.",
        )
    if other:
        told = "; ".join(f"{name} is {section[name]!r}, the deployment has {wanted[name]!r}" for name in other)
        return Finding(
            "config",
            "",
            WARNING,
            f"changed by hand in [{SECTION}] of Covalent's config: {told}",
            "Where that is not on purpose, take the line out and `cirro deploy` again.",
        )
    return Finding("config", "", OK, f"[{SECTION}] of Covalent's config is as the deployment gives it")

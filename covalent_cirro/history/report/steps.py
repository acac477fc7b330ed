"""Machines, time and cost of each step of a dispatch. Pure.

A step is all electrons of one name: they are one function, whether a lattice calls it once or for each of many inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.history.report.costs import CostLine
from covalent_cirro.history.report.runs import Run
from covalent_cirro.jobs.formatting import usd


class StepInstances(NamedTuple):
    """StepInstances of one type and market on which attempts of a step ran.

    Attributes:
        kind: Instance type, as it is known or assumed; empty if unknown.
        market: ``prices.ON_DEMAND``, ``prices.SPOT``, or empty if unknown.
        number: How many different ones; `None` where AWS did not name each of them.
    """

    kind: str
    market: str
    number: int | None


class Step(NamedTuple):
    """What the electrons of one name used and cost.

    Attributes:
        name: Name of the electrons.
        nodes: Number of nodes.
        attempts: Number of attempts that had a container; an array job has one or more for each of its children.
        instances: The instances of the attempts. One that was lost counts twice if another attempt had ended on it: AWS
            names a lost instance in another way.
        elapsed_s: Seconds from the first call to the end of the last attempt, or to the time of the report while one
            runs; `None` where no time is known.
        ran_s: Sum of the seconds that attempts ran.
        usd: Sum of the known costs, in US dollars.
        unknown: Number of attempts whose cost is not known, and not in the sum.
        exact: Whether nothing is assumed or left out.
    """

    name: str
    nodes: int
    attempts: int
    instances: tuple[StepInstances, ...]
    elapsed_s: float | None
    ran_s: float
    usd: float
    unknown: int
    exact: bool

    @property
    def where(self) -> str:
        """Its instances in words: ``"3 m6i.large spot"``."""
        return ", ".join(
            " ".join(word for word in (str(each.number or ""), each.kind or "unknown type", each.market) if word)
            for each in self.instances
        )

    @property
    def cost(self) -> str:
        """Its cost in US dollars, in words."""
        known = usd(self.usd) if self.unknown < self.attempts or not self.attempts else "?"
        return known if self.exact else f"≈ {known}"


def steps(runs: Iterable[Run], lines: Iterable[CostLine], now: float) -> list[Step]:
    """The steps, in the order of their first calls.

    Args:
        runs: Runs of the dispatch, in the order of their calls.
        lines: Cost of each attempt.
        now: Epoch seconds of the report.
    """
    of_name: dict[str, list[Run]] = {}
    for run in runs:
        of_name.setdefault(run.name, []).append(run)
    lines_of_name: dict[str, list[CostLine]] = {}
    for line in lines:
        lines_of_name.setdefault(line.name, []).append(line)
    return [_step(name, found, lines_of_name.get(name, []), now) for name, found in of_name.items()]


def _step(name: str, runs: Sequence[Run], lines: Sequence[CostLine], now: float) -> Step:
    began = [run.began_at for run in runs if run.began_at is not None]
    ended = [now if line.attempt.ended_at is None else line.attempt.ended_at for line in lines]
    if any(not run.has_ended for run in runs):
        ended.append(now)
    return Step(
        name=name,
        nodes=len({run.node_id for run in runs}),
        attempts=len(lines),
        instances=_instances(lines),
        elapsed_s=max(0.0, max(ended) - min(began)) if began and ended else None,
        ran_s=math.fsum(line.seconds for line in lines),
        usd=math.fsum(line.usd or 0.0 for line in lines),
        unknown=sum(line.usd is None for line in lines),
        exact=all(line.exact for line in lines),
    )


def _instances(lines: Iterable[CostLine]) -> tuple[StepInstances, ...]:
    hosts: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        machine = line.attempt.machine
        hosts.setdefault((machine.instance_type, machine.market), []).append(line.attempt.host)
    return tuple(
        StepInstances(kind, market, len(set(found)) if all(found) else None)
        for (kind, market), found in sorted(hosts.items())
    )

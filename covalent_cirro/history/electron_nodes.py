"""The nodes of an electron's multi-node job: what became of each, where it ran, and what it printed."""

from __future__ import annotations

from typing import NamedTuple

from covalent_cirro.errors import NoSuchElectron
from covalent_cirro.history import archive, batch_jobs, find
from covalent_cirro.history.account import Account
from covalent_cirro.history.find import Electron
from covalent_cirro.history.instances import Instances
from covalent_cirro.history.names import Wanted
from covalent_cirro.jobs.compute_nodes import MAIN_NODE
from covalent_cirro.jobs.states import JobDetail, JobState


class NodeRow(NamedTuple):
    """A node of a job.

    Attributes:
        number: Its number, from 0, which is the main node.
        state: Its state in AWS's word; empty where AWS Batch does not know the job any more.
        end: How it ended, as the main node knew it (`protocol.ComputeNode`); empty before the end.
        exit_code: Exit code of its container; `None` where it has not ended.
        host: Instance with type and zone, as far as they are known.
        cpu_s: CPU seconds of its processes; `None` where it is not known.
        peak_memory_bytes: Most memory that it used; `None` where it is not known.
        log_stream: CloudWatch stream of its log; empty before it runs.
        reason: Why its container did not start, or ended without an exit code, in AWS's words; empty for any other end.
    """

    number: int
    state: str
    end: str
    exit_code: int | None
    host: str
    cpu_s: float | None
    peak_memory_bytes: int | None
    log_stream: str
    reason: str = ""


def number_of(electron: Electron) -> int:
    """Nodes of an electron's newest job; 1 for a job of one machine."""
    of, record = electron.newest, electron.record
    told = record.detail.num_nodes if record is not None else 0
    return told or (of.call.num_nodes if of.call is not None else 1)


def rows(account: Account, electron: Electron, instances: Instances) -> list[NodeRow]:
    """The nodes of an electron's newest job, as far as they are known; none for a job of one machine."""
    of, record = electron.newest, electron.record
    if number_of(electron) < 2:
        return []
    records = {} if record is None else batch_jobs.nodes_of(account, record)
    hosts = instances.at((each.cluster, each.host) for each in records.values())
    told = {} if of.outcome is None else {each.number: each for each in of.outcome.nodes}
    found = []
    for number in sorted({*records, *told}):
        seen, end = records.get(number), told.get(number)
        host = hosts.get((seen.cluster, seen.host)) if seen is not None else None
        found.append(
            NodeRow(
                number=number,
                state=seen.state if seen is not None else "",
                end=end.state if end is not None else "",
                exit_code=seen.detail.exit_code if seen is not None else None,
                host=str(host) if host is not None else end.instance_type if end is not None else "",
                cpu_s=end.cpu_s if end is not None else None,
                peak_memory_bytes=end.peak_memory_bytes if end is not None else None,
                log_stream=seen.detail.log_stream if seen is not None else "",
                reason=reason_of(seen.detail) if seen is not None else "",
            )
        )
    return found


def reason_of(detail: JobDetail) -> str:
    """Why a node has no exit code, in AWS's words; empty where it has one, or has not failed."""
    if detail.state != JobState.FAILED.value or detail.exit_code is not None:
        return ""
    last = detail.attempts[-1].status_reason if detail.attempts else ""
    return detail.reason or last or detail.status_reason


def electron_on(account: Account, wanted: Wanted, number: int) -> Electron:
    """An electron as if one node of its job was all of it, for what that node printed.

    Raises:
        NoSuchElectron: There is no such electron, or its job has no such node.
    """
    electron = find.electron(account, wanted)
    of, nodes = electron.newest, number_of(electron)
    if nodes < 2:
        raise NoSuchElectron(f"{electron.name} {wanted} ran on one machine: leave out --node.")
    if number >= nodes:
        raise NoSuchElectron(f"{electron.name} {wanted} has no node {number}: its nodes are 0 to {nodes - 1}.")
    if number == MAIN_NODE:
        return electron
    described = (batch_jobs.nodes_of(account, record, (number,)) for record in of.records)
    records = tuple(each[number] for each in described if number in each)
    last = max((each.attempt for each in records), default=1)
    place = of.place.on_node(number, of.outcome.attempt if of.outcome is not None else max(1, last))
    outcome, problem = find.outcome_or_problem(account, place)
    own = of._replace(
        place=place, outcome=outcome, problem=problem, parts=archive.parts(account, place), records=records
    )
    return electron._replace(calls=(find.own(account, own),))

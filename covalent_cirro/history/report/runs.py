"""The runs of a dispatch's electrons with their attempts, from AWS Batch and outcomes.

Pure: `sources.py` asks AWS. For a job that AWS does not know any more, the outcome describes one attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.aws.prices import ON_DEMAND, SPOT
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import Arguments, Outcome, Reused, Usage
from covalent_cirro.contract.references import Inline
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.compute_nodes import number_of_node
from covalent_cirro.jobs.ends import OUT_OF_MEMORY, is_host_lost
from covalent_cirro.jobs.fargate_machines import FargateMachine
from covalent_cirro.jobs.machines import InstanceType, Need
from covalent_cirro.jobs.panel import ON_FARGATE
from covalent_cirro.jobs.reuse_texts import REUSED
from covalent_cirro.jobs.states import CANCELLED, JobDetail, JobState, shown_state
from covalent_cirro.settings.fargate_sizes import Size

RESULT_CHARS = 200
"""Characters of a result that are shown, at most."""

UNKNOWN_STATE = "UNKNOWN"
"""State of a call without an outcome whose job AWS Batch does not know."""


class Machine(NamedTuple):
    """The instance of an attempt.

    Attributes:
        instance_type: Instance type; empty if unknown.
        zone: Availability zone; empty if unknown.
        market: `ON_DEMAND`, `SPOT`, or empty if unknown.
        assumed: Whether the type is assumed: that of the run's last attempt, or the smallest that fits in the queue.
    """

    instance_type: str = ""
    zone: str = ""
    market: str = ""
    assumed: bool = False


class BilledAttempt(NamedTuple):
    """An attempt that had a container, and so costs money.

    Attributes:
        number: Number of the attempt, from 1.
        began_at: Epoch seconds.
        ended_at: Epoch seconds; `None` while it runs.
        lost: Whether its instance was lost.
        reason: Why it ended, in AWS's words; mostly empty.
        machine: Its instance.
        host: Id of its instance, or of the instance in its ECS cluster; empty if unknown.
        node: Node of a multi-node job; 0 is its main node, and any other job.
    """

    number: int
    began_at: float
    ended_at: float | None
    lost: bool
    reason: str
    machine: Machine
    host: str = ""
    node: int = 0


class Run(NamedTuple):
    """One job of an electron. An electron that was submitted again has several.

    Attributes:
        node_id: Id of the node; of a task group, the first node.
        name: Name of the electron.
        job_id: Id of the job; empty if unknown.
        call_id: Id of the call.
        state: State in AWS's word, or `UNKNOWN_STATE`, `REUSED` or `states.CANCELLED`.
        queue: Name of the queue; empty where AWS does not know the job any more.
        need: What the job asked for; `None` if unknown.
        called_at: Epoch seconds when the executor began with the call; `None` if unknown.
        created_at: Epoch seconds when AWS Batch received the job; `None` if unknown.
        attempts: Its attempts, oldest first.
        usage: What the last attempt used; `None` without an outcome.
        times: Times in the outcome (`protocol.Outcome.times`).
        out_of_memory: Whether it failed because memory was full.
        number: Number of the electron's try, from 1.
        arguments: What the electron was called with; empty where it is not known.
        result: Beginning of ``str(result)``, of a small result; else empty.
        children: Attempts of the jobs of an array, which has none of its own; of the nodes of a multi-node job but the
            main one, whose attempts are its own; empty for any other job.
        nodes: Machines of a multi-node job; 1 for any other job.
    """

    node_id: int
    name: str
    job_id: str
    call_id: str
    state: str
    queue: str
    need: Need | None
    called_at: float | None
    created_at: float | None
    attempts: tuple[BilledAttempt, ...]
    usage: Usage | None
    times: Mapping[str, float]
    out_of_memory: bool = False
    number: int = 1
    arguments: Arguments = ()
    result: str = ""
    children: tuple[BilledAttempt, ...] = ()
    nodes: int = 1

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in (JobState.SUCCEEDED.value, JobState.FAILED.value, UNKNOWN_STATE, REUSED, CANCELLED)

    @property
    def began_at(self) -> float | None:
        """The earliest known time of the run."""
        known = [self.called_at, self.created_at, *(each.began_at for each in self.billed)]
        return min((each for each in known if each is not None), default=None)

    @property
    def billed(self) -> tuple[BilledAttempt, ...]:
        """All attempts, those of an array's jobs included."""
        return (*self.attempts, *self.children)

    @property
    def ended_at(self) -> float | None:
        """When the last attempt ended; `None` before."""
        return self.attempts[-1].ended_at if self.attempts else None


class QueueMachines(NamedTuple):
    """The instances that a queue's jobs run on.

    Attributes:
        market_of_cluster: Market of a compute environment by the name of its ECS cluster.
        market: Market of all compute environments of the queue; empty where they differ.
        kinds: Instance types that the first compute environment may start, smallest first.
    """

    market_of_cluster: Mapping[str, str]
    market: str
    kinds: Sequence[InstanceType]


NO_CAPACITY = QueueMachines({}, "", ())


def run_of_job(record: Record, outcome: Outcome | None, called_at: float | None, capacity: QueueMachines) -> Run:
    """The run that AWS Batch describes.

    Args:
        record: What AWS Batch says of the job.
        outcome: The job's outcome, if there is one.
        called_at: Epoch seconds of its call.
        capacity: Instances of its queue.
    """
    need = None
    detail = record.detail
    if detail.vcpus and detail.memory_mib:
        need = Need(detail.vcpus, detail.memory_mib, detail.gpus)
    told = Machine() if outcome is None else _machine_of(outcome)
    spans = [(each.began_at, each.ended_at, each) for each in record.attempts]
    attempts = []
    node = number_of_node(record.job_id)
    for number, (began_at, ended_at, each) in enumerate(spans, start=1):
        if began_at is None:  # it had no container
            continue
        its_own = told if outcome is not None and outcome.attempt == number else Machine()
        machine = _on_fargate(detail, _machine(its_own, told, each.cluster, need, capacity))
        lost = is_host_lost(each.status_reason)
        reason = each.reason or each.status_reason
        attempts.append(BilledAttempt(number, began_at, ended_at, lost, reason, machine, each.host, node))
    if record.state == JobState.RUNNING.value and detail.started_at is not None:
        machine = _on_fargate(detail, _machine(Machine(), told, record.cluster, need, capacity))
        number = len(spans) + 1
        attempts.append(BilledAttempt(number, detail.started_at, None, False, "", machine, record.host, node))
    return Run(
        node_id=record.node_id,
        name=record.electron,
        job_id=record.job_id,
        call_id="" if record.call is None else record.call.call_id,
        state=shown_state(detail),
        queue=detail.queue,
        need=need,
        called_at=called_at,
        created_at=detail.created_at,
        attempts=tuple(attempts),
        usage=None if outcome is None else outcome.usage,
        times=_times(outcome),
        out_of_memory=detail.reason.startswith(OUT_OF_MEMORY) or _ran_out_of_memory(outcome),
        arguments=detail.arguments,
        result=_result(outcome, record.node_id),
        nodes=detail.num_nodes or 1,
    )


def run_of_call(node_id: int, name: str, call_id: str, outcome: Outcome | None, called_at: float | None) -> Run:
    """The run of a call whose job AWS Batch does not know any more, from its outcome, which describes one attempt."""
    if outcome is None:
        return Run(node_id, name, "", call_id, UNKNOWN_STATE, "", None, called_at, None, (), None, {})
    times = _times(outcome)
    began_at, ended_at = times.get("started"), times.get("stored")
    attempts: tuple[BilledAttempt, ...] = ()
    nodes: tuple[BilledAttempt, ...] = ()
    if began_at is not None:
        stored_at = max(began_at, ended_at or began_at)
        host = outcome.host.get("instance_id", "")
        machine = _machine_of(outcome)
        attempts = (BilledAttempt(outcome.attempt, began_at, stored_at, False, "", machine, host),)
        # A multi-node job has one instance type and runs in one zone; the nodes begin and end together.
        others = [each for each in outcome.nodes if each.number]
        nodes = tuple(attempts[0]._replace(host=each.instance_id, node=each.number) for each in others)
    return Run(
        node_id=node_id,
        name=name,
        job_id=outcome.job_id,
        call_id=call_id,
        state=JobState.SUCCEEDED.value if outcome.succeeded else JobState.FAILED.value,
        queue="",
        need=None,
        called_at=called_at,
        created_at=None,
        attempts=attempts,
        usage=outcome.usage,
        times=times,
        out_of_memory=_ran_out_of_memory(outcome),
        result=_result(outcome, node_id),
        children=nodes,
        nodes=len(outcome.nodes) or 1,
    )


def run_of_reused(node_id: int, name: str, call_id: str, reused: Reused) -> Run:
    """The run of an electron that has the results of an earlier job: it took no instance, and cost nothing."""
    run = Run(node_id, name, reused.job_id, call_id, REUSED, "", None, reused.at, None, (), None, {})
    return run._replace(arguments=reused.arguments)


def _ran_out_of_memory(outcome: Outcome | None) -> bool:
    results = () if outcome is None else outcome.results
    return any(each.failure is not None and each.failure.kind == Kind.OUT_OF_MEMORY for each in results)


def _result(outcome: Outcome | None, node_id: int) -> str:
    """Beginning of ``str(result)`` as the container wrote it: nothing is unpickled. A large result is not fetched."""
    for each in () if outcome is None else outcome.results:
        if each.node_id == node_id and each.output is not None and isinstance(each.output.string, Inline):
            text = " ".join(each.output.string.data[: 5 * RESULT_CHARS].decode("utf-8", "replace").split())
            return text if len(text) <= RESULT_CHARS else f"{text[:RESULT_CHARS]}..."
    return ""


def _times(outcome: Outcome | None) -> dict[str, float]:
    # The time of a host without a clock is in 1970.
    found = {} if outcome is None else outcome.times
    return {name: at for name, at in found.items() if at > 0}


def _machine_of(outcome: Outcome) -> Machine:
    """The instance that the outcome names, from EC2's instance metadata."""
    host = outcome.host
    market = {"spot": SPOT, "on-demand": ON_DEMAND}.get(host.get("life_cycle", ""), "")
    return Machine(host.get("instance_type", ""), host.get("zone", ""), market)


def _on_fargate(detail: JobDetail, machine: Machine) -> Machine:
    """The machine; of a job on Fargate, which has exactly what the job asked for."""
    if detail.platform != ON_FARGATE:
        return machine
    size = Size(detail.vcpus, detail.memory_mib)
    return machine._replace(instance_type=FargateMachine(size, detail.architecture).name, assumed=False)


def _machine(told: Machine, of_the_last: Machine, cluster: str, need: Need | None, capacity: QueueMachines) -> Machine:
    market = told.market or capacity.market_of_cluster.get(cluster) or capacity.market or of_the_last.market
    if told.instance_type:
        return told._replace(market=market)
    kind = of_the_last.instance_type
    if not kind and need is not None:
        kind = next((each.name for each in capacity.kinds if need.fits(each)), "")
    return Machine(kind, "", market, assumed=True)

"""Finds dispatches, electrons and their jobs in AWS Batch, in S3, or in both.

AWS Batch forgets a job days after its end, S3 a call weeks after it. Neither is asked for more than is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from covalent_cirro.aws.batch import job_name
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Arguments, Call, Outcome, Reused, Task
from covalent_cirro.errors import AccessDenied, CallError, NoSuchElectron, OutcomeError
from covalent_cirro.history import archive, batch_jobs
from covalent_cirro.history.account import Account
from covalent_cirro.history.archive import StoredCall
from covalent_cirro.history.batch_jobs import ListedJob
from covalent_cirro.history.names import SHORT, JobName, Wanted, choose, listed
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.authentic_outcomes import refused
from covalent_cirro.jobs.reuse_texts import checked_origin

DAY_S = 24 * 3600.0

CLOCKS_APART_S = 300.0
"""Greatest difference of the server's clock, which is in a call's id, and AWS's, which is in a job."""


class CallHistory(NamedTuple):
    """One call of an electron, with its jobs and its outcome.

    Attributes:
        place: Location of the call.
        call: The call; `None` where it has expired.
        outcome: Outcome of its job; `None` where there is none, or none yet.
        problem: Why the outcome or the call cannot be read; empty where they can.
        parts: Names of the parts of the log in S3.
        records: The call's jobs that AWS Batch still knows, oldest first; mostly one.
        reused: If the electron reuses results: where they come from. All other attributes are about that earlier call.
    """

    place: Location
    call: Call | None
    outcome: Outcome | None
    problem: str
    parts: tuple[str, ...]
    records: tuple[Record, ...]
    reused: Reused | None = None


class Electron(NamedTuple):
    """An electron with all of its calls.

    Attributes:
        dispatch_id: Id of its dispatch.
        node_id: Id of its node.
        calls: Its calls, oldest first; the last one counts. Never empty.
    """

    dispatch_id: str
    node_id: int
    calls: tuple[CallHistory, ...]

    @property
    def newest(self) -> CallHistory:
        """The call that counts."""
        return self.calls[-1]

    @property
    def record(self) -> Record | None:
        """The job that counts; `None` where AWS Batch knows no job of the newest call."""
        return self.newest.records[-1] if self.newest.records else None

    @property
    def name(self) -> str:
        """Name of the electron; ``"-"`` where it is not known any more."""
        if self._task is not None:
            return self._task.name or "-"
        return self.record.electron if self.record else "-"

    @property
    def arguments(self) -> Arguments:
        """What the electron was called with; empty where it is not known any more."""
        if self._task is not None:
            return self._task.arguments
        return self.record.detail.arguments if self.record and self.record.node_id == self.node_id else ()

    @property
    def _task(self) -> Task | None:
        """The electron in its newest call that can be read."""
        calls = [each.call for each in reversed(self.calls) if each.call is not None]
        return next((task for call in calls for task in call.tasks if task.node_id == self.node_id), None)


# --- many jobs --------------------------------------------------------------------------------------------------------


def recent(account: Account, within_s: float = DAY_S) -> list[Record]:
    """Jobs that have not ended, and jobs created in the last day."""
    queues = account.our_queues()
    found = batch_jobs.active(account, queues)
    found += batch_jobs.created_since(account, queues, time.time() - within_s)
    return batch_jobs.describe(account, (each.job_id for each in found))


def all_known(account: Account) -> list[Record]:
    """All jobs that AWS Batch still knows."""
    found = batch_jobs.created_since(account, account.our_queues(), 0.0)
    return batch_jobs.describe(account, (each.job_id for each in found))


def unfinished(account: Account) -> list[Record]:
    """Jobs that have not ended."""
    found = batch_jobs.active(account, account.our_queues())
    return [record for record in batch_jobs.describe(account, (each.job_id for each in found)) if not record.has_ended]


def created_since(account: Account, since: float, dispatch_id: str | None) -> list[Record]:
    """Jobs created after ``since``, in epoch seconds, of one dispatch or of all."""
    found = batch_jobs.created_since(account, account.queues.ours, since, _of(dispatch_id))
    return _mine(batch_jobs.describe(account, (each.job_id for each in found)), dispatch_id)


def jobs_of(account: Account, dispatch_id: str, kept: Iterable[StoredCall]) -> list[Record]:
    """Jobs of a dispatch in the deployment's queues; in other queues too, if a call has no job in these.

    Args:
        account: The account.
        dispatch_id: The whole id of the dispatch.
        kept: Calls of the dispatch in S3.
    """
    kept = list(kept)
    since = min((each.place.made_at for each in kept), default=0.0) - CLOCKS_APART_S
    queues = account.queues
    found = batch_jobs.created_since(account, queues.ours, since, _of(dispatch_id))
    called = {each.name.call_id for each in found}
    if queues.others and any(not each.has_outcome and each.place.call_id not in called for each in kept):
        found += batch_jobs.created_since(account, queues.others, since, _of(dispatch_id))
    return _mine(batch_jobs.describe(account, (each.job_id for each in found)), dispatch_id)


def _of(dispatch_id: str | None) -> Callable[[JobName], bool]:
    return lambda name: dispatch_id is None or name.dispatch == dispatch_id[:SHORT].lower()


def _mine(records: Iterable[Record], dispatch_id: str | None) -> list[Record]:
    return [each for each in records if dispatch_id in (None, each.dispatch_id)]


# --- one dispatch -----------------------------------------------------------------------------------------------------


def dispatch_named(account: Account, beginning: str) -> str:
    """The whole id of the dispatch whose id begins with ``beginning``.

    Raises:
        NoSuchElectron: There is none, or several; candidates are named.
    """
    ids = archive.dispatches(account, beginning)
    if beginning in ids or len(ids) == 1:
        return choose(beginning, ids)
    if not ids:
        # The calls of an executor with another bucket or prefix are not found in S3, but its jobs in AWS Batch.
        jobs = all_known(account)
        newest = sorted(jobs, key=lambda record: -(record.detail.created_at or 0.0))
        known = list(dict.fromkeys(record.dispatch_id for record in newest))
        return choose(beginning, known, known or archive.dispatches(account, ""))
    return choose(beginning, ids)


# --- one electron -----------------------------------------------------------------------------------------------------


def electron(account: Account, wanted: Wanted) -> Electron:
    """Find an electron.

    Args:
        account: The account.
        wanted: Id of its dispatch, or the beginning of the id, and id of its node.

    Raises:
        NoSuchElectron: There is none, or several dispatches begin so; candidates are named.
    """
    dispatch_id = dispatch_named(account, wanted.dispatch)
    assert wanted.node_id is not None
    kept = archive.calls(account, dispatch_id, wanted.node_id)
    kept = kept or _in_a_group(account, dispatch_id, wanted.node_id)
    if kept:
        calls = account.each(lambda each: _read(account, each), kept)
        jobs = _jobs_of_calls(account, dispatch_id, calls)
        found = [each._replace(records=tuple(record for record in jobs if record.call == each.place)) for each in calls]
        ended = (_ended_since(account, each) for each in found)
        return Electron(dispatch_id, wanted.node_id, tuple(own(account, each) for each in ended))
    for place, reused in archive.reuses(account, dispatch_id):
        if isinstance(reused, Reused) and any(node_id == wanted.node_id for node_id, *_ in reused.nodes):
            return Electron(dispatch_id, wanted.node_id, (_origin(account, place, reused),))
    records = [each for each in jobs_of(account, dispatch_id, ()) if each.node_id == wanted.node_id and each.call]
    if not records:
        raise NoSuchElectron(_no_such_node(account, dispatch_id, wanted.node_id))
    return Electron(dispatch_id, wanted.node_id, tuple(_elsewhere(account, records)))


def again(account: Account, known: Electron) -> Electron:
    """The same electron with its newest call's jobs as AWS Batch describes them now: one DescribeJobs."""
    *earlier, newest = known.calls
    records = batch_jobs.describe(account, (each.job_id for each in newest.records))
    return known._replace(calls=(*earlier, newest._replace(records=_by_age(records) or newest.records)))


def _read(account: Account, kept: StoredCall) -> CallHistory:
    outcome, problem = None, ""
    if kept.has_outcome:
        outcome, problem = outcome_or_problem(account, kept.place)
    call, no_call = call_or_problem(account, kept.place)
    return CallHistory(kept.place, call, outcome, problem or no_call, kept.parts, ())


def _ended_since(account: Account, of: CallHistory) -> CallHistory:
    """The call with the outcome that its job wrote after S3 was read, and before AWS Batch was asked."""
    if of.outcome is not None or (of.problem and of.call is not None) or not of.records or not of.records[-1].has_ended:
        return of
    outcome, problem = outcome_or_problem(account, of.place)
    return of._replace(outcome=outcome, problem=problem or of.problem, parts=archive.parts(account, of.place))


def own(account: Account, of: CallHistory) -> CallHistory:
    """The call with the outcome that one of its jobs wrote; without a job that AWS Batch knows, as it is."""
    if of.outcome is None or not of.records:
        return of
    for record in reversed(of.records):
        outcome = archive.outcome_of_job(account, of.place, record.detail, of.outcome)
        if outcome is not None:
            return of._replace(outcome=outcome)
    detail = next((each.detail for each in of.records if each.job_id == of.outcome.job_id), None)
    return of._replace(outcome=None, problem=str(refused(of.place, of.outcome, detail)))


def _origin(account: Account, place: Location, reused: Reused) -> CallHistory:
    """The earlier call whose results an electron has, with the node ids of the electron."""
    own = {origin_id: node_id for node_id, _, origin_id in reused.nodes}
    names = {node_id: name for node_id, name, _ in reused.nodes}
    try:
        origin = checked_origin(place, reused)
    except ProtocolError as error:
        return CallHistory(place, None, None, str(error), (), (), reused)
    outcome, problem = outcome_or_problem(account, origin)
    call, no_call = call_or_problem(account, origin)
    records = batch_jobs.describe(account, [reused.job_id])
    if outcome is not None:
        results = [each._replace(node_id=own.get(each.node_id, each.node_id)) for each in outcome.results]
        outcome = outcome._replace(results=tuple(results))
    if call is not None:
        tasks = [task._replace(node_id=own.get(task.node_id, task.node_id)) for task in call.tasks]
        call = call._replace(tasks=tuple(task._replace(name=names.get(task.node_id, task.name)) for task in tasks))
    parts = archive.parts(account, origin)
    return CallHistory(origin, call, outcome, problem or no_call, parts, _by_age(records), reused)


def outcome_or_problem(account: Account, place: Location) -> tuple[Outcome | None, str]:
    """The outcome of a call, or why it cannot be read."""
    try:
        return archive.read_outcome(account, place), ""
    except OutcomeError as error:
        return None, str(error)


def call_or_problem(account: Account, place: Location) -> tuple[Call | None, str]:
    """A call, or why it cannot be read."""
    try:
        return archive.read_call(account, place), ""
    except CallError as error:
        return None, str(error)


def _in_a_group(account: Account, dispatch_id: str, node_id: int) -> list[StoredCall]:
    """Calls of the task group of a node, whose keys have the node of the group's first electron."""
    every = archive.calls(account, dispatch_id)
    calls = account.each(lambda each: call_or_problem(account, each.place)[0], every)
    return [
        kept
        for kept, call in zip(every, calls, strict=True)
        if call is not None and any(task.node_id == node_id for task in call.tasks)
    ]


def _jobs_of_calls(account: Account, dispatch_id: str, calls: Iterable[CallHistory]) -> tuple[Record, ...]:
    """The calls' jobs: by the id in the outcome, and by a search for the name that the call determines."""
    ids: list[str] = []
    for each in calls:
        if each.outcome is not None and each.outcome.job_id:
            ids.append(each.outcome.job_id)
        ids += [found.job_id for found in _named(account, dispatch_id, each)]
    return _by_age(batch_jobs.describe(account, ids))


def _named(account: Account, dispatch_id: str, of: CallHistory) -> list[ListedJob]:
    if of.call is None or not of.call.tasks:
        return []
    first = of.call.tasks[0]
    name = job_name(first.name, dispatch_id, first.node_id, of.place.call_id)
    found = batch_jobs.named(account, account.queues.ours, name)
    if not found and of.outcome is None:
        found = batch_jobs.named(account, account.queues.others, name)
    return found


def _elsewhere(account: Account, records: list[Record]) -> list[CallHistory]:
    """Calls in another bucket or under another prefix, whose jobs name them."""
    places = list(dict.fromkeys(record.call for record in _by_age(records) if record.call is not None))
    made = []
    for place in places:
        try:
            names = archive.parts(account, place)
            outcome, problem = outcome_or_problem(account, place)
            call, no_call = call_or_problem(account, place)
        except AccessDenied as error:
            names, outcome, problem, call, no_call = (), None, str(error), None, ""
        mine = tuple(record for record in _by_age(records) if record.call == place)
        made.append(CallHistory(place, call, outcome, problem or no_call, names, mine))
    return made


def _by_age(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(sorted(records, key=lambda record: (record.detail.created_at or 0.0, record.job_id)))


def _no_such_node(account: Account, dispatch_id: str, node_id: int) -> str:
    nodes: dict[int, str] = {}
    for kept in archive.calls(account, dispatch_id):
        nodes.setdefault(kept.node_id, "")
    for record in jobs_of(account, dispatch_id, ()):
        nodes[record.node_id] = f" ({record.electron})"
    known = listed([f"{node}{name}" for node, name in sorted(nodes.items())])
    return (
        f"dispatch {dispatch_id} has no electron with node {node_id} that ran as a job. There are: {known or 'none'}. "
        "Covalent's own nodes are not jobs."
    )

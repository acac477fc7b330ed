"""The gateway to jobs in AWS Batch, for commands: lists, describes and terminates many jobs at a time.

It returns `Record`s of electrons only, so that the jobs of other programs are neither shown nor terminated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from covalent_cirro.aws.batch import MAX_DESCRIBED, MAX_REASON, MAX_TERMINATED
from covalent_cirro.contract.places import Location
from covalent_cirro.errors import AccessDenied, AwsError, CirroError, NotFound
from covalent_cirro.history import archive
from covalent_cirro.history.account import Account
from covalent_cirro.history.names import JobName, parse_job_name
from covalent_cirro.history.records import Record, of_node, parse_record
from covalent_cirro.jobs import compute_nodes
from covalent_cirro.jobs.states import ACTIVE_STATES


class ListedJob(NamedTuple):
    """What ListJobs says of a job whose name is that of an electron's job."""

    job_id: str
    name: JobName
    created_at: float


class ArrayChild(NamedTuple):
    """What ListJobs says of a job of an array.

    Attributes:
        number: Its index in the array.
        state: Its state.
        started_at, stopped_at: Epoch seconds; `None` where not reached.
        reason: Why it is in this state, in AWS's words; mostly empty.
    """

    number: int
    state: str
    started_at: float | None
    stopped_at: float | None
    reason: str


def of_array(account: Account, parent_id: str, state: str) -> list[ArrayChild]:
    """The jobs of an array in one state: a ListJobs for each 1,000 of them."""
    batch = account.clients("batch")
    found: list[ArrayChild] = []
    token: dict[str, str] = {}
    while True:
        page = account.ask(
            "batch:ListJobs",
            lambda token=token: batch.list_jobs(arrayJobId=parent_id, jobStatus=state, **token),  # type: ignore[misc]
            of=f"array job {parent_id!r}",
        )
        for each in page["jobSummaryList"]:
            container = each.get("container") or {}
            reasons = (str(container.get("reason") or ""), str(each.get("statusReason") or ""))
            found.append(
                ArrayChild(
                    number=int((each.get("arrayProperties") or {}).get("index") or 0),
                    state=str(each.get("status") or state),
                    started_at=(each.get("startedAt") or 0) / 1000 or None,
                    stopped_at=(each.get("stoppedAt") or 0) / 1000 or None,
                    reason="; ".join(dict.fromkeys(one for one in reasons if one)),
                )
            )
        if not page.get("nextToken"):
            return found
        token = {"nextToken": page["nextToken"]}


def active(account: Account, queues: Sequence[str]) -> list[ListedJob]:
    """Jobs that have not ended: a ListJobs for each queue and state, and for each 1,000 jobs more."""

    def of(queue_and_state: tuple[str, str]) -> list[ListedJob]:
        queue, state = queue_and_state
        return _listed(account, queue, lambda name: True, jobStatus=state)

    pairs = [(queue, state) for queue in queues for state in ACTIVE_STATES]
    return _distinct(account.each(of, pairs))


def created_since(
    account: Account, queues: Sequence[str], since: float, wanted: Callable[[JobName], bool] = lambda name: True
) -> list[ListedJob]:
    """Jobs in any state that were created after a time: a ListJobs for each queue, and for each 100 jobs more.

    Args:
        account: The account.
        queues: Names of queues.
        since: Epoch seconds. With this filter ListJobs lists jobs in every state.
        wanted: Whether to return the job of this name.
    """
    value = str(max(0, int(since * 1000)))

    def of(queue: str) -> list[ListedJob]:
        return _listed(account, queue, wanted, filters=[{"name": "AFTER_CREATED_AT", "values": [value]}])

    return _distinct(account.each(of, list(queues)))


def named(account: Account, queues: Sequence[str], name: str) -> list[ListedJob]:
    """Jobs in any state whose name begins with ``name``: a ListJobs for each queue."""

    def of(queue: str) -> list[ListedJob]:
        return _listed(account, queue, lambda _: True, filters=[{"name": "JOB_NAME", "values": [f"{name}*"]}])

    return _distinct(account.each(of, list(queues)))


def describe(account: Account, job_ids: Iterable[str]) -> list[Record]:
    """What AWS Batch says of electrons' jobs, 100 in a call. Unknown ids, and jobs of other programs, are left out.

    Of jobs of several nodes, the nodes are described too: the end of the main node is that of the job.
    """
    described = _described(account, list(dict.fromkeys(job_ids)))
    found = [record for job in described if (record := parse_record(job)) is not None]
    return _with_exact_names(account, _with_nodes(account, found))


def nodes_of(account: Account, job: Record, numbers: Iterable[int] | None = None) -> dict[int, Record]:
    """Nodes of a multi-node job by their numbers; those that AWS Batch does not show are left out.

    Args:
        account: The account.
        job: The job.
        numbers: Which nodes; `None`: the first `compute_nodes.MAX_SEEN`.
    """
    wanted = range(min(job.detail.num_nodes, compute_nodes.MAX_SEEN)) if numbers is None else numbers
    ids = {compute_nodes.node_id(job.job_id, number): number for number in wanted}
    return {ids[str(each["jobId"])]: of_node(job, each) for each in _described(account, list(ids))}


def _with_nodes(account: Account, records: list[Record]) -> list[Record]:
    ids = compute_nodes.ids_to_describe(record.detail for record in records)
    if not ids:
        return records
    described = {str(each["jobId"]): each for each in _described(account, ids)}
    found = []
    for record in records:
        own = {name: of_node(record, each) for name, each in described.items() if name.startswith(f"{record.job_id}#")}
        main = own.get(compute_nodes.node_id(record.job_id, compute_nodes.MAIN_NODE))
        if main is not None:
            record = record._replace(host=main.host, cluster=main.cluster)
        detail = compute_nodes.with_nodes(record.detail, {name: each.detail for name, each in own.items()})
        found.append(record._replace(detail=detail))
    return found


def _described(account: Account, ids: list[str]) -> list[dict[str, Any]]:
    batch = account.clients("batch")

    def some(chunk: list[str]) -> list[dict[str, Any]]:
        answer = account.ask("batch:DescribeJobs", lambda: batch.describe_jobs(jobs=chunk))
        return list(answer["jobs"])

    return [job for jobs in account.each(some, _chunks(ids, MAX_DESCRIBED)) for job in jobs]


def _with_exact_names(account: Account, records: list[Record]) -> list[Record]:
    """The records with exact names: where a tag could not hold a name, the call is read, once."""
    inexact = {record.call for record in records if record.call is not None and not record.has_exact_names}
    asked = sorted(inexact - account.names.keys())
    account.names |= dict(zip(asked, account.each(lambda place: _names(account, place), asked), strict=True))
    found = []
    for record in records:
        names = account.names.get(record.call) if record.call is not None and not record.has_exact_names else None
        if names is not None:
            electron, lattice = names
            record = record._replace(electron=electron or record.electron, lattice=lattice or record.lattice)
        found.append(record)
    return found


def _names(account: Account, place: Location) -> tuple[str, str] | None:
    try:
        call = archive.read_call(account, place)
    except CirroError:  # the call has expired, or may not be read: the names in the tags are shown
        return None
    return (call.tasks[0].name, call.lattice) if call is not None and call.tasks else None


def terminate(account: Account, job_ids: Sequence[str], reason: str) -> dict[str, str]:
    """Terminate jobs in any state: 50 in a call, or one by one where AWS refuses that.

    Returns:
        By job id, AWS's words for each job that it did not terminate.
    """
    refused: dict[str, str] = {}
    for answer in account.each(
        lambda chunk: _terminate(account, chunk, reason), _chunks(list(job_ids), MAX_TERMINATED)
    ):
        refused |= answer
    return refused


def _terminate(account: Account, job_ids: list[str], reason: str) -> dict[str, str]:
    batch, reason = account.clients("batch"), reason[:MAX_REASON]
    left = job_ids
    if len(job_ids) > 1 and hasattr(batch, "terminate_jobs"):
        try:
            answer = account.ask("batch:TerminateJobs", lambda: batch.terminate_jobs(jobs=job_ids, reason=reason))
        except AwsError as error:
            if error.retryable:
                raise
            # The endpoint does not know the call, or the policy allows some of the jobs: terminate one at a time.
        else:
            left = [str(each["job"]) for each in answer["errors"]]
    refused = {}
    for job_id in left:
        try:
            account.ask(
                "batch:TerminateJob",
                lambda job_id=job_id: batch.terminate_job(jobId=job_id, reason=reason),  # type: ignore[misc]
                of=f"job {job_id}",
            )
        except (AccessDenied, NotFound, AwsError) as error:
            refused[job_id] = str(error)
    return refused


def _listed(account: Account, queue: str, wanted: Callable[[JobName], bool], **request: Any) -> list[ListedJob]:
    batch = account.clients("batch")
    found: list[ListedJob] = []
    token: dict[str, str] = {}
    while True:
        page = account.ask(
            "batch:ListJobs",
            lambda token=token: batch.list_jobs(jobQueue=queue, **request, **token),  # type: ignore[misc]
            of=f"queue {queue!r}",
        )
        for each in page["jobSummaryList"]:
            name = parse_job_name(each["jobName"])
            if name is not None and wanted(name):
                found.append(ListedJob(each["jobId"], name, (each.get("createdAt") or 0) / 1000))
        if not page.get("nextToken"):
            return found
        token = {"nextToken": page["nextToken"]}


def _distinct(pages: Iterable[list[ListedJob]]) -> list[ListedJob]:
    """Each job once: a job that changed its state between two calls is in both answers."""
    return list({each.job_id: each for page in pages for each in page}.values())


def _chunks(ids: list[str], size: int) -> list[list[str]]:
    return [ids[begin : begin + size] for begin in range(0, len(ids), size)]

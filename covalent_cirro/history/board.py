"""The list of electrons that ``cirro jobs`` shows, and its updates with few calls.

The first update searches for jobs; later ones ask for the jobs that had not ended, all together, and for new jobs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Arguments, Outcome, Reused
from covalent_cirro.contract.reports import Curve
from covalent_cirro.errors import AccessDenied, NotFound
from covalent_cirro.history import archive, batch_jobs, find, reported
from covalent_cirro.history.account import Account
from covalent_cirro.history.archive import StoredCall
from covalent_cirro.history.electron_list import Row, folded, ordered, row_of_call, row_of_job, row_of_reused
from covalent_cirro.history.instances import Instances
from covalent_cirro.history.map_items import MapItems, MapState
from covalent_cirro.history.queue_places import JobWaits
from covalent_cirro.history.records import Record
from covalent_cirro.jobs.authentic_outcomes import refused
from covalent_cirro.jobs.states import JobState

EVERY_S = 3.0
"""Seconds between two updates, at least."""

CALLS_PER_S = 2.0
"""Calls a second, at most, by which the pause between updates is computed: AWS publishes no rate for ListJobs and
DescribeJobs, and other programs share it."""

OVERLAP_S = 30.0
"""Seconds before the last update from which new jobs are searched: ListJobs shows a job some time after it was
submitted."""


class SeenJobs(NamedTuple):
    """What is known of the jobs of a dispatch.

    Attributes:
        records: What AWS Batch says of them.
        forgotten: By place, the electron's name and arguments of each call whose job AWS Batch does not know.
        outcomes: Outcomes by job id; by place, of calls in ``forgotten``.
        problems: Why outcomes and calls cannot be read, by the same.
        reused: Electrons that have the results of an earlier job, by place.
        maps: Maps by job id, as far as their items were counted.
        curves: What electrons have reported, by node.
    """

    records: tuple[Record, ...]
    forgotten: Mapping[Location, tuple[str, Arguments]]
    outcomes: Mapping[Location | str, Outcome | None]
    problems: Mapping[Location | str, str]
    reused: Mapping[Location, Reused]
    maps: Mapping[str, MapState]
    curves: Mapping[int, Curve]


class Board:
    """The rows of one dispatch, or of all.

    Args:
        account: The account.
        dispatch_id: The whole id of a dispatch; `None` for all dispatches.
        everything: Without a dispatch: all jobs that AWS Batch knows, not only those of the last day.
        reusing: The dispatch may still reuse results of an earlier one: each update asks S3 for them.
        from_s3_alone: Find a dispatch's calls and outcomes without asking AWS Batch for jobs. For one look.
        clock: Epoch seconds.

    Attributes:
        hosts: Instances that jobs run or ran on.
    """

    def __init__(
        self,
        account: Account,
        dispatch_id: str | None,
        *,
        everything: bool = False,
        reusing: bool = False,
        from_s3_alone: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._account = account
        self._dispatch_id = dispatch_id
        self._everything = everything
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._outcomes: dict[Location | str, Outcome | None] = {}  # by job id; by place, of jobs that are forgotten
        self._problems: dict[Location | str, str] = {}
        self._kept: list[StoredCall] = []
        self._electrons: dict[Location, tuple[str, Arguments]] = {}
        self._reusing = reusing
        self._from_s3_alone = from_s3_alone
        self._reused: dict[Location, Reused] = {}
        self.hosts = Instances(account)
        self._items = MapItems(account)
        self._maps: dict[str, MapState] = {}
        self._curves: dict[int, Curve] = {}
        self._unread_ends: set[str] = set()  # of jobs that have ended since what they report was listed
        self._turns = JobWaits(account, clock=clock)
        self._looked_at: float | None = None
        self._calls = 0

    def look(self) -> list[Row]:
        """Update the rows, and return them in the order in which they are shown.

        Raises:
            AccessDenied, AwsError: AWS refused or could not be reached.
        """
        before, began = self._account.clients.calls, self._clock()
        found = self._first() if self._looked_at is None else self._next(self._looked_at)
        self._unread_ends |= {
            record.job_id
            for record in found
            if record.has_ended and not (record.job_id in self._records and self._records[record.job_id].has_ended)
        }
        self._records |= {record.job_id: record for record in found}
        if self._dispatch_id is not None and (self._looked_at is None or self._reusing or self._reused):
            self._read_reuses(self._dispatch_id)
        self._looked_at = began
        self._read_outcomes()
        waits, hosts = self._turns.of(self._records.values()), self.hosts.of(self._records.values())
        self._maps = self._items.of(filter(self._shows_items, self._records.values()), began)
        self._read_reports()
        counts = {job_id: state.counts for job_id, state in self._maps.items()}
        rows = [
            row_of_job(
                record,
                self._outcomes.get(job_id),
                waits.get(job_id),
                hosts.get(job_id),
                self._problems.get(job_id, ""),
                now=began,
                items=counts.get(job_id),
                reported=self._curves[record.node_id].points if record.node_id in self._curves else (),
            )
            for job_id, record in self._records.items()
        ]
        called = {record.call for record in self._records.values()}
        rows += [
            row_of_call(place, name, self._outcomes.get(place), began, self._problems.get(place, ""), arguments)
            for place, (name, arguments) in self._electrons.items()
            if place not in called
        ]
        rows += [row_of_reused(place, reused) for place, reused in self._reused.items()]
        self._calls = self._account.clients.calls - before
        return ordered(folded(rows))

    @property
    def problem(self) -> str:
        """What is missing in the rows of the last update, and why; empty where nothing is."""
        return self.hosts.problem

    @property
    def seen(self) -> SeenJobs:
        """What the rows were made of."""
        called = {record.call for record in self._records.values()}
        forgotten = {place: electron for place, electron in self._electrons.items() if place not in called}
        return SeenJobs(
            tuple(self._records.values()),
            forgotten,
            self._outcomes,
            self._problems,
            self._reused,
            self._maps,
            self._curves,
        )

    @property
    def pause_s(self) -> float:
        """Seconds to wait before the next update."""
        return max(EVERY_S, self._calls / CALLS_PER_S)

    def _shows_items(self, record: Record) -> bool:
        """Whether the items of a job are counted: of an array that runs; in the list of one dispatch, of each map."""
        if not record.has_ended or self._dispatch_id is None:
            return record.detail.has_begun and not record.has_ended
        outcome = self._outcomes.get(record.job_id)
        return record.detail.array_size > 0 or (
            outcome is not None and any(each.items is not None for each in outcome.results)
        )

    def _first(self) -> list[Record]:
        if self._dispatch_id is None:
            return find.all_known(self._account) if self._everything else find.recent(self._account)
        self._kept = archive.calls(self._account, self._dispatch_id)
        records = [] if self._from_s3_alone else find.jobs_of(self._account, self._dispatch_id, self._kept)
        called = {record.call for record in records}
        forgotten = [kept for kept in self._kept if kept.place not in called]
        calls = self._account.each(lambda kept: find.call_or_problem(self._account, kept.place), forgotten)
        for kept, (call, problem) in zip(forgotten, calls, strict=True):
            first = call.tasks[0] if call and call.tasks else None
            self._electrons[kept.place] = (first.name, first.arguments) if first is not None else ("-", ())
            if problem:
                self._problems[kept.place] = problem
        self._kept = forgotten
        return records

    def _read_reuses(self, dispatch_id: str) -> None:
        known = self._reused.keys() | self._electrons.keys()
        for place, reused in archive.reuses(self._account, dispatch_id, known):
            if isinstance(reused, Reused):
                self._reused[place] = reused
            else:
                self._electrons[place], self._problems[place] = ("-", ()), str(reused)

    def _next(self, looked_at: float) -> list[Record]:
        open_ids = [record.job_id for record in self._records.values() if not record.has_ended]
        new = find.created_since(self._account, looked_at - OVERLAP_S, self._dispatch_id)
        seen = {record.job_id for record in new}
        return [*new, *batch_jobs.describe(self._account, (each for each in open_ids if each not in seen))]

    def _read_reports(self) -> None:
        """List what the electrons of the dispatch report, while some run and once more after their end."""
        begun = [record for record in self._records.values() if record.attempt or record.detail.has_begun]
        running = any(record.state == JobState.RUNNING.value or record.detail.has_begun for record in begun)
        if self._dispatch_id is None or not begun or not (running or self._unread_ends):
            return
        self._unread_ends.clear()
        with contextlib.suppress(AccessDenied):  # it is only shown
            curves = reported.of_dispatch(self._account, begun[0].lattice, self._dispatch_id)
            self._curves = {curve.node_id: curve for curve in curves}

    def _read_outcomes(self) -> None:
        """Read the outcome of each ended job, once: it is written before the job ends, and does not change."""
        wanted: list[tuple[Location, Record | None]] = [
            (record.call, record)
            for record in self._records.values()
            if record.has_ended and record.call is not None and record.job_id not in self._outcomes
        ]
        wanted += [(kept.place, None) for kept in self._kept if kept.has_outcome and kept.place not in self._outcomes]
        found = self._account.each(lambda of: self._outcome_at(*of), wanted)
        for (place, record), (outcome, problem) in zip(wanted, found, strict=True):
            known_as = place if record is None else record.job_id
            self._outcomes[known_as] = outcome
            if problem:
                self._problems[known_as] = problem

    def _outcome_at(self, place: Location, record: Record | None) -> tuple[Outcome | None, str]:
        try:
            outcome, problem = find.outcome_or_problem(self._account, place)
            if record is None or outcome is None:
                return outcome, problem
            own = archive.outcome_of_job(self._account, place, record.detail, outcome)
            # A call that was submitted twice has one outcome, written by one of its jobs.
            forged = own is None and outcome.job_id == record.job_id
            return own, str(refused(place, outcome, record.detail)) if forged else ""
        except (AccessDenied, NotFound):
            return None, ""  # the call is in a bucket that may not be read: the list is shown without its outcome

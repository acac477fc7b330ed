"""Reports: timelines, shares and sums, estimates, sizes for next time, and the page. Pure parts, no AWS."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covalent_cirro.aws.prices import ON_DEMAND, SPOT, Price, shipped
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Output, Usage
from covalent_cirro.contract.references import Blob, Inline
from covalent_cirro.history.account import Account
from covalent_cirro.history.electron_list import Row
from covalent_cirro.history.records import Record, parse_record
from covalent_cirro.history.report import Report, compute, costs, document, page, sizing, timeline
from covalent_cirro.history.report.array_children import ArrayChildren
from covalent_cirro.history.report.costs import Offer, estimate, share
from covalent_cirro.history.report.runs import BilledAttempt, Machine, QueueMachines, Run, run_of_call, run_of_job
from covalent_cirro.history.report.sources import ListedElectron, ReportFacts
from covalent_cirro.history.report.timeline import Segment
from covalent_cirro.jobs.formatting import usd
from covalent_cirro.jobs.machines import InstanceType, Need
from covalent_cirro.settings import resolve

MIB = 1024 * 1024
KIND = InstanceType("m6i.large", 2, 8192, 0, "x86_64")
GPU_KIND = InstanceType("g5.12xlarge", 48, 196608, 4, "x86_64")
PRICE = Price(0.36, SPOT, "2026-11-22", "EC2 Spot price history")
HERE = Machine("m6i.large", "eu-west-1a", SPOT)
TIMES = {"started": 105.0, "fetched": 106.0, "first_line": 106.5, "ran": 116.0, "stored": 117.0}


def attempt(number: int = 1, began_at: float = 104.0, ended_at: float | None = 118.0, **changes: Any) -> BilledAttempt:
    """An attempt that ran."""
    return BilledAttempt(
        number, began_at, ended_at, changes.pop("lost", False), "", changes.pop("machine", HERE), **changes
    )


def run(**changes: Any) -> Run:
    """A run of one attempt that succeeded."""
    made = Run(
        node_id=0,
        name="train",
        job_id="job",
        call_id="call",
        state="SUCCEEDED",
        queue="cirro-cpu",
        need=Need(1, 2048, 0),
        called_at=100.0,
        created_at=101.0,
        attempts=(attempt(),),
        usage=Usage(wall_s=12.0, cpu_s=6.0, peak_memory_bytes=500 * MIB),
        times=TIMES,
    )
    return made._replace(**changes)


def report_of(*runs: Run, price: Price | None = PRICE, notes: Sequence[str] = ()) -> Report:
    """The report on these runs."""
    kinds = {KIND.name: KIND, GPU_KIND.name: GPU_KIND}
    return compute(
        ReportFacts(
            "dispatch-1", "sweep", "eu-west-1", runs, kinds, lambda machine, begin, end: price, tuple(notes), 200.0
        )
    )


def listed(log_end: str = "", **changes: Any) -> ListedElectron:
    """An electron in the list."""
    row = Row(
        dispatch_id="dispatch-1",
        lattice="sweep",
        node_id=0,
        electron="train",
        state="RUNNING",
        since=140.0,
        why="",
        reason="",
        position=None,
        attempt=1,
        attempts_allowed=3,
        queue="cirro-cpu",
        where="m6i.large eu-west-1a",
        memory_mib=2048,
        used_bytes=None,
        job_id="job",
        call_id="call",
    )
    return ListedElectron(row._replace(**changes), log_end)


# --- timelines ------------------------------------------------------------------------------------------------------


def test_a_run_has_its_pieces_in_order() -> None:
    """From the call to the stored result; each begins where the one before ended."""
    found = [(each.kind, each.began_at, each.ended_at) for each in timeline.segments(run(), 200.0)]
    assert found == [
        ("upload", 100.0, 101.0),
        ("queue", 101.0, 104.0),
        ("start", 104.0, 105.0),
        ("fetch", 105.0, 106.0),
        ("run", 106.0, 116.0),
        ("store", 116.0, 118.0),
    ]


def test_a_lost_attempt_and_the_wait_for_the_next_are_pieces() -> None:
    """The time that was lost is told as lost, not as run."""
    of = run(attempts=(attempt(1, 102.0, 103.0, lost=True), attempt(2)))
    kinds = [each.kind for each in timeline.segments(of, 200.0)]
    assert kinds == ["upload", "queue", "lost", "queue", "start", "fetch", "run", "store"]


def test_what_is_under_way_lasts_until_now() -> None:
    """A job that waits and a container that runs; one that was tried once waits again."""
    waits = run(state="RUNNABLE", attempts=(), times={}, usage=None)
    assert [(each.kind, each.ended_at) for each in timeline.segments(waits, 150.0)][-1] == ("queue", 150.0)
    runs = run(state="RUNNING", attempts=(attempt(ended_at=None),), times={}, usage=None)
    assert [(each.kind, each.ended_at) for each in timeline.segments(runs, 150.0)][-1] == ("run", 150.0)
    again = run(state="RUNNABLE", attempts=(attempt(lost=True),), times={}, usage=None)
    assert [(each.kind, each.ended_at) for each in timeline.segments(again, 150.0)][-1] == ("queue", 150.0)


def test_an_attempt_without_times_is_not_told_as_a_run() -> None:
    """A container that was killed left none: all that is known is that it failed."""
    of = run(state="FAILED", times={}, usage=None)
    assert [each.kind for each in timeline.segments(of, 200.0)] == ["upload", "queue", "failed"]


moments = st.floats(0, 1000, allow_nan=False)


@st.composite
def any_run(draw: st.DrawFn) -> Run:
    """A run whose clocks disagree in any way."""
    attempts = []
    for number in range(1, draw(st.integers(0, 4)) + 1):
        ended_at = draw(st.none() | moments)
        attempts.append(attempt(number, draw(moments), ended_at, lost=draw(st.booleans()), machine=draw(machines)))
    return run(
        node_id=draw(st.integers(0, 3)),
        job_id=str(draw(st.integers(0, 5))),
        state=draw(st.sampled_from(["SUCCEEDED", "FAILED", "RUNNING", "RUNNABLE", "UNKNOWN"])),
        need=draw(st.none() | needs),
        called_at=draw(st.none() | moments),
        created_at=draw(st.none() | moments),
        attempts=tuple(attempts),
        times=draw(st.dictionaries(st.sampled_from(sorted(TIMES)), moments)),
    )


machines = st.builds(Machine, st.sampled_from(["m6i.large", "g5.12xlarge", "", "z99.huge"]), st.just(""), st.just(SPOT))
needs = st.builds(Need, st.integers(1, 400), st.integers(128, 10**6), st.integers(0, 16))


@settings(deadline=None)
@given(any_run(), moments)
def test_pieces_are_ordered_and_do_not_overlap(of: Run, now: float) -> None:
    """Whatever the clocks say: none is empty, and each begins where the one before ended."""
    found = timeline.segments(of, now)
    assert all(each.seconds > 0 for each in found)
    assert all(one.ended_at == other.began_at for one, other in itertools.pairwise(found))
    assert all(each.kind in timeline.KINDS for each in found)
    if found:
        assert found[0].began_at == of.began_at


# --- costs ----------------------------------------------------------------------------------------------------------


def test_a_share_is_the_largest_of_vcpu_memory_and_gpu() -> None:
    """Half of the vCPUs, all of the memory, a quarter of the GPUs: whatever others cannot have any more."""
    assert share(Need(1, 128, 0), KIND) == 0.5
    assert share(Need(1, KIND.usable_memory_mib, 0), KIND) == 1.0
    assert share(Need(4, 16384, 1), GPU_KIND) == 0.25
    assert share(Need(4, 16384, 4), GPU_KIND) == 1.0


@settings(deadline=None)
@given(needs, st.sampled_from(sorted(shipped().types)))
def test_a_share_is_between_0_and_1(need: Need, name: str) -> None:
    """Also where more is asked for than there is."""
    assert 0.0 <= share(need, shipped().types[name]) <= 1.0


def test_an_attempt_costs_its_share_for_as_long_as_it_ran() -> None:
    """14 s of half of an instance at $0.36 an hour; what was lost costs as well."""
    lost = attempt(1, 102.0, 103.0, lost=True)
    made = report_of(run(attempts=(lost, attempt(2))))
    assert [line.usd for line in made.lines] == [
        pytest.approx(0.36 * 0.5 / 3600),
        pytest.approx(0.36 * 0.5 * 14 / 3600),
    ]
    assert made.total.usd == pytest.approx(0.36 * 0.5 * 15 / 3600)
    assert (made.total.lost, made.total.lost_s) == (1, 1.0)
    assert made.total.lost_usd == pytest.approx(0.36 * 0.5 / 3600)
    assert made.total.exact


def test_what_is_not_known_is_not_made_up() -> None:
    """No price, no instance type, or no request: no cost, and the sum says that it lacks something."""
    for of, price in (
        (run(), None),
        (run(need=None), PRICE),
        (run(attempts=(attempt(machine=Machine()),)), PRICE),
    ):
        made = report_of(of, price=price)
        assert made.lines[0].usd is None
        assert (made.total.usd, made.total.unknown, made.total.exact) == (0.0, 1, False)


def test_a_step_is_all_electrons_of_one_name() -> None:
    """Its instances are counted once each, its time is from the first call to the last end, its cost that of all."""
    other = Machine("m6i.large", "eu-west-1b", SPOT)
    made = report_of(
        run(node_id=0, name="load", attempts=(attempt(host="i-1"),)),
        run(
            node_id=1, attempts=(attempt(1, 104.0, 106.0, lost=True, host="i-1"), attempt(2, 107.0, 118.0, host="i-2"))
        ),
        run(node_id=2, called_at=103.0, attempts=(attempt(1, 108.0, 128.0, host="i-2", machine=other),)),
    )
    load, train = made.steps
    assert (load.name, load.nodes, load.attempts, load.where) == ("load", 1, 1, "1 m6i.large spot")
    assert (train.name, train.nodes, train.attempts, train.where) == ("train", 2, 3, "2 m6i.large spot")
    assert (train.elapsed_s, train.ran_s) == (28.0, 33.0)
    assert load.usd + train.usd == pytest.approx(made.total.usd)
    assert train.cost == usd(train.usd)
    assert [each["name"] for each in document(made)["steps"]] == ["load", "train"]


def test_the_jobs_of_an_array_cost_and_run_side_by_side() -> None:
    """The array's own job has no attempt; its row is from the first job that starts to the last that ends."""
    children = (attempt(1, 104.0, 110.0, host="i-1"), attempt(1, 105.0, 118.0, host="i-2"))
    made = report_of(run(attempts=(), children=children))
    (step,) = made.steps
    assert (step.nodes, step.attempts, step.where, step.ran_s) == (1, 2, "2 m6i.large spot", 19.0)
    assert made.total.usd == pytest.approx(0.36 * 0.5 * 19 / 3600)
    (segments,) = made.segments
    assert [(each.kind, each.ended_at) for each in segments] == [("upload", 101.0), ("queue", 104.0), ("run", 118.0)]
    running = report_of(run(state="PENDING", attempts=(), children=children))
    assert running.segments[0][-1] == Segment("run", 104.0, 200.0)


def test_jobs_of_an_array_that_have_ended_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of an array that has not begun are not read: their machines are not known."""
    asked: list[list[str]] = []
    states = {"array:0": "SUCCEEDED", "array:1": "RUNNING"}

    def describe(account: object, ids: Sequence[str]) -> list[Record]:
        asked.append(list(ids))
        return [record(jobId=each, status=states[each]) for each in ids]

    monkeypatch.setattr("covalent_cirro.history.batch_jobs.describe", describe)
    children = ArrayChildren(cast(Account, None))
    begun = record(jobId="array", arrayProperties={"size": 2, "statusSummary": {"RUNNING": 1, "SUCCEEDED": 1}})
    waiting = record(jobId="waits", arrayProperties={"size": 2, "statusSummary": {"RUNNABLE": 2}})
    for _ in range(2):
        found = children.of([begun, waiting, record()])
        assert [each.job_id for each in found["array"]] == ["array:0", "array:1"]
        assert list(found) == ["array"]
    assert asked == [["array:0", "array:1"], ["array:1"]]


def test_a_step_that_runs_lasts_until_now_and_says_what_is_not_known() -> None:
    """Instances that AWS does not name are not counted, and a cost without a price is not told as a sum."""
    (step,) = report_of(run(state="RUNNING", attempts=(attempt(ended_at=None),)), price=None).steps
    assert step.elapsed_s == 100.0
    assert step.where == "m6i.large spot"
    assert step.cost == "≈ ?"
    (waiting,) = report_of(run(state="RUNNABLE", attempts=())).steps
    assert (waiting.where, waiting.attempts, waiting.elapsed_s, waiting.ran_s) == ("", 0, 100.0, 0.0)


def test_an_assumed_instance_or_price_is_not_exact() -> None:
    """The cost is told, and that something in it is assumed."""
    assumed = report_of(run(attempts=(attempt(machine=HERE._replace(assumed=True)),)))
    stand_in = report_of(run(), price=PRICE._replace(exact=False))
    for made in (assumed, stand_in):
        assert made.total.usd > 0
        assert not made.total.exact


@settings(deadline=None, max_examples=40)
@given(st.lists(any_run(), max_size=6))
def test_sums_are_sums(runs: list[Run]) -> None:
    """The whole is the sum of its attempts and of its nodes; what was lost is a part of it; nothing is negative."""
    made = report_of(*runs)
    assert made.total.usd == pytest.approx(math.fsum(line.usd or 0.0 for line in made.lines))
    assert made.total.usd == pytest.approx(math.fsum(each.usd for each in made.nodes.values()))
    assert made.total.attempts == sum(each.attempts for each in made.nodes.values()) == len(made.lines)
    assert 0 <= made.total.lost_usd <= made.total.usd + 1e-12
    assert all(line.usd is None or line.usd >= 0 for line in made.lines)
    assert all(line.share is None or 0 <= line.share <= 1 for line in made.lines)
    assert made.total.unknown == sum(line.usd is None for line in made.lines)
    page.page(made)
    document(made)


# --- estimates ------------------------------------------------------------------------------------------------------


def offer(name: str, usd: float) -> Offer:
    """An instance type of the table at a price."""
    return Offer(shipped().types[name], Price(usd, ON_DEMAND, "2026-11-22", "test"))


def test_an_estimate_is_what_the_run_would_have_cost() -> None:
    """The same need for the same time on the same instance: before and after are one figure."""
    of = run(attempts=(attempt(1, 0.0, 3600.0),))
    after = report_of(of).total.usd
    assert of.need is not None
    before = estimate(of.need, 3600.0, [Offer(KIND, PRICE)])
    assert before is not None
    assert before.least_usd == before.most_usd == pytest.approx(after)


def test_an_estimate_goes_from_the_cheapest_to_the_dearest_that_fits() -> None:
    """What does not fit is not looked at; electrons and hours multiply."""
    offers = [offer("m6i.large", 0.1), offer("m6i.xlarge", 0.4), offer("c6i.large", 0.01)]
    found = estimate(Need(2, 6000, 0), 7200.0, offers, electrons=3)
    assert found is not None
    assert (found.least.kind.name, found.most.kind.name) == ("m6i.large", "m6i.xlarge")
    assert found.least_usd == pytest.approx(0.1 * 2 * 3)
    assert found.most_usd == pytest.approx(0.4 * 0.5 * 2 * 3)
    assert estimate(Need(64, 6000, 0), 60.0, offers) is None


def test_a_node_of_several_has_its_instance_for_itself() -> None:
    """AWS Batch puts nothing beside it: half of an instance costs as much as all of it."""
    parts = {nodes: report_of(run(need=Need(1, 2048, 0), nodes=nodes)).lines[0] for nodes in (1, 2)}
    assert [parts[nodes].share for nodes in (1, 2)] == [0.5, 1.0]
    assert parts[2].usd == pytest.approx(2 * (parts[1].usd or 0))
    alone, two = (estimate(Need(1, 2048, 0), 3600, [Offer(KIND, PRICE)], nodes=nodes) for nodes in (1, 2))
    assert alone is not None
    assert two is not None
    assert two.least_usd == pytest.approx(4 * alone.least_usd)


def test_a_need_is_that_of_the_executors_settings() -> None:
    """Memory in GB becomes MiB."""
    assert costs.need_of(resolve({"vcpu": 4, "memory": 1.5, "num_gpus": 2}, {})) == Need(4, 1536, 2)


# --- sizes ----------------------------------------------------------------------------------------------------------


def record(**changes: Any) -> Record:
    """A job as AWS Batch describes it."""
    found = parse_record(described(**changes))
    assert found is not None
    return found


def size_of(*runs: Run) -> sizing.SizeProposal:
    """The one size of these runs."""
    (found,) = sizing.sizes(runs)
    return found


def used(wall_s: float = 60.0, cpu_s: float = 30.0, peak_mib: float | None = 500, **changes: Any) -> Run:
    """A run that used so much."""
    peak = None if peak_mib is None else int(peak_mib * MIB)
    gpus = changes.pop("gpus", ())
    usage = Usage(wall_s=wall_s, cpu_s=cpu_s, peak_memory_bytes=peak, gpus=gpus)
    return run(usage=usage, **changes)


def test_a_size_is_enough_for_the_largest_run() -> None:
    """A quarter more than the largest peak, rounded up; as many vCPUs as were busy."""
    found = size_of(
        used(cpu_s=90, peak_mib=300, need=Need(4, 8192, 0)), used(cpu_s=20, peak_mib=1000, need=Need(4, 8192, 0))
    )
    assert found.next == Need(2, 1280, 0)
    assert found.options == "vcpu=2, memory=1.25"
    assert found.runs == 2


def test_out_of_memory_asks_for_twice_as_much() -> None:
    """How much it needed is not known; that it was not enough is."""
    found = size_of(run(usage=None, out_of_memory=True, need=Need(1, 2048, 0)))
    assert found.next.memory_mib == 4096
    assert "not enough" in found.why[-1]


def ran_out(mib: int, **changes: Any) -> Run:
    """A try that had so much memory and ran out of it."""
    return used(peak_mib=mib, need=Need(1, mib, 0), out_of_memory=True, state="FAILED", **changes)


def test_electrons_of_one_name_get_one_size_whatever_their_tries_had() -> None:
    """The second try of one of them had more memory, by itself: it is no other electron."""
    runs = [used(node_id=node_id, peak_mib=900 + node_id, need=Need(1, 1024, 0)) for node_id in range(4)]
    found = size_of(*runs, ran_out(1024, node_id=4), used(node_id=4, number=2, peak_mib=1100, need=Need(1, 2048, 0)))
    assert found.asked == Need(1, 1024, 0)
    assert (found.next.memory_mib, found.outliers) == (1536, ())
    assert found.runs == 6


def test_a_node_that_needs_much_more_is_named_apart() -> None:
    """One size for all of them would cost the others much; there are few of them, or they are all alike."""
    runs = [used(node_id=node_id, peak_mib=400, need=Need(1, 4096, 0)) for node_id in range(7)]
    found = size_of(*runs, used(node_id=7, peak_mib=3000, need=Need(1, 4096, 0)))
    assert (found.next.memory_mib, found.outliers) == (512, (sizing.Outlier(7, 3840),))
    assert "node 7 memory=3.75" in found.why[-1]
    two = size_of(*runs[:1], used(node_id=7, peak_mib=3000, need=Need(1, 4096, 0)))
    assert (two.next.memory_mib, two.outliers) == (3840, ())
    text = page.page(report_of(*runs, used(node_id=7, peak_mib=3000, need=Need(1, 4096, 0))))
    assert 'node 7</span> <code class="options">memory=3.75</code>' in text


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 16).map(lambda each: each * 256), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_a_size_is_more_than_what_failed_and_enough_for_what_did_not(tries: list[tuple[int, int, bool]]) -> None:
    """Whatever failed with how much memory: nothing that failed is proposed again."""
    runs = [
        ran_out(mib, node_id=node_id) if failed else used(node_id=node_id, peak_mib=mib - 1, need=Need(1, mib, 0))
        for node_id, mib, failed in tries
    ]
    found = size_of(*runs)
    apart = {each.node_id: each.memory_mib for each in found.outliers}
    for node_id, mib, failed in tries:
        assert found.next.memory_mib > mib or not failed
        assert apart.get(node_id, found.next.memory_mib) >= mib - 1


def test_busy_vcpus_are_kept_and_short_runs_tell_nothing() -> None:
    """Fewer are proposed only where it is seen that they were idle."""
    assert size_of(used(cpu_s=220, need=Need(4, 2048, 0))).next.vcpus == 4
    short = size_of(used(wall_s=2, cpu_s=0.1, need=Need(4, 2048, 0)))
    assert (short.next.vcpus, short.used_vcpus) == (4, None)


def gpu(utilization: float | None, peak_mib: float | None) -> dict[str, Any]:
    """A GPU of 24 GiB as the runner tells of it."""
    peak = None if peak_mib is None else int(peak_mib * MIB)
    return {"name": "A10G", "memory_bytes": 24 * 1024 * MIB, "peak_memory_bytes": peak, "utilization": utilization}


def test_gpus_that_nobody_used_are_not_asked_for_again() -> None:
    """One of two was busy; of a GPU that does not tell (MIG) nothing is said."""
    need = Need(4, 8192, 2)
    one = size_of(used(need=need, gpus=(gpu(80.0, 9000), gpu(0.0, 4))))
    assert (one.next.gpus, one.used_gpus, one.gpu_utilization) == (1, 1, 80.0)
    assert "num_gpus=1" in one.options
    assert size_of(used(need=need, gpus=(gpu(None, None), gpu(None, None)))).next.gpus == 2
    assert size_of(used(need=need, gpus=(gpu(0.0, 4), gpu(0.0, 4)))).options.endswith("num_gpus=0")


@settings(deadline=None)
@given(needs, st.floats(0, 1e5), st.floats(0.1, 1e5), st.none() | st.floats(0, 1e6))
def test_a_size_can_be_asked_for_and_is_enough(need: Need, cpu_s: float, wall_s: float, peak: float | None) -> None:
    """Never less memory than was used, never more vCPUs than before, always what the executor takes."""
    found = size_of(used(wall_s, cpu_s, peak, need=need))
    assert peak is None or found.next.memory_mib >= int(peak)
    assert 1 <= found.next.vcpus <= need.vcpus
    resolve({"vcpu": found.next.vcpus, "memory": found.next.memory_mib / 1024, "num_gpus": found.next.gpus}, {})


# --- facts ----------------------------------------------------------------------------------------------------------

ARN = "arn:aws:ecs:eu-west-1:123456789012:container-instance/Spot_Batch_1/{}"


def described(**changes: Any) -> dict[str, Any]:
    """A job as DescribeJobs has it: one attempt lost, one that succeeded."""
    return {
        "jobId": "job",
        "jobName": "train-12345678-3-0",
        "jobQueue": "arn:aws:batch:eu-west-1:123456789012:job-queue/cirro-cpu",
        "status": "SUCCEEDED",
        "createdAt": 101_000,
        "startedAt": 104_000,
        "stoppedAt": 118_000,
        "tags": {"covalent:dispatch": "d", "covalent:node": "3", "covalent:electron": "train"},
        "container": {
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}],
            "containerInstanceArn": ARN.format("b"),
        },
        "attempts": [
            {
                "startedAt": 102_000,
                "stoppedAt": 103_000,
                "statusReason": "Host EC2 (instance i-0123456789abcdef0) terminated.",
                "container": {"containerInstanceArn": ARN.format("a")},
            },
            {"startedAt": 104_000, "stoppedAt": 118_000, "container": {"containerInstanceArn": ARN.format("b")}},
        ],
        **changes,
    }


def outcome(failure: Failure | None = None, **host: str) -> Outcome:
    """The outcome of the second attempt."""
    result = NodeResult(3, None, failure or Failure(Kind.RAISED, "no"), Log(), Log())
    usage = Usage(12.0, 6.0, 500 * MIB)
    return Outcome("call", 2, "job", (result,), usage, "3.11", "3", host, TIMES)


CAPACITY = QueueMachines({"Spot_Batch_1": SPOT, "OnDemand_Batch_1": ON_DEMAND}, "", (KIND,))


def test_the_machine_of_an_attempt_is_told_by_its_outcome() -> None:
    """Type, zone and market; of the attempt that left none, the market is that of its cluster, the type assumed."""
    record = parse_record(described())
    assert record is not None
    told = outcome(instance_type="c6i.large", zone="eu-west-1b", life_cycle="on-demand")
    lost, last = run_of_job(record, told, 100.0, CAPACITY).attempts
    assert last.machine == Machine("c6i.large", "eu-west-1b", ON_DEMAND)
    assert lost.machine == Machine("c6i.large", "", SPOT, assumed=True)
    assert (lost.lost, last.lost) == (True, False)


def test_without_an_outcome_the_smallest_type_that_fits_is_assumed() -> None:
    """Of the queue's first compute environment; none where nothing fits."""
    record = parse_record(described())
    assert record is not None
    (_, last) = run_of_job(record, None, None, CAPACITY).attempts
    assert last.machine == Machine("m6i.large", "", SPOT, assumed=True)
    (_, nowhere) = run_of_job(record, None, None, CAPACITY._replace(kinds=())).attempts
    assert nowhere.machine.instance_type == ""


def test_a_running_job_has_an_attempt_without_an_end() -> None:
    """It is counted up to now."""
    record = parse_record(described(status="RUNNING", stoppedAt=None))
    assert record is not None
    found = run_of_job(record, None, None, CAPACITY)
    assert [each.ended_at for each in found.attempts] == [103.0, 118.0, None]
    assert found.attempts[-1].number == 3


def test_out_of_memory_is_seen_in_the_outcome_and_in_the_reason() -> None:
    """The runner's own word, or ECS's."""
    record = parse_record(described())
    assert record is not None
    assert run_of_job(record, outcome(Failure(Kind.OUT_OF_MEMORY, "")), None, CAPACITY).out_of_memory
    container = {**described()["container"], "reason": "OutOfMemoryError: Container killed due to memory usage"}
    killed = parse_record(described(container=container, status="FAILED"))
    assert killed is not None
    assert run_of_job(killed, None, None, CAPACITY).out_of_memory
    assert not run_of_job(record, outcome(), None, CAPACITY).out_of_memory


def test_a_forgotten_job_is_told_by_its_outcome_alone() -> None:
    """Its last attempt, without what it asked for; nothing at all without an outcome."""
    found = run_of_call(3, "train", "call", outcome(life_cycle="spot"), 100.0)
    assert (found.state, found.need, found.job_id) == ("FAILED", None, "job")
    assert [(each.number, each.began_at, each.ended_at) for each in found.attempts] == [(2, 105.0, 117.0)]
    nothing = run_of_call(3, "train", "call", None, 100.0)
    assert (nothing.state, nothing.attempts) == ("UNKNOWN", ())


def test_an_outcome_that_says_anything_breaks_nothing() -> None:
    """A job can write any number: what is no time is left out, and the page is made all the same."""
    wild = outcome()._replace(
        times={"started": float("nan"), "fetched": -1.0, "ran": 1e300, "stored": float("inf")},
        usage=Usage(60.0, float("inf"), 10**30, None, ({"utilization": "much", "peak_memory_bytes": None},)),
    )
    record = parse_record(described())
    assert record is not None
    made = report_of(run_of_job(record, wild, 100.0, CAPACITY), run_of_call(4, "train", "call", wild, None))
    assert made.total.usd > 0
    parsed(page.page(made))


# --- the page -------------------------------------------------------------------------------------------------------


class _Tags(html.parser.HTMLParser):
    """Checks that tags close in order, and keeps what the page has."""

    EMPTY = frozenset(("meta", "br", "rect"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.EMPTY or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> _Tags:
    """The page's tags; fails on one that is not closed."""
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


def test_the_page_is_whole_and_refers_to_nothing_outside() -> None:
    """Every tag is closed; no script, link or picture; a policy that would refuse one."""
    text = page.page(report_of(run(attempts=(attempt(1, 102.0, 103.0, lost=True), attempt(2))), notes=["a note"]))
    tags = parsed(text)
    names = {name for name, _ in tags.seen}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not [attrs for _, attrs in tags.seen if {"src", "href", "srcset"} & set(attrs)]
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "width=device-width" in text
    assert "a note" in text


def test_the_page_has_a_table_of_the_steps() -> None:
    """Where there is more than one."""
    assert "<h2>Steps</h2>" not in page.page(report_of(run()))
    made = page.page(report_of(run(name="load"), run(node_id=1, attempts=(attempt(host="i-1"),))))
    parsed(made)
    assert re.search(r"<h2>Steps</h2>.*load.*train.*1 m6i.large spot", made, re.DOTALL)


def test_names_are_text_whatever_they_say() -> None:
    """An electron's name, a lattice's, a reason of AWS: nothing of it becomes a tag."""
    evil = "</title><script>alert(1)</script>\"'&"
    made = report_of(run(name=evil), notes=[evil])._replace(lattice=evil)
    text = page.page(made)
    assert "<script" not in text
    assert "script" not in {name for name, _ in parsed(text).seen}


def test_the_page_links_to_the_covalent_ui_where_the_server_is_known() -> None:
    """The only address in it, and text like all others."""
    text = page.page(report_of(run())._replace(ui_url='http://localhost:48008/d"1'))
    assert re.findall(r"https?://[^<>]*", text) == ['http://localhost:48008/d&#34;1"']
    assert "in the Covalent UI" in text


def test_a_small_result_is_shown_as_text() -> None:
    """Its beginning, in one line, whatever it says; the bytes of its pickle are not looked at."""
    said = "<script>alert(1)</script>\n" + "é" * 2000
    output = Output(Inline(b"no pickle"), Inline(said.encode()))
    ended = outcome()._replace(results=(NodeResult(3, output, None, Log(), Log()),))
    made = run_of_call(3, "train", "call", ended, 100.0)
    assert made.result.startswith("<script>alert(1)</script> éé")
    assert made.result.endswith("é...")
    assert len(made.result) < 210
    text = page.page(report_of(made))
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert document(report_of(made))["electrons"][0]["result"] == made.result
    large = outcome()._replace(
        results=(NodeResult(3, output._replace(string=Blob("0" * 64, 9, "raw", 9)), None, Log(), Log()),)
    )
    assert run_of_call(3, "train", "call", large, 100.0).result == ""


def test_a_reused_row_is_seen_as_such() -> None:
    """It has no time of its own: another fill, and the word."""
    reused = run(state="REUSED", attempts=(), created_at=None, usage=None, times={}, node_id=7)
    text = page.page(report_of(run(), reused))
    assert text.count('<div class="row reused">') == 1
    assert "7 reused</span>" in text
    assert 'svg class="reused"' in text
    assert 'svg class="reused"' not in page.page(report_of(run()))


def test_the_list_says_what_each_electron_does_and_printed() -> None:
    """States since when, where, of how much; why jobs wait once for all of them; why one failed; the ends of logs."""
    waits: dict[str, Any] = {"state": "RUNNABLE", "reason": "scaling_up", "why": "a machine is started", "attempt": 0}
    electrons = (
        listed("epoch 1\nepoch 2", arguments=(("rate", "0.1"), ("epochs", "3"))),
        listed(node_id=1, position=1, where="", arguments=(("rate", "<0.2>"), ("epochs", "3")), **waits),
        listed(node_id=2, position=2, where="", arguments=(("rate", "0.3"), ("epochs", "3")), **waits),
        listed("the end", electron="score", node_id=3, state="FAILED", why="no such luck", used_bytes=1024 * MIB),
    )
    text = page.page(report_of(run())._replace(electrons=electrons))
    parsed(text)
    assert text.count('class="electron"') == 4
    assert "2 RUNNABLE, 1 RUNNING, 1 FAILED" in text
    assert "<p>rate=0.1</p>" in text
    assert "<p>rate=&lt;0.2&gt;</p>" in text
    assert text.count("a machine is started") == 1
    assert "2 wait: a machine is started" in text
    assert "number 2 in its queue \N{MIDDLE DOT} cirro-cpu \N{MIDDLE DOT} 2 GiB" in text
    assert "RUNNING 1 min 0 s<" in text
    assert "FAILED 1 min 0 s ago<" in text
    assert "attempt 1 of 3 \N{MIDDLE DOT} m6i.large eu-west-1a \N{MIDDLE DOT} 1 GiB of 2 GiB" in text
    assert "no such luck" in text
    assert "<pre>epoch 1\nepoch 2</pre>" in text
    assert text.count("<details") == 2


def test_a_call_whose_job_is_being_submitted_is_under_way() -> None:
    """Then the page does not say that all jobs have ended; an old call that has no job does not keep it from that."""
    nothing = report_of(run(state="UNKNOWN", attempts=(), times={}, usage=None))
    for why, is_under_way in (
        ("It is being submitted", True),
        ("It is being submitted again. This is try 2", True),
        ("lost", False),
    ):
        made = nothing._replace(electrons=(listed(state="-", why=why),))
        assert made.is_under_way == is_under_way
        assert ("All its jobs have ended" in page.page(made, watched=True)) == (not is_under_way)


def test_a_page_of_very_many_electrons_has_the_logs_of_the_first() -> None:
    """Those that run come first; the browser need not be sent megabytes every few seconds."""
    electrons = tuple(listed("a line", node_id=node_id) for node_id in range(1000))
    text = page.page(report_of(run())._replace(electrons=electrons))
    assert text.count("<pre>") == page.LOGS
    assert text.count("<details") - text.count(" open>") == page.LOGS - page.OPEN_LOGS


def test_only_the_page_that_is_watched_has_a_script() -> None:
    """One, which its policy names by its digest; otherwise both pages are the same."""
    made = report_of(run())
    file, watched = page.page(made), page.page(made, watched=True)
    (script,) = re.findall(r"<script>(.*?)</script>", watched, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.watched_policy()
    assert page.watched_policy() in watched
    main = re.compile(r"<main>.*</main>", re.DOTALL)
    assert main.findall(file) == [
        found.replace("<p><b>All its jobs have ended.</b> Jobs that the dispatch still sends are shown here.</p>\n", "")
        for found in main.findall(watched)
    ]
    assert "<script" not in file
    assert "Not up to date: AWS is busy" in page.page(made, watched=True, trouble="AWS is busy")


def test_electrons_of_one_function_are_told_apart_by_their_arguments() -> None:
    """By what differs between them, as text whatever it says; there is no column if nothing differs."""
    one, other = (("rate", "<script>1"), ("epochs", "3")), (("rate", "0.2"), ("epochs", "3"))
    text = page.page(report_of(run(arguments=one), run(node_id=1, job_id="other", arguments=other)))
    assert "rate=&lt;script&gt;1" in text
    assert '<td data-label="arguments">rate=0.2</td>' in text
    assert "epochs" not in text
    assert "script" not in {name for name, _ in parsed(text).seen}
    assert "arguments" not in page.page(report_of(run(arguments=one), run(node_id=1, job_id="other", arguments=one)))


def test_every_run_has_a_row_that_lies_within_the_timeline() -> None:
    """As many rows as runs; no piece begins left of it or ends far right of it."""
    text = page.page(report_of(run(), run(node_id=1, job_id="other", called_at=150.0, created_at=151.0, attempts=())))
    assert text.count('class="row"') == 2
    for x, width in re.findall(r'x="([\d.-]+)" width="([\d.]+)" height="14"', text):
        assert 0 <= float(x) <= 1000
        assert float(x) + float(width) <= 1000.01


def test_a_dispatch_without_any_fact_is_still_a_page() -> None:
    """Nothing ran yet, nothing is known: no division by nothing, no sum that is made up."""
    nothing = run(called_at=None, created_at=None, attempts=(), usage=None, times={}, need=None, state="UNKNOWN")
    for made in (report_of(), report_of(nothing)):
        parsed(page.page(made))
        assert document(made)["cost"]["usd"] == 0

"""What became of an electron, put together from what AWS Batch and S3 said: names, records, rows, stories, links."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.aws.batch import job_name
from covalent_cirro.cli.jobs import look
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.places import location
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Usage
from covalent_cirro.electron.call_writer import new_call_id
from covalent_cirro.errors import AwsError, NoSuchElectron
from covalent_cirro.history import names
from covalent_cirro.history import story as stories
from covalent_cirro.history.account import QUEUE_KINDS
from covalent_cirro.history.electron_list import (
    WITHOUT_JOB,
    Row,
    counts,
    folded,
    ordered,
    row_of_call,
    row_of_job,
    warnings,
    why_not_reused,
)
from covalent_cirro.history.find import CallHistory, Electron
from covalent_cirro.history.names import JobName, Wanted
from covalent_cirro.history.records import Record, parse_record
from covalent_cirro.history.report.runs import NO_CAPACITY, run_of_job
from covalent_cirro.history.story import Period
from covalent_cirro.jobs.further_tries import next_call_id
from covalent_cirro.settings import resolve
from tests.unit.template_facts import Template

DISPATCH = "3f2a91bc-0000-4000-8000-000000000001"
PLACE = location("bucket", "cirro/", DISPATCH, 3, "0190000000001234abcd")
NO_LOG = Log()


def described(**fields: Any) -> dict[str, Any]:
    """An electron's job as DescribeJobs shows it."""
    return {
        "jobId": "0a1b2c3d-1111-4222-8333-444455556666",
        "jobName": "train-3f2a91bc-3-0190000000001234abcd",
        "jobQueue": "arn:aws:batch:eu-west-1:123456789012:job-queue/cirro-cpu",
        "jobDefinition": "arn:aws:batch:eu-west-1:123456789012:job-definition/cirro-abc:4",
        "status": "RUNNABLE",
        "createdAt": 1_000_000,
        "parameters": {"call": PLACE.call_uri},
        "retryStrategy": {"attempts": 3},
        "timeout": {"attemptDurationSeconds": 600},
        "container": {
            "image": "image@sha256:1",
            "resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "2048"}],
            "logConfiguration": {"options": {"awslogs-group": "/cirro/jobs", "awslogs-region": "eu-west-1"}},
        },
        "tags": {
            "covalent:dispatch": DISPATCH,
            "covalent:lattice": "sweep",
            "covalent:electron": "train",
            "covalent:node": "3",
        },
        **fields,
    }


def record(**fields: Any) -> Record:
    """What is made of it."""
    found = parse_record(described(**fields))
    assert found is not None
    return found


def lost(began: int, ended: int) -> dict[str, Any]:
    """An attempt whose host went away, with its times in seconds."""
    return {
        "startedAt": began * 1000,
        "stoppedAt": ended * 1000,
        "statusReason": "Host EC2 (instance i-0123456789abcdef0) terminated.",
        "container": {"logStreamName": f"cirro/default/{began}"},
    }


def outcome(failure: Failure | None = None, *, attempt: int = 1, **fields: Any) -> Outcome:
    """What its job left."""
    from covalent_cirro.contract.protocol import Output
    from covalent_cirro.contract.references import Inline

    output = None if failure else Output(Inline(b"x"), Inline(b"x"))
    return Outcome(
        **{
            "call_id": PLACE.call_id,
            "attempt": attempt,
            "job_id": "0a1b2c3d-1111-4222-8333-444455556666",
            "results": (NodeResult(3, output, failure, NO_LOG, NO_LOG),),
            "usage": Usage(10.0, 5.0, 300 * 1024 * 1024, 2048 * 1024 * 1024, ()),
            "python": "3.11.7",
            "cloudpickle": "3.1.0",
            "host": {"instance_type": "m6i.large", "instance_id": "i-0a", "zone": "eu-west-1a"},
            "times": {"started": 1101.0, "fetched": 1102.0, "first_line": 1103.0, "ran": 1109.0, "stored": 1110.0},
            **fields,
        }
    )


# --- names ----------------------------------------------------------------------------------------------------------


@given(
    electron=st.text(max_size=300),
    dispatch=st.uuids().map(str),
    node=st.integers(min_value=0, max_value=10**6),
)
def test_a_jobs_name_is_read_as_it_was_written(electron: str, dispatch: str, node: int) -> None:
    """Whatever the electron is called."""
    call = new_call_id()
    assert names.parse_job_name(job_name(electron, dispatch, node, call)) == JobName(dispatch[:8], node, call)


@pytest.mark.parametrize("name", ["", "train", "train-1-2", "nightly-2024-11-22", f"x-{DISPATCH}"])
def test_names_of_others_are_not_electrons(name: str) -> None:
    """They have no call."""
    assert names.parse_job_name(name) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3f2a", Wanted("3f2a")),
        ("3F2A:7", Wanted("3f2a", 7)),
        (f"{DISPATCH}:0", Wanted(DISPATCH, 0)),
        ("3f:7[12]", Wanted("3f", 7, 12)),
    ],
)
def test_what_is_typed_is_read(text: str, wanted: Wanted) -> None:
    """A dispatch, or an electron of it."""
    assert names.parse(text) == wanted


@given(ids=st.sets(st.text(string.hexdigits.lower(), min_size=4, max_size=6), min_size=1), data=st.data())
def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(ids: set[str], data: st.DataObject) -> None:
    """A whole id is always enough; a beginning of several is refused, and they are named."""
    one = data.draw(st.sampled_from(sorted(ids)))
    assert names.choose(one, ids) == one
    beginning = one[: data.draw(st.integers(1, len(one)))]
    meant = [each for each in ids if each.startswith(beginning)]
    if len(meant) == 1 or beginning in ids:
        assert names.choose(beginning, ids) == (beginning if beginning in ids else one)
    else:
        with pytest.raises(NoSuchElectron, match=sorted(meant)[0]):
            names.choose(beginning, ids)


def test_many_candidates_are_counted() -> None:
    """A message does not grow with the account."""
    with pytest.raises(NoSuchElectron, match="and 90 more"):
        names.choose("a", [f"a{number:02}" for number in range(100)])


# --- records --------------------------------------------------------------------------------------------------------


def test_jobs_of_others_are_no_records() -> None:
    """Without our tags, and without a call."""
    assert parse_record(described(tags={}, parameters={})) is None
    assert parse_record(described(tags={"covalent:dispatch": DISPATCH})) is None
    assert parse_record({"jobId": "x"}) is None


def test_a_job_whose_submitter_may_set_no_tags_is_known_by_its_call() -> None:
    """Its call and its name tell the same, but for the lattice."""
    dispatch_id, call_id = PLACE.dispatch_id, PLACE.call_id
    found = record(tags={}, jobName=f"train-{dispatch_id[:8]}-3-{call_id}")
    assert (found.dispatch_id, found.node_id, found.electron, found.lattice) == (dispatch_id, 3, "train", "")


def test_a_record_says_where_the_call_is() -> None:
    """Or that the job's parameter is not one."""
    assert record().call == PLACE
    assert record(parameters={"call": "s3://bucket/other"}).call is None


def test_attempts_are_counted_while_they_run() -> None:
    """AWS Batch lists those that have ended."""
    assert record().attempt == 0
    assert record(status="RUNNING", startedAt=2_000_000).attempt == 1
    assert record(status="RUNNABLE", attempts=[lost(1100, 1200)]).attempt == 1
    assert record(status="RUNNING", attempts=[lost(1100, 1200)]).attempt == 2
    assert record(status="SUCCEEDED", attempts=[lost(1100, 1200), lost(1300, 1400)]).attempt == 2


def test_since_when_a_job_is_in_its_state() -> None:
    """A job that is tried again waits since its last attempt ended."""
    assert record().since == 1000.0
    assert record(status="RUNNING", startedAt=1_100_000).since == 1100.0
    assert record(attempts=[lost(1100, 1200)]).since == 1200.0
    assert record(status="FAILED", stoppedAt=1_300_000).since == 1300.0


def test_the_host_of_a_lost_attempt_is_the_instance_that_aws_names() -> None:
    """Of others AWS Batch gives the container instance only."""
    (attempt,) = record(attempts=[lost(1100, 1200)]).attempts
    assert attempt.host == "i-0123456789abcdef0"
    arn = "arn:aws:ecs:eu-west-1:123456789012:container-instance/cluster/4f5e"
    (attempt,) = record(attempts=[{"container": {"containerInstanceArn": arn}}]).attempts
    assert attempt.host == "4f5e"


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_have_what_the_jobs_parameters_say() -> None:
    """Modules that the job will not find, and why nothing was reused; each is told once, whatever it applies to."""
    parameters = {**described()["parameters"], "missing_modules": "lab", "not_reused": "lab/models.py changed"}
    row = row_of_job(record(status="RUNNABLE", parameters=parameters), None, now=0.0)
    assert (row.missing_modules, row.not_reused) == (("lab",), "lab/models.py changed")
    rows = [row, row._replace(node_id=4), row_of_job(record(), None, now=0.0)]
    [warning] = warnings(rows)
    assert warning.startswith("train: it imports lab, which the job's image")
    assert why_not_reused(rows) == ["train (2): not reused: lab/models.py changed"]


@pytest.mark.parametrize(
    ("state", "warns"), [("RUNNABLE", True), ("RUNNING", True), ("FAILED", False), ("SUCCEEDED", False)]
)
def test_an_electron_that_has_ended_is_warned_of_nothing(state: str, warns: bool) -> None:
    """It has found the modules after all, or its end says which one it did not find."""
    row = row_of_job(record(), None, now=0.0)._replace(state=state, missing_modules=("lab",))
    assert bool(warnings([row])) == warns


class OldBoard:
    """A list whose next look fails with an error."""

    problem = "ECS does not answer"

    def __init__(self, error: AwsError) -> None:
        self._error = error

    def look(self) -> list[Row]:
        raise self._error


def test_a_list_that_is_watched_stays_while_aws_does_not_answer() -> None:
    """With a note; an error that will not pass ends the command."""
    before = [row_of_job(record(), None, now=0.0)]
    throttled = AwsError("Rate exceeded", operation="batch:ListJobs", code="Throttling", retryable=True)
    rows, note = look(OldBoard(throttled), before)  # type: ignore[arg-type]
    assert rows == before
    assert note == "; not up to date: Rate exceeded; ECS does not answer"
    refused = AwsError("no", operation="batch:ListJobs", code="AccessDenied")
    with pytest.raises(AwsError):
        look(OldBoard(refused), before)  # type: ignore[arg-type]


def test_rows_are_in_the_order_of_what_matters() -> None:
    """The longest running first, then the longest waiting, then the latest ended."""

    def row(state: str, since: float) -> Row:
        return row_of_job(record(), None, now=0.0)._replace(state=state, since=since)

    rows = [
        row("SUCCEEDED", 5.0),
        row("RUNNABLE", 9.0),
        row("FAILED", 8.0),
        row("RUNNING", 7.0),
        row("STARTING", 6.0),
        row("SUBMITTED", 2.0),
    ]
    assert [(each.state, each.since) for each in ordered(rows)] == [
        ("STARTING", 6.0),
        ("RUNNING", 7.0),
        ("SUBMITTED", 2.0),
        ("RUNNABLE", 9.0),
        ("FAILED", 8.0),
        ("SUCCEEDED", 5.0),
    ]
    assert list(counts(rows)) == ["SUBMITTED", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"]


@pytest.mark.parametrize(
    ("fields", "left", "why"),
    [
        ({}, None, ""),
        ({"statusReason": "CAPACITY: none"}, None, "CAPACITY: none"),
        ({"attempts": [lost(1, 2)]}, None, "again: Host EC2 (instance i-0123456789abcdef0) terminated."),
        ({"status": "RUNNING", "isTerminated": True}, None, "is being stopped"),
        ({"status": "SUCCEEDED", "statusReason": "Essential container in task exited"}, None, ""),
        (
            {"status": "FAILED", "statusReason": "x", "container": {"reason": "OutOfMemoryError: y"}},
            None,
            "OutOfMemoryError: y",
        ),
        ({"status": "FAILED", "statusReason": "Cancelled in Covalent (z)"}, None, "cancelled in Covalent"),
        (
            {"status": "FAILED", "statusReason": "Cancelled in Covalent (cirro stop, by ada on lab)"},
            Failure(Kind.TERMINATED, "stopped by SIGTERM"),
            "cancelled with `cirro stop`, by ada on lab",
        ),
        ({"status": "FAILED"}, None, "no reason given"),
        ({"status": "FAILED"}, Failure(Kind.RAISED, "ValueError:\n  no luck"), "ValueError: no luck"),
    ],
)
def test_why_is_one_line(fields: dict[str, Any], left: Failure | None, why: str) -> None:
    """What it waits for, or why it failed; the outcome knows better than AWS."""
    assert row_of_job(record(**fields), outcome(left) if left else None, now=0.0).why == why


@pytest.mark.parametrize(
    ("ran_s", "words"),
    [(200, ""), (250, "ends it in 50 s: next time, set time_limit=600"), (310, "in 0 ms")],
)
def test_an_electron_that_comes_near_its_time_limit_is_warned_of(ran_s: float, words: str) -> None:
    """With what is left, and the option to set."""
    running = record(status="RUNNING", startedAt=1_000_000, timeout={"attemptDurationSeconds": 300})
    why = row_of_job(running, None, now=1000.0 + ran_s).why
    assert words in why
    assert bool(why) == bool(words)


def test_an_earlier_try_is_told_in_sentences() -> None:
    """What it had, and how it failed; and what the last one waits or failed for."""
    memory = row_of_job(record(status="FAILED", container={"reason": "OutOfMemoryError: y"}), None, now=0.0)
    first = memory._replace(call_id=PLACE.call_id, memory_mib=512, queue="cpu")
    second = first._replace(call_id=next_call_id(PLACE.call_id), memory_mib=1024, why="KeyError: 'a'")
    sent = second._replace(state=WITHOUT_JOB, why="nobody knows")
    said = "This is try 2. Try 1, which had 512 MiB, failed in queue cpu: OutOfMemoryError: y"
    assert [each.why for each in folded([first, second])] == [f"KeyError: 'a'. {said}"]
    assert [each.why for each in folded([first, second._replace(why="")])] == [said]
    assert [each.why for each in folded([first, sent])] == [f"It is being submitted again. {said}"]


def test_out_of_memory_says_how_much_it_had_reached() -> None:
    """Wherever the outcome knows, and whatever the electron saw: here that one of its processes was gone."""
    reason = {"reason": "OutOfMemoryError: Container killed due to memory usage"}
    job = record(status="FAILED", container={**described()["container"], **reason})
    left = outcome(Failure(Kind.RAISED, "BrokenPipeError: [Errno 32]"))
    said = "BrokenPipeError: [Errno 32] (it had reached 300 MiB of 2 GiB)"
    assert row_of_job(job, left, now=0.0).why == said
    assert story(job, left).why.startswith(f"{said}. AWS Batch says: ")
    killed = outcome(Failure(Kind.KILLED, "was killed by SIGKILL", signal="SIGKILL"))
    assert row_of_job(job, killed, now=0.0).why == f"{reason['reason']} (it had reached 300 MiB of 2 GiB)"
    forgotten = outcome(Failure(Kind.OUT_OF_MEMORY, "ran out"))
    assert row_of_call(PLACE, "train", forgotten, 2e9).why == "ran out (it had reached 300 MiB of 2 GiB)"
    assert "reached" not in row_of_job(record(status="FAILED"), left, now=0.0).why


def test_a_cancel_is_told_as_what_the_user_did() -> None:
    """Not as a failure of the job, although AWS Batch calls it FAILED and the electron raised something on SIGTERM."""
    job = record(status="FAILED", statusReason="Cancelled in Covalent (dispatch d)", isTerminated=True)
    left = outcome(Failure(Kind.TERMINATED, "stopped by SIGTERM", traceback="Traceback ..."))
    told = story(job, left)
    assert (told.state, told.end, told.why) == ("CANCELLED", "cancelled", "It was cancelled in Covalent.")
    assert (told.error, told.advice) == ("", "")
    row = row_of_job(job, left, now=0.0)
    assert (row.state, row.has_ended) == ("CANCELLED", True)
    assert run_of_job(job, left, None, NO_CAPACITY).state == "CANCELLED"


def test_what_the_runner_says_and_what_aws_says_do_not_run_together() -> None:
    """An exception's message has no full stop."""
    job = record(status="FAILED", statusReason="Essential container in task exited")
    told = story(job, outcome(Failure(Kind.RAISED, "KeyError: 'no layer has it'")))
    assert told.why == "KeyError: 'no layer has it'. AWS Batch says: Essential container in task exited."


def test_a_call_whose_job_is_forgotten_is_told_by_its_outcome() -> None:
    """Or by nobody."""
    row = row_of_call(PLACE, "train", outcome(), 2e9)
    assert (row.dispatch_id, row.node_id, row.state, row.since) == (DISPATCH, 3, "SUCCEEDED", 1110.0)
    assert row.memory_mib == 2048
    failed = row_of_call(PLACE, "train", outcome(Failure(Kind.RAISED, "boom")), 2e9)
    assert (failed.state, failed.why) == ("FAILED", "boom")
    assert row_of_call(PLACE, "train", None, 2e9).state == "-"


# --- stories --------------------------------------------------------------------------------------------------------


def story(job: Record | None, left: Outcome | None = None, *, on_aws: bool = False) -> stories.Story:
    """The story of the electron."""
    call = CallHistory(PLACE, None, left, "", (), () if job is None else (job,))
    site = stories.Site("eu-west-1", "aws" if on_aws else "")
    return stories.tell(Electron(DISPATCH, 3, (call,)), resolve({}, {}), site)


def test_periods_cover_a_life_with_a_lost_host() -> None:
    """Waiting, an attempt, waiting again, and the attempt that left the outcome, with its parts."""
    second = {"startedAt": 1_100_000, "stoppedAt": 1_111_000, "container": {"exitCode": 0}}
    job = record(status="SUCCEEDED", attempts=[lost(1010, 1050), second], stoppedAt=1_111_000)
    assert story(job, outcome(attempt=2)).periods == (
        Period("waiting", 1000.0, 1010.0),
        Period("attempt 1", 1010.0, 1050.0),
        Period("waiting", 1050.0, 1100.0),
        Period("attempt 2", 1100.0, 1111.0),
        Period("starting the container", 1100.0, 1101.0, part=True),
        Period("fetching function and inputs", 1101.0, 1102.0, part=True),
        Period("importing, hooks", 1102.0, 1103.0, part=True),
        Period("the electron itself", 1103.0, 1109.0, part=True),
        Period("storing the result", 1109.0, 1110.0, part=True),
    )


def test_the_host_that_an_outcome_knows_is_that_of_its_attempt() -> None:
    """And not of the one that was lost before."""
    job = record(status="SUCCEEDED", attempts=[lost(1, 2), {"startedAt": 3000, "container": {"exitCode": 0}}])
    assert [each.host for each in story(job, outcome(attempt=2)).attempts] == [
        "i-0123456789abcdef0",
        "m6i.large, eu-west-1a, i-0a",
    ]


def test_a_job_that_ended_before_it_ran_only_waited() -> None:
    """There is no attempt to tell of."""
    told = story(record(status="FAILED", statusReason="Cancelled in Covalent", stoppedAt=1_060_000))
    assert told.periods == (Period("waiting", 1000.0, 1060.0),)
    assert (told.attempts, told.end) == ((), "cancelled")


def test_a_story_names_the_console_in_aws_only() -> None:
    """An emulator has none."""
    job = record(
        status="FAILED", attempts=[lost(1100, 1200)], container={**described()["container"], "logStreamName": "s/1"}
    )
    assert story(job).links == {}
    assert all(not each.log_link for each in story(job).attempts)
    told = story(job, on_aws=True)
    assert set(told.links) == {"job", "log"}
    assert told.links["job"].endswith("#jobs/detail/0a1b2c3d-1111-4222-8333-444455556666")
    assert "cirro$252Fdefault$252F1100" in told.attempts[0].log_link


def test_an_earlier_attempts_outcome_is_not_how_it_stands() -> None:
    """A host that was going left one, and another attempt runs."""
    job = record(status="RUNNING", startedAt=1_200_000, attempts=[lost(1100, 1110)])
    told = story(job, outcome(Failure(Kind.TERMINATED, "stopped by SIGTERM")))
    assert (told.state, told.end, told.why, told.error, told.advice) == ("RUNNING", "", told.why, "", "")
    assert "SIGTERM" not in told.why


def test_a_failure_says_what_to_do() -> None:
    """With the figure to set; one who raised only has to read the traceback."""
    assert "memory=" in story(record(status="FAILED"), outcome(Failure(Kind.OUT_OF_MEMORY, "killed"))).advice
    assert story(record(status="SUCCEEDED"), outcome()).advice == ""


def test_a_document_is_plain_json() -> None:
    """For programs."""
    import json

    job = record(status="SUCCEEDED", attempts=[{"startedAt": 1, "stoppedAt": 2}])
    assert json.loads(json.dumps(stories.document(story(job, outcome()))))["usage"]["cpu_s"] == 5.0


# --- words ----------------------------------------------------------------------------------------------------------


def test_a_deployments_queues_have_the_names_that_are_looked_for() -> None:
    """The template says them."""
    queues = {
        name["Fn::Sub"]
        for each in Template("compute").resources.values()
        if each["Type"] == "AWS::Batch::JobQueue"
        for name in each["Properties"]["JobQueueName"]["Fn::If"][1:]
    }
    assert queues == {f"${{DeploymentName}}-{kind}" for kind in QUEUE_KINDS}

"""What a user is shown of a job under way: the lines of its panel, and its log as it grows."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from covalent_cirro.contract import reports
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.log_parts import Part
from covalent_cirro.contract.places import Location, location
from covalent_cirro.contract.reports import Point
from covalent_cirro.covalent_server.view import LogFile
from covalent_cirro.electron import progress
from covalent_cirro.electron.engine.live_curves import LiveCurves
from covalent_cirro.electron.engine.live_logs import OWN_LISTS, PARTS_PER_LOOK, LiveLogs
from covalent_cirro.errors import AwsError, TooLarge
from covalent_cirro.jobs import image_modules, learning_curves, panel, reuse_texts
from covalent_cirro.jobs.states import JobDetail, parse_job

SINCE = 1_800_000_000.0
PLACE = location("b", "cirro/", "dispatch-1", 3, "018f5e2b7c00c0ffee01")


def detail(status: str, **changes: Any) -> JobDetail:
    """A job as DescribeJobs has it."""
    return parse_job(
        {
            "jobId": "j1",
            "jobQueue": "arn:aws:batch:eu-west-1:1:job-queue/cirro-cpu",
            "status": status,
            "createdAt": SINCE * 1000,
            "retryStrategy": {"attempts": 3},
            "container": {
                "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "jobs"}},
                **changes.pop("container", {}),
            },
            **changes,
        }
    )


# --- the panel --------------------------------------------------------------------------------------------------------


def test_the_panel_of_a_job_that_waits() -> None:
    """Its job, the state and since when, what it waits for, its attempt, and the job's page."""
    assert panel.lines(detail("RUNNABLE"), SINCE, partition="aws", region="eu-west-1") == {
        "job": "j1 in queue cirro-cpu",
        "state": "RUNNABLE since 2027-01-15 08:00:00 UTC",
        "attempt": "1 of at most 3",
        "waits_for": "a machine; one that has to be started takes 2 to 5 minutes",
        "job_link": "https://eu-west-1.console.aws.amazon.com/batch/home?region=eu-west-1#jobs/detail/j1",
    }


def test_the_panel_of_a_job_that_runs() -> None:
    """The log and its page, why the attempt before ended, and nothing that it waits for."""
    lost = {"statusReason": "Host EC2 (instance i-0123) terminated.", "container": {}}
    running = detail("RUNNING", attempts=[lost], container={"logStreamName": "cirro/default/abc"})
    shown = panel.lines(running, SINCE, partition="aws", region="eu-west-1")
    assert shown["attempt"] == "2 of at most 3"
    assert shown["last_attempt"] == "Host EC2 (instance i-0123) terminated."
    assert shown["log"] == "jobs: cirro/default/abc"
    assert shown["log_link"] == (
        "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1"
        "#logsV2:log-groups/log-group/jobs/log-events/cirro$252Fdefault$252Fabc"
    )
    assert "waits_for" not in shown


def test_the_panel_says_what_the_electron_was_called_with() -> None:
    """From the job's own parameter: no call is read for it."""
    parameters = {"call": "s3://...", "arguments": '{"config.lr":"0.03","config.width":"16"}'}
    shown = panel.lines(detail("RUNNING", parameters=parameters), SINCE, partition="aws", region="")
    assert shown["called_with"] == "config=lr 0.03, width 16"


def test_the_panel_warns_of_modules_that_the_image_lacks() -> None:
    """Also while the job waits for a machine, which will be paid for."""
    parameters = {image_modules.PARAMETER: "lab wandb"}
    shown = panel.lines(detail("RUNNABLE", parameters=parameters), SINCE, partition="aws", region="")
    assert shown["warning"].startswith("it imports lab, wandb, which the job's image")


def test_the_panel_says_why_no_results_were_reused() -> None:
    """As `cirro run --reuse` does."""
    parameters = {reuse_texts.PARAMETER: "lab/models.py changed"}
    shown = panel.lines(detail("RUNNING", parameters=parameters), SINCE, partition="aws", region="")
    assert shown["not_reused"] == "lab/models.py changed"


def test_the_panel_without_a_console() -> None:
    """Behind another endpoint than AWS's there is no page to link to."""
    assert not [
        key for key in panel.lines(detail("RUNNING"), SINCE, partition="aws", region="") if key.endswith("_link")
    ]


def test_a_reason_takes_the_place_of_the_usual_words() -> None:
    """Only while the job waits."""
    assert (
        panel.lines(detail("RUNNABLE"), SINCE, partition="aws", region="", waits_for="a quota")["waits_for"]
        == "a quota"
    )
    assert "waits_for" not in panel.lines(detail("FAILED"), SINCE, partition="aws", region="", waits_for="a quota")


@pytest.mark.parametrize(
    ("job", "since"),
    [
        (detail("RUNNABLE"), SINCE),
        (detail("RUNNABLE", attempts=[{"container": {}}]), 7.0),
        (detail("RUNNING", startedAt=(SINCE + 5) * 1000), SINCE + 5),
        (detail("STARTING"), 7.0),
        (detail("SUCCEEDED", stoppedAt=(SINCE + 9) * 1000), SINCE + 9),
    ],
)
def test_since_when_a_job_is_in_its_state(job: JobDetail, since: float) -> None:
    """AWS's times where it has one for the state; else the time at which it was first seen in it."""
    assert progress.since(job, 7.0) == since


# --- the log ----------------------------------------------------------------------------------------------------------


class Bucket:
    """S3 as far as logs go, with what was asked of it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.lists: list[str] = []
        self.reads: list[str] = []
        self.errors: list[Exception] = []
        self.held = asyncio.Event()
        self.held.set()

    async def list_keys(self, bucket: str, prefix: str) -> list[tuple[str, datetime]]:
        """One ListObjectsV2."""
        self.lists.append(prefix)
        if self.errors:
            raise self.errors.pop(0)
        now = datetime.now(timezone.utc)
        return [(key, now) for key in sorted(self.objects) if key.startswith(prefix)]

    async def get_document(self, bucket: str, key: str, limit: int) -> bytes | None:
        """One GetObject."""
        self.reads.append(key)
        await self.held.wait()
        found = self.objects.get(key)
        if found is not None and len(found) > limit:
            raise TooLarge(bucket, key, len(found), limit)
        return found

    def print(
        self, place: Location, text: str | bytes, *, index: int, attempt: int = 1, stream: str = "stdout"
    ) -> None:
        """A part, as the runner stores it."""
        data = text if isinstance(text, bytes) else text.encode()
        self.objects[place.log_key(Part(attempt, stream, index).name)] = data


class Covalent:
    """Where Covalent keeps an electron's logs, and what it was told of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: dict[int, int] = {}

    def files(self, dispatch_id: str, node_id: int) -> Mapping[str, LogFile]:
        """As `view.log_files`."""
        return {
            stream: LogFile(2 * node_id + number, str(self.folder / f"node_{node_id}" / f"{stream}.log"))
            for number, stream in enumerate(("stdout", "stderr"))
        }

    def tell(self, sizes: Mapping[int, int]) -> None:
        """As `view.write_sizes`."""
        self.sizes.update(sizes)

    def text(self, node_id: int, stream: str = "stdout") -> str:
        """What is in a file by now."""
        path = self.folder / f"node_{node_id}" / f"{stream}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def bucket() -> Bucket:
    """An empty bucket."""
    return Bucket()


@pytest.fixture
def covalent(tmp_path: Path) -> Covalent:
    """A Covalent without any log."""
    return Covalent(tmp_path)


def place(node_id: int = 0, dispatch: str = "d1") -> Location:
    """Where the call of a node lies."""
    return location("bucket", "cirro/", dispatch, node_id, "018f5e2b7c00c0ffee01")


def live(bucket: Bucket, covalent: Covalent, clock: Callable[[], float] = time.monotonic) -> LiveLogs:
    """Live logs that look often."""
    return LiveLogs(bucket, covalent.files, covalent.tell, first_s=0.05, clock=clock)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_a_log_grows_part_by_part(bucket: Bucket, covalent: Covalent) -> None:
    """Each part is read once, and Covalent is told how long the file is."""
    logs = live(bucket, covalent)
    bucket.print(place(), "one\n", index=0)
    bucket.print(place(), "oops\n", index=1, stream="stderr")
    logs.follow(place(), "d1", 0)
    await until(lambda: covalent.text(0) == "one\n")
    bucket.print(place(), "two\n", index=2)
    await until(lambda: covalent.text(0) == "one\ntwo\n")
    assert covalent.text(0, "stderr") == "oops\n"
    assert covalent.sizes == {0: 8, 1: 5}
    assert len(bucket.reads) == 3
    await logs.aclose()


async def test_a_new_attempt_begins_anew(bucket: Bucket, covalent: Covalent) -> None:
    """What the electron prints when it is started again takes the place of what was lost with the host."""
    logs = live(bucket, covalent)
    bucket.print(place(), "epoch 1\nepoch 2\n", index=0)
    logs.follow(place(), "d1", 0)
    await until(lambda: covalent.text(0) != "")
    bucket.print(place(), "epoch 1\n", index=0, attempt=2)
    await until(lambda: covalent.text(0) == "epoch 1\n")
    await logs.aclose()


async def test_nothing_is_written_after_the_end(bucket: Bucket, covalent: Covalent) -> None:
    """The whole log is written then: a part that arrives late must not spoil it, and nobody waits for it."""
    logs = live(bucket, covalent)
    bucket.held.clear()
    bucket.print(place(), "late\n", index=0)
    logs.follow(place(), "d1", 0)
    await until(lambda: len(bucket.reads) == 1)
    await asyncio.wait_for(logs.stop(place()), 30)
    bucket.held.set()
    await asyncio.sleep(0.1)
    assert covalent.text(0) == ""
    assert covalent.sizes == {}


async def test_many_jobs_of_a_dispatch_share_a_listing(bucket: Bucket, covalent: Covalent) -> None:
    """One LIST for all of them; a few are asked for one by one, which is less to list."""
    now = [0.0]
    logs = live(bucket, covalent, clock=lambda: now[0])
    many = OWN_LISTS + 1
    for node_id in range(many):
        bucket.print(place(node_id), f"{node_id}\n", index=0)
        logs.follow(place(node_id), "d1", node_id)
    logs.follow(place(99, "d2"), "d2", 99)
    now[0] = 60.0  # all of them are due, at once
    await until(lambda: all(covalent.text(node_id) for node_id in range(many)))
    await until(lambda: len(set(bucket.lists)) > 1)  # a look at the other dispatch may come a moment later
    assert set(bucket.lists) == {"cirro/jobs/d1/", place(99, "d2").log_key("")}
    await logs.aclose()


async def test_a_look_reads_no_more_than_its_share(bucket: Bucket, covalent: Covalent) -> None:
    """A job that prints without end holds up neither the others nor the server; all of it comes in the end."""
    logs = live(bucket, covalent)
    for index in range(PARTS_PER_LOOK + 8):
        bucket.print(place(), f"{index}\n", index=index)
    bucket.print(place(1, "d2"), "short\n", index=0)
    logs.follow(place(), "d1", 0)
    logs.follow(place(1, "d2"), "d2", 1)
    await until(lambda: covalent.text(1) == "short\n")
    await until(lambda: covalent.text(0).endswith(f"{PARTS_PER_LOOK + 7}\n"))
    assert covalent.text(0).split() == [str(index) for index in range(PARTS_PER_LOOK + 8)]
    await logs.aclose()


async def test_bytes_that_are_no_text_are_shown_as_what_they_could_be(bucket: Bucket, covalent: Covalent) -> None:
    """The file is UTF-8 at any time, also where a part ends within a character, and Covalent is told its own length."""
    logs = live(bucket, covalent)
    bucket.print(place(), b"caf\xe9 gr\xc3", index=0)
    logs.follow(place(), "d1", 0)
    await until(lambda: covalent.text(0) == "caf\ufffd gr")
    assert covalent.sizes == {0: len("caf\ufffd gr".encode())}
    bucket.print(place(), b"\xbc\xdfe", index=1)
    await until(lambda: covalent.text(0) == "caf\ufffd grü\ufffde")
    await logs.aclose()


async def test_what_a_job_puts_beside_its_log_is_no_part_of_it(bucket: Bucket, covalent: Covalent) -> None:
    """Objects with other names, and one that is too large, hide neither its log nor those of others."""
    logs = live(bucket, covalent)
    many = OWN_LISTS + 1
    bucket.objects[place().log_key("zz")] = b"x"
    bucket.objects[place().log_key("99/stdout.x")] = b"x"
    bucket.print(place(), bytes(MAX_PART_BYTES + 1), index=0)
    bucket.print(place(), "one\n", index=1)
    for node_id in range(many):
        bucket.print(place(node_id), f"{node_id}\n", index=2)
        logs.follow(place(node_id), "d1", node_id)
    await until(lambda: all(covalent.text(node_id) for node_id in range(many)))
    assert [covalent.text(node_id) for node_id in range(2)] == ["one\n0\n", "1\n"]
    await logs.aclose()


async def test_a_bad_moment_of_s3_is_only_a_later_look(bucket: Bucket, covalent: Covalent) -> None:
    """What is only shown fails nobody."""
    logs = live(bucket, covalent)
    bucket.errors.append(AwsError("SlowDown", operation="s3:ListBucket", code="SlowDown", throttled=True))
    bucket.print(place(), "one\n", index=0)
    logs.follow(place(), "d1", 0)
    await until(lambda: covalent.text(0) == "one\n")
    await logs.aclose()


async def test_an_electron_that_covalent_does_not_know_is_left_alone(bucket: Bucket, covalent: Covalent) -> None:
    """A server whose database cannot be read goes on without live logs."""

    def broken(dispatch_id: str, node_id: int) -> Mapping[str, LogFile]:
        raise RuntimeError("no such table")

    logs = LiveLogs(bucket, broken, covalent.tell, first_s=0.02)
    bucket.print(place(), "one\n", index=0)
    logs.follow(place(), "d1", 0)
    await until(lambda: bool(bucket.lists))
    await asyncio.sleep(0.2)
    assert len(bucket.lists) == 1
    await logs.aclose()


# --- what electrons report --------------------------------------------------------------------------------------------


class Reported(list[tuple[str, datetime]]):
    """The keys of what electrons have reported, and how often they were listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []
        self.broken = 0

    def add(self, node_id: int, *points: Point, attempt: int = 1, dispatch_id: str = "dispatch-1") -> None:
        base = reports.base("cirro/", "sweep", dispatch_id, node_id)
        self.append((base + reports.name(attempt, len(self), points), datetime.now(timezone.utc)))

    async def list_keys(self, bucket: str, prefix: str) -> list[tuple[str, datetime]]:
        self.listed.append(prefix)
        if self.broken:
            self.broken -= 1
            raise AwsError("later", operation="s3:ListBucket", code="SlowDown", throttled=True)
        return [each for each in self if each[0].startswith(prefix)]

    async def get_document(self, bucket: str, key: str, limit: int) -> bytes | None:
        raise AssertionError("a listing is enough")


async def seen(condition: Callable[[], object]) -> None:
    """Wait until something is shown."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.005)


@pytest.fixture
async def reported() -> AsyncIterator[tuple[Reported, LiveCurves]]:
    """What is reported, and what looks at it each few ms."""
    bucket = Reported()
    curves = LiveCurves(bucket, lambda dispatch_id: "sweep", first_s=0.01)
    yield bucket, curves
    await curves.aclose()


async def test_what_an_electron_reports_is_told_as_it_grows(reported: tuple[Reported, LiveCurves]) -> None:
    """All of its points each time, and nothing twice."""
    bucket, curves = reported
    told: list[list[float]] = []
    curves.follow(PLACE, "dispatch-1", 3, lambda points: told.append([point.value for point in points]))
    bucket.add(3, Point(0, 0.5))
    await seen(lambda: told == [[0.5]])
    bucket.add(3, Point(1, 0.75))
    bucket.add(4, Point(0, 0.1))  # nobody asked for that one
    await seen(lambda: told == [[0.5], [0.5, 0.75]])


async def test_the_electrons_of_a_dispatch_share_a_listing(reported: tuple[Reported, LiveCurves]) -> None:
    """Each is told its own points."""
    bucket, curves = reported
    told: dict[int, tuple[Point, ...]] = {}
    for node_id in range(20):
        curves.follow(PLACE, "dispatch-1", node_id, functools.partial(told.__setitem__, node_id))
        bucket.add(node_id, Point(0, node_id / 2))
    await seen(lambda: len(told) == 20)
    assert told == {node_id: (Point(0, node_id / 2),) for node_id in range(20)}
    assert len(bucket.listed) <= 3
    assert set(bucket.listed) == {"cirro/reports/sweep/dispatch-1/"}


async def test_nothing_is_listed_when_no_electron_runs(reported: tuple[Reported, LiveCurves]) -> None:
    """After the end of the last one."""
    bucket, curves = reported
    curves.follow(PLACE, "dispatch-1", 3, lambda points: None)
    await seen(lambda: bucket.listed)
    curves.stop("dispatch-1", [3])
    count = len(bucket.listed)
    await asyncio.sleep(0.1)
    assert len(bucket.listed) <= count + 1


async def test_a_bad_moment_of_s3_only_delays_what_is_shown(reported: tuple[Reported, LiveCurves]) -> None:
    """The next look finds it."""
    bucket, curves = reported
    bucket.broken = 2
    told: list[int] = []
    bucket.add(3, Point(0, 0.5))
    curves.follow(PLACE, "dispatch-1", 3, lambda points: told.append(len(points)))
    await seen(lambda: told == [1])


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([], ""),
        ([Point(0, 0.5)], "0.5 at step 0"),
        ([Point(0, 0.5), Point(1, 0.9), Point(2, 0.8)], "0.8 at step 2; least 0.5 at 0, most 0.9 at 1"),
        ([Point(0, 0.5), Point(1, float("nan"))], "nan at step 1"),
        ([Point(5, 1.0, 0), Point(0, 0.123456, 17)], "item 17: 0.1235 at step 0; 2 items report"),
    ],
)
def test_a_curve_in_a_line(points: list[Point], said: str) -> None:
    """Where it is, and how far it went; for a map, the item that came last."""
    assert learning_curves.line(points) == said


def test_the_panel_has_what_is_reported() -> None:
    """After the state."""
    lines = panel.lines(detail("RUNNING"), SINCE, partition="", region="", reported="0.5 at step 0")
    assert list(lines)[:3] == ["job", "state", "reported"]

"""The page: figures with what is required of them, all measurements, and how each tool was set up. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from figures import MB, prose, quantity

from peers.measurement import Measurement
from peers.works import WORKS

OURS = "ours"
CALLS_A_JOB, CALLS_MORE = 4.2, 30
MAP_20_CALLS, MAP_20_S = 72, 11.0
"""cloudknot's, as they were when this was required."""
GROWTH_MB = 64.0


@dataclass(frozen=True)
class Row:
    """A figure that is required.

    Attributes:
        figure: What it is.
        ours: Ours, as it is shown.
        others: That of each other tool, as it is shown.
        required: What ours must reach.
        reached: Whether it does; `None`: something was not measured.
    """

    figure: str
    ours: str
    others: str
    required: str
    reached: bool | None


def rows(found: Sequence[Measurement]) -> list[Row]:
    """The figures that are required, in their order."""
    ours = {(each.work, each.jobs): each for each in found if each.tool == OURS and each.work != "shared"}
    stored = next((each for each in found if each.tool == OURS and "`stored`" in each.way), None)
    map400 = ours.get(("map400", 100))
    map20 = ours.get(("map20", 20))
    limit = CALLS_A_JOB * 100 + CALLS_MORE
    return [
        _row("AWS calls, map of 400 items in 100 jobs", map400, _total, [], limit, f"at most {limit:.0f}"),
        *(
            _row(
                f"AWS calls, map of 400 items in {jobs} jobs",
                ours.get(("map400", jobs)),
                _total,
                _others(found, "map400", jobs),
                None,
                "below each at the same number of jobs",
            )
            for jobs in (400, 20)
        ),
        _row(
            "AWS calls, map of 20 items in 20 jobs",
            map20,
            _total,
            _others(found, "map20", 20),
            MAP_20_CALLS - 1,
            f"below cloudknot, and below {MAP_20_CALLS}",
        ),
        _row(
            "seconds, map of 20 items in 20 jobs",
            map20,
            _seconds,
            _others(found, "map20", 20),
            MAP_20_S,
            f"below cloudknot, and below {MAP_20_S:.0f} s",
            "s",
        ),
        _row(
            "seconds, map of 400 items in 100 jobs", map400, _seconds, _others(found, "map400"), None, "below each", "s"
        ),
        *(
            _row(
                f"growth of the server's memory, {WORKS[each.work].title if each else work}",
                each,
                _driver,
                _others(found, work),
                GROWTH_MB,
                f"at most {GROWTH_MB:.0f} MB, below each driver",
                "MB",
            )
            for work, each in (
                ("map400", map400),
                ("shared", stored),
                ("map10k", ours.get(("map10k", 100))),
                ("map100k", ours.get(("map100k", 100))),
            )
        ),
    ]


def _others(found: Sequence[Measurement], work: str, jobs: int | None = None) -> list[Measurement]:
    return [each for each in found if each.tool != OURS and each.work == work and jobs in (None, each.jobs)]


def _total(of: Measurement) -> float:
    return of.total


def _seconds(of: Measurement) -> float:
    return of.seconds


def _driver(of: Measurement) -> float:
    return of.driver_mb


def _row(
    figure: str,
    ours: Measurement | None,
    value: Callable[[Measurement], float],
    others: Sequence[Measurement],
    limit: float | None,
    required: str,
    unit: str = "",
) -> Row:
    digits = 1 if unit else 0
    if ours is None or (limit is None and not others):
        shown = "" if ours is None else quantity(value(ours), unit, digits)
        return Row(figure, shown, "", required, None)
    mine = value(ours)
    reached = (limit is None or mine <= limit) and all(mine < value(each) for each in others)
    theirs = ", ".join(f"{each.title} {quantity(value(each), unit, digits)}" for each in others)
    return Row(figure, quantity(mine, unit, digits), theirs, required, reached)


def table(found: Sequence[Measurement]) -> str:
    """The required figures in Markdown."""
    lines = ["| figure | covalent-cirro | others | required | reached |", "| --- | ---: | --- | --- | --- |"]
    for row in rows(found):
        verdict = {True: "yes", False: "**no**", None: "not measured"}[row.reached]
        lines.append(f"| {row.figure} | {row.ours or '-'} | {row.others or '-'} | {row.required} | {verdict} |")
    return "\n".join(lines)


def measurements(found: Sequence[Measurement]) -> str:
    """All measurements in Markdown, by work."""
    lines = [
        "| tool, way | jobs | AWS calls (driver + jobs) | SubmitJob | definitions | put to S3 | seconds | memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, work in WORKS.items():
        of_work = [each for each in found if each.work == name]
        if of_work:
            lines.append(f"| **{work.title}** | | | | | | | |")
        lines += [
            f"| {each.title}, {each.way} | {each.jobs} | {each.total:,} ({each.of('client'):,} + {each.of('job'):,}) "
            f"| {each.submits} | {each.definitions} | {put(each.put_bytes)} | {each.seconds:,.1f} | {memory(each)} |"
            for each in of_work
        ]
    return "\n".join(lines)


def memory(of: Measurement) -> str:
    """``+1 (server), client 109``; ``179, of it 17 in the call``; children where there are any."""
    children = f", and {of.children_peak_mb:,.0f} in {of.children} children" if of.children else ""
    if of.server_growth_mb is not None:
        return f"+{of.server_growth_mb:,.0f} (server), client {of.client_peak_mb:,.0f}{children}"
    return f"{of.client_peak_mb:,.0f}, of it {of.client_growth_mb:,.0f} in the call{children}"


def put(size: int) -> str:
    """``50.0 MB`` or ``27 kB``."""
    return f"{size / MB:,.1f} MB" if size >= MB else f"{size / 1000:,.1f} kB"


def operations(of: Measurement) -> str:
    """The calls of a measurement, by caller and operation, the most frequent first."""
    told = []
    for caller, name in (("client", "driver"), ("job", "jobs")):
        ordered = sorted(of.calls[caller].items(), key=lambda item: (-item[1]["count"], item[0]))
        told.append(f"{name} " + (", ".join(f"{key} {entry['count']:,}" for key, entry in ordered) or "none"))
    return "; ".join(told)


def page(found: Sequence[Measurement], facts: Mapping[str, str], tools: Sequence[ModuleType]) -> str:
    """All of ``PEERS.md``."""
    missed = [row for row in rows(found) if row.reached is not True]
    verdict = "All are reached." if not missed else f"**{len(missed)} of {len(rows(found))} are not reached.**"
    missing = [
        f"{tool.TITLE}, {case.way} ({WORKS[case.work].title})"
        for tool in tools
        for case in tool.CASES.values()
        if (tool.TITLE, case.work, case.way) not in {(each.title, each.work, each.way) for each in found}
    ]
    return "\n".join(
        [
            "# Tools for AWS Batch, side by side",
            "",
            prose(
                f"""
                Written by `make bench-peers`. Each tool in its released version, in a virtual environment of its own,
                on the same emulated AWS (`cirro local`), one after the other, each case on a fresh account. All results
                are checked. {verdict}
                """
            ),
            "",
            "## What is required",
            "",
            table(found),
            "",
            "## What was measured",
            "",
            measurements(found),
            "",
            *([f"Not measured: {'; '.join(missing)}.", ""] if missing else []),
            *HOW,
            "",
            "## How each was set up",
            "",
            *(f"- **{tool.TITLE}**: {prose(tool.SET_UP)}" for tool in tools),
            "",
            "## Calls by operation",
            "",
            *(f"- {each.title}, {WORKS[each.work].title}, {each.way}: {operations(each)}" for each in found),
            "",
            "## Where and when",
            "",
            *(f"- {name}: {value}" for name, value in facts.items() if name != "date"),
            f"- measured: {_when(found)}",
            "",
        ]
    )


def _when(found: Sequence[Measurement]) -> str:
    times = sorted(each.at for each in found)
    return f"from {times[0]} to {times[-1]}" if times else "nothing"


HOW = [
    f"- {prose(text)}"
    for text in (
        """
        **Exact**: calls, SubmitJob, definitions, bytes put to S3 (bodies of PutObject and UploadPart). The emulator
        counts every call from the moment of the call that is measured until no job is left. `driver` is who submits,
        with the Covalent server of covalent-cirro and of the stock plugin; `jobs` are calls with the credentials of
        jobs. Calls that only wait (DescribeJobs, ListObjects) grow with the seconds, by some from run to run.
        """,
        """
        **Rough**: seconds and memory. Jobs are processes of this machine, which starts them at once: there is no
        instance to boot and no image to pull. A job has one vCPU of 8 (Lithops: of 10); the processors are shared by
        all. Seconds are from the call to the results in the caller's hands.
        """,
        """
        **Definitions** are those that the account has afterwards, the set-up included.
        """,
        """
        **Memory** of a driver is the kernel's peak (`VmHWM`) of its process, with the libraries that it has imported,
        and how much of it the call added; of its child processes, the peak of their sum, looked at ten times a second.
        Where the driver is the Covalent server, it is the growth of its peak, and the client's process is beside it.
        What is compared is that growth with the peak of a driver and its children: a driver is started for each run,
        the server once for all.
        """,
    )
]

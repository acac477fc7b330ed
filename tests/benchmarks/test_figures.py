"""The benchmark's verdicts, table and page: what they say for given numbers."""

from __future__ import annotations

import machine
import pytest
from figures import Result, at_most, count, excess, median, page, share_of, table
from lab import BenchmarkFailed, Ended, node_of, peak_of
from measures import MEASURES, Completions, by_operation, delays, per_second

CALLS = {
    "s3:PutObject": {"count": 40, "bytes_in": 1_500_000, "bytes_out": 0},
    "s3:UploadPart": {"count": 7, "bytes_in": 50_000_000, "bytes_out": 0},
    "batch:SubmitJob": {"count": 20, "bytes_in": 9_000, "bytes_out": 2_000},
}


@pytest.mark.parametrize(("ours", "reached"), [(8.0, True), (8.1, False), (0.0, True)])
def test_a_limit(ours: float, reached: bool) -> None:
    """The limit itself is reached, anything above it is not."""
    assert at_most("calls", stock=16.6, ours=ours, limit=8).reached is reached


@pytest.mark.parametrize(("ours", "reached"), [(0.5, True), (0.51, False)])
def test_a_share_of_the_stock_plugins(ours: float, reached: bool) -> None:
    """The limit is a share of what the stock plugin took."""
    row = share_of("start", stock=4.0, ours=ours, share=1 / 8, unit="s", digits=2, required="an eighth")
    assert row.reached is reached
    assert row.ratio == pytest.approx(ours / 4)


def test_nothing_to_compare_with() -> None:
    """A stock plugin that took no time, or less than an empty electron, gives no verdict at all."""
    with pytest.raises(ValueError, match="server time"):
        share_of("server time", stock=-0.1, ours=0.0, share=0.1, unit="s", digits=1, required="a tenth")


def test_a_median_of_nothing() -> None:
    """No measurement is an error, not a figure."""
    assert median([3.0, 1.0, 200.0]) == 3.0
    with pytest.raises(ValueError, match="nothing was measured"):
        median([])


def test_what_is_beyond_empty_electrons() -> None:
    """Medians, less the empty electrons' median; ours is never less than nothing."""
    assert excess(blank=[10.0, 11.0, 90.0], ours=[12.0, 13.0, 14.0], stock=[61.0]) == (50.0, 2.0)
    assert excess(blank=[10.0], ours=[9.5], stock=[61.0]) == (51.0, 0.0)


def test_counting_calls() -> None:
    """Of all operations or of some, calls or bytes; one that was never called counts nothing."""
    assert count(CALLS) == 67
    assert count(CALLS, "s3:PutObject", "s3:UploadPart", field="bytes_in") == 51_500_000
    assert count(CALLS, "batch:RegisterJobDefinition") == 0
    assert by_operation(CALLS) == "PutObject 40, SubmitJob 20, UploadPart 7"


def test_the_table() -> None:
    """A line a figure, units and thousands, a dash where the stock plugin was not asked, and a miss in bold."""
    lines = table(
        [
            at_most("bytes", stock=2102.4, ours=50.6, limit=52.7, unit="MB", digits=1),
            at_most("40 electrons", stock=None, ours=70, limit=64, unit="MB"),
        ]
    ).splitlines()
    assert lines[2] == "| bytes | 2,102.4 MB | 50.6 MB | 0.024 | at most 52.7 MB | yes |"
    assert lines[3] == "| 40 electrons | - | 70 MB | - | at most 64 MB | **no** |"
    assert len({line.count("|") for line in lines}) == 1


def test_the_page() -> None:
    """Verdict, versions, machine, and how each figure was measured; nothing that tells whose machine it was."""
    row = at_most("calls", stock=16.6, ours=5.7, limit=8, digits=1)
    text = page([Result([row], "- **Calls**: the emulator's counters.")], machine.facts(), "0.42.0")
    assert "All are reached." in text
    assert "the emulator's counters" in text
    assert "covalent-awsbatch-plugin 0.42" in text
    assert "cores" in text
    missed = at_most("calls", stock=16.6, ours=9, limit=8, digits=1)
    assert "**1 of 2 are not reached.**" in page([Result([row, missed], "")], {}, "0.42.0")


def test_nothing_of_the_machines_name() -> None:
    """The facts name neither the host nor a path."""
    import platform

    text = " ".join(machine.facts().values())
    assert platform.node() not in text
    assert "/" not in text
    assert machine.kernel("5.15.0-1234-acme") == "5.15.0"


def test_the_processors_model() -> None:
    """The first processor's model; the architecture where the kernel names none."""
    assert machine.model("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC  7B13\n") == "AMD EPYC 7B13"
    assert machine.model("processor\t: 0\nBogoMIPS\t: 243.75\n")


def test_the_peak_of_memory() -> None:
    """In bytes, as the kernel says it; a system that does not say it is told so."""
    assert peak_of("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t  167936 kB\nVmRSS:\t  1 kB\n") == 167936 * 1024
    with pytest.raises(BenchmarkFailed, match="Linux"):
        peak_of("Name:\tpython\n")


def test_whose_job_it_is() -> None:
    """Ours by its tags, the stock plugin's by its name; another dispatch's belongs to nobody."""
    tags = {"covalent:dispatch": "d1", "covalent:node": "4"}
    assert node_of("d1", "nap-d1-4", tags) == 4
    assert node_of("d2", "nap-d1-4", tags) is None
    assert node_of("d1", "covalent-batch-d1-12", {}) == 12
    assert node_of("d1", "covalent-batch-d2-12", {}) is None


class _Clocked:
    """A lab whose database shows what it is told to."""

    def __init__(self) -> None:
        self.shown: set[int] = {0}

    def completed(self, dispatch_id: str) -> set[int]:
        return set(self.shown)


def test_when_electrons_are_completed() -> None:
    """The first look that shows an electron counts; parameters, completed before, are no electrons."""
    lab = _Clocked()
    completions = Completions(lab, "d1")  # type: ignore[arg-type]
    assert completions() == 0
    lab.shown = {0, 3}
    assert completions() == 1
    seen = completions.at[3]
    lab.shown = {0, 3, 5}
    assert completions() == 2
    assert completions.at[3] == seen
    assert delays([Ended(node_id=3, started=seen - 9, stopped=seen - 2)], completions) == pytest.approx([2.0])


def test_a_rate_of_calls() -> None:
    """Calls a second apart are one a second, whether the time begins before or after one of them."""
    assert per_second(31, 30.0) == 1.0
    assert per_second(30, 30.0) < 1.0
    assert per_second(0, 30.0) == 0.0


def test_every_measurement_says_what_it_is() -> None:
    """The first line of its docstring is what the user reads while it runs."""
    assert all((measure.__doc__ or "").strip() for measure in MEASURES.values())

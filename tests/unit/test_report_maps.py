"""Reports about maps: how long items took, what one cost, and how many jobs to share them over next time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.contract.maps import Mapped
from covalent_cirro.history.map_items import MapState
from covalent_cirro.history.report import compute, document, page
from covalent_cirro.history.report.costs import CostLine
from covalent_cirro.history.report.item_spread import BINS, MapFacts, MapReport, map_reports
from covalent_cirro.history.report.runs import BilledAttempt, Machine
from covalent_cirro.history.report.sources import ReportFacts
from covalent_cirro.jobs.map_progress import ItemCounts

seconds = st.integers(0, 10**9).map(lambda ms: ms / 1000)


def facts(seconds: list[float], *, items: int | None = None, jobs: int = 1, parallel: int = 1) -> MapFacts:
    """A map that has ended, each of whose items took so long."""
    length = items or len(seconds)
    mapped = Mapped(length, ((0, length),), (), parallel)
    state = MapState(mapped, ItemCounts(length, length, 2, 50.0, over=True), ())
    return MapFacts(4, "train", "job", state, jobs, seconds)


def report_of(of: MapFacts, *lines: CostLine) -> MapReport:
    """What a report says of it."""
    [found] = map_reports([of], lines)
    return found


@given(st.lists(seconds, min_size=1, max_size=300))
def test_the_histogram_has_each_item_once(of: list[float]) -> None:
    """In bars that follow one another from the shortest to the longest."""
    found = report_of(facts(of))
    assert sum(each.items for each in found.histogram) == len(of) == found.known
    assert len(found.histogram) <= BINS
    for before, after in itertools.pairwise(found.histogram):
        assert before.to_s == after.from_s
    assert (found.histogram[0].from_s, found.histogram[-1].to_s) == pytest.approx((min(of), max(of)), rel=1e-9)
    assert found.min_s is not None
    assert found.median_s is not None
    assert found.p95_s is not None
    assert found.max_s is not None
    assert found.min_s <= found.median_s <= found.p95_s <= found.max_s


@given(st.lists(seconds, min_size=1, max_size=50), st.integers(1, 50), st.integers(1, 8))
def test_the_number_of_jobs_can_be_asked_for(of: list[float], jobs: int, parallel: int) -> None:
    """It is no more than there are items, and at least one."""
    jobs = min(jobs, len(of))
    found = report_of(facts(of, jobs=jobs, parallel=parallel))
    assert found.next_jobs is not None
    assert 1 <= found.next_jobs <= len(of)


@pytest.mark.parametrize(
    ("item_s", "jobs", "parallel", "wanted"),
    [
        (1.0, 1000, 1, 33),  # 10,000 s of work, in jobs of 5 minutes
        (1.0, 1000, 4, 8),  # four at a time
        (0.001, 100, 1, 1),
        (1.0, 40, 1, 40),  # jobs of 4 minutes stay
        (30.0, 60, 1, 1000),  # jobs of 83 minutes: more of them, of 5 minutes
        (600.0, 10_000, 1, 10_000),  # an item is a job
    ],
)
def test_jobs_for_next_time_last_minutes(item_s: float, jobs: int, parallel: int, wanted: int) -> None:
    """AWS advises 3 to 5 minutes at least."""
    found = report_of(facts([item_s] * 10_000, jobs=jobs, parallel=parallel))
    assert found.next_jobs == wanted
    assert found.why.startswith("a job computed for ")


def test_some_items_tell_of_all() -> None:
    """Where the seconds of the others are not known."""
    found = report_of(facts([2.0] * 100, items=10_000, jobs=1000))
    assert (found.known, found.items, found.failed) == (100, 10_000, 2)
    assert found.next_jobs == 66
    nothing = report_of(facts([], items=10))
    assert (nothing.next_jobs, nothing.median_s, nothing.histogram) == (None, None, ())


def test_an_item_costs_its_share_of_all_attempts_of_the_map() -> None:
    """Those that were lost included; other electrons' are not."""

    def line(node_id: int, usd: float | None) -> CostLine:
        attempt = BilledAttempt(1, 0.0, 10.0, False, "", Machine())
        return CostLine(node_id, "train", "job", attempt, 0.5, 10.0, None, usd, usd is not None)

    found = report_of(facts([1.0] * 10), line(4, 0.5), line(4, 1.5), line(7, 9.0))
    assert (found.usd_per_item, found.exact) == (0.2, True)
    assert not report_of(facts([1.0] * 10), line(4, 0.5), line(4, None)).exact
    assert report_of(facts([1.0] * 10), line(4, None)).usd_per_item is None
    assert report_of(facts([1.0] * 10)).usd_per_item is None


def test_the_page_and_the_document_have_them() -> None:
    """A bar for each bin, and what to ask for."""
    of = facts([0.5 + i % 7 for i in range(700)], jobs=100)
    found = compute(ReportFacts("dispatch-1", "sweep", "eu-west-1", (), {}, lambda *_: None, (), 200.0, maps=(of,)))
    [told] = document(found)["maps"]
    assert (told["node_id"], told["items"], told["next_jobs"]) == (4, 700, 8)
    assert sum(each["items"] for each in told["histogram"]) == 700
    text = page.page(found)
    assert "Items of maps" in text
    assert "array_size=8" in text
    assert "700 of 700 items in 100 jobs, 2 without a result" in text
    assert "shortest 0.5 s, median 3.5 s, 95 of 100 up to 6.5 s, longest 6.5 s" in text
    assert text.count('class="bar" x=') == BINS

"""The measures of other tools: counting, what is kept, verdicts and the page; and the driver that the rig talks to."""

from __future__ import annotations

import io
import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peers import driver, page, peer
from peers.environments import python_of
from peers.measurement import Measurement, merged, read, write
from peers.peer import MODULES, Case, load
from peers.works import WORKS, differences


def calls(**operations: int) -> dict[str, dict[str, int]]:
    """Counters as the emulator gives them; ``batch_SubmitJob=1``."""
    return {
        name.replace("_", ":"): {"count": count, "bytes_in": 10 * count, "bytes_out": 0}
        for name, count in operations.items()
    }


CLOUDKNOT = Measurement(
    tool="cloudknot",
    title="cloudknot 0.6.1",
    work="map20",
    way="array",
    jobs=20,
    calls={
        "client": calls(batch_SubmitJob=1, s3_PutObject=1, batch_DescribeJobs=10, s3_GetObject=20),
        "job": calls(s3_PutObject=20, s3_GetObject=20),
    },
    definitions=1,
    seconds=12.0,
    client_peak_mb=178.0,
    client_growth_mb=16.0,
    server_growth_mb=None,
    children=2,
    children_peak_mb=30.0,
    at="2026-11-30 03:46 UTC",
)
OURS = replace(
    CLOUDKNOT,
    tool="ours",
    title="covalent-cirro",
    way="`@mapped`",
    calls={"client": calls(batch_SubmitJob=1, s3_GetObject=20), "job": calls(s3_PutObject=20, s3_GetObject=20)},
    seconds=5.0,
    server_growth_mb=0.8,
    at="2026-11-30 03:42 UTC",
)


def verdict(found: list[Measurement], figure: str) -> bool | None:
    """Whether a figure is reached."""
    (row,) = [row for row in page.rows(found) if row.figure == figure]
    return row.reached


# --- counting ---------------------------------------------------------------------------------------------------------


def test_calls_by_caller_and_what_is_put() -> None:
    """All calls of driver and jobs count; bytes are those that are put, not those of other requests."""
    assert (CLOUDKNOT.total, CLOUDKNOT.of("client"), CLOUDKNOT.of("job")) == (72, 32, 40)
    assert CLOUDKNOT.submits == 1
    assert CLOUDKNOT.put_bytes == 210


def test_the_memory_of_a_driver() -> None:
    """A process with those that it started, or what a server that runs for all has grown."""
    assert CLOUDKNOT.driver_mb == 208.0
    assert OURS.driver_mb == 0.8


def test_wrong_results_are_told() -> None:
    """A missing one, a wrong one, and those in another order."""
    assert differences([0, 1, 4], [0, 1, 4]) == []
    assert differences([0, 1, 4], [0, 1]) == ["2 results instead of 3"]
    assert differences([0, 1, 4], [0, 4, 1]) == ["result 1 is 4, not 1", "result 2 is 1, not 4"]


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_new_measurement_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """The others stay, in the order of the page; what is no case any more goes."""
    file = tmp_path / "measured.json"
    assert read(file) == []
    gone = replace(OURS, way="as it was done once")
    write(file, [CLOUDKNOT, OURS, gone])
    new = replace(CLOUDKNOT, seconds=11.0)
    order = [("ours", "map20: `@mapped`"), ("cloudknot", "map20: array"), ("redun", "tasks: none yet")]
    assert merged(read(file), [new], order) == [OURS, new]


def test_each_tool_can_be_asked_without_being_installed() -> None:
    """Titles, cases and set-up are read in this environment; no two cases are kept in one place."""
    for name in MODULES:
        tool = load(name)
        cases = list(tool.CASES.values())
        assert tool.TITLE
        assert tool.SET_UP
        assert all(case.work in WORKS for case in cases)
        assert len({(case.work, case.way) for case in cases}) == len(cases)


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    """With the packages that are asked for; other packages make it anew. A tool without packages has ours."""
    home = tmp_path / "tool"
    home.mkdir()
    (home / "installed.txt").write_text("a==1\nb==2")
    said: list[str] = []
    assert python_of("tool", ("a==1", "b==2"), said.append, tmp_path) == home / "bin" / "python"
    assert said == []
    assert python_of("tool", (), said.append, tmp_path) == Path(sys.executable)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_fewer_calls_than_the_other_tool_are_required() -> None:
    """As many are not fewer, and what was not measured is not reached."""
    figure = "AWS calls, map of 20 items in 20 jobs"
    assert verdict([OURS, CLOUDKNOT], figure) is True
    assert verdict([replace(OURS, calls=CLOUDKNOT.calls), CLOUDKNOT], figure) is False
    assert verdict([CLOUDKNOT], figure) is None


def test_other_tools_are_compared_at_the_same_number_of_jobs() -> None:
    """Calls are; seconds are compared with the fastest, however many jobs it has."""
    ours = replace(OURS, work="map400", jobs=400)
    few = replace(CLOUDKNOT, work="map400", jobs=10, seconds=4.0)
    assert verdict([ours, few], "AWS calls, map of 400 items in 400 jobs") is None
    many = replace(few, jobs=400)
    assert verdict([ours, few, many], "AWS calls, map of 400 items in 400 jobs") is True
    assert verdict([replace(ours, jobs=100), few], "seconds, map of 400 items in 100 jobs") is False


def test_growth_has_a_limit_of_its_own() -> None:
    """Less than another driver's peak is not enough."""
    figure = "growth of the server's memory, map of 10,000 trivial items"
    ours = replace(OURS, work="map10k", jobs=100)
    assert verdict([replace(ours, server_growth_mb=63.0)], figure) is True
    assert verdict([replace(ours, server_growth_mb=65.0)], figure) is False


def test_the_page_has_figures_measurements_calls_and_set_up() -> None:
    """A miss in bold, units, calls by operation, and the cases that were not measured."""
    text = page.page([OURS, CLOUDKNOT], {"date": "today", "machine": "2 cores"}, [load(name) for name in MODULES])
    assert "| AWS calls, map of 20 items in 20 jobs | 61 | cloudknot 0.6.1 72 |" in text
    assert "| cloudknot 0.6.1, array | 20 | 72 (32 + 40) | 1 | 1 | 0.2 kB | 12.0 | 178, of it 16 in the call" in text
    assert "| +1 (server), client 178, and 30 in 2 children |" in text
    assert (
        "driver s3:GetObject 20, batch:DescribeJobs 10, batch:SubmitJob 1, s3:PutObject 1; jobs s3:GetObject 20" in text
    )
    assert "are not reached.**" in text
    assert "Not measured: covalent-cirro, 20 electrons (20 trivial tasks)" in text
    assert "- measured: from 2026-11-30 03:42 UTC to 2026-11-30 03:46 UTC" in text
    assert "today" not in text
    assert all(f"- **{load(name).TITLE}**: " in text for name in MODULES)


# --- the driver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("results", "mistakes"), [([0, 1, 4], []), ([0, 1, 5], ["result 2 is 5, not 4"])])
def test_the_driver_calls_when_it_is_told_to(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    results: list[int],
    mistakes: list[str],
) -> None:
    """It says that all is set up, waits for a line, calls, and checks the results."""
    happened: list[str] = []

    def prepare(case: Case, place: peer.Place) -> Any:
        happened.append(f"prepared in {place.folder.name}")
        return lambda: (happened.append("called"), results)[1]

    class Line(io.StringIO):
        def readline(self, *_: Any) -> str:
            happened.append("told to")
            return "\n"

    tool = types.SimpleNamespace(CASES={"few": Case("few", "somehow", 3)}, prepare=prepare)
    monkeypatch.setattr(peer, "load", lambda name: tool)
    monkeypatch.setitem(WORKS, "few", replace(WORKS["tasks"], items=3))
    monkeypatch.setattr(sys, "stdin", Line())
    driver.main("tool", "few", {"folder": str(tmp_path), "inputs": str(tmp_path), "settings": {}, "image": "image"})
    assert happened == [f"prepared in {tmp_path.name}", "told to", "called"]
    said = [json.loads(line.removeprefix(driver.MARK)) for line in capsys.readouterr().out.splitlines()]
    assert said[0]["ready"] > 0
    assert said[1]["mistakes"] == mistakes
    assert said[1]["peak"] >= said[0]["ready"]
    assert said[1]["seconds"] >= 0

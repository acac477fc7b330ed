"""The benchmark of serving: the tutorial's app as it is, what the page says for given figures, and one run of all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import serving
import serving_load
import serving_tutorial
from serving_load import Load, LoadFailed
from serving_model import made, write
from serving_page import Measured, page, rows

FAST = Load(answers=30_000, seconds=10.0, mean_ms=1.0, p50_ms=1.0, p99_ms=2.0, max_ms=9.0, failed=0)
GOOD = Measured(
    {
        "tutorial": FAST._replace(mean_ms=5000.0, answers=2),
        "root": FAST,
        "by_user": FAST._replace(answers=29_000),
        "constant": FAST._replace(answers=50_000),
        "half": FAST._replace(answers=15_000),
        "half constant": FAST._replace(answers=15_000, p99_ms=1.9),
    },
    {"tutorial": 2500.0, "service": 64.0, "bare": 50.0},
    5.0,
)


def test_ratios_are_of_one_run() -> None:
    """The slower of the two endpoints against the tutorial's app, each against the constant."""
    assert [row.value for row in rows(GOOD)] == ["14,500", "0.60", "0.58", "2.00", "1.90", "1.16"]
    assert all(row.reached for row in rows(GOOD) if row.required)


@pytest.mark.parametrize(
    ("spoiled", "missed"),
    [
        (GOOD._replace(loads={**GOOD.loads, "tutorial": FAST._replace(mean_ms=300.0)}), "tutorial's app"),
        (GOOD._replace(loads={**GOOD.loads, "root": FAST._replace(answers=24_000)}), "`GET /`"),
        (GOOD._replace(loads={**GOOD.loads, "by_user": FAST._replace(answers=24_000)}), "`GET /users"),
        (GOOD._replace(loads={**GOOD.loads, "half": FAST._replace(p99_ms=3.1)}), "p99"),
        (GOOD._replace(memory_mib={**GOOD.memory_mib, "service": 72.0}), "memory"),
    ],
)
def test_what_is_not_reached_is_told(spoiled: Measured, missed: str) -> None:
    """That row, and no other; the page has it in bold."""
    [row] = [row for row in rows(spoiled) if row.reached is False]
    assert missed in row.figure
    assert "**no**" in page(spoiled, {"machine": "two cores"})
    assert "**no**" not in page(GOOD, {"machine": "two cores"})


def test_the_middle_of_rounds() -> None:
    """Each figure's median: one round that something disturbed does not count."""
    middle = serving.middle([FAST, FAST._replace(p99_ms=400.0, answers=10), FAST])
    assert (middle.p99_ms, middle.rate) == (2.0, 3000.0)


def test_the_tutorial_s_app_sorts_by_title_and_leaves_out_what_was_rated(tmp_path: Path) -> None:
    """As the tutorial has it: its scores are the model's, its order is that of the alphabet."""
    model = made(users=5, items=12, k=3, ratings=20)
    app = serving_tutorial.make_app(write(model, tmp_path / "version"))
    answer = app.test_client().get("/?uid=2").get_json()
    tensors = model.tensors
    scores = (
        tensors["user"][1] @ tensors["item"].T + tensors["bias_item"] + tensors["bias_user"][1] + tensors["bias"][0]
    )
    titles = [title for _, title, _ in answer["response"]]
    assert answer["success"] is True
    assert titles == sorted(titles, reverse=True)
    assert not {int(item) - 1 for item, _, _ in answer["response"]} & set(model.rated[1])
    for item, _, score in answer["response"]:
        assert score == pytest.approx(float(scores[int(item) - 1]), abs=1e-5)
    assert app.test_client().get("/?uid=stranger").get_json() == {"response": [], "success": True}
    assert app.test_client().get("/").get_json() == {"success": False}


def test_without_a_load_generator(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, with the way to install it."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert serving.main([]) == 2
    assert "apt-get install wrk" in capsys.readouterr().err


def test_priority_is_for_a_measurement_only() -> None:
    """Also where the system does not allow real-time priority, nothing else changes."""
    before = os.sched_getscheduler(0)
    with serving_load.real_time(os.getpid()):
        assert (os.sched_getscheduler(0) == os.SCHED_RR) is serving_load.has_real_time()
    assert os.sched_getscheduler(0) == before


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk, which makes the load, is not installed")
def test_load_of_a_real_server(tmp_path: Path) -> None:
    """wrk's figures are read; requests come at the rate that is asked for; answers that fail are an error."""
    model = write(made(users=20, items=30, k=4, ratings=100), tmp_path / "version")
    with serving.server("service", ["-m", "recommender_service"], serving.service_environment(model), "/ready") as it:
        found = serving_load.load(it.port, serving.ROOT, 20, 1, 2)
        assert found.answers > 0
        assert np.all(np.diff([0.0, found.p50_ms, found.p99_ms, found.max_ms]) >= 0)
        paced = serving_load.load(it.port, serving.ROOT, 20, 1, 8, rate=200)
        assert paced.rate == pytest.approx(200, rel=0.1)
        with pytest.raises(LoadFailed, match="failed"):
            serving_load.load(it.port, "/nowhere/USER", 20, 1, 2)
        assert serving_load.memory_mib(it.pid) > 10

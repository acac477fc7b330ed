"""The README's figures are those of the last benchmark, and its first screen holds what a newcomer needs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the tables of a page, by their first cell."""
    found = (line.strip("|").split("|") for line in text.splitlines() if line.startswith("| "))
    return {first.strip(): [each.strip() for each in rest] for first, *rest in found}


def test_the_figures_are_measured() -> None:
    """Each row of the table is one of benchmarks/RESULTS.md."""
    (section,) = re.findall(r"## What it promises, in figures\n(.*?)\n## ", README, re.DOTALL)
    measured = rows((ROOT / "benchmarks" / "RESULTS.md").read_text())
    shown = {figure: cells for figure, cells in rows(section).items() if figure not in ("figure", "---")}
    assert len(shown) >= 4
    assert shown == {figure: measured[figure][:2] for figure in shown}


def test_the_faults_are_counted() -> None:
    """Those of docs/faults.md, each by itself: without the runs that have none, or many together."""
    tables = re.findall(
        r"^\| fault \| times injected.*\n\| ---.*\n((?:\|.*\n)+)", (ROOT / "docs" / "faults.md").read_text(), re.M
    )
    names = [line.split("|")[1].strip() for table in tables for line in table.splitlines()]
    single = [each for each in names if "no fault" not in each and "many faults" not in each and "soak" not in each]
    (told,) = re.findall(r"tried with (\d+) faults", README)
    assert (len(tables), int(told)) == (2, len(single))


def test_the_animation_is_a_real_one_and_small() -> None:
    """docs/pictures/take_electrons.py made it: frames that take turns, in less than 2 MB."""
    (name,) = re.findall(r"!\[cirro run[^]]*\]\((docs/pictures/[^)]*)\)", README)
    text = (ROOT / name).read_text()
    assert len(text) < 2_000_000
    frames = re.findall(r'<g class="frame-(\d+)">', text)
    assert len(frames) > 3
    assert all(f"@keyframes frame-{number} " in text for number in frames)
    assert text.count("the&#160;dispatch&#160;is&#160;COMPLETED") == 1
    assert "cirro&#160;report" in text


def test_the_three_words_are_explained_before_they_are_used() -> None:
    """In the first paragraph."""
    first = README.split("![cirro run", 1)[0]
    assert all(f"**{word}**" in first for word in ("electron", "lattice", "dispatch"))

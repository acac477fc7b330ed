"""How times, sizes and money are written for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.jobs import formatting
from covalent_cirro.jobs.formatting import GIB, MIB


@pytest.mark.parametrize(
    ("amount", "text"),
    [(None, "?"), (0, "$0"), (1234.5, "$1,234.50"), (0.113, "$0.113"), (0.04591, "$0.0459"), (0.0000095, "$0.0000095")],
)
def test_money_is_written_with_the_digits_that_count(amount: float | None, text: str) -> None:
    """Cents for dollars, and enough digits for an electron of a second."""
    assert formatting.usd(amount) == text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("KeyError: 'a'", "AWS Batch says: exit code 1."), "KeyError: 'a'. AWS Batch says: exit code 1."),
        (("It ended.", "", "See `cirro show`"), "It ended. See `cirro show`"),
        (("type `cirro show`", "(it helps.)", "why?", "well"), "type `cirro show`. (it helps.) why? well"),
        (("",), ""),
        ((), ""),
    ],
)
def test_texts_of_several_places_do_not_run_together(parts: tuple[str, ...], text: str) -> None:
    """An exception's message has no full stop, and another sentence follows it."""
    assert formatting.sentences(*parts) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (0.4, "0.4 s"), (42.9, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (529200, "6 d 3 h")],
)
def test_a_time_that_goes_on_is_in_whole_seconds(seconds: float, text: str) -> None:
    """So that it changes once a second in a table that is looked at."""
    assert formatting.elapsed(seconds) == text


@pytest.mark.parametrize(("seconds", "told"), [(-5, "0 min"), (59, "1 min"), (3599, "1 h 0 min"), (5400, "1 h 30 min")])
def test_a_long_time_is_in_minutes(seconds: float, told: str) -> None:
    """Never less than nothing."""
    assert formatting.minutes(seconds) == told


def test_a_moment_is_in_utc() -> None:
    """Whatever the zone of this machine; with the zone's name where nothing else tells it."""
    assert formatting.moment(1_784_556_189) == "2026-07-20 14:03:09"
    assert formatting.moment_utc(1_784_556_189.9) == "2026-07-20 14:03:09 UTC"
    assert formatting.moment_utc(None) == "?"


def test_memory_is_written_in_the_unit_that_fits() -> None:
    """In GiB, and in the GB of the option ``memory``, which are the same."""
    assert [formatting.memory(mib) for mib in (512, 1024, 3840)] == ["512 MiB", "1 GiB", "3.75 GiB"]
    assert [formatting.gigabytes(mib) for mib in (None, 512, 1024, 3840)] == ["?", "512 MiB", "1 GB", "3.75 GB"]
    assert [formatting.option_memory(mib) for mib in (512, 1024, 3840)] == ["0.5", "1", "3.75"]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1536, "1.5 KiB"), (5 * MIB, "5.0 MiB"), (2048 * GIB, "2,048.0 GiB")],
)
def test_a_size_is_written_in_the_largest_unit_that_it_fills(size_bytes: int, text: str) -> None:
    """Up to GiB, since buckets are billed by them."""
    assert formatting.size(size_bytes) == text


def test_the_size_of_an_image_is_as_docker_writes_it() -> None:
    """In millions of bytes."""
    assert formatting.megabytes(812_345_678) == "812 MB"


def test_what_is_counted_is_listed() -> None:
    """In the order in which it is given."""
    assert formatting.counted({"RUNNING": 3, "FAILED": 1}) == "3 RUNNING, 1 FAILED"
    assert formatting.counted({}) == ""


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_longer_time_is_never_written_as_a_shorter_one(one: float, other: float) -> None:
    """In each of the three forms."""
    for form in (formatting.duration, formatting.elapsed, formatting.minutes):
        assert _seconds(form(min(one, other))) <= _seconds(form(max(one, other)))


def _seconds(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    words = text.split()
    return sum(float(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))

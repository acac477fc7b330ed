"""Faults of what a job leaves in S3: outcomes that are cut off, of another version, too large, of another electron."""

from __future__ import annotations

from typing import Any

from tests.faults.scenarios import Scenario


def _outcome(**change: Any) -> dict[str, Any]:
    return {"kind": "damage", "caller": "job", "operation": "PutObject", "key": "/outcome.json", "count": 1, **change}


SCENARIOS = (
    Scenario(
        "malformed outcome",
        "Four outcomes are not what the jobs wrote: cut off, of a format of the future, of 20 MB, of another call.",
        "The four electrons failed: the outcome was refused, why, and where it lies. It is never unpickled.",
        (
            _outcome(size=200),
            _outcome(pattern='"format": ?1', replacement='"format":99'),
            _outcome(size=20_000_000),
            _outcome(pattern='"call_id": ?"', replacement='"call_id":"another-'),
        ),
        count=6,
        fails=4,
        says=("is not JSON", "99", "20000000 bytes", "of call another-"),
    ),
    Scenario(
        "result with a wrong digest",
        "The bytes of a result in S3 are not those that its job stored.",
        "The electron failed: it returned, but its result could not be read.",
        ({"kind": "damage", "caller": "job", "operation": "PutObject", "key": "/blobs/", "size": 100, "count": 1},),
        fails=1,
        says=("returned, but its result could not be read",),
    ),
)

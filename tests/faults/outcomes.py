"""Faults of what a job leaves in S3: outcomes cut off, too large, hostile or of another electron; logs with a hole."""

from __future__ import annotations

from typing import Any

from covalent_cirro.contract.problems import FORMAT
from tests.faults.scenarios import Scenario


def outcome_that(**change: Any) -> dict[str, Any]:
    """The fault of one outcome that is changed."""
    return {"kind": "damage", "caller": "job", "operation": "PutObject", "key": "/outcome.json", "count": 1, **change}


SCENARIOS = (
    Scenario(
        "malformed outcome",
        "Four outcomes are not what the jobs wrote: cut off, of a format of the future, of 20 MB, of another call.",
        "The four electrons failed: the outcome was refused, why, and where it lies. It is never unpickled.",
        (
            outcome_that(size=200),
            outcome_that(pattern=f'"format": ?{FORMAT}', replacement='"format":99'),
            outcome_that(size=20_000_000),
            outcome_that(pattern='"call_id": ?"', replacement='"call_id":"another-'),
        ),
        count=6,
        fails=4,
        says=("is not JSON", "99", "20000000 bytes", "of call another-"),
    ),
    Scenario(
        "outcome hostile",
        "Three outcomes say what cannot be: a time of 400 digits, 100,000 facts about the host, one part of a log 300 "
        "times. A fourth is well-formed, and is not what its job signed.",
        "The four electrons failed: the outcome was refused, why, and where it lies. In `cirro jobs` each is a row "
        "with a note.",
        (
            outcome_that(pattern=r'"wall_s":[0-9.e-]+', replacement='"wall_s":' + "9" * 400),
            outcome_that(pattern=r'"host":\{', replacement='"host":{' + "".join(f'"{i}":"x",' for i in range(100_000))),
            outcome_that(
                pattern=r'"parts":\[\]', replacement='"parts":[' + ",".join(['"01/stdout.000000"'] * 300) + "]"
            ),
            outcome_that(pattern=r'"name":""', replacement=r'"name":"of another"'),
        ),
        count=6,
        fails=4,
        says=(
            "usage.wall_s is not a number",
            "entries, at most",
            "01/stdout.000000 twice",
            "was not written with that job's key",
        ),
    ),
    Scenario(
        "part missing",
        "Each electron prints 40 kB, which is stored as a part of its log; the part is gone when the server wants it.",
        "Nothing but a line in the electron's log, which says what is missing, and the end of what it printed.",
        (
            {
                **{"kind": "error", "service": "s3", "operation": "GetObject", "caller": "client", "key": "/log/"},
                **{"status": 404},
            },
        ),
        prints=40_000,
        logs="of this log is missing: s3:GetObject",
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

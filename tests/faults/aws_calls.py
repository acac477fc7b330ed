"""Faults of calls to AWS: throttled, failed, cut off, slow, out of date, out of order, with another clock."""

from __future__ import annotations

from tests.faults.scenarios import Scenario

SCENARIOS = (
    Scenario(
        "throttled",
        "AWS Batch allows a tenth of the calls that are made: 429 for more than a SubmitJob in two seconds and a "
        "DescribeJobs in ten.",
        "States come later; the server's log says that DescribeJobs fails, and when it is tried next.",
        (
            {"kind": "throttle", "service": "batch", "operation": "SubmitJob", "above_per_s": 0.5},
            {"kind": "throttle", "service": "batch", "operation": "DescribeJobs", "above_per_s": 0.1},
        ),
    ),
    Scenario(
        "S3 throttled",
        "Half of all calls to S3 are answered by 503 SlowDown, for server and jobs.",
        "Nothing but the time it takes.",
        ({"kind": "throttle", "service": "s3", "probability": 0.5},),
    ),
    Scenario(
        "AWS Batch answers 500",
        "Half of all calls to AWS Batch are answered by 500.",
        "Nothing but the time it takes; the server's log says so where it takes longer.",
        ({"kind": "error", "service": "batch", "caller": "client", "probability": 0.5},),
    ),
    Scenario(
        "S3 answers 500",
        "Every third call to S3 is answered by 500, for server and jobs.",
        "Nothing but the time it takes.",
        ({"kind": "error", "service": "s3", "probability": 0.33},),
    ),
    Scenario(
        "S3 answers 409",
        "Every third PutObject is answered by 409 ConditionalRequestConflict, for server and jobs.",
        "Nothing but the time it takes.",
        ({"kind": "conflict", "service": "s3", "operation": "PutObject", "probability": 0.33},),
    ),
    Scenario(
        "S3 is slow",
        "Every call to S3 waits a second, and answers come with 50 kB/s.",
        "Nothing but the time it takes.",
        ({"kind": "slow", "service": "s3", "seconds": 1.0, "bytes_per_s": 50_000},),
    ),
    Scenario(
        "connections to S3 cut",
        "Every fourth call to S3 is cut: before, during, or after it was carried out.",
        "Nothing but the time it takes.",
        (
            {"kind": "cut", "service": "s3", "when": "before", "probability": 0.1},
            {"kind": "cut", "service": "s3", "when": "after", "probability": 0.1},
            {"kind": "cut", "service": "s3", "operation": "GetObject", "when": "during", "probability": 0.2},
        ),
    ),
    Scenario(
        "answers of SubmitJob lost",
        "Every SubmitJob is carried out, and its answer is lost, the first three times.",
        "Nothing: the job is found by its name.",
        ({"kind": "cut", "service": "batch", "operation": "SubmitJob", "when": "after", "count": 3},),
    ),
    Scenario(
        "answers of SubmitJob lost, and the jobs not listed yet",
        "As before, and the new jobs are in DescribeJobs and ListJobs three seconds later only.",
        "Nothing: the job is found by its name.",
        (
            {"kind": "cut", "service": "batch", "operation": "SubmitJob", "when": "after", "count": 3},
            {"kind": "describe_omits", "seconds": 3.0},
        ),
    ),
    Scenario(
        "jobs not described yet",
        "DescribeJobs and ListJobs do not know a new job for five seconds.",
        "The electron's panel comes later.",
        ({"kind": "describe_omits", "seconds": 5.0},),
    ),
    Scenario(
        "answers that repeat and are out of order",
        "DescribeJobs and ListJobs name each job twice, in any order.",
        "Nothing.",
        ({"kind": "repeat", "service": "batch"},),
    ),
    Scenario(
        "answers that lag behind",
        "Half of the answers of DescribeJobs and ListJobs show jobs as they were at an earlier call: time goes back.",
        "A state may be shown that has passed.",
        ({"kind": "stale", "service": "batch", "probability": 0.5},),
    ),
)

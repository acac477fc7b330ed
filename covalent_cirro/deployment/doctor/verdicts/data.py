"""Findings about the bucket and the log group. Pure."""

from __future__ import annotations

import json
from typing import NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.settings import SECTION


class Security(NamedTuple):
    """Encryption and policy of a bucket.

    Attributes:
        encryption: Default encryption, ``"AES256"`` or ``"aws:kms"``; `None` without one.
        tls_only: Whether its policy refuses connections without TLS.
    """

    encryption: str | None
    tls_only: bool


def bucket(name: str, region: str, wanted_region: str) -> Finding:
    """Whether the bucket is in the region of the jobs."""
    if region != wanted_region:
        return Finding(
            "bucket",
            name,
            FAILURE,
            f"it is in {region}, and jobs run in {wanted_region}",
            f"Set s3_bucket_name in [{SECTION}] to a bucket in {wanted_region}: `cirro deploy` makes one.",
        )
    return Finding("bucket", name, OK, f"reachable, in {region}")


def bucket_security(name: str, found: Security) -> Finding:
    """Whether the bucket is encrypted and refuses connections without TLS."""
    lacks = [
        what
        for what, there in (
            ("default encryption", found.encryption),
            ("a policy that refuses connections without TLS", found.tls_only),
        )
        if not there
    ]
    if lacks:
        return Finding(
            "bucket_security", name, WARNING, f"without {' and without '.join(lacks)}", "`cirro deploy` sets both."
        )
    return Finding("bucket_security", name, OK, f"encrypted ({found.encryption}), TLS only")


def log_group(name: str, retention_days: int | None, where: Where) -> Finding:
    """Whether the log group deletes old events."""
    if retention_days is None:
        command = where.aws(f"logs put-retention-policy --log-group-name {name} --retention-in-days 30")
        return Finding("log_group", name, WARNING, "keeps logs for ever, and they cost by the GB", f"`{command}`")
    return Finding("log_group", name, OK, f"keeps logs for {retention_days} days")


def tls_only(policy: str | None) -> bool:
    """Whether a bucket's policy denies calls without TLS."""
    if not policy:
        return False
    statements = json.loads(policy).get("Statement", [])
    statements = statements if isinstance(statements, list) else [statements]
    return any(
        each.get("Effect") == "Deny"
        and str((each.get("Condition") or {}).get("Bool", {}).get("aws:SecureTransport")).lower() == "false"
        for each in statements
    )

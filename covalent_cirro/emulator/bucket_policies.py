"""Has moto's S3 heed ``aws:SecureTransport``: it ignores conditions, so that "deny without TLS" denied everything.

The emulator's loopback stands in for TLS: what AWS asks of a connection's safety is taken as given. Where IAM is
enforced, moto has no say at all.
"""

from __future__ import annotations

import functools
import json
from typing import Any

DECIDED_ELSEWHERE: set[str] = set()
"""Accounts whose bucket policies `iam` evaluates, whole."""


def without_transport_rules(policy: str) -> str:
    """The policy as it holds for a connection that is safe: statements about unsafe ones do not apply."""
    document: dict[str, Any] = json.loads(policy)
    statements = document.get("Statement") or []
    statements = statements if isinstance(statements, list) else [statements]
    document["Statement"] = [statement for statement in statements if not _about_unsafe_transport(statement)]
    return json.dumps(document)


def _about_unsafe_transport(statement: dict[str, Any]) -> bool:
    wanted = (statement.get("Condition") or {}).get("Bool", {}).get("aws:SecureTransport")
    return str(wanted).lower() == "false"


def heed_transport() -> None:
    """Patch moto, once."""
    from moto.iam.access_control import PermissionResult
    from moto.s3.models import FakeBucket

    original = FakeBucket.get_permission
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def get_permission(bucket: Any, action: str, resource: str) -> Any:
        kept = bucket.policy
        if kept is None or bucket.account_id in DECIDED_ELSEWHERE:
            return PermissionResult.NEUTRAL
        bare = without_transport_rules(kept.decode())
        if not json.loads(bare)["Statement"]:
            return PermissionResult.NEUTRAL
        stand_in = type("Policy", (), {"policy": bare.encode()})()
        return original(stand_in, action, resource)

    FakeBucket.get_permission = get_permission

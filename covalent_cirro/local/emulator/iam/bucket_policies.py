"""Takes the say over bucket policies from moto's S3, which ignores their conditions: `iam` decides on them, whole."""

from __future__ import annotations

from typing import Any


def leave_to_iam() -> None:
    """Patch moto, once."""
    from moto.iam.access_control import PermissionResult
    from moto.s3.models import FakeBucket

    def get_permission(bucket: Any, action: str, resource: str) -> Any:
        return PermissionResult.NEUTRAL

    FakeBucket.get_permission = get_permission

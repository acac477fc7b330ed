"""All that reaches into moto from here: roles, logs, events, forgetting an account. Imports moto only when called.

moto's backends live in this process, so these are plain calls; the rest of the emulator must not import moto.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any

from covalent_cirro.emulator.model import Json

PARTITION = "aws"
DEFAULT_LOG_GROUP = "/aws/batch/job"
"""Where jobs without a ``logConfiguration`` log; Batch makes it (User Guide, Job states)."""

_logs = threading.Lock()


class NoSuchLogGroup(Exception):
    """The log group of a job does not exist."""


def assume_role(account: str, region: str, role_arn: str, session: str, duration_s: int) -> Json:
    """Temporary credentials of a role, as the ECS agent hands them to a container."""
    from moto.sts.models import sts_backends

    role = sts_backends[account][PARTITION].assume_role(
        region_name=region,
        role_session_name=session,
        role_arn=role_arn,
        policy="",
        duration=duration_s,
        external_id="",
    )
    return {
        "RoleArn": role_arn,
        "AccessKeyId": role.access_key_id,
        "SecretAccessKey": role.secret_access_key,
        "Token": role.session_token,
        "Expiration": _iso(role.expiration),
    }


def _iso(when: Any) -> str:
    return str(when.strftime("%Y-%m-%dT%H:%M:%SZ"))


def task_role_works(account: str, role_arn: str) -> bool:
    """Whether ECS could assume a role for a task: IAM has it, and it trusts ``ecs-tasks.amazonaws.com``.

    A role of another account is taken on trust.
    """
    from moto.iam.models import iam_backends

    if f"::{account}:" not in role_arn:
        return True
    roles = iam_backends[account][PARTITION].roles.values()
    return any(
        role.arn == role_arn and "ecs-tasks.amazonaws.com" in str(role.assume_role_policy_document) for role in roles
    )


def open_log_stream(account: str, region: str, group: str, stream: str, *, create_group: bool) -> None:
    """Make a log stream.

    Raises:
        NoSuchLogGroup: The group does not exist, and is not to be made.
    """
    from moto.logs.models import logs_backends

    backend = logs_backends[account][region]
    with _logs:
        if group not in backend.groups:
            if not create_group and group != DEFAULT_LOG_GROUP:
                raise NoSuchLogGroup(group)
            backend.ensure_log_group(group)
        backend.ensure_log_stream(group, stream)


def put_log_events(account: str, region: str, group: str, stream: str, events: list[Json]) -> None:
    """Append events (``timestamp`` in ms, ``message``). A group that was deleted meanwhile swallows them."""
    from moto.logs.models import logs_backends

    groups = logs_backends[account][region].groups
    with _logs, contextlib.suppress(Exception):
        groups[group].put_log_events(stream, events)


def wants_events() -> bool:
    """Whether anybody ever used EventBridge here: otherwise no rule can exist."""
    return "moto.events.models" in sys.modules


def put_event(account: str, region: str, detail_type: str, resources: list[str], detail: str, time: str) -> None:
    """An event of source ``aws.batch`` on the default bus."""
    from moto.events.models import events_backends

    backend = events_backends[account][region]
    if not backend.event_buses["default"].rules:
        return
    event = {"Source": "aws.batch", "DetailType": detail_type, "Resources": resources, "Detail": detail, "Time": time}
    backend.put_events([event])


def preload() -> None:
    """Import what nearly every use needs, so that the first call does not wait for it; CloudFormation takes seconds."""
    import moto.iam.models
    import moto.logs.models
    import moto.s3.responses
    import moto.sts.models  # noqa: F401

    from covalent_cirro.emulator import stack_engine

    stack_engine.install()


def forget_account(account: str) -> None:
    """Drop all that moto holds of an account."""
    if "moto.core.base_backend" not in sys.modules:
        return
    from moto.core.base_backend import BackendDict

    for backends in list(BackendDict._instances):
        if account not in list(backends.keys()):
            continue
        for backend in list(backends[account].values()):
            with contextlib.suppress(Exception):
                backend.reset()
        del backends[account]
    if "moto.s3.models" in sys.modules:
        from moto.s3.models import s3_backends

        owners = s3_backends.bucket_accounts
        for bucket in [name for name, (_, owner) in list(owners.items()) if owner == account]:
            del owners[bucket]

"""All that reaches into moto from here: principals, logs, events, forgetting an account. Imports moto only when called.

moto's backends live in this process, so these are plain calls; the rest of the emulator must not import moto.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import threading
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.iam.policies import Principal

PARTITION = "aws"
DEFAULT_LOG_GROUP = "/aws/batch/job"
"""Where jobs without a ``logConfiguration`` log; Batch makes it (User Guide, Job states)."""

IMPORTING = threading.RLock()
"""Held while moto is imported: its packages import each other in circles, which two threads at once see half made."""

_logs = threading.Lock()


class NoSuchLogGroup(Exception):
    """The log group of a job does not exist."""


def assume_role(account: str, region: str, role_arn: str, session: str, duration_s: int) -> Json:
    """Temporary credentials of a role, as the ECS agent hands them to a container."""
    preload()
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
    preload()
    from moto.iam.models import iam_backends

    if f"::{account}:" not in role_arn:
        return True
    roles = iam_backends[account][PARTITION].roles.values()
    return any(
        role.arn == role_arn and "ecs-tasks.amazonaws.com" in str(role.assume_role_policy_document) for role in roles
    )


def secret_of(account: str, access_key: str) -> str | None:
    """The secret of an access key that IAM or STS gave out; `None` for nobody's."""
    preload()
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    for user in list(iam_backends[account][PARTITION].users.values()):
        for key in list(user.access_keys):
            if key.access_key_id == access_key:
                return str(key.secret_access_key)
    for session in reversed(list(sts_backends[account][PARTITION].assumed_roles)):
        if session.access_key_id == access_key:
            return str(session.secret_access_key)
    return None


def principal(account: str, access_key: str) -> Principal | None:
    """The user or role session that IAM or STS gave an access key to, with their policies; `None` for nobody's."""
    preload()
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    iam = iam_backends[account][PARTITION]
    for user in list(iam.users.values()):
        if any(key.access_key_id == access_key for key in list(user.access_keys)):
            return _user(account, user)
    for session in reversed(list(sts_backends[account][PARTITION].assumed_roles)):
        if session.access_key_id == access_key:
            return role_session(account, session.role_arn, session.session_name, session.policy or None)
    return None


def principal_named(account: str, arn: str) -> Principal | None:
    """A user or a role by its own ARN, with its policies; `None` if IAM has neither."""
    preload()
    from moto.iam.models import iam_backends

    iam = iam_backends[account][PARTITION]
    for user in list(iam.users.values()):
        if user.arn == arn:
            return _user(account, user)
    known = any(role.arn == arn for role in list(iam.roles.values()))
    return role_session(account, arn, "session") if known else None


def role_session(account: str, role_arn: str, session: str, policy: str | None = None) -> Principal:
    """A session of a role, with the role's policies as they are now; one of a role that is gone has none."""
    preload()
    from moto.iam.models import iam_backends

    iam = iam_backends[account][PARTITION]
    arn = f"arn:{PARTITION}:sts::{account}:assumed-role/{role_arn.rsplit('/', 1)[-1]}/{session}"
    role = next((role for role in list(iam.roles.values()) if role.arn == role_arn), None)
    boundary = None if role is None else iam.managed_policies.get(role.permissions_boundary_arn or "")
    return Principal(
        arn=arn,
        names=(arn, role_arn),
        account=account,
        identity=() if role is None else _documents(role),
        boundary=None if boundary is None else _document(boundary),
        session=policy,
        context={"aws:PrincipalArn": [role_arn]},
    )


def _user(account: str, user: Any) -> Principal:
    from moto.iam.models import iam_backends

    groups = [group for group in list(iam_backends[account][PARTITION].groups.values()) if user in group.users]
    return Principal(
        arn=user.arn,
        names=(user.arn,),
        account=account,
        identity=tuple(document for holder in (user, *groups) for document in _documents(holder)),
        context={"aws:username": [user.name], "aws:PrincipalArn": [user.arn]},
    )


def _documents(holder: Any) -> tuple[str, ...]:
    """The inline and attached policies of a user, group or role."""
    inline = (each if isinstance(each, str) else json.dumps(each) for each in list(holder.policies.values()))
    return (*inline, *(_document(each) for each in list(holder.managed_policies.values())))


def _document(policy: Any) -> str:
    """The default version of a managed policy."""
    return str(next(version.document for version in list(policy.versions) if version.is_default))


def role_of_instances(account: str, instance_profile: str) -> str | None:
    """The ARN of the role in an instance profile given by name or ARN; `None` if there is none."""
    preload()
    from moto.iam.models import iam_backends

    profiles = list(iam_backends[account][PARTITION].instance_profiles.values())
    name = instance_profile.rsplit("/", 1)[-1]
    return next((str(role.arn) for profile in profiles if profile.name == name for role in profile.roles), None)


def has_role(account: str, name: str) -> bool:
    """Whether IAM has a role of this name."""
    preload()
    from moto.iam.models import iam_backends

    return any(role.name == name for role in list(iam_backends[account][PARTITION].roles.values()))


def make_role(account: str, name: str, path: str, trust: str) -> tuple[str, str]:
    """Make a role; gives its ARN and id."""
    preload()
    from moto.iam.models import iam_backends

    made = iam_backends[account][PARTITION].create_role(
        name, trust, path, permissions_boundary=None, description="", tags=[], max_session_duration="3600"
    )
    return str(made.arn), str(made.id)


def zones(region: str) -> list[str]:
    """Names of a region's availability zones."""
    with IMPORTING:
        from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

    return [zone.name for zone in RegionsAndZonesBackend.zones.get(region, [])]


def user_data(account: str, region: str, launch_template: Json) -> str:
    """The user data in a version of a launch template; empty where the template, the version or the data is not there.

    Args:
        launch_template: As ``computeResources.launchTemplate`` names it.
    """
    with IMPORTING:
        from moto.ec2.exceptions import EC2ClientError
        from moto.ec2.models import ec2_backends

    ec2 = ec2_backends[account][region]
    try:
        template = (
            ec2.get_launch_template(launch_template["launchTemplateId"])
            if launch_template.get("launchTemplateId")
            else ec2.get_launch_template_by_name(launch_template.get("launchTemplateName", ""))
        )
        found = template.get_version(launch_template.get("version") or "$Default").data.get("UserData")
    except EC2ClientError:
        return ""
    return "" if found is None else str(found.decode())


def bucket_policy(bucket: str) -> str | None:
    """The policy of a bucket; `None` if it has none, or there is no such bucket."""
    found = _bucket(bucket)
    return None if found is None or found.policy is None else str(found.policy.decode())


def object_is_missing(bucket: str, key: str) -> bool:
    """Whether a bucket is there, and has no such key."""
    found = _bucket(bucket)
    return found is not None and found.keys.get(key) is None


def _bucket(name: str) -> Any:
    preload()
    from moto.s3.models import s3_backends

    owner = s3_backends.bucket_accounts.get(name)
    return None if owner is None else s3_backends[owner[1]][owner[0]].buckets.get(name)


def open_log_stream(account: str, region: str, group: str, stream: str, *, create_group: bool) -> None:
    """Make a log stream.

    Raises:
        NoSuchLogGroup: The group does not exist, and is not to be made.
    """
    preload()
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


def put_event(account: str, region: str, detail_type: str, resources: list[str], detail: str) -> None:
    """An event of source ``aws.batch`` on the default bus."""
    with IMPORTING:
        from moto.events.models import events_backends

        _whole_envelope()
    backend = events_backends[account][region]
    if backend.event_buses["default"].rules:
        event = {"Source": "aws.batch", "DetailType": detail_type, "Resources": resources, "Detail": detail}
        backend.put_events([event])


def _whole_envelope() -> None:
    """moto's events lack the account (EventBridge Reference, event structure)."""
    from moto.events.utils import EventTemplateParser

    parse: Any = EventTemplateParser.parse
    if hasattr(parse, "__wrapped__"):
        return

    @functools.wraps(parse)
    def whole(input_template: str | None, input_paths_map: Json, event: Any) -> Any:
        made = parse(input_template, input_paths_map, event)
        if not input_template:
            made["account"] = event["account"]
        return made

    setattr(EventTemplateParser, "parse", staticmethod(whole))  # noqa: B010 (mypy refuses the plain form)


def preload() -> None:
    """Import what nearly every use needs. Every use of moto comes after this, or holds `IMPORTING`."""
    with IMPORTING:
        import moto.iam.models
        import moto.logs.models
        import moto.moto_server.werkzeug_app
        import moto.s3.responses
        import moto.sts.models  # noqa: F401


def forget_account(account: str) -> None:
    """Drop all that moto holds of an account."""
    if "moto.core.base_backend" not in sys.modules:
        return
    preload()
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

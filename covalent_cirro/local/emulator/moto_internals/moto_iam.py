"""Reads IAM and STS of moto: users, roles, access keys, their policies; makes roles."""

from __future__ import annotations

import json
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.iam.policies import Principal
from covalent_cirro.local.emulator.moto_internals.loading import PARTITION, once, preload, replace


@once
def install() -> None:
    """Accept both versions of policies: moto refuses the older one where AWS takes it (IAM User Guide, Version)."""
    from moto.iam.policy_validation import VALID_VERSIONS, BaseIAMPolicyValidator

    def validate_version(self: Any) -> None:
        assert self._policy_json["Version"] in VALID_VERSIONS

    replace(BaseIAMPolicyValidator, "_validate_version", validate_version)


def assume_role(account: str, region: str, role_arn: str, session: str, duration_s: int) -> Json:
    """Temporary credentials of a role, in the form in which the ECS agent gives them to a container."""
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

    A role of another account counts as one that works: it cannot be looked up.
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
    """The secret of an access key of IAM or STS; `None` for an unknown key."""
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
    """The user or role session that has an access key, with its policies; `None` for an unknown key."""
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
    """A user or a role by its ARN, with its policies; `None` if IAM has neither."""
    preload()
    from moto.iam.models import iam_backends

    iam = iam_backends[account][PARTITION]
    for user in list(iam.users.values()):
        if user.arn == arn:
            return _user(account, user)
    known = any(role.arn == arn for role in list(iam.roles.values()))
    return role_session(account, arn, "session") if known else None


def role_session(account: str, role_arn: str, session: str, policy: str | None = None) -> Principal:
    """A session of a role, with the role's policies as they are now; a role that was deleted has none."""
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

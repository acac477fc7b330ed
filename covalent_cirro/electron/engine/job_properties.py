"""The option ``job_properties``: checked, and merged over the properties of the container that the executor makes.

What the executor sets itself stays as it is: another value for it is refused, with the option that sets it. Pure;
`aws.container_model` checks the form of the properties first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from covalent_cirro.errors import SettingsError
from covalent_cirro.settings import Settings

OPTION_OF = {
    "image": "container_image_uri",
    "command": "",
    "jobRoleArn": "batch_job_role_name",
    "executionRoleArn": "batch_execution_role_name",
    "resourceRequirements": "vcpu, memory and num_gpus",
    "vcpus": "vcpu",
    "memory": "memory",
    "environment": "environment",
    "secrets": "secrets",
    "logConfiguration": "batch_job_log_group_name",
    "runtimePlatform": "cpu_architecture",
    "linuxParameters.sharedMemorySize": "shared_memory_gb",
    "linuxParameters.initProcessEnabled": "",
}
"""By property, the option that sets it; empty: the executor needs its own value."""

NEVER_GIVEN = frozenset({"vcpus", "memory", "environment", "secrets", "executionRoleArn", "instanceType"})
"""Properties that are set by an option alone, also where that option is not set."""

_JOINED = ("volumes", "mountPoints")
"""Lists to which the executor's own entries are added."""

_ONLY_FARGATE = ("ephemeralStorage", "runtimePlatform", "fargatePlatformConfiguration", "networkConfiguration")
"""API model, ContainerProperties: jobs on EC2 instances must not have them."""

_NEVER_FARGATE = ("privileged", "ulimits", "instanceType")
_NEVER_FARGATE_LINUX = ("devices", "maxSwap", "sharedMemorySize", "swappiness", "tmpfs")
"""API model, ContainerProperties and LinuxParameters: "not applicable to jobs that are running on Fargate"."""

EPHEMERAL_GIB = (21, 200)
"""API model, EphemeralStorage.sizeInGiB."""

WRITABLE = "/tmp"  # noqa: S108 - a folder of the container
"""Where the runner and what it calls (pip, tempfile) write."""


def check(properties: Mapping[str, Any], settings: Settings | None = None) -> None:
    """Refuse properties that have the right form and cannot work.

    Args:
        properties: Value of the option.
        settings: All options, where they are known; `None`: what depends on others is not checked.

    Raises:
        SettingsError: Everything that is wrong with them.
    """
    if wrong := [*_wrong(properties), *_wrong_on(properties, settings)]:
        raise SettingsError(f"job_properties={dict(properties)!r} is not possible: {'. '.join(wrong)}.")


def merged(container: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The properties of a container, with those of ``job_properties``.

    Args:
        container: What the executor makes of its options.
        settings: All options.

    Raises:
        SettingsError: Properties that cannot work, or that the executor sets itself to another value.
    """
    properties = settings.job_properties
    check(properties, settings)
    own = dict(container)
    conflicts: list[str] = []
    for key, value in properties.items():
        if key == "linuxParameters":
            linux = dict(own.get(key) or {})
            for inner, given in value.items():
                _set(linux, inner, given, f"{key}.{inner}", conflicts)
            own[key] = linux
        elif key in _JOINED:
            own[key] = [*own.get(key, []), *(each for each in value if each not in own.get(key, []))]
        else:
            _set(own, key, value, key, conflicts)
    if conflicts:
        raise SettingsError(f"job_properties cannot set what the executor sets: {'; '.join(conflicts)}.")
    if wrong := list(_wrong_volumes(own)) + list(_wrong_root(own)):
        raise SettingsError(f"job_properties is not possible: {'. '.join(wrong)}.")
    return own


def _set(into: dict[str, Any], key: str, value: Any, path: str, conflicts: list[str]) -> None:
    if into.get(key, None if path in NEVER_GIVEN else value) == value:
        into[key] = value
        return
    option = OPTION_OF.get(path)
    remedy = f"set the option {option}" if option else "leave it out"
    conflicts.append(f"{path} is {into.get(key)!r} and not {value!r} ({remedy})")


# --- what cannot work, whatever the other options are -------------------------------------------------------------


def _wrong(properties: Mapping[str, Any]) -> Iterator[str]:
    for each in properties.get("ulimits") or []:
        if -1 < each["hardLimit"] < each["softLimit"]:
            yield f"ulimits: the soft limit of {each['name']}, {each['softLimit']}, is above its hard limit"
    for each in (properties.get("linuxParameters") or {}).get("tmpfs") or []:
        if not each["containerPath"].startswith("/"):
            yield f"linuxParameters.tmpfs: the containerPath {each['containerPath']!r} does not begin with /"
    for volume in properties.get("volumes") or []:
        yield from _wrong_volume(volume)
    storage = (properties.get("ephemeralStorage") or {}).get("sizeInGiB")
    least, most = EPHEMERAL_GIB
    if storage is not None and not least <= storage <= most:
        yield f"ephemeralStorage.sizeInGiB is {storage}, and can be {least} to {most}"


def _wrong_volume(volume: Mapping[str, Any]) -> Iterator[str]:
    name = volume.get("name")
    if not name:
        yield "a volume has no name, by which mountPoints find it"
    kinds = [key for key in volume if key != "name"]
    if len(kinds) > 1:
        yield f"the volume {name} has {' and '.join(kinds)}: a volume is of one kind"
    efs = volume.get("efsVolumeConfiguration")
    if not efs:
        return
    authorization = efs.get("authorizationConfig") or {}
    encrypted = efs.get("transitEncryption") == "ENABLED"
    # API model, EFSAuthorizationConfig and EFSVolumeConfiguration.
    for key, is_set in (
        ("accessPointId", bool(authorization.get("accessPointId"))),
        ("iam", authorization.get("iam") == "ENABLED"),
    ):
        if is_set and not encrypted:
            yield f'the volume {name} has authorizationConfig.{key}, which needs transitEncryption "ENABLED"'
    if authorization.get("accessPointId") and efs.get("rootDirectory", "/") != "/":
        yield f"the volume {name} has an access point and the rootDirectory {efs['rootDirectory']!r}: leave that out"


def _wrong_volumes(container: Mapping[str, Any]) -> Iterator[str]:
    """Volumes and mount points of the whole container."""
    names = [each.get("name") for each in container.get("volumes") or []]
    paths: set[str] = set()
    for name in sorted({each for each in names if names.count(each) > 1}):
        yield f"two volumes are called {name}"
    for point in container.get("mountPoints") or []:
        path = str(point.get("containerPath") or "")
        if not path.startswith("/"):
            yield f"a mount point of {point.get('sourceVolume')} has no containerPath that begins with /"
        elif path in paths:
            yield f"two mount points have the containerPath {path}"
        paths.add(path)
        if point.get("sourceVolume") not in names:
            known = ", ".join(map(str, names)) or "none"
            yield f"the mount point {path} has the sourceVolume {point.get('sourceVolume')!r}; volumes are: {known}"


def _wrong_root(container: Mapping[str, Any]) -> Iterator[str]:
    """A root file system that cannot be written, without another place to write to."""
    if not container.get("readonlyRootFilesystem"):
        return
    tmpfs = (container.get("linuxParameters") or {}).get("tmpfs") or []
    points = [each for each in container.get("mountPoints") or [] if not each.get("readOnly")]
    if WRITABLE not in {str(each.get("containerPath")).rstrip("/") for each in (*tmpfs, *points)}:
        yield (
            f"readonlyRootFilesystem is True, and the runner writes into {WRITABLE}: add linuxParameters="
            f'{{"tmpfs": [{{"containerPath": "{WRITABLE}", "size": 1024}}]}}, whose pages count as memory of the job, '
            f"or a volume with a mount point at {WRITABLE}"
        )


# --- what depends on other options --------------------------------------------------------------------------------


def _wrong_on(properties: Mapping[str, Any], settings: Settings | None) -> Iterator[str]:
    if settings is None:
        return
    if properties.get("repositoryCredentials") and not settings.batch_execution_role_name:
        yield (
            'repositoryCredentials needs the execution role, which reads the secret: batch_execution_role_name is "". '
            "Name a role that may call secretsmanager:GetSecretValue on it"
        )
    linux = properties.get("linuxParameters") or {}
    if settings.platform == "FARGATE":
        names = [key for key in _NEVER_FARGATE if properties.get(key)]
        names += [f"linuxParameters.{key}" for key in _NEVER_FARGATE_LINUX if linux.get(key)]
        names += [f"the host volume {each.get('name')}" for each in properties.get("volumes") or [] if each.get("host")]
        if names:
            yield f'{", ".join(names)}: not possible with platform="FARGATE"'
        return
    names = [key for key in _ONLY_FARGATE if properties.get(key)]
    if names:
        yield f'{", ".join(names)}: for platform="FARGATE" only, and platform is {settings.platform!r}'

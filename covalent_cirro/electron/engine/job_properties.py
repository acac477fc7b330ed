"""The option ``job_properties``: checked, and merged over the properties of the container that the executor makes.

What the executor sets itself stays as it is: another value for it is refused, with the option that sets it. Pure;
`aws.container_model` checks the form of the properties first.

All is checked before the job definition is registered, and, as far as the options are known there, where the executor
is made: ``known`` has the names of those that are. A rule that another option may still change waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs.job_extras import SHARED_VOLUME
from covalent_cirro.settings import Settings
from covalent_cirro.settings.constants import MIB_PER_GB

OPTIONS_OF: dict[str, tuple[str, ...]] = {
    "image": ("container_image_uri",),
    "command": (),
    "jobRoleArn": ("batch_job_role_name",),
    "executionRoleArn": ("batch_execution_role_name",),
    "resourceRequirements": ("vcpu", "memory", "num_gpus"),
    "vcpus": ("vcpu",),
    "memory": ("memory",),
    "environment": ("environment",),
    "secrets": ("secrets",),
    "logConfiguration": ("batch_job_log_group_name",),
    "runtimePlatform": ("cpu_architecture",),
    "runtimePlatform.operatingSystemFamily": (),
    "linuxParameters.sharedMemorySize": ("shared_memory_gb",),
    "linuxParameters.initProcessEnabled": (),
}
"""By property, the options that set it; none: the executor needs its own value."""

NEVER_GIVEN = frozenset({"vcpus", "memory", "environment", "secrets", "executionRoleArn", "instanceType"})
"""Properties that are set by an option alone, also where that option is not set."""

_OF_THE_ACCOUNT = ("jobRoleArn", "executionRoleArn", "logConfiguration", "networkConfiguration")
"""Properties that the executor makes of what the account says: they are not known where the executor is made."""

_JOINED = ("volumes", "mountPoints")
"""Lists to which the executor's own entries are added."""

_ONLY_FARGATE = ("ephemeralStorage", "runtimePlatform", "fargatePlatformConfiguration", "networkConfiguration")
"""API model, ContainerProperties: jobs on EC2 instances must not have them."""

_NEVER_FARGATE = ("privileged", "ulimits", "instanceType")
_NEVER_FARGATE_LINUX = ("devices", "maxSwap", "sharedMemorySize", "swappiness", "tmpfs")
"""API model, ContainerProperties and LinuxParameters: "not applicable to jobs that are running on Fargate"."""

EPHEMERAL_GIB = (21, 200)
"""API model, EphemeralStorage.sizeInGiB."""

MOST_SWAPPINESS = 100
"""API model, LinuxParameters.swappiness."""

_ULIMITS = frozenset(
    {
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
        *("rttime", "sigpending", "stack"),
    }
)
"""API model, Ulimit.name. Docker starts no container with another."""

_TMPFS_OPTIONS = frozenset(
    {
        *("defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync"),
        *("remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "bind", "rbind", "unbindable"),
        *("runbindable", "private", "rprivate", "shared", "rshared", "slave", "rslave", "relatime", "norelatime"),
        *("strictatime", "nostrictatime", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"),
    }
)
"""API model, Tmpfs.mountOptions; some take a value, ``mode=1777``."""

WRITABLE = "/tmp"  # noqa: S108 - a folder of the container
"""Where the runner and what it calls (pip, tempfile) write."""


def merged(container: Mapping[str, Any], settings: Settings, known: Collection[str] | None = None) -> dict[str, Any]:
    """The properties of a container, with those of ``job_properties``.

    Args:
        container: What the executor makes of its options.
        settings: All options.
        known: Names of those whose values are known; others have a default, which the Covalent server may replace.
            `None`: all are, and so is the account.

    Raises:
        SettingsError: Properties that cannot work, or that the executor sets itself to another value.
    """
    properties = settings.job_properties
    if wrong := [*_wrong(properties), *_wrong_on(properties, settings, known)]:
        raise SettingsError(f"job_properties={dict(properties)!r} is not possible: {'. '.join(wrong)}.")
    conflicts: list[str] = []
    own = {**container, **_merged(container, properties, "", known, conflicts)}
    if conflicts:
        raise SettingsError(f"job_properties cannot set what the executor sets: {'; '.join(conflicts)}.")
    # The deployment's shared files are a volume, too.
    more = () if _is_known("shared_files", known) else (SHARED_VOLUME,)
    if wrong := [*_wrong_volumes(own, more), *_wrong_places(own), *_wrong_root(own)]:
        raise SettingsError(f"job_properties is not possible: {'. '.join(wrong)}.")
    return own


def _merged(
    own: Mapping[str, Any], given: Mapping[str, Any], path: str, known: Collection[str] | None, conflicts: list[str]
) -> dict[str, Any]:
    """Properties of one level, with those that are given, and what is in them."""
    found = dict(own)
    for key, value in given.items():
        inner = f"{path}.{key}" if path else key
        if inner in _JOINED:
            found[key] = [*own.get(key, []), *(each for each in value if each not in own.get(key, []))]
        elif isinstance(value, Mapping):
            found[key] = _merged(own.get(key) or {}, value, inner, known, conflicts)
        else:
            found[key] = value
            if own.get(key, None if inner in NEVER_GIVEN else value) != value and _is_decided(inner, known):
                conflicts.append(_conflict(inner, own.get(key), value))
    return found


def _is_known(option: str, known: Collection[str] | None) -> bool:
    return known is None or option in known


def _is_decided(path: str, known: Collection[str] | None) -> bool:
    """Whether the executor's own value of a property is the one that the job will have."""
    if known is None or (path in NEVER_GIVEN and path not in _OF_THE_ACCOUNT):
        return True
    return not path.startswith(_OF_THE_ACCOUNT) and all(option in known for option in _options_of(path))


def _conflict(path: str, own: Any, given: Any) -> str:
    options = _options_of(path)
    *others, last = options or ("",)
    names = f"{', '.join(others)} and {last}" if others else last
    remedy = f"set the option {names}" if options else "leave it out"
    return f"{path} is {own!r} and not {given!r} ({remedy})"


def _options_of(path: str) -> tuple[str, ...]:
    """The options that set a property, or the one that it is in."""
    return next((OPTIONS_OF[each] for each in (path, path.partition(".")[0]) if each in OPTIONS_OF), ())


# --- what cannot work, whatever the other options are -------------------------------------------------------------


def _wrong(properties: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrong_ulimits(properties.get("ulimits") or [])
    yield from _wrong_linux(properties.get("linuxParameters") or {})
    for volume in properties.get("volumes") or []:
        yield from _wrong_volume(volume)
    storage = (properties.get("ephemeralStorage") or {}).get("sizeInGiB")
    least, most = EPHEMERAL_GIB
    if storage is not None and not least <= storage <= most:
        yield f"ephemeralStorage.sizeInGiB is {storage}, and can be {least} to {most}"


def _wrong_ulimits(ulimits: list[Mapping[str, Any]]) -> Iterator[str]:
    for name in _repeated(each["name"] for each in ulimits):
        yield f"ulimits: {name} is given twice"
    for each in ulimits:
        name, soft, hard = each["name"], each["softLimit"], each["hardLimit"]
        if name not in _ULIMITS:
            yield f"ulimits: there is no limit {name!r}; there are {', '.join(sorted(_ULIMITS))}"
        elif min(soft, hard) < -1:
            yield f"ulimits: a limit of {name} is {min(soft, hard)}, and can be -1 (without a limit) or from 0"
        elif hard != -1 and (soft == -1 or soft > hard):
            yield f"ulimits: the soft limit of {name}, {soft}, is above its hard limit, {hard} (-1 is without a limit)"


def _wrong_linux(linux: Mapping[str, Any]) -> Iterator[str]:
    for each in linux.get("tmpfs") or []:
        path = each["containerPath"]
        if not path.startswith("/"):
            yield f"linuxParameters.tmpfs: the containerPath {path!r} does not begin with /"
        if each["size"] < 1:
            yield f"linuxParameters.tmpfs: the size of {path} is {each['size']}, and can be from 1 (MiB)"
        for option in each.get("mountOptions") or []:
            if option.partition("=")[0] not in _TMPFS_OPTIONS:
                known = ", ".join(sorted(_TMPFS_OPTIONS))
                yield f"linuxParameters.tmpfs: {path} has the option {option!r}; there are {known}"
    swap, swappiness = linux.get("maxSwap"), linux.get("swappiness")
    if swap is not None and swap < 0:
        yield f"linuxParameters.maxSwap is {swap}, and can be from 0 (MiB)"
    if swappiness is not None and not 0 <= swappiness <= MOST_SWAPPINESS:
        yield f"linuxParameters.swappiness is {swappiness}, and can be 0 to {MOST_SWAPPINESS}"
    if swappiness is not None and swap is None:
        yield "linuxParameters.swappiness has no effect without maxSwap: set that too"


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


def _wrong_volumes(container: Mapping[str, Any], more: tuple[str, ...]) -> Iterator[str]:
    """Volumes of the whole container, and mount points of volumes that there are not; ``more`` may be there as well."""
    names = [str(each.get("name")) for each in container.get("volumes") or []]
    for name in _repeated(names):
        ours = ", as that of shared_files is" if name == SHARED_VOLUME else ""
        yield f"two volumes are called {name}{ours}"
    for point in container.get("mountPoints") or []:
        path, volume = str(point.get("containerPath") or ""), point.get("sourceVolume")
        if not path.startswith("/"):
            yield f"a mount point of {volume} has no containerPath that begins with /"
        if volume not in (*names, *more):
            yield f"the mount point {path} has the sourceVolume {volume!r}; volumes are: {', '.join(names) or 'none'}"


def _wrong_places(container: Mapping[str, Any]) -> Iterator[str]:
    """Paths of the container at which Docker would have to mount two things, or cannot mount one."""
    mounted = [*(container.get("mountPoints") or []), *((container.get("linuxParameters") or {}).get("tmpfs") or [])]
    paths = [str(each.get("containerPath") or "") for each in mounted]
    places = ["/" + "/".join(part for part in path.split("/") if part not in ("", ".")) for path in paths if path]
    for place in _repeated(places):
        yield f"two mount points or tmpfs have the containerPath {place}"
    if "/" in places:
        yield "nothing can be mounted at /, where the image is"


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _wrong_root(container: Mapping[str, Any]) -> Iterator[str]:
    """A root file system that cannot be written, without another place to write to."""
    if not container.get("readonlyRootFilesystem"):
        return
    every = (container.get("linuxParameters") or {}).get("tmpfs") or []
    tmpfs = [each for each in every if "ro" not in (each.get("mountOptions") or [])]
    points = [each for each in container.get("mountPoints") or [] if not each.get("readOnly")]
    if WRITABLE not in {str(each.get("containerPath")).rstrip("/") for each in (*tmpfs, *points)}:
        yield (
            f"readonlyRootFilesystem is True, and the runner writes into {WRITABLE}: add linuxParameters="
            f'{{"tmpfs": [{{"containerPath": "{WRITABLE}", "size": 1024}}]}}, whose pages count as memory of the job, '
            f"or a volume with a mount point at {WRITABLE}"
        )


# --- what depends on other options --------------------------------------------------------------------------------


def _wrong_on(properties: Mapping[str, Any], settings: Settings, known: Collection[str] | None) -> Iterator[str]:
    if properties.get("repositoryCredentials") and not settings.batch_execution_role_name:
        yield (
            'repositoryCredentials needs the execution role, which reads the secret: batch_execution_role_name is "". '
            "Name a role that may call secretsmanager:GetSecretValue on it"
        )
    linux = properties.get("linuxParameters") or {}
    if settings.on_fargate:
        names = [key for key in _NEVER_FARGATE if properties.get(key)]
        names += [f"linuxParameters.{key}" for key in _NEVER_FARGATE_LINUX if linux.get(key) not in (None, [])]
        names += [f"the host volume {each.get('name')}" for each in properties.get("volumes") or [] if each.get("host")]
        if names:
            yield f'{", ".join(names)}: not possible with platform="FARGATE"'
        return
    names = [key for key in _ONLY_FARGATE if properties.get(key)]
    if names and _is_known("platform", known):
        yield f'{", ".join(names)}: for platform="FARGATE" only, and platform is {settings.platform!r}'
    most_mib = int(max(settings.memory, settings.memory_max or 0) * MIB_PER_GB)
    for each in linux.get("tmpfs") or []:
        if each["size"] > most_mib and _is_known("memory", known):
            yield (
                f"linuxParameters.tmpfs: the size of {each['containerPath']} is {each['size']} MiB, and the job has "
                f"memory={settings.memory:g} ({most_mib} MiB), of which pages of a tmpfs are a part"
            )

"""Whether jobs can mount the files that they share. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from covalent_cirro.deployment.doctor.verdicts.network import Subnet
from covalent_cirro.jobs.findings import FAILURE, OK, Finding, Where

CHECK = "shared_files"


class FileSystem(NamedTuple):
    """A file system of EFS.

    Attributes:
        id: Its id.
        state: Its state, ``"available"``; empty: it does not exist.
        size_bytes: What is stored in it.
        access_points: Ids of its access points.
        zones: Zones in which it has a mount target that is available.
    """

    id: str
    state: str
    size_bytes: int
    access_points: tuple[str, ...]
    zones: frozenset[str]


def shared_files(found: FileSystem, access_point: str, subnets: Sequence[Subnet], where: Where) -> Finding:
    """Whether the file system and its access point are there, with a mount target where instances may start.

    Args:
        found: The file system of the option shared_files.
        access_point: Its access point.
        subnets: Subnets of the compute environments.
        where: The deployment, for remedies.
    """
    remedy = (
        f"`{where.cirro('deploy --parameter SharedFileSystem=true')}` makes what is missing; with a file system of "
        "your own, correct the option shared_files."
    )
    absent = sorted({subnet.zone for subnet in subnets} - found.zones)
    if not found.state:
        seen = f"there is no file system {found.id} in {where.region}"
    elif found.state != "available":
        seen = f"the file system {found.id} is {found.state}"
    elif access_point not in found.access_points:
        seen = f"the file system {found.id} has no access point {access_point}"
    elif absent:
        seen = f"the file system {found.id} has no mount target in {', '.join(absent)}, where jobs may run"
    else:
        zones = ", ".join(sorted(found.zones))
        return Finding(CHECK, found.id, OK, f"{found.size_bytes / 1e9:.1f} GB, with mount targets in {zones}")
    return Finding(CHECK, found.id, FAILURE, f"{seen}: jobs do not start", remedy)

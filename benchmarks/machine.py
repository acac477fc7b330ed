"""What the figures were taken on: versions, processor, memory. No host name, no path, no user."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

PACKAGES = ("covalent-cirro", "covalent", "covalent-awsbatch-plugin", "covalent-aws-plugins")
LIBRARIES = ("aiobotocore", "boto3", "awscrt", "cloudpickle", "moto", "sqlalchemy")


def facts() -> dict[str, str]:
    """Name and value, for the page."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, {processor()}, {memory_gib():.0f} GiB memory",
        "system": f"{platform.system()} {kernel(platform.release())}, Python {platform.python_version()}",
        "packages": versions(PACKAGES),
        "libraries": versions(LIBRARIES),
    }


def versions(names: tuple[str, ...]) -> str:
    """``name 1.2, other 3.4``."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def processor() -> str:
    """Model of the processor, as far as the system says it."""
    try:
        return model(Path("/proc/cpuinfo").read_text())
    except OSError:
        return platform.processor() or platform.machine()


def model(cpuinfo: str) -> str:
    """The model in the text of ``/proc/cpuinfo``; the architecture where it has none (Arm)."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()


def kernel(release: str) -> str:
    """Version without the build's name: that may say whose machine it is."""
    return release.split("-", maxsplit=1)[0]


def memory_gib() -> float:
    """Memory of the machine."""
    import psutil

    return float(psutil.virtual_memory().total) / 2**30

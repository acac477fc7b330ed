"""Makes a Python for one attempt that runs as a process: all packages of this Python, and a place of its own for more.

What pip installs in a container is gone with the container. In a process, pip would change this environment, which is
the user's: a script would find the package here, and not on AWS. It must not know jobs.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

_SHARED = "_cirro_shared.pth"
"""A line of Python in a file of this ending is run at the start of the interpreter (docs.python.org, site)."""


def make(folder: Path) -> Path:
    """Make a virtual environment without pip, which finds the packages of this Python.

    pip, which is one of these packages, installs into the virtual environment, and keeps its hands off the packages
    that are elsewhere ("outside environment").

    Args:
        folder: The folder to be made.

    Returns:
        The folder of its programs, for the PATH.
    """
    base = Path(getattr(sys, "_base_executable", sys.executable))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    programs, packages = folder / "bin", folder / "lib" / version / "site-packages"
    for path in (programs, packages):
        path.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {sys.version.split()[0]}\n"
    )
    for name in ("python", "python3", version):
        (programs / name).symlink_to(base)
    searched = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    shared = [path for path in searched if os.path.isdir(path)]
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in shared)
    (packages / _SHARED).write_text(lines)
    settings = Path(sys.prefix) / "pip.conf"
    if settings.is_file():  # pip's settings of this environment, such as another index
        (folder / "pip.conf").symlink_to(settings)
    return programs

"""Emulates a full disk for processes, which have no disk of their own: Python in them gets ENOSPC where it would write.

It must not know jobs, nor when the fault hits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

_HOOK = """\
import errno, os, sys, time

def _full(event, args, root={root!r}):
    if event == "open":
        writes = args[2] is not None and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    else:
        writes = event == "os.mkdir"
    if writes and isinstance(args[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(args[0]))
        if path.startswith(root) and ({is_full}):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

sys.addaudithook(_full)
"""
"""Every Python process runs it at its start (docs.python.org, site: sitecustomize); its children inherit it."""


def fill(folder: Path, after_s: float, environment: Mapping[str, str]) -> dict[str, str]:
    """Make the disk of a process full: its working folder, and ``TMPDIR``, which becomes a folder in it.

    Args:
        folder: Its working folder.
        after_s: Seconds from now until it is full.
        environment: Its environment.

    Returns:
        The environment to give it.
    """
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    filled = fill_when(folder, f"time.time() >= {time.time() + after_s!r}", folder / ".full-disk", environment)
    return {**filled, "TMPDIR": str(temporary)}


def fill_when(folder: Path, is_full: str, hook: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Make a folder's disk full for a process and those that it starts, while a condition holds.

    Args:
        folder: The folder; nothing outside of it is full.
        is_full: The condition, an expression of Python with `os`, `time` and the ``path`` that is to be written.
        hook: A folder to be made, outside of ``folder`` or full with it.
        environment: Its environment.

    Returns:
        The environment to give it.
    """
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_HOOK.format(root=f"{folder}/", is_full=is_full))
    path = ":".join(filter(None, (str(hook), environment.get("PYTHONPATH"))))
    return {**environment, "PYTHONPATH": path}

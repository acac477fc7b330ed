"""A disk that is full, for jobs that are processes: Python in them gets ENOSPC where it would write.

A process has no disk of its own that could be filled. It must not know jobs, nor when the fault is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

_HOOK = """\
import errno, os, sys, time

def _full(event, args, root={root!r}, at={at!r}):
    if event == "open":
        writes = args[2] is not None and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    else:
        writes = event == "os.mkdir"
    if writes and time.time() >= at and isinstance(args[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(args[0]))
        if path.startswith(root):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

sys.addaudithook(_full)
"""
"""Every process of Python runs it at its start (docs.python.org, site: sitecustomize), and its children inherit it."""


def fill(folder: Path, after_s: float, environment: Mapping[str, str]) -> dict[str, str]:
    """Make the disk of a process full: its working folder, and ``TMPDIR``, which is put below it.

    Args:
        folder: Its working folder.
        after_s: Seconds from now on in which there still is space.
        environment: Its environment.

    Returns:
        The environment to give it.
    """
    hook, temporary = folder / ".full-disk", folder / "tmp"
    hook.mkdir()
    temporary.mkdir(exist_ok=True)
    text = _HOOK.format(root=f"{folder}/", at=time.time() + after_s)
    (hook / "sitecustomize.py").write_text(text)
    path = ":".join(filter(None, (str(hook), environment.get("PYTHONPATH"))))
    return {**environment, "PYTHONPATH": path, "TMPDIR": str(temporary)}

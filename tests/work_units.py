"""Which tests run in one process, one after the other: how pytest-xdist shares them out.

A file is one unit of work, so that what its fixtures make is made once. Files that use the same local stack, which
takes seconds of processor time to start, are one unit together.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

SHARED = {
    **dict.fromkeys(("aws_calls", "maps", "soak", "page"), "calls under faults"),
    **dict.fromkeys(("documents", "machines", "servers", "storage"), "machines and servers under faults"),
}
"""Unit of each file of tests/faults: each of the two starts a stack that it breaks."""

BUILD_IMAGES = (
    "tests/images/test_pushed.py",
    "tests/images/test_real_images.py",
    "tests/images/test_serve_image.py",
    "tests/emulator/test_ci_push.py",
)
"""Files that build images with the same engine: podman 4.3 panics where one build removes what another one looks at."""

OF_THEIR_OWN = ("resume", "sweep")
"""Files of tests/covalent that do not use the stack of the others."""


class Scheduler(LoadScopeScheduling):
    """Hands each process one unit of work after the other, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """The unit of work that a test belongs to.

    Args:
        nodeid: Of the test, as pytest writes it: ``tests/unit/test_jobs.py::test_a_name``.
    """
    path = nodeid.partition("::")[0]
    folder, _, file = path.rpartition("/")
    name = file.removeprefix("test_").removesuffix(".py")
    if path in BUILD_IMAGES:
        return "images"
    if folder == "tests/faults":
        return SHARED[name]
    return folder if folder == "tests/covalent" and name not in OF_THEIR_OWN else path

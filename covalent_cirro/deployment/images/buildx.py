"""Builds images with Docker's builder BuildKit, by the program ``docker buildx build``. Knows nothing of jobs.

The engine's API, which Docker's SDK uses, has the legacy builder only. On Docker 29, whose images are in containerd's
store, the legacy builder loses an image's platform (moby/moby#47823), and some of its images cannot be pushed
(moby/moby#51665).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

LAST_LINES = 20
"""Lines of a failed step's output that are kept."""

_DEFAULT_HOST = "unix:///var/run/docker.sock"
"""The engine of Docker's SDK where ``DOCKER_HOST`` is not set; the program's context may name another."""

_STEP = re.compile(r"#(?P<step>\d+) \[[^\]]*\] (?P<instruction>[A-Z]+ .*)")
_FAILED = re.compile(r"#(?P<step>\d+) ERROR: (?P<why>.*)")
_OUTPUT = re.compile(r"#(?P<step>\d+) (?:\d+\.\d+ )(?P<line>.*)")
"""Lines of ``--progress=plain``: a step, its failure, and its output (moby/buildkit, progressui)."""

_OVER = "ERROR: "


class Failed(Exception):
    """The build failed.

    Attributes:
        step: The instruction that failed; empty if no instruction failed.
        lines: The last lines of its output.
        why: The builder's message.
    """

    def __init__(self, step: str, lines: Iterable[str], why: str) -> None:
        super().__init__(why)
        self.step = step
        self.lines = tuple(lines)
        self.why = why


def program() -> str | None:
    """Path of the ``docker`` program, if it has the builder; `None` otherwise."""
    found = shutil.which("docker")
    if found is None:
        return None
    asked = subprocess.run([found, "buildx", "version"], capture_output=True, check=False)
    return found if asked.returncode == 0 else None


def build(
    docker: str,
    context: Path,
    dockerfile: str,
    tag: str,
    *,
    platform: str,
    arguments: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Build an image, into the engine that Docker's SDK talks to.

    Args:
        docker: Path of the program.
        context: Folder with all files that the Dockerfile copies.
        dockerfile: Path of the Dockerfile in the context.
        tag: Name of the image.
        platform: Platform of the image, ``linux/amd64``.
        arguments: Build arguments. They may be secret: they are passed by the environment, which no other user sees.
        say: Called with each step that runs a command.

    Raises:
        Failed: A step failed.
    """
    command = [
        *(docker, "buildx", "build"),
        # The engine's builder: another builder would not see the images of this machine.
        *("--builder", "default"),
        *("--platform", platform),
        # With an attestation the result would be a list of images.
        "--provenance=false",
        "--load",
        "--progress=plain",
        *("--file", str(context / dockerfile)),
        *("--tag", tag),
        *(word for name in arguments for word in ("--build-arg", name)),
        str(context),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_CONTEXT"}
    environment.setdefault("DOCKER_HOST", _DEFAULT_HOST)
    with subprocess.Popen(
        command,
        env={**environment, **arguments},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None
        try:
            failed = follow(process.stderr, say)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise failed


def follow(lines: Iterable[str], say: Callable[[str], None]) -> Failed:
    """Read the builder's output to its end.

    Args:
        lines: Lines of its stderr.
        say: Called with each step that runs a command.

    Returns:
        Why the build failed, if it failed.
    """
    steps: dict[str, str] = {}
    written: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=LAST_LINES))
    every: deque[str] = deque(maxlen=LAST_LINES)
    step, why = "", ""
    for raw in lines:
        line = raw.rstrip()
        every.append(line)
        begun, broken, output = _STEP.fullmatch(line), _FAILED.fullmatch(line), _OUTPUT.fullmatch(line)
        if begun is not None and begun["step"] not in steps:
            steps[begun["step"]] = begun["instruction"]
            if begun["instruction"].startswith("RUN "):  # other instructions take no time and write nothing
                say(begun["instruction"])
        elif broken is not None:
            step, why = broken["step"], broken["why"]
        elif output is not None:
            written[output["step"]].append(output["line"])
        elif line.startswith(_OVER):
            why = line.removeprefix(_OVER)
    if steps.get(step):
        return Failed(steps[step], written[step], why)
    return Failed("", [] if why else every, why or "it said no more")

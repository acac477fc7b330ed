"""Docker's own builder, by its program: ``docker buildx build``. Must not know what images are for.

The engine's API, which Docker's SDK speaks, has the legacy builder only. On Docker 29, whose images lie in containerd's
store, that one loses the platform of an image (moby/moby#47823) and makes some that cannot be pushed (moby/moby#51665).
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
"""Lines of a failed step that are told."""

_DEFAULT_HOST = "unix:///var/run/docker.sock"
"""Where Docker's SDK looks for the engine where ``DOCKER_HOST`` says nothing; the program's context may be another."""

_STEP = re.compile(r"#(?P<step>\d+) \[[^\]]*\] (?P<instruction>[A-Z]+ .*)")
_FAILED = re.compile(r"#(?P<step>\d+) ERROR: (?P<why>.*)")
_OUTPUT = re.compile(r"#(?P<step>\d+) (?:\d+\.\d+ )(?P<line>.*)")
"""How ``--progress=plain`` tells what a step is, that it failed, and what it writes (moby/buildkit, progressui)."""

_OVER = "ERROR: "


class Failed(Exception):
    """The build failed.

    Attributes:
        step: The instruction that failed; empty where it was none.
        lines: The last that it wrote.
        why: In the builder's words.
    """

    def __init__(self, step: str, lines: Iterable[str], why: str) -> None:
        super().__init__(why)
        self.step = step
        self.lines = tuple(lines)
        self.why = why


def program() -> str | None:
    """The ``docker`` program, if it has the builder; `None` otherwise."""
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
        docker: The program.
        context: Folder with all that the Dockerfile copies.
        dockerfile: Path below the context.
        tag: Its name.
        platform: ``linux/amd64``.
        arguments: Build arguments. What they say may be secret: it goes by the environment, which no list of processes
            shows.
        say: Called with each step that runs something.

    Raises:
        Failed: A step failed.
    """
    command = [
        *(docker, "buildx", "build"),
        # The engine's own builder: another one would not see the images that are here.
        *("--builder", "default"),
        *("--platform", platform),
        # What a build says of itself would make a list of images out of one.
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
    """Read what the builder says to its end.

    Args:
        lines: Of its stderr.
        say: Called with each step that runs something.

    Returns:
        Why it failed, if it did.
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
            if begun["instruction"].startswith("RUN "):  # the others take no time and write nothing
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

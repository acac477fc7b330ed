"""What a job that is a process installs is its own, as in a container."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from covalent_cirro.local.emulator.attempts.runtime import ImageConfig
from tests.tiny_wheel import wheel

INSTALL_AND_SAY = """
import json, subprocess, sys
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", *sys.argv[1:]], check=True)
import cloudpickle, tinyowned
print(json.dumps([tinyowned.__file__, cloudpickle.__file__, cloudpickle.__version__, sys.executable]))
"""


def test_packages_of_a_job_are_gone_with_it(aws: Any, poll: Any, tmp_path: Path) -> None:
    """The user's own environment does not get them, nor does another job."""
    built = wheel(tmp_path, "tinyowned")
    job = aws.done(aws.submit("python", "-c", INSTALL_AND_SAY, str(built)))
    assert job["status"] == "SUCCEEDED", aws.log(job)
    own, shared, _, python = json.loads(aws.log(job)[-1])
    assert own.startswith(str(aws.emulator.state_dir))
    assert shared == importlib.util.find_spec("cloudpickle").origin  # type: ignore[union-attr]
    poll(lambda: not Path(own).exists() and not Path(python).exists(), "the job's Python to be removed")
    assert importlib.util.find_spec("tinyowned") is None
    other = aws.done(aws.submit("python", "-c", "import tinyowned"))
    assert "No module named 'tinyowned'" in aws.log(other)[-1]


def test_another_version_of_a_package_hides_the_shared_one(aws: Any, tmp_path: Path) -> None:
    """In this job alone; pip leaves the shared one where it is."""
    built, shared = wheel(tmp_path, "cloudpickle"), importlib.util.find_spec("cloudpickle")
    assert shared is not None
    say = INSTALL_AND_SAY.replace("cloudpickle, tinyowned", "cloudpickle").replace("tinyowned.__file__", "None")
    job = aws.done(aws.submit("python", "-c", say.replace(".__version__", ".VALUE"), str(built)))
    assert job["status"] == "SUCCEEDED", aws.log(job)
    _, found, value, _ = json.loads(aws.log(job)[-1])
    assert (found == shared.origin, value) == (False, 5)
    assert shared.origin is not None
    assert Path(shared.origin).exists()


def test_an_image_gives_its_entrypoint_command_and_variables(aws: Any) -> None:
    """As a container gets them: the job's own command takes the place of the image's, its variables have priority."""
    say = ("python", "-c", "import os, sys; print(sys.argv[1:], os.environ['A'], os.environ['B'])")
    aws.emulator.image_configs["told"] = ImageConfig(say, ("of", "image"), {"A": "image", "B": "image"})
    job_variables = [{"name": "B", "value": "job"}]
    queue = aws.queue()
    for command, seen in (([], "['of', 'image']"), (["own"], "['own']")):
        definition = aws.definition(*command, image="told", environment=job_variables)
        assert aws.log(aws.done(aws.submit(queue=queue, definition=definition))) == [f"{seen} image job"]

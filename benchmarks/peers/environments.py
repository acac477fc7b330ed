"""The virtual environment of each tool, made once under ``build/``, which git ignores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "build" / "peers"


class NotInstalled(Exception):
    """A tool could not be installed."""


def python_of(name: str, packages: Sequence[str], say: Callable[[str], None], folder: Path = FOLDER) -> Path:
    """The Python of a tool's environment, which is made where it is not there with these packages.

    Args:
        name: Of the tool.
        packages: What pip installs; none: the environment of this process.
        say: Told what takes long.
        folder: Where environments are.

    Raises:
        NotInstalled: pip failed, with the end of what it said.
    """
    if not packages:
        return Path(sys.executable)
    home = folder / name
    python, done = home / "bin" / "python", home / "installed.txt"
    asked = "\n".join(packages)
    if done.is_file() and done.read_text() == asked:
        return python
    say(f"installing {' '.join(packages)}")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
        # Without bytecode each of some hundred jobs would compile the tool anew.
        [str(python), "-m", "compileall", "-q", str(home / "lib")],
    ):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode and command[2] != "compileall":
            raise NotInstalled(f"{' '.join(command)} failed:\n{(ended.stdout + ended.stderr)[-2000:]}")
    done.write_text(asked)
    return python

"""What jobs of the stock plugin run on the emulated AWS, which does not pull its image."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

WITHOUT_PLUGINS = """\
import importlib.metadata as _metadata
_all = _metadata.entry_points
_metadata.entry_points = lambda **asked: () if "executor" in asked.get("group", "") else _all(**asked)
"""
"""The stock image has Covalent and no plugin (Dockerfile of covalent-aws-plugins); this environment has some."""


def command(folder: Path) -> list[str]:
    """The image's command: the plugin's own ``exec.py``, which wants a folder ``/covalent``.

    Args:
        folder: Where the script is written that has the job's folder in its place.
    """
    found = find_spec("covalent_aws_plugins")
    assert found is not None
    assert found.submodule_search_locations
    source = (Path(found.submodule_search_locations[0]) / "exec.py").read_text()
    script = folder / "exec.py"
    script.write_text(WITHOUT_PLUGINS + source.replace('"/covalent"', '"."'))
    return [sys.executable, str(script)]

"""The Covalent server of a local stack keeps to its own folder, and its dispatches stay with the local stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import toml

from covalent_cirro.local import covalent_process

PRINT_CONFIG = """
import json
import covalent as ct
from covalent._shared_files.defaults import get_default_executor
print("CONFIG" + json.dumps(ct.get_config()))
print("EXECUTOR" + get_default_executor())
"""


def leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """All values of nested sections, with their dotted names."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def test_the_config_file(tmp_path: Path) -> None:
    """Values of each type arrive as they were; `None` is left out, and no other section is touched."""
    settings = {"s3_bucket_name": 'a "quoted" name', "vcpu": 2, "memory": 3.75, "flag": True, "profile": None}
    file = covalent_process.write_config(tmp_path, port=4321, executors={"cirro": settings})
    config = toml.loads(file.read_text())
    assert config["dispatcher"]["port"] == config["user_interface"]["port"] == 4321
    assert config["executors"]["cirro"] == {key: settings[key] for key in settings if key != "profile"}


def test_covalent_keeps_to_the_folder(tmp_path: Path) -> None:
    """With this config no path of Covalent's own lies in the user's home, and there is no Dask cluster to look for."""
    folder, home = tmp_path / "covalent", tmp_path / "home"
    home.mkdir()
    covalent_process.write_config(folder, port=4321, executors={})
    environment = {**os.environ, **covalent_process.client_environment(folder), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_CONFIG], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    lines = done.stdout.splitlines()
    config = json.loads(next(line for line in lines if line.startswith("CONFIG")).removeprefix("CONFIG"))
    assert [name for name, value in leaves(config) if str(home) in str(value)] == []
    assert list(home.iterdir()) == []
    assert "EXECUTORlocal" in lines

"""``cirro local`` where nothing runs: it says so, touches nothing, and its exit code tells."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from covalent_cirro.local.local_stack import LocalStack
from covalent_cirro.local.state_folder import STATE_FILE

Cirro = Callable[..., Result]


def test_status_where_nothing_runs(cirro: Cirro, tmp_path: Path) -> None:
    """Exit code 3, as ``systemctl status`` has it, and a table that says what does not run."""
    result = cirro("local", "status", "--state-dir", tmp_path / "state")
    assert result.exit_code == 3
    assert "does not run" in result.output
    assert not (tmp_path / "state").exists()


def test_status_for_programs_where_nothing_runs(cirro: Cirro, tmp_path: Path) -> None:
    """``--json`` has the same keys whatever runs."""
    result = cirro("local", "status", "--json", "--state-dir", tmp_path)
    assert result.exit_code == 3
    document = json.loads(result.output)
    assert document.keys() == {"endpoint_url", "server_url", "deployment", "settings", "jobs"}
    assert document["endpoint_url"] is None
    assert set(document["jobs"].values()) == {0}


def test_down_where_nothing_runs(cirro: Cirro, tmp_path: Path) -> None:
    """Nothing to stop is no failure, and files that are not ours stay."""
    (tmp_path / "emulator").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    result = cirro("local", "down", "--state-dir", tmp_path)
    assert result.exit_code == 0
    assert "no local stack" in result.output
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["emulator", "notes.txt"]


def test_exec_where_nothing_runs(cirro: Cirro, tmp_path: Path) -> None:
    """A command is not run against whatever AWS account the user has: exit code 1, and how to start the stack."""
    result = cirro("local", "exec", "--state-dir", tmp_path, "--", "touch", tmp_path / "ran")
    assert result.exit_code == 1
    assert "cirro local up" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_up_refuses_a_folder_with_other_things(cirro: Cirro, tmp_path: Path) -> None:
    """``down`` removes folders by name, so ``up`` never moves into a folder that somebody uses."""
    (tmp_path / "thesis.tex").write_text("mine")
    result = cirro("local", "up", "--state-dir", tmp_path)
    assert result.exit_code == 1
    assert "thesis.tex" in result.stderr
    assert "--state-dir" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 999}', '{"format": 1}', '{"format": 1, "emulator": 3, "server": null}']
)
def test_a_damaged_state_file_is_named(cirro: Cirro, tmp_path: Path, text: str) -> None:
    """A state file that is cut short or of another version is an error with its path, not a traceback."""
    (tmp_path / STATE_FILE).write_text(text)
    for command in ("up", "status", "down"):
        result = cirro("local", command, "--state-dir", tmp_path)
        assert result.exit_code == 1
        assert STATE_FILE in result.stderr.replace("\n", "")


def test_an_emulator_that_cannot_start(cirro: Cirro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that the process ended, and shows the end of its log."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no space left on device' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    state_dir = tmp_path / "state"
    result = cirro("local", "up", "--state-dir", state_dir)
    assert result.exit_code == 1
    assert "ended by itself" in result.stderr
    assert "no space left on device" in result.stderr
    assert LocalStack(state_dir).status().endpoint_url is None
    assert cirro("local", "down", "--state-dir", state_dir).exit_code == 0
    assert not state_dir.exists()


def test_the_state_folder_from_the_environment(cirro: Cirro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``CIRRO_STATE_DIR`` names the folder for all commands."""
    (tmp_path / STATE_FILE).write_text("damaged")
    monkeypatch.setenv("CIRRO_STATE_DIR", os.fspath(tmp_path))
    assert str(tmp_path) in cirro("local", "status").stderr.replace("\n", "")

"""Covalent's config file in a server: written where it changes only, and whole or not at all."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from covalent._shared_files.config import ConfigManager

from covalent_cirro.covalent_server import config_writes


class Config(ConfigManager):  # type: ignore[misc]
    """A config of a test's own."""

    def __init__(self, path: Path) -> None:
        self.config_file = str(path)
        self.config_data: dict[str, Any] = {}


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """A config file with a comment, in a process that writes it whole."""
    path = tmp_path / "covalent.conf"
    path.write_text("# mine\n[dispatcher]\nport = 48008\n")
    path.chmod(0o640)
    stock = ConfigManager.write_config
    config_writes.write_whole()
    yield Config(path)
    ConfigManager.write_config = stock


def test_an_electron_does_not_write_what_stands_there_already(config: Config) -> None:
    """Comments stay, and no room is needed."""
    config.update_config()
    assert Path(config.config_file).read_text().startswith("# mine")


def test_a_change_is_written_with_the_files_own_rights(config: Config) -> None:
    """Whoever may read it may read it then."""
    config.update_config({"dispatcher": {"port": 48009}})
    path = Path(config.config_file)
    assert "48009" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in path.parent.iterdir() if each.suffix != ".lock"] == [path.name]


def test_a_file_whose_place_cannot_be_taken_is_written_as_it_is(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is mounted into a container, for example."""

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("os.replace", busy)
    config.update_config({"dispatcher": {"port": 48009}})
    assert "48009" in Path(config.config_file).read_text()


def test_a_full_disk_does_not_empty_the_file(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is lost, not all that stood there."""
    before = Path(config.config_file).read_text()

    def full(data: Any, file: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("toml.dump", full)
    with pytest.raises(OSError, match="No space left"):
        config.update_config({"dispatcher": {"port": 48009}})
    assert Path(config.config_file).read_text() == before
    assert not list(Path(config.config_file).parent.glob("*.new"))

"""Folders of a Covalent server: where their paths are none that Covalent can use, they are made somewhere else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from furl import furl

from covalent_cirro.covalent_server import plain_paths
from covalent_cirro.errors import HostError


@pytest.mark.parametrize(
    "name", ["lab", "my-lab_2", "a.b,c=d@e:f+g~h", "my lab", "é", "100%", "a#b", "a?b", "日本", "a'b"]
)
def test_what_is_plain_is_what_covalent_does_not_quote(name: str) -> None:
    """As it turns paths into URLs (``_file_transfer/file.py``); the other way round some are refused for nothing."""
    path = furl(f"/x/{name}/y")
    path.path.normalize()
    if plain_paths.is_plain(f"/x/{name}/y"):
        assert str(path.path) == f"/x/{name}/y"
    else:
        assert name in ("my lab", "é", "100%", "a#b", "a?b", "日本", "a'b")


def test_a_plain_folder_is_made_where_it_is(tmp_path: Path) -> None:
    """Nothing else is."""
    folder = tmp_path / "state" / "covalent"
    assert plain_paths.make(folder) == folder
    assert folder.is_dir()
    assert plain_paths.follow(folder) == folder
    plain_paths.remove(folder)
    assert not folder.exists()


def test_another_one_is_made_in_the_users_cache_and_found_again(tmp_path: Path) -> None:
    """Private, and gone with the link that leads to it."""
    (tmp_path / "cache").mkdir()
    folder = tmp_path / "my lab é" / "state" / "covalent"
    made = plain_paths.make(folder, {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert made.parent == tmp_path / "cache"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert plain_paths.make(folder, {}) == plain_paths.follow(folder) == made
    (made / "data").write_text("x")
    plain_paths.remove(folder)
    assert not made.exists()
    assert not folder.is_symlink()


def test_one_that_did_not_outlive_a_reboot_is_made_anew(tmp_path: Path) -> None:
    """The link led to a temporary folder."""
    (tmp_path / "cache").mkdir()
    folder, environment = tmp_path / "é" / "covalent", {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first = plain_paths.make(folder, environment)
    first.rmdir()
    assert plain_paths.make(folder, environment).is_dir()


def test_a_home_that_is_not_plain_either_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary folder is the next; where nothing is plain, both variables are named."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "josé"))
    (tmp_path / "josé" / ".cache").mkdir(parents=True)
    made = plain_paths.make(tmp_path / "é" / "covalent", {"HOME": str(tmp_path / "josé")})
    assert plain_paths.is_plain(made)
    made.rmdir()
    monkeypatch.setattr(plain_paths, "is_plain", lambda path: False)
    with pytest.raises(HostError, match="XDG_CACHE_HOME or TMPDIR"):
        plain_paths.make(tmp_path / "é" / "other", {"HOME": str(tmp_path / "josé")})

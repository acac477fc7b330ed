"""The folder for what is on its way: whose it is, where it is, and what of it outlives a process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from covalent_cirro.electron import cache_folder
from covalent_cirro.errors import SettingsError

HOLD = """
import sys
from covalent_cirro.electron import cache_folder
open(cache_folder.scratch(sys.argv[1]) + "/blob", "w").close()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def covalents_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Covalent's own cache folder; what this process made in others is forgotten in the end."""
    own = tmp_path / "covalent"
    monkeypatch.setattr("covalent._shared_files.config.get_config", lambda key: str(own) if "cache_dir" in key else "")
    monkeypatch.setattr(cache_folder, "_ours", {})
    return own


def processes(folder: Path) -> list[str]:
    """Folders of processes in a cache folder."""
    return sorted(path.name for path in folder.glob(f"{cache_folder.PREFIX}*"))


@pytest.mark.parametrize("pinned", [None, "", "/tmp/covalent", "/tmp/covalent/", "/tmp//covalent"])
def test_the_default_is_below_covalents_own(covalents_own: Path, pinned: str | None) -> None:
    """Also where a config has the stock plugin's old default, which any user of the machine could make before us."""
    made = Path(cache_folder.scratch(pinned))
    assert made.parent == covalents_own / "cirro"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (made, made.parent, covalents_own)] == [0o700] * 3


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is the server's user's, not a folder of that name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Path(cache_folder.scratch("~/mine")).parent == tmp_path / "mine"
    assert not (tmp_path / "~").exists()


def test_a_process_has_one_folder(tmp_path: Path) -> None:
    """Asked for again it is the same; where somebody removed it, another one."""
    first = cache_folder.scratch(str(tmp_path / "cache"))
    assert cache_folder.scratch(str(tmp_path / "cache")) == first
    assert cache_folder.scratch(str(tmp_path / "other")) != first
    Path(first, cache_folder.LOCK).unlink()
    Path(first).rmdir()
    again = cache_folder.scratch(str(tmp_path / "cache"))
    assert again != first
    assert os.path.isdir(again)


def test_a_folder_of_ours_that_others_may_read_is_taken_as_it_is(tmp_path: Path) -> None:
    """The user named it; what is in it has a private folder."""
    (tmp_path / "cache").mkdir(mode=0o755)
    made = Path(cache_folder.scratch(str(tmp_path / "cache")))
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o755


@pytest.mark.parametrize("why", ["is a link to", "other users may write", "is not a folder", "belongs to"])
def test_what_is_not_ours_alone_is_refused(tmp_path: Path, why: str) -> None:
    """With the option, the path, and what to do; nothing is made in it."""
    folder = tmp_path / "cache"
    if why == "is a link to":
        (tmp_path / "real").mkdir()
        folder.symlink_to(tmp_path / "real")
    elif why == "is not a folder":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
        if why == "belongs to":
            if os.geteuid() != 0:
                pytest.skip("only root can give a folder away")
            os.chown(folder, 65534, 65534)
    with pytest.raises(SettingsError) as refused:
        cache_folder.scratch(str(folder))
    assert f"cache_dir={str(folder)!r} cannot be used: " in str(refused.value)
    assert why in str(refused.value)
    assert not folder.is_dir() or list(folder.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    """Of two processes one is killed: its folder goes when the next one looks; the other's stays until that ends."""
    folder = tmp_path / "cache"
    command = [sys.executable, "-c", HOLD, str(folder)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) for _ in "12"
    ]
    try:
        for each in running:
            assert each.stdout is not None
            assert each.stdout.readline() == b"ready\n"
        both = processes(folder)
        assert len(both) == 2
        (folder / "cirro-project").mkdir()  # a user's own
        (folder / "cirro-report.html").touch()
        cache_folder.clear(str(folder))
        assert processes(folder) == both
        running[0].send_signal(signal.SIGKILL)
        running[0].wait()
        assert processes(folder) == both
        cache_folder.clear(str(folder))
        (left,) = processes(folder)
        assert (folder / left / "blob").exists()
        ours = Path(cache_folder.scratch(str(folder)))
        assert processes(folder) == sorted([left, ours.name])
        running[1].communicate()
        assert processes(folder) == [ours.name]
        cache_folder.clear(str(folder))
        assert ours.is_dir()
        assert (folder / "cirro-project").is_dir()
        assert (folder / "cirro-report.html").exists()
    finally:
        for each in running:
            each.kill()
            each.communicate()


@pytest.mark.parametrize("cache_dir", ["/no/such/folder", 5])
def test_clearing_never_raises(cache_dir: object) -> None:
    """Nor makes a folder: a server that starts has no use for one yet."""
    cache_folder.clear(cache_dir)  # type: ignore[arg-type]
    assert not os.path.exists("/no/such/folder")

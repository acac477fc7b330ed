"""The user's Covalent config: what a deployment writes, and what of the user's it leaves alone."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import filelock
import pytest
import tomlkit

from covalent_cirro.cli.options import settle
from covalent_cirro.covalent_server import config as covalent_config
from covalent_cirro.errors import HostError
from covalent_cirro.settings import BY_NAME

SETTINGS = {"s3_bucket_name": "cirro-bucket-1", "batch_queue": "cirro-cpu", "region": "eu-west-1"}


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file of its own; it does not exist yet."""
    monkeypatch.setenv("COVALENT_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config" / "covalent.conf"


def record(settings: dict[str, str] = SETTINGS, name: str = "cirro", profile: str = "") -> covalent_config.Recorded:
    """Record a deployment in Ireland."""
    return covalent_config.record(settings, stack_name=name, region="eu-west-1", profile=profile)


def test_the_first_deployment_writes_all_its_settings() -> None:
    """Into the executor's section, and into one of ours what they were."""
    assert record() == ({**SETTINGS}, {})
    assert covalent_config.executor_section() == SETTINGS
    assert covalent_config.last_deploy() == ("cirro", "eu-west-1", "", SETTINGS)


def test_the_same_deployment_again_writes_nothing(config: Path) -> None:
    """The file stays as it is."""
    record()
    before = config.read_text()
    assert record() == ({}, {})
    assert config.read_text() == before


def test_what_the_user_set_stays(config: Path) -> None:
    """Other keys, other sections, comments, and a value of a deployment that the user changed by hand."""
    config.parent.mkdir()
    config.write_text(
        '# mine\n[executors.cirro]\nvcpu = 8  # big\nbatch_queue = "my-queue"\n\n[sdk]\nlog_level = "info"\n'
    )
    recorded = record()
    assert recorded.kept == {"batch_queue": "my-queue"}
    assert recorded.written == {key: value for key, value in SETTINGS.items() if key != "batch_queue"}
    text = config.read_text()
    assert "# mine" in text
    assert "# big" in text
    assert covalent_config.executor_section() == {**SETTINGS, "vcpu": 8, "batch_queue": "my-queue"}
    assert covalent_config.read()["sdk"] == {"log_level": "info"}


def test_a_default_that_was_pinned_in_the_file_is_not_the_users(config: Path) -> None:
    """The stock plugin and Covalent write defaults into the section."""
    config.parent.mkdir()
    config.write_text('[executors.cirro]\nbatch_queue = "covalent-batch-queue"\ns3_bucket_name = ""\n')
    assert record() == (SETTINGS, {})


def test_the_next_deployment_takes_the_place_of_the_one_before() -> None:
    """Values that nobody touched follow; a setting that the new one does not give goes."""
    record({**SETTINGS, "batch_gpu_queue": "cirro-gpu"})
    assert record({**SETTINGS, "batch_queue": "other-cpu"}, "other").written == {"batch_queue": "other-cpu"}
    assert covalent_config.executor_section() == {**SETTINGS, "batch_queue": "other-cpu", "batch_gpu_queue": ""}
    assert record({**SETTINGS, "batch_gpu_queue": "new-gpu"}).written["batch_gpu_queue"] == "new-gpu"


def test_what_a_deployment_no_longer_gives_stays_away(config: Path) -> None:
    """A server that runs merges the file into what it had read, and writes it all back (`update_config`)."""
    record({**SETTINGS, "share_identifier": "common"})
    server = tomlkit.parse(config.read_text()).unwrap()
    record()
    _covalent_merges(config, server)
    assert covalent_config.executor_section()["share_identifier"] == ""
    assert covalent_config.forget("cirro")
    _covalent_merges(config, server)
    assert covalent_config.executor_section()["s3_bucket_name"] == BY_NAME["s3_bucket_name"].default
    assert covalent_config.last_deploy() is None
    assert record() == (SETTINGS, {})


def _covalent_merges(config: Path, known: dict[str, Any]) -> None:
    def merge(old: dict[str, Any], new: dict[str, Any]) -> None:
        for key, value in new.items():
            if isinstance(value, dict) and isinstance(old.get(key), dict):
                merge(old[key], value)
            else:
                old[key] = value

    merge(known, tomlkit.parse(config.read_text()).unwrap())
    config.write_text(tomlkit.dumps(known))


def test_the_profile_of_the_deployment_is_the_executors() -> None:
    """Or the server would look for the stack in another account."""
    record(profile="lab")
    assert covalent_config.executor_section()["profile"] == "lab"


def test_an_image_is_written_and_outlives_the_next_deploy() -> None:
    """It belongs to the deployment; that of another deployment is pushed anew."""
    record()
    assert covalent_config.set_image("repo@sha256:1").written == {"container_image_uri": "repo@sha256:1"}
    record()
    assert covalent_config.set_image("repo@sha256:2").written == {"container_image_uri": "repo@sha256:2"}
    assert covalent_config.executor_section()["container_image_uri"] == "repo@sha256:2"


def test_an_image_that_the_user_named_stays(config: Path) -> None:
    """As any other setting."""
    config.parent.mkdir()
    config.write_text('[executors.cirro]\ncontainer_image_uri = "mine:1"\n')
    assert covalent_config.set_image("repo@sha256:1") == ({}, {"container_image_uri": "mine:1"})


def test_forgetting_takes_out_what_was_written_and_nothing_else(config: Path) -> None:
    """The user's own values stay, changed ones too; another deployment's are not touched."""
    record()
    config.write_text(config.read_text().replace('"cirro-cpu"', '"my-queue"', 1))
    assert covalent_config.forget("other") == []
    assert sorted(covalent_config.forget("cirro")) == ["region", "s3_bucket_name"]
    unset = {"region": "", "s3_bucket_name": BY_NAME["s3_bucket_name"].default}
    assert covalent_config.executor_section() == {"batch_queue": "my-queue", **unset}
    assert covalent_config.last_deploy() is None


def test_a_file_that_is_no_toml_is_named(config: Path) -> None:
    """And left as it is."""
    config.parent.mkdir()
    config.write_text("[executors")
    with pytest.raises(HostError, match=r"covalent\.conf cannot be read"):
        record()
    assert config.read_text() == "[executors"


def _many(number: int) -> None:
    covalent_config.record({"s3_prefix": f"p{number}"}, stack_name="cirro", region="eu-west-1", profile="")


def test_two_writers_at_once_leave_a_whole_file() -> None:
    """They take the lock that Covalent takes."""
    writers = [multiprocessing.get_context("fork").Process(target=_many, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert covalent_config.executor_section()["s3_prefix"] in {"p0", "p1", "p2", "p3"}


def test_a_lock_that_is_never_given_back_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written without it."""
    config.parent.mkdir()
    monkeypatch.setattr(covalent_config, "LOCK_PATIENCE_S", 0.1)
    with filelock.FileLock(f"{config}.lock"), pytest.raises(HostError, match="locked by another program"):
        record()
    assert not config.exists()


@pytest.mark.parametrize(("users", "stays"), [(None, False), (300, False), (600, True)])
def test_what_is_only_suggested_gives_way_without_a_word(config: Path, users: int | None, stays: bool) -> None:
    """A value that the user set is no news; the option's default, which Covalent writes, is not the user's."""
    config.parent.mkdir()
    config.write_text("" if users is None else f"[executors.cirro]\ntime_limit = {users}\n")
    suggested = {"time_limit": 21600}
    recorded = covalent_config.record(SETTINGS, stack_name="cirro", region="eu-west-1", profile="", suggested=suggested)
    assert recorded == ({**SETTINGS, **({} if stays else suggested)}, {})
    assert covalent_config.executor_section()["time_limit"] == (users if stays else 21600)
    assert ("time_limit" in covalent_config.forget("cirro")) is not stays
    assert covalent_config.executor_section()["time_limit"] == (users if stays else BY_NAME["time_limit"].default)


def test_a_command_means_the_last_deployment() -> None:
    """Its name, region and profile, where nothing else is said."""
    assert settle(None, None, None)[:2] == ((None, None, None, None), "cirro")
    record(name="lab", profile="research")
    assert settle(None, None, None)[:2] == (("research", None, "eu-west-1", None), "lab")
    assert settle("lab", "us-west-2", None)[:2] == (("research", None, "us-west-2", None), "lab")
    assert settle(None, None, "other")[:2] == (("other", None, None, None), "lab")
    assert settle("another", None, None)[:2] == ((None, None, None, None), "another")


def test_folders_are_those_of_the_config_or_below_the_home(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Covalent has written its defaults there is no file."""
    monkeypatch.setenv("HOME", "/home/josé")
    assert set(covalent_config.folders().values()) == {"/home/josé"}
    config.parent.mkdir()
    config.write_text('[sdk]\nresults_dir = "/data/results"\n')
    assert covalent_config.folders()["sdk.results_dir"] == "/data/results"

"""The options: what is accepted, what is refused before anything is paid for, and who wins."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from covalent_awsbatch_plugin.awsbatch import AWSBatchExecutor, ExecutorPluginDefaults
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.electron.cache_folder import STOCK_DEFAULT
from covalent_cirro.errors import SettingsError
from covalent_cirro.settings import BY_NAME, OPTIONS, check, problem, resolve


def test_every_option_of_the_stock_executor_is_here_with_its_default() -> None:
    """Changing the class name is all that a stock user does."""
    stock = set(inspect.signature(AWSBatchExecutor.__init__).parameters) - {"self"}
    assert stock == {option.name for option in OPTIONS if option.stock}
    defaults = ExecutorPluginDefaults().model_dump()
    assert {name: BY_NAME[name].default or "" for name in ("credentials", "profile")} == {
        name: defaults.pop(name) for name in ("credentials", "profile")
    }
    defaults.pop("region")  # ours asks AWS's chain first, and then takes the same
    assert defaults.pop("cache_dir") == STOCK_DEFAULT  # any user of the machine can make it: it counts as unset
    assert BY_NAME["cache_dir"].default is None
    assert {name: BY_NAME[name].default for name in defaults} == defaults


def test_defaults_are_possible() -> None:
    """No default would be refused."""
    assert [problem(option.name, option.default) for option in OPTIONS] == [None] * len(OPTIONS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vcpu", 0),
        ("vcpu", 1.5),
        ("vcpu", "2"),
        ("vcpu", True),
        ("num_gpus", 0.5),
        ("num_gpus", -1),
        ("memory", 4 / 1024),
        ("memory", 0),
        ("memory", float("nan")),
        ("memory", float("inf")),
        ("time_limit", 59),
        ("time_limit", 0),
        ("retry_attempts", 11),
        ("retry_attempts", -1),
        ("poll_freq", -1),
        ("region", "Frankfurt"),
        ("s3_bucket_name", "Upper_Case"),
        ("batch_queue", " "),
        ("endpoint_url", "localhost:4566"),
        ("s3_prefix", "a//b"),
        ("shared_memory_gb", 0),
        ("array_size", 0),
        ("array_size", 10_001),
        ("array_size", 2.5),
        ("array_parallel", 0),
        ("on_error", "ignore"),
        ("local_packages", "mypackage"),
        ("vcpu", np.bool_(True)),
        ("local_packages", [3]),
        ("batch_job_definition_name", "with space"),
    ],
)
def test_an_impossible_value_is_refused_with_its_name_and_range(name: str, value: object) -> None:
    """The message names the option, the value, and what is accepted."""
    with pytest.raises(SettingsError) as caught:
        check({name: value})
    assert f"{name}={value!r}" in str(caught.value)
    assert BY_NAME[name].valid in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("vcpu", np.float64(1.5)), ("memory", np.float32("nan"))])
def test_an_impossible_number_of_another_library_is_refused_as_well(name: str, value: object) -> None:
    """As the number that it is."""
    with pytest.raises(SettingsError, match=rf"{name}=(1\.5|nan) is not possible"):
        check({name: value})


def test_paths_and_numbers_of_other_libraries_are_values() -> None:
    """They become Python's own, which Covalent can store."""
    given = {
        "vcpu": np.int64(4),
        "num_gpus": np.uint8(1),
        "memory": np.float32(7.5),
        "time_limit": np.float64(600),
        "credentials": Path("/home/ada/keys"),
        "region": np.str_("eu-west-1"),
        "local_packages": (Path("/home/ada/lab"), "mylab"),
    }
    settings = resolve(given, {})
    assert (settings.vcpu, settings.num_gpus, settings.memory, settings.time_limit) == (4, 1, 7.5, 600)
    assert (settings.credentials, settings.region) == ("/home/ada/keys", "eu-west-1")
    assert settings.local_packages == ("/home/ada/lab", "mylab")
    plain = [getattr(settings, name) for name in given if name != "local_packages"]
    assert [type(value) for value in plain] == [int, int, float, int, str, str]
    check(given)


def test_an_unknown_option_is_refused_with_all_valid_ones() -> None:
    """A slip of the pen (`vcpus`) is not accepted in silence."""
    with pytest.raises(SettingsError) as caught:
        check({"vcpus": 4})
    assert "'vcpus'" in str(caught.value)
    assert all(option.name in str(caught.value) for option in OPTIONS)


def test_the_executor_wins_over_the_config_and_the_config_over_the_default() -> None:
    """Precedence, option by option."""
    settings = resolve({"vcpu": 8, "memory": None}, {"vcpu": 4, "memory": 16.0, "not_an_option": 1})
    assert (settings.vcpu, settings.memory, settings.time_limit) == (8, 16.0, 300)


def test_zero_and_empty_are_values() -> None:
    """The stock plugin turns an explicit 0 or "" into what the config says."""
    settings = resolve(
        {"num_gpus": 0, "profile": "", "retry_attempts": 0, "poll_freq": 0, "batch_execution_role_name": ""},
        {"num_gpus": 4, "profile": "corp", "retry_attempts": 5, "poll_freq": 60, "batch_execution_role_name": "x"},
    )
    assert (settings.num_gpus, settings.profile, settings.retry_attempts) == (0, "", 0)
    assert (settings.poll_freq, settings.batch_execution_role_name) == (0, "")
    assert settings.attempts == 1


def test_a_bad_value_in_the_config_says_that_it_stands_there() -> None:
    """The user must know which of the two places to mend."""
    with pytest.raises(SettingsError, match=r"vcpu='lots'.*\[executors\.cirro\]"):
        resolve({}, {"vcpu": "lots"})


def test_gpus_choose_the_gpu_queue_where_there_is_one() -> None:
    """The queue follows what the electron asks for."""
    section = {"batch_queue": "cpu", "batch_gpu_queue": "gpu"}
    assert resolve({}, section).queue == "cpu"
    assert resolve({"num_gpus": 1}, section).queue == "gpu"
    assert resolve({"num_gpus": 1}, {"batch_queue": "cpu"}).queue == "cpu"


def test_shared_memory_is_half_of_the_memory_unless_set_and_never_more_than_it() -> None:
    """/dev/shm counts as memory of the job."""
    assert resolve({"memory": 16}, {}).shared_memory_mib == 8192
    assert resolve({"memory": 16, "shared_memory_gb": 2}, {}).shared_memory_mib == 2048
    with pytest.raises(SettingsError, match="more than memory"):
        resolve({"memory": 1, "shared_memory_gb": 2}, {})


@given(st.sampled_from(["", "/", "a", "a/", "/a/b/", "team/x"]))
def test_keys_begin_with_the_prefix_and_one_slash(prefix: str) -> None:
    """However the prefix is written, nothing but a slash stands between it and the key."""
    if problem("s3_prefix", prefix):
        return
    found = resolve({"s3_prefix": prefix}, {}).key_prefix
    assert found == "" or (found.endswith("/") and not found.startswith("/") and "//" not in found)


@given(st.floats(min_value=0.125, max_value=4096, allow_nan=False))
def test_memory_in_mib_is_what_the_stock_plugin_asks_for(memory: float) -> None:
    """GB means 1024 MiB, cut to a whole number."""
    assert resolve({"memory": memory}, {}).memory_mib == int(memory * 1024)

"""`CirroBatchExecutor` as an object: made, sent to the server and taken over there, without touching anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from covalent._shared_files.config import get_config, set_config
from covalent.executor import _executor_manager
from covalent_awsbatch_plugin.awsbatch import AWSBatchExecutor

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs import panel

ANY_ORDER = [
    "import covalent",
    "import covalent_cirro",
    "from covalent_cirro import CirroBatchExecutor",
    "import covalent_cirro.cirro",
    "import covalent_awsbatch_plugin",
    "from covalent_awsbatch_plugin.awsbatch import AWSBatchExecutor",
    "import covalent_cirro.runner",
]

CHECK = """
import covalent as ct
from covalent_awsbatch_plugin.awsbatch import AWSBatchExecutor as Stock
from covalent_cirro import CirroBatchExecutor
assert ct.executor.CirroBatchExecutor is CirroBatchExecutor
assert type(ct.executor._executor_manager.get_executor("cirro")) is CirroBatchExecutor
made = ct.executor.CirroBatchExecutor(vcpu=4)
assert isinstance(made, Stock) and issubclass(CirroBatchExecutor, Stock)
assert made.to_dict()["short_name"] == "cirro"
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def section() -> Iterator[dict[str, Any]]:
    """Sets keys of ``[executors.cirro]`` in this process's config, which is empty before, and as it was after."""
    before = dict(get_config("executors.cirro"))

    class Section(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            set_config(f"executors.cirro.{key}", value)

    def now(content: Mapping[str, Any]) -> None:
        get_config("executors.cirro").clear()
        get_config("executors.cirro").update(content)
        set_config({})  # writes the file, from which Covalent reads again for each executor

    now({})
    yield Section()
    now(before)


@pytest.mark.parametrize("first", ANY_ORDER)
def test_any_order_of_imports_works(first: str, tmp_path: Path) -> None:
    """Whatever a script imports first, Covalent knows the executor, which is a subclass of the stock one."""
    done = run_python(f"{first}\n{CHECK}", COVALENT_CONFIG_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_a_broken_dependency_does_not_break_covalent(tmp_path: Path) -> None:
    """Covalent loads plugins unguarded: here boto3 and aiobotocore cannot be imported at all."""
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('aiobotocore', 'covalent_awsbatch_plugin', 'tenacity'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import importlib.metadata as m, covalent_cirro\n"
        "real = m.entry_points\n"
        "m.entry_points = lambda **k: [e for e in real(**k) if e.name == 'cirro']\n"
    )
    done = run_python(
        f"{block}import covalent; print(covalent.executor.CirroBatchExecutor(vcpu=4).vcpu)",
        COVALENT_CONFIG_DIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("4")


def test_importing_the_package_for_the_runner_loads_no_covalent() -> None:
    """The container has none."""
    done = run_python(
        "import covalent_cirro.runner, covalent_cirro.contract.protocol, sys; print('covalent' in sys.modules)"
    )
    assert done.stdout.strip() == "False"


def test_installing_the_plugin_holds_fastapi_where_covalent_works() -> None:
    """Newer FastAPI makes every dispatch fail with 422."""
    from importlib.metadata import requires

    assert any(line.replace(" ", "").startswith("fastapi<0.132") for line in requires("covalent-cirro") or [])


def test_making_one_touches_nothing(tmp_path: Path) -> None:
    """No folder, no environment variable, no AWS; the stock constructor does all three."""
    before = dict(os.environ)
    CirroBatchExecutor(credentials=str(tmp_path / "credentials"), cache_dir=str(tmp_path / "cache"))
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def test_unset_is_none_and_zero_empty_and_false_stay() -> None:
    """As it says."""
    made = CirroBatchExecutor(num_gpus=0, profile="", retry_attempts=0)
    assert (made.num_gpus, made.profile, made.retry_attempts) == (0, "", 0)
    assert made.vcpu is None
    assert made.settings.vcpu == 2


@pytest.mark.parametrize(
    "options", [{"vcpu": 0}, {"num_gpus": 0.5}, {"memory": 4 / 1024}, {"time_limit": 59}, {"vpcu": 1}]
)
def test_bad_options_are_refused_when_it_is_made(options: Mapping[str, Any]) -> None:
    """Before anything is paid for."""
    with pytest.raises(SettingsError):
        CirroBatchExecutor(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_nodes": 2, "platform": "FARGATE"}, "num_nodes=2 is not possible with platform"),
        ({"num_gpus": 1, "platform": "FARGATE"}, "num_gpus=1 is not possible with platform"),
        ({"shared_memory_gb": 1, "platform": "FARGATE"}, "shared_memory_gb=1 is not possible with platform"),
        ({"platform": "FARGATE", "vcpu": 64}, "more than a job on Fargate can have"),
        ({"platform": "FARGATE", "batch_execution_role_name": ""}, 'batch_execution_role_name="" is not possible'),
        ({"vcpu": 0.25, "platform": "EC2"}, "vcpu=0.25 is possible only on Fargate"),
        ({"shared_memory_gb": 4, "memory": 2}, "shared_memory_gb=4 is more than memory=2"),
        ({"memory_max": 1, "memory": 2}, "memory_max=1 is less than memory=2"),
        ({"scheduling_priority": 3, "share_identifier": ""}, "has no effect without share_identifier"),
        ({"environment": {"A": "b"}, "secrets": {"A": "ssm:/a"}}, "environment and secrets both have 'A'"),
        (
            {"secrets": {"A": "ssm:/a"}, "batch_execution_role_name": ""},
            "is not possible with batch_execution_role_name",
        ),
        ({"environment": {"A": '"' * 6000}}, "20,480 are the most"),
        ({"environment": {"RANK": "1"}, "num_nodes": 2}, "environment has 'RANK', and num_nodes=2: the runner sets"),
        (
            {"secrets": {"MASTER_ADDR": "ssm:/a"}, "processes_per_node": 2},
            "secrets has 'MASTER_ADDR', and processes_per",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused_when_it_is_made(options: dict[str, Any], words: str) -> None:
    """Where both are in the call, nothing has to be dispatched to learn it."""
    with pytest.raises(SettingsError, match=re.escape(words)):
        CirroBatchExecutor(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"vcpu": 0.25},
        {"shared_memory_gb": 100},
        {"memory_max": 0.5},
        {"scheduling_priority": 3},
        {"environment": {"RANK": "1"}},
        {"num_nodes": 1, "platform": "FARGATE"},
    ],
)
def test_what_the_servers_config_may_make_possible_is_not_refused_when_it_is_made(options: dict[str, Any]) -> None:
    """Its platform, memory or share identifier may be other ones than the default."""
    CirroBatchExecutor(**options)


def test_options_that_contradict_this_clients_config_are_refused_when_it_is_made(section: dict[str, Any]) -> None:
    """The config's values go to the server with the executor; a contradiction in the config alone fails no executor."""
    section["platform"] = "FARGATE"
    with pytest.raises(SettingsError, match="num_nodes=2 is not possible with platform"):
        CirroBatchExecutor(num_nodes=2)
    section["vcpu"] = 64
    CirroBatchExecutor()
    section["vcpu"] = "many"
    CirroBatchExecutor(memory=2)


def test_it_takes_the_stock_options_by_position_too() -> None:
    """Same names in the same order."""
    import inspect

    ours = list(inspect.signature(CirroBatchExecutor.__init__).parameters)
    stock = list(inspect.signature(AWSBatchExecutor.__init__).parameters)
    assert ours[: len(stock)] == stock


def taken_over(sent: Mapping[str, Any]) -> CirroBatchExecutor:
    """What Covalent's server makes of an executor that a client sent."""
    made: CirroBatchExecutor = _executor_manager.get_executor("cirro").from_dict(json.loads(json.dumps(sent)))
    return made


def test_the_server_takes_over_what_the_client_set() -> None:
    """Through JSON, whole."""
    sent = CirroBatchExecutor(vcpu=8, memory=30.5, num_gpus=0, profile="", s3_bucket_name="results")
    assert taken_over(sent.to_dict()).to_dict() == sent.to_dict()


def test_what_the_client_did_not_set_is_the_servers_to_say(section: dict[str, Any]) -> None:
    """A client without a config gets the server's stack."""
    sent = CirroBatchExecutor(vcpu=8).to_dict()
    section["s3_bucket_name"] = "of-the-stack"
    section["vcpu"] = 64
    made = taken_over(sent)
    assert (made.settings.s3_bucket_name, made.settings.vcpu) == ("of-the-stack", 8)


def test_the_clients_own_config_wins_over_the_servers(section: dict[str, Any]) -> None:
    """It is resolved where the client runs."""
    section["memory"] = 7.5
    sent = CirroBatchExecutor().to_dict()
    section["memory"] = 1.0
    assert taken_over(sent).settings.memory == 7.5


def test_an_executor_of_an_older_or_newer_client_works(caplog: pytest.LogCaptureFixture) -> None:
    """Missing attributes keep their defaults; unknown ones are warned about."""
    made = taken_over({"attributes": {"vcpu": 8, "from_the_future": 1}})
    assert made.settings.vcpu == 8
    assert made.settings.time_limit == 300
    assert "from_the_future" in caplog.text


def test_what_the_ui_was_told_of_the_job_is_no_option(caplog: pytest.LogCaptureFixture) -> None:
    """It lies among the executor's attributes in Covalent's database, which the server makes executors from."""
    told = dict.fromkeys(panel.KEYS, "...")
    made = taken_over({"attributes": {**told, "vcpu": 8}})
    assert made.settings.vcpu == 8
    assert caplog.text == ""
    assert not set(panel.KEYS) & made.to_dict()["attributes"].keys()


def test_unknown_keys_in_the_config_are_warned_about_and_kill_no_electron(
    section: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Written by another version, or a slip."""
    section["vcpus"] = 3
    assert CirroBatchExecutor(vcpu=2).settings.vcpu == 2
    assert _executor_manager.get_executor("cirro").settings.vcpu == 2
    assert "'vcpus'" in caplog.text


def test_a_bad_value_in_the_config_does_not_kill_an_electron_that_sets_its_own(section: dict[str, Any]) -> None:
    """Covalent makes every executor from the section first; who needs the value is told."""
    section["vcpu"] = "lots"
    assert taken_over(CirroBatchExecutor(vcpu=3).to_dict()).settings.vcpu == 3
    with pytest.raises(SettingsError, match=r"vcpu='lots'.*executors\.cirro"):
        _ = _executor_manager.get_executor("cirro").settings


def test_only_settings_are_stored_and_shown() -> None:
    """Everything in it is in Covalent's database and its UI: no client, no secret, plain JSON."""
    made = CirroBatchExecutor()
    made._init_runtime()
    assert set(json.loads(json.dumps(made.to_dict()))["attributes"]) >= {"vcpu", "local_packages"}
    assert "_send_queue" not in made.to_dict()["attributes"]


def test_paths_and_numbers_of_other_libraries_are_stored_as_pythons_own(tmp_path: Path) -> None:
    """Covalent writes them as JSON, and a server without the library reads them."""
    made = CirroBatchExecutor(vcpu=np.int64(4), memory=np.float32(7.5), local_packages=[tmp_path], cache_dir=tmp_path)
    attributes = json.loads(json.dumps(made.to_dict()))["attributes"]
    assert (attributes["vcpu"], attributes["memory"]) == (4, 7.5)
    assert attributes["local_packages"] == [str(tmp_path)]
    made.vcpu = np.int64(8)
    assert json.loads(json.dumps(made.to_dict()))["attributes"]["vcpu"] == 8


async def test_receive_none_means_cancelled() -> None:
    """For every electron of the group, without asking AWS."""
    group = {"dispatch_id": "d", "node_ids": [1, 2], "task_group_id": 1}
    updates = await CirroBatchExecutor().receive(group, None)
    assert [(update.node_id, str(update.status)) for update in updates] == [(1, "CANCELLED"), (2, "CANCELLED")]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"status": "COMPLETED"},
        "x",
        {"call": "s3://mine/cirro/jobs/another/1/018f5e2b7c00c0ffee01/call.json"},
        {"call": "s3://mine/cirro/jobs/d/2/018f5e2b7c00c0ffee01/call.json"},
        {"call": "s3://mine/elsewhere/jobs/d/1/018f5e2b7c00c0ffee01/call.json"},
        {"call": "s3://somebody-elses/cirro/jobs/d/1/018f5e2b7c00c0ffee01/call.json"},
    ],
)
async def test_what_anybody_may_tell_the_server_is_checked(data: Any) -> None:
    """Covalent's route for job updates has no authentication: only this group's call in our own bucket is fetched."""
    from covalent_cirro.errors import OutcomeError

    with pytest.raises(OutcomeError):
        await CirroBatchExecutor(s3_bucket_name="mine").receive(
            {"dispatch_id": "d", "node_ids": [1], "task_group_id": 1}, data
        )


async def test_cancelling_what_was_never_sent_does_nothing() -> None:
    """Covalent calls it for every node of a dispatch."""
    assert await CirroBatchExecutor().cancel({"dispatch_id": "d", "node_id": 1}, None) is False

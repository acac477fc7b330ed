"""The programs of docs/from/ as they stand: ours for each tool, and the stock plugin's own beside it."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from covalent_cirro.local import covalent_process
from tests.access import ask
from tests.covalent.conftest import Stack

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "docs" / "from"
TOOLS = sorted(folder.name for folder in PROGRAMS.iterdir() if folder.is_dir())
STOCK = "stock-plugin"
OURS = [*(f"{tool}/here.py" for tool in TOOLS), "skypilot/script.py"]
BEST = {"rate": 1.0, "error": pytest.approx(0.0096, abs=0.0001)}
TIMEOUT_S = 400


def stock_environment(stack: Stack, folder: Path) -> dict[str, str]:
    """The environment of a client whose config has a section of the stock plugin, as its users have.

    The stock plugin has one queue: that of GPUs takes jobs without one, too.
    """
    spec = importlib.util.spec_from_file_location("stock_image", ROOT / "benchmarks" / "stock_image.py")
    assert spec is not None
    assert spec.loader is not None
    stock_image = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stock_image)
    ask(stack.endpoint_url, stack.playground.key, "images", {"stock": {"command": stock_image.command(folder)}})
    same = (
        "region",
        "s3_bucket_name",
        "batch_job_role_name",
        "batch_execution_role_name",
        "batch_job_log_group_name",
    )
    section = {
        **{name: stack.settings[name] for name in same},
        "batch_queue": stack.settings["batch_gpu_queue"],
        "container_image_uri": "stock",
        "cache_dir": str(folder / "cache"),
        "poll_freq": 1,
    }
    config = folder / "client"
    covalent_process.write_config(
        config, port=int(stack.server_url.rpartition(":")[2]), executors={"awsbatch": section}
    )
    return {**stack.environment, **covalent_process.client_environment(config)}


@pytest.fixture(scope="module")
def printed(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each program printed, by its folder; all of them run at the same time."""

    def run(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROGRAMS / program)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    programs = dict.fromkeys(OURS, stack.environment)
    programs[f"{STOCK}/there.py"] = stock_environment(stack, tmp_path_factory.mktemp("stock"))
    with ThreadPoolExecutor(len(programs)) as pool:
        return dict(zip(programs, pool.map(run, programs, programs.values()), strict=True))


@pytest.mark.parametrize("program", [*OURS, f"{STOCK}/there.py"])
def test_the_program_prints_the_best_training(
    program: str, printed: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    """Of four, each in a job; the stock plugin's own program prints the same as ours."""
    done = printed[program]
    assert done.returncode == 0, done.stdout + done.stderr
    status, _, result = done.stdout.strip().splitlines()[-1].partition(" ")
    assert status == "COMPLETED", done.stdout
    best: dict[str, Any] = ast.literal_eval(result)
    assert best == BEST


def test_a_run_by_the_command_line_ends_with_the_result(stack: Stack) -> None:
    """`cirro run FILE:LATTICE` in place of `redun run`; each electron has the machine that it asks for."""
    said = stack.cirro("run", f"{PROGRAMS / 'redun' / 'here.py'}:sweep")
    assert "the dispatch is COMPLETED" in said
    assert "'rate': 1.0" in said
    found = re.search(r"^dispatch ([0-9a-f-]{36}):", said, re.MULTILINE)
    assert found is not None, said
    electrons = json.loads(stack.cirro("report", found[1], "--json"))["electrons"]
    assert sorted((each["name"], each["queue"].endswith("-gpu")) for each in electrons) == [
        ("best", False),
        *[("train", True)] * 4,
    ]

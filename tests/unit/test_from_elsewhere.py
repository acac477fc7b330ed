"""docs/from/: the pages show the programs that are tested, and name options that exist.

`tests/covalent/test_from_elsewhere.py` runs the programs.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from covalent_cirro.deployment import PARTS
from covalent_cirro.settings import OPTIONS
from tests.unit.template_facts import Template

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "from"
TOOLS = sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())
PROGRAMS = sorted(path for path in FOLDER.glob("*/*") if path.is_file())
LANGUAGES = {".py": "python", ".ini": "ini", ".yaml": "yaml"}

PARAMETERS = {name for part in PARTS for name in Template(part).parameters}
"""Of the templates, which `cirro deploy --parameter` takes."""

OF_OTHERS = {"x", "path", "wait", "executor", "deps_pip"}
"""What the column "here" also has before `=`: any option, and arguments of Covalent's functions and of `stored`."""


def page(tool: str) -> str:
    """The text of a tool's page."""
    return (FOLDER / f"{tool}.md").read_text()


def training(program: Path) -> list[str]:
    """The statements of a program's training, but for imports and for where it prints."""
    functions = {node.name: node for node in ast.parse(program.read_text()).body if isinstance(node, ast.FunctionDef)}
    body = (functions.get("train") or functions["fit"]).body[1:]
    lines = [line for statement in body for line in ast.unparse(statement).splitlines()]
    return [line.replace(", file=sys.stderr", "") for line in lines if line != "import random"]


def test_each_tool_has_a_page_in_the_index() -> None:
    """And each page a folder of programs."""
    index = (FOLDER / "README.md").read_text()
    assert [f"({tool}.md)" in index for tool in TOOLS] == [True] * 6
    assert sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README") == TOOLS


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_the_page_shows_the_file(program: Path) -> None:
    """As it is, and links to it."""
    shown = page(program.parent.name)
    assert f"```{LANGUAGES[program.suffix]}\n{program.read_text()}```\n" in shown
    assert f"({program.relative_to(FOLDER)})" in shown


@pytest.mark.parametrize("tool", TOOLS)
def test_both_programs_do_the_same_training(tool: str) -> None:
    """In the other tool's words and in ours."""
    there = FOLDER / tool / ("train.py" if tool == "skypilot" else "there.py")
    assert training(there) == training(FOLDER / tool / "here.py")


@pytest.mark.parametrize("program", [path for path in PROGRAMS if path.suffix == ".py"], ids=str)
def test_the_program_compiles(program: Path) -> None:
    """Also that of a tool which is not installed here."""
    compile(program.read_text(), program, "exec")


def test_the_script_of_skypilots_task_runs() -> None:
    """As its YAML file runs it: its standard output is JSON that the sweep reads."""
    task = yaml.safe_load((FOLDER / "skypilot" / "train.yaml").read_text())
    command, _, _ = task["run"].partition(" > ")
    assert command == "python train.py $RATE"
    script = FOLDER / "skypilot" / "train.py"
    done = subprocess.run([sys.executable, script, "1.0"], capture_output=True, check=True, timeout=60)
    assert yaml.safe_load(done.stdout) == {"rate": 1.0, "error": pytest.approx(0.0096, abs=0.0001)}


def test_the_stock_plugins_program_differs_by_the_import_and_the_name() -> None:
    """What the page promises."""
    there = (FOLDER / "stock-plugin" / "there.py").read_text()
    here = (FOLDER / "stock-plugin" / "here.py").read_text()
    moved = there.replace("AWSBatchExecutor", "CirroBatchExecutor")
    assert moved.replace("from covalent_awsbatch_plugin.awsbatch", "\nfrom covalent_cirro") == here


@pytest.mark.parametrize("tool", TOOLS)
def test_options_in_the_column_here_exist(tool: str) -> None:
    """A name before `=`, where it is no argument of something else."""
    table = [line for line in page(tool).split("| there | here |")[1].splitlines() if line.startswith("| ")]
    code = [each for line in table for each in re.findall(r"`([^`]+)`", re.split(r" \| ", line)[-1])]
    named = {name for each in code for name in re.findall(r"(?<![\w-])([A-Za-z_]\w*)=(?!=)", each)}
    assert named - OF_OTHERS <= {option.name for option in OPTIONS} | PARAMETERS


@pytest.mark.parametrize("tool", TOOLS)
def test_figures_are_those_of_the_last_measurement(tool: str) -> None:
    """Rows of benchmarks/PEERS.md, as they are there."""
    measured = (ROOT / "benchmarks" / "PEERS.md").read_text().splitlines()
    table = page(tool).partition("| tool, way |")[2].splitlines()[2:]
    shown = [line.strip() for line in table if line.startswith("  | ")]
    assert set(shown) <= set(measured)
    assert shown or tool == "skypilot"

"""Every command that a page shows is run by a test or by CI; those that are quick to run are run here.

`tests/cli/test_deploy_page.py` runs the commands of docs/deploy.md.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from covalent_cirro.local.emulator import Emulator, command_line
from tests.unit.template_facts import Template
from tests.unit.test_docs import PAGES, ROOT

RUN_BY = {
    "make check": ".ci/run",
    "make test": ".ci/run",
    "make sweep": ".ci/run",
    "make pipeline": "tests/covalent/test_pipeline.py",
    "source .venv/bin/activate": ".ci/run",
    "make docs": "Makefile",  # a part of `make check`
    "make bench": "tests/benchmarks/test_figures.py",
    "make bench-peers": "tests/benchmarks/test_peers.py",
    "make bench-serving": "tests/benchmarks/test_serving.py",
    "make faults": "tests/faults/test_page.py",
    "pip install covalent-cirro": "tests/emulator/test_ci_push.py",
    "covalent start": "tests/cli/test_deploy_page.py",
    "cirro deploy": "tests/cli/test_deploy_page.py",
    "cirro image build": "tests/images/test_real_images.py",
    "cirro image push": "tests/images/test_pushed.py",
    "cirro image list": "tests/cli/test_image.py",
    "cirro run": "tests/covalent/test_run.py",
    "cirro run --reuse": "tests/covalent/test_reuse.py",
    "cirro jobs": "tests/cli/history/test_jobs.py",
    "cirro show": "tests/cli/history/test_show.py",
    "cirro logs": "tests/cli/history/test_logs.py",
    "cirro stop": "tests/cli/history/test_stop.py",
    "cirro report": "tests/cli/test_report.py",
    "cirro estimate": "tests/cli/test_report.py",
    "cirro local": "tests/cli/test_local.py",
    'eval "$(cirro local env)"': "tests/cli/test_local.py",
    "docker build": "tests/images/test_real_images.py",
    "docker build --file docker/serve.Dockerfile": "tests/images/test_serve_image.py",
    "python examples/pi.py": "tests/cli/test_deploy_page.py",
    "python examples/sweep.py": "tests/covalent/test_sweep.py",
    "make search": "tests/covalent/test_search.py",
    "cirro search": "tests/covalent/test_search.py",
    "pip install 'covalent-cirro[search]'": "tests/emulator/test_ci_push.py",
    "make serve": "tests/covalent/test_recommender.py",
    "python examples/recommender/sweep.py": "tests/covalent/test_recommender.py",
    "cirro models": "tests/plugin/test_models.py",
    "pip install 'covalent-cirro[models]'": "tests/emulator/test_ci_push.py",
    "python examples/pipeline.py": "tests/covalent/test_pipeline.py",
    "cirro serve": "tests/cli/test_serve.py",
    "repository=$(aws": "tests/cli/test_serve.py",
    "aws batch create-consumable-resource": "tests/aws/test_properties.py",  # by boto3: its parameters are the API's
    "aws ecr get-login-password": "tests/emulator/test_ci_push.py",
    "docker push": "tests/images/test_pushed.py",
    "aws secretsmanager create-secret": "tests/emulator/test_secrets.py",
    "key=$(sed": "tests/unit/test_page_commands.py",
    "ask": "tests/unit/test_page_commands.py",
}
"""By the beginning of a command, what runs it."""

DEPLOY_PAGE = ROOT / "docs" / "deploy.md"
HELP = re.compile(r"<!-- commands: made.*?<!-- end of commands -->", re.DOTALL)

AWS = """\
#!{python}
# Stands for the AWS CLI: writes down what it is asked, and answers with the outputs of a stack.
import json, os, re, sys
with open(os.environ["ASKED"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if "describe-stacks" in sys.argv:
    part = sys.argv[sys.argv.index("--stack-name") + 1].rpartition("-")[2]
    print("\\t".join(f"{{name}}=of-{{part}}" for name in json.loads(os.environ["OUTPUTS"])[part]))
"""


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in one of these languages."""
    text = HELP.sub("", page.read_text())
    return [code for language, code in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL) if language in languages]


def commands(page: Path) -> list[str]:
    """What a page shows after a prompt, and its indented commands."""
    text = HELP.sub("", page.read_text())
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    prompted = re.findall(r"^\$ (.*)$", "\n".join(blocks(page, "console")), re.MULTILINE)
    return prompted + re.findall(r"^    ((?:make|python|cirro|bash) .*)$", outside, re.MULTILINE)


SHOWN = [(page, command) for page in PAGES if page != DEPLOY_PAGE for command in commands(page)]


def test_every_command_is_run_by_something() -> None:
    """A command that nothing runs could be wrong for ever."""
    assert len(SHOWN) > 30
    assert [command for _, command in SHOWN if not command.startswith(tuple(RUN_BY))] == []
    assert [start for start in RUN_BY if not any(command.startswith(start) for _, command in SHOWN)] == []
    for place in RUN_BY.values():
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize("start", [start for start, place in RUN_BY.items() if place == ".ci/run"])
def test_ci_runs_what_it_is_said_to_run(start: str) -> None:
    """By the words of the page."""
    assert re.search(rf"^{start}\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_make_check_builds_the_site() -> None:
    """So CI does."""
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.search(r"\$\(MAKE\).* docs$", recipe, re.MULTILINE)


def test_faults_are_set_as_the_page_says(tmp_path: Path) -> None:
    """The lines of docs/emulator.md set a fault and clear it."""
    (block,) = [block for block in blocks(ROOT / "docs" / "emulator.md", "console") if "_cirro/faults" in block]
    lines = [line.removeprefix("$ ") for line in block.splitlines()]
    with Emulator(state_dir=tmp_path / ".cirro" / "emulator") as emulator:
        for last, faults in ((lines[-2], 1), (lines[-1], 0)):
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", "\n".join([*lines[:2], last])],
                cwd=tmp_path,
                env={**os.environ, "AWS_ENDPOINT_URL": emulator.endpoint_url},
                check=True,
                timeout=60,
            )
            assert len(emulator.faults.all()) == faults


def test_the_emulator_takes_the_command_lines_of_its_page() -> None:
    """With all arguments that it needs."""
    text = (ROOT / "docs" / "emulator.md").read_text()
    lines = re.findall(r"python -m covalent_cirro\.emulator ([^`\n]*)`", text)
    assert len(lines) == text.count("python -m covalent_cirro.emulator")
    for line in lines:
        assert command_line.parse(line.split()).state_dir


def test_a_deployment_by_hand_passes_all_outputs_on(tmp_path: Path) -> None:
    """The scripts of infra/README.md deploy the stacks in order, with each parameter that has no default."""
    outputs = {part: list(Template(part).body["Outputs"]) for part in ("network", "storage", "roles", "compute")}
    stacks = {**{part: f"cirro-{part}" for part in outputs}, "serving": "cirro-serving-recommender"}
    aws, asked = tmp_path / "aws", tmp_path / "asked"
    aws.write_text(AWS.format(python=sys.executable))
    aws.chmod(0o755)
    scripts = blocks(ROOT / "infra" / "README.md", "bash")
    assert len(scripts) == 5
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "ASKED": str(asked)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(scripts)],
        env={**os.environ, **environment, "OUTPUTS": json.dumps(outputs), "image": "recommender", "version": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in asked.read_text().splitlines()]
    deployed = [call for call in calls if call[:2] == ["cloudformation", "deploy"]]
    assert [call[call.index("--stack-name") + 1] for call in deployed] == list(stacks.values())
    for call, part in zip(deployed, stacks, strict=True):
        given = {word.partition("=")[0] for word in call[call.index("--parameter-overrides") + 1 :]}
        assert (ROOT / call[call.index("--template-file") + 1]).exists()
        required = {name for name, each in Template(part).parameters.items() if "Default" not in each}
        assert required <= given, part
    deleted = [call for call in calls if call[:2] == ["cloudformation", "delete-stack"]]
    assert [call[-1] for call in deleted if "budget" not in call[-1]] == [f"cirro-{part}" for part in reversed(outputs)]


def test_the_template_for_ci_is_in_the_installed_package(tmp_path: Path) -> None:
    """The line of examples/ci/README.md writes it to a file."""
    (line,) = [
        block for block in blocks(ROOT / "examples" / "ci" / "README.md", "sh") if "templates import body" in block
    ]
    bin_folder = Path(sys.executable).parent
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        timeout=60,
    )
    assert (tmp_path / "ci.yaml").read_text() == (ROOT / "infra" / "ci.yaml").read_text()

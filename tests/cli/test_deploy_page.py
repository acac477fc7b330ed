"""docs/deploy.md is true: its commands run in order on the emulator, its sums are right, its pictures can be taken."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from covalent_cirro.deployment.doctor.checks import CHECKS
from covalent_cirro.local import covalent_process
from covalent_cirro.local.emulator import Emulator
from tests.aws.walk import Account
from tests.cli.test_walk import account, footprint, put_image

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploy.md"
TEXT = PAGE.read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]

ELSEWHERE = {
    "pip install": "needs a package index; tests/emulator/test_ci_push.py installs the wheel",
    "aws configure": "asks its questions on a terminal, or in a browser",
    "aws sso login": "opens a browser",
    "covalent start": "the page's server runs already, in a folder of its own",
    "cirro image push": "needs a container engine; here an image is put into the repository without one",
    "python examples/sweep.py": "tests/covalent/test_sweep.py runs it",
    "CIRRO_LIVE=1": "needs an account; tests/cli/test_walk.py takes the same walk",
}
"""Commands that cannot run here, by how they begin, and why."""

CHECKED_ONLY = ("aws ce ", "aws service-quotas ")
"""Calls that the emulator has no answer to: the AWS CLI checks them against the API's model and sends nothing."""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An account of its own."""
    with Emulator() as emulator:
        yield emulator


@pytest.mark.covalent
@pytest.mark.timeout(900)
def test_every_command_runs(emulator: Emulator, tmp_path: Path) -> None:
    """In the page's order, from an empty account to an empty account. Where `cirro` asks, the answer is yes."""
    there = account(emulator, tmp_path / "covalent")
    before = footprint(emulator)
    known = prepare(emulator)
    with Account("cirro", there.environment, there.folder, there.client).covalent():
        for command in COMMANDS:
            if not command.startswith(tuple(ELSEWHERE)):
                run(command, there, known)
            elif command == "cirro image push":
                put_image(emulator, Account("cirro", there.environment, there.folder, there.client))
            named = re.search(r"cirro deploy .*--stack-name (\S+)", command)
            if named is not None:  # another network than the page's own: from here the page goes on with its own
                run(f"cirro destroy --stack-name {named[1]}", there, known)
    emulator.client("cloudformation").delete_stack(StackName="cirro-ci")
    after = footprint(emulator)
    assert {name: (before[name], after[name]) for name in after if before[name] != after[name]} == {
        "VPCs": (before["VPCs"], before["VPCs"] + 1),  # the one that "ours" was deployed into
        "subnets": (before["subnets"], before["subnets"] + 1),
        "security groups": (before["security groups"], before["security groups"] + 1),
    }


def prepare(emulator: Emulator) -> dict[str, str]:
    """Makes what the page takes for granted; returns what stands in the place of its examples."""
    emulator.client("iam").create_user(UserName="ada")
    ec2 = emulator.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    return {"vpc-0123456789abcdef0": vpc, "subnet-0123456789abcdef0": subnet}


def run(command: str, there: Account, known: dict[str, str]) -> None:
    """A line of the page, by a shell."""
    if command.startswith("aws ") and shutil.which("aws") is None:
        return  # `test_the_aws_cli_is_here` says so
    for example, real in known.items():
        command = command.replace(example, real)
    if command.startswith(("cirro deploy", "cirro destroy")):
        command += " --yes"
    if command.startswith("python examples/pi.py"):
        command += " --jobs 4"  # of this machine's, not of AWS's
    if command.startswith(CHECKED_ONLY):
        command += " --generate-cli-skeleton output"
    environment = {
        **there.environment,
        **covalent_process.client_environment(there.folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{there.environment['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.skipif(shutil.which("aws") is None, reason="there is no AWS CLI: the page's lines for it are not run")
def test_the_aws_cli_is_here() -> None:
    """And the page has lines for it, for `cirro` and for Python."""
    assert {"aws", "cirro", "python"} <= {command.split()[0] for command in COMMANDS}


def test_the_readme_says_the_same() -> None:
    """From account to first job in five commands, each of which the page has."""
    readme = (ROOT / "README.md").read_text()
    (section,) = re.findall(r"## On AWS: five commands(.*?)\n## ", readme, re.DOTALL)
    commands = [line.partition("#")[0].strip() for line in re.findall(r"^\$ (.*)$", section, re.MULTILINE)]
    assert len(commands) == 5
    assert all(any(ours.startswith(command) for ours in COMMANDS) for command in commands)


def test_what_is_not_run_is_listed() -> None:
    """Each beginning on the list is one of the page's."""
    assert [start for start in ELSEWHERE if not any(command.startswith(start) for command in COMMANDS)] == []


def test_doctors_lines_are_doctors() -> None:
    """The table of what goes wrong names checks that there are."""
    (table,) = re.findall(r"\| what you see \|.*?\n\n", TEXT, re.DOTALL)
    named = {name for row in table.splitlines()[2:] if row for name in re.findall(r"`([a-z_]+)`", row.split("|")[2])}
    assert len(named) > 10
    assert named <= {check.id for check in CHECKS}


def test_the_sums_are_right() -> None:
    """Of the page's own prices."""

    def price(row: str) -> float:
        found = re.search(rf"^\| {re.escape(row)}[^|]*\| ([\d.]+)", TEXT, re.MULTILINE)
        assert found is not None, row
        return float(found[1])

    idle = 10 * price("bucket") + 5 * price("images") + 1 * 0.03
    assert "**0.76 a month**" in TEXT
    assert round(idle, 2) == 0.76
    endpoint = price("interface endpoint")
    assert round(6 * 2 * endpoint * 730) == 88
    assert "**88 a month**" in TEXT
    beside = price("disk of an instance") + price("public address")
    sweep = {share: 12 / 6 * (share * price("c6i.large") + beside) for share in (0.4, 1.0)}
    assert [round(cost, 1) for cost in sweep.values()] == [0.1, 0.2]
    gpu = price("g4dn.xlarge")
    assert round(gpu + beside, 2) == 0.54
    assert [round(spot + beside, 2) for spot in (0.17, 0.26)] == [0.19, 0.28]
    assert all(
        figure in TEXT for figure in ("**0.10 on Spot**", "0.20 on demand", "**0.54**", "**0.19 to 0.28 on Spot**")
    )


@pytest.mark.covalent
@pytest.mark.timeout(300)
def test_the_pictures_can_be_taken(tmp_path: Path) -> None:
    """They are of the commands that they say, on the emulator, and hold nothing of the machine that took them."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "pictures" / "take_terminal.py", "--output", tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    taken = {file.name: file.read_text() for file in tmp_path.glob("*.svg")}
    kept = {file.name: file.read_text() for file in (ROOT / "docs" / "pictures").glob("*.svg")}
    assert taken.keys() == {"cirro-deploy.svg", "cirro-doctor.svg", "cirro-doctor-fails.svg"}
    for text in [*taken.values(), *kept.values()]:
        assert str(ROOT) not in text
        assert "/tmp" not in text
        assert "127.0.0.1" not in text
    for pictures in (taken, kept):
        assert "is&#160;ready" in pictures["cirro-deploy.svg"]
        assert "failure" in pictures["cirro-doctor-fails.svg"]
        assert "failure" not in pictures["cirro-doctor.svg"]

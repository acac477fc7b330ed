"""The example of a CI for images: both services understand it, it stores no key, and it keeps to its versions."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]

from covalent_cirro import __version__
from covalent_cirro.contract import problems, protocol

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ci"
GITHUB, CIRCLECI = EXAMPLE / "github-actions.yml", EXAMPLE / "circleci.yml"
SCHEMAS = {GITHUB: "vendor.github-workflows", CIRCLECI: "vendor.circle-ci"}
TEMPLATE: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(ROOT / "infra" / "ci.yaml"))))

WORKFLOW: dict[Any, Any] = yaml.safe_load(GITHUB.read_text())
CONFIG: dict[str, Any] = yaml.safe_load(CIRCLECI.read_text())
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["image"]["steps"]


def circleci_runs(steps: list[Any]) -> list[dict[str, Any]]:
    """The ``run`` steps, those under ``when`` included."""
    found = []
    for step in steps:
        if isinstance(step, dict) and "run" in step:
            found.append(step["run"])
        if isinstance(step, dict) and "when" in step:
            found += circleci_runs(step["when"]["steps"])
    return found


SCRIPTS = {
    **{f"github: {step['name']}": step["run"] for step in STEPS if "run" in step},
    **{f"circleci: {run['name']}": run["command"] for run in circleci_runs(CONFIG["jobs"]["image"]["steps"])},
    "push.sh": (EXAMPLE / "push.sh").read_text(),
}


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: str(file.name))
def test_the_service_understands_it(file: Path) -> None:
    """By the schema that the service publishes, as check-jsonschema carries it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[file], str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_shell_is_shell(name: str) -> None:
    """bash can read every script; shellcheck, where it is, finds nothing."""
    script = SCRIPTS[name]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=60)
    if shutil.which("shellcheck"):
        done = subprocess.run(
            ["shellcheck", "--shell=bash", "-"], input=script, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "file", [GITHUB, CIRCLECI, EXAMPLE / "push.sh", EXAMPLE / "Dockerfile"], ids=lambda file: file.name
)
def test_no_key_is_stored(file: Path) -> None:
    """Neither a secret of the service, nor AWS's own variables for keys."""
    text = file.read_text()
    assert not re.search(r"(?i)secrets\.|access_key|access-key|AKIA|password[:=]", text)


def test_github_may_do_little() -> None:
    """Nothing by default; the job reads the code and proves who it is. The token of the checkout does not stay."""
    assert WORKFLOW["permissions"] == {}
    assert WORKFLOW["jobs"]["image"]["permissions"] == {"contents": "read", "id-token": "write"}
    (checkout,) = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout")]
    assert checkout["with"]["persist-credentials"] is False


def test_actions_are_pinned_by_what_they_are() -> None:
    """A tag can be moved, a commit cannot; the version stands beside it, for people and for Dependabot."""
    uses = [line for line in GITHUB.read_text().splitlines() if "uses:" in line]
    assert len(uses) == 4
    for line in uses:
        assert re.fullmatch(r"\s+uses: [a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_what_others_wrote_never_becomes_shell() -> None:
    """An expression in a script is text that GitHub pastes in: a branch's name could run. Variables cannot."""
    assert not [name for name, script in SCRIPTS.items() if "${{" in script or "<<" in script]


def test_only_the_branch_pushes() -> None:
    """Credentials are asked for, and images pushed, for what came to main; a pull request ends after its tests."""
    assert WORKFLOW[True] == {"push": {"branches": ["main"]}, "pull_request": None}  # YAML 1.1 reads `on` as true
    condition = "github.event_name == 'push'"
    assert {step["name"] for step in STEPS if step.get("if") == condition} == {"Get credentials of AWS", "Push"}
    jobs = [job["image"] for job in CONFIG["workflows"]["image"]["jobs"]]
    assert [job["filters"]["branches"] for job in jobs if job["push"]] == [{"only": "main"}]
    assert [job["filters"]["branches"] for job in jobs if not job["push"]] == [{"ignore": "main"}]
    assert (
        TEMPLATE["Parameters"]["GitHubBranch"]["Default"]
        == TEMPLATE["Parameters"]["CircleCiBranch"]["Default"]
        == "main"
    )


def test_both_do_the_same() -> None:
    """The same tests before, and the same script to push."""
    assert SCRIPTS["github: Test"] == SCRIPTS["circleci: Test"]
    assert all('./push.sh "$IMAGE" "$IMAGE_REPOSITORY"' in SCRIPTS[name] for name in ("github: Push", "circleci: Push"))


def test_its_versions_are_ours() -> None:
    """Labels and packages of the example's image are those that this version works with."""
    dockerfile = (EXAMPLE / "Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG ([A-Z_]+)=(\S+)$", dockerfile, re.MULTILINE))
    pins = dict(re.findall(r"^([a-z]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert arguments == {
        "PYTHON_VERSION": "3.11",
        "RUNNER_VERSION": __version__,
        "CLOUDPICKLE_VERSION": pins["cloudpickle"],
        "AWSCRT_VERSION": pins["awscrt"],
    }
    labels = dict(re.findall(r"(covalent-cirro\.\S+)=(\S+)", dockerfile))
    assert labels == {
        protocol.LABEL_PYTHON: "${PYTHON_VERSION}",
        protocol.LABEL_CLOUDPICKLE: "${CLOUDPICKLE_VERSION}",
        protocol.LABEL_RUNNER: "${RUNNER_VERSION}",
        protocol.LABEL_FORMAT: problems.CALL_FORMAT,
    }


def test_the_roles_can_push_to_one_repository_and_nothing_else() -> None:
    """No deletion, no other service; only the login cannot be limited to a repository (IAM has no resource for it)."""
    (policy,) = [each for each in TEMPLATE["Resources"].values() if each["Type"] == "AWS::IAM::ManagedPolicy"]
    log_in, push = policy["Properties"]["PolicyDocument"]["Statement"]
    assert (log_in["Action"], log_in["Resource"]) == ("ecr:GetAuthorizationToken", "*")
    assert push["Resource"] == {"Ref": "ImageRepositoryArn"}
    assert set(push["Action"]) == {
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:CompleteLayerUpload",
        "ecr:InitiateLayerUpload",
        "ecr:PutImage",
        "ecr:UploadLayerPart",
    }
    for role in ("GitHubRole", "CircleCiRole"):
        properties = TEMPLATE["Resources"][role]["Properties"]
        assert properties["ManagedPolicyArns"] == [{"Ref": "PushPolicy"}]
        assert "Policies" not in properties
        assert properties["MaxSessionDuration"] == 3600


@pytest.mark.parametrize(
    ("parameter", "value", "allowed"),
    [
        ("GitHubRepository", "octo-org/octo-repo", True),
        ("GitHubRepository", "octo-org@123456/octo.repo_2@456789", True),
        ("GitHubRepository", "octo-org/*", False),
        ("GitHubRepository", "octo-org/octo-repo:ref:refs/heads/other", False),
        ("GitHubBranch", "release/1.x", True),
        ("GitHubBranch", "*", False),
        ("CircleCiProjectId", "*", False),
        ("CircleCiRepository", "github.com/octo-org/*", False),
        ("CircleCiBranch", "ma?n", False),
    ],
)
def test_a_parameter_names_one_thing(parameter: str, value: str, allowed: bool) -> None:
    """A wildcard in a trust policy would let others in."""
    assert bool(re.fullmatch(TEMPLATE["Parameters"][parameter]["AllowedPattern"], value)) is allowed

"""The workflows and hooks of this repository: GitHub understands them, and they have no right that they do not need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from covalent_cirro import __version__

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: path for path in sorted((GITHUB / "workflows").glob("*"))}
PARSED: dict[str, dict[Any, Any]] = {name: yaml.safe_load(path.read_text()) for name, path in WORKFLOWS.items()}
JOBS = {f"{name}: {job}": content for name, workflow in PARSED.items() for job, content in workflow["jobs"].items()}
SCRIPTS = {
    f"{job}: {step['name']}": step["run"]
    for job, content in JOBS.items()
    for step in content.get("steps", ())
    if "run" in step
}
HOOKS: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", list(WORKFLOWS.values())),
        ("vendor.github-issue-forms", sorted((GITHUB / "ISSUE_TEMPLATE").glob("*"))),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
    ],
)
def test_github_understands_the_files(schema: str, files: list[Path]) -> None:
    """Each file is valid by the schema that GitHub publishes, as check-jsonschema carries it."""
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_same_as_a_person_on_each_python() -> None:
    """`.ci/run`, on the versions of Python that the package says it works with."""
    settings = (ROOT / "setup.cfg").read_text()
    assert PARSED["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"] == re.findall(r":: (3\.\d+)", settings)
    assert SCRIPTS["ci: test: Check and test"] == "bash .ci/run"
    assert (ROOT / ".ci" / "run").exists()


def test_no_workflow_has_rights_that_its_jobs_do_not_name() -> None:
    """Jobs read the code; only the job that publishes may ask for an identity, and no token of a checkout is kept."""
    assert [workflow["permissions"] for workflow in PARSED.values()] == [{}] * len(PARSED)
    rights = {job: content["permissions"] for job, content in JOBS.items()}
    assert rights.pop("release: publish") == {"id-token": "write"}
    assert all(each == {"contents": "read"} for each in rights.values())
    for content in JOBS.values():
        for step in content.get("steps", ()):
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_no_workflow_reads_a_secret() -> None:
    """PyPI recognizes the workflow itself (trusted publishing)."""
    assert not [name for name, path in WORKFLOWS.items() if re.search(r"secrets\.|password", path.read_text())]


@pytest.mark.parametrize("path", WORKFLOWS.values(), ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    """A tag can be moved, a commit cannot. The version stands beside it, for people and for Dependabot."""
    uses = [line for line in path.read_text().splitlines() if "uses: " in line and "uses: ./" not in line]
    assert uses
    for line in uses:
        assert re.fullmatch(r"\s+uses: [a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_valid_shell(name: str) -> None:
    """bash can read each script, no expression of GitHub is pasted into it; shellcheck, if installed, is content."""
    script = SCRIPTS[name]
    assert "${{" not in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=60)
    if shutil.which("shellcheck"):
        done = subprocess.run(
            ["shellcheck", "--shell=bash", "-"], input=script, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout


def test_nothing_is_published_that_failed_a_test() -> None:
    """The job that publishes waits for the tests of all versions of Python, and for the tag's check."""
    assert PARSED["release"]["jobs"]["publish"]["needs"] == ["test", "build"]
    assert PARSED["release"]["jobs"]["test"]["uses"] == "./.github/workflows/ci.yml"
    assert PARSED["release"][True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true


@pytest.mark.parametrize(
    ("tag", "built", "accepted"),
    [
        (f"v{__version__}", __version__, True),
        ("v0.0.9", __version__, False),
        (f"v{__version__}", f"{__version__}.dev1", False),
    ],
)
def test_a_tag_publishes_the_version_that_it_names(tag: str, built: str, accepted: bool, tmp_path: Path) -> None:
    """Any other tag fails the release before something is uploaded."""
    (tmp_path / "dist").mkdir()
    for name in (f"covalent_cirro-{built}-py3-none-any.whl", f"covalent_cirro-{built}.tar.gz"):
        (tmp_path / "dist" / name).touch()
    done = subprocess.run(
        ["bash", "-e", "-c", SCRIPTS["release: build: Compare the tag with the version"]],
        env={**os.environ, "GITHUB_REF_NAME": tag},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) is accepted, done.stderr
    assert accepted or tag in done.stderr


def test_the_changelog_begins_with_this_version() -> None:
    """Its first section is the version of the package."""
    assert re.findall(r"^## (\S+?),? ", CHANGELOG, re.MULTILINE)[0] == __version__


def test_the_version_stands_in_one_place() -> None:
    """`covalent_cirro.__version__`: setup.cfg reads it, and no other source, configuration or page repeats it.

    Two Dockerfiles have it as the default of a build argument; `test_images.py` and `test_ci_examples.py` compare it.
    """
    assert "version = attr: covalent_cirro.__version__" in (ROOT / "setup.cfg").read_text()
    folders = ("covalent_cirro", "docker", "docs", "examples", "infra", "tests")
    files = [
        path for name in folders for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".toml", ".cfg", ".md")
    ]
    files += [
        *ROOT.glob("*.toml"),
        *ROOT.glob("*.cfg"),
        ROOT / "Makefile",
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    ]
    found = re.compile(rf"(?i)(covalent.cirro|version)[\W_]{{1,6}}{re.escape(__version__)}")
    assert {str(path.relative_to(ROOT)) for path in files if found.search(path.read_text())} == {
        "covalent_cirro/__init__.py"
    }


def test_hooks_run_the_tools_of_make_check() -> None:
    """ruff in the version that `make check` has; each repository of hooks is pinned to a version."""
    revisions = {hook["repo"].rpartition("/")[2]: hook["rev"] for hook in HOOKS["repos"]}
    pinned = re.findall(r"^ruff==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert [revisions["ruff-pre-commit"]] == [f"v{version}" for version in pinned]
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", revision) for revision in revisions.values())

"""The example of a CI, as far as it can run here: its image is built and tested, its role assumed, its image pushed.

On the emulator with IAM enforced. Who may assume a role is decided by the same evaluation of conditions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from botocore.exceptions import ClientError

from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.emulator.iam.policies import conditions_hold
from tests.emulator.conftest import poll

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ci"
ORGANIZATION, PROJECT, PERSON = (f"{digit * 8}-0000-4000-8000-{digit * 12}" for digit in "123")
GITHUB = "token.actions.githubusercontent.com"
CIRCLECI = f"oidc.circleci.com/org/{ORGANIZATION}"
IMAGE = "localhost/cirro-ci-example:test"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """An account with two repositories for images, in which policies count."""
    with Emulator(iam=True) as emulator:
        for name in ("ours", "theirs"):
            emulator.client("ecr").create_repository(repositoryName=name)
        yield emulator


def deploy(emulator: Emulator, stack_name: str, **parameters: str) -> dict[str, str]:
    """The outputs of ``infra/ci.yaml``; `AssertionError` with the reason where it cannot be made."""
    client = emulator.client("cloudformation")
    repository = emulator.client("ecr").describe_repositories(repositoryNames=["ours"])["repositories"][0]
    given = {"ImageRepositoryArn": repository["repositoryArn"], **parameters}
    client.create_stack(
        StackName=stack_name,
        TemplateBody=(ROOT / "infra" / "ci.yaml").read_text(),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
    )
    stack = poll(partial(_settled, client, stack_name), "the stack")
    events = client.describe_stack_events(StackName=stack_name)["StackEvents"]
    assert stack["StackStatus"] == "CREATE_COMPLETE", [each.get("ResourceStatusReason") for each in events]
    return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}


def _settled(client: Any, stack_name: str) -> Any:
    (stack,) = client.describe_stacks(StackName=stack_name)["Stacks"]
    return None if stack["StackStatus"].endswith("_IN_PROGRESS") else stack


@pytest.fixture(scope="module")
def roles(emulator: Emulator) -> Iterator[dict[str, str]]:
    """ARNs of the two roles, by output."""
    yield deploy(
        emulator,
        "cirro-ci",
        GitHubRepository="octo-org@12/octo-repo@34",
        CircleCiOrganizationId=ORGANIZATION,
        CircleCiProjectId=PROJECT,
        CircleCiRepository="github.com/octo-org/octo-repo",
    )
    emulator.client("cloudformation").delete_stack(StackName="cirro-ci")


def lets_in(emulator: Emulator, role_arn: str, issuer: str, claims: dict[str, str]) -> bool:
    """Whether a role's trust policy lets a token in: its provider is the issuer, its conditions hold for the claims."""
    role = emulator.client("iam").get_role(RoleName=role_arn.rpartition("/")[2])["Role"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Effect"] == "Allow"
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    provider = emulator.client("iam").get_open_id_connect_provider(
        OpenIDConnectProviderArn=statement["Principal"]["Federated"]
    )
    context = {f"{provider['Url']}:{name}": [value] for name, value in claims.items()}
    return bool(
        issuer == provider["Url"]
        and claims["aud"] in provider["ClientIDList"]
        and conditions_hold(statement["Condition"], context)
    )


@pytest.mark.parametrize(
    ("subject", "welcome"),
    [
        ("repo:octo-org@12/octo-repo@34:ref:refs/heads/main", True),
        ("repo:octo-org@12/octo-repo@34:ref:refs/heads/other", False),
        ("repo:octo-org@12/octo-repo@34:ref:refs/tags/main", False),
        ("repo:octo-org@12/octo-repo@34:pull_request", False),
        ("repo:octo-org@12/octo-repo@34:environment:main", False),
        ("repo:octo-org@99/octo-repo@98:ref:refs/heads/main", False),
        ("repo:octo-org/octo-repo:ref:refs/heads/main", False),
        ("repo:octo-org@12/octo-repo@345:ref:refs/heads/main", False),
    ],
)
def test_github_gets_in_from_one_branch_of_one_repository(
    emulator: Emulator, roles: dict[str, str], subject: str, welcome: bool
) -> None:
    """Subjects as GitHub writes them: not a pull request, nor another repository that got a name which was free."""
    claims = {"aud": "sts.amazonaws.com", "sub": subject}
    assert lets_in(emulator, roles["GitHubRole"], GITHUB, claims) is welcome
    assert not lets_in(emulator, roles["GitHubRole"], GITHUB, {**claims, "aud": "https://github.com/octo-org"})


@pytest.mark.parametrize(
    ("subject", "welcome"),
    [
        ("org/{o}/project/{p}/user/{u}/vcs-origin/github.com/octo-org/octo-repo/vcs-ref/refs/heads/main", True),
        ("org/{o}/project/{p}/user/{u}/vcs-origin/github.com/octo-org/octo-repo/vcs-ref/refs/heads/other", False),
        ("org/{o}/project/{p}/user/{u}/vcs-origin/github.com/a-fork/octo-repo/vcs-ref/refs/heads/main", False),
        ("org/{o}/project/{u}/user/{u}/vcs-origin/github.com/octo-org/octo-repo/vcs-ref/refs/heads/main", False),
        ("org/{o}/project/{p}/user/{u}", False),
        (
            "org/{o}/project/{p}/user/{u}/vcs-origin/github.com/octo-org/octo-repo/vcs-ref/refs/heads/"
            "x/vcs-origin/github.com/octo-org/octo-repo/vcs-ref/refs/heads/main",
            False,
        ),
    ],
)
def test_circleci_gets_in_from_one_branch_of_one_project(
    emulator: Emulator, roles: dict[str, str], subject: str, welcome: bool
) -> None:
    """Whoever pushed to it; not from a fork, a webhook, or a branch whose name looks like the rest of the subject."""
    claims = {"aud": ORGANIZATION, "sub": subject.format(o=ORGANIZATION, p=PROJECT, u=PERSON)}
    assert lets_in(emulator, roles["CircleCiRole"], CIRCLECI, claims) is welcome
    assert not lets_in(emulator, roles["CircleCiRole"], CIRCLECI, {**claims, "aud": PROJECT})


def session(emulator: Emulator, role_arn: str) -> Callable[[str], Any]:
    """Makes clients of a role that was assumed by the token that the emulator takes."""
    keys = emulator.client("sts").assume_role_with_web_identity(
        RoleArn=role_arn, RoleSessionName="test", WebIdentityToken=emulator.web_identity
    )["Credentials"]
    return partial(
        emulator.client,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


@pytest.mark.parametrize("role", ["GitHubRole", "CircleCiRole"])
def test_a_role_reaches_one_repository_only(emulator: Emulator, roles: dict[str, str], role: str) -> None:
    """It can begin to push there; not to another, nor delete, nor see what else there is."""
    client = session(emulator, roles[role])
    ecr = client("ecr")
    assert ecr.get_authorization_token()["authorizationData"]
    assert ecr.initiate_layer_upload(repositoryName="ours")["uploadId"]
    refused: list[Callable[[], Any]] = [
        lambda: ecr.initiate_layer_upload(repositoryName="theirs"),
        lambda: ecr.batch_delete_image(repositoryName="ours", imageIds=[{"imageTag": "x"}]),
        lambda: ecr.delete_repository(repositoryName="ours", force=True),
        lambda: ecr.describe_repositories(),
        lambda: client("s3").list_buckets(),
        lambda: client("batch").describe_job_queues(),
        lambda: client("iam").list_roles(),
    ]
    for call in refused:
        with pytest.raises(ClientError, match=r"not authorized|AccessDenied"):
            call()


def test_a_second_repository(emulator: Emulator, roles: dict[str, str]) -> None:
    """An account has one provider of GitHub: a second stack takes its ARN, and deletes nothing of it."""
    iam = emulator.client("iam")
    before = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    (there,) = [each["Arn"] for each in before if each["Arn"].endswith(GITHUB)]
    outputs = deploy(emulator, "second", GitHubRepository="octo-org/second", GitHubProviderArn=there)
    claims = {"aud": "sts.amazonaws.com", "sub": "repo:octo-org/second:ref:refs/heads/main"}
    assert lets_in(emulator, outputs["GitHubRole"], GITHUB, claims)
    assert not lets_in(emulator, roles["GitHubRole"], GITHUB, claims)
    emulator.client("cloudformation").delete_stack(StackName="second")
    poll(lambda: outputs["GitHubRole"] not in str(iam.list_roles()), "the role's end")
    assert iam.list_open_id_connect_providers()["OpenIDConnectProviderList"] == before


# --- with a container engine ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `docker` works, with a registry on the loopback that has no TLS.

    Docker takes such a registry by default; podman needs an option that its Docker API lacks. Its API also loses
    the exit code of `docker run --rm`.
    """
    docker, podman = shutil.which("docker"), shutil.which("podman")
    if docker is None:
        pytest.skip("there is no docker command")
    version = subprocess.run([docker, "version"], capture_output=True, text=True, check=False, cwd="/tmp")
    if version.returncode != 0:
        pytest.skip(f"no container engine answers: {version.stderr}")
    folder = tmp_path_factory.mktemp("docker")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "DOCKER_CONFIG": str(folder),
        "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
    }
    (folder / "auth.json").write_text("{}")
    if "Podman" in version.stdout and podman is not None:
        shim = folder / "docker"
        shim.write_text(
            f'#!/bin/sh\ncase "$1" in\n'
            f'login | push) command=$1; shift; exec "{podman}" "$command" --tls-verify=false "$@" ;;\n'
            f'run) exec "{podman}" "$@" ;;\n'
            f'*) exec "{docker}" "$@" ;;\nesac\n'
        )
        shim.chmod(0o755)
        environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return environment


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a line for each request."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def image(docker: dict[str, str], wheel: Path) -> str:
    """The example's image, built from its Dockerfile; covalent-cirro is this source tree's, by pip's --find-links."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(wheel.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = {"PIP_FIND_LINKS": f"http://127.0.0.1:{server.server_port}/"}
        given |= {name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_TRUSTED_HOST") if name in os.environ}
        arguments = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
        command = ["docker", "build", "--network", "host", "--tag", IMAGE, *arguments, str(EXAMPLE)]
        built = subprocess.run(command, env=docker, capture_output=True, text=True, check=False, cwd="/tmp")
        server.shutdown()
    if "manifest unknown" in built.stderr or "pull access denied" in built.stderr:
        pytest.skip(f"the base image is not here and cannot be pulled: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return IMAGE


def step(service: str, name: str) -> str:
    """The shell of a step of one of the two files."""
    if service == "github":
        steps = yaml.safe_load((EXAMPLE / "github-actions.yml").read_text())["jobs"]["image"]["steps"]
        (script,) = [each["run"] for each in steps if each["name"] == name]
        return str(script)
    text = yaml.safe_load((EXAMPLE / "circleci.yml").read_text())["jobs"]["image"]["steps"]
    runs = [each["run"] for each in [*text, *text[-1]["when"]["steps"]] if isinstance(each, dict) and "run" in each]
    (script,) = [each["command"] for each in runs if each["name"] == name]
    return str(script)


def run(script: str, environment: dict[str, str], folder: Path = EXAMPLE) -> subprocess.CompletedProcess[str]:
    """As GitHub runs a step, in the project's folder, by bash that stops at the first error; CircleCI adds pipefail."""
    return subprocess.run(
        ["bash", "-e", "-c", script],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.container
def test_its_image_passes_its_tests(docker: dict[str, str], image: str, tmp_path: Path) -> None:
    """The step `Test` runs them in the image; one that fails ends the step, and with it the job."""
    environment = {**docker, "IMAGE": image}
    done = run(step("github", "Test"), environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 2 tests" in done.stderr
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    (tmp_path / "tests" / "test_broken.py").write_text("import no_such_module\n")
    broken = run(step("github", "Test"), environment, folder=tmp_path)
    assert broken.returncode != 0
    assert "no_such_module" in broken.stderr


@pytest.mark.container
def test_its_image_says_what_it_can_run(docker: dict[str, str], image: str) -> None:
    """The labels are what is in it."""
    code = (
        "import sys, json, cloudpickle, covalent_cirro; from covalent_cirro.contract.problems import CALL_FORMAT; "
        "print(json.dumps([f'{sys.version_info[0]}.{sys.version_info[1]}', cloudpickle.__version__, "
        "covalent_cirro.__version__, CALL_FORMAT]))"
    )
    inside = subprocess.run(
        ["docker", "run", "--rm", image, "python", "-c", code],
        env=docker,
        cwd="/tmp",
        capture_output=True,
        text=True,
        check=True,
    )
    labels = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image],
        env=docker,
        cwd="/tmp",
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(labels.stdout)
    names = ("python", "cloudpickle", "runner", "call-format")
    assert [said[f"covalent-cirro.{name}"] for name in names] == json.loads(inside.stdout)


@pytest.mark.container
@pytest.mark.parametrize("service", ["github", "circleci"])
def test_the_push(
    emulator: Emulator, roles: dict[str, str], docker: dict[str, str], image: str, service: str, tmp_path: Path
) -> None:
    """With the role's credentials and no others. The line printed is the setting; a second run pushes nothing."""
    if shutil.which("aws") is None:
        pytest.skip("there is no AWS CLI")
    commit = f"{service}-commit"
    repository = emulator.client("ecr").describe_repositories(repositoryNames=["ours"])["repositories"][0]
    environment = {
        **{name: value for name, value in docker.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": emulator.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "IMAGE": image,
        "IMAGE_REPOSITORY": repository["repositoryUri"],
    }
    if service == "github":  # the action that gets credentials is GitHub's and AWS's; what it sets is set here
        keys = emulator.client("sts").assume_role_with_web_identity(
            RoleArn=roles["GitHubRole"], RoleSessionName="GitHubActions", WebIdentityToken=emulator.web_identity
        )["Credentials"]
        environment |= {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
            "GITHUB_SHA": commit,
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        }
    else:
        environment |= {
            "CIRCLE_OIDC_TOKEN_V2": emulator.web_identity,
            "CIRRO_PUSH_ROLE": roles["CircleCiRole"],
            "CIRCLE_SHA1": commit,
            "TMPDIR": str(tmp_path),
        }
    first, second = (run(step(service, "Push"), environment) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    (pushed,) = emulator.client("ecr").describe_images(repositoryName="ours", imageIds=[{"imageTag": commit}])[
        "imageDetails"
    ]
    line = f'container_image_uri = "{repository["repositoryUri"]}@{pushed["imageDigest"]}"\n'
    assert first.stdout == second.stdout == line
    assert second.stderr == ""
    if service == "github":
        assert (tmp_path / "summary").read_text() == line * 2
    else:
        assert list(tmp_path.iterdir()) == []  # the token's file

"""The emulated ECR within the emulator: regions, faults, other services, and a job of a pushed image."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import requests

from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.emulator.ecr.registry import operation
from tests.emulator.conftest import Aws
from tests.emulator.registry.conftest import details, new_names
from tests.pushed_images import Pushes

NOISE = bytes(range(256)) * 8192
"""Two megabytes: more than one piece."""


# --- how it stands in the emulator ------------------------------------------------------------------------------------


def test_the_repositorys_uri_is_where_one_pushes_to(registry: Pushes, repository: str, aws: Aws) -> None:
    """In ECR's API, and as an output of CloudFormation."""
    (found,) = registry.ecr.describe_repositories(repositoryNames=[repository])["repositories"]
    assert found["repositoryUri"] == f"127.0.0.1:{aws.emulator.port}/{repository}"
    name = next(new_names)
    properties = {
        "RepositoryName": name,
        "ImageTagMutability": "IMMUTABLE",
        "EncryptionConfiguration": {"EncryptionType": "AES256"},
        "EmptyOnDelete": True,
    }
    template = {
        "Resources": {"Images": {"Type": "AWS::ECR::Repository", "Properties": properties}},
        "Outputs": {"Uri": {"Value": {"Fn::GetAtt": ["Images", "RepositoryUri"]}}},
    }
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName=name, TemplateBody=json.dumps(template))
    (stack,) = stacks.describe_stacks(StackName=name)["Stacks"]
    assert [each["OutputValue"] for each in stack["Outputs"]] == [f"127.0.0.1:{aws.emulator.port}/{name}"]
    registry.image(name, "one")
    properties["ImageTagMutability"] = "MUTABLE"
    stacks.update_stack(StackName=name, TemplateBody=json.dumps(template))
    (made,) = registry.ecr.describe_repositories(repositoryNames=[name])["repositories"]
    assert made["imageTagMutability"] == "MUTABLE"
    assert made["encryptionConfiguration"] == {"encryptionType": "AES256"}
    assert len(details(registry, name)) == 1
    stacks.delete_stack(StackName=name)
    assert registry("GET", f"{name}/tags/list").errors == ["NAME_UNKNOWN"]


def test_regions_have_repositories_of_their_own(aws: Aws, registry: Pushes) -> None:
    """A token is for the region that gave it."""
    name = next(new_names)
    other = Pushes(aws.emulator, region_name="eu-west-1")
    other.repository(name)
    other.image(name, "one")
    assert registry("GET", f"{name}/manifests/one").errors == ["NAME_UNKNOWN"]
    assert other("GET", f"{name}/manifests/one").status == 200


def test_calls_of_engines_are_counted_and_hit_by_faults(
    registry: Pushes, repository: str, aws: Aws, faults: Any
) -> None:
    """Under ``registry:``."""
    registry.image(repository, "one")
    aws.emulator.calls.reset()
    registry("GET", f"{repository}/manifests/one")
    assert aws.emulator.calls.counts()["registry:GetManifest"]["count"] == 1
    faults.add("error", service="registry", operation="GetManifest", status=503, count=1)
    assert registry("GET", f"{repository}/manifests/one").status == 503
    assert registry("GET", f"{repository}/manifests/one").status == 200


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v2/", "Ping"),
        ("PUT", "/v2/a/b/c/manifests/latest", "PutManifest"),
        ("PATCH", "/v2/a/blobs/uploads/1-2", "PatchUpload"),
        ("HEAD", "/v2/a/blobs/sha256:00", "GetBlob"),
        ("POST", "/v2/a/blobs/uploads/", "BeginUpload"),
    ],
)
def test_what_a_request_is_called(method: str, path: str, name: str) -> None:
    """Names of repositories may have slashes."""
    assert operation(method, path) == name


def test_a_bucket_and_a_signed_call_are_not_the_registrys(aws: Aws) -> None:
    """Other AWS services have paths under ``/v2/`` too: those come signed."""
    answer = requests.get(
        f"{aws.emulator.endpoint_url}/v2/apis",
        headers={
            "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/apigateway/aws4_request, "
            "SignedHeaders=host, Signature=00"
        },
        timeout=30,
    )
    assert "Docker-Distribution-Api-Version" not in answer.headers


def test_images_are_gone_with_the_emulator(tmp_path: Path) -> None:
    """The user's folder stays, without them."""
    with Emulator(state_dir=tmp_path / "state") as emulator:
        registry = Pushes(emulator)
        registry.image(registry.repository("cirro"), "one")
        assert (tmp_path / "state" / "registry").is_dir()
    assert not (tmp_path / "state" / "registry").exists()


def test_the_emulator_starts_without_any_of_it(tmp_path: Path) -> None:
    """moto is imported at the first call that needs it, its ECR at the first call about images."""
    code = (
        "import sys\n"
        "from covalent_cirro.local.emulator import Emulator\n"
        f"with Emulator(state_dir={str(tmp_path / 'state')!r}):\n"
        "    print({'moto', 'moto.ecr', 'docker', 'covalent_cirro.local.emulator.ecr.ecr_api'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
    assert not (tmp_path / "state" / "registry").exists()


# --- with an engine ---------------------------------------------------------------------------------------------------


def shell_image() -> bytes:
    """The smallest image with a shell: this machine's, and the libraries that it needs."""
    linked = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    needed = {"/bin/sh", *re.findall(r"(/\S+) \(0x", linked)}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in needed:
            info = tar.gettarinfo(str(Path(path).resolve()), arcname=path.lstrip("/"))
            with Path(path).resolve().open("rb") as file:
                tar.addfile(info, file)
    return archive.getvalue()


def push(engine: Any, uri: str, tag: str, login: dict[str, str]) -> None:
    """What ``docker push`` does.

    Docker speaks plain HTTP to a registry on the loopback by itself. podman's service has to be asked to, by
    `tlsVerify` (which Docker ignores), or by a file that it reads when it starts:
    ``/etc/containers/registries.conf.d/loopback.conf`` with ``[[registry]]``, ``location = "127.0.0.1"`` and
    ``insecure = true``; only then `docker push` itself works with it.
    """
    from docker.auth import encode_header

    answer = engine.api.post(
        engine.api._url("/images/{0}/push", uri),
        params={"tag": tag, "tlsVerify": "false"},
        headers={"X-Registry-Auth": encode_header(login)},
        stream=True,
    )
    lines = [json.loads(line) for line in answer.iter_lines() if line]
    assert answer.ok, lines
    assert not [line for line in lines if "error" in line], lines


@pytest.mark.container
def test_a_job_runs_the_image_that_an_engine_pushed(engine: Any, tmp_path: Path) -> None:
    """Pushed with the token, removed from the engine, pulled by the emulated ECS agent with a token of its own."""
    import docker.errors

    with Emulator(state_dir=tmp_path / "state", docker=True) as emulator:
        aws = Aws(emulator)
        ecr = emulator.client("ecr")
        uri = ecr.create_repository(repositoryName="cirro")["repository"]["repositoryUri"]
        (data,) = ecr.get_authorization_token()["authorizationData"]
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        imported = json.loads(engine.api.import_image_from_data(shell_image()).splitlines()[-1])["status"]
        try:
            engine.images.get(imported).tag(uri, "one")
            with pytest.raises(AssertionError, match=r"(?i)authori[sz]"):
                push(engine, uri, "one", {"username": user, "password": "wrong"})
            push(engine, uri, "one", {"username": user, "password": password})
            (detail,) = ecr.describe_images(repositoryName="cirro")["imageDetails"]
            assert detail["imageTags"] == ["one"]
            engine.images.remove(f"{uri}:one", force=True)
            for image in (f"{uri}:one", f"{uri}@{detail['imageDigest']}"):
                done = aws.done(aws.submit(definition=aws.definition("/bin/sh", "-c", "echo from ECR", image=image)))
                assert done["status"] == "SUCCEEDED", done
                assert aws.log(done) == ["from ECR"]
            missing = aws.done(aws.submit(definition=aws.definition("true", image=f"{uri}:two")))
            assert "CannotPullContainerError" in missing["attempts"][0]["container"]["reason"]
            assert "manifest unknown" in missing["attempts"][0]["container"]["reason"].replace("_", " ").lower()
        finally:
            with contextlib.suppress(docker.errors.APIError):  # the job's own pull has the same id
                engine.images.remove(imported, force=True)

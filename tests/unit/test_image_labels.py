"""What an image says of itself, what is refused for it, and how seldom AWS is asked."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from datetime import datetime, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError

from covalent_cirro.aws import image_labels
from covalent_cirro.aws.image_labels import ImageVersions
from covalent_cirro.aws.sessions import Access
from covalent_cirro.contract import problems, protocol
from covalent_cirro.errors import ImageError
from covalent_cirro.jobs import image_modules, image_rules
from covalent_cirro.jobs.image_rules import (
    EcrImage,
    ImageFacts,
    MissingImage,
    Pickled,
    contents,
    ecr_image,
    facts,
    why_not,
)
from covalent_cirro.settings import BY_NAME, resolve

HOST = "127.0.0.1:4000"
DIGEST = "sha256:" + "0a" * 32
HERE = Pickled("3.11.7", "3.1.2")
ACCOUNT = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        (f"{ACCOUNT}/cirro:1", EcrImage("123456789012", "eu-west-1", "cirro", "1", None)),
        (f"{ACCOUNT}/team/cirro", EcrImage("123456789012", "eu-west-1", "team/cirro", "latest", None)),
        (f"{ACCOUNT}/cirro@{DIGEST}", EcrImage("123456789012", "eu-west-1", "cirro", "latest", DIGEST)),
        (f"{ACCOUNT}/cirro:1@{DIGEST}", EcrImage("123456789012", "eu-west-1", "cirro", "1", DIGEST)),
        (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/cirro:1",
            EcrImage("123456789012", "cn-north-1", "cirro", "1", None),
        ),
        (f"{HOST}/cirro:1", EcrImage(None, None, "cirro", "1", None)),
        ("127.0.0.1:4001/cirro:1", None),
        ("public.ecr.aws/some/thing:1", None),
        ("docker.io/library/python:3.11", None),
        ("python:3.11", None),
        ("cirro-runner", None),
        ("nobody@example/cirro", None),
    ],
)
def test_which_images_are_looked_up(uri: str, found: EcrImage | None) -> None:
    """Those of private registries, and of the emulated ECR that is in use."""
    assert ecr_image(uri, HOST) == found


@pytest.mark.parametrize(
    ("uri", "same"),
    [
        (
            "123456789012.dkr-ecr.eu-west-1.on.aws/team/img:1",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/img:1",
        ),
        (
            "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn/img@sha256:00",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/img@sha256:00",
        ),
    ],
)
def test_ecrs_dual_stack_host_is_refused(uri: str, same: str) -> None:
    """The ECS agent does not log in there; the same image has another name."""
    said = image_rules.refused_by_name(uri)
    assert said is not None
    assert f"container_image_uri={uri!r}" in said
    assert f"It is the same image as {same!r}: set that." in said
    assert image_rules.refused_by_name(same) is None


@pytest.mark.parametrize("end", ["", ":stable", ":other", f"@{DIGEST}"])
def test_the_stock_image_is_refused_by_name(end: str) -> None:
    """It is the default, so this is what somebody sees who set nothing."""
    default = BY_NAME["container_image_uri"].default
    assert image_rules.refused_by_name(default)
    said = image_rules.refused_by_name(image_rules.STOCK_IMAGE + end)
    assert said is not None
    assert "cirro image push" in said
    assert image_rules.refused_by_name(f"{image_rules.STOCK_IMAGE}-gpu:1") is None


# --- documents --------------------------------------------------------------------------------------------------------


def entry(architecture: str, digest: str, os: str = "linux") -> dict[str, Any]:
    """An image in a list."""
    return {"digest": digest, "platform": {"architecture": architecture, "os": os}}


def test_a_list_of_images_points_to_the_one_for_our_instances() -> None:
    """What a build adds about itself is no image."""
    listed = [
        entry("unknown", "d0", "unknown"),
        entry("arm64", "d1"),
        entry("amd64", "d2"),
        entry("amd64", "d3", "windows"),
    ]
    found = contents(json.dumps({"manifests": listed}))
    assert (found.config, found.child, found.architectures) == (None, "d2", ("amd64", "arm64"))
    assert contents(json.dumps({"manifests": [entry("arm64", "d1")]})).child is None
    assert contents(json.dumps({"config": {"digest": "d4"}, "layers": []})).config == "d4"


def read(configuration: bytes) -> ImageFacts:
    """What a configuration says that has the digest of its manifest."""
    return facts(configuration, f"sha256:{hashlib.sha256(configuration).hexdigest()}")


def test_labels_architecture_and_entrypoint_are_read() -> None:
    """And an image without any of them is one of which nothing is known."""
    labels = {
        protocol.LABEL_PYTHON: "3.11.7",
        protocol.LABEL_CLOUDPICKLE: "3.1.2",
        protocol.LABEL_RUNNER: "0.3.0",
        protocol.LABEL_FORMAT: "1",
    }
    labels[protocol.LABEL_MODULES] = image_modules.dump({"torch", "lab"}, ["sha256:a"])
    config = {
        "architecture": "amd64",
        "config": {"Labels": labels, "Entrypoint": ["tini", "--"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:a"]},
    }
    found = ImageFacts("amd64", "3.11.7", "3.1.2", "0.3.0", "1", ("tini", "--"), frozenset({"torch", "lab"}))
    assert read(json.dumps(config).encode()) == found
    config["rootfs"] = {"type": "layers", "diff_ids": ["sha256:a", "sha256:more"]}
    assert read(json.dumps(config).encode()).modules is None
    assert read(b'{"config": {"Labels": null}}') == ImageFacts("")


@pytest.mark.parametrize("digest", [None, "sha256:0"])
def test_a_configuration_that_is_another_than_the_manifest_names_is_refused(digest: str | None) -> None:
    """Whoever reads it: the server before a job, and the commands."""
    with pytest.raises(ValueError, match="does not have its digest"):
        facts(b"{}", digest)


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ImageFacts("amd64"), None),
        (ImageFacts("amd64", "3.11", "3.0.0", "0.1", str(problems.FORMAT)), None),
        (ImageFacts("amd64", "3.11.1", "3.9"), None),
        (ImageFacts("amd64", call_format="soon"), None),
        (ImageFacts("amd64", call_format=problems.CALL_FORMAT), None),
        (
            ImageFacts("amd64", "3.10.4"),
            ["Python 3.10.4", "Python 3.11.7", "--python 3.11`", "dispatch from Python 3.10."],
        ),
        (ImageFacts("amd64", "3.12"), ["Python 3.12", "Python 3.11.7"]),
        (
            ImageFacts("amd64", "3.11", "2.2.1"),
            ["cloudpickle 2.2.1", "cloudpickle 3.1.2", "cloudpickle==3.1.2", "cloudpickle==2.2.1 where you dispatch"],
        ),
        (ImageFacts("arm64", "3.11", "3.1.2"), ["arm64", "amd64", "exec format error"]),
        (ImageFacts("arm64 and s390x"), ["arm64 and s390x"]),
        (
            ImageFacts("amd64", runner="9.0.0", call_format=str(problems.FORMAT + 1)),
            ["9.0.0", f"format {problems.FORMAT + 1}", "Update covalent-cirro where the Covalent server runs"],
        ),
        (ImageFacts("amd64", call_format="0"), ["format 0", "Build and push the image anew"]),
        (
            MissingImage("ImageNotFound: Requested image not found", ("v2", "v1")),
            ["Requested image not found", "v2, v1"],
        ),
        (MissingImage("ImageNotFound: no", ()), ["has no tagged image", "cirro image push"]),
        (MissingImage("it is not there", None), ["it is not there", "cirro image push"]),
        (MissingImage("no", tuple(map(str, range(12)))), ["0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"]),
    ],
)
def test_what_is_refused(found: ImageFacts | MissingImage, words: list[str] | None) -> None:
    """With the image's name, both versions, and both remedies; what is not known is no reason."""
    said = why_not("host/cirro:1", found, HERE)
    if words is None:
        assert said is None
    else:
        assert said is not None
        assert [word for word in ["'host/cirro:1'", *words] if word not in said] == []


@pytest.mark.parametrize(
    ("label", "refused"),
    [
        (problems.CALL_FORMAT, False),
        (f"{problems.FORMAT}.{problems.REVISION + 1}", False),
        (str(problems.FORMAT), True),
        (f"{problems.FORMAT}.0", True),
        ("", False),
        ("soon", False),
    ],
)
def test_an_older_runner_is_refused_what_it_would_ignore(label: str, refused: bool) -> None:
    """Only an electron with such options; an image without the label may have any runner."""
    found = ImageFacts("amd64", "3.11", "3.0.0", "0.1", label)
    said = why_not("host/cirro:1", found, HERE, options=("secrets", "num_nodes"))
    assert (said is not None) is refused
    assert said is None or "ignores secrets and num_nodes" in said
    assert why_not("host/cirro:1", found, HERE) is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, ()),
        ({"num_nodes": 1, "environment": {}}, ()),
        ({"num_nodes": 2}, ("num_nodes",)),
        ({"processes_per_node": 2}, ("processes_per_node",)),
        ({"environment": {"A": "1"}, "secrets": {"B": "ssm:/b"}}, ("environment", "secrets")),
    ],
)
def test_what_an_older_runner_ignores(options: dict[str, Any], named: tuple[str, ...]) -> None:
    """Options that are set to something."""
    assert resolve(options, {}).runner_options == named


@pytest.mark.parametrize("pickled", [Pickled("", "3.1.2"), Pickled("3.11.7", "")])
def test_an_electron_that_does_not_tell_its_versions_is_let_pass(pickled: Pickled) -> None:
    """The runner finds out."""
    mismatched = ImageFacts("amd64", "3.12" if not pickled.python else "3.11", "3.0" if not pickled.python else "2.0")
    assert why_not("host/cirro:1", mismatched, pickled) is None


def test_the_rules_are_the_runners_own() -> None:
    """What is let pass here is not refused there."""
    call = protocol.Call("c", "d", HERE.python, HERE.cloudpickle, "", ())
    for python in ("3.10.1", "3.11.0", "3.12.4"):
        for cloudpickle in ("2.2.1", "3.0.0", "4.0"):
            refused = why_not("uri", ImageFacts("amd64", python, cloudpickle), HERE) is not None
            assert refused is (protocol.version_conflict(call, python, cloudpickle) is not None)


# --- asking -----------------------------------------------------------------------------------------------------------


def denied(operation: str) -> ClientError:
    """As AWS says it."""
    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": "you may not"}}, operation)


class Ecr:
    """One repository, with the calls that were made of it."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.manifests: dict[str, str] = {}
        self.configs: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.delay_s = 0.0
        self.given: dict[str, Any] = {}

    def add(self, tag: str, architecture: str = "amd64", **labels: str) -> str:
        """Push an image."""
        config = json.dumps({"architecture": architecture, "config": {"Labels": labels}, "tag": tag}).encode()
        config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        manifest = json.dumps({"config": {"digest": config_digest}, "layers": []})
        digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
        self.configs[config_digest], self.manifests[digest], self.tags[tag] = config, manifest, digest
        return digest

    async def _called(self, name: str, given: dict[str, Any]) -> None:
        self.calls.append(name)
        self.given = given
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error

    async def batch_get_image(self, **given: Any) -> dict[str, Any]:
        await self._called("BatchGetImage", given)
        (image_id,) = given["imageIds"]
        digest = image_id.get("imageDigest") or self.tags.get(image_id["imageTag"])
        if digest not in self.manifests:
            failure = {"failureCode": "ImageNotFound", "failureReason": "Requested image not found"}
            return {"images": [], "failures": [failure]}
        return {"images": [{"imageId": {"imageDigest": digest}, "imageManifest": self.manifests[digest]}]}

    async def get_download_url_for_layer(self, **given: Any) -> dict[str, Any]:
        await self._called("GetDownloadUrlForLayer", given)
        return {"downloadUrl": given["layerDigest"]}

    async def describe_images(self, **given: Any) -> dict[str, Any]:
        await self._called("DescribeImages", given)
        pushed = enumerate(self.tags, 1)
        return {
            "imageDetails": [
                {"imageTags": [tag], "imagePushedAt": datetime(2026, 1, day, tzinfo=timezone.utc)}
                for day, tag in pushed
            ]
        }

    async def fetch(self, url: str, limit: int) -> bytes:
        await self._called("fetch", {})
        return self.configs[url]


class Clock:
    """Time that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ecr() -> Ecr:
    """A repository."""
    return Ecr()


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def images(ecr: Ecr, clock: Clock) -> ImageVersions:
    """What is tested, over the repository."""

    async def client(region: str | None) -> Any:
        return ecr

    return ImageVersions(client, ecr.fetch, HOST, Access(None, None, None, None), clock=clock)


async def test_an_image_is_asked_for_once_by_all_who_want_it(images: ImageVersions, ecr: Ecr) -> None:
    """And not again by those who come later."""
    ecr.add("1", **{protocol.LABEL_PYTHON: "3.11"})
    ecr.delay_s = 0.01
    await asyncio.gather(*(images.require(f"{ACCOUNT}/cirro:1", HERE) for _ in range(50)))
    await images.require(f"{ACCOUNT}/cirro:1", HERE)
    assert ecr.calls == ["BatchGetImage", "GetDownloadUrlForLayer", "fetch"]


async def test_the_registrys_account_is_asked(images: ImageVersions, ecr: Ecr) -> None:
    """It may be another than the caller's; of an emulated ECR none is known."""
    ecr.error = denied("BatchGetImage")
    await images.require(f"{ACCOUNT}/cirro:1", HERE)
    assert ecr.given["registryId"] == "123456789012"
    await images.require(f"{HOST}/cirro:1", HERE)
    assert "registryId" not in ecr.given


async def test_other_images_are_not_asked_for(images: ImageVersions, ecr: Ecr) -> None:
    """Public ones, and those of other registries."""
    for uri in ("public.ecr.aws/some/thing:1", "python:3.11", "cirro-runner"):
        await images.require(uri, HERE)
    assert ecr.calls == []


async def test_a_digest_is_known_for_good_and_a_tag_for_a_while(images: ImageVersions, ecr: Ecr, clock: Clock) -> None:
    """A tag that is old is looked at again beside the electron, which does not wait."""
    digest = ecr.add("1")
    await images.require(f"{ACCOUNT}/cirro@{digest}", HERE)
    ecr.calls.clear()
    clock.now += 10 * image_labels.FRESH_S
    await images.require(f"{ACCOUNT}/cirro@{digest}", HERE)
    assert ecr.calls == []
    await images.require(f"{ACCOUNT}/cirro:1", HERE)
    assert ecr.calls == ["BatchGetImage"]
    clock.now += image_labels.FRESH_S + 1
    ecr.add("1", **{protocol.LABEL_PYTHON: "3.12"})
    await images.require(f"{ACCOUNT}/cirro:1", HERE)
    await asyncio.sleep(0.05)
    with pytest.raises(ImageError, match=r"Python 3\.12"):
        await images.require(f"{ACCOUNT}/cirro:1", HERE)


async def test_a_refusal_is_of_the_image_as_it_is_now(images: ImageVersions, ecr: Ecr, clock: Clock) -> None:
    """Whoever pushes a better one can go on at once."""
    uri = f"{ACCOUNT}/cirro:1"
    ecr.add("1", **{protocol.LABEL_PYTHON: "3.12"})
    with pytest.raises(ImageError):
        await images.require(uri, HERE)
    await images.require(uri, Pickled("3.12.1", "3.0"))
    ecr.add("1", **{protocol.LABEL_PYTHON: "3.11"})
    clock.now += image_labels.REFUSED_FRESH_S + 0.1
    await images.require(uri, HERE)


async def test_an_image_that_is_not_there_is_refused_with_those_that_are(images: ImageVersions, ecr: Ecr) -> None:
    """Newest first."""
    ecr.add("old")
    ecr.add("new")
    with pytest.raises(ImageError, match=r"'.*/cirro:1' does not exist.*has the tags new, old\."):
        await images.require(f"{ACCOUNT}/cirro:1", HERE)


async def test_a_repository_that_is_not_there_is_refused(images: ImageVersions, ecr: Ecr) -> None:
    """In AWS's words."""
    words = "The repository with name 'cirro' does not exist in the registry with id '123456789012'"
    ecr.error = ClientError({"Error": {"Code": "RepositoryNotFoundException", "Message": words}}, "BatchGetImage")
    with pytest.raises(ImageError, match=words):
        await images.require(f"{ACCOUNT}/cirro:1", HERE)


@pytest.mark.parametrize("error", [denied("BatchGetImage"), OSError("no route"), KeyError("images")])
async def test_a_look_that_fails_lets_the_electron_pass(
    images: ImageVersions, ecr: Ecr, clock: Clock, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """The log says so once; AWS is not asked again for each electron, only after a while."""
    ecr.error = error
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await images.require(f"{ACCOUNT}/cirro:1", HERE)
    assert len(ecr.calls) == 1
    clock.now += image_labels.FAILED_S + 1
    ecr.error = None
    ecr.add("1", **{protocol.LABEL_PYTHON: "3.12"})
    await images.require(f"{ACCOUNT}/cirro:1", HERE)
    await asyncio.sleep(0.05)
    with pytest.raises(ImageError):
        await images.require(f"{ACCOUNT}/cirro:1", HERE)
    (record,) = caplog.records
    assert f"{ACCOUNT}/cirro:1" in record.getMessage()


async def test_ecr_that_does_not_answer_holds_nobody_up(
    images: ImageVersions, ecr: Ecr, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look has its time."""
    monkeypatch.setattr(image_labels, "LOOK_S", 0.05)
    ecr.delay_s = 30
    await asyncio.wait_for(images.require(f"{ACCOUNT}/cirro:1", HERE), 20)


async def test_a_configuration_that_is_not_what_its_digest_says_is_not_believed(
    images: ImageVersions, ecr: Ecr
) -> None:
    """Nor refused."""
    ecr.add("1", **{protocol.LABEL_PYTHON: "3.12"})
    ecr.configs = {digest: data + b" " for digest, data in ecr.configs.items()}
    await images.require(f"{ACCOUNT}/cirro:1", HERE)


async def test_an_index_without_our_processor_names_those_it_has(images: ImageVersions, ecr: Ecr) -> None:
    """Nothing of it is fetched."""
    ecr.tags["1"] = DIGEST
    ecr.manifests[DIGEST] = json.dumps({"manifests": [entry("arm64", "sha256:00")]})
    with pytest.raises(ImageError, match="is for arm64"):
        await images.require(f"{ACCOUNT}/cirro:1", HERE)
    assert ecr.calls == ["BatchGetImage"]


async def test_one_who_gives_up_does_not_end_the_look_of_others(images: ImageVersions, ecr: Ecr) -> None:
    """A cancelled electron leaves the other its answer; closing ends what is under way."""
    ecr.add("1")
    ecr.delay_s = 0.02
    first, second = (asyncio.ensure_future(images.require(f"{ACCOUNT}/cirro:1", HERE)) for _ in range(2))
    await asyncio.sleep(0.005)
    first.cancel()
    await second
    ecr.delay_s = 30
    third = asyncio.ensure_future(images.require(f"{ACCOUNT}/cirro:2", HERE))
    await asyncio.sleep(0.005)
    await images.aclose()
    with pytest.raises(asyncio.CancelledError):
        await third

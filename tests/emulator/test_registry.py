"""The emulated ECR as a registry: what engines ask of it, and what ECR's own API shows of what they pushed."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from covalent_cirro.emulator import Emulator
from covalent_cirro.emulator.image_lifecycle import Aged, expired
from covalent_cirro.emulator.images import OCI_MANIFEST, Rules
from covalent_cirro.emulator.registry import TOKEN_LIFE_S, Tokens, operation
from tests.emulator.conftest import Aws
from tests.pushed_images import CONFIG, LAYER, Pushes, digest_of

_names = (f"repository-{number}" for number in itertools.count(1))
NOISE = bytes(range(256)) * 8192
"""Two megabytes: more than one piece."""


@pytest.fixture
def registry(aws: Aws) -> Pushes:
    """The registry of the module's emulator."""
    return Pushes(aws.emulator)


@pytest.fixture
def repository(registry: Pushes) -> str:
    """A new repository."""
    return registry.repository(next(_names))


def files(aws: Aws) -> set[str]:
    """The digests that lie on disk."""
    return {f"sha256:{path.name}" for path in (aws.emulator.state_dir / "registry" / "blobs").iterdir()}


def details(registry: Pushes, repository: str, **options: Any) -> list[dict[str, Any]]:
    """What DescribeImages says."""
    found: list[dict[str, Any]] = registry.ecr.describe_images(repositoryName=repository, **options)["imageDetails"]
    return found


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [None, "AWS:wrong", "somebody:{}"])
def test_without_the_token_it_asks_for_one(registry: Pushes, user: str | None) -> None:
    """As ECR: 401, with the Basic challenge by which engines know what to send."""
    headers = {}
    if user is not None:
        password = base64.b64decode(registry.authorization).decode().partition(":")[2]
        headers["Authorization"] = "Basic " + base64.b64encode(user.format(password).encode()).decode()
    answer = requests.get(f"{registry.emulator.endpoint_url}/v2/", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert answer.headers["Www-Authenticate"].startswith('Basic realm="http://127.0.0.1:')
    assert answer.json()["errors"][0]["code"] == "UNAUTHORIZED"


def test_the_token_is_for_the_emulator_itself(registry: Pushes) -> None:
    """Twelve hours, user AWS; the registry takes it."""
    (data,) = registry.ecr.get_authorization_token()["authorizationData"]
    assert data["proxyEndpoint"] == registry.emulator.endpoint_url
    assert base64.b64decode(data["authorizationToken"]).startswith(b"AWS:")
    assert registry("GET", "/v2/").status == 200


def test_a_token_ends_after_twelve_hours() -> None:
    """Then it is as good as none."""
    now = [1000.0]
    tokens = Tokens(clock=lambda: now[0])
    token = tokens.issue("eu-west-1")
    header = "Basic " + base64.b64encode(f"AWS:{token.password}".encode()).decode()
    assert tokens.of(header) == token
    now[0] += TOKEN_LIFE_S
    assert tokens.of(header) is None


# --- blobs ------------------------------------------------------------------------------------------------------------


def _in_one(registry: Pushes, repository: str, data: bytes) -> str:
    answer = registry("POST", f"{repository}/blobs/uploads/?digest={digest_of(data)}", data)
    assert answer.status == 201
    return answer.headers["Location"]


def _post_then_put(registry: Pushes, repository: str, data: bytes) -> str:
    begun = registry("POST", f"{repository}/blobs/uploads/")
    assert begun.status == 202
    return registry("PUT", f"{begun.headers['Location']}?digest={digest_of(data)}", data).headers["Location"]


def _in_parts(registry: Pushes, repository: str, data: bytes) -> str:
    place = registry("POST", f"{repository}/blobs/uploads/").headers["Location"]
    half = len(data) // 2
    first = registry("PATCH", place, data[:half], Content_Range=f"0-{half - 1}")
    assert (first.status, first.headers["Range"]) == (202, f"0-{half - 1}")
    assert registry("GET", place).headers["Range"] == f"0-{half - 1}"
    registry("PATCH", place, data[half:], Content_Range=f"{half}-{len(data) - 1}")
    return registry("PUT", f"{place}?digest={digest_of(data)}").headers["Location"]


def _streamed(registry: Pushes, repository: str, data: bytes) -> str:
    place = registry("POST", f"{repository}/blobs/uploads/").headers["Location"]
    registry("PATCH", place, (data[at : at + 100_000] for at in range(0, len(data), 100_000)))
    return registry("PUT", f"{place}?digest={digest_of(data)}").headers["Location"]


@pytest.mark.parametrize("push", [_in_one, _post_then_put, _in_parts, _streamed])
def test_a_blob_comes_back_as_it_was_pushed(
    registry: Pushes, repository: str, push: Callable[[Pushes, str, bytes], str]
) -> None:
    """However an engine pushes it."""
    data = push.__name__.encode() + NOISE
    place = push(registry, repository, data)
    assert place == f"/v2/{repository}/blobs/{digest_of(data)}"
    head = registry("HEAD", place)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(data)), b"")
    assert registry("GET", place).body == data


@pytest.mark.parametrize(
    ("asked", "status", "found"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=8-100", 206, b"89"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_a_part_of_a_blob(registry: Pushes, repository: str, asked: str, status: int, found: bytes) -> None:
    """Engines go on where a broken pull ended."""
    place = _in_one(registry, repository, b"0123456789")
    answer = registry("GET", place, Range=asked)
    assert (answer.status, answer.body) == (status, found)


def test_a_range_past_the_end_is_refused(registry: Pushes, repository: str) -> None:
    """With the size, for another try."""
    answer = registry("GET", _in_one(registry, repository, b"0123456789"), Range="bytes=10-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */10")


def test_bytes_of_another_digest_are_refused(aws: Aws, registry: Pushes, repository: str) -> None:
    """And nothing of them is kept."""
    begun = registry("POST", f"{repository}/blobs/uploads/").headers["Location"]
    answer = registry("PUT", f"{begun}?digest={digest_of(b'meant')}", b"sent")
    assert (answer.status, answer.errors) == (400, ["DIGEST_INVALID"])
    assert not files(aws) & {digest_of(b"meant"), digest_of(b"sent")}
    assert registry("GET", begun).errors == ["BLOB_UPLOAD_UNKNOWN"]


def test_parts_out_of_order_are_refused(registry: Pushes, repository: str) -> None:
    """The upload stays, and takes the right part."""
    begun = registry("POST", f"{repository}/blobs/uploads/").headers["Location"]
    registry("PATCH", begun, b"0123", Content_Range="0-3")
    assert registry("PATCH", begun, b"89", Content_Range="8-9").status == 416
    registry("PATCH", begun, b"4567", Content_Range="4-7")
    assert registry("PUT", f"{begun}?digest={digest_of(b'01234567')}").status == 201


def test_an_upload_can_be_given_up(aws: Aws, registry: Pushes, repository: str) -> None:
    """Its bytes go."""
    begun = registry("POST", f"{repository}/blobs/uploads/").headers["Location"]
    registry("PATCH", begun, b"some")
    assert registry("DELETE", begun).status == 204
    assert registry("GET", begun).status == 404
    assert list((aws.emulator.state_dir / "registry" / "uploads").iterdir()) == []


def test_a_layer_of_another_repository_is_mounted(registry: Pushes, repository: str) -> None:
    """Without being sent again; what the other lacks is asked for."""
    other = registry.repository(next(_names))
    _in_one(registry, other, b"shared")
    mounted = registry("POST", f"{repository}/blobs/uploads/?mount={digest_of(b'shared')}&from={other}")
    assert mounted.status == 201
    assert registry("GET", f"{repository}/blobs/{digest_of(b'shared')}").body == b"shared"
    lacking = registry("POST", f"{repository}/blobs/uploads/?mount={digest_of(b'nowhere')}&from={other}")
    assert lacking.status == 202


# --- manifests --------------------------------------------------------------------------------------------------------


def test_an_image_is_there_by_tag_and_by_digest(registry: Pushes, repository: str) -> None:
    """The same bytes, with their type."""
    digest = registry.image(repository, "one")
    for reference in ("one", digest):
        head, found = (registry(method, f"{repository}/manifests/{reference}") for method in ("HEAD", "GET"))
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Docker-Content-Digest"] == digest == digest_of(found.body)
        assert head.headers["Content-Type"] == found.headers["Content-Type"] == OCI_MANIFEST
        assert int(head.headers["Content-Length"]) == len(found.body)


def test_tags_are_listed_in_pages(registry: Pushes, repository: str) -> None:
    """In their order, with a link to the next page."""
    for tag in "cab":
        registry.image(repository, tag, labels={"tag": tag})
    first = registry("GET", f"{repository}/tags/list?n=2")
    assert json.loads(first.body) == {"name": repository, "tags": ["a", "b"]}
    following = re.match(r"<(.*)>; rel=\"next\"", first.headers["Link"])
    assert following is not None
    last = registry("GET", following[1])
    assert json.loads(last.body)["tags"] == ["c"]
    assert "Link" not in last.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "nowhere/manifests/one", 404, "NAME_UNKNOWN"),
        ("POST", "nowhere/blobs/uploads/", 404, "NAME_UNKNOWN"),
        ("GET", "{}/manifests/nothing", 404, "MANIFEST_UNKNOWN"),
        ("GET", "{}/blobs/sha256:" + "0" * 64, 404, "BLOB_UNKNOWN"),
        ("GET", "{}/blobs/uploads/nothing", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", "{}/manifests/one", 405, "UNSUPPORTED"),
    ],
)
def test_what_is_missing_has_the_specifications_code(
    registry: Pushes, repository: str, method: str, path: str, status: int, code: str
) -> None:
    """As engines read it."""
    answer = registry(method, path.format(repository))
    assert (answer.status, answer.errors) == (status, [code])


def test_a_manifest_needs_its_layers(registry: Pushes, repository: str) -> None:
    """As ECR, it names those that are missing."""
    missing = {"mediaType": LAYER, "digest": digest_of(b"not pushed"), "size": 10}
    config = registry.blob(repository, b"{}", CONFIG)
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [missing]}
    answer = registry.manifest(repository, "one", document)
    assert (answer.status, answer.errors) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    assert digest_of(b"not pushed") in answer.body.decode()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (OCI_MANIFEST, b"no json"),
        (OCI_MANIFEST, b"[]"),
        (OCI_MANIFEST, b'{"layers": []}'),
        ("application/vnd.docker.distribution.manifest.v1+json", b"{}"),
        (OCI_MANIFEST, json.dumps({"mediaType": "application/vnd.oci.image.index.v1+json"}).encode()),
    ],
)
def test_what_is_no_manifest_is_refused(registry: Pushes, repository: str, kind: str, body: bytes) -> None:
    """Malformed, of a type that ECR no longer takes, or of two types at once."""
    answer = registry("PUT", f"{repository}/manifests/one", body, Content_Type=kind)
    assert (answer.status, answer.errors) == (400, ["MANIFEST_INVALID"])


def test_a_manifest_under_another_digest_is_refused(registry: Pushes, repository: str) -> None:
    """A digest names its bytes."""
    registry.image(repository, "one")
    body = registry("GET", f"{repository}/manifests/one").body
    answer = registry("PUT", f"{repository}/manifests/{digest_of(b'other')}", body, Content_Type=OCI_MANIFEST)
    assert (answer.status, answer.errors) == (400, ["DIGEST_INVALID"])


def test_an_index_needs_its_images(registry: Pushes, repository: str) -> None:
    """They stay as long as it does, and it is as large as the largest of them."""
    small = registry.image(repository, architecture="amd64", layers=[b"small"])
    large = registry.image(repository, architecture="arm64", layers=[b"large" * 1000])
    index = registry.index(repository, "both", {"amd64": small, "arm64": large})
    sizes = {detail["imageDigest"]: detail["imageSizeInBytes"] for detail in details(registry, repository)}
    assert sizes[index] == sizes[large] > sizes[small]
    refused = registry.ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageDigest": small}])
    assert [each["failureCode"] for each in refused["failures"]] == ["ImageReferencedByManifestList"]
    with pytest.raises(AssertionError, match="MANIFEST_BLOB_UNKNOWN"):
        registry.index(repository, "broken", {"amd64": digest_of(b"nothing")})


# --- what ECR shows ---------------------------------------------------------------------------------------------------


def test_ecr_shows_what_was_pushed(registry: Pushes, repository: str) -> None:
    """Digest, tags, size, type, and when."""
    digest = registry.image(repository, "one", layers=[b"x" * 1000])
    registry.manifest(repository, "two", json.loads(registry("GET", f"{repository}/manifests/one").body))
    (detail,) = details(registry, repository)
    manifest = json.loads(registry("GET", f"{repository}/manifests/{digest}").body)
    assert detail["imageDigest"] == digest
    assert detail["imageTags"] == ["one", "two"]
    assert detail["imageSizeInBytes"] == 1000 + manifest["config"]["size"]
    assert detail["imageManifestMediaType"] == OCI_MANIFEST
    assert detail["repositoryName"] == repository
    assert detail["imagePushedAt"].tzinfo is not None
    ids = registry.ecr.list_images(repositoryName=repository)["imageIds"]
    assert ids == [{"imageDigest": digest, "imageTag": tag} for tag in ("one", "two")]


def test_a_tag_moves_to_what_was_pushed_last(registry: Pushes, repository: str) -> None:
    """The image that had it stays, untagged."""
    first, second = (registry.image(repository, "one", labels={"n": str(n)}) for n in (1, 2))
    (found,) = details(registry, repository, imageIds=[{"imageTag": "one"}])
    (untagged,) = details(registry, repository, filter={"tagStatus": "UNTAGGED"})
    assert (found["imageDigest"], untagged["imageDigest"]) == (second, first)
    assert "imageTags" not in untagged
    tagged = registry.ecr.list_images(repositoryName=repository, filter={"tagStatus": "TAGGED"})["imageIds"]
    assert [each["imageDigest"] for each in tagged] == [second]


def test_images_are_shown_in_pages(registry: Pushes, repository: str) -> None:
    """boto3's paginators find all of them."""
    pushed = {registry.image(repository, f"v{n}", labels={"n": str(n)}) for n in range(5)}
    for operation_name, key in (("describe_images", "imageDetails"), ("list_images", "imageIds")):
        pages = registry.ecr.get_paginator(operation_name).paginate(
            repositoryName=repository, PaginationConfig={"PageSize": 2}
        )
        found = [each["imageDigest"] for page in pages for each in page[key]]
        assert len(found) == 5
        assert set(found) == pushed


def test_the_manifest_and_the_configuration_are_read_by_the_api(registry: Pushes, repository: str) -> None:
    """BatchGetImage, then GetDownloadUrlForLayer, which needs no headers."""
    digest = registry.image(repository, "one", labels={"who": "me"})
    answer = registry.ecr.batch_get_image(
        repositoryName=repository, imageIds=[{"imageTag": "one"}, {"imageTag": "no"}, {}]
    )
    (image,) = answer["images"]
    assert image["imageId"] == {"imageDigest": digest, "imageTag": "one"}
    assert [each["failureCode"] for each in answer["failures"]] == ["ImageNotFound", "MissingDigestAndTag"]
    config = json.loads(image["imageManifest"])["config"]["digest"]
    url = registry.ecr.get_download_url_for_layer(repositoryName=repository, layerDigest=config)["downloadUrl"]
    fetched = requests.get(url, timeout=10)
    assert digest_of(fetched.content) == config
    assert fetched.json()["config"]["Labels"] == {"who": "me"}


@pytest.mark.parametrize(
    ("call", "given", "code"),
    [
        ("describe_images", {"repositoryName": "nowhere"}, "RepositoryNotFoundException"),
        ("list_images", {"repositoryName": "nowhere"}, "RepositoryNotFoundException"),
        ("describe_images", {"imageIds": [{"imageTag": "no"}]}, "ImageNotFoundException"),
        ("describe_images", {"registryId": "999999999999"}, "RepositoryNotFoundException"),
        ("get_download_url_for_layer", {"layerDigest": "sha256:" + "0" * 64}, "LayersNotFoundException"),
    ],
)
def test_what_is_missing_has_ecrs_code(
    registry: Pushes, repository: str, call: str, given: dict[str, Any], code: str
) -> None:
    """As boto3 names its exceptions."""
    with pytest.raises(ClientError) as refused:
        getattr(registry.ecr, call)(**{"repositoryName": repository, **given})
    assert refused.value.response["Error"]["Code"] == code


def test_an_image_can_be_made_by_ecrs_own_api(registry: Pushes, repository: str) -> None:
    """Layers in parts, then PutImage; the registry then has it."""
    ecr = registry.ecr
    digests = []
    for data in (b'{"architecture": "amd64"}', b"first second"):
        upload = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
        half = len(data) // 2
        for begin, part in ((0, data[:half]), (half, data[half:])):
            ecr.upload_layer_part(
                repositoryName=repository,
                uploadId=upload,
                partFirstByte=begin,
                partLastByte=begin + len(part) - 1,
                layerPartBlob=part,
            )
        done = ecr.complete_layer_upload(repositoryName=repository, uploadId=upload, layerDigests=[digest_of(data)])
        digests.append(done["layerDigest"])
    available = ecr.batch_check_layer_availability(
        repositoryName=repository, layerDigests=[*digests, digest_of(b"nothing")]
    )
    assert [each["layerDigest"] for each in available["layers"]] == digests
    assert [each["failureCode"] for each in available["failures"]] == ["MissingLayerDigest"]
    config, layer = ({"digest": digest, "size": 1, "mediaType": "x/y"} for digest in digests)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]})
    put = {"repositoryName": repository, "imageManifest": manifest, "imageTag": "one"}
    assert ecr.put_image(**put)["image"]["imageId"]["imageDigest"] == digest_of(manifest.encode())
    assert registry("GET", f"{repository}/manifests/one").body == manifest.encode()
    with pytest.raises(ecr.exceptions.ImageAlreadyExistsException):
        ecr.put_image(**put)


def test_a_pushed_image_can_be_scanned(registry: Pushes, repository: str) -> None:
    """moto's scans find it."""
    registry.image(repository, "one")
    image = {"repositoryName": repository, "imageId": {"imageTag": "one"}}
    assert registry.ecr.start_image_scan(**image)["imageScanStatus"]["status"] == "IN_PROGRESS"
    assert registry.ecr.describe_image_scan_findings(**image)["imageScanStatus"]["status"] == "COMPLETE"


# --- what goes --------------------------------------------------------------------------------------------------------


def test_a_deleted_image_frees_what_only_it_had(aws: Aws, registry: Pushes, repository: str) -> None:
    """A layer that another image has stays."""
    registry.image(repository, "one", layers=[b"common layer", b"layer of one"])
    two = registry.image(repository, "two", layers=[b"common layer", b"layer of two"])
    gone = registry.ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "one"}])
    assert [each["imageTag"] for each in gone["imageIds"]] == ["one"]
    assert digest_of(b"layer of one") not in files(aws)
    assert {digest_of(b"common layer"), digest_of(b"layer of two")} <= files(aws)
    assert registry("GET", f"{repository}/manifests/one").status == 404
    assert [detail["imageDigest"] for detail in details(registry, repository)] == [two]


def test_one_of_two_tags_goes_alone(registry: Pushes, repository: str) -> None:
    """The image goes with its last tag, or by its digest."""
    digest = registry.image(repository, "one")
    registry.image(repository, "two")
    registry.ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "one"}])
    (detail,) = details(registry, repository)
    assert detail["imageTags"] == ["two"]
    gone = registry.ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageDigest": digest}])
    assert gone["imageIds"] == [{"imageDigest": digest, "imageTag": "two"}]
    assert details(registry, repository) == []


def test_a_repository_with_images_goes_by_force_only(aws: Aws, registry: Pushes, repository: str) -> None:
    """With its layers; one of the same name begins empty."""
    registry.image(repository, "one", layers=[b"layer of a repository that goes"])
    with pytest.raises(registry.ecr.exceptions.RepositoryNotEmptyException):
        registry.ecr.delete_repository(repositoryName=repository)
    registry.ecr.delete_repository(repositoryName=repository, force=True)
    assert digest_of(b"layer of a repository that goes") not in files(aws)
    assert registry("GET", f"{repository}/manifests/one").errors == ["NAME_UNKNOWN"]
    registry.repository(repository)
    assert details(registry, repository) == []


def test_a_layer_of_two_repositories_goes_with_the_last(aws: Aws, registry: Pushes) -> None:
    """It is one file."""
    names = [registry.repository(next(_names)) for _ in range(2)]
    for name in names:
        registry.image(name, "one", layers=[b"layer of two repositories"])
    for name, left in zip(names, (True, False), strict=True):
        registry.ecr.delete_repository(repositoryName=name, force=True)
        assert (digest_of(b"layer of two repositories") in files(aws)) is left


def test_the_repositorys_lifecycle_policy_is_applied_at_a_push(registry: Pushes, repository: str) -> None:
    """Keep the last two."""
    selection = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 2}
    policy = {"rules": [{"rulePriority": 1, "selection": selection, "action": {"type": "expire"}}]}
    registry.ecr.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=json.dumps(policy))
    for number in range(4):
        registry.image(repository, f"v{number}", labels={"n": str(number)})
    assert [detail["imageTags"] for detail in details(registry, repository)] == [["v2"], ["v3"]]


IMAGES = [
    Aged("old", ("v1",), 1_000.0, 1),
    Aged("middle", ("v2", "latest"), 2_000.0, 2),
    Aged("loose", (), 2_000.0, 3),
    Aged("new", ("test-1",), 90_000.0, 4),
]


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ([{"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1}], ["loose", "middle", "old"]),
        ([{"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 0}], ["loose"]),
        ([{"tagStatus": "any", "countType": "sinceImagePushed", "countNumber": 1, "countUnit": "days"}], ["old"]),
        (
            [
                {
                    "tagStatus": "tagged",
                    "tagPrefixList": ["v"],
                    "countType": "imageCountMoreThan",
                    "countNumber": 1,
                }
            ],
            ["old"],
        ),
        (
            [
                {
                    "tagStatus": "tagged",
                    "tagPatternList": ["late*", "v*"],
                    "countType": "imageCountMoreThan",
                    "countNumber": 0,
                }
            ],
            ["middle"],
        ),
        # What a first rule selects no later one does.
        (
            [
                {"tagStatus": "tagged", "tagPatternList": ["*"], "countType": "imageCountMoreThan", "countNumber": 3},
                {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 0},
            ],
            ["loose"],
        ),
    ],
)
def test_what_a_lifecycle_policy_expires(rules: list[dict[str, Any]], gone: list[str]) -> None:
    """Rules in the order of their priority, newest images kept."""
    policy = {"rules": [{"rulePriority": n, "selection": rule} for n, rule in enumerate(rules, 1)]}
    assert expired(IMAGES, json.dumps(policy), now=88_000.0) == gone


@pytest.mark.parametrize(
    ("rules", "tag", "fixed"),
    [
        (Rules(), "one", False),
        (Rules("IMMUTABLE"), "one", True),
        (Rules("IMMUTABLE_WITH_EXCLUSION", ("latest*",)), "latest-1", False),
        (Rules("IMMUTABLE_WITH_EXCLUSION", ("latest*",)), "v1", True),
        (Rules("MUTABLE_WITH_EXCLUSION", ("v*",)), "v1", True),
        (Rules("MUTABLE_WITH_EXCLUSION", ("v*",)), "one", False),
    ],
)
def test_which_tags_cannot_move(rules: Rules, tag: str, fixed: bool) -> None:
    """imageTagMutability, with its exclusions."""
    assert rules.fixes(tag) is fixed


def test_an_immutable_tag_stays(registry: Pushes) -> None:
    """Pushing the same again is no change; another image is refused in ECR's words."""
    repository = registry.repository(next(_names), imageTagMutability="IMMUTABLE")
    first = registry.image(repository, "one")
    assert registry.image(repository, "one") == first
    with pytest.raises(AssertionError, match=r"TAG_INVALID.*already exists.*because the tag is immutable"):
        registry.image(repository, "one", labels={"other": "image"})
    (detail,) = details(registry, repository)
    assert detail["imageDigest"] == first


# --- how it stands in the emulator ------------------------------------------------------------------------------------


def test_the_repositorys_uri_is_where_one_pushes_to(registry: Pushes, repository: str, aws: Aws) -> None:
    """In ECR's API, and as an output of CloudFormation."""
    (found,) = registry.ecr.describe_repositories(repositoryNames=[repository])["repositories"]
    assert found["repositoryUri"] == f"127.0.0.1:{aws.emulator.port}/{repository}"
    name = next(_names)
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
    name = next(_names)
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
    """moto is imported when it is first asked for something: its ECR costs nobody time who has no image."""
    code = (
        "import sys\n"
        "from covalent_cirro.emulator import Emulator\n"
        f"with Emulator(state_dir={str(tmp_path / 'state')!r}):\n"
        "    print({'moto', 'moto.ecr', 'docker', 'covalent_cirro.emulator.ecr'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
    assert not (tmp_path / "state" / "registry").exists()


# --- with an engine ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """A client of the engine of this machine."""
    import docker.errors

    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    yield client
    client.close()


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

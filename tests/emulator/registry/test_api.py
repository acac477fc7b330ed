"""What ECR's own API shows of the images that were pushed, and how they are deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from covalent_cirro.local.emulator.ecr.image_lifecycle import ImageAge, expired
from covalent_cirro.local.emulator.ecr.images import OCI_MANIFEST, RepositoryRules
from tests.emulator.conftest import Aws
from tests.emulator.registry.conftest import details, files, new_names
from tests.pushed_images import Pushes, digest_of

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


# --- what is deleted --------------------------------------------------------------------------------------------------


def test_a_deleted_image_frees_what_only_it_had(aws: Aws, registry: Pushes, repository: str) -> None:
    """A layer that another image has stays."""
    registry.image(repository, "one", layers=[b"common layer", b"layer of one"])
    two = registry.image(repository, "two", layers=[b"common layer", b"layer of two"])
    deleted = registry.ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "one"}])
    assert [each["imageTag"] for each in deleted["imageIds"]] == ["one"]
    assert digest_of(b"layer of one") not in files(aws)
    assert {digest_of(b"common layer"), digest_of(b"layer of two")} <= files(aws)
    assert registry("GET", f"{repository}/manifests/one").status == 404
    assert [detail["imageDigest"] for detail in details(registry, repository)] == [two]


def test_one_of_two_tags_goes_alone(registry: Pushes, repository: str) -> None:
    """The image is deleted with its last tag, or by its digest."""
    digest = registry.image(repository, "one")
    registry.image(repository, "two")
    registry.ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "one"}])
    (detail,) = details(registry, repository)
    assert detail["imageTags"] == ["two"]
    deleted = registry.ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageDigest": digest}])
    assert deleted["imageIds"] == [{"imageDigest": digest, "imageTag": "two"}]
    assert details(registry, repository) == []


def test_a_repository_with_images_goes_by_force_only(aws: Aws, registry: Pushes, repository: str) -> None:
    """With its layers; one of the same name begins empty."""
    registry.image(repository, "one", layers=[b"layer of a repository that is deleted"])
    with pytest.raises(registry.ecr.exceptions.RepositoryNotEmptyException):
        registry.ecr.delete_repository(repositoryName=repository)
    registry.ecr.delete_repository(repositoryName=repository, force=True)
    assert digest_of(b"layer of a repository that is deleted") not in files(aws)
    assert registry("GET", f"{repository}/manifests/one").errors == ["NAME_UNKNOWN"]
    registry.repository(repository)
    assert details(registry, repository) == []


def test_a_layer_of_two_repositories_goes_with_the_last(aws: Aws, registry: Pushes) -> None:
    """It is one file."""
    names = [registry.repository(next(new_names)) for _ in range(2)]
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
    ImageAge("old", ("v1",), 1_000.0, 1),
    ImageAge("middle", ("v2", "latest"), 2_000.0, 2),
    ImageAge("loose", (), 2_000.0, 3),
    ImageAge("new", ("test-1",), 90_000.0, 4),
]


@pytest.mark.parametrize(
    ("rules", "expected"),
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
def test_what_a_lifecycle_policy_expires(rules: list[dict[str, Any]], expected: list[str]) -> None:
    """Rules in the order of their priority, newest images kept."""
    policy = {"rules": [{"rulePriority": n, "selection": rule} for n, rule in enumerate(rules, 1)]}
    assert expired(IMAGES, json.dumps(policy), now=88_000.0) == expected


@pytest.mark.parametrize(
    ("rules", "tag", "fixed"),
    [
        (RepositoryRules(), "one", False),
        (RepositoryRules("IMMUTABLE"), "one", True),
        (RepositoryRules("IMMUTABLE_WITH_EXCLUSION", ("latest*",)), "latest-1", False),
        (RepositoryRules("IMMUTABLE_WITH_EXCLUSION", ("latest*",)), "v1", True),
        (RepositoryRules("MUTABLE_WITH_EXCLUSION", ("v*",)), "v1", True),
        (RepositoryRules("MUTABLE_WITH_EXCLUSION", ("v*",)), "one", False),
    ],
)
def test_which_tags_cannot_move(rules: RepositoryRules, tag: str, fixed: bool) -> None:
    """imageTagMutability, with its exclusions."""
    assert rules.fixes(tag) is fixed


def test_an_immutable_tag_stays(registry: Pushes) -> None:
    """Pushing the same again is no change; another image is refused in ECR's words."""
    repository = registry.repository(next(new_names), imageTagMutability="IMMUTABLE")
    first = registry.image(repository, "one")
    assert registry.image(repository, "one") == first
    with pytest.raises(AssertionError, match=r"TAG_INVALID.*already exists.*because the tag is immutable"):
        registry.image(repository, "one", labels={"other": "image"})
    (detail,) = details(registry, repository)
    assert detail["imageDigest"] == first

"""The emulated ECR as a registry: what container engines ask of it, by the registry's own protocol."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable

import pytest
import requests

from covalent_cirro.local.emulator.ecr.images import OCI_MANIFEST
from covalent_cirro.local.emulator.ecr.registry import TOKEN_LIFE_S, Tokens
from tests.emulator.conftest import Aws
from tests.emulator.registry.conftest import details, files, new_names
from tests.pushed_images import CONFIG, LAYER, Pushes, digest_of

NOISE = bytes(range(256)) * 8192
"""Two megabytes: more than one piece."""


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
    other = registry.repository(next(new_names))
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

"""The operations of the emulated ECR on images: what each answers, from the images of its registry.

moto answers the operations on repositories and policies; `moto_internals.moto_ecr` makes it answer those on images
with the functions here. This module must not know HTTP or moto.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.ecr.images import MAX_MANIFEST_BYTES, Image
from covalent_cirro.local.emulator.ecr.layers import DIGEST, EcrError
from covalent_cirro.local.emulator.ecr.registry import USER
from covalent_cirro.local.emulator.open_emulators import OpenEmulator

PART_BYTES = 10 << 20
"""``partSize`` of InitiateLayerUpload, which is advice."""
MAX_RESULTS = 1000
DEFAULT_RESULTS = 100
"""DescribeImages and ListImages, maxResults (ECR API Reference)."""
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class EcrRequest:
    """One request to ECR's API.

    Args:
        get: Gives a parameter by its name; `None` where the request has none.
        account: The account that it is for.
        region: The region that it is for.
        emulator: The emulator of that account.
    """

    def __init__(self, get: Callable[[str], Any], account: str, region: str, emulator: OpenEmulator) -> None:
        self.get = get
        self.registry = account
        self.region = region
        self.emulator = emulator
        self.images = emulator.images

    @property
    def repository(self) -> str:
        """Name of the repository.

        Raises:
            EcrError: It is in the registry of another account.
        """
        name = str(self.get("repositoryName"))
        registry = self.get("registryId")
        if registry not in (None, self.registry):
            text = f"The repository with name '{name}' does not exist in the registry with id '{registry}'"
            raise EcrError("RepositoryNotFound", text)
        return name

    @property
    def key(self) -> tuple[str, str]:
        """Region and name of the repository."""
        return self.region, self.repository

    @property
    def ids(self) -> Json:
        """Registry and repository, as answers have them."""
        return {"registryId": self.registry, "repositoryName": self.repository}


# --- answers ----------------------------------------------------------------------------------------------------------


def _authorization_token(request: EcrRequest) -> Json:
    token = request.emulator.tokens.issue(request.region)
    data = {
        "authorizationToken": base64.b64encode(f"{USER}:{token.password}".encode()).decode(),
        "expiresAt": _when(token.expires_at),
        "proxyEndpoint": request.emulator.endpoint_url,
    }
    return {"authorizationData": [data for _ in request.get("registryIds") or [request.registry]]}


def _describe_images(request: EcrRequest) -> Json:
    ids = request.get("imageIds")
    if ids:
        found = [request.images.find(*request.key, **_id(each)) for each in ids]
        return {
            "imageDetails": [_detail(request, image) for image in {image.digest: image for image in found}.values()]
        }
    page, more = _page(request, _filtered(request))
    return {"imageDetails": [_detail(request, image) for image in page], **more}


def _detail(request: EcrRequest, image: Image) -> Json:
    detail: Json = {
        **request.ids,
        "imageDigest": image.digest,
        "imageSizeInBytes": image.size,
        "imagePushedAt": _when(image.pushed_at),
        "imageManifestMediaType": image.media_type,
    }
    if image.tags:
        detail["imageTags"] = list(image.tags)
    if image.artifact_type:
        detail["artifactMediaType"] = image.artifact_type
    if image.pulled_at is not None:
        detail["lastRecordedPullTime"] = _when(image.pulled_at)
    return detail


def _list_images(request: EcrRequest) -> Json:
    ids = [
        {"imageDigest": image.digest, **({} if tag is None else {"imageTag": tag})}
        for image in _filtered(request)
        for tag in (image.tags or [None])  # type: ignore[list-item]
    ]
    page, more = _page(request, ids)
    return {"imageIds": page, **more}


def _filtered(request: EcrRequest) -> list[Image]:
    status = (request.get("filter") or {}).get("tagStatus", "ANY")
    images = request.images.all(*request.key)
    return images if status == "ANY" else [image for image in images if bool(image.tags) == (status == "TAGGED")]


def _page(request: EcrRequest, values: list[Any]) -> tuple[list[Any], Json]:
    count = min(int(request.get("maxResults") or DEFAULT_RESULTS), MAX_RESULTS)
    token = request.get("nextToken")
    try:
        begin = int(base64.b64decode(token)) if token else 0
    except ValueError:
        raise EcrError("InvalidParameter", "Invalid parameter at 'nextToken'") from None
    end = begin + count
    return values[begin:end], {"nextToken": base64.b64encode(str(end).encode()).decode()} if end < len(values) else {}


def _each_id(request: EcrRequest, do: Callable[[Json], list[Json]]) -> tuple[list[Json], list[Json]]:
    done: list[Json] = []
    failures: list[Json] = []
    key = request.key
    request.images.repository(*key)
    for image_id in request.get("imageIds") or []:
        try:
            if not image_id.get("imageDigest") and not image_id.get("imageTag"):
                raise EcrError("MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null")
            if image_id.get("imageDigest") and DIGEST.fullmatch(image_id["imageDigest"]) is None:
                raise EcrError("InvalidImageDigest", "Invalid request parameters: image digest is malformed")
            done += do(image_id)
        except EcrError as error:
            reason = "Requested image not found" if error.code == "ImageNotFound" else error.text
            failures.append({"imageId": image_id, "failureCode": error.code, "failureReason": reason})
    return done, failures


def _batch_get_image(request: EcrRequest) -> Json:
    def get(image_id: Json) -> list[Json]:
        image = request.images.find(*request.key, **_id(image_id))
        request.images.pulled(image)
        return [_image(request, image, image_id.get("imageTag"))]

    images, failures = _each_id(request, get)
    return {"images": images, "failures": failures}


def _batch_delete_image(request: EcrRequest) -> Json:
    ids, failures = _each_id(request, lambda image_id: request.images.delete(*request.key, **_id(image_id)))
    return {"imageIds": ids, "failures": failures}


def _put_image(request: EcrRequest) -> Json:
    manifest, tag = str(request.get("imageManifest")).encode(), request.get("imageTag")
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise EcrError("InvalidParameter", "Invalid parameter at 'imageManifest': it is too long")
    kind, digest = request.get("imageManifestMediaType"), request.get("imageDigest")
    image, new = request.images.put(*request.key, manifest, kind, tag=tag, digest=digest)
    if not new:
        text = (
            f"Image with digest '{image.digest}' and tag '{tag}' already exists in the repository with name "
            f"'{request.repository}' in registry with id '{request.registry}'"
        )
        raise EcrError("ImageAlreadyExists", text)
    return {"image": _image(request, image, tag)}


def _image(request: EcrRequest, image: Image, tag: str | None) -> Json:
    return {
        **request.ids,
        "imageId": {"imageDigest": image.digest, **({"imageTag": tag} if tag else {})},
        "imageManifest": image.manifest.decode(),
        "imageManifestMediaType": image.media_type,
    }


def _download_url(request: EcrRequest) -> Json:
    digest = str(request.get("layerDigest"))
    request.images.blob(*request.key, digest)
    url = request.emulator.tokens.layer_url(request.emulator.endpoint_url, *request.key, digest)
    return {"downloadUrl": url, "layerDigest": digest}


def _layer_availability(request: EcrRequest) -> Json:
    repository = request.images.repository(*request.key)
    layers, failures = [], []
    for digest in request.get("layerDigests") or []:
        size = repository.blobs.get(digest)
        if size is not None:
            there = {"layerAvailability": "AVAILABLE", "layerSize": size, "mediaType": LAYER_TYPE}
            layers.append({"layerDigest": digest, **there})
        else:
            code = "MissingLayerDigest" if DIGEST.fullmatch(digest) else "InvalidLayerDigest"
            text = f"Layer with digest '{digest}' could not be found"
            failures.append({"layerDigest": digest, "failureCode": code, "failureReason": text})
    return {"layers": layers, "failures": failures}


def _begin_upload(request: EcrRequest) -> Json:
    return {"uploadId": request.images.begin(*request.key).id, "partSize": PART_BYTES}


def _upload_part(request: EcrRequest) -> Json:
    data, upload = request.get("layerPartBlob"), request.images.upload(*request.key, str(request.get("uploadId")))
    left = [base64.b64decode(data) if isinstance(data, str) else bytes(data)]
    size = upload.append(lambda _: left.pop() if left else b"", int(request.get("partFirstByte")))
    return {**request.ids, "uploadId": upload.id, "lastByteReceived": size - 1}


def _finish_upload(request: EcrRequest) -> Json:
    upload_id, digests = str(request.get("uploadId")), request.get("layerDigests") or [None]
    digest = request.images.finish(*request.key, upload_id, digests[0])
    return {**request.ids, "uploadId": upload_id, "layerDigest": digest}


ANSWERS: dict[str, Callable[[EcrRequest], Json]] = {
    "get_authorization_token": _authorization_token,
    "describe_images": _describe_images,
    "list_images": _list_images,
    "batch_get_image": _batch_get_image,
    "batch_delete_image": _batch_delete_image,
    "put_image": _put_image,
    "get_download_url_for_layer": _download_url,
    "batch_check_layer_availability": _layer_availability,
    "initiate_layer_upload": _begin_upload,
    "upload_layer_part": _upload_part,
    "complete_layer_upload": _finish_upload,
}
"""By operation, as moto names its method, the function that answers."""


def _id(image_id: Json) -> Json:
    return {"tag": image_id.get("imageTag"), "digest": image_id.get("imageDigest")}


def _when(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, timezone.utc)

"""The emulated ECR: moto keeps repositories and policies, images are `Images`'. The sibling of `moto_aws` for ECR.

It answers in the place of moto's own methods, so that moto still checks requests, permissions and the form of answers.
It must not know HTTP.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from covalent_cirro.local.emulator import moto_aws, open_emulators
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.ecr.images import MAX_MANIFEST_BYTES, Image, Rules
from covalent_cirro.local.emulator.ecr.layers import DIGEST, Refused
from covalent_cirro.local.emulator.ecr.registry import USER
from covalent_cirro.local.emulator.open_emulators import OpenEmulator

PART_BYTES = 10 << 20
"""``partSize`` of InitiateLayerUpload, which is advice."""
MAX_RESULTS = 1000
DEFAULT_RESULTS = 100
"""DescribeImages and ListImages, maxResults (ECR API Reference)."""
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def rules(account: str, region: str, name: str) -> Rules | None:
    """What is set for a repository; `None` where there is none."""
    moto_aws.preload()
    with moto_aws.IMPORTING:
        from moto.ecr.models import ecr_backends

    found = ecr_backends[account][region].repositories.get(name)
    if found is None:
        return None
    filters = tuple(str(each["filter"]) for each in found.image_tag_mutability_exclusion_filters or ())
    mutability = found.image_tag_mutability
    return Rules(str(getattr(mutability, "value", mutability)), filters, found.lifecycle_policy)


def install() -> None:
    """Put this into moto. Does nothing the second time."""
    with moto_aws.IMPORTING:
        from moto.ecr import models as models_module
        from moto.ecr import responses as responses_module

        models: Any = models_module
        response: Any = responses_module.ECRResponse
        if getattr(response, "cirro_installed", False):
            return
        response.cirro_installed = True
        _install_repositories(models)
        for name in ANSWERS:
            setattr(response, name, _answering(name))


def _install_repositories(models: Any) -> None:
    delete = models.ECRBackend.delete_repository

    def uri(self: Any) -> str:
        emulator = open_emulators.of(self.account_id)
        if emulator is None:
            return str(self.__dict__["aws_uri"])
        return f"{emulator.endpoint_url.partition('://')[2]}/{self.name}"

    def images(self: Any) -> list[Image]:
        emulator = open_emulators.of(self.account_id)
        return [] if emulator is None else emulator.images.all(self.region_name, self.name)

    def delete_repository(self: Any, repository_name: str, registry_id: str | None = None, force: bool = False) -> Any:
        deleted = delete(self, repository_name, registry_id, force)
        emulator = open_emulators.of(self.account_id)
        if emulator is not None:
            emulator.images.drop_repository(self.region_name, repository_name)
        return deleted

    def get_image(self: Any, image_tag: str | None, image_digest: str | None) -> Any:
        """moto's own kind of image, which is where it keeps scans."""
        emulator = open_emulators.of(self.account_id)
        assert emulator is not None
        try:
            image = emulator.images.find(self.region_name, self.name, tag=image_tag, digest=image_digest)
        except Refused as refused:
            raise _error(refused) from None
        if image.scan is None:
            text = image.manifest.decode()
            image.scan = models.Image(self.account_id, image_tag, text, self.name, image.media_type, image.digest)
        return image.scan

    models.Repository.uri = property(uri, lambda self, value: self.__dict__.update(aws_uri=value))
    models.Repository.images = property(images, lambda self, value: None)
    models.Repository._get_image = get_image
    models.ECRBackend.delete_repository = delete_repository


def _error(refused: Refused) -> Exception:
    # moto takes the service, and so the form of the answer, from the class's module.
    from moto.ecr.exceptions import InvalidParameterException

    error: Exception = InvalidParameterException(f"{refused.code}Exception", refused.text)
    return error


def _answering(name: str) -> Callable[[Any], Any]:
    answer = ANSWERS[name]

    def method(self: Any) -> Any:
        from moto.core.responses import ActionResult

        emulator = open_emulators.of(self.current_account)
        assert emulator is not None
        try:
            return ActionResult(answer(_Asked(self, emulator)))
        except Refused as refused:
            raise _error(refused) from None

    method.__name__ = name
    return method


class _Asked:
    """One request: its parameters, and whom it is for."""

    def __init__(self, response: Any, emulator: OpenEmulator) -> None:
        self.get: Callable[..., Any] = response._get_param
        self.emulator = emulator
        self.images = emulator.images
        self.registry = str(response.current_account)
        self.region = str(response.region)

    @property
    def repository(self) -> str:
        name = str(self.get("repositoryName"))
        registry = self.get("registryId")
        if registry not in (None, self.registry):
            text = f"The repository with name '{name}' does not exist in the registry with id '{registry}'"
            raise Refused("RepositoryNotFound", text)
        return name

    @property
    def place(self) -> tuple[str, str]:
        return self.region, self.repository

    @property
    def named(self) -> Json:
        return {"registryId": self.registry, "repositoryName": self.repository}


# --- answers ----------------------------------------------------------------------------------------------------------


def _authorization_token(asked: _Asked) -> Json:
    token = asked.emulator.tokens.issue(asked.region)
    data = {
        "authorizationToken": base64.b64encode(f"{USER}:{token.password}".encode()).decode(),
        "expiresAt": _when(token.expires_at),
        "proxyEndpoint": asked.emulator.endpoint_url,
    }
    return {"authorizationData": [data for _ in asked.get("registryIds") or [asked.registry]]}


def _describe_images(asked: _Asked) -> Json:
    ids = asked.get("imageIds")
    if ids:
        found = [asked.images.find(*asked.place, **_id(each)) for each in ids]
        return {"imageDetails": [_detail(asked, image) for image in {image.digest: image for image in found}.values()]}
    page, more = _page(asked, _filtered(asked))
    return {"imageDetails": [_detail(asked, image) for image in page], **more}


def _detail(asked: _Asked, image: Image) -> Json:
    detail: Json = {
        **asked.named,
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


def _list_images(asked: _Asked) -> Json:
    ids = [
        {"imageDigest": image.digest, **({} if tag is None else {"imageTag": tag})}
        for image in _filtered(asked)
        for tag in (image.tags or [None])  # type: ignore[list-item]
    ]
    page, more = _page(asked, ids)
    return {"imageIds": page, **more}


def _filtered(asked: _Asked) -> list[Image]:
    status = (asked.get("filter") or {}).get("tagStatus", "ANY")
    images = asked.images.all(*asked.place)
    return images if status == "ANY" else [image for image in images if bool(image.tags) == (status == "TAGGED")]


def _page(asked: _Asked, values: list[Any]) -> tuple[list[Any], Json]:
    count = min(int(asked.get("maxResults") or DEFAULT_RESULTS), MAX_RESULTS)
    token = asked.get("nextToken")
    try:
        begin = int(base64.b64decode(token)) if token else 0
    except ValueError:
        raise Refused("InvalidParameter", "Invalid parameter at 'nextToken'") from None
    end = begin + count
    return values[begin:end], {"nextToken": base64.b64encode(str(end).encode()).decode()} if end < len(values) else {}


def _each_id(asked: _Asked, do: Callable[[Json], list[Json]]) -> tuple[list[Json], list[Json]]:
    done: list[Json] = []
    failures: list[Json] = []
    place = asked.place
    asked.images.repository(*place)
    for image_id in asked.get("imageIds") or []:
        try:
            if not image_id.get("imageDigest") and not image_id.get("imageTag"):
                raise Refused("MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null")
            if image_id.get("imageDigest") and DIGEST.fullmatch(image_id["imageDigest"]) is None:
                raise Refused("InvalidImageDigest", "Invalid request parameters: image digest is malformed")
            done += do(image_id)
        except Refused as refused:
            reason = "Requested image not found" if refused.code == "ImageNotFound" else refused.text
            failures.append({"imageId": image_id, "failureCode": refused.code, "failureReason": reason})
    return done, failures


def _batch_get_image(asked: _Asked) -> Json:
    def get(image_id: Json) -> list[Json]:
        image = asked.images.find(*asked.place, **_id(image_id))
        asked.images.pulled(image)
        return [_image(asked, image, image_id.get("imageTag"))]

    images, failures = _each_id(asked, get)
    return {"images": images, "failures": failures}


def _batch_delete_image(asked: _Asked) -> Json:
    ids, failures = _each_id(asked, lambda image_id: asked.images.delete(*asked.place, **_id(image_id)))
    return {"imageIds": ids, "failures": failures}


def _put_image(asked: _Asked) -> Json:
    manifest, tag = str(asked.get("imageManifest")).encode(), asked.get("imageTag")
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise Refused("InvalidParameter", "Invalid parameter at 'imageManifest': it is too long")
    kind, digest = asked.get("imageManifestMediaType"), asked.get("imageDigest")
    image, new = asked.images.put(*asked.place, manifest, kind, tag=tag, digest=digest)
    if not new:
        text = (
            f"Image with digest '{image.digest}' and tag '{tag}' already exists in the repository with name "
            f"'{asked.repository}' in registry with id '{asked.registry}'"
        )
        raise Refused("ImageAlreadyExists", text)
    return {"image": _image(asked, image, tag)}


def _image(asked: _Asked, image: Image, tag: str | None) -> Json:
    return {
        **asked.named,
        "imageId": {"imageDigest": image.digest, **({"imageTag": tag} if tag else {})},
        "imageManifest": image.manifest.decode(),
        "imageManifestMediaType": image.media_type,
    }


def _download_url(asked: _Asked) -> Json:
    digest = str(asked.get("layerDigest"))
    asked.images.blob(*asked.place, digest)
    url = asked.emulator.tokens.layer_url(asked.emulator.endpoint_url, *asked.place, digest)
    return {"downloadUrl": url, "layerDigest": digest}


def _layer_availability(asked: _Asked) -> Json:
    repository = asked.images.repository(*asked.place)
    layers, failures = [], []
    for digest in asked.get("layerDigests") or []:
        size = repository.blobs.get(digest)
        if size is not None:
            there = {"layerAvailability": "AVAILABLE", "layerSize": size, "mediaType": LAYER_TYPE}
            layers.append({"layerDigest": digest, **there})
        else:
            code = "MissingLayerDigest" if DIGEST.fullmatch(digest) else "InvalidLayerDigest"
            text = f"Layer with digest '{digest}' could not be found"
            failures.append({"layerDigest": digest, "failureCode": code, "failureReason": text})
    return {"layers": layers, "failures": failures}


def _begin_upload(asked: _Asked) -> Json:
    return {"uploadId": asked.images.begin(*asked.place).id, "partSize": PART_BYTES}


def _upload_part(asked: _Asked) -> Json:
    data, upload = asked.get("layerPartBlob"), asked.images.upload(*asked.place, str(asked.get("uploadId")))
    left = [base64.b64decode(data) if isinstance(data, str) else bytes(data)]
    size = upload.append(lambda _: left.pop() if left else b"", int(asked.get("partFirstByte")))
    return {**asked.named, "uploadId": upload.id, "lastByteReceived": size - 1}


def _finish_upload(asked: _Asked) -> Json:
    upload_id, digests = str(asked.get("uploadId")), asked.get("layerDigests") or [None]
    digest = asked.images.finish(*asked.place, upload_id, digests[0])
    return {**asked.named, "uploadId": upload_id, "layerDigest": digest}


ANSWERS: dict[str, Callable[[_Asked], Json]] = {
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
"""moto's methods by name, and what answers instead."""


def _id(image_id: Json) -> Json:
    return {"tag": image_id.get("imageTag"), "digest": image_id.get("imageDigest")}


def _when(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, timezone.utc)

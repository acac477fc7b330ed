"""Images for the emulated ECR without a container engine: pushed as an engine does, by plain HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import requests

from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.emulator.ecr.images import OCI_INDEX, OCI_MANIFEST

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data: bytes) -> str:
    """Its SHA-256, as registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Answered(NamedTuple):
    """An answer: ``errors`` are the codes of the specification."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def errors(self) -> list[str]:
        """Codes in the body."""
        return [each["code"] for each in json.loads(self.body)["errors"]]


class Pushes:
    """Talks to the registry of an emulator, logged in."""

    def __init__(self, emulator: Emulator, **client_options: Any) -> None:
        self.emulator = emulator
        self.ecr = emulator.client("ecr", **client_options)
        self.authorization = self.ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]

    def repository(self, name: str, **options: Any) -> str:
        """A new repository; returns its name."""
        return str(self.ecr.create_repository(repositoryName=name, **options)["repository"]["repositoryName"])

    def __call__(self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, **headers: str) -> Answered:
        """One request under ``/v2/``; underscores in names of headers become hyphens."""
        given = {"Authorization": f"Basic {self.authorization}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = path if path.startswith("/v2/") else f"/v2/{path}"
        answer = requests.request(method, self.emulator.endpoint_url + url, data=body, headers=given, timeout=30)
        return Answered(answer.status_code, answer.headers, answer.content)

    def blob(self, repository: str, data: bytes, kind: str) -> dict[str, Any]:
        """Push a blob in one request; returns its descriptor."""
        digest = digest_of(data)
        assert self("POST", f"{repository}/blobs/uploads/?digest={digest}", data).status == 201
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    def manifest(self, repository: str, reference: str, document: Mapping[str, Any]) -> Answered:
        """Put a manifest or an index."""
        return self(
            "PUT",
            f"{repository}/manifests/{reference}",
            json.dumps(document).encode(),
            Content_Type=str(document["mediaType"]),
        )

    def image(
        self,
        repository: str,
        tag: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        architecture: str = "amd64",
        layers: Iterable[bytes] = (b"layer",),
        **config: Any,
    ) -> str:
        """Push an image; returns its digest."""
        settings = {**config, **({"Labels": dict(labels)} if labels else {})}
        layers = list(layers)
        unpacked = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
        configuration = {"architecture": architecture, "os": "linux", "config": settings, "rootfs": unpacked}
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(repository, json.dumps(configuration).encode(), CONFIG),
            "layers": [self.blob(repository, layer, LAYER) for layer in layers],
        }
        digest = digest_of(json.dumps(document).encode())
        answer = self.manifest(repository, tag or digest, document)
        assert answer.status == 201, answer
        return digest

    def index(self, repository: str, tag: str, images: Mapping[str, str]) -> str:
        """Push an index of images by architecture; returns its digest."""
        entries = [
            {
                "mediaType": OCI_MANIFEST,
                "digest": digest,
                "size": 1,
                "platform": {"architecture": architecture, "os": "linux"},
            }
            for architecture, digest in images.items()
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        answer = self.manifest(repository, tag, document)
        assert answer.status == 201, answer
        return digest_of(json.dumps(document).encode())

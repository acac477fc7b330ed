"""The bucket of stored values, for calls that block: the one of an executor, or that of Covalent's config.

Only the executor's settings choose account and bucket: a handle must name what the electrons' executor can read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from covalent_cirro.aws import blob_objects
from covalent_cirro.aws.blob_objects import BlobObjects
from covalent_cirro.aws.clients import Awaited, Clients, run_blocking
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.contract.places import blob_key
from covalent_cirro.contract.references import Blob
from covalent_cirro.errors import NotFound, SettingsError, StoredError
from covalent_cirro.settings import Settings


def settings_of(executor: Any = None) -> Settings:
    """The settings of an executor; of ``[executors.cirro]`` in Covalent's config for `None` and ``"cirro"``.

    Raises:
        SettingsError: It is an executor of another kind, or a setting has an impossible value.
    """
    from covalent_cirro.cirro import CirroBatchExecutor

    if executor is None or executor == "cirro":
        return CirroBatchExecutor().settings
    if isinstance(executor, CirroBatchExecutor):
        return executor.settings
    raise SettingsError(f"executor={executor!r} has no bucket: give a CirroBatchExecutor, or leave it out")


class Bucket:
    """Blobs in one bucket. Its calls block.

    Args:
        settings: Settings of an executor: they choose account, region and endpoint.
        name: Name of the bucket.
        prefix: Prefix of its keys: empty, or ends with a slash.
    """

    def __init__(self, settings: Settings, name: str, prefix: str) -> None:
        self.name = name
        self.prefix = prefix
        self._access = access_of(settings)
        self._client = Clients(self._access)("s3")
        self._objects = BlobObjects(Awaited(self._client), self._access)

    def ensure(self, blob: Blob, path: str, sent: Callable[[int], object]) -> bool:
        """Upload a blob, unless it is there; an old one is renewed.

        Args:
            blob: The blob.
            path: File with its bytes.
            sent: Called with numbers of bytes as they are sent, in several threads.

        Returns:
            Whether it was uploaded.
        """
        key = blob_key(self.prefix, blob.sha256)
        head = run_blocking(self._objects.head(self.name, key))
        is_there = head is not None and blob_objects.is_whole(head, blob, path)
        if head is not None and is_there and blob_objects.is_old(head):
            is_there = run_blocking(self._objects.renew(self.name, key))
        if is_there:
            return False
        blob_objects.upload(self._client, blob, path, self.name, key, self._access, sent)
        return True

    def download(self, blob: Blob, label: str, path: str, received: Callable[[int], object]) -> None:
        """Fetch the stored bytes of a blob into a file, a large one in parallel ranges. They are not checked.

        Raises:
            StoredError: It is gone.
        """
        from boto3.s3.transfer import S3Transfer, TransferConfig

        key = blob_key(self.prefix, blob.sha256)
        config = TransferConfig(preferred_transfer_client="classic")
        try:
            with blob_objects.errors("s3:GetObject", self.name, key, self._access):
                S3Transfer(client=self._client, config=config).download_file(self.name, key, path, callback=received)
        except NotFound as error:
            raise StoredError(
                f"the stored {label} is not in the bucket any more: {error} Call stored() again with the same value: "
                "handles that were made before name it, too."
            ) from error

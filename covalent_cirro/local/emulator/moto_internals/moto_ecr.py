"""Reads repositories of moto's ECR, and replaces what it answers about images: those are in the emulator's registry.

moto still checks requests and permissions, and gives answers their form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from covalent_cirro.local.emulator import open_emulators
from covalent_cirro.local.emulator.ecr.ecr_api import ANSWERS, EcrRequest
from covalent_cirro.local.emulator.ecr.images import Image, RepositoryRules
from covalent_cirro.local.emulator.ecr.layers import EcrError
from covalent_cirro.local.emulator.moto_internals.loading import IMPORTING, once, preload, replace


def rules(account: str, region: str, name: str) -> RepositoryRules | None:
    """What is set for a repository; `None` where there is none."""
    preload()
    with IMPORTING:
        from moto.ecr.models import ecr_backends

    found = ecr_backends[account][region].repositories.get(name)
    if found is None:
        return None
    filters = tuple(str(each["filter"]) for each in found.image_tag_mutability_exclusion_filters or ())
    mutability = found.image_tag_mutability
    return RepositoryRules(str(getattr(mutability, "value", mutability)), filters, found.lifecycle_policy)


# --- replacements -----------------------------------------------------------------------------------------------------


@once
def install() -> None:
    """Replace what moto's ECR knows and answers of images."""
    from moto.ecr import models
    from moto.ecr.responses import ECRResponse

    _replace_repositories(models)
    for name in ANSWERS:
        replace(ECRResponse, name, _answering(name))


def _replace_repositories(models: Any) -> None:
    delete = models.ECRBackend.delete_repository

    def uri(self: Any) -> str:
        emulator = open_emulators.find(self.account_id)
        if emulator is None:
            return str(self.__dict__["aws_uri"])
        return f"{emulator.endpoint_url.partition('://')[2]}/{self.name}"

    def images(self: Any) -> list[Image]:
        emulator = open_emulators.find(self.account_id)
        return [] if emulator is None else emulator.images.all(self.region_name, self.name)

    def delete_repository(self: Any, repository_name: str, registry_id: str | None = None, force: bool = False) -> Any:
        deleted = delete(self, repository_name, registry_id, force)
        emulator = open_emulators.find(self.account_id)
        if emulator is not None:
            emulator.images.drop_repository(self.region_name, repository_name)
        return deleted

    def get_image(self: Any, image_tag: str | None, image_digest: str | None) -> Any:
        """moto's own kind of image, which is where it keeps scans."""
        emulator = open_emulators.get(self.account_id)
        try:
            image = emulator.images.find(self.region_name, self.name, tag=image_tag, digest=image_digest)
        except EcrError as error:
            raise _ecr_error(error) from None
        if image.scan is None:
            text = image.manifest.decode()
            image.scan = models.Image(self.account_id, image_tag, text, self.name, image.media_type, image.digest)
        return image.scan

    replace(models.Repository, "uri", property(uri, lambda self, value: self.__dict__.update(aws_uri=value)))
    replace(models.Repository, "images", property(images, lambda self, value: None))
    replace(models.Repository, "_get_image", get_image)
    replace(models.ECRBackend, "delete_repository", delete_repository)


def _ecr_error(refusal: EcrError) -> Exception:
    # moto takes the service, and so the form of the answer, from the class's module.
    from moto.ecr.exceptions import InvalidParameterException

    error: Exception = InvalidParameterException(f"{refusal.code}Exception", refusal.text)
    return error


def _answering(name: str) -> Callable[[Any], Any]:
    answer = ANSWERS[name]

    def method(self: Any) -> Any:
        from moto.core.responses import ActionResult

        emulator = open_emulators.get(self.current_account)
        try:
            request = EcrRequest(self._get_param, str(self.current_account), str(self.region), emulator)
            return ActionResult(answer(request))
        except EcrError as error:
            raise _ecr_error(error) from None

    method.__name__ = name
    return method

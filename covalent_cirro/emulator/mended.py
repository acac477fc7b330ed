"""What the resources that moto does by half have in common: moto makes them, the service's own API sets the rest.

Calls go to the emulator itself, signed with `OWN_KEY`, so that they are neither counted nor hit by faults.
"""

from __future__ import annotations

import functools
from typing import Any

from covalent_cirro.emulator.emulator import emulator_of
from covalent_cirro.emulator.front import OWN_KEY
from covalent_cirro.emulator.model import Json


@functools.lru_cache(maxsize=32)
def client(service: str, account: str, region: str, endpoint_url: str) -> Any:
    """A client of the emulator, for itself."""
    emulator = emulator_of(account)
    assert emulator is not None
    return emulator.client(service, region_name=region, endpoint_url=endpoint_url, aws_access_key_id=OWN_KEY)


def api(service: str, account: str, region: str) -> Any:
    """A client of the emulator that has the account."""
    emulator = emulator_of(account)
    assert emulator is not None
    return client(service, account, region, emulator.endpoint_url)


class Mended:
    """moto's resource, completed after it was made, changed in place, and deleted with an error where AWS has one."""

    cirro_leaves_old = False

    def __init__(self, base: Any) -> None:
        self.base = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def create_from_cloudformation_json(
        self, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **more: Any
    ) -> Any:
        """moto makes it, `complete` sets the rest."""
        made = self.base.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **more
        )
        self.complete(made, cloudformation_json.get("Properties", {}), account_id, region_name)
        return made

    def update_from_cloudformation_json(
        self,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> Any:
        """All that can be changed is set anew."""
        self.complete(original_resource, cloudformation_json.get("Properties", {}), account_id, region_name)
        return original_resource

    def complete(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Set what moto leaves out."""

    def remove(self, resource: Any, properties: Json, account: str, region: str) -> None:
        """Delete it."""
        raise NotImplementedError


def true(value: Any) -> bool:
    """A boolean of a template, which may be text."""
    return str(value).lower() == "true"

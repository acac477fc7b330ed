"""What a resource of a stack is to moto's CloudFormation: our own kinds, and moto's that are completed here.

Both are changed in place unless a property changes that makes a new one. It must not know stacks, nor any one kind.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import Any, ClassVar, NamedTuple

from botocore.model import ListShape, MapShape, Shape, StructureShape

from covalent_cirro.local.emulator import open_emulators
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.new_account import NewAccount
from covalent_cirro.local.emulator.keys import OWN_ID
from covalent_cirro.local.emulator.moto_internals import moto_stacks


@functools.lru_cache(maxsize=32)
def _client(service: str, account: str, region: str, endpoint_url: str) -> Any:
    emulator = open_emulators.of(account)
    assert emulator is not None
    return emulator.client(service, region_name=region, endpoint_url=endpoint_url, aws_access_key_id=OWN_ID)


class StackLocation(NamedTuple):
    """Where a stack is."""

    account: str
    region: str

    def api(self, service: str) -> Any:
        """A client of a service; its calls are signed with `OWN_ID`: neither counted nor hit by faults."""
        emulator = open_emulators.of(self.account)
        assert emulator is not None, f"no emulator has account {self.account}"
        return _client(service, self.account, self.region, emulator.endpoint_url)

    @property
    def new(self) -> NewAccount:
        """What the account lacks."""
        emulator = open_emulators.of(self.account)
        assert emulator is not None, f"no emulator has account {self.account}"
        return emulator.standing.new

    @property
    def batch(self) -> Batch:
        """AWS Batch."""
        emulator = open_emulators.of(self.account)
        assert emulator is not None, f"no emulator has account {self.account}"
        return emulator.batch(self.region)


waits = threading.local()
"""Of a thread that carries out a change set: ``begin`` is called when it begins to wait for AWS."""


def begin_to_wait() -> None:
    """What is done from now on takes its time: who asked for it gets the answer now."""
    getattr(waits, "begin", lambda: None)()


def true(value: Any) -> bool:
    """A boolean of a template, which may be text."""
    return str(value).lower() == "true"


def to_api(shape: Shape | None, value: Any) -> Any:
    """A property in the form of the API: its key's case, and its type, are those of the operation's shape.

    Keys that the shape lacks are left out; keys of maps (tags, options, parameters) stay as they are.
    """
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        members = {name.lower(): (name, member) for name, member in shape.members.items()}
        return {
            members[key.lower()][0]: to_api(members[key.lower()][1], each)
            for key, each in value.items()
            if key.lower() in members
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [to_api(shape.member, each) for each in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: to_api(shape.value, each) for key, each in value.items()}
    if shape is not None and shape.type_name in ("integer", "long") and isinstance(value, str):
        return int(value)
    if shape is not None and shape.type_name == "boolean" and isinstance(value, str):
        return value.lower() == "true"
    if shape is not None and shape.type_name == "string" and not isinstance(value, (str, list, dict)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def differ(keys: tuple[str, ...], before: Json, now: Json) -> bool:
    """Whether one of the properties is another now; ``"A/B"`` is property B of property A."""

    def at(properties: Json, path: str) -> Any:
        found: Any = properties
        for key in path.split("/"):
            found = found.get(key) if isinstance(found, dict) else None
        return found

    return any(at(before, key) != at(now, key) for key in keys)


def refuse_same_name(name_property: str | None, before: Json, now: Json) -> None:
    """A replacement stands beside the old one for a while, so it cannot bear the same name.

    Raises:
        Refused: The template names it, as before.
    """
    name = None if name_property is None else now.get(name_property)
    if name is not None and name == before.get(str(name_property)):
        raise ServiceError(
            "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename "
            f"{name} and update the stack again."
        )


class StackResource:
    """A kind of our own.

    Attributes:
        kind: ``"AWS::Batch::JobQueue"``.
        name_property: The property that names it, if there is one.
        attributes: What ``Fn::GetAtt`` gives; each is what ``Ref`` gives.
        create_only: Properties that never change: another value makes another resource (registry schema).
    """

    kind: ClassVar[str]
    name_property: ClassVar[str | None] = None
    attributes: ClassVar[tuple[str, ...]] = ()
    create_only: ClassVar[tuple[str, ...]] = ()
    cf_resource_type: str
    logical_resource_id: str
    cirro_leaves_old = True
    """A replacement is beside the old one, which the stack deletes once nothing uses it."""

    def __init__(self, physical_resource_id: str, properties: Json) -> None:
        self.physical_resource_id = physical_resource_id
        self.properties = properties

    # --- of each kind -------------------------------------------------------------------------------------------------

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make one; returns its physical id."""
        raise NotImplementedError

    @classmethod
    def replaces(cls, before: Json, now: Json) -> bool:
        """Whether the new properties need a new one."""
        return differ(cls.create_only, before, now)

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change one in place; returns its physical id."""
        raise NotImplementedError

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete one; one that is gone already is no error."""
        raise NotImplementedError

    # --- what moto asks for -------------------------------------------------------------------------------------------

    @classmethod
    def cloudformation_type(cls) -> str:
        """``AWS::Service::Resource``."""
        return cls.kind

    @classmethod
    def cloudformation_name_type(cls) -> str | None:
        """The property that names it."""
        return cls.name_property

    @classmethod
    def has_cfn_attr(cls, attribute: str) -> bool:
        """Whether ``Fn::GetAtt`` knows the attribute."""
        return attribute in cls.attributes

    def get_cfn_attribute(self, attribute: str) -> str:
        """An attribute."""
        if attribute not in self.attributes:
            raise moto_stacks.unknown_attribute()
        return self.physical_resource_id

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **_: Any
    ) -> StackResource:
        """Make it."""
        properties = cloudformation_json.get("Properties", {})
        return cls(cls.make(resource_name, properties, StackLocation(account_id, region_name)), properties)

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: StackResource,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> StackResource:
        """Change it in place, or make one that replaces it."""
        at, before = StackLocation(account_id, region_name), original_resource.properties
        properties = cloudformation_json.get("Properties", {})
        if cls.replaces(before, properties):
            refuse_same_name(cls.name_property, before, properties)
            return cls(cls.make(new_resource_name, properties, at), properties)
        physical_id = original_resource.physical_resource_id
        changed = cls(cls.change(physical_id, properties, at), properties)
        changed.cirro_leaves_old = False
        return changed

    def delete(self, account_id: str, region_name: str) -> None:
        """Delete it."""
        self.remove(self.physical_resource_id, StackLocation(account_id, region_name))


class MotoResource:
    """moto's kind, completed after it was made, changed in place, and deleted with an error where AWS has one.

    Attributes:
        name_property: The property that names it, if there is one.
        create_only: Properties that never change, as `Resource.create_only`.
        deletion: Service, operation and parameter of the call that deletes it by its physical id.
    """

    name_property: ClassVar[str | None] = None
    create_only: ClassVar[tuple[str, ...]] = ()
    deletion: ClassVar[tuple[str, str, str]]

    def __init__(self, base: Any) -> None:
        self.base = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    # --- of each kind -------------------------------------------------------------------------------------------------

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set what moto leaves out.

        Args:
            resource: moto's.
            properties: As they should be.
            before: As they were; `None` for a new one, which has what moto made of them.
            at: Where.
        """

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Delete it."""
        service, operation, parameter = self.deletion
        getattr(at.api(service), operation)(**{parameter: resource.physical_resource_id})

    # --- what moto asks for, and `stack_engine` -----------------------------------------------------------------------

    def create_from_cloudformation_json(
        self, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **more: Any
    ) -> Any:
        """moto makes it, `complete` sets the rest. Where that fails, nothing is left of it."""
        made = self.base.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **more
        )
        at, properties = StackLocation(account_id, region_name), cloudformation_json.get("Properties", {})
        try:
            self.complete(made, properties, None, at)
        except Exception:
            with contextlib.suppress(Exception):
                self.remove(made, properties, at)
            raise
        made.cirro_properties = properties
        return made

    def update_from_cloudformation_json(
        self,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> Any:
        """Set anew all that can be changed, or make one that replaces it."""
        before, properties = original_resource.cirro_properties, cloudformation_json.get("Properties", {})
        if differ(self.create_only, before, properties):
            refuse_same_name(self.name_property, before, properties)
            replacement = self.create_from_cloudformation_json(
                new_resource_name, cloudformation_json, account_id, region_name
            )
            replacement.cirro_leaves_old = True
            return replacement
        self.complete(original_resource, properties, before, StackLocation(account_id, region_name))
        original_resource.cirro_properties = properties
        return original_resource

    def delete_resource(self, resource: Any, account: str, region: str) -> None:
        """Delete it."""
        self.remove(resource, resource.cirro_properties, StackLocation(account, region))

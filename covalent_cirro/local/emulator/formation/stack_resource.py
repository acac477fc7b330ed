"""Base classes for the types of resources: those that are made here, and those of moto that are completed here.

Both are changed in place, unless a property has changed that needs a replacement. It must not know stacks, nor any one
type.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from botocore.model import ListShape, MapShape, Shape, StructureShape

from covalent_cirro.local.emulator import open_emulators
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.new_account import NewAccount
from covalent_cirro.local.emulator.keys import OWN_ID
from covalent_cirro.local.emulator.moto_internals import moto_templates


@functools.lru_cache(maxsize=32)
def _client(service: str, account: str, region: str, endpoint_url: str) -> Any:
    emulator = open_emulators.get(account)
    return emulator.client(service, region_name=region, endpoint_url=endpoint_url, aws_access_key_id=OWN_ID)


class StackLocation(NamedTuple):
    """Account and region of a stack."""

    account: str
    region: str

    def api(self, service: str) -> Any:
        """A client of a service. Its calls have the key id `OWN_ID`: they are not counted, and no fault hits them."""
        return _client(service, self.account, self.region, open_emulators.get(self.account).endpoint_url)

    @property
    def new(self) -> NewAccount:
        """What a new account lacks."""
        return open_emulators.get(self.account).account_settings.new

    @property
    def batch(self) -> Batch:
        """AWS Batch."""
        return open_emulators.get(self.account).batch(self.region)


log = logging.getLogger("covalent_cirro.local.emulator")

_waits = threading.local()
"""``begin``: in a thread of `until_it_waits`, what to call when a resource begins to wait."""


def until_it_waits(work: Callable[[], None], name: str) -> None:
    """Do something in a thread of its own, and return once it is done or begins to wait for a service.

    Args:
        work: What to do. What it raises before it waits, this function raises.
        name: Of the thread.
    """
    answer = threading.Event()
    failed: list[Exception] = []

    def run() -> None:
        _waits.begin = answer.set
        try:
            work()
        except Exception as error:
            if answer.is_set():
                log.exception("%s: failed after its call was answered", name)
            failed.append(error)
        finally:
            answer.set()

    threading.Thread(target=run, name=name, daemon=True).start()
    answer.wait()
    if failed:
        raise failed[0]


def begin_to_wait() -> None:
    """Have the call that changes a stack answered now: the rest takes long."""
    getattr(_waits, "begin", lambda: None)()


class NotStabilized(ServiceError):
    """A resource was made and did not become what it should be. The stack has it until its rollback deletes it.

    Attributes:
        physical_id: Of the resource.
        resource: The resource, once there is an object of it.
    """

    def __init__(self, text: str, physical_id: str) -> None:
        super().__init__(text)
        self.physical_id = physical_id
        self.resource: StackResource | None = None


def true(value: Any) -> bool:
    """A boolean of a template, which may be text."""
    return str(value).lower() == "true"


def to_api(shape: Shape | None, value: Any) -> Any:
    """A property in the form of the API: the case of its keys and its type are those of the operation's shape.

    Keys that the shape lacks are left out; keys of maps (tags, options, parameters) are not changed.
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
    if shape is not None and shape.type_name in ("double", "float") and isinstance(value, str):
        return float(value)
    if shape is not None and shape.type_name == "boolean" and isinstance(value, str):
        return value.lower() == "true"
    if shape is not None and shape.type_name == "string" and not isinstance(value, (str, list, dict)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def differ(keys: tuple[str, ...], before: Json, now: Json) -> bool:
    """Whether one of the properties has changed; ``"A/B"`` is property B of property A."""

    def at(properties: Json, path: str) -> Any:
        found: Any = properties
        for key in path.split("/"):
            found = found.get(key) if isinstance(found, dict) else None
        return found

    return any(at(before, key) != at(now, key) for key in keys)


def refuse_same_name(name_property: str | None, before: Json, now: Json) -> None:
    """Refuse a replacement with the name of the old resource, since both exist for a while.

    Raises:
        ServiceError: The template names it as before.
    """
    name = None if name_property is None else now.get(name_property)
    if name is not None and name == before.get(str(name_property)):
        raise ServiceError(
            "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename "
            f"{name} and update the stack again."
        )


class StackResource:
    """A type of resources that is made here.

    Attributes:
        kind: Name of the type, such as ``"AWS::Batch::JobQueue"``.
        name_property: The property that names it; `None` if there is none.
        attributes: Attributes for ``Fn::GetAtt``; each has the value that ``Ref`` gives, unless `value` says another.
        create_only: Properties that cannot be changed: another value needs a replacement (registry schema).
        may_keep_name: A replacement can have the name of the old resource, since the name has revisions.
    """

    kind: ClassVar[str]
    name_property: ClassVar[str | None] = None
    attributes: ClassVar[tuple[str, ...]] = ()
    create_only: ClassVar[tuple[str, ...]] = ()
    may_keep_name: ClassVar[bool] = False
    cf_resource_type: str
    logical_resource_id: str
    cirro_leaves_old = True
    """After a replacement the old resource still exists; the stack deletes it once nothing uses it."""

    def __init__(self, physical_resource_id: str, properties: Json, at: StackLocation) -> None:
        self.physical_resource_id = physical_resource_id
        self.properties = properties
        self.at = at

    # --- what each type defines ---------------------------------------------------------------------------------------

    @classmethod
    def make(cls, name: str, properties: Json, at: StackLocation) -> str:
        """Make a resource; returns its physical id."""
        raise NotImplementedError

    @classmethod
    def value(cls, attribute: str, physical_id: str, at: StackLocation) -> str:
        """The value of one of its attributes."""
        return physical_id

    @classmethod
    def replaces(cls, before: Json, now: Json) -> bool:
        """Whether the new properties need a replacement."""
        return differ(cls.create_only, before, now)

    @classmethod
    def change(cls, physical_id: str, properties: Json, at: StackLocation) -> str:
        """Change a resource in place; returns its physical id."""
        raise NotImplementedError

    @classmethod
    def remove(cls, physical_id: str, at: StackLocation) -> None:
        """Delete a resource; it is no error if it does not exist."""
        raise NotImplementedError

    # --- what moto calls ----------------------------------------------------------------------------------------------

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
        """Whether there is such an attribute."""
        return attribute in cls.attributes

    def get_cfn_attribute(self, attribute: str) -> str:
        """The value of an attribute."""
        if attribute not in self.attributes:
            raise moto_templates.unknown_attribute()
        return self.value(attribute, self.physical_resource_id, self.at)

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **_: Any
    ) -> StackResource:
        """Make a resource."""
        at, properties = StackLocation(account_id, region_name), cloudformation_json.get("Properties", {})
        try:
            return cls(cls.make(resource_name, properties, at), properties, at)
        except NotStabilized as error:
            error.resource = cls(error.physical_id, properties, at)
            raise

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: StackResource,
        new_resource_name: str,
        cloudformation_json: Json,
        account_id: str,
        region_name: str,
    ) -> StackResource:
        """Change a resource in place, or make its replacement."""
        at, before = StackLocation(account_id, region_name), original_resource.properties
        properties = cloudformation_json.get("Properties", {})
        if cls.replaces(before, properties):
            if not cls.may_keep_name:
                refuse_same_name(cls.name_property, before, properties)
            try:
                return cls(cls.make(new_resource_name, properties, at), properties, at)
            except NotStabilized as error:
                cls.remove(error.physical_id, at)
                raise
        physical_id = original_resource.physical_resource_id
        changed = cls(cls.change(physical_id, properties, at), properties, at)
        changed.cirro_leaves_old = False
        return changed

    def delete(self, account_id: str, region_name: str) -> None:
        """Delete the resource."""
        self.remove(self.physical_resource_id, StackLocation(account_id, region_name))


class MotoResource:
    """A type of resources that moto makes: completed after that, changed in place, and deleted by an API call.

    Attributes:
        name_property: The property that names it; `None` if there is none.
        create_only: Properties that cannot be changed, as `StackResource.create_only`.
        deletion: Service, operation and parameter of the call that deletes a resource by its physical id.
    """

    name_property: ClassVar[str | None] = None
    create_only: ClassVar[tuple[str, ...]] = ()
    deletion: ClassVar[tuple[str, str, str]]

    def __init__(self, base: Any) -> None:
        self.base = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    # --- what each type defines ---------------------------------------------------------------------------------------

    def complete(self, resource: Any, properties: Json, before: Json | None, at: StackLocation) -> None:
        """Set what moto leaves out.

        Args:
            resource: moto's object.
            properties: Its properties, evaluated.
            before: Those that it had before; `None` for a new resource.
            at: Account and region.
        """

    def remove(self, resource: Any, properties: Json, at: StackLocation) -> None:
        """Delete the resource."""
        service, operation, parameter = self.deletion
        getattr(at.api(service), operation)(**{parameter: resource.physical_resource_id})

    # --- what moto and `stack_engine` call ----------------------------------------------------------------------------

    def create_from_cloudformation_json(
        self, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **more: Any
    ) -> Any:
        """Have moto make a resource, and complete it. If that fails, the resource is deleted."""
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
        """Set all properties that can be changed, or make a replacement."""
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
        """Delete the resource."""
        self.remove(resource, resource.cirro_properties, StackLocation(account, region))

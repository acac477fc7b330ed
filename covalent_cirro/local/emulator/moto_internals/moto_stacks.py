"""A stack of moto's CloudFormation, with names of our own for what the stack engine uses of it.

moto answers the API and generates names and ids; it makes resources in no order and knows no events of resources. This
module must not know in which order resources are made, nor what follows from a failure (`formation.stack_engine`).
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from covalent_cirro.deployment.template_functions import as_text
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.moto_internals.moto_templates import StackNames, evaluated


def resource_class(kind: str) -> Any:
    """The class of resources of a type such as ``"AWS::Batch::JobQueue"``; `None` for one that is not emulated."""
    from moto.cloudformation import parsing

    return parsing.resource_class_from_type(kind)


def change_set_id(backend: Any, name: str) -> str:
    """The ARN of a new change set.

    Raises:
        Exception: moto's, with HTTP status 400: a change set cannot have this name.
    """
    from moto.cloudformation.utils import generate_changeset_id, validate_create_change_set

    validate_create_change_set(name)
    return str(generate_changeset_id(name, backend.region_name, backend.account_id))


@dataclass
class MadeResources:
    """The resources that a stack has made; an attribute of moto's map of its resources.

    Attributes:
        order: Logical ids, in the order in which they were made.
        bodies: By logical id, what the template said of the resource when it was made or changed last.
        properties: By logical id, its properties then, evaluated; `None` after a change that failed, when it
            is not known what the resource has: the next change sets all of it.
        maker: The thread that makes a resource now: moto would make one in any thread that looks at it.
    """

    order: list[str] = field(default_factory=list)
    bodies: dict[str, Json] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    maker: int | None = None

    def remember(self, name: str, body: Json, properties: Any) -> None:
        """A resource was made or changed."""
        self.bodies[name] = body
        self.properties[name] = properties
        if name not in self.order:
            self.order.append(name)

    def forget(self, name: str) -> None:
        """A resource is no longer the stack's."""
        self.order.remove(name)
        self.bodies.pop(name, None)
        self.properties.pop(name, None)


class MotoStack:
    """A stack.

    Args:
        stack: moto's object.
    """

    def __init__(self, stack: Any) -> None:
        self.raw = stack

    # --- properties -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.raw.name)

    @property
    def id(self) -> str:
        """Its ARN."""
        return str(self.raw.stack_id)

    @property
    def status(self) -> str:
        """Such as ``"CREATE_COMPLETE"``."""
        return str(self.raw.status)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        tags: dict[str, str] = self.raw.tags
        return tags

    @tags.setter
    def tags(self, tags: dict[str, str]) -> None:
        self.raw.tags = tags

    @property
    def text(self) -> Any:
        """The text of its template."""
        return self.raw.template

    @property
    def given(self) -> dict[str, Any]:
        """The values that were given for its parameters."""
        given: dict[str, Any] = self.raw.parameters
        return given

    @property
    def template(self) -> Json:
        """Its template, parsed."""
        template: Json = self.raw.template_dict
        return template

    def parsed(self, text: Any) -> Json:
        """A template, parsed anew: moto writes into the one that it has parsed."""
        parsed: Json = self.raw.parse_template(text)
        return parsed

    def parameter_values(self) -> dict[str, str]:
        """The values of its parameters, given ones and defaults, as text."""
        return parameter_values(self.template, self.given)

    # --- its resources ----------------------------------------------------------------------------------------------

    @property
    def _map(self) -> Any:
        return self.raw.resource_map

    @property
    def bodies(self) -> dict[str, Json]:
        """What its template says of each resource, by logical id."""
        bodies: dict[str, Json] = self._map._resource_json_map
        return bodies

    @property
    def made(self) -> MadeResources:
        """What it has made."""
        made: MadeResources = self._map.cirro_made
        return made

    def resource(self, name: str) -> Any:
        """A resource that was made."""
        return self._map._parsed_resources[name]

    def physical_id(self, name: str) -> str:
        """The physical id of a resource; ``""`` where it has none, or was not made."""
        return str(getattr(self._map._parsed_resources.get(name), "physical_resource_id", None) or "")

    def use_resources(self, of: MotoStack) -> None:
        """Evaluate references with the resources that another stack has made."""
        for name in of.made.order:
            self._map._parsed_resources[name] = of.resource(name)

    def properties(self, body: Json) -> Any:
        """The properties of a resource, evaluated."""
        return evaluated(body.get("Properties", {}), StackNames(self._map))

    def is_wanted(self, body: Json) -> bool:
        """Whether a resource's condition holds."""
        name = body.get("Condition")
        return name is None or bool(self._map.lazy_condition_map[name])

    def make(self, name: str) -> bool:
        """Make a resource; False where its type is not emulated."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.made.maker = threading.get_ident()
            try:
                resource = self._map[name]
            finally:
                self.made.maker = None
        if resource is None:
            return False
        body = self.bodies[name]
        self.made.remember(name, body, self.properties(body))
        return True

    def change(self, name: str) -> tuple[Any, Any] | None:
        """Bring a resource up to date with its body.

        Returns:
            The resource before and after, which are one unless it was replaced; `None` where changes of its type are
            not emulated.
        """
        from moto.cloudformation import parsing

        body, before = self.bodies[name], self.resource(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, evaluated_body, new_name = parsing.parse_resource_and_generate_name(
                name, copy.deepcopy(body), self._map
            )
            if hasattr(model.update_from_cloudformation_json, "__isabstractmethod__"):
                return None
            after = model.update_from_cloudformation_json(
                original_resource=before,
                new_resource_name=new_name,
                cloudformation_json=evaluated_body,
                account_id=self._map._account_id,
                region_name=self._map._region_name,
            )
        if after is None:
            after = before
        else:
            after.cf_resource_type = body["Type"]
            after.logical_resource_id = name
        self._map._parsed_resources[name] = after
        self.made.remember(name, body, self.properties(body))
        return before, after

    def adopt(self, name: str, resource: Any) -> None:
        """Take a resource that was made and then failed: it is the stack's, which deletes it."""
        body = self.bodies[name]
        resource.cf_resource_type = body["Type"]
        resource.logical_resource_id = name
        self._map._parsed_resources[name] = resource
        self.made.remember(name, body, None)

    def put_back(self, name: str, resource: Any, body: Json, properties: Any) -> Any:
        """Give the stack a resource that was replaced; returns the replacement, which is no longer the stack's."""
        replacement = self._map._parsed_resources[name]
        self._map._parsed_resources[name] = resource
        self.made.remember(name, body, properties)
        return replacement

    def drop(self, name: str) -> Any:
        """Remove a resource from the stack, without deleting it; returns it."""
        resource = self._map._parsed_resources.pop(name, None)
        self.made.forget(name)
        return resource

    def delete_resource(self, resource: Any, body: Json) -> None:
        """Delete a resource of a type that moto can delete."""
        self._map._delete_resource(resource, body)

    @property
    def account(self) -> str:
        """The account."""
        return str(self._map._account_id)

    @property
    def region(self) -> str:
        """The region."""
        return str(self._map._region_name)

    # --- changes ----------------------------------------------------------------------------------------------------

    def tag_resources(self) -> None:
        """Tag each new resource with the stack's name and id."""
        self._map.tags.update({"aws:cloudformation:stack-name": self.name, "aws:cloudformation:stack-id": self.id})

    def load(self, text: Any, given: dict[str, Any]) -> None:
        """Set another template and other values of parameters; nothing is made yet.

        Raises:
            Exception: `moto_templates.validation_error`: a value, a rule or a condition is not possible.
        """
        stack, resource_map = self.raw, self._map
        stack.template = text
        stack._parse_template()
        stack.parameters = given
        stack.description = stack.template_dict.get("Description")
        resource_map._template = stack.template_dict
        resource_map._resource_json_map = stack.template_dict["Resources"]
        resource_map.input_parameters = given
        for name in list(resource_map.resolved_parameters):
            resource_map._parsed_resources.pop(name, None)
        resource_map.resolved_parameters = {}
        resource_map.load()

    def take_over(self, other: MotoStack) -> None:
        """Take template, parameters, tags and resources of another stack."""
        for name in ("template", "template_dict", "parameters", "description", "tags", "resource_map", "output_map"):
            setattr(self.raw, name, getattr(other.raw, name))

    def keep_outputs(self) -> None:
        """Evaluate the outputs now: they are what the stack shows until a change of it is over."""
        self.raw.outputs  # noqa: B018  (reading it evaluates them)

    def renew_outputs(self) -> None:
        """Show the outputs of the template as it is now."""
        self.raw.output_map = self.raw._create_output_map()

    def drop_outputs(self) -> None:
        """Show no outputs any more."""
        from moto.cloudformation.parsing import OutputMap

        self.raw.output_map = OutputMap(self._map, {"Outputs": {}}, self.id)

    # --- events -----------------------------------------------------------------------------------------------------

    def set_status(self, status: str, reason: str | None = None, *, event: bool = True) -> None:
        """Set its status, and add an event of it."""
        self.raw.status = status
        if event:
            self._add_event(self.name, self.id, "AWS::CloudFormation::Stack", status, reason)

    def add_resource_event(self, name: str, status: str, reason: str | None = None) -> None:
        """Add an event of a resource."""
        body = self.bodies.get(name) or self.made.bodies.get(name) or {}
        self._add_event(name, self.physical_id(name), body.get("Type", ""), status, reason)

    def _add_event(self, name: str, physical_id: str, kind: str, status: str, reason: str | None) -> None:
        from moto.cloudformation.models import Event

        self.raw.events.append(
            Event(
                stack_id=self.id,
                stack_name=self.name,
                logical_resource_id=name,
                physical_resource_id=physical_id,
                resource_type=kind,
                resource_status=status,
                resource_status_reason=reason,
                resource_properties=None,
            )
        )


def parameter_values(template: Json, given: Mapping[str, Any]) -> dict[str, str]:
    """The values of a template's parameters, given ones and defaults, as text."""
    declarations = template.get("Parameters") or {}
    return {name: as_text(given.get(name, each.get("Default"))) for name, each in declarations.items()}


# --- stacks of an account and region ----------------------------------------------------------------------------------


def find_stack(backend: Any, name_or_id: str) -> MotoStack | None:
    """A stack that was not deleted."""
    stacks = (each for each in backend.stacks.values() if name_or_id in (each.name, each.stack_id))
    found = next(stacks, None)
    return None if found is None else MotoStack(found)


def unregistered_stack(
    backend: Any, name: str, stack_id: str | None, text: str, given: dict[str, str], tags: dict[str, str]
) -> MotoStack:
    """A stack that the API does not show and that has made nothing, to evaluate its template.

    Args:
        backend: moto's CloudFormation of one account and region.
        name: Name of the stack.
        stack_id: Its ARN; `None`: a new one.
        text: Text of the template.
        given: Values of its parameters.
        tags: Of the stack.

    Raises:
        Exception: `moto_templates.validation_error`: CloudFormation refuses template or parameters at once.
    """
    from moto.cloudformation.models import Stack
    from moto.cloudformation.utils import generate_stack_id

    return MotoStack(
        Stack(
            stack_id=stack_id or generate_stack_id(name, backend.region_name, backend.account_id),
            name=name,
            template=text,
            parameters=given,
            account_id=backend.account_id,
            region_name=backend.region_name,
            tags=dict(tags),
            cross_stack_resources=backend.exports,
        )
    )


def reserve_stack(backend: Any, name: str, stack_id: str) -> MotoStack:
    """Make the stack of a change set of type CREATE: it has a name and no template."""
    from moto.cloudformation.models import Stack

    made = MotoStack(Stack(stack_id, name, {}, {}, backend.account_id, backend.region_name))
    made.set_status("REVIEW_IN_PROGRESS", "User Initiated")
    backend.stacks[stack_id] = made.raw
    return made

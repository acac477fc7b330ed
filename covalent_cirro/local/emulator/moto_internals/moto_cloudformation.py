"""Replaces what moto's CloudFormation does with templates, stacks, change sets and types of resources.

The replacements themselves are in `formation`; this module connects them with moto.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import Any

from covalent_cirro.deployment.template_functions import TemplateError, as_text, holds, is_list, split_list
from covalent_cirro.deployment.templates import parse
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.formation import (
    balancer_kinds,
    batch_kinds,
    change_sets,
    service_kinds,
    serving_kinds,
    stack_engine,
    template_checks,
)
from covalent_cirro.local.emulator.formation.stack_resource import until_it_waits
from covalent_cirro.local.emulator.moto_internals.loading import once, replace
from covalent_cirro.local.emulator.moto_internals.moto_stacks import MadeResources, MotoStack
from covalent_cirro.local.emulator.moto_internals.moto_templates import (
    StackNames,
    api_error,
    evaluated,
    validation_error,
)

STEADY = frozenset(("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"))
"""Statuses of a stack in which everything that its outputs refer to exists."""


@once
def install() -> None:
    """Replace everything."""
    from moto.cloudformation import models, parsing, responses

    _replace_templates(parsing, models)
    _replace_stacks(models)
    _replace_operations(models, responses)
    _replace_kinds(parsing)


def _replace_templates(parsing: Any, models: Any) -> None:
    make_map = parsing.ResourceMap.__init__
    load = parsing.ResourceMap.load_parameters
    get_or_make = parsing.ResourceMap.__getitem__

    def clean_json(value: Any, resource_map: Any) -> Any:
        return evaluated(value, StackNames(resource_map))

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        self.cirro_made = MadeResources()
        make_map(self, *args, **kwargs)

    def get_item(self: Any, name: str) -> Any:
        # moto makes a resource at the first access to it. Here only the thread of the stack engine makes any: a
        # DescribeStacks meanwhile must not make the same resource a second time.
        is_maker = self.cirro_made.maker == threading.get_ident()
        if name in self._parsed_resources or is_maker or name not in self._resource_json_map:
            return get_or_make(self, name)
        return None

    def load_parameters(self: Any) -> None:
        declarations = self._template.get("Parameters") or {}
        given = self.input_parameters
        try:
            template_checks.check_parameters(declarations, given)
            # moto converts given values to the parameter's type, defaults not: so defaults are given too.
            defaults = {name: as_text(each["Default"]) for name, each in declarations.items() if "Default" in each}
            values = {**defaults, **given}
            for name in filter(lambda name: is_list(declarations[name]), values):
                # "Each member string is space trimmed" (CloudFormation User Guide, Parameters); moto keeps the spaces.
                values[name] = ",".join(split_list(values[name]))
            self.input_parameters = values
            load(self)
            template_checks.check_rules(self._template, StackNames(self))
        except TemplateError as error:
            raise validation_error(str(error)) from error
        finally:
            self.input_parameters = given

    def load_conditions(self: Any) -> None:
        conditions = parsing.LazyDict()
        self.lazy_condition_map = conditions
        for name, condition in (self._template.get("Conditions") or {}).items():
            conditions[name] = functools.partial(holds, condition, StackNames(self))
        try:
            for name in conditions:
                conditions[name]
        except TemplateError as error:
            raise validation_error(str(error)) from error

    def parse_template(text: Any) -> Json:
        try:
            return parse(text) if isinstance(text, str) else dict(text)
        except TemplateError as error:
            raise validation_error(str(error)) from error

    replace(parsing, "clean_json", clean_json)
    replace(parsing.ResourceMap, "__init__", init)
    replace(parsing.ResourceMap, "__getitem__", get_item)
    replace(parsing.ResourceMap, "resources", property(lambda self: list(self.cirro_made.order)))
    replace(parsing.ResourceMap, "load_parameters", load_parameters)
    replace(parsing.ResourceMap, "load_conditions", load_conditions)
    replace(models.Stack, "parse_template", staticmethod(parse_template))


def _replace_stacks(models: Any) -> None:
    evaluate_outputs = models.Stack.outputs.fget

    def outputs(self: Any) -> Any:
        # As AWS has it: none before everything is made, and those of before while an update goes on.
        if self.status in STEADY:
            self.cirro_outputs = evaluate_outputs(self)
        return getattr(self, "cirro_outputs", None)

    def exports(self: Any) -> list[Any]:
        # moto reads them before it makes anything: the names are known then, the values are not.
        if self.status in STEADY:
            return list(self.output_map.exports)
        declared = [
            each["Export"]["Name"] for each in (self.template_dict.get("Outputs") or {}).values() if "Export" in each
        ]
        return [models.Export(self.stack_id, evaluated(name, StackNames(self.resource_map)), "") for name in declared]

    def parameter_list(self: Any) -> list[Json]:
        # moto would show a list as Python writes it.
        values = MotoStack(self).parameter_values()
        return [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]

    def create_resources(self: Any) -> None:
        stack_engine.create(MotoStack(self))
        exported = models.cloudformation_backends[self.account_id][self.region_name].exports
        for export in exports(self):
            if self.status in STEADY:
                exported[export.name] = export
            else:
                exported.pop(export.name, None)

    def delete(self: Any) -> None:
        stack_engine.delete(MotoStack(self))

    replace(models.Stack, "outputs", property(outputs))
    replace(models.Stack, "exports", property(exports))
    replace(models.Stack, "parameter_list", property(parameter_list))
    replace(models.Stack, "create_resources", create_resources)
    replace(models.Stack, "delete", delete)


def _replace_operations(models: Any, responses: Any) -> None:
    from moto.core.responses import ActionResult

    answers = responses.CloudFormationResponse
    answer_create_stack = answers.create_stack

    def delete_stack(self: Any, name_or_id: str) -> None:
        stack = next((each for each in self.stacks.values() if name_or_id in (each.stack_id, each.name)), None)
        if stack is None or stack.status == "DELETE_IN_PROGRESS":
            return
        exports = []
        with contextlib.suppress(Exception):  # a stack that failed to be made may have outputs without a value
            exports = [export.name for export in stack.exports]

        def work() -> None:
            stack.delete()
            if stack.status == "DELETE_COMPLETE":
                self.stacks.pop(stack.stack_id, None)
                self.deleted_stacks[stack.stack_id] = stack
                for name in exports:
                    self.exports.pop(name, None)

        until_it_waits(work, f"stack-{stack.name}")

    def update_stack(
        self: Any, name: str, template: str, role_arn: str | None, parameters: list[Json], tags: Any
    ) -> Any:
        stack = self.get_stack(name)
        before = MotoStack(stack).parameter_values()  # a default is a value too
        given = {
            each["ParameterKey"]: before.get(each["ParameterKey"], "")
            if each.get("UsePreviousValue")
            else each["ParameterValue"]
            for each in parameters
        }
        stack_engine.update(MotoStack(stack), template, given, tags)
        return stack

    def create_stack(self: Any) -> Any:
        _check_capabilities(self)
        return answer_create_stack(self)

    def create_change_set(self: Any) -> Any:
        _check_capabilities(self)
        names = ("StackName", "ChangeSetName", "ChangeSetType", "TemplateBody", "Description", "Parameters", "Tags")
        request = {name: value for name in names if (value := self._get_param(name)) is not None}
        made = change_sets.create(self.cloudformation_backend, request)
        return ActionResult({"Id": made.change_set_id, "StackId": made.stack_id})

    def describe_change_set(self: Any) -> Any:
        with_paths = str(self._get_param("IncludePropertyValues")).lower() == "true"
        found = change_sets.find(self.cloudformation_backend, *_change_set_names(self))
        return ActionResult(found.described(with_paths=with_paths))

    def delete_change_set(self: Any) -> Any:
        change_sets.delete(self.cloudformation_backend, *_change_set_names(self))
        return ActionResult({})

    def execute_change_set(self: Any) -> Any:
        change_sets.execute(self.cloudformation_backend, *_change_set_names(self))
        return ActionResult({})

    replace(models.CloudFormationBackend, "delete_stack", delete_stack)
    replace(models.CloudFormationBackend, "update_stack", update_stack)
    replace(answers, "create_stack", create_stack)
    replace(answers, "create_change_set", create_change_set)
    replace(answers, "describe_change_set", describe_change_set)
    replace(answers, "delete_change_set", delete_change_set)
    replace(answers, "execute_change_set", execute_change_set)
    own = ("DescribeChangeSetOutput.Changes", "DescribeChangeSetOutput.Parameters")
    shapes = answers.RESPONSE_KEY_PATH_TO_TRANSFORMER
    kept = {key: value for key, value in shapes.items() if key not in own}
    replace(answers, "RESPONSE_KEY_PATH_TO_TRANSFORMER", kept)


def _change_set_names(response: Any) -> tuple[Any, Any]:
    return response._get_param("ChangeSetName"), response._get_param("StackName")


def _check_capabilities(response: Any) -> None:
    body = response._get_param("TemplateBody") or ""
    given = response._get_param("Capabilities", []) or []
    if "AWS::IAM::" in body and not {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"} & set(given):
        raise api_error("InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_IAM]")


def _replace_kinds(parsing: Any) -> None:
    """Use the classes of `formation` for types of resources, and moto's for all others."""
    kinds = (*batch_kinds.KINDS, *service_kinds.KINDS, *serving_kinds.KINDS, *balancer_kinds.KINDS)
    own: dict[str, Any] = {each.kind: each for each in kinds}
    class_of_moto, name_property_of_moto = parsing.resource_class_from_type, parsing.resource_name_property_from_type
    completed: dict[str, Any] = {}

    def resource_class_from_type(kind: str) -> Any:
        if kind in own:
            return own[kind]
        if kind in service_kinds.COMPLETED:
            if kind not in completed:
                completed[kind] = service_kinds.COMPLETED[kind](class_of_moto(kind))
            return completed[kind]
        return class_of_moto(kind)

    def resource_name_property_from_type(kind: str) -> Any:
        return own[kind].cloudformation_name_type() if kind in own else name_property_of_moto(kind)

    replace(parsing, "resource_class_from_type", resource_class_from_type)
    replace(parsing, "resource_name_property_from_type", resource_name_property_from_type)

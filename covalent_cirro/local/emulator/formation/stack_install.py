"""Puts `stack_engine` and `formation` into moto's CloudFormation, and mends how moto reads templates.

The only room that changes moto's CloudFormation; it must not know what a stack or a resource does.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import yaml
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from covalent_cirro.local.emulator import moto_aws
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.formation import change_sets, template
from covalent_cirro.local.emulator.formation.stack_engine import create, delete, parameter_values, update

STEADY = frozenset(("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"))
"""Statuses of a stack in which all that its outputs refer to is there."""


def install() -> None:
    """Put all of this, and `formation`'s resources, into moto. Does nothing the second time."""
    with moto_aws.IMPORTING:
        from moto.cloudformation import models as models_module
        from moto.cloudformation import parsing as parsing_module
        from moto.cloudformation import responses as responses_module

        models: Any = models_module
        parsing: Any = parsing_module
        responses: Any = responses_module
        if getattr(parsing, "cirro_installed", False):
            return
        parsing.cirro_installed = True
        from covalent_cirro.local.emulator.formation import formation

        _install_reader(parsing, models)
        _install_stacks(models, responses)
        formation.install(parsing)


def _install_reader(parsing: Any, models: Any) -> None:
    resolve_one, make_map, load = parsing.clean_json, parsing.ResourceMap.__init__, parsing.ResourceMap.load_parameters
    get_or_make = parsing.ResourceMap.__getitem__

    def clean_json(value: Any, resource_map: Any) -> Any:
        if isinstance(value, list):
            cleaned = [clean_json(each, resource_map) for each in value]
            return [each for each in cleaned if each is not None]  # AWS::NoValue
        if isinstance(value, dict) and "Fn::GetAZs" in value:
            region = clean_json(value["Fn::GetAZs"], resource_map) or resource_map._region_name
            return [f"{region}{zone}" for zone in "abc"]
        return resolve_one(value, resource_map)

    def parse_condition(value: Any, resource_map: Any, named: Any) -> bool:
        return template.condition(value, lambda each: clean_json(each, resource_map), lambda name: bool(named[name]))

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        self.cirro_order, self.cirro_bodies, self.cirro_resolved = [], {}, {}
        self.cirro_maker = None
        make_map(self, *args, **kwargs)

    def get_item(self: Any, name: str) -> Any:
        # moto makes a resource when somebody looks at it: here only the engine's thread makes any. Who describes the
        # stack meanwhile must not make the same one a second time.
        is_maker = self.cirro_maker == threading.get_ident()
        if name in self._parsed_resources or is_maker or name not in self._resource_json_map:
            return get_or_make(self, name)
        return None

    def load_parameters(self: Any) -> None:
        from moto.cloudformation.exceptions import ValidationError

        slots = self._template.get("Parameters") or {}
        given = self.input_parameters
        try:
            template.check_parameters(slots, given)
            # moto reads types, lists among them, of given values only: defaults are given too.
            defaults = {name: template.text(slot["Default"]) for name, slot in slots.items() if "Default" in slot}
            self.input_parameters = {**defaults, **given}
            load(self)
            template.check_rules(self._template.get("Rules") or {}, lambda each: clean_json(each, self))
        except template.Invalid as invalid:
            raise ValidationError(message=str(invalid)) from None
        finally:
            self.input_parameters = given

    def parse_template(body: Any) -> Json:
        return template.normalised(_parsed(body)) if isinstance(body, str) else dict(body)

    parsing.clean_json = clean_json
    parsing.parse_condition = parse_condition
    parsing.ResourceMap.__init__ = init
    parsing.ResourceMap.__getitem__ = get_item
    parsing.ResourceMap.resources = property(lambda self: list(self.cirro_order))
    parsing.ResourceMap.load_parameters = load_parameters
    models.Stack.parse_template = staticmethod(parse_template)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads templates as moto does. By libyaml: moto's loader is in Python, and takes half of a deployment's time."""


def _parsed(body: str) -> Any:
    """A template in YAML or JSON."""
    from moto.cloudformation.utils import yaml_tag_constructor

    _Loader.add_multi_constructor("", yaml_tag_constructor)
    try:
        return yaml.load(body, _Loader)  # noqa: S506  (a SafeLoader)
    except (ParserError, ScannerError):
        return json.loads(body)


def _install_stacks(models: Any, responses: Any) -> None:
    from moto.core.responses import ActionResult

    action_result: Any = ActionResult
    backend = models.CloudFormationBackend
    answer_create = responses.CloudFormationResponse.create_stack

    def delete_stack(self: Any, name_or_id: str) -> None:
        stack = next((each for each in self.stacks.values() if name_or_id in (each.stack_id, each.name)), None)
        if stack is None:
            return
        exports = []
        with contextlib.suppress(Exception):
            exports = [export.name for export in stack.exports]
        delete(stack)
        if stack.status == "DELETE_COMPLETE":
            self.stacks.pop(stack.stack_id, None)
            self.deleted_stacks[stack.stack_id] = stack
            for name in exports:
                self.exports.pop(name, None)

    def check_capabilities(response: Any) -> None:
        from moto.cloudformation.exceptions import CloudFormationError

        body = response._get_param("TemplateBody") or ""
        given = response._get_param("Capabilities", []) or []
        if "AWS::IAM::" in body and not {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"} & set(given):
            error = CloudFormationError("Requires capabilities : [CAPABILITY_IAM]")
            error.code = "InsufficientCapabilitiesException"
            raise error

    def create_stack(self: Any) -> Any:
        check_capabilities(self)
        return answer_create(self)

    def create_change_set(self: Any) -> Any:
        check_capabilities(self)
        names = ("StackName", "ChangeSetName", "ChangeSetType", "TemplateBody", "Description", "Parameters", "Tags")
        asked = {name: value for name in names if (value := self._get_param(name)) is not None}
        made = change_sets.create(self.cloudformation_backend, asked)
        return action_result({"Id": made.change_set_id, "StackId": made.stack_id})

    def describe_change_set(self: Any) -> Any:
        names = self._get_param("ChangeSetName"), self._get_param("StackName")
        with_paths = str(self._get_param("IncludePropertyValues")).lower() == "true"
        return action_result(change_sets.find(self.cloudformation_backend, *names).described(with_paths=with_paths))

    def delete_change_set(self: Any) -> Any:
        change_sets.delete(self.cloudformation_backend, self._get_param("ChangeSetName"), self._get_param("StackName"))
        return action_result({})

    def execute_change_set(self: Any) -> Any:
        change_sets.execute(self.cloudformation_backend, self._get_param("ChangeSetName"), self._get_param("StackName"))
        return action_result({})

    def update_stack(
        self: Any, name: str, template: str, role_arn: str | None, parameters: list[Json], tags: Any
    ) -> Any:
        stack = self.get_stack(name)
        before = parameter_values(stack.template_dict, stack.parameters)  # defaults that nobody gave are values too
        given = {
            each["ParameterKey"]: before.get(each["ParameterKey"], "")
            if each.get("UsePreviousValue")
            else each["ParameterValue"]
            for each in parameters
        }
        update(stack, template, role_arn, given, tags)
        return stack

    def parameter_list(self: Any) -> list[Json]:
        values = parameter_values(self.template_dict, self.parameters)  # moto would tell a list as Python writes it
        return [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]

    tell_outputs = models.Stack.outputs.fget

    def outputs(self: Any) -> Any:
        # As AWS has it: none before all is made, and those of before while an update goes on.
        if self.status in STEADY:
            self.cirro_outputs = tell_outputs(self)
        return getattr(self, "cirro_outputs", None)

    backend.update_stack = update_stack
    models.Stack.outputs = property(outputs)
    models.Stack.create_resources = create
    models.Stack.update = update
    models.Stack.delete = delete
    backend.delete_stack = delete_stack
    models.Stack.parameter_list = property(parameter_list)
    answers = responses.CloudFormationResponse
    answers.create_stack = create_stack
    answers.create_change_set = create_change_set
    answers.describe_change_set = describe_change_set
    answers.delete_change_set = delete_change_set
    answers.execute_change_set = execute_change_set
    own = ("DescribeChangeSetOutput.Changes", "DescribeChangeSetOutput.Parameters")
    shapes = answers.RESPONSE_KEY_PATH_TO_TRANSFORMER
    answers.RESPONSE_KEY_PATH_TO_TRANSFORMER = {key: value for key, value in shapes.items() if key not in own}

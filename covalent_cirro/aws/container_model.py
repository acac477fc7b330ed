"""Whether properties of a container have the form that AWS Batch takes, by the service model that botocore carries.

It calls no AWS service. botocore is imported, and the model read (0.1 s), with the first properties that are checked.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from covalent_cirro.errors import SettingsError


def require(properties: Mapping[str, Any]) -> None:
    """Refuse properties that have another form than ``ContainerProperties``.

    Raises:
        SettingsError: All mistakes, with what is possible.
    """
    if properties and (wrong := mistakes(properties)):
        raise SettingsError(
            f"job_properties={dict(properties)!r} is not possible: {'. '.join(each.rstrip('.') for each in wrong)}."
        )


@functools.lru_cache(maxsize=1)
def _shape() -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model("batch", "service-2"), service_name="batch")
    return model.shape_for("ContainerProperties")


def mistakes(properties: Mapping[str, Any]) -> list[str]:
    """What the model of ``ContainerProperties`` (RegisterJobDefinition) does not allow, a sentence each.

    Unknown keys are named together with the keys that are possible there, and a value of an enumeration with the values
    that are.
    """
    from botocore.validate import ParamValidator

    shape = _shape()
    # As dictionaries and lists, which the validator asks for.
    report = str(ParamValidator().validate(dict(properties), shape).generate_report())
    if report:
        return report.split("\n")
    return list(_outside_enumerations(shape, properties, ""))


def _outside_enumerations(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Values that botocore lets pass: AWS adds values to enumerations, and refuses others only once it is asked."""
    if shape.type_name == "structure":
        for key, item in value.items():
            yield from _outside_enumerations(shape.members[key], item, f"{path}.{key}" if path else key)
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _outside_enumerations(shape.member, item, f"{path}[{index}]")
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{path} is {value!r}, and can be {', '.join(shape.enum)}"

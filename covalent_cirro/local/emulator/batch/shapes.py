"""botocore's service model of AWS Batch: its operations, and whether a request has the shape of its operation.

What the values of a request mean, `validation` checks.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape


@functools.lru_cache(maxsize=1)
def service_model() -> ServiceModel:
    """The model, read once (0.1 s)."""
    return ServiceModel(Loader().load_service_model("batch", "service-2"), service_name="batch")


class Route(NamedTuple):
    """Method and path of an operation; the groups of ``path`` are named as its parameters."""

    operation: str
    method: str
    path: re.Pattern[str]


@functools.lru_cache(maxsize=1)
def routes() -> tuple[Route, ...]:
    """The routes of all operations of the model."""
    model = service_model()
    found = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", http["requestUri"])
        found.append(Route(name, http["method"], re.compile(pattern)))
    return tuple(found)


def operation(name: str) -> OperationModel:
    """The model of one operation."""
    return service_model().operation_model(name)


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
}


def mistake(shape: Shape | None, value: Any, path: str = "") -> str | None:
    """The first part of a request that its shape does not allow; `None` where there is none.

    Enumerations are not checked: AWS adds values, and what a value means is checked where it is used.
    """
    if shape is None:
        return None
    where = path or "The request"
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            return f"{where} must be an object"
        for key in value:
            if key not in shape.members:
                return f"Unrecognized field {key!r} in {where}; known are {', '.join(sorted(shape.members))}"
        for key in shape.required_members:
            if value.get(key) is None:
                return f"{path + '.' if path else ''}{key} must not be null"
        for key, member in value.items():
            found = None if member is None else mistake(shape.members[key], member, f"{path}.{key}" if path else key)
            if found is not None:
                return found
        return None
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            return f"{where} must be a list"
        items = (mistake(shape.member, item, f"{path}[{i}]") for i, item in enumerate(value))
        return next((found for found in items if found is not None), None)
    if isinstance(shape, MapShape):
        if not isinstance(value, dict):
            return f"{where} must be a map"
        items = (mistake(shape.value, item, f"{path}[{key!r}]") for key, item in value.items())
        return next((found for found in items if found is not None), None)
    expected = _TYPES.get(shape.type_name)
    if expected is not None and (not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected)):
        return f"{where} must be of type {shape.type_name}"
    return None

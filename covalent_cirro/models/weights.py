"""Weights as the bytes of a safetensors file: tensors by name, and nothing that runs code when it is read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from covalent_cirro.errors import ModelError


def encoded(weights: Mapping[str, Any]) -> bytes:
    """The file. Equal weights give equal bytes, whether they are arrays or tensors.

    Args:
        weights: NumPy arrays, or tensors of torch on any device, by name.

    Raises:
        ModelError: There are none, or something else is among them.
        ModuleNotFoundError: safetensors is not installed.
    """
    if not weights:
        raise ModelError("a model has weights: register(name, weights) takes a dict of arrays or tensors, not empty.")
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"registering weights needs {error.name}: run pip install 'covalent-cirro[models]'.", name=error.name
        ) from error
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    has_tensors = torch is not None and any(isinstance(each, torch.Tensor) for each in weights.values())
    try:
        return _from_tensors(weights, torch) if has_tensors else safetensors.numpy.save(_arrays(weights))
    except (TypeError, ValueError, KeyError, AttributeError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"the weights cannot be stored: {error}. They are a dict of names and arrays of numbers, of NumPy or torch."
        ) from error


def _arrays(weights: Mapping[str, Any]) -> dict[str, Any]:
    import numpy

    # safetensors takes the bytes of an array as they lie in memory, without its strides.
    return {name: numpy.asarray(each, order="C") for name, each in weights.items()}


def _from_tensors(weights: Mapping[str, Any], torch: Any) -> bytes:
    import safetensors.torch

    # Tensors that share memory are refused; each gets its own.
    own = {name: torch.as_tensor(each).detach().to("cpu", copy=True).contiguous() for name, each in weights.items()}
    return bytes(safetensors.torch.save(own))

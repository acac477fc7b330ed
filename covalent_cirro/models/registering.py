"""What a program calls: `register`, `versions`, `current`, `point` and `read`, in the bucket of an executor.

It runs where a lattice is dispatched, with the rights of a submitter: a job's role writes no models.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import Any

from covalent_cirro import __version__
from covalent_cirro.aws.sessions import access_of
from covalent_cirro.models import weights as tensors
from covalent_cirro.models.model_registry import Content, ModelRegistry, registry_of
from covalent_cirro.models.model_version import ModelVersion


def register(
    name: str,
    weights: Mapping[str, Any],
    *,
    files: Mapping[str, Content] | None = None,
    metrics: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    data_digest: str | None = None,
    dispatch: str | None = None,
    node: int | None = None,
    versions: Mapping[str, str] | None = None,
    executor: Any = None,
) -> ModelVersion:
    """Register trained weights as a new version of a model, and make it the current one.

    The version is in the bucket under ``models/<name>/<version>/``: the weights as ``weights.safetensors``, the other
    files, and ``model.json``, which says what made them. Nobody changes a version, and it does not expire. If this
    process is killed meanwhile, there is no such version. Of two that register at the same time, the newer version
    becomes the current one.

    Args:
        name: Name of the model: letters, digits, dots, underscores and hyphens.
        weights: NumPy arrays, or tensors of torch, by name.
        files: What else a service needs, by name: bytes, or the path of a file. At most 5 GiB each.
        metrics: Numbers by which the version is judged, such as its error on data that it was not trained on.
        parameters: What it was trained with, such as the learning rate; what JSON can say.
        data_digest: Digest of the data that it was trained on.
        dispatch: Id of the dispatch that trained it.
        node: Id of the node whose result the weights are.
        versions: Versions of the programs that trained it, by name. Python's, torch's (where it is imported) and this
            package's are those of this process where they are not given.
        executor: The `CirroBatchExecutor` whose account, bucket and prefix are used. Default: that of
            ``[executors.cirro]`` in Covalent's config.

    Returns:
        The version; its attribute ``uri`` is where it is.

    Raises:
        ModelError: It cannot be registered: a name, a number or a file is not what it can be.
        OSError: A file cannot be read.
        SettingsError: The executor has no bucket, or a setting is wrong.
        AwsError: It cannot be stored; the message has AWS's words.

    Example:
        >>> from covalent_cirro import models
        >>> version = models.register("recommender", weights, metrics={"rmse": 0.87}, dispatch=dispatch_id)
        >>> version.uri
        's3://cirro-storage-bucket-1a2b/cirro/models/recommender/20261130T081500Z-0a1b2c3d'
    """
    return _registry(executor).register(
        name,
        tensors.encoded(weights),
        files or {},
        dispatch=dispatch,
        node=node,
        data_digest=data_digest,
        metrics=metrics or {},
        parameters=parameters or {},
        versions={**_versions(), **(versions or {})},
    )


def versions(name: str, *, executor: Any = None) -> list[ModelVersion]:
    """The versions of a model, the newest first; an empty list where there is no such model.

    Args:
        name: Name of the model.
        executor: As for `register`.
    """
    return _registry(executor).versions(name)


def current(name: str, *, executor: Any = None) -> ModelVersion:
    """The current version of a model.

    Args:
        name: Name of the model.
        executor: As for `register`.

    Raises:
        ModelError: There is no such model.
    """
    return _registry(executor).current(name)


def point(name: str, version: str, *, executor: Any = None) -> ModelVersion:
    """Make another version of a model the current one. What is deployed already stays as it is.

    Args:
        name: Name of the model.
        version: Name of the version.
        executor: As for `register`.

    Raises:
        ModelError: There is no such version; or somebody else has made another one the current one at the same time.
    """
    return _registry(executor).point(name, version)


def read(name: str, version: str, file: str = "weights.safetensors", *, executor: Any = None) -> bytes:
    """The bytes of a file of a version, checked against the digest that was registered.

    Args:
        name: Name of the model.
        version: Name of the version.
        file: Name of the file.
        executor: As for `register`.

    Raises:
        ModelError: There is no such version or file, or it was changed.

    Example:
        >>> weights = safetensors.numpy.load(models.read("recommender", models.current("recommender").version))
    """
    return _registry(executor).read(name, version, file)


def _registry(executor: Any) -> ModelRegistry:
    import covalent  # noqa: F401  (first, as in every program: it loads the plugin while it is imported)

    from covalent_cirro.stored_values.buckets import settings_of

    settings = settings_of(executor)
    return registry_of(access_of(settings), settings)


def _versions() -> dict[str, str]:
    """Versions of the programs in this process."""
    found = {"python": platform.python_version(), "covalent-cirro": __version__}
    torch = sys.modules.get("torch")
    return found if torch is None else {**found, "torch": str(torch.__version__)}

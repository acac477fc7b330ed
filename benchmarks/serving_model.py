"""Made models in the form of the registry (`model.json` and the files that it names), without a registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

USERS, ITEMS, FACTORS, RATINGS = 6_040, 3_706, 18, 1_000_209
"""MovieLens 1M has these users, items and ratings; `FACTORS` is the k of the tutorial's class."""


class MadeModel(NamedTuple):
    """What the service reads of a model.

    Attributes:
        tensors: ``user``, ``item``, ``bias_user``, ``bias_item`` and ``bias``, float32.
        rated: Rows of the items that each user has rated, ascending, by row of the user.
        users: Ids of the users, by row.
        items: Ids of the items, by row.
        titles: Titles of the items, by row.
        popular: Rows of the items, the most popular first.
    """

    tensors: Mapping[str, NDArray[Any]]
    rated: Sequence[Sequence[int] | NDArray[Any]]
    users: Sequence[int | str]
    items: Sequence[int | str]
    titles: Sequence[str]
    popular: Sequence[int]


def made(users: int = USERS, items: int = ITEMS, k: int = FACTORS, ratings: int = RATINGS, seed: int = 7) -> MadeModel:
    """A model with normally distributed vectors; some items are rated more often than others, as films are."""
    random = np.random.default_rng(seed)
    popularity = 1 / np.arange(10, items + 10)
    popularity /= popularity.sum()
    rated = [
        np.sort(random.choice(items, min(items, max(1, count)), replace=False, p=popularity))
        for count in random.poisson(ratings / users, users)
    ]
    tensors = {
        "user": random.normal(0, 0.4, (users, k)),
        "item": random.normal(0, 0.4, (items, k)),
        "bias_user": random.normal(0, 0.3, users),
        "bias_item": random.normal(0, 0.3, items),
        "bias": np.array([3.6]),
    }
    return MadeModel(
        {name: tensor.astype(np.float32) for name, tensor in tensors.items()},
        rated,
        range(1, users + 1),
        range(1, items + 1),
        [f"A film with a title of usual length {item} ({1920 + item % 80})" for item in range(1, items + 1)],
        range(items),
    )


def write(model: MadeModel, folder: Path) -> Path:
    """Write a model into a folder of its own, whose name is its version; returns the folder."""
    counts = [len(rows) for rows in model.rated]
    rated = {
        "indptr": np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        "indices": np.concatenate([*map(np.asarray, model.rated), []]).astype(np.int32),
    }
    catalogue = {name: list(getattr(model, name)) for name in ("users", "items", "titles", "popular")}
    files = {
        "weights.safetensors": safetensors.numpy.save(dict(model.tensors)),
        "rated.safetensors": safetensors.numpy.save(rated),
        "catalogue.json": json.dumps(catalogue).encode(),
    }
    return write_files(files, folder)


def write_files(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write files of a model with the ``model.json`` that is true of them; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    described = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()}
    document = {"format": 1, "name": "movies", "version": folder.name, "files": described}
    (folder / "model.json").write_text(json.dumps(document))
    return folder

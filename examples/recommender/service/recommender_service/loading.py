"""The model as the process that answers gets it: from `prepare`, a process of its own."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from asyncio.subprocess import PIPE
from typing import NamedTuple

import numpy as np

from recommender_service.catalogue import Catalogue, Ids, Texts
from recommender_service.model import Model
from recommender_service.together import Together

ARRAYS = (
    "vectors",
    "factors",
    "offsets",
    "rated_start",
    "rated_items",
    "user_keys",
    "user_rows",
    "item_keys",
    "item_rows",
    "items",
    "items_starts",
    "popular",
)
"""The arrays that `prepare` writes, in their order."""


class NotLoaded(Exception):
    """There is no model to serve. The message says why, in the words of `prepare`."""


class Loaded(NamedTuple):
    """A model that is ready to answer.

    Attributes:
        name: Its name in the registry.
        version: Its version in the registry.
        model: Its arrays.
        catalogue: Its ids and titles.
        together: Answers requests for single users.
    """

    name: str
    version: str
    model: Model
    catalogue: Catalogue
    together: Together


def version_of(uri: str) -> str:
    """The version that a model's URI names: its last part."""
    return uri.rstrip("/").rpartition("/")[2]


async def load(uri: str) -> Loaded:
    """Have a model read and checked, and take over what is served of it.

    Args:
        uri: ``s3://<bucket>/<prefix>/models/<name>/<version>``, or a folder of that form on this machine, as a path or
            as ``file:`` URI.

    Raises:
        NotLoaded: The model cannot be read, or is refused.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "recommender_service.prepare", uri, stdout=PIPE, stderr=PIPE
    )
    try:
        stream, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise NotLoaded(said.decode("utf-8", "replace").strip() or f"{uri}: prepare ended with {process.returncode}")
    return received(stream)


def received(stream: bytes) -> Loaded:
    """The model that `prepare` has written."""
    rest = io.BytesIO(stream)
    head = json.loads(rest.readline())
    arrays = {name: np.lib.format.read_array(rest, allow_pickle=False) for name in ARRAYS}
    model = Model(*(arrays[name] for name in ("vectors", "factors", "offsets", "rated_start", "rated_items")))
    return Loaded(
        head["name"],
        head["version"],
        model,
        Catalogue(
            users=Ids(arrays["user_keys"], arrays["user_rows"]),
            items=Ids(arrays["item_keys"], arrays["item_rows"]),
            users_are_numbers=head["users_are_numbers"],
            texts=Texts(arrays["items"], arrays["items_starts"]),
            popular=arrays["popular"].tolist(),
        ),
        Together(model),
    )

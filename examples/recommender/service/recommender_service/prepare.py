"""``python -m recommender_service.prepare URI``: reads a registered model, checks it, and writes what is served.

A process of its own, which ends when that is done. So what answers requests has neither boto3, which takes as much
memory as the server, nor the copies that reading and checking make, nor an AWS client; and it answers `/health`
meanwhile. Nothing is written to the disk: the container's root may be read-only. Nothing is unpickled: weights are
safetensors, the rest is JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from recommender_service.loading import ARRAYS, version_of

FORMAT = 1
"""The format of ``model.json`` that this service reads."""

DOCUMENT = "model.json"
WEIGHTS = "weights.safetensors"
RATED = "rated.safetensors"
CATALOGUE = "catalogue.json"
FILES = (WEIGHTS, RATED, CATALOGUE)
"""What the service reads of a model, beside its document."""

TRIES = 5
"""Calls of S3 before an error counts: a task that has just started may get its credentials a moment later."""

Arrays = dict[str, NDArray[Any]]


class ModelRefused(Exception):
    """A model is not there, or not what it says that it is. The message says which, why, and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Read, check and write; returns the exit code. Errors go to stderr."""
    (uri,) = arguments
    try:
        files = _from_s3(uri) if uri.startswith("s3://") else _from_folder(uri)
        sys.stdout.buffer.write(prepared(files, uri))
        sys.stdout.buffer.flush()
    except ModelRefused as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


def _from_s3(uri: str) -> dict[str, bytes]:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    files: dict[str, bytes] = {}
    name = DOCUMENT
    try:
        client = boto3.client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": TRIES}))
        for name in (DOCUMENT, *FILES):
            files[name] = client.get_object(Bucket=bucket, Key=f"{prefix.rstrip('/')}/{name}")["Body"].read()
    except (BotoCoreError, ClientError) as error:
        raise ModelRefused(
            f"{name} of the model {uri} cannot be read: {error}. CIRRO_MODEL must name a registered version, and the "
            "task's role must be allowed s3:GetObject on it."
        ) from error
    return files


def _from_folder(uri: str) -> dict[str, bytes]:
    folder = Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri)
    try:
        return {name: (folder / name).read_bytes() for name in (DOCUMENT, *FILES)}
    except OSError as error:
        raise ModelRefused(f"the model {uri} cannot be read: {error}") from error


def prepared(files: Mapping[str, bytes], uri: str) -> bytes:
    """Check the files of a model against its ``model.json``, and write down what is served.

    Args:
        files: The contents, by name: `DOCUMENT` and all of `FILES`.
        uri: Where they are from, for errors; its last part is the version.

    Returns:
        A line of JSON with name and version, and then `ARRAYS` in NumPy's format.

    Raises:
        ModelRefused: A file has another digest than ``model.json`` says, or does not fit the others.
    """
    document = _document(files, uri)
    weights = _tensors(files[WEIGHTS], WEIGHTS, uri)
    rated = _tensors(files[RATED], RATED, uri)
    try:
        _check_weights(weights)
        _check_rated(rated, len(weights["user"]), len(weights["item"]))
        catalogue = json.loads(files[CATALOGUE])
        _check_catalogue(catalogue, len(weights["user"]), len(weights["item"]))
    except (KeyError, TypeError, ValueError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise ModelRefused(f"the model {uri} does not fit this service: {why}") from error
    head = {
        "name": str(document["name"]),
        "version": str(document["version"]),
        "users_are_numbers": all(isinstance(user, int) for user in catalogue["users"]),
    }
    arrays = {
        **model_arrays(weights, rated),
        **_lookup(catalogue["users"], "user"),
        **_lookup(catalogue["items"], "item"),
        **_texts(catalogue["items"], catalogue["titles"]),
        "popular": np.array(catalogue["popular"], np.int32),
    }
    stream = io.BytesIO()
    stream.write(json.dumps(head).encode() + b"\n")
    for name in ARRAYS:
        np.lib.format.write_array(stream, arrays[name], allow_pickle=False)
    return stream.getvalue()


def model_arrays(weights: Mapping[str, NDArray[Any]], rated: Mapping[str, NDArray[Any]]) -> Arrays:
    """The arrays of `Model`, of the registered ones.

    Args:
        weights: ``user`` [users, k], ``item`` [items, k], ``bias_user``, ``bias_item``, ``bias`` [1], float32.
        rated: ``indptr`` [users + 1] and ``indices`` [ratings]: rows of the items that each user has rated.
    """
    user, item = weights["user"], weights["item"]
    # The bias of an item is one more factor, so that the product adds it, too. A factor's values for all items lie one
    # behind the other: so the product is twice as fast.
    return {
        "vectors": np.hstack([user, np.ones((len(user), 1), np.float32)]),
        "factors": np.ascontiguousarray(np.vstack([item.T, weights["bias_item"]])),
        "offsets": weights["bias_user"].astype(np.float64) + np.float64(weights["bias"][0]),
        "rated_start": rated["indptr"],
        "rated_items": rated["indices"].astype(np.uint16 if len(item) <= 1 << 16 else np.int32),
    }


def _lookup(ids: Sequence[int | str], name: str) -> Arrays:
    """Ids in the order of the alphabet, and the row of each: a tenth of the memory of a dict."""
    keys = np.array([str(each).encode() for each in ids])
    order = np.argsort(keys)
    return {f"{name}_keys": keys[order], f"{name}_rows": order.astype(np.int32)}


def _texts(ids: Sequence[int | str], titles: Sequence[str]) -> Arrays:
    """Id and title of each item as JSON, so that an answer only puts them together; and where each begins."""
    texts = [f"{json.dumps(each)},{json.dumps(title)}" for each, title in zip(ids, titles, strict=True)]
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return {"items": np.frombuffer("".join(texts).encode("ascii"), np.uint8), "items_starts": starts}


# --- checks -----------------------------------------------------------------------------------------------------------


def _document(files: Mapping[str, bytes], uri: str) -> dict[str, Any]:
    """``model.json``, after all other files were found to be what it says."""
    try:
        document = json.loads(files[DOCUMENT])
        if document["format"] != FORMAT:
            raise ModelRefused(
                f"{DOCUMENT} of the model {uri} has format {document['format']!r}, and this service reads {FORMAT}: "
                "deploy a newer image"
            )
        if document["version"] != version_of(uri):
            raise ModelRefused(f"{DOCUMENT} of the model {uri} is that of version {document['version']!r}")
        expected = {name: document["files"][name] for name in FILES}
        for name, entry in expected.items():
            _check_digest(files[name], entry["size"], entry["sha256"], f"{name} of the model {uri}")
        return {"name": document["name"], "version": document["version"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelRefused(
            f"{DOCUMENT} of the model {uri} does not describe {', '.join(FILES)}: {error!r}. Register the model again."
        ) from error


def _check_digest(data: bytes, size: int, sha256: str, what: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if len(data) != size or found != sha256:
        raise ModelRefused(
            f"{what} has {len(data)} bytes with the SHA-256 {found}, and {DOCUMENT} says {size} bytes with {sha256}: "
            "the file was changed or cut after the model was registered. Register the model again."
        )


def _tensors(data: bytes, name: str, uri: str) -> Arrays:
    try:
        return dict(safetensors.numpy.load(data))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelRefused(
            f"{name} of the model {uri} is not in safetensors' format ({error}). Other formats, and pickles among "
            "them, are not read: a pickle runs code."
        ) from error


def _check_weights(weights: Mapping[str, NDArray[Any]]) -> None:
    user, item = weights["user"], weights["item"]
    _require(user.ndim == 2 and item.ndim == 2 and user.shape[1] == item.shape[1], "user and item are not [n, k]")
    users, items = len(user), len(item)
    _require(items > 0, "it has no item")
    for name, shape in {"bias_user": (users,), "bias_item": (items,), "bias": (1,)}.items():
        _require(weights[name].shape == shape, f"{name} has the shape {weights[name].shape} instead of {shape}")
    for name in ("user", "item", "bias_user", "bias_item", "bias"):
        _require(weights[name].dtype == np.float32, f"{name} is {weights[name].dtype} instead of float32")
        _require(bool(np.isfinite(weights[name]).all()), f"{name} has values that are no finite numbers")


def _check_rated(rated: Mapping[str, NDArray[Any]], users: int, items: int) -> None:
    start, rows = rated["indptr"], rated["indices"]
    _require(start.dtype == np.int64 and rows.dtype == np.int32, "indptr is not int64, or indices are not int32")
    counts = np.diff(start)
    _require(
        start.shape == (users + 1,) and start[0] == 0 and start[-1] == len(rows) and bool((counts >= 0).all()),
        f"indptr of {RATED} does not divide {len(rows)} ratings among {users} users",
    )
    _require(not len(rows) or (rows.min() >= 0 and rows.max() < items), f"{RATED} has items that the model has not")
    owners = np.repeat(np.arange(users), counts)
    ascending = (np.diff(rows) > 0) | (np.diff(owners) > 0)
    _require(bool(ascending.all()), f"the items of a user in {RATED} are not ascending")


def _check_catalogue(found: Mapping[str, Any], users: int, items: int) -> None:
    for name, rows in (("users", users), ("items", items)):
        texts = {str(each) for each in found[name]}
        count = len(found[name])
        _require(
            count == len(texts) == rows, f"{CATALOGUE} has {count} {name}, {len(texts)} different, for {rows} rows"
        )
        # NumPy's texts end at their last character that is not NUL.
        _require(not any(text.endswith("\0") for text in texts), f"{CATALOGUE} has {name} that end with NUL")
    _require(len(found["titles"]) == items, f"{CATALOGUE} has {len(found['titles'])} titles for {items} items")
    popular = set(found["popular"])
    _require(
        len(popular) == len(found["popular"]) and popular <= set(range(items)),
        f"popular items of {CATALOGUE} are not rows of the model, each once",
    )


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise ValueError(why)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a version of a model is: its document ``model.json``, its name, and the keys of its objects. Pure.

The name of a version begins with the time, so that versions sort by time, and ends with a part of the digest of the
document, so that two versions of the same second have different names unless they are equal.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple

from covalent_cirro.contract import codec
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.errors import ModelError

FORMAT = 1
"""Version of the document's form. A document of another form is an error."""

DOCUMENT = "model.json"
"""Name of the document, which is written last: without it there is no version."""

WEIGHTS = "weights.safetensors"
"""Name of the file with the weights."""

POINTER = "current.json"
"""Name of the pointer to the current version, beside the folders of the versions."""

MAX_DOCUMENT_BYTES = 1024 * 1024
"""A longer document is refused, unread; one with all that its limits allow is shorter."""

MAX_FILE_BYTES = 5 * 1024**3
"""Bytes of a file: what one PutObject takes (S3 User Guide, Uploading objects), as only a whole object is put on
condition that there is none."""

MAX_FILES = 1000
MAX_FACTS = 1000
_TEXT_CHARS = 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


class ModelFile(NamedTuple):
    """A file of a version.

    Attributes:
        sha256: Digest of its bytes, in hex.
        size: Its bytes.
    """

    sha256: str
    size: int


def _json_object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{path} is no object")
    return value


def _metrics(value: object, path: str) -> dict[str, float]:
    found = _json_object(value, path)
    for name, each in found.items():
        if isinstance(each, bool) or not isinstance(each, int | float):
            raise ProtocolError(f"{path}.{name} is no number")
    return found


class ModelVersion(NamedTuple):
    """A version of a model: what made it, and which files it has. Nobody changes it.

    Attributes:
        name: Name of the model.
        version: Name of the version, ``20261130T081500Z-0a1b2c3d``. Later versions sort behind earlier ones.
        created: Time of its registration, ``2026-11-30T08:15:00Z``.
        files: Its files, by name; ``weights.safetensors`` has the weights.
        dispatch: Id of the dispatch that trained it; `None` if that was not told.
        node: Id of the node whose result it is; `None` if that was not told.
        data_digest: Digest of the data that it was trained on; `None` if that was not told.
        metrics: Numbers by which it is judged, such as its error on data that it was not trained on.
        parameters: What it was trained with, such as the learning rate.
        versions: Versions of the programs that made it, by name: ``python``, ``torch``, ``covalent-cirro``.
        uri: ``s3://bucket/<prefix>/models/<name>/<version>``. It is no part of the document.
    """

    name: str
    version: str
    created: str
    files: Annotated[dict[str, ModelFile], MAX_FILES]
    dispatch: str | None
    node: int | None
    data_digest: str | None
    metrics: Annotated[dict[str, float], _metrics]
    parameters: Annotated[dict[str, Any], _json_object]
    versions: Annotated[dict[str, Annotated[str, _TEXT_CHARS]], MAX_FACTS]
    uri: Annotated[str, _TEXT_CHARS] = ""


# --- keys -----------------------------------------------------------------------------------------------------------


def is_name(name: str) -> bool:
    """Whether a model can have a name."""
    return _NAME.fullmatch(name) is not None


def models_base(prefix: str) -> str:
    """Beginning of the keys of all models; ``prefix`` is empty or ends with a slash."""
    return f"{prefix}models/"


def model_base(prefix: str, name: str) -> str:
    """Beginning of the keys of a model.

    Raises:
        ModelError: No model can have the name.
    """
    if not is_name(name):
        raise ModelError(
            f"no model can be called {name!r}: a name has up to 64 letters, digits, dots, underscores and hyphens, and "
            "begins with a letter or digit."
        )
    return f"{models_base(prefix)}{name}/"


def pointer_key(prefix: str, name: str) -> str:
    """Key of the pointer to the current version."""
    return model_base(prefix, name) + POINTER


def file_key(prefix: str, name: str, version: str, file: str) -> str:
    """Key of a file of a version, or of its document.

    Raises:
        ModelError: No version, or no file, can have the name.
    """
    if not VERSION.fullmatch(version):
        raise ModelError(
            f"{version!r} is no version of a model: these are called 20261130T081500Z-0a1b2c3d and the like. "
            f"`cirro models {name}` lists them."
        )
    if not _FILE.fullmatch(file):
        raise ModelError(
            f"no file of a model can be called {file!r}: a name has up to 128 letters, digits, dots, underscores and "
            "hyphens, and begins with a letter or digit."
        )
    return f"{model_base(prefix, name)}{version}/{file}"


class Listing(NamedTuple):
    """Names of the versions of a model, the newest first.

    Attributes:
        complete: Those that have a document.
        unfinished: Those without one: they are being registered, or whoever did that was killed.
    """

    complete: tuple[str, ...]
    unfinished: tuple[str, ...]


def listing(keys: Iterable[str], base: str) -> Listing:
    """The versions of a model among the keys below its ``model_base``; other keys are left out."""
    found: dict[str, bool] = {}
    for key in keys:
        version, _, file = key.removeprefix(base).partition("/")
        if key.startswith(base) and VERSION.fullmatch(version) and file:
            found[version] = found.get(version, False) or file == DOCUMENT
    newest_first = sorted(found, reverse=True)
    return Listing(
        tuple(each for each in newest_first if found[each]), tuple(each for each in newest_first if not found[each])
    )


# --- documents --------------------------------------------------------------------------------------------------------


def made(
    name: str,
    created: datetime,
    files: Mapping[str, ModelFile],
    *,
    dispatch: str | None,
    node: int | None,
    data_digest: str | None,
    metrics: Mapping[str, Any],
    parameters: Mapping[str, Any],
    versions: Mapping[str, str],
) -> ModelVersion:
    """A new version, with the name that it has by its content and time. The arguments are as in `ModelVersion`.

    Raises:
        ModelError: A metric is no finite number, or something else cannot be written as JSON.
    """
    found = ModelVersion(
        name,
        "",
        f"{created:%Y-%m-%dT%H:%M:%SZ}",
        dict(files),
        dispatch,
        node,
        data_digest,
        _plain(name, "metrics", metrics),
        _plain(name, "parameters", parameters),
        dict(versions),
    )
    digest = hashlib.sha256(_canonical(found)).hexdigest()
    found = found._replace(version=f"{created:%Y%m%dT%H%M%SZ}-{digest[:8]}")
    if parse(encode(found), name, found.version) != found:  # what cannot be read is not written
        raise ModelError(f"a text about the model {name!r} is too long: ids have up to 128 characters, versions 1,024.")
    return found


def encode(version: ModelVersion) -> bytes:
    """The document of a version."""
    return json.dumps(_document(version), indent=1, ensure_ascii=False).encode() + b"\n"


def parse(data: bytes, name: str, version: str) -> ModelVersion:
    """Read the document of a version.

    Raises:
        ModelError: It is of another form, or the document of another version.
    """
    what = f"{DOCUMENT} of version {version} of the model {name!r}"
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ModelError(f"{what} would have {len(data)} bytes, more than the {MAX_DOCUMENT_BYTES} that are allowed.")
    try:
        document = json.loads(data)
        form = document.get("format") if isinstance(document, dict) else None
        if form != FORMAT:
            raise ModelError(
                f"{what} has the format {form!r}; this version of covalent-cirro reads {FORMAT}. Update the older side."
            )
        found = codec.read(ModelVersion, document, DOCUMENT)
    except (ValueError, RecursionError, ProtocolError) as error:
        raise ModelError(f"{what} cannot be read: {error}.") from error
    if (found.name, found.version) != (name, version):
        raise ModelError(f"{what} is that of version {found.version!r} of {found.name!r}: somebody has moved it.")
    return found


def encode_pointer(version: str) -> bytes:
    """The pointer to a version."""
    return json.dumps({"version": version}).encode() + b"\n"


def parse_pointer(data: bytes) -> str | None:
    """The version that a pointer names; `None` if it names none."""
    try:
        version = json.loads(data)["version"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return version if isinstance(version, str) and VERSION.fullmatch(version) else None


def _document(version: ModelVersion) -> dict[str, Any]:
    document = codec.dump(version)
    del document["uri"]
    return {"format": FORMAT, **document}


def _canonical(version: ModelVersion) -> bytes:
    """What the digest of a version is of: its document without its time and its name."""
    document = {key: value for key, value in _document(version).items() if key not in ("created", "version")}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(name: str, what: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON has them; numbers of NumPy and torch are numbers."""
    try:
        text = json.dumps(dict(values), default=_number, allow_nan=False, ensure_ascii=False)
        found: dict[str, Any] = json.loads(text.encode())
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the {what} of the model {name!r} cannot be written as JSON: {error}. They are texts, finite numbers, "
            "lists and dicts."
        ) from error
    return found


def _number(value: Any) -> Any:
    if hasattr(value, "item"):  # a scalar of NumPy or torch
        return value.item()
    raise TypeError(f"it has a {type(value).__name__}")

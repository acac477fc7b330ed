"""A key for the work of a call, which is equal for calls that do the same work.

Pure. The key depends on functions, hooks, inputs, packages, image and Python. It does not depend on the dispatch, the
node, the electron's name, and the resources of the job (vCPU, memory, GPUs, time).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from covalent_cirro.contract.protocol import Blob, Call, Inline, Input, NodeOutput
from covalent_cirro.electron.reuse.pickles import Described, describe

READ_BYTES = 256 * 1024
"""Most bytes of a pickle whose content is compared. A larger one is compared byte for byte: that is safe, and needs no
CPU time of the Covalent server."""


def blobs_to_read(call: Call) -> list[Blob]:
    """Blobs whose bytes `key` needs."""
    refs: list[Input | None] = []
    for task in call.tasks:
        refs += [task.function, task.hooks, *task.args, *task.kwargs.values()]
    found = [ref for ref in refs if isinstance(ref, Blob) and ref.raw_size <= READ_BYTES]
    return list(dict.fromkeys(found))


def key(call: Call, contents: Mapping[Blob, bytes]) -> str:
    """The key of a call's work.

    Args:
        call: The call.
        contents: Decoded bytes of `blobs_to_read`; a blob that is missing is compared by its digest.
    """
    describer = _Describer(contents)
    index_of = {task.node_id: index for index, task in enumerate(call.tasks)}

    def said(ref: Input | None) -> Any:
        return ["task", index_of[ref.node_id]] if isinstance(ref, NodeOutput) else describer.pickle(ref)

    tasks = [
        {
            "function": said(task.function),
            "hooks": describer.hooks(task.hooks),
            "args": [said(ref) for ref in task.args],
            "kwargs": [[name, said(ref)] for name, ref in task.kwargs.items()],  # a function can see the order
        }
        for task in call.tasks
    ]
    packages = [[package.name, describer.exactly(package.archive)] for package in call.packages]
    # The digest of an image is enough; without one, since ECR could not be asked, the tag has to do.
    image = call.image.partition("@")[2] or call.image
    work = {"image": image, "python": call.python, "tasks": tasks, "packages": packages}
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()


class _Describer:
    """Describes the content of references, and which of their classes are the same class."""

    def __init__(self, contents: Mapping[Blob, bytes]) -> None:
        self._contents = contents
        self._classes: dict[str, int] = {}

    def pickle(self, ref: Input | None) -> Any:
        data = self._data(ref)
        return self._pickled(describe(data)) if data is not None else self.exactly(ref)

    def hooks(self, ref: Input | None) -> Any:
        """The content of Covalent's JSON and of the pickles in it, without texts that have addresses of functions."""
        data = self._data(ref)
        if data is None:
            return self.exactly(ref)
        try:
            return self._hook(json.loads(data))
        except (ValueError, RecursionError):
            return ["bytes", hashlib.sha256(data).hexdigest()]

    def exactly(self, ref: Input | None) -> Any:
        if isinstance(ref, Blob):
            return ["blob", ref.sha256, ref.codec, ref.raw_size]
        return ["bytes", hashlib.sha256(ref.data).hexdigest()] if isinstance(ref, Inline) else None

    def _data(self, ref: Input | None) -> bytes | None:
        if isinstance(ref, Inline):
            return ref.data
        return self._contents.get(ref) if isinstance(ref, Blob) else None

    def _pickled(self, found: Described) -> Any:
        return [found.digest, [self._classes.setdefault(each, len(self._classes)) for each in found.classes]]

    def _hook(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._hook(each) for each in value]
        if not isinstance(value, dict):
            return value
        if value.get("type") == "TransportableObject" and isinstance(value.get("attributes"), dict):
            return dict(self._transported(value["attributes"]))
        return {name: self._hook(each) for name, each in sorted(value.items())}

    def _transported(self, attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, each in sorted(attributes.items()):
            if name == "_object" and isinstance(each, str):
                try:
                    yield name, self._pickled(describe(base64.b64decode(each, validate=True)))
                except binascii.Error:
                    yield name, each
            elif name != "_object_string":  # only shown: str() of a function has its address
                yield name, each

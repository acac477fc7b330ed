"""What the work of a call consists of: calls of equal work have equal parts.

Pure. Parts are functions, hooks, inputs, packages, image, variables, references to secrets, and Python. Dispatch,
nodes, the electrons' names, and the resources of the job (vCPU, memory, GPUs, time) are not.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from covalent_cirro.contract import nested
from covalent_cirro.contract.maps import ITEM_VARIABLE, Mapped, MappedArgument
from covalent_cirro.contract.protocol import Call, Task
from covalent_cirro.contract.references import Blob, Inline, Input, Joined, JoinedParts, NodeOutput, Ref
from covalent_cirro.electron.reuse.package_files import ARCHIVE_BYTES, Files, reached
from covalent_cirro.electron.reuse.pickles import Described, describe

_ITEM_MODULE = "covalent_cirro.item_maps"

READ_BYTES = 256 * 1024
"""Most bytes of a pickle whose content is compared. A larger one is compared byte for byte: that is safe, and needs no
CPU time of the Covalent server."""


class WorkPart(NamedTuple):
    """Names a part of the work.

    Attributes:
        kind: ``"function"``, ``"position"`` (an argument without a name), ``"argument"``, ``"items"`` (an argument that
            is mapped), ``"arguments"`` (the names and order of arguments), ``"hook"``, ``"packages"`` (their names),
            ``"package"``, ``"image"``, ``"variables"`` (with the references to secrets) or ``"Python"``.
        name: Name of the argument, hook or package; number of the position, from 1.
        task: Index of its task; -1 for a part of all tasks.
    """

    kind: str
    name: str = ""
    task: int = -1


class Work(NamedTuple):
    """What a call does.

    Attributes:
        parts: Parts, each with a text that is equal for equal content.
        files: Digests of the files of packages that count, by their paths; empty where the packages are parts.
        names: Names of the electrons, which do not count.
        parameters: Names of the positional parameters of each function, as far as they are known; they do not count.
        for_each_item: Of a map, the work apart from its items; `None` for other calls.
    """

    parts: Mapping[WorkPart, str]
    files: Mapping[str, str]
    names: tuple[str, ...]
    parameters: tuple[tuple[str, ...], ...]
    for_each_item: ItemWork | None = None

    @property
    def key(self) -> str:
        """Equal for equal work."""
        return _key(self.parts, self.files)


class ItemWork(NamedTuple):
    """What a map does with each of its items.

    Attributes:
        key: Equal for equal work on items that need no modules of the local packages themselves.
        key_with_modules: Equal for equal work on any items: all files of the packages count.
        knows_place: The function may ask for the place of its item (`covalent_cirro.item`), which counts then.
    """

    key: str
    key_with_modules: str
    knows_place: bool


def _key(parts: Mapping[WorkPart, str], files: Mapping[str, str]) -> str:
    said = [sorted(parts.items()), sorted(files.items())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def blobs_to_read(call: Call) -> list[Blob]:
    """Blobs with pickles whose bytes `work_of` needs."""
    refs: list[Input | None] = []
    for task in call.tasks:
        refs += [task.function, task.hooks, *task.args, *task.kwargs.values()]
        for bodies in _lists(task):
            refs += bodies if sum(map(_raw_size, bodies)) <= READ_BYTES else ()
    found = [ref for ref in refs if isinstance(ref, Blob) and ref.raw_size <= READ_BYTES]
    return list(dict.fromkeys(found))


def _lists(task: Task) -> Iterator[tuple[Ref, ...]]:
    """The sources of lists that are stored in parts, or are mapped."""
    yield from (ref.bodies for ref in (*task.args, *task.kwargs.values()) if isinstance(ref, (Joined, JoinedParts)))
    yield from (argument.sources for argument in (task.mapped.arguments if task.mapped is not None else ()))


def _raw_size(ref: Ref) -> int:
    return ref.raw_size if isinstance(ref, Blob) else len(ref.data)


def archives_to_read(call: Call) -> list[Ref]:
    """Archives of packages that `package_files.read_archives` needs; none if there are none, or one is too large."""
    archives = [package.archive for package in call.packages]
    sizes = (each.raw_size if isinstance(each, Blob) else len(each.data) for each in archives)
    return archives if sum(sizes) <= ARCHIVE_BYTES else []


def work_of(call: Call, contents: Mapping[Blob, bytes], files: Files | None) -> Work:
    """The work of a call.

    Args:
        call: The call.
        contents: Decoded bytes of `blobs_to_read`; a blob that is missing is compared by its digest.
        files: What is in `archives_to_read`; `None` if it is not known: the archives are compared by their digests.
    """
    describer = _Describer(contents)
    index_of = {task.node_id: index for index, task in enumerate(call.tasks)}
    parts: dict[WorkPart, str] = {}

    def said(ref: Input | None) -> str:
        found = ["task", index_of[ref.node_id]] if isinstance(ref, NodeOutput) else describer.pickle(ref)
        return json.dumps(found)

    if call.stored:
        describer.texts = None  # what a stored value consists of is not known here, nor which modules it needs
    for index, task in enumerate(call.tasks):
        parts[WorkPart("function", "", index)] = said(task.function)
        for name, hook in describer.hooks(task.hooks).items():
            parts[WorkPart("hook", name, index)] = json.dumps(hook)
        for number, ref in enumerate(task.args, 1):
            parts[WorkPart("position", str(number), index)] = said(ref)
        for name, ref in task.kwargs.items():
            parts[WorkPart("argument", name, index)] = said(ref)
        # A function can see which are named, and their order.
        parts[WorkPart("arguments", "", index)] = json.dumps([len(task.args), *task.kwargs])
    # The digest of an image is enough; without one, since ECR could not be asked, the tag has to do.
    parts[WorkPart("image")] = call.image.partition("@")[2] or call.image
    parts[WorkPart("Python")] = call.python
    if call.variables:
        parts[WorkPart("variables")] = call.variables
    parts[WorkPart("packages")] = json.dumps([package.name for package in call.packages])
    if files is None:
        for package in call.packages:
            part = WorkPart("package", package.name)
            parts[part] = parts.get(part, "") + json.dumps(exactly(package.archive))
    of_items = None
    (mapped, *_) = (task.mapped for task in call.tasks)
    if mapped is not None:
        # Before the items are described: what these name counts for the whole map only.
        of_items = _item_work(call, mapped, describer, parts, files)
        for argument in mapped.arguments:
            items = ["items", describer.items(argument)]
            if mapped.reused is not None:  # another place in another list
                items += [mapped.reused.length, mapped.reused.left]
            parts[WorkPart("items", argument.name, 0)] = json.dumps(items)
    return Work(
        parts=parts,
        files=_shared(tuple(reached(files, describer.texts).items())) if files is not None else {},
        names=tuple(task.name for task in call.tasks),
        parameters=tuple(describer.parameters(task.function) for task in call.tasks),
        for_each_item=of_items,
    )


def _item_work(
    call: Call, mapped: Mapped, describer: _Describer, parts: Mapping[WorkPart, str], files: Files | None
) -> ItemWork:
    every = {**parts, WorkPart("items"): json.dumps([each.name for each in mapped.arguments])}
    knows_place = describer.knows_place(call.tasks[0].function)
    if files is None:
        return ItemWork(_key(every, {}), _key(every, {}), knows_place or bool(call.packages))
    near = reached(files, describer.texts)
    knows_place = knows_place or any(files[path].uses_cirro for path in near)
    return ItemWork(_key(every, near), _key(every, reached(files, None)), knows_place)


@functools.lru_cache(maxsize=256)
def _shared(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """One mapping for equal ones: those of a thousand electrons are mostly equal."""
    return dict(items)


def exactly(ref: Input | None) -> Any:
    """What a reference says that is compared byte for byte."""
    if isinstance(ref, Joined):
        return ["bodies", *map(exactly, ref.bodies)]
    if isinstance(ref, JoinedParts):
        return ["parts", *([exactly(body), offset, size] for body, offset, size in ref.parts)]
    if isinstance(ref, Blob):
        return ["blob", ref.sha256, ref.codec, ref.raw_size]
    return ["bytes", hashlib.sha256(ref.data).hexdigest()] if isinstance(ref, Inline) else None


class _Describer:
    """Describes the content of references, and which of their classes are the same class.

    Attributes:
        texts: All texts in what was described; `None` where not all content is known.
    """

    def __init__(self, contents: Mapping[Blob, bytes]) -> None:
        self.texts: set[str] | None = set()
        self._contents = contents
        self._classes: dict[str, int] = {}

    def pickle(self, ref: Input | None) -> Any:
        data = self._data(ref)
        if data is not None:
            return self._pickled(describe(data))
        self.texts = None
        return exactly(ref)

    def items(self, argument: MappedArgument) -> Any:
        """The items of a mapped argument, however they are shared over jobs.

        The only source is a whole list, or the only body of one; several are bodies.
        """
        first = argument.spans[0][0].offset if argument.spans and argument.spans[0] else 0
        if len(argument.sources) == 1 and first:
            return self.pickle(argument.sources[0])
        return self.pickle(Joined(argument.sources))

    def parameters(self, function: Ref) -> tuple[str, ...]:
        data = self._data(function)
        return describe(data).parameters if data is not None else ()

    def knows_place(self, function: Ref) -> bool:
        """Whether the function of a map may call `covalent_cirro.item`."""
        data = self._data(function)
        found = describe(data) if data is not None else None
        if found is None or found.texts is None or ITEM_VARIABLE in found.texts:
            return True
        return (_ITEM_MODULE, "item") in found.globals or ("covalent_cirro" in found.texts and "item" in found.texts)

    def hooks(self, ref: Ref | None) -> dict[str, Any]:
        """The content of Covalent's JSON and of the pickles in it, without texts that have addresses of functions."""
        data = self._data(ref)
        if ref is None or data is None:
            self.texts = None if ref is not None else self.texts
            return {} if ref is None else {"hooks": exactly(ref)}
        try:
            found = self._hook(json.loads(data))
        except (ValueError, RecursionError):
            self.texts = None
            return {"hooks": ["bytes", hashlib.sha256(data).hexdigest()]}
        if not isinstance(found, dict):
            return {"hooks": found}
        deps = found.pop("deps", None)
        named = {f"deps_{name}": each for name, each in deps.items()} if isinstance(deps, dict) else {"deps": deps}
        return {name: each for name, each in {**named, **found}.items() if each}

    def _data(self, ref: Input | None) -> bytes | None:
        if isinstance(ref, Joined):
            bodies = [self._data(body) for body in ref.bodies]
            if sum(map(_raw_size, ref.bodies)) > READ_BYTES or None in bodies:
                return None
            return nested.LIST_HEAD + b"".join(body for body in bodies if body is not None) + nested.LIST_TAIL
        if isinstance(ref, JoinedParts):
            parts = [(self._data(body), offset, size) for body, offset, size in ref.parts]
            if sum(map(_raw_size, ref.bodies)) > READ_BYTES or any(data is None for data, _, _ in parts):
                return None
            cut = (data[offset : offset + size] for data, offset, size in parts if data is not None)
            return nested.LIST_HEAD + b"".join(cut) + nested.LIST_TAIL
        if isinstance(ref, Inline):
            return ref.data
        return self._contents.get(ref) if isinstance(ref, Blob) else None

    def _pickled(self, found: Described) -> Any:
        self._add(found.texts)
        return [found.digest, [self._classes.setdefault(each, len(self._classes)) for each in found.classes]]

    def _add(self, texts: Collection[str] | None) -> None:
        self.texts = None if texts is None or self.texts is None else self.texts | set(texts)

    def _hook(self, value: Any) -> Any:
        if isinstance(value, str):
            self._add([value])
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

"""Writes the call of a task group to S3 from the files of its electrons, and reads a call that was written.

Reads headers of files and hands their content to the store; unpickles nothing, and holds no file whole in memory.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro import local_files
from covalent_cirro.aws.blobs import Source
from covalent_cirro.aws.store import Store
from covalent_cirro.contract import texts, tobj
from covalent_cirro.contract.documents import dump_call, parse_call
from covalent_cirro.contract.limits import (
    ELECTRON_CHARS,
    INLINE_BYTES,
    INLINE_TOTAL_BYTES,
    MAX_DOCUMENT_BYTES,
    MAX_TASKS,
)
from covalent_cirro.contract.maps import Mapped
from covalent_cirro.contract.places import Location, location
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Call, Package, Task, Tried
from covalent_cirro.contract.references import Blob, BodyPart, Inline, Input, Joined, JoinedParts, NodeOutput, Ref
from covalent_cirro.contract.stored_references import StoredReference
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.electron import cache_folder, called_with, local_packages, stored_inputs
from covalent_cirro.electron.engine import job_variables
from covalent_cirro.electron.maps import map_plans
from covalent_cirro.electron.maps.joined import JoinedLists, StoredList
from covalent_cirro.electron.maps.map_plans import MapPlan
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs.image_rules import Pickled
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

SMALL_BYTES = 64 * 1024
"""Most bytes of a call that is parsed on the event loop."""

_EMPTY_HOOKS = frozenset({b"{}", b"", b"null"})


class ElectronSpec(NamedTuple):
    """An electron and the nodes whose outputs are its arguments (Covalent's ``TaskSpec``).

    Attributes:
        node_id: Number of the electron's node.
        args: Nodes of the positional arguments.
        kwargs: Nodes of the keyword arguments.
    """

    node_id: int
    args: Sequence[int]
    kwargs: Mapping[str, int]


class Written(NamedTuple):
    """A call that is in S3, or is about to be.

    Attributes:
        location: Place of the call in S3.
        call: Content of ``call.json``.
        keys: S3 keys that must not expire while the job waits: that of ``call.json``, and those of its blobs.
        missing_modules: Modules that its electrons import and that its job will not find.
    """

    location: Location
    call: Call
    keys: tuple[str, ...]
    missing_modules: tuple[str, ...] = ()


def new_call_id() -> str:
    """A new call id, part of the call's keys and of the job's name: the time in ms and 32 random bits, in hex.

    The ids of a node's calls differ, and the newest one sorts last. (S3's times of objects have whole seconds only.)
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"


async def pickled_by(group: Group, specs: Sequence[ElectronSpec]) -> Pickled:
    """Read the versions with which the functions of a task group were pickled."""
    header = await asyncio.to_thread(_header, group.nodes[specs[0].node_id].paths["function"])
    return Pickled(header.python_version or group.python, header.cloudpickle_version)


async def store_call(store: Store, prepared: Written, allowed: Callable[[], Awaitable[None]]) -> None:
    """Store the ``call.json`` of a call whose blobs are stored; ``allowed`` is awaited first.

    Raises:
        StoredError: A stored value that the call names is gone; nothing is written.
    """
    await allowed()
    await stored_inputs.require(store, prepared.location.bucket, prepared.location.prefix, prepared.call.stored)
    await put_call(store, prepared)


async def put_call(store: Store, written: Written) -> None:
    """Store a ``call.json``. That of a map is made in a thread, so that it does not block the event loop."""
    is_map = any(task.mapped is not None for task in written.call.tasks)
    data = await asyncio.to_thread(dump_call, written.call) if is_map else dump_call(written.call)
    await store.put_document(written.location.bucket, written.location.call_key, data)


async def prepare_call(
    store: Store,
    settings: Settings,
    dispatch_id: str,
    group: Group,
    specs: Sequence[ElectronSpec],
    pickled: Pickled,
    *,
    covalent: str,
    allowed: Callable[[], Awaitable[None]],
    image: Callable[[], Awaitable[str]],
    plan: MapPlan | None = None,
    joined: JoinedLists | None = None,
) -> Written:
    """Store the blobs of a call, each once and all at the same time, and make its ``call.json``, which is not stored.

    Args:
        store: Store of the account.
        settings: Settings of the executor.
        dispatch_id: The dispatch.
        group: The files of the task group.
        specs: The electrons.
        pickled: From `pickled_by`.
        covalent: Version of Covalent on the server.
        allowed: Awaited before anything is uploaded; its error is raised.
        image: Returns the image of the job with its digest, as far as that is known.
        plan: The map, if the electron is mapped; it is the only one then.
        joined: Lists whose parts are stored already.

    Raises:
        SettingsError: The task group has more electrons than one job can run, or it names a stored value that is in
            another bucket.
    """
    if len(specs) > MAX_TASKS:
        raise SettingsError(
            f"The task group of node {specs[0].node_id} has {len(specs)} electrons, and one job runs {MAX_TASKS} at "
            "most: turn off task packing (ct.set_config('sdk.task_packing', 'false')), or give it smaller lists."
        )
    place = location(settings.s3_bucket_name, settings.key_prefix, dispatch_id, specs[0].node_id, new_call_id())
    inside = {spec.node_id for spec in specs}
    folder = await asyncio.to_thread(cache_folder.scratch, settings.cache_dir)
    put = _Puts(store, folder, place, allowed)
    arguments = await asyncio.to_thread(called_with.read, group)

    def in_parts(path: str) -> StoredList | None:
        stored = joined.find(path, place.bucket, place.prefix) if joined is not None else None
        return stored if stored is not None and put.takes(stored.bodies) else None

    async def task(spec: ElectronSpec) -> Task:
        node = group.nodes[spec.node_id]

        async def argument(node_id: int) -> Input:
            if node_id in inside:
                return NodeOutput(node_id)
            path = group.inputs[node_id]
            stored = in_parts(path)
            return _input_of(stored) if stored is not None else await put(path, is_tobj=True)

        async def items() -> Mapped | None:
            if plan is None:
                return None
            if plan.reuse is not None:
                put.keys += [place.blob_key(blob.sha256) for blob in plan.reuse.blobs]
            return await map_plans.mapped(plan, lambda each: in_parts(each.path), put)

        async def hooks_of(node: Node) -> Ref:
            put.references |= dict.fromkeys(await asyncio.to_thread(stored_inputs.in_hooks, node.paths["hooks"]))
            return await put(node.paths["hooks"], is_tobj=False)

        shared = {name: node_id for name, node_id in spec.kwargs.items() if plan is None or name not in plan.lists}
        code, hooks, args, kwargs, of_items = await asyncio.gather(
            put(node.paths["function"], is_tobj=True),
            hooks_of(node) if "hooks" in node.paths else _no_hooks(),
            asyncio.gather(*(argument(node_id) for node_id in spec.args)),
            asyncio.gather(*(argument(node_id) for node_id in shared.values())),
            items(),
        )
        return Task(
            node_id=spec.node_id,
            name=texts.valid(node.name[:ELECTRON_CHARS]),
            function=code,
            hooks=None if isinstance(hooks, Inline) and hooks.data.strip() in _EMPTY_HOOKS else hooks,
            args=tuple(args),
            kwargs=dict(zip(shared, kwargs, strict=True)),
            arguments=arguments.get(spec.node_id, ()),
            mapped=of_items,
        )

    async def package(item: str) -> Package:
        path = await asyncio.to_thread(local_packages.locate, item)
        archive = await asyncio.to_thread(local_packages.pack, path, folder)
        return Package(local_packages.name_of(path), await put(archive, is_tobj=False))

    tasks, archives = await asyncio.gather(
        asyncio.gather(*map(task, specs)), asyncio.gather(*map(package, settings.local_packages))
    )
    call = Call(
        call_id=place.call_id,
        dispatch_id=dispatch_id,
        python=pickled.python,
        cloudpickle=pickled.cloudpickle,
        covalent=covalent,
        tasks=tuple(tasks),
        packages=tuple(archives),
        image=await image(),
        lattice=texts.valid(group.lattice[:ELECTRON_CHARS]),
        stored=stored_inputs.named(put.references, place.bucket, place.prefix),
        variables=job_variables.digest(settings),
    )
    stored = (place.blob_key(each.blob.sha256) for each in call.stored)
    return Written(place, call, (place.call_key, *put.keys, *stored))


async def read_call(store: Store, place: Location) -> Written | None:
    """A call as it was written; `None` where it is not there, is damaged, or is of another version."""
    data = await store.get_document(place.bucket, place.call_key, MAX_DOCUMENT_BYTES)
    if data is None:
        return None
    try:
        call = parse_call(data) if len(data) <= SMALL_BYTES else await asyncio.to_thread(parse_call, data)
    except ProtocolError as error:
        log.warning("The call %s cannot be used again: %s", place.call_uri, error)
        return None
    return Written(place, call, (place.call_key, *(place.blob_key(blob.sha256) for blob in _blobs(call))))


async def earlier_tries(store: Store, place: Location) -> tuple[Tried, ...]:
    """The earlier tries of a call, oldest first; none where the call cannot be read any more."""
    written = await read_call(store, place)
    return written.call.tried if written is not None else ()


def _blobs(call: Call) -> list[Blob]:
    refs: list[object] = [package.archive for package in call.packages]
    refs += [each.blob for each in call.stored]
    for task in call.tasks:
        refs += [task.function, task.hooks]
        for given in (*task.args, *task.kwargs.values()):
            refs += given.bodies if isinstance(given, (Joined, JoinedParts)) else [given]
        if task.mapped is not None:
            refs += references_of(task.mapped)
    return [ref for ref in refs if isinstance(ref, Blob)]


def _input_of(stored: StoredList) -> Joined | JoinedParts:
    if stored.parts is None:
        return Joined(stored.bodies)
    return JoinedParts(tuple(_part_of(stored.bodies[each.source], each.offset, each.size) for each in stored.parts))


def _part_of(body: Ref, offset: int, size: int) -> BodyPart:
    """Some bytes of a body. Of one that is in the document, the document has no more than these."""
    if isinstance(body, Inline):
        return BodyPart(Inline(body.data[offset : offset + size]), 0, size)
    return BodyPart(body, offset, size)


def references_of(mapped: Mapped) -> list[Ref]:
    """What a call names for its map."""
    refs = [ref for argument in mapped.arguments for ref in argument.sources]
    refs += [mapped.digests] if mapped.digests is not None else []
    return refs + ([*mapped.reused.sources, mapped.reused.table] if mapped.reused is not None else [])


async def _no_hooks() -> Ref:
    return Inline(b"")


def _header(path: str) -> tobj.Header:
    with local_files.errors_about(path), open(path, "rb") as file:
        return tobj.read_header(file)


class _Puts:
    """Uploads the files of one call, and counts the bytes of those that are inside ``call.json``.

    Attributes:
        keys: Keys of the blobs.
        references: Stored values that the pickles name.
    """

    def __init__(self, store: Store, folder: str, place: Location, allowed: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._allowed = allowed
        self._folder = folder
        self._place = place
        self._room = INLINE_TOTAL_BYTES
        self.keys: list[str] = []
        self.references: dict[StoredReference, None] = {}

    def takes(self, bodies: Sequence[Ref]) -> bool:
        """Count bodies that are stored already; False, and nothing is counted: those in the document are too many."""
        size = sum(len(body.data) for body in bodies if isinstance(body, Inline))
        if size > self._room:
            return False
        self._room -= size
        self.keys += [self._place.blob_key(body.sha256) for body in bodies if isinstance(body, Blob)]
        return True

    async def __call__(self, path: str, *, is_tobj: bool, as_it_is: bool = False) -> Ref:
        inline = self._room >= INLINE_BYTES
        reserved = INLINE_BYTES if inline else 0  # Many files are read before the first one is counted.
        self._room -= reserved
        ref = await self._store.put(
            Source(path, is_tobj, as_it_is),
            self._place.bucket,
            self._place.prefix,
            self._folder,
            inline=inline,
            allowed=self._allowed,
        )
        self._room += reserved
        if is_tobj or as_it_is:
            self.references |= dict.fromkeys(self._store.stored_in(ref))
        if isinstance(ref, Blob):
            self.keys.append(self._place.blob_key(ref.sha256))
        else:
            self._room -= len(ref.data)
        return ref

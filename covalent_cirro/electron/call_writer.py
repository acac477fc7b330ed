"""The executor's half of the protocol: from an electron's files to a call in S3.

Reads headers of files and hands their content to the store; nothing is unpickled, nothing is held whole.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from covalent_cirro import local_files
from covalent_cirro.aws.blobs import Source
from covalent_cirro.aws.store import Store
from covalent_cirro.contract import texts, tobj
from covalent_cirro.contract.documents import dump_call
from covalent_cirro.contract.limits import ELECTRON_CHARS, MAX_TASKS
from covalent_cirro.contract.protocol import (
    INLINE_BYTES,
    INLINE_TOTAL_BYTES,
    Blob,
    Call,
    Inline,
    Input,
    Location,
    NodeOutput,
    Package,
    Ref,
    Task,
    location,
)
from covalent_cirro.covalent_server.assets import Group
from covalent_cirro.electron import cache_folder, local_packages
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs.image_rules import Pickled
from covalent_cirro.settings import Settings

_EMPTY_HOOKS = frozenset({b"{}", b"", b"null"})


class ElectronSpec(NamedTuple):
    """Which nodes' outputs are an electron's arguments: Covalent's ``TaskSpec``."""

    node_id: int
    args: Sequence[int]
    kwargs: Mapping[str, int]


class Written(NamedTuple):
    """A call that is in S3.

    Attributes:
        location: Where.
        call: What it says.
        keys: Its own key and those of its blobs: what must not expire while the job waits.
    """

    location: Location
    call: Call
    keys: tuple[str, ...]


def new_call_id() -> str:
    """Part of the call's keys and of the job's name: the time in ms, then 32 random bits.

    No two calls of a node meet, and the newest sorts last: S3's own times have whole seconds only.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"


async def pickled_by(group: Group, specs: Sequence[ElectronSpec]) -> Pickled:
    """What the functions of a task group were pickled with."""
    header = await asyncio.to_thread(_header, group.nodes[specs[0].node_id].paths["function"])
    return Pickled(header.python_version or group.python, header.cloudpickle_version)


async def write_call(
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
) -> Written:
    """Store what a task group needs: blobs first, each once and all at the same time, then ``call.json``.

    The arguments are those of `prepare_call`.
    """
    prepared = await prepare_call(
        store, settings, dispatch_id, group, specs, pickled, covalent=covalent, allowed=allowed, image=image
    )
    await store_call(store, prepared, allowed)
    return prepared


async def store_call(store: Store, prepared: Written, allowed: Callable[[], Awaitable[None]]) -> None:
    """Write ``call.json`` of a call whose blobs are stored; ``allowed`` is awaited before."""
    await allowed()
    await store.put_document(prepared.location.bucket, prepared.location.call_key, dump_call(prepared.call))


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
) -> Written:
    """Store the blobs of a call, and say what its ``call.json`` is to be, which is not written.

    Args:
        store: Where.
        settings: Of the executor.
        dispatch_id: The dispatch.
        group: The files.
        specs: The electrons.
        pickled: From `pickled_by`.
        covalent: Version of Covalent on the server.
        allowed: Awaited before anything is sent; what it raises is raised.
        image: Tells the image with its digest, as far as that is known.

    Raises:
        SettingsError: One job cannot run so many electrons.
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

    async def task(spec: ElectronSpec) -> Task:
        node = group.nodes[spec.node_id]

        async def argument(node_id: int) -> Input:
            return NodeOutput(node_id) if node_id in inside else await put(group.inputs[node_id], is_tobj=True)

        code, hooks, args, kwargs = await asyncio.gather(
            put(node.paths["function"], is_tobj=True),
            put(node.paths["hooks"], is_tobj=False) if "hooks" in node.paths else _no_hooks(),
            asyncio.gather(*(argument(node_id) for node_id in spec.args)),
            asyncio.gather(*(argument(node_id) for node_id in spec.kwargs.values())),
        )
        return Task(
            node_id=spec.node_id,
            name=texts.valid(node.name[:ELECTRON_CHARS]),
            function=code,
            hooks=None if isinstance(hooks, Inline) and hooks.data.strip() in _EMPTY_HOOKS else hooks,
            args=tuple(args),
            kwargs=dict(zip(spec.kwargs, kwargs, strict=True)),
        )

    async def package(item: str) -> Package:
        path = await asyncio.to_thread(local_packages.locate, item)
        archive = await asyncio.to_thread(local_packages.pack, path, folder)
        return Package(path.stem if path.suffix == ".py" else path.name, await put(archive, is_tobj=False))

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
    )
    return Written(place, call, (place.call_key, *put.keys))


async def _no_hooks() -> Ref:
    return Inline(b"")


def _header(path: str) -> tobj.Header:
    with local_files.told(path), open(path, "rb") as file:
        return tobj.read_header(file)


class _Puts:
    """Puts the files of one call, and counts what rides inside it."""

    def __init__(self, store: Store, folder: str, place: Location, allowed: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._allowed = allowed
        self._folder = folder
        self._place = place
        self._room = INLINE_TOTAL_BYTES
        self.keys: list[str] = []

    async def __call__(self, path: str, *, is_tobj: bool) -> Ref:
        inline = self._room >= INLINE_BYTES
        reserved = INLINE_BYTES if inline else 0  # Many puts ask before the first has its answer.
        self._room -= reserved
        ref = await self._store.put(
            Source(path, is_tobj),
            self._place.bucket,
            self._place.prefix,
            self._folder,
            inline=inline,
            allowed=self._allowed,
        )
        self._room += reserved
        if isinstance(ref, Blob):
            self.keys.append(self._place.blob_key(ref.sha256))
        else:
            self._room -= len(ref.data)
        return ref

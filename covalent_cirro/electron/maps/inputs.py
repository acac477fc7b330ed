"""Finds the items of a map's lists before anything is stored, and shares them over jobs.

A list that is a pickle of pickles is cut without opening an item: one that a user wrote down, one of electrons, and the
result of another map. Any other list is opened, by a process in a sandbox on the server's host (`host_process.py`),
which writes it as a pickle of pickles. So is a stored list (`covalent_cirro.stored`), which is fetched for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import io
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

from covalent_cirro import local_files
from covalent_cirro.contract import nested, stored_references, tobj
from covalent_cirro.contract.item_values import unequal
from covalent_cirro.contract.maps import MAX_CHILD_ITEMS, MAX_ITEMS
from covalent_cirro.contract.stored_references import MAX_CHARS, VALUE, StoredReference
from covalent_cirro.covalent_server import assets
from covalent_cirro.covalent_server.assets import Group
from covalent_cirro.electron import cache_folder, distributed, host_process, local_packages, stored_inputs
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.electron.host_process import BrokenProcess
from covalent_cirro.electron.launches import Launch
from covalent_cirro.electron.maps import item_digests, recognition, shares
from covalent_cirro.electron.maps.map_plans import ListFile, MapPlan
from covalent_cirro.electron.result_writer import open_untrusted
from covalent_cirro.errors import SettingsError
from covalent_cirro.settings import Settings

_SPLIT = ("covalent_cirro.runner.split", "split", "items.pickle")
"""Module and name of the function that splits a list, and the file that it writes."""

_FETCHED = "fetched.pickle"

_INSTEAD = "Or have the electron before it be a map too: then no item is opened."

_INSTALL = f"Install it where the Covalent server runs. {_INSTEAD}"

_SCAN_BYTES = 4096
"""Bytes that are read at a time of a pickle: what is skipped need not be decoded."""


@contextlib.asynccontextmanager
async def planned(
    engine: Engine, launch: Launch, settings: Settings, group: Group, specs: Sequence[ElectronSpec]
) -> AsyncIterator[MapPlan | None]:
    """Plan the map of a task group; `None`: its electrons are not mapped. The files of the plan last for the block.

    Args:
        engine: The account's.
        launch: The task group; its cancel ends a process that opens a list.
        settings: Settings of the executor.
        group: The files of the task group.
        specs: Its electrons.

    Raises:
        SettingsError: It cannot be mapped: no list, lists of different lengths, or more items than a map can have.
        StoredError: A stored list is gone.
        TaskCancelledError: The task group was cancelled.
    """
    names = await asyncio.to_thread(
        lambda: {spec.node_id: recognition.names_of(group.nodes[spec.node_id].paths["function"]) for spec in specs}
    )
    if not any(names.values()):
        yield None
        return
    distributed.refuse(settings, specs[0].node_id, is_map=True)
    if len(specs) > 1:
        raise SettingsError(
            f"The task group of node {specs[0].node_id} has a mapped electron, which cannot be packed with others: "
            "turn off task packing (ct.set_config('sdk.task_packing', 'false'))."
        )
    (spec,) = specs
    scratch = await asyncio.to_thread(cache_folder.scratch, settings.cache_dir)
    with contextlib.ExitStack() as files:
        with local_files.errors_about(scratch):
            os.makedirs(scratch, exist_ok=True)
            folder = files.enter_context(tempfile.TemporaryDirectory(prefix="cirro-items-", dir=scratch))
        lists = {
            name: await _list_of(engine, launch, settings, group, spec, name, folder) for name in names[spec.node_id]
        }
        plan = _plan(settings, _called(group, spec), lists)
        function = group.nodes[spec.node_id].paths["function"]
        yield await asyncio.to_thread(_with_digests, plan, folder, settings, function) if plan.length else plan


def _with_digests(plan: MapPlan, folder: str, settings: Settings, function: str) -> MapPlan:
    packages = {local_packages.name_of(local_packages.locate(each)) for each in settings.local_packages}
    with local_files.errors_about(function), open(function, "rb") as file:
        pickled = tobj.PickleFile(file, tobj.read_header(file)).read(item_digests.SMALL_BYTES + 1) or b""
    known = pickled if len(pickled) <= item_digests.SMALL_BYTES else b""
    digests = item_digests.of_lists(list(plan.lists.values()), packages, known)
    path = os.path.join(folder, "digests")
    with local_files.errors_about(path), open(path, "wb") as file:
        file.write(digests.data)
    return plan._replace(folder=folder, digests=path, need_modules=digests.need_modules)


def _plan(settings: Settings, electron: str, lists: Mapping[str, ListFile]) -> MapPlan:
    lengths = {name: len(each.ends) for name, each in lists.items()}
    if words := unequal(lengths):
        raise SettingsError(f"{electron}: {words} Nothing was submitted.")
    length = next(iter(lengths.values()))
    if length > MAX_ITEMS:
        raise SettingsError(f"{electron} is mapped over {length:,} items; a map has {MAX_ITEMS:,} at most.")
    children = shares.shared(length, settings.array_size) if length else ()
    if any(stop - first > MAX_CHILD_ITEMS for first, stop in children):
        least = -(-length // MAX_CHILD_ITEMS)
        raise SettingsError(
            f"{electron} is mapped over {length:,} items, and array_size={settings.array_size} gives a job more than "
            f"{MAX_CHILD_ITEMS:,} of them: set array_size={least} or more on its executor. Nothing was submitted."
        )
    return MapPlan(
        length=length,
        children=children,
        lists=lists,
        parallel=settings.array_parallel,
        on_error=settings.on_error,
    )


def _called(group: Group, spec: ElectronSpec) -> str:
    return f"{group.nodes[spec.node_id].name!r} (node {spec.node_id})"


async def _list_of(
    engine: Engine,
    launch: Launch,
    settings: Settings,
    group: Group,
    spec: ElectronSpec,
    name: str,
    folder: str,
) -> ListFile:
    path = group.inputs.get(spec.kwargs[name]) if name in spec.kwargs else None
    if path is None:
        raise SettingsError(
            f"{_called(group, spec)} is mapped over {name!r}, which it did not get by name: write @mapped(...) above "
            "@ct.electron(...), not below it."
        )
    ends = await asyncio.to_thread(_ends, path)
    if ends is not None:
        return ListFile(path, True, ends)
    with local_files.errors_about(folder):
        place = tempfile.mkdtemp(dir=folder)
    what = f"{_called(group, spec)} is mapped over {name!r}"
    given = await asyncio.to_thread(_reference_in, path)
    ref = {"tobj": path} if given is None else {"pickle": await _fetch(engine, settings, given, place, what)}
    split = await _split(launch, ref, place, what)
    ends = await asyncio.to_thread(_ends_of_plain, split)
    if ends is None:
        raise SettingsError(f"{what}, whose items cannot be told apart.")
    return ListFile(split, False, ends)


def _ends(path: str) -> list[int] | None:
    with local_files.errors_about(path), open(path, "rb") as file:
        raw = tobj.PickleFile(file, tobj.read_header(file))
        return nested.item_ends(cast(BinaryIO, io.BufferedReader(raw, _SCAN_BYTES)))


def _ends_of_plain(path: str) -> list[int] | None:
    with local_files.errors_about(path), open(path, "rb") as file:
        return nested.item_ends(file)


def _reference_in(path: str) -> StoredReference | None:
    """What the handle of a stored value names that is all of a file's pickle; `None` for other values."""
    with local_files.errors_about(path), open(path, "rb") as file:
        return stored_references.of_handle(tobj.PickleFile(file, tobj.read_header(file)).read(MAX_CHARS) or b"")


async def _fetch(engine: Engine, settings: Settings, reference: StoredReference, place: str, what: str) -> str:
    """Fetch a stored list; returns the path of its pickle."""
    if reference.kind != VALUE:
        raise SettingsError(f"{what}, which must be a list, and is a stored {reference.label}. Nothing was submitted.")
    stored = stored_inputs.named([reference], settings.s3_bucket_name, settings.key_prefix)
    await stored_inputs.require(engine.store, reference.bucket, reference.prefix, stored)
    path = os.path.join(place, _FETCHED)

    @contextlib.contextmanager
    def begin() -> Iterator[Callable[[bytes], object]]:
        with local_files.errors_about(path), open(path, "wb") as file:
            yield file.write

    local_files.require_room(place, reference.blob.raw_size)
    await engine.store.read_into(reference.blob, reference.bucket, reference.prefix, begin)
    return path


async def _split(launch: Launch, ref: Mapping[str, str], place: str, what: str) -> str:
    """Have a process write a list as a pickle of pickles; returns the path of that file.

    Args:
        launch: The task group.
        ref: Where the list is, as a request of ``covalent_cirro.runner.host`` has it.
        place: Folder for files.
        what: What is mapped, for messages.
    """
    module, name, left = _SPLIT
    function = os.path.join(place, "split.tobj")
    await asyncio.to_thread(_write_reference, function, module, name)
    task: dict[str, Any] = {
        "node_id": launch.node_ids[0],
        "name": "split",
        "function": function,
        "hands_on": False,
        "keeps_handles": True,
        "args": [ref],
        "kwargs": {},
    }
    async with host_process.run(launch, [task], assets.check_version(), place) as ended:
        if isinstance(ended, BrokenProcess):
            raise SettingsError(
                f"{what}, whose value could not be opened on the server's host to share its items: the process ended "
                f"with exit code {ended.code}. {ended.said} Nothing was submitted. Give it more memory. {_INSTEAD}"
            )
        (run,) = ended
        if run.failure is not None:
            lacks = (
                f"it has no module {run.failure.module!r}" if run.failure.module else run.failure.message.rstrip(".")
            )
            raise SettingsError(
                f"{what}. The value was opened on the server's host to share its items: {lacks}. Nothing was "
                f"submitted. {_INSTALL if run.elsewhere else ''}".strip()
            )
        return await asyncio.to_thread(_take, os.path.join(run.folder, left), os.path.join(place, left))


def _take(source: str, path: str) -> str:
    try:
        with open_untrusted(source) as file, open(path, "wb") as to:
            shutil.copyfileobj(file, to)
    except ValueError as error:
        raise SettingsError(f"The items of a list were not left where they should be: {error}") from error
    return path


def _write_reference(path: str, module: str, name: str) -> None:
    """Write a file with a reference to a function, as Covalent would.

    In the opcodes of `pickletools`: PROTO 4, GLOBAL, STOP. Written by hand, because the server's process does not
    import what could unpickle.
    """
    fields = tobj.header_fields(name, "", platform.python_version(), importlib.metadata.version("cloudpickle"))
    with local_files.errors_about(path), open(path, "wb") as file:
        writer = tobj.Writer(file, fields, b"")
        writer.write(f"\x80\x04c{module}\n{name}\n.".encode("latin-1"))
        writer.close()

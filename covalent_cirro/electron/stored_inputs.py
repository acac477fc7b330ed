"""Finds the stored values (`covalent_cirro.stored`) that electrons' inputs name, checks and renews them.

Their bytes are in the bucket already. Inputs are searched for the text of references; nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from covalent_cirro.aws.blobs import Source
from covalent_cirro.aws.store import Store
from covalent_cirro.contract import stored_references, tobj
from covalent_cirro.contract.limits import MAX_STORED
from covalent_cirro.contract.references import Blob, StoredInput
from covalent_cirro.contract.stored_references import ReferenceFinder, StoredReference
from covalent_cirro.covalent_server import assets
from covalent_cirro.electron.engine.engine import Engine
from covalent_cirro.errors import CirroError, SettingsError, StoredError
from covalent_cirro.settings import Settings

log = logging.getLogger(__name__)

CHECKED_AT_ONCE = 16
"""HeadObject calls at a time."""

LOOK_AGAIN_S = 24 * 3600.0
"""Seconds after which the stored values of a dispatch that goes on are looked at again."""

REMEMBERED_DISPATCHES = 1000


def named(references: Iterable[StoredReference], bucket: str, prefix: str) -> tuple[StoredInput, ...]:
    """The stored values of a call.

    Args:
        references: What its functions, hooks and arguments name.
        bucket: Bucket of the executor.
        prefix: Prefix of the executor's keys.

    Raises:
        SettingsError: One is in another bucket, which the job cannot read; or there are too many.
    """
    found: dict[str, StoredInput] = {}
    for each in references:
        if (each.bucket, each.prefix) != (bucket, prefix):
            raise SettingsError(
                f"The stored {each.label} is at s3://{each.bucket}/{each.prefix}, and this electron's executor has "
                f"s3://{bucket}/{prefix} (s3_bucket_name, s3_prefix): its job may not read there. Store it with the "
                "same settings: stored(..., executor=...) takes the electron's executor."
            )
        for blob in (each.blob, *each.within):
            label = each.label if blob == each.blob else f"value inside of {each.label}"
            found.setdefault(blob.sha256, StoredInput(label, blob))
    if len(found) > MAX_STORED:
        raise SettingsError(
            f"The inputs of this electron name {len(found)} stored values, and {MAX_STORED} are possible. Store their "
            "folder: stored(path=...)."
        )
    return tuple(found.values())


def in_hooks(path: str) -> tuple[StoredReference, ...]:
    """The references in Covalent's ``hooks.json``, whose pickles are base64; none in a file that is no JSON."""
    try:
        with open(path, "rb") as file:
            hooks = json.load(file)
    except (OSError, ValueError, RecursionError):  # the upload or the job says what is wrong with it
        return ()
    return tuple(each for data in _pickles(hooks) for each in stored_references.find(data))


def _pickles(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "_object" and isinstance(each, str):
                with contextlib.suppress(binascii.Error):
                    yield base64.b64decode(each, validate=True)
            else:
                yield from _pickles(each)
    elif isinstance(value, list):
        for each in value:
            yield from _pickles(each)


async def require(store: Store, bucket: str, prefix: str, stored: Iterable[StoredInput]) -> None:
    """Check that stored values are in the bucket; old ones are renewed, so that they do not expire.

    Raises:
        StoredError: One is gone. No job is submitted.
    """
    at_once = asyncio.Semaphore(CHECKED_AT_ONCE)

    async def is_there(blob: Blob) -> bool:
        async with at_once:
            return await store.keep(blob, bucket, prefix)

    listed = list(stored)
    there = await asyncio.gather(*(is_there(each.blob) for each in listed))
    gone = [each for each, found in zip(listed, there, strict=True) if not found]
    if gone:
        raise StoredError(_gone(gone, bucket, prefix))


def _gone(gone: list[StoredInput], bucket: str, prefix: str) -> str:
    first, more = gone[0], f" and {len(gone) - 1} more" if len(gone) > 1 else ""
    return (
        f"The stored {first.label}{more} that this electron is called with is not in the bucket any more: "
        f"s3://{bucket}/{prefix}blobs/{first.blob.sha256} was deleted, or has expired since it was last used. No job "
        "was submitted. Call stored() again with the same value, and then redispatch: handles that were made before "
        "name it, too."
    )


# --- what later electrons of a dispatch need --------------------------------------------------------------------------

_looked: WeakKeyDictionary[Engine, OrderedDict[str, float]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def kept_for_dispatch(engine: Engine, settings: Settings, dispatch_id: str) -> AsyncIterator[None]:
    """While an electron of a dispatch waits, renew the stored values that the dispatch's other electrons will need.

    At most once in `LOOK_AGAIN_S` for each dispatch. Never raises: an electron whose value is gone says so itself.
    """
    keeping = asyncio.create_task(_keep(engine, settings, dispatch_id))
    try:
        yield
    finally:
        keeping.cancel()


async def _keep(engine: Engine, settings: Settings, dispatch_id: str) -> None:
    looked = _looked.setdefault(engine, OrderedDict())
    while True:
        wait_s = looked.get(dispatch_id, -LOOK_AGAIN_S) + LOOK_AGAIN_S - time.monotonic()
        if dispatch_id in looked and wait_s > 0:
            await asyncio.sleep(wait_s)
            continue
        looked[dispatch_id] = time.monotonic()
        while len(looked) > REMEMBERED_DISPATCHES:
            looked.popitem(last=False)
        try:
            references = await asyncio.to_thread(of_dispatch, dispatch_id)
            bucket, prefix = settings.s3_bucket_name, settings.key_prefix
            ours = [each for each in references if (each.bucket, each.prefix) == (bucket, prefix)]
            await require(engine.store, bucket, prefix, named(ours, bucket, prefix))
        except StoredError as error:
            log.warning("An electron of dispatch %s will fail: %s", dispatch_id, error)
        except CirroError as error:
            log.warning("Stored values of dispatch %s could not be renewed: %s", dispatch_id, error)
        except Exception:
            log.exception("Stored values of dispatch %s could not be renewed", dispatch_id)


def of_dispatch(dispatch_id: str) -> list[StoredReference]:
    """The references in the functions and values of a dispatch, and of the dispatches whose sublattice it is."""
    finder = ReferenceFinder()
    found: dict[StoredReference, None] = {}
    for key, path in assets.files_of_inputs(dispatch_id):
        if key == "hooks":
            found |= dict.fromkeys(in_hooks(path))
            continue
        if not os.path.exists(path):  # a node of Covalent's without a function
            continue
        with contextlib.suppress(tobj.TobjError):
            for chunk in Source(path, is_tobj=True).chunks():
                finder.see(chunk)
        finder.see(b"\n")  # references do not go on in the next file
    return list(found | finder.found)

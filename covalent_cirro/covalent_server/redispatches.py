"""Tells electrons of a redispatch which dispatch it repeats, so that their executor can reuse results of it.

``ct.redispatch(..., reuse_previous_results=True)`` reuses whole electrons, those that have a result and whose arguments
are equal. Covalent's database does not say what a dispatch repeats (0.240: ``_dal/importers/result.py``,
``handle_redispatch``); its server knows it only while it takes the manifest of a redispatch. So the function that takes
it is wrapped, in the server, and leaves the id with the attributes of each electron's executor, which Covalent stores
and gives to the executor.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from covalent_cirro.covalent_server.assets import OURS, check_version

log = logging.getLogger(__name__)

ATTRIBUTE = "redispatch_of"
"""Name of the executor's attribute: whole id of the dispatch that a redispatch repeats with its results."""


def install() -> None:
    """Have this process, a Covalent server, leave that id with the executors of redispatched electrons.

    Raises:
        HostError: The version of Covalent is another one than this module was written for.
    """
    check_version()
    from covalent_dispatcher._core.data_modules import importer

    take = importer._import_derived_manifest

    @functools.wraps(take)
    def take_with_parent(manifest: Any, parent_dispatch_id: str, reuse_previous_results: bool) -> Any:
        try:
            note_parent(manifest, parent_dispatch_id if reuse_previous_results else None)
        except Exception:  # then the redispatch computes what it could reuse
            log.exception("Maps of the redispatch of %s will not reuse its items", parent_dispatch_id)
        return take(manifest, parent_dispatch_id, reuse_previous_results)

    importer._import_derived_manifest = take_with_parent


def note_parent(manifest: Any, parent: str | None) -> None:
    """Write the id of the dispatch that a redispatch repeats into its manifest; `None` removes an earlier one.

    Args:
        manifest: Covalent's ``ResultSchema`` of the redispatch.
        parent: Whole id of a dispatch whose results may be reused.
    """
    for node in manifest.lattice.transport_graph.nodes:
        metadata = node.metadata
        if metadata.executor != OURS:
            continue
        # Covalent stores no data of an executor that was given by its name alone.
        data = metadata.executor_data or {"type": OURS, "short_name": OURS}
        attributes = {name: value for name, value in (data.get("attributes") or {}).items() if name != ATTRIBUTE}
        if parent is not None:
            attributes[ATTRIBUTE] = parent
        metadata.executor_data = {**data, "attributes": attributes}

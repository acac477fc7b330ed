"""Computes the items of a mapped electron, in the electron's process: one after another, or some at a time.

Imported for mapped electrons only. Each result is appended to the body of a list in a local file at once, so that
memory does not grow with the results (`item_journal.py`).
"""

from __future__ import annotations

import os
from typing import Any

from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.maps import ITEM_VARIABLE
from covalent_cirro.runner import results
from covalent_cirro.runner.failures import NoResult
from covalent_cirro.runner.item_function import ItemFunction, Share
from covalent_cirro.runner.item_journal import ItemWriter


def compute_all(share: Share, function: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Compute the items of a share (`tasks.Compute`).

    Raises:
        NoResult: The job ends without the results of all items, or with ones that failed.
    """
    call = ItemFunction(share, function, args, kwargs)
    with results.writing():
        journal = ItemWriter(share.folder)
    if share.parallel > 1:
        from covalent_cirro.runner.item_workers import compute_in_parallel

        failed = compute_in_parallel(share, call, journal)
    else:
        failed = _compute_in_turn(share, call, journal)
    os.environ.pop(ITEM_VARIABLE, None)
    if failed and share.on_error != "return":
        # As after an electron that raised, nothing that was to follow it is called. The supervisor says which failed.
        raise NoResult(Failure(Kind.ITEMS, "items failed"))


def _compute_in_turn(share: Share, call: ItemFunction, journal: ItemWriter) -> bool:
    """Compute the items one after another; whether one failed. With ``on_error="stop"`` none begins after that."""
    failed = False
    for item in range(share.first, share.stop):
        seconds, failure = call.compute(item, journal.body)
        with results.writing():
            journal.done(seconds, failure)
        failed = failed or failure is not None
        if failed and share.on_error == "stop":
            break
    return failed

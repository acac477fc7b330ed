"""Splits a list into pickles of its items, in the process that opens results on the server's host.

The server has the process call `split` (``electron/maps/inputs.py``), and reads the file without unpickling an item.
"""

from __future__ import annotations

from typing import Any

import cloudpickle

from covalent_cirro.contract import nested
from covalent_cirro.contract.item_values import items_of

FILE = "items.pickle"
"""Name of the file, in the working folder: a pickle of pickles (`contract/nested.py`)."""


def split(value: Any) -> int:
    """Write the items of a list into `FILE`; returns their number.

    Raises:
        TypeError: The value is no list of items.
    """
    items = items_of(value, "The value")
    with open(FILE, "wb") as file:
        file.write(nested.LIST_HEAD)
        for each in items:
            file.write(nested.item_of(cloudpickle.dumps(each)))
        file.write(nested.LIST_TAIL)
    return len(items)

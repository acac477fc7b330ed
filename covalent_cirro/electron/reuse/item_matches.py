"""Which items of a list are the same as those of an earlier list, by their digests. Pure."""

from __future__ import annotations

from array import array

from covalent_cirro.contract.maps import DIGEST_BYTES

NONE = -1
"""The item is the same as no item of the earlier list."""


def matches(mine: bytes, theirs: bytes, *, wanted: bytearray, usable: bytearray, same_place: bool) -> array[int]:
    """For each item of a list the index of an equal one of an earlier list, or `NONE`.

    Each item of the earlier list is taken once at most: items that are equal may have different results, of a function
    that draws random numbers.

    Args:
        mine: Digests of the items of the list.
        theirs: Digests of the items of the earlier list.
        wanted: For each item of the list whether one is looked for.
        usable: For each item of the earlier list whether it has a result.
        same_place: Items are the same only at the same place of lists of the same length.
    """
    found = array("q", [NONE]) * len(wanted)
    if same_place:
        if len(mine) == len(theirs):
            for item, is_wanted in enumerate(wanted):
                if is_wanted and usable[item] and _digest(mine, item) == _digest(theirs, item):
                    found[item] = item
        return found
    first: dict[bytes, int] = {}
    following = array("q", [NONE]) * len(usable)  # of equal items, the next one
    for item in range(len(usable) - 1, -1, -1):
        if usable[item]:
            digest = _digest(theirs, item)
            following[item] = first.get(digest, NONE)
            first[digest] = item
    for item, is_wanted in enumerate(wanted):
        if is_wanted and (other := first.get(_digest(mine, item), NONE)) != NONE:
            found[item] = other
            first[_digest(mine, item)] = following[other]
    return found


def _digest(digests: bytes, item: int) -> bytes:
    return digests[item * DIGEST_BYTES : (item + 1) * DIGEST_BYTES]

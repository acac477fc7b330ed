"""What users read about a reused electron. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from covalent_cirro.contract.maps import ReusedItems
from covalent_cirro.contract.places import Location, parse_call_uri
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Reused

REUSED = "REUSED"
"""State of an electron that has the results of an earlier job, and no job of its own."""

PARAMETER = "not_reused"
"""Parameter of a job that says why no results of an earlier one were reused, for lists that read no ``call.json``."""

PARAMETER_CHARS = 600
"""Most characters of the parameter: a request for a job has room for 30 KiB (AWS Batch User Guide, Service quotas)."""


def origin_text(reused: Reused) -> str:
    """Which job the results come from, in a few words."""
    try:
        origin = parse_call_uri(reused.origin)
    except ProtocolError:
        return f"reused from job {reused.job_id}"
    if reused.items is not None:
        return reused_text(reused.items)
    return f"reused from job {reused.job_id} of dispatch {origin.dispatch_id}, node {origin.node_id}"


def reused_text(items: ReusedItems) -> str:
    """How many items of a map are reused: ``9,990 of 10,000 items reused from DISPATCH:NODE``."""
    return f"{items.reused_count:,} of {items.length:,} items reused from {_electron(items.origin)}"


def items_not_reused(count: int, without_result: int, length: int, origin: str) -> str:
    """Why some items of a map are computed, although others are reused.

    Args:
        count: Number of items that are computed.
        without_result: How many of them were in the earlier map, and have no result there that can be reused.
        length: Number of items of the whole list.
        origin: URI of the call of the earlier map.
    """
    reasons = []
    if count > without_result:
        reasons.append(f"{count - without_result:,} {_are(count - without_result)} not in the earlier dispatch")
    if without_result:
        reasons.append(f"{without_result:,} without a result there that can be reused")
    rest = f"{length - count:,} of {length:,} items reused from {_electron(origin)}"
    return f"{count:,} of {length:,} items ({', '.join(reasons)}). {rest}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _electron(origin: str) -> str:
    try:
        place = parse_call_uri(origin)
    except ProtocolError:
        return "an earlier map"
    return f"{place.dispatch_id}:{place.node_id}"


def checked_origin(place: Location, reused: Reused) -> Location:
    """The origin that a ``reused.json`` names, which must be a call in the same bucket, under the same prefix.

    Raises:
        ProtocolError: The origin is in another bucket, or under another prefix.
    """
    origin = parse_call_uri(reused.origin)
    if (origin.bucket, origin.prefix) != (place.bucket, place.prefix):
        raise ProtocolError(f"reused.json names {reused.origin}, which is not in s3://{place.bucket}/{place.prefix}")
    return origin


def reason_lines(not_reused: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each reason why electrons were not reused, the most frequent first.

    Args:
        not_reused: Name and reason of each electron.
    """
    by_reason: dict[str, Counter[str]] = {}
    for name, why in not_reused:
        by_reason.setdefault(why, Counter())[name] += 1
    found = sorted(by_reason.items(), key=lambda each: -each[1].total())
    return [f"{_names(names)}: not reused: {why}" for why, names in found]


NAMES = 5
"""Most names of electrons in a line."""


def _names(names: Counter[str]) -> str:
    shown = [name if number == 1 else f"{name} ({number})" for name, number in names.most_common(NAMES)]
    rest = names.total() - sum(number for _, number in names.most_common(NAMES))
    return ", ".join(shown) + (f" and {rest} more" if rest else "")

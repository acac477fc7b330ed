"""How times, sizes and money are written for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone

from covalent_cirro.settings.constants import MIB_PER_GB

MIB = 1024 * 1024
"""Bytes of a MiB."""

GIB = 1024 * MIB
"""Bytes of a GiB, which the option ``memory`` calls GB."""

_THOUSANDTH = 0.001
_UNITS = ("bytes", "KiB", "MiB", "GiB")

# --- times ------------------------------------------------------------------------------------------------------------


def moment(epoch_s: float) -> str:
    """A time in UTC, to the second: ``2026-07-20 14:03:09``. Where nothing else says that it is UTC: `moment_utc`."""
    return datetime.fromtimestamp(epoch_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def moment_utc(epoch_s: float | None) -> str:
    """A time with the name of its zone, ``2026-07-20 14:03:09 UTC``; a question mark for an unknown time."""
    return "?" if epoch_s is None else f"{moment(epoch_s)} UTC"


def duration(seconds: float) -> str:
    """A measured time in at most two units: ``80 ms``, ``9.5 s``, ``42 s``, ``3 min 20 s``, ``2 h``, ``31 h 5 min``."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def elapsed(seconds: float) -> str:
    """A time that goes on, in whole seconds: ``0.4 s``, ``42 s``, ``3 min 20 s``, ``2 h 0 min``, ``6 d 3 h``."""
    whole = int(max(0.0, seconds))
    if whole < 1:
        return f"{max(0.0, seconds):.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def minutes(seconds: float) -> str:
    """A long time in whole minutes: ``0 min``, ``45 min``, ``11 h 5 min``."""
    whole = max(0, round(seconds / 60))
    return f"{whole // 60} h {whole % 60} min" if whole >= 60 else f"{whole} min"


# --- sizes ------------------------------------------------------------------------------------------------------------


def memory(mib: float) -> str:
    """An amount of memory: ``512 MiB``, ``3.8 GiB``."""
    if mib < 1024:
        return f"{mib:.0f} MiB"
    return f"{mib / 1024:.3g} GiB" if mib < 1000 * 1024 else f"{mib / 1024:,.0f} GiB"


def gigabytes(mib: float | None) -> str:
    """An amount of memory in the unit of the option ``memory``, ``3.8 GB``; a question mark for an unknown amount."""
    if mib is None:
        return "?"
    return f"{mib:.0f} MiB" if mib < MIB_PER_GB else f"{mib / MIB_PER_GB:.3g} GB"


def option_memory(mib: float) -> str:
    """An amount of memory as the option ``memory`` takes it: ``3.75``."""
    return f"{round(mib / MIB_PER_GB, 3):g}"


def size(size_bytes: int) -> str:
    """Stored bytes: ``812 bytes``, ``1.5 MiB``, ``1,204.0 GiB``."""
    amount, units = float(size_bytes), list(_UNITS)
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:,.0f} {units[0]}" if units[0] == _UNITS[0] else f"{amount:,.1f} {units[0]}"


def megabytes(size_bytes: int) -> str:
    """The size of an image as Docker shows it, in millions of bytes: ``812 MB``."""
    return f"{size_bytes / 1e6:.0f} MB"


# --- texts ------------------------------------------------------------------------------------------------------------

_ENDS = (".", "!", "?", "…", ":")
"""Ends of a sentence, also before a closing quote or bracket."""


def sentences(*parts: str) -> str:
    """Texts from several places as one: each but the last ends with a full stop; empty ones are left out."""
    *others, last = [part.strip() for part in parts if part.strip()] or [""]
    return " ".join([*(each if each.rstrip("`'\")]").endswith(_ENDS) else f"{each}." for each in others), last])


# --- money and numbers ------------------------------------------------------------------------------------------------


def usd(amount: float | None) -> str:
    """US dollars: ``$12.30``, below one dollar two or three digits that count, ``$0.0045``; ``?``: unknown."""
    if amount is None:
        return "?"
    if amount <= 0 or amount >= 1:
        return f"${amount:,.2f}" if amount > 0 else "$0"
    digits = 3 if amount >= _THOUSANDTH else 2
    return f"${amount:.{digits - 1 - math.floor(math.log10(amount))}f}"


def counted(counts: Mapping[str, int]) -> str:
    """Numbers with what they count: ``3 RUNNING, 1 FAILED``."""
    return ", ".join(f"{number} {what}" for what, number in counts.items())
